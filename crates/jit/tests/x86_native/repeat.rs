//! Repeated string operations: against their definition, with holes in memory, overlaps, page
//! borders, both directions, and stores to code.

// UNSAFETY: maps pages of its own and takes rights from them.
#![expect(unsafe_code)]

use std::ptr;
use std::sync::Arc;

use isa::x86::{RAX, RCX, RDI, RSI, X86, eflags};
use isa::{Access, Event, MemoryFault};
use jit::{Engine, Exit, Options, Space, Unwatched, UserSpace, Vcpu};

use crate::Random;
use crate::system::{Ram, Tables, engine, kernel_state};

const PAGE: usize = 4096;
/// Of the data, before a page that is not there.
const BYTES: usize = 3 * PAGE;

/// REP MOVS or STOS, and the bytes of an element.
#[derive(Clone, Copy, Debug)]
struct Shape {
    fill: bool,
    bytes: usize,
    down: bool,
}

impl Shape {
    fn draw(random: &mut Random) -> Self {
        let draw = random.draw();
        let bytes = 1 << (draw & 3);
        Self { fill: draw & 4 != 0, bytes, down: draw & 0x78 == 0 }
    }

    /// The instruction, and what ends the case.
    fn code(self, end: &[u8]) -> Vec<u8> {
        let mut code = vec![0xf3];
        match self.bytes {
            2 => code.push(0x66),
            8 => code.push(0x48),
            _ => {}
        }
        code.push(if self.fill { 0xaa } else { 0xa4 } + u8::from(self.bytes > 1));
        code.extend(end);
        code
    }
}

/// Offsets into the data, the count, the value.
#[derive(Clone, Debug, PartialEq)]
struct Registers {
    from: i64,
    to: i64,
    count: u64,
    value: u64,
}

impl Registers {
    fn draw(random: &mut Random, shape: Shape) -> Self {
        let most = [8, 40, 700][(random.draw() % 3) as usize];
        let count = random.draw() % most;
        let from = (random.draw() % BYTES as u64) as i64;
        let near = from + (random.draw() % 64) as i64 - 32;
        let anywhere = (random.draw() % BYTES as u64) as i64;
        let to = if random.draw().is_multiple_of(3) { near.max(0) } else { anywhere };
        // Downwards only where there is room: the page before is no one's business.
        let room = if shape.down { count as i64 * 8 } else { 0 };
        Self { from: from.max(room), to: to.max(room), count, value: random.draw() }
    }

    /// The definition, one element after the other. Gives the access behind the data's end.
    fn apply(&mut self, shape: Shape, data: &mut [u8]) -> Option<(i64, Access)> {
        let value = self.value.to_le_bytes();
        let step = if shape.down { -(shape.bytes as i64) } else { shape.bytes as i64 };
        while self.count > 0 {
            let (from, to) = (self.from as usize, self.to as usize);
            let end = data.len();
            let missing = |at: usize| at.max(end) as i64;
            let mut element = value;
            if !shape.fill {
                if from + shape.bytes > end {
                    return Some((missing(from), Access::Read));
                }
                element[..shape.bytes].copy_from_slice(&data[from..from + shape.bytes]);
            }
            if to + shape.bytes > end {
                return Some((missing(to), Access::Write));
            }
            data[to..to + shape.bytes].copy_from_slice(&element[..shape.bytes]);
            self.to += step;
            self.from += if shape.fill { 0 } else { step };
            self.count -= 1;
        }
        None
    }
}

/// Pages of the process.
struct Pages(*mut u8);

impl Pages {
    fn new(count: usize) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        // Low, so that 32-bit programs reach it too.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        // SAFETY: a new mapping at an address of the system's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), count * PAGE, protection, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED, "test memory can be had");
        Self(start.cast())
    }

    fn protect(address: u64, bytes: usize, protection: i32) {
        // SAFETY: pages of this test, which no Rust object lies in.
        let done = unsafe { libc::mprotect(address as *mut _, bytes, protection) };
        assert_eq!(done, 0, "rights can be changed");
    }

    fn address(&self) -> u64 {
        self.0 as u64
    }

    fn bytes(&mut self, count: usize) -> &mut [u8] {
        // SAFETY: mapped and writable, and guest code does not run meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.0, count) }
    }
}

/// User mode that guards its code.
struct Guarding(u64);

impl UserSpace for Guarding {
    fn executable(&self, _: u64) -> bool {
        true
    }

    fn protect_code(&self, page: u64) {
        if page == self.0 {
            Pages::protect(page, PAGE, libc::PROT_READ);
        }
    }

    fn unprotect_code(&self, address: u64) -> bool {
        let ours = address & !(PAGE as u64 - 1) == self.0;
        if ours {
            Pages::protect(self.0, PAGE, libc::PROT_READ | libc::PROT_WRITE);
        }
        ours
    }
}

fn user(space: impl UserSpace + 'static, options: Options) -> Vcpu<X86> {
    let engine = Engine::new(X86::user(), Space::User(Box::new(space)), options);
    Vcpu::new(&engine.expect("an engine")).expect("a vCPU")
}

fn set(vcpu: &mut Vcpu<X86>, base: u64, shape: Shape, registers: &Registers) {
    let state = vcpu.state_mut();
    state.gpr[RSI] = base.wrapping_add(registers.from as u64);
    state.gpr[RDI] = base.wrapping_add(registers.to as u64);
    (state.gpr[RCX], state.gpr[RAX]) = (registers.count, registers.value);
    state.eflags = state.eflags & !eflags::DF | if shape.down { eflags::DF } else { 0 };
}

fn get(vcpu: &Vcpu<X86>, base: u64) -> Registers {
    let gpr = &vcpu.state().gpr;
    let offset = |n: usize| gpr[n].wrapping_sub(base) as i64;
    Registers { from: offset(RSI), to: offset(RDI), count: gpr[RCX], value: gpr[RAX] }
}

fn holes_are_found(options: Options, long: bool) {
    let mut pages = Pages::new(5);
    let base = pages.address();
    let hole = base + BYTES as u64;
    Pages::protect(hole, PAGE, libc::PROT_NONE);
    let code = hole + PAGE as u64;
    let mut vcpu = user(Unwatched, options);
    let mut random = Random(0x1234_5678_9abc_def1);
    for round in 0..3000 {
        let mut shape = Shape::draw(&mut random);
        shape.bytes = if long { shape.bytes } else { shape.bytes.min(4) };
        let registers = Registers::draw(&mut random, shape);
        let before: Vec<u8> = (0..BYTES).map(|_| random.draw() as u8).collect();
        let (mut expected, mut data) = (registers.clone(), before.clone());
        let missing = expected.apply(shape, &mut data);
        let bytes = shape.code(&[0x0f, 0x0b]);
        // SAFETY: the last page is the code's.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), code as *mut u8, bytes.len()) };
        vcpu.engine().invalidate(code, code + 16);
        pages.bytes(BYTES).copy_from_slice(&before);
        *vcpu.state_mut() = X86::user_state(long);
        vcpu.state_mut().pc = code;
        set(&mut vcpu, base, shape, &registers);
        let exit = vcpu.run();
        let event = missing.map_or(Event::Illegal, |(at, access)| {
            Event::Memory(MemoryFault { address: base + at as u64, access, detail: 0 })
        });
        let what = format!("round {round}: {shape:?} {registers:?}");
        assert_eq!(exit, Exit::Event(event), "{what}");
        assert_eq!(get(&vcpu, base), expected, "{what}");
        assert!(pages.bytes(BYTES) == data, "{what}: memory");
    }
}

#[test]
fn holes_are_found_where_they_begin() {
    holes_are_found(Options::detect(), true);
    holes_are_found(Options::detect(), false);
}

#[test]
fn holes_are_found_when_interpreted() {
    holes_are_found(Options { interpret: true, ..Options::detect() }, true);
}

#[test]
fn a_string_over_guarded_code_changes_it() {
    let mut pages = Pages::new(4);
    let base = pages.address();
    let target = base + 2 * PAGE as u64;
    let mut vcpu = user(Guarding(target), Options::detect());
    let start = base + 3 * PAGE as u64;
    // mov eax, 1; ud2, to be overwritten from the middle of a string on
    let old = [0xb8, 1, 0, 0, 0, 0x0f, 0x0b];
    let run = |vcpu: &mut Vcpu<X86>, pc: u64| {
        vcpu.state_mut().pc = pc;
        vcpu.run()
    };
    for bytes in [1, 2, 4, 8] {
        Pages::protect(target, PAGE, libc::PROT_READ | libc::PROT_WRITE);
        let shape = Shape { fill: false, bytes, down: false };
        let all = pages.bytes(4 * PAGE);
        all[2 * PAGE..][..7].copy_from_slice(&old);
        all[3 * PAGE..][..8].fill(0x90);
        let code = shape.code(&[0x0f, 0x0b]);
        all[3 * PAGE..][..code.len()].copy_from_slice(&code);
        // The string: filler up to the page's end, then the same code with another number.
        all[..PAGE].fill(0x5a);
        all[64..71].copy_from_slice(&[0xb8, 2, 0, 0, 0, 0x0f, 0x0b]);
        vcpu.engine().invalidate(base, base + 4 * PAGE as u64);
        *vcpu.state_mut() = X86::user_state(true);
        run(&mut vcpu, target);
        assert_eq!(vcpu.state().gpr[RAX], 1);
        let to = (2 * PAGE - 64) as i64;
        let registers = Registers { from: 0, to, count: 80 / bytes as u64, value: 7 };
        set(&mut vcpu, base, shape, &registers);
        assert_eq!(run(&mut vcpu, start), Exit::Event(Event::Illegal));
        let after = Registers { from: 80, to: to + 80, count: 0, value: 7 };
        assert_eq!(get(&vcpu, base), after);
        run(&mut vcpu, target);
        assert_eq!(vcpu.state().gpr[RAX], 2, "elements of {bytes} bytes");
    }
}

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x50_0000;
/// Physical places of the data's pages, none next to another.
const PLACES: [u64; 3] = [60, 50, 70];
const HALTED: Exit = Exit::Event(Event::Halt);

fn machine() -> (Arc<Ram>, Vcpu<X86>) {
    let ram = Arc::new(Ram::new());
    let mut tables = Tables::new(&ram);
    tables.map(CODE, 40 * PAGE as u64);
    for (page, place) in (0..).zip(PLACES) {
        tables.map(DATA + page * PAGE as u64, place * PAGE as u64);
    }
    let vcpu = Vcpu::new(&engine(&ram, Options::detect())).expect("a vCPU");
    (ram, vcpu)
}

fn physical(offset: usize) -> u64 {
    PLACES[offset / PAGE] * PAGE as u64 + (offset % PAGE) as u64
}

#[test]
fn strings_in_a_machine_agree_with_their_definition() {
    let (ram, mut vcpu) = machine();
    let mut random = Random(0x0fed_cba9_8765_4321);
    let mut data: Vec<u8> = (0..BYTES).map(|_| random.draw() as u8).collect();
    (0..BYTES).for_each(|at| ram.write(physical(at), &[data[at]]));
    let mut faults = 0;
    for round in 0..2000 {
        let shape = Shape::draw(&mut random);
        let registers = Registers::draw(&mut random, shape);
        let mut expected = registers.clone();
        let missing = expected.apply(shape, &mut data);
        ram.write(40 * PAGE as u64, &shape.code(&[0xf4]));
        vcpu.engine().invalidate(40 * PAGE as u64, 41 * PAGE as u64);
        *vcpu.state_mut() = kernel_state(CODE);
        set(&mut vcpu, DATA, shape, &registers);
        let exit = vcpu.run();
        let what = format!("round {round}: {shape:?} {registers:?}");
        assert_eq!(exit == HALTED, missing.is_none(), "{what}: {exit:x?}");
        faults += u32::from(missing.is_some());
        assert_eq!(get(&vcpu, DATA), expected, "{what}");
        let wrong = (0..BYTES).find(|&at| ram.byte(physical(at)) != data[at]);
        assert_eq!(wrong, None, "{what}: memory");
    }
    assert!(faults > 20, "{faults} strings reached the data's end");
}

#[test]
fn a_string_over_translated_code_in_a_machine_changes_it() {
    let (ram, mut vcpu) = machine();
    // The data's second page is code too.
    let second = PLACES[1] * PAGE as u64;
    let new = [0xb8, 2, 0, 0, 0, 0xf4]; // mov eax, 2; hlt
    for at in [0, 0x10, 0xf00] {
        ram.write(second + at, &[0xb8, 1, 0, 0, 0, 0xf4]);
        ram.write(PLACES[2] * PAGE as u64, &new);
        ram.write(40 * PAGE as u64, &[0xf3, 0xa4, 0xf4]); // rep movsb; hlt
        vcpu.engine().invalidate(0, 100 * PAGE as u64);
        let to = DATA + PAGE as u64 + at;
        for number in 1..3 {
            *vcpu.state_mut() = kernel_state(to);
            assert_eq!(vcpu.run(), HALTED);
            assert_eq!(vcpu.state().gpr[RAX], number);
            *vcpu.state_mut() = kernel_state(CODE);
            let state = vcpu.state_mut();
            (state.gpr[RSI], state.gpr[RDI], state.gpr[RCX]) = (DATA + 2 * PAGE as u64, to, 6);
            assert_eq!(vcpu.run(), HALTED);
        }
    }
}
