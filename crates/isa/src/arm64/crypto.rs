//! C4.1.96: AES, SHA-1, SHA-256, polynomial products.

use super::helpers;
use super::lift::{Lift, Row, bit, rd, rm, rn};
use crate::ir::{Code, Lane, Type, Value};
use crate::table::{Pattern, assert_disjoint, bits, pattern};

isa! {
    aese           "01001110 00 10100 00100 10 ..... ....." => |l, w| l.aes_round(w, Lane::AesEncLast);
    aesd           "01001110 00 10100 00101 10 ..... ....." => |l, w| l.aes_round(w, Lane::AesDecLast);
    aesmc          "01001110 00 10100 00110 10 ..... ....." => |l, w| l.mix_columns(w);
    aesimc         "01001110 00 10100 00111 10 ..... ....." => |l, w| l.unmix_columns(w);
    sha1c          "01011110 000 ..... 0 000 00 ..... ....." => |l, w| l.sha1_rounds(w, 0);
    sha1p          "01011110 000 ..... 0 001 00 ..... ....." => |l, w| l.sha1_rounds(w, 1);
    sha1m          "01011110 000 ..... 0 010 00 ..... ....." => |l, w| l.sha1_rounds(w, 2);
    sha1su0        "01011110 000 ..... 0 011 00 ..... ....." => |l, w| l.sha1_schedule_0(w);
    sha256h        "01011110 000 ..... 0 100 00 ..... ....." => |l, w| l.sha256_rounds(w, true);
    sha256h2       "01011110 000 ..... 0 101 00 ..... ....." => |l, w| l.sha256_rounds(w, false);
    sha256su1      "01011110 000 ..... 0 110 00 ..... ....." => |l, w| l.sha256_schedule_1(w);
    sha1h          "01011110 00 10100 00000 10 ..... ....." => |l, w| l.sha1_hash(w);
    sha1su1        "01011110 00 10100 00001 10 ..... ....." => |l, w| l.sha1_schedule_1(w);
    sha256su0      "01011110 00 10100 00010 10 ..... ....." => |l, w| l.sha256_schedule_0(w);
}

impl Lift<'_> {
    /// The key first, then rows and bytes: the host's last round with a key of zero.
    fn aes_round(&mut self, word: u32, lane: Lane) {
        if !self.host.aes {
            return self.aes_helper(word);
        }
        let (a, b) = (self.v(rn(word)), self.v(rd(word)));
        let mixed = self.ir.lanes2(Lane::Xor, a, b);
        let zero = self.ir.constant(Type::V128, 0);
        let value = self.ir.lanes2(lane, mixed, zero);
        self.set_v(rd(word), value);
    }

    fn aes_helper(&mut self, word: u32) {
        let word = self.ir.imm(i64::from(word));
        self.ir.helper(helpers::AES, word, Value::NONE, Value::NONE);
    }

    /// The inverse of rows and bytes undoes those of a round without key.
    fn mix_columns(&mut self, word: u32) {
        if !self.host.aes {
            return self.aes_helper(word);
        }
        let a = self.v(rn(word));
        let zero = self.ir.constant(Type::V128, 0);
        let undone = self.ir.lanes2(Lane::AesDecLast, a, zero);
        let value = self.ir.lanes2(Lane::AesEnc, undone, zero);
        self.set_v(rd(word), value);
    }

    fn unmix_columns(&mut self, word: u32) {
        if !self.host.aes {
            return self.aes_helper(word);
        }
        let a = self.v(rn(word));
        let value = self.ir.lanes1(Lane::AesInvMixColumns, a, 0);
        self.set_v(rd(word), value);
    }

    fn sha(&mut self, word: u32) {
        let word = self.ir.imm(i64::from(word));
        self.ir.helper(helpers::SHA, word, Value::NONE, Value::NONE);
    }

    /// Each lane rotated left by one.
    fn rotate_words(&mut self, a: Value) -> Value {
        let high = self.ir.lanes1(Lane::Shl32, a, 1);
        let low = self.ir.lanes1(Lane::ShrU32, a, 31);
        self.ir.lanes2(Lane::Or, high, low)
    }

    /// SHA1C, SHA1P, SHA1M. The host has words in the opposite order and adds the round constant
    /// itself, which the guest has added before.
    fn sha1_rounds(&mut self, word: u32, function: u8) {
        if !self.host.sha {
            return self.sha(word);
        }
        const CONSTANTS: [u64; 3] = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc];
        const BACKWARDS: u8 = 0x1b;
        let (state, e, words) = (self.v(rd(word)), self.v(rn(word)), self.v(rm(word)));
        let constant = CONSTANTS[usize::from(function)];
        let constants = self.pattern(constant << 32 | constant);
        let words = self.ir.lanes2(Lane::Sub32, words, constants);
        let e = self.ir.lane_get(Type::I32, e, 0);
        let e = self.ir.zero_upper(e);
        let words = self.ir.lanes2(Lane::Add32, words, e);
        let words = self.ir.lanes1(Lane::Shuffle32, words, BACKWARDS);
        let state = self.ir.lanes1(Lane::Shuffle32, state, BACKWARDS);
        let state = self.ir.lanes2_imm(Lane::Sha1Rounds, state, words, function);
        let state = self.ir.lanes1(Lane::Shuffle32, state, BACKWARDS);
        self.set_v(rd(word), state);
    }

    fn sha1_schedule_0(&mut self, word: u32) {
        let (a, b, c) = (self.v(rd(word)), self.v(rn(word)), self.v(rm(word)));
        let middle = self.ir.lanes2_imm(Lane::AlignBytes, b, a, 8);
        let value = self.ir.lanes2(Lane::Xor, middle, a);
        let value = self.ir.lanes2(Lane::Xor, value, c);
        self.set_v(rd(word), value);
    }

    fn sha1_schedule_1(&mut self, word: u32) {
        let (a, b) = (self.v(rd(word)), self.v(rn(word)));
        let next = self.ir.lanes1(Lane::ShrBytes, b, 4);
        let value = self.ir.lanes2(Lane::Xor, a, next);
        let value = self.rotate_words(value);
        // The last word needs the first new one.
        let again = self.rotate_words(value);
        let last = self.ir.lanes1(Lane::ShlBytes, again, 12);
        let value = self.ir.lanes2(Lane::Xor, value, last);
        self.set_v(rd(word), value);
    }

    fn sha1_hash(&mut self, word: u32) {
        let vector = self.v(rn(word));
        let value = self.ir.lane_get(Type::I32, vector, 0);
        let by = self.ir.constant(Type::I8, 2);
        let value = self.ir.alu(Code::RotR, value, by);
        self.set_f(rd(word), value);
    }

    /// SHA256H (`first`), SHA256H2. The guest has the state as ABCD and EFGH, the host as FEBA and
    /// HGDC, lowest word first.
    fn sha256_rounds(&mut self, word: u32, first: bool) {
        if !self.host.sha {
            return self.sha(word);
        }
        const LOWER: u8 = 0x11;
        const UPPER: u8 = 0xbb;
        let (d, n, words) = (self.v(rd(word)), self.v(rn(word)), self.v(rm(word)));
        let (abcd, efgh) = if first { (d, n) } else { (n, d) };
        let feba = self.ir.lanes2_imm(Lane::ShuffleF32, efgh, abcd, LOWER);
        let hgdc = self.ir.lanes2_imm(Lane::ShuffleF32, efgh, abcd, UPPER);
        let once = self.ir.lanes3(Lane::Sha256Rounds, hgdc, feba, words);
        let words = self.ir.lanes1(Lane::ShrBytes, words, 8);
        let twice = self.ir.lanes3(Lane::Sha256Rounds, feba, once, words);
        let order = if first { UPPER } else { LOWER };
        let value = self.ir.lanes2_imm(Lane::ShuffleF32, twice, once, order);
        self.set_v(rd(word), value);
    }

    fn sha256_schedule_0(&mut self, word: u32) {
        if !self.host.sha {
            return self.sha(word);
        }
        let (a, b) = (self.v(rd(word)), self.v(rn(word)));
        let value = self.ir.lanes2(Lane::Sha256Message1, a, b);
        self.set_v(rd(word), value);
    }

    fn sha256_schedule_1(&mut self, word: u32) {
        if !self.host.sha {
            return self.sha(word);
        }
        let (a, b, c) = (self.v(rd(word)), self.v(rn(word)), self.v(rm(word)));
        let middle = self.ir.lanes2_imm(Lane::AlignBytes, c, b, 4);
        let value = self.ir.lanes2(Lane::Add32, a, middle);
        let value = self.ir.lanes2(Lane::Sha256Message2, value, c);
        self.set_v(rd(word), value);
    }

    /// PMULL of bytes or of doublewords.
    pub(super) fn polynomial_long(&mut self, word: u32) {
        let (size, upper) = (bits(word, 23, 22), bit(word, 30));
        if bit(word, 29) {
            return self.undefined(word);
        }
        let (a, b) = (self.v(rn(word)), self.v(rm(word)));
        match size {
            3 if !self.host.aes => self.aes_helper(word),
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
