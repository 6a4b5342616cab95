//! Vector registers and lane operations.

use isa::ir::{Code, Encoding, Form, Lane, LaneRow, Op, Type, Value};

use super::super::asm::{Gpr, Mem, Rm, Xmm};
use super::super::map::NONE;
use super::super::stubs::move_vector;
use super::super::vcpu_block as block;
use super::Job;
use super::registers::{Home, spill_mem};

const fn encoding(prefix: u8, map: u8, opcode: u8) -> Encoding {
    Encoding { prefix, map, opcode, w: false }
}

/// `movaps`.
const MOVE: Encoding = encoding(0, 1, 0x28);
/// `vinserti128`.
const INSERT_HALF: Encoding = encoding(0x66, 3, 0x38);
const VZEROUPPER: &[u8] = &[0xc5, 0xf8, 0x77];
/// `pxor`.
const XOR: Encoding = encoding(0x66, 1, 0xef);

/// Moving.
impl Job<'_> {
    fn avx(&self) -> bool {
        self.t.features.avx2
    }

    /// A value in a vector register, locked.
    pub fn xmm(&mut self, value: Value) -> Xmm {
        let index = self.canon(value);
        let register = self.c.values[index as usize].place;
        if register != NONE {
            self.c.xmms.lock(register);
            return register;
        }
        let register = self.temporary_xmm();
        let op = self.ops[index as usize];
        match self.c.values[index as usize].home {
            Home::State(offset) => {
                let mem = Mem::gs(block::STATE + u32::from(offset));
                move_vector(&mut self.c.asm, self.t.features, op.ty, register, mem, false);
            }
            Home::Spill(slot) => {
                move_vector(
                    &mut self.c.asm,
                    self.t.features,
                    op.ty,
                    register,
                    spill_mem(slot),
                    false,
                );
            }
            Home::None => match op.code {
                Code::Const => self.constant_xmm(register, op.immediate()),
                code => unreachable!("{code:?} was not computed before its use"),
            },
        }
        self.own_xmm(index, register);
        register
    }

    fn constant_xmm(&mut self, register: Xmm, value: u64) {
        if value == 0 {
            return self.clear_xmm(register);
        }
        let gpr = self.temporary();
        self.c.asm.mov_imm(gpr, value);
        self.gpr_to_xmm(8, register, gpr);
    }

    pub fn clear_xmm(&mut self, register: Xmm) {
        self.three(XOR, register, register, register);
    }

    pub fn move_xmm(&mut self, to: Xmm, from: Xmm) {
        if to == from {
            return;
        }
        if self.avx() {
            self.c.asm.v3(MOVE, self.c.wide, to, 0, Rm::Reg(from));
        } else {
            self.c.asm.sse(MOVE, to, Rm::Reg(from));
        }
    }

    /// `movd`, `movq` from a general register; the upper lanes become zero.
    pub fn gpr_to_xmm(&mut self, bytes: u8, to: Xmm, from: Gpr) {
        let encoding = Encoding { prefix: 0x66, map: 1, opcode: 0x6e, w: bytes == 8 };
        self.vex_or_sse(encoding, to, 0, from);
    }

    /// `movd`, `movq` to a general register.
    pub fn xmm_to_gpr(&mut self, bytes: u8, to: Gpr, from: Xmm) {
        let encoding = Encoding { prefix: 0x66, map: 1, opcode: 0x7e, w: bytes == 8 };
        self.vex_or_sse(encoding, from, 0, to);
    }

    /// An instruction whose VEX form has the same operands (`vvvv` unused or given).
    fn vex_or_sse(&mut self, encoding: Encoding, reg: u8, vvvv: u8, rm: u8) {
        if self.avx() {
            self.c.asm.v3(encoding, false, reg, vvvv, Rm::Reg(rm));
        } else {
            self.c.asm.sse(encoding, reg, Rm::Reg(rm));
        }
    }

    /// `to = op(a, b)` on vector registers, in either form. Without AVX a temporary keeps `b`
    /// when it is also the destination.
    pub fn three(&mut self, encoding: Encoding, to: Xmm, a: Xmm, b: Xmm) {
        if self.avx() {
            return self.c.asm.v3(encoding, false, to, a, Rm::Reg(b));
        }
        let b = self.out_of_the_way(to, a, b);
        self.move_xmm(to, a);
        self.c.asm.sse(encoding, to, Rm::Reg(b));
    }

    pub fn three_imm(&mut self, encoding: Encoding, to: Xmm, a: Xmm, b: Xmm, imm: u8) {
        if self.avx() {
            return self.c.asm.v3_imm(encoding, false, to, a, Rm::Reg(b), imm);
        }
        let b = self.out_of_the_way(to, a, b);
        self.move_xmm(to, a);
        self.c.asm.sse_imm(encoding, to, Rm::Reg(b), imm);
    }

    fn out_of_the_way(&mut self, to: Xmm, a: Xmm, b: Xmm) -> Xmm {
        if to != b || to == a {
            return b;
        }
        let copy = self.temporary_xmm();
        self.move_xmm(copy, b);
        copy
    }

    /// A lane to a general register, zero-extended.
    pub fn lane_to_gpr(&mut self, bytes: u32, to: Gpr, from: Xmm, lane: u32) {
        if bytes >= 4 && lane == 0 {
            return self.xmm_to_gpr(bytes as u8, to, from);
        }
        let opcode = match bytes {
            1 => 0x14,
            2 => 0x15,
            _ => 0x16,
        };
        let encoding = Encoding { prefix: 0x66, map: 3, opcode, w: bytes == 8 };
        if self.avx() {
            self.c.asm.v3_imm(encoding, false, from, 0, Rm::Reg(to), lane as u8);
        } else {
            self.c.asm.sse_imm(encoding, from, Rm::Reg(to), lane as u8);
        }
    }

    /// A general register to a lane.
    pub fn gpr_to_lane(&mut self, bytes: u32, to: Xmm, from: Gpr, lane: u32) {
        let encoding = match bytes {
            1 => encoding(0x66, 3, 0x20),
            2 => encoding(0x66, 1, 0xc4),
            _ => Encoding { prefix: 0x66, map: 3, opcode: 0x22, w: bytes == 8 },
        };
        if self.avx() {
            self.c.asm.v3_imm(encoding, false, to, to, Rm::Reg(from), lane as u8);
        } else {
            self.c.asm.sse_imm(encoding, to, Rm::Reg(from), lane as u8);
        }
    }

    /// The part of a vector register that begins `inside` bytes in.
    pub fn vector_part(&mut self, to: Xmm, from: Xmm, inside: u32) {
        if inside >= 16 {
            let extract = encoding(0x66, 3, 0x39); // vextracti128 xmm, ymm, 1
            self.c.asm.v3_imm(extract, true, from, 0, Rm::Reg(to), 1);
            if inside > 16 {
                self.shift_right(to, to, inside - 16);
            }
        } else {
            self.shift_right(to, from, inside);
        }
    }

    fn shift_right(&mut self, to: Xmm, from: Xmm, bytes: u32) {
        let row = Lane::ShrBytes.row().encoding;
        if self.avx() {
            self.c.asm.v3_imm(row, false, 3, to, Rm::Reg(from), bytes as u8);
        } else {
            self.move_xmm(to, from);
            self.c.asm.sse_imm(row, 3, Rm::Reg(to), bytes as u8);
        }
    }

    /// Replaces a part of a pinned vector register.
    pub fn put_vector_part(&mut self, ty: Type, to: Xmm, from: Xmm, inside: u32) {
        match (ty, inside) {
            (Type::F32, 0) => self.three(encoding(0xf3, 1, 0x10), to, to, from),
            (Type::F64, 0) => self.three(encoding(0xf2, 1, 0x10), to, to, from),
            (Type::V128, 0 | 16) => {
                let half = (inside / 16) as u8;
                if half == 0 {
                    // vblendps: one cycle
                    return self.c.asm.v3_imm(
                        encoding(0x66, 3, 0x0c),
                        true,
                        to,
                        to,
                        Rm::Reg(from),
                        0x0f,
                    );
                }
                self.c.asm.v3_imm(INSERT_HALF, true, to, to, Rm::Reg(from), half);
            }
            _ => {
                let gpr = self.temporary();
                let bytes = ty.bytes();
                self.xmm_to_gpr(bytes as u8, gpr, from);
                self.gpr_to_lane(bytes, to, gpr, inside / bytes);
            }
        }
    }

    pub fn select_vector(&mut self, index: u32, op: &Op) {
        let condition = self.canon(op.a);
        let (yes, no) = (self.xmm(op.b), self.xmm(op.c));
        let result = self.temporary_xmm();
        let cc = self.condition_code(condition);
        self.move_xmm(result, yes);
        let chosen = self.c.asm.jcc(cc);
        self.move_xmm(result, no);
        self.c.asm.bind(chosen);
        self.deliver_xmm(index, result);
    }

    /// The result is in a temporary: it stays there, or goes where it is going to be put.
    pub fn deliver_xmm(&mut self, index: u32, from: Xmm) {
        if self.c.values[index as usize].hint == NONE {
            return self.result_is(index, from);
        }
        let result = self.result(index);
        self.move_xmm(result, from);
    }
}

/// Operations.
impl Job<'_> {
    pub fn vector(&mut self, index: u32, op: &Op) {
        match op.code {
            Code::Lanes => self.lanes(index, op),
            Code::Scalar => {
                let source = self.xmm(op.a);
                let result = self.result_in(index, op.a);
                self.move_xmm(result, source);
            }
            Code::ZeroUpper => self.zero_upper(index, op),
            Code::SetScalar => {
                let (a, b) = (self.xmm(op.a), self.xmm(op.b));
                let result = self.result_in(index, op.a);
                let prefix = if self.ty(op.b) == Type::F32 { 0xf3 } else { 0xf2 };
                self.three(encoding(prefix, 1, 0x10), result, a, b);
            }
            Code::LaneGet => {
                let source = self.xmm(op.a);
                let bytes = op.ty.bytes();
                let per_half = 16 / bytes;
                let result = self.result(index);
                if op.b.0 < per_half {
                    return self.lane_to_gpr(bytes, result, source, op.b.0);
                }
                let half = self.temporary_xmm();
                self.vector_part(half, source, 16);
                self.lane_to_gpr(bytes, result, half, op.b.0 - per_half);
            }
            Code::LanePut => {
                let (a, b) = (self.xmm(op.a), self.gpr(op.b));
                let result = self.result_in(index, op.a);
                self.move_xmm(result, a);
                self.gpr_to_lane(u32::from(op.aux), result, b, op.c.0);
            }
            Code::Splat => self.splat(index, op),
            Code::HighHalf | Code::Join => self.halves(index, op),
            Code::ClearUppers => self.clear_uppers(op),
            _ => self.half(index, op),
        }
    }

    fn half(&mut self, index: u32, op: &Op) {
        if self.ty(op.a) == Type::I128 {
            return self.half_of_wide(index, op);
        }
        let source = self.xmm(op.a);
        let result = self.result(index);
        self.lane_to_gpr(8, result, source, u32::from(op.code == Code::Hi));
    }

    fn zero_upper(&mut self, index: u32, op: &Op) {
        let from = self.ty(op.a);
        if !from.is_vector() {
            let source = self.gpr(op.a);
            let result = self.result(index);
            if from.bytes() < 4 {
                let wide = self.temporary();
                self.c.asm.extend(from.bytes() as u8, wide, source);
                return self.gpr_to_xmm(4, result, wide);
            }
            return self.gpr_to_xmm(from.bytes() as u8, result, source);
        }
        let source = self.xmm(op.a);
        let result = self.result(index);
        match from {
            // movq xmm, xmm
            Type::F64 => self.vex_or_sse(encoding(0xf3, 1, 0x7e), result, 0, source),
            Type::F32 => {
                // insertps: lane 0 of the source, lanes 1 to 3 zero
                let insert = encoding(0x66, 3, 0x21);
                self.three_imm(insert, result, source, source, 0x0e);
            }
            // Of 128 bits: what is above them becomes zero.
            _ => self.vex_or_sse(MOVE, result, 0, source),
        }
    }

    fn splat(&mut self, index: u32, op: &Op) {
        let source = self.gpr(op.a);
        let result = self.result(index);
        let bytes = op.aux as u8;
        self.gpr_to_xmm(if bytes == 8 { 8 } else { 4 }, result, source);
        if self.avx() {
            let opcode = match bytes {
                1 => 0x78,
                2 => 0x79,
                4 => 0x58,
                _ => 0x59,
            };
            let wide = op.ty == Type::V256;
            return self.c.asm.v3(encoding(0x66, 2, opcode), wide, result, 0, Rm::Reg(result));
        }
        match bytes {
            1 => {
                let zero = self.temporary_xmm();
                self.c.asm.sse(XOR, zero, Rm::Reg(zero));
                self.c.asm.sse(encoding(0x66, 2, 0x00), result, Rm::Reg(zero)); // pshufb
            }
            2 => {
                self.c.asm.sse_imm(encoding(0xf2, 1, 0x70), result, Rm::Reg(result), 0);
                self.c.asm.sse_imm(encoding(0x66, 1, 0x70), result, Rm::Reg(result), 0);
            }
            4 => self.c.asm.sse_imm(encoding(0x66, 1, 0x70), result, Rm::Reg(result), 0),
            _ => self.c.asm.sse_imm(encoding(0x66, 1, 0x70), result, Rm::Reg(result), 0x44),
        }
    }

    fn lanes(&mut self, index: u32, op: &Op) {
        let lane = Lane::from_aux(op.aux);
        let row = lane.row();
        let wide = self.ty(op.a) == Type::V256 || op.ty == Type::V256;
        let imm = op.c.0 as u8;
        if row.legacy {
            return self.legacy_lanes(index, op, row, imm);
        }
        match row.form {
            Form::Unary | Form::UnaryImm => {
                let a = self.xmm(op.a);
                let result = self.result(index);
                self.unary(
                    row.encoding,
                    wide,
                    result,
                    a,
                    (row.form == Form::UnaryImm).then_some(imm),
                );
            }
            Form::Binary => {
                let (a, b) = (self.xmm(op.a), self.xmm(op.b));
                let result = self.result_in(index, op.a);
                if wide {
                    return self.c.asm.v3(row.encoding, true, result, a, Rm::Reg(b));
                }
                self.three(row.encoding, result, a, b);
            }
            Form::BinaryImm => {
                let (a, b) = (self.xmm(op.a), self.xmm(op.b));
                let result = self.result_in(index, op.a);
                if wide {
                    return self.c.asm.v3_imm(row.encoding, true, result, a, Rm::Reg(b), imm);
                }
                self.three_imm(row.encoding, result, a, b, imm);
            }
            Form::ShiftImm(digit) => {
                let a = self.xmm(op.a);
                let result = self.result_in(index, op.a);
                if self.avx() {
                    return self.c.asm.v3_imm(row.encoding, wide, digit, result, Rm::Reg(a), imm);
                }
                self.move_xmm(result, a);
                self.c.asm.sse_imm(row.encoding, digit, Rm::Reg(result), imm);
            }
            Form::Mask => self.lane_mask(index, op, row.encoding, wide),
            Form::Ternary => self.blend(index, op, row.encoding, wide),
            Form::UnaryImmReversed => {
                let a = self.xmm(op.a);
                let result = self.result(index);
                self.c.asm.v3_imm(row.encoding, wide, a, 0, Rm::Reg(result), imm);
            }
            Form::Fma => self.fused_lanes(index, op, row, wide),
        }
    }

    /// The three forms of a fused operation differ in which operand they overwrite. In packed rows
    /// it is the one that the result replaces, if there is one; else the first.
    fn fused_lanes(&mut self, index: u32, op: &Op, row: &LaneRow, wide: bool) {
        assert!(self.t.features.fma, "front ends offer FMA only on hosts with FMA");
        let (a, b, c) = (self.xmm(op.a), self.xmm(op.b), self.xmm(op.c));
        let packed = row.widest == Type::V256;
        let hint = self.c.values[index as usize].hint;
        let apart = (a != b) && (b != c) && (a != c);
        if packed && apart && hint != NONE && [b, c].contains(&hint) {
            // Whatever else is that register's moves out before it is overwritten.
            let result = self.result(index);
            let form = |minus: u8| Encoding { opcode: row.encoding.opcode - minus, ..row.encoding };
            if result == c {
                let add = Encoding { opcode: row.encoding.opcode + 0x10, ..row.encoding };
                return self.c.asm.v3(add, wide, result, b, Rm::Reg(a)); // 231
            }
            return self.c.asm.v3(form(0x10), wide, result, c, Rm::Reg(a)); // 132
        }
        if hint == a && apart {
            let result = self.result(index);
            return self.c.asm.v3(row.encoding, wide, result, b, Rm::Reg(c));
        }
        let work = self.temporary_xmm();
        self.move_xmm(work, a);
        // 213: work = b * work + c
        self.c.asm.v3(row.encoding, wide, work, b, Rm::Reg(c));
        self.deliver_xmm(index, work);
    }

    /// Rows that the host has as `dst = op(dst, b)` only, whatever its vector extensions. Some hosts
    /// take 150 cycles for each such instruction among those with VEX, unless they were told that
    /// upper halves are zero; where they are not, it cannot be helped.
    fn legacy_lanes(&mut self, index: u32, op: &Op, row: &LaneRow, imm: u8) {
        if self.avx() && !self.c.wide && !std::mem::replace(&mut self.c.uppers_clear, true) {
            self.c.asm.raw(VZEROUPPER);
        }
        let (a, b) = (self.xmm(op.a), self.xmm(op.b));
        let mask = (row.form == Form::Ternary).then(|| self.xmm(op.c));
        let work = self.temporary_xmm();
        self.vex_or_sse(MOVE, work, 0, a); // clears what is above
        match mask {
            Some(mask) => self.with_mask_in_xmm0(row.encoding, work, b, mask),
            None if row.form == Form::BinaryImm => {
                self.c.asm.sse_imm(row.encoding, work, Rm::Reg(b), imm);
            }
            None => self.c.asm.sse(row.encoding, work, Rm::Reg(b)),
        }
        self.deliver_xmm(index, work);
    }

    /// `work = op(work, b, mask)` for instructions that have their mask in XMM0, which may be
    /// pinned.
    fn with_mask_in_xmm0(&mut self, encoding: Encoding, work: Xmm, b: Xmm, mask: Xmm) {
        if mask == 0 {
            return self.c.asm.sse(encoding, work, Rm::Reg(b));
        }
        let (keep, ty) = (Mem::gs(block::XMM_SAVE), self.widest());
        move_vector(&mut self.c.asm, self.t.features, ty, 0, keep, true);
        let b = if b == 0 {
            let copy = self.temporary_xmm();
            self.move_xmm(copy, b);
            copy
        } else {
            b
        };
        self.move_xmm(0, mask);
        self.c.asm.sse(encoding, work, Rm::Reg(b));
        move_vector(&mut self.c.asm, self.t.features, ty, 0, keep, false);
    }

    /// The type of all that is in a host register.
    pub fn widest(&self) -> Type {
        if self.avx() && self.c.wide { Type::V256 } else { Type::V128 }
    }

    /// Both halves, or the high one of them.
    fn halves(&mut self, index: u32, op: &Op) {
        let a = self.xmm(op.a);
        if op.code == Code::HighHalf {
            let result = self.result(index);
            return self.vector_part(result, a, 16);
        }
        let b = self.xmm(op.b);
        let work = self.temporary_xmm();
        self.c.asm.v3_imm(INSERT_HALF, true, work, a, Rm::Reg(b), 1);
        self.deliver_xmm(index, work);
    }

    /// VZEROUPPER: pinned registers by the host's, the others in memory.
    fn clear_uppers(&mut self, op: &Op) {
        for n in 0..u32::from(op.aux) {
            self.detach_cells(op.a.0 + 32 * n, 32);
            self.c.xmms.unlock();
        }
        for register in 0..16 {
            self.detach_vector(register);
        }
        self.spill_vectors();
        self.c.asm.raw(VZEROUPPER);
        let uppers = (0..u32::from(op.aux)).map(|n| op.a.0 + 32 * n + 16);
        let uppers: Vec<u32> = uppers.filter(|&offset| self.t.map.xmm(offset).is_none()).collect();
        let zero = self.temporary_xmm();
        self.clear_xmm(zero);
        for offset in uppers {
            let mem = Mem::gs(block::STATE + offset);
            move_vector(&mut self.c.asm, self.t.features, Type::V128, zero, mem, true);
        }
    }

    pub(super) fn unary(
        &mut self,
        encoding: Encoding,
        wide: bool,
        to: Xmm,
        a: Xmm,
        imm: Option<u8>,
    ) {
        // Low-lane forms with one operand take the rest from the destination's own source.
        let merge =
            matches!(encoding.prefix, 0xf2 | 0xf3) && matches!(encoding.opcode, 0x51..=0x53);
        let vvvv = if merge { a } else { 0 };
        match (self.avx(), imm) {
            (true, None) => self.c.asm.v3(encoding, wide, to, vvvv, Rm::Reg(a)),
            (true, Some(imm)) => self.c.asm.v3_imm(encoding, wide, to, vvvv, Rm::Reg(a), imm),
            (false, None) => self.c.asm.sse(encoding, to, Rm::Reg(a)),
            (false, Some(imm)) => self.c.asm.sse_imm(encoding, to, Rm::Reg(a), imm),
        }
    }

    fn lane_mask(&mut self, index: u32, op: &Op, encoding: Encoding, wide: bool) {
        let a = self.xmm(op.a);
        if op.b == Value::NONE {
            let result = self.result(index);
            return match self.avx() {
                true => self.c.asm.v3(encoding, wide, result, 0, Rm::Reg(a)),
                false => self.c.asm.sse(encoding, result, Rm::Reg(a)),
            };
        }
        let b = self.xmm(op.b);
        self.clobber_flags();
        match self.avx() {
            true => self.c.asm.v3(encoding, wide, a, 0, Rm::Reg(b)),
            false => self.c.asm.sse(encoding, a, Rm::Reg(b)),
        }
        use super::super::asm::cc;
        let (zero, carry) = (self.temporary(), self.temporary());
        self.c.asm.setcc(cc::E, zero);
        self.c.asm.setcc(cc::B, carry);
        self.c.asm.extend(1, zero, zero);
        self.c.asm.extend(1, carry, carry);
        let result = self.result(index);
        let mem = Mem { base: Some(zero), index: Some((carry, 1)), disp: 0, gs: false };
        self.c.asm.lea(4, result, mem);
    }

    fn blend(&mut self, index: u32, op: &Op, encoding: Encoding, wide: bool) {
        let (a, b, mask) = (self.xmm(op.a), self.xmm(op.b), self.xmm(op.c));
        if self.avx() {
            let result = self.result_in(index, op.a);
            return self.c.asm.v3_imm(encoding, wide, result, a, Rm::Reg(b), mask << 4);
        }
        let work = self.temporary_xmm();
        self.move_xmm(work, a);
        let opcode = match encoding.opcode {
            0x4c => 0x10,
            0x4a => 0x14,
            _ => 0x15,
        };
        self.with_mask_in_xmm0(self::encoding(0x66, 2, opcode), work, b, mask);
        self.deliver_xmm(index, work);
    }

    /// Carry-less products of general registers, through vector registers.
    pub fn carry_less(&mut self, index: u32, op: &Op) {
        let (a, b) = (self.gpr(op.a), self.gpr(op.b));
        let (x, y) = (self.temporary_xmm(), self.temporary_xmm());
        self.gpr_to_xmm(8, x, a);
        self.gpr_to_xmm(8, y, b);
        self.three_imm(Lane::ClMul.row().encoding, x, x, y, 0);
        let result = self.result(index);
        self.lane_to_gpr(8, result, x, u32::from(op.code == Code::ClMulHi));
    }
}
