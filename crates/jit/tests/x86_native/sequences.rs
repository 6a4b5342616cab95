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

    /// An operation on vector registers with or without VEX, so that the two meet.
    pub fn vector(&mut self) {
        match self.below(5) {
            0..2 if std::is_x86_feature_detected!("avx2") => self.wide_vector(),
            _ => self.narrow_vector(),
        }
    }

    /// AVX and AVX2, of 128 and 256 bits.
    fn wide_vector(&mut self) {
        // Map, prefix, W, opcode, whether there is a further source, bytes of immediate.
        const OPERATIONS: &[(u8, u8, u8, u8, bool, bool)] = &[
            (1, 1, 0, 0xfe, true, false),  // vpaddd
            (1, 1, 0, 0xd4, true, false),  // vpaddq
            (1, 1, 0, 0xef, true, false),  // vpxor
            (1, 1, 0, 0xdf, true, false),  // vpandn
            (1, 1, 0, 0x74, true, false),  // vpcmpeqb
            (1, 1, 0, 0x62, true, false),  // vpunpckldq
            (2, 1, 0, 0x00, true, false),  // vpshufb
            (1, 1, 0, 0x70, false, true),  // vpshufd
            (1, 0, 0, 0xc6, true, true),   // vshufps
            (3, 1, 0, 0x0f, true, true),   // vpalignr
            (1, 0, 0, 0x58, true, false),  // vaddps
            (1, 1, 0, 0x5c, true, false),  // vsubpd
            (1, 1, 0, 0x59, true, false),  // vmulpd
            (1, 0, 0, 0x28, false, false), // vmovaps
            (2, 1, 0, 0x58, false, false), // vpbroadcastd
            (2, 1, 0, 0x78, false, false), // vpbroadcastb
            (2, 1, 0, 0x30, false, false), // vpmovzxbw
            (2, 1, 0, 0x25, false, false), // vpmovsxdq
            (2, 1, 0, 0x47, true, false),  // vpsllvd
            (1, 1, 0, 0xd2, true, false),  // vpsrld
            (3, 1, 0, 0x02, true, true),   // vpblendd
        ];
        // Of 256 bits only.
        const HALVES: &[(u8, u8, bool)] = &[
            (0x46, 0, true),  // vperm2i128
            (0x38, 0, true),  // vinserti128
            (0x39, 0, false), // vextracti128
            (0x00, 1, false), // vpermq
        ];
        let (reg, rm, more) = (self.below(16) as u8, self.below(16) as u8, self.below(16) as u8);
        let length = self.below(2) as u8;
        let kind = self.below(12);
        if kind == 0 {
            return self.bytes.extend([0xc5, 0xf8, 0x77]); // vzeroupper
        }
        if kind < 4 {
            // vmovdqu from and to [rsi + displacement]
            let opcode = [0x6f, 0x7f][self.below(2) as usize];
            let displacement = self.below(96) as u8;
            self.vex(1, 2, [0, length], [reg, 15, 0]);
            return self.bytes.extend([opcode, 0x46 | (reg & 7) << 3, displacement]);
        }
        if kind < 6 {
            let (opcode, w, another) = HALVES[self.below(HALVES.len() as u64) as usize];
            self.vex(3, 1, [w, 1], [reg, if another { !more & 15 } else { 15 }, rm]);
            self.bytes.extend([opcode, 0xc0 | (reg & 7) << 3 | rm & 7]);
            let value = self.below(256) as u8;
            return self.bytes.push(value);
        }
        if kind == 6 && std::is_x86_feature_detected!("fma") {
            let opcode = [0x98, 0xa8, 0xb8, 0xa9, 0xb9, 0xac][self.below(6) as usize];
            let w = self.below(2) as u8;
            self.vex(2, 1, [w, length], [reg, !more & 15, rm]);
            return self.bytes.extend([opcode, 0xc0 | (reg & 7) << 3 | rm & 7]);
        }
        let at = self.below(OPERATIONS.len() as u64) as usize;
        let (map, prefix, w, opcode, another, immediate) = OPERATIONS[at];
        self.vex(map, prefix, [w, length], [reg, if another { !more & 15 } else { 15 }, rm]);
        self.bytes.extend([opcode, 0xc0 | (reg & 7) << 3 | rm & 7]);
        if immediate {
            let value = self.below(256) as u8;
            self.bytes.push(value);
        }
    }

    /// A prefix of three bytes; `more` as it is encoded.
    fn vex(&mut self, map: u8, prefix: u8, [w, length]: [u8; 2], [reg, more, rm]: [u8; 3]) {
        let first = (!reg >> 3 & 1) << 7 | 1 << 6 | (!rm >> 3 & 1) << 5 | map;
        self.bytes.extend([0xc4, first, w << 7 | more << 3 | length << 2 | prefix]);
    }

    /// SSE: an operation, or a move between a register and memory or a general one.
    fn narrow_vector(&mut self) {
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

/// A sequence of `count` instructions, most of them on vectors.
pub fn vectors(random: &mut Random, count: u64) -> Case {
    let mut writer = Writer::new(random);
    for _ in 0..count {
        match writer.below(4) {
            0 => writer.instruction(),
            _ => writer.vector(),
        }
    }
    let Writer { bytes, undefined, .. } = writer;
    let name = format!("{bytes:02x?}");
    Case { name, bytes, undefined_flags: undefined, aligned: true, offset_bytes: None }
}

/// Vector instructions in a loop and in the function it calls, so that upper halves are in use at
/// some edges between blocks and not at others.
pub fn vectors_in_a_loop(random: &mut Random, count: u64) -> Case {
    let mut writer = Writer::new(random);
    let mut some = |count: u64| {
        (0..count).for_each(|_| writer.vector());
        writer.take()
    };
    let (before, body, function) = (some(count / 2), some(count), some(count));
    const CALL: usize = 5;
    const NEXT: [u8; 3] = [0xff, 0x4f, 0x80]; // dec dword [rdi - 128]
    let around = body.len() + CALL + NEXT.len() + 6;
    let mut bytes = before;
    bytes.extend([0xc7, 0x47, 0x80, 4, 0, 0, 0]); // mov dword [rdi - 128], 4
    bytes.push(0xe8);
    bytes.extend(((around - CALL + 5) as u32).to_le_bytes());
    bytes.extend(&body);
    bytes.extend(NEXT);
    bytes.extend([0x0f, 0x85]); // jne: to the call
    bytes.extend((around as u32).wrapping_neg().to_le_bytes());
    bytes.push(0xe9);
    bytes.extend((function.len() as u32 + 1).to_le_bytes());
    bytes.extend(&function);
    bytes.push(0xc3);
    // The return address is another one on each side: mov qword [rsp - 8], 0.
    bytes.extend([0x48, 0xc7, 0x44, 0x24, 0xf8, 0, 0, 0, 0]);
    let name = format!("{bytes:02x?}");
    Case { name, bytes, undefined_flags: STATUS, aligned: true, offset_bytes: None }
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
