//! Debug registers: the manual's volume 3B, 17.2 and 17.3.
//!
//! Breakpoints on instructions and ports make a mode of their own, in which each instruction is
//! looked up before it is executed. Watched memory costs nothing but its pages: they stay out of the
//! TLB, see `FrontEnd::watches`.

use super::mode::{control, eflags};
use super::state::{SHADOW_OF_STACK, State};
use crate::front_end::{Access, Watched};

/// DR6.BD: an access to a debug register while DR7.GD forbids it.
pub const REGISTER_ACCESS: u64 = 1 << 13;
/// DR6.BS: a single step.
pub const SINGLE_STEPPED: u64 = 1 << 14;
/// DR7.GD: the next access to a debug register is an exception.
pub const GENERAL_DETECT: u64 = 1 << 13;

/// The local and global enable bits of all four.
const ENABLED: u64 = 0xff;

/// What a breakpoint is on: DR7's R/W field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum On {
    Execution,
    Write,
    Port,
    ReadOrWrite,
}

/// One that is enabled.
#[derive(Clone, Copy, Debug)]
struct Breakpoint {
    number: usize,
    on: On,
    start: u64,
    bytes: u64,
}

impl Breakpoint {
    /// Its bit in DR6.
    fn bit(&self) -> u64 {
        1 << self.number
    }

    fn touches(&self, address: u64, bytes: u64) -> bool {
        let last = |start: u64, bytes: u64| start.saturating_add(bytes.max(1) - 1);
        address <= last(self.start, self.bytes) && self.start <= last(address, bytes)
    }

    fn watches_memory(&self) -> bool {
        matches!(self.on, On::Write | On::ReadOrWrite)
    }
}

fn breakpoint(state: &State, number: usize) -> Option<Breakpoint> {
    let control = state.dr[7];
    if control >> (2 * number) & 3 == 0 {
        return None;
    }
    let field = control >> (16 + 4 * number) & 15;
    let on = match field & 3 {
        0 => On::Execution,
        1 => On::Write,
        2 if state.cr[4] & control::CR4_DE == 0 => return None,
        2 => On::Port,
        _ => On::ReadOrWrite,
    };
    let bytes = [1, 2, 8, 4][(field >> 2) as usize];
    let start =
        if on == On::Execution { state.dr[number] } else { state.dr[number] & !(bytes - 1) };
    Some(Breakpoint { number, on, start, bytes })
}

/// Those that are enabled.
fn enabled(state: &State) -> impl Iterator<Item = Breakpoint> + '_ {
    let some = state.dr[7] & ENABLED != 0;
    (0..if some { 4 } else { 0 }).filter_map(|number| breakpoint(state, number))
}

/// Whether a breakpoint is on instructions or ports.
pub fn looks_at_instructions(state: &State) -> bool {
    state.dr[7] & ENABLED != 0 && enabled(state).any(|breakpoint| !breakpoint.watches_memory())
}

/// The bits for DR6 of an instruction that is about to be executed; 0: it may be.
pub fn before_instruction(state: &State, pc: u64) -> u64 {
    if state.eflags & eflags::RF != 0 || state.shadow == SHADOW_OF_STACK {
        return 0;
    }
    hits(state, |breakpoint| breakpoint.on == On::Execution && breakpoint.start == pc)
}

/// A port was read or written: the trap comes behind the instruction.
pub fn port_accessed(state: &mut State, port: u64, bytes: u64) {
    state.trap_due |=
        hits(state, |breakpoint| breakpoint.on == On::Port && breakpoint.touches(port, bytes));
}

fn hits(state: &State, is_hit: impl Fn(&Breakpoint) -> bool) -> u64 {
    enabled(state).filter(is_hit).fold(0, |bits, breakpoint| bits | breakpoint.bit())
}

/// The memory that is watched.
pub fn watched(state: &State) -> [Option<Watched>; 4] {
    let mut all = [None; 4];
    for found in enabled(state).filter(Breakpoint::watches_memory) {
        let reads = found.on == On::ReadOrWrite;
        all[found.number] = Some(Watched { start: found.start, bytes: found.bytes, reads });
    }
    all
}

/// The bits for DR6 of an access to memory.
pub fn memory_hits(state: &State, address: u64, bytes: u64, access: Access) -> u64 {
    hits(state, |breakpoint| {
        let kind = breakpoint.on == On::ReadOrWrite
            || (breakpoint.on == On::Write && access == Access::Write);
        kind && breakpoint.touches(address, bytes)
    })
}

/// Whether memory within this distance is watched.
pub fn watches_near(state: &State, address: u64, distance: u64) -> bool {
    let near = |found: Breakpoint| found.start.abs_diff(address) <= distance.saturating_add(8);
    enabled(state).filter(Breakpoint::watches_memory).any(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(addresses: [u64; 4], control: u64) -> State {
        let mut state = State::default();
        state.dr[..4].copy_from_slice(&addresses);
        state.dr[7] = control;
        state
    }

    #[test]
    fn instructions_hit_by_address_unless_they_are_resumed() {
        let mut state = state([0x1000, 0x1000, 0x1000, 0], 1 << 0 | 1 << 3);
        assert!(looks_at_instructions(&state));
        assert_eq!(
            (before_instruction(&state, 0x1000), before_instruction(&state, 0x1001)),
            (3, 0)
        );
        state.shadow = SHADOW_OF_STACK;
        assert_eq!(before_instruction(&state, 0x1000), 0);
        (state.shadow, state.eflags) = (1, state.eflags | eflags::RF);
        assert_eq!(before_instruction(&state, 0x1000), 0);
    }

    #[test]
    fn memory_hits_by_kind_length_and_alignment() {
        // DR0: write, 4 bytes; DR1: read or write, 8 bytes; DR2: write, 1 byte, not enabled.
        let control = 1 | 1 << 2 | 0b1101 << 16 | 0b1011 << 20 | 0b0001 << 24;
        let state = state([0x1003, 0x2000, 0x1000, 0], control);
        for (address, bytes, access, bits) in [
            (0xfff, 1, Access::Write, 0),
            (0xffd, 4, Access::Write, 1),
            (0x1003, 1, Access::Write, 1),
            (0x1003, 1, Access::Read, 0),
            (0x2007, 1, Access::Read, 2),
            (0x2008, 8, Access::Write, 0),
        ] {
            assert_eq!(memory_hits(&state, address, bytes, access), bits, "{address:#x}");
        }
        assert!(!looks_at_instructions(&state));
        assert_eq!(watched(&state).iter().flatten().count(), 2);
        assert!(watches_near(&state, 0x1ff0, 0x10) && !watches_near(&state, 0x3000, 0x10));
    }

    #[test]
    fn ports_hit_only_with_the_extension_on() {
        let mut state = state([0, 0, 0, 0x60], 1 << 7 | 0b0010 << 28);
        port_accessed(&mut state, 0x60, 1);
        assert_eq!((state.trap_due, looks_at_instructions(&state)), (0, false));
        state.cr[4] |= control::CR4_DE;
        port_accessed(&mut state, 0x61, 1);
        assert_eq!((state.trap_due, looks_at_instructions(&state)), (0, true));
        port_accessed(&mut state, 0x5f, 2);
        assert_eq!(state.trap_due, 8);
    }
}
