//! A guest thread: runs code, makes system calls, takes signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use isa::{Event, FrontEnd};
use jit::{Engine, Exit, Vcpu};
use linux::locks::Mutex;

use crate::call::{Call, Table, narrow};
use crate::debug::{self, Debugger, Pace};
use crate::guest::{Delivery, Exception, Guest};
use crate::host::{self, Answer, ERESTARTNOINTR, ERESTARTSYS, Errno};
use crate::options::Options;
use crate::signals::{self, Disposition, INFO_BYTES, Info};
use crate::space::{AddressSpace, Places};
use crate::strace;
use crate::vdso::Vdso;

/// What a guest asked to happen on a signal.
#[derive(Clone, Copy, Default, Debug)]
pub struct Action {
    /// 0 default, 1 ignore, else an address.
    pub handler: u64,
    /// SA_*.
    pub flags: u64,
    /// Return address of the handler.
    pub restorer: u64,
    /// Signals blocked meanwhile.
    pub mask: u64,
}

pub const SA_SIGINFO: u64 = 4;
pub const SA_NODEFER: u64 = 0x4000_0000;
pub const SA_RESETHAND: u64 = 0x8000_0000;
pub const SA_ONSTACK: u64 = 0x0800_0000;
pub const SA_RESTART: u64 = 0x1000_0000;
pub const SA_RESTORER: u64 = 0x0400_0000;

/// What the threads of a process share.
pub struct Process<G: Guest> {
    pub engine: Arc<Engine<G::FrontEnd>>,
    pub space: AddressSpace,
    pub options: Options,
    /// The code that the kernel gives to every program.
    pub vdso: Vdso,
    /// The guest executable's path, for /proc/self/exe and exec.
    pub executable: String,
    /// Its command line.
    pub arguments: Vec<Vec<u8>>,
    /// Addresses with names.
    pub places: Places,
    /// Its auxiliary vector.
    pub auxiliary: Vec<u8>,
    /// Who is connected by `-g`.
    pub debugger: Option<Arc<Debugger>>,
    /// By number.
    pub calls: Table<G>,
    /// Numbers of unknown system calls already named.
    pub named: Mutex<Vec<u64>>,
}

impl<G: Guest> Process<G> {
    /// Waits for all locks that threads share, and holds them: a child must not be made while one is
    /// held by a thread that the child does not have.
    pub fn hold_locks(&self) -> impl Sized + '_ {
        let shared = (self.named.lock(), self.options.hold_log());
        (shared, narrow::hold_cookies(), self.space.hold())
    }

    /// Names something that is not implemented, once, under `-d unimp`.
    pub fn name_once(&self, number: u64, text: impl FnOnce() -> String) {
        if self.options.log_unimplemented {
            let mut named = self.named.lock();
            if !named.contains(&number) {
                named.push(number);
                self.options.log(&format!("{}\n", text()));
            }
        }
    }
}

/// A guest thread.
pub struct Thread<G: Guest> {
    pub process: Arc<Process<G>>,
    pub vcpu: Vcpu<G::FrontEnd>,
    /// See [`Guest::Local`].
    pub local: G::Local,
    /// Blocked signals.
    pub mask: u64,
    /// `rt_sigsuspend`'s caller's mask, restored when a handler returns.
    pub saved_mask: Option<u64>,
    /// Alternate stack: address, flags, size.
    pub alternate: [u64; 3],
    /// Cleared and woken when the thread ends.
    pub clear_tid: u64,
    /// The list of robust futexes, or 0.
    pub robust_list: u64,
    /// Set by `exit`.
    pub ended: Option<i32>,
    /// Threads have been made: an `exit` of one is not that of all.
    pub threaded: Arc<AtomicBool>,
    /// What the process does on signals.
    pub actions: Arc<Mutex<Actions>>,
    /// What it is about to become, one after the other while they are not found.
    pub programs: Vec<host::Program>,
}

/// By signal number, from 1.
pub type Actions = [Action; 64];

/// What a thread is, while its child after `vfork` runs in its place.
pub struct Remembered<G: Guest> {
    state: <G::FrontEnd as FrontEnd>::State,
    fp_control: u32,
    local: G::Local,
    mask: u64,
    saved_mask: Option<u64>,
    alternate: [u64; 3],
    clear_tid: u64,
    robust_list: u64,
}

/// Signal numbers whose default is to do nothing.
const IGNORED: [i32; 4] = [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT];

impl<G: Guest> Thread<G> {
    /// See [`Remembered`].
    pub fn remember(&self) -> Remembered<G> {
        Remembered {
            state: *self.vcpu.state(),
            fp_control: self.vcpu.fp_control(),
            local: self.local.clone(),
            mask: self.mask,
            saved_mask: self.saved_mask,
            alternate: self.alternate,
            clear_tid: self.clear_tid,
            robust_list: self.robust_list,
        }
    }

    /// The thread is what it was.
    pub fn recall(&mut self, was: Remembered<G>) {
        *self.vcpu.state_mut() = was.state;
        self.vcpu.set_fp_control(was.fp_control);
        (self.local, self.mask, self.saved_mask) = (was.local, was.mask, was.saved_mask);
        (self.alternate, self.clear_tid) = (was.alternate, was.clear_tid);
        (self.robust_list, self.ended) = (was.robust_list, None);
        self.programs = Vec::new();
    }

    /// Runs until the thread ends.
    pub fn run(&mut self) -> i32 {
        signals::attach(self.vcpu.kicker());
        self.enter_debugger();
        while self.ended.is_none() {
            let pace = self.pass_gate();
            let exit = match pace {
                Pace::Run => Some(self.vcpu.run()),
                Pace::Step | Pace::Watch => self.vcpu.step(),
            };
            match exit {
                // Breakpoints of a program's debugger are instructions.
                None | Some(Exit::Kicked | Exit::Breakpoint | Exit::Watch(_)) => {}
                Some(Exit::Event(Event::SystemCall)) => self.system_call(),
                Some(Exit::Event(Event::Breakpoint)) if self.at_breakpoint() => continue,
                Some(Exit::Event(event)) if G::entered_kernel(&event, self.vcpu.state_mut()) => {
                    self.system_call();
                }
                Some(Exit::Event(event)) => {
                    let (signal, code, address) = G::signal_of(&event, self.vcpu.state());
                    let exception = G::exception(&event, self.vcpu.state());
                    self.fault(signal, code, address, exception);
                }
            }
            self.take_signals();
            if pace != Pace::Run && exit != Some(Exit::Kicked) {
                self.tell_step(pace);
            }
        }
        self.ended.unwrap_or(0)
    }

    /// Sets the mask, here and at the host, so that blocked signals wait in the kernel.
    pub fn set_mask(&mut self, mask: u64) {
        self.mask = mask;
        signals::set_mask(mask);
    }

    fn system_call(&mut self) {
        let (number, arguments) = G::call_arguments(self.vcpu.state());
        let known = self.process.calls.get(number as usize).copied().flatten();
        let traced = self.process.options.strace.then(|| {
            let name =
                known.map_or_else(|| format!("Unknown syscall {number}"), |(name, _)| name.into());
            strace::call(&name, &arguments, G::MACHINE.pointer_bytes)
        });
        if let Some(line) = traced.as_ref().filter(|line| strace::does_not_return(line)) {
            self.process.options.log(&format!("{line}\n"));
        }
        self.note_call(true);
        let answer = match known {
            Some((_, Call::Host(host))) => self.pass(host, arguments),
            Some((_, Call::Own(call))) => call(self, arguments),
            Some((_, Call::Converted(host, described))) => {
                narrow::converted(self, host, described, arguments)
            }
            None => self.unknown(number),
        };
        self.note_call(false);
        if let Some(line) = traced {
            self.process.options.log(&format!("{line}{}\n", strace::result(&line, &answer)));
        }
        match answer {
            Ok(value) => G::set_result(self.vcpu.state_mut(), value as i64),
            Err(ERESTARTSYS) => self.interrupted(number, &arguments),
            Err(ERESTARTNOINTR) => G::restart(self.vcpu.state_mut(), number, &arguments),
            Err(RETURNED) => {}
            Err(errno) => G::set_result(self.vcpu.state_mut(), -i64::from(errno)),
        }
    }

    /// Hands a call to the host as it is. The kernel cannot write to pages whose translated code
    /// we guard, so on a bad address guards at the arguments are lifted and it is tried again.
    pub fn pass(&mut self, number: i64, arguments: [u64; 6]) -> Answer {
        let answer = host::call(number, arguments);
        if answer != Err(libc::EFAULT) {
            return answer;
        }
        let mut lifted = false;
        for pointer in arguments {
            if self.process.engine.unguard(pointer) {
                lifted = true;
            }
        }
        if lifted { host::call(number, arguments) } else { answer }
    }

    fn unknown(&self, number: u64) -> Answer {
        self.process.name_once(number, || format!("Unsupported syscall: {number}"));
        Err(libc::ENOSYS)
    }

    /// An interrupted call is made again unless a handler without SA_RESTART comes first.
    fn interrupted(&mut self, number: u64, arguments: &[u64; 6]) {
        let waiting = signals::pending() & !self.mask;
        let actions = *self.actions.lock();
        let handled = (0..64).find(|n| waiting & 1 << n != 0 && actions[*n].handler > 1);
        match handled {
            Some(n) if actions[n].flags & SA_RESTART == 0 => {
                G::set_result(self.vcpu.state_mut(), -i64::from(libc::EINTR));
            }
            _ => G::restart(self.vcpu.state_mut(), number, arguments),
        }
    }

    /// Delivers what is pending.
    pub fn take_signals(&mut self) {
        if !signals::noted(self.mask) {
            return;
        }
        while let Some((signal, info)) = signals::take(self.mask) {
            self.deliver(signal, info, Exception::default());
        }
        signals::set_mask(self.mask);
    }

    /// A synchronous fault: cannot be blocked or ignored.
    fn fault(&mut self, signal: i32, code: i32, address: u64, exception: Exception) {
        let Some(signal) = self.ask_debugger(signal) else { return };
        let action = self.actions.lock()[signal as usize - 1];
        if action.handler < 2 || self.mask & 1 << (signal - 1) != 0 {
            self.crash(signal, address);
        }
        self.enter_handler(signal, info(signal, code, address), exception);
    }

    fn crash(&self, signal: i32, address: u64) -> ! {
        let (pc, _) = G::position(self.vcpu.state());
        let name = &self.process.executable;
        eprintln!(
            "{}: {name}: uncaught target signal {signal} ({}) at pc {pc:#x}, address {address:#x}",
            G::MACHINE.name,
            signal_name(signal),
        );
        self.tell_end(gdb::Stop::Killed(debug::to_gdb(signal)));
        host::die_of(signal)
    }

    pub fn deliver(&mut self, signal: i32, info: Info, exception: Exception) {
        if let Some(signal) = self.ask_debugger(signal) {
            self.enter_handler(signal, info, exception);
        }
    }

    pub fn enter_handler(&mut self, signal: i32, info: Info, exception: Exception) {
        let action = {
            let mut actions = self.actions.lock();
            let action = actions[signal as usize - 1];
            if action.handler > 1 && action.flags & SA_RESETHAND != 0 {
                actions[signal as usize - 1].handler = 0;
            }
            action
        };
        match action.handler {
            0 if IGNORED.contains(&signal) => return,
            0 => {
                self.tell_end(gdb::Stop::Killed(debug::to_gdb(signal)));
                host::die_of(signal)
            }
            1 => return,
            _ => {}
        }
        let (_, stack) = G::position(self.vcpu.state());
        let [base, flags, size] = self.alternate;
        let on_alternate = stack.wrapping_sub(base) < size;
        let usable = flags & 2 == 0 && size != 0; // SS_DISABLE
        let switch = action.flags & SA_ONSTACK != 0 && usable && !on_alternate;
        let has_restorer = action.flags & SA_RESTORER != 0;
        let delivery = Delivery {
            signal,
            info: G::info(&info),
            handler: action.handler,
            restorer: has_restorer.then_some(action.restorer),
            trampoline: self.process.vdso.trampoline,
            informed: action.flags & SA_SIGINFO != 0,
            exception,
            stack: if switch { base + size } else { stack },
            mask: self.saved_mask.take().unwrap_or(self.mask),
            alternate: self.alternate,
        };
        if G::enter_handler(&mut self.vcpu, &delivery).is_err() {
            self.crash(libc::SIGSEGV, delivery.stack);
        }
        let own = if action.flags & SA_NODEFER == 0 { 1 << (signal - 1) } else { 0 };
        self.set_mask((self.mask | action.mask | own) & !UNBLOCKABLE);
    }

    /// What the host must do with a signal so that the guest's action comes true.
    pub fn follow_action(&self, signal: i32, action: &Action) {
        let disposition = match action.handler {
            0 => Disposition::Default,
            1 => Disposition::Ignore,
            _ => Disposition::Catch,
        };
        signals::set(signal, disposition);
    }
}

/// The call has set the registers itself.
pub const RETURNED: Errno = 10_000;

/// SIGKILL and SIGSTOP.
pub const UNBLOCKABLE: u64 = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);

/// A `siginfo_t` for a fault.
pub fn info(signal: i32, code: i32, address: u64) -> Info {
    let mut info = [0; INFO_BYTES];
    info[0..4].copy_from_slice(&signal.to_le_bytes());
    info[8..12].copy_from_slice(&code.to_le_bytes());
    info[16..24].copy_from_slice(&address.to_le_bytes());
    info
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGSEGV => "Segmentation fault",
        libc::SIGBUS => "Bus error",
        libc::SIGILL => "Illegal instruction",
        libc::SIGFPE => "Floating point exception",
        libc::SIGTRAP => "Trace/breakpoint trap",
        libc::SIGABRT => "Aborted",
        _ => "signal",
    }
}

/// Ends one thread: tells who waits for it.
pub fn finish<G: Guest>(thread: &mut Thread<G>) {
    thread.leave_debugger();
    crate::robust::release(thread.robust_list, G::MACHINE.pointer_bytes);
    if thread.clear_tid != 0 {
        let _ = crate::memory::write_word(thread.clear_tid, 0, 4);
        let wake = libc::FUTEX_WAKE as u64;
        let _ = host::plain(libc::SYS_futex, [thread.clear_tid, wake, 1, 0, 0, 0]);
    }
    thread.threaded.store(true, Ordering::Relaxed);
}
