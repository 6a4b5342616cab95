//! Chapters 2 and 4, "RV32I" and "RV64I": the base integer instructions.

use super::lift::{Args, Lift, Row};
use crate::front_end::Event;
use crate::ir::{Cmp, Code, Mem, Type, Value};
use crate::table::{Pattern, assert_disjoint, pattern};

isa! {
//  name    imm / funct7 rs2  rs1   f3  rd    opcode  operands  meaning
    lui    "....... ..... ..... ... ..... 0110111" u => |l, a| { let v = l.ir.imm(a.imm.into()); l.set_x(a.rd, v) };
    auipc  "....... ..... ..... ... ..... 0010111" u => |l, a| { let v = l.pc_plus(a.imm); l.set_x(a.rd, v) };
    jal    "....... ..... ..... ... ..... 1101111" j => |l, a| l.jump_and_link(a);
    jalr   "....... ..... ..... 000 ..... 1100111" i => |l, a| l.jump_and_link_register(a);

    beq    "....... ..... ..... 000 ..... 1100011" b => |l, a| l.branch(Cmp::Eq, a);
    bne    "....... ..... ..... 001 ..... 1100011" b => |l, a| l.branch(Cmp::Ne, a);
    blt    "....... ..... ..... 100 ..... 1100011" b => |l, a| l.branch(Cmp::LtS, a);
    bge    "....... ..... ..... 101 ..... 1100011" b => |l, a| l.branch(Cmp::GeS, a);
    bltu   "....... ..... ..... 110 ..... 1100011" b => |l, a| l.branch(Cmp::LtU, a);
    bgeu   "....... ..... ..... 111 ..... 1100011" b => |l, a| l.branch(Cmp::GeU, a);

    lb     "....... ..... ..... 000 ..... 0000011" i => |l, a| l.load(a, Mem::new(1).signed());
    lh     "....... ..... ..... 001 ..... 0000011" i => |l, a| l.load(a, Mem::new(2).signed());
    lw     "....... ..... ..... 010 ..... 0000011" i => |l, a| l.load(a, Mem::new(4).signed());
    ld     "....... ..... ..... 011 ..... 0000011" i => |l, a| l.load(a, Mem::new(8));
    lbu    "....... ..... ..... 100 ..... 0000011" i => |l, a| l.load(a, Mem::new(1));
    lhu    "....... ..... ..... 101 ..... 0000011" i => |l, a| l.load(a, Mem::new(2));
    lwu    "....... ..... ..... 110 ..... 0000011" i => |l, a| l.load(a, Mem::new(4));
    sb     "....... ..... ..... 000 ..... 0100011" s => |l, a| l.store(a, Mem::new(1));
    sh     "....... ..... ..... 001 ..... 0100011" s => |l, a| l.store(a, Mem::new(2));
    sw     "....... ..... ..... 010 ..... 0100011" s => |l, a| l.store(a, Mem::new(4));
    sd     "....... ..... ..... 011 ..... 0100011" s => |l, a| l.store(a, Mem::new(8));

    addi   "....... ..... ..... 000 ..... 0010011" i => |l, a| l.immediate(Code::Add, a);
    slti   "....... ..... ..... 010 ..... 0010011" i => |l, a| { let v = l.ir.imm(a.imm.into()); l.set_if(Cmp::LtS, a, v) };
    sltiu  "....... ..... ..... 011 ..... 0010011" i => |l, a| { let v = l.ir.imm(a.imm.into()); l.set_if(Cmp::LtU, a, v) };
    xori   "....... ..... ..... 100 ..... 0010011" i => |l, a| l.immediate(Code::Xor, a);
    ori    "....... ..... ..... 110 ..... 0010011" i => |l, a| l.immediate(Code::Or, a);
    andi   "....... ..... ..... 111 ..... 0010011" i => |l, a| l.immediate(Code::And, a);
    slli   "000000. ..... ..... 001 ..... 0010011" sh => |l, a| l.immediate(Code::Shl, a);
    srli   "000000. ..... ..... 101 ..... 0010011" sh => |l, a| l.immediate(Code::ShrU, a);
    srai   "010000. ..... ..... 101 ..... 0010011" sh => |l, a| l.immediate(Code::ShrS, a);

    add    "0000000 ..... ..... 000 ..... 0110011" r => |l, a| l.register(Code::Add, a);
    sub    "0100000 ..... ..... 000 ..... 0110011" r => |l, a| l.register(Code::Sub, a);
    sll    "0000000 ..... ..... 001 ..... 0110011" r => |l, a| l.register(Code::Shl, a);
    slt    "0000000 ..... ..... 010 ..... 0110011" r => |l, a| { let v = l.x(a.rs2); l.set_if(Cmp::LtS, a, v) };
    sltu   "0000000 ..... ..... 011 ..... 0110011" r => |l, a| { let v = l.x(a.rs2); l.set_if(Cmp::LtU, a, v) };
    xor    "0000000 ..... ..... 100 ..... 0110011" r => |l, a| l.register(Code::Xor, a);
    srl    "0000000 ..... ..... 101 ..... 0110011" r => |l, a| l.register(Code::ShrU, a);
    sra    "0100000 ..... ..... 101 ..... 0110011" r => |l, a| l.register(Code::ShrS, a);
    or     "0000000 ..... ..... 110 ..... 0110011" r => |l, a| l.register(Code::Or, a);
    and    "0000000 ..... ..... 111 ..... 0110011" r => |l, a| l.register(Code::And, a);

    fence  "....... ..... ..... 000 ..... 0001111" i => |l, a| l.fence(a.imm as u32);
    fence_i "....... ..... ..... 001 ..... 0001111" i => |l, _| { let next = l.next; l.ir.exit(next) };
    ecall  "0000000 00000 00000 000 00000 1110011" i => |l, _| l.raise(Event::SYSTEM_CALL, true, 0);
    ebreak "0000000 00001 00000 000 00000 1110011" i => |l, _| l.raise(Event::BREAKPOINT, false, 0);

    addiw  "....... ..... ..... 000 ..... 0011011" i => |l, a| l.immediate_word(Code::Add, a);
    slliw  "0000000 ..... ..... 001 ..... 0011011" sh => |l, a| l.immediate_word(Code::Shl, a);
    srliw  "0000000 ..... ..... 101 ..... 0011011" sh => |l, a| l.immediate_word(Code::ShrU, a);
    sraiw  "0100000 ..... ..... 101 ..... 0011011" sh => |l, a| l.immediate_word(Code::ShrS, a);
    addw   "0000000 ..... ..... 000 ..... 0111011" r => |l, a| l.register_word(Code::Add, a);
    subw   "0100000 ..... ..... 000 ..... 0111011" r => |l, a| l.register_word(Code::Sub, a);
    sllw   "0000000 ..... ..... 001 ..... 0111011" r => |l, a| l.register_word(Code::Shl, a);
    srlw   "0000000 ..... ..... 101 ..... 0111011" r => |l, a| l.register_word(Code::ShrU, a);
    sraw   "0100000 ..... ..... 101 ..... 0111011" r => |l, a| l.register_word(Code::ShrS, a);
}

/// `ra` and `t0`: the registers that mark calls and returns (table 3 of the manual).
const fn is_link(register: u32) -> bool {
    register == 1 || register == 5
}

impl Lift<'_> {
    fn pc_plus(&mut self, imm: i32) -> Value {
        let target = self.pc.wrapping_add_signed(imm.into());
        self.ir.imm(target as i64)
    }

    pub(super) fn register(&mut self, code: Code, a: Args) {
        let (x, y) = (self.x(a.rs1), self.x(a.rs2));
        let value = self.ir.alu(code, x, y);
        self.set_x(a.rd, value);
    }

    pub(super) fn register_word(&mut self, code: Code, a: Args) {
        let (x, y) = (self.w(a.rs1), self.w(a.rs2));
        let value = self.ir.alu(code, x, y);
        self.set_w(a.rd, value);
    }

    pub(super) fn immediate(&mut self, code: Code, a: Args) {
        let (x, imm) = (self.x(a.rs1), self.ir.imm(a.imm.into()));
        let value = match code {
            Code::Add => self.ir.add(x, imm), // joins with an earlier lui or addi
            _ => self.ir.alu(code, x, imm),
        };
        self.set_x(a.rd, value);
    }

    pub(super) fn immediate_word(&mut self, code: Code, a: Args) {
        let (x, imm) = (self.w(a.rs1), self.ir.imm32(a.imm));
        let value = self.ir.alu(code, x, imm);
        self.set_w(a.rd, value);
    }

    fn set_if(&mut self, cmp: Cmp, a: Args, right: Value) {
        let left = self.x(a.rs1);
        let value = self.ir.compare(cmp, left, right);
        self.set_bool(a.rd, value);
    }

    fn load(&mut self, a: Args, mem: Mem) {
        let base = self.x(a.rs1);
        let value = self.ir.load(Type::I64, base, a.imm, mem);
        self.set_x(a.rd, value);
    }

    fn store(&mut self, a: Args, mem: Mem) {
        let (base, value) = (self.x(a.rs1), self.x(a.rs2));
        self.ir.store(base, a.imm, value, mem);
    }

    fn branch(&mut self, cmp: Cmp, a: Args) {
        let (x, y) = (self.x(a.rs1), self.x(a.rs2));
        let taken = self.ir.compare(cmp, x, y);
        self.ir.exit_if(taken, self.pc.wrapping_add_signed(a.imm.into()));
    }

    fn jump_and_link(&mut self, a: Args) {
        let (target, back) = (self.pc.wrapping_add_signed(a.imm.into()), self.next);
        let link = self.ir.imm(back as i64);
        self.set_x(a.rd, link);
        if is_link(a.rd) {
            self.ir.call(target, back);
        } else {
            self.jump(target);
        }
    }

    fn jump_and_link_register(&mut self, a: Args) {
        let (base, imm, back) = (self.x(a.rs1), self.ir.imm(a.imm.into()), self.next);
        let sum = self.ir.add(base, imm);
        let target = self.ir.and_imm(sum, !1);
        let link = self.ir.imm(back as i64);
        self.set_x(a.rd, link);
        match (is_link(a.rd), is_link(a.rs1)) {
            (true, _) => self.ir.call_indirect(target, back),
            (false, true) => self.ir.ret(target),
            (false, false) => self.ir.exit_indirect(target),
        }
    }

    /// Only a fence that orders earlier writes before later reads costs anything on a TSO host.
    fn fence(&mut self, imm: u32) {
        let (predecessor, successor) = (imm >> 4 & 0xf, imm & 0xf);
        if predecessor & 0b0101 != 0 && successor & 0b1010 != 0 {
            self.ir.fence();
        }
    }
}
