//! The protocol of Redis (RESP2), as much as questions need: bounded replies, errors told apart by their first word.
//!
//! Small enough to be its own: nothing runs beside the caller's future, so dropping it closes the connection.

use std::time::Duration;

use kaleem_core::health::{Finding, Resolver, Verdict};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::dial::{DialError, Endpoint, Wire, dial};
use crate::report::word;
use crate::settings::RedisLogin;

/// `INFO` and `CLUSTER NODES` of a hundred nodes are far below this.
const LONGEST_REPLY_BYTES: usize = 1024 * 1024;
const DEEPEST_ARRAY: u8 = 4;

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A status, a number or a text.
    Text(String),
    /// Nothing.
    Nil,
    /// Many.
    Array(Vec<Reply>),
    /// An error: its code and whether it is about the number of clients.
    Error(String),
}

/// Why there was no reply.
#[derive(Debug)]
pub(crate) enum WireError {
    Dial(DialError),
    Closed,
    NotRedis,
    /// The server said no; the first word of its error.
    Refused(String),
}

/// One connection.
pub(crate) struct Session {
    wire: BufReader<Box<dyn Wire>>,
    /// Bytes which this reply may still take.
    left: usize,
    pub(crate) phases: std::collections::BTreeMap<String, Duration>,
}

impl Session {
    /// Connects and logs in.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        login: &RedisLogin,
        resolver: &dyn Resolver,
        timeout: Duration,
    ) -> Result<Self, WireError> {
        let dialed = dial(endpoint, resolver, timeout).await.map_err(WireError::Dial)?;
        let mut session = Self { wire: BufReader::new(dialed.wire), left: 0, phases: dialed.phases };
        if let Some(password) = &login.password {
            let reply = match &login.user {
                Some(user) => session.ask(&["AUTH", user, password.expose()]).await?,
                None => session.ask(&["AUTH", password.expose()]).await?,
            };
            if let Reply::Error(code) = reply {
                return Err(WireError::Refused(if code == "ERR" { "WRONGPASS".to_owned() } else { code }));
            }
        }
        Ok(session)
    }

    /// Sends one command and reads its reply.
    pub(crate) async fn ask(&mut self, command: &[&str]) -> Result<Reply, WireError> {
        self.send(&encoded(command)).await;
        self.reply().await
    }

    /// Sends two commands at once and reads their replies.
    pub(crate) async fn ask_both(&mut self, first: &[&str], second: &[&str]) -> Result<(Reply, Reply), WireError> {
        self.send(&[encoded(first), encoded(second)].concat()).await;
        let first = self.reply().await?;
        let second = match (self.reply().await, &first) {
            // It said why, and closed: that counts for both.
            (Err(WireError::Closed), Reply::Error(code)) => Reply::Error(code.clone()),
            (second, _) => second?,
        };
        Ok((first, second))
    }

    /// A server that has too many clients says so and closes before it was asked: whether it takes the question is no matter.
    async fn send(&mut self, bytes: &[u8]) {
        if self.wire.write_all(bytes).await.is_ok() {
            drop(self.wire.flush().await);
        }
    }

    async fn reply(&mut self) -> Result<Reply, WireError> {
        self.left = LONGEST_REPLY_BYTES;
        self.read(DEEPEST_ARRAY).await
    }

    /// The same where only a text will do.
    pub(crate) async fn text(&mut self, command: &[&str]) -> Result<String, WireError> {
        match self.ask(command).await? {
            Reply::Text(text) => Ok(text),
            Reply::Error(code) => Err(WireError::Refused(code)),
            Reply::Nil | Reply::Array(_) => Err(WireError::NotRedis),
        }
    }

    async fn read(&mut self, depth: u8) -> Result<Reply, WireError> {
        let line = self.line().await?;
        let (kind, rest) = line.split_at_checked(1).ok_or(WireError::NotRedis)?;
        match kind {
            "+" | ":" => Ok(Reply::Text(rest.to_owned())),
            "-" => Ok(Reply::Error(code(rest))),
            "$" => {
                let Some(length) = length(rest)? else { return Ok(Reply::Nil) };
                self.left = self.left.checked_sub(length).ok_or(WireError::NotRedis)?;
                let mut bytes = vec![0; length + 2];
                self.wire.read_exact(&mut bytes).await.map_err(|_| WireError::Closed)?;
                bytes.truncate(length);
                let text = String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
                Ok(Reply::Text(text))
            }
            "*" => {
                let Some(count) = length(rest)? else { return Ok(Reply::Nil) };
                let deeper = depth.checked_sub(1).ok_or(WireError::NotRedis)?;
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(Box::pin(self.read(deeper)).await?);
                }
                Ok(Reply::Array(items))
            }
            _ => Err(WireError::NotRedis),
        }
    }

    async fn line(&mut self) -> Result<String, WireError> {
        let mut line = Vec::new();
        let limit = u64::try_from(self.left).unwrap_or(0);
        (&mut self.wire).take(limit).read_until(b'\n', &mut line).await.map_err(|_| WireError::Closed)?;
        self.left = self.left.saturating_sub(line.len());
        if line.is_empty() && self.left > 0 {
            return Err(WireError::Closed);
        }
        let line = line.strip_suffix(b"\r\n").ok_or(WireError::NotRedis)?;
        // Another protocol is told by its first byte, before a line of it is waited for any longer.
        String::from_utf8(line.to_vec()).map_err(|_| WireError::NotRedis)
    }
}

fn encoded(command: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for part in command {
        bytes.extend_from_slice(format!("${}\r\n{part}\r\n", part.len()).as_bytes());
    }
    bytes
}

fn length(text: &str) -> Result<Option<usize>, WireError> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(length) => usize::try_from(length).ok().filter(|length| *length <= LONGEST_REPLY_BYTES).map(Some).ok_or(WireError::NotRedis),
        Err(_) => Err(WireError::NotRedis),
    }
}

/// The first word; the rest of an error may repeat what was sent. One plain error has a code of its own here.
fn code(text: &str) -> String {
    if text.starts_with("ERR max number of clients") {
        return "MAXCLIENTS".to_owned();
    }
    word(text.split([' ', '\r']).next().unwrap_or_default()).to_owned()
}

impl WireError {
    /// What it means for the server that was asked.
    pub(crate) fn finding(&self, endpoint: &Endpoint, login: &RedisLogin, needed: &str) -> Finding {
        match self {
            Self::Dial(error) => error.finding(endpoint),
            Self::Closed => Finding::new(Verdict::Fail, format!("{endpoint} closed the connection without an answer"))
                .with_remedy("see the server's log; check that its port speaks the protocol of Redis, with or without TLS"),
            Self::NotRedis => Finding::new(Verdict::Fail, format!("{endpoint} does not speak the protocol of Redis"))
                .with_remedy("check the port; a server with TLS needs `rediss://`"),
            Self::Refused(code) => refused(code, endpoint, login, needed),
        }
    }
}

fn refused(code: &str, endpoint: &Endpoint, login: &RedisLogin, needed: &str) -> Finding {
    let user = login.user.as_deref().unwrap_or("default");
    let (verdict, reason, remedy) = match code {
        "LOADING" => (
            Verdict::Fail,
            format!("{endpoint} is loading its data set and answers nothing else yet"),
            "wait; `redis-cli info persistence` tells how far it is".to_owned(),
        ),
        "MASTERDOWN" => (
            Verdict::Fail,
            format!("{endpoint} is a replica that lost its master, and may not answer with old data"),
            "look at its master and at the network between them".to_owned(),
        ),
        "MAXCLIENTS" => (
            Verdict::Fail,
            format!("{endpoint} has as many clients as it accepts"),
            "find the client that leaks connections (`redis-cli client list`), or raise `maxclients`".to_owned(),
        ),
        "BUSY" => (Verdict::Fail, format!("{endpoint} is busy with a script"), "end it: `redis-cli script kill`".to_owned()),
        "MISCONF" => (
            Verdict::Fail,
            format!("{endpoint} refuses writes, since its last snapshot failed"),
            "see its log; check the space and rights of its directory".to_owned(),
        ),
        "OOM" => (
            Verdict::Fail,
            format!("{endpoint} refuses writes: its memory is full"),
            "raise `maxmemory`, delete keys, or choose a policy that evicts".to_owned(),
        ),
        "READONLY" => {
            (Verdict::Fail, format!("{endpoint} is a replica and takes no writes"), "ask the master, or switch the canary off".to_owned())
        }
        "CLUSTERDOWN" => (
            Verdict::Fail,
            format!("the cluster of {endpoint} is down"),
            "see which slots are uncovered: `redis-cli cluster info`".to_owned(),
        ),
        "NOAUTH" => (
            Verdict::Unknown,
            format!("{endpoint} asks for a password and none is given"),
            "put the password into the address: `redis://:PASSWORD@host:port`".to_owned(),
        ),
        "WRONGPASS" => (
            Verdict::Unknown,
            format!("{endpoint} does not accept the password of `{}`", word(user)),
            "check user and password in the address".to_owned(),
        ),
        "NOPERM" => (
            Verdict::Unknown,
            format!("{endpoint} does not let `{}` ask what is needed", word(user)),
            format!("grant it: `redis-cli ACL SETUSER {} {needed}`", word(user)),
        ),
        "DENIED" => (
            Verdict::Unknown,
            format!("{endpoint} is in protected mode and lets only its own host in"),
            "give it a password, or bind it to the project's network and set `protected-mode no`".to_owned(),
        ),
        other => (Verdict::Unknown, format!("{endpoint} refused the question ({other})"), "ask it yourself with `redis-cli`".to_owned()),
    };
    Finding::new(verdict, reason).with_remedy(remedy)
}
