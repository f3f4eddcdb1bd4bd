//! The hash that kaleem computes for a service is the one that Docker Compose writes on its containers.
//!
//! `tests/compose/hashes.json` was written by Docker Compose itself: see `tests/compose/README.md`. A service whose model names the
//! directory of its case has another hash in every checkout, so the golden has none; the oracle checks it all the same.

use std::collections::BTreeMap;

use kaleem_core::config::load;
use serde_json::Value;

use crate::compose_conformance::{Case, cases, root, variable, write_golden};

type Hashes = BTreeMap<String, String>;

/// The hashes of one case; `None` where kaleem refuses the project.
fn ours(case: &Case) -> Option<Hashes> {
    let project = load(&case.options()).ok()?;
    let hash = |(name, service): (&_, &kaleem_core::config::Service)| Some((format!("{name}"), service.compose_hash.v2_26.clone()?));
    Some(project.services.iter().filter_map(hash).collect())
}

fn golden(case: &Case) -> Value {
    serde_json::from_str(&std::fs::read_to_string(&case.golden).expect("a golden")).expect("a golden is JSON")
}

/// What is the same wherever the case's directory is.
fn without_directories(case: &Case, hashes: Hashes) -> Hashes {
    let golden = golden(case);
    let names_a_directory = |service: &str| {
        let text = golden.get("services").and_then(|services| services.get(service)).map(Value::to_string).unwrap_or_default();
        ["<DIR>", "<CASES>"].iter().any(|place| text.contains(place))
    };
    hashes.into_iter().filter(|(service, _)| !names_a_directory(service)).collect()
}

/// Whether what Compose prints as the hash of a service can be another than what it writes on a container: `config --hash` of 2.26
/// hashes the names of env files, and `up` the variables that are in them.
fn uses_env_files(case: &Case) -> bool {
    let options = case.options();
    let mut directories = vec![options.directory];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("the directory is there").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                directories.push(entry);
            } else if std::fs::read_to_string(&entry).is_ok_and(|text| text.contains("env_file") && case.name.starts_with("cases/")) {
                return true;
            }
        }
    }
    // A case may lead up to its neighbours.
    case.name.starts_with("cases/") && (case.name.contains("extends") || case.name.contains("include"))
}

fn recorded() -> BTreeMap<String, Hashes> {
    let text = std::fs::read_to_string(root().join("hashes.json")).expect("the hashes are there");
    serde_json::from_str(&text).expect("the hashes are JSON")
}

#[test]
fn every_hash_is_the_one_that_docker_compose_writes() {
    let recorded = recorded();
    let mut failures = Vec::new();
    let mut checked = 0;
    for case in cases() {
        let (Some(want), Some(got)) = (recorded.get(&case.name), ours(&case)) else { continue };
        for (service, hash) in without_directories(&case, got) {
            checked += 1;
            if want.get(&service) != Some(&hash) {
                failures.push(format!("{}: {service}: want {:?}, got {hash}", case.name, want.get(&service)));
            }
        }
    }
    assert!(failures.is_empty(), "{} hashes differ:\n{}", failures.len(), failures.join("\n"));
    assert!(checked >= 200, "only {checked} hashes were compared");
}

#[test]
fn the_recorded_hashes_are_what_docker_compose_prints_today() {
    let Some(oracle) = variable("KALEEM_COMPOSE_ORACLE") else {
        println!("skipped: KALEEM_COMPOSE_ORACLE names no docker-compose program");
        return;
    };
    let mut all = BTreeMap::new();
    let mut failures = Vec::new();
    for case in cases().into_iter().filter(|case| !uses_env_files(case)) {
        let Ok(printed) = case.config(&oracle, &["--hash", "*"]) else { continue };
        let printed = String::from_utf8_lossy(&printed).into_owned();
        let hashes: Hashes =
            printed.lines().filter_map(|line| line.split_once(' ')).map(|(name, hash)| (name.to_owned(), hash.to_owned())).collect();
        for (service, hash) in ours(&case).unwrap_or_default() {
            if hashes.get(&service) != Some(&hash) {
                failures.push(format!("{}: {service}: Compose says {:?}, kaleem {hash}", case.name, hashes.get(&service)));
            }
        }
        all.insert(case.name.clone(), without_directories(&case, hashes));
    }
    assert!(failures.is_empty(), "{} hashes differ:\n{}", failures.len(), failures.join("\n"));
    if variable("KALEEM_COMPOSE_GOLDENS").as_deref() == Some("write") {
        write_golden(&root().join("hashes.json"), &serde_json::to_value(&all).expect("hashes are JSON"));
    } else {
        assert_eq!(recorded(), all, "the recorded hashes are not what Docker Compose prints");
    }
}
