//! `multipass`: its command lines, texts and exit codes, over our own verbs.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Map, Value, json};

use crate::arguments::{Arguments, Verb};
use crate::daemon::Connection;
use crate::failure::{Failure, USAGE};
use crate::guest;
use crate::machine::{Machine, State};
use crate::perform;
use crate::verbs::snapshot;

/// The release whose behaviour this has.
const VERSION: &str = "1.16.1";
/// Commands whose options are ours too; the rest is translated or answered here.
const SAME: &[&str] = &[
    "launch",
    "shell",
    "sh",
    "exec",
    "start",
    "stop",
    "restart",
    "suspend",
    "delete",
    "recover",
    "purge",
    "transfer",
    "copy-files",
    "mount",
    "umount",
    "unmount",
    "snapshot",
    "restore",
    "clone",
    "get",
    "set",
    "alias",
    "aliases",
    "unalias",
];
/// Known, and not there, with the reason.
const ABSENT: &[(&str, &str)] = &[
    ("authenticate", "only this user reaches the daemon, by its socket"),
    ("prefer", "aliases have one context"),
    ("enable-zones", "there are no zones"),
    ("disable-zones", "there are no zones"),
    ("zones", "there are no zones"),
];

/// Runs the applet.
pub fn run(_name: &str, arguments: &[OsString]) -> ExitCode {
    let words: Vec<String> =
        arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let Some((command, rest)) = words.split_first() else {
        print!("{}", help());
        return ExitCode::from(USAGE);
    };
    match dispatch(command, rest) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("{command} failed: {}", worded(&failure.what));
            for cause in &failure.causes {
                eprintln!("{cause}");
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Multipass's words for what scripts look for.
fn worded(what: &str) -> String {
    match what.strip_prefix("There is no machine '").and_then(|rest| rest.strip_suffix('\'')) {
        Some(name) => format!("instance \"{name}\" does not exist"),
        None => what.to_owned(),
    }
}

fn dispatch(command: &str, rest: &[String]) -> Result<u8, Failure> {
    let verbosity = |word: &&String| {
        !(word.starts_with("-v") && word[1..].chars().all(|sign| sign == 'v'))
            && *word != "--verbose"
    };
    // What belongs to a program of the instance's stays as it is.
    let end = rest.iter().position(|word| word == "--").unwrap_or(rest.len());
    let mut words: Vec<String> = rest[..end].iter().filter(verbosity).cloned().collect();
    words.extend_from_slice(&rest[end..]);
    if words.iter().take(end).any(|word| word == "-h") {
        words.retain(|word| word != "-h");
        words.push("--help".to_owned());
    }
    match command {
        "list" | "ls" if words.iter().any(|word| word == "--snapshots") => {
            ours("snapshots", &without(&words, "--snapshots"))
        }
        "list" | "ls" => list(&format_of(&words)?),
        "info" => info(&words),
        "version" => version(&format_of(&words)?),
        "find" => ours("find", &without(&words, "--force-update")),
        "networks" => ours("networks", &words),
        "help" | "--help" | "-h" => {
            print!("{}", help());
            Ok(0)
        }
        "wait-ready" => Connection::open().map(|_| 0),
        command if SAME.contains(&command) => same(command, words),
        command => match ABSENT.iter().find(|(name, _)| *name == command) {
            Some((_, reason)) => Err(Failure::new(*reason)),
            None => {
                eprintln!("Unknown command '{command}' (try 'multipass help')");
                Ok(USAGE)
            }
        },
    }
}

fn without(words: &[String], word: &str) -> Vec<String> {
    words.iter().filter(|known| *known != word).cloned().collect()
}

/// Runs a verb of ours.
fn ours(verb: &str, words: &[String]) -> Result<u8, Failure> {
    let line = ["hostel", verb].map(str::to_owned).into_iter().chain(words.iter().cloned());
    match Arguments::try_parse_from(line) {
        Ok(arguments) => perform(&arguments.verb),
        Err(error) => {
            _ = error.print();
            Ok(if error.use_stderr() { USAGE } else { 0 })
        }
    }
}

/// Commands with the same options, but for some words.
fn same(command: &str, words: Vec<String>) -> Result<u8, Failure> {
    let verb = match command {
        "sh" => "shell",
        "copy-files" => "transfer",
        "unmount" => "umount",
        command => command,
    };
    let mut translated = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => {
                (name.to_owned(), Some(value.to_owned()))
            }
            _ => (word.clone(), None),
        };
        let mut taken = || value.clone().or_else(|| words.next()).unwrap_or_default();
        match (verb, name.as_str()) {
            ("launch", "--mem") => translated.extend(["--memory".to_owned(), taken()]),
            ("exec", "-n") => translated.push("--no-map-working-directory".to_owned()),
            // Both kinds come to the same here.
            ("mount", "-t" | "--type") => _ = taken(),
            ("mount", "-u" | "--uid-map" | "-g" | "--gid-map") => {
                let text = format!("'{name}' is not there: who mounts a folder owns it inside");
                return Err(Failure::new(text));
            }
            ("start" | "restart" | "shell", "--timeout") => {
                translated.extend([name, taken()]);
            }
            ("stop", "-t" | "--time" | "-c" | "--cancel") => {
                return Err(Failure::new("delayed shutdowns are not there"));
            }
            ("restore" | "snapshot" | "clone", _) | (_, "--") => {
                translated.push(word);
                translated.extend(words.by_ref());
            }
            _ => translated.push(word),
        }
    }
    let names_none = !translated.iter().any(|word| !word.starts_with('-'));
    let is_all = translated.iter().any(|word| word == "--all");
    if matches!(verb, "start" | "stop" | "restart" | "suspend") && names_none && !is_all {
        translated.push(crate::settings::primary());
    }
    ours(verb, &translated)
}

fn format_of(words: &[String]) -> Result<String, Failure> {
    let mut words = words.iter();
    let mut format = "table".to_owned();
    while let Some(word) = words.next() {
        match (word.as_str(), word.strip_prefix("--format=")) {
            (_, Some(value)) => value.clone_into(&mut format),
            ("--format", _) => format = words.next().cloned().unwrap_or_default(),
            ("--no-ipv4", _) => {}
            (other, _) => {
                return Err(Failure::new(format!("Unknown option '{other}'.")).code(USAGE));
            }
        }
    }
    match ["table", "json", "csv", "yaml"].contains(&format.as_str()) {
        true => Ok(format),
        false => Err(Failure::new(format!("Invalid format type given: {format}")).code(USAGE)),
    }
}

/// What there is to say of an instance.
struct Instance {
    machine: Machine,
    info: Option<agent::Info>,
    snapshots: usize,
}

fn instances(names: &[&String]) -> Result<Vec<Instance>, Failure> {
    let mut connection = Connection::open()?;
    let machines = match names.is_empty() {
        true => connection.machines()?,
        false => names.iter().map(|name| connection.any_machine(name)).collect::<Result<_, _>>()?,
    };
    let mut list = Vec::new();
    for machine in machines {
        let patience = std::time::Duration::from_millis(500);
        let info = (machine.state == State::Running)
            .then(|| guest::quick_info(&machine.socket(&connection), patience))
            .flatten();
        let snapshots = snapshot::all(&mut connection, &machine)?.len();
        list.push(Instance { machine, info, snapshots });
    }
    Ok(list)
}

impl Instance {
    fn release(&self) -> String {
        let release = self.info.as_ref().map(|info| info.release.clone());
        release.or_else(|| Some(self.machine.note()?.image)).unwrap_or_default()
    }

    fn addresses(&self) -> Vec<String> {
        let all = self.info.iter().flat_map(|info| info.addresses.iter());
        all.filter(|address| address.contains('.')).cloned().collect()
    }
}

fn list(format: &str) -> Result<u8, Failure> {
    let instances = instances(&[])?;
    let rows: Vec<Value> = instances
        .iter()
        .map(|instance| {
            json!({"ipv4": instance.addresses(), "name": instance.machine.name(),
                "release": instance.release(), "state": instance.machine.state.name()})
        })
        .collect();
    match format {
        "json" => println!("{:#}", json!({"list": rows})),
        "csv" => {
            println!("Name,State,IPv4,IPv6,Release,AllIPv4");
            for row in &instances {
                let all = row.addresses();
                let (name, state) = (row.machine.name(), row.machine.state.name());
                let first = all.first().cloned().unwrap_or_default();
                println!("{name},{state},{first},,{},\"{}\"", row.release(), all.join(","));
            }
        }
        "yaml" => {
            for row in &instances {
                println!(
                    "{}:\n  - state: {}\n    ipv4:",
                    row.machine.name(),
                    row.machine.state.name()
                );
                row.addresses().iter().for_each(|address| println!("      - {address}"));
                println!("    release: {}", row.release());
            }
        }
        _ if instances.is_empty() => println!("No instances found."),
        _ => {
            let width = instances.iter().map(|row| row.machine.name().len() + 2).max().unwrap_or(0);
            let width = width.max(24);
            println!("{:<width$}{:<18}{:<17}Image", "Name", "State", "IPv4");
            for row in &instances {
                let all = row.addresses();
                let first = all.first().map_or("--", String::as_str);
                let (name, state) = (row.machine.name(), row.machine.state.name());
                println!("{name:<width$}{state:<18}{first:<17}{}", row.release());
                for more in all.iter().skip(1) {
                    println!("{:<width$}{:<18}{more}", "", "");
                }
            }
        }
    }
    Ok(0)
}

fn info(words: &[String]) -> Result<u8, Failure> {
    let is_name = |word: &&String| !word.starts_with('-');
    let names: Vec<&String> = words.iter().filter(is_name).collect();
    let format = words.iter().position(|word| word == "--format");
    let value = format.and_then(|at| words.get(at + 1));
    let names: Vec<&String> = names.into_iter().filter(|name| Some(*name) != value).collect();
    let given: Vec<String> =
        words.iter().filter(|word| word.starts_with("--format")).cloned().collect();
    let format = format_of(&[given, value.into_iter().cloned().collect()].concat())?;
    let instances = instances(&names)?;
    if format == "json" {
        let info: Map<String, Value> =
            instances.iter().map(|one| (one.machine.name().to_owned(), one.to_json())).collect();
        println!("{:#}", json!({"errors": [], "info": info}));
        return Ok(0);
    }
    if format != "table" {
        return Err(Failure::new(format!("info is shown as a table or as json, not as {format}")));
    }
    let texts: Vec<String> = instances.iter().map(Instance::text).collect();
    print!("{}", texts.join("\n"));
    Ok(0)
}

impl Instance {
    fn to_json(&self) -> Value {
        let definition = &self.machine.definition;
        let mut value = json!({"state": self.machine.state.name(), "release": self.release(),
            "cpu_count": definition.text_at("vcpu").unwrap_or_default(),
            "image_release": self.machine.note().unwrap_or_default().release,
            "image_hash": "", "ipv4": self.addresses(), "mounts": {}, "load": [], "disks": {},
            "memory": {}, "snapshot_count": self.snapshots.to_string()});
        for share in self.machine.note().unwrap_or_default().shares {
            value["mounts"][share.target] = json!({"source_path": share.source.display().to_string(),
                    "uid_mappings": [], "gid_mappings": []});
        }
        if let Some(info) = &self.info {
            value["load"] = json!(info.load);
            value["memory"] = json!({"total": info.memory.total,
                "used": info.memory.total.saturating_sub(info.memory.available)});
            value["disks"]["sda1"] =
                json!({"total": info.disk.total.to_string(), "used": info.disk.used.to_string()});
        }
        value
    }

    fn text(&self) -> String {
        let size = |bytes: u64| match bytes {
            bytes if bytes >= 1 << 30 => format!("{:.1}GiB", bytes as f64 / f64::from(1 << 30)),
            bytes => format!("{:.1}MiB", bytes as f64 / f64::from(1 << 20)),
        };
        let dashes = || "--".to_owned();
        let info = self.info.as_ref();
        let addresses = self.addresses();
        let mounts: Vec<String> = self
            .machine
            .note()
            .unwrap_or_default()
            .shares
            .iter()
            .map(|share| format!("{} => {}", share.source.display(), share.target))
            .collect();
        let or_dashes = |list: Vec<String>| {
            if list.is_empty() { dashes() } else { list.join("\n                ") }
        };
        let lines = [
            ("Name:", self.machine.name().to_owned()),
            ("State:", self.machine.state.name().to_owned()),
            ("Snapshots:", self.snapshots.to_string()),
            ("IPv4:", or_dashes(addresses)),
            ("Release:", self.release()),
            ("Image hash:", "Not Available".to_owned()),
            (
                "CPU(s):",
                info.map_or_else(dashes, |_| {
                    self.machine.definition.text_at("vcpu").unwrap_or_default()
                }),
            ),
            (
                "Load:",
                info.map_or_else(dashes, |info| info.load.map(|load| load.to_string()).join(" ")),
            ),
            (
                "Disk usage:",
                info.map_or_else(dashes, |info| {
                    format!("{} out of {}", size(info.disk.used), size(info.disk.total))
                }),
            ),
            (
                "Memory usage:",
                info.map_or_else(dashes, |info| {
                    let used = info.memory.total.saturating_sub(info.memory.available);
                    format!("{} out of {}", size(used), size(info.memory.total))
                }),
            ),
            ("Mounts:", or_dashes(mounts)),
        ];
        lines.iter().map(|(name, value)| format!("{name:<15} {value}\n")).collect()
    }
}

fn version(format: &str) -> Result<u8, Failure> {
    match format {
        "json" => println!("{:#}", json!({"multipass": VERSION, "multipassd": VERSION})),
        "yaml" => println!("multipass: {VERSION}\nmultipassd: {VERSION}"),
        "csv" => println!("Multipass,Multipassd\n{VERSION},{VERSION}"),
        _ => println!("multipass   {VERSION}\nmultipassd  {VERSION}"),
    }
    Ok(0)
}

fn help() -> String {
    let mut text =
        "Usage: multipass [options] <command>\nCreate, control and connect to instances: \
        Multipass's commands over Hostel.\n\nOptions:\n  -h, --help     Displays help\n  \
        -v, --verbose  Accepted; what is said is the same\n\nAvailable commands:\n"
            .to_owned();
    let mut names = vec!["list", "info", "version", "find", "networks", "help", "wait-ready"];
    names.extend(SAME.iter().filter(|name| !["sh", "copy-files", "unmount"].contains(name)));
    names.sort_unstable();
    for name in names {
        text.push_str(&format!("  {name}\n"));
    }
    text
}

/// Whether a parsed verb is the one a word stands for, for tests of the translation.
#[cfg(test)]
fn parses(verb: &str, words: &[&str]) -> bool {
    let line = ["hostel", verb].into_iter().chain(words.iter().copied());
    Arguments::try_parse_from(line).is_ok_and(|arguments| !matches!(arguments.verb, Verb::Purge))
}

#[cfg(not(test))]
const _: fn(&Verb) -> Result<u8, Failure> = perform;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multipasss_options_are_ours() {
        for (verb, words) in [
            ("launch", &["-n", "x", "-c", "2", "-m", "1G", "-d", "5G", "--timeout", "9"][..]),
            ("launch", &["--cloud-init", "-", "--mount", "/tmp:/mnt"]),
            ("exec", &["x", "-d", "/tmp", "--", "ls", "-l"]),
            ("transfer", &["-r", "-p", "a", "x:b"]),
            ("snapshot", &["x", "-n", "s", "-m", "text"]),
            ("restore", &["-d", "x.s"]),
            ("clone", &["x", "-n", "y"]),
            ("delete", &["-p", "x"]),
            ("alias", &["x:ls", "lsx"]),
            ("get", &["--raw", "client.primary-name"]),
        ] {
            assert!(parses(verb, words), "{verb} {words:?}");
        }
        assert_eq!(worded("There is no machine 'x'"), "instance \"x\" does not exist");
    }
}
