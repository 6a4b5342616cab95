//! The translator as an accelerator, for x86 machines.

mod idle;
mod processor_state;
#[cfg(test)]
mod debug_registers;

use std::io;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use isa::x86::{CS, RBX, RDX, RSI, Segment, State, Table, X86, control, exception};
use isa::{Event, FrontEnd};
pub use jit::Watch;
use jit::{Engine, Exit, Options, Space, Vcpu};
use memory::{FlatRange, FlatView, Listener, Owner};
use parking_lot::Mutex;

use crate::board_bus::{self, BoardBus};
use crate::inspect::{DebugStop, Inspect, Registers, SegmentRegister};
use crate::processor::Next;
use crate::saved::{SavedError, SavedProcessor, field};
use crate::{Board, Chipset, Identity, Processor, Processors};

/// Tells the engine of changes to the memory map.
struct MapChanges(Weak<Engine<X86>>);

impl Listener for MapChanges {
    fn changed(&self, before: &FlatView, after: &FlatView) {
        let Some(engine) = self.0.upgrade() else { return };
        let same = |a: &FlatRange, b: &FlatRange| {
            (a.start, a.length, a.offset) == (b.start, b.length, b.offset) && a.owner.is(&b.owner)
        };
        for range in before.ranges() {
            let kept = after.find(range.start).is_some_and(|other| same(range, other));
            if !kept && !matches!(range.owner, Owner::Io(_)) {
                engine.invalidate(range.start, range.last().saturating_add(1));
            }
        }
        engine.flush_tlbs();
    }

    fn written(&self, start: u64, bytes: u64) {
        if let Some(engine) = self.0.upgrade() {
            engine.invalidate(start, start.saturating_add(bytes));
        }
    }
}

/// Where the first processor starts instead of at the reset vector: in 64-bit code, as the Linux
/// boot protocol wants it, or in 32-bit code without paging, as PVH does.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The first instruction.
    pub pc: u64,
    /// For RSI, or EBX in 32-bit code.
    pub parameters: u64,
    /// For CR3; none for 32-bit code.
    pub page_tables: Option<u64>,
    /// Where a descriptor table lies, with 64-bit code at 0x10 and data at 0x18.
    pub descriptors: u64,
}

impl Entry {
    fn apply(&self, state: &mut State) {
        let segment =
            |selector, attributes| Segment { base: 0, limit: u32::MAX, attributes, selector };
        state.segments = [segment(0x18, 0xc093); 6];
        state.pc = self.pc;
        state.gdtr = Table { base: self.descriptors, limit: 31 };
        let Some(page_tables) = self.page_tables else {
            state.segments[CS] = segment(0x10, 0xc09b);
            state.cr[0] = control::CR0_PE | 1 << 4;
            state.gpr[RBX] = self.parameters;
            return;
        };
        state.segments[CS] = segment(0x10, 0xa09b);
        state.cr[0] = control::CR0_PE | control::CR0_PG | 1 << 4;
        state.cr[3] = page_tables;
        state.cr[4] = control::CR4_PAE;
        state.efer = control::EFER_LME | control::EFER_LMA;
        state.gpr[RSI] = self.parameters;
    }
}

/// What CPUID says by itself on this host: what there is to choose features from.
#[must_use]
pub fn native_identity(options: &Options, leaf: u32, subleaf: u32) -> [u32; 4] {
    isa::x86::native_identity(options.features.host(), leaf, subleaf)
}

/// A model-specific register that tells of features.
#[must_use]
pub fn native_register(number: u32) -> u64 {
    isa::x86::native_register_of(number).unwrap_or(0)
}

/// A machine whose vCPUs run on the translator.
pub struct JitMachine {
    engine: Arc<Engine<X86>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl JitMachine {
    /// Starts a thread for each processor. They stand still until the machine resumes them.
    pub fn start(
        board: &Board,
        processors: &Processors,
        entry: Option<Entry>,
        options: Options,
    ) -> io::Result<Self> {
        let bus = BoardBus::new(&board.memory, &board.ports, &board.chipset)
            .with_identity(&board.identity, options.features.host());
        let engine = Engine::new(X86::system(), Space::System(Box::new(bus)), options)?;
        board.memory.listen(Arc::new(MapChanges(Arc::downgrade(&engine))));
        idle::watch(&engine)?;
        let count = processors.all().len();
        let mut threads = Vec::with_capacity(count);
        for processor in processors.all() {
            let (engine, processor) = (Arc::clone(&engine), Arc::clone(processor));
            let chipset = Arc::clone(&board.chipset);
            let name = format!("CPU {}/JIT", processor.number());
            let identity = Arc::clone(&board.identity);
            let thread =
                thread::Builder::new().name(name).spawn(move || match Vcpu::new(&engine) {
                    Ok(vcpu) => {
                        VcpuThread {
                            vcpu,
                            processor,
                            chipset,
                            identity,
                            entry,
                            waits: false,
                            count,
                        }
                        .run();
                    }
                    Err(_) => chipset.triple_fault(processor.number()),
                })?;
            threads.push(thread);
        }
        Ok(Self { engine, threads: Mutex::new(threads) })
    }

    /// What was translated so far.
    #[must_use]
    pub fn counters(&self) -> jit::Counters {
        self.engine.counters()
    }

    /// Waits until all threads have ended, after [`Processors::quit`].
    pub fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A vCPU thread that panicked has said so itself.
            _ = thread.join();
        }
    }

    /// Sets or clears a breakpoint, by linear address. All vCPUs stand.
    pub fn set_breakpoint(&self, address: u64, set: bool) {
        self.engine.set_breakpoint(address, set);
    }

    /// Watches memory by linear address, or no longer. All vCPUs stand.
    pub fn set_watch(&self, watch: Watch, set: bool) {
        self.engine.set_watch(watch, set);
    }

    /// RAM has changed behind the vCPUs' back: translations of it are stale.
    pub fn invalidate(&self, start: u64, end: u64) {
        self.engine.invalidate(start, end);
    }
}

/// The state of one vCPU thread.
struct VcpuThread {
    vcpu: Vcpu<X86>,
    processor: Arc<Processor>,
    chipset: Arc<dyn Chipset>,
    count: usize,
    identity: Arc<Identity>,
    entry: Option<Entry>,
    /// For a start-up message.
    waits: bool,
}

impl VcpuThread {
    fn run(mut self) {
        let number = self.processor.number();
        board_bus::set_processor(number);
        self.chipset.enter(number);
        let kick = self.vcpu.kicker();
        self.processor.set_kick(move || kick.kick());
        self.reset(number != 0);
        loop {
            let idle = self.vcpu.state().halted != 0;
            let chipset = &self.chipset;
            match self.processor.next(idle, self.waits, || chipset.is_pending(number)) {
                Next::Quit => return self.processor.clear_kick(),
                Next::Reset => self.reset(number != 0),
                Next::Init => self.reset(true),
                Next::Start(page) => self.start(page),
                Next::Nmi => self.deliver(Event::Exception { number: NMI, info: 0 }),
                Next::Look(look) => look(&mut self),
                Next::Step => self.step(number),
                Next::Run => self.round(number),
            }
        }
    }

    fn reset(&mut self, waits: bool) {
        let mut state = State::default();
        state.msr.apic_id = self.identity.topology.apic_id(self.processor.number()).into();
        if let Some(signature) = self.identity.signature {
            state.gpr[RDX] = signature.into();
        }
        state.msr.apic_count = self.count as u64;
        if let Some(entry) = self.entry.filter(|_| !waits) {
            entry.apply(&mut state);
        }
        *self.vcpu.state_mut() = state;
        self.vcpu.set_fp_control(0x1f80);
        self.vcpu.flush_tlb(None, None);
        self.waits = waits;
    }

    fn start(&mut self, page: u8) {
        let state = self.vcpu.state_mut();
        let segment = &mut state.segments[CS];
        (segment.selector, segment.base) = (u64::from(page) << 8, u64::from(page) << 12);
        state.pc = segment.base;
        self.waits = false;
    }

    fn round(&mut self, number: usize) {
        self.inject(number);
        if self.vcpu.state().halted != 0 {
            return; // what woke it was taken by nobody: interrupts are off
        }
        let exit = self.vcpu.run();
        self.serve(exit, number);
    }

    /// One instruction, for a debugger. What waits or sleeps stays where it is.
    fn step(&mut self, number: usize) {
        if !self.waits && self.vcpu.state().halted == 0 {
            self.vcpu.state_mut().interrupt_waits = 0;
            // The order to step was a kick itself.
            let mut exit = self.vcpu.step();
            for _ in 0..KICKS_MAX {
                if exit == Some(Exit::Kicked) {
                    exit = self.vcpu.step();
                }
            }
            match exit {
                None | Some(Exit::Kicked) => {}
                Some(exit @ (Exit::Breakpoint | Exit::Watch(_))) => {
                    return self.serve(exit, number);
                }
                Some(exit) => self.serve(exit, number),
            }
        }
        self.stop(number, DebugStop::Stepped);
    }

    fn stop(&self, number: usize, stop: DebugStop) {
        self.processor.hold();
        self.chipset.stopped(number, stop);
    }

    fn serve(&mut self, exit: Exit, number: usize) {
        match exit {
            Exit::Kicked => {}
            Exit::Breakpoint => self.stop(number, DebugStop::Breakpoint),
            Exit::Watch(address) => self.stop(number, DebugStop::Watch(address)),
            Exit::Event(Event::Exception { number: exception::INTERRUPT_DUE, .. }) => {}
            Exit::Event(Event::Halt) => self.halt(number),
            Exit::Event(_) => {
                self.chipset.triple_fault(number);
                self.waits = true;
            }
        }
    }

    /// HLT: an interrupt may already be there.
    fn halt(&mut self, number: usize) {
        self.vcpu.state_mut().halted = 1;
        if self.chipset.is_pending(number) {
            self.inject(number);
        }
    }

    /// Takes a pending interrupt, if the processor is open to it.
    fn inject(&mut self, number: usize) {
        let pending = self.chipset.is_pending(number);
        self.vcpu.state_mut().interrupt_waits = u64::from(pending);
        if !pending || !self.vcpu.state().is_open_to_interrupts() {
            return;
        }
        let Some(vector) = self.chipset.acknowledge(number) else { return };
        let engine = Arc::clone(self.vcpu.engine());
        let mut state = *self.vcpu.state();
        let taken = {
            let mut memory = self.vcpu.memory();
            engine.front_end().interrupt(&mut state, &mut memory, u32::from(vector))
        };
        if taken {
            state.interrupt_waits = u64::from(self.chipset.is_pending(number));
            *self.vcpu.state_mut() = state;
        }
    }

    fn deliver(&mut self, event: Event) {
        let engine = Arc::clone(self.vcpu.engine());
        let mut state = *self.vcpu.state();
        let delivered = {
            let mut memory = self.vcpu.memory();
            engine.front_end().deliver(&mut state, &mut memory, event)
        };
        *self.vcpu.state_mut() = state;
        if delivered.is_err() {
            self.chipset.triple_fault(self.processor.number());
            self.waits = true;
        }
    }
}

/// x86's numbers of the general registers are everybody's.
impl Inspect for VcpuThread {
    fn registers(&mut self) -> Registers {
        let number = self.processor.number();
        let (state, mxcsr) = (self.vcpu.state(), self.vcpu.fp_control());
        let segment = |segment: &Segment| SegmentRegister {
            selector: segment.selector as u16,
            base: segment.base,
            limit: segment.limit,
            attributes: segment.attributes,
        };
        let top = state.x87_top as usize & 7;
        Registers {
            general: state.gpr,
            rip: state.ip(),
            rflags: state.all_flags(),
            segments: state.segments.map(|register| segment(&register)),
            ldt: segment(&state.ldtr),
            task: segment(&state.tr),
            gdt: (state.gdtr.base, state.gdtr.limit as u32),
            idt: (state.idtr.base, state.idtr.limit as u32),
            control: [
                state.cr[0],
                state.cr[2],
                state.cr[3],
                state.cr[4],
                self.chipset.read_apic(number, TASK_PRIORITY) >> 4 & 15,
            ],
            efer: state.efer,
            kernel_gs_base: state.msr.kernel_gs_base,
            debug: state.dr,
            x87: std::array::from_fn(|index| state.x87[(top + index) & 7]),
            x87_control: state.x87_control as u16,
            x87_status: (state.x87_status & !(7 << 11)) as u16 | (top as u16) << 11,
            x87_valid: !state.x87_empty as u8,
            vectors: state.vectors.map(|vector| [vector[0], vector[1]]),
            mxcsr,
            // One that waits for its start sleeps, too.
            halted: state.halted != 0 || self.waits,
        }
    }

    fn set_registers(&mut self, registers: &Registers) {
        let before = self.registers();
        let state = self.vcpu.state_mut();
        state.gpr = registers.general;
        state.set_all_flags(registers.rflags | 2);
        for (register, new) in state.segments.iter_mut().zip(&registers.segments) {
            register.base = new.base;
            if register.selector != u64::from(new.selector) {
                register.selector = u64::from(new.selector);
                if state.cr[0] & control::CR0_PE == 0 {
                    register.base = u64::from(new.selector) << 4;
                }
            }
        }
        state.pc = registers.rip;
        if !registers.is_long_code() {
            state.pc = state.segments[CS].base.wrapping_add(registers.rip) & 0xffff_ffff;
        }
        if registers.rip != before.rip {
            state.halted = 0;
        }
        let [cr0, cr2, cr3, cr4, _] = registers.control;
        (state.cr[0], state.cr[2], state.cr[3], state.cr[4]) = (cr0, cr2, cr3, cr4);
        state.efer = registers.efer;
        state.msr.kernel_gs_base = registers.kernel_gs_base;
        state.dr = registers.debug;
        let top = usize::from(registers.x87_status >> 11 & 7);
        state.x87_top = top as u64;
        for (index, value) in registers.x87.iter().enumerate() {
            state.x87[(top + index) & 7] = *value;
        }
        state.x87_control = registers.x87_control.into();
        state.x87_status = u64::from(registers.x87_status & !(7 << 11));
        state.x87_empty = u64::from(!registers.x87_valid);
        for (vector, new) in state.vectors.iter_mut().zip(&registers.vectors) {
            vector[..2].copy_from_slice(new);
        }
        self.vcpu.set_fp_control(registers.mxcsr);
        if before.control != registers.control || before.efer != registers.efer {
            self.vcpu.flush_tlb(None, None);
        }
    }

    fn save(&mut self) -> Result<SavedProcessor, SavedError> {
        let mut saved = processor_state::save(self.vcpu.state());
        saved.insert("mxcsr".to_owned(), vec![self.vcpu.fp_control().into()]);
        saved.insert("waits".to_owned(), vec![self.waits.into()]);
        Ok(saved)
    }

    fn load(&mut self, saved: &SavedProcessor) -> Result<(), SavedError> {
        let mut state = *self.vcpu.state();
        processor_state::load(&mut state, saved)?;
        let [mxcsr] = field(saved, "mxcsr")?;
        let [waits] = field(saved, "waits")?;
        *self.vcpu.state_mut() = state;
        self.vcpu.set_fp_control(mxcsr as u32 & MXCSR_BITS);
        self.vcpu.flush_tlb(None, None);
        self.waits = waits != 0;
        Ok(())
    }
}

/// The bits that a processor lets a program set.
const MXCSR_BITS: u32 = 0xffff;

/// No more kicks come while one instruction is executed.
const KICKS_MAX: usize = 8;

/// The number of the task-priority register among the local APIC's.
const TASK_PRIORITY: u32 = 0x808;

/// The vector of non-maskable interrupts.
const NMI: u16 = 2;
const _: () = assert!(NMI < exception::BP);

#[cfg(test)]
mod tests {
    use memory::{AddressSpace, PAGE_SIZE};

    use super::*;
    use memory::{Ram, Region};

    /// No interrupts, no time.
    struct Silent;

    impl Chipset for Silent {
        fn enter(&self, _: usize) {}

        fn is_pending(&self, _: usize) -> bool {
            false
        }

        fn acknowledge(&self, _: usize) -> Option<u8> {
            None
        }

        fn read_apic(&self, _: usize, _: u32) -> u64 {
            0
        }

        fn write_apic(&self, _: usize, _: u32, _: u64) {}

        fn clock_ns(&self) -> u64 {
            0
        }

        fn triple_fault(&self, _: usize) {}

        fn ended(&self, _: u8) {}

        fn stopped(&self, _: usize, _: DebugStop) {}

        fn failed(&self, _: &str) {}
    }

    #[test]
    fn code_in_the_last_byte_of_a_range_that_goes_is_forgotten() {
        let ram = |last: u8| {
            let ram = Ram::new("code", PAGE_SIZE).expect("a page can be had");
            assert!(ram.write(PAGE_SIZE - 1, &[last]));
            Owner::Ram(Arc::new(ram))
        };
        let (halt, nothing) = (0xf4, 0x90);
        let space = Arc::new(AddressSpace::new());
        let code = space.add(Region::new("code", 0, PAGE_SIZE, ram(halt)));
        let behind = Ram::new("behind", PAGE_SIZE).expect("a page can be had");
        assert!(behind.write(0, &[halt]));
        space.add(Region::new("behind", PAGE_SIZE, PAGE_SIZE, Owner::Ram(Arc::new(behind))));
        let chipset: Arc<dyn Chipset> = Arc::new(Silent);
        let bus = BoardBus::new(&space, &Arc::new(AddressSpace::new()), &chipset);
        let bus = Space::System(Box::new(bus));
        let engine = Engine::new(X86::system(), bus, Options::detect()).expect("an engine");
        space.listen(Arc::new(MapChanges(Arc::downgrade(&engine))));
        let mut vcpu = Vcpu::new(&engine).expect("a vCPU");
        let mut halts_at = || {
            let mut state = State { pc: PAGE_SIZE - 1, ..State::default() };
            (state.segments[CS].selector, state.segments[CS].base) = (0, 0);
            *vcpu.state_mut() = state;
            assert_eq!(vcpu.run(), Exit::Event(Event::Halt));
            vcpu.state().pc
        };
        assert_eq!(halts_at(), PAGE_SIZE);
        space.update(|change| change.set_owner(code, ram(nothing)));
        assert_eq!(halts_at(), PAGE_SIZE + 1);
    }

    /// A machine of a page of RAM with this code at 0x100, which a vCPU is about to execute in real
    /// mode.
    pub(super) fn code(bytes: &[u8]) -> (Arc<Engine<X86>>, Vcpu<X86>, Arc<Ram>) {
        let ram = Arc::new(Ram::new("code", 2 * PAGE_SIZE).expect("two pages can be had"));
        assert!(ram.write(0x100, bytes));
        let space = Arc::new(AddressSpace::new());
        let owner = Owner::Ram(Arc::clone(&ram));
        space.add(Region::new("code", 0, 2 * PAGE_SIZE, owner));
        let chipset: Arc<dyn Chipset> = Arc::new(Silent);
        let bus = BoardBus::new(&space, &Arc::new(AddressSpace::new()), &chipset);
        let bus = Space::System(Box::new(bus));
        let engine = Engine::new(X86::system(), bus, Options::detect()).expect("an engine");
        let mut vcpu = Vcpu::new(&engine).expect("a vCPU");
        let mut state = State { pc: 0x100, ..State::default() };
        (state.segments[CS].selector, state.segments[CS].base) = (0, 0);
        *vcpu.state_mut() = state;
        (engine, vcpu, ram)
    }

    /// Counts CX down from 3: `mov cx, 3; again: inc ax; loop again; hlt`.
    const LOOP: &[u8] = &[0xb9, 3, 0, 0x40, 0xe2, 0xfd, 0xf4];

    #[test]
    fn a_breakpoint_stops_before_its_instruction_each_time() {
        let (engine, mut vcpu, _) = code(LOOP);
        let start = *vcpu.state();
        assert_eq!(vcpu.run(), Exit::Event(Event::Halt), "translated without a breakpoint");
        *vcpu.state_mut() = start;
        engine.set_breakpoint(0x104, true);
        for round in 1..=3 {
            assert_eq!(vcpu.run(), Exit::Breakpoint);
            assert_eq!((vcpu.state().pc, vcpu.state().gpr[0]), (0x104, round));
            // As gdb goes on: without it for one instruction.
            engine.set_breakpoint(0x104, false);
            assert_eq!(vcpu.step(), None);
            engine.set_breakpoint(0x104, true);
        }
        assert_eq!(vcpu.run(), Exit::Event(Event::Halt));
    }

    #[test]
    fn what_was_given_back_is_translated_again() {
        let (engine, mut vcpu, _) = code(LOOP);
        let start = *vcpu.state();
        for _ in 0..3 {
            *vcpu.state_mut() = start;
            assert_eq!(vcpu.run(), Exit::Event(Event::Halt));
            assert_eq!(vcpu.state().gpr[0], 3);
            let (used, blocks) = (engine.used_bytes(), engine.counters().blocks);
            engine.give_back();
            assert!(engine.used_bytes() < used && blocks > 0);
        }
    }

    #[test]
    fn a_breakpoint_within_an_instruction_is_passed() {
        let (engine, mut vcpu, _) = code(LOOP);
        engine.set_breakpoint(0x102, true);
        assert_eq!(vcpu.run(), Exit::Event(Event::Halt));
        assert_eq!(vcpu.state().gpr[0], 3);
    }

    #[test]
    fn watched_memory_stops_after_the_access() {
        // mov ax, [0x1000]; mov [0x1003], al; xchg [0x1002], ax; lock inc word [0x1010];
        // mov word [0x1001], 7; hlt
        let (engine, mut vcpu, ram) = code(&[
            0xa1, 0x00, 0x10, 0xa2, 0x03, 0x10, 0x87, 0x06, 0x02, 0x10, 0xf0, 0xff, 0x06, 0x10,
            0x10, 0xc7, 0x06, 0x01, 0x10, 0x07, 0x00, 0xf4,
        ]);
        let start = *vcpu.state();
        assert_eq!(vcpu.run(), Exit::Event(Event::Halt), "and the TLB knows the page");
        let run = |vcpu: &mut Vcpu<X86>, reads, writes| {
            let watch = Watch { start: 0x1002, bytes: 1, reads, writes };
            engine.set_watch(watch, true);
            *vcpu.state_mut() = start;
            let mut stops = Vec::new();
            loop {
                match vcpu.run() {
                    Exit::Watch(address) => {
                        assert_eq!(address, 0x1002);
                        stops.push(vcpu.state().pc);
                    }
                    exit => {
                        assert_eq!(exit, Exit::Event(Event::Halt));
                        engine.set_watch(watch, false);
                        return stops;
                    }
                }
            }
        };
        assert_eq!(run(&mut vcpu, false, true), [0x10a, 0x115]);
        assert_eq!(run(&mut vcpu, true, false), []);
        let mut words = [0; 2];
        assert!(ram.read(0x1010, &mut words) && words == [3, 0], "each time once: {words:?}");
    }
}
