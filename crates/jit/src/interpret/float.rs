//! What scalar floating-point operations mean: the host's operation under MXCSR, and the guests'
//! rules for NaNs, zeros and numbers that do not fit.

use isa::ir::{Code, FpRule, Lane, MinMaxRule, NanRule, PackedRule, Round, Saturate, Type};

use crate::host::x86_64::instructions as host;

/// Sticky bits of MXCSR.
const INVALID: u32 = 1;
const INEXACT: u32 = 1 << 5;
/// Where MXCSR has its rounding mode.
const ROUNDING: u32 = 13;

/// A format: its bits as numbers.
#[derive(Clone, Copy)]
pub struct Format {
    pub bits: u32,
    fraction: u32,
}

impl Format {
    pub const SINGLE: Self = Self { bits: 32, fraction: 23 };
    pub const DOUBLE: Self = Self { bits: 64, fraction: 52 };

    pub fn of(ty: Type) -> Self {
        if ty == Type::F32 { Self::SINGLE } else { Self::DOUBLE }
    }

    fn is_single(self) -> bool {
        self.bits == 32
    }

    pub fn sign(self) -> u64 {
        1 << (self.bits - 1)
    }

    fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    /// The bit that tells quiet NaNs from signalling ones.
    fn quiet(self) -> u64 {
        1 << (self.fraction - 1)
    }

    pub fn infinity(self) -> u64 {
        (self.sign() - 1) & !((1 << self.fraction) - 1)
    }

    /// The canonical NaN.
    pub fn nan(self) -> u64 {
        self.infinity() | self.quiet()
    }

    pub fn is_nan(self, a: u64) -> bool {
        a & (self.sign() - 1) > self.infinity()
    }

    fn is_signalling(self, a: u64) -> bool {
        self.is_nan(a) && a & self.quiet() == 0
    }

    fn is_zero(self, a: u64) -> bool {
        a & (self.sign() - 1) == 0
    }

    /// The first operand that is a NaN, made quiet.
    fn first_nan(self, operands: &[u64], signalling_first: bool) -> Option<u64> {
        let signalling = operands.iter().find(|&&a| self.is_signalling(a));
        let any = operands.iter().find(|&&a| self.is_nan(a));
        let chosen = if signalling_first { signalling.or(any) } else { any };
        chosen.map(|&a| a | self.quiet())
    }
}

/// Does something with the rounding of the operation's own.
pub fn rounded<R>(control: &mut u32, round: Round, act: impl FnOnce(&mut u32) -> R) -> R {
    let mode = match round {
        Round::Dynamic => return act(control),
        Round::Nearest | Round::Away => 0,
        Round::Down => 1,
        Round::Up => 2,
        Round::Zero => 3,
    };
    let mut own = *control & !(3 << ROUNDING) | mode << ROUNDING;
    let result = act(&mut own);
    *control |= own & 0x3f;
    result
}

/// A NaN result becomes the guest's.
fn ruled(rule: NanRule, format: Format, result: u64, operands: &[u64]) -> u64 {
    if !format.is_nan(result) {
        return result;
    }
    match rule {
        NanRule::X86 => result,
        NanRule::Default => format.nan(),
        rule => format.first_nan(operands, rule == NanRule::Arm).unwrap_or(format.nan()),
    }
}

/// `FAdd` to `FSqrt`.
pub fn arithmetic(control: &mut u32, code: Code, ty: Type, aux: u16, a: u64, b: u64) -> u64 {
    let (rule, format) = (FpRule::unpack(aux), Format::of(ty));
    let lane = match (code, format.is_single()) {
        (Code::FAdd, true) => Lane::FAddLow32,
        (Code::FAdd, false) => Lane::FAddLow64,
        (Code::FSub, true) => Lane::FSubLow32,
        (Code::FSub, false) => Lane::FSubLow64,
        (Code::FMul, true) => Lane::FMulLow32,
        (Code::FMul, false) => Lane::FMulLow64,
        (Code::FDiv, true) => Lane::FDivLow32,
        (Code::FDiv, false) => Lane::FDivLow64,
        (_, true) => Lane::FSqrtLow32,
        (_, false) => Lane::FSqrtLow64,
    };
    // The square root's operand is the second one of its row.
    let b = if code == Code::FSqrt { a } else { b };
    let result = rounded(control, rule.round, |control| low(control, format, lane, a, b, 0));
    ruled(rule.nan, format, result, &[a, b])
}

fn low(control: &mut u32, format: Format, lane: Lane, a: u64, b: u64, c: u64) -> u64 {
    let instruction = host::of_lane(lane).expect("scalar rows have instructions");
    instruction(control, a.into(), b.into(), c.into()) as u64 & format.mask()
}

/// `a * b + c`.
pub fn fused(control: &mut u32, ty: Type, aux: u16, operands: [u64; 3]) -> u64 {
    let (rule, format) = (FpRule::unpack(aux), Format::of(ty));
    let [a, b, c] = operands;
    let lane = if format.is_single() { Lane::FMulAddLow32 } else { Lane::FMulAddLow64 };
    let result = rounded(control, rule.round, |control| low(control, format, lane, a, b, c));
    match rule.nan {
        NanRule::X86 => result,
        NanRule::Arm => strict_fused(control, NanRule::Arm, format, result, operands),
        _ => strict_fused(control, NanRule::Default, format, result, operands),
    }
}

/// Arm and RISC-V: infinity times zero is invalid even if the addend is a quiet NaN.
fn strict_fused(
    control: &mut u32,
    rule: NanRule,
    format: Format,
    result: u64,
    [a, b, c]: [u64; 3],
) -> u64 {
    let magnitude = |x: u64| x & (format.sign() - 1);
    let product_is_new = magnitude(a) == format.infinity() && format.is_zero(b)
        || magnitude(b) == format.infinity() && format.is_zero(a);
    if product_is_new && format.is_nan(c) && !format.is_signalling(c) {
        *control |= INVALID;
        return format.nan();
    }
    ruled(rule, format, result, &[c, a, b])
}

/// One lane of a packed operation.
pub fn packed(rule: PackedRule, format: Format, result: u64, operands: &[u64]) -> u64 {
    let nan = if rule == PackedRule::Default { NanRule::Default } else { NanRule::Arm };
    ruled(nan, format, result, operands)
}

/// One lane of a packed fused operation, `operands` as its row has them.
pub fn packed_fused(
    control: &mut u32,
    rule: PackedRule,
    format: Format,
    result: u64,
    operands: [u64; 3],
) -> u64 {
    let nan = if rule == PackedRule::Arm { NanRule::Arm } else { NanRule::Default };
    strict_fused(control, nan, format, result, operands)
}

/// The rule of a packed minimum or maximum, as that of a scalar one.
pub fn packed_min_max(
    control: &mut u32,
    default: bool,
    ty: Type,
    max: bool,
    a: u64,
    b: u64,
) -> u64 {
    let result = min_max(control, MinMaxRule::Nan, ty, max, a, b);
    let format = Format::of(ty);
    if default && format.is_nan(result) { format.nan() } else { result }
}

/// `FMin` and `FMax`.
pub fn min_max(control: &mut u32, rule: MinMaxRule, ty: Type, max: bool, a: u64, b: u64) -> u64 {
    let format = Format::of(ty);
    let lane = match (max, format.is_single()) {
        (false, true) => Lane::FMinLow32,
        (false, false) => Lane::FMinLow64,
        (true, true) => Lane::FMaxLow32,
        (true, false) => Lane::FMaxLow64,
    };
    if rule == MinMaxRule::X86 {
        return low(control, format, lane, a, b, 0);
    }
    let (nan_a, nan_b) = (format.is_nan(a), format.is_nan(b));
    if format.is_signalling(a) || format.is_signalling(b) {
        *control |= INVALID;
    }
    if !nan_a && !nan_b {
        return match (format.is_zero(a) && format.is_zero(b), max) {
            (true, true) => a & b,
            (true, false) => a | b,
            _ => low(control, format, lane, a, b, 0),
        };
    }
    match rule {
        MinMaxRule::Nan => format.first_nan(&[a, b], true).unwrap_or(format.nan()),
        _ if nan_a && nan_b => format.nan(),
        _ if nan_a => b,
        _ => a,
    }
}

/// The host's flags after a comparison.
pub fn compared(control: &mut u32, ty: Type, signal: bool, a: u64, b: u64) -> u64 {
    let compare = match (Format::of(ty).is_single(), signal) {
        (true, false) => host::compare_quiet_32,
        (false, false) => host::compare_quiet_64,
        (true, true) => host::compare_signal_32,
        (false, true) => host::compare_signal_64,
    };
    compare(control, a.into(), b.into(), 0) as u64
}

/// `FCompare`.
pub fn comparison(control: &mut u32, kind: u16, ty: Type, a: u64, b: u64) -> bool {
    use isa::ir::{CARRY, PARITY, ZERO};
    let flags = compared(control, ty, matches!(kind, 1 | 2), a, b);
    let (unordered, equal) = (flags & PARITY != 0, flags & ZERO != 0);
    let less = flags & CARRY != 0;
    match kind {
        0 => equal && !unordered,
        3 => unordered,
        1 | 4 => less && !unordered,
        _ => (less || equal) && !unordered,
    }
}

/// `FConvert`: to the other format.
pub fn converted(control: &mut u32, to: Type, aux: u16, a: u64) -> u64 {
    let (rule, format) = (FpRule::unpack(aux), Format::of(to));
    let lane = if format.is_single() { Lane::FConvertLow64to32 } else { Lane::FConvertLow32to64 };
    let result = rounded(control, rule.round, |control| low(control, format, lane, a, a, 0));
    default_only(rule.nan, format, result)
}

fn default_only(rule: NanRule, format: Format, result: u64) -> u64 {
    let rule = if rule == NanRule::Default { rule } else { NanRule::X86 };
    ruled(rule, format, result, &[])
}

/// `FFromHalf`.
pub fn from_half(control: &mut u32, to: Type, half: u64) -> u64 {
    let widen = host::of_lane(Lane::HalfToF32).expect("it has an instruction");
    let single = widen(control, half.into(), 0, 0) as u64 & u64::from(u32::MAX);
    match to {
        Type::F32 => single,
        _ => low(control, Format::DOUBLE, Lane::FConvertLow32to64, single, single, 0),
    }
}

/// `FToHalf`: doubles through singles.
pub fn to_half(control: &mut u32, from: Type, a: u64) -> u64 {
    let single = match from {
        Type::F32 => a,
        _ => low(control, Format::SINGLE, Lane::FConvertLow64to32, a, a, 0),
    };
    host::half_of_single(control, single.into(), 0, 0) as u64 & 0xffff
}

/// `FFromS` and `FFromU`; `a` is extended as the code says.
pub fn from_integer(control: &mut u32, unsigned: bool, to: Type, aux: u16, a: u64) -> u64 {
    let (rule, format) = (FpRule::unpack(aux), Format::of(to));
    let convert =
        if format.is_single() { host::single_of_integer } else { host::double_of_integer };
    let sum = if format.is_single() { Lane::FAddLow32 } else { Lane::FAddLow64 };
    rounded(control, rule.round, |control| {
        if !unsigned || a >> 63 == 0 {
            return convert(control, a.into(), 0, 0) as u64 & format.mask();
        }
        // Half of it, with what falls off kept in the lowest bit, has as many digits to lose.
        let half = convert(control, (a >> 1 | a & 1).into(), 0, 0) as u64;
        low(control, format, sum, half, half, 0)
    })
}

/// The mode in effect.
fn mode(control: u32, round: Round) -> Round {
    match round {
        Round::Dynamic => [Round::Nearest, Round::Down, Round::Up, Round::Zero]
            [(control >> ROUNDING & 3) as usize],
        round => round,
    }
}

/// A finite number as an integer, and whether that is inexact; magnitudes beyond 2^100 are cut.
fn integral(format: Format, round: Round, a: u64) -> (i128, bool) {
    let negative = a & format.sign() != 0;
    let magnitude = a & (format.sign() - 1);
    let exponent = (magnitude >> format.fraction) as i32;
    let fraction = u128::from(magnitude & ((1 << format.fraction) - 1));
    let implicit = if exponent == 0 { 0 } else { 1 << format.fraction };
    let bias = (1 << (format.bits - format.fraction - 2)) - 1;
    let shift = exponent.max(1) - bias - format.fraction as i32;
    let digits = fraction | implicit;
    let (whole, rest, half) = if shift >= 0 {
        (digits << shift.min(70), 0, 1)
    } else if -shift < 120 {
        let places = -shift as u32;
        (digits >> places, digits & ((1 << places) - 1), 1 << (places - 1))
    } else {
        (0, digits, u128::MAX)
    };
    let up = match round {
        Round::Nearest => rest > half || rest == half && whole & 1 != 0 && rest != 0,
        Round::Away => rest >= half && rest != 0,
        Round::Down => negative && rest != 0,
        Round::Up => !negative && rest != 0,
        _ => false,
    };
    let whole = whole as i128 + i128::from(up);
    (if negative { -whole } else { whole }, rest != 0)
}

/// `FToS` and `FToU`.
pub fn to_integer(
    control: &mut u32,
    unsigned: bool,
    from: Type,
    to: Type,
    aux: u16,
    a: u64,
) -> u64 {
    let (rule, format) = (FpRule::unpack(aux & 0xff), Format::of(from));
    let saturate = match aux >> 8 {
        0 => Saturate::Indefinite,
        1 => Saturate::NanZero,
        _ => Saturate::NanMax,
    };
    let (min, max) = match unsigned {
        true => (0, i128::from(to.mask())),
        false => (-1 << (to.bits() - 1), (1 << (to.bits() - 1)) - 1),
    };
    let a = seen(*control, format, a);
    let nan = format.is_nan(a);
    let infinite = a & (format.sign() - 1) == format.infinity();
    let (value, inexact) = integral(format, mode(*control, rule.round), a);
    let fits = !nan && !infinite && (min..=max).contains(&value);
    if fits {
        *control |= if inexact { INEXACT } else { 0 };
        return value as u64 & to.mask();
    }
    *control |= INVALID;
    let nearest = if a & format.sign() != 0 { min } else { max };
    let value = match saturate {
        Saturate::Indefinite => min,
        Saturate::NanZero if nan => 0,
        Saturate::NanMax if nan => max,
        _ => nearest,
    };
    value as u64 & to.mask()
}

/// An operand as instructions see it that may take denormals for zeros.
fn seen(control: u32, format: Format, a: u64) -> u64 {
    const DENORMALS_ARE_ZEROS: u32 = 1 << 6;
    let denormal = format.quiet() << 1 > a & (format.sign() - 1);
    if denormal && control & DENORMALS_ARE_ZEROS != 0 { a & format.sign() } else { a }
}

/// `FRound`.
pub fn round(control: &mut u32, ty: Type, aux: u16, a: u64) -> u64 {
    let (rule, format) = (FpRule::unpack(aux & 0xff), Format::of(ty));
    let raises = aux & 0x100 != 0;
    let result = to_integral(control, format, rule.round, raises, a);
    default_only(rule.nan, format, result)
}

/// To an integral number; ties away from zero too, which the host does not have.
pub fn to_integral(control: &mut u32, format: Format, round: Round, raises: bool, a: u64) -> u64 {
    let host = if format.is_single() { host::round_32 } else { host::round_64 };
    let before = *control;
    let mut result = rounded(control, round, |control| {
        host(control, a.into(), a.into(), 0) as u64 & format.mask()
    });
    if !raises {
        *control = *control & !INEXACT | before & INEXACT;
    }
    let magnitude = a & (format.sign() - 1);
    if round == Round::Away && magnitude < format.infinity() {
        let (value, inexact) = integral(format, round, a);
        if inexact {
            let mut exact = 0x1f80;
            let number = from_integer(&mut exact, false, type_of(format), 0, value as u64);
            result = number | a & format.sign();
        }
    }
    result
}

fn type_of(format: Format) -> Type {
    if format.is_single() { Type::F32 } else { Type::F64 }
}
