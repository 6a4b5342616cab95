//! The byte emitter: x86-64 encodings and nothing else.
//!
//! Registers are plain numbers, as the architecture counts them. Every method appends one
//! instruction; none looks at another.

use isa::ir::Encoding;

use super::encode::{Bytes, high_bits, operand};

/// A general register's number.
pub type Gpr = u8;
/// A vector register's number.
pub type Xmm = u8;

#[allow(missing_docs, reason = "the architecture's names")]
pub mod reg {
    pub const RAX: u8 = 0;
    pub const RCX: u8 = 1;
    pub const RDX: u8 = 2;
    pub const RBX: u8 = 3;
    pub const RSP: u8 = 4;
    pub const RBP: u8 = 5;
    pub const RSI: u8 = 6;
    pub const RDI: u8 = 7;
    pub const R12: u8 = 12;
    pub const R13: u8 = 13;
    pub const R14: u8 = 14;
    pub const R15: u8 = 15;
}

/// A memory operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mem {
    /// Base register, if any.
    pub base: Option<Gpr>,
    /// Index register (not RSP) and log2 of its scale.
    pub index: Option<(Gpr, u8)>,
    /// Displacement.
    pub disp: i32,
    /// Relative to the GS base, where the vCPU block lies.
    pub gs: bool,
}

impl Mem {
    /// In the vCPU block.
    pub const fn gs(offset: u32) -> Self {
        Self { base: None, index: None, disp: offset as i32, gs: true }
    }

    /// `[base + disp]`.
    pub const fn at(base: Gpr, disp: i32) -> Self {
        Self { base: Some(base), index: None, disp, gs: false }
    }
}

/// A register or memory operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rm {
    /// A register, general or vector as the instruction says.
    Reg(u8),
    /// Memory.
    Mem(Mem),
}

/// The eight classic two-operand operations, in the order of their encoding.
#[allow(missing_docs, reason = "the architecture's names")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Alu {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
}

/// Shifts and rotations: the digit of opcode group 2.
#[allow(missing_docs, reason = "the architecture's names")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Shift {
    Rol = 0,
    Ror = 1,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

/// Conditions, in the order of their encoding.
#[allow(missing_docs, reason = "the architecture's names")]
pub mod cc {
    pub const O: u8 = 0;
    pub const B: u8 = 2;
    pub const AE: u8 = 3;
    pub const E: u8 = 4;
    pub const NE: u8 = 5;
    pub const BE: u8 = 6;
    pub const A: u8 = 7;
    pub const S: u8 = 8;
    pub const P: u8 = 10;
    pub const NP: u8 = 11;
    pub const L: u8 = 12;
    pub const GE: u8 = 13;
    pub const LE: u8 = 14;
    pub const G: u8 = 15;
}

/// A place in the code that is not known yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label(usize);

/// The most that is emitted at once.
const PIECE_BYTES: usize = 32;

/// Code under construction, which will lie at `base`.
#[derive(Default)]
pub struct Asm {
    /// Longer than what was emitted by a piece at least, so that pieces need no room made.
    bytes: Vec<u8>,
    /// Bytes emitted.
    at: usize,
    base: u64,
}

impl Asm {
    /// Begins anew at an address.
    pub fn begin(&mut self, base: u64) {
        self.at = 0;
        self.base = base;
    }

    /// What was emitted.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.at]
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.at
    }

    /// The address of the next instruction.
    pub fn here(&self) -> u64 {
        self.base + self.at as u64
    }

    /// The next bytes.
    #[inline(always)]
    fn room(&mut self) -> &mut [u8; PIECE_BYTES] {
        if self.bytes.len() < self.at + PIECE_BYTES {
            self.grow();
        }
        let next = self.bytes[self.at..].first_chunk_mut();
        next.expect("there is room for a piece")
    }

    #[cold]
    fn grow(&mut self) {
        let bytes = (2 * self.bytes.len()).max(self.at + PIECE_BYTES).max(4096);
        self.bytes.resize(bytes, 0);
    }

    /// Raw bytes.
    #[inline(always)]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.room()[..bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    #[inline(always)]
    fn byte(&mut self, byte: u8) {
        self.room()[0] = byte;
        self.at += 1;
    }

    #[inline(always)]
    fn imm32(&mut self, value: i32) {
        self.raw(&value.to_le_bytes());
    }

    /// The general form: prefix, REX, opcode, ModRM. `size` in bytes gives 0x66 and REX.W; byte
    /// registers 4 to 7 get the REX that makes them SPL to DIL.
    #[inline(always)]
    fn modrm(&mut self, size: u8, prefix: u8, opcode: &[u8], reg: u8, rm: Rm, byte_regs: bool) {
        let mut bytes = Bytes::default();
        for &byte in opcode {
            bytes.push(byte);
        }
        self.general(size, prefix, bytes, reg, rm, byte_regs);
    }

    fn general(&mut self, size: u8, prefix: u8, opcode: Bytes, reg: u8, rm: Rm, byte_regs: bool) {
        let (x, b) = high_bits(&rm);
        let rex = u8::from(size == 8) << 3 | (reg >> 3) << 2 | x << 1 | b;
        let low_byte = byte_regs && (reg >= 4 || matches!(rm, Rm::Reg(4..)));
        let mut head = Bytes::default();
        head.push_if(matches!(rm, Rm::Mem(Mem { gs: true, .. })), 0x65);
        head.push_if(size == 2, 0x66);
        head.push_if(prefix != 0, prefix);
        head.push_if(rex != 0 || low_byte, 0x40 | rex);
        head.append(opcode);
        self.both(head, operand(reg, &rm));
    }

    /// Appends two pieces of at most eight bytes.
    #[inline(always)]
    fn both(&mut self, head: Bytes, tail: Bytes) {
        let room = self.room();
        let middle = (head.bits / 8) as usize & 7;
        room[..8].copy_from_slice(&head.value.to_le_bytes());
        room[middle..middle + 8].copy_from_slice(&tail.value.to_le_bytes());
        self.at += middle + (tail.bits / 8) as usize;
    }

    /// VEX form. `vvvv` is the first source.
    fn vex(&mut self, encoding: Encoding, wide: bool, reg: u8, vvvv: u8, rm: Rm) {
        let pp = match encoding.prefix {
            0x66 => 1,
            0xf3 => 2,
            0xf2 => 3,
            _ => 0,
        };
        let (x, b) = high_bits(&rm);
        let r = reg >> 3;
        let tail = (!vvvv & 15) << 3 | u8::from(wide) << 2 | pp;
        let mut head = Bytes::default();
        head.push_if(matches!(rm, Rm::Mem(Mem { gs: true, .. })), 0x65);
        if x == 0 && b == 0 && encoding.map == 1 && !encoding.w {
            head.push(0xc5);
            head.push((r ^ 1) << 7 | tail);
        } else {
            head.push(0xc4);
            head.push((r ^ 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | encoding.map);
            head.push(u8::from(encoding.w) << 7 | tail);
        }
        head.push(encoding.opcode);
        self.both(head, operand(reg, &rm));
    }
}

/// Data movement.
impl Asm {
    /// `mov dst, src`.
    pub fn mov(&mut self, size: u8, dst: Gpr, src: Gpr) {
        let size = if size < 4 { 4 } else { size };
        self.modrm(size, 0, &[0x8b], dst, Rm::Reg(src), false);
    }

    /// `mov dst_low, src_low`, the rest of `dst` unchanged.
    pub fn mov_part(&mut self, size: u8, dst: Gpr, src: Gpr) {
        let opcode = if size == 1 { 0x8a } else { 0x8b };
        self.modrm(size, 0, &[opcode], dst, Rm::Reg(src), size == 1);
    }

    /// The shortest way to put a constant in a register. Leaves the flags alone.
    pub fn mov_imm(&mut self, dst: Gpr, value: u64) {
        if let Ok(value) = u32::try_from(value) {
            if dst >= 8 {
                self.byte(0x41);
            }
            self.byte(0xb8 | dst & 7);
            self.imm32(value as i32);
        } else if let Ok(value) = i32::try_from(value as i64) {
            self.modrm(8, 0, &[0xc7], 0, Rm::Reg(dst), false);
            self.imm32(value);
        } else {
            self.raw(&[0x48 | dst >> 3, 0xb8 | dst & 7]);
            self.raw(&value.to_le_bytes());
        }
    }

    /// Loads, zero-extended to 64 bits.
    pub fn load(&mut self, size: u8, dst: Gpr, mem: Mem) {
        match size {
            1 => self.modrm(4, 0, &[0x0f, 0xb6], dst, Rm::Mem(mem), false),
            2 => self.modrm(4, 0, &[0x0f, 0xb7], dst, Rm::Mem(mem), false),
            _ => self.modrm(size, 0, &[0x8b], dst, Rm::Mem(mem), false),
        }
    }

    /// Loads, sign-extended to 32 or 64 bits.
    pub fn load_signed(&mut self, size: u8, to: u8, dst: Gpr, mem: Mem) {
        self.extend_signed(size, to, dst, Rm::Mem(mem));
    }

    /// `movzx`, or a 32-bit move.
    pub fn extend(&mut self, size: u8, dst: Gpr, src: Gpr) {
        match size {
            1 => self.modrm(4, 0, &[0x0f, 0xb6], dst, Rm::Reg(src), true),
            2 => self.modrm(4, 0, &[0x0f, 0xb7], dst, Rm::Reg(src), false),
            _ => self.mov(size, dst, src),
        }
    }

    /// `movsx`, `movsxd`.
    pub fn extend_signed(&mut self, size: u8, to: u8, dst: Gpr, src: Rm) {
        let to = if to < 4 { 4 } else { to };
        match size {
            1 => self.modrm(to, 0, &[0x0f, 0xbe], dst, src, matches!(src, Rm::Reg(_))),
            2 => self.modrm(to, 0, &[0x0f, 0xbf], dst, src, false),
            4 if to == 8 => self.modrm(8, 0, &[0x63], dst, src, false),
            _ => self.modrm(to, 0, &[0x8b], dst, src, false),
        }
    }

    /// Stores the low bytes.
    pub fn store(&mut self, size: u8, mem: Mem, src: Gpr) {
        let opcode = if size == 1 { 0x88 } else { 0x89 };
        self.modrm(size, 0, &[opcode], src, Rm::Mem(mem), size == 1);
    }

    /// Stores a constant (sign-extended to 64 bits).
    pub fn store_imm(&mut self, size: u8, mem: Mem, value: i32) {
        let opcode = if size == 1 { 0xc6 } else { 0xc7 };
        self.modrm(size, 0, &[opcode], 0, Rm::Mem(mem), false);
        match size {
            1 => self.byte(value as u8),
            2 => self.raw(&(value as i16).to_le_bytes()),
            _ => self.imm32(value),
        }
    }

    /// `movbe`-free byte swap of 32 or 64 bits.
    pub fn bswap(&mut self, size: u8, dst: Gpr) {
        let rex = u8::from(size == 8) << 3 | dst >> 3;
        if rex != 0 {
            self.byte(0x40 | rex);
        }
        self.raw(&[0x0f, 0xc8 | dst & 7]);
    }

    /// `rep movs` or `rep stos` on elements of a size.
    pub fn repeated_string(&mut self, size: u8, fill: bool) {
        self.byte(0xf3);
        match size {
            2 => self.byte(0x66),
            8 => self.byte(0x48),
            _ => {}
        }
        self.byte(if fill { 0xaa } else { 0xa4 } | u8::from(size != 1));
    }

    /// `lea`.
    pub fn lea(&mut self, size: u8, dst: Gpr, mem: Mem) {
        self.modrm(size, 0, &[0x8d], dst, Rm::Mem(mem), false);
    }

    /// `xchg`; with memory it is locked.
    pub fn xchg(&mut self, size: u8, reg: Gpr, rm: Rm) {
        let opcode = if size == 1 { 0x86 } else { 0x87 };
        self.modrm(size, 0, &[opcode], reg, rm, size == 1);
    }

    /// `push`.
    pub fn push(&mut self, src: Gpr) {
        if src >= 8 {
            self.byte(0x41);
        }
        self.byte(0x50 | src & 7);
    }

    /// `push imm32`, sign-extended.
    pub fn push_imm(&mut self, value: i32) {
        self.byte(0x68);
        self.imm32(value);
    }

    /// `pop`.
    pub fn pop(&mut self, dst: Gpr) {
        if dst >= 8 {
            self.byte(0x41);
        }
        self.byte(0x58 | dst & 7);
    }

    /// `pop [mem]`.
    pub fn pop_mem(&mut self, mem: Mem) {
        self.modrm(4, 0, &[0x8f], 0, Rm::Mem(mem), false);
    }

    /// `pushfq`.
    pub fn pushf(&mut self) {
        self.byte(0x9c);
    }

    /// `cmc`.
    pub fn cmc(&mut self) {
        self.byte(0xf5);
    }
}

/// Arithmetic.
impl Asm {
    /// `op dst, src`.
    pub fn alu(&mut self, size: u8, op: Alu, dst: Gpr, src: Rm) {
        let opcode = (op as u8) << 3 | if size == 1 { 2 } else { 3 };
        let byte_regs = size == 1;
        self.modrm(size, 0, &[opcode], dst, src, byte_regs);
    }

    /// `op rm, imm`.
    pub fn alu_imm(&mut self, size: u8, op: Alu, dst: Rm, value: i32) {
        let byte_regs = size == 1;
        if size == 1 {
            self.modrm(1, 0, &[0x80], op as u8, dst, matches!(dst, Rm::Reg(_)));
            return self.byte(value as u8);
        }
        if (-128..=127).contains(&value) {
            self.modrm(size, 0, &[0x83], op as u8, dst, byte_regs);
            return self.byte(value as u8);
        }
        self.modrm(size, 0, &[0x81], op as u8, dst, byte_regs);
        match size {
            2 => self.raw(&(value as i16).to_le_bytes()),
            _ => self.imm32(value),
        }
    }

    /// `op [mem], src`.
    pub fn alu_mem(&mut self, size: u8, op: Alu, mem: Mem, src: Gpr) {
        let opcode = (op as u8) << 3 | u8::from(size != 1);
        self.modrm(size, 0, &[opcode], src, Rm::Mem(mem), size == 1);
    }

    /// `test a, b`.
    pub fn test(&mut self, size: u8, a: Gpr, b: Gpr) {
        let opcode = if size == 1 { 0x84 } else { 0x85 };
        self.modrm(size, 0, &[opcode], b, Rm::Reg(a), size == 1);
    }

    /// `test rm, imm`.
    pub fn test_imm(&mut self, size: u8, a: Rm, value: i32) {
        let opcode = if size == 1 { 0xf6 } else { 0xf7 };
        self.modrm(size, 0, &[opcode], 0, a, size == 1 && matches!(a, Rm::Reg(_)));
        match size {
            1 => self.byte(value as u8),
            2 => self.raw(&(value as i16).to_le_bytes()),
            _ => self.imm32(value),
        }
    }

    /// Group 3: `not` 2, `neg` 3, `mul` 4, `imul` 5, `div` 6, `idiv` 7.
    pub fn group3(&mut self, size: u8, digit: u8, rm: Rm) {
        let opcode = if size == 1 { 0xf6 } else { 0xf7 };
        self.modrm(size, 0, &[opcode], digit, rm, size == 1 && matches!(rm, Rm::Reg(_)));
    }

    /// `inc` 0, `dec` 1.
    pub fn group4(&mut self, size: u8, digit: u8, dst: Gpr) {
        let opcode = if size == 1 { 0xfe } else { 0xff };
        self.modrm(size, 0, &[opcode], digit, Rm::Reg(dst), size == 1);
    }

    /// `imul dst, src`.
    pub fn imul(&mut self, size: u8, dst: Gpr, src: Rm) {
        self.modrm(size, 0, &[0x0f, 0xaf], dst, src, false);
    }

    /// `imul dst, src, imm`.
    pub fn imul_imm(&mut self, size: u8, dst: Gpr, src: Rm, value: i32) {
        self.modrm(size, 0, &[0x69], dst, src, false);
        match size {
            2 => self.raw(&(value as i16).to_le_bytes()),
            _ => self.imm32(value),
        }
    }

    /// Sign of the accumulator into RDX: `cwd`, `cdq`, `cqo`.
    pub fn sign_to_rdx(&mut self, size: u8) {
        match size {
            2 => self.raw(&[0x66, 0x99]),
            8 => self.raw(&[0x48, 0x99]),
            _ => self.byte(0x99),
        }
    }

    /// Shift by a constant.
    pub fn shift_imm(&mut self, size: u8, op: Shift, dst: Gpr, count: u8) {
        let opcode = if size == 1 { 0xc0 } else { 0xc1 };
        self.modrm(size, 0, &[opcode], op as u8, Rm::Reg(dst), size == 1);
        self.byte(count);
    }

    /// Shift by CL.
    pub fn shift_cl(&mut self, size: u8, op: Shift, dst: Gpr) {
        let opcode = if size == 1 { 0xd2 } else { 0xd3 };
        self.modrm(size, 0, &[opcode], op as u8, Rm::Reg(dst), size == 1);
    }

    /// BMI2 `shlx`, `shrx`, `sarx`: no flags, any count register. 32 or 64 bits.
    pub fn shift_bmi(&mut self, size: u8, op: Shift, dst: Gpr, src: Gpr, count: Gpr) {
        let prefix = match op {
            Shift::Shl => 0x66,
            Shift::Shr => 0xf2,
            _ => 0xf3,
        };
        let encoding = Encoding { prefix, map: 2, opcode: 0xf7, w: size == 8 };
        self.vex(encoding, false, dst, count, Rm::Reg(src));
    }

    /// BMI1 `andn dst, !a & b`.
    pub fn andn(&mut self, size: u8, dst: Gpr, a: Gpr, b: Gpr) {
        let encoding = Encoding { prefix: 0, map: 2, opcode: 0xf2, w: size == 8 };
        self.vex(encoding, false, dst, a, Rm::Reg(b));
    }

    /// BMI2 `pext` (0xf3) and `pdep` (0xf2).
    pub fn bits_bmi(&mut self, size: u8, prefix: u8, dst: Gpr, src: Gpr, mask: Gpr) {
        let encoding = Encoding { prefix, map: 2, opcode: 0xf5, w: size == 8 };
        self.vex(encoding, false, dst, src, Rm::Reg(mask));
    }

    /// `shld` (0xa5), `shrd` (0xad) by CL.
    pub fn double_shift_cl(&mut self, size: u8, opcode: u8, dst: Gpr, src: Gpr) {
        self.modrm(size, 0, &[0x0f, opcode], src, Rm::Reg(dst), false);
    }

    /// `shld` (0xa4), `shrd` (0xac) by a constant.
    pub fn double_shift_imm(&mut self, size: u8, opcode: u8, dst: Gpr, src: Gpr, count: u8) {
        self.modrm(size, 0, &[0x0f, opcode], src, Rm::Reg(dst), false);
        self.byte(count);
    }

    /// `lzcnt` 0xbd, `tzcnt` 0xbc, `popcnt` 0xb8.
    pub fn count(&mut self, size: u8, opcode: u8, dst: Gpr, src: Gpr) {
        // 0x66 must come before 0xf3 and REX after both
        self.modrm(size, 0xf3, &[0x0f, opcode], dst, Rm::Reg(src), false);
    }

    /// `bsf`, `bsr`: the opcode with its escape.
    pub fn bit_scan(&mut self, size: u8, opcode: &[u8], dst: Gpr, src: Gpr) {
        self.modrm(size, 0, opcode, dst, Rm::Reg(src), false);
    }

    /// `bt rm, imm8`.
    pub fn bt_imm(&mut self, size: u8, a: Rm, bit: u8) {
        self.modrm(size, 0, &[0x0f, 0xba], 4, a, false);
        self.byte(bit);
    }

    /// `btc dst, imm8`.
    pub fn flip_bit(&mut self, size: u8, dst: Gpr, bit: u8) {
        self.modrm(size, 0, &[0x0f, 0xba], 7, Rm::Reg(dst), false);
        self.byte(bit);
    }

    /// `bt a, b`.
    pub fn bt(&mut self, size: u8, a: Gpr, b: Gpr) {
        self.modrm(size, 0, &[0x0f, 0xa3], b, Rm::Reg(a), false);
    }

    /// `bts a, b`, or `btr`.
    pub fn set_bit(&mut self, size: u8, a: Gpr, b: Gpr, set: bool) {
        let opcode = if set { 0xab } else { 0xb3 };
        self.modrm(size, 0, &[0x0f, opcode], b, Rm::Reg(a), false);
    }

    /// `crc32 dst, src` (CRC-32C).
    pub fn crc32(&mut self, size: u8, dst: Gpr, src: Gpr) {
        let opcode = if size == 1 { 0xf0 } else { 0xf1 };
        self.modrm(size, 0xf2, &[0x0f, 0x38, opcode], dst, Rm::Reg(src), size == 1);
    }

    /// `setcc`.
    pub fn setcc(&mut self, cc: u8, dst: Gpr) {
        self.modrm(1, 0, &[0x0f, 0x90 | cc], 0, Rm::Reg(dst), true);
    }

    /// `cmovcc`.
    pub fn cmov(&mut self, size: u8, cc: u8, dst: Gpr, src: Rm) {
        let size = if size < 4 { 4 } else { size };
        self.modrm(size, 0, &[0x0f, 0x40 | cc], dst, src, false);
    }
}

/// Atomics.
impl Asm {
    /// `lock xadd [mem], reg`.
    pub fn lock_xadd(&mut self, size: u8, mem: Mem, reg: Gpr) {
        self.byte(0xf0);
        let opcode = if size == 1 { 0xc0 } else { 0xc1 };
        self.modrm(size, 0, &[0x0f, opcode], reg, Rm::Mem(mem), size == 1);
    }

    /// `lock cmpxchg [mem], reg` with RAX.
    pub fn lock_cmpxchg(&mut self, size: u8, mem: Mem, reg: Gpr) {
        self.byte(0xf0);
        let opcode = if size == 1 { 0xb0 } else { 0xb1 };
        self.modrm(size, 0, &[0x0f, opcode], reg, Rm::Mem(mem), size == 1);
    }

    /// `lock or dword [rsp], 0`: the cheapest full barrier.
    pub fn full_fence(&mut self) {
        self.raw(&[0xf0, 0x83, 0x0c, 0x24, 0x00]);
    }
}

/// Control flow.
impl Asm {
    /// Pads with one long no-op so that the next byte lies at `offset` modulo 4.
    pub fn align4(&mut self, offset: u64) {
        let pad = (offset.wrapping_sub(self.here()) & 3) as usize;
        self.raw([&[][..], &[0x90], &[0x66, 0x90], &[0x0f, 0x1f, 0x00]][pad]);
    }

    fn rel32(&mut self, target: u64) {
        let next = self.here() + 4;
        self.imm32(target.wrapping_sub(next) as i32);
    }

    /// `jmp target`.
    pub fn jmp(&mut self, target: u64) {
        self.byte(0xe9);
        self.rel32(target);
    }

    /// `jmp` whose displacement is aligned, so that one store can change it; the place of it.
    pub fn jmp_patchable(&mut self) -> Label {
        self.align4(3); // 0xe9 at 3 mod 4, displacement at 0 mod 4
        self.byte(0xe9);
        self.hole()
    }

    /// `jcc` likewise.
    pub fn jcc_patchable(&mut self, cc: u8) -> Label {
        self.align4(2);
        self.raw(&[0x0f, 0x80 | cc]);
        self.hole()
    }

    /// `call` likewise.
    pub fn call_patchable(&mut self) -> Label {
        self.align4(3);
        self.byte(0xe8);
        self.hole()
    }

    fn hole(&mut self) -> Label {
        self.imm32(0);
        Label(self.len() - 4)
    }

    /// `jcc` forward to a place bound later.
    pub fn jcc(&mut self, cc: u8) -> Label {
        self.raw(&[0x0f, 0x80 | cc]);
        self.hole()
    }

    /// `jmp` forward to a place bound later.
    pub fn jmp_forward(&mut self) -> Label {
        self.byte(0xe9);
        self.hole()
    }

    /// `jcc` to a known place.
    pub fn jcc_to(&mut self, cc: u8, target: u64) {
        self.raw(&[0x0f, 0x80 | cc]);
        self.rel32(target);
    }

    /// The place of a forward jump is here.
    pub fn bind(&mut self, label: Label) {
        let here = self.here();
        self.bind_to(label, here);
    }

    /// The place of a forward jump is there.
    pub fn bind_to(&mut self, label: Label, target: u64) {
        let next = self.base + label.0 as u64 + 4;
        let relative = target.wrapping_sub(next) as i32;
        self.bytes[label.0..label.0 + 4].copy_from_slice(&relative.to_le_bytes());
    }

    /// Where the displacement of a patchable jump lies.
    pub fn label_address(&self, label: Label) -> u64 {
        self.base + label.0 as u64
    }

    /// Sets the displacement at an address so that its jump goes to `target`.
    pub fn patch(&mut self, place: u64, target: u64) {
        self.bind_to(Label((place - self.base) as usize), target);
    }

    /// `call target`.
    pub fn call(&mut self, target: u64) {
        self.byte(0xe8);
        self.rel32(target);
    }

    /// `jmp rm`.
    pub fn jmp_rm(&mut self, rm: Rm) {
        self.modrm(4, 0, &[0xff], 4, rm, false);
    }

    /// `call rm`.
    pub fn call_rm(&mut self, rm: Rm) {
        self.modrm(4, 0, &[0xff], 2, rm, false);
    }

    /// `ret`.
    pub fn ret(&mut self) {
        self.byte(0xc3);
    }

    /// `wrgsbase src`.
    pub fn wrgsbase(&mut self, src: Gpr) {
        self.modrm(8, 0xf3, &[0x0f, 0xae], 3, Rm::Reg(src), false);
    }

    /// `ldmxcsr` 2, `stmxcsr` 3.
    pub fn mxcsr(&mut self, digit: u8, mem: Mem) {
        self.modrm(4, 0, &[0x0f, 0xae], digit, Rm::Mem(mem), false);
    }

    /// An x87 instruction with a memory operand.
    pub fn x87(&mut self, opcode: u8, digit: u8, mem: Mem) {
        self.modrm(4, 0, &[opcode], digit, Rm::Mem(mem), false);
    }
}

/// Vectors.
impl Asm {
    /// A VEX instruction `dst = op(a, b)`; `wide` is 256 bits.
    pub fn v3(&mut self, encoding: Encoding, wide: bool, dst: Xmm, a: Xmm, b: Rm) {
        self.vex(encoding, wide, dst, a, b);
    }

    /// The same with an immediate (or the fourth register in its upper half).
    pub fn v3_imm(&mut self, encoding: Encoding, wide: bool, dst: Xmm, a: Xmm, b: Rm, imm: u8) {
        self.vex(encoding, wide, dst, a, b);
        self.byte(imm);
    }

    /// The two-operand SSE form `dst = op(dst, b)`.
    pub fn sse(&mut self, encoding: Encoding, dst: Xmm, b: Rm) {
        let size = if encoding.w { 8 } else { 4 };
        let opcode: &[u8] = match encoding.map {
            1 => &[0x0f, encoding.opcode],
            2 => &[0x0f, 0x38, encoding.opcode],
            _ => &[0x0f, 0x3a, encoding.opcode],
        };
        self.modrm(size, encoding.prefix, opcode, dst, b, false);
    }

    /// The same with an immediate.
    pub fn sse_imm(&mut self, encoding: Encoding, dst: Xmm, b: Rm, imm: u8) {
        self.sse(encoding, dst, b);
        self.byte(imm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emitted(emit: impl FnOnce(&mut Asm)) -> Vec<u8> {
        let mut asm = Asm::default();
        asm.begin(0x1000);
        emit(&mut asm);
        asm.bytes().to_vec()
    }

    /// Expected bytes are GNU as's.
    #[test]
    fn encodings_are_the_assemblers() {
        let mem = Mem { base: Some(13), index: Some((12, 3)), disp: 0, gs: false };
        let cases: &[(&[u8], Vec<u8>)] = &[
            (&[0x48, 0x01 + 2, 0xd9], emitted(|a| a.alu(8, Alu::Add, 3, Rm::Reg(1)))),
            (&[0x41, 0x83, 0xe8, 0x05], emitted(|a| a.alu_imm(4, Alu::Sub, Rm::Reg(8), 5))),
            (&[0x4b, 0x8d, 0x44, 0xe5, 0x00], emitted(|a| a.lea(8, 0, mem))),
            (&[0x8b, 0x04, 0x24], emitted(|a| a.load(4, 0, Mem::at(4, 0)))),
            (&[0x40, 0x88, 0x75, 0x00], emitted(|a| a.store(1, Mem::at(5, 0), 6))),
            (
                &[0x65, 0x48, 0x8b, 0x1c, 0x25, 0x10, 0, 0, 0],
                emitted(|a| a.load(8, 3, Mem::gs(16))),
            ),
            (&[0xc4, 0xe2, 0xf1, 0xf7, 0xc3], emitted(|a| a.shift_bmi(8, Shift::Shl, 0, 3, 1))),
            (&[0xf3, 0x48, 0x0f, 0xbd, 0xc1], emitted(|a| a.count(8, 0xbd, 0, 1))),
            (&[0xbb, 1, 0, 0, 0], emitted(|a| a.mov_imm(3, 1))),
            (&[0x49, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff], emitted(|a| a.mov_imm(8, u64::MAX))),
        ];
        for (expected, got) in cases {
            assert_eq!(expected, got);
        }
    }
}
