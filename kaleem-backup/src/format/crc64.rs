//! The two CRC-64 that the formats use: that of mongodump archives (XZ) and that of Redis (Jones).

const LANES: usize = 8;
type Tables = [[u64; 256]; LANES];

#[expect(clippy::indexing_slicing, reason = "evaluated when this is compiled: an index that is out of bounds does not compile")]
const fn tables(polynomial: u64) -> Tables {
    let mut tables = [[0; 256]; LANES];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ polynomial } else { value >> 1 };
            bit += 1;
        }
        tables[0][byte] = value;
        byte += 1;
    }
    let mut lane = 1;
    while lane < LANES {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[lane - 1][byte];
            tables[lane][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        lane += 1;
    }
    tables
}

static XZ: Tables = tables(0xc96c_5795_d787_0f42);
static JONES: Tables = tables(0x95ac_9329_ac4b_c9b5);

/// A CRC-64 that is being computed.
#[derive(Clone, Copy)]
pub struct Crc64 {
    tables: &'static Tables,
    value: u64,
    last: u64,
}

impl std::fmt::Debug for Crc64 {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Crc64({:016x})", self.value())
    }
}

impl Crc64 {
    /// As in mongodump archives.
    pub fn xz() -> Self {
        Self { tables: &XZ, value: !0, last: !0 }
    }

    /// As in Redis.
    pub fn jones() -> Self {
        Self { tables: &JONES, value: 0, last: 0 }
    }

    /// Takes more bytes in.
    #[expect(clippy::indexing_slicing, reason = "a byte cannot be out of the bounds of 256 entries, nor a lane of 8")]
    pub fn add(&mut self, bytes: &[u8]) {
        let mut value = self.value;
        let (words, rest) = bytes.as_chunks::<LANES>();
        for word in words {
            let mixed = (value ^ u64::from_le_bytes(*word)).to_le_bytes();
            value = 0;
            for (lane, byte) in mixed.iter().enumerate() {
                value ^= self.tables[LANES - 1 - lane][usize::from(*byte)];
            }
        }
        for byte in rest {
            let [low, ..] = value.to_le_bytes();
            value = (value >> 8) ^ self.tables[0][usize::from(low ^ byte)];
        }
        self.value = value;
    }

    /// The CRC of what was taken in.
    pub fn value(&self) -> u64 {
        self.value ^ self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_values_come_out_however_the_bytes_are_cut() {
        for (why, fresh, wanted) in
            [("mongodump", Crc64::xz(), 0x995d_c9bb_df19_39fa_u64), ("Redis", Crc64::jones(), 0xe9c6_d914_c4b8_d9ca)]
        {
            for cut in 0..=9 {
                let mut crc = fresh;
                let (one, two) = b"123456789".split_at(cut);
                crc.add(one);
                crc.add(two);
                assert_eq!(crc.value(), wanted, "{why}, cut at {cut}");
            }
        }
    }
}
