//! Everything a monitor may ask for, in one place.

use std::sync::Arc;

use device::{DeviceEvent, EventSink, PropertyKind, PropertyValue};
use machine::surroundings::Backends;
use machine::{Cause, Machine, MachineEvent, PanicOutcome, Part, Request, RunState, catalog};
use parking_lot::Mutex;
use qemu_compat::system::character;
use serde_json::{Value, json};

use crate::blocks::Blocks;
use crate::character::Characters;
use crate::debugger::Debugger;
use crate::descriptors::Passed;
use crate::dump::Dump;
use crate::migration::Migration;
use crate::monitor::Monitors;
use crate::networks::Networks;
use crate::options::Options;
use crate::processors::Chosen;
use crate::screens::Vnc;
use crate::typist::Typist;

/// The name of gdb's character device.
const DEBUGGER: &str = "gdb";

/// The running emulator.
pub struct Emulator {
    /// What was asked for.
    pub options: Options,
    pub machine: Machine,
    /// What its processors are.
    pub processors: Chosen,
    pub backends: Arc<Backends>,
    pub blocks: Blocks,
    pub networks: Networks,
    pub characters: Arc<Characters>,
    pub passed: Arc<Passed>,
    pub monitors: Arc<Monitors>,
    pub vnc: Vnc,
    pub typist: Typist,
    /// Where gdb may come to.
    pub debugger: Mutex<Option<Arc<Debugger>>>,
    /// Moves of the machine's state.
    pub migration: Migration,
    pub dump: Dump,
    /// A `quit` was answered: what follows is the end.
    pub quit_after_answer: Mutex<bool>,
}

impl Emulator {
    /// Ends the machine.
    pub fn quit(&self) {
        self.machine.requests().put(Request::Quit(Cause::HostQuit));
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

    /// Waits for gdb at a place of QEMU's syntax, and nowhere else any more.
    pub fn listen_for_debugger(self: &Arc<Self>, place: &str) -> Result<(), String> {
        let old = self.debugger.lock().take();
        if old.is_some() {
            drop(old);
            _ = self.characters.remove(DEBUGGER);
        }
        if place == "none" {
            return Ok(());
        }
        if self.machine.translator().is_none() {
            return Err("gdbstub: debugging guests on KVM is not built in Hostel".to_owned());
        }
        let place = match place.strip_prefix("tcp:") {
            Some(_) => format!("{place},wait=off,nodelay=on,server=on"),
            None => place.to_owned(),
        };
        let short = character::parse_short(&place, DEBUGGER).map_err(|error| error.to_string())?;
        let stream = crate::start::stream(&self.characters, &short);
        let stream = stream.map_err(|error| format!("{error:#}"))?;
        let stream = stream.ok_or("gdbstub: a character device is needed")?;
        *self.debugger.lock() = Some(Debugger::start(self, stream));
        Ok(())
    }

    /// Whether a device of this name is plugged in.
    pub fn has_device(&self, id: &str) -> bool {
        self.machine.with_parts(|parts| parts.iter().any(|part| part.id == id))
    }

    /// The machine's state as QMP calls it.
    pub fn status(&self) -> &'static str {
        match self.machine.control().state() {
            RunState::Prelaunch => "prelaunch",
            RunState::Running => "running",
            RunState::Paused => "paused",
            RunState::Shutdown => "shutdown",
            RunState::GuestPanicked => "guest-panicked",
            RunState::IoError => "io-error",
            RunState::InternalError => "internal-error",
            RunState::Debug => "debug",
            RunState::InMigrate => "inmigrate",
            RunState::FinishMigrate => "finish-migrate",
            RunState::PostMigrate => "postmigrate",
            RunState::SaveVm => "save-vm",
            RunState::RestoreVm => "restore-vm",
        }
    }

    /// Carries what happens to the machine to the monitors.
    pub fn watch(self: &Arc<Self>) {
        let emulator = Arc::downgrade(self);
        self.machine.control().observe(Box::new(move |event| {
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
            MachineEvent::Panicked(outcome) => {
                let action = match outcome {
                    PanicOutcome::Paused => "pause",
                    PanicOutcome::PoweredOff => "poweroff",
                    PanicOutcome::Runs => "run",
                };
                ("GUEST_PANICKED", json!({"action": action}))
            }
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

/// Makes the streams that a part names available under names that it alone uses: several devices
/// may share one that is a mux.
pub fn connect_streams(
    part: &mut Part,
    characters: &Characters,
    backends: &Backends,
) -> Result<(), String> {
    let model = catalog::model(&part.model).ok_or("there is no such model")?;
    for declared in model.declared().filter(|property| property.kind == PropertyKind::Stream) {
        let Some(name) = part.properties.text(declared.name).map(str::to_owned) else { continue };
        let not_found =
            |_| format!("Property '{}.{}' can't find value '{name}'", model.name, declared.name);
        let stream = match characters.contains(&name) {
            true => characters.use_by_device(&name).map_err(|error| error.to_string())?,
            false => characters.use_by_device(&name).map_err(not_found)?,
        };
        let alone = (0..)
            .map(|number| if number == 0 { name.clone() } else { format!("{name}#{number}") })
            .find(|alias| backends.streams.insert(alias, Arc::clone(&stream)));
        part.properties.set(declared.name, PropertyValue::Text(alone.unwrap_or_default()));
    }
    Ok(())
}

/// Gives streams free that were used by devices which are gone.
pub fn free_streams(backends: &Backends) {
    for name in backends.streams.names() {
        if backends.streams.user(&name).is_none() {
            backends.streams.remove(&name);
        }
    }
}

/// Carries what devices tell to the monitors.
pub struct DeviceEvents(pub Arc<Monitors>);

impl EventSink for DeviceEvents {
    fn event(&self, id: &str, event: DeviceEvent) {
        let path = || format!("/machine/peripheral/{id}");
        let (name, data) = match event {
            DeviceEvent::BalloonChanged { bytes } => ("BALLOON_CHANGE", json!({"actual": bytes})),
            DeviceEvent::TrayMoved { open } => {
                ("DEVICE_TRAY_MOVED", json!({"device": "", "tray-open": open, "id": id}))
            }
            DeviceEvent::IoError { write, no_space, stops, reason } => (
                "BLOCK_IO_ERROR",
                json!({"device": "", "qom-path": path(), "nospace": no_space,
                    "operation": if write { "write" } else { "read" },
                    "action": if stops { "stop" } else { "report" }, "reason": reason}),
            ),
            DeviceEvent::ReceiveFilterChanged => {
                ("NIC_RX_FILTER_CHANGED", json!({"name": id, "path": path()}))
            }
            DeviceEvent::PortChanged { open } => {
                ("VSERPORT_CHANGE", json!({"open": open, "id": id}))
            }
            DeviceEvent::ClockChanged { offset } => {
                ("RTC_CHANGE", json!({"offset": offset, "qom-path": "/machine/rtc"}))
            }
            // The machine tells what it does about it.
            DeviceEvent::Panicked => return,
            DeviceEvent::CrashLoaded => ("GUEST_CRASHLOADED", json!({"action": "run"})),
            DeviceEvent::Unplugged => ("DEVICE_DELETED", json!({"device": id, "path": path()})),
            DeviceEvent::UnplugRefused => {
                ("DEVICE_UNPLUG_GUEST_ERROR", json!({"device": id, "path": path()}))
            }
        };
        self.0.event(name, data);
    }
}
