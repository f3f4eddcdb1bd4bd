//! What a service needs to be well beside itself: probes of other services, by name. Pure data: it stands in the plan,
//! and holds neither an address nor a secret.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::image::{ImageKind, ImageRef};
use crate::names::ServiceName;

/// A kind of dependency that is asked as its experts would ask it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DependencyKind {
    /// MongoDB and what speaks as it does.
    Mongodb,
    /// Qdrant.
    Qdrant,
    /// RabbitMQ.
    Rabbitmq,
    /// Redis and what speaks as it does.
    Redis,
}

impl DependencyKind {
    /// As it is written in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mongodb => "mongodb",
            Self::Qdrant => "qdrant",
            Self::Rabbitmq => "rabbitmq",
            Self::Redis => "redis",
        }
    }

    /// What an image is, by the last part of its repository; `None` where nobody here knows how to ask it.
    pub fn of_image(image: &ImageRef) -> Option<Self> {
        match ImageKind::of(image) {
            ImageKind::Redis => Some(Self::Redis),
            ImageKind::Mongodb => Some(Self::Mongodb),
            ImageKind::Rabbitmq => Some(Self::Rabbitmq),
            ImageKind::Qdrant => Some(Self::Qdrant),
            ImageKind::Store | ImageKind::Proxy | ImageKind::LonelyProxy | ImageKind::FastCgi | ImageKind::Agent | ImageKind::Other => None,
        }
    }
}

/// Something that must be well before a gate opens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// The service, or the group of `[probes]`, that is asked.
    pub service: ServiceName,
    /// One of its probes; `None` is every one that asks a dependency.
    pub probe: Option<String>,
    /// Whether it must be known to be well. Where it need not, only its failure counts: what could not be asked is said,
    /// and nobody waits for it.
    pub must_answer: bool,
}

impl fmt::Display for Need {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.probe {
            None => write!(out, "{}", self.service),
            Some(probe) => write!(out, "{}/{probe}", self.service),
        }
    }
}

/// A need that a person wrote: `SERVICE` or `SERVICE/PROBE`.
impl FromStr for Need {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, probe) = text.split_once('/').map_or((text, None), |(service, probe)| (service, Some(probe)));
        let bad = |_| format!("`{text}` is neither a service nor `SERVICE/PROBE`");
        if probe.is_some_and(|probe| probe.is_empty() || probe.chars().any(char::is_whitespace)) {
            return Err(format!("`{text}` names no probe after the `/`"));
        }
        Ok(Self { service: service.parse().map_err(bad)?, probe: probe.map(str::to_owned), must_answer: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_is_read_as_it_is_shown() {
        for text in ["cache", "cache/redis", "api/redis-redis.example.com"] {
            assert_eq!(text.parse::<Need>().unwrap().to_string(), text);
        }
        for (why, text) in [("nothing", ""), ("no probe", "cache/"), ("no service", "/redis"), ("white space", "cache/a b")] {
            assert!(text.parse::<Need>().is_err(), "{why}: {text:?}");
        }
    }
}
