//! What every [`BackupVault`] must do: run against the fake, a directory and an object store.

use std::fmt::Debug;

use tokio::io::AsyncReadExt;

use crate::backup::{BackupVault, ByteStream, VaultError, VaultPath, pipe};

/// Runs the whole suite on a vault that is empty; answers what was wrong, nothing if all was well.
pub async fn check(vault: &dyn BackupVault) -> Vec<String> {
    check_with(vault, &[0, 1, 4096, 300_000, 12_000_001], &[0, 1, 100_000, 11_000_000], 8, 60).await
}

/// The same with few objects, for a vault whose every answer takes a second.
pub async fn check_slow(vault: &dyn BackupVault) -> Vec<String> {
    check_with(vault, &[0, 1, 12_000_001], &[0, 11_000_000], 1, 8).await
}

async fn check_with(vault: &dyn BackupVault, lengths: &[usize], broken: &[usize], races: usize, listed: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, result) in [
        ("what was put is got back", round_trip(vault, lengths).await),
        ("an object is written once", write_once(vault).await),
        ("of two writers one wins", two_writers(vault, races).await),
        ("a body that breaks leaves nothing", broken_body(vault, broken).await),
        ("a body whose writer dies leaves nothing", dead_body(vault).await),
        ("what is not there is missing", missing(vault).await),
        ("a listing is complete and sorted, and of its prefix only", listing(vault, listed).await),
        ("deleting twice is deleting once", delete_twice(vault).await),
    ] {
        wrong.extend(result.err().map(|reason| format!("{name}: {reason}")));
    }
    wrong
}

fn path(text: &str) -> Result<VaultPath, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn equal<T: PartialEq + Debug>(what: &str, found: &T, wanted: &T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: found {found:?}, wanted {wanted:?}")) }
}

/// A body of these bytes, in pieces.
pub fn body(bytes: &[u8]) -> ByteStream {
    let (mut sender, reader) = pipe();
    let pieces: Vec<Vec<u8>> = bytes.chunks(70_000).map(<[u8]>::to_vec).collect();
    tokio::spawn(async move {
        for piece in pieces {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
        // A vault that refuses does not read to the end.
        sender.finish().await.ok();
    });
    Box::pin(reader)
}

/// Bytes that repeat nowhere soon.
pub fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes().first().copied().unwrap_or_default()
        })
        .collect()
}

async fn get(vault: &dyn BackupVault, path: &VaultPath) -> Result<Vec<u8>, String> {
    let mut stream = vault.get(path).await.map_err(|error| format!("get {path}: {error:?}"))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.map_err(|error| format!("read {path}: {error:?}"))?;
    Ok(bytes)
}

async fn put(vault: &dyn BackupVault, path: &VaultPath, bytes: &[u8]) -> Result<u64, String> {
    vault.put_if_absent(path, body(bytes)).await.map_err(|error| format!("put {path}: {error:?}"))
}

async fn round_trip(vault: &dyn BackupVault, lengths: &[usize]) -> Result<(), String> {
    for (number, length) in lengths.iter().copied().enumerate() {
        let (path, bytes) = (path(&format!("contract/round-trip/{number}.bin"))?, bytes(length));
        equal("length", &put(vault, &path, &bytes).await?, &(length as u64))?;
        if get(vault, &path).await? != bytes {
            return Err(format!("{length} bytes came back as others"));
        }
    }
    Ok(())
}

async fn write_once(vault: &dyn BackupVault) -> Result<(), String> {
    let path = path("contract/once")?;
    put(vault, &path, b"first").await?;
    match vault.put_if_absent(&path, body(b"second")).await {
        Err(VaultError::Exists { path: named, .. }) => equal("the error names it", &named, &path)?,
        other => return Err(format!("the second put answered {other:?}")),
    }
    equal("the first stays", &get(vault, &path).await?, &b"first".to_vec())
}

async fn two_writers(vault: &dyn BackupVault, races: usize) -> Result<(), String> {
    for round in 0..races {
        let path = path(&format!("contract/race/{round}"))?;
        let (one, two) = (bytes(200_000), bytes(100_000));
        let (first, second) =
            futures_util::future::join(vault.put_if_absent(&path, body(&one)), vault.put_if_absent(&path, body(&two))).await;
        let stored = get(vault, &path).await?;
        let sound = match (&first, &second) {
            (Ok(_), Err(VaultError::Exists { .. })) => stored == one,
            (Err(VaultError::Exists { .. }), Ok(_)) => stored == two,
            _ => false,
        };
        if !sound {
            return Err(format!("{first:?} and {second:?}, {} bytes stored", stored.len()));
        }
    }
    Ok(())
}

async fn left_nothing(vault: &dyn BackupVault, path: &VaultPath, stream: ByteStream) -> Result<(), String> {
    match vault.put_if_absent(path, stream).await {
        Err(VaultError::Body { path: named, .. }) => equal("the error names it", &named, path)?,
        other => return Err(format!("put answered {other:?}")),
    }
    equal("nothing is listed", &vault.list(path).await.map_err(|error| format!("{error:?}"))?, &Vec::new())?;
    match vault.get(path).await {
        Err(VaultError::Missing { .. }) => (),
        other => return Err(format!("get answered {:?}", other.map(|_| "a stream"))),
    }
    put(vault, path, b"again").await.map(|_| ())
}

async fn broken_body(vault: &dyn BackupVault, lengths: &[usize]) -> Result<(), String> {
    for length in lengths.iter().copied() {
        let (mut sender, reader) = pipe();
        let bytes = bytes(length);
        tokio::spawn(async move {
            if sender.send(bytes).await.is_ok() {
                sender.fail(std::io::Error::other("the source died")).await;
            }
        });
        left_nothing(vault, &path(&format!("contract/broken/{length}"))?, Box::pin(reader)).await?;
    }
    Ok(())
}

async fn dead_body(vault: &dyn BackupVault) -> Result<(), String> {
    let (mut sender, reader) = pipe();
    tokio::spawn(async move {
        // Dropped without a word after this.
        sender.send(vec![1; 1000]).await.ok();
    });
    left_nothing(vault, &path("contract/dead")?, Box::pin(reader)).await
}

async fn missing(vault: &dyn BackupVault) -> Result<(), String> {
    put(vault, &path("contract/there/file")?, b"x").await?;
    for text in ["contract/nowhere", "contract/there/other", "contract/there"] {
        match vault.get(&path(text)?).await {
            Err(VaultError::Missing { path: named, .. }) => equal("the error names it", &named, &path(text)?)?,
            other => return Err(format!("{text} answered {:?}", other.map(|_| "a stream"))),
        }
    }
    equal("nothing below", &vault.list(&path("contract/nowhere")?).await.map_err(|error| format!("{error:?}"))?, &Vec::new())
}

async fn listing(vault: &dyn BackupVault, count: u64) -> Result<(), String> {
    let mut wanted = Vec::new();
    for number in 0..count {
        let path = path(&format!("contract/list/set-{:02}/part-{number}", number % 7))?;
        put(vault, &path, &vec![b'x'; number as usize]).await?;
        wanted.push((path, number));
    }
    put(vault, &path("contract/list-beside/part")?, b"x").await?;
    put(vault, &path("contract/list.beside")?, b"x").await?;
    wanted.sort();
    let found = vault.list(&path("contract/list")?).await.map_err(|error| format!("{error:?}"))?;
    equal("all of them", &found.into_iter().map(|entry| (entry.path, entry.size_bytes)).collect(), &wanted)?;
    let one = vault.list(&path("contract/list/set-03")?).await.map_err(|error| format!("{error:?}"))?;
    equal("one set", &one.len(), &wanted.iter().filter(|(path, _)| path.as_str().contains("set-03")).count())
}

async fn delete_twice(vault: &dyn BackupVault) -> Result<(), String> {
    let path = path("contract/delete/file")?;
    put(vault, &path, b"x").await?;
    for _ in 0..2 {
        vault.delete(&path).await.map_err(|error| format!("{error:?}"))?;
        equal("it is gone", &vault.list(&path).await.map_err(|error| format!("{error:?}"))?, &Vec::new())?;
    }
    put(vault, &path, b"anew").await?;
    equal("it can be written anew", &get(vault, &path).await?, &b"anew".to_vec())
}
