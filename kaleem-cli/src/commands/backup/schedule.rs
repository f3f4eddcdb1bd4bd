//! `kaleem backup schedule`: the lines with which a host makes backups by itself. Nothing is installed.

use kaleem_core::config::Project;
use serde_json::json;

use crate::arguments::backup::Schedule;
use crate::exit::Exit;
use crate::render::Printer;
use crate::wiring::Wiring;

/// Prints a systemd service and timer, and a line for cron.
pub(super) fn run(arguments: &Schedule, project: &Project, wiring: &Wiring, printer: &Printer) -> Exit {
    let environment = wiring.environment();
    let program = environment.executable.as_ref().map_or_else(|| "/usr/local/bin/kaleem".to_owned(), |path| path.display().to_string());
    let files: String = project.files.iter().map(|file| format!(" -f {}", quoted(&file.display().to_string()))).collect();
    let state = wiring.state_base().display().to_string();
    let command = format!("{}{files} -p {} --state-dir {}", quoted(&program), project.name, quoted(&state));
    let at = arguments.at;
    let unit = format!("kaleem-backup-{}", project.name);
    let text = format!(
        "\
# /etc/systemd/system/{unit}.service
[Unit]
Description=Backup of {name}
Wants=docker.service
After=docker.service network-online.target

[Service]
Type=oneshot
WorkingDirectory={directory}
ExecStart={command} backup create
ExecStartPost={command} backup prune

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
{minute} {hour} * * * cd {cd} && {command} backup create -q && {command} backup prune -q
",
        name = project.name,
        directory = project.directory.display(),
        cd = quoted(&project.directory.display().to_string()),
        hour = at.hour,
        minute = at.minute,
    );
    printer.result(text.trim_end());
    printer.json(&json!({ "type": "backup-schedule", "text": text, "command": command, "at": format!("{:02}:{:02}", at.hour, at.minute) }));
    Exit::Done
}

/// As a shell and systemd both read it as one word.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | ':' | '+' | '=');
    if text.chars().all(plain) { text.to_owned() } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
}
