//! How a plan ended, truthfully: what was meant to happen, what happened, and what serves now.

use serde::{Deserialize, Serialize};

use crate::names::ReleaseId;

/// How a plan ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Outcome {
    /// The release serves.
    Deployed {
        /// The release.
        release: ReleaseId,
        /// What could not be tidied up afterwards; it does no harm, and the next plan tries again.
        leftovers: Vec<String>,
    },
    /// A step failed, everything was taken back, and what served before was seen healthy again.
    RolledBack {
        /// The step that failed.
        step: usize,
        /// Why, causes joined by colons.
        error: String,
        /// What serves; `None` where nothing served before.
        serving: Option<ReleaseId>,
    },
    /// Somebody asked to stop, everything was taken back, and what served before was seen healthy again.
    Aborted {
        /// Who asked.
        by: String,
        /// What serves; `None` where nothing served before.
        serving: Option<ReleaseId>,
    },
    /// A person settled a stuck plan by hand.
    Resolved {
        /// Who.
        by: String,
        /// What they say serves.
        resolution: Resolution,
        /// What serves; `None` where nothing does.
        serving: Option<ReleaseId>,
    },
}

impl Outcome {
    /// The release that serves after it, where the plan began with `previous` serving.
    pub fn serving(&self) -> Option<ReleaseId> {
        match self {
            Self::Deployed { release, .. } => Some(*release),
            Self::RolledBack { serving, .. } | Self::Aborted { serving, .. } | Self::Resolved { serving, .. } => *serving,
        }
    }

    /// What could not be tidied up afterwards; nothing where the plan was taken back.
    pub fn leftovers(&self) -> &[String] {
        match self {
            Self::Deployed { leftovers, .. } => leftovers,
            Self::RolledBack { .. } | Self::Aborted { .. } | Self::Resolved { .. } => &[],
        }
    }
}

/// What a person says serves, after settling a stuck plan by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// The release before the plan.
    Old,
    /// The release of the plan.
    New,
}
