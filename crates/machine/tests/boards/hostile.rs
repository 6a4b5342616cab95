//! Guests that mean harm: a bounded stream of random accesses to every register of a board, with
//! every device that needs no host. Nothing may panic, hang or grow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use machine::{AddressSpace, BoardKind, Machine, Owner, Part, PropertyValue};
use parking_lot::Mutex;

use crate::rig::{MemoryDisk, Rig, part, text};

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// A value that registers do something with: small ones, single bits, addresses, anything.
    fn value(&mut self) -> u64 {
        match self.below(6) {
            0 => self.below(4),
            1 => 1 << self.below(32),
            2 => self.below(256),
            3 => (TABLES + self.below(TABLES_BYTES)) & !0xf,
            4 => self.next() | 1 << 31,
            _ => self.next(),
        }
    }
}

/// Where the stream puts what devices take for tables and commands.
const TABLES: u64 = 0x10_0000;
const TABLES_BYTES: u64 = 0x4_0000;
const PATIENCE: Duration = Duration::from_secs(60);

fn devices(rig: &mut Rig, board: BoardKind) {
    for name in ["disk", "cd", "blk", "flash"] {
        let node = Arc::new(MemoryDisk(Mutex::new(vec![0; 256 << 10])));
        assert!(rig.config.backends.drives.insert(name, node));
    }
    let on = |mut part: Part, bus: &str, unit: Option<u64>| {
        part.bus = Some(bus.to_owned());
        if let Some(unit) = unit {
            part.properties.set("unit", PropertyValue::Unsigned(unit));
        }
        part
    };
    let drive = |name| ("drive", text(name));
    let (disk, cd) = (part("ide-hd", &[drive("disk")]), part("ide-cd", &[drive("cd")]));
    let mut parts = match board {
        BoardKind::Pc => vec![on(disk, "ide.0", Some(0)), on(cd, "ide.0", Some(1))],
        BoardKind::Q35 => vec![on(disk, "ide.0", None), on(cd, "ide.1", None)],
    };
    for model in [
        "VGA",
        "virtio-rng-pci",
        "virtio-gpu-pci",
        "virtio-keyboard-pci",
        "xhci",
        "pvpanic",
        "virtio-balloon-pci",
        "virtio-serial-pci",
    ] {
        parts.push(part(model, &[]));
    }
    parts.push(part("virtio-blk-pci", &[drive("blk")]));
    parts.push(part("usb-tablet", &[]));
    if board == BoardKind::Q35 {
        let mut port = part("pcie-root-port", &[]);
        port.id = Some("rp".to_owned());
        parts.push(port);
        parts.push(on(part("virtio-rng-pci", &[]), "rp", None));
        parts.push(part("pvpanic-pci", &[]));
    } else {
        let mut bridge = part("pci-bridge", &[("chassis_nr", PropertyValue::Unsigned(1))]);
        bridge.id = Some("pb".to_owned());
        parts.push(bridge);
    }
    rig.config.parts.extend(parts);
}

/// The registers that answer now: name, start, length.
fn registers(space: &AddressSpace) -> Vec<(u64, u64)> {
    let view = space.view();
    let io = view.ranges().iter().filter(|range| matches!(range.owner, Owner::Io(_)));
    io.map(|range| (range.start, range.length)).collect()
}

fn access(space: &AddressSpace, (start, length): (u64, u64), random: &mut Random) {
    let size = 1_u8 << random.below(4);
    let address = start + random.below(length.min(0x4000));
    let view = space.view();
    match random.below(3) {
        0 => _ = view.read_value(address, size),
        _ => view.write_value(address, size, random.value()),
    }
}

/// A random register of a random function's configuration space.
fn configure(ports: &AddressSpace, random: &mut Random) {
    let function = random.below(8) * u64::from(random.below(4) == 0);
    let bus = u64::from(random.below(4) == 0);
    let register = random.below(0x100) & !3;
    let address = 1 << 31 | bus << 16 | random.below(32) << 11 | function << 8 | register;
    let view = ports.view();
    view.write_value(0xcf8, 4, address);
    match random.below(3) {
        0 => _ = view.read_value(0xcfc, 4),
        _ => {
            // Decoding and mastering stay on most of the time, or nothing would be reached.
            let value = if register == 4 { 0x407 } else { random.value() };
            let size = if register == 4 { 2 } else { 1 << random.below(3) };
            view.write_value(0xcfc, size, value);
        }
    }
}

/// What lies in memory for devices to find.
fn seed_tables(memory: &AddressSpace, random: &mut Random) {
    let view = memory.view();
    let start = (TABLES + random.below(TABLES_BYTES - 64)) & !0xf;
    for word in 0..8 {
        view.write(start + 8 * word, &random.value().to_le_bytes());
    }
}

/// Every function decodes and masters, with its registers side by side.
fn open_functions(machine: &Machine) {
    let ports = machine.ports();
    let view = ports.view();
    let (mut memory, mut io) = (0xc000_0000_u64, 0xc000_u64);
    for device in machine.pci_devices() {
        let at = |register: u64| {
            1 << 31 | u64::from(device.slot) << 11 | u64::from(device.function) << 8 | register
        };
        for bar in &device.bars {
            let next = if bar.is_io { &mut io } else { &mut memory };
            *next = next.next_multiple_of(bar.bytes.max(0x100));
            view.write_value(0xcf8, 4, at(0x10 + 4 * u64::from(bar.index)));
            view.write_value(0xcfc, 4, *next);
            *next += bar.bytes;
        }
        view.write_value(0xcf8, 4, at(4));
        view.write_value(0xcfc, 2, 7);
    }
}

fn storm(board: BoardKind, seed: u64, steps: usize) {
    let times: u64 =
        std::env::var("BOARD_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    (0..times).for_each(|time| one_storm(board, seed.wrapping_add(time), steps));
}

fn one_storm(board: BoardKind, seed: u64, steps: usize) {
    let mut rig = Rig::new(board, vec![0xf4; 64 << 10]);
    rig.config.ram_bytes = 16 << 20;
    devices(&mut rig, board);
    rig.run(move |machine, _| {
        machine.control().stop(machine::RunState::Paused);
        let (memory, ports) = (machine.memory(), machine.ports());
        let mut random = Random(seed);
        open_functions(machine);
        let mut known = (registers(&memory), registers(&ports));
        assert!(known.0.len() > 10 && known.1.len() > 20, "{known:x?}");
        let until = Instant::now() + PATIENCE;
        for step in 0..steps {
            if step % 512 == 511 {
                known = (registers(&memory), registers(&ports));
                assert!(Instant::now() < until, "step {step} of {steps} is not reached in time");
            }
            if step % 4096 == 4095 {
                open_functions(machine);
            }
            match random.below(10) {
                0 => configure(&ports, &mut random),
                1 => seed_tables(&memory, &mut random),
                2..6 if !known.0.is_empty() => {
                    let place = known.0[random.below(known.0.len() as u64) as usize];
                    access(&memory, place, &mut random);
                }
                _ if !known.1.is_empty() => {
                    let place = known.1[random.below(known.1.len() as u64) as usize];
                    access(&ports, place, &mut random);
                }
                _ => {}
            }
        }
        true
    });
}

#[test]
fn random_accesses_to_the_old_board_do_no_harm() {
    storm(BoardKind::Pc, 0x1234_5678_9abc_def1, 120_000);
}

#[test]
fn random_accesses_to_the_express_board_do_no_harm() {
    storm(BoardKind::Q35, 0x0fed_cba9_8765_4321, 120_000);
}
