//! Parts of instructions: operands, and putting bytes together without memory.

use super::asm::Rm;

/// Bits 3 of the numbers of an operand's registers: X and B.
#[inline(always)]
pub fn high_bits(rm: &Rm) -> (u8, u8) {
    match rm {
        Rm::Reg(rm) => (0, rm >> 3),
        Rm::Mem(mem) => {
            (mem.index.map_or(0, |(i, _)| i >> 3), mem.base.map_or(0, |base| base >> 3))
        }
    }
}

/// ModRM, SIB and displacement.
#[inline(always)]
pub fn operand(reg: u8, rm: &Rm) -> Bytes {
    let reg = (reg & 7) << 3;
    let mut bytes = Bytes::default();
    let mem = match rm {
        Rm::Reg(rm) => {
            bytes.push(0xc0 | reg | rm & 7);
            return bytes;
        }
        Rm::Mem(mem) => mem,
    };
    let (index, scale) = mem.index.map_or((4, 0), |(i, s)| (i & 7, s));
    let Some(base) = mem.base else {
        // no base: SIB with disp32
        bytes.push(reg | 4);
        bytes.push(scale << 6 | index << 3 | 5);
        bytes.push32(mem.disp);
        return bytes;
    };
    let mode = match mem.disp {
        0 if base & 7 != 5 => 0x00,
        -128..=127 => 0x40,
        _ => 0x80,
    };
    if mem.index.is_some() || base & 7 == 4 {
        bytes.push(mode | reg | 4);
        bytes.push(scale << 6 | index << 3 | base & 7);
    } else {
        bytes.push(mode | reg | base & 7);
    }
    match mode {
        0x40 => bytes.push(mem.disp as u8),
        0x80 => bytes.push32(mem.disp),
        _ => {}
    }
    bytes
}

/// A piece of an instruction, at most eight bytes: the first lowest.
#[derive(Clone, Copy, Default)]
pub struct Bytes {
    pub value: u64,
    pub bits: u32,
}

impl Bytes {
    #[inline(always)]
    pub fn push(&mut self, byte: u8) {
        self.value |= u64::from(byte) << (self.bits & 63);
        self.bits += 8;
    }

    #[inline(always)]
    pub fn push_if(&mut self, wanted: bool, byte: u8) {
        let byte = if wanted { byte } else { 0 };
        self.value |= u64::from(byte) << (self.bits & 63);
        self.bits += u32::from(wanted) * 8;
    }

    #[inline(always)]
    pub fn push32(&mut self, value: i32) {
        self.value |= u64::from(value as u32) << (self.bits & 63);
        self.bits += 32;
    }

    #[inline(always)]
    pub fn append(&mut self, tail: Self) {
        self.value |= tail.value << (self.bits & 63);
        self.bits += tail.bits;
    }
}
