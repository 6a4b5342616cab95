//! Flags and conditions. The host's EFLAGS are one more place a value can be in.

use isa::ir::{CARRY, Cmp, Code, Cond, FlagKind, OVERFLOW, Op, Type, Value, ZERO};

use super::super::asm::{Alu, Gpr, Mem, Rm, Shift, cc, reg};
use super::super::map::NONE;
use super::super::vcpu_block::{self as block, CONSTANTS, constant};
use super::Job;
use super::registers::{Home, spill_mem};

/// The flags value that EFLAGS hold.
#[derive(Clone, Copy, Debug)]
pub struct HostFlags {
    value: u32,
    /// The host's carry is the opposite of the value's.
    inverted: bool,
}

/// Where a flags value's image is to be had.
#[derive(Clone, Copy, Debug)]
pub enum Image {
    /// In EFLAGS.
    Host {
        /// See `HostFlags`.
        inverted: bool,
    },
    /// In this register.
    Register(Gpr),
    /// In this spill slot.
    Spill(u8),
    /// In this state cell.
    State(u16),
}

impl Job<'_> {
    /// Somebody needs what EFLAGS hold.
    pub fn flags_live(&self) -> bool {
        self.c.eflags.is_some_and(|host| {
            self.c.values[host.value as usize].last >= self.c.at
                && self.c.values[host.value as usize].place == NONE
                && self.c.values[host.value as usize].home == Home::None
        })
    }

    /// EFLAGS are about to change: what is still needed is stored.
    pub fn clobber_flags(&mut self) {
        if self.flags_live() {
            self.right_carry();
            let host = self.c.eflags.expect("they are live");
            self.spill_flags(host.value);
        }
        self.c.eflags = None;
    }

    /// The host's carry becomes the value's.
    fn right_carry(&mut self) {
        if let Some(host) = &mut self.c.eflags
            && host.inverted
        {
            host.inverted = false;
            self.c.asm.cmc();
        }
    }

    /// Whether the next operation takes the flags of this one.
    pub fn flags_wanted(&self, index: u32, op: &Op) -> bool {
        let Some(next) = self.ops.get(index as usize + 1) else { return false };
        if next.code != Code::Flags || next.ty != op.ty || self.c.values[index as usize + 1].dead {
            return false;
        }
        let same =
            |x: Value, y: Value| x.is_some() && y.is_some() && self.canon(x) == self.canon(y);
        let operands = same(next.a, op.a) && same(next.b, op.b);
        let own = self.canon(next.a) == index && next.b.is_some() && self.canon(next.b) == index;
        match (op.code, FlagKind::from_aux(next.aux)) {
            (Code::Add, FlagKind::Add | FlagKind::AddCarry)
            | (Code::Sub, FlagKind::Sub | FlagKind::SubCarry) => operands,
            (Code::Adc, FlagKind::Adc | FlagKind::AdcCarry) | (Code::Sbb, FlagKind::Sbb) => {
                operands && same(next.c, op.c)
            }
            (Code::And, FlagKind::And) => operands || own,
            (Code::Or | Code::Xor, FlagKind::And) => own,
            (Code::Shl, FlagKind::Shl)
            | (Code::ShrU, FlagKind::ShrU)
            | (Code::ShrS, FlagKind::ShrS) => {
                let modulo = if op.ty == Type::I64 { 63 } else { 31 };
                operands && self.constant(op.b, Type::I8).is_some_and(|count| count & modulo != 0)
            }
            _ => false,
        }
    }

    /// EFLAGS hold the next operation's flags, if they were wanted.
    pub fn flags_set(&mut self, index: u32, wanted: bool) {
        if wanted {
            let kind = FlagKind::from_aux(self.ops[index as usize + 1].aux);
            let inverted = kind == FlagKind::SubCarry;
            self.c.eflags = Some(HostFlags { value: index + 1, inverted });
        }
    }

    /// Makes a flags value.
    pub fn flags(&mut self, index: u32, op: &Op) {
        if self.c.eflags.is_some_and(|host| host.value == index) {
            return;
        }
        let bytes = op.ty.bytes() as u8;
        let kind = FlagKind::from_aux(op.aux);
        match kind {
            FlagKind::Sub | FlagKind::SubCarry => self.compare(op.a, op.b, op.ty),
            FlagKind::And => {
                let (a, b) = (self.gpr(op.a), self.gpr(op.b));
                self.clobber_flags();
                self.c.asm.test(bytes, a, b);
            }
            FlagKind::Add | FlagKind::AddCarry => {
                let (work, b) = (self.copy_of(op.a), self.operand(op.b, op.ty));
                self.clobber_flags();
                self.c.asm.alu(bytes, Alu::Add, work, b);
            }
            FlagKind::Adc | FlagKind::AdcCarry | FlagKind::Sbb => {
                let (work, b) = (self.copy_of(op.a), self.operand(op.b, op.ty));
                self.carry_in(op.c);
                let alu = if kind == FlagKind::Sbb { Alu::Sbb } else { Alu::Adc };
                self.c.asm.alu(bytes, alu, work, b);
            }
            FlagKind::Inc | FlagKind::Dec => {
                let work = self.copy_of(op.a);
                self.carry_of(op.c);
                self.c.asm.group4(bytes, u8::from(kind == FlagKind::Dec), work);
            }
            FlagKind::MulU | FlagKind::MulS => self.product_flags(op, bytes, kind),
            // A count that is known and not zero: no old flags survive.
            FlagKind::Shl | FlagKind::ShrU | FlagKind::ShrS if !op.c.is_some() => {
                let count = self.ops[self.canon(op.b) as usize].immediate() as u8;
                let work = self.copy_of(op.a);
                self.clobber_flags();
                self.c.asm.shift_imm(bytes, shift_of(kind), work, count);
            }
            FlagKind::FpCompare | FlagKind::FpCompareSignal => {
                let (a, b) = (self.xmm(op.a), self.xmm(op.b));
                self.clobber_flags();
                self.compare_xmm(op.ty, kind == FlagKind::FpCompareSignal, a, b);
            }
            _ => return self.flags_by_image(index, op, kind),
        }
        self.c.eflags = Some(HostFlags { value: index, inverted: kind == FlagKind::SubCarry });
    }

    fn copy_of(&mut self, value: Value) -> Gpr {
        let copy = self.temporary();
        let index = self.canon(value);
        self.bring(index, copy);
        copy
    }

    fn product_flags(&mut self, op: &Op, bytes: u8, kind: FlagKind) {
        let (a, b) = (self.copy_of(op.a), self.copy_of(op.b));
        self.clobber_flags();
        if kind == FlagKind::MulS && bytes > 1 {
            return self.c.asm.imul(bytes, a, Rm::Reg(b));
        }
        // The one-operand forms; RAX and RDX come back with moves, which leave flags alone.
        let (keep_a, keep_d) = (self.kept(reg::RAX), self.kept(reg::RDX));
        self.c.asm.push(b);
        if a != reg::RAX {
            self.c.asm.mov(8, reg::RAX, a);
        }
        let digit = if kind == FlagKind::MulU { 4 } else { 5 };
        self.c.asm.group3(bytes, digit, Rm::Mem(Mem::at(reg::RSP, 0)));
        self.c.asm.lea(8, reg::RSP, Mem::at(reg::RSP, 8));
        self.c.asm.load(8, reg::RAX, keep_a);
        self.c.asm.load(8, reg::RDX, keep_d);
    }

    /// A register's contents are stored, to be loaded back right after.
    fn kept(&mut self, register: Gpr) -> Mem {
        let mem = Mem::gs(super::super::vcpu_block::GPR_SAVE + 8 * u32::from(register));
        self.c.asm.store(8, mem, register);
        mem
    }

    /// Kinds whose image is put together in a register.
    fn flags_by_image(&mut self, index: u32, op: &Op, kind: FlagKind) {
        let bytes = op.ty.bytes() as u8;
        let image = match kind {
            FlagKind::Image => {
                let image = self.temporary();
                let value = self.canon(op.a);
                self.bring(value, image);
                image
            }
            FlagKind::Shl | FlagKind::ShrU | FlagKind::ShrS => self.shift_flags(op, kind, !0),
            FlagKind::RotL | FlagKind::RotR => {
                self.shift_flags(op, kind, (CARRY | OVERFLOW) as i32)
            }
            FlagKind::Bit => {
                let old = self.image_copy(op.c);
                let a = self.gpr(op.a);
                let b = self.gpr(op.b);
                self.clobber_flags();
                self.c.asm.alu_imm(8, Alu::And, Rm::Reg(old), !(CARRY as i32));
                let size = bytes.max(2);
                self.c.asm.bt(size, a, b);
                self.c.asm.alu_imm(8, Alu::Adc, Rm::Reg(old), 0);
                old
            }
            FlagKind::Zero => {
                let old = self.image_copy(op.c);
                let a = self.gpr(op.a);
                self.clobber_flags();
                self.c.asm.alu_imm(8, Alu::And, Rm::Reg(old), !(ZERO as i32));
                self.or_if_zero(old, a, bytes, ZERO);
                old
            }
            FlagKind::Count => {
                let (a, b) = (self.gpr(op.a), self.gpr(op.b));
                let image = self.temporary();
                self.clobber_flags();
                self.c.asm.mov_imm(image, 0);
                self.or_if_zero(image, a, bytes, CARRY);
                self.or_if_zero(image, b, bytes, ZERO);
                image
            }
            FlagKind::FpCompareArm | FlagKind::FpCompareArmSignal => self.arm_compare(op, kind),
            kind => unreachable!("{kind:?} is made by an instruction"),
        };
        self.result_is(index, image);
    }

    /// `image |= bit` if the register is zero.
    fn or_if_zero(&mut self, image: Gpr, register: Gpr, bytes: u8, bit: u64) {
        self.c.asm.test(bytes, register, register);
        let not = self.c.asm.jcc(cc::NE);
        self.c.asm.alu_imm(8, Alu::Or, Rm::Reg(image), bit as i32);
        self.c.asm.bind(not);
    }

    /// The flags of a shift: the old ones if the count is zero, and always those outside `mask`.
    fn shift_flags(&mut self, op: &Op, kind: FlagKind, mask: i32) -> Gpr {
        let bytes = op.ty.bytes() as u8;
        let shift = shift_of(kind);
        let modulo = if bytes == 8 { 63 } else { 31 };
        let old = self.image_copy(op.c);
        let work = self.in_register_but_rcx(op.a);
        let count = self.gpr(op.b);
        self.clobber_flags();
        if count != reg::RCX {
            self.claim(reg::RCX);
            self.c.asm.mov(4, reg::RCX, count);
        }
        self.c.asm.test_imm(1, Rm::Reg(reg::RCX), modulo);
        let unchanged = self.c.asm.jcc(cc::E);
        self.c.asm.shift_cl(bytes, shift, work);
        self.c.asm.pushf();
        if mask == !0 {
            self.c.asm.pop(old);
        } else {
            self.c.asm.pop(work);
            self.c.asm.alu_imm(4, Alu::And, Rm::Reg(work), mask);
            self.c.asm.alu_imm(8, Alu::And, Rm::Reg(old), !mask);
            self.c.asm.alu(8, Alu::Or, old, Rm::Reg(work));
        }
        self.c.asm.bind(unchanged);
        if count != reg::RCX {
            self.restore(reg::RCX);
        }
        old
    }

    /// A copy of a flags value's image in a temporary that is not RCX.
    fn image_copy(&mut self, value: Value) -> Gpr {
        let locks = self.c.gprs.locks();
        let index = self.canon(value);
        self.materialise_flags(index);
        let source = self.gpr(value);
        let mut copy = self.temporary();
        if copy == reg::RCX {
            copy = self.temporary();
        }
        self.c.asm.mov(8, copy, source);
        // Only the copy is needed from here on.
        self.c.gprs.set_locks(locks | 1 << copy);
        copy
    }

    fn arm_compare(&mut self, op: &Op, kind: FlagKind) -> Gpr {
        let (a, b) = (self.xmm(op.a), self.xmm(op.b));
        let image = self.temporary();
        self.clobber_flags();
        let table = CONSTANTS + constant::ARM_COMPARE;
        self.c.asm.load(8, image, Mem::gs(table));
        self.compare_xmm(op.ty, kind == FlagKind::FpCompareArmSignal, a, b);
        for (slot, condition) in [(1, cc::E), (2, cc::B), (3, cc::P)] {
            // Unordered also sets equal and below; equal excludes below otherwise: the last wins.
            self.c.asm.cmov(8, condition, image, Rm::Mem(Mem::gs(table + 8 * slot)));
        }
        image
    }

    /// Where the host's carry is to be a `Bool` value.
    pub fn carry_in(&mut self, carry: Value) {
        let index = self.canon(carry);
        let op = self.ops[index as usize];
        if op.code == Code::Condition && op.aux == Cond::C as u16 && self.is_lazy(index) {
            return self.carry_of(op.a);
        }
        let register = self.gpr(carry);
        self.clobber_flags();
        self.c.asm.bt_imm(4, Rm::Reg(register), 0);
    }

    /// The host's carry becomes that of a flags value.
    fn carry_of(&mut self, flags: Value) {
        let index = self.canon(flags);
        if self.c.eflags.is_some_and(|host| host.value == index) {
            self.right_carry();
            return self.clobber_flags(); // stores them if needed, and leaves the carry
        }
        let register = self.gpr(flags);
        self.clobber_flags();
        self.c.asm.bt_imm(4, Rm::Reg(register), 0);
    }

    /// If the value is only in EFLAGS it gets an image.
    fn materialise_flags(&mut self, index: u32) {
        let here = self.c.eflags.is_some_and(|host| host.value == index);
        let elsewhere = self.c.values[index as usize].place != NONE
            || self.c.values[index as usize].home != Home::None;
        if here && !elsewhere {
            self.right_carry();
            self.spill_flags(index);
        }
    }

    /// Stores a flags value's image.
    pub fn flags_to_memory(&mut self, value: Value, mem: Mem) {
        let index = self.canon(value);
        if self.c.eflags.is_some_and(|host| host.value == index) {
            self.right_carry();
            return self.store_eflags(mem);
        }
        let register = self.gpr(value);
        self.c.asm.store(8, mem, register);
    }

    /// With RAX and another register free, or two to put RAX aside, there is a shorter way than
    /// `pushf`.
    fn store_eflags(&mut self, mem: Mem) {
        let is_free = |register: &Gpr| self.c.gprs.is_free(*register);
        let mut others = self.t.map.scratch.into_iter().filter(|&register| register != reg::RAX);
        let work = others.find(is_free);
        let aside = if is_free(&reg::RAX) { Some(reg::RAX) } else { others.find(is_free) };
        let (Some(work), Some(aside)) = (work, aside) else {
            self.c.asm.pushf();
            return self.c.asm.pop_mem(mem);
        };
        self.store_eflags_by(mem, work, aside);
    }

    /// `pushfq` takes many processors some ten cycles: this is shorter. It changes no flags either.
    /// What RAX holds is kept in `aside`, which may be RAX itself when it holds nothing.
    fn store_eflags_by(&mut self, mem: Mem, work: Gpr, aside: Gpr) {
        if aside != reg::RAX {
            self.c.asm.mov(8, aside, reg::RAX);
        }
        let overflow = Rm::Mem(Mem::gs(CONSTANTS + constant::OVERFLOW));
        self.c.asm.mov_imm(work, 0);
        self.c.asm.cmov(4, cc::O, work, overflow);
        self.c.asm.raw(&[0x9f]); // lahf
        self.c.asm.raw(&[0x0f, 0xb6, 0xc4]); // movzx eax, ah
        let both = Mem { base: Some(reg::RAX), index: Some((work, 0)), disp: 0, gs: false };
        self.c.asm.lea(4, work, both);
        self.c.asm.store(8, mem, work);
        if aside != reg::RAX {
            self.c.asm.mov(8, reg::RAX, aside);
        }
    }

    /// Where a flags value is, for code behind the block.
    pub fn flags_image(&mut self, value: Value) -> Image {
        let index = self.canon(value);
        if let Some(host) = self.c.eflags.filter(|host| host.value == index) {
            return Image::Host { inverted: host.inverted };
        }
        let register = self.c.values[index as usize].place;
        if register != NONE && self.c.gprs.is_scratch(register) {
            return Image::Register(register);
        }
        if register != NONE && self.c.values[index as usize].home == Home::None {
            // A borrowed register, which is given back before the jump.
            let slot = self.new_spill(index);
            self.c.asm.store(8, spill_mem(slot), register);
        }
        match self.c.values[index as usize].home {
            Home::Spill(slot) => Image::Spill(slot),
            Home::State(offset) => Image::State(offset),
            Home::None => unreachable!("a flags value is somewhere while it is wanted"),
        }
    }

    /// Behind the block, where no register holds a value: the flags cell gets what it was to get.
    pub fn store_flags_image(&mut self, image: Image) {
        let mem = Mem::gs(block::STATE + u32::from(self.flags_cell()));
        let mut scratch = self.t.map.scratch.into_iter().filter(|&register| register != reg::RAX);
        let mut scratch = || scratch.next().expect("most scratch registers are not RAX");
        let (work, other) = (scratch(), scratch());
        let source = match image {
            Image::Host { inverted } => {
                if inverted {
                    self.c.asm.cmc();
                }
                let aside = if self.t.map.is_scratch(reg::RAX) { reg::RAX } else { other };
                return self.store_eflags_by(mem, work, aside);
            }
            Image::Register(register) => return self.c.asm.store(8, mem, register),
            Image::Spill(slot) => spill_mem(slot),
            Image::State(offset) => Mem::gs(block::STATE + u32::from(offset)),
        };
        self.c.asm.load(8, work, source);
        self.c.asm.store(8, mem, work);
    }

    fn flags_cell(&self) -> u16 {
        let cell = self.t.relaxed.iter().find(|reg| reg.ty == Type::Flags);
        cell.expect("flags were put into a relaxed cell").offset
    }

    /// Brings a flags value's image into a register.
    pub fn flags_to_gpr(&mut self, value: Value, register: Gpr) {
        let index = self.canon(value);
        if self.c.eflags.is_some_and(|host| host.value == index) {
            self.right_carry();
            self.c.asm.pushf();
            return self.c.asm.pop(register);
        }
        self.bring(index, register);
    }

    /// `Compare`, `Condition`, `FlagsImage` as values.
    pub fn boolean(&mut self, index: u32, op: &Op) {
        if op.code == Code::FlagsImage {
            let flags = self.canon(op.a);
            self.materialise_flags(flags);
            let source = self.gpr(op.a);
            let result = self.result_in(index, op.a);
            if result != source {
                self.c.asm.mov(8, result, source);
            }
            return;
        }
        let condition = self.test(op);
        let result = self.result(index);
        self.c.asm.setcc(condition, result);
        self.c.asm.extend(1, result, result);
    }

    /// The host condition under which a truth value holds, now.
    pub fn condition_code(&mut self, index: u32) -> u8 {
        let computed = self.c.values[index as usize].place != NONE
            || self.c.values[index as usize].home != Home::None;
        let op = self.ops[index as usize];
        if !computed && matches!(op.code, Code::Compare | Code::Condition | Code::FCompare) {
            return self.test(&op);
        }
        let register = self.gpr(Value(index));
        self.clobber_flags();
        self.c.asm.test(1, register, register);
        cc::NE
    }

    fn test(&mut self, op: &Op) -> u8 {
        match op.code {
            Code::Compare => {
                self.compare(op.a, op.b, op.ty);
                host_condition(Cmp::from_aux(op.aux))
            }
            Code::Condition => self.test_flags(Cond::from_aux(op.aux), op.a),
            _ => self.test_float(op),
        }
    }

    /// `cmp a, b`.
    pub fn compare(&mut self, a: Value, b: Value, ty: Type) {
        let bytes = ty.bytes() as u8;
        if let Some(value) = self.immediate(b, ty) {
            let in_register = self.c.values[self.canon(a) as usize].place != NONE;
            if value == 0 && in_register {
                let a = self.gpr(a);
                self.clobber_flags();
                return self.c.asm.test(bytes, a, a);
            }
            let a = self.operand(a, ty);
            self.clobber_flags();
            return self.c.asm.alu_imm(bytes, Alu::Cmp, a, value);
        }
        let a = self.gpr(a);
        let b = self.operand(b, ty);
        self.clobber_flags();
        self.c.asm.alu(bytes, Alu::Cmp, a, b);
    }

    fn test_flags(&mut self, cond: Cond, flags: Value) -> u8 {
        let index = self.canon(flags);
        if let Some(host) = self.c.eflags.filter(|host| host.value == index) {
            if let Some(code) = direct(cond, host.inverted) {
                return code;
            }
            // The other way round there is one: cheaper than a look at an image in memory.
            self.c.asm.cmc();
            let inverted = !host.inverted;
            self.c.eflags = Some(HostFlags { value: index, inverted });
            if let Some(code) = direct(cond, inverted) {
                return code;
            }
            self.materialise_flags(index);
        }
        let image = self.gpr(flags);
        self.clobber_flags();
        self.test_image(cond, image)
    }

    /// Tests an image in a register.
    fn test_image(&mut self, cond: Cond, image: Gpr) -> u8 {
        use isa::ir::{PARITY, SIGN};
        let positive = Cond::from_aux(cond as u16 & !1);
        let negate = cond as u8 & 1;
        let bits = match positive {
            Cond::O => OVERFLOW,
            Cond::C => CARRY,
            Cond::Z => ZERO,
            Cond::Be => CARRY | ZERO,
            Cond::S => SIGN,
            Cond::P => PARITY,
            _ => 0,
        };
        if bits != 0 {
            self.c.asm.test_imm(4, Rm::Reg(image), bits as i32);
            return cc::NE ^ negate;
        }
        let work = self.temporary();
        if positive == Cond::Hi {
            self.c.asm.mov(4, work, image);
            self.c.asm.alu_imm(4, Alu::And, Rm::Reg(work), (CARRY | ZERO) as i32);
            self.c.asm.alu_imm(4, Alu::Cmp, Rm::Reg(work), CARRY as i32);
            return cc::E ^ negate;
        }
        // Bit 11 of work = sign != overflow; zero, at bit 6, joins it for Le.
        self.c.asm.mov(4, work, image);
        self.c.asm.shift_imm(4, Shift::Shl, work, 4);
        self.c.asm.alu(4, Alu::Xor, work, Rm::Reg(image));
        self.c.asm.alu_imm(4, Alu::And, Rm::Reg(work), OVERFLOW as i32);
        if positive == Cond::Le {
            let zero = self.temporary();
            self.c.asm.mov(4, zero, image);
            self.c.asm.alu_imm(4, Alu::And, Rm::Reg(zero), ZERO as i32);
            self.c.asm.alu(4, Alu::Or, work, Rm::Reg(zero));
        }
        cc::NE ^ negate
    }
}

/// The host condition on EFLAGS, if there is one.
fn direct(cond: Cond, inverted: bool) -> Option<u8> {
    let number = cond as u8;
    if !inverted {
        return (number < 16).then_some(number);
    }
    match cond {
        Cond::C => Some(cc::AE),
        Cond::Nc => Some(cc::B),
        Cond::Hi => Some(cc::A),
        Cond::Ls => Some(cc::BE),
        Cond::Be | Cond::A => None,
        _ => Some(number),
    }
}

fn host_condition(cmp: Cmp) -> u8 {
    match cmp {
        Cmp::Eq => cc::E,
        Cmp::Ne => cc::NE,
        Cmp::LtS => cc::L,
        Cmp::GeS => cc::GE,
        Cmp::LeS => cc::LE,
        Cmp::GtS => cc::G,
        Cmp::LtU => cc::B,
        Cmp::GeU => cc::AE,
        Cmp::LeU => cc::BE,
        Cmp::GtU => cc::A,
    }
}

/// The host's shift that makes these flags.
fn shift_of(kind: FlagKind) -> Shift {
    match kind {
        FlagKind::Shl => Shift::Shl,
        FlagKind::ShrU => Shift::Shr,
        FlagKind::ShrS => Shift::Sar,
        FlagKind::RotL => Shift::Rol,
        _ => Shift::Ror,
    }
}
