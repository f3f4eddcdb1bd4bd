//! Doors: places where clients ask, outside of every container. Whether a release is live is decided there.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::names::ServiceName;

/// A place where clients ask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Door {
    /// The address as a client has it: `http://`, `https://`, or `tcp://` for a port that speaks something else.
    pub url: String,
    /// Where the connection goes, if not to the host of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<SocketAddr>,
    /// First and last status that count as an answer of the service.
    pub statuses: (u16, u16),
    /// Services that the request goes through; empty where that is not known.
    pub behind: BTreeSet<ServiceName>,
}

impl Door {
    /// Statuses of a request that reached a service: a proxy that reaches nobody answers 502, 503 or 504.
    pub const ANSWERED: (u16, u16) = (100, 499);

    /// A door whose every answer below 500 counts.
    pub fn new(url: String, connect: Option<SocketAddr>, behind: BTreeSet<ServiceName>) -> Self {
        Self { url, connect, statuses: Self::ANSWERED, behind }
    }
}

impl Door {
    /// Whether a request goes through the service, as far as that is known.
    pub fn leads_to(&self, service: &ServiceName) -> bool {
        self.behind.is_empty() || self.behind.contains(service)
    }
}

impl fmt::Display for Door {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.connect {
            Some(place) if !self.url.contains(&place.to_string()) => write!(out, "{} (at {place})", self.url),
            _ => out.write_str(&self.url),
        }
    }
}
