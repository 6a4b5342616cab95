//! What firmware is given: its ROM, fw_cfg's items, the bytes in CMOS.

use std::sync::{Arc, OnceLock};

use devices::cfi01::{BLOCK_BYTES, Flash, FlashError};
use devices::fw_cfg::{self, DmaPorts, Files, FwCfg, SelectorPorts, Source, key};
use devices::mc146818::Cmos;
use memory::{AddressSpace, Owner, Ram, Region};

use crate::acpi::{self, Facts, Image};
use crate::boot::Kernel;
use crate::boot::memory_map;
use crate::config::{Config, MachineError};
use crate::smbios;

/// The option ROM by which a BIOS starts a kernel out of fw_cfg.
pub const LINUX_ROM: &str = "linuxboot_dma.bin";

/// Where a system ROM ends.
const FOUR_GIB: u64 = 1 << 32;
const ROM_UNIT: usize = 64 << 10;
const ROM_BYTES_MAX: usize = 16 << 20;

/// The system ROM, mapped below 4 GiB.
pub fn map_rom(memory: &AddressSpace, bytes: &[u8]) -> Result<Arc<Ram>, MachineError> {
    let fits = !bytes.is_empty() && bytes.len() <= ROM_BYTES_MAX;
    if !fits || !bytes.len().is_multiple_of(ROM_UNIT) {
        return Err(MachineError::RomSize { bytes: bytes.len() });
    }
    let rom = Arc::new(Ram::new("pc.bios", bytes.len() as u64)?);
    let written = rom.write(0, bytes);
    debug_assert!(written, "the block is as large as the image");
    let start = FOUR_GIB - rom.len();
    memory.add(Region::new("bios", start, rom.len(), Owner::Rom(Arc::clone(&rom))));
    Ok(rom)
}

/// The flash chips, one below the other, and the contents of the uppermost.
pub fn map_flash(
    memory: &Arc<AddressSpace>,
    nodes: &[Option<Arc<dyn block::Node>>; 2],
) -> Result<Vec<Arc<Flash>>, MachineError> {
    const BYTES_MAX: u64 = 8 << 20;
    let (mut chips, mut end) = (Vec::new(), FOUR_GIB);
    for (number, node) in nodes.iter().enumerate() {
        let Some(node) = node else { continue };
        let bytes = node.size();
        let fits = bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES);
        if !fits || FOUR_GIB - end + bytes > BYTES_MAX {
            return Err(MachineError::FlashSize { number, bytes });
        }
        end -= bytes;
        let name = format!("system.flash{number}");
        chips.push(Flash::new(&name, Arc::clone(node), memory, end).map_err(
            |error| match error {
                FlashError::Ram(error) => MachineError::Ram(error),
                FlashError::Read(source) => MachineError::Flash { number, source },
            },
        )?);
    }
    Ok(chips)
}

/// How tables are made when firmware asks for them: after it has set up PCI.
pub type Tables = Arc<OnceLock<Box<dyn Fn() -> Facts + Send + Sync>>>;

/// Everything that firmware can read.
pub fn files(
    config: &Config,
    (low, high): (u64, u64),
    tables: &Tables,
) -> Result<Files, MachineError> {
    let mut files = Files::default();
    let count = config.processors as u16;
    files.set(key::SIGNATURE, *b"QEMU");
    files.set_word(key::ID, 3);
    files.set(key::UUID, config.uuid);
    files.set(key::RAM_BYTES, config.ram_bytes.to_le_bytes());
    files.set_half(key::NO_GRAPHIC, 0);
    files.set_half(key::PROCESSORS, count);
    // The numbers of local APICs have gaps where a level of the topology is no power of two.
    let last = config.identity.topology.apic_id(config.processors - 1);
    files.set_half(key::PROCESSORS_MAX, last as u16 + 1);
    files.set_half(key::BOOT_MENU, u16::from(config.boot.menu));
    files.set_word(key::IRQ0_OVERRIDE, 1);
    // No NUMA nodes: their number, and the node of each processor.
    files.set(key::NUMA, vec![0; 8 * (2 + last as usize)]);
    // What only the machine itself can start is not for firmware.
    let for_firmware = |kernel: &&Kernel| config.boot.has_firmware() || !kernel.is_elf();
    if let Some(kernel) = config.boot.kernel.as_ref().filter(for_firmware) {
        kernel.give(&mut files, low)?;
    }
    let map = memory_map(low, high).into_iter().filter(|(start, ..)| *start >= 1 << 20);
    let mut e820 = Vec::new();
    for (start, bytes, kind) in map {
        // Firmware counts RAM from 0.
        let (start, bytes) = if start == 1 << 20 { (0, low) } else { (start, bytes) };
        e820.extend(start.to_le_bytes());
        e820.extend(bytes.to_le_bytes());
        e820.extend(u32::to_le_bytes(kind));
    }
    add(&mut files, "etc/e820", Source::Bytes(e820))?;
    // S0 and S5 are there, S3 and S4 are not.
    add(&mut files, "etc/system-states", Source::Bytes(vec![128, 0, 0, 1, 2, 128]))?;
    add_boot(&mut files, config)?;
    add_tables(&mut files, tables)?;
    let (anchor, structures) = smbios::tables(config, low + high);
    add(&mut files, "etc/smbios/smbios-anchor", Source::Bytes(anchor))?;
    add(&mut files, "etc/smbios/smbios-tables", Source::Bytes(structures))?;
    for (name, bytes) in &config.fw_cfg {
        add(&mut files, name, Source::Bytes(bytes.clone()))?;
    }
    Ok(files)
}

fn add(files: &mut Files, name: &str, source: Source) -> Result<(), MachineError> {
    let refused = || MachineError::FirmwareFile { name: name.to_owned() };
    files.add(name, source).then_some(()).ok_or_else(refused)
}

fn add_boot(files: &mut Files, config: &Config) -> Result<(), MachineError> {
    let boot = &config.boot;
    if boot.kernel.is_some()
        && boot.rom.is_some()
        && let Some(rom) = config.firmware_files.load(LINUX_ROM)
    {
        add(files, &format!("genroms/{LINUX_ROM}"), Source::Bytes(rom))?;
    }
    let retry = boot.retry_ms.unwrap_or(u32::MAX);
    add(files, "etc/boot-fail-wait", Source::Bytes(retry.to_le_bytes().to_vec()))?;
    if boot.menu_ms > 0 {
        let wait = boot.menu_ms.to_le_bytes().to_vec();
        add(files, "etc/boot-menu-wait", Source::Bytes(wait))?;
    }
    Ok(())
}

fn add_tables(files: &mut Files, tables: &Tables) -> Result<(), MachineError> {
    let made = |bytes: usize, make: fn(&Image) -> Vec<u8>| {
        let tables = Arc::clone(tables);
        let make = move || {
            let facts = tables.get().map(|facts| facts());
            facts.map_or(Vec::new(), |facts| make(&acpi::build(&facts)))
        };
        Source::Made(bytes, Box::new(make))
    };
    let image = made(acpi::TABLES_BYTES, |image| image.bytes().to_vec());
    add(files, "etc/acpi/tables", image)?;
    add(files, "etc/acpi/rsdp", made(36, |image| image.root_pointer().to_vec()))?;
    add(files, "etc/table-loader", made(acpi::TABLE_LOADER_BYTES, acpi::commands))
}

/// Puts fw_cfg at its ports.
pub fn map_fw_cfg(device: &Arc<FwCfg>, ports: &AddressSpace) {
    let selector = Owner::Io(Arc::new(SelectorPorts(Arc::clone(device))));
    ports.add(Region::new("fw_cfg", fw_cfg::PORT, 2, selector));
    let dma = Owner::Io(Arc::new(DmaPorts(Arc::clone(device))));
    ports.add(Region::new("fw_cfg-dma", fw_cfg::DMA_PORT, 8, dma));
}

/// What firmware reads from the clock's memory: sizes of RAM, boot order, processors.
pub fn set_cmos(cmos: &Cmos, config: &Config, (low, high): (u64, u64)) {
    let set = |index: u8, value: u64, bytes: u8| {
        for at in 0..bytes {
            cmos.set(index + at, (value >> (8 * at)) as u8);
        }
    };
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const EQUIPMENT: u64 = 0x06; // an FPU and a mouse
    set(0x14, EQUIPMENT, 1);
    set(0x15, 640, 2);
    let extended = ((low - MIB) / KIB).min(0xffff);
    set(0x17, extended, 2);
    set(0x30, extended, 2);
    set(0x34, (low.saturating_sub(16 * MIB) / (64 * KIB)).min(0xffff), 2);
    set(0x5b, high / (64 * KIB), 3);
    set(0x5f, config.processors as u64 - 1, 1);
    let device = |at: usize| match config.boot.order.as_bytes().get(at) {
        Some(b'a') => 1,
        Some(b'c') => 2,
        Some(b'd') => 3,
        Some(b'n') => 4,
        _ => 0_u64,
    };
    set(0x3d, device(1) << 4 | device(0), 1);
    set(0x38, device(2) << 4 | 1, 1); // no check of the floppy's signature
}
