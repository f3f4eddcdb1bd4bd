//! Backup sets which are verified before they are believed.
//!
//! A set is made by [`set::create`] from sources into a vault, looked at with [`set::list`] and [`set::read`], checked with
//! [`set::verify`], put back with [`set::restore`],
//! proved by a [`drill`], and given up by the plan of [`retention`]. [`Backups`] is all of that for one project.

mod words;
mod random;
#[cfg(feature = "web")]
mod web;
pub mod seal;
pub mod format;
pub mod vault;
pub mod set;
pub mod retention;
pub mod drill;
pub mod source;
pub mod backups;
#[cfg(feature = "setup")]
pub mod setup;

pub use backups::{BackupParts, Backups, BackupsError};
