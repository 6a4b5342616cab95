//! Host signals become the guest's: a handler notes them for the thread they came to, and the
//! thread delivers them between two blocks or instead of waiting in a system call.
#![expect(unsafe_code)]
// UNSAFETY: signal handlers and their registration.

use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use jit::Kick;

/// Bytes of a `siginfo_t`.
pub const INFO_BYTES: usize = 128;

/// A signal's information as the kernel lays it out.
pub type Info = [u8; INFO_BYTES];

/// What a thread's handler writes and the thread reads.
struct Mailbox {
    /// Non-zero: system calls return at once.
    flag: AtomicU32,
    /// Bit `n - 1`: signal `n` is pending.
    pending: AtomicU64,
    infos: UnsafeCell<[Info; 64]>,
    kick: Cell<Option<Kick>>,
}

thread_local! {
    static MAILBOX: Mailbox = const {
        Mailbox {
            flag: AtomicU32::new(0),
            pending: AtomicU64::new(0),
            infos: UnsafeCell::new([[0; INFO_BYTES]; 64]),
            kick: Cell::new(None),
        }
    };
}

/// The word that makes `host::call` return at once.
pub fn pending_flag() -> *const u32 {
    MAILBOX.with(|mailbox| mailbox.flag.as_ptr().cast_const())
}

/// The calling thread's signals reach this vCPU.
pub fn attach(kick: Kick) {
    jit::hand_on_sent(handler);
    MAILBOX.with(|mailbox| mailbox.kick.set(Some(kick)));
}

/// Whether there is anything to do: a signal came, or one waits that `blocked` no longer holds.
pub fn noted(blocked: u64) -> bool {
    MAILBOX.with(|mailbox| {
        mailbox.flag.swap(0, Ordering::SeqCst) != 0
            || mailbox.pending.load(Ordering::SeqCst) & !blocked != 0
    })
}

/// Takes one pending signal that `blocked` does not hold back.
pub fn take(blocked: u64) -> Option<(i32, Info)> {
    MAILBOX.with(|mailbox| {
        let pending = mailbox.pending.load(Ordering::SeqCst) & !blocked;
        if pending == 0 {
            return None;
        }
        let index = pending.trailing_zeros() as usize;
        // SAFETY: the handler writes an entry only while its bit is clear.
        let info = unsafe { (*mailbox.infos.get())[index] };
        mailbox.pending.fetch_and(!(1 << index), Ordering::SeqCst);
        Some((index as i32 + 1, info))
    })
}

/// Signals that came and are held back.
pub fn pending() -> u64 {
    MAILBOX.with(|mailbox| mailbox.pending.load(Ordering::SeqCst))
}

/// Of all signals that came, only these are still held back.
pub fn keep_only(pending: u64) {
    MAILBOX.with(|mailbox| {
        mailbox.pending.fetch_and(pending, Ordering::SeqCst);
        mailbox.flag.store(0, Ordering::SeqCst);
    });
}

extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let index = (signal - 1) as usize & 63;
    let _ = MAILBOX.try_with(|mailbox| {
        if mailbox.pending.load(Ordering::SeqCst) & 1 << index == 0 {
            // SAFETY: the kernel's information is 128 bytes, and the entry is free (its bit is
            // clear and this thread runs no other handler for the same signal).
            unsafe {
                ptr::copy_nonoverlapping(
                    info.cast::<u8>(),
                    mailbox.infos.get().cast::<Info>().wrapping_add(index).cast(),
                    INFO_BYTES,
                );
            }
            mailbox.pending.fetch_or(1 << index, Ordering::SeqCst);
        }
        mailbox.flag.store(1, Ordering::SeqCst);
        if let Some(kick) = mailbox.kick.get() {
            kick.kick();
        }
    });
    let context = context.cast::<libc::ucontext_t>();
    // Further signals wait in the kernel, which counts and orders them, until this one is taken.
    // SAFETY: the kernel passes a valid context.
    let mask = unsafe { &raw mut (*context).uc_sigmask };
    // SAFETY: the kernel's mask is the first word of the library's.
    unsafe { mask.cast::<u64>().write(!fault_bits()) };
    // SAFETY: the kernel passes a valid context.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    let [rip, rcx] = [libc::REG_RIP, libc::REG_RCX].map(|n| registers[n as usize] as u64);
    if let Some(instead) = crate::host::rewind(rip, rcx) {
        registers[libc::REG_RIP as usize] = instead as i64;
    }
}

/// Whether a signal is ignored now.
pub fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only asks.
    let failed = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zeroes are a valid `sigaction`, and the kernel may have filled it in.
    failed == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// The calling thread's mask.
pub fn inherited_mask() -> u64 {
    let mut mask = 0u64;
    let arguments = [0, 0, &raw mut mask as u64, 8, 0, 0];
    let _ = crate::host::plain(libc::SYS_rt_sigprocmask, arguments);
    mask
}

/// Signals that are the translator's; it hands on those that someone sent.
const FAULTS: [i32; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];

fn fault_bits() -> u64 {
    FAULTS.iter().fold(0, |bits, signal| bits | 1 << (signal - 1))
}

/// Sets the calling thread's mask, faults excepted: those are the translator's.
pub fn set_mask(mask: u64) {
    let mask = mask & !fault_bits();
    let arguments = [libc::SIG_SETMASK as u64, &raw const mask as u64, 0, 8, 0, 0];
    let _ = crate::host::plain(libc::SYS_rt_sigprocmask, arguments);
}

/// What the host does with a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// The default.
    Default,
    /// Nothing.
    Ignore,
    /// Notes it for the guest.
    Catch,
}

/// Sets what the host does with a signal. Faults stay with the translator.
pub fn set(signal: i32, disposition: Disposition) {
    if FAULTS.contains(&signal) {
        return;
    }
    let handler = match disposition {
        Disposition::Default => libc::SIG_DFL,
        Disposition::Ignore => libc::SIG_IGN,
        Disposition::Catch => handler as *const () as usize,
    };
    // With SA_RESTART the kernel goes back to the system call, where `host::rewind` finds it, if it
    // may be made again; what the guest then sees is for `Thread::interrupted` to say.
    let flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // While it runs, no other: the mailbox is simple that way.
    crate::host::set_action(signal, handler, flags, !fault_bits());
}
