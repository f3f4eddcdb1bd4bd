//! Every key of a service: what it takes, and whether it is carried out.

use crate::config::compose::forms::{self, ports, volumes};
use crate::config::compose::schema::{LABELS, ignored, ignored_kept, kept, key, refused};
use crate::config::compose::shape::{Bare, Key, Shape};

const LATER: &str = "remove it, or deploy this service with Compose itself";
const SWARM: &str = "it has an effect only in a swarm";

pub(super) static SERVICE: Shape = Shape::Object(&[
    key("annotations", Shape::Pairs(Bare::Empty)),
    ignored_kept("attach", Shape::Bool, "no output is attached during a release"),
    kept("build", Shape::Short(forms::build, &BUILD)),
    ignored_kept("develop", DEVELOP, "it is for `docker compose watch` alone"),
    kept("blkio_config", BLKIO),
    key("cap_add", Shape::Texts),
    key("cap_drop", Shape::Texts),
    key("cgroup", Shape::Word(&["host", "private"])),
    key("cgroup_parent", Shape::Text),
    kept("command", Shape::Command),
    key("configs", Shape::List(&FILE_REFERENCE)),
    key("container_name", Shape::Text),
    key("cpu_count", Shape::Int),
    key("cpu_percent", Shape::Float),
    key("cpu_period", Shape::Int),
    key("cpu_quota", Shape::Int),
    key("cpu_rt_period", Shape::Int),
    key("cpu_rt_runtime", Shape::Int),
    key("cpu_shares", Shape::Int),
    key("cpus", Shape::Float),
    key("cpuset", Shape::Text),
    refused("credential_spec", Shape::Any, "credential specs exist only on Windows", LATER),
    key("depends_on", Shape::Short(forms::dependencies, &Shape::Map(&DEPENDENCY))),
    kept("deploy", DEPLOY),
    key("device_cgroup_rules", Shape::Texts),
    key("devices", Shape::List(&DEVICE)),
    key("dns", Shape::Texts),
    key("dns_opt", Shape::Texts),
    key("dns_search", Shape::Texts),
    key("domainname", Shape::Text),
    kept("entrypoint", Shape::Command),
    key("env_file", Shape::Short(forms::one_or_more, &Shape::List(&ENV_FILE))),
    key("environment", Shape::Pairs(Bare::Null)),
    key("expose", Shape::Texts),
    key("extends", Shape::Any),
    refused(
        "external_links",
        Shape::Texts,
        "links to containers of other projects are an old form",
        "join a network that both projects use",
    ),
    key("extra_hosts", Shape::Short(forms::extra_hosts, &Shape::Texts)),
    key("gpus", Shape::Short(forms::gpus, &Shape::List(&DEVICE_REQUEST))),
    key("group_add", Shape::Texts),
    kept("healthcheck", HEALTHCHECK),
    key("hostname", Shape::Text),
    key("image", Shape::Text),
    kept("init", Shape::Bool),
    key("ipc", Shape::Text),
    key("isolation", Shape::Text),
    key("label_file", Shape::Short(forms::one_or_more, &Shape::List(&Shape::Path))),
    key("labels", LABELS),
    key("links", Shape::Texts),
    kept("logging", Shape::Object(&[key("driver", Shape::Text), key("options", Shape::Pairs(Bare::Empty))])),
    key("mac_address", Shape::Text),
    key("mem_limit", Shape::Size),
    key("mem_reservation", Shape::Size),
    key("mem_swappiness", Shape::Size),
    key("memswap_limit", Shape::Size),
    refused("models", Shape::Any, "models need a model runner", LATER),
    key("network_mode", Shape::Text),
    key("networks", Shape::Short(forms::names_to_map, &Shape::Map(&SERVICE_NETWORK))),
    key("oom_kill_disable", Shape::Bool),
    key("oom_score_adj", Shape::Int),
    key("pid", Shape::Text),
    key("pids_limit", Shape::Int),
    key("platform", Shape::Text),
    key("ports", Shape::Short(ports::expand, &Shape::List(&PORT))),
    refused("post_start", Shape::Any, "hooks are not run", "do it in the entrypoint of the image"),
    refused("pre_stop", Shape::Any, "hooks are not run", "do it in a handler of the stop signal"),
    key("privileged", Shape::Bool),
    key("profiles", Shape::Texts),
    refused("provider", Shape::Any, "services of a provider are no containers", LATER),
    key("pull_policy", Shape::Short(forms::pull_policy, &Shape::Text)),
    key("read_only", Shape::Bool),
    key("restart", Shape::Text),
    key("runtime", Shape::Text),
    kept("scale", Shape::Int),
    key("secrets", Shape::List(&FILE_REFERENCE)),
    key("security_opt", Shape::Texts),
    key("shm_size", Shape::Size),
    key("stdin_open", Shape::Bool),
    kept("stop_grace_period", Shape::Duration),
    key("stop_signal", Shape::Text),
    key("storage_opt", Shape::Pairs(Bare::Empty)),
    key("sysctls", Shape::Pairs(Bare::Empty)),
    key("tmpfs", Shape::Texts),
    key("tty", Shape::Bool),
    key("ulimits", Shape::Map(&Shape::Short(forms::ulimit, &Shape::Any))),
    refused("use_api_socket", Shape::Any, "the engine's socket is not handed to containers", "mount the socket yourself if you must"),
    key("user", Shape::Text),
    key("userns_mode", Shape::Text),
    key("uts", Shape::Text),
    key("volumes", Shape::List(&VOLUME)),
    key("volumes_from", Shape::Texts),
    key("working_dir", Shape::Text),
]);

static BUILD: Shape = Shape::Object(&[
    key("context", Shape::Short(forms::context, &Shape::Text)),
    key("dockerfile", Shape::Text),
    key("dockerfile_inline", Shape::Text),
    key("args", Shape::Pairs(Bare::Null)),
    key("ssh", Shape::Short(forms::ssh, &Shape::Texts)),
    key("labels", LABELS),
    key("cache_from", Shape::Texts),
    ignored("cache_to", Shape::Texts, "the build's cache stays on this host"),
    key("no_cache", Shape::Bool),
    key("additional_contexts", Shape::Short(forms::contexts, &Shape::Pairs(Bare::Empty))),
    key("pull", Shape::Bool),
    key("extra_hosts", Shape::Short(forms::extra_hosts, &Shape::Texts)),
    refused("isolation", Shape::Text, "isolation exists only on Windows", "remove it"),
    key("network", Shape::Text),
    key("target", Shape::Text),
    key("secrets", Shape::List(&FILE_REFERENCE)),
    key("shm_size", Shape::Size),
    key("tags", Shape::Texts),
    key("platforms", Shape::Texts),
    refused(
        "privileged",
        Shape::Bool,
        "builds do not get the host's rights",
        "remove it, or build the image yourself and name it in `image:`",
    ),
    refused(
        "ulimits",
        Shape::Any,
        "builds have the limits of the engine",
        "remove it, or build the image yourself and name it in `image:`",
    ),
    refused(
        "entitlements",
        Shape::Any,
        "builds do not get the host's rights",
        "remove it, or build the image yourself and name it in `image:`",
    ),
    ignored("provenance", Shape::Any, "no attestation is kept with a release"),
    ignored("sbom", Shape::Any, "no attestation is kept with a release"),
]);

const DEVELOP: Shape = Shape::Object(&[key(
    "watch",
    Shape::List(&Shape::Short(
        forms::watch,
        &Shape::Object(&[
            key("path", Shape::Path),
            key("action", Shape::Text),
            key("target", Shape::Text),
            key("ignore", Shape::Texts),
            key("include", Shape::Texts),
            key("initial_sync", Shape::Bool),
            kept("exec", Shape::Any),
        ]),
    )),
)]);

static WEIGHT: Shape = Shape::Object(&[key("path", Shape::Text), key("weight", Shape::Int)]);
static RATE: Shape = Shape::Object(&[key("path", Shape::Text), key("rate", Shape::Size)]);

const BLKIO: Shape = Shape::Object(&[
    key("weight", Shape::Int),
    key("weight_device", Shape::List(&WEIGHT)),
    key("device_read_bps", Shape::List(&RATE)),
    key("device_read_iops", Shape::List(&RATE)),
    key("device_write_bps", Shape::List(&RATE)),
    key("device_write_iops", Shape::List(&RATE)),
]);

static FILE_REFERENCE: Shape = Shape::Short(
    forms::file_reference,
    &Shape::Object(&[
        key("source", Shape::Text),
        key("target", Shape::Text),
        key("uid", Shape::Text),
        key("gid", Shape::Text),
        kept("mode", Shape::Int),
    ]),
);

static DEPENDENCY: Shape = Shape::Short(
    forms::dependency,
    &Shape::Object(&[
        key("condition", Shape::Word(&["service_started", "service_healthy", "service_completed_successfully"])),
        key("restart", Shape::Bool),
        kept("required", Shape::Bool),
    ]),
);

static DEVICE: Shape =
    Shape::Short(forms::device, &Shape::Object(&[key("source", Shape::Text), key("target", Shape::Text), key("permissions", Shape::Text)]));

pub(super) static DEVICE_REQUEST: Shape = Shape::Short(
    forms::device_request,
    &Shape::Object(&[
        key("capabilities", Shape::Texts),
        key("driver", Shape::Text),
        key("count", Shape::Int),
        key("device_ids", Shape::Texts),
        key("options", Shape::Pairs(Bare::Empty)),
    ]),
);

static ENV_FILE: Shape = Shape::Short(
    forms::env_file,
    &Shape::Object(&[
        key("path", Shape::Path),
        kept("required", Shape::Bool),
        refused(
            "format",
            Shape::Text,
            "only the syntax of `.env` files is read",
            "remove it, and put quotes around values where they need them",
        ),
    ]),
);

const HEALTHCHECK: Shape = Shape::Object(&[
    key("test", Shape::Short(forms::health_test, &Shape::Texts)),
    kept("timeout", Shape::Duration),
    kept("interval", Shape::Duration),
    kept("retries", Shape::Int),
    kept("start_period", Shape::Duration),
    kept("start_interval", Shape::Duration),
    key("disable", Shape::Bool),
]);

static SERVICE_NETWORK: Shape = Shape::Object(&[
    key("aliases", Shape::Texts),
    key("ipv4_address", Shape::Text),
    key("ipv6_address", Shape::Text),
    key("link_local_ips", Shape::Texts),
    key("mac_address", Shape::Text),
    key("driver_opts", Shape::Pairs(Bare::Empty)),
    key("priority", Shape::Int),
    refused("gw_priority", Shape::Int, "older engines choose the gateway by `priority`", "use `priority`"),
    refused("interface_name", Shape::Text, "older engines name interfaces themselves", "remove it"),
]);

static PORT: Shape = Shape::Object(&[
    ignored("name", Shape::Text, "it only describes the port"),
    key("mode", Shape::Word(&["ingress", "host"])),
    key("host_ip", Shape::Text),
    key("target", Shape::Int),
    key("published", Shape::Text),
    key("protocol", Shape::Text),
    ignored("app_protocol", Shape::Text, "it only describes the port"),
]);

static VOLUME: Shape = Shape::Short(
    volumes::long,
    &Shape::Object(&[
        key("type", Shape::Word(&["bind", "volume", "tmpfs", "npipe", "cluster"])),
        key("source", Shape::Text),
        key("target", Shape::Short(volumes::target, &Shape::Text)),
        key("read_only", Shape::Bool),
        ignored("consistency", Shape::Text, "mounts are always consistent on Linux"),
        kept(
            "bind",
            Shape::Object(&[
                key("selinux", Shape::Text),
                key("propagation", Shape::Text),
                key("create_host_path", Shape::Bool),
                refused("recursive", Shape::Text, "older engines mount with everything below", "remove it"),
            ]),
        ),
        kept("volume", Shape::Object(&[key("nocopy", Shape::Bool), key("subpath", Shape::Text)])),
        kept("tmpfs", Shape::Object(&[key("size", Shape::Size), key("mode", Shape::Int)])),
    ]),
);

static DEPLOY_UPDATE: [Key; 6] = [
    kept("parallelism", Shape::Int),
    ignored("delay", Shape::Duration, "every replica waits for the gate of the one before, which is the better pause"),
    ignored("failure_action", Shape::Text, "a release that fails is always taken back"),
    key("monitor", Shape::Duration),
    ignored("max_failure_ratio", Shape::Float, "one failure is enough"),
    key("order", Shape::Word(&["start-first", "stop-first"])),
];

static LIMITS: [Key; 3] = [key("cpus", Shape::Float), key("memory", Shape::Size), key("pids", Shape::Int)];

static RESERVATIONS: [Key; 4] = [
    ignored("cpus", Shape::Float, "the engine reserves no processors"),
    key("memory", Shape::Size),
    key("devices", Shape::List(&DEVICE_REQUEST)),
    ignored("generic_resources", Shape::Any, SWARM),
];

static RESOURCES: [Key; 2] = [kept("limits", Shape::Object(&LIMITS)), kept("reservations", Shape::Object(&RESERVATIONS))];

static RESTART_POLICY: [Key; 4] = [
    key("condition", Shape::Word(&["none", "on-failure", "any", "always", "unless-stopped"])),
    ignored_kept("delay", Shape::Duration, "the engine waits between restarts by its own rule"),
    kept("max_attempts", Shape::Int),
    ignored_kept("window", Shape::Duration, "the engine judges a restart by its own rule"),
];

static PLACEMENT: [Key; 3] = [
    ignored("constraints", Shape::Texts, SWARM),
    ignored("preferences", Shape::Any, SWARM),
    ignored("max_replicas_per_node", Shape::Int, SWARM),
];

const DEPLOY: Shape = Shape::Object(&[
    key("mode", Shape::Text),
    kept("replicas", Shape::Int),
    ignored("labels", LABELS, "labels of a service exist only in a swarm; `labels:` are those of the container"),
    kept("update_config", Shape::Object(&DEPLOY_UPDATE)),
    ignored_kept("rollback_config", Shape::Object(&DEPLOY_UPDATE), "kaleem goes back by itself, in the reverse order of what it did"),
    kept("resources", Shape::Object(&RESOURCES)),
    kept("restart_policy", Shape::Object(&RESTART_POLICY)),
    kept("placement", Shape::Object(&PLACEMENT)),
    ignored("endpoint_mode", Shape::Text, SWARM),
]);
