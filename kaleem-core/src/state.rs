//! The state directory of a project: what kaleem knows when it is started again.
//!
//! `identity` (tells this directory from all others), `key` (identifies definitions), `definitions/` (what containers are to be: may hold secrets), `plans/` (journals),
//! `lease` (who works on the project now). All files are mode 0600 in directories of mode 0700.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::definition::{Definition, DefinitionId};
use crate::durable::{self, DurableError};
use crate::names::{PlanId, ProjectName, StateId};
use crate::remedy::Remedy;

/// Bytes of the project's key: a block of the hash, which HMAC takes as it is (RFC 2104).
const KEY_BYTES: usize = 64;
/// Bytes of the identity of a state directory.
const IDENTITY_BYTES: usize = 16;
/// Hexadecimal digits of a definition's identity: 128 bits.
const ID_DIGITS: usize = 32;

/// Where the gateways of the projects below `base` have their directories.
///
/// That is next to `base`, so that a state directory which is lost or restored takes no gateway out of reach; inside it where such a directory is
/// there already, or where others could put one next to it.
pub fn gateway_directory(base: &Path) -> PathBuf {
    let inside = base.join(".gateways");
    let (Some(parent), Some(name)) = (base.parent(), base.file_name()) else { return inside };
    let mut beside = name.to_os_string();
    beside.push("-gateways");
    let beside = parent.join(beside);
    let owner = base.metadata().map_or_else(|_| rustix::process::geteuid().as_raw(), |found| found.uid());
    let fits = match beside.symlink_metadata() {
        Ok(found) => found.is_dir() && found.mode() & 0o077 == 0 && [owner, rustix::process::geteuid().as_raw()].contains(&found.uid()),
        Err(_) => !inside.is_dir() && is_ours_alone(parent),
    };
    if fits { beside } else { inside }
}

/// Whether nobody else can put anything into a directory, or into the one in which it would be made, and this process can.
fn is_ours_alone(directory: &Path) -> bool {
    let there = directory.ancestors().find(|ancestor| ancestor.is_dir());
    there.is_some_and(|there| {
        let others_write = there.metadata().is_ok_and(|found| found.mode() & 0o022 != 0);
        !others_write && rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_ok()
    })
}

/// Why the state directory cannot be used. The host was not touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file system refused.
    #[error("could not use the state directory {}", directory.display())]
    File {
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: DurableError,
    },
    /// The project's key is not one.
    #[error("the key {} is damaged", path.display())]
    KeyDamaged {
        /// The file.
        path: PathBuf,
    },
    /// The identity of the directory is not one.
    #[error("the identity {} is damaged", path.display())]
    IdentityDamaged {
        /// The file.
        path: PathBuf,
    },
    /// No random numbers could be had.
    #[error("could not make a key for the project")]
    NoRandomness {
        /// Why.
        #[source]
        source: getrandom::Error,
    },
    /// A definition is not there.
    #[error("the definition {id} is missing")]
    DefinitionMissing {
        /// Which.
        id: DefinitionId,
    },
    /// A definition is not what its name says.
    #[error("the definition {} is damaged", path.display())]
    DefinitionDamaged {
        /// The file.
        path: PathBuf,
    },
    /// A definition could not be written down.
    #[error("bug: a definition has no text form")]
    Encode {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Remedy for StateError {
    fn remedy(&self) -> String {
        match self {
            Self::File { source, .. } => source.remedy(),
            Self::KeyDamaged { path } => format!("restore {} from a backup, or move it aside and deploy again", path.display()),
            Self::IdentityDamaged { path } => format!("restore {} from a backup, or remove it and run `kaleem adopt`", path.display()),
            Self::NoRandomness { .. } => "check that the system's random number generator works".to_owned(),
            Self::DefinitionMissing { .. } | Self::DefinitionDamaged { .. } => {
                "restore the state directory from a backup, or deploy again instead of going back".to_owned()
            }
            Self::Encode { .. } => "report it: https://github.com/kaleem-release/kaleem/issues".to_owned(),
        }
    }
}

/// The state directory of one project.
#[derive(Clone, Debug)]
pub struct StateDirectory {
    root: PathBuf,
}

impl StateDirectory {
    /// The directory of `project` below `base` (`/var/lib/kaleem`, or what the operator chose). Nothing is made yet.
    pub fn new(base: &Path, project: &ProjectName) -> Self {
        Self { root: base.join(project.as_str()) }
    }

    /// The state directory of a project that is at `root`.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes what is missing of it.
    ///
    /// # Errors
    ///
    /// [`StateError::File`]
    pub fn prepare(&self) -> Result<(), StateError> {
        for directory in [self.root.clone(), self.plans(), self.definitions()] {
            durable::create_directory(&directory, durable::PRIVATE_DIRECTORY).map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    fn failed(&self, source: DurableError) -> StateError {
        StateError::File { directory: self.root.clone(), source }
    }

    fn plans(&self) -> PathBuf {
        self.root.join("plans")
    }

    /// The file of a definition.
    pub fn definition_file(&self, id: &DefinitionId) -> PathBuf {
        self.definitions().join(format!("{id}.json"))
    }

    fn definitions(&self) -> PathBuf {
        self.root.join("definitions")
    }

    /// Where damaged files are kept, for people to look at.
    pub fn aside(&self) -> PathBuf {
        self.root.join("aside")
    }

    /// Plans whose journals were damaged and set aside: how they ended is not known.
    ///
    /// # Errors
    ///
    /// [`StateError::File`]
    pub fn lost_plans(&self) -> Result<BTreeSet<PlanId>, StateError> {
        let names = match durable::list(&self.aside()) {
            Ok(names) => names,
            Err(error) if error.is_missing() => return Ok(BTreeSet::new()),
            Err(source) => return Err(self.failed(source)),
        };
        let number = |name: &String| name.split_once(".jsonl").and_then(|(number, _)| number.parse().ok()).map(PlanId);
        let known: BTreeSet<PlanId> = self.plan_ids()?.into_iter().collect();
        Ok(names.iter().filter_map(number).filter(|plan| !known.contains(plan)).collect())
    }

    /// The journal of a plan.
    pub fn journal(&self, plan: PlanId) -> PathBuf {
        self.plans().join(format!("{:08}.jsonl", plan.0))
    }

    /// A file by which a second process asks the one that works on a plan to go back.
    pub fn abort_request(&self, plan: PlanId) -> PathBuf {
        self.plans().join(format!("{:08}.abort", plan.0))
    }

    /// The plans that have a journal, oldest first.
    ///
    /// # Errors
    ///
    /// [`StateError::File`]; a directory that was never made has no plans.
    pub fn plan_ids(&self) -> Result<Vec<PlanId>, StateError> {
        let names = match durable::list(&self.plans()) {
            Ok(names) => names,
            Err(error) if error.is_missing() => Vec::new(),
            Err(source) => return Err(self.failed(source)),
        };
        let mut ids: Vec<PlanId> = names.iter().filter_map(|name| name.strip_suffix(".jsonl")?.parse().ok().map(PlanId)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Where the gateways of the project have their directories, where that is not beside this directory: they were taken over from another owner.
    pub fn gateways(&self) -> Option<PathBuf> {
        let bytes = durable::read(&self.root.join("gateways")).ok()?;
        let path = PathBuf::from(String::from_utf8_lossy(&bytes).trim_end());
        path.is_absolute().then_some(path)
    }

    /// Notes where the gateways of the project have their directories.
    ///
    /// # Errors
    ///
    /// [`StateError::File`]
    pub fn put_gateways(&self, directory: &Path) -> Result<(), StateError> {
        let text = format!("{}\n", directory.display());
        durable::write_atomic(&self.root.join("gateways"), text.as_bytes(), durable::PRIVATE_FILE).map_err(|source| self.failed(source))
    }

    /// The identity of this directory, made when there is none.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub fn identity(&self) -> Result<StateId, StateError> {
        if let Some(identity) = self.known_identity()? {
            return Ok(identity);
        }
        let mut bytes = [0; IDENTITY_BYTES];
        getrandom::fill(&mut bytes).map_err(|source| StateError::NoRandomness { source })?;
        let path = self.root.join("identity");
        match durable::create_new(&path, format!("{}\n", hex::encode(bytes)).as_bytes()) {
            // Somebody was quicker.
            Ok(()) | Err(DurableError::Exists { .. }) => {}
            Err(source) => return Err(self.failed(source)),
        }
        self.known_identity()?.ok_or(StateError::IdentityDamaged { path })
    }

    /// The identity of this directory, where it has one.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub fn known_identity(&self) -> Result<Option<StateId>, StateError> {
        let path = self.root.join("identity");
        match durable::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let parsed = text.trim_end().parse().ok().filter(|id: &StateId| id.as_str().len() == 2 * IDENTITY_BYTES);
                parsed.map(Some).ok_or(StateError::IdentityDamaged { path })
            }
            Err(error) if error.is_missing() => Ok(None),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// The key of the project, made when there is none. Nobody else can tell from an identity what it identifies.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub fn key(&self) -> Result<DefinitionKey, StateError> {
        let path = self.root.join("key");
        match durable::read(&path) {
            Ok(bytes) => DefinitionKey::parse(&bytes).ok_or(StateError::KeyDamaged { path }),
            Err(error) if error.is_missing() => {
                let mut bytes = [0; KEY_BYTES];
                getrandom::fill(&mut bytes).map_err(|source| StateError::NoRandomness { source })?;
                durable::create_directory(&self.root, durable::PRIVATE_DIRECTORY).map_err(|source| self.failed(source))?;
                match durable::create_new(&path, hex::encode(bytes).as_bytes()) {
                    Ok(()) => Ok(DefinitionKey(bytes)),
                    // Somebody was quicker.
                    Err(DurableError::Exists { .. }) => {
                        let bytes = durable::read(&path).map_err(|source| self.failed(source))?;
                        DefinitionKey::parse(&bytes).ok_or(StateError::KeyDamaged { path })
                    }
                    Err(source) => Err(self.failed(source)),
                }
            }
            Err(source) => Err(self.failed(source)),
        }
    }

    /// The key of the project, or one that is forgotten again where there is none yet: for looking only.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub fn key_or_ephemeral(&self) -> Result<DefinitionKey, StateError> {
        if self.root.join("key").exists() {
            return self.key();
        }
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(|source| StateError::NoRandomness { source })?;
        Ok(DefinitionKey(bytes))
    }

    /// Keeps definitions under their identities; one that is kept already is not written again.
    ///
    /// # Errors
    ///
    /// [`StateError`]
    pub fn put_definitions(&self, key: &DefinitionKey, definitions: &[Definition]) -> Result<Vec<DefinitionId>, StateError> {
        let mut ids = Vec::with_capacity(definitions.len());
        let mut files = Vec::with_capacity(definitions.len());
        for definition in definitions {
            let text = serde_json::to_vec(definition).map_err(|source| StateError::Encode { source })?;
            let id = key.identify_text(&text);
            files.push((format!("{id}.json"), text));
            ids.push(id);
        }
        // A damaged one, too, is written again: it would never be noticed until somebody needs it.
        durable::write_missing(&self.definitions(), &files).map_err(|source| self.failed(source))?;
        Ok(ids)
    }

    /// Removes definitions that none of `needed` is. The caller holds the lease.
    ///
    /// # Errors
    ///
    /// [`StateError::File`]
    pub fn forget_definitions(&self, needed: &BTreeSet<DefinitionId>) -> Result<(), StateError> {
        let directory = self.definitions();
        for name in durable::list(&directory).map_err(|source| self.failed(source))? {
            let id = name.strip_suffix(".json").map(|id| DefinitionId(id.to_owned()));
            if id.is_some_and(|id| !needed.contains(&id)) {
                durable::remove(&directory.join(name)).map_err(|source| self.failed(source))?;
            }
        }
        Ok(())
    }

    /// A definition by its identity.
    ///
    /// # Errors
    ///
    /// [`StateError::DefinitionMissing`], [`StateError::DefinitionDamaged`] when the content does not fit the identity.
    pub fn definition(&self, key: &DefinitionKey, id: &DefinitionId) -> Result<Definition, StateError> {
        let path = self.definition_file(id);
        let text = match durable::read(&path) {
            Ok(text) => text,
            Err(error) if error.is_missing() => return Err(StateError::DefinitionMissing { id: id.clone() }),
            Err(source) => return Err(self.failed(source)),
        };
        if key.identify_text(&text) != *id {
            return Err(StateError::DefinitionDamaged { path });
        }
        serde_json::from_slice(&text).map_err(|_| StateError::DefinitionDamaged { path })
    }
}

/// The key with which definitions of one project are identified.
#[derive(Clone)]
pub struct DefinitionKey([u8; KEY_BYTES]);

impl std::fmt::Debug for DefinitionKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("DefinitionKey(***)")
    }
}

impl DefinitionKey {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut key = [0; KEY_BYTES];
        hex::decode_to_slice(text.trim_end(), &mut key).ok()?;
        Some(Self(key))
    }

    /// The identity of a definition.
    ///
    /// # Errors
    ///
    /// [`StateError::Encode`]
    pub fn identify(&self, definition: &Definition) -> Result<DefinitionId, StateError> {
        Ok(self.identify_text(&serde_json::to_vec(definition).map_err(|source| StateError::Encode { source })?))
    }

    /// A keyed hash of bytes that may be secret: it shows that they changed, and not what they are.
    pub fn hash(&self, bytes: &[u8]) -> String {
        self.identify_text(bytes).0
    }

    fn identify_text(&self, text: &[u8]) -> DefinitionId {
        let mut hash = <Hmac<Sha256> as KeyInit>::new(&self.0.into());
        hash.update(text);
        let mut id = hex::encode(hash.finalize().into_bytes());
        id.truncate(ID_DIGITS);
        DefinitionId(id)
    }
}
