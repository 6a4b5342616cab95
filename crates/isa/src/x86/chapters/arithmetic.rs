//! Binary and decimal arithmetic and logic, volume 1, 5.1.2 to 5.1.4.

use iced_x86::Mnemonic as M;

use super::Row;
use super::moves::atomic;
use crate::ir::{AtomicOp, Cmp, Code, Cond, FlagKind, Type, Value};
use crate::x86::helpers::{Locked, helper};
use crate::x86::lift::{Lift, exception};
use crate::x86::state::{RAX, RDX};

pub const ROWS: &[Row] = &[
    (M::Add, |l| sum(l, Code::Add, FlagKind::Add)),
    (M::Sub, |l| sum(l, Code::Sub, FlagKind::Sub)),
    (M::Adc, |l| sum_with_carry(l, Code::Adc, FlagKind::Adc)),
    (M::Sbb, |l| sum_with_carry(l, Code::Sbb, FlagKind::Sbb)),
    (M::Cmp, compare),
    (M::And, |l| logic(l, Code::And)),
    (M::Or, |l| logic(l, Code::Or)),
    (M::Xor, |l| logic(l, Code::Xor)),
    (M::Test, test),
    (M::Inc, |l| step(l, Code::Add, FlagKind::Inc)),
    (M::Dec, |l| step(l, Code::Sub, FlagKind::Dec)),
    (M::Neg, neg),
    (M::Not, not),
    (M::Mul, |l| multiply(l, false)),
    (M::Imul, imul),
    (M::Div, |l| divide(l, false)),
    (M::Idiv, |l| divide(l, true)),
    (M::Adcx, |l| add_chain(l, Cond::C)),
    (M::Adox, |l| add_chain(l, Cond::O)),
    (M::Daa, |l| decimal(l, helper::DAA)),
    (M::Das, |l| decimal(l, helper::DAS)),
    (M::Aaa, |l| decimal(l, helper::AAA)),
    (M::Aas, |l| decimal(l, helper::AAS)),
    (M::Aam, |l| decimal(l, helper::AAM)),
    (M::Aad, |l| decimal(l, helper::AAD)),
];

fn sum(l: &mut Lift, code: Code, kind: FlagKind) {
    let ty = l.ty(0);
    let b = l.read_as(1, ty);
    if l.insn.has_lock_prefix() {
        let operand = if code == Code::Sub { l.ir.unary(Code::Neg, b) } else { b };
        let old = atomic(l, AtomicOp::Add, operand);
        return l.set_flags(kind, ty, old, b, Value::NONE);
    }
    let mut flags = None;
    // The idiom for zero has no operands.
    if code == Code::Sub && l.insn.op0_register() == l.insn.op1_register() && !l.is_memory(0) {
        let zero = l.ir.constant(ty, 0);
        l.write(0, zero);
        return l.set_flags(FlagKind::Sub, ty, zero, zero, Value::NONE);
    }
    l.modify(0, |l, a| {
        flags = Some(a);
        if code == Code::Sub { l.ir.sub(a, b) } else { l.ir.add(a, b) }
    });
    if let Some(a) = flags {
        l.set_flags(kind, ty, a, b, Value::NONE);
    }
}

fn carry(l: &mut Lift) -> Value {
    let flags = l.flags();
    l.ir.condition(Cond::C, flags)
}

fn sum_with_carry(l: &mut Lift, code: Code, kind: FlagKind) {
    let ty = l.ty(0);
    if l.insn.has_lock_prefix() {
        let b = l.read_as(1, ty);
        let locked = if code == Code::Adc { Locked::Adc } else { Locked::Sbb };
        return locked_by_helper(l, locked, b);
    }
    let b = l.read_as(1, ty);
    let carry = carry(l);
    let mut operand = Value::NONE;
    l.modify(0, |l, a| {
        operand = a;
        l.ir.ternary(code, a, b, carry)
    });
    l.set_flags(kind, ty, operand, b, carry);
}

/// The rare atomic operations that have no operation in the IR.
pub fn locked_by_helper(l: &mut Lift, locked: Locked, operand: Value) {
    let bytes = l.bytes(0);
    let address = l.address();
    let address = l.flatten(address);
    let operand = l.ir.zext(Type::I64, operand);
    let what = l.ir.imm(i64::from(bytes) << 8 | locked as i64);
    l.ir.helper(helper::LOCKED, address, operand, what);
}

fn compare(l: &mut Lift) {
    let ty = l.ty(0);
    let (a, b) = (l.read(0), l.read_as(1, ty));
    l.set_flags(FlagKind::Sub, ty, a, b, Value::NONE);
}

fn logic(l: &mut Lift, code: Code) {
    let ty = l.ty(0);
    if code == Code::Xor && !l.is_memory(0) && l.insn.op0_register() == l.insn.op1_register() {
        let zero = l.ir.constant(ty, 0);
        l.write(0, zero);
        return l.set_logic_flags(zero);
    }
    let b = l.read_as(1, ty);
    if l.insn.has_lock_prefix() {
        let op = match code {
            Code::And => AtomicOp::And,
            Code::Or => AtomicOp::Or,
            _ => AtomicOp::Xor,
        };
        let old = atomic(l, op, b);
        let result = l.ir.alu(code, old, b);
        return l.set_logic_flags(result);
    }
    let mut result = Value::NONE;
    l.modify(0, |l, a| {
        result = l.ir.alu(code, a, b);
        result
    });
    l.set_logic_flags(result);
}

fn test(l: &mut Lift) {
    let ty = l.ty(0);
    let (a, b) = (l.read(0), l.read_as(1, ty));
    l.set_flags(FlagKind::And, ty, a, b, Value::NONE);
}

fn step(l: &mut Lift, code: Code, kind: FlagKind) {
    let ty = l.ty(0);
    let one = l.ir.constant(ty, 1);
    let old_flags = l.flags();
    let mut operand = Value::NONE;
    if l.insn.has_lock_prefix() {
        let by = if code == Code::Add { one } else { l.ir.constant(ty, u64::MAX) };
        operand = atomic(l, AtomicOp::Add, by);
    } else {
        l.modify(0, |l, a| {
            operand = a;
            if code == Code::Add { l.ir.add(a, one) } else { l.ir.sub(a, one) }
        });
    }
    l.set_flags(kind, ty, operand, Value::NONE, old_flags);
}

fn neg(l: &mut Lift) {
    let ty = l.ty(0);
    let zero = l.ir.constant(ty, 0);
    if l.insn.has_lock_prefix() {
        return locked_by_helper(l, Locked::Neg, zero);
    }
    let mut operand = Value::NONE;
    l.modify(0, |l, a| {
        operand = a;
        l.ir.unary(Code::Neg, a)
    });
    l.set_flags(FlagKind::Sub, ty, zero, operand, Value::NONE);
}

fn not(l: &mut Lift) {
    if l.insn.has_lock_prefix() {
        let ones = l.ir.constant(l.ty(0), u64::MAX);
        atomic(l, AtomicOp::Xor, ones);
    } else {
        l.modify(0, |l, a| l.ir.unary(Code::Not, a));
    }
}

/// The one-operand forms: RDX:RAX (or AX) becomes RAX times the operand.
fn multiply(l: &mut Lift, signed: bool) {
    let ty = l.ty(0);
    let (a, b) = (l.gpr(RAX, ty), l.read(0));
    let kind = if signed { FlagKind::MulS } else { FlagKind::MulU };
    if ty == Type::I8 {
        let [wide_a, wide_b] = [a, b].map(|value| widen(l, signed, Type::I16, value));
        let product = l.ir.alu(Code::Mul, wide_a, wide_b);
        l.set_gpr(RAX, product);
    } else {
        let low = l.ir.alu(Code::Mul, a, b);
        let high = l.ir.alu(if signed { Code::MulHiS } else { Code::MulHiU }, a, b);
        l.set_gpr(RAX, low);
        l.set_gpr(RDX, high);
    }
    l.set_flags(kind, ty, a, b, Value::NONE);
}

fn widen(l: &mut Lift, signed: bool, ty: Type, value: Value) -> Value {
    if signed { l.ir.sext(ty, value) } else { l.ir.zext(ty, value) }
}

fn imul(l: &mut Lift) {
    let ty = l.ty(0);
    let (a, b) = match l.insn.op_count() {
        1 => return multiply(l, true),
        2 => (l.read(0), l.read(1)),
        _ => (l.read(1), l.read_as(2, ty)),
    };
    let product = l.ir.alu(Code::Mul, a, b);
    l.write(0, product);
    l.set_flags(FlagKind::MulS, ty, a, b, Value::NONE);
}

fn divide(l: &mut Lift, signed: bool) {
    let (ty, by) = (l.ty(0), l.read(0));
    if ty == Type::I8 {
        return divide_bytes(l, signed, by);
    }
    let (low, high) = (l.gpr(RAX, ty), l.gpr(RDX, ty));
    let (quotient, remainder) = l.ir.div_wide(signed, low, high, by);
    l.set_gpr(RAX, quotient);
    l.set_gpr(RDX, remainder);
}

/// AX by a byte, in words: the quotient must fit into AL.
fn divide_bytes(l: &mut Lift, signed: bool, by: Value) {
    let dividend = l.gpr(RAX, Type::I16);
    let dividend = widen(l, signed, Type::I32, dividend);
    let by = widen(l, signed, Type::I32, by);
    let zero = l.ir.imm32(0);
    let high = if signed { l.ir.sar_imm(dividend, 31) } else { zero };
    let (quotient, remainder) = l.ir.div_wide(signed, dividend, high, by);
    let byte = l.ir.trunc(Type::I8, quotient);
    let back = widen(l, signed, Type::I32, byte);
    let cut = l.ir.compare(Cmp::Ne, back, quotient);
    let nothing = l.ir.imm(0);
    l.ir.raise_if(cut, exception::DE, nothing);
    let low = l.ir.and_imm(back, 0xff);
    let high = l.ir.shl_imm(remainder, 8);
    let both = l.ir.alu(Code::Or, low, high);
    let both = l.ir.trunc(Type::I16, both);
    l.set_gpr(RAX, both);
}

/// ADCX and ADOX: a sum that touches one flag.
fn add_chain(l: &mut Lift, flag: Cond) {
    let ty = l.ty(0);
    let (a, b) = (l.read(0), l.read(1));
    let flags = l.flags();
    let carry = l.ir.condition(flag, flags);
    let sum = l.ir.ternary(Code::Adc, a, b, carry);
    let new = l.ir.flags(FlagKind::Adc, ty, a, b, carry);
    let out = l.ir.condition(Cond::C, new);
    let out = l.ir.zext(Type::I64, out);
    let image = l.ir.flags_image(flags);
    let bit = if flag == Cond::C { 0 } else { 11 };
    let image = l.ir.deposit(image, out, bit, 1);
    l.write(0, sum);
    l.set_flags(FlagKind::Image, Type::I64, image, Value::NONE, Value::NONE);
}

fn decimal(l: &mut Lift, number: usize) {
    let base = if l.insn.op_count() > 0 { l.insn.immediate(0) } else { 0 };
    let base = l.ir.imm(base as i64 & 0xff);
    l.ir.helper(number, base, Value::NONE, Value::NONE);
}
