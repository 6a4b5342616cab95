//! Decimal adjustment, for 16- and 32-bit code.

use super::fault;
use crate::front_end::{GuestMemory, HelperResult};
use crate::ir::{ADJUST, CARRY, PARITY, SIGN, STATUS, ZERO};
use crate::x86::lift::exception;
use crate::x86::state::{RAX, State};

/// Sign, zero and parity of a result.
pub fn result_flags(result: u64, width: u32) -> u64 {
    let zero = if result == 0 { ZERO } else { 0 };
    let sign = if result >> (width - 1) & 1 != 0 { SIGN } else { 0 };
    let parity = if (result as u8).count_ones().is_multiple_of(2) { PARITY } else { 0 };
    zero | sign | parity
}

fn set_al(state: &mut State, al: u8) {
    state.gpr[RAX] = state.gpr[RAX] & !0xff | u64::from(al);
}

fn set_ax(state: &mut State, ax: u16) {
    state.gpr[RAX] = state.gpr[RAX] & !0xffff | u64::from(ax);
}

/// Decimal adjust after addition.
pub fn daa(state: &mut State, _: &mut dyn GuestMemory, _: [u64; 3]) -> HelperResult {
    adjust_packed(state, u8::wrapping_add)
}

/// Decimal adjust after subtraction.
pub fn das(state: &mut State, _: &mut dyn GuestMemory, _: [u64; 3]) -> HelperResult {
    adjust_packed(state, u8::wrapping_sub)
}

fn adjust_packed(state: &mut State, step: fn(u8, u8) -> u8) -> HelperResult {
    let (old, flags) = (state.gpr[RAX] as u8, state.flags);
    let (mut al, mut new) = (old, 0);
    if old & 15 > 9 || flags & ADJUST != 0 {
        al = step(al, 6);
        new |= ADJUST;
        // DAS: a borrow out of the low digit of a byte that was below 6.
        if step(8, 1) == 7 && old < 6 {
            new |= CARRY;
        }
    }
    if old > 0x99 || flags & CARRY != 0 {
        al = step(al, 0x60);
        new |= CARRY;
    }
    set_al(state, al);
    state.flags = new | result_flags(u64::from(al), 8);
    Ok(0)
}

/// ASCII adjust after addition.
pub fn aaa(state: &mut State, _: &mut dyn GuestMemory, _: [u64; 3]) -> HelperResult {
    adjust_unpacked(state, u16::wrapping_add)
}

/// ASCII adjust after subtraction.
pub fn aas(state: &mut State, _: &mut dyn GuestMemory, _: [u64; 3]) -> HelperResult {
    adjust_unpacked(state, u16::wrapping_sub)
}

fn adjust_unpacked(state: &mut State, step: fn(u16, u16) -> u16) -> HelperResult {
    let mut ax = state.gpr[RAX] as u16;
    let carries = ax & 15 > 9 || state.flags & ADJUST != 0;
    if carries {
        ax = step(ax, 0x106);
    }
    set_ax(state, ax & 0xff0f);
    let kept = state.flags & STATUS & !(CARRY | ADJUST);
    state.flags = kept | if carries { CARRY | ADJUST } else { 0 };
    Ok(0)
}

/// ASCII adjust after multiplication: digits of a base.
pub fn aam(state: &mut State, _: &mut dyn GuestMemory, [base, ..]: [u64; 3]) -> HelperResult {
    let (al, base) = (state.gpr[RAX] as u8, base as u8);
    if base == 0 {
        return fault(exception::DE, 0);
    }
    set_ax(state, u16::from_le_bytes([al % base, al / base]));
    state.flags = result_flags(u64::from(al % base), 8);
    Ok(0)
}

/// ASCII adjust before division.
pub fn aad(state: &mut State, _: &mut dyn GuestMemory, [base, ..]: [u64; 3]) -> HelperResult {
    let [al, ah] = (state.gpr[RAX] as u16).to_le_bytes();
    let al = ah.wrapping_mul(base as u8).wrapping_add(al);
    set_ax(state, u16::from(al));
    state.flags = result_flags(u64::from(al), 8);
    Ok(0)
}
