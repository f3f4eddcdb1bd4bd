//! A definition in the engine's words: the body of a create request, and the networks.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest as EngineDeviceRequest, EndpointIpamConfig, EndpointSettings, HealthConfig,
    HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, NetworkingConfig, PortBinding as EnginePort,
    RestartPolicy as EngineRestart, RestartPolicyNameEnum,
};

use super::limits::signed;
use super::{ApiVersion, limits, mounts};
use crate::definition::{Definition, DeviceRequest, HealthTest, Healthcheck, NetworkAttachment, NetworkMode, PortBinding, RestartPolicy};
use crate::names::{ContainerId, ServiceName};
use crate::runtime::{InstanceSpec, RuntimeError};

/// From this version on, one create request names all networks.
const ALL_NETWORKS_AT_ONCE: ApiVersion = ApiVersion(1, 44);

/// Something that this engine cannot do.
pub(super) fn unsupported(message: String) -> RuntimeError {
    RuntimeError::Refused { operation: "create the container".to_owned(), status: 400, message }
}

fn map(pairs: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!pairs.is_empty()).then(|| pairs.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn list(texts: &[String]) -> Option<Vec<String>> {
    (!texts.is_empty()).then(|| texts.to_vec())
}

pub(super) fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Whole seconds, rounded up: nobody gets less time than was asked for.
pub(super) fn whole_seconds(duration: Duration) -> i64 {
    signed(duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0)))
}

pub(super) fn restart_policy(policy: RestartPolicy) -> EngineRestart {
    let (name, most) = match policy {
        RestartPolicy::No => (RestartPolicyNameEnum::NO, 0),
        RestartPolicy::Always => (RestartPolicyNameEnum::ALWAYS, 0),
        RestartPolicy::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, 0),
        RestartPolicy::OnFailure(most) => (RestartPolicyNameEnum::ON_FAILURE, most),
    };
    EngineRestart { name: Some(name), maximum_retry_count: Some(signed(most)) }
}

pub(super) fn health_config(check: &Healthcheck, api: ApiVersion) -> Result<HealthConfig, RuntimeError> {
    if check.start_interval.is_some() && api < ApiVersion(1, 44) {
        return Err(unsupported("`start_interval` of the health check needs Docker 25".to_owned()));
    }
    let test = match &check.test {
        HealthTest::Disabled => vec!["NONE".to_owned()],
        HealthTest::Inherit => Vec::new(),
        HealthTest::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        HealthTest::Exec(command) => std::iter::once("CMD".to_owned()).chain(command.iter().cloned()).collect(),
    };
    Ok(HealthConfig {
        test: Some(test),
        interval: check.interval.map(nanoseconds),
        timeout: check.timeout.map(nanoseconds),
        retries: check.retries.map(signed),
        start_period: check.start_period.map(nanoseconds),
        start_interval: check.start_interval.map(nanoseconds),
    })
}

/// A variable without `=` takes away what the image sets.
pub(super) fn environment(definition: &Definition) -> Vec<String> {
    let line = |(key, value): (&String, &Option<String>)| match value {
        Some(value) => format!("{key}={value}"),
        None => key.clone(),
    };
    definition.environment.iter().map(line).collect()
}

pub(super) fn exposed_ports(definition: &Definition) -> Vec<String> {
    let published = definition.ports.iter().map(|binding| &binding.container);
    let mut ports: Vec<String> = published.chain(&definition.expose).map(|port| format!("{}/{}", port.port, port.protocol)).collect();
    ports.sort();
    ports.dedup();
    ports
}

pub(super) fn port_map(bindings: &[PortBinding]) -> HashMap<String, Option<Vec<EnginePort>>> {
    let mut ports: HashMap<String, Option<Vec<EnginePort>>> = HashMap::new();
    for binding in bindings {
        let host_port = match binding.host_ports {
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
            None => String::new(),
        };
        let host_ip = binding.host_ip.map_or_else(String::new, |ip| ip.to_string());
        let port = EnginePort { host_ip: Some(host_ip), host_port: Some(host_port) };
        let key = format!("{}/{}", binding.container.port, binding.container.protocol);
        ports.entry(key).or_default().get_or_insert_default().push(port);
    }
    ports
}

pub(super) fn endpoint(attachment: &NetworkAttachment) -> EndpointSettings {
    let has_addresses = attachment.ipv4.is_some() || attachment.ipv6.is_some() || !attachment.link_local_ips.is_empty();
    let addresses = EndpointIpamConfig {
        ipv4_address: attachment.ipv4.clone(),
        ipv6_address: attachment.ipv6.clone(),
        link_local_ips: list(&attachment.link_local_ips),
    };
    EndpointSettings {
        ipam_config: has_addresses.then_some(addresses),
        aliases: list(&attachment.aliases),
        mac_address: attachment.mac_address.clone(),
        driver_opts: map(&attachment.driver_opts),
        ..EndpointSettings::default()
    }
}

fn device_request(request: &DeviceRequest) -> EngineDeviceRequest {
    EngineDeviceRequest {
        driver: request.driver.clone(),
        count: request.count,
        device_ids: list(&request.device_ids),
        capabilities: (!request.capabilities.is_empty()).then(|| vec![request.capabilities.clone()]),
        options: map(&request.options),
    }
}

/// Ids of the containers that stand for the services which a definition joins.
pub(super) type Companions = BTreeMap<ServiceName, ContainerId>;

/// Puts the id of the companion in the place of `service:name`.
fn namespace(mode: Option<&String>, companions: &Companions) -> Result<Option<String>, RuntimeError> {
    let Some(mode) = mode else { return Ok(None) };
    let Some(service) = mode.strip_prefix("service:") else { return Ok(Some(mode.clone())) };
    let companion = companions.iter().find(|(name, _)| name.as_str() == service);
    match companion {
        Some((_, id)) => Ok(Some(format!("container:{}", id.0))),
        None => Err(unsupported(format!("no container stands for the service {service}"))),
    }
}

fn network_mode(mode: &NetworkMode, companions: &Companions) -> Result<String, RuntimeError> {
    Ok(match mode {
        // No network at all is what an empty list says; the engine's default bridge is never meant.
        NetworkMode::Networks(attachments) => attachments.first().map_or_else(|| "none".to_owned(), |first| first.network.to_string()),
        NetworkMode::Bridge => "bridge".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Container(name) => format!("container:{name}"),
        NetworkMode::Service(service) => namespace(Some(&format!("service:{service}")), companions)?.unwrap_or_default(),
    })
}

fn host_config(definition: &Definition, companions: &Companions, api: ApiVersion) -> Result<HostConfig, RuntimeError> {
    if !definition.annotations.is_empty() && api < ApiVersion(1, 43) {
        return Err(unsupported("`annotations` need Docker 24".to_owned()));
    }
    let cgroupns_mode = match definition.cgroup.as_deref() {
        None => None,
        Some("host") => Some(HostConfigCgroupnsModeEnum::HOST),
        Some("private") => Some(HostConfigCgroupnsModeEnum::PRIVATE),
        Some(other) => return Err(unsupported(format!("the control group namespace `{other}` is neither `host` nor `private`"))),
    };
    let isolation = match definition.isolation.as_deref().map(str::parse) {
        Some(Ok(isolation)) => Some(isolation),
        Some(Err(_)) => return Err(unsupported("the isolation is unknown".to_owned())),
        None => None,
    };
    let volume_from = |(service, read_only): &(ServiceName, bool)| match companions.get(service) {
        Some(id) => Ok(format!("{}:{}", id.0, if *read_only { "ro" } else { "rw" })),
        None => Err(unsupported(format!("no container stands for the service {service}"))),
    };
    let volumes_from = definition.volumes_from.iter().map(volume_from).collect::<Result<Vec<_>, _>>()?;
    let device = |device: &crate::definition::Device| DeviceMapping {
        path_on_host: Some(device.host.clone()),
        path_in_container: Some(device.container.clone()),
        cgroup_permissions: Some(device.permissions.clone()),
    };
    let mut host = HostConfig {
        network_mode: Some(network_mode(&definition.network, companions)?),
        // The policy comes with the start: an engine that restarts would start a container that is not meant to run yet.
        restart_policy: Some(restart_policy(RestartPolicy::No)),
        port_bindings: (!definition.ports.is_empty()).then(|| port_map(&definition.ports)),
        init: definition.init,
        group_add: list(&definition.group_add),
        extra_hosts: (!definition.extra_hosts.is_empty())
            .then(|| definition.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect()),
        dns: list(&definition.dns),
        dns_search: list(&definition.dns_search),
        dns_options: list(&definition.dns_opt),
        cap_add: list(&definition.cap_add),
        cap_drop: list(&definition.cap_drop),
        security_opt: list(&definition.security_opt),
        privileged: Some(definition.privileged),
        readonly_rootfs: Some(definition.read_only),
        devices: (!definition.devices.is_empty()).then(|| definition.devices.iter().map(device).collect()),
        device_cgroup_rules: list(&definition.device_cgroup_rules),
        device_requests: (!definition.device_requests.is_empty()).then(|| definition.device_requests.iter().map(device_request).collect()),
        sysctls: map(&definition.sysctls),
        log_config: definition.logging.as_ref().map(|logging| HostConfigLogConfig {
            typ: Some(logging.driver.clone().unwrap_or_default()),
            config: Some(map(&logging.options).unwrap_or_default()),
        }),
        pid_mode: namespace(definition.pid.as_ref(), companions)?,
        ipc_mode: namespace(definition.ipc.as_ref(), companions)?,
        uts_mode: definition.uts.clone(),
        userns_mode: definition.userns_mode.clone(),
        cgroupns_mode,
        cgroup_parent: definition.cgroup_parent.clone(),
        runtime: definition.runtime.clone(),
        isolation,
        storage_opt: map(&definition.storage_opt),
        annotations: map(&definition.annotations),
        volumes_from: list(&volumes_from),
        ..HostConfig::default()
    };
    mounts::apply(&mut host, definition, api)?;
    limits::apply(&mut host, &definition.resources);
    Ok(host)
}

/// Networks that the create request names; the others are connected afterwards.
pub(super) fn first_networks(mode: &NetworkMode, api: ApiVersion) -> &[NetworkAttachment] {
    match mode {
        NetworkMode::Networks(attachments) if api >= ALL_NETWORKS_AT_ONCE => attachments,
        NetworkMode::Networks(attachments) => attachments.get(..1).unwrap_or_default(),
        _ => &[],
    }
}

/// The body of the create request.
pub(super) fn create_body(spec: &InstanceSpec, companions: &Companions, api: ApiVersion) -> Result<ContainerCreateBody, RuntimeError> {
    let definition = &*spec.definition;
    let first = first_networks(&definition.network, api);
    let endpoints = first.iter().map(|attachment| (attachment.network.to_string(), endpoint(attachment))).collect();
    Ok(ContainerCreateBody {
        image: Some(spec.image.engine_reference()),
        cmd: definition.command.clone(),
        entrypoint: definition.entrypoint.clone(),
        env: Some(environment(definition)),
        labels: Some(spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
        user: definition.user.clone(),
        working_dir: definition.working_dir.clone(),
        hostname: definition.hostname.clone(),
        domainname: definition.domainname.clone(),
        tty: Some(definition.tty),
        open_stdin: Some(definition.stdin_open),
        healthcheck: definition.healthcheck.as_ref().map(|check| health_config(check, api)).transpose()?,
        stop_signal: definition.stop_signal.clone(),
        stop_timeout: definition.stop_grace.map(whole_seconds),
        exposed_ports: Some(exposed_ports(definition)).filter(|ports| !ports.is_empty()),
        host_config: Some(host_config(definition, companions, api)?),
        networking_config: (!first.is_empty()).then_some(NetworkingConfig { endpoints_config: Some(endpoints) }),
        ..ContainerCreateBody::default()
    })
}

/// The MAC address of the first network, which older engines want in another place than the library's types have.
pub(super) fn top_level_mac(definition: &Definition, api: ApiVersion) -> Option<&str> {
    match &definition.network {
        NetworkMode::Networks(attachments) if api < ALL_NETWORKS_AT_ONCE => attachments.first()?.mac_address.as_deref(),
        _ => None,
    }
}
