//! nginx looks names up once, when it starts: a service whose address moves with a deploy is lost to it. A gateway keeps its address.

use std::collections::BTreeSet;

use kaleem_core::names::ServiceName;
use kaleem_core::observed::gateway_of;
use kaleem_core::observed::nginx::remembered;

use super::{Answer, Patient};

/// No nginx of the project remembers the address of a service that has no gateway.
pub(super) fn cached_names(patient: &Patient<'_>) -> Vec<Answer> {
    let project = patient.project;
    let moves = |name: &&ServiceName| gateway_of(&project.name, name, &patient.instances).is_none();
    let services: BTreeSet<&str> = project.services.keys().filter(moves).map(ServiceName::as_str).collect();
    let mut found = Vec::new();
    for (container, (service, configuration)) in &patient.configurations {
        let names = remembered(configuration, &services);
        for name in &names {
            let message = format!(
                "nginx in `{container}` looks `{name}` up once, when it starts; `{name}` has no gateway, so that a deploy can change its address"
            );
            let remedy = format!("use `resolver 127.0.0.11 valid=5s;` and a variable: `set $to http://{name}:PORT; proxy_pass $to;`");
            found.push(Answer::warn("nginx-dns", message, remedy).of(service));
        }
        if names.is_empty() {
            found.push(Answer::ok("nginx-dns", format!("nginx in `{container}` finds every service after a deploy")).of(service));
        }
    }
    found
}
