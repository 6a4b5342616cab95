//! The network as a back end: the engine and the host's sockets in a thread of their own.

use core::net::SocketAddr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, epoll, eventfd};

use super::config::Config;
use super::forward::{HostEnd, HostForward};
use super::inbox::Inbox;
use super::run::Runner;
use super::token::Token;
use crate::cable::{Backend, Capabilities, Card, Offload};
use crate::error::{Error, Result};
use crate::unix::BoundPath;

/// How long an answer of the network's thread is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A user-mode network.
///
/// # Locks
/// `forwards`, then `commands` or `inbox`; none is held while the card is called.
pub struct UserNet {
    shared: Arc<Shared>,
    forwards: Mutex<Forwards>,
    thread: Option<JoinHandle<()>>,
    info: String,
}

#[derive(Default)]
struct Forwards {
    list: Vec<Entry>,
    next: u32,
}

struct Entry {
    number: u32,
    forward: HostForward,
    /// It goes with its forwarding.
    _path: Option<BoundPath>,
}

/// What the network's thread shares with all others.
pub(super) struct Shared {
    pub inbox: Mutex<Inbox>,
    pub commands: Mutex<Vec<Command>>,
    /// The thread is about to wait, or does: whoever has something for it must wake it.
    pub sleeping: AtomicBool,
    pub wake: OwnedFd,
    pub room: AtomicBool,
    pub stop: AtomicBool,
    /// Frames dropped because too many waited.
    pub dropped: AtomicU64,
}

/// What the network's thread is asked to do.
pub(super) enum Command {
    Attach(Weak<dyn Card>),
    Grant(Capabilities),
    Forward { number: u32, socket: OwnedFd, forward: HostForward },
    Unforward { number: u32 },
    List(mpsc::Sender<Vec<Connection>>),
}

/// A row of the list of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// What it is.
    pub kind: ConnectionKind,
    /// The host's descriptor.
    pub descriptor: Option<i32>,
    /// Who began it; `None`: anybody.
    pub source: Option<SocketAddr>,
    /// With whom.
    pub destination: SocketAddr,
    /// Bytes kept for the host and for the guest.
    pub queued: (usize, usize),
}

/// What a row of the list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionKind {
    /// TCP that is being made.
    TcpOpening,
    /// TCP with data flowing.
    TcpOpen,
    /// TCP of which one side has finished.
    TcpClosing,
    /// A port that the guest sends datagrams from.
    Udp,
    /// A forwarded TCP port.
    TcpForward,
    /// A forwarded UDP port.
    UdpForward,
}

impl UserNet {
    /// Makes the network and starts its thread.
    ///
    /// # Errors
    /// An address that does not fit, a forwarded port that is busy, or a host without resources.
    pub fn new(config: Config, forwards: &[HostForward]) -> Result<Arc<Self>> {
        config.check()?;
        let host = |action| {
            move |error: rustix::io::Errno| Error::Host { action, source: io::Error::from(error) }
        };
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = eventfd(0, flags).map_err(host("make an event"))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(host("watch sockets"))?;
        let token = epoll::EventData::new_u64(Token::Wake.bits());
        epoll::add(&epoll, &wake, token, epoll::EventFlags::IN).map_err(host("watch an event"))?;
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            commands: Mutex::default(),
            sleeping: AtomicBool::new(false),
            wake,
            room: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        });
        let network = config.ipv4.map_or_else(|| config.networks(), |v4| v4.network.to_string());
        let restrict = if config.restrict { "on" } else { "off" };
        let info = format!("type=user,net={network},restrict={restrict}");
        let mut net =
            Self { shared: Arc::clone(&shared), forwards: Mutex::default(), thread: None, info };
        for forward in forwards {
            net.add_checked(&config, forward)?;
        }
        let runner = Runner::new(config, epoll, shared);
        let thread = thread::Builder::new().name("usernet".to_owned()).spawn(|| runner.run());
        let failed = |source| Error::Host { action: "start a thread", source };
        net.thread = Some(thread.map_err(failed)?);
        Ok(Arc::new(net))
    }

    /// Forwards another port of the host; returns the forwarding with its true port.
    ///
    /// # Errors
    /// The port is busy or may not be used.
    pub fn add_forward(&self, forward: &HostForward) -> Result<HostForward> {
        let mut forwards = self.forwards.lock();
        if forwards.list.iter().any(|other| other.forward.from == forward.from) {
            return Err(Error::ForwardExists(forward.from.to_string()));
        }
        let (socket, from, path) = forward.from.listen()?;
        let forward = HostForward { from, guest: forward.guest };
        let number = forwards.next;
        forwards.next += 1;
        forwards.list.push(Entry { number, forward: forward.clone(), _path: path });
        let command = Command::Forward { number, socket, forward: forward.clone() };
        self.shared.command(command);
        Ok(forward)
    }

    fn add_checked(&self, config: &Config, forward: &HostForward) -> Result<HostForward> {
        let guest = forward.guest.ip();
        if !config.is_in_network(guest) || config.is_ours(guest) {
            return Err(Error::ForwardTarget(forward.guest));
        }
        self.add_forward(forward)
    }

    /// Ends a forwarding; connections that came by it go on.
    ///
    /// # Errors
    /// There is no such forwarding.
    pub fn remove_forward(&self, from: &HostEnd) -> Result<()> {
        let mut forwards = self.forwards.lock();
        let at = forwards.list.iter().position(|entry| entry.forward.from == *from);
        let at = at.ok_or_else(|| Error::NoForward(from.to_string()))?;
        let number = forwards.list.remove(at).number;
        self.shared.command(Command::Unforward { number });
        Ok(())
    }

    /// The forwardings, in the order in which they were made.
    #[must_use]
    pub fn forwards(&self) -> Vec<HostForward> {
        self.forwards.lock().list.iter().map(|entry| entry.forward.clone()).collect()
    }

    /// The connections, as they are now.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        let (sender, receiver) = mpsc::channel();
        self.shared.command(Command::List(sender));
        receiver.recv_timeout(PATIENCE).unwrap_or_default()
    }

    /// Frames of the guest that were dropped because too many waited.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn command(&self, command: Command) {
        self.commands.lock().push(command);
        self.wake();
    }

    fn wake(&self) {
        if self.sleeping.swap(false, Ordering::SeqCst) {
            // A full counter has woken it already.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}

impl Backend for UserNet {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            takes_checksum: true,
            takes_tso4: true,
            takes_tso6: true,
            gives_checksum: true,
            gives_tso4: true,
            gives_tso6: true,
        }
    }

    fn transmit(&self, frame: &[u8], offload: Offload) {
        if !self.shared.inbox.lock().push(frame, offload) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.wake();
    }

    fn attach(&self, card: Weak<dyn Card>) {
        self.shared.command(Command::Attach(card));
    }

    fn set_guest_offload(&self, granted: Capabilities) {
        self.shared.command(Command::Grant(granted));
    }

    fn room(&self) {
        self.shared.room.store(true, Ordering::SeqCst);
        self.shared.wake();
    }

    fn link(&self) -> bool {
        true
    }

    fn info(&self) -> String {
        self.info.clone()
    }
}

impl Drop for UserNet {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.sleeping.store(true, Ordering::SeqCst);
        self.shared.wake();
        let Some(thread) = self.thread.take() else { return };
        // The last card may be dropped by the network's own thread, which ends by itself then.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}
