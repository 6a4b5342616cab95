//! `-gdb` and `gdbserver`: the machine under gdb. All vCPUs stand while it looks.

mod registers;
mod target;

use std::sync::{Arc, Weak};

use device::{Stream, StreamEvent, StreamPeer};
use gdb::{Description, Session, Stop, ThreadId};
use machine::{Cause, MachineEvent, Request, RunState};
use parking_lot::Mutex;

use crate::emulator::Emulator;
use crate::monitor::Output;
use target::{After, Machine, Set};

/// What a conversation begins with.
const FIRST_THREAD: ThreadId = 1;
const ROOM_BYTES: usize = 16 << 10;

/// The conversation with gdb, if there is one.
///
/// Lock order: `conversation` is held while a vCPU is looked at, and never while the machine is
/// started or stopped, which tells [`Debugger::stopped`].
pub struct Debugger {
    emulator: Weak<Emulator>,
    output: Output,
    description: Description,
    conversation: Mutex<Option<Conversation>>,
}

struct Conversation {
    session: Session,
    set: Set,
}

impl Debugger {
    /// Waits for gdb on a stream.
    pub fn start(emulator: &Arc<Emulator>, stream: Arc<dyn Stream>) -> Arc<Self> {
        let debugger = Arc::new(Self {
            emulator: Arc::downgrade(emulator),
            output: Output::new(stream),
            description: registers::description(),
            conversation: Mutex::default(),
        });
        let observer = Arc::downgrade(&debugger);
        emulator.machine.control().observe(Box::new(move |event| {
            if let (Some(debugger), MachineEvent::Stopped) = (observer.upgrade(), event) {
                debugger.stopped();
            }
        }));
        let peer: Weak<Self> = Arc::downgrade(&debugger);
        debugger.output.stream().attach(peer);
        debugger
    }

    /// The machine stands: gdb is told, if it waits for that.
    fn stopped(&self) {
        let Some(emulator) = self.emulator.upgrade() else { return };
        let cause = emulator.machine.take_debug_stop();
        let mut conversation = self.conversation.lock();
        let Some(Conversation { session, set }) = &mut *conversation else { return };
        let stop = match cause {
            Some((number, stop)) => set.stop(number, stop),
            None => Stop::interrupted(FIRST_THREAD),
        };
        let bytes = session.stopped(stop);
        self.output.say(&bytes, false);
    }

    /// The machine is at its end.
    pub fn end(&self, code: u8) {
        if let Some(Conversation { session, .. }) = &mut *self.conversation.lock() {
            let bytes = session.stopped(Stop::Exited(code));
            self.output.say(&bytes, false);
        }
    }

    /// gdb has come: everything stands still.
    fn opened(&self, emulator: &Emulator) {
        let control = emulator.machine.control();
        if control.state() == RunState::Running {
            control.stop(RunState::Paused);
        }
        _ = emulator.machine.take_debug_stop();
        let conversation = Conversation { session: Session::new(FIRST_THREAD), set: Set::new() };
        *self.conversation.lock() = Some(conversation);
    }

    fn feed(&self, emulator: &Arc<Emulator>, bytes: &[u8]) -> After {
        let mut after = After::Nothing;
        let mut conversation = self.conversation.lock();
        let Some(Conversation { session, set }) = &mut *conversation else { return after };
        let current = session.current();
        let mut machine =
            Machine { emulator, description: &self.description, set, after: &mut after, current };
        let answer = session.feed(bytes, &mut machine);
        let over = session.is_over();
        self.output.say(&answer, false);
        if over {
            *conversation = None;
        }
        after
    }
}

impl StreamPeer for Debugger {
    fn room(&self) -> usize {
        ROOM_BYTES
    }

    fn receive(&self, bytes: &[u8]) {
        let Some(emulator) = self.emulator.upgrade() else { return };
        let control = emulator.machine.control();
        match self.feed(&emulator, bytes) {
            After::Nothing => {}
            After::Resume(resume) => {
                _ = emulator.machine.take_debug_stop();
                control.resume_paced(|number| target::pace(&resume, number));
            }
            After::Interrupt => _ = control.stop(RunState::Paused),
            After::Kill => {
                eprintln!("{}: QEMU: Terminated via GDBstub", crate::PROGRAM);
                emulator.machine.requests().put(Request::Quit(Cause::HostQuit));
            }
        }
    }

    fn event(&self, event: StreamEvent) {
        let Some(emulator) = self.emulator.upgrade() else { return };
        match event {
            StreamEvent::Opened => self.opened(&emulator),
            StreamEvent::Closed => {
                self.output.forget();
                let gone = self.conversation.lock().take();
                if let Some(mut conversation) = gone {
                    // As QEMU does: the machine stands, but nothing of gdb's is left in it.
                    emulator.machine.control().while_stopped(|| conversation.set.clear(&emulator));
                }
            }
            StreamEvent::Break => {}
        }
    }

    fn writable(&self) {
        self.output.writable();
    }
}
