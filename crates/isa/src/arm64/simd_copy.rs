//! C4.1.96: copies, permutations, table lookups, immediates.

use super::fp::expand_immediate;
use super::lift::{Lift, Row, bit, rd, rm, rn};
use crate::ir::{Lane, Type, Value};
use crate::table::{Pattern, assert_disjoint, bits, pattern};

isa! {
    dup_element    "0 . 0 01110 000 ..... 0 0000 1 ..... ....." => |l, w| l.duplicate(w, false);
    dup_general    "0 . 0 01110 000 ..... 0 0001 1 ..... ....." => |l, w| l.duplicate_general(w);
    smov           "0 . 0 01110 000 ..... 0 0101 1 ..... ....." => |l, w| l.move_out(w, true);
    umov           "0 . 0 01110 000 ..... 0 0111 1 ..... ....." => |l, w| l.move_out(w, false);
    ins_general    "0 1 0 01110 000 ..... 0 0011 1 ..... ....." => |l, w| l.insert_general(w);
    ins_element    "0 1 1 01110 000 ..... 0 .... 1 ..... ....." => |l, w| l.insert_element(w);
    dup_scalar     "0 1 0 11110 000 ..... 0 0000 1 ..... ....." => |l, w| l.duplicate(w, true);
    ext            "0 . 1 01110 000 ..... 0 .... 0 ..... ....." => |l, w| l.extract_bytes(w);
    uzp1           "0 . 0 01110 .. 0 ..... 0 001 10 ..... ....." => |l, w| l.permute(w);
    trn1           "0 . 0 01110 .. 0 ..... 0 010 10 ..... ....." => |l, w| l.permute(w);
    zip1           "0 . 0 01110 .. 0 ..... 0 011 10 ..... ....." => |l, w| l.permute(w);
    uzp2           "0 . 0 01110 .. 0 ..... 0 101 10 ..... ....." => |l, w| l.permute(w);
    trn2           "0 . 0 01110 .. 0 ..... 0 110 10 ..... ....." => |l, w| l.permute(w);
    zip2           "0 . 0 01110 .. 0 ..... 0 111 10 ..... ....." => |l, w| l.permute(w);
    tbl            "0 . 0 01110 000 ..... 0 .. 0 00 ..... ....." => |l, w| l.table(w);
    tbx            "0 . 0 01110 000 ..... 0 .. 1 00 ..... ....." => |l, w| l.table(w);
    movi           "0 . . 0111100000 ... .... . 1 ..... ....." => |l, w| l.move_immediate(w);
}

/// Lane size and index of an `imm5` field.
fn lane_of(imm5: u32) -> Option<(u32, u32)> {
    let size = imm5.trailing_zeros();
    (size < 4).then(|| (size, imm5 >> (size + 1)))
}

/// `AdvSIMDExpandImm` of the manual, without the FP forms.
fn expand(cmode: u32, op: bool, imm: u64) -> u64 {
    let splat32 = |word: u64| word << 32 | word;
    let splat16 = |half: u64| splat32(half << 16 | half);
    match cmode {
        0..=7 => splat32(imm << (8 * (cmode >> 1))),
        8..=11 => splat16(imm << (8 * (cmode >> 1 & 1))),
        12 => splat32(imm << 8 | 0xff),
        13 => splat32(imm << 16 | 0xffff),
        _ if !op => imm * 0x0101_0101_0101_0101,
        _ => (0..8).filter(|place| imm >> place & 1 != 0).map(|place| 0xffu64 << (8 * place)).sum(),
    }
}

impl Lift<'_> {
    fn lane_field(&mut self, word: u32) -> Option<(u32, u32)> {
        let field = lane_of(rm(word));
        if field.is_none() {
            self.undefined(word);
        }
        field
    }

    fn duplicate(&mut self, word: u32, scalar: bool) {
        let Some((size, index)) = self.lane_field(word) else { return };
        let vector = self.v(rn(word));
        let lane = self.ir.lane_get(Type::integer(1 << size), vector, index);
        if scalar {
            return self.set_f(rd(word), lane);
        }
        let value = self.ir.splat(Type::V128, lane);
        self.set_v_half(rd(word), value, bit(word, 30));
    }

    fn duplicate_general(&mut self, word: u32) {
        let Some((size, _)) = self.lane_field(word) else { return };
        let value = self.x(rn(word), Type::integer(1 << size));
        let value = self.ir.splat(Type::V128, value);
        self.set_v_half(rd(word), value, bit(word, 30));
    }

    fn move_out(&mut self, word: u32, signed: bool) {
        let Some((size, index)) = self.lane_field(word) else { return };
        let wide = bit(word, 30);
        let allocated = if signed { size < 2 || size == 2 && wide } else { wide == (size == 3) };
        if !allocated {
            return self.undefined(word);
        }
        let to = if wide { Type::I64 } else { Type::I32 };
        let vector = self.v(rn(word));
        let lane = self.ir.lane_get(Type::integer(1 << size), vector, index);
        let value = if signed { self.ir.sext(to, lane) } else { self.ir.zext(Type::I64, lane) };
        self.set_x(rd(word), value);
    }

    fn insert_general(&mut self, word: u32) {
        let Some((size, index)) = self.lane_field(word) else { return };
        let value = self.x(rn(word), Type::integer(1 << size));
        let old = self.v(rd(word));
        let value = self.ir.lane_put(old, value, index);
        self.set_v(rd(word), value);
    }

    fn insert_element(&mut self, word: u32) {
        let Some((size, index)) = self.lane_field(word) else { return };
        let from = bits(word, 14, 11) >> size;
        let (vector, old) = (self.v(rn(word)), self.v(rd(word)));
        let lane = self.ir.lane_get(Type::integer(1 << size), vector, from);
        let value = self.ir.lane_put(old, lane, index);
        self.set_v(rd(word), value);
    }

    fn extract_bytes(&mut self, word: u32) {
        let (index, full) = (bits(word, 14, 11), bit(word, 30));
        let (a, b) = (self.v(rn(word)), self.v(rm(word)));
        let value = if full {
            self.ir.lanes2_imm(Lane::AlignBytes, b, a, index as u8)
        } else if index < 8 {
            let both = self.join(a, b);
            self.ir.lanes1(Lane::ShrBytes, both, index as u8)
        } else {
            return self.undefined(word);
        };
        self.set_v_half(rd(word), value, full);
    }

    fn permute(&mut self, word: u32) {
        let (size, full) = (bits(word, 23, 22) as usize, bit(word, 30));
        let upper = bit(word, 14);
        if size == 3 && !full {
            return self.undefined(word);
        }
        let value = match bits(word, 13, 12) {
            1 => {
                let Some((even, odd)) = self.unzip_halves(word) else {
                    return self.undefined(word);
                };
                if upper { odd } else { even }
            }
            2 => self.transpose(word, size, upper),
            _ => self.zip(word, size, upper),
        };
        self.set_v_half(rd(word), value, full);
    }

    fn zip(&mut self, word: u32, size: usize, upper: bool) -> Value {
        const LOW: [Lane; 4] = [Lane::ZipLo8, Lane::ZipLo16, Lane::ZipLo32, Lane::ZipLo64];
        const HIGH: [Lane; 4] = [Lane::ZipHi8, Lane::ZipHi16, Lane::ZipHi32, Lane::ZipHi64];
        let (a, b) = (self.v(rn(word)), self.v(rm(word)));
        if bit(word, 30) {
            return self.ir.lanes2(if upper { HIGH[size] } else { LOW[size] }, a, b);
        }
        let both = self.ir.lanes2(LOW[size], a, b);
        if upper { self.ir.lanes1(Lane::ShrBytes, both, 8) } else { both }
    }

    fn transpose(&mut self, word: u32, size: usize, upper: bool) -> Value {
        let (a, b) = (self.v(rn(word)), self.v(rm(word)));
        if size == 3 {
            let lane = if upper { Lane::ZipHi64 } else { Lane::ZipLo64 };
            return self.ir.lanes2(lane, a, b);
        }
        const SHL: [Lane; 3] = [Lane::Shl16, Lane::Shl32, Lane::Shl64];
        const SHR: [Lane; 3] = [Lane::ShrU16, Lane::ShrU32, Lane::ShrU64];
        const EVEN: [u64; 3] = [0x00ff_00ff_00ff_00ff, 0x0000_ffff_0000_ffff, 0xffff_ffff];
        let (bits, mask) = (8 << size, self.pattern(EVEN[size]));
        if upper {
            let low = self.ir.lanes1(SHR[size], a, bits);
            let high = self.and_not(b, mask);
            self.ir.lanes2(Lane::Or, low, high)
        } else {
            let low = self.ir.lanes2(Lane::And, a, mask);
            let high = self.ir.lanes1(SHL[size], b, bits);
            self.ir.lanes2(Lane::Or, low, high)
        }
    }

    /// PSHUFB chooses by the low four bits and gives zero when bit 7 is set: indices from 16 up
    /// are made so by a saturating addition of 0x70.
    fn table(&mut self, word: u32) {
        let (count, keep) = (bits(word, 14, 13) + 1, bit(word, 12));
        let mut index = self.v(rm(word));
        let limit = self.pattern(0x7070_7070_7070_7070);
        let sixteen = self.pattern(0x1010_1010_1010_1010);
        let original = index;
        let mut result = None;
        for part in 0..count {
            let table = self.v((rn(word) + part) % 32);
            let selector = self.ir.lanes2(Lane::AddSatU8, index, limit);
            let found = self.ir.lanes2(Lane::Shuffle8, table, selector);
            result = Some(match result {
                Some(before) => self.ir.lanes2(Lane::Or, before, found),
                None => found,
            });
            if part + 1 < count {
                index = self.ir.lanes2(Lane::Sub8, index, sixteen);
            }
        }
        let Some(mut value) = result else { return };
        if keep {
            let last = self.pattern(u64::from(16 * count - 1) * 0x0101_0101_0101_0101);
            let high = self.ir.lanes2(Lane::MaxU8, original, last);
            let inside = self.ir.lanes2(Lane::Eq8, high, last);
            let old = self.v(rd(word));
            value = self.choose_bits(inside, value, old);
        }
        self.set_v_half(rd(word), value, bit(word, 30));
    }

    fn move_immediate(&mut self, word: u32) {
        let (cmode, op, full) = (bits(word, 15, 12), bit(word, 29), bit(word, 30));
        let imm = bits(word, 18, 16) << 5 | bits(word, 9, 5);
        let half = bit(word, 11);
        if cmode == 15 {
            return self.move_fp_immediate(word, imm);
        }
        if half {
            return self.undefined(word);
        }
        let value = expand(cmode, op, imm.into());
        let changes = cmode < 12 && cmode & 1 == 1; // ORR, BIC
        let inverted = op && cmode < 14;
        let result = if changes {
            let (old, imm) = (self.v(rd(word)), self.pattern(value));
            if op { self.and_not(old, imm) } else { self.ir.lanes2(Lane::Or, old, imm) }
        } else {
            self.constant_vector(if inverted { !value } else { value }, full)
        };
        self.set_v_half(rd(word), result, full || !changes);
    }

    /// The pattern in the low half, and the high one if `full`.
    fn constant_vector(&mut self, bits: u64, full: bool) -> Value {
        if bits == 0 || !full { self.ir.constant(Type::V128, bits) } else { self.pattern(bits) }
    }

    fn move_fp_immediate(&mut self, word: u32, imm: u32) {
        let number = expand_immediate(imm);
        let (op, half, full) = (bit(word, 29), bit(word, 11), bit(word, 30));
        let single = u64::from((number as f32).to_bits());
        let value = match (op, half) {
            (false, false) => single << 32 | single,
            (true, false) if full => number.to_bits(),
            (false, true) => {
                // the exponents of these numbers fit any format
                let half = (single >> 16 & 0x8000)
                    | ((single >> 23 & 0xff) + 15 - 127) << 10
                    | single >> 13 & 0x3ff;
                half * 0x0001_0001_0001_0001
            }
            _ => return self.undefined(word),
        };
        let result = self.constant_vector(value, full);
        self.set_v(rd(word), result);
    }
}
