//! SSE moves, volume 1, 5.5.1 and its successors: loads, stores, lanes, control and saved state.

use iced_x86::{Mnemonic as M, OpKind, Register};

use super::Row;
use crate::ir::{Lane, Type, Value};
use crate::x86::helpers::helper;
use crate::x86::lift::{Address, Lift, general_number};
use crate::x86::state::{self, RDI};

pub const ROWS: &[Row] = &[
    (M::Movaps, move_whole),
    (M::Movapd, move_whole),
    (M::Movups, move_whole),
    (M::Movupd, move_whole),
    (M::Movdqa, move_whole),
    (M::Movdqu, move_whole),
    (M::Lddqu, move_whole),
    (M::Movntps, move_whole),
    (M::Movntpd, move_whole),
    (M::Movntdq, move_whole),
    (M::Movntdqa, move_whole),
    (M::Movntq, move_whole),
    (M::Movnti, |l| {
        let value = l.read(1);
        l.write(0, value);
    }),
    (M::Movss, |l| move_scalar(l, Type::F32, Lane::MoveLow32)),
    (M::Movd, |l| move_integer(l, Type::I32)),
    (M::Movq, |l| move_integer(l, Type::I64)),
    (M::Movlps, |l| move_half(l, 0)),
    (M::Movlpd, |l| move_half(l, 0)),
    (M::Movhps, |l| move_half(l, 1)),
    (M::Movhpd, |l| move_half(l, 1)),
    (M::Movhlps, high_to_low),
    (M::Movlhps, low_to_high),
    (M::Movq2dq, |l| {
        let value = l.read_vector(1);
        l.write_vector(0, value);
    }),
    (M::Movdq2q, |l| {
        let value = l.read_vector(1);
        l.write_vector(0, value);
    }),
    (M::Movmskps, |l| mask(l, Lane::Mask32)),
    (M::Movmskpd, |l| mask(l, Lane::Mask64)),
    (M::Pmovmskb, |l| mask(l, Lane::Mask8)),
    (M::Pinsrb, |l| insert(l, Type::I8)),
    (M::Pinsrw, |l| insert(l, Type::I16)),
    (M::Pinsrd, |l| insert(l, Type::I32)),
    (M::Pinsrq, |l| insert(l, Type::I64)),
    (M::Pextrb, |l| extract(l, Type::I8)),
    (M::Pextrw, |l| extract(l, Type::I16)),
    (M::Pextrd, |l| extract(l, Type::I32)),
    (M::Pextrq, |l| extract(l, Type::I64)),
    (M::Extractps, |l| extract(l, Type::I32)),
    (M::Insertps, insertps),
    (M::Maskmovdqu, maskmov),
    (M::Ldmxcsr, ldmxcsr),
    (M::Stmxcsr, stmxcsr),
];

impl Lift<'_> {
    /// Whether operand `i` is an MMX register.
    pub fn is_mmx(&self, i: u32) -> bool {
        self.insn.op_kind(i) == OpKind::Register && self.insn.op_register(i).is_mm()
    }

    /// Reads a vector operand: an XMM or MMX register, or as many bytes of memory, zero-extended.
    pub fn read_vector(&mut self, i: u32) -> Value {
        if self.insn.op_kind(i) == OpKind::Register {
            let number = self.vector(i);
            if self.is_mmx(i) {
                let low = self.ir.get(state::mmx(number));
                return self.ir.zero_upper(low);
            }
            return self.ir.get(state::xmm(number));
        }
        let (bytes, at) = (self.bytes(i), self.address());
        if bytes == 16 {
            return self.load(Type::V128, at);
        }
        let low = self.load(Type::integer(bytes), at);
        self.widen_to_vector(low)
    }

    /// A vector whose low lane is an integer of any width.
    fn widen_to_vector(&mut self, low: Value) -> Value {
        match self.ir.ty(low) {
            Type::I32 | Type::I64 => self.ir.zero_upper(low),
            _ => {
                let low = self.ir.zext(Type::I32, low);
                self.ir.zero_upper(low)
            }
        }
    }

    /// Reads the low lane of a vector operand, or memory, as a number.
    pub fn read_scalar(&mut self, i: u32, ty: Type) -> Value {
        if self.is_memory(i) {
            let at = self.address();
            return self.load(ty, at);
        }
        let value = self.read_vector(i);
        self.ir.scalar(ty, value)
    }

    /// Writes a vector register: in an MMX register the low half, with the FPU's tags made valid.
    pub fn write_vector(&mut self, i: u32, value: Value) {
        let number = self.vector(i);
        if !self.is_mmx(i) {
            return self.ir.put(state::xmm(number), value);
        }
        let low = self.ir.lo(value);
        self.ir.put(state::mmx(number), low);
        let ones = self.ir.constant(Type::I16, 0xffff);
        self.ir.put(state::mmx_exponent(number), ones);
        self.enter_mmx();
    }

    /// MMX instructions make all FPU registers valid and ST(0) the first one.
    pub fn enter_mmx(&mut self) {
        let zero = self.ir.imm(0);
        self.ir.put(state::X87_TOP, zero);
        self.ir.put(state::X87_EMPTY, zero);
    }
}

fn move_whole(l: &mut Lift) {
    let value = l.read_vector(1);
    if !l.is_memory(0) {
        return l.write_vector(0, value);
    }
    let at = l.address();
    if l.is_mmx(1) {
        let low = l.ir.lo(value);
        l.store(at, low);
    } else {
        l.store(at, value);
    }
}

/// MOVSD, which a string instruction shares its name with.
pub fn movsd(l: &mut Lift) {
    move_scalar(l, Type::F64, Lane::MoveLow64);
}

/// From memory the upper lanes become zero, between registers they stay.
fn move_scalar(l: &mut Lift, ty: Type, lane: Lane) {
    if l.is_memory(0) {
        let number = l.read_scalar(1, ty);
        let at = l.address();
        l.store(at, number);
    } else if l.is_memory(1) {
        let number = l.read_scalar(1, ty);
        let value = l.ir.zero_upper(number);
        l.write_vector(0, value);
    } else {
        let (a, b) = (l.read_vector(0), l.read_vector(1));
        let value = l.ir.lanes2(lane, a, b);
        l.write_vector(0, value);
    }
}

fn is_vector(register: Register) -> bool {
    register.is_xmm() || register.is_mm()
}

/// MOVD and MOVQ, between vectors, general registers and memory.
fn move_integer(l: &mut Lift, ty: Type) {
    let ty = if l.insn.mnemonic() == M::Movd && l.bytes(if l.is_memory(0) { 0 } else { 1 }) == 8 {
        Type::I64
    } else {
        ty
    };
    let from = l.insn.op1_register();
    let value = if is_vector(from) {
        let vector = l.read_vector(1);
        if ty == Type::I64 { l.ir.lo(vector) } else { l.ir.lane_get(ty, vector, 0) }
    } else {
        l.read_as(1, ty)
    };
    if is_vector(l.insn.op0_register()) {
        let value = l.ir.zero_upper(value);
        l.write_vector(0, value);
    } else {
        l.write(0, value);
    }
}

fn move_half(l: &mut Lift, half: u32) {
    if l.is_memory(0) {
        let vector = l.read_vector(1);
        let value = l.ir.lane_get(Type::I64, vector, half);
        let at = l.address();
        l.store(at, value);
    } else {
        let at = l.address();
        let value = l.load(Type::I64, at);
        let vector = l.read_vector(0);
        let vector = l.ir.lane_put(vector, value, half);
        l.write_vector(0, vector);
    }
}

fn high_to_low(l: &mut Lift) {
    let (to, from) = (l.read_vector(0), l.read_vector(1));
    let value = l.ir.lanes2(Lane::ZipHi64, from, to);
    l.write_vector(0, value);
}

fn low_to_high(l: &mut Lift) {
    let (to, from) = (l.read_vector(0), l.read_vector(1));
    let value = l.ir.lanes2(Lane::ZipLo64, to, from);
    l.write_vector(0, value);
}

fn mask(l: &mut Lift, lane: Lane) {
    let vector = l.read_vector(1);
    let bits = l.ir.lanes1(lane, vector, 0);
    l.set_gpr(general_number(l.insn.op0_register()), bits);
}

fn insert(l: &mut Lift, ty: Type) {
    let vector = l.read_vector(0);
    let value = if l.is_memory(1) {
        let at = l.address();
        l.load(ty, at)
    } else {
        l.gpr(general_number(l.insn.op1_register()), ty)
    };
    let lanes = if l.is_mmx(0) { 8 } else { 16 } / ty.bytes();
    let vector = l.ir.lane_put(vector, value, u32::from(l.insn.immediate8()) & (lanes - 1));
    l.write_vector(0, vector);
}

fn extract(l: &mut Lift, ty: Type) {
    let vector = l.read_vector(1);
    let lanes = if l.is_mmx(1) { 8 } else { 16 } / ty.bytes();
    let value = l.ir.lane_get(ty, vector, u32::from(l.insn.immediate8()) & (lanes - 1));
    if l.is_memory(0) {
        let at = l.address();
        l.store(at, value);
    } else {
        let value = l.ir.zext(Type::I64, value);
        l.set_gpr(general_number(l.insn.op0_register()), value);
    }
}

/// From memory there is one lane, whatever the immediate says of the source.
fn insertps(l: &mut Lift) {
    let imm = l.insn.immediate8();
    let imm = if l.is_memory(1) { imm & 0x3f } else { imm };
    let (a, b) = (l.read_vector(0), l.read_vector(1));
    let value = l.ir.lanes2_imm(Lane::InsertF32, a, b, imm);
    l.write_vector(0, value);
}

/// Stores the bytes whose mask byte is negative, by helper.
fn maskmov(l: &mut Lift) {
    let (value, mask) = (l.read_vector(1), l.read_vector(2));
    l.ir.put(state::scratch(0), value);
    l.ir.put(state::scratch(1), mask);
    let ty = if l.mode.is_long() { Type::I64 } else { Type::I32 };
    let base = l.gpr(RDI, ty);
    let segment = l.insn.memory_segment();
    let segment = if segment == Register::None { state::DS } else { segment.number() };
    let at = l.linear(segment, Address { base, displacement: 0 });
    let at = l.flatten(at);
    l.ir.helper(helper::MASKED_STORE, at, Value::NONE, Value::NONE);
}

fn ldmxcsr(l: &mut Lift) {
    let value = l.read(0);
    let value = l.ir.and_imm(value, 0xffff);
    l.ir.fp_control_put(value);
}

fn stmxcsr(l: &mut Lift) {
    let value = l.ir.fp_control_get();
    l.write(0, value);
}
