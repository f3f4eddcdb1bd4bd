//! Rules that look for what will bite. What they look at is gathered once; a rule only judges.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use kaleem_core::clock::Clock;
use kaleem_core::config::Project;
use kaleem_core::health::Verdict;
use kaleem_core::history::History;
use kaleem_core::kaleem::Kaleem;
use kaleem_core::names::{ContainerName, ServiceName};
use kaleem_core::observed::nginx::Directive;
use kaleem_core::observed::{self, image_reference};
use kaleem_core::remedy::{Remedy, one_line};
use kaleem_core::repair::Damage;
use kaleem_core::runtime::{EngineInfo, Instance, InstanceStatus, LocalImage, Runtime};

use crate::commands::reality;
use crate::error::CliError;
use crate::wiring::Wiring;

mod host;
mod nginx;
mod services;

/// What a rule found.
pub(crate) struct Answer {
    /// The rule, a word for scripts.
    pub rule: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// The service it is about.
    pub service: Option<ServiceName>,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Answer {
    fn ok(rule: &'static str, message: impl Into<String>) -> Self {
        Self { rule, verdict: Verdict::Ok, service: None, message: message.into(), remedy: None }
    }

    fn warn(rule: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { rule, verdict: Verdict::Warn, service: None, message: message.into(), remedy: Some(remedy.into()) }
    }

    fn fail(rule: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { rule, verdict: Verdict::Fail, service: None, message: message.into(), remedy: Some(remedy.into()) }
    }

    fn of(mut self, service: &ServiceName) -> Self {
        self.service = Some(service.clone());
        self
    }
}

/// Everything that rules look at.
pub(crate) struct Patient<'a> {
    project: &'a Project,
    wiring: &'a Wiring,
    /// The engine, or why it cannot be used.
    engine: Result<EngineInfo, (String, String)>,
    /// Where the engine keeps images and volumes, where it said so.
    engine_root: Option<PathBuf>,
    instances: Vec<Instance>,
    /// Images which are on the engine, by service.
    images: BTreeMap<ServiceName, LocalImage>,
    /// What web servers of the project are configured to do, by container.
    configurations: BTreeMap<ContainerName, (ServiceName, Vec<Directive>)>,
    history: Result<History, CliError>,
    /// What of the live release does not serve.
    faults: Vec<Damage>,
    /// What is to be known of it, and was so before kaleem came.
    warnings: Vec<Damage>,
    now: Timestamp,
}

impl<'a> Patient<'a> {
    /// Gathers it. What cannot be asked is left out; the rule for the engine says why.
    pub(crate) async fn new(
        project: &'a Project,
        wiring: &'a Wiring,
        kaleem: Result<Kaleem, CliError>,
        history: Result<History, CliError>,
        clock: &dyn Clock,
    ) -> Self {
        let failed = |error: &dyn Remedy, text: String| (text, error.remedy());
        let mut patient = Self {
            project,
            wiring,
            engine: Err((String::new(), String::new())),
            engine_root: None,
            instances: Vec::new(),
            images: BTreeMap::new(),
            configurations: BTreeMap::new(),
            history,
            faults: Vec::new(),
            warnings: Vec::new(),
            now: clock.now(),
        };
        let runtime = match kaleem {
            Ok(kaleem) => kaleem.runtime().clone(),
            Err(error) => {
                patient.engine = Err(failed(&error, one_line(&error)));
                return patient;
            }
        };
        patient.engine = match runtime.root_directory().await {
            Ok(root) => {
                patient.engine_root = Some(root);
                runtime.engine().await
            }
            Err(error) => Err(error),
        }
        .map_err(|error| failed(&error, one_line(&error)));
        patient.instances = runtime.list(&project.name).await.unwrap_or_default();
        if let Ok(history) = &patient.history {
            let reality = reality::ask(wiring, &project.name, history).await.unwrap_or_default();
            (patient.faults, patient.warnings) = (reality.faults, reality.warnings);
        }
        for service in project.services.values() {
            let Ok(image) = image_reference(&project.name, service, None) else { continue };
            if let Ok(Some(found)) = runtime.image(&image.to_string()).await {
                patient.images.insert(service.name.clone(), found);
            }
        }
        patient.read_configurations(&runtime).await;
        patient
    }

    async fn read_configurations(&mut self, runtime: &Arc<dyn Runtime>) {
        let running = self.instances.iter().filter(|instance| instance.state.status == InstanceStatus::Running);
        let running: Vec<_> = running.map(|instance| instance.name.clone()).collect();
        for (container, directives) in observed::proxy::nginx_configurations(runtime, &running).await {
            if let Some(instance) = self.instances.iter().find(|instance| instance.name == container) {
                self.configurations.insert(container, (instance.service.clone(), directives));
            }
        }
    }
}

/// A rule.
type Rule = fn(&Patient<'_>) -> Vec<Answer>;

const RULES: &[Rule] = &[
    host::engine,
    host::state_directory,
    host::journals,
    host::open_plan,
    host::disk,
    host::serving,
    host::orphans,
    services::compose_warnings,
    services::health,
    services::user,
    services::tags,
    services::restart,
    services::secrets_in_images,
    nginx::cached_names,
];

/// Asks every rule.
pub(crate) fn ask(patient: &Patient<'_>) -> Vec<Answer> {
    RULES.iter().flat_map(|rule| rule(patient)).collect()
}
