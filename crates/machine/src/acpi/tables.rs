//! The tables that are plain structures.

use super::{Chipset, Facts};

/// A table's header is this long.
const HEADER_BYTES: usize = 36;
/// The system control interrupt.
const SCI: u16 = 9;

/// Fields by their offset in the whole table.
struct Fields(Vec<u8>);

impl Fields {
    fn set(&mut self, offset: usize, bytes: &[u8]) {
        let at = offset - HEADER_BYTES;
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A generic address in I/O space.
    fn set_port(&mut self, offset: usize, bits: u8, port: u64) {
        self.set(offset, &[1, bits, 0, 0]);
        self.set(offset + 4, &port.to_le_bytes());
    }
}

/// FACS: where firmware and system share a lock; nothing is in it.
pub fn firmware_control() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..4].copy_from_slice(b"FACS");
    bytes[4..8].copy_from_slice(&64_u32.to_le_bytes());
    bytes
}

/// FADT: where the fixed hardware is.
pub fn fixed(facts: &Facts) -> Vec<u8> {
    const FADT_BYTES: usize = 244;
    const WBINVD: u32 = 1;
    const C1: u32 = 1 << 2;
    const SLEEP_BUTTON_ABSENT: u32 = 1 << 5;
    const RTC_WAKE_ABSENT: u32 = 1 << 6;
    const RESET_REGISTER: u32 = 1 << 10;
    const BOOT_LEGACY_DEVICES: u16 = 1;
    const BOOT_8042: u16 = 1 << 1;
    const BOOT_NO_VGA: u16 = 1 << 2;
    let base = u64::from(facts.pm_base);
    let (gpe, gpe_bytes, commands) = facts.chipset.power(facts.pm_base);
    let mut fields = Fields(vec![0; FADT_BYTES - HEADER_BYTES]);
    fields.set(44, &[1]); // the 8259 pair is there, too
    fields.set(46, &SCI.to_le_bytes());
    fields.set(48, &0xb2_u32.to_le_bytes());
    fields.set(52, &[commands.enable, commands.disable]);
    fields.set(56, &(base as u32).to_le_bytes());
    fields.set(64, &(base as u32 + 4).to_le_bytes());
    fields.set(76, &(base as u32 + 8).to_le_bytes());
    fields.set(80, &(gpe as u32).to_le_bytes());
    fields.set(88, &[4, 2, 0, 4, gpe_bytes]); // lengths: events, control, timer, general events
    fields.set(96, &0xfff_u16.to_le_bytes()); // no C2
    fields.set(98, &0xfff_u16.to_le_bytes()); // no C3
    fields.set(108, &[0x32]); // where CMOS keeps the century
    const BOOT_NO_RTC: u16 = 1 << 5;
    let mut boot = BOOT_LEGACY_DEVICES;
    boot |= if facts.old.rtc { 0 } else { BOOT_NO_RTC };
    boot |= if facts.i8042 { BOOT_8042 } else { 0 };
    boot |= if facts.vga { 0 } else { BOOT_NO_VGA };
    fields.set(109, &boot.to_le_bytes());
    let flags = WBINVD | C1 | SLEEP_BUTTON_ABSENT | RTC_WAKE_ABSENT | RESET_REGISTER;
    fields.set(112, &flags.to_le_bytes());
    fields.set_port(116, 8, 0xcf9);
    fields.set(128, &[0x0f]); // what to write there
    fields.set_port(148, 32, base);
    fields.set_port(172, 16, base + 4);
    fields.set_port(208, 32, base + 8);
    fields.set_port(220, gpe_bytes.wrapping_mul(8), gpe);
    fields.0
}

/// MADT: local APICs, the I/O APIC, and how the old interrupts reach it.
pub fn interrupts(facts: &Facts) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0xfee0_0000_u32.to_le_bytes());
    body.extend(u32::from(facts.old.pic).to_le_bytes()); // whether there is an 8259 pair, too
    for (number, id) in (0_u8..).zip(&facts.processors) {
        body.extend([0, 8, number, *id as u8, 1, 0, 0, 0]);
    }
    body.extend([1, 12, 0, 0]);
    body.extend(0xfec0_0000_u32.to_le_bytes());
    body.extend(0_u32.to_le_bytes());
    // The timer is on input 2; what PCI may share is level-triggered, active high.
    let level: &[u8] = match facts.chipset {
        Chipset::Piix => &[5, 9, 10, 11],
        Chipset::Ich9 | Chipset::None => &[9],
    };
    let level = level.iter().map(|line| (*line, u32::from(*line), 0x0d_u16));
    for (from, to, flags) in [(0_u8, 2_u32, 0_u16)].into_iter().chain(level) {
        body.extend([2, 10, 0, from]);
        body.extend(to.to_le_bytes());
        body.extend(flags.to_le_bytes());
    }
    // Non-maskable interrupts are on line 1 of every processor.
    body.extend([4, 6, 0xff, 0, 0, 1]);
    body
}

/// HPET: where it is.
pub fn hpet() -> Vec<u8> {
    let mut body = 0x8086_a201_u32.to_le_bytes().to_vec(); // as its own identity register
    body.extend([0, 0, 0, 0]); // memory
    body.extend(0xfed0_0000_u64.to_le_bytes());
    body.extend([0, 0, 0, 0]); // the first one, any period
    body
}

/// MCFG: where configuration space is.
pub fn configuration_space(start: u64, bytes: u64) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend(start.to_le_bytes());
    body.extend([0, 0, 0, ((bytes >> 20) - 1) as u8, 0, 0, 0, 0]);
    body
}
