//! The commands of qemu-io.

use std::time::Duration;

use block::node::DebugCommand;
use block::{Error, NodeRef, OpenOptions, Preallocation};

use super::numbers::{number, sized};
use super::reopen::reopen;
use super::{Done, Failed, Session, read_options, requests};

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
    if session.node.is_none() {
        eprintln!("no file open, try 'help open'");
        return Err(Failed);
    }
    // These must be the last to hold the node.
    match name {
        "close" | "c" => {
            session.close();
            return Ok(());
        }
        "reopen" => {
            session.background.finish();
            return reopen(session, arguments);
        }
        "aio_flush" => {
            session.background.finish();
            return Ok(());
        }
        _ => {}
    }
    let Some(node) = session.node.clone() else { return Err(Failed) };
    let writes =
        ["write", "w", "writev", "wv", "aio_write", "discard", "d", "aio_discard", "truncate", "t"];
    if writes.contains(&name) && !node.writable() {
        eprintln!("qemu-io: Block node is read-only");
        return Err(Failed);
    }
    if name.starts_with("aio_") {
        let (name, arguments) = (name.to_owned(), arguments.to_vec());
        return session.background.begin(move || run_on(&node, &name, &arguments));
    }
    if ["break", "resume", "remove_break", "wait_break"].contains(&name) {
        return breakpoint(session, &node, name, arguments);
    }
    run_on(&node, name, arguments)
}

fn run_on(node: &NodeRef, name: &str, arguments: &[String]) -> Done {
    match name {
        "read" | "r" => requests::read(node, "read", arguments),
        "readv" | "rv" => requests::read(node, "readv", arguments),
        "aio_read" => requests::read(node, name, arguments),
        "write" | "w" => requests::write(node, "write", arguments),
        "writev" | "wv" => requests::write(node, "writev", arguments),
        "aio_write" => requests::write(node, "aio_write", arguments),
        "discard" | "d" => requests::discard(node, "discard", arguments),
        "aio_discard" => requests::discard(node, "aio_discard", arguments),
        "flush" | "f" => node.flush().map_err(|error| complain("flush", &error)),
        "truncate" | "t" => truncate(node, arguments),
        "length" | "l" => {
            println!("{}", sized(node.size() as f64));
            Ok(())
        }
        "info" | "i" => info(node),
        "alloc" => alloc(node, arguments),
        _ => map(node),
    }
}

/// Stops requests at events of fault injection, and lets them go on.
fn breakpoint(session: &mut Session, node: &NodeRef, name: &str, arguments: &[String]) -> Done {
    let command = match (name, arguments) {
        ("break", [event, tag]) => {
            session.background.breakpoints_are_set();
            DebugCommand::Break { event: event.clone(), tag: tag.clone() }
        }
        ("resume", [tag]) => DebugCommand::Resume { tag: tag.clone() },
        ("remove_break", [tag]) => DebugCommand::Remove { tag: tag.clone() },
        ("wait_break", [tag]) => {
            let command = DebugCommand::IsStopped { tag: tag.clone() };
            while !node.debug(&command).unwrap_or(true) {
                std::thread::sleep(Duration::from_millis(1));
            }
            return Ok(());
        }
        _ => {
            eprintln!("bad argument count to {name}");
            return Err(Failed);
        }
    };
    let done = node.debug(&command).map(|_| ());
    if name == "resume" {
        // What goes on ends before the next command, if nothing else holds it up.
        std::thread::sleep(Duration::from_millis(20));
    }
    done.map_err(|error| match name {
        "break" => complain("Could not set a breakpoint", &error),
        "resume" => complain("Could not resume request", &error),
        _ => complain(&format!("Could not remove breakpoint {}", arguments[0]), &error),
    })
}

const NAMES: &[&str] = &[
    "aio_discard",
    "aio_flush",
    "aio_read",
    "aio_write",
    "abort",
    "alloc",
    "break",
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
    "remove_break",
    "reopen",
    "resume",
    "sigraise",
    "sleep",
    "truncate",
    "wait_break",
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
            "-C" => mode.copy_on_read = true,
            "-s" => mode.snapshot = true,
            "-k" | "-i" => return Err(unsupported(argument)),
            "-o" => spec = rest.next().cloned(),
            name => file = Some(name.to_string()),
        }
    }
    let refuse = |text: String| {
        eprintln!("qemu-io: {text}");
        Failed
    };
    if spec.is_none() && file.is_none() {
        return Err(refuse("can't open: no file given".into()));
    }
    let (spec, file) = match file {
        Some(file) if session.image_opts && spec.is_none() => (Some(file), None),
        file => (spec, file),
    };
    let options = spec.map_or_else(|| Ok(OpenOptions::new()), |spec| read_options(&spec));
    let options = options.map_err(refuse)?;
    session.node = Some(super::open(file.as_deref(), &options, &mode).map_err(refuse)?);
    session.opened = (file, options);
    session.mode = mode;
    Ok(())
}

fn unsupported(option: &str) -> Failed {
    eprintln!("qemu-io: The option {option} is not supported");
    Failed
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
    // A protocol's name is said twice: as what it is and as what it reads from.
    let is_format = block::formats::find(node.driver()).is_some();
    if !is_format {
        println!("format name: {}", node.driver());
    }
    if node.cluster_bytes().is_none() && !is_format && node.driver() != "file" {
        return Ok(());
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
    // What lies behind the end does not count.
    let end = end.min(node.size()).max(at);
    let length = end - at;
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
