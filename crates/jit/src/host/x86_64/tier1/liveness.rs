//! The backward pass: what is live, what is dead, what is computed where it is used, and where
//! results are going.

use isa::ir::{Code, FlagKind, Op, Type, Value};

use super::super::map::NONE;
use super::{Job, Lazy, class, is_exit};

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
            let class = class::of(op);
            let fact = self.c.values[index as usize];
            if class & class::PURE == 0 {
                self.note_relaxed_use(op, fact.uses_flags, &mut relaxed);
            } else {
                relaxed.used |= fact.uses_flags;
            }
            if op.code == Code::InsnStart {
                continue;
            }
            let live = match op.code {
                _ if fact.dead => false,
                Code::Put => self.put_is_live(op, &mut relaxed, &mut wishes),
                _ => fact.last != 0 || class & class::PURE == 0 && has_effect(op),
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
            if class & class::PURE == 0 {
                if class & (class::FAULTS | class::EXIT) != 0 {
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
            }
            if fact.lazy == Lazy::Yes {
                if op.code != Code::FCompare || fact.last != 0 {
                    continue; // its operands were marked where it is used
                }
                // Its user is dead, its sticky bits are not.
                self.c.values[index as usize].lazy = Lazy::No;
            }
            for operand in class::operands(op, class) {
                if operand.is_some() {
                    self.mark(operand, index, &mut wishes);
                }
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
            for operand in class::operands(op, class::of(op)) {
                if operand.is_some() {
                    self.mark(operand, at, wishes);
                }
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

/// Must be done even when the result is unused. Comparisons of FP numbers leave sticky bits.
fn has_effect(op: &Op) -> bool {
    let compares = op.code == Code::Flags && FlagKind::from_aux(op.aux).is_float();
    op.code.info().effect || compares
}
