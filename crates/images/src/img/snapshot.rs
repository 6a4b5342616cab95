//! `qemu-img snapshot`.

use std::time::{SystemTime, UNIX_EPOCH};

use block::open::OpenMode;
use block::snapshots::{Snapshot, Snapshots};
use qemu_compat::image_tool::arguments::Typed;
use qemu_compat::image_tool::text;
use serde_json::Value;

use super::failure::{Failure, Outcome};
use super::info::{local_date, snapshot_value};
use super::{fail, opening};

pub fn run(typed: &Typed) -> Outcome {
    let actions = ["list", "create", "apply", "delete"];
    let given: Vec<_> = typed.options.iter().filter(|(name, _)| actions.contains(name)).collect();
    if given.len() > 1 {
        return Err(Failure::usage("Cannot mix '-l', '-a', '-c', '-d'"));
    }
    let name = opening::one_operand(typed)?;
    let (action, argument) =
        given.first().map_or(("list", ""), |(name, value)| (*name, value.as_str()));
    let write = action != "list";
    let mode = OpenMode { write, no_data: !write, unmap: true, ..OpenMode::default() };
    let node = opening::open(typed, name, typed.value("format"), &mode)?;
    let snapshots = node.snapshots();
    match action {
        "list" => {
            if let Some(snapshots) = snapshots {
                list(snapshots);
            }
            Ok(0)
        }
        "create" => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let snapshot = Snapshot {
                name: argument.to_string(),
                date_seconds: now.as_secs() as u32,
                date_nanoseconds: now.subsec_micros() * 1000,
                icount: Some(0),
                ..Snapshot::default()
            };
            let created = match snapshots {
                Some(snapshots) => snapshots.create(&snapshot).map_err(|error| error.reason()),
                None => Err("Operation not supported".into()),
            };
            created
                .map(|()| 0)
                .map_err(|reason| fail(format!("Could not create snapshot '{argument}': {reason}")))
        }
        "apply" => {
            let Some(snapshots) = snapshots else {
                return Err(fail(format!(
                    "Could not apply snapshot '{argument}': Block format '{}' used by node '' does not support internal snapshots",
                    node.driver()
                )));
            };
            snapshots.apply(argument).map(|()| 0).map_err(|error| match error.errno() {
                rustix::io::Errno::NOENT => {
                    fail(format!("Could not apply snapshot '{argument}': Failed to load snapshot: No such file or directory"))
                }
                _ => fail(format!("Could not apply snapshot '{argument}': {error}")),
            })
        }
        _ => delete(snapshots, argument),
    }
}

fn delete(snapshots: Option<&dyn Snapshots>, name: &str) -> Outcome {
    let not_found = || fail(format!("Could not delete snapshot '{name}': snapshot not found"));
    let snapshots = snapshots.ok_or_else(not_found)?;
    let list = snapshots.list();
    let found = list.iter().find(|snapshot| snapshot.name == name);
    let found = found.ok_or_else(not_found)?;
    snapshots
        .delete(&found.id)
        .map(|()| 0)
        .map_err(|error| fail(format!("Could not delete snapshot '{name}': {error}")))
}

fn list(snapshots: &dyn Snapshots) {
    let list = snapshots.list();
    if list.is_empty() {
        return;
    }
    print!("Snapshot list:\n{}", text::SNAPSHOT_HEAD);
    for snapshot in &list {
        let mut row = snapshot_value(snapshot);
        row["date-text"] = Value::from(local_date(i64::from(snapshot.date_seconds)));
        println!("{}", text::snapshot_row(&row));
    }
}
