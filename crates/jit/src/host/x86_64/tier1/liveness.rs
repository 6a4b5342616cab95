//! The backward pass: what is live, what is dead, what is computed where it is used, and where
//! results are going.

use isa::ir::{Code, FlagKind, Op, Reg, Type, Value};

use super::super::map::NONE;
use super::registers::Home;
use super::{Fact, Job, Lazy, is_clean, is_exit};

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

/// Values that are going to be put into pinned registers, while the backward pass is at them: by host
/// register, vectors from 16.
struct Wishes {
    /// The value, and where it is put.
    by_register: [(u32, u32); 32],
    /// Puts from here on do not count any more.
    until: u32,
}

impl Wishes {
    fn new() -> Self {
        Self { by_register: [(0, u32::MAX); 32], until: u32::MAX }
    }

    /// The value that wants to be in a register.
    fn of(&self, register: usize) -> Option<u32> {
        let (value, put) = self.by_register[register & 31];
        (put < self.until).then_some(value)
    }

    fn forget(&mut self, register: usize) {
        self.by_register[register & 31].1 = u32::MAX;
    }

    fn set(&mut self, register: usize, value: u32, put: u32) {
        self.by_register[register & 31] = (value, put);
    }

    /// No value behind this operation may be in its register before.
    fn forget_all(&mut self, at: u32) {
        self.until = at;
    }
}

impl Fact {
    /// Of an operation whose users are not known yet.
    fn new(index: u32, op: &Op) -> Self {
        Self {
            canon: index,
            put_at: u32::MAX,
            last: 0,
            home: Home::None,
            uses: 0,
            hint: NONE,
            place: NONE,
            dead: false,
            lazy: Lazy::No,
            is_flags: op.code == Code::Flags || op.ty == Type::Flags,
            uses_flags: false,
        }
    }
}

/// The forward part.
impl Job<'_> {
    /// How lazy an operation may be that has one use.
    fn laziness(&self, op: &Op) -> Lazy {
        let lazy = match op.code {
            Code::Const | Code::Pair | Code::Compare | Code::Condition => true,
            Code::Add => op.ty == Type::I64 && self.immediate(op.b, Type::I64).is_some(),
            Code::Lea => op.ty == Type::I64,
            Code::FCompare => op.aux != 0,
            _ => false,
        };
        if lazy { Lazy::Yes } else { Lazy::No }
    }

    /// What can be said of each value by what is before it, and how often it is used: views, writes to
    /// pinned registers that are overwritten before anyone can look, and who is lazy.
    fn survey(&mut self) {
        let ops = self.ops;
        let mut last_put = [u32::MAX; 16];
        self.c.values.reserve(ops.len());
        for (index, op) in (0..).zip(ops) {
            let mut fact = Fact::new(index, op);
            self.c.wide |= is_wide(op);
            match op.code {
                Code::Trunc | Code::ZExt | Code::ZeroUpper => fact.canon = self.behind(index, op),
                Code::Get | Code::Put => self.note_put(index, op, &mut last_put),
                Code::Exit | Code::ExitIf => {
                    self.c.loops |= op.immediate() == self.start;
                    last_put = [u32::MAX; 16];
                }
                code if code.info().faults || is_exit(code) => last_put = [u32::MAX; 16],
                _ => fact.lazy = self.laziness(op),
            }
            self.c.values.push(fact);
            for operand in op.operands() {
                self.note_use(index, operand);
            }
        }
    }

    /// The value that this one only looks at.
    fn behind(&self, index: u32, op: &Op) -> u32 {
        let base = self.c.values[op.a.index()].canon;
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

    fn note_put(&mut self, index: u32, op: &Op, last_put: &mut [u32; 16]) {
        if let Some(register) = self.t.map.gpr(op.a.0) {
            let whole = op.code == Code::Put && op.ty.bytes() == 8;
            let register = usize::from(register) & 15;
            let before = last_put[register];
            last_put[register] = if whole { index } else { u32::MAX };
            if whole && before != u32::MAX {
                self.forget_put(before);
            }
        }
        let relaxed = |reg: &Reg| u32::from(reg.offset) == op.a.0;
        if op.code == Code::Put && !self.t.relaxed.iter().any(relaxed) {
            let value = self.c.values[op.b.index()].canon as usize;
            let first = &mut self.c.values[value].put_at;
            *first = (*first).min(index);
        }
    }

    /// A put is dead: its value has one use less.
    fn forget_put(&mut self, put: u32) {
        self.c.values[put as usize].dead = true;
        let value = self.ops[put as usize].b;
        let base = self.c.values[value.index()].canon;
        if self.c.values[base as usize].put_at == put {
            self.c.values[base as usize].put_at = u32::MAX;
        }
        for index in [value.0, base].into_iter().take(1 + usize::from(base != value.0)) {
            let fact = &mut self.c.values[index as usize];
            fact.uses -= 1;
            if fact.uses <= 1 && fact.lazy == Lazy::Shared {
                fact.lazy = Lazy::Yes;
            }
        }
    }

    fn note_use(&mut self, index: u32, operand: Value) {
        let base = self.count_use(index, operand.0);
        if base != operand.0 {
            self.count_use(index, base);
        }
        let flags = self.c.values[operand.index()].is_flags;
        self.c.values[index as usize].uses_flags |= flags;
    }

    /// Gives the value behind it.
    fn count_use(&mut self, index: u32, value: u32) -> u32 {
        let fact = &mut self.c.values[value as usize];
        fact.uses += 1;
        if fact.lazy == Lazy::Yes {
            match self.ops[value as usize].code {
                Code::Const | Code::Pair | Code::Add => {}
                // Its sticky bits must not come later than the next fault: its user is next.
                Code::FCompare if index != value + 1 => fact.lazy = Lazy::No,
                _ if fact.uses > 1 => fact.lazy = Lazy::Shared,
                _ => {}
            }
        }
        fact.canon
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

/// The backward part.
impl Job<'_> {
    /// What is live, what is dead, where results are going.
    pub fn liveness(&mut self) {
        self.survey();
        let ops = self.ops;
        let mut wishes = Wishes::new();
        let mut relaxed = Relaxed {
            live: u64::MAX,
            exit: None,
            used: false,
            faults: false,
            renewed: self.renews_relaxed(),
        };
        for (index, op) in (0..ops.len() as u32).zip(ops).rev() {
            let info = op.code.info();
            let fact = self.c.values[index as usize];
            self.note_relaxed_use(op, fact.uses_flags, &mut relaxed);
            let live = match op.code {
                _ if fact.dead => false,
                Code::Put => self.put_is_live(op, &mut relaxed, &mut wishes),
                _ => fact.last != 0 || has_effect(op),
            };
            if !live || fact.canon != index {
                self.c.values[index as usize].dead = true;
                continue;
            }
            if fact.hint != NONE {
                let granted = wishes.of(usize::from(fact.hint)) == Some(index);
                let hint = if granted { fact.hint & 15 } else { NONE };
                self.c.values[index as usize].hint = hint;
            }
            if info.faults || is_exit(op.code) {
                wishes.forget_all(index);
            }
            self.relaxed_at(index, op, &mut relaxed);
            match op.code {
                Code::Get => self.unwish_state(op, &mut wishes),
                Code::Put => {
                    self.unwish_state(op, &mut wishes);
                    self.wish(index, op, &mut wishes);
                }
                Code::ClearUppers => wishes.forget_all(index),
                _ => {}
            }
            if fact.lazy == Lazy::Yes {
                if op.code != Code::FCompare || fact.last != 0 {
                    continue; // its operands were marked where it is used
                }
                // Its user is dead, its sticky bits are not.
                self.c.values[index as usize].lazy = Lazy::No;
            }
            for operand in op.operands() {
                self.mark(operand, index, &mut wishes);
            }
        }
    }

    /// Notes a use, through lazy values.
    fn mark(&mut self, value: Value, at: u32, wishes: &mut Wishes) {
        let value = self.canon(value);
        let fact = &mut self.c.values[value as usize];
        fact.last = fact.last.max(at);
        let lazy = fact.lazy == Lazy::Yes && at <= fact.put_at;
        let op = &self.ops[value as usize];
        if op.code == Code::Get
            && let Some(register) = self.host_register(op.a.0)
            && wishes.of(register) != Some(at)
        {
            wishes.forget(register);
        }
        if lazy {
            for operand in op.operands() {
                self.mark(operand, at, wishes);
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

    fn unwish_state(&self, op: &Op, wishes: &mut Wishes) {
        if let Some(register) = self.host_register(op.a.0) {
            wishes.forget(register);
        }
    }

    fn wish(&mut self, put: u32, op: &Op, wishes: &mut Wishes) {
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
            wishes.set(register, value, put);
            self.c.values[value as usize].hint = register as u8;
        }
    }

    fn put_is_live(&mut self, op: &Op, relaxed: &mut Relaxed, wishes: &mut Wishes) -> bool {
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
                self.mark(op.b, exit, wishes);
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
        if old == 0 || !self.c.loops {
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
    fn note_relaxed_use(&self, op: &Op, uses_flags: bool, relaxed: &mut Relaxed) {
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
                relaxed.used |= uses_flags;
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
