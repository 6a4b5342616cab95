//! Limits, usage, waiting.

use super::shape::{LIMIT, SYSINFO, USAGE};
use super::{Arg, SHAPE_BYTES_MAX};
use crate::call::process::limits_only_the_guest;
use crate::guest::Guest;
use crate::host::Answer;
use crate::memory;
use crate::signals::INFO_BYTES;
use crate::thread::Thread;

/// `getrlimit` and `ugetrlimit`, which differ in what "no limit" is.
pub fn getrlimit<G: Guest, const NONE: u64>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mut limits = [0u64; 2];
    thread.pass(libc::SYS_getrlimit, [a[0], limits.as_mut_ptr() as u64, 0, 0, 0, 0])?;
    for (place, limit) in (0..).zip(limits) {
        memory::write_word(a[1] + 4 * place, limit.min(NONE), 4)?;
    }
    Ok(0)
}

pub fn setrlimit<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    if limits_only_the_guest(a[0]) {
        return super::words::<2>(a[1]).map(|_| 0);
    }
    super::converted(thread, libc::SYS_setrlimit, &[Arg::Same, Arg::In(LIMIT)], a)
}

/// Sizes that do not fit are counted in larger units, as the kernel does it.
pub fn sysinfo<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    const SIZES: std::ops::Range<usize> = 4..10;
    const HIGH: std::ops::Range<usize> = 11..13;
    const UNIT: usize = 13;
    let mut words = [0u64; SHAPE_BYTES_MAX / 8];
    thread.pass(libc::SYS_sysinfo, [words.as_mut_ptr() as u64, 0, 0, 0, 0, 0])?;
    let largest = words[SIZES].iter().max().copied().unwrap_or(0);
    let shift = (64 - largest.leading_zeros()).saturating_sub(32);
    for index in SIZES.chain(HIGH) {
        words[index] >>= shift;
    }
    words[UNIT] <<= shift;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    SYSINFO.write(a[0], &bytes)?;
    Ok(0)
}

pub fn waitpid<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    thread.pass(libc::SYS_wait4, [a[0] as i32 as u64, a[1], a[2], 0, 0, 0])
}

pub fn waitid<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mut info = [0u8; INFO_BYTES];
    let mut usage = [0u8; SHAPE_BYTES_MAX];
    let usage_at = if a[4] == 0 { 0 } else { usage.as_mut_ptr() as u64 };
    let arguments = [a[0], a[1], info.as_mut_ptr() as u64, a[3], usage_at, 0];
    let answer = thread.pass(libc::SYS_waitid, arguments)?;
    if a[2] != 0 {
        memory::write(a[2], &G::info(&info))?;
    }
    if a[4] != 0 {
        USAGE.write(a[4], &usage)?;
    }
    Ok(answer)
}

/// `getpriority` and others pass; `nice` the host no longer has.
pub fn nice<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    // The answer is 20 less the value, so that it is never negative.
    let now = 20 - thread.pass(libc::SYS_getpriority, [0; 6])? as i64;
    let wanted = (now + i64::from(a[0] as i32)).clamp(-20, 19);
    match thread.pass(libc::SYS_setpriority, [0, 0, wanted as u64, 0, 0, 0]) {
        Err(libc::EACCES) => Err(libc::EPERM),
        answer => answer,
    }
}

pub fn umount<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    thread.pass(libc::SYS_umount2, [a[0], 0, 0, 0, 0, 0])
}

/// A mask of processors has words of 64 bits at the host; the guest may offer an odd half.
pub fn sched_getaffinity<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mut mask = [0u8; 1024];
    let room = a[1].min(mask.len() as u64);
    if !room.is_multiple_of(4) {
        return Err(libc::EINVAL);
    }
    let arguments = [a[0], room.next_multiple_of(8), mask.as_mut_ptr() as u64, 0, 0, 0];
    let bytes = thread.pass(libc::SYS_sched_getaffinity, arguments)?.min(room);
    memory::write(a[2], &mask[..bytes as usize])?;
    Ok(bytes)
}
