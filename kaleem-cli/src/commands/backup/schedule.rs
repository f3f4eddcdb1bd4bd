//! `kaleem backup schedule`: the lines with which a host makes backups by itself. Nothing is installed.

use std::collections::BTreeSet;

use kaleem_core::config::Project;
use kaleem_core::durable;
use serde_json::json;

use crate::arguments::backup::Schedule;
use crate::exit::Exit;
use crate::render::Printer;
use crate::wiring::Wiring;

/// Variables that change what kaleem and Docker do, wherever they are set.
const ALWAYS: &[&str] =
    &["COMPOSE_ENV_FILES", "COMPOSE_FILE", "COMPOSE_PROFILES", "DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_HOST", "KALEEM_BACKUP_KEY_FILE"];

/// Prints a systemd service and timer, and a line for cron.
pub(super) fn run(arguments: &Schedule, project: &Project, wiring: &Wiring, printer: &Printer) -> Exit {
    let environment = wiring.environment();
    let program = environment.executable.as_ref().map_or_else(|| "/usr/local/bin/kaleem".to_owned(), |path| path.display().to_string());
    let state = wiring.state_base().display().to_string();
    let files = project.files.iter().flat_map(|file| ["-f".to_owned(), file.display().to_string()]);
    let rest = ["-p".to_owned(), project.name.to_string(), "--state-dir".to_owned(), state];
    let words: Vec<String> = std::iter::once(program).chain(files).chain(rest).collect();
    let line = |quoted: fn(&str) -> String| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    let (command, of_unit, of_cron) = (line(of_shell), line(of_unit), line(of_cron));
    let needed = variables(project);
    let set: Vec<&String> = needed.iter().filter(|name| environment.variables().contains_key(*name)).collect();
    let file = format!("/etc/kaleem/{}.env", project.name);
    let at = arguments.at;
    let unit = format!("kaleem-backup-{}", project.name);
    let directory = project.directory.display().to_string();
    let (given, sourced, head) = if set.is_empty() {
        (String::new(), String::new(), String::new())
    } else {
        let names = set.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
        let head = format!(
            "\
# The project is read with variables that are set in this shell and not in one that systemd or cron starts: {names}
# Write them to {file}, readable by root alone:
#   mkdir -p /etc/kaleem && (umask 077; for v in {names}; do printf \"%s='%s'\\n\" \"$v\" \"$(printenv \"$v\")\"; done > {file})

"
        );
        (format!("EnvironmentFile={file}\n"), format!("set -a && . {file} && "), head)
    };
    let text = format!(
        "\
{head}# /etc/systemd/system/{unit}.service
[Unit]
Description=Backup of {name}
Wants=docker.service
After=docker.service network-online.target

[Service]
Type=oneshot
WorkingDirectory={working_directory}
{given}ExecStart={of_unit} backup create
ExecStartPost={of_unit} backup prune

# /etc/systemd/system/{unit}.timer
[Unit]
Description=Backup of {name}, every day

[Timer]
OnCalendar=*-*-* {hour:02}:{minute:02}:00
RandomizedDelaySec=5m
Persistent=true

[Install]
WantedBy=timers.target

# then: systemctl daemon-reload && systemctl enable --now {unit}.timer

# or, for cron (crontab -e):
{minute} {hour} * * * {sourced}cd {cd} && {of_cron} backup create -q && {of_cron} backup prune -q
",
        name = project.name,
        working_directory = directory.replace('%', "%%"),
        cd = self::of_cron(&directory),
        hour = at.hour,
        minute = at.minute,
    );
    printer.result(text.trim_end());
    printer.json(&json!({
        "type": "backup-schedule",
        "text": text,
        "command": command,
        "at": format!("{:02}:{:02}", at.hour, at.minute),
        "variables": set,
    }));
    Exit::Done
}

/// Names of the variables with which the project and its backups are read, whether they are set or not.
fn variables(project: &Project) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ALWAYS.iter().map(|name| (*name).to_owned()).collect();
    for file in &project.files {
        // A file that went away since it was read names none.
        let text = durable::read(file).unwrap_or_default();
        names.extend(referenced(&String::from_utf8_lossy(&text)));
    }
    let backup = &project.settings.backup;
    names.extend(backup.passphrase_env.clone());
    for vault in backup.vaults.values() {
        names.extend(vault.variables.iter().cloned());
        names.extend([&vault.restic_env, &vault.access_key_env, &vault.secret_key_env].into_iter().flatten().cloned());
        if vault.bucket.is_some() {
            names.extend(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(str::to_owned));
        }
    }
    for source in backup.sources.values() {
        names.extend(source.variables.iter().cloned());
        names.extend([&source.url_env, &source.api_key_env].into_iter().flatten().cloned());
    }
    names
}

/// Names after a `$` in a compose file; `$$` is a dollar sign.
fn referenced(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('$') {
        if let Some(after) = after.strip_prefix('$') {
            rest = after;
            continue;
        }
        let start = after.strip_prefix('{').unwrap_or(after);
        let end = start.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(start.len());
        let (name, after) = start.split_at(end);
        if name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
            names.insert(name.to_owned());
        }
        rest = after;
    }
    names
}

fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | ':' | '+' | '=');
    !text.is_empty() && text.chars().all(plain)
}

/// One word of a shell.
fn of_shell(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// One word of a shell in a crontab, where `%` ends the line.
fn of_cron(text: &str) -> String {
    of_shell(text).replace('%', "\\%")
}

/// One word of a unit of systemd, where `%` and `$` mean something.
fn of_unit(text: &str) -> String {
    let text = text.replace('%', "%%").replace('$', "$$");
    if is_plain(&text) { text } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_program_that_reads_them() {
        for (text, shell, cron, unit) in [
            ("/srv/shop", "/srv/shop", "/srv/shop", "/srv/shop"),
            ("/srv/my shop", "'/srv/my shop'", "'/srv/my shop'", "\"/srv/my shop\""),
            ("/srv/50%", "'/srv/50%'", "'/srv/50\\%'", "\"/srv/50%%\""),
            ("/srv/$HOME", "'/srv/$HOME'", "'/srv/$HOME'", "\"/srv/$$HOME\""),
            ("it's \"x\"", "'it'\\''s \"x\"'", "'it'\\''s \"x\"'", "\"it's \\\"x\\\"\""),
        ] {
            assert_eq!((of_shell(text).as_str(), of_cron(text).as_str(), of_unit(text).as_str()), (shell, cron, unit), "{text}");
        }
    }

    #[test]
    fn the_variables_of_a_compose_file_are_those_after_one_dollar_sign() {
        let text = "image: ${API_IMAGE:-x:1}\ncommand: echo $$HOME $TAG ${A:?no ${B}} $1 ${}";
        assert_eq!(referenced(text).into_iter().collect::<Vec<_>>(), ["A", "API_IMAGE", "B", "TAG"]);
    }
}
