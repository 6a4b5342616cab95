//! PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM: the manual's volume 1, 4.1 of the SSE4.2 chapter.

use crate::front_end::{GuestMemory, HelperResult};
use crate::ir::{CARRY, OVERFLOW, SIGN, ZERO};
use crate::x86::state::State;

/// Compares the scratch vectors. The first operand is the immediate, with 0x100 for explicit lengths
/// (in the second operand, a byte each) and 0x200 for a mask (left in the first scratch vector)
/// instead of an index (the result).
pub fn compare_strings(
    state: &mut State,
    _: &mut dyn GuestMemory,
    [what, lengths, _]: [u64; 3],
) -> HelperResult {
    let words = what & 1 != 0;
    let count = if words { 8 } else { 16 };
    let [a, b] = state.scratch.map(|vector| elements(vector, words, what & 2 != 0));
    let [length_a, length_b] = if what & 0x100 != 0 {
        [lengths & 0xff, lengths >> 8 & 0xff].map(|length| (length as usize).min(count))
    } else {
        [&a, &b].map(|string| string[..count].iter().position(|e| *e == 0).unwrap_or(count))
    };
    let found = aggregate(what >> 2 & 3, &a[..length_a], &b[..length_b], count);
    let all = (1_u32 << count) - 1;
    let valid = (1_u32 << length_b) - 1;
    let result = match what >> 4 & 3 {
        1 => !found & all,
        3 => found ^ valid,
        _ => found,
    };
    let flag = |set: bool, bit: u64| if set { bit } else { 0 };
    state.flags = flag(result != 0, CARRY)
        | flag(length_b < count, ZERO)
        | flag(length_a < count, SIGN)
        | flag(result & 1 != 0, OVERFLOW);
    if what & 0x200 != 0 {
        state.scratch[0] = mask(result, what & 0x40 != 0, count);
        return Ok(0);
    }
    let index = match what & 0x40 != 0 {
        _ if result == 0 => count as u32,
        true => 31 - result.leading_zeros(),
        false => result.trailing_zeros(),
    };
    Ok(u64::from(index))
}

/// The elements as numbers; unused places are zero.
fn elements(vector: [u64; 2], words: bool, signed: bool) -> [i32; 16] {
    let whole = u128::from(vector[0]) | u128::from(vector[1]) << 64;
    let mut elements = [0; 16];
    for (at, element) in elements.iter_mut().enumerate() {
        *element = match (words, signed) {
            (false, false) => i32::from((whole >> (8 * at)) as u8),
            (false, true) => i32::from((whole >> (8 * at)) as i8),
            (true, _) if at >= 8 => 0,
            (true, false) => i32::from((whole >> (16 * at)) as u16),
            (true, true) => i32::from((whole >> (16 * at)) as i16),
        };
    }
    elements
}

/// A bit for each element of `b` (or place in it) that matches.
fn aggregate(how: u64, a: &[i32], b: &[i32], count: usize) -> u32 {
    let bit = |(at, matches): (usize, bool)| u32::from(matches) << at;
    let each = |matches: &dyn Fn(i32) -> bool| {
        b.iter().map(|element| matches(*element)).enumerate().map(bit).sum()
    };
    match how {
        0 => each(&|element| a.contains(&element)),
        1 => {
            each(&|element| a.chunks_exact(2).any(|range| (range[0]..=range[1]).contains(&element)))
        }
        2 => {
            // Ends match ends: beyond both strings all elements are equal.
            let equal = |at: usize| match (a.get(at), b.get(at)) {
                (Some(x), Some(y)) => x == y,
                (None, None) => true,
                _ => false,
            };
            (0..count).map(|at| (at, equal(at))).map(bit).sum()
        }
        _ => {
            // A substring may run beyond the end of the register, not beyond the string's.
            let starts =
                |at: usize| (0..a.len()).take(count - at).all(|i| b.get(at + i) == Some(&a[i]));
            (0..count).map(|at| (at, starts(at))).map(bit).sum()
        }
    }
}

/// The result as bits in the low word, or widened to a mask of elements.
fn mask(result: u32, widened: bool, count: usize) -> [u64; 2] {
    if !widened {
        return [u64::from(result), 0];
    }
    let width = 128 / count;
    let ones = (1_u128 << width) - 1;
    let whole = (0..count)
        .filter(|at| result >> at & 1 != 0)
        .fold(0_u128, |whole, at| whole | ones << (at * width));
    [whole as u64, (whole >> 64) as u64]
}
