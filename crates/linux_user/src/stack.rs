//! The first stack: arguments, environment, auxiliary vector.

use crate::elf::Image;
use crate::guest::Machine;
use crate::host::Errno;
use crate::memory;

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
const AT_MINSIGSTKSZ: u64 = 51;

/// Writes downwards.
struct Pen {
    at: u64,
}

impl Pen {
    fn bytes(&mut self, bytes: &[u8]) -> Result<u64, Errno> {
        self.at -= bytes.len() as u64;
        memory::write(self.at, bytes)?;
        Ok(self.at)
    }

    fn string(&mut self, string: &[u8]) -> Result<u64, Errno> {
        let mut bytes = string.to_vec();
        bytes.push(0);
        self.bytes(&bytes)
    }
}

/// Builds the stack below `top`; gives the stack pointer.
pub fn build(top: u64, machine: &Machine, contents: &Contents<'_>) -> Result<u64, Errno> {
    let mut pen = Pen { at: top - 16 };
    let path = pen.string(contents.path)?;
    let platform = pen.string(machine.platform.as_bytes())?;
    let random = pen.bytes(&random_bytes())?;
    let mut strings = |list: &[Vec<u8>]| -> Result<Vec<u64>, Errno> {
        list.iter().rev().map(|string| pen.string(string)).collect()
    };
    let mut environment = strings(contents.environment)?;
    let mut arguments = strings(contents.arguments)?;
    environment.reverse();
    arguments.reverse();
    let image = contents.image;
    let id = |number| crate::host::plain(number, [0; 6]).unwrap_or(0);
    let auxiliary = [
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
        (AT_NULL, 0),
    ];
    let mut words = vec![arguments.len() as u64];
    words.extend(&arguments);
    words.push(0);
    words.extend(&environment);
    words.push(0);
    words.extend(auxiliary.iter().flat_map(|&(kind, value)| [kind, value]));
    let table: Vec<u8> = words
        .iter()
        .flat_map(|word| word.to_le_bytes()[..machine.pointer_bytes].to_vec())
        .collect();
    let start = (pen.at - table.len() as u64) & !15;
    memory::write(start, &table)?;
    Ok(start)
}

pub fn random_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    let arguments = [bytes.as_mut_ptr() as u64, 16, 0, 0, 0, 0];
    // Without randomness the program runs all the same; zeroes are what an old kernel gave.
    let _ = crate::host::plain(libc::SYS_getrandom, arguments);
    bytes
}
