//! Signals: actions, masks, frames.

use crate::guest::Guest;
use crate::host::{Answer, ERESTARTSYS};
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

pub fn rt_sigaction<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let [number, new, old, size, ..] = a;
    check_size(size)?;
    if !(1..=64).contains(&number) {
        return Err(libc::EINVAL);
    }
    let has_restorer = G::HAS_RESTORER;
    let index = number as usize - 1;
    let before = thread.process.actions.lock()[index];
    if new != 0 {
        if UNBLOCKABLE & 1 << index != 0 {
            return Err(libc::EINVAL);
        }
        let mut words = [0; 4];
        for (place, word) in (0..).zip(&mut words[..3 + usize::from(has_restorer)]) {
            *word = memory::read_word(new + 8 * place, 8)?;
        }
        let [handler, flags, third, fourth] = words;
        let (restorer, mask) = if has_restorer { (third, fourth) } else { (0, third) };
        let action = Action { handler, flags, restorer, mask };
        thread.process.actions.lock()[index] = action;
        thread.follow_action(number as i32, &action);
    }
    if old != 0 {
        let Action { handler, flags, restorer, mask } = before;
        let words = [handler, flags, if has_restorer { restorer } else { mask }, mask];
        for (place, word) in (0..).zip(&words[..3 + usize::from(has_restorer)]) {
            memory::write_word(old + 8 * place, *word, 8)?;
        }
    }
    Ok(0)
}

pub fn rt_sigprocmask<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let [how, new, old, size, ..] = a;
    check_size(size)?;
    let before = thread.mask;
    if new != 0 {
        let set = memory::read_word(new, 8)?;
        let mask = match how {
            SIG_BLOCK => before | set,
            SIG_UNBLOCK => before & !set,
            SIG_SETMASK => set,
            _ => return Err(libc::EINVAL),
        };
        thread.set_mask(mask & !UNBLOCKABLE);
    }
    if old != 0 {
        memory::write_word(old, before, 8)?;
    }
    Ok(0)
}

pub fn rt_sigpending<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mut host = 0u64;
    let _ = thread.pass(libc::SYS_rt_sigpending, [&raw mut host as u64, 8, 0, 0, 0, 0]);
    memory::write_word(a[0], (signals::pending() | host) & thread.mask, 8)?;
    Ok(0)
}

pub fn rt_sigsuspend<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    check_size(a[1])?;
    let set = memory::read_word(a[0], 8)? & !UNBLOCKABLE;
    let before = thread.mask;
    thread.set_mask(set);
    let mut host = set;
    loop {
        let ready = signals::pending() & !set;
        let actions = *thread.process.actions.lock();
        if (0..64).any(|n| ready & 1 << n != 0 && actions[n].handler != 1) {
            break;
        }
        match thread.pass(libc::SYS_rt_sigsuspend, [&raw mut host as u64, 8, 0, 0, 0, 0]) {
            Err(libc::EINTR | ERESTARTSYS) if signals::pending() & !set != 0 => break,
            Err(libc::EINTR | ERESTARTSYS) => {}
            answer => return answer,
        }
    }
    // The handler runs with the new mask and returns to the old one.
    thread.saved_mask = Some(before);
    G::set_result(thread.vcpu.state_mut(), -i64::from(libc::EINTR));
    thread.take_signals();
    if thread.saved_mask.take().is_some() {
        thread.set_mask(before);
    }
    Err(RETURNED)
}

pub fn rt_sigtimedwait<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    check_size(a[3])?;
    let set = memory::read_word(a[0], 8)?;
    if let Some((signal, info)) = signals::take(!set) {
        if a[1] != 0 {
            memory::write(a[1], &info)?;
        }
        return Ok(signal as u64);
    }
    thread.pass(libc::SYS_rt_sigtimedwait, a)
}

pub fn sigaltstack<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let [new, old, ..] = a;
    let (_, stack) = G::position(thread.vcpu.state());
    let [base, flags, size] = thread.alternate;
    let active = size != 0 && stack.wrapping_sub(base) < size;
    if old != 0 {
        let flags = if size == 0 { 2 } else { flags | u64::from(active) };
        for (place, word) in [(0, base), (8, flags), (16, size)] {
            memory::write_word(old + place, word, 8)?;
        }
    }
    if new != 0 {
        if active {
            return Err(libc::EPERM);
        }
        let base = memory::read_word(new, 8)?;
        let flags = memory::read_word(new + 8, 4)?;
        let size = memory::read_word(new + 16, 8)?;
        if flags & 2 == 0 && size < 2048 {
            return Err(libc::ENOMEM);
        }
        thread.alternate = if flags & 2 != 0 { [0, 2, 0] } else { [base, flags, size] };
    }
    Ok(0)
}

pub fn rt_sigreturn<G: Guest>(thread: &mut Thread<G>, _: [u64; 6]) -> Answer {
    match G::leave_handler(&mut thread.vcpu) {
        Ok((mask, alternate)) => {
            thread.set_mask(mask & !UNBLOCKABLE);
            thread.alternate = alternate;
        }
        Err(_) => crate::host::die_of(libc::SIGSEGV),
    }
    Err(RETURNED)
}
