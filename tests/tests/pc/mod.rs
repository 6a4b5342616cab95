//! The PC, part by part, held against the reference QEMU where it is there.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, wherever it is")]

mod board;
mod debugger;
mod microvm;
mod network;
mod people;
mod processors;
mod saved;
mod systems;
mod time;

use std::path::PathBuf;

/// The reference emulator: the one that was fetched, or the system's.
fn reference() -> Option<PathBuf> {
    tests::asset("bin/qemu-system-x86_64").or_else(|| tests::program("qemu-system-x86_64"))
}

/// A ROM of 64 KiB that copies real-mode code to 0:7c00 and goes there.
fn rom_with(code: &[u8]) -> Vec<u8> {
    const ENTRY: usize = 0xe000;
    let mut rom = vec![0xff; 0x10000];
    let copy = [
        0xfa, // cli
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xc0, 0x8e, 0xd0, // mov es, ax; mov ss, ax
        0xbc, 0x00, 0x7c, // mov sp, 0x7c00
        0x0e, 0x1f, // push cs; pop ds
        0xbe, 0x40, 0xe0, // mov si, 0xe040
        0xbf, 0x00, 0x7c, // mov di, 0x7c00
        0xb9, 0x00, 0x02, // mov cx, 0x200
        0xfc, 0xf3, 0xa4, // cld; rep movsb
        0x8e, 0xd8, // mov ds, ax
        0x31, 0xff, 0x31, 0xf6, // xor di, di; xor si, si
        0xea, 0x00, 0x7c, 0x00, 0x00, // jmp 0:0x7c00
    ];
    rom[ENTRY..ENTRY + copy.len()].copy_from_slice(&copy);
    assert!(code.len() <= 0x200);
    rom[ENTRY + 0x40..ENTRY + 0x40 + code.len()].copy_from_slice(code);
    rom[0xfff0..0xfff5].copy_from_slice(&[0xea, 0x00, 0xe0, 0x00, 0xf0]); // jmp f000:e000
    rom
}
