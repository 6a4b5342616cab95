//! The monitor's commands: one table a family. A row declares what a command takes and gives; the
//! same declaration checks arguments and answers `query-qmp-schema`.

pub mod hmp;
pub mod registers;

mod bitmaps;
mod blocks;
mod characters;
mod descriptors;
mod devices;
mod exports;
mod expression;
mod graph;
mod identity;
pub use identity::uuid_text;
mod input;
mod interrupts;
mod jobs;
mod lines;
mod memory;
mod migration;
mod run;
pub mod schema;
mod screen;
mod snapshots;
mod tree;

use std::sync::{Arc, OnceLock};

use device::Stream;
use qemu_compat::qmp::schema::Schema;
use qemu_compat::qmp::server::Refusal;
use serde_json::{Map, Value};

use crate::emulator::Emulator;

/// The arguments of a command, already held against its declaration.
pub type Arguments = Map<String, Value>;

/// What a command gives.
pub type Answer = Result<Value, Refusal>;

/// Who sent a command.
pub struct Caller<'a> {
    /// Descriptors come this way.
    pub stream: &'a Arc<dyn Stream>,
}

/// A row of a family's table.
pub struct Command {
    pub name: &'static str,
    /// Members between braces, or the name of a type.
    pub takes: &'static str,
    /// A type; empty for nothing.
    pub gives: &'static str,
    pub run: Run,
}

/// How a command is carried out.
pub enum Run {
    /// With the emulator alone.
    Plain(fn(&Arc<Emulator>, &Arguments) -> Answer),
    /// With its sender.
    Calling(fn(&Arc<Emulator>, &Caller<'_>, &Arguments) -> Answer),
}

const fn plain(
    name: &'static str,
    takes: &'static str,
    gives: &'static str,
    run: fn(&Arc<Emulator>, &Arguments) -> Answer,
) -> Command {
    Command { name, takes, gives, run: Run::Plain(run) }
}

/// All families.
const FAMILIES: &[&[Command]] = &[
    identity::COMMANDS,
    run::COMMANDS,
    blocks::COMMANDS,
    graph::COMMANDS,
    jobs::COMMANDS,
    bitmaps::COMMANDS,
    exports::COMMANDS,
    characters::COMMANDS,
    devices::COMMANDS,
    descriptors::COMMANDS,
    screen::COMMANDS,
    input::COMMANDS,
    tree::COMMANDS,
    migration::COMMANDS,
    snapshots::COMMANDS,
    memory::COMMANDS,
    hmp::COMMANDS,
];

fn commands() -> impl Iterator<Item = &'static Command> {
    FAMILIES.iter().copied().flatten()
}

/// All types, commands and events, read once.
pub fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let mut schema = Schema::new(schema::TYPES);
        // The monitor itself answers this one.
        schema.command("qmp_capabilities", "{ enable?: [QMPCapability] }", "", false);
        for command in commands() {
            schema.command(command.name, command.takes, command.gives, false);
        }
        for (name, data) in schema::EVENTS {
            schema.event(name, data);
        }
        schema
    })
}

/// Carries a command out.
pub fn execute(
    emulator: &Arc<Emulator>,
    caller: &Caller<'_>,
    name: &str,
    arguments: &Arguments,
) -> Answer {
    let Some(command) = commands().find(|command| command.name == name) else {
        let text = format!("The command {name} has not been found");
        return Err(Refusal::of("CommandNotFound", text));
    };
    schema().check(name, arguments).map_err(|error| Refusal::new(error.to_string()))?;
    match command.run {
        Run::Plain(run) => run(emulator, arguments),
        Run::Calling(run) => run(emulator, caller, arguments),
    }
}

/// A text argument that the declaration says is there.
fn text<'a>(arguments: &'a Arguments, name: &str) -> &'a str {
    arguments.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A switch; off when it is not there.
fn flag(arguments: &Arguments, name: &str) -> bool {
    arguments.get(name).and_then(Value::as_bool).unwrap_or_default()
}

/// An error in words.
fn refusal(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declaration_can_be_read_and_described() {
        let description = schema().describe();
        let entries = description.as_array().unwrap();
        for command in commands() {
            let is_it =
                |entry: &&Value| entry["meta-type"] == "command" && entry["name"] == command.name;
            assert_eq!(entries.iter().filter(is_it).count(), 1, "{}", command.name);
        }
    }
}
