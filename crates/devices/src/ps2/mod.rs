//! The keyboard and the mouse of the PC: what speaks at the far end of the i8042's two lines.
//! Documentation: IBM PS/2 Hardware Interface Technical Reference, keyboards and auxiliary devices.

mod keyboard;
mod mouse;
mod scancodes;

pub use keyboard::Keyboard;
pub use mouse::Mouse;
pub use scancodes::{key_bytes, translate};

use std::collections::VecDeque;

/// "Yes."
const ACKNOWLEDGE: u8 = 0xfa;
/// "Again, please."
const RESEND: u8 = 0xfe;
/// "All is well", after a reset.
const SELF_TEST: u8 = 0xaa;

/// Bytes on the way to the controller. Answers always fit; what a person does is lost when nobody
/// fetches it.
#[derive(Clone, Debug, Default)]
struct Queue(VecDeque<u8>);

device::saved!(Queue { 0 });

/// Bytes of keys and movements that wait at most.
const INPUT_BYTES_MAX: usize = 32;
/// Bytes in all.
const BYTES_MAX: usize = 64;

impl Queue {
    fn answer(&mut self, bytes: &[u8]) {
        if self.0.len() + bytes.len() <= BYTES_MAX {
            self.0.extend(bytes);
        }
    }

    /// All the bytes or none, so that no sequence is torn.
    fn input(&mut self, bytes: &[u8]) {
        if self.0.len() + bytes.len() <= INPUT_BYTES_MAX {
            self.0.extend(bytes);
        }
    }
}
