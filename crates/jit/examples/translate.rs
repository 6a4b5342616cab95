//! How fast x86-64 code is translated, and nothing else done: `translate FILE [BLOCKS [ROUNDS]]`.
//!
//! FILE's text section, from end to end, or the blocks at the addresses that are the lines of BLOCKS
//! (hexadecimal, as in the file): those that a real run needed.

use std::time::Instant;

use isa::x86::X86;
use isa::{FrontEnd, Key};
use jit::{Engine, Options, Space, Unwatched};

/// The first executable segment: offset, address, bytes.
fn text(file: &[u8]) -> Option<(usize, u64, usize)> {
    let word = |at: usize| Some(u64::from_le_bytes(file.get(at..at + 8)?.try_into().ok()?));
    let headers = word(32)? as usize;
    let count = u16::from_le_bytes(file.get(56..58)?.try_into().ok()?);
    for header in (0..usize::from(count)).map(|n| headers + 56 * n) {
        if word(header)? == 1 | 5 << 32 {
            return Some((
                word(header + 8)? as usize,
                word(header + 16)?,
                word(header + 32)? as usize,
            ));
        }
    }
    None
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().expect("a file is named");
    let file = std::fs::read(file).expect("it can be read");
    let (offset, address, bytes) = text(&file).expect("it is ELF and has code");
    let blocks: Option<Vec<u64>> = arguments.next().map(|list| {
        let list = std::fs::read_to_string(list).expect("the list can be read");
        let addresses = list.lines().filter_map(|line| u64::from_str_radix(line, 16).ok());
        addresses.filter(|pc| (address..address + bytes as u64).contains(pc)).collect()
    });
    let rounds = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    let mut memory = vec![0u8; bytes + 0x2000];
    let at = memory.as_ptr().align_offset(0x1000);
    memory[at..at + bytes].copy_from_slice(&file[offset..offset + bytes]);
    let start = memory[at..].as_ptr() as u64;
    let front_end = X86::user();
    let mode = front_end.key(&X86::user_state(true)).mode;
    for _ in 0..rounds {
        let space = Space::User(Box::new(Unwatched));
        let engine = Engine::new(X86::user(), space, Options::detect()).expect("there is memory");
        let begin = Instant::now();
        match &blocks {
            Some(blocks) => blocks.iter().for_each(|pc| {
                engine.host_code(Key { pc: pc - address + start, mode });
            }),
            None => {
                let mut pc = start;
                while pc < start + bytes as u64 {
                    let before = engine.counters().guest_bytes;
                    engine.host_code(Key { pc, mode });
                    pc += (engine.counters().guest_bytes - before).max(1);
                }
            }
        }
        let time = begin.elapsed().as_secs_f64();
        let counters = engine.counters();
        let rate = counters.instructions as f64 / time / 1e6;
        println!(
            "{} instructions, {} host bytes, {rate:.2} million a second",
            counters.instructions, counters.host_bytes
        );
    }
}
