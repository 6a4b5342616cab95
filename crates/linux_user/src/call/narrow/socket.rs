//! Sockets: the one call that is all of them, messages and their control data.

use super::shape::{Shape, TIME};
use super::{Arg, vector, words};
use crate::guest::Guest;
use crate::host::{Answer, Errno};
use crate::memory;
use crate::thread::Thread;

/// Control data longer than this is refused, as by the kernel's own limit.
const CONTROL_MAX: u64 = 1 << 16;

/// More messages in a call are refused, as by the kernel.
const MESSAGES_MAX: u64 = 1024;

/// `socketcall`: which, and the address of its arguments.
pub fn socketcall<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    const COUNTS: [usize; 21] = [0, 3, 3, 3, 2, 3, 3, 3, 4, 4, 4, 6, 6, 2, 5, 5, 3, 3, 4, 5, 4];
    let count = COUNTS.get(a[0] as usize).copied().filter(|&count| count != 0);
    let mut words = [0; 6];
    for (place, word) in (0..).zip(&mut words[..count.ok_or(libc::EINVAL)?]) {
        *word = memory::read_word(a[1] + 4 * place, 4)?;
    }
    let host = match a[0] {
        1 => libc::SYS_socket,
        2 => libc::SYS_bind,
        3 => libc::SYS_connect,
        4 => libc::SYS_listen,
        5 => libc::SYS_accept,
        6 => libc::SYS_getsockname,
        7 => libc::SYS_getpeername,
        8 => libc::SYS_socketpair,
        9 | 11 => libc::SYS_sendto,
        10 | 12 => libc::SYS_recvfrom,
        13 => libc::SYS_shutdown,
        14 => return set_option(thread, words),
        15 => return get_option(thread, words),
        16 => return sendmsg(thread, words),
        17 => return recvmsg(thread, words),
        18 => libc::SYS_accept4,
        19 => return recvmmsg::<G, false>(thread, words),
        _ => return sendmmsg(thread, words),
    };
    thread.pass(host, words)
}

const SO_RCVTIMEO: u64 = 20;
const SO_SNDTIMEO: u64 = 21;
const SO_ATTACH_FILTER: u64 = 26;
/// The program of a filter: its length and where it is.
const FILTER: Shape = Shape("hp");

pub fn set_option<G: Guest>(thread: &mut Thread<G>, mut a: [u64; 6]) -> Answer {
    let shape = match (a[1] as i32, a[2]) {
        (libc::SOL_SOCKET, SO_RCVTIMEO | SO_SNDTIMEO) => TIME,
        (libc::SOL_SOCKET, SO_ATTACH_FILTER) => FILTER,
        _ => return thread.pass(libc::SYS_setsockopt, a),
    };
    if (a[4] as usize) < shape.guest_bytes() {
        return Err(libc::EINVAL);
    }
    a[4] = 16;
    let arguments = [Arg::Same, Arg::Same, Arg::Same, Arg::In(shape)];
    super::converted(thread, libc::SYS_setsockopt, &arguments, a)
}

pub fn get_option<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    if !matches!((a[1] as i32, a[2]), (libc::SOL_SOCKET, SO_RCVTIMEO | SO_SNDTIMEO)) {
        return thread.pass(libc::SYS_getsockopt, a);
    }
    if memory::read_word(a[4], 4)? < TIME.guest_bytes() as u64 {
        return Err(libc::EINVAL);
    }
    let (mut time, mut bytes) = ([0u8; 16], 16u32);
    let (at, size) = (time.as_mut_ptr() as u64, &raw mut bytes as u64);
    thread.pass(libc::SYS_getsockopt, [a[0], a[1], a[2], at, size, 0])?;
    TIME.write(a[3], &time)?;
    memory::write_word(a[4], TIME.guest_bytes() as u64, 4)?;
    Ok(0)
}

/// Offsets in the guest's `struct msghdr`.
const NAME_BYTES: u64 = 4;
const CONTROL_BYTES: u64 = 20;
const FLAGS: u64 = 24;
/// Its size, and that of `struct mmsghdr`.
const HEADER_BYTES: u64 = 28;
const MANY_BYTES: u64 = 32;

/// A message header of the host, with what it points to.
#[derive(Default)]
struct Header {
    /// name, name's size, vector, its length, control, its size, flags
    words: [u64; 7],
    vector: Vec<[u64; 2]>,
    control: Vec<u64>,
    /// Where the guest's control data is, and room for it.
    guest_control: (u64, u64),
}

impl Header {
    /// Reads the guest's header; control data too when it is to be sent.
    fn read(address: u64, sends: bool) -> Result<Self, Errno> {
        let [name, name_bytes, list, count, control, control_bytes, flags] = words::<7>(address)?;
        if control_bytes > CONTROL_MAX {
            return Err(libc::ENOBUFS);
        }
        let mut header = Self { vector: vector::read(list, count)?, ..Self::default() };
        header.guest_control = (control, control_bytes);
        let host_bytes = if control == 0 {
            0
        } else if sends {
            let mut bytes = vec![0; control_bytes as usize];
            memory::read(control, &mut bytes)?;
            let host = widen(&bytes)?;
            header.control = vec![0; host.len().div_ceil(8)];
            for (word, bytes) in header.control.iter_mut().zip(host.chunks(8)) {
                let mut whole = [0; 8];
                whole[..bytes.len()].copy_from_slice(bytes);
                *word = u64::from_le_bytes(whole);
            }
            host.len() as u64
        } else {
            // A header of 12 bytes here has 16 there, and data may be longer.
            header.control = vec![0; control_bytes as usize / 4 + 2];
            if control_bytes == 0 { 0 } else { 8 * header.control.len() as u64 }
        };
        let list = header.vector.as_ptr() as u64;
        let control = if host_bytes == 0 { 0 } else { header.control.as_mut_ptr() as u64 };
        header.words = [name, name_bytes, list, count, control, host_bytes, flags];
        Ok(header)
    }

    fn pointer(&mut self) -> u64 {
        self.words.as_mut_ptr() as u64
    }

    /// Writes what was received to the guest's header.
    fn write(&self, address: u64) -> Result<(), Errno> {
        let [_, name_bytes, _, _, _, control_bytes, flags] = self.words;
        memory::write_word(address + NAME_BYTES, name_bytes, 4)?;
        let bytes: Vec<u8> = self.control.iter().flat_map(|word| word.to_le_bytes()).collect();
        let host = &bytes[..(control_bytes as usize).min(bytes.len())];
        let (guest, cut) = narrow(host, self.guest_control.1 as usize);
        memory::write(self.guest_control.0, &guest)?;
        memory::write_word(address + CONTROL_BYTES, guest.len() as u64, 4)?;
        let cut = if cut { libc::MSG_CTRUNC as u64 } else { 0 };
        memory::write_word(address + FLAGS, flags | cut, 4)
    }
}

const GUEST_HEAD: usize = 12;
const HOST_HEAD: usize = 16;

fn word(bytes: &[u8], at: usize) -> usize {
    let word = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    word.map_or(0, u32::from_le_bytes) as usize
}

/// The guest's control data as the host's: the length has 64 bits, and so have the gaps.
fn widen(guest: &[u8]) -> Result<Vec<u8>, Errno> {
    let (mut host, mut at) = (Vec::new(), 0);
    while at + GUEST_HEAD <= guest.len() {
        let length = word(guest, at);
        if length < GUEST_HEAD || length > guest.len() - at {
            return Err(libc::EINVAL);
        }
        let data = &guest[at + GUEST_HEAD..at + length];
        host.extend(((HOST_HEAD + data.len()) as u64).to_le_bytes());
        host.extend(&guest[at + 4..at + GUEST_HEAD]);
        host.extend(data);
        host.resize(host.len().next_multiple_of(8), 0);
        at += length.next_multiple_of(4);
    }
    Ok(host)
}

/// Control messages whose data are two longs: times.
fn is_time(level: usize, kind: usize) -> bool {
    const SO_TIMESTAMP: usize = 29;
    const SO_TIMESTAMPNS: usize = 35;
    level == libc::SOL_SOCKET as usize && matches!(kind, SO_TIMESTAMP | SO_TIMESTAMPNS)
}

/// The host's control data as the guest's, and whether something did not fit.
fn narrow(host: &[u8], room: usize) -> (Vec<u8>, bool) {
    let (mut guest, mut at) = (Vec::new(), 0);
    while at + HOST_HEAD <= host.len() {
        let length = word(host, at);
        if length < HOST_HEAD || length > host.len() - at {
            break;
        }
        let mut data = host[at + HOST_HEAD..at + length].to_vec();
        if is_time(word(host, at + 8), word(host, at + 12)) && data.len() == 16 {
            data.drain(12..);
            data.drain(4..8);
        }
        let whole = GUEST_HEAD + data.len();
        if guest.len() + whole > room {
            return (guest, true);
        }
        guest.extend((whole as u32).to_le_bytes());
        guest.extend(&host[at + 8..at + HOST_HEAD]);
        guest.extend(data);
        guest.resize(guest.len().next_multiple_of(4).min(room), 0);
        at += length.next_multiple_of(8);
    }
    (guest, false)
}

pub fn sendmsg<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mut header = Header::read(a[1], true)?;
    thread.pass(libc::SYS_sendmsg, [a[0], header.pointer(), a[2], 0, 0, 0])
}

pub fn recvmsg<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mut header = Header::read(a[1], false)?;
    let bytes = thread.pass(libc::SYS_recvmsg, [a[0], header.pointer(), a[2], 0, 0, 0])?;
    header.write(a[1])?;
    Ok(bytes)
}

/// Messages are sent one by one; the answer counts those that went before an error.
pub fn sendmmsg<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    for index in 0..a[2].min(MESSAGES_MAX) {
        let at = a[1] + MANY_BYTES * index;
        match sendmsg(thread, [a[0], at, a[3], 0, 0, 0]) {
            Ok(bytes) => memory::write_word(at + HEADER_BYTES, bytes, 4)?,
            Err(errno) if index == 0 => return Err(errno),
            Err(_) => return Ok(index),
        }
    }
    Ok(a[2].min(MESSAGES_MAX))
}

/// `recvmmsg`, with a time of words of 32 or 64 bits.
pub fn recvmmsg<G: Guest, const WIDE: bool>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let count = a[2].min(MESSAGES_MAX);
    let at = |index: u64| a[1] + MANY_BYTES * index;
    let headers: Result<Vec<Header>, Errno> =
        (0..count).map(|index| Header::read(at(index), false)).collect();
    let mut headers = headers?;
    let mut list: Vec<[u64; 8]> = Vec::new();
    for header in &headers {
        let [name, name_bytes, vector, count, control, control_bytes, flags] = header.words;
        list.push([name, name_bytes, vector, count, control, control_bytes, flags, 0]);
    }
    let mut time = if a[4] == 0 { [0; 2] } else { super::time::read::<WIDE>(a[4])? };
    let timeout = if a[4] == 0 { 0 } else { time.as_mut_ptr() as u64 };
    let pointer = list.as_mut_ptr() as u64;
    let received = thread.pass(libc::SYS_recvmmsg, [a[0], pointer, count, a[3], timeout, 0])?;
    for (index, row) in (0..received).zip(&list) {
        let header = &mut headers[index as usize];
        header.words.copy_from_slice(&row[..7]);
        header.write(at(index))?;
        memory::write_word(at(index) + HEADER_BYTES, row[7], 4)?;
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_data_survives_the_way_there_and_back() {
        let mut guest = Vec::new();
        for (kind, data) in [(1u32, vec![7, 0, 0, 0, 9, 0, 0, 0]), (2, vec![1; 12])] {
            guest.extend((12 + data.len() as u32).to_le_bytes());
            guest.extend(1u32.to_le_bytes());
            guest.extend(kind.to_le_bytes());
            guest.extend(data);
        }
        let host = widen(&guest).expect("it is well formed");
        assert_eq!(host.len(), 24 + 32);
        assert_eq!(narrow(&host, 4096), (guest.clone(), false));
        assert_eq!(narrow(&host, 20).0, guest[..20]);
        assert!(narrow(&host, 20).1);
        assert_eq!(widen(&[200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(libc::EINVAL));
    }
}
