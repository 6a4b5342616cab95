//! A virtual CPU: its registers, its run loop, and what translated code calls.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;

use isa::{
    Access, Event, Fetch, FrontEnd, GuestMemory, Key, MemoryFault, Physical, Stop, Translation,
};

use crate::engine::{Engine, Found, Full, UserFetch, fetch_event};
use crate::faults;
use crate::host::x86_64::tier1::SlowAccess;
use crate::host::x86_64::vcpu_block::{self as layout, reason};
use crate::mapping::Memory;
use crate::raw::{self, BlockPointer};
use crate::space::{Bus, Space, fault};
use crate::translator::{BlockKey, NO_PAGE, TAIL};

/// Why `run` came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// An event that the guest cannot handle itself.
    Event(Event),
    /// Someone called `Kick::kick`.
    Kicked,
}

/// Pages whose translation for fetches is remembered.
const FETCH_PAGES: usize = 64;

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
    /// The mode of the calls on the return stack.
    returns_mode: Cell<u64>,
    /// The span of large pages that the TLB holds pieces of, in each half of the address space:
    /// forgetting a page in there forgets all, for its other pieces could be anywhere.
    large: Cell<[(u64, u64); 2]>,
    /// By page number: (virtual page, physical page) of recent fetches.
    fetches: RefCell<[(u64, u64); FETCH_PAGES]>,
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
            returns_mode: Cell::new(0),
            large: Cell::new(NO_LARGE),
            fetches: RefCell::new([(u64::MAX, 0); FETCH_PAGES]),
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
        self.context.block.set_word32(layout::GUEST_MXCSR, value & 0xffbf | 0x1f80);
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
            let requests = self.context.block.take_requests();
            if requests & BlockPointer::REQUEST_FLUSH != 0 {
                self.flush_tlb(None, None);
            }
            if requests & BlockPointer::REQUEST_KICK != 0 {
                return Exit::Kicked;
            }
            if let Some(exit) = self.context.one_round() {
                return exit;
            }
        }
    }
}

impl<F: FrontEnd> Vcpu<F> {
    /// Executes one instruction, for debuggers.
    pub fn step(&mut self) -> Option<Exit> {
        /// A full cache or a write to guarded code takes a second look, a jump to itself no third.
        const LOOKS: usize = 3;
        faults::ensure_signal_stack();
        let pc = |context: &Context<F>| context.engine.front_end.key(context.state()).pc;
        let before = pc(&self.context);
        for _ in 0..LOOKS {
            let requests = self.context.block.take_requests();
            if requests & BlockPointer::REQUEST_FLUSH != 0 {
                self.flush_tlb(None, None);
            }
            if requests & BlockPointer::REQUEST_KICK != 0 {
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
        let world = engine.world.read_recursive();
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
        self.block.enter(&engine.stubs, engine.fsgsbase, host);
        let reason = self.block.word(layout::REASON) as u32;
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
            reason::LOOKUP => {
                self.remember();
                None
            }
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
        self.deliver(event?)
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
        if !found.apart && self.returns_mode.replace(key.mode) != key.mode {
            self.block.reset_returns(&self.engine.stubs);
        }
        Ok(found.host)
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

    /// An indirect target was not in the jump cache.
    fn remember(&self) {
        let key = self.engine.front_end.key(self.state());
        let Ok(found) = self.find(key, false) else { return };
        // Under the lock: who invalidates the block meanwhile clears the entry after it was made.
        let mut translator = self.engine.translator.lock();
        if translator.list[found.number as usize].alive {
            let tag = translator.mode_tag(key.mode);
            self.block.remember_jump(key.pc, tag, found.host);
        }
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
        let found = match &engine.space {
            Space::User(_) => {
                let mut fetch = UserFetch { engine };
                let key = BlockKey { physical: key.pc, second: NO_PAGE, key };
                match step {
                    false => engine.find(key, &mut fetch, view),
                    true => engine.find_step(key, &mut fetch, view),
                }
            }
            Space::System(_) => {
                let physical = self.fetch_address(key.pc, view).map_err(Missing::Fault)?;
                let second = self.second_page(key.pc, view);
                let key = BlockKey { physical, second, key };
                let mut fetch = SystemFetch { bus: self.bus(), key };
                match step {
                    false => engine.find(key, &mut fetch, view),
                    true => engine.find_step(key, &mut fetch, view),
                }
            }
        };
        found.map_err(|Full| Missing::Full)
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
        let page = pc >> 12 << 2 | u64::from(view);
        let slot = (pc >> 12) as usize % FETCH_PAGES;
        let (known, physical) = self.fetches.borrow()[slot];
        if known == page {
            return Ok(physical | pc & 0xfff);
        }
        let translation = self.walk(pc, Access::Execute, view)?;
        self.fetches.borrow_mut()[slot] = (page, translation.physical & !0xfff);
        Ok(translation.physical)
    }

    /// The physical page into which an instruction may reach that begins near the end of its page.
    fn second_page(&self, pc: u64, view: u16) -> u64 {
        if pc & 0xfff < TAIL {
            return NO_PAGE;
        }
        self.fetch_address((pc | 0xfff).wrapping_add(1), view).unwrap_or(NO_PAGE)
    }

    fn note_large(&self, address: u64, page_bits: u8) {
        if page_bits <= 12 {
            return;
        }
        let mask = (1 << page_bits) - 1;
        let mut large = self.large.get();
        let (start, end) = &mut large[(address >> 63) as usize];
        (*start, *end) = ((*start).min(address & !mask), (*end).max(address | mask));
        self.large.set(large);
    }

    /// Where a slow access goes: RAM, which the TLB then knows, or a device.
    fn place(&self, address: u64, access: Access, view: u16) -> Result<Place, MemoryFault> {
        let translation = self.walk(address, access, view)?;
        self.note_large(address, translation.page_bits);
        let physical = translation.physical;
        let Some(page) = self.bus().page(physical & !0xfff) else {
            return Ok(Place::Device(physical));
        };
        // Under the lock: who translates code of this page meanwhile forbids writes after this.
        let translator = self.engine.translator.lock();
        let code = translator.pages.contains_key(&(physical >> 12));
        let writable = translation.write && page.writable && !code;
        let (read, virtual_page) = (translation.read, address & !0xfff);
        self.block.remember_page(view, virtual_page, page.address, read, writable);
        drop(translator);
        let host = page.address + (physical & 0xfff);
        Ok(match access {
            Access::Write if !page.writable => Place::Device(physical),
            Access::Write if code => Place::Code { host, physical },
            _ => Place::Ram { host, physical },
        })
    }

    fn load(&self, address: u64, bytes: u32, view: u16) -> Result<u64, MemoryFault> {
        if (address & 0xfff) + u64::from(bytes) > 0x1000 {
            return self.load_pieces(address, bytes, view);
        }
        Ok(match self.place(address, Access::Read, view)? {
            Place::Ram { host, .. } | Place::Code { host, .. } => raw::host_load(host, bytes),
            Place::Device(physical) => self.bus().read(physical, bytes),
        })
    }

    fn load_pieces(&self, address: u64, bytes: u32, view: u16) -> Result<u64, MemoryFault> {
        let mut value = 0;
        for index in 0..bytes {
            let byte = self.load(address.wrapping_add(u64::from(index)), 1, view)?;
            value |= byte << (8 * index);
        }
        Ok(value)
    }

    /// `Ok(false)`: the store hits translated code that is gone now; do it again, alone.
    fn store(&self, address: u64, bytes: u32, value: u64, view: u16) -> Result<(), MemoryFault> {
        if (address & 0xfff) + u64::from(bytes) > 0x1000 {
            return self.store_pieces(address, bytes, value, view);
        }
        match self.place(address, Access::Write, view)? {
            Place::Ram { host, physical } | Place::Code { host, physical } => {
                raw::host_store(host, bytes, value);
                // Also where no code was: another vCPU may have translated what stood there until
                // now, since we looked.
                self.engine.invalidate(physical, physical + u64::from(bytes));
            }
            Place::Device(physical) => {
                self.bus().write(physical, bytes, value);
                // A register may change the map (flash shows its status instead of its contents),
                // and the next instruction must see it: a flush asked of all is due here at once.
                if self.block.is_asked(BlockPointer::REQUEST_FLUSH) {
                    View { context: self }.flush_tlb(None, None);
                }
            }
        }
        Ok(())
    }

    fn store_pieces(
        &self,
        address: u64,
        bytes: u32,
        value: u64,
        view: u16,
    ) -> Result<(), MemoryFault> {
        // Both pages must accept the store before anything is written.
        self.place(address, Access::Write, view)?;
        self.place(address.wrapping_add(u64::from(bytes) - 1), Access::Write, view)?;
        for index in 0..bytes {
            let at = address.wrapping_add(u64::from(index));
            self.store(at, 1, value >> (8 * index) & 0xff, view)?;
        }
        Ok(())
    }

    fn slow(&self, access: SlowAccess) -> Result<(), Stop> {
        let address = self.block.word(layout::ARGUMENTS);
        let (bytes, view) = (access.bytes(), access.view());
        let event = |error| Stop::Event(Event::Memory(error));
        if access.aligned() && !address.is_multiple_of(u64::from(bytes)) {
            return Err(event(fault(address, Access::Unaligned)));
        }
        if access.is_cas() {
            return self.slow_cas(address, bytes, view).map_err(event);
        }
        if access.is_refill() {
            return self.refill(address, bytes, view);
        }
        let width = bytes.min(8);
        if access.is_write() && self.hits_code(address, bytes, view).map_err(event)? {
            // The store may change the very block it stands in: once more, alone.
            self.step.set(true);
            return Err(Stop::Lookup);
        }
        for offset in (0..bytes).step_by(width as usize) {
            let at = address.wrapping_add(u64::from(offset));
            let word = layout::RESULT + offset;
            if access.is_write() {
                self.store(at, width, self.block.word(word), view).map_err(event)?;
            } else {
                let value = self.load(at, width, view).map_err(event)?;
                self.block.set_word(word, value);
            }
        }
        Ok(())
    }

    /// Invalidates the code a store is about to change. Not again for the store that is executed
    /// alone because of it: then no code is left.
    fn hits_code(&self, address: u64, bytes: u32, view: u16) -> Result<bool, MemoryFault> {
        let Place::Code { physical, .. } = self.place(address, Access::Write, view)? else {
            return Ok(false);
        };
        let mut translator = self.engine.translator.lock();
        Ok(self.engine.invalidate_locked(&mut translator, physical, physical + u64::from(bytes)))
    }

    /// An atomic operation needs its page in the TLB.
    fn refill(&self, address: u64, bytes: u32, view: u16) -> Result<(), Stop> {
        let event = |error| Stop::Event(Event::Memory(error));
        let crosses = (address & 0xfff) + u64::from(bytes) > 0x1000;
        if crosses {
            return Err(event(fault(address, Access::Unaligned)));
        }
        match self.place(address, Access::Write, view).map_err(event)? {
            Place::Ram { .. } => Ok(()),
            Place::Code { physical, .. } => {
                let page = physical & !0xfff;
                self.engine.invalidate(page, page + 0x1000);
                self.step.set(true);
                Err(Stop::Lookup)
            }
            // Atomics on devices do not exist: an access fault is what buses answer.
            Place::Device(_) => Err(event(fault(address, Access::Write))),
        }
    }

    fn slow_cas(&self, address: u64, bytes: u32, view: u16) -> Result<(), MemoryFault> {
        let wide = |offset: u32| {
            u128::from(self.block.word(offset)) | u128::from(self.block.word(offset + 8)) << 64
        };
        let mask = if bytes == 16 { u128::MAX } else { (1 << (8 * bytes)) - 1 };
        let (old, new) = (wide(layout::RESULT) & mask, wide(layout::RESULT2) & mask);
        let seen = self.compare_exchange(address, bytes, old, new, view)?;
        self.block.set_word(layout::RESULT, seen as u64);
        if bytes == 16 {
            self.block.set_word(layout::RESULT + 8, (seen >> 64) as u64);
        }
        Ok(())
    }

    fn compare_exchange(
        &self,
        address: u64,
        bytes: u32,
        old: u128,
        new: u128,
        view: u16,
    ) -> Result<u128, MemoryFault> {
        if !address.is_multiple_of(u64::from(bytes)) {
            return Err(fault(address, Access::Unaligned));
        }
        let mut code = None;
        let host = match &self.engine.space {
            Space::User(_) => self.user_host(address, bytes)?,
            Space::System(_) => match self.place(address, Access::Write, view)? {
                Place::Ram { host, physical } | Place::Code { host, physical } => {
                    code = Some(physical);
                    host
                }
                Place::Device(_) => return Err(fault(address, Access::Write)),
            },
        };
        let seen = match bytes {
            16 => raw::host_cas_wide(host, old, new),
            _ => u128::from(raw::host_cas(host, bytes, old as u64, new as u64)),
        };
        // Now, or another vCPU could translate the old code in between; it may have done so even if
        // there was none before.
        if let Some(physical) = code {
            self.engine.invalidate(physical, physical + u64::from(bytes));
        }
        Ok(seen)
    }

    /// User mode: the address, once it is known to be writable.
    fn user_host(&self, address: u64, bytes: u32) -> Result<u64, MemoryFault> {
        let mut word = [0; 16];
        let word = &mut word[..bytes as usize];
        let missing = |_| fault(address, Access::Write);
        self.engine.copy_from_user(address, word).map_err(missing)?;
        self.write_user(address, word)?;
        Ok(address)
    }

    /// User mode: writes, lifting our own protection of code.
    fn write_user(&self, address: u64, from: &[u8]) -> Result<(), MemoryFault> {
        let mut done = 0;
        while let Err(missing) = self.engine.copy_to_user(address + done as u64, &from[done..]) {
            done = from.len() - missing;
            let at = address + done as u64;
            if !self.engine.written_code(at) {
                return Err(fault(at, Access::Write));
            }
        }
        Ok(())
    }
}

/// What stands at an address.
enum Place {
    /// RAM at a host address.
    Ram { host: u64, physical: u64 },
    /// RAM that code was translated from.
    Code { host: u64, physical: u64 },
    /// A device, or ROM that is written.
    Device(u64),
}

/// Guest memory for helpers.
struct View<'a, F: FrontEnd> {
    context: &'a Context<F>,
}

impl<F: FrontEnd> View<'_, F> {
    fn is_user(&self) -> bool {
        matches!(self.context.engine.space, Space::User(_))
    }

    fn view(&self, index: u16) -> u16 {
        match index {
            0 => {
                let front_end = &self.context.engine.front_end;
                front_end.mmu_view(front_end.key(self.context.state()).mode)
            }
            index => index,
        }
    }
}

impl<F: FrontEnd> GuestMemory for View<'_, F> {
    fn load(&mut self, address: u64, bytes: u32, index: u16) -> Result<u64, MemoryFault> {
        if !self.is_user() {
            return self.context.load(address, bytes, self.view(index));
        }
        let mut word = [0; 8];
        self.read(address, &mut word[..bytes as usize], index)?;
        Ok(u64::from_le_bytes(word))
    }

    fn store(
        &mut self,
        address: u64,
        bytes: u32,
        value: u64,
        index: u16,
    ) -> Result<(), MemoryFault> {
        if !self.is_user() {
            return self.context.store(address, bytes, value, self.view(index));
        }
        self.context.write_user(address, &value.to_le_bytes()[..bytes as usize])
    }

    fn read(&mut self, address: u64, into: &mut [u8], index: u16) -> Result<(), MemoryFault> {
        if self.is_user() {
            let bytes = into.len();
            let engine = &self.context.engine;
            return engine
                .copy_from_user(address, into)
                .map_err(|missing| fault(address + (bytes - missing) as u64, Access::Read));
        }
        let view = self.view(index);
        let mut at = address;
        let mut rest = into;
        while !rest.is_empty() {
            let piece = rest.len().min((0x1000 - (at & 0xfff)) as usize);
            let (now, later) = rest.split_at_mut(piece);
            match self.context.place(at, Access::Read, view)? {
                Place::Ram { host, .. } | Place::Code { host, .. } => raw::host_read(host, now),
                Place::Device(physical) => {
                    for (address, byte) in (physical..).zip(now) {
                        *byte = self.context.bus().read(address, 1) as u8;
                    }
                }
            }
            at = at.wrapping_add(piece as u64);
            rest = later;
        }
        Ok(())
    }

    fn write(&mut self, address: u64, from: &[u8], index: u16) -> Result<(), MemoryFault> {
        if self.is_user() {
            return self.context.write_user(address, from);
        }
        let view = self.view(index);
        let last = address.wrapping_add(from.len() as u64).wrapping_sub(1);
        for page in address >> 12..=last >> 12 {
            self.context.place((page << 12).max(address), Access::Write, view)?;
        }
        let mut at = address;
        let mut rest = from;
        while !rest.is_empty() {
            let piece = rest.len().min((0x1000 - (at & 0xfff)) as usize);
            let (now, later) = rest.split_at(piece);
            match self.context.place(at, Access::Write, view)? {
                Place::Ram { host, physical } | Place::Code { host, physical } => {
                    raw::host_write(host, now);
                    self.context.engine.invalidate(physical, physical + piece as u64);
                }
                Place::Device(physical) => {
                    for (address, &byte) in (physical..).zip(now) {
                        self.context.bus().write(address, 1, u64::from(byte));
                    }
                }
            }
            at = at.wrapping_add(piece as u64);
            rest = later;
        }
        Ok(())
    }

    fn probe(&mut self, address: u64, bytes: u32, access: Access) -> Result<(), MemoryFault> {
        let last = address.wrapping_add(u64::from(bytes.max(1)) - 1);
        if self.is_user() {
            for at in [address, last] {
                match access {
                    Access::Write => self.context.user_host(at, 1).map(|_| ())?,
                    _ => self.load(at, 1, 0).map(|_| ())?,
                }
            }
            return Ok(());
        }
        let view = self.view(0);
        for at in [address, last] {
            self.context.walk(at, access, view)?;
        }
        Ok(())
    }

    fn compare_exchange(
        &mut self,
        address: u64,
        bytes: u32,
        old: u128,
        new: u128,
        index: u16,
    ) -> Result<u128, MemoryFault> {
        let view = if self.is_user() { 0 } else { self.view(index) };
        self.context.compare_exchange(address, bytes, old, new, view)
    }

    fn flush_tlb(&mut self, address: Option<u64>, _asid: Option<u16>) {
        if self.is_user() {
            return;
        }
        let in_large = |address: u64| {
            let (start, end) = self.context.large.get()[(address >> 63) as usize];
            (start..=end).contains(&address)
        };
        match address {
            Some(address) if !in_large(address) => self.context.block.forget_tlb_page(address),
            _ => {
                self.context.large.set(NO_LARGE);
                self.context.block.forget_tlb();
            }
        }
        *self.context.fetches.borrow_mut() = [(u64::MAX, 0); FETCH_PAGES];
        self.context.block.forget_jumps(0, u64::MAX);
        self.context.block.forget_returns();
    }

    fn flush_code(&mut self, address: u64, bytes: u64) {
        if self.is_user() {
            self.context.engine.invalidate(address, address.saturating_add(bytes));
        }
        // System mode sees every store to code pages by itself.
    }

    fn machine_read(&mut self, space: u32, address: u64, bytes: u32) -> u64 {
        match &self.context.engine.space {
            Space::User(_) => u64::MAX,
            Space::System(bus) => bus.machine_read(space, address, bytes),
        }
    }

    fn machine_write(&mut self, space: u32, address: u64, bytes: u32, value: u64) {
        if let Space::System(bus) = &self.context.engine.space {
            bus.machine_write(space, address, bytes, value);
        }
    }

    fn clock_ns(&mut self) -> u64 {
        match &self.context.engine.space {
            Space::System(bus) => bus.clock_ns(),
            Space::User(_) => {
                use std::time::Instant;
                thread_local! { static START: Instant = Instant::now(); }
                START.with(|start| start.elapsed().as_nanos() as u64)
            }
        }
    }
}

/// Page tables in guest RAM.
struct Tables<'a> {
    bus: &'a dyn Bus,
}

impl Physical for Tables<'_> {
    fn read(&mut self, address: u64, bytes: u32) -> Option<u64> {
        let page = self.bus.page(address & !0xfff)?;
        Some(raw::host_load(page.address + (address & 0xfff), bytes))
    }

    fn compare_exchange(&mut self, address: u64, bytes: u32, old: u64, new: u64) -> bool {
        let Some(page) = self.bus.page(address & !0xfff).filter(|page| page.writable) else {
            return false;
        };
        let aligned = address.is_multiple_of(u64::from(bytes));
        aligned && raw::host_cas(page.address + (address & 0xfff), bytes, old, new) == old
    }
}

/// Fetches guest code from the pages of a block.
struct SystemFetch<'a> {
    bus: &'a dyn Bus,
    key: BlockKey,
}

impl Fetch for SystemFetch<'_> {
    /// Nothing from pages that are not in the key: the block would not depend on them.
    fn fetch(&mut self, pc: u64, bytes: &mut [u8]) -> usize {
        let physical = match (pc >> 12).wrapping_sub(self.key.key.pc >> 12) {
            0 => self.key.physical & !0xfff | pc & 0xfff,
            1 if self.key.second != NO_PAGE => self.key.second | pc & 0xfff,
            _ => return 0,
        };
        let Some(page) = self.bus.page(physical & !0xfff) else { return 0 };
        let wanted = bytes.len().min((0x1000 - (pc & 0xfff)) as usize);
        raw::host_read(page.address + (physical & 0xfff), &mut bytes[..wanted]);
        wanted
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
