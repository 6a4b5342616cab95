//! Keys and pointers: from whoever types to the devices that a guest reads them from.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// A button of a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Button {
    /// The left one.
    Left,
    /// The right one.
    Right,
    /// The middle one, or the wheel pressed.
    Middle,
    /// The wheel, one notch up.
    WheelUp,
    /// The wheel, one notch down.
    WheelDown,
    /// The wheel to the left.
    WheelLeft,
    /// The wheel to the right.
    WheelRight,
    /// The fourth.
    Side,
    /// The fifth.
    Extra,
}

/// An axis of a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// To the right.
    X,
    /// Down.
    Y,
}

/// Absolute axes go from 0 to this.
pub const ABSOLUTE_MAX: u16 = 0x7fff;

/// What befalls a keyboard or a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputEvent {
    /// A key by its number in Linux's `input-event-codes.h`, down or up.
    Key {
        /// Which.
        code: u16,
        /// Down, or up.
        down: bool,
    },
    /// A button, down or up.
    Button {
        /// Which.
        button: Button,
        /// Down, or up.
        down: bool,
    },
    /// A movement.
    Relative {
        /// Along this axis.
        axis: Axis,
        /// So far.
        by: i32,
    },
    /// A place, from 0 to [`ABSOLUTE_MAX`].
    Absolute {
        /// On this axis.
        axis: Axis,
        /// Here.
        at: u16,
    },
}

/// What a device takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct InputKinds {
    /// Keys.
    pub keys: bool,
    /// Movements, and buttons with them.
    pub relative: bool,
    /// Places, and buttons with them.
    pub absolute: bool,
}

/// A keyboard or a pointer of the guest. Called from viewers' threads without locks.
pub trait InputDevice: Send + Sync {
    /// What it takes.
    fn kinds(&self) -> InputKinds;

    /// Events that belong together, in order. What there is no room for is lost.
    fn input(&self, events: &[InputEvent]);

    /// Whether the guest listens; a device that it ignores is passed over.
    fn is_listening(&self) -> bool {
        true
    }

    /// The lights of a keyboard as the guest has set them: scroll, num, caps lock from bit 0.
    fn lights(&self) -> Option<u8> {
        None
    }
}

/// All input devices of a machine. For each kind of event the device that came last and listens
/// gets it, as a person would expect of a tablet that is plugged in beside a mouse.
#[derive(Default)]
pub struct Inputs {
    devices: Mutex<Vec<(String, Weak<dyn InputDevice>)>>,
}

impl Inputs {
    /// Adds a device.
    pub fn add(&self, id: &str, device: Weak<dyn InputDevice>) {
        let mut devices = self.devices.lock();
        devices.retain(|(_, device)| device.strong_count() > 0);
        devices.push((id.to_owned(), device));
    }

    /// Those that exist.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Arc<dyn InputDevice>)> {
        let devices = self.devices.lock();
        devices.iter().filter_map(|(id, device)| Some((id.clone(), device.upgrade()?))).collect()
    }

    /// Whether the pointer in use takes places rather than movements.
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        let pointer = self.find(|kinds| kinds.relative || kinds.absolute);
        pointer.is_some_and(|pointer| pointer.kinds().absolute)
    }

    fn find(&self, takes: impl Fn(InputKinds) -> bool) -> Option<Arc<dyn InputDevice>> {
        let fits = |device: &Arc<dyn InputDevice>| takes(device.kinds());
        let mut fitting: Vec<_> =
            self.all().into_iter().map(|(_, device)| device).filter(fits).collect();
        let listening = fitting.iter().rposition(|device| device.is_listening());
        let at = listening.or(fitting.len().checked_sub(1))?;
        Some(fitting.swap_remove(at))
    }

    /// Brings events that belong together to the devices that take them.
    pub fn send(&self, events: &[InputEvent]) {
        let is_key = |event: &&InputEvent| matches!(event, InputEvent::Key { .. });
        let (keys, pointer): (Vec<_>, Vec<_>) = events.iter().partition(is_key);
        if let Some(keyboard) = self.find(|kinds| kinds.keys).filter(|_| !keys.is_empty()) {
            keyboard.input(&keys);
        }
        if pointer.is_empty() {
            return;
        }
        let places = pointer.iter().any(|event| matches!(event, InputEvent::Absolute { .. }));
        let moves = pointer.iter().any(|event| matches!(event, InputEvent::Relative { .. }));
        let device = self.find(|kinds| match (places, moves) {
            (true, _) => kinds.absolute,
            (false, true) => kinds.relative,
            (false, false) => kinds.relative || kinds.absolute,
        });
        if let Some(device) = device {
            device.input(&pointer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Taker(InputKinds, bool, Mutex<Vec<InputEvent>>);

    impl InputDevice for Taker {
        fn kinds(&self) -> InputKinds {
            self.0
        }

        fn input(&self, events: &[InputEvent]) {
            self.2.lock().extend(events);
        }

        fn is_listening(&self) -> bool {
            self.1
        }
    }

    #[test]
    fn the_last_device_that_listens_gets_the_event() {
        let taker = |kinds, listens| Arc::new(Taker(kinds, listens, Mutex::default()));
        let none = InputKinds::default();
        let keyboard = taker(InputKinds { keys: true, ..none }, true);
        let mouse = taker(InputKinds { relative: true, ..none }, true);
        let tablet = taker(InputKinds { absolute: true, ..none }, false);
        let inputs = Inputs::default();
        for device in [&keyboard, &mouse, &tablet] {
            inputs.add("x", Arc::downgrade(device) as Weak<dyn InputDevice>);
        }
        let key = InputEvent::Key { code: 30, down: true };
        let click = InputEvent::Button { button: Button::Left, down: true };
        let place = InputEvent::Absolute { axis: Axis::X, at: 5 };
        inputs.send(&[key, click]);
        inputs.send(&[place]);
        assert_eq!(*keyboard.2.lock(), [key]);
        assert_eq!(*mouse.2.lock(), [click]);
        assert_eq!(*tablet.2.lock(), [place], "a place is of no use to a mouse");
        assert!(!inputs.is_absolute());
    }
}
