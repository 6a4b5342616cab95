//! What the tests share that hold instructions against the reference, one by one: numbers, and the
//! program that is made of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A generator of numbers, always the same ones.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A part of memory: what may be done with it (the ELF format's bits), where it lies, what it holds
/// at first, and its bytes.
pub struct Segment<'a> {
    pub flags: u64,
    pub address: u64,
    pub contents: &'a [u8],
    pub bytes: usize,
}

/// A static program for a machine of the ELF format, that begins where its first part does.
pub fn write_program(file: &Path, machine: u64, flags: u64, segments: &[Segment<'_>]) {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    let mut put = |value: u64, bytes: usize| elf.extend(&value.to_le_bytes()[..bytes]);
    let entry = segments[0].address;
    for (value, bytes) in [(2, 2), (machine, 2), (1, 4), (entry, 8), (64, 8), (0, 8), (flags, 4)] {
        put(value, bytes);
    }
    for value in [64, 56, segments.len() as u64, 0, 0, 0] {
        put(value, 2);
    }
    let mut at = 0x1000;
    for segment in segments {
        put(1, 4);
        put(segment.flags, 4);
        let offset = if segment.contents.is_empty() { 0 } else { at };
        let in_file = segment.contents.len();
        let places = [segment.address, segment.address, in_file as u64, segment.bytes as u64];
        put(offset as u64, 8);
        places.into_iter().for_each(|value| put(value, 8));
        put(0x1000, 8);
        at = (at + in_file).next_multiple_of(0x1000);
    }
    for segment in segments.iter().filter(|segment| !segment.contents.is_empty()) {
        elf.resize(elf.len().next_multiple_of(0x1000), 0);
        elf.extend(segment.contents);
    }
    fs::write(file, elf).expect("the program can be written");
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("it is our file");
}
