//! Guest state: pinned registers, and cells in memory.

use isa::ir::{Code, Op, Type, Value};

use super::super::asm::{Alu, Gpr, Mem, Rm, Shift, Xmm};
use super::super::map::NONE;
use super::super::stubs::move_vector;
use super::super::vcpu_block as block;
use super::Job;
use super::registers::Home;

/// Guest state.
impl Job<'_> {
    /// Reads guest state: a pinned register is no code, a cell is loaded when needed.
    pub fn get(&mut self, index: u32, op: &Op) {
        let (offset, vector) = (op.a.0, op.ty.is_vector());
        if let Some(register) = self.t.map.gpr(offset) {
            let inside = offset % 8;
            if inside == 0 && !vector {
                return self.alias(index, register);
            }
            let copy = self.allocate(false);
            self.clobber_flags();
            self.c.asm.mov(8, copy, register);
            self.c.asm.shift_imm(8, Shift::Shr, copy, (inside * 8) as u8);
            if vector {
                let xmm = self.result(index);
                return self.gpr_to_xmm(8, xmm, copy);
            }
            return self.own(index, copy);
        }
        if let Some((register, inside)) = self.t.map.xmm(offset) {
            if inside == 0 && vector {
                return self.alias(index, register);
            }
            return self.get_part_of_vector(index, op, register, inside);
        }
        self.c.values[index as usize].home = Home::State(offset as u16);
        self.c.cells.push(index);
    }

    fn get_part_of_vector(&mut self, index: u32, op: &Op, register: Xmm, inside: u32) {
        if op.ty.is_vector() {
            let xmm = self.result(index);
            self.vector_part(xmm, register, inside);
        } else {
            let gpr = self.result(index);
            self.lane_to_gpr(op.ty.bytes(), gpr, register, inside / op.ty.bytes());
        }
    }

    /// Writes guest state.
    pub fn put(&mut self, op: &Op) {
        let (offset, vector) = (op.a.0, self.ty(op.b).is_vector());
        if let Some(register) = self.t.map.gpr(offset) {
            if vector {
                let xmm = self.xmm(op.b);
                self.detach(false, register);
                return self.xmm_to_gpr(8, register, xmm);
            }
            return self.put_pinned(op, register);
        }
        if let Some((register, inside)) = self.t.map.xmm(offset) {
            return self.put_vector(op, register, inside);
        }
        self.put_cell(op);
    }

    fn put_pinned(&mut self, op: &Op, register: Gpr) {
        let value = self.canon(op.b);
        let inside = op.a.0 % 8;
        if op.ty.bytes() == 8 {
            if self.c.values[value as usize].place == register
                && self.c.gprs.is_alias(register, value)
            {
                // Other values may alias the old contents only if they are equal: it is unchanged.
                return;
            }
            self.detach(false, register);
            if op.ty == Type::Flags {
                self.flags_to_gpr(op.b, register);
            } else {
                self.bring(value, register);
            }
            self.c.gprs.forget_aliases(register);
            // Constants and flags stay in the scratch register they may be in: it is still theirs.
            if self.ops[value as usize].code != Code::Const && op.ty != Type::Flags {
                let place = self.c.values[value as usize].place;
                if place != NONE && self.c.gprs.is_scratch(place) {
                    self.c.gprs.free(place);
                }
                self.alias(value, register);
            }
            return;
        }
        let source = self.gpr(op.b);
        self.detach(false, register);
        self.put_part(op.ty.bytes() as u8, register, inside as u8, source);
    }

    /// Replaces some low or inner bytes of a pinned register.
    fn put_part(&mut self, size: u8, register: Gpr, inside: u8, source: Gpr) {
        match (size, inside) {
            (1 | 2, 0) => self.c.asm.mov_part(size, register, source),
            (1, 1) if register < 4 && source < 4 => {
                self.c.asm.raw(&[0x8a, 0xc0 | (register + 4) << 3 | source]); // mov ah, al
            }
            _ => {
                let bits = 8 * size;
                self.clobber_flags();
                let mask = if bits == 32 { u64::from(u32::MAX) } else { (1 << bits) - 1 };
                let temporary = self.temporary();
                let shift = inside * 8;
                self.c.asm.mov(8, temporary, source);
                self.c.asm.shift_imm(8, Shift::Shl, temporary, 64 - bits);
                if 64 - bits > shift {
                    self.c.asm.shift_imm(8, Shift::Shr, temporary, 64 - bits - shift);
                }
                let keep = self.temporary();
                self.c.asm.mov_imm(keep, !(mask << shift));
                self.c.asm.alu(8, Alu::And, register, Rm::Reg(keep));
                self.c.asm.alu(8, Alu::Or, register, Rm::Reg(temporary));
            }
        }
    }

    fn put_vector(&mut self, op: &Op, register: Xmm, inside: u32) {
        let value = self.canon(op.b);
        let (.., pinned) = self.t.map.xmms[usize::from(register)];
        if !self.ty(op.b).is_vector() {
            let source = self.gpr(op.b);
            self.detach(true, register);
            if inside == 0 && pinned == Type::F64 && op.ty.bytes() == 8 {
                return self.gpr_to_xmm(8, register, source);
            }
            return self.gpr_to_lane(op.ty.bytes(), register, source, inside / op.ty.bytes());
        }
        if inside == 0 && op.ty.bytes() >= pinned.bytes() {
            if self.c.values[value as usize].place == register
                && self.c.xmms.is_alias(register, value)
            {
                return;
            }
            let source = self.xmm(op.b);
            self.detach(true, register);
            self.move_xmm(register, source);
            if self.c.xmms.is_scratch(source) {
                self.c.xmms.free(source);
                self.alias(value, register);
            }
            return;
        }
        let source = self.xmm(op.b);
        self.detach(true, register);
        self.put_vector_part(op.ty, register, source, inside);
    }

    fn put_cell(&mut self, op: &Op) {
        let (offset, bytes) = (op.a.0, op.ty.bytes());
        let value = self.canon(op.b);
        let at_home = self.c.values[value as usize].home == Home::State(offset as u16);
        if at_home && self.ty(Value(value)).bytes() == bytes {
            return;
        }
        let mem = Mem::gs(block::STATE + offset);
        // Bring the value first: it may itself have been read from the cell.
        enum Source {
            Immediate(i32),
            Gpr(Gpr),
            Xmm(Xmm),
            Flags,
        }
        let source = if op.ty == Type::Flags {
            Source::Flags
        } else if self.ty(op.b).is_vector() {
            Source::Xmm(self.xmm(op.b))
        } else if let Some(value) = self.immediate(op.b, op.ty) {
            Source::Immediate(value)
        } else {
            Source::Gpr(self.gpr(op.b))
        };
        self.detach_cells(offset, bytes);
        match source {
            Source::Immediate(value) => self.c.asm.store_imm(bytes as u8, mem, value),
            Source::Gpr(register) => self.c.asm.store(bytes as u8, mem, register),
            Source::Xmm(register) => {
                move_vector(&mut self.c.asm, self.t.features, op.ty, register, mem, true);
            }
            Source::Flags => self.flags_to_memory(op.b, mem),
        }
        let free = self.c.values[value as usize].home == Home::None
            && self.ty(Value(value)).bytes() == bytes
            && self.ops[value as usize].code != Code::Const;
        if free && self.lives_on(value) {
            self.c.values[value as usize].home = Home::State(offset as u16);
            self.c.cells.push(value);
        }
    }

    /// State cells are about to be overwritten: values that only live there move out.
    pub fn detach_cells(&mut self, offset: u32, bytes: u32) {
        let mut index = 0;
        while index < self.c.cells.len() {
            let value = self.c.cells[index];
            let Home::State(home) = self.c.values[value as usize].home else {
                self.c.cells.swap_remove(index);
                continue;
            };
            let (start, length) = (u32::from(home), self.ty(Value(value)).bytes());
            if start >= offset + bytes || start + length <= offset {
                index += 1;
                continue;
            }
            self.detach_cell(value);
            self.c.cells.swap_remove(index);
        }
    }

    pub fn detach_cell(&mut self, value: u32) {
        if !matches!(self.c.values[value as usize].home, Home::State(_)) {
            return;
        }
        if self.lives_on(value) && self.c.values[value as usize].place == NONE {
            if self.ty(Value(value)).is_vector() {
                self.xmm(Value(value));
            } else {
                self.gpr(Value(value));
            }
        }
        self.c.values[value as usize].home = Home::None;
    }
}
