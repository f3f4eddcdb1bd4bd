//! The engine on a strict fake: outcomes are truthful, and what is left on the host is what they say.

mod cases;
mod clients;
mod completeness;
mod data;
mod doors;
mod faults;
mod hooks;
mod matrix;
mod mutants;
mod needs;
mod outcomes;
mod ports;
mod properties;
mod quieted;
mod repairs;
mod rollbacks;
mod roles;
mod scaled;
mod unhealthy;
mod watches;
