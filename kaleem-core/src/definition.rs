//! What a container, a network and a volume are to be: the part of a compose file that an engine carries out.
//!
//! A definition is complete and resolved: nothing in it is looked up later. It may hold secret values
//! (environment, files), so it is kept only in the definition store (mode 0600) and named elsewhere by a
//! [`DefinitionId`], which is a keyed hash: it shows that something changed and not what it is.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::{NetworkName, ServiceName, VolumeName};

/// The identity of a definition: equal exactly when the definitions are equal, and only within one project.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DefinitionId(pub String);

impl fmt::Display for DefinitionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

/// Ports on which HTTP is spoken unless somebody says otherwise: what frameworks and servers listen on by default.
pub const HTTP_PORTS: &[u16] = &[80, 3000, 3001, 4000, 4200, 5000, 5173, 8000, 8001, 8008, 8080, 8081, 8082, 8088, 8888];

/// Everything about a container but its name, its image and the labels that kaleem adds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Definition {
    /// Arguments; `None` takes those of the image.
    pub command: Option<Vec<String>>,
    /// Program; `None` takes that of the image, an empty list resets it.
    pub entrypoint: Option<Vec<String>>,
    /// Variables. `None` removes a variable which the image sets.
    pub environment: BTreeMap<String, Option<String>>,
    /// The user's own labels.
    pub labels: BTreeMap<String, String>,
    /// User and group inside the container.
    pub user: Option<String>,
    /// Groups beside the user's own.
    pub group_add: Vec<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Host name inside the container.
    pub hostname: Option<String>,
    /// Domain name inside the container.
    pub domainname: Option<String>,
    /// Whether an init process reaps children; `None` leaves it to the engine.
    pub init: Option<bool>,
    /// Whether a terminal is allocated.
    pub tty: bool,
    /// Whether standard input stays open.
    pub stdin_open: bool,
    /// The container's own health check; `None` takes that of the image.
    pub healthcheck: Option<Healthcheck>,
    /// What the engine does when the container exits.
    pub restart: RestartPolicy,
    /// Signal that asks the container to end; `None` takes the image's (SIGTERM).
    pub stop_signal: Option<String>,
    /// Time between that signal and SIGKILL; `None` is the engine's 10 s.
    pub stop_grace: Option<Duration>,
    /// Ports published on the host.
    pub ports: Vec<PortBinding>,
    /// Ports which other containers may use, beside those which the image exposes.
    pub expose: Vec<ContainerPort>,
    /// Volumes, host paths and memory file systems.
    pub mounts: Vec<Mount>,
    /// Files whose contents come with the definition (secrets and configs), written before the start.
    pub files: Vec<InjectedFile>,
    /// Networks.
    pub network: NetworkMode,
    /// Static entries of `/etc/hosts`: name and address (`host-gateway` is allowed).
    pub extra_hosts: Vec<(String, String)>,
    /// DNS servers.
    pub dns: Vec<String>,
    /// DNS search domains.
    pub dns_search: Vec<String>,
    /// DNS resolver options.
    pub dns_opt: Vec<String>,
    /// Capabilities added.
    pub cap_add: Vec<String>,
    /// Capabilities removed.
    pub cap_drop: Vec<String>,
    /// Labels of the security systems, `no-new-privileges`, seccomp profiles.
    pub security_opt: Vec<String>,
    /// Whether all protection is off.
    pub privileged: bool,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Rules of the device control group.
    pub device_cgroup_rules: Vec<String>,
    /// Requests for devices of a driver, such as GPUs.
    pub device_requests: Vec<DeviceRequest>,
    /// Kernel parameters of the container's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Memory file systems in the short form: path and mount options.
    pub tmpfs: BTreeMap<String, String>,
    /// Limits.
    pub resources: Resources,
    /// Where output goes; `None` takes the engine's default driver.
    pub logging: Option<Logging>,
    /// Process namespace (`host`, `container:…`); `service:…` is resolved at creation.
    pub pid: Option<String>,
    /// IPC namespace (`host`, `shareable`, `container:…`, `service:…`).
    pub ipc: Option<String>,
    /// UTS namespace (`host`).
    pub uts: Option<String>,
    /// User namespace (`host`).
    pub userns_mode: Option<String>,
    /// Control group namespace (`host`, `private`).
    pub cgroup: Option<String>,
    /// Parent control group.
    pub cgroup_parent: Option<String>,
    /// OCI runtime (`runc`, …).
    pub runtime: Option<String>,
    /// Isolation technology.
    pub isolation: Option<String>,
    /// Options of the storage driver.
    pub storage_opt: BTreeMap<String, String>,
    /// `os/arch[/variant]` of the image; `None` is the engine's own.
    pub platform: Option<String>,
    /// Annotations handed to the OCI runtime.
    pub annotations: BTreeMap<String, String>,
    /// Volumes of the containers of these services: (service, read-only).
    pub volumes_from: Vec<(ServiceName, bool)>,
}

/// A health check that the engine runs inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Healthcheck {
    /// What is run.
    pub test: HealthTest,
    /// Time between runs; `None` is the engine's 30 s.
    pub interval: Option<Duration>,
    /// Time one run may take; `None` is the engine's 30 s.
    pub timeout: Option<Duration>,
    /// Time after the start in which failures do not count; `None` is 0 s.
    pub start_period: Option<Duration>,
    /// Time between runs during the start period (engine 25 and newer).
    pub start_interval: Option<Duration>,
    /// Failures in a row that make it unhealthy; `None` is the engine's 3.
    pub retries: Option<u64>,
}

impl Healthcheck {
    /// The image's check is switched off.
    pub const DISABLED: Self =
        Self { test: HealthTest::Disabled, interval: None, timeout: None, start_period: None, start_interval: None, retries: None };
}

/// What a health check runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthTest {
    /// The image's check is switched off.
    Disabled,
    /// The image's test, with other times.
    Inherit,
    /// A command line for the container's shell.
    Shell(String),
    /// A program and its arguments.
    Exec(Vec<String>),
}

/// What the engine does when a container exits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Nothing.
    #[default]
    No,
    /// Starts it again, always, also after the engine was restarted.
    Always,
    /// Starts it again, unless it was stopped on purpose.
    UnlessStopped,
    /// Starts it again when it failed, at most so many times (0: no limit).
    OnFailure(u64),
}

/// As a compose file writes it.
impl fmt::Display for RestartPolicy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => out.pad("no"),
            Self::Always => out.pad("always"),
            Self::UnlessStopped => out.pad("unless-stopped"),
            Self::OnFailure(0) => out.pad("on-failure"),
            Self::OnFailure(most) => out.pad(&format!("on-failure:{most}")),
        }
    }
}

/// The transport of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port inside the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerPort {
    /// The number.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
}

/// A port of the host that leads to one of the container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortBinding {
    /// The port inside the container.
    pub container: ContainerPort,
    /// Address of the host; `None` is all of them.
    pub host_ip: Option<IpAddr>,
    /// First and last port of the host (equal for one port); `None` lets the engine choose.
    pub host_ports: Option<(u16, u16)>,
}

impl PortBinding {
    /// Whether both want the same port of the host.
    pub fn collides(&self, other: &Self) -> bool {
        let (Some(a), Some(b)) = (self.host_ports, other.host_ports) else { return false };
        let everywhere = |binding: &Self| binding.host_ip.is_none_or(|ip| ip.is_unspecified());
        // A range is a wish for one of its ports; only single ports must collide.
        a == b
            && a.0 == a.1
            && self.container.protocol == other.container.protocol
            && (everywhere(self) || everywhere(other) || self.host_ip == other.host_ip)
    }
}

/// Something that is mounted into the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path inside the container.
    pub target: String,
    /// Whether the container may not write.
    pub read_only: bool,
    /// What is mounted.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum MountSource {
    /// A path of the host.
    Bind {
        /// Absolute path on the host.
        path: String,
        /// Whether a missing path is made, as the short form of Compose does.
        create_host_path: bool,
        /// `shared`, `rslave`, …
        propagation: Option<String>,
        /// SELinux relabelling: `z` or `Z`.
        selinux: Option<String>,
    },
    /// A named volume.
    Volume {
        /// Full name on the engine.
        name: VolumeName,
        /// Whether the image's files are not copied into an empty volume.
        nocopy: bool,
        /// Directory inside the volume.
        subpath: Option<String>,
    },
    /// A volume without a name, which lives and dies with the container.
    Anonymous,
    /// A memory file system.
    Tmpfs {
        /// Size limit.
        size_bytes: Option<u64>,
        /// Mode of its root directory.
        mode: Option<u32>,
    },
}

/// A file that comes with the definition.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InjectedFile {
    /// Absolute path inside the container.
    pub path: String,
    /// Contents; may be secret.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
}

impl fmt::Debug for InjectedFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("InjectedFile").field("path", &self.path).field("content", &"***").field("mode", &self.mode).finish()
    }
}

/// How a container is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// Networks of its own; the first is the default route.
    Networks(Vec<NetworkAttachment>),
    /// The engine's default bridge.
    Bridge,
    /// The host's own network.
    Host,
    /// No network.
    None,
    /// The network of the container of another service.
    Service(ServiceName),
    /// The network of a container outside the project.
    Container(String),
}

impl Default for NetworkMode {
    fn default() -> Self {
        Self::Networks(Vec::new())
    }
}

/// One network of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkAttachment {
    /// Full name on the engine.
    pub network: NetworkName,
    /// Names under which others find the container there; the service's own name is among them.
    pub aliases: Vec<String>,
    /// Static IPv4 address.
    pub ipv4: Option<String>,
    /// Static IPv6 address.
    pub ipv6: Option<String>,
    /// Link-local addresses.
    pub link_local_ips: Vec<String>,
    /// MAC address.
    pub mac_address: Option<String>,
    /// Options of the network driver.
    pub driver_opts: BTreeMap<String, String>,
}

/// A device of the host inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Path on the host.
    pub host: String,
    /// Path inside the container.
    pub container: String,
    /// `r`, `w`, `m`.
    pub permissions: String,
}

/// A request for devices of a driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceRequest {
    /// Driver, such as `nvidia`.
    pub driver: Option<String>,
    /// How many; -1 for all.
    pub count: Option<i64>,
    /// Which.
    pub device_ids: Vec<String>,
    /// What they must be able to do.
    pub capabilities: Vec<String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

/// Where output goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// Driver; `None` takes the engine's default.
    pub driver: Option<String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

/// Limits of a container. `None` leaves a limit to the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// Memory, at most.
    pub memory_bytes: Option<u64>,
    /// Memory and swap together, at most; -1 for no limit.
    pub memory_swap_bytes: Option<i64>,
    /// Memory that is kept when the host runs short.
    pub memory_reservation_bytes: Option<u64>,
    /// Willingness to swap, 0 to 100.
    pub memory_swappiness: Option<i64>,
    /// Whether the kernel may not kill it for memory.
    pub oom_kill_disable: Option<bool>,
    /// Preference of the kernel when it kills for memory, -1000 to 1000.
    pub oom_score_adj: Option<i64>,
    /// CPU time in billionths of a core.
    pub nano_cpus: Option<i64>,
    /// Relative CPU weight.
    pub cpu_shares: Option<i64>,
    /// CPU period in microseconds.
    pub cpu_period: Option<i64>,
    /// CPU time a period in microseconds.
    pub cpu_quota: Option<i64>,
    /// Real-time CPU period in microseconds.
    pub cpu_rt_period: Option<i64>,
    /// Real-time CPU time in microseconds.
    pub cpu_rt_runtime: Option<i64>,
    /// Which CPUs.
    pub cpuset: Option<String>,
    /// How many CPUs (Windows).
    pub cpu_count: Option<i64>,
    /// Percent of the CPUs (Windows).
    pub cpu_percent: Option<i64>,
    /// Number of processes, at most; -1 for no limit.
    pub pids_limit: Option<i64>,
    /// Size of `/dev/shm`.
    pub shm_size_bytes: Option<u64>,
    /// Limits per process: name, soft, hard.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Relative weight of block devices, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Weight per block device: path, weight.
    pub blkio_weight_device: Vec<(String, u16)>,
    /// Read limit per block device: path, bytes a second.
    pub blkio_read_bps: Vec<(String, u64)>,
    /// Write limit per block device: path, bytes a second.
    pub blkio_write_bps: Vec<(String, u64)>,
    /// Read limit per block device: path, operations a second.
    pub blkio_read_iops: Vec<(String, u64)>,
    /// Write limit per block device: path, operations a second.
    pub blkio_write_iops: Vec<(String, u64)>,
}

/// A network which the project owns or expects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkDefinition {
    /// Full name on the engine.
    pub name: NetworkName,
    /// The key under `networks:` of the compose file (a label of Compose).
    pub key: String,
    /// Whether it must exist already and is never made or removed.
    pub external: bool,
    /// Driver; `None` is the engine's default.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Whether containers outside may join.
    pub attachable: bool,
    /// Whether it leads nowhere else.
    pub internal: bool,
    /// Whether IPv6 is on.
    pub enable_ipv6: bool,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Address management.
    pub ipam: Ipam,
}

/// Address management of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ipam {
    /// Driver; `None` is the engine's default.
    pub driver: Option<String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Address ranges.
    pub pools: Vec<IpamPool>,
}

/// One address range of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IpamPool {
    /// The subnet in CIDR form.
    pub subnet: Option<String>,
    /// The part of it which the engine gives out.
    pub ip_range: Option<String>,
    /// The gateway's address.
    pub gateway: Option<String>,
    /// Addresses that are taken.
    pub aux_addresses: BTreeMap<String, String>,
}

/// A volume which the project owns or expects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeDefinition {
    /// Full name on the engine.
    pub name: VolumeName,
    /// The key under `volumes:` of the compose file (a label of Compose).
    pub key: String,
    /// Whether it must exist already and is never made.
    pub external: bool,
    /// Driver; `None` is the engine's default.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
}
