//! Random bytes for every decoder: whatever a guest executes, lifting ends, with a block of bounded
//! size that ends with an exit, and without a panic. `DECODER_FUZZ=N` runs N times as many.

use isa::arm64::Arm64;
use isa::ir::{Code, Ir, Value};
use isa::riscv::RiscV;
use isa::x86::X86;
use isa::{Fetch, FrontEnd, Key};

struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Code that begins at `start` and ends where nothing is mapped.
struct Bytes<'a> {
    start: u64,
    bytes: &'a [u8],
}

impl Fetch for Bytes<'_> {
    fn fetch(&mut self, pc: u64, into: &mut [u8]) -> usize {
        let rest = pc.checked_sub(self.start).and_then(|at| self.bytes.get(at as usize..));
        let Some(rest) = rest else { return 0 };
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        count
    }
}

/// What holds of every block.
fn check(ir: &Ir, what: &str) {
    let ops = ir.ops();
    assert!(ir.ended(), "{what}: the block has no end");
    assert!(ops.len() < 2 * Ir::OPS_MAX, "{what}: {} operations", ops.len());
    assert!(ir.insns() <= Ir::INSNS_MAX, "{what}: {} instructions", ir.insns());
    for (index, op) in ops.iter().enumerate() {
        for Value(operand) in op.operands() {
            assert!((operand as usize) < index, "{what}: %{index} uses %{operand}\n{ir}");
        }
    }
    let last = ops.last().expect("a block is not empty").code;
    let ends = [
        Code::Exit,
        Code::ExitIndirect,
        Code::Call,
        Code::CallIndirect,
        Code::Return,
        Code::ExitMode,
        Code::Raise,
    ];
    assert!(ends.contains(&last), "{what}: ends with {last:?}");
}

/// `rows` are encodings to begin from: many words have random operands in one of them.
fn fuzz<F: FrontEnd>(name: &str, front_end: &F, modes: &[u64], rows: &[(u32, u32)]) {
    let more: u64 = std::env::var("DECODER_FUZZ").map_or(1, |times| times.parse().expect("number"));
    let mut random = Random(0x5eed);
    let mut ir = Ir::default();
    for round in 0..30_000 * more {
        let mut bytes = [0; 64];
        for word in bytes.chunks_mut(4) {
            let mut value = random.draw() as u32;
            if !rows.is_empty() && !random.draw().is_multiple_of(4) {
                let (mask, fixed) = rows[(random.draw() % rows.len() as u64) as usize];
                value = value & !mask | fixed;
            }
            word.copy_from_slice(&value.to_le_bytes());
        }
        let mode = modes[(random.draw() % modes.len() as u64) as usize];
        let length = 1 + (random.draw() % 64) as usize;
        // Mostly in the middle of a page, else at its end.
        let offset = if random.draw().is_multiple_of(4) { 0x1000 - length as u64 } else { 0x400 };
        let start = 0x7000_0000 + (offset & !1);
        let insns = if round % 5 == 0 { 1 } else { Ir::INSNS_MAX };
        ir.begin(start, 12, insns);
        let mut fetch = Bytes { start, bytes: &bytes[..length] };
        front_end.translate(Key { pc: start, mode }, &mut fetch, &mut ir);
        check(&ir, &format!("{name} mode {mode:#x} {:02x?}", &bytes[..length]));
    }
}

#[test]
fn x86_takes_any_bytes() {
    let (user, system) = (X86::user(), X86::system());
    let modes = [true, false].map(|long| user.key(&X86::user_state(long)).mode);
    fuzz("x86 user", &user, &modes, &[]);
    // Real mode, as after reset.
    let real = system.key(&system.reset()).mode;
    fuzz("x86 system", &system, &[real, modes[0], modes[1]], &[]);
}

#[test]
fn riscv_takes_any_words() {
    let rows: Vec<_> =
        isa::riscv::rows().map(|row| (row.pattern.mask, row.pattern.value)).collect();
    fuzz("riscv64", &RiscV::default(), &[0], &rows);
}

#[test]
fn arm64_takes_any_words() {
    let rows: Vec<_> =
        isa::arm64::rows().map(|row| (row.pattern.mask, row.pattern.value)).collect();
    fuzz("aarch64", &Arm64::default(), &[0, isa::arm64::MODE_DEFAULT_NAN], &rows);
}
