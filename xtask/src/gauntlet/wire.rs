//! One connection of a client, byte by byte: nothing is tried again here, and nothing is read that was not sent.

use std::io;
use std::net::SocketAddr;
use std::sync::LazyLock;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Bytes of `/bytes` and of bodies that are echoed repeat after this many, a prime: what is lost, doubled or moved shows.
const PERIOD: u8 = 251;
const PIECE: usize = 251 * 64;
/// A piece from any place of the period on. It is compared as a whole: byte by byte would take longer than the network.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| (0..PERIOD).cycle().take(PIECE + usize::from(PERIOD)).collect());

/// A request that got no right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Miss {
    /// Why.
    pub reason: String,
    /// Whether a byte of an answer had come.
    pub began: bool,
}

/// The head of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Its status.
    pub status: u16,
    fields: Vec<(String, String)>,
}

impl Head {
    /// The first field of that name, in small letters.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Whether the connection ends with this answer.
    pub(super) fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// The body of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Body {
    /// Its first bytes, up to a few thousand.
    pub text: Vec<u8>,
    /// Its length.
    pub length: u64,
    /// Whether its bytes are 0 to 250, over and over.
    pub is_pattern: bool,
    /// Fields after the last chunk.
    pub trailers: Vec<(String, String)>,
}

/// What is read from a connection.
pub(super) struct Reader {
    stream: BufReader<OwnedReadHalf>,
    /// Bytes read.
    pub received: u64,
}

/// One connection.
pub(super) struct Wire {
    /// What comes.
    pub reader: Reader,
    writer: OwnedWriteHalf,
    /// Bytes written.
    pub sent: u64,
}

fn io_miss(error: &io::Error, began: bool) -> Miss {
    Miss { reason: error.to_string(), began }
}

impl Wire {
    /// Connects.
    pub(super) async fn connect(address: SocketAddr) -> Result<Self, Miss> {
        let stream = TcpStream::connect(address).await.map_err(|error| Miss { reason: format!("connect: {error}"), began: false })?;
        stream.set_nodelay(true).map_err(|error| io_miss(&error, false))?;
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: Reader { stream: BufReader::with_capacity(16 << 10, reader), received: 0 }, writer, sent: 0 })
    }

    /// Whether the other side has closed it, or said something that nobody asked for.
    pub(super) fn is_stale(&self) -> bool {
        let mut byte = [0];
        !self.reader.stream.buffer().is_empty()
            || !matches!(self.reader.stream.get_ref().try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends bytes.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Miss> {
        self.writer.write_all(bytes).await.map_err(|error| io_miss(&error, false))?;
        self.sent += bytes.len() as u64;
        Ok(())
    }

    /// Sends `length` bytes of the pattern, plain or in chunks, then `trailers` (only in chunks), and reads meanwhile.
    pub(super) async fn exchange(&mut self, length: u64, chunked: bool, trailers: &str, wants_body: bool) -> Result<(Head, Body), Miss> {
        let Self { reader, writer, sent } = self;
        let write = async {
            let mut left = usize::try_from(length).unwrap_or(usize::MAX);
            while left > 0 {
                let part = PATTERN.get(..left.min(PIECE)).unwrap_or_default();
                if chunked {
                    let framed = [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
                    writer.write_all(&framed).await?;
                    *sent += framed.len() as u64;
                } else {
                    writer.write_all(part).await?;
                    *sent += part.len() as u64;
                }
                left -= part.len();
            }
            if chunked {
                let end = format!("0\r\n{trailers}\r\n");
                writer.write_all(end.as_bytes()).await?;
                *sent += end.len() as u64;
            }
            io::Result::Ok(())
        };
        let read = async {
            let head = reader.head().await?;
            let body = if wants_body { reader.body(&head).await? } else { Body { is_pattern: true, ..Body::default() } };
            Result::<_, Miss>::Ok((head, body))
        };
        // An answer counts also where not all of the request was wanted.
        let (written, answered) = tokio::join!(write, read);
        match (answered, written) {
            (Ok(answer), _) => Ok(answer),
            (Err(miss), Err(error)) => Err(Miss { reason: format!("{} (writing: {error})", miss.reason), ..miss }),
            (Err(miss), Ok(())) => Err(miss),
        }
    }
}

impl Reader {
    /// Reads one line without its end.
    pub(super) async fn line(&mut self, began: bool) -> Result<String, Miss> {
        let mut line = Vec::new();
        let count = self.stream.read_until(b'\n', &mut line).await.map_err(|error| io_miss(&error, began))?;
        self.received += count as u64;
        if line.pop() != Some(b'\n') {
            let reason = if count == 0 { "closed without an answer" } else { "broke off in a line" };
            return Err(Miss { reason: if began { format!("closed in the middle: {reason}") } else { reason.to_owned() }, began });
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    async fn fields(&mut self) -> Result<Vec<(String, String)>, Miss> {
        let mut fields = Vec::new();
        loop {
            let line = self.line(true).await?;
            let Some((name, value)) = line.split_once(':') else { return Ok(fields) };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Reads the head of an answer, interim ones too.
    pub(super) async fn head(&mut self) -> Result<Head, Miss> {
        let first = self.line(false).await?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| Miss { reason: format!("no status line: {first:?}"), began: true })?;
        Ok(Head { status, fields: self.fields().await? })
    }

    /// Reads bytes that must come.
    pub(super) async fn exactly(&mut self, bytes: &mut [u8]) -> Result<(), Miss> {
        self.stream.read_exact(bytes).await.map_err(|error| io_miss(&error, true))?;
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// Reads what is there, up to the length of `bytes`.
    pub(super) async fn some(&mut self, bytes: &mut [u8]) -> Result<usize, Miss> {
        let count = self.stream.read(bytes).await.map_err(|error| io_miss(&error, true))?;
        self.received += count as u64;
        Ok(count)
    }

    /// Reads the body of an answer to its end.
    pub(super) async fn body(&mut self, head: &Head) -> Result<Body, Miss> {
        let mut body = Body { is_pattern: true, ..Body::default() };
        if head.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            while let Some(size) = self.chunk_size().await? {
                self.counted(size, &mut body).await?;
                self.line(true).await?;
            }
            body.trailers = self.fields().await?;
        } else if let Some(length) = head.field("content-length").and_then(|text| text.parse().ok()) {
            self.counted(length, &mut body).await?;
        } else {
            let mut piece = vec![0; PIECE];
            loop {
                match self.some(&mut piece).await? {
                    0 => break,
                    count => body.add(piece.get(..count).unwrap_or_default()),
                }
            }
        }
        Ok(body)
    }

    /// The size of the next chunk; `None` for the last one, whose trailers follow.
    pub(super) async fn chunk_size(&mut self) -> Result<Option<u64>, Miss> {
        let line = self.line(true).await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| Miss { reason: format!("no size of a chunk: {line:?}"), began: true })?;
        Ok((size > 0).then_some(size))
    }

    async fn counted(&mut self, length: u64, body: &mut Body) -> Result<(), Miss> {
        let mut left = usize::try_from(length).unwrap_or(usize::MAX);
        let mut piece = vec![0; left.min(PIECE)];
        while left > 0 {
            let wanted = left.min(piece.len());
            let part = piece.get_mut(..wanted).unwrap_or_default();
            match self.some(part).await? {
                0 => return Err(Miss { reason: format!("the body ended {left} bytes early"), began: true }),
                count => {
                    body.add(part.get(..count).unwrap_or_default());
                    left -= count;
                }
            }
        }
        Ok(())
    }
}

impl Body {
    fn add(&mut self, bytes: &[u8]) {
        const MOST_TEXT: usize = 4096;
        for piece in bytes.chunks(PIECE) {
            let first = usize::try_from(self.length % u64::from(PERIOD)).unwrap_or(0);
            self.is_pattern &= PATTERN.get(first..first + piece.len()) == Some(piece);
            self.length += piece.len() as u64;
        }
        let room = MOST_TEXT.saturating_sub(self.text.len()).min(bytes.len());
        self.text.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_lost_or_doubled_a_byte_is_not_the_pattern() {
        let pattern: Vec<u8> = (0..PERIOD).cycle().take(1000).collect();
        for cut in [1, 250, 251, 252, 999] {
            let mut body = Body { is_pattern: true, ..Body::default() };
            body.add(&pattern[..cut]);
            body.add(&pattern[cut..]);
            assert!(body.is_pattern && body.length == 1000, "{cut}");
            let mut lost = Body { is_pattern: true, ..Body::default() };
            lost.add(&pattern[..cut]);
            lost.add(&pattern[cut - 1..]);
            assert!(!lost.is_pattern, "{cut}");
        }
    }
}
