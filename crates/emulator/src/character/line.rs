//! A byte stream over descriptors: a terminal, a pseudo-terminal, a file, pipes, a connection.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use device::{Stream, StreamEvent, StreamPeer};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::telnet::Telnet;
use crate::reactor::Reactor;

/// What one turn reads at most.
const READ_BYTES: usize = 4096;
/// Descriptors that wait to be taken; more are closed.
const DESCRIPTORS_MAX: usize = 64;

/// The moving part of a stream: what is connected now, and who listens. What kind of thing is
/// connected, and what happens when it goes, is its owner's business.
pub struct Line {
    reactor: Arc<Reactor>,
    state: Mutex<State>,
    peer: Mutex<Option<Weak<dyn StreamPeer>>>,
    passed: Mutex<Vec<OwnedFd>>,
}

#[derive(Default)]
struct State {
    input: Option<Arc<OwnedFd>>,
    output: Option<Arc<OwnedFd>>,
    /// Output was full, and the peer has more.
    blocked: bool,
    is_socket: bool,
    /// What comes in has telnet's commands in it.
    telnet: Option<Telnet>,
    /// The descriptors are shared with others, who would not like them to be non-blocking.
    is_shared: bool,
}

/// What came of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Bytes, or nothing yet.
    Open,
    /// Nothing will come any more.
    End,
}

impl Line {
    /// A line to nobody.
    pub fn new(reactor: &Arc<Reactor>) -> Self {
        Self {
            reactor: Arc::clone(reactor),
            state: Mutex::default(),
            peer: Mutex::default(),
            passed: Mutex::default(),
        }
    }

    /// Connects both ends.
    pub fn connect(&self, input: Option<Arc<OwnedFd>>, output: Option<Arc<OwnedFd>>) {
        *self.state.lock() = State { input, output, ..State::default() };
        self.reactor.wake();
    }

    /// Connects descriptors that block: each write asks first.
    pub fn connect_shared(&self, input: Option<Arc<OwnedFd>>, output: Option<Arc<OwnedFd>>) {
        *self.state.lock() = State { input, output, is_shared: true, ..State::default() };
        self.reactor.wake();
    }

    /// Connects a socket, by which descriptors may come; `telnet`: with telnet's commands among the
    /// bytes.
    pub fn connect_socket(&self, socket: OwnedFd, telnet: bool) {
        let socket = Arc::new(socket);
        let (input, output) = (Some(Arc::clone(&socket)), Some(socket));
        let telnet = telnet.then(Telnet::default);
        *self.state.lock() = State { input, output, is_socket: true, telnet, ..State::default() };
        self.reactor.wake();
    }

    /// Nothing comes in any more; output goes on.
    pub fn end_input(&self) {
        self.state.lock().input = None;
    }

    /// Nobody is there any more.
    pub fn disconnect(&self) {
        *self.state.lock() = State::default();
        self.passed.lock().clear();
    }

    /// Gives the connection away.
    pub fn take_socket(&self) -> Option<OwnedFd> {
        let state = std::mem::take(&mut *self.state.lock());
        let socket = state.input.filter(|_| state.is_socket)?;
        // The reactor may still look at this one.
        socket.try_clone().ok()
    }

    /// Somebody is there.
    pub fn is_connected(&self) -> bool {
        let state = self.state.lock();
        state.input.is_some() || state.output.is_some()
    }

    fn peer(&self) -> Option<Arc<dyn StreamPeer>> {
        self.peer.lock().as_ref().and_then(Weak::upgrade)
    }

    /// Tells the device.
    pub fn tell(&self, event: StreamEvent) {
        if let Some(peer) = self.peer() {
            peer.event(event);
        }
    }

    /// What to wait for.
    pub fn watch(&self) -> Vec<(Arc<OwnedFd>, PollFlags)> {
        let peer = self.peer();
        let state = self.state.lock();
        let mut watched = Vec::with_capacity(2);
        if let Some(input) = &state.input {
            let has_room = peer.is_some_and(|peer| peer.room() > 0);
            // Without flags there is still word of a hang-up.
            let flags = if has_room { PollFlags::IN } else { PollFlags::empty() };
            watched.push((Arc::clone(input), flags));
        }
        if let (true, Some(output)) = (state.blocked, &state.output) {
            watched.push((Arc::clone(output), PollFlags::OUT));
        }
        watched
    }

    /// Carries what can be carried.
    pub fn ready(&self, flags: PollFlags) -> Read {
        if flags.contains(PollFlags::OUT) {
            self.state.lock().blocked = false;
            if let Some(peer) = self.peer() {
                peer.writable();
            }
        }
        if flags.intersects(PollFlags::IN) {
            return self.read();
        }
        match flags.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            true => Read::End,
            false => Read::Open,
        }
    }

    fn read(&self) -> Read {
        let Some(peer) = self.peer() else { return Read::Open };
        let (input, is_socket) = {
            let state = self.state.lock();
            let Some(input) = state.input.clone() else { return Read::Open };
            (input, state.is_socket)
        };
        let mut bytes = [0; READ_BYTES];
        let room = peer.room().min(READ_BYTES);
        if room == 0 {
            return Read::Open;
        }
        let count = match is_socket {
            true => self.receive(&input, &mut bytes[..room]),
            false => rustix::io::read(&*input, &mut bytes[..room]),
        };
        match count {
            Ok(0) => Read::End,
            Ok(count) => {
                let filter = |telnet: &mut Telnet| telnet.filter(&mut bytes[..count]);
                let filtered = self.state.lock().telnet.as_mut().map(filter);
                let (count, breaks) = filtered.unwrap_or((count, false));
                if count > 0 {
                    peer.receive(&bytes[..count]);
                }
                if breaks {
                    peer.event(StreamEvent::Break);
                }
                Read::Open
            }
            Err(Errno::AGAIN | Errno::INTR) => Read::Open,
            Err(_) => Read::End,
        }
    }

    /// Reads from a socket, with the descriptors that come along.
    fn receive(&self, socket: &OwnedFd, bytes: &mut [u8]) -> rustix::io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [io::IoSliceMut::new(bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(socket, &mut buffers, &mut control, flags)?;
        let mut passed = self.passed.lock();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                let room = DESCRIPTORS_MAX.saturating_sub(passed.len());
                passed.extend(descriptors.take(room));
            }
        }
        Ok(received.bytes)
    }
}

/// Writes to a descriptor that would block, but only where it does not: a pipe or a terminal that
/// is ready takes this much.
fn write_when_ready(output: &OwnedFd, bytes: &[u8]) -> rustix::io::Result<usize> {
    const AT_ONCE_BYTES: usize = 4096;
    let mut polled = [PollFd::new(output, PollFlags::OUT)];
    match poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Err(Errno::AGAIN),
        _ => rustix::io::write(output, &bytes[..bytes.len().min(AT_ONCE_BYTES)]),
    }
}

impl Stream for Line {
    fn write(&self, bytes: &[u8]) -> usize {
        let mut state = self.state.lock();
        let Some(output) = state.output.clone() else {
            return bytes.len(); // to nobody
        };
        let mut done = 0;
        while done < bytes.len() {
            let count = match state.is_shared {
                true => write_when_ready(&output, &bytes[done..]),
                false => rustix::io::write(&*output, &bytes[done..]),
            };
            match count {
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    state.blocked = true;
                    drop(state);
                    self.reactor.wake();
                    return done;
                }
                // A broken connection shows when it is read; what is written meanwhile is lost.
                Err(_) => return bytes.len(),
            }
        }
        done
    }

    fn attach(&self, peer: Weak<dyn StreamPeer>) {
        let device = peer.upgrade();
        *self.peer.lock() = Some(peer);
        if let (Some(device), true) = (device, self.is_connected()) {
            device.event(StreamEvent::Opened);
        }
        self.reactor.wake();
    }

    fn room(&self) {
        self.reactor.wake();
    }

    fn is_open(&self) -> bool {
        self.is_connected()
    }

    fn take_descriptors(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.passed.lock())
    }
}
