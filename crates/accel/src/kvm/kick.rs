//! Getting a vCPU out of the kernel: a flag that the kernel looks at when a vCPU enters, and a
//! signal that ends what it is doing.

// UNSAFETY: signals are sent to threads and handled, and the flag lies in memory that is shared
// with the kernel.
#![expect(unsafe_code)]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_ioctls::VcpuFd;

/// The signal: it means nothing else in this process.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 4
}

extern "C" fn ignore(_: libc::c_int) {}

/// Handles the signal by doing nothing: that it arrives is what matters.
pub fn install() -> io::Result<()> {
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // No SA_RESTART: calls are to end.
    action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler does nothing at all, and the structure outlives the call.
    let result = unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes one vCPU leave the guest.
pub struct Kicker {
    thread: libc::pthread_t,
    immediate_exit: NonNull<u8>,
}

// SAFETY: the flag is only touched atomically, and lives until the vCPU's thread has taken the
// kicker back (`Processor::clear_kick`), as does the thread's number.
unsafe impl Send for Kicker {}

impl Kicker {
    /// For the vCPU of this thread, which must take it back before the vCPU goes.
    pub fn new(vcpu: &mut VcpuFd) -> Self {
        let flag = &raw mut vcpu.get_kvm_run().immediate_exit;
        // SAFETY: the call has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        Self { thread, immediate_exit: NonNull::new(flag).expect("a field is somewhere") }
    }

    fn flag(&self) -> &AtomicU8 {
        // SAFETY: see the type; the kernel only reads it.
        unsafe { AtomicU8::from_ptr(self.immediate_exit.as_ptr()) }
    }

    /// The vCPU leaves the guest, or does not enter it.
    pub fn kick(&self) {
        self.flag().store(1, Ordering::SeqCst);
        // SAFETY: the call has no preconditions.
        let own = unsafe { libc::pthread_self() };
        if own != self.thread {
            // SAFETY: the thread exists, see the type.
            unsafe { libc::pthread_kill(self.thread, signal()) };
        }
    }
}
