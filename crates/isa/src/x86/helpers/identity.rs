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
    memory: &mut dyn GuestMemory,
    [abilities, ..]: [u64; 3],
) -> HelperResult {
    let (leaf, subleaf) = (state.gpr[RAX] as u32, state.gpr[RCX] as u32);
    let own = cpuid::answer(state, cpuid::Abilities(abilities), leaf, subleaf);
    let [a, b, c, d] = match told(state, memory, leaf, subleaf) {
        Some(told) => with_state(told, own, leaf, subleaf),
        None => own,
    };
    for (register, value) in [(RAX, a), (RBX, b), (RCX, c), (RDX, d)] {
        state.gpr[register] = u64::from(value);
    }
    Ok(0)
}

/// What the machine says that its processors are.
fn told(state: &State, memory: &mut dyn GuestMemory, leaf: u32, subleaf: u32) -> Option<[u32; 4]> {
    if state.msr.apic_count == 0 {
        return None; // a program of its own
    }
    let place = u64::from(leaf) | u64::from(subleaf & 0xffff) << 32;
    let mut half = |which: u64| memory.machine_read(IDENTITY_SPACE, place | which << 48, 8);
    if half(IDENTITY_TOLD) != 1 {
        return None;
    }
    let (low, high) = (half(0), half(1));
    Some([low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32])
}

/// What changes with the registers comes from here in any case.
fn with_state(mut told: [u32; 4], own: [u32; 4], leaf: u32, subleaf: u32) -> [u32; 4] {
    const XSAVE: u32 = 1 << 26;
    const OSXSAVE: u32 = 1 << 27;
    match (leaf, subleaf) {
        (1, _) => {
            told[2] &= !OSXSAVE;
            if told[2] & XSAVE != 0 {
                told[2] |= own[2] & OSXSAVE;
            }
        }
        (0xd, 0 | 1) if told[0] != 0 => told[1] = own[1],
        _ => {}
    }
    told
}

/// The machine space that reads as what CPUID answers: leaf, subleaf in bits 32 to 47, and behind
/// them 0 for EAX and EBX, 1 for ECX and EDX, and [`IDENTITY_TOLD`].
pub const IDENTITY_SPACE: u32 = 3;
/// Reads as 1 where the machine has something to say of the leaf.
pub const IDENTITY_TOLD: u64 = 2;

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
