//! The transcendental functions: their exceptional cases here, their values in `wide.rs`.

use rustc_apfloat::ieee::X87DoubleExtended as F80;
use rustc_apfloat::{Float, FloatConvert, Status, StatusAnd};

use super::wide::{self, Wide};
use super::{C2, Constant, constant, indefinite, propagate};
use crate::x86::state::State;

/// A transcendental function's result, which is not exact.
fn rounded(state: &mut State, result: Wide) -> F80 {
    let mut lost = false;
    let narrow: StatusAnd<F80> = result.number().convert_r(state.round(), &mut lost);
    state.note(narrow.status | Status::INEXACT);
    narrow.value
}

fn invalid(state: &mut State) -> F80 {
    state.note(Status::INVALID_OP);
    indefinite()
}

/// A transcendental function of ST(0); `at_zero` is its value there, which is exact.
fn transcend(state: &mut State, at_zero: impl Fn(F80) -> F80, function: impl Fn(F80) -> Wide) {
    let value = state.st(0);
    let result = match propagate(state, value, value) {
        Some(nan) => nan,
        None if value.is_zero() => at_zero(value),
        None if value.is_infinite() => invalid(state),
        None => rounded(state, function(value)),
    };
    state.set_st(0, result);
}

pub fn sine(state: &mut State) {
    transcend(state, |zero| zero, wide::sine);
}

pub fn cosine(state: &mut State) {
    transcend(state, |_| constant(Constant::One), wide::cosine);
}

pub fn tangent(state: &mut State) {
    transcend(state, |zero| zero, wide::tangent);
}

/// F2XM1, whose results at -1, 0, 1 and the infinities are exact.
pub fn power_of_2_less_1(state: &mut State) {
    let value = state.st(0);
    let one = constant(Constant::One);
    let exact = match value {
        _ if value.is_pos_infinity() || value == one => Some(value),
        _ if value.is_neg_infinity() => Some(-one),
        _ if value == -one => Some(value.scalbn(-1)),
        _ => None,
    };
    match exact {
        Some(result) => state.set_st(0, result),
        None => transcend(state, |zero| zero, wide::power_of_2_less_1),
    }
}

/// A function of ST(1) and ST(0) that replaces both.
pub fn transcend_pair(state: &mut State, function: impl Fn(&mut State, F80, F80) -> F80) {
    let (y, x) = (state.st(1), state.st(0));
    let result = match propagate(state, y, x) {
        Some(nan) => nan,
        None => function(state, y, x),
    };
    state.set_st(1, result);
    state.pop(1);
}

pub fn arc_tangent(state: &mut State, y: F80, x: F80) -> F80 {
    let is_zero = y.is_zero() || x.is_infinite() && !y.is_infinite();
    if is_zero && !x.is_negative() {
        return if y.is_negative() { -F80::ZERO } else { F80::ZERO };
    }
    rounded(state, wide::arc_tangent(y, x))
}

/// y log2(x), or y log2(1 + x).
pub fn logarithm_times(state: &mut State, y: F80, x: F80, plus_1: bool) -> F80 {
    // Where the logarithm is minus infinity and where it is zero.
    let one = constant(Constant::One);
    let (pole, root) = if plus_1 { (-one, F80::ZERO) } else { (F80::ZERO, one) };
    let negates = |value: F80, by: F80| if by.is_negative() { -value } else { value };
    if x < pole || x == root && y.is_infinite() {
        return invalid(state);
    }
    if (x == pole || x.is_infinite()) && y.is_zero() {
        return invalid(state);
    }
    if x == pole {
        if y.is_finite() {
            state.note(Status::DIV_BY_ZERO);
        }
        return negates(-F80::INFINITY, y);
    }
    if x == root {
        // Of 1 + x the zero has x's sign.
        return negates(if plus_1 { x } else { F80::ZERO }, y);
    }
    if x.is_infinite() || y.is_infinite() || y.is_zero() {
        let size = if y.is_zero() { F80::ZERO } else { F80::INFINITY };
        return negates(if x < root { -size } else { size }, y);
    }
    let log = if plus_1 { wide::log_2_of_1_plus } else { wide::log_2 };
    rounded(state, Wide::from(y) * log(x))
}

/// Angles of 2^63 and more are left alone, and C2 says so.
pub fn in_range(state: &mut State, function: impl FnOnce(&mut State)) {
    let value = state.st(0);
    if value.is_finite_non_zero() && value.ilogb() >= 63 {
        state.x87_status |= C2;
    } else {
        state.x87_status &= !C2;
        function(state);
    }
}
