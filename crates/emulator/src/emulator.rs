//! Everything a monitor may ask for, in one place.

use std::sync::Arc;

use machine::{Cause, MachineEvent, Request, Requests, RunControl, RunState};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::character::Characters;
use crate::descriptors::Passed;
use crate::monitor::Monitors;
use crate::options::Options;

/// The running emulator.
pub struct Emulator {
    /// What was asked for.
    pub options: Options,
    pub control: Arc<RunControl>,
    pub requests: Arc<Requests>,
    pub power_button: Arc<dyn Fn() + Send + Sync>,
    pub characters: Arc<Characters>,
    pub passed: Arc<Passed>,
    pub monitors: Monitors,
    /// A `quit` was answered: what follows is the end.
    pub quit_after_answer: Mutex<bool>,
}

impl Emulator {
    /// Ends the machine.
    pub fn quit(&self) {
        self.requests.put(Request::Quit(Cause::HostQuit));
    }

    /// The kernel's number of a vCPU's thread: threads are found by their names.
    pub fn thread_of_processor(&self, index: u32) -> u32 {
        let name = format!("CPU {index}/");
        let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
        let is_it = |task: &std::fs::DirEntry| {
            let path = task.path().join("comm");
            std::fs::read_to_string(path).is_ok_and(|comm| comm.starts_with(&name))
        };
        let task = tasks.flatten().find(is_it);
        task.and_then(|task| task.file_name().to_str()?.parse().ok()).unwrap_or(0)
    }

    /// The machine's state as QMP calls it.
    pub fn status(&self) -> &'static str {
        match self.control.state() {
            RunState::Prelaunch => "prelaunch",
            RunState::Running => "running",
            RunState::Paused => "paused",
            RunState::Shutdown => "shutdown",
            RunState::Inmigrate => "inmigrate",
            RunState::RestoreVm => "restore-vm",
            RunState::SaveVm => "save-vm",
            RunState::Postmigrate => "postmigrate",
            RunState::GuestPanicked => "guest-panicked",
            RunState::IoError => "io-error",
            RunState::Watchdog => "watchdog",
        }
    }

    /// Carries what happens to the machine to the monitors.
    pub fn watch(self: &Arc<Self>) {
        let emulator = Arc::downgrade(self);
        self.control.observe(Box::new(move |event| {
            if let Some(emulator) = emulator.upgrade() {
                emulator.announce(event);
            }
        }));
    }

    fn announce(&self, event: &MachineEvent) {
        let caused = |cause: Cause| json!({"guest": cause.is_guest(), "reason": reason(cause)});
        let (name, data) = match event {
            MachineEvent::Stopped => ("STOP", Value::Null),
            MachineEvent::Resumed => ("RESUME", Value::Null),
            MachineEvent::Reset(cause) => ("RESET", caused(*cause)),
            MachineEvent::Shutdown(cause) => ("SHUTDOWN", caused(*cause)),
            MachineEvent::PowerButton => ("POWERDOWN", Value::Null),
        };
        self.monitors.event(name, data);
    }
}

fn reason(cause: Cause) -> &'static str {
    match cause {
        Cause::HostQuit => "host-qmp-quit",
        Cause::HostReset => "host-qmp-system-reset",
        Cause::HostSignal => "host-signal",
        Cause::GuestShutdown => "guest-shutdown",
        Cause::GuestReset => "guest-reset",
        Cause::GuestPanic => "guest-panic",
    }
}
