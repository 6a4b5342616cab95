//! Descriptors that clients pass.

use std::sync::Arc;

use qemu_compat::qmp::server::Refusal;
use serde_json::{Value, json};

use super::{Answer, Arguments, Caller, Command, Run, plain, text};
use crate::emulator::Emulator;

pub const COMMANDS: &[Command] = &[
    Command { name: "getfd", takes: "{ fdname: str }", gives: "", run: Run::Calling(get) },
    plain("closefd", "{ fdname: str }", "", close),
    Command {
        name: "add-fd",
        takes: "{ fdset-id?: int, opaque?: str }",
        gives: "AddfdInfo",
        run: Run::Calling(add),
    },
    plain("remove-fd", "{ fdset-id: int, fd?: int }", "", remove),
    plain("query-fdsets", "{}", "[FdsetInfo]", list),
];

fn get(emulator: &Arc<Emulator>, caller: &Caller<'_>, arguments: &Arguments) -> Answer {
    let name = text(arguments, "fdname");
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(Refusal::new("Parameter 'fdname' expects a name not starting with a digit"));
    }
    let descriptor = caller.stream.take_descriptors().into_iter().next();
    let none = || Refusal::new("No file descriptor supplied via SCM_RIGHTS");
    emulator.passed.put(name, descriptor.ok_or_else(none)?);
    Ok(json!({}))
}

fn close(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let name = text(arguments, "fdname");
    match emulator.passed.close(name) {
        true => Ok(json!({})),
        false => Err(Refusal::new(format!("File descriptor named '{name}' not found"))),
    }
}

fn add(emulator: &Arc<Emulator>, caller: &Caller<'_>, arguments: &Arguments) -> Answer {
    let set = arguments.get("fdset-id").map(|set| set.as_u64().ok_or_else(negative_set));
    let descriptor = caller.stream.take_descriptors().into_iter().next();
    let none = || Refusal::new("No file descriptor supplied via SCM_RIGHTS");
    let descriptor = descriptor.ok_or_else(none)?;
    let opaque = arguments.get("opaque").and_then(Value::as_str);
    let (set, number) = emulator.passed.add_to_set(set.transpose()?, descriptor, opaque);
    Ok(json!({"fdset-id": set, "fd": number}))
}

fn negative_set() -> Refusal {
    Refusal::new("Parameter 'fdset-id' expects a non-negative value")
}

fn remove(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let set = arguments.get("fdset-id").and_then(Value::as_u64).ok_or_else(negative_set)?;
    let number = arguments.get("fd").and_then(Value::as_i64);
    if emulator.passed.remove_from_set(set, number) {
        return Ok(json!({}));
    }
    let name = match number {
        Some(number) => format!("fdset-id:{set}, fd:{number}"),
        None => format!("fdset-id:{set}"),
    };
    Err(Refusal::new(format!("File descriptor named '{name}' not found")))
}

fn list(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let set = |(set, descriptors): (u64, Vec<(i32, Option<String>)>)| {
        let descriptor = |(number, opaque): (i32, Option<String>)| match opaque {
            Some(opaque) => json!({"fd": number, "opaque": opaque}),
            None => json!({"fd": number}),
        };
        let descriptors: Vec<Value> = descriptors.into_iter().map(descriptor).collect();
        json!({"fds": descriptors, "fdset-id": set})
    };
    Ok(emulator.passed.sets().into_iter().map(set).collect())
}
