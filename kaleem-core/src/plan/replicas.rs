//! Several containers of a service that has one port of the host, or one name: possible where a gateway has them.

use crate::config::{Project, Service};
use crate::definition::PortBinding;
use crate::plan::check::port_text;
use crate::plan::{Objection, Plan, PlanKind, Severity};
use crate::release::{Strategy, Wanted};

/// What its containers cannot have all at once.
enum Single<'a> {
    Port(&'a PortBinding),
    Name(&'a str),
}

impl std::fmt::Display for Single<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port(port) => write!(out, "publish the host's port {}", port_text(port)),
            Self::Name(name) => write!(out, "be called `{name}`"),
        }
    }
}

fn single(service: &Service) -> Option<Single<'_>> {
    let too_few = |port: &&PortBinding| {
        port.host_ports
            .is_some_and(|(first, last)| first != 0 && u32::from(last.saturating_sub(first)).saturating_add(1) < service.replicas)
    };
    let name = || service.container_name.as_ref().map(|name| Single::Name(name.as_str()));
    (service.replicas > 1).then(|| service.definition.ports.iter().find(too_few).map(Single::Port).or_else(name)).flatten()
}

/// Refuses where no gateway can have the port or the name, and notes where Compose would refuse what a gateway makes possible.
///
/// `files` is the project as its files say, `project` the same with the numbers of containers that were asked for.
pub fn objections(files: &Project, project: &Project, plan: &Plan) -> Vec<Objection> {
    let mut found = Vec::new();
    for (name, service) in &project.services {
        let (Some(single), Some(wanted)) = (single(service), plan.release.target.services.get(name)) else { continue };
        let objection = |rule: &str, severity, message: String, remedy: String| Objection {
            rule: rule.to_owned(),
            severity,
            service: Some(name.clone()),
            message,
            remedy,
        };
        let number = service.replicas;
        if wanted.gateway.is_none() {
            let message = format!("{number} containers of `{name}` cannot all {single}: {}", why(wanted, plan.kind));
            let remedy = match (&single, plan.kind) {
                (_, PlanKind::Eject) => {
                    format!("let the compose file run one container of `{name}`, then `kaleem deploy` and `kaleem eject`")
                }
                (Single::Port(_), _) => "publish a range of ports as long as the number of containers, or run one container".to_owned(),
                (Single::Name(_), _) => "remove `container_name`, or run one container".to_owned(),
            };
            found.push(objection("replicas-without-gateway", Severity::Refuse, message, remedy));
        } else if files.services.get(name).is_some_and(|said| self::single(said).is_some()) {
            let message = format!("the gateway of `{name}` lets {number} containers {single}; `docker compose up` refuses that");
            let remedy = "nothing to do while kaleem deploys it; before `kaleem eject` the compose file must run one container".to_owned();
            found.push(objection("replicas-behind-gateway", Severity::Note, message, remedy));
        }
    }
    found
}

/// Why it has no gateway.
fn why(wanted: &Wanted, kind: PlanKind) -> String {
    match (kind, wanted.strategy) {
        (PlanKind::Eject, _) => "plain Compose has no gateway".to_owned(),
        (_, Strategy::BlueGreen | Strategy::Rolling) => {
            "there is no gateway's program here (`kaleem-agent`), or no TCP port is known".to_owned()
        }
        (_, Strategy::Overlap | Strategy::Recreate | Strategy::RunToEnd) => format!("no gateway stands before it ({})", wanted.reason),
    }
}
