//! A thread's side.

use gdb::{Action, Stop, WatchKind};

use super::{Entry, Go, Place, from_gdb, to_gdb};
use crate::guest::{Exception, Guest};
use crate::host;
use crate::thread::{Thread, info};

/// How a thread goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// Freely.
    Run,
    /// One instruction.
    Step,
    /// Instruction by instruction, for something is watched.
    Watch,
}

fn own_id() -> u64 {
    host::plain(libc::SYS_gettid, [0; 6]).unwrap_or(1)
}

impl<G: Guest> Thread<G> {
    fn registers(&self) -> Vec<u8> {
        G::debug_registers(&self.vcpu)
    }

    /// The thread exists from now on.
    pub fn enter_debugger(&self) {
        if let Some(debugger) = &self.process.debugger {
            let entry = Entry {
                kick: self.vcpu.kicker(),
                place: Place::Running,
                registers: self.registers(),
                written: None,
            };
            debugger.books.lock().threads.insert(own_id(), entry);
        }
    }

    /// It does not exist any more.
    pub fn leave_debugger(&self) {
        if let Some(debugger) = &self.process.debugger {
            debugger.books.lock().threads.remove(&own_id());
            debugger.arrived.notify_all();
        }
    }

    /// Waits while all stand still; how the thread goes on.
    pub fn pass_gate(&mut self) -> Pace {
        let Some(debugger) = self.process.debugger.clone() else { return Pace::Run };
        let go = debugger.gate(own_id(), || self.registers());
        self.follow(&go);
        if let (true, Action::Continue(Some(signal)) | Action::Step(Some(signal))) =
            (go.waited, go.action)
            && let Some(signal) = from_gdb(signal)
        {
            self.enter_handler(signal, info(signal, 0, 0), Exception::default());
        }
        match go.action {
            Action::Step(_) => Pace::Step,
            _ if go.watches => Pace::Watch,
            _ => Pace::Run,
        }
    }

    fn follow(&mut self, go: &Go) {
        if let Some(values) = &go.written {
            G::set_debug_registers(&mut self.vcpu, values);
        }
    }

    /// Tells of something, and waits.
    fn tell(&mut self, stop: impl FnOnce(u64) -> Stop) -> Option<Action> {
        let debugger = self.process.debugger.clone()?;
        let own = own_id();
        let go = debugger.stop(own, stop(own), self.registers());
        self.follow(&go);
        Some(go.action)
    }

    /// An instruction is done.
    pub fn tell_step(&mut self, pace: Pace) {
        let debugger = self.process.debugger.as_ref();
        match (debugger.and_then(|debugger| debugger.changed()), pace) {
            (Some(address), _) => _ = self.tell(|own| Stop::Watch(own, address, WatchKind::Write)),
            (None, Pace::Step) => _ = self.tell(Stop::Stepped),
            (None, _) => {}
        }
    }

    /// Whether the breakpoint instruction just executed is gdb's: then pc is at it, and gdb knows.
    pub fn at_breakpoint(&mut self) -> bool {
        let Some(debugger) = self.process.debugger.clone() else { return false };
        let (pc, _) = G::position(self.vcpu.state());
        let place = {
            let books = debugger.books.lock();
            let known = |place: &u64| books.breakpoints.contains_key(place);
            let length = G::breakpoint(4).len() as u64;
            [pc, pc - length, pc - 2].into_iter().find(known)
        };
        let Some(place) = place else { return false };
        G::set_pc(self.vcpu.state_mut(), place);
        self.tell(Stop::Breakpoint);
        true
    }

    /// A signal came: gdb says which one the program gets, if any.
    pub fn ask_debugger(&mut self, signal: i32) -> Option<i32> {
        match self.tell(|own| Stop::Signal(own, to_gdb(signal))) {
            None => Some(signal),
            Some(Action::Continue(chosen) | Action::Step(chosen)) => match self.is_watched() {
                true => chosen.and_then(from_gdb),
                false => Some(signal),
            },
            Some(Action::Stay) => None,
        }
    }

    fn is_watched(&self) -> bool {
        self.process.debugger.as_ref().is_some_and(|debugger| debugger.books.lock().attached)
    }

    /// The thread goes into a system call, where it may wait, or comes back.
    pub fn note_call(&self, inside: bool) {
        let Some(debugger) = &self.process.debugger else { return };
        let mut books = debugger.books.lock();
        if let Some(entry) = books.threads.get_mut(&own_id()) {
            entry.place = if inside { Place::InCall } else { Place::Running };
            if inside {
                entry.registers = self.registers();
                debugger.arrived.notify_all();
            }
        }
    }

    /// The program ends.
    pub fn tell_end(&self, stop: Stop) {
        if let Some(debugger) = &self.process.debugger {
            debugger.end(stop);
        }
    }

    /// In the child of a fork: gdb stays with the parent, and no breakpoint of its is left.
    pub fn forget_debugger(&self) {
        if let Some(debugger) = &self.process.debugger
            && let Some(mut books) = debugger.books.try_lock()
        {
            books.attached = false;
            for (address, original) in std::mem::take(&mut books.breakpoints) {
                super::server::poke(address, &original);
                self.process.engine.invalidate(address, address + original.len() as u64);
            }
        }
    }
}
