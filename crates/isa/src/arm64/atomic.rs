//! C4.1.94: exclusive, ordered and atomic accesses.

use super::helpers;
use super::lift::{Lift, Row, bit, ra, rd, rm, rn};
use super::state;
use crate::ir::{AtomicOp, Code, Mem, Type};
use crate::table::{Pattern, assert_disjoint, bits, pattern};

isa! {
    stxr           ".. 001000 0 0 0 ..... . 11111 ..... ....." => |l, w| l.store_exclusive(w);
    ldxr           ".. 001000 0 1 0 11111 . 11111 ..... ....." => |l, w| l.load_exclusive(w);
    stxp           "1. 001000 0 0 1 ..... . ..... ..... ....." => |l, w| l.store_exclusive_pair(w);
    ldxp           "1. 001000 0 1 1 11111 . ..... ..... ....." => |l, w| l.load_exclusive_pair(w);
    casp           "0. 001000 0 . 1 ..... . 11111 ..... ....." => |l, w| l.compare_and_swap_pair(w);
    stlr           ".. 001000 1 0 0 11111 . 11111 ..... ....." => |l, w| l.store_release(w);
    ldar           ".. 001000 1 1 0 11111 . 11111 ..... ....." => |l, w| l.load_acquire(w);
    cas            ".. 001000 1 . 1 ..... . 11111 ..... ....." => |l, w| l.compare_and_swap(w);
    ldadd          ".. 111000 .. 1 ..... 0 000 00 ..... ....." => |l, w| l.atomic(AtomicOp::Add, w);
    ldclr          ".. 111000 .. 1 ..... 0 001 00 ..... ....." => |l, w| l.atomic(AtomicOp::AndNot, w);
    ldeor          ".. 111000 .. 1 ..... 0 010 00 ..... ....." => |l, w| l.atomic(AtomicOp::Xor, w);
    ldset          ".. 111000 .. 1 ..... 0 011 00 ..... ....." => |l, w| l.atomic(AtomicOp::Or, w);
    ldsmax         ".. 111000 .. 1 ..... 0 100 00 ..... ....." => |l, w| l.atomic(AtomicOp::MaxS, w);
    ldsmin         ".. 111000 .. 1 ..... 0 101 00 ..... ....." => |l, w| l.atomic(AtomicOp::MinS, w);
    ldumax         ".. 111000 .. 1 ..... 0 110 00 ..... ....." => |l, w| l.atomic(AtomicOp::MaxU, w);
    ldumin         ".. 111000 .. 1 ..... 0 111 00 ..... ....." => |l, w| l.atomic(AtomicOp::MinU, w);
    swp            ".. 111000 .. 1 ..... 1 000 00 ..... ....." => |l, w| l.atomic(AtomicOp::Xchg, w);
    ldapr          ".. 111000 10 1 11111 1 100 00 ..... ....." => |l, w| l.load_acquire(w);
}

/// The type and access of the `size` field.
fn sized(word: u32) -> (Type, Mem) {
    let bytes = 1 << bits(word, 31, 30);
    (Type::integer(bytes), Mem::new(bytes).aligned().ordered())
}

impl Lift<'_> {
    fn load_exclusive(&mut self, word: u32) {
        let (ty, mem) = sized(word);
        let address = self.x_sp(rn(word), Type::I64);
        let value = self.ir.load(ty, address, 0, mem);
        let value = self.ir.zext(Type::I64, value);
        self.ir.put(state::EXCLUSIVE_ADDRESS, address);
        self.ir.put(state::EXCLUSIVE_VALUE, value);
        self.set_x(rd(word), value);
    }

    /// Succeeds if memory still holds what was loaded.
    fn store_exclusive(&mut self, word: u32) {
        let (ty, mem) = sized(word);
        let (address, value) = (self.x_sp(rn(word), Type::I64), self.x(rd(word), ty));
        let (at, old) =
            (self.ir.get(state::EXCLUSIVE_ADDRESS), self.ir.get(state::EXCLUSIVE_VALUE));
        let reserved = self.ir.pair(at, old);
        let done = self.ir.store_conditional(address, value, reserved, mem);
        let done = self.ir.zext(Type::I64, done);
        let one = self.ir.imm(1);
        let failed = self.ir.alu(Code::Xor, done, one);
        let nothing = self.ir.imm(-1);
        self.ir.put(state::EXCLUSIVE_ADDRESS, nothing);
        self.set_x(rm(word), failed);
    }

    fn load_exclusive_pair(&mut self, word: u32) {
        let address = self.x_sp(rn(word), Type::I64);
        let (low, high);
        if bit(word, 30) {
            low = self.ir.load(Type::I64, address, 0, Mem::new(8).aligned());
            high = self.ir.load(Type::I64, address, 8, Mem::new(8));
            self.ir.put(state::EXCLUSIVE_VALUE, low);
            self.ir.put(state::EXCLUSIVE_HIGH, high);
        } else {
            let both = self.ir.load(Type::I64, address, 0, Mem::new(8).aligned());
            self.ir.put(state::EXCLUSIVE_VALUE, both);
            let part = self.ir.trunc(Type::I32, both);
            low = self.ir.zext(Type::I64, part);
            high = self.ir.shr_imm(both, 32);
        }
        self.ir.put(state::EXCLUSIVE_ADDRESS, address);
        self.set_x(rd(word), low);
        self.set_x(ra(word), high);
    }

    fn store_exclusive_pair(&mut self, word: u32) {
        let address = self.x_sp(rn(word), Type::I64);
        let (low, high) = (self.x(rd(word), Type::I64), self.x(ra(word), Type::I64));
        let failed = if bit(word, 30) {
            self.ir.helper(helpers::STORE_PAIR, address, low, high)
        } else {
            let value = self.ir.deposit(low, high, 32, 32);
            let (at, old) =
                (self.ir.get(state::EXCLUSIVE_ADDRESS), self.ir.get(state::EXCLUSIVE_VALUE));
            let reserved = self.ir.pair(at, old);
            let mem = Mem::new(8).aligned();
            let done = self.ir.store_conditional(address, value, reserved, mem);
            let done = self.ir.zext(Type::I64, done);
            let one = self.ir.imm(1);
            self.ir.alu(Code::Xor, done, one)
        };
        let nothing = self.ir.imm(-1);
        self.ir.put(state::EXCLUSIVE_ADDRESS, nothing);
        self.set_x(rm(word), failed);
    }

    fn load_acquire(&mut self, word: u32) {
        let (ty, mem) = sized(word);
        let address = self.x_sp(rn(word), Type::I64);
        let value = self.ir.load(ty, address, 0, mem);
        self.set_x(rd(word), value);
    }

    /// A later load-acquire may not pass it, so a barrier follows.
    fn store_release(&mut self, word: u32) {
        let (ty, mem) = sized(word);
        let (address, value) = (self.x_sp(rn(word), Type::I64), self.x(rd(word), ty));
        self.ir.store(address, 0, value, mem);
        self.ir.fence();
    }

    fn compare_and_swap(&mut self, word: u32) {
        let (ty, mem) = sized(word);
        let address = self.x_sp(rn(word), Type::I64);
        let (expected, new) = (self.x(rm(word), ty), self.x(rd(word), ty));
        let old = self.ir.cas(address, expected, new, mem);
        self.set_x(rm(word), old);
    }

    fn compare_and_swap_pair(&mut self, word: u32) {
        let (s, t) = (rm(word), rd(word));
        if (s | t) & 1 != 0 {
            return self.undefined(word);
        }
        let address = self.x_sp(rn(word), Type::I64);
        if bit(word, 30) {
            let both = |l: &mut Self, n: u32| {
                let (low, high) = (l.x(n, Type::I64), l.x(n + 1, Type::I64));
                l.ir.pair(low, high)
            };
            let (expected, new) = (both(self, s), both(self, t));
            let old = self.ir.cas(address, expected, new, Mem::new(16).aligned());
            let (low, high) = (self.ir.lo(old), self.ir.hi(old));
            self.set_x(s, low);
            self.set_x(s + 1, high);
        } else {
            let both = |l: &mut Self, n: u32| {
                let (low, high) = (l.x(n, Type::I32), l.x(n + 1, Type::I64));
                let (low, high) = (l.ir.zext(Type::I64, low), l.ir.shl_imm(high, 32));
                l.ir.alu(Code::Or, low, high)
            };
            let (expected, new) = (both(self, s), both(self, t));
            let old = self.ir.cas(address, expected, new, Mem::new(8).aligned());
            let (low, high) = (self.ir.trunc(Type::I32, old), self.ir.shr_imm(old, 32));
            self.set_x(s, low);
            self.set_x(s + 1, high);
        }
    }

    fn atomic(&mut self, op: AtomicOp, word: u32) {
        let (ty, mem) = sized(word);
        let (address, operand) = (self.x_sp(rn(word), Type::I64), self.x(rm(word), ty));
        let old = self.ir.atomic(op, address, operand, mem);
        self.set_x(rd(word), old);
    }
}
