//! Chapter 13, "M": multiplication and division.

use super::lift::{Args, Lift, Row};
use crate::ir::Code;
use crate::table::{Pattern, assert_disjoint, pattern};

isa! {
//  name    funct7  rs2   rs1   f3  rd    opcode  operands  meaning
    mul    "0000001 ..... ..... 000 ..... 0110011" r => |l, a| l.register(Code::Mul, a);
    mulh   "0000001 ..... ..... 001 ..... 0110011" r => |l, a| l.register(Code::MulHiS, a);
    mulhsu "0000001 ..... ..... 010 ..... 0110011" r => |l, a| l.register(Code::MulHiSU, a);
    mulhu  "0000001 ..... ..... 011 ..... 0110011" r => |l, a| l.register(Code::MulHiU, a);
    div    "0000001 ..... ..... 100 ..... 0110011" r => |l, a| l.register(Code::DivS, a);
    divu   "0000001 ..... ..... 101 ..... 0110011" r => |l, a| l.register(Code::DivU, a);
    rem    "0000001 ..... ..... 110 ..... 0110011" r => |l, a| l.register(Code::RemS, a);
    remu   "0000001 ..... ..... 111 ..... 0110011" r => |l, a| l.register(Code::RemU, a);

    mulw   "0000001 ..... ..... 000 ..... 0111011" r => |l, a| l.register_word(Code::Mul, a);
    divw   "0000001 ..... ..... 100 ..... 0111011" r => |l, a| l.register_word(Code::DivS, a);
    divuw  "0000001 ..... ..... 101 ..... 0111011" r => |l, a| l.register_word(Code::DivU, a);
    remw   "0000001 ..... ..... 110 ..... 0111011" r => |l, a| l.register_word(Code::RemS, a);
    remuw  "0000001 ..... ..... 111 ..... 0111011" r => |l, a| l.register_word(Code::RemU, a);
}
