//! Keyboard, mouse, tablet.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};

use device::{
    Axis, Button, Device, Fields, InputDevice, InputEvent, InputKinds, Property, PropertyKind,
    StateError,
};
use parking_lot::Mutex;

use super::keys::usage;
use super::{RootHub, Setup, Speed, Stall, UsbDevice};
use crate::catalog::{BuildError, Built, BusKind, Category, Child, Model, Request, declare};

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Keyboard,
    Mouse,
    Tablet,
}

const TABLET_REPORT: &[u8] = &[
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, // a pointer
    0x05, 0x09, 0x19, 0x01, 0x29, 0x05, 0x15, 0x00, 0x25, 0x01, // five buttons
    0x95, 0x05, 0x75, 0x01, 0x81, 0x02, 0x95, 0x01, 0x75, 0x03, 0x81, 0x01, // and three bits
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x15, 0x00, 0x26, 0xff, 0x7f, // places to 0x7fff
    0x35, 0x00, 0x46, 0xff, 0x7f, 0x75, 0x10, 0x95, 0x02, 0x81, 0x02, //
    0x09, 0x38, 0x15, 0x81, 0x25, 0x7f, 0x35, 0x00, 0x45, 0x00, // a wheel
    0x75, 0x08, 0x95, 0x01, 0x81, 0x06, 0xc0, 0xc0,
];

const MOUSE_REPORT: &[u8] = &[
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, // a pointer
    0x05, 0x09, 0x19, 0x01, 0x29, 0x05, 0x15, 0x00, 0x25, 0x01, // five buttons
    0x95, 0x05, 0x75, 0x01, 0x81, 0x02, 0x95, 0x01, 0x75, 0x03, 0x81, 0x01, // and three bits
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x09, 0x38, // movements and a wheel
    0x15, 0x81, 0x25, 0x7f, 0x75, 0x08, 0x95, 0x03, 0x81, 0x06, 0xc0, 0xc0,
];

const KEYBOARD_REPORT: &[u8] = &[
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, // a keyboard
    0x75, 0x01, 0x95, 0x08, 0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, // modifiers
    0x15, 0x00, 0x25, 0x01, 0x81, 0x02, 0x95, 0x01, 0x75, 0x08, 0x81, 0x01, // a free byte
    0x95, 0x05, 0x75, 0x01, 0x05, 0x08, 0x19, 0x01, 0x29, 0x05, 0x91, 0x02, // lights
    0x95, 0x01, 0x75, 0x03, 0x91, 0x01, //
    0x95, 0x06, 0x75, 0x08, 0x15, 0x00, 0x26, 0xff, 0x00, 0x05, 0x07, // six keys
    0x19, 0x00, 0x2a, 0xff, 0x00, 0x81, 0x00, 0xc0,
];

impl Kind {
    fn report(self) -> &'static [u8] {
        match self {
            Self::Keyboard => KEYBOARD_REPORT,
            Self::Mouse => MOUSE_REPORT,
            Self::Tablet => TABLET_REPORT,
        }
    }

    fn product(self) -> &'static str {
        match self {
            Self::Keyboard => "Hostel USB Keyboard",
            Self::Mouse => "Hostel USB Mouse",
            Self::Tablet => "Hostel USB Tablet",
        }
    }

    /// Subclass and protocol: a firmware can use keyboard and mouse without reading reports.
    fn protocol(self) -> (u8, u8) {
        match self {
            Self::Keyboard => (1, 1),
            Self::Mouse => (1, 2),
            Self::Tablet => (0, 0),
        }
    }

    fn report_bytes(self) -> u8 {
        match self {
            Self::Keyboard => 8,
            Self::Mouse => 4,
            Self::Tablet => 6,
        }
    }
}

/// Reports that wait at most.
const REPORTS_MAX: usize = 16;

#[derive(Clone, Default)]
struct State {
    configuration: u8,
    idle: u8,
    protocol: u8,
    lights: u8,
    reports: VecDeque<Vec<u8>>,
    last: Vec<u8>,
    /// Keyboard: modifiers, and the keys that are down.
    modifiers: u8,
    keys: Vec<u8>,
    /// Pointers: buttons, place, and what has not been told.
    buttons: u8,
    place: [u16; 2],
}

device::saved!(State {
    configuration,
    idle,
    protocol,
    lights,
    reports,
    last,
    modifiers,
    keys,
    buttons,
    place,
} check |state: &State| state.keys.len() <= 256 && state.reports.len() <= REPORTS_MAX);

impl State {
    fn keyboard_report(&self) -> Vec<u8> {
        const ROLL_OVER: u8 = 1;
        let mut report = vec![self.modifiers, 0, 0, 0, 0, 0, 0, 0];
        if self.keys.len() > 6 {
            report[2..].fill(ROLL_OVER);
        } else {
            report[2..2 + self.keys.len()].copy_from_slice(&self.keys);
        }
        report
    }

    fn key(&mut self, code: u16, down: bool) {
        let Some(usage) = usage(code) else { return };
        if let Some(bit) = usage.checked_sub(0xe0) {
            let bit = 1_u8.checked_shl(u32::from(bit)).unwrap_or(0);
            self.modifiers = if down { self.modifiers | bit } else { self.modifiers & !bit };
        } else {
            self.keys.retain(|key| *key != usage);
            if down {
                self.keys.push(usage);
            }
        }
        let report = self.keyboard_report();
        self.push(report, false);
    }

    /// Adds a report; one that only moves takes the place of another such one when many wait.
    fn push(&mut self, report: Vec<u8>, replaces: bool) {
        if self.reports.len() >= REPORTS_MAX {
            if !replaces {
                return;
            }
            self.reports.pop_back();
        }
        self.last.clone_from(&report);
        self.reports.push_back(report);
    }

    fn pointer(&mut self, kind: Kind, events: &[InputEvent]) {
        let (mut moved, mut wheel, mut pressed) = ([0_i32; 2], 0_i32, false);
        for event in events {
            match *event {
                InputEvent::Relative { axis, by } => {
                    let moved = &mut moved[usize::from(axis == Axis::Y)];
                    *moved = moved.saturating_add(by);
                }
                InputEvent::Absolute { axis, at } => {
                    self.place[usize::from(axis == Axis::Y)] = at.min(device::ABSOLUTE_MAX);
                }
                InputEvent::Button { button, down } => {
                    pressed = true;
                    let bit = match button {
                        Button::Left => 1,
                        Button::Right => 2,
                        Button::Middle => 4,
                        Button::Side => 8,
                        Button::Extra => 16,
                        Button::WheelUp => {
                            wheel += i32::from(down);
                            0
                        }
                        Button::WheelDown => {
                            wheel -= i32::from(down);
                            0
                        }
                        Button::WheelLeft | Button::WheelRight => 0,
                    };
                    self.buttons = if down { self.buttons | bit } else { self.buttons & !bit };
                }
                InputEvent::Key { .. } => {}
            }
        }
        let small = |value: i32| value.clamp(-127, 127) as i8 as u8;
        let report = match kind {
            Kind::Tablet => {
                let [x, y] = self.place.map(u16::to_le_bytes);
                vec![self.buttons, x[0], x[1], y[0], y[1], small(wheel)]
            }
            _ => vec![self.buttons, small(moved[0]), small(moved[1]), small(wheel)],
        };
        self.push(report, !pressed);
    }
}

/// A keyboard, a mouse or a tablet on a port.
struct Hid {
    kind: Kind,
    serial: String,
    hub: Arc<RootHub>,
    port: OnceLock<usize>,
    state: Mutex<State>,
}

impl Hid {
    fn descriptor(&self, kind: u8, index: u8) -> Option<Vec<u8>> {
        Some(match kind {
            1 => vec![18, 1, 0, 2, 0, 0, 0, 64, 0x27, 0x06, 1, 0, 0, 0, 1, 2, 3, 1],
            2 => self.configuration(),
            3 => self.text(index)?,
            6 => vec![10, 6, 0, 2, 0, 0, 0, 64, 1, 0], // what it would be at full speed
            0x21 => self.class_descriptor(),
            0x22 => self.kind.report().to_vec(),
            _ => return None,
        })
    }

    fn class_descriptor(&self) -> Vec<u8> {
        let [low, high] = (self.kind.report().len() as u16).to_le_bytes();
        vec![9, 0x21, 0x11, 0x01, 0, 1, 0x22, low, high]
    }

    fn configuration(&self) -> Vec<u8> {
        let (subclass, protocol) = self.kind.protocol();
        let mut bytes = vec![9, 2, 34, 0, 1, 1, 4, 0xa0, 50];
        bytes.extend([9, 4, 0, 0, 1, 3, subclass, protocol, 0]);
        bytes.extend(self.class_descriptor());
        // Endpoint 1 IN, interrupt, every 2^(4-1) microframes: a millisecond.
        bytes.extend([7, 5, 0x81, 3, self.kind.report_bytes(), 0, 4]);
        bytes
    }

    fn text(&self, index: u8) -> Option<Vec<u8>> {
        let text = match index {
            0 => return Some(vec![4, 3, 0x09, 0x04]), // English
            1 => "Hostel",
            2 => self.kind.product(),
            3 => &self.serial,
            _ => return None,
        };
        let mut bytes = vec![0, 3];
        bytes.extend(text.encode_utf16().take(126).flat_map(u16::to_le_bytes));
        bytes[0] = bytes.len() as u8;
        Some(bytes)
    }

    fn tell(&self) {
        if let Some(port) = self.port.get() {
            self.hub.has_data(*port);
        }
    }
}

impl UsbDevice for Hid {
    fn speed(&self) -> Speed {
        Speed::High
    }

    fn reset(&self) {
        let mut state = self.state.lock();
        *state = State { protocol: 1, ..State::default() };
    }

    fn control(&self, setup: Setup, data: &[u8]) -> Result<Vec<u8>, Stall> {
        let mut state = self.state.lock();
        let [low, high] = setup.value.to_le_bytes();
        Ok(match (setup.kind, setup.request) {
            (0x80 | 0x81, 6) => self.descriptor(high, low).ok_or(Stall)?,
            (0x80, 8) => vec![state.configuration],
            (0x00, 9) if low <= 1 => {
                state.configuration = low;
                Vec::new()
            }
            (0x80, 0) => vec![1, 0],
            (0x81 | 0x82, 0) => vec![0, 0],
            (0x81, 10) => vec![0],
            (0x01, 11) if setup.value == 0 => Vec::new(),
            (0x00..=0x02, 1 | 3) => Vec::new(), // features: remote wake-up, halt
            (0xa1, 1) => match (self.kind, state.last.is_empty()) {
                (_, false) => state.last.clone(),
                (kind, true) => vec![0; usize::from(kind.report_bytes())],
            },
            (0xa1, 2) => vec![state.idle],
            (0xa1, 3) => vec![state.protocol],
            (0x21, 9) => {
                state.lights = data.first().copied().unwrap_or(0) & 7;
                Vec::new()
            }
            (0x21, 10) => {
                state.idle = high;
                Vec::new()
            }
            (0x21, 11) => {
                state.protocol = low & 1;
                Vec::new()
            }
            _ => return Err(Stall),
        })
    }

    fn input(&self, endpoint: u8) -> Option<Vec<u8>> {
        if endpoint != 1 {
            return None;
        }
        self.state.lock().reports.pop_front()
    }

    fn output(&self, _endpoint: u8, _data: &[u8]) -> Result<(), Stall> {
        Err(Stall)
    }
}

impl InputDevice for Hid {
    fn kinds(&self) -> InputKinds {
        InputKinds {
            keys: self.kind == Kind::Keyboard,
            relative: self.kind == Kind::Mouse,
            absolute: self.kind == Kind::Tablet,
        }
    }

    fn input(&self, events: &[InputEvent]) {
        {
            let mut state = self.state.lock();
            if self.kind == Kind::Keyboard {
                for event in events {
                    if let InputEvent::Key { code, down } = *event {
                        state.key(code, down);
                    }
                }
            } else {
                state.pointer(self.kind, events);
            }
        }
        self.tell();
    }

    fn is_listening(&self) -> bool {
        self.state.lock().configuration != 0
    }

    fn lights(&self) -> Option<u8> {
        if self.kind != Kind::Keyboard {
            return None;
        }
        // Here num, caps, scroll from bit 0; there scroll, num, caps.
        let lights = self.state.lock().lights;
        Some(lights << 1 & 6 | lights >> 2 & 1)
    }
}

impl Device for Hid {
    fn reset(&self) {
        UsbDevice::reset(self);
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("state", &self.state)
    }
}

impl Child for Hid {
    fn unplug(&self) {
        if let Some(port) = self.port.get() {
            self.hub.unplug(*port);
        }
    }
}

fn build(request: &Request<'_>, kind: Kind) -> Result<Built, BuildError> {
    let hub: Arc<RootHub> = request.parent()?;
    let port = match request.properties.text("port") {
        Some(text) => {
            let number = text.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            Some(number.ok_or_else(|| request.bad_value("port", "a port has a number from 1 on"))?)
        }
        None => None,
    };
    let serial = request.properties.text("serial").unwrap_or("1").to_owned();
    let hid = Arc::new(Hid {
        kind,
        serial,
        hub: Arc::clone(&hub),
        port: OnceLock::new(),
        state: Mutex::default(),
    });
    let usb = Arc::clone(&hid) as Arc<dyn UsbDevice>;
    let port =
        hub.plug(port, &usb).ok_or_else(|| BuildError::Other("No port is free".to_owned()))?;
    _ = hid.port.set(port);
    request.surroundings.inputs.add(request.id, Arc::downgrade(&hid) as Weak<dyn InputDevice>);
    Ok(Built::child(&hid))
}

const PROPERTIES: &[Property] =
    &[declare("port", PropertyKind::Text, None), declare("serial", PropertyKind::Text, None)];

const fn model(name: &'static str, build: fn(&Request<'_>) -> Result<Built, BuildError>) -> Model {
    Model {
        name,
        description: "",
        category: Category::Input,
        bus: BusKind::Usb,
        offers: None,
        properties: &[PROPERTIES],
        state_version: 1,
        build,
    }
}

/// The devices' rows.
pub const MODELS: &[Model] = &[
    model("usb-kbd", |request| build(request, Kind::Keyboard)),
    model("usb-mouse", |request| build(request, Kind::Mouse)),
    model("usb-tablet", |request| build(request, Kind::Tablet)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn hid(kind: Kind) -> Hid {
        let (hub, state) = (RootHub::new(1), Mutex::default());
        Hid { kind, serial: "1".to_owned(), hub, port: OnceLock::new(), state }
    }

    #[test]
    fn descriptors_have_the_lengths_they_announce() {
        for kind in [Kind::Keyboard, Kind::Mouse, Kind::Tablet] {
            let hid = hid(kind);
            let descriptor = |value: u16| {
                let setup = Setup { kind: 0x80, request: 6, value, index: 0, length: 255 };
                hid.control(setup, &[]).unwrap()
            };
            assert_eq!(descriptor(0x100).len(), usize::from(descriptor(0x100)[0]));
            let configuration = descriptor(0x200);
            assert_eq!(configuration.len(), usize::from(configuration[2]));
            assert_eq!(usize::from(configuration[25]), kind.report().len());
            assert_eq!(descriptor(0x302)[0] as usize, descriptor(0x302).len());
        }
    }

    #[test]
    fn keys_and_places_become_reports() {
        let keyboard = hid(Kind::Keyboard);
        let key = |code, down| InputEvent::Key { code, down };
        InputDevice::input(&keyboard, &[key(42, true), key(30, true), key(30, false)]);
        let report = |hid: &Hid| UsbDevice::input(hid, 1);
        assert_eq!(report(&keyboard), Some(vec![2, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(report(&keyboard), Some(vec![2, 0, 4, 0, 0, 0, 0, 0]));
        assert_eq!(report(&keyboard), Some(vec![2, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(report(&keyboard), None);

        let tablet = hid(Kind::Tablet);
        let at = |axis, at| InputEvent::Absolute { axis, at };
        let click = InputEvent::Button { button: Button::Left, down: true };
        InputDevice::input(&tablet, &[at(Axis::X, 0x1234), at(Axis::Y, 0x7fff), click]);
        assert_eq!(report(&tablet), Some(vec![1, 0x34, 0x12, 0xff, 0x7f, 0]));
    }
}
