//! Everything that the probes promise, against real sockets on loopback.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set up its servers has failed")]

mod support;
mod contract;
mod container;
mod inside;
mod reach;
mod servers;
mod redis;
mod web;
mod http2;
mod qdrant;
mod rabbitmq;
mod mongo_stand_in;
mod mongodb;
mod mongodb_states;
mod discover;
mod refined;
mod network;
