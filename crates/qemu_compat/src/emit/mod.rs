//! From a neutral description to QEMU's command line, and to the arguments of the monitor's
//! commands that plug in the same devices later.

mod device;

pub use device::{backends, device_arguments};

use serde_json::{Value, json};
use spec::{Accelerator, Device, Kernel, Vm};

/// What the process gets besides the machine.
pub struct Process<'a> {
    /// The descriptor of the monitor's listening socket.
    pub monitor: i32,
    /// Wait for a state to come: `-incoming`.
    pub incoming: Option<&'a str>,
    /// Go on from this internal snapshot.
    pub snapshot: Option<&'a str>,
    /// Forbid the process what an emulator never does.
    pub sandbox: bool,
    /// Newer versions have board properties where older ones had options.
    pub version: (u32, u32),
}

/// Something that a command line or a monitor makes before the device that uses it.
#[derive(Clone, Debug, PartialEq)]
pub enum Backing {
    /// `-blockdev`.
    Block(Value),
    /// `-netdev`.
    Network(Value),
    /// `-chardev`, in the option's own syntax and as the monitor's arguments.
    Character(String, Value),
    /// `-object`.
    Object(Value),
    /// `-audiodev`.
    Audio(Value),
    /// Any other option.
    Option(&'static str, String),
}

/// The arguments after the program's name.
pub fn command_line(vm: &Vm, process: &Process<'_>) -> Vec<String> {
    let mut line = Line::default();
    line.option("-name", format!("guest={},debug-threads=on", doubled(&vm.name)));
    line.flag("-S");
    flash(vm, &mut line);
    machine(vm, process, &mut line);
    line.option("-uuid", vm.uuid.clone());
    line.flag("-no-user-config");
    line.flag("-nodefaults");
    let monitor = format!("socket,id=charmonitor,fd={},server=on,wait=off", process.monitor);
    line.option("-chardev", monitor);
    line.option("-mon", "chardev=charmonitor,id=monitor,mode=control");
    clock(vm, process, &mut line);
    line.flag("-no-shutdown");
    boot(vm, &mut line);
    let mut screens = 0;
    for device in &vm.devices {
        add(device, &mut line);
        screens += u32::from(matches!(device.kind, spec::device::Kind::Vnc(_)));
    }
    if screens == 0 {
        line.option("-display", "none");
    }
    if let Some(incoming) = process.incoming {
        line.option("-incoming", incoming);
    }
    if let Some(snapshot) = process.snapshot {
        line.option("-loadvm", snapshot);
    }
    if process.sandbox {
        let rules = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
        line.option("-sandbox", rules);
    }
    line.option("-msg", "timestamp=on");
    line.arguments
}

#[derive(Default)]
struct Line {
    arguments: Vec<String>,
}

impl Line {
    fn flag(&mut self, name: &str) {
        self.arguments.push(name.to_owned());
    }

    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.flag(name);
        self.arguments.push(value.into());
    }
}

/// A comma inside a value is written twice.
fn doubled(text: &str) -> String {
    text.replace(',', ",,")
}

fn flash(vm: &Vm, line: &mut Line) {
    let Some(flash) = &vm.boot.flash else { return };
    let mut part = |number: u32, file: &str, read_only: bool| {
        let (storage, node) = (format!("pflash{number}-storage"), format!("pflash{number}-format"));
        let file = json!({"driver": "file", "filename": file, "node-name": storage,
            "auto-read-only": true, "discard": "unmap"});
        line.option("-blockdev", file.to_string());
        let format = json!({"node-name": node, "read-only": read_only, "driver": "raw",
            "file": storage});
        line.option("-blockdev", format.to_string());
    };
    part(0, &flash.code, true);
    if let Some(variables) = &flash.variables {
        part(1, variables, false);
    }
}

/// Boards name their memory, and a back end of that name takes its place.
fn memory_id(board: &str) -> &'static str {
    if board.starts_with("virt") { "mach-virt.ram" } else { "pc.ram" }
}

fn machine(vm: &Vm, process: &Process<'_>, line: &mut Line) {
    let memory = memory_id(&vm.board);
    let mut board = format!("{},usb=off,dump-guest-core=off,memory-backend={memory}", vm.board);
    if let Some(flash) = &vm.boot.flash {
        board.push_str(",pflash0=pflash0-format");
        if flash.variables.is_some() {
            board.push_str(",pflash1=pflash1-format");
        }
    }
    let new_names = process.version >= (8, 0);
    if new_names {
        board.push_str(if vm.acpi { ",acpi=on" } else { ",acpi=off" });
        if let Some(hpet) = vm.hpet {
            board.push_str(if hpet { ",hpet=on" } else { ",hpet=off" });
        }
    }
    line.option("-machine", board);
    line.option(
        "-accel",
        match vm.accelerator {
            Accelerator::Kvm => "kvm",
            Accelerator::Translator => "tcg",
        },
    );
    let mut processor = vm.processor.model.clone();
    for (name, on) in &vm.processor.features {
        processor.push_str(&format!(",{name}={}", if *on { "on" } else { "off" }));
    }
    line.option("-cpu", processor);
    line.option("-m", vm.memory_bytes.div_ceil(1 << 20).to_string());
    let ram = json!({"qom-type": "memory-backend-ram", "id": memory, "size": vm.memory_bytes});
    line.option("-object", ram.to_string());
    line.option("-overcommit", "mem-lock=off");
    let cpus = &vm.topology;
    let maximum = match cpus.maximum == cpus.count {
        true => String::new(),
        false => format!(",maxcpus={}", cpus.maximum),
    };
    let (sockets, cores, threads) = (cpus.sockets, cpus.cores, cpus.threads);
    let shape = format!("sockets={sockets},cores={cores},threads={threads}");
    line.option("-smp", format!("{}{maximum},{shape}", cpus.count));
}

fn clock(vm: &Vm, process: &Process<'_>, line: &mut Line) {
    let slew = if vm.clock.slew { ",driftfix=slew" } else { "" };
    line.option("-rtc", format!("base={}{slew}", vm.clock.base));
    if vm.pit_delay {
        line.option("-global", "kvm-pit.lost_tick_policy=delay");
    }
    if process.version < (8, 0) {
        if vm.hpet == Some(false) {
            line.flag("-no-hpet");
        }
        if !vm.acpi {
            line.flag("-no-acpi");
        }
    }
    let chip = if vm.board.contains("q35") { "ICH9-LPC" } else { "PIIX4_PM" };
    for (name, allowed) in [("disable_s3", vm.sleep.0), ("disable_s4", vm.sleep.1)] {
        if let Some(allowed) = allowed {
            line.option("-global", format!("{chip}.{name}={}", u8::from(!allowed)));
        }
    }
}

fn boot(vm: &Vm, line: &mut Line) {
    let menu = match vm.boot.menu {
        None => "",
        Some(true) => "menu=on,",
        Some(false) => "menu=off,",
    };
    line.option("-boot", format!("{menu}strict=on"));
    let Some(Kernel { image, initrd, command_line, device_tree }) = &vm.boot.kernel else { return };
    line.option("-kernel", image.clone());
    for (name, value) in [("-initrd", initrd), ("-append", command_line), ("-dtb", device_tree)] {
        if let Some(value) = value {
            line.option(name, value.clone());
        }
    }
}

fn add(device: &Device, line: &mut Line) {
    for backing in backends(device) {
        match backing {
            Backing::Block(value) => line.option("-blockdev", value.to_string()),
            Backing::Network(value) => line.option("-netdev", value.to_string()),
            Backing::Character(text, _) => line.option("-chardev", text),
            Backing::Object(value) => line.option("-object", value.to_string()),
            Backing::Audio(value) => line.option("-audiodev", value.to_string()),
            Backing::Option(name, value) => line.option(name, value),
        }
    }
    for arguments in device_arguments(device) {
        line.option("-device", arguments.to_string());
    }
}
