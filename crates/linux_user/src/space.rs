//! The guest's address space: which pages it mapped, with what rights, and where code was
//! translated from. Guest addresses are host addresses.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jit::UserSpace;
use parking_lot::Mutex;

use crate::host::{self, Answer};

/// A page.
pub const PAGE: u64 = 4096;

const READ: u32 = libc::PROT_READ as u32;
const WRITE: u32 = libc::PROT_WRITE as u32;
const EXECUTE: u32 = libc::PROT_EXEC as u32;

/// A mapping's end and rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Area {
    end: u64,
    rights: u32,
}

#[derive(Default)]
struct Books {
    areas: BTreeMap<u64, Area>,
    /// Pages whose write permission we took because code was translated from them.
    guarded: HashSet<u64>,
    break_start: u64,
    break_now: u64,
    break_mapped: u64,
}

/// The address space, shared by all threads.
#[derive(Clone, Default)]
pub struct AddressSpace(Arc<Mutex<Books>>);

/// The host never executes guest memory.
fn host_rights(rights: u32) -> i32 {
    let readable = if rights & EXECUTE != 0 { READ } else { 0 };
    (rights & (READ | WRITE) | readable) as i32
}

impl Books {
    /// Cuts the range out.
    fn remove(&mut self, start: u64, end: u64) {
        if let Some((&first, &area)) = self.areas.range(..start).next_back()
            && area.end > start
        {
            self.areas.insert(first, Area { end: start, ..area });
            if area.end > end {
                self.areas.insert(end, area);
            }
        }
        let inside: Vec<u64> = self.areas.range(start..end).map(|(&first, _)| first).collect();
        for first in inside {
            let area = self.areas.remove(&first).expect("it was just found");
            if area.end > end {
                self.areas.insert(end, area);
            }
        }
        if self.guarded.len() as u64 > (end - start) / PAGE {
            for page in (start..end).step_by(PAGE as usize) {
                self.guarded.remove(&page);
            }
        } else {
            self.guarded.retain(|page| !(start..end).contains(page));
        }
    }

    fn insert(&mut self, start: u64, end: u64, rights: u32) {
        self.remove(start, end);
        self.areas.insert(start, Area { end, rights });
    }

    fn rights(&self, address: u64) -> Option<u32> {
        let (_, area) = self.areas.range(..=address).next_back()?;
        (address < area.end).then_some(area.rights)
    }
}

impl AddressSpace {
    /// Maps; the answer is the address. `flags` and `fd` are Linux's own.
    pub fn map(
        &self,
        address: u64,
        bytes: u64,
        rights: u32,
        flags: u32,
        fd: i32,
        at: u64,
    ) -> Answer {
        let Some(bytes) = bytes.checked_next_multiple_of(PAGE).filter(|&bytes| bytes != 0) else {
            return Err(if bytes == 0 { libc::EINVAL } else { libc::ENOMEM });
        };
        let mut books = self.0.lock();
        let start = host::map(address, bytes, host_rights(rights), flags as i32, fd, at)?;
        books.insert(start, start + bytes, rights);
        Ok(start)
    }

    /// Unmaps.
    pub fn unmap(&self, address: u64, bytes: u64) -> Answer {
        let end = self.range_end(address, bytes)?;
        let mut books = self.0.lock();
        let answer = host::plain(libc::SYS_munmap, [address, bytes, 0, 0, 0, 0])?;
        books.remove(address, end);
        Ok(answer)
    }

    /// Changes rights. The caller forgets translations from the range.
    pub fn protect(&self, address: u64, bytes: u64, rights: u32) -> Answer {
        if bytes == 0 {
            return Ok(0);
        }
        let end = self.range_end(address, bytes)?;
        let mut books = self.0.lock();
        let arguments = [address, bytes, host_rights(rights) as u64, 0, 0, 0];
        let answer = host::plain(libc::SYS_mprotect, arguments)?;
        books.insert(address, end, rights & (READ | WRITE | EXECUTE));
        Ok(answer)
    }

    /// `mremap`.
    pub fn remap(&self, old: u64, old_bytes: u64, bytes: u64, flags: u64, new: u64) -> Answer {
        let end = self.range_end(old, old_bytes.max(1))?;
        let mut books = self.0.lock();
        let rights = books.rights(old).ok_or(libc::EFAULT)?;
        let start = host::plain(libc::SYS_mremap, [old, old_bytes, bytes, flags, new, 0])?;
        books.remove(old, end);
        books.insert(start, start + bytes.next_multiple_of(PAGE), rights);
        Ok(start)
    }

    fn range_end(&self, address: u64, bytes: u64) -> Answer {
        let end = bytes.checked_next_multiple_of(PAGE).and_then(|bytes| address.checked_add(bytes));
        match end {
            Some(end) if address.is_multiple_of(PAGE) && bytes != 0 => Ok(end),
            _ => Err(libc::EINVAL),
        }
    }

    /// Where the heap begins.
    pub fn set_break(&self, start: u64) {
        let mut books = self.0.lock();
        let start = start.next_multiple_of(PAGE);
        (books.break_start, books.break_now, books.break_mapped) = (start, start, start);
    }

    /// `brk`: gives the break that holds now.
    pub fn grow_break(&self, wanted: u64) -> u64 {
        let mut books = self.0.lock();
        if wanted < books.break_start {
            return books.break_now;
        }
        let end = wanted.next_multiple_of(PAGE);
        let mapped = books.break_mapped;
        if end > mapped {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            match host::map(mapped, end - mapped, rights, flags, -1, 0) {
                Ok(start) if start == mapped => {}
                Ok(start) => {
                    let _ = host::plain(libc::SYS_munmap, [start, end - mapped, 0, 0, 0, 0]);
                    return books.break_now;
                }
                Err(_) => return books.break_now,
            }
            books.insert(mapped, end, READ | WRITE);
            books.break_mapped = end;
        } else if end < mapped {
            let _ = host::plain(libc::SYS_munmap, [end, mapped - end, 0, 0, 0, 0]);
            books.remove(end, mapped);
            books.break_mapped = end;
        }
        books.break_now = wanted;
        wanted
    }

    /// The lines of `/proc/self/maps`.
    pub fn listing(&self, stack: u64) -> String {
        use std::fmt::Write;
        let books = self.0.lock();
        let mut text = String::new();
        for (&start, area) in &books.areas {
            let letter = |bit, letter| if area.rights & bit != 0 { letter } else { '-' };
            let (r, w, x) = (letter(READ, 'r'), letter(WRITE, 'w'), letter(EXECUTE, 'x'));
            let name = if (start..area.end).contains(&stack) {
                "[stack]"
            } else if start == books.break_start {
                "[heap]"
            } else {
                ""
            };
            _ = writeln!(text, "{start:08x}-{:08x} {r}{w}{x}p 00000000 00:00 0 {name}", area.end);
        }
        text
    }
}

/// The space of random numbers of x86's processors.
const ENTROPY_SPACE: u32 = 1;

impl UserSpace for AddressSpace {
    fn machine_read(&self, space: u32, _: u64, _: u32) -> u64 {
        match space {
            ENTROPY_SPACE => crate::stack::random_bytes().first_chunk().copied(),
            _ => None,
        }
        .map_or(u64::MAX, u64::from_le_bytes)
    }

    fn executable(&self, address: u64) -> bool {
        self.0.lock().rights(address).is_some_and(|rights| rights & EXECUTE != 0)
    }

    fn protect_code(&self, page: u64) {
        let mut books = self.0.lock();
        if books.rights(page).is_some_and(|rights| rights & WRITE != 0) {
            let arguments = [page, PAGE, libc::PROT_READ as u64, 0, 0, 0];
            if host::plain(libc::SYS_mprotect, arguments).is_ok() {
                books.guarded.insert(page);
            }
        }
    }

    fn unprotect_code(&self, address: u64) -> bool {
        let page = address & !(PAGE - 1);
        let mut books = self.0.lock();
        // Another thread may have lifted the guard since the fault: then the write just works.
        let writable = books.rights(page).is_some_and(|rights| rights & WRITE != 0);
        if books.guarded.remove(&page) {
            let rights = (libc::PROT_READ | libc::PROT_WRITE) as u64;
            return host::plain(libc::SYS_mprotect, [page, PAGE, rights, 0, 0, 0]).is_ok();
        }
        writable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_cut_and_joined_over() {
        let mut books = Books::default();
        books.insert(0x1000, 0x9000, READ);
        books.insert(0x3000, 0x4000, READ | WRITE);
        books.remove(0x6000, 0x7000);
        let rights: Vec<_> = (1..9).map(|page| books.rights(page * 0x1000)).collect();
        let (r, w) = (Some(READ), Some(READ | WRITE));
        assert_eq!(rights, [r, r, w, r, r, None, r, r]);
    }
}
