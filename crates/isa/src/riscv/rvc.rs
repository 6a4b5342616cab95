//! Chapter 27, "C": compressed instructions, each a shorter spelling of a full one.

use std::sync::OnceLock;

use crate::table::{Pattern, pattern};

/// Quadrant and funct3 tell most rows apart.
const BUCKET_BITS: u32 = 0xe003;

/// A row: the compressed bits and the word they stand for.
struct Row {
    pattern: Pattern,
    expand: fn(u32) -> u32,
}

/// The full word of a compressed instruction; `None`: illegal or reserved.
pub fn expand(half: u16) -> Option<u32> {
    let word = u32::from(half);
    if word == 0 {
        return None; // defined to be illegal
    }
    static INDEX: OnceLock<Vec<Vec<&'static Row>>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let describes = |row: &Row, bucket: u32| {
            let (mask, word) = (row.pattern.mask & BUCKET_BITS, (bucket >> 2) << 13 | bucket & 3);
            row.pattern.value & mask == word & mask
        };
        (0..32).map(|bucket| ROWS.iter().filter(|row| describes(row, bucket)).collect()).collect()
    });
    let bucket = (word >> 13 << 2 | word & 3) as usize;
    let row = index[bucket].iter().find(|row| row.pattern.matches(word))?;
    Some((row.expand)(word)).filter(|full| *full != 0)
}

/// Reads named bits: `field(word, &[(bit, to), ...])`.
const fn field(word: u32, moves: &[(u32, u32)]) -> u32 {
    let (mut value, mut i) = (0, 0);
    while i < moves.len() {
        value |= (word >> moves[i].0 & 1) << moves[i].1;
        i += 1;
    }
    value
}

const fn rd(w: u32) -> u32 {
    w >> 7 & 31
}
const fn rs2(w: u32) -> u32 {
    w >> 2 & 31
}
/// The popular registers x8 to x15.
const fn rd_(w: u32) -> u32 {
    8 + (w >> 2 & 7)
}
const fn rs1_(w: u32) -> u32 {
    8 + (w >> 7 & 7)
}
/// Six bits, sign-extended.
const fn imm6(w: u32) -> u32 {
    ((((w >> 7 & 32) | (w >> 2 & 31)) << 26) as i32 >> 26) as u32
}
const fn shift(w: u32) -> u32 {
    (w >> 7 & 32) | (w >> 2 & 31)
}
const fn word_offset(w: u32) -> u32 {
    field(w, &[(6, 2), (10, 3), (11, 4), (12, 5), (5, 6)])
}
const fn double_offset(w: u32) -> u32 {
    field(w, &[(10, 3), (11, 4), (12, 5), (5, 6), (6, 7)])
}
const fn word_stack(w: u32) -> u32 {
    field(w, &[(4, 2), (5, 3), (6, 4), (12, 5), (2, 6), (3, 7)])
}
const fn double_stack(w: u32) -> u32 {
    field(w, &[(5, 3), (6, 4), (12, 5), (2, 6), (3, 7), (4, 8)])
}
const fn word_stack_store(w: u32) -> u32 {
    field(w, &[(9, 2), (10, 3), (11, 4), (12, 5), (7, 6), (8, 7)])
}
const fn double_stack_store(w: u32) -> u32 {
    field(w, &[(10, 3), (11, 4), (12, 5), (7, 6), (8, 7), (9, 8)])
}
const fn jump_offset(w: u32) -> u32 {
    let low = field(
        w,
        &[
            (3, 1),
            (4, 2),
            (5, 3),
            (11, 4),
            (2, 5),
            (7, 6),
            (6, 7),
            (9, 8),
            (10, 9),
            (8, 10),
            (12, 11),
        ],
    );
    ((low << 20) as i32 >> 20) as u32
}
const fn branch_offset(w: u32) -> u32 {
    let low = field(w, &[(3, 1), (4, 2), (10, 3), (11, 4), (2, 5), (5, 6), (6, 7), (12, 8)]);
    ((low << 23) as i32 >> 23) as u32
}

const fn r(f7: u32, rs2: u32, rs1: u32, f3: u32, rd: u32, op: u32) -> u32 {
    f7 << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 | rd << 7 | op
}
const fn i(imm: u32, rs1: u32, f3: u32, rd: u32, op: u32) -> u32 {
    imm << 20 | rs1 << 15 | f3 << 12 | rd << 7 | op
}
const fn s(imm: u32, rs2: u32, rs1: u32, f3: u32, op: u32) -> u32 {
    (imm >> 5 & 0x7f) << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 | (imm & 31) << 7 | op
}
const fn b(imm: u32, rs1: u32, f3: u32) -> u32 {
    (imm >> 12 & 1) << 31
        | (imm >> 5 & 0x3f) << 25
        | rs1 << 15
        | f3 << 12
        | (imm >> 1 & 0xf) << 8
        | (imm >> 11 & 1) << 7
        | 0x63
}
const fn j(imm: u32, rd: u32) -> u32 {
    (imm >> 20 & 1) << 31
        | (imm >> 1 & 0x3ff) << 21
        | (imm >> 11 & 1) << 20
        | (imm >> 12 & 0xff) << 12
        | rd << 7
        | 0x6f
}
/// The word if the encoding is not reserved.
const fn unless(reserved: bool, word: u32) -> u32 {
    if reserved { 0 } else { word }
}

macro_rules! compressed {
    ($($name:literal $bits:literal => $expand:expr;)*) => {
        const ROWS: &[Row] = &[$(Row { pattern: pattern($bits, 16), expand: $expand }),*];
    };
}

const OP_IMM: u32 = 0x13;
const OP_IMM_32: u32 = 0x1b;
const OP: u32 = 0x33;
const OP_32: u32 = 0x3b;
const LOAD: u32 = 0x03;
const LOAD_FP: u32 = 0x07;
const STORE: u32 = 0x23;
const STORE_FP: u32 = 0x27;
const SP: u32 = 2;

// Rows in the manual's order (tables 34 to 36); an earlier row wins.
compressed! {
    "c.addi4spn" "000 ........ ... 00" => |w| {
        let imm = field(w, &[(6, 2), (5, 3), (11, 4), (12, 5), (7, 6), (8, 7), (9, 8), (10, 9)]);
        unless(imm == 0, i(imm, SP, 0, rd_(w), OP_IMM))
    };
    "c.fld"      "001 ... ... .. ... 00" => |w| i(double_offset(w), rs1_(w), 3, rd_(w), LOAD_FP);
    "c.lw"       "010 ... ... .. ... 00" => |w| i(word_offset(w), rs1_(w), 2, rd_(w), LOAD);
    "c.ld"       "011 ... ... .. ... 00" => |w| i(double_offset(w), rs1_(w), 3, rd_(w), LOAD);
    "c.fsd"      "101 ... ... .. ... 00" => |w| s(double_offset(w), rd_(w), rs1_(w), 3, STORE_FP);
    "c.sw"       "110 ... ... .. ... 00" => |w| s(word_offset(w), rd_(w), rs1_(w), 2, STORE);
    "c.sd"       "111 ... ... .. ... 00" => |w| s(double_offset(w), rd_(w), rs1_(w), 3, STORE);

    "c.addi"     "000 . ..... ..... 01" => |w| i(imm6(w), rd(w), 0, rd(w), OP_IMM);
    "c.addiw"    "001 . ..... ..... 01" => |w| unless(rd(w) == 0, i(imm6(w), rd(w), 0, rd(w), OP_IMM_32));
    "c.li"       "010 . ..... ..... 01" => |w| i(imm6(w), 0, 0, rd(w), OP_IMM);
    "c.addi16sp" "011 . 00010 ..... 01" => |w| {
        let imm = field(w, &[(6, 4), (2, 5), (5, 6), (3, 7), (4, 8), (12, 9)]);
        unless(imm == 0, i(((imm << 22) as i32 >> 22) as u32, SP, 0, SP, OP_IMM))
    };
    "c.lui"      "011 . ..... ..... 01" => |w| unless(imm6(w) == 0, imm6(w) << 12 | rd(w) << 7 | 0x37);
    "c.srli"     "100 . 00 ... ..... 01" => |w| i(shift(w), rs1_(w), 5, rs1_(w), OP_IMM);
    "c.srai"     "100 . 01 ... ..... 01" => |w| i(0x400 | shift(w), rs1_(w), 5, rs1_(w), OP_IMM);
    "c.andi"     "100 . 10 ... ..... 01" => |w| i(imm6(w), rs1_(w), 7, rs1_(w), OP_IMM);
    "c.sub"      "100 0 11 ... 00 ... 01" => |w| r(0x20, rd_(w), rs1_(w), 0, rs1_(w), OP);
    "c.xor"      "100 0 11 ... 01 ... 01" => |w| r(0, rd_(w), rs1_(w), 4, rs1_(w), OP);
    "c.or"       "100 0 11 ... 10 ... 01" => |w| r(0, rd_(w), rs1_(w), 6, rs1_(w), OP);
    "c.and"      "100 0 11 ... 11 ... 01" => |w| r(0, rd_(w), rs1_(w), 7, rs1_(w), OP);
    "c.subw"     "100 1 11 ... 00 ... 01" => |w| r(0x20, rd_(w), rs1_(w), 0, rs1_(w), OP_32);
    "c.addw"     "100 1 11 ... 01 ... 01" => |w| r(0, rd_(w), rs1_(w), 0, rs1_(w), OP_32);
    "c.j"        "101 ........... 01" => |w| j(jump_offset(w), 0);
    "c.beqz"     "110 ... ... ..... 01" => |w| b(branch_offset(w), rs1_(w), 0);
    "c.bnez"     "111 ... ... ..... 01" => |w| b(branch_offset(w), rs1_(w), 1);

    "c.slli"     "000 . ..... ..... 10" => |w| i(shift(w), rd(w), 1, rd(w), OP_IMM);
    "c.fldsp"    "001 . ..... ..... 10" => |w| i(double_stack(w), SP, 3, rd(w), LOAD_FP);
    "c.lwsp"     "010 . ..... ..... 10" => |w| unless(rd(w) == 0, i(word_stack(w), SP, 2, rd(w), LOAD));
    "c.ldsp"     "011 . ..... ..... 10" => |w| unless(rd(w) == 0, i(double_stack(w), SP, 3, rd(w), LOAD));
    "c.jr"       "100 0 ..... 00000 10" => |w| unless(rd(w) == 0, i(0, rd(w), 0, 0, 0x67));
    "c.mv"       "100 0 ..... ..... 10" => |w| r(0, rs2(w), 0, 0, rd(w), OP);
    "c.ebreak"   "100 1 00000 00000 10" => |_| 0x0010_0073;
    "c.jalr"     "100 1 ..... 00000 10" => |w| i(0, rd(w), 0, 1, 0x67);
    "c.add"      "100 1 ..... ..... 10" => |w| r(0, rs2(w), rd(w), 0, rd(w), OP);
    "c.fsdsp"    "101 ...... ..... 10" => |w| s(double_stack_store(w), rs2(w), SP, 3, STORE_FP);
    "c.swsp"     "110 ...... ..... 10" => |w| s(word_stack_store(w), rs2(w), SP, 2, STORE);
    "c.sdsp"     "111 ...... ..... 10" => |w| s(double_stack_store(w), rs2(w), SP, 3, STORE);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs taken from the assembler's output for the same text with and without `C`.
    #[test]
    fn compressed_words_mean_their_long_spelling() {
        for (half, word) in [
            (0x1141, 0xff01_0113), // addi sp,sp,-16
            (0xe406, 0x0011_3423), // sd ra,8(sp)
            (0x60a2, 0x0081_3083), // ld ra,8(sp)
            (0x8082, 0x0000_8067), // ret
            (0x4501, 0x0000_0513), // li a0,0
            (0x852e, 0x00b0_0533), // mv a0,a1
            (0x0028, 0x0081_0513), // addi a0,sp,8
            (0x6105, 0x0201_0113), // addi sp,sp,32
            (0x9002, 0x0010_0073), // ebreak
        ] {
            assert_eq!(expand(half), Some(word), "{half:#06x}");
        }
        assert_eq!(expand(0), None);
    }
}
