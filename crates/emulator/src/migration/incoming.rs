//! A state comes: the machine waits for it, and goes on where it was.

use std::io::BufReader;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use machine::{Request, RunState};

use super::channel::{Address, Waiting};
use super::{State, Status, about_state};
use crate::emulator::Emulator;

/// What is read at once.
const BUFFER_BYTES: usize = 1 << 20;

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// Somebody will say where it comes from.
    deferred: bool,
    /// The guest goes on by itself afterwards.
    goes_on: bool,
}

impl Emulator {
    /// `-incoming`: waits for a state.
    pub fn expect(self: &Arc<Self>, uri: &str, goes_on: bool) -> Result<(), String> {
        self.machine.control().stop(RunState::InMigrate);
        if uri == "defer" {
            *self.migration.incoming.lock() = Some(Incoming { deferred: true, goes_on });
            return Ok(());
        }
        self.receive(&Address::parse(uri)?, goes_on)
    }

    /// `migrate-incoming`: where the state comes from.
    pub fn expect_now(self: &Arc<Self>, uri: &str) -> Result<(), String> {
        let address = Address::parse(uri)?;
        let expected = *self.migration.incoming.lock();
        match expected {
            None => Err("'-incoming' was not specified on the command line".to_owned()),
            Some(Incoming { deferred: false, .. }) => {
                Err("The incoming migration has already been started".to_owned())
            }
            Some(Incoming { goes_on, .. }) => self.receive(&address, goes_on),
        }
    }

    /// Whether a guest whose state comes is to go on by itself: `cont` and `stop` before it is there.
    pub fn set_goes_on(&self, goes: bool) -> bool {
        match &mut *self.migration.incoming.lock() {
            Some(incoming) => incoming.goes_on = goes,
            None => return false,
        }
        true
    }

    fn receive(self: &Arc<Self>, address: &Address, goes_on: bool) -> Result<(), String> {
        // Whoever is told that this has begun may send.
        let waiting = address.listen(&*self.passed).map_err(|error| error.to_string())?;
        *self.migration.incoming.lock() = Some(Incoming { deferred: false, goes_on });
        {
            let mut state = self.migration.state.lock();
            *state = State { begun: Some(Instant::now()), ..State::default() };
        }
        self.enter(Status::Setup, None);
        let emulator = Arc::clone(self);
        let thread = thread::Builder::new().name("migration".to_owned());
        let begun = thread.spawn(move || match emulator.load_from(waiting) {
            Ok(runs) => emulator.arrived(runs),
            Err(text) => emulator.failed_to_arrive(text),
        });
        begun.map(|_| ()).map_err(|error| format!("Cannot start a thread: {error}"))
    }

    fn load_from(&self, waiting: Waiting) -> Result<bool, String> {
        let source = waiting.accept().map_err(|error| error.to_string())?;
        self.enter(Status::Active, None);
        let mut source = BufReader::with_capacity(BUFFER_BYTES, source);
        self.machine.load(&mut source).map_err(|error| about_state(&error))
    }

    /// `runs`: the guest ran when its state was saved.
    fn arrived(&self, runs: bool) {
        let expected = self.migration.incoming.lock().take();
        let goes_on = expected.is_some_and(|expected| expected.goes_on);
        self.enter(Status::Completed, None);
        let control = self.machine.control();
        control.stop(RunState::Paused);
        if goes_on && runs {
            control.resume();
        }
    }

    /// Nobody can do anything with the process, as with QEMU's.
    fn failed_to_arrive(&self, text: String) {
        eprintln!("{}: load of migration failed: {text}", crate::PROGRAM);
        self.enter(Status::Failed, Some(text));
        self.machine.requests().put(Request::Exit(1));
    }
}
