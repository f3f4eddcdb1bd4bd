//! Places where sets are kept.

pub mod away;
pub mod local;
pub mod metered;
pub mod restic;
#[cfg(feature = "s3")]
pub mod s3;

pub use away::AwayVault;
pub use local::LocalVault;
pub use restic::{ResticSettings, ResticVault};
#[cfg(feature = "s3")]
pub use s3::{BucketStyle, Guarantee, S3Settings, S3SettingsError, S3Vault};
