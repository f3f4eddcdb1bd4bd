//! What a proxy was told: its files, put together as it does, and what they say of a name.
//!
//! Nothing is run in a container. Files come out of containers of this project by copy, and those of others are read only as far as
//! they are mounted from this host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::nginx::{self, Directive, Kept};
use super::ProxyKind;
use crate::names::ContainerName;
use crate::runtime::{ContainerFile, ContainerFiles, Process, Runtime};

/// Bytes of configuration that are taken from a container, and no more.
const MOST_BYTES: usize = 4 << 20;
/// Links and includes that are followed, one through the other.
const DEEPEST: u32 = 16;
/// Directories that are not read as a whole, since they hold more than a configuration.
const SHARED: &[&str] =
    &["", "/etc", "/usr", "/usr/local", "/usr/local/etc", "/opt", "/tmp", "/home", "/root", "/var", "/run", "/srv", "/app"];
/// Time for which HAProxy's resolvers keep an address by default.
const HAPROXY_HOLD: Duration = Duration::from_secs(10);

/// Whose container it is, and so how its files may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A container of the project that is planned.
    Ours,
    /// Another's: nothing is taken out of it.
    Theirs,
}

/// What a proxy was told, as far as it could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Directives of nginx, files that it includes among them.
    pub(in crate::observed) directives: Vec<Directive>,
    /// Lines of the others.
    lines: Vec<String>,
    /// Whether all files were there that it names.
    pub is_complete: bool,
}

impl Configuration {
    /// How the proxy keeps the address of one of `names`; `None` where it names none of them.
    pub fn kept(&self, kind: ProxyKind, names: &BTreeSet<&str>) -> Option<Kept> {
        match kind {
            ProxyKind::Nginx | ProxyKind::OpenResty => nginx::kept(&self.directives, names),
            ProxyKind::Haproxy => self.lines.iter().filter_map(|line| haproxy(line, names)).max(),
            ProxyKind::Apache => self.lines.iter().any(|line| apache(line, names)).then_some(Kept::UntilReload),
            ProxyKind::Caddy | ProxyKind::Traefik | ProxyKind::Envoy => None,
        }
    }
}

/// Reads the configuration of a proxy; `None` where it has none that is read, or nothing of it is to be had.
pub async fn configuration(
    runtime: &Arc<dyn Runtime>,
    container: &ContainerName,
    kind: ProxyKind,
    processes: &[Process],
    owner: Owner,
) -> Option<Configuration> {
    let main = kind.main_file(processes)?;
    let mut files = ContainerFiles::new();
    // The directory of the main file, and one more place that it leads to: two questions are enough.
    let mut place = directory_to_read(&main);
    for _ in 0..2 {
        let found = match owner {
            Owner::Ours => runtime.files(container, &place, MOST_BYTES).await,
            Owner::Theirs => runtime.mounted_files(container, &place, MOST_BYTES).await,
        };
        files.extend(found.ok()?);
        let (configuration, missing) = read(kind, &main, &files, owner);
        match missing.first().filter(|_| owner == Owner::Ours) {
            Some(missing) if directory_to_read(missing) != place => place = directory_to_read(missing),
            _ => return configuration,
        }
    }
    read(kind, &main, &files, owner).0
}

/// The configuration in these files, and paths that it names and that are not among them.
fn read(kind: ProxyKind, main: &str, files: &ContainerFiles, owner: Owner) -> (Option<Configuration>, Vec<String>) {
    let texts = || {
        files.values().filter_map(|file| match file {
            ContainerFile::Text(text) => Some(text.as_str()),
            ContainerFile::Link(_) => None,
        })
    };
    if !kind.is_nginx() {
        let lines: Vec<String> = texts().flat_map(str::lines).map(str::to_owned).collect();
        let is_complete = !lines.is_empty();
        return (is_complete.then_some(Configuration { directives: Vec::new(), lines, is_complete }), Vec::new());
    }
    let mut missing = Vec::new();
    let directory = main.rsplit_once('/').map_or("", |(directory, _)| directory);
    let directives = match text_at(files, main) {
        Ok(text) => included(nginx::parse(text), directory, files, &mut missing, 0),
        // The main file is the image's own, and only what it includes is mounted.
        Err(_) if owner == Owner::Theirs && !files.is_empty() => texts().flat_map(nginx::parse).collect(),
        Err(place) => return (None, vec![place]),
    };
    // What an image brings along names no service; others' images are not looked into.
    let is_complete = missing.is_empty() || owner == Owner::Theirs;
    (Some(Configuration { directives, lines: Vec::new(), is_complete }), missing)
}

/// Directives with those of the files that they include in their place.
fn included(directives: Vec<Directive>, directory: &str, files: &ContainerFiles, missing: &mut Vec<String>, deep: u32) -> Vec<Directive> {
    let mut all = Vec::new();
    for directive in directives {
        let [name, path] = directive.words.as_slice() else {
            all.push(inner(directive, directory, files, missing, deep));
            continue;
        };
        if name != "include" || deep >= DEEPEST {
            all.push(inner(directive, directory, files, missing, deep));
            continue;
        }
        let path = joined(directory, path);
        if path.contains(['*', '?', '[']) {
            let (fixed, pattern) = path.rsplit_once('/').unwrap_or(("", &path));
            let place = resolved(files, fixed);
            let below = format!("{}/", place.trim_end_matches('/'));
            let matching =
                files.keys().filter(|name| name.strip_prefix(&below).is_some_and(|name| !name.contains('/') && matches(pattern, name)));
            let texts: Vec<&str> = matching.filter_map(|name| text_at(files, name).ok()).collect();
            // A pattern may match nothing; that its directory was not read at all is another matter.
            if texts.is_empty() && !files.keys().any(|name| name.starts_with(&below) || parent(name) == parent(&place)) {
                missing.push(format!("{below}*"));
            }
            for text in texts {
                all.extend(included(nginx::parse(text), directory, files, missing, deep.saturating_add(1)));
            }
        } else {
            match text_at(files, &path) {
                Ok(text) => all.extend(included(nginx::parse(text), directory, files, missing, deep.saturating_add(1))),
                Err(place) => missing.push(place),
            }
        }
    }
    all
}

fn inner(directive: Directive, directory: &str, files: &ContainerFiles, missing: &mut Vec<String>, deep: u32) -> Directive {
    Directive { words: directive.words, block: included(directive.block, directory, files, missing, deep.saturating_add(1).min(DEEPEST)) }
}

/// The text at a path, links followed; else the path at which it should have been.
fn text_at<'a>(files: &'a ContainerFiles, path: &str) -> Result<&'a str, String> {
    let place = resolved(files, path);
    match files.get(&place) {
        Some(ContainerFile::Text(text)) => Ok(text),
        Some(ContainerFile::Link(_)) | None => Err(place),
    }
}

/// A path without links, as far as they are known.
fn resolved(files: &ContainerFiles, path: &str) -> String {
    let mut path = joined("", path);
    for _ in 0..DEEPEST {
        let prefixes = path.match_indices('/').skip(1).map(|(at, _)| at).chain([path.len()]);
        let link = prefixes.filter_map(|end| path.split_at_checked(end)).find_map(|(start, rest)| match files.get(start) {
            Some(ContainerFile::Link(to)) => Some((joined(parent(start), to), rest.to_owned())),
            Some(ContainerFile::Text(_)) | None => None,
        });
        match link {
            Some((to, rest)) => path = joined("", &format!("{to}{rest}")),
            None => break,
        }
    }
    path
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// `path` as seen from `directory`, without `.` and `..`.
pub(super) fn joined(directory: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") };
    let mut parts = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// What is asked for to have a file: its directory, unless that is one in which everything stands.
fn directory_to_read(file: &str) -> String {
    let directory = parent(file);
    if SHARED.contains(&directory) { file.to_owned() } else { directory.to_owned() }
}

/// Whether a name matches a pattern of `*`, `?` and `[abc]`.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.chars();
    let Some(first) = pieces.next() else { return name.is_empty() };
    let rest = pieces.as_str();
    let mut letters = name.chars();
    match first {
        '*' => matches(rest, name) || letters.next().is_some_and(|_| matches(pattern, letters.as_str())),
        '?' => letters.next().is_some_and(|_| matches(rest, letters.as_str())),
        '[' => match (rest.split_once(']'), letters.next()) {
            (Some((class, rest)), Some(letter)) => class.contains(letter) && matches(rest, letters.as_str()),
            _ => false,
        },
        first => letters.next().is_some_and(|letter| letter == first && matches(rest, letters.as_str())),
    }
}

/// `server api1 api:3000 check resolvers docker` of HAProxy.
fn haproxy(line: &str, names: &BTreeSet<&str>) -> Option<Kept> {
    let words: Vec<&str> = line.split('#').next()?.split_whitespace().collect();
    let ["server" | "server-template", _, rest @ ..] = words.as_slice() else { return None };
    let to = rest.iter().take(2).find(|word| names.contains(word.split(':').next().unwrap_or_default()));
    to.map(|_| if rest.contains(&"resolvers") { Kept::For(HAPROXY_HOLD) } else { Kept::UntilReload })
}

/// `ProxyPass / http://api:3000/`, `BalancerMember http://api:3000` of Apache.
fn apache(line: &str, names: &BTreeSet<&str>) -> bool {
    let line = line.trim();
    let directive = line.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    let passes = ["proxypass", "proxypassmatch", "balancermember", "<proxy", "rewriterule", "sethandler"].contains(&directive.as_str());
    let address = |word: &str| word.split_once("://").and_then(|(_, rest)| rest.split([':', '/', '"', '>']).next().map(str::to_owned));
    passes && line.split_whitespace().filter_map(address).any(|name| names.contains(name.as_str()))
}

/// Configurations of nginx among these containers, by container.
pub async fn nginx_configurations(runtime: &Arc<dyn Runtime>, containers: &[ContainerName]) -> BTreeMap<ContainerName, Vec<Directive>> {
    let seen = runtime.inside(containers).await.unwrap_or_default();
    let mut found = BTreeMap::new();
    for (container, inside) in seen {
        let kind = inside.processes.iter().find_map(ProxyKind::of_process);
        if let Some(kind) = kind.filter(|kind| kind.is_nginx())
            && let Some(configuration) = configuration(runtime, &container, kind, &inside.processes, Owner::Ours).await
        {
            found.insert(container, configuration.directives);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &[(&str, &str)]) -> ContainerFiles {
        let file = |text: &str| match text.strip_prefix("-> ") {
            Some(to) => ContainerFile::Link(to.to_owned()),
            None => ContainerFile::Text(text.to_owned()),
        };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    const MAIN: &str = "/etc/nginx/nginx.conf";

    #[test]
    fn files_that_an_nginx_includes_are_read_in_their_place() {
        let names = BTreeSet::from(["api"]);
        let pass = "location / { proxy_pass http://api:3000; }";
        let block = "http { include mime.types; include /etc/nginx/sites-enabled/*.conf; }";
        for (why, given, expected, complete) in [
            ("by pattern", vec![(MAIN, block), ("/etc/nginx/mime.types", ""), ("/etc/nginx/sites-enabled/a.conf", pass)], true, true),
            (
                "through links",
                vec![
                    (MAIN, block),
                    ("/etc/nginx/mime.types", ""),
                    ("/etc/nginx/sites-enabled", "-> sites"),
                    ("/etc/nginx/sites/a.conf", "-> ../all/a"),
                    ("/etc/nginx/all/a", pass),
                ],
                true,
                true,
            ),
            ("another name", vec![(MAIN, block), ("/etc/nginx/mime.types", ""), ("/etc/nginx/sites-enabled/a.bak", pass)], false, true),
            ("a file that is elsewhere", vec![(MAIN, "http { include /srv/a.conf; }")], false, false),
            (
                "files that include each other",
                vec![(MAIN, "include b.conf;"), ("/etc/nginx/b.conf", "include nginx.conf; x y;")],
                false,
                true,
            ),
        ] {
            let (found, missing) = read(ProxyKind::Nginx, MAIN, &files(&given), Owner::Ours);
            let found = found.unwrap();
            assert_eq!(found.kept(ProxyKind::Nginx, &names).is_some(), expected, "{why}");
            assert_eq!(found.is_complete, complete, "{why}: {missing:?}");
        }
    }

    #[test]
    fn what_is_mounted_into_anothers_container_is_read_alone() {
        let names = BTreeSet::from(["api"]);
        let mounted = files(&[("/etc/nginx/conf.d/site.conf", "server { location / { proxy_pass http://api; } }")]);
        let found = read(ProxyKind::Nginx, MAIN, &mounted, Owner::Theirs).0.unwrap();
        assert_eq!(found.kept(ProxyKind::Nginx, &names), Some(Kept::UntilReload));
        assert!(read(ProxyKind::Nginx, MAIN, &files(&[]), Owner::Theirs).0.is_none(), "nothing is mounted");
    }

    #[test]
    fn other_proxies_keep_addresses_as_their_lines_say() {
        let names = BTreeSet::from(["api"]);
        for (kind, line, expected) in [
            (ProxyKind::Haproxy, "  server a api:3000 check", Some(Kept::UntilReload)),
            (ProxyKind::Haproxy, "  server-template a 3 api:3000 resolvers docker", Some(Kept::For(HAPROXY_HOLD))),
            (ProxyKind::Haproxy, "  # server a api:3000", None),
            (ProxyKind::Haproxy, "  server api web:80", None),
            (ProxyKind::Apache, "ProxyPass / http://api:3000/", Some(Kept::UntilReload)),
            (ProxyKind::Apache, "RewriteRule ^/(.*)$ \"http://api/$1\" [P]", Some(Kept::UntilReload)),
            (ProxyKind::Apache, "ServerName api", None),
            (ProxyKind::Caddy, "reverse_proxy api:3000", None),
        ] {
            let configuration = Configuration { lines: vec![line.to_owned()], ..Configuration::default() };
            assert_eq!(configuration.kept(kind, &names), expected, "{line}");
        }
    }

    #[test]
    fn patterns_match_names_as_a_shell_does() {
        for (pattern, name, expected) in
            [("*.conf", "a.conf", true), ("*.conf", "a.conf.bak", false), ("[ab]?.x", "b1.x", true), ("*", "", true), ("a", "b", false)]
        {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
