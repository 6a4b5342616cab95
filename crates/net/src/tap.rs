//! A tap interface as a back end: the guest's card on a network of the host.
//!
//! Each frame has a header of ten bytes before it, in the host's byte order, which says what was
//! left to the receiver (the kernel's `struct virtio_net_hdr`); so large segments and unfinished
//! checksums pass between guest and kernel as they are.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use linux::tap::{self, TapOffload};
use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use crate::cable::{Backend, Capabilities, Card, Offload, Segmentation};
use crate::error::{Error, Result};

/// Bytes of the header.
pub const HEADER: usize = 10;
const HEADER_BYTES: i32 = 10;
const NEEDS_CHECKSUM: u8 = 1;
const CHECKSUM_VALID: u8 = 2;
/// The largest frame and its header.
const FRAME_BYTES_MAX: usize = HEADER + 14 + 65_535 + 4;
/// How long a card without room is waited for before our stop is looked for.
const ROOM_WAIT: Duration = Duration::from_millis(100);

/// Which interface.
#[derive(Debug)]
pub enum TapEnd {
    /// By its name; `%d` in it becomes a number. It is made if it does not exist.
    Name(String),
    /// One that somebody opened and handed over.
    Descriptor(OwnedFd),
}

/// A tap interface.
pub struct TapNet {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    name: String,
}

struct Shared {
    tap: OwnedFd,
    has_header: bool,
    card: Mutex<Option<Weak<dyn Card>>>,
    stop: AtomicBool,
    wake: OwnedFd,
    room: Mutex<bool>,
    made_room: Condvar,
}

impl TapNet {
    /// Opens the interface, plugs it into `bridge` if there is one to plug it into, and starts
    /// its thread. Without `offload` frames have no header and nothing is left to the receiver.
    ///
    /// # Errors
    /// The interface or the bridge does not exist, or a right is missing.
    pub fn new(end: TapEnd, offload: bool, bridge: Option<&str>) -> Result<Arc<Self>> {
        let (tap, name, has_header) = match end {
            TapEnd::Name(name) => {
                let failed = |source| Error::Interface { name: name.clone(), source };
                let (tap, name) = tap::open(&name, offload).map_err(failed)?;
                (tap, name, offload)
            }
            TapEnd::Descriptor(tap) => {
                let failed = |source| Error::Interface { name: "(descriptor)".to_owned(), source };
                let (name, has_header) = tap::inspect(&tap).map_err(failed)?;
                rustix::io::ioctl_fionbio(&tap, true).map_err(|error| failed(error.into()))?;
                (tap, name, has_header)
            }
        };
        let failed = |source| Error::Interface { name: name.clone(), source };
        if has_header {
            tap::set_header_bytes(&tap, HEADER_BYTES).map_err(failed)?;
            tap::set_offload(&tap, TapOffload::default()).map_err(failed)?;
        }
        if let Some(bridge) = bridge {
            let failed = |source| Error::Interface { name: bridge.to_owned(), source };
            tap::join_bridge(bridge, &name).map_err(failed)?;
            tap::set_up(&name).map_err(failed)?;
        }
        let host = |action| move |source: io::Error| Error::Host { action, source };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| host("make an event")(error.into()))?;
        let shared = Arc::new(Shared {
            tap,
            has_header,
            card: Mutex::default(),
            stop: AtomicBool::new(false),
            wake,
            room: Mutex::default(),
            made_room: Condvar::new(),
        });
        let served = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("nettap".to_owned())
            .spawn(move || served.run())
            .map_err(host("start a thread"))?;
        Ok(Arc::new(Self { shared, thread: Some(thread), name }))
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Shared {
    fn run(&self) {
        let mut bytes = vec![0; FRAME_BYTES_MAX];
        while !self.is_stopped() {
            let mut polled =
                [PollFd::new(&self.tap, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
            let _ = poll(&mut polled, None);
            let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
            loop {
                match rustix::io::read(&self.tap, &mut bytes[..]) {
                    Ok(count) => self.frame(&bytes[..count]),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    // The interface is down or gone; it may come back, but nobody tells when.
                    Err(_) => {
                        self.rest();
                        break;
                    }
                }
                if self.is_stopped() {
                    return;
                }
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn rest(&self) {
        let mut room = self.room.lock();
        self.made_room.wait_for(&mut room, ROOM_WAIT);
    }

    /// Hands a frame over; while the card has no room, frames wait in the kernel's queue.
    fn frame(&self, bytes: &[u8]) {
        let (offload, frame) = if self.has_header {
            let Some((header, frame)) = bytes.split_first_chunk::<HEADER>() else { return };
            (read_header(*header), frame)
        } else {
            (Offload::default(), bytes)
        };
        while !self.is_stopped() {
            *self.room.lock() = false;
            let card = self.card.lock().as_ref().and_then(Weak::upgrade);
            if card.is_none_or(|card| card.receive(frame, offload)) {
                return;
            }
            let mut room = self.room.lock();
            if !*room {
                self.made_room.wait_for(&mut room, ROOM_WAIT);
            }
        }
    }
}

/// What the header says was left to us.
fn read_header(header: [u8; HEADER]) -> Offload {
    let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    // The highest bit says that congestion was noted, which the segments say themselves.
    let segmentation = match header[1] & 0x7f {
        1 => Some(Segmentation::TcpV4),
        4 => Some(Segmentation::TcpV6),
        5 => Some(Segmentation::Udp),
        _ => None,
    };
    Offload {
        needs_checksum: header[0] & NEEDS_CHECKSUM != 0,
        checksum_valid: header[0] & CHECKSUM_VALID != 0,
        segmentation,
        header_bytes: word(2),
        segment_bytes: word(4),
        checksum_start: word(6),
        checksum_offset: word(8),
    }
}

impl Backend for TapNet {
    fn capabilities(&self) -> Capabilities {
        let all = self.shared.has_header;
        Capabilities {
            takes_checksum: all,
            takes_tso4: all,
            takes_tso6: all,
            gives_checksum: all,
            gives_tso4: all,
            gives_tso6: all,
        }
    }

    fn transmit(&self, frame: &[u8], offload: Offload) {
        let header = offload.virtio_header(u16::to_ne_bytes);
        // A full queue of the kernel, or a header that it refuses, loses the frame.
        let _ = if self.shared.has_header {
            let parts = [IoSlice::new(&header), IoSlice::new(frame)];
            rustix::io::writev(&self.shared.tap, &parts)
        } else {
            rustix::io::write(&self.shared.tap, frame)
        };
    }

    fn attach(&self, card: Weak<dyn Card>) {
        *self.shared.card.lock() = Some(card);
    }

    fn set_guest_offload(&self, granted: Capabilities) {
        if self.shared.has_header {
            let offload = TapOffload {
                checksum: granted.gives_checksum,
                tso4: granted.gives_tso4,
                tso6: granted.gives_tso6,
            };
            // A kernel that refuses goes on to leave nothing.
            let _ = tap::set_offload(&self.shared.tap, offload);
        }
    }

    fn room(&self) {
        *self.shared.room.lock() = true;
        self.shared.made_room.notify_all();
    }

    fn link(&self) -> bool {
        true
    }

    fn info(&self) -> String {
        format!("type=tap,ifname={}", self.name)
    }
}

impl Drop for TapNet {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // A full counter has woken it already.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
        self.shared.made_room.notify_all();
        let Some(thread) = self.thread.take() else { return };
        // The last card may be dropped by the thread itself.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_what_they_were_made_of() {
        for segmentation in
            [None, Some(Segmentation::TcpV4), Some(Segmentation::TcpV6), Some(Segmentation::Udp)]
        {
            let offload = Offload {
                needs_checksum: true,
                checksum_start: 34,
                checksum_offset: 16,
                segmentation,
                segment_bytes: 1460,
                header_bytes: 54,
                checksum_valid: false,
            };
            assert_eq!(read_header(offload.virtio_header(u16::to_ne_bytes)), offload);
        }
        let congested = [1, 0x81, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read_header(congested).segmentation, Some(Segmentation::TcpV4));
    }

    #[test]
    fn missing_rights_and_bridges_are_named() {
        let error = TapNet::new(TapEnd::Name("a-name-too-long-x".into()), true, None);
        let text = error.err().unwrap().to_string();
        assert!(text.contains("a-name-too-long-x"), "{text}");
    }
}
