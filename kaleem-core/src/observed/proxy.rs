//! Proxies in containers: which program it is, and where its configuration stands.

use std::fmt;

use super::nginx;
use crate::image::ImageRef;
use crate::runtime::{Inside, Process};

mod configuration;

pub use configuration::{Configuration, Owner, configuration, nginx_configurations};

/// A proxy that others are known to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyKind {
    /// nginx, or Angie, which is one.
    Nginx,
    /// nginx with Lua.
    OpenResty,
    /// Looks a name up for each connection.
    Caddy,
    /// Looks names up when it starts, unless it is given resolvers.
    Haproxy,
    /// Follows labels of containers, or looks a name up for each connection.
    Traefik,
    /// Looks names up every few seconds.
    Envoy,
    /// The Apache web server, which looks names up once.
    Apache,
}

impl fmt::Display for ProxyKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Nginx => "nginx",
            Self::OpenResty => "OpenResty",
            Self::Caddy => "Caddy",
            Self::Haproxy => "HAProxy",
            Self::Traefik => "Traefik",
            Self::Envoy => "Envoy",
            Self::Apache => "Apache",
        })
    }
}

impl ProxyKind {
    /// Whether it reads its configuration again on SIGHUP, as nginx does.
    pub fn is_nginx(self) -> bool {
        matches!(self, Self::Nginx | Self::OpenResty)
    }

    /// The proxy that runs in a container; where that cannot be seen, the one that its image is named for.
    pub fn of(inside: Option<&Inside>, image: &str) -> Option<Self> {
        match inside.filter(|inside| !inside.processes.is_empty()) {
            Some(inside) => inside.processes.iter().find_map(Self::of_process),
            None => image.parse::<ImageRef>().ok().and_then(|image| Self::of_image(&image)),
        }
    }

    /// The proxy that an image is named for.
    pub fn of_image(image: &ImageRef) -> Option<Self> {
        let name = image.base_name();
        let begins = |word: &str| name == word || name.strip_prefix(word).is_some_and(|rest| rest.starts_with(['-', '_']));
        // What watches a proxy is none.
        if name.contains("exporter") {
            return None;
        }
        [
            (&["openresty"][..], Self::OpenResty),
            (&["nginx", "angie", "nginx-proxy", "swag"], Self::Nginx),
            (&["caddy"], Self::Caddy),
            (&["haproxy"], Self::Haproxy),
            (&["traefik"], Self::Traefik),
            (&["envoy"], Self::Envoy),
            (&["httpd"], Self::Apache),
        ]
        .into_iter()
        .find_map(|(words, kind)| words.iter().any(|word| begins(word)).then_some(kind))
    }

    pub(super) fn of_process(process: &Process) -> Option<Self> {
        let first = process.words.first()?;
        // A program that sets its title writes it before the path: `nginx: master process /usr/sbin/nginx`.
        if let Some(title) = first.strip_prefix("nginx: master process") {
            return Some(if title.contains("openresty") { Self::OpenResty } else { Self::Nginx });
        }
        let program = first.split_whitespace().next().unwrap_or_default().trim_end_matches(':');
        match program.rsplit('/').next().unwrap_or_default() {
            "openresty" => Some(Self::OpenResty),
            "nginx" | "angie" => Some(Self::Nginx),
            "caddy" => Some(Self::Caddy),
            "haproxy" => Some(Self::Haproxy),
            "traefik" => Some(Self::Traefik),
            "envoy" => Some(Self::Envoy),
            "httpd" | "apache2" => Some(Self::Apache),
            _ => None,
        }
    }

    /// The file that its configuration begins with.
    pub(super) fn main_file(self, processes: &[Process]) -> Option<String> {
        let words = || processes.iter().flat_map(|process| process.words.iter()).flat_map(|words| words.split_whitespace());
        let behind = |option: &str| words().skip_while(|word| *word != option).nth(1).map(str::to_owned);
        let runs_below = |directory: &str| words().any(|word| word.starts_with(directory));
        match self {
            Self::Nginx | Self::OpenResty => {
                let usual = [
                    ("/usr/local/openresty/", "/usr/local/openresty/nginx/conf/nginx.conf"),
                    ("/usr/local/nginx/", "/usr/local/nginx/conf/nginx.conf"),
                    ("/opt/bitnami/nginx/", "/opt/bitnami/nginx/conf/nginx.conf"),
                    ("/usr/sbin/angie", "/etc/angie/angie.conf"),
                ];
                let usual = usual.iter().find(|(directory, _)| runs_below(directory)).map_or("/etc/nginx/nginx.conf", |(_, file)| file);
                let options = nginx::options(processes);
                let option = |name: &str| {
                    let at = options.iter().position(|word| word.starts_with(name))?;
                    let word = options.get(at)?;
                    if word == name { options.get(at.checked_add(1)?).cloned() } else { word.strip_prefix(name).map(str::to_owned) }
                };
                let prefix = option("-p");
                let file = option("-c").unwrap_or_else(|| if prefix.is_some() { "conf/nginx.conf".to_owned() } else { usual.to_owned() });
                let prefix =
                    prefix.unwrap_or_else(|| usual.rsplit_once('/').map_or_else(String::new, |(directory, _)| directory.to_owned()));
                Some(configuration::joined(&prefix, &file))
            }
            Self::Haproxy => Some(behind("-f").filter(|file| file.starts_with('/')).unwrap_or_else(|| {
                let debian = "/etc/haproxy/haproxy.cfg";
                if runs_below("/usr/sbin/haproxy") { debian } else { "/usr/local/etc/haproxy/haproxy.cfg" }.to_owned()
            })),
            Self::Apache if runs_below("/usr/sbin/apache2") => Some("/etc/apache2/apache2.conf".to_owned()),
            Self::Apache => Some("/usr/local/apache2/conf/httpd.conf".to_owned()),
            Self::Caddy | Self::Traefik | Self::Envoy => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(line: &str) -> Process {
        Process { pid: 1, words: line.split('\0').map(str::to_owned).collect() }
    }

    #[test]
    fn what_runs_counts_before_the_name_of_the_image() {
        use ProxyKind::{Apache, Caddy, Haproxy, Nginx, OpenResty, Traefik};
        for (why, line, image, expected) in [
            ("an image of its own", "nginx: master process nginx -g daemon off;", "shop-web", Some(Nginx)),
            ("OpenResty", "nginx: master process /usr/local/openresty/bin/openresty -g daemon off;", "web", Some(OpenResty)),
            ("by its path", "/usr/sbin/haproxy\0-f\0/x.cfg", "x", Some(Haproxy)),
            ("an image that is named for it and runs something else", "node\0server.js", "nginx-ui:1", None),
            ("nothing is seen", "", "nginx:1.27-alpine", Some(Nginx)),
            ("nothing is seen, a variant", "", "nginxinc/nginx-unprivileged", Some(Nginx)),
            ("nothing is seen, what watches it", "", "nginx/nginx-prometheus-exporter", None),
            ("nothing is seen, others", "", "traefik:v3", Some(Traefik)),
            ("nothing is seen, others", "", "caddy", Some(Caddy)),
            ("nothing is seen, others", "", "httpd:2.4", Some(Apache)),
            ("nothing is seen, none", "", "redis:7", None),
        ] {
            let processes = if line.is_empty() { Vec::new() } else { vec![process("/sbin/tini"), process(line)] };
            let inside = Inside { processes, sockets: None };
            assert_eq!(ProxyKind::of(Some(&inside), image), expected, "{why}");
        }
    }

    #[test]
    fn a_configuration_begins_where_the_program_would_look() {
        for (kind, line, expected) in [
            (ProxyKind::Nginx, "nginx: master process nginx -g daemon off;", "/etc/nginx/nginx.conf"),
            (ProxyKind::Nginx, "nginx: master process nginx -c /etc/g.conf", "/etc/g.conf"),
            (ProxyKind::Nginx, "/usr/sbin/nginx\0-p\0/srv\0-c\0x.conf", "/srv/x.conf"),
            (ProxyKind::Nginx, "/usr/sbin/nginx\0-p\0/srv/", "/srv/conf/nginx.conf"),
            (ProxyKind::Nginx, "nginx: master process /opt/bitnami/nginx/sbin/nginx", "/opt/bitnami/nginx/conf/nginx.conf"),
            (
                ProxyKind::OpenResty,
                "nginx: master process /usr/local/openresty/bin/openresty",
                "/usr/local/openresty/nginx/conf/nginx.conf",
            ),
            (ProxyKind::Haproxy, "haproxy\0-W\0-f\0/etc/h.cfg", "/etc/h.cfg"),
            (ProxyKind::Haproxy, "haproxy", "/usr/local/etc/haproxy/haproxy.cfg"),
        ] {
            assert_eq!(kind.main_file(&[process(line)]).as_deref(), Some(expected), "{line}");
        }
    }
}
