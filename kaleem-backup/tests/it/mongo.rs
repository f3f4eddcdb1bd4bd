//! MongoDB: what is dumped is what is there, and comes back so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kaleem_backup::seal::{Keys, Protection};
use kaleem_backup::set;
use kaleem_backup::source::mongo::{MongoScope, MongoSource};
use kaleem_core::backup::{BackupSource, Consistency, RestoreMode, SourceError, pipe};
use kaleem_core::secret::Secret;
use kaleem_core::testing::FakeVault;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, Regex, Timestamp, doc};
use mongodb::{Client, Database};
use tokio::io::AsyncReadExt;

use crate::servers::{self, Server};
use crate::support::{Noon, export, request, stream};

async fn client(server: &Server) -> Client {
    Client::with_uri_str(format!("mongodb://127.0.0.1:{}/?directConnection=true", server.port)).await.unwrap()
}

async fn source(server: &Server, scope: MongoScope) -> MongoSource {
    let connection = Secret::new(format!("mongodb://127.0.0.1:{}/?directConnection=true", server.port));
    MongoSource::connect("main".parse().unwrap(), &connection, scope).await.unwrap()
}

fn shop() -> MongoScope {
    MongoScope::databases(vec!["shop".to_owned()])
}

fn every_type() -> Document {
    doc! {
        "_id": ObjectId::new(), "double": 1.5, "not a number": f64::NAN, "text": "zwölf\0\u{1F980}", "inner": { "b": 1, "a": [1, 2_i64] },
        "binary": Binary { subtype: BinarySubtype::UserDefined(0x90), bytes: vec![0, 255, 1] }, "true": true,
        "date": DateTime::from_millis(-1), "null": Bson::Null,
        "regex": Regex { pattern: "^a.*".try_into().unwrap(), options: "im".try_into().unwrap() },
        "code": Bson::JavaScriptCode("1 + 1".to_owned()),
        "scoped": JavaScriptCodeWithScope { code: "x".to_owned(), scope: doc! { "x": 1 } },
        "int": 7, "long": i64::MIN, "decimal": "1.10E+3".parse::<Decimal128>().unwrap(),
        "timestamp": Timestamp { time: 5, increment: 6 }, "least": Bson::MinKey, "most": Bson::MaxKey,
    }
}

async fn fill(database: &Database) {
    database.collection("types").insert_one(every_type()).await.unwrap();
    let many: Vec<Document> =
        (0..3000).map(|number| doc! { "_id": number, "text": format!("number {number}"), "group": number % 7 }).collect();
    database.collection("many").insert_many(many).await.unwrap();
    database.collection("big").insert_one(doc! { "_id": 1, "text": "x".repeat(16 * 1024 * 1024 - 100) }).await.unwrap();
    for name in ["with.dots.in.it", "ünïcode-☃", "a b"] {
        database.collection(name).insert_one(doc! { "_id": name }).await.unwrap();
    }
    for command in [
        doc! { "create": "empty" },
        doc! { "create": "last", "capped": true, "size": 100_000, "max": 50 },
        doc! { "create": "checked", "validator": { "$jsonSchema": { "required": ["n"] } }, "validationLevel": "strict" },
        doc! { "create": "sevens", "viewOn": "many", "pipeline": [{ "$match": { "group": 0 } }] },
        doc! { "createIndexes": "many", "indexes": [
            { "key": { "text": 1 }, "name": "text", "unique": true },
            { "key": { "group": -1, "_id": 1 }, "name": "compound" },
            { "key": { "when": 1 }, "name": "gone", "expireAfterSeconds": 3600 },
            { "key": { "group": 1 }, "name": "some", "partialFilterExpression": { "group": { "$gt": 3 } } },
        ] },
    ] {
        database.run_command(command).await.unwrap();
    }
    for number in 0..5 {
        database.collection("last").insert_one(doc! { "_id": number }).await.unwrap();
        database.collection("checked").insert_one(doc! { "_id": number, "n": number }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_as_it_was_through_a_set() {
    let Some(server) = servers::mongo() else { return };
    let client = client(&server).await;
    fill(&client.database("shop")).await;
    client.database("other").collection("untouched").insert_one(doc! { "_id": 1 }).await.unwrap();
    let source = Arc::new(source(&server, shop()).await);
    let before = source.inspect().await.unwrap();
    assert_eq!(before["shop.many"].count, 3000);
    assert_eq!(before["indexes of shop.many"].count, 5);
    assert_eq!(before["shop.last"].count, 5);
    assert!(!before.keys().any(|name| name.contains("other")), "only what is in scope");

    let vault = FakeVault::new();
    let request = request(Protection::Unencrypted);
    let sources: Vec<Arc<dyn BackupSource>> = vec![source.clone()];
    let manifest = set::create(&vault, &sources, &request, &Noon).await.unwrap();
    let artifact = &manifest.artifacts[0];
    assert_eq!(artifact.contents, before);
    assert_eq!(artifact.consistency, Consistency::PerCollection, "this server keeps to no moment: {:?}", artifact.notes);

    let name = "main".parse().unwrap();
    let refused = set::restore(&vault, &request.set, &name, source.as_ref(), RestoreMode::IntoEmpty, &Keys::none()).await;
    assert!(refused.is_err(), "it is not empty");
    assert_eq!(source.inspect().await.unwrap(), before);

    client.database("shop").drop().await.unwrap();
    set::restore(&vault, &request.set, &name, source.as_ref(), RestoreMode::IntoEmpty, &Keys::none()).await.unwrap();
    assert_eq!(source.inspect().await.unwrap(), before);
    let types = client.database("shop").collection::<Document>("types").find_one(doc! {}).await.unwrap().unwrap();
    assert_eq!(types.keys().collect::<Vec<_>>(), every_type().keys().collect::<Vec<_>>());
    let refusal = client.database("shop").collection("checked").insert_one(doc! { "_id": 99 }).await;
    assert!(refusal.is_err(), "the validator is back");
    let twice = client.database("shop").collection("many").insert_one(doc! { "_id": -1, "text": "number 1" }).await;
    assert!(twice.is_err(), "the unique index is back");
    let sevens = client.database("shop").collection::<Document>("sevens").count_documents(doc! {}).await.unwrap();
    assert_eq!(sevens, 429, "the view is back");

    client.database("shop").collection::<Document>("many").delete_many(doc! { "group": 1 }).await.unwrap();
    let newer = source.inspect().await.unwrap();
    let replaced = set::restore(&vault, &request.set, &name, source.as_ref(), RestoreMode::Replace, &Keys::none()).await;
    match replaced {
        Ok(_) => assert_eq!(source.inspect().await.unwrap(), before),
        // This server forgets validators when it renames, which is found out before anything is replaced.
        Err(_) => assert_eq!(source.inspect().await.unwrap(), newer),
    }
    let names = client.database("shop").list_collection_names().await.unwrap();
    assert!(!names.iter().any(|name| name.starts_with("kaleem_")), "nothing is left beside: {names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_documents_and_odd_names_come_back() {
    let Some(server) = servers::mongo() else { return };
    let database = client(&server).await.database("shop");
    for from in (0..100_000).step_by(10_000) {
        let some = (from..from + 10_000).map(|number| doc! { "_id": number, "n": number % 97 });
        database.collection("small").insert_many(some).await.unwrap();
    }
    let odd = ["pay$day", "a.b$c.d", "$", "dots...", "日本語.☃", "e\u{301}", "é", "with spaces", "slash/back\\slash", "per%cent"];
    let mut taken = Vec::new();
    for name in odd {
        // Some servers refuse some of them; what is there must come back.
        if database.collection(name).insert_one(doc! { "_id": name, "name": name }).await.is_ok() {
            taken.push(name);
        }
    }
    assert!(taken.contains(&"日本語.☃") && taken.contains(&"dots..."), "{taken:?}");
    let source = Arc::new(source(&server, shop()).await);
    let vault = FakeVault::new();
    let request = request(Protection::Unencrypted);
    let manifest = set::create(&vault, &[source.clone() as Arc<dyn BackupSource>], &request, &Noon).await.unwrap();
    let contents = &manifest.artifacts[0].contents;
    assert_eq!(contents["shop.small"].count, 100_000);
    database.drop().await.unwrap();
    let name = "main".parse().unwrap();
    set::restore(&vault, &request.set, &name, source.as_ref(), RestoreMode::IntoEmpty, &Keys::none()).await.unwrap();
    assert_eq!(&source.inspect().await.unwrap(), contents);
    for name in taken {
        let found = database.collection::<Document>(name).find_one(doc! { "_id": name }).await.unwrap();
        assert_eq!(found, Some(doc! { "_id": name, "name": name }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_other_hands_finds_the_same_in_our_archive() {
    let Some(server) = servers::mongo() else { return };
    let database = client(&server).await.database("shop");
    let many: Vec<Document> = (0..300).map(|number| doc! { "_id": number, "inner": every_type() }).collect();
    database.collection("many").insert_many(many).await.unwrap();
    database.run_command(doc! { "create": "empty" }).await.unwrap();
    database.collection("ünïcode.☃").insert_one(every_type()).await.unwrap();
    let wide: Vec<Document> = (0..12).map(|number| doc! { "_id": number, "text": "w".repeat(100_000) }).collect();
    database.collection("wide").insert_many(wide).await.unwrap();
    let (exported, bytes) = export(&source(&server, shop()).await).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("archive");
    kaleem_core::durable::create_new(&archive, &bytes).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/read_archive.py");
    let printed = servers::python(&[script, archive.to_str().unwrap()]);
    let wanted: Vec<String> = exported
        .contents
        .iter()
        .filter(|(name, _)| name.starts_with("shop."))
        .map(|(name, content)| format!("{} {} {name}", content.count, content.digest))
        .collect();
    assert_eq!(wanted.len(), 4);
    assert_eq!(printed.lines().collect::<Vec<_>>(), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_cut_short_replaces_nothing() {
    let Some(server) = servers::mongo() else { return };
    let client = client(&server).await;
    let database = client.database("shop");
    database.collection("one").insert_many((0..50).map(|number| doc! { "_id": number })).await.unwrap();
    database.collection("two").insert_many((0..50).map(|number| doc! { "_id": number })).await.unwrap();
    let source = source(&server, shop()).await;
    let (exported, bytes) = export(&source).await.unwrap();
    database.collection("one").insert_one(doc! { "_id": "newer" }).await.unwrap();
    let newer = source.inspect().await.unwrap();
    for length in [0, 10, 200, bytes.len() / 2, bytes.len() - 20, bytes.len() - 1] {
        let found = source.restore(stream(&bytes[..length]), RestoreMode::Replace).await;
        assert!(found.is_err(), "cut at {length}");
        assert_eq!(source.inspect().await.unwrap(), newer, "cut at {length}");
    }
    let mut changed = bytes.clone();
    // The last document of the last collection.
    let at = changed.len() - 100;
    changed[at] ^= 1;
    assert!(source.restore(stream(&changed), RestoreMode::Replace).await.is_err());
    assert_eq!(source.inspect().await.unwrap(), newer);
    assert_eq!(source.restore(stream(&bytes), RestoreMode::Replace).await.unwrap(), exported.contents);
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_that_are_written_while_dumping_balance_where_a_snapshot_is_claimed() {
    let Some(server) = servers::mongo() else { return };
    let client = client(&server).await;
    let database = client.database("shop");
    for name in ["debit", "credit"] {
        database.collection(name).insert_many((0..500).map(|number| doc! { "_id": number, "text": "x".repeat(100) })).await.unwrap();
    }
    let done = Arc::new(AtomicBool::new(false));
    let writing = {
        let (client, done) = (client.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut number = 1000;
            while !done.load(Ordering::Relaxed) {
                let mut session = client.start_session().await.unwrap();
                session.start_transaction().await.unwrap();
                // The one that is read last is written first, so that a reader without a snapshot sees more of it.
                for name in ["debit", "credit"] {
                    let collection = client.database("shop").collection::<Document>(name);
                    collection.insert_one(doc! { "_id": number }).session(&mut session).await.unwrap();
                }
                session.commit_transaction().await.unwrap();
                number += 1;
            }
            number
        })
    };
    let source = source(&server, shop()).await;
    for round in 0..6 {
        let (exported, bytes) = export(&source).await.unwrap();
        let found = source.verify(stream(&bytes)).await.unwrap();
        assert_eq!(found, exported.contents);
        if exported.consistency == Consistency::Snapshot {
            assert_eq!(found["shop.credit"].count, found["shop.debit"].count, "round {round}: {:?}", exported.notes);
        } else {
            assert!(exported.notes.iter().any(|note| note.contains("moment")), "it says why not: {:?}", exported.notes);
        }
    }
    done.store(true, Ordering::Relaxed);
    assert!(writing.await.unwrap() > 1000, "something was written meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_or_is_not_there_is_an_error() {
    let Some(mut server) = servers::mongo() else { return };
    let client = client(&server).await;
    let text = "y".repeat(10_000);
    client.database("shop").collection("many").insert_many((0..4000).map(|number| doc! { "_id": number, "text": &text })).await.unwrap();
    let source = source(&server, shop()).await;
    let (mut sender, mut receiver) = pipe();
    let reading = async {
        let mut first = vec![0; 1_000_000];
        receiver.read_exact(&mut first).await.unwrap();
        server.kill();
        let mut rest = Vec::new();
        receiver.read_to_end(&mut rest).await
    };
    let writing = async {
        let exported = source.export(&mut sender).await;
        drop(sender);
        exported
    };
    let (exported, read) = tokio::join!(writing, reading);
    assert!(exported.is_err(), "{exported:?}");
    assert!(read.is_err(), "the bytes do not seem to be whole");
    let gone = MongoSource::connect(
        "main".parse().unwrap(),
        &Secret::new(format!("mongodb://user:hunter2@127.0.0.1:{}/?serverSelectionTimeoutMS=300", server.port)),
        MongoScope::everything(),
    )
    .await
    .unwrap();
    let error = gone.inspect().await.unwrap_err();
    assert!(matches!(error, SourceError::Unreachable { .. }), "{error:?}");
    let shown = format!("{gone:?} {error:?} {}", kaleem_core::remedy::one_line(&error));
    assert!(!shown.contains("hunter2"), "{shown}");
    let invalid = Secret::new("mongodb://u:hunter2@".to_owned());
    let error = MongoSource::connect("main".parse().unwrap(), &invalid, MongoScope::everything()).await.unwrap_err();
    assert!(!format!("{error:?}").contains("hunter2"));
}
