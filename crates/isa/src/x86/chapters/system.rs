//! System instructions, volume 1, 5.20, and ports.

use iced_x86::{Mnemonic as M, OpKind};

use super::Row;
use crate::front_end::Event;
use crate::ir::{Cmp, Code, FlagKind, Type, Value};
use crate::x86::helpers::helper;
use crate::x86::lift::{Lift, exception, general_number};
use crate::x86::mode::{control, eflags};
use crate::x86::state::{self, RAX, RCX, RDX};

pub const ROWS: &[Row] = &[
    (M::In, port_in),
    (M::Out, port_out),
    (M::Cli, |l| set_interrupts(l, 0)),
    (M::Sti, |l| set_interrupts(l, 1)),
    (M::Hlt, halt),
    (M::Syscall, system_call),
    (M::Sysret, |l| system_return(l, helper::SYSTEM_RETURN, 4)),
    (M::Sysretq, |l| system_return(l, helper::SYSTEM_RETURN, 8)),
    (M::Sysenter, system_enter),
    (M::Sysexit, |l| system_return(l, helper::SYSTEM_EXIT, 4)),
    (M::Sysexitq, |l| system_return(l, helper::SYSTEM_EXIT, 8)),
    (M::Swapgs, swapgs),
    (M::Rdmsr, |l| privileged(l, helper::READ_MSR)),
    (M::Wrmsr, |l| privileged_end(l, helper::WRITE_MSR)),
    (M::Xsetbv, |l| privileged_end(l, helper::WRITE_XCR)),
    (M::Clts, clts),
    (M::Lmsw, lmsw),
    (M::Smsw, smsw),
    (M::Invd, |l| if l.allowed() {}),
    (M::Wbinvd, |l| if l.allowed() {}),
    (M::Invlpg, invlpg),
    (M::Invpcid, invpcid),
    (M::Lgdt, |l| load_table(l, 0)),
    (M::Lidt, |l| load_table(l, 1)),
    (M::Sgdt, |l| store_table(l, state::GDTR)),
    (M::Sidt, |l| store_table(l, state::IDTR)),
    (M::Lldt, |l| load_system_segment(l, 0)),
    (M::Ltr, |l| load_system_segment(l, 1)),
    (M::Sldt, |l| store_selector(l, state::LDTR_SELECTOR)),
    (M::Str, |l| store_selector(l, state::TR_SELECTOR)),
    (M::Lar, |l| examine(l, 0)),
    (M::Lsl, |l| examine(l, 1)),
    (M::Verr, |l| examine(l, 2)),
    (M::Verw, |l| examine(l, 3)),
    (M::Arpl, adjust_privilege),
    (M::Stac, |l| allow_user_pages(l, true)),
    (M::Clac, |l| allow_user_pages(l, false)),
    (M::Lds, |l| load_far_pointer(l, state::DS)),
    (M::Les, |l| load_far_pointer(l, state::ES)),
    (M::Lfs, |l| load_far_pointer(l, state::FS)),
    (M::Lgs, |l| load_far_pointer(l, state::GS)),
    (M::Lss, |l| load_far_pointer(l, state::SS)),
];

impl Lift<'_> {
    /// Privilege level 0; otherwise the fault is lifted.
    fn allowed(&mut self) -> bool {
        if self.mode.cpl != 0 {
            self.fault(exception::GP, 0);
        }
        self.mode.cpl == 0
    }
}

fn call(l: &mut Lift, number: usize, args: [Value; 3]) -> Value {
    let [a, b, c] = args;
    l.ir.helper(number, a, b, c)
}

fn privileged(l: &mut Lift, number: usize) {
    if l.allowed() {
        call(l, number, [Value::NONE; 3]);
    }
}

/// What may have changed the mode.
fn privileged_end(l: &mut Lift, number: usize) {
    if l.allowed() {
        call(l, number, [Value::NONE; 3]);
        l.end_mode();
    }
}

/// The port of operand `i`: DX or an immediate.
fn port(l: &mut Lift, i: u32) -> Value {
    if l.insn.op_kind(i) == OpKind::Register {
        let port = l.gpr(RDX, Type::I16);
        return l.ir.zext(Type::I64, port);
    }
    l.ir.imm(i64::from(l.insn.immediate8()))
}

/// User programs without a machine have no ports.
fn port_in(l: &mut Lift) {
    if !l.system {
        return l.fault(exception::GP, 0);
    }
    let (ty, port) = (l.ty(0), port(l, 1));
    let bytes = l.ir.imm(i64::from(ty.bytes()));
    let value = call(l, helper::PORT_IN, [port, bytes, Value::NONE]);
    let value = l.ir.trunc(ty, value);
    l.set_gpr(RAX, value);
    if l.mode.breakpoints {
        l.end_mode(); // one may be on the port
    }
}

fn port_out(l: &mut Lift) {
    if !l.system {
        return l.fault(exception::GP, 0);
    }
    let (ty, port) = (l.ty(1), port(l, 0));
    let bytes = l.ir.imm(i64::from(ty.bytes()));
    let value = l.gpr(RAX, ty);
    let value = l.ir.zext(Type::I64, value);
    call(l, helper::PORT_OUT, [port, bytes, value]);
    // The port may be the board's reset or a memory window's switch: look at the world anew.
    l.end_mode();
}

fn set_interrupts(l: &mut Lift, on: i64) {
    if !l.system {
        return l.fault(exception::GP, 0);
    }
    let opens = on != 0;
    let on = l.ir.imm(on);
    call(l, helper::SET_INTERRUPTS, [on, Value::NONE, Value::NONE]);
    if opens && !l.mode.single_step { l.end_in_shadow() } else { l.end_mode() }
}

fn halt(l: &mut Lift) {
    if l.allowed() {
        // STI holds interrupts back for one instruction, and this was it.
        let zero = l.ir.imm(0);
        l.ir.put(state::SHADOW, zero);
        if l.mode.single_step {
            return l.end_mode(); // the trap is what it would wait for
        }
        l.raise(Event::HALT, l.next, 0);
    }
}

fn system_call(l: &mut Lift) {
    let length = l.insn.len() as i64;
    if l.system {
        let length = l.ir.imm(length);
        call(l, helper::SYSTEM_CALL, [length, Value::NONE, Value::NONE]);
        l.ir.exit_mode();
        return;
    }
    if !l.mode.is_long() {
        return l.illegal();
    }
    let next = l.ir.imm(l.next as i64);
    l.ir.put(state::gpr(RCX), next);
    let flags = l.flags();
    let image = l.ir.flags_image(flags);
    let image = l.ir.and_imm(image, crate::ir::STATUS);
    let rest = l.ir.get(state::EFLAGS);
    let all = l.ir.alu(Code::Or, image, rest);
    l.ir.put(state::gpr(11), all);
    l.raise(Event::SYSTEM_CALL, l.next, 0);
}

fn system_return(l: &mut Lift, number: usize, word: i64) {
    if l.allowed() {
        let word = l.ir.imm(word);
        call(l, number, [word, Value::NONE, Value::NONE]);
        l.ir.exit_mode();
    }
}

fn system_enter(l: &mut Lift) {
    if !l.system {
        return l.illegal();
    }
    call(l, helper::SYSTEM_ENTER, [Value::NONE; 3]);
    l.ir.exit_mode();
}

fn swapgs(l: &mut Lift) {
    if !l.mode.is_long() {
        return l.illegal();
    }
    if !l.allowed() {
        return;
    }
    let base = l.ir.get(state::segment_base(state::GS));
    let kernel = l.ir.get(state::KERNEL_GS_BASE);
    l.ir.put(state::segment_base(state::GS), kernel);
    l.ir.put(state::KERNEL_GS_BASE, base);
}

/// MOV to and from control and debug registers; only registers are operands.
pub fn mov_control(l: &mut Lift) {
    if !l.allowed() {
        return;
    }
    let (to, from) = (l.insn.op0_register(), l.insn.op1_register());
    let number = |register: iced_x86::Register| {
        register.number() as i64 + if register.is_dr() { 16 } else { 0 }
    };
    if to.is_gpr() {
        let number = l.ir.imm(number(from));
        let value = call(l, helper::READ_CONTROL, [number, Value::NONE, Value::NONE]);
        let value = l.ir.trunc(l.ty(0), value);
        return l.write(0, value);
    }
    let value = l.read(1);
    let value = l.ir.zext(Type::I64, value);
    let number = l.ir.imm(number(to));
    call(l, helper::WRITE_CONTROL, [number, value, Value::NONE]);
    l.end_mode();
}

fn clts(l: &mut Lift) {
    if l.allowed() {
        let cr0 = l.ir.get(state::cr(0));
        let cr0 = l.ir.and_imm(cr0, !control::CR0_TS);
        l.ir.put(state::cr(0), cr0);
        l.end_mode();
    }
}

/// The low four bits of CR0; PE can be set, not cleared.
fn lmsw(l: &mut Lift) {
    if !l.allowed() {
        return;
    }
    let value = l.read(0);
    let value = l.ir.zext(Type::I64, value);
    let value = l.ir.and_imm(value, 15);
    let old = l.ir.get(state::cr(0));
    let kept = l.ir.and_imm(old, !14);
    let new = l.ir.alu(Code::Or, kept, value);
    let number = l.ir.imm(0);
    call(l, helper::WRITE_CONTROL, [number, new, Value::NONE]);
    l.end_mode();
}

fn smsw(l: &mut Lift) {
    let cr0 = l.ir.get(state::cr(0));
    let ty = if l.is_memory(0) { Type::I16 } else { l.ty(0) };
    let value = l.ir.trunc(ty, cr0);
    l.write(0, value);
}

fn invlpg(l: &mut Lift) {
    if l.allowed() {
        let at = l.address();
        let at = l.flatten(at);
        call(l, helper::INVALIDATE, [at, Value::NONE, Value::NONE]);
        l.end_mode();
    }
}

fn invpcid(l: &mut Lift) {
    if l.allowed() {
        let kind = l.read(0);
        let kind = l.ir.zext(Type::I64, kind);
        let at = l.address();
        let at = l.flatten(at);
        call(l, helper::INVALIDATE_PCID, [at, kind, Value::NONE]);
        l.end_mode();
    }
}

fn load_table(l: &mut Lift, which: i64) {
    if !l.allowed() {
        return;
    }
    let bytes = match l.insn.memory_size().size() {
        10 => 8,
        _ if operand_is_word(l) => 2,
        _ => 4,
    };
    let at = l.address();
    let at = l.flatten(at);
    let (which, bytes) = (l.ir.imm(which), l.ir.imm(bytes));
    call(l, helper::LOAD_TABLE, [at, which, bytes]);
}

/// LGDT with a 16-bit operand size loads 24 bits of base.
fn operand_is_word(l: &Lift) -> bool {
    matches!(l.insn.code(), iced_x86::Code::Lgdt_m1632_16 | iced_x86::Code::Lidt_m1632_16)
}

fn store_table(l: &mut Lift, (base, limit): (crate::ir::Reg, crate::ir::Reg)) {
    let (base, limit) = (l.ir.get(base), l.ir.get(limit));
    let limit = l.ir.trunc(Type::I16, limit);
    let mut at = l.address();
    l.store(at, limit);
    at.displacement = at.displacement.wrapping_add(2);
    let ty = if l.mode.is_long() { Type::I64 } else { Type::I32 };
    let base = l.ir.trunc(ty, base);
    l.store(at, base);
}

fn load_system_segment(l: &mut Lift, which: i64) {
    if l.mode.paragraphs {
        return l.illegal();
    }
    if l.allowed() {
        let selector = l.read_as(0, Type::I16);
        let selector = l.ir.zext(Type::I64, selector);
        let which = l.ir.imm(which);
        call(l, helper::LOAD_SYSTEM_SEGMENT, [selector, which, Value::NONE]);
    }
}

fn store_selector(l: &mut Lift, register: crate::ir::Reg) {
    if l.mode.paragraphs {
        return l.illegal();
    }
    let selector = l.ir.get(register);
    let ty = if l.is_memory(0) { Type::I16 } else { l.ty(0) };
    let selector = l.ir.trunc(ty, selector);
    l.write(0, selector);
}

/// EFLAGS.AC, which with SMAP lets the supervisor at user pages: another mode.
fn allow_user_pages(l: &mut Lift, allow: bool) {
    if !l.system || l.mode.cpl != 0 {
        return l.illegal();
    }
    let flags = l.ir.get(state::EFLAGS);
    let flags = l.ir.and_imm(flags, !eflags::AC);
    let bit = l.ir.imm(if allow { eflags::AC as i64 } else { 0 });
    let flags = l.ir.alu(Code::Or, flags, bit);
    l.ir.put(state::EFLAGS, flags);
    l.end_mode();
}

/// ARPL: a selector gets at least another one's privilege number, and the zero flag says whether it
/// changed.
fn adjust_privilege(l: &mut Lift) {
    if l.mode.paragraphs {
        return l.illegal();
    }
    let asked = l.read_as(1, Type::I16);
    let wanted = l.ir.and_imm(asked, 3);
    let flags = l.flags();
    let at = l.is_memory(0).then(|| l.address());
    let register = general_number(l.insn.op0_register());
    let old = match at {
        Some(at) => l.load(Type::I16, at),
        None => l.gpr(register, Type::I16),
    };
    let has = l.ir.and_imm(old, 3);
    let enough = l.ir.compare(Cmp::LeU, wanted, has);
    let rest = l.ir.and_imm(old, 0xfffc);
    let raised = l.ir.alu(Code::Or, rest, wanted);
    let new = l.ir.select(enough, old, raised);
    match at {
        Some(at) => l.store(at, new),
        None => l.set_gpr(register, new),
    }
    let same = l.ir.zext(Type::I16, enough);
    l.set_flags(FlagKind::Zero, Type::I16, same, Value::NONE, flags);
}

fn examine(l: &mut Lift, which: i64) {
    if l.mode.paragraphs {
        return l.illegal();
    }
    let source = if which < 2 { 1 } else { 0 };
    let selector = l.read_as(source, Type::I16);
    let selector = l.ir.zext(Type::I64, selector);
    let old = if which < 2 {
        l.ir.get(state::gpr(general_number(l.insn.op0_register())))
    } else {
        selector
    };
    // The helper changes the zero flag in state, so the flags must be there.
    let question = l.ir.imm(which);
    let result = call(l, helper::EXAMINE_SELECTOR, [selector, old, question]);
    if which < 2 {
        let result = l.ir.trunc(l.ty(0), result);
        l.write(0, result);
    }
}

fn load_far_pointer(l: &mut Lift, segment: usize) {
    let ty = l.ty(0);
    let mut at = l.address();
    let offset = l.load(ty, at);
    at.displacement = at.displacement.wrapping_add(ty.bytes() as i32);
    let selector = l.load(Type::I16, at);
    let selector = l.ir.zext(Type::I64, selector);
    let number = l.ir.imm(segment as i64);
    call(l, helper::LOAD_SEGMENT, [number, selector, Value::NONE]);
    l.write(0, offset);
    l.end_mode();
}
