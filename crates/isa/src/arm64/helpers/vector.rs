//! Vector instructions, lane by lane: the manual's pseudocode in Rust.

use super::{float, integer};
use crate::arm64::state::State;
use crate::table::bits;

/// A vector's bytes.
pub fn to_bytes(vector: [u64; 2]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&vector[0].to_le_bytes());
    bytes[8..].copy_from_slice(&vector[1].to_le_bytes());
    bytes
}

/// The vector of these bytes.
pub fn from_bytes(bytes: [u8; 16]) -> [u64; 2] {
    let wide = u128::from_le_bytes(bytes);
    [wide as u64, (wide >> 64) as u64]
}

/// A vector register as lanes of `1 << size` bytes.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Lanes(pub u128);

impl Lanes {
    /// Register `n`.
    pub fn of(state: &State, n: u32) -> Self {
        let [low, high] = state.v[n as usize % 32];
        Self(u128::from(high) << 64 | u128::from(low))
    }

    /// Writes register `n`.
    pub fn write(self, state: &mut State, n: u32) {
        state.v[n as usize % 32] = [self.0 as u64, (self.0 >> 64) as u64];
    }

    /// A lane, unsigned.
    pub fn get(self, size: u32, lane: u32) -> u64 {
        let width = 8 << size;
        (self.0 >> (lane * width)) as u64 & (u64::MAX >> (64 - width))
    }

    /// A lane as a number.
    pub fn number(self, size: u32, lane: u32, unsigned: bool) -> i128 {
        number(self.get(size, lane), 8 << size, unsigned)
    }

    /// Sets a lane, which was zero, to the low bits of a number.
    pub fn set(&mut self, size: u32, lane: u32, value: u64) {
        let width = 8 << size;
        let mask = u64::MAX >> (64 - width);
        self.0 &= !(u128::from(mask) << (lane * width));
        self.0 |= u128::from(value & mask) << (lane * width);
    }
}

/// Bits as a number.
pub fn number(value: u64, width: u32, unsigned: bool) -> i128 {
    if unsigned {
        return i128::from(value);
    }
    i128::from((value << (64 - width)) as i64 >> (64 - width))
}

/// The classes of encodings of the manual's table C4.1.96 that are computed here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Three registers of one shape.
    Same,
    /// Three registers of two shapes.
    Different,
    /// Two registers.
    Two,
    /// One lane of all.
    Across,
    /// A lane of the second operand.
    Element,
    /// Shifts by constants, fixed-point conversions.
    Shift,
    /// Rounding doubling multiplication, dot products.
    Extra,
    /// Three registers of half precision.
    HalfSame,
    /// Two registers of half precision.
    HalfTwo,
    /// Scalar pairs.
    Pair,
    /// Scalar floating point.
    Scalar,
}

/// The class of a word.
pub fn class(word: u32) -> Option<Class> {
    let scalar = match bits(word, 28, 24) {
        0b01110 | 0b01111 if bits(word, 31, 31) == 0 => false,
        0b11110 if bits(word, 30, 30) == 0 => return Some(Class::Scalar),
        0b11111 if bits(word, 30, 29) == 0 => return Some(Class::Scalar),
        0b11110 | 0b11111 if bits(word, 31, 30) == 1 => true,
        _ => return None,
    };
    if bits(word, 24, 24) == 1 {
        return match bits(word, 10, 10) {
            0 => Some(Class::Element),
            _ if bits(word, 23, 23) == 0 && bits(word, 22, 19) != 0 => Some(Class::Shift),
            _ => None,
        };
    }
    match (bits(word, 21, 21), bits(word, 11, 10)) {
        (1, 1 | 3) => Some(Class::Same),
        (1, 0) => Some(Class::Different),
        (1, 2) => match bits(word, 21, 17) {
            0b10000 => Some(Class::Two),
            0b11000 if scalar => Some(Class::Pair),
            0b11000 => Some(Class::Across),
            0b11100 if bits(word, 22, 22) == 1 => Some(Class::HalfTwo),
            _ => None,
        },
        (_, 1 | 3) if bits(word, 15, 15) == 1 => Some(Class::Extra),
        (_, 1 | 3) if bits(word, 22, 22) == 1 && bits(word, 15, 14) == 0 => Some(Class::HalfSame),
        _ => None,
    }
}

/// Whether `compute` knows this word.
pub fn computes(word: u32) -> bool {
    let mut state = State::default();
    integer::compute(&mut state, word).is_some() || float::compute(&mut state, word).is_some()
}

/// Does it; gives sticky exceptions.
pub fn compute(state: &mut State, word: u32) -> u64 {
    if integer::compute(state, word).is_some() {
        return 0;
    }
    float::compute(state, word).unwrap_or(0)
}
