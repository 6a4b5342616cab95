//! C4.1.96, "Scalar floating-point": arithmetic, comparisons, moves.
//!
//! Half precision is computed in single precision, which holds every sum, product, quotient and
//! root of halves with enough bits to round it once more without harm.

use super::helpers;
use super::lift::{Lift, Row, bit, ra, rd, rm, rn};
use crate::ir::{Cmp, Code, FlagKind, Lane, MinMaxRule, Round, Type, Value};
use crate::table::{Pattern, assert_disjoint, bits, pattern};

isa! {
    fmov_reg       "00011110 .. 1 000000 10000 ..... ....." => |l, w| l.fp_unary(w, Unary::Move);
    fabs           "00011110 .. 1 000001 10000 ..... ....." => |l, w| l.fp_unary(w, Unary::Sign(Code::FAbs));
    fneg           "00011110 .. 1 000010 10000 ..... ....." => |l, w| l.fp_unary(w, Unary::Sign(Code::FNeg));
    fsqrt          "00011110 .. 1 000011 10000 ..... ....." => |l, w| l.fp_unary(w, Unary::Root);
    fcvt           "00011110 .. 1 0001.. 10000 ..... ....." => |l, w| l.fp_convert(w);
    frintn         "00011110 .. 1 001000 10000 ..... ....." => |l, w| l.fp_unary(w, Unary::Round(Round::Nearest, false));
    frintp         "00011110 .. 1 001001 10000 ..... ....." => |l, w| l.fp_unary(w, Unary::Round(Round::Up, false));
    frintm         "00011110 .. 1 001010 10000 ..... ....." => |l, w| l.fp_unary(w, Unary::Round(Round::Down, false));
    frintz         "00011110 .. 1 001011 10000 ..... ....." => |l, w| l.fp_unary(w, Unary::Round(Round::Zero, false));
    frinta         "00011110 .. 1 001100 10000 ..... ....." => |l, w| l.fp_unary(w, Unary::Round(Round::Away, false));
    frintx         "00011110 .. 1 001110 10000 ..... ....." => |l, w| l.fp_unary(w, Unary::Round(Round::Dynamic, true));
    frinti         "00011110 .. 1 001111 10000 ..... ....." => |l, w| l.fp_unary(w, Unary::Round(Round::Dynamic, false));
    fcmp           "00011110 .. 1 ..... 00 1000 ..... ..000" => |l, w| l.fp_compare(w);
    fmov_imm       "00011110 .. 1 ........ 100 00000 ....." => |l, w| l.fp_immediate(w);
    fccmp          "00011110 .. 1 ..... .... 01 ..... . ...." => |l, w| l.fp_compare_if(w);
    fmul           "00011110 .. 1 ..... 0000 10 ..... ....." => |l, w| l.fp_binary(w, Code::FMul, false);
    fdiv           "00011110 .. 1 ..... 0001 10 ..... ....." => |l, w| l.fp_binary(w, Code::FDiv, false);
    fadd           "00011110 .. 1 ..... 0010 10 ..... ....." => |l, w| l.fp_binary(w, Code::FAdd, false);
    fsub           "00011110 .. 1 ..... 0011 10 ..... ....." => |l, w| l.fp_binary(w, Code::FSub, false);
    fmax           "00011110 .. 1 ..... 0100 10 ..... ....." => |l, w| l.fp_min_max(w, Code::FMax, MinMaxRule::Nan);
    fmin           "00011110 .. 1 ..... 0101 10 ..... ....." => |l, w| l.fp_min_max(w, Code::FMin, MinMaxRule::Nan);
    fmaxnm         "00011110 .. 1 ..... 0110 10 ..... ....." => |l, w| l.fp_min_max(w, Code::FMax, MinMaxRule::ArmNumber);
    fminnm         "00011110 .. 1 ..... 0111 10 ..... ....." => |l, w| l.fp_min_max(w, Code::FMin, MinMaxRule::ArmNumber);
    fnmul          "00011110 .. 1 ..... 1000 10 ..... ....." => |l, w| l.fp_binary(w, Code::FMul, true);
    fcsel          "00011110 .. 1 ..... .... 11 ..... ....." => |l, w| l.fp_select(w);
    fmadd          "00011111 .. 0 ..... 0 ..... ..... ....." => |l, w| l.fp_fused(w, false, false);
    fmsub          "00011111 .. 0 ..... 1 ..... ..... ....." => |l, w| l.fp_fused(w, true, false);
    fnmadd         "00011111 .. 1 ..... 0 ..... ..... ....." => |l, w| l.fp_fused(w, true, true);
    fnmsub         "00011111 .. 1 ..... 1 ..... ..... ....." => |l, w| l.fp_fused(w, false, true);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unary {
    Move,
    Sign(Code),
    Root,
    Round(Round, bool),
}

/// An FP format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// 16 bits.
    Half,
    /// 32 bits.
    Single,
    /// 64 bits.
    Double,
}

impl Format {
    /// From the `ptype` field.
    pub fn new(ptype: u32) -> Option<Self> {
        match ptype {
            0 => Some(Self::Single),
            1 => Some(Self::Double),
            3 => Some(Self::Half),
            _ => None,
        }
    }

    /// The type that is computed in.
    pub fn ty(self) -> Type {
        if self == Self::Double { Type::F64 } else { Type::F32 }
    }
}

/// `VFPExpandImm` of the manual, as a double.
pub fn expand_immediate(imm: u32) -> f64 {
    let exponent = (imm >> 4 & 7) as i32;
    let exponent = if exponent & 4 != 0 { exponent - 7 } else { exponent + 1 };
    let magnitude = f64::from(16 + (imm & 15)) / 16.0 * 2f64.powi(exponent);
    if imm & 0x80 != 0 { -magnitude } else { magnitude }
}

/// The bits of a number that is exact in half precision.
fn half_bits(value: f64) -> u64 {
    let bits = value.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i64 - 1023 + 15;
    (bits >> 63) << 15 | (exponent as u64) << 10 | bits >> 42 & 0x3ff
}

impl Lift<'_> {
    fn format(&mut self, word: u32) -> Option<Format> {
        let format = Format::new(bits(word, 23, 22));
        if format.is_none() {
            self.undefined(word);
        }
        format
    }

    /// V`n` as a number to compute with.
    pub(super) fn number(&mut self, n: u32, format: Format) -> Value {
        if format != Format::Half {
            return self.f(n, format.ty());
        }
        let vector = self.v(n);
        let half = self.ir.lane_get(Type::I16, vector, 0);
        self.half_number(half, Type::F32)
    }

    /// The same, but a signalling NaN is still one: converting a half makes it quiet.
    fn whole_number(&mut self, n: u32, format: Format) -> Value {
        let number = self.number(n, format);
        if format != Format::Half {
            return number;
        }
        let vector = self.v(n);
        let half = self.ir.lane_get(Type::I16, vector, 0);
        let half = self.ir.zext(Type::I32, half);
        let magnitude = self.ir.and_imm(half, 0x7fff);
        let (least, count) =
            (self.ir.constant(Type::I32, 0x7c01), self.ir.constant(Type::I32, 0x1ff));
        let above = self.ir.sub(magnitude, least);
        let signalling = self.ir.compare(Cmp::LtU, above, count);
        let signalling = self.ir.zext(Type::I32, signalling);
        let quiet = self.ir.shl_imm(signalling, 22);
        let number = self.ir.bits(Type::I32, number);
        let number = self.ir.alu(Code::AndNot, number, quiet);
        self.ir.bits(Type::F32, number)
    }

    /// A half as another format.
    fn half_number(&mut self, half: Value, ty: Type) -> Value {
        let rule = self.rule();
        if self.host.half {
            return self.ir.fconvert(Code::FFromHalf, ty, half, rule);
        }
        let half = self.ir.zext(Type::I64, half);
        let single = self.half_helper(helpers::FROM_HALF, half);
        let single = self.ir.trunc(Type::I32, single);
        let single = self.ir.bits(Type::F32, single);
        if ty == Type::F32 { single } else { self.ir.fconvert(Code::FConvert, ty, single, rule) }
    }

    /// A single as a half.
    fn half_of(&mut self, value: Value) -> Value {
        if self.host.half {
            let rule = self.rule();
            return self.ir.fconvert(Code::FToHalf, Type::I16, value, rule);
        }
        let single = self.ir.bits(Type::I32, value);
        let single = self.ir.zext(Type::I64, single);
        let half = self.half_helper(helpers::TO_HALF, single);
        self.ir.trunc(Type::I16, half)
    }

    /// Converts in Rust and notes exceptions.
    fn half_helper(&mut self, helper: usize, value: Value) -> Value {
        let result = self.ir.helper(helper, value, Value::NONE, Value::NONE);
        let sticky = self.ir.shr_imm(result, 32);
        let sticky = self.ir.trunc(Type::I32, sticky);
        let mxcsr = self.ir.fp_control_get();
        let mxcsr = self.ir.alu(Code::Or, mxcsr, sticky);
        self.ir.fp_control_put(mxcsr);
        result
    }

    /// Writes V`n`.
    pub(super) fn set_number(&mut self, n: u32, format: Format, value: Value) {
        if format != Format::Half {
            return self.set_f(n, value);
        }
        let half = self.half_of(value);
        self.set_f(n, half);
    }

    fn fp_unary(&mut self, word: u32, operation: Unary) {
        let Some(format) = self.format(word) else { return };
        if format == Format::Half && matches!(operation, Unary::Move | Unary::Sign(_)) {
            return self.half_sign(word, operation);
        }
        let a = self.number(rn(word), format);
        let value = match operation {
            Unary::Move => a,
            Unary::Sign(code) => self.ir.unary(code, a),
            Unary::Root => {
                let rule = self.rule();
                self.ir.fsqrt(a, rule)
            }
            Unary::Round(round, inexact) => {
                let rule = self.rule().rounding(round);
                self.ir.fround(a, rule, inexact)
            }
        };
        self.set_number(rd(word), format, value);
    }

    /// Signs are bits, and signalling NaNs stay what they are.
    fn half_sign(&mut self, word: u32, operation: Unary) {
        let vector = self.v(rn(word));
        let half = self.ir.lane_get(Type::I16, vector, 0);
        let half = self.ir.zext(Type::I32, half);
        let half = match operation {
            Unary::Sign(Code::FAbs) => self.ir.and_imm(half, 0x7fff),
            Unary::Sign(_) => {
                let sign = self.ir.imm32(0x8000);
                self.ir.alu(Code::Xor, half, sign)
            }
            _ => half,
        };
        self.set_f(rd(word), half);
    }

    fn fp_convert(&mut self, word: u32) {
        let Some(from) = self.format(word) else { return };
        let Some(to) = Format::new(bits(word, 16, 15)).filter(|&to| to != from) else {
            return self.undefined(word);
        };
        let rule = self.rule();
        let value = match (from, to) {
            (Format::Half, _) => {
                let vector = self.v(rn(word));
                let half = self.ir.lane_get(Type::I16, vector, 0);
                self.half_number(half, to.ty())
            }
            // By way of single precision it would be rounded twice.
            (Format::Double, Format::Half) => return self.vector_helper(word),
            (_, Format::Half) => self.number(rn(word), from),
            _ => {
                let a = self.number(rn(word), from);
                self.ir.fconvert(Code::FConvert, to.ty(), a, rule)
            }
        };
        self.set_number(rd(word), to, value);
    }

    fn compare_operands(&mut self, word: u32, zero: bool) -> Option<(Value, Value, Type)> {
        let format = self.format(word)?;
        let ty = format.ty();
        let a = self.number(rn(word), format);
        let b = if zero {
            let zero = self.ir.constant(Type::integer(ty.bytes()), 0);
            self.ir.bits(ty, zero)
        } else {
            self.number(rm(word), format)
        };
        Some((a, b, ty))
    }

    fn fp_flags(&mut self, signal: bool, a: Value, b: Value, ty: Type) -> Value {
        let kind = if signal { FlagKind::FpCompareArmSignal } else { FlagKind::FpCompareArm };
        self.ir.flags(kind, ty, a, b, Value::NONE)
    }

    fn fp_compare(&mut self, word: u32) {
        let Some((a, b, ty)) = self.compare_operands(word, bit(word, 3)) else { return };
        let flags = self.fp_flags(bit(word, 4), a, b, ty);
        self.ir.put(super::state::FLAGS, flags);
    }

    fn fp_compare_if(&mut self, word: u32) {
        let condition = self.condition(bits(word, 15, 12));
        let Some((mut a, mut b, ty)) = self.compare_operands(word, false) else { return };
        if let (Some(condition), 3) = (condition, bits(word, 23, 22)) {
            (a, b) = (self.half_if(condition, rn(word)), self.half_if(condition, rm(word)));
        } else if let Some(condition) = condition {
            // A comparison that is not made raises nothing: it is one of zeros.
            let zero = self.ir.constant(Type::integer(ty.bytes()), 0);
            let zero = self.ir.bits(ty, zero);
            a = self.ir.select(condition, a, zero);
            b = self.ir.select(condition, b, zero);
        }
        let flags = self.fp_flags(bit(word, 4), a, b, ty);
        self.flags_if(condition, flags, word);
    }

    /// The half in V`n`, or zero: converting a signalling NaN would raise an exception already.
    fn half_if(&mut self, condition: Value, n: u32) -> Value {
        let vector = self.v(n);
        let half = self.ir.lane_get(Type::I16, vector, 0);
        let half = self.ir.zext(Type::I32, half);
        let zero = self.ir.imm32(0);
        let half = self.ir.select(condition, half, zero);
        let half = self.ir.trunc(Type::I16, half);
        self.half_number(half, Type::F32)
    }

    fn fp_immediate(&mut self, word: u32) {
        let Some(format) = self.format(word) else { return };
        let value = expand_immediate(bits(word, 20, 13));
        let bits = match format {
            Format::Half => half_bits(value),
            Format::Single => u64::from((value as f32).to_bits()),
            Format::Double => value.to_bits(),
        };
        let vector = self.ir.constant(Type::V128, bits);
        self.set_v(rd(word), vector);
    }

    fn fp_binary(&mut self, word: u32, code: Code, negate: bool) {
        let Some(format) = self.format(word) else { return };
        let (a, b) = (self.number(rn(word), format), self.number(rm(word), format));
        let rule = self.rule();
        let mut value = self.ir.fp(code, a, b, rule);
        if negate && format == Format::Half {
            // Rounded to half precision first: rounding up and down are not the same.
            let half = self.half_of(value);
            let half = self.ir.zext(Type::I32, half);
            let sign = self.ir.imm32(0x8000);
            let half = self.ir.alu(Code::Xor, half, sign);
            return self.set_f(rd(word), half);
        }
        if negate {
            value = self.ir.unary(Code::FNeg, value);
        }
        self.set_number(rd(word), format, value);
    }

    fn fp_min_max(&mut self, word: u32, code: Code, rule: MinMaxRule) {
        let Some(format) = self.format(word) else { return };
        let plain = self.nan_rule() == crate::ir::NanRule::Arm && !self.flushes();
        if !plain || rule == MinMaxRule::ArmNumber {
            return self.fp_min_max_lanes(word, code, rule, format);
        }
        let (a, b) = (self.whole_number(rn(word), format), self.whole_number(rm(word), format));
        let value = self.ir.fminmax(code, a, b, rule);
        self.set_number(rd(word), format, value);
    }

    fn fp_min_max_lanes(&mut self, word: u32, code: Code, rule: MinMaxRule, format: Format) {
        let (a, b) = (self.whole_number(rn(word), format), self.whole_number(rm(word), format));
        let (a, b) = (self.ir.zero_upper(a), self.ir.zero_upper(b));
        let lane = match (code, format.ty()) {
            (Code::FMin, Type::F32) => Lane::FMin32,
            (Code::FMin, _) => Lane::FMin64,
            (_, Type::F32) => Lane::FMax32,
            _ => Lane::FMax64,
        };
        let value = self.packed_min_max(lane, a, b, rule == MinMaxRule::ArmNumber);
        let value = self.ir.scalar(format.ty(), value);
        self.set_number(rd(word), format, value);
    }

    fn fp_select(&mut self, word: u32) {
        let Some(format) = self.format(word) else { return };
        let condition = self.condition(bits(word, 15, 12));
        let bytes = match format {
            Format::Half => 2,
            other => other.ty().bytes(),
        };
        let (a, b) = (self.v(rn(word)), self.v(rm(word)));
        let ty = Type::integer(bytes);
        let (a, b) = (self.ir.lane_get(ty, a, 0), self.ir.lane_get(ty, b, 0));
        let value = match condition {
            Some(condition) => self.ir.select(condition, a, b),
            None => a,
        };
        self.set_f(rd(word), value);
    }

    fn fp_fused(&mut self, word: u32, negate_product: bool, negate_addend: bool) {
        let Some(format) = self.format(word) else { return };
        if format == Format::Half || !self.host.fused {
            return self.vector_helper(word);
        }
        let mut a = self.number(rn(word), format);
        let b = self.number(rm(word), format);
        let mut c = self.number(ra(word), format);
        if negate_product {
            a = self.ir.unary(Code::FNeg, a);
        }
        if negate_addend {
            c = self.ir.unary(Code::FNeg, c);
        }
        let rule = self.rule();
        let value = self.ir.fmul_add(a, b, c, rule);
        self.set_f(rd(word), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn immediates_expand() {
        assert!((expand_immediate(0x70) - 1.0).abs() < 1e-9);
        assert!((expand_immediate(0x00) - 2.0).abs() < 1e-9);
        assert!((expand_immediate(0xff) + 1.9375).abs() < 1e-9);
        assert_eq!(half_bits(1.0), 0x3c00);
        assert_eq!(half_bits(-2.0), 0xc000);
    }
}
