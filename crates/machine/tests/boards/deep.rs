//! Hostile drivers of the controllers whose requests lie in memory: what they say is almost right,
//! so that it is carried out, and wrong in one place or another.

use machine::{AddressSpace, BoardKind, Machine, RunState};

use crate::hostile::{Random, open_functions, small_rig};

/// Where requests are put, and how much is used for them.
const REQUESTS: u64 = 0x20_0000;
const REQUESTS_BYTES: u64 = 0x10_0000;

/// A board whose devices decode and master, and where a register block of a function lies.
fn on(board: BoardKind, device: u16, bar: u8, drive: impl FnOnce(&Machine, u64, &mut Random)) {
    small_rig(board).run(|machine, _| {
        machine.control().stop(RunState::Paused);
        open_functions(machine);
        let found = machine.pci_devices().into_iter().find(|found| found.vendor.1 == device);
        let found = found.expect("the board has it");
        let bar = found.bars.iter().find(|found| found.index == bar).and_then(|bar| bar.base);
        // Devices work while the machine runs.
        machine.control().resume();
        drive(machine, bar.expect("it decodes"), &mut Random(u64::from(device) << 20 | 77));
        true
    });
}

fn times() -> u64 {
    std::env::var("BOARD_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A place for data: most of the time one that exists.
fn place(random: &mut Random) -> u64 {
    match random.below(12) {
        0 => random.next(),
        1 => random.next() & 0xffff_ffff,
        2 => 0x00ff_f000 + random.below(0x2000), // across the end of memory
        _ => (REQUESTS + random.below(REQUESTS_BYTES)) & !1,
    }
}

fn put(space: &AddressSpace, at: u64, size: u8, value: u64) {
    space.view().write_value(at, size, value);
}

/// Commands of ATA and ATAPI that move data or change something; and any others.
const COMMANDS: [u8; 22] = [
    0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0x39, 0x40, 0x60, 0x61, 0xa0, 0xa1, 0xb0, 0xc4, 0xc5,
    0xc6, 0xc8, 0xca, 0xe7, 0xec, 0xef,
];

fn command(random: &mut Random) -> u8 {
    match random.below(8) {
        0 => random.next() as u8,
        _ => COMMANDS[random.below(COMMANDS.len() as u64) as usize],
    }
}

/// Packets of CD drives.
const PACKETS: [u8; 16] = [
    0x00, 0x03, 0x12, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x43, 0x46, 0x4a, 0x51, 0x5a, 0xa8, 0xad, 0xbe,
];

fn packet(random: &mut Random) -> [u8; 12] {
    let mut packet = [0; 12].map(|_: u8| random.next() as u8);
    packet[0] = PACKETS[random.below(PACKETS.len() as u64) as usize];
    if random.below(2) == 0 {
        packet[2..5].fill(0);
        packet[7] = 0;
    }
    packet
}

#[test]
fn almost_right_commands_of_sata_do_no_harm() {
    on(BoardKind::Q35, 0x2922, 5, |machine, base, random| {
        let memory = machine.memory();
        put(&memory, base + 4, 4, 1 << 31 | 2);
        for _ in 0..6_000 * times() {
            let port = base + 0x100 + 0x80 * random.below(3);
            let (list, received) = (place(random) & !0x3ff, place(random) & !0xff);
            put(&memory, port, 4, list);
            put(&memory, port + 4, 4, if random.below(9) == 0 { random.next() } else { 0 });
            put(&memory, port + 8, 4, received);
            put(&memory, port + 0x14, 4, random.next());
            let slots = random.next() as u32;
            for slot in (0..32).filter(|slot| slots >> slot & 1 != 0).take(4) {
                let (head, table) = (list + 32 * slot, place(random) & !0x7f);
                let entries = random.below(6) << 16;
                let flags = 5 | random.below(8) << 5 & 0x60 | random.below(16) << 7 & 0x780;
                put(&memory, head, 4, entries | flags);
                put(&memory, head + 8, 8, table);
                let fis = [0x27, if random.below(8) == 0 { 0 } else { 0x80 }, command(random)];
                memory.view().write(table, &fis);
                for at in 3..16 {
                    let byte = if random.below(2) == 0 { 0 } else { random.next() };
                    put(&memory, table + at, 1, byte);
                }
                memory.view().write(table + 0x40, &packet(random));
                for entry in 0..6 {
                    put(&memory, table + 0x80 + 16 * entry, 8, place(random));
                    let bytes =
                        if random.below(6) == 0 { random.next() } else { random.below(0x2000) };
                    put(&memory, table + 0x80 + 16 * entry + 12, 4, bytes & 0x803f_ffff);
                }
            }
            put(&memory, port + 0x18, 4, 0x11 | random.below(2) << 3 | random.below(2) << 24);
            if random.below(2) == 0 {
                put(&memory, port + 0x34, 4, u64::from(slots));
            }
            put(&memory, port + 0x38, 4, u64::from(slots));
            if random.below(4) == 0 {
                put(&memory, port + 0x18, 4, 0x10);
            }
            if random.below(40) == 0 {
                put(&memory, port + 0x2c, 4, random.below(2)); // resets of the link
            }
        }
    });
}

#[test]
fn almost_right_commands_of_parallel_ata_do_no_harm() {
    on(BoardKind::Pc, 0x7010, 4, |machine, base, random| {
        let (memory, ports) = (machine.memory(), machine.ports());
        for _ in 0..8_000 * times() {
            let second = random.below(4) == 0;
            let (file, control, master) =
                if second { (0x170, 0x376, base + 8) } else { (0x1f0, 0x3f6, base) };
            let table = place(random) & 0xffff_fffc;
            for entry in 0..4 {
                put(&memory, table + 8 * entry, 4, place(random));
                let end = u64::from(entry == 3) << 31;
                put(&memory, table + 8 * entry + 4, 4, end | random.below(0x1_0000));
            }
            put(&ports, master + 4, 4, table);
            put(&ports, master + 2, 1, 0x66);
            put(&ports, file + 6, 1, 0x40 | random.below(4) << 4 | random.below(16));
            for register in 1..6 {
                for _ in 0..=random.below(2) {
                    let byte = if random.below(2) == 0 { random.below(4) } else { random.next() };
                    put(&ports, file + register, 1, byte & 0xff);
                }
            }
            put(&ports, file + 7, 1, u64::from(command(random)));
            match random.below(4) {
                0 => put(&ports, master, 1, 1 | random.below(2) << 3),
                1 => {
                    let packet = packet(random);
                    packet.as_chunks::<2>().0.iter().for_each(|word| {
                        put(&ports, file, 2, u64::from(u16::from_le_bytes(*word)));
                    });
                    put(&ports, master, 1, 1 | random.below(2) << 3);
                }
                _ => {
                    for _ in 0..random.below(600) {
                        match random.below(2) {
                            0 => _ = ports.view().read_value(file, 1 << random.below(3)),
                            _ => put(&ports, file, 1 << random.below(3), random.next()),
                        }
                    }
                }
            }
            _ = ports.view().read_value(file + 7, 1);
            put(&ports, master, 1, 0);
            if random.below(30) == 0 {
                put(&ports, control, 1, random.next() & 6);
            }
        }
    });
}

/// A block of a ring: kind, with the cycle bit that makes it ours most of the time.
fn block(memory: &AddressSpace, at: u64, random: &mut Random, (kind, slot): (u64, u64)) {
    put(memory, at, 8, place(random));
    let length = if random.below(4) == 0 { random.next() } else { random.below(0x400) };
    put(memory, at + 8, 4, length & 0xffff_ffff);
    let flags = random.next() & 0x27e | u64::from(random.below(20) != 0);
    let endpoint = if random.below(3) == 0 { random.below(32) } else { 1 + random.below(3) };
    put(memory, at + 12, 4, flags | kind << 10 | endpoint << 16 | slot << 24);
}

#[test]
fn almost_right_rings_of_usb_do_no_harm() {
    on(BoardKind::Q35, 0x000d, 0, |machine, base, random| {
        let memory = machine.memory();
        for _ in 0..3_000 * times() {
            let contexts = place(random) & !63;
            put(&memory, base + 0x70, 8, contexts);
            for slot in 0..6 {
                put(&memory, contexts + 8 * slot, 8, place(random) & !63);
            }
            // A table of one or more segments for events.
            let table = place(random) & !63;
            for segment in 0..4 {
                put(&memory, table + 16 * segment, 8, place(random) & !63);
                put(&memory, table + 16 * segment + 8, 4, random.below(260));
            }
            put(&memory, base + 0x1028, 4, random.below(5));
            put(&memory, base + 0x1038, 8, place(random));
            put(&memory, base + 0x1030, 8, table);
            put(&memory, base + 0x1020, 4, 3);
            let ring = place(random) & !63;
            put(&memory, base + 0x40, 4, 0);
            put(&memory, base + 0x58, 8, ring | 1);
            put(&memory, base + 0x40, 4, 5);
            for index in 0..1 + random.below(12) {
                let kind =
                    [9, 11, 11, 12, 12, 13, 14, 15, 16, 17, 10, 6][random.below(12) as usize];
                let (at, slot) = (ring + 16 * index, 1 + random.below(4));
                block(&memory, at, random, (kind, slot));
                // Most inputs are contexts that say where a device is and which endpoints there are.
                let input = place(random) & !63;
                if random.below(5) != 0 {
                    put(&memory, at, 8, input);
                    put(&memory, input, 8, 3 << 32 | (random.next() & 0xffff_fffc) << 32);
                    put(&memory, input + 0x24, 4, (1 + random.below(9)) << 16);
                    for endpoint in 1..5 {
                        let context = input + 0x20 * (endpoint + 1);
                        put(&memory, context + 4, 4, random.below(8) << 3 | 0x40_0000);
                        put(&memory, context + 8, 8, place(random) & !15 | 1);
                    }
                }
            }
            put(&memory, base + 0x2000, 4, 0);
            for _ in 0..random.below(6) {
                let transfers = place(random) & !15;
                for index in 0..1 + random.below(8) {
                    let kind = [1, 2, 3, 4, 6, 7, 8][random.below(7) as usize];
                    block(&memory, transfers + 16 * index, random, (kind, 0));
                    if kind == 2 {
                        let setup = [0x80, 6, 0, 1 + random.below(3), 0, 0, random.below(256), 0];
                        let setup = setup.map(|byte| byte as u8);
                        memory.view().write(transfers + 16 * index, &setup);
                    }
                }
                put(&memory, base + 0x2000 + 4 * (1 + random.below(5)), 4, random.below(5));
            }
            put(&memory, base + 0x440 + 0x10 * random.below(9), 4, random.next());
        }
    });
}

/// Orders for codecs in rings, and streams over lists of buffers that may be anything.
#[test]
fn almost_right_streams_of_sound_do_no_harm() {
    on(BoardKind::Q35, 0x293e, 0, |machine, base, random| {
        let memory = machine.memory();
        for _ in 0..2_000 * times() {
            if random.below(50) == 0 {
                put(&memory, base + 8, 4, 0);
            }
            put(&memory, base + 8, 4, 1);
            put(&memory, base + 0x20, 4, random.next());
            let (orders, answers) = (place(random) & !127, place(random) & !127);
            put(&memory, base + 0x40, 8, orders);
            put(&memory, base + 0x50, 8, answers);
            put(&memory, base + 0x4c, 1, random.below(4) | 2);
            put(&memory, base + 0x5c, 1, random.below(8) | 2);
            for slot in 0..random.below(20) {
                let node = random.below(7) << 20;
                let order = match random.below(4) {
                    // Streams and formats of the converters most of the time.
                    0 => node | 0x7_0600 | random.below(256),
                    1 => node | 0x2_0000 | random.below(1 << 16),
                    2 => node | 0xf_0000 | random.below(1 << 12),
                    _ => random.next() & 0xffff_ffff,
                };
                put(&memory, orders + 4 * slot, 4, order);
            }
            put(&memory, base + 0x48, 2, random.below(256));
            let list = place(random) & !127;
            for entry in 0..random.below(6) {
                put(&memory, list + 16 * entry, 8, place(random));
                let bytes = if random.below(5) == 0 { random.next() } else { random.below(5000) };
                put(&memory, list + 16 * entry + 8, 4, bytes);
                put(&memory, list + 16 * entry + 12, 4, random.below(2));
            }
            let stream = base + 0x80 + 0x20 * random.below(8);
            put(&memory, stream + 0x18, 8, list);
            let bytes = if random.below(5) == 0 { random.next() } else { random.below(20_000) };
            put(&memory, stream + 8, 4, bytes & 0xffff_ffff);
            put(&memory, stream + 0xc, 2, random.below(6));
            put(&memory, stream + 0x12, 2, random.next() & 0xffff);
            put(&memory, base + 0x70, 8, place(random) | random.below(2));
            put(&memory, stream, 4, random.below(16) << 20 | random.below(32));
            _ = memory.view().read_value(base + random.below(0x180), 4);
        }
    });
}
