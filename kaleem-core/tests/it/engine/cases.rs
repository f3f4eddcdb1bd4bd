//! Every kind of plan there is: what the matrices of deaths and faults go through.

use std::collections::BTreeMap;
use std::sync::Arc;

use kaleem_core::config::settings::backup::{BackupWhen, MigrationName};
use kaleem_core::config::settings::{HookSettings, StrategyName};
use kaleem_core::config::{DependencyCondition, Project};
use kaleem_core::definition::RestartPolicy;
use kaleem_core::engine::Ending;
use kaleem_core::kaleem::leaving::RemoveVolumes;
use kaleem_core::kaleem::{KaleemError, Planned, Work};
use kaleem_core::names::ReleaseId;
use kaleem_core::outcome::Outcome;
use kaleem_core::runtime::{ExecOutput, InstanceStatus};
use kaleem_core::testing::{Behaviour, ExecReply};

use crate::world::{ServiceExt, World, container, lasting, project, service, service_name, setting, strategy};

/// One kind of deploy: the project before and after.
#[derive(Clone)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    before: Option<Project>,
    after: Project,
    /// Whether the new release is good.
    pub(super) good: bool,
    /// Whether gateways can be set up.
    gateways: Gateways,
}

/// What is done in a world that is prepared.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Act {
    /// To `after`.
    Deploy,
    /// From `after` to `before`.
    Rollback,
    /// The same, but the containers of `before` end as soon as they are started.
    RollbackToWhatIsBad,
    /// From `after` to `before`, with the data that `before` had.
    RollbackWithData,
    /// The same, but the containers of `before` end as soon as they are started.
    RollbackWithDataToWhatIsBad,
    /// To plain Compose.
    Eject,
    /// The same, but what is made from the images from now on ends at once.
    EjectBad,
    /// To nothing.
    Down,
    /// To another program of the gateways.
    Upgrade,
    /// To `after`, while somebody has taken what serves off its network.
    Heal,
    /// To fresh containers of `api`.
    Restart,
}

impl Act {
    fn goes_back(self) -> bool {
        match self {
            Self::Rollback | Self::RollbackToWhatIsBad | Self::RollbackWithData | Self::RollbackWithDataToWhatIsBad => true,
            Self::Deploy | Self::Heal | Self::Eject | Self::EjectBad | Self::Down | Self::Upgrade | Self::Restart => false,
        }
    }
}

/// One kind of plan.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) shape: Shape,
    act: Act,
}

impl Case {
    pub(super) fn name(&self) -> &'static str {
        self.shape.name
    }

    /// Whether what it leads to is good.
    pub(super) fn good(&self) -> bool {
        self.shape.good
    }

    /// The world before it.
    pub(super) async fn prepared(&self) -> World {
        let world = prepared(&self.shape).await;
        if self.act.goes_back() {
            let ending = world.deploy(&self.shape.after).await.unwrap();
            assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{}: {ending:?}", self.name());
        }
        match self.act {
            Act::EjectBad => {
                let release = world.kaleem.history(&world.project()).unwrap().release(ReleaseId::new(1)).unwrap();
                let digest = &release.target.services[&service_name("api")].image.digest;
                world.runtime.set_behaviour(digest, Behaviour::ExitsAtOnce { code: 1, log: "bad".to_owned() });
            }
            Act::Upgrade => world.newer_program(),
            Act::RollbackWithData | Act::RollbackWithDataToWhatIsBad => world.sets.write("of r2"),
            Act::Heal => {
                let network = "shop_default".parse().unwrap();
                world.runtime.disconnect_by_hand(&container("shop-api-gateway"), &network);
                world.runtime.disconnect_by_hand(&container("shop-api-r1-1"), &network);
                world.runtime.pause_by_hand(&container("shop-api-r1-1"));
            }
            Act::Deploy | Act::Rollback | Act::RollbackToWhatIsBad | Act::Eject | Act::Down | Act::Restart => {}
        }
        if matches!(self.act, Act::RollbackToWhatIsBad | Act::RollbackWithDataToWhatIsBad) {
            let stopped: Vec<_> = world.runtime.snapshot().containers.into_iter().collect();
            for (name, found) in stopped.iter().filter(|(_, found)| found.instance.state.status == InstanceStatus::Exited) {
                assert!(!found.labels.contains_key("kaleem.gateway"), "{name} is no gateway");
                world.runtime.set_container_behaviour(name, Behaviour::ExitsAtOnce { code: 1, log: "bad".to_owned() });
            }
        }
        world
    }

    /// A project that is good whatever was tried before.
    pub(super) fn good_project(&self) -> Project {
        match self.act {
            Act::Deploy | Act::Heal => {
                self.shape.before.clone().unwrap_or_else(|| project(vec![service("api", "registry.example/app:v2")]))
            }
            Act::Rollback | Act::RollbackToWhatIsBad | Act::RollbackWithData | Act::RollbackWithDataToWhatIsBad => self.shape.after.clone(),
            Act::Eject | Act::Down | Act::Upgrade | Act::Restart => self.shape.after.clone(),
            Act::EjectBad => project(vec![service("api", "registry.example/app:v2").publishing(8080, 3000)]),
        }
    }

    pub(super) async fn plan(&self, world: &World, work: &Work) -> Result<Planned, KaleemError> {
        match self.act {
            Act::Deploy | Act::Heal => world.kaleem.deploy_plan(work, &self.shape.after, &BTreeMap::new()).await,
            Act::Rollback | Act::RollbackToWhatIsBad => world.kaleem.rollback_plan(work, None).await,
            Act::RollbackWithData | Act::RollbackWithDataToWhatIsBad => world.kaleem.rollback_plan_with_data(work, None).await,
            Act::Eject | Act::EjectBad => world.kaleem.eject_plan(work, &self.shape.after, &BTreeMap::new()).await,
            Act::Down => world.kaleem.down_plan(work, RemoveVolumes::Yes).await,
            Act::Upgrade => world.kaleem.upgrade_plan(work, &[]).await,
            Act::Restart => world.kaleem.restart_plan(work, &[service_name("api")]).await,
        }
    }

    /// Whether it touches nothing but a gateway's program, which stays when the plan is taken back: both programs do the same.
    pub(super) fn is_upgrade(&self) -> bool {
        self.act == Act::Upgrade
    }

    /// Whether nothing goes back by itself from some step on.
    pub(super) fn is_one_way(&self) -> bool {
        self.shape.after.settings.services.values().any(|settings| settings.migration == Some(MigrationName::OneWay))
    }

    /// Carries it out to its end.
    pub(super) async fn run(&self, world: &World) -> Result<Ending, KaleemError> {
        let work = world.kaleem.work(&world.project()).await?;
        let planned = self.plan(world, &work).await?;
        world.kaleem.start(work, &planned)?.finish().await
    }
}

/// Every kind of plan.
pub(super) fn cases() -> Vec<Case> {
    let deploys = shapes().into_iter().map(|shape| Case { shape, act: Act::Deploy });
    let api = |tag: &str| service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000);
    let worker = |tag: &str| service("worker", &format!("registry.example/app:{tag}"));
    let one = |tag: &str| project(vec![api(tag)]);
    let both = |tag: &str| project(vec![api(tag), worker(tag).after("api", DependencyCondition::ServiceHealthy)]);
    let turns = |tag: &str| project(vec![api(tag).times(3)]);
    let held = |tag: &str| setting(one(tag), "api", |settings| settings.singleton = Some(true));
    let leave = |name, act, what: Project| Case {
        shape: Shape { name, before: Some(what.clone()), after: what, good: act != Act::EjectBad, gateways: Gateways::Yes },
        act,
    };
    let two = |tag: &str| project(vec![api(tag).publishing(8081, 3000)]);
    let grown = |name, act, before: Project, after: Project| Case {
        shape: Shape { name, before: Some(before), after, good: true, gateways: Gateways::Grown },
        act,
    };
    let stored =
        || project(vec![api("v1").after("redis", DependencyCondition::ServiceStarted), service("redis", "redis:7").storing("redis")]);
    let back = |name, act, before: Project, after: Project, gateways| Case {
        shape: Shape { name, before: Some(before), after, good: matches!(act, Act::Rollback | Act::RollbackWithData), gateways },
        act,
    };
    deploys
        .chain([
            grown("eject with a port container", Act::Eject, two("v1"), two("v1")),
            grown("down with a port container", Act::Down, two("v1"), two("v1")),
            grown("rollback past a port container", Act::Rollback, two("v1"), one("v2")),
            back("rollback to fewer ports", Act::Rollback, one("v1"), two("v2"), Gateways::Yes),
            leave("eject", Act::Eject, both("v1")),
            leave("eject, bad", Act::EjectBad, one("v1")),
            leave("down", Act::Down, stored()),
            leave("upgrade", Act::Upgrade, one("v1")),
            leave("what serves lost its network", Act::Heal, one("v1")),
            Case {
                shape: Shape {
                    name: "what serves lost its network, and the new is bad",
                    before: Some(one("v1")),
                    after: one("bad"),
                    good: false,
                    gateways: Gateways::Yes,
                },
                act: Act::Heal,
            },
            leave("restart", Act::Restart, both("v1")),
            leave("restart with requests held", Act::Restart, held("v1")),
            back("rollback", Act::Rollback, one("v1"), one("v2"), Gateways::No),
            back("rollback to what is bad", Act::RollbackToWhatIsBad, one("v1"), one("v2"), Gateways::No),
            back("rollback in batches", Act::Rollback, turns("v1"), turns("v2"), Gateways::Yes),
            back("rollback with requests held", Act::Rollback, held("v1"), held("v2"), Gateways::Yes),
            back("rollback behind a gateway", Act::Rollback, both("v1"), both("v2"), Gateways::Yes),
            back("rollback behind a gateway to what is bad", Act::RollbackToWhatIsBad, both("v1"), both("v2"), Gateways::Yes),
            back("rollback with data", Act::RollbackWithData, backed_up(one("v1")), backed_up(one("v2")), Gateways::Yes),
            back(
                "rollback with data to what is bad",
                Act::RollbackWithDataToWhatIsBad,
                backed_up(one("v1")),
                backed_up(one("v2")),
                Gateways::No,
            ),
        ])
        .collect()
}

/// The project with programs before and after its deploy.
fn hooked(mut project: Project, before: &str, after: &str) -> Project {
    let command = |program: &str| Some(vec![program.to_owned()]);
    project.directory = "/".into();
    project.settings.hooks = HookSettings { before_deploy: command(before), after_deploy: command(after), timeout: None };
    project
}

/// The project with a backup set before each deploy.
fn backed_up(mut project: Project) -> Project {
    project.settings.backup.when = Some(BackupWhen::BeforeDeploy);
    project
}

/// The project with a migration from which nothing goes back by itself.
fn one_way(project: Project) -> Project {
    backed_up(setting(project, "migrate", |settings| settings.migration = Some(MigrationName::OneWay)))
}

#[derive(Clone, Copy, PartialEq)]
enum Gateways {
    No,
    Yes,
    /// Only after the first release.
    Later,
    /// They got all ports but the first of a service while they served.
    Grown,
}

fn shapes() -> Vec<Shape> {
    let api = |tag: &str| service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000);
    let worker = |tag: &str| service("worker", &format!("registry.example/app:{tag}"));
    let redis = || service("redis", "redis:7").storing("redis");
    let migrate = |tag: &str| service("migrate", &format!("registry.example/migrate:{tag}"));
    let one = |tag: &str| project(vec![api(tag)]);
    let many = |tag: &str| {
        project(vec![
            api(tag).after("redis", DependencyCondition::ServiceStarted),
            worker(tag).times(2).after("api", DependencyCondition::ServiceHealthy),
            redis(),
        ])
    };
    let migrated = |tag: &str| {
        project(vec![api(tag).named("shop-api").after("migrate", DependencyCondition::ServiceCompletedSuccessfully), migrate(tag)])
    };
    let fronted = |tag: &str| project(vec![api(tag), service("web", "nginx:1")]);
    // What it needs is asked before it is replaced: `service_healthy` of something that is asked as its experts would.
    let needing = |tag: &str| project(vec![api(tag).after("redis", DependencyCondition::ServiceHealthy), redis()]);
    // Its container goes on running.
    let policy = |tag: &str, restart| {
        let mut redis = redis();
        redis.definition.restart = restart;
        project(vec![api(tag), redis])
    };
    let two = |tag: &str| project(vec![api(tag).publishing(8081, 3000)]);
    let three = |tag: &str| project(vec![api(tag).publishing(8081, 9000).publishing(8082, 3000)]);
    let more = |mut project: Project, port: u16| {
        let api = project.services.remove(&service_name("api")).unwrap();
        project.services.insert(service_name("api"), api.publishing(port, 3000));
        project
    };
    // Only what is replaced after it is bad.
    let keeps_api = |mut project: Project| {
        let old = many("v1").services.remove(&service_name("api")).unwrap();
        project.services.insert(service_name("api"), old);
        project
    };
    // It is made anew, with all ports.
    let logged = |project: Project| setting(project, "api", |settings| settings.access_log = Some(true));
    let turns = |tag: &str| project(vec![api(tag).times(3)]);
    // Never more than two, and one may be away.
    let fewer = |tag: &str| {
        setting(project(vec![api(tag).times(2)]), "api", |settings| {
            (settings.max_surge, settings.max_unavailable) = (Some(0), Some(1));
        })
    };
    let moved =
        |name: &str, tag: &str| project(vec![service(name, &format!("registry.example/app:{tag}")).publishing(8080, 3000), worker("v1")]);
    let held = |tag: &str| setting(one(tag), "api", |settings| settings.singleton = Some(true));
    let overlapping = |tag: &str| project(vec![worker(tag).times(2)]);
    let single = |tag: &str| setting(project(vec![worker(tag)]), "worker", |settings| settings.singleton = Some(true));
    let recreated = |tag: &str| strategy(project(vec![worker(tag).times(2)]), "worker", StrategyName::Recreate);
    vec![
        Shape { name: "first deploy", before: None, after: many("v1"), good: true, gateways: Gateways::No },
        Shape { name: "first deploy, bad", before: None, after: one("bad"), good: false, gateways: Gateways::No },
        Shape { name: "one service", before: Some(one("v1")), after: one("v2"), good: true, gateways: Gateways::No },
        Shape { name: "one service, bad", before: Some(one("v1")), after: one("bad"), good: false, gateways: Gateways::No },
        Shape { name: "many services", before: Some(many("v1")), after: many("v2"), good: true, gateways: Gateways::No },
        Shape { name: "many services, bad", before: Some(many("v1")), after: many("bad"), good: false, gateways: Gateways::No },
        Shape { name: "migration and fixed name", before: Some(migrated("v1")), after: migrated("v2"), good: true, gateways: Gateways::No },
        Shape { name: "replicas one by one", before: Some(recreated("v1")), after: recreated("v2"), good: true, gateways: Gateways::No },
        Shape { name: "overlap", before: Some(overlapping("v1")), after: overlapping("v2"), good: true, gateways: Gateways::No },
        Shape { name: "overlap, bad", before: Some(overlapping("v1")), after: overlapping("bad"), good: false, gateways: Gateways::No },
        Shape { name: "singleton", before: Some(single("v1")), after: single("v2"), good: true, gateways: Gateways::No },
        Shape { name: "in batches", before: Some(turns("v1")), after: turns("v2"), good: true, gateways: Gateways::Yes },
        Shape { name: "in batches, bad", before: Some(turns("v1")), after: turns("bad"), good: false, gateways: Gateways::Yes },
        Shape { name: "in batches, fewer", before: Some(fewer("v1")), after: fewer("v2"), good: true, gateways: Gateways::Yes },
        Shape { name: "in batches, bad late", before: Some(fewer("v1")), after: fewer("late"), good: false, gateways: Gateways::Yes },
        Shape { name: "requests are held", before: Some(held("v1")), after: held("v2"), good: true, gateways: Gateways::Yes },
        Shape { name: "requests are held, bad", before: Some(held("v1")), after: held("bad"), good: false, gateways: Gateways::Yes },
        Shape { name: "requests are held, bad late", before: Some(held("v1")), after: held("soon"), good: false, gateways: Gateways::Yes },
        Shape { name: "a holding gateway takes over", before: Some(one("v1")), after: held("v2"), good: true, gateways: Gateways::Later },
        Shape {
            name: "one-way migration",
            before: Some(one_way(migrated("v1"))),
            after: one_way(migrated("v2")),
            good: true,
            gateways: Gateways::No,
        },
        Shape {
            name: "backup before a deploy",
            before: Some(backed_up(one("v1"))),
            after: backed_up(one("v2")),
            good: true,
            gateways: Gateways::Yes,
        },
        Shape {
            name: "backup before a deploy, bad",
            before: Some(backed_up(one("v1"))),
            after: backed_up(one("bad")),
            good: false,
            gateways: Gateways::No,
        },
        Shape { name: "with hooks", before: Some(one("v1")), after: hooked(one("v2"), "true", "true"), good: true, gateways: Gateways::No },
        Shape {
            name: "with a hook that fails",
            before: Some(one("v1")),
            after: hooked(one("v2"), "false", "true"),
            good: false,
            gateways: Gateways::No,
        },
        Shape {
            name: "another restart policy",
            before: Some(policy("v1", RestartPolicy::No)),
            after: policy("v1", RestartPolicy::Always),
            good: true,
            gateways: Gateways::No,
        },
        Shape {
            name: "another restart policy, bad",
            before: Some(policy("v1", RestartPolicy::No)),
            after: policy("bad", RestartPolicy::Always),
            good: false,
            gateways: Gateways::No,
        },
        Shape { name: "a port moves", before: Some(moved("api", "v1")), after: moved("other", "v2"), good: true, gateways: Gateways::Yes },
        Shape {
            name: "a port moves, bad",
            before: Some(moved("api", "v1")),
            after: moved("other", "bad"),
            good: false,
            gateways: Gateways::Yes,
        },
        Shape { name: "a port is added", before: Some(one("v1")), after: two("v1"), good: true, gateways: Gateways::Yes },
        Shape {
            name: "a port is added, and what comes after it is bad",
            before: Some(many("v1")),
            after: more(keeps_api(many("bad")), 8081),
            good: false,
            gateways: Gateways::Yes,
        },
        Shape { name: "a port of another kind", before: Some(one("v1")), after: three("v2"), good: true, gateways: Gateways::Yes },
        Shape { name: "a port is removed", before: Some(two("v1")), after: one("v2"), good: true, gateways: Gateways::Grown },
        Shape {
            name: "a port is removed, and what comes after it is bad",
            before: Some(more(many("v1"), 8081)),
            after: keeps_api(many("bad")),
            good: false,
            gateways: Gateways::Grown,
        },
        Shape {
            name: "a gateway takes all ports",
            before: Some(two("v1")),
            after: logged(two("v2")),
            good: true,
            gateways: Gateways::Grown,
        },
        Shape {
            name: "a gateway takes all ports, bad",
            before: Some(two("v1")),
            after: logged(two("late")),
            good: false,
            gateways: Gateways::Grown,
        },
        Shape { name: "needs something", before: Some(needing("v1")), after: needing("v2"), good: true, gateways: Gateways::No },
        Shape { name: "needs something, bad", before: Some(needing("v1")), after: needing("bad"), good: false, gateways: Gateways::Yes },
        Shape { name: "first deploy with a gateway", before: None, after: many("v1"), good: true, gateways: Gateways::Yes },
        Shape { name: "behind a gateway", before: Some(many("v1")), after: many("v2"), good: true, gateways: Gateways::Yes },
        Shape { name: "behind a gateway, bad", before: Some(many("v1")), after: many("bad"), good: false, gateways: Gateways::Yes },
        Shape { name: "a gateway takes over", before: Some(one("v1")), after: one("v2"), good: true, gateways: Gateways::Later },
        Shape {
            name: "a gateway takes over behind nginx",
            before: Some(fronted("v1")),
            after: fronted("v2"),
            good: true,
            gateways: Gateways::Later,
        },
        Shape {
            name: "a gateway takes over behind nginx, bad",
            before: Some(fronted("v1")),
            after: fronted("late"),
            good: false,
            gateways: Gateways::Later,
        },
        Shape { name: "a gateway takes over, bad", before: Some(one("v1")), after: one("late"), good: false, gateways: Gateways::Later },
    ]
}

fn world(shape: &Shape) -> World {
    let gateways = shape.gateways != Gateways::No;
    let world = match (shape.after.settings.backup.when.is_some(), gateways) {
        (true, _) => World::with_backups(gateways),
        (false, true) => World::with_gateways(),
        (false, false) => World::new(),
    };
    world.sets.write("of r1");
    for tag in ["app:v1", "app:v2"] {
        world.push(&format!("registry.example/{tag}"), Behaviour::Healthy);
    }
    world.push("registry.example/app:bad", Behaviour::ExitsAtOnce { code: 1, log: "bad".to_owned() });
    // Healthy when it starts, and gone in the watch after the switch.
    world.push("registry.example/app:late", Behaviour::CrashesAfter(6));
    // The same, for a new instance that is asked less before it is watched.
    world.push("registry.example/app:soon", Behaviour::CrashesAfter(3));
    world.push("registry.example/migrate:v1", Behaviour::CompletesWith(0));
    world.push("registry.example/migrate:v2", Behaviour::CompletesWith(0));
    world.push("redis:7", Behaviour::Healthy);
    world.push("nginx:1", Behaviour::Healthy);
    world.runtime.on_peek(Arc::new(|container| {
        container
            .as_str()
            .contains("-web-")
            .then(|| super::clients::nginx("events {} http { server { location / { proxy_pass http://api:3000; } } }", None))
    }));
    world.runtime.on_exec(Arc::new(|container, command| {
        let nginx = container.as_str().contains("-web-") && command.first().is_some_and(|program| program == "nginx");
        nginx.then_some(ExecReply::Ends(ExecOutput { exit_code: 0, output: String::new() }))
    }));
    world
}

async fn prepared(shape: &Shape) -> World {
    let world = world(shape);
    if let Some(before) = &shape.before {
        if shape.gateways == Gateways::Grown {
            let mut fewer = before.clone();
            fewer.services.values_mut().for_each(|service| service.definition.ports.truncate(1));
            let ending = world.deploy(&fewer).await.unwrap();
            assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{}: {ending:?}", shape.name);
        }
        let before = match shape.gateways {
            Gateways::Later => setting(before.clone(), "api", |settings| {
                settings.strategy = Some(StrategyName::Recreate);
                settings.hold = lasting("0s");
            }),
            Gateways::No | Gateways::Yes | Gateways::Grown => before.clone(),
        };
        let ending = world.deploy(&before).await.unwrap();
        assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{}: {ending:?}", shape.name);
    }
    world
}

/// Containers, networks, and what is pinned, routed and stored.
pub(super) type Left = (Vec<String>, Vec<String>, Vec<String>);

/// What is on the host, without what no plan takes back: images, volumes, and the order of starts.
pub(super) async fn left(world: &World) -> Left {
    let snapshot = world.runtime.snapshot();
    let networks = snapshot.networks.keys().map(ToString::to_string).collect();
    let mut pins: Vec<String> = snapshot.tags.keys().filter(|tag| tag.starts_with("kaleem.invalid/shop")).cloned().collect();
    if let Some(routed) = world.routed("api").await {
        pins.push(format!("the gateway sends to {routed:?}, program {:?}", world.gateway_program("api").await));
    }
    let running = snapshot.running();
    let policies = running.iter().filter(|name| name.as_str().contains("redis")).map(|name| snapshot.containers[name].instance.restart);
    pins.push(format!("restart policies are {:?}", policies.collect::<Vec<_>>()));
    pins.push(format!("the data is {}, unfinished sets are {:?}", world.sets.data(), world.sets.unfinished()));
    // What somebody froze runs on whatever becomes of the plan: it is no trace of it.
    let containers = world.containers().iter().map(|one| one.replace(" paused", " running")).collect();
    (containers, networks, pins)
}

/// The host as it was before the plan, and as it is after it ran without any trouble.
pub(super) async fn expected(case: &Case) -> (Left, Left) {
    let world = case.prepared().await;
    let before = left(&world).await;
    let ending = case.run(&world).await.unwrap();
    assert_eq!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), case.good(), "{}: {ending:?}", case.name());
    let after = left(&world).await;
    if !case.good() {
        assert_eq!(after, before, "{}: what is bad leaves nothing", case.name());
    }
    (before, after)
}
