//! nginx looks names up once, when it starts, or keeps what it looked up for as long as the answer says.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::settings::parse_duration;

/// Time for which the container engine's name server says that an answer is good.
const ENGINE_ANSWER: Duration = Duration::from_secs(600);

/// Directives that send requests to an address.
const PASSES: &[&str] = &["proxy_pass", "grpc_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "memcached_pass"];

/// How long a configuration keeps the address of one of `names`: `None` where it names none of them, `Some(None)` until it is reloaded.
pub fn kept(configuration: &str, names: &BTreeSet<&str>) -> Option<Option<Duration>> {
    if !remembered(configuration, names).is_empty() {
        return Some(None);
    }
    let statements = || statements(configuration);
    // `set $to http://api:3000; proxy_pass $to;`: looked up by the resolver, at each request whose answer is too old.
    let by_variable = statements().any(|words| {
        let looks_up = words.first() == Some(&"set") || words.first().is_some_and(|word| PASSES.contains(word));
        looks_up && words.iter().skip(1).any(|word| names.contains(host(word)))
    });
    let resolver = statements().find(|words| words.first() == Some(&"resolver"))?;
    if !by_variable {
        return None;
    }
    let valid = resolver.iter().find_map(|word| word.strip_prefix("valid=")).and_then(valid_time);
    Some(Some(valid.unwrap_or(ENGINE_ANSWER)))
}

/// A time of nginx, where a number alone is seconds.
fn valid_time(text: &str) -> Option<Duration> {
    text.parse().map(Duration::from_secs).ok().or_else(|| parse_duration(text))
}

/// Names that a configuration has literally where nginx resolves them when it starts, and never again.
pub fn remembered<'a>(configuration: &str, names: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for words in statements(configuration) {
        let (Some(directive), Some(target)) = (words.first(), words.get(1)) else { continue };
        // Newer versions resolve servers of an upstream again where they are told to.
        let upstream = *directive == "server" && !words.contains(&"resolve");
        // With a variable anywhere in it the whole address is looked up at each request.
        if (PASSES.contains(directive) || upstream) && !target.contains('$') {
            found.extend(names.get(host(target)));
        }
    }
    found
}

fn host(target: &str) -> &str {
    let address = target.split_once("://").map_or(target, |(_, rest)| rest);
    address.trim_matches(['"', '\'']).split([':', '/', '$']).next().unwrap_or_default()
}

/// The words of each statement, without comments.
fn statements(configuration: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = configuration.lines().map(|line| line.split('#').next().unwrap_or_default());
    let statements = lines.flat_map(|line| line.split([';', '{', '}']));
    statements.map(|statement| statement.split_whitespace().collect::<Vec<_>>()).filter(|words| !words.is_empty())
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

    #[test]
    fn an_address_is_kept_until_a_reload_or_as_long_as_the_resolver_says() {
        let names = BTreeSet::from(["api"]);
        let seconds = |number| Some(Some(Duration::from_secs(number)));
        for (why, text, expected) in [
            ("literal", "proxy_pass http://api:3000;", Some(None)),
            ("literal beside a resolver", "resolver 127.0.0.11 valid=5s; proxy_pass http://api:3000;", Some(None)),
            ("the engine's answer is good for 600 s", "resolver 127.0.0.11; set $to http://api:3000; proxy_pass $to;", seconds(600)),
            ("said", "resolver 127.0.0.11 valid=5s; set $to http://api:3000; proxy_pass $to;", seconds(5)),
            ("a number alone", "resolver 127.0.0.11 valid=30 ipv6=off; set $to http://api; proxy_pass $to;", seconds(30)),
            ("a path by variable", "resolver 127.0.0.11; proxy_pass http://api$request_uri;", seconds(600)),
            ("another service", "resolver 127.0.0.11; set $to http://web; proxy_pass $to;", None),
            ("no service at all", "server { listen 80; root /srv; }", None),
        ] {
            assert_eq!(kept(text, &names), expected, "{why}");
        }
    }
}
