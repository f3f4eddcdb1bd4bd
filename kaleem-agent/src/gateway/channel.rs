//! What supervisor and worker say to each other: lines of JSON over a socket pair, the first of which carries the listening sockets.
//!
//! The two may be of different versions. A line that is not understood is told and passed over.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use kaleem_core::names::ContainerName;
use kaleem_core::traffic::{DrainPolicy, DrainReport};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::OwnedReadHalf;

use super::arguments::Settings;
use super::log;

/// Most sockets that are handed over: the kernel's limit is 253.
const MOST_SOCKETS: usize = 128;

/// The first line: everything a worker starts from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// How the gateway was started. Its sockets come in the order of `listen`, and the control socket last.
    pub(crate) settings: Settings,
    /// How often a worker died before.
    pub(crate) crashes: u64,
}

/// What a supervisor tells a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ToWorker {
    /// Another worker serves from now on: accept nothing more, finish what runs, end.
    Leave,
    /// The gateway ends.
    Stop,
    /// The worker that serves asks for something.
    Ask { ticket: u64, request: Request },
    /// All other workers have answered.
    OthersAnswered { ticket: u64, report: DrainReport },
    /// The program of this version has taken over.
    Upgraded { version: String },
    /// It has not, and nothing has changed.
    UpgradeFailed { reason: String },
}

/// What a worker tells its supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ToSupervisor {
    /// It serves.
    Ready { version: String },
    /// It was told to hand over to the binary of that name in the gateway's directory.
    Upgrade { file: String },
    /// It asks all other workers for something.
    AskOthers { ticket: u64, request: Request },
    /// It has done what another worker asked for.
    Answered { ticket: u64, report: DrainReport },
}

/// What a worker that serves asks of those that leave, so that its word holds for their clients as well.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Go by the routing that is on the disk now.
    Reload,
    /// Wait until nothing runs at an instance.
    Drain { instance: ContainerName, policy: DrainPolicy },
}

/// What there is to tell where nothing ran.
pub(crate) const NOTHING_RAN: DrainReport = DrainReport { finished: 0, cut: 0, closed_streams: 0, took: Duration::ZERO };

/// One message as it goes over the channel.
pub(crate) fn line<T: Serialize>(message: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec(message).unwrap_or_default();
    text.push(b'\n');
    text
}

/// The next message; `None` when the other side is gone.
pub(crate) async fn next<T: for<'a> Deserialize<'a>>(lines: &mut BufReader<OwnedReadHalf>) -> Option<T> {
    loop {
        let mut text = String::new();
        match lines.read_line(&mut text).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => match serde_json::from_str(&text) {
                Ok(message) => return Some(message),
                Err(error) => log::say(&format!("a message between gateway processes was not understood: {error}")),
            },
        }
    }
}

/// Sends the first line and the sockets with it. The channel must be in blocking mode.
///
/// # Errors
///
/// When the other side is gone.
pub(crate) fn send_hello(channel: BorrowedFd<'_>, hello: &Hello, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = line(hello);
    let message = SendAncillaryMessage::ScmRights(sockets);
    let mut space = vec![MaybeUninit::uninit(); message.size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if sockets.len() > MOST_SOCKETS || !control.push(message) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many ports"));
    }
    let mut sent = rustix::net::sendmsg(channel, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
    while let Some(rest) = text.get(sent..).filter(|rest| !rest.is_empty()) {
        sent += rustix::net::send(channel, rest, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Receives the first line and the sockets. The channel must be in blocking mode.
///
/// # Errors
///
/// When the other side is gone, or says something else.
pub(crate) fn receive_hello(channel: BorrowedFd<'_>) -> io::Result<(Hello, Vec<OwnedFd>)> {
    let mut sockets = Vec::new();
    let mut text = Vec::new();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    while text.last() != Some(&b'\n') {
        // Nothing of a second line is read by mistake: the supervisor waits for `Ready` before it says more.
        let mut piece = [0_u8; 4096];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(channel, &mut [IoSliceMut::new(&mut piece)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                sockets.extend(received);
            }
        }
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.extend_from_slice(piece.get(..received.bytes).unwrap_or_default());
    }
    Ok((serde_json::from_slice(&text)?, sockets))
}

/// The sockets of a supervisor, in the order in which they are handed over.
pub(crate) fn in_order<'a>(listeners: &'a [std::net::TcpListener], control: &'a std::os::unix::net::UnixListener) -> Vec<BorrowedFd<'a>> {
    listeners.iter().map(AsFd::as_fd).chain([control.as_fd()]).collect()
}
