//! The command line of the user-mode applets: QEMU's options.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use linux::locks::Mutex;

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
    /// `-d page`: the address space when the program begins.
    pub log_pages: bool,
    /// `-g`: where gdb connects, a port or the path of a socket.
    pub gdb: Option<String>,
    /// `-R`: the program's addresses are below this.
    pub reserved: Option<u64>,
    /// `-tb-size`: bytes for translated code.
    pub cache_bytes: Option<usize>,
    /// `-one-insn-per-tb`.
    pub single_instructions: bool,
    /// `-seed`: makes what the program takes for random the same each time.
    pub seed: Option<u64>,
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
    /// Show the items of `-d`.
    LogItems,
}

const STACK_BYTES: u64 = 8 << 20;

impl Options {
    /// Reads the arguments after the applet's name. `by_kernel`: binfmt_misc started us with flag P;
    /// then they are the program's path, the name it was called by, and its arguments.
    pub fn parse(arguments: &[OsString], by_kernel: bool) -> Result<Request, String> {
        let mut options = Self::from_environment()?;
        if let (true, [path, name, rest @ ..]) = (by_kernel, arguments) {
            options.argv0 = Some(name.clone());
            options.command = [std::slice::from_ref(path), rest].concat();
            return Ok(Request::Run(Box::new(options)));
        }
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
                "one-insn-per-tb" | "singlestep" => options.single_instructions = true,
                "L" | "E" | "U" | "0" | "cpu" | "s" | "d" | "D" | "r" | "g" | "B" | "R" | "p"
                | "seed" | "tb-size" => {
                    let Some(value) = rest.next() else {
                        return Err(format!("missing argument for option '{name}'"));
                    };
                    options.typed.push(value.clone());
                    if name == "g" {
                        // Programs that this one starts wait for no debugger.
                        options.typed.truncate(options.typed.len() - 2);
                    }
                    match (name.as_str(), value.as_bytes()) {
                        ("cpu", b"help" | b"?") => return Ok(Request::Cpus),
                        ("d", b"help") => return Ok(Request::LogItems),
                        _ => options.set(&name, value)?,
                    }
                }
                "dfilter" | "t" | "trace" | "plugin" | "perfmap" | "jitdump" => {
                    return Err(format!("option '{name}' is not supported"));
                }
                _ => return Err(format!("unknown option '{name}'")),
            }
        }
        options.command = rest.cloned().collect();
        if options.command.is_empty() {
            return Err("no user program specified".into());
        }
        Ok(Request::Run(Box::new(options)))
    }

    /// What QEMU's environment variables say; options come after them.
    fn from_environment() -> Result<Self, String> {
        let mut options = Self {
            prefix: None,
            environment: Vec::new(),
            argv0: None,
            cpu: None,
            stack_bytes: STACK_BYTES,
            strace: std::env::var_os("QEMU_STRACE").is_some(),
            log_unimplemented: false,
            log_pages: false,
            gdb: None,
            reserved: None,
            cache_bytes: None,
            single_instructions: std::env::var_os("QEMU_ONE_INSN_PER_TB").is_some(),
            seed: None,
            release: None,
            log_file: None,
            typed: Vec::new(),
            command: Vec::new(),
        };
        for (variable, option) in VARIABLES {
            if let Some(value) = std::env::var_os(variable) {
                options.set(option, &value).map_err(|error| format!("{variable}: {error}"))?;
            }
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &OsStr) -> Result<(), String> {
        let text = value.to_string_lossy().into_owned();
        match name {
            "L" => {
                let none = matches!(value.as_bytes(), b"" | b"/");
                self.prefix = (!none).then(|| value.into());
            }
            "g" => self.gdb = Some(text),
            "B" => match parse_address(&text) {
                Some(0) => {}
                _ => {
                    return Err(format!(
                        "-B {text}: the program's addresses are the host's, so the base is 0"
                    ));
                }
            },
            "R" => {
                let size = parse_size(&text, "R")?;
                self.reserved = (size != 0).then_some(size);
            }
            "p" if text == "4096" => {}
            "p" => return Err(format!("-p {text}: pages have 4096 bytes")),
            "seed" => {
                let seed = text.parse().map_err(|_| format!("Invalid seed number: {text}"))?;
                self.seed = Some(seed);
            }
            "tb-size" => {
                let megabytes = text.parse().ok().filter(|size| (8..=2048).contains(size));
                let megabytes: usize =
                    megabytes.ok_or_else(|| format!("Invalid size of the code cache: {text}"))?;
                self.cache_bytes = Some(megabytes << 20);
            }
            "0" => self.argv0 = Some(value.into()),
            "cpu" => self.cpu = Some(text),
            "r" => self.release = Some(text),
            "s" => {
                let size = parse_size(&text, "s")?;
                let possible = (1 << 14..=1 << 32).contains(&size);
                self.stack_bytes = if possible {
                    size
                } else {
                    return Err(format!("'-s {text}' is no possible size of a stack"));
                };
            }
            "E" => self.set_variables(value)?,
            "U" => {
                for piece in value.as_bytes().split(|&byte| byte == b',') {
                    self.environment.push((OsString::from_vec(piece.to_vec()), None));
                }
            }
            "d" => self.set_log_items(&text)?,
            _ => {
                let file = OpenOptions::new().create(true).append(true).open(value);
                let file = file.map_err(|error| format!("Cannot open {text}: {error}"))?;
                self.log_file = Some(Arc::new(Mutex::new(file)));
            }
        }
        Ok(())
    }

    /// `VARIABLE=VALUE`, several with commas.
    fn set_variables(&mut self, list: &OsStr) -> Result<(), String> {
        for piece in list.as_bytes().split(|&byte| byte == b',') {
            let at = piece.iter().position(|&byte| byte == b'=');
            let at =
                at.ok_or_else(|| format!("'-E {}' is not VARIABLE=VALUE", list.to_string_lossy()))?;
            let (variable, value) = (piece[..at].to_vec(), piece[at + 1..].to_vec());
            let value = Some(OsString::from_vec(value));
            self.environment.push((OsString::from_vec(variable), value));
        }
        Ok(())
    }

    fn set_log_items(&mut self, list: &str) -> Result<(), String> {
        for item in list.split(',') {
            match item {
                "unimp" => self.log_unimplemented = true,
                "strace" => self.strace = true,
                "page" => self.log_pages = true,
                _ => {
                    return Err(format!(
                        "log item '{item}' is not supported; '-d help' lists them"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Nobody else writes lines meanwhile.
    pub fn hold_log(&self) -> impl Sized + '_ {
        (self.log_file.as_ref().map(|file| file.lock()), std::io::stderr().lock())
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
        // The root has no name below a prefix, and its `..` is itself.
        if guest.split(|&byte| byte == b'/').all(|name| matches!(name, b"" | b"." | b"..")) {
            return b"/".to_vec();
        }
        let inside = prefix.join(OsStr::from_bytes(&guest[1..]));
        // QEMU's rule: what exists there, links followed, directories too.
        if Path::new(&inside).exists() {
            inside.into_os_string().into_vec()
        } else {
            guest.to_vec()
        }
    }
}

/// Environment variables and the options they stand for.
const VARIABLES: [(&str, &str); 14] = [
    ("QEMU_LD_PREFIX", "L"),
    ("QEMU_SET_ENV", "E"),
    ("QEMU_UNSET_ENV", "U"),
    ("QEMU_ARGV0", "0"),
    ("QEMU_CPU", "cpu"),
    ("QEMU_STACK_SIZE", "s"),
    ("QEMU_UNAME", "r"),
    ("QEMU_LOG_FILENAME", "D"),
    ("QEMU_LOG", "d"),
    ("QEMU_GDB", "g"),
    ("QEMU_GUEST_BASE", "B"),
    ("QEMU_RESERVED_VA", "R"),
    ("QEMU_RAND_SEED", "seed"),
    ("QEMU_TB_SIZE", "tb-size"),
];

/// What `-d help` shows.
pub const LOG_ITEMS: [(&str, &str); 3] = [
    ("unimp", "log unimplemented functionality"),
    ("page", "dump pages at beginning of user mode emulation"),
    ("strace", "log every user-mode syscall, its input, and its result"),
];

fn parse_address(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A number of bytes, perhaps with a unit.
fn parse_size(text: &str, option: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let size = parse_address(digits).and_then(|size| size.checked_mul(1 << shift));
    size.ok_or_else(|| format!("'-{option} {text}' is no size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Request, String> {
        Options::parse(&words.iter().map(OsString::from).collect::<Vec<_>>(), false)
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
    fn the_kernel_tells_path_and_name() {
        let words = ["/usr/bin/tool", "-tool", "-L"].map(OsString::from);
        let Ok(Request::Run(options)) = Options::parse(&words, true) else { panic!("it is a run") };
        assert_eq!(options.command, ["/usr/bin/tool", "-L"]);
        assert_eq!(options.argv0, Some("-tool".into()));
    }

    #[test]
    fn mistakes_are_named() {
        for (words, message) in [
            (&["-L"][..], "missing argument for option 'L'"),
            (&["-bogus", "x"], "unknown option 'bogus'"),
            (
                &["-B", "0x1000", "x"],
                "-B 0x1000: the program's addresses are the host's, so the base is 0",
            ),
            (&["-s", "12", "x"], "'-s 12' is no possible size of a stack"),
            (&["-R", "many", "x"], "'-R many' is no size"),
            (&["-p", "65536", "x"], "-p 65536: pages have 4096 bytes"),
            (&["-seed", "x", "x"], "Invalid seed number: x"),
            (&["-plugin", "x"], "option 'plugin' is not supported"),
            (&["-d", "in_asm", "x"], "log item 'in_asm' is not supported; '-d help' lists them"),
            (&[], "no user program specified"),
        ] {
            assert_eq!(parse(words).err().as_deref(), Some(message));
        }
    }
}
