//! What of a probe's address may be shown: neither login nor query.

use super::ProbeSettings;

impl ProbeSettings {
    /// Where it asks, for people: hosts with their ports, and the path of a page. Never a password, a token or a query.
    pub fn place(&self) -> String {
        match self {
            Self::Http(settings) => with_path(settings.url.expose()),
            Self::Spa(settings) => with_path(settings.url.expose()),
            Self::Redis(settings) => authority(settings.url.expose()).to_owned(),
            Self::Rabbitmq(settings) => authority(settings.url.expose()).to_owned(),
            Self::Mongodb(settings) => authority(settings.url.expose()).to_owned(),
            Self::Qdrant(settings) => authority(settings.url.expose()).to_owned(),
            Self::Tcp(settings) => format!("{}:{}", settings.host, settings.port),
            Self::Certificate(settings) => format!("{}:{}", settings.host, settings.port),
            Self::Disk(settings) => settings.path.display().to_string(),
            Self::Container(settings) => settings.service.to_string(),
            // Its arguments may hold a secret.
            Self::Command(settings) => settings.command.first().cloned().unwrap_or_default(),
        }
    }
}

/// What stands between the login and the path.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let whole = rest.split(['/', '?', '#']).next().unwrap_or_default();
    whole.rsplit_once('@').map_or(whole, |(_, places)| places)
}

fn with_path(url: &str) -> String {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default();
    format!("{}{}", authority(url), path.split(['?', '#']).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_login_nor_query_is_shown() {
        for (url, place, path) in [
            ("redis://:hunter2@cache:6379/0", "cache:6379", "cache:6379/0"),
            ("mongodb://a:hunter2@one:1,two:2/shop?replicaSet=rs0", "one:1,two:2", "one:1,two:2/shop"),
            ("http://api:3000/health?token=hunter2", "api:3000", "api:3000/health"),
            ("http://api?token=hunter2", "api", "api"),
            ("hunter2", "", ""),
        ] {
            assert_eq!((authority(url), with_path(url).as_str()), (place, path), "{url}");
        }
    }
}
