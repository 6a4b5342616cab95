//! The thread that answers a guest's requests in turn, so that no vCPU waits for the host's disk.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::server::{MESSAGE_BYTES_MAX, Server};
use super::share::Share;
use super::spec;
use crate::virtio::{Chain, Queue};

/// A thread of one device. It comes with the first request and goes with the device.
pub struct Worker {
    shared: Arc<Shared>,
}

/// Lock order: `server`, then `state`, then a queue.
struct Shared {
    server: Mutex<Server>,
    state: Mutex<State>,
    /// There is something to do.
    work: Condvar,
    /// A request is done.
    done: Condvar,
}

struct State {
    queue: Option<Arc<Queue>>,
    thread: Option<JoinHandle<()>>,
    pending: bool,
    busy: bool,
    running: bool,
    quits: bool,
}

impl Worker {
    pub fn new(share: Arc<Share>) -> Self {
        let state = State {
            queue: None,
            thread: None,
            pending: false,
            busy: false,
            running: true,
            quits: false,
        };
        let shared = Shared {
            server: Mutex::new(Server::new(share)),
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub fn start(&self, queue: Option<Arc<Queue>>) {
        self.shared.state.lock().queue = queue;
        // A driver may have filled its queue before it said that it was ready.
        self.wake();
    }

    /// Forgets the conversation. When this returns nothing is in flight.
    pub fn stop(&self) {
        let mut state = self.shared.state.lock();
        (state.queue, state.pending) = (None, false);
        while state.busy {
            self.shared.done.wait(&mut state);
        }
        drop(state);
        self.shared.server.lock().reset();
    }

    pub fn wake(&self) {
        let mut state = self.shared.state.lock();
        state.pending = true;
        if state.thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name("virtio-9p".to_owned());
            // Without a thread the request waits; it is asked for again with the next one.
            state.thread = thread.spawn(move || shared.run()).ok();
        }
        self.shared.work.notify_one();
    }

    pub fn set_running(&self, running: bool) {
        let mut state = self.shared.state.lock();
        state.running = running;
        while !running && state.busy {
            self.shared.done.wait(&mut state);
        }
        self.shared.work.notify_one();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
        let thread = {
            let mut state = self.shared.state.lock();
            state.quits = true;
            state.thread.take()
        };
        self.shared.work.notify_one();
        if let Some(thread) = thread {
            // So that the share is closed when this returns.
            _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut request = Vec::new();
        let mut state = self.state.lock();
        while !state.quits {
            let queue = state.queue.clone().filter(|_| state.running && state.pending);
            let Some(queue) = queue else {
                self.work.wait(&mut state);
                continue;
            };
            let Some(chain) = queue.pop() else {
                state.pending = false;
                continue;
            };
            state.busy = true;
            parking_lot::MutexGuard::unlocked(&mut state, || {
                self.serve(&queue, chain, &mut request);
            });
            state.busy = false;
            self.done.notify_all();
        }
    }

    fn serve(&self, queue: &Queue, chain: Chain, request: &mut Vec<u8>) {
        let mut reader = chain.reader();
        let Some(length) = reader.array().map(u32::from_le_bytes) else {
            return queue.break_device();
        };
        let whole = spec::HEADER_BYTES as u64..=chain.readable_bytes();
        if !whole.contains(&u64::from(length)) || length > MESSAGE_BYTES_MAX {
            return queue.break_device();
        }
        request.clear();
        request.resize(length as usize, 0);
        chain.reader().read(request);
        let answer = self.server.lock().answer(request);
        if chain.writable_bytes() < answer.len() as u64 {
            // There is no place even to say so.
            return queue.break_device();
        }
        chain.writer().write(&answer);
        queue.push(chain, answer.len() as u64);
    }
}
