//! XSAVE and its relatives: the manual's volume 1, chapter 13. There are three components: x87, SSE
//! and AVX, so that the compacted form has every component where the standard form has it.

use super::fpu_state::{FXSAVE_VECTORS, image, load_image, saved_mxcsr};
use super::{DONE, fault, load, memory_fault, protection, store};
use crate::front_end::{GuestMemory, HelperResult, Stop};
use crate::x86::lift::exception;
use crate::x86::mode::control;
use crate::x86::state::{RAX, RDX, State};

/// Components.
const X87: u64 = 1;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
/// All of them.
pub const COMPONENTS: u64 = X87 | SSE | AVX;

/// Bytes of the legacy region and the header.
const HEADER: u64 = 512;
/// Where the upper halves begin.
pub const UPPER_HALVES: u64 = 576;
/// Bytes of them.
pub const UPPER_BYTES: u64 = 256;

const COMPACTED: u64 = 1 << 63;
const MXCSR_RESET: u64 = 0x1f80;

/// Which instruction saves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Save {
    /// XSAVE: what is asked for.
    All,
    /// XSAVEOPT: what is in use of it.
    Used,
    /// XSAVEC: likewise, compacted.
    Compacted,
}

/// The bytes that the components of a mask take in an area.
pub fn area_bytes(components: u64) -> u32 {
    let upper = if components & AVX != 0 { UPPER_BYTES } else { 0 };
    (UPPER_HALVES + upper) as u32
}

impl State {
    /// The components that are not in their initial state.
    #[must_use]
    pub fn components_in_use(&self) -> u64 {
        let x87 = self.x87_control != 0x37f
            || self.x87_status_word() != 0
            || self.x87_empty != 0xff
            || self.x87 != [[0; 2]; 8];
        let sse = self.vectors.iter().any(|vector| vector[..2] != [0; 2]);
        let avx = self.vectors.iter().any(|vector| vector[2..] != [0; 2]);
        (if x87 { X87 } else { 0 }) | (if sse { SSE } else { 0 }) | (if avx { AVX } else { 0 })
    }
}

fn check(state: &State, address: u64) -> Result<u64, Stop> {
    if state.cr[4] & control::CR4_OSXSAVE == 0 {
        return fault(exception::UD, 0);
    }
    if !address.is_multiple_of(64) {
        return protection(0);
    }
    let asked = state.gpr[RDX] << 32 | state.gpr[RAX] & 0xffff_ffff;
    Ok(asked & state.xcr0)
}

/// Bytes of one half of all vector registers.
const HALVES_BYTES: usize = 256;

fn store_halves(
    memory: &mut dyn GuestMemory,
    place: u64,
    vectors: &[[u64; 4]],
    first: usize,
) -> Result<(), Stop> {
    let mut bytes = [0; HALVES_BYTES];
    for (bytes, vector) in bytes.chunks_exact_mut(16).zip(vectors) {
        bytes[..8].copy_from_slice(&vector[first].to_le_bytes());
        bytes[8..].copy_from_slice(&vector[first + 1].to_le_bytes());
    }
    memory.write(place, &bytes[..16 * vectors.len()], 0).map_err(memory_fault)
}

fn load_halves(
    memory: &mut dyn GuestMemory,
    place: u64,
    vectors: &mut [[u64; 4]],
    first: usize,
) -> Result<(), Stop> {
    let mut bytes = [0; HALVES_BYTES];
    let bytes = &mut bytes[..16 * vectors.len()];
    memory.read(place, bytes, 0).map_err(memory_fault)?;
    for (words, vector) in bytes.chunks_exact(16).zip(vectors) {
        (vector[first], vector[first + 1]) = (word(words, 0), word(words, 8));
    }
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().copied().map_or(0, u64::from_le_bytes)
}

/// XSAVE, XSAVEOPT, XSAVEC: address, MXCSR, how many vector registers and from bit 8 on which.
pub fn xsave(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, mxcsr, what]: [u64; 3],
) -> HelperResult {
    let asked = check(state, address)?;
    let vectors = &state.vectors[..(what as usize & 0xff).min(16)];
    let kind = match what >> 8 {
        0 => Save::All,
        1 => Save::Used,
        _ => Save::Compacted,
    };
    let mut used = state.components_in_use();
    if kind == Save::Compacted && mxcsr != MXCSR_RESET {
        used |= SSE;
    }
    let written = if kind == Save::All { asked } else { asked & used };
    let at = |offset: u64| address.wrapping_add(offset);
    let header = match kind {
        Save::Compacted => asked & used,
        _ => load(memory, at(HEADER), 8)? & !asked | asked & used,
    };
    let image = image(state, mxcsr);
    let part = |memory: &mut dyn GuestMemory, from: usize, to: usize| {
        memory.write(at(from as u64), &image[from..to], 0).map_err(memory_fault)
    };
    if written & X87 != 0 {
        part(memory, 0, 24)?;
        part(memory, 32, FXSAVE_VECTORS as usize)?;
    }
    let control = if kind == Save::Compacted { written & SSE } else { asked & (SSE | AVX) };
    if control != 0 {
        part(memory, 24, 32)?;
    }
    if written & SSE != 0 {
        store_halves(memory, at(FXSAVE_VECTORS), vectors, 0)?;
    }
    if written & AVX != 0 {
        store_halves(memory, at(UPPER_HALVES), vectors, 2)?;
    }
    store(memory, at(HEADER), 8, header)?;
    if kind == Save::Compacted {
        store(memory, at(HEADER + 8), 8, asked | COMPACTED)?;
    }
    DONE
}

/// XRSTOR: address, MXCSR, how many vector registers. Gives the new MXCSR.
pub fn xrstor(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, mxcsr, count]: [u64; 3],
) -> HelperResult {
    let asked = check(state, address)?;
    let at = |offset: u64| address.wrapping_add(offset);
    let mut header = [0; 64];
    memory.read(at(HEADER), &mut header, 0).map_err(memory_fault)?;
    let (present, compaction) = (word(&header, 0), word(&header, 8));
    let rest = &header[16..];
    let compacted = compaction & COMPACTED != 0;
    let known = if compacted { compaction & !COMPACTED } else { state.xcr0 };
    let bad =
        present & !known != 0 || known & !state.xcr0 != 0 || rest.iter().any(|byte| *byte != 0);
    if bad || !compacted && compaction != 0 {
        return protection(0);
    }
    let mut legacy = [0; FXSAVE_VECTORS as usize];
    memory.read(address, &mut legacy, 0).map_err(memory_fault)?;
    let mut new_mxcsr = mxcsr;
    if !compacted && asked & (SSE | AVX) != 0 || compacted && asked & present & SSE != 0 {
        new_mxcsr = saved_mxcsr(&legacy)?;
    } else if compacted && asked & SSE != 0 {
        new_mxcsr = MXCSR_RESET;
    }
    let mut vectors = state.vectors;
    let chosen = &mut vectors[..(count as usize).min(16)];
    for (component, place, first) in [(SSE, FXSAVE_VECTORS, 0), (AVX, UPPER_HALVES, 2)] {
        if asked & present & component != 0 {
            load_halves(memory, at(place), chosen, first)?;
        } else if asked & component != 0 {
            chosen.iter_mut().for_each(|vector| vector[first..first + 2].fill(0));
        }
    }
    state.vectors = vectors;
    state.note_upper_halves();
    if asked & present & X87 != 0 {
        load_image(state, &legacy);
    } else if asked & X87 != 0 {
        (state.x87_control, state.x87_empty, state.x87) = (0x37f, 0xff, [[0; 2]; 8]);
        state.set_x87_status_word(0);
    }
    Ok(new_mxcsr)
}
