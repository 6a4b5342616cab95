//! `list`.

use std::thread;
use std::time::Duration;

use serde_json::{Map, json};

use crate::arguments::List as Arguments;
use crate::daemon::Connection;
use crate::failure::Failure;
use crate::guest;
use crate::machine::State;
use crate::output::List;

/// How long agents may take for a list; who takes longer is listed without addresses.
const PATIENCE: Duration = Duration::from_millis(200);

/// `hostel list`.
pub fn run(what: &Arguments) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let machines = connection.machines()?;
    let asked: Vec<_> = machines
        .iter()
        .map(|machine| {
            let socket = machine.socket(&connection);
            let running = machine.state == State::Running;
            // All at once: one that hangs holds up no other.
            running.then(|| thread::spawn(move || guest::quick_info(&socket, PATIENCE)))
        })
        .collect();
    let mut rows = Vec::new();
    for (machine, asked) in machines.iter().zip(asked) {
        let info = asked.and_then(|asked| asked.join().ok()).flatten();
        let note = machine.note();
        let ports: Vec<String> = note
            .iter()
            .flat_map(|note| &note.ports)
            .map(|(host, guest)| format!("{host}:{guest}"))
            .collect();
        let mut row = Map::new();
        row.insert("name".into(), machine.name().into());
        row.insert("state".into(), machine.state.name().into());
        row.insert("addresses".into(), json!(info.map(|info| info.addresses).unwrap_or_default()));
        row.insert("ports".into(), json!(ports));
        row.insert("image".into(), note.map(|note| note.image).unwrap_or_default().into());
        rows.push(row);
    }
    let list = List {
        name: "machines",
        columns: &[
            ("Name", "name"),
            ("State", "state"),
            ("Addresses", "addresses"),
            ("Ports", "ports"),
            ("Image", "image"),
        ],
        rows,
        empty: "No machines. 'hostel launch' makes one.",
    };
    list.print(what.format)?;
    Ok(0)
}
