//! Where the shards of a collection are, in a cluster: a shard whose replicas are all dead answers nothing, and the collection stays green.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::report::{Report, word};

/// Judges what `/collections/NAME/cluster` says.
pub(super) fn judge(report: &mut Report, name: &str, told: &Value) {
    let listed = ["local_shards", "remote_shards"].into_iter().filter_map(|key| told.get(key)?.as_array()).flatten();
    let mut replicas: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for one in listed {
        let Some((shard, state)) = one.get("shard_id").and_then(Value::as_u64).zip(one.get("state").and_then(Value::as_str)) else {
            continue;
        };
        replicas.entry(shard).or_default().push(state);
    }
    let shards = replicas.len();
    let lost = replicas.values().filter(|states| !states.contains(&"Active")).count();
    let all = replicas.values().map(Vec::len).sum::<usize>();
    let dead = replicas.values().flatten().filter(|state| **state == "Dead").count();
    let name = word(name);
    if lost > 0 {
        report.fail(
            format!("{lost} of {shards} shards of the collection `{name}` have no active replica: their points are not found"),
            "start the peers that hold them, or restore the collection from a snapshot",
        );
    } else if dead > 0 {
        report.warn(
            format!("{dead} of {all} replicas of the collection `{name}` are dead"),
            format!("see which: `curl …/collections/{name}/cluster`; start their peers"),
        );
    }
}
