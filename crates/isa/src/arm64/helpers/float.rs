//! Floating-point instructions that are not lifted, in software: half precision above all.

mod complex;
mod flush;
mod widened;

use rustc_apfloat::ieee::{Double, Half, Single};
use rustc_apfloat::{Float, FloatConvert, Round, Status, StatusAnd};

use flush::Flush;

use super::estimate;
use super::vector::{Class, Lanes, class};
use crate::arm64::state::State;
use crate::table::bits;

/// FPCR, and the exceptions so far.
struct Unit {
    default_nan: bool,
    flush: Flush,
    round: Round,
    status: Status,
}

/// A format's numbers, as bits.
#[derive(Clone, Copy)]
struct Format {
    size: u32,
    fraction: u32,
}

const HALF: Format = Format { size: 1, fraction: 10 };
const SINGLE: Format = Format { size: 2, fraction: 23 };
const DOUBLE: Format = Format { size: 3, fraction: 52 };

impl Format {
    fn width(self) -> u32 {
        8 << self.size
    }

    fn sign(self) -> u64 {
        1 << (self.width() - 1)
    }

    fn infinity(self) -> u64 {
        self.sign() - (1 << self.fraction)
    }

    fn quiet(self) -> u64 {
        1 << (self.fraction - 1)
    }

    fn default_nan(self) -> u64 {
        self.infinity() | self.quiet()
    }

    fn magnitude(self, a: u64) -> u64 {
        a & (self.sign() - 1)
    }

    fn is_nan(self, a: u64) -> bool {
        self.magnitude(a) > self.infinity()
    }

    fn is_signalling(self, a: u64) -> bool {
        self.is_nan(a) && a & self.quiet() == 0
    }

    /// The smallest normal number.
    fn smallest(self) -> u64 {
        1 << self.fraction
    }

    fn one(self) -> u64 {
        (self.infinity() / 2) & !(self.quiet() * 2 - 1) & self.infinity()
    }
}

/// What is done with two or three numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Add,
    Sub,
    Mul,
    /// Infinity times zero is two.
    MulExtended,
    Div,
    Min,
    Max,
    MinNumber,
    MaxNumber,
    Distance,
    /// `c + a * b`, `c - a * b`.
    Fused(bool),
    /// `2 - a * b`, `(3 - a * b) / 2`.
    ReciprocalStep(bool),
    Equal,
    GreaterEqual(bool),
    Greater(bool),
}

/// Runs a body with `F` the arithmetic of a format.
macro_rules! with_format {
    ($format:expr, $F:ident => $body:expr) => {
        match $format.size {
            1 => {
                type $F = Half;
                $body
            }
            2 => {
                type $F = Single;
                $body
            }
            _ => {
                type $F = Double;
                $body
            }
        }
    };
}

impl Unit {
    fn new(state: &State) -> Self {
        const ROUNDS: [Round; 4] = [
            Round::NearestTiesToEven,
            Round::TowardPositive,
            Round::TowardNegative,
            Round::TowardZero,
        ];
        Self {
            default_nan: state.fpcr & 1 << 25 != 0,
            flush: Flush::of(state),
            round: ROUNDS[(state.fpcr >> 22 & 3) as usize],
            status: Status::OK,
        }
    }

    fn note<T>(&mut self, result: StatusAnd<T>) -> T {
        self.status |= result.status;
        result.value
    }

    /// The NaN of operands in order, signalling ones first.
    fn nan(&mut self, f: Format, operands: &[u64]) -> Option<u64> {
        let signalling = operands.iter().find(|&&a| f.is_signalling(a));
        if signalling.is_some() {
            self.status |= Status::INVALID_OP;
        }
        let chosen = *signalling.or_else(|| operands.iter().find(|&&a| f.is_nan(a)))?;
        Some(if self.default_nan { f.default_nan() } else { chosen | f.quiet() })
    }

    fn invalid(&mut self, f: Format) -> u64 {
        self.status |= Status::INVALID_OP;
        f.default_nan()
    }

    /// Software gives the largest number for what is too large in some directions, and says only
    /// that it is inexact. To the nearest it would say the truth.
    fn with_overflow(&mut self, f: Format, again: impl Fn(&mut Self) -> u64) -> u64 {
        let before = std::mem::replace(&mut self.status, Status::OK);
        let value = again(self);
        if self.round != Round::NearestTiesToEven
            && self.status.contains(Status::INEXACT)
            && f.magnitude(value) == f.infinity() - 1
        {
            let round = Round::NearestTiesToEven;
            let mut probe = Self { round, status: Status::OK, ..*self };
            again(&mut probe);
            self.status |= probe.status & Status::OVERFLOW;
        }
        self.status |= before;
        value
    }

    fn compute(&mut self, f: Format, operation: Operation, a: u64, b: u64, c: u64) -> u64 {
        let [a, b, c] = [a, b, c].map(|a| self.input(f, a));
        self.flushed(f, |unit| {
            unit.with_overflow(f, |unit| unit.compute_once(f, operation, a, b, c))
        })
    }

    fn compute_once(&mut self, f: Format, operation: Operation, a: u64, b: u64, c: u64) -> u64 {
        use Operation as Op;
        if let Op::Equal | Op::GreaterEqual(_) | Op::Greater(_) = operation {
            return self.compare(f, operation, a, b);
        }
        if let Op::Fused(minus) = operation {
            return self.fused_once(f, if minus { a ^ f.sign() } else { a }, b, c);
        }
        let number = matches!(operation, Op::MinNumber | Op::MaxNumber);
        let (mut a, mut b) = (a, b);
        if number && !f.is_signalling(a) && !f.is_signalling(b) {
            let low =
                if operation == Op::MinNumber { f.infinity() } else { f.infinity() | f.sign() };
            if f.is_nan(a) && !f.is_nan(b) {
                a = low;
            } else if f.is_nan(b) && !f.is_nan(a) {
                b = low;
            }
        }
        if let Op::ReciprocalStep(_) = operation {
            a ^= f.sign();
        }
        if let Some(nan) = self.nan(f, &[a, b]) {
            return if operation == Op::Distance { f.magnitude(nan) } else { nan };
        }
        let infinite = |a: u64| f.magnitude(a) == f.infinity();
        let special = infinite(a) && f.magnitude(b) == 0 || f.magnitude(a) == 0 && infinite(b);
        let round = self.round;
        with_format!(f, F => {
            let (x, y) = (F::from_bits(a.into()), F::from_bits(b.into()));
            let value = match operation {
                Op::Add => self.note(x.add_r(y, round)),
                Op::Sub => self.note(x.sub_r(y, round)),
                Op::Distance => self.note(x.sub_r(y, round)).abs(),
                Op::MulExtended if special => {
                    let two = f.one() + (f.quiet() << 1);
                    return two | (a ^ b) & f.sign();
                }
                Op::Mul | Op::MulExtended => self.note(x.mul_r(y, round)),
                Op::Div => self.note(x.div_r(y, round)),
                Op::ReciprocalStep(root) => {
                    let two = f.one() + (f.quiet() << 1);
                    if special {
                        return if root { f.one() | f.quiet() } else { two };
                    }
                    if root {
                        // Half of the product, by half of the larger factor. It is exact, or so
                        // small that the product does not matter but for not being zero.
                        let (a, b) = if f.magnitude(a) < f.magnitude(b) { (b, a) } else { (a, b) };
                        let (x, y) = (F::from_bits(a.into()), F::from_bits(b.into()));
                        let tiny = f.magnitude(a) < 2 * f.smallest();
                        let x = if tiny { x } else { x.scalbn(-1) };
                        let start = F::from_bits((f.one() | f.quiet()).into());
                        self.note(x.mul_add_r(y, start, round))
                    } else {
                        let two = F::from_bits(two.into());
                        self.note(x.mul_add_r(y, two, round))
                    }
                }
                Op::Min | Op::MinNumber | Op::Max | Op::MaxNumber => {
                    let less = x < y || x == y && a & f.sign() != 0;
                    let minimum = matches!(operation, Op::Min | Op::MinNumber);
                    if less == minimum { x } else { y }
                }
                _ => x,
            };
            let result = value.to_bits() as u64;
            if f.is_nan(result) { f.default_nan() } else { result }
        })
    }

    fn fused(&mut self, f: Format, a: u64, b: u64, c: u64) -> u64 {
        let [a, b, c] = [a, b, c].map(|a| self.input(f, a));
        self.flushed(f, |unit| unit.with_overflow(f, |unit| unit.fused_once(f, a, b, c)))
    }

    fn fused_once(&mut self, f: Format, a: u64, b: u64, c: u64) -> u64 {
        let infinite = |a: u64| f.magnitude(a) == f.infinity();
        let special = infinite(a) && f.magnitude(b) == 0 || f.magnitude(a) == 0 && infinite(b);
        let nan = self.nan(f, &[c, a, b]);
        if special && f.is_nan(c) && !f.is_signalling(c) {
            return self.invalid(f);
        }
        if let Some(nan) = nan {
            return nan;
        }
        let round = self.round;
        with_format!(f, F => {
            let number = |a: u64| F::from_bits(a.into());
            let result = self.note(number(a).mul_add_r(number(b), number(c), round)).to_bits() as u64;
            if f.is_nan(result) { f.default_nan() } else { result }
        })
    }

    fn compare(&mut self, f: Format, operation: Operation, a: u64, b: u64) -> u64 {
        let absolute =
            matches!(operation, Operation::GreaterEqual(true) | Operation::Greater(true));
        let (a, b) = if absolute { (f.magnitude(a), f.magnitude(b)) } else { (a, b) };
        if f.is_nan(a) || f.is_nan(b) {
            let quiet = operation == Operation::Equal;
            if !quiet || f.is_signalling(a) || f.is_signalling(b) {
                self.status |= Status::INVALID_OP;
            }
            return 0;
        }
        let holds = with_format!(f, F => {
            let (x, y) = (F::from_bits(a.into()), F::from_bits(b.into()));
            match operation {
                Operation::Equal => x == y,
                Operation::GreaterEqual(_) => x >= y,
                _ => x > y,
            }
        });
        if holds { u64::MAX } else { 0 }
    }

    /// An integer times a power of two.
    fn of_integer(&mut self, f: Format, value: i128, fraction: u32) -> u64 {
        if f.size == HALF.size && value.unsigned_abs() >> 16 >> fraction != 0 {
            self.status |= Status::OVERFLOW;
        }
        self.flushed(f, |unit| unit.of_integer_once(f, value, fraction))
    }

    fn of_integer_once(&mut self, f: Format, value: i128, fraction: u32) -> u64 {
        let round = self.round;
        with_format!(f, F => {
            // Wide enough for all 64-bit integers, so that only the last step rounds.
            type Wide = rustc_apfloat::ieee::Quad;
            let wide = Wide::from_i128(value).value.scalbn(-(fraction as i32));
            let mut lost = false;
            let result: StatusAnd<F> = wide.convert_r(round, &mut lost);
            self.note(result).to_bits() as u64
        })
    }

    fn integer_of(
        &mut self,
        f: Format,
        a: u64,
        round: Round,
        unsigned: bool,
        width: u32,
        fraction: u32,
    ) -> u64 {
        if f.is_nan(a) {
            self.status |= Status::INVALID_OP;
            return 0;
        }
        let a = self.input(f, a);
        type Wide = rustc_apfloat::ieee::Quad;
        let mut lost = false;
        let wide: Wide = with_format!(f, F => F::from_bits(a.into()).convert(&mut lost).value);
        let wide = wide.scalbn(fraction as i32);
        let mut exact = false;
        if unsigned {
            let result = wide.to_u128_r(width as usize, round, &mut exact);
            self.note(result) as u64
        } else {
            let result = wide.to_i128_r(width as usize, round, &mut exact);
            self.note(result) as u64
        }
    }

    fn round(&mut self, f: Format, a: u64, round: Round, inexact: bool) -> u64 {
        if let Some(nan) = self.nan(f, &[a]) {
            return nan;
        }
        let a = self.input(f, a);
        with_format!(f, F => {
            let result = F::from_bits(a.into()).round_to_integral(round);
            if inexact {
                self.status |= result.status;
            }
            result.value.to_bits() as u64 | a & f.sign()
        })
    }

    /// To another format.
    fn convert(&mut self, from: Format, to: Format, a: u64) -> u64 {
        if from.is_nan(a) {
            let signalling = self.nan(from, &[a]).unwrap_or_default();
            let payload = signalling & ((1 << from.fraction) - 1);
            let payload = if from.fraction > to.fraction {
                payload >> (from.fraction - to.fraction)
            } else {
                payload << (to.fraction - from.fraction)
            };
            let sign = if signalling & from.sign() != 0 { to.sign() } else { 0 };
            return to.default_nan() | payload | sign;
        }
        let limit = match to.size {
            1 if from.size == SINGLE.size => u64::from(65536f32.to_bits()),
            1 => 65536f64.to_bits(),
            _ => (f64::from(f32::MAX) + 2f64.powi(104)).to_bits(),
        };
        let magnitude = from.magnitude(a);
        if from.size > to.size && (limit..from.infinity()).contains(&magnitude) {
            self.status |= Status::OVERFLOW;
        }
        let a = self.input_of_conversion(from, a);
        if to.size == HALF.size {
            return self.convert_once(from, to, a);
        }
        self.flushed(to, |unit| unit.convert_once(from, to, a))
    }

    fn convert_once(&mut self, from: Format, to: Format, a: u64) -> u64 {
        let round = self.round;
        with_format!(from, F => with_format!(to, T => {
            let mut lost = false;
            let result: StatusAnd<T> =
                FloatConvert::<T>::convert_r(F::from_bits(a.into()), round, &mut lost);
            self.note(result).to_bits() as u64
        }))
    }

    /// FSQRT of a half: a double holds the root with so many bits that rounding it is rounding once.
    fn half_root(&mut self, a: u64) -> u64 {
        if let Some(nan) = self.nan(HALF, &[a]) {
            return nan;
        }
        if a & HALF.sign() != 0 && HALF.magnitude(a) != 0 {
            return self.invalid(HALF);
        }
        let a = self.input(HALF, a);
        let number = f64::from_bits(self.convert(HALF, DOUBLE, a));
        self.convert(DOUBLE, HALF, number.sqrt().to_bits())
    }

    /// FRECPE, FRSQRTE.
    fn estimate(&mut self, f: Format, a: u64, root: bool) -> u64 {
        if let Some(nan) = self.nan(f, &[a]) {
            return nan;
        }
        let a = self.input(f, a);
        let (sign, magnitude) = (a & f.sign(), f.magnitude(a));
        if magnitude == 0 {
            self.status |= Status::DIV_BY_ZERO;
            return sign | f.infinity();
        }
        if root && sign != 0 {
            return self.invalid(f);
        }
        if magnitude == f.infinity() {
            return sign;
        }
        if !root && self.flushes_reciprocal(f, a) {
            self.status |= Status::UNDERFLOW;
            return sign;
        }
        let exponent = (magnitude >> f.fraction) as i64;
        let fraction = magnitude << (52 - f.fraction) & ((1 << 52) - 1);
        let bias = (1i64 << (f.width() - f.fraction - 2)) - 1;
        if root {
            let (exponent, fraction) = estimate::root(exponent, fraction, bias);
            return (exponent as u64) << f.fraction | fraction >> (52 - f.fraction);
        }
        if magnitude < 1 << (f.fraction - 2) {
            self.status |= Status::OVERFLOW | Status::INEXACT;
            let up = match self.round {
                Round::TowardZero => false,
                Round::TowardPositive => sign == 0,
                Round::TowardNegative => sign != 0,
                _ => true,
            };
            return sign | if up { f.infinity() } else { f.infinity() - 1 };
        }
        let (exponent, fraction) = estimate::reciprocal(exponent, fraction, bias);
        sign | (exponent as u64) << f.fraction | fraction >> (52 - f.fraction)
    }

    /// FRECPX.
    fn exponent(&mut self, f: Format, a: u64) -> u64 {
        if let Some(nan) = self.nan(f, &[a]) {
            return nan;
        }
        let exponent = a & f.infinity();
        let lowest = 1 << f.fraction;
        let exponent = if exponent == 0 { f.infinity() - lowest } else { exponent ^ f.infinity() };
        a & f.sign() | exponent
    }

    /// MXCSR's sticky bits.
    fn sticky(&self) -> u64 {
        let bits = [
            (Status::INVALID_OP, 0),
            (Status::DIV_BY_ZERO, 2),
            (Status::OVERFLOW, 3),
            (Status::UNDERFLOW, 4),
            (Status::INEXACT, 5),
        ];
        bits.iter().filter(|(flag, _)| self.status.contains(*flag)).map(|(_, bit)| 1 << bit).sum()
    }
}

/// Does a floating-point instruction and gives sticky exceptions as in MXCSR; `None`: it is none.
pub fn compute(state: &mut State, word: u32) -> Option<u64> {
    let mut unit = Unit::new(state);
    match class(word)? {
        Class::Same | Class::Element if widened::is(word) => {
            widened::compute(state, &mut unit, word)?;
        }
        Class::Extra | Class::Element if complex::is(word) => {
            complex::compute(state, &mut unit, word)?;
        }
        Class::Same | Class::HalfSame => same(state, &mut unit, word)?,
        Class::Element => element(state, &mut unit, word)?,
        Class::Two | Class::HalfTwo => two(state, &mut unit, word)?,
        Class::Across | Class::Pair => reduce(state, &mut unit, word)?,
        Class::Shift => fixed(state, &mut unit, word)?,
        Class::Scalar => scalar(state, &mut unit, word)?,
        _ => return None,
    }
    Some(unit.sticky())
}

/// Format and lanes of a vector class.
fn shape(word: u32, half: bool) -> Option<(Format, u32)> {
    let format = match (half, bits(word, 22, 22)) {
        (true, _) => HALF,
        (false, 0) => SINGLE,
        _ => DOUBLE,
    };
    let (scalar, full) = (bits(word, 28, 28) == 1, bits(word, 30, 30) == 1);
    match (scalar, full, format.size) {
        (true, _, _) => Some((format, 1)),
        (false, false, 3) => None,
        (false, full, size) => Some((format, (if full { 16 } else { 8 }) >> size)),
    }
}

fn same(state: &mut State, unit: &mut Unit, word: u32) -> Option<()> {
    use Operation as Op;
    let half = bits(word, 21, 21) == 0;
    if !half && bits(word, 15, 14) != 3 {
        return None;
    }
    let (format, lanes) = shape(word, half)?;
    let minus = bits(word, 23, 23) == 1;
    let unsigned = bits(word, 29, 29) == 1;
    let (operation, pairwise) = match (bits(word, 13, 11), unsigned, minus) {
        (0, pairs, false) => (Op::MaxNumber, pairs),
        (0, pairs, true) => (Op::MinNumber, pairs),
        (1, false, minus) => (Op::Fused(minus), false),
        (2, pairs, false) => (Op::Add, pairs),
        (2, false, true) => (Op::Sub, false),
        (2, true, true) => (Op::Distance, false),
        (3, false, false) => (Op::MulExtended, false),
        (3, true, false) => (Op::Mul, false),
        (4, false, false) => (Op::Equal, false),
        (4, true, false) => (Op::GreaterEqual(false), false),
        (4, true, true) => (Op::Greater(false), false),
        (5, true, false) => (Op::GreaterEqual(true), false),
        (5, true, true) => (Op::Greater(true), false),
        (6, pairs, false) => (Op::Max, pairs),
        (6, pairs, true) => (Op::Min, pairs),
        (7, false, root) => (Op::ReciprocalStep(root), false),
        (7, true, false) => (Op::Div, false),
        _ => return None,
    };
    let compares = matches!(operation, Op::Equal | Op::GreaterEqual(_) | Op::Greater(_));
    let scalar_ok =
        compares || matches!(operation, Op::MulExtended | Op::ReciprocalStep(_) | Op::Distance);
    if bits(word, 28, 28) == 1 && !scalar_ok {
        return None;
    }
    let (d, a, b) = (
        bits(word, 4, 0),
        Lanes::of(state, bits(word, 9, 5)),
        Lanes::of(state, bits(word, 20, 16)),
    );
    let old = Lanes::of(state, d);
    let mut result = Lanes::default();
    for lane in 0..lanes {
        let (x, y) = if pairwise {
            let (from, at) = if lane < lanes / 2 { (a, 2 * lane) } else { (b, 2 * lane - lanes) };
            (from.get(format.size, at), from.get(format.size, at + 1))
        } else {
            (a.get(format.size, lane), b.get(format.size, lane))
        };
        let value = unit.compute(format, operation, x, y, old.get(format.size, lane));
        result.set(format.size, lane, value);
    }
    result.write(state, d);
    Some(())
}

fn element(state: &mut State, unit: &mut Unit, word: u32) -> Option<()> {
    use Operation as Op;
    let half = bits(word, 23, 22) == 0;
    let (l, m, h) = (bits(word, 21, 21), bits(word, 20, 20), bits(word, 11, 11));
    if bits(word, 23, 22) == 1 {
        return None;
    }
    let (format, lanes) = shape(word, half)?;
    let (register, index) = match format.size {
        1 => (bits(word, 19, 16), h << 2 | l << 1 | m),
        2 => (bits(word, 20, 16), h << 1 | l),
        _ if l == 1 => return None,
        _ => (bits(word, 20, 16), h),
    };
    let operation = match (bits(word, 15, 12), bits(word, 29, 29)) {
        (0b0001, 0) => Op::Fused(false),
        (0b0101, 0) => Op::Fused(true),
        (0b1001, 0) => Op::Mul,
        (0b1001, 1) => Op::MulExtended,
        _ => return None,
    };
    let (d, a) = (bits(word, 4, 0), Lanes::of(state, bits(word, 9, 5)));
    let (old, y) = (Lanes::of(state, d), Lanes::of(state, register).get(format.size, index));
    let mut result = Lanes::default();
    for lane in 0..lanes {
        let (x, was) = (a.get(format.size, lane), old.get(format.size, lane));
        result.set(format.size, lane, unit.compute(format, operation, x, y, was));
    }
    result.write(state, d);
    Some(())
}

/// FMAXV and the like, and the scalar pairs.
fn reduce(state: &mut State, unit: &mut Unit, word: u32) -> Option<()> {
    use Operation as Op;
    let (scalar, half) = (bits(word, 28, 28) == 1, bits(word, 29, 29) == 0);
    let minimum = bits(word, 23, 23) == 1;
    let operation = match (bits(word, 16, 12), minimum) {
        (0b01100, false) => Op::MaxNumber,
        (0b01100, true) => Op::MinNumber,
        (0b01111, false) => Op::Max,
        (0b01111, true) => Op::Min,
        (0b01101, false) if scalar => Op::Add,
        _ => return None,
    };
    let double = bits(word, 22, 22) == 1;
    let (format, lanes) = match (half, scalar, double, bits(word, 30, 30)) {
        (true, _, true, _) => return None,
        (true, true, _, _) => (HALF, 2),
        (true, false, _, q) => (HALF, 4 << q),
        (false, true, double, _) => (if double { DOUBLE } else { SINGLE }, 2),
        (false, false, false, 1) => (SINGLE, 4),
        _ => return None,
    };
    let a = Lanes::of(state, bits(word, 9, 5));
    let mut values: Vec<u64> = (0..lanes).map(|lane| a.get(format.size, lane)).collect();
    while values.len() > 1 {
        values = values
            .chunks(2)
            .map(|pair| unit.compute(format, operation, pair[0], pair[1], 0))
            .collect();
    }
    let mut result = Lanes::default();
    result.set(format.size, 0, values[0]);
    result.write(state, bits(word, 4, 0));
    Some(())
}

fn two(state: &mut State, unit: &mut Unit, word: u32) -> Option<()> {
    let half = bits(word, 21, 17) == 0b11100;
    let (scalar, unsigned, high) =
        (bits(word, 28, 28) == 1, bits(word, 29, 29) == 1, bits(word, 23, 23) == 1);
    let opcode = bits(word, 16, 12);
    if !half && matches!(opcode, 0b10110 | 0b10111) {
        return change_format(state, unit, word);
    }
    let (f, lanes) = shape(word, half)?;
    let (d, a) = (bits(word, 4, 0), Lanes::of(state, bits(word, 9, 5)));
    let mut result = Lanes::default();
    for lane in 0..lanes {
        let x = a.get(f.size, lane);
        let value = match (opcode, unsigned, high) {
            (0b01100..=0b01110, _, true) => with_zero(unit, f, opcode, unsigned, x)?,
            (0b01111, unsigned, true) if !scalar => {
                if unsigned {
                    x ^ f.sign()
                } else {
                    f.magnitude(x)
                }
            }
            (0b11100, unsigned, true) if !scalar && f.size == 2 => {
                estimate::integer(x as u32, unsigned).into()
            }
            (0b11101, root, true) => unit.estimate(f, x, root),
            (0b11111, false, true) if scalar => unit.exponent(f, x),
            (0b11111, true, true) if half && !scalar => unit.half_root(x),
            (0b11010..=0b11100, _, _) if (opcode, high) != (0b11100, true) => {
                let round = conversion_round(opcode, high);
                unit.integer_of(f, x, round, unsigned, f.width(), 0)
            }
            (0b11101, _, false) => {
                let value = super::vector::number(x, f.width(), unsigned);
                unit.of_integer(f, value, 0)
            }
            (0b11000 | 0b11001, _, _) if !scalar => {
                let (round, inexact) = match (opcode & 1, unsigned, high) {
                    (0, false, false) => (Round::NearestTiesToEven, false),
                    (1, false, false) => (Round::TowardNegative, false),
                    (0, false, true) => (Round::TowardPositive, false),
                    (1, false, true) => (Round::TowardZero, false),
                    (0, true, false) => (Round::NearestTiesToAway, false),
                    (1, true, false) => (unit.round, true),
                    (1, true, true) => (unit.round, false),
                    _ => return None,
                };
                unit.round(f, x, round, inexact)
            }
            _ => return None,
        };
        result.set(f.size, lane, value);
    }
    result.write(state, d);
    Some(())
}

fn conversion_round(opcode: u32, high: bool) -> Round {
    match (opcode, high) {
        (0b11010, false) => Round::NearestTiesToEven,
        (0b11010, true) => Round::TowardPositive,
        (0b11011, false) => Round::TowardNegative,
        (0b11011, true) => Round::TowardZero,
        _ => Round::NearestTiesToAway,
    }
}

fn with_zero(unit: &mut Unit, f: Format, opcode: u32, unsigned: bool, x: u64) -> Option<u64> {
    use Operation as Op;
    let (operation, a, b) = match (opcode, unsigned) {
        (0b01100, false) => (Op::Greater(false), x, 0),
        (0b01100, true) => (Op::GreaterEqual(false), x, 0),
        (0b01101, false) => (Op::Equal, x, 0),
        (0b01101, true) => (Op::GreaterEqual(false), 0, x),
        (0b01110, false) => (Op::Greater(false), 0, x),
        _ => return None,
    };
    Some(unit.compute(f, operation, a, b, 0))
}

/// FCVTL, FCVTN.
fn change_format(state: &mut State, unit: &mut Unit, word: u32) -> Option<()> {
    if bits(word, 29, 29) == 1 && bits(word, 16, 12) == 0b10110 && bits(word, 23, 22) == 1 {
        return narrow_odd(state, unit, word);
    }
    if bits(word, 28, 28) == 1 || bits(word, 29, 29) == 1 || bits(word, 23, 23) == 1 {
        return None;
    }
    let (narrow, wide) = if bits(word, 22, 22) == 1 { (SINGLE, DOUBLE) } else { (HALF, SINGLE) };
    let (d, a) = (bits(word, 4, 0), Lanes::of(state, bits(word, 9, 5)));
    let lanes = 8 >> narrow.size;
    let upper = lanes * bits(word, 30, 30);
    let mut result = Lanes::default();
    if bits(word, 16, 12) == 0b10111 {
        for lane in 0..lanes {
            let value = unit.convert(narrow, wide, a.get(narrow.size, lane + upper));
            result.set(wide.size, lane, value);
        }
    } else {
        if upper > 0 {
            result = Lanes(Lanes::of(state, d).0 & u128::from(u64::MAX));
        }
        for lane in 0..lanes {
            let value = unit.convert(wide, narrow, a.get(wide.size, lane));
            result.set(narrow.size, lane + upper, value);
        }
    }
    result.write(state, d);
    Some(())
}

/// FCVTXN: what is lost shows in the last bit.
fn narrow_odd(state: &mut State, unit: &mut Unit, word: u32) -> Option<()> {
    let (d, a) = (bits(word, 4, 0), Lanes::of(state, bits(word, 9, 5)));
    let scalar = bits(word, 28, 28) == 1;
    let (lanes, upper) = if scalar { (1, 0) } else { (2, 2 * bits(word, 30, 30)) };
    let mut result = Lanes::default();
    if upper > 0 {
        result = Lanes(Lanes::of(state, d).0 & u128::from(u64::MAX));
    }
    for lane in 0..lanes {
        let before = std::mem::replace(&mut unit.status, Status::OK);
        unit.round = Round::TowardZero;
        let value = unit.convert(DOUBLE, SINGLE, a.get(3, lane));
        let odd = u64::from(unit.status.contains(Status::INEXACT));
        if odd == 1 && SINGLE.magnitude(value) == SINGLE.infinity() - 1 {
            unit.status |= Status::OVERFLOW;
        }
        unit.status |= before;
        result.set(2, lane + upper, value | odd);
    }
    result.write(state, d);
    Some(())
}

/// SCVTF, UCVTF, FCVTZS, FCVTZU with fraction bits.
fn fixed(state: &mut State, unit: &mut Unit, word: u32) -> Option<()> {
    let field = bits(word, 22, 16);
    let f = match field >> 3 {
        2 | 3 => HALF,
        4..=7 => SINGLE,
        8..=15 => DOUBLE,
        _ => return None,
    };
    let (scalar, full, unsigned) =
        (bits(word, 28, 28) == 1, bits(word, 30, 30) == 1, bits(word, 29, 29) == 1);
    if !scalar && f.size == 3 && !full {
        return None;
    }
    let lanes = if scalar { 1 } else { (if full { 16 } else { 8 }) >> f.size };
    let fraction = 2 * f.width() - field;
    let (d, a) = (bits(word, 4, 0), Lanes::of(state, bits(word, 9, 5)));
    let mut result = Lanes::default();
    for lane in 0..lanes {
        let x = a.get(f.size, lane);
        let value = match bits(word, 15, 11) {
            0b11100 => unit.of_integer(f, super::vector::number(x, f.width(), unsigned), fraction),
            0b11111 => unit.integer_of(f, x, Round::TowardZero, unsigned, f.width(), fraction),
            _ => return None,
        };
        result.set(f.size, lane, value);
    }
    result.write(state, d);
    Some(())
}

/// Half precision: FMADD and its relatives, conversions from double and from integers.
fn scalar(state: &mut State, unit: &mut Unit, word: u32) -> Option<()> {
    if word & 0xffff_fc00 == 0x1e7e_0000 {
        javascript(state, unit, word);
        return Some(());
    }
    let (d, n, m) = (bits(word, 4, 0), bits(word, 9, 5), bits(word, 20, 16));
    let low = |state: &State, n: u32, f: Format| Lanes::of(state, n).get(f.size, 0);
    let mut size = HALF.size;
    let value = if bits(word, 24, 24) == 1 {
        let f = match bits(word, 23, 22) {
            0 => SINGLE,
            1 => DOUBLE,
            3 => HALF,
            _ => return None,
        };
        size = f.size;
        let (product, addend) = (bits(word, 15, 15) ^ bits(word, 21, 21), bits(word, 21, 21));
        let sign = |negative: u32| if negative == 1 { f.sign() } else { 0 };
        let a = low(state, n, f) ^ sign(product);
        let c = low(state, bits(word, 14, 10), f) ^ sign(addend);
        unit.fused(f, a, low(state, m, f), c)
    } else if bits(word, 31, 10) == 0b00_0111_1001_1000_1111_0000 {
        unit.convert(DOUBLE, HALF, low(state, n, DOUBLE))
    } else {
        let (unsigned, wide) = (bits(word, 16, 16) == 1, bits(word, 31, 31) == 1);
        let x = if n == 31 { 0 } else { state.x[n as usize] };
        let x = if wide { x } else { x & 0xffff_ffff };
        let fraction = if bits(word, 21, 21) == 1 { 0 } else { 64 - bits(word, 15, 10) };
        unit.of_integer(
            HALF,
            super::vector::number(x, if wide { 64 } else { 32 }, unsigned),
            fraction,
        )
    };
    let mut result = Lanes::default();
    result.set(size, 0, value);
    result.write(state, d);
    Some(())
}

/// FJCVTZS: the integer part modulo 2^32; Z says that nothing was lost.
fn javascript(state: &mut State, unit: &mut Unit, word: u32) {
    let number = unit.input(DOUBLE, state.v[bits(word, 9, 5) as usize][0]);
    let number = f64::from_bits(number);
    let whole = number.trunc();
    let mut exact = false;
    if !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&whole) {
        unit.status |= Status::INVALID_OP;
    } else if whole.to_bits() != number.to_bits() {
        unit.status |= Status::INEXACT;
    } else {
        exact = number.to_bits() != 1 << 63;
    }
    let value = if number.is_finite() { whole.rem_euclid(4_294_967_296.0) as u64 } else { 0 };
    if let Some(register) = state.x.get_mut(bits(word, 4, 0) as usize) {
        *register = value;
    }
    state.flags = if exact { crate::ir::ZERO } else { 0 };
}

/// Between half and single precision on hosts without an instruction for it: the bits, and sticky
/// exceptions above them. `narrow`: to half precision.
pub fn convert_half(state: &State, value: u64, narrow: bool) -> u64 {
    let mut unit = Unit::new(state);
    let (from, to) = if narrow { (SINGLE, HALF) } else { (HALF, SINGLE) };
    let bits = match unit.default_nan && from.is_nan(value) {
        true => {
            unit.nan(from, &[value]);
            to.default_nan()
        }
        false => unit.convert(from, to, value),
    };
    bits | unit.sticky() << 32
}
