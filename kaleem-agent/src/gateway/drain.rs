//! Waiting until an instance may be stopped. This is where the promise is kept that nothing is lost with it.

use std::time::Duration;

use kaleem_core::names::ContainerName;
use kaleem_core::traffic::{DrainPolicy, DrainReport, Refusal};

use super::switchboard::Switchboard;
use super::target::{Cut, now};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(3);
/// How long streams may take to end when they were asked to.
const STREAMS_END: Duration = Duration::from_secs(3);

/// Waits until nothing runs at `instance`, and cuts by `policy` what does not end.
///
/// # Errors
///
/// [`Refusal::StillRouted`] when it may get something new.
pub(crate) async fn drain(board: &Switchboard, instance: &ContainerName, policy: &DrainPolicy) -> Result<DrainReport, Refusal> {
    let targets = board.named(instance);
    if targets.iter().any(|target| !target.retired.load(std::sync::atomic::Ordering::SeqCst)) {
        return Err(Refusal::StillRouted { instance: instance.clone() });
    }
    board.nudge();
    let began = now();
    let running = || {
        let (mut all, mut streams) = (0, 0);
        for target in &targets {
            streams += target.streams();
            all += target.in_flight();
        }
        (u64::saturating_sub(all, streams), streams)
    };
    let first = running();
    let mut report = DrainReport { finished: 0, cut: 0, closed_streams: 0, took: Duration::ZERO };
    let mut bits = 0;
    loop {
        let (requests, streams) = running();
        let passed = now().saturating_sub(began);
        if requests + streams == 0 {
            report.finished = (first.0 + first.1).saturating_sub(report.cut + report.closed_streams);
            report.took = passed;
            return Ok(report);
        }
        let mut wanted = 0;
        if passed >= policy.requests && requests > 0 {
            wanted |= Cut::REQUESTS;
        }
        if passed >= policy.streams && streams > 0 {
            wanted |= Cut::STREAMS;
        }
        if bits & Cut::STREAMS != 0 && passed >= policy.streams + STREAMS_END {
            wanted |= Cut::FORCE;
        }
        let news = wanted & !bits;
        if news != 0 {
            if news & Cut::REQUESTS != 0 {
                report.cut += requests;
            }
            if news & Cut::STREAMS != 0 {
                report.closed_streams += streams;
            }
            bits |= news;
            targets.iter().for_each(|target| target.cut.set(news));
            board.nudge();
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Ends everything of this worker, which nobody sends anything new: requests after `requests`, streams after `streams`.
pub(crate) async fn leave(board: &Switchboard, requests: Duration, streams: Duration, idle: Duration) {
    let began = now();
    let mut bits = 0;
    let mut told_idle = false;
    // One that is accepted last is counted before nobody accepts any more.
    while board.is_accepting() || board.open_connections() > 0 {
        let passed = now().saturating_sub(began);
        let mut wanted = 0;
        if passed >= requests {
            wanted |= Cut::REQUESTS;
        }
        if passed >= streams {
            wanted |= Cut::STREAMS;
        }
        if passed >= requests.max(streams) + STREAMS_END {
            return;
        }
        let news = wanted & !bits;
        if news != 0 {
            bits |= news;
            board.all().iter().for_each(|target| target.cut.set(news));
            board.nudge();
        }
        if passed >= idle {
            // Repeated: a connection that was busy the last time may be idle now.
            board.tell(|| super::shard::ShardMessage::CloseIdle);
            told_idle = true;
        }
        tokio::time::sleep(if told_idle { LOOK * 10 } else { LOOK }).await;
    }
}
