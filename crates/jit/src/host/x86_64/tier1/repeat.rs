//! Repeated string operations by the host's own, when the guest's registers are where it wants them.
//!
//! In user mode the guest's RDI, RSI and RCX *are* the host's, so that a fault in the middle finds
//! them exact. In system mode it is done when both ranges lie within one page each that the soft
//! TLB knows; index registers are host addresses meanwhile, and nothing faults. Everything else is
//! the helper's.

use isa::ir::{Op, Repeat, Type};

use super::super::asm::{Alu, Gpr, Label, Mem, Rm, Shift, cc, reg};
use super::super::vcpu_block as block;
use super::{Cold, Job, Mmu};

/// In user mode more elements at once are left to the helper, which looks for interrupts.
const ELEMENTS_MAX: i32 = 1 << 14;

/// Up to so many elements of 4 or 8 bytes a loop copies faster than the host's instruction starts.
const LOOPED_MAX: i32 = 16;

/// Jumps to the helper's call.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    from: [Option<Label>; 4],
    back: u64,
    helper: u8,
    argument: u32,
}

impl Rest {
    fn from(&mut self, label: Label) {
        let place = self.from.iter_mut().find(|place| place.is_none());
        *place.expect("there are as many places as checks") = Some(label);
    }
}

impl Job<'_> {
    pub fn repeat(&mut self, op: &Op) {
        let repeat = Repeat::of(op);
        self.clobber_flags();
        self.leave_all();
        let Repeat { helper, argument, .. } = repeat;
        if !self.is_at_hand(&repeat) {
            return self.call_repeat(self.c.pc, helper, argument);
        }
        let mut rest = Rest { from: [None; 4], back: 0, helper, argument };
        self.check_repeat(&repeat, op.ty, &mut rest);
        match self.t.mmu {
            Mmu::Identity => self.repeat_here(&repeat, op.ty, &mut rest),
            Mmu::Soft { view } => self.repeat_in_pages(&repeat, op.ty, view, &mut rest),
        }
        rest.back = self.c.asm.here();
        self.c.cold.push((self.c.pc, Cold::Repeat(rest)));
    }

    /// Whether the cells are in the registers that the host's instruction works with.
    fn is_at_hand(&self, repeat: &Repeat) -> bool {
        let source = if repeat.fill { reg::RAX } else { reg::RSI };
        let cells = [(repeat.target, reg::RDI), (repeat.source, source), (repeat.count, reg::RCX)];
        cells.iter().all(|&(cell, register)| self.t.map.gpr(cell.into()) == Some(register))
            && self.t.map.gpr(repeat.down.into()).is_none()
    }

    /// The direction, and how many elements at most.
    fn check_repeat(&mut self, repeat: &Repeat, ty: Type, rest: &mut Rest) {
        let most = match self.t.mmu {
            Mmu::Identity => ELEMENTS_MAX,
            Mmu::Soft { .. } => 0x1000 / ty.bytes() as i32,
        };
        let asm = &mut self.c.asm;
        asm.alu_imm(8, Alu::Cmp, Rm::Reg(reg::RCX), most);
        rest.from(asm.jcc(cc::A));
        let cell = block::STATE + u32::from(repeat.down) + u32::from(repeat.down_bit / 8);
        asm.test_imm(1, Rm::Mem(Mem::gs(cell)), 1 << (repeat.down_bit % 8));
        rest.from(asm.jcc(cc::NE));
    }

    fn repeat_here(&mut self, repeat: &Repeat, ty: Type, rest: &mut Rest) {
        if repeat.narrow {
            let end = self.temporary();
            self.narrow_end(reg::RDI, ty, end, rest);
            if !repeat.fill {
                self.narrow_end(reg::RSI, ty, end, rest);
            }
        }
        self.may_fault();
        self.emit_string(repeat, ty);
    }

    /// The operation itself, on host addresses. A fault finds whole elements done.
    fn emit_string(&mut self, repeat: &Repeat, ty: Type) {
        let bytes = ty.bytes() as u8;
        if repeat.fill || bytes < 4 {
            return self.c.asm.repeated_string(bytes, repeat.fill);
        }
        let element = self.temporary();
        let asm = &mut self.c.asm;
        asm.alu_imm(8, Alu::Cmp, Rm::Reg(reg::RCX), LOOPED_MAX);
        let many = asm.jcc(cc::A);
        asm.test(4, reg::RCX, reg::RCX);
        let none = asm.jcc(cc::E);
        let again = asm.here();
        asm.load(bytes, element, Mem::at(reg::RSI, 0));
        asm.store(bytes, Mem::at(reg::RDI, 0), element);
        for index in [reg::RSI, reg::RDI] {
            asm.alu_imm(8, Alu::Add, Rm::Reg(index), bytes.into());
        }
        asm.alu_imm(8, Alu::Sub, Rm::Reg(reg::RCX), 1);
        asm.jcc_to(cc::NE, again);
        let done = asm.jmp_patchable();
        asm.bind(many);
        asm.repeated_string(bytes, false);
        asm.bind(none);
        asm.bind(done);
    }

    /// A range that ends above 32-bit addresses wraps.
    fn narrow_end(&mut self, start: Gpr, ty: Type, end: Gpr, rest: &mut Rest) {
        let asm = &mut self.c.asm;
        asm.lea(8, end, behind(start, ty, 0));
        asm.shift_imm(8, Shift::Shr, end, 32);
        rest.from(asm.jcc(cc::NE));
    }

    fn repeat_in_pages(&mut self, repeat: &Repeat, ty: Type, view: u16, rest: &mut Rest) {
        let to = self.page_of_range(reg::RDI, ty, view, true, rest);
        let from = (!repeat.fill).then(|| self.page_of_range(reg::RSI, ty, view, false, rest));
        // A host fault here would be a hole in the machine's RAM: no guest's business.
        self.may_fault();
        let asm = &mut self.c.asm;
        let moved = [Some((reg::RDI, to)), from.map(|from| (reg::RSI, from))];
        for (index, addend) in moved.into_iter().flatten() {
            asm.alu(8, Alu::Add, index, Rm::Reg(addend));
        }
        self.emit_string(repeat, ty);
        let asm = &mut self.c.asm;
        for (index, addend) in moved.into_iter().flatten() {
            asm.alu(8, Alu::Sub, index, Rm::Reg(addend));
        }
    }

    /// The TLB's addend for a range that begins at an index register, if it ends in the same page.
    /// An end in another page finds no tag of its own in the entry of the beginning: they are too
    /// near to share one.
    fn page_of_range(
        &mut self,
        start: Gpr,
        ty: Type,
        view: u16,
        write: bool,
        rest: &mut Rest,
    ) -> Gpr {
        let page = self.temporary();
        let locks = self.c.gprs.locks();
        let slot = self.temporary();
        let table = block::TLB + u32::from(view) * block::TLB_BYTES;
        let asm = &mut self.c.asm;
        asm.mov(8, slot, start);
        asm.shift_imm(8, Shift::Shr, slot, 12 - block::TLB_ENTRY.trailing_zeros() as u8);
        let mask = (block::TLB_BYTES - 1) & !(block::TLB_ENTRY - 1);
        asm.alu_imm(4, Alu::And, Rm::Reg(slot), mask as i32);
        asm.lea(8, page, behind(start, ty, -1));
        asm.alu_imm(8, Alu::And, Rm::Reg(page), !0xfff);
        let entry =
            |offset: u32| Mem { base: Some(slot), index: None, disp: offset as i32, gs: true };
        asm.alu(8, Alu::Cmp, page, Rm::Mem(entry(table + if write { 8 } else { 0 })));
        rest.from(asm.jcc(cc::NE));
        asm.load(8, page, entry(table + 16));
        self.c.gprs.set_locks(locks);
        page
    }

    fn call_repeat(&mut self, pc: u64, helper: u8, argument: u32) {
        self.store_pc(pc);
        let asm = &mut self.c.asm;
        asm.store_imm(4, Mem::gs(block::ARGUMENTS), argument as i32);
        asm.store_imm(4, Mem::gs(block::ARGUMENTS + 4), 0);
        asm.store_imm(4, Mem::gs(block::OPERATION), i32::from(helper));
        asm.call(self.t.stubs.helper);
    }

    /// Behind the block: what the host's instruction cannot do.
    pub fn emit_rest(&mut self, pc: u64, rest: &Rest) {
        for label in rest.from.into_iter().flatten() {
            self.c.asm.bind(label);
        }
        self.call_repeat(pc, rest.helper, rest.argument);
        self.c.asm.jmp(rest.back);
    }
}

/// `disp` bytes behind the range that begins at `start`.
fn behind(start: Gpr, ty: Type, disp: i32) -> Mem {
    let scale = ty.bytes().trailing_zeros() as u8;
    Mem { base: Some(start), index: Some((reg::RCX, scale)), disp, gs: false }
}
