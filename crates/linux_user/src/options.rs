//! The command line of the user-mode applets: QEMU's options.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// `-L`: where the guest's libraries are.
    pub prefix: Option<PathBuf>,
    /// `-E`, `-U`.
    pub environment: Vec<(OsString, Option<OsString>)>,
    /// `-0`.
    pub argv0: Option<OsString>,
    /// `-cpu`.
    pub cpu: Option<String>,
    /// `-s`: bytes of stack.
    pub stack_bytes: u64,
    /// `-strace`.
    pub strace: bool,
    /// `-d unimp`.
    pub log_unimplemented: bool,
    /// `-r`: the release `uname` tells.
    pub release: Option<String>,
    /// `-D`.
    log_file: Option<Arc<Mutex<File>>>,
    /// The options as they were typed, for exec.
    pub typed: Vec<OsString>,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

/// What the command line asks for.
pub enum Request {
    /// Run a program.
    Run(Box<Options>),
    /// Show the help page.
    Help,
    /// Show the version.
    Version,
    /// Show the CPUs.
    Cpus,
}

const STACK_BYTES: u64 = 8 << 20;

impl Options {
    /// Reads the arguments after the applet's name.
    pub fn parse(arguments: &[OsString]) -> Result<Request, String> {
        let mut options = Self {
            prefix: std::env::var_os("QEMU_LD_PREFIX").map(PathBuf::from),
            environment: Vec::new(),
            argv0: std::env::var_os("QEMU_ARGV0"),
            cpu: std::env::var("QEMU_CPU").ok(),
            stack_bytes: STACK_BYTES,
            strace: std::env::var_os("QEMU_STRACE").is_some(),
            log_unimplemented: false,
            release: std::env::var("QEMU_UNAME").ok(),
            log_file: None,
            typed: Vec::new(),
            command: Vec::new(),
        };
        let mut rest = arguments.iter();
        while let Some(word) = rest.as_slice().first() {
            let Some(name) = word.as_bytes().strip_prefix(b"-").filter(|name| !name.is_empty())
            else {
                break;
            };
            let name = name.strip_prefix(b"-").unwrap_or(name);
            rest.next();
            options.typed.push(word.clone());
            let name = String::from_utf8_lossy(name).into_owned();
            match name.as_str() {
                "h" | "help" => return Ok(Request::Help),
                "version" => return Ok(Request::Version),
                "strace" => options.strace = true,
                "L" | "E" | "U" | "0" | "cpu" | "s" | "d" | "D" | "r" => {
                    let Some(value) = rest.next() else {
                        return Err(format!("Option '-{name}' needs an argument"));
                    };
                    options.typed.push(value.clone());
                    if name == "cpu" && (value == "help" || value == "?") {
                        return Ok(Request::Cpus);
                    }
                    options.set(&name, value)?;
                }
                "g" | "B" | "R" | "p" | "one-insn-per-tb" | "singlestep" | "seed" | "trace"
                | "plugin" => return Err(format!("Option '-{name}' is not supported yet")),
                _ => return Err(format!("Unknown option '-{name}'")),
            }
        }
        options.command = rest.cloned().collect();
        if options.command.is_empty() {
            return Err("No program was given".into());
        }
        Ok(Request::Run(Box::new(options)))
    }

    fn set(&mut self, name: &str, value: &OsStr) -> Result<(), String> {
        let text = value.to_string_lossy().into_owned();
        match name {
            "L" => self.prefix = Some(value.into()),
            "0" => self.argv0 = Some(value.into()),
            "cpu" => self.cpu = Some(text),
            "r" => self.release = Some(text),
            "s" => self.stack_bytes = parse_size(&text)?,
            "E" => {
                for piece in value.as_bytes().split(|&byte| byte == b',') {
                    let at = piece.iter().position(|&byte| byte == b'=');
                    let at = at.ok_or_else(|| format!("'-E {text}' is not VARIABLE=VALUE"))?;
                    let (variable, value) = (piece[..at].to_vec(), piece[at + 1..].to_vec());
                    let value = Some(OsString::from_vec(value));
                    self.environment.push((OsString::from_vec(variable), value));
                }
            }
            "U" => {
                for piece in value.as_bytes().split(|&byte| byte == b',') {
                    self.environment.push((OsString::from_vec(piece.to_vec()), None));
                }
            }
            "d" => {
                for item in text.split(',') {
                    match item {
                        "unimp" => self.log_unimplemented = true,
                        "strace" => self.strace = true,
                        _ => return Err(format!("Log item '{item}' is not supported yet")),
                    }
                }
            }
            _ => {
                let file = OpenOptions::new().create(true).append(true).open(value);
                let file = file.map_err(|error| format!("Cannot open {text}: {error}"))?;
                self.log_file = Some(Arc::new(Mutex::new(file)));
            }
        }
        Ok(())
    }

    /// A line for `-d` and `-strace`.
    pub fn log(&self, line: &str) {
        match &self.log_file {
            Some(file) => _ = file.lock().write_all(line.as_bytes()),
            None => eprint!("{line}"),
        }
    }

    /// Where the guest's absolute path is on the host: below the prefix if it is there.
    pub fn path(&self, guest: &[u8]) -> Vec<u8> {
        let Some(prefix) = self.prefix.as_ref().filter(|_| guest.first() == Some(&b'/')) else {
            return guest.to_vec();
        };
        let inside = prefix.join(OsStr::from_bytes(&guest[1..]));
        // A name is enough: links inside the prefix may point anywhere.
        match Path::new(&inside).symlink_metadata() {
            Ok(_) => inside.into_os_string().into_vec(),
            Err(_) => guest.to_vec(),
        }
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let size = digits.parse::<u64>().ok().and_then(|size| size.checked_mul(1 << shift));
    size.filter(|size| (1 << 14..=1 << 32).contains(size))
        .ok_or_else(|| format!("'-s {text}' is no possible size of a stack"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Request, String> {
        Options::parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_end_at_the_program() {
        let Ok(Request::Run(options)) = parse(&["-E", "A=1,B=2", "-s", "1M", "prog", "-L"]) else {
            panic!("it is a run");
        };
        assert_eq!(options.command, ["prog", "-L"]);
        assert_eq!(options.stack_bytes, 1 << 20);
        assert_eq!(options.environment.len(), 2);
    }

    #[test]
    fn mistakes_are_named() {
        for (words, message) in [
            (&["-L"][..], "Option '-L' needs an argument"),
            (&["-bogus", "x"], "Unknown option '-bogus'"),
            (&["-g", "1234", "x"], "Option '-g' is not supported yet"),
            (&["-d", "in_asm", "x"], "Log item 'in_asm' is not supported yet"),
            (&[], "No program was given"),
        ] {
            assert_eq!(parse(words).err().as_deref(), Some(message));
        }
    }
}
