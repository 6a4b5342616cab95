//! Repeated string instructions, a page at a time.

use super::{load, memory_fault, store};
use crate::front_end::{GuestMemory, HelperResult, Stop};
use crate::x86::debug;
use crate::x86::mode::eflags;
use crate::x86::state::{ES, RAX, RCX, RDI, RDX, RSI, State};

/// What is done with each element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the manual's names")]
pub enum StringOp {
    Move,
    Store,
    Load,
    Compare,
    Scan,
    In,
    Out,
}

const ALL: [StringOp; 7] = [
    StringOp::Move,
    StringOp::Store,
    StringOp::Load,
    StringOp::Compare,
    StringOp::Scan,
    StringOp::In,
    StringOp::Out,
];

/// Elements after which the helper comes up for air, so that interrupts are seen.
const ELEMENTS_MAX: u64 = 1 << 16;

/// In the argument of `repeat`: 64-bit code.
pub const REPEAT_LONG: u64 = 1 << 28;

/// What is moved at once lies in one page.
const PAGE_BYTES: usize = 4096;

/// An instruction taken apart.
struct Instruction {
    op: StringOp,
    bytes: u64,
    /// Of the index registers and the counter.
    mask: u64,
    width: u32,
    repeated: bool,
    until_equal: bool,
    source_base: u64,
    target_base: u64,
    linear_mask: u64,
    down: bool,
}

impl Instruction {
    fn new(state: &State, what: u64, long: bool) -> Self {
        let width = (what >> 8 & 0xff) as u32;
        let segment = (what >> 20 & 7) as usize;
        let source_base = if long && segment < 4 { 0 } else { state.segments[segment.min(5)].base };
        Self {
            op: ALL[(what >> 24) as usize % ALL.len()],
            bytes: what & 0xff,
            mask: u64::MAX >> (64 - 8 * width.clamp(1, 8)),
            width,
            repeated: what & 1 << 16 != 0,
            until_equal: what & 1 << 17 != 0,
            source_base,
            target_base: if long { 0 } else { state.segments[ES].base },
            linear_mask: if long { u64::MAX } else { u64::from(u32::MAX) },
            down: state.eflags & eflags::DF != 0,
        }
    }

    fn source(&self, state: &State) -> u64 {
        (state.gpr[RSI] & self.mask).wrapping_add(self.source_base) & self.linear_mask
    }

    fn target(&self, state: &State) -> u64 {
        (state.gpr[RDI] & self.mask).wrapping_add(self.target_base) & self.linear_mask
    }

    fn count(&self, state: &State) -> u64 {
        if self.repeated { state.gpr[RCX] & self.mask } else { 1 }
    }

    /// Writes the part of a register that the address size names.
    fn set(&self, state: &mut State, register: usize, value: u64) {
        let old = state.gpr[register];
        state.gpr[register] = match self.width {
            2 => old & !0xffff | value & 0xffff,
            _ => value & self.mask,
        };
    }

    /// Whether something has to be looked at after each element: a trap or a breakpoint.
    fn is_stepped(&self, state: &State) -> bool {
        let ports = matches!(self.op, StringOp::In | StringOp::Out);
        let distance = self.count(state).saturating_mul(self.bytes);
        state.eflags & eflags::TF != 0
            || (ports && debug::looks_at_instructions(state))
            || debug::watches_near(state, self.source(state), distance)
            || debug::watches_near(state, self.target(state), distance)
    }

    fn advance(&self, state: &mut State, register: usize, elements: u64) {
        let by = elements.wrapping_mul(self.bytes);
        let old = state.gpr[register];
        let new = if self.down { old.wrapping_sub(by) } else { old.wrapping_add(by) };
        self.set(state, register, new);
    }

    /// Counts elements as done.
    fn done(&self, state: &mut State, elements: u64) {
        let [moves_source, moves_target] = match self.op {
            StringOp::Move | StringOp::Compare => [true, true],
            StringOp::Load | StringOp::Out => [true, false],
            StringOp::Store | StringOp::Scan | StringOp::In => [false, true],
        };
        if moves_source {
            self.advance(state, RSI, elements);
        }
        if moves_target {
            self.advance(state, RDI, elements);
        }
        if self.repeated {
            let left = state.gpr[RCX].wrapping_sub(elements);
            self.set(state, RCX, left);
        }
    }

    /// Elements that fit before an index register wraps.
    fn before_wrap(&self, state: &State, register: usize) -> u64 {
        let index = state.gpr[register] & self.mask;
        (self.mask - index) / self.bytes
    }
}

/// A string instruction: what it is, whether in 64-bit code. Gives 1 when it must be continued.
/// Under single step each element is a step.
pub fn string(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [what, long, _]: [u64; 3],
) -> HelperResult {
    let insn = Instruction::new(state, what, long != 0);
    if matches!(insn.op, StringOp::In | StringOp::Out) {
        let port = state.gpr[RDX] & 0xffff;
        super::privileged::check_port(state, memory, port, insn.bytes as u32)?;
    }
    let mut budget = if insn.is_stepped(state) { 1 } else { ELEMENTS_MAX };
    while insn.count(state) > 0 {
        if budget == 0 {
            // What interrupts it now resumes it: no second look at breakpoints on it.
            if debug::looks_at_instructions(state) {
                state.eflags |= eflags::RF;
            }
            return Ok(1);
        }
        let most = insn.count(state).min(budget);
        let elements = match insn.op {
            StringOp::Move if !insn.down => move_chunk(&insn, state, memory, most)?,
            StringOp::Store if !insn.down => store_chunk(&insn, state, memory, most)?,
            _ => 0,
        };
        if elements > 0 {
            insn.done(state, elements);
            budget -= elements;
            continue;
        }
        let more = one(&insn, state, memory)?;
        budget -= 1;
        if !more || !insn.repeated {
            return Ok(0);
        }
    }
    Ok(0)
}

/// Bytes from `address` to the end of its page.
fn to_page_end(address: u64) -> u64 {
    PAGE_BYTES as u64 - address % PAGE_BYTES as u64
}

/// Moves upwards as many whole elements as neither cross a page nor overlap behind the source.
fn move_chunk(
    insn: &Instruction,
    state: &State,
    memory: &mut dyn GuestMemory,
    most: u64,
) -> Result<u64, Stop> {
    let (from, to) = (insn.source(state), insn.target(state));
    let distance = to.wrapping_sub(from) & insn.linear_mask;
    let room = to_page_end(from).min(to_page_end(to));
    // A target shortly behind the source repeats a pattern: only the distance can go at once.
    let room = if distance == 0 { room } else { room.min(distance) };
    let wrap = insn.before_wrap(state, RSI).min(insn.before_wrap(state, RDI));
    let elements = (room / insn.bytes).min(most).min(wrap);
    if elements == 0 {
        return Ok(0);
    }
    let length = (elements * insn.bytes) as usize;
    if !memory.copy_at_hand(from, to, length) {
        let mut chunk = [0; PAGE_BYTES];
        memory.read(from, &mut chunk[..length], 0).map_err(memory_fault)?;
        memory.write(to, &chunk[..length], 0).map_err(memory_fault)?;
    }
    Ok(elements)
}

fn store_chunk(
    insn: &Instruction,
    state: &State,
    memory: &mut dyn GuestMemory,
    most: u64,
) -> Result<u64, Stop> {
    let to = insn.target(state);
    let wrap = insn.before_wrap(state, RDI);
    let elements = (to_page_end(to) / insn.bytes).min(most).min(wrap);
    if elements == 0 {
        return Ok(0);
    }
    let (value, count) = (state.gpr[RAX], elements as usize);
    if !memory.fill_at_hand(to, insn.bytes as u32, value, count) {
        let mut chunk = [0; PAGE_BYTES];
        let chunk = &mut chunk[..count * insn.bytes as usize];
        let value = value.to_le_bytes();
        match insn.bytes {
            1 => chunk.fill(value[0]),
            bytes => chunk
                .chunks_exact_mut(bytes as usize)
                .for_each(|element| element.copy_from_slice(&value[..bytes as usize])),
        }
        memory.write(to, chunk, 0).map_err(memory_fault)?;
    }
    Ok(elements)
}

/// `string` for `Code::Repeat`: what it is, bit 28 whether in 64-bit code. It is continued from its
/// beginning.
pub fn repeat(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [what, ..]: [u64; 3],
) -> HelperResult {
    match string(state, memory, [what & !REPEAT_LONG, u64::from(what & REPEAT_LONG != 0), 0])? {
        0 => Ok(0),
        _ => Err(Stop::Lookup),
    }
}

/// One element. False ends a repetition.
fn one(insn: &Instruction, state: &mut State, memory: &mut dyn GuestMemory) -> Result<bool, Stop> {
    let bytes = insn.bytes as u32;
    let width = 8 * bytes;
    match insn.op {
        StringOp::Move => {
            let value = load(memory, insn.source(state), bytes)?;
            store(memory, insn.target(state), bytes, value)?;
        }
        StringOp::Store => store(memory, insn.target(state), bytes, state.gpr[RAX])?,
        StringOp::Load => {
            let value = load(memory, insn.source(state), bytes)?;
            state.gpr[RAX] = match bytes {
                4 | 8 => value,
                _ => state.gpr[RAX] & (u64::MAX << width) | value,
            };
        }
        StringOp::Compare | StringOp::Scan => {
            let a = match insn.op {
                StringOp::Compare => load(memory, insn.source(state), bytes)?,
                _ => state.gpr[RAX] & u64::MAX >> (64 - width),
            };
            let b = load(memory, insn.target(state), bytes)?;
            insn.done(state, 1);
            state.flags = super::integer::difference_flags(a, b, width);
            return Ok((a == b) != insn.until_equal);
        }
        StringOp::In => {
            // The page is looked at first, for the port's value would be lost.
            let to = insn.target(state);
            memory.probe(to, bytes, crate::front_end::Access::Write).map_err(memory_fault)?;
            let port = state.gpr[RDX] & 0xffff;
            let value = memory.machine_read(0, port, bytes);
            store(memory, to, bytes, value)?;
            debug::port_accessed(state, port, insn.bytes);
        }
        StringOp::Out => {
            let value = load(memory, insn.source(state), bytes)?;
            let port = state.gpr[RDX] & 0xffff;
            memory.machine_write(0, port, bytes, value);
            debug::port_accessed(state, port, insn.bytes);
        }
    }
    insn.done(state, 1);
    Ok(true)
}

/// MASKMOVDQU: stores the bytes of the first scratch vector whose byte in the second is negative.
pub fn masked_store(
    state: &mut State,
    memory: &mut dyn GuestMemory,
    [address, ..]: [u64; 3],
) -> HelperResult {
    let bytes = |vector: [u64; 2]| {
        let [low, high] = vector.map(u64::to_le_bytes);
        [low, high].concat()
    };
    let (values, masks) = (bytes(state.scratch[0]), bytes(state.scratch[1]));
    for (at, (value, mask)) in values.iter().zip(&masks).enumerate() {
        if mask & 0x80 != 0 {
            store(memory, address.wrapping_add(at as u64), 1, u64::from(*value))?;
        }
    }
    Ok(0)
}
