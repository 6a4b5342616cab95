//! Data transfer, volume 1, 5.1.1: moves, exchanges, the stack, widening.

use iced_x86::{Mnemonic as M, OpKind, Register};

use super::Row;
use crate::ir::{AtomicOp, Cmp, Code, Cond, FlagKind, Mem, Type, Value};
use crate::x86::helpers::helper;
use crate::x86::lift::{Address, Lift, exception, general_number};
use crate::x86::state::{self, RAX, RBP, RBX, RCX, RDX, RSP};

pub const ROWS: &[Row] = &[
    (M::Mov, mov),
    (M::Movzx, |l| widen(l, Code::ZExt)),
    (M::Movsx, |l| widen(l, Code::SExt)),
    (M::Movsxd, |l| widen(l, Code::SExt)),
    (M::Cmovo, cmov),
    (M::Cmovno, cmov),
    (M::Cmovb, cmov),
    (M::Cmovae, cmov),
    (M::Cmove, cmov),
    (M::Cmovne, cmov),
    (M::Cmovbe, cmov),
    (M::Cmova, cmov),
    (M::Cmovs, cmov),
    (M::Cmovns, cmov),
    (M::Cmovp, cmov),
    (M::Cmovnp, cmov),
    (M::Cmovl, cmov),
    (M::Cmovge, cmov),
    (M::Cmovle, cmov),
    (M::Cmovg, cmov),
    (M::Xchg, xchg),
    (M::Bswap, bswap),
    (M::Movbe, movbe),
    (M::Xadd, xadd),
    (M::Cmpxchg, cmpxchg),
    (M::Cmpxchg8b, |l| cmpxchg_pair(l, Type::I32)),
    (M::Cmpxchg16b, |l| cmpxchg_pair(l, Type::I64)),
    (M::Push, push),
    (M::Pop, pop),
    (M::Pusha, |l| push_all(l, Type::I16)),
    (M::Pushad, |l| push_all(l, Type::I32)),
    (M::Popa, |l| pop_all(l, Type::I16)),
    (M::Popad, |l| pop_all(l, Type::I32)),
    (M::Cbw, |l| widen_rax(l, Type::I8, Type::I16)),
    (M::Cwde, |l| widen_rax(l, Type::I16, Type::I32)),
    (M::Cdqe, |l| widen_rax(l, Type::I32, Type::I64)),
    (M::Cwd, |l| sign_to_rdx(l, Type::I16)),
    (M::Cdq, |l| sign_to_rdx(l, Type::I32)),
    (M::Cqo, |l| sign_to_rdx(l, Type::I64)),
    (M::Lea, lea),
    (M::Xlatb, xlat),
    (M::Enter, enter),
    (M::Leave, leave),
];

fn mov(l: &mut Lift) {
    let (to, from) = (l.insn.op0_register(), l.insn.op1_register());
    if to.is_segment_register() && l.insn.op0_kind() == OpKind::Register {
        return mov_to_segment(l, to);
    }
    if to.is_cr() || to.is_dr() || from.is_cr() || from.is_dr() {
        return super::system::mov_control(l);
    }
    let ty = l.ty(0);
    let mut value = l.read_as_wide(1, ty);
    // A selector stored to memory is always a word; to a register it is zero-extended.
    if from.is_segment_register() && l.is_memory(0) {
        value = l.ir.trunc(Type::I16, value);
    }
    l.write(0, value);
}

/// MOV to a segment register, in which SS also holds interrupts back.
fn mov_to_segment(l: &mut Lift, to: Register) {
    if to == Register::CS {
        return l.illegal();
    }
    let selector = l.read(1);
    load_segment(l, to, selector);
    end_with_segment(l, to);
}

/// SS holds interrupts and traps back, so that the stack pointer can follow.
fn end_with_segment(l: &mut Lift, to: Register) {
    if to == Register::SS { l.end_in_shadow() } else { l.end_mode() }
}

/// Loads a segment register by helper; may fault.
pub fn load_segment(l: &mut Lift, to: Register, selector: Value) {
    let number = l.ir.imm(to.number() as i64);
    let selector = l.ir.trunc(Type::I16, selector);
    let selector = l.ir.zext(Type::I64, selector);
    l.ir.helper(helper::LOAD_SEGMENT, number, selector, Value::NONE);
}

fn widen(l: &mut Lift, code: Code) {
    let (ty, value) = (l.ty(0), l.read(1));
    let value = if code == Code::SExt { l.ir.sext(ty, value) } else { l.ir.zext(ty, value) };
    l.write(0, value);
}

/// The instruction's condition as a `Bool`.
pub fn condition(l: &mut Lift) -> Value {
    let number = l.insn.condition_code() as usize - 1;
    let flags = l.flags();
    l.ir.condition(Cond::ALL[number], flags)
}

fn cmov(l: &mut Lift) {
    let (new, old) = (l.read(1), l.read(0));
    let condition = condition(l);
    let value = l.ir.select(condition, new, old);
    l.write(0, value);
}

fn xchg(l: &mut Lift) {
    let memory = u32::from(l.is_memory(1));
    if !l.is_memory(memory) {
        let (a, b) = (l.read(0), l.read(1));
        l.write(0, b);
        l.write(1, a);
        return;
    }
    let other = 1 - memory;
    let new = l.read(other);
    let old = atomic(l, AtomicOp::Xchg, new);
    l.write(other, old);
}

/// An atomic operation on the memory operand: what was there.
pub fn atomic(l: &mut Lift, op: AtomicOp, operand: Value) -> Value {
    let address = l.address();
    let address = l.flatten(address);
    let bytes = l.ir.ty(operand).bytes();
    l.ir.atomic(op, address, operand, Mem::new(bytes))
}

/// Of 16 bits it is undefined, and gives zero.
fn bswap(l: &mut Lift) {
    if l.ty(0) == Type::I16 {
        let zero = l.ir.constant(Type::I16, 0);
        return l.write(0, zero);
    }
    l.modify(0, |l, old| l.ir.unary(Code::Bswap, old));
}

fn movbe(l: &mut Lift) {
    let value = l.read(1);
    let value = l.ir.unary(Code::Bswap, value);
    l.write(0, value);
}

fn xadd(l: &mut Lift) {
    let (ty, operand) = (l.ty(0), l.read(1));
    if l.insn.has_lock_prefix() {
        let old = atomic(l, AtomicOp::Add, operand);
        l.write(1, old);
        l.set_flags(FlagKind::Add, ty, old, operand, Value::NONE);
        return;
    }
    let old = l.read(0);
    let sum = l.ir.add(old, operand);
    if l.is_memory(0) {
        l.write(0, sum);
        l.write(1, old);
    } else {
        l.write(1, old);
        l.write(0, sum);
    }
    l.set_flags(FlagKind::Add, ty, old, operand, Value::NONE);
}

/// The comparison decides what RAX becomes; memory is written in any case.
fn cmpxchg(l: &mut Lift) {
    let (ty, new) = (l.ty(0), l.read(1));
    let expected = l.gpr(RAX, ty);
    let old = if l.is_memory(0) {
        let address = l.address();
        let address = l.flatten(address);
        // An atomic one also where no LOCK asks for it: there it does no harm.
        l.ir.cas(address, expected, new, Mem::new(ty.bytes()))
    } else {
        let old = l.read(0);
        let equal = l.ir.compare(Cmp::Eq, old, expected);
        if ty == Type::I32 {
            // Without the exchange the upper half stays.
            let register = state::gpr(general_number(l.insn.op0_register()));
            let (whole, wide) = (l.ir.get(register), l.ir.zext(Type::I64, new));
            let value = l.ir.select(equal, wide, whole);
            l.ir.put(register, value);
        } else {
            let value = l.ir.select(equal, new, old);
            // First, for the destination may be the accumulator.
            l.set_gpr(RAX, old);
            l.write(0, value);
        }
        old
    };
    // Equal: RAX keeps all its bits. So the upper half of a 32-bit comparison survives.
    let whole = l.ir.get(state::gpr(RAX));
    let equal = l.ir.compare(Cmp::Eq, old, expected);
    l.set_flags(FlagKind::Sub, ty, expected, old, Value::NONE);
    if ty == Type::I32 {
        let wide = l.ir.zext(Type::I64, old);
        let value = l.ir.select(equal, whole, wide);
        l.ir.put(state::gpr(RAX), value);
    } else if l.is_memory(0) {
        l.set_gpr(RAX, old);
    }
}

/// CMPXCHG8B and CMPXCHG16B: two words of `half` each.
fn cmpxchg_pair(l: &mut Lift, half: Type) {
    let address = l.address();
    let address = l.flatten(address);
    let [low, high, new_low, new_high] = [RAX, RDX, RBX, RCX].map(|n| l.gpr(n, half));
    let (old_low, old_high, equal) = if half == Type::I32 {
        let expected = join(l, low, high);
        let new = join(l, new_low, new_high);
        let old = l.ir.cas(address, expected, new, Mem::new(8));
        let equal = l.ir.compare(Cmp::Eq, old, expected);
        let shifted = l.ir.shr_imm(old, 32);
        (l.ir.trunc(half, old), l.ir.trunc(half, shifted), equal)
    } else {
        let misplaced = l.ir.and_imm(address, 15);
        let zero = l.ir.imm(0);
        let misplaced = l.ir.compare(Cmp::Ne, misplaced, zero);
        l.ir.raise_if(misplaced, exception::GP, zero);
        let expected = l.ir.pair(low, high);
        let new = l.ir.pair(new_low, new_high);
        let old = l.ir.cas(address, expected, new, Mem::new(16));
        let (old_low, old_high) = (l.ir.lo(old), l.ir.hi(old));
        let a = l.ir.alu(Code::Xor, old_low, low);
        let b = l.ir.alu(Code::Xor, old_high, high);
        let either = l.ir.alu(Code::Or, a, b);
        let equal = l.ir.compare(Cmp::Eq, either, zero);
        (old_low, old_high, equal)
    };
    let differs = unequal(l, equal);
    let flags = l.flags();
    let [rax, rdx] = [RAX, RDX].map(|n| l.ir.get(state::gpr(n)));
    let [wide_low, wide_high] = [old_low, old_high].map(|value| l.ir.zext(Type::I64, value));
    let rax = l.ir.select(equal, rax, wide_low);
    let rdx = l.ir.select(equal, rdx, wide_high);
    l.ir.put(state::gpr(RAX), rax);
    l.ir.put(state::gpr(RDX), rdx);
    l.set_flags(FlagKind::Zero, Type::I64, differs, Value::NONE, flags);
}

fn join(l: &mut Lift, low: Value, high: Value) -> Value {
    let (low, high) = (l.ir.zext(Type::I64, low), l.ir.zext(Type::I64, high));
    let high = l.ir.shl_imm(high, 32);
    l.ir.alu(Code::Or, low, high)
}

/// 0 when equal, else 1.
fn unequal(l: &mut Lift, equal: Value) -> Value {
    let equal = l.ir.zext(Type::I64, equal);
    let one = l.ir.imm(1);
    l.ir.alu(Code::Xor, equal, one)
}

/// How many bytes PUSH and POP move.
fn stack_operand(l: &Lift) -> Type {
    match l.insn.stack_pointer_increment().unsigned_abs() {
        2 => Type::I16,
        4 => Type::I32,
        _ => Type::I64,
    }
}

fn push(l: &mut Lift) {
    let ty = stack_operand(l);
    let value = l.read_as_wide(0, ty);
    l.push(value);
}

fn pop(l: &mut Lift) {
    let ty = stack_operand(l);
    let bytes = i64::from(ty.bytes());
    let value = l.peek(ty, 0);
    let register = l.insn.op0_register();
    if l.is_memory(0) {
        l.rsp_bias = bytes;
        l.write(0, value);
        l.move_stack(bytes);
    } else if register.is_segment_register() {
        load_segment(l, register, value);
        l.move_stack(bytes);
        end_with_segment(l, register);
    } else {
        l.move_stack(bytes);
        l.write_register(register, value);
    }
}

fn push_all(l: &mut Lift, ty: Type) {
    let bytes = i64::from(ty.bytes());
    for n in 0..8 {
        let value = l.gpr(n, ty);
        let at = l.stack_address(-bytes * (n as i64 + 1));
        l.store(at, value);
    }
    l.move_stack(-8 * bytes);
}

fn pop_all(l: &mut Lift, ty: Type) {
    let bytes = i64::from(ty.bytes());
    let values = [0, 1, 2, 3, 4, 5, 6, 7].map(|n| l.peek(ty, bytes * (7 - n)));
    for (n, value) in values.into_iter().enumerate() {
        if n != RSP {
            l.set_gpr(n, value);
        }
    }
    l.move_stack(8 * bytes);
}

fn widen_rax(l: &mut Lift, from: Type, to: Type) {
    let value = l.gpr(RAX, from);
    let value = l.ir.sext(to, value);
    l.set_gpr(RAX, value);
}

fn sign_to_rdx(l: &mut Lift, ty: Type) {
    let value = l.gpr(RAX, ty);
    let sign = l.ir.sar_imm(value, ty.bits() - 1);
    l.set_gpr(RDX, sign);
}

fn lea(l: &mut Lift) {
    let (ty, offset) = (l.ty(0), l.effective());
    let offset = l.flatten(offset);
    let offset = l.ir.zext(Type::I64, offset);
    let value = l.ir.trunc(ty, offset);
    l.write(0, value);
}

fn xlat(l: &mut Lift) {
    let ty = Type::integer(l.insn.memory_base().size() as u32);
    let (base, index) = (l.gpr(RBX, ty), l.gpr(RAX, Type::I8));
    let index = l.ir.zext(ty, index);
    let base = l.ir.add(base, index);
    let segment = l.insn.memory_segment().number();
    let at = l.linear(segment, Address { base, displacement: 0 });
    let value = l.load(Type::I8, at);
    l.set_gpr(RAX, value);
}

/// ENTER without nesting, which is all that compilers ever made.
fn enter(l: &mut Lift) {
    let (bytes, level) = (l.insn.immediate(0) as i64 & 0xffff, l.insn.immediate8_2nd() & 31);
    let ty = Type::integer(l.insn.op_code_stack_bytes());
    let word = i64::from(ty.bytes());
    if level != 0 {
        let (word, level) = (l.ir.imm(word), l.ir.imm(i64::from(level)));
        let bytes = l.ir.imm(bytes);
        l.ir.helper(helper::ENTER, word, level, bytes);
        return;
    }
    let frame = l.gpr(RBP, ty);
    let at = l.stack_address(-word);
    l.store(at, frame);
    let pointer = l.stack_pointer(-word);
    let pointer = l.ir.zext(Type::I64, pointer);
    let pointer = l.ir.trunc(ty, pointer);
    l.move_stack(-word - bytes);
    l.set_gpr(RBP, pointer);
}

fn leave(l: &mut Lift) {
    let ty = Type::integer(l.insn.op_code_stack_bytes());
    let stack = l.stack_type();
    let frame = l.gpr(RBP, stack);
    let at = l.linear(state::SS, Address { base: frame, displacement: 0 });
    let value = l.load(ty, at);
    let pointer = l.ir.add_imm(frame, i64::from(ty.bytes()));
    l.set_gpr(RSP, pointer);
    l.set_gpr(RBP, value);
}

/// The word size of ENTER and LEAVE, which the decoder knows only by its code.
trait StackBytes {
    fn op_code_stack_bytes(&self) -> u32;
}

impl StackBytes for iced_x86::Instruction {
    fn op_code_stack_bytes(&self) -> u32 {
        match self.code() {
            iced_x86::Code::Enterw_imm16_imm8 | iced_x86::Code::Leavew => 2,
            iced_x86::Code::Enterd_imm16_imm8 | iced_x86::Code::Leaved => 4,
            _ => 8,
        }
    }
}

impl Lift<'_> {
    /// Reads operand `i` as type `ty`: an immediate sign-extended, a selector zero-extended.
    fn read_as_wide(&mut self, i: u32, ty: Type) -> Value {
        let register = self.insn.op_register(i);
        if self.insn.op_kind(i) == OpKind::Register && register.is_segment_register() {
            let selector = self.read(i);
            return self.ir.zext(ty, selector);
        }
        self.read_as(i, ty)
    }
}
