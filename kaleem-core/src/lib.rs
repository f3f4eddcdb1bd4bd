//! kaleem turns a Docker Compose project into releases.
//!
//! It reads the project's files, plans the steps from what runs now to a new release, carries them out behind health
//! gates, and takes them back when one fails. Each step is in a journal on disk before the host is touched, so a plan that
//! was interrupted anywhere can be resumed or taken back.
//!
//! This crate prints nothing, reads no environment, needs no terminal and never ends the process. It needs a tokio runtime.
//!
//! # The front door
//!
//! | to | use |
//! |---|---|
//! | read a project | [`load`] with [`LoadOptions`], which gives a [`Project`] |
//! | put kaleem together | [`Kaleem::builder`], which gives a [`KaleemBuilder`] |
//! | look, and change nothing | [`Kaleem::plan_deploy`], [`Kaleem::plan_rollback`], [`Kaleem::status`], [`Kaleem::history`] |
//! | take the right to change a project | [`Kaleem::work`], which gives a [`Work`] |
//! | plan under it | [`Kaleem::deploy_plan`], [`Kaleem::rollback_plan`], which give a [`Planned`] |
//! | carry a plan out | [`Kaleem::start`], [`Kaleem::resume`], [`Kaleem::abort`], which give a [`Run`] |
//! | follow it | [`Run`] is a stream of [`Notice`]s; its [`Control`] turns it back or leaves it |
//! | know how it ended | [`Run::finish`] gives an [`Ending`], with an [`Outcome`] when the plan is over |
//! | tell a person what to do | [`Remedy::remedy`] of any error |
//!
//! ```no_run
//! use std::collections::BTreeMap;
//! use std::sync::Arc;
//!
//! use futures_util::StreamExt;
//! use kaleem_core::health::Probes;
//! use kaleem_core::registry::ImageRegistry;
//! use kaleem_core::runtime::Runtime;
//! use kaleem_core::{Ending, Kaleem, LoadOptions, Notice, Outcome, load};
//!
//! /// Deploys the project in `/srv/shop`. `runtime` may be a `DockerRuntime`, `registry` an `OciRegistry`, `probes` the
//! /// `StandardProbes` of the crate `kaleem-health`.
//! async fn deploy(
//!     runtime: Arc<dyn Runtime>,
//!     registry: Arc<dyn ImageRegistry>,
//!     probes: Arc<dyn Probes>,
//! ) -> Result<bool, Box<dyn std::error::Error>> {
//!     let project = load(&LoadOptions {
//!         directory: "/srv/shop".into(),
//!         files: Vec::new(),
//!         env_files: Vec::new(),
//!         environment: BTreeMap::new(),
//!         profiles: Vec::new(),
//!         project_name: None,
//!         settings_file: None,
//!     })?;
//!     let kaleem = Kaleem::builder(runtime, registry, probes).state_directory("/var/lib/shop-deployer").owner("a deploy").build();
//!
//!     let mut work = kaleem.work(&project.name).await?;
//!     if work.interrupted().is_some() {
//!         // An earlier process died in the middle: what it began is brought to an end first.
//!         kaleem.resume(work)?.finish().await?;
//!         work = kaleem.work(&project.name).await?;
//!     }
//!     let planned = kaleem.deploy_plan(&work, &project, &BTreeMap::new()).await?;
//!     if planned.plan.is_empty() {
//!         return Ok(true);
//!     }
//!     let mut run = kaleem.start(work, &planned)?;
//!     while let Some(notice) = run.next().await {
//!         if let Notice::Started { what, .. } = notice {
//!             println!("{what}");
//!         }
//!     }
//!     Ok(matches!(run.finish().await?, Ending::Over(Outcome::Deployed { .. })))
//! }
//! ```
//!
//! # Inside
//!
//! Modules stand in the order in which they import: nouns, the doors to time, files and processes, seams, stages, memory,
//! the engine, the front door. The flow goes one way: [`config`], [`observed`], [`plan`], [`engine`] with [`journal`],
//! [`outcome`]. `ARCHITECTURE.md` is the map, `docs/embedding.md` tells more about embedding.
//!
//! # Features
//!
//! `docker` (default): the adapter for the Docker engine. `oci` (default): the adapter for registries. `testing`: fakes and
//! contract suites, for tests alone.

pub mod remedy;
pub mod names;
pub mod image;
pub mod secret;
pub mod clock;
pub mod durable;
pub mod pipe;
pub mod exec;
pub mod definition;
pub mod registry;
pub mod runtime;
pub mod health;
pub mod traffic;
pub mod monitor;
pub mod backup;
pub mod config;
pub mod release;
pub mod observed;
pub mod plan;
pub mod outcome;
#[doc(hidden)]
pub mod mutant;
pub mod state;
pub mod journal;
pub mod lease;
pub mod engine;
pub mod history;
pub mod repair;
pub mod kaleem;
#[cfg(feature = "testing")]
pub mod testing;

pub use config::{LoadOptions, Project, load};
pub use engine::{Control, Ending, Notice};
pub use kaleem::{Kaleem, KaleemBuilder, KaleemError, OpenPlan, Planned, Run, Status, Work};
pub use outcome::{Outcome, Resolution};
pub use remedy::Remedy;
