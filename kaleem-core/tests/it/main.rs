//! Integration tests.

#[cfg(test)]
mod durable;
#[cfg(test)]
mod registry;
