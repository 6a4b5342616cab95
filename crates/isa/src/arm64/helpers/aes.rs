//! AES, and carry-less products of doublewords, for hosts without instructions for them.

use super::vector::{Lanes, from_bytes, to_bytes};
use crate::arm64::state::State;
use crate::front_end::{GuestMemory, HelperResult};
use crate::table::bits;

/// A product in the field of FIPS 197.
const fn product(mut a: u8, mut b: u8) -> u8 {
    let mut sum = 0;
    while b != 0 {
        if b & 1 != 0 {
            sum ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    sum
}

/// The S box and its inverse.
const BOXES: [[u8; 256]; 2] = {
    let mut boxes = [[0; 256]; 2];
    let mut value = 0usize;
    while value < 256 {
        // The inverse is the 254th power.
        let (mut inverse, mut i) = (1, 0);
        while i < 254 {
            inverse = product(inverse, value as u8);
            i += 1;
        }
        let b = inverse;
        let spread = b ^ b.rotate_left(1) ^ b.rotate_left(2) ^ b.rotate_left(3) ^ b.rotate_left(4);
        let substitute = spread ^ 0x63;
        boxes[0][value] = substitute;
        boxes[1][substitute as usize] = value as u8;
        value += 1;
    }
    boxes
};

/// The instruction is the first operand.
pub fn aes(state: &mut State, _: &mut dyn GuestMemory, a: [u64; 3]) -> HelperResult {
    let word = a[0] as u32;
    let (d, n) = (bits(word, 4, 0) as usize, bits(word, 9, 5) as usize);
    if bits(word, 21, 17) != 0b10100 {
        return multiply(state, word);
    }
    let input = to_bytes(state.v[n]);
    let inverse = bits(word, 12, 12) == 1;
    let output = if bits(word, 13, 13) == 1 {
        mix(input, if inverse { [14, 11, 13, 9] } else { [2, 3, 1, 1] })
    } else {
        let key = to_bytes(state.v[d]);
        let step = if inverse { 13 } else { 5 };
        std::array::from_fn(|i| {
            let from = i * step % 16;
            BOXES[usize::from(inverse)][usize::from(input[from] ^ key[from])]
        })
    };
    state.v[d] = from_bytes(output);
    Ok(0)
}

/// Columns times a circulant matrix.
fn mix(input: [u8; 16], row: [u8; 4]) -> [u8; 16] {
    std::array::from_fn(|i| {
        (0..4).fold(0, |sum, k| sum ^ product(input[i / 4 * 4 + (i + k) % 4], row[k]))
    })
}

fn multiply(state: &mut State, word: u32) -> HelperResult {
    let half = bits(word, 30, 30) as usize;
    let [a, b] = [bits(word, 9, 5), bits(word, 20, 16)].map(|n| state.v[n as usize][half]);
    let product = (0..64).filter(|bit| b >> bit & 1 != 0);
    let product = product.fold(0, |sum, bit| sum ^ u128::from(a) << bit);
    Lanes(product).write(state, bits(word, 4, 0));
    Ok(0)
}
