//! Segment descriptors, gates and where they are found.

use super::helpers::{SUPERVISOR, memory_fault, protection};
use super::mode::{attribute, control};
use super::state::{Segment, State, Table};
use crate::front_end::{GuestMemory, Stop};

/// The eight bytes of a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor(pub u64);

/// Types of system descriptors.
pub mod system_type {
    /// Local descriptor table.
    pub const LDT: u32 = 2;
    /// Available task.
    pub const TSS_AVAILABLE: u32 = 9;
    /// Call gate; with bit 3 clear, its 16-bit form.
    pub const CALL_GATE: u32 = 12;
}

impl Descriptor {
    /// Bits 8 to 23 of the upper word, without the limit among them.
    #[must_use]
    pub fn attributes(self) -> u32 {
        (self.0 >> 40) as u32 & 0xf0ff
    }

    /// The four type bits.
    #[must_use]
    pub fn kind(self) -> u32 {
        self.attributes() & 15
    }

    /// Code or data?
    #[must_use]
    pub fn is_segment(self) -> bool {
        self.attributes() & attribute::S != 0
    }

    /// Code?
    #[must_use]
    pub fn is_code(self) -> bool {
        self.is_segment() && self.kind() & 8 != 0
    }

    /// Code that keeps its caller's privilege.
    #[must_use]
    pub fn is_conforming(self) -> bool {
        self.is_code() && self.kind() & 4 != 0
    }

    /// Data, or code that can be read.
    #[must_use]
    pub fn is_readable(self) -> bool {
        self.is_segment() && (!self.is_code() || self.kind() & 2 != 0)
    }

    /// Data that can be written.
    #[must_use]
    pub fn is_writable(self) -> bool {
        self.is_segment() && !self.is_code() && self.kind() & 2 != 0
    }

    /// Present?
    #[must_use]
    pub fn is_present(self) -> bool {
        self.attributes() & attribute::P != 0
    }

    /// Descriptor privilege level.
    #[must_use]
    pub fn dpl(self) -> u8 {
        (self.attributes() >> 5 & 3) as u8
    }

    /// The 32-bit base.
    #[must_use]
    pub fn base(self) -> u64 {
        self.0 >> 16 & 0xff_ffff | self.0 >> 56 << 24
    }

    /// The limit in bytes.
    #[must_use]
    pub fn limit(self) -> u32 {
        let limit = (self.0 & 0xffff | self.0 >> 32 & 0xf_0000) as u32;
        if self.attributes() & attribute::G != 0 { limit << 12 | 0xfff } else { limit }
    }

    /// What a segment register takes over.
    #[must_use]
    pub fn segment(self, selector: u16) -> Segment {
        Segment {
            base: self.base(),
            limit: self.limit(),
            attributes: self.attributes(),
            selector: u64::from(selector),
        }
    }

    /// A gate's selector.
    #[must_use]
    pub fn gate_selector(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// A gate's offset, its lower 32 bits.
    #[must_use]
    pub fn gate_offset(self) -> u64 {
        let wide = self.kind() & 8 != 0;
        self.0 & 0xffff | if wide { self.0 >> 32 & 0xffff_0000 } else { 0 }
    }
}

impl State {
    /// Long mode, 64-bit or compatibility.
    #[must_use]
    pub fn is_long_mode(&self) -> bool {
        self.efer & control::EFER_LMA != 0
    }

    /// The table that a selector names.
    fn table(&self, selector: u16) -> Table {
        if selector & 4 == 0 {
            return self.gdtr;
        }
        Table { base: self.ldtr.base, limit: u64::from(self.ldtr.limit) }
    }
}

/// Where the descriptor of a selector lies; #GP, or `vector`, when that is beyond its table.
pub fn place(state: &State, selector: u16, vector: u16) -> Result<u64, Stop> {
    let table = state.table(selector);
    let offset = u64::from(selector & !7);
    let missing = selector & 4 != 0 && state.ldtr.selector & !3 == 0;
    if missing || offset + 7 > table.limit {
        return super::helpers::fault(vector, u64::from(selector & !3));
    }
    Ok(table.base.wrapping_add(offset))
}

/// Reads the descriptor of a selector.
pub fn read(
    state: &State,
    memory: &mut dyn GuestMemory,
    selector: u16,
    vector: u16,
) -> Result<Descriptor, Stop> {
    let place = place(state, selector, vector)?;
    memory.load(place, 8, SUPERVISOR).map(Descriptor).map_err(memory_fault)
}

/// Reads the second half of a 16-byte system descriptor: the upper half of its base.
pub fn read_upper(state: &State, memory: &mut dyn GuestMemory, selector: u16) -> Result<u64, Stop> {
    let table = state.table(selector);
    if u64::from(selector & !7) + 15 > table.limit {
        return protection(u64::from(selector & !3));
    }
    let place = place(state, selector, super::lift::exception::GP)?;
    memory.load(place.wrapping_add(8), 8, SUPERVISOR).map_err(memory_fault)
}

/// Sets bits of a descriptor's type in memory (accessed, busy).
pub fn set_type_bits(
    state: &State,
    memory: &mut dyn GuestMemory,
    selector: u16,
    bits: u64,
) -> Result<(), Stop> {
    let place = place(state, selector, super::lift::exception::GP)?;
    let at = place.wrapping_add(5);
    let old = memory.load(at, 1, SUPERVISOR).map_err(memory_fault)?;
    if old & bits == bits {
        return Ok(());
    }
    memory.store(at, 1, old | bits, SUPERVISOR).map_err(memory_fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_code_segment() {
        let descriptor = Descriptor(0x00cf_9b00_0000_ffff);
        assert_eq!((descriptor.base(), descriptor.limit(), descriptor.dpl()), (0, u32::MAX, 0));
        assert!(descriptor.is_code() && descriptor.is_readable() && descriptor.is_present());
        assert!(!descriptor.is_writable() && !descriptor.is_conforming());
        let based = Descriptor(0x1240_f234_5678_0010);
        assert_eq!((based.base(), based.limit(), based.dpl()), (0x1234_5678, 0x10, 3));
    }
}
