//! C4.1.94: structures of vector registers, LD1 to LD4 and ST1 to ST4.

use super::helpers;
use super::lift::{Lift, Row, bit, rd, rm, rn};
use crate::ir::{Mem, Type, Value};
use crate::table::{Pattern, assert_disjoint, bits, pattern};

isa! {
    ld_multiple    "0. 001100 0 . 0 00000 .... .. ..... ....." => |l, w| l.structures(w);
    ld_multiple_post "0. 001100 1 . 0 ..... .... .. ..... ....." => |l, w| l.structures(w);
    ld_single      "0. 001101 0 . . 00000 ... . .. ..... ....." => |l, w| l.single_structure(w);
    ld_single_post "0. 001101 1 . . ..... ... . .. ..... ....." => |l, w| l.single_structure(w);
}

/// Registers and whether they are interleaved in memory, by the `opcode` field.
const fn shape(opcode: u32) -> Option<(u32, bool)> {
    match opcode {
        0b0000 => Some((4, true)),
        0b0010 => Some((4, false)),
        0b0100 => Some((3, true)),
        0b0110 => Some((3, false)),
        0b0111 => Some((1, false)),
        0b1000 => Some((2, true)),
        0b1010 => Some((2, false)),
        _ => None,
    }
}

impl Lift<'_> {
    fn structures(&mut self, word: u32) {
        let Some((count, interleaved)) = shape(bits(word, 15, 12)) else {
            return self.undefined(word);
        };
        let full = bit(word, 30);
        if interleaved && !full && bits(word, 11, 10) == 3 {
            return self.undefined(word);
        }
        let bytes = if full { 16 } else { 8 };
        let base = self.x_sp(rn(word), Type::I64);
        if interleaved {
            let word = self.ir.imm(i64::from(word));
            self.ir.helper(helpers::STRUCTURES, word, base, Value::NONE);
        } else if bit(word, 22) {
            let values: Vec<Value> = (0..count)
                .map(|part| self.load_vector(base, (part * bytes) as i32, bytes))
                .collect();
            for (part, value) in (0..).zip(values) {
                self.set_v((rd(word) + part) % 32, value);
            }
        } else {
            for part in 0..count {
                self.store_vector(base, (part * bytes) as i32, (rd(word) + part) % 32, bytes);
            }
        }
        self.structure_base(word, base, count * bytes);
    }

    /// Post-index by Rm, or by the size when Rm is 31.
    fn structure_base(&mut self, word: u32, base: Value, bytes: u32) {
        if !bit(word, 23) {
            return;
        }
        let moved = match rm(word) {
            31 => self.ir.add_imm(base, bytes.into()),
            m => {
                let step = self.x(m, Type::I64);
                self.ir.add(base, step)
            }
        };
        self.set_x_sp(rn(word), moved);
    }

    fn single_structure(&mut self, word: u32) {
        let (opcode, s, size) = (bits(word, 15, 13), bits(word, 12, 12), bits(word, 11, 10));
        let q = bits(word, 30, 30);
        let count = (opcode & 1) << 1 | bits(word, 21, 21);
        let count = count + 1;
        let (scale, lane) = match opcode >> 1 {
            0 => (0, q << 3 | s << 2 | size),
            1 if size & 1 == 0 => (1, q << 2 | s << 1 | size >> 1),
            2 if size == 0 => (2, q << 1 | s),
            2 if size == 1 && s == 0 => (3, q),
            3 if bit(word, 22) && s == 0 => (size, u32::MAX), // replicate
            _ => return self.undefined(word),
        };
        let (bytes, ty) = (1 << scale, Type::integer(1 << scale));
        let base = self.x_sp(rn(word), Type::I64);
        let load = bit(word, 22);
        let mut loaded = Vec::new();
        for part in 0..count {
            let (at, register) = ((part * bytes) as i32, (rd(word) + part) % 32);
            if load {
                loaded.push((register, self.ir.load(ty, base, at, Mem::new(bytes))));
            } else {
                let vector = self.v(register);
                let value = self.ir.lane_get(ty, vector, lane);
                self.ir.store(base, at, value, Mem::new(bytes));
            }
        }
        for (register, value) in loaded {
            if lane == u32::MAX {
                let all = self.ir.splat(Type::V128, value);
                self.set_v_half(register, all, q == 1);
            } else {
                let old = self.v(register);
                let new = self.ir.lane_put(old, value, lane);
                self.set_v(register, new);
            }
        }
        self.structure_base(word, base, count * bytes);
    }
}
