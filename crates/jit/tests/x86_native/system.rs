//! The same in a machine: paging, the soft TLB, memory whose pages lie apart, and code that changes
//! itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use isa::Event;
use isa::ir::STATUS;
use isa::x86::{CS, State, X86};
use jit::{Bus, Engine, Exit, HostPage, Options, Space, Vcpu};

use crate::cases::{self, Case};
use crate::native::{DATA_BYTES, Machine};
use crate::pieces::{self, CLOCK, TWIN};
use crate::{ACROSS, ALONE, Random, World, difference, set_vectors, without_avx};

const PAGE: u64 = 4096;
const RAM_PAGES: u64 = 128;
/// Where code lies: some pages before and behind.
const CODE: u64 = 0x40_0000;
const CODE_PAGES: u64 = 4;
/// Physical pages: page tables from here on.
const TABLES: u64 = 1;

/// Memory of a machine.
pub struct Ram(Box<[AtomicU8]>);

impl Ram {
    pub fn new() -> Self {
        Self((0..(RAM_PAGES + 1) * PAGE).map(|_| AtomicU8::new(0)).collect())
    }

    fn bytes(&self) -> &[AtomicU8] {
        let start = (self.0.as_ptr() as usize).next_multiple_of(PAGE as usize);
        &self.0[start - self.0.as_ptr() as usize..][..(RAM_PAGES * PAGE) as usize]
    }

    pub fn write(&self, physical: u64, from: &[u8]) {
        for (cell, byte) in self.bytes()[physical as usize..].iter().zip(from) {
            cell.store(*byte, Ordering::Relaxed);
        }
    }

    pub fn byte(&self, physical: u64) -> u8 {
        self.bytes()[physical as usize].load(Ordering::SeqCst)
    }

    fn word(&self, physical: u64) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|i| self.byte(physical + i as u64)))
    }
}

/// Four-level tables, grown as pages are mapped.
pub struct Tables<'a> {
    ram: &'a Ram,
    next: u64,
}

impl<'a> Tables<'a> {
    pub fn new(ram: &'a Ram) -> Self {
        Self { ram, next: TABLES + 1 }
    }

    /// Tables that map all there is to map already, for changes.
    pub fn again(ram: &'a Ram) -> Self {
        Self { ram, next: RAM_PAGES }
    }

    /// Maps a page for everyone and everything.
    pub fn map(&mut self, address: u64, physical: u64) {
        let mut table = TABLES * PAGE;
        for level in (1..4).rev() {
            let entry = table + (address >> (12 + 9 * level) & 511) * 8;
            if self.ram.word(entry) == 0 {
                self.ram.write(entry, &((self.next * PAGE) | 7).to_le_bytes());
                self.next += 1;
            }
            table = self.ram.word(entry) & !0xfff;
        }
        self.ram.write(table + (address >> 12 & 511) * 8, &(physical | 7).to_le_bytes());
    }
}

/// Nothing but memory and a clock that stands still. `seen` is told of each page asked for.
pub struct Board {
    pub ram: Arc<Ram>,
    pub seen: Box<dyn Fn(u64) + Send + Sync>,
}

impl Bus for Board {
    fn page(&self, physical: u64) -> Option<HostPage> {
        (self.seen)(physical);
        let bytes = self.ram.bytes().get(physical as usize..)?;
        (!bytes.is_empty()).then_some(HostPage { address: bytes.as_ptr() as u64, writable: true })
    }

    fn read(&self, _: u64, _: u32) -> u64 {
        u64::MAX
    }

    fn write(&self, _: u64, _: u32, _: u64) {}

    fn machine_read(&self, _: u32, _: u64, _: u32) -> u64 {
        u64::MAX
    }

    fn machine_write(&self, _: u32, _: u64, _: u32, _: u64) {}

    fn clock_ns(&self) -> u64 {
        CLOCK
    }
}

/// 64-bit code of level 0 with paging on.
pub fn kernel_state(pc: u64) -> State {
    let mut state = X86::user_state(true);
    for segment in &mut state.segments {
        segment.attributes = 0xc093;
    }
    state.segments[CS].attributes = 0xa09b;
    state.cr[3] = TABLES * PAGE;
    state.eflags = 2;
    state.pc = pc;
    state
}

/// An engine over memory whose neighbouring pages lie apart.
pub fn engine(ram: &Arc<Ram>, options: Options) -> Arc<Engine<X86>> {
    let board = Board { ram: Arc::clone(ram), seen: Box::new(|_| ()) };
    Engine::new(X86::system(), Space::System(Box::new(board)), options).expect("an engine")
}

/// The physical address of code.
fn code_physical(address: u64) -> u64 {
    let page = (address - CODE) / PAGE;
    (40 + 2 * (CODE_PAGES - page)) * PAGE + address % PAGE
}

/// The same for data, whose first page this is.
fn data_physical(first: u64, address: u64) -> u64 {
    let page = address / PAGE - first / PAGE;
    (80 - 3 * page) * PAGE + address % PAGE
}

/// A machine with its processor, and the host's next to it.
struct Bench {
    ram: Arc<Ram>,
    vcpu: Vcpu<X86>,
    machine: Machine,
}

impl Bench {
    fn new(before_border: usize, options: Options) -> Self {
        let mut machine = Machine::new();
        machine.straddle(before_border);
        let ram = Arc::new(Ram::new());
        let mut tables = Tables::new(&ram);
        for page in 0..CODE_PAGES {
            tables.map(CODE + page * PAGE, code_physical(CODE + page * PAGE));
        }
        let data = machine.data_address() & !(PAGE - 1);
        for page in [data, data + PAGE] {
            tables.map(page, data_physical(data, page));
            tables.map(page + TWIN, 100 * PAGE);
        }
        let vcpu = Vcpu::new(&engine(&ram, options)).expect("a vCPU");
        Self { ram, vcpu, machine }
    }

    fn natively(&mut self, code: &[u8], before: &World) -> World {
        self.machine.data().copy_from_slice(&before.data);
        let mut after = self.machine.execute(code, before);
        after.data = *self.machine.data();
        after.flags &= STATUS;
        after
    }

    fn translated(&mut self, code: &[u8], at: u64, before: &World) -> World {
        let data = self.machine.data_address();
        let places: Vec<u64> =
            (data..).take(DATA_BYTES).map(|address| data_physical(data, address)).collect();
        for (place, byte) in places.iter().zip(before.data) {
            self.ram.write(*place, &[byte]);
        }
        for (address, byte) in (at..).zip(code.iter().chain(&[0xf4])) {
            self.ram.write(code_physical(address), &[*byte]);
        }
        self.vcpu.engine().invalidate(0, RAM_PAGES * PAGE);
        let mut state = kernel_state(at);
        (state.gpr, state.flags) = (before.gpr, before.flags);
        set_vectors(&mut state, before);
        *self.vcpu.state_mut() = state;
        self.vcpu.set_fp_control(before.mxcsr);
        assert_eq!(self.vcpu.run(), Exit::Event(Event::Halt), "the code ends at its HLT");
        let mxcsr = self.vcpu.fp_control();
        let state = self.vcpu.state();
        World {
            gpr: state.gpr,
            flags: state.flags & STATUS,
            vectors: state.vectors,
            mxcsr,
            data: std::array::from_fn(|index| self.ram.byte(places[index])),
        }
    }
}

/// Somewhere that reaches over the end of a page, mostly.
fn place(random: &mut Random, bytes: usize) -> u64 {
    CODE + 2 * PAGE - random.draw() % (bytes as u64 + 16)
}

fn sequences_agree(seed: u64, count: u64, options: Options) {
    let _alone = ALONE.lock();
    let mut bench = Bench::new(152, options);
    let mut random = Random(seed);
    for round in 0..count {
        let start = random.0;
        let sequence = pieces::sequence(&mut random, 2 + round * 12 / count);
        let before = random.world(bench.machine.data_address());
        let native = bench.natively(&sequence.native, &before);
        let at = place(&mut random, sequence.translated.len());
        if random.draw().is_multiple_of(4) {
            bench.vcpu.flush_tlb(None, None);
        }
        let ours = bench.translated(&sequence.translated, at, &before);
        let bytes = sequence.translated;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let case = Case {
            name: hex,
            bytes,
            undefined_flags: sequence.undefined_flags,
            aligned: true,
            offset_bytes: None,
        };
        let text = difference(&case, &native, &ours);
        assert_eq!(text, None, "seed {start:#x} round {round} at {at:#x}: {}", case.name);
    }
}

#[test]
fn a_machine_agrees_with_the_host() {
    sequences_agree(0x0bad_cafe_1234_5678, 12_000, Options::detect());
}

#[test]
fn a_machine_agrees_without_avx() {
    sequences_agree(0x0dad_face_8765_4321, 4_000, without_avx());
}

#[test]
fn every_encoding_agrees_in_a_machine() {
    encodings_agree(160, Options::detect());
}

#[test]
fn every_encoding_agrees_in_a_machine_without_avx() {
    encodings_agree(160, without_avx());
}

#[test]
fn every_encoding_agrees_across_pages_of_a_machine() {
    encodings_agree(ACROSS, Options::detect());
}

#[test]
fn every_encoding_agrees_across_pages_of_a_machine_without_avx() {
    encodings_agree(ACROSS, without_avx());
}

fn encodings_agree(before_border: usize, options: Options) {
    let _alone = ALONE.lock();
    let mut bench = Bench::new(before_border, options);
    let mut random = Random(0x5eed_5eed_5eed_5eed);
    let mut wrong = Vec::new();
    let all = cases::all().into_iter();
    for case in all.filter(|case| before_border != ACROSS || !case.aligned) {
        for round in 0..4 {
            let start = random.0;
            let mut before = random.world(bench.machine.data_address());
            case.prepare(&mut before);
            let native = bench.natively(&case.bytes, &before);
            let at = place(&mut random, case.bytes.len());
            if round % 2 == 0 {
                bench.vcpu.flush_tlb(None, None);
            }
            let ours = bench.translated(&case.bytes, at, &before);
            if let Some(text) = difference(&case, &native, &ours) {
                wrong.push(format!("{} {:02x?} seed {start:#x}:{text}", case.name, case.bytes));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
