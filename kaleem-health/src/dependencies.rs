//! What the services of a project need, asked at a gate: by name, with addresses and secrets that stand in no plan.
//!
//! A plan names `cache/redis`; what that means is read off the project's files in the process that asks. So a journal
//! holds nothing secret, and a resume in another process asks with what it can read itself.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use kaleem_core::config::{ConfigError, Project};
use kaleem_core::health::{Finding, HealthProbe, Need, NoAddress, Resolver, Verdict};
use kaleem_core::names::ServiceName;
use kaleem_core::remedy::{Remedy, one_line};
use kaleem_core::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::discover::{Discovered, discover};
use crate::reach::Reach;
use crate::report::Report;
use crate::resolver::KnownHosts;
use crate::settings::SettingsError;

/// Reads the project, or says in one line why it cannot be read.
pub type ReadProject = Arc<dyn Fn() -> Result<Project, String> + Send + Sync>;

/// The probes of a project, by name. They are made when the first of them is asked, and held.
pub struct Dependencies {
    runtime: Arc<dyn Runtime>,
    read: ReadProject,
    known: OnceCell<Result<Vec<Known>, String>>,
}

struct Known {
    service: ServiceName,
    name: String,
    probe: Result<Arc<dyn HealthProbe>, Finding>,
}

impl Dependencies {
    /// Those of the project that `read` gives; containers are looked up through `runtime` at each question.
    pub fn new(runtime: Arc<dyn Runtime>, read: ReadProject) -> Self {
        Self { runtime, read, known: OnceCell::new() }
    }

    /// The worst of what the probes of `need` found.
    pub async fn ask(&self, need: &Need, timeout: Duration) -> Finding {
        let known = self.known.get_or_init(|| async { self.make() }).await;
        let known = match known {
            Ok(known) => known,
            Err(why) => {
                return Finding::new(Verdict::Unknown, format!("the project's files cannot be read here: {why}"))
                    .with_remedy("run the command in the project's directory, or name its files with `-f`");
            }
        };
        let of_service = known.iter().filter(|one| one.service == need.service);
        let meant: Vec<&Known> = of_service.filter(|one| need.probe.as_ref().is_none_or(|name| *name == one.name)).collect();
        if meant.is_empty() {
            return Finding::new(Verdict::Unknown, format!("no probe is known of `{need}`"))
                .with_remedy("see which probes there are: `kaleem health`; add one under `[probes]` in kaleem.toml");
        }
        let answers = join_all(meant.iter().map(async |one| match &one.probe {
            Ok(probe) => probe.check(timeout).await,
            Err(finding) => finding.clone(),
        }));
        let mut report = Report::default();
        let mut well = Vec::new();
        for (one, finding) in meant.iter().zip(answers.await) {
            well.push(finding.reason.clone());
            // One probe is named by the need itself.
            report.take(if meant.len() > 1 { &one.name } else { "" }, finding);
        }
        report.finish(well.join("; "))
    }

    fn make(&self) -> Result<Vec<Known>, String> {
        let project = Arc::new((self.read)()?);
        let hosts = Arc::new(LiveHosts { project: project.clone(), runtime: self.runtime.clone() });
        let reach = Reach::network(hosts).with_engine(project.name.clone(), self.runtime.clone(), self.runtime.clone());
        let known = discover(&project).into_iter().map(|found| {
            let probe = found.probe(&reach).map_err(|error| error.finding());
            Known { service: found.service, name: found.name, probe }
        });
        Ok(known.collect())
    }
}

impl Discovered {
    /// Makes the probe. Nothing is connected yet.
    ///
    /// # Errors
    /// [`SettingsError`]
    pub fn probe(&self, reach: &Reach) -> Result<Arc<dyn HealthProbe>, SettingsError> {
        let settings = self.settings.as_ref().map_err(Clone::clone)?;
        crate::build_probe(&self.name, settings, reach)
    }
}

/// Checks what `kaleem.toml` says of probes and needs, as far as it can be told without asking anybody.
///
/// # Errors
/// [`ConfigError::Settings`] with the place of the probe or the need.
pub fn check(project: &Project) -> Result<(), ConfigError> {
    let found = discover(project);
    let settings = &project.settings;
    let nowhere = Reach::network(Arc::new(KnownHosts::new()));
    for one in &found {
        let Some(options) = settings.probes.get(&one.service).and_then(|probes| probes.get(&one.name)) else { continue };
        let Some(origin) = &options.read.origin else { continue };
        match one.probe(&nowhere) {
            // A variable that is not set here is no reason to refuse a deploy: the probe says so when it is asked.
            Ok(_) | Err(SettingsError::NotRead { .. }) => {}
            Err(error) => {
                let reason = format!("the probe `{}/{}` cannot be used: {error}", one.service, one.name);
                return Err(ConfigError::Settings { origin: origin.clone(), reason, remedy: error.remedy() });
            }
        }
    }
    for (service, said) in &settings.services {
        for need in said.needs.iter().flatten().filter_map(|need| need.parse::<Need>().ok()) {
            let of_service = || found.iter().filter(|one| one.service == need.service);
            if of_service().any(|one| need.probe.as_ref().is_none_or(|name| *name == one.name)) {
                continue;
            }
            let names: Vec<String> = of_service().map(|one| format!("`{}/{}`", one.service, one.name)).collect();
            let remedy = if names.is_empty() {
                format!("add one: `[probes.{}.NAME]`; what is found by itself is shown by `kaleem health`", need.service)
            } else {
                format!("its probes are: {}", names.join(", "))
            };
            let origin = settings.place(&["services", service.as_str(), "needs"]);
            let Some(origin) = origin else { continue };
            return Err(ConfigError::Settings {
                origin,
                reason: format!("`{service}` needs `{need}`, and there is no such probe"),
                remedy,
            });
        }
    }
    Ok(())
}

/// Names of a project as its containers are now.
struct LiveHosts {
    project: Arc<Project>,
    runtime: Arc<dyn Runtime>,
}

#[async_trait]
impl Resolver for LiveHosts {
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<std::net::SocketAddr>, NoAddress> {
        let instances = self.runtime.list(&self.project.name).await.map_err(|error| NoAddress::Unknown(one_line(&error)))?;
        KnownHosts::of(&self.project, &instances).resolve(host, port).await
    }
}
