//! Moving the machine's state: `migrate` and what belongs to it.

use std::fmt::Write;
use std::sync::Arc;

use qemu_compat::qmp::server::Refusal;
use serde_json::{Map, Value, json};

use super::{Answer, Arguments, Command, plain, refusal, text};
use crate::emulator::Emulator;
use crate::migration::Migration;

pub const COMMANDS: &[Command] = &[
    plain("migrate", "{ uri: str, detach?: bool, resume?: bool }", "", migrate),
    plain("migrate_cancel", "{}", "", cancel),
    plain("migrate-incoming", "{ uri: str, exit-on-error?: bool }", "", incoming),
    plain("query-migrate", "{}", "MigrationInfo", query),
    plain(
        "migrate-set-parameters",
        "{ max-bandwidth?: int, downtime-limit?: int }",
        "",
        set_parameters,
    ),
    plain("query-migrate-parameters", "{}", "MigrationParameters", parameters),
    plain(
        "migrate-set-capabilities",
        "{ capabilities: [MigrationCapabilityStatus] }",
        "",
        set_capabilities,
    ),
    plain("query-migrate-capabilities", "{}", "[MigrationCapabilityStatus]", capabilities),
];

fn migrate(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    if super::flag(arguments, "resume") {
        return Err(Refusal::new("Cannot resume if there is no paused migration"));
    }
    Migration::leave(emulator, text(arguments, "uri")).map_err(refusal)?;
    Ok(json!({}))
}

fn cancel(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    emulator.migration.cancel();
    Ok(json!({}))
}

fn incoming(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    if arguments.get("exit-on-error") == Some(&Value::Bool(false)) {
        return Err(Refusal::new("exit-on-error=false is not built in Hostel"));
    }
    emulator.expect_now(text(arguments, "uri")).map_err(refusal)?;
    Ok(json!({}))
}

fn query(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    Ok(emulator.migration.describe())
}

fn set_parameters(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let number = |name: &str, most: u64| match arguments.get(name) {
        None => Ok(None),
        Some(value) => match value.as_u64().filter(|number| *number <= most) {
            Some(number) => Ok(Some(number)),
            None => {
                let text =
                    format!("Parameter '{name}' expects an integer in the range of 0 to {most}");
                Err(Refusal::new(text))
            }
        },
    };
    let bandwidth = number("max-bandwidth", i64::MAX as u64)?;
    let downtime = number("downtime-limit", 2_000_000)?;
    emulator.migration.set_parameters(|parameters| {
        parameters.bandwidth = bandwidth.unwrap_or(parameters.bandwidth);
        parameters.downtime_ms = downtime.unwrap_or(parameters.downtime_ms);
    });
    Ok(json!({}))
}

fn parameters(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let parameters = emulator.migration.parameters();
    Ok(json!({"max-bandwidth": parameters.bandwidth, "downtime-limit": parameters.downtime_ms}))
}

fn set_capabilities(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let asked = arguments.get("capabilities").and_then(Value::as_array);
    for asked in asked.into_iter().flatten() {
        // The declaration admits the one that there is.
        emulator.migration.set_tells(asked["state"] == true);
    }
    Ok(json!({}))
}

fn capabilities(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    Ok(json!([{"capability": "events", "state": emulator.migration.tells()}]))
}

/// HMP's `migrate [-d] uri`: without `-d` it prints when all has gone.
pub fn migrate_line(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let (detached, uri) = match line.strip_prefix("-d ") {
        Some(uri) => (true, uri.trim()),
        None => (false, line),
    };
    Migration::leave(emulator, uri)?;
    while !detached && emulator.migration.status().is_live() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let told = emulator.migration.describe();
    match told["error-desc"].as_str() {
        Some(error) if !detached => Err(error.to_owned()),
        _ => Ok(String::new()),
    }
}

/// HMP's `migrate_incoming uri`.
pub fn incoming_line(emulator: &Arc<Emulator>, uri: &str) -> Result<String, String> {
    emulator.expect_now(uri).map(|()| String::new())
}

/// HMP's `migrate_set_parameter name value`.
pub fn set_parameter_line(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let value = value.trim();
    let number = match name {
        // As with QEMU, in MiB.
        "max-bandwidth" => qemu_compat::system::values::size(name, value, 20),
        "downtime-limit" => qemu_compat::system::values::size(name, value, 0),
        _ => return Err(format!("invalid parameter value: {name}")),
    };
    let mut arguments = Map::new();
    arguments.insert(name.to_owned(), number.map_err(|error| error.to_string())?.into());
    set_parameters(emulator, &arguments).map_err(|refusal| refusal.description)?;
    Ok(String::new())
}

/// HMP's `migrate_set_capability name state`.
pub fn set_capability_line(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let (name, state) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match (name, state.trim()) {
        ("events", "on" | "off") => emulator.migration.set_tells(state.trim() == "on"),
        ("events", other) => return Err(format!("invalid value '{other}'")),
        _ => return Err(format!("invalid parameter value: {name}")),
    }
    Ok(String::new())
}

/// HMP's `info migrate`.
pub fn info(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    let told = emulator.migration.describe();
    let Some(status) = told["status"].as_str() else { return Ok(String::new()) };
    let mut text = format!("Status: \t\t{status}\n");
    if let Some(error) = told["error-desc"].as_str() {
        text = format!("Status: \t\t{status} ({error})\n");
    }
    for (name, key) in [
        ("Total time", "total-time"),
        ("Downtime", "downtime"),
        ("Expected downtime", "expected-downtime"),
        ("Setup", "setup-time"),
    ] {
        if let Some(time) = told[key].as_u64() {
            _ = writeln!(text, "{name} (ms): \t{time}");
        }
    }
    if let Some(ram) = told["ram"].as_object() {
        let kib = |key: &str| ram[key].as_u64().unwrap_or(0) >> 10;
        let count = |key: &str| ram[key].as_u64().unwrap_or(0);
        _ = writeln!(text, "Transferred RAM (KiB): \t{}", kib("transferred"));
        _ = writeln!(text, "Remaining RAM (KiB): \t{}", kib("remaining"));
        _ = writeln!(text, "Total RAM (KiB): \t{}", kib("total"));
        _ = writeln!(text, "Repeated pages: \t{}", count("duplicate"));
        _ = writeln!(text, "Normal pages: \t\t{}", count("normal"));
        _ = writeln!(text, "Rounds: \t\t{}", count("dirty-sync-count"));
    }
    Ok(text)
}

/// HMP's `info migrate_parameters`.
pub fn info_parameters(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    let parameters = emulator.migration.parameters();
    Ok(format!(
        "max-bandwidth: {} bytes/second\ndowntime-limit: {} ms\n",
        parameters.bandwidth, parameters.downtime_ms
    ))
}

/// HMP's `info migrate_capabilities`.
pub fn info_capabilities(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    let state = if emulator.migration.tells() { "on" } else { "off" };
    Ok(format!("events: {state}\n"))
}
