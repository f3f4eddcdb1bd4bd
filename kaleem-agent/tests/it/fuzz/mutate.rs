//! Chance that can be repeated, and what it does to bytes.

/// Pieces of HTTP that matter for where a request ends.
pub(crate) const HTTP: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "+",
    "-",
    "0",
    "ffffffffffffffff",
    "chunked",
    "gzip",
    "0\r\n\r\n",
    "\r\n\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 5\r\n",
    "content-length: 37\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding: identity\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding:\x0bchunked\r\n",
    "X: y\r\n Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Connection: Content-Length\r\n",
    "Expect: 100-continue\r\n",
    "HTTP/1.0",
    "HTTP/1.1",
    "GET /smuggled HTTP/1.1\r\nHost: api\r\n\r\n",
];

/// Pieces of the control protocol.
pub(crate) const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "18446744073709551615",
    "18446744073709551616",
    "\n",
    "\r\n",
    "\0",
    "\\u0000",
    "\\ud800",
    "../",
    "\"stats\"",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// Numbers that follow from a seed.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A few changes to `bytes`, now and then none.
pub(crate) fn mutate(bytes: &[u8], dictionary: &[&str], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..chance.below(5) {
        let at = chance.below(bytes.len() + 1);
        let end = (at + chance.below(24)).min(bytes.len());
        match chance.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(chance.below(256)).unwrap(),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(end..end, again);
            }
            4 => bytes.truncate(at.max(1)),
            5 => {
                // At the beginning of a line, where header fields and sizes are.
                let lines: Vec<usize> = (1..=bytes.len()).filter(|end| bytes[end - 1] == b'\n').collect();
                let at = if lines.is_empty() { at } else { *chance.pick(&lines) };
                let piece = chance.pick(dictionary);
                bytes.splice(at..at, piece.bytes());
            }
            _ => {
                let piece = chance.pick(dictionary);
                bytes.splice(at..at, piece.bytes());
            }
        }
    }
    bytes
}

/// The same bytes, cut in up to four.
pub(crate) fn pieces<'a>(bytes: &'a [u8], chance: &mut Chance) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = (0..chance.below(4)).map(|_| chance.below(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}
