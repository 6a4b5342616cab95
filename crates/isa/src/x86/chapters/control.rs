//! Control transfer, volume 1, 5.1.7.

use iced_x86::{Mnemonic as M, OpKind};

use super::Row;
use super::moves::condition;
use crate::front_end::Event;
use crate::ir::{Cmp, Cond, Ir, Type, Value};
use crate::x86::helpers::helper;
use crate::x86::lift::{Lift, exception};
use crate::x86::state::RCX;

pub const ROWS: &[Row] = &[
    (M::Jmp, jmp),
    (M::Jo, jcc),
    (M::Jno, jcc),
    (M::Jb, jcc),
    (M::Jae, jcc),
    (M::Je, jcc),
    (M::Jne, jcc),
    (M::Jbe, jcc),
    (M::Ja, jcc),
    (M::Js, jcc),
    (M::Jns, jcc),
    (M::Jp, jcc),
    (M::Jnp, jcc),
    (M::Jl, jcc),
    (M::Jge, jcc),
    (M::Jle, jcc),
    (M::Jg, jcc),
    (M::Jcxz, |l| jump_if_zero(l, Type::I16)),
    (M::Jecxz, |l| jump_if_zero(l, Type::I32)),
    (M::Jrcxz, |l| jump_if_zero(l, Type::I64)),
    (M::Loop, |l| count_down(l, None)),
    (M::Loope, |l| count_down(l, Some(Cond::Z))),
    (M::Loopne, |l| count_down(l, Some(Cond::Nz))),
    (M::Call, call),
    (M::Ret, ret),
    (M::Retf, far_return),
    (M::Int, |l| interrupt(l, l.insn.immediate8())),
    (M::Int3, breakpoint),
    (M::Int1, |l| interrupt(l, 1)),
    (M::Into, into),
    (M::Iret, |l| interrupt_return(l, 2)),
    (M::Iretd, |l| interrupt_return(l, 4)),
    (M::Iretq, |l| interrupt_return(l, 8)),
    (M::Bound, bound),
    (M::Ud0, |l| l.illegal()),
    (M::Ud1, |l| l.illegal()),
    (M::Ud2, |l| l.illegal()),
];

/// The linear address of a direct branch's target.
fn target(l: &Lift) -> u64 {
    l.code_address(l.insn.near_branch_target())
}

/// An indirect target: an instruction pointer of the operand's width, as a linear address.
fn indirect_target(l: &mut Lift, value: Value) -> Value {
    if l.mode.is_long() {
        return l.ir.zext(Type::I64, value);
    }
    let value = l.ir.zext(Type::I32, value);
    let sum = l.ir.add_imm(value, i64::from(l.mode.cs_base));
    l.ir.zext(Type::I64, sum)
}

fn is_far(l: &Lift) -> bool {
    matches!(l.insn.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32)
        || l.insn.is_call_far_indirect()
        || l.insn.is_jmp_far_indirect()
}

fn jmp(l: &mut Lift) {
    if is_far(l) {
        return far(l, helper::FAR_JUMP);
    }
    if matches!(l.insn.op0_kind(), OpKind::Register | OpKind::Memory) {
        let value = l.read(0);
        let target = indirect_target(l, value);
        return l.indirect(target, Ir::exit_indirect);
    }
    let target = target(l);
    l.jump(target);
}

fn jcc(l: &mut Lift) {
    let condition = condition(l);
    branch(l, condition);
}

fn branch(l: &mut Lift, condition: Value) {
    let target = target(l);
    if l.mode.single_step || l.mode.shadow {
        let (to, next) = (l.ir.imm(target as i64), l.ir.imm(l.next as i64));
        let pc = l.ir.select(condition, to, next);
        return l.indirect(pc, Ir::exit_indirect);
    }
    l.ir.exit_if(condition, target);
}

fn jump_if_zero(l: &mut Lift, ty: Type) {
    let counter = l.gpr(RCX, ty);
    let zero = l.ir.constant(ty, 0);
    let condition = l.ir.compare(Cmp::Eq, counter, zero);
    branch(l, condition);
}

/// The address size decides which of CX, ECX and RCX counts.
fn count_down(l: &mut Lift, also: Option<Cond>) {
    let ty = counter_type(l);
    let counter = l.gpr(RCX, ty);
    let counter = l.ir.add_imm(counter, -1);
    l.set_gpr(RCX, counter);
    let zero = l.ir.constant(ty, 0);
    let mut condition = l.ir.compare(Cmp::Ne, counter, zero);
    if let Some(cond) = also {
        let flags = l.flags();
        let flag = l.ir.condition(cond, flags);
        let never = l.ir.constant(Type::Bool, 0);
        condition = l.ir.select(condition, flag, never);
    }
    branch(l, condition);
}

fn counter_type(l: &Lift) -> Type {
    use iced_x86::Code as C;
    match l.insn.code() {
        C::Loop_rel8_16_CX
        | C::Loop_rel8_32_CX
        | C::Loope_rel8_16_CX
        | C::Loope_rel8_32_CX
        | C::Loopne_rel8_16_CX
        | C::Loopne_rel8_32_CX => Type::I16,
        C::Loop_rel8_16_ECX
        | C::Loop_rel8_32_ECX
        | C::Loop_rel8_64_ECX
        | C::Loope_rel8_16_ECX
        | C::Loope_rel8_32_ECX
        | C::Loope_rel8_64_ECX
        | C::Loopne_rel8_16_ECX
        | C::Loopne_rel8_32_ECX
        | C::Loopne_rel8_64_ECX => Type::I32,
        _ => Type::I64,
    }
}

/// The instruction pointer behind this instruction, in the width of the stack operand.
fn return_ip(l: &mut Lift, ty: Type) -> Value {
    let ip = l.insn.next_ip();
    l.ir.constant(ty, ip)
}

fn stack_operand(l: &Lift) -> Type {
    Type::integer(l.insn.stack_pointer_increment().unsigned_abs().clamp(2, 8))
}

fn call(l: &mut Lift) {
    if is_far(l) {
        return far(l, helper::FAR_CALL);
    }
    let ty = stack_operand(l);
    let back = l.next;
    let ip = return_ip(l, ty);
    if matches!(l.insn.op0_kind(), OpKind::Register | OpKind::Memory) {
        let value = l.read(0);
        let target = indirect_target(l, value);
        l.push(ip);
        return l.indirect(target, |ir, target| ir.call_indirect(target, back));
    }
    l.push(ip);
    let target = target(l);
    let to = l.ir.imm(target as i64);
    l.indirect(to, |ir, _| ir.call(target, back));
}

fn ret(l: &mut Lift) {
    let ty = Type::integer(match l.insn.code() {
        iced_x86::Code::Retnw | iced_x86::Code::Retnw_imm16 => 2,
        iced_x86::Code::Retnd | iced_x86::Code::Retnd_imm16 => 4,
        _ => 8,
    });
    let extra = if l.insn.op_count() > 0 { i64::from(l.insn.immediate16()) } else { 0 };
    let value = l.peek(ty, 0);
    l.move_stack(i64::from(ty.bytes()) + extra);
    let target = indirect_target(l, value);
    l.indirect(target, Ir::ret);
}

/// JMP and CALL to another segment: by helper, which writes pc and the mode.
fn far(l: &mut Lift, number: usize) {
    let (selector, offset, bytes) = match l.insn.op0_kind() {
        OpKind::FarBranch16 => {
            let offset = u64::from(l.insn.far_branch16());
            (l.ir.imm(i64::from(l.insn.far_branch_selector())), l.ir.imm(offset as i64), 2)
        }
        OpKind::FarBranch32 => {
            let offset = u64::from(l.insn.far_branch32());
            (l.ir.imm(i64::from(l.insn.far_branch_selector())), l.ir.imm(offset as i64), 4)
        }
        _ => {
            let bytes = (l.insn.memory_size().size() - 2) as i64;
            let mut at = l.address();
            let offset = l.load(Type::integer(bytes as u32), at);
            at.displacement = at.displacement.wrapping_add(bytes as i32);
            let selector = l.load(Type::I16, at);
            (l.ir.zext(Type::I64, selector), l.ir.zext(Type::I64, offset), bytes)
        }
    };
    let what = l.ir.imm(bytes | (l.insn.len() as i64) << 8);
    l.ir.helper(number, selector, offset, what);
    l.ir.exit_mode();
}

fn far_return(l: &mut Lift) {
    let bytes = match l.insn.code() {
        iced_x86::Code::Retfw | iced_x86::Code::Retfw_imm16 => 2,
        iced_x86::Code::Retfd | iced_x86::Code::Retfd_imm16 => 4,
        _ => 8,
    };
    let extra = if l.insn.op_count() > 0 { i64::from(l.insn.immediate16()) } else { 0 };
    let (bytes, extra) = (l.ir.imm(bytes), l.ir.imm(extra));
    l.ir.helper(helper::FAR_RETURN, bytes, extra, Value::NONE);
    l.ir.exit_mode();
}

fn interrupt_return(l: &mut Lift, bytes: i64) {
    let bytes = l.ir.imm(bytes);
    l.ir.helper(helper::INTERRUPT_RETURN, bytes, Value::NONE, Value::NONE);
    l.ir.exit_mode();
}

/// INT n: in user mode only a system call of 32-bit programs has a meaning.
fn interrupt(l: &mut Lift, vector: u8) {
    if !l.system {
        return match vector {
            0x80 if !l.mode.is_long() => l.raise(Event::SYSTEM_CALL, l.next, 0),
            3 => l.raise(Event::BREAKPOINT, l.next, 0),
            4 => l.raise(exception::OF, l.next, 0),
            _ => l.fault(exception::GP, u64::from(vector) << 3 | 2),
        };
    }
    let (vector, length) = (l.ir.imm(i64::from(vector)), l.ir.imm(l.insn.len() as i64));
    l.ir.helper(helper::SOFTWARE_INTERRUPT, vector, length, Value::NONE);
    l.ir.exit_mode();
}

fn breakpoint(l: &mut Lift) {
    if l.system {
        interrupt(l, 3);
    } else {
        l.raise(Event::BREAKPOINT, l.next, 0);
    }
}

fn into(l: &mut Lift) {
    let flags = l.flags();
    let clear = l.ir.condition(Cond::No, flags);
    l.ir.exit_if(clear, l.next);
    if !l.ir.ended() {
        interrupt(l, 4);
    }
}

fn bound(l: &mut Lift) {
    let (ty, index) = (l.ty(0), l.read(0));
    let mut at = l.address();
    let lower = l.load(ty, at);
    at.displacement = at.displacement.wrapping_add(ty.bytes() as i32);
    let upper = l.load(ty, at);
    let nothing = l.ir.imm(0);
    for (cmp, bound) in [(Cmp::LtS, lower), (Cmp::GtS, upper)] {
        let outside = l.ir.compare(cmp, index, bound);
        l.ir.raise_if(outside, exception::BR, nothing);
    }
}
