//! What every [`BackupSets`] must do: run against the fake, and against the backups of a project.

use crate::backup::{BackupSets, SetRequest};
use crate::names::SetId;

/// Backup sets of a store whose content the suite can change and see.
pub struct SetsWorld<'a> {
    /// The sets.
    pub sets: &'a dyn BackupSets,
    /// Writes one of two contents to the store.
    pub write: &'a (dyn Fn(Content) + Sync),
    /// What the store holds.
    pub read: &'a (dyn Fn() -> Content + Sync),
}

/// One of two contents of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// One.
    One,
    /// The other.
    Other,
}

/// Runs the whole suite on a world without sets; answers what was wrong, nothing if all was well.
pub async fn check(world: &SetsWorld<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, result) in [
        ("a set is made once, and making it again changes nothing", made_once(world).await),
        ("what was never made is neither verified nor restored", never_made(world).await),
        ("giving up leaves a finished set alone, and succeeds where there is nothing", given_up(world).await),
        ("a restore puts back what was there, and may be repeated", put_back(world).await),
    ] {
        wrong.extend(result.err().map(|reason| format!("{name}: {reason}")));
    }
    wrong
}

fn request(text: &str) -> Result<SetRequest, String> {
    let set: SetId = text.parse().map_err(|error| format!("{error}"))?;
    Ok(SetRequest { set, release: None, tags: Vec::new() })
}

fn must<T>(what: &str, result: Result<T, crate::backup::SetsError>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {}", crate::remedy::one_line(&error)))
}

fn equal(what: &str, found: Content, wanted: Content) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: the store holds {found:?} and not {wanted:?}")) }
}

async fn made_once(world: &SetsWorld<'_>) -> Result<(), String> {
    let request = request("20260101t000000z-once")?;
    (world.write)(Content::One);
    must("make", world.sets.make(&request, &|_| {}).await)?;
    (world.write)(Content::Other);
    must("make again", world.sets.make(&request, &|_| {}).await)?;
    must("verify", world.sets.verify(&request.set, &|_| {}).await)?;
    must("restore", world.sets.restore(&request.set, &|_| {}).await)?;
    equal("after the restore", (world.read)(), Content::One)
}

async fn never_made(world: &SetsWorld<'_>) -> Result<(), String> {
    let request = request("20260101t000000z-never")?;
    (world.write)(Content::Other);
    if world.sets.verify(&request.set, &|_| {}).await.is_ok() {
        return Err("it was verified".to_owned());
    }
    if world.sets.restore(&request.set, &|_| {}).await.is_ok() {
        return Err("it was restored".to_owned());
    }
    equal("after a restore that failed", (world.read)(), Content::Other)
}

async fn given_up(world: &SetsWorld<'_>) -> Result<(), String> {
    let (made, never) = (request("20260101t000000z-made")?, request("20260101t000000z-nothing")?);
    must("make", world.sets.make(&made, &|_| {}).await)?;
    must("give up a finished one", world.sets.give_up(&made.set).await)?;
    must("verify it afterwards", world.sets.verify(&made.set, &|_| {}).await)?;
    must("give up nothing", world.sets.give_up(&never.set).await)?;
    must("give up nothing twice", world.sets.give_up(&never.set).await)
}

async fn put_back(world: &SetsWorld<'_>) -> Result<(), String> {
    let request = request("20260101t000000z-back")?;
    (world.write)(Content::Other);
    must("make", world.sets.make(&request, &|_| {}).await)?;
    (world.write)(Content::One);
    for _ in 0..2 {
        must("restore", world.sets.restore(&request.set, &|_| {}).await)?;
        equal("after a restore", (world.read)(), Content::Other)?;
    }
    Ok(())
}
