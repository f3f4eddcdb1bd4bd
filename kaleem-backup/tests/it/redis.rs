//! Redis: what a replica would get is what is kept, and comes back also where the server keeps an append-only file.

use std::sync::Arc;
use std::time::Duration;

use kaleem_backup::format::rdb::{RdbItem, RdbReader, RdbValues, verify};
use kaleem_backup::seal::{Keys, Protection};
use kaleem_backup::set;
use kaleem_backup::source::redis::{RedisAddress, RedisSource};
use kaleem_core::backup::{BackupSource, RestoreMode, SourceError, pipe};
use kaleem_core::secret::Secret;
use kaleem_core::testing::FakeVault;
use tokio::io::AsyncReadExt;

use crate::servers::{self, Server};
use crate::support::{Noon, export, request, stream};

const FILL: &str =
    "SET text hello\nSET 12345 number-key\nSET 7 -3\nAPPEND long xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
SET kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk compressed-name
RPUSH list a b c 4 5\nSADD ints 1 2 3\nSADD words a b c\nZADD scores 1.5 a -inf b +inf c\nHSET hash f1 v1 f2 v2
XADD events 1-1 a 1\nXADD events 2-1 b 2\nXGROUP CREATE events readers 0\nXREADGROUP GROUP readers one COUNT 1 STREAMS events >
PFADD unique a b c\nGEOADD places 13.4 52.5 berlin\nSET later soon EX 100000
SELECT 3\nSET other db3\nSELECT 0
FUNCTION LOAD \"#!lua name=lib\\nredis.register_function('one', function() return 1 end)\"
";

fn big_values() -> String {
    use std::fmt::Write;
    let mut commands = String::new();
    for number in 0..400 {
        writeln!(commands, "RPUSH biglist {} {number}", "e".repeat(100)).unwrap();
        writeln!(commands, "HSET bighash field{number} {}", "v".repeat(70)).unwrap();
        writeln!(commands, "ZADD bigscores {number}.25 member{number}").unwrap();
        writeln!(commands, "SADD bigset member{number}").unwrap();
        writeln!(commands, "XADD bigstream * field {number}").unwrap();
    }
    commands
}

fn source(server: &Server, password: Option<&str>) -> RedisSource {
    let password = password.map(|password| Secret::new(password.to_owned()));
    let address = RedisAddress { host: "127.0.0.1".to_owned(), port: server.port, username: None, password };
    RedisSource::new("cache".parse().unwrap(), address, Duration::from_secs(10))
}

/// Every value as the server itself digests it.
fn digest(server: &Server) -> String {
    servers::redis_cli(server, &[], "DEBUG DIGEST\nSELECT 3\nDBSIZE\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_take_functions_is_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    let Some(server) = servers::redis(place.path(), &["--enable-debug-command", "yes"]) else { return };
    servers::redis_cli(&server, &[], FILL);
    let (exported, bytes) = export(&source(&server, None)).await.unwrap();
    servers::redis_cli(&server, &[], "SET newer 1\nACL SETUSER default -function|restore\n");
    let sizes: String = (0..16).map(|database| format!("SELECT {database}\nDBSIZE\n")).collect();
    let look = || servers::redis_cli(&server, &[], &format!("DEBUG DIGEST\nFUNCTION LIST\n{sizes}"));
    let before = look();
    let refused = source(&server, None).restore(stream(&bytes), RestoreMode::Replace).await.unwrap_err();
    let told = kaleem_core::remedy::one_line(&refused);
    assert!(told.contains("loading functions"), "{told}");
    assert_eq!(look(), before, "nothing is left beside");
    servers::redis_cli(&server, &[], "ACL SETUSER default +function|restore\n");
    assert_eq!(source(&server, None).restore(stream(&bytes), RestoreMode::Replace).await.unwrap(), exported.contents);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_comes_back_through_a_set_also_after_a_restart() {
    let place = tempfile::tempdir().unwrap();
    let options = ["--appendonly", "yes", "--enable-debug-command", "yes", "--requirepass", "hunter2"];
    let without = ["--enable-debug-command", "yes"];
    let original = tempfile::tempdir().unwrap();
    let Some(server) = servers::redis(original.path(), &without) else { return };
    servers::redis_cli(&server, &[], FILL);
    servers::redis_cli(&server, &[], &big_values());
    let source_of = Arc::new(source(&server, None));
    let vault = FakeVault::new();
    let request = request(Protection::Unencrypted);
    let sources: Vec<Arc<dyn BackupSource>> = vec![source_of.clone()];
    let manifest = set::create(&vault, &sources, &request, &Noon).await.unwrap();
    let contents = &manifest.artifacts[0].contents;
    assert_eq!(contents["db0"].count, 18, "{contents:?}");
    assert_eq!(contents["db3"].count, 1);
    assert_eq!(contents["functions"].count, 1);
    assert!(manifest.artifacts[0].notes.iter().any(|note| note.starts_with("1 key expires")), "{:?}", manifest.artifacts[0].notes);

    let mut target = servers::redis(place.path(), &options).unwrap();
    let wrong = source(&target, Some("hunter3")).inspect().await.unwrap_err();
    assert!(matches!(wrong, SourceError::Denied { .. }), "{wrong:?}");
    assert!(!format!("{wrong:?}").contains("hunter3"));
    let into = source(&target, Some("hunter2"));
    let name = "cache".parse().unwrap();
    set::restore(&vault, &request.set, &name, &into, RestoreMode::IntoEmpty, &Keys::none()).await.unwrap();
    let login = ["-a", "hunter2", "--no-auth-warning"];
    let theirs = servers::redis_cli(&target, &login, "DEBUG DIGEST\nSELECT 3\nDBSIZE\n");
    assert_eq!(theirs, digest(&server), "the server's own digest of all values is the same");
    assert_eq!(servers::redis_cli(&target, &login, "FCALL one 0\n").trim(), "1");
    let left: i64 = servers::redis_cli(&target, &login, "TTL later\n").trim().parse().unwrap();
    assert!((90_000..=100_000).contains(&left), "{left}");

    target.kill();
    let again = servers::redis(place.path(), &options).unwrap();
    let theirs = servers::redis_cli(&again, &login, "DEBUG DIGEST\nSELECT 3\nDBSIZE\n");
    assert_eq!(theirs, digest(&server), "what was restored is in the append-only file");

    let into = source(&again, Some("hunter2"));
    let refused = set::restore(&vault, &request.set, &name, &into, RestoreMode::IntoEmpty, &Keys::none()).await;
    assert!(refused.is_err(), "it is not empty any more");
    servers::redis_cli(&again, &login, "SET text changed\nSET newer 1\nSELECT 5\nSET there 1\n");
    set::restore(&vault, &request.set, &name, &into, RestoreMode::Replace, &Keys::none()).await.unwrap();
    let theirs = servers::redis_cli(&again, &login, "DEBUG DIGEST\nSELECT 3\nDBSIZE\n");
    assert_eq!(theirs, digest(&server), "what was there is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_or_changed_at_any_byte_is_refused_and_replaces_nothing() {
    let place = tempfile::tempdir().unwrap();
    let Some(server) = servers::redis(place.path(), &["--enable-debug-command", "yes"]) else { return };
    servers::redis_cli(&server, &[], FILL);
    let source = source(&server, None);
    let (exported, bytes) = export(&source).await.unwrap();
    assert_eq!(verify(stream(&bytes)).await.unwrap(), exported.contents);
    for at in 0..bytes.len() {
        assert!(verify(stream(&bytes[..at])).await.is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            assert!(verify(stream(&changed)).await.is_err(), "bit {bit} of byte {at}");
        }
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(verify(stream(&longer)).await.is_err(), "something follows");
    servers::redis_cli(&server, &[], "SET newer 1\n");
    let before = digest(&server);
    for at in [0, 9, 100, bytes.len() / 2, bytes.len() - 1] {
        assert!(source.restore(stream(&bytes[..at]), RestoreMode::Replace).await.is_err(), "cut at {at}");
        assert_eq!(digest(&server), before, "cut at {at}");
        let used = servers::redis_cli(&server, &[], "INFO keyspace\n");
        assert_eq!(used.matches("keys=").count(), 2, "nothing is left beside: {used}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_the_one_that_the_tools_of_redis_accept() {
    let place = tempfile::tempdir().unwrap();
    let Some(server) = servers::redis(place.path(), &[]) else { return };
    if !servers::all_there(&["redis-check-rdb"]) {
        return;
    }
    servers::redis_cli(&server, &[], FILL);
    servers::redis_cli(&server, &[], &big_values());
    let (_, bytes) = export(&source(&server, None)).await.unwrap();
    kaleem_core::durable::create_new(&place.path().join("exported.rdb"), &bytes).unwrap();
    assert!(servers::shell("redis-check-rdb exported.rdb", place.path()));
    let mut reader = RdbReader::open(stream(&bytes), RdbValues::Keep(1 << 20)).await.unwrap();
    let mut keys = 0;
    while let Some(item) = reader.next().await.unwrap() {
        if let RdbItem::Key(key) = item {
            assert!(key.value.is_some(), "{key:?}");
            keys += 1;
        }
    }
    assert_eq!(keys, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_or_is_not_there_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let Some(mut server) = servers::redis(place.path(), &["--enable-debug-command", "yes", "--rdbcompression", "no"]) else { return };
    servers::redis_cli(&server, &[], "DEBUG POPULATE 20000 key 2000\n");
    let source = source(&server, None);
    let (mut sender, mut receiver) = pipe();
    let writing = async {
        let exported = source.export(&mut sender).await;
        drop(sender);
        exported
    };
    let reading = async {
        let mut first = vec![0; 1_000_000];
        receiver.read_exact(&mut first).await.unwrap();
        server.kill();
        let mut rest = Vec::new();
        receiver.read_to_end(&mut rest).await
    };
    let (exported, read) = tokio::join!(writing, reading);
    assert!(exported.is_err(), "{exported:?}");
    assert!(read.is_err(), "the bytes do not seem to be whole");
    assert!(matches!(source.inspect().await, Err(SourceError::Unreachable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_512_mb_comes_back_where_it_can_be_packed_and_a_longer_one_than_a_command_takes_is_refused() {
    let (place, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(server) = servers::redis(place.path(), &[]) else { return };
    let name = "cache".parse().unwrap();
    let target = servers::redis(other.path(), &[]).unwrap();
    let into = source(&target, None);
    // The longest value that Redis takes, which it packs where it may; and one that is just too long for a command as it is.
    for (packed, length, comes_back) in [("yes", 512 << 20, true), ("no", (64 << 20) + 1, false)] {
        servers::redis_cli(
            &server,
            &[],
            &format!("FLUSHALL\nSETRANGE huge {} x\nSET small 1\nCONFIG SET rdbcompression {packed}\n", length - 1),
        );
        let vault = FakeVault::new();
        let request = request(Protection::Unencrypted);
        let sources: Vec<Arc<dyn BackupSource>> = vec![Arc::new(source(&server, None))];
        let manifest = set::create(&vault, &sources, &request, &Noon).await.unwrap();
        assert_eq!(manifest.artifacts[0].contents["db0"].count, 2);
        assert_eq!(manifest.artifacts[0].plain_bytes > length, packed == "no", "{packed}");
        servers::redis_cli(&target, &[], "FLUSHALL\nSET before 1\n");
        let restored = set::restore(&vault, &request.set, &name, &into, RestoreMode::Replace, &Keys::none()).await;
        let now = servers::redis_cli(&target, &[], "STRLEN huge\nGETRANGE huge -2 -1\nEXISTS before\nDBSIZE\nINFO keyspace\n");
        let lines: Vec<&str> = now.split_inclusive('\n').map(str::trim_end).collect();
        assert_eq!(now.matches("keys=").count(), 1, "nothing is left beside: {now}");
        if comes_back {
            restored.unwrap();
            assert_eq!((lines[0], &lines[1][lines[1].len() - 1..], lines[2], lines[3]), ("536870912", "x", "0", "2"), "{packed}");
        } else {
            let told = kaleem_core::remedy::one_line(&restored.unwrap_err());
            assert!(told.contains("huge") && told.contains("64 MiB"), "{told}");
            assert_eq!((lines[0], lines[2], lines[3]), ("0", "1", "1"), "what was there serves on");
        }
    }
}
