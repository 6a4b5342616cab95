//! Vector operations that the host may lack: the meaning of AVX, AVX2 and SHA instructions without
//! AVX, AVX2 and SHA. Floating point is in `vector_float.rs`.

use super::vector_float::{self, Fused};
use crate::front_end::{GuestMemory, HelperResult};
use crate::x86::state::State;

/// The number of a source or destination that is scratch state instead of a register.
pub const SCRATCH: u8 = 0xff;

macro_rules! software {
    ($($name:ident)*) => {
        /// What software does.
        #[allow(missing_docs, reason = "named after the lane operations of the same meaning")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Software { $($name),* }

        impl Software {
            const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

software! {
    ShlEach32 ShlEach64 ShrUEach32 ShrUEach64 ShrSEach32
    PermuteEach32 PermuteEachF32 PermuteEachF64
    Sha1Rounds Sha1NextE Sha1Message1 Sha1Message2
    Sha256Rounds Sha256Message1 Sha256Message2
    Compare32 Compare64 CompareLow32 CompareLow64
    FromHalf ToHalf Fused
}

impl Software {
    /// Raises exceptions.
    pub fn is_floating(self) -> bool {
        self as u8 >= Self::Compare32 as u8
    }
}

/// An operation with its operands; packed into a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What.
    pub software: Software,
    /// Registers, or `SCRATCH`.
    pub sources: [u8; 3],
    /// A register, or `SCRATCH`.
    pub to: u8,
    /// The immediate, or which fused operation.
    pub imm: u8,
    /// 256 bits.
    pub wide: bool,
    /// What is above the result becomes zero.
    pub clears_above: bool,
}

impl Operation {
    /// As a helper's operand.
    pub fn pack(self) -> u64 {
        let [a, b, c] = self.sources;
        let flags = u8::from(self.wide) | u8::from(self.clears_above) << 1;
        u64::from_le_bytes([self.software as u8, a, b, c, self.to, self.imm, flags, 0])
    }

    fn unpack(word: u64) -> Self {
        let [software, a, b, c, to, imm, flags, _] = word.to_le_bytes();
        let software = Software::ALL[usize::from(software) % Software::ALL.len()];
        let (wide, clears_above) = (flags & 1 != 0, flags & 2 != 0);
        Self { software, sources: [a, b, c], to, imm, wide, clears_above }
    }
}

fn read(state: &State, place: u8) -> [u64; 4] {
    match place {
        SCRATCH => {
            let [[a, b], [c, d]] = state.scratch;
            [a, b, c, d]
        }
        register => state.vectors[usize::from(register & 15)],
    }
}

/// What, and MXCSR. Gives the new MXCSR.
pub fn vector(state: &mut State, _: &mut dyn GuestMemory, operands: [u64; 3]) -> HelperResult {
    let [what, mut mxcsr, _] = operands;
    let operation = Operation::unpack(what);
    let [a, b, c] = operation.sources.map(|place| read(state, place));
    let imm = operation.imm;
    use Software as S;
    let mut result = match operation.software {
        S::ShlEach32 => words(a, b, |a, count| a.checked_shl(count).unwrap_or(0)),
        S::ShrUEach32 => words(a, b, |a, count| a.checked_shr(count).unwrap_or(0)),
        S::ShrSEach32 => words(a, b, |a, count| (a as i32 >> count.min(31)) as u32),
        S::ShlEach64 => quads(a, b, |a, count| if count < 64 { a << count } else { 0 }),
        S::ShrUEach64 => quads(a, b, |a, count| if count < 64 { a >> count } else { 0 }),
        S::PermuteEach32 => {
            let (indices, values) = (split(a), split(b));
            join(indices.map(|index| values[(index & 7) as usize]))
        }
        S::PermuteEachF32 => {
            let (values, indices) = (split(a), split(b));
            join(std::array::from_fn(|n| values[n & 4 | (indices[n] & 3) as usize]))
        }
        S::PermuteEachF64 => std::array::from_fn(|n| a[n & 2 | (b[n] >> 1 & 1) as usize]),
        S::Sha1Rounds
        | S::Sha1NextE
        | S::Sha1Message1
        | S::Sha1Message2
        | S::Sha256Rounds
        | S::Sha256Message1
        | S::Sha256Message2 => {
            let (a, b) = (split(a), split(b));
            let message = split(state.vectors[0]);
            join(sha(operation.software, a, b, message, imm))
        }
        S::Compare32 | S::CompareLow32 => {
            let low = operation.software == S::CompareLow32;
            vector_float::compare(32, low, operation.wide, a, b, imm, &mut mxcsr)
        }
        S::Compare64 | S::CompareLow64 => {
            let low = operation.software == S::CompareLow64;
            vector_float::compare(64, low, operation.wide, a, b, imm, &mut mxcsr)
        }
        S::FromHalf => vector_float::from_half(a, operation.wide, &mut mxcsr),
        S::ToHalf => vector_float::to_half(a, operation.wide, imm, &mut mxcsr),
        S::Fused => {
            let rest = read(state, operation.to);
            vector_float::fused(Fused(imm), [a, b, c], rest, operation.wide, &mut mxcsr)
        }
    };
    let narrow = !operation.wide || matches!(operation.software, S::ToHalf);
    if narrow {
        let above = if operation.clears_above { [0; 4] } else { read(state, operation.to) };
        result[2..].copy_from_slice(&above[2..]);
    }
    match operation.to {
        SCRATCH => state.scratch = [[result[0], result[1]], [result[2], result[3]]],
        register => state.vectors[usize::from(register & 15)] = result,
    }
    Ok(mxcsr)
}

/// A vector's words.
pub fn split(vector: [u64; 4]) -> [u32; 8] {
    std::array::from_fn(|n| (vector[n / 2] >> (32 * (n % 2))) as u32)
}

/// The vector of words.
pub fn join(words: [u32; 8]) -> [u64; 4] {
    std::array::from_fn(|n| u64::from(words[2 * n + 1]) << 32 | u64::from(words[2 * n]))
}

fn words(a: [u64; 4], b: [u64; 4], each: impl Fn(u32, u32) -> u32) -> [u64; 4] {
    let (a, b) = (split(a), split(b));
    join(std::array::from_fn(|n| each(a[n], b[n])))
}

fn quads(a: [u64; 4], b: [u64; 4], each: impl Fn(u64, u64) -> u64) -> [u64; 4] {
    std::array::from_fn(|n| each(a[n], b[n]))
}

/// The low four words of a SHA instruction; the other words stay zero.
fn sha(what: Software, a: [u32; 8], b: [u32; 8], message: [u32; 8], imm: u8) -> [u32; 8] {
    use Software as S;
    let low = match what {
        S::Sha1Rounds => sha1_rounds(a, b, imm),
        S::Sha1NextE => [b[0], b[1], b[2], b[3].wrapping_add(a[3].rotate_left(30))],
        S::Sha1Message1 => [a[0] ^ b[2], a[1] ^ b[3], a[2] ^ a[0], a[3] ^ a[1]],
        S::Sha1Message2 => {
            let w16 = (a[3] ^ b[2]).rotate_left(1);
            let w17 = (a[2] ^ b[1]).rotate_left(1);
            let w18 = (a[1] ^ b[0]).rotate_left(1);
            [(a[0] ^ w16).rotate_left(1), w18, w17, w16]
        }
        S::Sha256Rounds => sha256_rounds(a, b, message),
        S::Sha256Message1 => {
            let next = [a[1], a[2], a[3], b[0]];
            let sigma = |w: u32| w.rotate_right(7) ^ w.rotate_right(18) ^ w >> 3;
            std::array::from_fn(|n| a[n].wrapping_add(sigma(next[n])))
        }
        _ => {
            let sigma = |w: u32| w.rotate_right(17) ^ w.rotate_right(19) ^ w >> 10;
            let w16 = a[0].wrapping_add(sigma(b[2]));
            let w17 = a[1].wrapping_add(sigma(b[3]));
            let w18 = a[2].wrapping_add(sigma(w16));
            [w16, w17, w18, a[3].wrapping_add(sigma(w17))]
        }
    };
    let mut result = [0; 8];
    result[..4].copy_from_slice(&low);
    result
}

/// Four rounds of SHA-1: `state` is D, C, B, A from the lowest word up; the highest word of `words`
/// has E added already.
fn sha1_rounds(state: [u32; 8], words: [u32; 8], imm: u8) -> [u32; 4] {
    const CONSTANTS: [u32; 4] = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6];
    let [mut d, mut c, mut b, mut a] = [state[0], state[1], state[2], state[3]];
    let mut e = 0_u32;
    for round in 0..4 {
        let f = match imm & 3 {
            0 => b & c ^ !b & d,
            2 => b & c ^ b & d ^ c & d,
            _ => b ^ c ^ d,
        };
        let sum = f
            .wrapping_add(a.rotate_left(5))
            .wrapping_add(words[3 - round])
            .wrapping_add(e)
            .wrapping_add(CONSTANTS[usize::from(imm & 3)]);
        (a, b, c, d, e) = (sum, a, b.rotate_left(30), c, d);
    }
    [d, c, b, a]
}

/// Two rounds of SHA-256: `cdgh` and `abef` hold the state, highest word first.
fn sha256_rounds(cdgh: [u32; 8], abef: [u32; 8], message: [u32; 8]) -> [u32; 4] {
    let [mut h, mut g, mut d, mut c] = [cdgh[0], cdgh[1], cdgh[2], cdgh[3]];
    let [mut f, mut e, mut b, mut a] = [abef[0], abef[1], abef[2], abef[3]];
    for word in &message[..2] {
        let choice = e & f ^ !e & g;
        let sigma1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let first = h.wrapping_add(choice).wrapping_add(sigma1).wrapping_add(*word);
        let majority = a & b ^ a & c ^ b & c;
        let sigma0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let second = majority.wrapping_add(sigma0);
        (a, b, c, d, e, f, g, h) =
            (first.wrapping_add(second), a, b, c, d.wrapping_add(first), e, f, g);
    }
    [f, e, b, a]
}
