//! `[hooks]` of `kaleem.toml`: programs of the operator that run on the host, beside the steps of a plan.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::DurationText;
use crate::config::{Hook, HookMoment};

/// Time a hook may take where nothing is said: a test suite is slow, and a deploy must end.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Programs that run on the host. A program and its arguments, without a shell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct HookSettings {
    /// Runs before a deploy touches anything; when it fails, the deploy is called off.
    pub before_deploy: Option<Vec<String>>,
    /// Runs after a deploy is committed; when it fails, that is told, and the release stays.
    pub after_deploy: Option<Vec<String>>,
    /// Time that each of them may take, such as `10m`; 10 minutes where nothing is said.
    pub timeout: Option<DurationText>,
}

impl HookSettings {
    /// The hooks that are set, to be run in `directory`.
    pub(crate) fn hooks(&self, directory: &Path) -> Vec<Hook> {
        let timeout = self.timeout.map_or(TIMEOUT, |text| text.0);
        let set = [(HookMoment::BeforeDeploy, &self.before_deploy), (HookMoment::AfterDeploy, &self.after_deploy)];
        let hook = |(moment, command): (_, &Option<Vec<String>>)| {
            Some(Hook { moment, command: command.clone()?, directory: directory.to_owned(), timeout })
        };
        set.into_iter().filter_map(hook).collect()
    }

    /// What is wrong with them: the key, and why.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        for (key, command) in [("before-deploy", &self.before_deploy), ("after-deploy", &self.after_deploy)] {
            if command.as_ref().is_some_and(|command| command.first().is_none_or(|program| program.trim().is_empty())) {
                return Some((key, format!("`{key}` names no program")));
            }
        }
        let endless = self.timeout.is_some_and(|timeout| timeout.0.is_zero());
        endless.then(|| ("timeout", "`timeout` of the hooks is 0".to_owned()))
    }
}
