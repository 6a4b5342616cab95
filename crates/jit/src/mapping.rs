//! Memory the translator asks the kernel for.
#![expect(unsafe_code)]
// UNSAFETY: mapping memory and writing code into it are what a translator does; safe Rust has no
// words for either.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

/// Anonymous zeroed memory of one owner.
pub struct Memory {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to this value alone; what is done through its pointer is said there.
unsafe impl Send for Memory {}
// SAFETY: as for `Send`.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps so many bytes.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let start = map(bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1)?;
        Ok(Self { start, bytes })
    }

    /// Its first byte.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `new` with this size, and nobody uses it after its owner.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

fn map(bytes: usize, protection: i32, flags: i32, fd: i32) -> io::Result<NonNull<u8>> {
    // SAFETY: the kernel chooses the place, so nothing that exists is touched.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, fd, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(NonNull::new(start.cast()).expect("the kernel never maps page zero unasked"))
}

/// Memory for code, mapped twice: once to write, once to execute. No page is ever both.
pub struct CodeMemory {
    writable: NonNull<u8>,
    executable: NonNull<u8>,
    bytes: usize,
}

// SAFETY: writes go through `write` and `patch`, whose callers hold the translator's lock.
unsafe impl Send for CodeMemory {}
// SAFETY: as for `Send`.
unsafe impl Sync for CodeMemory {}

impl CodeMemory {
    /// Maps so many bytes; pages are used when they are written.
    pub fn new(bytes: usize) -> io::Result<Self> {
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"hostel-code".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let result = Self::map_twice(fd, bytes);
        // SAFETY: the descriptor is ours and the mappings do not need it any more.
        unsafe { libc::close(fd) };
        result
    }

    fn map_twice(fd: i32, bytes: usize) -> io::Result<Self> {
        // SAFETY: the descriptor is the memfd just made.
        if unsafe { libc::ftruncate(fd, bytes as i64) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let writable = map(bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd)?;
        let executable = map(bytes, libc::PROT_READ | libc::PROT_EXEC, libc::MAP_SHARED, fd)?;
        Ok(Self { writable, executable, bytes })
    }

    /// A copy, made before a fork: the parent goes on changing what it shares with the child.
    pub fn snapshot(&self, used: usize) -> io::Result<Self> {
        let copy = Self::new(self.bytes)?;
        // SAFETY: both mappings have at least so many bytes.
        unsafe { ptr::copy_nonoverlapping(self.writable.as_ptr(), copy.writable.as_ptr(), used) };
        Ok(copy)
    }

    /// After the fork, in the child: the copy takes this memory's place.
    pub fn become_copy(&self, copy: Self) {
        for (from, to) in [(copy.writable, self.writable), (copy.executable, self.executable)] {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            // SAFETY: moves a mapping of ours over another one of the same size; nobody executes
            // translated code now, and the contents are the same.
            let moved = unsafe {
                libc::mremap(from.as_ptr().cast(), self.bytes, self.bytes, flags, to.as_ptr())
            };
            assert!(moved != libc::MAP_FAILED, "a mapping can be moved over another");
        }
        // Nothing is left to unmap at the copy's own addresses.
        std::mem::forget(copy);
    }

    /// Where code at this offset is executed.
    pub fn address(&self, offset: usize) -> u64 {
        self.executable.as_ptr() as u64 + offset as u64
    }

    /// The offset of an executable address.
    pub fn offset(&self, address: u64) -> Option<usize> {
        let offset = address.checked_sub(self.executable.as_ptr() as u64)? as usize;
        (offset < self.bytes).then_some(offset)
    }

    /// Bytes in all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes code where none is executed yet.
    pub fn write(&self, offset: usize, code: &[u8]) {
        assert!(offset + code.len() <= self.bytes, "the code fits into the cache");
        // SAFETY: the range lies in the mapping, which nobody else writes (the caller's lock).
        let target = unsafe { self.writable.as_ptr().add(offset) };
        // SAFETY: source and target are valid for the length and do not overlap.
        unsafe { ptr::copy_nonoverlapping(code.as_ptr(), target, code.len()) };
    }

    /// Copies code.
    pub fn read(&self, offset: usize, bytes: usize) -> Vec<u8> {
        assert!(offset + bytes <= self.bytes, "the code lies in the cache");
        let mut code = vec![0; bytes];
        // SAFETY: the range lies in the mapping.
        let from = unsafe { self.writable.as_ptr().add(offset) };
        // SAFETY: source and target are valid for the length and do not overlap.
        unsafe { ptr::copy_nonoverlapping(from, code.as_mut_ptr(), bytes) };
        code
    }

    /// Gives the pages behind an offset back to the kernel; they are zero when they are used again.
    pub fn discard(&self, from: usize) {
        const PAGE_BYTES: usize = 4096;
        let from = from.next_multiple_of(PAGE_BYTES).min(self.bytes);
        // SAFETY: the offset lies in the mapping, or at its end.
        let start = unsafe { self.writable.as_ptr().add(from) };
        // SAFETY: the range lies in the mapping; nobody executes what is behind the offset. Both
        // mappings lose the pages, for they belong to the file.
        unsafe { libc::madvise(start.cast(), self.bytes - from, libc::MADV_REMOVE) };
        #[cfg(target_env = "gnu")]
        // SAFETY: only frees what the allocator keeps for later.
        unsafe {
            libc::malloc_trim(0)
        };
    }

    /// Sets the displacement of the jump at an address, which other threads may be executing.
    pub fn patch(&self, place: u64, target: u64) {
        let offset = self.offset(place).expect("jumps lie in the cache");
        assert!(offset.is_multiple_of(4), "patchable jumps are aligned");
        let displacement = target.wrapping_sub(place + 4) as u32;
        // SAFETY: the offset lies in the mapping.
        let word = unsafe { self.writable.as_ptr().add(offset) };
        // SAFETY: aligned, valid, and only accessed atomically once code can run.
        unsafe { AtomicU32::from_ptr(word.cast()) }.store(displacement, Ordering::Release);
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        for start in [self.writable, self.executable] {
            // SAFETY: both were mapped by `new` with this size; no vCPU outlives its engine.
            unsafe { libc::munmap(start.as_ptr().cast(), self.bytes) };
        }
    }
}
