//! The intermediate representation: what an instruction means, said once.
//!
//! A front end lifts a *block* of guest code into an [`Ir`]; `jit` turns it into host code or
//! interprets it. This page is what a front end's author needs; `riscv/rv64i.rs` is the example.
//!
//! # Values
//! An [`Ir`] is a list of 16-byte operations ([`Op`]); a [`Value`] is the index of the operation
//! that made it (static single assignment, one block, no control flow inside). The list is reused
//! from block to block, so lifting allocates nothing. Types are [`Type`]: `Bool`, `I8` to `I64`,
//! `I128`, `F32`, `F64`, `V128`, `V256`, `Flags`. Both operands of an arithmetic operation have
//! the result's type; shift counts may have any integer type. Constants are free: operations fold
//! them into immediates, and the builder computes what only depends on constants, so write
//! `add(pc, imm)` without thinking.
//!
//! # Guest state
//! A `#[repr(C)]` structure of plain integers. A [`Reg`] is (offset, type); [`Ir::get`] and
//! [`Ir::put`] read and write it. The builder forwards: a `get` after a `get` or `put` of the same
//! register costs nothing. Registers may overlap: AL is an `I8` at RAX's offset, AH one byte
//! further; putting a narrow register leaves the rest of the wide one alone (32-bit x86 writes put
//! an `I64` made by `zext`, which is free). [`Layout`](crate::Layout) names the registers to pin
//! in host registers across all blocks; reading one is then no code at all.
//!
//! # Flags
//! [`Ir::flags`] makes a `Flags` value that names its producer ([`FlagKind`]) and its operands;
//! write it directly after the arithmetic operation with the same operands, and the back end
//! takes the host's flags of that instruction. [`Ir::condition`] asks a [`Cond`] of it. It is
//! stored like a register, with `put` into a `Flags` cell of state: a 64-bit *image* with the bits
//! of x86 EFLAGS (the arithmetic ones; the rest is garbage to be masked) for every guest. Kinds
//! whose effect depends on an old value (INC, shifts by CL, BT) take it as operand `c`.
//! Guests whose carry means "no borrow" after subtraction use the `*Carry` kinds and find that
//! very carry in the image. Kinds nobody reads cost nothing: a cell listed in `Layout::relaxed`
//! is only written if the block does not overwrite it before an exit or a helper.
//! [`Ir::relaxed_dead_at`] tells that an exit's target overwrites them all unread;
//! [`Ir::discard`] tells that the cell's contents are dead at the end of the block (peek at the
//! target's first instructions to find out).
//!
//! # Memory
//! [`Ir::load`] and [`Ir::store`] take a base value, a displacement and a [`Mem`]: size, sign,
//! byte order, alignment, MMU index. Make scaled addresses with [`Ir::lea`], which folds. Whether
//! a guest address is a host address (user mode) or goes through the soft TLB (system mode) is a
//! property of the engine; the IR is the same. For x86 with 32-bit addresses compute them in `I32`
//! and `zext`. Atomics are sequentially consistent; plain accesses have the host's order, which is
//! TSO: acquire, release and every fence but store-to-load need no code ([`Ir::fence`] is that one).
//!
//! # Faults and precision
//! [`Ir::insn`] begins each guest instruction. Operations that may fault (`Info::faults`) find guest
//! state as written so far: *put results after the last operation that may fault*. At a fault the
//! engine sets pc to the current instruction's and hands an [`Event`](crate::Event) to
//! [`FrontEnd::deliver`](crate::FrontEnd::deliver). pc in state is otherwise not kept up to date:
//! it is a constant during translation.
//!
//! # FP and SIMD
//! Scalar FP operations carry an [`FpRule`] (rounding, NaN rule). Rounding mode and sticky
//! exceptions live in the host's MXCSR while translated code runs: `fp_control_put`/`_get` move
//! them. `F32`/`F64` values have undefined upper lanes: `zero_upper` or `set_scalar` say what a
//! vector register's other lanes become. SIMD is a table, [`Lane`]: each row has the meaning of
//! one host instruction; compose from rows, or add a row. x86's own scalar SSE forms are the `*Low*`
//! rows.
//!
//! [`FrontEnd::host`](crate::FrontEnd::host) tells what the host has one instruction for: without
//! [`Host::wide`](crate::Host) no value may be a `V256` and no row used that only VEX has, so that
//! wide operations are lifted as two narrow ones. A `V256` register may be read and written in part:
//! putting its low half as a `V128` leaves the high half alone and costs a blend; putting
//! [`Ir::widen`] of a result clears it and costs nothing. `x86/vectors.rs` is the example.
//!
//! # Variants of a mode
//! What is nearly always so but not quite (x86: all upper halves are zero) can be a bit of the mode,
//! [`FrontEnd::VARIANT`](crate::FrontEnd::VARIANT), that blocks change without leaving translated
//! code: [`Ir::variant`] says in which variant execution goes on at exits from there on, and a cell
//! of state says the same to `FrontEnd::key`.
//!
//! # Helpers
//! [`Ir::helper`] calls a Rust function of [`FrontEnd::HELPERS`](crate::FrontEnd::HELPERS): exact
//! state, up to three `I64` operands, an `I64` result, may fault or ask for a new look-up. Costs
//! some 20 ns; begin with helpers for what is rare, measure, then lift. After a helper all state is
//! read anew. [`Ir::repeat`] is a helper that copies or fills memory, which the back end does by
//! itself where the host has an instruction for it and the state allows.
//!
//! # Ending
//! A block ends with exactly one of [`Ir::exit`], `exit_indirect`, `call`, `call_indirect`, `ret`,
//! `exit_mode`, `raise`. [`Ir::exit_if`] leaves early and may stand anywhere. Follow direct jumps
//! and fall through after conditional ones while [`Ir::may_follow`] allows: a block is a
//! superblock of up to [`Ir::insns_max`] instructions on one page. `call` and `ret` use the host's
//! return predictor; they are hints with checked meaning, so a return to elsewhere is correct.
//! An exit keeps the mode of the block; whatever may change it ends with `exit_mode` (or a helper
//! that stops with `Lookup`). An instruction that cannot be decoded ends with `raise`; when bytes
//! cannot be fetched, `fetch_fault`.
//!
//! # Why like this
//! - No heap, no types to infer, no control flow inside a block: translation is to take less than
//!   1 us for five instructions, and one backward and one forward pass must do.
//! - Conditional execution inside an instruction is `select`, a total operation (division), an
//!   operation of its own (`sc`, `raise_if`), a side exit, or a helper. Labels inside blocks would
//!   cost every pass a merge of register states.
//! - Flags are a value with a producer and an x86 image as the stored form: the host computes it in
//!   one `pushfq`, and every guest's conditions are functions of these bits.

mod build;
pub mod fpu;
mod lane;
mod op;
mod print;
mod types;

pub use build::{Ir, compute};
pub use lane::{Encoding, Form, Lane, LaneRow};
pub use op::{AtomicOp, Code, Info, Op, Operands, Repeat};
pub use types::{
    ADJUST, CARRY, Cmp, Cond, FlagKind, FpRule, Mem, MinMaxRule, NanRule, OVERFLOW, PARITY,
    PackedRule, Reg, Round, SIGN, STATUS, Saturate, Type, Value, ZERO,
};
