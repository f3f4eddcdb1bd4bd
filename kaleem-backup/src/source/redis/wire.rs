//! Just enough of Redis' protocol: commands with one answer each, and the stream that a replica gets.

use std::time::Duration;

use kaleem_core::backup::{ByteSender, SourceError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::RedisAddress;

const LONGEST_LINE: u64 = 64 * 1024;
const LONGEST_ANSWER: u64 = 64 * 1024 * 1024;
const DEEPEST_ANSWER: u8 = 16;
const CHUNK_BYTES: u64 = 256 * 1024;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Text(String),
    Error(String),
    Number(i64),
    Bytes(Vec<u8>),
    Nothing,
    Many(Vec<Reply>),
}

/// A connection that is logged in.
pub(super) struct Connection {
    store: String,
    stream: BufReader<TcpStream>,
    answer_within: Duration,
}

impl Connection {
    pub(super) async fn open(store: String, address: &RedisAddress, answer_within: Duration) -> Result<Self, SourceError> {
        let unreachable = |source: std::io::Error| SourceError::Unreachable { store: store.clone(), source: Box::new(source) };
        let connecting = TcpStream::connect((address.host.as_str(), address.port));
        let stream = match tokio::time::timeout(answer_within, connecting).await {
            Ok(connected) => connected.map_err(unreachable)?,
            Err(_) => return Err(unreachable(std::io::ErrorKind::TimedOut.into())),
        };
        let mut connection = Self { store, stream: BufReader::with_capacity(256 * 1024, stream), answer_within };
        if let Some(password) = &address.password {
            let mut parts: Vec<&[u8]> = vec![b"AUTH"];
            parts.extend(address.username.as_ref().map(String::as_bytes));
            parts.push(password.expose().as_bytes());
            connection.accept("log in", &parts).await?;
        }
        connection.accept("ask anything", &[b"PING"]).await?;
        Ok(connection)
    }

    async fn accept(&mut self, doing: &'static str, parts: &[&[u8]]) -> Result<(), SourceError> {
        match self.ask(parts).await? {
            Reply::Error(reason) => Err(SourceError::Denied { store: self.store.clone(), doing, reason }),
            _ => Ok(()),
        }
    }

    pub(super) fn nonsense(&self, reason: &str) -> SourceError {
        SourceError::Failed { store: self.store.clone(), doing: "answering".to_owned(), source: reason.to_owned().into() }
    }

    fn lost(&self, source: std::io::Error) -> SourceError {
        SourceError::Failed { store: self.store.clone(), doing: "answering".to_owned(), source: Box::new(source) }
    }

    async fn write(&mut self, parts: &[&[u8]]) -> Result<(), SourceError> {
        let mut request = format!("*{}\r\n", parts.len()).into_bytes();
        for part in parts {
            request.extend(format!("${}\r\n", part.len()).into_bytes());
            request.extend_from_slice(part);
            request.extend(b"\r\n");
        }
        let written = self.stream.get_mut().write_all(&request).await;
        written.map_err(|source| self.lost(source))
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn ask(&mut self, parts: &[&[u8]]) -> Result<Reply, SourceError> {
        self.write(parts).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Reply, SourceError> {
        match tokio::time::timeout(self.answer_within, Box::pin(self.reply(0))).await {
            Ok(reply) => reply,
            Err(_) => Err(self.lost(std::io::ErrorKind::TimedOut.into())),
        }
    }

    async fn line(&mut self) -> Result<String, SourceError> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(LONGEST_LINE).read_until(b'\n', &mut line).await;
        read.map_err(|source| self.lost(source))?;
        let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).ok());
        match text {
            Some(text) => Ok(text.to_owned()),
            None if line.is_empty() => Err(self.lost(std::io::ErrorKind::UnexpectedEof.into())),
            None => Err(self.nonsense("a line cannot be read")),
        }
    }

    async fn reply(&mut self, depth: u8) -> Result<Reply, SourceError> {
        let line = self.line().await?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| self.nonsense("a line is empty"))?;
        let number = || rest.parse::<i64>().map_err(|_| self.nonsense("a number is none"));
        Ok(match kind {
            "+" => Reply::Text(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Number(number()?),
            "$" | "*" if rest == "-1" => Reply::Nothing,
            "$" => {
                let length = u64::try_from(number()?).ok().filter(|length| *length <= LONGEST_ANSWER);
                let length =
                    length.and_then(|length| usize::try_from(length).ok()).ok_or_else(|| self.nonsense("an answer is too long"))?;
                let mut bytes = vec![0; length + 2];
                self.stream.read_exact(&mut bytes).await.map_err(|source| self.lost(source))?;
                bytes.truncate(length);
                Reply::Bytes(bytes)
            }
            "*" if depth < DEEPEST_ANSWER => {
                let count = number()?;
                let mut many = Vec::new();
                for _ in 0..count {
                    many.push(Box::pin(self.reply(depth + 1)).await?);
                }
                Reply::Many(many)
            }
            _ => return Err(self.nonsense("an answer is of an unknown kind")),
        })
    }

    /// [`Connection::ask`] where an error is none that anybody expects.
    pub(super) async fn command(&mut self, doing: &str, parts: &[&[u8]]) -> Result<Reply, SourceError> {
        match self.ask(parts).await? {
            Reply::Error(reason) => Err(self.failed(doing, reason)),
            reply => Ok(reply),
        }
    }

    /// Servers before version 7 have no functions, and say that they do not know the command.
    pub(super) async fn has_functions(&mut self) -> Result<bool, SourceError> {
        Ok(matches!(self.ask(&[b"FUNCTION", b"LIST"]).await?, Reply::Many(functions) if !functions.is_empty()))
    }

    pub(super) fn failed(&self, doing: &str, reason: impl Into<String>) -> SourceError {
        SourceError::Failed { store: self.store.clone(), doing: doing.to_owned(), source: reason.into().into() }
    }

    /// Sends commands with short answers together, and waits for all of them.
    pub(super) async fn ask_all(&mut self, commands: &[Vec<&[u8]>]) -> Result<Vec<Reply>, SourceError> {
        for parts in commands {
            self.write(parts).await?;
        }
        let mut replies = Vec::new();
        for _ in commands {
            replies.push(self.answer().await?);
        }
        Ok(replies)
    }

    /// Asks for the stream that replicas get. Without any capability announced, the server says how long the file is.
    pub(super) async fn become_replica(&mut self) -> Result<(), SourceError> {
        self.write(&[b"SYNC"]).await
    }

    /// Passes a file of that length on.
    pub(super) async fn pass_on(&mut self, length: u64, out: &mut ByteSender) -> Result<(), SourceError> {
        let mut left = length;
        while left > 0 {
            let chunk = self.chunk(&mut left).await?;
            out.send(chunk).await.map_err(|source| SourceError::Output { source })?;
        }
        Ok(())
    }

    /// Passes a file of that length on to two, and to `seen`.
    pub(super) async fn pass_on_to_both(
        &mut self,
        length: u64,
        out: &mut ByteSender,
        copy: &mut ByteSender,
        mut seen: impl FnMut(&[u8]),
    ) -> Result<(), SourceError> {
        let mut left = length;
        while left > 0 {
            let chunk = self.chunk(&mut left).await?;
            seen(&chunk);
            copy.send(chunk.clone()).await.map_err(|source| SourceError::Output { source })?;
            out.send(chunk).await.map_err(|source| SourceError::Output { source })?;
        }
        Ok(())
    }

    /// How long the file is, once it is there.
    pub(super) async fn file_length(&mut self) -> Result<u64, SourceError> {
        loop {
            let line = self.line().await?;
            if let Some(reason) = line.strip_prefix('-') {
                return Err(SourceError::Denied { store: self.store.clone(), doing: "read as a replica", reason: reason.to_owned() });
            }
            // An empty line is a sign of life while the server prepares the file.
            if !line.is_empty() {
                let length = line.strip_prefix('$').and_then(|length| length.parse().ok());
                return length.ok_or_else(|| self.nonsense("it does not say how long its file is"));
            }
        }
    }

    async fn chunk(&mut self, left: &mut u64) -> Result<Vec<u8>, SourceError> {
        // Not zeroed first: the socket fills a small part of it at a time.
        let mut chunk = Vec::with_capacity(usize::try_from((*left).min(CHUNK_BYTES)).unwrap_or(1));
        let read = (&mut self.stream).take(*left).read_buf(&mut chunk).await.map_err(|source| self.lost(source))?;
        if read == 0 {
            return Err(self.lost(std::io::ErrorKind::UnexpectedEof.into()));
        }
        *left -= read as u64;
        Ok(chunk)
    }
}
