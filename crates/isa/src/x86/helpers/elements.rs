//! Vectors that meet memory element by element: gathers and masked moves.

use super::{DONE, load, store};
use crate::front_end::{GuestMemory, HelperResult};
use crate::x86::state::State;

/// A gather; packed into a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather {
    /// The destination.
    pub register: u8,
    /// The register whose signs say which elements are wanted still.
    pub mask: u8,
    /// The register of offsets.
    pub index: u8,
    /// Bytes of an offset: 4 or 8.
    pub index_bytes: u8,
    /// Bytes of an element: 4 or 8.
    pub element_bytes: u8,
    /// How many elements.
    pub count: u8,
    /// log2 of what offsets are multiplied by.
    pub scale: u8,
    /// Addresses have 32 bits.
    pub narrow: bool,
}

impl Gather {
    /// As a helper's operand.
    pub fn pack(self) -> u64 {
        let Self { register, mask, index, index_bytes, element_bytes, count, scale, narrow } = self;
        let last = scale | u8::from(narrow) << 7;
        u64::from_le_bytes([register, mask, index, index_bytes, element_bytes, count, last, 0])
    }

    fn unpack(word: u64) -> Self {
        let [register, mask, index, index_bytes, element_bytes, count, last, _] =
            word.to_le_bytes();
        Self {
            register: register & 15,
            mask: mask & 15,
            index: index & 15,
            index_bytes,
            element_bytes,
            count,
            scale: last & 3,
            narrow: last & 0x80 != 0,
        }
    }
}

/// A masked load or store; packed into a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskedMove {
    /// What is loaded or stored.
    pub register: u8,
    /// The register whose signs choose elements.
    pub mask: u8,
    /// Bytes of an element: 4 or 8.
    pub element_bytes: u8,
    /// How many elements.
    pub count: u8,
    /// To memory.
    pub store: bool,
}

impl MaskedMove {
    /// As a helper's operand.
    pub fn pack(self) -> u64 {
        let Self { register, mask, element_bytes, count, store } = self;
        u64::from_le_bytes([register, mask, element_bytes, count, u8::from(store), 0, 0, 0])
    }

    fn unpack(word: u64) -> Self {
        let [register, mask, element_bytes, count, store, ..] = word.to_le_bytes();
        let (register, mask) = (register & 15, mask & 15);
        Self { register, mask, element_bytes, count, store: store != 0 }
    }
}

/// An element of 4 or 8 bytes.
fn element(vector: [u64; 4], bytes: u8, index: u8) -> u64 {
    let index = usize::from(index);
    match bytes {
        8 => vector[index & 3],
        _ => vector[(index / 2) & 3] >> (32 * (index & 1)) & 0xffff_ffff,
    }
}

fn set_element(vector: &mut [u64; 4], bytes: u8, index: u8, value: u64) {
    let index = usize::from(index);
    match bytes {
        8 => vector[index & 3] = value,
        _ => {
            let (word, shift) = (&mut vector[(index / 2) & 3], 32 * (index & 1));
            *word = *word & !(0xffff_ffff << shift) | (value & 0xffff_ffff) << shift;
        }
    }
}

fn is_negative(element: u64, bytes: u8) -> bool {
    element >> (8 * u32::from(bytes) - 1) & 1 != 0
}

/// A gather: base, base of the segment, what. Elements come in order, and those that came before a
/// fault stay: their masks are clear when the instruction is done again.
pub fn gather(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [base, segment, what]: [u64; 3],
) -> HelperResult {
    let what = Gather::unpack(what);
    let (register, mask) = (usize::from(what.register), usize::from(what.mask));
    let offsets = state.vectors[usize::from(what.index)];
    for n in 0..what.count {
        let wanted = element(state.vectors[mask], what.element_bytes, n);
        if is_negative(wanted, what.element_bytes) {
            let offset = element(offsets, what.index_bytes, n);
            let offset = if what.index_bytes == 4 { offset as i32 as u64 } else { offset };
            let mut address = base.wrapping_add(offset << what.scale);
            if what.narrow {
                address &= 0xffff_ffff;
            }
            let value = load(memory, segment.wrapping_add(address), what.element_bytes.into())?;
            set_element(&mut state.vectors[register], what.element_bytes, n, value);
            set_element(&mut state.vectors[mask], what.element_bytes, n, 0);
        }
    }
    state.vectors[mask] = [0; 4];
    let words = usize::from(what.count) * usize::from(what.element_bytes) / 8;
    state.vectors[register][words..].fill(0);
    DONE
}

/// VMASKMOV and VPMASKMOV: address, what.
pub fn masked_move(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, what, _]: [u64; 3],
) -> HelperResult {
    let what = MaskedMove::unpack(what);
    let register = usize::from(what.register);
    let (mask, bytes) = (state.vectors[usize::from(what.mask)], what.element_bytes);
    let chosen = (0..what.count).filter(|n| is_negative(element(mask, bytes, *n), bytes));
    let place = |n: u8| address.wrapping_add(u64::from(n) * u64::from(bytes));
    if what.store {
        for n in chosen {
            let value = element(state.vectors[register], bytes, n);
            store(memory, place(n), bytes.into(), value)?;
        }
        return DONE;
    }
    let mut loaded = [0; 4];
    for n in chosen {
        set_element(&mut loaded, bytes, n, load(memory, place(n), bytes.into())?);
    }
    state.vectors[register] = loaded;
    DONE
}
