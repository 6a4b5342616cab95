//! The command line, as far as it is built. What is not is refused by name.

use std::collections::VecDeque;
use std::ffi::OsString;

use crate::size::parse_mebibytes;

/// QEMU's default.
const RAM_DEFAULT: u64 = 128 << 20;
const CACHE_DEFAULT_BYTES: usize = 128 << 20;

/// What the command line asks for.
pub enum Action {
    /// `-version`.
    Version,
    /// A help text.
    Print(String),
    /// A machine.
    Run(Box<Options>),
}

/// COM1's peer.
#[derive(Debug, PartialEq, Eq)]
pub enum SerialPeer {
    /// There is no COM1.
    None,
    /// Nobody.
    Null,
    /// The terminal; with Ctrl-A commands or without.
    Stdio {
        /// See above.
        escapes: bool,
    },
    /// A file.
    File(String),
}

/// The options, resolved.
#[derive(Debug)]
pub struct Options {
    pub kernel: String,
    pub initrd: Option<String>,
    pub append: String,
    pub ram_bytes: u64,
    pub processors: usize,
    pub serial: SerialPeer,
    pub debug_exit: Option<u16>,
    pub no_reboot: bool,
    pub cache_bytes: usize,
}

/// What was typed so far.
#[derive(Default)]
struct Typed {
    kernel: Option<String>,
    initrd: Option<String>,
    append: Option<String>,
    ram_bytes: Option<u64>,
    processors: Option<usize>,
    serial: Option<SerialPeer>,
    nographic: bool,
    debug_exit: Option<u16>,
    no_reboot: bool,
    cache_bytes: Option<usize>,
}

const HELP: &str = "\
Options that are built (QEMU's others are refused by name):
-version            display version information and exit
-machine [type=]pc  the board; '-machine help' lists them (-M is the same)
-accel jit[,tb-size=N]
                    our translator (also by the name tcg), with N MiB of code cache
-cpu qemu64|max     the processor, which is the translator's one
-smp [cpus=]n       the number of CPUs
-m [size=]megs      RAM, with an optional suffix (default: 128 MiB)
-kernel bzImage     the Linux kernel to boot
-initrd file        its initial RAM disk
-append cmdline     its command line
-serial dev         COM1: stdio, mon:stdio, null, none, file:PATH
-nographic          no screen, COM1 on the terminal
-display none       no screen
-vga none           no graphics card
-monitor none       no monitor
-nodefaults         no default devices
-no-user-config     no configuration file is read in any case
-net none, -nic none
                    no network card
-device isa-debug-exit[,iobase=PORT]
                    a port that ends the emulator
-no-reboot          exit instead of rebooting
-name string        the machine's name
";

const MACHINES: &str = "\
Supported machines are:
pc                   Standard PC without firmware, for direct kernel boot (default)
";

impl Options {
    /// Reads the command line. Errors are QEMU's, without the program's name.
    pub fn parse(arguments: &[OsString]) -> Result<Action, String> {
        let mut typed = Typed::default();
        let mut rest: VecDeque<String> = VecDeque::with_capacity(arguments.len());
        for argument in arguments {
            let text = argument.to_str().ok_or("an argument is not UTF-8")?;
            rest.push_back(text.to_owned());
        }
        while let Some(word) = rest.pop_front() {
            let Some(option) = word.strip_prefix('-') else {
                return Err(format!("{word}: disk images are not built yet"));
            };
            let option = option.strip_prefix('-').unwrap_or(option);
            match option {
                "version" | "V" => return Ok(Action::Version),
                "help" | "h" => {
                    let usage = "usage: qemu-system-x86_64 [options] -kernel bzImage\n\n";
                    return Ok(Action::Print(format!("{usage}{HELP}")));
                }
                _ => {}
            }
            if let Some(action) = typed.take(option, &mut rest)? {
                return Ok(action);
            }
        }
        typed.resolve().map(|options| Action::Run(Box::new(options)))
    }
}

impl Typed {
    /// Takes one option with its argument.
    fn take(
        &mut self,
        option: &str,
        rest: &mut VecDeque<String>,
    ) -> Result<Option<Action>, String> {
        match option {
            "nographic" => self.nographic = true,
            "no-reboot" => self.no_reboot = true,
            "nodefaults" => {
                self.serial.get_or_insert(SerialPeer::None);
            }
            "no-user-config" => {}
            _ => {
                let takes_argument = [
                    "machine", "M", "accel", "cpu", "smp", "m", "kernel", "initrd", "append",
                    "serial", "display", "vga", "monitor", "net", "nic", "device", "name",
                ];
                if !takes_argument.contains(&option) {
                    return Err(format!("-{option}: invalid option"));
                }
                let missing = || format!("-{option}: requires an argument");
                let value = rest.pop_front().ok_or_else(missing)?;
                return self.take_with(option, &value);
            }
        }
        Ok(None)
    }

    fn take_with(&mut self, option: &str, value: &str) -> Result<Option<Action>, String> {
        let refuse = |what: &str| Err(format!("-{option} {value}: {what}"));
        match option {
            "machine" | "M" if value == "help" => {
                return Ok(Some(Action::Print(MACHINES.to_owned())));
            }
            "machine" | "M" => machine(value)?,
            "accel" => self.cache_bytes = accelerator(value)?,
            "cpu" if matches!(value, "qemu64" | "max") => {}
            "cpu" => return Err(format!("unable to find CPU model '{value}'")),
            "smp" => self.processors = Some(processors(value)?),
            "m" => self.ram_bytes = Some(ram(value)?),
            "kernel" => self.kernel = Some(value.to_owned()),
            "initrd" => self.initrd = Some(value.to_owned()),
            "append" => self.append = Some(value.to_owned()),
            "serial" => self.serial = Some(serial(value)?),
            "display" | "vga" | "monitor" | "net" | "nic" if value == "none" => {}
            "display" | "vga" | "monitor" | "net" | "nic" => {
                return refuse("only 'none' is built yet");
            }
            "device" => self.debug_exit = Some(device(value)?),
            _ => {} // -name: nothing shows it yet but the command line itself
        }
        Ok(None)
    }

    fn resolve(self) -> Result<Options, String> {
        let kernel =
            self.kernel.ok_or("no kernel given (-kernel), and firmware is not built yet")?;
        let serial = self.serial.unwrap_or(match self.nographic {
            true => SerialPeer::Stdio { escapes: true },
            false => SerialPeer::Stdio { escapes: false },
        });
        Ok(Options {
            kernel,
            initrd: self.initrd,
            append: self.append.unwrap_or_default(),
            ram_bytes: self.ram_bytes.unwrap_or(RAM_DEFAULT),
            processors: self.processors.unwrap_or(1),
            serial,
            debug_exit: self.debug_exit,
            no_reboot: self.no_reboot,
            cache_bytes: self.cache_bytes.unwrap_or(CACHE_DEFAULT_BYTES),
        })
    }
}

/// `key=value` pairs; the first may stand without its key.
fn pairs<'a>(text: &'a str, implied: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.split(',').enumerate().map(move |(at, part)| match part.split_once('=') {
        Some(pair) => pair,
        None if at == 0 => (implied, part),
        None => (part, "on"),
    })
}

fn machine(value: &str) -> Result<(), String> {
    for (key, value) in pairs(value, "type") {
        match (key, value) {
            ("type", "pc") | ("accel", "jit" | "tcg") => {}
            ("type", other) => {
                let hint = "Use -machine help to list supported machines";
                return Err(format!("unsupported machine type: \"{other}\"\n{hint}"));
            }
            ("accel", other) => return Err(format!("invalid accelerator {other}")),
            _ => return Err(format!("Property 'pc-machine.{key}' not found")),
        }
    }
    Ok(())
}

fn accelerator(value: &str) -> Result<Option<usize>, String> {
    let mut cache_bytes = None;
    for (key, value) in pairs(value, "accel") {
        match (key, value) {
            ("accel", "jit" | "tcg") | ("thread", "multi") => {}
            ("accel", other) => return Err(format!("invalid accelerator {other}")),
            ("tb-size", size) => {
                let mebibytes =
                    size.parse::<usize>().ok().filter(|size| (16..=4096).contains(size));
                let range = "takes 16 to 4096 (MiB)";
                let mebibytes = mebibytes.ok_or(format!("-accel: parameter 'tb-size' {range}"))?;
                cache_bytes = Some(mebibytes << 20);
            }
            _ => return Err(format!("-accel: parameter '{key}={value}' is not built")),
        }
    }
    Ok(cache_bytes)
}

fn processors(value: &str) -> Result<usize, String> {
    let mut count = None;
    for (key, value) in pairs(value, "cpus") {
        match key {
            "cpus" => count = value.parse().ok(),
            _ => return Err(format!("-smp: parameter '{key}' is not built")),
        }
    }
    count.ok_or_else(|| format!("Parameter 'cpus' expects a number: '{value}'"))
}

fn ram(value: &str) -> Result<u64, String> {
    let mut bytes = None;
    for (key, value) in pairs(value, "size") {
        match key {
            "size" => bytes = parse_mebibytes(value),
            _ => return Err(format!("-m: parameter '{key}' is not built")),
        }
    }
    // QEMU rounds up likewise.
    let bytes = bytes.map(|bytes| bytes.next_multiple_of(8192));
    bytes.ok_or_else(|| format!("-m {value}: Parameter 'size' expects a size"))
}

fn serial(value: &str) -> Result<SerialPeer, String> {
    Ok(match value {
        "none" => SerialPeer::None,
        "null" => SerialPeer::Null,
        "stdio" => SerialPeer::Stdio { escapes: false },
        "mon:stdio" => SerialPeer::Stdio { escapes: true },
        _ => match value.strip_prefix("file:") {
            Some(path) => SerialPeer::File(path.to_owned()),
            None => return Err(format!("-serial {value}: this character device is not built")),
        },
    })
}

/// The one device that can be added so far.
fn device(value: &str) -> Result<u16, String> {
    let mut port = 0x501;
    for (key, value) in pairs(value, "driver") {
        match (key, value) {
            ("driver", "isa-debug-exit") | ("iosize", "4" | "0x04" | "0x4") => {}
            ("driver", other) => {
                return Err(format!("-device {other}: '{other}' is not a valid device model name"));
            }
            ("iobase", text) => {
                let digits = text.strip_prefix("0x");
                let number = match digits {
                    Some(digits) => u16::from_str_radix(digits, 16).ok(),
                    None => text.parse().ok(),
                };
                port = number.ok_or_else(|| {
                    format!("-device isa-debug-exit: Parameter 'iobase' expects a number: '{text}'")
                })?;
            }
            _ => return Err(format!("Property 'isa-debug-exit.{key}' not found")),
        }
    }
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        match Options::parse(&arguments)? {
            Action::Run(options) => Ok(*options),
            _ => Err("not a machine".to_owned()),
        }
    }

    #[test]
    fn what_is_typed_is_understood() {
        let options =
            parse("-M pc,accel=tcg -m 1G -smp cpus=4 -kernel k -append a --nographic -no-reboot")
                .unwrap();
        assert_eq!((options.ram_bytes, options.processors), (1 << 30, 4));
        assert_eq!(options.serial, SerialPeer::Stdio { escapes: true });
        assert!(options.no_reboot && options.initrd.is_none());
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for (line, text) in [
            ("-foo", "-foo: invalid option"),
            ("-kernel", "-kernel: requires an argument"),
            ("-kernel k -device foo", "-device foo: 'foo' is not a valid device model name"),
            ("-kernel k -machine q99", "unsupported machine type: \"q99\""),
            ("-kernel k -smp x", "expects a number"),
            ("-kernel k -vga std", "only 'none' is built"),
            ("-nographic", "no kernel given"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(text), "'{error}' lacks '{text}'");
        }
    }
}
