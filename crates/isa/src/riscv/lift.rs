//! From words to IR: operands, and what all rows share.

use super::rounding::Dynamic;
use super::state;
use super::{decode, rvc};
use crate::front_end::{Event, Fetch};
use crate::ir::{Ir, Type, Value};
use crate::table::{Pattern, bits, signed_bits};

/// A row of a chapter.
pub struct Row {
    /// The manual's name.
    pub name: &'static str,
    /// The words it describes.
    pub pattern: Pattern,
    /// What they mean.
    pub lift: fn(&mut Lift, u32),
}

/// The operands of an instruction; each format fills in its own.
#[derive(Clone, Copy, Default, Debug)]
#[allow(missing_docs, reason = "the manual's names")]
pub struct Args {
    pub rd: u32,
    pub rs1: u32,
    pub rs2: u32,
    pub rs3: u32,
    /// Rounding mode, or funct3.
    pub rm: u32,
    pub imm: i32,
    /// The whole word.
    pub word: u32,
}

/// The manual's formats.
#[allow(missing_docs, reason = "the manual's names")]
impl Args {
    pub fn r(word: u32) -> Self {
        Self {
            rd: bits(word, 11, 7),
            rs1: bits(word, 19, 15),
            rs2: bits(word, 24, 20),
            rs3: bits(word, 31, 27),
            rm: bits(word, 14, 12),
            imm: 0,
            word,
        }
    }

    pub fn i(word: u32) -> Self {
        Self { imm: signed_bits(word, 31, 20), ..Self::r(word) }
    }

    /// Shifts: the count is the immediate.
    pub fn sh(word: u32) -> Self {
        Self { imm: bits(word, 25, 20) as i32, ..Self::r(word) }
    }

    pub fn s(word: u32) -> Self {
        let imm = signed_bits(word, 31, 25) << 5 | bits(word, 11, 7) as i32;
        Self { imm, ..Self::r(word) }
    }

    pub fn b(word: u32) -> Self {
        let low = bits(word, 7, 7) << 11 | bits(word, 30, 25) << 5 | bits(word, 11, 8) << 1;
        Self { imm: signed_bits(word, 31, 31) << 12 | low as i32, ..Self::r(word) }
    }

    pub fn u(word: u32) -> Self {
        Self { imm: (word & 0xffff_f000) as i32, ..Self::r(word) }
    }

    pub fn j(word: u32) -> Self {
        let low = bits(word, 19, 12) << 12 | bits(word, 20, 20) << 11 | bits(word, 30, 21) << 1;
        Self { imm: signed_bits(word, 31, 31) << 20 | low as i32, ..Self::r(word) }
    }
}

/// One instruction being lifted.
pub struct Lift<'a> {
    /// The block.
    pub ir: &'a mut Ir,
    /// The instruction's address.
    pub pc: u64,
    /// Where lifting goes on if the block does not end.
    pub next: u64,
    /// What the dynamic rounding mode is.
    pub dynamic: Dynamic,
    /// What is known of singles.
    pub singles: &'a mut Singles,
}

/// What the block knows of FP registers as singles.
#[derive(Default)]
pub struct Singles {
    /// By bit: the register holds a single with ones above it, as all singles are kept.
    pub boxed: u32,
    /// The single in a register that was looked at: if it is not boxed, the canonical NaN.
    pub checked: [Option<Value>; 32],
}

impl Lift<'_> {
    /// Integer register `n`.
    pub fn x(&mut self, n: u32) -> Value {
        if n == 0 { self.ir.imm(0) } else { self.ir.get(state::x(n)) }
    }

    /// Its low word.
    pub fn w(&mut self, n: u32) -> Value {
        let x = self.x(n);
        self.ir.trunc(Type::I32, x)
    }

    /// Writes integer register `n`.
    pub fn set_x(&mut self, n: u32, value: Value) {
        if n != 0 {
            self.ir.put(state::x(n), value);
        }
    }

    /// Writes integer register `n` with a sign-extended word.
    pub fn set_w(&mut self, n: u32, value: Value) {
        let value = self.ir.sext(Type::I64, value);
        self.set_x(n, value);
    }

    /// Writes integer register `n` with 0 or 1.
    pub fn set_bool(&mut self, n: u32, value: Value) {
        let value = self.ir.zext(Type::I64, value);
        self.set_x(n, value);
    }

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
}

/// Lifts a superblock: direct jumps forward and not-taken branches are followed.
pub fn block(mut pc: u64, dynamic: Dynamic, fetch: &mut dyn Fetch, ir: &mut Ir) {
    let mut singles = Singles::default();
    let mut window = Window { start: pc, valid: 0, bytes: [0; 64] };
    while !ir.ended() {
        let (word, bytes) = match window.instruction(pc, fetch) {
            Ok(found) => found,
            Err(missing) if ir.insns() == 0 => return ir.fetch_fault(state::PC, pc, missing),
            Err(_) => return ir.exit(pc),
        };
        ir.insn(pc, bytes);
        let next = pc.wrapping_add(u64::from(bytes));
        let mut lift = Lift { ir, pc, next, dynamic, singles: &mut singles };
        match decode(word) {
            Some(row) => (row.lift)(&mut lift, word),
            None => lift.raise(Event::ILLEGAL, false, u64::from(word)),
        }
        pc = lift.next;
        if !ir.ended() && !ir.may_follow(pc) {
            ir.exit(pc);
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
    /// The instruction at `pc`, expanded if compressed, and its length; or the address of the half
    /// that cannot be read.
    fn instruction(&mut self, pc: u64, fetch: &mut dyn Fetch) -> Result<(u32, u32), u64> {
        let low = self.half(pc, fetch).ok_or(pc)?;
        if low & 3 != 3 {
            // An illegal compressed instruction becomes the illegal word 0.
            return Ok((rvc::expand(low).unwrap_or(0), 2));
        }
        let above = pc.wrapping_add(2);
        let high = self.half(above, fetch).ok_or(above)?;
        Ok((u32::from(low) | u32::from(high) << 16, 4))
    }

    fn half(&mut self, pc: u64, fetch: &mut dyn Fetch) -> Option<u16> {
        let mut at = pc.wrapping_sub(self.start) as usize;
        if at.checked_add(2).is_none_or(|end| end > self.valid) {
            self.start = pc;
            self.valid = fetch.fetch(pc, &mut self.bytes);
            at = 0;
        }
        let bytes = self.bytes.get(at..at + 2).filter(|_| at + 2 <= self.valid)?;
        Some(u16::from_le_bytes([bytes[0], bytes[1]]))
    }
}
