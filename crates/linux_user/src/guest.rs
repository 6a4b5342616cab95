//! What the system-call layer must know of an architecture.

use isa::{Access, Event, FrontEnd, MemoryFault};
use jit::Vcpu;

use crate::call::Row;
use crate::signals::Info;

/// Plain facts of an architecture's Linux.
#[derive(Debug)]
pub struct Machine {
    /// As in `qemu-NAME` and `uname -m`.
    pub name: &'static str,
    /// ELF's number.
    pub elf_machine: u16,
    /// Bytes of a pointer.
    pub pointer_bytes: usize,
    /// Addresses are below this.
    pub address_end: u64,
    /// AT_HWCAP.
    pub hwcap: u64,
    /// AT_PLATFORM.
    pub platform: &'static str,
    /// AT_MINSIGSTKSZ.
    pub signal_stack_min: u64,
    /// The bytes of code that call `rt_sigreturn`, for handlers without a restorer.
    pub sigreturn_code: &'static [u8],
    /// What /proc/cpuinfo says of a processor, with `{}` for its number; `None`: what the host's says.
    pub cpu_info: Option<&'static str>,
    /// The functions of the vDSO: name and code.
    pub vdso: &'static [(&'static str, &'static [u8])],
    /// The version of their names.
    pub vdso_version: &'static str,
    /// Which of them makes a system call (AT_SYSINFO).
    pub system_call_function: Option<&'static str>,
    /// Bytes of the system call instruction.
    pub call_bytes: u64,
    /// Names for `-cpu`.
    pub cpus: &'static [&'static str],
}

impl Delivery {
    /// Where the handler returns to.
    pub fn return_address(&self) -> u64 {
        self.restorer.unwrap_or(self.trampoline)
    }
}

/// What the processor tells of an exception.
#[derive(Clone, Copy, Default, Debug)]
pub struct Exception {
    /// Its number.
    pub number: u64,
    /// Its error code.
    pub error: u64,
    /// The address of a memory fault.
    pub address: u64,
}

/// A signal about to be delivered.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// Which.
    pub signal: i32,
    /// Its information.
    pub info: Info,
    /// The handler's address.
    pub handler: u64,
    /// Where the handler returns to, if the program says so.
    pub restorer: Option<u64>,
    /// Where else: the page with code that calls `rt_sigreturn`.
    pub trampoline: u64,
    /// The handler takes information (SA_SIGINFO).
    pub informed: bool,
    /// Error code, number and address of the exception that is the cause.
    pub exception: Exception,
    /// The stack pointer to build the frame below.
    pub stack: u64,
    /// The mask to restore afterwards.
    pub mask: u64,
    /// The alternate stack: address, flags, size.
    pub alternate: [u64; 3],
}

/// An architecture.
pub trait Guest: Sized + Send + Sync + 'static {
    /// Its instructions.
    type FrontEnd: FrontEnd;

    /// Facts.
    const MACHINE: Machine;

    /// Whether `struct sigaction` has a restorer.
    const HAS_RESTORER: bool = false;

    /// What a thread has besides its registers.
    type Local: Clone + Default + Send;

    /// Its system calls.
    fn calls() -> Vec<Row<Self>>;

    /// The front end for `-cpu NAME`, `None` when there is no such CPU.
    fn front_end(cpu: Option<&str>) -> Option<Self::FrontEnd>;

    /// The number and arguments of the system call that was just made.
    fn call_arguments(state: &State<Self>) -> (u64, [u64; 6]);

    /// Sets a system call's result.
    fn set_result(state: &mut State<Self>, result: i64);

    /// Undoes the effect on the argument registers of `set_result`, for a restart: the first
    /// argument is what it was, and pc is at the instruction.
    fn restart(state: &mut State<Self>, number: u64, arguments: &[u64; 6]);

    /// Ready for the first instruction.
    fn start(state: &mut State<Self>, local: &mut Self::Local, pc: u64, stack: u64);

    /// The registers as gdb knows them.
    fn description() -> gdb::Description;

    /// Their values, one behind the other.
    fn debug_registers(vcpu: &Vcpu<Self::FrontEnd>) -> Vec<u8>;

    /// Sets them; there are as many as `debug_registers` gave.
    fn set_debug_registers(vcpu: &mut Vcpu<Self::FrontEnd>, values: &[u8]);

    /// The instruction of so many bytes that stops at a breakpoint.
    fn breakpoint(bytes: u64) -> &'static [u8];

    /// Goes on there.
    fn set_pc(state: &mut State<Self>, pc: u64);

    /// Program counter and stack pointer.
    fn position(state: &State<Self>) -> (u64, u64);

    /// A new thread's registers, after `clone`.
    fn set_thread(
        state: &mut State<Self>,
        local: &mut Self::Local,
        stack: Option<u64>,
        tls: Option<u64>,
    ) -> Result<(), i32>;

    /// Builds the signal frame and enters the handler.
    fn enter_handler(vcpu: &mut Vcpu<Self::FrontEnd>, delivery: &Delivery) -> Result<(), i32>;

    /// Takes the frame apart; gives the mask to restore and the alternate stack.
    fn leave_handler(
        vcpu: &mut Vcpu<Self::FrontEnd>,
        local: &mut Self::Local,
    ) -> Result<(u64, [u64; 3]), i32>;

    /// A signal's information as the guest lays it out.
    fn info(host: &Info) -> Info {
        *host
    }

    /// Whether the program jumped to an entry that the kernel keeps outside its memory, which is a
    /// system call: its registers are then those of one.
    fn entered_kernel(_: &Event, _: &mut State<Self>) -> bool {
        false
    }

    /// What the processor tells of an event, for the frame.
    fn exception(_: &Event, _: &State<Self>) -> Exception {
        Exception::default()
    }

    /// The signal, code and address of an event that is not a system call. x86's exceptions say
    /// more than these.
    fn signal_of(event: &Event, state: &State<Self>) -> (i32, i32, u64) {
        let (pc, _) = Self::position(state);
        match *event {
            Event::Memory(MemoryFault { access: Access::Unaligned, address, .. }) => {
                (libc::SIGBUS, 1, address)
            }
            Event::Memory(MemoryFault { detail, address, .. }) if detail != 0 => {
                (libc::SIGBUS, 2, address)
            }
            Event::Memory(MemoryFault { address, .. }) => (libc::SIGSEGV, 1, address),
            Event::Breakpoint => (libc::SIGTRAP, 1, pc),
            _ => (libc::SIGILL, 1, pc),
        }
    }
}

/// A guest's registers.
pub type State<G> = <<G as Guest>::FrontEnd as FrontEnd>::State;
