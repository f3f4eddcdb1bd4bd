//! Names that were checked once, and are safe in labels, file names and messages ever after.
//!
//! Nothing here is looked up: a name says nothing about whether the thing exists.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::remedy::Remedy;

/// A name that is not allowed where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("`{text}` is not a valid {kind}: {reason}")]
pub struct NameError {
    /// What the name was meant to be, in words.
    pub kind: &'static str,
    /// The text as it was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Remedy for NameError {
    fn remedy(&self) -> String {
        format!("choose a {} {}", self.kind, "of letters, digits, `-`, `_` and `.`, starting with a letter or digit")
    }
}

fn check_common(kind: &'static str, text: &str, longest: usize, allowed: fn(char) -> bool) -> Result<(), NameError> {
    let refuse = |reason| Err(NameError { kind, text: text.to_owned(), reason });
    let Some(first) = text.chars().next() else { return refuse("it is empty") };
    if text.len() > longest {
        return refuse("it is too long");
    }
    if !first.is_ascii_alphanumeric() {
        return refuse("it must start with a letter or a digit");
    }
    if !text.chars().all(allowed) {
        return refuse("it holds a character that is not allowed");
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $longest:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check_common($kind, text, $longest, $allowed)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                check_common($kind, &text, $longest, $allowed)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

fn lower(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_'
}

fn word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.'
}

name!(
    /// The name of a Compose project: lower case, as Compose demands.
    ProjectName, "project name", 63, lower
);
name!(
    /// The name of a Compose service.
    ServiceName, "service name", 128, word
);
name!(
    /// The full name of a network on the engine (`<project>_<key>`, or the `name:` of the file).
    NetworkName, "network name", 128, word
);
name!(
    /// The full name of a volume on the engine (`<project>_<key>`, or the `name:` of the file).
    VolumeName, "volume name", 255, word
);
name!(
    /// The name of a container on the engine.
    ContainerName, "container name", 255, word
);
name!(
    /// The name of a gateway: computed from the project and the service, and the name of its directory on the host.
    GatewayName, "gateway name", 200, word
);
name!(
    /// The identity of a state directory: random, made once, and kept in it.
    StateId, "identity of a state directory", 32, lower
);
name!(
    /// The name of one artifact of a backup set, such as `mongodb` or `redis-cache`.
    ArtifactName, "artifact name", 64, lower
);
name!(
    /// The name of a backup set: made once, never reused. It begins with the time of its making, for people.
    SetId, "backup set", 63, lower
);

impl ContainerName {
    /// The longest name that is given; engines allow more, host names made of it do not.
    const LONGEST_GIVEN: usize = 200;

    /// A name made of checked names and punctuation. One that is too long keeps its end, which tells containers apart.
    pub(crate) fn fitting(text: &str) -> Self {
        let start = text.len().saturating_sub(Self::LONGEST_GIVEN);
        let end = text.get(start..).unwrap_or(text).trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        Self(end.to_owned())
    }
}

/// The id which the engine gave a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId(pub String);

impl fmt::Display for ContainerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Twelve characters are what `docker ps` shows.
        out.pad(self.0.get(..12).unwrap_or(&self.0))
    }
}

/// The number of a release: given once, in order, and never again, also when the release failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReleaseId(u64);

impl ReleaseId {
    /// The release with that number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&format!("r{}", self.0))
    }
}

impl FromStr for ReleaseId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = text.strip_prefix('r').unwrap_or(text);
        let reason = "it is written as `r` and a number, such as `r7`";
        digits.parse().map(Self).map_err(|_| NameError { kind: "release", text: text.to_owned(), reason })
    }
}

/// The number of a plan in its project, and of the journal file that tells how it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanId(pub u64);

impl fmt::Display for PlanId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&format!("p{}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_safe_in_a_path_and_a_command_line_parse() {
        for (why, text, ok) in [
            ("plain", "api", true),
            ("compose allows these", "api-v2_x.y", true),
            ("a shell would read an option", "-rf", false),
            ("path traversal", "../api", false),
            ("empty", "", false),
            ("hidden file", ".api", false),
            ("white space", "a b", false),
            ("not ASCII", "äpi", false),
        ] {
            assert_eq!(text.parse::<ServiceName>().is_ok(), ok, "{why}: {text:?}");
        }
        assert!("Shop".parse::<ProjectName>().is_err(), "projects are lower case");
    }

    #[test]
    fn a_release_reads_as_it_prints() {
        assert_eq!("r12".parse::<ReleaseId>().map(|id| id.to_string()), Ok("r12".to_owned()));
        assert_eq!("12".parse::<ReleaseId>(), Ok(ReleaseId::new(12)));
        assert!("latest".parse::<ReleaseId>().is_err());
    }
}
