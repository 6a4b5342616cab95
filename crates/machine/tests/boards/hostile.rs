//! Guests that mean harm: a bounded stream of random accesses to every register of a board, with
//! every device that needs no host. Nothing may panic, hang or grow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use machine::{AddressSpace, BoardKind, Machine, Owner, Part, Progress, PropertyValue};
use parking_lot::Mutex;

use crate::rig::{MemoryDisk, Rig, part, text};

/// Numbers that look random and are the same each time.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: u64) -> u64 {
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
        _ => vec![on(disk, "ide.0", None), on(cd, "ide.1", None)],
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
        "ich9-intel-hda",
        "hda-duplex",
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
pub fn open_functions(machine: &Machine) {
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
    small_rig(board).run(move |machine, _| {
        machine.control().stop(machine::RunState::Paused);
        open_functions(machine);
        let known = (registers(&machine.memory()), registers(&machine.ports()));
        assert!(known.0.len() > 10 && known.1.len() > 20, "{known:x?}");
        rage(machine, &mut Random(seed), steps);
        true
    });
}

/// A board with every device that needs no host, and little memory.
pub fn small_rig(board: BoardKind) -> Rig {
    let mut rig = Rig::new(board, vec![0xf4; 64 << 10]);
    rig.config.ram_bytes = 16 << 20;
    // A guest that switches itself off is still there to be saved.
    rig.config.actions.shutdown_pauses = true;
    devices(&mut rig, board);
    rig
}

/// The same without what a guest can let go of.
fn lasting_rig(board: BoardKind) -> Rig {
    let mut rig = small_rig(board);
    rig.config.parts.retain(|part| part.bus.as_deref() != Some("rp"));
    rig
}

/// So many random accesses to everything that answers.
fn rage(machine: &Machine, random: &mut Random, steps: usize) {
    let (memory, ports) = (machine.memory(), machine.ports());
    open_functions(machine);
    let mut known = (registers(&memory), registers(&ports));
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
            0 => configure(&ports, random),
            1 => seed_tables(&memory, random),
            2..6 if !known.0.is_empty() => {
                let place = known.0[random.below(known.0.len() as u64) as usize];
                access(&memory, place, random);
            }
            _ if !known.1.is_empty() => {
                let place = known.1[random.below(known.1.len() as u64) as usize];
                access(&ports, place, random);
            }
            _ => {}
        }
    }
}

/// Bytes before a stream's first frame, and at the head of each.
const STREAM_HEAD: usize = 12;
const FRAME_HEAD: usize = 13;
/// The number of sections among the kinds of frames.
const SECTION: u8 = 2;

/// Where the frames of a stream begin, and how long what they hold is.
fn frames(stream: &[u8]) -> Vec<(usize, usize)> {
    let (mut at, mut frames) = (STREAM_HEAD, Vec::new());
    while at < stream.len() {
        let length =
            u32::from_le_bytes(stream[at + 1..at + 5].try_into().expect("four bytes")) as usize;
        frames.push((at, length));
        at += FRAME_HEAD + length;
    }
    frames
}

/// What the frames of sections hold.
fn sections(stream: &[u8]) -> Vec<&[u8]> {
    let is_section = |(at, _): &(usize, usize)| stream[*at] == SECTION;
    let held = |(at, length)| &stream[at + FRAME_HEAD..][..length];
    frames(stream).into_iter().filter(is_section).map(held).collect()
}

/// Makes a frame's checksum right again, as somebody would who means harm.
fn seal(stream: &mut [u8], (at, length): (usize, usize)) {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| (sum.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    let held = &stream[at + FRAME_HEAD..][..length];
    let (words, rest) = held.as_chunks::<8>();
    let sum = words.iter().fold(length as u64, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    let sum = rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)));
    let sum = mix(sum, u64::from(stream[at]));
    stream[at + 5..at + FRAME_HEAD].copy_from_slice(&sum.to_le_bytes());
}

fn save(machine: &Machine) -> Vec<u8> {
    let mut stream = Vec::new();
    machine.save(&mut stream, &Progress::default(), false).expect("every device can be saved");
    stream
}

/// A board in a state that nobody would think of.
fn wild_state(board: BoardKind, seed: u64) -> Vec<u8> {
    let mut stream = Vec::new();
    lasting_rig(board).run(|machine, _| {
        machine.control().stop(machine::RunState::Paused);
        rage(machine, &mut Random(seed), 30_000);
        stream = save(machine);
        true
    });
    stream
}

/// The number, then so many bytes, from the front.
fn counted<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let (length, rest) = bytes.split_first_chunk::<4>().expect("a length");
    let (taken, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
    *bytes = rest;
    taken
}

/// Names and versions of sections, with the names of their fields.
fn layout(stream: &[u8]) -> String {
    let mut text = String::new();
    for mut section in sections(stream) {
        let name = String::from_utf8_lossy(counted(&mut section)).into_owned();
        let (version, mut fields) = section.split_first_chunk::<4>().expect("a version");
        text.push_str(&format!("{name} {}:", u32::from_le_bytes(*version)));
        while !fields.is_empty() {
            text.push_str(&format!(" {}", String::from_utf8_lossy(counted(&mut fields))));
            counted(&mut fields);
        }
        text.push('\n');
    }
    text
}

/// States of earlier versions must be understood: whoever changes the layout of a section sees it
/// here, and gives it another version.
#[test]
fn the_layout_of_saved_states_is_known() {
    for (board, name) in [(BoardKind::Pc, "pc"), (BoardKind::Q35, "q35")] {
        let mut text = String::new();
        small_rig(board).run(|machine, _| {
            machine.control().stop(machine::RunState::Paused);
            text = layout(&save(machine));
            true
        });
        let folder = tests::workspace().join("crates/machine/tests/golden");
        let path = folder.join(format!("saved-{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(golden == text, "{} is another: UPDATE_GOLDEN=1 writes it anew", path.display());
    }
}

#[test]
fn a_loaded_board_is_saved_as_it_was() {
    for (board, seed) in [(BoardKind::Pc, 77), (BoardKind::Q35, 99), (BoardKind::Q35, 12345)] {
        let stream = wild_state(board, seed);
        lasting_rig(board).run(|machine, _| {
            machine.control().stop(machine::RunState::Paused);
            machine.load(&mut &stream[..]).expect("it was saved just now");
            let again = save(machine);
            let (before, after) = (sections(&stream), sections(&again));
            assert_eq!(before.len(), after.len());
            for (before, after) in before.into_iter().zip(after) {
                let length =
                    u32::from_le_bytes(before[..4].try_into().expect("four bytes")) as usize;
                let name = String::from_utf8_lossy(&before[4..4 + length]);
                assert!(before == after, "{name} of {board:?}: {}", differing(before, after));
            }
            true
        });
    }
}

/// The surroundings of the first difference.
fn differing(before: &[u8], after: &[u8]) -> String {
    let at = before.iter().zip(after).position(|(a, b)| a != b).unwrap_or(0);
    let near = |bytes: &[u8]| {
        let part = &bytes[at.saturating_sub(60)..(at + 20).min(bytes.len())];
        part.escape_ascii().to_string()
    };
    format!("{}\nand\n{}", near(before), near(after))
}

#[test]
fn damaged_states_do_no_harm() {
    let times: u64 =
        std::env::var("BOARD_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for (board, seed) in [(BoardKind::Pc, 5), (BoardKind::Q35, 6)] {
        let stream = wild_state(board, seed);
        let places: Vec<_> =
            frames(&stream).into_iter().filter(|(at, _)| stream[*at] == SECTION).collect();
        lasting_rig(board).run(|machine, _| {
            machine.control().stop(machine::RunState::Paused);
            let (mut random, mut loaded) = (Random(seed * 7919), 0);
            for _ in 0..120 * times {
                let mut stream = stream.clone();
                for _ in 0..=random.below(3) {
                    let frame = places[random.below(places.len() as u64) as usize];
                    for _ in 0..=random.below(4) {
                        let at = frame.0 + FRAME_HEAD + random.below(frame.1 as u64) as usize;
                        stream[at] = match random.below(3) {
                            0 => random.next() as u8,
                            1 => stream[at] ^ 1 << random.below(8),
                            _ => [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize],
                        };
                    }
                    seal(&mut stream, frame);
                }
                loaded += u32::from(machine.load(&mut &stream[..]).is_ok());
                rage(machine, &mut random, 300);
            }
            assert!(loaded > 8, "too few of the states could be loaded: {loaded}");
            true
        });
    }
}

#[test]
fn random_accesses_to_the_old_board_do_no_harm() {
    storm(BoardKind::Pc, 0x1234_5678_9abc_def1, 120_000);
}

#[test]
fn random_accesses_to_the_express_board_do_no_harm() {
    storm(BoardKind::Q35, 0x0fed_cba9_8765_4321, 120_000);
}
