//! The guest's address space: which pages it mapped, with what rights, and where code was
//! translated from. Guest addresses are host addresses.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jit::UserSpace;
use linux::locks::Mutex;

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

struct Books {
    /// Addresses are below this: the host's end, or that of a guest with shorter ones.
    end: u64,
    areas: BTreeMap<u64, Area>,
    /// Pages whose write permission we took because code was translated from them.
    guarded: HashSet<u64>,
    break_start: u64,
    break_now: u64,
    break_mapped: u64,
}

/// The address space, shared by all threads.
#[derive(Clone)]
pub struct AddressSpace(Arc<Mutex<Books>>);

/// The end of a program's addresses on the host.
const HOST_END: u64 = 1 << 47;

/// The lowest address that is given to who does not ask for one.
const LOWEST: u64 = 1 << 20;

/// Room that stays free between mappings and the end, as the kernel leaves it for the stack.
const TOP_GAP: u64 = 128 << 20;

/// The host never executes guest memory.
fn host_rights(rights: u32) -> i32 {
    let readable = if rights & EXECUTE != 0 { READ } else { 0 };
    (rights & (READ | WRITE) | readable) as i32
}

impl Books {
    fn new(end: u64) -> Self {
        Self {
            end,
            areas: BTreeMap::new(),
            guarded: HashSet::new(),
            break_start: 0,
            break_now: 0,
            break_mapped: 0,
        }
    }

    /// The guest's addresses are shorter than the host's.
    fn is_short(&self) -> bool {
        self.end < HOST_END
    }

    /// The highest free range of so many bytes below `below`.
    fn gap(&self, bytes: u64, below: u64) -> Option<u64> {
        let mut end = below;
        for (&start, area) in self.areas.range(..below).rev() {
            if area.end <= end && end - area.end >= bytes {
                return Some(end - bytes);
            }
            end = end.min(start);
        }
        (end >= LOWEST + bytes).then(|| end - bytes)
    }

    fn is_free(&self, start: u64, end: u64) -> bool {
        self.areas.range(..end).next_back().is_none_or(|(_, area)| area.end <= start)
    }

    /// Maps where the guest can address it. What the host has there already is stepped over.
    fn map(&self, hint: u64, bytes: u64, rights: i32, flags: i32, fd: i32, at: u64) -> Answer {
        let fixed = flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) != 0;
        if !self.is_short() {
            return host::map(hint, bytes, rights, flags, fd, at);
        }
        if fixed {
            let fits = hint.checked_add(bytes).is_some_and(|end| end <= self.end);
            let place = || host::map(hint, bytes, rights, flags, fd, at);
            return if fits { place() } else { Err(libc::ENOMEM) };
        }
        let place = |start| {
            let flags = flags & !libc::MAP_32BIT | libc::MAP_FIXED_NOREPLACE;
            host::map(start, bytes, rights, flags, fd, at)
        };
        let hint = hint & !(PAGE - 1);
        let wanted = hint.checked_add(bytes).filter(|&end| hint >= LOWEST && end <= self.end);
        if let Some(end) = wanted.filter(|&end| self.is_free(hint, end)) {
            match place(hint) {
                Err(libc::EEXIST) => {}
                answer => return answer,
            }
            debug_assert!(end > hint, "the range is not empty");
        }
        let mut below = self.end - TOP_GAP;
        loop {
            let start = self.gap(bytes, below).ok_or(libc::ENOMEM)?;
            match place(start) {
                Err(libc::EEXIST) => below = start,
                answer => return answer,
            }
        }
    }

    /// `mremap` to where the guest can address it: in place, or to a gap.
    fn remap(&self, [old, old_bytes, bytes]: [u64; 3], flags: u64, new: u64) -> Answer {
        const MAY_MOVE: u64 = libc::MREMAP_MAYMOVE as u64;
        const FIXED: u64 = libc::MREMAP_FIXED as u64;
        let call =
            |flags, new| host::plain(libc::SYS_mremap, [old, old_bytes, bytes, flags, new, 0]);
        if !self.is_short() {
            return call(flags, new);
        }
        let fits = |start: u64| start.checked_add(bytes).is_some_and(|end| end <= self.end);
        if flags & FIXED != 0 {
            return if fits(new) { call(flags, new) } else { Err(libc::ENOMEM) };
        }
        let in_place = if fits(old) { call(flags & !MAY_MOVE, 0) } else { Err(libc::ENOMEM) };
        match in_place {
            Err(libc::ENOMEM) if flags & MAY_MOVE != 0 => {
                let length = bytes.checked_next_multiple_of(PAGE).ok_or(libc::ENOMEM)?;
                // A reservation shows that nothing of the host's is there; the mapping replaces it.
                let none = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
                let start = self.map(0, length, libc::PROT_NONE, none, -1, 0)?;
                call(flags | FIXED, start)
            }
            answer => answer,
        }
    }

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
    /// Nobody else reads or changes it meanwhile.
    pub fn hold(&self) -> impl Sized + '_ {
        self.0.lock()
    }

    /// An empty space whose addresses are below `end`.
    pub fn new(end: u64) -> Self {
        Self(Arc::new(Mutex::new(Books::new(end))))
    }

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
        let start = books.map(address, bytes, host_rights(rights), flags as i32, fd, at)?;
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
        // What reaches beyond the end is not mapped.
        let beyond = |error| if old.is_multiple_of(PAGE) { libc::EFAULT } else { error };
        let end = self.range_end(old, old_bytes.max(1)).map_err(beyond)?;
        let mut books = self.0.lock();
        let rights = books.rights(old).ok_or(libc::EFAULT)?;
        let start = books.remap([old, old_bytes, bytes], flags, new)?;
        books.remove(old, end);
        books.insert(start, start + bytes.next_multiple_of(PAGE), rights);
        Ok(start)
    }

    /// `shmat`: attaches so many bytes where the guest can address them.
    pub fn attach(&self, id: u64, address: u64, bytes: u64, flags: u64) -> Answer {
        let mut books = self.0.lock();
        let length = bytes.checked_next_multiple_of(PAGE).ok_or(libc::EINVAL)?;
        let place = if address == 0 && books.is_short() {
            books.gap(length.max(PAGE), books.end - TOP_GAP).ok_or(libc::ENOMEM)?
        } else {
            address
        };
        let start = host::plain(libc::SYS_shmat, [id, place, flags, 0, 0, 0])?;
        let rights = if flags & libc::SHM_RDONLY as u64 != 0 { READ } else { READ | WRITE };
        books.insert(start, start + length, rights);
        Ok(start)
    }

    /// `shmdt`; gives the end of what was there.
    pub fn detach(&self, address: u64) -> Answer {
        let mut books = self.0.lock();
        host::plain(libc::SYS_shmdt, [address, 0, 0, 0, 0, 0])?;
        let end = books.areas.get(&address).map_or(address, |area| area.end);
        books.remove(address, end);
        Ok(end)
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
            match books.map(mapped, end - mapped, rights, flags, -1, 0) {
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

    /// The lines of `/proc/self/maps`: the host's, as far as they are the guest's, with its rights.
    pub fn listing(&self, places: &Places) -> String {
        use std::fmt::Write;
        let host = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let books = self.0.lock();
        let mut text = String::new();
        for line in host.lines().filter_map(HostLine::parse) {
            let before = books.areas.range(..=line.start).next_back();
            let inside = books.areas.range(line.start + 1..line.end);
            for (&first, area) in before.into_iter().chain(inside) {
                let (start, end) = (first.max(line.start), area.end.min(line.end));
                if start >= end {
                    continue;
                }
                let letter = |bit, letter| if area.rights & bit != 0 { letter } else { '-' };
                let (r, w, x) = (letter(READ, 'r'), letter(WRITE, 'w'), letter(EXECUTE, 'x'));
                let HostLine { shared, device, inode, .. } = line;
                let offset = if line.inode == "0" { 0 } else { line.offset + start - line.start };
                let heap = books.break_start..books.break_mapped.max(books.break_start + 1);
                let name = match () {
                    () if (start..end).contains(&places.stack) => "[stack]",
                    () if (start..end).contains(&places.vdso) => "[vdso]",
                    () if heap.contains(&start) => "[heap]",
                    () => line.name,
                };
                let head = format!(
                    "{start:08x}-{end:08x} {r}{w}{x}{shared} {offset:08x} {device} {inode}"
                );
                // Names stand in one column, behind at least a blank.
                _ = if name.is_empty() {
                    writeln!(text, "{head} ")
                } else {
                    writeln!(text, "{head:<72} {name}")
                };
            }
        }
        text
    }
}

/// Addresses with names of their own.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// In the stack.
    pub stack: u64,
    /// The vDSO.
    pub vdso: u64,
}

/// A line of `/proc/self/maps`.
#[derive(Clone, Copy)]
struct HostLine<'a> {
    start: u64,
    end: u64,
    shared: char,
    offset: u64,
    device: &'a str,
    inode: &'a str,
    name: &'a str,
}

impl<'a> HostLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let number = |text| u64::from_str_radix(text, 16).ok();
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let (start, end) = (number(start)?, number(end)?);
        let shared = words.next()?.chars().next_back()?;
        let offset = number(words.next()?)?;
        let (device, inode) = (words.next()?, words.next()?);
        let name = words.next().unwrap_or_default().trim_start();
        let name = if name.starts_with('[') { "" } else { name };
        Some(Self { start, end, shared, offset, device, inode, name })
    }
}

/// The space of random numbers of x86's processors.
const ENTROPY_SPACE: u32 = 1;

impl UserSpace for AddressSpace {
    fn machine_read(&self, space: u32, _: u64, _: u32) -> u64 {
        match space {
            ENTROPY_SPACE => crate::stack::random_bytes(None).first_chunk().copied(),
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
        let mut books = Books::new(HOST_END);
        books.insert(0x1000, 0x9000, READ);
        books.insert(0x3000, 0x4000, READ | WRITE);
        books.remove(0x6000, 0x7000);
        let rights: Vec<_> = (1..9).map(|page| books.rights(page * 0x1000)).collect();
        let (r, w) = (Some(READ), Some(READ | WRITE));
        assert_eq!(rights, [r, r, w, r, r, None, r, r]);
    }
}
