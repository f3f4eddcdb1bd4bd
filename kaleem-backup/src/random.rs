//! Names that nobody else has.

use std::io;

/// Random hexadecimal digits, two for each of `BYTES`.
pub(crate) fn digits<const BYTES: usize>() -> io::Result<String> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(hex::encode(random))
}
