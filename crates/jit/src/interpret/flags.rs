//! What flags values mean: images with the bits of x86 EFLAGS.

use isa::ir::{ADJUST, CARRY, FlagKind, OVERFLOW, PARITY, SIGN, Type, ZERO};

use super::integer::signed;

/// The operands of a flags value: `c` is a `Bool` or the image of older flags, as its kind says.
#[derive(Clone, Copy)]
pub struct Operands {
    pub ty: Type,
    pub a: u64,
    pub b: u64,
    pub c: u64,
}

/// The image of all kinds but comparisons of FP numbers.
pub fn image(kind: FlagKind, of: Operands) -> u64 {
    let Operands { ty, a, b, c } = of;
    match kind {
        FlagKind::Add | FlagKind::AddCarry => sum(ty, a, b, 0),
        FlagKind::Adc | FlagKind::AdcCarry => sum(ty, a, b, c),
        FlagKind::Sub => difference(ty, a, b, 0),
        FlagKind::SubCarry => difference(ty, a, b, 0) ^ CARRY,
        FlagKind::Sbb => difference(ty, a, b, c),
        FlagKind::And => of_result(ty, a & b),
        FlagKind::Inc => sum(ty, a, 1, 0) & !CARRY | c & CARRY,
        FlagKind::Dec => difference(ty, a, 1, 0) & !CARRY | c & CARRY,
        FlagKind::Shl | FlagKind::ShrU | FlagKind::ShrS => shifted(kind, of),
        FlagKind::RotL | FlagKind::RotR => rotated(kind, of),
        FlagKind::MulU | FlagKind::MulS => product(kind, of),
        FlagKind::Bit => c & !CARRY | a >> (b % u64::from(ty.bits())) & 1,
        FlagKind::Count => chosen(a == 0, CARRY) | chosen(b == 0, ZERO),
        FlagKind::Zero => c & !ZERO | chosen(a == 0, ZERO),
        FlagKind::Image => a,
        kind => unreachable!("{kind:?} compares FP numbers"),
    }
}

fn chosen(condition: bool, bit: u64) -> u64 {
    if condition { bit } else { 0 }
}

/// Sign, zero and parity.
fn of_result(ty: Type, result: u64) -> u64 {
    let result = result & ty.mask();
    chosen(signed(ty, result) < 0, SIGN)
        | chosen(result == 0, ZERO)
        | chosen((result as u8).count_ones().is_multiple_of(2), PARITY)
}

fn sum(ty: Type, a: u64, b: u64, carry: u64) -> u64 {
    let wide = u128::from(a) + u128::from(b) + u128::from(carry);
    let result = wide as u64 & ty.mask();
    of_result(ty, result)
        | chosen(wide > u128::from(ty.mask()), CARRY)
        | (a ^ b ^ result) & ADJUST
        | chosen(signed(ty, (a ^ result) & (b ^ result)) < 0, OVERFLOW)
}

fn difference(ty: Type, a: u64, b: u64, borrow: u64) -> u64 {
    let result = a.wrapping_sub(b).wrapping_sub(borrow) & ty.mask();
    of_result(ty, result)
        | chosen(u128::from(a) < u128::from(b) + u128::from(borrow), CARRY)
        | (a ^ b ^ result) & ADJUST
        | chosen(signed(ty, (a ^ b) & (a ^ result)) < 0, OVERFLOW)
}

/// Shifts; what is undefined is left clear.
fn shifted(kind: FlagKind, of: Operands) -> u64 {
    let Operands { ty, a, b, c } = of;
    let count = b & if ty == Type::I64 { 63 } else { 31 };
    let bits = u64::from(ty.bits());
    if count == 0 {
        return c;
    }
    let top = |value: u64| value >> (bits - 1) & 1 != 0;
    let (result, carry, overflow) = match kind {
        FlagKind::Shl => {
            let wide = u128::from(a) << count;
            let (result, carry) = (wide as u64 & ty.mask(), wide >> bits & 1 != 0);
            (result, carry, top(result) != carry)
        }
        FlagKind::ShrU => (a >> count, a >> (count - 1) & 1 != 0, top(a)),
        _ => {
            let a = signed(ty, a);
            ((a >> count) as u64, a >> (count - 1) & 1 != 0, false)
        }
    };
    of_result(ty, result) | chosen(carry, CARRY) | chosen(overflow, OVERFLOW)
}

fn rotated(kind: FlagKind, of: Operands) -> u64 {
    let Operands { ty, a, b, c } = of;
    let bits = u64::from(ty.bits());
    let masked = b & if ty == Type::I64 { 63 } else { 31 };
    if masked == 0 {
        return c;
    }
    let left = match kind {
        FlagKind::RotL => masked % bits,
        _ => (bits - masked % bits) % bits,
    };
    let result = if left == 0 { a } else { (a << left | a >> (bits - left)) & ty.mask() };
    let (low, top) = (result & 1 != 0, result >> (bits - 1) & 1 != 0);
    let (carry, overflow) = match kind {
        FlagKind::RotL => (low, low != top),
        _ => (top, top != (result >> (bits - 2) & 1 != 0)),
    };
    c & !(CARRY | OVERFLOW) | chosen(carry, CARRY) | chosen(overflow, OVERFLOW)
}

fn product(kind: FlagKind, of: Operands) -> u64 {
    let Operands { ty, a, b, .. } = of;
    let upper_needed = match kind {
        FlagKind::MulU => u128::from(a) * u128::from(b) > u128::from(ty.mask()),
        _ => {
            let wide = i128::from(signed(ty, a)) * i128::from(signed(ty, b));
            wide != i128::from(signed(ty, wide as u64))
        }
    };
    chosen(upper_needed, CARRY | OVERFLOW)
}

/// The image of an FP comparison, from that of the host's.
pub fn of_comparison(arm: bool, host: u64) -> u64 {
    let host = host & (ZERO | PARITY | CARRY);
    if !arm {
        return host;
    }
    match (host & PARITY != 0, host & ZERO != 0, host & CARRY != 0) {
        (true, ..) => CARRY | OVERFLOW,
        (_, true, _) => ZERO | CARRY,
        (_, _, true) => SIGN,
        _ => CARRY,
    }
}
