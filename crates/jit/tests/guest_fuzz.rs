//! Random instructions of guests that the host cannot execute: tier 1 against the interpreter.
//!
//! Each row of a front end's tables comes with random operands, in sequences that end with a
//! system call. Both engines have a machine with nothing but RAM. `IR_FUZZ=N` runs N times as many.

use std::fmt::Debug;

use isa::arm64::Arm64;
use isa::ir::{CARRY, Code, Ir, OVERFLOW, SIGN, ZERO};
use isa::riscv::RiscV;
use isa::table::Pattern;
use isa::{Event, Fetch, FrontEnd, Key};
use jit::{Bus, Engine, Exit, HostPage, Options, Space, Vcpu};

/// Where code and data lie.
const CODE: u64 = 0x10_0000;
const DATA: u64 = 0x20_0000;
const PAGES: usize = 4;

struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.draw() >> 32) as usize % n
    }

    fn word(&mut self) -> u64 {
        const BORDERS: [u64; 10] = [
            0,
            1,
            u64::MAX,
            1 << 63,
            0xffff_ffff_7fff_ffff,
            0xffff_ffff_7fc0_0000,
            0x7ff8_0000_7fc0_0000,
            0xffff_ffff_3f80_0000,
            0x7ff0_0001_7f80_0001,
            0xbff8_0000_0000_0000,
        ];
        match self.draw() % 6 {
            0 => BORDERS[self.below(10)],
            1 => self.draw() >> (self.draw() % 64),
            // Mostly memory that is there.
            2 | 3 => DATA + ((self.draw() % 0x2000) & !7),
            _ => self.draw(),
        }
    }
}

#[repr(C, align(4096))]
struct Ram([u8; PAGES << 12]);

/// The first page is at `CODE`, the others at `DATA`.
struct Machine {
    ram: u64,
}

impl Bus for Machine {
    fn page(&self, physical: u64) -> Option<HostPage> {
        let index = match physical {
            CODE => 0,
            _ => 1 + (physical.checked_sub(DATA)? >> 12),
        };
        let there = index < PAGES as u64;
        there.then(|| HostPage { address: self.ram + (index << 12), writable: true })
    }

    fn read(&self, physical: u64, bytes: u32) -> u64 {
        physical.wrapping_mul(0x1234_5678_9abc_def1) & (u64::MAX >> (64 - 8 * bytes))
    }

    fn write(&self, _: u64, _: u32, _: u64) {}

    fn machine_read(&self, _: u32, _: u64, _: u32) -> u64 {
        0
    }

    fn machine_write(&self, _: u32, _: u64, _: u32, _: u64) {}

    fn clock_ns(&self) -> u64 {
        123_456_789
    }
}

/// One instruction, wherever it is asked for.
struct Single(u32);

impl Fetch for Single {
    fn fetch(&mut self, _: u64, bytes: &mut [u8]) -> usize {
        let word = self.0.to_le_bytes();
        let count = bytes.len().min(4);
        bytes[..count].copy_from_slice(&word[..count]);
        count
    }
}

/// Whether an instruction goes on to the next one, but for faults.
fn goes_on<F: FrontEnd>(front_end: &F, ir: &mut Ir, word: u32) -> bool {
    ir.begin(CODE, 12, 1);
    front_end.translate(Key { pc: CODE, mode: 0 }, &mut Single(word), ir);
    let ends_here = ir.ops().last().is_some_and(|op| {
        matches!(op.code, Code::Exit | Code::ExitMode) && op.immediate() == CODE + 4
            || op.code == Code::ExitMode
    });
    ends_here && !ir.ops().iter().any(|op| matches!(op.code, Code::ExitIf | Code::Raise))
}

struct Guest<F: FrontEnd> {
    name: &'static str,
    new: fn() -> F,
    rows: Vec<Pattern>,
    end: u32,
    /// Fills the registers in.
    fill: fn(&mut F::State, &mut Random),
    /// Clears what has no meaning, all flags too if a fault lies before the place where the block
    /// sets them next (`Layout::relaxed`).
    clean: fn(&mut F::State, faulted: bool),
}

fn run<F: FrontEnd>(
    vcpu: &mut Vcpu<F>,
    ram: &mut Ram,
    code: &[u32],
    seed: u64,
    guest: &Guest<F>,
    roundings: u32,
) -> (Exit, F::State, u32, Vec<u8>) {
    let mut random = Random(seed | 1);
    ram.0.fill(0);
    for (place, word) in ram.0.chunks_mut(4).zip(code) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    for place in ram.0[0x1000..0x3000].chunks_mut(8) {
        place.copy_from_slice(&random.word().to_le_bytes());
    }
    vcpu.engine().invalidate(CODE, CODE + 0x1000);
    let mut state = vcpu.engine().front_end().reset();
    (guest.fill)(&mut state, &mut random);
    *vcpu.state_mut() = state;
    vcpu.set_fp_control(0x1f80 | (random.draw() as u32 & roundings) << 13);
    let exit = vcpu.run();
    let mut after = *vcpu.state();
    (guest.clean)(&mut after, matches!(exit, Exit::Event(Event::Memory(_))));
    // "Denormal operand" is no business of these guests.
    (exit, after, vcpu.fp_control() & !2, ram.0[0x1000..].to_vec())
}

/// Tier 1 against the interpreter.
fn fuzz<F: FrontEnd<State: Debug>>(guest: &Guest<F>) {
    compare(guest, Options::detect(), Options { interpret: true, ..Options::detect() }, 3, !0);
}

/// What the engines of two kinds of options do, with `roundings` modes in MXCSR's order, must agree
/// in the bits of MXCSR that are asked for.
fn compare<F: FrontEnd<State: Debug>>(
    guest: &Guest<F>,
    ours: Options,
    oracle: Options,
    roundings: u32,
    status: u32,
) {
    let more: u64 = std::env::var("IR_FUZZ").map_or(1, |times| times.parse().expect("a number"));
    let mut ram = Box::new(Ram([0; PAGES << 12]));
    let start = ram.0.as_ptr() as u64;
    let vcpu = |options| {
        let space = Space::System(Box::new(Machine { ram: start }));
        Vcpu::new(&Engine::new((guest.new)(), space, options).expect("an engine")).expect("a vCPU")
    };
    let (mut ours, mut oracle) = (vcpu(ours), vcpu(oracle));
    let mut random = Random(0x0dd_ba11);
    let (mut ir, front_end) = (Ir::default(), (guest.new)());
    for round in 0..4000 * more {
        let count = 1 + round as usize % 12;
        let mut code = Vec::new();
        while code.len() < count {
            let row = guest.rows[random.below(guest.rows.len())];
            let word = row.value | random.draw() as u32 & !row.mask;
            if goes_on(&front_end, &mut ir, word) {
                code.push(word);
            }
        }
        code.push(guest.end);
        let seed = random.draw();
        let (a, b) = (
            run(&mut oracle, &mut ram, &code, seed, guest, roundings),
            run(&mut ours, &mut ram, &code, seed, guest, roundings),
        );
        let (expected, found) = (
            format!("{:#x?}", (a.0, a.1, a.2 & status)),
            format!("{:#x?}", (b.0, b.1, b.2 & status)),
        );
        let lines: Vec<String> = expected
            .lines()
            .zip(found.lines())
            .enumerate()
            .filter(|(_, (a, b))| a != b)
            .take(8)
            .map(|(line, (a, b))| format!("line {line}: {} not {}", b.trim(), a.trim()))
            .collect();
        assert!(
            lines.is_empty(),
            "{} round {round} {code:08x?}:\n{}",
            guest.name,
            lines.join("\n")
        );
        let at = (0..a.3.len()).find(|&at| a.3[at] != b.3[at]);
        assert_eq!(at, None, "{} round {round} {code:08x?}: memory differs", guest.name);
    }
}

#[test]
fn random_riscv_instructions_agree() {
    fuzz(&Guest {
        name: "riscv64",
        new: RiscV::default,
        rows: isa::riscv::rows().map(|row| row.pattern).collect(),
        end: 0x0000_0073,
        fill: |state, random| {
            state.x = state.x.map(|_| random.word());
            state.x[0] = 0;
            state.f = state.f.map(|_| random.word());
            state.pc = CODE;
        },
        clean: |_, _| {},
    });
}

fn arm64() -> Guest<Arm64> {
    Guest {
        name: "aarch64",
        new: Arm64::default,
        rows: isa::arm64::rows().map(|row| row.pattern).collect(),
        end: 0xd400_0001,
        fill: |state, random| {
            state.x = state.x.map(|_| random.word());
            state.sp = DATA + 0x1000;
            state.v = state.v.map(|_| [random.word(), random.word()]);
            state.flags = random.draw() & (CARRY | ZERO | SIGN | OVERFLOW);
            state.pc = CODE;
        },
        clean: |state, faulted| {
            state.flags &= if faulted { 0 } else { CARRY | ZERO | SIGN | OVERFLOW };
        },
    }
}

#[test]
fn random_arm64_instructions_agree() {
    fuzz(&arm64());
}

/// Without FMA, F16C, AES and SHA of the host: slower, not otherwise.
#[test]
fn arm64_is_the_same_on_an_older_host() {
    let detected = Options::detect();
    let mut features = detected.features;
    (features.fma, features.f16c, features.aes, features.sha) = (false, false, false, false);
    let older = Options { features, ..Options::detect() };
    // Underflow and inexact: software says before rounding what the host says after it.
    compare(&arm64(), older, detected, 0, !0x32);
    features.avx2 = false;
    features.bmi2 = false;
    features.lzcnt = false;
    let oldest = Options { features, ..Options::detect() };
    compare(&arm64(), oldest, Options::detect(), 0, !0x32);
}

#[test]
fn a_system_call_ends_a_sequence() {
    // The harness itself: nothing but the end.
    let mut ram = Box::new(Ram([0; PAGES << 12]));
    ram.0[..4].copy_from_slice(&0x0000_0073_u32.to_le_bytes());
    let space = Space::System(Box::new(Machine { ram: ram.0.as_ptr() as u64 }));
    let options = Options { interpret: true, ..Options::detect() };
    let engine = Engine::new(RiscV::default(), space, options).expect("an engine");
    let mut vcpu = Vcpu::new(&engine).expect("a vCPU");
    vcpu.state_mut().pc = CODE;
    assert_eq!(vcpu.run(), Exit::Event(Event::SystemCall));
}
