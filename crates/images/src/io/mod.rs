//! qemu-io: single requests on an image, for tests.

mod commands;
mod background;
mod numbers;
mod reopen;
mod report;
mod requests;

use std::io::{BufRead, Write, stdin, stdout};
use std::process::ExitCode;

use block::open::{OpenMode, parse_cache};
use block::{NodeRef, OpenOptions};
use qemu_compat::image_tool::arguments::{Flag, Typed, flag, split, with_value};
use qemu_compat::options::parse_opts;

use crate::img::opening::{check_aio, make_object};

const FLAGS: &[Flag] = &[
    flag('h', "help"),
    flag('V', "version"),
    with_value('c', "cmd"),
    with_value('f', "format"),
    flag('r', "read-only"),
    flag('s', "snapshot"),
    flag('n', "nocache"),
    flag('C', "copy-on-read"),
    flag('m', "misalign"),
    flag('k', "native-aio"),
    with_value('i', "aio"),
    with_value('t', "cache"),
    with_value('d', "discard"),
    with_value('T', "trace"),
    flag('U', "force-share"),
    flag('\0', "image-opts"),
    with_value('\0', "object"),
];

/// What commands work on.
pub struct Session {
    name: String,
    node: Option<NodeRef>,
    /// How the image was opened, for `reopen`.
    mode: OpenMode,
    /// By which name and options.
    opened: (Option<String>, OpenOptions),
    /// Names on command lines are specifications.
    image_opts: bool,
    /// Requests that run beside the commands.
    background: background::Background,
    quit: bool,
}

/// A command that failed; its text has been printed.
pub struct Failed;

/// A command's end.
type Done = Result<(), Failed>;

/// Runs qemu-io.
pub fn run(name: &str, arguments: &[String]) -> ExitCode {
    let typed = match split(FLAGS, arguments, false) {
        Ok(typed) => typed,
        Err(refusal) => {
            eprintln!("{name}: {refusal}\nTry '{name} --help' for more information.");
            return ExitCode::FAILURE;
        }
    };
    if typed.has("help") {
        print!("{}", help(name));
        return ExitCode::SUCCESS;
    }
    if typed.has("version") {
        println!("{name} version 10.0.2 (Hostel {})", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    match start(name, &typed) {
        Ok(mut session) => session.run_all(&typed),
        Err(text) => {
            eprintln!("{name}: {text}");
            ExitCode::FAILURE
        }
    }
}

fn help(name: &str) -> String {
    let mut text = format!(
        "Usage: {name} [OPTIONS]... [-c STRING]... [file]\nSingle requests on a disk image\n\n"
    );
    for flag in FLAGS {
        let letter = flag.short.map_or("    ".to_string(), |letter| format!("-{letter}, "));
        let value = if flag.value { " VALUE" } else { "" };
        text.push_str(&format!("  {letter}--{}{value}\n", flag.long));
    }
    text
}

fn start(name: &str, typed: &Typed) -> Result<Session, String> {
    for object in typed.values("object") {
        make_object(object)?;
    }
    check_aio(typed, |mode| format!("Invalid aio option: {mode}"))?;
    for option in ["trace", "misalign", "native-aio"] {
        if typed.has(option) {
            return Err(format!("The option --{option} is not supported"));
        }
    }
    let mode = mode(typed)?;
    let mut session = Session {
        name: name.to_string(),
        node: None,
        mode: mode.clone(),
        opened: (None, OpenOptions::new()),
        image_opts: typed.has("image-opts"),
        background: background::Background::default(),
        quit: false,
    };
    match typed.operands.as_slice() {
        [] => {}
        [file] => {
            if typed.has("image-opts") && typed.has("format") {
                return Err("--image-opts and -f are mutually exclusive".into());
            }
            let (name, options) = if typed.has("image-opts") {
                (None, read_options(file)?)
            } else {
                let mut options = OpenOptions::new();
                if let Some(format) = typed.value("format") {
                    options.set("driver", format);
                }
                (Some(file.clone()), options)
            };
            session.node = Some(open(name.as_deref(), &options, &mode)?);
            session.opened = (name, options);
        }
        _ => return Err("Only one file can be opened".into()),
    }
    Ok(session)
}

fn mode(typed: &Typed) -> Result<OpenMode, String> {
    let mut mode = OpenMode {
        write: !typed.has("read-only"),
        unmap: true,
        force_share: typed.has("force-share"),
        direct: typed.has("nocache"),
        copy_on_read: typed.has("copy-on-read"),
        snapshot: typed.has("snapshot"),
        // This tool's default.
        write_through: true,
        ..OpenMode::default()
    };
    if let Some(cache) = typed.value("cache") {
        mode.write_through = parse_cache(&mut mode, cache)
            .ok_or_else(|| format!("invalid cache option: {cache}"))?;
    }
    match typed.value("discard") {
        None | Some("unmap" | "on") => {}
        Some("ignore" | "off") => mode.unmap = false,
        Some(other) => return Err(format!("Invalid discard option: {other}")),
    }
    Ok(mode)
}

/// Opens an image by name, by options or by both.
fn open(name: Option<&str>, options: &OpenOptions, mode: &OpenMode) -> Result<NodeRef, String> {
    let opened = block::open::open(name, options.clone(), mode);
    let Some(file) = name else { return opened.map_err(|error| format!("can't open: {error}")) };
    warn_guess(opened, options.text("driver"), file, mode)
        .map_err(|error| format!("can't open device {file}: {error}"))
}

fn warn_guess(
    opened: block::Result<NodeRef>,
    format: Option<&str>,
    file: &str,
    mode: &OpenMode,
) -> block::Result<NodeRef> {
    let guessed_raw = format.is_none()
        && mode.write
        && !file.starts_with("json:")
        && opened.as_ref().is_ok_and(|node| node.driver() == "raw");
    if guessed_raw {
        eprintln!(
            "WARNING: Image format was not specified for '{file}' and probing guessed raw.\n         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n         Specify the 'raw' format explicitly to remove the restrictions."
        );
    }
    opened
}

/// The options of a specification.
fn read_options(spec: &str) -> Result<OpenOptions, String> {
    let pairs = parse_opts(spec, None).map_err(|error| error.to_string())?;
    let mut options = OpenOptions::new();
    for (key, value) in pairs {
        options.set(&key, value);
    }
    Ok(options)
}

impl Session {
    fn run_all(&mut self, typed: &Typed) -> ExitCode {
        let lines: Vec<&str> = typed.values("cmd").collect();
        let mut failed = false;
        if lines.is_empty() {
            failed = self.interact();
        }
        for line in lines {
            failed |= self.run_line(line).is_err();
            if self.quit {
                break;
            }
        }
        self.close();
        if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    /// Reads commands from the standard input. Says whether one failed.
    fn interact(&mut self) -> bool {
        let mut failed = false;
        let mut lines = stdin().lock().lines();
        loop {
            print!("{}> ", self.name);
            _ = stdout().flush(); // a closed output shows when something is printed
            let Some(Ok(line)) = lines.next() else { break };
            failed |= self.run_line(&line).is_err();
            if self.quit {
                break;
            }
        }
        failed
    }

    fn run_line(&mut self, line: &str) -> Done {
        let words: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        let done = match words.split_first() {
            None => Ok(()),
            Some((name, arguments)) => commands::run(self, name, arguments),
        };
        _ = stdout().flush();
        done
    }

    fn close(&mut self) {
        self.background.finish();
        // Closing writes what is buffered and stores bitmaps.
        self.node = None;
    }
}
