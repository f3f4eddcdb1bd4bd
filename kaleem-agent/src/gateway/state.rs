//! The routing in force, on disk: whole and checked, or set aside. A gateway never forgets quietly.

use std::path::{Path, PathBuf};

use kaleem_core::durable::{self, PRIVATE_FILE};
use kaleem_core::remedy::one_line;
use kaleem_core::traffic::{Memory, Routing};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// The form of the file.
const FORMAT: u32 = 1;
const FILE: &str = "routing.json";
const SET_ASIDE: &str = "routing.json.damaged";

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    /// SHA-256 of the text of `routing`.
    sha256: String,
    routing: Box<RawValue>,
}

fn checksum(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// Where a gateway keeps its routing.
#[derive(Clone, Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    set_aside: PathBuf,
}

impl StateFile {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { path: directory.join(FILE), set_aside: directory.join(SET_ASIDE) }
    }

    /// Writes the routing, which is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// What the system said; the old routing is still there.
    pub(crate) fn write(&self, routing: &Routing) -> Result<(), String> {
        let encode = || -> serde_json::Result<Vec<u8>> {
            let routing = serde_json::value::to_raw_value(routing)?;
            serde_json::to_vec(&Stored { format: FORMAT, sha256: checksum(routing.get()), routing })
        };
        let bytes = encode().map_err(|error| error.to_string())?;
        durable::write_atomic(&self.path, &bytes, PRIVATE_FILE).map_err(|error| one_line(&error))
    }

    /// Reads the routing. What is not whole is set aside, so that nobody takes it for a state again.
    pub(crate) fn read(&self) -> (Option<Routing>, Memory) {
        let bytes = match durable::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => return (None, Memory::Fresh),
            Err(error) => return (None, Memory::Damaged { reason: one_line(&error) }),
        };
        match parse(&bytes) {
            Ok(routing) => (Some(routing), Memory::Restored),
            Err(reason) => {
                // If it cannot be set aside it is found damaged again next time, which is as true then.
                std::fs::rename(&self.path, &self.set_aside).ok();
                (None, Memory::Damaged { reason })
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Routing, String> {
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| format!("the state is not readable: {error}"))?;
    if stored.format != FORMAT {
        return Err(format!("the state has the format {}, and this program knows {FORMAT}", stored.format));
    }
    if checksum(stored.routing.get()) != stored.sha256 {
        return Err("the checksum of the state is wrong".to_owned());
    }
    let routing: Routing = serde_json::from_str(stored.routing.get()).map_err(|error| format!("the routing is not readable: {error}"))?;
    routing.check().map_err(|refusal| refusal.to_string())?;
    Ok(routing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kaleem_core::traffic::{Admission, Generation, HoldLimits};
    use std::time::Duration;

    fn routing() -> Routing {
        Routing {
            generation: Generation::new(7),
            admission: Admission::Serve,
            hold: HoldLimits { requests: 1, time: Duration::from_secs(1), release_per_second: 1 },
            stickiness: None,
            targets: Vec::new(),
        }
    }

    #[test]
    fn every_single_flipped_bit_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::new(directory.path());
        assert_eq!(file.read(), (None, Memory::Fresh));
        file.write(&routing()).unwrap();
        assert_eq!(file.read(), (Some(routing()), Memory::Restored));
        let whole = durable::read(&file.path).unwrap();
        for place in 0..whole.len() {
            let mut bent = whole.clone();
            bent[place] ^= 1;
            durable::write_atomic(&file.path, &bent, PRIVATE_FILE).unwrap();
            let (found, memory) = file.read();
            assert_eq!(found, None, "byte {place}");
            assert!(matches!(memory, Memory::Damaged { .. }), "byte {place}: {memory:?}");
            assert_eq!(durable::read(&file.set_aside).unwrap(), bent, "kept for a person to look at");
        }
        durable::write_atomic(&file.path, &whole[..whole.len() / 2], PRIVATE_FILE).unwrap();
        assert!(matches!(file.read().1, Memory::Damaged { .. }), "torn in half");
    }
}
