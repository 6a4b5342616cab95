//! The vDSO: a small shared library that every program finds in its memory, made here from the
//! architecture's list of functions. Each makes its system call, which costs no call of the host's
//! kernel where that has a vDSO too (`call::clock`), and the code that ends a signal handler is
//! where debuggers look for it.

use crate::guest::Machine;

/// Where the vDSO was mapped.
#[derive(Clone, Copy, Debug)]
pub struct Vdso {
    /// Its first byte.
    pub address: u64,
    /// The code that calls `rt_sigreturn`.
    pub trampoline: u64,
    /// The code that makes a system call.
    pub system_call: Option<u64>,
}

/// The file, for any address.
pub struct Image {
    /// Its contents.
    pub bytes: Vec<u8>,
    trampoline: u64,
    system_call: Option<u64>,
}

impl Image {
    /// Mapped there.
    pub fn at(&self, address: u64) -> Vdso {
        Vdso {
            address,
            trampoline: address + self.trampoline,
            system_call: self.system_call.map(|offset| address + offset),
        }
    }
}

const NAME: &str = "linux-vdso.so.1";
/// Functions begin at multiples of this.
const ALIGNMENT: usize = 16;

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_STRSZ: u64 = 10;
const DT_SYMENT: u64 = 11;
const DT_SONAME: u64 = 14;
const DT_VERSYM: u64 = 0x6fff_fff0;
const DT_VERDEF: u64 = 0x6fff_fffc;
const DT_VERDEFNUM: u64 = 0x6fff_fffd;

/// Global function, read and execute.
const STT_FUNC_GLOBAL: u64 = 0x12;
const READ_EXECUTE: u64 = 5;
/// A section number that is not "undefined"; there is no table of sections.
const SOME_SECTION: u64 = 1;

/// ELF's hash of a name.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0u32, |hash, byte| {
        let hash = (hash << 4).wrapping_add(byte.into());
        let high = hash & 0xf000_0000;
        (hash ^ high >> 24) & !high
    }) as u64
}

/// Bytes in the making. A word is as long as the machine's pointers.
struct Writer {
    bytes: Vec<u8>,
    word: usize,
}

impl Writer {
    fn put(&mut self, value: u64, bytes: usize) -> &mut Self {
        self.bytes.extend(&value.to_le_bytes()[..bytes]);
        self
    }

    fn words(&mut self, values: &[u64]) {
        for &value in values {
            self.put(value, self.word);
        }
    }

    fn align(&mut self, to: usize) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
        self.bytes.len() as u64
    }

    fn header(&mut self, machine: &Machine) {
        let wide = self.word == 8;
        let (header, row) = if wide { (64, 56) } else { (52, 32) };
        self.bytes.extend(b"\x7fELF");
        self.bytes.extend([if wide { 2 } else { 1 }, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.put(3, 2).put(machine.elf_machine.into(), 2).put(1, 4); // a shared library
        self.words(&[0, header, 0]); // no entry, program headers, no sections
        self.put(0, 4).put(header, 2).put(row, 2).put(2, 2).put(0, 2).put(0, 2).put(0, 2);
    }

    fn program_header(&mut self, kind: u64, offset: u64, bytes: u64) {
        let wide = self.word == 8;
        self.put(kind, 4);
        if wide {
            self.put(READ_EXECUTE, 4);
        }
        self.words(&[offset, offset, offset, bytes, bytes]);
        if !wide {
            self.put(READ_EXECUTE, 4);
        }
        self.words(&[ALIGNMENT as u64]);
    }

    fn symbol(&mut self, name: u64, value: u64, size: u64, kind: u64) {
        let section = if kind == 0 { 0 } else { SOME_SECTION };
        self.put(name, 4);
        if self.word == 8 {
            self.put(kind, 1).put(0, 1).put(section, 2).words(&[value, size]);
        } else {
            self.words(&[value, size]);
            self.put(kind, 1).put(0, 1).put(section, 2);
        }
    }

    /// One bucket with the last symbol; each is chained to the one before.
    fn hash_table(&mut self, count: u64) {
        let chain = (0..count).map(|index| index.saturating_sub(1));
        for word in [1, count, count - 1].into_iter().chain(chain) {
            self.put(word, 4);
        }
    }

    /// The version of the library itself, and that of its functions.
    fn version_definitions(&mut self, [library, functions]: [(u64, &str); 2]) {
        const BYTES: u64 = 28;
        for (number, flags, (name, text), next) in [(1, 1, library, BYTES), (2, 0, functions, 0)] {
            self.put(1, 2).put(flags, 2).put(number, 2).put(1, 2).put(hash(text), 4);
            self.put(BYTES - 8, 4).put(next, 4); // where its name is, and where the next one
            self.put(name, 4).put(0, 4);
        }
    }
}

/// Makes the file.
pub fn image(machine: &Machine) -> Image {
    let functions = machine.vdso;
    let mut w = Writer { bytes: Vec::new(), word: machine.pointer_bytes };
    // Strings: nothing, the library's name, the version's, the functions'.
    let mut strings = vec![0];
    let mut string = |text: &str| {
        let at = strings.len() as u64;
        strings.extend(text.bytes());
        strings.push(0);
        at
    };
    let (library, version) = (string(NAME), string(machine.vdso_version));
    let names: Vec<u64> = functions.iter().map(|(name, _)| string(name)).collect();

    w.header(machine);
    let headers = w.bytes.len();
    w.program_header(PT_LOAD, 0, 0);
    w.program_header(PT_DYNAMIC, 0, 0); // both are written again when all sizes are known
    w.align(ALIGNMENT);
    let mut places = Vec::new();
    let trampoline = w.align(ALIGNMENT);
    w.bytes.extend(machine.sigreturn_code);
    for (_, code) in functions {
        places.push(w.align(ALIGNMENT));
        w.bytes.extend(*code);
    }
    let symbols = w.align(8);
    w.symbol(0, 0, 0, 0);
    for ((name, place), (_, code)) in names.iter().zip(&places).zip(functions) {
        w.symbol(*name, *place, code.len() as u64, STT_FUNC_GLOBAL);
    }
    let count = functions.len() as u64 + 1;
    let symbol_bytes = (w.bytes.len() as u64 - symbols) / count;
    let hashes = w.align(8);
    w.hash_table(count);
    let versions = w.align(8);
    w.put(0, 2);
    functions.iter().for_each(|_| _ = w.put(2, 2));
    let definitions = w.align(8);
    w.version_definitions([(library, NAME), (version, machine.vdso_version)]);
    let strings_at = w.align(8);
    w.bytes.extend(&strings);
    let dynamic = w.align(8);
    let rows = [
        (DT_SONAME, library),
        (DT_HASH, hashes),
        (DT_STRTAB, strings_at),
        (DT_SYMTAB, symbols),
        (DT_STRSZ, strings.len() as u64),
        (DT_SYMENT, symbol_bytes),
        (DT_VERSYM, versions),
        (DT_VERDEF, definitions),
        (DT_VERDEFNUM, 2),
        (0, 0),
    ];
    rows.iter().for_each(|&(kind, value)| w.words(&[kind, value]));
    let end = w.bytes.len() as u64;
    let mut table = Writer { bytes: Vec::new(), word: w.word };
    table.program_header(PT_LOAD, 0, end);
    table.program_header(PT_DYNAMIC, dynamic, end - dynamic);
    w.bytes[headers..headers + table.bytes.len()].copy_from_slice(&table.bytes);
    let system_call = machine.system_call_function.and_then(|wanted| {
        let index = functions.iter().position(|(name, _)| *name == wanted)?;
        Some(places[index])
    });
    Image { bytes: w.bytes, trampoline, system_call }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_elfs() {
        assert_eq!(hash("LINUX_2.6"), 0x3ae_75f6);
        assert_eq!(hash("LINUX_2.6.39"), 0x75f_cb89);
    }
}
