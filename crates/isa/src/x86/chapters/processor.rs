//! Flags, miscellaneous, random numbers, time: volume 1, 5.1.10 to 5.1.15.

use iced_x86::Mnemonic as M;

use super::Row;
use crate::front_end::Host;
use crate::ir::{Cond, FlagKind, STATUS, Type, Value};
use crate::x86::cpuid::Abilities;
use crate::x86::helpers::helper;
use crate::x86::lift::Lift;
use crate::x86::mode::eflags;
use crate::x86::state::{self, RAX};

pub const ROWS: &[Row] = &[
    (M::Nop, |_| {}),
    (M::Pause, |_| {}),
    (M::Endbr32, |_| {}),
    (M::Endbr64, |_| {}),
    (M::Prefetchnta, |_| {}),
    (M::Prefetcht0, |_| {}),
    (M::Prefetcht1, |_| {}),
    (M::Prefetcht2, |_| {}),
    (M::Prefetchw, |_| {}),
    (M::Prefetch, |_| {}),
    (M::Prefetchwt1, |_| {}),
    (M::Reservednop, |_| {}),
    // Without shadow stacks it is one of the reserved ones. Unwinders look whether it does something.
    (M::Rdsspd, |_| {}),
    (M::Rdsspq, |_| {}),
    (M::Prefetchit0, |_| {}),
    (M::Prefetchit1, |_| {}),
    (M::Clflush, touch),
    (M::Clflushopt, touch),
    (M::Clwb, touch),
    (M::Cldemote, |_| {}),
    (M::Lfence, |_| {}),
    (M::Sfence, |_| {}),
    (M::Mfence, |l| l.ir.fence()),
    (M::Stc, |l| change_carry(l, Carry::Set)),
    (M::Clc, |l| change_carry(l, Carry::Clear)),
    (M::Cmc, |l| change_carry(l, Carry::Flip)),
    (M::Cld, |l| set_direction(l, 0)),
    (M::Std, |l| set_direction(l, eflags::DF)),
    (M::Lahf, lahf),
    (M::Sahf, sahf),
    (M::Salc, salc),
    (M::Pushf, |l| push_flags(l, Type::I16)),
    (M::Pushfd, |l| push_flags(l, Type::I32)),
    (M::Pushfq, |l| push_flags(l, Type::I64)),
    (M::Popf, |l| pop_flags(l, Type::I16)),
    (M::Popfd, |l| pop_flags(l, Type::I32)),
    (M::Popfq, |l| pop_flags(l, Type::I64)),
    (M::Cpuid, |l| {
        let told = if l.wide_vectors { l.host } else { Host::default() };
        let abilities = l.ir.imm(Abilities::of(told).0 as i64);
        l.ir.helper(helper::CPUID, abilities, Value::NONE, Value::NONE);
    }),
    (M::Xgetbv, |l| {
        l.ir.helper(helper::XGETBV, Value::NONE, Value::NONE, Value::NONE);
    }),
    (M::Rdtsc, |l| {
        l.ir.helper(helper::RDTSC, Value::NONE, Value::NONE, Value::NONE);
    }),
    (M::Rdtscp, rdtscp),
    (M::Rdpid, rdpid),
    (M::Rdrand, random),
    (M::Rdseed, random),
    (M::Rdfsbase, |l| read_base(l, state::FS)),
    (M::Rdgsbase, |l| read_base(l, state::GS)),
    (M::Wrfsbase, |l| write_base(l, state::FS)),
    (M::Wrgsbase, |l| write_base(l, state::GS)),
];

/// Cache maintenance has no effect but that of a byte's load.
fn touch(l: &mut Lift) {
    let at = l.address();
    l.load(Type::I8, at);
}

#[derive(Clone, Copy)]
enum Carry {
    Set,
    Clear,
    Flip,
}

fn change_carry(l: &mut Lift, change: Carry) {
    let flags = l.flags();
    let image = l.ir.flags_image(flags);
    let image = match change {
        Carry::Set => {
            let one = l.ir.imm(1);
            l.ir.alu(crate::ir::Code::Or, image, one)
        }
        Carry::Clear => l.ir.and_imm(image, !1),
        Carry::Flip => {
            let one = l.ir.imm(1);
            l.ir.alu(crate::ir::Code::Xor, image, one)
        }
    };
    l.set_flags(FlagKind::Image, Type::I64, image, Value::NONE, Value::NONE);
}

fn set_direction(l: &mut Lift, direction: u64) {
    let flags = l.ir.get(state::EFLAGS);
    let mut flags = l.ir.and_imm(flags, !eflags::DF);
    if direction != 0 {
        let bit = l.ir.imm(direction as i64);
        flags = l.ir.alu(crate::ir::Code::Or, flags, bit);
    }
    l.ir.put(state::EFLAGS, flags);
}

/// The arithmetic flags below bit 8.
const LOW_FLAGS: u64 = STATUS & 0xff;

fn lahf(l: &mut Lift) {
    let flags = l.flags();
    let image = l.ir.flags_image(flags);
    let image = l.ir.and_imm(image, LOW_FLAGS);
    let image = l.ir.trunc(Type::I8, image);
    let always = l.ir.constant(Type::I8, state::ALWAYS_ONE);
    let image = l.ir.alu(crate::ir::Code::Or, image, always);
    l.ir.put(state::high_byte(RAX), image);
}

fn sahf(l: &mut Lift) {
    let flags = l.flags();
    let image = l.ir.flags_image(flags);
    let high = l.ir.and_imm(image, STATUS & !0xff);
    let low = l.ir.get(state::high_byte(RAX));
    let low = l.ir.zext(Type::I64, low);
    let low = l.ir.and_imm(low, LOW_FLAGS);
    let image = l.ir.alu(crate::ir::Code::Or, high, low);
    l.set_flags(FlagKind::Image, Type::I64, image, Value::NONE, Value::NONE);
}

/// AL becomes all ones or zero: undocumented, and found in old software.
fn salc(l: &mut Lift) {
    let flags = l.flags();
    let carry = l.ir.condition(Cond::C, flags);
    let carry = l.ir.zext(Type::I8, carry);
    let value = l.ir.unary(crate::ir::Code::Neg, carry);
    l.set_gpr(RAX, value);
}

fn push_flags(l: &mut Lift, ty: Type) {
    if l.system && l.mode.cpl != 0 && l.mode.paragraphs {
        // Virtual-8086 mode asks IOPL first.
        l.ir.helper(helper::CHECK_IOPL, Value::NONE, Value::NONE, Value::NONE);
    }
    let arithmetic = l.flags();
    let arithmetic = l.ir.flags_image(arithmetic);
    let arithmetic = l.ir.and_imm(arithmetic, STATUS);
    let rest = l.ir.get(state::EFLAGS);
    let rest = l.ir.and_imm(rest, !(eflags::RF | eflags::VM));
    let all = l.ir.alu(crate::ir::Code::Or, arithmetic, rest);
    let all = l.ir.trunc(ty, all);
    l.push(all);
}

/// What a program may change by POPF; a system by helper, by its privilege.
const USER_FLAGS: u64 = eflags::TF | eflags::DF | eflags::AC | eflags::ID | eflags::NT;

fn pop_flags(l: &mut Lift, ty: Type) {
    let value = l.peek(ty, 0);
    let value = l.ir.zext(Type::I64, value);
    if l.system {
        let bytes = l.ir.imm(i64::from(ty.bytes()));
        l.ir.helper(helper::POP_FLAGS, value, bytes, Value::NONE);
        l.move_stack(i64::from(ty.bytes()));
        return l.end_mode();
    }
    let old = l.ir.get(state::EFLAGS);
    let changed = if ty == Type::I16 { USER_FLAGS & 0xffff } else { USER_FLAGS };
    let kept = l.ir.and_imm(old, !changed);
    let new = l.ir.and_imm(value, changed);
    let rest = l.ir.alu(crate::ir::Code::Or, kept, new);
    l.move_stack(i64::from(ty.bytes()));
    l.ir.put(state::EFLAGS, rest);
    l.set_flags(FlagKind::Image, Type::I64, value, Value::NONE, Value::NONE);
    l.end_mode();
}

fn rdtscp(l: &mut Lift) {
    let and_number = l.ir.imm(1);
    l.ir.helper(helper::RDTSC, and_number, Value::NONE, Value::NONE);
}

fn rdpid(l: &mut Lift) {
    let number = l.ir.get(state::TSC_AUX);
    let number = l.ir.trunc(l.ty(0), number);
    l.write(0, number);
}

/// RDRAND and RDSEED: the numbers of the host, which always has one.
fn random(l: &mut Lift) {
    let ty = l.ty(0);
    let value = l.ir.helper(helper::RANDOM, Value::NONE, Value::NONE, Value::NONE);
    let value = l.ir.trunc(ty, value);
    l.write(0, value);
    let carry = l.ir.imm(crate::ir::CARRY as i64);
    l.set_flags(FlagKind::Image, Type::I64, carry, Value::NONE, Value::NONE);
}

fn read_base(l: &mut Lift, segment: usize) {
    let base = l.ir.get(state::segment_base(segment));
    let base = l.ir.trunc(l.ty(0), base);
    l.write(0, base);
}

fn write_base(l: &mut Lift, segment: usize) {
    let base = l.read(0);
    let base = l.ir.zext(Type::I64, base);
    l.ir.put(state::segment_base(segment), base);
}
