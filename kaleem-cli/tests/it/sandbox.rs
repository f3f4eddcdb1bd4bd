//! A place of its own for one story: home, state, files, project name, ports. What it made is gone after it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kaleem_core::exec::{self, ExecRequest};
use kaleem_core::testing::{free_port, program};
use tokio::sync::OnceCell;

/// Time one command of a story may take.
const LIMIT: Duration = Duration::from_secs(600);

/// A variable of the test's own environment.
#[expect(clippy::disallowed_methods, reason = "a test is its own caller")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) output: String,
    pub(crate) code: i32,
}

/// A place of its own.
pub(crate) struct Sandbox {
    directory: tempfile::TempDir,
    /// Also the name of the images.
    pub(crate) project: String,
    pub(crate) port: u16,
    pub(crate) registry: String,
    environment: BTreeMap<String, String>,
}

impl Sandbox {
    pub(crate) async fn new(story: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let short: String = story.split('_').filter_map(|word| word.get(..word.len().min(3))).collect::<Vec<_>>().join("");
        // As long in every run, so that tables stand in the same columns.
        let project = format!("kt-cli-{}-{:07}", short.get(..short.len().min(16)).unwrap_or_default(), std::process::id());
        let (port, registry) = (free_port(), format!("127.0.0.1:{}", free_port()));
        let path = directory.path();
        for part in ["home", "project"] {
            std::fs::create_dir(path.join(part)).unwrap();
        }
        let program = Path::new(env!("CARGO_BIN_EXE_kaleem")).parent().unwrap().display().to_string();
        // Debian's client: it can build with BuildKit.
        let search = format!("{program}:/usr/bin:{}", variable("PATH").unwrap_or_default());
        let mut environment: BTreeMap<String, String> = [
            ("PATH", search),
            ("HOME", path.join("home").display().to_string()),
            ("USER", "tester".to_owned()),
            ("DIR", path.display().to_string()),
            ("APP", app().await.display().to_string()),
            ("P", project.clone()),
            ("COMPOSE_PROJECT_NAME", project.clone()),
            ("PORT", port.to_string()),
            ("REGISTRY", registry.clone()),
            // Whatever was built beside the program: these stories are those of a host without gateways.
            ("KALEEM_AGENT", path.join("no-agent").display().to_string()),
            ("KALEEM_STATE_DIR", path.join("state").display().to_string()),
            ("HELPERS", format!("{}/tests/fixtures/helpers.sh", env!("CARGO_MANIFEST_DIR"))),
            ("LC_ALL", "C.UTF-8".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        // Where the engine and real servers are.
        for name in ["DOCKER_HOST", "KALEEM_TEST_SECANTUSD"] {
            environment.extend(variable(name).map(|value| (name.to_owned(), value)));
        }
        Self { directory, project, port, registry, environment }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Puts a file into the project's directory.
    pub(crate) fn file(&self, name: &str, text: &str) {
        kaleem_core::durable::write_atomic(&self.path().join("project").join(name), text.as_bytes(), 0o644).unwrap();
    }

    /// What a story runs, as a request that can also go on in the background.
    pub(crate) fn request(&self, command: &str) -> ExecRequest {
        ExecRequest {
            program: "/bin/bash".into(),
            arguments: vec!["-c".to_owned(), format!(". \"$HELPERS\"; {command}")],
            environment: self.environment.clone(),
            stdin: None,
            directory: Some(self.path().join("project")),
            timeout: LIMIT,
            max_output_bytes: 1 << 20,
        }
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, command: &str) -> Ended {
        run(self.request(command)).await
    }

    /// Removes all that carries the project's name.
    pub(crate) async fn clean(&self) {
        let command = r#"
            if [ -f "$DIR/engine/pid" ]; then tidy_up; exit; fi
            tidy_up
            for label in com.docker.compose.project kaleem.project story; do
              docker ps -aq --filter "label=$label=$P" | xargs -r docker rm -fv
            done
            docker network ls -q --filter "label=com.docker.compose.project=$P" | xargs -r docker network rm
            docker volume ls -q --filter "label=com.docker.compose.project=$P" | xargs -r docker volume rm
            docker volume ls -q --filter "label=kaleem.project=$P" | xargs -r docker volume rm
            for name in "$P" "kaleem.invalid/$P/*" "$REGISTRY/app" "$P-*" "$P/*" "${P}_*"; do
              docker images --filter "reference=$name" --format '{{.Repository}}:{{.Tag}}' | grep -v '<none>' | xargs -r docker image rm -f
              docker images -q --filter "reference=$name" | xargs -r docker image rm -f
            done"#;
        self.run(command).await;
    }
}

/// Runs a request to its end; both outputs come as one, in order.
pub(crate) async fn run(request: ExecRequest) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    let ended = exec::run(&request).await.unwrap();
    let code = ended.status.code().or_else(|| ended.status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
    Ended { output: String::from_utf8_lossy(&ended.stdout).into_owned(), code }
}

/// Whether there is an engine; a missing one is no excuse where `CI` is set.
pub(crate) async fn engine_answers() -> bool {
    static ANSWERS: OnceCell<bool> = OnceCell::const_new();
    *ANSWERS
        .get_or_init(|| async {
            let sandbox = Sandbox::new("engine").await;
            let answer = sandbox.run("docker version --format '{{.Server.Version}}'").await;
            assert!(answer.code == 0 || variable("CI").is_none(), "no Docker engine for the stories: {}", answer.output);
            if answer.code != 0 {
                println!("skipped: no Docker engine: {}", answer.output);
            }
            answer.code == 0
        })
        .await
}

/// The directory with the fixture program, compiled once a run.
async fn app() -> PathBuf {
    static APP: OnceCell<PathBuf> = OnceCell::const_new();
    APP.get_or_init(compile).await.clone()
}

async fn compile() -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (output, part) = (directory.join("app"), directory.join(format!("app-{}", std::process::id())));
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/app.rs");
    program::compile(&source, &part, variable).await.unwrap();
    std::fs::rename(&part, &output).unwrap();
    directory
}
