//! The host's kernel, asked in the guest's name: raw system calls, mappings, fork.
#![expect(unsafe_code)]
// UNSAFETY: guest addresses are host addresses, and the guest's pointers go to the kernel as they
// are; the kernel checks them. Mapping guest memory is what user-mode emulation does.

use std::arch::global_asm;
use std::ffi::{CString, c_int, c_void};
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

/// A Linux error number, positive.
pub type Errno = i32;

/// What a system call gives.
pub type Answer = Result<u64, Errno>;

/// The call was interrupted while it waited (the kernel's own internal number).
pub const ERESTARTSYS: Errno = 512;

/// A signal came before the call was made at all (likewise).
pub const ERESTARTNOINTR: Errno = 513;

// A system call that a signal either interrupts or comes before, never in between: the handler
// (`signals`) moves the instruction pointer elsewhere while it is in front of the system call
// instruction. There a call that has not been made and one that the kernel wants made again look
// alike but for RCX, in which the instruction itself leaves its return address.
global_asm!(
    ".global hostel_call, hostel_call_end, hostel_call_interrupted, hostel_call_not_made",
    "hostel_call:", // rdi = &pending, rsi = number, rdx = &arguments
    "push rbx",
    "mov rbx, rdi",
    "mov rax, rsi",
    "mov r11, rdx",
    "mov rdi, [r11]",
    "mov rsi, [r11 + 8]",
    "mov rdx, [r11 + 16]",
    "mov r10, [r11 + 24]",
    "mov r8, [r11 + 32]",
    "mov r9, [r11 + 40]",
    "xor ecx, ecx",
    "cmp dword ptr [rbx], 0",
    "jne hostel_call_not_made",
    "syscall",
    "hostel_call_end:",
    "pop rbx",
    "ret",
    "hostel_call_interrupted:",
    "mov rax, -512",
    "pop rbx",
    "ret",
    "hostel_call_not_made:",
    "mov rax, -513",
    "pop rbx",
    "ret",
    // What the kernel asks of who catches signals without the C library.
    ".global hostel_signal_return",
    "hostel_signal_return:",
    "mov eax, 15",
    "syscall",
);

unsafe extern "sysv64" {
    fn hostel_call(pending: *const u32, number: u64, arguments: *const u64) -> i64;
    fn hostel_call_end();
    fn hostel_call_interrupted();
    fn hostel_call_not_made();
    fn hostel_signal_return();
}

/// The kernel's `struct sigaction`.
#[repr(C)]
struct KernelAction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// `rt_sigaction` itself: the C library keeps two signals to itself that the program's library
/// wants as well. `handler` is a function's address, 0 or 1.
pub fn set_action(signal: i32, handler: usize, flags: i32, mask: u64) {
    const SA_RESTORER: u64 = 0x0400_0000;
    let action = KernelAction {
        handler: handler as u64,
        flags: flags as u64 | SA_RESTORER,
        restorer: hostel_signal_return as *const () as u64,
        mask,
    };
    let arguments = [signal as u64, &raw const action as u64, 0, 8, 0, 0];
    let _ = plain(libc::SYS_rt_sigaction, arguments);
}

/// If the signal came in front of a system call of ours: where to go on instead.
pub fn rewind(rip: u64, rcx: u64) -> Option<u64> {
    let start = hostel_call as *const () as u64;
    let end = hostel_call_end as *const () as u64;
    let made = rip == end - SYSCALL_BYTES && rcx == end;
    let instead =
        if made { hostel_call_interrupted as *const () } else { hostel_call_not_made as *const () };
    (start + 1..end).contains(&rip).then_some(instead as u64)
}

/// Of the instruction that makes system calls.
const SYSCALL_BYTES: u64 = 2;

/// A system call with the guest's arguments that signals interrupt.
pub fn call(number: i64, arguments: [u64; 6]) -> Answer {
    let pending = crate::signals::pending_flag();
    // SAFETY: the kernel checks what it is given; memory it changes is the guest's.
    let result = unsafe { hostel_call(pending, number as u64, arguments.as_ptr()) };
    if (-4095..0).contains(&result) { Err(-result as Errno) } else { Ok(result as u64) }
}

/// `mmap`.
pub fn map(address: u64, bytes: u64, protection: i32, flags: i32, fd: i32, at: u64) -> Answer {
    let arguments = [address, bytes, protection as u64, flags as u64, fd as i64 as u64, at];
    plain(libc::SYS_mmap, arguments)
}

/// A system call that does not wait.
pub fn plain(number: i64, a: [u64; 6]) -> Answer {
    // SAFETY: as for `call`.
    let result = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) };
    if result == -1 { Err(errno()) } else { Ok(result as u64) }
}

/// A clock's time: seconds and nanoseconds, from the vDSO where that has it.
pub fn clock(clock: i32) -> Result<[u64; 2], Errno> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours.
    match unsafe { libc::clock_gettime(clock, &mut time) } {
        0 => Ok([time.tv_sec as u64, time.tv_nsec as u64]),
        _ => Err(errno()),
    }
}

/// Which of the first three descriptors were closed when the process started, by bit.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Before Rust's runtime, which opens /dev/null in their places.
extern "C" fn look_at_descriptors() {
    for fd in 0..3 {
        // SAFETY: only asks.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            CLOSED.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look_at_descriptors;

/// Descriptors that were closed when the process started are so again. We have none of our own
/// among them: /dev/null was there.
pub fn close_again() {
    let closed = CLOSED.load(Ordering::Relaxed);
    for fd in (0..3).filter(|fd| closed & 1 << fd != 0) {
        let _ = plain(libc::SYS_close, [fd, 0, 0, 0, 0, 0]);
    }
}

/// binfmt_misc started us with flag P.
pub fn keeps_argv0() -> bool {
    const AT_FLAGS: u64 = 8;
    const PRESERVE_ARGV0: u64 = 1;
    // SAFETY: only reads the process's own auxiliary vector.
    unsafe { libc::getauxval(AT_FLAGS) & PRESERVE_ARGV0 != 0 }
}

/// The last error of a C library function.
pub fn errno() -> Errno {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Copies this process; 0 in the child.
pub fn fork() -> Answer {
    // SAFETY: the caller holds the locks the child will need (`Engine::fork`).
    match unsafe { libc::fork() } {
        -1 => Err(errno()),
        pid => Ok(pid as u64),
    }
}

/// Makes a process that shares this one's memory, and waits until it ends or becomes another
/// program. It runs `child` on a stack of its own and ends with the status that gives.
pub fn vfork(child: &mut dyn FnMut() -> i32) -> Answer {
    extern "C" fn begin(child: *mut c_void) -> c_int {
        // SAFETY: what `vfork` passes; it waits meanwhile.
        let child = unsafe { &mut *child.cast::<&mut dyn FnMut() -> i32>() };
        child()
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let whole = CHILD_STACK_BYTES + GUARD_BYTES;
    let stack = map(0, whole, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)?;
    let guarded = plain(libc::SYS_mprotect, [stack, GUARD_BYTES, 0, 0, 0, 0]);
    let mut child = child;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let pid = guarded.and_then(|_| {
        // SAFETY: the stack is the child's alone and lies above a guard; this thread does not go on
        // before the child has left it, so that borrows of this thread are the child's meanwhile.
        let pid = unsafe {
            let top = (stack + whole) as *mut c_void;
            libc::clone(begin, top, flags, (&raw mut child).cast())
        };
        if pid == -1 { Err(errno()) } else { Ok(pid as u64) }
    });
    let _ = plain(libc::SYS_munmap, [stack, whole, 0, 0, 0, 0]);
    pid
}

/// Of the stack on which the child of a `vfork` runs the translator.
const CHILD_STACK_BYTES: u64 = 1 << 20;
const GUARD_BYTES: u64 = 0x1000;

/// What `execve` takes.
pub struct Program {
    path: CString,
    /// Arguments and environment.
    lists: [Strings; 2],
}

/// A list of C strings.
struct Strings {
    /// Owns what `addresses` points to.
    _strings: Vec<CString>,
    /// Ends with null.
    addresses: Vec<usize>,
}

impl Strings {
    fn new(strings: Vec<Vec<u8>>) -> Result<Self, Errno> {
        let strings: Result<Vec<CString>, _> = strings.into_iter().map(CString::new).collect();
        let strings = strings.map_err(|_| libc::EINVAL)?;
        let addresses = strings.iter().map(|string| string.as_ptr() as usize).chain([0]).collect();
        Ok(Self { _strings: strings, addresses })
    }
}

impl Program {
    /// A program with its arguments and environment.
    pub fn new(
        path: Vec<u8>,
        arguments: Vec<Vec<u8>>,
        environment: &[Vec<u8>],
    ) -> Result<Self, Errno> {
        let path = CString::new(path).map_err(|_| libc::EINVAL)?;
        Ok(Self { path, lists: [Strings::new(arguments)?, Strings::new(environment.to_vec())?] })
    }
}

/// Replaces this process.
pub fn execute(program: &Program) -> Errno {
    let [arguments, environment] = program.lists.each_ref().map(|list| list.addresses.as_ptr());
    // SAFETY: all are C strings and lists of them that end with null.
    unsafe { libc::execve(program.path.as_ptr(), arguments.cast(), environment.cast()) };
    errno()
}

/// Ends the process as the signal would have.
pub fn die_of(signal: i32) -> ! {
    // SAFETY: takes our handler away and opens the mask; then the signal ends the process.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
    }
    let mut set = 0u64;
    if signal > 0 {
        set |= 1 << (signal - 1);
    }
    let unblock = [libc::SIG_UNBLOCK as u64, &raw const set as u64, 0, 8, 0, 0];
    let _ = plain(libc::SYS_rt_sigprocmask, unblock);
    let _ = plain(libc::SYS_kill, [std::process::id().into(), signal as u64, 0, 0, 0, 0]);
    std::process::exit(128 + signal)
}
