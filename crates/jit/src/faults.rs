//! Host signals in translated code: the guest's faults.
//!
//! The handler does next to nothing: it notes address, place and kind in the vCPU block and
//! resumes at the stub that leaves translated code. Everything else happens in Rust, outside the
//! signal. A fault in the guarded copy routine resumes at its end instead.
#![expect(unsafe_code)]
// UNSAFETY: signal handlers see raw machine contexts.

use std::arch::asm;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::host::x86_64::stubs::Stubs;
use crate::host::x86_64::vcpu_block as block;

/// What the handler must know of a code cache.
struct Region {
    start: AtomicU64,
    end: AtomicU64,
    leave: AtomicU64,
    copy: AtomicU64,
    copy_fault: AtomicU64,
}

/// Engines in one process: one, but for tests.
const REGIONS_MAX: usize = 256;

static REGIONS: [Region; REGIONS_MAX] = [const {
    Region {
        start: AtomicU64::new(0),
        end: AtomicU64::new(0),
        leave: AtomicU64::new(0),
        copy: AtomicU64::new(0),
        copy_fault: AtomicU64::new(0),
    }
}; REGIONS_MAX];

static USED: AtomicUsize = AtomicUsize::new(0);

/// `FAULT_KIND`: a store.
pub const WRITE: u64 = 1;
/// A division.
pub const DIVIDE: u64 = 2;
/// An access that had to be aligned.
pub const UNALIGNED: u64 = 4;

/// A bus error: memory that is mapped but not there, such as behind a file's end.
pub const BUS: u64 = 8;

/// Faults in this range of code are the guest's from now on.
pub fn watch(start: u64, end: u64, stubs: &Stubs) {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(install);
    // An engine that is gone may have had the same addresses, with its stubs at other places.
    for old in &REGIONS {
        let from = old.start.load(Ordering::SeqCst);
        if from < end && old.end.load(Ordering::SeqCst) > start {
            old.start.store(0, Ordering::SeqCst);
        }
    }
    let slot = USED.fetch_add(1, Ordering::Relaxed) % REGIONS_MAX;
    let region = &REGIONS[slot];
    region.start.store(0, Ordering::SeqCst);
    region.end.store(end, Ordering::SeqCst);
    region.leave.store(stubs.leave[block::reason::FAULT as usize], Ordering::SeqCst);
    region.copy.store(stubs.copy, Ordering::SeqCst);
    region.copy_fault.store(stubs.copy_fault, Ordering::SeqCst);
    region.start.store(start, Ordering::SeqCst);
}

/// The code there is going away: its place may be another one's tomorrow.
pub fn forget(start: u64) {
    for region in &REGIONS {
        _ = region.start.compare_exchange(start, 0, Ordering::SeqCst, Ordering::SeqCst);
    }
}

fn install() {
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL] {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: all zeroes is a valid `sigaction`.
        let action = unsafe { action.assume_init_mut() };
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        // SAFETY: the action is complete and the handler fits its flags.
        unsafe { libc::sigaction(signal, action, ptr::null_mut()) };
    }
}

/// What a signal handler of the kernel's form is.
pub type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

static SENT: AtomicUsize = AtomicUsize::new(0);

/// Signals of this module's numbers that were *sent* (by `kill` and its kin) are no faults: they go
/// to this handler. Without one they end the process.
pub fn hand_on_sent(handler: Handler) {
    SENT.store(handler as usize, Ordering::SeqCst);
}

/// The handler for a signal that someone sent.
fn handler_of_sent(info: &libc::siginfo_t) -> Option<Handler> {
    let handler = SENT.load(Ordering::SeqCst);
    let sent = info.si_code <= 0; // SI_USER, SI_QUEUE, SI_TKILL, ...: positive ones are faults
    // SAFETY: only `hand_on_sent` stores there, and what it stores is such a function.
    (sent && handler != 0).then(|| unsafe { std::mem::transmute::<usize, Handler>(handler) })
}

extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes valid information.
    if let Some(sent) = handler_of_sent(unsafe { &*info }) {
        return sent(signal, info, context);
    }
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes a valid context, which is ours until we return.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    let rip = registers[libc::REG_RIP as usize] as u64;
    let found = REGIONS.iter().find(|region| {
        let start = region.start.load(Ordering::Relaxed);
        start != 0 && (start..region.end.load(Ordering::Relaxed)).contains(&rip)
    });
    let Some(region) = found else {
        // Not in translated code: a bug of ours, or someone else's business. Die of it properly.
        // SAFETY: restores the default action, under which the repeated fault ends the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    };
    let copy_fault = region.copy_fault.load(Ordering::Relaxed);
    if (region.copy.load(Ordering::Relaxed)..copy_fault).contains(&rip) {
        registers[libc::REG_RIP as usize] = copy_fault as i64;
        return;
    }
    let address = match signal {
        // SAFETY: a memory fault's information has an address.
        libc::SIGSEGV | libc::SIGBUS => Some(fault_address(unsafe { &*info })),
        libc::SIGFPE => Some(0),
        _ => None, // the code has noted it
    };
    let kind = match signal {
        libc::SIGFPE => DIVIDE,
        libc::SIGILL => UNALIGNED,
        libc::SIGBUS => BUS | registers[libc::REG_ERR as usize] as u64 >> 1 & WRITE,
        _ if registers[libc::REG_ERR as usize] & 2 != 0 => WRITE,
        _ => 0,
    };
    if let Some(address) = address {
        note(block::FAULT_ADDRESS, address);
    }
    note(block::FAULT_RIP, rip);
    note(block::FAULT_KIND, kind);
    registers[libc::REG_RIP as usize] = region.leave.load(Ordering::Relaxed) as i64;
}

fn fault_address(info: &libc::siginfo_t) -> u64 {
    // SAFETY: the caller knows that the information is that of a memory fault.
    unsafe { info.si_addr() as u64 }
}

/// Stores into the current vCPU's block.
fn note(offset: u32, value: u64) {
    // SAFETY: in translated code the GS base is that of the vCPU block, which has these words.
    unsafe {
        asm!("mov qword ptr gs:[{}], {}", in(reg) u64::from(offset), in(reg) value, options(nostack));
    }
}

/// Gives the calling thread a stack for signal handlers, if it has none: translated code runs on
/// a stack of return addresses that is too small for them.
pub fn ensure_signal_stack() {
    thread_local! {
        static STACK: SignalStack = SignalStack::new();
    }
    STACK.with(|_| {});
}

struct SignalStack {
    memory: Option<crate::mapping::Memory>,
}

impl SignalStack {
    const BYTES: usize = 64 << 10;

    fn new() -> Self {
        let mut old = MaybeUninit::<libc::stack_t>::zeroed();
        // SAFETY: only asks.
        unsafe { libc::sigaltstack(ptr::null(), old.as_mut_ptr()) };
        // SAFETY: the kernel filled it in, and zeroes are valid too. Rust gives its own threads a
        // stack of a few pages: enough for its overflow message, not for AVX-512 frames.
        let old = unsafe { old.assume_init() };
        if old.ss_flags & libc::SS_DISABLE == 0 && old.ss_size >= Self::BYTES {
            return Self { memory: None };
        }
        let memory = crate::mapping::Memory::new(Self::BYTES).expect("64 KiB can be mapped");
        let stack =
            libc::stack_t { ss_sp: memory.start().cast(), ss_flags: 0, ss_size: Self::BYTES };
        // SAFETY: the memory lives as long as the thread and is used for nothing else.
        unsafe { libc::sigaltstack(&stack, ptr::null_mut()) };
        Self { memory: Some(memory) }
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        if self.memory.is_some() {
            let off =
                libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
            // SAFETY: the thread ends and runs no translated code any more.
            unsafe { libc::sigaltstack(&off, ptr::null_mut()) };
        }
    }
}
