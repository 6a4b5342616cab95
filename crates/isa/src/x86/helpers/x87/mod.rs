//! The x87 FPU: arithmetic on 80-bit numbers.
//!
//! `arithmetic.rs` is exact to the last bit and in its exceptions, and so are the conversions of
//! `extended.rs`; `transcendental.rs` has the rest. Of the condition bits, C1 does not tell which
//! way a result was rounded.

mod arithmetic;
mod extended;
mod transcendental;
mod wide;

use std::cmp::Ordering;

use super::{DONE, fault, load, store};
use crate::front_end::{GuestMemory, HelperResult};
use crate::ir::fpu::{Arithmetic, Constant, Fields, Function, Source, X87};
use crate::ir::{CARRY, PARITY, ZERO};
use crate::x86::lift::exception;
use crate::x86::mode::control::CR0_NE;
use crate::x86::state::State;
use extended::{Class, Context, DENORMAL, DIVISION, DOUBLE, Extended, INVALID, SINGLE, STACK};
use transcendental::transcend;

const SUMMARY: u64 = 0x8080;
const C0: u64 = 1 << 8;
const C1: u64 = 1 << 9;
const C2: u64 = 1 << 10;
const C3: u64 = 1 << 14;
const CONDITIONS: u64 = C0 | C1 | C2 | C3;
/// Exceptions that are found before there is a result: who takes one keeps the operands.
const BEFORE: u64 = INVALID | DENORMAL | DIVISION;

impl State {
    fn physical(&self, i: u64) -> usize {
        (self.x87_top.wrapping_add(i) & 7) as usize
    }

    fn is_empty(&self, i: u64) -> bool {
        self.x87_empty >> self.physical(i) & 1 != 0
    }

    /// What lies in ST(i).
    fn st(&self, i: u64) -> Extended {
        Extended::from_words(self.x87[self.physical(i)])
    }

    fn set_st(&mut self, i: u64, value: Extended) {
        let at = self.physical(i);
        self.x87[at] = value.words();
        self.x87_empty &= !(1 << at);
    }

    /// Pushes a register for a result of which this was raised.
    fn push(&mut self, value: Extended, raised: u64) {
        if !self.is_empty(7) {
            if self.raise_x87(INVALID | STACK | C1) {
                self.x87_top = self.x87_top.wrapping_sub(1) & 7;
                self.set_st(0, Extended::INDEFINITE);
            }
        } else if self.raise_x87(raised) {
            self.x87_top = self.x87_top.wrapping_sub(1) & 7;
            self.set_st(0, value);
        }
    }

    fn pop(&mut self, count: u64) {
        for _ in 0..count {
            self.x87_empty |= 1 << self.physical(0);
            self.x87_top = self.x87_top.wrapping_add(1) & 7;
        }
    }

    /// Takes exceptions. False if the operation does not go on because of one.
    fn raise_x87(&mut self, raised: u64) -> bool {
        self.x87_status = self.x87_status & !C1 | raised;
        self.summarise();
        raised & BEFORE & !self.x87_control == 0
    }

    /// As FNINIT leaves it, but for the registers' contents.
    pub(super) fn initialise_x87(&mut self) {
        (self.x87_control, self.x87_status) = (0x037f, 0);
        (self.x87_top, self.x87_empty) = (0, 0xff);
    }

    /// The summary bit follows from status and masks.
    pub(super) fn summarise(&mut self) {
        let unmasked = self.x87_status & !self.x87_control & 0x3f != 0;
        self.x87_status = self.x87_status & !SUMMARY | if unmasked { SUMMARY } else { 0 };
    }

    /// The operands, unless one of these registers is empty.
    fn operands<const N: usize>(&mut self, registers: [u64; N]) -> Option<[Extended; N]> {
        if registers.iter().any(|&i| self.is_empty(i)) {
            return None;
        }
        Some(registers.map(|i| self.st(i)))
    }

    /// The result of an operation on registers, with what it raised: of an empty one a stack fault.
    fn calculate<const N: usize>(
        &mut self,
        registers: [u64; N],
        operation: impl FnOnce(&mut Context, [Extended; N]) -> Extended,
    ) -> (Extended, u64) {
        let mut context = Context::new(self.x87_control);
        match self.operands(registers) {
            Some(operands) => {
                let result = operation(&mut context, operands);
                (result, context.raised)
            }
            None => (Extended::INDEFINITE, INVALID | STACK),
        }
    }

    /// Writes a result to ST(i), unless what was raised forbids it. True if it was written.
    fn deliver(&mut self, i: u64, (result, raised): (Extended, u64)) -> bool {
        let goes_on = self.raise_x87(raised);
        if goes_on {
            self.set_st(i, result);
        }
        goes_on
    }
}

/// An exception that was left pending is taken by the next operation.
fn take_pending(state: &State) -> HelperResult {
    if state.x87_status & SUMMARY != 0 && state.cr[0] & CR0_NE != 0 {
        return fault(exception::MF, 0);
    }
    DONE
}

/// One FPU operation: what, and the memory operand's value.
pub fn operation(
    state: &mut State,
    _: &mut dyn GuestMemory,
    [what, value, second]: [u64; 3],
) -> HelperResult {
    let fields = Fields(what);
    let kind = fields.what();
    if kind == X87::Status {
        return Ok(state.x87_status_word());
    }
    if !matches!(kind, X87::Initialise | X87::ClearExceptions | X87::Pop) {
        take_pending(state)?;
    }
    let goes_on = match kind {
        X87::Arithmetic | X87::ArithmeticTo => arithmetic(state, kind, fields, value),
        X87::Load => {
            let (value, raised) = operand(state, fields, value);
            if fields.source() != Source::Stack && value.class() == Class::Signalling {
                state.push(value.quieted(), raised | INVALID);
            } else {
                state.push(value, raised);
            }
            true
        }
        X87::LoadWords => {
            state.push(Extended { significand: value, top: second as u16 }, 0);
            true
        }
        X87::Significand => return Ok(stored(state).words()[0]),
        X87::Top => return Ok(stored(state).words()[1]),
        X87::LoadConstant => {
            let constant = constant(state, Constant::from_bits(fields.detail()));
            state.push(constant, 0);
            true
        }
        X87::Store => {
            let value = state.calculate([0], |_, [value]| value);
            state.deliver(fields.register(), value)
        }
        X87::Convert => return Ok(convert(state, fields)),
        X87::Exchange => exchange(state, fields.register()),
        X87::Compare => {
            let compared = compare(state, fields, value);
            if let Some(bits) = compared {
                state.x87_status = state.x87_status & !CONDITIONS | bits;
            }
            compared.is_some()
        }
        X87::CompareFlags => return Ok(compare_flags(state, fields, value)),
        X87::Apply => {
            apply(state, Function::from_bits(fields.detail()));
            true
        }
        X87::MoveIf => {
            let new = state.calculate([0, fields.register()], |_, [_, new]| new);
            value & 1 == 0 && new.1 == 0 || state.deliver(0, new)
        }
        _ => {
            control(state, fields, value);
            true
        }
    };
    if goes_on {
        state.pop(fields.pops());
    }
    DONE
}

/// What does not calculate, and cannot fail.
fn control(state: &mut State, fields: Fields, value: u64) {
    match fields.what() {
        X87::Control => {
            state.x87_control = value | 0x40;
            state.summarise();
        }
        X87::Initialise => state.initialise_x87(),
        X87::ClearExceptions => {
            state.x87_status &= 0x7f00;
        }
        X87::Rotate => {
            state.x87_status &= !C1;
            state.x87_top = state.x87_top.wrapping_add(fields.detail()) & 7;
        }
        X87::Free => {
            state.x87_empty |= 1 << state.physical(fields.register());
        }
        X87::Examine => {
            examine(state);
        }
        _ => {}
    }
}

/// What FSTP stores of 80 bits.
fn stored(state: &mut State) -> Extended {
    let (value, raised) = state.calculate([0], |_, [value]| value);
    state.raise_x87(raised);
    value
}

/// The operand that is not ST(0) or the destination, and what its conversion raises.
fn operand(state: &State, fields: Fields, value: u64) -> (Extended, u64) {
    let mut context = Context::new(state.x87_control);
    let number = match fields.source() {
        Source::Stack if state.is_empty(fields.register()) => {
            return (Extended::INDEFINITE, INVALID | STACK);
        }
        Source::Stack => state.st(fields.register()),
        Source::F32 => Extended::from_format(&mut context, value & 0xffff_ffff, 23, SINGLE),
        Source::F64 => Extended::from_format(&mut context, value, 52, DOUBLE),
        Source::Integer => Extended::from_integer(value as i64),
    };
    (number, context.raised)
}

fn arithmetic(state: &mut State, kind: X87, fields: Fields, value: u64) -> bool {
    let (to, other, raised) = if kind == X87::Arithmetic {
        let (other, raised) = operand(state, fields, value);
        (0, other, raised)
    } else if state.is_empty(0) {
        (fields.register(), Extended::INDEFINITE, INVALID | STACK)
    } else {
        (fields.register(), state.st(0), 0)
    };
    let mut result = state.calculate([to], |context, [a]| {
        let result = match Arithmetic::from_bits(fields.detail()) {
            Arithmetic::Add => arithmetic::add(context, a, other),
            Arithmetic::Mul => arithmetic::multiply(context, a, other),
            Arithmetic::Sub => arithmetic::subtract(context, a, other),
            Arithmetic::SubR => arithmetic::subtract(context, other, a),
            Arithmetic::Div => arithmetic::divide(context, a, other),
            Arithmetic::DivR => arithmetic::divide(context, other, a),
        };
        // That an operand is denormal is the least of what can be said of it.
        if !result.is_nan() && context.raised & DIVISION == 0 {
            context.raised |= raised;
        }
        result
    });
    if raised & STACK != 0 {
        result = (Extended::INDEFINITE, INVALID | STACK);
    }
    state.deliver(to, result)
}

fn exchange(state: &mut State, register: u64) -> bool {
    let [mut a, mut b] = [0, register].map(|i| {
        let value = (!state.is_empty(i)).then(|| state.st(i));
        value.unwrap_or(Extended::INDEFINITE)
    });
    if state.is_empty(0) || state.is_empty(register) {
        if !state.raise_x87(INVALID | STACK) {
            return false;
        }
    } else {
        state.x87_status &= !C1;
    }
    std::mem::swap(&mut a, &mut b);
    state.set_st(0, a);
    state.set_st(register, b);
    true
}

/// The condition bits, unless an exception stands before them.
fn compare(state: &mut State, fields: Fields, value: u64) -> Option<u64> {
    let (other, raised) = operand(state, fields, value);
    let mut context = Context::new(state.x87_control);
    let quiet = fields.detail() != 0;
    let (bits, raised) = match state.operands([0]) {
        Some([a]) if raised & STACK == 0 => {
            let order = arithmetic::compare(&mut context, a, other, quiet);
            if order.is_some() {
                context.raised |= raised;
            }
            (conditions(order), context.raised)
        }
        _ => (conditions(None), INVALID | STACK),
    };
    state.raise_x87(raised).then_some(bits)
}

/// The same as an image of carry, parity and zero.
fn compare_flags(state: &mut State, fields: Fields, value: u64) -> u64 {
    let bits = compare(state, fields, value);
    if bits.is_some() {
        state.pop(fields.pops());
    }
    let flag = |bit, flag| if bits.is_none_or(|bits| bits & bit != 0) { flag } else { 0 };
    flag(C0, CARRY) | flag(C2, PARITY) | flag(C3, ZERO)
}

fn conditions(order: Option<Ordering>) -> u64 {
    match order {
        None => C0 | C2 | C3,
        Some(Ordering::Less) => C0,
        Some(Ordering::Equal) => C3,
        Some(Ordering::Greater) => 0,
    }
}

/// A constant, rounded as the control word says.
fn constant(state: &State, which: Constant) -> Extended {
    // Cut off; whether rounding to nearest goes up.
    let (significand, top, above_half) = match which {
        Constant::One => return Extended::ONE,
        Constant::Zero => return Extended::ZERO,
        Constant::Log2Of10 => (0xd49a_784b_cd1b_8afe, 0x4000, false),
        Constant::Log2OfE => (0xb8aa_3b29_5c17_f0bb, 0x3fff, true),
        Constant::Pi => (0xc90f_daa2_2168_c234, 0x4000, true),
        Constant::Log10Of2 => (0x9a20_9a84_fbcf_f798, 0x3ffd, true),
        Constant::LnOf2 => (0xb172_17f7_d1cf_79ab, 0x3ffe, true),
    };
    let up = match state.x87_control >> 10 & 3 {
        0 => above_half,
        2 => true,
        _ => false,
    };
    Extended { significand: significand + u64::from(up), top }
}

/// ST(0) in another format: detail = bits of the format, with 1 for "cut, do not round".
fn convert(state: &mut State, fields: Fields) -> u64 {
    let mut context = Context::new(state.x87_control);
    let (bits, cut) = (fields.detail() & !1, fields.detail() & 1 != 0);
    let value = state.operands([0]).map_or(Extended::INDEFINITE, |[value]| value);
    let result = match fields.source() {
        Source::F32 => value.to_format(&mut context, 23, SINGLE),
        Source::F64 => value.to_format(&mut context, 52, DOUBLE),
        _ => {
            if cut {
                context = context.cutting();
            }
            let integer = context.integer(value, bits as u32);
            integer.unwrap_or(-1 << (bits - 1)) as u64
        }
    };
    let empty = if state.is_empty(0) { INVALID | STACK } else { 0 };
    state.raise_x87(context.raised | empty);
    result
}

fn apply(state: &mut State, function: Function) {
    let simple: fn(&mut Context, [Extended; 1]) -> Extended = match function {
        Function::ChangeSign => |_, [value]| value.negated(),
        Function::Absolute => |_, [value]| value.magnitude(),
        Function::SquareRoot => |context, [value]| arithmetic::square_root(context, value),
        Function::Round => |context, [value]| arithmetic::round(context, value),
        Function::Scale => {
            let result = state.calculate([0, 1], |context, [value, by]| {
                arithmetic::scale(context.keep_bits(), value, by)
            });
            state.deliver(0, result);
            return;
        }
        Function::Extract => return extract(state),
        Function::Remainder => return remainder(state, false),
        Function::IeeeRemainder => return remainder(state, true),
        Function::Test => return test(state),
        _ => return transcend(state, function),
    };
    let result = state.calculate([0], simple);
    state.deliver(0, result);
}

/// Compares ST(0) with zero.
fn test(state: &mut State) {
    let mut context = Context::new(state.x87_control);
    let (bits, raised) = match state.operands([0]) {
        Some([value]) => {
            let order = arithmetic::compare(&mut context, value, Extended::ZERO, false);
            (conditions(order), context.raised)
        }
        None => (conditions(None), INVALID | STACK),
    };
    if state.raise_x87(raised) {
        state.x87_status = state.x87_status & !CONDITIONS | bits;
    }
}

/// ST(0) becomes its exponent, then its significand is pushed.
fn extract(state: &mut State) {
    let mut significand = Extended::INDEFINITE;
    let mut exponent = state.calculate([0], |context, [value]| {
        let [exponent, rest] = arithmetic::extract(context, value);
        significand = rest;
        exponent
    });
    if !state.is_empty(7) {
        // No room: neither result is one.
        significand = Extended::INDEFINITE;
        exponent = (Extended::INDEFINITE, INVALID | STACK | C1);
    }
    if state.deliver(0, exponent) {
        state.x87_top = state.x87_top.wrapping_sub(1) & 7;
        state.set_st(0, significand);
    }
}

fn remainder(state: &mut State, ieee: bool) {
    let mut bits = 0;
    let result = state.calculate([0, 1], |context, [a, b]| {
        let rest = arithmetic::remainder(context.keep_bits(), a, b, ieee);
        for (bit, flag) in [(1, C1), (2, C3), (4, C0)] {
            if rest.quotient.is_some_and(|quotient| quotient & bit != 0) {
                bits |= flag;
            }
        }
        if rest.quotient.is_none() {
            bits |= C2;
        }
        rest.value
    });
    if state.deliver(0, result) {
        state.x87_status = state.x87_status & !CONDITIONS | bits;
    }
}

/// FXAM: the class of ST(0).
fn examine(state: &mut State) {
    let value = state.st(0);
    let class = match value.class() {
        _ if state.is_empty(0) => C3 | C0,
        Class::Unsupported => 0,
        Class::Quiet | Class::Signalling => C0,
        Class::Normal => C2,
        Class::Infinity => C2 | C0,
        Class::Zero => C3,
        Class::Denormal => C2 | C3,
    };
    let sign = if value.is_negative() { C1 } else { 0 };
    state.x87_status = state.x87_status & !CONDITIONS | class | sign;
}

/// FBLD: address of 18 digits and a sign.
pub fn load_decimal(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, ..]: [u64; 3],
) -> HelperResult {
    take_pending(state)?;
    let mut value: i64 = 0;
    for at in (0..9).rev() {
        let byte = load(memory, address.wrapping_add(at), 1)? as i64;
        value = value.wrapping_mul(100).wrapping_add((byte >> 4) * 10 + (byte & 15));
    }
    let negative = load(memory, address.wrapping_add(9), 1)? & 0x80 != 0;
    let number = Extended::from_integer(value);
    state.push(if negative { number.negated() } else { number }, 0);
    DONE
}

/// FBSTP: address.
pub fn store_decimal(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, ..]: [u64; 3],
) -> HelperResult {
    const DIGITS_MAX: i128 = 1_000_000_000_000_000_000;
    take_pending(state)?;
    let mut context = Context::new(state.x87_control);
    let value = state.operands([0]).map(|[value]| value);
    let integer = value.and_then(|value| context.integer(value, 64));
    let digits = integer.filter(|integer| integer.abs() < DIGITS_MAX);
    let mut raised = context.raised;
    let mut bytes = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];
    if let (Some(digits), Some(value)) = (digits, value) {
        let mut digits = digits.unsigned_abs();
        for byte in &mut bytes[..9] {
            *byte = (digits / 10 % 10) as u8 * 16 + (digits % 10) as u8;
            digits /= 100;
        }
        bytes[9] = if value.is_negative() { 0x80 } else { 0 };
    } else {
        raised = if value.is_some() { INVALID } else { INVALID | STACK };
    }
    for (at, byte) in bytes.into_iter().enumerate() {
        store(memory, address.wrapping_add(at as u64), 1, u64::from(byte))?;
    }
    if state.raise_x87(raised) {
        state.pop(1);
    }
    DONE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_exact_where_they_can_be() {
        for (square, root) in [(4, 2), (9, 3), (1 << 60, 1 << 30), (2, 0)] {
            let mut context = Context::new(0x037f);
            let got = arithmetic::square_root(&mut context, Extended::from_integer(square));
            assert_eq!(context.raised == 0, root != 0, "of {square}");
            if root != 0 {
                assert_eq!(got, Extended::from_integer(root), "of {square}");
            }
        }
    }

    #[test]
    fn the_stack_is_a_ring_with_faults() {
        let mut state = State { x87_control: 0x037f, ..State::default() };
        for n in 0..8 {
            state.push(Extended::from_integer(n), 0);
        }
        let edges = (state.st(0), state.st(7), state.x87_status);
        assert_eq!(edges, (Extended::from_integer(7), Extended::ZERO, 0));
        state.push(Extended::ONE, 0);
        assert_eq!(state.x87_status & (INVALID | STACK | C1), INVALID | STACK | C1);
        assert_eq!(state.st(0), Extended::INDEFINITE);
    }

    #[test]
    fn an_exception_that_is_not_masked_waits_for_the_next_operation() {
        let mut state = State { x87_control: 0x037b, ..State::default() };
        state.cr[0] |= CR0_NE;
        state.push(Extended::ZERO, 0);
        state.push(Extended::ONE, 0);
        let divide = state.calculate([0, 1], |context, [a, b]| arithmetic::divide(context, a, b));
        assert!(!state.deliver(0, divide));
        assert_eq!(state.st(0), Extended::ONE, "the operands stay");
        assert_eq!(state.x87_status & (DIVISION | SUMMARY), DIVISION | SUMMARY);
        assert!(take_pending(&state).is_err());
    }
}
