//! Random projects, releases and faults; what must hold whatever happens. The seed is fixed: `PROPTEST_CASES` asks for more cases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use kaleem_core::config::settings::backup::BackupWhen;
use kaleem_core::config::settings::{HookSettings, StrategyName};
use kaleem_core::config::{DependencyCondition, Project};
use kaleem_core::engine::Ending;
use kaleem_core::image::Digest;
use kaleem_core::kaleem::leaving::RemoveVolumes;
use kaleem_core::kaleem::{KaleemError, Planned, Work};
use kaleem_core::lease;
use kaleem_core::names::{GatewayName, ReleaseId, ServiceName};
use kaleem_core::outcome::Outcome;
use kaleem_core::plan::{ChangeKind, Interruption, Plan, PlanKind, Step};
use kaleem_core::runtime::{ExecOutput, InstanceStatus, RuntimeError};
use kaleem_core::testing::traffic_fake::FakeAnswer;
use kaleem_core::testing::{Behaviour, ExecReply, FakeCall};
use kaleem_core::traffic::{Refusal, TrafficError};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::cases::left;
use super::matrix::{Reaper, quiet};
use crate::world::{Moment, ServiceExt, World, agreed, project, service, strategy};

/// So many by default: the rest of the tests wait for them.
const CASES: u32 = 60;
const SERVICES: [&str; 3] = ["api", "web", "worker"];
/// Tags, and what containers of them do.
const TAGS: [&str; 5] = ["v1", "v2", "slow", "exits", "sick"];

#[derive(Clone, Debug)]
struct ServiceShape {
    publishes: bool,
    replicas: u32,
    recreate: bool,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// The process dies at this call or write.
    Dies(usize),
    /// And again, at this one of the resume.
    DiesTwice(usize, usize),
    /// This call fails.
    Refuses(usize),
    /// This call is carried out, and says that it failed.
    LosesAnswer(usize),
    /// The engine is away for some calls from this one on.
    Away(usize),
    /// The process dies, and the machine restarts.
    Reboots(usize),
    /// A gateway refuses this call.
    GatewayRefuses(usize),
    /// A gateway carries this call out, and says that it failed.
    GatewayLosesAnswer(usize),
}

/// What an operator does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Deploy,
    /// Where there is something to go back to.
    Rollback,
    RollbackWithData,
    Eject,
    Down,
    /// Of the gateways, to another program.
    Upgrade,
}

/// When gateways can be set up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Gateways {
    Never,
    Always,
    /// From the second release on: they take over from what runs without.
    Later,
}

#[derive(Clone, Debug)]
struct Release {
    /// The tag of each service, where it is there.
    tags: Vec<Option<usize>>,
    fault: Fault,
    /// What an operator does with an open plan.
    abort: bool,
    act: Act,
    /// Programs before and after a deploy; whether each succeeds.
    hooks: (Option<bool>, Option<bool>),
}

#[derive(Clone, Debug)]
struct Scenario {
    gateways: Gateways,
    /// Whether there is a store, which the first service needs.
    store: bool,
    /// Whether a backup set is made before each deploy.
    backups: bool,
    shapes: Vec<ServiceShape>,
    releases: Vec<Release>,
}

fn scenarios() -> impl Strategy<Value = Scenario> {
    let shape = (any::<bool>(), 1..=3_u32, any::<bool>()).prop_map(|(publishes, replicas, recreate)| ServiceShape {
        publishes,
        replicas,
        recreate,
    });
    let at = || 0..60_usize;
    let fault = prop_oneof![
        2 => Just(Fault::None),
        3 => at().prop_map(Fault::Dies),
        2 => (at(), 0..12_usize).prop_map(|(first, second)| Fault::DiesTwice(first, second)),
        2 => at().prop_map(Fault::Refuses),
        2 => at().prop_map(Fault::LosesAnswer),
        1 => at().prop_map(Fault::Away),
        1 => at().prop_map(Fault::Reboots),
        1 => (0..6_usize).prop_map(Fault::GatewayRefuses),
        1 => (0..6_usize).prop_map(Fault::GatewayLosesAnswer),
    ];
    // Good releases are more likely, so that there is something to lose.
    let tag = || prop_oneof![5 => 0..3_usize, 1 => 3..TAGS.len()];
    let tags = prop::collection::vec(prop::option::weighted(0.85, tag()), SERVICES.len());
    let act = prop_oneof![
        8 => Just(Act::Deploy),
        2 => Just(Act::Rollback),
        1 => Just(Act::RollbackWithData),
        1 => Just(Act::Eject),
        1 => Just(Act::Down),
        1 => Just(Act::Upgrade),
    ];
    let hook = || prop::option::weighted(0.2, prop::bool::weighted(0.8));
    let release = (tags, fault, any::<bool>(), act, (hook(), hook())).prop_map(|(tags, fault, abort, act, hooks)| Release {
        tags,
        fault,
        abort,
        act,
        hooks,
    });
    let gateways = prop_oneof![2 => Just(Gateways::Never), 2 => Just(Gateways::Always), 2 => Just(Gateways::Later)];
    let shapes = prop::collection::vec(shape, SERVICES.len());
    (gateways, any::<bool>(), prop::bool::weighted(0.3), shapes, prop::collection::vec(release, 1..6))
        .prop_map(|(gateways, store, backups, shapes, releases)| Scenario { gateways, store, backups, shapes, releases })
}

fn project_of(scenario: &Scenario, number: usize) -> Option<Project> {
    let release = scenario.releases.get(number)?;
    let mut services = Vec::new();
    for (index, (name, shape)) in SERVICES.iter().zip(&scenario.shapes).enumerate() {
        let Some(tag) = release.tags[index] else { continue };
        let mut one = service(name, &format!("registry.example/{}:{}", name, TAGS[tag]));
        if shape.publishes {
            let port = 8000 + u16::try_from(index).unwrap();
            one = one.publishing(port, port);
            // A gateway holds the port for any number of them.
            let fronted = scenario.gateways == Gateways::Always || (scenario.gateways == Gateways::Later && number > 0);
            one = if fronted { one.times(shape.replicas) } else { one };
        } else {
            one = one.times(shape.replicas);
        }
        if index > 0 && release.tags[index - 1].is_some() {
            one = one.after(SERVICES[index - 1], DependencyCondition::ServiceStarted);
        }
        if index == 0 && scenario.store {
            one = one.after("redis", DependencyCondition::ServiceHealthy);
        }
        services.push(one);
    }
    if services.is_empty() {
        return None;
    }
    if scenario.store {
        services.push(service("redis", "redis:7").storing("redis"));
    }
    let mut project = project(services);
    let command = |succeeds: bool| vec![if succeeds { "true" } else { "false" }.to_owned()];
    let (before_deploy, after_deploy) = (release.hooks.0.map(command), release.hooks.1.map(command));
    project.directory = "/".into();
    project.settings.hooks = HookSettings { before_deploy, after_deploy, timeout: None };
    if scenario.backups {
        project.settings.backup.when = Some(BackupWhen::BeforeDeploy);
    }
    for (index, (name, shape)) in SERVICES.iter().zip(&scenario.shapes).enumerate() {
        let not_yet = scenario.gateways == Gateways::Later && number == 0 && shape.publishes;
        if (shape.recreate || not_yet) && release.tags[index].is_some() {
            project = strategy(project, name, StrategyName::Recreate);
        }
    }
    Some(project)
}

/// Images, and the digests of those that are not good.
fn push_all(world: &World) -> BTreeSet<Digest> {
    let mut bad = BTreeSet::new();
    world.push("redis:7", Behaviour::Healthy);
    // The second service is a web server, which keeps the address of the first.
    world.runtime.on_exec(Arc::new(|container, command| {
        let nginx = container.as_str().contains("-web-") && command.first().is_some_and(|program| program == "nginx");
        let output = "location / { proxy_pass http://api:8000; }".to_owned();
        nginx.then_some(ExecReply::Ends(ExecOutput { exit_code: 0, output }))
    }));
    for name in SERVICES {
        for tag in TAGS {
            let behaviour = match tag {
                "slow" => Behaviour::HealthyAfter(3),
                "exits" => Behaviour::ExitsAtOnce { code: 1, log: "bad".to_owned() },
                "sick" => Behaviour::NeverHealthy,
                _ => Behaviour::Healthy,
            };
            let is_bad = matches!(behaviour, Behaviour::ExitsAtOnce { .. } | Behaviour::NeverHealthy);
            let sick = behaviour == Behaviour::NeverHealthy;
            let image = world
                .push_with(&format!("registry.example/{name}:{tag}"), behaviour, |fake| if sick { fake.with_healthcheck() } else { fake });
            if is_bad {
                bad.insert(image.digest);
            }
        }
    }
    bad
}

/// Somebody who uses the services, and is there at every change of the host.
struct Eyes {
    world: World,
    bad: BTreeSet<Digest>,
    /// Services that the plan promises not to interrupt, with their gateway where they have one.
    promised: Mutex<Vec<(ServiceName, Option<GatewayName>)>>,
    complaints: Mutex<Vec<String>>,
}

impl Eyes {
    fn serving(&self, service: &ServiceName, gateway: Option<&GatewayName>) -> bool {
        let snapshot = self.world.runtime.snapshot();
        let good = |name: &kaleem_core::names::ContainerName| {
            snapshot.containers.get(name).is_some_and(|found| {
                found.instance.state.status == InstanceStatus::Running
                    && !found.instance.digest.as_ref().is_some_and(|digest| self.bad.contains(digest))
            })
        };
        match gateway {
            Some(gateway) => matches!(self.world.traffic.ask(gateway), Some(FakeAnswer::From(instance)) if good(&instance)),
            None => snapshot
                .containers
                .iter()
                .any(|(name, found)| found.instance.service == *service && !found.labels.contains_key("kaleem.gateway") && good(name)),
        }
    }

    /// What serves now and is promised to go on.
    fn begin(&self, plan: &Plan) {
        let kept = plan
            .changes
            .iter()
            .filter(|change| change.interruption == Interruption::None && matches!(change.kind, ChangeKind::Replace | ChangeKind::Keep));
        let named = kept.map(|change| {
            let wanted = plan.release.target.services.get(&change.service);
            (change.service.clone(), wanted.and_then(|wanted| wanted.gateway.as_ref()).map(|gateway| gateway.name.clone()))
        });
        let serving: Vec<_> = named.filter(|(service, gateway)| self.serving(service, gateway.as_ref())).collect();
        *self.promised.lock().unwrap() = serving;
    }

    fn end(&self) {
        self.promised.lock().unwrap().clear();
    }

    fn look(&self, when: &str) {
        for (service, gateway) in self.promised.lock().unwrap().iter() {
            if !self.serving(service, gateway.as_ref()) {
                self.complain(format!("{when}: nobody serves `{service}`, which was promised not to be interrupted"));
            }
        }
        let project = self.world.project();
        if !lease::is_held(self.world.kaleem.state(&project).root()) {
            self.complain(format!("{when}: the host is changed without the lease"));
        }
        if let Err(error) = self.world.kaleem.history(&project) {
            self.complain(format!("{when}: the journals cannot be folded: {}", kaleem_core::remedy::one_line(&error)));
        }
    }

    fn complain(&self, text: String) {
        self.complaints.lock().unwrap().push(text);
    }

    fn check(&self) {
        let complaints = self.complaints.lock().unwrap();
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }
}

/// Looks after every call, beside whatever fault is set.
fn watch(world: &World, eyes: &Arc<Eyes>, lost: Option<usize>) {
    let (eyes, count) = (eyes.clone(), std::sync::atomic::AtomicUsize::new(0));
    world.runtime.after_call(Some(Arc::new(move |call: &FakeCall| {
        if !call.operation.is_mutating() {
            return None;
        }
        eyes.look(&call.to_string());
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        (lost == Some(number)).then(|| RuntimeError::Refused { operation: "do it".to_owned(), status: 500, message: "injected".to_owned() })
    })));
}

fn refuse(world: &World, from: usize, count: usize, error: fn() -> RuntimeError) {
    let seen = std::sync::atomic::AtomicUsize::new(0);
    world.runtime.before_call(Some(Arc::new(move |call: &FakeCall| {
        let number = call.operation.is_mutating().then(|| seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
        number.filter(|number| (from..from + count).contains(number)).map(|_| error())
    })));
}

fn fail_at_gateway(world: &World, at: usize, wanted: Moment) {
    let seen = std::sync::atomic::AtomicUsize::new(0);
    world.traffic.around_calls(Some(Arc::new(move |moment| {
        let source = Refusal::NotUnderstood { reason: "injected".to_owned() };
        let error = TrafficError::Refused { gateway: "shop-api-gateway".parse().unwrap(), operation: "do it", source };
        (moment == wanted && seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == at).then_some(error)
    })));
}

/// What is planned, and the project that it leads to; `None` where it makes no sense now.
async fn plan(world: &World, work: &Work, scenario: &Scenario, number: usize, known: &Projects) -> Option<(Planned, Option<Project>)> {
    let act = scenario.releases.get(number)?.act;
    let history = work.history();
    let serving = history.serving().and_then(|serving| known.get(&serving)).cloned();
    let possible = |planned: Result<Planned, KaleemError>| planned.ok();
    match act {
        Act::Rollback if history.releases().len() > 1 => Some((possible(world.kaleem.rollback_plan(work, None).await)?, None)),
        Act::RollbackWithData if history.releases().len() > 1 => {
            Some((possible(world.kaleem.rollback_plan_with_data(work, None).await)?, None))
        }
        Act::Eject => {
            let project = serving?;
            Some((world.kaleem.eject_plan(work, &project, &BTreeMap::new()).await.unwrap(), Some(project)))
        }
        Act::Down if serving.is_some() => Some((world.kaleem.down_plan(work, RemoveVolumes::No).await.unwrap(), None)),
        Act::Upgrade if serving.is_some() => {
            if scenario.gateways != Gateways::Never {
                world.newer_program();
            }
            Some((world.kaleem.upgrade_plan(work, &[]).await.unwrap(), None))
        }
        Act::Deploy | Act::Rollback | Act::RollbackWithData | Act::Down | Act::Upgrade => {
            let project = project_of(scenario, number)?;
            Some((agreed(world.kaleem.deploy_plan(work, &project, &BTreeMap::new()).await.unwrap()), Some(project)))
        }
    }
}

/// What each release is made from.
type Projects = BTreeMap<ReleaseId, Project>;

/// Carries one plan out under its fault, and finishes what is left open; answers how it ended.
async fn carry_out(world: &World, eyes: &Arc<Eyes>, scenario: &Scenario, number: usize, known: &mut Projects) -> Option<(Plan, Outcome)> {
    let release = scenario.releases.get(number)?;
    let work = world.kaleem.work(&world.project()).await.unwrap();
    assert!(world.kaleem.work(&world.project()).await.is_err(), "two own the lease");
    let (planned, project) = plan(world, &work, scenario, number, known).await?;
    if planned.plan.is_empty() || planned.plan.refusals().next().is_some() {
        return None;
    }
    let plan = planned.plan.clone();
    known.extend(project.map(|project| (plan.release.id, project)));
    eyes.begin(&plan);
    watch(
        world,
        eyes,
        match release.fault {
            Fault::LosesAnswer(at) => Some(at),
            _ => None,
        },
    );
    match release.fault {
        Fault::Dies(at) | Fault::DiesTwice(at, _) | Fault::Reboots(at) => Reaper::new(at).watch(world),
        Fault::Refuses(at) => {
            refuse(world, at, 1, || RuntimeError::Refused { operation: "do it".to_owned(), status: 409, message: "injected".to_owned() });
        }
        Fault::Away(at) => refuse(world, at, 5, || RuntimeError::Unreachable {
            endpoint: "unix:///fake.sock".to_owned(),
            source: "injected: connection refused".into(),
        }),
        Fault::GatewayRefuses(at) => fail_at_gateway(world, at, Moment::Before),
        Fault::GatewayLosesAnswer(at) => fail_at_gateway(world, at, Moment::After),
        Fault::None | Fault::LosesAnswer(_) => {}
    }
    let ran = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.kaleem.start(work, &planned))) {
        Ok(run) => run.unwrap().finish().await.ok(),
        Err(_) => None,
    };
    Reaper::leave(world);
    if matches!(release.fault, Fault::Reboots(_)) {
        eyes.end();
        world.runtime.restart_engine();
    }
    watch(world, eyes, None);
    if let (None, Fault::DiesTwice(_, second)) = (&ran, release.fault)
        && world.kaleem.history(&world.project()).unwrap().open().is_some()
    {
        let work = world.kaleem.work(&world.project()).await.unwrap();
        Reaper::new(second).watch(world);
        world.kaleem.resume(work).unwrap().finish().await.ok();
        Reaper::leave(world);
    }
    // A person mends what was in the way and finishes what is open.
    let mut ending = ran;
    for _ in 0..3 {
        let history = world.kaleem.history(&world.project()).unwrap();
        if history.open().is_none() {
            break;
        }
        let next = if release.abort { world.abort().await } else { world.resume().await };
        ending = Some(next.unwrap());
    }
    eyes.end();
    world.runtime.after_call(None);
    assert!(!matches!(ending, Some(Ending::Stuck { .. })), "stuck without a reason: {ending:?}");
    let history = world.kaleem.history(&world.project()).unwrap();
    assert!(history.open().is_none(), "it is still open");
    // It died before its journal was there: nothing happened.
    let entry = history.entries().iter().find(|entry| entry.plan.id == plan.id)?;
    Some((plan, entry.outcome.clone().unwrap()))
}

/// What an observer of the host says runs of a release.
fn runs(world: &World, release: ReleaseId) {
    let release = world.kaleem.history(&world.project()).unwrap().release(release).unwrap();
    let snapshot = world.runtime.snapshot();
    let up: Vec<_> = snapshot
        .containers
        .values()
        .filter(|found| found.instance.state.status == InstanceStatus::Running && !found.labels.contains_key("kaleem.gateway"))
        .collect();
    for (name, wanted) in &release.target.services {
        let of_service: Vec<_> = up.iter().filter(|found| found.instance.service == *name).collect();
        let right = of_service.iter().all(|found| found.instance.digest.as_ref() == Some(&wanted.image.digest));
        let running = of_service.iter().map(|found| found.instance.name.to_string()).collect::<Vec<_>>();
        assert!(
            right && of_service.len() == wanted.replicas as usize,
            "{} was said to serve, and of `{name}` runs {running:?}",
            release.id
        );
        if let Some(gateway) = &wanted.gateway {
            let answer = world.traffic.ask(&gateway.name);
            assert!(matches!(&answer, Some(FakeAnswer::From(instance)) if running.contains(&instance.to_string())), "{name}: {answer:?}");
        }
    }
    let strangers: Vec<_> = up.iter().filter(|found| !release.target.services.contains_key(&found.instance.service)).collect();
    assert!(strangers.is_empty(), "services that the release does not have run on: {strangers:?}");
}

async fn play(scenario: &Scenario) {
    quiet();
    let gateways = scenario.gateways != Gateways::Never;
    let world = match (scenario.backups, gateways) {
        (true, _) => World::with_backups(gateways),
        (false, true) => World::with_gateways(),
        (false, false) => World::new(),
    };
    let bad = push_all(&world);
    let eyes = Arc::new(Eyes { world: world.again(), bad, promised: Mutex::default(), complaints: Mutex::default() });
    let mut known = Projects::new();
    for (number, release) in scenario.releases.iter().enumerate() {
        world.sets.write(&format!("written before plan {number}"));
        let (before, serving) = (left(&world).await, world.serving());
        let Some((plan, outcome)) = carry_out(&world, &eyes, scenario, number, &mut known).await else { continue };
        eyes.check();
        let is_down = plan.kind == PlanKind::Down && matches!(outcome, Outcome::Deployed { .. });
        assert_eq!(world.serving(), outcome.serving().filter(|_| !is_down), "{outcome:?}");
        match &outcome {
            Outcome::Deployed { leftovers, .. } if is_down => {
                assert!(!leftovers.is_empty() || world.containers().is_empty(), "all is to be gone: {:?}", world.containers());
            }
            Outcome::Deployed { release, .. } => {
                assert_eq!(*release, plan.release.id);
                runs(&world, *release);
                let put_back = plan.steps.iter().find_map(|step| if let Step::RestoreData { set, .. } = step { Some(set) } else { None });
                if let Some(set) = put_back {
                    assert_eq!(Some(&world.sets.data()), world.sets.finished().get(set), "the data is not that of {set}");
                }
            }
            Outcome::RolledBack { serving: said, .. } | Outcome::Aborted { serving: said, .. } => {
                assert_eq!(*said, serving, "it says that something else serves than before");
                // A reboot starts what its policy says, and both programs of a gateway do the same.
                let elsewhere = matches!(release.fault, Fault::Reboots(_)) || plan.kind == PlanKind::Upgrade;
                assert!(
                    elsewhere || left(&world).await == before,
                    "{outcome:?}: the host is not as before:\n{:?}\n{before:?}",
                    left(&world).await
                );
                if let Some(serving) = said {
                    runs(&world, *serving);
                }
            }
            Outcome::Resolved { .. } => panic!("nobody settled it"),
        }
    }
}

#[test]
fn whatever_happens_nobody_is_interrupted_who_was_promised_otherwise_and_outcomes_are_true() {
    let asked = Config::default();
    // 256 is what proptest takes where `PROPTEST_CASES` says nothing.
    let cases = if asked.cases == 256 { CASES } else { asked.cases };
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 60, ..asked };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[77; 32]));
    let result = runner.run(&scenarios(), |scenario| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(&scenario));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
