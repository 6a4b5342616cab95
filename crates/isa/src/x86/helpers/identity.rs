//! What the processor says of itself: CPUID, XGETBV, the time-stamp counter, random numbers.

use super::{fault, protection};
use crate::front_end::{GuestMemory, HelperResult};
use crate::x86::cpuid;
use crate::x86::lift::exception;
use crate::x86::mode::control;
use crate::x86::state::{RAX, RBX, RCX, RDX, State};

/// The frequency of the time-stamp counter, which CPUID tells: one tick a nanosecond.
pub const TSC_HZ: u64 = 1_000_000_000;

/// CPUID; the first operand is what the back end can do, as [`cpuid::Abilities`].
pub fn cpuid(
    state: &mut State,
    _: &mut dyn GuestMemory,
    [abilities, ..]: [u64; 3],
) -> HelperResult {
    let (leaf, subleaf) = (state.gpr[RAX] as u32, state.gpr[RCX] as u32);
    let [a, b, c, d] = cpuid::answer(state, cpuid::Abilities(abilities), leaf, subleaf);
    for (register, value) in [(RAX, a), (RBX, b), (RCX, c), (RDX, d)] {
        state.gpr[register] = u64::from(value);
    }
    Ok(0)
}

/// XGETBV: XCR0, or with 1 the components of it that are in use.
pub fn xgetbv(state: &mut State, _: &mut dyn GuestMemory, _: [u64; 3]) -> HelperResult {
    if state.cr[4] & control::CR4_OSXSAVE == 0 {
        return fault(exception::UD, 0);
    }
    let value = match state.gpr[RCX] as u32 {
        0 => state.xcr0,
        1 => state.xcr0 & state.components_in_use(),
        _ => return protection(0),
    };
    (state.gpr[RAX], state.gpr[RDX]) = (value & 0xffff_ffff, value >> 32);
    Ok(0)
}

/// The time-stamp counter.
pub fn time_stamp(state: &State, memory: &mut dyn GuestMemory) -> u64 {
    memory.clock_ns().wrapping_add(state.msr.tsc_offset)
}

/// RDTSC, and RDTSCP when the first operand says so.
pub fn rdtsc(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [with_number, ..]: [u64; 3],
) -> HelperResult {
    const CR4_TSD: u64 = 4;
    if state.cr[4] & CR4_TSD != 0 && state.cpl() != 0 {
        return protection(0);
    }
    let now = time_stamp(state, memory);
    (state.gpr[RAX], state.gpr[RDX]) = (now & 0xffff_ffff, now >> 32);
    if with_number & 1 != 0 {
        state.gpr[RCX] = state.msr.tsc_aux & 0xffff_ffff;
    }
    Ok(0)
}

/// RDRAND and RDSEED. The state of the generator is the machine's own: space 1 of the machine is
/// its entropy.
pub fn random(_: &mut State, memory: &mut dyn GuestMemory, _: [u64; 3]) -> HelperResult {
    Ok(memory.machine_read(ENTROPY_SPACE, 0, 8))
}

/// The machine space that reads as random numbers.
pub const ENTROPY_SPACE: u32 = 1;
