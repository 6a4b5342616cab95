//! `reopen`: the same image with other options.

use block::OpenOptions;
use block::open::parse_cache;
use block::options::parse_bool;

use super::{Done, Failed, Session, open, read_options};

/// Options that stay as they are, with the path of the node that has them.
const FIXED: [&str; 2] = ["node-name", "driver"];
const CACHE: [&str; 2] = ["cache.direct", "cache.no-flush"];
const SWITCHES: [&str; 4] = ["read-only", "auto-read-only", "cache.direct", "cache.no-flush"];

fn refuse(text: &str) -> Failed {
    eprintln!("qemu-io: {text}");
    Failed
}

/// Runs the command.
pub fn reopen(session: &mut Session, arguments: &[String]) -> Done {
    let mut mode = session.mode.clone();
    let mut changes = OpenOptions::new();
    let (mut access, mut cache) = (false, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "-r" | "-w" => {
                if access {
                    return Err(refuse("Only one -r/-w option can be given"));
                }
                access = true;
                mode.write = argument == "-w";
            }
            "-c" => {
                let name = rest.next().map(String::as_str).unwrap_or_default();
                cache = true;
                mode.write_through = parse_cache(&mut mode, name)
                    .ok_or_else(|| refuse(&format!("Invalid cache option: {name}")))?;
            }
            "-o" => {
                let spec = rest.next().map(String::as_str).unwrap_or_default();
                changes = read_options(spec).map_err(|text| refuse(&text))?;
            }
            other => {
                eprintln!("qemu-io: The option {other} is not supported");
                return Err(Failed);
            }
        }
    }
    if access && changes.contains("read-only") {
        return Err(refuse("Cannot set both -r/-w and 'read-only'"));
    }
    if cache && CACHE.iter().any(|key| changes.contains(key)) {
        return Err(refuse("Cannot set both -c and the cache options"));
    }
    check(session, &changes)?;
    replace(session, &changes, &mode)
}

/// What cannot be changed must be as it is.
fn check(session: &Session, changes: &OpenOptions) -> Done {
    let Some(node) = &session.node else { return Err(Failed) };
    for (path, node) in
        [("", Some(node.clone())), ("file.", node.file()), ("backing.", node.backing())]
    {
        for name in FIXED {
            let key = format!("{path}{name}");
            let Some(wanted) = changes.text(&key) else { continue };
            let own = match (name, &node) {
                ("driver", Some(node)) => Some(node.driver()),
                _ => session.opened.1.text(&key),
            };
            if own != Some(wanted) {
                return Err(refuse(&format!("Cannot change the option '{name}'")));
            }
        }
    }
    for key in SWITCHES {
        if let Some(text) = changes.text(key) {
            parse_bool(key, text).map_err(|error| refuse(&error.to_string()))?;
        }
    }
    Ok(())
}

/// Closes the image and opens it anew; as it was, if that does not work.
fn replace(session: &mut Session, changes: &OpenOptions, mode: &block::open::OpenMode) -> Done {
    let (name, before) = session.opened.clone();
    let driver = session.node.as_ref().map(|node| node.driver());
    let mut options = before.clone();
    if let Some(driver) = driver {
        options.set_default("driver", driver);
    }
    for (key, value) in changes.iter() {
        options.set(key, value.clone());
    }
    session.close();
    let name = name.as_deref();
    match block::open::open(name, options.clone(), mode) {
        Ok(node) => {
            session.node = Some(node);
            session.mode = mode.clone();
            session.opened.1 = options;
            Ok(())
        }
        Err(error) => {
            eprintln!("qemu-io: {error}");
            session.node = open(name, &before, &session.mode).ok();
            Err(Failed)
        }
    }
}
