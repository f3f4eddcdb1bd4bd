//! Where a cluster keeps a key, and a name beside a key that it keeps in the same place.

/// How many slots a cluster has.
pub(crate) const SLOTS: u16 = 16_384;
/// What the name of a key begins with that a restore has loaded beside its place.
pub(crate) const BESIDE: &str = "kaleem-restore-";
/// Digits of the name of a run.
const RUN_DIGITS: usize = 16;

/// The slot of a key: that of its tag, where it has one.
pub(crate) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let length = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..length).filter(|tag| !tag.is_empty())
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// The checksum of the cluster's specification (XMODEM).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    })
}

/// For each slot a tag that leads to it.
pub(crate) struct Tags(Vec<u32>);

impl Tags {
    /// Tries numbers until each slot has one.
    pub(crate) fn compute() -> Self {
        let mut found: Vec<Option<u32>> = vec![None; usize::from(SLOTS)];
        let (mut left, mut number) = (found.len(), 0_u32);
        while left > 0 {
            if let Some(place @ None) = found.get_mut(usize::from(slot(number.to_string().as_bytes()))) {
                *place = Some(number);
                left -= 1;
            }
            number += 1;
        }
        Self(found.into_iter().flatten().collect())
    }

    /// The name beside `key` for a run: in the same slot, also where the key has a tag of its own.
    pub(crate) fn beside(&self, run: &str, key: &[u8]) -> Vec<u8> {
        let tag = self.0.get(usize::from(slot(key))).copied().unwrap_or_default();
        let mut name = format!("{BESIDE}{run}:{{{tag}}}:").into_bytes();
        name.extend_from_slice(key);
        name
    }
}

/// The run and the place of a key that a restore has loaded beside it; `None` for every other key.
pub(crate) fn place_of(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let (run, rest) = name.strip_prefix(BESIDE.as_bytes())?.split_at_checked(RUN_DIGITS)?;
    let rest = rest.strip_prefix(b":{")?;
    let length = rest.iter().position(|byte| *byte == b'}')?;
    let (tag, rest) = rest.split_at_checked(length)?;
    let place = rest.strip_prefix(b"}:")?;
    let is_ours = run.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) && !tag.is_empty() && tag.iter().all(u8::is_ascii_digit);
    // What only looks like ours is in the slot of its place by one chance in 16384.
    (is_ours && slot(tag) == slot(place)).then_some((run, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // As `CLUSTER KEYSLOT` of a server answers.
        for (key, wanted) in
            [("123456789", 12_739), ("foo", 12_182), ("{foo}.bar", 12_182), ("foo{}{bar}", 8_363), ("foo{{bar}}zap", 4_015), ("", 0)]
        {
            assert_eq!(slot(key.as_bytes()), wanted, "{key}");
        }
    }

    #[test]
    fn the_name_beside_a_key_is_in_its_slot_and_leads_back() {
        let tags = Tags::compute();
        for slot_number in 0..SLOTS {
            assert_eq!(slot(tags.0[usize::from(slot_number)].to_string().as_bytes()), slot_number);
        }
        let own = tags.beside("00000000000000ff", b"x");
        for key in [&b"a"[..], b"", b"{tag}x", b"{}x", b"}{", b"\xff\0\r\n", &own] {
            let beside = tags.beside("0123456789abcdef", key);
            assert_eq!(slot(&beside), slot(key), "{key:?}");
            assert_eq!(place_of(&beside), Some((&b"0123456789abcdef"[..], key)));
        }
        for (why, key) in [
            ("words", "kaleem-restore-notes"),
            ("another slot", "kaleem-restore-0123456789abcdef:{1}:b"),
            ("no run", "kaleem-restore-0123456789abcdeF:{1}:1"),
            ("no tag", "kaleem-restore-0123456789abcdef:{}:"),
            ("not at the beginning", "a kaleem-restore-0123456789abcdef:{1}:1"),
        ] {
            assert_eq!(place_of(key.as_bytes()), None, "{why}");
        }
        assert!(place_of(b"kaleem-restore-0123456789abcdef:{1}:1").is_some(), "the others differ from this");
    }
}
