//! Limits of a service: the keys of its own and those of `deploy.resources`.

use crate::config::compose::convert::{Converter, owned, unsigned};
use crate::config::compose::error::ProblemKind;
use crate::config::compose::tree::{Node, Value};
use crate::definition::Resources;

impl Converter<'_> {
    pub(super) fn resources(&mut self, node: &Node, path: &str) -> Resources {
        let group = |name: &str| node.get("deploy").and_then(|deploy| deploy.get("resources")).and_then(|all| all.get(name));
        let (limits, reservations) = (group("limits"), group("reservations"));
        let cpus = node.get("cpus").or_else(|| limits.and_then(|limits| limits.get("cpus")));
        let nano_cpus = cpus.and_then(|cpus| self.nano_cpus(cpus, path));
        let blkio = node.get("blkio_config");
        let rates = |key: &str| -> Vec<(String, u64)> {
            let devices = blkio.map_or(&[][..], |blkio| blkio.get_list(key));
            devices.iter().filter_map(|device| Some((owned(device, "path")?, unsigned(device, "rate")?))).collect()
        };
        let weight = |node: &Node| node.get_int("weight").and_then(|weight| u16::try_from(weight).ok());
        let weights = blkio.map_or(&[][..], |blkio| blkio.get_list("weight_device"));
        Resources {
            memory_bytes: unsigned(node, "mem_limit").or_else(|| limits.and_then(|limits| unsigned(limits, "memory"))),
            memory_swap_bytes: node.get_int("memswap_limit"),
            memory_reservation_bytes: unsigned(node, "mem_reservation")
                .or_else(|| reservations.and_then(|reservations| unsigned(reservations, "memory"))),
            memory_swappiness: node.get_int("mem_swappiness"),
            oom_kill_disable: node.get_bool("oom_kill_disable"),
            oom_score_adj: node.get_int("oom_score_adj"),
            nano_cpus,
            cpu_shares: node.get_int("cpu_shares"),
            cpu_period: node.get_int("cpu_period"),
            cpu_quota: node.get_int("cpu_quota"),
            cpu_rt_period: node.get_int("cpu_rt_period"),
            cpu_rt_runtime: node.get_int("cpu_rt_runtime"),
            cpuset: owned(node, "cpuset"),
            cpu_count: node.get_int("cpu_count"),
            cpu_percent: node.get("cpu_percent").and_then(whole),
            pids_limit: node.get_int("pids_limit").or_else(|| limits.and_then(|limits| limits.get_int("pids"))),
            shm_size_bytes: unsigned(node, "shm_size"),
            ulimits: node.entries("ulimits").map(|(name, limit)| ulimit(name, limit)).collect(),
            blkio_weight: blkio.and_then(weight),
            blkio_weight_device: weights.iter().filter_map(|device| Some((owned(device, "path")?, weight(device)?))).collect(),
            blkio_read_bps: rates("device_read_bps"),
            blkio_write_bps: rates("device_write_bps"),
            blkio_read_iops: rates("device_read_iops"),
            blkio_write_iops: rates("device_write_iops"),
        }
    }

    fn nano_cpus(&mut self, cpus: &Node, path: &str) -> Option<i64> {
        let Value::Float(value) = cpus.value else { return None };
        if !(0.0..=100_000.0).contains(&value) {
            let reason = format!("{value} is not a number of processors");
            self.problems.add(&cpus.mark, &format!("{path}.cpus"), ProblemKind::BadValue, reason, "write a number such as `0.5`");
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the check")]
        Some((value * 1e9).round() as i64)
    }
}

fn whole(node: &Node) -> Option<i64> {
    match node.value {
        #[expect(clippy::cast_possible_truncation, reason = "a percentage")]
        Value::Float(value) if value.abs() < 1e6 => Some(value.round() as i64),
        Value::Int(value) => Some(value),
        _ => None,
    }
}

fn ulimit(name: &str, node: &Node) -> (String, i64, i64) {
    if let Value::Int(both) = node.value {
        return (name.to_owned(), both, both);
    }
    (name.to_owned(), node.get_int("soft").unwrap_or(0), node.get_int("hard").unwrap_or(0))
}
