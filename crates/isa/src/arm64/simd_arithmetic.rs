//! C4.1.96, "Advanced SIMD": integer arithmetic of registers of one shape or two.
//!
//! Rows are the manual's classes; the operation is chosen by `opcode`. What is not lifted to host
//! instructions is computed by `helpers::integer` and `helpers::float`.

use super::lift::{Lift, Row, bit, rd, rm, rn};
use crate::ir::{Lane, Type, Value};
use crate::table::{Pattern, assert_disjoint, bits, pattern};

isa! {
    simd_same      "0 . . 01110 .. 1 ..... ..... 1 ..... ....." => |l, w| l.same(w);
    simd_different "0 . . 01110 .. 1 ..... .... 00 ..... ....." => |l, w| l.different(w);
    simd_across    "0 . . 01110 .. 11000 ..... 10 ..... ....." => |l, w| l.across(w);
    simd_element   "0 . . 01111 .. ...... ..... 0 ..... ....." => |l, w| l.element(w);
    simd_extra     "0 . . 01110 .. 0 ..... 1 .... 1 ..... ....." => |l, w| l.extra(w);
    simd_half_same "0 . . 01110 .1 0 ..... 00 ... 1 ..... ....." => |l, w| l.vector_helper(w);
    simd_half_two  "0 . . 01110 .1 11100 ..... 10 ..... ....." => |l, w| l.vector_helper(w);
    simd_s_same    "01 . 11110 .. 1 ..... ..... 1 ..... ....." => |l, w| l.scalar_same(w);
    simd_s_diff    "01 . 11110 .. 1 ..... .... 00 ..... ....." => |l, w| l.integer_helper(w);
    simd_s_pair    "01 . 11110 .. 11000 ..... 10 ..... ....." => |l, w| l.scalar_pair(w);
    simd_s_element "01 . 11111 .. ...... ..... 0 ..... ....." => |l, w| l.vector_helper(w);
    simd_s_extra   "01 . 11110 .. 0 ..... 1 .... 1 ..... ....." => |l, w| l.integer_helper(w);
    simd_s_half_same "01 . 11110 .1 0 ..... 00 ... 1 ..... ....." => |l, w| l.vector_helper(w);
    simd_s_half_two "01 . 11110 .1 11100 ..... 10 ..... ....." => |l, w| l.vector_helper(w);
}

/// One lane operation for each lane size.
pub const ADD: [Lane; 4] = [Lane::Add8, Lane::Add16, Lane::Add32, Lane::Add64];
/// See `ADD`.
pub const SUB: [Lane; 4] = [Lane::Sub8, Lane::Sub16, Lane::Sub32, Lane::Sub64];
/// See `ADD`.
pub const EQ: [Lane; 4] = [Lane::Eq8, Lane::Eq16, Lane::Eq32, Lane::Eq64];
/// See `ADD`.
pub const GT: [Lane; 4] = [Lane::GtS8, Lane::GtS16, Lane::GtS32, Lane::GtS64];
const MAX_S: [Lane; 3] = [Lane::MaxS8, Lane::MaxS16, Lane::MaxS32];
const MAX_U: [Lane; 3] = [Lane::MaxU8, Lane::MaxU16, Lane::MaxU32];
const MIN_S: [Lane; 3] = [Lane::MinS8, Lane::MinS16, Lane::MinS32];
const MIN_U: [Lane; 3] = [Lane::MinU8, Lane::MinU16, Lane::MinU32];
const WIDEN_S: [Lane; 3] = [Lane::WidenS8, Lane::WidenS16, Lane::WidenS32];
const WIDEN_U: [Lane; 3] = [Lane::WidenU8, Lane::WidenU16, Lane::WidenU32];

const ZIP_HIGH: [Lane; 3] = [Lane::ZipHi8, Lane::ZipHi16, Lane::ZipHi32];

fn max(unsigned: bool, size: usize) -> Lane {
    if unsigned { MAX_U[size] } else { MAX_S[size] }
}

fn min(unsigned: bool, size: usize) -> Lane {
    if unsigned { MIN_U[size] } else { MIN_S[size] }
}

/// Makes the pattern of all ones.
fn shifted_ones(bits: u64) -> Option<(Lane, u8)> {
    const SHIFTS: [(u32, Lane, Lane); 3] = [
        (64, Lane::Shl64, Lane::ShrU64),
        (32, Lane::Shl32, Lane::ShrU32),
        (16, Lane::Shl16, Lane::ShrU16),
    ];
    let fits = |(width, left, right): (u32, Lane, Lane)| {
        let lane = bits & u64::MAX >> (64 - width);
        let repeats =
            (0..64 / width).all(|at| bits >> (at * width) & (u64::MAX >> (64 - width)) == lane);
        let (ones, width_ones) = (lane.count_ones(), u64::MAX >> (64 - width));
        if !repeats || ones == 0 || ones == width {
            return None;
        }
        let by = (width - ones) as u8;
        if lane == width_ones >> by {
            return Some((right, by));
        }
        (lane == width_ones << by & width_ones).then_some((left, by))
    };
    SHIFTS.into_iter().find_map(fits)
}

/// Building blocks.
impl Lift<'_> {
    /// A vector with this 64-bit pattern in both halves.
    pub(super) fn pattern(&mut self, bits: u64) -> Value {
        if let Some((lane, by)) = shifted_ones(bits) {
            // Two instructions without a general register; a register equals itself for free.
            let any = self.v(0);
            let ones = self.ir.lanes2(Lane::Eq8, any, any);
            return self.ir.lanes1(lane, ones, by);
        }
        let bits = self.ir.imm(bits as i64);
        self.ir.splat(Type::V128, bits)
    }

    /// All bits inverted.
    pub(super) fn not(&mut self, a: Value) -> Value {
        let ones = self.ir.lanes2(Lane::Eq8, a, a);
        self.ir.lanes2(Lane::Xor, a, ones)
    }

    /// `a & !b`.
    pub(super) fn and_not(&mut self, a: Value, b: Value) -> Value {
        self.ir.lanes2(Lane::AndNot, b, a)
    }

    /// Low half of `a`, then low half of `b`.
    pub(super) fn join(&mut self, a: Value, b: Value) -> Value {
        self.ir.lanes2(Lane::ZipLo64, a, b)
    }

    /// The lower half of the lanes, or the upper (`full`), twice as wide.
    pub(super) fn widen(&mut self, a: Value, size: usize, unsigned: bool, upper: bool) -> Value {
        if upper && unsigned {
            let zero = self.ir.constant(Type::V128, 0);
            return self.ir.lanes2(ZIP_HIGH[size], a, zero);
        }
        let a = if upper { self.ir.lanes1(Lane::ShrBytes, a, 8) } else { a };
        self.ir.lanes1(if unsigned { WIDEN_U[size] } else { WIDEN_S[size] }, a, 0)
    }

    /// The low halves of `2 << size` byte lanes in the lower half of the result.
    pub(super) fn narrow(&mut self, a: Value, size: usize) -> Value {
        match size {
            0 => {
                let mask = self.pattern(0x00ff_00ff_00ff_00ff);
                let a = self.ir.lanes2(Lane::And, a, mask);
                self.ir.lanes2(Lane::NarrowS16U8, a, a)
            }
            1 => {
                let mask = self.pattern(0x0000_ffff_0000_ffff);
                let a = self.ir.lanes2(Lane::And, a, mask);
                self.ir.lanes2(Lane::NarrowS32U16, a, a)
            }
            _ => self.ir.lanes1(Lane::Shuffle32, a, 0x08),
        }
    }

    /// Writes a narrow result: to the lower half, the upper becoming zero, or to the upper half.
    pub(super) fn set_narrow(&mut self, word: u32, value: Value) {
        if bit(word, 30) {
            let old = self.v(rd(word));
            let value = self.join(old, value);
            self.set_v(rd(word), value);
        } else {
            self.set_v_half(rd(word), value, false);
        }
    }

    /// Even and odd lanes of the pair `a:b`.
    fn unzip(&mut self, a: Value, b: Value, size: usize) -> Option<(Value, Value)> {
        let pair = match size {
            0 => {
                let mask = self.pattern(0x00ff_00ff_00ff_00ff);
                let (x, y) =
                    (self.ir.lanes2(Lane::And, a, mask), self.ir.lanes2(Lane::And, b, mask));
                let even = self.ir.lanes2(Lane::NarrowS16U8, x, y);
                let (x, y) =
                    (self.ir.lanes1(Lane::ShrU16, a, 8), self.ir.lanes1(Lane::ShrU16, b, 8));
                (even, self.ir.lanes2(Lane::NarrowS16U8, x, y))
            }
            1 => {
                let mask = self.pattern(0x0000_ffff_0000_ffff);
                let (x, y) =
                    (self.ir.lanes2(Lane::And, a, mask), self.ir.lanes2(Lane::And, b, mask));
                let even = self.ir.lanes2(Lane::NarrowS32U16, x, y);
                let (x, y) =
                    (self.ir.lanes1(Lane::ShrU32, a, 16), self.ir.lanes1(Lane::ShrU32, b, 16));
                (even, self.ir.lanes2(Lane::NarrowS32U16, x, y))
            }
            2 => (
                self.ir.lanes2_imm(Lane::ShuffleF32, a, b, 0x88),
                self.ir.lanes2_imm(Lane::ShuffleF32, a, b, 0xdd),
            ),
            _ => (self.ir.lanes2(Lane::ZipLo64, a, b), self.ir.lanes2(Lane::ZipHi64, a, b)),
        };
        Some(pair)
    }

    /// The same for UZP, TRN and the pairwise operations of either width.
    pub(super) fn unzip_halves(&mut self, word: u32) -> Option<(Value, Value)> {
        let size = bits(word, 23, 22) as usize;
        let (a, b) = (self.v(rn(word)), self.v(rm(word)));
        if bit(word, 30) {
            return self.unzip(a, b, size);
        }
        if size == 3 {
            return None;
        }
        let both = self.join(a, b);
        self.unzip(both, both, size)
    }

    pub(super) fn multiply(&mut self, a: Value, b: Value, size: usize) -> Value {
        match size {
            0 => {
                let mask = self.pattern(0x00ff_00ff_00ff_00ff);
                let even = self.ir.lanes2(Lane::Mul16, a, b);
                let even = self.ir.lanes2(Lane::And, even, mask);
                let (a, b) =
                    (self.ir.lanes1(Lane::ShrU16, a, 8), self.ir.lanes1(Lane::ShrU16, b, 8));
                let odd = self.ir.lanes2(Lane::Mul16, a, b);
                let odd = self.ir.lanes1(Lane::Shl16, odd, 8);
                self.ir.lanes2(Lane::Or, even, odd)
            }
            1 => self.ir.lanes2(Lane::Mul16, a, b),
            _ => self.ir.lanes2(Lane::Mul32, a, b),
        }
    }

    /// Products of widened lanes.
    fn multiply_wide(&mut self, a: Value, b: Value, size: usize, unsigned: bool) -> Value {
        let lane = match (size, unsigned) {
            (0, _) => Lane::Mul16,
            (1, _) => Lane::Mul32,
            (_, true) => Lane::MulWideU32,
            (_, false) => Lane::MulWideS32,
        };
        self.ir.lanes2(lane, a, b)
    }

    /// `|a - b|`, without overflow.
    fn distance(&mut self, a: Value, b: Value, size: usize, unsigned: bool) -> Value {
        let (high, low) =
            (self.ir.lanes2(max(unsigned, size), a, b), self.ir.lanes2(min(unsigned, size), a, b));
        self.ir.lanes2(SUB[size], high, low)
    }
}

/// Classes.
impl Lift<'_> {
    fn same(&mut self, word: u32) {
        let opcode = bits(word, 15, 11);
        if opcode >= 0b11000 {
            return self.same_fp(word);
        }
        let (a, b) = (self.v(rn(word)), self.v(rm(word)));
        let size = bits(word, 23, 22) as usize;
        let full = bit(word, 30);
        if opcode == 0b00011 {
            let value = self.bitwise(word, a, b);
            return self.set_v_half(rd(word), value, full);
        }
        if size == 3 && !full {
            return self.undefined(word);
        }
        match self.same_lanes(word, opcode, size, a, b) {
            Some(value) => self.set_v_half(rd(word), value, full),
            None => self.integer_helper(word),
        }
    }

    fn bitwise(&mut self, word: u32, a: Value, b: Value) -> Value {
        let old = self.v(rd(word));
        match (bit(word, 29), bits(word, 23, 22)) {
            (false, 0) => self.ir.lanes2(Lane::And, a, b),
            (false, 1) => self.and_not(a, b),
            (false, 2) if rn(word) == rm(word) => a,
            (false, 2) => self.ir.lanes2(Lane::Or, a, b),
            (false, _) => {
                let b = self.not(b);
                self.ir.lanes2(Lane::Or, a, b)
            }
            (true, 0) => self.ir.lanes2(Lane::Xor, a, b),
            (true, 1) => self.choose_bits(old, a, b), // BSL
            (true, 2) => self.choose_bits(b, a, old), // BIT
            (true, _) => self.choose_bits(b, old, a), // BIF
        }
    }

    /// `mask ? a : b`, bit by bit.
    pub(super) fn choose_bits(&mut self, mask: Value, a: Value, b: Value) -> Value {
        let difference = self.ir.lanes2(Lane::Xor, a, b);
        let chosen = self.ir.lanes2(Lane::And, difference, mask);
        self.ir.lanes2(Lane::Xor, chosen, b)
    }

    fn same_lanes(
        &mut self,
        word: u32,
        opcode: u32,
        size: usize,
        a: Value,
        b: Value,
    ) -> Option<Value> {
        let unsigned = bit(word, 29);
        let value = match (opcode, unsigned) {
            (0b00010, true) if size == 0 => self.ir.lanes2(Lane::AvgU8, a, b),
            (0b00010, true) if size == 1 => self.ir.lanes2(Lane::AvgU16, a, b),
            (0b00000 | 0b00010, _) if size < 3 => {
                // a + b = 2 (a & b) + (a ^ b) = 2 (a | b) - (a ^ b)
                let differ = self.ir.lanes2(Lane::Xor, a, b);
                let half = self.shift_right(differ, size, 1, unsigned);
                if opcode == 0 {
                    let both = self.ir.lanes2(Lane::And, a, b);
                    self.ir.lanes2(ADD[size], both, half)
                } else {
                    let either = self.ir.lanes2(Lane::Or, a, b);
                    self.ir.lanes2(SUB[size], either, half)
                }
            }
            (0b00110, _) => self.greater(a, b, size, unsigned),
            (0b00111, _) => {
                let less = self.greater(b, a, size, unsigned);
                self.not(less)
            }
            (0b01100, _) if size < 3 => self.ir.lanes2(max(unsigned, size), a, b),
            (0b01101, _) if size < 3 => self.ir.lanes2(min(unsigned, size), a, b),
            (0b01110, _) if size < 3 => self.distance(a, b, size, unsigned),
            (0b01111, _) if size < 3 => {
                let distance = self.distance(a, b, size, unsigned);
                let old = self.v(rd(word));
                self.ir.lanes2(ADD[size], old, distance)
            }
            (0b10000, false) => self.ir.lanes2(ADD[size], a, b),
            (0b10000, true) => self.ir.lanes2(SUB[size], a, b),
            (0b10001, true) => self.ir.lanes2(EQ[size], a, b),
            (0b10001, false) => {
                let both = self.ir.lanes2(Lane::And, a, b);
                let zero = self.ir.constant(Type::V128, 0);
                let none = self.ir.lanes2(EQ[size], both, zero);
                self.not(none)
            }
            (0b10010, _) if size < 3 => {
                let product = self.multiply(a, b, size);
                let old = self.v(rd(word));
                let lanes = if unsigned { SUB } else { ADD };
                self.ir.lanes2(lanes[size], old, product)
            }
            (0b10011, false) if size < 3 => self.multiply(a, b, size),
            (0b10100 | 0b10101, _) if size < 3 => {
                let (even, odd) = self.unzip_halves(word)?;
                let lane =
                    if opcode == 0b10100 { max(unsigned, size) } else { min(unsigned, size) };
                self.ir.lanes2(lane, even, odd)
            }
            (0b10111, false) => {
                let (even, odd) = self.unzip_halves(word)?;
                self.ir.lanes2(ADD[size], even, odd)
            }
            _ => return None,
        };
        Some(value)
    }

    pub(super) fn greater(&mut self, a: Value, b: Value, size: usize, unsigned: bool) -> Value {
        if !unsigned {
            return self.ir.lanes2(GT[size], a, b);
        }
        if size < 3 {
            // a > b: the greater one is not b
            let high = self.ir.lanes2(MAX_U[size], a, b);
            let not_greater = self.ir.lanes2(EQ[size], high, b);
            return self.not(not_greater);
        }
        let sign = self.pattern(1 << 63);
        let (a, b) = (self.ir.lanes2(Lane::Xor, a, sign), self.ir.lanes2(Lane::Xor, b, sign));
        self.ir.lanes2(Lane::GtS64, a, b)
    }

    fn different(&mut self, word: u32) {
        let (opcode, unsigned) = (bits(word, 15, 12), bit(word, 29));
        let size = bits(word, 23, 22) as usize;
        if opcode == 0b1110 {
            return self.polynomial_long(word);
        }
        if size == 3 {
            return self.undefined(word);
        }
        let (a, b) = (self.v(rn(word)), self.v(rm(word)));
        let upper = bit(word, 30);
        let value = match opcode {
            0b0000..=0b0011 => {
                let x = match opcode & 1 {
                    0 => self.widen(a, size, unsigned, upper),
                    _ => a,
                };
                let y = self.widen(b, size, unsigned, upper);
                let lanes = if opcode & 2 == 0 { ADD } else { SUB };
                self.ir.lanes2(lanes[size + 1], x, y)
            }
            0b0101 | 0b0111 => {
                let distance = self.distance(a, b, size, unsigned);
                let wide = self.widen(distance, size, true, upper);
                if opcode == 0b0111 {
                    wide
                } else {
                    let old = self.v(rd(word));
                    self.ir.lanes2(ADD[size + 1], old, wide)
                }
            }
            0b1000 | 0b1010 | 0b1100 => {
                let x = self.widen(a, size, unsigned, upper);
                let y = self.widen(b, size, unsigned, upper);
                self.product_long(word, opcode, x, y, size)
            }
            _ => return self.integer_helper(word),
        };
        self.set_v(rd(word), value);
    }

    /// SMLAL (opcode 8), SMLSL (10), SMULL (12) and the unsigned ones, of widened operands.
    fn product_long(&mut self, word: u32, opcode: u32, x: Value, y: Value, size: usize) -> Value {
        let product = self.multiply_wide(x, y, size, bit(word, 29));
        let old = self.v(rd(word));
        match opcode {
            0b1000 => self.ir.lanes2(ADD[size + 1], old, product),
            0b1010 => self.ir.lanes2(SUB[size + 1], old, product),
            _ => product,
        }
    }

    fn across(&mut self, word: u32) {
        let (opcode, unsigned) = (bits(word, 16, 12), bit(word, 29));
        let size = bits(word, 23, 22) as usize;
        if opcode & 0b01100 == 0b01100 {
            return self.vector_helper(word); // FMAXV and the like
        }
        let full = bit(word, 30);
        let lane = match (opcode, unsigned, size) {
            (_, _, 3) => return self.undefined(word),
            (_, _, 2) if !full => return self.undefined(word),
            (0b01010, _, _) => max(unsigned, size),
            (0b11010, _, _) => min(unsigned, size),
            (0b11011, false, _) => ADD[size],
            _ => return self.integer_helper(word),
        };
        let mut value = self.v(rn(word));
        let mut bytes = if full { 8 } else { 4 };
        while bytes >= 1 << size {
            let other = self.ir.lanes1(Lane::ShrBytes, value, bytes);
            value = self.ir.lanes2(lane, value, other);
            bytes /= 2;
        }
        let result = self.ir.lane_get(Type::integer(1 << size), value, 0);
        self.set_f(rd(word), result);
    }

    /// The lane that an element form multiplies by, in all lanes; for sizes 1 and 2.
    fn element_operand(&mut self, word: u32, size: usize) -> Value {
        let (l, m, h) = (bits(word, 21, 21), bits(word, 20, 20), bits(word, 11, 11));
        let (register, index) = match size {
            1 => (bits(word, 19, 16), h << 2 | l << 1 | m),
            2 => (rm(word), h << 1 | l),
            _ => (rm(word), h),
        };
        let vector = self.v(register);
        let lane = self.ir.lane_get(Type::integer(1 << size), vector, index);
        self.ir.splat(Type::V128, lane)
    }

    fn element(&mut self, word: u32) {
        let (opcode, unsigned) = (bits(word, 15, 12), bit(word, 29));
        let size = bits(word, 23, 22) as usize;
        let fp = matches!((opcode, unsigned), (0b0001 | 0b0101, false) | (0b1001, _));
        if fp {
            let lane_size = if bit(word, 22) { 3 } else { 2 };
            if size < 2 || lane_size == 3 && (!bit(word, 30) || bit(word, 21)) {
                return self.vector_helper(word);
            }
            let b = self.element_operand(word, lane_size);
            return self.element_fp(word, b);
        }
        // FCMLA; FMLAL and its relatives
        let complex = unsigned && opcode & 0b1001 == 1;
        let widened = size == 2
            && matches!((opcode, unsigned), (0b0000 | 0b0100, false) | (0b1000 | 0b1100, true));
        if complex || widened {
            return self.vector_helper(word);
        }
        let a = self.v(rn(word));
        let value = match (opcode, unsigned, size) {
            (0b1000, false, 1 | 2) | (0b0000 | 0b0100, true, 1 | 2) => {
                let b = self.element_operand(word, size);
                let product = self.multiply(a, b, size);
                let old = self.v(rd(word));
                let value = match opcode {
                    0b0000 => self.ir.lanes2(ADD[size], old, product),
                    0b0100 => self.ir.lanes2(SUB[size], old, product),
                    _ => product,
                };
                return self.set_v_half(rd(word), value, bit(word, 30));
            }
            (0b0010 | 0b0110 | 0b1010, _, 1 | 2) => {
                let b = self.element_operand(word, size);
                let (x, y) = (
                    self.widen(a, size, unsigned, bit(word, 30)),
                    self.widen(b, size, unsigned, false),
                );
                let same = match opcode {
                    0b0010 => 0b1000,
                    0b0110 => 0b1010,
                    _ => 0b1100,
                };
                self.product_long(word, same, x, y, size)
            }
            (0b1110, _, 2) => {
                let b = self.element_operand(word, 2);
                return self.dot(word, a, b);
            }
            _ => return self.integer_helper(word),
        };
        self.set_v(rd(word), value);
    }

    fn extra(&mut self, word: u32) {
        if bits(word, 14, 11) == 0b0010 && bits(word, 23, 22) == 2 {
            let (a, b) = (self.v(rn(word)), self.v(rm(word)));
            return self.dot(word, a, b);
        }
        if bit(word, 14) {
            return self.vector_helper(word); // complex numbers
        }
        self.integer_helper(word);
    }

    /// Four bytes each: even and odd ones apart as 16-bit lanes.
    fn dot(&mut self, word: u32, a: Value, b: Value) {
        let unsigned = bit(word, 29);
        let mut split = |v: Value| {
            if unsigned {
                let mask = self.pattern(0x00ff_00ff_00ff_00ff);
                (self.ir.lanes2(Lane::And, v, mask), self.ir.lanes1(Lane::ShrU16, v, 8))
            } else {
                let low = self.ir.lanes1(Lane::Shl16, v, 8);
                (self.ir.lanes1(Lane::ShrS16, low, 8), self.ir.lanes1(Lane::ShrS16, v, 8))
            }
        };
        let ((even_a, odd_a), (even_b, odd_b)) = (split(a), split(b));
        let even = self.ir.lanes2(Lane::MulAdd16, even_a, even_b);
        let odd = self.ir.lanes2(Lane::MulAdd16, odd_a, odd_b);
        let sum = self.ir.lanes2(Lane::Add32, even, odd);
        let old = self.v(rd(word));
        let value = self.ir.lanes2(Lane::Add32, old, sum);
        self.set_v_half(rd(word), value, bit(word, 30));
    }

    fn scalar_same(&mut self, word: u32) {
        let (opcode, size) = (bits(word, 15, 11), bits(word, 23, 22) as usize);
        if opcode >= 0b11000 {
            return self.scalar_same_fp(word);
        }
        let lifted = matches!(opcode, 0b00110 | 0b00111 | 0b10000 | 0b10001) && size == 3;
        let (a, b) = (self.v(rn(word)), self.v(rm(word)));
        let value = if lifted { self.same_lanes(word, opcode, size, a, b) } else { None };
        match value {
            Some(value) => self.set_v_half(rd(word), value, false),
            None => self.integer_helper(word),
        }
    }

    fn scalar_pair(&mut self, word: u32) {
        if bits(word, 16, 12) == 0b11011 && !bit(word, 29) && bits(word, 23, 22) == 3 {
            let a = self.v(rn(word));
            let high = self.ir.lanes1(Lane::ShrBytes, a, 8);
            let sum = self.ir.lanes2(Lane::Add64, a, high);
            return self.set_v_half(rd(word), sum, false);
        }
        self.scalar_pair_fp(word);
    }
}
