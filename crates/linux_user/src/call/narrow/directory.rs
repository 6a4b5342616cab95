//! Directories. File systems number entries with 63 bits, which a guest's `long` cannot hold, and
//! its C library then gives up. The kernel tells programs of 32 bits shorter numbers; it does not
//! know that ours is one, so long numbers are replaced by cookies.

use std::collections::HashMap;

use linux::locks::Mutex;

use crate::guest::Guest;
use crate::host::Answer;
use crate::memory;
use crate::thread::Thread;

/// Cookies begin here; smaller numbers are the host's own.
const FIRST_COOKIE: u64 = 0x4000_0000;

/// More numbers than this are not remembered; `seekdir` then goes astray, reading does not.
const COOKIES_MAX: usize = 1 << 20;

#[derive(Default)]
struct Cookies {
    offsets: Vec<u64>,
    known: HashMap<u64, u64>,
}

static COOKIES: Mutex<Option<Cookies>> = Mutex::new(None);

/// Nobody else uses them meanwhile.
pub fn hold_cookies() -> impl Sized {
    COOKIES.lock()
}

fn cookie(offset: u64) -> u64 {
    if offset < FIRST_COOKIE {
        return offset;
    }
    let mut cookies = COOKIES.lock();
    let cookies = cookies.get_or_insert_with(Cookies::default);
    if let Some(&known) = cookies.known.get(&offset) {
        return known;
    }
    let cookie = FIRST_COOKIE + cookies.offsets.len() as u64;
    if cookies.offsets.len() < COOKIES_MAX {
        cookies.offsets.push(offset);
        cookies.known.insert(offset, cookie);
    }
    cookie
}

/// The host's offset for a seek: of a directory, behind a cookie.
pub fn host_offset<G: Guest>(thread: &mut Thread<G>, fd: u64, offset: u64, from: u64) -> u64 {
    let index = offset.wrapping_sub(FIRST_COOKIE) as usize;
    if from != libc::SEEK_SET as u64 || index >= COOKIES_MAX {
        return offset;
    }
    let known = COOKIES.lock().as_ref().and_then(|cookies| cookies.offsets.get(index).copied());
    let Some(known) = known else { return offset };
    let mut stat = [0u64; 18];
    let arguments = [fd, stat.as_mut_ptr() as u64, 0, 0, 0, 0];
    const KIND: u64 = 0o170_000;
    const DIRECTORY: u64 = 0o040_000;
    let is_directory =
        thread.pass(libc::SYS_fstat, arguments).is_ok() && stat[3] & KIND == DIRECTORY;
    if is_directory { known } else { offset }
}

/// The host's entries, with cookies: inode, offset, length, type, name. A buffer as large as the
/// guest's, for entries of the older form are shorter.
fn entries<G: Guest>(thread: &mut Thread<G>, a: &[u64; 6]) -> Result<Vec<u8>, i32> {
    const LARGEST: u64 = 1 << 16;
    let mut buffer = vec![0u8; a[2].min(LARGEST) as usize];
    let arguments = [a[0], buffer.as_mut_ptr() as u64, buffer.len() as u64, 0, 0, 0];
    let bytes = thread.pass(libc::SYS_getdents64, arguments)? as usize;
    buffer.truncate(bytes);
    let mut at = 0;
    while at + HOST_HEAD < buffer.len() {
        let offset = cookie(long(&buffer, at + 8));
        buffer[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
        at += length(&buffer, at);
    }
    Ok(buffer)
}

/// Bytes in front of the name.
const HOST_HEAD: usize = 19;
const OLD_HEAD: usize = 10;

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

fn length(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at + 16], bytes[at + 17]])).max(HOST_HEAD)
}

pub fn getdents64<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let entries = entries(thread, &a)?;
    memory::write(a[1], &entries)?;
    Ok(entries.len() as u64)
}

/// The older form has shorter numbers, and the type behind the name.
pub fn getdents<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let host = entries(thread, &a)?;
    let (mut at, mut guest) = (0, Vec::new());
    while at + HOST_HEAD < host.len() {
        let name = &host[at + HOST_HEAD..at + length(&host, at)];
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let own = (OLD_HEAD + name.len() + 2).next_multiple_of(4);
        let end = guest.len() + own - 1;
        guest.extend((long(&host, at) as u32).to_le_bytes());
        guest.extend((long(&host, at + 8) as u32).to_le_bytes());
        guest.extend((own as u16).to_le_bytes());
        guest.extend(name);
        guest.resize(end, 0);
        guest.push(host[at + 18]);
        at += length(&host, at);
    }
    memory::write(a[1], &guest)?;
    Ok(guest.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_offsets_get_one_cookie_each() {
        assert_eq!(cookie(17), 17);
        let (first, second) = (cookie(1 << 60), cookie(1 << 61));
        assert!(first != second && second < 1 << 31);
        assert_eq!(cookie(1 << 60), first);
    }
}
