//! The gateway beside nginx and haproxy: the same job on the same machine, in turn, two threads each.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use kaleem_core::names::{GatewayName, ReleaseId};
use kaleem_core::traffic::{Admission, Generation, HoldLimits, Routing, SocketTraffic, Target, Traffic};

use super::median;
use crate::demo::{build_static_agent, static_agent};
use crate::fail::TaskError;
use crate::load;
use crate::place::{Place, create_directory, free_port, scratch, write};
use crate::programs::{Program, Started, wait_until};
use crate::say;
use crate::setup::{self, Consent, Need};

/// Connections of the load.
const CONNECTIONS: &str = "64";
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// Looks at the memory in the long run.
const LOOKS: u64 = 10;
const BODIES: [(&str, &str); 2] = [("tiny", "2 bytes"), ("large", "64 KiB")];
const LARGE: usize = 64 * 1024;

/// What one run of the load saw.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    per_second: f64,
    p99_ms: f64,
}

/// A proxy that runs.
struct Proxy {
    name: &'static str,
    address: SocketAddr,
    process: Started,
}

/// How long the benchmark is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length {
    /// Rounds; in each one every proxy has its turn.
    pub rounds: usize,
    /// Seconds of a turn.
    pub seconds: u64,
    /// Minutes of load on the gateway alone, while its memory is looked at.
    pub minutes: u64,
}

/// Runs it.
pub(crate) fn run(place: &Place, consent: Consent, length: Length) -> Result<(), TaskError> {
    let _parts = setup::run(place, consent, Need::Tests)?;
    say::step("building the gateway");
    build_static_agent(place)?;
    let directory = scratch()?;
    let path = directory.path();
    let behind = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    // One process: how the kernel deals connections out to several would be luck, and some proxies would have more of it than others.
    let _behind = nginx(place, path, "behind", 1, &served(path, behind)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| TaskError::Start { program: "an async runtime".to_owned(), source })?;
    let traffic = SocketTraffic::new(path);
    let proxies = [gateway(place, path, &traffic, behind, &runtime)?, by_nginx(place, path, behind)?, by_haproxy(place, path, behind)?];
    for proxy in &proxies {
        let answers = || BODIES.iter().all(|(body, _)| load::get(proxy.address, &format!("/{body}")).is_ok());
        if !wait_until(ANSWERS_WITHIN, answers) {
            return Err(TaskError::Unexpected { what: format!("{} does not answer on {}", proxy.name, proxy.address) });
        }
    }
    let mut table = vec![["body", "proxy", "requests/s", "p99 ms", "requests/s : nginx", "p99 : nginx"].map(str::to_owned).to_vec()];
    for (body, title) in BODIES {
        let mut seen: [Vec<Seen>; 3] = Default::default();
        for round in 0..length.rounds {
            say::step(&format!("{title}, round {} of {}", round + 1, length.rounds));
            // Nobody is always the first.
            for turn in 0..proxies.len() {
                let index = (turn + round) % proxies.len();
                if let (Some(proxy), Some(seen)) = (proxies.get(index), seen.get_mut(index)) {
                    seen.push(wrk(place, proxy, body, length.seconds)?);
                }
            }
        }
        let [_, nginx, _] = &seen;
        for (proxy, own) in proxies.iter().zip(&seen) {
            let ratio = |of: fn(&Seen) -> f64| median(&own.iter().zip(nginx).map(|(own, nginx)| of(own) / of(nginx)).collect::<Vec<_>>());
            let middle = |of: fn(&Seen) -> f64| median(&own.iter().map(of).collect::<Vec<_>>());
            table.push(vec![
                title.to_owned(),
                proxy.name.to_owned(),
                format!("{:.0}", middle(|seen| seen.per_second)),
                format!("{:.1}", middle(|seen| seen.p99_ms)),
                format!("{:.2}", ratio(|seen| seen.per_second)),
                format!("{:.2}", ratio(|seen| seen.p99_ms)),
            ]);
        }
    }
    say::table(&table);
    if length.minutes > 0 {
        let [gateway, ..] = &proxies;
        memory(place, gateway, length.minutes)?;
    }
    Ok(())
}

/// What is behind the proxies: both bodies, from memory and from the page cache.
fn served(path: &Path, address: SocketAddr) -> Result<String, TaskError> {
    let files = path.join("files");
    create_directory(&files)?;
    write(&files.join("large"), &"x".repeat(LARGE))?;
    Ok(format!("sendfile on; server {{ listen {address}; root {}; location = /tiny {{ return 200 ok; }} }}", files.display()))
}

fn nginx(place: &Place, path: &Path, name: &str, workers: usize, server: &str) -> Result<Started, TaskError> {
    let own = path.join(name);
    create_directory(&own)?;
    let file = own.join("nginx.conf");
    let temporary: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {}/{kind}; ", own.display())).concat();
    write(
        &file,
        &format!(
            "user root; worker_processes {workers}; daemon off; pid {own}/pid; error_log {own}/error.log;\nevents {{ worker_connections 1024; }}\n\
             http {{ access_log off; tcp_nodelay on; keepalive_requests 1000000000; {temporary}\n{server}\n}}\n",
            own = own.display()
        ),
    )?;
    Program::new(place, "nginx").arg("-c").arg(&file).start(&own.join("log"))
}

fn by_nginx(place: &Place, path: &Path, behind: SocketAddr) -> Result<Proxy, TaskError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    // As fast as it can be told to be: connections are kept, and a large body fits into its buffers. It sends the same fields.
    let server = format!(
        "upstream behind {{ server {behind}; keepalive 64; keepalive_requests 1000000000; }}\n\
         server {{ listen {address}; location / {{ proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ''; \
         proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
         proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $http_host; proxy_buffers 8 16k; \
         proxy_max_temp_file_size 0; }} }}"
    );
    Ok(Proxy { name: "nginx", address, process: nginx(place, path, "nginx", 2, &server)? })
}

fn by_haproxy(place: &Place, path: &Path, behind: SocketAddr) -> Result<Proxy, TaskError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let file = path.join("haproxy.cfg");
    write(
        &file,
        &format!(
            "global\n  nbthread 2\n  maxconn 1024\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  \
             option http-keep-alive\n  option forwardfor\n  http-reuse always\nfrontend f\n  bind {address}\n  \
             http-request set-header X-Forwarded-Proto http\n  http-request set-header X-Forwarded-Host %[req.hdr(host)]\n  \
             default_backend b\nbackend b\n  server s {behind}\n"
        ),
    )?;
    let process = Program::new(place, "haproxy").arg("-db").arg("-f").arg(&file).start(&path.join("haproxy.log"))?;
    Ok(Proxy { name: "haproxy", address, process })
}

fn gateway(
    place: &Place,
    path: &Path,
    traffic: &SocketTraffic,
    behind: SocketAddr,
    runtime: &tokio::runtime::Runtime,
) -> Result<Proxy, TaskError> {
    let wrong = |what: String| TaskError::Unexpected { what };
    let name: GatewayName = "bench".parse().map_err(|error| wrong(format!("{error}")))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let directory = traffic.directory(&name);
    create_directory(&directory)?;
    let process = Program::new(place, static_agent(place))
        .args(["gateway", "--threads", "2", "--listen", &format!("{address}/http"), "--directory"])
        .arg(&directory)
        .start(&path.join("gateway.log"))?;
    let routing = Routing {
        generation: Generation::new(1),
        admission: Admission::Serve,
        hold: HoldLimits { requests: 100, time: Duration::from_secs(5), release_per_second: 1000 },
        stickiness: None,
        targets: vec![Target {
            instance: "behind".parse().map_err(|error| wrong(format!("{error}")))?,
            release: ReleaseId::new(1),
            host: "127.0.0.1".parse().map_err(|error| wrong(format!("{error}")))?,
            ports: [(address.port(), behind.port())].into(),
            weight: 1,
        }],
    };
    let steered = wait_until(ANSWERS_WITHIN, || runtime.block_on(traffic.steer(&name, &routing)).is_ok());
    if !steered {
        let log = path.join("gateway.log");
        return Err(TaskError::Silent { what: "the gateway".to_owned(), seconds: ANSWERS_WITHIN.as_secs(), log });
    }
    Ok(Proxy { name: "kaleem-agent gateway", address, process })
}

fn wrk(place: &Place, proxy: &Proxy, body: &str, seconds: u64) -> Result<Seen, TaskError> {
    let text = Program::new(place, "wrk")
        .args(["-t2", "-c", CONNECTIONS, "--latency", "-d", &format!("{seconds}s"), &format!("http://{}/{body}", proxy.address)])
        .output()?;
    read(&text).map_err(|what| TaskError::Unexpected { what: format!("{}: {what}:\n{text}", proxy.name) })
}

/// What `wrk` prints; anything but right answers is an error.
fn read(text: &str) -> Result<Seen, String> {
    if let Some(line) = text.lines().find(|line| line.contains("Socket errors") || line.contains("Non-2xx")) {
        return Err(line.trim().to_owned());
    }
    let value = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let per_second = value("Requests/sec:").and_then(|text| text.parse().ok()).ok_or("no number of requests")?;
    let p99 = value("99%").ok_or("no percentile")?;
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)];
    let p99_ms = units.iter().find_map(|(unit, factor)| Some(p99.strip_suffix(unit)?.parse::<f64>().ok()? * factor));
    Ok(Seen { per_second, p99_ms: p99_ms.ok_or("a percentile in a unit that is not known")? })
}

/// Loads the gateway for long and looks at what it keeps.
fn memory(place: &Place, gateway: &Proxy, minutes: u64) -> Result<(), TaskError> {
    say::step(&format!("memory over {minutes} min of load, both bodies in turn"));
    let mut table = vec![["after", "supervisor and worker, MiB"].map(str::to_owned).to_vec()];
    for look in 0..=LOOKS {
        if look > 0 {
            let (body, _) = if look % 2 == 0 { BODIES[0] } else { BODIES[1] };
            wrk(place, gateway, body, (minutes * 60 / LOOKS).max(1))?;
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let mebibytes = resident_kilobytes(place, gateway.process.id())? as f64 / 1024.0;
        table.push(vec![format!("{} s", look * (minutes * 60 / LOOKS).max(1)), format!("{mebibytes:.1}")]);
    }
    say::table(&table);
    Ok(())
}

/// Of a process and its children. Pages that both map, as the program's own, count once (`Pss`).
fn resident_kilobytes(place: &Place, id: u32) -> Result<u64, TaskError> {
    let children = Program::new(place, "ps").args(["-o", "pid=", "--ppid", &id.to_string()]).output()?;
    let mut sum = 0;
    for id in children.split_whitespace().chain([id.to_string().as_str()]) {
        let path = std::path::PathBuf::from(format!("/proc/{id}/smaps_rollup"));
        let text = std::fs::read_to_string(&path).map_err(|source| TaskError::File { operation: "read", path: path.clone(), source })?;
        let pss = text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        sum += pss.ok_or_else(|| TaskError::Unexpected { what: format!("{} has no Pss", path.display()) })?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_read_and_errors_are_not_taken_for_speed() {
        let text = "Running 1s test @ http://127.0.0.1:1/tiny\n  Latency Distribution\n     50%    1.20ms\n     99%  850.00us\n  10 requests in 1.00s\n\
                    Requests/sec:  12345.67\nTransfer/sec: 1MB\n";
        assert_eq!(read(text), Ok(Seen { per_second: 12345.67, p99_ms: 0.85 }));
        assert_eq!(read(&text.replace("850.00us", "1.50s")).map(|seen| seen.p99_ms), Ok(1500.0));
        for error in ["  Non-2xx or 3xx responses: 5", "  Socket errors: connect 0, read 1, write 0, timeout 0"] {
            assert!(read(&format!("{error}\n{text}")).is_err());
        }
        assert!(read("").is_err());
    }
}
