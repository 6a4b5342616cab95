//! Random sequences of common instructions: what single ones cannot show is how values, flags and
//! registers travel from one to the next.

use isa::ir::{ADJUST, CARRY, OVERFLOW, PARITY, SIGN, STATUS, ZERO};

use crate::Random;
use crate::cases::Case;

/// All but RSP, RSI and RDI, which point into the data.
const REGISTERS: [u8; 13] = [0, 1, 2, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15];

/// Instructions after which these flags are undefined.
const ALL_BUT_CARRY_OVERFLOW: u64 = SIGN | ZERO | ADJUST | PARITY;

/// One instruction after another.
pub struct Writer<'a> {
    random: &'a mut Random,
    bytes: Vec<u8>,
    undefined: u64,
}

impl<'a> Writer<'a> {
    pub fn new(random: &'a mut Random) -> Self {
        Self { random, bytes: Vec::new(), undefined: 0 }
    }

    /// What was written since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// The flags that no comparison may look at now.
    pub fn undefined(&self) -> u64 {
        self.undefined
    }

    /// An instruction of another kind has written them all.
    pub fn flags_are_defined(&mut self) {
        self.undefined = 0;
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.random.draw() % n
    }

    fn register(&mut self) -> u8 {
        REGISTERS[self.below(13) as usize]
    }

    /// Prefixes, opcode, ModRM with a register and a register or memory. `width` 0 is bytes.
    fn modrm(&mut self, width: u64, opcode: &[u8], reg: u8, memory: bool) {
        let rm = self.register();
        if width == 1 {
            self.bytes.push(0x66);
        }
        let wide = u8::from(width == 3) << 3;
        let rex = wide | (reg >> 3) << 2 | if memory { 0 } else { rm >> 3 };
        // Without REX, byte registers 4 to 7 are AH to BH: BPL needs one, the others are welcome.
        if rex != 0 || width == 0 && self.below(2) == 0 {
            self.bytes.push(0x40 | rex);
        }
        self.bytes.extend(opcode);
        if memory {
            let displacement = self.below(96) as u8;
            self.bytes.extend([0x46 | (reg & 7) << 3, displacement]); // [rsi + disp8]
        } else {
            self.bytes.push(0xc0 | (reg & 7) << 3 | rm & 7);
        }
    }

    fn immediate(&mut self, width: u64) {
        let value = self.random.word();
        let count = [1, 2, 4, 4][width as usize];
        self.bytes.extend(&value.to_le_bytes()[..count]);
    }

    /// A condition that reads no undefined flag.
    fn condition(&mut self) -> u8 {
        loop {
            let code = self.below(16) as u8;
            let reads = match code >> 1 {
                0 => OVERFLOW,
                1 => CARRY,
                2 => ZERO,
                3 => CARRY | ZERO,
                4 => SIGN,
                5 => PARITY,
                6 => SIGN | OVERFLOW,
                _ => SIGN | OVERFLOW | ZERO,
            };
            if reads & self.undefined == 0 {
                return code;
            }
            if self.undefined & STATUS == STATUS {
                return 2;
            }
        }
    }

    pub fn instruction(&mut self) {
        let width = self.below(4);
        let byte = u8::from(width != 0);
        let (reg, memory) = (self.register(), self.below(3) == 0);
        match self.below(24) {
            0..6 => {
                let operation = self.below(8) as u8;
                if matches!(operation, 2 | 3) && self.undefined & CARRY != 0 {
                    return;
                }
                let direction = if self.below(2) == 0 { 2 } else { 0 };
                self.modrm(width, &[operation << 3 | direction | byte], reg, memory);
                self.undefined = if matches!(operation, 1 | 4 | 6) { ADJUST } else { 0 };
            }
            6 | 7 => {
                let operation = self.below(8) as u8;
                if matches!(operation, 2 | 3) && self.undefined & CARRY != 0 {
                    return;
                }
                self.modrm(width, &[0x80 | byte], operation, memory);
                self.immediate(width);
                self.undefined = if matches!(operation, 1 | 4 | 6) { ADJUST } else { 0 };
            }
            8 => self.modrm(width, &[0x88 | byte], reg, memory),
            9 => self.modrm(width, &[0x8a | byte], reg, memory),
            10 => {
                let opcode = [0xb6, 0xb7, 0xbe, 0xbf][self.below(4) as usize];
                self.modrm(width.max(2), &[0x0f, opcode], reg, memory);
            }
            11 => self.modrm(width.max(2), &[0x8d], reg, true),
            12 => {
                let digit = self.below(2) as u8;
                self.modrm(width, &[0xfe | byte], digit, memory);
                self.undefined &= CARRY;
            }
            13 => {
                let digit = 2 + self.below(2) as u8;
                self.modrm(width, &[0xf6 | byte], digit, memory);
                if digit == 3 {
                    self.undefined = 0;
                }
            }
            14 => {
                let condition = self.condition();
                self.modrm(0, &[0x0f, 0x90 | condition], 0, memory);
            }
            15 => {
                let condition = self.condition();
                self.modrm(width.max(1), &[0x0f, 0x40 | condition], reg, memory);
            }
            16 => self.shift(width, byte, memory),
            17 => self.product(width, byte, reg, memory),
            18 => {
                let opcode = [0xa4, 0xac][self.below(2) as usize];
                self.modrm(width.max(2), &[0x0f, opcode], reg, memory);
                let count = 1 + self.below(31) as u8;
                self.bytes.push(count);
                self.undefined = ADJUST | OVERFLOW;
            }
            19 | 20 => self.constant(reg),
            21 | 22 => self.modrm(3, &[0x8b], reg, false),
            _ => {
                let digit = 4 + self.below(4) as u8;
                self.modrm(width.max(1), &[0x0f, 0xba], digit, memory);
                let bit = self.below(64) as u8;
                self.bytes.push(bit);
                self.undefined |= OVERFLOW | SIGN | ADJUST | PARITY;
                self.undefined &= !CARRY;
            }
        }
    }

    /// A move of 64 bits: too wide for an immediate operand of what comes next.
    fn constant(&mut self, reg: u8) {
        self.bytes.extend([0x48 | reg >> 3, 0xb8 | reg & 7]);
        let value = self.random.word();
        self.bytes.extend(value.to_le_bytes());
    }

    /// An operation on vector registers, or a move between one and memory or a general one.
    pub fn vector(&mut self) {
        // Prefix, opcode, and whether an immediate byte follows.
        const OPERATIONS: &[(u8, &[u8], bool)] = &[
            (0x66, &[0xfc], false),       // paddb
            (0x66, &[0xfe], false),       // paddd
            (0x66, &[0xd4], false),       // paddq
            (0x66, &[0xfa], false),       // psubd
            (0x66, &[0xef], false),       // pxor
            (0x66, &[0xdf], false),       // pandn
            (0x66, &[0x74], false),       // pcmpeqb
            (0x66, &[0x66], false),       // pcmpgtd
            (0x66, &[0x60], false),       // punpcklbw
            (0x66, &[0x6d], false),       // punpckhqdq
            (0x66, &[0x38, 0x00], false), // pshufb
            (0x66, &[0x38, 0x10], false), // pblendvb
            (0x66, &[0x38, 0x14], false), // blendvps
            (0x66, &[0x38, 0x15], false), // blendvpd
            (0x66, &[0x3a, 0x0f], true),  // palignr
            (0x66, &[0x3a, 0x21], true),  // insertps
            (0x66, &[0x70], true),        // pshufd
            (0x00, &[0xc6], true),        // shufps
            (0x00, &[0x58], false),       // addps
            (0x66, &[0x5c], false),       // subpd
            (0xf2, &[0x58], false),       // addsd
            (0xf3, &[0x59], false),       // mulss
            (0xf2, &[0x5d], false),       // minsd
            (0xf3, &[0x5f], false),       // maxss
            (0xf2, &[0x51], false),       // sqrtsd
            (0xf3, &[0x5a], false),       // cvtss2sd
            (0xf2, &[0x5a], false),       // cvtsd2ss
            (0xf2, &[0x10], false),       // movsd
            (0xf3, &[0x10], false),       // movss
            (0x00, &[0x28], false),       // movaps
            (0xf3, &[0x7e], false),       // movq
            (0x00, &[0x16], false),       // movlhps
            (0x66, &[0x2e], false),       // ucomisd
            (0x66, &[0x38, 0x17], false), // ptest
        ];
        let (reg, rm) = (self.below(16) as u8, self.below(16) as u8);
        match self.below(4) {
            0 => {
                // movups and movsd, from and to [rsi + displacement]
                let prefix = [&[][..], &[0xf2]][self.below(2) as usize];
                let opcode = 0x10 | self.below(2) as u8;
                let displacement = self.below(96) as u8;
                self.bytes.extend(prefix);
                let rex = 0x40 | reg >> 3 << 2;
                self.bytes.extend([rex, 0x0f, opcode, 0x46 | (reg & 7) << 3, displacement]);
            }
            1 => {
                // movq between a vector and a general register; cvtsi2sd
                let general = self.register();
                let (prefix, opcode) =
                    [(0x66, 0x6e), (0x66, 0x7e), (0xf2, 0x2a)][self.below(3) as usize];
                let rex = 0x48 | reg >> 3 << 2 | general >> 3;
                let modrm = 0xc0 | (reg & 7) << 3 | general & 7;
                self.bytes.extend([prefix, rex, 0x0f, opcode, modrm]);
            }
            _ => {
                let at = self.below(OPERATIONS.len() as u64) as usize;
                let (prefix, opcode, immediate) = OPERATIONS[at];
                if prefix != 0 {
                    self.bytes.push(prefix);
                }
                self.bytes.extend([0x40 | reg >> 3 << 2 | rm >> 3, 0x0f]);
                self.bytes.extend(opcode);
                self.bytes.push(0xc0 | (reg & 7) << 3 | rm & 7);
                if immediate {
                    let value = self.below(256) as u8;
                    self.bytes.push(value);
                }
                if matches!(opcode, [0x2e] | [0x38, 0x17]) {
                    self.undefined = 0;
                }
            }
        }
    }

    fn shift(&mut self, width: u64, byte: u8, memory: bool) {
        let digit = [4, 5, 7][self.below(3) as usize];
        self.modrm(width, &[0xc0 | byte], digit, memory);
        let count = 1 + self.below(7) as u8;
        self.bytes.push(count);
        self.undefined = ADJUST | if count > 1 { OVERFLOW } else { 0 };
    }

    fn product(&mut self, width: u64, byte: u8, reg: u8, memory: bool) {
        match self.below(3) {
            0 => self.modrm(width.max(1), &[0x0f, 0xaf], reg, memory),
            1 => self.modrm(width, &[0xf6 | byte], 4, memory),
            _ => self.modrm(width, &[0xf6 | byte], 5, memory),
        }
        self.undefined = ALL_BUT_CARRY_OVERFLOW;
    }
}

/// A sequence of `count` instructions.
pub fn sequence(random: &mut Random, count: u64) -> Case {
    let mut writer = Writer::new(random);
    for _ in 0..count {
        writer.instruction();
    }
    let Writer { bytes, undefined, .. } = writer;
    Case {
        name: format!("{bytes:02x?}"),
        bytes,
        undefined_flags: undefined,
        aligned: true,
        offset_bytes: None,
    }
}

/// A wide constant is moved on, then needed again when its scratch register had other work.
pub fn constant_needed_again() -> Case {
    let code: [&[u8]; 5] = [
        &[0x41, 0x2b, 0xcd],                                           // sub ecx, r13d
        &[0x49, 0xbf, 0x26, 0x77, 0x89, 0xc6, 0x9f, 0x01, 0xb2, 0xa5], // mov r15, constant
        &[0x4d, 0x8b, 0xf7],                                           // mov r14, r15
        &[0x41, 0x02, 0xc2],                                           // add al, r10b
        &[0x49, 0x39, 0xcf],                                           // cmp r15, rcx
    ];
    Case {
        name: "constant needed again".to_owned(),
        bytes: code.concat(),
        undefined_flags: 0,
        aligned: true,
        offset_bytes: None,
    }
}
