//! Which parts are put together: files, engine, registries, probes, state. Nothing is asked before a command needs it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kaleem_core::backup::BackupSets;
use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::config::settings::parse_duration;
use kaleem_core::config::{self, LoadOptions, Project};
use kaleem_core::durable;
use kaleem_core::engine::GatewayControl;
use kaleem_core::history::History;
use kaleem_core::kaleem::{GatewayParts, Kaleem, default_state_directory};
use kaleem_core::names::ProjectName;
use kaleem_core::observed::owner::ProjectFiles;
use kaleem_core::registry::PullCredentials;
use kaleem_core::registry::oci::{DockerConfig, HttpsProxy, OciOptions, OciRegistry};
use kaleem_core::remedy::one_line;
use kaleem_core::runtime::docker::{DockerOptions, DockerRuntime, endpoint_of_context};
use kaleem_core::runtime::{Runtime, RuntimeError};
use kaleem_core::secret::Secret;
use kaleem_core::state::{StateDirectory, gateway_directory};
use kaleem_core::traffic::SocketTraffic;
use kaleem_health::{Dependencies, StandardProbes};

use crate::arguments::Global;
use crate::env::Environment;
use crate::error::CliError;
use crate::words;

mod backups;

pub(crate) use backups::BackupWish;

/// Time the engine has for one answer.
const ENGINE_ANSWER: Duration = Duration::from_secs(30);
/// Time a registry has for one answer, and how often it is asked.
const REGISTRY_ANSWER: Duration = Duration::from_secs(20);
const REGISTRY_ATTEMPTS: u32 = 3;

/// User and group of gateways where kaleem runs as root: what images without users call nobody.
const GATEWAY_USER: (u32, u32) = (65532, 65532);

/// What a command works with.
pub(crate) struct Wiring {
    global: Global,
    environment: Environment,
    clock: Arc<dyn Clock>,
    /// The project that is meant, once it is known: errors say what serves in it.
    project: OnceLock<ProjectName>,
    /// Its files, where they were read.
    files: OnceLock<ProjectFiles>,
    /// The engine, once it was connected to: an agreement on its API is for as long as this process lives.
    runtime: OnceLock<Arc<dyn Runtime>>,
}

impl Wiring {
    /// Wires by the command line and the environment.
    pub(crate) fn new(global: Global, environment: Environment) -> Self {
        Self {
            global,
            environment,
            clock: Arc::new(SystemClock),
            project: OnceLock::new(),
            files: OnceLock::new(),
            runtime: OnceLock::new(),
        }
    }

    /// The environment.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Time.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The project, read from its files.
    ///
    /// # Errors
    ///
    /// [`CliError::Config`]
    pub(crate) fn project(&self) -> Result<Project, CliError> {
        let project = config::load(&self.load_options()).map_err(|source| CliError::Config { source })?;
        kaleem_health::check(&project).map_err(|source| CliError::Config { source })?;
        self.read(&project);
        Ok(project)
    }

    /// The project's name alone. Where it is said, no file is read: going back must not need a sound compose file.
    ///
    /// # Errors
    ///
    /// [`CliError::NameNeeded`]
    pub(crate) fn project_name(&self) -> Result<ProjectName, CliError> {
        let said = self.global.project_name.clone();
        let said = said.or_else(|| self.environment.get("COMPOSE_PROJECT_NAME").and_then(|name| name.parse().ok()));
        let name = match said {
            Some(name) => name,
            None => {
                let project = config::load(&self.load_options()).map_err(|source| CliError::NameNeeded { source })?;
                self.read(&project);
                project.name
            }
        };
        self.project.set(name.clone()).ok();
        Ok(name)
    }

    fn read(&self, project: &Project) {
        self.project.set(project.name.clone()).ok();
        self.files.set(ProjectFiles { directory: project.directory.clone(), files: project.files.clone() }).ok();
    }

    fn load_options(&self) -> LoadOptions {
        let start = &self.environment.directory;
        LoadOptions {
            directory: self.global.project_directory.as_ref().map_or_else(|| start.clone(), |directory| start.join(directory)),
            files: self.global.files.iter().map(|file| start.join(file)).collect(),
            env_files: self.global.env_files.iter().map(|file| start.join(file)).collect(),
            environment: self.environment.variables().clone(),
            profiles: self.global.profiles.clone(),
            project_name: self.global.project_name.clone(),
            settings_file: self.global.config.as_ref().map(|file| start.join(file)),
        }
    }

    /// Where `kaleem.toml` is, or would be written.
    pub(crate) fn settings_path(&self, project: &Project) -> PathBuf {
        match &self.global.config {
            Some(path) => self.environment.directory.join(path),
            None => project.directory.join("kaleem.toml"),
        }
    }

    /// The state directory of all projects.
    pub(crate) fn state_base(&self) -> PathBuf {
        let environment = &self.environment;
        let said = self.global.state_dir.clone().or_else(|| environment.path("KALEEM_STATE_DIR"));
        let (xdg, home) = (environment.path("XDG_STATE_HOME"), environment.path("HOME"));
        let base = said.unwrap_or_else(|| default_state_directory(environment.is_root, xdg.as_deref(), home.as_deref()));
        environment.directory.join(base)
    }

    /// The state directory of one project.
    pub(crate) fn state(&self, project: &ProjectName) -> StateDirectory {
        StateDirectory::new(&self.state_base(), project)
    }

    /// What was released before.
    ///
    /// # Errors
    ///
    /// [`CliError::History`]
    pub(crate) fn history(&self, project: &ProjectName) -> Result<History, CliError> {
        History::load(&self.state(project)).map_err(|source| CliError::History { source })
    }

    /// What serves, in words, as far as the journals of the project can be read; for errors.
    pub(crate) fn serving(&self) -> Option<String> {
        let history = History::load(&self.state(self.project.get()?)).ok()?;
        // A project that was never deployed has nothing to worry about.
        if history.entries().is_empty() { None } else { Some(words::serving(&history)) }
    }

    /// Whether the journals tell of a plan that is not over.
    pub(crate) fn knows_of_open_plan(&self) -> bool {
        let history = self.project.get().and_then(|project| History::load(&self.state(project)).ok());
        history.is_some_and(|history| history.open().is_some())
    }

    /// The engine of DOCKER_HOST, else of the Docker client's context.
    ///
    /// # Errors
    ///
    /// [`CliError::Engine`]
    pub(crate) async fn runtime(&self) -> Result<Arc<dyn Runtime>, CliError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.clone());
        }
        let options = DockerOptions {
            endpoint: self.endpoint().map_err(|source| CliError::Engine { source })?,
            rootless_socket: self.environment.path("XDG_RUNTIME_DIR").map(|directory| directory.join("docker.sock")),
            credentials: self.credentials(),
            answer_timeout: ENGINE_ANSWER,
        };
        let runtime: Arc<dyn Runtime> = Arc::new(DockerRuntime::connect(&options).await.map_err(|source| CliError::Engine { source })?);
        Ok(self.runtime.get_or_init(|| runtime).clone())
    }

    fn endpoint(&self) -> Result<Option<String>, RuntimeError> {
        let environment = &self.environment;
        let Some(host) = environment.get("DOCKER_HOST") else {
            return endpoint_of_context(&self.docker_directory(), environment.get("DOCKER_CONTEXT"));
        };
        // The Docker client speaks TLS then; to speak without would send everything in the clear.
        let address = host.strip_prefix("tcp://").filter(|_| environment.get("DOCKER_TLS_VERIFY").is_some());
        Ok(Some(address.map_or_else(|| host.to_owned(), |address| format!("https://{address}"))))
    }

    /// Where the Docker client keeps its configuration.
    fn docker_directory(&self) -> PathBuf {
        let environment = &self.environment;
        let directory = environment.path("DOCKER_CONFIG").or_else(|| environment.path("HOME").map(|home| home.join(".docker")));
        directory.unwrap_or_else(|| PathBuf::from("/root/.docker"))
    }

    /// Everything together. `verb` is what others read who find the project busy.
    ///
    /// # Errors
    ///
    /// [`CliError::Engine`], [`CliError::RegistrySetup`], [`CliError::Certificates`]
    pub(crate) async fn kaleem(&self, verb: &str) -> Result<Kaleem, CliError> {
        self.kaleem_with(verb, None).await
    }

    /// The same, with the backups of the project.
    ///
    /// # Errors
    ///
    /// As [`Self::kaleem`].
    pub(crate) async fn kaleem_with(&self, verb: &str, backups: Option<Arc<dyn BackupSets>>) -> Result<Kaleem, CliError> {
        let runtime = self.runtime().await?;
        let registry = Arc::new(self.registry()?);
        let probes = Arc::new(StandardProbes::new(runtime.clone()).with_dependencies(Arc::new(self.dependencies(runtime.clone()))));
        let owner = format!("{verb} by {}", self.environment.user());
        let builder = Kaleem::builder(runtime, registry, probes).state_directory(self.state_base());
        let builder = builder
            .owner(owner)
            .user(self.environment.user())
            .author(format!("{}@{}", self.environment.user(), self.environment.host))
            .files(self.files.get().cloned())
            .clock(self.clock.clone())
            .hook_environment(self.hook_environment());
        let builder = match backups {
            Some(backups) => builder.backups(backups),
            None => builder,
        };
        Ok(match self.gateways() {
            Some(parts) => builder.gateways(parts).build(),
            None => builder.build(),
        })
    }

    /// Speaks to the gateways of all projects.
    pub(crate) fn traffic(&self) -> SocketTraffic {
        // A project cannot have a name that begins with a dot.
        SocketTraffic::new(self.gateway_directory())
    }

    /// Below it each gateway has its directory: next to the state directory, or where those of a project are that was taken over.
    fn gateway_directory(&self) -> PathBuf {
        let taken_over = self.project.get().and_then(|project| self.state(project).gateways());
        taken_over.unwrap_or_else(|| gateway_directory(&self.state_base()))
    }

    /// What services need, read off the files when a gate asks for it: going back and resuming need no sound files.
    fn dependencies(&self, runtime: Arc<dyn Runtime>) -> Dependencies {
        let options = self.load_options();
        Dependencies::new(runtime, Arc::new(move || config::load(&options).map_err(|error| one_line(&error))))
    }

    /// What gateways are made from: the program of KALEEM_AGENT, or the one beside this program.
    fn gateways(&self) -> Option<GatewayParts> {
        let environment = &self.environment;
        let beside = || Some(environment.executable.as_ref()?.parent()?.join("kaleem-agent"));
        let program = environment.path("KALEEM_AGENT").or_else(beside).filter(|program| program.is_file())?;
        let directory = self.gateway_directory();
        let user = if environment.is_root { GATEWAY_USER } else { (environment.uid, environment.gid) };
        let control = GatewayControl { traffic: Arc::new(self.traffic()), directory, user };
        Some(GatewayParts { control, program })
    }

    /// What hooks may see of this process' environment: where programs, homes and the engine are, and the language. Nothing that
    /// could be secret, such as the tokens of a CI job.
    fn hook_environment(&self) -> BTreeMap<String, String> {
        const SHOWN: [&str; 13] = [
            "PATH",
            "HOME",
            "USER",
            "LOGNAME",
            "SHELL",
            "LANG",
            "LC_ALL",
            "TZ",
            "TMPDIR",
            "XDG_RUNTIME_DIR",
            "DOCKER_HOST",
            "DOCKER_CONFIG",
            "CI",
        ];
        SHOWN.iter().filter_map(|name| Some(((*name).to_owned(), self.environment.get(name)?.to_owned()))).collect()
    }

    fn credentials(&self) -> Arc<dyn PullCredentials> {
        Arc::new(DockerConfig::new(self.docker_directory().join("config.json"), self.environment.variables().clone()))
    }

    fn registry_timeout(&self) -> Result<Duration, CliError> {
        let name = "KALEEM_REGISTRY_TIMEOUT";
        let Some(text) = self.environment.get(name) else { return Ok(REGISTRY_ANSWER) };
        parse_duration(text).filter(|time| !time.is_zero()).ok_or_else(|| CliError::Duration { name, text: text.to_owned() })
    }

    fn registry(&self) -> Result<OciRegistry, CliError> {
        let environment = &self.environment;
        let certificates = match environment.path("SSL_CERT_FILE") {
            Some(path) => Some(durable::read(&path).map_err(|source| CliError::Certificates { source })?),
            None => None,
        };
        let proxy = environment.get("HTTPS_PROXY").or_else(|| environment.get("https_proxy"));
        let except = environment.get("NO_PROXY").or_else(|| environment.get("no_proxy")).unwrap_or_default();
        let plain = environment.get("KALEEM_PLAIN_HTTP").unwrap_or_default();
        let options = OciOptions {
            credentials: self.credentials(),
            clock: self.clock.clone(),
            plain_http: plain.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned).collect(),
            timeout: self.registry_timeout()?,
            attempts: REGISTRY_ATTEMPTS,
            extra_root_certificates: certificates,
            https_proxy: proxy.map(|address| HttpsProxy { address: Secret::new(address.to_owned()), except: except.to_owned() }),
        };
        OciRegistry::new(options).map_err(|source| CliError::RegistrySetup { source })
    }
}
