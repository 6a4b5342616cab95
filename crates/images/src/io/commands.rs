//! The commands of qemu-io.

use std::time::Duration;

use block::open::parse_cache;
use block::{Error, NodeRef, OpenOptions, Preallocation};
use qemu_compat::options::parse_opts;

use super::numbers::{number, sized};
use super::{Done, Failed, Session, open_named, open_spec, open_with, requests};

/// Runs one command.
pub fn run(session: &mut Session, name: &str, arguments: &[String]) -> Done {
    match name {
        "quit" | "q" => {
            session.quit = true;
            return Ok(());
        }
        "help" | "?" => {
            println!("{}", NAMES.join(" "));
            return Ok(());
        }
        "open" | "o" => return open(session, arguments),
        "abort" => std::process::abort(),
        "sleep" => return sleep(arguments),
        "sigraise" => return raise(arguments),
        _ if !NAMES.contains(&name) => {
            eprintln!("command \"{name}\" not found");
            return Err(Failed);
        }
        _ => {}
    }
    let Some(node) = session.node.clone() else {
        eprintln!("no file open, try 'help open'");
        return Err(Failed);
    };
    let writes =
        ["write", "w", "writev", "wv", "aio_write", "discard", "d", "aio_discard", "truncate", "t"];
    if writes.contains(&name) && !node.writable() {
        eprintln!("qemu-io: Block node is read-only");
        return Err(Failed);
    }
    let done = run_on(session, &node, name, arguments);
    if writes.contains(&name) && session.writethrough && done.is_ok() {
        return node.flush().map_err(|error| complain("flush", &error));
    }
    done
}

fn run_on(session: &mut Session, node: &NodeRef, name: &str, arguments: &[String]) -> Done {
    let node = node.clone();
    match name {
        "close" | "c" => {
            drop(node);
            session.close();
            Ok(())
        }
        "reopen" => {
            drop(node);
            reopen(session, arguments)
        }
        "read" | "r" => requests::read(&node, "read", arguments),
        "readv" | "rv" | "aio_read" => requests::read(&node, name, arguments),
        "write" | "w" => requests::write(&node, "write", arguments),
        "writev" | "wv" => requests::write(&node, "writev", arguments),
        "aio_write" => requests::write(&node, "aio_write", arguments),
        "discard" | "d" => requests::discard(&node, "discard", arguments),
        "aio_discard" => requests::discard(&node, "aio_discard", arguments),
        // Requests of ours end before the next command begins.
        "aio_flush" => Ok(()),
        "flush" | "f" => node.flush().map_err(|error| complain("flush", &error)),
        "truncate" | "t" => truncate(&node, arguments),
        "length" | "l" => {
            println!("{}", sized(node.size() as f64));
            Ok(())
        }
        "info" | "i" => info(&node),
        "alloc" => alloc(&node, arguments),
        _ => map(&node),
    }
}

const NAMES: &[&str] = &[
    "aio_discard",
    "aio_flush",
    "aio_read",
    "aio_write",
    "abort",
    "alloc",
    "close",
    "c",
    "discard",
    "d",
    "flush",
    "f",
    "help",
    "info",
    "i",
    "length",
    "l",
    "map",
    "open",
    "o",
    "quit",
    "q",
    "read",
    "r",
    "readv",
    "rv",
    "reopen",
    "sigraise",
    "sleep",
    "truncate",
    "t",
    "write",
    "w",
    "writev",
    "wv",
];

fn complain(what: &str, error: &Error) -> Failed {
    println!("{what}: {}", error.reason());
    Failed
}

fn open(session: &mut Session, arguments: &[String]) -> Done {
    if session.node.is_some() {
        eprintln!("file open already, try 'help close'");
        return Err(Failed);
    }
    let mut mode = session.mode.clone();
    let mut spec: Option<String> = None;
    let mut file = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "-r" => mode.write = false,
            "-n" => mode.direct = true,
            "-U" => mode.force_share = true,
            "-C" | "-k" | "-i" => return Err(unsupported(argument)),
            "-o" => spec = rest.next().cloned(),
            "-s" => return Err(unsupported("-s")),
            name => file = Some(name.to_string()),
        }
    }
    let opened = match (spec, file) {
        (Some(spec), None) => open_spec(&spec, &mode),
        (Some(spec), Some(file)) => {
            let mut options = OpenOptions::new();
            for (key, value) in parse_opts(&spec, None).unwrap_or_default() {
                options.set(&key, value);
            }
            open_with(&file, options, &mode)
        }
        (None, Some(file)) => open_named(&file, None, &mode),
        (None, None) => Err("can't open: no file given".into()),
    };
    match opened {
        Ok(node) => {
            session.node = Some(node);
            session.mode = mode;
            Ok(())
        }
        Err(text) => {
            eprintln!("qemu-io: {text}");
            Err(Failed)
        }
    }
}

fn unsupported(option: &str) -> Failed {
    eprintln!("qemu-io: The option {option} is not supported");
    Failed
}

fn reopen(session: &mut Session, arguments: &[String]) -> Done {
    let Some(node) = session.node.take() else { return Err(Failed) };
    let mut mode = session.mode.clone();
    let mut writethrough = session.writethrough;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "-r" => mode.write = false,
            "-w" => mode.write = true,
            "-c" => {
                let cache = rest.next().map(String::as_str).unwrap_or_default();
                let Some(through) = parse_cache(&mut mode, cache) else {
                    eprintln!("qemu-io: Invalid cache option: {cache}");
                    return Err(Failed);
                };
                writethrough = through;
            }
            other => return Err(unsupported(other)),
        }
    }
    let (name, driver) = (node.filename(), node.driver());
    drop(node);
    match open_named(&name, Some(driver), &mode) {
        Ok(node) => {
            session.node = Some(node);
            session.mode = mode;
            session.writethrough = writethrough;
            Ok(())
        }
        Err(text) => {
            eprintln!("qemu-io: {text}");
            Err(Failed)
        }
    }
}

fn sleep(arguments: &[String]) -> Done {
    let [text] = arguments else { return Err(Failed) };
    match text.parse() {
        Ok(milliseconds) => {
            std::thread::sleep(Duration::from_millis(milliseconds));
            Ok(())
        }
        Err(_) => {
            println!("{text} is not a valid number");
            Err(Failed)
        }
    }
}

/// Ends this process by a signal, as a crash would.
fn raise(arguments: &[String]) -> Done {
    let [text] = arguments else { return Err(Failed) };
    let signal = text.parse().ok().and_then(rustix::process::Signal::from_named_raw);
    let Some(signal) = signal else {
        println!("signal argument '{text}' is too large to be a valid signal");
        return Err(Failed);
    };
    // What was printed must be seen although nothing is closed.
    _ = std::io::Write::flush(&mut std::io::stdout());
    _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    Ok(())
}

fn truncate(node: &NodeRef, arguments: &[String]) -> Done {
    let mut preallocation = Preallocation::Off;
    let mut size = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "-m" {
            let mode = rest.next().map(String::as_str).unwrap_or_default();
            preallocation = Preallocation::parse(mode).ok_or_else(|| {
                eprintln!("qemu-io: invalid parameter value: {mode}");
                Failed
            })?;
        } else {
            size = Some(number(argument)?);
        }
    }
    let Some(size) = size else { return Err(Failed) };
    node.resize(size as u64, preallocation).map_err(|error| {
        eprintln!("qemu-io: {error}");
        Failed
    })
}

fn info(node: &NodeRef) -> Done {
    println!("format name: {}", node.driver());
    if let Some(file) = node.file() {
        println!("format name: {}", file.driver());
    }
    println!("cluster size: {}", sized(node.cluster_bytes().unwrap_or(0) as f64));
    println!("vm state offset: {}", sized(node.vm_state_offset().unwrap_or(0) as f64));
    Ok(())
}

fn alloc(node: &NodeRef, arguments: &[String]) -> Done {
    let (offset, length) = match arguments {
        [offset] => (number(offset)?, 512),
        [offset, length] => (number(offset)?, number(length)?),
        _ => return Err(Failed),
    };
    let (mut at, end) = (offset as u64, (offset + length) as u64);
    let mut allocated = 0;
    while at < end {
        let extent = node.status(at, end - at).map_err(|error| {
            println!("is_allocated failed: {}", error.reason());
            Failed
        })?;
        if extent.allocated {
            allocated += extent.length;
        }
        at += extent.length;
    }
    println!("{allocated}/{length} bytes allocated at offset {}", sized(offset as f64));
    Ok(())
}

fn map(node: &NodeRef) -> Done {
    let mut at = 0;
    while at < node.size() {
        let mut length = 0;
        let mut kind = None;
        while at + length < node.size() {
            let extent = node
                .status(at + length, node.size() - at - length)
                .map_err(|error| complain("Failed to get allocation status", &error))?;
            if *kind.get_or_insert(extent.allocated) != extent.allocated {
                break;
            }
            length += extent.length;
        }
        let word = if kind == Some(true) { "    allocated" } else { "not allocated" };
        println!(
            "{} ({length:#x}) bytes {word} at offset {} ({at:#x})",
            sized(length as f64),
            sized(at as f64)
        );
        at += length;
    }
    Ok(())
}
