//! The guest's debug registers and trap flag, on the translator. The handler of the debug exception
//! is a HLT, at which the test looks at DR6 and at what was pushed, and then returns in its stead.

use isa::Event;
use isa::x86::{CS, RCX, RSP, SS, State, eflags};
use jit::Exit;

use super::tests::code;
use super::*;

/// Where the handler is.
const HANDLER: u64 = 0x80;
/// Where the code under test is.
const START: u64 = 0x100;
/// The bits of DR6 that say something.
const STATUS: u64 = 0xe00f;
const STEPPED: u64 = 1 << 14;

struct Guest {
    vcpu: Vcpu<X86>,
    ram: Arc<memory::Ram>,
    /// Set in the flags with which handlers return.
    resume: u64,
    _engine: Arc<Engine<X86>>,
}

impl Guest {
    fn new(bytes: &[u8], prepare: impl FnOnce(&mut State)) -> Self {
        let (engine, mut vcpu, ram) = code(bytes);
        assert!(ram.write(4, &[HANDLER as u8, 0, 0, 0]) && ram.write(HANDLER, &[0xf4]));
        let state = vcpu.state_mut();
        (state.segments[SS].base, state.gpr[RSP]) = (0, 0xf00);
        prepare(state);
        Self { vcpu, ram, resume: eflags::RF, _engine: engine }
    }

    /// Runs to the next debug exception: DR6, and where it is taken. `None`: to a HLT of its own.
    fn next(&mut self) -> Option<(u64, u64)> {
        assert_eq!(self.vcpu.run(), Exit::Event(Event::Halt));
        let mut frame = [0; 6];
        let state = self.vcpu.state_mut();
        if state.pc != HANDLER + 1 {
            return None;
        }
        assert!(self.ram.read(state.gpr[RSP], &mut frame));
        let word = |at: usize| u64::from(u16::from_le_bytes([frame[at], frame[at + 1]]));
        let (status, pc) = (state.dr[6] & STATUS, word(0));
        state.gpr[RSP] += 6;
        state.set_all_flags(word(4) | self.resume);
        (state.pc, state.halted) = (pc + state.segments[CS].base, 0);
        state.dr[6] &= !STATUS;
        Some((status, pc))
    }

    fn all(&mut self) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| self.next()).take(20).collect()
    }
}

#[test]
fn an_instruction_traps_before_it_is_executed_unless_it_is_resumed() {
    // mov cx, 3; again: inc ax; loop again; hlt
    let bytes = [0xb9, 3, 0, 0x40, 0xe2, 0xfd, 0xf4];
    let prepare = |state: &mut State| (state.dr[2], state.dr[7]) = (0x104, 1 << 5);
    let mut guest = Guest::new(&bytes, prepare);
    assert_eq!(guest.all(), [(4, 0x104); 3]);
    let mut guest = Guest::new(&bytes, prepare);
    guest.resume = 0;
    assert_eq!([guest.next(), guest.next()], [Some((4, 0x104)); 2], "not resumed: again");
}

#[test]
fn memory_traps_behind_the_instruction_that_touches_it() {
    // mov ax, [0x1000]; mov [0x1003], al; xchg [0x1002], ax; lock inc word [0x1010];
    // mov word [0x1001], 7; hlt
    let bytes = [
        0xa1, 0x00, 0x10, 0xa2, 0x03, 0x10, 0x87, 0x06, 0x02, 0x10, 0xf0, 0xff, 0x06, 0x10, 0x10,
        0xc7, 0x06, 0x01, 0x10, 0x07, 0x00, 0xf4,
    ];
    let mut guest = Guest::new(&bytes, |state| {
        // A byte, written; a word, read or written; a word, written.
        [state.dr[0], state.dr[1], state.dr[3]] = [0x1002, 0x1000, 0x1010];
        state.dr[7] = 1 | 1 << 2 | 1 << 6 | 0b0001 << 16 | 0b0111 << 20 | 0b0101 << 28;
    });
    assert_eq!(guest.all(), [(2, 0x103), (1, 0x10a), (8, 0x10f), (3, 0x115)]);
    let mut word = [0; 2];
    assert!(guest.ram.read(0x1010, &mut word) && word == [1, 0], "done once: {word:?}");
}

#[test]
fn a_repeated_instruction_traps_behind_the_iteration() {
    // mov di, 0x1000; mov cx, 4; rep stosw; hlt
    let bytes = [0xbf, 0x00, 0x10, 0xb9, 4, 0, 0xf3, 0xab, 0xf4];
    let mut guest = Guest::new(&bytes, |state| {
        (state.dr[0], state.dr[7]) = (0x1002, 1 | 0b0101 << 16);
    });
    assert_eq!(guest.next(), Some((1, 0x106)));
    assert_eq!(guest.vcpu.state().gpr[RCX], 2);
    assert_eq!(guest.all(), []);
    assert_eq!(guest.vcpu.state().gpr[RCX], 0);
}

#[test]
fn ports_trap_with_the_extension() {
    // in al, 0x60; out 0x61, al; hlt
    let bytes = [0xe4, 0x60, 0xe6, 0x61, 0xf4];
    let mut guest = Guest::new(&bytes, |state| {
        [state.dr[0], state.dr[1]] = [0x60, 0x61];
        state.dr[7] = 1 | 1 << 2 | 0b0010 << 16 | 0b0010 << 20;
        state.cr[4] |= control::CR4_DE;
    });
    assert_eq!(guest.all(), [(1, 0x102), (2, 0x104)]);
}

#[test]
fn who_sets_a_breakpoint_has_it_at_once_and_general_detection_protects_the_registers() {
    // mov ax, [0x1000]; mov eax, 0xd0403 (DR0 and DR1: 4 bytes written, here); mov dr7, eax;
    // mov [0x1002], ax; mov eax, 0x2000; mov dr7, eax; mov eax, dr0; hlt
    let bytes = [
        0xa1, 0x00, 0x10, 0x66, 0xb8, 0x03, 0x04, 0x0d, 0x00, 0x0f, 0x23, 0xf8, 0xa3, 0x02, 0x10,
        0x66, 0xb8, 0x00, 0x20, 0x00, 0x00, 0x0f, 0x23, 0xf8, 0x0f, 0x21, 0xc0, 0xf4,
    ];
    let mut guest = Guest::new(&bytes, |state| state.dr[0] = 0x1000);
    let all = guest.all();
    assert_eq!(all, [(1, START + 15), (1 << 13, START + 24)]);
    let state = guest.vcpu.state();
    assert_eq!((state.dr[7], state.gpr[0]), (0x400, 0x1000), "allowed in and behind the handler");
}

#[test]
fn single_steps_pass_every_instruction_once_and_none_behind_a_load_of_the_stack_segment() {
    // nop; mov ss, bx; nop; rep stosb; pushf; push cs; push 0x110; iret; ... 0x110: nop; hlt
    let mut bytes = vec![0x90, 0x8e, 0xd3, 0x90, 0xf3, 0xaa, 0x9c, 0x0e, 0x68, 0x10, 0x01, 0xcf];
    bytes.resize(16, 0xf4);
    bytes.extend([0x90, 0xf4]);
    let mut guest = Guest::new(&bytes, |state| {
        state.eflags |= eflags::TF;
        (state.gpr[RCX], state.gpr[7]) = (2, 0x1000);
    });
    let places: Vec<u64> = (0..10)
        .map(|_| guest.next().expect("a step"))
        .map(|(status, pc)| {
            assert_eq!(status, STEPPED, "{pc:#x}");
            pc
        })
        .collect();
    let expected = [0x101, 0x104, 0x104, 0x106, 0x107, 0x108, 0x10b, 0x110, 0x111, 0x112];
    assert_eq!(places, expected);
}

#[test]
fn the_flag_that_popf_sets_traps_behind_the_next_instruction() {
    // pushf; or word [0xefe], 0x100; popf; nop; nop; hlt
    let bytes = [0x9c, 0x81, 0x0e, 0xfe, 0x0e, 0x00, 0x01, 0x9d, 0x90, 0x90, 0xf4];
    let mut guest = Guest::new(&bytes, |_| {});
    assert_eq!([guest.next(), guest.next()], [Some((STEPPED, 0x109)), Some((STEPPED, 0x10a))]);
}
