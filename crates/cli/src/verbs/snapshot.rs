//! `snapshot`, `restore`, `snapshots`: states of a machine to go back to, inside its disk.

use std::io::{self, IsTerminal, Write};

use libvirt_compat::rpc::types::Snapshot as Handle;
use libvirt_compat::xml::{Element, parse};
use serde_json::Map;

use crate::arguments::{Restore, Snapshot, Snapshots};
use crate::daemon::Connection;
use crate::failure::{Failure, USAGE};
use crate::machine::{Machine, State};
use crate::nearest::nearest;
use crate::output::List;

/// A snapshot as the daemon describes it.
pub struct Described {
    pub name: String,
    pub parent: String,
    pub comment: String,
    pub created: String,
    pub handle: Handle,
}

/// The snapshots of a machine, oldest first.
pub fn all(connection: &mut Connection, machine: &Machine) -> Result<Vec<Described>, Failure> {
    let (handles, _) = connection.client.domain_list_all_snapshots(machine.domain.clone(), 1, 0)?;
    let mut list = Vec::new();
    for handle in handles {
        let text = connection.client.domain_snapshot_get_xml_desc(handle.clone(), 0)?;
        let document = parse(&text, "(snapshot)").unwrap_or_default();
        let text = |path: &str| document.text_at(path).unwrap_or_default();
        list.push(Described {
            name: text("name"),
            parent: text("parent/name"),
            comment: text("description"),
            created: text("creationTime"),
            handle,
        });
    }
    list.sort_by(|a, b| (a.created.len(), &a.created).cmp(&(b.created.len(), &b.created)));
    Ok(list)
}

/// `hostel snapshot`.
pub fn make(what: &Snapshot) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let machine = connection.machine(&what.name)?;
    let name = take(&mut connection, &machine, what.snapshot.as_deref(), what.comment.as_deref())?;
    println!("Snapshot taken: {}.{name}", what.name);
    Ok(0)
}

fn take(
    connection: &mut Connection,
    machine: &Machine,
    name: Option<&str>,
    comment: Option<&str>,
) -> Result<String, Failure> {
    let known = all(connection, machine)?;
    let taken = |name: &str| known.iter().any(|snapshot| snapshot.name == name);
    let name = match name {
        Some(name) => {
            let good = |sign: char| sign.is_ascii_alphanumeric() || sign == '-' || sign == '_';
            if !name.chars().all(good) || name.is_empty() || name.len() > 128 {
                let failure = Failure::new(format!("'{name}' cannot be the name of a snapshot"));
                return Err(failure.hint("letters, digits, dashes").code(USAGE));
            }
            if taken(name) {
                let failure = Failure::new(format!("There is a snapshot '{name}' already"));
                let hint = format!("'hostel delete {}.{name}' removes it", machine.name());
                return Err(failure.hint(hint).code(USAGE));
            }
            name.to_owned()
        }
        None => {
            let numbered = (1..).map(|number| format!("snapshot{number}"));
            numbered.into_iter().find(|name| !taken(name)).unwrap_or_default()
        }
    };
    let mut document = Element::new("domainsnapshot").with_child(Element::with_text("name", &name));
    if let Some(comment) = comment {
        document.push(Element::with_text("description", comment));
    }
    let domain = machine.domain.clone();
    connection.client.domain_snapshot_create_xml(domain, document.to_xml(), 0).map_err(
        |error| {
            Failure::new(format!("The snapshot of '{}' cannot be taken", machine.name()))
                .because(&error)
        },
    )?;
    Ok(name)
}

/// `MACHINE.SNAPSHOT`, apart.
pub fn split(text: &str) -> Option<(&str, &str)> {
    text.split_once('.').filter(|(machine, snapshot)| !machine.is_empty() && !snapshot.is_empty())
}

/// A snapshot by its name.
fn find(connection: &mut Connection, machine: &Machine, name: &str) -> Result<Described, Failure> {
    let mut known = all(connection, machine)?;
    let Some(at) = known.iter().position(|snapshot| snapshot.name == name) else {
        let what = format!("'{}' has no snapshot '{name}'", machine.name());
        let near = nearest(name, known.iter().map(|snapshot| snapshot.name.as_str()));
        return Err(match near {
            Some(near) => Failure::new(what).hint(format!("did you mean '{near}'?")),
            None => {
                Failure::new(what).hint(format!("'hostel snapshots {}' lists them", machine.name()))
            }
        });
    };
    Ok(known.swap_remove(at))
}

/// `hostel restore`.
pub fn restore(what: &Restore) -> Result<u8, Failure> {
    let (name, snapshot) = split(&what.snapshot).ok_or_else(|| {
        let failure = Failure::new(format!("'{}' is no MACHINE.SNAPSHOT", what.snapshot));
        failure.hint("such as web.snapshot1; 'hostel snapshots' lists them").code(USAGE)
    })?;
    let mut connection = Connection::open()?;
    let machine = connection.machine(name)?;
    let found = find(&mut connection, &machine, snapshot)?;
    if !what.destructive {
        let keeps = wants_to_keep(name)?;
        if keeps {
            let kept = take(&mut connection, &machine, None, Some("before a restore"))?;
            println!("Snapshot taken: {name}.{kept}");
        }
    }
    connection.client.domain_revert_to_snapshot(found.handle, 0).map_err(|error| {
        Failure::new(format!("'{name}' cannot go back to '{snapshot}'")).because(&error)
    })?;
    if let Ok(machine) = connection.machine(name)
        && machine.state == State::Running
    {
        super::lifecycle::set_clock(&connection, &machine);
    }
    println!("Snapshot restored: {name}.{snapshot}");
    Ok(0)
}

/// Asks whether the present state is to be kept; without anybody to ask it must be said.
fn wants_to_keep(name: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let failure = Failure::new(format!("The present state of '{name}' would be lost"));
        let hint = "--destructive says that this is meant; 'hostel snapshot' keeps it first";
        return Err(failure.hint(hint).code(USAGE));
    }
    loop {
        eprint!("Take a snapshot of {name} before its present state is lost? (Yes/no): ");
        _ = io::stderr().flush();
        let mut line = String::new();
        if !matches!(io::stdin().read_line(&mut line), Ok(1..)) {
            return Err(Failure::new("Nothing was done"));
        }
        match line.trim().to_ascii_lowercase().as_str() {
            "" | "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => eprintln!("Please answer yes or no."),
        }
    }
}

/// Removes a snapshot; what grew from it stays.
pub fn remove(connection: &mut Connection, name: &str, snapshot: &str) -> Result<(), Failure> {
    let machine = connection.any_machine(name)?;
    let found = find(connection, &machine, snapshot)?;
    connection.client.domain_snapshot_delete(found.handle, 0)?;
    Ok(())
}

/// `hostel snapshots`.
pub fn list(what: &Snapshots) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let machines = match what.names.is_empty() {
        true => connection.machines()?,
        false => {
            what.names.iter().map(|name| connection.machine(name)).collect::<Result<_, _>>()?
        }
    };
    let mut rows = Vec::new();
    for machine in machines {
        for snapshot in all(&mut connection, &machine)? {
            let mut row = Map::new();
            row.insert("machine".into(), machine.name().into());
            row.insert("snapshot".into(), snapshot.name.into());
            row.insert("parent".into(), snapshot.parent.into());
            row.insert("created".into(), snapshot.created.parse::<u64>().unwrap_or(0).into());
            row.insert("comment".into(), snapshot.comment.into());
            rows.push(row);
        }
    }
    let list = List {
        name: "snapshots",
        columns: &[
            ("Machine", "machine"),
            ("Snapshot", "snapshot"),
            ("Parent", "parent"),
            ("Comment", "comment"),
        ],
        rows,
        empty: "No snapshots. 'hostel snapshot NAME' takes one.",
    };
    list.print(what.format)?;
    Ok(0)
}
