//! One connected client, as handlers and events see it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use libvirt_compat::rpc::{Frame, Header, Kind, PROGRAM_VERSION, Status};
use libvirt_compat::{Code, Error, Origin, Result};
use parking_lot::RwLock;
use tokio::sync::{Notify, mpsc};

use crate::world::World;

/// Messages that may wait for a client; one that reads no faster is cut off.
pub const QUEUE_LENGTH: usize = 1024;

/// Bytes on their way to a client, with descriptors.
pub struct Outgoing {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

/// A connected client.
pub struct Client {
    /// Came through the read-only socket, or asked to be read-only.
    readonly: AtomicBool,
    outgoing: mpsc::Sender<Outgoing>,
    /// What it has opened.
    world: RwLock<Option<Arc<World>>>,
    next_callback: AtomicI32,
    /// Rung when the client is to be cut off.
    pub closing: Notify,
}

impl Client {
    /// A client that has not opened anything.
    pub fn new(readonly: bool, outgoing: mpsc::Sender<Outgoing>) -> Self {
        Self {
            readonly: AtomicBool::new(readonly),
            outgoing,
            world: RwLock::new(None),
            next_callback: AtomicI32::new(0),
            closing: Notify::new(),
        }
    }

    pub fn is_readonly(&self) -> bool {
        self.readonly.load(Ordering::Relaxed)
    }

    /// Once read-only, always read-only.
    pub fn make_readonly(&self) {
        self.readonly.store(true, Ordering::Relaxed);
    }

    /// The opened world.
    pub fn world(&self) -> Result<Arc<World>> {
        let world = self.world.read().clone();
        world
            .ok_or_else(|| Error::new(Code::InternalError, "connection not open").from(Origin::Rpc))
    }

    /// Opens a world, or closes it.
    pub fn set_world(&self, world: Option<Arc<World>>) {
        *self.world.write() = world;
    }

    /// An id for a new registration of events.
    pub fn new_callback(&self) -> i32 {
        self.next_callback.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends an event without ever waiting: a full queue ends the connection.
    pub fn send_event(&self, program: u32, procedure: u32, payload: Vec<u8>) {
        let header = Header {
            program,
            version: PROGRAM_VERSION,
            procedure,
            kind: Kind::Message,
            serial: 0,
            status: Status::Ok,
        };
        let bytes = Frame { header, payload }.to_bytes();
        if self.outgoing.try_send(Outgoing { bytes, descriptors: Vec::new() }).is_err() {
            self.closing.notify_one();
        }
    }

    /// The queue to the client, for replies and streams, which wait for room.
    pub fn outgoing(&self) -> mpsc::Sender<Outgoing> {
        self.outgoing.clone()
    }
}
