//! What the instructions mean, by the groups of the manual's volume 1, chapter 5.
//!
//! A chapter is a list of rows: the manual's mnemonic and what it lifts to. A mnemonic that stands
//! twice does not compile; one that stands nowhere is an invalid opcode.

mod arithmetic;
mod avx;
mod avx_moves;
mod bits;
mod control;
mod fma;
mod moves;
mod processor;
mod sha;
mod shifts;
mod sse;
mod sse_moves;
mod strings;
mod system;
mod x87;

use iced_x86::Mnemonic;

use super::lift::{Lift, Lifter, exception};

/// A row: the manual's mnemonic and its meaning.
pub type Row = (Mnemonic, Lifter);

/// Which unit must be on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    General,
    /// x87 and MMX.
    Fpu,
    /// SSE and what followed.
    Sse,
    /// AVX and what followed, by VEX.
    Avx,
}

const CHAPTERS: &[(Unit, &[Row])] = &[
    (Unit::General, moves::ROWS),
    (Unit::General, arithmetic::ROWS),
    (Unit::General, shifts::ROWS),
    (Unit::General, bits::ROWS),
    (Unit::General, control::ROWS),
    (Unit::General, strings::ROWS),
    (Unit::General, processor::ROWS),
    (Unit::General, system::ROWS),
    (Unit::Fpu, x87::ROWS),
    (Unit::Sse, sse::ROWS),
    (Unit::Sse, sse_moves::ROWS),
    (Unit::Sse, sha::ROWS),
    (Unit::Avx, avx::ROWS),
    (Unit::Avx, avx_moves::ROWS),
    (Unit::Avx, fma::ROWS),
];

/// More than there are mnemonics.
const MNEMONICS_MAX: usize = 2200;

type Index = [Option<(Unit, Lifter)>; MNEMONICS_MAX];

static INDEX: Index = build_index();

const fn build_index() -> Index {
    let mut index: Index = [None; MNEMONICS_MAX];
    let mut chapter = 0;
    while chapter < CHAPTERS.len() {
        let (unit, rows) = CHAPTERS[chapter];
        let mut row = 0;
        while row < rows.len() {
            let (mnemonic, lifter) = rows[row];
            assert!(index[mnemonic as usize].is_none(), "a mnemonic has one row");
            index[mnemonic as usize] = Some((unit, lifter));
            row += 1;
        }
        chapter += 1;
    }
    index
}

/// Every mnemonic that has a row, for the coverage table.
pub fn implemented() -> impl Iterator<Item = Mnemonic> {
    CHAPTERS.iter().flat_map(|(_, rows)| rows.iter()).map(|(mnemonic, _)| *mnemonic)
}

/// Lifts one decoded instruction.
pub fn lift(lift: &mut Lift) {
    match INDEX[lift.insn.mnemonic() as usize] {
        None => lift.illegal(),
        Some((Unit::Sse, _)) if !lift.mode.sse => lift.illegal(),
        Some((Unit::Avx, _)) if !lift.mode.avx => lift.illegal(),
        Some((Unit::Fpu | Unit::Sse | Unit::Avx, _)) if lift.mode.fpu_off => {
            lift.fault(exception::NM, 0);
        }
        Some((unit, lifter)) => {
            lift.vex = unit == Unit::Avx;
            lifter(lift);
        }
    }
}
