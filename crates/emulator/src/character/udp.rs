//! Datagrams: each write is one, and what comes from the far end is read as it comes.

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Instant;

use device::{Stream, StreamPeer};
use rustix::event::PollFlags;

use super::line::Line;
use crate::reactor::{Reactor, Source};

/// A socket between two places.
pub struct Udp {
    line: Line,
}

impl Udp {
    /// Sends from `local` to `remote`, each a host and a port.
    pub fn new(
        reactor: &Arc<Reactor>,
        local: (&str, u16),
        remote: (&str, u16),
    ) -> io::Result<Arc<Self>> {
        let socket = UdpSocket::bind(local)?;
        socket.connect(remote)?;
        socket.set_nonblocking(true)?;
        let descriptor = Arc::new(OwnedFd::from(socket));
        let line = Line::new(reactor);
        line.connect(Some(Arc::clone(&descriptor)), Some(descriptor));
        let udp = Arc::new(Self { line });
        let source: Weak<Self> = Arc::downgrade(&udp);
        reactor.add(source);
        Ok(udp)
    }
}

impl Source for Udp {
    fn watch(&self) -> Vec<(Arc<OwnedFd>, PollFlags)> {
        self.line.watch()
    }

    fn ready(&self, _descriptor: &Arc<OwnedFd>, flags: PollFlags) {
        // An empty datagram is no end, and that nobody listened may be different next time.
        _ = self.line.ready(flags | PollFlags::IN);
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn tick(&self) {}
}

impl Stream for Udp {
    fn write(&self, bytes: &[u8]) -> usize {
        self.line.write(bytes)
    }

    fn attach(&self, peer: Weak<dyn StreamPeer>) {
        self.line.attach(peer);
    }

    fn room(&self) {
        self.line.room();
    }
}
