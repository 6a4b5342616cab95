//! Control transfers between segments and privilege levels: far jumps, calls and returns, IRET,
//! SYSCALL and SYSENTER. Interrupts and exceptions are in `events.rs`.

use super::registers::{data_segment, read_task, stack_base, stack_mask, uses_paragraphs};
use super::{SUPERVISOR, fault, memory_fault, protection};
use crate::front_end::{GuestMemory, HelperResult, Stop};
use crate::x86::debug;
use crate::x86::descriptor::{self, Descriptor, system_type};
use crate::x86::events;
use crate::x86::lift::exception;
use crate::x86::mode::{attribute, control, eflags};
use crate::x86::state::{CS, DS, ES, FS, GS, RCX, RDX, RSP, SS, Segment, State};

/// The result of a helper that has changed pc and perhaps the mode.
const LOOKUP: HelperResult = Err(Stop::Lookup);

/// A stack being pushed to or popped from; the state changes only when all accesses have worked.
pub struct Stack {
    base: u64,
    mask: u64,
    view: u16,
    /// RSP as it will be.
    pub pointer: u64,
}

impl Stack {
    /// The present stack.
    pub fn of(state: &State) -> Self {
        let mask = stack_mask(state);
        Self { base: stack_base(state), mask, view: 0, pointer: state.gpr[RSP] }
    }

    /// A stack of another privilege level.
    pub fn new(base: u64, mask: u64, pointer: u64) -> Self {
        Self { base, mask, view: SUPERVISOR, pointer }
    }

    /// Pushes a word.
    pub fn push(
        &mut self,
        memory: &mut dyn GuestMemory,
        bytes: u32,
        value: u64,
    ) -> Result<(), Stop> {
        let pointer = self.pointer.wrapping_sub(u64::from(bytes));
        let address = self.base.wrapping_add(pointer & self.mask);
        memory.store(address, bytes, value, self.view).map_err(memory_fault)?;
        self.pointer = pointer;
        Ok(())
    }

    /// Pops a word.
    pub fn pop(&mut self, memory: &mut dyn GuestMemory, bytes: u32) -> Result<u64, Stop> {
        let address = self.base.wrapping_add(self.pointer & self.mask);
        let value = memory.load(address, bytes, self.view).map_err(memory_fault)?;
        self.pointer = self.pointer.wrapping_add(u64::from(bytes));
        Ok(value)
    }

    /// RSP with the part replaced that this stack's width covers.
    pub fn rsp(&self, old: u64) -> u64 {
        match self.mask {
            0xffff => old & !0xffff | self.pointer & 0xffff,
            mask => self.pointer & mask,
        }
    }
}

/// The code segment that a far transfer to `selector` reaches, for a new privilege level of `cpl`.
pub fn code_segment(selector: u16, found: Descriptor, cpl: u8) -> Segment {
    found.segment(selector & !3 | u16::from(cpl))
}

/// Goes to `offset` in a code segment.
pub fn enter_code(state: &mut State, segment: Segment, offset: u64) {
    let long = state.is_long_mode() && segment.attributes & attribute::L != 0;
    state.segments[CS] = segment;
    state.pc = if long { offset } else { segment.base.wrapping_add(offset & 0xffff_ffff) };
}

/// Goes to a paragraph, in real and virtual-8086 mode.
pub fn enter_paragraph(state: &mut State, selector: u16, offset: u64) {
    let segment = &mut state.segments[CS];
    segment.selector = u64::from(selector);
    segment.base = u64::from(selector) << 4;
    state.pc = segment.base + (offset & 0xffff);
}

/// Checks that a jump or call may reach a code segment; gives the privilege level there.
fn check_code(state: &State, selector: u16, found: Descriptor) -> Result<u8, Stop> {
    let (cpl, rpl) = (state.cpl(), (selector & 3) as u8);
    let error = u64::from(selector & !3);
    let allowed = if found.is_conforming() {
        found.dpl() <= cpl
    } else {
        found.is_code() && found.dpl() == cpl && rpl <= cpl
    };
    let both = attribute::L | attribute::D;
    if !allowed || (state.is_long_mode() && found.attributes() & both == both) {
        return protection(error);
    }
    if !found.is_present() {
        return fault(exception::NP, error);
    }
    Ok(cpl)
}

/// A transfer that is single-stepped traps at its target.
fn stepped(state: &mut State, transfer: impl FnOnce(&mut State) -> HelperResult) -> HelperResult {
    let traps = state.eflags & eflags::TF != 0;
    let result = transfer(state);
    if matches!(result, Err(Stop::Lookup)) {
        state.shadow = 0;
        if traps {
            state.trap_due |= debug::SINGLE_STEPPED;
        }
    }
    result
}

macro_rules! stepped {
    ($($(#[$doc:meta])* $name:ident $function:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(
            state: &mut State,
            memory: &mut dyn GuestMemory,
            arguments: [u64; 3],
        ) -> HelperResult {
            stepped(state, |state| $function(state, memory, arguments))
        }
    )*};
}

stepped! {
    /// JMP far: selector, offset, word size.
    far_jump jump;
    /// CALL far: selector, offset, word size and the instruction's length.
    far_call call;
    /// RET far: word size, bytes to drop.
    far_return far_back;
    /// IRET: word size.
    interrupt_return iret;
    /// SYSENTER.
    system_enter sysenter;
    /// SYSEXIT: word size.
    system_exit sysexit;
}

/// SYSCALL and SYSRET: the trap flag counts as it is when they are done, as if it were for the
/// program's SYSCALL.
fn traps_by_its_own_flags(state: &mut State) -> HelperResult {
    state.shadow = 0;
    if state.eflags & eflags::TF != 0 {
        state.trap_due |= debug::SINGLE_STEPPED;
    }
    LOOKUP
}

fn jump(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [selector, offset, _]: [u64; 3],
) -> HelperResult {
    let selector = selector as u16;
    if uses_paragraphs(state) {
        enter_paragraph(state, selector, offset);
        return LOOKUP;
    }
    if selector & !3 == 0 {
        return protection(0);
    }
    let found = descriptor::read(state, memory, selector, exception::GP)?;
    if found.is_segment() {
        let cpl = check_code(state, selector, found)?;
        descriptor::set_type_bits(state, memory, selector, 1)?;
        enter_code(state, code_segment(selector, found, cpl), offset);
        return LOOKUP;
    }
    let gate = gate(state, memory, selector, found)?;
    let target = descriptor::read(state, memory, gate.selector, exception::GP)?;
    let cpl = check_code(state, gate.selector & !3, target)?;
    enter_code(state, code_segment(gate.selector, target, cpl), gate.offset);
    LOOKUP
}

struct Gate {
    selector: u16,
    offset: u64,
    /// Bytes of a word on the new stack.
    word: u32,
    parameters: u64,
}

/// A call gate. Task gates and task switches are not implemented: they fault.
fn gate(
    state: &State,
    memory: &mut dyn GuestMemory,
    selector: u16,
    found: Descriptor,
) -> Result<Gate, Stop> {
    let error = u64::from(selector & !3);
    let is_gate = found.kind() & !8 == system_type::CALL_GATE & !8;
    let visible = found.dpl() >= state.cpl() && found.dpl() >= (selector & 3) as u8;
    if !is_gate || !visible {
        return protection(error);
    }
    if !found.is_present() {
        return fault(exception::NP, error);
    }
    let mut offset = found.gate_offset();
    let word = if state.is_long_mode() {
        offset |= descriptor::read_upper(state, memory, selector)? << 32;
        8
    } else if found.kind() & 8 != 0 {
        4
    } else {
        2
    };
    let parameters = if word == 8 { 0 } else { found.0 >> 32 & 31 };
    Ok(Gate { selector: found.gate_selector(), offset, word, parameters })
}

/// CALL far: selector, offset, word size with the instruction's length above it.
fn call(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [selector, offset, what]: [u64; 3],
) -> HelperResult {
    let (selector, word) = (selector as u16, (what & 0xff) as u32);
    let back = state.ip().wrapping_add(what >> 8);
    let mut stack = Stack::of(state);
    let old_cs = state.segments[CS].selector;
    if uses_paragraphs(state) {
        stack.push(memory, word, old_cs)?;
        stack.push(memory, word, back)?;
        state.gpr[RSP] = stack.rsp(state.gpr[RSP]);
        enter_paragraph(state, selector, offset);
        return LOOKUP;
    }
    if selector & !3 == 0 {
        return protection(0);
    }
    let found = descriptor::read(state, memory, selector, exception::GP)?;
    if !found.is_segment() {
        return call_gate(state, memory, selector, found, back);
    }
    let cpl = check_code(state, selector, found)?;
    stack.push(memory, word, old_cs)?;
    stack.push(memory, word, back)?;
    descriptor::set_type_bits(state, memory, selector, 1)?;
    state.gpr[RSP] = stack.rsp(state.gpr[RSP]);
    enter_code(state, code_segment(selector, found, cpl), offset);
    LOOKUP
}

fn call_gate(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    selector: u16,
    found: Descriptor,
    back: u64,
) -> HelperResult {
    let gate = gate(state, memory, selector, found)?;
    let target = descriptor::read(state, memory, gate.selector, exception::GP)?;
    let inner = target.is_code() && !target.is_conforming() && target.dpl() < state.cpl();
    let old_cs = state.segments[CS].selector;
    if !inner {
        let cpl = check_code(state, gate.selector & !3, target)?;
        let mut stack = Stack::of(state);
        stack.push(memory, gate.word, old_cs)?;
        stack.push(memory, gate.word, back)?;
        state.gpr[RSP] = stack.rsp(state.gpr[RSP]);
        enter_code(state, code_segment(gate.selector, target, cpl), gate.offset);
        return LOOKUP;
    }
    let cpl = target.dpl();
    let old = Stack::of(state);
    let (segment, mut stack) = inner_stack(state, memory, cpl, 0)?;
    stack.push(memory, gate.word, state.segments[SS].selector)?;
    stack.push(memory, gate.word, state.gpr[RSP])?;
    for parameter in (0..gate.parameters).rev() {
        let mut from = Stack { pointer: old.pointer, ..Stack::of(state) };
        from.pointer = from.pointer.wrapping_add(parameter * u64::from(gate.word));
        let value = from.pop(memory, gate.word)?;
        stack.push(memory, gate.word, value)?;
    }
    stack.push(memory, gate.word, old_cs)?;
    stack.push(memory, gate.word, back)?;
    state.segments[SS] = segment;
    state.gpr[RSP] = stack.pointer;
    enter_code(state, code_segment(gate.selector, target, cpl), gate.offset);
    LOOKUP
}

/// The stack that the task keeps for a privilege level; in long mode also by interrupt stack table.
pub fn inner_stack(
    state: &State,
    memory: &mut dyn GuestMemory,
    cpl: u8,
    interrupt_stack: u8,
) -> Result<(Segment, Stack), Stop> {
    if state.is_long_mode() {
        let offset = match interrupt_stack {
            0 => 4 + 8 * u64::from(cpl),
            number => 0x1c + 8 * u64::from(number),
        };
        let pointer = read_task(state, memory, offset, 8)?;
        let segment = Segment {
            base: 0,
            limit: 0,
            attributes: u32::from(cpl) << 5,
            selector: u64::from(cpl),
        };
        return Ok((segment, Stack::new(0, u64::MAX, pointer)));
    }
    let wide = state.tr.attributes & 8 != 0;
    let (pointer, selector) = if wide {
        let offset = 4 + 8 * u64::from(cpl);
        (read_task(state, memory, offset, 4)?, read_task(state, memory, offset + 4, 2)?)
    } else {
        let offset = 2 + 4 * u64::from(cpl);
        (read_task(state, memory, offset, 2)?, read_task(state, memory, offset + 2, 2)?)
    };
    let selector = selector as u16;
    let error = u64::from(selector & !3);
    if selector & !3 == 0 {
        return fault(exception::TS, error);
    }
    let found = descriptor::read(state, memory, selector, exception::TS)?;
    if (selector & 3) as u8 != cpl || found.dpl() != cpl || !found.is_writable() {
        return fault(exception::TS, error);
    }
    if !found.is_present() {
        return fault(exception::SS, error);
    }
    let segment = found.segment(selector);
    let mask = if segment.attributes & attribute::D != 0 { 0xffff_ffff } else { 0xffff };
    Ok((segment, Stack::new(segment.base, mask, pointer)))
}

/// RET far: word size, bytes to drop.
fn far_back(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [word, extra, _]: [u64; 3],
) -> HelperResult {
    let word = word as u32;
    let mut stack = Stack::of(state);
    let offset = stack.pop(memory, word)?;
    let selector = stack.pop(memory, word)? as u16;
    if uses_paragraphs(state) {
        stack.pointer = stack.pointer.wrapping_add(extra);
        state.gpr[RSP] = stack.rsp(state.gpr[RSP]);
        enter_paragraph(state, selector, offset);
        return LOOKUP;
    }
    stack.pointer = stack.pointer.wrapping_add(extra);
    return_to(state, memory, selector, offset, stack, word, extra)?;
    LOOKUP
}

/// Returns to a code segment of the same or an outer level, whose stack lies above.
fn return_to(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    selector: u16,
    offset: u64,
    mut stack: Stack,
    word: u32,
    extra: u64,
) -> Result<(), Stop> {
    let (error, rpl) = (u64::from(selector & !3), (selector & 3) as u8);
    if selector & !3 == 0 {
        return protection(0);
    }
    let found = descriptor::read(state, memory, selector, exception::GP)?;
    let level = if found.is_conforming() { found.dpl() <= rpl } else { found.dpl() == rpl };
    if !found.is_code() || rpl < state.cpl() || !level {
        return protection(error);
    }
    if !found.is_present() {
        return fault(exception::NP, error);
    }
    let to_long = state.is_long_mode() && found.attributes() & attribute::L != 0;
    // IRETQ pops SS and RSP whatever the level; a far return only to an outer one.
    let outer = rpl > state.cpl();
    let pops_stack = outer || (word == 8 && extra == u64::MAX);
    if !pops_stack {
        state.gpr[RSP] = stack.rsp(state.gpr[RSP]);
        enter_code(state, code_segment(selector, found, rpl), offset);
        return Ok(());
    }
    let pointer = stack.pop(memory, word)?;
    let stack_selector = stack.pop(memory, word)? as u16;
    let mut new = *state;
    new.segments[SS].attributes = new.segments[SS].attributes & !(3 << 5) | u32::from(rpl) << 5;
    let segment = if to_long && stack_selector & !3 == 0 && rpl < 3 {
        Segment {
            base: 0,
            limit: 0,
            attributes: u32::from(rpl) << 5,
            selector: u64::from(stack_selector),
        }
    } else {
        data_segment(&new, memory, SS, stack_selector)?
    };
    state.segments[SS] = segment;
    let extra = if extra == u64::MAX { 0 } else { extra };
    enter_code(state, code_segment(selector, found, rpl), offset);
    state.gpr[RSP] = match (to_long, segment.attributes & attribute::D != 0) {
        (true, _) => pointer.wrapping_add(extra),
        (false, true) => pointer.wrapping_add(extra) & 0xffff_ffff,
        (false, false) => state.gpr[RSP] & !0xffff | pointer.wrapping_add(extra) & 0xffff,
    };
    if outer {
        close_inner_segments(state, rpl);
    }
    Ok(())
}

/// Data segments that the outer level may not use become null.
fn close_inner_segments(state: &mut State, cpl: u8) {
    for number in [ES, DS, FS, GS] {
        let segment = &mut state.segments[number];
        let dpl = (segment.attributes >> 5 & 3) as u8;
        let conforming = segment.attributes & 0x1c == 0x1c;
        if segment.attributes & attribute::P != 0 && dpl < cpl && !conforming {
            let base = segment.base;
            *segment = Segment { base, ..Segment::default() };
        }
    }
}

/// IRET: word size.
fn iret(state: &mut State, memory: &mut dyn GuestMemory, [word, ..]: [u64; 3]) -> HelperResult {
    let word = word as u32;
    let mut stack = Stack::of(state);
    if uses_paragraphs(state) && state.eflags & eflags::VM != 0 {
        super::privileged::check_iopl(state, memory, [0; 3])?;
    }
    let offset = stack.pop(memory, word)?;
    let selector = stack.pop(memory, word)? as u16;
    let flags = stack.pop(memory, word)?;
    state.nmi_masked = 0;
    if uses_paragraphs(state) {
        state.gpr[RSP] = stack.rsp(state.gpr[RSP]);
        enter_paragraph(state, selector, offset);
        let mut writable = 0x24_7fd5;
        if state.eflags & eflags::VM != 0 {
            writable &= !eflags::IOPL;
        }
        merge_flags(state, flags, writable, word);
        return LOOKUP;
    }
    if state.eflags & eflags::NT != 0 && !state.is_long_mode() {
        return protection(0); // a task switch
    }
    if flags & eflags::VM != 0 && state.cpl() == 0 && !state.is_long_mode() {
        return return_to_virtual_8086(state, memory, stack, selector, offset, flags);
    }
    let cpl = state.cpl();
    let extra = if word == 8 { u64::MAX } else { 0 };
    return_to(state, memory, selector, offset, stack, word, extra)?;
    merge_flags(state, flags, writable_flags(state, cpl), word);
    if !debug::looks_at_instructions(state) {
        state.eflags &= !eflags::RF; // nothing to resume from, and every instruction ends it
    }
    LOOKUP
}

/// The flags that code of a level may write.
pub fn writable_flags(state: &State, cpl: u8) -> u64 {
    let mut writable = crate::ir::STATUS
        | eflags::TF
        | eflags::DF
        | eflags::NT
        | eflags::RF
        | eflags::AC
        | eflags::ID;
    if cpl == 0 {
        writable |= eflags::IOPL;
    }
    if u64::from(cpl) <= state.eflags >> 12 & 3 {
        writable |= eflags::IF;
    }
    writable
}

/// Takes the writable ones of new flags, as far as the word reaches.
pub fn merge_flags(state: &mut State, flags: u64, writable: u64, word: u32) {
    let writable = if word == 2 { writable & 0xffff } else { writable };
    let all = state.all_flags() & !writable | flags & writable;
    state.set_all_flags(all);
}

fn return_to_virtual_8086(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    mut stack: Stack,
    selector: u16,
    offset: u64,
    flags: u64,
) -> HelperResult {
    let pointer = stack.pop(memory, 4)?;
    let mut selectors = [0; 6];
    for number in [SS, ES, DS, FS, GS] {
        selectors[number] = stack.pop(memory, 4)? as u16;
    }
    selectors[CS] = selector;
    for (segment, selector) in state.segments.iter_mut().zip(selectors) {
        *segment = Segment {
            base: u64::from(selector) << 4,
            limit: 0xffff,
            attributes: 0xf3,
            selector: u64::from(selector),
        };
    }
    state.set_all_flags(flags & 0x27_7fd7);
    state.gpr[RSP] = pointer;
    state.pc = state.segments[CS].base + (offset & 0xffff);
    LOOKUP
}

/// INT n, INT3, INTO: vector and the instruction's length.
pub fn software_interrupt(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [vector, length, _]: [u64; 3],
) -> HelperResult {
    if state.eflags & eflags::VM != 0 && vector != 3 {
        super::privileged::check_iopl(state, memory, [0; 3])?;
    }
    let pc = state.pc;
    state.pc = pc.wrapping_add(length);
    match events::enter(state, memory, vector as u8, None, events::Cause::Software) {
        Ok(()) => LOOKUP,
        Err(stop) => {
            state.pc = pc;
            Err(stop)
        }
    }
}

/// A flat segment, as SYSCALL and SYSENTER load it without looking at a table.
fn flat(selector: u64, attributes: u32) -> Segment {
    Segment { base: 0, limit: u32::MAX, attributes, selector }
}

/// 32-bit and 64-bit code, and data, of level 0; `| 3 << 5` makes level 3.
const CODE_32: u32 = 0xc09b;
const CODE_64: u32 = 0xa09b;
const DATA: u32 = 0xc093;
const LEVEL_3: u32 = 3 << 5;

/// SYSCALL: the instruction's length.
pub fn system_call(
    state: &mut State,
    _: &mut dyn GuestMemory,
    [length, ..]: [u64; 3],
) -> HelperResult {
    if state.efer & control::EFER_SCE == 0 || !state.is_long_mode() {
        return fault(exception::UD, 0);
    }
    let from_long = state.segments[CS].attributes & attribute::L != 0;
    let selector = state.msr.star >> 32 & 0xfffc;
    state.gpr[RCX] = state.ip().wrapping_add(length);
    state.gpr[11] = state.all_flags() & !eflags::RF;
    let flags = state.all_flags() & !state.msr.fmask & !eflags::RF;
    state.set_all_flags(flags);
    state.segments[SS] = flat(selector + 8, DATA);
    let target = if from_long { state.msr.lstar } else { state.msr.cstar };
    enter_code(state, flat(selector, CODE_64), target);
    traps_by_its_own_flags(state)
}

/// SYSRET: word size.
pub fn system_return(
    state: &mut State,
    _: &mut dyn GuestMemory,
    [word, ..]: [u64; 3],
) -> HelperResult {
    if state.efer & control::EFER_SCE == 0 || !state.is_long_mode() {
        return fault(exception::UD, 0);
    }
    let selector = state.msr.star >> 48 & 0xffff;
    let long = word == 8;
    let target = state.gpr[RCX];
    if long && !is_canonical(target) {
        return protection(0);
    }
    state.set_all_flags(state.gpr[11] & 0x3c_7fd7);
    state.segments[SS] = flat((selector + 8) | 3, DATA | LEVEL_3);
    let (code, selector) = if long { (CODE_64, selector + 16) } else { (CODE_32, selector) };
    let target = if long { target } else { target & 0xffff_ffff };
    enter_code(state, flat(selector | 3, code | LEVEL_3), target);
    traps_by_its_own_flags(state)
}

/// Bits 47 to 63 are equal.
pub fn is_canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

/// SYSENTER.
fn sysenter(state: &mut State, _: &mut dyn GuestMemory, _: [u64; 3]) -> HelperResult {
    let selector = state.msr.sysenter_cs & 0xfffc;
    if uses_paragraphs(state) || selector == 0 {
        return protection(0);
    }
    let long = state.is_long_mode();
    state.eflags &= !(eflags::VM | eflags::IF | eflags::RF);
    state.segments[SS] = flat(selector + 8, DATA);
    state.gpr[RSP] = state.msr.sysenter_esp;
    let code = flat(selector, if long { CODE_64 } else { CODE_32 });
    enter_code(state, code, state.msr.sysenter_eip);
    LOOKUP
}

/// SYSEXIT: word size.
fn sysexit(state: &mut State, _: &mut dyn GuestMemory, [word, ..]: [u64; 3]) -> HelperResult {
    let selector = state.msr.sysenter_cs & 0xfffc;
    if uses_paragraphs(state) || selector == 0 || state.cpl() != 0 {
        return protection(0);
    }
    let (code, selector) =
        if word == 8 { (CODE_64, selector + 32) } else { (CODE_32, selector + 16) };
    let (target, stack) = (state.gpr[RDX], state.gpr[RCX]);
    state.segments[SS] = flat((selector + 8) | 3, DATA | LEVEL_3);
    state.gpr[RSP] = if word == 8 { stack } else { stack & 0xffff_ffff };
    enter_code(state, flat(selector | 3, code | LEVEL_3), target);
    LOOKUP
}

/// Loads a word of a table in the supervisor's view.
pub fn load_supervisor(
    memory: &mut dyn GuestMemory,
    address: u64,
    bytes: u32,
) -> Result<u64, Stop> {
    memory.load(address, bytes, SUPERVISOR).map_err(memory_fault)
}
