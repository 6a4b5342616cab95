//! Arithmetic on numbers of 80 bits, exact to the last bit and in its exceptions.

use std::cmp::Ordering;

use super::extended::{Class, Context, DENORMAL, DIVISION, Extended, INVALID, Parts};

/// What operands that are not ordinary give: the result, unless they have to be calculated with.
pub fn special(context: &mut Context, operands: &[Extended]) -> Option<Extended> {
    let is = |class: Class| operands.iter().any(|operand| operand.class() == class);
    if is(Class::Unsupported) {
        context.raised |= INVALID;
        return Some(Extended::INDEFINITE);
    }
    if is(Class::Signalling) {
        context.raised |= INVALID;
    }
    // The NaN with the larger significand; of two alike the positive one; a quiet one before others.
    let nans = operands.iter().filter(|nan| nan.is_nan() && (!is(Class::Quiet) || nan.is_quiet()));
    let key = |nan: &&Extended| (nan.quieted().significand, !nan.top);
    let larger = nans.max_by_key(key)?;
    Some(larger.quieted())
}

fn note_denormals(context: &mut Context, operands: &[Extended]) {
    if operands.iter().any(|operand| operand.class() == Class::Denormal) {
        context.raised |= DENORMAL;
    }
}

fn invalid(context: &mut Context) -> Extended {
    context.raised |= INVALID;
    Extended::INDEFINITE
}

/// a + b.
pub fn add(context: &mut Context, a: Extended, b: Extended) -> Extended {
    if let Some(result) = special(context, &[a, b]) {
        return result;
    }
    note_denormals(context, &[a, b]);
    match (a.class(), b.class()) {
        (Class::Infinity, Class::Infinity) if a.is_negative() != b.is_negative() => {
            invalid(context)
        }
        (Class::Infinity, _) => a,
        (_, Class::Infinity) => b,
        (Class::Zero, Class::Zero) if a.is_negative() == b.is_negative() => a,
        (Class::Zero, Class::Zero) => Extended::zero(context.rounds_down()),
        (Class::Zero, _) => context.extended(b.parts()),
        (_, Class::Zero) => context.extended(a.parts()),
        _ => add_parts(context, a.parts(), b.parts()),
    }
}

fn add_parts(context: &mut Context, a: Parts, b: Parts) -> Extended {
    let size = |parts: &Parts| (parts.exponent, parts.significand);
    let (large, small) = if size(&a) >= size(&b) { (a, b) } else { (b, a) };
    let shift = (large.exponent - small.exponent) as u32;
    // One bit free for the carry; what is shifted out leaves a trace.
    let first = large.significand >> 1;
    let second = jammed(small.significand >> 1, shift);
    let sum = if a.negative == b.negative { first + second } else { first - second };
    if sum == 0 {
        return Extended::zero(context.rounds_down());
    }
    context.extended(Parts::normal(large.negative, large.exponent + 1, sum))
}

/// Shifted right; the lowest bit stands for all that were lost.
fn jammed(value: u128, shift: u32) -> u128 {
    let shifted = value.checked_shr(shift).unwrap_or(0);
    let back = shifted.checked_shl(shift).unwrap_or(0);
    shifted | u128::from(back != value)
}

/// a - b.
pub fn subtract(context: &mut Context, a: Extended, b: Extended) -> Extended {
    // The sign of a NaN stays.
    let b = if b.is_nan() { b } else { b.negated() };
    add(context, a, b)
}

/// a × b.
pub fn multiply(context: &mut Context, a: Extended, b: Extended) -> Extended {
    if let Some(result) = special(context, &[a, b]) {
        return result;
    }
    let negative = a.is_negative() != b.is_negative();
    match (a.class(), b.class()) {
        (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => invalid(context),
        (Class::Infinity, _) | (_, Class::Infinity) => {
            note_denormals(context, &[a, b]);
            Extended::infinity(negative)
        }
        (Class::Zero, _) | (_, Class::Zero) => {
            note_denormals(context, &[a, b]);
            Extended::zero(negative)
        }
        _ => {
            note_denormals(context, &[a, b]);
            let (a, b) = (a.parts(), b.parts());
            let product = (a.significand >> 64) * (b.significand >> 64);
            context.extended(Parts::normal(negative, a.exponent + b.exponent + 1, product))
        }
    }
}

/// a ÷ b.
pub fn divide(context: &mut Context, a: Extended, b: Extended) -> Extended {
    if let Some(result) = special(context, &[a, b]) {
        return result;
    }
    let negative = a.is_negative() != b.is_negative();
    match (a.class(), b.class()) {
        (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => invalid(context),
        (Class::Infinity, _) => {
            note_denormals(context, &[b]);
            Extended::infinity(negative)
        }
        (Class::Zero, _) | (_, Class::Infinity) => {
            note_denormals(context, &[a, b]);
            Extended::zero(negative)
        }
        (_, Class::Zero) => {
            context.raised |= DIVISION;
            Extended::infinity(negative)
        }
        _ => {
            note_denormals(context, &[a, b]);
            let (a, b) = (a.parts(), b.parts());
            let quotient = quotient(a.significand, b.significand >> 64);
            context.extended(Parts::normal(negative, a.exponent - b.exponent, quotient))
        }
    }
}

/// Half of a ÷ b with 127 or 128 bits, of which the lowest stands for what was lost.
fn quotient(a: u128, b: u128) -> u128 {
    let (high, rest) = (a / b, a % b);
    let (low, rest) = ((rest << 64) / b, (rest << 64) % b);
    high << 63 | low >> 1 | u128::from(low & 1 != 0 || rest != 0)
}

/// The square root.
pub fn square_root(context: &mut Context, value: Extended) -> Extended {
    if let Some(result) = special(context, &[value]) {
        return result;
    }
    match value.class() {
        Class::Zero => return value,
        _ if value.is_negative() => return invalid(context),
        Class::Infinity => return value,
        _ => note_denormals(context, &[value]),
    }
    let parts = value.parts();
    // An even exponent, for a root of 64 bits.
    let odd = parts.exponent & 1;
    let radicand = parts.significand >> (1 - odd);
    let root = radicand.isqrt();
    let rest = radicand - root * root;
    // (root + 1/2)^2 is root + 1/4 more than root^2: more than `root` is left above a half.
    let below = match rest {
        0 => 0,
        rest if rest > root => 3,
        _ => 1,
    };
    context.extended(Parts::normal(false, parts.exponent >> 1, root << 64 | below << 62))
}

/// How a and b compare; nothing if they cannot be. A comparison that is not `quiet` minds NaNs.
pub fn compare(context: &mut Context, a: Extended, b: Extended, quiet: bool) -> Option<Ordering> {
    for operand in [a, b] {
        match operand.class() {
            Class::Unsupported | Class::Signalling => context.raised |= INVALID,
            Class::Quiet if !quiet => context.raised |= INVALID,
            _ => {}
        }
    }
    if special(context, &[a, b]).is_some() {
        return None;
    }
    note_denormals(context, &[a, b]);
    let size = |value: Extended| match value.class() {
        Class::Zero => (i32::MIN, 0),
        Class::Infinity => (i32::MAX, 0),
        _ => (value.parts().exponent, value.parts().significand),
    };
    if a.class() == Class::Zero && b.class() == Class::Zero {
        return Some(Ordering::Equal);
    }
    Some(match (a.is_negative(), b.is_negative()) {
        (false, false) => size(a).cmp(&size(b)),
        (true, true) => size(b).cmp(&size(a)),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    })
}

/// Rounded to an integer.
pub fn round(context: &mut Context, value: Extended) -> Extended {
    if let Some(result) = special(context, &[value]) {
        return result;
    }
    note_denormals(context, &[value]);
    match value.class() {
        Class::Zero | Class::Infinity => value,
        _ => context.rounded(value),
    }
}

/// value × 2^by, where `by` is cut to an integer.
pub fn scale(context: &mut Context, value: Extended, by: Extended) -> Extended {
    /// From every number to beyond every other.
    const FAR: i32 = 70_000;
    if let Some(result) = special(context, &[value, by]) {
        return result;
    }
    match (value.class(), by.class()) {
        (Class::Zero, Class::Infinity) if !by.is_negative() => return invalid(context),
        (Class::Infinity, Class::Infinity) if by.is_negative() => return invalid(context),
        _ => note_denormals(context, &[value, by]),
    }
    match (value.class(), by.class()) {
        (Class::Zero | Class::Infinity, _) => value,
        (_, Class::Infinity) if by.is_negative() => Extended::zero(value.is_negative()),
        (_, Class::Infinity) => Extended::infinity(value.is_negative()),
        (_, Class::Zero) => context.extended(value.parts()),
        _ => {
            let parts = by.parts();
            let size = match parts.exponent {
                17.. => FAR,
                0.. => (parts.significand >> (127 - parts.exponent)) as i32,
                _ => 0,
            };
            let by = if parts.negative { -size } else { size };
            let parts = value.parts();
            context.extended(Parts { exponent: parts.exponent + by, ..parts })
        }
    }
}

/// Exponent and significand, as two numbers.
pub fn extract(context: &mut Context, value: Extended) -> [Extended; 2] {
    if let Some(result) = special(context, &[value]) {
        return [result, result];
    }
    match value.class() {
        Class::Zero => {
            context.raised |= DIVISION;
            [Extended::infinity(true), value]
        }
        Class::Infinity => [Extended::infinity(false), value],
        _ => {
            note_denormals(context, &[value]);
            let parts = value.parts();
            let significand = Extended {
                significand: (parts.significand >> 64) as u64,
                top: Extended::ONE.top | value.top & 0x8000,
            };
            [Extended::from_integer(i64::from(parts.exponent)), significand]
        }
    }
}

/// What is left of a division.
pub struct Remainder {
    /// The number.
    pub value: Extended,
    /// The quotient's lowest bits; none of a division that has to go on.
    pub quotient: Option<u64>,
}

/// The remainder of a ÷ b, whose quotient is cut, or rounded to nearest as IEEE 754 wants it.
pub fn remainder(context: &mut Context, a: Extended, b: Extended, ieee: bool) -> Remainder {
    let whole = |value| Remainder { value, quotient: Some(0) };
    if let Some(result) = special(context, &[a, b]) {
        return whole(result);
    }
    match (a.class(), b.class()) {
        (Class::Infinity, _) | (_, Class::Zero) => return whole(invalid(context)),
        _ => note_denormals(context, &[a, b]),
    }
    if a.class() == Class::Zero {
        return whole(a);
    }
    if b.class() == Class::Infinity {
        return whole(context.extended(a.parts()));
    }
    let (dividend, divisor) = (a.parts(), b.parts());
    let difference = dividend.exponent - divisor.exponent;
    if difference < -1 {
        return whole(context.extended(dividend));
    }
    // A division of more than 63 steps is done in part.
    let steps = if difference < 64 { difference } else { 32 + difference % 32 };
    let (x, y) = (dividend.significand >> 64, divisor.significand >> 64);
    let (mut rest, mut quotient, exponent) = if steps < 0 {
        (x, 0, dividend.exponent)
    } else {
        let dividend = x << steps;
        (dividend % y, (dividend / y) as u64, dividend_exponent(difference, steps, divisor))
    };
    let mut negative = a.is_negative();
    if ieee && difference < 64 {
        // In units of half the dividend's, where there was no step.
        let (twice, limit) = if steps < 0 { (rest, y) } else { (rest << 1, y) };
        if twice > limit || twice == limit && quotient & 1 != 0 {
            rest = if steps < 0 { (y << 1) - rest } else { y - rest };
            negative = !negative;
            quotient = quotient.wrapping_add(1);
        }
    }
    let quotient = (difference < 64).then_some(quotient);
    if rest == 0 {
        return Remainder { value: Extended::zero(a.is_negative()), quotient };
    }
    let value = context.extended(Parts::normal(negative, exponent, rest << 64));
    Remainder { value, quotient }
}

/// The exponent of what is left after so many steps, of which `difference` were to be done.
fn dividend_exponent(difference: i32, steps: i32, divisor: Parts) -> i32 {
    divisor.exponent + (difference - steps)
}
