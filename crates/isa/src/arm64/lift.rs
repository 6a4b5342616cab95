//! From words to IR: operands, and what all rows share.

use super::{MODE_DEFAULT_NAN, MODE_FLUSH, dead_flags, decode, helpers, state};
use crate::front_end::{Event, Fetch, Host, Key};
use crate::ir::{Code, Cond, FlagKind, FpRule, Ir, NanRule, Type, Value};
use crate::table::{Pattern, bits};

/// A row of a chapter.
pub struct Row {
    /// The manual's name, with a suffix where one name has several encodings.
    pub name: &'static str,
    /// The words it describes.
    pub pattern: Pattern,
    /// What they mean.
    pub lift: fn(&mut Lift, u32),
}

/// Rd, Rt.
pub const fn rd(word: u32) -> u32 {
    bits(word, 4, 0)
}

/// Rn.
pub const fn rn(word: u32) -> u32 {
    bits(word, 9, 5)
}

/// Rt2, Ra.
pub const fn ra(word: u32) -> u32 {
    bits(word, 14, 10)
}

/// Rm, Rs.
pub const fn rm(word: u32) -> u32 {
    bits(word, 20, 16)
}

/// One bit.
pub const fn bit(word: u32, at: u32) -> bool {
    word >> at & 1 != 0
}

/// The type that bit 31 (`sf`) chooses.
pub const fn width(word: u32) -> Type {
    if bit(word, 31) { Type::I64 } else { Type::I32 }
}

/// One instruction being lifted.
pub struct Lift<'a> {
    /// The block.
    pub ir: &'a mut Ir,
    /// The block's mode.
    pub mode: u64,
    /// What the host has one instruction for.
    pub host: Host,
    /// The instruction's address.
    pub pc: u64,
    /// Where lifting goes on if the block does not end.
    pub next: u64,
}

/// Registers.
impl Lift<'_> {
    /// X`n` or W`n`; 31 is zero.
    pub fn x(&mut self, n: u32, ty: Type) -> Value {
        if n == 31 {
            return self.ir.constant(ty, 0);
        }
        let value = self.ir.get(state::x(n));
        self.ir.trunc(ty, value)
    }

    /// The same; 31 is SP.
    pub fn x_sp(&mut self, n: u32, ty: Type) -> Value {
        let value = self.ir.get(state::x(n));
        self.ir.trunc(ty, value)
    }

    /// Writes X`n` with a zero-extended value; 31 is nowhere.
    pub fn set_x(&mut self, n: u32, value: Value) {
        if n != 31 {
            self.set_x_sp(n, value);
        }
    }

    /// The same; 31 is SP.
    pub fn set_x_sp(&mut self, n: u32, value: Value) {
        let value = self.ir.zext(Type::I64, value);
        self.ir.put(state::x(n), value);
    }

    /// V`n`.
    pub fn v(&mut self, n: u32) -> Value {
        self.ir.get(state::v(n))
    }

    /// Writes V`n`.
    pub fn set_v(&mut self, n: u32, value: Value) {
        self.ir.put(state::v(n), value);
    }

    /// Writes V`n`, whose upper half becomes zero unless `full`.
    pub fn set_v_half(&mut self, n: u32, value: Value, full: bool) {
        let value = if full { value } else { self.low_half(value) };
        self.set_v(n, value);
    }

    /// The low half of a vector; the upper one is zero.
    pub fn low_half(&mut self, vector: Value) -> Value {
        let low = self.ir.scalar(Type::F64, vector);
        self.ir.zero_upper(low)
    }

    /// The low lane of V`n` as `F32` or `F64`.
    pub fn f(&mut self, n: u32, ty: Type) -> Value {
        let vector = self.v(n);
        self.ir.scalar(ty, vector)
    }

    /// Writes V`n` with a scalar, FP or integer; the rest becomes zero.
    pub fn set_f(&mut self, n: u32, value: Value) {
        let value = self.ir.zero_upper(value);
        self.set_v(n, value);
    }

    /// A lane as FP.
    pub fn f_lane(&mut self, vector: Value, ty: Type, lane: u32) -> Value {
        if lane == 0 {
            return self.ir.scalar(ty, vector);
        }
        let int = self.ir.lane_get(Type::integer(ty.bytes()), vector, lane);
        self.ir.bits(ty, int)
    }

    /// The NaN rule of this block.
    pub fn nan_rule(&self) -> NanRule {
        if self.mode & MODE_DEFAULT_NAN != 0 { NanRule::Default } else { NanRule::Arm }
    }

    /// Whether what is too small for a normal number is zero in this block.
    pub fn flushes(&self) -> bool {
        self.mode & MODE_FLUSH != 0
    }

    /// Rounding as FPCR says.
    pub fn rule(&self) -> FpRule {
        FpRule::new(self.nan_rule())
    }
}

/// Flags.
impl Lift<'_> {
    /// N, Z, C, V.
    pub fn flags(&mut self) -> Value {
        self.ir.get(state::FLAGS)
    }

    /// Writes them as `kind` makes them of `a` and `b`.
    pub fn set_flags(&mut self, kind: FlagKind, ty: Type, a: Value, b: Value, c: Value) {
        let flags = self.ir.flags(kind, ty, a, b, c);
        self.ir.put(state::FLAGS, flags);
    }

    /// The condition of a `cond` field; `None` is always.
    pub fn condition(&mut self, cond: u32) -> Option<Value> {
        const CONDITIONS: [Cond; 7] =
            [Cond::Z, Cond::C, Cond::S, Cond::O, Cond::Hi, Cond::Ge, Cond::G];
        let positive = *CONDITIONS.get(cond as usize >> 1)?;
        let cond = if cond & 1 != 0 { positive.inverse() } else { positive };
        let flags = self.flags();
        Some(self.ir.condition(cond, flags))
    }

    /// Carry as a `Bool`.
    pub fn carry(&mut self) -> Value {
        let flags = self.flags();
        self.ir.condition(Cond::C, flags)
    }
}

/// Control.
impl Lift<'_> {
    /// An unconditional jump to a known place.
    pub fn jump(&mut self, target: u64) {
        if self.ir.may_follow(target) {
            self.next = target;
        } else {
            self.ir.exit(target);
        }
    }

    /// An event whose pc is this instruction's, or the next one's (`after`).
    pub fn raise(&mut self, number: u16, after: bool, info: u64) {
        let pc = self.ir.imm(if after { self.next } else { self.pc } as i64);
        self.ir.put(state::PC, pc);
        let info = self.ir.imm(info as i64);
        self.ir.raise(number, info);
    }

    /// The word is not allocated after all.
    pub fn undefined(&mut self, word: u32) {
        self.raise(Event::ILLEGAL, false, u64::from(word));
    }

    /// The instruction is computed by `helpers::vector`, from state to state.
    pub fn vector_helper(&mut self, word: u32) {
        if !helpers::computes(word) {
            return self.undefined(word);
        }
        let word = self.ir.imm(i64::from(word));
        let sticky = self.ir.helper(helpers::VECTOR, word, Value::NONE, Value::NONE);
        let sticky = self.ir.trunc(Type::I32, sticky);
        let mxcsr = self.ir.fp_control_get();
        let mxcsr = self.ir.alu(Code::Or, mxcsr, sticky);
        self.ir.fp_control_put(mxcsr);
    }

    /// The same for an instruction without FP exceptions.
    pub fn integer_helper(&mut self, word: u32) {
        if !helpers::computes(word) {
            return self.undefined(word);
        }
        let word = self.ir.imm(i64::from(word));
        self.ir.helper(helpers::VECTOR, word, Value::NONE, Value::NONE);
    }
}

/// Lifts a superblock: direct jumps forward and not-taken branches are followed.
pub fn block(key: Key, host: Host, fetch: &mut dyn Fetch, ir: &mut Ir) {
    let mut window = Window { start: key.pc, valid: 0, bytes: [0; 64] };
    let mut pc = key.pc;
    if !pc.is_multiple_of(4) {
        ir.insn(pc, 4);
        return ir.misaligned_fetch(state::PC, pc);
    }
    while !ir.ended() {
        let Some(word) = window.word(pc, fetch) else {
            match ir.insns() {
                0 => ir.fetch_fault(state::PC, pc, pc),
                _ => ir.exit(pc),
            }
            break;
        };
        ir.insn(pc, 4);
        let mut lift = Lift { ir, mode: key.mode, host, pc, next: pc.wrapping_add(4) };
        match decode(word) {
            Some(row) => (row.lift)(&mut lift, word),
            None => lift.undefined(word),
        }
        pc = lift.next;
        if !ir.ended() && !ir.may_follow(pc) {
            ir.exit(pc);
        }
    }
    drop_dead_flags(key.pc, &mut window, fetch, ir);
}

/// Exits behind which the flags are overwritten need not write them.
fn drop_dead_flags(start: u64, window: &mut Window, fetch: &mut dyn Fetch, ir: &mut Ir) {
    for index in 0..ir.ops().len() {
        let op = ir.ops()[index];
        let direct = matches!(op.code, Code::Exit | Code::ExitIf | Code::Call);
        let mut word = |pc: u64| {
            let on_page = (pc ^ start) >> 12 == 0;
            if on_page { window.word(pc, fetch) } else { None }
        };
        if direct && dead_flags::are_dead(op.immediate(), &mut word) {
            ir.relaxed_dead_at(index);
        }
    }
}

/// The code ahead, fetched in larger pieces.
struct Window {
    start: u64,
    valid: usize,
    bytes: [u8; 64],
}

impl Window {
    /// The instruction at `pc`.
    fn word(&mut self, pc: u64, fetch: &mut dyn Fetch) -> Option<u32> {
        let mut at = pc.wrapping_sub(self.start) as usize;
        if at.checked_add(4).is_none_or(|end| end > self.valid) {
            self.start = pc;
            self.valid = fetch.fetch(pc, &mut self.bytes).min(self.bytes.len());
            at = 0;
        }
        let bytes = self.bytes.get(at..at + 4).filter(|_| at + 4 <= self.valid)?;
        bytes.try_into().ok().map(u32::from_le_bytes)
    }
}
