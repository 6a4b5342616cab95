//! Integer vector instructions.

use super::vector::{Class, Lanes, class, number};
use crate::arm64::state::State;
use crate::table::bits;

/// The fields that all classes share.
#[derive(Clone, Copy)]
struct Fields {
    word: u32,
    scalar: bool,
    unsigned: bool,
    size: u32,
    full: bool,
}

impl Fields {
    fn new(word: u32) -> Self {
        Self {
            word,
            scalar: bits(word, 28, 28) == 1,
            unsigned: bits(word, 29, 29) == 1,
            size: bits(word, 23, 22),
            full: bits(word, 30, 30) == 1,
        }
    }

    /// Lanes of `1 << size` bytes.
    fn lanes(&self, size: u32) -> u32 {
        if self.scalar { 1 } else { (if self.full { 16 } else { 8 }) >> size }
    }
}

/// Keeps a number within `width` bits and notes whether it did not fit.
fn saturate(value: i128, width: u32, unsigned: bool, qc: &mut bool) -> u64 {
    let (low, high) = if unsigned {
        (0, (1i128 << width) - 1)
    } else {
        (-(1i128 << (width - 1)), (1i128 << (width - 1)) - 1)
    };
    let kept = value.clamp(low, high);
    *qc |= kept != value;
    kept as u64
}

/// Does an integer vector instruction; `None`: it is none.
pub fn compute(state: &mut State, word: u32) -> Option<()> {
    let fields = Fields::new(word);
    let mut qc = false;
    match class(word)? {
        Class::Same => same(state, fields, &mut qc)?,
        Class::Different => different(state, fields, &mut qc)?,
        Class::Two => two(state, fields, &mut qc)?,
        Class::Across => across(state, fields)?,
        Class::Element => element(state, fields, &mut qc)?,
        Class::Shift => shift(state, fields, &mut qc)?,
        Class::Extra => extra(state, fields, &mut qc)?,
        Class::Pair => pair(state, fields)?,
        _ => return None,
    }
    if qc {
        state.qc |= 1 << 27;
    }
    Some(())
}

fn registers(word: u32) -> (u32, u32, u32) {
    (bits(word, 4, 0), bits(word, 9, 5), bits(word, 20, 16))
}

/// SSHL and its relatives: by a signed count, left if positive.
fn shift_by(a: i128, count: i128, round: bool, width: u32) -> i128 {
    let count = i128::from(count as i8);
    if count >= 0 {
        // More than twice the width is nothing but overflow.
        return if count >= i128::from(width) { a.signum() * (1 << 100) } else { a << count };
    }
    let by = (-count).min(127) as u32;
    let half = if round && by <= 126 { 1i128 << (by - 1) } else { 0 };
    if by > 100 { if round { 0 } else { a >> 100 } } else { (a + half) >> by }
}

fn same(state: &mut State, f: Fields, qc: &mut bool) -> Option<()> {
    let (d, n, m) = registers(f.word);
    let (opcode, width, unsigned) = (bits(f.word, 15, 11), 8u32 << f.size, f.unsigned);
    let (a, b, old) = (Lanes::of(state, n), Lanes::of(state, m), Lanes::of(state, d));
    if opcode == 0b00011 {
        return None; // bitwise: lifted
    }
    let pairwise =
        matches!(opcode, 0b10100 | 0b10101 | 0b10111) && !(opcode == 0b10111 && unsigned);
    let scalar_ok = match opcode {
        0b00001 | 0b00101 | 0b01001 | 0b01011 => true,
        0b00110 | 0b00111 | 0b01000 | 0b01010 | 0b10000 | 0b10001 => f.size == 3,
        0b10110 => f.size == 1 || f.size == 2,
        _ => false,
    };
    if f.scalar && !scalar_ok || !f.scalar && f.size == 3 && !f.full {
        return None;
    }
    let half_lanes = f.lanes(f.size) / 2;
    let mut result = Lanes::default();
    for lane in 0..f.lanes(f.size) {
        let (x, y) = if pairwise {
            let (from, at) =
                if lane < half_lanes { (a, 2 * lane) } else { (b, 2 * (lane - half_lanes)) };
            (from.number(f.size, at, unsigned), from.number(f.size, at + 1, unsigned))
        } else {
            (a.number(f.size, lane, unsigned), b.number(f.size, lane, unsigned))
        };
        let was = old.number(f.size, lane, unsigned);
        let count = number(b.get(f.size, lane) & 0xff, 8, false);
        let truth = |holds: bool| if holds { u64::MAX } else { 0 };
        let value = match opcode {
            0b00000 if f.size < 3 => ((x + y) >> 1) as u64,
            0b00001 => saturate(x + y, width, unsigned, qc),
            0b00010 if f.size < 3 => ((x + y + 1) >> 1) as u64,
            0b00100 if f.size < 3 => ((x - y) >> 1) as u64,
            0b00101 => saturate(x - y, width, unsigned, qc),
            0b00110 => truth(x > y),
            0b00111 => truth(x >= y),
            0b01000 => shift_by(x, count, false, width) as u64,
            0b01001 => saturate(shift_by(x, count, false, width), width, unsigned, qc),
            0b01010 => shift_by(x, count, true, width) as u64,
            0b01011 => saturate(shift_by(x, count, true, width), width, unsigned, qc),
            0b01100 if f.size < 3 => x.max(y) as u64,
            0b01101 if f.size < 3 => x.min(y) as u64,
            0b01110 if f.size < 3 => (x - y).unsigned_abs() as u64,
            0b01111 if f.size < 3 => (was + (x - y).abs()) as u64,
            0b10000 if unsigned => (x - y) as u64,
            0b10000 => (x + y) as u64,
            0b10001 if unsigned => truth(x == y),
            0b10001 => truth(x & y != 0),
            0b10010 if f.size < 3 && unsigned => (was - x * y) as u64,
            0b10010 if f.size < 3 => (was + x * y) as u64,
            0b10011 if f.size == 0 && unsigned => carryless(x as u64, y as u64) as u64,
            0b10011 if f.size < 3 && !unsigned => (x * y) as u64,
            0b10100 if f.size < 3 => x.max(y) as u64,
            0b10101 if f.size < 3 => x.min(y) as u64,
            0b10110 if f.size == 1 || f.size == 2 => {
                let (x, y) = (a.number(f.size, lane, false), b.number(f.size, lane, false));
                let half = if unsigned { 1i128 << (width - 1) } else { 0 };
                saturate((2 * x * y + half) >> width, width, false, qc)
            }
            0b10111 if !unsigned => (x + y) as u64,
            _ => return None,
        };
        result.set(f.size, lane, value);
    }
    result.write(state, d);
    Some(())
}

fn carryless(a: u64, b: u64) -> u128 {
    (0..64).filter(|bit| b >> bit & 1 != 0).fold(0, |sum, bit| sum ^ u128::from(a) << bit)
}

fn different(state: &mut State, f: Fields, qc: &mut bool) -> Option<()> {
    let (d, n, m) = registers(f.word);
    let (opcode, unsigned) = (bits(f.word, 15, 12), f.unsigned);
    let (a, b, old) = (Lanes::of(state, n), Lanes::of(state, m), Lanes::of(state, d));
    let saturating = matches!(opcode, 0b1001 | 0b1011 | 0b1101);
    if f.scalar && !saturating || saturating && (unsigned || f.size == 0) {
        return None;
    }
    if opcode == 0b1110 {
        return None; // PMULL: with the cryptography
    }
    if f.size == 3 {
        return None;
    }
    let (wide, width) = (f.size + 1, 8u32 << f.size);
    let lanes = if f.scalar { 1 } else { 8 >> f.size };
    let upper = if f.full && !f.scalar { lanes } else { 0 };
    let narrow = matches!(opcode, 0b0100 | 0b0110);
    let mut result = if narrow && f.full { Lanes(old.0 & u128::from(u64::MAX)) } else { Lanes(0) };
    for lane in 0..lanes {
        let wide_first = matches!(opcode, 0b0001 | 0b0011 | 0b0100 | 0b0110);
        let x = match wide_first {
            true => a.number(wide, lane, unsigned),
            false => a.number(f.size, lane + upper, unsigned),
        };
        let y = match narrow {
            true => b.number(wide, lane, unsigned),
            false => b.number(f.size, lane + upper, unsigned),
        };
        let was = old.number(wide, lane, unsigned);
        let value = match opcode {
            0b0000 | 0b0001 => (x + y) as u64,
            0b0010 | 0b0011 => (x - y) as u64,
            0b0100 | 0b0110 => {
                let sum = if opcode == 0b0100 { x + y } else { x - y };
                let half = if unsigned { 1i128 << (width - 1) } else { 0 };
                result.set(f.size, lane + upper, ((sum + half) >> width) as u64);
                continue;
            }
            0b0101 => (was + (x - y).abs()) as u64,
            0b0111 => (x - y).unsigned_abs() as u64,
            0b1000 => (was + x * y) as u64,
            0b1010 => (was - x * y) as u64,
            0b1100 => (x * y) as u64,
            _ => doubling(opcode, was, x, y, 2 * width, qc)?,
        };
        result.set(wide, lane, value);
    }
    result.write(state, d);
    Some(())
}

/// SQDMLAL, SQDMLSL, SQDMULL: the product saturates, then the sum.
fn doubling(opcode: u32, was: i128, x: i128, y: i128, width: u32, qc: &mut bool) -> Option<u64> {
    let product = number(saturate(2 * x * y, width, false, qc), width.min(64), false);
    match opcode {
        0b1001 => Some(saturate(was + product, width, false, qc)),
        0b1011 => Some(saturate(was - product, width, false, qc)),
        0b1101 => Some(product as u64),
        _ => None,
    }
}

fn two(state: &mut State, f: Fields, qc: &mut bool) -> Option<()> {
    let (d, n, _) = registers(f.word);
    let (opcode, width, unsigned) = (bits(f.word, 16, 12), 8u32 << f.size, f.unsigned);
    let (a, old) = (Lanes::of(state, n), Lanes::of(state, d));
    match opcode {
        0b00010 | 0b00110 if !f.scalar && f.size < 3 => {
            return pairwise_long(state, f, opcode == 0b00110);
        }
        0b10010 | 0b10100 => return narrow(state, f, qc),
        0b10011 if unsigned && !f.scalar && f.size < 3 => {
            let mut result = Lanes(0); // SHLL
            let upper = if f.full { 8 >> f.size } else { 0 };
            for lane in 0..8 >> f.size {
                result.set(f.size + 1, lane, a.get(f.size, lane + upper) << width);
            }
            result.write(state, d);
            return Some(());
        }
        _ => {}
    }
    if f.scalar && !matches!((opcode, f.size), (0b00011 | 0b00111, _) | (8..=11, 3))
        || !f.scalar && f.size == 3 && !f.full
    {
        return None;
    }
    let mut result = Lanes::default();
    for lane in 0..f.lanes(f.size) {
        let bits = a.get(f.size, lane);
        let x = a.number(f.size, lane, false);
        let truth = |holds: bool| if holds { u64::MAX } else { 0 };
        let value = match (opcode, unsigned) {
            (0b00011, _) => {
                // SUQADD, USQADD: the other operand has the other sign
                let (x, was) =
                    (a.number(f.size, lane, !unsigned), old.number(f.size, lane, unsigned));
                saturate(x + was, width, unsigned, qc)
            }
            (0b00111, false) => saturate(x.abs(), width, false, qc),
            (0b00111, true) => saturate(-x, width, false, qc),
            (0b00100, true) if f.size < 3 => {
                (bits << (64 - width)).leading_zeros().min(width) as u64
            }
            (0b00100, false) if f.size < 3 => {
                let changes = (x ^ x >> 1) as u64;
                u64::from(((changes << (64 - width)).leading_zeros()).min(width)) - 1
            }
            (0b01000, false) => truth(x > 0),
            (0b01000, true) => truth(x >= 0),
            (0b01001, false) => truth(x == 0),
            (0b01001, true) => truth(x <= 0),
            (0b01010, false) => truth(x < 0),
            (0b01011, false) => x.unsigned_abs() as u64,
            (0b01011, true) => (-x) as u64,
            _ => return None,
        };
        result.set(f.size, lane, value);
    }
    result.write(state, d);
    Some(())
}

fn pairwise_long(state: &mut State, f: Fields, accumulate: bool) -> Option<()> {
    let (d, n, _) = registers(f.word);
    let (a, old) = (Lanes::of(state, n), Lanes::of(state, d));
    let mut result = Lanes::default();
    for lane in 0..f.lanes(f.size) / 2 {
        let sum =
            a.number(f.size, 2 * lane, f.unsigned) + a.number(f.size, 2 * lane + 1, f.unsigned);
        let was = if accumulate { old.number(f.size + 1, lane, f.unsigned) } else { 0 };
        result.set(f.size + 1, lane, (was + sum) as u64);
    }
    result.write(state, d);
    Some(())
}

/// XTN, SQXTN, UQXTN, SQXTUN.
fn narrow(state: &mut State, f: Fields, qc: &mut bool) -> Option<()> {
    let (d, n, _) = registers(f.word);
    let extract = bits(f.word, 16, 12) == 0b10010;
    let (from_unsigned, to_unsigned, wraps) = match (extract, f.unsigned) {
        (true, false) => (true, true, true),
        (true, true) => (false, true, false),
        (false, unsigned) => (unsigned, unsigned, false),
    };
    if f.size == 3 || f.scalar && wraps {
        return None;
    }
    let (a, old) = (Lanes::of(state, n), Lanes::of(state, d));
    let lanes = if f.scalar { 1 } else { 8 >> f.size };
    let upper = if f.full && !f.scalar { lanes } else { 0 };
    let mut result = if upper > 0 { Lanes(old.0 & u128::from(u64::MAX)) } else { Lanes(0) };
    for lane in 0..lanes {
        let x = a.number(f.size + 1, lane, from_unsigned);
        let value = match wraps {
            true => x as u64,
            false => saturate(x, 8 << f.size, to_unsigned, qc),
        };
        result.set(f.size, lane + upper, value);
    }
    result.write(state, d);
    Some(())
}

fn across(state: &mut State, f: Fields) -> Option<()> {
    let (d, n, _) = registers(f.word);
    if f.size == 3 || f.size == 2 && !f.full {
        return None;
    }
    let a = Lanes::of(state, n);
    let lanes = (0..f.lanes(f.size)).map(|lane| a.number(f.size, lane, f.unsigned));
    let (value, size) = match (bits(f.word, 16, 12), f.unsigned) {
        (0b00011, _) => (lanes.sum::<i128>(), f.size + 1),
        (0b01010, _) => (lanes.max()?, f.size),
        (0b11010, _) => (lanes.min()?, f.size),
        (0b11011, false) => (lanes.sum(), f.size),
        _ => return None,
    };
    let mut result = Lanes::default();
    result.set(size, 0, value as u64);
    result.write(state, d);
    Some(())
}

fn pair(state: &mut State, f: Fields) -> Option<()> {
    let (d, n, _) = registers(f.word);
    if bits(f.word, 16, 12) != 0b11011 || f.unsigned || f.size != 3 {
        return None;
    }
    let [low, high] = state.v[n as usize];
    state.v[d as usize] = [low.wrapping_add(high), 0];
    Some(())
}

fn element(state: &mut State, f: Fields, qc: &mut bool) -> Option<()> {
    let (d, n, _) = registers(f.word);
    let (opcode, unsigned) = (bits(f.word, 15, 12), f.unsigned);
    let (l, m, h) = (bits(f.word, 21, 21), bits(f.word, 20, 20), bits(f.word, 11, 11));
    if opcode == 0b1110 && f.size == 2 && !f.scalar {
        let index = h << 1 | l;
        let b = Lanes::of(state, m << 4 | bits(f.word, 19, 16)).get(2, index);
        return dot(state, f, Lanes(u128::from(b) * 0x1_0000_0001_0000_0001_0000_0001));
    }
    let (index, register) = match f.size {
        1 => (h << 2 | l << 1 | m, bits(f.word, 19, 16)),
        2 => (h << 1 | l, m << 4 | bits(f.word, 19, 16)),
        _ => return None,
    };
    let (a, old) = (Lanes::of(state, n), Lanes::of(state, d));
    let y = Lanes::of(state, register).number(f.size, index, unsigned);
    let signed_y = Lanes::of(state, register).number(f.size, index, false);
    let (width, wide) = (8u32 << f.size, f.size + 1);
    let long = matches!(opcode, 0b0010 | 0b0110 | 0b1010 | 0b0011 | 0b0111 | 0b1011);
    let scalar_ok = matches!(
        (opcode, unsigned),
        (0b0011 | 0b0111 | 0b1011 | 0b1100, false) | (0b1101 | 0b1111, _)
    );
    if f.scalar && !scalar_ok {
        return None;
    }
    let lanes = match (f.scalar, long) {
        (true, _) => 1,
        (false, true) => 8 >> f.size,
        (false, false) => f.lanes(f.size),
    };
    let upper = if long && f.full && !f.scalar { lanes } else { 0 };
    let mut result = Lanes::default();
    for lane in 0..lanes {
        let x = a.number(f.size, lane + upper, unsigned);
        let to = if long { wide } else { f.size };
        let was = old.number(to, lane, unsigned);
        let value = match (opcode, unsigned) {
            (0b0000, true) => (was + x * y) as u64,
            (0b0100, true) => (was - x * y) as u64,
            (0b1000, false) => (x * y) as u64,
            (0b0010, _) => (was + x * y) as u64,
            (0b0110, _) => (was - x * y) as u64,
            (0b1010, _) => (x * y) as u64,
            (0b0011, false) => doubling(0b1001, was, x, y, 2 * width, qc)?,
            (0b0111, false) => doubling(0b1011, was, x, y, 2 * width, qc)?,
            (0b1011, false) => doubling(0b1101, was, x, y, 2 * width, qc)?,
            (0b1100, false) => saturate((2 * x * y) >> width, width, false, qc),
            (0b1101, false) => {
                saturate((2 * x * y + (1 << (width - 1))) >> width, width, false, qc)
            }
            (0b1101 | 0b1111, true) => {
                let (x, was) = (a.number(f.size, lane, false), old.number(f.size, lane, false));
                accumulate_doubled(opcode == 0b1111, was, x, signed_y, width, qc)
            }
            _ => return None,
        };
        result.set(to, lane, value);
    }
    result.write(state, d);
    Some(())
}

/// SQRDMLAH, SQRDMLSH.
fn accumulate_doubled(minus: bool, was: i128, x: i128, y: i128, width: u32, qc: &mut bool) -> u64 {
    let product = if minus { -2 * x * y } else { 2 * x * y };
    saturate(((was << width) + product + (1 << (width - 1))) >> width, width, false, qc)
}

fn dot(state: &mut State, f: Fields, b: Lanes) -> Option<()> {
    let (d, n, _) = registers(f.word);
    let (a, old) = (Lanes::of(state, n), Lanes::of(state, d));
    let mut result = Lanes::default();
    for lane in 0..f.lanes(2) {
        let products = (4 * lane..4 * lane + 4)
            .map(|byte| a.number(0, byte, f.unsigned) * b.number(0, byte, f.unsigned));
        result.set(2, lane, (old.number(2, lane, false) + products.sum::<i128>()) as u64);
    }
    result.write(state, d);
    Some(())
}

fn extra(state: &mut State, f: Fields, qc: &mut bool) -> Option<()> {
    let (d, n, m) = registers(f.word);
    match (bits(f.word, 14, 11), f.unsigned, f.size) {
        (0b0010, _, 2) if !f.scalar => dot(state, f, Lanes::of(state, m)),
        (opcode @ (0b0000 | 0b0001), true, 1 | 2) => {
            let (a, b, old) = (Lanes::of(state, n), Lanes::of(state, m), Lanes::of(state, d));
            let mut result = Lanes::default();
            for lane in 0..f.lanes(f.size) {
                let at = |v: Lanes| v.number(f.size, lane, false);
                let value = accumulate_doubled(opcode == 1, at(old), at(a), at(b), 8 << f.size, qc);
                result.set(f.size, lane, value);
            }
            result.write(state, d);
            Some(())
        }
        _ => None,
    }
}

fn shift(state: &mut State, f: Fields, qc: &mut bool) -> Option<()> {
    let (d, n, _) = registers(f.word);
    let (opcode, field, unsigned) = (bits(f.word, 15, 11), bits(f.word, 22, 16), f.unsigned);
    let size = 31 - (field >> 3).leading_zeros();
    let width = 8u32 << size;
    let (right, left) = (2 * width - field, field - width);
    let (a, old) = (Lanes::of(state, n), Lanes::of(state, d));
    if matches!(opcode, 0b10000..=0b10011) {
        return narrow_shift(state, f, size, right, qc);
    }
    if opcode == 0b10100 && !f.scalar && size < 3 {
        let upper = if f.full { 8 >> size } else { 0 };
        let mut result = Lanes(0);
        for lane in 0..8 >> size {
            let x = a.number(size, lane + upper, unsigned);
            result.set(size + 1, lane, (x << left) as u64);
        }
        result.write(state, d);
        return Some(());
    }
    let saturating = matches!(opcode, 0b01100 | 0b01110);
    if f.scalar && size != 3 && !saturating || !f.scalar && size == 3 && !f.full {
        return None;
    }
    let mut result = Lanes::default();
    for lane in 0..f.lanes(size) {
        let x = a.number(size, lane, unsigned);
        let was = old.number(size, lane, unsigned);
        let rounded = (x + (1i128 << (right - 1))) >> right;
        let whole = u64::MAX >> (64 - width);
        let value = match (opcode, unsigned) {
            (0b00000, _) => (x >> right) as u64,
            (0b00010, _) => (was + (x >> right)) as u64,
            (0b00100, _) => rounded as u64,
            (0b00110, _) => (was + rounded) as u64,
            (0b01000, true) => {
                let keep = if right == 64 { u64::MAX } else { !(whole >> right) };
                was as u64 & keep | (x >> right) as u64
            }
            (0b01010, true) => was as u64 & ((1u64 << left) - 1) | (x << left) as u64,
            (0b01010, false) => (x << left) as u64,
            (0b01100, true) => saturate(a.number(size, lane, false) << left, width, true, qc),
            (0b01110, _) => saturate(x << left, width, unsigned, qc),
            _ => return None,
        };
        result.set(size, lane, value);
    }
    result.write(state, d);
    Some(())
}

/// SHRN, RSHRN, and the saturating ones.
fn narrow_shift(state: &mut State, f: Fields, size: u32, right: u32, qc: &mut bool) -> Option<()> {
    let (d, n, _) = registers(f.word);
    let opcode = bits(f.word, 15, 11);
    let saturating = f.unsigned || opcode & 2 != 0;
    if size == 3 || f.scalar && !saturating {
        return None;
    }
    let (from_unsigned, to_unsigned) = match (opcode & 2 != 0, f.unsigned) {
        (true, unsigned) => (unsigned, unsigned),
        (false, unsigned) => (false, unsigned),
    };
    let (a, old) = (Lanes::of(state, n), Lanes::of(state, d));
    let lanes = if f.scalar { 1 } else { 8 >> size };
    let upper = if f.full && !f.scalar { lanes } else { 0 };
    let mut result = if upper > 0 { Lanes(old.0 & u128::from(u64::MAX)) } else { Lanes(0) };
    for lane in 0..lanes {
        let x = a.number(size + 1, lane, from_unsigned);
        let half = if opcode & 1 != 0 { 1i128 << (right - 1) } else { 0 };
        let x = (x + half) >> right;
        let value = match saturating {
            true => saturate(x, 8 << size, to_unsigned, qc),
            false => x as u64,
        };
        result.set(size, lane + upper, value);
    }
    result.write(state, d);
    Some(())
}
