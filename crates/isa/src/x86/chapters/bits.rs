//! Bits and bytes, volume 1, 5.1.6, with the later bit-manipulation extensions.

use iced_x86::{Mnemonic as M, OpKind};

use super::Row;
use super::moves::condition;
use crate::ir::{AtomicOp, Cmp, Code, FlagKind, Type, Value};
use crate::x86::helpers::helper;
use crate::x86::lift::{Address, Lift, general_number};
use crate::x86::state;

pub const ROWS: &[Row] = &[
    (M::Bt, |l| bit(l, None)),
    (M::Bts, |l| bit(l, Some(Change::Set))),
    (M::Btr, |l| bit(l, Some(Change::Clear))),
    (M::Btc, |l| bit(l, Some(Change::Flip))),
    (M::Bsf, |l| scan(l, Code::Ctz)),
    (M::Bsr, |l| scan(l, Code::Clz)),
    (M::Tzcnt, |l| count(l, Code::Ctz)),
    (M::Lzcnt, |l| count(l, Code::Clz)),
    (M::Popcnt, popcnt),
    (M::Andn, andn),
    (M::Bextr, bextr),
    (M::Blsi, |l| lowest(l, Lowest::Isolate)),
    (M::Blsr, |l| lowest(l, Lowest::Reset)),
    (M::Blsmsk, |l| lowest(l, Lowest::Mask)),
    (M::Bzhi, bzhi),
    (M::Pext, |l| gather(l, Code::Pext)),
    (M::Pdep, |l| gather(l, Code::Pdep)),
    (M::Mulx, mulx),
    (M::Crc32, crc32),
    (M::Seto, setcc),
    (M::Setno, setcc),
    (M::Setb, setcc),
    (M::Setae, setcc),
    (M::Sete, setcc),
    (M::Setne, setcc),
    (M::Setbe, setcc),
    (M::Seta, setcc),
    (M::Sets, setcc),
    (M::Setns, setcc),
    (M::Setp, setcc),
    (M::Setnp, setcc),
    (M::Setl, setcc),
    (M::Setge, setcc),
    (M::Setle, setcc),
    (M::Setg, setcc),
];

#[derive(Clone, Copy)]
enum Change {
    Set,
    Clear,
    Flip,
}

fn setcc(l: &mut Lift) {
    let condition = condition(l);
    let value = l.ir.zext(Type::I8, condition);
    l.write(0, value);
}

/// A bit string in memory is addressed by a register beyond the operand, upwards and downwards.
fn bit(l: &mut Lift, change: Option<Change>) {
    let ty = l.ty(0);
    let number = l.read_as(1, ty);
    let flags = l.flags();
    let value = if l.is_memory(0) {
        let mut at = l.address();
        if l.insn.op1_kind() == OpKind::Register {
            at = bit_string_address(l, at, number);
        }
        bit_in_memory(l, at, number, change)
    } else {
        let value = l.read(0);
        if let Some(change) = change {
            let changed = changed(l, value, number, change);
            l.write(0, changed);
        }
        value
    };
    l.set_flags(FlagKind::Bit, ty, value, number, flags);
}

fn bit_string_address(l: &mut Lift, at: Address, number: Value) -> Address {
    let ty = l.ir.ty(number);
    let number = l.ir.sext(Type::I64, number);
    let words = l.ir.sar_imm(number, ty.bits().trailing_zeros());
    let bytes = l.ir.shl_imm(words, ty.bytes().trailing_zeros());
    Address { base: l.ir.add(at.base, bytes), ..at }
}

/// The word before the change.
fn bit_in_memory(l: &mut Lift, at: Address, number: Value, change: Option<Change>) -> Value {
    let ty = l.ir.ty(number);
    if let (true, Some(change)) = (l.insn.has_lock_prefix(), change) {
        let mask = mask(l, number);
        let (op, operand) = match change {
            Change::Set => (AtomicOp::Or, mask),
            Change::Clear => (AtomicOp::AndNot, mask),
            Change::Flip => (AtomicOp::Xor, mask),
        };
        let address = l.flatten(at);
        return l.ir.atomic(op, address, operand, crate::ir::Mem::new(ty.bytes()));
    }
    let value = l.load(ty, at);
    if let Some(change) = change {
        let changed = changed(l, value, number, change);
        l.store(at, changed);
    }
    value
}

fn mask(l: &mut Lift, number: Value) -> Value {
    let ty = l.ir.ty(number);
    let number = l.ir.and_imm(number, u64::from(ty.bits()) - 1);
    let one = l.ir.constant(ty, 1);
    l.ir.alu(Code::Shl, one, number)
}

fn changed(l: &mut Lift, value: Value, number: Value, change: Change) -> Value {
    let mask = mask(l, number);
    let code = match change {
        Change::Set => Code::Or,
        Change::Clear => Code::AndNot,
        Change::Flip => Code::Xor,
    };
    l.ir.alu(code, value, mask)
}

/// BSF and BSR leave the destination alone when the source is zero, as all processors do.
fn scan(l: &mut Lift, code: Code) {
    let (ty, source) = (l.ty(0), l.read(1));
    let zero = l.ir.constant(ty, 0);
    let none = l.ir.compare(Cmp::Eq, source, zero);
    let mut position = l.ir.unary(code, source);
    if code == Code::Clz {
        let top = l.ir.constant(ty, u64::from(ty.bits()) - 1);
        position = l.ir.alu(Code::Xor, position, top);
    }
    let flags = l.flags();
    // Narrow destinations stay whole, too: 32-bit ones keep their upper half.
    let number = general_number(l.insn.op0_register());
    if ty == Type::I16 {
        let old = l.read(0);
        let value = l.ir.select(none, old, position);
        l.write(0, value);
    } else {
        let old = l.ir.get(state::gpr(number));
        let position = l.ir.zext(Type::I64, position);
        let value = l.ir.select(none, old, position);
        l.ir.put(state::gpr(number), value);
    }
    l.set_flags(FlagKind::Zero, ty, source, Value::NONE, flags);
}

fn count(l: &mut Lift, code: Code) {
    let (ty, source) = (l.ty(0), l.read(1));
    let result = l.ir.unary(code, source);
    l.write(0, result);
    l.set_flags(FlagKind::Count, ty, source, result, Value::NONE);
}

/// Zero by the source, every other flag clear.
fn popcnt(l: &mut Lift) {
    let (ty, source) = (l.ty(0), l.read(1));
    let result = l.ir.unary(Code::Popcnt, source);
    l.write(0, result);
    let zero = l.ir.constant(ty, 0);
    let none = l.ir.compare(Cmp::Eq, source, zero);
    let none = l.ir.zext(Type::I64, none);
    let image = l.ir.shl_imm(none, crate::ir::ZERO.trailing_zeros());
    l.set_flags(FlagKind::Image, Type::I64, image, Value::NONE, Value::NONE);
}

fn andn(l: &mut Lift) {
    let (a, b) = (l.read(1), l.read(2));
    let result = l.ir.alu(Code::AndNot, b, a);
    l.write(0, result);
    l.set_logic_flags(result);
}

/// The field of `control[15:8]` bits at `control[7:0]`; beyond the width there are zeros.
fn bextr(l: &mut Lift) {
    let (ty, source, control) = (l.ty(0), l.read(1), l.read(2));
    let width = u64::from(ty.bits());
    let start = l.ir.and_imm(control, 0xff);
    let length = l.ir.shr_imm(control, 8);
    let length = l.ir.and_imm(length, 0xff);
    let zero = l.ir.constant(ty, 0);
    let limit = l.ir.constant(ty, width);
    let shifted = l.ir.alu(Code::ShrU, source, start);
    let inside = l.ir.compare(Cmp::LtU, start, limit);
    let shifted = l.ir.select(inside, shifted, zero);
    let result = low_bits(l, shifted, length);
    l.write(0, result);
    l.set_logic_flags(result);
}

/// The low `length` bits of a value; all of it when the length is the width or more.
fn low_bits(l: &mut Lift, value: Value, length: Value) -> Value {
    let ty = l.ir.ty(value);
    let ones = l.ir.constant(ty, u64::MAX);
    let above = l.ir.alu(Code::Shl, ones, length);
    let kept = l.ir.alu(Code::AndNot, value, above);
    let limit = l.ir.constant(ty, u64::from(ty.bits()));
    let short = l.ir.compare(Cmp::LtU, length, limit);
    l.ir.select(short, kept, value)
}

fn bzhi(l: &mut Lift) {
    let (ty, source, index) = (l.ty(0), l.read(1), l.read(2));
    let index = l.ir.and_imm(index, 0xff);
    let result = low_bits(l, source, index);
    let limit = l.ir.constant(ty, u64::from(ty.bits()) - 1);
    let carry = l.ir.compare(Cmp::GtU, index, limit);
    l.write(0, result);
    with_carry(l, result, carry);
}

/// The flags of a bitwise result, with this carry.
fn with_carry(l: &mut Lift, result: Value, carry: Value) {
    let ty = l.ir.ty(result);
    let flags = l.ir.flags(FlagKind::And, ty, result, result, Value::NONE);
    let image = l.ir.flags_image(flags);
    let carry = l.ir.zext(Type::I64, carry);
    let image = l.ir.deposit(image, carry, 0, 1);
    l.set_flags(FlagKind::Image, Type::I64, image, Value::NONE, Value::NONE);
}

#[derive(Clone, Copy)]
enum Lowest {
    Isolate,
    Reset,
    Mask,
}

fn lowest(l: &mut Lift, which: Lowest) {
    let (ty, source) = (l.ty(0), l.read(1));
    let zero = l.ir.constant(ty, 0);
    let less = l.ir.add_imm(source, -1);
    let is_zero = l.ir.compare(Cmp::Eq, source, zero);
    let (result, carry) = match which {
        Lowest::Isolate => {
            let negative = l.ir.unary(Code::Neg, source);
            let carry = l.ir.compare(Cmp::Ne, source, zero);
            (l.ir.alu(Code::And, source, negative), carry)
        }
        Lowest::Reset => (l.ir.alu(Code::And, source, less), is_zero),
        Lowest::Mask => (l.ir.alu(Code::Xor, source, less), is_zero),
    };
    l.write(0, result);
    with_carry(l, result, carry);
}

fn gather(l: &mut Lift, code: Code) {
    let (value, mask) = (l.read(1), l.read(2));
    let result = if l.host.bits {
        l.ir.alu(code, value, mask)
    } else {
        let ty = l.ir.ty(value);
        let [value, mask] = [value, mask].map(|value| l.ir.zext(Type::I64, value));
        let helper = if code == Code::Pext { helper::PEXT } else { helper::PDEP };
        let result = l.ir.helper(helper, value, mask, Value::NONE);
        l.ir.trunc(ty, result)
    };
    l.write(0, result);
}

fn mulx(l: &mut Lift) {
    let (ty, b) = (l.ty(0), l.read(2));
    let a = l.gpr(state::RDX, ty);
    let low = l.ir.alu(Code::Mul, a, b);
    let high = l.ir.alu(Code::MulHiU, a, b);
    // When both are one register, the upper half stays.
    l.write(1, low);
    l.write(0, high);
}

fn crc32(l: &mut Lift) {
    let (accumulator, data) = (l.read(0), l.read(1));
    let accumulator = l.ir.trunc(Type::I32, accumulator);
    let crc = l.ir.crc32(true, accumulator, data);
    let crc = l.ir.zext(Type::I64, crc);
    let crc = l.ir.trunc(l.ty(0), crc);
    l.write(0, crc);
}
