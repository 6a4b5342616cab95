//! Leaving a block: direct, indirect, calls and returns, helpers, events.

use isa::ir::{Code, Op, Type};

use super::super::asm::{Alu, Gpr, Label, Mem, Rm, Shift, cc, reg};
use super::super::map::NONE;
use super::super::vcpu_block::{self as block, reason};
use super::{Cold, Job, Mmu, Site};
use crate::raw::jump_entry;
use crate::translator::TAIL;

/// Which bit of a pushed return address tells calls of the other variant apart: no canonical
/// address differs from another one in it alone.
const VARIANT_BIT: u8 = 62;

const EXIT_REQUEST: Rm = Rm::Mem(Mem::gs(block::EXIT_REQUEST));

impl Job<'_> {
    pub fn flow(&mut self, index: u32, op: &Op) {
        match op.code {
            Code::Helper => self.helper(index, op),
            Code::ExitIf => self.exit_if(index, op),
            Code::Exit => self.jump(op.immediate()),
            Code::ExitIndirect => {
                let pc = self.gpr(op.a);
                self.check_exit_to_lookup(pc);
                self.through_jump_cache(pc, None);
            }
            Code::Call => self.call(op),
            Code::CallIndirect => self.call_indirect(op),
            Code::Return => self.ret(op),
            Code::ExitMode => self.c.asm.jmp(self.t.stubs.leave[reason::MODE as usize]),
            Code::Raise => {
                let info = self.gpr(op.a);
                self.c.asm.store(8, Mem::gs(block::DETAIL2), info);
                self.leave_with_event(op.aux);
            }
            _ => self.raise_if(op),
        }
    }

    fn leave_with_event(&mut self, number: u16) {
        self.c.asm.store_imm(8, Mem::gs(block::DETAIL), i32::from(number));
        self.c.asm.jmp(self.t.stubs.leave[reason::EVENT as usize]);
    }

    /// A direct exit through a jump that the engine links to its target.
    fn site(&mut self, target: u64, label: Label) -> u32 {
        let site = self.c.sites.len() as u32;
        let (place, variant) = (self.c.asm.label_address(label), self.c.variant);
        self.c.sites.push(Site { target, variant, place, stub: 0 });
        self.c.cold.push((0, Cold::Link { site }));
        site
    }

    /// A block that counts how often it is entered begins with a jump that can lead elsewhere. Gives
    /// its site, and what it jumps to first.
    pub fn count_entry(&mut self, number: usize) -> (u32, u64) {
        let label = self.c.asm.jmp_patchable();
        let site = self.site(self.start, label);
        let on = self.c.asm.here();
        let counter = block::COUNTERS + 4 * (number as u32 % block::COUNTERS_COUNT);
        self.c.asm.alu_imm(4, Alu::Sub, Rm::Mem(Mem::gs(counter)), 1);
        let from = self.c.asm.jcc(cc::E);
        self.c.cold.push((self.start, Cold::Hot { from, number }));
        (site, on)
    }

    /// Going backwards: the only places where an exit request must be looked for.
    fn is_backward(&self, target: u64) -> bool {
        target <= self.c.pc || target <= self.start
    }

    /// In system mode another page may be mapped elsewhere tomorrow: such exits are looked up. So
    /// are those to instructions that may reach into another page.
    fn is_far(&self, target: u64) -> bool {
        let elsewhere = (target ^ self.start) >> 12 != 0;
        self.t.mmu != Mmu::Identity && (elsewhere || target & 0xfff >= TAIL)
    }

    fn jump(&mut self, target: u64) {
        if self.is_far(target) {
            return self.through_known_entry(target, None);
        }
        if !self.is_backward(target) {
            let label = self.c.asm.jmp_patchable();
            self.site(target, label);
            return;
        }
        self.c.asm.alu_imm(4, Alu::Cmp, EXIT_REQUEST, 0);
        let from = self.c.asm.jcc(cc::NE);
        let label = self.c.asm.jmp_patchable();
        let site = self.site(target, label);
        self.c.cold.push((0, Cold::Kick { from, site }));
    }

    fn exit_if(&mut self, index: u32, op: &Op) {
        let target = op.immediate();
        let condition = self.canon(op.a);
        let cc = self.condition_code(condition);
        let sunk = self.c.sunk.pop_if(|&mut (exit, _)| exit == index);
        let flags = sunk.map(|(_, value)| self.flags_image(value));
        self.give_back();
        let (checks, variant) = (self.is_backward(target), self.c.variant);
        // A jump backwards is most likely a loop: its way round has one jump that is taken.
        let looped = checks && !self.flags_live();
        if flags.is_some() || self.is_far(target) || checks && !looped {
            let from = self.c.asm.jcc(cc);
            return self.c.cold.push((0, Cold::Exit { from, target, variant, checks, flags }));
        }
        if looped {
            let skip = self.c.asm.jcc(cc ^ 1);
            self.jump(target);
            return self.c.asm.bind(skip);
        }
        let label = self.c.asm.jcc_patchable(cc);
        self.site(target, label);
    }

    fn check_exit_to_lookup(&mut self, pc: Gpr) {
        self.clobber_flags();
        self.c.asm.alu_imm(4, Alu::Cmp, EXIT_REQUEST, 0);
        let from = self.c.asm.jcc(cc::NE);
        self.c.cold.push((0, Cold::Lookup { from, pc }));
    }

    /// `through_jump_cache` for a pc that is known now: so is its entry.
    fn through_known_entry(&mut self, target: u64, back: Option<u64>) {
        self.clobber_flags();
        let entry = block::JUMPS + 16 * jump_entry(target);
        let tag = self.other_scratch(&[]);
        let asm = &mut self.c.asm;
        asm.mov_imm(tag, target ^ self.t.mode_tags[usize::from(self.c.variant)]);
        asm.alu(8, Alu::Cmp, tag, Rm::Mem(Mem::gs(entry)));
        let missing = asm.jcc(cc::NE);
        let host = Rm::Mem(Mem::gs(entry + 8));
        let asked = if let Some(back) = back {
            let asked = self.push_return(back, tag);
            self.c.asm.call_rm(host);
            self.come_back(back);
            asked
        } else {
            self.c.asm.alu_imm(4, Alu::Cmp, EXIT_REQUEST, 0);
            let asked = self.c.asm.jcc(cc::NE);
            self.c.asm.jmp_rm(host);
            asked
        };
        self.c.cold.push((target, Cold::Far { from: [asked, missing] }));
    }

    /// Jumps to the block at the pc in a register, or calls it, pushing `back`.
    fn through_jump_cache(&mut self, pc: Gpr, back: Option<u64>) {
        let slot = self.other_scratch(&[pc]);
        let tag = self.other_scratch(&[pc, slot]);
        let entry = |offset: u32| {
            Rm::Mem(Mem {
                base: Some(slot),
                index: None,
                disp: (block::JUMPS + offset) as i32,
                gs: true,
            })
        };
        let asm = &mut self.c.asm;
        // Bits 1 and up choose the entry: the lowest is always zero on most guests.
        asm.mov(4, slot, pc);
        asm.shift_imm(4, Shift::Shl, slot, 3);
        asm.alu_imm(4, Alu::And, Rm::Reg(slot), (16 << block::JUMPS_BITS) - 16);
        let mode_tag = self.t.mode_tags[usize::from(self.c.variant)];
        if mode_tag == 0 {
            asm.alu(8, Alu::Cmp, pc, entry(0));
        } else {
            asm.mov_imm(tag, mode_tag);
            asm.alu(8, Alu::Xor, tag, Rm::Reg(pc));
            asm.alu(8, Alu::Cmp, tag, entry(0));
        }
        let from = asm.jcc(cc::NE);
        self.c.cold.push((0, Cold::Lookup { from, pc }));
        let Some(back) = back else {
            return self.c.asm.jmp_rm(entry(8));
        };
        let from = self.push_return(back, tag);
        self.c.cold.push((0, Cold::Lookup { from, pc }));
        self.c.asm.call_rm(entry(8));
        self.come_back(back);
    }

    /// A scratch register at the end of a block, where nothing in them is needed any more.
    fn other_scratch(&self, taken: &[Gpr]) -> Gpr {
        let free = self.t.map.scratch.into_iter().find(|register| !taken.contains(register));
        free.expect("there are more scratch registers than the lookup needs")
    }

    /// Gives the jump that is taken, with nothing pushed, when the stack is full or somebody asks the
    /// vCPU to come out: the limit says both.
    fn push_return(&mut self, back: u64, temporary: Gpr) -> Label {
        let limit = Rm::Mem(Mem::gs(block::RETURNS_LIMIT));
        self.c.asm.alu(8, Alu::Cmp, reg::RSP, limit);
        let from = self.c.asm.jcc(cc::B);
        // A return arrives where it was called from in the same variant only.
        let back = if self.c.variant { back ^ 1 << VARIANT_BIT } else { back };
        match i32::try_from(back as i64) {
            Ok(back) => self.c.asm.push_imm(back),
            Err(_) => {
                self.c.asm.mov_imm(temporary, back);
                self.c.asm.push(temporary);
            }
        }
        from
    }

    /// Where the callee's return arrives.
    fn come_back(&mut self, back: u64) {
        self.c.asm.lea(8, reg::RSP, Mem::at(reg::RSP, 8));
        if self.is_far(back) {
            return self.jump(back);
        }
        let label = self.c.asm.jmp_patchable();
        self.site(back, label);
    }

    fn call(&mut self, op: &Op) {
        let target = op.immediate();
        let back = self.constant(op.a, Type::I64).expect("a call returns to a constant");
        if self.is_far(target) {
            return self.through_known_entry(target, Some(back));
        }
        let temporary = self.other_scratch(&[]);
        let from = self.push_return(back, temporary);
        let label = self.c.asm.call_patchable();
        let site = self.site(target, label);
        self.c.cold.push((0, Cold::Kick { from, site }));
        self.come_back(back);
    }

    fn call_indirect(&mut self, op: &Op) {
        let back = self.constant(op.a, Type::I64).expect("a call returns to a constant");
        let pc = self.gpr(op.b);
        self.check_exit_to_lookup(pc);
        self.through_jump_cache(pc, Some(back));
    }

    fn ret(&mut self, op: &Op) {
        let pc = self.gpr(op.a);
        let variant = self.c.variant;
        let mut pushed = pc;
        if variant {
            pushed = self.other_scratch(&[pc]);
            self.c.asm.mov(8, pushed, pc);
            self.c.asm.flip_bit(8, pushed, VARIANT_BIT);
        }
        self.c.asm.alu(8, Alu::Cmp, pushed, Rm::Mem(Mem::at(reg::RSP, 8)));
        let from = self.c.asm.jcc(cc::NE);
        self.c.cold.push((0, Cold::Mismatch { from, pc, variant }));
        self.c.asm.ret();
    }

    fn raise_if(&mut self, op: &Op) {
        let constant = self.constant(op.b, Type::I64);
        let info = if constant.is_some() { NONE } else { self.gpr(op.b) };
        let condition = self.canon(op.a);
        let cc = self.condition_code(condition);
        self.give_back();
        let from = self.c.asm.jcc(cc);
        let constant = constant.unwrap_or(0);
        self.c.cold.push((self.c.pc, Cold::Raise { from, number: op.aux, info, constant }));
    }

    pub fn helper(&mut self, index: u32, op: &Op) {
        self.clobber_flags();
        for (operand, offset) in [(op.a, 0), (op.b, 8), (op.c, 16)] {
            let place = Mem::gs(block::ARGUMENTS + offset);
            if operand.is_some() {
                let register = self.gpr(operand);
                self.c.asm.store(8, place, register);
                self.c.gprs.unlock();
            } else {
                // A helper with fewer arguments than it could have reads zeros, not what the last
                // slow access has left there.
                self.c.asm.store_imm(8, place, 0);
            }
        }
        self.leave_all();
        self.store_pc(self.c.pc);
        self.c.asm.store_imm(4, Mem::gs(block::OPERATION), i32::from(op.aux));
        self.c.asm.call(self.t.stubs.helper);
        if self.c.values[index as usize].last != 0 {
            let result = self.result(index);
            self.c.asm.load(8, result, Mem::gs(block::RESULT));
        }
    }

    /// pc in state. Uses no register that may hold a value.
    pub fn store_pc(&mut self, pc: u64) {
        let place = block::STATE + u32::from(self.t.pc);
        match i32::try_from(pc as i64) {
            Ok(pc) => self.c.asm.store_imm(8, Mem::gs(place), pc),
            Err(_) => {
                self.c.asm.store_imm(4, Mem::gs(place), pc as i32);
                self.c.asm.store_imm(4, Mem::gs(place + 4), (pc >> 32) as i32);
            }
        }
    }
}

/// The code behind the block.
impl Job<'_> {
    pub fn emit_cold(&mut self) {
        self.c.at = self.ops.len() as u32;
        let mut next = 0;
        while let Some(&(pc, cold)) = self.c.cold.get(next) {
            next += 1;
            match cold {
                Cold::Link { site } => {
                    self.c.sites[site as usize].stub = self.c.asm.here();
                    self.leave_at_site(site, reason::LINK);
                }
                Cold::Kick { from, site } => {
                    self.c.asm.bind(from);
                    self.leave_at_site(site, reason::KICK);
                }
                Cold::Exit { from, target, variant, checks, flags } => {
                    self.c.asm.bind(from);
                    self.c.variant = variant;
                    if let Some(image) = flags {
                        self.store_flags_image(image);
                    }
                    self.c.pc = target.wrapping_sub(u64::from(!checks));
                    self.jump(target);
                }
                Cold::Hot { from, number } => {
                    self.c.asm.bind(from);
                    self.store_pc(pc);
                    self.c.asm.store_imm(8, Mem::gs(block::DETAIL), number as i32);
                    self.c.asm.jmp(self.t.stubs.leave[reason::HOT as usize]);
                }
                Cold::Lookup { from, pc } => {
                    self.c.asm.bind(from);
                    let place = Mem::gs(block::STATE + u32::from(self.t.pc));
                    self.c.asm.store(8, place, pc);
                    self.c.asm.jmp(self.t.stubs.leave[reason::LOOKUP as usize]);
                }
                Cold::Far { from } => {
                    for from in from {
                        self.c.asm.bind(from);
                    }
                    self.store_pc(pc);
                    self.c.asm.jmp(self.t.stubs.leave[reason::LOOKUP as usize]);
                }
                Cold::Mismatch { from, pc, variant } => {
                    self.c.asm.bind(from);
                    self.c.variant = variant;
                    self.c.asm.load(8, reg::RSP, Mem::gs(block::RETURNS_TOP));
                    self.c.eflags = None;
                    self.check_exit_to_lookup(pc);
                    self.through_jump_cache(pc, None);
                }
                Cold::Raise { from, number, info, constant } => {
                    self.c.asm.bind(from);
                    self.store_pc(pc);
                    self.raise_behind(number, info, constant);
                }
                Cold::Fpu(rest) => self.fpu_by_helper(&rest, pc),
                Cold::Slow(slow) => {
                    self.c.faults.push((self.c.asm.len() as u32, pc));
                    self.emit_slow(&slow);
                }
                Cold::Repeat(rest) => self.emit_rest(pc, &rest),
                Cold::Float(special) => self.emit_special(&special),
                Cold::Packed(fix) => self.emit_packed_fix(&fix),
            }
        }
        for site in &self.c.sites {
            debug_assert_ne!(site.stub, 0);
        }
        self.aim_at_stubs();
    }

    fn raise_behind(&mut self, number: u16, info: u8, constant: u64) {
        if info == NONE {
            let place = Mem::gs(block::DETAIL2);
            self.c.asm.store_imm(4, place, constant as i32);
            let upper = Mem::gs(block::DETAIL2 + 4);
            self.c.asm.store_imm(4, upper, (constant >> 32) as i32);
        } else {
            self.c.asm.store(8, Mem::gs(block::DETAIL2), info);
        }
        self.leave_with_event(number);
    }

    fn leave_at_site(&mut self, site: u32, reason: u32) {
        let number = self.t.first_site + site;
        self.c.asm.store_imm(8, Mem::gs(block::DETAIL), number as i32);
        self.c.asm.jmp(self.t.stubs.leave[reason as usize]);
    }

    /// Until the engine links them, exits go to their stubs.
    fn aim_at_stubs(&mut self) {
        for index in 0..self.c.sites.len() {
            let Site { place, stub, .. } = self.c.sites[index];
            self.c.asm.patch(place, stub);
        }
    }
}
