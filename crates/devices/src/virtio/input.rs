//! A keyboard, a mouse or a tablet. Virtio 1.3, 5.8.
//!
//! `-device virtio-keyboard-pci -device virtio-tablet-pci`

use std::sync::Arc;

use device::{ABSOLUTE_MAX, Axis, Button, Fields, InputDevice, InputEvent, InputKinds, StateError};
use parking_lot::Mutex;

use super::device::{Driver, Kind, VirtioDevice};
use super::{Chain, Queue};

/// Events to the driver, and lights from it.
const EVENTS: u16 = 0;
const LIGHTS: u16 = 1;
const QUEUE_SIZE: u16 = 64;
/// Type, code, value.
const EVENT_BYTES: usize = 8;

// What the driver can ask for in the configuration.
const SELECT_NAME: u8 = 0x01;
const SELECT_IDENTITY: u8 = 0x03;
const SELECT_EVENTS: u8 = 0x11;
const SELECT_AXIS: u8 = 0x12;
/// Select, subselect, size, and the answer behind.
const CONFIG_HEADER: usize = 8;
const CONFIG_BYTES: usize = CONFIG_HEADER + 128;

// Types and codes of events are Linux's (input-event-codes.h).
const EV_SYN: u16 = 0x00;
const EV_KEY: u16 = 0x01;
const EV_REL: u16 = 0x02;
const EV_ABS: u16 = 0x03;
const EV_LED: u16 = 0x11;
const EV_REP: u16 = 0x14;
const REL_HWHEEL: u16 = 6;
const REL_WHEEL: u16 = 8;
const BTN_LEFT: u16 = 0x110;
const BTN_RIGHT: u16 = 0x111;
const BTN_MIDDLE: u16 = 0x112;
const BTN_SIDE: u16 = 0x113;
const BTN_EXTRA: u16 = 0x114;
/// Keys of a keyboard have smaller codes than this; above are buttons.
const KEY_CODES: u16 = 0xf9;
/// A virtual bus, and the maker's number that such devices show.
const BUS_VIRTUAL: u16 = 6;
const MAKER: u16 = 0x0627;

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputModel {
    /// Keys and lights.
    Keyboard,
    /// Movements.
    Mouse,
    /// Places.
    Tablet,
}

impl InputModel {
    fn name(self) -> &'static str {
        match self {
            Self::Keyboard => "Hostel Virtio Keyboard",
            Self::Mouse => "Hostel Virtio Mouse",
            Self::Tablet => "Hostel Virtio Tablet",
        }
    }

    /// The codes of each type of event that can come.
    fn codes(self, kind: u16) -> Vec<u16> {
        let buttons = || (BTN_LEFT..=BTN_EXTRA).collect();
        match (self, kind) {
            (Self::Keyboard, EV_KEY) => (1..KEY_CODES).collect(),
            (Self::Keyboard, EV_LED) => vec![0, 1, 2],
            (Self::Keyboard, EV_REP) => vec![0, 1],
            (Self::Mouse | Self::Tablet, EV_KEY) => buttons(),
            (Self::Mouse, EV_REL) => vec![0, 1, REL_HWHEEL, REL_WHEEL],
            (Self::Tablet, EV_REL) => vec![REL_HWHEEL, REL_WHEEL],
            (Self::Tablet, EV_ABS) => vec![0, 1],
            _ => Vec::new(),
        }
    }

    /// An event as the driver gets it; none for one that this device has not.
    fn event(self, event: InputEvent) -> Option<(u16, u16, i32)> {
        let event = match event {
            InputEvent::Key { code, down } => (EV_KEY, code, i32::from(down)),
            InputEvent::Button { button, down } => return self.button(button, down),
            InputEvent::Relative { axis, by } => (EV_REL, axis_code(axis), by),
            InputEvent::Absolute { axis, at } => {
                (EV_ABS, axis_code(axis), i32::from(at.min(ABSOLUTE_MAX)))
            }
        };
        self.codes(event.0).contains(&event.1).then_some(event)
    }

    fn button(self, button: Button, down: bool) -> Option<(u16, u16, i32)> {
        let wheel = |code, by| down.then_some((EV_REL, code, by));
        let press = |code| Some((EV_KEY, code, i32::from(down)));
        let event = match button {
            Button::Left => press(BTN_LEFT),
            Button::Right => press(BTN_RIGHT),
            Button::Middle => press(BTN_MIDDLE),
            Button::Side => press(BTN_SIDE),
            Button::Extra => press(BTN_EXTRA),
            Button::WheelUp => wheel(REL_WHEEL, 1),
            Button::WheelDown => wheel(REL_WHEEL, -1),
            Button::WheelLeft => wheel(REL_HWHEEL, -1),
            Button::WheelRight => wheel(REL_HWHEEL, 1),
        };
        event.filter(|(kind, code, _)| self.codes(*kind).contains(code))
    }
}

fn axis_code(axis: Axis) -> u16 {
    match axis {
        Axis::X => 0,
        Axis::Y => 1,
    }
}

/// The device.
///
/// Lock order: `state`, then a queue.
pub struct Input {
    model: InputModel,
    /// By which a guest tells two of them apart; may be empty.
    serial: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    driver: Option<Driver>,
    select: u8,
    subselect: u8,
    /// Num, caps and scroll lock, as the guest has set them.
    lights: [bool; 3],
    /// Buffers that were too few for events that belong together.
    taken: Vec<Chain>,
    paused: bool,
}

impl Input {
    /// A device of this model.
    #[must_use]
    pub fn new(model: InputModel, serial: &str) -> Arc<Self> {
        Arc::new(Self { model, serial: serial.to_owned(), state: Mutex::default() })
    }

    /// What the driver asks for.
    fn answer(&self, select: u8, subselect: u8) -> Vec<u8> {
        match (select, subselect) {
            (SELECT_NAME, 0) => self.model.name().as_bytes().to_vec(),
            (0x02, 0) => self.serial.bytes().take(CONFIG_BYTES - CONFIG_HEADER).collect(),
            (SELECT_IDENTITY, 0) => {
                let product = 1 + self.model as u16;
                let words = [BUS_VIRTUAL, MAKER, product, 1];
                words.iter().flat_map(|word| word.to_le_bytes()).collect()
            }
            (SELECT_EVENTS, kind) => bits(&self.model.codes(u16::from(kind))),
            (SELECT_AXIS, axis) if self.model.codes(EV_ABS).contains(&u16::from(axis)) => {
                let words = [0, u32::from(ABSOLUTE_MAX), 0, 0, 0];
                words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn take_lights(&self, state: &mut State, queue: &Queue) {
        while let Some(chain) = queue.pop() {
            let mut reader = chain.reader();
            while let Some(event) = reader.array::<EVENT_BYTES>() {
                let event = u64::from_le_bytes(event);
                let (kind, code) = (event as u16, usize::from((event >> 16) as u16));
                if kind == EV_LED
                    && let Some(light) = state.lights.get_mut(code)
                {
                    *light = event >> 32 != 0;
                }
            }
            queue.push(chain, 0);
        }
    }
}

/// A bit for each code.
fn bits(codes: &[u16]) -> Vec<u8> {
    let bytes = codes.iter().max().map_or(0, |last| usize::from(last / 8) + 1);
    let mut bits = vec![0; bytes];
    for code in codes {
        bits[usize::from(code / 8)] |= 1 << (code % 8);
    }
    bits
}

impl VirtioDevice for Input {
    fn kind(&self) -> Kind {
        Kind::Input
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn config(&self) -> Vec<u8> {
        let (select, subselect) = {
            let state = self.state.lock();
            (state.select, state.subselect)
        };
        let answer = self.answer(select, subselect);
        let mut config = vec![select, subselect, answer.len() as u8, 0, 0, 0, 0, 0];
        config.extend(answer);
        config.resize(CONFIG_BYTES, 0);
        config
    }

    fn write_config(&self, offset: usize, bytes: &[u8]) {
        let mut state = self.state.lock();
        match (offset, bytes) {
            (0, [select]) => state.select = *select,
            (0, [select, subselect]) => (state.select, state.subselect) = (*select, *subselect),
            (1, [subselect]) => state.subselect = *subselect,
            _ => {}
        }
    }

    fn activate(&self, driver: Driver) {
        self.state.lock().driver = Some(driver);
        self.notify(LIGHTS);
    }

    fn reset(&self) {
        let mut state = self.state.lock();
        *state = State { paused: state.paused, ..State::default() };
    }

    fn notify(&self, queue: u16) {
        let mut state = self.state.lock();
        let lights = state.driver.as_ref().and_then(|driver| driver.queue(LIGHTS).cloned());
        if let Some(lights) = lights.filter(|_| queue == LIGHTS) {
            self.take_lights(&mut state, &lights);
        }
    }

    fn set_running(&self, running: bool) {
        self.state.lock().paused = !running;
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let mut state = self.state.lock();
        let State { select, subselect, lights, .. } = &mut *state;
        fields.item("select", select)?;
        fields.item("subselect", subselect)?;
        fields.item("lights", lights)
    }
}

impl InputDevice for Input {
    fn kinds(&self) -> InputKinds {
        InputKinds {
            keys: self.model == InputModel::Keyboard,
            relative: self.model == InputModel::Mouse,
            absolute: self.model == InputModel::Tablet,
        }
    }

    /// Events that belong together reach the guest together, or not at all.
    fn input(&self, events: &[InputEvent]) {
        let mut all: Vec<_> = events.iter().filter_map(|event| self.model.event(*event)).collect();
        let mut state = self.state.lock();
        let queue = state.driver.as_ref().and_then(|driver| driver.queue(EVENTS).cloned());
        let Some(queue) = queue.filter(|_| !all.is_empty() && !state.paused) else { return };
        all.push((EV_SYN, 0, 0));
        while state.taken.len() < all.len() {
            match queue.pop() {
                Some(chain) => state.taken.push(chain),
                None => return,
            }
        }
        let chains = state.taken.drain(..all.len());
        let used = chains.zip(all).map(|(chain, (kind, code, value))| {
            let event = u64::from(kind) | u64::from(code) << 16 | u64::from(value as u32) << 32;
            let written = chain.writer().write(&event.to_le_bytes());
            (chain, written as u64)
        });
        queue.push_all(used.collect());
    }

    fn is_listening(&self) -> bool {
        self.state.lock().driver.is_some()
    }

    fn lights(&self) -> Option<u8> {
        let [num, caps, scroll] = self.state.lock().lights;
        let lights = u8::from(scroll) | u8::from(num) << 1 | u8::from(caps) << 2;
        (self.model == InputModel::Keyboard).then_some(lights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::guest::{Guest, Part, hostile};

    fn ask(guest: &Guest, select: u8, subselect: u8) -> Vec<u8> {
        guest.mmio_write_byte(0x100, select);
        guest.mmio_write_byte(0x101, subselect);
        let byte = |at: u64| (guest.read(0x100 + (at & !3)) >> (8 * (at & 3))) as u8;
        (0..u64::from(byte(2))).map(|at| byte(8 + at)).collect()
    }

    #[test]
    fn a_driver_learns_what_the_device_is() {
        let tablet = Guest::new(Input::new(InputModel::Tablet, "s1"));
        assert_eq!(ask(&tablet, SELECT_NAME, 0), b"Hostel Virtio Tablet");
        assert_eq!(ask(&tablet, 2, 0), b"s1");
        assert_eq!(ask(&tablet, SELECT_IDENTITY, 0), [6, 0, 0x27, 6, 3, 0, 1, 0]);
        assert_eq!(ask(&tablet, SELECT_EVENTS, EV_ABS as u8), [3]);
        assert_eq!(ask(&tablet, SELECT_AXIS, 1)[4..6], [0xff, 0x7f]);
        assert!(ask(&tablet, SELECT_AXIS, 2).is_empty() && ask(&tablet, 0xff, 0xff).is_empty());
        let keyboard = Guest::new(Input::new(InputModel::Keyboard, ""));
        let keys = ask(&keyboard, SELECT_EVENTS, EV_KEY as u8);
        assert!(keys.len() == 32 && keys[0] == 0xfe && keys[31] == 1);
    }

    fn events(guest: &mut Guest, count: usize) -> Vec<crate::virtio::guest::Sent> {
        (0..count).map(|_| guest.put(0, &[Part::In(8)])).collect()
    }

    fn words(guest: &Guest, sent: &crate::virtio::guest::Sent) -> (u16, u16, i32) {
        let bytes = guest.answer(sent);
        let event = u64::from_le_bytes(bytes.try_into().unwrap());
        (event as u16, (event >> 16) as u16, (event >> 32) as i32)
    }

    #[test]
    fn events_come_together_or_not_at_all() {
        let mouse = Input::new(InputModel::Mouse, "");
        let mut guest = Guest::ready(Arc::clone(&mouse) as _, 0);
        let both = [
            InputEvent::Relative { axis: Axis::X, by: -5 },
            InputEvent::Relative { axis: Axis::Y, by: 7 },
            InputEvent::Absolute { axis: Axis::X, at: 1 },
            InputEvent::Button { button: Button::WheelDown, down: true },
            InputEvent::Button { button: Button::WheelDown, down: false },
        ];
        let sent = events(&mut guest, 3);
        mouse.input(&both);
        assert_eq!(guest.take(0), None, "four are needed");
        let more = events(&mut guest, 1);
        mouse.input(&both);
        let all: Vec<_> = sent.iter().chain(&more).map(|sent| words(&guest, sent)).collect();
        assert_eq!(all, [(2, 0, -5), (2, 1, 7), (2, 8, -1), (0, 0, 0)]);
        assert!(mouse.is_listening());
        guest.write(0x70, 0);
        assert!(!mouse.is_listening());
    }

    #[test]
    fn keys_go_in_and_lights_come_out() {
        let keyboard = Input::new(InputModel::Keyboard, "");
        let mut guest = Guest::ready(Arc::clone(&keyboard) as _, 0);
        let sent = events(&mut guest, 4);
        keyboard.input(&[InputEvent::Key { code: 30, down: true }]);
        keyboard.input(&[InputEvent::Key { code: 700, down: true }]);
        assert_eq!((words(&guest, &sent[0]), words(&guest, &sent[1])), ((1, 30, 1), (0, 0, 0)));
        assert!(guest.take(0).is_some() && guest.take(0).is_some() && guest.take(0).is_none());
        guest.request(1, &[Part::Out(&[0x11, 0, 1, 0, 1, 0, 0, 0])]);
        assert_eq!(keyboard.lights(), Some(4));
    }

    #[test]
    fn a_hostile_guest_breaks_nothing() {
        for seed in 1..5 {
            hostile(Input::new(InputModel::Keyboard, ""), 3 << 28, 2000, seed);
        }
    }
}
