//! FMLAL, FMLSL and their second forms: products of halves added to singles.

use super::{HALF, SINGLE, Unit};
use crate::arm64::helpers::vector::Lanes;
use crate::arm64::state::State;
use crate::table::bits;

/// Whether a word of its classes is one of these.
pub fn is(word: u32) -> bool {
    let scalar = bits(word, 28, 28) == 1;
    let kind = if bits(word, 24, 24) == 1 {
        let opcode = bits(word, 15, 12);
        bits(word, 23, 22) == 2
            && matches!((opcode, bits(word, 29, 29)), (0b0000 | 0b0100, 0) | (0b1000 | 0b1100, 1))
    } else {
        let opcode = bits(word, 15, 11);
        bits(word, 22, 22) == 0
            && matches!((opcode, bits(word, 29, 29)), (0b11101, 0) | (0b11001, 1))
    };
    !scalar && kind
}

/// Exact; a NaN keeps its bits, quiet or not.
fn widen(unit: &mut Unit, half: u64) -> u64 {
    if HALF.is_nan(half) {
        return (half >> 15) << 31 | SINGLE.infinity() | (half & 0x3ff) << 13;
    }
    unit.convert(HALF, SINGLE, half)
}

/// Does it.
pub fn compute(state: &mut State, unit: &mut Unit, word: u32) -> Option<()> {
    let element = bits(word, 24, 24) == 1;
    let minus = bits(word, if element { 14 } else { 23 }, if element { 14 } else { 23 }) == 1;
    let lanes = 2 << bits(word, 30, 30);
    let first = lanes * bits(word, 29, 29);
    let (d, a) = (bits(word, 4, 0), Lanes::of(state, bits(word, 9, 5)));
    let old = Lanes::of(state, d);
    let (register, index) = match element {
        true => {
            let index = bits(word, 11, 11) << 2 | bits(word, 21, 20);
            (bits(word, 19, 16), Some(index))
        }
        false => (bits(word, 20, 16), None),
    };
    let b = Lanes::of(state, register);
    let mut result = Lanes::default();
    for lane in 0..lanes {
        let x = a.get(1, first + lane) ^ if minus { HALF.sign() } else { 0 };
        let y = b.get(1, index.unwrap_or(first + lane));
        let (x, y) = (widen(unit, x), widen(unit, y));
        result.set(2, lane, unit.fused(SINGLE, x, y, old.get(2, lane)));
    }
    result.write(state, d);
    Some(())
}
