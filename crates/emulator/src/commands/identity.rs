//! Who we are: versions, names, boards, processor models.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Answer, Arguments, Command, plain, schema};
use crate::emulator::Emulator;
use crate::{PACKAGE, QEMU_VERSION, acceleration, boards, help};

pub const COMMANDS: &[Command] = &[
    plain("query-version", "{}", "VersionInfo", version),
    plain("query-commands", "{}", "[CommandInfo]", commands),
    plain("query-qmp-schema", "{}", "[any]", |_, _| Ok(schema().describe())),
    plain("query-name", "{}", "NameInfo", name),
    plain("query-uuid", "{}", "UuidInfo", uuid),
    plain("query-kvm", "{}", "KvmInfo", kvm),
    plain("query-target", "{}", "TargetInfo", |_, _| Ok(json!({"arch": "x86_64"}))),
    plain("query-machines", "{ compat-props?: bool }", "[MachineInfo]", machines),
    plain("query-current-machine", "{}", "CurrentMachineParams", |_, _| {
        Ok(json!({"wakeup-suspend-support": false}))
    }),
    plain("query-cpu-definitions", "{}", "[CpuDefinitionInfo]", processor_models),
    plain("query-memory-size-summary", "{}", "MemoryInfo", memory),
    plain("query-iothreads", "{}", "[IOThreadInfo]", |_, _| Ok(json!([]))),
];

fn version(_: &Arc<Emulator>, _: &Arguments) -> Answer {
    let (major, minor, micro) = QEMU_VERSION;
    let version = json!({"micro": micro, "minor": minor, "major": major});
    Ok(json!({"qemu": version, "package": PACKAGE}))
}

fn commands(_: &Arc<Emulator>, _: &Arguments) -> Answer {
    Ok(schema().commands().map(|name| json!({"name": name})).collect())
}

fn name(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    Ok(match &emulator.options.run.name {
        Some(name) => json!({"name": name}),
        None => json!({}),
    })
}

/// A UUID in its usual form.
pub fn uuid_text(uuid: [u8; 16]) -> String {
    let hex = |range: std::ops::Range<usize>| -> String {
        uuid[range].iter().map(|byte| format!("{byte:02x}")).collect()
    };
    format!("{}-{}-{}-{}-{}", hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16))
}

fn uuid(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    Ok(json!({"UUID": uuid_text(emulator.options.board.uuid.unwrap_or_default())}))
}

fn kvm(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    Ok(json!({"enabled": emulator.machine.is_on_kvm(), "present": true}))
}

fn machines(_: &Arc<Emulator>, _: &Arguments) -> Answer {
    let machine = |(name, _, alias): (&str, String, Option<&str>)| {
        let mut entry = json!({"hotpluggable-cpus": false, "name": name,
            "numa-mem-supported": false, "default-cpu-type": "qemu64-x86_64-cpu",
            "cpu-max": 254, "deprecated": false, "default-ram-id": "pc.ram", "acpi": true});
        if let Some(alias) = alias {
            entry["alias"] = alias.into();
        }
        if name == boards::DEFAULT {
            entry["is-default"] = true.into();
        }
        entry
    };
    Ok(boards::all().map(machine).collect())
}

fn processor_models(_: &Arc<Emulator>, _: &Arguments) -> Answer {
    let model = |(name, _): &(&str, &str)| {
        json!({"name": name, "typename": format!("{name}-x86_64-cpu"), "static": false,
            "migration-safe": !acceleration::is_whole_host(name), "unavailable-features": [], "deprecated": false})
    };
    Ok(help::PROCESSORS.iter().map(model).collect::<Vec<Value>>().into())
}

fn memory(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    Ok(json!({"base-memory": emulator.options.board.ram_bytes, "plugged-memory": 0}))
}
