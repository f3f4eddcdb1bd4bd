//! Many observations, one verdict: the worst one decides, and only what belongs to it is said.

use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::health::{Finding, Measurement, Verdict};

/// What a probe saw so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    seen: Vec<(Verdict, String, String)>,
    measurements: Vec<Measurement>,
}

impl Report {
    /// It works, and something is about to go wrong.
    pub(crate) fn warn(&mut self, reason: impl Into<String>, remedy: impl Into<String>) {
        self.seen.push((Verdict::Warn, reason.into(), remedy.into()));
    }

    /// It does not work.
    pub(crate) fn fail(&mut self, reason: impl Into<String>, remedy: impl Into<String>) {
        self.seen.push((Verdict::Fail, reason.into(), remedy.into()));
    }

    /// Could not be asked.
    pub(crate) fn unknown(&mut self, reason: impl Into<String>, remedy: impl Into<String>) {
        self.seen.push((Verdict::Unknown, reason.into(), remedy.into()));
    }

    /// Something was measured.
    pub(crate) fn measure(&mut self, name: &str, value: f64, unit: &str) {
        self.measurements.push(Measurement { name: name.to_owned(), value, unit: unit.to_owned() });
    }

    /// Judges a share in percent by two limits.
    pub(crate) fn share(&mut self, what: &str, percent: f64, (warn, fail): (f64, f64), remedy: &str) {
        if percent >= fail {
            self.fail(format!("{what} at {percent:.0} %, and {fail:.0} % is the limit"), remedy);
        } else if percent >= warn {
            self.warn(format!("{what} at {percent:.0} %"), remedy);
        }
    }

    /// Takes in what another finding says, with a word about where it comes from.
    pub(crate) fn take(&mut self, place: &str, finding: Finding) {
        if finding.verdict != Verdict::Ok {
            let reason = if place.is_empty() { finding.reason } else { format!("{place}: {}", finding.reason) };
            self.seen.push((finding.verdict, reason, finding.remedy.unwrap_or_default()));
        }
        self.measurements.extend(finding.measurements);
    }

    /// Takes in all that another report saw.
    pub(crate) fn take_all(&mut self, other: Self) {
        self.seen.extend(other.seen);
        self.measurements.extend(other.measurements);
    }

    /// The finding: `well` is said when nothing was wrong.
    pub(crate) fn finish(self, well: impl Into<String>) -> Finding {
        let worst = self.seen.iter().map(|(verdict, ..)| *verdict).max().unwrap_or(Verdict::Ok);
        let mut finding = if worst == Verdict::Ok {
            Finding::new(Verdict::Ok, well)
        } else {
            let of_worst: Vec<_> = self.seen.iter().filter(|(verdict, ..)| *verdict == worst).collect();
            let reasons: Vec<&str> = of_worst.iter().map(|(_, reason, _)| reason.as_str()).collect();
            let finding = Finding::new(worst, reasons.join("; "));
            match of_worst.first() {
                Some((_, _, remedy)) => finding.with_remedy(remedy.clone()),
                None => finding,
            }
        };
        finding.measurements = self.measurements;
        finding
    }
}

/// Runs `attempt` for at most `timeout`, and says with `late` what it means when that was not enough.
pub(crate) async fn bounded(timeout: Duration, attempt: impl Future<Output = Finding>, late: impl FnOnce() -> Finding) -> Finding {
    let start = SystemClock.monotonic();
    let finding = tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| late());
    finding.with_phase("total", SystemClock.monotonic().saturating_sub(start))
}

/// What is said when the engine had no time to answer.
pub(crate) fn waited(what: &str, timeout: Duration) -> Finding {
    Finding::new(Verdict::Unknown, format!("{what} did not answer within {timeout:?}"))
        .with_remedy("check that the engine answers: `docker info`")
}

/// Words of a server that are safe to show: an identifier, never a sentence.
pub(crate) fn word(text: &str) -> &str {
    let fits =
        !text.is_empty() && text.len() <= 40 && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':'));
    if fits { text } else { "…" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_verdict_decides_and_only_its_reasons_are_said() {
        let mut report = Report::default();
        report.warn("memory at 85 %", "add memory");
        assert_eq!(report.seen.len(), 1);
        report.fail("no primary", "look at rs.status()");
        report.unknown("lag cannot be read", "grant clusterMonitor");
        report.fail("1 of 3 slots", "cluster fix");
        let finding = report.finish("well");
        assert_eq!((finding.verdict, finding.reason.as_str()), (Verdict::Fail, "no primary; 1 of 3 slots"));
        assert_eq!(finding.remedy.as_deref(), Some("look at rs.status()"));
        assert_eq!(Report::default().finish("well").reason, "well");
    }

    #[test]
    fn a_share_is_judged_by_both_limits() {
        for (percent, verdict) in [(79.9, Verdict::Ok), (80.0, Verdict::Warn), (94.9, Verdict::Warn), (95.0, Verdict::Fail)] {
            let mut report = Report::default();
            report.share("connections", percent, (80.0, 95.0), "raise the limit");
            assert_eq!(report.finish("well").verdict, verdict, "{percent}");
        }
    }

    #[test]
    fn only_an_identifier_is_repeated() {
        assert_eq!(word("rabbit@host"), "…");
        assert_eq!(word("NOAUTH"), "NOAUTH");
        assert_eq!(word("the password is x"), "…");
    }
}
