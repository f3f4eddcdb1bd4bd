//! Probes: one question, one verdict back.
//!
//! [`discover`] reads off a project what its services depend on, [`build_probe`] makes a probe of each of them, and
//! every probe is a [`HealthProbe`](kaleem_core::health::HealthProbe): Redis, MongoDB, RabbitMQ, Qdrant, HTTP, pages,
//! ports, disks, certificates, containers and commands in them, each behind a feature of its name.
//!
//! [`Dependencies`] answers what a plan means by the name of a probe, so that a gate can ask what a service needs.
//!
//! [`StandardProbes`] implements [`kaleem_core::health::Probes`]: gates and monitoring ask through it. Each kind of
//! question has a feature (`http`, `tcp`, `container`, `command`); a question whose feature is off is answered with
//! [`Unknown`](kaleem_core::health::Verdict::Unknown), never with a failure of the target.
//!
//! Three rules hold everywhere in this crate:
//! - A probe ends in time, whatever the other side does, and starts no task: dropping it closes what it opened.
//! - What could not be asked is *unknown*. Only an answer, or its absence where one was due, is a failure.
//! - Nothing that the target wrote is quoted, since it may hold a secret. The remedy says how to look at it.

#![cfg_attr(
    not(all(feature = "mongodb", feature = "rabbitmq", feature = "redis", feature = "spa", feature = "disk")),
    allow(dead_code, unused_imports, reason = "a build with few probes uses few of the tools that they share")
)]

mod report;
mod resolver;
pub mod settings;
mod reach;
#[cfg(any(feature = "http", feature = "command"))]
mod rules;
#[cfg(feature = "dial")]
mod der;
#[cfg(feature = "dial")]
mod tls;
#[cfg(feature = "dial")]
mod dial;
#[cfg(any(feature = "http", feature = "tcp"))]
mod address;
#[cfg(any(feature = "container", feature = "http", feature = "tcp", feature = "command"))]
mod container;
#[cfg(feature = "tcp")]
mod tcp;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "command")]
mod command;
mod standard;
#[cfg(feature = "tcp")]
mod port;
#[cfg(feature = "http")]
mod web;
#[cfg(feature = "http")]
mod door;
#[cfg(feature = "spa")]
mod spa;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "qdrant")]
mod qdrant;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "mongodb")]
mod mongodb;
#[cfg(feature = "disk")]
mod disk;
#[cfg(feature = "certificate")]
mod certificate;
mod build;
mod discover;
mod dependencies;

#[cfg(feature = "mongodb")]
pub use crate::mongodb::MongodbProbe;
pub use build::build_probe;
#[cfg(feature = "certificate")]
pub use certificate::CertificateProbe;
#[cfg(feature = "command")]
pub use command::CommandProbe;
#[cfg(feature = "container")]
pub use container::ContainerProbe;
pub use dependencies::{Dependencies, ReadProject, check};
pub use discover::{Discovered, Found, discover};
#[cfg(feature = "disk")]
pub use disk::DiskProbe;
#[cfg(feature = "tcp")]
pub use port::TcpProbe;
#[cfg(feature = "qdrant")]
pub use qdrant::QdrantProbe;
#[cfg(feature = "rabbitmq")]
pub use rabbitmq::RabbitmqProbe;
pub use reach::Reach;
#[cfg(feature = "redis")]
pub use redis::RedisProbe;
pub use resolver::{CurrentHosts, KnownHosts};
pub use settings::{ProbeSettings, SettingsError};
#[cfg(feature = "spa")]
pub use spa::SpaProbe;
pub use standard::StandardProbes;
#[cfg(feature = "http")]
pub use web::HttpProbe;
