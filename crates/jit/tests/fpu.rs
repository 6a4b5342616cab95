//! Random sequences of the x87's instructions: tier 1, which has the host's x87 do them, against
//! the interpreter, whose helper calculates. `IR_FUZZ=N` runs N times as many.

#[path = "ir_fuzz/random.rs"]
mod random;

use std::fmt::Write as _;

use isa::x86::{State, X86};
use jit::{Engine, Exit, Options, Space, Unwatched, Vcpu};
use random::Random;

const DATA_BYTES: usize = 256;

/// A number of 80 bits: mostly near 1, sometimes any bits at all.
fn number(random: &mut Random) -> [u64; 2] {
    let sign = random.draw() & 0x8000;
    let exponent = match random.below(6) {
        0 => [0, 0x7fff][random.below(2)],
        1 => random.draw() & 0x7fff,
        _ => 0x3fff + random.below(40) as u64 - 20,
    };
    let significand = match random.below(6) {
        0 => [0, 1 << 63, 3 << 62, 1, !0][random.below(5)],
        1 => random.word(),
        _ => random.draw() | 1 << 63,
    };
    [significand, sign | exponent]
}

/// A control word: mostly as programs leave it, seldom with an exception that is not masked.
fn control(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => random.draw() & 0xf7f,
        1..4 => 0x7f | random.draw() & 0xf00,
        _ => 0x37f,
    }
}

/// An instruction on registers, or with an operand at RDI.
fn instruction(random: &mut Random) -> Vec<u8> {
    const CONTROL: [&[u8]; 5] =
        [&[0xdb, 0xe2], &[0xdb, 0xe3], &[0x9b], &[0xd9, 0xf6], &[0xd9, 0xf7]];
    let place = random.below(DATA_BYTES / 16) as u8 * 16;
    // Without FSAVE and its like, which are longer.
    const MEMORY: [u8; 8] = [0xff, 0b0010_1101, 0xff, 0b1010_1111, 0xff, 0b1000_1111, 0xff, 0xff];
    match random.below(8) {
        0 => CONTROL[random.below(5)].to_vec(),
        1 | 2 => {
            let opcode = random.below(8) as u8;
            let digit = random.below(8) as u8;
            if MEMORY[usize::from(opcode)] >> digit & 1 == 0 {
                return vec![0x9b];
            }
            vec![0xd8 + opcode, digit << 3 | 0x47, place]
        }
        _ => vec![0xd8 + random.below(8) as u8, 0xc0 | random.below(64) as u8],
    }
}

/// An engine with its vCPU.
fn vcpu(options: Options) -> Vcpu<X86> {
    let space = Space::User(Box::new(Unwatched));
    Vcpu::new(&Engine::new(X86::user(), space, options).expect("an engine")).expect("a vCPU")
}

/// What counts of a state.
fn told(state: &State, exit: &Exit) -> String {
    let mut text = format!("{exit:?} pc {:x} control {:x}", state.pc, state.x87_control);
    let status = state.x87_status;
    _ = write!(text, " status {status:x} top {} empty {:x}", state.x87_top, state.x87_empty);
    // What an empty register holds is nobody's business but MMX's.
    for number in (0..8).filter(|number| state.x87_empty >> number & 1 == 0) {
        let [significand, top] = state.x87[number];
        _ = write!(text, "\n{number}: {:x} {significand:x}", top & 0xffff);
    }
    text
}

#[test]
fn random_sequences_of_the_x87_agree() {
    let more: u64 = std::env::var("IR_FUZZ").map_or(1, |times| times.parse().expect("a number"));
    let interpreted = Options { interpret: true, ..Options::detect() };
    let (mut ours, mut oracle) = (vcpu(Options::detect()), vcpu(interpreted));
    let mut random = Random::new(0x87_0b5e_55ed);
    let mut code = vec![0_u8; 4096];
    let mut data = Box::new([0_u8; DATA_BYTES]);
    for round in 0..20_000 * more {
        let mut listed = Vec::new();
        for _ in 0..=round % 8 {
            listed.push(instruction(&mut random));
        }
        let bytes: Vec<u8> = listed.concat().into_iter().chain([0x0f, 0x05]).collect();
        code[..bytes.len()].copy_from_slice(&bytes);
        let start = code.as_ptr() as u64;
        let mut before = X86::user_state(true);
        before.pc = start;
        before.gpr[7] = data.as_ptr() as u64 + DATA_BYTES as u64 / 2; // displacements have a sign
        before.x87 = [[0; 2]; 8].map(|_: [u64; 2]| number(&mut random));
        before.x87_control = control(&mut random) | 0x40;
        before.x87_top = random.below(8) as u64;
        before.x87_empty = if random.below(2) == 0 { random.draw() & 0xff } else { 0x0f };
        let mut contents = [0; DATA_BYTES];
        for place in contents.chunks_mut(16) {
            let [significand, top] = number(&mut random);
            place[..8].copy_from_slice(&significand.to_le_bytes());
            place[8..].copy_from_slice(&top.to_le_bytes());
        }
        let mut run = |vcpu: &mut Vcpu<X86>| {
            *data = contents;
            vcpu.engine().invalidate(start, start + 4096);
            *vcpu.state_mut() = before;
            let exit = vcpu.run();
            (told(vcpu.state(), &exit), data.to_vec())
        };
        let (expected, found) = (run(&mut oracle), run(&mut ours));
        assert_eq!(
            expected,
            found,
            "round {round}: {listed:02x?}\n{}",
            told(&before, &Exit::Kicked)
        );
    }
}
