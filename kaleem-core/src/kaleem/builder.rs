//! Puts a [`Kaleem`] together from its parts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{GatewayParts, Kaleem};
use crate::backup::BackupSets;
use crate::clock::Clock;
use crate::observed::owner::ProjectFiles;

/// Puts a [`Kaleem`] together.
pub struct KaleemBuilder {
    /// As it stands; nobody can use it before it is built.
    pub(super) kaleem: Kaleem,
}

impl KaleemBuilder {
    /// With the project's backups, so that a deploy can make a set first and a rollback can put one back.
    #[must_use]
    pub fn backups(mut self, backups: Arc<dyn BackupSets>) -> Self {
        self.kaleem.backups = Some(backups);
        self
    }

    /// With gateways, so that services which others connect to are replaced without an interruption.
    #[must_use]
    pub fn gateways(mut self, parts: GatewayParts) -> Self {
        self.kaleem.gateways = Some(parts);
        self
    }

    /// Variables that hooks get, such as `PATH` and `HOME`; none where nothing is said. No secret belongs there.
    #[must_use]
    pub fn hook_environment(mut self, environment: BTreeMap<String, String>) -> Self {
        self.kaleem.hook_environment = environment;
        self
    }

    /// Where state is kept; one directory a project is made in it. `/var/lib/kaleem` where nothing is said.
    #[must_use]
    pub fn state_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.kaleem.state = directory.into();
        self
    }

    /// Who works, for people who find the project busy, such as `deploy by ci`.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.kaleem.owner = owner.into();
        self
    }

    /// The user who works, for people who find that the project is another's.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.kaleem.user = user.into();
        self
    }

    /// Who has plans carried out, as `user@host`: journals keep it, for people who ask later who deployed. Nobody where nothing is said.
    #[must_use]
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.kaleem.author = Some(author.into());
        self
    }

    /// The files of the project that is worked on: another project of the same name is told apart by them.
    #[must_use]
    pub fn files(mut self, files: Option<ProjectFiles>) -> Self {
        self.kaleem.files = files;
        self
    }

    /// Another time than the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.kaleem.clock = clock;
        self
    }

    /// The finished thing. It has asked nobody yet.
    pub fn build(self) -> Kaleem {
        self.kaleem
    }
}
