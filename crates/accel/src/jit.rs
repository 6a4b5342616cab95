//! The translator as an accelerator, for x86 machines.

use std::io;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use isa::x86::{CS, RSI, Segment, State, Table, X86, control, exception};
use isa::{Event, FrontEnd};
use jit::{Engine, Exit, Options, Space, Vcpu};
use memory::{FlatRange, FlatView, Listener, Owner};
use parking_lot::Mutex;

use crate::board_bus::{self, BoardBus};
use crate::processor::Next;
use crate::{Board, Chipset, Processor, Processors};

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
/// boot protocol wants it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The first instruction.
    pub pc: u64,
    /// For RSI.
    pub parameters: u64,
    /// For CR3.
    pub page_tables: u64,
    /// Where a descriptor table lies, with 64-bit code at 0x10 and data at 0x18.
    pub descriptors: u64,
}

impl Entry {
    fn apply(&self, state: &mut State) {
        let segment =
            |selector, attributes| Segment { base: 0, limit: u32::MAX, attributes, selector };
        state.segments = [segment(0x18, 0xc093); 6];
        state.segments[CS] = segment(0x10, 0xa09b);
        state.gdtr = Table { base: self.descriptors, limit: 31 };
        state.cr[0] = control::CR0_PE | control::CR0_PG | 1 << 4;
        state.cr[3] = self.page_tables;
        state.cr[4] = control::CR4_PAE;
        state.efer = control::EFER_LME | control::EFER_LMA;
        state.pc = self.pc;
        state.gpr[RSI] = self.parameters;
    }
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
        let bus = BoardBus::new(&board.memory, &board.ports, &board.chipset);
        let engine = Engine::new(X86::system(), Space::System(Box::new(bus)), options)?;
        board.memory.listen(Arc::new(MapChanges(Arc::downgrade(&engine))));
        let count = processors.all().len();
        let mut threads = Vec::with_capacity(count);
        for processor in processors.all() {
            let (engine, processor) = (Arc::clone(&engine), Arc::clone(processor));
            let chipset = Arc::clone(&board.chipset);
            let name = format!("CPU {}/JIT", processor.number());
            let thread =
                thread::Builder::new().name(name).spawn(move || match Vcpu::new(&engine) {
                    Ok(vcpu) => {
                        VcpuThread { vcpu, processor, chipset, count, entry, waits: false }.run();
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
                Next::Run => self.round(number),
            }
        }
    }

    fn reset(&mut self, waits: bool) {
        let mut state = State::default();
        state.msr.apic_id = self.processor.number() as u64;
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
        match self.vcpu.run() {
            Exit::Kicked => {}
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
}
