//! The backward pass: what is live, what is dead, what is computed where it is used, and where
//! results are going.

use isa::ir::{Code, FlagKind, Op, Reg, Type, Value};

use super::super::map::NONE;
use super::{Job, is_clean, is_exit};

/// What the backward pass knows of relaxed cells, flags values and faults behind the present
/// operation.
struct Relaxed {
    /// The cells that somebody wants, by bit.
    live: u64,
    /// The conditional exit that is the only one to want them.
    exit: Option<u32>,
    /// A flags value is used that was made before.
    used: bool,
    /// The present instruction may fault.
    faults: bool,
    /// The block itself overwrites all of them before it looks at one.
    renewed: bool,
}

impl Relaxed {
    /// All cells are wanted.
    fn all(&mut self) {
        (self.live, self.exit) = (u64::MAX, None);
    }
}

impl Job<'_> {
    fn can_be_lazy(&self, index: u32) -> bool {
        let op = &self.ops[index as usize];
        match op.code {
            Code::Const => true,
            Code::Add => op.ty == Type::I64 && self.immediate(op.b, Type::I64).is_some(),
            Code::Lea => op.ty == Type::I64 && self.c.uses[index as usize] == 1,
            Code::Compare | Code::Condition => self.c.uses[index as usize] == 1,
            // Its sticky bits must not come later than the next fault: its user is next.
            Code::FCompare => {
                let next = self.ops.get(index as usize + 1);
                let is_used = next.is_some_and(|next| next.operands().any(|of| of == Value(index)));
                self.c.uses[index as usize] == 1 && op.aux != 0 && is_used
            }
            Code::Pair => true,
            _ => false,
        }
    }

    /// Writes to pinned registers that are overwritten before anyone can look.
    fn dead_puts(&mut self) {
        let mut last = [u32::MAX; 16];
        for (index, op) in self.ops.iter().enumerate() {
            match op.code {
                Code::Get | Code::Put => {
                    let Some(register) = self.t.map.gpr(op.a.0) else { continue };
                    let whole = op.code == Code::Put && op.ty.bytes() == 8;
                    let before = std::mem::replace(
                        &mut last[usize::from(register)],
                        if whole { index as u32 } else { u32::MAX },
                    );
                    if whole && before != u32::MAX {
                        self.c.dead[before as usize] = true;
                    }
                }
                code if code.info().faults || is_exit(code) => last = [u32::MAX; 16],
                _ => {}
            }
        }
    }

    fn views(&mut self) {
        for (index, op) in self.ops.iter().enumerate() {
            if self.c.dead[index] {
                self.c.canon[index] = index as u32;
                continue;
            }
            self.c.wide |= is_wide(op);
            let canon = match op.code {
                Code::Trunc => self.c.canon[op.a.index()],
                Code::ZExt => {
                    let base = self.c.canon[op.a.index()];
                    let source = self.ty(op.a);
                    let base_op = &self.ops[base as usize];
                    let free = source == Type::Bool && self.ty(Value(base)) == Type::Bool
                        || source == Type::I32 && is_clean(base_op)
                        || base_op.code == Code::Load
                            && !isa::ir::Mem(base_op.aux).is_signed()
                            && isa::ir::Mem(base_op.aux).bytes() <= source.bytes()
                            && base_op.ty.is_integer();
                    if free { base } else { index as u32 }
                }
                // Instructions with VEX have cleared what is above their result.
                Code::ZeroUpper if op.ty == Type::V256 => {
                    let base = self.c.canon[op.a.index()];
                    if self.is_clear_above(base) { base } else { index as u32 }
                }
                _ => index as u32,
            };
            self.c.canon[index] = canon;
            let relaxed = |reg: &Reg| u32::from(reg.offset) == op.a.0;
            if op.code == Code::Put && !self.t.relaxed.iter().any(relaxed) {
                let value = self.c.canon[op.b.index()] as usize;
                let first = &mut self.c.put_at[value];
                *first = (*first).min(index as u32);
            }
            for operand in op.operands() {
                self.c.uses[operand.index()] += 1;
                let base = self.c.canon[operand.index()] as usize;
                if base != operand.index() {
                    self.c.uses[base] += 1;
                }
            }
        }
    }

    /// Whether this vector's register has zeros above its 128 bits.
    fn is_clear_above(&self, index: u32) -> bool {
        let op = &self.ops[index as usize];
        op.ty == Type::V128
            && matches!(
                op.code,
                Code::Lanes
                    | Code::Load
                    | Code::Const
                    | Code::ZeroUpper
                    | Code::SetScalar
                    | Code::LanePut
                    | Code::Splat
                    | Code::HighHalf
            )
    }

    /// The backward pass: what is live, what is dead, where results are going.
    pub fn liveness(&mut self) {
        self.dead_puts();
        self.views();
        for index in 0..self.ops.len() as u32 {
            if self.can_be_lazy(index) {
                self.c.lazy[index as usize] = true;
            }
        }
        let mut wish = [u32::MAX; 32]; // by host register, vectors from 16
        let mut relaxed = Relaxed {
            live: u64::MAX,
            exit: None,
            used: false,
            faults: false,
            renewed: self.renews_relaxed(),
        };
        for index in (0..self.ops.len() as u32).rev() {
            let op = self.ops[index as usize];
            let info = op.code.info();
            self.note_relaxed_use(&op, &mut relaxed);
            let live = match op.code {
                _ if self.c.dead[index as usize] => false,
                Code::Put => self.put_is_live(&op, &mut relaxed, &mut wish),
                _ => has_effect(&op) || self.c.last[index as usize] != 0,
            };
            if !live || self.c.canon[index as usize] != index {
                self.c.dead[index as usize] = true;
                continue;
            }
            let wished = self.c.hint[index as usize];
            if wished != NONE {
                let granted = wish[usize::from(wished)] == index;
                self.c.hint[index as usize] = if granted { wished & 15 } else { NONE };
            }
            if info.faults || is_exit(op.code) {
                wish = [u32::MAX; 32];
            }
            self.relaxed_at(index, &op, &mut relaxed);
            match op.code {
                Code::Get => self.unwish_state(&op, &mut wish),
                Code::Put => {
                    self.unwish_state(&op, &mut wish);
                    self.wish(&op, &mut wish);
                }
                Code::ClearUppers => wish = [u32::MAX; 32],
                _ => {}
            }
            if op.code == Code::FCompare && self.c.last[index as usize] == 0 {
                self.c.lazy[index as usize] = false; // its user is dead, its sticky bits are not
            }
            if self.is_lazy(index) {
                continue; // its operands were marked where it is used
            }
            for operand in op.operands() {
                self.mark(operand, index, &mut wish);
            }
        }
    }

    /// Notes a use, through lazy values.
    fn mark(&mut self, value: Value, at: u32, wish: &mut [u32; 32]) {
        let value = self.canon(value);
        let last = &mut self.c.last[value as usize];
        *last = (*last).max(at);
        let op = self.ops[value as usize];
        if op.code == Code::Get
            && let Some(register) = self.host_register(op.a.0)
            && wish[register] != at
        {
            wish[register] = u32::MAX;
        }
        if self.is_lazy(value) && at <= self.c.put_at[value as usize] {
            for operand in op.operands() {
                self.mark(operand, at, wish);
            }
        }
    }

    fn host_register(&self, offset: u32) -> Option<usize> {
        self.t
            .map
            .gpr(offset)
            .map(usize::from)
            .or_else(|| self.t.map.xmm(offset).map(|(host, _)| usize::from(host) + 16))
    }

    fn unwish_state(&self, op: &Op, wish: &mut [u32; 32]) {
        if let Some(register) = self.host_register(op.a.0) {
            wish[register] = u32::MAX;
        }
    }

    fn wish(&mut self, op: &Op, wish: &mut [u32; 32]) {
        let value = self.canon(op.b);
        let source = &self.ops[value as usize];
        if matches!(source.code, Code::Get | Code::Const) || self.is_lazy(value) {
            return;
        }
        let Some(register) = self.host_register(op.a.0) else { return };
        let whole = match register {
            0..16 => op.ty == Type::I64,
            _ => {
                let (host, inside) = self.t.map.xmm(op.a.0).expect("it is a vector register");
                let (_, _, pinned) = self.t.map.xmms[usize::from(host)];
                inside == 0
                    && pinned.bytes() <= op.ty.bytes().max(8)
                    && pinned.bytes() == op.ty.bytes()
            }
        };
        let same_class = (register >= 16) == self.ty(Value(value)).is_vector();
        if whole && same_class {
            wish[register] = value;
            self.c.hint[value as usize] = register as u8;
        }
    }

    fn put_is_live(&mut self, op: &Op, relaxed: &mut Relaxed, wish: &mut [u32; 32]) -> bool {
        for (bit, reg) in self.t.relaxed.iter().enumerate() {
            if u32::from(reg.offset) == op.a.0 && reg.ty == op.ty {
                let was = relaxed.live & 1 << bit != 0;
                relaxed.live &= !(1 << bit);
                let pinned = self.host_register(op.a.0).is_some();
                let flags = was && op.ty == Type::Flags && !pinned;
                let Some(exit) = relaxed.exit.take().filter(|_| flags) else {
                    return was;
                };
                self.c.sunk.push((exit, op.b));
                self.mark(op.b, exit, wish);
                return false;
            }
        }
        true
    }

    /// Whether a loop that is this block has no use for relaxed cells as it begins anew. Looking at
    /// the code behind an exit does not reach as far.
    fn renews_relaxed(&self) -> bool {
        let loops =
            |op: &Op| matches!(op.code, Code::Exit | Code::ExitIf) && op.immediate() == self.start;
        let mut old = (1u64 << self.t.relaxed.len()) - 1;
        if old == 0 || !self.ops.iter().any(loops) {
            return false;
        }
        for op in self.ops {
            match op.code {
                Code::Get | Code::Put => {
                    let (start, end) = (op.a.0, op.a.0 + op.ty.bytes());
                    for (bit, reg) in self.t.relaxed.iter().enumerate() {
                        let cell = u32::from(reg.offset);
                        if old & 1 << bit == 0 || start >= cell + reg.ty.bytes() || end <= cell {
                            continue;
                        }
                        if op.code == Code::Get || start != cell || op.ty != reg.ty {
                            return false;
                        }
                        old &= !(1 << bit);
                    }
                }
                Code::Exit | Code::Call | Code::ExitIf if op.aux & 1 != 0 || loops(op) => {}
                code if is_exit(code) || matches!(code, Code::Helper | Code::RaiseIf) => {
                    return old == 0;
                }
                _ => {}
            }
            if old == 0 {
                return true;
            }
        }
        // The last exit, too, leads to where they are overwritten.
        true
    }

    /// A flags value that is used behind an instruction that may fault must be in state there: the
    /// rest of the block is then done anew, from state.
    fn note_relaxed_use(&self, op: &Op, relaxed: &mut Relaxed) {
        match op.code {
            Code::InsnStart => {
                let wanted = relaxed.used || relaxed.exit.is_some();
                if std::mem::take(&mut relaxed.faults) && wanted {
                    relaxed.all();
                }
            }
            Code::Put if op.ty == Type::Flags => relaxed.used = false,
            code => {
                relaxed.faults |= code.info().faults;
                relaxed.used =
                    relaxed.used || op.operands().any(|operand| self.ty(operand) == Type::Flags);
            }
        }
    }

    fn relaxed_at(&self, index: u32, op: &Op, relaxed: &mut Relaxed) {
        match op.code {
            Code::Discard => {
                for (bit, reg) in self.t.relaxed.iter().enumerate() {
                    if u32::from(reg.offset) == op.a.0 {
                        relaxed.live &= !(1 << bit);
                    }
                }
            }
            Code::Get => {
                for (bit, reg) in self.t.relaxed.iter().enumerate() {
                    let (start, end) = (u32::from(reg.offset), u32::from(reg.offset) + 8);
                    if op.a.0 < end && op.a.0 + op.ty.bytes() > start {
                        relaxed.live |= 1 << bit;
                        relaxed.exit = None;
                    }
                }
            }
            Code::Exit | Code::Call if op.aux & 1 != 0 => relaxed.live = 0,
            Code::Exit if relaxed.renewed && op.immediate() == self.start => relaxed.live = 0,
            Code::ExitIf if op.aux & 1 != 0 => {}
            Code::ExitIf if relaxed.renewed && op.immediate() == self.start => {}
            Code::ExitIf => {
                let alone = relaxed.live & ((1 << self.t.relaxed.len()) - 1) == 0;
                relaxed.all();
                relaxed.exit = alone.then_some(index);
            }
            code if is_exit(code) || matches!(code, Code::Helper | Code::RaiseIf) => {
                relaxed.all();
            }
            _ => {}
        }
    }
}

/// Makes or takes upper halves. To widen a value and to put it is no more than 128-bit instructions
/// do anyway.
fn is_wide(op: &Op) -> bool {
    match op.ty {
        Type::V256 => !matches!(op.code, Code::ZeroUpper | Code::Put),
        _ => op.code == Code::Variant,
    }
}

/// Must be done even when the result is unused. Comparisons of FP numbers leave sticky bits.
fn has_effect(op: &Op) -> bool {
    let compares = op.code == Code::Flags && FlagKind::from_aux(op.aux).is_float();
    op.code.info().effect || compares
}
