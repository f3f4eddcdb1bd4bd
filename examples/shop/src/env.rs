//! The one door to the environment.

use crate::fault::Faults;

/// Everything that the environment decides.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What `/version` says; `SHOP_VERSION`, which the image sets.
    pub version: String,
    /// Where the service listens: `SHOP_PORT_INSIDE`, 3000 where nothing is said.
    pub port: u16,
    /// `REDIS_URL`; `None` keeps orders in memory.
    pub redis_url: Option<String>,
    /// `SHOP_FAULT`.
    pub faults: Faults,
    /// The machine's name: which container this is.
    pub host: String,
}

impl Settings {
    /// Reads the environment.
    pub(crate) fn read() -> Result<Self, String> {
        let port = match variable("SHOP_PORT_INSIDE") {
            Some(text) => text.parse().map_err(|_| format!("SHOP_PORT_INSIDE=`{text}` is not a port"))?,
            None => 3000,
        };
        Ok(Self {
            version: variable("SHOP_VERSION").unwrap_or_else(|| "dev".to_owned()),
            port,
            redis_url: variable("REDIS_URL"),
            faults: variable("SHOP_FAULT").unwrap_or_default().parse()?,
            host: std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "shop".to_owned(), |name| name.trim().to_owned()),
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}
