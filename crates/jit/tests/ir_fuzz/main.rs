//! Random IR: tier 1 against the interpreter.
//!
//! Blocks of random operations on random values run in both, with AVX and without it, in user mode
//! and behind the soft TLB; registers, memory, FP status and the way out must come out alike. A
//! failure is cut down to the operations that matter. `IR_FUZZ=N` runs N times as many blocks.

mod generate;
mod guest;
mod random;

use std::sync::Arc;

use generate::Case;
use guest::{CODE, DATA_BYTES, Guest, POINTERS, State};
use isa::Event;
use jit::{
    Bus, Counters, Engine, Exit, Features, HostPage, Options, SecondTier, Space, Unwatched, Vcpu,
};
use parking_lot::Mutex;
use random::Random;

/// What a case leaves behind.
#[derive(Clone, PartialEq, Debug)]
struct After {
    exit: Exit,
    state: State,
    control: u32,
    data: Vec<u8>,
}

/// A machine whose only RAM is the data.
struct Ram {
    start: u64,
}

impl Bus for Ram {
    fn page(&self, physical: u64) -> Option<HostPage> {
        let pages = self.start..self.start + DATA_BYTES as u64;
        pages.contains(&physical).then_some(HostPage { address: physical, writable: true })
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
        0
    }
}

/// Memory of the guest, page by page.
#[repr(C, align(4096))]
struct Data([u8; DATA_BYTES]);

/// Both engines over the same memory.
struct Pair<const X86: bool> {
    translated: Vcpu<Guest<X86>>,
    interpreted: Vcpu<Guest<X86>>,
    case: Arc<Mutex<Case>>,
    data: Box<Data>,
    /// The next block's place.
    pc: u64,
}

impl<const X86: bool> Pair<X86> {
    fn new(options: Options, system: bool) -> Self {
        let features = options.features;
        let data = Box::new(Data([0; DATA_BYTES]));
        let start = data.0.as_ptr() as u64;
        let case = Arc::new(Mutex::new(new_case(0, 0, features)));
        let vcpu = |interpret| {
            let space = match system {
                true => Space::System(Box::new(Ram { start })),
                false => Space::User(Box::new(Unwatched)),
            };
            let options = Options { interpret, ..options };
            let front_end = Guest { case: case.clone() };
            let engine = Engine::new(front_end, space, options).expect("an engine");
            Vcpu::new(&engine).expect("a vCPU")
        };
        let (translated, interpreted) = (vcpu(false), vcpu(true));
        Self { translated, interpreted, case, data, pc: CODE }
    }

    /// What differs when a case runs in both.
    fn run(&mut self, case: &Case) -> Option<String> {
        *self.case.lock() = case.clone();
        self.pc += 0x1000;
        let ours = self.run_in(false, case.seed);
        let expected = self.run_in(true, case.seed);
        let flags = self.case.lock().flags;
        difference(&expected, &ours, flags)
    }

    fn run_in(&mut self, interpret: bool, seed: u64) -> After {
        let vcpu = if interpret { &mut self.interpreted } else { &mut self.translated };
        let mut random = Random::new(!seed);
        let mut state = State { pc: self.pc, flags: random.draw(), ..State::default() };
        state.flags &= isa::ir::STATUS;
        state.general = state.general.map(|_| random.word());
        state.vectors = state.vectors.map(|_| [random.word(), random.word()]);
        for pointer in POINTERS {
            state.general[pointer] = self.data.0.as_ptr() as u64 + 64;
        }
        for chunk in self.data.0[..1024].chunks_mut(8) {
            chunk.copy_from_slice(&random.word().to_le_bytes());
        }
        self.data.0[1024..].fill(0x5a);
        *vcpu.state_mut() = state;
        let rounding = (random.draw() as u32 & 3) << 13;
        let flush = if random.below(8) == 0 { 1 << 15 } else { 0 };
        vcpu.set_fp_control(0x1f80 | rounding | flush);
        let exit = vcpu.run();
        let (state, control) = (*vcpu.state(), vcpu.fp_control());
        After { exit, state, control, data: self.data.0.to_vec() }
    }

    /// Leaves out what does not matter.
    fn cut_down(&mut self, case: &Case) -> Case {
        let mut case = case.clone();
        let mut piece = case.steps.div_ceil(2);
        while piece > 0 {
            for start in (0..case.steps).step_by(piece) {
                let mut smaller = case.clone();
                let end = (start + piece).min(case.steps);
                smaller.skipped[start..end].fill(true);
                if smaller.skipped != case.skipped && self.run(&smaller).is_some() {
                    case = smaller;
                }
            }
            piece /= 2;
        }
        case
    }
}

fn new_case(seed: u64, steps: usize, features: Features) -> Case {
    Case { seed, steps, skipped: vec![false; steps], features, flags: 0, listing: String::new() }
}

/// In words. A memory fault leaves flags behind that only its instruction's repetition needs.
fn difference(expected: &After, ours: &After, flags: u64) -> Option<String> {
    let mut text = String::new();
    if expected.exit != ours.exit {
        text += &format!(" exit {:x?} not {:x?}\n", ours.exit, expected.exit);
    }
    let (a, b) = (&expected.state, &ours.state);
    if a.pc != b.pc {
        text += &format!(" pc {:#x} not {:#x}\n", b.pc, a.pc);
    }
    let faulted = matches!(expected.exit, Exit::Event(Event::Memory(_)));
    if (a.flags ^ b.flags) & flags != 0 && !faulted {
        text += &format!(" flags {:#x} not {:#x} of {flags:#x}\n", b.flags, a.flags);
    }
    for n in 0..16 {
        if a.general[n] != b.general[n] {
            let at = 16 + 8 * n;
            text += &format!(" [{at}] {:#x} not {:#x}\n", b.general[n], a.general[n]);
        }
        if a.vectors[n] != b.vectors[n] {
            let at = 16 + 128 + 16 * n;
            text += &format!(" [{at}] {:x?} not {:x?}\n", b.vectors[n], a.vectors[n]);
        }
    }
    // "Denormal operand" is no guest's business here.
    if (expected.control ^ ours.control) & !2 != 0 {
        text += &format!(" mxcsr {:#x} not {:#x}\n", ours.control, expected.control);
    }
    if let Some(at) = (0..DATA_BYTES).find(|&at| expected.data[at] != ours.data[at]) {
        text += &format!(" data[{at}] {:#x} not {:#x}\n", ours.data[at], expected.data[at]);
    }
    (!text.is_empty()).then_some(text)
}

fn fuzz<const X86: bool>(avx: bool, system: bool, seed: u64) {
    _ = fuzz_with::<X86>(avx, system, seed, Options::detect());
}

/// Gives what the translator has counted.
fn fuzz_with<const X86: bool>(avx: bool, system: bool, seed: u64, options: Options) -> Counters {
    let all = Features::detect();
    let none = Features {
        avx2: false,
        bmi2: false,
        lzcnt: false,
        fma: false,
        f16c: false,
        sha: false,
        aes: true,
    };
    let features = if avx { all } else { none };
    let more: u64 = std::env::var("IR_FUZZ").map_or(1, |times| times.parse().expect("a number"));
    let mut pair = Pair::<X86>::new(Options { features, ..options }, system);
    let mut wrong = Vec::new();
    for round in 0..3000 * more {
        let steps = 1 + (round % 60) as usize;
        let case = new_case(seed ^ round << 20, steps, features);
        if pair.run(&case).is_none() {
            continue;
        }
        let case = pair.cut_down(&case);
        let text = pair.run(&case).unwrap_or_default();
        let listing = pair.case.lock().listing.clone();
        wrong.push(format!("round {round}:\n{listing}{text}"));
        if wrong.len() == 4 {
            break;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    pair.translated.engine().counters()
}

#[test]
fn with_a_code_cache_that_is_soon_full() {
    // Room for one more block is always kept: a megabyte.
    let options = Options { cache_bytes: (1 << 20) + (256 << 10), ..Options::detect() };
    let counters = fuzz_with::<false>(true, true, 9, options);
    assert!(counters.flushes > 2, "{counters:?}");
}

#[test]
fn with_a_second_tier_that_takes_all_blocks() {
    let second_tier = Some(SecondTier::Again { entries: 1 });
    let options = Options { second_tier, ..Options::detect() };
    for system in [false, true] {
        let counters = fuzz_with::<false>(true, system, 10, options);
        assert!(counters.promoted > 1000, "{counters:?}");
    }
}

#[test]
fn with_avx_in_user_mode() {
    fuzz::<false>(true, false, 1);
}

#[test]
fn with_avx_behind_the_soft_tlb() {
    fuzz::<false>(true, true, 2);
}

#[test]
fn without_avx_in_user_mode() {
    fuzz::<false>(false, false, 3);
}

#[test]
fn without_avx_behind_the_soft_tlb() {
    fuzz::<false>(false, true, 4);
}

#[test]
fn with_the_registers_of_an_x86_guest() {
    fuzz::<true>(true, false, 5);
    fuzz::<true>(true, true, 6);
}

#[test]
fn with_the_registers_of_an_x86_guest_without_avx() {
    fuzz::<true>(false, false, 7);
    fuzz::<true>(false, true, 8);
}
