//! The keyboard: pure.

use super::scancodes::key_bytes;
use super::{ACKNOWLEDGE, Queue, RESEND, SELF_TEST};

/// The keyboard.
#[derive(Clone, Debug)]
pub struct Keyboard {
    queue: Queue,
    scans: bool,
    lights: u8,
    set: u8,
    /// The command whose parameter comes next.
    waits: Option<u8>,
}

device::saved!(Keyboard { queue, scans, lights, set, waits });

impl Default for Keyboard {
    fn default() -> Self {
        Self { queue: Queue::default(), scans: true, lights: 0, set: 2, waits: None }
    }
}

impl Keyboard {
    /// The lights: scroll, num, caps lock from bit 0.
    #[must_use]
    pub fn lights(&self) -> u8 {
        self.lights
    }

    /// The next byte for the controller.
    pub fn take(&mut self) -> Option<u8> {
        self.queue.0.pop_front()
    }

    /// Whether a byte waits.
    #[must_use]
    pub fn has_byte(&self) -> bool {
        !self.queue.0.is_empty()
    }

    /// A key goes down or up.
    pub fn key(&mut self, code: u16, down: bool) {
        if self.scans {
            self.queue.input(&key_bytes(code, down, self.set == 1));
        }
    }

    /// A byte from the controller.
    pub fn command(&mut self, byte: u8) {
        let queue = &mut self.queue;
        match self.waits.take() {
            Some(0xed) => {
                self.lights = byte & 7;
                return queue.answer(&[ACKNOWLEDGE]);
            }
            Some(0xf0) => {
                match byte {
                    0 => queue.answer(&[ACKNOWLEDGE, self.set]),
                    1..=3 => {
                        self.set = byte;
                        queue.answer(&[ACKNOWLEDGE]);
                    }
                    _ => queue.answer(&[RESEND]),
                }
                return;
            }
            Some(_) => return queue.answer(&[ACKNOWLEDGE]), // the rate of repetition
            None => {}
        }
        match byte {
            0xed | 0xf0 | 0xf3 => {
                self.waits = Some(byte);
                queue.answer(&[ACKNOWLEDGE]);
            }
            0xee => queue.answer(&[0xee]),
            0xf2 => queue.answer(&[ACKNOWLEDGE, 0xab, 0x83]),
            0xf4 => {
                self.scans = true;
                queue.answer(&[ACKNOWLEDGE]);
            }
            0xf5 | 0xf6 => {
                *self = Self { scans: byte == 0xf6, lights: self.lights, ..Self::default() };
                self.queue.answer(&[ACKNOWLEDGE]);
            }
            0xff => {
                *self = Self::default();
                self.queue.answer(&[ACKNOWLEDGE, SELF_TEST]);
            }
            0xf7..=0xfd => queue.answer(&[ACKNOWLEDGE]), // kinds of keys, of set 3 alone
            _ => queue.answer(&[RESEND]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(keyboard: &mut Keyboard) -> Vec<u8> {
        std::iter::from_fn(|| keyboard.take()).collect()
    }

    #[test]
    fn commands_are_answered() {
        for (bytes, expected) in [
            (&[0xff][..], &[0xfa, 0xaa][..]),
            (&[0xf2], &[0xfa, 0xab, 0x83]),
            (&[0xed, 2], &[0xfa, 0xfa]),
            (&[0xf0, 0], &[0xfa, 0xfa, 2]),
            (&[0xee], &[0xee]),
            (&[0x12], &[0xfe]),
        ] {
            let mut keyboard = Keyboard::default();
            bytes.iter().for_each(|byte| keyboard.command(*byte));
            assert_eq!(answers(&mut keyboard), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn keys_come_in_the_chosen_set_and_only_while_it_scans() {
        let mut keyboard = Keyboard::default();
        keyboard.key(30, true);
        assert_eq!(answers(&mut keyboard), [0x1c]);
        [0xf0, 1].iter().for_each(|byte| keyboard.command(*byte));
        keyboard.key(30, false);
        assert_eq!(answers(&mut keyboard), [0xfa, 0xfa, 0x9e]);
        keyboard.command(0xf5);
        keyboard.key(30, true);
        assert_eq!(answers(&mut keyboard), [0xfa]);
        keyboard.command(0xf4);
        (0..100).for_each(|_| keyboard.key(105, false));
        let bytes = answers(&mut keyboard);
        assert_eq!((bytes.len() - 1) % 3, 0, "no sequence is torn");
    }
}
