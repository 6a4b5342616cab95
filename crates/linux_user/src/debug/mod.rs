//! `-g`: the program under gdb. Threads run in parallel until one has something to tell; then all
//! stand still, at a gate in their run loop or in a system call, while gdb looks at them.

pub mod arm64;
pub mod riscv64;
mod server;
mod thread;
pub mod x86;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use gdb::{Action, Resume, Stop};
use jit::Kick;
use parking_lot::{Condvar, Mutex};

pub use server::listen;
pub use thread::Pace;

/// What the server's thread waits for.
pub enum Input {
    /// gdb sent this; nothing: it closed the connection.
    Bytes(Vec<u8>),
    /// The program stopped.
    Stop(Stop),
    /// The program ends, as soon as the answer was given.
    End(Stop, Sender<()>),
}

/// Why a thread does not move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Running,
    AtGate,
    InCall,
}

struct Entry {
    kick: Kick,
    place: Place,
    registers: Vec<u8>,
    /// What gdb wrote to them.
    written: Option<Vec<u8>>,
}

struct Books {
    threads: BTreeMap<u64, Entry>,
    stopped: bool,
    /// Counts resumptions.
    round: u64,
    resume: Resume,
    /// What was at the addresses of breakpoints.
    breakpoints: BTreeMap<u64, Vec<u8>>,
    /// What is watched: addresses, and the bytes last seen there.
    watched: BTreeMap<u64, Vec<u8>>,
    /// gdb is there.
    attached: bool,
}

/// What the threads and the server share.
pub struct Debugger {
    books: Mutex<Books>,
    /// A thread came to a standstill.
    arrived: Condvar,
    /// All go on.
    opened: Condvar,
    inputs: Mutex<Sender<Input>>,
}

/// How a thread goes on.
pub struct Go {
    action: Action,
    written: Option<Vec<u8>>,
    /// It stood still before.
    waited: bool,
    /// Something is watched, so that every instruction is looked at.
    watches: bool,
}

/// No standstill takes longer, unless a thread is lost in the kernel.
const STANDSTILL: Duration = Duration::from_secs(2);

impl Debugger {
    fn new() -> (Self, Receiver<Input>) {
        let (sender, receiver) = channel();
        let books = Books {
            threads: BTreeMap::new(),
            stopped: true,
            round: 0,
            resume: Resume { threads: Vec::new(), others: Action::Continue(None) },
            breakpoints: BTreeMap::new(),
            watched: BTreeMap::new(),
            attached: true,
        };
        let debugger = Self {
            books: Mutex::new(books),
            arrived: Condvar::new(),
            opened: Condvar::new(),
            inputs: Mutex::new(sender),
        };
        (debugger, receiver)
    }

    /// A thread's place in the run loop: waits while all stand still.
    fn gate(&self, thread: u64, registers: impl FnOnce() -> Vec<u8>) -> Go {
        let mut books = self.books.lock();
        let free = |books: &Books| {
            !books.attached || !books.stopped && books.resume.action(thread) != Action::Stay
        };
        let waited = !free(&books);
        if waited {
            if let Some(entry) = books.threads.get_mut(&thread) {
                (entry.place, entry.registers) = (Place::AtGate, registers());
            }
            self.arrived.notify_all();
            while !free(&books) {
                self.opened.wait(&mut books);
            }
        }
        let action = match books.attached {
            true => books.resume.action(thread),
            false => Action::Continue(None),
        };
        let entry = books.threads.get_mut(&thread);
        let written = entry.and_then(|entry| {
            entry.place = Place::Running;
            entry.written.take()
        });
        let watches = books.attached && !books.watched.is_empty();
        Go { action, written, waited, watches }
    }

    /// A thread has something to tell: all stand still, this one at its gate.
    fn stop(&self, thread: u64, stop: Stop, registers: Vec<u8>) -> Go {
        let mut books = self.books.lock();
        if !books.attached {
            return Go {
                action: Action::Continue(None),
                written: None,
                waited: false,
                watches: false,
            };
        }
        // Who comes second has only to wait; what it saw it will see again.
        if !books.stopped {
            books.stopped = true;
            books.kick_all(Some(thread));
            _ = self.inputs.lock().send(Input::Stop(stop));
        }
        drop(books);
        self.gate(thread, || registers)
    }

    /// The address of something watched that has changed.
    fn changed(&self) -> Option<u64> {
        let mut books = self.books.lock();
        let mut changed = None;
        for (&address, last) in &mut books.watched {
            let mut now = vec![0; last.len()];
            if crate::memory::read(address, &mut now).is_ok() && now != *last {
                *last = now;
                changed = changed.or(Some(address));
            }
        }
        changed
    }

    /// Makes all stand still, and waits for it.
    fn halt(&self) {
        let mut books = self.books.lock();
        if !books.stopped {
            books.stopped = true;
            books.kick_all(None);
        }
        while books.threads.values().any(|entry| entry.place == Place::Running) {
            if self.arrived.wait_for(&mut books, STANDSTILL).timed_out() {
                break;
            }
        }
    }

    fn resume(&self, resume: Resume) {
        let mut books = self.books.lock();
        (books.resume, books.stopped) = (resume, false);
        books.round += 1;
        self.opened.notify_all();
    }

    /// The program goes on alone.
    fn let_go(&self) {
        let mut books = self.books.lock();
        (books.attached, books.stopped) = (false, false);
        self.opened.notify_all();
    }

    /// Tells gdb of the end, and waits until it knows.
    fn end(&self, stop: Stop) {
        let attached = self.books.lock().attached;
        let (sender, receiver) = channel();
        if attached && self.inputs.lock().send(Input::End(stop, sender)).is_ok() {
            let _ = receiver.recv_timeout(STANDSTILL);
        }
    }
}

impl Books {
    fn kick_all(&self, but: Option<u64>) {
        for (thread, entry) in &self.threads {
            if Some(*thread) != but && entry.place == Place::Running {
                entry.kick.kick();
            }
        }
    }
}

/// gdb's numbers of signals, by Linux's number.
const GDB_SIGNALS: [u8; 32] = [
    0, 1, 2, 3, 4, 5, 6, 10, 8, 9, 30, 11, 31, 13, 14, 15, 0, 20, 19, 17, 18, 21, 22, 16, 24, 25,
    26, 27, 28, 23, 32, 12,
];

/// gdb's number of the first real-time signal that Linux counts as 33, and Linux's number.
const GDB_REALTIME: i32 = 45;
const REALTIME: i32 = 33;

/// gdb's number of a signal.
pub fn to_gdb(signal: i32) -> u8 {
    match GDB_SIGNALS.get(signal as usize) {
        Some(&number) => number,
        None if signal == 32 => 77,
        None => (signal - REALTIME + GDB_REALTIME) as u8,
    }
}

/// The signal of a number of gdb's; `None` for 0 and for what Linux does not have.
pub fn from_gdb(number: u8) -> Option<i32> {
    (1..=64).find(|&signal| to_gdb(signal) == number && number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_go_there_and_back() {
        for signal in (1..=64).filter(|&signal| signal != 16) {
            assert_eq!(from_gdb(to_gdb(signal)), Some(signal));
        }
        assert_eq!((to_gdb(libc::SIGSEGV), to_gdb(libc::SIGUSR1)), (11, 30));
        assert_eq!(from_gdb(0), None);
    }
}
