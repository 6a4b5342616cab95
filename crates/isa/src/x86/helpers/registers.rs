//! Loads of segment registers and descriptor tables.

use super::{DONE, SUPERVISOR, fault, load, memory_fault, protection, store};
use crate::front_end::{GuestMemory, HelperResult, Stop};
use crate::ir::ZERO;
use crate::x86::descriptor::{self, system_type};
use crate::x86::lift::exception;
use crate::x86::mode::{control, eflags};
use crate::x86::state::{CS, RBP, RSP, SHADOW_OF_STACK, SS, Segment, State};

/// Real or virtual-8086 mode: a selector is a paragraph.
pub fn uses_paragraphs(state: &State) -> bool {
    state.cr[0] & control::CR0_PE == 0 || state.eflags & eflags::VM != 0
}

/// MOV, POP and the like to a segment register: number and selector.
pub fn load_segment(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [number, selector, _]: [u64; 3],
) -> HelperResult {
    let (number, selector) = ((number as usize).min(5), selector as u16);
    if uses_paragraphs(state) {
        let segment = &mut state.segments[number];
        // Limit and attributes stay: that is what makes "unreal" mode.
        segment.selector = u64::from(selector);
        segment.base = u64::from(selector) << 4;
    } else {
        state.segments[number] = data_segment(state, memory, number, selector)?;
    }
    if number == SS {
        state.shadow = SHADOW_OF_STACK;
    }
    DONE
}

/// The segment that a selector gives for a data segment register, with all checks.
pub fn data_segment(
    state: &State,
    memory: &mut dyn GuestMemory,
    number: usize,
    selector: u16,
) -> Result<Segment, Stop> {
    let (rpl, cpl) = ((selector & 3) as u8, state.cpl());
    let error = u64::from(selector & !3);
    if selector & !3 == 0 {
        let allowed = number != SS || (state.is_long_mode() && cpl < 3 && rpl == cpl);
        if !allowed {
            return protection(0);
        }
        // A null stack segment of 64-bit code still tells the privilege level.
        let attributes = if number == SS { u32::from(cpl) << 5 } else { 0 };
        return Ok(Segment { base: 0, limit: 0, attributes, selector: u64::from(selector) });
    }
    let found = descriptor::read(state, memory, selector, exception::GP)?;
    if number == SS {
        if rpl != cpl || found.dpl() != cpl || !found.is_writable() {
            return protection(error);
        }
        if !found.is_present() {
            return fault(exception::SS, error);
        }
    } else {
        let open = found.is_conforming() || (found.dpl() >= cpl && found.dpl() >= rpl);
        if !found.is_readable() || !open {
            return protection(error);
        }
        if !found.is_present() {
            return fault(exception::NP, error);
        }
    }
    descriptor::set_type_bits(state, memory, selector, 1)?;
    Ok(found.segment(selector))
}

/// LGDT (0) and LIDT (1): address of the operand, which table, bytes of the base.
pub fn load_table(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, which, bytes]: [u64; 3],
) -> HelperResult {
    let limit = load(memory, address, 2)?;
    let read = if bytes == 8 { 8 } else { 4 };
    let base = load(memory, address.wrapping_add(2), read)?;
    let base = if bytes == 2 { base & 0xff_ffff } else { base };
    let table = if which == 0 { &mut state.gdtr } else { &mut state.idtr };
    (table.base, table.limit) = (base, limit);
    DONE
}

/// LLDT (0) and LTR (1): selector, which.
pub fn load_system_segment(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [selector, which, _]: [u64; 3],
) -> HelperResult {
    let selector = selector as u16;
    let task = which == 1;
    let error = u64::from(selector & !3);
    if selector & !3 == 0 {
        if task {
            return protection(0);
        }
        state.ldtr = Segment { selector: u64::from(selector), ..Segment::default() };
        return DONE;
    }
    if selector & 4 != 0 {
        return protection(error);
    }
    let found = descriptor::read(state, memory, selector, exception::GP)?;
    let right = match found.kind() {
        kind if task => kind & !8 == system_type::TSS_AVAILABLE & !8,
        kind => kind == system_type::LDT,
    };
    if found.is_segment() || !right {
        return protection(error);
    }
    if !found.is_present() {
        return fault(exception::NP, error);
    }
    let mut segment = found.segment(selector);
    if state.is_long_mode() {
        segment.base |= descriptor::read_upper(state, memory, selector)? << 32;
    }
    if task {
        descriptor::set_type_bits(state, memory, selector, 2)?;
        segment.attributes |= 2;
        state.tr = segment;
    } else {
        state.ldtr = segment;
    }
    DONE
}

/// What the third operand of [`examine_selector`] asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Attributes,
    Limit,
    Readable,
    Writable,
}

/// LAR (0), LSL (1), VERR (2), VERW (3): selector, the old result, which. Sets the zero flag.
pub fn examine_selector(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [selector, old, which]: [u64; 3],
) -> HelperResult {
    if uses_paragraphs(state) {
        return fault(exception::UD, 0);
    }
    let question = match which {
        0 => Question::Attributes,
        1 => Question::Limit,
        2 => Question::Readable,
        _ => Question::Writable,
    };
    state.flags &= !ZERO;
    let selector = selector as u16;
    if selector & !3 == 0 {
        return Ok(old);
    }
    let found = match descriptor::read(state, memory, selector, exception::GP) {
        Ok(found) => found,
        Err(Stop::Event(crate::front_end::Event::Exception { .. })) => return Ok(old),
        Err(stop) => return Err(stop),
    };
    let rpl = (selector & 3) as u8;
    let open = found.is_conforming() || (found.dpl() >= state.cpl() && found.dpl() >= rpl);
    let kind = found.kind();
    let system = match question {
        Question::Attributes => matches!(kind, 1 | 2 | 3 | 4 | 5 | 9 | 11 | 12),
        Question::Limit => matches!(kind, 1 | 2 | 3 | 9 | 11),
        Question::Readable | Question::Writable => false,
    };
    let answer = match question {
        // Processors give the limit's upper bits, too, which the manual leaves undefined.
        Question::Attributes => found.0 >> 32 & 0x00ff_ff00,
        Question::Limit => u64::from(found.limit()),
        Question::Readable => u64::from(found.is_readable()),
        Question::Writable => u64::from(found.is_writable()),
    };
    let asked = matches!(question, Question::Readable | Question::Writable);
    if !open || !(found.is_segment() || system) || (asked && answer == 0) {
        return Ok(old);
    }
    state.flags |= ZERO;
    Ok(if asked { old } else { answer })
}

/// ENTER with nesting: bytes of a word, level, bytes of the frame.
pub fn enter(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [word, level, bytes]: [u64; 3],
) -> HelperResult {
    let mask = stack_mask(state);
    let base = stack_base(state);
    let word_bytes = word as u32;
    let mut pointer = state.gpr[RSP];
    let mut frame = state.gpr[RBP];
    let at = |offset: u64| base.wrapping_add(offset & mask);
    pointer = pointer.wrapping_sub(word);
    store(memory, at(pointer), word_bytes, frame)?;
    let new_frame = pointer;
    for _ in 1..level {
        frame = frame.wrapping_sub(word);
        pointer = pointer.wrapping_sub(word);
        let display = load(memory, at(frame), word_bytes)?;
        store(memory, at(pointer), word_bytes, display)?;
    }
    pointer = pointer.wrapping_sub(word);
    store(memory, at(pointer), word_bytes, new_frame & mask)?;
    let wide = |old: u64, new: u64| old & !mask & 0xffff | new & mask;
    state.gpr[RBP] = wide(state.gpr[RBP], new_frame);
    state.gpr[RSP] = wide(state.gpr[RSP], pointer.wrapping_sub(bytes));
    DONE
}

/// The bits of RSP that count.
pub fn stack_mask(state: &State) -> u64 {
    use crate::x86::mode::attribute;
    if state.is_long_mode() && state.segments[CS].attributes & attribute::L != 0 {
        u64::MAX
    } else if state.segments[SS].attributes & attribute::D != 0 {
        0xffff_ffff
    } else {
        0xffff
    }
}

/// The base of the stack.
pub fn stack_base(state: &State) -> u64 {
    if stack_mask(state) == u64::MAX { 0 } else { state.segments[SS].base }
}

/// Reads a word of the task-state segment.
pub fn read_task(
    state: &State,
    memory: &mut dyn GuestMemory,
    offset: u64,
    bytes: u32,
) -> Result<u64, Stop> {
    if offset + u64::from(bytes) > u64::from(state.tr.limit) + 1 {
        return fault(exception::TS, state.tr.selector & !3);
    }
    memory.load(state.tr.base.wrapping_add(offset), bytes, SUPERVISOR).map_err(memory_fault)
}
