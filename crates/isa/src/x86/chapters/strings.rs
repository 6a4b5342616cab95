//! Strings, volume 1, 5.1.8, and port strings.
//!
//! Repeated ones go through a helper that works a page at a time. When it stops early (a fault, or
//! an interrupt waiting) the registers say how far it came and pc is still this instruction's.

use iced_x86::{Mnemonic as M, Register};

use super::Row;
use crate::ir::{Cmp, FlagKind, Repeat, Type, Value};
use crate::x86::helpers::{REPEAT_LONG, StringOp, helper};
use crate::x86::lift::{Address, Lift, exception};
use crate::x86::mode::eflags;
use crate::x86::state::{self, ES, RAX, RCX, RDI, RSI};

pub const ROWS: &[Row] = &[
    (M::Movsb, |l| string(l, StringOp::Move, Type::I8)),
    (M::Movsw, |l| string(l, StringOp::Move, Type::I16)),
    (M::Movsd, movsd),
    (M::Movsq, |l| string(l, StringOp::Move, Type::I64)),
    (M::Stosb, |l| string(l, StringOp::Store, Type::I8)),
    (M::Stosw, |l| string(l, StringOp::Store, Type::I16)),
    (M::Stosd, |l| string(l, StringOp::Store, Type::I32)),
    (M::Stosq, |l| string(l, StringOp::Store, Type::I64)),
    (M::Lodsb, |l| string(l, StringOp::Load, Type::I8)),
    (M::Lodsw, |l| string(l, StringOp::Load, Type::I16)),
    (M::Lodsd, |l| string(l, StringOp::Load, Type::I32)),
    (M::Lodsq, |l| string(l, StringOp::Load, Type::I64)),
    (M::Cmpsb, |l| string(l, StringOp::Compare, Type::I8)),
    (M::Cmpsw, |l| string(l, StringOp::Compare, Type::I16)),
    (M::Cmpsd, cmpsd),
    (M::Cmpsq, |l| string(l, StringOp::Compare, Type::I64)),
    (M::Scasb, |l| string(l, StringOp::Scan, Type::I8)),
    (M::Scasw, |l| string(l, StringOp::Scan, Type::I16)),
    (M::Scasd, |l| string(l, StringOp::Scan, Type::I32)),
    (M::Scasq, |l| string(l, StringOp::Scan, Type::I64)),
    (M::Insb, |l| string(l, StringOp::In, Type::I8)),
    (M::Insw, |l| string(l, StringOp::In, Type::I16)),
    (M::Insd, |l| string(l, StringOp::In, Type::I32)),
    (M::Outsb, |l| string(l, StringOp::Out, Type::I8)),
    (M::Outsw, |l| string(l, StringOp::Out, Type::I16)),
    (M::Outsd, |l| string(l, StringOp::Out, Type::I32)),
];

/// SSE has an instruction of the same name.
fn movsd(l: &mut Lift) {
    if l.insn.is_string_instruction() {
        string(l, StringOp::Move, Type::I32);
    } else {
        super::sse_moves::movsd(l);
    }
}

fn cmpsd(l: &mut Lift) {
    if l.insn.is_string_instruction() {
        string(l, StringOp::Compare, Type::I32);
    } else {
        super::sse::cmpsd(l);
    }
}

/// The address size, which decides the width of RSI, RDI and RCX.
fn index_type(l: &Lift) -> Type {
    use iced_x86::OpKind as K;
    let kinds = [l.insn.op0_kind(), l.insn.op1_kind()];
    let has = |wanted: [K; 3]| kinds.iter().any(|kind| wanted.contains(kind));
    if has([K::MemorySegSI, K::MemoryESDI, K::MemorySegDI]) {
        Type::I16
    } else if has([K::MemorySegESI, K::MemoryESEDI, K::MemorySegEDI]) {
        Type::I32
    } else {
        Type::I64
    }
}

fn string(l: &mut Lift, op: StringOp, ty: Type) {
    let repeated = l.insn.has_rep_prefix() || l.insn.has_repne_prefix();
    if !l.system && matches!(op, StringOp::In | StringOp::Out) {
        return l.fault(exception::GP, 0); // a program without a machine has no ports
    }
    if repeated || matches!(op, StringOp::In | StringOp::Out) {
        return by_helper(l, op, ty, repeated);
    }
    match op {
        StringOp::Move => {
            let from = source(l);
            let value = l.load(ty, from);
            let to = destination(l);
            l.store(to, value);
            advance(l, ty, &[RSI, RDI]);
        }
        StringOp::Store => {
            let (value, to) = (l.gpr(RAX, ty), destination(l));
            l.store(to, value);
            advance(l, ty, &[RDI]);
        }
        StringOp::Load => {
            let from = source(l);
            let value = l.load(ty, from);
            l.set_gpr(RAX, value);
            advance(l, ty, &[RSI]);
        }
        StringOp::Compare => {
            let (from, to) = (source(l), destination(l));
            let (a, b) = (l.load(ty, from), l.load(ty, to));
            l.set_flags(FlagKind::Sub, ty, a, b, Value::NONE);
            advance(l, ty, &[RSI, RDI]);
        }
        _ => {
            let to = destination(l);
            let (a, b) = (l.gpr(RAX, ty), l.load(ty, to));
            l.set_flags(FlagKind::Sub, ty, a, b, Value::NONE);
            advance(l, ty, &[RDI]);
        }
    }
}

fn source_segment(l: &Lift) -> usize {
    match l.insn.memory_segment() {
        Register::None => state::DS,
        segment => segment.number(),
    }
}

fn source(l: &mut Lift) -> Address {
    let ty = index_type(l);
    let base = l.gpr(RSI, ty);
    let segment = source_segment(l);
    l.linear(segment, Address { base, displacement: 0 })
}

fn destination(l: &mut Lift) -> Address {
    let ty = index_type(l);
    let base = l.gpr(RDI, ty);
    l.linear(ES, Address { base, displacement: 0 })
}

/// Moves index registers by one element, in the direction of DF.
fn advance(l: &mut Lift, ty: Type, registers: &[usize]) {
    let flags = l.ir.get(state::EFLAGS);
    let down = l.ir.and_imm(flags, eflags::DF);
    // DF is bit 10: 0 or 1,024 becomes 0 or twice the element's size.
    let twice = l.ir.shr_imm(down, 9 - ty.bytes().trailing_zeros());
    let up = l.ir.imm(i64::from(ty.bytes()));
    let step = l.ir.sub(up, twice);
    let width = index_type(l);
    let step = l.ir.trunc(width, step);
    for n in registers {
        let index = l.gpr(*n, width);
        let index = l.ir.add(index, step);
        l.set_gpr(*n, index);
    }
}

/// The operation with all its attributes, as the helper takes it.
fn description(l: &Lift, op: StringOp, ty: Type, repeated: bool) -> i64 {
    ty.bytes() as i64
        | i64::from(index_type(l).bytes()) << 8
        | i64::from(repeated) << 16
        | i64::from(l.insn.has_repne_prefix()) << 17
        | (source_segment(l) as i64) << 20
        | (op as i64) << 24
}

/// REP MOVS and REP STOS where linear addresses are what the index registers hold.
fn by_host(l: &mut Lift, op: StringOp, ty: Type) -> bool {
    let long = l.mode.is_long();
    let width = index_type(l);
    let plain_segments = match long {
        true => source_segment(l) < state::FS,
        false => l.mode.flat && !matches!(source_segment(l), state::CS | state::FS | state::GS),
    };
    let natural = width == if long { Type::I64 } else { Type::I32 };
    if !matches!(op, StringOp::Move | StringOp::Store)
        || !plain_segments
        || !natural
        || l.mode.single_step
        || l.mode.shadow
    {
        return false;
    }
    let long_bit = if long { REPEAT_LONG } else { 0 };
    let fill = op == StringOp::Store;
    let repeat = Repeat {
        helper: helper::REPEAT as u8,
        argument: (description(l, op, ty, true) as u64 | long_bit) as u32,
        target: state::gpr(RDI).offset,
        source: state::gpr(if fill { RAX } else { RSI }).offset,
        count: state::gpr(RCX).offset,
        down: state::EFLAGS.offset,
        down_bit: eflags::DF.trailing_zeros() as u8,
        fill,
        narrow: !long,
    };
    l.ir.repeat(ty, &repeat);
    true
}

fn by_helper(l: &mut Lift, op: StringOp, ty: Type, repeated: bool) {
    if repeated && by_host(l, op, ty) {
        return;
    }
    let width = index_type(l);
    // A block of one instruction must not leave early: there the helper sees that nothing is to do.
    let port = matches!(op, StringOp::In | StringOp::Out) && l.mode.breakpoints;
    let alone = l.mode.single_step || l.mode.shadow || port;
    if repeated && !alone {
        let counter = l.gpr(RCX, width);
        let zero = l.ir.constant(width, 0);
        let done = l.ir.compare(Cmp::Eq, counter, zero);
        l.ir.exit_if(done, l.next);
        if l.ir.ended() {
            return; // the counter is known to be zero
        }
    }
    let what = description(l, op, ty, repeated);
    let (what, mode) = (l.ir.imm(what), l.ir.imm(i64::from(l.mode.is_long())));
    let unfinished = l.ir.helper(helper::STRING, what, mode, Value::NONE);
    // An interrupt waits: look at it, then come back to this instruction.
    let zero = l.ir.imm(0);
    let unfinished = l.ir.compare(Cmp::Ne, unfinished, zero);
    let pc = l.pc;
    if alone {
        let (here, next) = (l.ir.imm(pc as i64), l.ir.imm(l.next as i64));
        let to = l.ir.select(unfinished, here, next);
        l.indirect(to, crate::ir::Ir::exit_indirect);
    } else {
        l.ir.exit_if(unfinished, pc);
    }
}
