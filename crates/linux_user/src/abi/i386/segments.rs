//! Descriptors: thread-local storage lies in a segment of its own, which the program describes to
//! the kernel and then loads into GS.

use isa::x86::{Segment, State, Table};

use super::I386;
use crate::call::narrow::words;
use crate::host::Answer;
use crate::memory;
use crate::thread::Thread;

/// Entries of the global table.
const ENTRIES: usize = 16;
/// The program's code and data.
const USER_CODE: usize = 4;
const USER_DATA: usize = 5;
/// Where a program's own entries begin, and how many it has.
const FIRST_TLS: usize = 6;
const TLS_ENTRIES: usize = 3;

/// Selectors of the flat segments.
pub const CODE_SELECTOR: u64 = (USER_CODE as u64) << 3 | 3;
/// See `CODE_SELECTOR`.
pub const DATA_SELECTOR: u64 = (USER_DATA as u64) << 3 | 3;

/// Entries of a local table that has been made.
const LOCAL_ENTRIES: usize = 8192;

/// The tables of a thread. Loads of segment registers read them in place.
#[derive(Clone)]
pub struct Descriptors {
    global: Box<[u64; ENTRIES]>,
    /// Empty until the program makes an entry.
    local: Vec<u64>,
}

impl Default for Descriptors {
    fn default() -> Self {
        let mut global = Box::new([0; ENTRIES]);
        global[USER_CODE] = 0x00cf_fb00_0000_ffff;
        global[USER_DATA] = 0x00cf_f300_0000_ffff;
        Self { global, local: Vec::new() }
    }
}

/// A flag of a description that only programs understand.
const USEABLE: u64 = 1 << 6;

/// `struct user_desc`: entry number, base, limit, and a word of flags.
struct Description {
    entry: u64,
    base: u64,
    limit: u64,
    flags: u64,
}

impl Description {
    fn read(address: u64) -> Result<Self, i32> {
        let [entry, base, limit, flags] = words::<4>(address)?;
        Ok(Self { entry, base, limit, flags })
    }

    /// All fields zero but "not present" and "read only": takes an entry away.
    fn is_empty(&self) -> bool {
        let zero = self.base == 0 && self.limit == 0;
        zero && (self.flags & 0x7f == 0x28 || self.flags & 0x7f == 0)
    }

    fn descriptor(&self) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let flag = |bit: u32| self.flags >> bit & 1;
        let contents = self.flags >> 1 & 3;
        // accessed, writable unless read-only, kind, S, level 3, present
        let kind = 1 | (1 - flag(3)) << 1 | contents << 2 | 1 << 4 | 3 << 5 | (1 - flag(5)) << 7;
        let high = flag(6) << 4 | flag(0) << 6 | flag(4) << 7;
        self.limit & 0xffff
            | (self.base & 0xff_ffff) << 16
            | kind << 40
            | (self.limit >> 16 & 0xf) << 48
            | high << 48
            | (self.base >> 24 & 0xff) << 56
    }
}

/// What a segment register takes from a descriptor.
fn segment(descriptor: u64, selector: u64) -> Segment {
    let attributes = (descriptor >> 40) as u32 & 0xf0ff;
    let limit = (descriptor & 0xffff | descriptor >> 32 & 0xf_0000) as u32;
    let paged = descriptor >> 55 & 1 != 0;
    Segment {
        base: descriptor >> 16 & 0xff_ffff | descriptor >> 56 << 24,
        limit: if paged { limit << 12 | 0xfff } else { limit },
        attributes,
        selector,
    }
}

impl Descriptors {
    /// The thread's processor uses these tables.
    pub fn install(&mut self, state: &mut State) {
        let bytes = 8 * self.global.len() as u64;
        state.gdtr = Table { base: self.global.as_ptr() as u64, limit: bytes - 1 };
        if !self.local.is_empty() {
            state.ldtr = Segment {
                base: self.local.as_ptr() as u64,
                limit: 8 * self.local.len() as u32 - 1,
                attributes: 0x82,
                selector: 8,
            };
        }
    }

    /// Takes a description over; an entry may be chosen. Gives its number.
    pub fn describe(&mut self, state: &mut State, address: u64, choose: bool) -> Result<u64, i32> {
        let mut wanted = Description::read(address)?;
        let places = FIRST_TLS..FIRST_TLS + TLS_ENTRIES;
        if choose && wanted.entry as u32 == u32::MAX {
            let free = places.clone().find(|&entry| self.global[entry] == 0);
            wanted.entry = free.ok_or(libc::ESRCH)? as u64;
            memory::write_word(address, wanted.entry, 4)?;
        }
        let entry = wanted.entry as usize;
        if !places.contains(&entry) {
            return Err(libc::EINVAL);
        }
        self.global[entry] = wanted.descriptor();
        self.reload(state, (entry as u64) << 3 | 3);
        Ok(entry as u64)
    }

    /// Registers that hold the selector follow a changed descriptor, as after the kernel's return.
    fn reload(&self, state: &mut State, selector: u64) {
        for number in [isa::x86::FS, isa::x86::GS] {
            if state.segments[number].selector == selector {
                self.load(state, number, selector);
            }
        }
    }

    /// Loads a segment register; a selector that names nothing leaves an empty segment.
    pub fn load(&self, state: &mut State, number: usize, selector: u64) {
        let table = if selector & 4 == 0 { &self.global[..] } else { &self.local[..] };
        let found = table.get(selector as usize >> 3).copied().filter(|&found| found != 0);
        state.segments[number] = match found {
            Some(descriptor) => segment(descriptor, selector),
            None => Segment { base: 0, limit: 0, attributes: 0, selector: 0 },
        };
    }
}

pub fn set_thread_area(thread: &mut Thread<I386>, a: [u64; 6]) -> Answer {
    thread.local.describe(thread.vcpu.state_mut(), a[0], true)?;
    Ok(0)
}

pub fn get_thread_area(thread: &mut Thread<I386>, a: [u64; 6]) -> Answer {
    let entry = memory::read_word(a[0], 4)? as usize;
    if !(FIRST_TLS..FIRST_TLS + TLS_ENTRIES).contains(&entry) {
        return Err(libc::EINVAL);
    }
    let descriptor = thread.local.global[entry];
    let kind = descriptor >> 40;
    let high = descriptor >> 52;
    let flags = if descriptor == 0 {
        0x28
    } else {
        high >> 2 & 1
            | (kind >> 2 & 3) << 1
            | (1 - (kind >> 1 & 1)) << 3
            | (high >> 3 & 1) << 4
            | (1 - (kind >> 7 & 1)) << 5
            | (high & 1) << 6
    };
    let base = descriptor >> 16 & 0xff_ffff | descriptor >> 56 << 24;
    let limit = descriptor & 0xffff | descriptor >> 32 & 0xf_0000;
    for (place, word) in (1..).zip([base, limit, flags]) {
        memory::write_word(a[0] + 4 * place, word, 4)?;
    }
    Ok(0)
}

/// `modify_ldt`: reads (0) or writes (1 and 0x11) a thread's local table.
pub fn modify_ldt(thread: &mut Thread<I386>, a: [u64; 6]) -> Answer {
    let [function, address, bytes, ..] = a;
    match function {
        0 => {
            let table: Vec<u8> =
                thread.local.local.iter().flat_map(|entry| entry.to_le_bytes()).collect();
            let length = table.len().min(bytes as usize);
            memory::write(address, &table[..length])?;
            Ok(length as u64)
        }
        1 | 0x11 if bytes == 16 => {
            let mut wanted = Description::read(address)?;
            if function == 1 {
                wanted.flags &= !USEABLE; // the old function does not know it
            }
            if wanted.entry >= LOCAL_ENTRIES as u64 {
                return Err(libc::EINVAL);
            }
            if thread.local.local.is_empty() {
                thread.local.local = vec![0; LOCAL_ENTRIES];
            }
            thread.local.local[wanted.entry as usize] = wanted.descriptor();
            let state = thread.vcpu.state_mut();
            thread.local.install(state);
            thread.local.reload(state, wanted.entry << 3 | 7);
            Ok(0)
        }
        1 | 0x11 => Err(libc::EINVAL),
        _ => Err(libc::ENOSYS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_description_becomes_a_segment() {
        // What the C library asks for: 32 bits, limit in pages, usable.
        let tls = Description { entry: 6, base: 0xf7d8_1234, limit: 0xf_ffff, flags: 0x51 };
        let segment = segment(tls.descriptor(), 0x33);
        assert_eq!((segment.base, segment.limit), (0xf7d8_1234, u32::MAX));
        assert_eq!(segment.attributes & 0xff, 0xf3);
        let empty = Description { entry: 6, base: 0, limit: 0, flags: 0x28 };
        assert_eq!(empty.descriptor(), 0);
    }
}
