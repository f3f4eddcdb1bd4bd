//! The archive format of mongodump: archives of the real tool are read, and nothing that is cut or changed passes.

use kaleem_backup::format::mongo_archive::{ArchiveCollection, ArchiveReader, ArchiveWriter, verify};
use kaleem_core::backup::{SourceError, pipe};

use crate::support::{BAR, OPLOG, stream};

#[tokio::test]
async fn archives_of_the_real_mongodump_are_whole_and_sound() {
    for (why, archive, wanted) in
        [("one collection", BAR, &[("test.bar", 1), ("indexes of test.bar", 1)][..]), ("with an oplog", OPLOG, &[("test.foo", 1)][..])]
    {
        let contents = verify(stream(archive)).await.unwrap();
        for (name, least) in wanted {
            let found = contents.get(*name).unwrap_or_else(|| panic!("{why}: {name} is missing in {:?}", contents.keys()));
            assert!(found.count >= *least, "{why}: {name} has {found:?}");
        }
    }
}

#[tokio::test]
async fn an_archive_that_is_cut_at_any_byte_is_refused() {
    for (name, archive) in [("bar", BAR), ("oplog", OPLOG)] {
        for length in 0..archive.len() {
            let found = verify(stream(&archive[..length])).await;
            assert!(matches!(found, Err(SourceError::Malformed { .. })), "{name} cut at {length}: {found:?}");
        }
    }
}

#[tokio::test]
async fn a_document_with_any_bit_changed_is_refused() {
    for (name, archive) in [("bar", BAR), ("oplog", OPLOG)] {
        // Everything behind the head, which has no checksum of its own: the set has one for it.
        let mut reader = ArchiveReader::open(stream(archive)).await.unwrap();
        let sound = verify(stream(archive)).await.unwrap();
        let mut documents = Vec::new();
        while let Some((_, document)) = reader.next().await.unwrap() {
            documents.push(document);
        }
        assert!(!documents.is_empty(), "{name} has documents");
        for document in documents {
            let start = archive.windows(document.len()).position(|window| window == document).unwrap();
            for at in start..start + document.len() {
                for bit in 0..8 {
                    let mut changed = archive.to_vec();
                    changed[at] ^= 1 << bit;
                    let found = verify(stream(&changed)).await;
                    assert!(found.is_err(), "{name}, bit {bit} of byte {at}: {:?}", found.map(|found| found == sound));
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_written_again_holds_the_same() {
    for archive in [BAR, OPLOG] {
        let mut reader = ArchiveReader::open(stream(archive)).await.unwrap();
        let collections = reader.collections().to_vec();
        let mut documents = Vec::new();
        while let Some(found) = reader.next().await.unwrap() {
            documents.push(found);
        }
        let (mut sender, receiver) = pipe();
        let writing = async {
            let mut writer = ArchiveWriter::begin(&mut sender, "8.0", 1, collections.clone()).await.unwrap();
            for index in 0..collections.len() {
                for (_, document) in documents.iter().filter(|(of, _)| *of == index) {
                    writer.document(index, document).await.unwrap();
                }
                writer.end_collection(index).await.unwrap();
            }
            writer.finish().await.unwrap();
            sender.finish().await.unwrap();
        };
        let ((), found) = tokio::join!(writing, verify(Box::pin(receiver)));
        assert_eq!(found.unwrap(), reader.contents().unwrap());
    }
}

#[tokio::test]
async fn names_with_dots_dollars_and_other_letters_are_kept() {
    let reader = ArchiveReader::open(stream(BAR)).await.unwrap();
    let model = reader.collections()[0].clone();
    // Some servers refuse some of them, so that they cannot be asked about all.
    let names = ["a.b$c.d", "pay$day", "...", "日本語.☃", "e\u{301}", "slash/back\\slash"];
    let mut collections: Vec<_> = names.iter().map(|name| ArchiveCollection { collection: (*name).to_owned(), ..model.clone() }).collect();
    collections.sort_by_key(ArchiveCollection::namespace);
    let (mut sender, receiver) = pipe();
    let writing = async {
        let mut writer = ArchiveWriter::begin(&mut sender, "8.0", 4, collections.clone()).await.unwrap();
        // They take turns, as those do that are read at the same time.
        for round in 0..2 {
            for (number, collection) in collections.iter().enumerate() {
                let document = mongodb::bson::doc! { "_id": round, "name": &collection.collection };
                writer.document(number, &mongodb::bson::serialize_to_vec(&document).unwrap()).await.unwrap();
            }
        }
        for number in 0..collections.len() {
            writer.end_collection(number).await.unwrap();
        }
        writer.finish().await.unwrap();
        sender.finish().await.unwrap();
    };
    let ((), found) = tokio::join!(writing, verify(Box::pin(receiver)));
    let found = found.unwrap();
    for name in names {
        assert_eq!(found[&format!("{}.{name}", model.database)].count, 2, "{name}");
    }
}
