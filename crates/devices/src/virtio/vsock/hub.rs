//! All connections of a guest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::connection::{BUFFER_BYTES, Connection, Greeted, Greeting, Moved, Phase};
use super::packet::{self, HEADER_BYTES, Header};
use crate::virtio::Queue;
use crate::virtio::device::Driver;

/// The host's context.
const HOST: u64 = 2;
/// Names of what is not a connection, among the kernel's events.
pub(super) const LISTENER: u64 = 0;
/// See above.
pub(super) const WAKE: u64 = 1;
const FIRST_ID: u64 = 2;
/// Connections and greetings at a time.
const CONNECTIONS_MAX: usize = 1024;
/// Answers that wait for the guest's buffers. With more the guest's own packets have to wait.
const ANSWERS_MAX: usize = 256;
/// Ports of the host's programs are counted from here, out of the way of well-known ones.
const FIRST_PORT: u32 = 1 << 30;
/// The most data in a packet to the guest.
const DATA_BYTES_MAX: usize = 64 << 10;
const TO_GUEST: u16 = 0;
const FROM_GUEST: u16 = 1;
const EVENTS: u16 = 2;

/// The ports of a connection: the host's, the guest's.
type Ports = (u32, u32);

/// All connections, and the queues.
pub(super) struct Hub {
    context: u64,
    path: PathBuf,
    epoll: OwnedFd,
    pub driver: Option<Driver>,
    pub paused: bool,
    pub quits: bool,
    /// The guest is to hear that all its connections have ended: they were in another process.
    pub ends_all: bool,
    connections: BTreeMap<Ports, (u64, Connection)>,
    greetings: BTreeMap<u64, Greeting>,
    /// By their numbers among the kernel's events.
    ids: BTreeMap<u64, Ports>,
    next_id: u64,
    next_port: u32,
    answers: VecDeque<Header>,
    /// Connections with something to read, which get their turns in this order.
    readable: VecDeque<Ports>,
    buffer: Vec<u8>,
}

impl Hub {
    pub fn new(context: u64, path: &Path, epoll: OwnedFd) -> Self {
        Self {
            context,
            path: path.to_owned(),
            epoll,
            driver: None,
            paused: false,
            quits: false,
            ends_all: false,
            connections: BTreeMap::new(),
            greetings: BTreeMap::new(),
            ids: BTreeMap::new(),
            next_id: FIRST_ID,
            next_port: FIRST_PORT,
            answers: VecDeque::new(),
            readable: VecDeque::new(),
            buffer: Vec::new(),
        }
    }

    /// The guest starts anew: all connections are gone.
    pub fn reset(&mut self) {
        self.driver = None;
        self.connections.clear();
        self.greetings.clear();
        self.ids.clear();
        self.answers.clear();
        self.readable.clear();
    }

    fn queue(&self, index: u16) -> Option<Arc<Queue>> {
        self.driver.as_ref()?.queue(index).cloned()
    }

    fn is_full(&self) -> bool {
        self.connections.len() + self.greetings.len() >= CONNECTIONS_MAX
    }

    fn watch(&mut self, socket: &UnixStream) -> Option<u64> {
        let id = self.next_id;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, socket.as_fd(), EventData::new_u64(id), flags).ok()?;
        self.next_id += 1;
        Some(id)
    }

    /// A program of the host has connected. Without a guest there is nobody to talk to.
    pub fn greet(&mut self, socket: UnixStream) {
        if self.driver.is_none() || self.is_full() {
            return;
        }
        if let Some(id) = self.watch(&socket) {
            self.greetings.insert(id, Greeting::new(socket));
        }
    }

    /// A socket has something to read, or takes something.
    pub fn ready(&mut self, id: u64, flags: EventFlags) {
        if let Some(greeting) = self.greetings.get_mut(&id) {
            match greeting.read() {
                Greeted::Later => {}
                Greeted::Nonsense => drop(self.greetings.remove(&id)),
                Greeted::Port(port) => self.ask(id, port),
            }
            return;
        }
        let Some(ports) = self.ids.get(&id).copied() else { return };
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR)
        {
            self.mark_readable(ports);
        }
        self.write(ports);
    }

    fn mark_readable(&mut self, ports: Ports) {
        if let Some((_, connection)) = self.connections.get_mut(&ports) {
            connection.readable = true;
            if !self.readable.contains(&ports) {
                self.readable.push_back(ports);
            }
        }
    }

    /// Asks the guest for a connection.
    fn ask(&mut self, id: u64, port: u32) {
        let Some(greeting) = self.greetings.remove(&id) else { return };
        let used: BTreeSet<u32> = self.connections.keys().map(|(host, _)| *host).collect();
        while used.contains(&self.next_port) {
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        }
        let ports = (self.next_port, port);
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        self.connections.insert(ports, (id, Connection::new(greeting.socket, Phase::Asked)));
        self.ids.insert(id, ports);
        self.answer(ports, packet::REQUEST, 0);
    }

    /// Puts a packet without data before the guest.
    fn answer(&mut self, ports: Ports, operation: u16, flags: u32) {
        let forwarded = self.connections.get_mut(&ports).map_or(0, |(_, connection)| {
            connection.told = connection.forwarded;
            connection.forwarded
        });
        self.answers.push_back(self.header(ports, operation, flags, 0, forwarded));
    }

    fn header(
        &self,
        ports: Ports,
        operation: u16,
        flags: u32,
        bytes: u32,
        forwarded: u32,
    ) -> Header {
        Header {
            from: HOST,
            to: self.context,
            from_port: ports.0,
            to_port: ports.1,
            bytes,
            kind: packet::TYPE_STREAM,
            operation,
            flags,
            buffer_bytes: BUFFER_BYTES,
            forwarded,
        }
    }

    fn remove(&mut self, ports: Ports) {
        if let Some((id, _)) = self.connections.remove(&ports) {
            self.ids.remove(&id);
            self.readable.retain(|other| *other != ports);
        }
    }

    /// Ends a connection from here.
    fn end(&mut self, ports: Ports) {
        self.remove(ports);
        self.answer(ports, packet::RESET, 0);
    }

    /// Moves everything that can be moved, both ways.
    pub fn pump(&mut self) {
        if self.paused || self.driver.is_none() {
            return;
        }
        if self.ends_all {
            self.tell_end();
        }
        loop {
            self.give();
            if self.answers.len() >= ANSWERS_MAX || !self.take() {
                break;
            }
        }
        self.give();
    }

    /// Tells the guest, once it has a buffer for it, that there is another host behind the device.
    fn tell_end(&mut self) {
        const TRANSPORT_RESET: [u8; 4] = [0; 4];
        let Some(queue) = self.queue(EVENTS) else { return };
        if let Some(chain) = queue.pop() {
            let written = chain.writer().write(&TRANSPORT_RESET);
            queue.push(chain, written as u64);
            self.ends_all = false;
        }
    }

    /// Hands answers, then data to the guest, while it has buffers.
    fn give(&mut self) {
        let Some(queue) = self.queue(TO_GUEST) else { return };
        let mut gave = false;
        while !self.answers.is_empty() {
            let Some(chain) = queue.pop() else { break };
            let header = self.answers.pop_front().unwrap_or_default();
            let written = chain.writer().write(&header.emit());
            queue.push_quietly(vec![(chain, written as u64)]);
            gave = true;
        }
        if self.answers.is_empty() {
            gave |= self.give_data(&queue);
        }
        if gave {
            queue.signal();
        }
    }

    fn give_data(&mut self, queue: &Queue) -> bool {
        let mut gave = false;
        // Those that have more get another turn, those that have not leave the line.
        for _ in 0..self.readable.len() {
            let Some(ports) = self.readable.pop_front() else { break };
            let Some((_, connection)) = self.connections.get_mut(&ports) else { continue };
            let credit = connection.credit();
            if connection.phase != Phase::Open || credit == 0 || connection.deaf {
                // The guest's answer or its room brings it back.
                continue;
            }
            let Some(chain) = queue.pop() else {
                self.readable.push_front(ports);
                break;
            };
            let room = chain.writable_bytes().saturating_sub(HEADER_BYTES as u64);
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let bytes = credit.min(room).min(DATA_BYTES_MAX);
            self.buffer.resize(bytes, 0);
            let moved = connection.read(&mut self.buffer);
            let (operation, flags, bytes) = match moved {
                Moved::Bytes(bytes) => (packet::DATA, 0, bytes),
                // A buffer that was taken must be used: it tells of the room there is.
                Moved::Later => (packet::CREDIT_UPDATE, 0, 0),
                Moved::Closed => (packet::SHUTDOWN, packet::NO_SEND, 0),
            };
            connection.readable = matches!(moved, Moved::Bytes(_));
            connection.told = connection.forwarded;
            if moved == Moved::Closed {
                connection.phase = Phase::Ended;
            }
            let (readable, forwarded) = (connection.readable, connection.forwarded);
            let header = self.header(ports, operation, flags, bytes as u32, forwarded);
            let mut writer = chain.writer();
            let mut written = writer.write(&header.emit());
            written += writer.write(&self.buffer[..bytes]);
            queue.push_quietly(vec![(chain, written as u64)]);
            gave = true;
            if readable {
                self.readable.push_back(ports);
            }
        }
        gave
    }

    /// Takes a packet of the guest. False when there is none.
    fn take(&mut self) -> bool {
        let Some(queue) = self.queue(FROM_GUEST) else { return false };
        let Some(chain) = queue.pop() else { return false };
        let mut reader = chain.reader();
        if let Some(header) = reader.array::<HEADER_BYTES>() {
            let header = Header::parse(&header);
            let bytes = (header.bytes as usize).min(BUFFER_BYTES as usize);
            let data =
                if header.operation == packet::DATA { reader.to_vec(bytes) } else { Vec::new() };
            self.serve(&header, &data);
        }
        queue.push(chain, 0);
        true
    }

    fn serve(&mut self, header: &Header, data: &[u8]) {
        let ports = (header.to_port, header.from_port);
        let ours = header.to == HOST && header.from == self.context;
        if header.kind != packet::TYPE_STREAM || !ours {
            // What goes astray is answered, except an answer.
            if header.operation != packet::RESET {
                self.answer(ports, packet::RESET, 0);
            }
            return;
        }
        if header.operation == packet::REQUEST {
            return self.connect(ports, header);
        }
        let Some((_, connection)) = self.connections.get_mut(&ports) else {
            if header.operation != packet::RESET {
                self.answer(ports, packet::RESET, 0);
            }
            return;
        };
        connection.set_credit(header.buffer_bytes, header.forwarded);
        match (header.operation, connection.phase) {
            (packet::RESPONSE, Phase::Asked) => {
                connection.phase = Phase::Open;
                // A socket that does not take a line at its beginning is gone.
                let line = format!("OK {}\n", ports.0);
                let greeted = connection.socket.write(line.as_bytes());
                if greeted.is_ok_and(|bytes| bytes == line.len()) {
                    self.mark_readable(ports);
                } else {
                    self.end(ports);
                }
            }
            (packet::RESET, _) => self.remove(ports),
            (packet::SHUTDOWN, _) => self.shut_down(ports, header.flags),
            (packet::DATA, Phase::Open | Phase::Ended) => self.put(ports, header.bytes, data),
            (packet::CREDIT_UPDATE, _) => self.refresh(ports),
            (packet::CREDIT_REQUEST, _) => {
                self.answer(ports, packet::CREDIT_UPDATE, 0);
                self.refresh(ports);
            }
            _ => self.end(ports),
        }
    }

    /// The guest may have room again.
    fn refresh(&mut self, ports: Ports) {
        if self.connections.get(&ports).is_some_and(|(_, connection)| connection.readable) {
            self.mark_readable(ports);
        }
    }

    /// A program of the guest wants to reach one of the host.
    fn connect(&mut self, ports: Ports, header: &Header) {
        let exists = self.connections.contains_key(&ports);
        let socket = if exists || self.is_full() { None } else { self.open(ports.0) };
        let watched = socket.and_then(|socket| Some((self.watch(&socket)?, socket)));
        let Some((id, socket)) = watched else {
            return self.end(ports);
        };
        let mut connection = Connection::new(socket, Phase::Open);
        connection.set_credit(header.buffer_bytes, header.forwarded);
        self.connections.insert(ports, (id, connection));
        self.ids.insert(id, ports);
        self.answer(ports, packet::RESPONSE, 0);
        self.mark_readable(ports);
    }

    /// Connects to the socket of a port, or not at all: waiting would hold the guest up.
    fn open(&self, port: u32) -> Option<UnixStream> {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("_{port}"));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
        connect(&socket, &SocketAddrUnix::new(path.as_os_str()).ok()?).ok()?;
        Some(UnixStream::from(socket))
    }

    fn put(&mut self, ports: Ports, bytes: u32, data: &[u8]) {
        let Some((_, connection)) = self.connections.get_mut(&ports) else { return };
        // More than the guest was told that there is room for, or than the packet holds.
        if data.len() > connection.room() || data.len() != bytes as usize || connection.finishing {
            return self.end(ports);
        }
        connection.put(data);
        self.write(ports);
        self.refresh(ports);
    }

    fn shut_down(&mut self, ports: Ports, flags: u32) {
        let Some((_, connection)) = self.connections.get_mut(&ports) else { return };
        connection.deaf |= flags & packet::NO_RECEIVE != 0;
        connection.finishing |= flags & packet::NO_SEND != 0;
        self.write(ports);
    }

    /// Writes to a connection's socket what that takes.
    fn write(&mut self, ports: Ports) {
        let Some((_, connection)) = self.connections.get_mut(&ports) else { return };
        if connection.phase == Phase::Asked {
            return;
        }
        if !connection.write() {
            return self.end(ports);
        }
        if connection.finishing && connection.deaf && connection.is_drained() {
            return self.end(ports);
        }
        if connection.forwarded.wrapping_sub(connection.told) >= BUFFER_BYTES / 4 {
            self.answer(ports, packet::CREDIT_UPDATE, 0);
        }
    }
}
