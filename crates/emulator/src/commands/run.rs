//! Starting, stopping, and the end.

use std::sync::Arc;

use machine::{Cause, Request, RunState};
use qemu_compat::qmp::server::Refusal;
use serde_json::{Value, json};

use super::{Answer, Arguments, Command, plain};
use crate::emulator::Emulator;
use crate::options::panic_action;

pub const COMMANDS: &[Command] = &[
    plain("query-status", "{}", "StatusInfo", status),
    plain("stop", "{}", "", stop),
    plain("cont", "{}", "", resume),
    plain("quit", "{}", "", quit),
    plain("system_reset", "{}", "", reset),
    plain("system_powerdown", "{}", "", power_down),
    plain(
        "set-action",
        "{ reboot?: RebootAction, shutdown?: ShutdownAction, panic?: PanicAction }",
        "",
        set_action,
    ),
    plain("inject-nmi", "{}", "", inject),
    plain("query-cpus-fast", "{}", "[CpuInfoFast]", processors),
    plain("query-hotpluggable-cpus", "{}", "[HotpluggableCPU]", slots),
];

fn status(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let running = emulator.machine.control().state() == RunState::Running;
    Ok(json!({"running": running, "status": emulator.status()}))
}

/// `stop`.
pub fn stop(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    if emulator.set_goes_on(false) {
        return Ok(json!({}));
    }
    emulator.machine.control().stop(RunState::Paused);
    Ok(json!({}))
}

/// `cont`.
pub fn resume(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    if emulator.set_goes_on(true) {
        return Ok(json!({}));
    }
    match emulator.machine.control().state() {
        RunState::FinishMigrate | RunState::SaveVm | RunState::RestoreVm => {
            Err(Refusal::new("The machine's state is on its way"))
        }
        RunState::Shutdown | RunState::InternalError => {
            Err(Refusal::new("Resetting the Virtual Machine is required"))
        }
        _ => {
            emulator.machine.control().resume();
            Ok(json!({}))
        }
    }
}

/// `quit`.
pub fn quit(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    *emulator.quit_after_answer.lock() = true;
    Ok(json!({}))
}

/// `system_reset`.
pub fn reset(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    emulator.machine.requests().put(Request::Reset(Cause::HostReset));
    Ok(json!({}))
}

/// `system_powerdown`.
pub fn power_down(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    emulator.machine.press_power_button();
    Ok(json!({}))
}

/// `inject-nmi`: all processors get a non-maskable interrupt.
pub fn inject(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    emulator.machine.processors().all().iter().for_each(|processor| processor.nmi());
    Ok(json!({}))
}

fn set_action(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    emulator.machine.control().set_actions(|actions| {
        if let Some(action) = arguments.get("reboot") {
            actions.reset_is_shutdown = action == "shutdown";
        }
        if let Some(action) = arguments.get("shutdown") {
            actions.shutdown_pauses = action == "pause";
        }
        let panic = arguments.get("panic").and_then(Value::as_str).and_then(panic_action);
        actions.panic = panic.unwrap_or(actions.panic);
    });
    Ok(json!({}))
}

fn processors(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let processor = |index: u32| {
        json!({"thread-id": emulator.thread_of_processor(index), "props": emulator.options.board.topology.place(index),
            "qom-path": format!("/machine/unattached/device[{index}]"), "cpu-index": index,
            "target": "x86_64"})
    };
    Ok((0..emulator.options.board.topology.count).map(processor).collect())
}

/// `query-hotpluggable-cpus`.
pub fn slots(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let topology = emulator.options.board.topology;
    let kind = emulator.processors.type_name();
    let slot = |index: u32| {
        let mut slot = json!({"props": topology.place(index), "vcpus-count": 1, "type": kind});
        if index < topology.count {
            slot["qom-path"] = format!("/machine/unattached/device[{index}]").into();
        }
        slot
    };
    // The last one comes first.
    Ok((0..topology.maximum).rev().map(slot).collect())
}
