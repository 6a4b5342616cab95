//! Floating-point vector operations in software, with MXCSR's rounding, zeroing of denormals and
//! sticky exceptions: FMA, F16C and the further predicates of comparisons on hosts without AVX.

use rustc_apfloat::ieee::{Double, Half, Quad, Single};
use rustc_apfloat::{Float, FloatConvert, Round, Status, StatusAnd};

use super::vector::{join, split};
use crate::ir::Lane;

/// MXCSR.
const INVALID: u64 = 1;
const DENORMAL: u64 = 1 << 1;
const OVERFLOW: u64 = 1 << 3;
const UNDERFLOW: u64 = 1 << 4;
const INEXACT: u64 = 1 << 5;
const DENORMALS_ARE_ZEROS: u64 = 1 << 6;
const FLUSH_TO_ZERO: u64 = 1 << 15;

fn rounding(mxcsr: u64) -> Round {
    mode(mxcsr >> 13)
}

fn mode(bits: u64) -> Round {
    match bits & 3 {
        0 => Round::NearestTiesToEven,
        1 => Round::TowardNegative,
        2 => Round::TowardPositive,
        _ => Round::TowardZero,
    }
}

/// Which fused operation: `sum`, `double` and `low` in bits 0 to 2, 3, and 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fused(pub u8);

impl Fused {
    /// That of a lane operation.
    pub fn of(lane: Lane) -> Self {
        let row = lane.row();
        let sum = match row.encoding.opcode {
            0xa6 => 4,
            0xa7 => 5,
            opcode => (opcode - 0xa8) / 2,
        };
        let low = row.widest == crate::ir::Type::V128;
        Self(sum | u8::from(row.encoding.w) << 3 | u8::from(low) << 4)
    }

    /// Whether the product and the addend change their sign in a lane.
    fn signs(self, lane: usize) -> (bool, bool) {
        match self.0 & 7 {
            0 => (false, false),
            1 => (false, true),
            2 => (true, false),
            3 => (true, true),
            4 => (false, lane.is_multiple_of(2)),
            _ => (false, !lane.is_multiple_of(2)),
        }
    }
}

/// A format's numbers.
#[derive(Clone, Copy)]
struct Format {
    sign: u64,
    infinity: u64,
    quiet: u64,
}

const SINGLE: Format = Format { sign: 1 << 31, infinity: 0x7f80_0000, quiet: 1 << 22 };
const DOUBLE: Format = Format { sign: 1 << 63, infinity: 0x7ff0_0000_0000_0000, quiet: 1 << 51 };

impl Format {
    fn magnitude(self, a: u64) -> u64 {
        a & (self.sign - 1)
    }

    fn is_nan(self, a: u64) -> bool {
        self.magnitude(a) > self.infinity
    }

    fn is_signalling(self, a: u64) -> bool {
        self.is_nan(a) && a & self.quiet == 0
    }

    fn is_denormal(self, a: u64) -> bool {
        let magnitude = self.magnitude(a);
        magnitude != 0 && magnitude < self.quiet << 1
    }

    /// The operand as the processor sees it.
    fn operand(self, a: u64, mxcsr: u64) -> u64 {
        let zeroed = mxcsr & DENORMALS_ARE_ZEROS != 0 && self.is_denormal(a);
        if zeroed { a & self.sign } else { a }
    }

    /// Whether an operand raises the denormal exception.
    fn note_denormals(self, operands: &[u64], mxcsr: &mut u64) {
        if operands.iter().any(|a| self.is_denormal(*a)) {
            *mxcsr |= DENORMAL;
        }
    }
}

fn sticky(status: Status) -> u64 {
    let bit = |flag: Status, bit: u64| if status.contains(flag) { bit } else { 0 };
    bit(Status::INVALID_OP, INVALID)
        | bit(Status::OVERFLOW, OVERFLOW)
        | bit(Status::UNDERFLOW, UNDERFLOW)
        | bit(Status::INEXACT, INEXACT)
}

/// `x * y + z` with these bits.
fn fused_lane(f: Format, operands: [u64; 3], signs: (bool, bool), mxcsr: &mut u64) -> u64 {
    let operands = operands.map(|a| f.operand(a, *mxcsr));
    let [x, y, z] = operands;
    let indefinite = f.sign | f.infinity | f.quiet;
    if let Some(nan) = operands.into_iter().find(|a| f.is_nan(*a)) {
        if operands.iter().any(|a| f.is_signalling(*a)) {
            *mxcsr |= INVALID;
        }
        return nan | f.quiet;
    }
    let (minus_product, minus_sum) = signs;
    let x = if minus_product { x ^ f.sign } else { x };
    let z = if minus_sum { z ^ f.sign } else { z };
    let round = rounding(*mxcsr);
    fn compute<F: Float>(bits: [u64; 3], round: Round) -> StatusAnd<u64> {
        let [x, y, z] = bits.map(|bits| F::from_bits(bits.into()));
        x.mul_add_r(y, z, round).map(|value| value.to_bits() as u64)
    }
    let StatusAnd { status, value } = match f.sign == SINGLE.sign {
        true => compute::<Single>([x, y, z], round),
        false => compute::<Double>([x, y, z], round),
    };
    if status.contains(Status::INVALID_OP) {
        *mxcsr |= INVALID;
        return indefinite;
    }
    f.note_denormals(&operands, mxcsr);
    *mxcsr |= sticky(status);
    if f.magnitude(value) == f.infinity - 1 && overflows(f, [x, y, z]) {
        *mxcsr |= OVERFLOW;
    }
    if *mxcsr & FLUSH_TO_ZERO != 0 && f.is_denormal(value) {
        *mxcsr |= UNDERFLOW | INEXACT;
        return value & f.sign;
    }
    value
}

/// Whether a sum that was rounded to the largest number, towards zero, lies beyond its whole binade.
/// Four times the precision, cut off, decides that exactly.
fn overflows(f: Format, operands: [u64; 3]) -> bool {
    fn wide<F: Float + FloatConvert<Quad>>(bits: [u64; 3]) -> Quad {
        let [x, y, z] =
            bits.map(|bits| -> Quad { F::from_bits(bits.into()).convert(&mut false).value });
        x.mul_add_r(y, z, Round::TowardZero).value
    }
    let (sum, binade) = match f.sign == SINGLE.sign {
        true => (wide::<Single>(operands), 128),
        false => (wide::<Double>(operands), 1024),
    };
    sum.abs() >= Quad::from_u128(1).value.scalbn(binade)
}

/// A fused operation on vectors; `rest` is what lies above the low lane of a scalar one.
pub fn fused(
    fused: Fused,
    [x, y, z]: [[u64; 4]; 3],
    rest: [u64; 4],
    wide: bool,
    mxcsr: &mut u64,
) -> [u64; 4] {
    let (double, low) = (fused.0 & 8 != 0, fused.0 & 16 != 0);
    let lanes = match (low, wide) {
        (true, _) => 1,
        (_, true) => 8,
        _ => 4,
    };
    if double {
        let mut result = if low { rest } else { [0; 4] };
        for n in 0..usize::div_ceil(lanes, 2) {
            result[n] = fused_lane(DOUBLE, [x[n], y[n], z[n]], fused.signs(n), mxcsr);
        }
        return result;
    }
    let [x, y, z] = [x, y, z].map(split);
    let mut result = if low { split(rest) } else { [0; 8] };
    for n in 0..lanes {
        let operands = [x[n], y[n], z[n]].map(u64::from);
        result[n] = fused_lane(SINGLE, operands, fused.signs(n), mxcsr) as u32;
    }
    join(result)
}

/// Whether a predicate holds, by what it says of less, equal, greater and unordered numbers; and
/// whether it calls quiet NaNs invalid.
fn predicate(imm: u8) -> ([bool; 4], bool) {
    let holds = match imm & 15 {
        0 => [false, true, false, false],
        1 => [true, false, false, false],
        2 => [true, true, false, false],
        3 => [false, false, false, true],
        4 => [true, false, true, true],
        5 => [false, true, true, true],
        6 => [false, false, true, true],
        7 => [true, true, true, false],
        8 => [false, true, false, true],
        9 => [true, false, false, true],
        10 => [true, true, false, true],
        11 => [false; 4],
        12 => [true, false, true, false],
        13 => [false, true, true, false],
        14 => [false, false, true, false],
        _ => [true; 4],
    };
    // 1, 2, 5, 6 and those like them are ordered relations; bit 4 turns it round.
    let signals = matches!(imm & 7, 1 | 2 | 5 | 6) != (imm & 16 != 0);
    (holds, signals)
}

fn compare_lane(f: Format, a: u64, b: u64, imm: u8, mxcsr: &mut u64) -> bool {
    let (holds, signals) = predicate(imm);
    let operands = [a, b].map(|a| f.operand(a, *mxcsr));
    let [a, b] = operands;
    if f.is_nan(a) || f.is_nan(b) {
        if signals || f.is_signalling(a) || f.is_signalling(b) {
            *mxcsr |= INVALID;
        }
        return holds[3];
    }
    f.note_denormals(&operands, mxcsr);
    // As integers that have the numbers' order.
    let key = |a: u64| {
        let magnitude = f.magnitude(a) as i64;
        if a & f.sign != 0 { -magnitude } else { magnitude }
    };
    match key(a).cmp(&key(b)) {
        std::cmp::Ordering::Less => holds[0],
        std::cmp::Ordering::Equal => holds[1],
        std::cmp::Ordering::Greater => holds[2],
    }
}

/// CMPPS and its relatives with any of the 32 predicates.
pub fn compare(
    bits: u32,
    low: bool,
    wide: bool,
    a: [u64; 4],
    b: [u64; 4],
    imm: u8,
    mxcsr: &mut u64,
) -> [u64; 4] {
    let vector_words = if wide { 4 } else { 2 };
    if bits == 64 {
        let mut result = a;
        for n in 0..if low { 1 } else { vector_words } {
            let holds = compare_lane(DOUBLE, a[n], b[n], imm, mxcsr);
            result[n] = if holds { u64::MAX } else { 0 };
        }
        return result;
    }
    let (a, b) = (split(a), split(b));
    let mut result = a;
    for n in 0..if low { 1 } else { 2 * vector_words } {
        let holds = compare_lane(SINGLE, a[n].into(), b[n].into(), imm, mxcsr);
        result[n] = if holds { u32::MAX } else { 0 };
    }
    join(result)
}

/// VCVTPH2PS.
pub fn from_half(a: [u64; 4], wide: bool, mxcsr: &mut u64) -> [u64; 4] {
    let mut result = [0; 8];
    for n in 0..if wide { 8 } else { 4 } {
        let half = (a[n / 4] >> (16 * (n % 4))) as u16;
        let sign = u32::from(half & 0x8000) << 16;
        result[n] = if half & 0x7fff > 0x7c00 {
            if half & 0x200 == 0 {
                *mxcsr |= INVALID;
            }
            sign | 0x7fc0_0000 | u32::from(half & 0x3ff) << 13
        } else {
            let mut loses = false;
            let value: StatusAnd<Single> = Half::from_bits(half.into()).convert(&mut loses);
            value.value.to_bits() as u32
        };
    }
    join(result)
}

/// VCVTPS2PH: rounds as the immediate says, or as MXCSR does.
pub fn to_half(a: [u64; 4], wide: bool, imm: u8, mxcsr: &mut u64) -> [u64; 4] {
    let round = if imm & 4 != 0 { rounding(*mxcsr) } else { mode(imm.into()) };
    let mut result = [0; 4];
    let lanes = if wide { 8 } else { 4 };
    for (n, single) in split(a).into_iter().enumerate().take(lanes) {
        let single = SINGLE.operand(single.into(), *mxcsr);
        let sign = single >> 16 & 0x8000;
        let half = if SINGLE.is_nan(single) {
            if SINGLE.is_signalling(single) {
                *mxcsr |= INVALID;
            }
            sign | 0x7e00 | single >> 13 & 0x3ff
        } else {
            SINGLE.note_denormals(&[single], mxcsr);
            let mut loses = false;
            let value: StatusAnd<Half> =
                Single::from_bits(single.into()).convert_r(round, &mut loses);
            *mxcsr |= sticky(value.status);
            // Rounded towards zero, it may still be beyond the largest number's binade.
            if (0x4780_0000..SINGLE.infinity).contains(&SINGLE.magnitude(single)) {
                *mxcsr |= OVERFLOW | INEXACT;
            }
            value.value.to_bits() as u64
        };
        result[n / 4] |= half << (16 * (n % 4));
    }
    result
}
