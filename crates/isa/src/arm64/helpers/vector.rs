//! Vector instructions, lane by lane: the manual's pseudocode in Rust.

use crate::arm64::state::State;

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

/// Whether `compute` knows this word.
pub fn computes(_: u32) -> bool {
    false
}

/// Does it; gives sticky exceptions.
pub fn compute(_: &mut State, _: u32) -> u64 {
    0
}
