//! Programmable attribute map: RAM in the shadow of the ROMs between 768 KiB and 1 MiB.
//! Data sheet: Intel 82441FX (290549-001), 3.2.12.

use std::sync::Arc;

use device::{Io, ones};
use memory::{AddressSpace, Owner, Ram, Region, RegionId};

/// Above RAM, below nothing that a guest can move.
const PRIORITY: i32 = 3;
const READ: u8 = 1;
const WRITE: u8 = 2;

/// Start and length of what each nibble of the seven registers steers.
const SEGMENTS: [(u64, u64); 13] = [
    (0xf_0000, 0x1_0000), // PAM0, upper nibble; the lower one is reserved
    (0xc_0000, 0x4000),
    (0xc_4000, 0x4000),
    (0xc_8000, 0x4000),
    (0xc_c000, 0x4000),
    (0xd_0000, 0x4000),
    (0xd_4000, 0x4000),
    (0xd_8000, 0x4000),
    (0xd_c000, 0x4000),
    (0xe_0000, 0x4000),
    (0xe_4000, 0x4000),
    (0xe_8000, 0x4000),
    (0xe_c000, 0x4000),
];

/// Where the system ROM's last 128 KiB show.
const ROM_START: u64 = 0xe_0000;
const ROM_BYTES: u64 = 0x2_0000;

/// The map.
pub struct Pam {
    memory: Arc<AddressSpace>,
    ram: Arc<Ram>,
    rom: Option<Arc<Ram>>,
    regions: Vec<RegionId>,
}

/// Nobody behind the bus.
struct Nothing;

impl Io for Nothing {
    fn read(&self, _offset: u64, size: u8) -> u64 {
        ones(size)
    }

    fn write(&self, _offset: u64, _size: u8, _value: u64) {}
}

/// Reads go to the ROM, writes into the RAM below it.
struct WriteThrough {
    ram: Arc<Ram>,
    rom: Option<(Arc<Ram>, u64)>,
    start: u64,
}

impl Io for WriteThrough {
    fn read(&self, offset: u64, size: u8) -> u64 {
        self.rom.as_ref().map_or(ones(size), |(rom, at)| rom.read_value(at + offset, size))
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        self.ram.write_value(self.start + offset, size, value);
    }
}

impl Pam {
    /// The map over the low megabyte of `ram`, with `rom` as the system ROM.
    pub fn new(memory: &Arc<AddressSpace>, ram: &Arc<Ram>, rom: Option<Arc<Ram>>) -> Self {
        let regions = SEGMENTS.iter().map(|(start, bytes)| {
            let region = Region::new("pam", *start, *bytes, Owner::Io(Arc::new(Nothing)));
            // A region keeps its offset when its owner changes, so each owner starts at 0.
            region.with_priority(PRIORITY).with_enabled(false)
        });
        let regions = regions.map(|region| memory.add(region)).collect();
        let pam = Self { memory: Arc::clone(memory), ram: Arc::clone(ram), rom, regions };
        pam.apply(&[0; 7]);
        pam
    }

    /// The place of the system ROM that shows at `start`.
    fn rom_at(&self, start: u64) -> Option<(Arc<Ram>, u64)> {
        let rom = self.rom.as_ref()?;
        let shown = rom.len().min(ROM_BYTES);
        let inside = start.checked_sub(ROM_START + (ROM_BYTES - shown))?;
        Some((Arc::clone(rom), rom.len() - shown + inside))
    }

    /// The registers have these values.
    pub fn apply(&self, registers: &[u8; 7]) {
        self.memory.update(|change| {
            for (index, (id, (start, bytes))) in self.regions.iter().zip(SEGMENTS).enumerate() {
                let nibble = match index {
                    0 => registers[0] >> 4,
                    _ => registers[index.div_ceil(2)] >> (4 * ((index + 1) % 2)),
                };
                let owner = match (nibble & (READ | WRITE), self.rom_at(start)) {
                    (0, Some((rom, at))) => Some((Owner::Rom(rom), at)),
                    (0, None) => Some((Owner::Io(Arc::new(Nothing) as Arc<dyn Io>), 0)),
                    (READ, _) => Some((Owner::Rom(Arc::clone(&self.ram)), start)),
                    (WRITE, rom) => {
                        let ram = Arc::clone(&self.ram);
                        let through = WriteThrough { ram, rom, start };
                        Some((Owner::Io(Arc::new(through) as Arc<dyn Io>), 0))
                    }
                    _ => None,
                };
                let Some((owner, offset)) = owner else {
                    change.set_enabled(*id, false);
                    continue;
                };
                let region = Region::new("pam", start, bytes, owner).with_offset(offset);
                change.replace(*id, region.with_priority(PRIORITY));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_nibble_chooses_what_is_read_and_written() {
        let memory = Arc::new(AddressSpace::new());
        let ram = Arc::new(Ram::new("ram", 1 << 20).unwrap());
        memory.add(Region::new("ram", 0, 1 << 20, Owner::Ram(Arc::clone(&ram))));
        let rom = Arc::new(Ram::new("rom", 0x4_0000).unwrap());
        rom.write_value(0x3_0000, 4, 0x726f_6d21);
        let pam = Pam::new(&memory, &ram, Some(rom));
        let (read, write) = (
            |at| memory.view().read_value(at, 4),
            |at, value| memory.view().write_value(at, 4, value),
        );
        let (rom_f, hole_c) = (0xf_0000, 0xc_4000);
        assert_eq!((read(rom_f), read(hole_c)), (0x726f_6d21, 0xffff_ffff));
        pam.apply(&[0x20, 0x20, 0, 0, 0, 0, 0]);
        write(rom_f, 1);
        write(hole_c, 2);
        assert_eq!((read(rom_f), read(hole_c)), (0x726f_6d21, 0xffff_ffff));
        pam.apply(&[0x10, 0x10, 0, 0, 0, 0, 0]);
        write(rom_f, 7);
        assert_eq!((read(rom_f), read(hole_c)), (1, 2));
        pam.apply(&[0x30, 0x33, 0, 0, 0, 0, 0]);
        write(rom_f, 7);
        assert_eq!((read(rom_f), read(0xc_0000)), (7, 0));
    }
}
