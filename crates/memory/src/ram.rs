//! A block of guest RAM: anonymous shared memory that vCPUs, devices and helpers all map.

// UNSAFETY: the guest's memory is read and written by vCPUs and devices at the same time, which no
// safe Rust type describes. All access goes through raw copies of this module; no reference to
// guest memory is ever made.
#![expect(unsafe_code)]

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use rustix::fs::{self, FallocateFlags, MemfdFlags, SeekFrom};
use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use crate::{DirtyBitmap, PAGE_SIZE};

/// Why a block of RAM could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// Nobody needs an empty block, and a size must be whole pages.
    #[error("RAM block '{name}' of {bytes} bytes is not a positive number of whole pages")]
    BadSize {
        /// The block.
        name: String,
        /// What was asked for.
        bytes: u64,
    },
    /// The system refused.
    #[error("Cannot allocate the RAM block '{name}' of {bytes} bytes")]
    Allocate {
        /// The block.
        name: String,
        /// What was asked for.
        bytes: u64,
        /// What the system said.
        source: Errno,
    },
}

/// Guest RAM (or ROM, or flash), zeroed, in one piece of host memory.
///
/// Accesses may race with a running guest. They are then as torn as on real hardware: aligned
/// accesses of up to 8 bytes are whole, larger ones are not.
#[derive(Debug)]
pub struct Ram {
    name: String,
    memory: NonNull<u8>,
    bytes: usize,
    file: OwnedFd,
    dirty: DirtyBitmap,
}

// SAFETY: the mapping belongs to this value until it is dropped, and all access is by raw copies
// and atomics, which is what sharing among threads asks for.
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

impl Ram {
    /// Allocates a block. Memory is committed when the guest touches it.
    pub fn new(name: &str, bytes: u64) -> Result<Self, RamError> {
        let length = usize::try_from(bytes).ok().filter(|_| bytes > 0);
        let length = length.filter(|_| bytes.is_multiple_of(PAGE_SIZE));
        let Some(length) = length else {
            return Err(RamError::BadSize { name: name.to_owned(), bytes });
        };
        let allocate = |source| RamError::Allocate { name: name.to_owned(), bytes, source };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = fs::memfd_create(format!("hostel-{name}"), flags).map_err(allocate)?;
        fs::ftruncate(&file, bytes).map_err(allocate)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address the system chooses overlaps nothing.
        let memory =
            unsafe { mm::mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, &file, 0) };
        let memory = memory.map_err(allocate)?;
        // SAFETY: the advice concerns the mapping just made. Huge pages are a wish, not a need.
        _ = unsafe { mm::madvise(memory, length, Advice::LinuxHugepage) };
        let memory = NonNull::new(memory.cast()).expect("mmap never returns null");
        let dirty = DirtyBitmap::new(bytes);
        Ok(Self { name: name.to_owned(), memory, bytes: length, file, dirty })
    }

    /// The block's name, as in a saved state.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The block's size in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes as u64
    }

    /// Never: an empty block is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The start of the block in this process, for those who run guest code. Whatever is written
    /// through it must also be marked in [`Ram::dirty`] where somebody asks.
    #[must_use]
    pub fn host_address(&self) -> NonNull<u8> {
        self.memory
    }

    /// The pages written since somebody last asked.
    #[must_use]
    pub fn dirty(&self) -> &DirtyBitmap {
        &self.dirty
    }

    /// Copies bytes out of the block. False, and nothing copied, when they do not all lie in it.
    #[must_use]
    pub fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        let Some(source) = self.at(offset, into.len()) else { return false };
        // SAFETY: `at` has checked that the bytes lie in the mapping; `into` is ours alone.
        unsafe { ptr::copy_nonoverlapping(source.as_ptr(), into.as_mut_ptr(), into.len()) };
        true
    }

    /// Copies bytes into the block. False, and nothing copied, when they do not all fit.
    #[must_use]
    pub fn write(&self, offset: u64, from: &[u8]) -> bool {
        let Some(target) = self.at(offset, from.len()) else { return false };
        // SAFETY: `at` has checked that the bytes lie in the mapping; `from` lies elsewhere, for
        // no reference to guest memory exists.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), target.as_ptr(), from.len()) };
        self.dirty.mark(offset, from.len() as u64);
        true
    }

    /// Fills bytes of the block. False, and nothing filled, when they do not all lie in it.
    #[must_use]
    pub fn fill(&self, offset: u64, bytes: u64, value: u8) -> bool {
        let Ok(length) = usize::try_from(bytes) else { return false };
        let Some(target) = self.at(offset, length) else { return false };
        // SAFETY: `at` has checked that the bytes lie in the mapping.
        unsafe { ptr::write_bytes(target.as_ptr(), value, length) };
        self.dirty.mark(offset, bytes);
        true
    }

    /// Gives the memory of whole pages back to the host; they read as zeros from now on. False
    /// when they do not all lie in the block, are no whole pages, or the host cannot.
    #[must_use]
    pub fn release(&self, offset: u64, bytes: u64) -> bool {
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= self.len());
        if !inside || !offset.is_multiple_of(PAGE_SIZE) || !bytes.is_multiple_of(PAGE_SIZE) {
            return false;
        }
        if bytes == 0 {
            return true;
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let released = fs::fallocate(&self.file, flags, offset, bytes).is_ok();
        self.dirty.mark(offset, bytes);
        released
    }

    /// The next part from `offset` on that was ever touched, in whole pages; all else reads as zeros
    /// and takes no memory. None: there is no more.
    #[must_use]
    pub fn touched(&self, offset: u64) -> Option<Range<u64>> {
        if offset >= self.len() {
            return None;
        }
        // Nobody else uses the file's own position.
        let seek = |to| fs::seek(&self.file, to).ok();
        let start = seek(SeekFrom::Data(offset))?.max(offset) / PAGE_SIZE * PAGE_SIZE;
        let end = seek(SeekFrom::Hole(start)).unwrap_or(self.len()).next_multiple_of(PAGE_SIZE);
        Some(start..end.min(self.len()))
    }

    /// Reads 1, 2, 4 or 8 bytes, little-endian; whole when aligned. Outside reads as ones.
    #[must_use]
    pub fn read_value(&self, offset: u64, size: u8) -> u64 {
        let Some(source) = self.at(offset, usize::from(size)) else { return crate::ones(size) };
        let aligned = source.addr().get().is_multiple_of(usize::from(size));
        match size {
            // SAFETY: a byte in the mapping; atomics may be shared with the guest's own.
            1 => u64::from(unsafe { AtomicU8::from_ptr(source.as_ptr()) }.load(Ordering::Relaxed)),
            2 if aligned => {
                // SAFETY: in the mapping and aligned, as just checked.
                let cell = unsafe { AtomicU16::from_ptr(source.as_ptr().cast()) };
                u64::from(cell.load(Ordering::Acquire))
            }
            4 if aligned => {
                // SAFETY: in the mapping and aligned, as just checked.
                let cell = unsafe { AtomicU32::from_ptr(source.as_ptr().cast()) };
                u64::from(cell.load(Ordering::Acquire))
            }
            8 if aligned => {
                // SAFETY: in the mapping and aligned, as just checked.
                let cell = unsafe { AtomicU64::from_ptr(source.as_ptr().cast()) };
                cell.load(Ordering::Acquire)
            }
            _ => {
                let mut bytes = [0; 8];
                _ = self.read(offset, &mut bytes[..usize::from(size.min(8))]);
                u64::from_le_bytes(bytes)
            }
        }
    }

    /// Writes the low 1, 2, 4 or 8 bytes, little-endian; whole when aligned. Outside is ignored.
    pub fn write_value(&self, offset: u64, size: u8, value: u64) {
        let Some(target) = self.at(offset, usize::from(size)) else { return };
        let aligned = target.addr().get().is_multiple_of(usize::from(size));
        match size {
            4 if aligned => {
                // SAFETY: in the mapping and aligned, as just checked.
                let cell = unsafe { AtomicU32::from_ptr(target.as_ptr().cast()) };
                cell.store(value as u32, Ordering::Release);
            }
            8 if aligned => {
                // SAFETY: in the mapping and aligned, as just checked.
                let cell = unsafe { AtomicU64::from_ptr(target.as_ptr().cast()) };
                cell.store(value, Ordering::Release);
            }
            2 if aligned => {
                // SAFETY: in the mapping and aligned, as just checked.
                let cell = unsafe { AtomicU16::from_ptr(target.as_ptr().cast()) };
                cell.store(value as u16, Ordering::Release);
            }
            _ => {
                _ = self.write(offset, &value.to_le_bytes()[..usize::from(size.min(8))]);
                return;
            }
        }
        self.dirty.mark(offset, u64::from(size));
    }

    /// Where `bytes` at `offset` start in this process, when all of them lie in the block.
    fn at(&self, offset: u64, bytes: usize) -> Option<NonNull<u8>> {
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(bytes)?;
        if end > self.bytes {
            return None;
        }
        // SAFETY: `offset` is within the mapping, or just behind it for no bytes at all.
        Some(unsafe { self.memory.add(offset) })
    }
}

impl AsFd for Ram {
    /// The shared memory, for helpers in other processes.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` and this value was its only owner.
        let unmapped = unsafe { mm::munmap(self.memory.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "our own mapping can be taken away");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_at_any_size_and_alignment() {
        let ram = Ram::new("test", 2 * PAGE_SIZE).unwrap();
        for offset in [0, 1, 4093, 4096, 8184] {
            for size in [1, 2, 4, 8] {
                let value = 0x8877_6655_4433_2211 & crate::ones(size);
                ram.write_value(offset, size, 0x8877_6655_4433_2211);
                assert_eq!(ram.read_value(offset, size), value, "{offset} {size}");
            }
        }
    }

    #[test]
    fn outside_is_refused() {
        let ram = Ram::new("test", PAGE_SIZE).unwrap();
        let mut bytes = [7; 2];
        for offset in [4095, 4096, u64::MAX] {
            assert!(!ram.read(offset, &mut bytes));
            assert!(!ram.write(offset, &[1, 2]));
            assert!(!ram.fill(offset, 2, 1));
            assert_eq!(ram.read_value(offset, 2), 0xffff);
        }
        assert!(!ram.fill(0, u64::MAX, 1));
        assert_eq!((bytes, ram.read_value(4095, 1)), ([7; 2], 0));
    }

    #[test]
    fn released_pages_leave_the_host_and_read_as_zeros() {
        let ram = Ram::new("test", 64 * PAGE_SIZE).unwrap();
        assert!(ram.fill(0, 64 * PAGE_SIZE, 7));
        let blocks = || fs::fstat(&ram.file).unwrap().st_blocks as u64 * 512;
        assert_eq!(blocks(), 64 * PAGE_SIZE);
        assert!(ram.release(PAGE_SIZE, 62 * PAGE_SIZE));
        assert_eq!(blocks(), 2 * PAGE_SIZE);
        assert_eq!((ram.read_value(0, 1), ram.read_value(PAGE_SIZE, 1)), (7, 0));
        for (offset, bytes) in [(1, PAGE_SIZE), (0, 1), (64 * PAGE_SIZE, PAGE_SIZE), (0, u64::MAX)]
        {
            assert!(!ram.release(offset, bytes), "{offset} {bytes}");
        }
    }

    #[test]
    fn untouched_parts_are_skipped() {
        let ram = Ram::new("test", 4096 * PAGE_SIZE).unwrap();
        assert_eq!(ram.touched(0), None);
        ram.write_value(2048 * PAGE_SIZE + 5, 1, 1);
        let part = ram.touched(0).unwrap();
        // The host may have taken a huge page.
        assert!(part.contains(&(2048 * PAGE_SIZE)) && part.end - part.start <= 512 * PAGE_SIZE);
        assert_eq!(ram.touched(part.end), None);
        assert_eq!(ram.touched(part.end - 1).unwrap().end, part.end);
        assert_eq!(ram.touched(u64::MAX), None);
    }

    #[test]
    fn a_bad_size_is_refused_by_name() {
        for bytes in [0, 1, PAGE_SIZE + 1] {
            let error = Ram::new("pc.ram", bytes).unwrap_err();
            assert!(error.to_string().contains("'pc.ram'"), "{error}");
        }
    }
}
