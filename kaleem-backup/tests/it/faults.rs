//! What goes wrong in real life and belongs to no single store: disks that fill up, keys that are changed, files that move.

use std::sync::Arc;

use kaleem_backup::drill::report::{ReportError, believe, keep};
use kaleem_backup::drill::{Control, drill};
use kaleem_backup::seal::{Keys, Protection};
use kaleem_backup::set::{self, SetFailure};
use kaleem_backup::source::files::FilesSource;
use kaleem_backup::vault::LocalVault;
use kaleem_core::backup::{BackupSource, Consistency, SourceError};
use kaleem_core::secret::Secret;
use kaleem_core::testing::FakeVault;
use tokio::io::AsyncReadExt;

use crate::servers;
use crate::support::{BAR, Habit, MemorySource, Noon, OPLOG, export_into, request};

fn sources() -> Vec<Arc<dyn BackupSource>> {
    vec![MemorySource::new("main", OPLOG, Habit::Sound), MemorySource::new("bar", BAR, Habit::Sound)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_at_any_stage_leaves_no_set() {
    let (mut refused, mut made) = (0, 0);
    // From a disk that takes nothing to one that takes everything, a block at a time.
    for blocks in 1..24 {
        let place = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new(format!("size={}k,nr_inodes=64", blocks * 4)).unwrap();
        let mounted = rustix::mount::mount("tmpfs", place.path(), "tmpfs", rustix::mount::MountFlags::empty(), size.as_c_str());
        if let Err(error) = mounted {
            return servers::skip(&format!("a small file system could not be mounted: {error}"));
        }
        let vault = LocalVault::open(&place.path().join("vault"));
        let request = request(Protection::Unencrypted);
        let outcome = match &vault {
            Ok(vault) => Some((set::create(vault, &sources(), &request, &Noon).await, set::read(vault, &request.set).await)),
            Err(_) => None,
        };
        rustix::mount::unmount(place.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        match outcome {
            Some((Ok(_), read)) => {
                read.unwrap();
                made += 1;
            }
            Some((Err(failure), read)) => {
                let told = kaleem_core::remedy::one_line(&failure);
                assert!(told.contains("space") || told.contains("full"), "{blocks} blocks: {told}");
                assert!(matches!(read, Err(SetFailure::Unfinished { .. })), "{blocks} blocks: {read:?}");
                refused += 1;
            }
            None => refused += 1,
        }
    }
    assert!(refused > 2 && made > 2, "{refused} were refused and {made} made");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_were_changed_open_what_was_made_before_and_after() {
    let vault = FakeVault::new();
    let secret = |text: &str| Secret::new(text.to_owned());
    let (before, after) = (Keys::passphrase(secret("before")), Keys::passphrase(secret("after")));
    let mut old = request(Protection::Passphrase(secret("before")));
    old.set = "20260201t120000z-0a0b0c0d".parse().unwrap();
    let new = request(Protection::Passphrase(secret("after")));
    for request in [&old, &new] {
        set::create(&vault, &sources(), request, &Noon).await.unwrap();
    }
    set::verify(&vault, &old.set, &before).await.unwrap();
    set::verify(&vault, &new.set, &after).await.unwrap();
    for (set, keys) in [(&old.set, &after), (&new.set, &before), (&old.set, &Keys::none())] {
        let failure = set::verify(&vault, set, keys).await.unwrap_err();
        assert!(!format!("{failure:?}").contains("Malformed"), "a key that does not fit is no damage: {failure:?}");
    }
}

/// Exports a file while something happens to it after its first bytes were taken.
async fn exported_while(happens: impl FnOnce(&std::path::Path)) -> Result<Consistency, SourceError> {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("log");
    std::fs::File::create_new(&file).unwrap().set_len(64 << 20).unwrap();
    let source = FilesSource::new("logs".parse().unwrap(), place.path());
    let (sender, mut reader) = kaleem_core::backup::pipe();
    let writing = export_into(&source, sender);
    let reading = async {
        let mut first = [0; 4096];
        reader.read_exact(&mut first).await.unwrap();
        happens(&file);
        tokio::io::copy(&mut reader, &mut tokio::io::sink()).await.ok();
    };
    let (exported, ()) = tokio::join!(writing, reading);
    exported.map(|exported| exported.consistency)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_read_is_said_to_and_one_that_shrinks_is_an_error() {
    assert_eq!(exported_while(|_| ()).await.unwrap(), Consistency::PerCollection, "nothing happens to it");
    let grows = |path: &std::path::Path| {
        use std::io::Write;
        std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"one line more").unwrap();
    };
    assert_eq!(exported_while(grows).await.unwrap(), Consistency::None, "it grows");
    let shrinks = |path: &std::path::Path| std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(1 << 20).unwrap();
    let error = exported_while(shrinks).await.unwrap_err();
    assert!(matches!(error, SourceError::Failed { .. }), "it shrinks: {error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_a_drill_is_believed_only_as_it_was_signed() {
    let place = tempfile::tempdir().unwrap();
    let vault = FakeVault::new();
    let request = request(Protection::Unencrypted);
    set::create(&vault, &sources(), &request, &Noon).await.unwrap();
    let scratch = sources().into_iter().map(|source| (source.identity().name.clone(), source)).collect();
    let report = drill(&vault, &request.set, &scratch, &Keys::none(), Control::AsItIs, &Noon).await;
    let kept = keep(place.path(), &report).unwrap();
    let bytes = std::fs::read(&kept.path).unwrap();
    let key = kept.signed.public_key.clone();
    assert_eq!(believe(&bytes, &key).unwrap()["verdict"], "pass");
    assert_eq!(keep(place.path(), &report).unwrap().signed.public_key, key, "the key stays");
    let text = String::from_utf8(bytes).unwrap();
    for (why, changed) in [
        ("another verdict", text.replace("pass", "fail")),
        ("another set", text.replace("20260301t120000z", "20260302t120000z")),
        ("another signature", text.replace(&kept.signed.signature[..8], "00000000")),
    ] {
        assert_ne!(changed, text, "{why}");
        assert!(matches!(believe(changed.as_bytes(), &key), Err(ReportError::Signature)), "{why}");
    }
    let other = tempfile::tempdir().unwrap();
    let forged = keep(other.path(), &report).unwrap();
    let forged = std::fs::read(&forged.path).unwrap();
    assert!(matches!(believe(&forged, &key), Err(ReportError::Signature)), "signed by somebody else");
    assert!(matches!(believe(b"{}", &key), Err(ReportError::NoReport { .. })));
    let damaged = place.path().join("drill-key.pkcs8");
    kaleem_core::durable::write_atomic(&damaged, b"no key", 0o600).unwrap();
    assert!(matches!(keep(place.path(), &report), Err(ReportError::Key { .. })));
}
