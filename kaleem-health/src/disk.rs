//! Space and inodes of a path, and when it will be full at the present rate.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::health::{Finding, HealthProbe, Verdict};

use crate::report::{Report, bounded};
use crate::settings::DiskSettings;

/// A rate that was measured over less than this is noise.
const SHORTEST_SPAN: Duration = Duration::from_secs(300);

/// Asks the file system that holds a path.
pub struct DiskProbe {
    name: String,
    settings: DiskSettings,
    /// When the first run was, and how many bytes were free then.
    first: Mutex<Option<(Duration, f64)>>,
}

impl DiskProbe {
    /// A probe; nothing is asked yet.
    pub fn new(name: &str, settings: DiskSettings) -> Self {
        Self { name: name.to_owned(), settings, first: Mutex::new(None) }
    }

    fn judge(&self, space: Space, now: Duration) -> Finding {
        let mut report = Report::default();
        let shown = self.settings.path.display();
        let free_space = format!("see what takes it: `du -xh --max-depth=2 {shown} | sort -h | tail`, `docker system df`");
        let used = share(space.total_bytes, space.free_bytes);
        report.measure("free_space", space.free_bytes, "bytes");
        report.measure("used_space", used, "percent");
        report.share(&format!("the space of {shown} is"), used, self.settings.used_percent, &free_space);
        // Some file systems count no inodes.
        if space.total_inodes > 0.0 {
            let used = share(space.total_inodes, space.free_inodes);
            report.measure("used_inodes", used, "percent");
            report.share(
                &format!("the inodes of {shown} are"),
                used,
                self.settings.used_percent,
                &format!("find the directory of many small files: `du --inodes -x {shown} | sort -n | tail`"),
            );
        }
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        match *first {
            Some((then, free)) if now.saturating_sub(then) >= SHORTEST_SPAN && free > space.free_bytes => {
                let rate = (free - space.free_bytes) / now.saturating_sub(then).as_secs_f64();
                let left = Duration::try_from_secs_f64(space.free_bytes / rate).unwrap_or(Duration::MAX);
                report.measure("full_in", left.as_secs_f64(), "seconds");
                if left < self.settings.full_within {
                    report.warn(format!("{shown} will be full in about {} hours", left.as_secs() / 3600), free_space);
                }
            }
            // More is free than at first: something was cleaned up, and the rate starts anew.
            Some((_, free)) if free <= space.free_bytes => *first = Some((now, space.free_bytes)),
            Some(_) => {}
            None => *first = Some((now, space.free_bytes)),
        }
        report.finish(format!("{shown} is {used:.0} % full"))
    }
}

#[derive(Clone, Copy, Debug)]
struct Space {
    total_bytes: f64,
    free_bytes: f64,
    total_inodes: f64,
    free_inodes: f64,
}

fn share(total: f64, free: f64) -> f64 {
    if total > 0.0 { (total - free) / total * 100.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "shares of a disk need no more than 52 bits")]
fn ask(path: &std::path::Path) -> Result<Space, std::io::Error> {
    let said = rustix::fs::statvfs(path)?;
    // What is kept for root is not free for anybody else.
    let reserved = said.f_bfree.saturating_sub(said.f_bavail);
    Ok(Space {
        total_bytes: said.f_blocks.saturating_sub(reserved) as f64 * said.f_frsize as f64,
        free_bytes: said.f_bavail as f64 * said.f_frsize as f64,
        total_inodes: said.f_files as f64,
        free_inodes: said.f_favail as f64,
    })
}

#[async_trait]
impl HealthProbe for DiskProbe {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "disk"
    }

    async fn check(&self, timeout: Duration) -> Finding {
        let shown = self.settings.path.display().to_string();
        let path = self.settings.path.clone();
        // A dead network file system blocks the call for ever; only a thread can be left to it.
        let asked = tokio::task::spawn_blocking(move || ask(&path));
        let attempt = async {
            match asked.await {
                Ok(Ok(space)) => self.judge(space, SystemClock.monotonic()),
                Ok(Err(error)) => {
                    Finding::new(Verdict::Unknown, format!("{shown} cannot be asked: {error}")).with_remedy("check the path and its rights")
                }
                Err(_) => Finding::new(Verdict::Unknown, format!("{shown} could not be asked")).with_remedy("run the same command again"),
            }
        };
        bounded(timeout, attempt, || {
            Finding::new(Verdict::Fail, format!("the file system of {shown} does not answer"))
                .with_remedy("look for a dead network mount: `findmnt`, `dmesg | tail`")
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(free: f64, inodes: f64) -> Space {
        Space { total_bytes: 1000.0, free_bytes: free, total_inodes: 100.0, free_inodes: inodes }
    }

    fn probe() -> DiskProbe {
        DiskProbe::new("disk", DiskSettings::standard("/data".into()))
    }

    #[test]
    fn space_and_inodes_are_judged_apart() {
        for (why, space, verdict, reason) in [
            ("half", space(500.0, 50.0), Verdict::Ok, "50 % full"),
            ("space short", space(140.0, 50.0), Verdict::Warn, "space"),
            ("space gone", space(40.0, 50.0), Verdict::Fail, "space"),
            ("inodes gone", space(500.0, 1.0), Verdict::Fail, "inodes"),
        ] {
            let finding = probe().judge(space, Duration::ZERO);
            assert_eq!((finding.verdict, finding.reason.contains(reason)), (verdict, true), "{why}: {}", finding.reason);
        }
    }

    #[test]
    fn a_disk_that_fills_up_is_told_before_it_is_full() {
        let probe = probe();
        assert_eq!(probe.judge(space(800.0, 50.0), Duration::ZERO).verdict, Verdict::Ok);
        assert_eq!(probe.judge(space(700.0, 50.0), Duration::from_secs(10)).verdict, Verdict::Ok, "ten seconds are noise");
        let finding = probe.judge(space(600.0, 50.0), Duration::from_secs(3600));
        assert_eq!((finding.verdict, finding.reason.as_str()), (Verdict::Warn, "/data will be full in about 3 hours"));
        assert_eq!(probe.judge(space(900.0, 50.0), Duration::from_secs(4000)).verdict, Verdict::Ok, "it was cleaned up");
        assert_eq!(probe.judge(space(899.0, 50.0), Duration::from_secs(5000)).verdict, Verdict::Ok, "the rate starts anew");
    }

    #[tokio::test]
    async fn a_real_path_has_space_and_a_missing_one_is_unknown() {
        let root = DiskProbe::new("disk", DiskSettings { used_percent: (100.1, 100.1), ..DiskSettings::standard("/".into()) });
        assert_eq!(root.check(Duration::from_secs(5)).await.verdict, Verdict::Ok);
        let missing = DiskProbe::new("disk", DiskSettings::standard("/does/not/exist".into()));
        assert_eq!(missing.check(Duration::from_secs(5)).await.verdict, Verdict::Unknown);
    }
}
