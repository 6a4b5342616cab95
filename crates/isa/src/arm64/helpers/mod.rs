//! What is computed in Rust: the rare, and what the host has no instructions for.

mod aes;
mod estimate;
mod float;
mod hash;
mod integer;
mod memory;
mod sha;
mod vector;

use super::state::State;
use crate::front_end::{GuestMemory, Helper, HelperResult};

/// `CNTVCT_EL0`.
pub const CLOCK: usize = 0;
/// `IC IVAU`: address, bytes.
pub const FLUSH_CODE: usize = 1;
/// MXCSR from an FPCR and the old MXCSR, whose sticky bits stay.
pub const MXCSR: usize = 2;
/// STXP of 128 bits: address, low, high; 1 if it failed.
pub const STORE_PAIR: usize = 3;
/// LD2 to LD4, ST2 to ST4 of whole registers: the instruction, the address.
pub const STRUCTURES: usize = 4;
/// A vector instruction from state to state: the instruction; gives sticky exceptions as in MXCSR.
pub const VECTOR: usize = 5;
/// SHA-1, SHA-256, PMULL of bytes: the instruction.
pub const SHA: usize = 6;

/// SM3 and SM4: the instruction.
pub const HASH: usize = 7;

/// AES and PMULL of doublewords: the instruction.
pub const AES: usize = 8;
/// The low half, which is a number of half precision, as a single, sticky exceptions above it.
pub const FROM_HALF: usize = 9;
/// A single to half precision likewise.
pub const TO_HALF: usize = 10;

/// In the order of their numbers.
pub const HELPERS: &[Helper<State>] = &[
    Helper { name: "clock", call: |_, memory, _| Ok(memory.clock_ns()), fp: false },
    Helper { name: "flush_code", call: flush_code, fp: false },
    Helper { name: "mxcsr", call: mxcsr, fp: false },
    Helper { name: "store_pair", call: memory::store_pair, fp: false },
    Helper { name: "structures", call: memory::structures, fp: false },
    Helper { name: "vector", call: vector_call, fp: true },
    Helper { name: "sha", call: sha::sha, fp: false },
    Helper { name: "hash", call: hash::hash, fp: false },
    Helper { name: "aes", call: aes::aes, fp: false },
    Helper { name: "from_half", call: from_half, fp: true },
    Helper { name: "to_half", call: to_half, fp: true },
];

pub use vector::computes;

fn flush_code(_: &mut State, memory: &mut dyn GuestMemory, a: [u64; 3]) -> HelperResult {
    memory.flush_code(a[0], a[1]);
    Ok(0)
}

fn mxcsr(_: &mut State, _: &mut dyn GuestMemory, a: [u64; 3]) -> HelperResult {
    Ok(u64::from(super::mxcsr_of(a[0])) | a[1] & 0x3f)
}

fn vector_call(state: &mut State, _: &mut dyn GuestMemory, a: [u64; 3]) -> HelperResult {
    Ok(vector::compute(state, a[0] as u32))
}

fn from_half(state: &mut State, _: &mut dyn GuestMemory, a: [u64; 3]) -> HelperResult {
    Ok(float::convert_half(state, a[0] & 0xffff, false))
}

fn to_half(state: &mut State, _: &mut dyn GuestMemory, a: [u64; 3]) -> HelperResult {
    Ok(float::convert_half(state, a[0] & 0xffff_ffff, true))
}
