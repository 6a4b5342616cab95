//! What a monitor has said and its client has not taken yet.

use std::collections::VecDeque;
use std::sync::Arc;

use device::Stream;
use parking_lot::Mutex;

/// A client that takes nothing loses events beyond this.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// Output in its order.
pub struct Output {
    stream: Arc<dyn Stream>,
    waiting: Mutex<VecDeque<u8>>,
}

impl Output {
    pub fn new(stream: Arc<dyn Stream>) -> Self {
        Self { stream, waiting: Mutex::default() }
    }

    pub fn stream(&self) -> &Arc<dyn Stream> {
        &self.stream
    }

    /// Says something; `droppable` is lost when too much waits already.
    pub fn say(&self, bytes: &[u8], droppable: bool) {
        let mut waiting = self.waiting.lock();
        if droppable && waiting.len() > WAITING_BYTES_MAX {
            return;
        }
        waiting.extend(bytes);
        self.drain(&mut waiting);
    }

    /// The client takes more.
    pub fn writable(&self) {
        self.drain(&mut self.waiting.lock());
    }

    /// The client has gone.
    pub fn forget(&self) {
        self.waiting.lock().clear();
    }

    fn drain(&self, waiting: &mut VecDeque<u8>) {
        loop {
            let (bytes, _) = waiting.as_slices();
            if bytes.is_empty() {
                return;
            }
            match self.stream.write(bytes) {
                0 => return,
                count => drop(waiting.drain(..count)),
            }
        }
    }
}
