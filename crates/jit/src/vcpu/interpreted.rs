//! A round of the run loop without translated code: the block's IR is interpreted.

use isa::ir::Ir;
use isa::{FrontEnd, GuestMemory, Stop};

use super::view::{SystemFetch, View};
use super::{Context, Exit};
use crate::engine::{UserFetch, fetch_event};
use crate::host::x86_64::instructions::under_control;
use crate::host::x86_64::vcpu_block as layout;
use crate::interpret::{Interpreter, Machine, Outcome};
use crate::raw;
use crate::space::Space;
use crate::translator::BlockKey;

/// What the interpreter keeps from block to block.
#[derive(Default)]
pub struct Bench {
    ir: Ir,
    interpreter: Interpreter,
    /// The block's code, to see whether it changes.
    code: Vec<u8>,
}

impl<F: FrontEnd> Context<F> {
    /// As `one_round`. Blocks are lifted anew each time, so nothing can be out of date.
    pub(super) fn interpreted_round(&self) -> Option<Exit> {
        let engine = &*self.engine;
        let key = engine.front_end.key(self.state());
        let mut bench = self.bench.borrow_mut();
        let Bench { ir, interpreter, code } = &mut **bench;
        ir.begin(key.pc, 12, engine.options.insns_max);
        match &engine.space {
            Space::User(_) => engine.front_end.translate(key, &mut UserFetch { engine }, ir),
            Space::System(_) => {
                let view = engine.front_end.mmu_view(key.mode);
                let physical = match self.fetch_address(key.pc, view) {
                    Ok(physical) => physical,
                    Err(error) => return self.deliver(fetch_event(error)),
                };
                let second = self.second_page(key.pc, view);
                let place = BlockKey { physical, second, key };
                let mut fetch = SystemFetch { bus: self.bus(), key: place, stops: None };
                engine.front_end.translate(key, &mut fetch, ir);
            }
        }
        let mut view = View { context: self };
        let (start, end) = ir.code_range();
        read_code(&mut view, start, end, code);
        let mut machine = Interpreted {
            context: self,
            view,
            code,
            start,
            control: self.block.word(layout::GUEST_MXCSR) as u32,
        };
        let outcome = interpreter.run(ir.ops(), ir.code_range(), F::LAYOUT.pc, &mut machine);
        self.block.set_word32(layout::GUEST_MXCSR, machine.control);
        match outcome {
            Outcome::To(_) | Outcome::Lookup => None,
            Outcome::Event(event) => self.deliver(event),
        }
    }
}

/// Code as data: nothing where it cannot be read so.
fn read_code(memory: &mut dyn GuestMemory, start: u64, end: u64, into: &mut Vec<u8>) {
    into.clear();
    into.resize(end.wrapping_sub(start) as usize, 0);
    if memory.read(start, into, 0).is_err() {
        into.clear();
    }
}

/// The vCPU as the interpreter sees it.
struct Interpreted<'a, F: FrontEnd> {
    context: &'a Context<F>,
    view: View<'a, F>,
    code: &'a [u8],
    /// Where the code begins.
    start: u64,
    control: u32,
}

impl<F: FrontEnd> Machine for Interpreted<'_, F> {
    fn get(&self, offset: u32, into: &mut [u8]) {
        self.context.block.state_bytes(offset, into);
    }

    fn put(&mut self, offset: u32, from: &[u8]) {
        self.context.block.set_state_bytes(offset, from);
    }

    fn fp_control(&mut self) -> &mut u32 {
        &mut self.control
    }

    fn memory(&mut self) -> &mut dyn GuestMemory {
        &mut self.view
    }

    fn code_changed(&mut self) -> bool {
        let mut now = vec![0; self.code.len()];
        self.view.read(self.start, &mut now, 0).is_err() || now != self.code
    }

    fn helper(&mut self, number: u16, arguments: [u64; 3]) -> Result<u64, Stop> {
        let helper = &F::HELPERS[usize::from(number)];
        let state = raw::state_mut(self.context.block.state());
        let view = &mut self.view;
        under_control(&mut self.control, || (helper.call)(state, view, arguments))
    }
}
