//! Places where sets are kept.

pub mod local;
pub mod metered;

pub use local::LocalVault;
