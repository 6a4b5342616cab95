//! Shifts and rotations, volume 1, 5.1.5, and their BMI2 forms.

use iced_x86::Mnemonic as M;

use super::Row;
use crate::ir::{Code, FlagKind, Type, Value};
use crate::x86::helpers::helper;
use crate::x86::lift::Lift;

pub const ROWS: &[Row] = &[
    (M::Shl, |l| shift(l, Code::Shl, FlagKind::Shl)),
    (M::Sal, |l| shift(l, Code::Shl, FlagKind::Shl)),
    (M::Shr, |l| shift(l, Code::ShrU, FlagKind::ShrU)),
    (M::Sar, |l| shift(l, Code::ShrS, FlagKind::ShrS)),
    (M::Rol, |l| shift(l, Code::RotL, FlagKind::RotL)),
    (M::Ror, |l| shift(l, Code::RotR, FlagKind::RotR)),
    (M::Rcl, |l| rotate_through_carry(l, helper::RCL)),
    (M::Rcr, |l| rotate_through_carry(l, helper::RCR)),
    (M::Shld, |l| double(l, Code::ShlDouble)),
    (M::Shrd, |l| double(l, Code::ShrDouble)),
    (M::Shlx, |l| without_flags(l, Code::Shl)),
    (M::Shrx, |l| without_flags(l, Code::ShrU)),
    (M::Sarx, |l| without_flags(l, Code::ShrS)),
    (M::Rorx, |l| without_flags(l, Code::RotR)),
];

/// The count, masked as the width wants it, and whether it is known not to be zero.
fn count(l: &mut Lift, i: u32, ty: Type) -> (Value, Option<u64>) {
    let mask = if ty == Type::I64 { 63 } else { 31 };
    let count = l.read_as(i, Type::I8);
    let count = l.ir.and_imm(count, mask);
    (count, l.ir.as_const(count))
}

fn shift(l: &mut Lift, code: Code, kind: FlagKind) {
    let ty = l.ty(0);
    let (count, known) = count(l, 1, ty);
    let old_flags = match (known, kind) {
        // The destination is still accessed, so it may fault.
        (Some(0), _) => return l.modify(0, |_, a| a),
        (Some(_), FlagKind::Shl | FlagKind::ShrU | FlagKind::ShrS) => Value::NONE,
        _ => l.flags(),
    };
    let mut operand = Value::NONE;
    l.modify(0, |l, a| {
        operand = a;
        l.ir.alu(code, a, count)
    });
    l.set_flags(kind, ty, operand, count, old_flags);
}

/// RCL and RCR: a rotation of one bit more than the width. Rare, so by helper, which also writes
/// the flags; those are rolled into its result's place only after the store.
fn rotate_through_carry(l: &mut Lift, number: usize) {
    let ty = l.ty(0);
    let (count, _) = count(l, 1, ty);
    let count = l.ir.zext(Type::I64, count);
    let bytes = l.ir.imm(i64::from(ty.bytes()));
    if l.is_memory(0) {
        let address = l.address();
        let address = l.flatten(address);
        let on_memory = l.ir.imm(i64::from(ty.bytes()) | 0x100);
        l.ir.helper(number, address, count, on_memory);
        return;
    }
    let value = l.read(0);
    let value = l.ir.zext(Type::I64, value);
    let result = l.ir.helper(number, value, count, bytes);
    let result = l.ir.trunc(ty, result);
    l.write(0, result);
}

/// SHLD and SHRD: what the other operand's bits fill. Flags are those of a shift by the count; its
/// carry and sign come out right from the wide operand.
fn double(l: &mut Lift, code: Code) {
    let ty = l.ty(0);
    let fill = l.read(1);
    let (count, known) = count(l, 2, ty);
    if known == Some(0) {
        return l.modify(0, |_, a| a);
    }
    let old_flags = l.flags();
    let (mut operand, mut shifted, mut result) = (Value::NONE, Value::NONE, Value::NONE);
    l.modify(0, |l, a| {
        (operand, shifted) = (a, a);
        result = if ty == Type::I16 {
            let (wide, result) = double_words(l, code, a, fill, count);
            shifted = wide;
            result
        } else {
            l.ir.ternary(code, a, fill, count)
        };
        result
    });
    // The carry is that of a shift by the count.
    let kind = if code == Code::ShlDouble { FlagKind::Shl } else { FlagKind::ShrU };
    let shifted = l.ir.flags(kind, l.ir.ty(shifted), shifted, count, old_flags);
    double_flags(l, ty, operand, result, count, [shifted, old_flags]);
}

/// 16-bit operands with counts to 31 are shifted in 64 bits: what is shifted, and the result.
fn double_words(l: &mut Lift, code: Code, a: Value, fill: Value, count: Value) -> (Value, Value) {
    let wide = |l: &mut Lift, value| l.ir.zext(Type::I64, value);
    let (a, fill) = (wide(l, a), wide(l, fill));
    // a:fill:a for left shifts, a:fill:a from the other end for right ones: counts beyond 16 are
    // undefined, and processors rotate the operand in again.
    let upper = l.ir.shl_imm(a, 32);
    let middle = l.ir.shl_imm(fill, 16);
    let both = l.ir.alu(Code::Or, upper, middle);
    let all = l.ir.alu(Code::Or, both, a);
    let (wide, shifted) = if code == Code::ShlDouble {
        let high = l.ir.shl_imm(all, 16);
        let shifted = l.ir.alu(Code::Shl, high, count);
        (high, l.ir.shr_imm(shifted, 48))
    } else {
        (all, l.ir.alu(Code::ShrU, all, count))
    };
    (wide, l.ir.trunc(Type::I16, shifted))
}

/// Carry from the shift; sign, zero and parity from the result; overflow: the sign changed.
fn double_flags(
    l: &mut Lift,
    ty: Type,
    operand: Value,
    result: Value,
    count: Value,
    [shifted, old_flags]: [Value; 2],
) {
    let carry = l.ir.condition(crate::ir::Cond::C, shifted);
    let by_result = l.ir.flags(FlagKind::And, ty, result, result, Value::NONE);
    let image = l.ir.flags_image(by_result);
    let carry = l.ir.zext(Type::I64, carry);
    let image = l.ir.deposit(image, carry, 0, 1);
    let changed = l.ir.alu(Code::Xor, operand, result);
    let changed = l.ir.shr_imm(changed, ty.bits() - 1);
    let changed = l.ir.zext(Type::I64, changed);
    let image = l.ir.deposit(image, changed, 11, 1);
    let zero = l.ir.constant(Type::I8, 0);
    let none = l.ir.compare(crate::ir::Cmp::Eq, count, zero);
    let old = l.ir.flags_image(old_flags);
    let image = l.ir.select(none, old, image);
    l.set_flags(FlagKind::Image, Type::I64, image, Value::NONE, Value::NONE);
}

fn without_flags(l: &mut Lift, code: Code) {
    let (ty, value) = (l.ty(0), l.read(1));
    let (count, _) = count(l, 2, ty);
    let value = l.ir.alu(code, value, count);
    l.write(0, value);
}
