//! Randomness from the kernel.

use libvirt_compat::Uuid;
use rustix::rand::{GetRandomFlags, getrandom};

/// Sixteen fresh bytes.
pub fn bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => unreachable!("the kernel has randomness: {error}"),
        }
    }
    bytes
}

/// A new UUID.
pub fn uuid() -> Uuid {
    Uuid::from_random(bytes())
}
