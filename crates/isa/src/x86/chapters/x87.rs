//! The x87 FPU, volume 1, 5.2, and saved FPU state, 5.3. All by helper: the register stack turns at
//! run time.

use iced_x86::{Mnemonic as M, OpKind, Register};

use super::Row;
use crate::ir::{Code, Cond, Type, Value};
use crate::x86::helpers::{Arithmetic, Constant, Function, Source, X87, helper};
use crate::x86::lift::Lift;
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
    (M::Fld1, |l| simple(l, Operation::new(X87::LoadConstant).detail(Constant::One as u64))),
    (M::Fldl2t, |l| simple(l, Operation::new(X87::LoadConstant).detail(Constant::Log2Of10 as u64))),
    (M::Fldl2e, |l| simple(l, Operation::new(X87::LoadConstant).detail(Constant::Log2OfE as u64))),
    (M::Fldpi, |l| simple(l, Operation::new(X87::LoadConstant).detail(Constant::Pi as u64))),
    (M::Fldlg2, |l| simple(l, Operation::new(X87::LoadConstant).detail(Constant::Log10Of2 as u64))),
    (M::Fldln2, |l| simple(l, Operation::new(X87::LoadConstant).detail(Constant::LnOf2 as u64))),
    (M::Fldz, |l| simple(l, Operation::new(X87::LoadConstant).detail(Constant::Zero as u64))),
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
    (M::Fxch, |l| simple(l, Operation::new(X87::Exchange).register(l.other_register()))),
    (M::Ffree, |l| simple(l, Operation::new(X87::Free).register(l.other_register()))),
    (M::Ffreep, |l| simple(l, Operation::new(X87::Free).register(l.other_register()).pops(1))),
    (M::Fincstp, |l| simple(l, Operation::new(X87::Rotate).detail(1))),
    (M::Fdecstp, |l| simple(l, Operation::new(X87::Rotate).detail(7))),
    (M::Fxam, |l| simple(l, Operation::new(X87::Examine))),
    (M::Fninit, |l| simple(l, Operation::new(X87::Initialise))),
    (M::Fnclex, |l| simple(l, Operation::new(X87::ClearExceptions))),
    (M::Fnop, |_| {}),
    (M::Wait, |l| simple(l, Operation::new(X87::Wait))),
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

/// An operation under construction: the fields that the helper takes apart.
#[derive(Clone, Copy)]
struct Operation(u64);

impl Operation {
    fn new(what: X87) -> Self {
        Self(what as u64)
    }

    fn register(self, i: u64) -> Self {
        Self(self.0 | i << 8)
    }

    fn pops(self, count: u64) -> Self {
        Self(self.0 | count << 11)
    }

    fn source(self, source: Source) -> Self {
        Self(self.0 | (source as u64) << 13)
    }

    fn detail(self, detail: u64) -> Self {
        Self(self.0 | detail << 16)
    }
}

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

fn simple(l: &mut Lift, operation: Operation) {
    run(l, operation, Value::NONE);
}

fn run(l: &mut Lift, operation: Operation, value: Value) -> Value {
    let what = l.ir.imm(operation.0 as i64);
    l.ir.helper(helper::X87_OPERATION, what, value, Value::NONE)
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
        run(l, Operation::new(X87::Arithmetic).source(source).detail(detail), value);
        return;
    }
    // The one operand of `FADD ST(i)` is the source, the first of two is the destination.
    match (l.stack_register(0), l.insn.op_count()) {
        (Some(0), 2) | (None, _) => {
            let other = l.other_register();
            simple(l, Operation::new(X87::Arithmetic).register(other).detail(detail).pops(pops));
        }
        (Some(to), _) => {
            simple(l, Operation::new(X87::ArithmeticTo).register(to).detail(detail).pops(pops));
        }
    }
}

fn compare(l: &mut Lift, quiet: bool, pops: u64) {
    let operation = Operation::new(X87::Compare).detail(u64::from(quiet)).pops(pops);
    if l.is_memory(0) {
        let (source, value) = memory_operand(l);
        run(l, operation.source(source), value);
    } else {
        let other = l.other_register();
        simple(l, operation.register(other));
    }
}

fn compare_flags(l: &mut Lift, quiet: bool, pops: u64) {
    let other = l.other_register();
    let detail = u64::from(quiet);
    simple(l, Operation::new(X87::CompareFlags).register(other).detail(detail).pops(pops));
}

fn apply(l: &mut Lift, function: Function) {
    simple(l, Operation::new(X87::Apply).detail(function as u64));
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
    run(l, Operation::new(X87::MoveIf).register(other), condition);
}

fn at_address(l: &mut Lift, number: usize) {
    let at = l.address();
    let at = l.flatten(at);
    l.ir.helper(number, at, Value::NONE, Value::NONE);
}

fn fld(l: &mut Lift) {
    if !l.is_memory(0) {
        let other = l.stack_register(0).unwrap_or(0);
        return simple(l, Operation::new(X87::Load).register(other));
    }
    if l.bytes(0) == 10 {
        return at_address(l, helper::X87_LOAD80);
    }
    let (source, value) = memory_operand(l);
    run(l, Operation::new(X87::Load).source(source), value);
}

fn fild(l: &mut Lift) {
    let (source, value) = memory_operand(l);
    run(l, Operation::new(X87::Load).source(source), value);
}

/// The value is stored before the stack moves, so that a fault leaves it.
fn fst(l: &mut Lift, pops: u64) {
    if !l.is_memory(0) {
        let to = l.stack_register(0).unwrap_or(0);
        return simple(l, Operation::new(X87::Store).register(to).pops(pops));
    }
    let bytes = l.bytes(0);
    if bytes == 10 {
        return at_address(l, helper::X87_STORE80);
    }
    let source = if bytes == 4 { Source::F32 } else { Source::F64 };
    let value = run(l, Operation::new(X87::Convert).source(source), Value::NONE);
    store_and_pop(l, value, bytes, pops);
}

fn fist(l: &mut Lift, pops: u64, cut: bool) {
    let bytes = l.bytes(0);
    let detail = u64::from(bytes * 8) | u64::from(cut);
    let operation = Operation::new(X87::Convert).source(Source::Integer).detail(detail);
    let value = run(l, operation, Value::NONE);
    store_and_pop(l, value, bytes, pops);
}

fn store_and_pop(l: &mut Lift, value: Value, bytes: u32, pops: u64) {
    let value = l.ir.trunc(Type::integer(bytes), value);
    let at = l.address();
    l.store(at, value);
    if pops > 0 {
        simple(l, Operation::new(X87::Pop).pops(pops));
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
    let bit_6 = l.ir.imm(0x40);
    let control = l.ir.alu(Code::Or, control, bit_6);
    l.ir.put(state::X87_CONTROL, control);
}

fn fnstsw(l: &mut Lift) {
    let status = l.ir.get(state::X87_STATUS);
    let top = l.ir.get(state::X87_TOP);
    let top = l.ir.shl_imm(top, 11);
    let word = l.ir.alu(Code::Or, status, top);
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
