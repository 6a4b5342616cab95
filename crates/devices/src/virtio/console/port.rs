//! A port: a byte stream between a program in the guest and one on the host.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use device::{DeviceEvent, EventSink, Fields, StateError, Stream, StreamEvent, StreamPeer};
use parking_lot::Mutex;

use super::Console;
use crate::virtio::{Chain, Queue};

/// The most bytes that go to the stream at once.
const PIECE_BYTES: usize = 32 << 10;

/// What a port is made of.
pub struct PortConfig {
    /// For events.
    pub id: String,
    /// Its number; none for the next free one.
    pub number: Option<u32>,
    /// The guest makes it a terminal instead of a file.
    pub is_console: bool,
    /// By which a program in the guest finds it.
    pub name: String,
    /// The host's end.
    pub stream: Arc<dyn Stream>,
    /// Told when the guest opens and closes it.
    pub events: Arc<dyn EventSink>,
}

/// A port of a controller.
///
/// Lock order: `input` and `output` are never held together, nor while the stream is called.
pub struct Port {
    pub(super) config: PortConfig,
    pub(super) number: u32,
    controller: Weak<Console>,
    input: Mutex<Input>,
    output: Mutex<Output>,
    guest_open: AtomicBool,
}

/// To the guest.
#[derive(Default)]
struct Input {
    queue: Option<Arc<Queue>>,
    /// The next buffer, taken to know its size.
    next: Option<Chain>,
    paused: bool,
    /// The stream was told that there is no room.
    waits: bool,
}

/// From the guest.
#[derive(Default)]
struct Output {
    queue: Option<Arc<Queue>>,
    /// What the stream did not take, from this byte on.
    rest: Option<(Chain, u64)>,
    paused: bool,
    /// A thread is at it; it looks again when it sees that another came by.
    busy: bool,
    again: bool,
}

impl Port {
    pub(super) fn new(
        config: PortConfig,
        number: u32,
        controller: Weak<Console>,
        paused: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            number,
            controller,
            input: Mutex::new(Input { paused, ..Input::default() }),
            output: Mutex::new(Output { paused, ..Output::default() }),
            guest_open: AtomicBool::new(false),
        })
    }

    /// Connects the stream.
    pub(super) fn attach(self: &Arc<Self>) {
        let weak: Weak<Self> = Arc::downgrade(self);
        self.config.stream.attach(weak);
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its controller, while that exists.
    #[must_use]
    pub fn controller(&self) -> Option<Arc<Console>> {
        self.controller.upgrade()
    }

    /// Whether the host's end is open as the guest sees it: a console always is.
    pub(super) fn host_open(&self) -> bool {
        self.config.is_console || self.config.stream.is_open()
    }

    pub(super) fn start(&self, input: Option<Arc<Queue>>, output: Option<Arc<Queue>>) {
        let mut state = self.input.lock();
        *state = Input { queue: input, paused: state.paused, ..Input::default() };
        drop(state);
        let mut state = self.output.lock();
        (state.queue, state.rest) = (output, None);
    }

    pub(super) fn stop(&self) {
        self.start(None, None);
        self.set_guest_open(false);
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.input.lock().paused = paused;
        self.output.lock().paused = paused;
        if !paused {
            self.send();
            self.offer_room();
        }
    }

    pub(super) fn set_guest_open(&self, open: bool) {
        if self.guest_open.swap(open, Ordering::AcqRel) == open {
            return;
        }
        self.config.stream.set_guest_open(open);
        self.config.events.event(&self.config.id, DeviceEvent::PortChanged { open });
        if open {
            self.offer_room();
        }
    }

    /// The guest has given buffers.
    /// Saves or loads whether the guest's end is open, and how much of a request was passed on.
    pub(super) fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let name = |field: &str| format!("port{}.{field}", self.number);
        let mut open = self.guest_open.load(Ordering::Acquire);
        fields.item(&name("open"), &mut open)?;
        let mut output = self.output.lock();
        let mut done = output.rest.as_ref().map(|(_, done)| *done);
        fields.item(&name("done"), &mut done)?;
        if fields.is_loading() {
            let next = output.queue.as_ref().filter(|_| done.is_some());
            let next = next.and_then(|queue| queue.pop());
            output.rest = next.zip(done);
            drop(output);
            self.set_guest_open(open);
        }
        Ok(())
    }

    pub(super) fn offer_room(&self) {
        let waited = std::mem::take(&mut self.input.lock().waits);
        if waited && self.room() > 0 {
            self.config.stream.room();
        }
    }

    /// Brings what the guest has written to the stream, until that takes no more.
    pub(super) fn send(&self) {
        let mut output = self.output.lock();
        if output.busy {
            output.again = true;
            return;
        }
        output.busy = true;
        loop {
            output.again = false;
            let next = match output.rest.take() {
                Some(rest) => Some(rest),
                None if output.paused => None,
                None => output.queue.as_ref().and_then(|queue| queue.pop()).map(|chain| (chain, 0)),
            };
            let Some((chain, done)) = next else {
                if output.again {
                    continue;
                }
                break;
            };
            let queue = output.queue.clone();
            drop(output);
            let done = self.send_chain(&chain, done);
            output = self.output.lock();
            match (done, queue) {
                (None, Some(queue)) => queue.push(chain, 0),
                // A reset has come meanwhile: what is left belongs to nobody.
                (Some(done), Some(queue))
                    if output.queue.as_ref().is_some_and(|now| Arc::ptr_eq(now, &queue)) =>
                {
                    output.rest = Some((chain, done));
                    if !output.again {
                        break;
                    }
                }
                _ => {}
            }
        }
        output.busy = false;
    }

    /// Sends a chain from `done` on; where it got stuck, or none when all is sent.
    fn send_chain(&self, chain: &Chain, mut done: u64) -> Option<u64> {
        let mut reader = chain.reader();
        reader.skip(done);
        loop {
            let bytes = reader.to_vec(PIECE_BYTES);
            // To a closed end everything can be said.
            if bytes.is_empty() || !self.config.stream.is_open() {
                return None;
            }
            let taken = self.config.stream.write(&bytes).min(bytes.len());
            done += taken as u64;
            if taken < bytes.len() {
                return Some(done);
            }
        }
    }

    /// Whether somebody in the guest reads; a driver that knows no orders always does.
    fn is_read(&self) -> bool {
        let controller = self.controller.upgrade();
        controller.is_some_and(|controller| {
            !controller.has_orders() || self.guest_open.load(Ordering::Acquire)
        })
    }
}

impl Input {
    fn room(&mut self) -> usize {
        if self.paused {
            return 0;
        }
        while self.next.is_none() {
            let Some(queue) = self.queue.clone() else { return 0 };
            let Some(chain) = queue.pop() else { return 0 };
            if chain.writable_bytes() == 0 {
                queue.push(chain, 0);
            } else {
                self.next = Some(chain);
            }
        }
        let bytes = self.next.as_ref().map_or(0, Chain::writable_bytes);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

impl StreamPeer for Port {
    fn room(&self) -> usize {
        let read = self.is_read();
        let mut input = self.input.lock();
        let room = if read { input.room() } else { 0 };
        input.waits = room == 0;
        room
    }

    fn receive(&self, bytes: &[u8]) {
        let mut input = self.input.lock();
        let Some(queue) = input.queue.clone() else { return };
        let mut rest = bytes;
        while !rest.is_empty() && input.room() > 0 {
            let Some(chain) = input.next.take() else { break };
            let written = chain.writer().write(rest);
            rest = &rest[written..];
            queue.push(chain, written as u64);
        }
    }

    fn event(&self, event: StreamEvent) {
        if matches!(event, StreamEvent::Opened | StreamEvent::Closed)
            && let Some(controller) = self.controller.upgrade()
        {
            controller.host_end_changed(self);
            self.send();
        }
    }

    fn writable(&self) {
        self.send();
    }
}
