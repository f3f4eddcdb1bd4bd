//! One at a time works on a project, and the dead hold nothing.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::lease::{self, Holder, Lease, LeaseError};
use kaleem_core::testing::FakeClock;

fn record(root: &Path, host: &str, heartbeat: u64) {
    let holder = Holder {
        owner: "deploy by somebody".to_owned(),
        host: host.to_owned(),
        pid: 4242,
        boot: "another-boot".to_owned(),
        since: "2026-01-01 00:00:00 UTC".to_owned(),
        heartbeat,
    };
    #[expect(clippy::disallowed_methods, reason = "another host writes as it likes")]
    std::fs::write(root.join("lease"), serde_json::to_vec(&holder).unwrap()).unwrap();
}

#[tokio::test]
async fn the_second_is_told_who_is_the_first() {
    let root = tempfile::tempdir().unwrap();
    let first = Lease::take(root.path(), "deploy by root", Arc::new(SystemClock)).await.unwrap();
    let error = Lease::take(root.path(), "deploy by ci", Arc::new(SystemClock)).await.unwrap_err();
    let LeaseError::Busy { owner, pid, .. } = error else { panic!("{error:?}") };
    assert_eq!((owner.as_str(), pid), ("deploy by root", std::process::id()));
    assert!(lease::is_held(root.path()));
    drop(first);
    assert!(!lease::is_held(root.path()));
    Lease::take(root.path(), "deploy by ci", Arc::new(SystemClock)).await.unwrap();
}

#[tokio::test]
async fn a_lease_of_a_dead_process_or_of_another_boot_is_taken_over() {
    let root = tempfile::tempdir().unwrap();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    record(root.path(), &host, 17);
    Lease::take(root.path(), "deploy by root", Arc::new(SystemClock)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_that_is_being_written_puts_no_record_back() {
    /// Every beat is due at once.
    struct Hasty;

    #[async_trait::async_trait]
    impl Clock for Hasty {
        fn now(&self) -> jiff::Timestamp {
            SystemClock.now()
        }

        fn monotonic(&self) -> Duration {
            SystemClock.monotonic()
        }

        async fn sleep(&self, _: Duration) {
            tokio::task::yield_now().await;
        }
    }

    let root = tempfile::tempdir().unwrap();
    for round in 0..100 {
        let lease = Lease::take(root.path(), "deploy by root", Arc::new(Hasty)).await.unwrap();
        tokio::task::yield_now().await;
        drop(lease);
        assert!(lease::holder(root.path()).is_none(), "round {round}");
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(lease::holder(root.path()).is_none(), "round {round}, later");
    }
}

#[tokio::test]
async fn a_killed_process_leaves_no_lease() {
    let root = tempfile::tempdir().unwrap();
    let lock = root.path().join("lock");
    #[expect(clippy::disallowed_methods, reason = "flock(1) stands for another kaleem, and is killed as one")]
    let mut other = std::process::Command::new("flock").arg(&lock).args(["sleep", "60"]).stdout(Stdio::null()).spawn().unwrap();
    for _ in 0..500 {
        if lease::is_held(root.path()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = Lease::take(root.path(), "deploy by root", Arc::new(SystemClock)).await.unwrap_err();
    assert!(matches!(error, LeaseError::Busy { .. }), "{error:?}");
    // flock(1) runs its command with the lock inherited: both are ended.
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", other.id())).unwrap();
    for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(rustix::process::Pid::from_raw) {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    other.kill().unwrap();
    other.wait().unwrap();
    for _ in 0..500 {
        if !lease::is_held(root.path()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Lease::take(root.path(), "deploy by root", Arc::new(SystemClock)).await.unwrap();
}

#[tokio::test]
async fn another_host_that_shares_the_directory_counts_as_dead_when_its_heart_stands_still() {
    let root = tempfile::tempdir().unwrap();
    record(root.path(), "another-host", 3);
    Lease::take(root.path(), "deploy by root", Arc::new(FakeClock::new())).await.unwrap();
}

#[tokio::test]
async fn another_host_that_shares_the_directory_and_lives_is_waited_for() {
    struct Beating(FakeClock, std::path::PathBuf);
    #[async_trait::async_trait]
    impl Clock for Beating {
        fn now(&self) -> jiff::Timestamp {
            self.0.now()
        }
        fn monotonic(&self) -> Duration {
            self.0.monotonic()
        }
        async fn sleep(&self, duration: Duration) {
            record(&self.1, "another-host", 4);
            self.0.sleep(duration).await;
        }
    }
    let root = tempfile::tempdir().unwrap();
    record(root.path(), "another-host", 3);
    let clock = Arc::new(Beating(FakeClock::new(), root.path().to_owned()));
    let error = Lease::take(root.path(), "deploy by root", clock).await.unwrap_err();
    assert!(matches!(&error, LeaseError::Busy { host, .. } if host == "another-host"), "{error:?}");
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_used_is_named() {
    let root = tempfile::tempdir().unwrap();
    let error = Lease::take(&root.path().join("missing"), "deploy", Arc::new(SystemClock)).await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}
