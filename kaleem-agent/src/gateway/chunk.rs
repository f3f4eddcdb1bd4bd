//! The chunks of a body, read in the one way that all strict readers agree on.

/// Where the reader of chunks stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// In the size of a chunk.
    Size { value: u64, digits: bool },
    /// In what follows the size, up to the end of its line; whether a carriage return came last.
    Extension { value: u64, carriage_return: bool },
    /// In its bytes.
    Bytes(u64),
    /// Between its bytes and the next size.
    End { carriage_return: bool },
    /// In the fields after the last one; whether their line is empty so far, and whether a carriage return came last.
    Trailer { empty: bool, carriage_return: bool },
}

impl Chunk {
    /// Before the first size.
    pub(crate) const FIRST: Self = Self::Size { value: 0, digits: false };

    /// The place after `byte`; `Some(None)` behind the last chunk, `None` where the parser has to disagree.
    pub(crate) fn step(self, byte: u8) -> Option<Option<Self>> {
        let behind = |value| if value == 0 { Self::Trailer { empty: true, carriage_return: false } } else { Self::Bytes(value) };
        let next = match (self, byte) {
            (Self::Size { value, digits: true }, b'\r') => Self::Extension { value, carriage_return: true },
            (Self::Size { value, digits: true }, b';' | b' ' | b'\t') => Self::Extension { value, carriage_return: false },
            (Self::Size { value, .. }, _) => {
                let digit = u64::from(char::from(byte).to_digit(16)?);
                Self::Size { value: value.checked_mul(16)?.checked_add(digit)?, digits: true }
            }
            // Control characters end a line for some, and a text for others.
            (Self::Extension { .. } | Self::Trailer { .. }, 0..=8 | 11 | 12 | 14..=31 | 127) => return None,
            (Self::Extension { value, carriage_return: true }, b'\n') => behind(value),
            (Self::Extension { value, .. }, _) if byte != b'\n' => Self::Extension { value, carriage_return: byte == b'\r' },
            (Self::End { carriage_return: false }, b'\r') => Self::End { carriage_return: true },
            (Self::End { carriage_return: true }, b'\n') => Self::FIRST,
            (Self::Trailer { empty: true, carriage_return: true }, b'\n') => return Some(None),
            (Self::Trailer { empty: false, carriage_return: true }, b'\n') => Self::Trailer { empty: true, carriage_return: false },
            (Self::Trailer { empty, carriage_return: false }, b'\r') => Self::Trailer { empty, carriage_return: true },
            (Self::Trailer { .. }, _) if byte != b'\n' => Self::Trailer { empty: false, carriage_return: byte == b'\r' },
            // Among them every line feed alone, which some take for the end of a line.
            (Self::Extension { .. } | Self::End { .. } | Self::Trailer { .. } | Self::Bytes(_), _) => return None,
        };
        Some(Some(next))
    }
}
