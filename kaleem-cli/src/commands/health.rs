//! `kaleem health`: every dependency of the project asked at once, as its expert would ask it.

mod view;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kaleem_core::config::Project;
use kaleem_core::health::{Finding, HealthProbe, Verdict};
use kaleem_core::names::ServiceName;
use kaleem_core::observed::{gateway_of, is_gateway};
use kaleem_core::runtime::{Instance, InstanceHealth, InstanceStatus, Runtime};
use kaleem_health::{CurrentHosts, Discovered, KnownHosts, Reach, discover};

use crate::arguments::Health;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::wiring::Wiring;
use view::{Answer, View};

/// Time between two rounds of `--wait` and `--watch`.
const PAUSE: Duration = Duration::from_secs(1);

/// Asks. Exits with [`Exit::Unhealthy`] when something fails, with [`Exit::Unsure`] when something could not be asked.
///
/// # Errors
///
/// [`CliError::Config`], [`CliError::Engine`]
pub(crate) async fn run(arguments: &Health, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let asked = Asked::new(wiring.project()?, wiring.runtime().await?);
    let mut view = View::new(printer);
    let deadline = arguments.wait.as_ref().map(|wait| wiring.clock().monotonic() + wait.0);
    loop {
        let answers = asked.ask(arguments.timeout.0).await;
        let left = deadline.map_or(Duration::ZERO, |deadline| deadline.saturating_sub(wiring.clock().monotonic()));
        if arguments.watch {
            match &answers {
                Ok(answers) => view.again(answers, wiring.clock().now()),
                // An engine that is restarted is no reason to look away.
                Err(error) => view.missed(error),
            }
            if printer.is_closed() {
                return Ok(Exit::Done);
            }
        } else {
            let worst = answers.as_ref().ok().map(|answers| worst(answers));
            if left.is_zero() || matches!(worst, Some(Verdict::Ok | Verdict::Warn)) {
                let answers = answers?;
                view.once(&answers);
                return Ok(exit(self::worst(&answers)));
            }
            if let Ok(answers) = &answers {
                view.waiting(answers, left);
            }
        }
        // Ctrl-C ends a watch as it ends any reading command.
        wiring.clock().sleep(if arguments.watch { PAUSE } else { PAUSE.min(left) }).await;
    }
}

fn exit(worst: Verdict) -> Exit {
    match worst {
        Verdict::Ok | Verdict::Warn => Exit::Done,
        Verdict::Unknown => Exit::Unsure,
        Verdict::Fail => Exit::Unhealthy,
    }
}

fn worst(answers: &[Answer<'_>]) -> Verdict {
    answers.iter().map(|answer| answer.finding.verdict).max().unwrap_or(Verdict::Ok)
}

/// A probe, or why there is none.
type Made = Result<Arc<dyn HealthProbe>, Finding>;

/// The probes of a project. They are held from round to round: some judge what grew, or for how long something lasts.
struct Asked {
    project: Project,
    runtime: Arc<dyn Runtime>,
    hosts: Arc<CurrentHosts>,
    /// Where the containers themselves are.
    behind: Arc<CurrentHosts>,
    probes: Vec<(Discovered, Made, Made)>,
}

impl Asked {
    fn new(project: Project, runtime: Arc<dyn Runtime>) -> Self {
        let hosts = Arc::new(CurrentHosts::default());
        let reach = Reach::network(hosts.clone()).with_engine(project.name.clone(), runtime.clone(), runtime.clone());
        let behind = Arc::new(CurrentHosts::default());
        let direct = Reach::network(behind.clone()).with_engine(project.name.clone(), runtime.clone(), runtime.clone());
        let made = |found: Discovered| {
            let probe = |reach: &Reach| found.probe(reach).map_err(|error| error.finding());
            let (probe, direct) = (probe(&reach), probe(&direct));
            (found, probe, direct)
        };
        let probes = discover(&project).into_iter().map(made).collect();
        Self { project, runtime, hosts, behind, probes }
    }

    /// One round: all at once, each where it is now.
    async fn ask(&self, timeout: Duration) -> Result<Vec<Answer<'_>>, CliError> {
        let instances = self.runtime.list(&self.project.name).await.map_err(|source| CliError::Engine { source })?;
        self.hosts.set(KnownHosts::of(&self.project, &instances));
        self.behind.set(KnownHosts::behind_gateways(&self.project, &instances));
        let instances = &instances;
        let answers = self.probes.iter().map(|(found, probe, direct)| async move {
            let finding = match probe {
                Ok(probe) => probe.check(timeout).await,
                Err(finding) => finding.clone(),
            };
            if matches!(finding.verdict, Verdict::Fail) {
                return Answer { found, finding };
            }
            // A gateway accepts whoever comes, and holds them: the containers behind it are asked as well.
            let stands = gateway_of(&self.project.name, &found.service, instances).is_some();
            let behind = match direct {
                Ok(probe) if stands => Some(probe.check(timeout).await).filter(|finding| finding.verdict == Verdict::Fail),
                _ => None,
            };
            let finding = behind.or_else(|| self.unhealthy(&found.service, instances)).unwrap_or(finding);
            Answer { found, finding }
        });
        Ok(join_all(answers).await)
    }

    /// What Docker says of the containers of a service whose own health check fails; nothing where `kaleem.toml` says what is checked.
    fn unhealthy(&self, service: &ServiceName, instances: &[Instance]) -> Option<Finding> {
        if self.project.settings.decides_health(service) {
            return None;
        }
        let mut own = instances.iter().filter(|instance| instance.service == *service && !instance.oneoff && !is_gateway(instance));
        let ill = own.find(|one| one.state.status == InstanceStatus::Running && one.state.health == InstanceHealth::Unhealthy)?;
        let name = &ill.name;
        let remedy = format!("see what it said: `docker inspect --format '{{{{json .State.Health}}}}' {name}`");
        Some(Finding::new(Verdict::Fail, format!("the health check of `{name}` fails")).with_remedy(remedy))
    }
}
