//! SMBIOS tables: what a guest's `dmidecode` prints. Specification: DMTF DSP0134 3.x.

use crate::config::Config;

/// The values that whoever starts the machine may set, by the structures' numbers.
#[derive(Clone, Debug, Default)]
pub struct Smbios {
    /// Type 0.
    pub bios: Bios,
    /// Type 1.
    pub system: System,
    /// Type 2; none leaves it out.
    pub board: Option<Board>,
    /// Type 3.
    pub chassis: Chassis,
    /// Type 4.
    pub processor: Processor,
    /// Type 8.
    pub ports: Vec<PortConnector>,
    /// Type 11.
    pub oem_strings: Vec<String>,
    /// Type 17.
    pub memory: MemoryDevice,
    /// Type 41.
    pub onboard: Vec<OnboardDevice>,
    /// Structures as bytes, each with its strings; they stand instead of ours of the same types.
    pub raw: Vec<Vec<u8>>,
}

/// Type 0: the firmware. All texts may be empty.
#[derive(Clone, Debug, Default)]
pub struct Bios {
    /// Who made it.
    pub vendor: String,
    /// Its version.
    pub version: String,
    /// Its date, as month/day/year.
    pub date: String,
    /// Its release, major and minor.
    pub release: Option<(u8, u8)>,
    /// It is UEFI.
    pub uefi: bool,
}

/// Type 1: the machine.
#[derive(Clone, Debug, Default)]
pub struct System {
    /// Who made it.
    pub manufacturer: String,
    /// What it is.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Its order number.
    pub sku: String,
    /// Its family.
    pub family: String,
}

/// Type 2: the board.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// Who made it.
    pub manufacturer: String,
    /// What it is.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Its inventory number.
    pub asset: String,
    /// Where in the chassis it is.
    pub location: String,
}

/// Type 3: the chassis.
#[derive(Clone, Debug, Default)]
pub struct Chassis {
    /// Who made it.
    pub manufacturer: String,
    /// Its version.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Its inventory number.
    pub asset: String,
    /// Its order number.
    pub sku: String,
}

/// Type 4: the processors.
#[derive(Clone, Debug, Default)]
pub struct Processor {
    /// What the sockets are called, before their numbers.
    pub socket_prefix: String,
    /// Who made them.
    pub manufacturer: String,
    /// Their version.
    pub version: String,
    /// Their serial number.
    pub serial: String,
    /// Their inventory number.
    pub asset: String,
    /// Their part number.
    pub part: String,
    /// The highest clock, in MHz; 0 for 2000.
    pub max_speed: u16,
    /// The present clock, in MHz; 0 for 2000.
    pub current_speed: u16,
}

/// Type 8: a connector.
#[derive(Clone, Debug, Default)]
pub struct PortConnector {
    /// What it is called inside.
    pub internal: String,
    /// What it is called outside.
    pub external: String,
    /// The kind of plug.
    pub connector: u8,
    /// The kind of port.
    pub port: u8,
}

/// Type 41: a device that is soldered on.
#[derive(Clone, Debug, Default)]
pub struct OnboardDevice {
    /// What it is called.
    pub designation: String,
    /// The kind; bit 7: it is enabled.
    pub kind: u8,
    /// Which of its kind.
    pub instance: u8,
}

/// Type 17: memory modules.
#[derive(Clone, Debug, Default)]
pub struct MemoryDevice {
    /// What the sockets are called, before their numbers.
    pub locator_prefix: String,
    /// The bank.
    pub bank: String,
    /// Who made them.
    pub manufacturer: String,
    /// Their serial number.
    pub serial: String,
    /// Their inventory number.
    pub asset: String,
    /// Their part number.
    pub part: String,
    /// Their speed in MT/s; 0 for unknown.
    pub speed: u16,
}

/// A structure: its fixed part, then its strings.
struct Structure {
    fixed: Vec<u8>,
    strings: Vec<String>,
}

impl Structure {
    fn new(kind: u8, handle: u16) -> Self {
        let [low, high] = handle.to_le_bytes();
        Self { fixed: vec![kind, 0, low, high], strings: Vec::new() }
    }

    /// The number of a text; 0 for an empty one.
    fn text(mut self, text: &str) -> Self {
        let number = if text.is_empty() {
            0
        } else {
            self.strings.push(text.replace('\0', ""));
            self.strings.len() as u8
        };
        self.fixed.push(number);
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.fixed.extend(bytes);
        self
    }

    fn half(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn word(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn long(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn finish(mut self, into: &mut Vec<u8>) {
        self.fixed[1] = self.fixed.len() as u8;
        into.extend(self.fixed);
        for text in &self.strings {
            into.extend(text.as_bytes());
            into.push(0);
        }
        into.extend(if self.strings.is_empty() { &[0, 0][..] } else { &[0][..] });
    }
}

const MIB: u64 = 1 << 20;
/// A memory module has at most this much, so that its size fits into its field.
const MODULE_BYTES: u64 = 16 << 30;

/// Anchor and structures.
pub type SystemTables = (Vec<u8>, Vec<u8>);

/// The same where there is no firmware to place the structures.
#[must_use]
pub fn placed((anchor, structures): &SystemTables, address: u64) -> SystemTables {
    let mut anchor = anchor.clone();
    anchor[16..24].copy_from_slice(&address.to_le_bytes());
    anchor[5] = 0;
    let sum = anchor.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    anchor[5] = sum.wrapping_neg();
    (anchor, structures.clone())
}

/// Anchor (version 3, 64-bit) and structures.
#[must_use]
pub fn tables(config: &Config, ram_bytes: u64) -> (Vec<u8>, Vec<u8>) {
    let mut all = Vec::new();
    let replaced: Vec<u8> =
        config.smbios.raw.iter().filter_map(|raw| raw.first().copied()).collect();
    let mut add = |kind: u8, structure: Structure| {
        if !replaced.contains(&kind) {
            structure.finish(&mut all);
        }
    };
    identity(config, &mut add);
    processor(config, &mut add);
    memory(config, ram_bytes, &mut add);
    add(32, Structure::new(32, 0x2000).bytes(&[0; 7]));
    for (number, device) in (0_u16..).zip(&config.smbios.onboard) {
        // On no bus that this knows of.
        let structure = Structure::new(41, 0x2900 + number)
            .text(&device.designation)
            .bytes(&[device.kind, device.instance])
            .half(0)
            .bytes(&[0, 0]);
        add(41, structure);
    }
    for raw in &config.smbios.raw {
        all.extend(raw);
    }
    Structure::new(127, 0x7f00).finish(&mut all);
    (anchor(all.len()), all)
}

fn anchor(length: usize) -> Vec<u8> {
    let mut anchor = b"_SM3_".to_vec();
    anchor.extend([0, 24, 3, 0, 0, 1, 0]);
    anchor.extend((length as u32).to_le_bytes());
    anchor.extend([0; 8]); // firmware places the structures
    let sum = anchor.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    anchor[5] = sum.wrapping_neg();
    anchor
}

fn identity(config: &Config, add: &mut impl FnMut(u8, Structure)) {
    const CHARACTERISTICS_UNKNOWN: u64 = 1 << 3;
    let Smbios { bios, system, board, .. } = &config.smbios;
    if !bios.vendor.is_empty() || !bios.version.is_empty() || !bios.date.is_empty() {
        let (major, minor) = bios.release.unwrap_or((0, 0));
        let virtual_machine = 1 << 4 | u8::from(bios.uefi) << 3;
        let structure = Structure::new(0, 0).text(&bios.vendor).text(&bios.version).half(0xe800);
        add(
            0,
            structure.text(&bios.date).bytes(&[0]).long(CHARACTERISTICS_UNKNOWN).bytes(&[
                0,
                virtual_machine | 1 << 2,
                major,
                minor,
                0xff,
                0xff,
            ]),
        );
    }
    // The first three fields of a UUID are stored with their least byte first.
    let uuid = config.uuid;
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    const POWER_SWITCH: u8 = 6;
    let structure = Structure::new(1, 0x100)
        .text(&system.manufacturer)
        .text(&system.product)
        .text(&system.version)
        .text(&system.serial)
        .bytes(&order.map(|at: usize| uuid[at]))
        .bytes(&[POWER_SWITCH])
        .text(&system.sku)
        .text(&system.family);
    add(1, structure);
    if let Some(board) = board {
        let structure = Structure::new(2, 0x200)
            .text(&board.manufacturer)
            .text(&board.product)
            .text(&board.version)
            .text(&board.serial)
            .text(&board.asset)
            .bytes(&[1]) // it hosts
            .text(&board.location)
            .half(0x300)
            .bytes(&[10, 0]); // a motherboard
        add(2, structure);
    }
    chassis_and_ports(config, add);
}

fn chassis_and_ports(config: &Config, add: &mut impl FnMut(u8, Structure)) {
    let Smbios { chassis, oem_strings, .. } = &config.smbios;
    let structure = Structure::new(3, 0x300)
        .text(&chassis.manufacturer)
        .bytes(&[1]) // of another kind
        .text(&chassis.version)
        .text(&chassis.serial)
        .text(&chassis.asset)
        .bytes(&[3, 3, 3, 2]) // safe, safe, safe, unknown
        .word(0)
        .bytes(&[0, 0, 0, 0])
        .text(&chassis.sku);
    add(3, structure);
    for (number, port) in (0_u16..).zip(&config.smbios.ports) {
        let structure = Structure::new(8, 0x800 + number)
            .text(&port.internal)
            .bytes(&[0])
            .text(&port.external)
            .bytes(&[port.connector, port.port]);
        add(8, structure);
    }
    if !oem_strings.is_empty() {
        let count = oem_strings.len().min(255);
        let mut structure = Structure::new(11, 0xe00).bytes(&[count as u8]);
        structure.strings = oem_strings[..count].to_vec();
        add(11, structure);
    }
}

fn processor(config: &Config, add: &mut impl FnMut(u8, Structure)) {
    let processor = &config.smbios.processor;
    let speed = |mhz: u16| if mhz == 0 { 2000 } else { mhz };
    let prefix = if processor.socket_prefix.is_empty() { "CPU" } else { &processor.socket_prefix };
    let topology = &config.identity.topology;
    let threads = topology.threads_per_package();
    let cores = threads / topology.threads;
    let short = |count: u32| count.min(255) as u8;
    for number in 0..topology.sockets {
        let structure = Structure::new(4, 0x400 + number as u16)
            .text(&format!("{prefix} {number}"))
            .bytes(&[3, 1]) // a processor, of another family
            .text(&processor.manufacturer)
            .long(0)
            .text(&processor.version)
            .bytes(&[0])
            .half(0)
            .half(speed(processor.max_speed))
            .half(speed(processor.current_speed))
            .bytes(&[0x41, 1]) // populated, enabled; another socket
            .bytes(&[0xff; 6]) // no caches
            .text(&processor.serial)
            .text(&processor.asset)
            .text(&processor.part)
            .bytes(&[short(cores), short(cores), short(threads)]) // cores, enabled, threads
            .half(2) // unknown
            .half(1) // of another family
            .half(cores as u16)
            .half(cores as u16)
            .half(threads as u16);
        add(4, structure);
    }
}

fn memory(config: &Config, ram_bytes: u64, add: &mut impl FnMut(u8, Structure)) {
    let memory = &config.smbios.memory;
    let modules = ram_bytes.div_ceil(MODULE_BYTES);
    let array = Structure::new(16, 0x1000)
        .bytes(&[1, 3, 6]) // elsewhere, system memory, multi-bit error correction
        .word(0x8000_0000)
        .half(0xfffe)
        .half(modules as u16)
        .long(ram_bytes);
    add(16, array);
    let prefix = if memory.locator_prefix.is_empty() { "DIMM" } else { &memory.locator_prefix };
    for number in 0..modules {
        let bytes = (ram_bytes - number * MODULE_BYTES).min(MODULE_BYTES);
        let structure = Structure::new(17, 0x1100 + number as u16)
            .half(0x1000)
            .half(0xfffe)
            .half(0xffff)
            .half(0xffff)
            .half((bytes / MIB) as u16)
            .bytes(&[9, 0]) // a module, in no set
            .text(&format!("{prefix} {number}"))
            .text(&memory.bank)
            .bytes(&[7]) // RAM
            .half(2) // of another technology
            .half(memory.speed)
            .text(&memory.manufacturer)
            .text(&memory.serial)
            .text(&memory.asset)
            .text(&memory.part)
            .bytes(&[0])
            .word(0)
            .half(memory.speed)
            .half(0)
            .half(0)
            .half(0);
        add(17, structure);
    }
    let mapped = Structure::new(19, 0x1300)
        .word(0)
        .word((ram_bytes / 1024).min(0xffff_fffe).saturating_sub(1) as u32)
        .half(0x1000)
        .bytes(&[1])
        .long(0)
        .long(0);
    add(19, mapped);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structure_ends_in_its_strings_and_two_zeros() {
        let mut bytes = Vec::new();
        Structure::new(1, 0x100).text("a").text("").text("bc").finish(&mut bytes);
        assert_eq!(bytes, [1, 7, 0, 1, 1, 0, 2, b'a', 0, b'b', b'c', 0, 0]);
        bytes.clear();
        Structure::new(127, 0x7f00).finish(&mut bytes);
        assert_eq!(bytes, [127, 4, 0, 0x7f, 0, 0]);
    }

    #[test]
    fn the_anchor_sums_to_zero() {
        let anchor = anchor(1000);
        assert_eq!(anchor.len(), 24);
        assert_eq!(anchor.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    }
}
