//! A network in another process: `-netdev vhost-user`.
//!
//! Frames are copied through memory of our own, so that any card can be plugged in, the guest's
//! memory need not be shared, and what the other process writes reaches no guest unchecked.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use linux::shared::SharedMemory;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};

use super::front_end::{FrontEnd, Queue};
use super::ring::{Buffer, Lie};
use super::{Result, VhostUserError};
use crate::cable::{Backend, Capabilities, Card, Offload, SHORT_HEADER_BYTES, Segmentation};
use crate::error::Error;
use crate::packet::checksum;
use crate::socket::{FRAME_BYTES_MAX, Socketed};

/// Frames that wait on each side.
const FRAMES: u16 = 64;
/// Features of a network device: what it takes from us.
const TAKES_CHECKSUM: u64 = 1;
/// It may leave checksums to us.
const GIVES_CHECKSUM: u64 = 1 << 1;
const TAKES_TSO4: u64 = 1 << 11;
const TAKES_TSO6: u64 = 1 << 12;
/// The header before each frame, as modern devices have it.
const HEADER_BYTES: usize = 12;
const NEEDS_CHECKSUM: u8 = 1;
const CHECKSUM_VALID: u8 = 2;
const SLOT_BYTES: usize = HEADER_BYTES + FRAME_BYTES_MAX;
/// How long a card without room is waited for before its stop is looked for.
const ROOM_WAIT: Duration = Duration::from_millis(100);

/// The back end.
pub struct VhostUserNet {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    name: String,
}

struct Shared {
    base: Socketed,
    memory: Arc<SharedMemory>,
    /// Keeps the connection.
    front: FrontEnd,
    features: u64,
    /// The guest does checksums itself.
    granted: AtomicBool,
    /// For the guest, only used by the thread.
    receive: Mutex<Slots>,
    /// From the guest.
    transmit: Mutex<Slots>,
}

/// A queue whose buffers are slots of the shared memory.
struct Slots {
    queue: Queue,
    /// Where the first slot lies.
    start: usize,
    free: Vec<u16>,
    /// Which slot a chain is, by its head.
    slots: Vec<u16>,
    /// The other process has broken the rules.
    broken: bool,
}

impl Slots {
    fn new(queue: Queue, start: usize) -> Self {
        let free = (0..FRAMES).collect();
        Self { queue, start, free, slots: vec![0; usize::from(FRAMES)], broken: false }
    }

    fn place(&self, slot: u16) -> usize {
        self.start + usize::from(slot) * SLOT_BYTES
    }

    /// Offers a slot.
    fn offer(&mut self, slot: u16, bytes: usize, writable: bool) {
        let address = FrontEnd::private_address(self.place(slot));
        let buffer = Buffer { address, bytes: bytes as u32, writable };
        match self.queue.ring.add(&[buffer]) {
            Some(head) => self.slots[usize::from(head)] = slot,
            None => self.free.push(slot),
        }
    }

    /// A slot that has come back, and bytes that were written.
    fn take(&mut self) -> Option<(u16, usize)> {
        if self.broken {
            return None;
        }
        match self.queue.ring.take() {
            Ok(used) => used.map(|used| {
                let bytes = (used.bytes as usize).min(SLOT_BYTES);
                (self.slots[usize::from(used.head)], bytes)
            }),
            Err(Lie) => {
                self.broken = true;
                None
            }
        }
    }
}

impl VhostUserNet {
    /// Starts the device at the other side of a connected unix socket.
    pub fn new(socket: OwnedFd, name: &str) -> Result<Arc<Self>> {
        let mut front = FrontEnd::new(socket)?;
        let sizes = [FRAMES; 2];
        let rings = FrontEnd::ring_bytes(&sizes).next_multiple_of(4096);
        let frames = usize::from(FRAMES) * SLOT_BYTES;
        let host = |action| move |source| VhostUserError::Host { action, source };
        let memory =
            SharedMemory::new("hostel-vhost-user", (rings + 2 * frames).next_multiple_of(4096));
        let memory = Arc::new(memory.map_err(host("share memory"))?);
        let wanted = TAKES_CHECKSUM | GIVES_CHECKSUM | TAKES_TSO4 | TAKES_TSO6;
        let features = front.features() & wanted;
        let queues = front.start(features, &[], &memory, &sizes)?;
        let mut queues = queues.into_iter();
        let (Some(receive), Some(transmit)) = (queues.next(), queues.next()) else {
            return Err(VhostUserError::Lacks { feature: "two queues" });
        };
        let base = Socketed::new().map_err(|error| match error {
            Error::Host { action, source } => VhostUserError::Host { action, source },
            other => VhostUserError::Host {
                action: "make an event",
                source: std::io::Error::other(other),
            },
        })?;
        let mut receive = Slots::new(receive, rings);
        for slot in std::mem::take(&mut receive.free) {
            receive.offer(slot, SLOT_BYTES, true);
        }
        receive.queue.kick();
        let transmit = Slots::new(transmit, rings + frames);
        let (receive, transmit) = (Mutex::new(receive), Mutex::new(transmit));
        let granted = AtomicBool::new(false);
        let shared = Shared { base, memory, front, features, granted, receive, transmit };
        shared.base.set_link(true);
        let shared = Arc::new(shared);
        let served = Arc::clone(&shared);
        let thread = thread::Builder::new().name("netvhostuser".to_owned());
        let thread = thread.spawn(move || served.run()).map_err(host("start a thread"))?;
        Ok(Arc::new(Self { shared, thread: Some(thread), name: name.to_owned() }))
    }
}

impl Shared {
    fn run(&self) {
        let events = self.receive.lock().queue.events.clone();
        let mut frame = vec![0; SLOT_BYTES];
        while !self.base.is_stopped() {
            let socket = self.front.socket();
            let mut polled = [
                PollFd::from_borrowed_fd(events.called(), PollFlags::IN),
                PollFd::new(&self.base.wake, PollFlags::IN),
                PollFd::from_borrowed_fd(socket, PollFlags::IN),
            ];
            _ = poll(&mut polled, None);
            // It says nothing unasked: what comes is the end.
            if !polled[2].revents().is_empty() {
                break;
            }
            self.base.woken();
            events.heard();
            if !self.receive_all(&mut frame) {
                break;
            }
        }
        self.base.set_link(false);
    }

    /// Hands over what has come. False when the other process has broken the rules.
    fn receive_all(&self, frame: &mut [u8]) -> bool {
        let mut slots = self.receive.lock();
        while let Some((slot, bytes)) = slots.take() {
            self.memory.read(slots.place(slot), &mut frame[..bytes]);
            slots.offer(slot, SLOT_BYTES, true);
            if let Some((header, frame)) = frame[..bytes].split_at_mut_checked(HEADER_BYTES) {
                self.hand_over(frame, header);
            }
            if self.base.is_stopped() {
                return true;
            }
        }
        slots.queue.kick();
        !slots.broken
    }

    /// Waits until the card has room: the other process then waits, too.
    fn hand_over(&self, frame: &mut [u8], header: &[u8]) {
        let granted = self.granted.load(Ordering::Relaxed);
        let offload = leave(frame, header, granted);
        while !self.base.is_stopped() {
            *self.base.room.lock() = false;
            if self.base.card().is_none_or(|card| card.receive(frame, offload)) {
                return;
            }
            let mut room = self.base.room.lock();
            if !*room {
                self.base.made_room.wait_for(&mut room, ROOM_WAIT);
            }
        }
    }
}

/// What is left to the guest of what the other process has left: the transport checksum, if the
/// guest does those. Otherwise it is done here.
fn leave(frame: &mut [u8], header: &[u8], guest_sums: bool) -> Offload {
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let (start, offset) = (word(6), word(8));
    if header[0] & NEEDS_CHECKSUM != 0 {
        let begun = Offload {
            needs_checksum: true,
            checksum_start: start,
            checksum_offset: offset,
            ..Offload::default()
        };
        if guest_sums {
            return begun;
        }
        let field = usize::from(start) + usize::from(offset);
        if let Some(rest) = frame.get(usize::from(start)..)
            && let sum = checksum::internet(rest)
            && let Some(place) = frame.get_mut(field..field + 2)
        {
            place.copy_from_slice(&sum.to_be_bytes());
        }
        return Offload::default();
    }
    // Some leave the sum out altogether and say that it is right.
    let valid = header[0] & CHECKSUM_VALID != 0;
    if valid && !guest_sums {
        checksum::fill(frame);
    }
    Offload { checksum_valid: valid && guest_sums, ..Offload::default() }
}

/// What the back end is told: no datagrams are left to it to cut.
fn header(offload: &Offload) -> [u8; HEADER_BYTES] {
    let segmentation = offload.segmentation.filter(|kind| *kind != Segmentation::Udp);
    let offload = Offload { segmentation, ..*offload };
    let mut header = [0; HEADER_BYTES];
    header[..SHORT_HEADER_BYTES].copy_from_slice(&offload.virtio_header(u16::to_le_bytes));
    header
}

impl Backend for VhostUserNet {
    fn capabilities(&self) -> Capabilities {
        let has = |feature: u64| self.shared.features & feature != 0;
        Capabilities {
            takes_checksum: has(TAKES_CHECKSUM),
            takes_tso4: has(TAKES_CHECKSUM) && has(TAKES_TSO4),
            takes_tso6: has(TAKES_CHECKSUM) && has(TAKES_TSO6),
            gives_checksum: true,
            ..Capabilities::default()
        }
    }

    fn transmit(&self, frame: &[u8], offload: Offload) {
        if frame.len() > FRAME_BYTES_MAX || !self.shared.base.is_up() {
            return;
        }
        let mut slots = self.shared.transmit.lock();
        while let Some((slot, _)) = slots.take() {
            slots.free.push(slot);
        }
        // One that cannot keep up loses frames, as a wire would.
        let Some(slot) = slots.free.pop() else { return };
        let place = slots.place(slot);
        self.shared.memory.write(place, &header(&offload));
        self.shared.memory.write(place + HEADER_BYTES, frame);
        slots.offer(slot, HEADER_BYTES + frame.len(), false);
        slots.queue.kick();
    }

    fn attach(&self, card: Weak<dyn Card>) {
        self.shared.base.attach(card);
    }

    fn set_guest_offload(&self, granted: Capabilities) {
        self.shared.granted.store(granted.gives_checksum, Ordering::Relaxed);
    }

    fn room(&self) {
        self.shared.base.room();
    }

    fn link(&self) -> bool {
        self.shared.base.is_up()
    }

    fn info(&self) -> String {
        format!("type=vhost-user,chardev={}", self.name)
    }
}

impl Drop for VhostUserNet {
    fn drop(&mut self) {
        self.shared.base.stop();
        let Some(thread) = self.thread.take() else { return };
        // The last card may be dropped by the thread itself.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}
