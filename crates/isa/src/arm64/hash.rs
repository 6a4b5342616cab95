//! C4.1.96: SHA-512, SHA-3, SM3 and SM4, extensions of Armv8.2.

use super::helpers;
use super::lift::{Lift, Row, ra, rd, rm, rn};
use crate::ir::{Code, Lane, Type, Value};
use crate::table::{Pattern, assert_disjoint, bits, pattern};

isa! {
    eor3           "11001110 000 ..... 0 ..... ..... ....." => |l, w| l.eor3(w);
    bcax           "11001110 001 ..... 0 ..... ..... ....." => |l, w| l.bcax(w);
    sm3ss1         "11001110 010 ..... 0 ..... ..... ....." => |l, w| l.hash_helper(w);
    sm3tt          "11001110 010 ..... 10 .... ..... ....." => |l, w| l.hash_helper(w);
    sha512h        "11001110 011 ..... 100000 ..... ....." => |l, w| l.sha512h(w);
    sha512h2       "11001110 011 ..... 100001 ..... ....." => |l, w| l.sha512h2(w);
    sha512su1      "11001110 011 ..... 100010 ..... ....." => |l, w| l.sha512su1(w);
    rax1           "11001110 011 ..... 100011 ..... ....." => |l, w| l.rax1(w);
    sm3partw1      "11001110 011 ..... 110000 ..... ....." => |l, w| l.hash_helper(w);
    sm3partw2      "11001110 011 ..... 110001 ..... ....." => |l, w| l.hash_helper(w);
    sm4ekey        "11001110 011 ..... 110010 ..... ....." => |l, w| l.hash_helper(w);
    xar            "11001110 100 ..... ...... ..... ....." => |l, w| l.xar(w);
    sha512su0      "11001110 110 00000 100000 ..... ....." => |l, w| l.sha512su0(w);
    sm4e           "11001110 110 00000 100001 ..... ....." => |l, w| l.hash_helper(w);
}

impl Lift<'_> {
    fn hash_helper(&mut self, word: u32) {
        let word = self.ir.imm(i64::from(word));
        self.ir.helper(helpers::HASH, word, Value::NONE, Value::NONE);
    }

    fn eor3(&mut self, word: u32) {
        let (a, b, c) = (self.v(rn(word)), self.v(rm(word)), self.v(ra(word)));
        let value = self.ir.lanes2(Lane::Xor, b, c);
        let value = self.ir.lanes2(Lane::Xor, a, value);
        self.set_v(rd(word), value);
    }

    fn bcax(&mut self, word: u32) {
        let (a, b, c) = (self.v(rn(word)), self.v(rm(word)), self.v(ra(word)));
        let value = self.and_not(b, c);
        let value = self.ir.lanes2(Lane::Xor, a, value);
        self.set_v(rd(word), value);
    }

    /// Doublewords rotated left by 1 to 63.
    fn rotate_lanes(&mut self, a: Value, left: u32) -> Value {
        let high = self.ir.lanes1(Lane::Shl64, a, left as u8);
        let low = self.ir.lanes1(Lane::ShrU64, a, 64 - left as u8);
        self.ir.lanes2(Lane::Or, high, low)
    }

    fn rax1(&mut self, word: u32) {
        let (a, b) = (self.v(rn(word)), self.v(rm(word)));
        let rotated = self.rotate_lanes(b, 1);
        let value = self.ir.lanes2(Lane::Xor, a, rotated);
        self.set_v(rd(word), value);
    }

    fn xar(&mut self, word: u32) {
        let (a, b) = (self.v(rn(word)), self.v(rm(word)));
        let mut value = self.ir.lanes2(Lane::Xor, a, b);
        let right = bits(word, 15, 10);
        if right != 0 {
            value = self.rotate_lanes(value, 64 - right);
        }
        self.set_v(rd(word), value);
    }

    /// The halves of V`n`, low first.
    fn halves(&mut self, n: u32) -> (Value, Value) {
        let vector = self.v(n);
        let low = self.ir.lane_get(Type::I64, vector, 0);
        (low, self.ir.lane_get(Type::I64, vector, 1))
    }

    fn set_halves(&mut self, n: u32, low: Value, high: Value) {
        let vector = self.ir.zero_upper(low);
        let vector = self.ir.lane_put(vector, high, 1);
        self.set_v(n, vector);
    }

    /// Three rotations to the right, combined.
    fn rotations(&mut self, a: Value, by: [u32; 3]) -> Value {
        let [x, y, z] = by.map(|by| {
            let by = self.ir.constant(Type::I8, by.into());
            self.ir.alu(Code::RotR, a, by)
        });
        let value = self.ir.alu(Code::Xor, x, y);
        self.ir.alu(Code::Xor, value, z)
    }

    /// Two rotations and a shift to the right, combined.
    fn small_sigma(&mut self, a: Value, rotations: [u32; 2], shift: u32) -> Value {
        let [x, y] = rotations.map(|by| {
            let by = self.ir.constant(Type::I8, by.into());
            self.ir.alu(Code::RotR, a, by)
        });
        let z = self.ir.shr_imm(a, shift);
        let value = self.ir.alu(Code::Xor, x, y);
        self.ir.alu(Code::Xor, value, z)
    }

    /// `chooser ? a : b`, bit by bit.
    fn choose_words(&mut self, chooser: Value, a: Value, b: Value) -> Value {
        let differ = self.ir.alu(Code::Xor, a, b);
        let chosen = self.ir.alu(Code::And, differ, chooser);
        self.ir.alu(Code::Xor, chosen, b)
    }

    fn sum3(&mut self, a: Value, b: Value, c: Value) -> Value {
        let sum = self.ir.add(a, b);
        self.ir.add(sum, c)
    }

    fn sha512h(&mut self, word: u32) {
        const SIGMA: [u32; 3] = [14, 18, 41];
        let (w0, w1) = self.halves(rd(word));
        let (x0, x1) = self.halves(rn(word));
        let (y0, y1) = self.halves(rm(word));
        let sigma = self.rotations(y1, SIGMA);
        let chosen = self.choose_words(y1, x0, x1);
        let high = self.sum3(chosen, sigma, w1);
        let next = self.ir.add(high, y0);
        let sigma = self.rotations(next, SIGMA);
        let chosen = self.choose_words(next, y1, x0);
        let low = self.sum3(chosen, sigma, w0);
        self.set_halves(rd(word), low, high);
    }

    fn sha512h2(&mut self, word: u32) {
        const SIGMA: [u32; 3] = [28, 34, 39];
        let (w0, w1) = self.halves(rd(word));
        let (x0, _) = self.halves(rn(word));
        let (y0, y1) = self.halves(rm(word));
        let sigma = self.rotations(y0, SIGMA);
        let most = self.majority(x0, y1, y0);
        let high = self.sum3(most, sigma, w1);
        let sigma = self.rotations(high, SIGMA);
        let most = self.majority(high, y0, y1);
        let low = self.sum3(most, sigma, w0);
        self.set_halves(rd(word), low, high);
    }

    /// What two of three say: where two differ the third decides.
    fn majority(&mut self, a: Value, b: Value, c: Value) -> Value {
        let differ = self.ir.alu(Code::Xor, b, c);
        self.choose_words(differ, a, b)
    }

    fn sha512su0(&mut self, word: u32) {
        let (w0, w1) = self.halves(rd(word));
        let (x0, _) = self.halves(rn(word));
        let [low, high] = [(w0, w1), (w1, x0)].map(|(old, next)| {
            let sigma = self.small_sigma(next, [1, 8], 7);
            self.ir.add(old, sigma)
        });
        self.set_halves(rd(word), low, high);
    }

    fn sha512su1(&mut self, word: u32) {
        let (w0, w1) = self.halves(rd(word));
        let (x0, x1) = self.halves(rn(word));
        let (y0, y1) = self.halves(rm(word));
        let [low, high] = [(w0, x0, y0), (w1, x1, y1)].map(|(old, x, y)| {
            let sigma = self.small_sigma(x, [19, 61], 6);
            self.sum3(old, sigma, y)
        });
        self.set_halves(rd(word), low, high);
    }
}
