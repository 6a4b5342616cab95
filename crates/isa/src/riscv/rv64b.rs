//! Chapter 28, "B" (Zba, Zbb, Zbs), and chapter 12, "Zicond".

use super::lift::{Args, Lift, Row};
use crate::ir::{Cmp, Code, Type, Value};
use crate::table::{Pattern, assert_disjoint, pattern};

isa! {
//  name      funct7  rs2   rs1   f3  rd    opcode  operands  meaning
    add_uw    "0000100 ..... ..... 000 ..... 0111011" r => |l, a| l.shifted_sum(a, 0, true);
    sh1add    "0010000 ..... ..... 010 ..... 0110011" r => |l, a| l.shifted_sum(a, 1, false);
    sh1add_uw "0010000 ..... ..... 010 ..... 0111011" r => |l, a| l.shifted_sum(a, 1, true);
    sh2add    "0010000 ..... ..... 100 ..... 0110011" r => |l, a| l.shifted_sum(a, 2, false);
    sh2add_uw "0010000 ..... ..... 100 ..... 0111011" r => |l, a| l.shifted_sum(a, 2, true);
    sh3add    "0010000 ..... ..... 110 ..... 0110011" r => |l, a| l.shifted_sum(a, 3, false);
    sh3add_uw "0010000 ..... ..... 110 ..... 0111011" r => |l, a| l.shifted_sum(a, 3, true);
    slli_uw   "000010. ..... ..... 001 ..... 0011011" sh => |l, a| {
        let (low, count) = (l.w(a.rs1), a.imm as u32);
        let wide = l.ir.zext(Type::I64, low);
        let value = l.ir.shl_imm(wide, count);
        l.set_x(a.rd, value);
    };

    andn      "0100000 ..... ..... 111 ..... 0110011" r => |l, a| l.register(Code::AndNot, a);
    orn       "0100000 ..... ..... 110 ..... 0110011" r => |l, a| l.with_complement(Code::Or, a);
    xnor      "0100000 ..... ..... 100 ..... 0110011" r => |l, a| l.with_complement(Code::Xor, a);
    clz       "0110000 00000 ..... 001 ..... 0010011" r => |l, a| l.count(Code::Clz, a);
    clzw      "0110000 00000 ..... 001 ..... 0011011" r => |l, a| l.count_word(Code::Clz, a);
    ctz       "0110000 00001 ..... 001 ..... 0010011" r => |l, a| l.count(Code::Ctz, a);
    ctzw      "0110000 00001 ..... 001 ..... 0011011" r => |l, a| l.count_word(Code::Ctz, a);
    cpop      "0110000 00010 ..... 001 ..... 0010011" r => |l, a| l.count(Code::Popcnt, a);
    cpopw     "0110000 00010 ..... 001 ..... 0011011" r => |l, a| l.count_word(Code::Popcnt, a);
    max       "0000101 ..... ..... 110 ..... 0110011" r => |l, a| l.choose(Cmp::GtS, a);
    maxu      "0000101 ..... ..... 111 ..... 0110011" r => |l, a| l.choose(Cmp::GtU, a);
    min       "0000101 ..... ..... 100 ..... 0110011" r => |l, a| l.choose(Cmp::LtS, a);
    minu      "0000101 ..... ..... 101 ..... 0110011" r => |l, a| l.choose(Cmp::LtU, a);
    sext_b    "0110000 00100 ..... 001 ..... 0010011" r => |l, a| l.extend(Code::SExt, Type::I8, a);
    sext_h    "0110000 00101 ..... 001 ..... 0010011" r => |l, a| l.extend(Code::SExt, Type::I16, a);
    zext_h    "0000100 00000 ..... 100 ..... 0111011" r => |l, a| l.extend(Code::ZExt, Type::I16, a);
    rol       "0110000 ..... ..... 001 ..... 0110011" r => |l, a| l.register(Code::RotL, a);
    rolw      "0110000 ..... ..... 001 ..... 0111011" r => |l, a| l.register_word(Code::RotL, a);
    ror       "0110000 ..... ..... 101 ..... 0110011" r => |l, a| l.register(Code::RotR, a);
    rori      "011000. ..... ..... 101 ..... 0010011" sh => |l, a| l.immediate(Code::RotR, a);
    roriw     "0110000 ..... ..... 101 ..... 0011011" sh => |l, a| l.immediate_word(Code::RotR, a);
    rorw      "0110000 ..... ..... 101 ..... 0111011" r => |l, a| l.register_word(Code::RotR, a);
    orc_b     "0010100 00111 ..... 101 ..... 0010011" r => |l, a| l.or_combine(a);
    rev8      "0110101 11000 ..... 101 ..... 0010011" r => |l, a| l.count(Code::Bswap, a);

    bclr      "0100100 ..... ..... 001 ..... 0110011" r => |l, a| { let n = l.x(a.rs2); l.single_bit(Code::AndNot, a, n) };
    bclri     "010010. ..... ..... 001 ..... 0010011" sh => |l, a| { let n = l.ir.imm(a.imm.into()); l.single_bit(Code::AndNot, a, n) };
    bext      "0100100 ..... ..... 101 ..... 0110011" r => |l, a| { let n = l.x(a.rs2); l.extract_bit(a, n) };
    bexti     "010010. ..... ..... 101 ..... 0010011" sh => |l, a| { let n = l.ir.imm(a.imm.into()); l.extract_bit(a, n) };
    binv      "0110100 ..... ..... 001 ..... 0110011" r => |l, a| { let n = l.x(a.rs2); l.single_bit(Code::Xor, a, n) };
    binvi     "011010. ..... ..... 001 ..... 0010011" sh => |l, a| { let n = l.ir.imm(a.imm.into()); l.single_bit(Code::Xor, a, n) };
    bset      "0010100 ..... ..... 001 ..... 0110011" r => |l, a| { let n = l.x(a.rs2); l.single_bit(Code::Or, a, n) };
    bseti     "001010. ..... ..... 001 ..... 0010011" sh => |l, a| { let n = l.ir.imm(a.imm.into()); l.single_bit(Code::Or, a, n) };

    czero_eqz "0000111 ..... ..... 101 ..... 0110011" r => |l, a| l.zero_if(Cmp::Eq, a);
    czero_nez "0000111 ..... ..... 111 ..... 0110011" r => |l, a| l.zero_if(Cmp::Ne, a);
}

impl Lift<'_> {
    fn shifted_sum(&mut self, a: Args, scale: u16, word: bool) {
        let base = self.x(a.rs2);
        let index = if word {
            let low = self.w(a.rs1);
            self.ir.zext(Type::I64, low)
        } else {
            self.x(a.rs1)
        };
        let sum = self.ir.lea(base, index, scale, 0);
        self.set_x(a.rd, sum);
    }

    fn with_complement(&mut self, code: Code, a: Args) {
        let (x, y) = (self.x(a.rs1), self.x(a.rs2));
        let y = self.ir.unary(Code::Not, y);
        let value = self.ir.alu(code, x, y);
        self.set_x(a.rd, value);
    }

    fn count(&mut self, code: Code, a: Args) {
        let x = self.x(a.rs1);
        let value = self.ir.unary(code, x);
        self.set_x(a.rd, value);
    }

    fn count_word(&mut self, code: Code, a: Args) {
        let x = self.w(a.rs1);
        let value = self.ir.unary(code, x);
        self.set_w(a.rd, value);
    }

    fn choose(&mut self, cmp: Cmp, a: Args) {
        let (x, y) = (self.x(a.rs1), self.x(a.rs2));
        let first = self.ir.compare(cmp, x, y);
        let value = self.ir.select(first, x, y);
        self.set_x(a.rd, value);
    }

    fn extend(&mut self, code: Code, ty: Type, a: Args) {
        let x = self.x(a.rs1);
        let low = self.ir.trunc(ty, x);
        let value = match code {
            Code::SExt => self.ir.sext(Type::I64, low),
            _ => self.ir.zext(Type::I64, low),
        };
        self.set_x(a.rd, value);
    }

    /// Every byte that is not zero becomes 0xff.
    fn or_combine(&mut self, a: Args) {
        let x = self.x(a.rs1);
        // Bit 7 of each byte of `t` says whether the byte is zero in its low seven bits or not.
        let low = self.ir.and_imm(x, 0x7f7f_7f7f_7f7f_7f7f);
        let ones = self.ir.imm(0x7f7f_7f7f_7f7f_7f7f);
        let sum = self.ir.add(low, ones);
        let either = self.ir.alu(Code::Or, sum, x);
        let high = self.ir.and_imm(either, 0x8080_8080_8080_8080);
        let unit = self.ir.shr_imm(high, 7);
        let factor = self.ir.imm(0xff);
        let value = self.ir.alu(Code::Mul, unit, factor);
        self.set_x(a.rd, value);
    }

    fn single_bit(&mut self, code: Code, a: Args, number: Value) {
        let (x, one) = (self.x(a.rs1), self.ir.imm(1));
        let bit = self.ir.alu(Code::Shl, one, number);
        let value = self.ir.alu(code, x, bit);
        self.set_x(a.rd, value);
    }

    fn extract_bit(&mut self, a: Args, number: Value) {
        let x = self.x(a.rs1);
        let shifted = self.ir.alu(Code::ShrU, x, number);
        let value = self.ir.and_imm(shifted, 1);
        self.set_x(a.rd, value);
    }

    fn zero_if(&mut self, cmp: Cmp, a: Args) {
        let (x, condition, zero) = (self.x(a.rs1), self.x(a.rs2), self.ir.imm(0));
        let is_zero = self.ir.compare(cmp, condition, zero);
        let value = self.ir.select(is_zero, zero, x);
        self.set_x(a.rd, value);
    }
}
