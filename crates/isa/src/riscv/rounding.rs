//! To nearest with ties away from zero (`rmm`), which hosts do not have.
//!
//! It differs from ties to even in the ties alone, and raises the same exceptions: the host
//! computes with ties to even, and software looks at the result again.

use rustc_apfloat::ieee::{Double, Single};
use rustc_apfloat::{Float, FloatConvert, Round, StatusAnd};

use super::state::State;
use crate::front_end::{GuestMemory, HelperResult};
use crate::table::bits;

const AWAY: Round = Round::NearestTiesToAway;

/// What `frm` means for instructions that ask for the dynamic mode; part of a block's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dynamic {
    /// One of the host's four.
    Host,
    /// Ties away from zero.
    Away,
    /// A reserved mode: the instruction is illegal.
    Reserved,
}

impl Dynamic {
    /// Of a hart.
    pub fn of(state: &State) -> Self {
        match state.frm {
            0..=3 => Self::Host,
            4 => Self::Away,
            _ => Self::Reserved,
        }
    }

    /// As mode bits.
    pub fn mode(self) -> u64 {
        self as u64
    }

    /// From mode bits.
    pub fn from_mode(mode: u64) -> Self {
        match mode {
            0 => Self::Host,
            1 => Self::Away,
            _ => Self::Reserved,
        }
    }
}

/// A format's numbers in registers.
trait Number: Float {
    const QUIET: u64;
    /// From a register.
    fn read(register: u64) -> Self;
}

impl Number for Single {
    const QUIET: u64 = 0x7fc0_0000;

    fn read(register: u64) -> Self {
        let boxed = register >> 32 == 0xffff_ffff;
        Self::from_bits(u128::from(if boxed { register & 0xffff_ffff } else { Self::QUIET }))
    }
}

impl Number for Double {
    const QUIET: u64 = 0x7ff8 << 48;

    fn read(register: u64) -> Self {
        Self::from_bits(register.into())
    }
}

/// Operands: the instruction, and its result with ties to even. Gives the result's bits.
pub fn away(state: &mut State, _: &mut dyn GuestMemory, a: [u64; 3]) -> HelperResult {
    let (word, even) = (a[0] as u32, a[1]);
    let double = bits(word, 25, 25) == 1;
    let result = match (bits(word, 6, 2), double) {
        // fcvt.s.d
        (0b10100, false) if bits(word, 31, 27) == 0b01000 => {
            let narrow: StatusAnd<Single> =
                Double::read(state.f[bits(word, 19, 15) as usize]).convert_r(AWAY, &mut false);
            bits_of(narrow, even)
        }
        (_, false) => arithmetic::<Single>(state, word, even),
        (_, true) => arithmetic::<Double>(state, word, even),
    };
    Ok(result)
}

fn arithmetic<F: Number>(state: &State, word: u32, even: u64) -> u64 {
    let f = |at: u32| F::read(state.f[(word >> at & 31) as usize]);
    let (x, y, z) = (f(15), f(20), f(27));
    let integer = state.x[bits(word, 19, 15) as usize];
    let outcome = match (bits(word, 6, 2), bits(word, 31, 27)) {
        (0b10000, _) => x.mul_add_r(y, z, AWAY),
        (0b10001, _) => x.mul_add_r(y, -z, AWAY),
        (0b10010, _) => (-x).mul_add_r(y, z, AWAY),
        (0b10011, _) => (-x).mul_add_r(y, -z, AWAY),
        (_, 0b00000) => x.add_r(y, AWAY),
        (_, 0b00001) => x.sub_r(y, AWAY),
        (_, 0b00010) => x.mul_r(y, AWAY),
        (_, 0b00011) => x.div_r(y, AWAY),
        (_, 0b11010) => match bits(word, 21, 20) {
            0 => F::from_i128_r(i128::from(integer as i32), AWAY),
            1 => F::from_u128_r(u128::from(integer as u32), AWAY),
            2 => F::from_i128_r(i128::from(integer as i64), AWAY),
            _ => F::from_u128_r(u128::from(integer), AWAY),
        },
        _ => return even,
    };
    bits_of(outcome, even)
}

/// The bits of what was computed; NaNs and zeros are the host's.
fn bits_of<F: Number>(outcome: StatusAnd<F>, even: u64) -> u64 {
    let value = outcome.value;
    if value.is_nan() || value.is_zero() { even } else { value.to_bits() as u64 }
}
