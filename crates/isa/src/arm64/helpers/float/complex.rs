//! FCMLA and FCADD: lanes in pairs are complex numbers.

use super::{DOUBLE, Format, HALF, Operation, SINGLE, Unit};
use crate::arm64::helpers::vector::Lanes;
use crate::arm64::state::State;
use crate::table::bits;

/// Whether a word of its classes is one of these.
pub fn is(word: u32) -> bool {
    let element = bits(word, 24, 24) == 1;
    let opcode = match element {
        true => bits(word, 15, 12) & 0b1001 == 1 && matches!(bits(word, 23, 22), 1 | 2),
        false => matches!(bits(word, 14, 11), 0b1000..=0b1011 | 0b1100 | 0b1110),
    };
    bits(word, 29, 28) == 0b10 && opcode
}

/// The lanes of a pair that a product takes: of the first operand both times one, of the second
/// either, with a sign.
fn turned(f: Format, rotation: u32, a: [u64; 2], b: [u64; 2]) -> [(u64, u64); 2] {
    let minus = |x: u64| x ^ f.sign();
    match rotation {
        0 => [(a[0], b[0]), (a[0], b[1])],
        1 => [(a[1], minus(b[1])), (a[1], b[0])],
        2 => [(a[0], minus(b[0])), (a[0], minus(b[1]))],
        _ => [(a[1], b[1]), (a[1], minus(b[0]))],
    }
}

/// Does it.
pub fn compute(state: &mut State, unit: &mut Unit, word: u32) -> Option<()> {
    let (element, full) = (bits(word, 24, 24) == 1, bits(word, 30, 30) == 1);
    let f = match bits(word, 23, 22) {
        1 => HALF,
        2 => SINGLE,
        3 if full => DOUBLE,
        _ => return None,
    };
    let (high, low) = (bits(word, 11, 11), bits(word, 21, 21));
    let index = match (element, f.size) {
        (false, _) => None,
        (true, 1) if high == 0 || full => Some(high << 1 | low),
        (true, 2) if low == 0 && full => Some(high),
        _ => return None,
    };
    let (d, a, b) = (
        bits(word, 4, 0),
        Lanes::of(state, bits(word, 9, 5)),
        Lanes::of(state, bits(word, 20, 16)),
    );
    let old = Lanes::of(state, d);
    let at = |v: Lanes, pair: u32| [v.get(f.size, 2 * pair), v.get(f.size, 2 * pair + 1)];
    let mut result = Lanes::default();
    for pair in 0..(if full { 8 } else { 4 }) >> f.size {
        let (x, y) = (at(a, pair), at(b, index.unwrap_or(pair)));
        let sums = at(old, pair);
        let values = if !element && bits(word, 14, 13) == 3 {
            let [(_, first), (_, second)] = turned(f, 1 + 2 * bits(word, 12, 12), x, y);
            [(x[0], first), (x[1], second)].map(|(x, y)| unit.compute(f, Operation::Add, x, y, 0))
        } else {
            let rotation = if element { bits(word, 14, 13) } else { bits(word, 12, 11) };
            let [first, second] = turned(f, rotation, x, y);
            [unit.fused(f, first.0, first.1, sums[0]), unit.fused(f, second.0, second.1, sums[1])]
        };
        result.set(f.size, 2 * pair, values[0]);
        result.set(f.size, 2 * pair + 1, values[1]);
    }
    result.write(state, d);
    Some(())
}
