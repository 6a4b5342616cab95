//! The registers of a processor.

use std::mem::offset_of;

use crate::front_end::{Layout, Pin, Prefer, Registers};
use crate::ir::fpu::Fpu;
use crate::ir::{Reg, Type};

/// A segment register with what its descriptor said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Added to every address.
    pub base: u64,
    /// The last offset, in bytes.
    pub limit: u32,
    /// Bits 8 to 23 of the descriptor's upper word: type, S, DPL, P, AVL, L, D, G.
    pub attributes: u32,
    /// What the program loaded.
    pub selector: u64,
}

/// A descriptor table's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Table {
    /// Linear address.
    pub base: u64,
    /// The last offset.
    pub limit: u64,
}

/// ES, CS, SS, DS, FS, GS as x86 numbers them.
pub const ES: usize = 0;
/// See [`ES`].
pub const CS: usize = 1;
/// See [`ES`].
pub const SS: usize = 2;
/// See [`ES`].
pub const DS: usize = 3;
/// See [`ES`].
pub const FS: usize = 4;
/// See [`ES`].
pub const GS: usize = 5;

/// General registers by number.
pub const RAX: usize = 0;
/// See [`RAX`].
pub const RCX: usize = 1;
/// See [`RAX`].
pub const RDX: usize = 2;
/// See [`RAX`].
pub const RBX: usize = 3;
/// See [`RAX`].
pub const RSP: usize = 4;
/// See [`RAX`].
pub const RBP: usize = 5;
/// See [`RAX`].
pub const RSI: usize = 6;
/// See [`RAX`].
pub const RDI: usize = 7;

/// A processor.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct State {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    /// The linear address of the next instruction: EIP with the base of CS added.
    pub pc: u64,
    /// The arithmetic flags, as an image whose other bits are garbage.
    pub flags: u64,
    /// The other flags; the arithmetic bits here are always clear.
    pub eflags: u64,
    /// XMM and YMM registers, low word first.
    pub vectors: [[u64; 4]; 16],
    /// x87 data registers by physical number: significand, then sign and exponent.
    pub x87: [[u64; 2]; 8],
    /// x87 control word.
    pub x87_control: u64,
    /// x87 status word without TOP.
    pub x87_status: u64,
    /// The physical register that is ST(0).
    pub x87_top: u64,
    /// A bit for each physical register that is empty.
    pub x87_empty: u64,
    /// Segment registers.
    pub segments: [Segment; 6],
    /// Local descriptor table.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table.
    pub gdtr: Table,
    /// Interrupt descriptor table.
    pub idtr: Table,
    /// Control registers; CR1, CR5 to CR7 do not exist.
    pub cr: [u64; 9],
    /// Debug registers.
    pub dr: [u64; 8],
    /// Extended features.
    pub efer: u64,
    /// XCR0.
    pub xcr0: u64,
    /// The other model-specific registers.
    pub msr: Msrs,
    /// Some upper half of a vector register may be other than zero. Who writes one sets it.
    pub upper_halves: u64,
    /// Vector operands of helpers.
    pub scratch: [[u64; 2]; 2],
    /// Nothing may interrupt before the next instruction is done: 1 after STI; [`SHADOW_OF_STACK`]
    /// after MOV SS and POP SS, which hold debug exceptions back as well.
    pub shadow: u64,
    /// An interrupt waits until the processor is open to it: leave translated code then.
    pub interrupt_waits: u64,
    /// Non-maskable interrupts wait for IRET.
    pub nmi_masked: u64,
    /// The processor waits for an interrupt.
    pub halted: u64,
    /// Bits for DR6 of a trap that is due before the next instruction.
    pub trap_due: u64,
}

/// Model-specific registers that are plain memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs, reason = "the manual's names")]
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
    pub tsc_aux: u64,
    /// What to add to the machine's cycles.
    pub tsc_offset: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub misc_enable: u64,
    pub spec_ctrl: u64,
    pub mtrr_default: u64,
    pub mtrr_variable: [u64; 16],
    pub mtrr_fixed: [u64; 11],
    /// The number of this processor's local APIC, which CPUID tells.
    pub apic_id: u64,
    /// How many processors there are; 0 in user mode.
    pub apic_count: u64,
}

/// See `State::shadow`.
pub const SHADOW_OF_STACK: u64 = 2;

/// Reset value of PAT: write-back, write-through, uncached-, uncached, twice.
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// Flags: the bit that always reads as one.
pub const ALWAYS_ONE: u64 = 2;

impl Default for State {
    /// After reset: real mode at `f000:fff0`, below the top of the 4 GiB.
    fn default() -> Self {
        let data = Segment { base: 0, limit: 0xffff, attributes: 0x93, selector: 0 };
        let mut segments = [data; 6];
        segments[CS] = Segment { base: 0xffff_0000, attributes: 0x9b, selector: 0xf000, ..data };
        let mut gpr = [0; 16];
        gpr[RDX] = 0x600; // family 6, for code that looks before CPUID
        let system = |attributes| Segment { base: 0, limit: 0xffff, attributes, selector: 0 };
        Self {
            gpr,
            pc: 0xffff_fff0,
            flags: 0,
            eflags: ALWAYS_ONE,
            vectors: [[0; 4]; 16],
            x87: [[0; 2]; 8],
            x87_control: 0x037f,
            x87_status: 0,
            x87_top: 0,
            x87_empty: 0xff,
            segments,
            ldtr: system(0x82),
            tr: system(0x8b),
            gdtr: Table { base: 0, limit: 0xffff },
            idtr: Table { base: 0, limit: 0xffff },
            cr: [0x6000_0010, 0, 0, 0, 0, 0, 0, 0, 0],
            dr: [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400],
            efer: 0,
            xcr0: 1,
            msr: Msrs { pat: PAT_RESET, misc_enable: 1, ..Msrs::default() },
            upper_halves: 0,
            scratch: [[0; 2]; 2],
            shadow: 0,
            interrupt_waits: 0,
            nmi_masked: 0,
            halted: 0,
            trap_due: 0,
        }
    }
}

impl State {
    /// Says whether upper halves are in use, after they were written from outside.
    pub fn note_upper_halves(&mut self) {
        let any = self.vectors.iter().any(|vector| vector[2..] != [0; 2]);
        self.upper_halves = u64::from(any);
    }
}

/// General register `n`, whole.
pub const fn gpr(n: usize) -> Reg {
    Reg::new(offset_of!(State, gpr) + 8 * n, Type::I64)
}

/// AH, CH, DH, BH.
pub const fn high_byte(n: usize) -> Reg {
    Reg::new(offset_of!(State, gpr) + 8 * n + 1, Type::I8)
}

/// XMM register `n`.
pub const fn xmm(n: usize) -> Reg {
    Reg::new(offset_of!(State, vectors) + 32 * n, Type::V128)
}

/// YMM register `n`.
pub const fn ymm(n: usize) -> Reg {
    Reg::new(offset_of!(State, vectors) + 32 * n, Type::V256)
}

/// The upper half of YMM register `n`.
pub const fn upper_half(n: usize) -> Reg {
    Reg::new(offset_of!(State, vectors) + 32 * n + 16, Type::V128)
}

/// See `State::upper_halves`.
pub const UPPER_HALVES: Reg = Reg::new(offset_of!(State, upper_halves), Type::I64);

/// The base of segment register `n`.
pub const fn segment_base(n: usize) -> Reg {
    Reg::new(offset_of!(State, segments) + size_of::<Segment>() * n, Type::I64)
}

/// The selector of segment register `n`.
pub const fn selector(n: usize) -> Reg {
    let within = offset_of!(Segment, selector);
    Reg::new(offset_of!(State, segments) + size_of::<Segment>() * n + within, Type::I64)
}

/// Control register `n`.
pub const fn cr(n: usize) -> Reg {
    Reg::new(offset_of!(State, cr) + 8 * n, Type::I64)
}

/// Program counter.
pub const PC: Reg = Reg::new(offset_of!(State, pc), Type::I64);
/// The arithmetic flags.
pub const FLAGS: Reg = Reg::new(offset_of!(State, flags), Type::Flags);
/// The other flags.
pub const EFLAGS: Reg = Reg::new(offset_of!(State, eflags), Type::I64);

/// A vector operand of a helper.
pub const fn scratch(n: usize) -> Reg {
    Reg::new(offset_of!(State, scratch) + 16 * n, Type::V128)
}

/// MMX register `n`: the significand of the physical x87 register of that number.
pub const fn mmx(n: usize) -> Reg {
    Reg::new(offset_of!(State, x87) + 16 * n, Type::I64)
}

/// Its sign and exponent, which MMX instructions set to ones.
pub const fn mmx_exponent(n: usize) -> Reg {
    Reg::new(offset_of!(State, x87) + 16 * n + 8, Type::I16)
}

/// See `State::x87_top`.
pub const X87_TOP: Reg = Reg::new(offset_of!(State, x87_top), Type::I64);
/// See `State::x87_empty`.
pub const X87_EMPTY: Reg = Reg::new(offset_of!(State, x87_empty), Type::I64);
/// See `State::x87_control`.
pub const X87_CONTROL: Reg = Reg::new(offset_of!(State, x87_control), Type::I64);
/// See `Msrs::tsc_aux`.
pub const TSC_AUX: Reg = Reg::new(offset_of!(State, msr) + offset_of!(Msrs, tsc_aux), Type::I64);
/// See `Msrs::kernel_gs_base`.
pub const KERNEL_GS_BASE: Reg =
    Reg::new(offset_of!(State, msr) + offset_of!(Msrs, kernel_gs_base), Type::I64);
/// The selector in the local-descriptor-table register.
pub const LDTR_SELECTOR: Reg =
    Reg::new(offset_of!(State, ldtr) + offset_of!(Segment, selector), Type::I64);
/// The selector in the task register.
pub const TR_SELECTOR: Reg =
    Reg::new(offset_of!(State, tr) + offset_of!(Segment, selector), Type::I64);
/// Base and limit of the global descriptor table.
pub const GDTR: (Reg, Reg) = table(offset_of!(State, gdtr));
/// Base and limit of the interrupt descriptor table.
pub const IDTR: (Reg, Reg) = table(offset_of!(State, idtr));

const fn table(offset: usize) -> (Reg, Reg) {
    let limit = offset + offset_of!(Table, limit);
    (Reg::new(offset, Type::I64), Reg::new(limit, Type::I64))
}

/// See `State::shadow`.
pub const SHADOW: Reg = Reg::new(offset_of!(State, shadow), Type::I64);

/// See `State::trap_due`.
pub const TRAP_DUE: Reg = Reg::new(offset_of!(State, trap_due), Type::I64);

const fn pin(n: usize, host: u8) -> Pin {
    Pin { reg: gpr(n), prefer: Prefer::Number(host) }
}

const fn pin_ymm(n: usize) -> Pin {
    Pin { reg: ymm(n), prefer: Prefer::Number(n as u8) }
}

/// The eight old registers and the first of the new ones carry most accesses in compiled code. The
/// old ones keep their number, for shifts by CL and for AH to BH; RSP cannot.
pub const LAYOUT: Layout = Layout {
    bytes: size_of::<State>(),
    pc: offset_of!(State, pc) as u16,
    general: &[
        pin(RAX, 0),
        pin(RCX, 1),
        pin(RDX, 2),
        pin(RSP, 8),
        pin(RBX, 3),
        pin(RBP, 5),
        pin(RSI, 6),
        pin(RDI, 7),
        pin(12, 12),
        pin(13, 13),
        pin(14, 14),
        pin(8, 9),
        pin(9, 10),
    ],
    vectors: &[
        pin_ymm(0),
        pin_ymm(1),
        pin_ymm(2),
        pin_ymm(3),
        pin_ymm(4),
        pin_ymm(5),
        pin_ymm(6),
        pin_ymm(7),
        pin_ymm(8),
        pin_ymm(9),
        pin_ymm(10),
        pin_ymm(11),
    ],
    // So EFLAGS in a SIGSEGV frame can be older than the faulting instruction. Exact flags at every
    // access that could fault were measured to cost integer code 1.8 times its time.
    relaxed: &[FLAGS],
    fpu: Some(Fpu {
        registers: offset_of!(State, x87) as u16,
        control: offset_of!(State, x87_control) as u16,
        status: offset_of!(State, x87_status) as u16,
        top: offset_of!(State, x87_top) as u16,
        empty: offset_of!(State, x87_empty) as u16,
    }),
};

/// gdb's order for x86-64.
pub const REGISTERS: &[Registers] = &[
    Registers { name: "rax", first: gpr(RAX), count: 1, stride: 8 },
    Registers { name: "rbx", first: gpr(RBX), count: 1, stride: 8 },
    Registers { name: "rcx", first: gpr(RCX), count: 1, stride: 8 },
    Registers { name: "rdx", first: gpr(RDX), count: 1, stride: 8 },
    Registers { name: "rsi", first: gpr(RSI), count: 1, stride: 8 },
    Registers { name: "rdi", first: gpr(RDI), count: 1, stride: 8 },
    Registers { name: "rbp", first: gpr(RBP), count: 1, stride: 8 },
    Registers { name: "rsp", first: gpr(RSP), count: 1, stride: 8 },
    Registers { name: "r%", first: gpr(8), count: 8, stride: 8 },
    Registers { name: "rip", first: PC, count: 1, stride: 8 },
    Registers { name: "eflags", first: FLAGS, count: 1, stride: 8 },
];
