//! Types keys for the monitor: each is held for a while, in a thread of its own, in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use machine::{InputEvent, Inputs};
use parking_lot::Mutex;

/// Strokes that wait; a program that sends more has to wait itself.
const WAITING_MAX: usize = 1024;

/// Keys that are pressed together.
struct Stroke {
    keys: Vec<u16>,
    hold: Duration,
}

/// What waits to be typed.
#[derive(Default)]
pub struct Typist(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    strokes: VecDeque<Stroke>,
    is_typing: bool,
}

impl Typist {
    /// Presses the keys in their order and lets them go after a while.
    pub fn press(&self, inputs: Arc<Inputs>, keys: Vec<u16>, hold: Duration) -> Result<(), String> {
        let mut queue = self.0.lock();
        if queue.strokes.len() >= WAITING_MAX {
            return Err("too many keys are waiting to be sent".to_owned());
        }
        queue.strokes.push_back(Stroke { keys, hold });
        if queue.is_typing {
            return Ok(());
        }
        let shared = Arc::clone(&self.0);
        let started = thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || type_all(&shared, &inputs));
        queue.is_typing = started.is_ok();
        started.map(drop).map_err(|error| error.to_string())
    }
}

fn type_all(queue: &Mutex<Queue>, inputs: &Inputs) {
    loop {
        let next = {
            let mut queue = queue.lock();
            let next = queue.strokes.pop_front();
            queue.is_typing = next.is_some();
            next
        };
        let Some(Stroke { keys, hold }) = next else { return };
        let event = |down: bool| move |code: &u16| InputEvent::Key { code: *code, down };
        keys.iter().map(event(true)).for_each(|event| inputs.send(&[event]));
        thread::sleep(hold);
        keys.iter().rev().map(event(false)).for_each(|event| inputs.send(&[event]));
    }
}
