//! C4.1.93: hints, barriers, system registers, cache maintenance, as a program at EL0 finds them
//! under Linux, which answers reads of the identification registers.

use super::helpers;
use super::lift::{Lift, Row, rd};
use super::{EXCEPTIONS, state};
use crate::ir::{CARRY, Code, FlagKind, OVERFLOW, SIGN, Type, Value, ZERO};
use crate::table::{Pattern, assert_disjoint, bits, pattern};

isa! {
    hint           "1101010100 0 00 011 0010 .... ... 11111" => |_, _| {};
    clrex          "1101010100 0 00 011 0011 .... 010 11111" => |l, _| l.clear_exclusive();
    dsb            "1101010100 0 00 011 0011 .... 100 11111" => |l, w| l.barrier(w);
    dmb            "1101010100 0 00 011 0011 .... 101 11111" => |l, w| l.barrier(w);
    isb            "1101010100 0 00 011 0011 .... 110 11111" => |l, _| { let next = l.next; l.ir.exit(next) };
    dc_zva         "1101010100 0 01 011 0111 0100 001 ....." => |l, w| l.zero_block(w);
    ic_ivau        "1101010100 0 01 011 0111 0101 001 ....." => |l, w| l.invalidate_code(w);
    dc_cvac        "1101010100 0 01 011 0111 1010 001 ....." => |_, _| {};
    dc_cvau        "1101010100 0 01 011 0111 1011 001 ....." => |_, _| {};
    dc_cvap        "1101010100 0 01 011 0111 1100 001 ....." => |_, _| {};
    dc_civac       "1101010100 0 01 011 0111 1110 001 ....." => |_, _| {};
    msr            "1101010100 0 1. ... .... .... ... ....." => |l, w| l.write_register(w);
    mrs            "1101010100 1 1. ... .... .... ... ....." => |l, w| l.read_register(w);
}

/// op0, op1, CRn, CRm, op2 as in bits 19:5.
const fn register(op0: u32, op1: u32, n: u32, m: u32, op2: u32) -> u32 {
    (op0 & 1) << 14 | op1 << 11 | n << 7 | m << 3 | op2
}

const NZCV: u32 = register(3, 3, 4, 2, 0);
const FPCR: u32 = register(3, 3, 4, 4, 0);
const FPSR: u32 = register(3, 3, 4, 4, 1);
const TPIDR_EL0: u32 = register(3, 3, 13, 0, 2);
const TPIDRRO_EL0: u32 = register(3, 3, 13, 0, 3);
const CTR_EL0: u32 = register(3, 3, 0, 0, 1);
const DCZID_EL0: u32 = register(3, 3, 0, 0, 7);
const CNTFRQ_EL0: u32 = register(3, 3, 14, 0, 0);
const CNTVCT_EL0: u32 = register(3, 3, 14, 0, 2);
const MIDR_EL1: u32 = register(3, 0, 0, 0, 0);
const MPIDR_EL1: u32 = register(3, 0, 0, 0, 5);
const REVIDR_EL1: u32 = register(3, 0, 0, 0, 6);
const ID_AA64PFR0_EL1: u32 = register(3, 0, 0, 4, 0);
const ID_AA64ISAR0_EL1: u32 = register(3, 0, 0, 6, 0);
const ID_AA64ISAR1_EL1: u32 = register(3, 0, 0, 6, 1);
const ID_FIRST: u32 = register(3, 0, 0, 4, 0);
const ID_LAST: u32 = register(3, 0, 0, 7, 7);

/// The clock of CNTVCT: nanoseconds.
const CLOCK_HZ: u64 = 1_000_000_000;
/// The instruction and data cache lines, and DC ZVA, have 64 bytes.
const LINE: u64 = 64;
const CTR: u64 = 0x8444_c004;
const DCZID: u64 = 4;
/// Implementer 0: for software use; architecture by ID registers.
const MIDR: u64 = 0x000f_0510;
/// AES with PMULL, SHA1, SHA512, CRC32, LSE atomics, RDM; SHA3, SM3, SM4, dot product, FHM, FLAGM.
const ISAR0: u64 = 2 << 4 | 1 << 8 | 2 << 12 | 1 << 16 | 2 << 20 | 1 << 28 | 0x11_1111 << 32;
/// DC CVAP, JSCVT, FCMA, LRCPC2, SB.
const ISAR1: u64 = 1 | 1 << 12 | 1 << 16 | 2 << 20 | 1 << 36;
/// EL0 and EL1 in AArch64 only; FP and Advanced SIMD with half precision.
const PFR0: u64 = 0x11 | 1 << 16 | 1 << 20;

/// FPCR's bits that exist: AHP is not among them, exception traps neither.
const FPCR_BITS: u64 = 1 << 25 | 1 << 24 | 3 << 22 | 1 << 19;

impl Lift<'_> {
    fn clear_exclusive(&mut self) {
        let nothing = self.ir.imm(-1);
        self.ir.put(state::EXCLUSIVE_ADDRESS, nothing);
    }

    /// Those for loads only, or stores only, are free.
    fn barrier(&mut self, word: u32) {
        if bits(word, 9, 8) == 3 {
            self.ir.fence();
        }
    }

    fn zero_block(&mut self, word: u32) {
        let address = self.x(rd(word), Type::I64);
        let address = self.ir.and_imm(address, !(LINE - 1));
        self.ir.zero_block(address, LINE as u16);
    }

    fn invalidate_code(&mut self, word: u32) {
        let address = self.x(rd(word), Type::I64);
        let address = self.ir.and_imm(address, !(LINE - 1));
        let bytes = self.ir.imm(LINE as i64);
        self.ir.helper(helpers::FLUSH_CODE, address, bytes, Value::NONE);
    }

    fn read_register(&mut self, word: u32) {
        let value = match bits(word, 19, 5) {
            NZCV => self.nzcv(),
            FPCR => self.ir.get(state::FPCR),
            FPSR => self.fpsr(),
            TPIDR_EL0 => self.ir.get(state::TPIDR),
            CNTVCT_EL0 => self.ir.helper(helpers::CLOCK, Value::NONE, Value::NONE, Value::NONE),
            number => match fixed(number) {
                Some(value) => self.ir.imm(value as i64),
                None => return self.undefined(word),
            },
        };
        self.set_x(rd(word), value);
    }

    fn write_register(&mut self, word: u32) {
        let value = self.x(rd(word), Type::I64);
        match bits(word, 19, 5) {
            NZCV => self.set_nzcv(value),
            FPCR => {
                let value = self.ir.and_imm(value, FPCR_BITS);
                self.ir.put(state::FPCR, value);
                let mxcsr = self.ir.fp_control_get();
                let mxcsr = self.ir.zext(Type::I64, mxcsr);
                let mxcsr = self.ir.helper(helpers::MXCSR, value, mxcsr, Value::NONE);
                let mxcsr = self.ir.trunc(Type::I32, mxcsr);
                self.ir.fp_control_put(mxcsr);
                let next = self.ir.imm(self.next as i64);
                self.ir.put(state::PC, next);
                self.ir.exit_mode();
            }
            FPSR => self.set_fpsr(value),
            TPIDR_EL0 => self.ir.put(state::TPIDR, value),
            _ => self.undefined(word),
        }
    }

    fn nzcv(&mut self) -> Value {
        let flags = self.flags();
        let image = self.ir.flags_image(flags);
        let mut value = self.ir.imm(0);
        for (flag, place) in [(SIGN, 31), (ZERO, 30), (CARRY, 29), (OVERFLOW, 28)] {
            let one = self.ir.extract(image, flag.trailing_zeros(), 1);
            let placed = self.ir.shl_imm(one, place);
            value = self.ir.alu(Code::Or, value, placed);
        }
        value
    }

    fn set_nzcv(&mut self, value: Value) {
        let mut image = self.ir.imm(0);
        for (flag, place) in [(SIGN, 31), (ZERO, 30), (CARRY, 29), (OVERFLOW, 28)] {
            let one = self.ir.extract(value, place, 1);
            let placed = self.ir.shl_imm(one, flag.trailing_zeros());
            image = self.ir.alu(Code::Or, image, placed);
        }
        self.set_flags(FlagKind::Image, Type::I64, image, Value::NONE, Value::NONE);
    }

    fn fpsr(&mut self) -> Value {
        let mxcsr = self.ir.fp_control_get();
        let mxcsr = self.ir.zext(Type::I64, mxcsr);
        let mut value = self.ir.get(state::QC);
        for (flag, place) in EXCEPTIONS {
            let one = self.ir.extract(mxcsr, place, 1);
            let placed = self.ir.shl_imm(one, flag);
            value = self.ir.alu(Code::Or, value, placed);
        }
        value
    }

    fn set_fpsr(&mut self, value: Value) {
        let qc = self.ir.and_imm(value, 1 << 27);
        self.ir.put(state::QC, qc);
        let mxcsr = self.ir.fp_control_get();
        let mxcsr = self.ir.zext(Type::I64, mxcsr);
        let mut mxcsr = self.ir.and_imm(mxcsr, !0x3f);
        for (flag, place) in EXCEPTIONS {
            let one = self.ir.extract(value, flag, 1);
            let placed = self.ir.shl_imm(one, place);
            mxcsr = self.ir.alu(Code::Or, mxcsr, placed);
        }
        let mxcsr = self.ir.trunc(Type::I32, mxcsr);
        self.ir.fp_control_put(mxcsr);
    }
}

/// Identification registers without contents.
fn identification(number: u32) -> Option<u64> {
    (ID_FIRST..=ID_LAST).contains(&number).then_some(0)
}

/// Registers that always read the same; Linux lets programs read the identification ones, and
/// those without contents as zero.
fn fixed(number: u32) -> Option<u64> {
    match number {
        TPIDRRO_EL0 | REVIDR_EL1 => Some(0),
        CTR_EL0 => Some(CTR),
        DCZID_EL0 => Some(DCZID),
        CNTFRQ_EL0 => Some(CLOCK_HZ),
        MIDR_EL1 => Some(MIDR),
        MPIDR_EL1 => Some(1 << 31),
        ID_AA64PFR0_EL1 => Some(PFR0),
        ID_AA64ISAR0_EL1 => Some(ISAR0),
        ID_AA64ISAR1_EL1 => Some(ISAR1),
        _ => identification(number),
    }
}
