//! What can be wrong with a project's files, said with file, line and column, all of it at once.
//!
//! Values of variables never appear in a message: they may be secret.

use std::fmt;
use std::path::PathBuf;

use crate::config::Origin;
use crate::names::NameError;
use crate::remedy::Remedy;

/// A project's files could not be read or do not make a project. The host was not touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No compose file in the directory and above it.
    #[error("no compose file in `{}` or above it", directory.display())]
    NoComposeFile {
        /// Where the search began.
        directory: PathBuf,
    },
    /// A file could not be read.
    #[error("could not read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A directory stands where a file is needed.
    #[error("`{}` is a directory, not a file", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// A file is larger than any compose file is.
    #[error("`{}` is larger than {limit_bytes} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// A file is not UTF-8 text.
    #[error("{origin}: this is not UTF-8 text")]
    NotText {
        /// The first byte that is not.
        origin: Origin,
    },
    /// A file has nothing in it.
    #[error("`{}` is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A file is not YAML.
    #[error("{origin}: this is not valid YAML: {reason}")]
    Yaml {
        /// Where it stops making sense.
        origin: Origin,
        /// What the reader stumbled over.
        reason: String,
    },
    /// A file, with its aliases unfolded, holds more values than any project needs.
    #[error("{origin}: this file unfolds into more values than any project has")]
    TooManyAliases {
        /// The value or alias that went over the limit.
        origin: Origin,
    },
    /// A file of variables (`.env`, `--env-file`) is not one.
    #[error("{origin}: {reason}")]
    Variables {
        /// Where.
        origin: Origin,
        /// What is wrong.
        reason: String,
    },
    /// The project has no usable name.
    #[error("the project has no usable name")]
    Name {
        /// Why.
        #[source]
        source: NameError,
    },
    /// The files are readable, and something in them is wrong or not carried out.
    #[error("{}", Listed(problems))]
    Invalid {
        /// Everything that was found, in the order of the files; at most 500.
        problems: Vec<Problem>,
    },
    /// `kaleem.toml` is not usable.
    #[error("{origin}: {reason}")]
    Settings {
        /// Where.
        origin: Origin,
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: String,
    },
}

impl Remedy for ConfigError {
    fn remedy(&self) -> String {
        match self {
            Self::NoComposeFile { .. } => "go to the project's directory, or name its file with `-f`".to_owned(),
            Self::Read { path, .. } => format!("check that `{}` exists and that you may read it", path.display()),
            Self::Directory { path } => format!("name a file inside `{}`", path.display()),
            Self::TooLarge { .. } => "check that this is the right file; split it with `include:` if it is".to_owned(),
            Self::NotText { .. } => "save the file as UTF-8".to_owned(),
            Self::Empty { .. } => "write at least one service under `services:`".to_owned(),
            Self::Yaml { .. } => "correct the file at that place".to_owned(),
            Self::TooManyAliases { .. } => {
                "do not repeat aliases of aliases; split a file that is really that large with `include:`".to_owned()
            }
            Self::Variables { .. } => "write one `NAME=value` a line; put a value that spans lines into double quotes".to_owned(),
            Self::Name { .. } => "name the project with `-p`, or with `name:` in the compose file".to_owned(),
            Self::Invalid { problems } => match problems.as_slice() {
                [one] => one.remedy.clone(),
                _ => "correct every place named above, then run the same command".to_owned(),
            },
            Self::Settings { remedy, .. } => remedy.clone(),
        }
    }
}

/// One thing that is wrong in a compose file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// The key, such as `services.api.ports`.
    pub key: String,
    /// Of which sort.
    pub kind: ProblemKind,
    /// What is wrong, lower case, without a full stop.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(out, "`{}`: ", self.key)?;
        }
        out.write_str(&self.reason)
    }
}

/// Sorts of problems, for callers that count or filter them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// A key that Compose does not know.
    UnknownKey,
    /// A key that Compose knows and kaleem does not carry out.
    NotCarriedOut,
    /// A value of another type than the key takes.
    WrongType,
    /// A value that does not read as what it should be.
    BadValue,
    /// A variable whose `${…}` is malformed.
    Interpolation,
    /// A variable that must be set (`:?`).
    MissingVariable,
    /// A name that is used and defined nowhere.
    Undefined,
    /// Services, includes or extensions that lead back to themselves.
    Cycle,
    /// A file that is named and does not exist.
    MissingFile,
    /// A service with neither `image:` nor `build:`.
    NoImage,
    /// Two things that cannot both be.
    Conflict,
}

struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [one] = self.0 {
            return write!(out, "{one}");
        }
        write!(out, "{} problems in the compose files", self.0.len())?;
        for problem in self.0 {
            write!(out, "\n  {problem}\n    help: {}", problem.remedy)?;
        }
        Ok(())
    }
}
