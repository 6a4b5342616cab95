//! Raw access to the vCPU block and to code: the words that safe Rust lacks, behind safe names.
#![expect(unsafe_code)]
// UNSAFETY: the vCPU block is shared with machine code, and machine code is called.

use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::host::x86_64::stubs::Stubs;
use crate::host::x86_64::vcpu_block as layout;
use crate::mapping::Memory;

/// Whether the kernel lets programs set the GS base by an instruction.
pub fn has_fsgsbase() -> bool {
    // SAFETY: only asks. Bit 1 of AT_HWCAP2 on x86-64 (asm/hwcap2.h).
    let hwcap2 = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    hwcap2 & 2 != 0
}

const ARCH_SET_GS: i32 = 0x1001;

/// A vCPU block. Lives as long as the `Memory` of its vCPU, which takes it off the engine's list
/// before it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockPointer(*mut u8);

// SAFETY: other threads use the atomic accessors only, or own the vCPU.
unsafe impl Send for BlockPointer {}
// SAFETY: as for `Send`.
unsafe impl Sync for BlockPointer {}

impl BlockPointer {
    /// Leave translated code and tell the caller of `run`.
    pub const REQUEST_KICK: u32 = 1;
    /// Leave translated code for a moment.
    pub const REQUEST_SPURIOUS: u32 = 2;
    /// Forget the TLB.
    pub const REQUEST_FLUSH: u32 = 4;

    /// The block in zeroed memory of `layout::BYTES`.
    pub fn new(memory: &Memory) -> Self {
        Self(memory.start())
    }

    /// Its address.
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    fn at(self, offset: u32) -> *mut u8 {
        assert!(offset < layout::BYTES, "offsets lie in the block");
        // SAFETY: within the mapping.
        unsafe { self.0.add(offset as usize) }
    }

    /// A 64-bit word.
    pub fn word(self, offset: u32) -> u64 {
        // SAFETY: valid, aligned; the vCPU's thread is the only one to change plain words.
        unsafe { ptr::read_volatile(self.at(offset).cast()) }
    }

    /// Sets a 64-bit word.
    pub fn set_word(self, offset: u32, value: u64) {
        // SAFETY: as for `word`.
        unsafe { ptr::write_volatile(self.at(offset).cast(), value) };
    }

    /// Sets a 32-bit word.
    pub fn set_word32(self, offset: u32, value: u32) {
        // SAFETY: as for `word`.
        unsafe { ptr::write_volatile(self.at(offset).cast(), value) };
    }

    fn atomic(self, offset: u32) -> &'static AtomicU64 {
        // SAFETY: valid and aligned for as long as the vCPU is on the engine's list.
        unsafe { AtomicU64::from_ptr(self.at(offset).cast()) }
    }

    fn requests(self) -> &'static AtomicU32 {
        // SAFETY: as for `atomic`.
        unsafe { AtomicU32::from_ptr(self.at(layout::EXIT_REQUEST).cast()) }
    }

    /// Asks the vCPU to leave translated code.
    pub fn request(self, what: u32) {
        self.requests().fetch_or(what, Ordering::SeqCst);
        self.atomic(layout::RETURNS_LIMIT).store(u64::MAX, Ordering::SeqCst);
    }

    /// Whether this is asked, which stays so.
    pub fn is_asked(self, what: u32) -> bool {
        self.requests().load(Ordering::SeqCst) & what != 0
    }

    /// Whether anything is asked. Calls go by the limit alone, so that counts too.
    pub fn is_anything_asked(self) -> bool {
        let limit = self.atomic(layout::RETURNS_LIMIT).load(Ordering::SeqCst);
        limit == u64::MAX || self.is_asked(u32::MAX)
    }

    /// What was asked, once.
    pub fn take_requests(self) -> u32 {
        // First, so that what is asked from here on finds its way into the limit again.
        self.atomic(layout::RETURNS_LIMIT).store(self.returns_limit(), Ordering::SeqCst);
        if self.requests().load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.requests().swap(0, Ordering::SeqCst)
    }

    /// The jump cache forgets blocks whose code lies in this range.
    pub fn forget_jumps(self, start: u64, end: u64) {
        for entry in 0..1 << layout::JUMPS_BITS {
            let offset = layout::JUMPS + 16 * entry;
            let host = self.atomic(offset + 8).load(Ordering::Relaxed);
            if (start..end).contains(&host) {
                self.forget_jump_entry(entry);
            }
        }
    }

    /// The jump cache forgets the block of this pc whose code lies in this range: no other entry can
    /// be that block's.
    pub fn forget_jump(self, pc: u64, start: u64, end: u64) {
        let entry = jump_entry(pc);
        let host = self.atomic(layout::JUMPS + 16 * entry + 8).load(Ordering::Relaxed);
        if (start..end).contains(&host) {
            self.forget_jump_entry(entry);
        }
    }

    /// An entry of the jump cache that matches nothing.
    pub fn forget_jump_entry(self, entry: u32) {
        // The pc of another entry, so that none matches.
        let nobody = !(u64::from(entry) << 1);
        self.atomic(layout::JUMPS + 16 * entry).store(nobody, Ordering::Relaxed);
    }

    /// A new block's jump cache is all zeroes. That is an entry for the pc 0 of the first mode, in
    /// the first place; in any other place no pc has such a tag, and the pages stay untouched.
    pub fn forget_first_jump(self) {
        self.atomic(layout::JUMPS).store(!0, Ordering::Relaxed);
    }

    /// The jump cache learns a block.
    pub fn remember_jump(self, pc: u64, mode_tag: u64, host: u64) {
        let tag = pc ^ mode_tag;
        let offset = layout::JUMPS + 16 * jump_entry(pc);
        self.atomic(offset + 8).store(host, Ordering::Relaxed);
        self.atomic(offset).store(tag, Ordering::Release);
    }

    /// The return stack is empty, over an entry that no return matches.
    pub fn reset_returns(self, stubs: &Stubs) {
        let top = layout::RETURNS + layout::RETURNS_BYTES - 64;
        self.set_word(top, stubs.leave[layout::reason::LOOKUP as usize]);
        self.set_word(top + 8, NO_PC);
        let rsp = self.address() + u64::from(top);
        self.set_word(layout::RETURNS_TOP, rsp);
        self.set_word(layout::RETURNS_RSP, rsp);
    }

    fn returns_limit(self) -> u64 {
        self.address() + u64::from(layout::RETURNS) + 0x1000
    }

    /// Whether calls find no room on the return stack.
    pub fn returns_are_full(self) -> bool {
        self.word(layout::RETURNS_RSP) < self.returns_limit()
    }

    /// No return matches what is on the return stack now. The top entry may be that of a call into
    /// Rust that is under way: it has no pc.
    pub fn forget_returns(self) {
        let rsp = self.word(layout::RETURNS_RSP);
        let top = self.word(layout::RETURNS_TOP);
        let depth = top.saturating_sub(rsp).min(u64::from(layout::RETURNS_BYTES)) / 16;
        let top = layout::RETURNS + layout::RETURNS_BYTES - 64;
        for entry in 0..=depth as u32 {
            self.set_word(top + 8 - 16 * entry, NO_PC);
        }
    }

    /// The TLB forgets everything.
    pub fn forget_tlb(self) {
        for entry in 0..layout::TLB_VIEWS << layout::TLB_BITS {
            self.forget_tlb_entry(entry);
        }
    }

    /// One entry of the TLB, counted through all views, forgets its page.
    pub fn forget_tlb_entry(self, entry: u32) {
        let offset = layout::TLB + entry * layout::TLB_ENTRY;
        self.atomic(offset).store(u64::MAX, Ordering::Relaxed);
        self.atomic(offset + 8).store(u64::MAX, Ordering::Relaxed);
    }

    /// The TLB forgets one page in all views.
    pub fn forget_tlb_page(self, address: u64) {
        for view in 0..layout::TLB_VIEWS {
            let offset = tlb_entry(view as u16, address);
            self.atomic(offset).store(u64::MAX, Ordering::Relaxed);
            self.atomic(offset + 8).store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// Stores to this host page go the slow way.
    pub fn forbid_writes(self, host_page: u64) {
        for entry in 0..layout::TLB_VIEWS << layout::TLB_BITS {
            let offset = layout::TLB + entry * layout::TLB_ENTRY;
            let tag = self.atomic(offset + 8).load(Ordering::Relaxed);
            let addend = self.atomic(offset + 16).load(Ordering::Relaxed);
            if tag != u64::MAX && tag.wrapping_add(addend) == host_page {
                self.atomic(offset + 8).store(u64::MAX, Ordering::Relaxed);
            }
        }
    }

    /// The TLB learns a page.
    pub fn remember_page(self, view: u16, page: u64, host: u64, read: bool, write: bool) {
        let offset = tlb_entry(view, page);
        let tag = |allowed: bool| if allowed { page } else { u64::MAX };
        self.atomic(offset).store(u64::MAX, Ordering::Relaxed);
        self.atomic(offset + 8).store(u64::MAX, Ordering::Relaxed);
        self.atomic(offset + 16).store(host.wrapping_sub(page), Ordering::Release);
        self.atomic(offset + 8).store(tag(write), Ordering::Release);
        self.atomic(offset).store(tag(read), Ordering::Release);
    }

    /// Where an address lies in host memory, if the TLB knows that it may be read or written there.
    pub fn known_page(self, view: u16, address: u64, write: bool) -> Option<u64> {
        let offset = tlb_entry(view, address);
        let tag = self.atomic(offset + 8 * u32::from(write)).load(Ordering::Acquire);
        let known = tag == address & !0xfff;
        known.then(|| self.atomic(offset + 16).load(Ordering::Relaxed).wrapping_add(address))
    }

    /// The guest's registers.
    pub fn state<S: Copy>(self) -> *mut S {
        assert!(size_of::<S>() <= layout::STATE_BYTES_MAX as usize, "guest state fits its block");
        self.at(layout::STATE).cast()
    }

    fn in_state(self, offset: u32, bytes: usize) -> *mut u8 {
        let fits = u64::from(offset) + bytes as u64 <= u64::from(layout::STATE_BYTES_MAX);
        assert!(fits, "registers lie in the state");
        self.at(layout::STATE + offset)
    }

    /// Bytes of the guest's registers, while the vCPU is not in translated code.
    pub fn state_bytes(self, offset: u32, into: &mut [u8]) {
        let from = self.in_state(offset, into.len());
        // SAFETY: the range lies in the state, which only the vCPU's own thread touches.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
    }

    /// The same, written.
    pub fn set_state_bytes(self, offset: u32, from: &[u8]) {
        let to = self.in_state(offset, from.len());
        // SAFETY: as for `state_bytes`.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
    }

    /// Enters translated code at `target` and comes back when it was left.
    pub fn enter(self, stubs: &Stubs, fsgsbase: bool, target: u64) {
        if !fsgsbase {
            // SAFETY: sets the calling thread's GS base, which nothing else uses.
            unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, self.0) };
        }
        // SAFETY: the stub is a function of this type, emitted by us.
        let enter: extern "sysv64" fn(*mut u8, u64) = unsafe { mem::transmute(stubs.enter) };
        enter(self.0, target);
    }
}

/// No guest can be at this pc: it is canonical on no architecture.
const NO_PC: u64 = 0x8000_0000_0000_0001;

fn tlb_entry(view: u16, address: u64) -> u32 {
    layout::TLB + tlb_number(view, address) * layout::TLB_ENTRY
}

/// Which entry of the TLB a page has, counted through all views.
pub fn tlb_number(view: u16, address: u64) -> u32 {
    let slot = (address >> 12) as u32 & ((1 << layout::TLB_BITS) - 1);
    (u32::from(view) << layout::TLB_BITS) + slot
}

/// Which entry of the jump cache a pc has.
pub fn jump_entry(pc: u64) -> u32 {
    (pc >> 1) as u32 & ((1 << layout::JUMPS_BITS) - 1)
}

/// A reference to the state of a vCPU that is not in translated code.
pub fn state_ref<S: Copy>(pointer: *mut S) -> &'static S {
    // SAFETY: every bit pattern is a valid state (`FrontEnd::State`), and the caller's own
    // lifetime, which it puts on the result, is within that of the block.
    unsafe { &*pointer }
}

/// The same, to change.
pub fn state_mut<S: Copy>(pointer: *mut S) -> &'static mut S {
    // SAFETY: as for `state_ref`; the vCPU's owner is the only one who has it.
    unsafe { &mut *pointer }
}

/// The object behind a context pointer that was put into a vCPU block.
pub fn context<T>(address: u64) -> &'static T {
    // SAFETY: the vCPU puts the address of its own boxed context there before it enters
    // translated code, and the context outlives that.
    unsafe { &*(address as *const T) }
}

fn copy(stubs: &Stubs, to: u64, from: u64, bytes: usize) -> Result<(), usize> {
    // SAFETY: the stub is a function of this type, emitted by us; faults in it end it early.
    let copy: extern "sysv64" fn(u64, u64, usize) -> usize = unsafe { mem::transmute(stubs.copy) };
    match copy(to, from, bytes) {
        0 => Ok(()),
        missing => Err(missing),
    }
}

/// Reads memory that may not be there.
pub fn guarded_read(stubs: &Stubs, address: u64, into: &mut [u8]) -> Result<(), usize> {
    copy(stubs, into.as_mut_ptr() as u64, address, into.len())
}

/// Writes memory that may not be there.
pub fn guarded_write(stubs: &Stubs, address: u64, from: &[u8]) -> Result<(), usize> {
    copy(stubs, address, from.as_ptr() as u64, from.len())
}

/// Copies between places that may not be there.
pub fn guarded_copy(stubs: &Stubs, from: u64, to: u64, bytes: usize) -> Result<(), usize> {
    copy(stubs, to, from, bytes)
}

/// Host memory that is known to be there: RAM of the machine.
pub fn host_load(address: u64, bytes: u32) -> u64 {
    macro_rules! load {
        ($word:ty) => {
            // SAFETY: the bus vouches for the page, and the access lies in it.
            u64::from(unsafe { (address as *const $word).read_unaligned() })
        };
    }
    match bytes {
        1 => load!(u8),
        2 => load!(u16),
        4 => load!(u32),
        _ => load!(u64),
    }
}

/// The same, a store.
pub fn host_store(address: u64, bytes: u32, value: u64) {
    macro_rules! store {
        ($word:ty) => {
            // SAFETY: as for `host_load`.
            unsafe { (address as *mut $word).write_unaligned(value as $word) }
        };
    }
    match bytes {
        1 => store!(u8),
        2 => store!(u16),
        4 => store!(u32),
        _ => store!(u64),
    }
}

/// Moves bytes within guest memory.
pub fn host_move(from: u64, to: u64, bytes: usize) {
    // SAFETY: as for `host_load`, at both ends.
    unsafe { ptr::copy(from as *const u8, to as *mut u8, bytes) };
}

/// Stores an element of 1, 2, 4 or 8 bytes many times over.
pub fn host_fill(address: u64, bytes: u32, value: u64, count: usize) {
    if bytes == 1 || value == 0 {
        // SAFETY: as for `host_load`; all elements lie in the page.
        unsafe { ptr::write_bytes(address as *mut u8, value as u8, bytes as usize * count) };
        return;
    }
    for element in 0..count as u64 {
        host_store(address + element * u64::from(bytes), bytes, value);
    }
}

/// The same, a block of bytes out of memory.
pub fn host_read(address: u64, into: &mut [u8]) {
    // SAFETY: as for `host_load`.
    unsafe { ptr::copy_nonoverlapping(address as *const u8, into.as_mut_ptr(), into.len()) };
}

/// The same, a block of bytes into memory.
pub fn host_write(address: u64, from: &[u8]) {
    // SAFETY: as for `host_load`.
    unsafe { ptr::copy_nonoverlapping(from.as_ptr(), address as *mut u8, from.len()) };
}

/// Atomically compares and swaps an aligned word of 1 to 8 bytes.
pub fn host_cas(address: u64, bytes: u32, old: u64, new: u64) -> u64 {
    use std::sync::atomic::{AtomicU8, AtomicU16};
    macro_rules! swap {
        ($atomic:ty, $word:ty) => {{
            // SAFETY: as for `host_load`, and the caller checked the alignment.
            let place = unsafe { <$atomic>::from_ptr(address as *mut $word) };
            let order = Ordering::SeqCst;
            match place.compare_exchange(old as $word, new as $word, order, order) {
                Ok(seen) | Err(seen) => u64::from(seen),
            }
        }};
    }
    match bytes {
        1 => swap!(AtomicU8, u8),
        2 => swap!(AtomicU16, u16),
        4 => swap!(AtomicU32, u32),
        _ => swap!(AtomicU64, u64),
    }
}

/// Atomically compares and swaps 16 aligned bytes.
pub fn host_cas_wide(address: u64, old: u128, new: u128) -> u128 {
    let (mut low, mut high) = (old as u64, (old >> 64) as u64);
    // SAFETY: as for `host_cas`. RBX is the compiler's own, so it is exchanged around.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {new_low}",
            "lock cmpxchg16b [{place}]",
            "mov rbx, {new_low}",
            new_low = inout(reg) new as u64 => _,
            place = in(reg) address,
            inout("rax") low,
            inout("rdx") high,
            in("rcx") (new >> 64) as u64,
            options(nostack),
        );
    }
    u128::from(high) << 64 | u128::from(low)
}
