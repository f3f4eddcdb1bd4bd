//! Buckets: the contract of vaults against a service in memory, and every bad habit of services against a stand-in.

use std::sync::Arc;
use std::time::Duration;

use kaleem_backup::seal::{Keys, Protection};
use kaleem_backup::set::{self, Copied, SetFailure};
use kaleem_backup::vault::{BucketStyle, Guarantee, S3Settings, S3SettingsError, S3Vault};
use kaleem_core::backup::{BackupSource, BackupVault, VaultError};
use kaleem_core::secret::Secret;
use kaleem_core::testing::FakeVault;
use kaleem_core::testing::backup_contract::{self, body, bytes};
use tokio::io::AsyncReadExt;

use crate::s3_stand_in::{Dialect, Fault, Service};
use crate::servers;
use crate::support::{BAR, Habit, MemorySource, Noon, OPLOG, request, stream};

const PART: usize = 5 * 1024 * 1024;

fn settings(port: u16, prefix: &str) -> S3Settings {
    S3Settings {
        endpoint: format!("http://127.0.0.1:{port}"),
        region: "us-east-1".to_owned(),
        bucket: "bucket".to_owned(),
        style: BucketStyle::Path,
        prefix: prefix.to_owned(),
        key: Secret::new("AKHUNTER2".to_owned()),
        secret: Secret::new("hunter2-secret".to_owned()),
        token: None,
        part_bytes: PART,
        answer_within: Duration::from_secs(60),
        attempts: 4,
    }
}

fn vault(service: &Service) -> S3Vault {
    S3Vault::new(&settings(service.port, "backups/shop")).unwrap()
}

fn sources() -> Vec<Arc<dyn BackupSource>> {
    vec![MemorySource::new("main", OPLOG, Habit::Sound), MemorySource::new("bar", BAR, Habit::Sound)]
}

pub(crate) async fn make_bucket(port: u16) {
    let web = crate::support::web();
    let sign = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x";
    let answer = web.put(format!("http://127.0.0.1:{port}/bucket")).header("authorization", sign).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

async fn read(vault: &S3Vault, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = vault.get(&path.parse().unwrap()).await.map_err(std::io::Error::other)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_a_known_service_keeps_the_contract_and_holds_a_set() {
    let Some(server) = servers::s3() else { return };
    make_bucket(server.port).await;
    let vault = S3Vault::new(&settings(server.port, "")).unwrap();
    assert_eq!(vault.guarantee().await.unwrap(), Guarantee::Service);
    assert_eq!(backup_contract::check(&vault).await, Vec::<String>::new());
    let below = S3Vault::new(&settings(server.port, "backups/shop")).unwrap();
    let request = request(Protection::Unencrypted);
    set::create(&below, &sources(), &request, &Noon).await.unwrap();
    set::verify(&below, &request.set, &Keys::none()).await.unwrap();
    let second = FakeVault::new();
    assert_eq!(set::copy(&below, &second, &request.set).await.unwrap(), Copied::Whole);
    set::discard(&below, &request.set).await.unwrap();
    assert_eq!(set::list(&below).await.unwrap().len(), 0);
    assert_eq!(set::copy(&second, &below, &request.set).await.unwrap(), Copied::Whole);
    assert_eq!(set::list(&below).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dialect_keeps_the_contract_as_far_as_it_says() {
    for (dialect, guarantee) in [
        (Dialect::Full, Guarantee::Service),
        (Dialect::EqualParts, Guarantee::ServiceForSmall),
        (Dialect::Deaf, Guarantee::Looked),
        (Dialect::Unknowing, Guarantee::Looked),
    ] {
        let service = Service::start(dialect);
        let vault = vault(&service);
        assert_eq!(vault.guarantee().await.unwrap(), guarantee, "{dialect:?}");
        let mut wrong = backup_contract::check(&vault).await;
        // Two writers in one moment are the one thing that such a service cannot tell apart.
        wrong.retain(|reason| guarantee != Guarantee::Looked || !reason.starts_with("of two writers one wins"));
        assert_eq!(wrong, Vec::<String>::new(), "{dialect:?}");
        assert_eq!(service.left_over(), 0, "{dialect:?}: parts of what failed were given up");
        assert_eq!(service.state.lock().unwrap().complaints, Default::default(), "{dialect:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_busy_or_loses_answers_is_asked_again() {
    let service = Service::start(Dialect::Full);
    let vault = vault(&service);
    vault.guarantee().await.unwrap();
    let large = bytes(2 * PART + 12_345);
    for (number, fault) in [
        Fault::TurnAway(2, 503, "SlowDown"),
        Fault::TurnAway(3, 500, "InternalError"),
        Fault::TurnAway(1, 429, "TooManyRequests"),
        Fault::LoseAnswers(1),
        Fault::LoseAnswers(3),
    ]
    .into_iter()
    .enumerate()
    {
        for (size, object) in [("small", b"small".to_vec()), ("large", large.clone())] {
            let path = format!("sets/a/{size}-{number}");
            service.break_with(Some(fault));
            let length = vault.put_if_absent(&path.parse().unwrap(), body(&object)).await;
            service.break_with(None);
            assert_eq!(length.unwrap(), object.len() as u64, "{fault:?} {size}");
            assert!(read(&vault, &path).await.unwrap() == object, "{fault:?} {size}");
        }
    }
    service.break_with(Some(Fault::CutReads(3)));
    assert!(read(&vault, "sets/a/large-0").await.unwrap() == large, "a read goes on where it was cut");
    service.break_with(Some(Fault::TurnAway(2, 503, "SlowDown")));
    assert_eq!(vault.list(&"sets".parse().unwrap()).await.unwrap().len(), 10, "all pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_get_better_is_an_error_and_never_a_set() {
    for fault in [
        Fault::TurnAway(1000, 503, "SlowDown"),
        Fault::Forbidden,
        Fault::Forget,
        Fault::CutShort,
        Fault::CompleteFailsLate,
        Fault::EndReads,
        Fault::LoseAnswers(1000),
    ] {
        let service = Service::start(Dialect::Full);
        let vault = vault(&service);
        vault.guarantee().await.unwrap();
        service.break_with(Some(fault));
        let large = vault.put_if_absent(&"sets/a/large".parse().unwrap(), body(&bytes(PART + 1))).await;
        assert_eq!(large.is_ok(), fault == Fault::EndReads, "{fault:?}: {large:?}");
        if fault == Fault::CompleteFailsLate {
            // This set is small: it has no parts to be put together.
            assert_eq!(service.left_over(), 0, "the parts were given up");
            continue;
        }
        let made = set::create(&vault, &sources(), &request(Protection::Unencrypted), &Noon).await;
        let failure = made.expect_err(&format!("{fault:?}"));
        let shown = format!("{failure:?} {}", kaleem_core::remedy::one_line(&failure));
        assert!(!shown.to_lowercase().contains("hunter2") && !shown.contains("X-Amz"), "{fault:?} shows {shown}");
        let commits = service.state.lock().unwrap().objects.keys().filter(|key| key.ends_with("COMMIT")).count();
        // An answer that is lost says nothing; then it is not told that there is a set.
        assert!(commits == 0 || matches!(fault, Fault::LoseAnswers(_)), "{fault:?}");
        if fault == Fault::Forbidden {
            assert!(matches!(large, Err(VaultError::Denied { .. })), "{large:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_is_not_whole_is_an_error_and_never_empty() {
    let service = Service::start(Dialect::Full);
    let vault = vault(&service);
    for number in 0..20 {
        vault.put_if_absent(&format!("sets/a/part-{number}").parse().unwrap(), stream(b"x")).await.unwrap();
    }
    let sets = "sets".parse().unwrap();
    assert_eq!(vault.list(&sets).await.unwrap().len(), 20);
    for fault in [Fault::NoSecondPage, Fault::SamePage, Fault::NoToken, Fault::Forbidden] {
        service.break_with(Some(fault));
        let listed = vault.list(&sets).await;
        assert!(listed.is_err(), "{fault:?}: {listed:?}");
        assert!(matches!(set::list(&vault).await, Err(SetFailure::List { .. })), "{fault:?}");
        service.break_with(None);
    }
    let elsewhere = S3Vault::new(&S3Settings { bucket: "nowhere".to_owned(), ..settings(service.port, "") }).unwrap();
    assert!(elsewhere.list(&sets).await.is_err(), "a bucket that is not there is not an empty one");
    let gone = S3Vault::new(&S3Settings { attempts: 1, ..settings(kaleem_core::testing::free_port(), "") }).unwrap();
    let error = gone.list(&sets).await.unwrap_err();
    assert!(matches!(error, VaultError::Unreachable { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("X-Amz"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changes_while_it_is_read_is_an_error() {
    let service = Service::start(Dialect::Full);
    let vault = vault(&service);
    vault.put_if_absent(&"sets/a/file".parse().unwrap(), body(&bytes(400_000))).await.unwrap();
    service.break_with(Some(Fault::CutReads(1)));
    let mut stream = vault.get(&"sets/a/file".parse().unwrap()).await.unwrap();
    service.state.lock().unwrap().objects.get_mut("backups/shop/sets/a/file").unwrap().bytes[399_999] ^= 1;
    assert!(stream.read_to_end(&mut Vec::new()).await.is_err());
}

#[test]
fn settings_that_no_bucket_can_have_are_refused() {
    for (why, settings, wanted) in [
        ("no address", S3Settings { endpoint: "nonsense".to_owned(), ..settings(1, "") }, S3SettingsError::Endpoint),
        ("a prefix that leads out", settings(1, "../x"), S3SettingsError::Prefix { prefix: "../x".to_owned() }),
        ("parts that no service takes", S3Settings { part_bytes: 1, ..settings(1, "") }, S3SettingsError::Parts),
    ] {
        assert_eq!(S3Vault::new(&settings).unwrap_err(), wanted, "{why}");
    }
    let shown = format!("{:?} {:?}", settings(1, ""), S3Vault::new(&settings(1, "x")).unwrap());
    assert!(!shown.to_lowercase().contains("hunter2"), "{shown}");
}
