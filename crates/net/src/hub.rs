//! A hub: every frame goes to all other ports.
//!
//! A port is a back end for a card ([`Hub::port`]), or joins another back end to the hub
//! ([`Hub::join`]). Frames of cards pass a queue and the hub's own thread, because a card may
//! not be called from another card's thread; frames of back ends come by their own threads.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::thread;

use parking_lot::{Condvar, Mutex, RwLock};

use crate::cable::{Backend, Capabilities, Card, Offload};
use crate::error::{Error, Result};

/// Frames of cards that may wait; more are dropped.
const WAITING_MAX: usize = 1024;

/// A hub. It lives as long as one of its ports.
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    /// Guarded apart from the queue: delivering must not stop the cards' threads.
    ports: RwLock<Vec<Port>>,
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<(usize, Vec<u8>)>,
    next_port: usize,
    stop: bool,
}

struct Port {
    number: usize,
    end: End,
}

#[derive(Clone)]
enum End {
    /// A card, once it is plugged in.
    Card(Weak<dyn Card>),
    /// A back end, and its card of ours.
    Backend(Arc<dyn Backend>, #[expect(dead_code, reason = "keeps the card alive")] Arc<Joined>),
    /// Nothing yet.
    Open,
}

/// A card's port.
pub struct HubPort {
    shared: Arc<Shared>,
    hub: Arc<Hub>,
    number: usize,
}

/// Our card in a back end that was joined.
struct Joined {
    shared: Weak<Shared>,
    number: usize,
}

impl Hub {
    /// A hub without ports.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn new() -> Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            ports: RwLock::default(),
            queue: Mutex::default(),
            filled: Condvar::new(),
        });
        let served = Arc::clone(&shared);
        thread::Builder::new()
            .name("nethub".to_owned())
            .spawn(move || serve(&served))
            .map_err(|source| Error::Host { action: "start a thread", source })?;
        Ok(Arc::new(Self { shared }))
    }

    /// A port for a card.
    #[must_use]
    pub fn port(self: &Arc<Self>) -> Arc<HubPort> {
        let number = self.shared.add(End::Open);
        Arc::new(HubPort { shared: Arc::clone(&self.shared), hub: Arc::clone(self), number })
    }

    /// Joins a back end to the hub.
    pub fn join(&self, backend: &Arc<dyn Backend>) {
        let number = self.shared.add(End::Open);
        let shared = Arc::downgrade(&self.shared);
        let card = Arc::new(Joined { shared, number });
        let weak: Weak<Joined> = Arc::downgrade(&card);
        self.shared.set(number, End::Backend(Arc::clone(backend), card));
        backend.attach(weak);
        backend.set_guest_offload(Capabilities::default());
    }
}

impl Shared {
    fn add(&self, end: End) -> usize {
        let mut queue = self.queue.lock();
        let number = queue.next_port;
        queue.next_port += 1;
        drop(queue);
        self.ports.write().push(Port { number, end });
        number
    }

    fn set(&self, number: usize, end: End) {
        if let Some(port) = self.ports.write().iter_mut().find(|port| port.number == number) {
            port.end = end;
        }
    }

    fn others(&self, number: usize) -> Vec<End> {
        let ports = self.ports.read();
        ports.iter().filter(|port| port.number != number).map(|port| port.end.clone()).collect()
    }

    /// Hands a frame to all other ports. `false`: there are some, and none has room.
    fn deliver(&self, from: usize, frame: &[u8]) -> bool {
        let (mut taken, mut refused) = (false, false);
        for end in self.others(from) {
            match end {
                End::Card(card) => {
                    let took = card.upgrade().map(|c| c.receive(frame, Offload::default()));
                    taken |= took == Some(true);
                    refused |= took == Some(false);
                }
                End::Backend(backend, _) => {
                    backend.transmit(frame, Offload::default());
                    taken = true;
                }
                End::Open => {}
            }
        }
        taken || !refused
    }
}

fn serve(shared: &Shared) {
    loop {
        let mut queue = shared.queue.lock();
        while queue.frames.is_empty() && !queue.stop {
            shared.filled.wait(&mut queue);
        }
        if queue.stop {
            return;
        }
        let frames = core::mem::take(&mut queue.frames);
        drop(queue);
        for (from, frame) in frames {
            // A card without room loses the frame, as on a wire.
            shared.deliver(from, &frame);
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shared.queue.lock().stop = true;
        self.shared.filled.notify_all();
        // Back ends hold their own threads, which may be about to call us: let go of them.
        let ports = core::mem::take(&mut *self.shared.ports.write());
        drop(ports);
    }
}

impl Card for Joined {
    fn receive(&self, frame: &[u8], _: Offload) -> bool {
        self.shared.upgrade().is_none_or(|shared| shared.deliver(self.number, frame))
    }

    fn set_link(&self, _: bool) {}
}

impl HubPort {
    /// The hub that the port belongs to.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }
}

impl Backend for HubPort {
    fn capabilities(&self) -> Capabilities {
        // Whoever is on the other ports need not understand more.
        Capabilities::default()
    }

    fn transmit(&self, frame: &[u8], _: Offload) {
        let mut queue = self.shared.queue.lock();
        if queue.frames.len() < WAITING_MAX {
            queue.frames.push_back((self.number, frame.to_vec()));
            drop(queue);
            self.shared.filled.notify_one();
        }
    }

    fn attach(&self, card: Weak<dyn Card>) {
        self.shared.set(self.number, End::Card(card));
    }

    fn set_guest_offload(&self, _: Capabilities) {}

    fn room(&self) {
        for end in self.shared.others(self.number) {
            if let End::Backend(backend, _) = end {
                backend.room();
            }
        }
    }

    fn link(&self) -> bool {
        true
    }

    fn info(&self) -> String {
        format!("type=hubport,port={}", self.number)
    }
}

impl Drop for HubPort {
    fn drop(&mut self) {
        self.shared.ports.write().retain(|port| port.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Ears {
        heard: Mutex<Vec<Vec<u8>>>,
        deaf: AtomicBool,
    }

    impl Card for Ears {
        fn receive(&self, frame: &[u8], _: Offload) -> bool {
            let deaf = self.deaf.load(Ordering::SeqCst);
            if !deaf {
                self.heard.lock().push(frame.to_vec());
            }
            !deaf
        }

        fn set_link(&self, _: bool) {}
    }

    /// A back end that remembers what it was given.
    #[derive(Default)]
    struct Mouth {
        card: Mutex<Option<Weak<dyn Card>>>,
        sent: Mutex<Vec<Vec<u8>>>,
        rooms: AtomicUsize,
    }

    impl Backend for Mouth {
        fn capabilities(&self) -> Capabilities {
            Capabilities::default()
        }
        fn transmit(&self, frame: &[u8], _: Offload) {
            self.sent.lock().push(frame.to_vec());
        }
        fn attach(&self, card: Weak<dyn Card>) {
            *self.card.lock() = Some(card);
        }
        fn set_guest_offload(&self, _: Capabilities) {}
        fn room(&self) {
            self.rooms.fetch_add(1, Ordering::SeqCst);
        }
        fn link(&self) -> bool {
            true
        }
        fn info(&self) -> String {
            String::new()
        }
    }

    fn wait(done: impl Fn() -> bool) {
        for _ in 0..1000 {
            if done() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("it did not come");
    }

    #[test]
    fn frames_go_to_all_others() {
        let hub = Hub::new().unwrap();
        let (first, second) = (hub.port(), hub.port());
        let (ears, others) = (Arc::new(Ears::default()), Arc::new(Ears::default()));
        let weak: (Weak<Ears>, Weak<Ears>) = (Arc::downgrade(&ears), Arc::downgrade(&others));
        first.attach(weak.0);
        second.attach(weak.1);
        let mouth = Arc::new(Mouth::default());
        let joined: Arc<dyn Backend> = Arc::clone(&mouth) as _;
        hub.join(&joined);
        first.transmit(b"one", Offload::default());
        wait(|| others.heard.lock().len() == 1 && mouth.sent.lock().len() == 1);
        assert!(ears.heard.lock().is_empty(), "not back to the sender");
        let card = mouth.card.lock().as_ref().and_then(Weak::upgrade).unwrap();
        assert!(card.receive(b"two", Offload::default()));
        assert_eq!((ears.heard.lock().len(), others.heard.lock().len()), (1, 2));
        ears.deaf.store(true, Ordering::SeqCst);
        assert!(card.receive(b"three", Offload::default()), "one of two has room");
        others.deaf.store(true, Ordering::SeqCst);
        assert!(!card.receive(b"four", Offload::default()));
        first.room();
        assert_eq!(mouth.rooms.load(Ordering::SeqCst), 1);
    }
}
