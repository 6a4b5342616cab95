//! The registers of a processor.

use std::mem::offset_of;

use crate::front_end::{Layout, Pin, Registers};
use crate::ir::{Reg, Type};

/// A processor as a program (EL0) sees it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct State {
    /// X0 to X30.
    pub x: [u64; 31],
    /// The stack pointer.
    pub sp: u64,
    /// Program counter.
    pub pc: u64,
    /// N, Z, C, V as a flags image: bits as in x86 EFLAGS, the others garbage.
    pub flags: u64,
    /// V0 to V31, low word first.
    pub v: [[u64; 2]; 32],
    /// TPIDR_EL0: thread pointer.
    pub tpidr: u64,
    /// FPCR. Rounding and flush mode are in the host's MXCSR too.
    pub fpcr: u64,
    /// FPSR.QC (bit 27); the other sticky bits are in the host's MXCSR.
    pub qc: u64,
    /// The address of the exclusive monitor, or all ones.
    pub exclusive_address: u64,
    /// What the exclusive load saw there: low and high half.
    pub exclusive_value: [u64; 2],
}

impl Default for State {
    fn default() -> Self {
        Self {
            x: [0; 31],
            sp: 0,
            pc: 0,
            flags: 0,
            v: [[0; 2]; 32],
            tpidr: 0,
            fpcr: 0,
            qc: 0,
            exclusive_address: u64::MAX,
            exclusive_value: [0; 2],
        }
    }
}

/// X`n`, n up to 30; 31 is SP.
pub const fn x(n: u32) -> Reg {
    Reg::new(offset_of!(State, x) + 8 * n as usize, Type::I64)
}

/// V`n`.
pub const fn v(n: u32) -> Reg {
    Reg::new(offset_of!(State, v) + 16 * n as usize, Type::V128)
}

const _: () = assert!(offset_of!(State, sp) == offset_of!(State, x) + 8 * 31);

/// Program counter.
pub const PC: Reg = Reg::new(offset_of!(State, pc), Type::I64);
/// See `State`.
pub const FLAGS: Reg = Reg::new(offset_of!(State, flags), Type::Flags);
/// See `State`.
pub const TPIDR: Reg = Reg::new(offset_of!(State, tpidr), Type::I64);
/// See `State`.
pub const FPCR: Reg = Reg::new(offset_of!(State, fpcr), Type::I64);
/// See `State`.
pub const QC: Reg = Reg::new(offset_of!(State, qc), Type::I64);
/// See `State`.
pub const EXCLUSIVE_ADDRESS: Reg = Reg::new(offset_of!(State, exclusive_address), Type::I64);
/// See `State`.
pub const EXCLUSIVE_VALUE: Reg = Reg::new(offset_of!(State, exclusive_value), Type::I64);
/// See `State`.
pub const EXCLUSIVE_HIGH: Reg = Reg::new(offset_of!(State, exclusive_value) + 8, Type::I64);

const fn pin_x(n: u32) -> Pin {
    Pin::any(x(n).offset as usize, Type::I64)
}

const fn pin_v(n: u32) -> Pin {
    Pin::any(v(n).offset as usize, Type::V128)
}

/// Compiled code lives on the argument registers, SP, the first saved ones and the link register;
/// on V0 to V7 and V16 upwards among the vectors.
pub const LAYOUT: Layout = Layout {
    bytes: size_of::<State>(),
    pc: offset_of!(State, pc) as u16,
    general: &[
        pin_x(0),
        pin_x(1),
        pin_x(2),
        pin_x(3),
        pin_x(31),
        pin_x(19),
        pin_x(4),
        pin_x(20),
        pin_x(30),
        pin_x(5),
        pin_x(21),
        pin_x(29),
        pin_x(22),
    ],
    vectors: &[
        pin_v(0),
        pin_v(1),
        pin_v(2),
        pin_v(3),
        pin_v(4),
        pin_v(5),
        pin_v(6),
        pin_v(7),
        pin_v(16),
        pin_v(17),
        pin_v(18),
        pin_v(31),
    ],
    relaxed: &[FLAGS],
    fpu: None,
};

/// gdb's order.
pub const REGISTERS: &[Registers] = &[
    Registers { name: "x%", first: x(0), count: 31, stride: 8 },
    Registers { name: "sp", first: x(31), count: 1, stride: 8 },
    Registers { name: "pc", first: PC, count: 1, stride: 8 },
    Registers { name: "v%", first: v(0), count: 32, stride: 16 },
];
