//! What is wrong with settings, in words that repeat no secret.

use kaleem_core::health::{Finding, Verdict};
use kaleem_core::remedy::{Remedy, one_line};

/// Settings that cannot be used. No text of an address is repeated, since it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Not an address of that kind.
    #[error("the address of the {kind} probe cannot be used: {reason}")]
    Address {
        /// What speaks there.
        kind: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// PEM text that holds something else.
    #[error("the {what} cannot be read")]
    Pem {
        /// Which text.
        what: &'static str,
    },
    /// A pattern or a JSON rule.
    #[error("`{text}` is not a rule that can be checked: {reason}")]
    Rule {
        /// The rule.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither found nor written.
    #[error("the {kind} probe has no address: none was found, and none is written")]
    NoAddress {
        /// What is to be asked.
        kind: &'static str,
    },
    /// The same of a port.
    #[error("the {kind} probe has no port: none was found, and none is written")]
    NoPort {
        /// What is to be asked.
        kind: &'static str,
    },
    /// A command without a program.
    #[error("the {kind} probe has no program")]
    NoProgram {
        /// What is to be asked.
        kind: &'static str,
    },
    /// A variable, a file or a secret that the settings name.
    #[error("it cannot be asked, since {what}")]
    NotRead {
        /// What could not be read, by name.
        what: String,
    },
    /// This build cannot ask that.
    #[error("this build has no {kind} probe")]
    NotBuilt {
        /// The kind.
        kind: &'static str,
    },
}

impl SettingsError {
    /// What a probe that cannot be made found: it could not ask.
    pub fn finding(&self) -> Finding {
        Finding::new(Verdict::Unknown, one_line(self)).with_remedy(self.remedy())
    }
}

impl Remedy for SettingsError {
    fn remedy(&self) -> String {
        match self {
            Self::Address { kind, .. } => format!("write it as `{}`", example(kind)),
            Self::Pem { .. } => "give it as PEM text, from `-----BEGIN` to `-----END`".to_owned(),
            Self::Rule { .. } => "write JSON rules as `info.redis.status == \"up\"`, and patterns as regular expressions".to_owned(),
            Self::NoAddress { kind } => {
                format!("write its address, such as `url = \"{}\"`, or `url-env` with the variable that holds it", example(kind))
            }
            Self::NoProgram { .. } => "write its `command`, such as `[\"pg_isready\", \"-q\"]`".to_owned(),
            Self::NoPort { .. } => "write its `port`".to_owned(),
            Self::NotRead { .. } => "set the variable (also in `.env`), or correct the name under `[probes]` in kaleem.toml".to_owned(),
            Self::NotBuilt { kind } => format!("build kaleem-health with the feature `{kind}`"),
        }
    }
}

fn example(kind: &str) -> &'static str {
    match kind {
        "redis" => "redis://user:password@host:6379",
        "rabbitmq" => "amqp://user:password@host:5672/vhost",
        "rabbitmq management" => "http://host:15672",
        "mongodb" => "mongodb://user:password@host:27017/?replicaSet=rs0",
        "qdrant" => "http://host:6333",
        "qdrant grpc" => "http://host:6334",
        _ => "https://host/path",
    }
}
