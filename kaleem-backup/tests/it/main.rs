//! Integration tests.

#[cfg(test)]
mod archive;
#[cfg(test)]
mod backups;
#[cfg(test)]
mod drill;
#[cfg(test)]
mod files;
#[cfg(test)]
mod mongo;
#[cfg(test)]
mod redis;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod sets;
#[cfg(test)]
mod support;
#[cfg(test)]
mod vaults;
