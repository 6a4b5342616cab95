//! Operations that need more host registers than there are for temporary values. No guest's
//! instructions lift to them today, so a front end of its own makes them.

use std::mem::offset_of;
use std::sync::Arc;

use isa::ir::{Ir, Reg, Type};
use isa::{
    Access, Event, Fetch, FrontEnd, GuestMemory, Helper, Key, Layout, MemoryFault, Physical, Pin,
    Registers, Translation,
};
use jit::{Engine, Exit, Options, Space, UserSpace, Vcpu};

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct State {
    pc: u64,
    cells: [f64; 8],
    pinned: [[u64; 2]; 12],
}

const fn cell(n: usize) -> Reg {
    Reg::new(offset_of!(State, cells) + 8 * n, Type::F64)
}

const fn pinned(n: usize) -> Pin {
    Pin::any(offset_of!(State, pinned) + 16 * n, Type::V128)
}

const LAYOUT: Layout = Layout {
    bytes: size_of::<State>(),
    pc: offset_of!(State, pc) as u16,
    general: &[],
    vectors: &[
        pinned(0),
        pinned(1),
        pinned(2),
        pinned(3),
        pinned(4),
        pinned(5),
        pinned(6),
        pinned(7),
        pinned(8),
        pinned(9),
        pinned(10),
        pinned(11),
    ],
    relaxed: &[],
    fpu: None,
};

/// `cells[4]` = `cells[0] < cells[1]` ? `cells[2]` : `cells[3]`, and the other way round.
struct Selection;

impl FrontEnd for Selection {
    type State = State;

    const LAYOUT: &'static Layout = &LAYOUT;

    const HELPERS: &'static [Helper<State>] = &[];

    fn reset(&self) -> State {
        State::default()
    }

    fn key(&self, state: &State) -> Key {
        Key { pc: state.pc, mode: 0 }
    }

    fn translate(&self, key: Key, _: &mut dyn Fetch, ir: &mut Ir) {
        ir.insn(key.pc, 4);
        let cells = [0, 1, 2, 3].map(|n| ir.get(cell(n)));
        const LESS: u16 = 1;
        for (a, b, into) in [(0, 1, 4), (1, 0, 5)] {
            let less = ir.fcompare(LESS, cells[a], cells[b]);
            let chosen = ir.select(less, cells[2], cells[3]);
            ir.put(cell(into), chosen);
        }
        let nothing = ir.imm(0);
        ir.raise(Event::SYSTEM_CALL, nothing);
    }

    fn deliver(&self, _: &mut State, _: &mut dyn GuestMemory, event: Event) -> Result<(), Event> {
        Err(event)
    }

    fn walk(
        &self,
        _: &State,
        _: &mut dyn Physical,
        address: u64,
        access: Access,
        _: u16,
    ) -> Result<Translation, MemoryFault> {
        Err(MemoryFault { address, access, detail: 0 })
    }

    fn registers(&self) -> &'static [Registers] {
        &[]
    }
}

/// No code is ever read.
struct Nothing;

impl UserSpace for Nothing {
    fn executable(&self, _: u64) -> bool {
        false
    }

    fn protect_code(&self, _: u64) {}

    fn unprotect_code(&self, _: u64) -> bool {
        false
    }
}

fn check(avx2: bool) {
    let mut options = Options::detect();
    options.features.avx2 &= avx2;
    options.features.fma &= avx2;
    let engine: Arc<Engine<Selection>> =
        Engine::new(Selection, Space::User(Box::new(Nothing)), options).expect("an engine");
    let mut vcpu = Vcpu::new(&engine).expect("a vCPU");
    let contents = std::array::from_fn(|n| [n as u64 + 1, !(n as u64)]);
    for (a, b, expected) in [(1.0, 2.0, [3.0, 4.0]), (2.0, 1.0, [4.0, 3.0])] {
        let cells = [a, b, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0];
        *vcpu.state_mut() = State { pc: 0x1000, cells, pinned: contents };
        assert_eq!(vcpu.run(), Exit::Event(Event::SystemCall));
        assert_eq!(vcpu.state().cells[4..6], expected);
        assert_eq!(vcpu.state().pinned, contents, "what was borrowed is given back");
    }
}

#[test]
fn a_selection_by_a_comparison_borrows_a_vector_register() {
    check(true);
    check(false);
}
