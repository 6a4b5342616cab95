//! Operations on the guest's FPU by the host's.
//!
//! The guest's registers stay in its state: an operation loads its operands from there onto the
//! host's stack, which is empty between operations, and stores the result back. The host's control
//! word is the guest's, with all exceptions masked; what it notes is collected when translated code
//! is left. Whatever meets a register that is empty, or one that is not, and whatever happens while
//! an exception is not masked, is the helper's.

use isa::ir::fpu::{Arithmetic, Constant, Fields, Fpu, Function, Source, X87};
use isa::ir::{Op, Type};

use super::super::asm::{Alu, Gpr, Label, Mem, Rm, Shift, cc};
use super::super::stubs::EXCEPTIONS;
use super::super::vcpu_block as block;
use super::{Cold, Job};

/// The condition bits of the status word.
const CONDITIONS: i32 = 0x4700;
/// One of them, of which only stack faults and FXAM make something: nobody is told which way a result
/// was rounded.
const C1: i32 = 0x200;
/// The first operand, and the second behind it: together, a number of 80 bits.
const OPERAND: Mem = Mem::gs(block::ARGUMENTS + 8);
const RESULT: Mem = Mem::gs(block::RESULT);

/// What the helper has to do behind the block.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    from: [Option<Label>; 4],
    /// Where the block goes on.
    back: u64,
    what: u64,
    helper: u16,
    /// Pinned registers that are borrowed meanwhile.
    borrowed: u16,
}

/// An operation under way.
struct Work {
    fpu: Fpu,
    fields: Fields,
    /// Two registers that hold nothing.
    index: Gpr,
    other: Gpr,
    from: [Option<Label>; 4],
}

impl Work {
    /// Where the index register's register is, once it is scaled.
    fn slot(&self) -> Mem {
        self.slot_part(0)
    }

    fn slot_part(&self, offset: u32) -> Mem {
        let disp = block::STATE + u32::from(self.fpu.registers) + offset;
        Mem { base: Some(self.index), index: None, disp: disp as i32, gs: true }
    }

    fn leave_by(&mut self, label: Label) {
        let place = self.from.iter_mut().find(|from| from.is_none());
        *place.expect("an operation has few checks") = Some(label);
    }
}

fn cell(offset: u16) -> Mem {
    Mem::gs(block::STATE + u32::from(offset))
}

impl Job<'_> {
    pub fn fpu(&mut self, index: u32, op: &Op) {
        let what = self.constant(op.a, Type::I64).expect("what is done is known");
        let fields = Fields(what);
        let Some(fpu) = self.t.map.fpu.filter(|_| is_done_here(fields)) else {
            return self.helper(index, op);
        };
        self.clobber_flags();
        for (operand, offset) in [(op.b, 8), (op.c, 16)] {
            if operand.is_some() {
                let register = self.gpr(operand);
                self.c.asm.store(8, Mem::gs(block::ARGUMENTS + offset), register);
                self.c.gprs.unlock();
            }
        }
        // Values that live in the cells that change find another home.
        self.leave_cells();
        let (index_register, other) = (self.temporary(), self.temporary());
        let mut work = Work { fpu, fields, index: index_register, other, from: [None; 4] };
        if fields.what() != X87::Status {
            self.c.asm.alu_imm(4, Alu::Cmp, Rm::Mem(Mem::gs(block::FPU_CAREFUL)), 0);
            let careful = self.c.asm.jcc(cc::NE);
            work.leave_by(careful);
        }
        self.fpu_operation(&mut work);
        self.fpu_pops(&work);
        if clears_c1(fields) {
            self.fpu_clear_c1(&work);
        }
        let back = self.c.asm.here();
        let borrowed = self.c.borrowed;
        let rest = Rest { from: work.from, back, what, helper: op.aux, borrowed };
        self.c.cold.push((self.c.pc, Cold::Fpu(rest)));
        self.c.gprs.unlock();
        if self.c.values[index as usize].last != 0 {
            let result = self.result(index);
            self.c.asm.load(8, result, RESULT);
        }
    }

    /// The rest, behind the block.
    pub fn fpu_by_helper(&mut self, rest: &Rest, pc: u64) {
        for label in rest.from.into_iter().flatten() {
            self.c.asm.bind(label);
        }
        self.c.asm.store_imm(8, Mem::gs(block::ARGUMENTS), rest.what as i32);
        let start = self.c.asm.len() as u32;
        self.store_pc(pc);
        self.c.asm.store_imm(4, Mem::gs(block::OPERATION), i32::from(rest.helper));
        self.c.asm.call(self.t.stubs.helper_beside);
        if rest.borrowed != 0 {
            self.c.borrows.push((start, self.c.asm.len() as u32 + 1, rest.borrowed));
        }
        self.c.asm.jmp(rest.back);
    }

    fn fpu_operation(&mut self, work: &mut Work) {
        let fields = work.fields;
        match fields.what() {
            X87::Arithmetic => self.fpu_arithmetic(work),
            X87::ArithmeticTo => {
                self.fpu_want(work, &[0, fields.register()]);
                self.fpu_load(work, 0);
                self.fpu_load(work, fields.register());
                self.fpu_combine(work);
                self.fpu_store(work, fields.register());
            }
            X87::Load | X87::LoadConstant | X87::LoadWords => self.fpu_push(work),
            X87::Store => {
                self.fpu_want(work, &[0]);
                self.fpu_load(work, 0);
                self.fpu_place(work, fields.register());
                self.fpu_fill(work);
            }
            X87::Significand | X87::Top => {
                self.fpu_want(work, &[0]);
                self.fpu_index(work, 0);
                self.c.asm.shift_imm(4, Shift::Shl, work.index, 4);
                let high = fields.what() == X87::Top;
                let (bytes, offset) = if high { (2, 8) } else { (8, 0) };
                self.c.asm.load(bytes, work.index, work.slot_part(offset));
                self.c.asm.store(8, RESULT, work.index);
            }
            X87::Convert => self.fpu_convert(work),
            X87::Exchange => {
                self.fpu_want(work, &[0, fields.register()]);
                self.fpu_load(work, 0);
                self.fpu_load(work, fields.register());
                self.fpu_store(work, 0);
                self.fpu_store(work, fields.register());
            }
            X87::Compare | X87::CompareFlags => self.fpu_compare(work),
            X87::Apply => self.fpu_apply(work),
            X87::MoveIf => {
                self.fpu_want(work, &[0, fields.register()]);
                self.c.asm.load(8, work.other, OPERAND);
                self.c.asm.test_imm(4, Rm::Reg(work.other), 1);
                let not = self.c.asm.jcc(cc::E);
                self.fpu_load(work, fields.register());
                self.fpu_store(work, 0);
                self.fpu_clear_c1(work);
                self.c.asm.bind(not);
            }
            X87::Control => self.fpu_control(work),
            X87::Status => {
                self.fpu_status(work.index);
                let asm = &mut self.c.asm;
                asm.alu_imm(4, Alu::And, Rm::Reg(work.index), EXCEPTIONS);
                asm.alu(4, Alu::Or, work.index, Rm::Mem(cell(work.fpu.status)));
                asm.load(4, work.other, cell(work.fpu.top));
                asm.shift_imm(4, Shift::Shl, work.other, 11);
                asm.alu(4, Alu::Or, work.index, Rm::Reg(work.other));
                asm.store(8, RESULT, work.index);
            }
            _ => {} // FWAIT and pops: that nobody has to be careful is enough
        }
    }

    /// The physical number of ST(i).
    fn fpu_index(&mut self, work: &Work, i: u64) {
        self.c.asm.load(4, work.index, cell(work.fpu.top));
        if i != 0 {
            self.c.asm.alu_imm(4, Alu::Add, Rm::Reg(work.index), i as i32);
            self.c.asm.alu_imm(4, Alu::And, Rm::Reg(work.index), 7);
        }
    }

    /// These registers must not be empty.
    fn fpu_want(&mut self, work: &mut Work, registers: &[u64]) {
        self.c.asm.load(4, work.other, cell(work.fpu.empty));
        let mut wanted = [Some(registers[0]), registers.get(1).copied()];
        if wanted[1] == wanted[0] {
            wanted[1] = None;
        }
        for i in wanted.into_iter().flatten() {
            self.fpu_index(work, i);
            self.c.asm.bt(4, work.other, work.index);
            let label = self.c.asm.jcc(cc::B);
            work.leave_by(label);
        }
    }

    /// ST(i) onto the host's stack.
    fn fpu_load(&mut self, work: &Work, i: u64) {
        self.fpu_index(work, i);
        self.c.asm.shift_imm(4, Shift::Shl, work.index, 4);
        self.c.asm.x87(0xdb, 5, work.slot());
    }

    /// From the host's stack to ST(i).
    fn fpu_store(&mut self, work: &Work, i: u64) {
        self.fpu_index(work, i);
        self.fpu_fill(work);
    }

    /// From the host's stack to the register of that number.
    fn fpu_fill(&mut self, work: &Work) {
        self.c.asm.shift_imm(4, Shift::Shl, work.index, 4);
        self.c.asm.x87(0xdb, 7, work.slot());
    }

    /// ST(i) is not empty from here on.
    fn fpu_place(&mut self, work: &Work, i: u64) {
        self.fpu_index(work, i);
        self.c.asm.load(4, work.other, cell(work.fpu.empty));
        self.c.asm.set_bit(4, work.other, work.index, false);
        self.c.asm.store(4, cell(work.fpu.empty), work.other);
    }

    fn fpu_pops(&mut self, work: &Work) {
        if work.fields.pops() == 0 {
            return;
        }
        let asm = &mut self.c.asm;
        asm.load(4, work.index, cell(work.fpu.top));
        asm.load(4, work.other, cell(work.fpu.empty));
        for _ in 0..work.fields.pops() {
            asm.set_bit(4, work.other, work.index, true);
            asm.alu_imm(4, Alu::Add, Rm::Reg(work.index), 1);
            asm.alu_imm(4, Alu::And, Rm::Reg(work.index), 7);
        }
        asm.store(4, cell(work.fpu.empty), work.other);
        asm.store(4, cell(work.fpu.top), work.index);
    }

    fn fpu_clear_c1(&mut self, work: &Work) {
        let high = cell(work.fpu.status + 1);
        self.c.asm.alu_imm(1, Alu::And, Rm::Mem(high), !(C1 >> 8));
    }

    /// The host's status word.
    fn fpu_status(&mut self, register: Gpr) {
        self.c.asm.x87(0xdd, 7, Mem::gs(block::TEMPORARY)); // fnstsw
        self.c.asm.load(2, register, Mem::gs(block::TEMPORARY));
    }

    /// The host's condition bits become the guest's.
    fn fpu_conditions(&mut self, work: &Work) {
        self.fpu_status(work.index);
        let asm = &mut self.c.asm;
        asm.alu_imm(4, Alu::And, Rm::Reg(work.index), CONDITIONS);
        asm.load(4, work.other, cell(work.fpu.status));
        asm.alu_imm(4, Alu::And, Rm::Reg(work.other), !CONDITIONS);
        asm.alu(4, Alu::Or, work.other, Rm::Reg(work.index));
        asm.store(4, cell(work.fpu.status), work.other);
    }

    /// ST(0) with another operand.
    fn fpu_arithmetic(&mut self, work: &mut Work) {
        let fields = work.fields;
        let opcode = match fields.source() {
            Source::Stack => {
                self.fpu_want(work, &[0, fields.register()]);
                self.fpu_load(work, fields.register());
                self.fpu_load(work, 0);
                self.fpu_combine(work);
                return self.fpu_store(work, 0);
            }
            Source::F32 => 0xd8,
            Source::F64 => 0xdc,
            Source::Integer => 0xda,
        };
        let digit = match Arithmetic::from_bits(fields.detail()) {
            Arithmetic::Add => 0,
            Arithmetic::Mul => 1,
            Arithmetic::Sub => 4,
            Arithmetic::SubR => 5,
            Arithmetic::Div => 6,
            Arithmetic::DivR => 7,
        };
        self.fpu_want(work, &[0]);
        self.fpu_load(work, 0);
        self.c.asm.x87(opcode, digit, OPERAND);
        self.fpu_store(work, 0);
    }

    /// The host's ST(0) is the first operand, ST(1) the other: one result is left.
    fn fpu_combine(&mut self, work: &Work) {
        let code = match Arithmetic::from_bits(work.fields.detail()) {
            Arithmetic::Add => 0xc1,
            Arithmetic::Mul => 0xc9,
            Arithmetic::Sub => 0xe1,
            Arithmetic::SubR => 0xe9,
            Arithmetic::Div => 0xf1,
            Arithmetic::DivR => 0xf9,
        };
        self.c.asm.raw(&[0xde, code]);
    }

    fn fpu_push(&mut self, work: &mut Work) {
        let fields = work.fields;
        let from_stack = fields.what() == X87::Load && fields.source() == Source::Stack;
        if from_stack {
            self.fpu_want(work, &[fields.register()]);
        } else {
            self.c.asm.load(4, work.other, cell(work.fpu.empty));
        }
        self.fpu_index(work, 7);
        self.c.asm.bt(4, work.other, work.index);
        let full = self.c.asm.jcc(cc::AE);
        work.leave_by(full);
        let asm = &mut self.c.asm;
        match (fields.what(), fields.source()) {
            (X87::LoadConstant, _) => {
                let code = match Constant::from_bits(fields.detail()) {
                    Constant::One => 0xe8,
                    Constant::Log2Of10 => 0xe9,
                    Constant::Log2OfE => 0xea,
                    Constant::Pi => 0xeb,
                    Constant::Log10Of2 => 0xec,
                    Constant::LnOf2 => 0xed,
                    Constant::Zero => 0xee,
                };
                asm.raw(&[0xd9, code]);
            }
            (X87::LoadWords, _) => asm.x87(0xdb, 5, OPERAND),
            (_, Source::Stack) => {
                self.fpu_load(work, fields.register());
                self.fpu_index(work, 7);
            }
            (_, Source::F32) => asm.x87(0xd9, 0, OPERAND),
            (_, Source::F64) => asm.x87(0xdd, 0, OPERAND),
            (_, Source::Integer) => asm.x87(0xdf, 5, OPERAND),
        }
        let asm = &mut self.c.asm;
        asm.store(4, cell(work.fpu.top), work.index);
        asm.set_bit(4, work.other, work.index, false);
        asm.store(4, cell(work.fpu.empty), work.other);
        self.fpu_fill(work);
    }

    fn fpu_convert(&mut self, work: &mut Work) {
        let detail = work.fields.detail();
        let (bytes, cut) = (detail / 8, detail & 1 != 0);
        let (opcode, digit, bytes) = match (work.fields.source(), bytes, cut) {
            (Source::F32, ..) => (0xd9, 3, 4),
            (Source::F64, ..) => (0xdd, 3, 8),
            (_, 2, false) => (0xdf, 3, 2),
            (_, 4, false) => (0xdb, 3, 4),
            (_, _, false) => (0xdf, 7, 8),
            (_, 2, true) => (0xdf, 1, 2),
            (_, 4, true) => (0xdb, 1, 4),
            (_, _, true) => (0xdd, 1, 8),
        };
        self.fpu_want(work, &[0]);
        self.fpu_load(work, 0);
        self.c.asm.x87(opcode, digit, RESULT);
        // As the helper gives it: numbers of other formats as they are, integers with their sign.
        if work.fields.source() == Source::F32 {
            self.c.asm.store_imm(4, Mem::gs(block::RESULT + 4), 0);
        } else if bytes < 8 {
            self.c.asm.load_signed(bytes, 8, work.index, RESULT);
            self.c.asm.store(8, RESULT, work.index);
        }
    }

    fn fpu_compare(&mut self, work: &mut Work) {
        let fields = work.fields;
        if fields.source() == Source::Stack {
            self.fpu_want(work, &[0, fields.register()]);
            self.fpu_load(work, fields.register());
            self.fpu_load(work, 0);
            let quiet = fields.detail() != 0;
            self.c.asm.raw(if quiet { &[0xda, 0xe9] } else { &[0xde, 0xd9] });
        } else {
            self.fpu_want(work, &[0]);
            self.fpu_load(work, 0);
            let opcode = match fields.source() {
                Source::F32 => 0xd8,
                Source::F64 => 0xdc,
                _ => 0xda,
            };
            self.c.asm.x87(opcode, 3, OPERAND);
        }
        if fields.what() == X87::Compare {
            return self.fpu_conditions(work);
        }
        // C0, C2, C3 lie eight bits above carry, parity, zero.
        self.fpu_status(work.index);
        self.c.asm.shift_imm(4, Shift::Shr, work.index, 8);
        self.c.asm.alu_imm(4, Alu::And, Rm::Reg(work.index), CONDITIONS >> 8 & !2);
        self.c.asm.store(8, RESULT, work.index);
    }

    fn fpu_apply(&mut self, work: &mut Work) {
        const DROP: &[u8] = &[0xdd, 0xd8]; // fstp st(0)
        let function = Function::from_bits(work.fields.detail());
        if matches!(function, Function::ChangeSign | Function::Absolute) {
            self.fpu_want(work, &[0]);
            self.c.asm.shift_imm(4, Shift::Shl, work.index, 4);
            let (alu, mask) = match function {
                Function::ChangeSign => (Alu::Xor, i32::from(i16::MIN)),
                _ => (Alu::And, 0x7fff),
            };
            return self.c.asm.alu_imm(2, alu, Rm::Mem(work.slot_part(8)), mask);
        }
        let (code, operands, conditions): (u8, &[u64], bool) = match function {
            Function::SquareRoot => (0xfa, &[0], false),
            Function::Round => (0xfc, &[0], false),
            Function::Scale => (0xfd, &[1, 0], false),
            _ => (0xe4, &[0], true), // ftst
        };
        self.fpu_want(work, operands);
        for &i in operands {
            self.fpu_load(work, i);
        }
        self.c.asm.raw(&[0xd9, code]);
        if conditions {
            self.fpu_conditions(work);
        }
        if function == Function::Test {
            return self.c.asm.raw(DROP);
        }
        self.fpu_store(work, 0);
        if operands.len() == 2 {
            self.c.asm.raw(DROP);
        }
    }

    /// FLDCW, unless it unmasks an exception.
    fn fpu_control(&mut self, work: &mut Work) {
        let asm = &mut self.c.asm;
        asm.load(2, work.index, OPERAND);
        asm.mov(4, work.other, work.index);
        asm.alu_imm(4, Alu::And, Rm::Reg(work.other), EXCEPTIONS);
        asm.alu_imm(4, Alu::Cmp, Rm::Reg(work.other), EXCEPTIONS);
        let unmasks = asm.jcc(cc::NE);
        work.leave_by(unmasks);
        let asm = &mut self.c.asm;
        asm.alu_imm(4, Alu::Or, Rm::Reg(work.index), 0x40);
        asm.store(8, cell(work.fpu.control), work.index);
        asm.store(2, Mem::gs(block::FPU_CONTROL), work.index);
        asm.x87(0xd9, 5, Mem::gs(block::FPU_CONTROL)); // fldcw
    }
}

/// Whether the operation leaves C1 clear, as the helper would.
fn clears_c1(fields: Fields) -> bool {
    // A comparison writes all condition bits; one that moves on a condition has its own way.
    !matches!(
        fields.what(),
        X87::Status | X87::Control | X87::Wait | X87::Pop | X87::Compare | X87::MoveIf
    )
}

/// What is done without the helper. Remainders are not: what they leave of the condition bits depends
/// on what the host did before.
fn is_done_here(fields: Fields) -> bool {
    match fields.what() {
        X87::Initialise | X87::ClearExceptions | X87::Rotate | X87::Free | X87::Examine => false,
        X87::Apply => matches!(
            Function::from_bits(fields.detail()),
            Function::ChangeSign
                | Function::Absolute
                | Function::SquareRoot
                | Function::Round
                | Function::Scale
                | Function::Test
        ),
        _ => true,
    }
}
