//! Real servers for one test each: on a port and in a directory of their own, ended by their own id.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kaleem_core::testing::free_port;
use kaleem_core::testing::rabbitmq::{self, BrokerPorts};

/// A server that ends with its value.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    /// Removed after the server has ended.
    place: tempfile::TempDir,
}

impl Server {
    /// Kills it, as a loss of power would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it listens there; one that ends instead fails the test with what it said.
    fn wait_for(&mut self, port: u16) {
        let log = || std::fs::read_to_string(self.place.path().join("log")).unwrap();
        for _ in 0..900 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the server for port {port} ended: {}", log());
            std::thread::park_timeout(Duration::from_millis(100));
        }
        panic!("nobody listens on {port}: {}", log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Says that a test cannot run here; where everything must be there, that is a failure.
#[expect(clippy::disallowed_methods, reason = "tests are told by the environment what there is")]
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    println!("skipped: {why}");
}

#[expect(clippy::disallowed_methods, reason = "tests are told by the environment what there is")]
fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

#[expect(clippy::disallowed_methods, reason = "tests look for the programs that they start")]
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// A real Qdrant, where somebody has one.
pub(crate) fn qdrant_binary() -> Option<PathBuf> {
    named("QDRANT_BIN")
}

/// Whether these programs are installed; says so when one is not.
pub(crate) fn all_there(programs: &[&str]) -> bool {
    match programs.iter().find(|program| on_path(program).is_none()) {
        Some(missing) => {
            skip(&format!("`{missing}` is not installed"));
            false
        }
        None => true,
    }
}

#[expect(clippy::disallowed_methods, reason = "a test does what a person would do by hand")]
pub(crate) fn shell(command: &str, directory: &Path) -> bool {
    Command::new("sh").args(["-ec", command]).current_dir(directory).stdout(Stdio::null()).status().unwrap().success()
}

pub(crate) fn start(program: &Path, arguments: impl Fn(u16, &Path) -> Vec<String>) -> Server {
    start_with(program, arguments, |_| Vec::new())
}

/// The same with variables.
#[expect(clippy::disallowed_methods, reason = "a test starts real servers")]
pub(crate) fn start_with(
    program: &Path,
    arguments: impl Fn(u16, &Path) -> Vec<String>,
    variables: impl Fn(&Path) -> Vec<(&'static str, String)>,
) -> Server {
    let port = free_port();
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command.args(arguments(port, place.path())).envs(variables(place.path())).current_dir(place.path()).stdin(Stdio::null());
    let log = place.path().join("log");
    let output = std::fs::OpenOptions::new().create_new(true).append(true).open(&log).unwrap();
    command.stdout(output.try_clone().unwrap()).stderr(output);
    let mut server = Server { child: command.spawn().unwrap(), port, place };
    server.wait_for(port);
    server
}

/// A server that speaks as MongoDB; `None` when there is none, which was said.
pub(crate) fn mongo() -> Option<Server> {
    let Some(program) = named("KALEEM_TEST_SECANTUSD").or_else(|| on_path("secantusd-py")) else {
        skip("KALEEM_TEST_SECANTUSD does not name a server that speaks as MongoDB");
        return None;
    };
    Some(start(&program, |port, place| {
        let storage = place.join("storage").display().to_string();
        ["--host", "127.0.0.1", "--port", &port.to_string(), "--storage-path", &storage].map(str::to_owned).to_vec()
    }))
}

/// A RabbitMQ broker with its management API, and the daemon that finds it.
pub(crate) struct Rabbit {
    pub(crate) server: Server,
    variables: Vec<(&'static str, String)>,
    _epmd: Server,
}

impl Rabbit {
    /// The address of the management API, for that user.
    pub(crate) fn management(&self, user: &str, password: &str) -> String {
        format!("http://{user}:{password}@127.0.0.1:{}", self.server.port)
    }

    /// What a person does by hand.
    #[expect(clippy::disallowed_methods, reason = "a test does what a person would do by hand")]
    pub(crate) fn control(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(rabbitmq::CONTROL);
        let output = command.args(arguments).envs(self.variables.iter().map(|(name, value)| (*name, value))).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// A broker as it comes out of its package, with the user `guest`; `None` when there is none, which was said.
pub(crate) fn rabbit() -> Option<Rabbit> {
    let program = Path::new(rabbitmq::SERVER);
    if !program.is_file() || on_path("epmd").is_none() {
        skip("`rabbitmq-server` is not installed");
        return None;
    }
    let epmd = start(Path::new("epmd"), |port, _| ["-address", "127.0.0.1", "-port", &port.to_string()].map(str::to_owned).to_vec());
    let amqp = free_port();
    let arguments = |management: u16, place: &Path| {
        let configuration = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\ndisk_free_limit.absolute = 1MB\nvm_memory_high_watermark.absolute = 4GB\n"
        );
        kaleem_core::durable::create_new(&place.join("rabbitmq.conf"), configuration.as_bytes()).unwrap();
        kaleem_core::durable::create_new(&place.join("plugins"), b"[rabbitmq_management].\n").unwrap();
        Vec::new()
    };
    let ports = BrokerPorts { amqp, distribution: free_port(), mapper: epmd.port };
    let variables = |place: &Path| rabbitmq::environment(place, place, ports);
    let mut server = start_with(program, arguments, variables);
    // Management listens for a moment even where AMQP will not.
    server.wait_for(amqp);
    Some(Rabbit { variables: variables(server.place.path()), server, _epmd: epmd })
}

/// An S3 service in memory; `None` when there is none, which was said.
pub(crate) fn s3() -> Option<Server> {
    let Some(program) = named("KALEEM_TEST_MOTO").or_else(|| on_path("moto_server")) else {
        skip("KALEEM_TEST_MOTO does not name a server that speaks as S3");
        return None;
    };
    Some(start(&program, |port, _| ["-H", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned).to_vec()))
}

/// What the Python beside that server prints; it has a BSON reader.
#[expect(clippy::disallowed_methods, reason = "a test does what a person would do by hand")]
pub(crate) fn python(arguments: &[&str]) -> String {
    let server = named("KALEEM_TEST_SECANTUSD").or_else(|| on_path("secantusd-py")).unwrap();
    let mut command = Command::new(server.with_file_name("python"));
    let output = command.env("PYTHONIOENCODING", "utf-8").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A Redis server in a directory that may have been used before.
pub(crate) fn redis(directory: &Path, options: &[&str]) -> Option<Server> {
    if !all_there(&["redis-server", "redis-cli"]) {
        return None;
    }
    let directory = directory.display().to_string();
    Some(start(Path::new("redis-server"), |port, _| {
        let port = port.to_string();
        let first = ["--bind", "127.0.0.1", "--port", &port, "--dir", &directory, "--save", ""].map(str::to_owned);
        first.into_iter().chain(options.iter().map(|option| (*option).to_owned())).collect()
    }))
}

/// A node of a Redis cluster; it takes another for dead only after ten minutes.
pub(crate) fn redis_node(directory: &Path) -> Option<Server> {
    let bus = free_port().to_string();
    let options = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "600000", "--appendonly", "yes"];
    redis(directory, &[&options[..], &["--enable-debug-command", "yes"]].concat())
}

/// A Redis cluster of a master in each directory, with those slots, also if some are missing.
pub(crate) fn redis_cluster(masters: &[(&Path, &[(u16, u16)])]) -> Option<Vec<Server>> {
    let mut nodes = Vec::new();
    let (mut slots, mut meet) = (0, String::new());
    for (number, (directory, share)) in masters.iter().enumerate() {
        let node = redis_node(directory)?;
        let mut commands = format!("CLUSTER SET-CONFIG-EPOCH {}\n", number + 1);
        for (first, last) in *share {
            commands.push_str(&format!("CLUSTER ADDSLOTSRANGE {first} {last}\n"));
            slots += u32::from(last - first) + 1;
        }
        redis_cli(&node, &[], &commands);
        let bus = redis_cli(&node, &[], "CONFIG GET cluster-port\n");
        meet.push_str(&format!("CLUSTER MEET 127.0.0.1 {} {}\n", node.port, bus.lines().last().unwrap()));
        nodes.push(node);
    }
    redis_cli(&nodes[0], &[], &meet);
    redis_nodes_agree(&nodes, slots);
    Some(nodes)
}

/// Waits until all nodes know each other, and that so many slots are served.
pub(crate) fn redis_nodes_agree(nodes: &[Server], slots: u32) {
    let agrees = |node: &Server| {
        let told = redis_cli(node, &[], "CLUSTER INFO\nCLUSTER NODES\n");
        told.contains(&format!("cluster_known_nodes:{}\r", nodes.len()))
            && told.contains(&format!("cluster_slots_assigned:{slots}\r"))
            && nodes.iter().all(|mate| told.contains(&format!(":{}@", mate.port)))
            && !told.contains("handshake")
            && !told.contains("disconnected")
            && (slots < 16_384 || told.contains("cluster_state:ok"))
    };
    for _ in 0..600 {
        if nodes.iter().all(agrees) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    panic!("they do not agree: {}", redis_cli(&nodes[0], &[], "CLUSTER INFO\nCLUSTER NODES\n"));
}

/// What `redis-cli` prints for lines of commands.
#[expect(clippy::disallowed_methods, reason = "a test does what a person would do by hand")]
pub(crate) fn redis_cli(server: &Server, options: &[&str], commands: &str) -> String {
    use std::io::Write;
    let mut command = Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", &server.port.to_string()]).args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{commands}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
