//! `alias`, `aliases`, `unalias`: programs of machines under names of this host: small scripts in a
//! folder for the PATH.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Map;

use crate::arguments::{Alias, List as Listing, Unalias};
use crate::daemon::{Connection, Places};
use crate::failure::{Failure, USAGE};
use crate::output::List;

/// Our scripts have this as their second line, with what they stand for behind it.
const MARK: &str = "# hostel alias ";

fn folder() -> PathBuf {
    Places::of_session().state.join("aliases")
}

fn failed(error: &io::Error) -> Failure {
    Failure::new(format!("The names in {} cannot be changed", folder().display())).because(error)
}

/// `hostel alias`.
pub fn make(what: &Alias) -> Result<u8, Failure> {
    let wrong = || {
        let failure = Failure::new(format!("'{}' is no MACHINE:PROGRAM", what.definition));
        failure.hint("such as web:htop").code(USAGE)
    };
    let (machine, program) = what.definition.split_once(':').ok_or_else(wrong)?;
    if machine.is_empty() || program.is_empty() {
        return Err(wrong());
    }
    Connection::open()?.machine(machine)?;
    let last = program.rsplit('/').next().unwrap_or(program);
    let name = what.name.as_deref().unwrap_or(last);
    let good = |sign: char| sign.is_ascii_alphanumeric() || "-_.+".contains(sign);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(good) {
        return Err(Failure::new(format!("'{name}' cannot be the name of a program")).code(USAGE));
    }
    let path = folder().join(name);
    if path.exists() {
        let failure = Failure::new(format!("There is an alias '{name}' already")).code(USAGE);
        return Err(failure.hint(format!("'hostel unalias {name}' forgets it")));
    }
    let own = std::env::current_exe().map_err(|error| failed(&error))?;
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let here = if what.no_map_working_directory { " --no-map-working-directory" } else { "" };
    let script = format!(
        "#!/bin/sh\n{MARK}{machine}:{program}\nexec {} exec{here} {} -- {} \"$@\"\n",
        quoted(&own.display().to_string()),
        quoted(machine),
        quoted(program),
    );
    fs::create_dir_all(folder())
        .and_then(|()| fs::write(&path, script))
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .map_err(|error| failed(&error))?;
    let in_path = std::env::var_os("PATH")
        .is_some_and(|paths| std::env::split_paths(&paths).any(|path| path == folder()));
    if !in_path {
        eprintln!("To use it by its name: export PATH=\"$PATH:{}\"", folder().display());
    }
    Ok(0)
}

/// Names, and what they stand for.
fn all() -> Vec<(String, String)> {
    let entries = fs::read_dir(folder()).into_iter().flatten().flatten();
    let alias = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path()).ok()?;
        let definition = text.lines().nth(1)?.strip_prefix(MARK)?;
        Some((entry.file_name().into_string().ok()?, definition.to_owned()))
    };
    let mut list: Vec<_> = entries.filter_map(alias).collect();
    list.sort();
    list
}

/// `hostel aliases`.
pub fn list(what: &Listing) -> Result<u8, Failure> {
    let row = |(name, definition): (String, String)| {
        let (machine, program) = definition.split_once(':').unwrap_or_default();
        let mut row = Map::new();
        row.insert("alias".into(), name.into());
        row.insert("machine".into(), machine.into());
        row.insert("program".into(), program.into());
        row
    };
    let list = List {
        name: "aliases",
        columns: &[("Alias", "alias"), ("Machine", "machine"), ("Program", "program")],
        rows: all().into_iter().map(row).collect(),
        empty: "No aliases. 'hostel alias MACHINE:PROGRAM' makes one.",
    };
    list.print(what.format)?;
    Ok(0)
}

/// `hostel unalias`.
pub fn remove(what: &Unalias) -> Result<u8, Failure> {
    let known = all();
    let names: Vec<String> = match what.all {
        true => known.iter().map(|(name, _)| name.clone()).collect(),
        false => what.names.clone(),
    };
    for name in names {
        if !known.iter().any(|(alias, _)| *alias == name) {
            return Err(Failure::new(format!("There is no alias '{name}'")).code(USAGE));
        }
        fs::remove_file(folder().join(&name)).map_err(|error| failed(&error))?;
    }
    Ok(0)
}

/// A machine is gone, and so are the names of its programs.
pub fn forget(machine: &str) {
    for (name, definition) in all() {
        if definition.split_once(':').is_some_and(|(known, _)| known == machine) {
            _ = fs::remove_file(folder().join(name));
        }
    }
}
