//! Streams that do not end by themselves: they may be ended in order, and are begun anew then.

use std::time::Duration;

use super::{Client, PATIENCE};
use crate::gauntlet::wire::{Head, Miss, Wire};

/// Time between two events.
const EVENT_EVERY: u64 = 100;
/// Silence on a stream of events that means it is dead.
const SILENCE: Duration = Duration::from_secs(10);
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// Answers a close with 1001, masked with zeros.
const CLOSE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

/// How a conversation goes on.
enum Heard {
    Echo,
    GoingAway,
}

impl Client {
    /// Listens to one stream of events until it ends.
    pub(super) async fn events(&mut self) {
        let begun = self.shared.begin();
        let outcome = self.listen().await;
        if let Ok((_, true)) = outcome {
            self.shared.tally(|tally| tally.goodbyes += 1);
        }
        self.over(begun, &outcome.map(|(head, _)| Some(head)), None);
    }

    async fn listen(&self) -> Result<(Head, bool), Miss> {
        let mut wire = Wire::connect(self.address).await?;
        let request = format!("GET /events?ms={EVENT_EVERY} HTTP/1.1\r\nAccept: text/event-stream\r\n{}\r\n", self.host());
        wire.send(request.as_bytes()).await?;
        let head = wire.reader.head().await?;
        if head.status != 200 {
            return Err(Miss { reason: format!("answered {}", head.status), began: true });
        }
        let mut text = String::new();
        let mut next = 0_u64;
        let mut ended = false;
        loop {
            let size = tokio::select! {
                size = tokio::time::timeout(SILENCE, wire.reader.chunk_size()) => match size {
                    Ok(size) => size?,
                    Err(_) => return Err(Miss { reason: format!("no event within {SILENCE:?}"), began: true }),
                },
                () = self.shared.stopped() => break,
            };
            let Some(size) = size else {
                ended = true;
                break;
            };
            let mut chunk = vec![0; usize::try_from(size).unwrap_or(0)];
            wire.reader.exactly(&mut chunk).await?;
            wire.reader.line(true).await?;
            text.push_str(&String::from_utf8_lossy(&chunk));
            while let Some((event, rest)) = text.split_once("\n\n") {
                if event != format!("id: {next}\ndata: {next}") {
                    return Err(Miss { reason: format!("event {next} was lost or doubled: {event:?}"), began: true });
                }
                next += 1;
                text = rest.to_owned();
            }
        }
        self.shared.tally(|tally| tally.received_bytes += wire.reader.received);
        Ok((head, ended))
    }

    /// Talks on one WebSocket until it ends; each message is a request.
    pub(super) async fn messages(&mut self, period: Duration) {
        let begun = self.shared.begin();
        let opened = tokio::time::timeout(PATIENCE, self.open()).await;
        let opened = opened.unwrap_or_else(|_| Err(Miss { reason: format!("no answer within {PATIENCE:?}"), began: false }));
        let mut wire = match opened {
            Ok((wire, head)) => {
                self.over(begun, &Ok(Some(head)), None);
                wire
            }
            Err(miss) => return self.over(begun, &Err(miss), None),
        };
        let mut heard = begun;
        while self.shared.pause(period.mul_f64(0.9 + 0.2 * self.seed.fraction())).await {
            self.number += 1;
            let text = format!("{}-{}", self.name, self.number);
            let begun = self.shared.begin();
            let echo = tokio::time::timeout(PATIENCE, say(&mut wire, &text)).await;
            let echo = echo.unwrap_or_else(|_| Err(Miss { reason: format!("no echo within {PATIENCE:?}"), began: false }));
            match echo {
                Ok(Heard::Echo) => {
                    self.over(begun, &Ok(None), None);
                    heard = begun;
                }
                Ok(Heard::GoingAway) => {
                    // It was said in time that this conversation is over: the message goes out on the next one.
                    self.shared.end(|tally| tally.goodbyes += 1);
                    wire.send(&CLOSE).await.ok();
                    break;
                }
                Err(miss) => {
                    // Whoever pauses between two messages learns only with the next that the connection was cut meanwhile.
                    self.over(heard, &Err(miss), None);
                    break;
                }
            }
        }
        self.shared.tally(|tally| {
            tally.sent_bytes += wire.sent;
            tally.received_bytes += wire.reader.received;
        });
    }

    async fn open(&self) -> Result<(Wire, Head), Miss> {
        let mut wire = Wire::connect(self.address).await?;
        let upgrade = format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n");
        wire.send(format!("GET /socket HTTP/1.1\r\n{upgrade}{}\r\n", self.host()).as_bytes()).await?;
        let head = wire.reader.head().await?;
        if head.status != 101 {
            return Err(Miss { reason: format!("answered {}", head.status), began: true });
        }
        Ok((wire, head))
    }
}

/// Sends a message and waits for its echo.
async fn say(wire: &mut Wire, text: &str) -> Result<Heard, Miss> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).unwrap_or(0);
    let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    // A goodbye may be here already; writing then fails, and reading says why.
    let written = wire.send(&frame).await;
    let mut head = [0; 2];
    wire.reader.exactly(&mut head).await.map_err(|miss| match &written {
        Err(error) => Miss { reason: format!("{} (writing: {})", miss.reason, error.reason), ..miss },
        Ok(()) => miss,
    })?;
    let [kind, length] = head;
    let mut payload = vec![0; usize::from(length & 0x7f)];
    wire.reader.exactly(&mut payload).await?;
    match kind & 0x0f {
        8 if payload.starts_with(&[0x03, 0xe9]) => Ok(Heard::GoingAway),
        8 => Err(Miss { reason: format!("closed with {payload:?}"), began: true }),
        _ if payload == text.as_bytes() => Ok(Heard::Echo),
        _ => Err(Miss { reason: format!("{text:?} came back as {:?}", String::from_utf8_lossy(&payload)), began: true }),
    }
}
