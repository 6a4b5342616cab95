//! The x87 FPU, volume 1, 5.2, and saved FPU state, 5.3. All by helper: the register stack turns at
//! run time.

use iced_x86::{Mnemonic as M, OpKind, Register};

use super::Row;
use crate::ir::fpu::{Arithmetic, Constant, Fields, Function, Source, X87};
use crate::ir::{Cond, FlagKind, Type, Value};
use crate::x86::helpers::helper;
use crate::x86::lift::{Address, Lift};
use crate::x86::state;

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    (M::Fadd, |l| arithmetic(l, Arithmetic::Add, 0)),
    (M::Faddp, |l| arithmetic(l, Arithmetic::Add, 1)),
    (M::Fiadd, |l| arithmetic(l, Arithmetic::Add, 0)),
    (M::Fmul, |l| arithmetic(l, Arithmetic::Mul, 0)),
    (M::Fmulp, |l| arithmetic(l, Arithmetic::Mul, 1)),
    (M::Fimul, |l| arithmetic(l, Arithmetic::Mul, 0)),
    (M::Fsub, |l| arithmetic(l, Arithmetic::Sub, 0)),
    (M::Fsubp, |l| arithmetic(l, Arithmetic::Sub, 1)),
    (M::Fisub, |l| arithmetic(l, Arithmetic::Sub, 0)),
    (M::Fsubr, |l| arithmetic(l, Arithmetic::SubR, 0)),
    (M::Fsubrp, |l| arithmetic(l, Arithmetic::SubR, 1)),
    (M::Fisubr, |l| arithmetic(l, Arithmetic::SubR, 0)),
    (M::Fdiv, |l| arithmetic(l, Arithmetic::Div, 0)),
    (M::Fdivp, |l| arithmetic(l, Arithmetic::Div, 1)),
    (M::Fidiv, |l| arithmetic(l, Arithmetic::Div, 0)),
    (M::Fdivr, |l| arithmetic(l, Arithmetic::DivR, 0)),
    (M::Fdivrp, |l| arithmetic(l, Arithmetic::DivR, 1)),
    (M::Fidivr, |l| arithmetic(l, Arithmetic::DivR, 0)),
    (M::Fcom, |l| compare(l, false, 0)),
    (M::Fcomp, |l| compare(l, false, 1)),
    (M::Fcompp, |l| compare(l, false, 2)),
    (M::Fucom, |l| compare(l, true, 0)),
    (M::Fucomp, |l| compare(l, true, 1)),
    (M::Fucompp, |l| compare(l, true, 2)),
    (M::Ficom, |l| compare(l, false, 0)),
    (M::Ficomp, |l| compare(l, false, 1)),
    (M::Fcomi, |l| compare_flags(l, false, 0)),
    (M::Fcomip, |l| compare_flags(l, false, 1)),
    (M::Fucomi, |l| compare_flags(l, true, 0)),
    (M::Fucomip, |l| compare_flags(l, true, 1)),
    (M::Fchs, |l| apply(l, Function::ChangeSign)),
    (M::Fabs, |l| apply(l, Function::Absolute)),
    (M::Fsqrt, |l| apply(l, Function::SquareRoot)),
    (M::Fsin, |l| apply(l, Function::Sine)),
    (M::Fcos, |l| apply(l, Function::Cosine)),
    (M::Fsincos, |l| apply(l, Function::SineCosine)),
    (M::Fptan, |l| apply(l, Function::Tangent)),
    (M::Fpatan, |l| apply(l, Function::ArcTangent)),
    (M::F2xm1, |l| apply(l, Function::PowerOf2Less1)),
    (M::Fyl2x, |l| apply(l, Function::LogTimes)),
    (M::Fyl2xp1, |l| apply(l, Function::LogPlus1Times)),
    (M::Frndint, |l| apply(l, Function::Round)),
    (M::Fscale, |l| apply(l, Function::Scale)),
    (M::Fxtract, |l| apply(l, Function::Extract)),
    (M::Fprem, |l| apply(l, Function::Remainder)),
    (M::Fprem1, |l| apply(l, Function::IeeeRemainder)),
    (M::Ftst, |l| apply(l, Function::Test)),
    (M::Fld1, |l| simple(l, Fields::new(X87::LoadConstant).with_detail(Constant::One as u64))),
    (M::Fldl2t, |l| simple(l, Fields::new(X87::LoadConstant).with_detail(Constant::Log2Of10 as u64))),
    (M::Fldl2e, |l| simple(l, Fields::new(X87::LoadConstant).with_detail(Constant::Log2OfE as u64))),
    (M::Fldpi, |l| simple(l, Fields::new(X87::LoadConstant).with_detail(Constant::Pi as u64))),
    (M::Fldlg2, |l| simple(l, Fields::new(X87::LoadConstant).with_detail(Constant::Log10Of2 as u64))),
    (M::Fldln2, |l| simple(l, Fields::new(X87::LoadConstant).with_detail(Constant::LnOf2 as u64))),
    (M::Fldz, |l| simple(l, Fields::new(X87::LoadConstant).with_detail(Constant::Zero as u64))),
    (M::Fcmovb, move_if),
    (M::Fcmove, move_if),
    (M::Fcmovbe, move_if),
    (M::Fcmovu, move_if),
    (M::Fcmovnb, move_if),
    (M::Fcmovne, move_if),
    (M::Fcmovnbe, move_if),
    (M::Fcmovnu, move_if),
    (M::Fld, fld),
    (M::Fild, fild),
    (M::Fst, |l| fst(l, 0)),
    (M::Fstp, |l| fst(l, 1)),
    (M::Fist, |l| fist(l, 0, false)),
    (M::Fistp, |l| fist(l, 1, false)),
    (M::Fisttp, |l| fist(l, 1, true)),
    (M::Fbld, |l| at_address(l, helper::X87_LOAD_DECIMAL)),
    (M::Fbstp, |l| at_address(l, helper::X87_STORE_DECIMAL)),
    (M::Fxch, |l| simple(l, Fields::new(X87::Exchange).with_register(l.other_register()))),
    (M::Ffree, |l| simple(l, Fields::new(X87::Free).with_register(l.other_register()))),
    (M::Ffreep, |l| simple(l, Fields::new(X87::Free).with_register(l.other_register()).with_pops(1))),
    (M::Fincstp, |l| simple(l, Fields::new(X87::Rotate).with_detail(1))),
    (M::Fdecstp, |l| simple(l, Fields::new(X87::Rotate).with_detail(7))),
    (M::Fxam, |l| simple(l, Fields::new(X87::Examine))),
    (M::Fninit, |l| simple(l, Fields::new(X87::Initialise))),
    (M::Fnclex, |l| simple(l, Fields::new(X87::ClearExceptions))),
    (M::Fnop, |_| {}),
    (M::Wait, |l| simple(l, Fields::new(X87::Wait))),
    (M::Emms, emms),
    (M::Fnstcw, fnstcw),
    (M::Fldcw, fldcw),
    (M::Fnstsw, fnstsw),
    (M::Fnstenv, |l| environment(l, helper::X87_STORE_ENVIRONMENT, 0)),
    (M::Fnsave, |l| environment(l, helper::X87_STORE_ENVIRONMENT, 0x100)),
    (M::Fldenv, |l| environment(l, helper::X87_LOAD_ENVIRONMENT, 0)),
    (M::Frstor, |l| environment(l, helper::X87_LOAD_ENVIRONMENT, 0x100)),
    (M::Fxsave, fxsave),
    (M::Fxsave64, fxsave),
    (M::Fxrstor, fxrstor),
    (M::Fxrstor64, fxrstor),
    (M::Xsave, |l| xsave(l, 0)),
    (M::Xsave64, |l| xsave(l, 0)),
    (M::Xsaveopt, |l| xsave(l, 1)),
    (M::Xsaveopt64, |l| xsave(l, 1)),
    (M::Xsavec, |l| xsave(l, 2)),
    (M::Xsavec64, |l| xsave(l, 2)),
    (M::Xrstor, xrstor),
    (M::Xrstor64, xrstor),
];

impl Lift<'_> {
    /// The stack register of operand `i`.
    fn stack_register(&self, i: u32) -> Option<u64> {
        let register = self.insn.op_register(i);
        let is_register = self.insn.op_kind(i) == OpKind::Register && register.is_st();
        is_register.then(|| register.number() as u64)
    }

    /// The operand that is not ST(0); ST(1) where none is named.
    fn other_register(&self) -> u64 {
        let named = |i: u32| (i < self.insn.op_count()).then(|| self.stack_register(i)).flatten();
        match (named(0), named(1)) {
            (Some(0), Some(other)) | (Some(other), _) => other,
            _ => 1,
        }
    }
}

fn simple(l: &mut Lift, operation: Fields) {
    run(l, operation, Value::NONE);
}

fn run(l: &mut Lift, operation: Fields, value: Value) -> Value {
    run_with(l, operation, [value, Value::NONE])
}

fn run_with(l: &mut Lift, operation: Fields, [first, second]: [Value; 2]) -> Value {
    l.ir.fpu(helper::X87_OPERATION, operation, first, second)
}

/// The memory operand's value as 64 bits, and what it is.
fn memory_operand(l: &mut Lift) -> (Source, Value) {
    let bytes = l.bytes(0);
    let at = l.address();
    let value = l.load(Type::integer(bytes), at);
    let integer = matches!(
        l.insn.mnemonic(),
        M::Fiadd
            | M::Fimul
            | M::Fisub
            | M::Fisubr
            | M::Fidiv
            | M::Fidivr
            | M::Ficom
            | M::Ficomp
            | M::Fild
    );
    match (integer, bytes) {
        (true, _) => (Source::Integer, l.ir.sext(Type::I64, value)),
        (false, 4) => (Source::F32, l.ir.zext(Type::I64, value)),
        (false, _) => (Source::F64, value),
    }
}

fn arithmetic(l: &mut Lift, what: Arithmetic, pops: u64) {
    let detail = what as u64;
    if l.is_memory(0) {
        let (source, value) = memory_operand(l);
        run(l, Fields::new(X87::Arithmetic).with_source(source).with_detail(detail), value);
        return;
    }
    // The one operand of `FADD ST(i)` is the source, the first of two is the destination.
    match (l.stack_register(0), l.insn.op_count()) {
        (Some(0), 2) | (None, _) => {
            let other = l.other_register();
            simple(
                l,
                Fields::new(X87::Arithmetic)
                    .with_register(other)
                    .with_detail(detail)
                    .with_pops(pops),
            );
        }
        (Some(to), _) => {
            simple(
                l,
                Fields::new(X87::ArithmeticTo)
                    .with_register(to)
                    .with_detail(detail)
                    .with_pops(pops),
            );
        }
    }
}

fn compare(l: &mut Lift, quiet: bool, pops: u64) {
    let operation = Fields::new(X87::Compare).with_detail(u64::from(quiet)).with_pops(pops);
    if l.is_memory(0) {
        let (source, value) = memory_operand(l);
        run(l, operation.with_source(source), value);
    } else {
        let other = l.other_register();
        simple(l, operation.with_register(other));
    }
}

fn compare_flags(l: &mut Lift, quiet: bool, pops: u64) {
    let other = l.other_register();
    let operation = Fields::new(X87::CompareFlags).with_register(other);
    let operation = operation.with_detail(u64::from(quiet)).with_pops(pops);
    let image = run(l, operation, Value::NONE);
    l.set_flags(FlagKind::Image, Type::I64, image, Value::NONE, Value::NONE);
}

fn apply(l: &mut Lift, function: Function) {
    simple(l, Fields::new(X87::Apply).with_detail(function as u64));
}

fn move_if(l: &mut Lift) {
    let cond = match l.insn.mnemonic() {
        M::Fcmovb => Cond::C,
        M::Fcmovnb => Cond::Nc,
        M::Fcmove => Cond::Z,
        M::Fcmovne => Cond::Nz,
        M::Fcmovbe => Cond::Be,
        M::Fcmovnbe => Cond::A,
        M::Fcmovu => Cond::P,
        _ => Cond::Np,
    };
    let flags = l.flags();
    let condition = l.ir.condition(cond, flags);
    let condition = l.ir.zext(Type::I64, condition);
    let other = l.other_register();
    run(l, Fields::new(X87::MoveIf).with_register(other), condition);
}

fn at_address(l: &mut Lift, number: usize) {
    let at = l.address();
    let at = l.flatten(at);
    l.ir.helper(number, at, Value::NONE, Value::NONE);
}

fn fld(l: &mut Lift) {
    if !l.is_memory(0) {
        let other = l.stack_register(0).unwrap_or(0);
        return simple(l, Fields::new(X87::Load).with_register(other));
    }
    if l.bytes(0) == 10 {
        let at = l.address();
        let above = above(at);
        let (significand, top) = (l.load(Type::I64, at), l.load(Type::I16, above));
        let top = l.ir.zext(Type::I64, top);
        run_with(l, Fields::new(X87::LoadWords), [significand, top]);
        return;
    }
    let (source, value) = memory_operand(l);
    run(l, Fields::new(X87::Load).with_source(source), value);
}

/// Where the sign and exponent of a number lie.
fn above(at: Address) -> Address {
    Address { displacement: at.displacement.wrapping_add(8), ..at }
}

fn fild(l: &mut Lift) {
    let (source, value) = memory_operand(l);
    run(l, Fields::new(X87::Load).with_source(source), value);
}

/// The value is stored before the stack moves, so that a fault leaves it.
fn fst(l: &mut Lift, pops: u64) {
    if !l.is_memory(0) {
        let to = l.stack_register(0).unwrap_or(0);
        return simple(l, Fields::new(X87::Store).with_register(to).with_pops(pops));
    }
    let bytes = l.bytes(0);
    if bytes == 10 {
        let at = l.address();
        let significand = run(l, Fields::new(X87::Significand), Value::NONE);
        let top = run(l, Fields::new(X87::Top), Value::NONE);
        let top = l.ir.trunc(Type::I16, top);
        l.store(above(at), top);
        l.store(at, significand);
        return simple(l, Fields::new(X87::Pop).with_pops(pops));
    }
    let source = if bytes == 4 { Source::F32 } else { Source::F64 };
    let value = run(l, Fields::new(X87::Convert).with_source(source), Value::NONE);
    store_and_pop(l, value, bytes, pops);
}

fn fist(l: &mut Lift, pops: u64, cut: bool) {
    let bytes = l.bytes(0);
    let detail = u64::from(bytes * 8) | u64::from(cut);
    let operation = Fields::new(X87::Convert).with_source(Source::Integer).with_detail(detail);
    let value = run(l, operation, Value::NONE);
    store_and_pop(l, value, bytes, pops);
}

fn store_and_pop(l: &mut Lift, value: Value, bytes: u32, pops: u64) {
    let value = l.ir.trunc(Type::integer(bytes), value);
    let at = l.address();
    l.store(at, value);
    if pops > 0 {
        simple(l, Fields::new(X87::Pop).with_pops(pops));
    }
}

fn emms(l: &mut Lift) {
    let empty = l.ir.imm(0xff);
    l.ir.put(state::X87_EMPTY, empty);
}

fn fnstcw(l: &mut Lift) {
    let control = l.ir.get(state::X87_CONTROL);
    let control = l.ir.trunc(Type::I16, control);
    l.write(0, control);
}

fn fldcw(l: &mut Lift) {
    let control = l.read(0);
    let control = l.ir.zext(Type::I64, control);
    run(l, Fields::new(X87::Control), control);
}

fn fnstsw(l: &mut Lift) {
    let word = run(l, Fields::new(X87::Status), Value::NONE);
    let word = l.ir.trunc(Type::I16, word);
    if l.insn.op0_register() == Register::AX {
        l.set_gpr(state::RAX, word);
    } else {
        l.write(0, word);
    }
}

/// The word size of saved environments follows the operand size.
fn environment(l: &mut Lift, number: usize, what: i64) {
    let bytes = l.bytes(0);
    let word = if matches!(bytes, 14 | 94) { 2 } else { 4 };
    let at = l.address();
    let at = l.flatten(at);
    let what = l.ir.imm(what | word);
    l.ir.helper(number, at, what, Value::NONE);
}

fn vector_registers(l: &Lift) -> i64 {
    if l.mode.is_long() { 16 } else { 8 }
}

fn fxsave(l: &mut Lift) {
    let at = l.address();
    let at = l.flatten(at);
    let mxcsr = l.ir.fp_control_get();
    let mxcsr = l.ir.zext(Type::I64, mxcsr);
    let count = l.ir.imm(vector_registers(l));
    l.ir.helper(helper::SAVE_FPU, at, mxcsr, count);
}

fn fxrstor(l: &mut Lift) {
    let at = l.address();
    let at = l.flatten(at);
    let count = l.ir.imm(vector_registers(l));
    let mxcsr = l.ir.helper(helper::RESTORE_FPU, at, count, Value::NONE);
    let mxcsr = l.ir.trunc(Type::I32, mxcsr);
    l.ir.fp_control_put(mxcsr);
}

fn xsave(l: &mut Lift, kind: i64) {
    let at = l.address();
    let at = l.flatten(at);
    let mxcsr = l.ir.fp_control_get();
    let mxcsr = l.ir.zext(Type::I64, mxcsr);
    let what = l.ir.imm(vector_registers(l) | kind << 8);
    l.ir.helper(helper::XSAVE, at, mxcsr, what);
}

/// Upper halves may be in use afterwards or not, which is another variant of the mode.
fn xrstor(l: &mut Lift) {
    let at = l.address();
    let at = l.flatten(at);
    let mxcsr = l.ir.fp_control_get();
    let mxcsr = l.ir.zext(Type::I64, mxcsr);
    let count = l.ir.imm(vector_registers(l));
    let mxcsr = l.ir.helper(helper::XRSTOR, at, mxcsr, count);
    let mxcsr = l.ir.trunc(Type::I32, mxcsr);
    l.ir.fp_control_put(mxcsr);
    l.end_mode();
}
