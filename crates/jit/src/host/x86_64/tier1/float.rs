//! Scalar floating point: host instructions, with the guests' special cases behind the block.

use isa::ir::{
    Code, Encoding, FpRule, Lane, MinMaxRule, NanRule, Op, PackedRule, Round, Saturate, Type,
};

use super::super::asm::{Alu, Gpr, Label, Mem, Rm, Shift, Xmm, cc};
use super::super::vcpu_block::{CONSTANTS, GUEST_MXCSR, HOST_MXCSR, TEMPORARY, constant};
use super::{Cold, Job};

/// A case that is rare: code behind the block.
#[derive(Clone, Copy, Debug)]
pub enum Special {
    /// The result is a NaN: it becomes the canonical one.
    DefaultNan { from: Label, back: u64, ty: Type, result: Xmm },
    /// The result is a NaN: it becomes the operands' first signalling, or first quiet one, or the
    /// canonical one (Arm); or just their first, or the canonical one (Power).
    OperandNan { from: Label, back: u64, ty: Type, result: Xmm, a: Xmm, b: Xmm, arm: bool },
    /// Minimum or maximum of equal numbers (zeros) or NaNs.
    MinMax {
        equal: Label,
        nan: Label,
        back: u64,
        ty: Type,
        max: bool,
        rule: MinMaxRule,
        result: Xmm,
        a: Xmm,
        b: Xmm,
    },
    /// A conversion gave "integer indefinite".
    ToInt { from: Label, back: u64, ty: Type, to: Type, saturate: Saturate, result: Gpr, a: Xmm },
    /// A conversion to 32 unsigned bits did not fit.
    ToUnsigned {
        big: Label,
        small: Label,
        back: u64,
        ty: Type,
        saturate: Saturate,
        result: Gpr,
        a: Xmm,
    },
}

const fn encoding(prefix: u8, map: u8, opcode: u8) -> Encoding {
    Encoding { prefix, map, opcode, w: false }
}

fn scalar(ty: Type, opcode: u8) -> Encoding {
    encoding(if ty == Type::F32 { 0xf3 } else { 0xf2 }, 1, opcode)
}

/// `packed`: prefix 0 for F32, 0x66 for F64.
fn packed(ty: Type, opcode: u8) -> Encoding {
    encoding(if ty == Type::F32 { 0 } else { 0x66 }, 1, opcode)
}

fn which(ty: Type) -> usize {
    usize::from(ty != Type::F32)
}

fn constant_mem(pair: [u32; 2], ty: Type) -> Mem {
    Mem::gs(CONSTANTS + pair[which(ty)])
}

impl Job<'_> {
    pub fn float(&mut self, index: u32, op: &Op) {
        match op.code {
            Code::FAdd => self.arithmetic(index, op, 0x58),
            Code::FMul => self.arithmetic(index, op, 0x59),
            Code::FSub => self.arithmetic(index, op, 0x5c),
            Code::FDiv => self.arithmetic(index, op, 0x5e),
            Code::FSqrt => self.arithmetic(index, op, 0x51),
            Code::FMulAdd => self.fused(index, op),
            Code::FMin | Code::FMax => self.min_max(index, op),
            Code::FNeg | Code::FAbs => self.sign(index, op),
            Code::FCompare => self.float_boolean(index, op),
            Code::FConvert => self.convert(index, op),
            Code::FFromHalf | Code::FToHalf => self.half_float(index, op),
            Code::FFromS | Code::FFromU => self.convert_integer(index, op),
            Code::FToS => self.convert_to_signed(index, op),
            Code::FToU => self.convert_to_unsigned(index, op),
            Code::FRound => self.round(index, op),
            Code::Bits => self.reinterpret(index, op),
            Code::FpControlPut => {
                let value = self.gpr(op.a);
                self.c.asm.store(4, Mem::gs(TEMPORARY), value);
                self.c.asm.mxcsr(2, Mem::gs(TEMPORARY));
            }
            _ => {
                let result = self.result(index);
                self.c.asm.mxcsr(3, Mem::gs(TEMPORARY));
                self.c.asm.load(4, result, Mem::gs(TEMPORARY));
            }
        }
    }

    /// `ucomis` or `comis`.
    pub fn compare_xmm(&mut self, ty: Type, signal: bool, a: Xmm, b: Xmm) {
        let encoding = packed(ty, if signal { 0x2f } else { 0x2e });
        if self.t.features.avx2 {
            self.c.asm.v3(encoding, false, a, 0, Rm::Reg(b));
        } else {
            self.c.asm.sse(encoding, a, Rm::Reg(b));
        }
    }

    /// Rounding of its own: MXCSR is exchanged around the operation.
    fn with_rounding(&mut self, round: Round, emit: impl FnOnce(&mut Self)) {
        let mode = match round {
            Round::Dynamic => return emit(self),
            // MXCSR cannot round ties away; the difference shows in exact ties only.
            Round::Nearest | Round::Away => 0,
            Round::Down => 1,
            Round::Up => 2,
            Round::Zero => 3,
        };
        let (work, old) = (self.temporary(), Mem::gs(GUEST_MXCSR));
        self.clobber_flags();
        self.c.asm.mxcsr(3, old);
        self.c.asm.load(4, work, old);
        self.c.asm.alu_imm(4, Alu::And, Rm::Reg(work), !0x6000);
        self.c.asm.alu_imm(4, Alu::Or, Rm::Reg(work), mode << 13);
        self.c.asm.store(4, Mem::gs(TEMPORARY), work);
        self.c.asm.mxcsr(2, Mem::gs(TEMPORARY));
        emit(self);
        // The sticky flags that were raised stay.
        self.c.asm.mxcsr(3, Mem::gs(TEMPORARY));
        self.c.asm.load(4, work, Mem::gs(TEMPORARY));
        self.c.asm.alu_imm(4, Alu::And, Rm::Reg(work), 0x3f);
        self.c.asm.alu_mem(4, Alu::Or, old, work);
        self.c.asm.mxcsr(2, old);
    }

    fn arithmetic(&mut self, index: u32, op: &Op, opcode: u8) {
        let rule = FpRule::unpack(op.aux);
        let a = self.xmm(op.a);
        let b = if op.b.is_some() { self.xmm(op.b) } else { a };
        let operands_needed = matches!(rule.nan, NanRule::Arm | NanRule::Power);
        let result =
            if operands_needed { self.temporary_xmm() } else { self.result_in(index, op.a) };
        let encoding = scalar(op.ty, opcode);
        self.with_rounding(rule.round, |job| job.three(encoding, result, a, b));
        self.fix_nan(rule.nan, op.ty, result, a, b);
        if operands_needed {
            self.deliver_xmm(index, result);
        }
    }

    /// After an operation: a NaN becomes the guest's.
    fn fix_nan(&mut self, rule: NanRule, ty: Type, result: Xmm, a: Xmm, b: Xmm) {
        if rule == NanRule::X86 {
            return;
        }
        self.clobber_flags();
        self.compare_xmm(ty, false, result, result);
        let from = self.c.asm.jcc(cc::P);
        let back = self.c.asm.here();
        let special = match rule {
            NanRule::Default => Special::DefaultNan { from, back, ty, result },
            rule => {
                let arm = rule == NanRule::Arm;
                Special::OperandNan { from, back, ty, result, a, b, arm }
            }
        };
        self.c.cold.push((0, Cold::Float(special)));
    }

    fn fused(&mut self, index: u32, op: &Op) {
        let rule = FpRule::unpack(op.aux);
        let (a, b, c) = (self.xmm(op.a), self.xmm(op.b), self.xmm(op.c));
        let work = self.temporary_xmm();
        self.move_xmm(work, a);
        assert!(self.t.features.fma, "front ends offer FMA only on hosts with FMA");
        let lane = if op.ty == Type::F32 { Lane::FMulAddLow32 } else { Lane::FMulAddLow64 };
        let encoding = lane.row().encoding;
        self.with_rounding(rule.round, |job| job.c.asm.v3(encoding, false, work, b, Rm::Reg(c)));
        match rule.nan {
            NanRule::X86 => {}
            NanRule::Arm => self.fix_fused(PackedRule::Arm, op.ty, work, [a, b, c]),
            _ => self.fix_fused(PackedRule::Default, op.ty, work, [a, b, c]),
        }
        self.deliver_xmm(index, work);
    }

    fn min_max(&mut self, index: u32, op: &Op) {
        let max = op.code == Code::FMax;
        let rule = match op.aux {
            0 => MinMaxRule::X86,
            1 => MinMaxRule::Number,
            2 => MinMaxRule::Nan,
            _ => MinMaxRule::ArmNumber,
        };
        let (a, b) = (self.xmm(op.a), self.xmm(op.b));
        let result = self.temporary_xmm();
        let encoding = scalar(op.ty, if max { 0x5f } else { 0x5d });
        if rule == MinMaxRule::X86 {
            self.three(encoding, result, a, b);
            return self.deliver_xmm(index, result);
        }
        self.clobber_flags();
        self.compare_xmm(op.ty, false, a, b);
        let nan = self.c.asm.jcc(cc::P);
        let equal = self.c.asm.jcc(cc::E);
        self.three(encoding, result, a, b);
        let (ty, back) = (op.ty, self.c.asm.here());
        let special = Special::MinMax { equal, nan, back, ty, max, rule, result, a, b };
        self.c.cold.push((0, Cold::Float(special)));
        self.deliver_xmm(index, result);
    }

    fn sign(&mut self, index: u32, op: &Op) {
        let a = self.xmm(op.a);
        let result = self.result_in(index, op.a);
        let (pair, opcode) = match op.code {
            Code::FNeg => (constant::SIGN, 0x57),
            _ => (constant::MAGNITUDE, 0x54),
        };
        let mem = constant_mem(pair, op.ty);
        if self.t.features.avx2 {
            return self.c.asm.v3(encoding(0, 1, opcode), false, result, a, Rm::Mem(mem));
        }
        self.move_xmm(result, a);
        self.c.asm.sse(encoding(0, 1, opcode), result, Rm::Mem(mem));
    }

    /// Comparison as a value: equal needs two conditions, so it is made from a mask.
    fn float_boolean(&mut self, index: u32, op: &Op) {
        if op.aux != 0 {
            let condition = self.test_float(op);
            let result = self.result(index);
            self.c.asm.setcc(condition, result);
            return self.c.asm.extend(1, result, result);
        }
        let (a, b) = (self.xmm(op.a), self.xmm(op.b));
        let mask = self.temporary_xmm();
        self.three_imm(scalar(op.ty, 0xc2), mask, a, b, 0);
        let result = self.result(index);
        self.xmm_to_gpr(4, result, mask);
        self.clobber_flags();
        self.c.asm.alu_imm(4, Alu::And, Rm::Reg(result), 1);
    }

    /// The host condition of less, less or equal, unordered.
    pub fn test_float(&mut self, op: &Op) -> u8 {
        let (a, b) = (self.xmm(op.a), self.xmm(op.b));
        self.clobber_flags();
        match op.aux {
            0 => {
                // only reached for a comparison that stands alone
                let mask = self.temporary_xmm();
                self.three_imm(scalar(op.ty, 0xc2), mask, a, b, 0);
                let work = self.temporary();
                self.xmm_to_gpr(4, work, mask);
                self.c.asm.test(4, work, work);
                cc::NE
            }
            3 => {
                self.compare_xmm(op.ty, false, a, b);
                cc::P
            }
            kind => {
                // b > a, which is false for unordered
                self.compare_xmm(op.ty, kind < 3, b, a);
                if matches!(kind, 1 | 4) { cc::A } else { cc::AE }
            }
        }
    }

    fn convert(&mut self, index: u32, op: &Op) {
        let rule = FpRule::unpack(op.aux);
        let from = self.ty(op.a);
        let a = self.xmm(op.a);
        let result = self.result(index);
        let encoding = scalar(from, 0x5a);
        self.with_rounding(rule.round, |job| job.three(encoding, result, a, a));
        self.fix_nan(
            if rule.nan == NanRule::Default { rule.nan } else { NanRule::X86 },
            op.ty,
            result,
            a,
            a,
        );
    }

    fn half_float(&mut self, index: u32, op: &Op) {
        assert!(self.t.features.f16c, "front ends offer half floats only on hosts with F16C");
        let single = self.temporary_xmm();
        if op.code == Code::FFromHalf {
            let source = self.gpr(op.a);
            let half = self.temporary();
            self.c.asm.extend(2, half, source);
            self.gpr_to_xmm(4, single, half);
            self.c.asm.v3(encoding(0x66, 2, 0x13), false, single, 0, Rm::Reg(single));
            if op.ty == Type::F64 {
                self.three(encoding(0xf3, 1, 0x5a), single, single, single);
            }
            return self.deliver_xmm(index, single);
        }
        let source = self.xmm(op.a);
        let mut from = source;
        if self.ty(op.a) == Type::F64 {
            self.three(encoding(0xf2, 1, 0x5a), single, source, source);
            from = single;
        }
        // The conversion is packed: what lies in the upper lanes must raise nothing.
        self.three_imm(encoding(0x66, 3, 0x21), single, from, from, 0x0e);
        // imm 4: as MXCSR says
        self.c.asm.v3_imm(encoding(0x66, 3, 0x1d), false, single, 0, Rm::Reg(single), 4);
        let result = self.result(index);
        self.xmm_to_gpr(4, result, single);
    }

    fn convert_integer(&mut self, index: u32, op: &Op) {
        let rule = FpRule::unpack(op.aux);
        let from = self.ty(op.a);
        let source = self.gpr(op.a);
        let result = self.temporary_xmm();
        let unsigned = op.code == Code::FFromU;
        self.clear_xmm(result); // no false dependency on the old contents
        let wide = unsigned || from == Type::I64;
        let convert = Encoding { w: wide, ..scalar(op.ty, 0x2a) };
        let mut value = source;
        if unsigned && from != Type::I64 || from.bytes() < 4 {
            value = self.temporary();
            match unsigned {
                true => self.c.asm.extend(from.bytes() as u8, value, source),
                false => self.c.asm.extend_signed(from.bytes() as u8, 4, value, Rm::Reg(source)),
            }
        }
        if unsigned && from == Type::I64 {
            self.convert_unsigned(rule.round, convert, op.ty, result, value);
        } else {
            self.with_rounding(rule.round, |job| job.int_to_xmm(convert, result, value));
        }
        self.deliver_xmm(index, result);
    }

    fn int_to_xmm(&mut self, encoding: Encoding, to: Xmm, from: Gpr) {
        if self.t.features.avx2 {
            self.c.asm.v3(encoding, false, to, to, Rm::Reg(from));
        } else {
            self.c.asm.sse(encoding, to, Rm::Reg(from));
        }
    }

    /// Numbers with the top bit set are halved (keeping the lowest bit sticky), then doubled.
    fn convert_unsigned(
        &mut self,
        round: Round,
        convert: Encoding,
        ty: Type,
        result: Xmm,
        value: Gpr,
    ) {
        let (half, low) = (self.temporary(), self.temporary());
        self.with_rounding(round, |job| {
            job.clobber_flags();
            job.c.asm.test(8, value, value);
            let negative = job.c.asm.jcc(cc::S);
            job.int_to_xmm(convert, result, value);
            let done = job.c.asm.jmp_forward();
            job.c.asm.bind(negative);
            job.c.asm.mov(8, half, value);
            job.c.asm.mov(8, low, value);
            job.c.asm.shift_imm(8, Shift::Shr, half, 1);
            job.c.asm.alu_imm(4, Alu::And, Rm::Reg(low), 1);
            job.c.asm.alu(8, Alu::Or, half, Rm::Reg(low));
            job.int_to_xmm(convert, result, half);
            job.three(scalar(ty, 0x58), result, result, result);
            job.c.asm.bind(done);
        });
    }

    /// An operand rounded to an integral number, without raising inexact, if the rounding is not
    /// the conversion's own; and the conversion's opcode.
    fn rounded(&mut self, ty: Type, round: Round, a: Xmm) -> (Xmm, u8) {
        match round {
            Round::Zero => (a, 0x2c),    // cvtt
            Round::Dynamic => (a, 0x2d), // cvt
            round => (self.rounded_now(ty, round, a), 0x2c),
        }
    }

    fn rounded_now(&mut self, ty: Type, round: Round, a: Xmm) -> Xmm {
        let work = self.temporary_xmm();
        if round == Round::Away {
            self.round_away(ty, work, a);
        } else {
            let opcode = if ty == Type::F32 { 0x0a } else { 0x0b };
            // Bits 0 to 2: the mode; bit 3: inexact is not raised.
            let mode = if round == Round::Dynamic { 4 } else { round as u8 };
            self.three_imm(encoding(0x66, 3, opcode), work, a, a, mode | 8);
        }
        work
    }

    /// Raises inexact if a number that was rounded before its conversion had a fraction. It is in
    /// the range of 64 bits, or of those of `wide`.
    fn raise_inexact(&mut self, ty: Type, wide: bool, rounded: Xmm, a: Xmm) {
        if rounded != a {
            let work = self.temporary();
            self.xmm_to_int(Encoding { w: wide, ..scalar(ty, 0x2c) }, work, a);
        }
    }

    /// Ties away from zero: truncate(a + copysign(largest number below 1/2, a)).
    /// Raises invalid for a signalling NaN and nothing else.
    fn round_away(&mut self, ty: Type, work: Xmm, a: Xmm) {
        let gpr = self.temporary();
        self.clobber_flags();
        self.c.asm.mxcsr(3, Mem::gs(TEMPORARY));
        // The sum below is right when it is rounded to nearest: as Rust code's are.
        self.c.asm.mxcsr(2, Mem::gs(HOST_MXCSR));
        let below_half = match ty {
            Type::F32 => u64::from(0.5f32.to_bits() - 1),
            _ => 0.5f64.to_bits() - 1,
        };
        let half = self.temporary_xmm();
        self.c.asm.mov_imm(gpr, below_half);
        self.gpr_to_xmm(8, half, gpr);
        self.c.asm.mov_imm(gpr, if ty == Type::F32 { 1 << 31 } else { 1 << 63 });
        self.gpr_to_xmm(8, work, gpr);
        self.three(encoding(0, 1, 0x54), work, work, a);
        self.three(encoding(0, 1, 0x56), work, work, half);
        self.three(scalar(ty, 0x58), work, work, a);
        let opcode = if ty == Type::F32 { 0x0a } else { 0x0b };
        self.three_imm(encoding(0x66, 3, opcode), work, work, work, 3);
        self.c.asm.mxcsr(2, Mem::gs(TEMPORARY));
        self.compare_xmm(ty, false, a, a);
    }

    fn saturate(aux: u16) -> Saturate {
        match aux >> 8 {
            0 => Saturate::Indefinite,
            1 => Saturate::NanZero,
            _ => Saturate::NanMax,
        }
    }

    fn convert_to_signed(&mut self, index: u32, op: &Op) {
        let (rule, saturate) = (FpRule::unpack(op.aux & 0xff), Self::saturate(op.aux));
        let from = self.ty(op.a);
        let a = self.xmm(op.a);
        let (source, opcode) = self.rounded(from, rule.round, a);
        let result = self.result(index);
        let wide = op.ty == Type::I64;
        let convert = Encoding { w: wide, ..scalar(from, opcode) };
        self.xmm_to_int(convert, result, source);
        if saturate == Saturate::Indefinite {
            return self.raise_inexact(from, wide, source, a);
        }
        let spare = self.temporary();
        self.clobber_flags();
        // x - 1 overflows for "integer indefinite" only
        self.c.asm.alu_imm(if wide { 8 } else { 4 }, Alu::Cmp, Rm::Reg(result), 1);
        let from_label = self.c.asm.jcc(cc::O);
        if source != a {
            // In range: inexact, if it had a fraction.
            self.xmm_to_int(Encoding { w: wide, ..scalar(from, 0x2c) }, spare, a);
        }
        let back = self.c.asm.here();
        let special =
            Special::ToInt { from: from_label, back, ty: from, to: op.ty, saturate, result, a };
        self.c.cold.push((0, Cold::Float(special)));
    }

    fn xmm_to_int(&mut self, encoding: Encoding, to: Gpr, from: Xmm) {
        if self.t.features.avx2 {
            self.c.asm.v3(encoding, false, to, 0, Rm::Reg(from));
        } else {
            self.c.asm.sse(encoding, to, Rm::Reg(from));
        }
    }

    /// What is out of range is found before the conversion, which would call it inexact.
    fn convert_to_unsigned(&mut self, index: u32, op: &Op) {
        let (rule, saturate) = (FpRule::unpack(op.aux & 0xff), Self::saturate(op.aux));
        let from = self.ty(op.a);
        let a = self.xmm(op.a);
        let source = match rule.round {
            Round::Zero => a,
            round => self.rounded_now(from, round, a),
        };
        let convert = Encoding { w: true, ..scalar(from, 0x2c) };
        if op.ty == Type::I64 {
            return self.unsigned_64(index, from, saturate, convert, (source, a));
        }
        let work = self.temporary();
        let result = self.result(index);
        self.clobber_flags();
        self.compare_to_constant(from, source, constant::TWO_32);
        let big = self.c.asm.jcc(cc::AE);
        self.compare_to_constant(from, source, constant::MINUS_ONE);
        let small = self.c.asm.jcc(cc::BE); // or not a number
        self.xmm_to_int(convert, result, source);
        if source != a {
            self.xmm_to_int(convert, work, a);
        }
        let back = self.c.asm.here();
        let special = Special::ToUnsigned { big, small, back, ty: from, saturate, result, a };
        self.c.cold.push((0, Cold::Float(special)));
    }

    /// `ucomis` with a number in memory.
    fn compare_to_constant(&mut self, ty: Type, a: Xmm, pair: [u32; 2]) {
        let (compare, mem) = (packed(ty, 0x2e), Rm::Mem(constant_mem(pair, ty)));
        if self.t.features.avx2 {
            self.c.asm.v3(compare, false, a, 0, mem);
        } else {
            self.c.asm.sse(compare, a, mem);
        }
    }

    /// Below 2^63 as signed; else less 2^63, with the top bit set again. `source` is `a` rounded.
    fn unsigned_64(
        &mut self,
        index: u32,
        ty: Type,
        saturate: Saturate,
        convert: Encoding,
        (source, a): (Xmm, Xmm),
    ) {
        let (big, work) = (self.temporary_xmm(), self.temporary());
        let result = self.result(index);
        self.clobber_flags();
        self.compare_to_constant(ty, source, constant::MINUS_ONE);
        let is_nan = self.c.asm.jcc(cc::P);
        let is_negative = self.c.asm.jcc(cc::BE);
        self.compare_to_constant(ty, source, constant::TWO_63);
        let is_big = self.c.asm.jcc(cc::AE);
        self.xmm_to_int(convert, result, source);
        if source != a {
            self.xmm_to_int(convert, work, a);
        }
        let fits = self.c.asm.jmp_forward();
        self.c.asm.bind(is_negative);
        self.raise_invalid(ty, result);
        self.c.asm.mov_imm(result, 0);
        let negative = self.c.asm.jmp_forward();
        self.c.asm.bind(is_big);
        self.compare_to_constant(ty, source, constant::TWO_64);
        let too_big = self.c.asm.jcc(cc::AE);
        // No temporary may be had on a path that is not always taken.
        self.move_xmm(big, source);
        let limit = Rm::Mem(constant_mem(constant::TWO_63, ty));
        if self.t.features.avx2 {
            self.c.asm.v3(scalar(ty, 0x5c), false, big, big, limit);
        } else {
            self.c.asm.sse(scalar(ty, 0x5c), big, limit);
        }
        self.xmm_to_int(convert, result, big);
        self.c.asm.mov_imm(work, 1 << 63);
        self.c.asm.alu(8, Alu::Or, result, Rm::Reg(work));
        let done = self.c.asm.jmp_forward();
        self.c.asm.bind(is_nan);
        self.raise_invalid(ty, result);
        let nan = if saturate == Saturate::NanZero { 0 } else { u64::MAX };
        self.c.asm.mov_imm(result, nan);
        let not_a_number = self.c.asm.jmp_forward();
        self.c.asm.bind(too_big);
        self.raise_invalid(ty, result);
        self.c.asm.mov_imm(result, u64::MAX);
        for label in [not_a_number, done, negative, fits] {
            self.c.asm.bind(label);
        }
    }

    fn round(&mut self, index: u32, op: &Op) {
        let rule = FpRule::unpack(op.aux & 0xff);
        let inexact = op.aux & 0x100 != 0;
        let a = self.xmm(op.a);
        let result = self.temporary_xmm();
        if rule.round == Round::Away {
            self.round_away(op.ty, result, a);
        } else {
            let mode = if rule.round == Round::Dynamic { 4 } else { rule.round as u8 };
            let imm = mode | if inexact { 0 } else { 8 };
            let opcode = if op.ty == Type::F32 { 0x0a } else { 0x0b };
            self.three_imm(encoding(0x66, 3, opcode), result, a, a, imm);
        }
        let nan = if rule.nan == NanRule::Default { rule.nan } else { NanRule::X86 };
        self.fix_nan(nan, op.ty, result, a, a);
        self.deliver_xmm(index, result);
    }

    fn reinterpret(&mut self, index: u32, op: &Op) {
        let bytes = op.ty.bytes() as u8;
        if op.ty.is_vector() {
            let source = self.gpr(op.a);
            let result = self.result(index);
            self.gpr_to_xmm(bytes, result, source);
        } else {
            let source = self.xmm(op.a);
            let result = self.result(index);
            self.xmm_to_gpr(bytes, result, source);
        }
    }
}

/// The code behind the block.
impl Job<'_> {
    pub fn emit_special(&mut self, special: &Special) {
        match *special {
            Special::DefaultNan { from, back, ty, result } => {
                self.c.asm.bind(from);
                self.load_nan(ty, result);
                self.c.asm.jmp(back);
            }
            Special::OperandNan { from, back, ty, result, a, b, arm } => {
                self.c.asm.bind(from);
                self.operand_nan(ty, result, a, b, arm);
                self.c.asm.jmp(back);
            }
            Special::MinMax { equal, nan, back, ty, max, rule, result, a, b } => {
                self.c.asm.bind(equal);
                // Equal numbers differ in sign only: min is the or of the bits, max the and.
                let opcode = if max { 0x54 } else { 0x56 };
                self.three_now(encoding(0, 1, opcode), result, a, b);
                self.c.asm.jmp(back);
                self.c.asm.bind(nan);
                self.min_max_nan(ty, rule, result, a, b);
                self.c.asm.jmp(back);
            }
            Special::ToInt { from, back, ty, to, saturate, result, a } => {
                self.c.asm.bind(from);
                let max = if to == Type::I64 { i64::MAX as u64 } else { i32::MAX as u64 };
                let nan = if saturate == Saturate::NanZero { 0 } else { max };
                self.compare_xmm(ty, false, a, a);
                self.jump_if_nan(back, result, nan);
                // Its sign says on which side it did not fit; negative keeps the minimum.
                self.branch_on_sign(ty, a, back, |asm| asm.mov_imm(result, max));
                self.c.asm.jmp(back);
            }
            Special::ToUnsigned { big, small, back, ty, saturate, result, a } => {
                self.c.asm.bind(big);
                self.c.asm.bind(small);
                self.raise_invalid(ty, result);
                let max = u64::from(u32::MAX);
                let nan = if saturate == Saturate::NanZero { 0 } else { max };
                self.compare_xmm(ty, false, a, a);
                self.jump_if_nan(back, result, nan);
                self.c.asm.mov_imm(result, 0);
                self.branch_on_sign(ty, a, back, |asm| asm.mov_imm(result, max));
                self.c.asm.jmp(back);
            }
        }
    }

    /// The invalid exception, which the host's wider conversion did not raise: converts a NaN.
    fn raise_invalid(&mut self, ty: Type, result: Gpr) {
        let nan = Rm::Mem(constant_mem(constant::NAN, ty));
        let convert = Encoding { w: true, ..scalar(ty, 0x2c) };
        if self.t.features.avx2 {
            self.c.asm.v3(convert, false, result, 0, nan);
        } else {
            self.c.asm.sse(convert, result, nan);
        }
    }

    fn jump_if_nan(&mut self, back: u64, result: Gpr, value: u64) {
        let number = self.c.asm.jcc(cc::NP);
        self.c.asm.mov_imm(result, value);
        self.c.asm.jmp(back);
        self.c.asm.bind(number);
    }

    /// Jumps back if the number is negative, else does `positive`.
    fn branch_on_sign(
        &mut self,
        ty: Type,
        a: Xmm,
        back: u64,
        positive: impl FnOnce(&mut super::super::asm::Asm),
    ) {
        let bytes = ty.bytes() as u8;
        let place = Mem::gs(super::super::vcpu_block::SAVED);
        super::super::stubs::move_vector(&mut self.c.asm, self.t.features, ty, a, place, true);
        self.c.asm.alu_imm(bytes, Alu::Cmp, Rm::Mem(place), 0);
        self.c.asm.jcc_to(8, back);
        positive(&mut self.c.asm);
    }

    pub(super) fn load_nan(&mut self, ty: Type, result: Xmm) {
        let mem = constant_mem(constant::NAN, ty);
        super::super::stubs::move_vector(&mut self.c.asm, self.t.features, ty, result, mem, false);
    }

    /// `three` behind the block, where no temporary can be had: `to` is none of the operands.
    fn three_now(&mut self, encoding: Encoding, to: Xmm, a: Xmm, b: Xmm) {
        if self.t.features.avx2 {
            return self.c.asm.v3(encoding, false, to, a, Rm::Reg(b));
        }
        self.move_xmm(to, a);
        self.c.asm.sse(encoding, to, Rm::Reg(b));
    }

    /// `result` is neither `a` nor `b`.
    fn operand_nan(&mut self, ty: Type, result: Xmm, a: Xmm, b: Xmm, arm: bool) {
        // Adding makes a NaN quiet: x + x is x's NaN by the host's rule.
        let quiet = scalar(ty, 0x58);
        let mut done = Vec::new();
        let bit = if ty == Type::F32 { 22 } else { 51 };
        let place = Mem::gs(super::super::vcpu_block::SAVED);
        let rounds: &[(Xmm, bool)] = if arm {
            &[(a, true), (b, true), (a, false), (b, false)]
        } else {
            &[(a, false), (b, false)]
        };
        for &(operand, signalling) in rounds {
            self.compare_xmm(ty, false, operand, operand);
            let number = self.c.asm.jcc(cc::NP);
            let mut is_quiet = None;
            if signalling {
                super::super::stubs::move_vector(
                    &mut self.c.asm,
                    self.t.features,
                    ty,
                    operand,
                    place,
                    true,
                );
                self.c.asm.bt_imm(if bit > 31 { 8 } else { 4 }, Rm::Mem(place), bit);
                is_quiet = Some(self.c.asm.jcc(cc::B));
            }
            self.three_now(quiet, result, operand, operand);
            done.push(self.c.asm.jmp_forward());
            self.c.asm.bind(number);
            if let Some(label) = is_quiet {
                self.c.asm.bind(label);
            }
        }
        self.load_nan(ty, result);
        for label in done {
            self.c.asm.bind(label);
        }
    }

    fn min_max_nan(&mut self, ty: Type, rule: MinMaxRule, result: Xmm, a: Xmm, b: Xmm) {
        if rule == MinMaxRule::Nan {
            return self.operand_nan(ty, result, a, b, true);
        }
        // The number, if one is; else the canonical NaN.
        self.compare_xmm(ty, false, a, a);
        let a_is_nan = self.c.asm.jcc(cc::P);
        self.move_xmm(result, a);
        let done = self.c.asm.jmp_forward();
        self.c.asm.bind(a_is_nan);
        self.compare_xmm(ty, false, b, b);
        let b_is_nan = self.c.asm.jcc(cc::P);
        self.move_xmm(result, b);
        let done_too = self.c.asm.jmp_forward();
        self.c.asm.bind(b_is_nan);
        self.load_nan(ty, result);
        self.c.asm.bind(done);
        self.c.asm.bind(done_too);
    }
}
