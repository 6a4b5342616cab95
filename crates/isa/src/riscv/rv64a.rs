//! Chapters 14 and 17, "A" and "Zacas": atomics.

use super::lift::{Args, Lift, Row};
use super::state;
use crate::ir::{AtomicOp, Mem, Type};
use crate::table::{Pattern, assert_disjoint, pattern};

isa! {
//  name      funct5 aq rl rs2 rs1  f3  rd    opcode  operands  meaning
    lr_w      "00010 .. 00000 ..... 010 ..... 0101111" r => |l, a| l.load_reserved(a, Type::I32);
    sc_w      "00011 .. ..... ..... 010 ..... 0101111" r => |l, a| l.store_conditional(a, Type::I32);
    amoswap_w "00001 .. ..... ..... 010 ..... 0101111" r => |l, a| l.amo(AtomicOp::Xchg, a, Type::I32);
    amoadd_w  "00000 .. ..... ..... 010 ..... 0101111" r => |l, a| l.amo(AtomicOp::Add, a, Type::I32);
    amoxor_w  "00100 .. ..... ..... 010 ..... 0101111" r => |l, a| l.amo(AtomicOp::Xor, a, Type::I32);
    amoand_w  "01100 .. ..... ..... 010 ..... 0101111" r => |l, a| l.amo(AtomicOp::And, a, Type::I32);
    amoor_w   "01000 .. ..... ..... 010 ..... 0101111" r => |l, a| l.amo(AtomicOp::Or, a, Type::I32);
    amomin_w  "10000 .. ..... ..... 010 ..... 0101111" r => |l, a| l.amo(AtomicOp::MinS, a, Type::I32);
    amomax_w  "10100 .. ..... ..... 010 ..... 0101111" r => |l, a| l.amo(AtomicOp::MaxS, a, Type::I32);
    amominu_w "11000 .. ..... ..... 010 ..... 0101111" r => |l, a| l.amo(AtomicOp::MinU, a, Type::I32);
    amomaxu_w "11100 .. ..... ..... 010 ..... 0101111" r => |l, a| l.amo(AtomicOp::MaxU, a, Type::I32);
    lr_d      "00010 .. 00000 ..... 011 ..... 0101111" r => |l, a| l.load_reserved(a, Type::I64);
    sc_d      "00011 .. ..... ..... 011 ..... 0101111" r => |l, a| l.store_conditional(a, Type::I64);
    amoswap_d "00001 .. ..... ..... 011 ..... 0101111" r => |l, a| l.amo(AtomicOp::Xchg, a, Type::I64);
    amoadd_d  "00000 .. ..... ..... 011 ..... 0101111" r => |l, a| l.amo(AtomicOp::Add, a, Type::I64);
    amoxor_d  "00100 .. ..... ..... 011 ..... 0101111" r => |l, a| l.amo(AtomicOp::Xor, a, Type::I64);
    amoand_d  "01100 .. ..... ..... 011 ..... 0101111" r => |l, a| l.amo(AtomicOp::And, a, Type::I64);
    amoor_d   "01000 .. ..... ..... 011 ..... 0101111" r => |l, a| l.amo(AtomicOp::Or, a, Type::I64);
    amomin_d  "10000 .. ..... ..... 011 ..... 0101111" r => |l, a| l.amo(AtomicOp::MinS, a, Type::I64);
    amomax_d  "10100 .. ..... ..... 011 ..... 0101111" r => |l, a| l.amo(AtomicOp::MaxS, a, Type::I64);
    amominu_d "11000 .. ..... ..... 011 ..... 0101111" r => |l, a| l.amo(AtomicOp::MinU, a, Type::I64);
    amomaxu_d "11100 .. ..... ..... 011 ..... 0101111" r => |l, a| l.amo(AtomicOp::MaxU, a, Type::I64);
    amocas_w  "00101 .. ..... ..... 010 ..... 0101111" r => |l, a| l.compare_and_swap(a, Type::I32);
    amocas_d  "00101 .. ..... ..... 011 ..... 0101111" r => |l, a| l.compare_and_swap(a, Type::I64);
    amocas_q  "00101 .. ....0 ..... 100 ....0 0101111" r => |l, a| l.compare_and_swap_pair(a);
}

impl Lift<'_> {
    fn narrow(&mut self, register: u32, ty: Type) -> crate::ir::Value {
        let value = self.x(register);
        self.ir.trunc(ty, value)
    }

    fn load_reserved(&mut self, a: Args, ty: Type) {
        let address = self.x(a.rs1);
        let mem = Mem::new(ty.bytes()).aligned().signed();
        let value = self.ir.load(Type::I64, address, 0, mem);
        self.ir.put(state::RESERVED_ADDRESS, address);
        self.ir.put(state::RESERVED_VALUE, value);
        self.set_x(a.rd, value);
    }

    /// Compares contents instead of watching the address: a change and back goes unnoticed, as in
    /// every translator; code that must notice uses Zacas or a version counter.
    fn store_conditional(&mut self, a: Args, ty: Type) {
        let (address, value) = (self.x(a.rs1), self.narrow(a.rs2, ty));
        let (at, old) = (self.ir.get(state::RESERVED_ADDRESS), self.ir.get(state::RESERVED_VALUE));
        let reserved = self.ir.pair(at, old);
        let mem = Mem::new(ty.bytes()).aligned();
        let done = self.ir.store_conditional(address, value, reserved, mem);
        let gone = self.ir.imm(-1);
        self.ir.put(state::RESERVED_ADDRESS, gone);
        let done = self.ir.zext(Type::I64, done);
        let one = self.ir.imm(1);
        let failed = self.ir.alu(crate::ir::Code::Xor, done, one);
        self.set_x(a.rd, failed);
    }

    fn amo(&mut self, op: AtomicOp, a: Args, ty: Type) {
        let (address, operand) = (self.x(a.rs1), self.narrow(a.rs2, ty));
        let old = self.ir.atomic(op, address, operand, Mem::new(ty.bytes()).aligned());
        if a.rd != 0 {
            self.set_w(a.rd, old);
        }
    }

    fn compare_and_swap(&mut self, a: Args, ty: Type) {
        let (address, new) = (self.x(a.rs1), self.narrow(a.rs2, ty));
        let expected = self.narrow(a.rd, ty);
        let old = self.ir.cas(address, expected, new, Mem::new(ty.bytes()).aligned());
        self.set_w(a.rd, old);
    }

    /// Pairs of an even register and the next one; the pair of x0 is zero.
    fn compare_and_swap_pair(&mut self, a: Args) {
        let mut pair = |register: u32| {
            let (low, high) = match register {
                0 => (self.ir.imm(0), self.ir.imm(0)),
                _ => (self.x(register), self.x(register + 1)),
            };
            self.ir.pair(low, high)
        };
        let (expected, new) = (pair(a.rd), pair(a.rs2));
        let address = self.x(a.rs1);
        let old = self.ir.cas(address, expected, new, Mem::new(16).aligned());
        if a.rd != 0 {
            let (low, high) = (self.ir.lo(old), self.ir.hi(old));
            self.set_x(a.rd, low);
            self.set_x(a.rd + 1, high);
        }
    }
}
