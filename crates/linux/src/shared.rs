//! Memory that is shared with another process by a descriptor.

// UNSAFETY: the other process may read and write the memory at any moment, which no safe Rust type
// describes. All access is by raw copies and atomics; no reference to the memory is ever made.
#![expect(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

/// A block of memory behind a descriptor, zeroed at first.
#[derive(Debug)]
pub struct SharedMemory {
    memory: NonNull<u8>,
    bytes: usize,
    file: OwnedFd,
}

// SAFETY: the mapping belongs to this value until it is dropped, and all access is by raw copies
// and atomics, which is what sharing among threads asks for.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// A new block of so many bytes, more than none.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn new(name: &str, bytes: usize) -> io::Result<Self> {
        let name = CString::new(name)?;
        // SAFETY: the name ends in a zero and outlives the call.
        let file = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        let length = i64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: only numbers are passed.
        if unsafe { libc::ftruncate(file.as_raw_fd(), length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address the system chooses overlaps nothing.
        let memory = unsafe {
            libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory, bytes, file })
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where it lies in this process, for a peer that is told places by such addresses.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.memory.addr().get() as u64
    }

    /// The place of some bytes.
    ///
    /// # Panics
    /// They do not all lie in the block.
    fn at(&self, offset: usize, bytes: usize) -> NonNull<u8> {
        assert!(
            offset.checked_add(bytes).is_some_and(|end| end <= self.bytes),
            "outside the block"
        );
        // SAFETY: the offset is within the mapping, as just checked.
        unsafe { self.memory.add(offset) }
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// They do not all lie in the block.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let source = self.at(offset, into.len());
        // SAFETY: `at` has checked that the bytes lie in the mapping; `into` is ours alone.
        unsafe { ptr::copy_nonoverlapping(source.as_ptr(), into.as_mut_ptr(), into.len()) };
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// They do not all fit.
    pub fn write(&self, offset: usize, from: &[u8]) {
        let target = self.at(offset, from.len());
        // SAFETY: `at` has checked that the bytes lie in the mapping; `from` lies elsewhere, for
        // no reference to the memory exists.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), target.as_ptr(), from.len()) };
    }

    /// A half word that says how far the peer has come: what it wrote before is seen after this.
    ///
    /// # Panics
    /// It does not lie in the block, or is not aligned.
    #[must_use]
    pub fn load(&self, offset: usize) -> u16 {
        self.half(offset).load(Ordering::Acquire)
    }

    /// A half word that says how far we have come: who sees it sees what was written before.
    ///
    /// # Panics
    /// It does not lie in the block, or is not aligned.
    pub fn store(&self, offset: usize, value: u16) {
        self.half(offset).store(value, Ordering::Release);
    }

    fn half(&self, offset: usize) -> &AtomicU16 {
        let place = self.at(offset, 2).cast::<u16>();
        assert!(place.is_aligned(), "a half word is aligned");
        // SAFETY: the place is aligned and in the mapping, which lives as long as `self`, and is
        // only accessed atomically or by copies that may be torn.
        unsafe { AtomicU16::from_ptr(place.as_ptr()) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this size, and nothing points into it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.bytes) };
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_and_by_the_descriptor_too() {
        let memory = SharedMemory::new("test", 8192).unwrap();
        memory.write(100, b"hello");
        memory.store(200, 0x1234);
        let mut bytes = [0; 5];
        memory.read(100, &mut bytes);
        assert_eq!((&bytes, memory.load(200)), (b"hello", 0x1234));
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::from(memory.as_fd().try_clone_to_owned().unwrap());
        let mut bytes = [0; 2];
        file.read_exact_at(&mut bytes, 200).unwrap();
        assert_eq!(bytes, [0x34, 0x12]);
    }

    #[test]
    #[should_panic(expected = "outside the block")]
    fn nothing_outside_is_touched() {
        SharedMemory::new("test", 4096).unwrap().write(4090, &[0; 7]);
    }
}
