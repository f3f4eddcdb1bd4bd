//! The health checks of the management API: alarms of all nodes, virtual hosts, quorum, certificates.
//!
//! `/api/aliveness-test` is not asked: new versions answer it without looking at anything.

use std::time::Duration;

use url::Url;

use crate::report::Report;
use crate::web::client::{Client, FetchError, shown};

/// Path below `/api/health/checks/`, what is wrong when it fails, and what to do.
const CHECKS: [(&str, &str, &str); 6] = [
    (
        "alarms",
        "a memory or disk alarm is set in the cluster: nobody can publish",
        "see which: `rabbitmq-diagnostics alarms`; drain queues, free the disk, or raise the limit",
    ),
    (
        "local-alarms",
        "the alarm is one of this node",
        "see which: `rabbitmq-diagnostics check_local_alarms`; drain its queues, free its disk, or raise its limit",
    ),
    (
        "virtual-hosts",
        "a virtual host is not running",
        "see which: `rabbitmq-diagnostics check_virtual_hosts`; restart it: `rabbitmqctl restart_vhost -p NAME`",
    ),
    (
        "certificate-expiration/3/days",
        "a certificate of its listeners ends within 3 days",
        "renew it: `rabbitmq-diagnostics check_certificate_expiration --within 3 --unit days`",
    ),
    (
        "node-is-quorum-critical",
        "stopping this node would cost a quorum queue its majority",
        "start the missing nodes before this one is restarted",
    ),
    (
        "certificate-expiration/20/days",
        "a certificate of its listeners ends within 20 days",
        "renew it: `rabbitmq-diagnostics check_certificate_expiration --within 20 --unit days`",
    ),
];
/// These of them are failures; the others are warnings.
const FAILURES: usize = 4;

pub(super) async fn ask(report: &mut Report, url: &Url, client: &Client, timeout: Duration) {
    for (index, (path, wrong, remedy)) in CHECKS.iter().enumerate() {
        let mut place = url.clone();
        if let Ok(mut segments) = place.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "health", "checks"]).extend(path.split('/'));
        }
        let status = match client.get(&place, &[], timeout).await {
            Ok(fetched) => fetched.status,
            Err(FetchError::Dial(..)) => {
                report.unknown(
                    format!("the management API at {} cannot be reached", shown(url)),
                    "switch it on: `rabbitmq-plugins enable rabbitmq_management`; check its port (15672)",
                );
                return;
            }
            Err(error) => {
                report.take("the management API", error.finding(&place));
                return;
            }
        };
        match status {
            200 => {}
            503 if index < FAILURES => report.fail(*wrong, *remedy),
            // A failure said it already.
            503 => report.warn(*wrong, *remedy),
            // Seen with 3.10: where no CA file is set, the check breaks as soon as it has a certificate to tell of, and not before.
            500 if path.starts_with("certificate-expiration") => {
                let wrong =
                    format!("{wrong}, as it seems: the check itself breaks, which it does when there is one and no `cacertfile` is set");
                if index < FAILURES { report.fail(wrong, *remedy) } else { report.warn(wrong, *remedy) }
            }
            401 | 403 => {
                report.unknown(
                    "the management API does not accept the user or its tags",
                    "check the password, and grant the tag: `rabbitmqctl set_user_tags USER monitoring`",
                );
                return;
            }
            // Older versions have fewer checks.
            404 => {}
            other => report.fail(format!("the management API answered {other} to `{path}`"), "see the log of RabbitMQ"),
        }
    }
}
