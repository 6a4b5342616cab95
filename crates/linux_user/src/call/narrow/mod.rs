//! Guests whose words have 32 bits: their structures are converted to the host's and back.

pub mod calls;
mod directory;
mod file;
mod ioctl;
mod ipc;
mod process;
mod shape;
mod signal;
mod socket;
mod time;
mod vector;

pub use shape::Shape;
pub use signal::narrow_info;

pub use directory::hold_cookies;

use crate::guest::Guest;
use crate::host::Answer;
use crate::memory;
use crate::thread::Thread;

/// What an argument of a guest with 32-bit words is for the host.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// A number without sign, an `int` or an address.
    Same,
    /// A `long` with sign.
    Signed,
    /// A number of 64 bits in two words, the low one first.
    Pair,
    /// A user or group of 16 bits, of which all ones mean "none".
    Id,
    /// A path that may lie below the prefix.
    Path,
    /// A structure that the call reads, unless the pointer is null.
    In(Shape),
    /// A structure that the call writes.
    Out(Shape),
    /// A structure that the call reads and writes.
    Both(Shape),
}

/// The longest structure of the host that a shape describes.
const SHAPE_BYTES_MAX: usize = 256;

/// A call whose arguments are converted by description.
pub fn converted<G: Guest>(
    thread: &mut Thread<G>,
    number: i64,
    arguments: &[Arg],
    guest: [u64; 6],
) -> Answer {
    let mut host = [0; 6];
    let mut structures = [[0u8; SHAPE_BYTES_MAX]; 2];
    let mut used = 0;
    let mut paths = Vec::new();
    let mut back: [Option<(Shape, u64, usize)>; 2] = [None; 2];
    let mut words = guest.into_iter();
    let mut next = || words.next().unwrap_or(0);
    for (index, place) in host.iter_mut().enumerate() {
        let argument = arguments.get(index).copied().unwrap_or(Arg::Same);
        let word = next();
        *place = match argument {
            Arg::Same => word,
            Arg::Signed => word as i32 as u64,
            Arg::Pair => word | next() << 32,
            Arg::Id => wide_id(word),
            Arg::Path if word == 0 => 0,
            Arg::Path => {
                let path = super::file::host_path(thread, word)?;
                let pointer = path.as_ptr() as u64;
                paths.push(path);
                pointer
            }
            Arg::In(_) | Arg::Out(_) | Arg::Both(_) if word == 0 => 0,
            Arg::In(shape) | Arg::Out(shape) | Arg::Both(shape) => {
                let buffer = &mut structures[used];
                if !matches!(argument, Arg::Out(_)) {
                    shape.read(word, buffer)?;
                }
                if !matches!(argument, Arg::In(_)) {
                    back[used] = Some((shape, word, used));
                }
                used += 1;
                buffer.as_mut_ptr() as u64
            }
        };
    }
    let answer = thread.pass(number, host)?;
    for (shape, address, index) in back.into_iter().flatten() {
        shape.write(address, &structures[index])?;
    }
    Ok(answer)
}

/// A user or group of 16 bits as one of 32.
pub fn wide_id(id: u64) -> u64 {
    if id & 0xffff == 0xffff { u64::from(u32::MAX) } else { id & 0xffff }
}

/// A user or group as one of 16 bits; those that do not fit are "nobody".
pub fn narrow_id(id: u64) -> u64 {
    const OVERFLOW: u64 = 65534;
    if id > 0xffff { OVERFLOW } else { id }
}

/// Reads words of 32 bits.
pub fn words<const N: usize>(address: u64) -> Result<[u64; N], i32> {
    let mut words = [0; N];
    for (place, word) in (0..).zip(&mut words) {
        *word = memory::read_word(address + 4 * place, 4)?;
    }
    Ok(words)
}
