//! What an nginx sends on: which service answers which path of which host.

use std::collections::{BTreeMap, BTreeSet};

use super::nginx::Directive;
use crate::names::ServiceName;

/// Directives that send requests on over HTTP: what speaks another protocol to the service is asked through nginx all the same.
const PASSES: &[&str] = &["proxy_pass", "grpc_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass"];

/// Requests that nginx sends to a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The port on which nginx listens.
    pub port: u16,
    /// Whether it speaks TLS there.
    pub tls: bool,
    /// The host that is asked for; `None` where nginx does not care.
    pub host: Option<String>,
    /// The path, as a prefix or exactly.
    pub path: String,
    /// Who answers.
    pub service: ServiceName,
}

/// The routes of a configuration to services, whose names on the network are the keys of `known`.
pub fn routes(directives: &[Directive], known: &BTreeMap<String, ServiceName>) -> BTreeSet<Route> {
    let mut found = BTreeSet::new();
    let http: Vec<&Directive> = directives.iter().filter(|one| is(one, "http")).flat_map(|http| &http.block).chain(directives).collect();
    let upstreams: BTreeMap<&str, Vec<&str>> = http
        .iter()
        .filter(|one| is(one, "upstream"))
        .filter_map(|upstream| {
            let servers = upstream.block.iter().filter(|one| is(one, "server")).filter_map(|server| word(server, 1));
            Some((word(upstream, 1)?, servers.map(host_of).collect()))
        })
        .collect();
    for server in http.iter().filter(|one| is(one, "server") && !one.block.is_empty()) {
        let listens: Vec<&Directive> = server.block.iter().filter(|one| is(one, "listen")).collect();
        // Without a word nginx listens on 80.
        let listens: Vec<(u16, bool)> = match listens.is_empty() {
            true => vec![(80, false)],
            false => listens.into_iter().filter_map(listen).collect(),
        };
        let host =
            server.block.iter().filter(|one| is(one, "server_name")).flat_map(|one| one.words.iter().skip(1)).find(|name| is_plain(name));
        let context = Context { upstreams: &upstreams, known, variables: variables(&server.block) };
        let mut locations = Vec::new();
        collect(&server.block, &mut locations);
        for (path, block) in locations {
            let Some(service) = context.service(block) else { continue };
            for &(port, tls) in &listens {
                let (path, service) = (path.to_owned(), service.clone());
                found.insert(Route { port, tls, host: host.cloned(), path, service });
            }
        }
    }
    found
}

struct Context<'a> {
    upstreams: &'a BTreeMap<&'a str, Vec<&'a str>>,
    known: &'a BTreeMap<String, ServiceName>,
    variables: BTreeMap<&'a str, &'a str>,
}

impl Context<'_> {
    /// The service to which a location sends.
    fn service(&self, block: &[Directive]) -> Option<ServiceName> {
        let passes = block.iter().find(|one| PASSES.iter().any(|pass| is(one, pass)))?;
        let own = variables(block);
        let address = word(passes, 1)?;
        let value = |name: &str| own.get(name).or_else(|| self.variables.get(name)).copied();
        let address = match address.find('$') {
            Some(begin) if begin == 0 || address.starts_with("http://$") || address.starts_with("https://$") => {
                let name = address.get(begin..)?.split([':', '/']).next()?;
                value(name)?
            }
            _ => address,
        };
        let host = host_of(address);
        let named = self.upstreams.get(host).and_then(|servers| servers.iter().find_map(|server| self.known.get(*server)));
        named.or_else(|| self.known.get(host)).cloned()
    }
}

/// Locations whose path a request can be made for, with what is in them.
fn collect<'a>(block: &'a [Directive], found: &mut Vec<(&'a str, &'a [Directive])>) {
    for location in block.iter().filter(|one| is(one, "location")) {
        let words: Vec<&str> = location.words.iter().skip(1).map(String::as_str).collect();
        match words.as_slice() {
            // What is for nginx alone answers nobody.
            [path] | ["=" | "^~", path] if path.starts_with('/') && !location.block.iter().any(|one| is(one, "internal")) => {
                found.push((*path, &location.block));
            }
            _ => {}
        }
        collect(&location.block, found);
    }
}

/// What `set $name value;` says.
fn variables(block: &[Directive]) -> BTreeMap<&str, &str> {
    block.iter().filter(|one| is(one, "set")).filter_map(|set| Some((word(set, 1)?, word(set, 2)?))).collect()
}

fn is(directive: &Directive, name: &str) -> bool {
    directive.words.first().is_some_and(|word| word == name)
}

fn word(directive: &Directive, at: usize) -> Option<&str> {
    directive.words.get(at).map(String::as_str)
}

fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split([':', '/', '$']).next().unwrap_or_default()
}

/// The port of a `listen`, and whether it speaks TLS.
fn listen(directive: &Directive) -> Option<(u16, bool)> {
    let address = word(directive, 1)?;
    let port = match address.rsplit_once(':') {
        Some((_, port)) => port.parse().ok()?,
        None => address.parse().ok().or_else(|| (!address.contains('/')).then_some(80))?,
    };
    // Whoever speaks the PROXY protocol there is no client of ours.
    let says = |option: &str| directive.words.iter().skip(2).any(|word| word == option);
    (!says("proxy_protocol") && !says("quic")).then(|| (port, says("ssl")))
}

/// Whether it is one host: no pattern, and not the name for "any".
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "_" && !name.starts_with(['~', '*', '.']) && !name.ends_with('*')
}

#[cfg(test)]
mod tests {
    use super::super::nginx::parse;
    use super::*;

    #[test]
    fn a_path_of_nginx_leads_to_the_service_that_it_is_passed_to() {
        let known: BTreeMap<String, ServiceName> =
            ["api", "web"].into_iter().filter_map(|name| Some((name.to_owned(), name.parse().ok()?))).collect();
        for (why, text, expected) in [
            ("by name", "http { server { listen 80; location / { proxy_pass http://api:3000; } } }", vec!["http * :80/ api"]),
            (
                "by an upstream, over TLS, for a host",
                "http { upstream a { zone z 64k; server api:3000 resolve; } server { listen 443 ssl; server_name shop.example www.shop.example; \
                 location /api/ { proxy_pass http://a; } } }",
                vec!["https shop.example :443/api/ api"],
            ),
            (
                "by a variable",
                "http { server { listen [::]:8080; set $to http://api:3000; location /x { proxy_pass $to; } } }",
                vec!["http * :8080/x api"],
            ),
            (
                "two services, and one that is none",
                "http { server { listen 80; location = /a { proxy_pass http://api; } location ^~ /b { proxy_pass http://web:80/; } \
                 location ~ \\.php$ { fastcgi_pass web:9000; } location /c { proxy_pass http://elsewhere; } } }",
                vec!["http * :80/a api", "http * :80/b web"],
            ),
            ("for nginx alone", "http { server { listen 80; location /i { internal; proxy_pass http://api; } } }", vec![]),
            ("behind the PROXY protocol", "http { server { listen 80 proxy_protocol; location / { proxy_pass http://api; } } }", vec![]),
        ] {
            let found: Vec<String> = routes(&parse(text), &known)
                .into_iter()
                .map(|route| {
                    let scheme = if route.tls { "https" } else { "http" };
                    format!("{scheme} {} :{}{} {}", route.host.as_deref().unwrap_or("*"), route.port, route.path, route.service)
                })
                .collect();
            assert_eq!(found, expected, "{why}");
        }
    }
}
