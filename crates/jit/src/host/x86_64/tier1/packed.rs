//! Packed floating point with Arm's NaN rules: host instructions, and the lanes that are NaNs put
//! right behind the block.

use isa::ir::{Encoding, Form, Lane, Op, PackedRule, Type};

use super::super::asm::{Label, Mem, Rm, Xmm, cc};
use super::super::map::SCRATCH_XMMS;
use super::super::stubs::move_vector;
use super::super::vcpu_block::{CONSTANTS, SAVED, TEMPORARY, constant};
use super::{Cold, Job};

/// A packed result in which some lane is a NaN.
#[derive(Clone, Copy, Debug)]
pub struct Fix {
    from: Label,
    back: u64,
    lane: Lane,
    /// The lanes' type.
    ty: Type,
    rule: PackedRule,
    result: Xmm,
    /// Operands in the order of their precedence.
    operands: [Option<Xmm>; 3],
    /// The last two are factors of a fused product.
    fused: bool,
    /// Only the low lane counts.
    scalar: bool,
}

const fn encoding(prefix: u8, map: u8, opcode: u8) -> Encoding {
    Encoding { prefix, map, opcode, w: false }
}

const AND: Encoding = encoding(0, 1, 0x54);
const AND_NOT: Encoding = encoding(0, 1, 0x55);
const OR: Encoding = encoding(0, 1, 0x56);
/// `cmpps`, `cmppd`: predicate unordered.
const UNORDERED: u8 = 3;

fn prefix(ty: Type) -> u8 {
    if ty == Type::F32 { 0 } else { 0x66 }
}

fn which(ty: Type) -> usize {
    usize::from(ty != Type::F32)
}

impl Job<'_> {
    pub fn packed(&mut self, index: u32, op: &Op) {
        let (lane, rule) = (Lane::from_aux(op.aux & 0xfff), PackedRule::from_aux(op.aux));
        let row = lane.row();
        let ty = lane_type(lane);
        let a = self.xmm(op.a);
        let work = self.temporary_xmm();
        let mut operands = [Some(a), None, None];
        match row.form {
            Form::Unary | Form::UnaryImm => {
                let imm = (row.form == Form::UnaryImm).then_some(op.c.0 as u8);
                self.unary(row.encoding, false, work, a, imm);
            }
            Form::Fma => {
                assert!(self.t.features.fma, "front ends offer FMA only on hosts with FMA");
                let (b, c) = (self.xmm(op.b), self.xmm(op.c));
                operands = [Some(c), Some(a), Some(b)];
                self.move_xmm(work, a);
                self.c.asm.v3(row.encoding, false, work, b, Rm::Reg(c));
            }
            _ => {
                let b = self.xmm(op.b);
                operands[1] = Some(b);
                if !matches!(rule, PackedRule::MinMax | PackedRule::MinMaxDefault) {
                    self.three(row.encoding, work, a, b);
                }
            }
        }
        let kept = self.mask_register(&operands, work);
        let mask = kept.unwrap_or_else(|| self.temporary_xmm());
        match (rule, operands[1]) {
            // The host's minimum calls quiet NaNs invalid, so they are looked for before it.
            (PackedRule::MinMax | PackedRule::MinMaxDefault, Some(b)) => {
                self.unordered(ty, mask, a, b);
            }
            _ => self.unordered(ty, mask, work, work),
        }
        let bits = self.temporary();
        self.clobber_flags();
        self.xmm_mask(ty, bits, mask);
        if kept.is_some() {
            self.keep(mask, SAVED, false);
        }
        self.c.asm.test(4, bits, bits);
        let from = self.c.asm.jcc(cc::NE);
        if let (PackedRule::MinMax | PackedRule::MinMaxDefault, Some(b)) = (rule, operands[1]) {
            self.min_max_lanes(lane, work, mask, a, b);
        }
        let back = self.c.asm.here();
        let fused = row.form == Form::Fma;
        let result = work;
        let scalar = false;
        let fix = Fix { from, back, lane, ty, rule, result, operands, fused, scalar };
        self.c.cold.push((0, Cold::Packed(fix)));
        self.deliver_xmm(index, work);
    }

    /// Zeros of either sign: or for the minimum, and for the maximum. `mask` is used up; `b` may
    /// be it.
    fn min_max_lanes(&mut self, lane: Lane, to: Xmm, mask: Xmm, a: Xmm, b: Xmm) {
        let encoding = lane.row().encoding;
        let max = matches!(lane, Lane::FMax32 | Lane::FMax64);
        self.three(encoding, to, a, b);
        self.three(encoding, mask, b, a);
        self.three(if max { AND } else { OR }, to, to, mask);
    }

    /// A fused operation may need all scratch registers for itself: then a pinned one, whose
    /// contents are put aside, for the mask.
    fn mask_register(&mut self, operands: &[Option<Xmm>; 3], work: Xmm) -> Option<Xmm> {
        let is_scratch = |x: Xmm| x >= 16 - SCRATCH_XMMS;
        let used: u16 = operands.iter().flatten().chain([&work]).fold(0, |set, x| set | 1 << *x);
        let scarce = (0..16).filter(|x| is_scratch(*x) && used & 1 << x != 0).count();
        if scarce < usize::from(SCRATCH_XMMS) {
            return None;
        }
        let pinned = (0..16).find(|x| !is_scratch(*x) && used & 1 << x == 0)?;
        self.keep(pinned, SAVED, true);
        Some(pinned)
    }

    /// Signs of the lanes to a general register.
    fn xmm_mask(&mut self, ty: Type, to: u8, from: Xmm) {
        let encoding = encoding(prefix(ty), 1, 0x50);
        if self.t.features.avx2 {
            self.c.asm.v3(encoding, false, to, 0, Rm::Reg(from));
        } else {
            self.c.asm.sse(encoding, to, Rm::Reg(from));
        }
    }

    /// After a scalar fused operation `a * b + c`.
    pub fn fix_fused(&mut self, rule: PackedRule, ty: Type, result: Xmm, [a, b, c]: [Xmm; 3]) {
        self.clobber_flags();
        self.compare_xmm(ty, false, result, result);
        let from = self.c.asm.jcc(cc::P);
        let back = self.c.asm.here();
        let operands = [Some(c), Some(a), Some(b)];
        let lane = Lane::FMulAdd32;
        let (fused, scalar) = (true, true);
        let fix = Fix { from, back, lane, ty, rule, result, operands, fused, scalar };
        self.c.cold.push((0, Cold::Packed(fix)));
    }

    /// The code behind the block. Lanes are chosen by masks; two registers and the sticky flags
    /// are put aside.
    pub fn emit_packed_fix(&mut self, fix: &Fix) {
        let Fix { from, back, lane, ty, rule, result, operands, fused, .. } = *fix;
        self.c.asm.bind(from);
        let is_free = |x: &Xmm| *x != result && !operands.contains(&Some(*x));
        let mut free = (0..16).filter(is_free);
        let (mask, value) = (free.next().unwrap_or(0), free.next().unwrap_or(1));
        self.keep(mask, SAVED, true);
        self.keep(value, SAVED + 16, true);
        if let (PackedRule::MinMax | PackedRule::MinMaxDefault, [Some(a), Some(b), _]) =
            (rule, operands)
        {
            // Of zeros where there is a NaN.
            self.unordered(ty, mask, a, b);
            self.three(AND_NOT, value, mask, a);
            self.three(AND_NOT, mask, mask, b);
            self.min_max_lanes(lane, result, mask, value, mask);
        }
        // What is looked at from here on raises nothing, in lanes that do not count either.
        self.c.asm.mxcsr(3, Mem::gs(TEMPORARY));
        self.nan_lanes(fix, mask);
        self.load_constant(value, ty);
        self.choose(ty, result, mask, value, false);
        let ordered = matches!(rule, PackedRule::Arm | PackedRule::MinMax);
        let chosen = operands.iter().flatten().rev().filter(|_| ordered);
        for &operand in chosen.clone() {
            self.unordered(ty, mask, operand, operand);
            self.quiet_into(ty, value, operand);
            self.choose(ty, result, mask, value, false);
        }
        if fused {
            self.infinity_times_zero(fix, mask, value);
        }
        for &operand in chosen {
            self.signalling(ty, mask, value, operand);
            self.quiet_into(ty, value, operand);
            self.choose(ty, result, mask, value, true);
        }
        self.c.asm.mxcsr(2, Mem::gs(TEMPORARY));
        self.keep(mask, SAVED, false);
        self.keep(value, SAVED + 16, false);
        self.c.asm.jmp(back);
    }

    fn keep(&mut self, register: Xmm, place: u32, store: bool) {
        let mem = Mem::gs(place);
        move_vector(&mut self.c.asm, self.t.features, Type::V128, register, mem, store);
    }

    /// The lanes to put right.
    fn nan_lanes(&mut self, fix: &Fix, mask: Xmm) {
        match (fix.rule, fix.operands) {
            (PackedRule::MinMax | PackedRule::MinMaxDefault, [Some(a), Some(b), _]) => {
                self.unordered(fix.ty, mask, a, b);
            }
            _ => self.unordered(fix.ty, mask, fix.result, fix.result),
        }
    }

    fn load_constant(&mut self, to: Xmm, ty: Type) {
        self.keep(to, CONSTANTS + constant::NAN[which(ty)], false);
    }

    /// `to` is neither operand.
    fn unordered(&mut self, ty: Type, to: Xmm, a: Xmm, b: Xmm) {
        self.three_imm(encoding(prefix(ty), 1, 0xc2), to, a, b, UNORDERED);
    }

    /// A NaN made quiet: its exponent is all ones, so the canonical NaN adds just that bit.
    fn quiet_into(&mut self, ty: Type, to: Xmm, from: Xmm) {
        self.load_constant(to, ty);
        self.three(OR, to, to, from);
    }

    /// A mask, valid in the sign bits, of the lanes that are signalling NaNs.
    fn signalling(&mut self, ty: Type, mask: Xmm, work: Xmm, from: Xmm) {
        // The quiet bit to the sign.
        let (digit, opcode, by) = if ty == Type::F32 { (6, 0x72, 9) } else { (6, 0x73, 12) };
        self.shift_lanes(opcode, digit, work, from, by);
        self.unordered(ty, mask, from, from);
        // work = !work & mask
        self.three(AND_NOT, work, work, mask);
        self.move_xmm(mask, work);
    }

    fn shift_lanes(&mut self, opcode: u8, digit: u8, to: Xmm, from: Xmm, by: u8) {
        let row = encoding(0x66, 1, opcode);
        if self.t.features.avx2 {
            return self.c.asm.v3_imm(row, false, digit, to, Rm::Reg(from), by);
        }
        self.move_xmm(to, from);
        self.c.asm.sse_imm(row, digit, Rm::Reg(to), by);
    }

    /// `result` = `value` in the lanes of `mask` (its signs if `signs`); both are used up.
    fn choose(&mut self, ty: Type, result: Xmm, mask: Xmm, value: Xmm, signs: bool) {
        if signs {
            self.shift_lanes(0x72, 4, mask, mask, 31);
            if ty == Type::F64 {
                // The upper word of each lane to both.
                self.unary(encoding(0x66, 1, 0x70), false, mask, mask, Some(0xf5));
            }
        }
        self.three(AND, value, value, mask);
        self.three(AND_NOT, mask, mask, result);
        self.three(OR, mask, mask, value);
        self.move_xmm(result, mask);
    }

    /// Infinity times zero with a quiet NaN as addend is a new NaN.
    fn infinity_times_zero(&mut self, fix: &Fix, mask: Xmm, value: Xmm) {
        let [Some(addend), Some(a), Some(b)] = fix.operands else { return };
        let ty = fix.ty;
        self.three(encoding(prefix(ty), 1, 0x59), mask, a, b);
        self.unordered_in_place(ty, mask);
        self.unordered(ty, value, a, b);
        self.three(AND_NOT, value, value, mask);
        self.unordered(ty, mask, addend, addend);
        self.three(AND, mask, mask, value);
        // It is invalid, which the host leaves out: infinity less infinity there.
        let (opcode, by) = if ty == Type::F32 { (0x72, 23) } else { (0x73, 52) };
        self.shift_lanes(opcode, 6, value, mask, by);
        let subtract = match (fix.scalar, ty) {
            (true, Type::F32) => encoding(0xf3, 1, 0x5c),
            (true, _) => encoding(0xf2, 1, 0x5c),
            _ => encoding(prefix(ty), 1, 0x5c),
        };
        self.c.asm.mxcsr(2, Mem::gs(TEMPORARY));
        self.three(subtract, value, value, value);
        self.c.asm.mxcsr(3, Mem::gs(TEMPORARY));
        self.load_constant(value, ty);
        self.choose(ty, fix.result, mask, value, false);
    }

    fn unordered_in_place(&mut self, ty: Type, to: Xmm) {
        let compare = encoding(prefix(ty), 1, 0xc2);
        if self.t.features.avx2 {
            self.c.asm.v3_imm(compare, false, to, to, Rm::Reg(to), UNORDERED);
        } else {
            self.c.asm.sse_imm(compare, to, Rm::Reg(to), UNORDERED);
        }
    }
}

/// The lanes' type, by the row's prefix: packed doubles have 0x66, fused ones VEX.W.
fn lane_type(lane: Lane) -> Type {
    let row = lane.row();
    let double = match row.form {
        Form::Fma => row.encoding.w,
        Form::UnaryImm => lane == Lane::FRound64,
        _ => row.encoding.prefix == 0x66,
    };
    if double { Type::F64 } else { Type::F32 }
}
