//! A digest of many things that is the same in whatever order they come.

use sha2::{Digest as _, Sha256};

/// The sum of the SHA-256 of each thing, in four lanes. A sum and not an exclusive-or, so that a thing that is there twice
/// does not cancel itself out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnorderedDigest {
    count: u64,
    lanes: [u64; 4],
}

impl UnorderedDigest {
    /// Takes one more thing in.
    pub fn add(&mut self, thing: &[u8]) {
        self.count += 1;
        let digest = Sha256::digest(thing);
        for (lane, bytes) in self.lanes.iter_mut().zip(digest.chunks_exact(8)) {
            *lane = lane.wrapping_add(bytes.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte)));
        }
    }

    /// How many things.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The digest, hexadecimal.
    pub fn hex(&self) -> String {
        self.lanes.iter().map(|lane| format!("{lane:016x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(things: &[&str]) -> String {
        let mut digest = UnorderedDigest::default();
        things.iter().for_each(|thing| digest.add(thing.as_bytes()));
        digest.hex()
    }

    #[test]
    fn order_does_not_matter_and_everything_else_does() {
        assert_eq!(of(&["a", "b", "c"]), of(&["c", "a", "b"]));
        for (why, one, two) in [
            ("a changed thing", &["a", "b"][..], &["a", "c"][..]),
            ("a thing that is there twice", &["a", "a", "b"][..], &["b"][..]),
            ("twice another", &["a", "a"][..], &["b", "b"][..]),
            ("things that are cut elsewhere", &["ab", "c"][..], &["a", "bc"][..]),
        ] {
            assert_ne!(of(one), of(two), "{why}");
        }
    }
}
