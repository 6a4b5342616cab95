//! Random sequences for a whole machine: what only a system's processor does stands between common
//! instructions, and where it cannot be compared its outcome is written down for the host.

use crate::Random;
use crate::sequences::Writer;

/// What the time-stamp counter reads.
pub const CLOCK: u64 = 0x1234_5678_9abc_def0;
/// From the data to pages that have the same places in the soft TLB.
pub const TWIN: u64 = 4 << 20;

/// A part of a sequence.
enum Piece {
    Both(Vec<u8>),
    /// For the translator, and what has the same outcome on the host.
    Either {
        translated: Vec<u8>,
        native: Vec<u8>,
    },
    /// Changes the constant that piece `target` loads.
    Patch {
        target: usize,
        value: u32,
    },
}

/// A sequence in both forms.
pub struct Sequence {
    pub translated: Vec<u8>,
    pub native: Vec<u8>,
    pub undefined_flags: u64,
}

/// `count` instructions, with other things between them.
pub fn sequence(random: &mut Random, count: u64) -> Sequence {
    let mut pieces = Vec::new();
    let mut writer = Writer::new(random);
    for _ in 0..count {
        if writer.below(3) == 0 {
            writer.vector();
        } else {
            writer.instruction();
        }
        pieces.push(Piece::Both(writer.take()));
        if writer.below(2) == 0 {
            between(&mut writer, &mut pieces);
        }
    }
    let undefined_flags = writer.undefined();
    Sequence {
        translated: assemble(&pieces, true),
        native: assemble(&pieces, false),
        undefined_flags,
    }
}

fn between(writer: &mut Writer, pieces: &mut Vec<Piece>) {
    let displacement = writer.below(96) as u8;
    let count = 1 + writer.below(24) as u8;
    let either = |translated: &[u8], native: Vec<u8>| Piece::Either {
        translated: translated.to_vec(),
        native,
    };
    let counted = |code: &[u8]| Piece::Both([&[0xb9, count, 0, 0, 0], code].concat());
    let back = count.wrapping_neg();
    pieces.push(match writer.below(13) {
        0 | 1 => either(&[0x0f, 0x31], constants(&[0, 2])), // rdtsc
        2 => {
            let mut native = constants(&[0, 2]);
            native.extend([0xb9, 0, 0, 0, 0]);
            either(&[0x0f, 0x01, 0xf9], native) // rdtscp
        }
        3 => {
            let after = constants(&[0, 1, 2, 3]);
            either(&[&[0x0f, 0xa2], &after[..]].concat(), after) // cpuid
        }
        // invlpg [rsi + displacement]
        4 => either(&[0x0f, 0x01, 0x7e, displacement], Vec::new()),
        // clflush [rsi + TWIN]: its load takes the place in the TLB
        5 | 6 => either(&[&[0x0f, 0xae, 0xbe][..], &(TWIN as u32).to_le_bytes()].concat(), vec![]),
        // rep movsb; lea rsi, [rsi - count]; lea rdi, [rdi - count]
        7 => counted(&[0xf3, 0xa4, 0x48, 0x8d, 0x76, back, 0x48, 0x8d, 0x7f, back]),
        8 => counted(&[0xf3, 0xaa, 0x48, 0x8d, 0x7f, back]), // rep stosb
        9 => {
            // repe cmpsb; lea rsi, [rsi + rcx - count]; lea rdi, [rdi + rcx - count]
            writer.flags_are_defined();
            let code = [0xf3, 0xa6, 0x48, 0x8d, 0x74, 0x0e, back, 0x48, 0x8d, 0x7c, 0x0f, back];
            counted(&code)
        }
        // fild qword [rsi + displacement]; fchs; fistp qword [rsi + displacement]
        10 => Piece::Both(vec![0xdf, 0x6e, displacement, 0xd9, 0xe0, 0xdf, 0x7e, displacement]),
        _ => return patch(writer, pieces),
    });
}

/// The halves of the clock, into some of EAX, ECX, EDX and EBX.
fn constants(registers: &[u8]) -> Vec<u8> {
    let half = |register| if register == 0 { CLOCK as u32 } else { (CLOCK >> 32) as u32 };
    let load = |&register: &u8| [&[0xb8 | register][..], &half(register).to_le_bytes()].concat();
    registers.iter().flat_map(load).collect()
}

/// A store that changes an instruction a little further on.
fn patch(writer: &mut Writer, pieces: &mut Vec<Piece>) {
    let further = 1 + writer.below(3) as usize;
    let value = writer.below(1 << 32) as u32;
    pieces.push(Piece::Patch { target: pieces.len() + further, value });
    for _ in 1..further {
        writer.instruction();
        pieces.push(Piece::Both(writer.take()));
    }
    let register = [0, 1, 2, 3, 5][writer.below(5) as usize];
    pieces.push(Piece::Both(vec![0xb8 | register, 0x55, 0x55, 0x55, 0x55])); // mov register, constant
}

fn assemble(pieces: &[Piece], translated: bool) -> Vec<u8> {
    const PATCH_BYTES: usize = 10;
    let bytes = |piece: &Piece| match piece {
        Piece::Both(bytes) => bytes.len(),
        Piece::Either { translated: bytes, .. } if translated => bytes.len(),
        Piece::Either { native, .. } => native.len(),
        Piece::Patch { .. } => PATCH_BYTES,
    };
    let mut starts = vec![0];
    for piece in pieces {
        starts.push(starts.last().expect("it has a first") + bytes(piece));
    }
    let mut code = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Both(bytes) => code.extend(bytes),
            Piece::Either { translated: bytes, .. } if translated => code.extend(bytes),
            Piece::Either { native, .. } => code.extend(native),
            Piece::Patch { target, value } => {
                // mov dword [rip + distance], value
                let distance = (starts[*target] + 1 - starts[index + 1]) as u32;
                code.extend([0xc7, 0x05]);
                code.extend(distance.to_le_bytes());
                code.extend(value.to_le_bytes());
            }
        }
    }
    code
}
