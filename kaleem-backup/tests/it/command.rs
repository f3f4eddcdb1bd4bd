//! Commands: their exit code is believed, and what they write is kept to its last byte.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kaleem_backup::seal::{Keys, Protection};
use kaleem_backup::set;
use kaleem_backup::source::command::{CommandPlace, CommandSource, Commands};
use kaleem_core::backup::{BackupSource, RestoreMode, SourceError, pipe};
use kaleem_core::testing::FakeVault;

use crate::support::{Noon, export, request, stream};

fn shell(script: &str) -> Vec<String> {
    ["sh", "-ec", script].map(str::to_owned).to_vec()
}

fn source(directory: &Path, export: &str, restore: Option<&str>, is_empty: Option<&str>) -> CommandSource {
    let environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned()), ("SECRET".to_owned(), "hunter2".to_owned())]);
    let place = CommandPlace::Host { environment, directory: Some(directory.to_owned()) };
    let commands =
        Commands { export: shell(export), restore: restore.map(shell), is_empty: is_empty.map(shell), timeout: Duration::from_secs(60) };
    CommandSource::new("dump".parse().unwrap(), place, commands)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_writes_comes_back_through_a_set() {
    let place = tempfile::tempdir().unwrap();
    let original: Vec<u8> = (0..3_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    kaleem_core::durable::create_new(&place.path().join("data"), &original).unwrap();
    let source_of = Arc::new(source(place.path(), "echo said >&2; cat data", Some("cat > new; mv new data"), Some("test ! -e data")));
    let vault = FakeVault::new();
    let request = request(Protection::Unencrypted);
    let sources: Vec<Arc<dyn BackupSource>> = vec![source_of.clone()];
    let manifest = set::create(&vault, &sources, &request, &Noon).await.unwrap();
    assert_eq!(manifest.artifacts[0].contents["bytes"].count, 3_000_000);
    let name = "dump".parse().unwrap();
    let refused = set::restore(&vault, &request.set, &name, source_of.as_ref(), RestoreMode::IntoEmpty, &Keys::none()).await;
    assert!(refused.is_err(), "it is not empty");
    for mode in [RestoreMode::Replace, RestoreMode::IntoEmpty] {
        std::fs::remove_file(place.path().join("data")).unwrap();
        set::restore(&vault, &request.set, &name, source_of.as_ref(), mode, &Keys::none()).await.unwrap();
        assert!(std::fs::read(place.path().join("data")).unwrap() == original, "{mode:?}");
    }
    assert!(!format!("{source_of:?}").contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_end_well_makes_no_backup() {
    let place = tempfile::tempdir().unwrap();
    for (why, script) in [
        ("a code", "echo half; echo reason of its own >&2; exit 3"),
        ("a signal", "echo half; kill -9 $$"),
        ("no program", "exec no-such-program-at-all"),
        ("a pipe whose writer fails", "set -o pipefail 2>/dev/null || exit 9; false | cat"),
    ] {
        let error = export(&source(place.path(), script, None, None)).await.unwrap_err();
        assert!(matches!(error, SourceError::Failed { .. }), "{why}: {error:?}");
        if why == "a code" {
            assert!(kaleem_core::remedy::one_line(&error).contains("reason of its own"), "{error:?}");
        }
    }
    let late = source(place.path(), "echo one; (sleep 0.4; echo two) &", None, None);
    let (_, bytes) = export(&late).await.unwrap();
    assert_eq!(bytes, b"one\ntwo\n", "what a descendant writes later is not lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_not_told_an_end_when_what_it_reads_breaks() {
    let place = tempfile::tempdir().unwrap();
    let source = source(place.path(), "true", Some("cat > half; touch whole"), None);
    let (mut sender, receiver) = pipe();
    let feeding = async {
        sender.send(vec![7; 300_000]).await.unwrap();
        sender.fail(std::io::Error::other("the vault died")).await;
    };
    let ((), restored) = tokio::join!(feeding, source.restore(Box::pin(receiver), RestoreMode::Replace));
    assert!(matches!(restored, Err(SourceError::Input { .. })), "{restored:?}");
    assert!(!place.path().join("whole").exists(), "the command was killed before it could take that for an end");
    for (why, script) in [("it reads nothing and ends well", "exit 0"), ("it fails at the end", "cat >/dev/null; exit 4")] {
        let source = self::source(place.path(), "true", Some(script), None);
        let restored = source.restore(stream(&vec![7; 5_000_000]), RestoreMode::Replace).await;
        assert!(restored.is_err(), "{why}: {restored:?}");
    }
    let refused = self::source(place.path(), "true", None, None).restore(stream(b"x"), RestoreMode::Replace).await;
    assert!(matches!(refused, Err(SourceError::Unsupported { .. })), "{refused:?}");
}
