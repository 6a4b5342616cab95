//! C4.1.94, "Loads and Stores": single registers and pairs, general and vector.

use super::lift::{Lift, Row, bit, ra, rd, rm, rn};
use super::state;
use crate::ir::{Mem, Type, Value};
use crate::table::{Pattern, assert_disjoint, bits, pattern, signed_bits};

isa! {
    ldr_literal    "0. 011 0 00 ................... ....." => |l, w| l.load_literal(w);
    ldrsw_literal  "10 011 0 00 ................... ....." => |l, w| l.load_literal(w);
    prfm_literal   "11 011 0 00 ................... ....." => |_, _| {};
    ldr_literal_sv ".. 011 1 00 ................... ....." => |l, w| l.load_literal_vector(w);
    stnp           ".0 101 0 000 0 ....... ..... ..... ....." => |l, w| l.pair(w);
    ldnp           ".0 101 0 000 1 ....... ..... ..... ....." => |l, w| l.pair(w);
    stnp_v         ".. 101 1 000 0 ....... ..... ..... ....." => |l, w| l.pair(w);
    ldnp_v         ".. 101 1 000 1 ....... ..... ..... ....." => |l, w| l.pair(w);
    stp_post       ".. 101 . 001 . ....... ..... ..... ....." => |l, w| l.pair(w);
    stp_offset     ".. 101 . 010 . ....... ..... ..... ....." => |l, w| l.pair(w);
    stp_pre        ".. 101 . 011 . ....... ..... ..... ....." => |l, w| l.pair(w);
    ldr_unscaled   ".. 111 . 00 .. 0 ......... 00 ..... ....." => |l, w| l.single_offset(w, Index::Offset);
    ldr_post       ".. 111 . 00 .. 0 ......... 01 ..... ....." => |l, w| l.single_offset(w, Index::Post);
    ldtr           ".. 111 0 00 .. 0 ......... 10 ..... ....." => |l, w| l.single_offset(w, Index::Offset);
    ldr_pre        ".. 111 . 00 .. 0 ......... 11 ..... ....." => |l, w| l.single_offset(w, Index::Pre);
    ldr_register   ".. 111 . 00 .. 1 ..... ... . 10 ..... ....." => |l, w| l.single_register(w);
    ldr_unsigned   ".. 111 . 01 .. ............ ..... ....." => |l, w| l.single_unsigned(w);
    ldraa          "11 111 0 00 . . 1 ......... . 1 ..... ....." => |l, w| l.load_authenticated(w);
}

/// When the base register changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Index {
    Offset,
    Post,
    Pre,
}

/// What a single load or store moves.
#[derive(Clone, Copy)]
enum Access {
    Store { bytes: u32 },
    Load { bytes: u32, signed: Option<Type> },
    StoreVector { bytes: u32 },
    LoadVector { bytes: u32 },
    Prefetch,
}

impl Access {
    /// From `size`, `V` and `opc`.
    fn new(word: u32) -> Option<Self> {
        let (size, opc) = (bits(word, 31, 30), bits(word, 23, 22));
        let bytes = 1 << size;
        let access = match (bit(word, 26), opc, size) {
            (false, 0, _) => Self::Store { bytes },
            (false, 1, _) => Self::Load { bytes, signed: None },
            (false, 2, 3) => Self::Prefetch,
            (false, 2, _) => Self::Load { bytes, signed: Some(Type::I64) },
            (false, _, 0 | 1) => Self::Load { bytes, signed: Some(Type::I32) },
            (true, 0, _) => Self::StoreVector { bytes },
            (true, 1, _) => Self::LoadVector { bytes },
            (true, 2, 0) => Self::StoreVector { bytes: 16 },
            (true, 3, 0) => Self::LoadVector { bytes: 16 },
            _ => return None,
        };
        Some(access)
    }

    fn bytes(self) -> u32 {
        match self {
            Self::Store { bytes }
            | Self::Load { bytes, .. }
            | Self::StoreVector { bytes }
            | Self::LoadVector { bytes } => bytes,
            Self::Prefetch => 8,
        }
    }
}

impl Lift<'_> {
    fn load_literal(&mut self, word: u32) {
        let address = self.relative(signed_bits(word, 23, 5));
        let base = self.ir.imm(address as i64);
        let mem = match bits(word, 31, 30) {
            0 => Mem::new(4),
            1 => Mem::new(8),
            _ => Mem::new(4).signed(),
        };
        let value = self.ir.load(Type::I64, base, 0, mem);
        self.set_x(rd(word), value);
    }

    fn load_literal_vector(&mut self, word: u32) {
        let size = bits(word, 31, 30);
        if size == 3 {
            return self.undefined(word);
        }
        let address = self.relative(signed_bits(word, 23, 5));
        let base = self.ir.imm(address as i64);
        let value = self.load_vector(base, 0, 4 << size);
        self.set_v(rd(word), value);
    }

    /// `bytes` from memory into a vector whose other bytes are zero.
    pub(super) fn load_vector(&mut self, base: Value, displacement: i32, bytes: u32) -> Value {
        let ty = match bytes {
            16 => return self.ir.load(Type::V128, base, displacement, Mem::new(16)),
            8 => Type::F64,
            4 => Type::F32,
            2 => Type::I16,
            _ => Type::I8,
        };
        let value = self.ir.load(ty, base, displacement, Mem::new(bytes));
        self.ir.zero_upper(value)
    }

    /// The low `bytes` of V`n` to memory.
    pub(super) fn store_vector(&mut self, base: Value, displacement: i32, n: u32, bytes: u32) {
        let vector = self.v(n);
        let value = match bytes {
            16 => vector,
            8 => self.ir.scalar(Type::F64, vector),
            4 => self.ir.scalar(Type::F32, vector),
            _ => self.ir.lane_get(Type::integer(bytes), vector, 0),
        };
        self.ir.store(base, displacement, value, Mem::new(bytes));
    }

    /// The low `bytes` of X`n` to memory.
    fn store_general(&mut self, base: Value, displacement: i32, n: u32, bytes: u32) {
        let value = self.x(n, Type::I64);
        self.ir.store(base, displacement, value, Mem::new(bytes));
    }

    fn load_general(&mut self, base: Value, at: i32, bytes: u32, signed: Option<Type>) -> Value {
        match signed {
            Some(Type::I32) => {
                let value = self.ir.load(Type::I32, base, at, Mem::new(bytes).signed());
                self.ir.zext(Type::I64, value)
            }
            Some(_) => self.ir.load(Type::I64, base, at, Mem::new(bytes).signed()),
            None => self.ir.load(Type::I64, base, at, Mem::new(bytes)),
        }
    }

    fn access(&mut self, access: Access, base: Value, displacement: i32, word: u32) {
        let register = rd(word);
        match access {
            Access::Store { bytes } => self.store_general(base, displacement, register, bytes),
            Access::Load { bytes, signed } => {
                let value = self.load_general(base, displacement, bytes, signed);
                self.set_x(register, value);
            }
            Access::StoreVector { bytes } => {
                self.store_vector(base, displacement, register, bytes);
            }
            Access::LoadVector { bytes } => {
                let value = self.load_vector(base, displacement, bytes);
                self.set_v(register, value);
            }
            Access::Prefetch => {}
        }
    }

    fn single_offset(&mut self, word: u32, index: Index) {
        let Some(access) = Access::new(word) else { return self.undefined(word) };
        let base = self.x_sp(rn(word), Type::I64);
        let offset = signed_bits(word, 20, 12);
        match index {
            Index::Offset => self.access(access, base, offset, word),
            Index::Post | Index::Pre if matches!(access, Access::Prefetch) => {
                self.undefined(word);
            }
            Index::Post | Index::Pre => {
                let at = if index == Index::Pre { offset } else { 0 };
                let moved = self.ir.add_imm(base, offset.into());
                let loaded = matches!(access, Access::Load { .. }) && rd(word) == rn(word);
                self.access(access, base, at, word);
                // With the base as destination the load wins (constrained unpredictable).
                if !loaded || rd(word) == 31 {
                    self.set_x_sp(rn(word), moved);
                }
            }
        }
    }

    fn single_register(&mut self, word: u32) {
        let Some(access) = Access::new(word) else { return self.undefined(word) };
        let option = bits(word, 15, 13);
        if option & 2 == 0 {
            return self.undefined(word);
        }
        let scale = if bit(word, 12) { access.bytes().trailing_zeros() } else { 0 };
        let base = self.x_sp(rn(word), Type::I64);
        let mut index = self.extended(rm(word), option, Type::I64);
        let scale = if scale > 3 {
            index = self.ir.shl_imm(index, scale);
            0
        } else {
            scale
        };
        let address = self.ir.lea(base, index, scale as u16, 0);
        self.access(access, address, 0, word);
    }

    fn single_unsigned(&mut self, word: u32) {
        let Some(access) = Access::new(word) else { return self.undefined(word) };
        let base = self.x_sp(rn(word), Type::I64);
        let offset = bits(word, 21, 10) * access.bytes();
        self.access(access, base, offset as i32, word);
    }

    /// LDRAA, LDRAB: the address is authenticated, which has no effect.
    fn load_authenticated(&mut self, word: u32) {
        let base = self.x_sp(rn(word), Type::I64);
        let offset = signed_bits(word, 22, 22) << 9 | bits(word, 20, 12) as i32;
        let value = self.ir.load(Type::I64, base, offset * 8, Mem::new(8));
        self.set_x(rd(word), value);
        if bit(word, 11) && (rd(word) != rn(word) || rd(word) == 31) {
            let moved = self.ir.add_imm(base, i64::from(offset) * 8);
            self.set_x_sp(rn(word), moved);
        }
    }

    fn pair(&mut self, word: u32) {
        let (opc, vector, load) = (bits(word, 31, 30), bit(word, 26), bit(word, 22));
        let signed = !vector && opc == 1;
        let bytes = match (vector, opc) {
            (_, 3) => return self.undefined(word),
            (true, opc) => 4 << opc,
            (false, 1) if !load => return self.undefined(word), // STGP is not there
            (false, 2) => 8,
            _ => 4,
        };
        let index = match bits(word, 24, 23) {
            1 => Index::Post,
            3 => Index::Pre,
            _ => Index::Offset,
        };
        let offset = signed_bits(word, 21, 15) * bytes as i32;
        let at = if index == Index::Post { 0 } else { offset };
        let base = self.x_sp(rn(word), Type::I64);
        let moved = self.ir.add_imm(base, offset.into());
        let second = at + bytes as i32;
        match (load, vector) {
            (true, true) => {
                let (low, high) =
                    (self.load_vector(base, at, bytes), self.load_vector(base, second, bytes));
                self.ir.put(state::v(rd(word)), low);
                self.ir.put(state::v(ra(word)), high);
            }
            (true, false) => {
                let sign = signed.then_some(Type::I64);
                let low = self.load_general(base, at, bytes, sign);
                let high = self.load_general(base, second, bytes, sign);
                self.set_x(rd(word), low);
                self.set_x(ra(word), high);
            }
            (false, true) => {
                self.store_vector(base, at, rd(word), bytes);
                self.store_vector(base, second, ra(word), bytes);
            }
            (false, false) => {
                self.store_general(base, at, rd(word), bytes);
                self.store_general(base, second, ra(word), bytes);
            }
        }
        if index != Index::Offset {
            self.set_x_sp(rn(word), moved);
        }
    }
}
