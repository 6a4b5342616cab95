//! A guest whose code is random IR: what stands at a pc is drawn from the case of that pc.

use std::mem::offset_of;
use std::sync::Arc;

use isa::ir::{Ir, Reg, Type};
use isa::{
    Access, Event, Fetch, FrontEnd, GuestMemory, Helper, HelperResult, Key, Layout, MemoryFault,
    Physical, Pin, Prefer, Registers, Stop, Translation,
};
use parking_lot::Mutex;

use crate::generate::{self, Case};

/// The registers.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
#[repr(C)]
pub struct State {
    pub pc: u64,
    pub flags: u64,
    pub general: [u64; 16],
    pub vectors: [[u64; 2]; 16],
}

pub const PC: Reg = Reg::new(offset_of!(State, pc), Type::I64);
pub const FLAGS: Reg = Reg::new(offset_of!(State, flags), Type::Flags);

pub const fn general(n: usize) -> Reg {
    Reg::new(offset_of!(State, general) + 8 * n, Type::I64)
}

pub const fn vector(n: usize) -> Reg {
    Reg::new(offset_of!(State, vectors) + 16 * n, Type::V128)
}

/// Registers that hold the data's address and are never written: one pinned, one not.
pub const POINTERS: [usize; 2] = [5, 13];
/// Bytes of data behind that address.
pub const DATA_BYTES: usize = 3 * 4096;
/// Where blocks of cases lie: multiples of 16. Others end a case.
pub const CODE: u64 = 0x7abc_0000_0000;
/// A block that returns to where register 1 says.
pub const RETURNING: u64 = 4;
/// A block that ends the case.
pub const ENDING: u64 = 8;

const fn pins(prefer: bool) -> [Pin; 12] {
    let mut pins = [Pin::any(0, Type::I64); 12];
    // RAX, RCX, RDX, RBX, RBP, RSI and RDI as an x86 guest has them.
    const NUMBERS: [u8; 12] = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12];
    let mut n = 0;
    while n < 12 {
        pins[n].reg = general(n);
        if prefer {
            pins[n].prefer = Prefer::Number(NUMBERS[n]);
        }
        n += 1;
    }
    pins
}

const fn vector_pins() -> [Pin; 12] {
    let mut pins = [Pin::any(0, Type::V128); 12];
    let mut n = 0;
    while n < 12 {
        pins[n].reg = vector(n);
        n += 1;
    }
    pins
}

const fn layout(general: &'static [Pin; 12]) -> Layout {
    Layout {
        bytes: size_of::<State>(),
        pc: offset_of!(State, pc) as u16,
        general,
        vectors: &const { vector_pins() },
        relaxed: &[FLAGS],
        fpu: None,
    }
}

/// The front end; `X86` pins the host's registers with implied roles.
pub struct Guest<const X86: bool> {
    pub case: Arc<Mutex<Case>>,
}

impl<const X86: bool> FrontEnd for Guest<X86> {
    type State = State;

    const LAYOUT: &'static Layout = match X86 {
        true => &layout(&const { pins(true) }),
        false => &layout(&const { pins(false) }),
    };

    const HELPERS: &'static [Helper<State>] = &[
        Helper { name: "mix", call: mix, fp: false },
        Helper { name: "fault", call: sometimes_fault, fp: false },
        Helper { name: "leave", call: sometimes_leave, fp: false },
        Helper { name: "repeat", call: repeat, fp: false },
    ];

    fn reset(&self) -> State {
        State::default()
    }

    fn key(&self, state: &State) -> Key {
        Key { pc: state.pc, mode: 0 }
    }

    fn translate(&self, key: Key, _: &mut dyn Fetch, ir: &mut Ir) {
        match key.pc & 15 {
            0 => generate::block(ir, key.pc, &mut self.case.lock()),
            RETURNING => {
                ir.insn(key.pc, 4);
                let to = ir.get(general(1));
                ir.ret(to);
            }
            _ => {
                ir.insn(key.pc, 4);
                let pc = ir.imm(key.pc as i64);
                ir.put(PC, pc);
                ir.raise(Event::SYSTEM_CALL, pc);
            }
        }
    }

    fn deliver(&self, _: &mut State, _: &mut dyn GuestMemory, event: Event) -> Result<(), Event> {
        Err(event)
    }

    /// Everything is where it is, but for the first pages.
    fn walk(
        &self,
        _: &State,
        _: &mut dyn Physical,
        address: u64,
        access: Access,
        _: u16,
    ) -> Result<Translation, MemoryFault> {
        if address < 1 << 16 {
            return Err(MemoryFault { address, access, detail: 0 });
        }
        Ok(Translation {
            physical: address,
            page_bits: 12,
            read: true,
            write: true,
            execute: true,
            global: false,
        })
    }

    fn registers(&self) -> &'static [Registers] {
        &[]
    }
}

/// Reads and writes registers of all kinds.
fn mix(state: &mut State, _: &mut dyn GuestMemory, arguments: [u64; 3]) -> HelperResult {
    let [a, b, c] = arguments;
    state.general[2] = state.general[2].rotate_left(7) ^ a;
    state.general[14] ^= state.general[3].wrapping_add(b);
    state.vectors[1][1] ^= c;
    state.vectors[13][0] = state.vectors[2][0];
    Ok(a.wrapping_mul(3) ^ b.wrapping_mul(5) ^ c)
}

fn sometimes_fault(_: &mut State, memory: &mut dyn GuestMemory, a: [u64; 3]) -> HelperResult {
    if a[0] & 7 == 0 {
        return Err(Stop::Event(Event::Exception { number: 77, info: a[1] }));
    }
    if a[0] & 7 == 1 {
        let result = memory.load(a[1] & 0xff8, 8, 0);
        return result.map_err(|fault| Stop::Event(Event::Memory(fault)));
    }
    Ok(a[1])
}

/// Registers of `Code::Repeat`, which an x86 guest has where the host's instruction wants them:
/// value, count, source, target, and the one with the direction.
pub const REPEAT: [usize; 5] = [0, 1, 5, 6, 14];
/// In the last of them.
pub const REPEAT_DOWN: u8 = 10;
/// The helper's number.
pub const REPEAT_HELPER: u8 = 3;
/// In its argument, besides the bytes of an element.
pub const REPEAT_FILL: u32 = 1 << 8;

/// `Code::Repeat`, said plainly.
fn repeat(state: &mut State, memory: &mut dyn GuestMemory, a: [u64; 3]) -> HelperResult {
    let (bytes, fill) = (a[0] as u32 & 15, a[0] as u32 & REPEAT_FILL != 0);
    let [value, count, source, target, direction] = REPEAT;
    let fault = |fault| Stop::Event(Event::Memory(fault));
    let down = state.general[direction] & 1 << REPEAT_DOWN != 0;
    let step = if down { u64::from(bytes).wrapping_neg() } else { bytes.into() };
    while state.general[count] != 0 {
        let element = match fill {
            true => state.general[value],
            false => memory.load(state.general[source], bytes, 0).map_err(fault)?,
        };
        memory.store(state.general[target], bytes, element, 0).map_err(fault)?;
        state.general[target] = state.general[target].wrapping_add(step);
        if !fill {
            state.general[source] = state.general[source].wrapping_add(step);
        }
        state.general[count] -= 1;
    }
    Ok(0)
}

fn sometimes_leave(state: &mut State, _: &mut dyn GuestMemory, a: [u64; 3]) -> HelperResult {
    if a[0] & 3 != 0 {
        return Ok(!a[0]);
    }
    state.pc = CODE + ENDING + 0x100;
    state.general[4] = a[1];
    Err(Stop::Lookup)
}
