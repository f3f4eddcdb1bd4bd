//! What a container's own health check asks over HTTP: read from its command, in the forms that people write.

use super::Service;
use crate::definition::HealthTest;

/// Hosts that are the container itself.
const LOCAL: &[&str] = &["localhost", "127.0.0.1", "0.0.0.0", "[::1]"];
/// Programs whose address may stand without `http://`.
const FETCHERS: &[&str] = &["curl", "wget", "http", "https"];

/// Port and path that the health check of a service asks over plain HTTP, as in `curl -f http://localhost:3000/health`, `wget -qO- localhost/up`
/// and `node -e "require('http').get({port: 3000, path: '/health'}, …)"`.
pub fn asked_over_http(service: &Service) -> Option<(u16, String)> {
    let text = match &service.definition.healthcheck.as_ref()?.test {
        HealthTest::Shell(line) => line.clone(),
        HealthTest::Exec(words) => words.join(" "),
        HealthTest::Disabled | HealthTest::Inherit => return None,
    };
    let text = with_variables(&text, service);
    of_address(&text).or_else(|| of_bare_address(&text)).or_else(|| of_options(&text))
}

/// `${PORT:-3000}` and `$PORT`, as the container has them.
fn with_variables(text: &str, service: &Service) -> String {
    let value = |name: &str| service.definition.environment.get(name).cloned().flatten();
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some((inside, behind)) = after.strip_prefix('{').and_then(|after| after.split_once('}')) {
            let (name, default) = inside.split_once(":-").or_else(|| inside.split_once('-')).unwrap_or((inside, ""));
            out.push_str(&value(name).unwrap_or_else(|| default.to_owned()));
            rest = behind;
        } else {
            let end = after.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')).unwrap_or(after.len());
            let (name, behind) = after.split_at_checked(end).unwrap_or((after, ""));
            match value(name).filter(|_| !name.is_empty()) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push('$');
                    out.push_str(name);
                }
            }
            rest = behind;
        }
    }
    out.push_str(rest);
    out
}

/// An address with its scheme, anywhere in the text.
fn of_address(text: &str) -> Option<(u16, String)> {
    text.match_indices("http://").find_map(|(at, scheme)| local(text.get(at.checked_add(scheme.len())?..)?))
}

/// An address behind `curl` or `wget` that has no scheme.
fn of_bare_address(text: &str) -> Option<(u16, String)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let fetches = words.iter().any(|word| FETCHERS.contains(&word.rsplit('/').next().unwrap_or_default()));
    if !fetches || text.contains("https://") {
        return None;
    }
    words.iter().find_map(|word| local(word.trim_start_matches(['"', '\''])))
}

/// The options of `http.get` in JavaScript: `{host: 'localhost', port: 3000, path: '/health'}`.
fn of_options(text: &str) -> Option<(u16, String)> {
    if !text.contains("http") || text.contains("https") {
        return None;
    }
    let behind = |name: &str| {
        let at = text.match_indices(name).find(|(at, _)| {
            let before = at.checked_sub(1).and_then(|at| text.as_bytes().get(at));
            before.is_some_and(|byte| !byte.is_ascii_alphanumeric())
        })?;
        let rest = text.get(at.0.checked_add(name.len())?..)?.trim_start_matches(['"', '\'']).trim_start();
        Some(rest.strip_prefix(':')?.trim_start().trim_start_matches(['"', '\'', '\\']))
    };
    let port = behind("port")?;
    let digits = port.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(port.len());
    let port = port.get(..digits)?.parse().ok()?;
    Some((port, path(behind("path").unwrap_or("/"))))
}

/// Port and path of an address without its scheme, if it is of the container itself.
fn local(address: &str) -> Option<(u16, String)> {
    let (host, rest) = LOCAL.iter().find_map(|host| Some((*host, address.strip_prefix(host)?)))?;
    let (port, rest) = match rest.strip_prefix(':') {
        None => (80, rest),
        Some(rest) => {
            let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
            let (port, rest) = rest.split_at_checked(end)?;
            (port.parse().ok()?, rest)
        }
    };
    // `localhost.example.com` and `localhostile` are others.
    let ends = rest.chars().next().is_none_or(|letter| letter == '/' || letter == '?' || is_end(letter));
    (ends && !host.is_empty()).then(|| (port, path(rest)))
}

fn is_end(letter: char) -> bool {
    letter.is_whitespace() || "\"'`)(;,|&\\<>".contains(letter)
}

/// The path that a text begins with, up to whatever ends an address.
fn path(text: &str) -> String {
    let end = text.find(is_end).unwrap_or(text.len());
    let path = text.get(..end).unwrap_or_default();
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Option<(u16, String)> {
        of_address(text).or_else(|| of_bare_address(text)).or_else(|| of_options(text))
    }

    #[test]
    fn an_address_is_found_in_all_the_forms_that_people_write() {
        for (text, expected) in [
            ("curl -f http://localhost:3000/health || exit 1", Some((3000, "/health"))),
            ("curl -fsS 'http://127.0.0.1:8080/up?full=1'", Some((8080, "/up?full=1"))),
            ("wget -qO- http://localhost/ || exit 1", Some((80, "/"))),
            ("wget --no-verbose --tries=1 --spider localhost:3000/api/health", Some((3000, "/api/health"))),
            ("curl -f localhost:8000", Some((8000, "/"))),
            (
                "node -e \"require('http').get('http://localhost:3000/api/health',r=>process.exit(r.statusCode==200?0:1))\"",
                Some((3000, "/api/health")),
            ),
            ("node -e \"require('http').get({host:'localhost',port:3000,path:'/live'}, r => {})\"", Some((3000, "/live"))),
            ("node -e \"fetch('http://127.0.0.1:3000/h').then(r=>process.exit(r.ok?0:1))\"", Some((3000, "/h"))),
            ("python -c \"import urllib.request; urllib.request.urlopen('http://localhost:8000/health/')\"", Some((8000, "/health/"))),
            ("curl -fk https://localhost:8443/health", None),
            ("curl -f http://db:3000/health", None),
            ("curl -f http://localhost.example.com/health", None),
            ("redis-cli ping", None),
            ("pg_isready -U postgres", None),
            ("nc -z localhost 3000", None),
        ] {
            assert_eq!(asked(text), expected.map(|(port, path): (u16, &str)| (port, path.to_owned())), "{text}");
        }
    }
}
