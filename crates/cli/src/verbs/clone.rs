//! `clone`: a copy with an identity of its own.

use std::fs;

use libvirt_compat::xml::Element;

use crate::arguments::Clone_;
use crate::daemon::Connection;
use crate::failure::Failure;
use crate::machine::{Machine, Note, State};
use crate::progress::Line;
use crate::verbs::launch::{self, Files};
use crate::verbs::lifecycle::set_host_name;

/// `hostel clone`.
pub fn run(what: &Clone_) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let machine = connection.machine(&what.name)?;
    if machine.state != State::Stopped {
        let failure = Failure::new(format!("'{}' runs", what.name));
        return Err(failure.hint(format!("'hostel stop {}' first", what.name)));
    }
    let Some(note) = machine.note() else {
        let failure = Failure::new(format!("'{}' was not launched by Hostel", what.name));
        return Err(failure.hint("'virt-clone' copies any domain"));
    };
    let wanted = match &what.new_name {
        Some(name) => Some(name.clone()),
        None => Some(free_name(&mut connection, &what.name)?),
    };
    let name = launch::name(&mut connection, wanted.as_deref())?;
    let files = Files::new(&connection, &name);
    let mut line = Line::new();
    guests::Progress::step(&mut line, "Copying the disk");
    if let Err(failure) = copy(&mut connection, &machine, &note, &name, &files) {
        files.remove();
        return Err(failure);
    }
    drop(line);
    println!("Cloned from {} to {name}", what.name);
    Ok(0)
}

fn free_name(connection: &mut Connection, name: &str) -> Result<String, Failure> {
    let machines = connection.machines()?;
    let mut names = (1..).map(|number| format!("{name}-clone{number}"));
    let free = names.find(|name| machines.iter().all(|machine| machine.name() != name));
    Ok(free.unwrap_or_default())
}

fn copy(
    connection: &mut Connection,
    machine: &Machine,
    note: &Note,
    name: &str,
    files: &Files,
) -> Result<(), Failure> {
    let mut definition = machine.definition.clone();
    definition.remove(|element| element.name == "uuid");
    definition.ensure("name").set_text(name);
    // A network card of its own, and files of its own.
    let state = connection.places.state.clone();
    let devices = definition.ensure("devices");
    for device in devices.elements_mut() {
        match device.name.as_str() {
            "interface" => _ = device.remove(|element| element.name == "mac"),
            "vsock" => device.ensure("cid").unset("address"),
            "serial" | "console" => {
                let log = state.join("logs").join(format!("{}-console.log", files.stem));
                if let Some(source) = device.child_mut("source") {
                    source.set("path", log.display());
                }
            }
            "disk" => set_file(device, note, files),
            _ => {}
        }
    }
    set_host_name(&mut definition, name);
    let note = Note {
        disk: Some(files.disk.clone()),
        seed: note.seed.as_ref().map(|_| files.seed.clone()),
        // The other one has them.
        ports: Vec::new(),
        ..note.clone()
    };
    let metadata = definition.ensure("metadata");
    metadata.remove(|element| element.name.ends_with(":machine"));
    metadata.push(note.to_element());
    // Defined first: what is copied then is never without an owner.
    let domain = connection.client.domain_define_xml(definition.to_xml())?;
    let copied = copy_files(machine, files, name);
    if copied.is_err() {
        _ = connection.client.domain_undefine_flags(domain, 0);
    }
    copied
}

fn set_file(device: &mut Element, note: &Note, files: &Files) {
    let is = |path: &Option<std::path::PathBuf>, file: &str| {
        path.as_ref().is_some_and(|path| path.display().to_string() == file)
    };
    let Some(source) = device.child_mut("source") else { return };
    let file = source.attribute("file").unwrap_or_default().to_owned();
    if is(&note.disk, &file) {
        source.set("file", files.disk.display());
    } else if is(&note.seed, &file) {
        source.set("file", files.seed.display());
    }
}

fn copy_files(machine: &Machine, files: &Files, name: &str) -> Result<(), Failure> {
    let note = machine.note().unwrap_or_default();
    if let Some(disk) = &note.disk {
        fs::copy(disk, &files.disk).map_err(|error| {
            Failure::new(format!("The disk of '{}' cannot be copied", machine.name()))
                .because(&error)
        })?;
        launch::image::forget_snapshots(&files.disk)?;
    }
    match &note.seed {
        Some(seed) => launch::provision::copy(seed, &files.seed, name),
        None => Ok(()),
    }
}
