//! nginx looks names up once, when it starts: after a deploy it keeps sending to an address that is gone.

use std::collections::BTreeSet;

use kaleem_core::names::ServiceName;
use kaleem_core::observed::nginx::remembered;

use super::{Answer, Patient};

/// No nginx of the project remembers the address of a service.
pub(super) fn cached_names(patient: &Patient<'_>) -> Vec<Answer> {
    let services: BTreeSet<&str> = patient.project.services.keys().map(ServiceName::as_str).collect();
    let mut found = Vec::new();
    for (container, (service, configuration)) in &patient.configurations {
        let names = remembered(configuration, &services);
        for name in &names {
            let message =
                format!("nginx in `{container}` looks `{name}` up once, when it starts, and keeps sending to that address after a deploy");
            let remedy = format!("use `resolver 127.0.0.11 valid=5s;` and a variable: `set $to http://{name}:PORT; proxy_pass $to;`");
            found.push(Answer::warn("nginx-dns", message, remedy).of(service));
        }
        if names.is_empty() {
            found.push(Answer::ok("nginx-dns", format!("nginx in `{container}` remembers no address of a service")).of(service));
        }
    }
    found
}
