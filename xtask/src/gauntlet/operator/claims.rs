//! What kaleem printed, compared with what is.

use std::collections::{BTreeMap, BTreeSet};

use crate::gauntlet::operator::project::Container;
use crate::gauntlet::operator::traffic::Door;

/// What every door answers.
pub(super) type Answers = BTreeMap<Door, Result<String, String>>;

/// The version that all doors answer; else what they answer.
pub(super) fn agreed(answers: &Answers) -> Result<&str, String> {
    let versions: BTreeSet<&str> = answers.values().filter_map(|answer| answer.as_deref().ok()).collect();
    let failing = answers.values().any(Result::is_err);
    match (versions.first(), versions.len(), failing) {
        (Some(version), 1, false) => Ok(version),
        _ => Err(told(answers)),
    }
}

fn told(answers: &Answers) -> String {
    let answer = |(door, answer): (&Door, &Result<String, String>)| match answer {
        Ok(version) => format!("{}: {version}", door.title()),
        Err(reason) => format!("{}: {reason}", door.title()),
    };
    answers.iter().map(answer).collect::<Vec<_>>().join(", ")
}

/// The last `serving:` of what a command printed.
pub(super) fn serving(text: &str) -> Option<&str> {
    text.lines().rev().find_map(|line| line.trim().strip_prefix("serving:")).map(str::trim)
}

/// Why what a command said of `serving:` is not true. `workers` is the version that services beside the API run.
pub(super) fn of_serving(text: &str, answers: &Answers, workers: &str) -> Option<String> {
    let claim = serving(text)?;
    let named = |version: &str| claim.contains(&format!("kaleem-operator/api:{version} "));
    match agreed(answers) {
        Err(answers) => Some(format!("it printed `serving: {claim}`, and the doors answer {answers}")),
        // What Compose runs, before kaleem has released anything.
        Ok(_) if claim.contains("has not released anything") && claim.contains("Compose") => None,
        Ok(version) if !named(version) => Some(format!("it printed `serving: {claim}`, and the doors answer {version}")),
        // Another version is named only where other services run it.
        Ok(version) => {
            let others =
                ["o1", "o2", "o3", "o4", "sick", "crash", "late"].into_iter().filter(|other| *other != version && *other != workers);
            let other = others.into_iter().find(|other| named(other));
            other.map(|other| format!("it printed `serving: {claim}`, which names {other}, and the doors answer {version}"))
        }
    }
}

/// Services of which a plan says that they are kept.
pub(super) fn kept(text: &str) -> BTreeSet<&str> {
    let row =
        |line: &'_ str| -> bool { line.starts_with("= ") && line.split_whitespace().nth(2).is_some_and(|verb| verb.starts_with("keep")) };
    text.lines().filter(|line| row(line)).filter_map(|line| line.split_whitespace().nth(1)).collect()
}

/// Services whose running containers are not the same ones.
pub(super) fn changed(before: &BTreeSet<Container>, after: &BTreeSet<Container>) -> BTreeSet<String> {
    let of = |all: &BTreeSet<Container>| {
        let mut running: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
        for container in all.iter().filter(|container| container.runs) {
            if let Some(service) = &container.service {
                running.entry(service.clone()).or_default().insert((container.id.clone(), container.started.clone()));
            }
        }
        running
    };
    let (before, after) = (of(before), of(after));
    before.keys().chain(after.keys()).filter(|service| before.get(*service) != after.get(*service)).cloned().collect()
}

/// Containers that run and that what was printed tells a person to remove.
pub(super) fn orders_to_remove<'a>(text: &str, containers: &'a BTreeSet<Container>) -> Vec<&'a str> {
    let lines = || text.lines().filter(|line| line.contains("docker rm") || line.contains("docker stop"));
    let running = containers.iter().filter(|container| container.runs);
    running
        .map(|container| container.name.as_str())
        .filter(|name| lines().any(|line| line.split_whitespace().any(|word| word.trim_matches('`') == *name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(given: [Result<&str, &str>; 5]) -> Answers {
        Door::ALL.into_iter().zip(given.map(|answer| answer.map(str::to_owned).map_err(str::to_owned))).collect()
    }

    fn container(service: &str, id: &str, runs: bool) -> Container {
        let started = String::new();
        Container { service: Some(service.to_owned()), id: id.to_owned(), name: format!("p-{service}"), runs, started }
    }

    #[test]
    fn what_is_printed_as_serving_is_true_only_where_every_door_answers_it() {
        let all = |version| answers([Ok(version); 5]);
        let line = |version: &str| {
            format!("x\nserving: r3 (1 service h/kaleem-operator/api:{version} 1f3a, 3 services h/kaleem-operator/api:o1 77aa)\n")
        };
        assert_eq!(of_serving(&line("o2"), &all("o2"), "o1"), None);
        assert_eq!(of_serving("nothing is said", &all("o2"), "o1"), None);
        let compose = "serving: kaleem has not released anything; the containers that Compose started are still running, unchanged";
        assert_eq!(of_serving(compose, &all("o1"), "o1"), None);
        for (why, text, answers) in [
            ("another version answers", line("o2"), all("o3")),
            ("the workers' version answers", line("o2"), all("o1")),
            ("one door is lost", line("o2"), answers([Ok("o2"), Err("answered 502"), Ok("o2"), Ok("o2"), Ok("o2")])),
            ("versions are mixed", line("o2"), answers([Ok("o2"), Ok("o1"), Ok("o2"), Ok("o2"), Ok("o2")])),
            ("nothing is claimed", "serving: nothing".to_owned(), all("o1")),
        ] {
            assert!(of_serving(&text, &answers, "o1").is_some(), "{why}");
        }
    }

    #[test]
    fn rows_of_a_plan_that_keep_are_read_and_others_are_not() {
        let text = "~ api      replace  x -> y\n= redis    keep     redis:7\n= mongo keep\n  = not a row\n- old stop\n";
        assert_eq!(kept(text), BTreeSet::from(["redis", "mongo"]));
    }

    #[test]
    fn a_service_has_changed_when_its_running_container_is_another_one() {
        let before = BTreeSet::from([container("api", "1", true), container("redis", "2", true), container("old", "3", false)]);
        let after = BTreeSet::from([container("api", "4", true), container("api", "1", false), container("redis", "2", true)]);
        assert_eq!(changed(&before, &after), BTreeSet::from(["api".to_owned()]));
        assert_eq!(orders_to_remove("help: docker rm -f p-redis p-old", &before), ["p-redis"]);
        assert_eq!(orders_to_remove("p-redis is well", &before), [] as [&str; 0]);
    }
}
