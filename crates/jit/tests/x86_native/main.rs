//! x86 on x86: the translator against the host's own processor.
//!
//! Every encoding of the one-byte, 0F, 0F38 and 0F3A maps that has a row is executed with random
//! registers, flags and memory, by the translator and natively, and everything must come out alike.
//! Flags that the manual leaves undefined are left out of the comparison; so are control transfers,
//! system instructions, x87 and MMX, which have tests of their own kind.

mod cases;
mod changes;
mod native;
mod pieces;
mod repeat;
mod sequences;
mod system;

use std::collections::BTreeMap;

use cases::Case;
use isa::Event;
use isa::ir::STATUS;
use isa::x86::{State, X86};
use jit::{Engine, Exit, Features, Options, Space, Unwatched, Vcpu};
use native::{DATA_BYTES, Machine};

/// The native stub keeps its place in static memory: one test at a time.
static ALONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// Registers and memory, before or after.
#[derive(Clone, PartialEq)]
pub struct World {
    /// By number.
    pub gpr: [u64; 16],
    /// The arithmetic ones.
    pub flags: u64,
    /// Low words first.
    pub vectors: [[u64; 4]; 16],
    /// Rounding, treatment of denormals, sticky exceptions.
    pub mxcsr: u32,
    /// What RSP, RSI and RDI point into.
    pub data: [u8; DATA_BYTES],
}

/// A small generator, so that a failure comes back with its seed.
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Numbers that find borders: zeros, ones, extremes, floats and NaNs among random ones.
    fn word(&mut self) -> u64 {
        const BORDERS: [u64; 12] = [
            0,
            1,
            u64::MAX,
            1 << 63,
            0x7fff_ffff_ffff_ffff,
            0x8000_0000,
            0x7fff_ffff,
            0x3ff0_0000_3f80_0000,
            0x7ff8_0000_7fc0_0000,
            0x7ff0_0001_7f80_0001,
            0x0000_0001_0000_0001,
            0xbff0_0000_bf80_0000,
        ];
        match self.draw() % 4 {
            0 => BORDERS[(self.draw() % 12) as usize],
            1 => self.draw() >> (self.draw() % 64),
            _ => self.draw(),
        }
    }

    /// MXCSR: mostly as programs leave it.
    fn control(&mut self) -> u32 {
        const DENORMALS_ARE_ZEROS: u32 = 1 << 6;
        const FLUSH_TO_ZERO: u32 = 1 << 15;
        let random = self.draw() as u32;
        match random & 3 {
            0 => 0x1f80 | random & (3 << 13 | DENORMALS_ARE_ZEROS | FLUSH_TO_ZERO),
            _ => 0x1f80,
        }
    }

    fn world(&mut self, data_address: u64) -> World {
        let mut world = World {
            gpr: [0; 16].map(|_: u64| self.word()),
            flags: self.draw() & STATUS,
            vectors: [[0; 4]; 16].map(|_: [u64; 4]| [0; 4].map(|_: u64| self.word())),
            mxcsr: self.control(),
            data: [0; DATA_BYTES],
        };
        if !std::is_x86_feature_detected!("avx") || self.draw().is_multiple_of(2) {
            world.vectors.iter_mut().for_each(|vector| vector[2..].fill(0));
        }
        for chunk in world.data.chunks_mut(8) {
            chunk.copy_from_slice(&self.word().to_le_bytes());
        }
        // RSP, RSI and RDI point into the data, and RCX counts little.
        world.gpr[4] = data_address + 128;
        world.gpr[6] = data_address + 128;
        world.gpr[7] = data_address + 192;
        world
    }
}

fn translated(vcpu: &mut Vcpu<X86>, machine: &mut Machine, code: u64, before: &World) -> World {
    machine.data().copy_from_slice(&before.data);
    let mut state: State = X86::user_state(true);
    state.gpr = before.gpr;
    state.flags = before.flags;
    set_vectors(&mut state, before);
    state.pc = code;
    *vcpu.state_mut() = state;
    vcpu.set_fp_control(before.mxcsr);
    let exit = vcpu.run();
    assert_eq!(exit, Exit::Event(Event::Illegal), "the case ends at its UD2");
    let mxcsr = vcpu.fp_control();
    let state = vcpu.state();
    World {
        gpr: state.gpr,
        flags: state.flags & STATUS,
        vectors: state.vectors,
        mxcsr,
        data: *machine.data(),
    }
}

fn set_vectors(state: &mut State, before: &World) {
    state.vectors = before.vectors;
    let any = before.vectors.iter().any(|vector| vector[2..] != [0; 2]);
    state.upper_halves = u64::from(any);
}

fn natively(machine: &mut Machine, case: &Case, before: &World) -> World {
    machine.data().copy_from_slice(&before.data);
    let mut after = machine.execute(&case.bytes, before);
    after.data = *machine.data();
    after.flags &= STATUS;
    after
}

/// What differs, in words; the undefined flags do not count.
fn difference(case: &Case, native: &World, ours: &World) -> Option<String> {
    let mut text = String::new();
    for n in 0..16 {
        if native.gpr[n] != ours.gpr[n] {
            text += &format!(" gpr{n}: {:#x} not {:#x}", ours.gpr[n], native.gpr[n]);
        }
        if native.vectors[n] != ours.vectors[n] {
            text += &format!(" ymm{n}: {:x?} not {:x?}", ours.vectors[n], native.vectors[n]);
        }
    }
    if native.mxcsr != ours.mxcsr {
        text += &format!(" mxcsr: {:#x} not {:#x}", ours.mxcsr, native.mxcsr);
    }
    let defined = !case.undefined_flags;
    if (native.flags ^ ours.flags) & defined & STATUS != 0 {
        text += &format!(" flags: {:#x} not {:#x}", ours.flags, native.flags & STATUS);
    }
    if let Some(at) = (0..DATA_BYTES).find(|at| native.data[*at] != ours.data[*at]) {
        text += &format!(" data[{at}]: {:#x} not {:#x}", ours.data[at], native.data[at]);
    }
    (!text.is_empty()).then_some(text)
}

/// A host with SSE4.1 and nothing beyond.
fn without_avx() -> Options {
    let features = Features {
        avx2: false,
        bmi2: false,
        lzcnt: false,
        fma: false,
        f16c: false,
        sha: false,
        aes: true,
    };
    Options { features, ..Options::detect() }
}

fn interpreted() -> Options {
    Options { interpret: true, ..Options::detect() }
}

#[test]
fn every_encoding_agrees_with_the_host() {
    encodings_agree(Options::detect(), None);
}

#[test]
fn every_encoding_agrees_without_avx() {
    encodings_agree(without_avx(), None);
}

/// The operand in memory lies on two pages.
const ACROSS: usize = 168;

#[test]
fn every_encoding_agrees_across_pages() {
    encodings_agree(Options::detect(), Some(ACROSS));
}

#[test]
fn every_encoding_agrees_across_pages_without_avx() {
    encodings_agree(without_avx(), Some(ACROSS));
}

/// The oracle of everything else has this oracle.
#[test]
fn every_encoding_agrees_when_interpreted() {
    encodings_agree(interpreted(), None);
}

fn encodings_agree(options: Options, before_border: Option<usize>) {
    let _alone = ALONE.lock();
    let mut machine = Machine::new();
    if let Some(bytes) = before_border {
        machine.straddle(bytes);
    }
    let engine =
        Engine::new(X86::user(), Space::User(Box::new(Unwatched)), options).expect("an engine");
    let mut vcpu = Vcpu::new(&engine).expect("a vCPU");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut cases = cases::all();
    cases.retain(|case| before_border.is_none() || !case.aligned);
    assert!(cases.len() > 2000, "only {} encodings were found", cases.len());
    let mut wrong: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for case in &cases {
        for round in 0..12 {
            let mut before = random.world(machine.data_address());
            case.prepare(&mut before);
            let native = natively(&mut machine, case, &before);
            let code = machine.place_for_translation(&case.bytes);
            let ours = translated(&mut vcpu, &mut machine, code, &before);
            if let Some(text) = difference(case, &native, &ours) {
                let entry = wrong.entry(case.name.clone()).or_default();
                entry.0 += 1;
                if entry.0 == 1 {
                    let flags = before.flags;
                    entry.1 = format!("{:02x?} round {round} flags {flags:#x}:{text}", case.bytes);
                }
            }
        }
    }
    let report: Vec<String> = wrong
        .iter()
        .map(|(name, (count, first))| format!("{name} ({count} times), first {first}"))
        .collect();
    assert!(wrong.is_empty(), "{} mnemonics differ:\n{}", wrong.len(), report.join("\n"));
}

/// Lengths grow, so that the first failure is a short one.
#[test]
fn random_sequences_agree_with_the_host() {
    grown_sequences_agree(40_000, 0x0123_4567_89ab_cdef, Options::detect());
}

#[test]
fn random_sequences_agree_without_avx() {
    grown_sequences_agree(10_000, 0x0fed_cba9_8765_4321, without_avx());
}

#[test]
fn vector_sequences_agree_with_the_host() {
    grown_vectors_agree(20_000, 0x1357_9bdf_0246_8ace, Options::detect());
}

#[test]
fn vector_sequences_agree_without_avx() {
    grown_vectors_agree(6_000, 0x0eca_8642_fdb9_7531, without_avx());
}

#[test]
fn upper_halves_agree_between_blocks() {
    let mut lengths = (0..6_000_u64).map(|round| 1 + round / 800);
    let next =
        |random: &mut Random| lengths.next().map(|n| sequences::vectors_in_a_loop(random, n));
    sequences_agree(next, &mut Random(0x2468_ace0_1357_9bdf), Options::detect());
}

fn grown_vectors_agree(rounds: u64, seed: u64, options: Options) {
    let mut lengths = (0..rounds).map(|round| 2 + round * 10 / rounds);
    let next = |random: &mut Random| lengths.next().map(|count| sequences::vectors(random, count));
    sequences_agree(next, &mut Random(seed), options);
}

#[test]
fn vector_sequences_agree_when_interpreted() {
    grown_vectors_agree(6_000, 0x1122_3344_5566_7788, interpreted());
}

#[test]
fn random_sequences_agree_when_interpreted() {
    grown_sequences_agree(10_000, 0x0246_8ace_1357_9bdf, interpreted());
}

fn grown_sequences_agree(rounds: u64, seed: u64, options: Options) {
    let mut lengths = (0..rounds).map(|round| 2 + round * 8 / rounds);
    let next = |random: &mut Random| lengths.next().map(|count| sequences::sequence(random, count));
    sequences_agree(next, &mut Random(seed), options);
}

#[test]
fn a_constant_keeps_its_register_while_it_is_needed() {
    let mut again = (0..16).map(|_| sequences::constant_needed_again());
    sequences_agree(|_| again.next(), &mut Random(0x0123_4567_89ab_cdef), Options::detect());
}

fn sequences_agree(
    mut next: impl FnMut(&mut Random) -> Option<Case>,
    random: &mut Random,
    options: Options,
) {
    let _alone = ALONE.lock();
    let mut machine = Machine::new();
    let engine =
        Engine::new(X86::user(), Space::User(Box::new(Unwatched)), options).expect("an engine");
    let mut vcpu = Vcpu::new(&engine).expect("a vCPU");
    while let Some(case) = next(random) {
        let before = random.world(machine.data_address());
        let native = natively(&mut machine, &case, &before);
        let code = machine.place_for_translation(&case.bytes);
        let ours = translated(&mut vcpu, &mut machine, code, &before);
        engine.invalidate(code, code + 512); // the place is used again some time
        let text = difference(&case, &native, &ours);
        let hex: String = case.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, None, "code {hex}, flags {:#x}", before.flags);
    }
}

/// Bytes of host code for one more of an instruction.
fn host_bytes(insn: &[u8], upper_halves: bool) -> u64 {
    let _alone = ALONE.lock();
    let mut machine = Machine::new();
    let engine = Engine::new(X86::user(), Space::User(Box::new(Unwatched)), Options::detect())
        .expect("an engine");
    let mut vcpu = Vcpu::new(&engine).expect("a vCPU");
    let mut before = Random(7).world(machine.data_address());
    before.mxcsr = 0x1f80;
    for vector in &mut before.vectors {
        vector[2..].fill(u64::from(upper_halves));
    }
    let [few, many] = [10, 20].map(|count| {
        let start = engine.counters().host_bytes;
        let code = machine.place_for_translation(&insn.repeat(count));
        translated(&mut vcpu, &mut machine, code, &before);
        engine.counters().host_bytes - start
    });
    (many - few) / 10
}

#[test]
fn a_wide_instruction_is_one_of_the_hosts() {
    if !std::is_x86_feature_detected!("avx2") || !std::is_x86_feature_detected!("fma") {
        return; // there it is two, or software
    }
    for (name, insn, upper_halves, expected) in [
        ("vpaddd ymm1, ymm2, ymm3", &[0xc5, 0xed, 0xfe, 0xcb][..], true, 4),
        ("vmulps ymm1, ymm1, ymm3", &[0xc5, 0xf4, 0x59, 0xcb], true, 4),
        ("vfmadd231ps ymm1, ymm2, ymm3", &[0xc4, 0xe2, 0x6d, 0xb8, 0xcb], true, 5),
        ("vfmadd213pd ymm1, ymm2, ymm3", &[0xc4, 0xe2, 0xed, 0xa8, 0xcb], true, 5),
        ("vpermq ymm1, ymm2, 0x1b", &[0xc4, 0xe3, 0xfd, 0x00, 0xca, 0x1b], true, 6),
        ("vmovdqu ymm1, [rsi + 32]", &[0xc5, 0xfe, 0x6f, 0x4e, 0x20], true, 5),
        ("vmovdqu [rsi + 32], ymm1", &[0xc5, 0xfe, 0x7f, 0x4e, 0x20], true, 5),
        ("vpaddd xmm1, xmm2, xmm3", &[0xc5, 0xe9, 0xfe, 0xcb], false, 4),
        ("vpaddd xmm1, xmm2, xmm3", &[0xc5, 0xe9, 0xfe, 0xcb], true, 4),
        ("addps xmm1, xmm2", &[0x0f, 0x58, 0xca], false, 4),
    ] {
        let bytes = host_bytes(insn, upper_halves);
        assert_eq!(bytes, expected, "{name}, upper halves in use: {upper_halves}");
    }
}
