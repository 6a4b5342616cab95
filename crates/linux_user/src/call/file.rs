//! Files: paths below the prefix, `/proc/self`, structures that differ between architectures.

use std::ffi::CString;

use crate::guest::Guest;
use crate::host::{Answer, Errno};
use crate::memory;
use crate::thread::Thread;

/// Calls the host with the path at argument `index` looked up below the prefix.
pub fn with_path<G: Guest>(
    thread: &mut Thread<G>,
    number: i64,
    mut a: [u64; 6],
    index: usize,
) -> Answer {
    if thread.process.options.prefix.is_none() {
        return thread.pass(number, a);
    }
    if a[index] == 0 {
        return thread.pass(number, a); // `utimensat` of the descriptor itself
    }
    let path = host_path(thread, a[index])?;
    a[index] = path.as_ptr() as u64;
    thread.pass(number, a)
}

/// The guest's path as the host knows it.
pub fn host_path<G: Guest>(thread: &Thread<G>, address: u64) -> Result<CString, Errno> {
    let path = memory::read_string(address)?;
    let path = thread.process.options.path(&path);
    Ok(CString::new(path).expect("it was read up to its zero byte"))
}

pub fn openat<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let path = memory::read_string(a[1])?;
    match crate::proc::entry(&thread.process, &path) {
        Some(crate::proc::Entry::Contents(contents)) => return file_with(&contents, a[2]),
        Some(crate::proc::Entry::Executable) => {
            let path = CString::new(thread.process.executable.clone()).map_err(|_| libc::ENOENT)?;
            let path = path.as_ptr() as u64;
            return thread.pass(libc::SYS_openat, [a[0], path, a[2], a[3], 0, 0]);
        }
        None => {}
    }
    with_path(thread, libc::SYS_openat, a, 1)
}

/// `openat2`: what its flags ask of the walk holds for the host's path.
pub fn openat2<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let path = memory::read_string(a[1])?;
    let [flags, mode, resolve] = {
        let mut words = [0; 3];
        for (place, word) in (0..).zip(&mut words) {
            *word = memory::read_word(a[2] + 8 * place, 8)?;
        }
        words
    };
    if resolve == 0 && crate::proc::entry(&thread.process, &path).is_some() {
        return openat(thread, [a[0], a[1], flags, mode, 0, 0]);
    }
    with_path(thread, libc::SYS_openat2, a, 1)
}

/// A descriptor from which these bytes can be read.
fn file_with(contents: &[u8], flags: u64) -> Answer {
    let name = c"guest-proc".as_ptr() as u64;
    let close_on_exec = u64::from(flags & libc::O_CLOEXEC as u64 != 0); // MFD_CLOEXEC is 1
    let fd = crate::host::plain(libc::SYS_memfd_create, [name, close_on_exec, 0, 0, 0, 0])?;
    let address = contents.as_ptr() as u64;
    crate::host::plain(libc::SYS_pwrite64, [fd, address, contents.len() as u64, 0, 0, 0])?;
    Ok(fd)
}

/// The old calls without a directory are the new ones relative to the current one.
const AT_FDCWD: u64 = libc::AT_FDCWD as u64;

pub fn open<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    openat(thread, [AT_FDCWD, a[0], a[1], a[2], 0, 0])
}

pub fn readlink<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    readlinkat(thread, [AT_FDCWD, a[0], a[1], a[2], 0, 0])
}

pub fn faccessat<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    with_path(thread, libc::SYS_faccessat, a, 1)
}

pub fn statx<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    with_path(thread, libc::SYS_statx, a, 1)
}

pub fn readlinkat<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let path = memory::read_string(a[1])?;
    if matches!(crate::proc::entry(&thread.process, &path), Some(crate::proc::Entry::Executable)) {
        let target = thread.process.executable.as_bytes();
        let bytes = target.len().min(a[3] as usize);
        memory::write(a[2], &target[..bytes])?;
        return Ok(bytes as u64);
    }
    with_path(thread, libc::SYS_readlinkat, a, 1)
}

pub fn newfstatat<G: Guest>(thread: &mut Thread<G>, mut a: [u64; 6]) -> Answer {
    let mut host = [0u64; 18];
    let target = a[2];
    a[2] = host.as_mut_ptr() as u64;
    with_path(thread, libc::SYS_newfstatat, a, 1)?;
    write_stat(target, &host)
}

pub fn fstat<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mut host = [0u64; 18];
    thread.pass(libc::SYS_fstat, [a[0], host.as_mut_ptr() as u64, 0, 0, 0, 0])?;
    write_stat(a[1], &host)
}

/// From x86-64's `struct stat` (as words) to that of asm-generic.
fn write_stat(target: u64, host: &[u64; 18]) -> Answer {
    // x86-64: dev, ino, nlink, mode|uid, gid|pad, rdev, size, blksize, blocks, 3 x (sec, nsec)
    let [device, inode, links, mode_uid, gid, special, size, block_size, blocks, times @ ..] =
        *host;
    let mut words = [0u64; 16];
    words[0] = device;
    words[1] = inode;
    words[2] = mode_uid & 0xffff_ffff | links << 32;
    words[3] = mode_uid >> 32 | gid << 32;
    words[4] = special;
    words[6] = size;
    words[7] = block_size & 0xffff_ffff;
    words[8] = blocks;
    words[9..15].copy_from_slice(&times[..6]);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory::write(target, &bytes)?;
    Ok(0)
}

/// `struct epoll_event` has no padding on x86-64 only.
pub fn epoll_ctl<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mut event = [0; 16];
    let mut packed = [0; 12];
    let mut pointer = 0;
    if a[3] != 0 {
        memory::read(a[3], &mut event)?;
        packed[..4].copy_from_slice(&event[..4]);
        packed[4..].copy_from_slice(&event[8..]);
        pointer = packed.as_ptr() as u64;
    }
    thread.pass(libc::SYS_epoll_ctl, [a[0], a[1], a[2], pointer, 0, 0])
}

/// More events at once than anyone asks for.
const EVENTS_MAX: u64 = 1 << 16;

pub fn epoll_pwait<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    epoll_wait::<G, { libc::SYS_epoll_pwait }>(thread, a)
}

pub fn epoll_pwait2<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    epoll_wait::<G, { libc::SYS_epoll_pwait2 }>(thread, a)
}

fn epoll_wait<G: Guest, const CALL: i64>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let count = a[2].min(EVENTS_MAX);
    let mut packed = vec![0u8; 12 * count as usize];
    let pointer = packed.as_mut_ptr() as u64;
    let words = [a[0], pointer, count, a[3], a[4], a[5]];
    let ready = super::signal::epoll_pwait::<G, CALL>(thread, words)?;
    let mut events = Vec::with_capacity(16 * ready as usize);
    for packed in packed.chunks_exact(12).take(ready as usize) {
        events.extend(&packed[..4]);
        events.extend([0; 4]);
        events.extend(&packed[4..]);
    }
    memory::write(a[1], &events)?;
    Ok(ready)
}
