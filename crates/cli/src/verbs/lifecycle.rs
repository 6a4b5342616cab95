//! From start to purge.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agent::Request;
use libvirt_compat::xml::Element;

use crate::arguments::{Boot, Delete, Level, Names, Rename, Stop, Wait};
use crate::daemon::Connection;
use crate::failure::{Failure, TIMEOUT};
use crate::guest::Session;
use crate::machine::{Machine, State};
use crate::progress::Line;
use crate::verbs::{alias, forward, launch, mount, port, snapshot};
use crate::{guest, names};

/// How long a guest may take to go off by itself.
const OFF_PATIENCE: Duration = Duration::from_secs(60);

/// The machines that were named, or all that are not deleted.
fn chosen(
    connection: &mut Connection,
    names: &[String],
    all: bool,
) -> Result<Vec<Machine>, Failure> {
    if all {
        let machines = connection.machines()?.into_iter();
        return Ok(machines.filter(|machine| machine.state != State::Deleted).collect());
    }
    names.iter().map(|name| connection.machine(name)).collect()
}

/// Starts a machine, and forwards its ports.
pub fn start_machine(connection: &mut Connection, machine: &Machine) -> Result<(), Failure> {
    let domain = connection.client.domain_create_with_flags(machine.domain.clone(), 0);
    domain.map_err(|error| {
        Failure::new(format!("'{}' cannot be started", machine.name())).because(&error)
    })?;
    let note = machine.note().unwrap_or_default();
    for (host, guest) in &note.ports {
        if let Err(failure) = port::forward(connection, machine, *host, *guest) {
            _ = connection.client.domain_destroy(machine.domain.clone());
            return Err(failure);
        }
    }
    Ok(())
}

/// The same, unless somebody else was faster.
pub fn start_unless_running(connection: &mut Connection, machine: &Machine) -> Result<(), Failure> {
    match start_machine(connection, machine) {
        Err(failure) if connection.machine(machine.name())?.state != State::Running => Err(failure),
        _ => Ok(()),
    }
}

/// `hostel start`.
pub fn start(what: &Boot) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    for machine in chosen(&mut connection, &what.which.names, what.which.all)? {
        match machine.state {
            State::Running => continue,
            State::Suspended => connection.client.domain_resume(machine.domain.clone())?,
            _ => start_machine(&mut connection, &machine)?,
        }
        await_start(&mut connection, &machine, what.timeout)?;
    }
    Ok(0)
}

/// Waits until a machine that was started can be used, and has what is mounted in it.
fn await_start(
    connection: &mut Connection,
    machine: &Machine,
    patience: Duration,
) -> Result<(), Failure> {
    let mut line = Line::new();
    guests::Progress::step(&mut line, &format!("Starting {}", machine.name()));
    launch::await_level(connection, machine, Level::Booted, patience, &mut line)?;
    furnish(connection, machine)
}

/// Gives a machine that has just started what it is to have: its mounts, its forwarded ports.
pub fn furnish(connection: &mut Connection, machine: &Machine) -> Result<(), Failure> {
    mount::mount_all(connection, machine)?;
    let machine = connection.machine(machine.name())?;
    match machine.note().is_some_and(|note| note.forwards_all) {
        true => forward::start(&machine),
        false => Ok(()),
    }
}

/// `hostel stop`.
pub fn stop(what: &Stop) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    for machine in chosen(&mut connection, &what.names, what.all)? {
        stop_machine(&mut connection, &machine, what.force)?;
    }
    Ok(0)
}

/// Has a machine go off.
pub fn stop_machine(
    connection: &mut Connection,
    machine: &Machine,
    force: bool,
) -> Result<(), Failure> {
    if !matches!(machine.state, State::Running | State::Suspended) {
        return Ok(());
    }
    if force || machine.state == State::Suspended {
        connection.client.domain_destroy(machine.domain.clone())?;
        return Ok(());
    }
    let socket = machine.socket(connection);
    let request = Request::PowerOff { reboot: false };
    let asked = guest::ask::<serde_json::Value>(machine.name(), &socket, &request);
    if asked.is_err() {
        // A guest without our agent has a power button.
        connection.client.domain_shutdown(machine.domain.clone())?;
    }
    let mut line = Line::new();
    guests::Progress::step(&mut line, &format!("Stopping {}", machine.name()));
    let began = Instant::now();
    // A guest that has gone off stands still for a moment before its process ends.
    let is_off = |state| matches!(state, State::Stopped | State::Deleted);
    while !is_off(connection.any_machine(machine.name())?.state) {
        if began.elapsed() > OFF_PATIENCE {
            let failure = Failure::new(format!("'{}' does not go off", machine.name()));
            let hint = format!("'hostel stop --force {}' pulls the plug", machine.name());
            return Err(failure.hint(hint).code(TIMEOUT));
        }
        line.tick("");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// `hostel restart`.
pub fn restart(what: &Boot) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    for machine in chosen(&mut connection, &what.which.names, what.which.all)? {
        stop_machine(&mut connection, &machine, false)?;
        start_machine(&mut connection, &machine)?;
        await_start(&mut connection, &machine, what.timeout)?;
    }
    Ok(0)
}

/// `hostel suspend`.
pub fn suspend(what: &Names) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    for machine in chosen(&mut connection, &what.names, what.all)? {
        if machine.state == State::Running {
            connection.client.domain_suspend(machine.domain)?;
        }
    }
    Ok(0)
}

/// `hostel resume`.
pub fn resume(what: &Names) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    for machine in chosen(&mut connection, &what.names, what.all)? {
        if machine.state == State::Suspended {
            connection.client.domain_resume(machine.domain.clone())?;
            set_clock(&connection, &machine);
        }
    }
    Ok(0)
}

/// Tells a guest that was held what time it is. One without an agent sees to that itself.
pub fn set_clock(connection: &Connection, machine: &Machine) {
    const PATIENCE: Duration = Duration::from_secs(2);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let request = Request::SetTime(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
    let asked = Session::open(&machine.socket(connection), &request, PATIENCE);
    if let Ok(mut session) = asked {
        // Whoever runs a program next is to find the time set.
        _ = session.set_patience(Some(PATIENCE));
        _ = session.read();
    }
}

/// `hostel delete`.
pub fn delete(what: &Delete) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    // NAME.SNAPSHOT is a snapshot, which has no way back.
    let (snapshots, names): (Vec<&String>, Vec<&String>) =
        what.names.iter().partition(|name| snapshot::split(name).is_some());
    let machines = match what.all {
        true => connection.machines()?,
        false => names.iter().map(|name| connection.any_machine(name)).collect::<Result<_, _>>()?,
    };
    for (machine, name) in snapshots.iter().filter_map(|name| snapshot::split(name)) {
        snapshot::remove(&mut connection, machine, name)?;
    }
    for machine in machines {
        if matches!(machine.state, State::Running | State::Suspended) {
            connection.client.domain_destroy(machine.domain.clone())?;
        } else if machine.state == State::Stopped {
            // It may be about to start, for somebody who is gone; then this waits for it.
            _ = connection.client.domain_destroy(machine.domain.clone());
        }
        match what.purge {
            true => forget(&mut connection, &machine)?,
            false => connection.change_note(&machine, |note| note.deleted = true)?,
        }
    }
    sweep(&mut connection)?;
    Ok(0)
}

/// `hostel recover`.
pub fn recover(what: &Names) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let mut machines = match what.all {
        true => connection.machines()?,
        false => {
            what.names.iter().map(|name| connection.any_machine(name)).collect::<Result<_, _>>()?
        }
    };
    machines.retain(|machine| machine.state == State::Deleted);
    for machine in machines {
        connection.change_note(&machine, |note| note.deleted = false)?;
    }
    Ok(0)
}

/// `hostel purge`.
pub fn purge() -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    for machine in connection.machines()? {
        if machine.state == State::Deleted {
            forget(&mut connection, &machine)?;
        }
    }
    sweep(&mut connection)?;
    Ok(0)
}

/// Takes away disks and seeds of ours that belong to nobody: whoever made them was killed. A machine
/// is defined before its files are made, so that none of these is about to be somebody's.
fn sweep(connection: &mut Connection) -> Result<(), Failure> {
    let owned: Vec<PathBuf> = connection
        .machines()?
        .iter()
        .filter_map(Machine::note)
        .flat_map(|note| note.disk.into_iter().chain(note.seed))
        .collect();
    for (folder, extension) in [("disks", ".qcow2"), ("seeds", ".iso")] {
        let folder = connection.places.state.join(folder);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let stem = name.strip_suffix(extension).and_then(|stem| stem.rsplit_once('-'));
            // As launch names them; others may keep files here too.
            let is_ours = stem.is_some_and(|(_, word)| {
                word.len() == 12 && word.bytes().all(|digit| digit.is_ascii_hexdigit())
            });
            if is_ours && !owned.contains(&entry.path()) {
                _ = fs::remove_file(entry.path());
            }
        }
    }
    Ok(())
}

/// The machine and its own disk are gone for good.
pub fn forget(connection: &mut Connection, machine: &Machine) -> Result<(), Failure> {
    /// With its snapshots, which lie in its disk, and what else the daemon keeps of it.
    const SNAPSHOTS_AND_SAVED_STATE: u32 = 1 | 2;
    let note = machine.note();
    let domain = machine.domain.clone();
    connection.client.domain_undefine_flags(domain, SNAPSHOTS_AND_SAVED_STATE)?;
    let (disk, seed) = note.map(|note| (note.disk, note.seed)).unwrap_or_default();
    for file in disk.into_iter().chain(seed) {
        if let Err(error) = fs::remove_file(&file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            let what = format!("The file {} cannot be removed", file.display());
            return Err(Failure::new(what).because(&error));
        }
    }
    if let Some(log) = machine.console_log() {
        _ = fs::remove_file(log);
    }
    alias::forget(machine.name());
    Ok(())
}

/// Its host name stands in its kernel's command line.
pub fn set_host_name(definition: &mut Element, name: &str) {
    let Some(line) = definition.ensure("os").child_mut("cmdline") else { return };
    let words = line.text();
    let words: Vec<String> = words
        .split(' ')
        .map(|word| match word.starts_with("hostname=") {
            true => format!("hostname={name}"),
            false => word.to_owned(),
        })
        .collect();
    line.set_text(words.join(" "));
}

/// `hostel rename`.
pub fn rename(what: &Rename) -> Result<u8, Failure> {
    names::check(&what.new_name)?;
    let mut connection = Connection::open()?;
    let machine = connection.machine(&what.name)?;
    if machine.state != State::Stopped {
        let failure = Failure::new(format!("'{}' runs", what.name));
        return Err(failure.hint(format!("'hostel stop {}' first", what.name)));
    }
    connection.client.domain_rename(machine.domain, Some(what.new_name.clone()), 0)?;
    let machine = connection.machine(&what.new_name)?;
    let mut definition = machine.definition.clone();
    set_host_name(&mut definition, &what.new_name);
    connection.client.domain_define_xml(definition.to_xml())?;
    let machines = connection.machines()?;
    _ = crate::ssh::configure(&connection.places, &machines);
    Ok(0)
}

/// `hostel wait`.
pub fn wait(what: &Wait) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let machine = connection.machine(&what.name)?;
    if machine.state == State::Stopped {
        let failure = Failure::new(format!("'{}' does not run", what.name));
        return Err(failure.hint(format!("'hostel start {}' starts it", what.name)));
    }
    let mut line = Line::new();
    guests::Progress::step(&mut line, &format!("Waiting for {}", what.name));
    launch::await_level(&connection, &machine, what.level, what.timeout, &mut line)?;
    Ok(0)
}
