//! `port`: ports of this host that lead to a machine.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};

use serde_json::{Map, Value, json};

use crate::arguments::{Format, Forward, Port};
use crate::daemon::Connection;
use crate::failure::{Failure, USAGE};
use crate::machine::{Machine, State};
use crate::output::List;
use crate::verbs::forward as automatic;

/// Run the command as it stands, for the monitor's people.
const MONITOR_FOR_PEOPLE: u32 = 1;

/// `hostel port`.
pub fn run(what: &Port) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let machine = connection.machine(&what.name)?;
    let note = machine.note().unwrap_or_default();
    if what.ports.is_empty() {
        return list(&machine, what.format);
    }
    let running = machine.state == State::Running;
    let pairs: Vec<(u16, u16)> = what.ports.iter().filter_map(|wish| wish.pair()).collect();
    for pair in &pairs {
        let known = note.ports.contains(pair);
        match (what.remove, known) {
            (true, false) => {
                let (host, guest) = pair;
                return Err(Failure::new(format!("{host}:{guest} is not forwarded")).code(USAGE));
            }
            (true, true) if running => release(&mut connection, &machine, pair.0)?,
            (false, false) => {
                check_free(pair.0)?;
                if running {
                    forward(&mut connection, &machine, pair.0, pair.1)?;
                }
            }
            _ => {}
        }
    }
    let with_all = what.ports.contains(&Forward::Auto);
    connection.change_note(&machine, |note| {
        for pair in &pairs {
            note.ports.retain(|known| known != pair);
            if !what.remove {
                note.ports.push(*pair);
            }
        }
        if with_all {
            note.forwards_all = !what.remove;
        }
    })?;
    if with_all && running {
        match what.remove {
            true => automatic::stop(&machine),
            false => automatic::start(&machine)?,
        }
    }
    Ok(0)
}

fn list(machine: &Machine, format: Format) -> Result<u8, Failure> {
    let row = |host: u16, guest: u16, kind: &str| {
        let mut row = Map::new();
        row.insert("forward".into(), format!("{host}:{guest}").into());
        row.insert("host".into(), host.into());
        row.insert("guest".into(), guest.into());
        row.insert("kind".into(), kind.into());
        row
    };
    let note = machine.note().unwrap_or_default();
    let mut rows: Vec<_> =
        note.ports.iter().map(|(host, guest)| row(*host, *guest, "set")).collect();
    rows.extend(automatic::list(machine).into_iter().map(|(h, g)| row(h, g, "automatic")));
    let columns = &[("Forward", "forward"), ("Kind", "kind")];
    let empty = match note.forwards_all {
        true => "Nothing listens in the machine.",
        false => "No ports are forwarded.",
    };
    List { name: "ports", columns, rows, empty }.print(format)?;
    Ok(0)
}

/// A port that somebody has is better reported before anything is made.
pub fn check_free(host: u16) -> Result<(), Failure> {
    let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, host)) else { return Ok(()) };
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
    let hint = match (error.kind(), free) {
        (ErrorKind::PermissionDenied, _) => {
            format!(
                "only root may have ports below 1024; {} may be free",
                host.saturating_add(8000)
            )
        }
        (_, Ok(free)) => format!("another one is free, such as {}", free.port()),
        (_, Err(_)) => "choose another one".to_owned(),
    };
    let failure = Failure::new(format!("Port {host} of this host cannot be had"));
    Err(failure.because(&error).hint(hint))
}

/// Forwards a port of a running machine. Only this host reaches it.
pub fn forward(
    connection: &mut Connection,
    machine: &Machine,
    host: u16,
    guest: u16,
) -> Result<(), Failure> {
    let said = monitor(
        connection,
        machine,
        &format!("hostfwd_add hostnet0 tcp:127.0.0.1:{host}-:{guest}"),
    )?;
    match said.trim() {
        "" => Ok(()),
        said => {
            let mut failure = Failure::new(format!("Port {host} cannot be forwarded"));
            failure.causes.push(said.to_owned());
            Err(failure)
        }
    }
}

/// Ends it.
pub fn release(connection: &mut Connection, machine: &Machine, host: u16) -> Result<(), Failure> {
    monitor(connection, machine, &format!("hostfwd_remove hostnet0 tcp:127.0.0.1:{host}"))?;
    Ok(())
}

/// Says something to the emulator, and gives what it prints.
fn monitor(connection: &mut Connection, machine: &Machine, line: &str) -> Result<String, Failure> {
    let domain = machine.domain.clone();
    let said = connection.client.qemu_domain_monitor_command(
        domain,
        line.to_owned(),
        MONITOR_FOR_PEOPLE,
    )?;
    // Some daemons wrap it, some do not.
    let unwrapped = serde_json::from_str::<Value>(&said).unwrap_or_else(|_| json!(said));
    Ok(unwrapped["return"].as_str().map_or(said, str::to_owned))
}
