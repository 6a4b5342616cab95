//! AArch64: A64 as of Armv8.2-A, in user mode.
//!
//! Manual: "Arm Architecture Reference Manual for A-profile architecture" (DDI 0487), chapter C4
//! for the encodings. One file per group of encodings, rows as the manual prints them. What the
//! host has no instruction for is computed in Rust (`helpers`), which is also the reading of the
//! vector instructions that the lifted forms are tested against.

/// Rows of the manual: name, bits, meaning. Rows that overlap do not compile.
macro_rules! isa {
    ($($name:ident $bits:literal => $meaning:expr;)*) => {
        $(
            #[allow(non_snake_case, reason = "rows carry the manual's names")]
            fn $name(lift: &mut Lift, word: u32) {
                let meaning: fn(&mut Lift, u32) = $meaning;
                meaning(lift, word);
            }
        )*
        /// This chapter's rows.
        pub const ROWS: &[Row] = &[$(Row {
            name: stringify!($name),
            pattern: pattern($bits, 32),
            lift: $name,
        }),*];
        const _: () = {
            let (mut patterns, mut i) = ([Pattern { mask: 0, value: 0 }; ROWS.len()], 0);
            while i < ROWS.len() {
                patterns[i] = ROWS[i].pattern;
                i += 1;
            }
            assert_disjoint(&patterns);
        };
    };
}

mod lift;
mod immediate;
mod register;
mod branch;
mod system;
mod memory;
mod memory_vector;
mod atomic;
mod fp;
mod fp_convert;
mod simd_arithmetic;
mod simd_copy;
mod simd_fp;
mod simd_rest;
mod crypto;
mod hash;
mod later;
mod dead_flags;
mod helpers;
mod state;

pub use lift::{Lift, Row};
pub use state::State;

use crate::front_end::{
    Access, Event, Fetch, FrontEnd, GuestMemory, Helper, Host, Key, Layout, MemoryFault, Physical,
    Registers, Translation,
};
use crate::ir::Ir;
use std::sync::OnceLock;

/// Every chapter.
const CHAPTERS: &[&[Row]] = &[
    immediate::ROWS,
    register::ROWS,
    branch::ROWS,
    system::ROWS,
    memory::ROWS,
    memory_vector::ROWS,
    atomic::ROWS,
    fp::ROWS,
    fp_convert::ROWS,
    simd_arithmetic::ROWS,
    simd_copy::ROWS,
    simd_fp::ROWS,
    simd_rest::ROWS,
    crypto::ROWS,
    hash::ROWS,
    later::ROWS,
];

/// Every row's name, for the coverage table.
pub fn implemented() -> impl Iterator<Item = &'static str> {
    CHAPTERS.iter().flat_map(|rows| rows.iter()).map(|row| row.name)
}

/// FPCR.DN in a block's mode: every NaN result is the default one.
pub const MODE_DEFAULT_NAN: u64 = 1;

/// FPCR.FZ in a block's mode: the host flushes as well, but in minima and maxima.
pub const MODE_FLUSH: u64 = 2;

/// FPCR.DN.
const FPCR_DN: u64 = 1 << 25;

/// FPCR.FZ.
const FPCR_FZ: u64 = 1 << 24;

/// The front end.
#[derive(Default)]
pub struct Arm64 {
    host: Host,
}

impl FrontEnd for Arm64 {
    type State = State;

    const LAYOUT: &'static Layout = &state::LAYOUT;

    const HELPERS: &'static [Helper<State>] = helpers::HELPERS;

    fn host(&mut self, host: Host) {
        self.host = host;
    }

    fn reset(&self) -> State {
        State::default()
    }

    fn key(&self, state: &State) -> Key {
        let default_nan = if state.fpcr & FPCR_DN != 0 { MODE_DEFAULT_NAN } else { 0 };
        let flush = if state.fpcr & FPCR_FZ != 0 { MODE_FLUSH } else { 0 };
        Key { pc: state.pc, mode: default_nan | flush }
    }

    fn translate(&self, key: Key, fetch: &mut dyn Fetch, ir: &mut Ir) {
        lift::block(key, self.host, fetch, ir);
    }

    fn deliver(&self, _: &mut State, _: &mut dyn GuestMemory, event: Event) -> Result<(), Event> {
        Err(event)
    }

    fn walk(
        &self,
        _: &State,
        _: &mut dyn Physical,
        address: u64,
        _: Access,
        _: u16,
    ) -> Result<Translation, MemoryFault> {
        // The MMU is off.
        Ok(Translation {
            physical: address,
            page_bits: 30,
            read: true,
            write: true,
            execute: true,
            global: true,
        })
    }

    fn registers(&self) -> &'static [Registers] {
        state::REGISTERS
    }
}

/// MXCSR's control bits for an FPCR: every exception masked.
pub fn mxcsr_of(fpcr: u64) -> u32 {
    // FPCR: nearest, up, down, zero; MXCSR: nearest, down, up, zero.
    let rounding = [0, 2, 1, 3][(fpcr >> 22 & 3) as usize];
    let flush = if fpcr & FPCR_FZ != 0 { 1 << 15 | 1 << 6 } else { 0 };
    0x1f80 | rounding << 13 | flush
}

/// Sticky exceptions: their bits in FPSR and in MXCSR.
pub const EXCEPTIONS: [(u32, u32); 5] = [(0, 0), (1, 2), (2, 3), (3, 4), (4, 5)];

/// Every row, for tables and tests.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    CHAPTERS.iter().copied().flatten()
}

/// The row that describes a word, if any.
pub fn decode(word: u32) -> Option<&'static Row> {
    static INDEX: OnceLock<Vec<Vec<&'static Row>>> = OnceLock::new();
    let index = INDEX.get_or_init(build_index);
    index[(word >> BUCKET_SHIFT) as usize].iter().find(|row| row.pattern.matches(word)).copied()
}

/// Words are told apart first by bits 31 to 21, which hold the manual's op0, opc and size.
const BUCKET_SHIFT: u32 = 21;

fn build_index() -> Vec<Vec<&'static Row>> {
    const BUCKETS: u32 = 1 << (32 - BUCKET_SHIFT);
    let mut index = vec![Vec::new(); BUCKETS as usize];
    for row in CHAPTERS.iter().copied().flatten() {
        let mask = row.pattern.mask >> BUCKET_SHIFT;
        let free = !mask & (BUCKETS - 1);
        // All values of the bits that the row leaves open, counted through them alone.
        let mut open = 0u32;
        loop {
            index[(row.pattern.value >> BUCKET_SHIFT & mask | open) as usize].push(row);
            open = open.wrapping_sub(free) & free;
            if open == 0 {
                break;
            }
        }
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_has_two_rows() {
        let rows: Vec<&Row> = CHAPTERS.iter().copied().flatten().collect();
        for (place, row) in rows.iter().enumerate() {
            for other in &rows[place + 1..] {
                assert!(!row.pattern.overlaps(&other.pattern), "{} and {}", row.name, other.name);
            }
        }
    }

    #[test]
    fn words_find_their_rows() {
        let rows = [
            (0x9100_07e0, "add_imm"), // add x0, sp, #1
            (0xd503_201f, "hint"),
            (0xd400_0001, "svc"),
            (0xf940_0020, "ldr_unsigned"),
            (0x1e62_2820, "fadd"),
            (0x4ee2_8420, "simd_same"),
        ];
        for (word, name) in rows {
            assert_eq!(decode(word).map(|row| row.name), Some(name), "{word:08x}");
        }
        assert!(decode(0).is_none());
    }
}
