//! Integer operations.

use isa::ir::{Code, Op, Type, Value};

use super::super::asm::{Alu, Gpr, Mem, Rm, Shift, cc, reg};
use super::super::map::NONE;
use super::Job;

/// The size of the host operation for a type: narrow arithmetic is done in 32 bits where its low
/// bits do not depend on the upper ones.
fn size(ty: Type) -> u8 {
    if ty == Type::I64 { 8 } else { 4 }
}

impl Job<'_> {
    pub fn integer(&mut self, index: u32, op: &Op) {
        match op.code {
            Code::Add | Code::Sub | Code::And | Code::Or | Code::Xor => self.classic(index, op),
            Code::AndNot => self.and_not(index, op),
            Code::Mul => self.multiply(index, op),
            Code::MulHiS | Code::MulHiU | Code::MulHiSU => self.multiply_high(index, op),
            Code::DivS | Code::DivU | Code::RemS | Code::RemU => self.divide(index, op),
            Code::DivWideS | Code::DivWideU => self.divide_wide(index, op),
            Code::RemWideS | Code::RemWideU => {} // done by the division before
            Code::Shl | Code::ShrU | Code::ShrS => self.shift(index, op),
            Code::RotL | Code::RotR => self.rotate(index, op),
            Code::ShlDouble | Code::ShrDouble => self.double_shift(index, op),
            Code::Adc | Code::Sbb => self.with_carry(index, op),
            Code::Neg | Code::Not => self.negate(index, op),
            Code::Clz | Code::Ctz | Code::Popcnt => self.count(index, op),
            Code::Bswap => self.byte_swap(index, op),
            Code::BitRev => self.bit_reverse(index, op),
            Code::Pext | Code::Pdep => self.scatter(index, op),
            Code::SExt | Code::ZExt => self.extend(index, op),
            Code::Extract | Code::ExtractS => self.extract(index, op),
            Code::Deposit => self.deposit(index, op),
            Code::Lea => self.sum_address(index, op),
            Code::Select => self.select(index, op),
            Code::Crc32 => self.crc32(index, op),
            Code::ClMul | Code::ClMulHi => self.carry_less(index, op),
            code => unreachable!("{code:?} is no integer operation"),
        }
    }

    /// Add, subtract, and, or, exclusive or: the operations with memory and immediate forms.
    fn classic(&mut self, index: u32, op: &Op) {
        let alu = match op.code {
            Code::Add => Alu::Add,
            Code::Sub => Alu::Sub,
            Code::And => Alu::And,
            Code::Or => Alu::Or,
            _ => Alu::Xor,
        };
        let wanted = self.flags_wanted(index, op);
        // The host's flags are those of the operation's own width.
        let size = if wanted { op.ty.bytes() as u8 } else { size(op.ty) };
        let (mut a, mut b) = (op.a, op.b);
        let commutes = op.code != Code::Sub;
        if commutes && self.constant(a, op.ty).is_some() {
            (a, b) = (b, a);
        }
        if let Some(value) = self.immediate(b, op.ty) {
            let source = self.gpr(a);
            let result = self.result_in(index, a);
            let lea = matches!(op.code, Code::Add | Code::Sub) && !wanted && value != i32::MIN;
            if lea && (result != source || self.flags_live()) {
                let disp = if op.code == Code::Add { value } else { -value };
                return self.c.asm.lea(size, result, Mem::at(source, disp));
            }
            self.clobber_flags();
            self.copy_gpr(op.ty, result, source);
            self.c.asm.alu_imm(size, alu, Rm::Reg(result), value);
            return self.flags_set(index, wanted);
        }
        let first = self.gpr(a);
        let second = self.operand(b, op.ty);
        let lea = op.code == Code::Add && !wanted;
        let result = self.result_in(index, a);
        if let (true, Rm::Reg(second)) = (lea && result != first, second) {
            let mem = Mem { base: Some(first), index: Some((second, 0)), disp: 0, gs: false };
            return self.c.asm.lea(size, result, mem);
        }
        self.clobber_flags();
        if Rm::Reg(result) == second && result != first {
            if commutes {
                self.c.asm.alu(size, alu, result, Rm::Reg(first));
            } else {
                let temporary = self.temporary();
                self.c.asm.mov(8, temporary, first);
                self.c.asm.alu(size, alu, temporary, second);
                self.c.asm.mov(self::size(op.ty), result, temporary);
            }
        } else {
            self.copy_gpr(op.ty, result, first);
            self.c.asm.alu(size, alu, result, second);
        }
        self.flags_set(index, wanted);
    }

    fn copy_gpr(&mut self, ty: Type, to: Gpr, from: Gpr) {
        if to != from {
            self.c.asm.mov(size(ty), to, from);
        }
    }

    fn and_not(&mut self, index: u32, op: &Op) {
        let (a, b) = (self.gpr(op.a), self.gpr(op.b));
        let result = self.result(index);
        self.clobber_flags();
        if self.t.features.bmi2 {
            return self.c.asm.andn(size(op.ty), result, b, a);
        }
        let temporary = self.temporary();
        self.c.asm.mov(8, temporary, b);
        self.c.asm.group3(8, 2, Rm::Reg(temporary));
        self.c.asm.alu(8, Alu::And, temporary, Rm::Reg(a));
        self.c.asm.mov(size(op.ty), result, temporary);
    }

    fn multiply(&mut self, index: u32, op: &Op) {
        if let Some(value) = self.immediate(op.b, op.ty) {
            let a = self.operand(op.a, op.ty);
            let result = self.result(index);
            self.clobber_flags();
            return self.c.asm.imul_imm(size(op.ty), result, a, value);
        }
        let (a, b) = (self.gpr(op.a), self.operand(op.b, op.ty));
        let result = self.result_in(index, op.a);
        self.clobber_flags();
        if Rm::Reg(result) == b && result != a {
            return self.c.asm.imul(size(op.ty), result, Rm::Reg(a));
        }
        self.copy_gpr(op.ty, result, a);
        self.c.asm.imul(size(op.ty), result, b);
    }

    /// Brings `values` into RAX and RDX (or others fixed) after claiming them, taking care of
    /// operands that are in these very registers. Gives where `other` is meanwhile.
    fn fixed(&mut self, rax: Value, rdx: Option<Value>, other: Option<Value>) -> Gpr {
        let (a, d) = (self.gpr(rax), rdx.map(|value| self.gpr(value)));
        // The third operand must be out of the way, in a register that nothing else disturbs.
        let other = other.map_or(NONE, |value| {
            let register = self.gpr(value);
            if register == reg::RAX || register == reg::RDX {
                let copy = self.temporary_except(&[reg::RAX, reg::RDX]);
                self.c.asm.mov(8, copy, register);
                copy
            } else {
                register
            }
        });
        let at_home = |job: &Self, register: Gpr| job.t.map.is_scratch(register);
        // Keep pinned contents, and values in scratch that are needed later.
        for fixed in [reg::RAX, reg::RDX] {
            if !at_home(self, fixed) {
                self.claim(fixed);
            }
        }
        match d {
            Some(d) if d == reg::RAX && a == reg::RDX => {
                self.save_scratch_owner(reg::RAX);
                self.save_scratch_owner(reg::RDX);
                self.c.asm.xchg(8, reg::RAX, Rm::Reg(reg::RDX));
            }
            Some(d) if d == reg::RAX => {
                self.save_scratch_owner(reg::RDX);
                self.c.asm.mov(8, reg::RDX, d);
                self.save_scratch_owner(reg::RAX);
                self.c.asm.mov(8, reg::RAX, a);
            }
            d => {
                self.save_scratch_owner(reg::RAX);
                if a != reg::RAX {
                    self.c.asm.mov(8, reg::RAX, a);
                }
                self.save_scratch_owner(reg::RDX);
                if let Some(d) = d.filter(|&d| d != reg::RDX) {
                    self.c.asm.mov(8, reg::RDX, d);
                }
            }
        }
        self.c.gprs.lock(reg::RAX);
        self.c.gprs.lock(reg::RDX);
        other
    }

    /// If a scratch register holds a value that lives on, the value is stored; the contents stay.
    fn save_scratch_owner(&mut self, register: Gpr) {
        if self.t.map.is_scratch(register) {
            self.vacate(register);
        }
    }

    fn temporary_except(&mut self, registers: &[Gpr]) -> Gpr {
        let mut register = self.temporary();
        while registers.contains(&register) {
            register = self.temporary();
        }
        register
    }

    /// Moves a result out of RAX or RDX and brings pinned registers back, before anything looks at
    /// what they held.
    fn deliver(&mut self, index: u32, from: Gpr, size: u8) {
        // The operands are done with.
        self.c.gprs.set_locks(1 << reg::RAX | 1 << reg::RDX);
        let out = self.stash(from);
        self.restore(reg::RAX);
        self.restore(reg::RDX);
        self.deliver_gpr(index, out, size);
    }

    fn multiply_high(&mut self, index: u32, op: &Op) {
        if size(op.ty) == 4 && op.ty != Type::I32 {
            return self.multiply_high_narrow(index, op);
        }
        let b = self.fixed(op.a, None, Some(op.b));
        self.clobber_flags();
        let signs = op.code == Code::MulHiSU;
        let size = size(op.ty);
        if signs {
            // signed a, unsigned b: high(a * b unsigned) - (a < 0 ? b : 0)
            let temporary = self.temporary_except(&[reg::RAX, reg::RDX]);
            self.c.asm.mov(8, temporary, reg::RAX);
            self.c.asm.shift_imm(size, Shift::Sar, temporary, size * 8 - 1);
            self.c.asm.alu(size, Alu::And, temporary, Rm::Reg(b));
            self.c.asm.group3(size, 4, Rm::Reg(b));
            self.c.asm.alu(size, Alu::Sub, reg::RDX, Rm::Reg(temporary));
        } else {
            let digit = if op.code == Code::MulHiU { 4 } else { 5 };
            self.c.asm.group3(size, digit, Rm::Reg(b));
        }
        self.deliver(index, reg::RDX, size);
    }

    fn multiply_high_narrow(&mut self, index: u32, op: &Op) {
        let bytes = op.ty.bytes() as u8;
        let a = self.gpr(op.a);
        let b = self.gpr(op.b);
        let (first, second) = (self.temporary(), self.temporary());
        let signed = op.code != Code::MulHiU;
        for (to, from, signed) in [(first, a, signed), (second, b, op.code == Code::MulHiS)] {
            if signed {
                self.c.asm.extend_signed(bytes, 4, to, Rm::Reg(from));
            } else {
                self.c.asm.extend(bytes, to, from);
            }
        }
        self.clobber_flags();
        self.c.asm.imul(4, first, Rm::Reg(second));
        self.c.asm.shift_imm(4, Shift::Shr, first, bytes * 8);
        let result = self.result(index);
        self.c.asm.mov(4, result, first);
    }

    /// Total division: by zero and overflow have defined results, so both are looked for first.
    fn divide(&mut self, index: u32, op: &Op) {
        let signed = matches!(op.code, Code::DivS | Code::RemS);
        let remainder = matches!(op.code, Code::RemS | Code::RemU);
        let narrow = op.ty.bytes() < 4;
        let size = size(op.ty);
        self.clobber_flags();
        let b = self.fixed(op.a, None, Some(op.b));
        let b = if narrow { self.widen_for_division(op, b, signed) } else { b };
        self.c.asm.test(size, b, b);
        let by_zero = self.c.asm.jcc(cc::E);
        let mut overflow = None;
        if signed {
            self.c.asm.alu_imm(size, Alu::Cmp, Rm::Reg(b), -1);
            overflow = Some(self.c.asm.jcc(cc::E));
            self.c.asm.sign_to_rdx(size);
            self.c.asm.group3(size, 7, Rm::Reg(b));
        } else {
            self.c.asm.alu(4, Alu::Xor, reg::RDX, Rm::Reg(reg::RDX));
            self.c.asm.group3(size, 6, Rm::Reg(b));
        }
        let done = self.c.asm.jmp_forward();
        self.c.asm.bind(by_zero);
        self.c.asm.mov(8, reg::RDX, reg::RAX); // remainder: the dividend
        self.c.asm.alu_imm(8, Alu::Or, Rm::Reg(reg::RAX), -1); // quotient: all ones
        if let Some(overflow) = overflow {
            let done = self.c.asm.jmp_forward();
            self.c.asm.bind(overflow);
            self.c.asm.group3(size, 3, Rm::Reg(reg::RAX)); // x / -1 = -x
            self.c.asm.alu(4, Alu::Xor, reg::RDX, Rm::Reg(reg::RDX));
            self.c.asm.bind(done);
        }
        self.c.asm.bind(done);
        self.deliver(index, if remainder { reg::RDX } else { reg::RAX }, size);
    }

    fn widen_for_division(&mut self, op: &Op, b: Gpr, signed: bool) -> Gpr {
        let bytes = op.ty.bytes() as u8;
        let wide = self.temporary_except(&[reg::RAX, reg::RDX]);
        for (to, from) in [(wide, b), (reg::RAX, reg::RAX)] {
            if signed {
                self.c.asm.extend_signed(bytes, 4, to, Rm::Reg(from));
            } else {
                self.c.asm.extend(bytes, to, from);
            }
        }
        wide
    }

    /// x86's own division: the host's, with its fault.
    fn divide_wide(&mut self, index: u32, op: &Op) {
        let signed = op.code == Code::DivWideS;
        let digit = if signed { 7 } else { 6 };
        let next = index + 1;
        let wants_remainder = self
            .ops
            .get(next as usize)
            .is_some_and(|op| matches!(op.code, Code::RemWideS | Code::RemWideU))
            && !self.c.values[next as usize].dead;
        self.clobber_flags();
        let by = self.fixed(op.a, Some(op.b), Some(op.c));
        let bytes = op.ty.bytes() as u8;
        if bytes == 1 {
            // The 8-bit form divides AX.
            self.c.asm.shift_imm(4, Shift::Shl, reg::RDX, 8);
            self.c.asm.extend(1, reg::RAX, reg::RAX);
            self.c.asm.alu(4, Alu::Or, reg::RAX, Rm::Reg(reg::RDX));
        }
        self.may_fault();
        // A fault must find pinned registers as they were.
        let (quotient, remainder) = self.guarded_division(bytes, digit, by);
        // The operands are not needed any more.
        self.c.gprs.set_locks(1 << quotient | 1 << remainder);
        let result = self.result(index);
        self.c.asm.mov(8, result, quotient);
        if wants_remainder {
            self.c.at = next;
            let result = self.result(next);
            self.c.asm.mov(8, result, remainder);
            self.c.at = index;
        }
    }

    /// Divides RDX:RAX and gives quotient and remainder in temporaries, pinned registers restored.
    ///
    /// When RAX or RDX are pinned they hold operands during the division; a fault there would
    /// show them to the guest, so the fault table marks the place and the fault handler's
    /// restoration is done in place: the kept copies are what the guest sees.
    fn guarded_division(&mut self, bytes: u8, digit: u8, by: Gpr) -> (Gpr, Gpr) {
        self.c.asm.group3(bytes, digit, Rm::Reg(by));
        if bytes == 1 {
            self.c.asm.mov(4, reg::RDX, reg::RAX);
            self.c.asm.shift_imm(4, Shift::Shr, reg::RDX, 8);
        }
        // The operands are not needed any more.
        self.c.gprs.set_locks(1 << reg::RAX | 1 << reg::RDX);
        let quotient = self.stash(reg::RAX);
        let remainder = self.stash(reg::RDX);
        self.restore(reg::RAX);
        self.restore(reg::RDX);
        (quotient, remainder)
    }

    /// A scratch register with the contents of a fixed one.
    fn stash(&mut self, register: Gpr) -> Gpr {
        if self.t.map.is_scratch(register) {
            return register;
        }
        let copy = self.temporary();
        self.c.asm.mov(8, copy, register);
        copy
    }

    fn shift(&mut self, index: u32, op: &Op) {
        let kind = match op.code {
            Code::Shl => Shift::Shl,
            Code::ShrU => Shift::Shr,
            _ => Shift::Sar,
        };
        let wanted = self.flags_wanted(index, op);
        let bytes = op.ty.bytes() as u8;
        let size = size(op.ty);
        let modulo = if size == 8 { 63 } else { 31 };
        if let Some(count) = self.constant(op.b, Type::I8) {
            let count = count as u8 & modulo;
            let source = self.gpr(op.a);
            let result = self.result_in(index, op.a);
            if kind == Shift::Shl && !wanted && (1..=3).contains(&count) && self.flags_live() {
                let index = Some((source, count));
                return self.c.asm.lea(size, result, Mem { base: None, index, disp: 0, gs: false });
            }
            self.clobber_flags();
            self.narrow_source(kind, bytes, result, source);
            let size = if wanted { bytes } else { size };
            self.c.asm.shift_imm(size, kind, result, count);
            return self.flags_set(index, wanted);
        }
        if self.t.features.bmi2 && !wanted {
            let (mut source, count) = (self.gpr(op.a), self.gpr(op.b));
            if bytes < 4 && kind != Shift::Shl {
                let wide = self.temporary();
                self.narrow_source(kind, bytes, wide, source);
                source = wide;
            }
            let result = self.result_in(index, op.a);
            return self.c.asm.shift_bmi(size, kind, result, source, count);
        }
        self.shift_by_cl(index, op, kind);
    }

    /// The source of a right shift of a narrow type must be extended.
    fn narrow_source(&mut self, kind: Shift, bytes: u8, to: Gpr, from: Gpr) {
        match kind {
            Shift::Shr if bytes < 4 => self.c.asm.extend(bytes, to, from),
            Shift::Sar if bytes < 4 => self.c.asm.extend_signed(bytes, 4, to, Rm::Reg(from)),
            _ if to != from => self.c.asm.mov(if bytes == 8 { 8 } else { 4 }, to, from),
            _ => {}
        }
    }

    /// A shift or rotation by a register without BMI2, or with flags.
    fn shift_by_cl(&mut self, index: u32, op: &Op, kind: Shift) {
        let bytes = op.ty.bytes() as u8;
        let work = self.in_register_but_rcx(op.a);
        let count = self.gpr(op.b);
        self.clobber_flags();
        if count != reg::RCX {
            self.claim(reg::RCX);
            self.c.asm.mov(4, reg::RCX, count);
        }
        let rotation = matches!(kind, Shift::Rol | Shift::Ror);
        if rotation {
            self.c.asm.shift_cl(bytes, kind, work);
        } else {
            self.narrow_source(kind, bytes, work, work);
            self.c.asm.shift_cl(size(op.ty), kind, work);
        }
        if count != reg::RCX {
            self.restore(reg::RCX);
        }
        self.deliver_gpr(index, work, size(op.ty));
    }

    /// A copy of a value in a temporary register other than RCX.
    pub fn in_register_but_rcx(&mut self, value: Value) -> Gpr {
        let source = self.gpr(value);
        let work = self.temporary_except(&[reg::RCX]);
        self.c.asm.mov(8, work, source);
        work
    }

    fn rotate(&mut self, index: u32, op: &Op) {
        let kind = if op.code == Code::RotL { Shift::Rol } else { Shift::Ror };
        let bytes = op.ty.bytes() as u8;
        if let Some(count) = self.constant(op.b, Type::I8) {
            let source = self.gpr(op.a);
            let result = self.result_in(index, op.a);
            self.clobber_flags();
            self.copy_gpr(op.ty, result, source);
            return self.c.asm.shift_imm(bytes, kind, result, count as u8 & (bytes * 8 - 1));
        }
        self.shift_by_cl(index, op, kind);
    }

    fn double_shift(&mut self, index: u32, op: &Op) {
        let opcode = if op.code == Code::ShlDouble { 0xa4 } else { 0xac };
        let bytes = op.ty.bytes() as u8;
        let work = self.in_register_but_rcx(op.a);
        let filler = self.gpr(op.b);
        if let Some(count) = self.constant(op.c, Type::I8) {
            self.clobber_flags();
            let count = count as u8 & if bytes == 8 { 63 } else { 31 };
            self.c.asm.double_shift_imm(bytes, opcode, work, filler, count);
        } else {
            let filler = match filler {
                reg::RCX => self.in_register_but_rcx(op.b),
                filler => filler,
            };
            let count = self.gpr(op.c);
            self.clobber_flags();
            if count != reg::RCX {
                self.claim(reg::RCX);
                self.c.asm.mov(4, reg::RCX, count);
            }
            self.c.asm.double_shift_cl(bytes, opcode + 1, work, filler);
            if count != reg::RCX {
                self.restore(reg::RCX);
            }
        }
        self.deliver_gpr(index, work, size(op.ty));
    }

    fn with_carry(&mut self, index: u32, op: &Op) {
        let alu = if op.code == Code::Adc { Alu::Adc } else { Alu::Sbb };
        let wanted = self.flags_wanted(index, op);
        let work = self.consumed(op.a);
        let b = self.operand(op.b, op.ty);
        self.carry_in(op.c);
        let bytes = if wanted { op.ty.bytes() as u8 } else { size(op.ty) };
        self.c.asm.alu(bytes, alu, work, b);
        self.flags_set(index, wanted);
        self.deliver_gpr(index, work, size(op.ty));
    }

    fn negate(&mut self, index: u32, op: &Op) {
        let source = self.gpr(op.a);
        let result = self.result_in(index, op.a);
        self.copy_gpr(op.ty, result, source);
        if op.code == Code::Neg {
            self.clobber_flags();
        }
        self.c.asm.group3(size(op.ty), if op.code == Code::Neg { 3 } else { 2 }, Rm::Reg(result));
    }

    fn count(&mut self, index: u32, op: &Op) {
        let bytes = op.ty.bytes() as u8;
        let source = self.gpr(op.a);
        self.clobber_flags();
        let wide = self.temporary();
        match op.code {
            Code::Ctz if bytes < 4 => {
                // A one above the width ends the count.
                self.c.asm.mov(4, wide, source);
                self.c.asm.alu_imm(4, Alu::Or, Rm::Reg(wide), 1 << (bytes * 8));
            }
            _ => self.c.asm.extend(bytes, wide, source),
        }
        let size = size(op.ty);
        let opcode = match op.code {
            Code::Clz => 0xbd,
            Code::Ctz => 0xbc,
            _ => 0xb8,
        };
        let result = self.result(index);
        if self.t.features.lzcnt && (self.t.features.bmi2 || op.code != Code::Ctz) {
            self.c.asm.count(size, opcode, result, wide);
        } else {
            self.count_slowly(op.code, size, result, wide);
        }
        if op.code == Code::Clz && bytes < 4 {
            self.c.asm.alu_imm(4, Alu::Sub, Rm::Reg(result), 32 - 8 * i32::from(bytes));
        }
    }

    /// Without LZCNT, TZCNT, POPCNT.
    fn count_slowly(&mut self, code: Code, size: u8, result: Gpr, wide: Gpr) {
        let asm = &mut self.c.asm;
        let bits = i32::from(size) * 8;
        if code == Code::Popcnt {
            // one bit per round: rare, only on hosts before 2008
            asm.mov_imm(result, 0);
            let test = asm.here();
            asm.test(8, wide, wide);
            let done = asm.jcc(cc::E);
            asm.alu_imm(4, Alu::Add, Rm::Reg(result), 1);
            asm.push(result);
            asm.lea(8, result, Mem::at(wide, -1));
            asm.alu(8, Alu::And, wide, Rm::Reg(result));
            asm.pop(result);
            asm.jmp(test);
            return asm.bind(done);
        }
        asm.test(size, wide, wide);
        let zero = asm.jcc(cc::E);
        let opcode: &[u8] = if code == Code::Clz { &[0x0f, 0xbd] } else { &[0x0f, 0xbc] };
        asm.bit_scan(size, opcode, result, wide);
        if code == Code::Clz {
            asm.alu_imm(4, Alu::Xor, Rm::Reg(result), bits - 1);
        }
        let done = asm.jmp_forward();
        asm.bind(zero);
        asm.mov_imm(result, bits as u64);
        asm.bind(done);
    }

    fn byte_swap(&mut self, index: u32, op: &Op) {
        let source = self.gpr(op.a);
        let result = self.result_in(index, op.a);
        self.copy_gpr(op.ty, result, source);
        match op.ty {
            Type::I16 => {
                self.clobber_flags();
                self.c.asm.shift_imm(2, Shift::Rol, result, 8);
            }
            Type::I8 => {}
            _ => self.c.asm.bswap(size(op.ty), result),
        }
    }

    /// Bytes are swapped, then nibbles, pairs and bits inside them.
    fn bit_reverse(&mut self, index: u32, op: &Op) {
        let size = size(op.ty);
        let (work, mask, other) = (self.consumed(op.a), self.temporary(), self.temporary());
        self.clobber_flags();
        let asm = &mut self.c.asm;
        asm.bswap(size, work);
        let patterns = [
            (4, 0x0f0f_0f0f_0f0f_0f0f),
            (2, 0x3333_3333_3333_3333),
            (1, 0x5555_5555_5555_5555_u64),
        ];
        for (shift, pattern) in patterns {
            asm.mov_imm(mask, pattern);
            asm.mov(8, other, work);
            asm.shift_imm(size, Shift::Shr, other, shift);
            asm.alu(8, Alu::And, other, Rm::Reg(mask));
            asm.alu(8, Alu::And, work, Rm::Reg(mask));
            asm.shift_imm(size, Shift::Shl, work, shift);
            asm.alu(size, Alu::Or, work, Rm::Reg(other));
        }
        let bytes = op.ty.bytes() as u8;
        if bytes < 4 {
            asm.shift_imm(4, Shift::Shr, work, 32 - bytes * 8);
        }
        self.deliver_gpr(index, work, size);
    }

    fn scatter(&mut self, index: u32, op: &Op) {
        let (a, mask) = (self.gpr(op.a), self.gpr(op.b));
        let result = self.result(index);
        assert!(self.t.features.bmi2, "front ends offer pext and pdep only on hosts with BMI2");
        let prefix = if op.code == Code::Pext { 0xf3 } else { 0xf2 };
        self.c.asm.bits_bmi(size(op.ty), prefix, result, a, mask);
    }

    fn extend(&mut self, index: u32, op: &Op) {
        let from = self.ty(op.a);
        let source = self.gpr(op.a);
        let result = self.result_in(index, op.a);
        let bytes = from.bytes() as u8;
        if op.code == Code::SExt {
            self.c.asm.extend_signed(bytes, op.ty.bytes() as u8, result, Rm::Reg(source));
        } else {
            self.c.asm.extend(bytes, result, source);
        }
    }

    fn extract(&mut self, index: u32, op: &Op) {
        let (low, bits) = ((op.aux & 0xff) as u8, (op.aux >> 8) as u8);
        let width = if op.ty == Type::I64 { 64 } else { 32 };
        let size = size(op.ty);
        let signed = op.code == Code::ExtractS;
        let source = self.gpr(op.a);
        let result = self.result_in(index, op.a);
        if low == 0 && matches!(bits, 8 | 16 | 32) {
            return match signed {
                true => self.c.asm.extend_signed(bits / 8, size, result, Rm::Reg(source)),
                false => self.c.asm.extend(bits / 8, result, source),
            };
        }
        self.clobber_flags();
        self.copy_gpr(op.ty, result, source);
        if !signed && low == 0 && bits < 32 {
            return self.c.asm.alu_imm(size, Alu::And, Rm::Reg(result), i32::MAX >> (31 - bits));
        }
        if low + bits < width {
            self.c.asm.shift_imm(size, Shift::Shl, result, width - low - bits);
        }
        let kind = if signed { Shift::Sar } else { Shift::Shr };
        if bits < width {
            self.c.asm.shift_imm(size, kind, result, width - bits);
        }
    }

    fn deposit(&mut self, index: u32, op: &Op) {
        let (low, bits) = ((op.aux & 0xff) as u8, (op.aux >> 8) as u8);
        let size = size(op.ty);
        let mask = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
        let work = self.consumed(op.a);
        let field = match self.canon(op.a) == self.canon(op.b) {
            true => self.beside(op.b, op.a, work),
            false => self.consumed(op.b),
        };
        let constant = self.temporary();
        self.clobber_flags();
        self.c.asm.mov_imm(constant, mask << low);
        if low > 0 {
            self.c.asm.shift_imm(size, Shift::Shl, field, low);
        }
        // work ^ ((work ^ field) & mask)
        self.c.asm.alu(8, Alu::Xor, field, Rm::Reg(work));
        self.c.asm.alu(8, Alu::And, field, Rm::Reg(constant));
        self.c.asm.alu(size, Alu::Xor, work, Rm::Reg(field));
        self.deliver_gpr(index, work, size);
    }

    fn sum_address(&mut self, index: u32, op: &Op) {
        let base = Some(self.gpr(op.a));
        let scaled = op.b.is_some().then(|| (self.gpr(op.b), op.aux as u8));
        let result = self.result(index);
        let mem = Mem { base, index: scaled, disp: op.displacement(), gs: false };
        self.c.asm.lea(size(op.ty), result, mem);
    }

    fn select(&mut self, index: u32, op: &Op) {
        if self.ty(op.b).is_vector() {
            return self.select_vector(index, op);
        }
        // Truth values that are still to be computed would disturb the flags later.
        for value in [op.b, op.c] {
            if self.ty(value) == Type::Bool {
                self.gpr(value);
            }
        }
        let condition = self.canon(op.a);
        let cc = self.condition_code(condition);
        // The condition is in the host's flags now; its operands need no registers any more.
        self.c.gprs.unlock();
        let (yes, no) = (self.gpr(op.b), self.gpr(op.c));
        let result = self.result_in(index, op.c);
        let bytes = size(op.ty);
        if result == yes && result != no {
            return self.c.asm.cmov(bytes, cc ^ 1, result, Rm::Reg(no));
        }
        self.copy_gpr(op.ty, result, no);
        self.c.asm.cmov(bytes, cc, result, Rm::Reg(yes));
    }

    fn crc32(&mut self, index: u32, op: &Op) {
        let bytes = op.ty.bytes() as u8;
        let work = self.consumed(op.a);
        let data = self.beside(op.b, op.a, work);
        self.clobber_flags();
        if op.aux == 0 {
            self.c.asm.mov(4, work, work);
            self.c.asm.crc32(bytes, work, data);
        } else {
            self.crc32_bitwise(bytes, work, data);
        }
        let result = self.result(index);
        self.copy_gpr(Type::I32, result, work);
    }

    /// A value in another register than that of `consumed`, which is about to change: it may be the
    /// same value.
    fn beside(&mut self, value: Value, consumed: Value, work: Gpr) -> Gpr {
        if self.canon(value) != self.canon(consumed) {
            return self.gpr(value);
        }
        let copy = self.temporary();
        self.c.asm.mov(8, copy, work);
        copy
    }

    /// The IEEE polynomial has no host instruction: one round per bit.
    fn crc32_bitwise(&mut self, bytes: u8, work: Gpr, data: Gpr) {
        let (rest, rounds) = (self.temporary(), self.temporary());
        let asm = &mut self.c.asm;
        asm.extend(bytes, rest, data);
        asm.mov(4, work, work);
        asm.alu(8, Alu::Xor, work, Rm::Reg(rest));
        asm.mov_imm(rounds, u64::from(bytes) * 8);
        let again = asm.here();
        asm.shift_imm(8, Shift::Shr, work, 1);
        let even = asm.jcc(cc::AE);
        asm.mov_imm(rest, 0xedb8_8320);
        asm.alu(8, Alu::Xor, work, Rm::Reg(rest));
        asm.bind(even);
        asm.alu_imm(4, Alu::Sub, Rm::Reg(rounds), 1);
        asm.jcc_to(cc::NE, again);
    }
}
