//! The threads that serve a disk's requests.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Disk;
use super::request::Outcome;
use crate::virtio::device::Driver;
use crate::virtio::{Chain, Queue};

/// More requests at a time than this only queue up in the host.
const THREADS_MAX: usize = 4;

/// The threads of one disk. They come as requests do, and stay until the disk goes.
///
/// Lock order: `state`, then a queue.
pub(super) struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Arc<Disk>,
    state: Mutex<State>,
    /// There is something to do.
    work: Condvar,
    /// A request is done.
    done: Condvar,
}

struct State {
    driver: Option<Driver>,
    /// Queues that may have requests.
    pending: Vec<Arc<Queue>>,
    /// Requests to be tried again when the machine goes on.
    held: Vec<(Arc<Queue>, Chain)>,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
    busy: usize,
    running: bool,
    quits: bool,
}

impl Workers {
    pub fn new(disk: &Arc<Disk>) -> Self {
        let state = State {
            driver: None,
            pending: Vec::new(),
            held: Vec::new(),
            threads: Vec::new(),
            idle: 0,
            busy: 0,
            running: true,
            quits: false,
        };
        let shared = Shared {
            disk: Arc::clone(disk),
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub fn start(&self, driver: Driver) {
        let mut state = self.shared.state.lock();
        // A driver may have filled its queues before it said that it was ready.
        state.pending = driver.queues.iter().flatten().cloned().collect();
        state.driver = Some(driver);
        self.shared.call(&mut state);
    }

    /// Lets go of everything; when this returns nothing is in flight.
    pub fn stop(&self) {
        let mut state = self.shared.state.lock();
        state.driver = None;
        state.pending.clear();
        state.held.clear();
        while state.busy > 0 {
            self.shared.done.wait(&mut state);
        }
        state.held.clear();
    }

    pub fn notify(&self, index: u16) {
        let mut state = self.shared.state.lock();
        let queue = state.driver.as_ref().and_then(|driver| driver.queue(index).cloned());
        let Some(queue) = queue else { return };
        if !state.pending.iter().any(|other| Arc::ptr_eq(other, &queue)) {
            state.pending.push(queue);
        }
        self.shared.call(&mut state);
    }

    pub fn set_running(&self, running: bool) {
        let mut state = self.shared.state.lock();
        state.running = running;
        if running {
            self.shared.call(&mut state);
        } else {
            while state.busy > 0 {
                self.shared.done.wait(&mut state);
            }
        }
    }

    /// What driver and device agreed on, while the device works.
    pub fn features(&self) -> Option<u64> {
        self.shared.state.lock().driver.as_ref().map(|driver| driver.features)
    }

    pub fn config_changed(&self) {
        let events =
            self.shared.state.lock().driver.as_ref().map(|driver| Arc::clone(&driver.events));
        if let Some(events) = events {
            events.config_changed();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
        let threads = {
            let mut state = self.shared.state.lock();
            state.quits = true;
            std::mem::take(&mut state.threads)
        };
        self.shared.work.notify_all();
        for thread in threads {
            // So that the image is closed when this returns. One that panicked has said so itself.
            _ = thread.join();
        }
    }
}

impl Shared {
    /// Gets a thread for work that has come: a sleeping one, or a new one.
    fn call(self: &Arc<Self>, state: &mut State) {
        if !state.running || (state.pending.is_empty() && state.held.is_empty()) {
            return;
        }
        if state.idle > 0 {
            self.work.notify_one();
        } else if state.threads.len() < THREADS_MAX {
            let shared = Arc::clone(self);
            let thread = thread::Builder::new().name("virtio-blk".to_owned());
            // Without a thread the request waits for another; the first one is asked for again
            // with the next notification.
            state.threads.extend(thread.spawn(move || shared.run()));
        }
    }

    fn run(self: Arc<Self>) {
        let mut buffer = Vec::new();
        let mut state = self.state.lock();
        while !state.quits {
            match Self::next(&mut state) {
                Some((queue, chain)) => {
                    state.busy += 1;
                    // What is left is for somebody else, while this thread is at the disk.
                    self.call(&mut state);
                    self.serve(&mut state, &queue, chain, &mut buffer);
                    state.busy -= 1;
                    self.done.notify_all();
                }
                None => {
                    state.idle += 1;
                    self.work.wait(&mut state);
                    state.idle -= 1;
                }
            }
        }
    }

    fn next(state: &mut State) -> Option<(Arc<Queue>, Chain)> {
        if !state.running {
            return None;
        }
        if let Some(held) = state.held.pop() {
            return Some(held);
        }
        while let Some(queue) = state.pending.first() {
            if let Some(chain) = queue.pop() {
                let queue = Arc::clone(queue);
                // Queues take turns.
                state.pending.rotate_left(1);
                return Some((queue, chain));
            }
            state.pending.remove(0);
        }
        None
    }

    fn serve(
        &self,
        state: &mut MutexGuard<'_, State>,
        queue: &Arc<Queue>,
        chain: Chain,
        buffer: &mut Vec<u8>,
    ) {
        let held = MutexGuard::unlocked(state, || match self.disk.serve(&chain, buffer) {
            Outcome::Done(written) => {
                queue.push(chain, written);
                None
            }
            Outcome::Nonsense => {
                queue.break_device();
                None
            }
            Outcome::Held => Some(chain),
        });
        if let Some(chain) = held {
            // The machine is about to stop; until then nothing else is begun.
            state.running = false;
            state.held.push((Arc::clone(queue), chain));
        }
    }
}
