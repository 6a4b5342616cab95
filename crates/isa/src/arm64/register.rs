//! C4.1.95, "Data Processing -- Register".

use super::lift::{Lift, Row, bit, ra, rd, rm, rn, width};
use crate::ir::{CARRY, Cmp, Code, FlagKind, OVERFLOW, SIGN, Type, Value, ZERO};
use crate::table::{Pattern, assert_disjoint, bits, pattern};

isa! {
    and_reg        ". 00 01010 .. 0 ..... ...... ..... ....." => |l, w| l.logical(w, Code::And);
    bic_reg        ". 00 01010 .. 1 ..... ...... ..... ....." => |l, w| l.logical(w, Code::AndNot);
    orr_reg        ". 01 01010 .. 0 ..... ...... ..... ....." => |l, w| l.logical(w, Code::Or);
    orn_reg        ". 01 01010 .. 1 ..... ...... ..... ....." => |l, w| l.logical_inverted(w, Code::Or);
    eor_reg        ". 10 01010 .. 0 ..... ...... ..... ....." => |l, w| l.logical(w, Code::Xor);
    eon_reg        ". 10 01010 .. 1 ..... ...... ..... ....." => |l, w| l.logical_inverted(w, Code::Xor);
    ands_reg       ". 11 01010 .. 0 ..... ...... ..... ....." => |l, w| l.logical(w, Code::And);
    bics_reg       ". 11 01010 .. 1 ..... ...... ..... ....." => |l, w| l.logical(w, Code::AndNot);
    add_reg        ". 0 . 01011 .. 0 ..... ...... ..... ....." => |l, w| l.add_shifted(w, Code::Add);
    sub_reg        ". 1 . 01011 .. 0 ..... ...... ..... ....." => |l, w| l.add_shifted(w, Code::Sub);
    add_ext        ". 0 . 01011 00 1 ..... ... ... ..... ....." => |l, w| l.add_extended(w, Code::Add);
    sub_ext        ". 1 . 01011 00 1 ..... ... ... ..... ....." => |l, w| l.add_extended(w, Code::Sub);
    adc            ". 00 11010 000 ..... 000000 ..... ....." => |l, w| l.add_carry(w, false);
    adcs           ". 01 11010 000 ..... 000000 ..... ....." => |l, w| l.add_carry(w, false);
    sbc            ". 10 11010 000 ..... 000000 ..... ....." => |l, w| l.add_carry(w, true);
    sbcs           ". 11 11010 000 ..... 000000 ..... ....." => |l, w| l.add_carry(w, true);
    ccmn_reg       ". 01 11010 010 ..... .... 00 ..... 0 ...." => |l, w| l.compare_if(w, Code::Add, false);
    ccmp_reg       ". 11 11010 010 ..... .... 00 ..... 0 ...." => |l, w| l.compare_if(w, Code::Sub, false);
    ccmn_imm       ". 01 11010 010 ..... .... 10 ..... 0 ...." => |l, w| l.compare_if(w, Code::Add, true);
    ccmp_imm       ". 11 11010 010 ..... .... 10 ..... 0 ...." => |l, w| l.compare_if(w, Code::Sub, true);
    csel           ". 00 11010 100 ..... .... 00 ..... ....." => |l, w| l.select_if(w);
    csinc          ". 00 11010 100 ..... .... 01 ..... ....." => |l, w| l.select_if(w);
    csinv          ". 10 11010 100 ..... .... 00 ..... ....." => |l, w| l.select_if(w);
    csneg          ". 10 11010 100 ..... .... 01 ..... ....." => |l, w| l.select_if(w);
    rbit           ". 1 0 11010110 00000 000000 ..... ....." => |l, w| l.one_source(w, Code::BitRev);
    rev16          ". 1 0 11010110 00000 000001 ..... ....." => |l, w| l.reverse_halves(w);
    rev_32         "0 1 0 11010110 00000 000010 ..... ....." => |l, w| l.one_source(w, Code::Bswap);
    rev32          "1 1 0 11010110 00000 000010 ..... ....." => |l, w| l.reverse_words(w);
    rev            "1 1 0 11010110 00000 000011 ..... ....." => |l, w| l.one_source(w, Code::Bswap);
    clz            ". 1 0 11010110 00000 000100 ..... ....." => |l, w| l.one_source(w, Code::Clz);
    cls            ". 1 0 11010110 00000 000101 ..... ....." => |l, w| l.count_sign(w);
    pac            "1 1 0 11010110 00001 00.... ..... ....." => |_, _| {};
    xpac           "1 1 0 11010110 00001 01000. 11111 ....." => |_, _| {};
    pacga          "1 0 0 11010110 ..... 001100 ..... ....." => |l, w| { let zero = l.ir.imm(0); l.set_x(rd(w), zero) };
    udiv           ". 0 0 11010110 ..... 000010 ..... ....." => |l, w| l.divide(w, Code::DivU);
    sdiv           ". 0 0 11010110 ..... 000011 ..... ....." => |l, w| l.divide(w, Code::DivS);
    lslv           ". 0 0 11010110 ..... 001000 ..... ....." => |l, w| l.shift_by(w, Code::Shl);
    lsrv           ". 0 0 11010110 ..... 001001 ..... ....." => |l, w| l.shift_by(w, Code::ShrU);
    asrv           ". 0 0 11010110 ..... 001010 ..... ....." => |l, w| l.shift_by(w, Code::ShrS);
    rorv           ". 0 0 11010110 ..... 001011 ..... ....." => |l, w| l.shift_by(w, Code::RotR);
    crc32          "0 0 0 11010110 ..... 010 0 0. ..... ....." => |l, w| l.crc(w);
    crc32w         "0 0 0 11010110 ..... 010 0 10 ..... ....." => |l, w| l.crc(w);
    crc32x         "1 0 0 11010110 ..... 010 0 11 ..... ....." => |l, w| l.crc(w);
    crc32c         "0 0 0 11010110 ..... 010 1 0. ..... ....." => |l, w| l.crc(w);
    crc32cw        "0 0 0 11010110 ..... 010 1 10 ..... ....." => |l, w| l.crc(w);
    crc32cx        "1 0 0 11010110 ..... 010 1 11 ..... ....." => |l, w| l.crc(w);
    madd           ". 00 11011 000 ..... 0 ..... ..... ....." => |l, w| l.multiply_add(w, Code::Add);
    msub           ". 00 11011 000 ..... 1 ..... ..... ....." => |l, w| l.multiply_add(w, Code::Sub);
    smaddl         "1 00 11011 001 ..... 0 ..... ..... ....." => |l, w| l.multiply_long(w, true, Code::Add);
    smsubl         "1 00 11011 001 ..... 1 ..... ..... ....." => |l, w| l.multiply_long(w, true, Code::Sub);
    smulh          "1 00 11011 010 ..... 0 ..... ..... ....." => |l, w| l.multiply_high(w, Code::MulHiS);
    umaddl         "1 00 11011 101 ..... 0 ..... ..... ....." => |l, w| l.multiply_long(w, false, Code::Add);
    umsubl         "1 00 11011 101 ..... 1 ..... ..... ....." => |l, w| l.multiply_long(w, false, Code::Sub);
    umulh          "1 00 11011 110 ..... 0 ..... ..... ....." => |l, w| l.multiply_high(w, Code::MulHiU);
}

/// The flags image of an `nzcv` field.
pub fn image_of(nzcv: u32) -> u64 {
    let places = [(3, SIGN), (2, ZERO), (1, CARRY), (0, OVERFLOW)];
    places.iter().filter(|(place, _)| bit(nzcv, *place)).map(|(_, flag)| flag).sum()
}

impl Lift<'_> {
    /// Rm shifted as bits 23:22 and 15:10 say; `None` if the amount is reserved.
    fn shifted(&mut self, word: u32, ty: Type) -> Option<Value> {
        let amount = bits(word, 15, 10);
        if amount >= ty.bits() {
            self.undefined(word);
            return None;
        }
        let value = self.x(rm(word), ty);
        if amount == 0 {
            return Some(value);
        }
        let code = [Code::Shl, Code::ShrU, Code::ShrS, Code::RotR][bits(word, 23, 22) as usize];
        let amount = self.ir.constant(Type::I8, u64::from(amount));
        Some(self.ir.alu(code, value, amount))
    }

    fn logical(&mut self, word: u32, code: Code) {
        let ty = width(word);
        let Some(b) = self.shifted(word, ty) else { return };
        let value = if code == Code::Or && rn(word) == 31 {
            b // mov
        } else {
            let a = self.x(rn(word), ty);
            self.ir.alu(code, a, b)
        };
        if bits(word, 30, 29) == 3 {
            self.logical_flags(ty, value);
        }
        self.set_x(rd(word), value);
    }

    fn logical_inverted(&mut self, word: u32, code: Code) {
        let ty = width(word);
        let Some(b) = self.shifted(word, ty) else { return };
        let b = self.ir.unary(Code::Not, b);
        let a = self.x(rn(word), ty);
        let value = self.ir.alu(code, a, b);
        self.set_x(rd(word), value);
    }

    fn add_shifted(&mut self, word: u32, code: Code) {
        let ty = width(word);
        if bits(word, 23, 22) == 3 {
            return self.undefined(word);
        }
        let Some(b) = self.shifted(word, ty) else { return };
        let a = self.x(rn(word), ty);
        if bit(word, 29) {
            return self.add_with_flags(code, ty, a, b, rd(word));
        }
        let value = match code {
            Code::Sub if rn(word) == 31 => self.ir.unary(Code::Neg, b),
            Code::Sub => self.ir.sub(a, b),
            _ => self.ir.add(a, b),
        };
        self.set_x(rd(word), value);
    }

    /// Rm extended as `option` says, to `ty`.
    pub(super) fn extended(&mut self, register: u32, option: u32, ty: Type) -> Value {
        let part = Type::integer(1 << (option & 3)); // B, H, W, X
        let part = if part.bytes() > ty.bytes() { ty } else { part };
        let value = self.x(register, part);
        if option & 4 != 0 { self.ir.sext(ty, value) } else { self.ir.zext(ty, value) }
    }

    fn add_extended(&mut self, word: u32, code: Code) {
        let (ty, shift) = (width(word), bits(word, 12, 10));
        if shift > 4 {
            return self.undefined(word);
        }
        let b = self.extended(rm(word), bits(word, 15, 13), ty);
        let b = self.ir.shl_imm(b, shift);
        let a = self.x_sp(rn(word), ty);
        if bit(word, 29) {
            return self.add_with_flags(code, ty, a, b, rd(word));
        }
        let value = self.ir.alu(code, a, b);
        self.set_x_sp(rd(word), value);
    }

    /// `a - b - !c` is `a + !b + c`.
    fn add_carry(&mut self, word: u32, subtract: bool) {
        let ty = width(word);
        let carry = self.carry();
        let (a, mut b) = (self.x(rn(word), ty), self.x(rm(word), ty));
        if subtract {
            b = self.ir.unary(Code::Not, b);
        }
        let value = self.ir.ternary(Code::Adc, a, b, carry);
        if bit(word, 29) {
            self.set_flags(FlagKind::AdcCarry, ty, a, b, carry);
        }
        self.set_x(rd(word), value);
    }

    fn compare_if(&mut self, word: u32, code: Code, immediate: bool) {
        let ty = width(word);
        let condition = self.condition(bits(word, 15, 12));
        let a = self.x(rn(word), ty);
        let b = match immediate {
            true => self.ir.constant(ty, u64::from(rm(word))),
            false => self.x(rm(word), ty),
        };
        if let (Some(condition), Code::Sub) = (condition, code)
            && self.compare_chosen(word, condition, a, b)
        {
            return;
        }
        let kind = if code == Code::Add { FlagKind::AddCarry } else { FlagKind::SubCarry };
        let flags = self.ir.flags(kind, ty, a, b, Value::NONE);
        self.flags_if(condition, flags, word);
    }

    /// CCMP as a comparison of operands that the condition chooses: those of the instruction, or
    /// two whose comparison gives the flags of its `nzcv` field. False: there are none.
    fn compare_chosen(&mut self, word: u32, condition: Value, a: Value, b: Value) -> bool {
        let ty = width(word);
        let smallest = 1 << (ty.bits() - 1);
        let (x, y) = match word & 15 {
            0b0000 => (0, smallest + 1),
            0b0010 => (1, 0),
            0b0011 => (smallest, 1),
            0b0100 => {
                // Z without C: the sum of two zeros and no carry; a - b is a + !b and a carry.
                let zero = self.ir.constant(ty, 0);
                let not = self.ir.unary(Code::Not, b);
                let a = self.ir.select(condition, a, zero);
                let b = self.ir.select(condition, not, zero);
                self.set_flags(FlagKind::AdcCarry, ty, a, b, condition);
                return true;
            }
            0b0110 => (0, 0),
            0b1000 => (0, 1),
            0b1001 => (smallest - 1, ty.mask()),
            0b1010 => (smallest, 0),
            _ => return false,
        };
        let (x, y) = (self.ir.constant(ty, x), self.ir.constant(ty, y));
        let a = self.ir.select(condition, a, x);
        let b = self.ir.select(condition, b, y);
        self.set_flags(FlagKind::SubCarry, ty, a, b, Value::NONE);
        true
    }

    /// Flags if a condition holds, else those of the `nzcv` field.
    pub(super) fn flags_if(&mut self, condition: Option<Value>, flags: Value, word: u32) {
        let Some(condition) = condition else {
            return self.ir.put(super::state::FLAGS, flags);
        };
        // The condition reads the old flags: as a number, before the new ones are made.
        let image = self.ir.flags_image(flags);
        let other = self.ir.imm(image_of(word & 15) as i64);
        let image = self.ir.select(condition, image, other);
        self.set_flags(FlagKind::Image, Type::I64, image, Value::NONE, Value::NONE);
    }

    fn select_if(&mut self, word: u32) {
        let ty = width(word);
        let (invert, increment) = (bit(word, 30), bit(word, 10));
        let cond = bits(word, 15, 12);
        if rn(word) == 31 && rm(word) == 31 && (invert ^ increment) && cond < 14 {
            // cset, csetm
            let Some(condition) = self.condition(cond ^ 1) else { return };
            let value = self.ir.zext(ty, condition);
            let value = if invert { self.ir.unary(Code::Neg, value) } else { value };
            return self.set_x(rd(word), value);
        }
        let condition = self.condition(cond);
        let (a, mut b) = (self.x(rn(word), ty), self.x(rm(word), ty));
        b = match (invert, increment) {
            (false, false) => b,
            (false, true) => self.ir.add_imm(b, 1),
            (true, false) => self.ir.unary(Code::Not, b),
            (true, true) => self.ir.unary(Code::Neg, b),
        };
        let value = match condition {
            Some(condition) => self.ir.select(condition, a, b),
            None => a,
        };
        self.set_x(rd(word), value);
    }

    fn one_source(&mut self, word: u32, code: Code) {
        let a = self.x(rn(word), width(word));
        let value = self.ir.unary(code, a);
        self.set_x(rd(word), value);
    }

    fn reverse_halves(&mut self, word: u32) {
        let ty = width(word);
        let a = self.x(rn(word), ty);
        let mask = self.ir.constant(ty, 0x00ff_00ff_00ff_00ff);
        let high = self.ir.shr_imm(a, 8);
        let high = self.ir.alu(Code::And, high, mask);
        let low = self.ir.alu(Code::And, a, mask);
        let low = self.ir.shl_imm(low, 8);
        let value = self.ir.alu(Code::Or, high, low);
        self.set_x(rd(word), value);
    }

    fn reverse_words(&mut self, word: u32) {
        let a = self.x(rn(word), Type::I64);
        let value = self.ir.unary(Code::Bswap, a);
        let half = self.ir.constant(Type::I8, 32);
        let value = self.ir.alu(Code::RotR, value, half);
        self.set_x(rd(word), value);
    }

    /// Bits below the sign that equal it: leading zeros of `a ^ (a >> 1)` without the sign's own.
    fn count_sign(&mut self, word: u32) {
        let ty = width(word);
        let a = self.x(rn(word), ty);
        let shifted = self.ir.sar_imm(a, 1);
        let changes = self.ir.alu(Code::Xor, a, shifted);
        let count = self.ir.unary(Code::Clz, changes);
        let value = self.ir.add_imm(count, -1);
        self.set_x(rd(word), value);
    }

    /// A quotient by zero is zero.
    fn divide(&mut self, word: u32, code: Code) {
        let ty = width(word);
        let (a, b) = (self.x(rn(word), ty), self.x(rm(word), ty));
        let quotient = self.ir.alu(code, a, b);
        let zero = self.ir.constant(ty, 0);
        let by_zero = self.ir.compare(Cmp::Eq, b, zero);
        let value = self.ir.select(by_zero, zero, quotient);
        self.set_x(rd(word), value);
    }

    fn shift_by(&mut self, word: u32, code: Code) {
        let ty = width(word);
        let (a, b) = (self.x(rn(word), ty), self.x(rm(word), ty));
        let value = self.ir.alu(code, a, b);
        self.set_x(rd(word), value);
    }

    fn crc(&mut self, word: u32) {
        let ty = Type::integer(1 << bits(word, 11, 10));
        let (crc, data) = (self.x(rn(word), Type::I32), self.x(rm(word), ty));
        let value = self.ir.crc32(bit(word, 12), crc, data);
        self.set_x(rd(word), value);
    }

    fn multiply_add(&mut self, word: u32, code: Code) {
        let ty = width(word);
        let (a, b) = (self.x(rn(word), ty), self.x(rm(word), ty));
        let product = self.ir.alu(Code::Mul, a, b);
        let addend = self.x(ra(word), ty);
        let value = self.ir.alu(code, addend, product);
        self.set_x(rd(word), value);
    }

    fn multiply_long(&mut self, word: u32, signed: bool, code: Code) {
        let option = if signed { 6 } else { 2 };
        let a = self.extended(rn(word), option, Type::I64);
        let b = self.extended(rm(word), option, Type::I64);
        let product = self.ir.alu(Code::Mul, a, b);
        let addend = self.x(ra(word), Type::I64);
        let value = self.ir.alu(code, addend, product);
        self.set_x(rd(word), value);
    }

    fn multiply_high(&mut self, word: u32, code: Code) {
        let (a, b) = (self.x(rn(word), Type::I64), self.x(rm(word), Type::I64));
        let value = self.ir.alu(code, a, b);
        self.set_x(rd(word), value);
    }
}
