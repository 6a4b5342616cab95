//! Signals: actions, masks, frames.

use crate::guest::Guest;
use crate::host::{Answer, ERESTARTNOINTR, ERESTARTSYS, Errno};
use crate::memory;
use crate::signals;
use crate::thread::{Action, RETURNED, Thread, UNBLOCKABLE};

const SIG_BLOCK: u64 = 0;
const SIG_UNBLOCK: u64 = 1;
const SIG_SETMASK: u64 = 2;

/// Ours is 64 signals, one word.
fn check_size(size: u64) -> Answer {
    if size == 8 { Ok(0) } else { Err(libc::EINVAL) }
}

/// Takes a signal's action and perhaps sets another.
pub fn exchange<G: Guest>(
    thread: &Thread<G>,
    number: u64,
    new: Option<Action>,
) -> Result<Action, Errno> {
    if !(1..=64).contains(&number) {
        return Err(libc::EINVAL);
    }
    let index = number as usize - 1;
    let mut actions = thread.actions.lock();
    let before = actions[index];
    if let Some(action) = new {
        if UNBLOCKABLE & 1 << index != 0 {
            return Err(libc::EINVAL);
        }
        actions[index] = action;
        // Under the lock, or two threads could leave the host with the other's.
        thread.follow_action(number as i32, &action);
    }
    Ok(before)
}

/// `struct sigaction`: handler, flags and perhaps a restorer, a pointer each; then the mask.
pub fn rt_sigaction<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let [number, new, old, size, ..] = a;
    check_size(size)?;
    let bytes = G::MACHINE.pointer_bytes;
    let pointers = 2 + u64::from(G::HAS_RESTORER);
    let step = bytes as u64;
    let action = if new == 0 {
        None
    } else {
        let mut words = [0; 3];
        for (place, word) in (0..pointers).zip(&mut words) {
            *word = memory::read_word(new + step * place, bytes)?;
        }
        let mask = memory::read_word(new + step * pointers, 8)?;
        let [handler, flags, restorer] = words;
        Some(Action { handler, flags, restorer, mask })
    };
    let Action { handler, flags, restorer, mask } = exchange(thread, number, action)?;
    if old != 0 {
        for (place, word) in (0..pointers).zip([handler, flags, restorer]) {
            memory::write_word(old + step * place, word, bytes)?;
        }
        memory::write_word(old + step * pointers, mask, 8)?;
    }
    Ok(0)
}

/// What `sigprocmask` makes of a mask.
pub fn combine(how: u64, before: u64, set: u64) -> Result<u64, Errno> {
    match how {
        SIG_BLOCK => Ok(before | set),
        SIG_UNBLOCK => Ok(before & !set),
        SIG_SETMASK => Ok(set),
        _ => Err(libc::EINVAL),
    }
}

pub fn rt_sigprocmask<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let [how, new, old, size, ..] = a;
    check_size(size)?;
    let before = thread.mask;
    if new != 0 {
        let mask = combine(how, before, memory::read_word(new, 8)?)?;
        thread.set_mask(mask & !UNBLOCKABLE);
    }
    if old != 0 {
        memory::write_word(old, before, 8)?;
    }
    Ok(0)
}

/// Blocked signals that wait, here or in the kernel.
pub fn all_pending<G: Guest>(thread: &mut Thread<G>) -> u64 {
    let mut host = 0u64;
    let _ = crate::host::plain(libc::SYS_rt_sigpending, [&raw mut host as u64, 8, 0, 0, 0, 0]);
    (signals::pending() | host) & thread.mask
}

pub fn rt_sigpending<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let pending = all_pending(thread);
    let bytes = a[1].min(8) as usize;
    memory::write(a[0], &pending.to_le_bytes()[..bytes])?;
    Ok(0)
}

/// A set of signals that may be absent: its address and size.
pub fn optional_set(address: u64, size: u64) -> Result<Option<u64>, Errno> {
    if address == 0 {
        return Ok(None);
    }
    check_size(size)?;
    memory::read_word(address, 8).map(|set| Some(set & !UNBLOCKABLE))
}

/// A call that waits with another mask, which goes into the arguments at `index`. The kernel
/// exchanges the masks; a signal that only the new one lets through is delivered before the call
/// returns, and its handler returns to the old mask.
pub fn masked<G: Guest>(
    thread: &mut Thread<G>,
    mask: Option<u64>,
    call: i64,
    mut arguments: [u64; 6],
    index: usize,
) -> Answer {
    let Some(set) = mask else { return thread.pass(call, arguments) };
    let host = set;
    let pair = [&raw const host as u64, 8];
    match arguments.get_mut(index..index + 2) {
        Some(place) => place.copy_from_slice(&pair),
        None => arguments[index] = pair.as_ptr() as u64, // `pselect6` has no room for two
    }
    let open = |set: u64| signals::pending() & !set != 0;
    let answer = if open(set) { Err(libc::EINTR) } else { thread.pass(call, arguments) };
    match answer {
        Err(libc::EINTR | ERESTARTSYS | ERESTARTNOINTR) if open(set) => {
            interrupt(thread, set);
            Err(RETURNED)
        }
        answer => answer,
    }
}

/// Delivers signals under `set`; the mask that holds now is the one to return to.
fn interrupt<G: Guest>(thread: &mut Thread<G>, set: u64) {
    let before = std::mem::replace(&mut thread.mask, set);
    thread.saved_mask = Some(before);
    G::set_result(thread.vcpu.state_mut(), -i64::from(libc::EINTR));
    thread.take_signals();
    if thread.saved_mask.take().is_some() {
        thread.set_mask(before);
    }
}

pub fn rt_sigsuspend<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    check_size(a[1])?;
    let set = memory::read_word(a[0], 8)?;
    suspend(thread, set)
}

/// Waits for a signal that `set` lets through and that has a handler.
pub fn suspend<G: Guest>(thread: &mut Thread<G>, set: u64) -> Answer {
    let set = set & !UNBLOCKABLE;
    masked(thread, Some(set), libc::SYS_rt_sigsuspend, [0; 6], 0)
}

pub fn ppoll<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mask = optional_set(a[3], a[4])?;
    masked(thread, mask, libc::SYS_ppoll, [a[0], a[1], a[2], 0, 0, 0], 3)
}

/// The sixth argument points to mask and size.
pub fn pselect6<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mask = match a[5] {
        0 => None,
        at => optional_set(memory::read_word(at, 8)?, memory::read_word(at + 8, 8)?)?,
    };
    masked(thread, mask, libc::SYS_pselect6, [a[0], a[1], a[2], a[3], a[4], 0], 5)
}

/// `epoll_pwait` and `epoll_pwait2`, whose events are the host's.
pub fn epoll_pwait<G: Guest, const CALL: i64>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mask = optional_set(a[4], a[5])?;
    masked(thread, mask, CALL, [a[0], a[1], a[2], a[3], 0, 0], 4)
}

pub fn rt_sigtimedwait<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    check_size(a[3])?;
    let set = memory::read_word(a[0], 8)?;
    if let Some((signal, info)) = signals::take(!set) {
        if a[1] != 0 {
            memory::write(a[1], &G::info(&info))?;
        }
        return Ok(signal as u64);
    }
    let mut info = [0u8; signals::INFO_BYTES];
    let mut arguments = a;
    arguments[1] = info.as_mut_ptr() as u64;
    let signal = thread.pass(libc::SYS_rt_sigtimedwait, arguments)?;
    if a[1] != 0 {
        memory::write(a[1], &G::info(&info))?;
    }
    Ok(signal)
}

pub fn sigaltstack<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let [new, old, ..] = a;
    let bytes = G::MACHINE.pointer_bytes;
    let step = bytes as u64;
    let (_, stack) = G::position(thread.vcpu.state());
    let [base, flags, size] = thread.alternate;
    let active = size != 0 && stack.wrapping_sub(base) < size;
    if old != 0 {
        let flags = if size == 0 { 2 } else { flags | u64::from(active) };
        memory::write_word(old, base, bytes)?;
        memory::write_word(old + step, flags, 4)?;
        memory::write_word(old + 2 * step, size, bytes)?;
    }
    if new != 0 {
        if active {
            return Err(libc::EPERM);
        }
        let base = memory::read_word(new, bytes)?;
        let flags = memory::read_word(new + step, 4)?;
        let size = memory::read_word(new + 2 * step, bytes)?;
        if flags & 2 == 0 && size < 2048 {
            return Err(libc::ENOMEM);
        }
        thread.alternate = if flags & 2 != 0 { [0, 2, 0] } else { [base, flags, size] };
    }
    Ok(0)
}

pub fn rt_sigreturn<G: Guest>(thread: &mut Thread<G>, _: [u64; 6]) -> Answer {
    match G::leave_handler(&mut thread.vcpu, &mut thread.local) {
        Ok((mask, alternate)) => {
            thread.set_mask(mask & !UNBLOCKABLE);
            thread.alternate = alternate;
        }
        Err(_) => crate::host::die_of(libc::SIGSEGV),
    }
    Err(RETURNED)
}
