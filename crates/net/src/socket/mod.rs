//! Other programs as back ends: frames over stream sockets and in datagrams.
//!
//! A stream carries each frame behind its length, 4 bytes, the highest first. Other emulators,
//! network daemons such as passt, and further machines of ours speak this.

mod dgram;
mod stream;

use std::os::fd::OwnedFd;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, eventfd};

use crate::cable::Card;
use crate::error::{Error, Result};

pub use dgram::{DgramEnds, DgramNet};
pub use stream::{Address, StreamEnd, StreamNet};

/// The largest frame: 64 KiB of a large segment, and headers.
pub const FRAME_BYTES_MAX: usize = 65_536 + 4096;

/// The card, and what its thread and others tell each other.
pub(crate) struct Socketed {
    card: Mutex<Option<Weak<dyn Card>>>,
    up: AtomicBool,
    stop: AtomicBool,
    pub(crate) wake: OwnedFd,
    pub(crate) room: Mutex<bool>,
    pub(crate) made_room: Condvar,
}

impl Socketed {
    pub(crate) fn new() -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = eventfd(0, flags)
            .map_err(|error| Error::Host { action: "make an event", source: error.into() })?;
        Ok(Self {
            card: Mutex::default(),
            up: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            wake,
            room: Mutex::default(),
            made_room: Condvar::new(),
        })
    }

    pub(crate) fn card(&self) -> Option<std::sync::Arc<dyn Card>> {
        self.card.lock().as_ref().and_then(Weak::upgrade)
    }

    pub(crate) fn attach(&self, card: Weak<dyn Card>) {
        *self.card.lock() = Some(card);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
        self.made_room.notify_all();
    }

    pub(crate) fn wake(&self) {
        // A full counter has woken it already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    pub(crate) fn woken(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
    }

    pub(crate) fn room(&self) {
        *self.room.lock() = true;
        self.made_room.notify_all();
    }

    /// The far end came or went.
    pub(crate) fn set_link(&self, up: bool) {
        if self.up.swap(up, Ordering::SeqCst) != up
            && let Some(card) = self.card()
        {
            card.set_link(up);
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }
}
