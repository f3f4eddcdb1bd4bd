//! One JSON object for each request, on standard output. A reader that is slow loses lines; it never slows a request down.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use http::{Method, StatusCode, Uri};
use kaleem_core::clock::{Clock, SystemClock};
use serde::Serialize;

use super::GatewayError;
use super::crowd::Client;
use super::target::{Target, now};

/// Lines that wait to be written at most.
const WAITING: usize = 8192;

/// What is known of one request.
#[derive(Debug)]
pub(crate) struct Entry {
    line: Line,
    began: Duration,
}

#[derive(Debug, Serialize)]
struct Line {
    time: String,
    client: String,
    method: String,
    path: String,
    status: u16,
    bytes: u64,
    /// Milliseconds until the answer began, and until it was whole.
    first_byte_ms: f64,
    total_ms: f64,
    instance: Option<String>,
    release: Option<String>,
    retries: u32,
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl Entry {
    /// The beginning of a request. The query is left out: it may hold secrets.
    pub(crate) fn begin(client: &Client, method: &Method, uri: &Uri, began: Duration) -> Self {
        let line = Line {
            time: SystemClock.now().to_string(),
            client: client.peer.ip().to_string(),
            method: method.to_string(),
            path: uri.path().to_owned(),
            status: 0,
            bytes: 0,
            first_byte_ms: 0.0,
            total_ms: 0.0,
            instance: None,
            release: None,
            retries: 0,
        };
        Self { line, began }
    }

    /// The beginning of its answer.
    pub(crate) fn answered(&mut self, status: StatusCode, target: Option<&Target>, retries: u32) {
        self.line.status = status.as_u16();
        self.line.first_byte_ms = milliseconds(now().saturating_sub(self.began));
        self.line.instance = target.map(|target| target.instance.to_string());
        self.line.release = target.map(|target| target.release.to_string());
        self.line.retries = retries;
    }

    /// Bytes of the answer that went out.
    pub(crate) fn add_bytes(&mut self, count: usize) {
        self.line.bytes += count as u64;
    }
}

/// Where entries go.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    lines: SyncSender<Vec<u8>>,
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Starts the thread that writes.
    ///
    /// # Errors
    ///
    /// [`GatewayError::Start`].
    pub(crate) fn start() -> Result<Self, GatewayError> {
        let (lines, receiver) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let seen = lost.clone();
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_out(&receiver, &seen))
            .map_err(|source| GatewayError::Start { what: "the access log", source })?;
        Ok(Self { lines, lost })
    }

    /// Writes an entry, whose answer is over.
    pub(crate) fn write(&self, mut entry: Entry) {
        entry.line.total_ms = milliseconds(now().saturating_sub(entry.began));
        let Ok(mut text) = serde_json::to_vec(&entry.line) else { return };
        text.push(b'\n');
        if self.lines.try_send(text).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_out(lines: &Receiver<Vec<u8>>, lost: &AtomicU64) {
    let mut out = std::io::stdout().lock();
    let mut block = Vec::new();
    while let Ok(line) = lines.recv() {
        block.clear();
        block.extend_from_slice(&line);
        // What came in meanwhile goes out in the same write.
        while let Ok(line) = lines.try_recv() {
            block.extend_from_slice(&line);
            if block.len() > 65_536 {
                break;
            }
        }
        let gone = lost.swap(0, Ordering::Relaxed);
        if gone > 0 {
            block.extend_from_slice(format!("{{\"lost_lines\":{gone}}}\n").as_bytes());
        }
        if out.write_all(&block).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
