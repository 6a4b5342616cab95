//! The engine: one per guest, shared by its vCPUs.

use std::io;
use std::sync::{Arc, RwLockWriteGuard};

use isa::ir::{Code, Op};
use isa::{Access, Event, Fetch, FrontEnd, Key, MemoryFault};
use linux::locks::{Mutex, RwLock};

use crate::faults;
use crate::host::x86_64::asm::Asm;
use crate::host::x86_64::map::HostMap;
use crate::host::x86_64::stubs::{self, Stubs};
use crate::host::x86_64::tier1::{Mmu, Output, Target};
use crate::host::x86_64::{Features, vcpu_block as layout};
use crate::mapping::CodeMemory;
use crate::raw::{self, BlockPointer};
use crate::second_tier::SecondTier;
use crate::space::{Space, UserSpace, fault};
use crate::stops::{Stops, Watch};
use crate::translator::{AddressMap, Block, BlockKey, Counters, NO_PAGE, SiteRecord, Translator};

/// How an engine is set up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of the code cache.
    pub cache_bytes: usize,
    /// The most guest instructions in a block; 1 for single steps.
    pub insns_max: u32,
    /// The host's features; tests switch some off.
    pub features: Features,
    /// Blocks are not translated but interpreted: the oracle of tests. Slow.
    pub interpret: bool,
    /// What makes the code of hot blocks, if blocks count at all.
    pub second_tier: Option<SecondTier>,
}

impl Options {
    /// For this machine.
    pub fn detect() -> Self {
        Self {
            cache_bytes: 128 << 20,
            insns_max: isa::ir::Ir::INSNS_MAX,
            features: Features::detect(),
            interpret: false,
            second_tier: None,
        }
    }
}

/// Room that must be left in the cache for one more block.
const BLOCK_BYTES_MAX: usize = 1 << 20;

/// The translator of one guest.
///
/// Lock order: `world`, then `translator`, then `vcpus`. A vCPU in translated code holds `world`
/// shared; who wants all of them out (a full cache) asks them to leave and takes it exclusively.
pub struct Engine<F: FrontEnd> {
    pub(crate) front_end: F,
    pub(crate) space: Space,
    pub(crate) stubs: Stubs,
    pub(crate) map: HostMap,
    pub(crate) options: Options,
    pub(crate) code: CodeMemory,
    pub(crate) fsgsbase: bool,
    pub(crate) world: RwLock<()>,
    pub(crate) translator: Mutex<Translator>,
    vcpus: Mutex<Vec<BlockPointer>>,
    pub(crate) stops: Stops,
}

/// How far behind a pointer guards are lifted for the kernel.
const UNGUARD_PAGES: u64 = 16;

/// What `Engine::find` needs from the vCPU that asks.
pub(crate) struct Found {
    pub host: u64,
    pub number: u32,
    /// See `Block::apart`.
    pub apart: bool,
}

impl Found {
    fn new(translator: &Translator, number: u32) -> Self {
        let block = &translator.list[number as usize];
        Self { host: block.host, number, apart: block.apart }
    }
}

/// The cache is full: leave the world and flush.
pub(crate) struct Full;

impl<F: FrontEnd> Engine<F> {
    /// An engine for a guest in this space.
    pub fn new(mut front_end: F, space: Space, options: Options) -> io::Result<Arc<Self>> {
        assert!(F::LAYOUT.bytes <= layout::STATE_BYTES_MAX as usize, "guest state fits its block");
        let code = CodeMemory::new(options.cache_bytes)?;
        front_end.host(options.features.host());
        let map = HostMap::new(F::LAYOUT, options.features);
        let fsgsbase = raw::has_fsgsbase();
        let mut asm = Asm::default();
        asm.begin(code.address(0));
        let stubs = stubs::emit(&mut asm, &map, options.features, fsgsbase);
        code.write(0, asm.bytes());
        let used = asm.len().next_multiple_of(64);
        faults::watch(code.address(0), code.address(0) + code.bytes() as u64, &stubs);
        let translator = Translator { used, stubs_end: used, ..Translator::default() };
        Ok(Arc::new(Self {
            front_end,
            space,
            stubs,
            map,
            options,
            code,
            fsgsbase,
            world: RwLock::new(()),
            translator: Mutex::new(translator),
            vcpus: Mutex::default(),
            stops: Stops::default(),
        }))
    }

    /// The front end.
    pub fn front_end(&self) -> &F {
        &self.front_end
    }

    /// The space it runs in.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// What was translated so far.
    pub fn counters(&self) -> Counters {
        self.translator.lock().counters
    }

    /// Reads guest memory of user mode; `Err` = bytes that could not be read.
    pub fn copy_from_user(&self, address: u64, into: &mut [u8]) -> Result<(), usize> {
        raw::guarded_read(&self.stubs, address, into)
    }

    /// Writes guest memory of user mode; `Err` = bytes that could not be written.
    pub fn copy_to_user(&self, address: u64, from: &[u8]) -> Result<(), usize> {
        raw::guarded_write(&self.stubs, address, from)
    }

    /// Copies within guest memory of user mode. False: some of it could not be read or written.
    pub(crate) fn copy_in_user(&self, from: u64, to: u64, bytes: usize) -> bool {
        raw::guarded_copy(&self.stubs, from, to, bytes).is_ok()
    }

    /// Guest code in this range (physical; in user mode: addresses) changed or went away.
    pub fn invalidate(&self, start: u64, end: u64) {
        if start < end {
            let mut translator = self.translator.lock();
            self.invalidate_locked(&mut translator, start, end);
        }
    }

    pub(crate) fn invalidate_locked(
        &self,
        translator: &mut Translator,
        start: u64,
        end: u64,
    ) -> bool {
        // A range larger than all code that exists is searched by what exists.
        let numbers = if (end - start) >> 12 > translator.pages.len() as u64 + 16 {
            let mut numbers = Vec::new();
            let pages: Vec<u64> = translator.pages.keys().copied().collect();
            for page in
                pages.into_iter().filter(|page| (start >> 12..=(end - 1) >> 12).contains(page))
            {
                numbers.extend(
                    translator.take_overlapping(start.max(page << 12), end.min((page + 1) << 12)),
                );
            }
            numbers
        } else {
            translator.take_overlapping(start, end)
        };
        for &number in &numbers {
            self.remove_block(translator, number);
        }
        !numbers.is_empty()
    }

    /// Makes the guest stop before the instruction at this address, or no longer. No vCPU runs.
    pub fn set_breakpoint(&self, address: u64, set: bool) {
        self.stops.set_breakpoint(address, set);
        if set {
            // Code that was translated without it, in blocks that begin on its page or on the last.
            let page = address >> 12;
            let mut translator = self.translator.lock();
            let near = |key: &BlockKey| matches!(page.wrapping_sub(key.key.pc >> 12), 0 | 1);
            let blocks = translator.blocks.iter().filter(|(key, _)| near(key));
            let numbers: Vec<u32> = blocks.map(|(_, number)| *number).collect();
            for number in numbers {
                self.remove_block(&mut translator, number);
            }
        }
    }

    /// Watches memory, or no longer. No vCPU runs.
    pub fn set_watch(&self, watch: Watch, set: bool) {
        self.stops.set_watch(watch, set);
        self.flush_tlbs();
    }

    fn remove_block(&self, translator: &mut Translator, number: u32) {
        let block = &mut translator.list[number as usize];
        if !block.alive {
            return;
        }
        block.alive = false;
        translator.counters.invalidated += 1;
        let (key, host, host_end) = (block.key, block.host, block.host_end);
        let incoming = std::mem::take(&mut block.incoming);
        for site in incoming {
            let site = &mut translator.sites[site as usize];
            site.linked = None;
            self.code.patch(site.place, site.stub);
        }
        translator.blocks.remove(&key);
        self.forget_jumps(key.key.pc, host, host_end);
    }

    /// Jump caches forget the block of this pc whose code lies in this range.
    pub(crate) fn forget_jumps(&self, pc: u64, host: u64, host_end: u64) {
        for vcpu in self.vcpus.lock().iter() {
            vcpu.forget_jump(pc, host, host_end);
        }
    }

    /// The host code of the block at `key` in user mode, translated if need be: for listings, and
    /// for tests that hold its quality down.
    pub fn host_code(&self, key: Key) -> Option<Vec<u8>> {
        let place = BlockKey { physical: key.pc, second: NO_PAGE, key };
        let view = self.front_end.mmu_view(key.mode);
        let found = self.find(place, &mut UserFetch { engine: self }, view).ok()?;
        let translator = self.translator.lock();
        let block = &translator.list[found.number as usize];
        let from = self.code.offset(block.host)?;
        Some(self.code.read(from, (block.host_end - block.host) as usize))
    }

    /// Forgets all translations of all vCPUs' TLBs (the memory map changed).
    pub fn flush_tlbs(&self) {
        for vcpu in self.vcpus.lock().iter() {
            vcpu.request(BlockPointer::REQUEST_FLUSH);
        }
    }

    pub(crate) fn register(&self, vcpu: BlockPointer) {
        self.vcpus.lock().push(vcpu);
    }

    pub(crate) fn unregister(&self, vcpu: BlockPointer) {
        self.vcpus.lock().retain(|other| *other != vcpu);
    }

    /// Waits until no vCPU is in translated code, and keeps them out. The caller is not in the world.
    fn everyone_out(&self) -> RwLockWriteGuard<'_, ()> {
        for vcpu in self.vcpus.lock().iter() {
            vcpu.request(BlockPointer::REQUEST_SPURIOUS);
        }
        self.world.write()
    }

    /// Empties the code cache. The caller is not in the world.
    pub(crate) fn flush(&self) {
        let _everyone_is_out = self.everyone_out();
        let mut translator = self.translator.lock();
        if self.has_room(&translator) {
            return; // someone else was faster
        }
        translator.clear();
        for vcpu in self.vcpus.lock().iter() {
            vcpu.forget_jumps(0, u64::MAX);
            vcpu.reset_returns(&self.stubs);
        }
    }

    /// Forgets all translations and gives their memory back: for a guest that has been idle for long.
    /// What it does next is translated anew. The caller is not in the world.
    pub fn give_back(&self) {
        let _everyone_is_out = self.everyone_out();
        let mut translator = self.translator.lock();
        translator.clear();
        translator.shrink();
        for vcpu in self.vcpus.lock().iter() {
            vcpu.forget_jumps(0, u64::MAX);
            vcpu.reset_returns(&self.stubs);
        }
        self.code.discard(translator.used);
    }

    /// Bytes of the code cache that are in use.
    pub fn used_bytes(&self) -> usize {
        self.translator.lock().used
    }

    /// For one more block.
    pub(crate) fn has_room(&self, translator: &Translator) -> bool {
        translator.used + BLOCK_BYTES_MAX <= self.code.bytes()
    }

    /// The block at `key`, translated if need be.
    pub(crate) fn find(
        &self,
        key: BlockKey,
        fetch: &mut dyn Fetch,
        view: u16,
    ) -> Result<Found, Full> {
        let mut translator = self.translator.lock();
        if let Some(&number) = translator.blocks.get(&key) {
            return Ok(Found::new(&translator, number));
        }
        if !self.has_room(&translator) {
            return Err(Full);
        }
        let number =
            self.translate(&mut translator, key, fetch, view, self.options.insns_max, true);
        Ok(Found::new(&translator, number))
    }

    /// A block of one instruction that is used once and known to nobody.
    pub(crate) fn find_step(
        &self,
        key: BlockKey,
        fetch: &mut dyn Fetch,
        view: u16,
    ) -> Result<Found, Full> {
        let mut translator = self.translator.lock();
        if !self.has_room(&translator) {
            return Err(Full);
        }
        let number = self.translate(&mut translator, key, fetch, view, 1, false);
        Ok(Found::new(&translator, number))
    }

    /// The block's code as IR, read when stores to it are noticed already.
    fn lift(
        &self,
        translator: &mut Translator,
        key: BlockKey,
        fetch: &mut dyn Fetch,
        insns_max: u32,
        keep: bool,
    ) {
        self.guard(translator, key, keep);
        let Translator { ir, pages, .. } = translator;
        ir.begin(key.key.pc, 12, insns_max);
        match &self.space {
            Space::User(user) if keep => {
                let mut fetch = GuardingFetch { user: &**user, pages, fetch };
                self.front_end.translate(key.key, &mut fetch, ir);
            }
            _ => self.front_end.translate(key.key, fetch, ir),
        }
    }

    /// A block that is hot already has its code from the second tier.
    pub(crate) fn translate(
        &self,
        translator: &mut Translator,
        key: BlockKey,
        fetch: &mut dyn Fetch,
        view: u16,
        insns_max: u32,
        keep: bool,
    ) -> u32 {
        let variants = [key.key.mode & !F::VARIANT, key.key.mode | F::VARIANT];
        let mode_tags = variants.map(|mode| translator.mode_tag(mode));
        self.lift(translator, key, fetch, insns_max, keep);
        let hot = self.options.second_tier.filter(|_| translator.blocks.contains_key(&key));
        let Translator { ir, compiler, used, sites, faults, borrows, list, .. } = translator;
        // What could not be fetched may be there the next time.
        let keep = keep && !ir.ops().iter().any(is_fetch_fault);
        let apart = !ir.ops().iter().any(goes_on);
        let mmu = match self.space {
            Space::User(_) => Mmu::Identity,
            Space::System(_) => Mmu::Soft { view },
        };
        let base = self.code.address(*used);
        let first_site = sites.len() as u32;
        let target = Target {
            map: &self.map,
            stubs: self.stubs,
            features: self.options.features,
            mmu,
            pc: F::LAYOUT.pc,
            relaxed: F::LAYOUT.relaxed,
            base,
            first_site,
            mode_tags,
            variant: key.key.mode & F::VARIANT != 0,
            counter: self.options.second_tier.filter(|_| keep && hot.is_none()).map(|_| list.len()),
        };
        let output = match hot {
            Some(tier) => tier.compile(ir, compiler, &target),
            None => compiler.compile(ir, &target),
        };
        self.code.write(*used, output.code);
        let books = Books { sites, faults, borrows };
        books.note(&output, *used as u32, variants, keep);
        let bytes = output.code.len();
        let counter = output.entry.map(|site| first_site + site);
        let host_end = base + bytes as u64;
        *used = (*used + bytes).next_multiple_of(16);
        let (start, end) = ir.code_range();
        let guest_bytes = (end - start).max(1);
        translator.count_block(guest_bytes, bytes as u64);
        let number = translator.list.len() as u32;
        let block = Block {
            key,
            host: base,
            host_end,
            bytes: guest_bytes,
            page_wide: translator.ir.peeked(),
            apart,
            incoming: Vec::new(),
            exits: first_site..translator.sites.len() as u32,
            counter,
            alive: keep,
        };
        translator.list.push(block);
        if keep {
            translator.blocks.insert(key, number);
            self.note_pages(translator, number);
        }
        number
    }

    /// System mode: from now on stores to the block's pages are noticed, before its code is read.
    /// Otherwise one in between would be lost.
    fn guard(&self, translator: &Translator, key: BlockKey, keep: bool) {
        let Space::System(bus) = &self.space else { return };
        let pages = [key.physical & !0xfff, key.second];
        for page in pages.into_iter().filter(|&page| keep && page != NO_PAGE) {
            if translator.pages.contains_key(&(page >> 12)) {
                continue;
            }
            if let Some(host) = bus.page(page) {
                for vcpu in self.vcpus.lock().iter() {
                    vcpu.forbid_writes(host.address);
                }
            }
        }
    }

    fn note_pages(&self, translator: &mut Translator, number: u32) {
        for (start, end) in translator.list[number as usize].parts() {
            for page in start >> 12..end.div_ceil(0x1000) {
                translator.pages.entry(page).or_default().push(number);
            }
        }
    }

    /// Lets an exit jump straight to its target.
    pub(crate) fn link(&self, site: u32, number: u32) {
        self.link_locked(&mut self.translator.lock(), site, number);
    }

    pub(crate) fn link_locked(&self, translator: &mut Translator, site: u32, number: u32) {
        let Translator { sites, list, counters, .. } = translator;
        let (Some(record), Some(block)) =
            (sites.get_mut(site as usize), list.get_mut(number as usize))
        else {
            return;
        };
        // The other page of a block on two may be another one tomorrow, as another block.
        let on_one_page = block.key.second == NO_PAGE;
        if record.linkable && block.alive && on_one_page && record.target == block.key.key {
            self.code.patch(record.place, block.host);
            record.linked = Some(number);
            block.incoming.push(site);
            counters.links += 1;
        }
    }

    /// Where an exit goes.
    pub(crate) fn site_target(&self, site: u32) -> Option<u64> {
        self.translator.lock().sites.get(site as usize).map(|site| site.target.pc)
    }

    /// The guest instruction of a host address in the cache.
    pub(crate) fn pc_of(&self, address: u64) -> Option<u64> {
        self.translator.lock().pc_of(self.code.offset(address)?)
    }

    /// The pinned registers that code at an address works with; the guest's are in `GPR_SAVE`.
    pub(crate) fn borrowed_at(&self, address: u64) -> u16 {
        let Some(offset) = self.code.offset(address) else { return 0 };
        self.translator.lock().borrowed_at(offset)
    }

    /// A write to user memory faulted: was it because we guard translated code?
    pub(crate) fn written_code(&self, address: u64) -> bool {
        let Space::User(user) = &self.space else { return false };
        let mut translator = self.translator.lock();
        if !user.unprotect_code(address) {
            return false;
        }
        let page = address & !0xfff;
        self.invalidate_locked(&mut translator, page, page + 0x1000);
        true
    }

    /// The kernel refused to write to a guest address: if that is because we guard translated
    /// code there, the guard is lifted from it and the next pages.
    pub fn unguard(&self, address: u64) -> bool {
        let pages = (0..UNGUARD_PAGES).map(|page| address.wrapping_add(page << 12));
        pages.fold(false, |lifted, page| self.written_code(page) | lifted)
    }

    /// Forks the process with `fork`, whose 0 means the child. No other thread holds a lock of the
    /// translator then, so that all books are consistent in the child, which has its own copy of the
    /// code; vCPUs of other threads are gone there. The caller is not in the world.
    pub fn fork<E>(
        &self,
        fork: impl FnOnce() -> Result<u64, E>,
        failed: impl FnOnce(io::Error) -> E,
    ) -> Result<u64, E> {
        let _everyone_is_out = self.everyone_out();
        let translator = self.translator.lock();
        let vcpus = self.vcpus.lock();
        let copy = self.code.snapshot(translator.used).map_err(failed)?;
        let pid = fork()?;
        if pid == 0 {
            self.code.become_copy(copy);
        }
        drop(vcpus);
        Ok(pid)
    }
}

/// What the translator keeps of all blocks, in the order of their code.
struct Books<'a> {
    sites: &'a mut Vec<SiteRecord>,
    faults: &'a mut Vec<(u32, u64)>,
    borrows: &'a mut Vec<(u32, u32, u16)>,
}

impl Books<'_> {
    /// A block whose code lies at this offset. Its exits lead to these modes, by variant.
    fn note(self, output: &Output<'_>, at: u32, variants: [u64; 2], linkable: bool) {
        self.sites.extend(output.sites.iter().map(|site| SiteRecord {
            target: Key { pc: site.target, mode: variants[usize::from(site.variant)] },
            place: site.place,
            stub: site.stub,
            linkable,
            linked: None,
        }));
        self.faults.extend(output.faults.iter().map(|&(offset, pc)| (at + offset, pc)));
        let moved = |&(from, to, mask): &(u32, u32, u16)| (at + from, at + to, mask);
        self.borrows.extend(output.borrows.iter().map(moved));
    }
}

impl<F: FrontEnd> Drop for Engine<F> {
    fn drop(&mut self) {
        faults::forget(self.code.address(0));
    }
}

/// Fetches guest code of user mode.
pub(crate) struct UserFetch<'a, F: FrontEnd> {
    pub engine: &'a Engine<F>,
}

impl<F: FrontEnd> Fetch for UserFetch<'_, F> {
    fn fetch(&mut self, pc: u64, bytes: &mut [u8]) -> usize {
        let Space::User(user) = &self.engine.space else { return 0 };
        if !user.executable(pc) {
            return 0;
        }
        let wanted = bytes.len().min((0x1000 - (pc & 0xfff)) as usize);
        match self.engine.copy_from_user(pc, &mut bytes[..wanted]) {
            Ok(()) => wanted,
            Err(missing) => wanted - missing,
        }
    }
}

/// Guards pages of user mode before their code is read.
struct GuardingFetch<'a> {
    user: &'a dyn UserSpace,
    pages: &'a AddressMap<u64, Vec<u32>>,
    fetch: &'a mut dyn Fetch,
}

impl Fetch for GuardingFetch<'_> {
    fn fetch(&mut self, pc: u64, bytes: &mut [u8]) -> usize {
        if !self.pages.contains_key(&(pc >> 12)) && self.user.executable(pc) {
            self.user.protect_code(pc & !0xfff);
        }
        self.fetch.fetch(pc, bytes)
    }
}

fn is_fetch_fault(op: &Op) -> bool {
    op.code == Code::Raise && op.aux == Event::FETCH
}

/// An exit to other translated code.
fn goes_on(op: &Op) -> bool {
    matches!(
        op.code,
        Code::Exit
            | Code::ExitIf
            | Code::ExitIndirect
            | Code::Call
            | Code::CallIndirect
            | Code::Return
    )
}

/// An event for a fetch that faulted.
pub(crate) fn fetch_event(error: MemoryFault) -> Event {
    let MemoryFault { address, detail, .. } = error;
    Event::Memory(MemoryFault { detail, ..fault(address, Access::Execute) })
}
