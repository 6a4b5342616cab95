//! What a front end is: one trait, and the plain data it describes itself with.

use crate::ir::fpu::Fpu;
use crate::ir::{Ir, Reg, Type};

/// A guest instruction set.
///
/// An implementor is a value that holds the guest's configuration (word size, enabled extensions,
/// user or system mode); it is shared by all vCPUs and never changes. The engine is generic over
/// it and knows nothing else of the guest.
pub trait FrontEnd: Send + Sync + 'static {
    /// One vCPU's registers: a `#[repr(C)]` structure of plain integers and arrays of them, for
    /// which every bit pattern is valid. The engine reads and writes it by offset.
    type State: Copy + Send + 'static;

    /// Where the engine finds what it needs in `State`.
    const LAYOUT: &'static Layout;

    /// The functions that `Ir::helper` calls by index.
    const HELPERS: &'static [Helper<Self::State>];

    /// The bit of `Key::mode` that translated code may change without leaving (`Ir::variant`), if
    /// there is one. `key` answers it from state, which blocks keep up to date.
    const VARIANT: u64 = 0;

    /// Told once, before anything is translated: what the back end makes good code of.
    fn host(&mut self, _host: Host) {}

    /// The state after reset.
    fn reset(&self) -> Self::State;

    /// Which block comes next: the pc, and every mode bit on which the *meaning or decoding* of
    /// instructions depends (privilege level, operand size, FPU enabled, endianness, single step).
    /// Bits the IR reads from state at run time do not belong here.
    fn key(&self, state: &Self::State) -> Key;

    /// Lifts one block at `key` into `ir`, which was cleared. See [`crate::ir`] for the duties.
    fn translate(&self, key: Key, fetch: &mut dyn Fetch, ir: &mut Ir);

    /// Delivers an event to the guest: in system mode by entering its handler (writing state and
    /// memory), and answers `Ok`. `Err` gives the event back: user mode, or nothing that the guest
    /// can handle (a triple fault); the run loop's caller then decides.
    fn deliver(
        &self,
        state: &mut Self::State,
        memory: &mut dyn GuestMemory,
        event: Event,
    ) -> Result<(), Event>;

    /// Takes a pending interrupt if the state allows it now. Called by the run loop between blocks
    /// whenever a kick was seen; `Ok(true)` says that the state changed.
    fn interrupt(
        &self,
        _state: &mut Self::State,
        _memory: &mut dyn GuestMemory,
        _line: u32,
    ) -> bool {
        false
    }

    /// System mode: walks the guest's page tables. Reads and updates them through `memory`'s
    /// physical access. In user mode never called.
    fn walk(
        &self,
        state: &Self::State,
        memory: &mut dyn Physical,
        address: u64,
        access: Access,
        mmu_index: u16,
    ) -> Result<Translation, MemoryFault>;

    /// The address space's number for tagging the TLB (ASID, PCID), at most 12 bits.
    fn asid(&self, _state: &Self::State) -> u16 {
        0
    }

    /// Which MMU view the block's own mode is (`Mem::index(0)`), so that the TLB keeps the views
    /// apart: user, kernel, ...; smaller than 4.
    fn mmu_view(&self, _mode: u64) -> u16 {
        0
    }

    /// Memory that the guest's own debug registers watch. Its pages stay out of the TLB: whoever
    /// changes what this says forgets those of before and of after.
    fn watches(&self, _state: &Self::State) -> [Option<Watched>; 4] {
        [None; 4]
    }

    /// Which of them an access hits; 0: none.
    fn watch_bits(&self, _state: &Self::State, _address: u64, _bytes: u64, _access: Access) -> u64 {
        0
    }

    /// An instruction has hit what is watched, and has ended so.
    fn watch_hit(&self, _state: &mut Self::State, _bits: u64, _event: Option<Event>) {}

    /// The registers, for gdb and `info registers`.
    fn registers(&self) -> &'static [Registers];
}

/// Memory that is watched by the guest itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watched {
    /// The first byte.
    pub start: u64,
    /// So many.
    pub bytes: u64,
    /// Loads hit, too.
    pub reads: bool,
}

/// What one host instruction can do. Without it front ends must lift otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Host {
    /// Values of type `V256`, and lane operations that only VEX has.
    pub wide: bool,
    /// Fused multiplication and addition.
    pub fused: bool,
    /// Half-precision conversion.
    pub half: bool,
    /// The SHA rows.
    pub sha: bool,
    /// The AES rows and `ClMul`.
    pub aes: bool,
    /// `Pext` and `Pdep`.
    pub bits: bool,
}

/// A block's identity besides the memory it lies in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Key {
    /// The address of its first instruction, as the guest fetches it (x86: with CS base added).
    pub pc: u64,
    /// The front end's mode bits.
    pub mode: u64,
}

/// Where things are in the guest state.
#[derive(Debug)]
pub struct Layout {
    /// `size_of::<State>()`.
    pub bytes: usize,
    /// The program counter: an `I64` the engine writes when it leaves translated code.
    pub pc: u16,
    /// General registers to pin in host registers, the hottest first. The engine takes as many as
    /// it has (11 on x86-64); the rest lives in memory behind a block-local cache.
    pub general: &'static [Pin],
    /// Vector or FP registers to pin, the hottest first (12 on x86-64).
    pub vectors: &'static [Pin],
    /// Registers whose value at a fault nobody can depend on unless the block reads it later:
    /// condition flags. A write to one that the block overwrites unread is not done, even when a
    /// fault lies between.
    pub relaxed: &'static [Reg],
    /// Where the numbers of `Code::Fpu` are, if the guest has it.
    pub fpu: Option<Fpu>,
}

/// A register to pin.
#[derive(Clone, Copy, Debug)]
pub struct Pin {
    /// The whole register: `I64` for general ones; `F64` or `V128` for vectors.
    pub reg: Reg,
    /// A host register with a matching role, if instructions have implied operands there.
    pub prefer: Prefer,
}

impl Pin {
    /// A pin for any host register.
    pub const fn any(offset: usize, ty: Type) -> Self {
        Self { reg: Reg::new(offset, ty), prefer: Prefer::Any }
    }
}

/// Roles of host registers, as x86 numbers them. On other hosts a hint without effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prefer {
    /// Any register.
    Any,
    /// The host register of this number (x86: 0 rax, 1 rcx, 2 rdx, 3 rbx, 5 rbp, 6 rsi, ...);
    /// 4 is the host's stack pointer and never given.
    Number(u8),
}

/// Gives the guest's code to a front end.
pub trait Fetch {
    /// Copies code at `pc` into `bytes` and returns how many bytes are readable there without
    /// crossing into a page that is not: less than asked at the end of readable memory, 0 when
    /// `pc` itself faults (the front end then ends the block before, or lifts
    /// `ir.fetch_fault(pc)` as its first instruction).
    fn fetch(&mut self, pc: u64, bytes: &mut [u8]) -> usize;
}

/// The kind of a memory access.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Access {
    /// A load.
    Read,
    /// A store or an atomic operation.
    Write,
    /// An instruction fetch.
    Execute,
    /// Any access, at an address that must be aligned and is not.
    Unaligned,
    /// No access: a division that has no result (`DivWide*`).
    Divide,
}

/// A memory access that did not work. `detail` is the front end's own (x86's error code).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryFault {
    /// Guest virtual address.
    pub address: u64,
    /// What was tried.
    pub access: Access,
    /// From `walk`: what the front end wants to remember.
    pub detail: u64,
}

/// What stops straight-line execution. The pc in state is that of the instruction concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A memory fault.
    Memory(MemoryFault),
    /// The front end's own exception (`Ir::raise`): a number below `0x8000` of its choice, and
    /// information.
    Exception {
        /// Which.
        number: u16,
        /// A fault address, an error code, the illegal instruction.
        info: u64,
    },
    /// A system call of a user-mode program; pc is already behind the instruction.
    SystemCall,
    /// The vCPU waits for an interrupt; pc is already behind the instruction.
    Halt,
    /// A breakpoint instruction.
    Breakpoint,
    /// An instruction that does not exist or is not implemented. (User mode; in system mode front
    /// ends raise their own exception.)
    Illegal,
}

impl Event {
    /// `aux` of `Raise` for the events without data; exceptions have their own number.
    pub const SYSTEM_CALL: u16 = 0x8000;
    /// See `SYSTEM_CALL`.
    pub const HALT: u16 = 0x8001;
    /// See `SYSTEM_CALL`.
    pub const BREAKPOINT: u16 = 0x8002;
    /// See `SYSTEM_CALL`.
    pub const ILLEGAL: u16 = 0x8003;
    /// A fetch that faulted; the information is the address.
    pub const FETCH: u16 = 0x8004;
    /// A fetch from where no instruction can be; the information is the address.
    pub const MISALIGNED_FETCH: u16 = 0x8005;

    /// The event that `Raise` names.
    pub const fn from_raise(number: u16, info: u64) -> Self {
        match number {
            Self::SYSTEM_CALL => Self::SystemCall,
            Self::HALT => Self::Halt,
            Self::BREAKPOINT => Self::Breakpoint,
            Self::ILLEGAL => Self::Illegal,
            Self::FETCH => {
                Self::Memory(MemoryFault { address: info, access: Access::Execute, detail: 0 })
            }
            Self::MISALIGNED_FETCH => {
                Self::Memory(MemoryFault { address: info, access: Access::Unaligned, detail: 0 })
            }
            number => Self::Exception { number, info },
        }
    }
}

/// A page-table walk's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// Guest physical address of the byte asked for.
    pub physical: u64,
    /// log2 of the page's size: how far the answer holds around it.
    pub page_bits: u8,
    /// Loads allowed.
    pub read: bool,
    /// Stores allowed *without a further walk* (x86, RISC-V: the dirty bit is already set).
    pub write: bool,
    /// Fetches allowed.
    pub execute: bool,
    /// Holds in every address space.
    pub global: bool,
}

/// Guest physical memory, for walks. No side effects on devices: device memory reads as `None`.
pub trait Physical {
    /// An aligned little-endian word of 4 or 8 bytes.
    fn read(&mut self, address: u64, bytes: u32) -> Option<u64>;
    /// Atomically replaces `old` by `new` (accessed and dirty bits); `false`: it was not `old`.
    fn compare_exchange(&mut self, address: u64, bytes: u32, old: u64, new: u64) -> bool;
}

/// Guest virtual memory as a helper sees it: faults instead of errors, MMIO included.
pub trait GuestMemory {
    /// Loads `bytes` (1, 2, 4, 8), little-endian.
    fn load(&mut self, address: u64, bytes: u32, mmu_index: u16) -> Result<u64, MemoryFault>;
    /// Stores likewise.
    fn store(
        &mut self,
        address: u64,
        bytes: u32,
        value: u64,
        mmu_index: u16,
    ) -> Result<(), MemoryFault>;
    /// Fills `into` from memory, from low to high addresses; on a fault nothing is promised.
    fn read(&mut self, address: u64, into: &mut [u8], mmu_index: u16) -> Result<(), MemoryFault>;
    /// Writes all or nothing: pages are checked first, so that the instruction can be restarted.
    fn write(&mut self, address: u64, from: &[u8], mmu_index: u16) -> Result<(), MemoryFault>;
    /// Moves bytes, as `memmove` does, from one page into one page, if both are at hand. False:
    /// nothing was done, and `read` and `write` are the way.
    fn copy_at_hand(&mut self, _from: u64, _to: u64, _bytes: usize) -> bool {
        false
    }
    /// Likewise, stores an element of 1, 2, 4 or 8 bytes many times over in one page.
    fn fill_at_hand(&mut self, _to: u64, _bytes: u32, _value: u64, _count: usize) -> bool {
        false
    }
    /// Whether an access of this kind would fault, without doing it.
    fn probe(&mut self, address: u64, bytes: u32, access: Access) -> Result<(), MemoryFault>;
    /// Atomically compares (`old`) and swaps (`new`) 1 to 16 bytes; answers what was there.
    fn compare_exchange(
        &mut self,
        address: u64,
        bytes: u32,
        old: u128,
        new: u128,
        mmu_index: u16,
    ) -> Result<u128, MemoryFault>;
    /// Forgets translations of one page, or of all (`None`), of one address space or of all.
    fn flush_tlb(&mut self, address: Option<u64>, asid: Option<u16>);
    /// Forgets translated code in this virtual range (explicit instruction-cache maintenance).
    fn flush_code(&mut self, address: u64, bytes: u64);
    /// A port or system-register access that the machine, not the CPU, answers: `space` is the
    /// front end's (x86: 0 = I/O ports, 1 = random numbers). In user mode the embedder answers; what
    /// it does not have is all ones.
    fn machine_read(&mut self, space: u32, address: u64, bytes: u32) -> u64;
    /// The same, written.
    fn machine_write(&mut self, space: u32, address: u64, bytes: u32, value: u64);
    /// Nanoseconds of guest time, monotonic; the base of every timer and cycle counter.
    fn clock_ns(&mut self) -> u64;
}

/// Why a helper does not simply return.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The instruction has an event instead of a result; state must be as before it.
    Event(Event),
    /// The instruction is complete and the helper wrote pc and perhaps the mode: look up anew.
    Lookup,
}

/// What a helper gives: a value for the IR (0 when it has none), or why it stops.
pub type HelperResult = Result<u64, Stop>;

/// A helper: semantics too rare or too large for IR.
///
/// It sees exact state (all pinned registers are written back before and reloaded after the call)
/// and must not panic. In state, pc is the calling instruction's.
pub struct Helper<State> {
    /// The name in listings.
    pub name: &'static str,
    /// The function, with up to three operands from the IR, zero-extended.
    pub call: fn(&mut State, &mut dyn GuestMemory, [u64; 3]) -> HelperResult,
    /// Uses the host's FP unit: the guest's MXCSR is put aside around the call.
    pub fp: bool,
}

/// A run of registers in gdb's order.
#[derive(Debug)]
pub struct Registers {
    /// The name, with `%` for the index when there are several.
    pub name: &'static str,
    /// The first one.
    pub first: Reg,
    /// How many, each `stride` bytes after the last.
    pub count: u16,
    /// See `count`.
    pub stride: u16,
}
