//! x86: 16-, 32- and 64-bit code, as a program's and as a whole system's processor.
//!
//! Manual: "Intel 64 and IA-32 Architectures Software Developer's Manual", order number 325462.
//! Bytes are decoded by `iced-x86`; meanings stand in `chapters/`, in the groups of volume 1,
//! chapter 5. What CPUID promises is what is implemented.

mod chapters;
mod cpuid;
mod debug;
mod dead_flags;
mod descriptor;
mod events;
mod helpers;
mod lift;
mod mode;
mod msr;
mod state;
mod vectors;
mod walk;

pub use chapters::implemented;
pub use cpuid::native as native_identity;
pub use helpers::TSC_HZ;
pub use helpers::identity::IDENTITY_SPACE;
pub use lift::exception;
pub use mode::{Mode, attribute, control, eflags};
pub use msr::constant as native_register_of;
pub use state::{CS, DS, ES, FS, GS, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, SS};
pub use state::{Msrs, Segment, State, Table};

use crate::front_end::{
    Access, Event, Fetch, FrontEnd, GuestMemory, Helper, Host, Key, Layout, MemoryFault, Physical,
    Registers, Translation, Watched,
};
use crate::ir::Ir;

/// The front end.
#[derive(Clone, Copy, Debug)]
pub struct X86 {
    system: bool,
    /// What the back end can do.
    host: Host,
    /// CPUID tells of AVX and its relatives, and of SHA.
    wide_vectors: bool,
}

impl X86 {
    /// A processor that runs one program; a kernel is elsewhere.
    #[must_use]
    pub fn user() -> Self {
        Self { system: false, host: Host::default(), wide_vectors: true }
    }

    /// The same with nothing beyond SSE4.2, AES and PCLMULQDQ in its CPUID.
    #[must_use]
    pub fn without_wide_vectors(self) -> Self {
        Self { wide_vectors: false, ..self }
    }

    /// A processor of a machine.
    #[must_use]
    pub fn system() -> Self {
        Self { system: true, host: Host::default(), wide_vectors: true }
    }

    /// The state in which a program starts, in 64- or 32-bit code: everything flat, level 3.
    #[must_use]
    pub fn user_state(long: bool) -> State {
        let mut state = State::default();
        let segment =
            |selector, attributes| Segment { base: 0, limit: u32::MAX, attributes, selector };
        let (code, selector) = if long { (0xa0fb, 0x33) } else { (0xc0fb, 0x23) };
        state.segments = [segment(0x2b, 0xc0f3); 6];
        state.segments[CS] = segment(selector, code);
        for number in [FS, GS] {
            state.segments[number] = segment(0, 0xc0f3);
        }
        if long {
            for number in [ES, DS] {
                state.segments[number].selector = 0;
            }
            state.efer = control::EFER_LMA | control::EFER_LME | control::EFER_SCE;
        }
        const MONITOR_AND_NUMERIC: u64 = 1 << 1 | 1 << 5;
        state.cr[0] = control::CR0_PE | control::CR0_PG | control::CR0_WP | MONITOR_AND_NUMERIC;
        state.cr[4] =
            control::CR4_PAE | control::CR4_OSFXSR | 1 << 10 | 1 << 16 | control::CR4_OSXSAVE;
        state.xcr0 = 7;
        state.eflags = state::ALWAYS_ONE | eflags::IF;
        state.gpr = [0; 16];
        state.pc = 0;
        state
    }
}

impl FrontEnd for X86 {
    type State = State;

    const LAYOUT: &'static Layout = &state::LAYOUT;

    const HELPERS: &'static [Helper<State>] = helpers::HELPERS;

    const VARIANT: u64 = mode::UPPER_HALVES;

    fn host(&mut self, host: Host) {
        self.host = host;
    }

    fn reset(&self) -> State {
        State::default()
    }

    fn key(&self, state: &State) -> Key {
        // Without wide registers upper halves are memory like any other.
        let variant = if self.host.wide { 0 } else { Self::VARIANT };
        Key { pc: state.pc, mode: Mode::of(state) & !variant }
    }

    fn translate(&self, key: Key, fetch: &mut dyn Fetch, ir: &mut Ir) {
        lift::block(key, self, fetch, ir);
    }

    fn deliver(
        &self,
        state: &mut State,
        memory: &mut dyn GuestMemory,
        event: Event,
    ) -> Result<(), Event> {
        if !self.system {
            return Err(event);
        }
        if event == Event::Halt {
            state.halted = 1;
            return Err(event);
        }
        if matches!(event, Event::Exception { number: exception::INTERRUPT_DUE, .. }) {
            return Err(event);
        }
        events::deliver(state, memory, event)
    }

    fn interrupt(&self, state: &mut State, memory: &mut dyn GuestMemory, line: u32) -> bool {
        if !state.is_open_to_interrupts() {
            return false;
        }
        let event = events::enter(state, memory, line as u8, None, events::Cause::Hardware);
        match event {
            Ok(()) => true,
            Err(crate::front_end::Stop::Lookup) => true,
            // A fault while entering is an exception of its own; a triple fault stays for the loop.
            Err(crate::front_end::Stop::Event(event)) => {
                events::deliver(state, memory, event).is_ok()
            }
        }
    }

    fn walk(
        &self,
        state: &State,
        memory: &mut dyn Physical,
        address: u64,
        access: Access,
        mmu_index: u16,
    ) -> Result<Translation, MemoryFault> {
        walk::walk(state, memory, address, access, mmu_index)
    }

    fn asid(&self, state: &State) -> u16 {
        if state.cr[4] & control::CR4_PCIDE != 0 { (state.cr[3] & 0xfff) as u16 } else { 0 }
    }

    fn mmu_view(&self, mode: u64) -> u16 {
        let mode = Mode::from_bits(mode);
        match (mode.cpl, mode.smap_override) {
            (3, _) => walk::view::USER,
            (_, false) => walk::view::SUPERVISOR,
            (_, true) => walk::view::SUPERVISOR_OVERRIDE,
        }
    }

    fn watches(&self, state: &State) -> [Option<Watched>; 4] {
        if self.system { debug::watched(state) } else { [None; 4] }
    }

    fn watch_bits(&self, state: &State, address: u64, bytes: u64, access: Access) -> u64 {
        debug::memory_hits(state, address, bytes, access)
    }

    fn watch_hit(&self, state: &mut State, bits: u64, event: Option<Event>) {
        let stepped = Event::Exception { number: exception::DB, info: debug::SINGLE_STEPPED };
        // Any other event keeps the instruction from being done.
        if event.is_none_or(|event| event == stepped) {
            state.trap_due |= bits;
        }
    }

    fn registers(&self) -> &'static [Registers] {
        state::REGISTERS
    }
}
