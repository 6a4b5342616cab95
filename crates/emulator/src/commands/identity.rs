//! Who we are: versions, names, boards, processor models.

use std::sync::Arc;

use qemu_compat::qmp::server::Refusal;
use qemu_compat::system::processors::{self as models, ProcessorError};
use serde_json::{Value, json};

use super::{Answer, Arguments, Command, plain, schema, text};
use crate::emulator::Emulator;
use crate::{PACKAGE, QEMU_VERSION, boards, processors};

pub const COMMANDS: &[Command] = &[
    plain("query-version", "{}", "VersionInfo", version),
    plain("query-commands", "{}", "[CommandInfo]", commands),
    plain("query-qmp-schema", "{}", "[any]", |_, _| Ok(schema().describe())),
    plain("query-name", "{}", "NameInfo", name),
    plain("query-uuid", "{}", "UuidInfo", uuid),
    plain("query-vm-generation-id", "{}", "GuidInfo", generation),
    plain("query-kvm", "{}", "KvmInfo", kvm),
    plain("query-target", "{}", "TargetInfo", |_, _| Ok(json!({"arch": "x86_64"}))),
    plain("query-machines", "{ compat-props?: bool }", "[MachineInfo]", machines),
    plain("query-current-machine", "{}", "CurrentMachineParams", |_, _| {
        Ok(json!({"wakeup-suspend-support": false}))
    }),
    plain("query-cpu-definitions", "{}", "[CpuDefinitionInfo]", processor_models),
    plain(
        "query-cpu-model-expansion",
        "{ type: CpuModelExpansionType, model: CpuModelInfo }",
        "CpuModelExpansionInfo",
        expansion,
    ),
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

fn generation(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let found = emulator.machine.with_parts(|parts| {
        let part = parts.iter().find(|part| part.model.name == "vmgenid")?;
        part.properties.text("guid").map(str::to_owned)
    });
    let none = || Refusal::new("VM Generation ID device not found");
    Ok(json!({"guid": found.ok_or_else(none)?}))
}

fn kvm(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    Ok(json!({"enabled": emulator.machine.is_on_kvm(), "present": true}))
}

fn machines(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let processor = format!("{}-x86_64-cpu", emulator.processors.offered.default_model());
    let machine = |(name, _, alias): (&str, String, Option<&str>)| {
        let mut entry = json!({"hotpluggable-cpus": false, "name": name,
            "numa-mem-supported": false, "default-cpu-type": processor,
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

fn processor_models(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let offered = &emulator.processors.offered;
    let entry = |name: &str, alias: Option<&str>| {
        let missing = offered.resolve(name, &[]).map(|model| offered.missing(&model.wanted));
        let missing = missing.unwrap_or_default();
        let missing = missing.into_iter().filter_map(models::feature_name);
        let missing: Vec<&str> = match (name, emulator.machine.is_on_kvm()) {
            ("host", false) => vec!["kvm"],
            _ => missing.collect(),
        };
        let mut entry = json!({"name": name, "typename": format!("{name}-x86_64-cpu"),
            "static": name == "base", "migration-safe": !processors::is_whole_host(name),
            "unavailable-features": missing, "deprecated": false});
        if let Some(alias) = alias {
            entry["alias-of"] = alias.into();
        }
        entry
    };
    let others = ["max", "host", "base"].map(|name| entry(name, None));
    let named = models::names().into_iter();
    let named = named.map(|model| entry(&model.name, model.alias_of.as_deref()));
    Ok(others.into_iter().chain(named).collect::<Vec<Value>>().into())
}

/// What a model with properties has: what is asked for, whether it is there or not.
fn expansion(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let model = arguments.get("model").unwrap_or(&Value::Null);
    let name = model.get("name").and_then(Value::as_str).unwrap_or_default();
    let mut properties = Vec::new();
    for (key, value) in model.get("props").and_then(Value::as_object).into_iter().flatten() {
        let value = match value {
            Value::Bool(on) => if *on { "on" } else { "off" }.to_owned(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.clone(),
            _ => return Err(Refusal::new(format!("Invalid parameter type for '{key}'"))),
        };
        properties.push((key.clone(), value));
    }
    let resolved = emulator.processors.offered.resolve(name, &properties);
    let resolved = resolved.map_err(|error| match error {
        ProcessorError::Unknown(name) => {
            Refusal::new(format!("The CPU type '{name}' is not a recognized CPU model"))
        }
        other => Refusal::new(other.to_string()),
    })?;
    let is_static = text(arguments, "type") == "static";
    let shown = if is_static { "base" } else { name };
    let props = processors::properties(&resolved.wanted);
    Ok(json!({"model": {"name": shown, "props": props}}))
}

fn memory(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    Ok(json!({"base-memory": emulator.options.board.ram_bytes, "plugged-memory": 0}))
}
