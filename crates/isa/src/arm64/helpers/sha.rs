//! SHA-1 and SHA-256 steps, and polynomial products of bytes.

use super::vector::Lanes;
use crate::arm64::state::State;
use crate::front_end::{GuestMemory, HelperResult};
use crate::table::bits;

/// A register as words.
pub fn words(state: &State, n: u32) -> [u32; 4] {
    let v = Lanes::of(state, n);
    [0, 1, 2, 3].map(|lane| v.get(2, lane) as u32)
}

/// Words as a register.
pub fn vector(words: [u32; 4]) -> Lanes {
    let mut v = Lanes::default();
    for (lane, word) in (0..).zip(words) {
        v.set(2, lane, word.into());
    }
    v
}

/// The instruction is the first operand.
pub fn sha(state: &mut State, _: &mut dyn GuestMemory, a: [u64; 3]) -> HelperResult {
    let word = a[0] as u32;
    let (d, n, m) = (bits(word, 4, 0), bits(word, 9, 5), bits(word, 20, 16));
    let (x, y, z) = (words(state, d), words(state, n), words(state, m));
    let result = match (bits(word, 28, 28), bits(word, 21, 21), bits(word, 14, 12)) {
        (0, _, _) => polynomial(state, word),
        (_, 0, 0) => sha1_rounds(x, y[0], z, |b, c, d| b & c | !b & d),
        (_, 0, 1) => sha1_rounds(x, y[0], z, |b, c, d| b ^ c ^ d),
        (_, 0, 2) => sha1_rounds(x, y[0], z, |b, c, d| b & c | b & d | c & d),
        (_, 0, 4) => vector(sha256_rounds(x, y, z).0),
        (_, 0, 5) => vector(sha256_rounds(y, x, z).1),
        (_, 0, _) => sha256_schedule_1(x, y, z),
        _ => {
            let next = [x[1], x[2], x[3], y[0]];
            let sigma = |w: u32| w.rotate_right(7) ^ w.rotate_right(18) ^ w >> 3;
            vector([0, 1, 2, 3].map(|i| x[i].wrapping_add(sigma(next[i]))))
        }
    };
    result.write(state, d);
    Ok(0)
}

fn sha1_rounds(x: [u32; 4], e: u32, w: [u32; 4], f: fn(u32, u32, u32) -> u32) -> Lanes {
    let ([mut a, mut b, mut c, mut d], mut e) = (x, e);
    for w in w {
        let t = e.wrapping_add(a.rotate_left(5)).wrapping_add(f(b, c, d)).wrapping_add(w);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, t);
    }
    vector([a, b, c, d])
}

fn sha256_rounds(x: [u32; 4], y: [u32; 4], w: [u32; 4]) -> ([u32; 4], [u32; 4]) {
    let ([mut a, mut b, mut c, mut d], [mut e, mut f, mut g, mut h]) = (x, y);
    for w in w {
        let choose = (f ^ g) & e ^ g;
        let majority = a & b | (a | b) & c;
        let sum1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sum0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t = h.wrapping_add(sum1).wrapping_add(choose).wrapping_add(w);
        let (new_e, new_a) = (d.wrapping_add(t), t.wrapping_add(sum0).wrapping_add(majority));
        (h, g, f, e, d, c, b, a) = (g, f, e, new_e, c, b, a, new_a);
    }
    ([a, b, c, d], [e, f, g, h])
}

fn sha256_schedule_1(x: [u32; 4], y: [u32; 4], z: [u32; 4]) -> Lanes {
    let sigma = |w: u32| w.rotate_right(17) ^ w.rotate_right(19) ^ w >> 10;
    let shifted = [y[1], y[2], y[3], z[0]];
    let mut result = [0u32; 4];
    for i in 0..4 {
        let from = if i < 2 { z[i + 2] } else { result[i - 2] };
        result[i] = x[i].wrapping_add(shifted[i]).wrapping_add(sigma(from));
    }
    vector(result)
}

fn polynomial(state: &State, word: u32) -> Lanes {
    let upper = 8 * bits(word, 30, 30);
    let (a, b) = (Lanes::of(state, bits(word, 9, 5)), Lanes::of(state, bits(word, 20, 16)));
    let mut result = Lanes::default();
    for lane in 0..8 {
        let (x, y) = (a.get(0, lane + upper), b.get(0, lane + upper));
        let product = (0..8).filter(|bit| y >> bit & 1 != 0).fold(0, |sum, bit| sum ^ x << bit);
        result.set(1, lane, product);
    }
    result
}
