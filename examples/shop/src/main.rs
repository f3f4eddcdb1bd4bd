//! A small shop: an HTTP service and a worker in one static binary, which can be told to go wrong in many ways.
//!
//! It exists to be deployed: what a release engine promises about lost requests, slow starts and bad versions is
//! tried on this program. It never depends on kaleem.

mod say;
mod fault;
mod env;
mod metrics;
mod store;
mod stop;
mod check;
mod streams;
mod websocket;
mod routes;
mod api;
mod worker;

use std::process::ExitCode;

const USAGE: &str = "usage: shop api | shop worker | shop healthcheck | shop check URL | shop check worker";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let settings = match env::Settings::read() {
        Ok(settings) => settings,
        Err(reason) => {
            say::line(&format!("shop: {reason}"));
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say::line(&format!("shop: could not start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match words.as_slice() {
            ["api"] => stop::with_faults(&settings, api::run(settings.clone())).await,
            ["worker"] => stop::with_faults(&settings, worker::run(settings.clone())).await,
            ["healthcheck"] => check::http(&format!("http://127.0.0.1:{}/api/health", settings.port)).await,
            ["check", "worker"] => check::worker(&settings).await,
            ["check", url] => check::http(url).await,
            _ => {
                say::line(USAGE);
                ExitCode::from(2)
            }
        }
    });
    // A crash does not wait for what still runs.
    runtime.shutdown_background();
    code
}
