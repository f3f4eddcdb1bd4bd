//! The Docker engine: the one that answers, or one that is started.

use std::path::PathBuf;
use std::time::Duration;

use crate::fail::TaskError;
use crate::place::{Place, write};
use crate::programs::{Program, Started, terminate, wait_until};
use crate::say;

const ANSWER_WITHIN: Duration = Duration::from_secs(60);

fn answers(place: &Place) -> bool {
    Program::new(place, "docker").args(["version", "--format", "{{.Server.Version}}"]).succeeds()
}

fn id_file(place: &Place) -> PathBuf {
    place.tools.join("dockerd.pid")
}

/// An engine that answers; what was started for it, if anything.
pub(crate) fn ensure(place: &Place) -> Result<Option<Started>, TaskError> {
    if answers(place) {
        return Ok(None);
    }
    if !rustix::process::geteuid().is_root() {
        return Err(TaskError::Missing {
            what: "a Docker engine that answers".to_owned(),
            install: "start one (`systemctl start docker`), or set DOCKER_HOST".to_owned(),
        });
    }
    let log = place.tools.join("dockerd.log");
    say::step(&format!("starting dockerd (log: {})", log.display()));
    let mut server = Program::new(place, "dockerd").start(&log)?;
    write(&id_file(place), &server.id().to_string())?;
    let ready = wait_until(ANSWER_WITHIN, || server.has_ended() || answers(place));
    if !ready || server.has_ended() {
        return Err(TaskError::Silent { what: "dockerd".to_owned(), seconds: ANSWER_WITHIN.as_secs(), log });
    }
    Ok(Some(server))
}

/// Ends the engine that an earlier run started.
pub(crate) fn stop(place: &Place) -> Result<(), TaskError> {
    stop_recorded(&id_file(place), "dockerd")
}

/// Ends the process that is written down in `file`, if it still is the program `name`.
pub(crate) fn stop_recorded(file: &std::path::Path, name: &str) -> Result<(), TaskError> {
    let Ok(text) = std::fs::read_to_string(file) else { return Ok(()) };
    let id = text.split_whitespace().next().and_then(|id| id.parse().ok());
    if let Some(id) = id.filter(|id| runs(*id, name)) {
        say::step(&format!("ending {name} ({id})"));
        terminate(id);
        if !wait_until(Duration::from_secs(30), || !runs(id, name)) {
            return Err(TaskError::Unexpected { what: format!("{name} ({id}) does not end") });
        }
    }
    std::fs::remove_file(file).map_err(|source| TaskError::File { operation: "remove", path: file.to_path_buf(), source })
}

/// Whether the process `id` is the program `name`: ids are used again.
pub(crate) fn runs(id: u32, name: &str) -> bool {
    // A zombie has no command line, and runs no more.
    std::fs::read(format!("/proc/{id}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).next().is_some_and(|program| program.ends_with(name.as_bytes())))
}
