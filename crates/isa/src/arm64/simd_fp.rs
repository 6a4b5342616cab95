//! C4.1.96: floating-point vectors of singles and doubles.

use super::fp::Format;
use super::lift::{Lift, Row, bit, rd, rm, rn};
use crate::ir::{Code, Lane, NanRule, PackedRule, Round, Saturate, Type, Value};
use crate::table::bits;

/// The rows stand with the integer classes, which share their encodings.
pub const ROWS: &[Row] = &[];

/// A lane operation for singles and one for doubles.
type Pair = [Lane; 2];

const ADD: Pair = [Lane::FAdd32, Lane::FAdd64];
const SUB: Pair = [Lane::FSub32, Lane::FSub64];
const MUL: Pair = [Lane::FMul32, Lane::FMul64];
const DIV: Pair = [Lane::FDiv32, Lane::FDiv64];
const MIN: Pair = [Lane::FMin32, Lane::FMin64];
const MAX: Pair = [Lane::FMax32, Lane::FMax64];
const FUSED: Pair = [Lane::FMulAdd32, Lane::FMulAdd64];
const COMPARE: Pair = [Lane::FCompare32, Lane::FCompare64];
const ROUND: Pair = [Lane::FRound32, Lane::FRound64];
const SQRT: Pair = [Lane::FSqrt32, Lane::FSqrt64];

/// `cmpps` predicates: equal (quiet), less and less or equal (signalling).
const EQUAL: u8 = 0;
const LESS: u8 = 1;
const LESS_EQUAL: u8 = 2;

impl Lift<'_> {
    fn packed_rule(&self) -> PackedRule {
        match self.nan_rule() {
            NanRule::Default => PackedRule::Default,
            _ => PackedRule::Arm,
        }
    }

    fn packed2(&mut self, lane: Lane, a: Value, b: Value) -> Value {
        let rule = self.packed_rule();
        self.ir.packed(lane, rule, [a, b, Value::NONE], 0)
    }

    /// FMIN, FMAX; with `number` FMINNM, FMAXNM: a quiet NaN beside a number gives way to it, which
    /// is made so by an infinity in its place.
    pub(super) fn packed_min_max(
        &mut self,
        lane: Lane,
        mut a: Value,
        mut b: Value,
        number: bool,
    ) -> Value {
        let rule = match self.nan_rule() {
            NanRule::Default => PackedRule::MinMaxDefault,
            _ => PackedRule::MinMax,
        };
        let double = usize::from(matches!(lane, Lane::FMin64 | Lane::FMax64));
        if self.flushes() {
            (a, b) = (self.flushed(a, double), self.flushed(b, double));
        }
        if number {
            let (x, y) = (self.without_quiet(a, b, double), self.without_quiet(b, a, double));
            (a, b) = (x, y);
        }
        self.ir.packed(lane, rule, [a, b, Value::NONE], 0)
    }

    /// `a` with zeros of the same sign in the lanes that are less than any normal number.
    fn flushed(&mut self, a: Value, double: usize) -> Value {
        let (equal, exponent, sign) = match double {
            0 => (Lane::Eq32, 0x7f80_0000_7f80_0000, 0x8000_0000_8000_0000),
            _ => (Lane::Eq64, 0x7ff0_0000_0000_0000, 1 << 63),
        };
        let (exponent, sign, zero) = (self.pattern(exponent), self.pattern(sign), self.pattern(0));
        let exponent = self.ir.lanes2(Lane::And, a, exponent);
        let small = self.ir.lanes2(equal, exponent, zero);
        let sign = self.ir.lanes2(Lane::And, a, sign);
        self.choose_bits(small, sign, a)
    }

    /// `a` with `b` in the lanes where `a` is a quiet NaN and `b` is none.
    fn without_quiet(&mut self, a: Value, b: Value, double: usize) -> Value {
        // Quiet NaNs are, without their sign, at least the canonical one. Integer comparison.
        let (greater, magnitude, limit) = match double {
            0 => (Lane::GtS32, 0x7fff_ffff_7fff_ffff, 0x7fbf_ffff_7fbf_ffff),
            _ => (Lane::GtS64, i64::MAX as u64, 0x7ff7_ffff_ffff_ffff),
        };
        let infinity = if double == 0 { 0x7f80_0000_7f80_0000 } else { 0x7ff0_0000_0000_0000 };
        let (mask, limit) = (self.pattern(magnitude), self.pattern(limit));
        let infinity = self.pattern(infinity);
        let (x, y) = (self.ir.lanes2(Lane::And, a, mask), self.ir.lanes2(Lane::And, b, mask));
        let quiet = self.ir.lanes2(greater, x, limit);
        let nan = self.ir.lanes2(greater, y, infinity);
        let replace = self.and_not(quiet, nan);
        self.choose_bits(replace, b, a)
    }

    /// The destination as an operand, as `fp_operands` gives the others.
    fn old_operand(&mut self, word: u32) -> Value {
        let old = self.v(rd(word));
        if bit(word, 30) { old } else { self.low_half(old) }
    }

    fn fused_lanes(&mut self, a: Value, b: Value, c: Value, double: usize, minus: bool) -> Value {
        let a = if minus { self.flip_sign(a, double) } else { a };
        let rule = self.packed_rule();
        self.ir.packed(FUSED[double], rule, [a, b, c], 0)
    }

    fn flip_sign(&mut self, a: Value, double: usize) -> Value {
        let sign = self.pattern(if double == 0 { 0x8000_0000_8000_0000 } else { 1 << 63 });
        self.ir.lanes2(Lane::Xor, a, sign)
    }

    fn clear_sign(&mut self, a: Value, double: usize) -> Value {
        let mask = if double == 0 { 0x7fff_ffff_7fff_ffff } else { i64::MAX as u64 };
        let mask = self.pattern(mask);
        self.ir.lanes2(Lane::And, a, mask)
    }

    fn compare(&mut self, predicate: u8, a: Value, b: Value, double: usize) -> Value {
        self.ir.lanes2_imm(COMPARE[double], a, b, predicate)
    }

    /// Operands of a vector operation; the unused half of a short one is zero, so that nothing in
    /// it raises an exception.
    fn fp_operands(&mut self, word: u32) -> (Value, Value) {
        let (a, b) = (self.v(rn(word)), self.v(rm(word)));
        if bit(word, 30) { (a, b) } else { (self.low_half(a), self.low_half(b)) }
    }

    pub(super) fn same_fp(&mut self, word: u32) {
        let (full, double) = (bit(word, 30), usize::from(bit(word, 22)));
        if double == 1 && !full {
            return self.undefined(word);
        }
        let pairwise = bit(word, 29)
            && matches!(
                (bits(word, 15, 11), bit(word, 23)),
                (0b11010, false) | (0b11000 | 0b11110, _)
            );
        let (a, b) = if pairwise {
            // unzip_halves looks at the size field: singles are 2, doubles 3
            let sized = word & !(3 << 22) | (2 + double as u32) << 22;
            match self.unzip_halves(sized) {
                Some((a, b)) if full => (a, b),
                Some((a, b)) => (self.low_half(a), self.low_half(b)),
                None => return self.undefined(word),
            }
        } else {
            self.fp_operands(word)
        };
        match self.same_fp_lanes(word, a, b, double) {
            Some(value) => self.set_v_half(rd(word), value, full),
            None => self.vector_helper(word),
        }
    }

    fn same_fp_lanes(&mut self, word: u32, a: Value, b: Value, double: usize) -> Option<Value> {
        let minus = bit(word, 23);
        let value = match (bit(word, 29), minus, bits(word, 15, 11)) {
            (_, false, 0b11000) => self.packed_min_max(MAX[double], a, b, true),
            (_, true, 0b11000) => self.packed_min_max(MIN[double], a, b, true),
            (false, _, 0b11001) if self.host.fused => {
                let old = self.old_operand(word);
                self.fused_lanes(a, b, old, double, minus)
            }
            (false, false, 0b11010) => self.packed2(ADD[double], a, b),
            (false, true, 0b11010) => self.packed2(SUB[double], a, b),
            (true, false, 0b11010) => self.packed2(ADD[double], a, b),
            (true, true, 0b11010) => {
                let difference = self.packed2(SUB[double], a, b);
                self.clear_sign(difference, double)
            }
            (true, false, 0b11011) => self.packed2(MUL[double], a, b),
            (true, false, 0b11111) => {
                let b = if bit(word, 30) {
                    b
                } else {
                    // nothing divided by nothing would be invalid
                    let ones = self.pattern(0x3f80_0000_3f80_0000);
                    self.join(b, ones)
                };
                self.packed2(DIV[double], a, b)
            }
            (_, false, 0b11110) => self.packed_min_max(MAX[double], a, b, false),
            (_, true, 0b11110) => self.packed_min_max(MIN[double], a, b, false),
            (false, false, 0b11100) => self.compare(EQUAL, a, b, double),
            (true, false, 0b11100) => self.compare(LESS_EQUAL, b, a, double),
            (true, true, 0b11100) => self.compare(LESS, b, a, double),
            (true, _, 0b11101) => {
                let (a, b) = (self.clear_sign(a, double), self.clear_sign(b, double));
                self.compare(if minus { LESS } else { LESS_EQUAL }, b, a, double)
            }
            _ => return None,
        };
        Some(value)
    }

    pub(super) fn element_fp(&mut self, word: u32, b: Value) {
        let (full, double) = (bit(word, 30), usize::from(bit(word, 22)));
        let a = self.v(rn(word));
        let (a, b) = if full { (a, b) } else { (self.low_half(a), self.low_half(b)) };
        let value = match (bits(word, 15, 12), bit(word, 29)) {
            (0b1001, false) => self.packed2(MUL[double], a, b),
            (opcode @ (0b0001 | 0b0101), false) if self.host.fused => {
                let old = self.old_operand(word);
                self.fused_lanes(a, b, old, double, opcode == 0b0101)
            }
            _ => return self.vector_helper(word),
        };
        self.set_v_half(rd(word), value, full);
    }

    pub(super) fn scalar_same_fp(&mut self, word: u32) {
        let double = usize::from(bit(word, 22));
        let ty = if double == 1 { Type::F64 } else { Type::F32 };
        let compares = matches!(bits(word, 15, 11), 0b11100 | 0b11101)
            || bits(word, 15, 11) == 0b11010 && bit(word, 29) && bit(word, 23);
        if !compares {
            return self.vector_helper(word);
        }
        let (a, b) = (self.f(rn(word), ty), self.f(rm(word), ty));
        let (a, b) = (self.ir.zero_upper(a), self.ir.zero_upper(b));
        match self.same_fp_lanes(word, a, b, double) {
            Some(value) => {
                let value = self.ir.scalar(ty, value);
                self.set_f(rd(word), value);
            }
            None => self.vector_helper(word),
        }
    }

    /// FADDP, FMAXP, ... of a register's two lanes.
    pub(super) fn scalar_pair_fp(&mut self, word: u32) {
        let double = usize::from(bit(word, 22));
        if !bit(word, 29) {
            return self.vector_helper(word); // halves
        }
        let ty = if double == 1 { Type::F64 } else { Type::F32 };
        let vector = self.v(rn(word));
        let (a, b) = (self.f_lane(vector, ty, 0), self.f_lane(vector, ty, 1));
        let value = match (bits(word, 16, 12), bit(word, 23)) {
            (0b01101, false) => {
                let rule = self.rule();
                self.ir.fp(Code::FAdd, a, b, rule)
            }
            (opcode @ (0b01100 | 0b01111), minimum) => {
                let (a, b) = (self.ir.zero_upper(a), self.ir.zero_upper(b));
                let lane = if minimum { MIN[double] } else { MAX[double] };
                let value = self.packed_min_max(lane, a, b, opcode == 0b01100);
                self.ir.scalar(ty, value)
            }
            _ => return self.undefined(word),
        };
        self.set_f(rd(word), value);
    }

    pub(super) fn two_fp(&mut self, word: u32) {
        let (full, double) = (bit(word, 30), usize::from(bit(word, 22)));
        let opcode = bits(word, 16, 12);
        if matches!(opcode, 0b10110 | 0b10111) {
            return self.change_format(word, opcode);
        }
        if double == 1 && !full {
            return self.undefined(word);
        }
        let a = self.v(rn(word));
        let a = if full { a } else { self.low_half(a) };
        match self.two_fp_lanes(word, a, double) {
            Some(value) => self.set_v_half(rd(word), value, full),
            None => self.vector_helper(word),
        }
    }

    fn two_fp_lanes(&mut self, word: u32, a: Value, double: usize) -> Option<Value> {
        let zero = self.ir.constant(Type::V128, 0);
        let rule = self.packed_rule();
        let none = Value::NONE;
        let round = |l: &mut Self, imm: u8| l.ir.packed(ROUND[double], rule, [a, none, none], imm);
        // imm of roundps: mode, 4 = as MXCSR says, 8 = without inexact
        let value = match (bit(word, 29), bit(word, 23), bits(word, 16, 12)) {
            (false, false, 0b11000) => round(self, 8),
            (false, false, 0b11001) => round(self, 8 | 1),
            (true, false, 0b11001) => round(self, 4),
            (false, true, 0b11000) => round(self, 8 | 2),
            (false, true, 0b11001) => round(self, 8 | 3),
            (true, true, 0b11001) => round(self, 8 | 4),
            (false, true, 0b01111) => self.clear_sign(a, double),
            (true, true, 0b01111) => self.flip_sign(a, double),
            (true, true, 0b11111) => self.ir.packed(SQRT[double], rule, [a, none, none], 0),
            (false, true, 0b01100) => self.compare(LESS, zero, a, double),
            (true, true, 0b01100) => self.compare(LESS_EQUAL, zero, a, double),
            (false, true, 0b01101) => self.compare(EQUAL, a, zero, double),
            (true, true, 0b01101) => self.compare(LESS_EQUAL, a, zero, double),
            (false, true, 0b01110) => self.compare(LESS, a, zero, double),
            (false, false, 0b11101) if double == 0 => self.ir.lanes1(Lane::FFrom32, a, 0),
            (false, true, 0b11011) if double == 0 => self.signed_words(a),
            (_, false, 0b11101) => self.each_from(a, double, bit(word, 29)),
            (unsigned, high, opcode @ (0b11010..=0b11100)) => {
                let round = match (opcode, high) {
                    (0b11010, false) => Round::Nearest,
                    (0b11010, true) => Round::Up,
                    (0b11011, false) => Round::Down,
                    (0b11011, true) => Round::Zero,
                    (_, false) => Round::Away,
                    _ => return None,
                };
                self.each_to(a, double, unsigned, round)
            }
            (true, false, 0b11000) => self.each_round(a, double),
            _ => return None,
        };
        Some(value)
    }

    /// FCVTZS to 32 bits: the host gives the smallest number for what does not fit.
    fn signed_words(&mut self, a: Value) -> Value {
        let converted = self.ir.lanes1(Lane::FToZero32, a, 0);
        let limit = self.pattern(0x4f00_0000_4f00_0000); // 2^31
        let too_large = self.compare(LESS_EQUAL, limit, a, 0);
        let saturated = self.ir.lanes2(Lane::Xor, converted, too_large);
        let number = self.ir.lanes2_imm(Lane::FCompare32, a, a, 7); // ordered
        self.ir.lanes2(Lane::And, saturated, number)
    }

    fn lane_types(double: usize) -> (Type, Type, u32) {
        if double == 1 { (Type::F64, Type::I64, 2) } else { (Type::F32, Type::I32, 4) }
    }

    fn each_from(&mut self, a: Value, double: usize, unsigned: bool) -> Value {
        let (ty, int, lanes) = Self::lane_types(double);
        let rule = self.rule();
        let code = if unsigned { Code::FFromU } else { Code::FFromS };
        let mut value = self.ir.constant(Type::V128, 0);
        for lane in 0..lanes {
            let number = self.ir.lane_get(int, a, lane);
            let number = self.ir.fconvert(code, ty, number, rule);
            let number = self.ir.bits(int, number);
            value = self.ir.lane_put(value, number, lane);
        }
        value
    }

    fn each_to(&mut self, a: Value, double: usize, unsigned: bool, round: Round) -> Value {
        let (ty, int, lanes) = Self::lane_types(double);
        let rule = self.rule().rounding(round);
        let code = if unsigned { Code::FToU } else { Code::FToS };
        let mut value = self.ir.constant(Type::V128, 0);
        for lane in 0..lanes {
            let number = self.f_lane(a, ty, lane);
            let number = self.ir.fto_int(code, int, number, rule, Saturate::NanZero);
            value = self.ir.lane_put(value, number, lane);
        }
        value
    }

    /// FRINTA.
    fn each_round(&mut self, a: Value, double: usize) -> Value {
        let (ty, int, lanes) = Self::lane_types(double);
        let rule = self.rule().rounding(Round::Away);
        let mut value = self.ir.constant(Type::V128, 0);
        for lane in 0..lanes {
            let number = self.f_lane(a, ty, lane);
            let number = self.ir.fround(number, rule, false);
            let number = self.ir.bits(int, number);
            value = self.ir.lane_put(value, number, lane);
        }
        value
    }

    /// FCVTN, FCVTL between singles and doubles or halves and singles.
    fn change_format(&mut self, word: u32, opcode: u32) {
        let (double, upper) = (bit(word, 22), bit(word, 30));
        let soft = !double && !self.host.half;
        if bit(word, 29) || bit(word, 23) || soft || self.nan_rule() == NanRule::Default {
            return self.vector_helper(word);
        }
        let a = self.v(rn(word));
        if opcode == 0b10111 {
            let low = if upper { self.ir.lanes1(Lane::ShrBytes, a, 8) } else { a };
            let low = self.low_half(low);
            let lane = if double { Lane::F32To64 } else { Lane::HalfToF32 };
            let value = self.ir.lanes1(lane, low, 0);
            return self.set_v(rd(word), value);
        }
        if double {
            let narrow = self.ir.lanes1(Lane::F64ToF32, a, 0);
            return self.set_narrow(word, narrow);
        }
        let mut value = self.ir.constant(Type::V128, 0);
        let rule = self.rule();
        for lane in 0..4 {
            let single = self.f_lane(a, Type::F32, lane);
            let half = self.ir.fconvert(Code::FToHalf, Type::I16, single, rule);
            value = self.ir.lane_put(value, half, lane);
        }
        self.set_narrow(word, value);
    }

    pub(super) fn scalar_two_fp(&mut self, word: u32) {
        let double = usize::from(bit(word, 22));
        let (ty, int, _) = Self::lane_types(double);
        let format = if double == 1 { Format::Double } else { Format::Single };
        let (unsigned, high) = (bit(word, 29), bit(word, 23));
        let round = match (high, bits(word, 16, 12)) {
            (false, 0b11010) => Round::Nearest,
            (false, 0b11011) => Round::Down,
            (false, 0b11100) => Round::Away,
            (true, 0b11010) => Round::Up,
            (true, 0b11011) => Round::Zero,
            (false, 0b11101) => {
                let vector = self.v(rn(word));
                let number = self.ir.lane_get(int, vector, 0);
                let code = if unsigned { Code::FFromU } else { Code::FFromS };
                let rule = self.rule();
                let value = self.ir.fconvert(code, ty, number, rule);
                return self.set_number(rd(word), format, value);
            }
            (true, 0b01100..=0b01110) => {
                let a = self.f(rn(word), ty);
                let a = self.ir.zero_upper(a);
                let Some(value) = self.two_fp_lanes(word, a, double) else {
                    return self.undefined(word);
                };
                let value = self.ir.scalar(ty, value);
                return self.set_f(rd(word), value);
            }
            _ => return self.vector_helper(word),
        };
        let a = self.number(rn(word), format);
        let code = if unsigned { Code::FToU } else { Code::FToS };
        let rule = self.rule().rounding(round);
        let value = self.ir.fto_int(code, int, a, rule, Saturate::NanZero);
        self.set_f(rd(word), value);
    }
}
