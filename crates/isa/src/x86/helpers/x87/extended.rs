//! Numbers of 80 bits: what they are, and how results are rounded into them and into other formats.

/// Invalid operation; together with [`STACK`] a stack fault.
pub const INVALID: u64 = 1;
/// An operand is denormal.
pub const DENORMAL: u64 = 2;
/// Division by zero.
pub const DIVISION: u64 = 4;
/// The result is too large.
pub const OVERFLOW: u64 = 8;
/// The result is too small, and not exact.
pub const UNDERFLOW: u64 = 16;
/// The result is not exact.
pub const PRECISION: u64 = 32;
/// See [`INVALID`].
pub const STACK: u64 = 64;

/// The exponent of 1.
const BIAS: i32 = 16383;
const INTEGER_BIT: u64 = 1 << 63;
const QUIET_BIT: u64 = 1 << 62;

/// A number as it lies in a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extended {
    /// With its integer bit.
    pub significand: u64,
    /// Sign and exponent.
    pub top: u16,
}

/// What a number is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Either one.
    Zero,
    /// Too small for an integer bit; or with one all the same.
    Denormal,
    /// Anything else that is finite.
    Normal,
    /// Either one.
    Infinity,
    /// Not a number.
    Quiet,
    /// Not a number, and every operation says so.
    Signalling,
    /// An encoding without meaning, since the 80387.
    Unsupported,
}

/// A finite number other than zero, taken apart: `significand` has its highest bit set, and counts
/// from 1 to below 2.
#[derive(Clone, Copy)]
pub struct Parts {
    /// Below zero.
    pub negative: bool,
    /// The power of two.
    pub exponent: i32,
    /// Bits below the 64th are beyond a register's precision. The lowest also stands for all that
    /// were lost.
    pub significand: u128,
}

impl Parts {
    /// Of a significand in whatever place: its highest bit stands for 2^`exponent`.
    pub fn normal(negative: bool, exponent: i32, significand: u128) -> Self {
        let shift = significand.leading_zeros();
        Self { negative, exponent: exponent - shift as i32, significand: significand << shift }
    }
}

/// A format that results are rounded to.
#[derive(Clone, Copy)]
pub struct Format {
    /// Bits of the significand.
    pub precision: u32,
    /// The exponent of the smallest normal number.
    pub exponent_min: i32,
    /// The exponent of the largest number.
    pub exponent_max: i32,
}

/// Single precision.
pub const SINGLE: Format = Format { precision: 24, exponent_min: -126, exponent_max: 127 };
/// Double precision.
pub const DOUBLE: Format = Format { precision: 53, exponent_min: -1022, exponent_max: 1023 };

/// How results are rounded, and what happened on the way.
pub struct Context {
    round: u64,
    /// Bits of the significand of arithmetic's results.
    precision: u32,
    masked: u64,
    /// Exceptions, as in the status word.
    pub raised: u64,
}

/// A number that was rounded: its significand's highest bit is set but for a denormal.
pub enum Rounded {
    /// Exponent, and a significand whose bits beyond the precision are clear.
    Finite(i32, u64),
    /// Too large.
    Infinity,
}

impl Context {
    /// By a control word.
    pub fn new(control: u64) -> Self {
        let precision = match control >> 8 & 3 {
            0 => 24,
            2 => 53,
            _ => 64,
        };
        Self { round: control >> 10 & 3, precision, masked: control & 0x3f, raised: 0 }
    }

    /// From here on results keep all their bits.
    pub fn keep_bits(&mut self) -> &mut Self {
        self.precision = 64;
        self
    }

    /// The same, cutting off what does not fit.
    pub fn cutting(mut self) -> Self {
        self.round = 3;
        self
    }

    /// The control word's rounding: to nearest, down, up, cut.
    pub fn rounding(&self) -> u64 {
        self.round
    }

    /// Sums that are zero are below it.
    pub fn rounds_down(&self) -> bool {
        self.round == 1
    }

    /// Whether a number is rounded away from zero, by the bits that are cut off: `half` is the value
    /// of the first of them.
    fn goes_up(&self, negative: bool, odd: bool, rest: u128, half: u128) -> bool {
        match self.round {
            0 => rest > half || rest == half && odd,
            1 => negative && rest != 0,
            2 => !negative && rest != 0,
            _ => false,
        }
    }

    /// Significand of `precision` bits; whether it grew out of 128; whether it is inexact.
    fn cut(&self, negative: bool, significand: u128, precision: u32) -> (u128, bool, bool) {
        let unit = 1_u128 << (128 - precision);
        let rest = significand & (unit - 1);
        let kept = significand - rest;
        if !self.goes_up(negative, kept & unit != 0, rest, unit >> 1) {
            return (kept, false, rest != 0);
        }
        let (sum, grew) = kept.overflowing_add(unit);
        (sum, grew, rest != 0)
    }

    /// Rounds to a format.
    pub fn round_to(&mut self, parts: Parts, format: Format) -> Rounded {
        let Parts { negative, mut exponent, significand } = parts;
        let (mut kept, grew, mut inexact) = self.cut(negative, significand, format.precision);
        let rounded_exponent = exponent + i32::from(grew);
        if rounded_exponent > format.exponent_max {
            self.raised |= OVERFLOW | PRECISION;
            let to_infinity = match self.round {
                0 => true,
                1 => negative,
                2 => !negative,
                _ => false,
            };
            if to_infinity {
                return Rounded::Infinity;
            }
            let all = !0_u64 << (64 - format.precision);
            return Rounded::Finite(format.exponent_max, all);
        }
        // Small is what would be too small if exponents had no end.
        if rounded_exponent < format.exponent_min {
            let shift = (format.exponent_min - exponent) as u32;
            let lost = if shift < 128 { significand & ((1 << shift) - 1) } else { significand };
            let shifted = significand.checked_shr(shift).unwrap_or(0) | u128::from(lost != 0);
            (kept, _, inexact) = self.cut(negative, shifted, format.precision);
            if inexact || self.masked & UNDERFLOW == 0 {
                self.raised |= UNDERFLOW;
            }
            exponent = format.exponent_min;
        } else if exponent < format.exponent_min {
            // Rounding makes it the smallest normal number.
            kept = 1 << 127;
            exponent = format.exponent_min;
        } else if grew {
            kept = 1 << 127;
            exponent = rounded_exponent;
        }
        if inexact {
            self.raised |= PRECISION;
        }
        Rounded::Finite(exponent, (kept >> 64) as u64)
    }

    /// Rounds to a register, in the precision asked for.
    pub fn extended(&mut self, parts: Parts) -> Extended {
        const WRAP: i32 = 24576;
        let (exponent_min, exponent_max) = (1 - BIAS, BIAS);
        let format = Format { precision: self.precision, exponent_min, exponent_max };
        // Who takes the exception gets the significand whole, with an exponent that fits.
        let mut parts = parts;
        if self.masked & UNDERFLOW == 0 && parts.exponent < exponent_min {
            self.raised |= UNDERFLOW;
            parts.exponent += WRAP;
        } else if self.masked & OVERFLOW == 0 && parts.exponent > exponent_max {
            self.raised |= OVERFLOW;
            parts.exponent -= WRAP;
        }
        match self.round_to(parts, format) {
            Rounded::Infinity => Extended::infinity(parts.negative),
            Rounded::Finite(exponent, significand) => {
                let biased = if significand & INTEGER_BIT == 0 { 0 } else { exponent + BIAS };
                Extended { significand, top: sign(parts.negative) | biased as u16 }
            }
        }
    }

    /// A finite number other than zero as an integer of the rounding's kind, and whether that is
    /// inexact. Below 2^64 it is.
    fn whole_number(&self, parts: Parts) -> (u128, bool) {
        let Parts { negative, exponent, significand } = parts;
        let (whole, rest, half) = match exponent {
            0.. => {
                let shift = 127 - exponent.min(126) as u32;
                let rest = significand & ((1 << shift) - 1);
                (significand >> shift, rest, 1 << (shift - 1))
            }
            -1 => (0, significand, 1 << 127),
            _ => (0, 1, 2),
        };
        let up = self.goes_up(negative, whole & 1 != 0, rest, half);
        (whole + u128::from(up), rest != 0)
    }

    /// The nearest integer of the rounding's kind, unless it is beyond so many bits.
    pub fn integer(&mut self, value: Extended, bits: u32) -> Option<i128> {
        let limit = 1_i128 << (bits - 1);
        let (integer, inexact) = match value.class() {
            Class::Zero => (0, false),
            Class::Denormal | Class::Normal if value.parts().exponent < 64 => {
                let (size, inexact) = self.whole_number(value.parts());
                let size = size as i128;
                (if value.is_negative() { -size } else { size }, inexact)
            }
            _ => (limit, false),
        };
        if !(-limit..limit).contains(&integer) {
            self.raised |= INVALID;
            return None;
        }
        if inexact {
            self.raised |= PRECISION;
        }
        Some(integer)
    }

    /// A finite number other than zero, rounded to an integer.
    pub fn rounded(&mut self, value: Extended) -> Extended {
        let parts = value.parts();
        if parts.exponent >= 63 {
            return value;
        }
        let (size, inexact) = self.whole_number(parts);
        if inexact {
            self.raised |= PRECISION;
        }
        if size == 0 {
            return Extended::zero(parts.negative);
        }
        let size = Parts::normal(parts.negative, 127, size);
        Extended {
            significand: (size.significand >> 64) as u64,
            top: sign(parts.negative) | (size.exponent + BIAS) as u16,
        }
    }
}

fn sign(negative: bool) -> u16 {
    u16::from(negative) << 15
}

impl Extended {
    /// Zero.
    pub const ZERO: Self = Self { significand: 0, top: 0 };
    /// One.
    pub const ONE: Self = Self { significand: INTEGER_BIT, top: BIAS as u16 };
    /// The NaN that stands for "no result".
    pub const INDEFINITE: Self = Self { significand: INTEGER_BIT | QUIET_BIT, top: 0xffff };

    /// As state keeps it.
    pub fn from_words(words: [u64; 2]) -> Self {
        Self { significand: words[0], top: words[1] as u16 }
    }

    /// As state keeps it.
    pub fn words(self) -> [u64; 2] {
        [self.significand, u64::from(self.top)]
    }

    /// Either one.
    pub fn infinity(negative: bool) -> Self {
        Self { significand: INTEGER_BIT, top: sign(negative) | 0x7fff }
    }

    /// Either one.
    pub fn zero(negative: bool) -> Self {
        Self { significand: 0, top: sign(negative) }
    }

    /// An integer.
    pub fn from_integer(value: i64) -> Self {
        if value == 0 {
            return Self::ZERO;
        }
        let shift = value.unsigned_abs().leading_zeros();
        let biased = (BIAS + 63 - shift as i32) as u16;
        Self { significand: value.unsigned_abs() << shift, top: sign(value < 0) | biased }
    }

    /// Below zero, as far as the sign bit says.
    pub fn is_negative(self) -> bool {
        self.top >> 15 != 0
    }

    /// With the other sign.
    pub fn negated(self) -> Self {
        Self { top: self.top ^ 0x8000, ..self }
    }

    /// Without a sign.
    pub fn magnitude(self) -> Self {
        Self { top: self.top & 0x7fff, ..self }
    }

    /// What it is.
    pub fn class(self) -> Class {
        let has_integer_bit = self.significand & INTEGER_BIT != 0;
        match self.top & 0x7fff {
            0 if self.significand == 0 => Class::Zero,
            0 => Class::Denormal,
            _ if !has_integer_bit => Class::Unsupported,
            0x7fff if self.significand << 1 == 0 => Class::Infinity,
            0x7fff if self.significand & QUIET_BIT != 0 => Class::Quiet,
            0x7fff => Class::Signalling,
            _ => Class::Normal,
        }
    }

    /// Not a number, of either kind.
    pub fn is_nan(self) -> bool {
        matches!(self.class(), Class::Quiet | Class::Signalling)
    }

    /// Not a number, and nothing to be said of it.
    pub fn is_quiet(self) -> bool {
        self.class() == Class::Quiet
    }

    /// A NaN, made quiet.
    pub fn quieted(self) -> Self {
        Self { significand: self.significand | QUIET_BIT, ..self }
    }

    /// Of a finite number other than zero.
    pub fn parts(self) -> Parts {
        let exponent = i32::from(self.top & 0x7fff).max(1) - BIAS;
        Parts::normal(self.is_negative(), exponent, u128::from(self.significand) << 64)
    }

    /// A number of another format, whose bits are given; `fraction` of them are behind the point. A
    /// NaN stays the one that it is.
    pub fn from_format(context: &mut Context, bits: u64, fraction: u32, format: Format) -> Self {
        let mantissa = bits & ((1 << fraction) - 1);
        let exponents = (format.exponent_max * 2 + 1) as u64;
        let exponent = bits >> fraction & exponents;
        let negative = bits >> fraction > exponents;
        let significand = u128::from(mantissa) << (127 - fraction);
        if exponent == exponents {
            let top = sign(negative) | 0x7fff;
            return Self { significand: INTEGER_BIT | (significand >> 64) as u64, top };
        }
        if exponent == 0 {
            if mantissa == 0 {
                return Self::zero(negative);
            }
            context.raised |= DENORMAL;
        }
        let hidden = if exponent == 0 { 0 } else { 1 << 127 };
        let unbiased = exponent.max(1) as i32 - format.exponent_max;
        let parts = Parts::normal(negative, unbiased, significand | hidden);
        let biased = (parts.exponent + BIAS) as u16;
        Self { significand: (parts.significand >> 64) as u64, top: sign(negative) | biased }
    }

    /// In another format, `fraction` bits of which are behind the point.
    pub fn to_format(self, context: &mut Context, fraction: u32, format: Format) -> u64 {
        let sign_bit = u64::from(self.is_negative()) << sign_place(fraction);
        let exponents = (format.exponent_max * 2 + 1) as u64;
        let quiet = exponents << fraction | 1 << (fraction - 1);
        match self.class() {
            Class::Zero => sign_bit,
            Class::Infinity => sign_bit | exponents << fraction,
            Class::Quiet | Class::Signalling => {
                if self.class() == Class::Signalling {
                    context.raised |= INVALID;
                }
                sign_bit | quiet | self.significand << 1 >> (64 - fraction)
            }
            Class::Unsupported => {
                context.raised |= INVALID;
                1 << sign_place(fraction) | quiet
            }
            Class::Denormal | Class::Normal => match context.round_to(self.parts(), format) {
                Rounded::Infinity => sign_bit | exponents << fraction,
                Rounded::Finite(exponent, significand) => {
                    let is_normal = significand & INTEGER_BIT != 0;
                    let biased = if is_normal { exponent + format.exponent_max } else { 0 };
                    sign_bit | (biased as u64) << fraction | significand << 1 >> (64 - fraction)
                }
            },
        }
    }
}

/// The sign's place above so many bits behind the point.
fn sign_place(fraction: u32) -> u32 {
    if fraction < 52 { 31 } else { 63 }
}
