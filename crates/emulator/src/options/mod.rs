//! The command line, resolved: what was typed becomes what is to be built. Nothing is opened here.

mod accelerator;
mod board;
mod monitors;
mod run;
mod screen;
mod topology;

use std::ffi::OsString;

use qemu_compat::options::{parse_keyval, parse_opts};
use qemu_compat::system::character::{self, Character, Short};
use qemu_compat::system::config_file;
use qemu_compat::system::options::{Typed, scan};
use qemu_compat::system::values;
use serde_json::{Map, Value};

use crate::boards;

pub use accelerator::{Accelerator, Wanted};
pub use board::{Board, uuid};
pub use monitors::{Mode, MonitorOption};
pub use run::{ClockBase, RunOptions, panic_action};
pub use screen::{Card, Place, VncOption};

/// What the command line asks for.
pub enum Action {
    /// `-version`.
    Version,
    /// A help text.
    Print(String),
    /// A machine.
    Run(Box<Options>),
}

/// What is wrong, in QEMU's words; behind the option that it is about.
pub type Refusal = String;

/// A device or object as it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// For messages: the option and its argument.
    pub typed: String,
    /// Its members.
    pub members: Map<String, Value>,
}

/// The options, resolved.
#[derive(Debug)]
pub struct Options {
    pub board: Board,
    pub accelerator: Accelerator,
    pub run: RunOptions,
    pub kernel: Option<String>,
    pub initrd: Option<String>,
    pub append: String,
    pub bios: Option<String>,
    pub firmware_paths: Vec<String>,
    pub characters: Vec<Character>,
    /// COM1 and so on, each with the name of a new character device.
    pub serials: Vec<Short>,
    pub debug_console: Option<Short>,
    pub monitors: Vec<MonitorOption>,
    pub devices: Vec<Asked>,
    pub networks: Vec<Asked>,
    pub shares: Vec<Asked>,
    pub sounds: Vec<Asked>,
    pub blocks: Vec<Asked>,
    pub drives: Vec<Asked>,
    /// What is written to drives goes when the machine goes.
    pub snapshot: bool,
    pub objects: Vec<Asked>,
    /// `driver`, `property`, `value`.
    pub globals: Vec<(String, String, String)>,
    /// `-display none`.
    pub has_no_display: bool,
    pub card: Card,
    pub vnc: Vec<VncOption>,
    pub nics: Vec<Asked>,
    pub firmware_config: Vec<Asked>,
    pub smbios: Vec<Asked>,
    pub boot: Vec<(String, String)>,
    pub usb: bool,
    pub nodefaults: bool,
    pub nographic: bool,
}

impl Options {
    /// Reads the command line. Errors are QEMU's, without the program's name.
    pub fn parse(arguments: &[OsString]) -> Result<Action, Refusal> {
        let typed = with_files(scan(arguments).map_err(|error| error.to_string())?)?;
        let mut options = Self::empty();
        for typed in &typed {
            match typed.name {
                "version" | "V" => return Ok(Action::Version),
                "help" | "h" => return Ok(Action::Print(crate::help::usage())),
                _ => {}
            }
            if let Some(text) = crate::help::of_option(typed.name, &typed.value) {
                let about = |error| format!("-{} {}: {error}", typed.name, typed.value);
                return Ok(Action::Print(text.map_err(about)?));
            }
            let refused = |error: Refusal| match typed.value.as_str() {
                "" => format!("-{}: {error}", typed.name),
                value => format!("-{} {value}: {error}", typed.name),
            };
            // QEMU's machine says these itself.
            let plain = typed.name == "smp";
            options.take(typed).map_err(|error| if plain { error } else { refused(error) })?;
        }
        options.board.finish()?;
        options.add_defaults();
        Ok(Action::Run(Box::new(options)))
    }

    fn empty() -> Self {
        Self {
            board: Board::default_board(),
            accelerator: Accelerator::unset(),
            run: RunOptions::unset(),
            kernel: None,
            initrd: None,
            append: String::new(),
            bios: None,
            firmware_paths: Vec::new(),
            characters: Vec::new(),
            serials: Vec::new(),
            debug_console: None,
            monitors: Vec::new(),
            devices: Vec::new(),
            networks: Vec::new(),
            shares: Vec::new(),
            sounds: Vec::new(),
            blocks: Vec::new(),
            drives: Vec::new(),
            snapshot: false,
            objects: Vec::new(),
            globals: Vec::new(),
            has_no_display: false,
            card: Card::Default,
            vnc: Vec::new(),
            nics: Vec::new(),
            firmware_config: Vec::new(),
            smbios: Vec::new(),
            boot: Vec::new(),
            usb: false,
            nodefaults: false,
            nographic: false,
        }
    }

    fn take(&mut self, Typed { name, value }: &Typed) -> Result<(), Refusal> {
        let text = || value.clone();
        match *name {
            "kernel" => self.kernel = Some(text()),
            "initrd" => self.initrd = Some(text()),
            "append" => self.append = text(),
            "bios" => self.bios = Some(text()),
            "L" => self.firmware_paths.push(text()),
            "nographic" => self.nographic = true,
            "nodefaults" => self.nodefaults = true,
            "no-user-config" => {} // no configuration file is read in any case
            "usb" => self.usb = true,
            "snapshot" => self.snapshot = true,
            "display" | "vga" | "vnc" | "k" => self.screen(name, value)?,
            "chardev" => self.characters.push(parsed(character::parse(value))?),
            "serial" => {
                let id = format!("serial{}", self.serials.len());
                self.serials.push(parsed(character::parse_short(value, &id))?);
            }
            "parallel" if value == "none" => {}
            "parallel" => return Err("parallel ports are not built in Hostel".to_owned()),
            "debugcon" => {
                self.debug_console = Some(parsed(character::parse_short(value, "debugcon"))?);
            }
            "monitor" | "qmp" | "qmp-pretty" | "mon" => self.monitor(name, value)?,
            "device" => self.devices.push(asked(name, value, "driver")?),
            "netdev" => self.networks.push(asked(name, value, "type")?),
            "blockdev" => self.blocks.push(asked(name, value, "driver")?),
            "object" => self.objects.push(asked(name, value, "qom-type")?),
            "drive" => self.drives.push(asked_flat(name, value, "file")?),
            "fsdev" => self.share(asked_flat(name, value, "fsdriver")?)?,
            "virtfs" => {
                let asked = asked_flat(name, value, "fsdriver")?;
                let (share, device) = crate::shares::short_form(asked)?;
                let id = share.members.get("id").and_then(Value::as_str).unwrap_or_default();
                let invalid = format!("duplicate or invalid fsdev id: {id}");
                self.share(share).map_err(|_| invalid)?;
                self.devices.push(device);
            }
            "nic" | "net" => self.nics.push(asked_flat(name, value, "type")?),
            "fw_cfg" => self.firmware_config.push(asked_flat(name, value, "name")?),
            "smbios" => self.smbios.push(asked_flat(name, value, "type")?),
            "boot" => self.boot.extend(pairs(value, "order")?),
            "audiodev" => self.sounds.push(asked(name, value, "driver")?),
            "global" => self.globals.push(global(value)?),
            "hda" | "hdb" | "hdc" | "hdd" | "cdrom" | "pflash" => self.short_drive(name, value),
            "fda" | "fdb" => return Err("floppy disks are not built in Hostel".to_owned()),
            "accel" | "enable-kvm" => self.accelerator.take(name, value)?,
            "machine" | "M" => self.board.take_machine(value, &mut self.accelerator)?,
            "cpu" | "smp" | "m" | "uuid" | "no-acpi" | "no-hpet" => self.board.take(name, value)?,
            _ => {
                if !self.run.take(name, value)? {
                    return Err("this option of QEMU is not built in Hostel".to_owned());
                }
            }
        }
        Ok(())
    }

    /// A shared folder, whose name must be new.
    fn share(&mut self, asked: Asked) -> Result<(), Refusal> {
        let id = |asked: &Asked| asked.members.get("id").cloned();
        if let Some(Value::String(name)) = id(&asked)
            && self.shares.iter().any(|other| id(other) == id(&asked))
        {
            return Err(format!("Duplicate ID '{name}' for fsdev"));
        }
        self.shares.push(asked);
        Ok(())
    }

    /// `-hda FILE` and its like are drives.
    fn short_drive(&mut self, name: &str, value: &str) {
        let index = match name {
            "hda" => Some("0"),
            "hdb" => Some("1"),
            "cdrom" | "hdc" => Some("2"),
            "hdd" => Some("3"),
            _ => None,
        };
        let mut members = Map::new();
        members.insert("file".into(), value.into());
        if let Some(index) = index {
            members.insert("index".into(), index.into());
        } else {
            members.insert("if".into(), "pflash".into());
        }
        members.insert("media".into(), if name == "cdrom" { "cdrom" } else { "disk" }.into());
        self.drives.push(Asked { typed: format!("-{name} {value}"), members });
    }

    /// What a machine has that nobody asked for, unless nothing of the kind is wanted.
    fn add_defaults(&mut self) {
        if self.nodefaults {
            return;
        }
        self.add_default_devices();
        let stdio = |mux: bool| {
            let kind = character::CharacterKind::Stdio { signal: !mux };
            let id = if mux { "mux0" } else { "serial0" };
            Short::New(Character { id: id.into(), kind, mux, log_file: None, log_append: false })
        };
        let uses_stdio = self.uses_stdio();
        if self.serials.is_empty() {
            // Without a screen of the host's, the serial port is what there is to see.
            match (self.nographic, uses_stdio) {
                (true, false) => self.serials.push(stdio(true)),
                (false, false) if self.has_no_display || !self.vnc.is_empty() => {}
                (_, true) => {}
                (false, false) => self.serials.push(stdio(false)),
            }
            if let (true, Some(Short::New(first))) = (self.nographic, self.serials.first()) {
                let character = Short::Named(first.id.clone());
                self.monitors.push(MonitorOption::readline(character));
            }
        }
    }

    /// A network card with a user-mode network, and a CD-ROM drive without a disc.
    fn add_default_devices(&mut self) {
        if [boards::NONE, boards::MICROVM].contains(&self.board.name) {
            return;
        }
        let asked = |option: &str, pairs: &[(&str, &str)]| {
            let typed: Vec<String> =
                pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let members = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into()));
            Asked { typed: format!("-{option} {}", typed.join(",")), members: members.collect() }
        };
        if self.nics.is_empty() && self.networks.is_empty() {
            self.nics.push(asked("net", &[("type", "nic"), ("model", "e1000")]));
            self.nics.push(asked("net", &[("type", "user")]));
        }
        let says = |asked: &Asked, name: &str, values: &[&str]| {
            asked.members.get(name).and_then(Value::as_str).is_some_and(|it| values.contains(&it))
        };
        let disks = ["ide-cd", "ide-hd", "scsi-cd", "scsi-hd"];
        // One that names no place has that of its number.
        let is_there = |(number, drive): (usize, &Asked)| {
            let placed = drive.members.contains_key("index");
            let is_ide = !drive.members.contains_key("if") || says(drive, "if", &["ide"]);
            says(drive, "media", &["cdrom"])
                || (is_ide && (says(drive, "index", &["2"]) || (number == 2 && !placed)))
        };
        let has_one = self.devices.iter().any(|asked| says(asked, "driver", &disks))
            || self.drives.iter().enumerate().any(is_there);
        if !has_one {
            let drive = [("if", "ide"), ("index", "2"), ("media", "cdrom")];
            self.drives.push(asked("drive", &drive));
        }
    }

    fn uses_stdio(&self) -> bool {
        let is_stdio = |short: &Short| match short {
            Short::New(new) => matches!(new.kind, character::CharacterKind::Stdio { .. }),
            _ => false,
        };
        let in_list = |new: &Character| matches!(new.kind, character::CharacterKind::Stdio { .. });
        self.serials.iter().any(is_stdio)
            || self.characters.iter().any(in_list)
            || self.monitors.iter().any(|monitor| is_stdio(&monitor.character))
    }
}

/// Options of `-readconfig` in its place.
fn with_files(typed: Vec<Typed>) -> Result<Vec<Typed>, Refusal> {
    let mut all = Vec::with_capacity(typed.len());
    for option in typed {
        if option.name != "readconfig" {
            all.push(option);
            continue;
        }
        let path = &option.value;
        let about = |error: &dyn std::fmt::Display| format!("-readconfig {path}: {error}");
        let text = std::fs::read_to_string(path).map_err(|error| {
            let reason = crate::character::reason(&error);
            about(&format!("Cannot read config file {path}: {reason}"))
        })?;
        all.extend(config_file::parse(path, &text).map_err(|error| about(&error))?);
    }
    Ok(all)
}

/// An error of a parser, in words.
fn parsed<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T, Refusal> {
    result.map_err(|error| error.to_string())
}

/// `key=value` pairs of the older syntax.
fn pairs(value: &str, implied: &str) -> Result<Vec<(String, String)>, Refusal> {
    parsed(parse_opts(value, Some(implied)))
}

/// A tree of the newer syntax, or JSON.
fn asked(option: &str, value: &str, implied: &str) -> Result<Asked, Refusal> {
    // The oldest option of all takes flags without values too.
    let tree = match option {
        "device" | "object" | "netdev" if !value.trim_start().starts_with('{') => {
            return asked_flat(option, value, implied).map(|mut asked| {
                asked.members = nested(asked.members);
                asked
            });
        }
        _ => parsed(parse_keyval(value, Some(implied)))?,
    };
    match tree {
        Value::Object(members) => Ok(Asked { typed: format!("-{option} {value}"), members }),
        _ => Err("a JSON object is expected".to_owned()),
    }
}

/// Dotted keys make trees.
fn nested(flat: Map<String, Value>) -> Map<String, Value> {
    let mut tree = Map::new();
    for (key, value) in flat {
        match key.split_once('.') {
            Some((head, rest)) if !rest.contains('.') => {
                let inner = tree.entry(head).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(inner) = inner {
                    inner.insert(rest.to_owned(), value);
                }
            }
            _ => _ = tree.insert(key, value),
        }
    }
    tree
}

/// The members of a device, network or object, as monitors take them.
pub fn members(option: &str, value: &str, implied: &str) -> Result<Map<String, Value>, Refusal> {
    asked(option, value, implied).map(|asked| asked.members)
}

/// A `-drive`, as monitors take it.
pub fn drive(value: &str) -> Result<Asked, Refusal> {
    asked_flat("drive", value, "")
}

fn asked_flat(option: &str, value: &str, implied: &str) -> Result<Asked, Refusal> {
    let mut members = Map::new();
    for (key, value) in pairs(value, implied)? {
        match members.get_mut(&key) {
            // `hostfwd` and its like come more than once.
            Some(Value::Array(list)) => list.push(Value::String(value)),
            Some(before) if REPEATED.contains(&key.as_str()) => {
                *before = Value::Array(vec![before.take(), Value::String(value)]);
            }
            _ => _ = members.insert(key, Value::String(value)),
        }
    }
    Ok(Asked { typed: format!("-{option} {value}"), members })
}

/// Keys whose values add up.
const REPEATED: &[&str] =
    &["hostfwd", "guestfwd", "dnssearch", "value", "search", "tcp-ports", "udp-ports", "param"];

/// `DRIVER.PROPERTY=VALUE`, or the three by name.
fn global(value: &str) -> Result<(String, String, String), Refusal> {
    if let Some((target, set)) = value.split_once('=')
        && let Some((driver, property)) = target.split_once('.')
        && !target.contains(',')
    {
        return Ok((driver.to_owned(), property.to_owned(), set.to_owned()));
    }
    let pairs = pairs(value, "driver")?;
    let find = |name: &str| {
        let found = pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        found.ok_or_else(|| values::ValueError::Missing { name: name.to_owned() }.to_string())
    };
    Ok((find("driver")?, find("property")?, find("value")?))
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
        let options = parse(
            "-M q35,accel=tcg -m 1G -smp cpus=4,sockets=2 -kernel k -append a --nographic \
             -no-reboot -uuid f79cd7d0-592c-4d6f-9f3a-2b81ea2009a8",
        )
        .unwrap();
        assert_eq!((options.board.ram_bytes, options.board.topology.count), (1 << 30, 4));
        assert_eq!(options.board.topology.sockets, 2);
        assert!(options.run.actions.reset_is_shutdown && options.initrd.is_none());
        assert_eq!((options.serials.len(), options.monitors.len()), (1, 1));
        let options =
            parse("-netdev user,id=n,hostfwd=a,hostfwd=b -device e1000,netdev=n").unwrap();
        assert_eq!(options.networks[0].members["hostfwd"], serde_json::json!(["a", "b"]));
        assert_eq!(options.devices[0].members["driver"], "e1000");
        let options = parse("-global driver=a.b,property=c,value=d -global ICH9-LPC.x=1").unwrap();
        assert_eq!(options.globals[1], ("ICH9-LPC".into(), "x".into(), "1".into()));
        assert_eq!(options.globals[0], ("a.b".into(), "c".into(), "d".into()));
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for (line, text) in [
            ("-foo", "-foo: invalid option"),
            ("-kernel", "-kernel: requires an argument"),
            ("-machine q99", "-machine q99: unsupported machine type: \"q99\""),
            ("-smp x", "Parameter 'smp.cpus' expects integer"),
            ("-icount 3", "-icount 3: this option of QEMU is not built in Hostel"),
            ("-m x", "-m x: Parameter 'size' expects a non-negative number below 2^64"),
            ("-uuid x", "-uuid x: Parameter 'uuid' expects a UUID"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.starts_with(text), "'{error}' is not '{text}'");
        }
    }
}
