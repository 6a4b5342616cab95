//! SSE moves, volume 1, 5.5.1 and its successors: loads, stores, lanes, control and saved state.

use iced_x86::{Mnemonic as M, Register};

use super::Row;
use crate::ir::{Code, Lane, Type, Value};
use crate::x86::helpers::helper;
use crate::x86::lift::{Address, Lift, general_number};
use crate::x86::state::{self, RDI};
use crate::x86::vectors::Vector;

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
    (M::Maskmovq, maskmov),
    (M::Ldmxcsr, ldmxcsr),
    (M::Stmxcsr, stmxcsr),
];

pub fn move_whole(l: &mut Lift) {
    let value = l.read_lanes(1);
    if !l.is_memory(0) {
        return l.write_lanes(0, value);
    }
    let at = l.address();
    match value {
        Vector::Narrow(value) if l.is_mmx(1) => {
            let low = l.ir.lo(value);
            l.store(at, low);
        }
        value => l.store_lanes(at, value),
    }
}

/// MOVSD, which a string instruction shares its name with.
pub fn movsd(l: &mut Lift) {
    move_scalar(l, Type::F64, Lane::MoveLow64);
}

/// From memory the upper lanes become zero, between registers they stay.
pub fn move_scalar(l: &mut Lift, ty: Type, lane: Lane) {
    if l.is_memory(0) {
        let number = l.read_scalar(1, ty);
        let at = l.address();
        l.store(at, number);
    } else if l.is_memory(1) {
        let number = l.read_scalar(1, ty);
        let value = l.ir.zero_upper(number);
        l.write_vector(0, value);
    } else {
        let first = l.first_source();
        let (a, b) = (l.read_vector(first), l.read_vector(first + 1));
        let value = l.ir.lanes2(lane, a, b);
        l.write_vector(0, value);
    }
}

fn is_vector(register: Register) -> bool {
    register.is_xmm() || register.is_mm()
}

/// MOVD and MOVQ, between vectors, general registers and memory.
pub fn move_integer(l: &mut Lift, ty: Type) {
    // As wide as the operand that is no vector.
    let other = u32::from(is_vector(l.insn.op0_register()));
    let ty = match l.insn.mnemonic() {
        M::Movd | M::Vmovd if l.bytes(other) == 8 => Type::I64,
        _ => ty,
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

pub fn move_half(l: &mut Lift, half: u32) {
    if l.is_memory(0) {
        let vector = l.read_vector(1);
        let value = l.ir.lane_get(Type::I64, vector, half);
        let at = l.address();
        l.store(at, value);
    } else {
        let at = l.address();
        let value = l.load(Type::I64, at);
        let vector = l.read_vector(l.first_source());
        let vector = l.ir.lane_put(vector, value, half);
        l.write_vector(0, vector);
    }
}

pub fn high_to_low(l: &mut Lift) {
    let first = l.first_source();
    let (to, from) = (l.read_vector(first), l.read_vector(first + 1));
    let value = l.ir.lanes2(Lane::ZipHi64, from, to);
    l.write_vector(0, value);
}

pub fn low_to_high(l: &mut Lift) {
    let first = l.first_source();
    let (to, from) = (l.read_vector(first), l.read_vector(first + 1));
    let value = l.ir.lanes2(Lane::ZipLo64, to, from);
    l.write_vector(0, value);
}

pub fn mask(l: &mut Lift, lane: Lane) {
    let bits = match l.read_lanes(1).map(l.ir, |ir, a| ir.lanes1(lane, a, 0)) {
        Vector::Narrow(bits) | Vector::Wide(bits) => bits,
        Vector::Pair(low, high) => {
            let lanes = match lane {
                Lane::Mask8 => 16,
                Lane::Mask32 => 4,
                _ => 2,
            };
            let high = l.ir.shl_imm(high, lanes);
            l.ir.alu(Code::Or, low, high)
        }
    };
    l.set_gpr(general_number(l.insn.op0_register()), bits);
}

pub fn insert(l: &mut Lift, ty: Type) {
    let first = l.first_source();
    let vector = l.read_vector(first);
    let value = if l.is_memory(first + 1) {
        let at = l.address();
        l.load(ty, at)
    } else {
        l.gpr(general_number(l.insn.op_register(first + 1)), ty)
    };
    let lanes = if l.is_mmx(0) { 8 } else { 16 } / ty.bytes();
    let vector = l.ir.lane_put(vector, value, u32::from(l.insn.immediate8()) & (lanes - 1));
    l.write_vector(0, vector);
}

pub fn extract(l: &mut Lift, ty: Type) {
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
pub fn insertps(l: &mut Lift) {
    let imm = l.insn.immediate8();
    let first = l.first_source();
    let imm = if l.is_memory(first + 1) { imm & 0x3f } else { imm };
    let (a, b) = (l.read_vector(first), l.read_vector(first + 1));
    let value = l.ir.lanes2_imm(Lane::InsertF32, a, b, imm);
    l.write_vector(0, value);
}

/// Stores the bytes whose mask byte is negative, by helper.
pub fn maskmov(l: &mut Lift) {
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

pub fn ldmxcsr(l: &mut Lift) {
    let value = l.read(0);
    let value = l.ir.and_imm(value, 0xffff);
    l.ir.fp_control_put(value);
}

pub fn stmxcsr(l: &mut Lift) {
    let value = l.ir.fp_control_get();
    l.write(0, value);
}
