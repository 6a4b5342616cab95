//! Reading and writing guest memory from system calls: bad pointers are `EFAULT`.
#![expect(unsafe_code)]
// UNSAFETY: `process_vm_readv` on ourselves reads what may not be there.

use std::sync::{Arc, OnceLock};

use isa::FrontEnd;
use jit::Engine;

use crate::host::Errno;

/// Who can copy without asking the kernel, and knows where translated code is guarded.
trait Copier: Send + Sync {
    fn read(&self, address: u64, into: &mut [u8]) -> bool;
    fn write(&self, address: u64, from: &[u8]) -> bool;
    fn unguard(&self, address: u64, bytes: u64) -> bool;
}

impl<F: FrontEnd> Copier for Engine<F> {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        self.copy_from_user(address, into).is_ok()
    }

    fn write(&self, address: u64, from: &[u8]) -> bool {
        self.copy_to_user(address, from).is_ok()
    }

    fn unguard(&self, address: u64, bytes: u64) -> bool {
        let pages = (address >> 12..=address.saturating_add(bytes) >> 12).take(1 << 12);
        pages.fold(false, |lifted, page| Engine::unguard(self, page << 12) | lifted)
    }
}

static COPIER: OnceLock<Arc<dyn Copier>> = OnceLock::new();

/// From now on the engine copies: it catches faults itself, which is cheaper than a system call.
pub fn copy_by<F: FrontEnd>(engine: &Arc<Engine<F>>) {
    let _ = COPIER.set(engine.clone());
}

/// A string argument longer than this is an error.
const STRING_MAX: usize = 1 << 17;

fn transfer(address: u64, local: *mut u8, bytes: usize, write: bool) -> Result<(), Errno> {
    let here = libc::iovec { iov_base: local.cast(), iov_len: bytes };
    let there = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes };
    let pid = std::process::id() as i32;
    let done = if write {
        // SAFETY: the local buffer is the caller's; the other side is checked by the kernel.
        unsafe { libc::process_vm_writev(pid, &here, 1, &there, 1, 0) }
    } else {
        // SAFETY: likewise.
        unsafe { libc::process_vm_readv(pid, &here, 1, &there, 1, 0) }
    };
    if done == bytes as isize { Ok(()) } else { Err(libc::EFAULT) }
}

/// Fills `into` from guest memory.
pub fn read(address: u64, into: &mut [u8]) -> Result<(), Errno> {
    if let Some(copier) = COPIER.get() {
        return if copier.read(address, into) { Ok(()) } else { Err(libc::EFAULT) };
    }
    transfer(address, into.as_mut_ptr(), into.len(), false)
}

/// Writes guest memory.
pub fn write(address: u64, from: &[u8]) -> Result<(), Errno> {
    if let Some(copier) = COPIER.get() {
        let written = copier.write(address, from)
            || copier.unguard(address, from.len() as u64) && copier.write(address, from);
        return if written { Ok(()) } else { Err(libc::EFAULT) };
    }
    transfer(address, from.as_ptr().cast_mut(), from.len(), true)
}

/// A word of so many bytes.
pub fn read_word(address: u64, bytes: usize) -> Result<u64, Errno> {
    let mut word = [0; 8];
    read(address, &mut word[..bytes])?;
    Ok(u64::from_le_bytes(word))
}

/// Writes a word of so many bytes.
pub fn write_word(address: u64, value: u64, bytes: usize) -> Result<(), Errno> {
    write(address, &value.to_le_bytes()[..bytes])
}

/// A string without its zero byte.
pub fn read_string(address: u64) -> Result<Vec<u8>, Errno> {
    let mut string = Vec::new();
    let mut at = address;
    while string.len() < STRING_MAX {
        // Never across a page: the next one may not be there.
        let mut piece = [0; 256];
        let room = (4096 - (at & 0xfff)).min(piece.len() as u64) as usize;
        read(at, &mut piece[..room])?;
        if let Some(end) = piece[..room].iter().position(|&byte| byte == 0) {
            string.extend_from_slice(&piece[..end]);
            return Ok(string);
        }
        string.extend_from_slice(&piece[..room]);
        at += room as u64;
    }
    Err(libc::ENAMETOOLONG)
}

/// A list of pointers to strings that ends with a null pointer.
pub fn read_strings(mut address: u64, pointer_bytes: usize) -> Result<Vec<Vec<u8>>, Errno> {
    let mut strings = Vec::new();
    if address == 0 {
        return Ok(strings);
    }
    let mut total = 0;
    loop {
        let pointer = read_word(address, pointer_bytes)?;
        if pointer == 0 {
            return Ok(strings);
        }
        let string = read_string(pointer)?;
        total += string.len() + 16;
        if total > 8 << 20 {
            return Err(libc::E2BIG);
        }
        strings.push(string);
        address += pointer_bytes as u64;
    }
}
