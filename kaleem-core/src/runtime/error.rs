//! Why the engine did not do what it was asked, told apart as far as a person or a retry needs it.

use std::path::PathBuf;
use std::time::Duration;

use crate::image::ImageRef;
use crate::names::{ContainerName, ProjectName};
use crate::remedy::Remedy;

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The engine does not answer.
    #[error("could not reach the Docker engine at `{endpoint}`")]
    Unreachable {
        /// Socket or address.
        endpoint: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine's socket may not be opened.
    #[error("no permission to use the Docker engine at `{endpoint}`")]
    PermissionDenied {
        /// Socket or address.
        endpoint: String,
    },
    /// The engine is older than API 1.41.
    #[error("the Docker engine speaks API {found}, and kaleem needs {needed} or newer")]
    TooOld {
        /// What it speaks.
        found: String,
        /// What is needed.
        needed: &'static str,
    },
    /// The address of the engine cannot be used.
    #[error("`{endpoint}` is not an address of a Docker engine that kaleem can use: {reason}")]
    BadEndpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The engine that a Docker context names cannot be used.
    #[error("the Docker context `{context}` cannot be used: {reason}")]
    BadContext {
        /// Its name.
        context: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such container.
    #[error("there is no container `{name}`")]
    NotFound {
        /// Its name.
        name: String,
    },
    /// The name belongs to another container.
    #[error("the container name `{name}` is taken by {owner}")]
    NameTaken {
        /// The name.
        name: ContainerName,
        /// Who has it, in words.
        owner: String,
    },
    /// The container lacks the project's label.
    #[error("the container `{name}` does not belong to the project `{project}`")]
    NotOurs {
        /// Its name.
        name: String,
        /// The project.
        project: ProjectName,
    },
    /// The container must be stopped first.
    #[error("the container `{name}` is still running")]
    StillRunning {
        /// Its name.
        name: ContainerName,
    },
    /// The thing is in use.
    #[error("`{name}` is still in use")]
    InUse {
        /// Network or image.
        name: String,
    },
    /// A port of the host is held by someone else.
    #[error("the host's port {port} is already taken")]
    PortTaken {
        /// Address and port, as the engine names them.
        port: String,
    },
    /// The image is not on the engine.
    #[error("the image `{image}` is not on this engine")]
    ImageMissing {
        /// The reference.
        image: String,
    },
    /// The registry has no such image.
    #[error("the registry has no image `{image}`")]
    ImageNotFound {
        /// The reference.
        image: String,
    },
    /// The registry refused the credentials, or wants some.
    #[error("the registry does not let us pull `{image}`")]
    PullDenied {
        /// The reference.
        image: String,
    },
    /// A pull failed for another reason.
    #[error("could not pull `{image}`: {reason}")]
    PullFailed {
        /// The reference.
        image: String,
        /// The engine's words.
        reason: String,
    },
    /// A stream from or to a command in a container broke.
    #[error("the {side} of the command in `{name}` broke")]
    StreamBroken {
        /// The container.
        name: ContainerName,
        /// `input` or `output`.
        side: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A command in a container took too long.
    #[error("the command in `{name}` did not end within {timeout:?}")]
    ExecTimedOut {
        /// The container.
        name: ContainerName,
        /// The limit.
        timeout: Duration,
    },
    /// A file that the definition brings could not be put into the container.
    #[error("could not put `{path}` into the container `{name}`")]
    FileRefused {
        /// The container.
        name: ContainerName,
        /// The path inside.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The program of which an image was to be made cannot be read.
    #[error("could not read the program {}", path.display())]
    ProgramUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The engine refused, in its own words.
    #[error("the Docker engine refused to {operation} (status {status}): {message}")]
    Refused {
        /// What it was asked.
        operation: String,
        /// HTTP status.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// An owner mark is damaged, or was written by a newer kaleem.
    #[error("the owner mark `{name}` on the engine cannot be read: {reason}")]
    MarkUnreadable {
        /// The volume that holds it.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The connection broke in the middle.
    #[error("the connection to the Docker engine broke while it was asked to {operation}")]
    Broken {
        /// What it was asked.
        operation: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Remedy for RuntimeError {
    fn remedy(&self) -> String {
        match self {
            Self::Unreachable { .. } => {
                "start the engine (`systemctl start docker`) or set DOCKER_HOST, then run the same command".to_owned()
            }
            Self::PermissionDenied { .. } => "run as root, or add your user to the group `docker` and log in again".to_owned(),
            Self::TooOld { .. } => "upgrade the engine to Docker 20.10 or newer".to_owned(),
            Self::BadEndpoint { .. } => "set DOCKER_HOST to `unix:///path/to/docker.sock` or `tcp://host:port`".to_owned(),
            Self::BadContext { .. } => "choose another (`docker context ls`, `docker context use NAME`), or set DOCKER_HOST".to_owned(),
            Self::NotFound { .. } => "look at `docker ps -a`; `kaleem status` tells what is serving".to_owned(),
            Self::NameTaken { name, .. } => format!(
                "see whose it is with `docker inspect {name}`, then give this project or its service another name, or change `container_name`"
            ),
            Self::NotOurs { name, .. } => {
                format!("see whose it is with `docker inspect {name}`: kaleem changes only containers of its own project")
            }
            Self::StillRunning { name } => format!("stop it first: `docker stop {name}`"),
            Self::InUse { .. } => "stop what uses it, or leave it".to_owned(),
            Self::PortTaken { port } => format!("find who listens there (`ss -ltnp`), stop it, or publish another port than {port}"),
            Self::ImageMissing { image } => format!("build or pull it: `docker pull {image}`"),
            Self::ImageNotFound { .. } => "check the name and the tag, and that it was pushed".to_owned(),
            Self::PullDenied { image } => {
                let host = image.parse::<ImageRef>().map_or_else(|_| String::new(), |image| format!(" {}", image.registry()));
                format!("log in with `docker login{host}` as the user that runs kaleem")
            }
            Self::PullFailed { .. } => "check the network and the disk, then run the same command".to_owned(),
            Self::ExecTimedOut { .. } => "raise the timeout of the command, or look why it hangs with `docker exec`".to_owned(),
            Self::StreamBroken { .. } => "mend what the cause names, then run the same command".to_owned(),
            Self::FileRefused { .. } => "check that the path exists in the image and can be written".to_owned(),
            Self::ProgramUnreadable { path, .. } => format!("check that {} is there and can be read", path.display()),
            Self::Refused { .. } => "mend what the engine names, then run the same command".to_owned(),
            Self::MarkUnreadable { name, .. } => {
                format!("use the newest kaleem on this host; if no kaleem is running, remove the mark with `docker volume rm {name}`")
            }
            Self::Broken { .. } => "check that the engine runs (`docker info`), then run the same command".to_owned(),
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            _ => false,
        }
    }
}
