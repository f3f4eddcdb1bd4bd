//! What watching costs: a thousand probes every ten seconds, and one round of ten services beside the commands that it replaces.
//!
//! Processor time is the monitor's own, as the kernel counts it: other work on the machine does not count.

mod servers;

use std::net::SocketAddr;

use kaleem_core::clock::{Clock, SystemClock};
use serde_json::Value;

use super::median;
use crate::fail::TaskError;
use crate::place::{Place, scratch, write};
use crate::programs::Program;
use crate::say;
use crate::setup::{self, Consent, Need};
use servers::Servers;

/// Probes of the long part: most ask Redis or HTTP, as in real projects; a twentieth each a broker, MongoDB and Qdrant.
const PROBES: usize = 1000;
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
    say::step("starting Redis, nginx, RabbitMQ and a server that speaks as MongoDB");
    let servers = Servers::start(place, path)?;
    let redis = format!("redis://{}", servers.redis);
    let web = format!("http://{}/health", servers.web);
    let broker = format!("amqp://guest:guest@{}/%2F", servers.broker);
    let mongo = format!("mongodb://{}/", servers.mongo);
    let qdrant = format!("qdrant+http://{}", servers.web);
    let port = servers.redis.to_string();

    say::step(&format!("{PROBES} probes every 10 s, for {seconds} s"));
    let shares = [(&redis, 8), (&web, 8), (&port, 2), (&broker, 1), (&qdrant, 1)];
    let many = shares.map(|(address, twentieths)| format!("{}x{address}", PROBES / 20 * twentieths));
    let arguments = std::iter::once(seconds.to_string()).chain(many);
    let (watched, peak_bytes) = measured(Program::new(place, &program).args(arguments), &path.join("monitor.log"))?;

    say::step("rounds of ten services, all at once");
    let mixed = [&redis, &redis, &web, &web, &web, &broker, &mongo, &qdrant, &port, &port];
    let (mixed, _) = measured(Program::new(place, &program).arg("2").args(mixed), &path.join("mixed.log"))?;
    // The same that the commands are asked: five of each.
    let ten: Vec<&String> = (0..5).flat_map(|_| [&redis, &web]).collect();
    let (round, _) = measured(Program::new(place, &program).arg("2").args(ten), &path.join("round.log"))?;
    let commands = by_commands(place, servers.redis, &web)?;

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let mebibytes = peak_bytes as f64 / 1024.0 / 1024.0;
    let core = watched.get("core_percent").and_then(Value::as_f64).unwrap_or(f64::INFINITY);
    let (of_kinds, ours, theirs) = (median(&rounds(&mixed)), median(&rounds(&round)), median(&commands));
    let row = |cells: [String; 4]| cells.to_vec();
    let limit = || format!("{} ms", MOST.2);
    say::table(&[
        row(["what", "measured", "limit", "ratio to the commands"].map(str::to_owned)),
        row([format!("{PROBES} probes every 10 s: one core"), format!("{core:.1} %"), format!("{} %", MOST.0), String::new()]),
        row([format!("{PROBES} probes: peak memory"), format!("{mebibytes:.1} MiB"), format!("{} MiB", MOST.1), String::new()]),
        row(["a round of 10 services, all kinds".to_owned(), format!("{of_kinds:.1} ms"), limit(), String::new()]),
        row(["a round of 5 Redis and 5 HTTP".to_owned(), format!("{ours:.1} ms"), limit(), format!("{:.3}", ours / theirs)]),
        row(["redis-cli ping and curl -f, one after the other".to_owned(), format!("{theirs:.1} ms"), String::new(), "1".to_owned()]),
    ]);
    say::line(&format!("{} runs in {seconds} s, all well", watched.get("runs").and_then(Value::as_u64).unwrap_or(0)));
    if core > MOST.0 || mebibytes > MOST.1 || ours > MOST.2 || of_kinds > MOST.2 {
        return Err(TaskError::Unexpected { what: "watching costs more than it may".to_owned() });
    }
    Ok(())
}

fn rounds(said: &Value) -> Vec<f64> {
    said.get("rounds_ms").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_f64).collect()
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
fn by_commands(place: &Place, redis: SocketAddr, url: &str) -> Result<Vec<f64>, TaskError> {
    let port = redis.port().to_string();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let begun = SystemClock.monotonic();
        for _ in 0..5 {
            Program::new(place, "redis-cli").args(["-h", "127.0.0.1", "-p", &port, "ping"]).quiet().run()?;
            Program::new(place, "curl").args(["-fsS", "-o", "/dev/null", url]).quiet().run()?;
        }
        rounds.push(SystemClock.monotonic().saturating_sub(begun).as_secs_f64() * 1000.0);
    }
    Ok(rounds)
}
