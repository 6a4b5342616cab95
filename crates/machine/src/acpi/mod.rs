//! ACPI tables, linked and summed, for a system that is booted without firmware.
//!
//! Specification: ACPI 6.5, chapter 5.

use crate::power;

/// Where the tables lie: in the area that PC systems search.
pub const BASE: u64 = 0xe_0000;

/// A table's header is this long.
const HEADER_BYTES: usize = 36;

/// All tables as one image for [`BASE`]; the root pointer comes first.
#[must_use]
pub fn tables(processors: usize) -> Vec<u8> {
    let mut image = vec![0; 48];
    let place = |image: &mut Vec<u8>, table: Vec<u8>| {
        image.resize(image.len().next_multiple_of(16), 0);
        let address = BASE + image.len() as u64;
        image.extend(table);
        address
    };
    let dsdt = place(&mut image, table(b"DSDT", 2, &definitions()));
    let fadt = place(&mut image, table(b"FACP", 6, &fixed(dsdt)));
    let madt = place(&mut image, table(b"APIC", 5, &interrupts(processors)));
    let entries = [fadt, madt].map(u64::to_le_bytes).concat();
    let xsdt = place(&mut image, table(b"XSDT", 1, &entries));
    image[..36].copy_from_slice(&root_pointer(xsdt));
    image
}

/// The byte that makes a sum zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let length = (HEADER_BYTES + body.len()) as u32;
    let mut table = Vec::with_capacity(length as usize);
    table.extend(signature);
    table.extend(length.to_le_bytes());
    table.extend([revision, 0]);
    table.extend(b"HOSTEL");
    table.extend(b"HOSTELPC");
    table.extend(1_u32.to_le_bytes());
    table.extend(b"HSTL");
    table.extend(1_u32.to_le_bytes());
    table.extend(body);
    table[9] = checksum(&table);
    table
}

fn root_pointer(xsdt: u64) -> [u8; 36] {
    let mut pointer = [0; 36];
    pointer[..8].copy_from_slice(b"RSD PTR ");
    pointer[9..15].copy_from_slice(b"HOSTEL");
    pointer[15] = 2;
    pointer[20..24].copy_from_slice(&36_u32.to_le_bytes());
    pointer[24..32].copy_from_slice(&xsdt.to_le_bytes());
    pointer[8] = checksum(&pointer[..20]);
    pointer[32] = checksum(&pointer);
    pointer
}

/// Fields of the fixed table by their offset in the whole table.
struct Fields(Vec<u8>);

impl Fields {
    fn set(&mut self, offset: usize, bytes: &[u8]) {
        let at = offset - HEADER_BYTES;
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A generic address in I/O space.
    fn set_port(&mut self, offset: usize, bits: u8, port: u64) {
        self.set(offset, &[1, bits, 0, bits / 16 + 1]);
        self.set(offset + 4, &port.to_le_bytes());
    }
}

/// FADT: where the fixed hardware is, and that it is in ACPI mode already.
fn fixed(dsdt: u64) -> Vec<u8> {
    const FADT_BYTES: usize = 276;
    const WBINVD: u32 = 1;
    const C1: u32 = 1 << 2;
    const SLEEP_BUTTON_ABSENT: u32 = 1 << 5;
    const RESET_REGISTER: u32 = 1 << 10;
    const BOOT_LEGACY_DEVICES: u16 = 1;
    const BOOT_NO_VGA: u16 = 1 << 2;
    let base = power::PM_BASE;
    let mut fields = Fields(vec![0; FADT_BYTES - HEADER_BYTES]);
    fields.set(40, &(dsdt as u32).to_le_bytes());
    fields.set(46, &(power::SCI as u16).to_le_bytes());
    fields.set(56, &(base as u32).to_le_bytes());
    fields.set(64, &(base as u32 + 4).to_le_bytes());
    fields.set(76, &(base as u32 + 8).to_le_bytes());
    fields.set(88, &[4, 2]); // lengths of event and control blocks
    fields.set(91, &[4]); // of the timer
    fields.set(96, &0xffff_u16.to_le_bytes()); // no C2
    fields.set(98, &0xffff_u16.to_le_bytes()); // no C3
    fields.set(108, &[0x32]); // where CMOS keeps the century
    fields.set(109, &(BOOT_LEGACY_DEVICES | BOOT_NO_VGA).to_le_bytes());
    let flags = WBINVD | C1 | SLEEP_BUTTON_ABSENT | RESET_REGISTER;
    fields.set(112, &flags.to_le_bytes());
    fields.set_port(116, 8, 0xcf9);
    fields.set(128, &[0x0e]); // what to write there
    fields.set(131, &[5]); // minor version
    fields.set(140, &dsdt.to_le_bytes());
    fields.set_port(148, 32, base);
    fields.set_port(172, 16, base + 4);
    fields.set_port(208, 32, base + 8);
    fields.0
}

/// MADT: local APICs, the I/O APIC, and how the old interrupts reach it.
fn interrupts(processors: usize) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0xfee0_0000_u32.to_le_bytes());
    body.extend(1_u32.to_le_bytes()); // there is an 8259 pair, too
    for number in 0..processors as u8 {
        body.extend([0, 8, number, number, 1, 0, 0, 0]);
    }
    body.extend([1, 12, 0, 0]);
    body.extend(0xfec0_0000_u32.to_le_bytes());
    body.extend(0_u32.to_le_bytes());
    // The timer is on input 2; the SCI is level-triggered, active high.
    for (from, to, flags) in [(0_u8, 2_u32, 0_u16), (9, 9, 0x0d)] {
        body.extend([2, 10, 0, from]);
        body.extend(to.to_le_bytes());
        body.extend(flags.to_le_bytes());
    }
    // Non-maskable interrupts are on line 1 of every processor.
    body.extend([4, 6, 0xff, 0, 0, 1]);
    body
}

/// DSDT: that S5 exists, and COM1.
fn definitions() -> Vec<u8> {
    const NAME: u8 = 0x08;
    const PACKAGE: u8 = 0x12;
    let mut body = vec![NAME];
    body.extend(b"_S5_");
    // Four zeros: the kind of S5, for both control registers, and two that are reserved.
    body.extend([PACKAGE, 6, 4, 0, 0, 0, 0]);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_sums_to_zero_and_the_root_leads_to_them() {
        let image = tables(3);
        let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!((sum(&image[..20]), sum(&image[..36])), (0, 0));
        let word = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
        let xsdt = (word(24) - BASE) as usize;
        let mut seen = Vec::new();
        for table in [xsdt, (word(xsdt + 36) - BASE) as usize, (word(xsdt + 44) - BASE) as usize] {
            let length = u32::from_le_bytes(image[table + 4..table + 8].try_into().unwrap());
            assert_eq!(sum(&image[table..table + length as usize]), 0);
            seen.push(&image[table..table + 4]);
        }
        assert_eq!(seen, [b"XSDT", b"FACP", b"APIC"]);
    }
}
