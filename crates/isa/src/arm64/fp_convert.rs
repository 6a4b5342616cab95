//! C4.1.96: between FP and integer or fixed-point numbers in general registers.

use super::fp::Format;
use super::lift::{Lift, Row, bit, rd, rn, width};
use super::state;
use crate::ir::{Code, Round, Saturate, Type};
use crate::table::{Pattern, assert_disjoint, bits, pattern};

isa! {
    scvtf_fixed    ". 0011110 .. 0 00 010 ...... ..... ....." => |l, w| l.fixed_to_fp(w, Code::FFromS);
    ucvtf_fixed    ". 0011110 .. 0 00 011 ...... ..... ....." => |l, w| l.fixed_to_fp(w, Code::FFromU);
    fcvtzs_fixed   ". 0011110 .. 0 11 000 ...... ..... ....." => |l, w| l.fp_to_fixed(w, Code::FToS);
    fcvtzu_fixed   ". 0011110 .. 0 11 001 ...... ..... ....." => |l, w| l.fp_to_fixed(w, Code::FToU);
    fcvtns         ". 0011110 .. 1 00 000 000000 ..... ....." => |l, w| l.fp_to_integer(w, Code::FToS, Round::Nearest);
    fcvtnu         ". 0011110 .. 1 00 001 000000 ..... ....." => |l, w| l.fp_to_integer(w, Code::FToU, Round::Nearest);
    scvtf          ". 0011110 .. 1 00 010 000000 ..... ....." => |l, w| l.integer_to_fp(w, Code::FFromS);
    ucvtf          ". 0011110 .. 1 00 011 000000 ..... ....." => |l, w| l.integer_to_fp(w, Code::FFromU);
    fcvtas         ". 0011110 .. 1 00 100 000000 ..... ....." => |l, w| l.fp_to_integer(w, Code::FToS, Round::Away);
    fcvtau         ". 0011110 .. 1 00 101 000000 ..... ....." => |l, w| l.fp_to_integer(w, Code::FToU, Round::Away);
    fmov_to        ". 0011110 .. 1 00 110 000000 ..... ....." => |l, w| l.move_to_general(w);
    fmov_from      ". 0011110 .. 1 00 111 000000 ..... ....." => |l, w| l.move_from_general(w);
    fcvtps         ". 0011110 .. 1 01 000 000000 ..... ....." => |l, w| l.fp_to_integer(w, Code::FToS, Round::Up);
    fcvtpu         ". 0011110 .. 1 01 001 000000 ..... ....." => |l, w| l.fp_to_integer(w, Code::FToU, Round::Up);
    fmov_to_high   "1 0011110 10 1 01 110 000000 ..... ....." => |l, w| l.move_high_to(w);
    fmov_from_high "1 0011110 10 1 01 111 000000 ..... ....." => |l, w| l.move_high_from(w);
    fcvtms         ". 0011110 .. 1 10 000 000000 ..... ....." => |l, w| l.fp_to_integer(w, Code::FToS, Round::Down);
    fcvtmu         ". 0011110 .. 1 10 001 000000 ..... ....." => |l, w| l.fp_to_integer(w, Code::FToU, Round::Down);
    fcvtzs         ". 0011110 .. 1 11 000 000000 ..... ....." => |l, w| l.fp_to_integer(w, Code::FToS, Round::Zero);
    fcvtzu         ". 0011110 .. 1 11 001 000000 ..... ....." => |l, w| l.fp_to_integer(w, Code::FToU, Round::Zero);
}

impl Lift<'_> {
    fn formatted(&mut self, word: u32) -> Option<Format> {
        let format = Format::new(bits(word, 23, 22));
        if format.is_none() {
            self.undefined(word);
        }
        format
    }

    fn integer_to_fp(&mut self, word: u32, code: Code) {
        let Some(format) = self.formatted(word) else { return };
        if format == Format::Half {
            return self.vector_helper(word); // to single first would round twice
        }
        let a = self.x(rn(word), width(word));
        let rule = self.rule();
        let value = self.ir.fconvert(code, format.ty(), a, rule);
        self.set_number(rd(word), format, value);
    }

    fn fp_to_integer(&mut self, word: u32, code: Code, round: Round) {
        let Some(format) = self.formatted(word) else { return };
        let a = self.number(rn(word), format);
        let rule = self.rule().rounding(round);
        let value = self.ir.fto_int(code, width(word), a, rule, Saturate::NanZero);
        self.set_x(rd(word), value);
    }

    /// Fraction bits; more than 32 are reserved for W.
    fn fraction(&mut self, word: u32) -> Option<u32> {
        let fraction = 64 - bits(word, 15, 10);
        if fraction <= width(word).bits() {
            return Some(fraction);
        }
        self.undefined(word);
        None
    }

    /// `2^exponent` as a number of type `ty`.
    fn power(&mut self, ty: Type, exponent: i32) -> crate::ir::Value {
        let bits = match ty {
            Type::F32 => u64::from(2f32.powi(exponent).to_bits()),
            _ => 2f64.powi(exponent).to_bits(),
        };
        let bits = self.ir.constant(Type::integer(ty.bytes()), bits);
        self.ir.bits(ty, bits)
    }

    fn fixed_to_fp(&mut self, word: u32, code: Code) {
        let Some(format) = self.formatted(word) else { return };
        let Some(fraction) = self.fraction(word) else { return };
        if format == Format::Half {
            return self.vector_helper(word);
        }
        let ty = format.ty();
        let a = self.x(rn(word), width(word));
        let rule = self.rule();
        let value = self.ir.fconvert(code, ty, a, rule);
        let scale = self.power(ty, -(fraction as i32));
        let value = self.ir.fp(Code::FMul, value, scale, rule);
        self.set_number(rd(word), format, value);
    }

    /// Scaled in double precision, where only a double's own range could be left.
    fn fp_to_fixed(&mut self, word: u32, code: Code) {
        let Some(format) = self.formatted(word) else { return };
        let Some(fraction) = self.fraction(word) else { return };
        let rule = self.rule();
        let mut a = self.number(rn(word), format);
        if format != Format::Double {
            a = self.ir.fconvert(Code::FConvert, Type::F64, a, rule);
        }
        let scale = self.power(Type::F64, fraction as i32);
        let a = self.ir.fp(Code::FMul, a, scale, rule);
        let rule = rule.rounding(Round::Zero);
        let value = self.ir.fto_int(code, width(word), a, rule, Saturate::NanZero);
        self.set_x(rd(word), value);
    }

    /// The integer type that FMOV moves.
    fn moved(&mut self, word: u32) -> Option<Type> {
        match (bit(word, 31), bits(word, 23, 22)) {
            (false, 0) => Some(Type::I32),
            (true, 1) => Some(Type::I64),
            (_, 3) => Some(Type::I16),
            _ => {
                self.undefined(word);
                None
            }
        }
    }

    fn move_to_general(&mut self, word: u32) {
        let Some(ty) = self.moved(word) else { return };
        let vector = self.v(rn(word));
        let value = self.ir.lane_get(ty, vector, 0);
        self.set_x(rd(word), value);
    }

    fn move_from_general(&mut self, word: u32) {
        let Some(ty) = self.moved(word) else { return };
        let value = self.x(rn(word), ty);
        self.set_f(rd(word), value);
    }

    fn move_high_to(&mut self, word: u32) {
        let vector = self.v(rn(word));
        let value = self.ir.hi(vector);
        self.set_x(rd(word), value);
    }

    fn move_high_from(&mut self, word: u32) {
        let value = self.x(rn(word), Type::I64);
        let vector = self.ir.get(state::v(rd(word)));
        let value = self.ir.lane_put(vector, value, 1);
        self.set_v(rd(word), value);
    }
}
