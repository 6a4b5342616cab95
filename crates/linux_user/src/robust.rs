//! Robust futexes: when a thread ends, the locks it still holds are marked so that who waits for
//! them learns that their owner died. The kernel does this for lists with its own words; a guest's
//! list has the guest's.

use crate::host;
use crate::memory;

/// Longer lists are taken for loops, as by the kernel.
const ENTRIES_MAX: usize = 2048;

const WAITERS: u64 = 0x8000_0000;
const OWNER_DIED: u64 = 0x4000_0000;
const TID: u64 = 0x3fff_ffff;

/// Releases what is on a thread's list: first entry, offset of the futex word, the entry that is
/// just being taken or given back.
pub fn release(head: u64, pointer_bytes: usize) {
    if head == 0 {
        return;
    }
    let step = pointer_bytes as u64;
    let word = |address| memory::read_word(address, pointer_bytes).ok();
    let (Some(first), Some(offset), Some(pending)) =
        (word(head), word(head + step), word(head + 2 * step))
    else {
        return;
    };
    let offset = if pointer_bytes == 4 { offset as i32 as u64 } else { offset };
    // The lowest bit of an entry says that the lock inherits priorities.
    let futex = |entry: u64| (entry & !1).wrapping_add(offset);
    let mut entry = first;
    for _ in 0..ENTRIES_MAX {
        if entry & !1 == head {
            break;
        }
        let Some(next) = word(entry & !1) else { break };
        if entry & !1 != pending & !1 {
            mark(futex(entry));
        }
        entry = next;
    }
    if pending != 0 {
        mark(futex(pending));
    }
}

/// Marks a lock, if this thread holds it, and wakes one who waits.
fn mark(futex: u64) {
    let own = host::plain(libc::SYS_gettid, [0; 6]).unwrap_or(0);
    let Ok(value) = memory::read_word(futex, 4) else { return };
    if value & TID != own || !futex.is_multiple_of(4) {
        return;
    }
    // Nobody else changes the owner; that a waiter comes meanwhile is why all are woken then.
    if memory::write_word(futex, value & WAITERS | OWNER_DIED, 4).is_ok() {
        let wake = libc::FUTEX_WAKE as u64;
        let _ = host::plain(libc::SYS_futex, [futex, wake, i32::MAX as u64, 0, 0, 0]);
    }
}
