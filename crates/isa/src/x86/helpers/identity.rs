//! What the processor says of itself: CPUID, XGETBV, the time-stamp counter, random numbers.

use super::{fault, protection};
use crate::front_end::{GuestMemory, HelperResult};
use crate::x86::cpuid;
use crate::x86::lift::exception;
use crate::x86::mode::control;
use crate::x86::state::{RAX, RBX, RCX, RDX, State};

/// The frequency of the time-stamp counter, which CPUID tells: one tick a nanosecond.
pub const TSC_HZ: u64 = 1_000_000_000;

/// CPUID.
pub fn cpuid(state: &mut State, _: &mut dyn GuestMemory, _: [u64; 3]) -> HelperResult {
    let [a, b, c, d] = cpuid::answer(state, state.gpr[RAX] as u32, state.gpr[RCX] as u32);
    for (register, value) in [(RAX, a), (RBX, b), (RCX, c), (RDX, d)] {
        state.gpr[register] = u64::from(value);
    }
    Ok(0)
}

/// XGETBV: XCR0 is the only one.
pub fn xgetbv(state: &mut State, _: &mut dyn GuestMemory, _: [u64; 3]) -> HelperResult {
    if state.cr[4] & control::CR4_OSXSAVE == 0 {
        return fault(exception::UD, 0);
    }
    if state.gpr[RCX] as u32 != 0 {
        return protection(0);
    }
    (state.gpr[RAX], state.gpr[RDX]) = (state.xcr0 & 0xffff_ffff, state.xcr0 >> 32);
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
