//! Lists of buffers.

use crate::guest::Guest;
use crate::host::{Answer, Errno};
use crate::memory;
use crate::thread::Thread;

/// The kernel's own limit.
const VECTOR_MAX: u64 = 1024;

/// A guest's `struct iovec`s as the host's.
pub fn read(address: u64, count: u64) -> Result<Vec<[u64; 2]>, Errno> {
    if count > VECTOR_MAX {
        return Err(libc::EINVAL);
    }
    let mut bytes = vec![0; 8 * count as usize];
    memory::read(address, &mut bytes)?;
    let word =
        |bytes: &[u8]| u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    Ok(bytes.chunks_exact(8).map(|pair| [word(pair), word(&pair[4..])]).collect())
}

/// `readv` and its kin: descriptor, vector, count.
pub fn plain<G: Guest, const CALL: i64>(thread: &mut Thread<G>, mut a: [u64; 6]) -> Answer {
    let vector = read(a[1], a[2])?;
    a[1] = vector.as_ptr() as u64;
    thread.pass(CALL, a)
}

/// `process_vm_readv` and `process_vm_writev`.
pub fn process<G: Guest, const CALL: i64>(thread: &mut Thread<G>, mut a: [u64; 6]) -> Answer {
    let (local, remote) = (read(a[1], a[2])?, read(a[3], a[4])?);
    (a[1], a[3]) = (local.as_ptr() as u64, remote.as_ptr() as u64);
    thread.pass(CALL, a)
}
