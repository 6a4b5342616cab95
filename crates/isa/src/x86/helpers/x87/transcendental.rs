//! The transcendental functions: their exceptional cases here, their values in `wide.rs`.

use rustc_apfloat::ieee::X87DoubleExtended as F80;
use rustc_apfloat::{Float, FloatConvert, Round, Status, StatusAnd};

use super::arithmetic::special;
use super::extended::{
    Class, Context, DENORMAL, DIVISION, Extended, INVALID, OVERFLOW, PRECISION, STACK, UNDERFLOW,
};
use super::wide::{self, Wide};
use super::{C1, C2, Function};
use crate::x86::state::State;

const ONE: Extended = Extended::ONE;

fn number(value: Extended) -> F80 {
    F80::from_bits(u128::from(value.significand) | u128::from(value.top) << 64)
}

/// A transcendental function's result, which is not exact.
fn rounded(context: &mut Context, result: Wide) -> Extended {
    let round = match context.rounding() {
        0 => Round::NearestTiesToEven,
        1 => Round::TowardNegative,
        2 => Round::TowardPositive,
        _ => Round::TowardZero,
    };
    let mut lost = false;
    let narrow: StatusAnd<F80> = result.number().convert_r(round, &mut lost);
    context.raised |= PRECISION;
    for (status, bit) in [(Status::OVERFLOW, OVERFLOW), (Status::UNDERFLOW, UNDERFLOW)] {
        if narrow.status.contains(status) {
            context.raised |= bit;
        }
    }
    let bits = narrow.value.to_bits();
    Extended { significand: bits as u64, top: (bits >> 64) as u16 }
}

fn invalid(context: &mut Context) -> Extended {
    context.raised |= INVALID;
    Extended::INDEFINITE
}

/// A function of one number; `at_zero` is its value there, which is exact.
fn of_one(
    context: &mut Context,
    value: Extended,
    at_zero: Extended,
    function: impl Fn(F80) -> Wide,
) -> Extended {
    if let Some(result) = special(context, &[value]) {
        return result;
    }
    match value.class() {
        Class::Zero => at_zero,
        Class::Infinity => invalid(context),
        class => {
            if class == Class::Denormal {
                context.raised |= DENORMAL;
            }
            rounded(context, function(number(value)))
        }
    }
}

fn sine(context: &mut Context, value: Extended) -> Extended {
    of_one(context, value, value, wide::sine)
}

fn cosine(context: &mut Context, value: Extended) -> Extended {
    of_one(context, value, ONE, wide::cosine)
}

fn tangent(context: &mut Context, value: Extended) -> Extended {
    of_one(context, value, value, wide::tangent)
}

/// F2XM1. Beyond -1 to 1 the manual promises nothing, and processors leave the number.
fn power_of_2_less_1(context: &mut Context, value: Extended) -> Extended {
    match value.class() {
        Class::Infinity if value.is_negative() => ONE.negated(),
        Class::Infinity => value,
        Class::Normal if value.parts().exponent >= 0 => {
            context.raised |= PRECISION;
            let half = Extended { top: ONE.top - 1, ..ONE };
            if value == ONE.negated() { half.negated() } else { value }
        }
        _ => of_one(context, value, value, wide::power_of_2_less_1),
    }
}

fn arc_tangent(context: &mut Context, y: Extended, x: Extended) -> Extended {
    let infinite = |value: Extended| value.class() == Class::Infinity;
    let is_zero = y.class() == Class::Zero || infinite(x) && !infinite(y);
    if is_zero && !x.is_negative() {
        return Extended::zero(y.is_negative());
    }
    rounded(context, wide::arc_tangent(number(y), number(x)))
}

/// y log2(x), or y log2(1 + x).
fn logarithm_times(context: &mut Context, y: Extended, x: Extended, plus_1: bool) -> Extended {
    // Where the logarithm is minus infinity and where it is zero.
    let (pole, root) = if plus_1 { (ONE.negated(), Extended::ZERO) } else { (Extended::ZERO, ONE) };
    let [at, pole, root] = [x, pole, root].map(number);
    let negates = |value: Extended| if y.is_negative() { value.negated() } else { value };
    let infinite = |value: Extended| value.class() == Class::Infinity;
    let y_is_zero = y.class() == Class::Zero;
    if at < pole || at == root && infinite(y) || (at == pole || infinite(x)) && y_is_zero {
        return invalid(context);
    }
    if at == pole {
        if !infinite(y) {
            context.raised |= DIVISION;
        }
        return negates(Extended::infinity(true));
    }
    if at == root {
        // Of 1 + x the zero has x's sign.
        return negates(if plus_1 { x } else { Extended::ZERO });
    }
    if infinite(x) || infinite(y) || y_is_zero {
        let size = if y_is_zero { Extended::ZERO } else { Extended::infinity(false) };
        return negates(if at < root { size.negated() } else { size });
    }
    let log = if plus_1 { wide::log_2_of_1_plus } else { wide::log_2 };
    rounded(context, Wide::from(number(y)) * log(number(x)))
}

/// A function of ST(1) and ST(0) that replaces both.
fn of_two(state: &mut State, function: impl FnOnce(&mut Context, Extended, Extended) -> Extended) {
    let result = state.calculate([1, 0], |context, [y, x]| match special(context, &[y, x]) {
        Some(result) => result,
        None => {
            if [y, x].iter().any(|value| value.class() == Class::Denormal) {
                context.raised |= DENORMAL;
            }
            function(context, y, x)
        }
    });
    if state.deliver(1, result) {
        state.pop(1);
    }
}

/// A function of an angle; `second` is pushed behind it. Angles of 2^63 and more are left alone, and
/// C2 says so.
fn of_angle(
    state: &mut State,
    first: fn(&mut Context, Extended) -> Extended,
    second: Option<fn(&mut Context, Extended) -> Extended>,
) {
    let value = state.st(0);
    let finite = matches!(value.class(), Class::Normal | Class::Denormal);
    if !state.is_empty(0) && finite && value.parts().exponent >= 63 {
        state.x87_status = state.x87_status & !C1 | C2;
        return;
    }
    state.x87_status &= !C2;
    let full = second.is_some() && !state.is_empty(7);
    let mut pushed = Extended::INDEFINITE;
    let mut result = state.calculate([0], |context, [value]| {
        if let Some(second) = second {
            pushed = second(context, value);
        }
        first(context, value)
    });
    if full {
        (result, pushed) = ((Extended::INDEFINITE, INVALID | STACK | C1), Extended::INDEFINITE);
    }
    if state.deliver(0, result) && second.is_some() {
        state.x87_top = state.x87_top.wrapping_sub(1) & 7;
        state.set_st(0, pushed);
    }
}

/// One of the functions that `apply` does not do itself.
pub fn transcend(state: &mut State, function: Function) {
    match function {
        Function::Sine => of_angle(state, sine, None),
        Function::Cosine => of_angle(state, cosine, None),
        Function::SineCosine => of_angle(state, sine, Some(cosine)),
        Function::Tangent => of_angle(
            state,
            tangent,
            Some(|context, value| {
                special(context, &[value]).unwrap_or(match value.class() {
                    Class::Infinity => Extended::INDEFINITE,
                    _ => ONE,
                })
            }),
        ),
        Function::ArcTangent => of_two(state, arc_tangent),
        Function::LogTimes => of_two(state, |context, y, x| logarithm_times(context, y, x, false)),
        Function::LogPlus1Times => {
            of_two(state, |context, y, x| logarithm_times(context, y, x, true));
        }
        _ => {
            let result = state.calculate([0], |context, [value]| power_of_2_less_1(context, value));
            state.deliver(0, result);
        }
    }
}
