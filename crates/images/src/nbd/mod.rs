//! qemu-nbd: serves an image to other programs.

mod listening;

use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use block::formats::raw::window;
use block::nbd::server::{Export, bitmap_owner};
use block::open::{OpenMode, parse_cache};
use block::options::parse_size;
use block::{NodeRef, OpenOptions};
use qemu_compat::image_tool::arguments::{Flag, Typed, flag, split, with_value};
use qemu_compat::options::parse_opts;

use crate::img::opening::{check_aio, make_object};

use listening::{Listener, Sharing};

const FLAGS: &[Flag] = &[
    flag('h', "help"),
    flag('V', "version"),
    with_value('b', "bind"),
    with_value('p', "port"),
    with_value('k', "socket"),
    with_value('e', "shared"),
    flag('t', "persistent"),
    flag('v', "verbose"),
    with_value('x', "export-name"),
    with_value('D', "description"),
    with_value('o', "offset"),
    flag('A', "allocation-depth"),
    with_value('B', "bitmap"),
    flag('L', "list"),
    with_value('c', "connect"),
    flag('d', "disconnect"),
    with_value('f', "format"),
    flag('r', "read-only"),
    flag('s', "snapshot"),
    with_value('l', "load-snapshot"),
    flag('n', "nocache"),
    with_value('\0', "cache"),
    with_value('\0', "aio"),
    with_value('\0', "discard"),
    with_value('\0', "detect-zeroes"),
    flag('\0', "image-opts"),
    flag('\0', "fork"),
    with_value('\0', "pid-file"),
    with_value('T', "trace"),
    with_value('\0', "object"),
    with_value('\0', "tls-creds"),
    with_value('\0', "tls-authz"),
    with_value('\0', "tls-hostname"),
    with_value('\0', "selinux-label"),
    with_value('\0', "handshake-limit"),
];

/// What this program does not do. Saying so is better than serving something else.
const UNSUPPORTED: [&str; 9] = [
    "list",
    "connect",
    "disconnect",
    "trace",
    "tls-creds",
    "tls-authz",
    "tls-hostname",
    "selinux-label",
    "handshake-limit",
];

/// Set for the process behind `--fork`, which says on its standard output when it listens.
const READY_VARIABLE: &str = "HOSTEL_NBD_READY";

/// Runs qemu-nbd.
pub fn run(name: &str, arguments: &[String]) -> ExitCode {
    let typed = match split(FLAGS, arguments, false) {
        Ok(typed) => typed,
        Err(refusal) => {
            eprintln!("{name}: {refusal}\nTry `{name} --help' for more information.");
            return ExitCode::FAILURE;
        }
    };
    if typed.has("help") {
        print!("{}", help(name));
        return ExitCode::SUCCESS;
    }
    if typed.has("version") {
        println!("{name} 10.0.2 (Hostel {})", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let outcome = if typed.has("fork") { fork(name, arguments) } else { serve(&typed) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{name}: {text}");
            ExitCode::FAILURE
        }
    }
}

fn help(name: &str) -> String {
    let mut text =
        format!("Usage: {name} [OPTIONS] FILE\nServe a disk image over the NBD protocol\n\n");
    for flag in FLAGS.iter().filter(|flag| !UNSUPPORTED.contains(&flag.long)) {
        let letter = flag.short.map_or("    ".to_string(), |letter| format!("-{letter}, "));
        let value = if flag.value { "=VALUE" } else { "" };
        text.push_str(&format!("  {letter}--{}{value}\n", flag.long));
    }
    text
}

/// Goes to the background: the same program again, which outlives this one.
fn fork(name: &str, arguments: &[String]) -> Result<(), String> {
    use std::io::Read;
    use std::os::unix::process::CommandExt;
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let rest = arguments.iter().filter(|argument| *argument != "--fork");
    let mut child = Command::new(own)
        .arg(name)
        .args(rest)
        .env(READY_VARIABLE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("Failed to fork: {error}"))?;
    let mut ready = [0; 1];
    let said = child.stdout.take().map(|mut out| out.read(&mut ready));
    match said {
        Some(Ok(1)) => Ok(()),
        // It has said on the error output why.
        _ => std::process::exit(child.wait().ok().and_then(|status| status.code()).unwrap_or(1)),
    }
}

fn serve(typed: &Typed) -> Result<(), String> {
    if let Some(option) = UNSUPPORTED.iter().find(|option| typed.has(option)) {
        return Err(format!("The option --{option} is not supported"));
    }
    for object in typed.values("object") {
        make_object(object)?;
    }
    let [name] = typed.operands.as_slice() else {
        return Err(
            "Invalid number of arguments\nTry `qemu-nbd --help' for more information.".into()
        );
    };
    let node = open(typed, name)?;
    let shared: usize = match typed.value("shared") {
        None => 1,
        Some(text) => text.parse().map_err(|_| format!("Invalid shared device number '{text}'"))?,
    };
    let bitmaps: Vec<String> = typed.values("bitmap").map(str::to_string).collect();
    for bitmap in &bitmaps {
        if bitmap_owner(&node, bitmap).is_none() {
            return Err(format!("Bitmap '{bitmap}' is not found"));
        }
    }
    let export = Export {
        name: typed.value("export-name").unwrap_or_default().to_string(),
        description: typed.value("description").map(str::to_string),
        writable: node.writable(),
        shared: shared != 1,
        bitmaps,
        allocation_depth: typed.has("allocation-depth"),
        node,
    };
    let listener = Listener::new(typed)?;
    if let Some(path) = typed.value("pid-file") {
        fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|error| format!("Cannot create '{path}': {error}"))?;
    }
    if std::env::var_os(READY_VARIABLE).is_some() {
        println!("r");
        if !typed.has("verbose") {
            // Who started us may wait for the end of our error output.
            silence()?;
        }
    }
    let sharing = Sharing { at_once: shared, persistent: typed.has("persistent") };
    let outcome = listener.serve(&Arc::new(export), &sharing);
    if let Some(path) = typed.value("pid-file") {
        _ = fs::remove_file(path); // another program may have tidied up
    }
    outcome
}

/// Lets the error output of a process in the background go.
fn silence() -> Result<(), String> {
    let nowhere = fs::File::options().write(true).open("/dev/null");
    let nowhere = nowhere.map_err(|error| format!("Cannot open /dev/null: {error}"))?;
    rustix::stdio::dup2_stderr(&nowhere).map_err(|error| format!("Failed to fork: {error}"))
}

fn open(typed: &Typed, name: &str) -> Result<NodeRef, String> {
    let mut mode = OpenMode {
        write: !typed.has("read-only") && !typed.has("load-snapshot"),
        direct: typed.has("nocache"),
        ..OpenMode::default()
    };
    if let Some(cache) = typed.value("cache") {
        let through = parse_cache(&mut mode, cache);
        match through {
            None => return Err(format!("Invalid cache mode `{cache}'")),
            Some(through) => mode.write_through = through,
        }
    }
    check_aio(typed, |mode| format!("invalid aio mode `{mode}'"))?;
    match typed.value("discard") {
        None | Some("ignore" | "off") => {}
        Some("unmap" | "on") => mode.unmap = true,
        Some(other) => return Err(format!("Invalid discard mode `{other}'")),
    }
    mode.snapshot = typed.has("snapshot");
    let mut options = OpenOptions::new();
    if let Some(name) = typed.value("detect-zeroes") {
        options.set("detect-zeroes", name);
    }
    let file = if typed.has("image-opts") {
        if typed.has("format") {
            return Err("--image-opts and -f are mutually exclusive".into());
        }
        for (key, value) in parse_opts(name, Some("file")).map_err(|error| error.to_string())? {
            options.set(&key, value);
        }
        None
    } else {
        if let Some(format) = typed.value("format") {
            options.set("driver", format);
        }
        Some(name)
    };
    let node = block::open::open(file, options, &mode)
        .map_err(|error| format!("Failed to blk_new_open '{name}': {error}"))?;
    let node = match typed.value("offset") {
        None => node,
        Some(text) => {
            let offset =
                parse_size("offset", text).map_err(|_| format!("Invalid offset '{text}'"))?;
            if offset > node.size() {
                return Err(format!(
                    "Offset ({offset}) has to be smaller than the image size ({})",
                    node.size()
                ));
            }
            window(node, offset)
        }
    };
    let Some(snapshot) = typed.value("load-snapshot") else { return Ok(node) };
    let failed = |text: &str| format!("Failed to load snapshot: {text}");
    let snapshots = node.snapshots().ok_or_else(|| failed("the format has no snapshots"))?;
    let wanted = snapshot.rsplit_once('=').map_or(snapshot, |(_, value)| value);
    let list = snapshots.list();
    let found = list.iter().find(|row| row.id == wanted || row.name == wanted);
    let found = found.ok_or_else(|| failed("Can't find snapshot"))?;
    snapshots.open(&found.id).map_err(|error| failed(&error.to_string()))
}
