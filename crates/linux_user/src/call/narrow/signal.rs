//! Signals: the calls from before there were more than 32 of them, and `siginfo_t`.

use super::words;
use crate::call::signal;
use crate::guest::Guest;
use crate::host::Answer;
use crate::memory;
use crate::signals::{INFO_BYTES, Info};
use crate::thread::{Action, Thread, UNBLOCKABLE};

/// The kernel's information as a guest of 32 bits has it: the union begins at 12, not at 16, and
/// pointers and clocks are half as long.
pub fn narrow_info(host: &Info) -> Info {
    const UNION: usize = 12;
    const HOST_UNION: usize = 16;
    let word = |bytes: &[u8]| i32::from_le_bytes(bytes.try_into().unwrap_or_default());
    let (signal, code) = (word(&host[0..4]), word(&host[8..12]));
    let mut guest = [0; INFO_BYTES];
    guest[..UNION].copy_from_slice(&host[..UNION]);
    let mut copy = |to: usize, from: usize, bytes: usize| {
        guest[UNION + to..][..bytes].copy_from_slice(&host[HOST_UNION + from..][..bytes]);
    };
    match (signal, code) {
        (_, libc::SI_USER | libc::SI_TKILL) => copy(0, 0, 8),
        // pid, uid or timer and overrun, then a value of pointer size
        (_, libc::SI_QUEUE | libc::SI_TIMER | libc::SI_MESGQ) => copy(0, 0, 12),
        (libc::SIGCHLD, _) => {
            copy(0, 0, 12); // pid, uid, status
            copy(12, 16, 4); // user time
            copy(16, 24, 4); // system time
        }
        (libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP, _) => {
            copy(0, 0, 4);
            copy(4, 8, 2);
        }
        (libc::SIGPOLL, _) => {
            copy(0, 0, 4);
            copy(4, 8, 4);
        }
        (libc::SIGSYS, _) => {
            copy(0, 0, 4);
            copy(4, 8, 8);
        }
        _ => copy(0, 0, 12),
    }
    guest
}

/// What a guest of 32 bits puts into a signal that it queues.
fn wide_info(guest: &Info) -> Info {
    let mut host = [0; INFO_BYTES];
    host[..12].copy_from_slice(&guest[..12]);
    host[16..28].copy_from_slice(&guest[12..24]);
    host
}

/// `rt_sigqueueinfo` and `rt_tgsigqueueinfo`: the information is the last argument.
pub fn queue<G: Guest, const CALL: i64, const INFO: usize>(
    thread: &mut Thread<G>,
    mut a: [u64; 6],
) -> Answer {
    let mut guest = [0; INFO_BYTES];
    memory::read(a[INFO], &mut guest)?;
    let host = wide_info(&guest);
    a[INFO] = host.as_ptr() as u64;
    thread.pass(CALL, a)
}

/// `rt_sigtimedwait` with a time of 32 bits.
pub fn rt_sigtimedwait<G: Guest>(thread: &mut Thread<G>, mut a: [u64; 6]) -> Answer {
    let time = if a[2] == 0 { [0; 2] } else { super::time::read::<false>(a[2])? };
    if a[2] != 0 {
        a[2] = time.as_ptr() as u64;
    }
    signal::rt_sigtimedwait(thread, a)
}

/// `sigaction`: handler, mask of 32 bits, flags, restorer.
pub fn sigaction<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let new = match a[1] {
        0 => None,
        at => {
            let [handler, mask, flags, restorer] = words::<4>(at)?;
            Some(Action { handler, flags, restorer, mask })
        }
    };
    let before = signal::exchange(thread, a[0], new)?;
    if a[2] != 0 {
        let Action { handler, flags, restorer, mask } = before;
        for (place, word) in (0..).zip([handler, mask, flags, restorer]) {
            memory::write_word(a[2] + 4 * place, word, 4)?;
        }
    }
    Ok(0)
}

/// `signal`: one shot, and nothing blocked.
pub fn old_signal<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let flags = crate::thread::SA_RESETHAND | crate::thread::SA_NODEFER;
    let action = Action { handler: a[1], flags, ..Action::default() };
    signal::exchange(thread, a[0], Some(action)).map(|before| before.handler)
}

pub fn sigprocmask<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let before = thread.mask;
    if a[1] != 0 {
        let set = memory::read_word(a[1], 4)?;
        let low = signal::combine(a[0], before & 0xffff_ffff, set)? & 0xffff_ffff;
        thread.set_mask((before & !0xffff_ffff | low) & !UNBLOCKABLE);
    }
    if a[2] != 0 {
        memory::write_word(a[2], before, 4)?;
    }
    Ok(0)
}

pub fn sigpending<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let pending = signal::all_pending(thread);
    memory::write_word(a[0], pending, 4)?;
    Ok(0)
}

/// `sigsuspend`: two unused arguments, then the mask itself.
pub fn sigsuspend<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    signal::suspend(thread, a[2] & 0xffff_ffff)
}

pub fn sgetmask<G: Guest>(thread: &mut Thread<G>, _: [u64; 6]) -> Answer {
    Ok(thread.mask & 0xffff_ffff)
}

pub fn ssetmask<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let before = thread.mask;
    thread.set_mask((a[0] & 0xffff_ffff) & !UNBLOCKABLE);
    Ok(before & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_end_is_told() {
        let mut host = [0; INFO_BYTES];
        host[0] = libc::SIGCHLD as u8;
        host[8] = libc::CLD_EXITED as u8;
        host[16] = 77; // pid
        host[24] = 5; // status
        host[32] = 9; // user time
        let guest = narrow_info(&host);
        assert_eq!((guest[12], guest[20], guest[24]), (77, 5, 9));
    }

    #[test]
    fn a_queued_value_goes_there_and_back() {
        let mut guest = [0; INFO_BYTES];
        guest[0] = 40;
        guest[8..12].copy_from_slice(&libc::SI_QUEUE.to_le_bytes());
        guest[12..24].copy_from_slice(&[1; 12]);
        assert_eq!(narrow_info(&wide_info(&guest)), guest);
    }
}
