//! The x87 FPU: arithmetic on 80-bit numbers.
//!
//! Sums, products, quotients, roots, remainders and conversions are exact to the last bit and in
//! their flags, by the software arithmetic of `rustc_apfloat`; `transcendental.rs` has the
//! rest.
//! Unmasked exceptions are recorded in the status word and not raised.

mod transcendental;
mod wide;

use rustc_apfloat::ieee::{Double, Single, X87DoubleExtended as F80};
use rustc_apfloat::{Category, Float, FloatConvert, Round, Status, StatusAnd};

use super::{DONE, load, store};
use crate::front_end::{GuestMemory, HelperResult};
use crate::ir::{CARRY, PARITY, ZERO};
use crate::x86::state::State;
use transcendental::{
    arc_tangent, cosine, in_range, logarithm_times, power_of_2_less_1, sine, tangent,
    transcend_pair,
};

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the manual's mnemonics")]
        pub enum $name { $($variant),* }

        impl $name {
            const ALL: &[Self] = &[$(Self::$variant),*];

            fn from_bits(bits: u64) -> Self {
                Self::ALL[bits as usize % Self::ALL.len()]
            }
        }
    };
}

numbered! {
    /// What [`operation`] does.
    X87 {
        Arithmetic, ArithmeticTo, Load, LoadConstant, Store, Convert, Pop, Exchange, Compare,
        CompareFlags, Apply, MoveIf, Initialise, ClearExceptions, Rotate, Free, Examine,
    }
}

numbered! {
    /// Where the other operand comes from.
    Source { Stack, F32, F64, Integer }
}

numbered! {
    /// `R`: operands exchanged.
    Arithmetic { Add, Mul, Sub, SubR, Div, DivR }
}

numbered! {
    /// The constants that can be loaded.
    Constant { One, Log2Of10, Log2OfE, Pi, Log10Of2, LnOf2, Zero }
}

numbered! {
    /// Functions of ST(0), and some of ST(1).
    Function {
        ChangeSign, Absolute, SquareRoot, Sine, Cosine, SineCosine, Tangent, ArcTangent,
        PowerOf2Less1, LogTimes, LogPlus1Times, Round, Scale, Extract, Remainder, IeeeRemainder,
        Test,
    }
}

const INVALID: u64 = 1;
const DENORMAL: u64 = 2;
const DIVISION: u64 = 4;
const OVERFLOW: u64 = 8;
const UNDERFLOW: u64 = 16;
const PRECISION: u64 = 32;
const STACK: u64 = 64;
const SUMMARY: u64 = 0x8080;
const C0: u64 = 1 << 8;
const C1: u64 = 1 << 9;
const C2: u64 = 1 << 10;
const C3: u64 = 1 << 14;
/// Integer and quiet-NaN bits: the "real indefinite".
const INDEFINITE: [u64; 2] = [0xc000_0000_0000_0000, 0xffff];

fn from_words(words: [u64; 2]) -> F80 {
    F80::from_bits(u128::from(words[0]) | u128::from(words[1] & 0xffff) << 64)
}

fn to_words(value: F80) -> [u64; 2] {
    let bits = value.to_bits();
    [bits as u64, (bits >> 64) as u64]
}

fn indefinite() -> F80 {
    from_words(INDEFINITE)
}

impl State {
    fn physical(&self, i: u64) -> usize {
        (self.x87_top.wrapping_add(i) & 7) as usize
    }

    fn is_empty(&self, i: u64) -> bool {
        self.x87_empty >> self.physical(i) & 1 != 0
    }

    /// ST(i); from an empty register the indefinite, and a stack fault.
    fn st(&mut self, i: u64) -> F80 {
        if self.is_empty(i) {
            self.x87_status = self.x87_status & !C1 | INVALID | STACK;
            return indefinite();
        }
        from_words(self.x87[self.physical(i)])
    }

    fn set_st(&mut self, i: u64, value: F80) {
        let at = self.physical(i);
        self.x87[at] = to_words(value);
        self.x87_empty &= !(1 << at);
    }

    fn push(&mut self, value: F80) {
        let overflow = !self.is_empty(7);
        self.x87_top = self.x87_top.wrapping_sub(1) & 7;
        if overflow {
            self.x87_status |= INVALID | STACK | C1;
            self.set_st(0, indefinite());
        } else {
            self.set_st(0, value);
        }
    }

    fn pop(&mut self, count: u64) {
        for _ in 0..count {
            self.x87_empty |= 1 << self.physical(0);
            self.x87_top = self.x87_top.wrapping_add(1) & 7;
        }
    }

    fn round(&self) -> Round {
        match self.x87_control >> 10 & 3 {
            0 => Round::NearestTiesToEven,
            1 => Round::TowardNegative,
            2 => Round::TowardPositive,
            _ => Round::TowardZero,
        }
    }

    fn note(&mut self, status: Status) {
        let mut bits = 0;
        for (flag, bit) in [
            (Status::INVALID_OP, INVALID),
            (Status::DIV_BY_ZERO, DIVISION),
            (Status::OVERFLOW, OVERFLOW),
            (Status::UNDERFLOW, UNDERFLOW),
            (Status::INEXACT, PRECISION),
        ] {
            if status.contains(flag) {
                bits |= bit;
            }
        }
        self.x87_status |= bits;
        self.summarise();
    }

    /// The summary bit follows from status and masks.
    pub(super) fn summarise(&mut self) {
        let unmasked = self.x87_status & !self.x87_control & 0x3f != 0;
        self.x87_status = self.x87_status & !SUMMARY | if unmasked { SUMMARY } else { 0 };
    }

    /// Rounds to the precision that the control word asks for, and takes the flags.
    fn finish(&mut self, result: StatusAnd<F80>) -> F80 {
        self.note(result.status);
        let mut lost = false;
        match self.x87_control >> 8 & 3 {
            0 => {
                let single: StatusAnd<Single> = result.value.convert_r(self.round(), &mut lost);
                self.note(single.status);
                single.value.convert(&mut lost).value
            }
            2 => {
                let double: StatusAnd<Double> = result.value.convert_r(self.round(), &mut lost);
                self.note(double.status);
                double.value.convert(&mut lost).value
            }
            _ => result.value,
        }
    }
}

/// An operation, taken apart: [`X87`], register, pops, [`Source`], and what else the operation
/// needs. Built by `chapters/x87.rs`.
#[derive(Clone, Copy)]
struct Fields(u64);

impl Fields {
    fn register(self) -> u64 {
        self.0 >> 8 & 7
    }

    fn pops(self) -> u64 {
        self.0 >> 11 & 3
    }

    fn source(self) -> Source {
        Source::from_bits(self.0 >> 13 & 3)
    }

    fn detail(self) -> u64 {
        self.0 >> 16 & 0xff
    }
}

/// One FPU operation: what, and the memory operand's value.
pub fn operation(
    state: &mut State,
    _: &mut dyn GuestMemory,
    [what, value, _]: [u64; 3],
) -> HelperResult {
    let fields = Fields(what);
    match X87::from_bits(what & 0xff) {
        X87::Arithmetic => {
            let (a, b) = (state.st(0), operand(state, fields, value));
            let result = calculate(state, Arithmetic::from_bits(fields.detail()), a, b);
            state.set_st(0, result);
        }
        X87::ArithmeticTo => {
            let (a, b) = (state.st(fields.register()), state.st(0));
            let result = calculate(state, Arithmetic::from_bits(fields.detail()), a, b);
            state.set_st(fields.register(), result);
        }
        X87::Load => {
            let value = operand(state, fields, value);
            state.push(value);
        }
        X87::LoadConstant => state.push(constant(Constant::from_bits(fields.detail()))),
        X87::Store => {
            let value = state.st(0);
            state.set_st(fields.register(), value);
        }
        X87::Convert => return Ok(convert(state, fields)),
        X87::Pop => {}
        X87::Exchange => {
            let (a, b) = (state.st(0), state.st(fields.register()));
            state.set_st(0, b);
            state.set_st(fields.register(), a);
        }
        X87::Compare => {
            let (a, b) = (state.st(0), operand(state, fields, value));
            let bits = compare(state, a, b, fields.detail() != 0);
            state.x87_status = state.x87_status & !(C0 | C1 | C2 | C3) | bits;
        }
        X87::CompareFlags => {
            let (a, b) = (state.st(0), state.st(fields.register()));
            let bits = compare(state, a, b, fields.detail() != 0);
            let flag = |bit, flag| if bits & bit != 0 { flag } else { 0 };
            state.flags = flag(C0, CARRY) | flag(C2, PARITY) | flag(C3, ZERO);
        }
        X87::Apply => apply(state, Function::from_bits(fields.detail())),
        X87::MoveIf => {
            let new = state.st(fields.register());
            if value & 1 != 0 {
                state.set_st(0, new);
            }
        }
        X87::Initialise => {
            (state.x87_control, state.x87_status) = (0x037f, 0);
            (state.x87_top, state.x87_empty) = (0, 0xff);
        }
        X87::ClearExceptions => state.x87_status &= 0x7f00,
        X87::Rotate => state.x87_top = state.x87_top.wrapping_add(fields.detail()) & 7,
        X87::Free => state.x87_empty |= 1 << state.physical(fields.register()),
        X87::Examine => examine(state),
    }
    state.pop(fields.pops());
    DONE
}

fn operand(state: &mut State, fields: Fields, value: u64) -> F80 {
    let mut lost = false;
    match fields.source() {
        Source::Stack => state.st(fields.register()),
        Source::F32 => {
            let single = Single::from_bits(u128::from(value as u32));
            if single.is_denormal() {
                state.x87_status |= DENORMAL;
            }
            let wide: StatusAnd<F80> = single.convert(&mut lost);
            state.note(wide.status);
            wide.value
        }
        Source::F64 => {
            let double = Double::from_bits(u128::from(value));
            if double.is_denormal() {
                state.x87_status |= DENORMAL;
            }
            let wide: StatusAnd<F80> = double.convert(&mut lost);
            state.note(wide.status);
            wide.value
        }
        Source::Integer => F80::from_i128(i128::from(value as i64)).value,
    }
}

fn calculate(state: &mut State, arithmetic: Arithmetic, a: F80, b: F80) -> F80 {
    if a.is_denormal() || b.is_denormal() {
        state.x87_status |= DENORMAL;
    }
    let round = state.round();
    if let Some(nan) = propagate(state, a, b) {
        return nan;
    }
    let result = match arithmetic {
        Arithmetic::Add => a.add_r(b, round),
        Arithmetic::Mul => a.mul_r(b, round),
        Arithmetic::Sub => a.sub_r(b, round),
        Arithmetic::SubR => b.sub_r(a, round),
        Arithmetic::Div => a.div_r(b, round),
        Arithmetic::DivR => b.div_r(a, round),
    };
    let value = state.finish(result);
    if value.is_nan() { indefinite() } else { value }
}

/// The NaN with the larger significand, made quiet.
fn propagate(state: &mut State, a: F80, b: F80) -> Option<F80> {
    if !a.is_nan() && !b.is_nan() {
        return None;
    }
    if a.is_signaling() || b.is_signaling() {
        state.x87_status |= INVALID;
        state.summarise();
    }
    let [mut x, mut y] = [to_words(a), to_words(b)];
    x[0] |= 1 << 62;
    y[0] |= 1 << 62;
    let first = match (a.is_nan(), b.is_nan()) {
        (true, false) => true,
        (false, _) => false,
        (true, true) => x[0] > y[0] || (x[0] == y[0] && x[1] & 0x8000 == 0),
    };
    Some(from_words(if first { x } else { y }))
}

fn compare(state: &mut State, a: F80, b: F80, quiet: bool) -> u64 {
    let signals = a.is_signaling() || b.is_signaling() || (!quiet && (a.is_nan() || b.is_nan()));
    if signals {
        state.x87_status |= INVALID;
        state.summarise();
    }
    match a.partial_cmp(&b) {
        None => C0 | C2 | C3,
        Some(std::cmp::Ordering::Less) => C0,
        Some(std::cmp::Ordering::Equal) => C3,
        Some(std::cmp::Ordering::Greater) => 0,
    }
}

fn constant(which: Constant) -> F80 {
    // Rounded to nearest, which is what the processors give with round-to-nearest.
    let words = match which {
        Constant::One => [0x8000_0000_0000_0000, 0x3fff],
        Constant::Log2Of10 => [0xd49a_784b_cd1b_8afe, 0x4000],
        Constant::Log2OfE => [0xb8aa_3b29_5c17_f0bc, 0x3fff],
        Constant::Pi => [0xc90f_daa2_2168_c235, 0x4000],
        Constant::Log10Of2 => [0x9a20_9a84_fbcf_f799, 0x3ffd],
        Constant::LnOf2 => [0xb172_17f7_d1cf_79ac, 0x3ffe],
        Constant::Zero => [0, 0],
    };
    from_words(words)
}

/// ST(0) in another format: detail = bits of the format, with 1 for "cut, do not round".
fn convert(state: &mut State, fields: Fields) -> u64 {
    let value = state.st(0);
    let mut lost = false;
    match fields.source() {
        Source::F32 => {
            let narrow: StatusAnd<Single> = value.convert_r(state.round(), &mut lost);
            state.note(narrow.status);
            narrow.value.to_bits() as u64
        }
        Source::F64 => {
            let narrow: StatusAnd<Double> = value.convert_r(state.round(), &mut lost);
            state.note(narrow.status);
            narrow.value.to_bits() as u64
        }
        _ => {
            let (bits, cut) = (fields.detail() & !1, fields.detail() & 1 != 0);
            let round = if cut { Round::TowardZero } else { state.round() };
            let mut exact = false;
            let integer = value.to_i128_r(bits as usize, round, &mut exact);
            if integer.status.contains(Status::INVALID_OP) {
                state.x87_status |= INVALID;
                state.summarise();
                return 1 << (bits - 1);
            }
            state.note(integer.status);
            integer.value as u64
        }
    }
}

fn to_f64(value: F80) -> f64 {
    let mut lost = false;
    let double: StatusAnd<Double> = value.convert(&mut lost);
    f64::from_bits(double.value.to_bits() as u64)
}

fn apply(state: &mut State, function: Function) {
    match function {
        Function::ChangeSign => {
            let value = state.st(0);
            state.set_st(0, -value);
        }
        Function::Absolute => {
            let value = state.st(0);
            state.set_st(0, value.abs());
        }
        Function::SquareRoot => square_root(state),
        Function::Sine => in_range(state, sine),
        Function::Cosine => in_range(state, cosine),
        Function::SineCosine => in_range(state, |state| {
            let value = state.st(0);
            sine(state);
            state.push(value);
            cosine(state);
        }),
        Function::Tangent => in_range(state, |state| {
            tangent(state);
            state.push(constant(Constant::One));
        }),
        Function::ArcTangent => transcend_pair(state, arc_tangent),
        Function::PowerOf2Less1 => power_of_2_less_1(state),
        Function::LogTimes => {
            transcend_pair(state, |state, y, x| logarithm_times(state, y, x, false));
        }
        Function::LogPlus1Times => {
            transcend_pair(state, |state, y, x| logarithm_times(state, y, x, true));
        }
        Function::Round => {
            let value = state.st(0);
            let rounded = value.round_to_integral(state.round());
            state.note(rounded.status);
            state.set_st(0, rounded.value);
        }
        Function::Scale => {
            let (value, by) = (state.st(0), to_f64_or_zero(state.st(1)));
            let by = by.clamp(-70_000.0, 70_000.0) as i32;
            let scaled = value.scalbn_r(by, state.round());
            state.set_st(0, scaled);
        }
        Function::Extract => extract(state),
        Function::Remainder => remainder(state, false),
        Function::IeeeRemainder => remainder(state, true),
        Function::Test => {
            let value = state.st(0);
            let bits = compare(state, value, constant(Constant::Zero), false);
            state.x87_status = state.x87_status & !(C0 | C1 | C2 | C3) | bits;
        }
    }
}

fn to_f64_or_zero(value: F80) -> f64 {
    if value.is_nan() { 0.0 } else { to_f64(value).trunc() }
}

/// The correctly rounded root: an integer root of the significand with 128 bits.
fn square_root(state: &mut State) {
    let value = state.st(0);
    if let Some(nan) = propagate(state, value, value) {
        return state.set_st(0, nan);
    }
    if value.is_zero() || value.is_pos_infinity() {
        return;
    }
    if value.is_negative() {
        state.note(Status::INVALID_OP);
        return state.set_st(0, indefinite());
    }
    // value = significand * 2^exponent with an even exponent and a significand of 127 or 128 bits.
    let exponent = value.ilogb();
    let normal = to_words(value.scalbn(-exponent))[0];
    let (radicand, half) = if exponent.rem_euclid(2) == 0 {
        (u128::from(normal) << 63, exponent / 2)
    } else {
        (u128::from(normal) << 64, exponent.div_euclid(2))
    };
    let root = radicand.isqrt();
    let exact = root * root == radicand;
    // One more digit for rounding: twice the root, and one more when the rest is not zero.
    let sticky = F80::from_u128(root).value;
    let step = if exact { F80::ZERO } else { rest(radicand, root) };
    let sum = sticky.add_r(step, state.round());
    let scaled = StatusAnd { status: sum.status, value: sum.value.scalbn(half - 63) };
    let result = state.finish(scaled);
    state.set_st(0, result);
}

/// What is left of a root, as a fraction that rounds the same way: below, at or above a half.
fn rest(radicand: u128, root: u128) -> F80 {
    let left = radicand - root * root;
    // (root + 1/2)^2 = root^2 + root + 1/4, so more than `root` left is above a half.
    let quarters = if left > root { 3 } else { 1 };
    F80::from_u128(quarters).value.scalbn(-2)
}

/// ST(0) becomes its exponent, then its significand is pushed.
fn extract(state: &mut State) {
    let value = state.st(0);
    if value.is_zero() {
        state.note(Status::DIV_BY_ZERO);
        state.set_st(0, -F80::INFINITY);
        return state.push(value);
    }
    if !value.is_finite() {
        let exponent = if value.is_nan() { value } else { F80::INFINITY };
        state.set_st(0, exponent);
        return state.push(value);
    }
    let exponent = value.ilogb();
    state.set_st(0, F80::from_i128(i128::from(exponent)).value);
    state.push(value.scalbn(-exponent));
}

fn remainder(state: &mut State, ieee: bool) {
    let (a, b) = (state.st(0), state.st(1));
    state.x87_status &= !(C0 | C1 | C2 | C3);
    if let Some(nan) = propagate(state, a, b) {
        return state.set_st(0, nan);
    }
    if a.is_infinite() || b.is_zero() {
        state.note(Status::INVALID_OP);
        return state.set_st(0, indefinite());
    }
    if b.is_infinite() || a.is_zero() {
        return;
    }
    let result = if ieee { a.ieee_rem(b).value } else { a.c_fmod(b).value };
    // The low three bits of the quotient: of the part below eight divisors.
    let eighth = a.abs().c_fmod(b.abs().scalbn(3)).value;
    let quotient = (eighth / b.abs()).value;
    let round = if ieee { Round::NearestTiesToEven } else { Round::TowardZero };
    let mut exact = false;
    let low = quotient.to_u128_r(8, round, &mut exact).value;
    for (bit, flag) in [(1, C1), (2, C3), (4, C0)] {
        if low & bit != 0 {
            state.x87_status |= flag;
        }
    }
    state.set_st(0, result);
}

/// FXAM: the class of ST(0).
fn examine(state: &mut State) {
    let words = state.x87[state.physical(0)];
    let value = from_words(words);
    let class = if state.is_empty(0) {
        C3 | C0
    } else if value.is_denormal() {
        C2 | C3
    } else {
        match value.category() {
            Category::NaN => C0,
            Category::Normal => C2,
            Category::Infinity => C2 | C0,
            Category::Zero => C3,
        }
    };
    let sign = if words[1] & 0x8000 != 0 { C1 } else { 0 };
    state.x87_status = state.x87_status & !(C0 | C1 | C2 | C3) | class | sign;
}

/// FLD m80: address.
pub fn load80(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, ..]: [u64; 3],
) -> HelperResult {
    let low = load(memory, address, 8)?;
    let high = load(memory, address.wrapping_add(8), 2)?;
    let overflow = !state.is_empty(7);
    state.push(F80::ZERO);
    if !overflow {
        // The very bits, which need not be a number.
        let at = state.physical(0);
        state.x87[at] = [low, high];
    }
    DONE
}

/// FSTP m80: address.
pub fn store80(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, ..]: [u64; 3],
) -> HelperResult {
    let words =
        if state.is_empty(0) { to_words(state.st(0)) } else { state.x87[state.physical(0)] };
    store(memory, address, 8, words[0])?;
    store(memory, address.wrapping_add(8), 2, words[1])?;
    state.pop(1);
    DONE
}

/// FBLD: address of 18 digits and a sign.
pub fn load_decimal(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, ..]: [u64; 3],
) -> HelperResult {
    let mut value: i128 = 0;
    for at in (0..9).rev() {
        let byte = load(memory, address.wrapping_add(at), 1)?;
        value = value * 100 + i128::from(byte >> 4) * 10 + i128::from(byte & 15);
    }
    let negative = load(memory, address.wrapping_add(9), 1)? & 0x80 != 0;
    let number = F80::from_i128(value).value;
    state.push(if negative { -number } else { number });
    DONE
}

/// FBSTP: address.
pub fn store_decimal(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, ..]: [u64; 3],
) -> HelperResult {
    const DIGITS_MAX: i128 = 1_000_000_000_000_000_000;
    let value = state.st(0);
    let mut exact = false;
    let rounded = value.to_i128_r(64, state.round(), &mut exact);
    let fits = rounded.value.abs() < DIGITS_MAX && !rounded.status.contains(Status::INVALID_OP);
    let mut bytes = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];
    if fits {
        let mut digits = rounded.value.unsigned_abs();
        for byte in &mut bytes[..9] {
            *byte = (digits / 10 % 10) as u8 * 16 + (digits % 10) as u8;
            digits /= 100;
        }
        bytes[9] = if value.is_negative() { 0x80 } else { 0 };
    }
    for (at, byte) in bytes.into_iter().enumerate() {
        store(memory, address.wrapping_add(at as u64), 1, u64::from(byte))?;
    }
    state.note(if fits { rounded.status } else { Status::INVALID_OP });
    state.pop(1);
    DONE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_f64(value: f64) -> F80 {
        let mut lost = false;
        Double::from_bits(u128::from(value.to_bits())).convert(&mut lost).value
    }

    #[test]
    fn roots_are_exact_where_they_can_be() {
        for (square, root) in [(4.0, 2.0), (2.25, 1.5), (0.25, 0.5), (1e20, 1e10), (8.0 / 9.0, 0.0)]
        {
            let mut state = State { x87_control: 0x037f, ..State::default() };
            state.push(from_f64(square));
            square_root(&mut state);
            let got = to_f64(state.st(0));
            let expected = if root == 0.0 { square.sqrt() } else { root };
            assert_eq!(got, expected, "of {square}");
            assert_eq!(state.x87_status & PRECISION != 0, root == 0.0, "of {square}");
        }
    }

    #[test]
    fn the_stack_is_a_ring_with_faults() {
        let mut state = State::default();
        for n in 0..8 {
            state.push(from_f64(f64::from(n)));
        }
        assert_eq!((to_f64(state.st(0)), to_f64(state.st(7)), state.x87_status), (7.0, 0.0, 0));
        state.push(from_f64(8.0));
        assert_eq!(state.x87_status & (INVALID | STACK | C1), INVALID | STACK | C1);
        assert!(state.st(0).is_nan());
    }
}
