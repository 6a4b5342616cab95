//! The forward part of the analysis: what can be said of each value by what is before it, and how
//! often it is used.

use std::mem;

use isa::ir::{Code, Op, Reg, Type, Value};

use super::super::map::NONE;
use super::registers::Home;
use super::{Fact, Job, Lazy, class, is_clean};

impl Fact {
    /// Of an operation of which nothing is known yet.
    const NOTHING: Self = Self {
        canon: 0,
        put_at: u32::MAX,
        last: 0,
        home: Home::None,
        uses: 0,
        hint: NONE,
        place: NONE,
        dead: false,
        lazy: Lazy::No,
        is_flags: false,
        uses_flags: false,
    };
}

/// The block under survey.
struct Survey<'a> {
    ops: &'a [Op],
    values: &'a mut [Fact],
    /// By pinned register: its last whole put, if nobody can have looked since.
    last_put: [u32; 16],
}

impl Job<'_> {
    /// Views, writes to pinned registers that are overwritten before anyone can look, who is lazy and
    /// who uses what.
    pub fn survey(&mut self) {
        let mut values = mem::take(&mut self.c.values);
        values.resize(self.ops.len(), Fact::NOTHING);
        let (mut wide, mut loops) = (false, false);
        let mut survey = Survey { ops: self.ops, values: &mut values, last_put: [u32::MAX; 16] };
        for (index, op) in (0..).zip(self.ops) {
            let class = class::of(op);
            let mut canon = index;
            wide |= is_wide(op);
            match op.code {
                Code::InsnStart => {
                    survey.values[index as usize].canon = index;
                    continue;
                }
                Code::Trunc | Code::ZExt | Code::ZeroUpper => {
                    canon = self.behind(index, op, &survey);
                }
                Code::Get => {
                    if let Some(register) = self.t.map.gpr(op.a.0) {
                        survey.last_put[usize::from(register) & 15] = u32::MAX;
                    }
                }
                Code::Put => {
                    let relaxed = |reg: &Reg| u32::from(reg.offset) == op.a.0;
                    let relaxed = self.t.relaxed.iter().any(relaxed);
                    survey.put(index, op, self.t.map.gpr(op.a.0), relaxed);
                }
                Code::Exit | Code::ExitIf => loops |= op.immediate() == self.start,
                _ => {}
            }
            if class & (class::FAULTS | class::EXIT) != 0 {
                survey.last_put = [u32::MAX; 16];
            }
            let lazy = class & class::LAZY != 0 && survey.may_be_lazy(op);
            let fact = &mut survey.values[index as usize];
            fact.canon = canon;
            fact.lazy = if lazy { Lazy::Yes } else { Lazy::No };
            fact.is_flags = op.code == Code::Flags || op.ty == Type::Flags;
            let mut uses_flags = false;
            for operand in class::operands(op, class) {
                if operand.is_some() {
                    uses_flags |= survey.note_use(index, operand);
                }
            }
            survey.values[index as usize].uses_flags = uses_flags;
        }
        self.c.values = values;
        self.c.wide |= wide;
        self.c.loops = loops;
    }

    /// The value that this one only looks at.
    fn behind(&self, index: u32, op: &Op, survey: &Survey<'_>) -> u32 {
        let base = survey.values[op.a.index()].canon;
        let free = match op.code {
            Code::Trunc => true,
            Code::ZExt => {
                let source = self.ty(op.a);
                let base_op = &self.ops[base as usize];
                source == Type::Bool && self.ty(Value(base)) == Type::Bool
                    || source == Type::I32 && is_clean(base_op)
                    || base_op.code == Code::Load
                        && !isa::ir::Mem(base_op.aux).is_signed()
                        && isa::ir::Mem(base_op.aux).bytes() <= source.bytes()
                        && base_op.ty.is_integer()
            }
            // Instructions with VEX have cleared what is above their result.
            _ => op.ty == Type::V256 && self.is_clear_above(base),
        };
        if free { base } else { index }
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
}

impl Survey<'_> {
    /// Whether an operation is lazy if it has one use.
    fn may_be_lazy(&self, op: &Op) -> bool {
        match op.code {
            Code::Add => op.ty == Type::I64 && self.is_immediate(op.b),
            Code::Lea => op.ty == Type::I64,
            Code::FCompare => op.aux != 0,
            _ => true,
        }
    }

    /// Whether a value fits where an instruction takes a constant of 64 bits.
    fn is_immediate(&self, value: Value) -> bool {
        let op = &self.ops[self.values[value.index()].canon as usize];
        op.code == Code::Const
            && op.ty != Type::V128
            && i32::try_from(op.immediate() as i64).is_ok()
    }

    fn put(&mut self, index: u32, op: &Op, register: Option<u8>, relaxed: bool) {
        if let Some(register) = register {
            let whole = op.ty.bytes() == 8;
            let last = &mut self.last_put[usize::from(register) & 15];
            let before = mem::replace(last, if whole { index } else { u32::MAX });
            if whole && before != u32::MAX {
                self.forget_put(before);
            }
        }
        if !relaxed {
            let value = self.values[op.b.index()].canon as usize;
            let first = &mut self.values[value].put_at;
            *first = (*first).min(index);
        }
    }

    /// A put is dead: its value has one use less.
    fn forget_put(&mut self, put: u32) {
        self.values[put as usize].dead = true;
        let value = self.ops[put as usize].b;
        let base = self.values[value.index()].canon;
        if self.values[base as usize].put_at == put {
            self.values[base as usize].put_at = u32::MAX;
        }
        for index in [value.0, base].into_iter().take(1 + usize::from(base != value.0)) {
            let fact = &mut self.values[index as usize];
            fact.uses -= 1;
            if fact.uses <= 1 && fact.lazy == Lazy::Shared {
                fact.lazy = Lazy::Yes;
            }
        }
    }

    /// Gives whether it is a flags value.
    #[inline(always)]
    fn note_use(&mut self, index: u32, operand: Value) -> bool {
        let fact = &mut self.values[operand.index()];
        fact.uses += 1;
        let (lazy, is_flags, base) = (fact.lazy, fact.is_flags, fact.canon);
        if lazy == Lazy::Yes {
            self.share(index, operand.0);
        }
        if base != operand.0 {
            self.values[base as usize].uses += 1;
            if self.values[base as usize].lazy == Lazy::Yes {
                self.share(index, base);
            }
        }
        is_flags
    }

    /// A lazy value got a use.
    fn share(&mut self, index: u32, value: u32) {
        let fact = &mut self.values[value as usize];
        match self.ops[value as usize].code {
            Code::Const | Code::Pair | Code::Add => {}
            // Its sticky bits must not come later than the next fault: its user is next.
            Code::FCompare if index != value + 1 => fact.lazy = Lazy::No,
            _ if fact.uses > 1 => fact.lazy = Lazy::Shared,
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
