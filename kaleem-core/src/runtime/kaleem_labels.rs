//! Labels that kaleem adds.

/// The project, on containers that must not look like Compose's own, such as gateways.
pub const PROJECT: &str = "kaleem.project";
/// The release that created the container, such as `r7`.
pub const RELEASE: &str = "kaleem.release";
/// The [`crate::definition::DefinitionId`] it was created from.
pub const DEFINITION: &str = "kaleem.definition";
/// The pinned digest it was created from.
pub const DIGEST: &str = "kaleem.digest";
/// The image as it was asked for, tag included.
pub const IMAGE: &str = "kaleem.image";
/// The name of the gateway, on its container.
pub const GATEWAY: &str = "kaleem.gateway";
/// The port that it publishes for a gateway, on a port container, which carries that gateway's name, too.
pub const PORT: &str = "kaleem.port";
/// The project, on containers that only occupy an address for a moment.
pub const PLACEHOLDER: &str = "kaleem.placeholder";
/// The identity of the state directory from which it was created.
pub const STATE: &str = "kaleem.state";
/// Host and path of that state directory, for people.
pub const STATE_DIRECTORY: &str = "kaleem.state-directory";
/// The directory below which a gateway has its control socket, on its container.
pub const GATEWAYS: &str = "kaleem.gateways";
/// An owner mark, on the volume that holds it.
pub const MARK: &str = "kaleem.owner";
