//! The mouse, with a wheel for those who ask for it: pure.

use super::{ACKNOWLEDGE, Queue, RESEND, SELF_TEST};

const LEFT: u8 = 1;
const STREAM_DEFAULT_RATE: u8 = 100;

/// The mouse.
#[derive(Clone, Debug)]
pub struct Mouse {
    queue: Queue,
    reports: bool,
    remote: bool,
    wrap: bool,
    double: bool,
    resolution: u8,
    rate: u8,
    /// The last three rates: a knock that opens the wheel.
    knock: [u8; 3],
    id: u8,
    waits: Option<u8>,
    /// Buttons: left, right, middle from bit 0, then the two at the side.
    buttons: u8,
    /// What has not been told yet: right, up, wheel.
    moved: (i32, i32, i32),
}

device::saved!(Mouse {
    queue,
    reports,
    remote,
    wrap,
    double,
    resolution,
    rate,
    knock,
    id,
    waits,
    buttons,
    moved,
});

impl Default for Mouse {
    fn default() -> Self {
        Self {
            queue: Queue::default(),
            reports: false,
            remote: false,
            wrap: false,
            double: false,
            resolution: 2,
            rate: STREAM_DEFAULT_RATE,
            knock: [0; 3],
            id: 0,
            waits: None,
            buttons: 0,
            moved: (0, 0, 0),
        }
    }
}

impl Mouse {
    /// The next byte for the controller.
    pub fn take(&mut self) -> Option<u8> {
        let byte = self.queue.0.pop_front();
        if self.queue.0.is_empty() {
            self.report_rest();
        }
        byte
    }

    /// Whether a byte waits.
    #[must_use]
    pub fn has_byte(&self) -> bool {
        !self.queue.0.is_empty()
    }

    /// Whether movements are told.
    #[must_use]
    pub fn is_listened_to(&self) -> bool {
        self.reports
    }

    /// It moves: to the right, down, and the wheel up. [`Mouse::report`] tells it.
    pub fn move_by(&mut self, right: i32, down: i32, wheel: i32) {
        /// More than anybody moves between two looks.
        const MOST: i32 = 4096;
        if !self.reports && !self.remote {
            return; // it counts only for those who asked
        }
        let add = |now: i32, by: i32| now.saturating_add(by).clamp(-MOST, MOST);
        let (x, y, z) = self.moved;
        self.moved = (add(x, right), add(y, down.saturating_neg()), add(z, wheel.saturating_neg()));
    }

    /// A button goes down or up, by its number: left, right, middle, side, extra.
    pub fn button(&mut self, number: u8, down: bool) {
        let bit = 1_u8.checked_shl(u32::from(number)).unwrap_or(0) & 0x1f;
        self.buttons = if down { self.buttons | bit } else { self.buttons & !bit };
    }

    /// Tells what has changed, if the system wants to hear of it.
    pub fn report(&mut self) {
        if self.reports && !self.remote {
            let packet = self.packet();
            self.queue.input(&packet);
        }
    }

    /// A long way takes several reports.
    fn report_rest(&mut self) {
        if self.moved != (0, 0, 0) {
            self.report();
        }
    }

    fn packet(&mut self) -> Vec<u8> {
        let part = |rest: &mut i32, least: i32, most: i32| {
            let now = (*rest).clamp(least, most);
            *rest -= now;
            now
        };
        let x = part(&mut self.moved.0, -255, 255);
        let y = part(&mut self.moved.1, -255, 255);
        let signs = u8::from(x < 0) << 4 | u8::from(y < 0) << 5;
        let mut packet = vec![8 | self.buttons & 7 | signs, x as u8, y as u8];
        match self.id {
            3 => packet.push(part(&mut self.moved.2, -127, 127) as u8),
            4 => {
                let wheel = part(&mut self.moved.2, -7, 7) as u8 & 15;
                packet.push(wheel | (self.buttons & 0x18) << 1);
            }
            _ => self.moved.2 = 0,
        }
        packet
    }

    /// A byte from the controller.
    pub fn command(&mut self, byte: u8) {
        if self.wrap && !matches!(byte, 0xec | 0xff) {
            return self.queue.answer(&[byte]);
        }
        match self.waits.take() {
            Some(0xf3) => {
                self.rate = byte;
                self.knock = [self.knock[1], self.knock[2], byte];
                match (self.knock, self.id) {
                    ([200, 100, 80], 0) => self.id = 3,
                    ([200, 200, 80], 3) => self.id = 4,
                    _ => {}
                }
                return self.queue.answer(&[ACKNOWLEDGE]);
            }
            Some(_) => {
                self.resolution = byte & 3;
                return self.queue.answer(&[ACKNOWLEDGE]);
            }
            None => {}
        }
        let mut answer = vec![ACKNOWLEDGE];
        match byte {
            0xe6 => self.double = false,
            0xe7 => self.double = true,
            0xe8 | 0xf3 => self.waits = Some(byte),
            0xe9 => {
                let status = u8::from(self.remote) << 6
                    | u8::from(self.reports) << 5
                    | u8::from(self.double) << 4
                    | (self.buttons & LEFT) << 2
                    | self.buttons >> 1 & 1
                    | self.buttons >> 1 & 2;
                answer.extend([status, self.resolution, self.rate]);
            }
            0xea => self.remote = false,
            0xeb => answer.extend(self.packet()),
            0xec => self.wrap = false,
            0xee => self.wrap = true,
            0xf0 => self.remote = true,
            0xf2 => answer.push(self.id),
            0xf4 => self.reports = true,
            0xf5 => self.reports = false,
            0xf6 => {
                *self = Self { id: self.id, buttons: self.buttons, ..Self::default() };
            }
            0xff => {
                *self = Self { buttons: self.buttons, ..Self::default() };
                answer.extend([SELF_TEST, 0]);
            }
            _ => answer = vec![RESEND],
        }
        self.queue.answer(&answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(mouse: &mut Mouse) -> Vec<u8> {
        std::iter::from_fn(|| mouse.take()).collect()
    }

    fn send(mouse: &mut Mouse, commands: &[u8]) -> Vec<u8> {
        commands.iter().for_each(|byte| mouse.command(*byte));
        bytes(mouse)
    }

    #[test]
    fn a_knock_opens_the_wheel() {
        let mut mouse = Mouse::default();
        assert_eq!(send(&mut mouse, &[0xff]), [0xfa, 0xaa, 0]);
        assert_eq!(send(&mut mouse, &[0xf2]), [0xfa, 0]);
        send(&mut mouse, &[0xf3, 200, 0xf3, 100, 0xf3, 80]);
        assert_eq!(send(&mut mouse, &[0xf2]), [0xfa, 3]);
        send(&mut mouse, &[0xf3, 200, 0xf3, 200, 0xf3, 80]);
        assert_eq!(send(&mut mouse, &[0xf2]), [0xfa, 4]);
    }

    #[test]
    fn movements_are_told_upwards_and_in_pieces() {
        let mut mouse = Mouse::default();
        mouse.move_by(5, 5, 0);
        mouse.report();
        assert!(bytes(&mut mouse).is_empty(), "nobody has asked");
        send(&mut mouse, &[0xf4]);
        mouse.move_by(5, 5, 0);
        mouse.button(0, true);
        mouse.report();
        assert_eq!(bytes(&mut mouse), [0x29, 5, 0xfb]);
        mouse.move_by(300, 0, 0);
        mouse.report();
        assert_eq!(bytes(&mut mouse), [9, 255, 0, 9, 45, 0]);
    }
}
