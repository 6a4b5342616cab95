//! Interrupts and exceptions: what they are, in which order, and how they enter the guest.

use std::mem;

use super::debug;
use super::descriptor::Descriptor;
use super::helpers::transfer::{
    Stack, code_segment, enter_code, enter_paragraph, inner_stack, load_supervisor,
};
use super::helpers::{fault, protection};
use super::lift::exception;
use super::mode::{attribute, control, eflags};
use super::state::{CS, DS, ES, FS, GS, RSP, SS, Segment, State};
use crate::front_end::{Access, Event, GuestMemory, MemoryFault, Stop};

/// Why an interrupt happens, which decides what is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// A device, or the processor itself.
    Hardware,
    /// INT n: the gate's privilege counts.
    Software,
}

/// Page-fault error code bits.
pub mod page_error {
    /// The page is there; the access is not allowed.
    pub const PROTECTION: u64 = 1;
    /// A write.
    pub const WRITE: u64 = 2;
    /// By level 3.
    pub const USER: u64 = 4;
    /// A reserved bit was set.
    pub const RESERVED: u64 = 8;
    /// An instruction fetch.
    pub const FETCH: u64 = 16;
}

/// The vector and the error code of an event; what else it does to the state. `Err`: the event is
/// none of the processor's.
fn classify(state: &mut State, event: Event) -> Result<(u8, Option<u64>), Event> {
    match event {
        Event::Memory(MemoryFault { access: Access::Divide, .. }) => {
            Ok((exception::DE as u8, None))
        }
        Event::Memory(MemoryFault { access: Access::Unaligned, .. }) => {
            Ok((exception::GP as u8, Some(0)))
        }
        Event::Memory(MemoryFault { address, detail, .. }) => {
            // A non-canonical address has no page to fault.
            if detail == NOT_CANONICAL {
                return Ok((exception::GP as u8, Some(0)));
            }
            state.cr[2] = address;
            Ok((exception::PF as u8, Some(detail)))
        }
        Event::Exception { number, info } => {
            if number == exception::DB {
                state.dr[6] |= info | mem::take(&mut state.trap_due);
                state.dr[7] &= !debug::GENERAL_DETECT;
            }
            Ok((number as u8, has_error_code(number).then_some(info)))
        }
        Event::Breakpoint => Ok((exception::BP as u8, None)),
        Event::Illegal => Ok((exception::UD as u8, None)),
        other @ (Event::SystemCall | Event::Halt) => Err(other),
    }
}

/// The detail of a memory fault at an address that is not canonical.
pub const NOT_CANONICAL: u64 = 1 << 32;

fn has_error_code(vector: u16) -> bool {
    matches!(
        vector,
        exception::DF
            | exception::TS
            | exception::NP
            | exception::SS
            | exception::GP
            | exception::PF
            | exception::AC
    )
}

/// Whether pc stays with the instruction, which no trap, abort or interrupt does. A debug exception
/// can be both, and never says that the instruction is resumed.
fn is_fault(vector: u8) -> bool {
    use exception as x;
    let others = [x::DE, x::BR, x::UD, x::NM, x::PF, x::MF, x::XM];
    has_error_code(vector.into()) && u16::from(vector) != x::DF
        || others.contains(&u16::from(vector))
}

/// Two of these in a row are a double fault; a page fault counts too.
fn contributes(vector: u8) -> bool {
    matches!(
        u16::from(vector),
        exception::DE | exception::TS | exception::NP | exception::SS | exception::GP
    )
}

/// Delivers an event; `Err` gives it back when the guest cannot handle it: a triple fault.
pub fn deliver(state: &mut State, memory: &mut dyn GuestMemory, event: Event) -> Result<(), Event> {
    let (mut vector, mut error) = classify(state, event)?;
    // A third failure shuts the processor down.
    for _ in 0..3 {
        // A faulting instruction is resumed when its handler returns: breakpoints on it are done.
        let resumed = state.eflags & eflags::RF;
        state.eflags |= if is_fault(vector) { eflags::RF } else { 0 };
        let stop = match enter(state, memory, vector, error, Cause::Hardware) {
            Ok(()) | Err(Stop::Lookup) => return Ok(()),
            Err(Stop::Event(event)) => event,
        };
        state.eflags = state.eflags & !eflags::RF | resumed;
        if vector == exception::DF as u8 {
            return Err(event);
        }
        let (second, second_error) = classify(state, stop)?;
        let page = exception::PF as u8;
        let double = (contributes(vector) && contributes(second))
            || (vector == page && (contributes(second) || second == page));
        (vector, error) =
            if double { (exception::DF as u8, Some(0)) } else { (second, second_error) };
    }
    Err(event)
}

/// Enters the handler of a vector. On an error the state is as before, but for CR2.
pub fn enter(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    vector: u8,
    error: Option<u64>,
    cause: Cause,
) -> Result<(), Stop> {
    (state.halted, state.shadow) = (0, 0);
    if state.cr[0] & control::CR0_PE == 0 {
        return enter_real(state, memory, vector);
    }
    if state.is_long_mode() {
        return enter_long(state, memory, vector, error, cause);
    }
    enter_protected(state, memory, vector, error, cause)
}

fn enter_real(state: &mut State, memory: &mut dyn GuestMemory, vector: u8) -> Result<(), Stop> {
    let offset = u64::from(vector) * 4;
    if offset + 3 > state.idtr.limit {
        return protection(u64::from(vector) << 3 | 2);
    }
    let target = load_supervisor(memory, state.idtr.base.wrapping_add(offset), 4)?;
    let mut stack = Stack::of(state);
    stack.push(memory, 2, state.all_flags())?;
    stack.push(memory, 2, state.segments[CS].selector)?;
    stack.push(memory, 2, state.ip())?;
    state.gpr[RSP] = stack.rsp(state.gpr[RSP]);
    state.eflags &= !(eflags::IF | eflags::TF | eflags::RF | eflags::AC);
    enter_paragraph(state, (target >> 16) as u16, target & 0xffff);
    Ok(())
}

/// Bit 0 of an error code: the event came from outside the program; bit 1: the index is the IDT's.
fn gate_error(vector: u8, cause: Cause) -> u64 {
    u64::from(vector) << 3 | 2 | u64::from(cause == Cause::Hardware)
}

/// The gate of a vector, checked.
fn gate(state: &State, vector: u8, cause: Cause, word: u64) -> Result<Descriptor, Stop> {
    let gate = Descriptor(word);
    let error = gate_error(vector, cause);
    let kind = gate.kind();
    let interrupts = if state.is_long_mode() {
        matches!(kind, 14 | 15)
    } else {
        matches!(kind, 6 | 7 | 14 | 15)
    };
    if gate.is_segment() || !interrupts {
        return protection(error);
    }
    if cause == Cause::Software && gate.dpl() < state.cpl() {
        return protection(error);
    }
    if !gate.is_present() {
        return fault(exception::NP, error);
    }
    Ok(gate)
}

/// The handler's code segment, and its privilege level.
fn handler(
    state: &State,
    memory: &mut dyn GuestMemory,
    selector: u16,
    cause: Cause,
) -> Result<(Descriptor, u8), Stop> {
    let external = u64::from(cause == Cause::Hardware);
    if selector & !3 == 0 {
        return protection(external);
    }
    let error = u64::from(selector & !3) | external;
    let found = super::descriptor::read(state, memory, selector, exception::GP)?;
    if !found.is_code() || found.dpl() > state.cpl() {
        return protection(error);
    }
    if !found.is_present() {
        return fault(exception::NP, error);
    }
    let cpl = if found.is_conforming() { state.cpl() } else { found.dpl() };
    Ok((found, cpl))
}

fn enter_protected(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    vector: u8,
    error: Option<u64>,
    cause: Cause,
) -> Result<(), Stop> {
    let offset = u64::from(vector) * 8;
    if offset + 7 > state.idtr.limit {
        return protection(gate_error(vector, cause));
    }
    let word = load_supervisor(memory, state.idtr.base.wrapping_add(offset), 8)?;
    let gate = gate(state, vector, cause, word)?;
    let (found, cpl) = handler(state, memory, gate.gate_selector(), cause)?;
    let bytes = if gate.kind() & 8 != 0 { 4 } else { 2 };
    let virtual_8086 = state.eflags & eflags::VM != 0;
    if virtual_8086 && cpl != 0 {
        return protection(u64::from(gate.gate_selector() & !3));
    }
    let inner = cpl < state.cpl();
    let (segment, mut stack) = if inner {
        inner_stack(state, memory, cpl, 0)?
    } else {
        (state.segments[SS], Stack::of(state))
    };
    if virtual_8086 {
        for number in [GS, FS, DS, ES] {
            stack.push(memory, bytes, state.segments[number].selector)?;
        }
    }
    if inner {
        stack.push(memory, bytes, state.segments[SS].selector)?;
        stack.push(memory, bytes, state.gpr[RSP])?;
    }
    stack.push(memory, bytes, state.all_flags())?;
    stack.push(memory, bytes, state.segments[CS].selector)?;
    stack.push(memory, bytes, state.ip())?;
    if let Some(error) = error {
        stack.push(memory, bytes, error)?;
    }
    state.gpr[RSP] = stack.rsp(state.gpr[RSP]);
    state.segments[SS] = segment;
    if virtual_8086 {
        for number in [GS, FS, DS, ES] {
            state.segments[number] = Segment::default();
        }
    }
    enter_code(state, code_segment(gate.gate_selector(), found, cpl), gate.gate_offset());
    finish(state, gate);
    Ok(())
}

fn enter_long(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    vector: u8,
    error: Option<u64>,
    cause: Cause,
) -> Result<(), Stop> {
    let offset = u64::from(vector) * 16;
    if offset + 15 > state.idtr.limit {
        return protection(gate_error(vector, cause));
    }
    let place = state.idtr.base.wrapping_add(offset);
    let word = load_supervisor(memory, place, 8)?;
    let upper = load_supervisor(memory, place.wrapping_add(8), 8)?;
    let gate = gate(state, vector, cause, word)?;
    let (found, cpl) = handler(state, memory, gate.gate_selector(), cause)?;
    if found.attributes() & attribute::L == 0 {
        return protection(u64::from(gate.gate_selector() & !3));
    }
    let interrupt_stack = (word >> 32 & 7) as u8;
    let (segment, mut stack) = if interrupt_stack != 0 || cpl < state.cpl() {
        inner_stack(state, memory, cpl, interrupt_stack)?
    } else {
        (state.segments[SS], Stack::new(0, u64::MAX, state.gpr[RSP]))
    };
    stack.pointer &= !15;
    let old = [
        state.segments[SS].selector,
        state.gpr[RSP],
        state.all_flags(),
        state.segments[CS].selector,
        state.ip(),
    ];
    for value in old.into_iter().chain(error) {
        stack.push(memory, 8, value)?;
    }
    if cpl < state.cpl() {
        state.segments[SS] = segment;
    }
    state.gpr[RSP] = stack.pointer;
    let target = gate.gate_offset() | upper << 32;
    enter_code(state, code_segment(gate.gate_selector(), found, cpl), target);
    finish(state, gate);
    Ok(())
}

/// The flags in a handler: an interrupt gate closes the door, a trap gate does not.
fn finish(state: &mut State, gate: Descriptor) {
    state.eflags &= !(eflags::TF | eflags::NT | eflags::RF | eflags::VM);
    if gate.kind() & 1 == 0 {
        state.eflags &= !eflags::IF;
    }
}
