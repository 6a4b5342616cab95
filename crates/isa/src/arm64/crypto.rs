//! C4.1.96: AES, SHA-1, SHA-256, polynomial products.

use super::helpers;
use super::lift::{Lift, Row, bit, rd, rm, rn};
use crate::ir::{Lane, Type, Value};
use crate::table::{Pattern, assert_disjoint, bits, pattern};

isa! {
    aese           "01001110 00 10100 00100 10 ..... ....." => |l, w| l.aes_round(w, Lane::AesEncLast);
    aesd           "01001110 00 10100 00101 10 ..... ....." => |l, w| l.aes_round(w, Lane::AesDecLast);
    aesmc          "01001110 00 10100 00110 10 ..... ....." => |l, w| l.mix_columns(w);
    aesimc         "01001110 00 10100 00111 10 ..... ....." => |l, w| l.unmix_columns(w);
    sha1c          "01011110 000 ..... 0 000 00 ..... ....." => |l, w| l.sha(w);
    sha1p          "01011110 000 ..... 0 001 00 ..... ....." => |l, w| l.sha(w);
    sha1m          "01011110 000 ..... 0 010 00 ..... ....." => |l, w| l.sha(w);
    sha1su0        "01011110 000 ..... 0 011 00 ..... ....." => |l, w| l.sha(w);
    sha256h        "01011110 000 ..... 0 100 00 ..... ....." => |l, w| l.sha(w);
    sha256h2       "01011110 000 ..... 0 101 00 ..... ....." => |l, w| l.sha(w);
    sha256su1      "01011110 000 ..... 0 110 00 ..... ....." => |l, w| l.sha(w);
    sha1h          "01011110 00 10100 00000 10 ..... ....." => |l, w| l.sha(w);
    sha1su1        "01011110 00 10100 00001 10 ..... ....." => |l, w| l.sha(w);
    sha256su0      "01011110 00 10100 00010 10 ..... ....." => |l, w| l.sha(w);
}

impl Lift<'_> {
    /// The key first, then rows and bytes: the host's last round with a key of zero.
    fn aes_round(&mut self, word: u32, lane: Lane) {
        let (a, b) = (self.v(rn(word)), self.v(rd(word)));
        let mixed = self.ir.lanes2(Lane::Xor, a, b);
        let zero = self.ir.constant(Type::V128, 0);
        let value = self.ir.lanes2(lane, mixed, zero);
        self.set_v(rd(word), value);
    }

    /// The inverse of rows and bytes undoes those of a round without key.
    fn mix_columns(&mut self, word: u32) {
        let a = self.v(rn(word));
        let zero = self.ir.constant(Type::V128, 0);
        let undone = self.ir.lanes2(Lane::AesDecLast, a, zero);
        let value = self.ir.lanes2(Lane::AesEnc, undone, zero);
        self.set_v(rd(word), value);
    }

    fn unmix_columns(&mut self, word: u32) {
        let a = self.v(rn(word));
        let value = self.ir.lanes1(Lane::AesInvMixColumns, a, 0);
        self.set_v(rd(word), value);
    }

    fn sha(&mut self, word: u32) {
        let word = self.ir.imm(i64::from(word));
        self.ir.helper(helpers::SHA, word, Value::NONE, Value::NONE);
    }

    /// PMULL of bytes or of doublewords.
    pub(super) fn polynomial_long(&mut self, word: u32) {
        let (size, upper) = (bits(word, 23, 22), bit(word, 30));
        if bit(word, 29) {
            return self.undefined(word);
        }
        let (a, b) = (self.v(rn(word)), self.v(rm(word)));
        match size {
            3 => {
                let imm = if upper { 0x11 } else { 0x00 };
                let value = self.ir.lanes2_imm(Lane::ClMul, a, b, imm);
                self.set_v(rd(word), value);
            }
            0 => {
                let word = self.ir.imm(i64::from(word));
                self.ir.helper(helpers::SHA, word, Value::NONE, Value::NONE);
            }
            _ => self.undefined(word),
        }
    }
}
