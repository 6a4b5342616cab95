//! Memory: mappings, the heap, instruction cache.

use crate::guest::Guest;
use crate::host::Answer;
use crate::thread::Thread;

pub fn brk<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    Ok(thread.process.space.grow_break(a[0]))
}

pub fn mmap<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let [address, bytes, rights, flags, fd, offset] = a;
    if !offset.is_multiple_of(4096) {
        return Err(libc::EINVAL);
    }
    let process = &thread.process;
    let fixed = flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) as u64 != 0;
    let start =
        process.space.map(address, bytes, rights as u32, flags as u32, fd as i32, offset)?;
    if fixed {
        process.engine.invalidate(start, start.saturating_add(bytes));
    }
    Ok(start)
}

pub fn munmap<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let answer = thread.process.space.unmap(a[0], a[1])?;
    thread.process.engine.invalidate(a[0], a[0] + a[1]);
    Ok(answer)
}

pub fn mremap<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let answer = thread.process.space.remap(a[0], a[1], a[2], a[3], a[4])?;
    thread.process.engine.invalidate(a[0], a[0].saturating_add(a[1]));
    Ok(answer)
}

pub fn mprotect<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let answer = thread.process.space.protect(a[0], a[1], a[2] as u32)?;
    thread.process.engine.invalidate(a[0], a[0] + a[1]);
    Ok(answer)
}

/// `shmat`: identifier, address, flags.
pub fn shmat<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mut books = [0u64; 14]; // `struct shmid64_ds`, whose seventh word is the size
    let at = books.as_mut_ptr() as u64;
    thread.pass(libc::SYS_shmctl, [a[0], libc::IPC_STAT as u64, at, 0, 0, 0])?;
    const SIZE: usize = 6;
    thread.process.space.attach(a[0], a[1], books[SIZE], a[2])
}

pub fn shmdt<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let end = thread.process.space.detach(a[0])?;
    thread.process.engine.invalidate(a[0], end);
    Ok(0)
}

pub fn flush_icache<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    thread.process.engine.invalidate(a[0], a[1]);
    Ok(0)
}
