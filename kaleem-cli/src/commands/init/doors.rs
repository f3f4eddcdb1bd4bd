//! `[front-door]` in what `kaleem init` writes: what the file said stays, and what is found now comes after it. A door that gives no answer is
//! a comment: named, each plan would warn of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use kaleem_core::config::Project;
use kaleem_core::observed::doors::{DoorOrigin, Proposal};

use super::line;

pub(super) fn write(text: &mut String, project: &Project, proposals: &[Proposal]) {
    let said = &project.settings.front_door;
    let new: Vec<&Proposal> = proposals.iter().filter(|one| !said.values().any(|door| door.url == one.door.url)).collect();
    if said.is_empty() && new.is_empty() {
        return;
    }
    line(text, "");
    line(
        text,
        "# Where your users ask. What answers here before a deploy must answer after it, or the deploy is rolled back. kaleem checks these",
    );
    line(
        text,
        "# addresses in any case; for one that is written here, the plan also warns when it gives no answer before the deploy. Remove what",
    );
    line(text, "# nobody uses, and write `status = 200` where only that is right.");
    for (name, door) in said {
        line(text, "");
        entry(text, "", name, &door.url, door.connect.map(|place| place.to_string()).as_deref());
        if let Some(status) = door.status {
            line(text, &format!("status = {status}"));
        }
    }
    for one in new {
        let mut name = one.name.clone();
        while said.contains_key(&name) {
            name.push_str("-found");
        }
        let origin = match &one.origin {
            DoorOrigin::Port { service, port } => {
                let (host, _) = port.host_ports.unwrap_or_default();
                let address = port.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
                format!("`{service}` publishes {}", SocketAddr::new(address, host))
            }
            DoorOrigin::Route { nginx, service, path } => format!("`{nginx}` passes {path} to `{service}`"),
        };
        let connect = one.door.connect.map(|place| place.to_string()).filter(|place| !one.door.url.contains(&format!("://{place}/")));
        line(text, "");
        match &one.shut {
            None => {
                line(text, &format!("# {origin}."));
                entry(text, "", &name, &one.door.url, connect.as_deref());
            }
            Some(reason) => {
                line(text, &format!("# {origin}, and it gives no answer now: {}", reason.lines().next().unwrap_or_default()));
                entry(text, "# ", &name, &one.door.url, connect.as_deref());
            }
        }
    }
}

fn entry(text: &mut String, mark: &str, name: &str, url: &str, connect: Option<&str>) {
    let plain = !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter));
    let key = if plain { name.to_owned() } else { format!("{name:?}") };
    line(text, &format!("{mark}[front-door.{key}]"));
    line(text, &format!("{mark}url = {url:?}"));
    if let Some(connect) = connect {
        line(text, &format!("{mark}connect = {connect:?}"));
    }
}
