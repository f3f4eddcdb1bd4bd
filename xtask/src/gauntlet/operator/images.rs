//! The images of the operator's project: the shop in good and bad versions with a health check of its own, the stores, and two nginx.

use crate::fail::TaskError;
use crate::place::{Place, scratch, write};
use crate::say;
use crate::setup::images::{DEBIAN, build, exists, push};
use crate::setup::{Parts, apt};

/// Seconds from the start of the API until it listens, as a program that loads a framework needs them.
const START: &str = "slow-start:5";
/// Versions of the API, and what is wrong with each.
const VERSIONS: [(&str, &str); 7] = [
    ("o1", ""),
    ("o2", ""),
    ("o3", ""),
    ("o4", ""),
    ("sick", "never-healthy"),
    ("crash", "exit-at-once"),
    // Healthy until it serves.
    ("late", "unhealthy-once-used:1"),
];

/// Where images are.
pub(super) struct Images {
    /// Repository of the API's versions.
    api: String,
    /// nginx from Debian's stable release.
    pub nginx: String,
    /// An nginx that knows `resolve`, where one can be had.
    pub newer_nginx: Option<String>,
    /// Speaks as MongoDB.
    pub mongo: String,
    /// Redis.
    pub redis: String,
    /// RabbitMQ.
    pub rabbitmq: String,
}

impl Images {
    /// Builds what is not there. Docker asks the API's health every `interval`, such as `30s`.
    pub(super) fn ensure(place: &Place, parts: &Parts, interval: &str) -> Result<Self, TaskError> {
        let context = scratch()?;
        let dockerfile = |text: &str| -> Result<_, TaskError> {
            let path = context.path().join("Dockerfile");
            write(&path, text).map(|()| path)
        };
        let packages = parts.mongo_server.parent().and_then(|bin| bin.parent()).map(|venv| venv.join("lib"));
        let packages =
            packages.and_then(|lib| std::fs::read_dir(lib).ok()?.flatten().next()).map(|python| python.path().join("site-packages"));
        let packages =
            packages.ok_or_else(|| TaskError::Unexpected { what: "the packages of the MongoDB stand-in are not found".to_owned() })?;
        let mongo = "kaleem-demo/mongo:1";
        if !exists(place, mongo) {
            say::step("building the image of the MongoDB stand-in");
            build(place, &dockerfile(include_str!("files/mongo.Dockerfile"))?, &packages, mongo, &[("BASE", DEBIAN)])?;
        }
        let rabbitmq = "kaleem-demo/rabbitmq:3";
        if !exists(place, rabbitmq) {
            say::step("building the image of RabbitMQ");
            build(place, &dockerfile(include_str!("files/rabbitmq.Dockerfile"))?, context.path(), rabbitmq, &[("BASE", DEBIAN)])?;
        }
        let newer = "kaleem-demo/nginx:newer";
        let mut newer_nginx = exists(place, newer);
        if !newer_nginx {
            say::step("building the image of an nginx that knows `resolve`");
            let file = dockerfile(include_str!("files/nginx-newer.Dockerfile"))?;
            let mirror = apt::mirror()?;
            newer_nginx = build(place, &file, context.path(), newer, &[("BASE", DEBIAN), ("MIRROR", &mirror)]).is_ok();
        }
        let mut kept = vec![(mongo, "mongo:1"), (rabbitmq, "rabbitmq:3")];
        kept.extend(newer_nginx.then_some((newer, "nginx:newer")));
        for (local, remote) in kept {
            push(place, local, &parts.image(remote))?;
        }
        let images = Self {
            api: parts.image("kaleem-operator/api"),
            nginx: parts.image("nginx:1"),
            newer_nginx: newer_nginx.then(|| parts.image("nginx:newer")),
            mongo: parts.image("mongo:1"),
            redis: parts.image("redis:7"),
            rabbitmq: parts.image("rabbitmq:3"),
        };
        say::step("building the versions of the API");
        for (version, fault) in VERSIONS {
            let fault = [START, fault].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(",");
            let file = dockerfile(&format!(
                "FROM {}\nENV SHOP_VERSION={version} SHOP_FAULT={fault}\n\
                 HEALTHCHECK --interval={interval} --timeout=5s --start-period=20s --retries=3 CMD [\"/shop\", \"healthcheck\"]\n",
                parts.image("shop:v1"),
            ))?;
            let local = format!("kaleem-operator/api:{version}");
            build(place, &file, context.path(), &local, &[])?;
            push(place, &local, &images.api(version))?;
        }
        Ok(images)
    }

    /// The image of a version of the API.
    pub(super) fn api(&self, version: &str) -> String {
        format!("{}:{version}", self.api)
    }
}
