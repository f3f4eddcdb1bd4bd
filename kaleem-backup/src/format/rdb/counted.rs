//! Which keys there are: the same for one server and for a cluster that hold the same.

use std::collections::BTreeMap;

use kaleem_core::backup::{Content, Contents};

use super::RdbKey;
use crate::format::UnorderedDigest;

/// Keys by database, with their names and types; those that expire are only numbered, since they go by themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    keys: BTreeMap<u64, UnorderedDigest>,
    expiring: u64,
    functions: UnorderedDigest,
}

impl Counted {
    /// Takes a key in, under that name.
    pub(crate) fn key(&mut self, key: &RdbKey, name: &[u8]) {
        if key.expires_ms.is_some() {
            self.expiring += 1;
            return;
        }
        let mut named = vec![family(key.encoding)];
        named.extend_from_slice(name);
        self.keys.entry(key.database).or_default().add(&named);
    }

    pub(crate) fn function(&mut self, code: &[u8]) {
        self.functions.add(code);
    }

    pub(crate) fn expiring(&self) -> u64 {
        self.expiring
    }

    pub(crate) fn contents(&self) -> Contents {
        let entry = |digest: &UnorderedDigest| Content { count: digest.count(), digest: digest.hex() };
        let mut contents: Contents = self.keys.iter().map(|(database, digest)| (format!("db{database}"), entry(digest))).collect();
        if self.functions.count() > 0 {
            contents.insert("functions".to_owned(), entry(&self.functions));
        }
        contents
    }
}

/// What a person calls the type: the same for every encoding of it, which a server changes as it likes.
fn family(encoding: u8) -> u8 {
    match encoding {
        0 => b's',
        1 | 10 | 14 | 18 => b'l',
        2 | 11 | 20 => b'S',
        3 | 5 | 12 | 17 => b'z',
        4 | 9 | 13 | 16 | 24 | 25 => b'h',
        15 | 19 | 21 => b'x',
        _ => b'm',
    }
}
