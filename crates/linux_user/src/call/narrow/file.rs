//! Files: `stat` in its forms, directories, `fcntl`.

use std::mem::size_of;

use super::shape::{FLOCK, FLOCK64, Shape};
use super::{SHAPE_BYTES_MAX, directory, narrow_id, words};
use crate::call::file;
use crate::guest::Guest;
use crate::host::Answer;
use crate::memory;
use crate::thread::Thread;

/// x86-64's `struct stat` as words: device, inode, links, mode and user, group, special device,
/// size, block size, blocks, three times in seconds and nanoseconds.
type Stat = [u64; 18];

/// What is put into a structure, one after the other.
#[derive(Default)]
struct Packed(Vec<u8>);

impl Packed {
    fn word(&mut self, value: u64) -> &mut Self {
        self.0.extend((value as u32).to_le_bytes());
        self
    }

    fn short(&mut self, value: u64) -> &mut Self {
        self.0.extend((value as u16).to_le_bytes());
        self
    }

    fn long(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }
}

fn write_stat64(target: u64, stat: &Stat) -> Answer {
    let [device, inode, links, mode_user, group, special, size, block_size, blocks, ..] = *stat;
    let mut to = Packed::default();
    to.long(device).word(0).word(inode).word(mode_user).word(links);
    to.word(mode_user >> 32).word(group).long(special).word(0);
    to.long(size).word(block_size).long(blocks);
    stat[9..15].iter().for_each(|&time| _ = to.word(time));
    to.long(inode);
    memory::write(target, &to.0)?;
    Ok(0)
}

fn write_stat(target: u64, stat: &Stat) -> Answer {
    let [device, inode, links, mode_user, group, special, size, block_size, blocks, ..] = *stat;
    if size > i32::MAX as u64 || inode > u64::from(u32::MAX) {
        return Err(libc::EOVERFLOW);
    }
    let old_device = |device: u64| device & 0xff | (device >> 8 & 0xff) << 8;
    let mut to = Packed::default();
    to.word(old_device(device)).word(inode).short(mode_user).short(links);
    to.short(narrow_id(mode_user >> 32)).short(narrow_id(group & 0xffff_ffff));
    to.word(old_device(special)).word(size).word(block_size).word(blocks);
    stat[9..15].iter().for_each(|&time| _ = to.word(time));
    to.word(0).word(0);
    memory::write(target, &to.0)?;
    Ok(0)
}

/// `stat` and `lstat`, old (`WIDE` false) and 64.
pub fn stat<G: Guest, const CALL: i64, const WIDE: bool>(
    thread: &mut Thread<G>,
    a: [u64; 6],
) -> Answer {
    let mut stat = [0; 18];
    let at = stat.as_mut_ptr() as u64;
    file::with_path(thread, CALL, [a[0], at, 0, 0, 0, 0], 0)?;
    if WIDE { write_stat64(a[1], &stat) } else { write_stat(a[1], &stat) }
}

/// `fstat`, old and 64.
pub fn fstat<G: Guest, const WIDE: bool>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mut stat = [0; 18];
    thread.pass(libc::SYS_fstat, [a[0], stat.as_mut_ptr() as u64, 0, 0, 0, 0])?;
    if WIDE { write_stat64(a[1], &stat) } else { write_stat(a[1], &stat) }
}

pub fn fstatat64<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mut stat = [0; 18];
    let at = stat.as_mut_ptr() as u64;
    file::with_path(thread, libc::SYS_newfstatat, [a[0], a[1], at, a[3], 0, 0], 1)?;
    write_stat64(a[2], &stat)
}

/// `statfs64` has the structure's size as its second argument.
pub fn statfs64<G: Guest, const CALL: i64>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    use super::Arg;
    if a[1] != super::shape::STATFS64.guest_bytes() as u64 {
        return Err(libc::EINVAL);
    }
    let first = if CALL == libc::SYS_statfs { Arg::Path } else { Arg::Same };
    let arguments = [first, Arg::Out(super::shape::STATFS64)];
    super::converted(thread, CALL, &arguments, [a[0], a[2], 0, 0, 0, 0])
}

pub fn lseek<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let offset = directory::host_offset(thread, a[0], a[1] as i32 as u64, a[2]);
    thread.pass(libc::SYS_lseek, [a[0], offset, a[2], 0, 0, 0])
}

/// The offset comes in two words, high first; the answer goes to memory.
pub fn llseek<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let offset = directory::host_offset(thread, a[0], a[1] << 32 | a[2], a[4]);
    let answer = thread.pass(libc::SYS_lseek, [a[0], offset, a[4], 0, 0, 0])?;
    memory::write_word(a[3], answer, 8)?;
    Ok(0)
}

const F_GETLK64: i32 = 12;
const F_SETLK64: i32 = 13;
const F_SETLKW64: i32 = 14;
/// The same numbers everywhere.
const F_OFD_GETLK: i32 = 36;
const F_OFD_SETLKW: i32 = 38;

/// `fcntl` and `fcntl64`.
pub fn fcntl<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let lock = |thread: &mut Thread<G>, shape: Shape, command: i32| {
        let mut host = [0; SHAPE_BYTES_MAX];
        shape.read(a[2], &mut host)?;
        let pointer = host.as_mut_ptr() as u64;
        let answer = thread.pass(libc::SYS_fcntl, [a[0], command as u64, pointer, 0, 0, 0])?;
        if matches!(command, libc::F_GETLK | F_OFD_GETLK) {
            shape.write(a[2], &host)?;
        }
        Ok(answer)
    };
    match a[1] as i32 {
        command @ (libc::F_GETLK | libc::F_SETLK | libc::F_SETLKW) => lock(thread, FLOCK, command),
        F_GETLK64 => lock(thread, FLOCK64, libc::F_GETLK),
        F_SETLK64 => lock(thread, FLOCK64, libc::F_SETLK),
        F_SETLKW64 => lock(thread, FLOCK64, libc::F_SETLKW),
        command @ F_OFD_GETLK..=F_OFD_SETLKW => lock(thread, FLOCK64, command),
        _ => thread.pass(libc::SYS_fcntl, a),
    }
}

/// The oldest `mmap` has its arguments in memory.
pub fn old_mmap<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let arguments = words::<6>(a[0])?;
    crate::call::memory::mmap(thread, arguments)
}

/// `mmap2` counts the offset in pages.
pub fn mmap2<G: Guest>(thread: &mut Thread<G>, mut a: [u64; 6]) -> Answer {
    a[5] <<= 12;
    crate::call::memory::mmap(thread, a)
}

/// `preadv` and its kin: descriptor, vector, count, the offset in two words, flags.
pub fn at_offset<G: Guest, const CALL: i64>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let vector = super::vector::read(a[1], a[2])?;
    let offset = a[3] & 0xffff_ffff | a[4] << 32;
    let pointer = vector.as_ptr() as u64;
    thread.pass(CALL, [a[0], pointer, a[2], offset, 0, a[5]])
}

/// `sendfile` with an offset of 32 bits.
pub fn sendfile<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    use super::Arg;
    let arguments = [Arg::Same, Arg::Same, Arg::Both(super::shape::LONG)];
    super::converted(thread, libc::SYS_sendfile, &arguments, a)
}

/// `struct ustat`.
pub fn ustat<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mut host = [0u8; 32];
    thread.pass(libc::SYS_ustat, [a[0], host.as_mut_ptr() as u64, 0, 0, 0, 0])?;
    // f_tfree, f_tinode (8 bytes here), then two names of 6 characters
    let mut guest = [0u8; 20];
    guest[0..4].copy_from_slice(&host[0..4]);
    guest[4..8].copy_from_slice(&host[8..12]);
    guest[8..20].copy_from_slice(&host[16..28]);
    memory::write(a[1], &guest)?;
    Ok(0)
}

/// `getcwd` and others need nothing; a list of groups of 16 bits does.
pub fn getgroups16<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mut groups = [0u32; 1 << 10];
    let room = a[0].min(groups.len() as u64);
    let arguments = [room, groups.as_mut_ptr() as u64, 0, 0, 0, 0];
    let count = thread.pass(libc::SYS_getgroups, arguments)?;
    if room != 0 {
        let narrow = groups[..count as usize].iter().map(|&id| narrow_id(id.into()) as u16);
        let bytes: Vec<u8> = narrow.flat_map(u16::to_le_bytes).collect();
        memory::write(a[1], &bytes)?;
    }
    Ok(count)
}

pub fn setgroups16<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    if a[0] > 1 << 16 {
        return Err(libc::EINVAL);
    }
    let mut bytes = vec![0; 2 * a[0] as usize];
    memory::read(a[1], &mut bytes)?;
    let groups: Vec<u32> =
        bytes.as_chunks().0.iter().map(|pair| u16::from_le_bytes(*pair).into()).collect();
    thread.pass(libc::SYS_setgroups, [a[0], groups.as_ptr() as u64, 0, 0, 0, 0])
}

/// `getuid` and its kin of 16 bits.
pub fn own_id16<G: Guest, const CALL: i64>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    thread.pass(CALL, a).map(narrow_id)
}

/// `getresuid` and `getresgid` of 16 bits.
pub fn three_ids16<G: Guest, const CALL: i64>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mut ids = [0u32; 3];
    let at = ids.as_mut_ptr() as u64;
    let bytes = size_of::<u32>() as u64;
    thread.pass(CALL, [at, at + bytes, at + 2 * bytes, 0, 0, 0])?;
    for (address, id) in a.into_iter().zip(ids) {
        memory::write_word(address, narrow_id(id.into()), 2)?;
    }
    Ok(0)
}
