//! Structures as strings of their members, and what follows from them: where a member lies at the
//! host (words of 64 bits) and at the guest (words of 32 bits).

use crate::host::Errno;
use crate::memory;

/// The members, a letter each:
/// `h` short, `i` int, `l` long, `p` pointer or unsigned long, `q` 64 bits at either;
/// `.` is padding to the size of an int, `z` a zero of 32 bits that only the guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape(pub &'static str);

/// `struct timespec`, `struct timeval`.
pub const TIME: Shape = Shape("ll");
/// `struct itimerspec`, `struct itimerval`, the argument of `utimes` and old `utimensat`.
pub const TIMES: Shape = Shape("llll");
/// `struct utimbuf`.
pub const UTIMBUF: Shape = Shape("ll");
/// `struct tms`.
pub const TMS: Shape = Shape("llll");
/// `struct rusage`.
pub const USAGE: Shape = Shape("llllllllllllllllll");
/// `struct rlimit`; all ones mean "no limit" at either.
pub const LIMIT: Shape = Shape("ll");
/// `struct statfs`.
pub const STATFS: Shape = Shape("llllllliilllllll");
/// `struct statfs64`.
pub const STATFS64: Shape = Shape("llqqqqqiilllllll");
/// `struct sysinfo`.
pub const SYSINFO: Shape = Shape("lppppppppphh.ppi");
/// `struct mq_attr`.
pub const MQ_ATTR: Shape = Shape("llllllll");
/// `struct timex`.
pub const TIMEX: Shape = Shape("illllilllllllilllllliiiiiiiiiiii");
/// `off_t`, or any long, behind a pointer.
pub const LONG: Shape = Shape("l");
/// `struct flock`.
pub const FLOCK: Shape = Shape("hhlli");
/// `struct flock64`.
pub const FLOCK64: Shape = Shape("hhqqi");

/// `struct sigevent`.
pub const SIGEVENT: Shape = Shape("piii");
/// `struct semid64_ds`.
pub const SEMAPHORES: Shape = Shape("iiiiiihhlllllllll");
/// `struct shmid64_ds`.
pub const SHARED: Shape = Shape("iiiiiihhllplzlzlziipll");
/// `struct msqid64_ds`.
pub const QUEUE: Shape = Shape("iiiiiihhlllzlzlzpppiill");
/// `struct shminfo64`.
pub const SHARED_LIMITS: Shape = Shape("ppppppppp");
/// `struct shm_info`.
pub const SHARED_USE: Shape = Shape("ippppp");

/// A member's place: offset and bytes at the host, offset and bytes at the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    host: usize,
    host_bytes: usize,
    guest: usize,
    guest_bytes: usize,
    signed: bool,
}

impl Shape {
    fn members(self) -> impl Iterator<Item = Member> {
        let (mut host, mut guest) = (0usize, 0usize);
        self.0.bytes().filter_map(move |letter| {
            let (host_bytes, guest_bytes) = match letter {
                b'h' => (2, 2),
                b'i' => (4, 4),
                b'q' => (8, 8),
                b'.' => {
                    (host, guest) = (host.next_multiple_of(4), guest.next_multiple_of(4));
                    return None;
                }
                b'z' => {
                    guest = guest.next_multiple_of(4) + 4;
                    return None;
                }
                _ => (8, 4),
            };
            // i386 aligns 64 bits to 32.
            let host_at = host.next_multiple_of(host_bytes);
            let guest_at = guest.next_multiple_of(guest_bytes.min(4));
            (host, guest) = (host_at + host_bytes, guest_at + guest_bytes);
            let signed = letter == b'l';
            Some(Member { host: host_at, host_bytes, guest: guest_at, guest_bytes, signed })
        })
    }

    /// Bytes at the guest.
    pub fn guest_bytes(self) -> usize {
        self.members().last().map_or(0, |member| member.guest + member.guest_bytes)
    }

    /// Reads the guest's structure as the host's.
    pub fn read(self, address: u64, host: &mut [u8]) -> Result<(), Errno> {
        let mut bytes = [0; super::SHAPE_BYTES_MAX];
        let guest = &mut bytes[..self.guest_bytes()];
        memory::read(address, guest)?;
        for member in self.members() {
            let mut word = [0; 8];
            word[..member.guest_bytes]
                .copy_from_slice(&guest[member.guest..][..member.guest_bytes]);
            let mut value = u64::from_le_bytes(word);
            if member.signed {
                value = value as i32 as u64;
            }
            let word = value.to_le_bytes();
            host[member.host..][..member.host_bytes].copy_from_slice(&word[..member.host_bytes]);
        }
        Ok(())
    }

    /// Writes the host's structure as the guest's.
    pub fn write(self, address: u64, host: &[u8]) -> Result<(), Errno> {
        let mut bytes = [0; super::SHAPE_BYTES_MAX];
        for member in self.members() {
            let low = &host[member.host..][..member.guest_bytes];
            bytes[member.guest..][..member.guest_bytes].copy_from_slice(low);
        }
        memory::write(address, &bytes[..self.guest_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_headers() {
        for (shape, guest, host) in [
            (TIME, 8, 16),
            (USAGE, 72, 144),
            (STATFS, 64, 120),
            (STATFS64, 84, 120),
            (SYSINFO, 56, 108),
            (TIMEX, 128, 208),
            (FLOCK, 16, 28),
            (FLOCK64, 24, 28),
        ] {
            assert_eq!(shape.guest_bytes(), guest, "{shape:?}");
            let last = shape.members().last().expect("no shape is empty");
            assert_eq!(last.host + last.host_bytes, host, "{shape:?}");
        }
    }
}
