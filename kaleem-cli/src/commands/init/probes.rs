//! The probes in what `kaleem init` writes: those that were found as comments, since they need no lines; those that the file refined as it
//! did.

use std::collections::BTreeSet;

use kaleem_core::config::Project;
use kaleem_core::config::settings::ProbeOptions;
use kaleem_health::{Discovered, ProbeSettings, discover};

use super::{key, line};

pub(super) fn write(text: &mut String, project: &Project) {
    let found = discover(project);
    if found.is_empty() && project.settings.probes.is_empty() {
        return;
    }
    line(text, "");
    line(
        text,
        "# What `kaleem health` asks. It was found in the compose file and needs no lines here; they change how it is asked, or add",
    );
    line(text, "# to it. Passwords are named by `password-env`, `password-file` or `password-secret`, never written.");
    for one in &found {
        line(text, "");
        match project.settings.probes.get(&one.service).and_then(|probes| probes.get(&one.name)) {
            Some(options) => {
                line(text, &format!("# {}/{}{}.", one.service, one.name, at(one)));
                said(text, one.service.as_str(), &one.name, options);
            }
            None => {
                line(text, &format!("# {}/{}{}, by {}.", one.service, one.name, at(one), one.found));
                line(text, &format!("# [probes.{}.{}]", key(&one.service), quoted(&one.name)));
                if let Ok(settings) = &one.settings {
                    line(text, &format!("# {}", hint(settings)));
                }
            }
        }
    }
    let shown: BTreeSet<(&str, &str)> = found.iter().map(|one| (one.service.as_str(), one.name.as_str())).collect();
    for (service, probes) in &project.settings.probes {
        for (name, options) in probes.iter().filter(|(name, _)| !shown.contains(&(service.as_str(), name.as_str()))) {
            line(text, "");
            said(text, service.as_str(), name, options);
        }
    }
}

fn at(one: &Discovered) -> String {
    one.settings.as_ref().map_or_else(|_| String::new(), |settings| format!(" at {}", settings.place()))
}

/// What a person is likely to want beside what was found.
fn hint(settings: &ProbeSettings) -> &'static str {
    match settings {
        ProbeSettings::Redis(_) => "canary = true   # a key is written and read, to see whether writes are taken",
        ProbeSettings::Mongodb(_) => "canary = true   # a document is written by a majority and read",
        ProbeSettings::Rabbitmq(_) => "queues = {orders = {depth-warn = 1000, consumers = 1}}",
        ProbeSettings::Qdrant(_) => "collections = [\"docs\"]   # those that must be there",
        ProbeSettings::Http(_) => "latency-warn = \"500ms\"",
        ProbeSettings::Spa(_) => "root-id = \"root\"",
        ProbeSettings::Tcp(_) => "enabled = false",
        ProbeSettings::Disk(_) => "used-warn = 85",
        ProbeSettings::Certificate(_) => "port = 443",
        ProbeSettings::Container(_) => "restarts-warn = 3",
        ProbeSettings::Command(_) => "exit-code = 0",
    }
}

/// A table as it was said, without what was not.
fn said(text: &mut String, service: &str, name: &str, options: &ProbeOptions) {
    let Ok(toml::Value::Table(mut table)) = toml::Value::try_from(options) else { return };
    table.retain(|_, value| {
        !matches!(value, toml::Value::Table(inner) if inner.is_empty()) && !matches!(value, toml::Value::Array(list) if list.is_empty())
    });
    let nested = |inner: toml::Table, key: &str| toml::Table::from_iter([(key.to_owned(), toml::Value::Table(inner))]);
    let whole = nested(nested(nested(table, name), service), "probes");
    // A table of texts, numbers and tables of them always has a text.
    text.push_str(&toml::to_string(&whole).unwrap_or_default());
}

/// A name as a TOML key: dots part keys where they are not quoted.
fn quoted(name: &str) -> String {
    if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() }
}
