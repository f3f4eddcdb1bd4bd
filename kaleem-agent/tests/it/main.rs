//! Tests against real processes.

#[cfg(test)]
mod client;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod draining;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod holding;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod instance;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod ports;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod switching;
#[cfg(test)]
mod tunnels;
#[cfg(test)]
mod world;
