//! Where values are: registers, guest state, spill slots; and moving them.

use isa::ir::{Code, Op, Type, Value};

use super::super::asm::{Gpr, Mem, Rm, Xmm, reg};
use super::super::map::NONE;
use super::super::stubs::move_vector;
use super::super::vcpu_block as block;
use super::{Compiler, Job};

const NOBODY: u32 = u32::MAX;

/// How many values can be known to be equal to a pinned register at once.
const ALIASES: usize = 6;

/// Where a value can be had besides its register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Home {
    /// Nowhere.
    None,
    /// In guest state in memory, at this offset.
    State(u16),
    /// In this spill slot.
    Spill(u8),
}

/// The scratch and pinned registers of one class.
#[derive(Default)]
pub struct RegisterFile {
    scratch: u16,
    locked: u16,
    /// Registers with an owner, by bit.
    owned: u16,
    owner: [u32; 16],
    /// Registers with aliases, by bit.
    aliased: u16,
    aliases: [[u32; ALIASES]; 16],
}

impl RegisterFile {
    /// Everything free.
    pub fn reset(&mut self, scratch: u16) {
        (self.scratch, self.locked, self.owned, self.aliased) = (scratch, 0, 0, 0);
    }

    /// Whose value is in a scratch register.
    pub fn owner(&self, register: u8) -> Option<u32> {
        (self.owned & 1 << register != 0).then(|| self.owner[usize::from(register)])
    }

    /// This value is in a scratch register now.
    fn give(&mut self, register: u8, value: u32) {
        self.owned |= 1 << register;
        self.owner[usize::from(register)] = value;
    }

    /// No value is in a scratch register any more.
    pub fn free(&mut self, register: u8) {
        self.owned &= !(1 << register);
    }

    /// The values that are equal to a pinned register, and nobodies.
    fn aliases(&self, register: u8) -> [u32; ALIASES] {
        match self.aliased & 1 << register {
            0 => [NOBODY; ALIASES],
            _ => self.aliases[usize::from(register)],
        }
    }

    /// Whether a value is known to be what a pinned register holds.
    pub fn is_alias(&self, register: u8, value: u32) -> bool {
        self.aliases(register).contains(&value)
    }

    /// No value is known to be what a pinned register holds.
    pub fn forget_aliases(&mut self, register: u8) {
        self.aliased &= !(1 << register);
    }

    fn add_alias(&mut self, register: u8, slot: usize, value: u32) {
        if self.aliased & 1 << register == 0 {
            self.aliased |= 1 << register;
            self.aliases[usize::from(register)] = [NOBODY; ALIASES];
        }
        self.aliases[usize::from(register)][slot] = value;
    }

    /// Forgets which registers the operation at hand uses.
    pub fn unlock(&mut self) {
        self.locked = 0;
    }

    /// The operation at hand uses this register.
    pub fn lock(&mut self, register: u8) {
        self.locked |= 1 << register;
    }

    /// A scratch register that holds nothing and is not in use.
    pub fn is_free(&self, register: u8) -> bool {
        let bit = 1 << register;
        self.scratch & !self.locked & !self.owned & bit != 0
    }

    /// The registers the operation at hand uses.
    pub fn locks(&self) -> u16 {
        self.locked
    }

    /// See `locks`.
    pub fn set_locks(&mut self, locked: u16) {
        self.locked = locked;
    }

    pub fn is_scratch(&self, register: u8) -> bool {
        self.scratch & 1 << register != 0
    }
}

impl Job<'_> {
    pub fn file(&mut self, vector: bool) -> &mut RegisterFile {
        if vector { &mut self.c.xmms } else { &mut self.c.gprs }
    }

    pub fn is_vector(&self, value: u32) -> bool {
        self.ty(Value(value)).is_vector()
    }

    /// Needed after the operation at hand.
    pub fn lives_on(&self, value: u32) -> bool {
        self.c.values[value as usize].last > self.c.at
    }

    /// A free scratch register, locked. Makes room if there is none.
    pub fn allocate(&mut self, vector: bool) -> u8 {
        let at = self.c.at;
        let file = if vector { &self.c.xmms } else { &self.c.gprs };
        let candidates = file.scratch & !file.locked;
        if candidates == 0 {
            return if vector { self.borrow_xmm() } else { self.borrow() };
        }
        let free = candidates & !file.owned;
        let register = if free != 0 {
            free.trailing_zeros() as u8
        } else {
            // The one needed last is the cheapest to lose.
            let farthest = (0..16u8).filter(|r| candidates & 1 << r != 0).max_by_key(|r| {
                let owner = file.owner[*r as usize];
                let dead = self.c.values[owner as usize].last <= at;
                let cheap = self.c.values[owner as usize].home != Home::None;
                (dead, cheap, self.c.values[owner as usize].last)
            });
            farthest.expect("no operation needs all scratch registers")
        };
        self.evict(vector, register);
        self.file(vector).lock(register);
        register
    }

    /// All scratch registers are in use by the operation at hand: it works with a pinned one that
    /// has nothing to do with it, and gives it back at its end. Faults meanwhile find the kept
    /// contents through `Compiler::borrows`.
    fn borrow(&mut self) -> Gpr {
        let mut taken = self.c.gprs.locked | self.c.borrowed | self.concerned(false);
        taken |= 1 << reg::RAX | 1 << reg::RCX | 1 << reg::RDX;
        let pinned = self.t.map.gprs.iter().map(|&(_, host)| host);
        let register = pinned.rev().find(|host| taken & 1 << host == 0);
        let register = register.expect("an operation has few operands");
        self.c.asm.store(8, saved(register), register);
        // One that is borrowed already has a range of its own: this one's contents are not kept in it.
        let now = self.c.asm.len() as u32;
        if self.c.borrowed != 0 {
            self.c.borrows.push((self.c.borrowed_since, now, self.c.borrowed));
        }
        self.c.borrowed_since = now;
        self.c.borrowed |= 1 << register;
        self.c.gprs.lock(register);
        register
    }

    /// `borrow` for vector registers, whose contents wait in a spill slot. No operation on memory
    /// needs as many, so no fault has to find them there.
    fn borrow_xmm(&mut self) -> Xmm {
        let lent = self.c.borrowed_xmms.iter().fold(0, |mask, (register, _)| mask | 1 << register);
        let taken = self.c.xmms.locked | self.c.xmms.scratch | lent | self.concerned(true);
        let register = (0..16u8).rev().find(|register| taken & 1 << register == 0);
        let register = register.expect("an operation has few operands");
        let slot = self.spill_slot();
        assert!(slot < block::SPILL_SLOTS, "a block has at most as many live values as slots");
        self.c.spills |= 1 << slot;
        self.keep_xmm(register, slot as u8, true);
        self.c.borrowed_xmms.push((register, slot as u8));
        self.c.xmms.lock(register);
        register
    }

    /// All of a vector register, to or from a spill slot.
    fn keep_xmm(&mut self, register: Xmm, slot: u8, store: bool) {
        let ty = self.widest();
        move_vector(&mut self.c.asm, self.t.features, ty, register, spill_mem(slot), store);
    }

    /// The registers of a class that the operation at hand and the next one have to do with.
    fn concerned(&self, vector: bool) -> u16 {
        let at = self.c.at as usize;
        let mut registers = 0;
        for index in at..(at + 2).min(self.ops.len()) {
            let op = self.ops[index];
            let hint = self.c.values[index].hint;
            if hint != NONE && self.is_vector(index as u32) == vector {
                registers |= 1 << hint;
            }
            if matches!(op.code, Code::Put | Code::Get) {
                let register = match vector {
                    false => self.t.map.gpr(op.a.0),
                    true => self.t.map.xmm(op.a.0).map(|(register, _)| register),
                };
                registers |= register.map_or(0, |register| 1 << register);
            }
            for operand in op.operands() {
                registers |= self.registers_under(operand, vector);
            }
        }
        registers
    }

    /// The registers of a class that a value is in, or is to be computed from.
    fn registers_under(&self, value: Value, vector: bool) -> u16 {
        let index = self.canon(value);
        let place = self.c.values[index as usize].place;
        let own = if place != NONE && self.is_vector(index) == vector { 1 << place } else { 0 };
        match self.is_lazy(index) {
            true => self.ops[index as usize]
                .operands()
                .fold(own, |registers, operand| registers | self.registers_under(operand, vector)),
            false => own,
        }
    }

    /// Borrowed registers get their contents back. Leaves the flags alone.
    pub fn give_back(&mut self) {
        while let Some((register, slot)) = self.c.borrowed_xmms.pop() {
            self.leave(true, register);
            self.keep_xmm(register, slot, false);
            self.c.spills &= !(1 << slot);
        }
        if self.c.borrowed == 0 {
            return;
        }
        let mask = std::mem::take(&mut self.c.borrowed);
        for register in (0..16u8).filter(|register| mask & 1 << register != 0) {
            self.leave(false, register);
            self.c.asm.load(8, register, saved(register));
        }
        let range = (self.c.borrowed_since, self.c.asm.len() as u32, mask);
        self.c.borrows.push(range);
    }

    /// Whether the operation at hand leaves a scratch register for others.
    fn has_room(&self, vector: bool) -> bool {
        let file = if vector { &self.c.xmms } else { &self.c.gprs };
        file.scratch & !file.locked != 0
    }

    /// A scratch register for the operation at hand only.
    pub fn temporary(&mut self) -> Gpr {
        self.allocate(false)
    }

    /// A scratch vector register for the operation at hand only.
    pub fn temporary_xmm(&mut self) -> Xmm {
        self.allocate(true)
    }

    /// Nobody's value is in this scratch register any more.
    fn evict(&mut self, vector: bool, register: u8) {
        let Some(owner) = self.file(vector).owner(register) else { return };
        self.file(vector).free(register);
        if self.c.values[owner as usize].last >= self.c.at {
            self.save(owner, register);
        }
        self.c.values[owner as usize].place = NONE;
    }

    /// Makes sure that the value can be had elsewhere than in its register.
    fn save(&mut self, value: u32, register: u8) {
        if self.c.values[value as usize].home != Home::None {
            return;
        }
        let mem = spill_mem(self.new_spill(value));
        if self.is_vector(value) {
            let ty = self.ty(Value(value));
            move_vector(&mut self.c.asm, self.t.features, ty, register, mem, true);
        } else {
            self.c.asm.store(8, mem, register);
        }
    }

    fn spill_slot(&mut self) -> u32 {
        if self.c.spills == u64::MAX {
            // Values that died in memory still have their slots.
            for value in 0..self.c.values.len() {
                if let Home::Spill(slot) = self.c.values[value].home
                    && self.c.values[value].last < self.c.at
                {
                    self.c.values[value].home = Home::None;
                    self.c.spills &= !(1 << slot);
                }
            }
        }
        (!self.c.spills).trailing_zeros()
    }

    /// A slot that is the value's home.
    pub fn new_spill(&mut self, value: u32) -> u8 {
        let slot = self.spill_slot();
        assert!(slot < block::SPILL_SLOTS, "a block has at most as many live values as slots");
        self.c.spills |= 1 << slot;
        self.c.values[value as usize].home = Home::Spill(slot as u8);
        slot as u8
    }

    /// The host's flags go to a spill slot as the image of a flags value.
    pub fn spill_flags(&mut self, value: u32) {
        let slot = self.new_spill(value);
        self.c.asm.pushf();
        self.c.asm.pop_mem(spill_mem(slot));
    }

    /// All live values leave the scratch registers.
    fn spill_all(&mut self) {
        for vector in [false, true] {
            for register in 0..16u8 {
                self.leave(vector, register);
            }
        }
    }

    /// No value depends on a pinned vector register.
    pub fn detach_vector(&mut self, register: Xmm) {
        self.detach(true, register);
    }

    /// All live values leave the vector registers for temporaries.
    pub fn spill_vectors(&mut self) {
        for register in 0..16u8 {
            self.leave(true, register);
        }
    }

    /// The value in this register leaves it at the end of the operation at hand.
    fn leave(&mut self, vector: bool, register: u8) {
        let Some(owner) = self.file(vector).owner(register) else { return };
        self.file(vector).free(register);
        if self.lives_on(owner) {
            self.save(owner, register);
        }
        self.c.values[owner as usize].place = NONE;
    }

    /// No value is in a register or a cell any more: a helper is about to change them all. The
    /// operation at hand needs no register of its own, so that none has to be borrowed: what is
    /// in pinned ones is what the helper gets to see.
    pub fn leave_all(&mut self) {
        for vector in [false, true] {
            for register in 0..16u8 {
                for alias in self.file(vector).aliases(register) {
                    if alias != NOBODY && self.c.values[alias as usize].place == register {
                        if self.lives_on(alias) {
                            self.save(alias, register);
                        }
                        self.c.values[alias as usize].place = NONE;
                    }
                }
                self.file(vector).forget_aliases(register);
            }
        }
        self.leave_cells();
        self.spill_all();
        self.c.gprs.unlock();
        self.c.xmms.unlock();
    }

    /// Values that could be had from state only find a home of their own.
    pub fn leave_cells(&mut self) {
        for value in std::mem::take(&mut self.c.cells) {
            self.c.gprs.unlock();
            self.c.xmms.unlock();
            self.detach_cell(value);
        }
    }

    /// The pinned register is about to change: values that live on move out.
    pub fn detach(&mut self, vector: bool, register: u8) {
        let file = if vector { &mut self.c.xmms } else { &mut self.c.gprs };
        if file.aliased & 1 << register == 0 {
            return;
        }
        let aliases = file.aliases(register);
        file.forget_aliases(register);
        for alias in aliases {
            let here = alias != NOBODY && self.c.values[alias as usize].place == register;
            if !here || !self.lives_on(alias) {
                continue;
            }
            if self.has_room(vector) {
                let copy = self.allocate(vector);
                self.copy(vector, copy, register);
                self.own(alias, copy);
            } else {
                self.save(alias, register);
                self.c.values[alias as usize].place = NONE;
            }
        }
    }

    fn copy(&mut self, vector: bool, to: u8, from: u8) {
        if to == from {
            return;
        }
        if vector {
            self.move_xmm(to, from);
        } else {
            self.c.asm.mov(8, to, from);
        }
    }

    /// The value is in this scratch register now.
    pub fn own(&mut self, value: u32, register: u8) {
        let vector = self.is_vector(value);
        self.file(vector).give(register, value);
        self.c.values[value as usize].place = register;
    }

    /// The value is in this scratch vector register now.
    pub fn own_xmm(&mut self, value: u32, register: Xmm) {
        self.own(value, register);
    }

    /// The value is what the pinned register holds.
    pub fn alias(&mut self, value: u32, register: u8) {
        let vector = self.is_vector(value);
        let at = self.c.at;
        let values = &self.c.values;
        let list = if vector { &self.c.xmms } else { &self.c.gprs }.aliases(register);
        let dead = |&other: &u32| other == NOBODY || values[other as usize].last <= at;
        if let Some(slot) = list.iter().position(dead) {
            self.file(vector).add_alias(register, slot, value);
            self.c.values[value as usize].place = register;
        } else {
            let copy = self.allocate(vector);
            self.copy(vector, copy, register);
            self.own(value, copy);
        }
    }

    /// After an operation: registers and slots of dead values are free.
    pub fn release(&mut self) {
        self.give_back();
        let at = self.c.at;
        let Compiler { gprs, xmms, values, spills, .. } = &mut *self.c;
        for file in [gprs, xmms] {
            let mut busy = file.owned;
            while busy != 0 {
                let register = busy.trailing_zeros() as u8;
                busy &= busy - 1;
                let value = &mut values[file.owner[usize::from(register)] as usize];
                if value.last <= at {
                    file.free(register);
                    value.place = NONE;
                    if let Home::Spill(slot) = value.home {
                        *spills &= !(1 << slot);
                        value.home = Home::None;
                    }
                }
            }
        }
    }

    /// The result's register: where it is going to be put, or a scratch one.
    pub fn result(&mut self, index: u32) -> u8 {
        let vector = self.is_vector(index);
        let hint = self.c.values[index as usize].hint;
        if hint != NONE {
            self.detach(vector, hint);
            self.alias(index, hint);
            self.file(vector).lock(hint);
            return hint;
        }
        let register = self.allocate(vector);
        self.own(index, register);
        register
    }

    /// The same, preferring the register of an operand that dies here.
    pub fn result_in(&mut self, index: u32, operand: Value) -> u8 {
        let operand = self.canon(operand);
        let vector = self.is_vector(index);
        let register = self.c.values[operand as usize].place;
        let reusable = self.c.values[index as usize].hint == NONE
            && register != NONE
            && !self.lives_on(operand)
            && self.is_vector(operand) == vector
            && self.file(vector).is_scratch(register)
            && self.file(vector).owner(register) == Some(operand);
        if !reusable {
            return self.result(index);
        }
        self.c.values[operand as usize].place = NONE;
        self.own(index, register);
        register
    }

    /// The result is in this temporary: it stays there, or goes where it is going to be put.
    pub fn deliver_gpr(&mut self, index: u32, from: Gpr, size: u8) {
        if self.c.values[index as usize].hint == NONE && self.c.gprs.is_scratch(from) {
            if size < 8 && self.needs_clean(index) {
                self.c.asm.mov(size, from, from);
            }
            return self.result_is(index, from);
        }
        let result = self.result(index);
        if result != from || size < 8 {
            self.c.asm.mov(size, result, from);
        }
    }

    /// Whether users of a 32-bit value rely on its upper half being zero.
    fn needs_clean(&self, index: u32) -> bool {
        super::is_clean(&self.ops[index as usize])
    }

    /// The result is in this scratch register already.
    pub fn result_is(&mut self, index: u32, register: u8) {
        let vector = self.is_vector(index);
        self.evict_quietly(vector, register);
        self.own(index, register);
    }

    fn evict_quietly(&mut self, vector: bool, register: u8) {
        if let Some(owner) = self.file(vector).owner(register) {
            self.c.values[owner as usize].place = NONE;
        }
    }

    /// A value in a general register, locked.
    pub fn gpr(&mut self, value: Value) -> Gpr {
        let value = self.canon(value);
        let register = self.c.values[value as usize].place;
        if register != NONE && !self.is_vector(value) {
            self.c.gprs.lock(register);
            return register;
        }
        let register = self.allocate(false);
        self.bring(value, register);
        self.own(value, register);
        register
    }

    /// Puts a value into a register that is free, without saying that it is there now.
    pub fn bring(&mut self, value: u32, register: Gpr) {
        let place = self.c.values[value as usize].place;
        let op = self.ops[value as usize];
        // What a lazy value is made of is not needed any more once it is made.
        let locks = self.c.gprs.locks();
        if place != NONE {
            if place != register {
                self.c.asm.mov(8, register, place);
            }
            return;
        }
        match self.c.values[value as usize].home {
            Home::State(offset) => {
                let mem = Mem::gs(block::STATE + u32::from(offset));
                let size = self.ty(Value(value)).bytes() as u8;
                self.c.asm.load(size, register, mem);
            }
            Home::Spill(slot) => self.c.asm.load(8, register, spill_mem(slot)),
            Home::None => match op.code {
                Code::Const => self.c.asm.mov_imm(register, op.immediate()),
                Code::Add | Code::Lea => {
                    // A pinned register may itself be an operand: the parts go elsewhere.
                    let pinned = !self.c.gprs.is_scratch(register);
                    let parts = |job: &Self, part: Value| {
                        part.is_some() && job.c.values[job.canon(part) as usize].place == NONE
                    };
                    let incomplete = parts(self, op.a)
                        || op.code == Code::Lea && op.b.is_some() && parts(self, op.b);
                    let mem = if pinned && incomplete {
                        let work = self.temporary();
                        self.address_in(value, work)
                    } else {
                        self.address_in(value, register)
                    };
                    self.c.asm.lea(8, register, mem);
                }
                Code::Compare | Code::Condition | Code::FCompare => {
                    let cc = self.condition_code(value);
                    self.c.asm.setcc(cc, register);
                    self.c.asm.extend(1, register, register);
                }
                code => unreachable!("{code:?} was not computed before its use"),
            },
        }
        self.c.gprs.set_locks(locks);
    }

    /// A value of a general register as operand: register, or memory of the vCPU block.
    pub fn operand(&mut self, value: Value, ty: Type) -> Rm {
        let index = self.canon(value);
        if self.c.values[index as usize].place == NONE {
            let whole = self.ty(Value(index)).bytes() >= ty.bytes();
            match self.c.values[index as usize].home {
                Home::State(offset) if whole => {
                    return Rm::Mem(Mem::gs(block::STATE + u32::from(offset)));
                }
                Home::Spill(slot) => return Rm::Mem(spill_mem(slot)),
                _ => {}
            }
        }
        Rm::Reg(self.gpr(value))
    }

    /// A value in a register of its own that the operation may change: a copy unless it dies.
    pub fn consumed(&mut self, value: Value) -> Gpr {
        let index = self.canon(value);
        let register = self.c.values[index as usize].place;
        let own = register != NONE
            && !self.is_vector(index)
            && self.c.gprs.is_scratch(register)
            && !self.lives_on(index);
        if own {
            self.c.gprs.lock(register);
            return register;
        }
        let copy = self.allocate(false);
        self.bring(index, copy);
        copy
    }

    /// The memory operand for `value + displacement`, folding what was not computed yet.
    pub fn address(&mut self, value: Value, displacement: i32) -> Mem {
        let index = self.canon(value);
        let computed = self.c.values[index as usize].place != NONE
            || self.c.values[index as usize].home != Home::None;
        if !computed && self.is_lazy(index) {
            let op = self.ops[index as usize];
            if op.code == Code::Const {
                let address = op.immediate().wrapping_add_signed(displacement.into());
                if let Ok(disp) = i32::try_from(address as i64) {
                    return Mem { base: None, index: None, disp, gs: false };
                }
            } else if let Some(disp) = self.lazy_displacement(&op).checked_add(displacement) {
                let mem = self.address_of(index);
                return Mem { disp, ..mem };
            }
        }
        Mem::at(self.gpr(value), displacement)
    }

    fn lazy_displacement(&self, op: &Op) -> i32 {
        match op.code {
            Code::Add => self.immediate(op.b, Type::I64).expect("only such sums are lazy"),
            _ => op.displacement(),
        }
    }

    /// The memory operand of a lazy sum or `Lea` whose own register is at hand: one operand that
    /// is in no register yet goes there, so that a chain of lazy values needs one register.
    fn address_in(&mut self, index: u32, register: Gpr) -> Mem {
        let op = self.ops[index as usize];
        let disp = self.lazy_displacement(&op);
        let a = self.canon(op.a);
        let a_is_placed = self.c.values[a as usize].place != NONE;
        let base = if a_is_placed {
            self.gpr(op.a)
        } else {
            self.bring(a, register);
            register
        };
        let has_index = op.code == Code::Lea && op.b.is_some();
        let index = has_index.then(|| {
            let b = self.canon(op.b);
            if a_is_placed && self.c.values[b as usize].place == NONE {
                self.bring(b, register);
                register
            } else {
                self.gpr(op.b)
            }
        });
        let index = index.map(|index| (index, op.aux as u8));
        Mem { base: Some(base), index, disp, gs: false }
    }

    /// The memory operand of a lazy sum or `Lea`.
    fn address_of(&mut self, index: u32) -> Mem {
        let op = self.ops[index as usize];
        let disp = self.lazy_displacement(&op);
        let base = Some(self.gpr(op.a));
        let index = match op.code {
            Code::Lea if op.b.is_some() => Some((self.gpr(op.b), op.aux as u8)),
            _ => None,
        };
        Mem { base, index, disp, gs: false }
    }

    /// Makes a fixed register free for the operation at hand and locks it. If it is pinned its
    /// contents are kept in the block; `restore` brings them back.
    pub fn claim(&mut self, register: Gpr) {
        if self.c.gprs.is_scratch(register) {
            self.evict(false, register);
        } else {
            self.c.asm.store(8, saved(register), register);
        }
        self.c.gprs.lock(register);
    }

    /// A scratch register's value is stored elsewhere if it lives on; the contents stay.
    pub fn vacate(&mut self, register: Gpr) {
        let Some(owner) = self.c.gprs.owner(register) else { return };
        if self.lives_on(owner) {
            self.evict(false, register);
        } else {
            self.c.gprs.free(register);
            self.c.values[owner as usize].place = NONE;
        }
    }

    /// See `claim`.
    pub fn restore(&mut self, register: Gpr) {
        if !self.c.gprs.is_scratch(register) {
            self.c.asm.load(8, register, saved(register));
        }
    }
}

pub fn spill_mem(slot: u8) -> Mem {
    Mem::gs(block::SPILL + block::SPILL_BYTES * u32::from(slot))
}

/// Where `claim` keeps a pinned register.
fn saved(register: Gpr) -> Mem {
    Mem::gs(block::GPR_SAVE + 8 * u32::from(register))
}
