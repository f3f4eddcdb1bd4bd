//! nginx looks names up once, when it starts: after a deploy it keeps sending to an address that is gone.

use std::collections::BTreeSet;

use kaleem_core::names::ServiceName;

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

/// Services that a configuration names literally, where nginx resolves them when it starts and never again.
fn remembered<'a>(configuration: &str, services: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for line in configuration.lines() {
        let line = line.split('#').next().unwrap_or_default();
        for statement in line.split([';', '{', '}']) {
            let mut words = statement.split_whitespace();
            let (Some(directive), Some(target)) = (words.next(), words.next()) else { continue };
            let passes = matches!(directive, "proxy_pass" | "grpc_pass" | "fastcgi_pass" | "uwsgi_pass" | "scgi_pass" | "memcached_pass");
            // Newer versions resolve servers of an upstream again where they are told to.
            let upstream = directive == "server" && !words.any(|word| word == "resolve");
            if !passes && !upstream {
                continue;
            }
            let address = target.split_once("://").map_or(target, |(_, rest)| rest);
            let host = address.split([':', '/']).next().unwrap_or_default();
            found.extend(services.get(host));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literal_names_of_services_are_remembered() {
        let services = BTreeSet::from(["api", "web"]);
        for (why, text, expected) in [
            ("literal", "location / { proxy_pass http://api:3000/; }", vec!["api"]),
            ("variable", "set $to http://api:3000; proxy_pass $to;", vec![]),
            ("variable in the middle", "proxy_pass http://$host:3000;", vec![]),
            ("upstream", "upstream a { server api:3000; server web weight=2; }", vec!["api", "web"]),
            ("resolved upstream", "server api:3000 resolve;", vec![]),
            ("a server block", "server { listen 80; }", vec![]),
            ("comment", "# proxy_pass http://api;", vec![]),
            ("elsewhere", "proxy_pass https://example.com;", vec![]),
        ] {
            assert_eq!(remembered(text, &services), expected.into_iter().collect(), "{why}");
        }
    }
}
