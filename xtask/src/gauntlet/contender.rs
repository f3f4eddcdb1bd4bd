//! Who ships: kaleem, Compose alone, and nginx with a second instance and a reload. Each does it as its users do.

use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::names::GatewayName;
use kaleem_core::remedy::chain;
use kaleem_core::state::gateway_directory;
use kaleem_core::traffic::{SocketTraffic, Traffic};

use crate::fail::TaskError;
use crate::gauntlet::field::{Field, Version};
use crate::programs::wait_until;

/// How long a script waits for a new instance to become healthy: as long as kaleem does here.
const HEALTHY_WITHIN: Duration = Duration::from_secs(6);
/// How long a script lets nginx finish with its old workers before it stops the old instance.
const AFTER_RELOAD: Duration = Duration::from_secs(2);
/// How long a bad version is left alone before an operator puts the old one back.
const NOTICED_AFTER: Duration = Duration::from_secs(5);

/// Who ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// `kaleem deploy`.
    Kaleem,
    /// `docker compose up -d --no-deps api`.
    Compose,
    /// A second instance, a new upstream, `nginx -s reload`, and the old instance goes.
    ScaleAndReload,
}

impl Contender {
    /// As the tables have it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Kaleem => "kaleem deploy",
            Self::Compose => "docker compose up -d --no-deps",
            Self::ScaleAndReload => "nginx, scale and reload",
        }
    }

    /// The first deploy, with everything beside the service.
    pub(super) fn begin(self, field: &Field<'_>) -> Result<(), TaskError> {
        match self {
            Self::Kaleem => expect(field, field.kaleem(&["deploy", "--allow-older"]).logged(field.log())?.code(), &[0]),
            Self::Compose => expect(field, field.compose(&["up", "--detach"]).logged(field.log())?.code(), &[0]),
            Self::ScaleAndReload => {
                expect(field, field.compose(&["up", "--detach"]).logged(field.log())?.code(), &[0])?;
                let ids = api_ids(field)?;
                healthy(field, ids.first().map_or("", String::as_str));
                send_to(field, ids.first().map_or("", String::as_str))
            }
        }
    }

    /// Ships a version that is well.
    pub(super) fn ship(self, field: &Field<'_>, version: &Version) -> Result<(), TaskError> {
        field.set_version(version);
        match self {
            Self::Kaleem => expect(field, field.kaleem(&["deploy", "--allow-older"]).logged(field.log())?.code(), &[0]),
            Self::Compose => self.up(field),
            Self::ScaleAndReload => match scale(field)? {
                true => Ok(()),
                false => Err(TaskError::Unexpected { what: format!("{} did not become healthy", version.name) }),
            },
        }
    }

    /// Ships a version that must not be let in, and sees to it that `good` serves in the end.
    pub(super) fn ship_bad(self, field: &Field<'_>, version: &Version, good: &Version) -> Result<(), TaskError> {
        field.set_version(version);
        match self {
            Self::Kaleem => expect(field, field.kaleem(&["deploy", "--allow-older"]).logged(field.log())?.code(), &[10])?,
            Self::Compose => {
                // It may also fail at once: then it has done its damage already.
                field.compose(&["up", "--detach", "--no-deps", "api"]).logged(field.log())?;
                std::thread::sleep(NOTICED_AFTER);
                field.set_version(good);
                self.up(field)?;
            }
            Self::ScaleAndReload => {
                if scale(field)? {
                    // It was healthy long enough to be let in.
                    std::thread::sleep(NOTICED_AFTER);
                    field.set_version(good);
                    scale(field)?;
                }
            }
        }
        field.set_version(good);
        Ok(())
    }

    /// Goes back to what ran before.
    pub(super) fn back(self, field: &Field<'_>, previous: &Version) -> Result<(), TaskError> {
        if self == Self::Kaleem {
            expect(field, field.kaleem(&["rollback"]).logged(field.log())?.code(), &[0])?;
            field.set_version(previous);
            return Ok(());
        }
        self.ship(field, previous)
    }

    fn up(self, field: &Field<'_>) -> Result<(), TaskError> {
        expect(field, field.compose(&["up", "--detach", "--no-deps", "api"]).logged(field.log())?.code(), &[0])
    }
}

fn expect(field: &Field<'_>, code: Option<i32>, right: &[i32]) -> Result<(), TaskError> {
    if code.is_some_and(|code| right.contains(&code)) {
        return Ok(());
    }
    let log = field.log().display();
    Err(TaskError::Unexpected { what: format!("{}: exit code {code:?} instead of {right:?}; see {log}", field.name()) })
}

/// Leaves everything to Compose again, as if nobody else had ever run the project.
pub(super) fn give_back(field: &Field<'_>) -> Result<(), TaskError> {
    expect(field, field.kaleem(&["eject"]).logged(field.log())?.code(), &[0])?;
    expect(field, field.compose(&["up", "--detach"]).logged(field.log())?.code(), &[0])?;
    field.settle()
}

/// Puts another copy of the gateway's program into the gateway, while it serves.
pub(super) fn upgrade_gateway(field: &Field<'_>) -> Result<(), TaskError> {
    let wrong = |what: String| TaskError::Unexpected { what };
    let gateway: GatewayName = format!("{}-api-gateway", field.name()).parse().map_err(|error| wrong(format!("{error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| TaskError::Start { program: "an async runtime".to_owned(), source })?;
    let traffic = SocketTraffic::new(gateway_directory(&field.state()));
    let upgraded = runtime.block_on(traffic.upgrade(&gateway, &field.agent()));
    upgraded.map(drop).map_err(|error| wrong(chain(&error).join(": ")))
}

fn api_ids(field: &Field<'_>) -> Result<Vec<String>, TaskError> {
    let text = field.compose(&["ps", "--quiet", "--no-trunc", "api"]).output()?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn healthy(field: &Field<'_>, id: &str) -> bool {
    let begun = SystemClock.monotonic();
    wait_until(HEALTHY_WITHIN, || {
        let state = field.docker(&["inspect", "--format", "{{.State.Health.Status}}", id]).output();
        state.is_ok_and(|state| state == "healthy") && SystemClock.monotonic() >= begun
    })
}

fn send_to(field: &Field<'_>, id: &str) -> Result<(), TaskError> {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = field.docker(&["inspect", "--format", format, id]).output()?;
    field.send_nginx_to(&address)?;
    let edge = field.compose(&["ps", "--quiet", "edge"]).output()?;
    let reload = field.docker(&["exec", &edge, "nginx", "-c", "/etc/nginx/kaleem/nginx.conf", "-s", "reload"]);
    expect(field, reload.logged(field.log())?.code(), &[0])
}

/// The script that people write: two at once for a moment. False when the new one did not become healthy, and is gone again.
fn scale(field: &Field<'_>) -> Result<bool, TaskError> {
    let old = api_ids(field)?;
    let two = (old.len() + 1).to_string();
    let up = field.compose(&["up", "--detach", "--no-deps", "--no-recreate", "--scale", &format!("api={two}"), "api"]);
    up.logged(field.log())?;
    let new: Vec<String> = api_ids(field)?.into_iter().filter(|id| !old.contains(id)).collect();
    let Some(new) = new.first().filter(|new| healthy(field, new)) else {
        let all = field.compose(&["ps", "--all", "--quiet", "--no-trunc", "api"]).output()?;
        for id in all.lines().filter(|id| !old.iter().any(|old| old == id)) {
            field.docker(&["rm", "--force", id]).logged(field.log())?;
        }
        return Ok(false);
    };
    send_to(field, new)?;
    std::thread::sleep(AFTER_RELOAD);
    for id in &old {
        field.docker(&["stop", id]).logged(field.log())?;
        field.docker(&["rm", id]).logged(field.log())?;
    }
    Ok(true)
}
