//! Places where sets are kept.

pub mod local;

pub use local::LocalVault;
