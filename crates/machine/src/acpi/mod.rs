//! ACPI tables: built once in a form that does not know where it will lie, then either handed to
//! firmware with the commands that link it, or linked and placed for a system that is booted
//! without firmware. Specification: ACPI 6.5, chapter 5.

mod aml;
mod dsdt;
mod image;
mod loader;
mod tables;

use crate::config::OldChips;
pub use dsdt::{Chipset, Com};
pub use image::Image;
pub use loader::{TABLE_LOADER_BYTES, TABLES_BYTES, commands};

/// Where the tables lie without firmware: in the area that PC systems search.
pub const BASE: u64 = 0xe_0000;

/// What the tables say of the machine.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The identifiers of the local APICs.
    pub processors: Vec<u32>,
    /// The chipset.
    pub chipset: Chipset,
    /// Configuration space in memory: start and bytes.
    pub ecam: Option<(u64, u64)>,
    /// Memory below 4 GiB that PCI may use: first and last address of each piece.
    pub windows: Vec<(u64, u64)>,
    /// There is an HPET.
    pub hpet: bool,
    /// There is a keyboard controller.
    pub i8042: bool,
    /// Serial ports: port, interrupt.
    pub serial: Vec<Com>,
    /// The machine's generation, where the guest may know it.
    pub generation: Option<[u8; 16]>,
    /// There is a screen of the old kind.
    pub vga: bool,
    /// Virtio devices behind registers in memory: start, bytes, input of the I/O APIC.
    pub places: Vec<(u64, u64, u32)>,
    /// Which of the old chips are there.
    pub old: OldChips,
    /// Where the fixed registers lie.
    pub pm_base: u16,
}

/// All tables, the root pointer apart.
#[must_use]
pub fn build(facts: &Facts) -> Image {
    let mut image = Image::default();
    let facs = image.add_raw(64, &tables::firmware_control());
    let dsdt = image.add(b"DSDT", 1, &dsdt::definitions(facts));
    let fadt = image.add(b"FACP", 3, &tables::fixed(facts));
    image.point(fadt + 36, 4, facs);
    image.point(fadt + 40, 4, dsdt);
    let mut entries = vec![fadt];
    entries.push(image.add(b"APIC", 3, &tables::interrupts(facts)));
    if facts.hpet {
        entries.push(image.add(b"HPET", 1, &tables::hpet()));
    }
    if let Some((start, bytes)) = facts.ecam {
        entries.push(image.add(b"MCFG", 1, &tables::configuration_space(start, bytes)));
    }
    if let Some(number) = &facts.generation {
        entries.push(generation(&mut image, number));
    }
    // Both root tables: old systems read the one, those of this century the other.
    let rsdt = image.add(b"RSDT", 1, &vec![0; 4 * entries.len()]);
    let xsdt = image.add(b"XSDT", 1, &vec![0; 8 * entries.len()]);
    for (place, table) in entries.iter().enumerate() {
        image.point(rsdt + 36 + 4 * place, 4, *table);
        image.point(xsdt + 36 + 8 * place, 8, *table);
    }
    image.set_roots(rsdt, xsdt);
    image
}

/// The machine's generation: a table of its own with a device that tells where the number lies.
fn generation(image: &mut Image, number: &[u8; 16]) -> usize {
    /// Stands where the number's address goes.
    const MARK: u32 = 0xa55a_c33c;
    const HEADER_BYTES: usize = 36;
    let body = dsdt::generation(MARK);
    let mark = MARK.to_le_bytes();
    let at = body.windows(4).position(|bytes| bytes == mark).expect("the mark is in the table");
    // Systems map the page of the number: nothing else that they use may lie in it.
    let place = image.add_raw(4096, number);
    _ = image.add_raw(4096, &[]);
    let table = image.add(b"SSDT", 1, &body);
    image.point(table + HEADER_BYTES + at, 4, place);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn facts() -> Facts {
        Facts {
            processors: vec![0, 1, 2],
            chipset: Chipset::Ich9,
            ecam: Some((0xb000_0000, 256 << 20)),
            windows: vec![(0x8000_0000, 0xafff_ffff), (0xc000_0000, 0xfebf_ffff)],
            hpet: true,
            i8042: true,
            serial: vec![Com { port: 0x3f8, irq: 4 }],
            generation: None,
            vga: true,
            places: Vec::new(),
            old: OldChips::ALL,
            pm_base: 0x600,
        }
    }

    #[test]
    fn every_table_sums_to_zero_and_the_root_leads_to_them() {
        let (pointer, image) = build(&facts()).linked(BASE);
        let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!((sum(&pointer[..20]), sum(&pointer)), (0, 0));
        let long =
            |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let table = |address: u64| {
            let at = (address - BASE) as usize;
            let length = u32::from_le_bytes(image[at + 4..at + 8].try_into().unwrap()) as usize;
            &image[at..at + length]
        };
        let xsdt = table(long(&pointer, 24));
        let mut seen = vec![&xsdt[..4]];
        for entry in xsdt[36..].chunks(8) {
            let table = table(long(entry, 0));
            assert_eq!(sum(table), 0);
            seen.push(&table[..4]);
        }
        assert_eq!(seen, [b"XSDT", b"FACP", b"APIC", b"HPET", b"MCFG"]);
        let fadt = table(long(&xsdt[36..44], 0));
        let dsdt = u32::from_le_bytes(fadt[40..44].try_into().unwrap());
        assert_eq!(&table(u64::from(dsdt))[..4], b"DSDT");
    }

    /// The reference compiler reads what we wrote, where it is installed.
    #[test]
    fn firmware_gets_as_much_as_was_announced() {
        let image = build(&facts());
        assert!(image.bytes().len() < TABLES_BYTES);
        let script = commands(&image);
        assert!(script.len() <= TABLE_LOADER_BYTES && script.len().is_multiple_of(128));
    }
}
