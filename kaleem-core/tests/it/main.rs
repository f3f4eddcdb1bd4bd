//! Integration tests.

#[cfg(test)]
mod compose_conformance;
#[cfg(test)]
mod compose_definition;
#[cfg(test)]
mod compose_errors;
#[cfg(test)]
mod compose_hash;
#[cfg(test)]
mod docker;
#[cfg(test)]
mod durable;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod front_door;
#[cfg(test)]
mod journal;
#[cfg(test)]
mod lease;
#[cfg(test)]
mod monitor;
#[cfg(test)]
mod older;
#[cfg(test)]
mod owner;
#[cfg(test)]
mod plan;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod traffic;
#[cfg(test)]
mod unsaid;
#[cfg(test)]
mod world;
