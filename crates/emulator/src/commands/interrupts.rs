//! The interrupt controllers, for people.

use std::fmt::Write;
use std::sync::Arc;

use crate::emulator::Emulator;

const DELIVERIES: [&str; 8] = ["fixed", "lowest", "SMI", "...", "NMI", "INIT", "...", "extINT"];
/// The first register of the table.
const TABLE: u32 = 0x10;
const LEVEL: u64 = 1 << 15;
const SERVED: u64 = 1 << 14;

/// HMP's `info pic`.
pub fn info_pic(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    let (ioapic, pics) = emulator.machine.interrupt_controllers();
    let mut text = format!("ioapic0: ver=0x20 id=0x{:02x} sel=0x{:02x}", ioapic.id, ioapic.index);
    match ioapic.index.checked_sub(TABLE) {
        Some(place) => _ = writeln!(text, " (redir[{}])", place >> 1),
        None => text.push('\n'),
    }
    for (pin, entry) in ioapic.entries.iter().enumerate() {
        let either = |bit: u32, on: &'static str, off| if entry >> bit & 1 != 0 { on } else { off };
        _ = writeln!(
            text,
            "  pin {pin:<2} 0x{entry:016x} dest={:x} vec={:<3} {} {:<5} {:<6} {:<6} {}",
            entry >> 56,
            entry & 0xff,
            either(13, "active-lo", "active-hi"),
            either(15, "level", "edge"),
            either(16, "masked", ""),
            DELIVERIES[(entry >> 8 & 7) as usize],
            either(11, "logical", "physical"),
        );
    }
    let served = |entry: &u64| entry & (LEVEL | SERVED) == LEVEL | SERVED;
    let bits = ioapic.entries.iter().enumerate().filter(|(_, entry)| served(entry));
    let served = bits.fold(0, |all, (pin, _)| all | 1 << pin);
    for (name, bits) in [("IRR      ", ioapic.requests), ("Remote IRR ", served)] {
        _ = writeln!(text, "  {name}{}", numbers(bits));
    }
    for (number, pic) in pics.iter().enumerate().rev() {
        _ = writeln!(
            text,
            "pic{number}: irr={:02x} imr={:02x} isr={:02x} hprio={} irq_base={:02x} rr_sel={} \
             elcr={:02x} fnm={}",
            pic.requests,
            pic.masks,
            pic.served,
            pic.top,
            pic.vectors,
            u8::from(pic.reads_served),
            pic.levels,
            u8::from(pic.nested),
        );
    }
    Ok(text)
}

/// The numbers of the bits that are set.
fn numbers(bits: u32) -> String {
    match bits {
        0 => "(none)".to_owned(),
        _ => (0..32).filter(|bit| bits >> bit & 1 != 0).map(|bit| format!("{bit} ")).collect(),
    }
}
