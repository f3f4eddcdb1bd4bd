//! Whether a program can run in an image that holds nothing else.

/// Whether `bytes` are a program for 64-bit Linux that needs no loader and no library: one without an interpreter segment.
pub fn is_static(bytes: &[u8]) -> bool {
    /// `PT_INTERP` of the ELF specification.
    const INTERPRETER: u64 = 3;
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    };
    let little_endian_64 = bytes.get(..6) == Some(&[0x7f, b'E', b'L', b'F', 2, 1]);
    let (Some(table), Some(size), Some(count)) = (number(0x20, 8), number(0x36, 2), number(0x38, 2)) else { return false };
    let mut kinds = (0..count).map(|index| {
        let at = table.checked_add(index.checked_mul(size)?)?;
        number(usize::try_from(at).ok()?, 4)
    });
    little_endian_64 && count > 0 && kinds.all(|kind| kind.is_some_and(|kind| kind != INTERPRETER))
}

#[cfg(test)]
mod tests {
    use super::is_static;

    #[test]
    fn a_program_with_a_loader_or_without_sense_is_not_static() {
        // The shell of every Linux is linked to its libraries.
        let shell = std::fs::read("/bin/sh").unwrap();
        for (why, bytes) in [("linked", shell.as_slice()), ("a script", b"#!/bin/sh\n"), ("nothing", b""), ("cut", &shell[..0x40])] {
            assert!(!is_static(bytes), "{why}");
        }
        let mut header = vec![0_u8; 0x40 + 0x38];
        header[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        header[0x20] = 0x40;
        header[0x36] = 0x38;
        header[0x38] = 1;
        header[0x40] = 1;
        assert!(is_static(&header), "one segment that is loaded");
    }
}
