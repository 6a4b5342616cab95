//! C4.1.92, "Data Processing -- Immediate".

use super::lift::{Lift, Row, bit, rd, rm, rn, width};
use crate::ir::{Code, FlagKind, Type, Value};
use crate::table::{Pattern, assert_disjoint, bits, pattern, signed_bits};

isa! {
    adr            "0 .. 10000 ................... ....." => |l, w| l.address(w, 0);
    adrp           "1 .. 10000 ................... ....." => |l, w| l.address(w, 12);
    add_imm        ". 0 0 100010 . ............ ..... ....." => |l, w| l.add_immediate(w, Code::Add);
    adds_imm       ". 0 1 100010 . ............ ..... ....." => |l, w| l.adds_immediate(w, Code::Add);
    sub_imm        ". 1 0 100010 . ............ ..... ....." => |l, w| l.add_immediate(w, Code::Sub);
    subs_imm       ". 1 1 100010 . ............ ..... ....." => |l, w| l.adds_immediate(w, Code::Sub);
    and_imm        ". 00 100100 . ...... ...... ..... ....." => |l, w| l.logical_immediate(w, Code::And);
    orr_imm        ". 01 100100 . ...... ...... ..... ....." => |l, w| l.logical_immediate(w, Code::Or);
    eor_imm        ". 10 100100 . ...... ...... ..... ....." => |l, w| l.logical_immediate(w, Code::Xor);
    ands_imm       ". 11 100100 . ...... ...... ..... ....." => |l, w| l.logical_immediate(w, Code::And);
    movn           ". 00 100101 .. ................ ....." => |l, w| l.move_wide(w);
    movz           ". 10 100101 .. ................ ....." => |l, w| l.move_wide(w);
    movk           ". 11 100101 .. ................ ....." => |l, w| l.move_keep(w);
    sbfm           ". 00 100110 . ...... ...... ..... ....." => |l, w| l.bitfield(w, true);
    bfm            ". 01 100110 . ...... ...... ..... ....." => |l, w| l.bitfield_insert(w);
    ubfm           ". 10 100110 . ...... ...... ..... ....." => |l, w| l.bitfield(w, false);
    extr           ". 00 100111 . 0 ..... ...... ..... ....." => |l, w| l.extract_pair(w);
}

/// The pattern of a logical immediate: `DecodeBitMasks` of the manual, `None` if reserved.
pub fn bit_mask(n: u32, immr: u32, imms: u32, ty: Type) -> Option<u64> {
    let combined = n << 6 | (!imms & 0x3f);
    let length = 31u32.checked_sub(combined.leading_zeros()).filter(|&length| length > 0)?;
    let size = 1u32 << length;
    let levels = size - 1;
    let (s, r) = (imms & levels, immr & levels);
    if s == levels || size > ty.bits() {
        return None;
    }
    let element = u64::MAX >> (63 - s);
    let whole = if size == 64 { u64::MAX } else { (1 << size) - 1 };
    let rotated = match r {
        0 => element,
        r => (element >> r | element << (size - r)) & whole,
    };
    let mut mask = rotated;
    let mut filled = size;
    while filled < 64 {
        mask |= mask << filled;
        filled *= 2;
    }
    Some(mask & ty.mask())
}

impl Lift<'_> {
    fn address(&mut self, word: u32, shift: u32) {
        let offset = i64::from(signed_bits(word, 23, 5)) << 2 | i64::from(bits(word, 30, 29));
        let base = self.pc >> shift << shift;
        let value = self.ir.imm(base.wrapping_add_signed(offset << shift) as i64);
        self.set_x(rd(word), value);
    }

    fn add_operands(&mut self, word: u32) -> (Value, Value, Type) {
        let ty = width(word);
        let imm = u64::from(bits(word, 21, 10)) << if bit(word, 22) { 12 } else { 0 };
        (self.x_sp(rn(word), ty), self.ir.constant(ty, imm), ty)
    }

    fn add_immediate(&mut self, word: u32, code: Code) {
        let (a, b, _) = self.add_operands(word);
        let value = if code == Code::Add { self.ir.add(a, b) } else { self.ir.sub(a, b) };
        self.set_x_sp(rd(word), value);
    }

    fn adds_immediate(&mut self, word: u32, code: Code) {
        let (a, b, ty) = self.add_operands(word);
        self.add_with_flags(code, ty, a, b, rd(word));
    }

    /// Sum or difference with flags, which stand directly behind their operation.
    pub(super) fn add_with_flags(&mut self, code: Code, ty: Type, a: Value, b: Value, to: u32) {
        let kind = if code == Code::Add { FlagKind::AddCarry } else { FlagKind::SubCarry };
        let value = self.ir.alu(code, a, b);
        self.set_flags(kind, ty, a, b, Value::NONE);
        self.set_x(to, value);
    }

    /// Flags of a bitwise result.
    pub(super) fn logical_flags(&mut self, ty: Type, value: Value) {
        self.set_flags(FlagKind::And, ty, value, value, Value::NONE);
    }

    fn logical_immediate(&mut self, word: u32, code: Code) {
        let ty = width(word);
        let n = bits(word, 22, 22);
        let Some(mask) = bit_mask(n, bits(word, 21, 16), bits(word, 15, 10), ty) else {
            return self.undefined(word);
        };
        let (a, b) = (self.x(rn(word), ty), self.ir.constant(ty, mask));
        let value = self.ir.alu(code, a, b);
        if bits(word, 30, 29) == 3 {
            self.logical_flags(ty, value);
            self.set_x(rd(word), value);
        } else {
            self.set_x_sp(rd(word), value);
        }
    }

    fn wide_shift(&mut self, word: u32) -> Option<u32> {
        let shift = bits(word, 22, 21) * 16;
        if shift < width(word).bits() {
            return Some(shift);
        }
        self.undefined(word);
        None
    }

    fn move_wide(&mut self, word: u32) {
        let Some(shift) = self.wide_shift(word) else { return };
        let imm = u64::from(bits(word, 20, 5)) << shift;
        let value = if bit(word, 30) { imm } else { !imm };
        let value = self.ir.constant(width(word), value);
        self.set_x(rd(word), value);
    }

    fn move_keep(&mut self, word: u32) {
        let Some(shift) = self.wide_shift(word) else { return };
        let ty = width(word);
        let old = self.x(rd(word), ty);
        let keep = self.ir.and_imm(old, !(0xffff << shift));
        let imm = self.ir.constant(ty, u64::from(bits(word, 20, 5)) << shift);
        let value = self.ir.alu(Code::Or, keep, imm);
        self.set_x(rd(word), value);
    }

    /// `immr`, `imms`, if they fit the width.
    fn field(&mut self, word: u32) -> Option<(u32, u32)> {
        let (immr, imms, size) = (bits(word, 21, 16), bits(word, 15, 10), width(word).bits());
        if bit(word, 22) == bit(word, 31) && immr < size && imms < size {
            return Some((immr, imms));
        }
        self.undefined(word);
        None
    }

    fn bitfield(&mut self, word: u32, signed: bool) {
        let Some((immr, imms)) = self.field(word) else { return };
        let ty = width(word);
        let size = ty.bits();
        let a = self.x(rn(word), ty);
        let value = match (signed, immr, imms) {
            (false, _, s) if s == size - 1 => self.ir.shr_imm(a, immr),
            (true, _, s) if s == size - 1 => self.ir.sar_imm(a, immr),
            (false, r, s) if s + 1 == r => self.ir.shl_imm(a, size - r),
            (_, 0, 7 | 15 | 31) => {
                let part = self.ir.trunc(Type::integer((imms + 1) / 8), a);
                if signed { self.ir.sext(ty, part) } else { self.ir.zext(ty, part) }
            }
            (true, r, s) if s >= r => self.ir.extract_signed(a, r, s - r + 1),
            (false, r, s) if s >= r => self.ir.extract(a, r, s - r + 1),
            (true, r, s) => {
                let part = self.ir.extract_signed(a, 0, s + 1);
                self.ir.shl_imm(part, size - r)
            }
            (false, r, s) => {
                let part = self.ir.extract(a, 0, s + 1);
                self.ir.shl_imm(part, size - r)
            }
        };
        self.set_x(rd(word), value);
    }

    fn bitfield_insert(&mut self, word: u32) {
        let Some((immr, imms)) = self.field(word) else { return };
        let ty = width(word);
        let (old, a) = (self.x(rd(word), ty), self.x(rn(word), ty));
        let value = if imms >= immr {
            let part = self.ir.shr_imm(a, immr);
            self.insert(old, part, 0, imms - immr + 1)
        } else {
            self.insert(old, a, ty.bits() - immr, imms + 1)
        };
        self.set_x(rd(word), value);
    }

    fn insert(&mut self, old: Value, part: Value, low: u32, count: u32) -> Value {
        if count == self.ir.ty(old).bits() {
            return part;
        }
        let mask = (1u64 << count) - 1;
        let part = self.ir.and_imm(part, mask);
        let part = self.ir.shl_imm(part, low);
        let rest = self.ir.and_imm(old, !(mask << low));
        self.ir.alu(Code::Or, rest, part)
    }

    fn extract_pair(&mut self, word: u32) {
        let ty = width(word);
        let low = bits(word, 15, 10);
        if bit(word, 22) != bit(word, 31) || low >= ty.bits() {
            return self.undefined(word);
        }
        let (high, other) = (self.x(rn(word), ty), self.x(rm(word), ty));
        let value = if rn(word) == rm(word) {
            let count = self.ir.constant(Type::I8, u64::from(low));
            self.ir.alu(Code::RotR, high, count)
        } else if low == 0 {
            other
        } else {
            let (low_part, high_part) =
                (self.ir.shr_imm(other, low), self.ir.shl_imm(high, ty.bits() - low));
            self.ir.alu(Code::Or, low_part, high_part)
        };
        self.set_x(rd(word), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logical_immediates_are_those_of_the_manual() {
        assert_eq!(bit_mask(1, 0, 7, Type::I64), Some(0xff));
        assert_eq!(bit_mask(0, 0, 0b111100, Type::I64), Some(0x5555_5555_5555_5555));
        assert_eq!(bit_mask(0, 1, 0b111100, Type::I32), Some(0xaaaa_aaaa));
        assert_eq!(bit_mask(1, 63, 62, Type::I64), Some(0xffff_ffff_ffff_fffe));
        assert_eq!(bit_mask(1, 0, 63, Type::I64), None);
        assert_eq!(bit_mask(1, 0, 7, Type::I32), None);
        assert_eq!(bit_mask(0, 0, 63, Type::I64), None);
    }
}
