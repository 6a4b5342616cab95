//! Flags that nobody reads: a look at the code behind a block's exits.
//!
//! Compiled code sets flags with nearly every instruction and reads few of them, but a block must
//! write what its successor might read. If the successor overwrites all of them first, the exit
//! says so and the write disappears. Only code on the block's own page is looked at, because a
//! change there invalidates the block (`Ir::peeked`).

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register, RflagsBits};

/// So many instructions decide; nearly always one to three do.
pub const INSNS_MAX: usize = 8;

/// The arithmetic flags.
const STATUS: u32 = RflagsBits::OF
    | RflagsBits::SF
    | RflagsBits::ZF
    | RflagsBits::AF
    | RflagsBits::CF
    | RflagsBits::PF;

/// What an instruction says about the flags that were set before it.
pub enum Verdict {
    /// They are read, or it cannot be told.
    Alive,
    /// All are overwritten.
    Dead,
    /// Look at the instruction at this address.
    Further(u64),
}

/// Flags not yet overwritten, while instructions go by.
pub struct Flags(u32);

impl Flags {
    /// All of them.
    pub fn new() -> Self {
        Self(STATUS)
    }

    /// Looks at one instruction.
    pub fn pass(&mut self, insn: &Instruction) -> Verdict {
        if insn.rflags_read() & self.0 != 0 {
            return Verdict::Alive;
        }
        if !may_leave_flags(insn) {
            self.0 &= !insn.rflags_modified();
        }
        if self.0 == 0 {
            return Verdict::Dead;
        }
        match insn.flow_control() {
            FlowControl::Next => Verdict::Further(insn.next_ip()),
            FlowControl::UnconditionalBranch | FlowControl::Call
                if insn.op0_kind() == OpKind::NearBranch64 =>
            {
                Verdict::Further(insn.near_branch_target())
            }
            _ => Verdict::Alive,
        }
    }
}

/// Whether it changes flags only under a condition: a count that is not zero.
fn may_leave_flags(insn: &Instruction) -> bool {
    let repeated = insn.has_rep_prefix() || insn.has_repne_prefix();
    let by_count = (0..insn.op_count())
        .any(|op| insn.op_kind(op) == OpKind::Register && insn.op_register(op) == Register::CL);
    let shifts = matches!(
        insn.mnemonic(),
        Mnemonic::Shl
            | Mnemonic::Sal
            | Mnemonic::Shr
            | Mnemonic::Sar
            | Mnemonic::Rol
            | Mnemonic::Ror
            | Mnemonic::Rcl
            | Mnemonic::Rcr
            | Mnemonic::Shld
            | Mnemonic::Shrd
    );
    let immediate_zero = shifts
        && (0..insn.op_count())
            .any(|op| insn.op_kind(op) == OpKind::Immediate8 && insn.immediate(op) & 31 == 0);
    repeated || by_count && shifts || immediate_zero
}
