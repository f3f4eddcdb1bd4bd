//! Debian packages: which, what for, and how they are installed.

use std::io::Write;
use std::path::Path;

use crate::fail::TaskError;
use crate::place::Place;
use crate::programs::Program;
use crate::say;
use crate::setup::{Consent, Need};

/// A package, told to be there by a program that it brings.
pub(crate) struct Package {
    name: &'static str,
    program: &'static str,
    need: Need,
    why: &'static str,
}

const PACKAGES: [Package; 18] = [
    Package { name: "curl", program: "curl", need: Need::Tests, why: "what people ask a service with" },
    Package { name: "procps", program: "pgrep", need: Need::Tests, why: "finds what a program that is killed has started" },
    Package { name: "iproute2", program: "ip", need: Need::Tests, why: "a network bridge for an engine of a test's own" },
    Package { name: "docker.io", program: "dockerd", need: Need::Demo, why: "the engine that everything is deployed to" },
    Package { name: "docker-compose", program: "docker-compose", need: Need::Tests, why: "what kaleem is measured against" },
    Package { name: "docker-registry", program: "docker-registry", need: Need::Demo, why: "a registry on 127.0.0.1 to pull from" },
    Package { name: "apache2-utils", program: "htpasswd", need: Need::Tests, why: "passwords of a registry that asks for one" },
    Package { name: "debootstrap", program: "debootstrap", need: Need::Demo, why: "a base image without a registry" },
    Package { name: "musl-tools", program: "musl-gcc", need: Need::Demo, why: "C parts of static binaries" },
    Package { name: "redis-server", program: "redis-server", need: Need::Tests, why: "a real Redis for tests" },
    Package { name: "age", program: "age", need: Need::Tests, why: "recovers a backup set without kaleem" },
    Package { name: "zstd", program: "zstd", need: Need::Tests, why: "recovers a backup set without kaleem" },
    Package {
        name: "restic",
        program: "restic",
        need: Need::Tests,
        why: "the other engine for backups, and what ours is measured against",
    },
    Package {
        name: "virtualenv",
        program: "virtualenv",
        need: Need::Tests,
        why: "directories for the servers that speak as MongoDB and as S3",
    },
    Package { name: "nginx-light", program: "nginx", need: Need::Tests, why: "the proxy that stands in front of most projects" },
    Package { name: "haproxy", program: "haproxy", need: Need::Tests, why: "the other proxy that stands in front of projects" },
    Package { name: "rabbitmq-server", program: "rabbitmqctl", need: Need::Tests, why: "a real RabbitMQ for tests of health and backups" },
    Package { name: "wrk", program: "wrk", need: Need::Tests, why: "load for proxies that are measured" },
];

/// What is not installed of that which `need` takes.
pub(crate) fn missing(place: &Place, need: Need) -> Vec<&'static Package> {
    PACKAGES.iter().filter(|package| package.need <= need && place.program(package.program).is_none()).collect()
}

/// Installs `missing`, when that is allowed and possible.
pub(crate) fn install(place: &Place, consent: Consent, missing: &[&Package]) -> Result<(), TaskError> {
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    say::line("missing:");
    for package in missing {
        say::line(&format!("  {:<16} {}", package.name, package.why));
    }
    let command = format!("apt-get install --yes --no-install-recommends {}", names.join(" "));
    let refuse = |install: String| Err(TaskError::Missing { what: names.join(", "), install });
    if !Path::new("/etc/debian_version").exists() || place.program("apt-get").is_none() {
        return refuse(format!("this is not Debian: install what brings the programs {}", programs(missing)));
    }
    if !rustix::process::geteuid().is_root() {
        return refuse(format!("run as root: `{command}`"));
    }
    // Where nobody can answer, the task itself was the wish; what is installed has just been said.
    if consent == Consent::Ask && place.interactive && !place.ci && !agrees(&command) {
        return refuse(format!("run the task again and agree, or `{command}`"));
    }
    say::step(&command);
    let apt = || {
        // None of these is to run as a service of the machine; tests start their own. Run level 1 keeps packages from starting any.
        let apt = Program::new(place, "apt-get").env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        apt.args(["install", "--yes", "--no-install-recommends"]).args(&names)
    };
    if apt().succeeds() {
        return Ok(());
    }
    // A new machine has no package lists yet, or old ones. A source that we do not need may fail.
    Program::new(place, "apt-get").arg("update").succeeds();
    apt().run_silently()
}

fn programs(missing: &[&Package]) -> String {
    missing.iter().map(|package| package.program).collect::<Vec<_>>().join(", ")
}

fn agrees(command: &str) -> bool {
    say::line(&format!("run `{command}`? [y/N]"));
    // A prompt that cannot be shown or answered counts as no.
    std::io::stdout().flush().ok();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok_and(|_| matches!(answer.trim(), "y" | "Y" | "yes"))
}
