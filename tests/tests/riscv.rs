//! RISC-V against the reference, instruction by instruction: a program made here loads random
//! registers, runs one random instruction of a class, and writes all registers out, many times
//! over. Both emulators must print the same bytes.

use std::fs;
use std::process::Command;

use crate::instructions::{Random, Segment, write_program};

/// Where the program lies, and its parts.
const BASE: u64 = 0x40_0000;
const CODE: u64 = BASE + 0x1000;
/// Registers in, registers out, memory for loads and stores.
const INPUT: u64 = 0x1000_0000;
const OUTPUT: u64 = 0x2000_0000;
const SCRATCH: u64 = 0x3000_0000;
const SCRATCH_BYTES: u64 = 0x1000;
/// Bytes of a set: x1 to x28, where the case's code is, fcsr, f0 to f31 at 256.
const SET: usize = 512;
const TARGET_WORD: usize = 28;
const CONTROL_WORD: usize = 29;
const FLOATS_WORD: usize = 32;

const CASES: usize = 6000;

/// Registers the program needs for itself: the memory's address (before: the case's), sets.
const MEMORY: u32 = 29;
const IN: u32 = 30;
const OUT: u32 = 31;

/// A name, the instructions with `.` for a random bit, and what kind of operands they have.
struct Class {
    name: &'static str,
    rows: &'static [&'static str],
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Registers wherever the fields are.
    Registers,
    /// Loads, stores and atomics: the first source is the memory's address.
    Memory,
    /// Sixteen bits.
    Compressed,
    /// Fields of floating-point registers, with a rounding mode.
    Floats,
}

const CLASSES: &[Class] = &[
    Class {
        name: "immediates",
        kind: Kind::Registers,
        rows: &[
            ".................000.....0010011", // addi
            ".................010.....0010011", // slti
            ".................011.....0010011", // sltiu
            ".................100.....0010011", // xori
            ".................110.....0010011", // ori
            ".................111.....0010011", // andi
            "000000...........001.....0010011", // slli
            "000000...........101.....0010011", // srli
            "010000...........101.....0010011", // srai
            ".................000.....0011011", // addiw
            "0000000..........001.....0011011", // slliw
            "0000000..........101.....0011011", // srliw
            "0100000..........101.....0011011", // sraiw
            ".........................0110111", // lui
            ".........................0010111", // auipc
        ],
    },
    Class {
        name: "registers",
        kind: Kind::Registers,
        rows: &[
            "0000000................0.0110011", // add sll slt sltu xor srl or and
            "0000000................1.0110011",
            "0100000..........000.....0110011", // sub
            "0100000..........101.....0110011", // sra
            "0000001..................0110011", // mul and div, all eight
            "0000000..........000.....0111011", // addw
            "0000000..........001.....0111011", // sllw
            "0000000..........101.....0111011", // srlw
            "0100000..........000.....0111011", // subw
            "0100000..........101.....0111011", // sraw
            "0000001..........000.....0111011", // mulw
            "0000001..........1.0.....0111011", // divw remw
            "0000001..........1.1.....0111011", // divuw remuw
        ],
    },
    Class {
        name: "bits",
        kind: Kind::Registers,
        rows: &[
            "0010000..........010.....0110011", // sh1add
            "0010000..........100.....0110011", // sh2add
            "0010000..........110.....0110011", // sh3add
            "0000100..........000.....0111011", // add.uw
            "0010000..........010.....0111011", // sh1add.uw
            "0010000..........100.....0111011", // sh2add.uw
            "0010000..........110.....0111011", // sh3add.uw
            "000010...........001.....0011011", // slli.uw
            "0100000..........111.....0110011", // andn
            "0100000..........110.....0110011", // orn
            "0100000..........100.....0110011", // xnor
            "011000000000.....001.....0010011", // clz
            "011000000001.....001.....0010011", // ctz
            "011000000010.....001.....0010011", // cpop
            "011000000000.....001.....0011011", // clzw
            "011000000001.....001.....0011011", // ctzw
            "011000000010.....001.....0011011", // cpopw
            "0000101..........1.......0110011", // min minu max maxu
            "011000000100.....001.....0010011", // sext.b
            "011000000101.....001.....0010011", // sext.h
            "000010000000.....100.....0111011", // zext.h
            "0110000..........001.....0110011", // rol
            "0110000..........101.....0110011", // ror
            "011000...........101.....0010011", // rori
            "0110000..........001.....0111011", // rolw
            "0110000..........101.....0111011", // rorw
            "0110000..........101.....0011011", // roriw
            "001010000111.....101.....0010011", // orc.b
            "011010111000.....101.....0010011", // rev8
            "0100100..........001.....0110011", // bclr
            "0100100..........101.....0110011", // bext
            "0110100..........001.....0110011", // binv
            "0010100..........001.....0110011", // bset
            "010010...........001.....0010011", // bclri
            "010010...........101.....0010011", // bexti
            "011010...........001.....0010011", // binvi
            "001010...........001.....0010011", // bseti
            "0000111..........101.....0110011", // czero.eqz
            "0000111..........111.....0110011", // czero.nez
        ],
    },
    Class {
        name: "memory",
        kind: Kind::Memory,
        rows: &[
            ".................000.....0000011", // lb
            ".................001.....0000011", // lh
            ".................010.....0000011", // lw
            ".................011.....0000011", // ld
            ".................10......0000011", // lbu lhu
            ".................110.....0000011", // lwu
            ".................0.......0100011", // sb sh sw sd
            ".................010.....0000111", // flw
            ".................011.....0000111", // fld
            ".................01......0100111", // fsw fsd
            "00000............01......0101111", // amoadd
            "00001............01......0101111", // amoswap
            "00100............01......0101111", // amoxor
            "01000............01......0101111", // amoor
            "01100............01......0101111", // amoand
            "1..00............01......0101111", // amomin max minu maxu
            "00101............01......0101111", // amocas
            "00010..00000.....010.....0101111", // lr
            "00011............010.....0101111", // sc, mostly without an lr before it
        ],
    },
    Class {
        name: "compressed",
        kind: Kind::Compressed,
        rows: &[
            "000...........00", // c.addi4spn
            "000...........01", // c.addi
            "001...........01", // c.addiw
            "010...........01", // c.li
            "011...........01", // c.lui, c.addi16sp
            "100.00........01", // c.srli
            "100.01........01", // c.srai
            "100.10........01", // c.andi
            "100011........01", // c.sub xor or and
            "100111...0....01", // c.subw addw
            "000...........10", // c.slli
            "1000..........10", // c.mv
            "1001..........10", // c.add
        ],
    },
    Class {
        name: "floats",
        kind: Kind::Floats,
        rows: &[
            "0000.0...................1010011", // fadd fsub
            "0000.0...................1010011",
            "0001.0...................1010011", // fmul fdiv
            "0000.01..................1010011",
            "0001.01..................1010011",
            "0101100.0000.............1010011", // fsqrt.s, its field is cut to zero
            "0101101.0000.............1010011",
            "001000...........000.....1010011", // fsgnj
            "001000...........001.....1010011",
            "0010001..........010.....1010011",
            "0010100..........00......1010011", // fmin fmax
            "0010101..........00......1010011",
            "1100000000...............1010011", // fcvt.w.s wu l lu
            "1100001000...............1010011",
            "1101000000...............1010011", // fcvt.s.w wu l lu
            "1101001000...............1010011",
            "010000000001.............1010011", // fcvt.s.d
            "010000100000.............1010011", // fcvt.d.s
            "1010000..........000.....1010011", // fle
            "1010000..........0.......1010011", // fle flt feq
            "1010001..........00......1010011",
            "1010001..........010.....1010011",
            "111000000000.....00......1010011", // fmv.x.w fclass
            "111000100000.....00......1010011",
            "111100000000.....000.....1010011", // fmv.w.x
            "111100100000.....000.....1010011",
            ".....00..................1000011", // fmadd
            ".....01..................1000011",
            ".....0...................1000111", // fmsub
            ".....0...................1001011", // fnmsub
            ".....0...................1001111", // fnmadd
        ],
    },
];

impl Random {
    /// Bits, numbers at edges, and floating-point numbers of both widths.
    fn operand(&mut self) -> u64 {
        const EDGES: [u64; 8] =
            [0, 1, u64::MAX, 1 << 63, i64::MAX as u64, 1 << 31, u32::MAX as u64, 1 << 63 | 1];
        let edge = EDGES[self.below(8) as usize];
        match self.below(8) {
            0 => edge,
            1 => self.next() >> self.below(64),
            2 => (self.next() as i64 >> self.below(64)) as u64,
            3..=5 => self.float(),
            _ => self.next(),
        }
    }

    /// Exponents near the ends or near one; a single is boxed, mostly.
    fn float(&mut self) -> u64 {
        let wide = self.below(2) == 0;
        let (bits, mantissa) = if wide { (64, 52) } else { (32, 23) };
        let ones = (1u64 << (bits - 1 - mantissa)) - 1;
        let exponent = match self.below(5) {
            0 => 0,
            1 => ones,
            2 => ones - 1 - self.below(2),
            3 => 1 + self.below(2),
            _ => ones / 2 + self.below(70) - 35,
        };
        let fraction = match self.below(4) {
            0 => 0,
            1 => 1 << self.below(mantissa),
            2 => u64::MAX << self.below(mantissa),
            _ => self.next(),
        };
        let value =
            self.below(2) << (bits - 1) | exponent << mantissa | fraction & ((1 << mantissa) - 1);
        match wide {
            true => value,
            false if self.below(8) == 0 => value | self.next() << 32,
            false => value | 0xffff_ffff << 32,
        }
    }
}

fn field(word: u32, at: u32) -> u32 {
    word >> at & 31
}

fn with_field(word: u32, at: u32, value: u32) -> u32 {
    word & !(31 << at) | value << at
}

/// A word of a row, with fields that leave the program's registers alone.
fn instruction(random: &mut Random, row: &str, kind: Kind) -> u32 {
    let mut word = row.bytes().fold(0, |word, bit| match bit {
        b'.' => word << 1 | (random.next() >> 40 & 1) as u32,
        bit => word << 1 | u32::from(bit == b'1'),
    });
    let opcode = word & 0x7f;
    let own = |random: &mut Random, word: u32, at: u32| match field(word, at) {
        MEMORY.. => with_field(word, at, random.below(29) as u32),
        _ => word,
    };
    match kind {
        Kind::Compressed => {
            // The fields of both sources and the result that can name any register.
            for at in [7, 2] {
                if matches!(word & 3, 1 | 2) && field(word, at) >= MEMORY {
                    word = with_field(word, at, 8 + random.below(8) as u32);
                }
            }
            let quadrant_and_code = word & 0xe003;
            let nothing = match quadrant_and_code {
                0x0000 => word & 0x1fe0 == 0, // c.addi4spn of nothing is no instruction
                0x2001 => field(word, 7) == 0, // c.addiw x0
                0x6001 => word & 0x107c == 0, // c.lui of nothing
                // Jumps and breakpoints.
                0x8002 => field(word, 2) == 0,
                _ => false,
            };
            return if nothing { 1 } else { word };
        }
        Kind::Memory => {
            word = with_field(word, 15, MEMORY);
            if opcode == 0x2f {
                let compares = word >> 27 == 5;
                if compares {
                    word = word & !(7 << 12) | (2 + random.below(3) as u32) << 12;
                }
                let pairs = compares && word >> 12 & 7 == 4;
                for at in [7, 20] {
                    word = own(random, word, at) & !(u32::from(pairs) << at);
                }
                return word;
            }
            if opcode == 0x23 {
                return own(random, word, 20);
            }
            return if opcode == 0x03 { own(random, word, 7) } else { word };
        }
        Kind::Floats => {
            let top = word >> 25;
            // Square roots have one operand.
            if opcode == 0x53 && top & !1 == 0x2c {
                word = with_field(word, 20, 0);
            }
            let rounds = !matches!(top & !1, 0x10 | 0x14 | 0x50 | 0x70 | 0x78) || opcode != 0x53;
            if rounds {
                const MODES: [u32; 6] = [0, 1, 2, 3, 4, 7];
                word = word & !(7 << 12) | MODES[random.below(6) as usize] << 12;
            }
            if opcode == 0x53 && top & !1 == 0x50 && word >> 12 & 7 == 3 {
                word &= !(1 << 12);
            }
            let to_integer = matches!(top & !1, 0x60 | 0x50 | 0x70);
            let from_integer = matches!(top & !1, 0x68 | 0x78);
            if opcode == 0x53 && to_integer {
                return own(random, word, 7);
            }
            return if opcode == 0x53 && from_integer { own(random, word, 15) } else { word };
        }
        Kind::Registers => {}
    }
    if !matches!(opcode, 0x37 | 0x17) {
        word = own(random, word, 15);
    }
    if matches!(opcode, 0x33 | 0x3b) {
        // Rows of one operand have a constant there.
        let fixed = row.as_bytes()[7..12].iter().all(|&bit| bit != b'.');
        word = if fixed { word } else { own(random, word, 20) };
    }
    own(random, word, 7)
}

fn load(register: u32, base: u32, at: usize) -> u32 {
    (at as u32) << 20 | base << 15 | 3 << 12 | register << 7 | 0x03
}

fn store(register: u32, base: u32, at: usize) -> u32 {
    let at = at as u32;
    at >> 5 << 25 | register << 20 | base << 15 | 3 << 12 | (at & 31) << 7 | 0x23
}

fn add_immediate(register: u32, from: u32, value: u32) -> u32 {
    (value & 0xfff) << 20 | from << 15 | register << 7 | 0x13
}

fn load_upper(register: u32, value: u64) -> u32 {
    value as u32 & !0xfff | register << 7 | 0x37
}

fn jump(distance: i64) -> u32 {
    let d = distance as u32;
    (d >> 20 & 1) << 31
        | (d >> 1 & 0x3ff) << 21
        | (d >> 11 & 1) << 20
        | (d >> 12 & 0xff) << 12
        | 0x6f
}

/// The program, and where the code of each case is. All cases share what loads and stores registers.
fn program(words: &[(u32, bool)]) -> (Vec<u8>, Vec<u64>) {
    let mut code: Vec<u32> = vec![load_upper(IN, INPUT), load_upper(OUT, OUTPUT)];
    let again = code.len();
    for n in 0..32 {
        code.push(load(n, IN, 8 * (FLOATS_WORD + n as usize)) | 4); // fld
    }
    code.push(load(1, IN, 8 * CONTROL_WORD));
    code.push(0x0030_9073); // csrw fcsr, x1
    (1..=28).for_each(|n| code.push(load(n, IN, 8 * (n as usize - 1))));
    code.push(load(MEMORY, IN, 8 * TARGET_WORD));
    code.push(MEMORY << 15 | 0x67); // jr
    let done = code.len();
    (1..=28).for_each(|n| code.push(store(n, OUT, 8 * (n as usize - 1))));
    code.push(0x0030_20f3); // csrr x1, fcsr
    code.push(store(1, OUT, 8 * CONTROL_WORD));
    for n in 0..32 {
        code.push(store(n, OUT, 8 * (FLOATS_WORD + n as usize)) | 4); // fsd
    }
    code.push(add_immediate(IN, IN, SET as u32));
    code.push(add_immediate(OUT, OUT, SET as u32));
    // The code of the last set ends it all.
    let back = again as i64 - code.len() as i64;
    code.push(jump(4 * back));
    let mut places = Vec::new();
    for &(word, compressed) in words {
        places.push(CODE + 4 * code.len() as u64);
        code.push(load_upper(MEMORY, SCRATCH + SCRATCH_BYTES));
        code.push(if compressed { word | 1 << 16 } else { word }); // followed by c.nop
        let back = done as i64 - code.len() as i64;
        code.push(jump(4 * back));
    }
    places.push(CODE + 4 * code.len() as u64);
    let bytes = words.len() * SET;
    for (address, bytes) in [(OUTPUT, bytes as u64), (SCRATCH, 2 * SCRATCH_BYTES)] {
        code.push(add_immediate(10, 0, 1));
        code.push(load_upper(11, address));
        let upper = bytes.next_multiple_of(0x1000);
        code.push(load_upper(12, upper));
        code.push(add_immediate(12, 12, (bytes as i64 - upper as i64) as u32 & 0xfff));
        code.extend([add_immediate(17, 0, 64), 0x73]); // write
    }
    code.extend([add_immediate(10, 0, 0), add_immediate(17, 0, 94), 0x73]); // exit_group
    (code.iter().flat_map(|word| word.to_le_bytes()).collect(), places)
}

/// The sets of registers that go in: each case's place is one of them.
fn input(places: &[u64], random: &mut Random) -> Vec<u8> {
    let mut input = Vec::new();
    for place in places {
        for n in 0..SET / 8 {
            let value = match n {
                TARGET_WORD => *place,
                CONTROL_WORD => random.below(32) | random.below(5) << 5,
                FLOATS_WORD.. if random.below(3) > 0 => random.float(),
                _ => random.operand(),
            };
            input.extend(value.to_le_bytes());
        }
    }
    input
}

/// What a set of registers says, for messages.
fn differences(ours: &[u8], theirs: &[u8]) -> String {
    let name = |word: usize| match word {
        CONTROL_WORD => "fcsr".into(),
        FLOATS_WORD.. => format!("f{}", word - FLOATS_WORD),
        _ => format!("x{}", word + 1),
    };
    let word = |set: &[u8], at: usize| {
        let bytes = set[8 * at..][..8].try_into();
        bytes.map_or(0, u64::from_le_bytes)
    };
    (0..SET / 8)
        .filter(|&at| word(ours, at) != word(theirs, at))
        .map(|at| format!(" {} {:016x} not {:016x}", name(at), word(ours, at), word(theirs, at)))
        .collect()
}

fn check(name: &str) {
    let Some(reference) = tests::asset("qemu-user-10/usr/bin/qemu-riscv64") else {
        tests::skip!("no reference qemu-riscv64: run 'cargo xtask fetch'")
    };
    let class = CLASSES.iter().find(|class| class.name == name).expect("a class of the table");
    let mut random = Random(name.len() as u64);
    let words: Vec<(u32, bool)> = (0..CASES)
        .map(|_| {
            let row = class.rows[random.below(class.rows.len() as u64) as usize];
            (instruction(&mut random, row, class.kind), class.kind == Kind::Compressed)
        })
        .collect();
    let (code, places) = program(&words);
    let folder = tests::scratch(&format!("riscv-{name}"));
    let file = folder.join("program");
    let input = input(&places, &mut random);
    let words_of = |_| random.operand().to_le_bytes();
    let memory: Vec<u8> = (0..SCRATCH_BYTES / 4).flat_map(words_of).collect();
    let parts = [(5, CODE, &code[..]), (6, INPUT, &input), (6, OUTPUT, &[]), (6, SCRATCH, &memory)];
    let parts = parts.map(|(flags, address, contents)| {
        let bytes = if contents.is_empty() { input.len() } else { contents.len() };
        Segment { flags, address, contents, bytes }
    });
    const RISCV: u64 = 243;
    const DOUBLE_FLOATS_COMPRESSED: u64 = 5;
    write_program(&file, RISCV, DOUBLE_FLOATS_COMPRESSED, &parts);
    let theirs = Command::new(reference).args(["-cpu", "max"]).arg(&file).output();
    let theirs = theirs.expect("the reference starts").stdout;
    let bytes = CASES * SET + 2 * SCRATCH_BYTES as usize;
    assert_eq!(theirs.len(), bytes, "{name}: the reference ends early");
    let ours = tests::hostel().arg("qemu-riscv64").arg(&file).output().expect("hostel starts");
    assert_eq!(ours.stdout.len(), bytes, "{name}: {}", String::from_utf8_lossy(&ours.stderr));
    let sets = ours.stdout.chunks_exact(SET).zip(theirs.chunks_exact(SET)).zip(&words);
    let wrong: Vec<String> = sets
        .filter(|((ours, theirs), _)| ours != theirs)
        .map(|((ours, theirs), (word, _))| format!("{word:08x}:{}", differences(ours, theirs)))
        .collect();
    let first = &wrong[..wrong.len().min(30)];
    assert!(wrong.is_empty(), "{name}: {} of {CASES} differ\n{}", wrong.len(), first.join("\n"));
    assert!(ours.stdout == theirs, "{name}: memory differs");
    fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn immediates_are_those_of_the_reference() {
    check("immediates");
}

#[test]
fn registers_are_those_of_the_reference() {
    check("registers");
}

#[test]
fn bits_are_those_of_the_reference() {
    check("bits");
}

#[test]
fn memory_accesses_are_those_of_the_reference() {
    check("memory");
}

#[test]
fn compressed_instructions_are_those_of_the_reference() {
    check("compressed");
}

#[test]
fn floats_are_those_of_the_reference() {
    check("floats");
}
