//! A virtual CPU: its registers, its run loop, and what translated code calls.

mod access;
mod interpreted;
mod local;
mod stopped;
mod view;

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;

use isa::{Access, Event, Fetch, FrontEnd, GuestMemory, Key, MemoryFault, Stop, Translation};

use crate::engine::{Engine, Found, Full, UserFetch, fetch_event};
use crate::faults;
use crate::host::x86_64::tier1::COUNTS_AS_STORE;
use crate::host::x86_64::tier1::SlowAccess;
use crate::host::x86_64::vcpu_block::{self as layout, reason};
use crate::mapping::Memory;
use crate::raw::{self, BlockPointer};
use crate::space::{Bus, Space};
use crate::translator::{BlockKey, NO_PAGE, TAIL};
use interpreted::Bench;
use local::Local;
use view::{SystemFetch, Tables, View};

/// Why `run` came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// An event that the guest cannot handle itself.
    Event(Event),
    /// Someone called `Kick::kick`.
    Kicked,
    /// A breakpoint of the debugger's is the next instruction.
    Breakpoint,
    /// The instruction just executed has touched what is watched at this address.
    Watch(u64),
}

/// No large page in either half.
const NO_LARGE: [(u64, u64); 2] = [(u64::MAX, 0); 2];

/// What translated code's callbacks need. Lives at a fixed address.
struct Context<F: FrontEnd> {
    engine: Arc<Engine<F>>,
    block: BlockPointer,
    /// Why a helper or a slow access stopped.
    stop: Cell<Option<Stop>>,
    /// The next instruction is executed alone: it writes to its own code.
    step: Cell<bool>,
    /// The next instruction is executed without a look at breakpoints.
    unstopped: Cell<bool>,
    /// Likewise at what is watched.
    unwatched: Cell<bool>,
    /// Translated code runs, whose accesses to what is watched count.
    watches: Cell<bool>,
    /// What was hit: the instruction is undone and to be executed alone, then this is told.
    hit: Cell<Option<u64>>,
    /// What was hit of the guest's own watches, in its front end's bits.
    guest_hit: Cell<u64>,
    /// The mode of the calls on the return stack.
    returns_mode: Cell<u64>,
    /// The span of large pages that the TLB holds pieces of, in each half of the address space:
    /// forgetting a page in there forgets all, for its other pieces could be anywhere.
    large: Cell<[(u64, u64); 2]>,
    /// What the caches hold of one address space only.
    local: Local,
    /// Of an engine that interprets.
    bench: RefCell<Box<Bench>>,
}

/// A virtual CPU. Belongs to one thread at a time.
pub struct Vcpu<F: FrontEnd> {
    context: Box<Context<F>>,
    _memory: Memory,
}

/// Asks a vCPU to leave `run`, from any thread or signal handler.
#[derive(Clone, Copy, Debug)]
pub struct Kick(BlockPointer);

impl Kick {
    /// `run` returns `Exit::Kicked` soon, or at once when it is called next.
    pub fn kick(&self) {
        self.0.request(BlockPointer::REQUEST_KICK);
    }
}

impl<F: FrontEnd> Vcpu<F> {
    /// A vCPU in reset state.
    pub fn new(engine: &Arc<Engine<F>>) -> io::Result<Self> {
        let memory = Memory::new(layout::BYTES as usize)?;
        let block = BlockPointer::new(&memory);
        let context = Box::new(Context {
            engine: engine.clone(),
            block,
            stop: Cell::new(None),
            step: Cell::new(false),
            unstopped: Cell::new(false),
            unwatched: Cell::new(false),
            watches: Cell::new(false),
            hit: Cell::new(None),
            guest_hit: Cell::new(0),
            returns_mode: Cell::new(0),
            large: Cell::new(NO_LARGE),
            local: Local::new(),
            bench: RefCell::default(),
        });
        block.set_word(layout::SELF, block.address());
        block.set_word(layout::CONTEXT, &raw const *context as u64);
        block.set_word(layout::HELPER_FUNCTION, helper_entry::<F> as *const () as u64);
        block.set_word(layout::MEMORY_FUNCTION, memory_entry::<F> as *const () as u64);
        block.set_word32(layout::GUEST_MXCSR, 0x1f80);
        block.reset_returns(&engine.stubs);
        block.forget_first_jump();
        if matches!(engine.space, Space::System(_)) {
            block.forget_tlb();
        }
        for (index, word) in (0..).zip(layout::constants()) {
            block.set_word(layout::CONSTANTS + 8 * index, word);
        }
        if let Some(tier) = engine.options.second_tier {
            for number in 0..layout::COUNTERS_COUNT {
                block.set_word32(layout::COUNTERS + 4 * number, tier.entries());
            }
        }
        engine.register(block);
        let vcpu = Self { context, _memory: memory };
        *raw::state_mut(block.state()) = engine.front_end.reset();
        Ok(vcpu)
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine<F>> {
        &self.context.engine
    }

    /// The registers.
    pub fn state(&self) -> &F::State {
        raw::state_ref(self.context.block.state())
    }

    /// The registers, to change.
    pub fn state_mut(&mut self) -> &mut F::State {
        raw::state_mut(self.context.block.state())
    }

    /// FP control and sticky status, in the layout of MXCSR.
    pub fn fp_control(&self) -> u32 {
        self.context.block.word(layout::GUEST_MXCSR) as u32
    }

    /// Sets it.
    pub fn set_fp_control(&mut self, value: u32) {
        self.context.block.set_word32(layout::GUEST_MXCSR, value & 0xffff | 0x1f80);
    }

    /// A handle for other threads.
    pub fn kicker(&self) -> Kick {
        Kick(self.context.block)
    }

    /// Guest memory as this vCPU sees it now.
    pub fn memory(&mut self) -> impl GuestMemory + '_ {
        View { context: &*self.context }
    }

    /// Forgets translations of one page or all.
    pub fn flush_tlb(&mut self, address: Option<u64>, asid: Option<u16>) {
        View { context: &*self.context }.flush_tlb(address, asid);
    }

    /// Runs guest code until something happens that the caller must see.
    pub fn run(&mut self) -> Exit {
        faults::ensure_signal_stack();
        loop {
            if self.is_kicked() {
                return Exit::Kicked;
            }
            let exit = match self.context.engine.options.interpret {
                false => self.context.one_round(),
                true => self.context.interpreted_round(),
            };
            if let Some(exit) = exit {
                return exit;
            }
        }
    }

    /// Does what other threads have asked for. True: they want this one to come out.
    fn is_kicked(&mut self) -> bool {
        let requests = self.context.block.take_requests();
        if requests & BlockPointer::REQUEST_FLUSH != 0 {
            self.flush_tlb(None, None);
        }
        requests & BlockPointer::REQUEST_KICK != 0
    }

    /// Executes one instruction, for debuggers.
    pub fn step(&mut self) -> Option<Exit> {
        /// A full cache or a write to guarded code takes a second look, a jump to itself no third.
        const LOOKS: usize = 3;
        faults::ensure_signal_stack();
        let pc = |context: &Context<F>| context.engine.front_end.key(context.state()).pc;
        let before = pc(&self.context);
        for _ in 0..LOOKS {
            if self.is_kicked() {
                return Some(Exit::Kicked);
            }
            self.context.step.set(true);
            let exit = self.context.one_round();
            if exit.is_some() || pc(&self.context) != before {
                return exit;
            }
        }
        None
    }
}

impl<F: FrontEnd> Drop for Vcpu<F> {
    fn drop(&mut self) {
        self.context.engine.unregister(self.context.block);
    }
}

/// Why there is no code to enter.
enum Missing {
    Full,
    Fault(MemoryFault),
}

/// The run loop's steps.
impl<F: FrontEnd> Context<F> {
    /// From the run loop into translated code and back.
    fn one_round(&self) -> Option<Exit> {
        let engine = &*self.engine;
        let world = engine.world.read();
        let alone = self.step.get();
        let told = self.hit.get().filter(|_| self.unwatched.get());
        let host = match self.look_up() {
            Ok(host) => host,
            Err(Missing::Full) => {
                drop(world);
                engine.flush();
                return None;
            }
            Err(Missing::Fault(error)) => {
                drop(world);
                return self.deliver(fetch_event(error));
            }
        };
        self.begin_watching();
        let reason = self.enter(host, alone);
        let open = self.end_watching();
        let detail = self.block.word(layout::DETAIL);
        let event = match reason {
            reason::LINK => {
                self.follow(detail as u32, true);
                None
            }
            reason::KICK => {
                self.follow(detail as u32, false);
                None
            }
            reason::HOT => {
                self.promote(detail as u32);
                None
            }
            reason::LOOKUP => None, // asked for meanwhile: the loop looks at that first
            reason::EVENT => {
                Some(Event::from_raise(detail as u16, self.block.word(layout::DETAIL2)))
            }
            reason::FAULT => self.host_fault(),
            reason::STOP => match self.stop.take() {
                Some(Stop::Event(event)) => Some(event),
                _ => None,
            },
            _ => None, // MODE: the loop asks for a new key
        };
        drop(world);
        if open {
            let bits = self.guest_hit.replace(0);
            let state = raw::state_mut(self.block.state());
            engine.front_end.watch_hit(state, bits, event);
        }
        if open && let Some(address) = told {
            // An event of the instruction comes first, and then the stop at its handler.
            let exit = event.and_then(|event| self.deliver(event));
            self.hit.set(None);
            return exit.or(Some(Exit::Watch(address)));
        }
        let event = event?;
        match engine.stops.any() || self.guest_hit.get() != 0 {
            false => self.deliver(event),
            true => self.deliver_stopped(event),
        }
    }

    /// Runs translated code from a host address on, and says why it was left. Targets that the jump
    /// cache does not know are looked up on the way, while nobody asks for anything and it is not an
    /// instruction `alone`.
    fn enter(&self, mut host: u64, alone: bool) -> u32 {
        let engine = &*self.engine;
        loop {
            if self.block.returns_are_full() {
                self.block.reset_returns(&engine.stubs);
            }
            self.block.enter(&engine.stubs, engine.fsgsbase, host);
            let reason = self.block.word(layout::REASON) as u32;
            if reason != reason::LOOKUP {
                return reason;
            }
            let next = self.remember();
            match next.filter(|_| !alone && !self.block.is_anything_asked()) {
                Some(next) => host = next,
                None => return reason,
            }
        }
    }

    fn deliver(&self, event: Event) -> Option<Exit> {
        let state = raw::state_mut(self.block.state());
        let delivered = self.engine.front_end.deliver(state, &mut View { context: self }, event);
        delivered.err().map(Exit::Event)
    }

    fn set_pc(&self, pc: u64) {
        self.block.set_word(layout::STATE + u32::from(F::LAYOUT.pc), pc);
    }

    /// The host address of the code at the current key. Returns go straight back into code of the
    /// mode of their call, so a new mode begins with no calls.
    fn look_up(&self) -> Result<u64, Missing> {
        let key = self.engine.front_end.key(self.state());
        let step = self.step.replace(false);
        let found = self.find(key, step)?;
        self.note_mode(key, &found);
        Ok(found.host)
    }

    fn note_mode(&self, key: Key, found: &Found) {
        let mode = key.mode & !F::VARIANT; // returns know of that themselves
        if !found.apart && self.returns_mode.replace(mode) != mode {
            self.block.reset_returns(&self.engine.stubs);
        }
    }

    /// A direct exit was taken that is not linked, or stopped.
    fn follow(&self, site: u32, link: bool) {
        let Some(pc) = self.engine.site_target(site) else { return };
        self.set_pc(pc);
        if !link {
            return;
        }
        let key = self.engine.front_end.key(self.state());
        if let Ok(found) = self.find(key, false) {
            self.engine.link(site, found.number);
        }
    }

    /// An indirect target was not in the jump cache. Gives its host address, unless the run loop has
    /// to see to it.
    fn remember(&self) -> Option<u64> {
        let key = self.engine.front_end.key(self.state());
        let found = self.find(key, false).ok()?;
        // Under the lock: who invalidates the block meanwhile clears the entry after it was made.
        let mut translator = self.engine.translator.lock();
        let block = &translator.list[found.number as usize];
        if !block.alive {
            return None;
        }
        let second = block.key.second != NO_PAGE;
        let tag = translator.mode_tag(key.mode);
        self.block.remember_jump(key.pc, tag, found.host);
        drop(translator);
        let view = self.engine.front_end.mmu_view(key.mode);
        self.local.note_jump(key.pc, view, second);
        self.note_mode(key, &found);
        Some(found.host)
    }

    /// Registers that the faulting code had borrowed are the guest's again.
    fn restore_borrowed(&self, rip: u64) {
        let borrowed = self.engine.borrowed_at(rip);
        for &(offset, host) in &self.engine.map.gprs {
            if borrowed & 1 << host != 0 {
                let kept = self.block.word(layout::GPR_SAVE + 8 * u32::from(host));
                self.block.set_word(layout::STATE + u32::from(offset), kept);
            }
        }
    }

    /// A host signal in translated code.
    fn host_fault(&self) -> Option<Event> {
        let block = self.block;
        let (address, rip) = (block.word(layout::FAULT_ADDRESS), block.word(layout::FAULT_RIP));
        let kind = block.word(layout::FAULT_KIND);
        if let Some(pc) = self.engine.pc_of(rip) {
            self.set_pc(pc);
        }
        if kind == faults::DIVIDE {
            // RAX and RDX hold the operands of the division; the guest's were kept.
            for &(offset, host) in &self.engine.map.gprs {
                if host == 0 || host == 2 {
                    let kept = block.word(layout::GPR_SAVE + 8 * u32::from(host));
                    block.set_word(layout::STATE + u32::from(offset), kept);
                }
            }
        }
        self.restore_borrowed(rip);
        let access = match kind {
            faults::DIVIDE => Access::Divide,
            faults::UNALIGNED => Access::Unaligned,
            kind if kind & faults::WRITE != 0 => Access::Write,
            _ if self.engine.borrowed_at(rip) & COUNTS_AS_STORE != 0 => Access::Write,
            _ => Access::Read,
        };
        let bus = kind & faults::BUS;
        if access == Access::Write && bus == 0 && self.engine.written_code(address) {
            // Executed alone, so that it does not guard the page again before it has written.
            self.step.set(true);
            return None;
        }
        Some(Event::Memory(MemoryFault { address, access, detail: bus }))
    }
}

impl<F: FrontEnd> Context<F> {
    fn state(&self) -> &F::State {
        raw::state_ref(self.block.state())
    }

    fn find(&self, key: Key, step: bool) -> Result<Found, Missing> {
        let engine = &*self.engine;
        let view = engine.front_end.mmu_view(key.mode);
        let key = match &engine.space {
            Space::User(_) => BlockKey { physical: key.pc, second: NO_PAGE, key },
            Space::System(_) => {
                let physical = self.fetch_address(key.pc, view).map_err(Missing::Fault)?;
                BlockKey { physical, second: self.second_page(key.pc, view), key }
            }
        };
        let seen = !(step && self.unstopped.replace(false));
        let found = self.fetching(key, seen, |fetch| match step {
            false => engine.find(key, fetch, view),
            true => engine.find_step(key, fetch, view),
        });
        found.map_err(|Full| Missing::Full)
    }

    /// Does something with what fetches the code at `key`, up to where a debugger stops the guest
    /// unless that is not to be seen.
    fn fetching<R>(&self, key: BlockKey, seen: bool, f: impl FnOnce(&mut dyn Fetch) -> R) -> R {
        let stops = seen.then_some(&self.engine.stops);
        match &self.engine.space {
            Space::User(_) => f(&mut UserFetch { engine: &self.engine }),
            Space::System(bus) => f(&mut SystemFetch { bus: &**bus, key, stops }),
        }
    }

    /// A block is hot: its region is the second tier's from now on. Without room for it, it stays
    /// what it is until the cache is full anyway.
    fn promote(&self, hot: u32) {
        let engine = &*self.engine;
        if let Some(tier) = engine.options.second_tier {
            let counter = layout::COUNTERS + 4 * (hot % layout::COUNTERS_COUNT);
            self.block.set_word32(counter, tier.entries());
        }
        let region = engine.region(hot);
        let all = region.iter().all(|&key| {
            let view = engine.front_end.mmu_view(key.key.mode);
            self.fetching(key, true, |fetch| engine.promote(key, fetch, view))
        });
        if all {
            engine.link_region(&region);
        }
    }

    fn bus(&self) -> &dyn Bus {
        match &self.engine.space {
            Space::System(bus) => &**bus,
            Space::User(_) => unreachable!("user mode has no soft MMU"),
        }
    }

    fn walk(&self, address: u64, access: Access, view: u16) -> Result<Translation, MemoryFault> {
        let mut tables = Tables { bus: self.bus() };
        self.engine.front_end.walk(self.state(), &mut tables, address, access, view)
    }

    /// The physical address of code.
    fn fetch_address(&self, pc: u64, view: u16) -> Result<u64, MemoryFault> {
        if let Some((physical, _)) = self.local.fetched(pc, view) {
            return Ok(physical | pc & 0xfff);
        }
        let Translation { physical, global, .. } = self.walk(pc, Access::Execute, view)?;
        self.local.note_fetch(pc, view, physical, global);
        Ok(physical)
    }

    /// The physical page into which an instruction may reach that begins near the end of its page.
    fn second_page(&self, pc: u64, view: u16) -> u64 {
        if pc & 0xfff < TAIL {
            return NO_PAGE;
        }
        self.fetch_address((pc | 0xfff).wrapping_add(1), view).unwrap_or(NO_PAGE)
    }
}

/// Translated code calls a helper. Non-zero: leave.
extern "sysv64" fn helper_entry<F: FrontEnd>(block: u64, helper: u32) -> u32 {
    let context = context_of::<F>(block);
    let arguments = [0, 8, 16].map(|offset| context.block.word(layout::ARGUMENTS + offset));
    let helper = &F::HELPERS[helper as usize];
    let state = raw::state_mut(context.block.state());
    match (helper.call)(state, &mut View { context }, arguments) {
        Ok(value) => {
            context.block.set_word(layout::RESULT, value);
            0
        }
        Err(stop) => {
            context.restore_borrowed(context.block.word(layout::RETURN_RIP) - 1);
            context.stop.set(Some(stop));
            1
        }
    }
}

/// Translated code makes a memory access that the TLB does not know. Non-zero: leave.
extern "sysv64" fn memory_entry<F: FrontEnd>(block: u64, operation: u32) -> u32 {
    let context = context_of::<F>(block);
    match context.slow(SlowAccess(operation)) {
        Ok(()) => 0,
        Err(stop) => {
            let rip = context.block.word(layout::RETURN_RIP);
            if let Some(pc) = context.engine.pc_of(rip - 1) {
                context.block.set_word(layout::STATE + u32::from(F::LAYOUT.pc), pc);
            }
            context.restore_borrowed(rip - 1);
            context.stop.set(Some(stop));
            1
        }
    }
}

fn context_of<F: FrontEnd>(block: u64) -> &'static Context<F> {
    raw::context(raw::context::<[u64; 32]>(block)[layout::CONTEXT as usize / 8])
}
