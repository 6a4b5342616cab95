//! C4.1.93, "Branches, Exception Generating and System instructions": the branches.
//!
//! Pointer authentication has no effect: signed and plain forms mean the same.

use super::lift::{Lift, Row, rd, rn, width};
use crate::front_end::Event;
use crate::ir::{Cmp, Type};
use crate::table::{Pattern, assert_disjoint, bits, pattern, signed_bits};

isa! {
    b              "0 00101 .........................." => |l, w| { let to = l.relative(signed_bits(w, 25, 0)); l.jump(to) };
    bl             "1 00101 .........................." => |l, w| l.branch_link(w);
    b_cond         "0101010 0 ................... 0 ...." => |l, w| l.branch_if(w);
    cbz            ". 011010 0 ................... ....." => |l, w| l.branch_zero(w, Cmp::Eq);
    cbnz           ". 011010 1 ................... ....." => |l, w| l.branch_zero(w, Cmp::Ne);
    tbz            ". 011011 0 ..... .............. ....." => |l, w| l.branch_bit(w, Cmp::Eq);
    tbnz           ". 011011 1 ..... .............. ....." => |l, w| l.branch_bit(w, Cmp::Ne);
    br             "1101011 0000 11111 000000 ..... 00000" => |l, w| l.branch_register(w);
    blr            "1101011 0001 11111 000000 ..... 00000" => |l, w| l.call_register(w);
    ret            "1101011 0010 11111 000000 ..... 00000" => |l, w| l.return_register(rn(w));
    braaz          "1101011 0000 11111 00001. ..... 11111" => |l, w| l.branch_register(w);
    blraaz         "1101011 0001 11111 00001. ..... 11111" => |l, w| l.call_register(w);
    retaa          "1101011 0010 11111 00001. 11111 11111" => |l, _| l.return_register(30);
    braa           "1101011 1000 11111 00001. ..... ....." => |l, w| l.branch_register(w);
    blraa          "1101011 1001 11111 00001. ..... ....." => |l, w| l.call_register(w);
    svc            "11010100 000 ................ 00001" => |l, _| l.raise(Event::SYSTEM_CALL, true, 0);
    brk            "11010100 001 ................ 00000" => |l, w| l.raise(Event::BREAKPOINT, false, u64::from(bits(w, 20, 5)));
}

impl Lift<'_> {
    /// `words` instructions from here.
    pub(super) fn relative(&self, words: i32) -> u64 {
        self.pc.wrapping_add_signed(i64::from(words) * 4)
    }

    fn branch_link(&mut self, word: u32) {
        let (target, back) = (self.relative(signed_bits(word, 25, 0)), self.next);
        let link = self.ir.imm(back as i64);
        self.set_x(30, link);
        self.ir.call(target, back);
    }

    fn branch_if(&mut self, word: u32) {
        let target = self.relative(signed_bits(word, 23, 5));
        match self.condition(word & 15) {
            Some(condition) => self.ir.exit_if(condition, target),
            None => self.jump(target),
        }
    }

    fn branch_zero(&mut self, word: u32, cmp: Cmp) {
        let ty = width(word);
        let target = self.relative(signed_bits(word, 23, 5));
        let (value, zero) = (self.x(rd(word), ty), self.ir.constant(ty, 0));
        let taken = self.ir.compare(cmp, value, zero);
        self.ir.exit_if(taken, target);
    }

    fn branch_bit(&mut self, word: u32, cmp: Cmp) {
        let place = bits(word, 31, 31) << 5 | bits(word, 23, 19);
        let target = self.relative(signed_bits(word, 18, 5));
        let value = self.x(rd(word), Type::I64);
        let bit = self.ir.and_imm(value, 1 << place);
        let zero = self.ir.imm(0);
        let taken = self.ir.compare(cmp, bit, zero);
        self.ir.exit_if(taken, target);
    }

    fn branch_register(&mut self, word: u32) {
        let target = self.x(rn(word), Type::I64);
        self.ir.exit_indirect(target);
    }

    fn call_register(&mut self, word: u32) {
        let (target, back) = (self.x(rn(word), Type::I64), self.next);
        let link = self.ir.imm(back as i64);
        self.set_x(30, link);
        self.ir.call_indirect(target, back);
    }

    fn return_register(&mut self, register: u32) {
        let target = self.x(register, Type::I64);
        self.ir.ret(target);
    }
}
