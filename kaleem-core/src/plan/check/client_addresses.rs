//! What a service sees of its clients once a gateway stands before it.

use super::{Objection, Severity, objection, starting};
use crate::names::ServiceName;
use crate::observed::{Observed, gateway_of};
use crate::plan::Plan;

/// Says at the deploy that puts a gateway before a service what it sees from then on: once, not at every deploy.
pub(super) fn rule(plan: &Plan, observed: &Observed) -> Vec<Objection> {
    let project = &plan.release.target.project;
    let (mut told, mut hidden): (Vec<&ServiceName>, Vec<String>) = (Vec::new(), Vec::new());
    for (name, wanted) in starting(plan) {
        let Some(gateway) = wanted.gateway.as_ref().filter(|_| gateway_of(project, name, &observed.instances).is_none()) else { continue };
        if gateway.hidden_ports.is_empty() {
            told.push(name);
        } else {
            let ports = gateway.hidden_ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            hidden.push(format!("`{name}` (port {ports})"));
        }
    }
    let mut found = Vec::new();
    if !told.is_empty() {
        let names = told.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let message = format!(
            "behind a gateway {names} will see its address; `X-Forwarded-For`, or the PROXY protocol, carries the address of the client"
        );
        let remedy = "where a service limits, allows or logs by address, have it read that header, or set `gateway = false` for it";
        found.push(objection("client-address", Severity::Note, None, message, remedy));
    }
    if !hidden.is_empty() {
        let message = format!("behind a gateway {} will see its address, and nothing carries the address of the client", hidden.join(", "));
        let remedy = "where it matters, set `proxy-protocol = \"out\"` (the service must understand it) or `gateway = false`";
        found.push(objection("client-address", Severity::Note, None, message, remedy));
    }
    found
}
