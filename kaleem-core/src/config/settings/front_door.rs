//! `[front-door.NAME]`: a place where clients ask, outside of every container.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::health::Door;

/// A place where clients ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FrontDoorSettings {
    /// The address as a client has it, such as `https://shop.example/api/health`. `tcp://HOST:PORT` only connects.
    pub url: String,
    /// Where the connection goes instead of the host of the address, such as `127.0.0.1:443`: the name may lead elsewhere.
    #[schemars(with = "Option<String>")]
    pub connect: Option<SocketAddr>,
    /// The status that is expected; by default every status below 500.
    pub status: Option<u16>,
}

impl FrontDoorSettings {
    /// As it is asked.
    pub fn door(&self) -> Door {
        let door = Door::new(self.url.clone(), self.connect, BTreeSet::new());
        let statuses = self.status.map_or(door.statuses, |status| (status, status));
        Door { statuses, ..door }
    }

    /// Why the address cannot be asked; `None` when it can.
    pub fn problem(&self) -> Option<&'static str> {
        let rest = ["http://", "https://", "tcp://"].iter().find_map(|scheme| self.url.strip_prefix(scheme));
        match rest {
            None => Some("it does not start with `http://`, `https://` or `tcp://`"),
            Some(rest) if rest.is_empty() || rest.starts_with(['/', ':']) => Some("it names no host"),
            Some(_) if self.url.chars().any(char::is_whitespace) => Some("there is white space in it"),
            Some(rest) if rest.split('/').next().is_some_and(|host| host.contains('@')) => {
                Some("it holds a user name; a front door is asked without credentials")
            }
            Some(_) => None,
        }
    }
}
