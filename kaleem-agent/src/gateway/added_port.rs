//! Ports that port containers add to a gateway which runs: it accepts at their sockets as at its own.
//!
//! A socket keeps the network of the process that opened it. So clients come in by the port container's network and are seen with their own
//! addresses, and the gateway serves them. The port container keeps its socket: while a worker is replaced, connections wait in it.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kaleem_core::traffic::protocol::Outcome;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use socket2::Socket;
use tokio::io::{AsyncBufReadExt, BufReader, Interest};
use tokio::net::UnixStream;

use super::control::{Control, not_understood, say};
use super::listen::{self, ListenSpec};
use super::log;
use super::places::Place;
use super::shard::ShardMessage;

/// How long a worker that leaves still accepts at added ports: until then their port containers have found the next one.
pub(crate) const OVERLAP: Duration = Duration::from_millis(500);
/// How long the socket may take to come.
const SOCKET: Duration = Duration::from_secs(5);
/// How often it is looked whether the connections of a port that goes have ended.
const LOOK: Duration = Duration::from_millis(10);
/// Time that connections which are cut have to end.
const CUT: Duration = Duration::from_secs(1);

/// One port of a port container.
#[derive(Debug)]
pub(crate) struct AddedPort {
    name: String,
    port: u16,
    open: AtomicUsize,
    going: AtomicBool,
    cut: AtomicBool,
}

/// A connection that came in by it.
#[derive(Debug)]
pub(crate) struct Through(Arc<AddedPort>);

impl AddedPort {
    /// Counts a connection.
    pub(crate) fn enter(self: Arc<Self>) -> Through {
        self.open.fetch_add(1, Ordering::SeqCst);
        Through(self)
    }

    /// Whether its port container is about to end.
    pub(crate) fn is_going(&self) -> bool {
        self.going.load(Ordering::Relaxed)
    }

    /// Whether its connections must end at once.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    fn is_busy(&self) -> bool {
        self.open.load(Ordering::SeqCst) > 0
    }
}

impl Through {
    pub(crate) fn port(&self) -> &Arc<AddedPort> {
        &self.0
    }
}

impl Drop for Through {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Control {
    /// The ports that are accepted at, in order.
    pub(crate) fn added_ports(&self) -> Vec<kaleem_core::traffic::AddedPort> {
        let added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ports: Vec<_> =
            added.iter().map(|port| kaleem_core::traffic::AddedPort { name: port.name.clone(), port: port.port }).collect();
        ports.sort();
        ports
    }

    /// Accepts at the socket of a port container while that stays connected.
    ///
    /// # Errors
    ///
    /// When the port container is gone before its port is there.
    pub(crate) async fn add_port(&self, stream: &mut BufReader<UnixStream>, name: String, listen: &str) -> io::Result<()> {
        let mut leaving = self.leaving.subscribe();
        let (spec, place) = match self.place_of(listen) {
            Ok(found) => found,
            Err(reason) => return say(stream, not_understood(reason)).await,
        };
        say(stream, Outcome::SendSocket).await?;
        let socket = tokio::time::timeout(SOCKET, receive(stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let port = Arc::new(AddedPort {
            name,
            port: spec.port,
            open: AtomicUsize::new(0),
            going: AtomicBool::new(false),
            cut: AtomicBool::new(false),
        });
        if let Err(error) = self.accept_at(socket, &spec, place, &port) {
            log::say(&format!("the port {} could not be added: {error}", port.name));
            return say(stream, not_understood(error.to_string())).await;
        }
        log::say(&format!("the port {} ({spec}) is added", port.name));
        self.list().push(port.clone());
        let added = say(stream, Outcome::PortAdded).await;
        tokio::select! {
            // It says nothing more; what ends is its wish that the port stays.
            _ = stream.fill_buf(), if added.is_ok() => {}
            _ = leaving.wait_for(|leaving| *leaving) => {
                // It comes back to the next worker.
                self.list().retain(|other| !Arc::ptr_eq(other, &port));
                return Ok(());
            }
            () = std::future::ready(()), if added.is_err() => {}
        }
        self.list().retain(|other| !Arc::ptr_eq(other, &port));
        self.let_go(&port, leaving).await;
        log::say(&format!("the port {} is gone", port.name));
        Ok(())
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Arc<AddedPort>>> {
        self.added.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place_of(&self, listen: &str) -> Result<(ListenSpec, Place), String> {
        let spec: ListenSpec = listen.parse()?;
        let place = self.board.places.of(&spec).ok_or_else(|| "this worker has been given all the ports that it can take".to_owned())?;
        Ok((spec, place))
    }

    /// Has every data thread accept there. At a port that the gateway itself does not listen at, it begins to, for those who call it by its name.
    fn accept_at(&self, socket: OwnedFd, spec: &ListenSpec, place: Place, port: &Arc<AddedPort>) -> io::Result<()> {
        let mut sockets = Vec::new();
        if let Place::Later(_) = place {
            sockets.push(listen::listen(ListenSpec { address: None, ..spec.clone() }.bind_shared()?)?);
        }
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        sockets.push(listen::listen(socket)?);
        let mut copies = Vec::new();
        for socket in &sockets {
            for thread in 0..self.board.loads.len() {
                copies.push((thread, socket.try_clone()?));
            }
        }
        for (thread, listener) in copies {
            // A thread that is gone accepts nothing; its worker ends.
            self.board.tell_one(thread, ShardMessage::Accept { listener, place: place.index(), added: port.clone() }).ok();
        }
        Ok(())
    }

    /// Lets requests finish that came in by a port which goes, and cuts what does not end.
    async fn let_go(&self, port: &Arc<AddedPort>, mut leaving: tokio::sync::watch::Receiver<bool>) {
        port.going.store(true, Ordering::Relaxed);
        let finished = async {
            while port.is_busy() {
                // Repeated: a connection that was busy the last time may be idle now.
                self.board.tell(|| ShardMessage::Part(port.clone()));
                tokio::time::sleep(LOOK).await;
            }
        };
        self.board.tell(|| ShardMessage::Part(port.clone()));
        let cut = tokio::select! {
            finished = tokio::time::timeout(self.stop_grace.saturating_sub(CUT), finished) => finished.is_err(),
            _ = leaving.wait_for(|leaving| *leaving) => true,
        };
        if cut {
            port.cut.store(true, Ordering::Relaxed);
            self.board.nudge();
            let ended = async {
                while port.is_busy() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            // Its port container ends, whether they have ended or not.
            tokio::time::timeout(CUT, ended).await.ok();
        }
    }
}

/// The socket that comes with one byte.
async fn receive(stream: &BufReader<UnixStream>) -> io::Result<OwnedFd> {
    let stream = stream.get_ref();
    stream
        .async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0_u8; 1];
            rustix::net::recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let mut sockets = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut received) => received.next(),
                _ => None,
            });
            sockets.next().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no socket came"))
        })
        .await
}
