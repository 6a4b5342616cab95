//! Device controls: those whose arguments are the same everywhere, and those to convert.

use std::mem::size_of;

use super::shape::{LONG, Shape};
use crate::guest::Guest;
use crate::host::Answer;
use crate::memory;
use crate::thread::Thread;

/// What an `ioctl`'s argument is.
#[derive(Clone, Copy)]
enum Form {
    /// None, a number, or a structure without longs and pointers.
    Same,
    /// It has another number at the host, for it has the size of a long in it.
    Renumbered(u64),
    /// The host fills in a structure.
    Out(Shape),
    /// `struct ifreq`, which is longer at the host.
    Interface,
    /// `struct ifconf`, which points to a list of them.
    Interfaces,
}

/// A range of numbers and their form.
const TABLE: &[(u64, u64, Form)] = &[
    (0x5401, 0x5408, Form::Same),           // TCGETS to TCSETAF
    (0x5409, 0x541f, Form::Same),           // TCSBRK to TIOCSSERIAL
    (0x5420, 0x542f, Form::Same),           // TIOCPKT to TIOCGRS485
    (0x5432, 0x5435, Form::Same),           // TCGETX to TCSETXW
    (0x5437, 0x5441, Form::Same),           // TIOCVHANGUP to TIOCGPTPEER
    (0x5450, 0x545d, Form::Same),           // FIONCLEX to TIOCGICOUNT
    (0x5460, 0x5460, Form::Same),           // FIOQSIZE
    (0x802c_542a, 0x802c_542a, Form::Same), // TCGETS2
    (0x402c_542b, 0x402c_542d, Form::Same), // TCSETS2 to TCSETSF2
    (0x8004_5430, 0x8004_5430, Form::Same), // TIOCGPTN
    (0x4004_5431, 0x4004_5436, Form::Same), // TIOCSPTLCK, TIOCSIG
    (0x8004_5432, 0x8004_5440, Form::Same), // TIOCGDEV to TIOCGEXCL
    (0x8901, 0x8905, Form::Same),           // FIOSETOWN to SIOCATMARK
    (0x8910, 0x8911, Form::Interface),      // SIOCGIFNAME, SIOCSIFLINK
    (0x8912, 0x8912, Form::Interfaces),     // SIOCGIFCONF
    (0x8913, 0x8927, Form::Interface),      // SIOCGIFFLAGS to SIOCGIFHWADDR
    (0x8930, 0x8939, Form::Interface),      // SIOCGIFPFLAGS to SIOCGIFCOUNT
    (0x8942, 0x8943, Form::Interface),      // SIOCGIFTXQLEN
    (0x8970, 0x8971, Form::Interface),      // SIOCGIFMAP
    (0x125d, 0x125f, Form::Same),           // BLKROSET to BLKRRPART
    (0x1260, 0x1260, Form::Out(LONG)),      // BLKGETSIZE
    (0x1261, 0x1268, Form::Same),           // BLKFLSBUF to BLKSSZGET
    (0x1277, 0x127f, Form::Same),           // BLKDISCARD to BLKZEROOUT
    (0x8004_1272, 0x8004_1272, Form::Renumbered(0x8008_1272)), // BLKGETSIZE64
    (0x4004_1271, 0x4004_1271, Form::Renumbered(0x4008_1271)), // BLKBSZSET
    (0x8004_1270, 0x8004_1270, Form::Renumbered(0x8008_1270)), // BLKBSZGET
    (0x8004_6601, 0x8004_6601, Form::Renumbered(0x8008_6601)), // FS_IOC_GETFLAGS
    (0x4004_6602, 0x4004_6602, Form::Renumbered(0x4008_6602)), // FS_IOC_SETFLAGS
    (0x8004_7601, 0x8004_7601, Form::Renumbered(0x8008_7601)), // FS_IOC_GETVERSION
    (0x4004_7602, 0x4004_7602, Form::Renumbered(0x4008_7602)), // FS_IOC_SETVERSION
    (0xc020_660b, 0xc020_660b, Form::Same), // FS_IOC_FIEMAP
    (0x801c_581f, 0x801c_581f, Form::Same), // FS_IOC_FSGETXATTR
    (0x401c_5820, 0x401c_5820, Form::Same), // FS_IOC_FSSETXATTR
    (0xc004_5877, 0xc018_5879, Form::Same), // FIFREEZE, FITHAW, FITRIM
    (0x4004_9409, 0x4004_9409, Form::Same), // FICLONE
    (0x4020_940d, 0x4020_940d, Form::Same), // FICLONERANGE
    (0xc018_9436, 0xc018_9436, Form::Same), // FIDEDUPERANGE
    (0x4c00, 0x4c01, Form::Same),           // LOOP_SET_FD, LOOP_CLR_FD
    (0x4c04, 0x4c0a, Form::Same),           // LOOP_SET_STATUS64 to LOOP_CONFIGURE
    (0x4c80, 0x4c82, Form::Same),           // LOOP_CTL_ADD to LOOP_CTL_GET_FREE
    (0x4b30, 0x4b3b, Form::Same),           // KDGETLED to KDGETMODE, KDMKTONE
    (0x4b44, 0x4b45, Form::Same),           // KDGKBMODE, KDSKBMODE
    (0x5600, 0x560a, Form::Same),           // VT_OPENQRY to VT_RESIZEX
    (0x8004_5200, 0x8008_5203, Form::Same), // RNDGETENTCNT to RNDGETPOOL
    (0x5204, 0x5207, Form::Same),           // RNDZAPENTCNT to RNDRESEEDCRNG
    (0x4004_54ca, 0x4004_54cd, Form::Same), // TUNSETIFF's neighbours
    (0x8004_54cf, 0x8004_54d3, Form::Same), // TUNGETFEATURES to TUNGETSNDBUF
    (0x8004_b705, 0x8004_b708, Form::Same), // PIDFD
    (0xb701, 0xb704, Form::Same),           // NS_GET_USERNS to NS_GET_OWNER_UID
    (0x4008_4d00, 0x4008_4d00, Form::Same),
    (0x8024_7009, 0x8024_7009, Form::Same), // RTC_RD_TIME
];

pub fn ioctl<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let number = a[1] & 0xffff_ffff;
    let row = TABLE.iter().find(|(first, last, _)| (*first..=*last).contains(&number));
    let Some(&(_, _, form)) = row else {
        thread
            .process
            .name_once(1 << 32 | number, || format!("Unsupported ioctl: cmd=0x{number:04x}"));
        return Err(libc::ENOTTY);
    };
    let call = |thread: &mut Thread<G>, number, argument| {
        thread.pass(libc::SYS_ioctl, [a[0], number, argument, 0, 0, 0])
    };
    match form {
        Form::Same => call(thread, number, a[2]),
        Form::Renumbered(host) => call(thread, host, a[2]),
        Form::Out(shape) => {
            let mut host = [0u8; super::SHAPE_BYTES_MAX];
            let answer = call(thread, number, host.as_mut_ptr() as u64)?;
            shape.write(a[2], &host)?;
            Ok(answer)
        }
        Form::Interface => {
            let mut request = [0u8; size_of::<libc::ifreq>()];
            memory::read(a[2], &mut request[..INTERFACE_BYTES])?;
            let answer = call(thread, number, request.as_mut_ptr() as u64)?;
            memory::write(a[2], &request[..INTERFACE_BYTES])?;
            Ok(answer)
        }
        Form::Interfaces => interfaces(thread, a),
    }
}

/// Bytes of a guest's `struct ifreq`.
const INTERFACE_BYTES: usize = 32;

fn interfaces<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let [room, list] = super::words::<2>(a[2])?;
    let host_bytes = size_of::<libc::ifreq>();
    let count = (room as usize).min(1 << 16) / INTERFACE_BYTES;
    let mut requests = vec![0u8; count * host_bytes];
    let pointer = if list == 0 { 0 } else { requests.as_mut_ptr() as u64 };
    let mut books = [requests.len() as u64, pointer];
    let at = books.as_mut_ptr() as u64;
    let answer = thread.pass(libc::SYS_ioctl, [a[0], a[1], at, 0, 0, 0])?;
    let found = (books[0] & 0xffff_ffff) as usize / host_bytes;
    if list != 0 {
        for (index, request) in requests.chunks_exact(host_bytes).take(found).enumerate() {
            memory::write(list + (index * INTERFACE_BYTES) as u64, &request[..INTERFACE_BYTES])?;
        }
    }
    memory::write_word(a[2], (found * INTERFACE_BYTES) as u64, 4)?;
    Ok(answer)
}
