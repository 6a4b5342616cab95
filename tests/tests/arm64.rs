//! AArch64 against the reference, instruction by instruction: a program made here loads random
//! registers, runs one random instruction of a class, and writes all registers out, many times
//! over. Both emulators must print the same bytes.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::instructions::{Random, Segment, write_program};

/// Where the program lies, and its parts.
const BASE: u64 = 0x40_0000;
const CODE: u64 = BASE + 0x1000;
/// Registers in, registers out, memory for loads and stores.
const INPUT: u64 = 0x1000_0000;
const OUTPUT: u64 = 0x2000_0000;
const SCRATCH: u64 = 0x3000_0000;
const SCRATCH_BYTES: u64 = 0x4_0000;
/// Bytes of a set of registers: X0 to X26, NZCV, FPSR, FPCR (not in what comes out), then V0 to V31 at 256.
const SET: usize = 768;

const CASES: usize = 4000;

/// Registers the program needs for itself: input, output, and what BL writes.
const IN: u32 = 27;
const OUT: u32 = 28;
const WORK: u32 = 29;
/// The base and the index of memory accesses.
const MEMORY: u32 = 26;
const INDEX: u32 = 25;

struct Class {
    name: &'static str,
    rows: &'static [&'static str],
    /// Processors of the reference; what one of them does is right.
    cpus: &'static [&'static str],
}

/// Armv8.2, and all extensions, of which ours has some.
const PLAIN: &[&str] = &["cortex-a76", "max"];
/// One with every extension that ours has.
const MAX: &[&str] = &["max"];

const CLASSES: &[Class] = &[
    Class {
        name: "integer immediate",
        cpus: PLAIN,
        rows: &[
            ".0010001.......................",
            ".0110001.......................",
            ".1010001.......................",
            ".1110001.......................",
            "...100100......................",
            "...100101......................",
            "...100110......................",
            ".00100111.0....................",
        ],
    },
    Class {
        name: "integer register",
        cpus: PLAIN,
        rows: &[
            "...01010.......................",
            "...01011.......................",
            "...11010000.....000000..........",
            "..111010010..........0.....0....",
            "...11010100.........0...........",
            ".1011010110000000000............",
            ".0011010110.....0000............",
            ".0011010110.....0010............",
            ".0011010110.....010.............",
            "...11011000....................",
            "10011011.01....................",
            "10011011.10....................",
        ],
    },
    Class {
        name: "memory",
        cpus: PLAIN,
        rows: &[
            "..111.00..0.........00..........",
            "..111.00..0.........01..........",
            "..111.00..0.........11..........",
            "..111.01........................",
            "..111.00..1.....011.10..........",
            "..101.010.......................",
            "..101.001.......................",
            "..101.011.......................",
            "0.001100..000000................",
            "0.001101..000000................",
            "..111000..1.....0...00..........",
            "..0010001.1.....111111..........",
        ],
    },
    Class {
        name: "vector integer",
        cpus: PLAIN,
        rows: &[
            "0..01110..1.....0....1..........",
            "0..01110..1.....10...1..........",
            "0..01110..1.........00..........",
            "0..01110..10000000..10..........",
            "0..01110..10000001..10..........",
            "0..01110..1000001...10..........",
            "0..01110..110000....10..........",
            "0..01110..110001....10..........",
            "0.001111......................",
            "0..01111........0.10.0..........",
            "0..01111........10..00..........",
            "0..01111........110..0..........",
            "0..0111100.....................1",
            "0..0111101......0....1..........",
            "0..011110.......0....1..........",
            "0..011110.......100..1..........",
            "0..011110.......10100............",
            "01.111110.......0....1..........",
            "01.11110..1.....0....1..........",
            "01.11110..1.........00..........",
            "0.001110..0.....0...10..........",
            "0.101110000.....0....0..........",
            "0.001110000.....0....00.........",
            "0..01110000.....0....1..........",
            "0..01110..0.....1....1..........",
            "0100111000101000.....10.........",
            "01011110000.....0...00..........",
            "0101111000101000....10..........",
            "01.11110..10000.....10..........",
        ],
    },
    Class {
        name: "scalar FP",
        cpus: PLAIN,
        rows: &[
            "00011110..10.......10...........",
            "00011110..1.........10..........",
            "00011110..1.....001000.......000",
            "00011110..1.........01..........",
            "00011110..1.........11..........",
            "00011111........................",
            ".0011110..1.....000000..........",
            ".0011110..0.....................",
            "00011110..1........10000000.....",
            "00011110..1000......10000.......",
        ],
    },
    Class {
        name: "vector FP",
        cpus: PLAIN,
        rows: &[
            "0..011100.1.....11...1..........",
            "0..011101.1.....11...1..........",
            "0..01110.010000.....10..........",
            "0..01110.110000.....10..........",
            "01.111100.1.....11...1..........",
            "01.111101.1.....11...1..........",
            "0..011111.......0.01.0..........",
            "0..011111.......1001.0..........",
            "01.11110..11000.....10..........",
            "0..01110..11000.....10..........",
        ],
    },
    Class {
        name: "half precision",
        cpus: PLAIN,
        rows: &[
            "0001111011......................",
            "0001111111......................",
            ".001111011......................",
            "0..01110.10.....00...1..........",
            // The reference fails on what is not allocated here.
            "0..011100111100110..10..........",
            "0..0111001111001110.10..........",
            "0..0111011111000110.10..........",
            "0..0111011111000111110..........",
            "0..0111011111001100110..........",
            "0..0111011111001101.10..........",
            "0..0111011111001110110..........",
            "0.10111011111001111110..........",
            "01.1111011111000110.10..........",
            "01.11110.1111001101.10..........",
            "01.11110.1111001110110..........",
            "0101111011111001111110..........",
            "01.11110.10.....00...1..........",
            "0..0111100............0.........",
        ],
    },
    Class {
        name: "extensions",
        cpus: MAX,
        rows: &[
            "11001110........................",
            "0.101110..0.....110..1..........",
            "0.101110..0.....111.01..........",
            "0.101111........0..1.0..........",
            "0.0011100.1.....111011..........",
            "0.0011101.1.....111011..........",
            "0.1011100.1.....110011..........",
            "0.1011101.1.....110011..........",
            "0.00111110......0.00.0..........",
            "0.10111110......1.00.0..........",
            "10111010000......00001.....0....",
            "00111010000000000.0010.....01101",
            "0001111001111110000000..........",
            "11010101000000000100000000011111",
            "01011110000.....0...00..........",
            "0101111000101000....10..........",
            "0100111000101000....10..........",
        ],
    },
    Class {
        name: "everything",
        cpus: PLAIN,
        rows: &[
            "0..0111.........................",
            "01.1111.........................",
            "00011110........................",
            "...1101.........................",
            ".1.11010........................",
            "110011..........................",
        ],
    },
];

impl Random {
    /// Bits, or numbers at the edges of the formats.
    fn word(&mut self) -> u64 {
        const DOUBLES: [u64; 10] = [
            0,
            1 << 63,
            0x3ff0_0000_0000_0000,
            0xc008_0000_0000_0000,
            0x7ff0_0000_0000_0000,
            0x7ff8_0000_0000_1234,
            0x7ff0_0000_0000_4321,
            0xfff8_0000_0000_0001,
            0x41e0_0000_0000_0000,
            0xc3e0_0000_0000_0000,
        ];
        const SINGLES: [u32; 10] = [
            0,
            1 << 31,
            0x3f80_0000,
            0xc040_0000,
            0x7f80_0000,
            0x7fc0_1234,
            0x7f80_4321,
            0xffc0_0001,
            0x4f00_0000,
            0xcf00_0001,
        ];
        match self.below(6) {
            0 => DOUBLES[self.below(10) as usize],
            1 | 2 => {
                let mut single = || match self.below(3) {
                    0 => (self.below(2000) as f32 - 1000.0).to_bits(),
                    _ => SINGLES[self.below(10) as usize],
                };
                u64::from(single()) << 32 | u64::from(single())
            }
            3 => (self.below(1 << 20) as f64 - 5e5).to_bits(),
            4 => [0, 1, u64::MAX, i64::MAX as u64, 1 << 63, 0x8000_7fff_80ff_017f]
                [self.below(6) as usize],
            _ => self.next(),
        }
    }
}

/// A word of a row, with registers that the program can spare.
fn instruction(random: &mut Random, row: &str, class: &str) -> u32 {
    let mut word = random.next() as u32;
    let row = &format!("{row:.<32}");
    for (place, letter) in row.bytes().take(32).enumerate() {
        let bit = 31 - place as u32;
        match letter {
            b'0' => word &= !(1 << bit),
            b'1' => word |= 1 << bit,
            _ => {}
        }
    }
    let general = |random: &mut Random| random.below(24) as u32;
    let fields: &[usize] = if class == "everything" { &[0, 5] } else { &[0, 5, 10, 16] };
    for &field in fields {
        // Fields may be something else than a register; changing free bits there does no harm.
        let free = (0..5).all(|bit| row.as_bytes().get(31 - field - bit) == Some(&b'.'));
        if free
            && (field != 10
                || class == "integer register" && row.starts_with("...11011")
                || row.starts_with("10011011")
                || class == "memory" && row.starts_with("..101"))
        {
            word = word & !(31 << field) | general(random) << field;
        }
    }
    if class == "memory" {
        word = word & !(31 << 5) | MEMORY << 5;
        if row.starts_with("..111.00..1.....011") {
            word = word & !(31 << 16) | INDEX << 16;
        }
    }
    if class == "memory" && word & 0x3a40_0000 == 0x2840_0000 && word >> 10 & 31 == word & 31 {
        word ^= 1 << 10; // two loads to one register: nobody says which wins
    }
    // The reference takes half-precision reductions for allocated whatever their size bit is.
    if word & 0xbf7e_0c00 == 0x0e70_0800 || word & 0xff7e_0c00 == 0x5e70_0800 {
        word &= !(1 << 22);
    }
    word
}

/// Instructions of the frame around the tested one.
mod frame {
    pub fn ldr_x(t: u32, base: u32, offset: u32) -> u32 {
        0xf940_0000 | (offset / 8) << 10 | base << 5 | t
    }
    pub fn str_x(t: u32, base: u32, offset: u32) -> u32 {
        0xf900_0000 | (offset / 8) << 10 | base << 5 | t
    }
    pub fn ldr_q(t: u32, base: u32, offset: u32) -> u32 {
        0x3dc0_0000 | (offset / 16) << 10 | base << 5 | t
    }
    pub fn str_q(t: u32, base: u32, offset: u32) -> u32 {
        0x3d80_0000 | (offset / 16) << 10 | base << 5 | t
    }
    pub fn add(d: u32, n: u32, imm: u32) -> u32 {
        0x9100_0000 | imm << 10 | n << 5 | d
    }
    pub fn bl(words: i32) -> u32 {
        0x9400_0000 | words as u32 & 0x3ff_ffff
    }
    /// MOVZ and MOVK of 32 bits.
    pub fn set(d: u32, value: u64) -> [u32; 2] {
        let (low, high) = (value as u32 & 0xffff, (value >> 16) as u32 & 0xffff);
        [0xd280_0000 | low << 5 | d, 0xf2a0_0000 | high << 5 | d]
    }
    pub const RET: u32 = 0xd65f_03c0;
    pub const SVC: u32 = 0xd400_0001;
    pub const MSR_NZCV: u32 = 0xd51b_4200;
    pub const MRS_NZCV: u32 = 0xd53b_4200;
    pub const MSR_FPSR: u32 = 0xd51b_4420;
    pub const MSR_FPCR: u32 = 0xd51b_4400;
    pub const MRS_FPSR: u32 = 0xd53b_4420;
}

/// The program and its input: sets a SIGILL handler that skips the instruction, then runs every case.
fn program(words: &[u32]) -> (Vec<u8>, Vec<u8>) {
    use frame::*;
    let mut load = Vec::new();
    load.extend((0..32).map(|n| ldr_q(n, IN, 256 + 16 * n)));
    load.extend([ldr_x(WORK, IN, 216), MSR_NZCV | WORK, MSR_FPSR | 31]);
    load.extend([ldr_x(WORK, IN, 232), MSR_FPCR | WORK]);
    load.extend((0..27).map(|n| ldr_x(n, IN, 8 * n)));
    load.extend([add(IN, IN, SET as u32), RET]);
    let mut store = Vec::new();
    store.extend((0..27).map(|n| str_x(n, OUT, 8 * n)));
    store.extend([MRS_NZCV | WORK, str_x(WORK, OUT, 216)]);
    store.extend([MRS_FPSR | WORK, str_x(WORK, OUT, 224)]);
    store.extend((0..32).map(|n| str_q(n, OUT, 256 + 16 * n)));
    store.extend([add(OUT, OUT, SET as u32), RET]);
    // x2: ucontext; pc at 440, x24 at 184 + 8 * 24: marks the case
    let handler = [
        ldr_x(3, 2, 440),
        add(3, 3, 4),
        str_x(3, 2, 440),
        0xd28b_ad03, // mov x3, #0x5d68
        str_x(3, 2, 184 + 8 * 24),
        RET,
    ];
    let restorer = [0xd280_1168, SVC];
    let mut code = vec![0x1400_0000]; // over the subroutines
    let place = |code: &mut Vec<u32>, part: &[u32]| {
        let at = code.len();
        code.extend(part);
        at
    };
    let load_at = place(&mut code, &load);
    let store_at = place(&mut code, &store);
    let handler_at = place(&mut code, &handler);
    let restorer_at = place(&mut code, &restorer);
    code[0] |= code.len() as u32;
    let action = [CODE + 4 * handler_at as u64, 0x0400_0004, CODE + 4 * restorer_at as u64, 0];
    // rt_sigaction(SIGILL, action, 0, 8); the action is the last thing in the input
    code.extend(set(1, INPUT + (words.len() * SET) as u64));
    code.extend([0xd280_0080, 0xd280_0002, 0xd280_0103, 0xd280_10c8, SVC]);
    code.extend(set(IN, INPUT));
    code.extend(set(OUT, OUTPUT));
    for &word in words {
        code.push(bl(load_at as i32 - code.len() as i32));
        code.push(word);
        code.push(bl(store_at as i32 - code.len() as i32));
    }
    // write(1, OUTPUT, bytes); exit_group(0)
    code.extend(set(1, OUTPUT));
    code.extend(set(2, (words.len() * SET) as u64));
    code.extend([0xd280_0020, 0xd280_0808, SVC, 0xd280_0000, 0xd280_0bc8, SVC]);
    let mut bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    (bytes, input(words.len(), &action))
}

/// An FPCR: all zeroes, or any rounding with or without default NaNs and flushing to zero.
fn control(random: &mut Random) -> u64 {
    match random.below(2) {
        0 => 0,
        _ => {
            let flush = random.below(2) << 24;
            random.below(4) << 22 | random.below(2) << 25 | flush
        }
    }
}

/// The sets of registers that go in, and the action behind them.
fn input(cases: usize, action: &[u64]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut random = Random(cases as u64);
    for _ in 0..cases {
        let start = file.len();
        for n in 0..27 {
            let value = match n {
                MEMORY => SCRATCH + SCRATCH_BYTES / 2,
                INDEX => random.below(256) & !15,
                _ => random.word(),
            };
            file.extend(value.to_le_bytes());
        }
        file.extend((random.below(16) << 28).to_le_bytes());
        file.resize(start + 232, 0);
        file.extend(control(&mut random).to_le_bytes());
        file.resize(start + 256, 0);
        for _ in 0..64 {
            file.extend(random.word().to_le_bytes());
        }
    }
    file.extend(action.iter().flat_map(|word| word.to_le_bytes()));
    file
}

/// What a set of registers says, for messages.
fn differences(ours: &[u8], theirs: &[u8]) -> String {
    let name = |word: usize| match word {
        0..27 => format!("x{word}"),
        27 => "nzcv".into(),
        28 => "fpsr".into(),
        _ => format!("v{}[{}]", (word - 32) / 2, word % 2),
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

/// Sticky exceptions that the reference and the architecture's freedom do not fix: inexact and
/// input-denormal, and underflow, which Arm detects before rounding.
const FPSR_FREE: u8 = 0x98;

fn mask_free(set: &mut [u8]) {
    set[224] &= !FPSR_FREE;
}

fn run_class(class: &Class, reference: &Path) {
    let seed = class.name.len() as u64;
    let mut random = Random(seed);
    let words: Vec<u32> = (0..CASES)
        .map(|_| {
            let row = class.rows[random.below(class.rows.len() as u64) as usize];
            instruction(&mut random, row, class.name)
        })
        .collect();
    let folder = tests::scratch(&format!("arm64-{}", class.name.replace(' ', "-")));
    let file = folder.join("program");
    let (code, input) = program(&words);
    let part = |flags, address, contents, bytes| Segment { flags, address, contents, bytes };
    let parts = [
        part(5, CODE, &code[..], code.len()),
        part(6, INPUT, &input, input.len()),
        part(6, OUTPUT, &[], CASES * SET),
        part(6, SCRATCH, &[], SCRATCH_BYTES as usize),
    ];
    const AARCH64: u64 = 183;
    write_program(&file, AARCH64, 0, &parts);
    let peers = class.cpus.iter().map(|cpu| {
        let run = Command::new(reference).args(["-cpu", cpu]).arg(&file).output();
        let mut output = run.expect("the reference starts").stdout;
        assert_eq!(output.len(), CASES * SET, "{}", class.name);
        output.chunks_exact_mut(SET).for_each(mask_free);
        output
    });
    let peers: Vec<Vec<u8>> = peers.collect();
    let ours = tests::hostel().arg("qemu-aarch64").arg(&file).output().expect("hostel starts");
    let said = String::from_utf8_lossy(&ours.stderr).into_owned();
    let mut ours = ours.stdout;
    assert_eq!(ours.len(), CASES * SET, "{}: {said}", class.name);
    let (mut wrong, mut count) = (String::new(), 0);
    for (case, (ours, word)) in ours.chunks_exact_mut(SET).zip(&words).enumerate() {
        mask_free(ours);
        let mut theirs = peers.iter().map(|output| &output[case * SET..][..SET]);
        if !theirs.clone().any(|theirs| theirs == ours) {
            count += 1;
            if count < 40 {
                let first = theirs.next().expect("a class has processors");
                wrong += &format!("{word:08x}:{}\n", differences(ours, first));
            }
        }
    }
    assert!(count == 0, "{}: {count} of {CASES} differ\n{wrong}", class.name);
    fs::remove_dir_all(folder).expect("the folder is ours");
}

fn check(name: &str) {
    let Some(reference) = tests::asset("bin/qemu-aarch64-static") else {
        tests::skip!("no reference qemu-aarch64: run 'cargo xtask fetch'")
    };
    let class = CLASSES.iter().find(|class| class.name == name).expect("a class of the table");
    run_class(class, &reference);
}

#[test]
fn integer_immediates_are_those_of_the_reference() {
    check("integer immediate");
}

#[test]
fn integer_registers_are_those_of_the_reference() {
    check("integer register");
}

#[test]
fn memory_accesses_are_those_of_the_reference() {
    check("memory");
}

#[test]
fn integer_vectors_are_those_of_the_reference() {
    check("vector integer");
}

#[test]
fn scalar_floats_are_those_of_the_reference() {
    check("scalar FP");
}

#[test]
fn vector_floats_are_those_of_the_reference() {
    check("vector FP");
}

#[test]
fn half_precision_is_that_of_the_reference() {
    check("half precision");
}

#[test]
fn extensions_are_those_of_the_reference() {
    check("extensions");
}

#[test]
fn unallocated_words_are_those_of_the_reference() {
    check("everything");
}

/// Both emulators on busybox, which must say the same.
#[test]
fn busybox_does_the_same_as_under_the_reference() {
    let (Some(reference), Some(busybox)) =
        (tests::asset("bin/qemu-aarch64-static"), tests::asset("busybox-arm64/usr/bin/busybox"))
    else {
        tests::skip!("no reference qemu-aarch64 or busybox-arm64: run 'cargo xtask fetch'")
    };
    let file = busybox.to_string_lossy().into_owned();
    let awk = "BEGIN{for(i=0;i<300;i++)s+=sin(i)*exp(i/100)/sqrt(i+1);printf \"%.17g\\n\",s}";
    let shell = "i=0; s=0; while [ $i -lt 500 ]; do i=$((i+1)); s=$((s+i)); done; echo $s; \
                 trap 'echo caught' USR1; kill -USR1 $$; exit 3";
    let lines: [&[&str]; 6] = [
        &["sh", "-c", shell],
        &["awk", awk],
        &["sha256sum", &file],
        &["sha512sum", &file],
        &["gzip", "-c", &file],
        &["uname", "-m"],
    ];
    for line in lines {
        let run = |mut command: Command| {
            let output = command.arg(&busybox).args(line).output();
            let output = output.expect("the emulator starts");
            (output.stdout, output.status.code())
        };
        let mut ours = tests::hostel();
        ours.arg("qemu-aarch64");
        assert!(run(ours) == run(Command::new(&reference)), "{line:?}");
    }
}

#[test]
fn a_guest_starts_further_guests() {
    let Some(busybox) = tests::asset("busybox-arm64/usr/bin/busybox") else {
        tests::skip!("no busybox-arm64: run 'cargo xtask fetch'")
    };
    let mut command = tests::hostel();
    command.arg("qemu-aarch64").arg(&busybox).args(["sh", "-c", "$0 uname -m | $0 tr a-z A-Z"]);
    let output = command.arg(&busybox).output().expect("hostel starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "AARCH64\n");
}
