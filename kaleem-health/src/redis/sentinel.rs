//! Redis behind Sentinel: does a majority of sentinels agree on a master, and is that master well?

use std::time::Duration;

use kaleem_core::health::Finding;

use super::RedisProbe;
use super::wire::{Reply, Session, WireError};
use crate::dial::Endpoint;
use crate::report::Report;

const NEEDED: &str = "+ping +sentinel|get-master-addr-by-name +sentinel|ckquorum";

impl RedisProbe {
    pub(super) async fn sentinel(&self, master: &str, timeout: Duration) -> Finding {
        let mut session = match self.open(&self.endpoint, timeout).await {
            Ok(session) => session,
            Err(error) => return error.finding(&self.endpoint, &self.login, NEEDED),
        };
        let mut report = Report::default();
        let place = match ask(&mut session, master, &mut report).await {
            Ok(Some(place)) => place,
            Ok(None) => {
                report.fail(
                    format!("Sentinel knows no master `{master}`"),
                    "compare the name with `sentinel monitor` of its configuration: `redis-cli -p 26379 sentinel masters`",
                );
                return report.finish("");
            }
            Err(error) => return error.finding(&self.endpoint, &self.login, NEEDED),
        };
        let endpoint = Endpoint { host: place.0, port: place.1, tls: self.endpoint.tls.clone() };
        let finding = self.server(&endpoint, self.settings.canary, timeout).await;
        let well = format!("{}; named by Sentinel, which has its quorum", finding.reason);
        report.take("the master", finding);
        report.finish(well)
    }
}

async fn ask(session: &mut Session, master: &str, report: &mut Report) -> Result<Option<(String, u16)>, WireError> {
    match session.ask(&["SENTINEL", "CKQUORUM", master]).await? {
        Reply::Error(code) if code == "NOQUORUM" => report.fail(
            format!("too few sentinels of `{master}` are there to fail over"),
            "start the missing sentinels: `redis-cli -p 26379 sentinel sentinels NAME`",
        ),
        Reply::Error(code) if code == "NOPERM" || code == "NOAUTH" => return Err(WireError::Refused(code)),
        // No such master, which the next question tells too; or an answer, which is well.
        _ => {}
    }
    match session.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", master]).await? {
        Reply::Array(parts) => match parts.as_slice() {
            [Reply::Text(host), Reply::Text(port)] => Ok(port.parse().ok().map(|port| (host.clone(), port))),
            _ => Err(WireError::NotRedis),
        },
        Reply::Nil => Ok(None),
        Reply::Error(code) => Err(WireError::Refused(code)),
        Reply::Text(_) => Err(WireError::NotRedis),
    }
}
