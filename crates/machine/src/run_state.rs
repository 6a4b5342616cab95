//! Whether the machine runs, who may change that, and who is told.

use std::sync::Arc;

use accel::{Pace, Processors};
use device::HostClock;
use parking_lot::Mutex;

use crate::main_loop::Requests;

/// What the machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Built, and never started.
    Prelaunch,
    /// Running.
    Running,
    /// Stopped from outside.
    Paused,
    /// Switched off by the guest, and kept.
    Shutdown,
    /// The guest has panicked.
    GuestPanicked,
    /// A disk failed, and the guest was stopped.
    IoError,
    /// The accelerator cannot go on with the guest.
    InternalError,
    /// A vCPU has stopped for the debugger.
    Debug,
    /// It waits for its state to come.
    InMigrate,
    /// The last of its state leaves.
    FinishMigrate,
    /// Its state has left; somebody else may have gone on with it.
    PostMigrate,
    /// Its state is saved into an image.
    SaveVm,
    /// Its state is loaded from an image.
    RestoreVm,
}

/// Why a machine resets or goes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A monitor's `quit`.
    HostQuit,
    /// A monitor's `system_reset`.
    HostReset,
    /// A signal.
    HostSignal,
    /// The guest went off.
    GuestShutdown,
    /// The guest reset.
    GuestReset,
    /// The guest panicked.
    GuestPanic,
}

impl Cause {
    /// The guest's own doing.
    #[must_use]
    pub fn is_guest(self) -> bool {
        matches!(self, Self::GuestShutdown | Self::GuestReset | Self::GuestPanic)
    }
}

/// Something happened to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineEvent {
    /// It stands still.
    Stopped,
    /// It goes on.
    Resumed,
    /// It was reset.
    Reset(Cause),
    /// It goes off.
    Shutdown(Cause),
    /// The power button was pressed.
    PowerButton,
    /// The guest's kernel has panicked, and this is done.
    Panicked(PanicOutcome),
}

/// Hears of events. Called from any thread but the vCPUs', without locks.
pub type Observer = Box<dyn Fn(&MachineEvent) + Send + Sync>;

/// Tells devices that the machine goes on, or stands still.
type SetRunning = Box<dyn Fn(bool) + Send + Sync>;

/// What is done when the guest does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actions {
    /// A guest that resets goes off instead.
    pub reset_is_shutdown: bool,
    /// A guest that goes off stays, paused.
    pub shutdown_pauses: bool,
    /// For a guest that says that it has panicked.
    pub panic: PanicAction,
}

/// What is done with a guest that says that it has panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanicAction {
    /// It stands still.
    Pause,
    /// It goes off, or stands still where those that go off stay.
    Shutdown,
    /// The machine ends, and says by its exit code that something was wrong.
    ExitFailure,
    /// It goes on.
    Nothing,
}

/// What was done with a guest that has panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanicOutcome {
    /// It stands still.
    Paused,
    /// It goes off.
    PoweredOff,
    /// It goes on.
    Runs,
}

impl Actions {
    /// What is done with a guest that has panicked.
    #[must_use]
    pub fn panic_outcome(self) -> PanicOutcome {
        match self.panic {
            PanicAction::Pause => PanicOutcome::Paused,
            PanicAction::Shutdown if self.shutdown_pauses => PanicOutcome::Paused,
            PanicAction::Shutdown | PanicAction::ExitFailure => PanicOutcome::PoweredOff,
            PanicAction::Nothing => PanicOutcome::Runs,
        }
    }
}

/// Starts and stops the machine. Every method may be called from any thread but a vCPU's.
///
/// Lock order: `change`, then `state`; observers are called with neither.
pub struct RunControl {
    processors: Arc<Processors>,
    clock: Arc<HostClock>,
    requests: Arc<Requests>,
    /// Tells the devices.
    set_running: SetRunning,
    /// One change at a time.
    change: Mutex<()>,
    state: Mutex<RunState>,
    actions: Mutex<Actions>,
    observers: Mutex<Vec<Arc<Observer>>>,
}

impl RunControl {
    /// A machine that was never started.
    pub(crate) fn new(
        processors: &Arc<Processors>,
        clock: &Arc<HostClock>,
        requests: &Arc<Requests>,
        set_running: SetRunning,
        actions: Actions,
    ) -> Arc<Self> {
        Arc::new(Self {
            processors: Arc::clone(processors),
            clock: Arc::clone(clock),
            requests: Arc::clone(requests),
            set_running,
            change: Mutex::default(),
            state: Mutex::new(RunState::Prelaunch),
            actions: Mutex::new(actions),
            observers: Mutex::default(),
        })
    }

    /// One more who hears of events.
    pub fn observe(&self, observer: Observer) {
        self.observers.lock().push(Arc::new(observer));
    }

    /// Tells everybody.
    pub fn tell(&self, event: &MachineEvent) {
        let observers = self.observers.lock().clone();
        observers.iter().for_each(|observer| observer(event));
    }

    /// What the machine is doing.
    pub fn state(&self) -> RunState {
        *self.state.lock()
    }

    /// What is done when the guest does something.
    pub fn actions(&self) -> Actions {
        *self.actions.lock()
    }

    /// Changes that.
    pub fn set_actions(&self, change: impl FnOnce(&mut Actions)) {
        change(&mut self.actions.lock());
    }

    /// Lets the guest run. Whether it stood still.
    pub fn resume(&self) -> bool {
        self.resume_paced(|_| Pace::Free)
    }

    /// Lets each vCPU run in its own way. Whether the guest stood still.
    pub fn resume_paced(&self, pace: impl Fn(usize) -> Pace) -> bool {
        let change = self.change.lock();
        if std::mem::replace(&mut *self.state.lock(), RunState::Running) == RunState::Running {
            return false;
        }
        self.clock.start();
        // Before the guest's first instruction, so that nothing it causes is told earlier.
        self.tell(&MachineEvent::Resumed);
        (self.set_running)(true);
        self.processors.resume_paced(pace);
        drop(change);
        self.requests.wake(); // timers count again
        true
    }

    /// Stops the guest for this reason. Whether it was running.
    pub fn stop(&self, reason: RunState) -> bool {
        let change = self.change.lock();
        let before = std::mem::replace(&mut *self.state.lock(), reason);
        if before != RunState::Running {
            return false;
        }
        self.processors.pause();
        self.clock.pause();
        (self.set_running)(false);
        drop(change);
        self.tell(&MachineEvent::Stopped);
        true
    }

    /// After a reset there is nothing left to be kept: a machine that went off may go on.
    pub(crate) fn forget_end(&self) {
        let mut state = self.state.lock();
        if matches!(*state, RunState::Shutdown | RunState::GuestPanicked | RunState::InternalError)
        {
            *state = RunState::Paused;
        }
    }

    /// Does something while no vCPU runs.
    pub fn while_stopped<T>(&self, action: impl FnOnce() -> T) -> T {
        let _change = self.change.lock();
        let running = self.state() == RunState::Running;
        self.processors.pause();
        let result = action();
        if running {
            self.processors.resume();
        }
        result
    }
}
