//! nginx looks names up once, when it starts, or keeps what it looked up for as long as the answer says.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::settings::parse_duration;
use crate::names::ContainerName;
use crate::runtime::Runtime;

/// Time for which the container engine's name server says that an answer is good.
const ENGINE_ANSWER: Duration = Duration::from_secs(600);

/// Directives that send requests to an address.
const PASSES: &[&str] = &["proxy_pass", "grpc_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "memcached_pass"];

/// Directives whose words are names, and never where requests go.
const NAMING: &[&str] = &["server_name", "upstream", "location", "listen"];

/// The command with which the nginx of a container tests (`-t`) or prints (`-T`) the configuration that it runs with: the file is the one
/// of its command line. Where that cannot be read, or says nothing, it is nginx's own.
pub async fn command(runtime: &dyn Runtime, container: &ContainerName, flag: &str, timeout: Duration) -> Vec<String> {
    let ask = ["cat".to_owned(), "/proc/1/cmdline".to_owned()];
    let line = match runtime.exec(container, &ask, timeout).await {
        Ok(ran) if ran.exit_code == 0 => ran.output,
        Ok(_) | Err(_) => String::new(),
    };
    let mut command = vec!["nginx".to_owned(), flag.to_owned()];
    command.extend(files(&line).map(str::to_owned));
    command
}

/// The options of a command line that say which file nginx reads. Its master process shows them behind its own title.
fn files(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|letter: char| letter == '\0' || letter.is_whitespace()).filter(|word| !word.is_empty());
    let mut behind = false;
    words.skip_while(|word| *word != "nginx" && !word.ends_with("/nginx")).filter(move |word| {
        let option = *word == "-c" || *word == "-p";
        std::mem::replace(&mut behind, option) || option || word.starts_with("-c") || word.starts_with("-p")
    })
}

/// How long a configuration keeps the address of one of `names`: `None` where it names none of them, `Some(None)` until it is reloaded.
pub fn kept(configuration: &str, names: &BTreeSet<&str>) -> Option<Option<Duration>> {
    if !remembered(configuration, names).is_empty() {
        return Some(None);
    }
    let statements = || statements(configuration);
    // `set $to http://api:3000; proxy_pass $to;`, or a `map` in between: looked up by the resolver, at each request whose answer is too old.
    let by_variable = statements().any(|words| {
        let target = words.get(1).filter(|_| words.first().is_some_and(|word| PASSES.contains(word)));
        target.is_some_and(|target| target.contains('$'))
    });
    let named = statements().any(|words| {
        let says = words.first().is_some_and(|word| !NAMING.contains(word));
        says && words.iter().skip(1).any(|word| names.contains(host(word)))
    });
    let resolver = statements().find(|words| words.first() == Some(&"resolver"))?;
    if !by_variable || !named {
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
            ("through a map", "resolver 127.0.0.11; map $host $to { default http://api:3000; } proxy_pass $to;", seconds(600)),
            ("only a name of its own", "resolver 127.0.0.11; server_name api; proxy_pass $to;", None),
            ("another service", "resolver 127.0.0.11; set $to http://web; proxy_pass $to;", None),
            ("no service at all", "server { listen 80; root /srv; }", None),
        ] {
            assert_eq!(kept(text, &names), expected, "{why}");
        }
    }

    #[test]
    fn the_file_is_the_one_of_the_command_line() {
        for (why, line, expected) in [
            ("the title of the master process", "nginx: master process nginx -c /etc/x.conf\0", vec!["-c", "/etc/x.conf"]),
            ("an image's usual command", "nginx: master process nginx -g daemon off;\0\0", vec![]),
            ("arguments as they were given", "/usr/sbin/nginx\0-p\0/srv\0-c\0x.conf\0", vec!["-p", "/srv", "-c", "x.conf"]),
            ("in one word", "nginx\0-c/etc/x.conf\0", vec!["-c/etc/x.conf"]),
            ("behind an init", "/sbin/tini\0--\0nginx\0-c\0/etc/x.conf\0", vec!["-c", "/etc/x.conf"]),
            ("the option of a shell is none of nginx", "sh\0-c\0exec something\0", vec![]),
            ("nothing", "", vec![]),
        ] {
            assert_eq!(files(line).collect::<Vec<_>>(), expected, "{why}");
        }
    }
}
