//! Clocks: from the host's vDSO, so that asking for the time is no call of its kernel.

use crate::guest::Guest;
use crate::host::{self, Answer};
use crate::memory;
use crate::thread::Thread;

/// Writes two words, of the guest's length or (`WIDE`) of 64 bits.
fn write_pair<G: Guest, const WIDE: bool>(address: u64, pair: [u64; 2]) -> Answer {
    let bytes = if WIDE { 8 } else { G::MACHINE.pointer_bytes };
    let mut both = [0; 16];
    both[..bytes].copy_from_slice(&pair[0].to_le_bytes()[..bytes]);
    both[bytes..2 * bytes].copy_from_slice(&pair[1].to_le_bytes()[..bytes]);
    memory::write(address, &both[..2 * bytes])?;
    Ok(0)
}

/// `clock_gettime`, and i386's with 64 bits.
pub fn clock_gettime<G: Guest, const WIDE: bool>(_: &mut Thread<G>, a: [u64; 6]) -> Answer {
    write_pair::<G, WIDE>(a[1], host::clock(a[0] as i32)?)
}

pub fn gettimeofday<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    if a[0] != 0 {
        let [seconds, nanoseconds] = host::clock(libc::CLOCK_REALTIME)?;
        write_pair::<G, false>(a[0], [seconds, nanoseconds / 1000])?;
    }
    if a[1] != 0 {
        return thread.pass(libc::SYS_gettimeofday, [0, a[1], 0, 0, 0, 0]);
    }
    Ok(0)
}

pub fn time<G: Guest>(_: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let [seconds, _] = host::clock(libc::CLOCK_REALTIME_COARSE)?;
    if a[0] != 0 {
        memory::write_word(a[0], seconds, G::MACHINE.pointer_bytes)?;
    }
    Ok(seconds)
}
