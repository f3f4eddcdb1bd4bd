//! Just enough of WebSocket (RFC 6455) to know where one frame ends and the next begins, so that a close can be put between.

/// "Going away": the status with which connections to an old instance end.
pub(crate) const CLOSE_GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];
/// The same as a client must send it: masked, here with a mask of zeros.
pub(crate) const CLOSE_GOING_AWAY_MASKED: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

/// Where one direction of a connection stands.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// The head of a frame as far as it came.
    head: Vec<u8>,
    /// Bytes of the payload that are still to come.
    rest: u64,
    closed: bool,
}

impl Frames {
    /// Whether the last byte seen was the last of a frame.
    pub(crate) fn at_boundary(&self) -> bool {
        self.head.is_empty() && self.rest == 0
    }

    /// Whether a close frame has passed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes note of `bytes`.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        let mut left = bytes;
        while !left.is_empty() {
            left = self.step(left);
        }
    }

    /// Takes note of `bytes` up to the first end of a frame, and answers with how many those are; all of them when there is none.
    pub(crate) fn pass_to_boundary(&mut self, bytes: &[u8]) -> usize {
        let mut left = bytes;
        while !left.is_empty() && !self.at_boundary() {
            left = self.step(left);
        }
        bytes.len() - left.len()
    }

    /// Takes note of a part of `bytes`, and answers with the rest of them.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.rest > 0 {
            let count = usize::try_from(self.rest).unwrap_or(usize::MAX).min(bytes.len());
            self.rest -= count as u64;
            return bytes.get(count..).unwrap_or_default();
        }
        let Some((first, others)) = bytes.split_first() else { return bytes };
        self.head.push(*first);
        if let Some((rest, close)) = payload(&self.head) {
            self.rest = rest;
            self.closed |= close;
            self.head.clear();
        }
        others
    }
}

/// Length of the payload and whether the frame is a close, once its head is whole.
fn payload(head: &[u8]) -> Option<(u64, bool)> {
    let [first, second, more @ ..] = head else { return None };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (length, wide) = match second & 0x7f {
        126 => (more.get(..2)?, 2),
        127 => (more.get(..8)?, 8),
        _ => (&[*second & 0x7f][..], 0),
    };
    if more.len() < wide + mask {
        return None;
    }
    let length = length.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    Some((length, first & 0x0f == 0x08))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..=125 => bytes.push(mask | u8::try_from(length).unwrap()),
            126..=65_535 => {
                bytes.push(mask | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend([1, 2, 3, 4]);
        }
        bytes.extend(std::iter::repeat_n(7, length));
        bytes
    }

    #[test]
    fn a_boundary_is_found_wherever_the_stream_is_cut() {
        for masked in [false, true] {
            for length in [0, 1, 125, 126, 1000, 65_535, 65_536, 70_000] {
                let bytes = frame(2, length, masked);
                for cut in [1, 2, 3, bytes.len() / 2, bytes.len().saturating_sub(1)] {
                    let (one, two) = bytes.split_at(cut.min(bytes.len()));
                    let mut frames = Frames::default();
                    frames.pass(one);
                    assert_eq!(frames.at_boundary(), two.is_empty() || one.is_empty(), "{length} cut at {cut}");
                    let mut more = two.to_vec();
                    more.extend(frame(1, 3, masked));
                    if !frames.at_boundary() {
                        assert_eq!(frames.pass_to_boundary(&more), two.len(), "{length} cut at {cut}");
                    }
                    assert!(!frames.is_closed());
                }
            }
        }
    }

    #[test]
    fn the_close_that_is_sent_is_one() {
        for bytes in [&CLOSE_GOING_AWAY[..], &CLOSE_GOING_AWAY_MASKED[..]] {
            let mut frames = Frames::default();
            frames.pass(bytes);
            assert!(frames.is_closed() && frames.at_boundary());
        }
    }
}
