//! Memory operations: identity or soft TLB.

use isa::ir::{AtomicOp, Code, Mem as Access, Op, Type, Value};

use super::super::asm::{Alu, Gpr, Label, Mem, Rm, Shift, cc, reg};
use super::super::map::NONE;
use super::super::stubs::move_vector;
use super::super::vcpu_block as block;
use super::registers::{Home, spill_mem};
use super::{Cold, Job, Mmu};

/// Among the registers that code has borrowed, RSP's bit: a load here is part of an atomic
/// operation, and its fault is that of a store.
pub const COUNTS_AS_STORE: u16 = 1 << reg::RSP;

/// What a slow access does, as a number in `OPERATION`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlowAccess(pub u32);

impl SlowAccess {
    const WRITE: u32 = 1 << 16;
    const REFILL: u32 = 1 << 17;
    const CAS: u32 = 1 << 18;

    fn new(access: Access, view: u16) -> Self {
        Self(u32::from(access.0) | u32::from(view) << 24)
    }

    /// Bytes accessed.
    pub fn bytes(self) -> u32 {
        Access(self.0 as u16).bytes()
    }

    /// Must the address be aligned?
    pub fn aligned(self) -> bool {
        Access(self.0 as u16).is_aligned()
    }

    /// A store; the value is in `RESULT`.
    pub fn is_write(self) -> bool {
        self.0 & Self::WRITE != 0
    }

    /// Only fill the TLB: the access is tried again.
    pub fn is_refill(self) -> bool {
        self.0 & Self::REFILL != 0
    }

    /// Compare (`RESULT`) and swap (`RESULT2`); the old contents go to `RESULT`.
    pub fn is_cas(self) -> bool {
        self.0 & Self::CAS != 0
    }

    /// The MMU view.
    pub fn view(self) -> u16 {
        (self.0 >> 24) as u16
    }
}

/// A slow access behind the block.
#[derive(Clone, Copy, Debug)]
pub struct Slow {
    from: Label,
    /// Where the block goes on.
    back: u64,
    address: Gpr,
    displacement: i32,
    access: SlowAccess,
    /// The register of the loaded or stored value.
    value: u8,
    ty: Type,
    /// For constants stored.
    immediate: Option<i32>,
    /// Pinned registers that are borrowed meanwhile.
    borrowed: u16,
}

/// The registers of a TLB check: the guest address, and two temporaries.
#[derive(Clone, Copy)]
struct Lookup {
    guest: Gpr,
    slot: Gpr,
    page: Gpr,
}

impl Job<'_> {
    pub fn memory(&mut self, index: u32, op: &Op) {
        match op.code {
            Code::Load => self.load(index, op),
            Code::Store => self.store(op),
            Code::Atomic => self.atomic(index, op),
            Code::Cas => self.compare_and_swap(index, op),
            Code::StoreConditional => self.store_conditional(index, op),
            Code::Fence => {
                self.clobber_flags();
                self.c.asm.full_fence();
            }
            _ => self.zero_block(op),
        }
    }

    fn view(&self, access: Access) -> u16 {
        match (self.t.mmu, access.mmu_index()) {
            (Mmu::Soft { view }, 0) => view,
            (_, index) => index,
        }
    }

    /// A host memory operand for a guest address. In system mode a TLB check is emitted; the label
    /// is where it goes on a miss, and the register is the one with the guest address.
    fn translate(
        &mut self,
        address: Value,
        disp: i32,
        access: Access,
        write: bool,
    ) -> (Mem, Option<(Label, Gpr)>) {
        if self.t.mmu == Mmu::Identity {
            let mem = self.address(address, disp);
            self.check_alignment(access, mem);
            self.may_fault();
            return (mem, None);
        }
        let lookup = self.lookup(address, disp);
        let (mem, miss) = self.check(lookup, access, write);
        (mem, Some((miss, lookup.guest)))
    }

    /// The registers of a TLB check. Whatever makes room for values must be emitted before the
    /// check: a miss leaves it, and comes back behind the access.
    fn lookup(&mut self, address: Value, disp: i32) -> Lookup {
        let guest = self.whole_address(address, disp);
        self.clobber_flags();
        Lookup { guest, slot: self.temporary(), page: self.temporary() }
    }

    /// The check: the host memory operand, and the label that a miss jumps to.
    fn check(&mut self, lookup: Lookup, access: Access, write: bool) -> (Mem, Label) {
        let Lookup { guest, slot, page } = lookup;
        let view = u32::from(self.view(access));
        let table = block::TLB + view * block::TLB_BYTES;
        let asm = &mut self.c.asm;
        asm.mov(8, slot, guest);
        let shift = 12 - block::TLB_ENTRY.trailing_zeros() as u8;
        asm.shift_imm(8, Shift::Shr, slot, shift);
        let mask = (block::TLB_BYTES - 1) & !(block::TLB_ENTRY - 1);
        asm.alu_imm(4, Alu::And, Rm::Reg(slot), mask as i32);
        let span = access.bytes() as i32 - 1;
        if access.is_aligned() {
            // Low bits stay in the tag: an unaligned address misses.
            asm.mov(8, page, guest);
            asm.alu_imm(8, Alu::And, Rm::Reg(page), !0xfff | span);
        } else {
            asm.lea(8, page, Mem::at(guest, span));
            asm.alu_imm(8, Alu::And, Rm::Reg(page), !0xfff);
        }
        let tag = table + if write { 8 } else { 0 };
        let entry =
            |offset: u32| Mem { base: Some(slot), index: None, disp: offset as i32, gs: true };
        asm.alu(8, Alu::Cmp, page, Rm::Mem(entry(tag)));
        let miss = asm.jcc(cc::NE);
        asm.load(8, page, entry(table + 16));
        let mem = Mem { base: Some(page), index: Some((guest, 0)), disp: 0, gs: false };
        self.c.insn_noted = false;
        self.may_fault();
        (mem, miss)
    }

    /// The guest address in one register.
    fn whole_address(&mut self, address: Value, disp: i32) -> Gpr {
        let before = self.c.gprs.locks();
        let mem = self.address(address, disp);
        match mem {
            Mem { base: Some(base), index: None, disp: 0, .. } => base,
            mem => {
                let whole = self.temporary();
                // The parts are not needed any more once the sum is made.
                self.c.gprs.set_locks(before | 1 << whole);
                if mem.base.is_none() && mem.index.is_none() {
                    self.c.asm.mov_imm(whole, i64::from(mem.disp) as u64);
                } else {
                    self.c.asm.lea(8, whole, mem);
                }
                whole
            }
        }
    }

    /// User mode: an access that must be aligned and is not notes its address and traps.
    fn check_alignment(&mut self, access: Access, mem: Mem) {
        if !access.is_aligned() || access.bytes() == 1 {
            return;
        }
        let low = self.temporary();
        self.clobber_flags();
        self.c.asm.lea(8, low, mem);
        self.c.asm.test_imm(4, Rm::Reg(low), access.bytes() as i32 - 1);
        let aligned = self.c.asm.jcc(cc::E);
        self.may_fault();
        self.c.asm.store(8, Mem::gs(block::FAULT_ADDRESS), low);
        self.c.asm.raw(&[0x0f, 0x0b]); // ud2: the fault handler turns it into Access::Unaligned
        self.c.asm.bind(aligned);
    }

    fn load(&mut self, index: u32, op: &Op) {
        let access = Access(op.aux);
        let result = if self.t.mmu == Mmu::Identity {
            let (mem, _) = self.translate(op.a, op.displacement(), access, false);
            let result = self.result(index);
            self.load_from(op.ty, access, result, mem);
            result
        } else {
            self.load_checked(index, op, access)
        };
        if access.is_big_endian() {
            self.swap_loaded(op.ty, access, result);
        }
    }

    /// System mode: a load behind a TLB check.
    fn load_checked(&mut self, index: u32, op: &Op, access: Access) -> u8 {
        let lookup = self.lookup(op.a, op.displacement());
        // A result that takes the place of another value moves that away, before the check.
        let takes_a_place = self.c.values[index as usize].hint != NONE || op.ty.is_vector();
        let result = takes_a_place.then(|| self.result(index));
        let (mem, miss) = self.check(lookup, access, false);
        let result = result.unwrap_or_else(|| {
            self.result_is(index, lookup.page);
            lookup.page
        });
        self.load_from(op.ty, access, result, mem);
        let slow = SlowAccess::new(access, self.view(access));
        self.slow(miss, lookup.guest, slow, result, op.ty, None);
        result
    }

    fn load_from(&mut self, ty: Type, access: Access, result: u8, mem: Mem) {
        if ty.is_vector() {
            let ty = match access.bytes() {
                4 => Type::F32,
                8 => Type::F64,
                _ => ty,
            };
            return move_vector(&mut self.c.asm, self.t.features, ty, result, mem, false);
        }
        let bytes = access.bytes() as u8;
        if access.is_signed() {
            self.c.asm.load_signed(bytes, ty.bytes() as u8, result, mem);
        } else {
            self.c.asm.load(bytes, result, mem);
        }
    }

    fn swap_loaded(&mut self, ty: Type, access: Access, result: u8) {
        assert!(!ty.is_vector(), "front ends swap vectors with a shuffle");
        let bytes = access.bytes() as u8;
        match bytes {
            1 => {}
            2 => {
                self.clobber_flags();
                self.c.asm.shift_imm(2, Shift::Rol, result, 8);
            }
            _ => self.c.asm.bswap(bytes, result),
        }
        if access.is_signed() {
            self.c.asm.extend_signed(bytes, ty.bytes() as u8, result, Rm::Reg(result));
        }
    }

    fn store(&mut self, op: &Op) {
        let access = Access(op.aux);
        let bytes = access.bytes() as u8;
        let ty = self.ty(op.b);
        let immediate = (!ty.is_vector() && !access.is_big_endian())
            .then(|| self.immediate(op.b, Type::integer(access.bytes().min(8))))
            .flatten();
        let value = match (ty.is_vector(), immediate) {
            (true, _) => self.xmm(op.b),
            (_, Some(_)) => NONE,
            _ if access.is_big_endian() => self.swapped(op.b, bytes),
            _ => self.gpr(op.b),
        };
        let (mem, miss) = self.translate(op.a, op.displacement(), access, true);
        self.store_to(ty, bytes, mem, value, immediate);
        if let Some((from, address)) = miss {
            let mut slow = SlowAccess::new(access, self.view(access));
            slow.0 |= SlowAccess::WRITE;
            self.slow(from, address, slow, value, ty, immediate);
        }
    }

    fn swapped(&mut self, value: Value, bytes: u8) -> Gpr {
        let copy = self.temporary();
        let index = self.canon(value);
        self.bring(index, copy);
        if bytes == 2 {
            self.clobber_flags();
            self.c.asm.shift_imm(2, Shift::Rol, copy, 8);
        } else if bytes > 2 {
            self.c.asm.bswap(bytes, copy);
        }
        copy
    }

    fn store_to(&mut self, ty: Type, bytes: u8, mem: Mem, value: u8, immediate: Option<i32>) {
        if let Some(immediate) = immediate {
            self.c.asm.store_imm(bytes, mem, immediate);
        } else if ty.is_vector() {
            let ty = match bytes {
                4 => Type::F32,
                8 => Type::F64,
                _ => ty,
            };
            move_vector(&mut self.c.asm, self.t.features, ty, value, mem, true);
        } else {
            self.c.asm.store(bytes, mem, value);
        }
    }

    fn slow(
        &mut self,
        from: Label,
        address: Gpr,
        access: SlowAccess,
        value: u8,
        ty: Type,
        immediate: Option<i32>,
    ) {
        let back = self.c.asm.here();
        let borrowed = self.c.borrowed;
        let displacement = 0;
        let slow =
            Slow { from, back, address, displacement, access, value, ty, immediate, borrowed };
        self.c.cold.push((self.c.pc, Cold::Slow(slow)));
    }

    /// Emits a slow access behind the block.
    pub fn emit_slow(&mut self, slow: &Slow) {
        self.c.asm.bind(slow.from);
        let mem = Mem::at(slow.address, slow.displacement);
        debug_assert_eq!(mem.disp, 0);
        let result = Mem::gs(block::RESULT);
        if slow.access.is_write() && !slow.access.is_refill() {
            let bytes = slow.access.bytes() as u8;
            self.store_to(slow.ty, bytes, result, slow.value, slow.immediate);
        }
        let start = self.c.asm.len() as u32;
        self.call_slow(slow.address, slow.access);
        if slow.borrowed != 0 {
            self.c.borrows.push((start, self.c.asm.len() as u32 + 1, slow.borrowed));
        }
        if !slow.access.is_write() && !slow.access.is_refill() {
            self.load_from(slow.ty, Access(slow.access.0 as u16), slow.value, result);
        }
        self.c.asm.jmp(slow.back);
    }

    fn call_slow(&mut self, address: Gpr, access: SlowAccess) {
        self.c.asm.store(8, Mem::gs(block::ARGUMENTS), address);
        self.c.asm.store_imm(4, Mem::gs(block::OPERATION), access.0 as i32);
        self.c.asm.call(self.t.stubs.memory);
    }

    /// In system mode: a check that makes the TLB have the page, and the host address in a
    /// register; the access itself cannot miss any more.
    fn host_address(&mut self, address: Value, access: Access) -> Mem {
        if self.t.mmu == Mmu::Identity {
            return self.translate(address, 0, access, true).0;
        }
        let before = self.c.gprs.locks();
        let lookup = self.lookup(address, 0);
        let again = self.c.asm.here();
        let (_, from) = self.check(lookup, access, true);
        let mut access = SlowAccess::new(access, self.view(access));
        access.0 |= SlowAccess::WRITE | SlowAccess::REFILL;
        let slow = Slow {
            from,
            back: again,
            address: lookup.guest,
            displacement: 0,
            access,
            value: NONE,
            ty: Type::None,
            immediate: None,
            borrowed: self.c.borrowed,
        };
        self.c.cold.push((self.c.pc, Cold::Slow(slow)));
        self.c.asm.alu(8, Alu::Add, lookup.page, Rm::Reg(lookup.guest));
        self.c.gprs.set_locks(before | 1 << lookup.page);
        Mem::at(lookup.page, 0)
    }

    fn atomic(&mut self, index: u32, op: &Op) {
        let access = Access(op.aux);
        let bytes = access.bytes() as u8;
        let kind = AtomicOp::ALL[op.c.0 as usize];
        let used = self.c.values[index as usize].last != 0;
        self.clobber_flags();
        // Everything that emits code comes before the address: a miss jumps back to it.
        let simple = match kind {
            AtomicOp::And => Some(Alu::And),
            AtomicOp::Or => Some(Alu::Or),
            AtomicOp::Xor => Some(Alu::Xor),
            AtomicOp::Add => Some(Alu::Add),
            _ => None,
        };
        if let (Some(alu), false) = (simple, used) {
            let operand = self.gpr(op.b);
            let mem = self.host_address(op.a, access);
            self.c.asm.raw(&[0xf0]);
            return self.c.asm.alu_mem(bytes, alu, mem, operand);
        }
        if matches!(kind, AtomicOp::Add | AtomicOp::Xchg) {
            let work = self.temporary();
            let operand = self.canon(op.b);
            self.prepare_address(op.a);
            self.bring(operand, work);
            let mem = self.host_address(op.a, access);
            match kind {
                AtomicOp::Add => self.c.asm.lock_xadd(bytes, mem, work),
                _ => self.c.asm.xchg(bytes, work, Rm::Mem(mem)),
            }
            return self.atomic_result(index, op, work);
        }
        self.atomic_loop(index, op, kind, bytes);
    }

    /// Brings the address's parts into registers, so that no spill happens later.
    fn prepare_address(&mut self, address: Value) {
        let index = self.canon(address);
        if !self.is_lazy(index) {
            self.gpr(address);
        }
    }

    /// The old contents in `register` become the result, zero-extended.
    fn atomic_result(&mut self, index: u32, op: &Op, register: Gpr) {
        let bytes = Access(op.aux).bytes() as u8;
        if bytes < 4 {
            self.c.asm.extend(bytes, register, register);
        }
        if self.c.values[index as usize].hint != NONE || !self.t.map.is_scratch(register) {
            let result = self.result(index);
            return self.c.asm.mov(if bytes == 8 { 8 } else { 4 }, result, register);
        }
        self.result_is(index, register);
    }

    /// Operations without an instruction of their own: compare and swap until nobody interferes.
    fn atomic_loop(&mut self, index: u32, op: &Op, kind: AtomicOp, bytes: u8) {
        let access = Access(op.aux);
        let pinned = !self.t.map.is_scratch(reg::RAX);
        if !pinned {
            self.claim(reg::RAX);
        }
        let mem = self.host_address(op.a, access);
        let mem = self.without_rax(mem);
        let operand = self.copy_without_rax(op.b);
        if pinned {
            self.claim(reg::RAX);
        }
        let start = self.c.asm.len() as u32;
        self.c.asm.load(bytes, reg::RAX, mem);
        let again = self.c.asm.here();
        let new = self.temporary();
        self.new_contents(kind, bytes, new, operand);
        self.c.asm.lock_cmpxchg(bytes, mem, new);
        self.c.asm.jcc_to(cc::NE, again);
        self.borrows_rax(start, COUNTS_AS_STORE);
        if pinned {
            self.c.asm.mov(8, new, reg::RAX);
            self.restore(reg::RAX);
            return self.atomic_result(index, op, new);
        }
        self.atomic_result(index, op, reg::RAX);
    }

    /// A fault of the code since `start` finds the guest's RAX where it was kept, if it is pinned.
    fn borrows_rax(&mut self, start: u32, besides: u16) {
        let rax = if self.t.map.is_scratch(reg::RAX) { 0 } else { 1 << reg::RAX };
        if rax | besides != 0 {
            self.c.borrows.push((start, self.c.asm.len() as u32, rax | besides));
        }
    }

    fn without_rax(&mut self, mem: Mem) -> Mem {
        let uses = mem.base == Some(reg::RAX) || mem.index.is_some_and(|(i, _)| i == reg::RAX);
        if !uses {
            return mem;
        }
        let copy = self.temporary();
        self.c.asm.lea(8, copy, mem);
        Mem::at(copy, 0)
    }

    fn copy_without_rax(&mut self, value: Value) -> Gpr {
        let register = self.gpr(value);
        if register != reg::RAX {
            return register;
        }
        let copy = self.temporary();
        self.c.asm.mov(8, copy, register);
        copy
    }

    /// `new = RAX op operand`.
    fn new_contents(&mut self, kind: AtomicOp, bytes: u8, new: Gpr, operand: Gpr) {
        let asm = &mut self.c.asm;
        let alu = match kind {
            AtomicOp::And => Alu::And,
            AtomicOp::Or => Alu::Or,
            AtomicOp::Xor => Alu::Xor,
            AtomicOp::AndNot => {
                asm.mov(8, new, operand);
                asm.group3(8, 2, Rm::Reg(new));
                return asm.alu(8, Alu::And, new, Rm::Reg(reg::RAX));
            }
            kind => {
                let condition = match kind {
                    AtomicOp::MinS => cc::G,
                    AtomicOp::MaxS => cc::L,
                    AtomicOp::MinU => cc::A,
                    _ => cc::B,
                };
                asm.mov(8, new, reg::RAX);
                asm.alu(bytes, Alu::Cmp, reg::RAX, Rm::Reg(operand));
                return asm.cmov(8, condition, new, Rm::Reg(operand));
            }
        };
        asm.mov(8, new, reg::RAX);
        asm.alu(8, alu, new, Rm::Reg(operand));
    }

    fn compare_and_swap(&mut self, index: u32, op: &Op) {
        let access = Access(op.aux);
        if access.bytes() == 16 || self.t.mmu != Mmu::Identity {
            return self.compare_and_swap_in_rust(index, op);
        }
        let bytes = access.bytes() as u8;
        self.clobber_flags();
        let pinned = !self.t.map.is_scratch(reg::RAX);
        let new = self.copy_without_rax(op.c);
        let expected = self.gpr(op.b);
        let (mem, _) = self.translate(op.a, 0, access, true);
        let mem = self.without_rax(mem);
        if pinned {
            self.claim(reg::RAX);
        } else {
            self.c.gprs.lock(reg::RAX);
        }
        self.vacate_if_scratch(reg::RAX);
        let start = self.c.asm.len() as u32;
        if expected != reg::RAX {
            self.c.asm.mov(8, reg::RAX, expected);
        }
        self.c.asm.lock_cmpxchg(bytes, mem, new);
        self.borrows_rax(start, 0);
        if pinned {
            let old = self.temporary();
            self.c.asm.mov(8, old, reg::RAX);
            self.restore(reg::RAX);
            return self.atomic_result(index, op, old);
        }
        self.atomic_result(index, op, reg::RAX);
    }

    fn vacate_if_scratch(&mut self, register: Gpr) {
        if self.t.map.is_scratch(register) {
            self.vacate(register);
        }
    }

    /// 16 bytes, or system mode: Rust does it.
    fn compare_and_swap_in_rust(&mut self, index: u32, op: &Op) {
        let access = Access(op.aux);
        let wide = access.bytes() == 16;
        self.clobber_flags();
        for (value, place) in [(op.b, block::RESULT), (op.c, block::RESULT2)] {
            if wide {
                let pair = *self.base(value);
                for (half, offset) in [(pair.a, 0), (pair.b, 8)] {
                    let register = self.gpr(half);
                    self.c.asm.store(8, Mem::gs(place + offset), register);
                    self.c.gprs.unlock();
                }
            } else {
                let register = self.gpr(value);
                self.c.asm.store(8, Mem::gs(place), register);
                self.c.gprs.unlock();
            }
        }
        let address = self.gpr(op.a);
        let mut slow = SlowAccess::new(access, self.view(access));
        slow.0 |= SlowAccess::CAS | SlowAccess::WRITE;
        self.may_fault();
        self.call_slow(address, slow);
        if self.c.values[index as usize].last == 0 {
            return;
        }
        if wide {
            let slot = self.new_spill(index);
            let work = self.temporary();
            for offset in [0, 8] {
                self.c.asm.load(8, work, Mem::gs(block::RESULT + offset));
                let place = spill_mem(slot);
                self.c.asm.store(8, Mem { disp: place.disp + offset as i32, ..place }, work);
            }
            return;
        }
        let result = self.result(index);
        self.c.asm.load(access.bytes() as u8, result, Mem::gs(block::RESULT));
    }

    /// A half of an `I128` that a wide compare and swap left in its slot.
    pub fn half_of_wide(&mut self, index: u32, op: &Op) {
        let value = self.canon(op.a);
        let base = self.ops[value as usize];
        if base.code == Code::Pair {
            let half = if op.code == Code::Lo { base.a } else { base.b };
            let source = self.gpr(half);
            let result = self.result(index);
            return self.c.asm.mov(8, result, source);
        }
        let Home::Spill(slot) = self.c.values[value as usize].home else {
            unreachable!("wide values live in slots")
        };
        let place = spill_mem(slot);
        let offset = if op.code == Code::Lo { 0 } else { 8 };
        let result = self.result(index);
        self.c.asm.load(8, result, Mem { disp: place.disp + offset, ..place });
    }

    fn store_conditional(&mut self, index: u32, op: &Op) {
        let access = Access(op.aux);
        let pair = *self.base(op.c);
        self.clobber_flags();
        let address = self.gpr(op.a);
        let reserved = self.operand(pair.a, Type::I64);
        self.c.asm.alu(8, Alu::Cmp, address, reserved);
        if self.t.mmu != Mmu::Identity {
            return self.store_conditional_in_rust(index, op, &pair, address);
        }
        let bytes = access.bytes() as u8;
        // Moves only from here to the jump: the comparison is in the flags.
        let new = self.copy_without_rax(op.b);
        let address = match address {
            reg::RAX => self.copy_without_rax(op.a),
            other => other,
        };
        let expected = self.canon(pair.b);
        self.claim(reg::RAX);
        self.bring(expected, reg::RAX);
        let fail = self.c.asm.jcc(cc::NE);
        self.may_fault();
        let start = self.c.asm.len() as u32;
        self.c.asm.lock_cmpxchg(bytes, Mem::at(address, 0), new);
        self.borrows_rax(start, 0);
        self.c.asm.bind(fail);
        self.restore(reg::RAX);
        let result = self.result(index);
        self.c.asm.setcc(cc::E, result);
        self.c.asm.extend(1, result, result);
    }

    fn store_conditional_in_rust(&mut self, index: u32, op: &Op, pair: &Op, address: Gpr) {
        let access = Access(op.aux);
        let result = self.temporary();
        // The result lies in memory until the end: registers are scarce here.
        self.c.asm.store_imm(8, Mem::gs(block::RESULT + 16), 0);
        self.c.asm.store(8, Mem::gs(block::ARGUMENTS), address);
        for (value, place) in [(pair.b, block::RESULT), (op.b, block::RESULT2)] {
            let value = self.canon(value);
            self.bring(value, result);
            self.c.asm.store(8, Mem::gs(place), result);
            if place == block::RESULT {
                self.c.asm.store(8, Mem::gs(block::RESULT + 24), result);
            }
        }
        let fail = self.c.asm.jcc(cc::NE);
        let mut slow = SlowAccess::new(access, self.view(access));
        slow.0 |= SlowAccess::CAS | SlowAccess::WRITE;
        self.c.insn_noted = false;
        self.may_fault();
        self.c.asm.store_imm(4, Mem::gs(block::OPERATION), slow.0 as i32);
        self.c.asm.call(self.t.stubs.memory);
        let bytes = access.bytes() as u8;
        self.c.asm.load(bytes, result, Mem::gs(block::RESULT));
        self.c.asm.alu(bytes, Alu::Cmp, result, Rm::Mem(Mem::gs(block::RESULT + 24)));
        let other = self.c.asm.jcc(cc::NE);
        self.c.asm.store_imm(8, Mem::gs(block::RESULT + 16), 1);
        self.c.asm.bind(fail);
        self.c.asm.bind(other);
        self.c.asm.load(8, result, Mem::gs(block::RESULT + 16));
        self.result_is(index, result);
        if self.c.values[index as usize].hint != NONE {
            // A `Bool` is never put as it is, so it has no pinned destination.
            self.c.values[index as usize].hint = NONE;
        }
    }

    fn zero_block(&mut self, op: &Op) {
        let access = Access::new(1);
        self.clobber_flags();
        let mem = self.host_address(op.a, access);
        let zero = self.temporary_xmm();
        self.clear_xmm(zero);
        for offset in (0..i32::from(op.aux as i16)).step_by(16) {
            let mem = Mem { disp: mem.disp + offset, ..mem };
            move_vector(&mut self.c.asm, self.t.features, Type::V128, zero, mem, true);
        }
    }
}
