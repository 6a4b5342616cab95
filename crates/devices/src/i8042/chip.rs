//! The controller's registers, with what is plugged in: pure.

use crate::ps2::{Keyboard, Mouse, translate};

const OUTPUT_FULL: u8 = 1;
const SYSTEM: u8 = 1 << 2;
const COMMAND: u8 = 1 << 3;
const UNLOCKED: u8 = 1 << 4;
const OUTPUT_MOUSE: u8 = 1 << 5;

const KEYBOARD_INTERRUPT: u8 = 1;
const MOUSE_INTERRUPT: u8 = 1 << 1;
const KEYBOARD_OFF: u8 = 1 << 4;
const MOUSE_OFF: u8 = 1 << 5;
const TRANSLATE: u8 = 1 << 6;

const PORT_RUN: u8 = 1; // taken back, it resets the processor
const PORT_A20: u8 = 1 << 1;

/// What a write asks of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Reset.
    Reset,
    /// Address line 20 is passed on, or held at zero.
    A20(bool),
}

/// The byte that waits for the system, and from whom.
#[derive(Clone, Copy, Debug, Default)]
struct Output {
    byte: u8,
    mouse: bool,
}

device::saved!(Output { byte, mouse });

/// The controller.
#[derive(Clone, Debug)]
pub struct Chip {
    /// The keyboard.
    pub keyboard: Keyboard,
    /// The mouse.
    pub mouse: Mouse,
    mode: u8,
    port: u8,
    output: Option<Output>,
    last: u8,
    /// The command whose parameter comes next.
    waits: Option<u8>,
    was_command: bool,
    released: bool,
}

device::saved!(Chip { keyboard, mouse, mode, port, output, last, waits, was_command, released });

impl Default for Chip {
    fn default() -> Self {
        Self {
            keyboard: Keyboard::default(),
            mouse: Mouse::default(),
            mode: KEYBOARD_INTERRUPT | MOUSE_INTERRUPT,
            port: PORT_RUN | PORT_A20,
            output: None,
            last: 0,
            waits: None,
            was_command: false,
            released: false,
        }
    }
}

impl Chip {
    /// Levels of the two interrupts: keyboard, mouse.
    #[must_use]
    pub fn interrupts(&self) -> (bool, bool) {
        match self.output {
            Some(Output { mouse: false, .. }) => (self.mode & KEYBOARD_INTERRUPT != 0, false),
            Some(Output { mouse: true, .. }) => (false, self.mode & MOUSE_INTERRUPT != 0),
            None => (false, false),
        }
    }

    /// Fetches the next byte from keyboard or mouse, when the last one is gone.
    pub fn fetch(&mut self) {
        while self.output.is_none() {
            if self.mode & KEYBOARD_OFF == 0 && self.keyboard.has_byte() {
                let Some(byte) = self.keyboard.take() else { return };
                if self.mode & TRANSLATE == 0 {
                    self.output = Some(Output { byte, mouse: false });
                    continue;
                }
                match translate(byte, self.released) {
                    Some(byte) => {
                        self.released = false;
                        self.output = Some(Output { byte, mouse: false });
                    }
                    None => self.released = true,
                }
            } else if self.mode & MOUSE_OFF == 0 && self.mouse.has_byte() {
                let Some(byte) = self.mouse.take() else { return };
                self.output = Some(Output { byte, mouse: true });
            } else {
                return;
            }
        }
    }

    /// Port 0x64, read.
    #[must_use]
    pub fn status(&self) -> u8 {
        let output = match self.output {
            Some(Output { mouse: false, .. }) => OUTPUT_FULL,
            Some(Output { mouse: true, .. }) => OUTPUT_FULL | OUTPUT_MOUSE,
            None => 0,
        };
        let command = if self.was_command { COMMAND } else { 0 };
        output | command | self.mode & SYSTEM | UNLOCKED
    }

    /// Port 0x60, read.
    pub fn read_data(&mut self) -> u8 {
        if let Some(output) = self.output.take() {
            self.last = output.byte;
        }
        self.fetch();
        self.last
    }

    fn answer(&mut self, byte: u8) {
        self.output = Some(Output { byte, mouse: false });
    }

    /// Port 0x64, written.
    pub fn write_command(&mut self, command: u8) -> Effect {
        self.was_command = true;
        self.waits = None;
        match command {
            0x20 => self.answer(self.mode),
            0x21..=0x3f => self.answer(0),
            0x60..=0x7f | 0xd1..=0xd4 => self.waits = Some(command),
            0xa7 => self.mode |= MOUSE_OFF,
            0xa8 => self.mode &= !MOUSE_OFF,
            0xa9 | 0xab => self.answer(0), // both lines are well
            0xaa => {
                self.mode |= SYSTEM;
                self.answer(0x55);
            }
            0xad => self.mode |= KEYBOARD_OFF,
            0xae => self.mode &= !KEYBOARD_OFF,
            0xc0 => self.answer(0x80), // not locked
            0xd0 => {
                let (keyboard, mouse) = self.interrupts();
                self.answer(self.port | u8::from(keyboard) << 4 | u8::from(mouse) << 5);
            }
            0xdd | 0xdf => {
                let open = command == 0xdf;
                self.port = self.port & !PORT_A20 | if open { PORT_A20 } else { 0 };
                return Effect::A20(open);
            }
            // Pulses low those of the four lowest lines whose bits are zero.
            0xf0..=0xff if command & PORT_RUN == 0 => return Effect::Reset,
            _ => {}
        }
        self.fetch();
        Effect::None
    }

    /// Port 0x60, written.
    pub fn write_data(&mut self, byte: u8) -> Effect {
        self.was_command = false;
        match self.waits.take() {
            Some(0x60) => self.mode = byte,
            Some(0xd1) => {
                self.port = byte | PORT_RUN;
                if byte & PORT_RUN == 0 {
                    return Effect::Reset;
                }
                return Effect::A20(byte & PORT_A20 != 0);
            }
            Some(0xd2) => self.answer(byte),
            Some(0xd3) => self.output = Some(Output { byte, mouse: true }),
            Some(0xd4) => self.mouse.command(byte),
            Some(_) => {}
            None => {
                // Speaking to the keyboard switches it on.
                self.mode &= !KEYBOARD_OFF;
                self.keyboard.command(byte);
            }
        }
        self.fetch();
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_of_the_keyboard_is_answered_translated() {
        let mut chip = Chip::default();
        chip.write_command(0x60);
        chip.write_data(TRANSLATE | KEYBOARD_INTERRUPT);
        chip.write_data(0xff);
        assert_eq!((chip.status() & 0x21, chip.interrupts()), (1, (true, false)));
        assert_eq!([0; 2].map(|_| chip.read_data()), [0xfa, 0xaa]);
        chip.write_data(0xf2);
        assert_eq!([0; 3].map(|_| chip.read_data()), [0xfa, 0xab, 0x41]);
        assert_eq!((chip.status() & 1, chip.interrupts()), (0, (false, false)));
        chip.keyboard.key(30, false);
        chip.fetch();
        assert_eq!(chip.read_data(), 0x9e);
    }

    #[test]
    fn the_mouse_answers_on_its_own_line() {
        let mut chip = Chip::default();
        chip.write_command(0xd4);
        chip.write_data(0xf2);
        assert_eq!((chip.status() & 0x21, chip.interrupts()), (0x21, (false, true)));
        assert_eq!([0; 2].map(|_| chip.read_data()), [0xfa, 0]);
    }

    #[test]
    fn two_ways_lead_to_a_reset() {
        let mut chip = Chip::default();
        assert_eq!(chip.write_command(0xfe), Effect::Reset);
        chip.write_command(0xd1);
        assert_eq!(chip.write_data(2), Effect::Reset);
        assert_eq!(chip.write_command(0xff), Effect::None);
    }

    #[test]
    fn random_writes_break_nothing() {
        let mut chip = Chip::default();
        let mut seed = 5_u64;
        for _ in 0..100_000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let byte = (seed >> 40) as u8;
            match seed >> 60 {
                0..6 => _ = chip.write_data(byte),
                6..10 => _ = chip.write_command(byte),
                10 => chip.keyboard.key((seed >> 30 & 0x1ff) as u16, seed & 1 << 20 != 0),
                11 => {
                    chip.mouse.move_by((seed >> 8) as i32, (seed >> 16) as i32, (seed >> 4) as i32);
                }
                12 => chip.mouse.report(),
                _ => _ = chip.read_data(),
            }
        }
    }
}
