//! The first stack: arguments, environment, auxiliary vector.

use crate::elf::Image;
use crate::guest::Machine;
use crate::host::Errno;
use crate::memory;
use crate::vdso::Vdso;

/// What goes on the stack.
pub struct Contents<'a> {
    /// argv.
    pub arguments: &'a [Vec<u8>],
    /// `NAME=value`.
    pub environment: &'a [Vec<u8>],
    /// The program.
    pub image: &'a Image,
    /// Where its interpreter was loaded, or 0.
    pub interpreter: u64,
    /// The path it was started by.
    pub path: &'a [u8],
    /// The code that the kernel gives to every program.
    pub vdso: &'a Vdso,
    /// Makes the random bytes the same each time.
    pub seed: Option<u64>,
}

const AT_NULL: u64 = 0;
const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_FLAGS: u64 = 8;
const AT_ENTRY: u64 = 9;
const AT_UID: u64 = 11;
const AT_EUID: u64 = 12;
const AT_GID: u64 = 13;
const AT_EGID: u64 = 14;
const AT_PLATFORM: u64 = 15;
const AT_HWCAP: u64 = 16;
const AT_CLKTCK: u64 = 17;
const AT_SECURE: u64 = 23;
const AT_RANDOM: u64 = 25;
const AT_EXECFN: u64 = 31;
const AT_SYSINFO: u64 = 32;
const AT_SYSINFO_EHDR: u64 = 33;
const AT_MINSIGSTKSZ: u64 = 51;

/// Collects downwards what is then written at once.
struct Pen {
    at: u64,
    pieces: Vec<(u64, Vec<u8>)>,
}

impl Pen {
    fn bytes(&mut self, bytes: Vec<u8>) -> u64 {
        self.at -= bytes.len() as u64;
        self.pieces.push((self.at, bytes));
        self.at
    }

    fn string(&mut self, string: &[u8]) -> u64 {
        self.bytes([string, b"\0"].concat())
    }

    fn write(self, top: u64) -> Result<(), Errno> {
        let mut whole = vec![0; (top - self.at) as usize];
        for (at, bytes) in self.pieces {
            whole[(at - self.at) as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        memory::write(self.at, &whole)
    }
}

/// A stack that was built.
pub struct Stack {
    /// The stack pointer.
    pub pointer: u64,
    /// The auxiliary vector, as `/proc/self/auxv` shows it.
    pub auxiliary: Vec<u8>,
}

/// Builds the stack below `top`.
pub fn build(top: u64, machine: &Machine, contents: &Contents<'_>) -> Result<Stack, Errno> {
    let mut pen = Pen { at: top - 16, pieces: Vec::new() };
    let path = pen.string(contents.path);
    let platform = pen.string(machine.platform.as_bytes());
    let random = pen.bytes(random_bytes(contents.seed).to_vec());
    let mut strings = |list: &[Vec<u8>]| -> Vec<u64> {
        list.iter().rev().map(|string| pen.string(string)).collect()
    };
    let mut environment = strings(contents.environment);
    let mut arguments = strings(contents.arguments);
    environment.reverse();
    arguments.reverse();
    let image = contents.image;
    let id = |number| crate::host::plain(number, [0; 6]).unwrap_or(0);
    let mut auxiliary = vec![
        (AT_PHDR, image.headers),
        (AT_PHENT, image.header_bytes),
        (AT_PHNUM, image.header_count),
        (AT_PAGESZ, 4096),
        (AT_BASE, contents.interpreter),
        (AT_FLAGS, 0),
        (AT_ENTRY, image.entry),
        (AT_UID, id(libc::SYS_getuid)),
        (AT_EUID, id(libc::SYS_geteuid)),
        (AT_GID, id(libc::SYS_getgid)),
        (AT_EGID, id(libc::SYS_getegid)),
        (AT_HWCAP, machine.hwcap),
        (AT_CLKTCK, 100),
        (AT_SECURE, 0),
        (AT_RANDOM, random),
        (AT_PLATFORM, platform),
        (AT_EXECFN, path),
        (AT_MINSIGSTKSZ, machine.signal_stack_min),
        (AT_SYSINFO_EHDR, contents.vdso.address),
    ];
    if let Some(entry) = contents.vdso.system_call {
        auxiliary.push((AT_SYSINFO, entry));
    }
    auxiliary.push((AT_NULL, 0));
    let mut words = vec![arguments.len() as u64];
    words.extend(&arguments);
    words.push(0);
    words.extend(&environment);
    words.push(0);
    let bytes_of = |words: &[u64]| -> Vec<u8> {
        let bytes = machine.pointer_bytes;
        words.iter().flat_map(|word| word.to_le_bytes().into_iter().take(bytes)).collect()
    };
    let auxiliary: Vec<u64> = auxiliary.iter().flat_map(|&(kind, value)| [kind, value]).collect();
    let auxiliary = bytes_of(&auxiliary);
    let mut table = bytes_of(&words);
    table.extend(&auxiliary);
    pen.at = (pen.at - table.len() as u64) & !15;
    pen.pieces.push((pen.at, table));
    let start = pen.at;
    pen.write(top)?;
    Ok(Stack { pointer: start, auxiliary })
}

pub fn random_bytes(seed: Option<u64>) -> [u8; 16] {
    let mut bytes = [0; 16];
    if let Some(seed) = seed {
        // The increment of the golden ratio spreads small seeds over all bits.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        bytes[..8].copy_from_slice(&seed.wrapping_add(1).wrapping_mul(GOLDEN).to_le_bytes());
        bytes[8..].copy_from_slice(&seed.wrapping_add(2).wrapping_mul(GOLDEN).to_le_bytes());
        return bytes;
    }
    let arguments = [bytes.as_mut_ptr() as u64, 16, 0, 0, 0, 0];
    // Without randomness the program runs all the same; zeroes are what an old kernel gave.
    let _ = crate::host::plain(libc::SYS_getrandom, arguments);
    bytes
}
