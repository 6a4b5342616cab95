//! Flushing to zero (FPCR.FZ; FZ16 for half precision): what is too small is zero, as an operand
//! and as a result, which is looked at before it is rounded.

use rustc_apfloat::{Round, Status};

use super::{Format, HALF, Unit};
use crate::arm64::state::State;

/// For which formats.
#[derive(Clone, Copy, Default)]
pub struct Flush {
    wide: bool,
    half: bool,
}

impl Flush {
    /// As FPCR says.
    pub fn of(state: &State) -> Self {
        Self { wide: state.fpcr & 1 << 24 != 0, half: state.fpcr & 1 << 19 != 0 }
    }

    fn of_format(self, f: Format) -> bool {
        if f.size == HALF.size { self.half } else { self.wide }
    }
}

impl Unit {
    fn is_subnormal(f: Format, a: u64) -> bool {
        let magnitude = f.magnitude(a);
        magnitude != 0 && magnitude < f.smallest()
    }

    /// An operand as it counts.
    pub fn input(&self, f: Format, a: u64) -> u64 {
        if self.flush.of_format(f) && Self::is_subnormal(f, a) { a & f.sign() } else { a }
    }

    /// An operand of a conversion of formats: halves are never flushed.
    pub fn input_of_conversion(&self, f: Format, a: u64) -> u64 {
        if f.size == HALF.size { a } else { self.input(f, a) }
    }

    /// A result as it counts. `again` computes it.
    pub fn flushed(&mut self, f: Format, again: impl Fn(&mut Self) -> u64) -> u64 {
        if !self.flush.of_format(f) {
            return again(self);
        }
        let before = self.status;
        let value = again(self);
        let tiny = Self::is_subnormal(f, value)
            || f.magnitude(value) == f.smallest() && self.was_smaller(f, &again);
        if !tiny {
            return value;
        }
        self.status = before | Status::UNDERFLOW;
        value & f.sign()
    }

    /// Whether a result is the smallest normal number only because it was rounded.
    fn was_smaller(&self, f: Format, again: impl Fn(&mut Self) -> u64) -> bool {
        let mut probe = Self { round: Round::TowardZero, status: Status::OK, ..*self };
        Self::is_subnormal(f, again(&mut probe))
    }

    /// Whether the reciprocal of a number is too small.
    pub fn flushes_reciprocal(&self, f: Format, a: u64) -> bool {
        self.flush.of_format(f) && f.magnitude(a) >= f.infinity() - 2 * f.smallest()
    }
}
