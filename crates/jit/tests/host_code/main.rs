//! The host code that tier 1 makes of single guest instructions and small blocks, in a checked-in
//! file: how good it is changes only where somebody looks. `UPDATE_GOLDEN=1` writes the file anew.
//!
//! Of an instruction: how many more host instructions and bytes its block has than an empty one,
//! code behind the block included. Of a block: all it has.

mod rows;

use std::fmt::Write;
use std::path::Path;

use iced_x86::{Decoder, DecoderOptions};
use isa::arm64::Arm64;
use isa::riscv::RiscV;
use isa::x86::X86;
use isa::{FrontEnd, Key};
use jit::{Engine, Features, Options, Space, Unwatched};
use rows::Row;

/// A page of its own for each guest's code, so that no block is cut short.
#[repr(C, align(4096))]
struct Code([u8; 1 << 16]);

/// Host instructions and bytes.
fn measure<F: FrontEnd>(engine: &Engine<F>, mode: u64, code: &[u8]) -> [usize; 2] {
    let host = engine.host_code(Key { pc: code.as_ptr() as u64, mode }).expect("it is translated");
    [Decoder::new(64, &host, DecoderOptions::NONE).iter().count(), host.len()]
}

/// A host of today, whatever this one is: nothing is executed.
const ALL: Features =
    Features { avx2: true, bmi2: true, lzcnt: true, fma: true, f16c: true, sha: true, aes: true };

fn listing<F: FrontEnd>(name: &str, front_end: F, mode: u64, rows: &[Row], end: &[u8]) -> String {
    let options = Options { features: ALL, ..Options::detect() };
    let engine = Engine::new(front_end, Space::User(Box::new(Unwatched)), options).expect("one");
    let mut code = Box::new(Code([0; 1 << 16]));
    let mut text = format!("# {name}: host instructions, bytes\n");
    let mut at = 0;
    let mut next = |bytes: &[u8]| {
        at += 0x100;
        let whole = [bytes, end].concat();
        code.0[at..at + whole.len()].copy_from_slice(&whole);
        measure(&engine, mode, &code.0[at..])
    };
    let empty = next(&[]);
    for (row, bytes) in rows {
        let [mut count, mut size] = next(bytes);
        if !row.starts_with("block:") {
            count -= empty[0];
            size -= empty[1];
        }
        writeln!(text, "{row:<44} {count:3} {size:4}").expect("a string takes it");
    }
    text
}

#[test]
fn tier_1_makes_the_code_it_is_known_to_make() {
    let x86 = X86::user();
    let long = x86.key(&X86::user_state(true)).mode;
    let found = [
        listing("x86_64", x86, long, rows::X86, &[0x0f, 0x0b]),
        listing("riscv64", RiscV::default(), 0, rows::RISCV, &0x0000_0073_u32.to_le_bytes()),
        listing("aarch64", Arm64::default(), 0, rows::ARM64, &0xd400_0001_u32.to_le_bytes()),
    ]
    .join("\n");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host_code/golden.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return std::fs::write(golden, found).expect("the golden file can be written");
    }
    let expected = std::fs::read_to_string(golden).expect("the golden file is there");
    let changes: Vec<String> = expected
        .lines()
        .zip(found.lines())
        .filter(|(before, now)| before != now)
        .map(|(before, now)| format!("- {before}\n+ {now}"))
        .collect();
    assert!(changes.is_empty(), "UPDATE_GOLDEN=1 takes these over:\n{}", changes.join("\n"));
    assert_eq!(expected.lines().count(), found.lines().count(), "rows came or went");
}
