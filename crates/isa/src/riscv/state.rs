//! The registers of a hart.

use std::mem::offset_of;

use crate::front_end::{Layout, Pin, Registers};
use crate::ir::{Reg, Type};

/// A hart.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct State {
    /// Integer registers; `x[0]` is always zero.
    pub x: [u64; 32],
    /// Floating-point registers; narrower numbers are NaN-boxed.
    pub f: [u64; 32],
    /// Program counter.
    pub pc: u64,
    /// The address of the load reservation, or all ones.
    pub reserved_address: u64,
    /// What the load-reserved saw there.
    pub reserved_value: u64,
    /// Dynamic rounding mode (fcsr bits 5 to 7). The accrued exceptions are in the host's MXCSR.
    pub frm: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            x: [0; 32],
            f: [0; 32],
            pc: 0,
            reserved_address: u64::MAX,
            reserved_value: 0,
            frm: 0,
        }
    }
}

/// `x[n]`.
pub const fn x(n: u32) -> Reg {
    Reg::new(offset_of!(State, x) + 8 * n as usize, Type::I64)
}

/// `f[n]` as 64 bits of FP.
pub const fn f(n: u32) -> Reg {
    Reg::new(offset_of!(State, f) + 8 * n as usize, Type::F64)
}

/// Program counter.
pub const PC: Reg = Reg::new(offset_of!(State, pc), Type::I64);
/// See `State`.
pub const RESERVED_ADDRESS: Reg = Reg::new(offset_of!(State, reserved_address), Type::I64);
/// See `State`.
pub const RESERVED_VALUE: Reg = Reg::new(offset_of!(State, reserved_value), Type::I64);
/// See `State`.
pub const FRM: Reg = Reg::new(offset_of!(State, frm), Type::I64);

const fn pin_x(n: u32) -> Pin {
    Pin::any(x(n).offset as usize, Type::I64)
}

const fn pin_f(n: u32) -> Pin {
    Pin::any(f(n).offset as usize, Type::F64)
}

/// Profiles of compiled code: a5, a4, a3, a0, s0, sp, a2, a1, s1, ra, a7, s2 carry 88 % of all
/// accesses; the argument registers fa0 to fa7 and the first temporaries lead among FP ones.
pub const LAYOUT: Layout = Layout {
    bytes: size_of::<State>(),
    pc: offset_of!(State, pc) as u16,
    general: &[
        pin_x(15),
        pin_x(14),
        pin_x(13),
        pin_x(10),
        pin_x(8),
        pin_x(2),
        pin_x(12),
        pin_x(11),
        pin_x(9),
        pin_x(1),
        pin_x(16),
        pin_x(17),
        pin_x(18),
    ],
    vectors: &[
        pin_f(15),
        pin_f(14),
        pin_f(13),
        pin_f(10),
        pin_f(12),
        pin_f(11),
        pin_f(0),
        pin_f(1),
        pin_f(2),
        pin_f(3),
        pin_f(8),
        pin_f(9),
    ],
    relaxed: &[],
    fpu: None,
};

/// gdb's order.
pub const REGISTERS: &[Registers] = &[
    Registers { name: "x%", first: x(0), count: 32, stride: 8 },
    Registers { name: "pc", first: PC, count: 1, stride: 8 },
    Registers { name: "f%", first: f(0), count: 32, stride: 8 },
];
