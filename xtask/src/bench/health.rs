//! What watching costs: a thousand probes every ten seconds, and one round of ten services beside the commands that it replaces.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use serde_json::Value;

use super::median;
use crate::fail::TaskError;
use crate::place::{Place, create_directory, free_port, scratch, write};
use crate::programs::{Program, wait_until};
use crate::say;
use crate::setup::{self, Consent, Need};

/// Probes of the long part; half of them ask Redis, half an HTTP server.
const PROBES: usize = 1000;
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// Rounds of the commands that probes replace.
const ROUNDS: usize = 20;
/// What watching may cost at most: percent of one core, MiB, and milliseconds of a round of ten.
const MOST: (f64, f64, f64) = (5.0, 40.0, 100.0);

/// Measures for so many seconds.
pub(crate) fn run(place: &Place, consent: Consent, seconds: u64) -> Result<(), TaskError> {
    let _parts = setup::run(place, consent, Need::Tests)?;
    say::step("building the monitor");
    Program::new(place, place.cargo()).args(["build", "--quiet", "--release", "--package", "monitor"]).run()?;
    let program = place.target.join("release/monitor");
    let directory = scratch()?;
    let path = directory.path();
    let (redis, web) = (SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)), SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)));
    let options = ["--bind", "127.0.0.1", "--save", "", "--port"];
    let _redis = Program::new(place, "redis-server").args(options).arg(redis.port().to_string()).start(&path.join("redis.log"))?;
    let own = path.join("web");
    create_directory(&own)?;
    let mut text = format!(
        "worker_processes 1; daemon off; pid {0}/pid; error_log {0}/error.log;\nevents {{ worker_connections 1024; }}\n",
        own.display()
    );
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {}/{kind}; ", own.display())).concat();
    // Writing to a string cannot fail.
    writeln!(text, "http {{ access_log off; {temporary} server {{ listen {web}; location / {{ default_type application/json; return 200 '{{\"status\":\"ok\"}}'; }} }} }}").ok();
    write(&own.join("nginx.conf"), &text)?;
    let _web = Program::new(place, "nginx").arg("-c").arg(own.join("nginx.conf")).start(&own.join("log"))?;
    for address in [redis, web] {
        if !wait_until(ANSWERS_WITHIN, || std::net::TcpStream::connect(address).is_ok()) {
            return Err(TaskError::Silent { what: address.to_string(), seconds: ANSWERS_WITHIN.as_secs(), log: path.join("redis.log") });
        }
    }

    say::step(&format!("{PROBES} probes every 10 s, for {seconds} s"));
    let half = PROBES / 2;
    let arguments = [seconds.to_string(), format!("{half}xredis://{redis}"), format!("{half}xhttp://{web}/health")];
    let log = path.join("monitor.log");
    let (watched, peak_bytes) = measured(Program::new(place, &program).args(arguments), &log)?;
    // Ten services: five of each, in turn, as a project has them.
    let ten: Vec<String> = (0..5).flat_map(|_| [format!("redis://{redis}"), format!("http://{web}/health")]).collect();
    let (round, _) = measured(Program::new(place, &program).arg("1").args(ten), &path.join("round.log"))?;
    let commands = by_commands(place, redis, web)?;

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let mebibytes = peak_bytes as f64 / 1024.0 / 1024.0;
    let core = watched.get("core_percent").and_then(Value::as_f64).unwrap_or(f64::INFINITY);
    let rounds: Vec<f64> = round.get("rounds_ms").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_f64).collect();
    let (ours, theirs) = (median(&rounds), median(&commands));
    let row = |cells: [String; 4]| cells.to_vec();
    say::table(&[
        row(["what", "measured", "limit", "ratio to the commands"].map(str::to_owned)),
        row([format!("{PROBES} probes every 10 s: one core"), format!("{core:.1} %"), format!("{} %", MOST.0), String::new()]),
        row([format!("{PROBES} probes: peak memory"), format!("{mebibytes:.1} MiB"), format!("{} MiB", MOST.1), String::new()]),
        row(["a round of 10 services".to_owned(), format!("{ours:.1} ms"), format!("{} ms", MOST.2), format!("{:.3}", ours / theirs)]),
        row(["redis-cli ping and curl -f, one after the other".to_owned(), format!("{theirs:.1} ms"), String::new(), "1".to_owned()]),
    ]);
    say::line(&format!("{} runs in {seconds} s, all well", watched.get("runs").and_then(Value::as_u64).unwrap_or(0)));
    if core > MOST.0 || mebibytes > MOST.1 || ours > MOST.2 {
        return Err(TaskError::Unexpected { what: "watching costs more than it may".to_owned() });
    }
    Ok(())
}

/// Runs the monitor, and gives its last line and its peak memory in bytes. What it says of runs that were not well is an error.
fn measured(program: Program, log: &std::path::Path) -> Result<(Value, u64), TaskError> {
    let (output, peak_bytes) = program.measure_output()?;
    write(log, &output)?;
    let said: Value = output.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    match said.get("not_ok").and_then(Value::as_u64) {
        Some(0) => Ok((said, peak_bytes)),
        _ => Err(TaskError::Unexpected { what: format!("probes of servers that are well found something: {output}") }),
    }
}

/// Milliseconds that a script takes for the same ten services.
fn by_commands(place: &Place, redis: SocketAddr, web: SocketAddr) -> Result<Vec<f64>, TaskError> {
    let port = redis.port().to_string();
    let url = format!("http://{web}/health");
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let begun = SystemClock.monotonic();
        for _ in 0..5 {
            Program::new(place, "redis-cli").args(["-h", "127.0.0.1", "-p", &port, "ping"]).quiet().run()?;
            Program::new(place, "curl").args(["-fsS", "-o", "/dev/null", &url]).quiet().run()?;
        }
        rounds.push(SystemClock.monotonic().saturating_sub(begun).as_secs_f64() * 1000.0);
    }
    Ok(rounds)
}
