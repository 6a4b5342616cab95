//! The network's thread: frames and events in, one at a time.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::config::Config;
use super::engine::Engine;
use super::engine::arena::Id;
use super::forward::{self, HostForward};
use super::inbox::Inbox;
use super::sockets::{Progress, Sockets};
use super::stack::{Command, Connection, ConnectionKind, Shared};
use super::token::Token;

/// Events taken at once.
const EVENTS: usize = 256;
/// Connections accepted, datagrams taken, at one event: the rest is announced again.
const AT_ONCE: usize = 64;
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// How long a listener rests when the host has no more descriptors.
const REST: Duration = Duration::from_millis(100);

/// The network's thread.
pub struct Runner {
    engine: Engine,
    sockets: Sockets,
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    buffer: Vec<u8>,
}

struct Listener {
    number: u32,
    socket: OwnedFd,
    forward: HostForward,
    /// Not watched until then.
    resting: Option<Instant>,
}

impl Runner {
    pub fn new(config: Config, epoll: OwnedFd, shared: Arc<Shared>) -> Self {
        let sockets = Sockets::new(epoll, &config);
        let engine = Engine::new(config, Instant::now());
        let buffer = vec![0; DATAGRAM_BYTES_MAX];
        Self { engine, sockets, shared, listeners: Vec::new(), buffer }
    }

    pub fn run(mut self) {
        let mut inbox = Inbox::default();
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        while !self.shared.stop.load(Ordering::SeqCst) {
            core::mem::swap(&mut inbox, &mut *self.shared.inbox.lock());
            let now = Instant::now();
            self.commands(now);
            if self.shared.room.swap(false, Ordering::SeqCst) {
                self.engine.room();
            }
            for (frame, offload) in inbox.iter() {
                self.engine.input(frame, offload, &mut self.sockets, now);
            }
            inbox.clear();
            let more = self.engine.service(&mut self.sockets, now);
            if self.engine.deadline().is_some_and(|due| due <= now) {
                self.engine.tick(&mut self.sockets, now);
            }
            self.wake_listeners(now);
            events.clear();
            self.wait(more, &mut events);
            let now = Instant::now();
            for event in &events {
                if let Some(token) = Token::of(event.data.u64()) {
                    self.event(token, event.flags, now);
                }
            }
        }
    }

    fn wait(&mut self, more: bool, events: &mut Vec<epoll::Event>) {
        let timeout = if more { Some(Duration::ZERO) } else { self.timeout() };
        let timeout = timeout.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        let spare = rustix::buffer::spare_capacity(events);
        // An interrupted wait is as good as one without events.
        let _ = epoll::wait(self.sockets.epoll(), spare, timeout.as_ref());
        self.shared.sleeping.store(false, Ordering::SeqCst);
    }

    /// How long to wait; announces that somebody must wake us.
    fn timeout(&self) -> Option<Duration> {
        let shared = &self.shared;
        shared.sleeping.store(true, Ordering::SeqCst);
        // Whoever came before that did not wake us.
        let waiting = !shared.inbox.lock().is_empty()
            || !shared.commands.lock().is_empty()
            || shared.room.load(Ordering::SeqCst)
            || shared.stop.load(Ordering::SeqCst);
        if waiting {
            return Some(Duration::ZERO);
        }
        let resting = self.listeners.iter().filter_map(|listener| listener.resting);
        let due = self.engine.deadline().into_iter().chain(resting).min();
        due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    fn event(&mut self, token: Token, flags: epoll::EventFlags, now: Instant) {
        match token {
            Token::Wake => {
                let _ = rustix::io::read(&self.shared.wake, &mut [0_u8; 8]);
            }
            Token::Tcp(id) => self.stream_event(id, flags, now),
            Token::Udp(id) => {
                for _ in 0..AT_ONCE {
                    let Some(got) = self.sockets.receive(id, &mut self.buffer) else { return };
                    let (from, length) = (got.from, got.payload.len());
                    let payload = &self.buffer[..length];
                    self.engine.udp_received(id, from, payload, &mut self.sockets, now);
                }
            }
            Token::Ping(id) => {
                while let Some(got) = self.sockets.receive_ping(id, &mut self.buffer) {
                    self.engine.ping_received(id, got.from, got.payload, now);
                }
            }
            Token::Forward(number) => self.forward_event(number, now),
        }
    }

    fn stream_event(&mut self, id: Id, flags: epoll::EventFlags, now: Instant) {
        use epoll::EventFlags;
        let sockets = &mut self.sockets;
        match sockets.progress(id) {
            Progress::Waiting => return,
            Progress::Failed(failure) => {
                self.engine.tcp_connected(id, Err(failure), sockets, now);
                return;
            }
            Progress::Connected => self.engine.tcp_connected(id, Ok(()), sockets, now),
            Progress::Made => {}
        }
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        let hung_up = broken || flags.contains(EventFlags::RDHUP);
        let readable = hung_up || flags.contains(EventFlags::IN);
        let writable = broken || flags.contains(EventFlags::OUT);
        self.engine.tcp_ready(id, readable, writable, hung_up, sockets, now);
    }

    fn forward_event(&mut self, number: u32, now: Instant) {
        let listener = self.listeners.iter_mut().find(|listener| listener.number == number);
        let Some(listener) = listener else {
            for _ in 0..AT_ONCE {
                let got = self.sockets.receive_forward(number, &mut self.buffer);
                let Some(got) = got else { return };
                self.engine.udp_incoming(number, got.from, got.payload, now);
            }
            return;
        };
        for _ in 0..AT_ONCE {
            match forward::accept(&listener.socket) {
                Ok(None) => return,
                Ok(Some((socket, peer))) => {
                    let guest = listener.forward.guest;
                    // Without a place the connection is closed at once.
                    let Some(id) = self.engine.tcp_incoming(guest, peer, now) else { continue };
                    if !self.sockets.adopt(id, socket) {
                        self.engine.tcp_broken(id, &mut self.sockets, now);
                    }
                }
                Err(_) => {
                    // No descriptors: the listener would be announced again and again.
                    let _ = epoll::delete(self.sockets.epoll(), &listener.socket);
                    listener.resting = Some(now + REST);
                    return;
                }
            }
        }
    }

    fn wake_listeners(&mut self, now: Instant) {
        for listener in &mut self.listeners {
            if listener.resting.is_some_and(|until| until <= now) {
                listener.resting = None;
                let _ = watch(&self.sockets, listener.number, &listener.socket);
            }
        }
    }

    fn commands(&mut self, now: Instant) {
        let commands = core::mem::take(&mut *self.shared.commands.lock());
        for command in commands {
            match command {
                Command::Attach(card) => self.engine.attach(card),
                Command::Grant(granted) => self.engine.set_granted(granted),
                Command::Forward { number, socket, forward } => {
                    // A listener that cannot be watched now is tried again soon.
                    let watched = watch(&self.sockets, number, &socket);
                    if forward.from.is_udp() {
                        self.engine.udp_forward_add(number, forward.guest);
                        self.sockets.forward_add(number, socket, &forward);
                    } else {
                        let resting = watched.is_err().then_some(now);
                        self.listeners.push(Listener { number, socket, forward, resting });
                    }
                }
                Command::Unforward { number } => {
                    self.listeners.retain(|listener| listener.number != number);
                    self.engine.udp_forward_remove(number);
                    self.sockets.forward_remove(number);
                }
                Command::List(answer) => {
                    // Whoever asked may be gone.
                    self.sockets.reap();
                    let _ = answer.send(self.list());
                }
            }
        }
    }

    fn list(&self) -> Vec<Connection> {
        let listeners = self.listeners.iter().map(|listener| Connection {
            kind: ConnectionKind::TcpForward,
            descriptor: Some(std::os::fd::AsRawFd::as_raw_fd(&listener.socket)),
            source: match &listener.forward.from {
                super::forward::HostEnd::Tcp(address) => Some(*address),
                _ => None,
            },
            destination: listener.forward.guest,
            queued: (0, 0),
        });
        let mut list = self.engine.connections();
        for (id, connection) in &mut list {
            connection.descriptor = id.and_then(|id| self.sockets.descriptor(id));
        }
        listeners
            .chain(self.sockets.forward_list())
            .chain(list.into_iter().map(|(_, connection)| connection))
            .collect()
    }
}

fn watch(sockets: &Sockets, number: u32, socket: &OwnedFd) -> Result<(), rustix::io::Errno> {
    let token = epoll::EventData::new_u64(Token::Forward(number).bits());
    epoll::add(sockets.epoll(), socket, token, epoll::EventFlags::IN)
}
