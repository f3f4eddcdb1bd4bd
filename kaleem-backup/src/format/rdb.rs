//! The file format of Redis: every key is found, every byte goes through the CRC, and nothing is guessed.
//!
//! What is in a value is not judged, only where it ends. A type that is not known is refused, since nobody could say where
//! the next key begins.

mod counted;
mod lzf;

pub(crate) use counted::Counted;
use kaleem_core::backup::{ByteStream, Contents, SourceError};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};

use super::Crc64;

const FORMAT: &str = "RDB file";
/// The longest string that Redis holds.
const LONGEST_STRING: u64 = 512 * 1024 * 1024;
const CHUNK_BYTES: u64 = 256 * 1024;

/// Something that an RDB file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RdbItem {
    /// The code of a library of functions.
    Function(Vec<u8>),
    /// A key.
    Key(RdbKey),
}

/// A key and, where it was asked for, its value as `DUMP` writes it without version and checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdbKey {
    /// Number of its database.
    pub database: u64,
    /// The key itself.
    pub key: Vec<u8>,
    /// Number of the encoding of its value.
    pub encoding: u8,
    /// When it expires, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// Its value; `None` when values are passed over, or when it is longer than was allowed.
    pub value: Option<Vec<u8>>,
}

/// What becomes of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RdbValues {
    /// They are passed over.
    Skip,
    /// They are kept up to that many bytes each.
    Keep(usize),
}

/// Reads an RDB file, key by key.
pub struct RdbReader<Input = ByteStream> {
    input: BufReader<Input>,
    at_bytes: u64,
    crc: Crc64,
    version: u16,
    database: u64,
    expires_ms: Option<u64>,
    values: RdbValues,
    kept: Option<Vec<u8>>,
    counted: Counted,
}

enum Length {
    Plain(u64),
    Encoded(u8),
}

impl<Input: AsyncRead + Send + Unpin> RdbReader<Input> {
    /// Reads the head.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn open(input: Input, values: RdbValues) -> Result<Self, SourceError> {
        let mut reader = Self {
            input: BufReader::with_capacity(256 * 1024, input),
            at_bytes: 0,
            crc: Crc64::jones(),
            version: 0,
            database: 0,
            expires_ms: None,
            values,
            kept: None,
            counted: Counted::default(),
        };
        let head = reader.bytes(9).await?;
        let version = head.strip_prefix(b"REDIS").and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        reader.version = version.ok_or_else(|| reader.damaged("it does not begin like one"))?;
        Ok(reader)
    }

    /// Version of the format, which `RESTORE` wants to know.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// How many keys with a time to live were seen. They are in no contents, since they go by themselves.
    pub fn expiring(&self) -> u64 {
        self.counted.expiring()
    }

    /// What it reads from, of which nothing is lost once [`RdbReader::next`] has answered `None`.
    pub(crate) fn into_input(self) -> Input {
        self.input.into_inner()
    }

    /// The next thing; `None` once everything was read and the CRC was right.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn next(&mut self) -> Result<Option<RdbItem>, SourceError> {
        loop {
            match self.byte().await? {
                0xff => return self.end().await.map(|()| None),
                0xfe => self.database = self.length().await?,
                0xfd => self.expires_ms = Some(u64::from(u32::from_le_bytes(self.array().await?)) * 1000),
                0xfc => self.expires_ms = Some(u64::from_le_bytes(self.array().await?)),
                0xfb => {
                    self.length().await?;
                    self.length().await?;
                }
                0xfa => {
                    self.string().await?;
                    self.string().await?;
                }
                0xf9 => drop(self.byte().await?),
                0xf8 => drop(self.length().await?),
                0xf5 => {
                    let code = self.string().await?;
                    self.counted.function(&code);
                    return Ok(Some(RdbItem::Function(code)));
                }
                0xf4 => {
                    for _ in 0..3 {
                        self.length().await?;
                    }
                }
                0xf7 => {
                    // Data of a module beside its keys.
                    self.length().await?;
                    self.length().await?;
                    self.length().await?;
                    self.module_value().await?;
                }
                encoding => return self.key(encoding).await.map(|key| Some(RdbItem::Key(key))),
            }
        }
    }

    /// What was read, once [`RdbReader::next`] has answered `None`: keys by database, with their names and types, without
    /// those that expire.
    pub fn contents(&self) -> Contents {
        self.counted.contents()
    }

    async fn key(&mut self, encoding: u8) -> Result<RdbKey, SourceError> {
        let key = self.string().await?;
        self.kept = (self.values != RdbValues::Skip).then(|| vec![encoding]);
        self.value(encoding).await?;
        let value = self.kept.take();
        let expires_ms = self.expires_ms.take();
        let key = RdbKey { database: self.database, key, encoding, expires_ms, value };
        self.counted.key(&key, &key.key);
        Ok(key)
    }

    async fn value(&mut self, encoding: u8) -> Result<(), SourceError> {
        match encoding {
            0 | 9..=13 | 16 | 17 | 20 => self.skip_string().await,
            1 | 2 | 14 => self.skip_strings(1).await,
            4 => self.skip_strings(2).await,
            3 => {
                for _ in 0..self.length().await? {
                    self.skip_string().await?;
                    match self.byte().await? {
                        // Not a number, and the two infinities.
                        253..=255 => (),
                        digits => self.skip(u64::from(digits)).await?,
                    }
                }
                Ok(())
            }
            5 => {
                for _ in 0..self.length().await? {
                    self.skip_string().await?;
                    self.skip(8).await?;
                }
                Ok(())
            }
            7 => {
                self.length().await?;
                self.module_value().await
            }
            18 => {
                for _ in 0..self.length().await? {
                    self.length().await?;
                    self.skip_string().await?;
                }
                Ok(())
            }
            15 | 19 | 21 => self.stream(encoding).await,
            24 => {
                self.skip(8).await?;
                for _ in 0..self.length().await? {
                    self.length().await?;
                    self.skip_string().await?;
                    self.skip_string().await?;
                }
                Ok(())
            }
            25 => {
                self.skip(8).await?;
                self.skip_string().await
            }
            other => Err(self.damaged(format!("a value is of the unknown encoding {other}"))),
        }
    }

    async fn stream(&mut self, encoding: u8) -> Result<(), SourceError> {
        self.skip_strings(2).await?;
        // Length and last id; later also first id, greatest deleted id, and how many were ever added.
        self.lengths(if encoding >= 19 { 8 } else { 3 }).await?;
        for _ in 0..self.length().await? {
            self.skip_string().await?;
            self.lengths(if encoding >= 19 { 3 } else { 2 }).await?;
            for _ in 0..self.length().await? {
                self.skip(24).await?;
                self.length().await?;
            }
            for _ in 0..self.length().await? {
                self.skip_string().await?;
                self.skip(if encoding >= 21 { 16 } else { 8 }).await?;
                let pending = self.length().await?;
                let bytes = pending.checked_mul(16).ok_or_else(|| self.damaged("a length is impossible"))?;
                self.skip(bytes).await?;
            }
        }
        Ok(())
    }

    async fn module_value(&mut self) -> Result<(), SourceError> {
        loop {
            match self.length().await? {
                0 => return Ok(()),
                1 | 2 => drop(self.length().await?),
                3 => self.skip(4).await?,
                4 => self.skip(8).await?,
                5 => self.skip_string().await?,
                _ => return Err(self.damaged("the data of a module cannot be read")),
            }
        }
    }

    async fn end(&mut self) -> Result<(), SourceError> {
        let wanted = self.crc.value();
        let found = u64::from_le_bytes(self.array().await?);
        if found == 0 && wanted != 0 {
            return Err(self.damaged("it has no CRC; set `rdbchecksum yes` in the server's configuration"));
        }
        if found != wanted {
            return Err(self.damaged("its CRC is not that of its bytes"));
        }
        let mut more = [0; 1];
        match self.input.read(&mut more).await.map_err(|source| SourceError::Input { source })? {
            0 => Ok(()),
            _ => Err(self.damaged("something follows its end")),
        }
    }

    pub(crate) fn damaged(&self, reason: impl Into<String>) -> SourceError {
        SourceError::Malformed { format: FORMAT, at_bytes: self.at_bytes, reason: reason.into() }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.at_bytes += bytes.len() as u64;
        self.crc.add(bytes);
        let RdbValues::Keep(most) = self.values else { return };
        if let Some(kept) = &mut self.kept {
            if kept.len() + bytes.len() > most {
                self.kept = None;
            } else {
                kept.extend_from_slice(bytes);
            }
        }
    }

    async fn exactly(&mut self, into: &mut [u8]) -> Result<(), SourceError> {
        match self.input.read_exact(into).await {
            Ok(_) => {
                self.take(into);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.damaged(format!("it ends too early: {error}"))),
            Err(source) => Err(SourceError::Input { source }),
        }
    }

    async fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], SourceError> {
        let mut bytes = [0; LENGTH];
        self.exactly(&mut bytes).await?;
        Ok(bytes)
    }

    async fn byte(&mut self) -> Result<u8, SourceError> {
        let [byte] = self.array().await?;
        Ok(byte)
    }

    async fn bytes(&mut self, length: u64) -> Result<Vec<u8>, SourceError> {
        if length > LONGEST_STRING {
            return Err(self.damaged("a length is impossible"));
        }
        let mut bytes = Vec::new();
        let mut left = length;
        // Room is made for what is there, not for what a damaged length promises.
        while left > 0 {
            let mut chunk = vec![0; usize::try_from(left.min(CHUNK_BYTES)).unwrap_or(1)];
            self.exactly(&mut chunk).await?;
            left -= chunk.len() as u64;
            bytes.append(&mut chunk);
        }
        Ok(bytes)
    }

    async fn skip(&mut self, length: u64) -> Result<(), SourceError> {
        let mut left = length;
        let mut chunk = vec![0; usize::try_from(length.min(CHUNK_BYTES)).unwrap_or(1)];
        while left > 0 {
            let now = usize::try_from(left.min(CHUNK_BYTES)).unwrap_or(1);
            if let Some(chunk) = chunk.get_mut(..now) {
                self.exactly(chunk).await?;
            }
            left -= now as u64;
        }
        Ok(())
    }

    async fn any_length(&mut self) -> Result<Length, SourceError> {
        let first = self.byte().await?;
        Ok(match first >> 6 {
            0 => Length::Plain(u64::from(first & 0x3f)),
            1 => Length::Plain((u64::from(first & 0x3f) << 8) | u64::from(self.byte().await?)),
            2 if first == 0x80 => Length::Plain(u64::from(u32::from_be_bytes(self.array().await?))),
            2 if first == 0x81 => Length::Plain(u64::from_be_bytes(self.array().await?)),
            3 => Length::Encoded(first & 0x3f),
            _ => return Err(self.damaged("a length cannot be read")),
        })
    }

    async fn length(&mut self) -> Result<u64, SourceError> {
        match self.any_length().await? {
            Length::Plain(length) => Ok(length),
            Length::Encoded(_) => Err(self.damaged("a length cannot be read")),
        }
    }

    async fn lengths(&mut self, count: u64) -> Result<(), SourceError> {
        for _ in 0..count {
            self.length().await?;
        }
        Ok(())
    }

    async fn string(&mut self) -> Result<Vec<u8>, SourceError> {
        match self.any_length().await? {
            Length::Plain(length) => self.bytes(length).await,
            Length::Encoded(0) => Ok(i8::from_le_bytes(self.array().await?).to_string().into_bytes()),
            Length::Encoded(1) => Ok(i16::from_le_bytes(self.array().await?).to_string().into_bytes()),
            Length::Encoded(2) => Ok(i32::from_le_bytes(self.array().await?).to_string().into_bytes()),
            Length::Encoded(3) => {
                let (packed, plain) = (self.length().await?, self.length().await?);
                if plain > LONGEST_STRING {
                    return Err(self.damaged("a length is impossible"));
                }
                let packed = self.bytes(packed).await?;
                let plain = usize::try_from(plain).ok().and_then(|plain| lzf::unpack(&packed, plain));
                plain.ok_or_else(|| self.damaged("a compressed string cannot be read"))
            }
            Length::Encoded(_) => Err(self.damaged("a string is of an unknown encoding")),
        }
    }

    async fn skip_string(&mut self) -> Result<(), SourceError> {
        match self.any_length().await? {
            Length::Plain(length) if length > LONGEST_STRING => Err(self.damaged("a length is impossible")),
            Length::Plain(length) => self.skip(length).await,
            Length::Encoded(0) => self.skip(1).await,
            Length::Encoded(1) => self.skip(2).await,
            Length::Encoded(2) => self.skip(4).await,
            Length::Encoded(3) => {
                let packed = self.length().await?;
                self.length().await?;
                self.skip(packed).await
            }
            Length::Encoded(_) => Err(self.damaged("a string is of an unknown encoding")),
        }
    }

    async fn skip_strings(&mut self, each: u64) -> Result<(), SourceError> {
        for _ in 0..self.length().await? {
            for _ in 0..each {
                self.skip_string().await?;
            }
        }
        Ok(())
    }
}

/// Reads an RDB file to its end, and answers which keys are in it.
///
/// # Errors
/// [`SourceError`] unless it is whole and its CRC is right.
pub async fn verify(input: ByteStream) -> Result<Contents, SourceError> {
    let mut reader = RdbReader::open(input, RdbValues::Skip).await?;
    while reader.next().await?.is_some() {}
    Ok(reader.contents())
}
