//! The compression of long strings in RDB files; read only.

/// The plain bytes, if `packed` is sound and they are exactly `length`.
pub(super) fn unpack(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let mut rest = packed.iter().copied();
    while let Some(control) = rest.next() {
        let control = usize::from(control);
        if control < 32 {
            for _ in 0..=control {
                plain.push(rest.next()?);
            }
        } else {
            let mut count = control >> 5;
            if count == 7 {
                count += usize::from(rest.next()?);
            }
            let back = ((control & 0x1f) << 8) + usize::from(rest.next()?) + 1;
            let start = plain.len().checked_sub(back)?;
            for at in start..start + count + 2 {
                plain.push(*plain.get(at)?);
            }
        }
        if plain.len() > length {
            return None;
        }
    }
    (plain.len() == length).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::unpack;

    #[test]
    fn only_sound_bytes_of_the_right_length_are_unpacked() {
        for (why, packed, length, wanted) in [
            ("as they are", &[2, b'a', b'b', b'c'][..], 3, Some("abc")),
            ("repeated, overlapping itself", &[0, b'a', 0x20 | (1 << 5), 0][..], 6, None),
            ("repeated", &[0, b'a', 3 << 5, 0][..], 6, Some("aaaaaa")),
            ("too far back", &[0, b'a', 1 << 5, 9][..], 4, None),
            ("cut short", &[2, b'a', b'b'][..], 3, None),
            ("another length", &[2, b'a', b'b', b'c'][..], 4, None),
        ] {
            assert_eq!(unpack(packed, length), wanted.map(|text| text.as_bytes().to_vec()), "{why}");
        }
    }
}
