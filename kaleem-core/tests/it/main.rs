//! Integration tests.

#[cfg(test)]
mod durable;
