//! From what runs now to a release: ordered steps, decided here and nowhere else.
//!
//! Everything in this module is pure: no clock, no file, no engine. Equal inputs give equal plans.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::definition::DefinitionId;
use crate::image::{ImageRef, PinnedImage};
use crate::names::{ContainerName, GatewayName, PlanId, ProjectName, ReleaseId, ServiceName};
use crate::release::{GateSettings, Release, Strategy};

pub mod adopting;
pub mod check;
pub mod compare;
pub mod gateway;
pub mod leaving;
pub mod older;
pub mod replicas;
pub mod settle;
pub mod step;
pub mod steps;
pub mod strategy;
pub mod target;
pub mod too_new;
pub mod writers;

pub use check::{Objection, Severity};
pub use step::{HandedOver, KeptAddress, Reach, ReachExpectation, Step, Undo, WhenUndone};

/// Version of the form in which plans are kept. Older ones are read for ever, a newer one is refused.
///
/// What formats 2 and 3 added has a default or is a new sort of step, so that a plan of an older format is read with it.
pub const PLAN_FORMAT: u32 = 3;

/// Ordered steps to a release. Immutable once it is in a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`PLAN_FORMAT`] when it was written.
    pub format: u32,
    /// Its number, and that of its journal.
    pub id: PlanId,
    /// Why it exists.
    pub kind: PlanKind,
    /// What serves when all steps are done.
    pub release: Release,
    /// What serves before, and again when the plan is taken back.
    pub previous: Option<ReleaseId>,
    /// What happens to each service, for people.
    pub changes: Vec<ServiceChange>,
    /// What the checks had to say, for people.
    pub objections: Vec<Objection>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Who had it carried out, as `user@host`; `None` before it is, and where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What that person noted of it, one line, for others. It must hold no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Plan {
    /// Whether nothing would be done.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The project.
    pub fn project(&self) -> &ProjectName {
        &self.release.target.project
    }

    /// What a step does, as people read it: as the step has it, but that nothing serves at the end of a plan that takes everything down.
    /// Empty for a step that is not in the plan.
    pub fn step_text(&self, step: usize) -> String {
        match (self.kind, self.steps.get(step)) {
            (PlanKind::Down, Some(Step::Commit { .. })) => "nothing serves any more".to_owned(),
            (PlanKind::Eject, Some(Step::Commit { release })) => format!("{release} serves without kaleem"),
            // What stays as it is needs no gate on the way back.
            (_, Some(Step::Baseline { gates })) if gates.is_empty() && self.previous.is_some() => "note what serves now".to_owned(),
            (_, Some(step)) => step.to_string(),
            (_, None) => String::new(),
        }
    }

    /// Adds what else speaks against it, the weightiest first.
    pub(crate) fn object(&mut self, more: Vec<Objection>) {
        self.objections.extend(more);
        self.objections.sort_by_key(|objection| std::cmp::Reverse(objection.severity));
    }

    /// The objections that forbid it.
    pub fn refusals(&self) -> impl Iterator<Item = &Objection> {
        self.objections.iter().filter(|objection| objection.severity == Severity::Refuse)
    }
}

/// Why a plan exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanKind {
    /// To a new release.
    Deploy,
    /// Back to a release that served before.
    Rollback,
    /// To plain Compose: without gateways, and without anything of kaleem's on the host.
    Eject,
    /// To nothing: everything is stopped and removed but the data.
    Down,
    /// To newer programs of gateways, with the same release.
    Upgrade,
    /// To fresh containers of some services, with the same release.
    Restart,
}

impl fmt::Display for PlanKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
            Self::Eject => "eject",
            Self::Down => "down",
            Self::Upgrade => "upgrade",
            Self::Restart => "restart",
        })
    }
}

/// What happens to one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceChange {
    /// The service.
    pub service: ServiceName,
    /// What happens.
    pub kind: ChangeKind,
    /// How.
    pub strategy: Strategy,
    /// Why that way.
    pub reason: String,
    /// The image before, where there was one.
    pub image_before: Option<String>,
    /// The image after.
    pub image_after: Option<String>,
    /// Names of what differs, without values: `environment.LOG_LEVEL`, `ports`.
    pub fields: Vec<String>,
    /// Whether its users notice.
    pub interruption: Interruption,
}

/// What happens to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// It starts for the first time.
    Add,
    /// It is replaced.
    Replace,
    /// It is stopped: the file does not name it any more.
    Stop,
    /// It stays as it is.
    Keep,
    /// It stays, and what somebody did to its containers or its gateway is repaired.
    Repair,
    /// It runs once, to its end.
    Run,
    /// Its container goes on running, with another setting.
    Update,
}

/// Whether users notice that a service is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interruption {
    /// They do not.
    None,
    /// It is away from the stop of the old until the new answers: its stop and its start.
    StopAndStart,
    /// Its requests wait at the gateway from the stop of the old until the new answers: whoever waits longer than the hold is refused.
    Held,
    /// Its ports go to a gateway that runs already: connections are refused for a moment, once.
    HandOver,
}

/// A container which a plan makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewInstance {
    /// Its name.
    pub name: ContainerName,
    /// Its service.
    pub service: ServiceName,
    /// Its number, from 1.
    pub number: u32,
    /// The release that makes it.
    pub release: ReleaseId,
    /// Its image.
    pub image: PinnedImage,
    /// What it is to be.
    pub definition: DefinitionId,
    /// Containers in whose namespaces or volumes it takes part.
    pub companions: BTreeMap<ServiceName, ContainerName>,
    /// What it is for.
    pub role: Role,
}

/// What a container is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It runs the service.
    Instance,
    /// It stands before those that do.
    Gateway(GatewayName),
    /// It runs the service as if Compose had made it, without a trace of kaleem.
    Plain,
}

/// One instance to which a gateway sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its container, under whose name the gateway finds it.
    pub container: ContainerName,
    /// Its release, for counting.
    pub release: ReleaseId,
}

/// What must be healthy again before "rolled back" may be said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineGate {
    /// The service.
    pub service: ServiceName,
    /// Its container, under the name it has before the plan.
    pub container: ContainerName,
    /// When it counts as healthy.
    pub gate: GateSettings,
}

/// The name that is given to a container of a service.
pub fn instance_name(project: &ProjectName, service: &ServiceName, release: ReleaseId, number: u32) -> ContainerName {
    ContainerName::fitting(&format!("{project}-{service}-{release}-{number}"))
}

/// The tag that keeps the image of a service of a release.
///
/// The registry's name ends in `.invalid`, which never resolves (RFC 2606), so nobody can push or pull it by accident.
pub fn pin_tag(project: &ProjectName, service: &ServiceName, release: ReleaseId) -> Option<ImageRef> {
    // Service names may hold upper case and runs of punctuation, which repositories may not.
    let service: String =
        service.as_str().bytes().map(|b| if b.is_ascii_alphanumeric() { char::from(b.to_ascii_lowercase()) } else { '-' }).collect();
    let project = project.as_str().trim_end_matches(['-', '_']);
    format!("kaleem.invalid/{project}/{}:{release}", service.trim_end_matches('-')).parse().ok()
}
