//! Extensions from Armv8.3 on that change no more than a few registers: flag manipulation (FLAGM),
//! ordered loads and stores with displacements (LRCPC2), JavaScript's conversion (JSCVT), SB.
//! Complex numbers and products of halves have their encodings among the vector classes.

use super::lift::{Lift, Row, bit, rd, rn};
use super::register::image_of;
use crate::ir::{CARRY, Code, FlagKind, Mem, OVERFLOW, SIGN, Type, Value, ZERO};
use crate::table::{Pattern, assert_disjoint, bits, pattern, signed_bits};

isa! {
    cfinv          "1101010100 0 00 000 0100 0000 000 11111" => |l, _| l.invert_carry();
    sb             "1101010100 0 00 011 0011 0000 111 11111" => |_, _| {};
    rmif           "1 01 11010000 ...... 00001 ..... 0 ...." => |l, w| l.rotate_into_flags(w);
    setf8          "0 01 11010000 000000 00010 ..... 0 1101" => |l, w| l.flags_of_narrow(w, 8);
    setf16         "0 01 11010000 000000 10010 ..... 0 1101" => |l, w| l.flags_of_narrow(w, 16);
    stlur          ".. 011001 00 0 ......... 00 ..... ....." => |l, w| l.ordered_unscaled(w);
    ldapur         ".. 011001 01 0 ......... 00 ..... ....." => |l, w| l.ordered_unscaled(w);
    ldapurs_64     ".. 011001 10 0 ......... 00 ..... ....." => |l, w| l.ordered_unscaled(w);
    ldapurs_32     "0. 011001 11 0 ......... 00 ..... ....." => |l, w| l.ordered_unscaled(w);
    fjcvtzs        "0 0011110 01 1 11 110 000000 ..... ....." => |l, w| l.vector_helper(w);
}

impl Lift<'_> {
    fn image(&mut self) -> Value {
        let flags = self.flags();
        self.ir.flags_image(flags)
    }

    fn set_image(&mut self, image: Value) {
        self.set_flags(FlagKind::Image, Type::I64, image, Value::NONE, Value::NONE);
    }

    fn invert_carry(&mut self) {
        let image = self.image();
        let carry = self.ir.imm(CARRY as i64);
        let image = self.ir.alu(Code::Xor, image, carry);
        self.set_image(image);
    }

    /// Flags of a mask from bits 3:0 of a rotated register.
    fn rotate_into_flags(&mut self, word: u32) {
        let value = self.x(rn(word), Type::I64);
        let by = self.ir.constant(Type::I8, bits(word, 20, 15).into());
        let value = self.ir.alu(Code::RotR, value, by);
        let image = self.image();
        let mut image = self.ir.and_imm(image, !image_of(word & 15));
        for (place, flag) in [(3, SIGN), (2, ZERO), (1, CARRY), (0, OVERFLOW)] {
            if bit(word, place) {
                let one = self.ir.extract(value, place, 1);
                let placed = self.ir.shl_imm(one, flag.trailing_zeros());
                image = self.ir.alu(Code::Or, image, placed);
            }
        }
        self.set_image(image);
    }

    /// N and Z of the low bits; V if the bit above them differs from their sign; C stays.
    fn flags_of_narrow(&mut self, word: u32, width: u32) {
        let value = self.x(rn(word), Type::I64);
        let image = self.image();
        let mut image = self.ir.and_imm(image, CARRY);
        let sign = self.ir.extract(value, width - 1, 1);
        let above = self.ir.extract(value, width, 1);
        let overflow = self.ir.alu(Code::Xor, sign, above);
        let low = self.ir.extract(value, 0, width);
        let nothing = self.ir.imm(0);
        let zero = self.ir.compare(crate::ir::Cmp::Eq, low, nothing);
        let zero = self.ir.zext(Type::I64, zero);
        for (one, flag) in [(sign, SIGN), (zero, ZERO), (overflow, OVERFLOW)] {
            let placed = self.ir.shl_imm(one, flag.trailing_zeros());
            image = self.ir.alu(Code::Or, image, placed);
        }
        self.set_image(image);
    }

    fn ordered_unscaled(&mut self, word: u32) {
        let (bytes, kind) = (1 << bits(word, 31, 30), bits(word, 23, 22));
        let displacement = signed_bits(word, 20, 12);
        let base = self.x_sp(rn(word), Type::I64);
        let (ty, mem) = (Type::integer(bytes), Mem::new(bytes).ordered());
        match kind {
            0 => {
                let value = self.x(rd(word), ty);
                self.ir.store(base, displacement, value, mem);
            }
            1 => {
                let value = self.ir.load(ty, base, displacement, mem);
                self.set_x(rd(word), value);
            }
            2 if bytes == 8 => self.undefined(word),
            _ => {
                let value = self.ir.load(ty, base, displacement, mem);
                let to = if kind == 2 { Type::I64 } else { Type::I32 };
                let value = self.ir.sext(to, value);
                self.set_x(rd(word), value);
            }
        }
    }
}
