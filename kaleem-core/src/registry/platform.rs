//! Platforms, and which image runs on which machine. Pure; nobody is asked.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// What an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) variant: String,
}

impl Platform {
    /// Reads `os/arch[/variant]`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (os, architecture) = (parts.next()?, parts.next()?);
        let variant = parts.next().unwrap_or_default();
        if parts.next().is_some() || os.is_empty() || architecture.is_empty() {
            return None;
        }
        Some(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.to_owned() }.normal())
    }

    /// The same platform in the one way in which we write it.
    pub(crate) fn normal(&self) -> Self {
        let (os, architecture, variant) =
            (self.os.to_ascii_lowercase(), self.architecture.to_ascii_lowercase(), self.variant.to_ascii_lowercase());
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", "") => ("arm", "v7"),
            ("armel", "") => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("i386" | "i686", "") => ("386", ""),
            other => other,
        };
        Self { os, architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// Whether this runs where `wanted` is wanted.
    #[cfg_attr(not(feature = "oci"), expect(dead_code, reason = "registries ask for it"))]
    pub(crate) fn runs_on(&self, wanted: &Self) -> bool {
        self.fitness(wanted).is_some()
    }

    /// How well this runs where `wanted` is wanted: `None` is not at all, more is better.
    ///
    /// A processor runs what was built for earlier variants of its architecture.
    fn fitness(&self, wanted: &Self) -> Option<u32> {
        let (own, wanted) = (self.normal(), wanted.normal());
        if own.os != wanted.os || own.architecture != wanted.architecture {
            return None;
        }
        if own.variant == wanted.variant {
            return Some(u32::MAX);
        }
        let (own, wanted) = (own.level()?, wanted.level()?);
        (own <= wanted).then_some(own)
    }

    fn level(&self) -> Option<u32> {
        match (self.architecture.as_str(), self.variant.as_str()) {
            ("amd64", "") => Some(1),
            ("arm64", "") => Some(8),
            ("amd64" | "arm64" | "arm", variant) => variant.strip_prefix('v')?.parse().ok(),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(out, "/{}", self.variant) }
    }
}

/// The candidate that runs best where `wanted` is wanted; of equals the first counts, as engines have it.
pub(crate) fn best<'a, T>(candidates: impl Iterator<Item = (&'a Platform, T)>, wanted: &Platform) -> Option<T> {
    let fitting = candidates.filter_map(|(platform, value)| Some((platform.fitness(wanted)?, value)));
    fitting.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, value)| value)
}

/// Platforms for people: sorted, each once, comma-separated.
pub(crate) fn list<'a>(platforms: impl Iterator<Item = &'a Platform>) -> String {
    let mut found: Vec<String> = platforms.map(|platform| platform.normal().to_string()).collect();
    found.sort();
    found.dedup();
    if found.is_empty() { "no platform".to_owned() } else { found.join(", ") }
}

/// Writers in Go print an absent list as `null`.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
