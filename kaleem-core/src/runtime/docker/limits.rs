//! Limits of a container in the engine's words.

use bollard::models::{HostConfig, ResourcesBlkioWeightDevice, ResourcesUlimits, ThrottleDevice};

use crate::definition::Resources;

/// The engine counts in signed numbers; nothing real is larger.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn throttles(limits: &[(String, u64)]) -> Option<Vec<ThrottleDevice>> {
    let limit = |(path, rate): &(String, u64)| ThrottleDevice { path: Some(path.clone()), rate: Some(signed(*rate)) };
    (!limits.is_empty()).then(|| limits.iter().map(limit).collect())
}

/// Writes all limits into `host`.
pub(super) fn apply(host: &mut HostConfig, limits: &Resources) {
    host.memory = limits.memory_bytes.map(signed);
    host.memory_swap = limits.memory_swap_bytes;
    host.memory_reservation = limits.memory_reservation_bytes.map(signed);
    host.memory_swappiness = limits.memory_swappiness;
    host.oom_kill_disable = limits.oom_kill_disable;
    host.oom_score_adj = limits.oom_score_adj;
    host.nano_cpus = limits.nano_cpus;
    host.cpu_shares = limits.cpu_shares;
    host.cpu_period = limits.cpu_period;
    host.cpu_quota = limits.cpu_quota;
    host.cpu_realtime_period = limits.cpu_rt_period;
    host.cpu_realtime_runtime = limits.cpu_rt_runtime;
    host.cpuset_cpus = limits.cpuset.clone();
    host.cpu_count = limits.cpu_count;
    host.cpu_percent = limits.cpu_percent;
    host.pids_limit = limits.pids_limit;
    host.shm_size = limits.shm_size_bytes.map(signed);
    let ulimit =
        |(name, soft, hard): &(String, i64, i64)| ResourcesUlimits { name: Some(name.clone()), soft: Some(*soft), hard: Some(*hard) };
    host.ulimits = (!limits.ulimits.is_empty()).then(|| limits.ulimits.iter().map(ulimit).collect());
    host.blkio_weight = limits.blkio_weight;
    let weight =
        |(path, weight): &(String, u16)| ResourcesBlkioWeightDevice { path: Some(path.clone()), weight: Some(usize::from(*weight)) };
    host.blkio_weight_device = (!limits.blkio_weight_device.is_empty()).then(|| limits.blkio_weight_device.iter().map(weight).collect());
    host.blkio_device_read_bps = throttles(&limits.blkio_read_bps);
    host.blkio_device_write_bps = throttles(&limits.blkio_write_bps);
    host.blkio_device_read_iops = throttles(&limits.blkio_read_iops);
    host.blkio_device_write_iops = throttles(&limits.blkio_write_iops);
}
