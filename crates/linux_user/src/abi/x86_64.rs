//! x86, 64 bits, on a host of the same kind: numbers and structures are the host's own.

use isa::x86::{FS, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, State, Table, X86, exception};
use isa::{Access, Event, MemoryFault};
use jit::Vcpu;

use crate::call::{Call, Row, clock, clone, file, memory as mapping, process, signal};
use crate::debug::x86;
use crate::guest::{Delivery, Exception, Guest, Machine};
use crate::host::Answer;
use crate::memory;
use crate::thread::Thread;

/// See the module.
pub struct X8664;

/// Bytes below the stack pointer that belong to the interrupted function.
const RED_ZONE: u64 = 128;

/// Offsets into the frame: return address, `ucontext`, `siginfo`.
const UCONTEXT: u64 = 8;
const STACK: u64 = UCONTEXT + 16;
const REGISTERS: u64 = UCONTEXT + 40;
const MASK: u64 = REGISTERS + 256;
const INFO: u64 = MASK + 8;
const FRAME_BYTES: u64 = INFO + 128;

/// The XSAVE area: the FXSAVE area, a header, upper halves; and behind it the second magic word.
const AREA_BYTES: usize = 832;
const FPU_BYTES: u64 = AREA_BYTES as u64 + 4;
const FPU_MXCSR: usize = 24;
const FPU_REGISTERS: usize = 32;
const FPU_VECTORS: usize = 160;
/// What software may use in it: here the kernel says what it has written.
const FPU_SOFTWARE: usize = 464;
const FPU_HEADER: usize = 512;
const FPU_UPPER: usize = 576;
const FPU_MAGIC1: u32 = 0x4650_5853;
const FPU_MAGIC2: u32 = 0x4650_5845;
/// x87, SSE, AVX.
const COMPONENTS: u64 = 7;
const COMPONENT_X87: u64 = 1;
const COMPONENT_SSE: u64 = 1 << 1;
const COMPONENT_AVX: u64 = 1 << 2;

/// Flags of `ucontext`: there is an XSAVE area, and SS counts.
const UCONTEXT_FLAGS: u64 = 1 | 2 | 4;

/// The order of general registers in `sigcontext`, by number.
const ORDER: [usize; 16] = [8, 9, 10, 11, 12, 13, 14, 15, RDI, RSI, RBP, RBX, RDX, RAX, RCX, RSP];

/// Flags a handler may change: the arithmetic ones, DF and TF.
const USER_FLAGS: u64 = isa::ir::STATUS | isa::x86::eflags::DF | isa::x86::eflags::TF;

/// The global descriptor table, of which a program sees the flat data segment and its own code; in
/// both it may load, and LAR and LSL tell what they are. The accessed bits are set, so that nobody
/// writes here.
static DESCRIPTORS: [u64; 7] = [0, 0, 0, 0, 0, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff];

const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;

/// Each is `mov eax, NUMBER; syscall; ret`.
#[rustfmt::skip]
const VDSO: &[(&str, &[u8])] = &[
    ("__vdso_clock_gettime", &[0xb8, 0xe4, 0x00, 0x00, 0x00, 0x0f, 0x05, 0xc3]),
    ("__vdso_gettimeofday", &[0xb8, 0x60, 0x00, 0x00, 0x00, 0x0f, 0x05, 0xc3]),
    ("__vdso_time", &[0xb8, 0xc9, 0x00, 0x00, 0x00, 0x0f, 0x05, 0xc3]),
    ("__vdso_getcpu", &[0xb8, 0x35, 0x01, 0x00, 0x00, 0x0f, 0x05, 0xc3]),
    ("__vdso_clock_getres", &[0xb8, 0xe5, 0x00, 0x00, 0x00, 0x0f, 0x05, 0xc3]),
];

impl Guest for X8664 {
    type FrontEnd = X86;

    const MACHINE: Machine = Machine {
        name: "x86_64",
        elf_machine: 62,
        pointer_bytes: 8,
        address_end: 1 << 47,
        hwcap: 0x0781_abfd, // CPUID 1, EDX
        platform: "x86_64",
        signal_stack_min: 2048,
        // mov eax,15; syscall
        sigreturn_code: &[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05],
        cpu_info: None,
        vdso: VDSO,
        vdso_version: "LINUX_2.6",
        system_call_function: None,
        call_bytes: 2,
        cpus: &["max", "qemu64"],
    };

    type Local = ();

    const HAS_RESTORER: bool = true;

    fn calls() -> Vec<Row<Self>> {
        calls()
    }

    fn front_end(cpu: Option<&str>) -> Option<X86> {
        match cpu {
            None | Some("max") => Some(X86::user()),
            Some("qemu64") => Some(X86::user().without_wide_vectors()),
            Some(_) => None,
        }
    }

    fn call_arguments(state: &State) -> (u64, [u64; 6]) {
        let r = &state.gpr;
        (r[RAX], [r[RDI], r[RSI], r[RDX], r[10], r[8], r[9]])
    }

    fn set_result(state: &mut State, result: i64) {
        state.gpr[RAX] = result as u64;
    }

    fn restart(state: &mut State, number: u64, _: &[u64; 6]) {
        state.gpr[RAX] = number;
        state.pc -= Self::MACHINE.call_bytes;
    }

    fn start(state: &mut State, (): &mut (), pc: u64, stack: u64) {
        *state = X86::user_state(true);
        let bytes = size_of_val(&DESCRIPTORS) as u64;
        state.gdtr = Table { base: DESCRIPTORS.as_ptr() as u64, limit: bytes - 1 };
        state.x87_control = 0x37f;
        state.x87_empty = 0xff;
        state.pc = pc;
        state.gpr[RSP] = stack;
    }

    fn description() -> gdb::Description {
        x86::description(true)
    }

    fn debug_registers(vcpu: &Vcpu<X86>) -> Vec<u8> {
        x86::read(vcpu, true)
    }

    fn set_debug_registers(vcpu: &mut Vcpu<X86>, values: &[u8]) {
        x86::write(vcpu, values, true);
    }

    fn breakpoint(_: u64) -> &'static [u8] {
        &[0xcc]
    }

    fn set_pc(state: &mut State, pc: u64) {
        state.pc = pc;
    }

    fn position(state: &State) -> (u64, u64) {
        (state.pc, state.gpr[RSP])
    }

    fn set_thread(
        state: &mut State,
        (): &mut (),
        stack: Option<u64>,
        tls: Option<u64>,
    ) -> Result<(), i32> {
        if let Some(stack) = stack {
            state.gpr[RSP] = stack;
        }
        if let Some(tls) = tls {
            state.segments[FS].base = tls;
        }
        Ok(())
    }

    fn enter_handler(vcpu: &mut Vcpu<X86>, delivery: &Delivery) -> Result<(), i32> {
        let mxcsr = vcpu.fp_control();
        let state = *vcpu.state();
        let below = delivery.stack.wrapping_sub(RED_ZONE);
        let fpu = below.wrapping_sub(FPU_BYTES) & !63;
        let frame = (fpu.wrapping_sub(FRAME_BYTES) & !15).wrapping_sub(8);
        memory::write(fpu, &fpu_area(&state, mxcsr))?;
        let mut words = [0u64; 32];
        for (word, register) in words.iter_mut().zip(ORDER) {
            *word = state.gpr[register];
        }
        words[16] = state.pc;
        words[17] = state.flags & isa::ir::STATUS | state.eflags | 2;
        words[18] = 0x002b_0000_0000_0033; // CS, and SS above GS and FS
        words[19] = delivery.exception.error;
        words[20] = delivery.exception.number;
        words[22] = delivery.exception.address;
        words[23] = fpu;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        memory::write_word(frame, delivery.return_address(), 8)?;
        memory::write(frame + UCONTEXT, &[0; 40])?;
        memory::write_word(frame + UCONTEXT, UCONTEXT_FLAGS, 8)?;
        for (place, word) in (0..).zip(delivery.alternate) {
            memory::write_word(frame + STACK + 8 * place, word, 8)?;
        }
        memory::write(frame + REGISTERS, &bytes)?;
        memory::write_word(frame + MASK, delivery.mask, 8)?;
        memory::write(frame + INFO, &delivery.info)?;
        let state = vcpu.state_mut();
        state.gpr[RSP] = frame;
        state.gpr[RDI] = delivery.signal as u64;
        state.gpr[RSI] = frame + INFO;
        state.gpr[RDX] = frame + UCONTEXT;
        state.gpr[RAX] = 0;
        state.eflags &= !(isa::x86::eflags::DF | isa::x86::eflags::TF);
        state.pc = delivery.handler;
        Ok(())
    }

    fn leave_handler(vcpu: &mut Vcpu<X86>, (): &mut ()) -> Result<(u64, [u64; 3]), i32> {
        // The handler's return took the return address off.
        let frame = vcpu.state().gpr[RSP].wrapping_sub(8);
        let mask = memory::read_word(frame + MASK, 8)?;
        let mut alternate = [0; 3];
        for (place, word) in (0..).zip(&mut alternate) {
            *word = memory::read_word(frame + STACK + 8 * place, 8)?;
        }
        let mut bytes = [0; 256];
        memory::read(frame + REGISTERS, &mut bytes)?;
        let word = |index: usize| {
            let field = bytes[8 * index..].first_chunk().copied();
            u64::from_le_bytes(field.expect("there are 32 words"))
        };
        let mut area = [0; FPU_BYTES as usize];
        let fpu = word(23);
        if fpu != 0 {
            memory::read(fpu, &mut area[..FPU_HEADER])?;
            if extended_bytes(&area) == FPU_BYTES {
                memory::read(fpu, &mut area)?;
            }
        }
        let state = vcpu.state_mut();
        for (index, register) in ORDER.into_iter().enumerate() {
            state.gpr[register] = word(index);
        }
        state.pc = word(16);
        state.flags = word(17) & isa::ir::STATUS;
        state.eflags = state.eflags & !USER_FLAGS | word(17) & USER_FLAGS & !isa::ir::STATUS;
        if fpu != 0 {
            load_fpu(vcpu, &area);
        }
        Ok((mask, alternate))
    }

    /// The three entries of the page that was there before the vDSO.
    fn entered_kernel(event: &Event, state: &mut State) -> bool {
        let entry = match *event {
            Event::Memory(MemoryFault { access: Access::Execute, address, .. }) => {
                VSYSCALLS.iter().find(|(entry, _)| *entry == address)
            }
            _ => None,
        };
        let Some((&(_, number), back)) = entry.zip(memory::read_word(state.gpr[RSP], 8).ok())
        else {
            return false;
        };
        (state.gpr[RAX], state.pc) = (number as u64, back);
        state.gpr[RSP] += 8;
        true
    }

    fn exception(event: &Event, state: &State) -> Exception {
        exception_of(event, state)
    }

    fn signal_of(event: &Event, state: &State) -> (i32, i32, u64) {
        match *event {
            Event::Memory(MemoryFault { access: Access::Divide, .. })
            | Event::Exception { number: exception::DE, .. } => (libc::SIGFPE, 1, state.pc),
            Event::Memory(MemoryFault { detail, address, .. }) if detail != 0 => {
                (libc::SIGBUS, 2, address)
            }
            Event::Memory(MemoryFault { address, .. }) => (libc::SIGSEGV, 1, address),
            Event::Breakpoint | Event::Exception { number: exception::BP, .. } => {
                (libc::SIGTRAP, 0x80, 0)
            }
            Event::Exception { number: exception::DB, .. } => (libc::SIGTRAP, 2, state.pc),
            Event::Exception { number: exception::NP | exception::SS, .. } => {
                (libc::SIGBUS, 0x80, 0)
            }
            Event::Illegal | Event::Exception { number: exception::UD, .. } => {
                (libc::SIGILL, 2, state.pc)
            }
            Event::Exception { number: exception::MF, .. } => {
                (libc::SIGFPE, x87_code(state), state.pc)
            }
            Event::Exception { number: exception::XM, .. } => (libc::SIGFPE, 0, state.pc),
            _ => (libc::SIGSEGV, 0x80, 0),
        }
    }
}

/// Where programs of long ago call the kernel, and what they ask.
const VSYSCALLS: [(u64, i64); 3] = [
    (0xffff_ffff_ff60_0000, libc::SYS_gettimeofday),
    (0xffff_ffff_ff60_0400, libc::SYS_time),
    (0xffff_ffff_ff60_0800, libc::SYS_getcpu),
];

/// Which of the FPU's exceptions is taken, as a signal's code.
fn x87_code(state: &State) -> i32 {
    const DENORMAL_OR_UNDERFLOW: u64 = 0x12;
    let taken = state.x87_status & !state.x87_control & 0x3f;
    let codes = [(1, 7), (4, 3), (8, 4), (DENORMAL_OR_UNDERFLOW, 5), (0x20, 6)];
    codes.iter().find(|(bits, _)| taken & bits != 0).map_or(0, |&(_, code)| code)
}

/// What the processor would have told the kernel of an event.
pub fn exception_of(event: &Event, _: &State) -> Exception {
    const PAGE_FAULT: u64 = 14;
    const BY_USER: u64 = 4;
    match *event {
        Event::Memory(MemoryFault { access: Access::Divide, .. }) => Exception::default(),
        Event::Memory(MemoryFault { address, access, .. }) => {
            let write = if access == Access::Write { 2 } else { 0 };
            let fetch = if access == Access::Execute { 0x10 } else { 0 };
            Exception { number: PAGE_FAULT, error: BY_USER | write | fetch, address }
        }
        Event::Breakpoint => Exception { number: exception::BP.into(), ..Exception::default() },
        Event::Illegal => Exception { number: exception::UD.into(), ..Exception::default() },
        // What comes with a debug exception is not for programs.
        Event::Exception { number: exception::DB, .. } => {
            Exception { number: exception::DB.into(), ..Exception::default() }
        }
        Event::Exception { number, info } => {
            Exception { number: number.into(), error: info, address: 0 }
        }
        _ => Exception::default(),
    }
}

fn fpu_area(state: &State, mxcsr: u32) -> [u8; FPU_BYTES as usize] {
    let mut area = [0; FPU_BYTES as usize];
    let status = state.x87_status & !(7 << 11) | (state.x87_top & 7) << 11;
    area[0..2].copy_from_slice(&(state.x87_control as u16).to_le_bytes());
    area[2..4].copy_from_slice(&(status as u16).to_le_bytes());
    area[4] = !state.x87_empty as u8;
    area[FPU_MXCSR..][..4].copy_from_slice(&mxcsr.to_le_bytes());
    area[FPU_MXCSR + 4..][..4].copy_from_slice(&0xffff_u32.to_le_bytes());
    for index in 0..8 {
        let [low, high] = state.x87[(state.x87_top as usize + index) & 7];
        area[FPU_REGISTERS + 16 * index..][..8].copy_from_slice(&low.to_le_bytes());
        area[FPU_REGISTERS + 16 * index + 8..][..2].copy_from_slice(&(high as u16).to_le_bytes());
    }
    for (index, vector) in state.vectors.iter().enumerate() {
        for (part, start) in [(0, FPU_VECTORS), (2, FPU_UPPER)] {
            area[start + 16 * index..][..8].copy_from_slice(&vector[part].to_le_bytes());
            area[start + 16 * index + 8..][..8].copy_from_slice(&vector[part + 1].to_le_bytes());
        }
    }
    // Handlers find in the header what is there to be changed: all of it.
    area[FPU_HEADER..][..8].copy_from_slice(&COMPONENTS.to_le_bytes());
    let mut software = [0; 24];
    software[0..4].copy_from_slice(&FPU_MAGIC1.to_le_bytes());
    software[4..8].copy_from_slice(&(FPU_BYTES as u32).to_le_bytes());
    software[8..16].copy_from_slice(&COMPONENTS.to_le_bytes());
    software[16..20].copy_from_slice(&(AREA_BYTES as u32).to_le_bytes());
    area[FPU_SOFTWARE..][..24].copy_from_slice(&software);
    area[AREA_BYTES..].copy_from_slice(&FPU_MAGIC2.to_le_bytes());
    area
}

/// How long the area is by its own words; 0 without the first magic word.
fn extended_bytes(area: &[u8; FPU_BYTES as usize]) -> u64 {
    let word = |at: usize| {
        let bytes = area[at..].first_chunk().copied();
        u32::from_le_bytes(bytes.unwrap_or_default())
    };
    if word(FPU_SOFTWARE) == FPU_MAGIC1 { word(FPU_SOFTWARE + 4).into() } else { 0 }
}

fn load_fpu(vcpu: &mut Vcpu<X86>, area: &[u8; FPU_BYTES as usize]) {
    let word = |at: usize, bytes: usize| {
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(&area[at..at + bytes]);
        u64::from_le_bytes(word)
    };
    vcpu.set_fp_control(word(FPU_MXCSR, 4) as u32);
    // Without its magic words, or with a header that leaves something out, parts of the area say
    // that registers are as they were first.
    let extended =
        extended_bytes(area) == FPU_BYTES && word(AREA_BYTES, 4) == u64::from(FPU_MAGIC2);
    let present = if extended { word(FPU_HEADER, 8) } else { COMPONENT_X87 | COMPONENT_SSE };
    let state = vcpu.state_mut();
    for (index, vector) in state.vectors.iter_mut().enumerate() {
        for (component, part, start) in
            [(COMPONENT_SSE, 0, FPU_VECTORS), (COMPONENT_AVX, 2, FPU_UPPER)]
        {
            let place = start + 16 * index;
            let there = present & component != 0;
            vector[part] = if there { word(place, 8) } else { 0 };
            vector[part + 1] = if there { word(place + 8, 8) } else { 0 };
        }
    }
    state.note_upper_halves();
    if present & COMPONENT_X87 == 0 {
        (state.x87_control, state.x87_status, state.x87_top) = (0x37f, 0, 0);
        (state.x87_empty, state.x87) = (0xff, [[0; 2]; 8]);
        return;
    }
    state.x87_control = word(0, 2);
    state.x87_status = word(2, 2) & !(7 << 11);
    state.x87_top = word(2, 2) >> 11 & 7;
    state.x87_empty = !word(4, 1) & 0xff;
    for index in 0..8 {
        let place = FPU_REGISTERS + 16 * index;
        state.x87[(state.x87_top as usize + index) & 7] = [word(place, 8), word(place + 8, 2)];
    }
}

fn arch_prctl(thread: &mut Thread<X8664>, a: [u64; 6]) -> Answer {
    let segments = &mut thread.vcpu.state_mut().segments;
    match a[0] {
        ARCH_SET_FS => segments[FS].base = a[1],
        ARCH_SET_GS => segments[isa::x86::GS].base = a[1],
        ARCH_GET_FS => memory::write_word(a[1], segments[FS].base, 8)?,
        ARCH_GET_GS => memory::write_word(a[1], segments[isa::x86::GS].base, 8)?,
        _ => return Err(libc::EINVAL),
    }
    Ok(0)
}

fn x86_clone(thread: &mut Thread<X8664>, a: [u64; 6]) -> Answer {
    let [flags, stack, parent, child, tls, _] = a;
    clone::clone(thread, [flags, stack, parent, tls, child, 0])
}

macro_rules! same {
    ($($name:ident)*) => {
        [$((libc::$name, stringify!($name))),*]
    };
}

macro_rules! own {
    ($($number:ident $call:expr;)*) => {
        [$((libc::$number, stringify!($number), $call as crate::call::Own<X8664>)),*]
    };
}

/// Calls that are the host's own.
fn host_calls() -> Vec<(i64, &'static str)> {
    same! {
        SYS_read SYS_write SYS_close SYS_fstat SYS_poll SYS_lseek SYS_ioctl SYS_pread64
        SYS_pwrite64 SYS_readv SYS_writev SYS_pipe SYS_select SYS_sched_yield SYS_msync
        SYS_mincore SYS_madvise SYS_shmget SYS_shmctl SYS_dup SYS_dup2 SYS_pause SYS_nanosleep
        SYS_getitimer SYS_alarm SYS_setitimer SYS_getpid SYS_sendfile SYS_socket SYS_connect
        SYS_accept SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_shutdown SYS_bind
        SYS_listen SYS_getsockname SYS_getpeername SYS_socketpair SYS_setsockopt SYS_getsockopt
        SYS_wait4 SYS_kill SYS_semget SYS_semop SYS_semctl SYS_msgget SYS_msgsnd SYS_msgrcv
        SYS_msgctl SYS_fcntl SYS_flock SYS_fsync SYS_fdatasync SYS_truncate SYS_ftruncate
        SYS_getdents SYS_getcwd SYS_chdir SYS_fchdir SYS_rename SYS_mkdir SYS_rmdir SYS_creat SYS_link
        SYS_unlink SYS_symlink SYS_chmod SYS_fchmod SYS_chown SYS_fchown SYS_lchown SYS_umask
        SYS_getrlimit SYS_getrusage SYS_sysinfo SYS_times SYS_getuid SYS_syslog
        SYS_getgid SYS_setuid SYS_setgid SYS_geteuid SYS_getegid SYS_setpgid SYS_getppid
        SYS_getpgrp SYS_setsid SYS_setreuid SYS_setregid SYS_getgroups SYS_setgroups
        SYS_setresuid SYS_getresuid SYS_setresgid SYS_getresgid SYS_getpgid SYS_setfsuid
        SYS_setfsgid SYS_getsid SYS_capget SYS_capset SYS_rt_sigqueueinfo SYS_utime SYS_mknod
        SYS_ustat SYS_fstatfs SYS_sysfs SYS_getpriority
        SYS_setpriority SYS_sched_setparam SYS_sched_getparam SYS_sched_setscheduler
        SYS_sched_getscheduler SYS_sched_get_priority_max SYS_sched_get_priority_min
        SYS_sched_rr_get_interval SYS_mlock SYS_munlock SYS_mlockall SYS_munlockall SYS_vhangup
        SYS_pivot_root SYS_adjtimex SYS_chroot SYS_sync SYS_acct
        SYS_settimeofday SYS_mount SYS_umount2 SYS_swapon SYS_swapoff SYS_reboot SYS_sethostname
        SYS_setdomainname SYS_quotactl SYS_gettid SYS_readahead SYS_setxattr SYS_lsetxattr
        SYS_fsetxattr SYS_getxattr SYS_lgetxattr SYS_fgetxattr SYS_listxattr SYS_llistxattr
        SYS_flistxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr SYS_tkill
        SYS_futex SYS_sched_setaffinity SYS_sched_getaffinity SYS_io_setup SYS_io_destroy
        SYS_io_getevents SYS_io_submit SYS_io_cancel SYS_epoll_create SYS_getdents64
        SYS_restart_syscall SYS_semtimedop SYS_timer_create SYS_timer_settime SYS_timer_gettime
        SYS_timer_getoverrun SYS_timer_delete SYS_clock_settime
        SYS_clock_getres SYS_clock_nanosleep SYS_epoll_wait SYS_epoll_ctl SYS_tgkill SYS_utimes
        SYS_mbind SYS_set_mempolicy SYS_get_mempolicy SYS_mq_open SYS_mq_unlink SYS_mq_timedsend
        SYS_mq_timedreceive SYS_mq_notify SYS_mq_getsetattr SYS_waitid SYS_add_key
        SYS_request_key SYS_keyctl SYS_ioprio_set SYS_ioprio_get SYS_inotify_init
        SYS_inotify_rm_watch SYS_migrate_pages SYS_mkdirat SYS_mknodat
        SYS_fchownat SYS_futimesat SYS_unlinkat SYS_renameat SYS_linkat SYS_symlinkat
        SYS_fchmodat  SYS_unshare SYS_splice SYS_tee
        SYS_sync_file_range SYS_vmsplice SYS_move_pages
        SYS_signalfd SYS_timerfd_create SYS_eventfd SYS_fallocate SYS_timerfd_settime
        SYS_timerfd_gettime SYS_accept4 SYS_signalfd4 SYS_eventfd2 SYS_epoll_create1 SYS_dup3
        SYS_pipe2 SYS_inotify_init1 SYS_preadv SYS_pwritev SYS_rt_tgsigqueueinfo SYS_recvmmsg
        SYS_fanotify_init SYS_fanotify_mark SYS_name_to_handle_at
        SYS_open_by_handle_at SYS_clock_adjtime SYS_syncfs SYS_sendmmsg SYS_setns SYS_getcpu
        SYS_process_vm_readv SYS_process_vm_writev SYS_kcmp SYS_sched_setattr SYS_sched_getattr
        SYS_renameat2 SYS_getrandom SYS_memfd_create SYS_membarrier SYS_mlock2
        SYS_copy_file_range SYS_preadv2 SYS_pwritev2 SYS_pidfd_send_signal SYS_open_tree
        SYS_move_mount SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_pidfd_open
        SYS_close_range SYS_pidfd_getfd SYS_mount_setattr
        SYS_quotactl_fd SYS_landlock_create_ruleset SYS_landlock_add_rule
        SYS_landlock_restrict_self SYS_memfd_secret SYS_process_mrelease SYS_futex_waitv
        SYS_set_mempolicy_home_node SYS_fchmodat2 SYS_mseal SYS_fadvise64
    }
    .to_vec()
}

fn calls() -> Vec<Row<X8664>> {
    let same = host_calls();
    let own = own! {
        SYS_open file::open;
        SYS_openat file::openat;
        SYS_stat |t, a| file::with_path(t, libc::SYS_stat, a, 0);
        SYS_lstat |t, a| file::with_path(t, libc::SYS_lstat, a, 0);
        SYS_newfstatat |t, a| file::with_path(t, libc::SYS_newfstatat, a, 1);
        SYS_statx file::statx;
        SYS_access |t, a| file::with_path(t, libc::SYS_access, a, 0);
        SYS_faccessat file::faccessat;
        SYS_faccessat2 |t, a| file::with_path(t, libc::SYS_faccessat2, a, 1);
        SYS_readlink file::readlink;
        SYS_readlinkat file::readlinkat;
        SYS_statfs |t, a| file::with_path(t, libc::SYS_statfs, a, 0);
        SYS_utimensat |t, a| file::with_path(t, libc::SYS_utimensat, a, 1);
        SYS_inotify_add_watch |t, a| file::with_path(t, libc::SYS_inotify_add_watch, a, 1);
        SYS_clock_gettime clock::clock_gettime::<X8664, false>;
        SYS_gettimeofday clock::gettimeofday;
        SYS_time clock::time;
        SYS_mmap mapping::mmap;
        SYS_mprotect mapping::mprotect;
        SYS_munmap mapping::munmap;
        SYS_mremap mapping::mremap;
        SYS_brk mapping::brk;
        SYS_rt_sigaction signal::rt_sigaction;
        SYS_rt_sigprocmask signal::rt_sigprocmask;
        SYS_rt_sigreturn signal::rt_sigreturn;
        SYS_rt_sigpending signal::rt_sigpending;
        SYS_rt_sigtimedwait signal::rt_sigtimedwait;
        SYS_rt_sigsuspend signal::rt_sigsuspend;
        SYS_sigaltstack signal::sigaltstack;
        SYS_clone x86_clone;
        SYS_fork clone::fork_call;
        SYS_vfork clone::vfork_call;
        SYS_execve process::execve;
        SYS_exit process::exit;
        SYS_exit_group process::exit_group;
        SYS_uname process::uname;
        SYS_arch_prctl arch_prctl;
        SYS_set_tid_address process::set_tid_address;
        SYS_set_robust_list process::set_robust_list;
        SYS_get_robust_list process::get_robust_list;
        SYS_pselect6 signal::pselect6;
        SYS_ppoll signal::ppoll;
        SYS_epoll_pwait signal::epoll_pwait::<X8664, { libc::SYS_epoll_pwait }>;
        SYS_epoll_pwait2 signal::epoll_pwait::<X8664, { libc::SYS_epoll_pwait2 }>;
        SYS_openat2 file::openat2;
        SYS_execveat process::execveat;
        SYS_prctl process::prctl;
        SYS_personality process::personality;
        SYS_setrlimit process::setrlimit;
        SYS_prlimit64 process::prlimit64;
        SYS_shmat mapping::shmat;
        SYS_shmdt mapping::shmdt;
    };
    let same = same.into_iter().map(|(number, name)| (number, name, Call::Host(number)));
    let own = own.into_iter().map(|(number, name, call)| (number, name, Call::Own(call)));
    same.chain(own)
        .map(|(number, name, call)| Row { number: number as u64, name: &name[4..], call })
        .collect()
}
