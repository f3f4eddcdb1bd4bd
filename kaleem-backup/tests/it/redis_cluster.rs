//! Redis clusters: nothing but the whole is kept, and it comes back into a cluster of any shape and into one server.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kaleem_backup::Backups;
use kaleem_backup::backups::NewSet;
use kaleem_backup::format::redis_cluster::verify;
use kaleem_backup::seal::{Keys, Protection};
use kaleem_backup::set;
use kaleem_backup::source::redis::{RedisAddress, RedisSource};
use kaleem_core::backup::{BackupSource, ByteSender, Consistency, Contents, Exported, RestoreMode, SourceError, pipe};
use kaleem_core::remedy::one_line;
use kaleem_core::testing::FakeVault;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use crate::backups::parts;
use crate::servers::{self, Server};
use crate::support::{Noon, export, request, stream};

/// Every type; keys with tags of their own, and of bytes that are no text; names that look as a restore's own do.
const FILL: &str = "SET text hello\nSET 12345 number-key\nSET 7 -3\nRPUSH list a b c 4 5\nSADD ints 1 2 3\nSADD words a b c
ZADD scores 1.5 a -inf b +inf c\nHSET hash f1 v1 f2 v2\nXADD events 1-1 a 1\nXGROUP CREATE events readers 0
PFADD unique a b c\nGEOADD places 13.4 52.5 berlin\nSET later soon EX 100000\nSET {user}name a\nSET {user}mail b\nSET x{user} c
SET {}empty d\nSET {{double}} e\nSET \"}{\" f\nSET \"\\xff\\x00\\r\\n{\\xfe}\" \"\\x00\\x01\"
SET kaleem-restore-notes g\nSET kaleem-restore-0123456789abcdef:{1}:b h\n";
const ONLY_LOOKS_BESIDE: &str = "kaleem-restore-0123456789abcdef:{1}:b";
const KEYS: u64 = 21;
const FUNCTION: &str = "FUNCTION LOAD \"#!lua name=lib\\nredis.register_function('one', function() return 1 end)\"\n";
/// How a name begins that a restore which died has left beside a key.
const DEAD: &str = "kaleem-restore-00000000000000aa";

const THREE: [&[(u16, u16)]; 3] = [&[(0, 5460)], &[(5461, 10_922)], &[(10_923, 16_383)]];
const TWO: [&[(u16, u16)]; 2] = [&[(0, 99), (9000, 16_383)], &[(100, 8999)]];

/// A cluster, and the directories of its nodes.
struct Cluster {
    nodes: Vec<Server>,
    places: Vec<TempDir>,
}

impl Cluster {
    fn start(shares: &[&[(u16, u16)]]) -> Option<Self> {
        let places: Vec<TempDir> = shares.iter().map(|_| tempfile::tempdir().unwrap()).collect();
        let masters: Vec<(&Path, &[(u16, u16)])> = places.iter().map(TempDir::path).zip(shares.iter().copied()).collect();
        Some(Self { nodes: servers::redis_cluster(&masters)?, places })
    }

    fn source(&self) -> RedisSource {
        source(&self.nodes[0])
    }

    /// Commands of one key each.
    fn say(&self, commands: &str) -> String {
        servers::redis_cli(&self.nodes[0], &["-c"], commands)
    }

    fn say_to_each(&self, commands: &str) -> Vec<String> {
        self.nodes.iter().map(|node| servers::redis_cli(node, &[], commands)).collect()
    }

    fn filled(shares: &[&[(u16, u16)]]) -> Option<Self> {
        let cluster = Self::start(shares)?;
        cluster.say(FILL);
        cluster.say_to_each(FUNCTION);
        Some(cluster)
    }

    /// Every value as the servers themselves digest it: as one server would that holds the same, if the number of nodes is odd
    /// and none of them is empty.
    fn digest(&self) -> String {
        let digests = self.say_to_each("DEBUG DIGEST\n");
        let sum = digests.iter().fold([0; 20], |mut sum: [u8; 20], digest| {
            let digest = hex::decode(digest.trim()).unwrap();
            assert_ne!(digest, [0; 20], "no node is empty");
            sum.iter_mut().zip(digest).for_each(|(one, other)| *one ^= other);
            sum
        });
        hex::encode(sum)
    }

    /// Gives a slot that is empty to another node.
    fn give(&self, slot: u16, from: usize, to: usize) {
        let names = self.say_to_each("CLUSTER MYID\n");
        // With this the new master's word is the last one.
        let importing = format!("CLUSTER SETSLOT {slot} IMPORTING {}", names[from]);
        assert_eq!(servers::redis_cli(&self.nodes[to], &[], &importing).trim(), "OK");
        let given = format!("CLUSTER SETSLOT {slot} NODE {}", names[to]);
        assert_eq!(servers::redis_cli(&self.nodes[to], &[], &given).trim(), "OK");
        assert!(self.say_to_each(&given).iter().all(|told| told.trim() == "OK"));
    }

    /// All names, as `redis-cli` prints them.
    fn names(&self) -> BTreeSet<String> {
        self.say_to_each("KEYS *\n").iter().flat_map(|names| names.lines().map(str::to_owned)).collect()
    }

    fn beside(&self) -> usize {
        self.names().iter().filter(|name| is_beside(name)).count()
    }
}

fn is_beside(name: &str) -> bool {
    name.starts_with("kaleem-restore-") && name.contains(":{") && name != ONLY_LOOKS_BESIDE
}

fn address(server: &Server) -> RedisAddress {
    RedisAddress { host: "127.0.0.1".to_owned(), port: server.port, username: None, password: None }
}

fn source(server: &Server) -> RedisSource {
    RedisSource::new("cache".parse().unwrap(), address(server), Duration::from_secs(10))
}

async fn kept(source: RedisSource) -> (FakeVault, Contents, Consistency, Vec<String>) {
    let vault = FakeVault::new();
    let sources: Vec<Arc<dyn BackupSource>> = vec![Arc::new(source)];
    let mut manifest = set::create(&vault, &sources, &request(Protection::Unencrypted), &Noon).await.unwrap();
    let artifact = manifest.artifacts.remove(0);
    (vault, artifact.contents, artifact.consistency, artifact.notes)
}

async fn put_back(vault: &FakeVault, into: &RedisSource, mode: RestoreMode) -> Result<(), String> {
    let request = request(Protection::Unencrypted);
    let restored = set::restore(vault, &request.set, &"cache".parse().unwrap(), into, mode, &Keys::none()).await;
    restored.map(|_| ()).map_err(|error| one_line(&error))
}

fn ttl(text: &str) -> bool {
    (90_000..=100_000).contains(&text.trim().parse::<i64>().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_a_cluster_comes_back_into_it_and_replaces_what_is_there() {
    let Some(cluster) = Cluster::filled(&THREE) else { return };
    let (vault, contents, consistency, notes) = kept(cluster.source()).await;
    assert_eq!((contents["db0"].count, contents["functions"].count), (KEYS - 1, 1), "{contents:?}");
    assert_eq!(consistency, Consistency::PerCollection);
    assert!(notes.iter().any(|note| note.contains("3 masters")) && notes.iter().any(|note| note.starts_with("1 key expires")), "{notes:?}");
    let before = cluster.digest();
    let refused = put_back(&vault, &cluster.source(), RestoreMode::IntoEmpty).await.unwrap_err();
    assert!(refused.contains("is not empty"), "{refused}");
    assert_eq!(cluster.digest(), before);

    cluster.say_to_each("FLUSHALL\nFUNCTION FLUSH\n");
    put_back(&vault, &cluster.source(), RestoreMode::IntoEmpty).await.unwrap();
    assert_eq!(cluster.digest(), before, "the servers' own digest of all values is the same");
    assert!(ttl(cluster.say("TTL later\n").lines().last().unwrap()));
    for (number, told) in cluster.say_to_each("FCALL one 0\n").iter().enumerate() {
        assert_eq!(told.trim(), "1", "master {number} has the function");
    }

    cluster.say("SET text changed\nDEL list\nSET list other\nSET newer 1\nSET newest 1 EX 1000\nDEL hash\nPERSIST later\n");
    cluster.say_to_each("FUNCTION FLUSH\n");
    servers::redis_cli(&cluster.nodes[1], &[], &FUNCTION.replace("lib", "another").replace("one", "two"));
    assert_ne!(cluster.digest(), before);
    put_back(&vault, &cluster.source(), RestoreMode::Replace).await.unwrap();
    assert_eq!(cluster.digest(), before, "what was there is gone");
    assert_eq!(cluster.beside(), 0);
    for told in cluster.say_to_each("FCALL one 0\nFUNCTION LIST\n") {
        assert!(told.starts_with("1\n") && !told.contains("another"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_comes_back_into_one_of_another_shape_and_into_one_server() {
    let Some(cluster) = Cluster::filled(&THREE) else { return };
    let (vault, contents, ..) = kept(cluster.source()).await;
    let two = Cluster::start(&TWO).unwrap();
    put_back(&vault, &two.source(), RestoreMode::IntoEmpty).await.unwrap();
    assert_eq!(two.source().inspect().await.unwrap(), contents);
    // Asked through a node that is not the first one.
    assert_eq!(source(&two.nodes[1]).inspect().await.unwrap(), contents);
    let (vault, again, ..) = kept(two.source()).await;
    assert_eq!(again, contents, "the same is there in whatever shape");

    let place = tempfile::tempdir().unwrap();
    let alone = servers::redis(place.path(), &["--enable-debug-command", "yes"]).unwrap();
    servers::redis_cli(&alone, &[], "SET old 1\n");
    put_back(&vault, &source(&alone), RestoreMode::Replace).await.unwrap();
    let told = servers::redis_cli(&alone, &[], "DEBUG DIGEST\nFCALL one 0\nTTL later\n");
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told[..2], [&cluster.digest(), "1"], "two restores later one server has the digest of three");
    assert!(ttl(told[2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_comes_back_into_a_cluster_and_other_databases_than_the_first_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let Some(alone) = servers::redis(place.path(), &["--enable-debug-command", "yes"]) else { return };
    servers::redis_cli(&alone, &[], FILL);
    servers::redis_cli(&alone, &[], FUNCTION);
    let cluster = Cluster::start(&THREE).unwrap();
    let (vault, contents, ..) = kept(source(&alone)).await;
    cluster.say("SET old 1\n");
    put_back(&vault, &cluster.source(), RestoreMode::Replace).await.unwrap();
    assert_eq!(cluster.source().inspect().await.unwrap(), contents);
    assert_eq!(cluster.digest(), servers::redis_cli(&alone, &[], "DEBUG DIGEST\n").trim());

    let before = cluster.digest();
    for (why, commands, wanted) in [
        ("another database", "SELECT 3\nSET other db3\n".to_owned(), "database 3"),
        ("a name of a restore", format!("SELECT 3\nFLUSHDB\nSELECT 0\nSET {DEAD}:{{1}}:1 1\n"), "takes for its own"),
    ] {
        servers::redis_cli(&alone, &[], &commands);
        let (_, bytes) = export(&source(&alone)).await.unwrap();
        let refused = one_line(&cluster.source().restore(stream(&bytes), RestoreMode::Replace).await.unwrap_err());
        assert!(refused.contains(wanted), "{why}: {refused}");
        assert_eq!((cluster.digest(), cluster.beside()), (before.clone(), 0), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_a_cluster_that_are_cut_or_changed_anywhere_are_refused_and_replace_nothing() {
    let Some(cluster) = Cluster::filled(&THREE) else { return };
    let (exported, bytes) = export(&cluster.source()).await.unwrap();
    assert_eq!(verify(stream(&bytes)).await.unwrap(), exported.contents);
    for at in 0..bytes.len() {
        assert!(verify(stream(&bytes[..at])).await.is_err(), "cut at {at}");
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(verify(stream(&changed)).await.is_err(), "bit {} of byte {at}", at % 8);
    }
    assert!(verify(stream(&[&bytes[..], &[0]].concat())).await.is_err(), "something follows");
    cluster.say("SET newer 1\nSET text changed\n");
    let before = cluster.digest();
    let flipped = |at: usize| {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        changed
    };
    let third = bytes.windows(5).position(|five| five == b"2.rdb").unwrap();
    for (why, damaged) in [
        ("nothing", Vec::new()),
        ("cut in the first file", bytes[..third / 2].to_vec()),
        ("cut between files", bytes[..third].to_vec()),
        ("cut at its end", bytes[..bytes.len() - 1].to_vec()),
        ("changed in the last file", flipped(third + 700)),
        ("changed in its sums", flipped(bytes.len() - 1600)),
    ] {
        let refused = cluster.source().restore(stream(&damaged), RestoreMode::Replace).await;
        assert!(refused.is_err(), "{why}");
        assert_eq!(cluster.digest(), before, "{why}");
        assert_eq!(cluster.beside(), 0, "{why}: nothing is left beside");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_not_whole_is_an_error_and_is_not_restored_to() {
    let Some(holed) = Cluster::start(&[&[(0, 5460)], &[(5462, 16_383)]]) else { return };
    let bytes = {
        let whole = Cluster::filled(&THREE).unwrap();
        let (_, bytes) = export(&whole.source()).await.unwrap();
        // A slot on its way: keys of it may be at either end.
        let id = servers::redis_cli(&whole.nodes[1], &[], "CLUSTER MYID\n");
        servers::redis_cli(&whole.nodes[0], &[], &format!("CLUSTER SETSLOT 7 MIGRATING {id}"));
        let before = whole.digest();
        for told in [
            export(&whole.source()).await.unwrap_err(),
            whole.source().inspect().await.unwrap_err(),
            whole.source().restore(stream(&bytes), RestoreMode::Replace).await.unwrap_err(),
        ] {
            assert!(one_line(&told).contains("7->-"), "{told:?}");
        }
        assert_eq!(whole.digest(), before);
        bytes
    };
    for told in [
        export(&holed.source()).await.unwrap_err(),
        holed.source().inspect().await.unwrap_err(),
        holed.source().restore(stream(&bytes), RestoreMode::Replace).await.unwrap_err(),
    ] {
        let told = one_line(&told);
        assert!(told.contains("1 of 16384 slots are served by nobody, slot 5461"), "{told}");
    }
}

/// A cluster with more on its first node than a pipe holds, and nothing on the others.
fn heavy() -> Option<Cluster> {
    let cluster = Cluster::start(&THREE)?;
    cluster.say_to_each("CONFIG SET rdbcompression no\nCONFIG SET appendonly no\n");
    let first = &cluster.nodes[0];
    let tag = (0_u32..).find(|tag| servers::redis_cli(first, &[], &format!("SET {{{tag}}} 1\n")).trim() == "OK").unwrap();
    let fill: String = (0..4000).map(|number| format!("SETRANGE {{{tag}}}{number} 4000 x\n")).collect();
    servers::redis_cli(first, &[], &fill);
    Some(cluster)
}

/// Exports, and does something while the first node is still being read.
async fn exported_in_two(source: &RedisSource, then: impl FnOnce()) -> Result<Exported, SourceError> {
    let (mut sender, mut receiver) = pipe();
    let writing = async {
        let exported = source.export(&mut sender).await;
        match &exported {
            Ok(_) => sender.finish().await.unwrap(),
            Err(_) => drop(sender),
        }
        exported
    };
    let reading = async {
        let mut read = vec![0; 1_000_000];
        receiver.read_exact(&mut read).await.unwrap();
        then();
        receiver.read_to_end(&mut read).await
    };
    let (exported, read) = tokio::join!(writing, reading);
    assert_eq!(read.is_ok(), exported.is_ok(), "the bytes seem to be whole only where they are");
    exported
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_in_the_middle_of_an_export_or_is_not_there_is_an_error_with_its_address() {
    let Some(mut cluster) = heavy() else { return };
    let source = cluster.source();
    let last = cluster.nodes.pop().unwrap();
    let address = format!("127.0.0.1:{}", last.port);
    let told = one_line(&exported_in_two(&source, || drop(last)).await.unwrap_err());
    assert!(told.contains(&address), "{told}");
    let away = source.inspect().await.unwrap_err();
    assert!(matches!(away, SourceError::Unreachable { .. }), "{away:?}");
    assert!(one_line(&away).contains(&address), "{away:?}");
    // Where that address leads, as seen from here, can be said.
    let elsewhere = kaleem_core::testing::free_port();
    let told = source.reached_at([(address, format!("127.0.0.1:{elsewhere}"))].into()).inspect().await.unwrap_err();
    assert!(one_line(&told).contains(&format!("127.0.0.1:{elsewhere} (announced as")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_get_another_master_during_an_export_are_an_error_and_a_doubt_lowers_what_is_claimed() {
    let Some(cluster) = heavy() else { return };
    let source = cluster.source();
    let still = exported_in_two(&source, || ()).await.unwrap();
    assert_eq!((still.consistency, still.contents["db0"].count), (Consistency::PerCollection, 4001));
    let doubt = exported_in_two(&source, || {
        let told = servers::redis_cli(&cluster.nodes[0], &[], "CLUSTER BUMPEPOCH\n");
        assert!(told.starts_with("BUMPED"), "{told}");
    });
    let doubt = doubt.await.unwrap();
    assert_eq!((doubt.consistency, doubt.contents), (Consistency::None, still.contents));
    assert!(doubt.notes.iter().any(|note| note.contains("was changed while it was read")), "{:?}", doubt.notes);
    let moved = exported_in_two(&source, || cluster.give(16_383, 2, 1)).await.unwrap_err();
    assert!(one_line(&moved).contains("slots got another node meanwhile"), "{moved:?}");
}

/// Gives a restore so many bytes, and the rest when `then` is done; `then` begins when a key is beside its place on that node.
async fn restored_in_two(
    cluster: &Cluster,
    bytes: &[u8],
    cut: usize,
    node: usize,
    then: impl FnOnce(&str),
) -> Result<Contents, SourceError> {
    let source = cluster.source();
    let (mut sender, receiver) = pipe();
    let sending = async {
        sender.send(bytes[..cut].to_vec()).await.unwrap();
        let name = beside_at(&cluster.nodes[node]).await;
        then(&name);
        finish(sender, &bytes[cut..]).await;
    };
    let (restored, ()) = tokio::join!(source.restore(Box::pin(receiver), RestoreMode::Replace), sending);
    restored
}

async fn finish(mut sender: ByteSender, rest: &[u8]) {
    // A restore that has failed takes no more.
    if sender.send(rest.to_vec()).await.is_ok() {
        sender.finish().await.ok();
    }
}

/// Waits for a key beside its place: one that can be typed and does not expire.
async fn beside_at(node: &Server) -> String {
    let typed = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "-:{}".contains(c)) && !name.ends_with(":later");
    for _ in 0..6000 {
        if let Some(name) = servers::redis_cli(node, &[], "KEYS kaleem-restore-*:{*\n")
            .lines()
            .find(|name| is_beside(name) && typed(name) && !name.starts_with(DEAD))
        {
            return name.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing is loaded");
}

/// Where the file of that master begins.
fn file_at(bytes: &[u8], number: usize) -> usize {
    let name = format!("{number}.rdb");
    bytes.windows(name.len()).position(|window| window == name.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_in_the_middle_of_a_restore_leaves_the_old_and_the_next_restore_removes_the_rest() {
    let Some(mut cluster) = Cluster::filled(&THREE) else { return };
    let (exported, bytes) = export(&cluster.source()).await.unwrap();
    cluster.say("SET text changed\nSET newer 1\n");
    let (before, names) = (cluster.digest(), cluster.names());
    let last = cluster.nodes.pop().unwrap();
    let failed = {
        // Keys of the first master are loaded; those of the last one are still to come.
        let cut = file_at(&bytes, 2);
        restored_in_two(&cluster, &bytes, cut, 0, |_| drop(last)).await
    };
    assert!(failed.is_err(), "{failed:?}");
    assert_eq!(cluster.beside(), 0, "the nodes that live hold nothing beside");
    cluster.nodes.push(servers::redis_node(cluster.places[2].path()).unwrap());
    servers::redis_nodes_agree(&cluster.nodes, 16_384);
    assert_eq!((cluster.digest(), cluster.names()), (before, names), "all of the old is there");

    // As if it had died with that, on every node.
    let left: String = (0..100).map(|tag| format!("SET {DEAD}:{{{tag}}}:{tag} 1\n")).collect();
    cluster.say(&left);
    assert_eq!(cluster.beside(), 100);
    let counted = cluster.source().inspect().await.unwrap();
    assert_eq!(counted["db0"].count, KEYS, "what is beside is nobody's data");
    let (again, _) = export(&cluster.source()).await.unwrap();
    assert_eq!(again.contents, counted);
    assert!(again.notes.iter().any(|note| note.contains("a dead restore has left")), "{:?}", again.notes);
    let restored = restored_in_two(&cluster, &bytes, file_at(&bytes, 2), 0, |_| {
        let left = cluster.names().into_iter().filter(|name| name.starts_with(DEAD)).count();
        assert_eq!(left, 0, "it goes before anything is loaded");
    });
    assert_eq!(restored.await.unwrap(), exported.contents);
    assert_eq!(cluster.beside(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_what_is_loaded_meanwhile_makes_a_restore_fail_before_anything_is_replaced() {
    let Some(cluster) = Cluster::filled(&THREE) else { return };
    let (_, bytes) = export(&cluster.source()).await.unwrap();
    cluster.say("SET text changed\nSET newer 1\n");
    let before = cluster.digest();
    let cut = file_at(&bytes, 2);
    let differs = restored_in_two(&cluster, &bytes, cut, 0, |name| {
        assert_eq!(servers::redis_cli(&cluster.nodes[0], &[], &format!("DEL {name}\n")).trim(), "1");
    });
    let differs = differs.await.unwrap_err();
    assert!(matches!(differs, SourceError::Differs { .. }), "{differs:?}");
    assert_eq!((cluster.digest(), cluster.beside()), (before, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_does_not_take_functions_leaves_the_old_ones_and_one_that_does_not_move_leaves_whole_slots() {
    let Some(cluster) = Cluster::filled(&THREE) else { return };
    let (exported, bytes) = export(&cluster.source()).await.unwrap();
    let wanted = cluster.digest();
    let last = &cluster.nodes[2];
    let theirs = |node: &Server| servers::redis_cli(node, &[], "DEBUG DIGEST\n");
    let of_last = theirs(last);
    cluster.say_to_each(&format!("FUNCTION FLUSH\n{}", FUNCTION.replace("lib", "another").replace("one", "two")));
    let fill: String = (0..300).map(|number| format!("SET old{number} 1\n")).collect();
    cluster.say(&fill);
    let before = (cluster.digest(), cluster.names(), cluster.say_to_each("FUNCTION LIST\n"));

    servers::redis_cli(last, &[], "ACL SETUSER default -function|restore\n");
    let told = one_line(&cluster.source().restore(stream(&bytes), RestoreMode::Replace).await.unwrap_err());
    assert!(told.contains("loading functions"), "{told}");
    let after = (cluster.digest(), cluster.names(), cluster.say_to_each("FUNCTION LIST\n"));
    assert_eq!(after, before);
    servers::redis_cli(last, &[], "ACL SETUSER default +function|restore -rename\n");

    let old = servers::redis_cli(last, &[], "KEYS old*\n").lines().count();
    assert!(old > 0);
    let told = one_line(&cluster.source().restore(stream(&bytes), RestoreMode::Replace).await.unwrap_err());
    assert!(told.contains("moving a slot"), "{told}");
    for node in &cluster.nodes[..2] {
        assert_eq!(servers::redis_cli(node, &[], "KEYS old*\n").trim(), "", "their slots are the new ones");
    }
    let beside = servers::redis_cli(last, &[], "KEYS kaleem-restore-*\n").lines().filter(|name| is_beside(name)).count();
    assert!(beside > 0, "what is not moved is not removed either");
    let text: BTreeSet<String> = cluster.names().into_iter().filter(|name| !is_beside(name) && !name.starts_with("old")).collect();
    let all: BTreeSet<String> = before.1.into_iter().filter(|name| !name.starts_with("old")).collect();
    assert_eq!(text, all, "each slot is the old one or the new one");

    servers::redis_cli(last, &[], "ACL SETUSER default +rename\n");
    let restored = cluster.source().restore(stream(&bytes), RestoreMode::Replace).await.unwrap();
    assert_eq!((restored, cluster.digest(), theirs(last), cluster.beside()), (exported.contents, wanted, of_last, 0));
    servers::redis_cli(last, &[], "ACL SETUSER default -info\n");
    let told = source(last).inspect().await.unwrap_err();
    assert!(matches!(told, SourceError::Denied { .. }), "whoever may not ask does not get a part: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_has_expired_since_it_was_kept_is_gone_and_takes_the_old_one_with_it() {
    let Some(cluster) = Cluster::filled(&THREE) else { return };
    cluster.say_to_each("DEBUG SET-ACTIVE-EXPIRE 0\n");
    let time = || -> Vec<u64> { cluster.say("TIME\n").lines().map(|part| part.parse().unwrap()).collect() };
    cluster.say("SET gone new PX 1\n");
    let since = time();
    // Nobody asks for it, so it is still there for a replica when its time has passed.
    while time()[0] < since[0] + 1 {}
    let (exported, bytes) = export(&cluster.source()).await.unwrap();
    assert!(exported.notes.iter().any(|note| note.starts_with("2 keys expire")), "it is in the bytes: {:?}", exported.notes);
    cluster.say("SET gone old\n");
    assert_eq!(cluster.source().restore(stream(&bytes), RestoreMode::Replace).await.unwrap(), exported.contents);
    assert_eq!(cluster.say("EXISTS gone\n").lines().last().unwrap().trim(), "0");
    assert_eq!(cluster.beside(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_leads_to_its_masters_and_is_not_counted_twice() {
    let Some(cluster) = Cluster::start(&[&[(0, 9999)], &[(10_000, 16_383)], &[]]) else { return };
    cluster.say(FILL);
    let id = servers::redis_cli(&cluster.nodes[1], &[], "CLUSTER MYID\n");
    let replica = &cluster.nodes[2];
    assert_eq!(servers::redis_cli(replica, &[], &format!("CLUSTER REPLICATE {id}")).trim(), "OK");
    let (_, bytes) = export(&source(replica)).await.unwrap();
    let contents = verify(stream(&bytes)).await.unwrap();
    assert_eq!(contents["db0"].count, KEYS - 1);
    cluster.say("SET text changed\nSET newer 1\n");
    assert_eq!(source(replica).restore(stream(&bytes), RestoreMode::Replace).await.unwrap(), contents);
    assert_eq!(cluster.say("GET text\n").lines().last().unwrap(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_gets_another_master_is_followed_there() {
    let Some(from) = Cluster::filled(&THREE) else { return };
    let (exported, bytes) = export(&from.source()).await.unwrap();
    let into = Cluster::start(&THREE).unwrap();
    // The slot of a key of the last file goes to the first master before that file is read.
    let names = servers::redis_cli(&from.nodes[2], &[], "KEYS *\n");
    let name = names.lines().find(|name| name.chars().all(|c| c.is_ascii_alphanumeric())).unwrap();
    let slot = servers::redis_cli(&from.nodes[2], &[], &format!("CLUSTER KEYSLOT {name}\n"));
    let slot = slot.trim().parse().unwrap();
    let cut = file_at(&bytes, 2);
    let restored = restored_in_two(&into, &bytes, cut, 0, |_| into.give(slot, 2, 0));
    assert_eq!(restored.await.unwrap(), exported.contents);
    let there = servers::redis_cli(&into.nodes[0], &[], &format!("CLUSTER COUNTKEYSINSLOT {slot}\n"));
    assert_ne!(there.trim(), "0");
    assert_eq!(into.digest(), from.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_a_cluster_that_is_longer_than_a_command_takes_is_refused_and_replaces_nothing() {
    let Some(cluster) = Cluster::start(&THREE) else { return };
    cluster.say_to_each("CONFIG SET rdbcompression no\n");
    cluster.say(&format!("SETRANGE huge {} x\nSET small 1\n", 64 << 20));
    let (vault, contents, ..) = kept(cluster.source()).await;
    assert_eq!(contents["db0"].count, 2);
    cluster.say("DEL huge\nSET before 1\n");
    let names = cluster.names();
    let told = put_back(&vault, &cluster.source(), RestoreMode::Replace).await.unwrap_err();
    assert!(told.contains("huge") && told.contains("64 MiB"), "{told}");
    assert_eq!(cluster.names(), names);
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_tools_recover_each_master_of_a_cluster() {
    let Some(cluster) = Cluster::filled(&THREE) else { return };
    if !servers::all_there(&["redis-check-rdb", "tar"]) {
        return;
    }
    let (_, bytes) = export(&cluster.source()).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    kaleem_core::durable::create_new(&place.path().join("exported.tar"), &bytes).unwrap();
    assert!(servers::shell("tar -xf exported.tar && for file in 0 1 2; do redis-check-rdb $file.rdb; done", place.path()));
    let told = std::fs::read_to_string(place.path().join("cluster.json")).unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["masters"][1]["slots"], serde_json::json!([[5461, 10_922]]));
    let mut found = 0;
    for number in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        std::fs::copy(place.path().join(format!("{number}.rdb")), directory.path().join("dump.rdb")).unwrap();
        let alone = servers::redis(directory.path(), &[]).unwrap();
        found += servers::redis_cli(&alone, &[], "DBSIZE\n").trim().parse::<u64>().unwrap();
    }
    assert_eq!(found, KEYS);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_of_a_cluster_make_one_artifact_and_another_server_one_of_its_own() {
    let Some(cluster) = Cluster::filled(&THREE) else { return };
    let own = tempfile::tempdir().unwrap();
    let Some(alone) = servers::redis(own.path(), &[]) else { return };
    let named = |name: &str, server: &Server| -> Arc<dyn BackupSource> {
        Arc::new(RedisSource::new(name.parse().unwrap(), address(server), Duration::from_secs(10)))
    };
    let nodes = &cluster.nodes;
    let sources = || vec![named("cache-1", &nodes[0]), named("alone", &alone), named("cache-2", &nodes[1]), named("cache-3", &nodes[2])];
    let place = tempfile::tempdir().unwrap();
    let made_of = async |sources: Vec<Arc<dyn BackupSource>>, only: &[&str]| {
        let vault = Arc::new(FakeVault::new());
        let backups = Backups::new(parts(place.path(), sources, vec![("one", vault)]));
        let only = only.iter().map(|name| name.parse().unwrap()).collect();
        let made = backups.create(&NewSet { only, ..NewSet::default() }, Arc::new(|_| {})).await.unwrap();
        let names: Vec<String> = made.manifest.artifacts.iter().map(|record| record.name.to_string()).collect();
        let twins: Vec<String> = made.twins.iter().map(|(part, whole)| format!("{part} in {whole}")).collect();
        (names.join(" "), twins.join(", "))
    };
    let all = made_of(sources(), &[]).await;
    assert_eq!(all, ("alone cache-1".to_owned(), "cache-2 in cache-1, cache-3 in cache-1".to_owned()));
    // Whoever wants one gets it.
    assert_eq!(made_of(sources(), &["cache-2"]).await, ("cache-2".to_owned(), String::new()));
}
