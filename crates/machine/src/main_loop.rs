//! The main loop's inbox: what others ask of the machine.

use std::sync::Arc;
use std::time::Duration;

use device::{DeviceEvent, EventSink, Power};
use parking_lot::{Condvar, Mutex};

use crate::run_state::Cause;

/// What is asked of the machine, by the guest or from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Into the state after power-on, then on.
    Reset(Cause),
    /// The guest has switched the power off.
    PowerOff,
    /// A device wants the guest to stand still.
    Stop,
    /// The accelerator cannot go on with the guest.
    Fail,
    /// A vCPU has stopped for the debugger.
    Debug,
    /// The guest's kernel has panicked.
    Panicked,
    /// End, with an exit code of the guest's choice (a debug port).
    Exit(u8),
    /// End: somebody outside wants it.
    Quit(Cause),
}

/// How the machine ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// By power-off, or by a reset where those end the machine.
    Shutdown,
    /// With an exit code of the guest's choice.
    Exit(u8),
    /// From outside.
    Quit,
}

/// The inbox. Any thread may put requests in; the main loop takes them out.
#[derive(Default)]
pub struct Requests {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pending: Vec<Request>,
    /// A timer has moved nearer: compute the sleep anew.
    woken: bool,
}

impl Requests {
    /// An empty inbox.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Asks for something. What is already asked for is not asked for twice: a guest that repeats
    /// itself fills no memory.
    pub fn put(&self, request: Request) {
        let mut state = self.state.lock();
        if !state.pending.contains(&request) {
            state.pending.push(request);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Ends the main loop's sleep.
    pub fn wake(&self) {
        self.state.lock().woken = true;
        self.changed.notify_one();
    }

    /// Sleeps until there is something, at most so long.
    pub(crate) fn wait(&self, at_most: Option<Duration>) -> Vec<Request> {
        let mut state = self.state.lock();
        if state.pending.is_empty() && !state.woken {
            match at_most {
                Some(time) => _ = self.changed.wait_for(&mut state, time),
                None => self.changed.wait(&mut state),
            }
        }
        state.woken = false;
        std::mem::take(&mut state.pending)
    }
}

/// Hears what devices tell before the outside does: some of it is for the machine.
pub struct GuestEvents {
    pub requests: Arc<Requests>,
    pub outside: Arc<dyn EventSink>,
}

impl EventSink for GuestEvents {
    fn event(&self, id: &str, event: DeviceEvent) {
        match event {
            DeviceEvent::Panicked => self.requests.put(Request::Panicked),
            other => self.outside.event(id, other),
        }
    }
}

impl Power for Requests {
    fn reset(&self) {
        self.put(Request::Reset(Cause::GuestReset));
    }

    fn off(&self) {
        self.put(Request::PowerOff);
    }

    fn exit(&self, code: u8) {
        self.put(Request::Exit(code));
    }

    fn stop(&self) {
        self.put(Request::Stop);
    }

    fn unplugged(&self) {
        self.wake();
    }
}
