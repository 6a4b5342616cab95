//! Chapters 20 and 21, "F" and "D": floating point, and chapter 6, "Zicsr", for its registers.
//!
//! The accrued exceptions live in the host's MXCSR. A single lies in the low half of its
//! register, the upper half all ones; that the upper half *is* all ones is not checked on reading.

use super::lift::{Args, Lift, Row};
use super::rounding::Dynamic;
use super::state;
use crate::front_end::Event;
use crate::ir::{Cmp, Code, FpRule, Lane, Mem, MinMaxRule, NanRule, Round, Saturate, Type, Value};
use crate::table::{Pattern, assert_disjoint, pattern};

const S: Type = Type::F32;
const D: Type = Type::F64;

isa! {
//  name     rs3 / funct7 rs2 rs1 rm  rd    opcode  operands  meaning
    flw      "....... ..... ..... 010 ..... 0000111" i => |l, a| l.load_float(a, S);
    fld      "....... ..... ..... 011 ..... 0000111" i => |l, a| l.load_float(a, D);
    fsw      "....... ..... ..... 010 ..... 0100111" s => |l, a| l.store_float(a, S);
    fsd      "....... ..... ..... 011 ..... 0100111" s => |l, a| l.store_float(a, D);

    fmadd_s  ".....00 ..... ..... ... ..... 1000011" r => |l, a| l.fused(a, S, false, false);
    fmsub_s  ".....00 ..... ..... ... ..... 1000111" r => |l, a| l.fused(a, S, false, true);
    fnmsub_s ".....00 ..... ..... ... ..... 1001011" r => |l, a| l.fused(a, S, true, false);
    fnmadd_s ".....00 ..... ..... ... ..... 1001111" r => |l, a| l.fused(a, S, true, true);
    fmadd_d  ".....01 ..... ..... ... ..... 1000011" r => |l, a| l.fused(a, D, false, false);
    fmsub_d  ".....01 ..... ..... ... ..... 1000111" r => |l, a| l.fused(a, D, false, true);
    fnmsub_d ".....01 ..... ..... ... ..... 1001011" r => |l, a| l.fused(a, D, true, false);
    fnmadd_d ".....01 ..... ..... ... ..... 1001111" r => |l, a| l.fused(a, D, true, true);

    fadd_s   "0000000 ..... ..... ... ..... 1010011" r => |l, a| l.float(Code::FAdd, a, S);
    fsub_s   "0000100 ..... ..... ... ..... 1010011" r => |l, a| l.float(Code::FSub, a, S);
    fmul_s   "0001000 ..... ..... ... ..... 1010011" r => |l, a| l.float(Code::FMul, a, S);
    fdiv_s   "0001100 ..... ..... ... ..... 1010011" r => |l, a| l.float(Code::FDiv, a, S);
    fsqrt_s  "0101100 00000 ..... ... ..... 1010011" r => |l, a| l.square_root(a, S);
    fsgnj_s  "0010000 ..... ..... 000 ..... 1010011" r => |l, a| l.sign(a, S);
    fsgnjn_s "0010000 ..... ..... 001 ..... 1010011" r => |l, a| l.sign(a, S);
    fsgnjx_s "0010000 ..... ..... 010 ..... 1010011" r => |l, a| l.sign(a, S);
    fmin_s   "0010100 ..... ..... 000 ..... 1010011" r => |l, a| l.min_max(Code::FMin, a, S);
    fmax_s   "0010100 ..... ..... 001 ..... 1010011" r => |l, a| l.min_max(Code::FMax, a, S);
    fcvt_w_s  "1100000 00000 ..... ... ..... 1010011" r => |l, a| l.float_to(a, S, Type::I32, true);
    fcvt_wu_s "1100000 00001 ..... ... ..... 1010011" r => |l, a| l.float_to(a, S, Type::I32, false);
    fcvt_l_s  "1100000 00010 ..... ... ..... 1010011" r => |l, a| l.float_to(a, S, Type::I64, true);
    fcvt_lu_s "1100000 00011 ..... ... ..... 1010011" r => |l, a| l.float_to(a, S, Type::I64, false);
    fmv_x_w  "1110000 00000 ..... 000 ..... 1010011" r => |l, a| { let v = l.raw(a.rs1, S); let v = l.ir.bits(Type::I32, v); l.set_w(a.rd, v) };
    fclass_s "1110000 00000 ..... 001 ..... 1010011" r => |l, a| l.classify(a, S);
    feq_s    "1010000 ..... ..... 010 ..... 1010011" r => |l, a| l.compare_float(0, a, S);
    flt_s    "1010000 ..... ..... 001 ..... 1010011" r => |l, a| l.compare_float(1, a, S);
    fle_s    "1010000 ..... ..... 000 ..... 1010011" r => |l, a| l.compare_float(2, a, S);
    fcvt_s_w  "1101000 00000 ..... ... ..... 1010011" r => |l, a| l.integer_to(a, S, Type::I32, Code::FFromS);
    fcvt_s_wu "1101000 00001 ..... ... ..... 1010011" r => |l, a| l.integer_to(a, S, Type::I32, Code::FFromU);
    fcvt_s_l  "1101000 00010 ..... ... ..... 1010011" r => |l, a| l.integer_to(a, S, Type::I64, Code::FFromS);
    fcvt_s_lu "1101000 00011 ..... ... ..... 1010011" r => |l, a| l.integer_to(a, S, Type::I64, Code::FFromU);
    fmv_w_x  "1111000 00000 ..... 000 ..... 1010011" r => |l, a| { let v = l.w(a.rs1); let v = l.ir.bits(S, v); l.set_f(a.rd, v) };

    fadd_d   "0000001 ..... ..... ... ..... 1010011" r => |l, a| l.float(Code::FAdd, a, D);
    fsub_d   "0000101 ..... ..... ... ..... 1010011" r => |l, a| l.float(Code::FSub, a, D);
    fmul_d   "0001001 ..... ..... ... ..... 1010011" r => |l, a| l.float(Code::FMul, a, D);
    fdiv_d   "0001101 ..... ..... ... ..... 1010011" r => |l, a| l.float(Code::FDiv, a, D);
    fsqrt_d  "0101101 00000 ..... ... ..... 1010011" r => |l, a| l.square_root(a, D);
    fsgnj_d  "0010001 ..... ..... 000 ..... 1010011" r => |l, a| l.sign(a, D);
    fsgnjn_d "0010001 ..... ..... 001 ..... 1010011" r => |l, a| l.sign(a, D);
    fsgnjx_d "0010001 ..... ..... 010 ..... 1010011" r => |l, a| l.sign(a, D);
    fmin_d   "0010101 ..... ..... 000 ..... 1010011" r => |l, a| l.min_max(Code::FMin, a, D);
    fmax_d   "0010101 ..... ..... 001 ..... 1010011" r => |l, a| l.min_max(Code::FMax, a, D);
    fcvt_s_d "0100000 00001 ..... ... ..... 1010011" r => |l, a| l.convert(a, D, S);
    fcvt_d_s "0100001 00000 ..... ... ..... 1010011" r => |l, a| l.convert(a, S, D);
    feq_d    "1010001 ..... ..... 010 ..... 1010011" r => |l, a| l.compare_float(0, a, D);
    flt_d    "1010001 ..... ..... 001 ..... 1010011" r => |l, a| l.compare_float(1, a, D);
    fle_d    "1010001 ..... ..... 000 ..... 1010011" r => |l, a| l.compare_float(2, a, D);
    fclass_d "1110001 00000 ..... 001 ..... 1010011" r => |l, a| l.classify(a, D);
    fcvt_w_d  "1100001 00000 ..... ... ..... 1010011" r => |l, a| l.float_to(a, D, Type::I32, true);
    fcvt_wu_d "1100001 00001 ..... ... ..... 1010011" r => |l, a| l.float_to(a, D, Type::I32, false);
    fcvt_l_d  "1100001 00010 ..... ... ..... 1010011" r => |l, a| l.float_to(a, D, Type::I64, true);
    fcvt_lu_d "1100001 00011 ..... ... ..... 1010011" r => |l, a| l.float_to(a, D, Type::I64, false);
    fcvt_d_w  "1101001 00000 ..... ... ..... 1010011" r => |l, a| l.integer_to(a, D, Type::I32, Code::FFromS);
    fcvt_d_wu "1101001 00001 ..... ... ..... 1010011" r => |l, a| l.integer_to(a, D, Type::I32, Code::FFromU);
    fcvt_d_l  "1101001 00010 ..... ... ..... 1010011" r => |l, a| l.integer_to(a, D, Type::I64, Code::FFromS);
    fcvt_d_lu "1101001 00011 ..... ... ..... 1010011" r => |l, a| l.integer_to(a, D, Type::I64, Code::FFromU);
    fmv_x_d  "1110001 00000 ..... 000 ..... 1010011" r => |l, a| { let v = l.f(a.rs1, D); let v = l.ir.bits(Type::I64, v); l.set_x(a.rd, v) };
    fmv_d_x  "1111001 00000 ..... 000 ..... 1010011" r => |l, a| { let v = l.x(a.rs1); let v = l.ir.bits(D, v); l.set_f(a.rd, v) };

    csrrw    "....... ..... ..... 001 ..... 1110011" i => |l, a| { let v = l.x(a.rs1); l.csr(a, v, Write::Always) };
    csrrs    "....... ..... ..... 010 ..... 1110011" i => |l, a| { let v = l.x(a.rs1); l.csr(a, v, Write::Set) };
    csrrc    "....... ..... ..... 011 ..... 1110011" i => |l, a| { let v = l.x(a.rs1); l.csr(a, v, Write::Clear) };
    csrrwi   "....... ..... ..... 101 ..... 1110011" i => |l, a| { let v = l.ir.imm(a.rs1.into()); l.csr(a, v, Write::Always) };
    csrrsi   "....... ..... ..... 110 ..... 1110011" i => |l, a| { let v = l.ir.imm(a.rs1.into()); l.csr(a, v, Write::Set) };
    csrrci   "....... ..... ..... 111 ..... 1110011" i => |l, a| { let v = l.ir.imm(a.rs1.into()); l.csr(a, v, Write::Clear) };
}

/// How a CSR instruction writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Always,
    Set,
    Clear,
}

const RULE: FpRule = FpRule::new(NanRule::Default);

/// Accrued exceptions: their bits in fflags and in MXCSR.
const EXCEPTIONS: [(u32, u32); 5] = [(0, 5), (1, 4), (2, 3), (3, 2), (4, 0)];

const FFLAGS: u32 = 0x001;
const FRM: u32 = 0x002;
const FCSR: u32 = 0x003;
const CYCLE: u32 = 0xc00;
const TIME: u32 = 0xc01;
const INSTRET: u32 = 0xc02;

impl Lift<'_> {
    /// FP register `n` as a single or double.
    fn f(&mut self, n: u32, ty: Type) -> Value {
        if ty == S && self.singles.boxed & 1 << n == 0 { self.checked(n) } else { self.raw(n, ty) }
    }

    /// The same, whatever stands above a single: for moves of its bits.
    fn raw(&mut self, n: u32, ty: Type) -> Value {
        self.ir.get(state::f(n).as_type(ty))
    }

    /// The single in FP register `n`, of which the block does not know whether it is one.
    fn checked(&mut self, n: u32) -> Value {
        if let Some(value) = self.singles.checked[n as usize] {
            return value;
        }
        let whole = self.ir.get(state::f(n).as_type(Type::I64));
        let (above, ones) = (self.ir.sar_imm(whole, 32), self.ir.imm(-1));
        let boxed = self.ir.compare(Cmp::Eq, above, ones);
        let low = self.ir.trunc(Type::I32, whole);
        let nan = self.ir.constant(Type::I32, 0x7fc0_0000);
        let bits = self.ir.select(boxed, low, nan);
        let value = self.ir.bits(S, bits);
        self.singles.checked[n as usize] = Some(value);
        value
    }

    /// Writes FP register `n`; a single is boxed.
    fn set_f(&mut self, n: u32, value: Value) {
        self.singles.checked[n as usize] = None;
        let single = self.ir.ty(value) == S;
        self.singles.boxed = self.singles.boxed & !(1 << n) | u32::from(single) << n;
        let value = match self.ir.ty(value) {
            Type::F32 => {
                let single = self.ir.zero_upper(value);
                let ones = self.ir.constant(Type::V128, 0xffff_ffff_0000_0000);
                let boxed = self.ir.lanes2(Lane::Or, single, ones);
                self.ir.scalar(D, boxed)
            }
            _ => value,
        };
        self.ir.put(state::f(n), value);
    }

    /// Does what needs rounding as the instruction's `rm` says, if that is a mode. `rm` 0 costs
    /// nothing while the dynamic mode is to nearest; almost nothing ever changes it, but the block
    /// cannot know, so only the explicit others are exchanged. Compilers emit 7.
    fn rounded(&mut self, a: Args, meaning: impl FnOnce(&mut Self, FpRule)) {
        let round = match (a.rm, self.dynamic) {
            (0, _) => Round::Nearest,
            (1, _) => Round::Zero,
            (2, _) => Round::Down,
            (3, _) => Round::Up,
            (4, _) | (7, Dynamic::Away) => Round::Away,
            (7, Dynamic::Host) => Round::Dynamic,
            _ => return self.raise(Event::ILLEGAL, false, a.word.into()),
        };
        meaning(self, RULE.rounding(round));
    }

    /// The same for what gives a number, which becomes register rd. That and its exceptions are
    /// the host's, but that it does not round ties away.
    fn rounded_f(&mut self, a: Args, meaning: impl FnOnce(&mut Self, FpRule) -> Value) {
        self.rounded(a, |l, rule| {
            if rule.round != Round::Away {
                let value = meaning(l, rule);
                return l.set_f(a.rd, value);
            }
            let even = meaning(l, RULE.rounding(Round::Nearest));
            let ty = l.ir.ty(even);
            let int = Type::integer(ty.bytes());
            let even = l.ir.bits(int, even);
            let even = l.ir.zext(Type::I64, even);
            let word = l.ir.imm(a.word.into());
            let value = l.ir.helper(super::HELPER_AWAY, word, even, Value::NONE);
            let value = l.ir.trunc(int, value);
            let value = l.ir.bits(ty, value);
            l.set_f(a.rd, value);
        });
    }

    fn load_float(&mut self, a: Args, ty: Type) {
        let base = self.x(a.rs1);
        let value = self.ir.load(ty, base, a.imm, Mem::new(ty.bytes()));
        self.set_f(a.rd, value);
    }

    fn store_float(&mut self, a: Args, ty: Type) {
        let (base, value) = (self.x(a.rs1), self.raw(a.rs2, ty));
        self.ir.store(base, a.imm, value, Mem::new(ty.bytes()));
    }

    fn float(&mut self, code: Code, a: Args, ty: Type) {
        let (x, y) = (self.f(a.rs1, ty), self.f(a.rs2, ty));
        self.rounded_f(a, |l, rule| l.ir.fp(code, x, y, rule));
    }

    fn square_root(&mut self, a: Args, ty: Type) {
        let x = self.f(a.rs1, ty);
        self.rounded_f(a, |l, rule| l.ir.fsqrt(x, rule));
    }

    fn fused(&mut self, a: Args, ty: Type, negate_product: bool, negate_addend: bool) {
        let (mut x, y, mut z) = (self.f(a.rs1, ty), self.f(a.rs2, ty), self.f(a.rs3, ty));
        if negate_product {
            x = self.ir.unary(Code::FNeg, x);
        }
        if negate_addend {
            z = self.ir.unary(Code::FNeg, z);
        }
        self.rounded_f(a, |l, rule| l.ir.fmul_add(x, y, z, rule));
    }

    /// fsgnj, fsgnjn, fsgnjx; `fmv`, `fneg` and `fabs` are those with equal operands.
    fn sign(&mut self, a: Args, ty: Type) {
        let x = self.f(a.rs1, ty);
        let value = match (a.rm, a.rs1 == a.rs2) {
            (0, true) => x,
            (1, true) => self.ir.unary(Code::FNeg, x),
            (2, true) => self.ir.unary(Code::FAbs, x),
            _ => self.sign_from(a, ty, x),
        };
        self.set_f(a.rd, value);
    }

    fn sign_from(&mut self, a: Args, ty: Type, x: Value) -> Value {
        let int = Type::integer(ty.bytes());
        let y = self.f(a.rs2, ty);
        let (x, y) = (self.ir.bits(int, x), self.ir.bits(int, y));
        let sign = self.ir.constant(int, 1 << (int.bits() - 1));
        let y = if a.rm == 1 { self.ir.unary(Code::Not, y) } else { y };
        let y_sign = self.ir.alu(Code::And, y, sign);
        let bits = if a.rm == 2 {
            self.ir.alu(Code::Xor, x, y_sign)
        } else {
            let magnitude = self.ir.alu(Code::AndNot, x, sign);
            self.ir.alu(Code::Or, magnitude, y_sign)
        };
        self.ir.bits(ty, bits)
    }

    fn min_max(&mut self, code: Code, a: Args, ty: Type) {
        let (x, y) = (self.f(a.rs1, ty), self.f(a.rs2, ty));
        let value = self.ir.fminmax(code, x, y, MinMaxRule::Number);
        self.set_f(a.rd, value);
    }

    fn float_to(&mut self, a: Args, from: Type, to: Type, signed: bool) {
        let x = self.f(a.rs1, from);
        let code = if signed { Code::FToS } else { Code::FToU };
        self.rounded(a, |l, rule| {
            let value = l.ir.fto_int(code, to, x, rule, Saturate::NanMax);
            if a.rd != 0 {
                l.set_w(a.rd, value);
            }
        });
    }

    fn integer_to(&mut self, a: Args, to: Type, from: Type, code: Code) {
        let x = self.x(a.rs1);
        let x = self.ir.trunc(from, x);
        self.rounded_f(a, |l, rule| l.ir.fconvert(code, to, x, rule));
    }

    fn convert(&mut self, a: Args, from: Type, to: Type) {
        let x = self.f(a.rs1, from);
        self.rounded_f(a, |l, rule| l.ir.fconvert(Code::FConvert, to, x, rule));
    }

    fn compare_float(&mut self, kind: u16, a: Args, ty: Type) {
        let (x, y) = (self.f(a.rs1, ty), self.f(a.rs2, ty));
        let value = self.ir.fcompare(kind, x, y);
        if a.rd != 0 {
            self.set_bool(a.rd, value);
        }
    }

    /// One bit for the class: table 20.5 of the manual.
    fn classify(&mut self, a: Args, ty: Type) {
        let int = Type::integer(ty.bytes());
        let (exponent_bits, fraction_bits) = if ty == S { (8, 23) } else { (11, 52) };
        let x = self.f(a.rs1, ty);
        let bits = self.ir.bits(int, x);
        let exponent = self.ir.extract(bits, fraction_bits, exponent_bits);
        let fraction = self.ir.extract(bits, 0, fraction_bits);
        let negative = self.ir.shr_imm(bits, fraction_bits + exponent_bits);
        let (zero, top) =
            (self.ir.constant(int, 0), self.ir.constant(int, (1 << exponent_bits) - 1));
        let quiet = self.ir.shr_imm(fraction, fraction_bits - 1);
        let number = |l: &mut Self, n: u64| l.ir.constant(int, n);
        // Positive classes are 4 to 7 (zero, subnormal, normal, infinite); negative ones mirror.
        let is_negative = self.ir.compare(Cmp::Ne, negative, zero);
        let fraction_zero = self.ir.compare(Cmp::Eq, fraction, zero);
        let (four, five, six, seven) =
            (number(self, 4), number(self, 5), number(self, 6), number(self, 7));
        let (eight, nine) = (number(self, 8), number(self, 9));
        let small = self.ir.select(fraction_zero, four, five);
        let exponent_zero = self.ir.compare(Cmp::Eq, exponent, zero);
        let class = self.ir.select(exponent_zero, small, six);
        let is_quiet = self.ir.compare(Cmp::Ne, quiet, zero);
        let nan = self.ir.select(is_quiet, nine, eight);
        let fraction_zero = self.ir.compare(Cmp::Eq, fraction, zero);
        let special = self.ir.select(fraction_zero, seven, nan);
        let exponent_top = self.ir.compare(Cmp::Eq, exponent, top);
        let class = self.ir.select(exponent_top, special, class);
        let mirrored = self.ir.sub(seven, class);
        let is_number = self.ir.compare(Cmp::LeU, class, seven);
        let mirrored = self.ir.select(is_number, mirrored, class);
        let class = self.ir.select(is_negative, mirrored, class);
        let one = self.ir.imm(1);
        let bit = self.ir.alu(Code::Shl, one, class);
        self.set_x(a.rd, bit);
    }

    fn csr(&mut self, a: Args, operand: Value, write: Write) {
        let number = a.imm as u32 & 0xfff;
        let writes = write == Write::Always || a.rs1 != 0;
        let old = match number {
            FFLAGS => self.fflags(),
            FRM => self.ir.get(state::FRM),
            FCSR => {
                let (flags, mode) = (self.fflags(), self.ir.get(state::FRM));
                let mode = self.ir.shl_imm(mode, 5);
                self.ir.alu(Code::Or, flags, mode)
            }
            CYCLE | TIME | INSTRET if !writes => {
                self.ir.helper(super::HELPER_TIME, Value::NONE, Value::NONE, Value::NONE)
            }
            _ => return self.raise(Event::ILLEGAL, false, 0),
        };
        if writes {
            let new = match write {
                Write::Always => operand,
                Write::Set => self.ir.alu(Code::Or, old, operand),
                Write::Clear => self.ir.alu(Code::AndNot, old, operand),
            };
            self.write_fcsr(number, new);
        }
        self.set_x(a.rd, old);
        if writes && number != FFLAGS {
            self.leave_for_rounding();
        }
    }

    /// Ends the block: what follows depends on the mode just written. The host's four are one.
    fn leave_for_rounding(&mut self) {
        let next = self.ir.imm(self.next as i64);
        if self.dynamic == Dynamic::Host {
            let (mode, unusual) = (self.ir.get(state::FRM), self.ir.imm(4));
            let usual = self.ir.compare(Cmp::LtU, mode, unusual);
            self.ir.exit_if(usual, self.next);
        }
        if !self.ir.ended() {
            self.ir.put(state::PC, next);
            self.ir.exit_mode();
        }
    }

    fn fflags(&mut self) -> Value {
        let mxcsr = self.ir.fp_control_get();
        let mxcsr = self.ir.zext(Type::I64, mxcsr);
        let mut flags = self.ir.imm(0);
        for (flag, bit) in EXCEPTIONS {
            let one = self.ir.extract(mxcsr, bit, 1);
            let placed = self.ir.shl_imm(one, flag);
            flags = self.ir.alu(Code::Or, flags, placed);
        }
        flags
    }

    fn write_fcsr(&mut self, number: u32, new: Value) {
        let (flags, mode) = match number {
            FFLAGS => (new, self.ir.get(state::FRM)),
            FRM => (self.fflags(), self.ir.and_imm(new, 7)),
            _ => (new, self.ir.extract(new, 5, 3)),
        };
        self.ir.put(state::FRM, mode);
        // Masks stay set: the host never traps.
        let mut mxcsr = self.ir.imm(0x1f80);
        for (flag, bit) in EXCEPTIONS {
            let one = self.ir.extract(flags, flag, 1);
            let placed = self.ir.shl_imm(one, bit);
            mxcsr = self.ir.alu(Code::Or, mxcsr, placed);
        }
        // frm 0 to 3 (nearest, zero, down, up) are MXCSR's 0, 3, 1, 2: a table of two bits each.
        // 4 (ties away) has no equivalent: blocks for it ask for the rounding themselves.
        let two = self.ir.shl_imm(mode, 1);
        let table = self.ir.imm(0b10_01_11_00);
        let entry = self.ir.alu(Code::ShrU, table, two);
        let rounding = self.ir.and_imm(entry, 3);
        let rounding = self.ir.shl_imm(rounding, 13);
        let mxcsr = self.ir.alu(Code::Or, mxcsr, rounding);
        let mxcsr = self.ir.trunc(Type::I32, mxcsr);
        self.ir.fp_control_put(mxcsr);
    }
}
