//! `get` and `set`: settings of this user, and of machines (`local.NAME.cpus` and the like).

use libvirt_compat::xml::Element;

use crate::arguments::{Get, Set, bytes};
use crate::daemon::Connection;
use crate::failure::{Failure, USAGE};
use crate::machine::{Machine, State};
use crate::nearest::nearest;
use crate::settings::{self, KEYS};
use crate::verbs::launch::image::{image_tool, virtual_size};

/// What each machine has.
const OF_MACHINES: &[&str] = &["cpus", "memory", "disk", "autostart"];

fn unknown(key: &str) -> Failure {
    let failure = Failure::new(format!("There is no setting '{key}'")).code(USAGE);
    match nearest(key, KEYS.iter().map(|(key, _)| *key)) {
        Some(near) => failure.hint(format!("did you mean '{near}'?")),
        None => failure.hint("'hostel get --keys' lists them"),
    }
}

/// The machine and the member of `local.NAME.MEMBER`.
fn of_machine(key: &str) -> Option<(&str, &str)> {
    let (name, member) = key.strip_prefix("local.")?.rsplit_once('.')?;
    OF_MACHINES.contains(&member).then_some((name, member))
}

/// `hostel get`.
pub fn get(what: &Get) -> Result<u8, Failure> {
    if what.keys {
        for (key, meaning) in KEYS {
            println!("{key:<24} {meaning}");
        }
        let mut connection = Connection::open()?;
        for machine in connection.machines()? {
            for member in OF_MACHINES {
                println!("local.{}.{member}", machine.name());
            }
        }
        return Ok(0);
    }
    let key = what.key.as_deref().unwrap_or_default();
    if KEYS.iter().any(|(known, _)| *known == key) {
        let fallback =
            if key == "client.primary-name" { settings::primary() } else { String::new() };
        println!("{}", settings::get(key).unwrap_or(fallback));
        return Ok(0);
    }
    let (name, member) = of_machine(key).ok_or_else(|| unknown(key))?;
    let mut connection = Connection::open()?;
    let machine = connection.machine(name)?;
    let size = |bytes: u64| match what.raw {
        true => bytes.to_string(),
        false if bytes.is_multiple_of(1 << 30) => format!("{}GiB", bytes >> 30),
        false => format!("{:.1}MiB", bytes as f64 / f64::from(1 << 20)),
    };
    let value = match member {
        "cpus" => machine.definition.text_at("vcpu").unwrap_or_default(),
        "memory" => {
            let kibibytes = machine.definition.text_at("memory").and_then(|text| text.parse().ok());
            size(kibibytes.unwrap_or(0_u64) << 10)
        }
        "disk" => size(virtual_size(&own_disk(&machine)?)?),
        _ => (connection.client.domain_get_autostart(machine.domain)? != 0).to_string(),
    };
    println!("{value}");
    Ok(0)
}

fn own_disk(machine: &Machine) -> Result<std::path::PathBuf, Failure> {
    machine
        .note()
        .and_then(|note| note.disk)
        .ok_or_else(|| Failure::new(format!("'{}' has no disk of its own", machine.name())))
}

/// `hostel set`.
pub fn set(what: &Set) -> Result<u8, Failure> {
    let (key, value) = what
        .pair
        .split_once('=')
        .ok_or_else(|| Failure::new(format!("'{}' is no KEY=VALUE", what.pair)).code(USAGE))?;
    if KEYS.iter().any(|(known, _)| *known == key) {
        if key == "client.primary-name" && !value.is_empty() {
            crate::names::check(value)?;
        }
        settings::set(key, value)?;
        return Ok(0);
    }
    let (name, member) = of_machine(key).ok_or_else(|| unknown(key))?;
    let mut connection = Connection::open()?;
    let machine = connection.machine(name)?;
    if member == "autostart" {
        let on = match value {
            "true" | "yes" | "on" | "1" => 1,
            "false" | "no" | "off" | "0" => 0,
            other => {
                return Err(Failure::new(format!("'{other}' is not true or false")).code(USAGE));
            }
        };
        connection.client.domain_set_autostart(machine.domain, on)?;
        return Ok(0);
    }
    if machine.state != State::Stopped {
        let failure = Failure::new(format!("'{name}' runs"));
        return Err(failure.hint(format!("'hostel stop {name}' first")));
    }
    if member == "disk" {
        return grow(&machine, value);
    }
    let mut definition = machine.definition.clone();
    match member {
        "cpus" => {
            let cpus: u32 =
                value.parse().ok().filter(|cpus| (1..=254).contains(cpus)).ok_or_else(|| {
                    Failure::new(format!("'{value}' is no number of processors")).code(USAGE)
                })?;
            definition.ensure("vcpu").set_text(cpus);
        }
        _ => {
            const LEAST: u64 = 96 << 20;
            let size = bytes(value).map_err(|reason| Failure::new(reason).code(USAGE))?;
            if size < LEAST {
                let failure = Failure::new(format!("{} MiB are too little memory", size >> 20));
                return Err(failure.hint(format!("{} MiB will do", LEAST >> 20)).code(USAGE));
            }
            definition.remove(|element| element.name == "currentMemory");
            *definition.ensure("memory") =
                Element::with_text("memory", size >> 10).with("unit", "KiB");
        }
    }
    connection.client.domain_define_xml(definition.to_xml())?;
    Ok(0)
}

/// A disk grows; what is in it would be lost if it shrank.
fn grow(machine: &Machine, value: &str) -> Result<u8, Failure> {
    let size = bytes(value).map_err(|reason| Failure::new(reason).code(USAGE))?;
    let disk = own_disk(machine)?;
    let now = virtual_size(&disk)?;
    if machine.note().is_some_and(|note| note.image == "spark") {
        let failure = Failure::new("The disk of 'spark' keeps the size it was launched with");
        return Err(failure.hint("'hostel launch --disk SIZE' makes a larger one"));
    }
    if size < now {
        let failure = Failure::new(format!("The disk has {} MiB and cannot shrink", now >> 20));
        return Err(failure.code(USAGE));
    }
    let path = disk.display().to_string();
    image_tool(&["resize".into(), "-q".into(), path, size.next_multiple_of(1 << 20).to_string()])?;
    Ok(0)
}
