//! MongoDB: one moment, users and roles, the oplog, and one collection alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use kaleem_backup::seal::{Keys, Protection};
use kaleem_backup::set;
use kaleem_backup::source::mongo::{MongoScope, MongoSource};
use kaleem_core::backup::{BackupSource, Consistency, RestoreMode, SourceError};
use kaleem_core::remedy::one_line;
use kaleem_core::secret::Secret;
use kaleem_core::testing::FakeVault;
use mongodb::bson::{Document, doc};

use crate::mongo_member::Member;
use crate::servers;
use crate::support::{Noon, export, request, stream};

async fn source(port: u16, scope: MongoScope) -> MongoSource {
    let connection = Secret::new(format!("mongodb://127.0.0.1:{port}/?directConnection=true"));
    MongoSource::connect("main".parse().unwrap(), &connection, scope).await.unwrap()
}

fn said(error: &SourceError) -> String {
    format!("{error:?} {}", one_line(error))
}

/// Collections of a shop, and two that must be equal at every moment.
fn fill(member: &Member) {
    let mut world = member.world();
    for number in 0..150 {
        world.write("shop.debit", doc! { "_id": number });
        world.write("shop.credit", doc! { "_id": number });
        for name in ["a", "b", "c", "d", "e", "f"] {
            world.write(&format!("shop.{name}"), doc! { "_id": number, "name": name });
        }
    }
    world.busy = true;
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_that_are_read_at_the_same_time_are_of_one_moment_where_a_snapshot_is_claimed() {
    let member = Member::start();
    fill(&member);
    for round in 0..5 {
        let (exported, bytes) = export(&source(member.address.port(), MongoScope::everything()).await).await.unwrap();
        assert_eq!(exported.consistency, Consistency::Snapshot, "{:?}", exported.notes);
        let found = source(member.address.port(), MongoScope::everything()).await.verify(stream(&bytes)).await.unwrap();
        assert_eq!(found, exported.contents);
        let (debit, credit) = (found["shop.debit"].count, found["shop.credit"].count);
        assert_eq!(debit, credit, "round {round}: {:?}", exported.notes);
        let now = member.world().documents("shop.debit").len() as u64;
        assert!(debit < now, "something was written meanwhile: {debit} were read, {now} are there");
    }
    // Without a moment the same reading sees some of what was written meanwhile, and does not claim otherwise.
    let scope = MongoScope { one_moment: false, ..MongoScope::everything() };
    let (exported, _) = export(&source(member.address.port(), scope).await).await.unwrap();
    assert_eq!(exported.consistency, Consistency::PerCollection);
    assert!(exported.notes.iter().any(|note| note.contains("not asked for")), "{:?}", exported.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_names_a_moment_and_does_not_keep_to_it_is_not_believed() {
    let Some(server) = servers::mongo() else { return };
    let client = mongodb::Client::with_uri_str(format!("mongodb://127.0.0.1:{}/?directConnection=true", server.port)).await.unwrap();
    client.database("shop").collection("orders").insert_one(doc! { "_id": 1 }).await.unwrap();
    let (exported, _) = export(&source(server.port, MongoScope::everything()).await).await.unwrap();
    assert_eq!(exported.consistency, Consistency::PerCollection, "nothing was written, and still nothing is claimed");
    assert!(exported.notes.iter().any(|note| note.contains("does not keep to it")), "{:?}", exported.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_the_server_forgets_meanwhile_is_an_error_that_says_what_to_do() {
    let member = Member::start();
    fill(&member);
    for after in [0, 3, 11] {
        member.world().forgets_after = Some(after);
        let error = export(&source(member.address.port(), MongoScope::everything()).await).await.unwrap_err();
        let said = said(&error);
        assert!(said.contains("minSnapshotHistoryWindowInSeconds") && said.contains("one-moment = false"), "after {after}: {said}");
    }
}

fn user(name: &str, hash: &str) -> Document {
    doc! { "_id": format!("shop.{name}"), "userId": name, "user": name, "db": "shop",
    "credentials": { "SCRAM-SHA-256": { "iterationCount": 15000, "salt": "c2FsdA==", "storedKey": hash, "serverKey": hash } },
    "roles": [{ "role": "clerk", "db": "shop" }] }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_roles_come_back_and_others_stay() {
    let (one, other) = (Member::start(), Member::start());
    let role = doc! { "_id": "shop.clerk", "role": "clerk", "db": "shop", "privileges": [], "roles": [] };
    {
        let mut world = one.world();
        world.write("shop.orders", doc! { "_id": 1 });
        world.write("admin.system.users", user("app", "hunter2-hash"));
        world.write("admin.system.users", doc! { "_id": "blog.app", "user": "app", "db": "blog", "credentials": { "external": true } });
        world.write("admin.system.roles", role.clone());
        world.write("admin.system.version", doc! { "_id": "authSchema", "currentVersion": 5 });
    }
    let keeper = doc! { "_id": "admin.keeper", "user": "keeper", "db": "admin", "credentials": { "SCRAM-SHA-256": {} } };
    other.world().write("admin.system.users", keeper.clone());
    let scope = MongoScope { users: true, ..MongoScope::databases(vec!["shop".to_owned()]) };
    let from = Arc::new(source(one.address.port(), scope.clone()).await);
    let vault = FakeVault::new();
    let request = request(Protection::Unencrypted);
    let manifest = set::create(&vault, &[from.clone() as Arc<dyn BackupSource>], &request, &Noon).await.unwrap();
    let artifact = &manifest.artifacts[0];
    assert_eq!(artifact.contents["admin.system.users"].count, 1, "only those of the databases that are named");
    assert_eq!(artifact.contents["admin.system.roles"].count, 1);
    assert!(artifact.notes.iter().any(|note| note.contains("hashes of passwords")), "{:?}", artifact.notes);

    let name = "main".parse().unwrap();
    let into = source(other.address.port(), scope.clone()).await;
    let restore = async |mode| set::restore(&vault, &request.set, &name, &into, mode, &Keys::none()).await;
    restore(RestoreMode::IntoEmpty).await.unwrap();
    let users = || -> BTreeSet<String> { other.world().documents("admin.system.users").iter().map(ToString::to_string).collect() };
    let wanted: BTreeSet<String> = [&keeper, &user("app", "hunter2-hash")].into_iter().map(ToString::to_string).collect();
    assert_eq!(users(), wanted);
    assert_eq!(other.world().documents("admin.system.roles"), [role]);
    assert_eq!(other.world().documents("shop.orders"), [doc! { "_id": 1 }]);
    let left = other.world().namespaces();
    assert!(!left.iter().any(|name| name.contains("kaleem_")), "{left:?}");

    // A user that is there is not replaced unless that was said, and nothing else is then either.
    other.world().take_away("shop.orders");
    let refused = restore(RestoreMode::IntoEmpty).await.unwrap_err();
    assert!(one_line(&refused).contains("`shop.app` in admin.system.users is not empty"), "{}", one_line(&refused));
    assert!(other.world().documents("shop.orders").is_empty());
    other.world().replace("admin.system.users", &user("app", "hunter2-other"));
    restore(RestoreMode::Replace).await.unwrap();
    assert_eq!(users(), wanted);

    // A server that cannot put them back says so before anything is changed; one that does not show credentials has no backup.
    let Some(server) = servers::mongo() else { return };
    let client = mongodb::Client::with_uri_str(format!("mongodb://127.0.0.1:{}/?directConnection=true", server.port)).await.unwrap();
    let target = source(server.port, scope.clone()).await;
    let refused = set::restore(&vault, &request.set, &name, &target, RestoreMode::IntoEmpty, &Keys::none()).await.unwrap_err();
    assert!(one_line(&refused).contains("does not put them back"), "{}", one_line(&refused));
    assert!(client.database("shop").list_collection_names().await.unwrap().is_empty());
    client.database("shop").run_command(doc! { "createUser": "late", "pwd": "hunter2", "roles": ["read"] }).await.unwrap();
    let refused = export(&target).await.unwrap_err();
    assert!(
        one_line(&refused).contains("the user `shop.late` cannot be backed up: the server does not show its credentials"),
        "{}",
        said(&refused)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_reading_is_with_it_where_that_was_asked_for() {
    let member = Member::start();
    fill(&member);
    let scope = MongoScope { oplog: true, ..MongoScope::everything() };
    let from = source(member.address.port(), scope.clone()).await;
    let (exported, bytes) = export(&from).await.unwrap();
    assert!(exported.notes.iter().any(|note| note.contains("--oplogReplay")), "{:?}", exported.notes);
    assert!(!exported.contents.keys().any(|name| name.contains("oplog")), "it is not put back: {:?}", exported.contents.keys());
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("archive");
    kaleem_core::durable::create_new(&archive, &bytes).unwrap();
    let Some(server) = servers::mongo() else { return };
    let printed = servers::python(&[concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/read_archive.py"), archive.to_str().unwrap()]);
    let oplog = printed.lines().find(|line| line.ends_with(" .oplog")).unwrap();
    let entries: u64 = oplog.split(' ').next().unwrap().parse().unwrap();
    assert!(entries > 10, "{printed}");
    let told = format!("{entries} entries of the oplog");
    assert!(exported.notes.iter().any(|note| note.starts_with(&told)), "{told}: {:?}", exported.notes);
    // kaleem puts back the moment at which reading began.
    let into = Member::start();
    let restored =
        source(into.address.port(), MongoScope::everything()).await.restore(stream(&bytes), RestoreMode::IntoEmpty).await.unwrap();
    assert_eq!(restored, exported.contents);

    // One that has forgotten the beginning is no slice.
    let cut = bytes.len() - 60;
    assert!(from.verify(stream(&bytes[..cut])).await.is_err());
    let short = Member::start();
    short.world().write("shop.orders", doc! { "_id": 1 });
    short.world().forgets_its_oplog = true;
    let error = export(&source(short.address.port(), scope.clone()).await).await.unwrap_err();
    assert!(one_line(&error).contains("it is too short"), "{}", said(&error));

    // The real server, and another that has none.
    let client = mongodb::Client::with_uri_str(format!("mongodb://127.0.0.1:{}/?directConnection=true", server.port)).await.unwrap();
    client.database("shop").collection("orders").insert_one(doc! { "_id": 1 }).await.unwrap();
    let (exported, bytes) = export(&source(server.port, scope.clone()).await).await.unwrap();
    assert!(exported.notes.iter().any(|note| note.contains("1 entries of the oplog")), "{:?}", exported.notes);
    assert_eq!(from.verify(stream(&bytes)).await.unwrap(), exported.contents);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_collection_comes_back_and_the_others_stay_as_they_are() {
    let Some(server) = servers::mongo() else { return };
    let client = mongodb::Client::with_uri_str(format!("mongodb://127.0.0.1:{}/?directConnection=true", server.port)).await.unwrap();
    let shop = client.database("shop");
    for name in ["orders", "orders.old", "users"] {
        shop.collection(name).insert_many((0..2000).map(|number| doc! { "_id": number, "in": name })).await.unwrap();
    }
    shop.run_command(doc! { "createIndexes": "orders", "indexes": [{ "key": { "in": 1 }, "name": "in" }] }).await.unwrap();
    let source = Arc::new(source(server.port, MongoScope::everything()).await);
    let vault = FakeVault::new();
    let request = request(Protection::Unencrypted);
    let manifest = set::create(&vault, &[source.clone() as Arc<dyn BackupSource>], &request, &Noon).await.unwrap();
    let record = &manifest.artifacts[0];
    for name in ["orders", "users"] {
        shop.collection::<Document>(name).delete_many(doc! { "_id": { "$lt": 500 } }).await.unwrap();
    }
    let changed = source.inspect().await.unwrap();
    let put_back = async |collection: &str, mode| {
        set::put_back(&vault, &request.set, record, Some(collection), source.as_ref(), mode, &Keys::none()).await
    };
    let refused = put_back("shop.orders", RestoreMode::IntoEmpty).await.unwrap_err();
    assert!(one_line(&refused).contains("shop.orders is not empty"), "{}", one_line(&refused));
    for nowhere in ["shop.order", "orders", "shop", ""] {
        let refused = put_back(nowhere, RestoreMode::Replace).await.unwrap_err();
        assert!(one_line(&refused).contains(&format!("`main` has no collection `{nowhere}`")), "{}", one_line(&refused));
    }
    assert_eq!(source.inspect().await.unwrap(), changed, "nothing was changed");
    let restored = put_back("shop.orders", RestoreMode::Replace).await.unwrap();
    assert_eq!(restored.len(), 3, "the collection, its options and its indexes: {:?}", restored.keys());
    let found = source.inspect().await.unwrap();
    assert_eq!(found["shop.orders"], record.contents["shop.orders"]);
    assert_eq!(found["indexes of shop.orders"].count, 2);
    assert_eq!(found["shop.users"], changed["shop.users"], "the others stay");
    shop.collection::<Document>("orders.old").drop().await.unwrap();
    put_back("shop.orders.old", RestoreMode::IntoEmpty).await.unwrap();

    // What is damaged anywhere replaces nothing, also where it is not wanted.
    let (_, bytes) = export(source.as_ref()).await.unwrap();
    let before = source.inspect().await.unwrap();
    let mut damaged = bytes.clone();
    // In the last collection, which is not the one that is wanted.
    let at = damaged.len() - 100;
    damaged[at] ^= 1;
    assert!(source.restore_part(stream(&damaged), "shop.orders", RestoreMode::Replace).await.is_err());
    assert_eq!(source.inspect().await.unwrap(), before);
    let missing = source.restore_part(stream(&bytes), "shop.nothing", RestoreMode::Replace).await.unwrap_err();
    assert!(matches!(missing, SourceError::Unsupported { .. }), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_members_of_a_replica_set_say_that_they_are_one_and_other_databases_are_another_matter() {
    let member = Member::start();
    let whole = async |scope: MongoScope| source(member.address.port(), scope).await.whole().await.unwrap();
    let everything = whole(MongoScope::everything()).await;
    assert!(everything.as_ref().is_some_and(|name| name.contains("rs0")), "{everything:?}");
    assert_eq!(whole(MongoScope::everything()).await, everything);
    assert_ne!(whole(MongoScope::databases(vec!["shop".to_owned()])).await, everything);
}
