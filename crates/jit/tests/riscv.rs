//! The engine with the RISC-V front end: small programs, given as words.

use std::sync::Arc;

use isa::riscv::{RiscV, State};
use isa::{Event, Fetch, FrontEnd};
use jit::{Engine, Exit, Options, SecondTier, Space, Unwatched, Vcpu};

fn engine() -> Arc<Engine<RiscV>> {
    engine_with(Options::detect())
}

fn engine_with(options: Options) -> Arc<Engine<RiscV>> {
    let space = Space::User(Box::new(Unwatched));
    Engine::new(RiscV::default(), space, options).expect("an engine can be made")
}

/// Runs words until `ecall`.
fn run(code: &[u32], prepare: impl FnOnce(&mut State)) -> State {
    let mut vcpu = Vcpu::new(&engine()).expect("a vCPU can be made");
    vcpu.state_mut().pc = code.as_ptr() as u64;
    prepare(vcpu.state_mut());
    assert_eq!(vcpu.run(), Exit::Event(Event::SystemCall));
    *vcpu.state()
}

#[test]
fn a_loop_adds_up() {
    let code = [
        0x00000513, // li a0,0
        0x06400593, // li a1,100
        0x00b50533, // add a0,a0,a1
        0xfff58593, // addi a1,a1,-1
        0xfe059ce3, // bnez a1,-8
        0x00000073, // ecall
    ];
    let state = run(&code, |_| {});
    assert_eq!(state.x[10], 5050);
    assert_eq!(state.pc, code.as_ptr() as u64 + 24);
}

/// Once hot, a loop of two blocks is the second tier's; a change of its code still comes through.
#[test]
fn hot_code_is_made_anew_and_can_change() {
    let mut code = [
        0x00000513u32, // li a0,0
        0x001865b7,    // lui a1,0x186
        0x0015f613,    // andi a2,a1,1
        0x00060463,    // beqz a2,+8
        0x00150513,    // addi a0,a0,1
        0xfff58593,    // addi a1,a1,-1
        0xfe0598e3,    // bnez a1,-16
        0x00000073,    // ecall
    ];
    let (start, bytes) = (code.as_ptr() as u64, code.len() as u64 * 4);
    let tier = SecondTier::Again { entries: 50 };
    let engine = engine_with(Options { second_tier: Some(tier), ..Options::detect() });
    let mut vcpu = Vcpu::new(&engine).expect("a vCPU can be made");
    let odd = 0x0018_6000 / 2;
    for (step, promoted) in [(1, 1..=4), (3, 2..=8)] {
        code[4] = step << 20 | 0x50513; // addi a0,a0,step
        engine.invalidate(start, start + bytes);
        vcpu.state_mut().pc = start;
        assert_eq!(vcpu.run(), Exit::Event(Event::SystemCall));
        assert_eq!(vcpu.state().x[10], odd * u64::from(step));
        let counters = engine.counters();
        assert!(promoted.contains(&counters.promoted), "{counters:?}");
    }
}

/// fib(20), recursive.
fn fibonacci() -> Vec<u32> {
    vec![
        0x00000097, // auipc ra,0
        0x010080e7, // jalr ra,16(ra)
        0x00000073, // ecall
        0x00000013, // nop
        0x00200793, // fib: li a5,2
        0x00f56463, // bltu a0,a5,+8 ... returns a0
        0x0080006f, // j +8
        0x00008067, // ret
        0xfe010113, // addi sp,sp,-32
        0x00113c23, // sd ra,24(sp)
        0x00813823, // sd s0,16(sp)
        0x00913423, // sd s1,8(sp)
        0x00050413, // mv s0,a0
        0xfff50513, // addi a0,a0,-1
        0xfd9ff0ef, // jal ra,fib (-40)
        0x00050493, // mv s1,a0
        0xffe40513, // addi a0,s0,-2
        0xfcdff0ef, // jal ra,fib (-52)
        0x00950533, // add a0,a0,s1
        0x01813083, // ld ra,24(sp)
        0x01013403, // ld s0,16(sp)
        0x00813483, // ld s1,8(sp)
        0x02010113, // addi sp,sp,32
        0x00008067, // ret
    ]
}

#[test]
fn calls_return() {
    let again = Some(SecondTier::Again { entries: 20 });
    for second_tier in [None, again] {
        let engine = engine_with(Options { second_tier, ..Options::detect() });
        let (code, stack) = (fibonacci(), vec![0u64; 4096]);
        let top = stack.as_ptr() as u64 + 4096 * 8;
        let mut vcpu = Vcpu::new(&engine).expect("a vCPU can be made");
        vcpu.state_mut().pc = code.as_ptr() as u64;
        vcpu.state_mut().x[10] = 20;
        vcpu.state_mut().x[2] = top;
        assert_eq!(vcpu.run(), Exit::Event(Event::SystemCall));
        assert_eq!(vcpu.state().x[10], 6765);
        assert_eq!(vcpu.state().x[2], top);
        assert_eq!(engine.counters().promoted > 2, second_tier.is_some());
    }
}

#[test]
fn a_fault_names_the_instruction_and_the_address() {
    let code = [
        0x00100513u32, // li a0,1
        0x0005b503,    // ld a0,0(a1)
        0x00000073,
    ];
    let mut vcpu = Vcpu::new(&engine()).unwrap();
    vcpu.state_mut().pc = code.as_ptr() as u64;
    vcpu.state_mut().x[11] = 16;
    let Exit::Event(Event::Memory(fault)) = vcpu.run() else { panic!("no fault") };
    assert_eq!(fault.address, 16);
    assert_eq!(vcpu.state().pc, code.as_ptr() as u64 + 4);
    assert_eq!(vcpu.state().x[10], 1, "the load's destination is unchanged");
}

/// Fetches from a slice, for looking at IR.
#[allow(dead_code, reason = "used when a test fails")]
struct Words<'a>(&'a [u32]);

impl Fetch for Words<'_> {
    fn fetch(&mut self, pc: u64, bytes: &mut [u8]) -> usize {
        let code: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        let rest = &code[pc as usize..];
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        count
    }
}

#[test]
fn lifting_folds_addresses() {
    let mut ir = isa::ir::Ir::default();
    ir.begin(0, 12, 64);
    let code = [0x12345537u32, 0x67850513, 0x00000073]; // lui a0; addi a0; ecall
    let key = isa::Key { pc: 0, mode: 0 };
    RiscV::default().translate(key, &mut Words(&code), &mut ir);
    let text = ir.to_string();
    assert!(text.contains("const I64 0x12345678"), "{text}");
}

#[test]
fn a_field_of_31_bits_is_cut_out() {
    // ubfx x0, x1, #0, #31; svc #0
    let code = [0xd340_7820u32, 0xd400_0001];
    let space = Space::User(Box::new(Unwatched));
    let engine = Engine::new(isa::arm64::Arm64::default(), space, Options::detect()).unwrap();
    let mut vcpu = Vcpu::new(&engine).unwrap();
    vcpu.state_mut().pc = code.as_ptr() as u64;
    vcpu.state_mut().x[1] = u64::MAX;
    assert_eq!(vcpu.run(), Exit::Event(Event::SystemCall));
    assert_eq!(vcpu.state().x[0], i32::MAX as u64);
}

/// The rounding modes that no host has: ties away, and the reserved ones, static and dynamic.
#[test]
fn ties_go_away_from_zero_when_asked_for() {
    let above = 1f64 + f64::EPSILON;
    let cases = [
        // fadd.d fa0,fa1,fa2: 1 + 2^-53 is a tie.
        (0x02c5_8553, 1f64, f64::EPSILON / 2.0, above),
        // fsub.d: -1 - 2^-53.
        (0x0ac5_8553, -1.0, f64::EPSILON / 2.0, -above),
    ];
    const RM_AWAY: u32 = 4 << 12;
    const RM_DYNAMIC: u32 = 7 << 12;
    for (word, a, b, result) in cases {
        let operands = |state: &mut State| (state.f[11], state.f[12]) = (a.to_bits(), b.to_bits());
        let state = run(&[word | RM_AWAY, 0x0000_0073], operands);
        assert_eq!(f64::from_bits(state.f[10]), result);
        let dynamic = word | RM_DYNAMIC;
        let code = [
            0x0022_5073, // fsrmi 4
            dynamic,
            0x0020_5073,                    // fsrmi 0
            dynamic & !(31 << 7) | 13 << 7, // to fa3
            0x0000_0073,                    // ecall
        ];
        let state = run(&code, operands);
        assert_eq!(f64::from_bits(state.f[10]), result, "dynamic");
        assert_eq!(f64::from_bits(state.f[13]), a, "dynamic, and back to even");
    }
    for (rm, frm) in [(5, 0), (6, 0), (7, 5), (7, 7)] {
        let code = [0x02c5_8553 | rm << 12, 0x73];
        let mut vcpu = Vcpu::new(&engine()).expect("a vCPU can be made");
        (vcpu.state_mut().pc, vcpu.state_mut().frm) = (code.as_ptr() as u64, frm);
        assert_eq!(vcpu.run(), Exit::Event(Event::Illegal), "rm {rm}, frm {frm}");
    }
}
