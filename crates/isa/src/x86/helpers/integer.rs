//! Rotations through carry, and atomic operations that the IR does not have.

use super::{DONE, load, memory_fault, store};
use crate::front_end::{GuestMemory, HelperResult};
use crate::ir::{CARRY, OVERFLOW, STATUS};
use crate::x86::state::State;

/// Atomic operations by helper.
#[derive(Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the manual's names")]
pub enum Locked {
    Adc,
    Sbb,
    Neg,
}

fn ones(bytes: u32) -> u64 {
    u64::MAX >> (64 - 8 * bytes.clamp(1, 8))
}

/// RCL: a value (or, with 0x100 in the third operand, an address), a masked count, the width.
pub fn rcl(state: &mut State, memory: &mut dyn GuestMemory, args: [u64; 3]) -> HelperResult {
    rotate(state, memory, args, true)
}

/// RCR: as RCL.
pub fn rcr(state: &mut State, memory: &mut dyn GuestMemory, args: [u64; 3]) -> HelperResult {
    rotate(state, memory, args, false)
}

fn rotate(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [place, count, what]: [u64; 3],
    left: bool,
) -> HelperResult {
    let bytes = (what & 0xff) as u32;
    let in_memory = what & 0x100 != 0;
    let value = if in_memory { load(memory, place, bytes)? } else { place & ones(bytes) };
    let (result, flags) = rotated(value, count as u32, bytes * 8, state.flags, left);
    if in_memory {
        store(memory, place, bytes, result)?;
    }
    state.flags = flags;
    Ok(result)
}

/// The value and the flags after a rotation of `width + 1` bits.
fn rotated(value: u64, count: u32, width: u32, flags: u64, left: bool) -> (u64, u64) {
    let count = count % (width + 1);
    if count == 0 {
        return (value, flags);
    }
    let all = u128::from(value) | u128::from(flags & CARRY) << width;
    let mask = (1_u128 << (width + 1)) - 1;
    let turned = if left {
        (all << count | all >> (width + 1 - count)) & mask
    } else {
        (all >> count | all << (width + 1 - count)) & mask
    };
    let (result, carry) = (turned as u64 & ones(width / 8), (turned >> width) as u64 & 1);
    let top = result >> (width - 1) & 1;
    // Left: the top bit against the carry; right: the two top bits. For one bit that is defined.
    let overflow = if left { top ^ carry } else { top ^ (result >> (width - 2) & 1) };
    let kept = flags & STATUS & !(CARRY | OVERFLOW);
    (result, kept | carry | overflow << OVERFLOW.trailing_zeros())
}

/// An atomic operation: address, operand, width and [`Locked`].
pub fn locked(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, operand, what]: [u64; 3],
) -> HelperResult {
    let (bytes, carry) = ((what >> 8) as u32, state.flags & CARRY);
    let neg = what & 0xff == Locked::Neg as u64;
    let subtract = neg || what & 0xff == Locked::Sbb as u64;
    loop {
        let old = load(memory, address, bytes)?;
        let (a, b, c) = if neg { (0, old, 0) } else { (old, operand, carry) };
        let new = if subtract {
            a.wrapping_sub(b).wrapping_sub(c)
        } else {
            a.wrapping_add(b).wrapping_add(c)
        } & ones(bytes);
        let seen = memory
            .compare_exchange(address, bytes, u128::from(old), u128::from(new), 0)
            .map_err(memory_fault)?;
        if seen as u64 == old {
            state.flags = sum_flags(a, b, c, new, bytes * 8, subtract);
            return DONE;
        }
    }
}

/// The flags of a comparison.
pub fn difference_flags(a: u64, b: u64, width: u32) -> u64 {
    sum_flags(a, b, 0, a.wrapping_sub(b) & ones(width / 8), width, true)
}

/// The flags of `a + b + c` or `a - b - c`.
fn sum_flags(a: u64, b: u64, c: u64, result: u64, width: u32, subtract: bool) -> u64 {
    let mask = ones(width / 8);
    let (a, b) = (a & mask, b & mask);
    let carry = if subtract {
        u128::from(a) < u128::from(b) + u128::from(c)
    } else {
        u128::from(a) + u128::from(b) + u128::from(c) > u128::from(mask)
    };
    let changed = if subtract { (a ^ b) & (a ^ result) } else { !(a ^ b) & (a ^ result) };
    let overflow = changed >> (width - 1) & 1;
    super::decimal::result_flags(result, width)
        | u64::from(carry)
        | (a ^ b ^ result) & crate::ir::ADJUST
        | overflow << OVERFLOW.trailing_zeros()
}

/// The bits of `value` under `mask`, gathered at the low end.
pub fn pext(_: &mut State, _: &mut dyn GuestMemory, [value, mask, _]: [u64; 3]) -> HelperResult {
    let chosen = (0..64).filter(|bit| mask >> bit & 1 != 0);
    Ok(chosen.enumerate().fold(0, |result, (to, from)| result | (value >> from & 1) << to))
}

/// The low bits of `value`, scattered to where `mask` has ones.
pub fn pdep(_: &mut State, _: &mut dyn GuestMemory, [value, mask, _]: [u64; 3]) -> HelperResult {
    let chosen = (0..64).filter(|bit| mask >> bit & 1 != 0);
    Ok(chosen.enumerate().fold(0, |result, (from, to)| result | (value >> from & 1) << to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_go_through_the_carry() {
        // value, count, width, carry in, left; result, carry out
        for (value, count, width, carry, left, result, out) in [
            (0x80, 1, 8, 0, true, 0x00, 1),
            (0x80, 1, 8, 1, true, 0x01, 1),
            (0x01, 1, 8, 1, false, 0x80, 1),
            (0xabcd, 17, 16, 1, true, 0xabcd, 1),
            (1, 63, 64, 0, false, 4, 0),
        ] {
            let (got, flags) = rotated(value, count, width, carry, left);
            assert_eq!((got, flags & CARRY), (result, out), "{value:#x} {count} {width}");
        }
    }
}
