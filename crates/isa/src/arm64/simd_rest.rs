//! C4.1.96: integer operations on two registers, shifts by constants.

use super::lift::{Lift, Row, bit, rd, rn};
use super::simd_arithmetic::{ADD, EQ, GT, SUB};
use crate::ir::{Lane, Type, Value};
use crate::table::{Pattern, assert_disjoint, bits, pattern};

isa! {
    simd_two       "0 . . 01110 .. 10000 ..... 10 ..... ....." => |l, w| l.two(w);
    simd_s_two     "01 . 11110 .. 10000 ..... 10 ..... ....." => |l, w| l.scalar_two(w);
    simd_shift_8   "0 . . 011110 0001 ... ..... 1 ..... ....." => |l, w| l.shift_constant(w, 0);
    simd_shift_16  "0 . . 011110 001. ... ..... 1 ..... ....." => |l, w| l.shift_constant(w, 1);
    simd_shift_32  "0 . . 011110 01.. ... ..... 1 ..... ....." => |l, w| l.shift_constant(w, 2);
    simd_shift_64  "0 . . 011110 1... ... ..... 1 ..... ....." => |l, w| l.shift_constant(w, 3);
    simd_s_shift_8 "01 . 111110 0001 ... ..... 1 ..... ....." => |l, w| l.vector_helper(w);
    simd_s_shift_16 "01 . 111110 001. ... ..... 1 ..... ....." => |l, w| l.vector_helper(w);
    simd_s_shift_32 "01 . 111110 01.. ... ..... 1 ..... ....." => |l, w| l.scalar_shift(w, 2);
    simd_s_shift_64 "01 . 111110 1... ... ..... 1 ..... ....." => |l, w| l.scalar_shift(w, 3);
}

const SHL: [Lane; 4] = [Lane::Shl16, Lane::Shl16, Lane::Shl32, Lane::Shl64];
const SHR_U: [Lane; 4] = [Lane::ShrU16, Lane::ShrU16, Lane::ShrU32, Lane::ShrU64];

/// A byte, half-word, ... pattern in all lanes of 64 bits.
fn repeat(value: u64, size: usize) -> u64 {
    let mut value = value;
    let mut width = 8 << size;
    while width < 64 {
        value |= value << width;
        width *= 2;
    }
    value
}

impl Lift<'_> {
    fn two(&mut self, word: u32) {
        let (opcode, unsigned) = (bits(word, 16, 12), bit(word, 29));
        let (size, full) = (bits(word, 23, 22) as usize, bit(word, 30));
        if opcode >= 0b01100 && !matches!(opcode, 0b10010..=0b10100) || opcode == 0b10110 {
            return self.two_fp(word);
        }
        let a = self.v(rn(word));
        if opcode == 0b10010 && !unsigned && size < 3 {
            let narrow = self.narrow(a, size);
            return self.set_narrow(word, narrow);
        }
        let value = match (opcode, unsigned, size) {
            (0b00000, false, 0..=2) => self.reverse(a, 3, size),
            (0b00000, true, 0..=1) => self.reverse(a, 2, size),
            (0b00001, false, 0) => self.reverse(a, 1, 0),
            (0b00101, false, 0) => self.count_bits(a),
            (0b00101, true, 0) => self.not(a),
            (0b00101, true, 1) => self.reverse_bits(a),
            (_, _, 3) if !full => return self.undefined(word),
            (0b00010, true, 0) => {
                let ones = self.pattern(repeat(1, 0));
                self.ir.lanes2(Lane::MulAddU8S8, a, ones)
            }
            (0b00010, false, 0) => {
                let ones = self.pattern(repeat(1, 0));
                self.ir.lanes2(Lane::MulAddU8S8, ones, a)
            }
            (0b00010, false, 1) => {
                let ones = self.pattern(repeat(1, 1));
                self.ir.lanes2(Lane::MulAdd16, a, ones)
            }
            (0b00010, true, 1 | 2) => {
                let mask = self.pattern([0, 0x0000_ffff_0000_ffff, 0xffff_ffff][size]);
                let even = self.ir.lanes2(Lane::And, a, mask);
                let odd = self.ir.lanes1(SHR_U[size + 1], a, 8 << size);
                self.ir.lanes2(ADD[size + 1], even, odd)
            }
            (0b01010, true, _) => return self.undefined(word),
            (0b01000..=0b01011, _, _) => self.with_zero(opcode, unsigned, size, a),
            (0b10011, true, 0..=2) => {
                let wide = self.widen(a, size, true, full);
                let value = self.ir.lanes1(SHL[size + 1], wide, 8 << size);
                return self.set_v(rd(word), value);
            }
            _ => return self.integer_helper(word),
        };
        self.set_v_half(rd(word), value, full);
    }

    /// Comparisons with zero, ABS, NEG.
    fn with_zero(&mut self, opcode: u32, unsigned: bool, size: usize, a: Value) -> Value {
        let zero = self.ir.constant(Type::V128, 0);
        match (opcode, unsigned) {
            (0b01000, false) => self.ir.lanes2(GT[size], a, zero),
            (0b01000, true) => {
                let negative = self.ir.lanes2(GT[size], zero, a);
                self.not(negative)
            }
            (0b01001, false) => self.ir.lanes2(EQ[size], a, zero),
            (0b01001, true) => {
                let positive = self.ir.lanes2(GT[size], a, zero);
                self.not(positive)
            }
            (0b01010, _) => self.ir.lanes2(GT[size], zero, a),
            (_, true) => self.ir.lanes2(SUB[size], zero, a),
            (_, false) if size < 3 => {
                self.ir.lanes1([Lane::Abs8, Lane::Abs16, Lane::Abs32][size], a, 0)
            }
            (_, false) => {
                let sign = self.ir.lanes2(GT[size], zero, a);
                let value = self.ir.lanes2(Lane::Xor, a, sign);
                self.ir.lanes2(SUB[size], value, sign)
            }
        }
    }

    /// Lanes of `1 << size` bytes reversed within containers of `1 << container`.
    fn reverse(&mut self, a: Value, container: u32, size: usize) -> Value {
        let place = |byte: u32| {
            let flipped = byte ^ ((1 << container) - 1) ^ ((1 << size) - 1);
            u64::from(flipped) << (8 * (byte % 8))
        };
        let low: u64 = (0..8).map(place).sum();
        let high: u64 = (8..16).map(place).sum();
        let order = self.pattern(low);
        let high = self.ir.imm(high as i64);
        let order = self.ir.lane_put(order, high, 1);
        self.ir.lanes2(Lane::Shuffle8, a, order)
    }

    /// A 16-entry table looked up by each nibble.
    fn nibbles(&mut self, a: Value, low: [u64; 2], high: [u64; 2]) -> Value {
        let mask = self.pattern(repeat(0x0f, 0));
        let first = self.ir.lanes2(Lane::And, a, mask);
        let second = self.ir.lanes1(Lane::ShrU16, a, 4);
        let second = self.ir.lanes2(Lane::And, second, mask);
        let mut look = |table: [u64; 2], index: Value| {
            let vector = self.pattern(table[0]);
            let upper = self.ir.imm(table[1] as i64);
            let vector = self.ir.lane_put(vector, upper, 1);
            self.ir.lanes2(Lane::Shuffle8, vector, index)
        };
        let (first, second) = (look(low, first), look(high, second));
        self.ir.lanes2(Lane::Add8, first, second)
    }

    fn count_bits(&mut self, a: Value) -> Value {
        let table = [0x0302_0201_0201_0100, 0x0403_0302_0302_0201];
        self.nibbles(a, table, table)
    }

    fn reverse_bits(&mut self, a: Value) -> Value {
        let low = [0xe060_a020_c040_8000, 0xf070_b030_d050_9010];
        let high = [0x0e06_0a02_0c04_0800, 0x0f07_0b03_0d05_0901];
        self.nibbles(a, low, high)
    }

    fn scalar_two(&mut self, word: u32) {
        let (opcode, unsigned) = (bits(word, 16, 12), bit(word, 29));
        let size = bits(word, 23, 22) as usize;
        if matches!(opcode, 0b01000..=0b01011) && size == 3 && (opcode, unsigned) != (0b01010, true)
        {
            let a = self.v(rn(word));
            let value = self.with_zero(opcode, unsigned, 3, a);
            return self.set_v_half(rd(word), value, false);
        }
        self.scalar_two_fp(word);
    }

    /// Right shift by 1 to the width.
    pub(super) fn shift_right(&mut self, a: Value, size: usize, by: u32, unsigned: bool) -> Value {
        let width = 8 << size;
        if !unsigned && matches!(size, 1 | 2) {
            let lane = if size == 1 { Lane::ShrS16 } else { Lane::ShrS32 };
            return self.ir.lanes1(lane, a, by.min(width - 1) as u8);
        }
        if by == width && unsigned {
            return self.ir.constant(Type::V128, 0);
        }
        let by = by.min(width - 1);
        let mut value = self.ir.lanes1(SHR_U[size], a, by as u8);
        if size == 0 {
            let mask = self.pattern(repeat(0xff >> by, 0));
            value = self.ir.lanes2(Lane::And, value, mask);
        }
        if unsigned {
            return value;
        }
        // The sign is extended by flipping it and subtracting it again.
        let sign = self.pattern(repeat(1 << (width - 1) >> by, size));
        let flipped = self.ir.lanes2(Lane::Xor, value, sign);
        self.ir.lanes2(SUB[size], flipped, sign)
    }

    fn shift_left(&mut self, a: Value, size: usize, by: u32) -> Value {
        let value = self.ir.lanes1(SHL[size], a, by as u8);
        if size > 0 {
            return value;
        }
        let mask = self.pattern(repeat(0xff << by & 0xff, 0));
        self.ir.lanes2(Lane::And, value, mask)
    }

    /// Bits of `old` outside of a mask in each lane, and a value inside.
    fn merge(&mut self, old: Value, value: Value, mask: u64, size: usize) -> Value {
        let mask = self.pattern(repeat(mask, size));
        let rest = self.and_not(old, mask);
        self.ir.lanes2(Lane::Or, rest, value)
    }

    fn shift_lanes(&mut self, word: u32, size: usize) -> Option<Value> {
        let (opcode, unsigned) = (bits(word, 15, 11), bit(word, 29));
        let width = 8u32 << size;
        let (right, left) = (2 * width - bits(word, 22, 16), bits(word, 22, 16) - width);
        let whole = u64::MAX >> (64 - width);
        let (a, old) = (self.v(rn(word)), self.v(rd(word)));
        let value = match (opcode, unsigned) {
            (0b00000, _) => self.shift_right(a, size, right, unsigned),
            (0b00010, _) => {
                let value = self.shift_right(a, size, right, unsigned);
                self.ir.lanes2(ADD[size], old, value)
            }
            (0b01000, true) if right < width => {
                let value = self.shift_right(a, size, right, true);
                self.merge(old, value, whole >> right, size)
            }
            (0b01010, false) => self.shift_left(a, size, left),
            (0b01010, true) => {
                let value = self.shift_left(a, size, left);
                self.merge(old, value, whole << left & whole, size)
            }
            _ => return None,
        };
        Some(value)
    }

    fn shift_constant(&mut self, word: u32, size: usize) {
        let (opcode, unsigned, full) = (bits(word, 15, 11), bit(word, 29), bit(word, 30));
        let a = self.v(rn(word));
        match opcode {
            0b10000 if !unsigned && size < 3 => {
                let by = (16 << size) - bits(word, 22, 16);
                let shifted = self.ir.lanes1(SHR_U[size + 1], a, by as u8);
                let narrow = self.narrow(shifted, size);
                return self.set_narrow(word, narrow);
            }
            0b10100 if size < 3 => {
                let by = bits(word, 22, 16) - (8 << size);
                let wide = self.widen(a, size, unsigned, full);
                let value = self.ir.lanes1(SHL[size + 1], wide, by as u8);
                return self.set_v(rd(word), value);
            }
            _ => {}
        }
        if size == 3 && !full {
            return self.undefined(word);
        }
        match self.shift_lanes(word, size) {
            Some(value) => self.set_v_half(rd(word), value, full),
            None => self.vector_helper(word),
        }
    }

    fn scalar_shift(&mut self, word: u32, size: usize) {
        let value = if size == 3 { self.shift_lanes(word, size) } else { None };
        match value {
            Some(value) => self.set_v_half(rd(word), value, false),
            None => self.vector_helper(word),
        }
    }
}
