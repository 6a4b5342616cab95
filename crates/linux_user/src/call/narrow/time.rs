//! Times of 32 bits, and waiting with masks.

use super::shape::TIME;
use super::{Arg, words};
use crate::call::signal::{self, masked};
use crate::guest::Guest;
use crate::host::{Answer, Errno};
use crate::memory;
use crate::thread::Thread;

/// A `timespec` or `timeval` of the host.
pub type Time = [u64; 2];

/// Reads a time of the guest: its words have 32 bits, or 64 (`WIDE`).
pub fn read<const WIDE: bool>(address: u64) -> Result<Time, Errno> {
    let bytes = if WIDE { 8 } else { 4 };
    let (high, low) =
        (memory::read_word(address, bytes)?, memory::read_word(address + bytes as u64, bytes)?);
    Ok(if WIDE { [high, low] } else { [high as i32 as u64, low as i32 as u64] })
}

fn write<const WIDE: bool>(address: u64, time: Time) -> Result<(), Errno> {
    let bytes = if WIDE { 8 } else { 4 };
    memory::write_word(address, time[0], bytes)?;
    memory::write_word(address + bytes as u64, time[1], bytes)
}

pub fn stime<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let time = [memory::read_word(a[0], 4)? as i32 as u64, 0];
    let at = time.as_ptr() as u64;
    thread.pass(libc::SYS_clock_settime, [libc::CLOCK_REALTIME as u64, at, 0, 0, 0, 0])
}

pub fn times<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let arguments = [Arg::Out(super::shape::TMS)];
    super::converted(thread, libc::SYS_times, &arguments, a).map(|ticks| ticks & 0x7fff_ffff)
}

/// The remaining time is told only when the sleep was interrupted.
pub fn nanosleep<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    sleep(thread, libc::SYS_nanosleep, [0, 0], a[0], a[1], 0)
}

pub fn clock_nanosleep<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    sleep(thread, libc::SYS_clock_nanosleep, [a[0], a[1]], a[2], a[3], 2)
}

fn sleep<G: Guest>(
    thread: &mut Thread<G>,
    call: i64,
    first: [u64; 2],
    wanted: u64,
    rest: u64,
    index: usize,
) -> Answer {
    let wanted = read::<false>(wanted)?;
    let mut left: Time = [0; 2];
    let mut arguments = [first[0], first[1], 0, 0, 0, 0];
    arguments[index] = wanted.as_ptr() as u64;
    arguments[index + 1] = left.as_mut_ptr() as u64;
    let answer = thread.pass(call, arguments);
    if answer == Err(libc::EINTR) && rest != 0 {
        write::<false>(rest, left)?;
    }
    answer
}

/// `_newselect`.
pub fn select<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let arguments = [Arg::Same, Arg::Same, Arg::Same, Arg::Same, Arg::Both(TIME)];
    super::converted(thread, libc::SYS_select, &arguments, a)
}

/// The oldest `select` has its arguments in memory.
pub fn old_select<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let [count, read, write, except, time] = words::<5>(a[0])?;
    select(thread, [count, read, write, except, time, 0])
}

/// `pselect6`, whose sixth argument points to mask and size.
pub fn pselect6<G: Guest, const WIDE: bool>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let set = if a[5] == 0 { [0, 0] } else { words::<2>(a[5])? };
    let mask = signal::optional_set(set[0], set[1])?;
    let mut time = if a[4] == 0 { [0; 2] } else { read::<WIDE>(a[4])? };
    let pointer = if a[4] == 0 { 0 } else { time.as_mut_ptr() as u64 };
    let (mut words, timed) = (a, a[4] != 0);
    (words[4], words[5]) = (pointer, 0);
    let answer = masked(thread, mask, libc::SYS_pselect6, words, 5);
    if timed && answer.is_ok() {
        write::<WIDE>(a[4], time)?;
    }
    answer
}

/// `ppoll`.
pub fn ppoll<G: Guest, const WIDE: bool>(thread: &mut Thread<G>, mut a: [u64; 6]) -> Answer {
    let mask = signal::optional_set(a[3], a[4])?;
    let mut time = if a[2] == 0 { [0; 2] } else { read::<WIDE>(a[2])? };
    if a[2] != 0 {
        a[2] = time.as_mut_ptr() as u64;
    }
    (a[3], a[4]) = (0, 0);
    masked(thread, mask, libc::SYS_ppoll, a, 3)
}

/// Operations of `futex` whose fourth argument is a time, not a number.
fn has_time(operation: u64) -> bool {
    const WAIT: u64 = 0;
    const LOCK_PI: u64 = 6;
    const WAIT_BITSET: u64 = 9;
    const WAIT_REQUEUE_PI: u64 = 11;
    const LOCK_PI2: u64 = 13;
    matches!(operation & 0x7f, WAIT | LOCK_PI | WAIT_BITSET | WAIT_REQUEUE_PI | LOCK_PI2)
}

pub fn futex<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let time = if has_time(a[1]) { Arg::In(TIME) } else { Arg::Same };
    let arguments = [Arg::Same, Arg::Same, Arg::Same, time];
    super::converted(thread, libc::SYS_futex, &arguments, a)
}
