//! Does a client get an answer at the front door?

use std::sync::Arc;
use std::time::Duration;

use kaleem_core::health::{Door, Finding, Verdict};
use url::Url;

use crate::dial::{Endpoint, dial};
use crate::report::bounded;
use crate::resolver::KnownHosts;
use crate::web::client::Client;

/// Asks once. Redirects are answers, and not followed.
pub(crate) async fn ask(door: &Door, timeout: Duration) -> Finding {
    bounded(timeout, attempt(door, timeout), || Finding::new(Verdict::Fail, format!("no complete answer from {door} within {timeout:?}")))
        .await
}

async fn attempt(door: &Door, timeout: Duration) -> Finding {
    let Ok(url) = door.url.parse::<Url>() else {
        return Finding::new(Verdict::Unknown, format!("`{}` is not an address", door.url))
            .with_remedy("write it as http://, https:// or tcp://, with a host");
    };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let known = door.connect.map_or_else(KnownHosts::default, |place| KnownHosts::default().with_port(&host, port, place));
    if url.scheme() == "tcp" {
        let endpoint = Endpoint { host, port, tls: None };
        return match dial(&endpoint, &known, timeout).await {
            Ok(_) => Finding::new(Verdict::Ok, format!("{door} accepts connections")),
            Err(error) => error.finding(&endpoint),
        };
    }
    let Some(client) = Client::accepting_any(Arc::new(known)) else {
        return Finding::new(Verdict::Unknown, "this machine offers no TLS");
    };
    let (first, last) = door.statuses;
    match client.get(&url, &[], timeout).await {
        Err(error) => error.finding(&url),
        Ok(fetched) if fetched.is_cut => Finding::new(Verdict::Fail, format!("{door} answered {} and broke off", fetched.status)),
        Ok(fetched) if (first..=last).contains(&fetched.status) => Finding::new(Verdict::Ok, format!("{door} answered {}", fetched.status)),
        Ok(fetched) => Finding::new(Verdict::Fail, format!("{door} answered {}, expected {first} to {last}", fetched.status)),
    }
}
