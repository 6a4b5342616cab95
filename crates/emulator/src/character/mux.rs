//! Several devices on one stream; Ctrl-A commands change between them.

use std::sync::{Arc, Weak};

use device::{Stream, StreamEvent, StreamPeer};
use parking_lot::Mutex;

/// The key before a command: Ctrl-A.
pub const ESCAPE: u8 = 0x01;
/// Devices on one stream.
const FRONTS_MAX: usize = 4;

/// The stream's only peer, which passes bytes on to the device in focus.
pub struct Mux {
    stream: Arc<dyn Stream>,
    state: Mutex<State>,
    /// Ctrl-A x.
    quit: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    fronts: Vec<Weak<Front>>,
    focus: usize,
    escaped: bool,
    /// For the device in focus once it has room.
    held: Vec<u8>,
}

/// One device's view of the shared stream.
pub struct Front {
    mux: Arc<Mux>,
    number: usize,
    peer: Mutex<Option<Weak<dyn StreamPeer>>>,
}

impl Front {
    fn peer(&self) -> Option<Arc<dyn StreamPeer>> {
        self.peer.lock().as_ref().and_then(Weak::upgrade)
    }
}

impl Mux {
    /// Takes a stream over.
    pub fn new(stream: Arc<dyn Stream>, quit: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        let mux = Arc::new(Self { stream, state: Mutex::default(), quit: Box::new(quit) });
        let weak: Weak<Self> = Arc::downgrade(&mux);
        mux.stream.attach(weak);
        mux
    }

    /// One more device; `None` when there are too many. The first one has the focus.
    pub fn front(self: &Arc<Self>) -> Option<Arc<Front>> {
        let mut state = self.state.lock();
        let number = state.fronts.len();
        if number == FRONTS_MAX {
            return None;
        }
        let front = Arc::new(Front { mux: Arc::clone(self), number, peer: Mutex::default() });
        state.fronts.push(Arc::downgrade(&front));
        Some(front)
    }

    fn focus(&self) -> Option<Arc<dyn StreamPeer>> {
        let front = {
            let state = self.state.lock();
            state.fronts.get(state.focus)?.upgrade()?
        };
        front.peer()
    }

    fn fronts(&self) -> Vec<Arc<Front>> {
        self.state.lock().fronts.iter().filter_map(Weak::upgrade).collect()
    }

    /// The next device has the focus.
    fn change(&self) {
        let count = self.state.lock().fronts.len();
        for _ in 0..count {
            let mut state = self.state.lock();
            state.focus = (state.focus + 1) % count;
            drop(state);
            if let Some(peer) = self.focus() {
                // What a monitor prints when somebody comes is its prompt.
                peer.event(StreamEvent::Opened);
                return;
            }
        }
    }

    fn command(&self, byte: u8) {
        match byte {
            b'x' => {
                self.print("QEMU: Terminated\r\n");
                (self.quit)();
            }
            b'c' => self.change(),
            b'b' => {
                if let Some(peer) = self.focus() {
                    peer.event(StreamEvent::Break);
                }
            }
            b'h' | b'?' => self.print(
                "\r\nC-a h    print this help\r\nC-a x    exit emulator\r\nC-a b    send break \
                 (magic sysrq)\r\nC-a c    switch between console and monitor\r\nC-a C-a  sends \
                 C-a\r\n",
            ),
            ESCAPE => self.state.lock().held.push(ESCAPE),
            _ => {}
        }
    }

    fn print(&self, text: &str) {
        self.stream.write(text.as_bytes());
    }

    /// Gives the device in focus what waits for it.
    fn deliver(&self) {
        let Some(peer) = self.focus() else { return };
        loop {
            let room = peer.room();
            let held: Vec<u8> = {
                let mut state = self.state.lock();
                let count = state.held.len().min(room);
                state.held.drain(..count).collect()
            };
            if held.is_empty() {
                return;
            }
            peer.receive(&held);
        }
    }
}

impl StreamPeer for Mux {
    fn room(&self) -> usize {
        // While the device is slow, commands still get through: one byte at a time.
        let held = self.state.lock().held.len();
        256_usize.saturating_sub(held)
    }

    fn receive(&self, bytes: &[u8]) {
        for &byte in bytes {
            let mut state = self.state.lock();
            if std::mem::take(&mut state.escaped) {
                drop(state);
                self.deliver();
                self.command(byte);
            } else if byte == ESCAPE {
                state.escaped = true;
            } else {
                state.held.push(byte);
            }
        }
        self.deliver();
    }

    fn event(&self, event: StreamEvent) {
        for peer in self.fronts().iter().filter_map(|front| front.peer()) {
            peer.event(event);
        }
    }

    fn writable(&self) {
        for peer in self.fronts().iter().filter_map(|front| front.peer()) {
            peer.writable();
        }
    }
}

impl Stream for Front {
    fn write(&self, bytes: &[u8]) -> usize {
        self.mux.stream.write(bytes)
    }

    fn attach(&self, peer: Weak<dyn StreamPeer>) {
        let device = peer.upgrade();
        *self.peer.lock() = Some(peer);
        let has_focus = self.mux.state.lock().focus == self.number;
        if let (Some(device), true) = (device, has_focus && self.mux.stream.is_open()) {
            device.event(StreamEvent::Opened);
        }
    }

    fn room(&self) {
        self.mux.deliver();
        self.mux.stream.room();
    }

    fn is_open(&self) -> bool {
        self.mux.stream.is_open()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A keyboard.
    #[derive(Default)]
    struct Keys(Mutex<Option<Weak<dyn StreamPeer>>>);

    impl Stream for Keys {
        fn write(&self, bytes: &[u8]) -> usize {
            bytes.len()
        }

        fn attach(&self, peer: Weak<dyn StreamPeer>) {
            *self.0.lock() = Some(peer);
        }
    }

    impl Keys {
        fn send(&self, bytes: &[u8]) {
            let peer = self.0.lock().as_ref().and_then(Weak::upgrade).unwrap();
            assert!(peer.room() >= bytes.len());
            peer.receive(bytes);
        }
    }

    #[derive(Default)]
    struct Taker {
        bytes: Mutex<Vec<u8>>,
        room: AtomicUsize,
    }

    impl StreamPeer for Taker {
        fn room(&self) -> usize {
            self.room.load(Ordering::Relaxed)
        }

        fn receive(&self, bytes: &[u8]) {
            self.room.fetch_sub(bytes.len(), Ordering::Relaxed);
            self.bytes.lock().extend(bytes);
        }
    }

    #[test]
    fn keys_go_to_the_focus_and_wait_for_room() {
        let ring = Arc::new(Keys::default());
        let quits = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&quits);
        let mux = Mux::new(Arc::clone(&ring) as _, move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let takers = [Arc::new(Taker::default()), Arc::new(Taker::default())];
        let fronts = takers.each_ref().map(|taker| {
            let front = mux.front().unwrap();
            let weak: Weak<Taker> = Arc::downgrade(taker);
            front.attach(weak);
            taker.room.store(4, Ordering::Relaxed);
            front
        });
        ring.send(b"ab\x01ccd\x01\x01");
        assert_eq!(*takers[0].bytes.lock(), b"ab");
        assert_eq!(*takers[1].bytes.lock(), b"cd\x01");
        ring.send(b"xyz");
        assert_eq!(*takers[1].bytes.lock(), b"cd\x01x");
        takers[1].room.store(9, Ordering::Relaxed);
        fronts[1].room();
        assert_eq!(*takers[1].bytes.lock(), b"cd\x01xyz");
        ring.send(b"\x01x");
        assert_eq!(quits.load(Ordering::Relaxed), 1);
    }
}
