//! Health checks from inside the container: an image from scratch has no curl.

use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::env::Settings;
use crate::say;
use crate::store::Redis;

const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// Exits with 0 when `http://HOST:PORT/PATH` answers with a status below 400.
pub(crate) async fn http(url: &str) -> ExitCode {
    let outcome = match tokio::time::timeout(ANSWER_WITHIN, status(url)).await {
        Ok(Ok(status)) if status < 400 => return ExitCode::SUCCESS,
        Ok(Ok(status)) => format!("answered {status}"),
        Ok(Err(reason)) => reason,
        Err(_) => format!("no answer within {ANSWER_WITHIN:?}"),
    };
    say::line(&format!("{url}: {outcome}"));
    ExitCode::FAILURE
}

/// Exits with 0 when the worker of this container was alive a moment ago.
pub(crate) async fn worker(settings: &Settings) -> ExitCode {
    let alive = async {
        let url = settings.redis_url.as_deref().ok_or("REDIS_URL is not set")?;
        Redis::new(url)?.is_alive(&settings.host).await
    };
    match alive.await {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => say::line("no sign of life from the worker in the last 10 s"),
        Err(reason) => say::line(&reason),
    }
    ExitCode::FAILURE
}

async fn status(url: &str) -> Result<u16, String> {
    let rest = url.strip_prefix("http://").ok_or("only http:// can be asked")?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = TcpStream::connect(&address).await.map_err(|error| error.to_string())?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut head = [0_u8; 12];
    stream.read_exact(&mut head).await.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&head);
    text.strip_prefix("HTTP/1.1 ").and_then(|status| status.parse().ok()).ok_or_else(|| "the answer is not HTTP".to_owned())
}
