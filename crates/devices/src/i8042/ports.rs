//! The ports, the two interrupts, and those who type.

use std::sync::{Arc, Weak};

use device::{
    Axis, Button, Device, Fields, InputDevice, InputEvent, InputKinds, Inputs, Io, IrqLine, Power,
    StateError, ones,
};
use parking_lot::Mutex;

use super::chip::{Chip, Effect};

const STATUS: u64 = 4;

/// The controller behind ports 0x60 and 0x64.
///
/// Lock order: `chip`, then the interrupt lines, which are leaves. The power switch and the gate are
/// called without.
pub struct I8042 {
    chip: Mutex<Chip>,
    irqs: [IrqLine; 2],
    power: Arc<dyn Power>,
    a20: IrqLine,
    ends: [Arc<Ps2>; 2],
}

impl I8042 {
    /// A controller that interrupts on these lines (keyboard, mouse), known to `inputs`; it opens and
    /// shuts the gate of address line 20.
    pub fn new(
        irqs: [IrqLine; 2],
        power: Arc<dyn Power>,
        a20: IrqLine,
        inputs: &Inputs,
    ) -> Arc<Self> {
        let controller = Arc::new_cyclic(|controller: &Weak<Self>| {
            let ps2 = |keys| Arc::new(Ps2 { controller: controller.clone(), keys });
            Self { chip: Mutex::default(), irqs, power, a20, ends: [true, false].map(ps2) }
        });
        for (end, name) in controller.ends.iter().zip(["ps2-keyboard", "ps2-mouse"]) {
            inputs.add(name, Arc::downgrade(end) as Weak<dyn InputDevice>);
        }
        controller
    }

    fn access<T>(&self, access: impl FnOnce(&mut Chip) -> T) -> T {
        let mut chip = self.chip.lock();
        let result = access(&mut chip);
        self.interrupt(&chip);
        result
    }

    /// Takes the byte, and with it its interrupt: the next one, which may be there already, has an
    /// edge of its own.
    fn read_data(&self) -> u8 {
        let mut chip = self.chip.lock();
        let byte = chip.read_data();
        self.irqs.iter().for_each(|irq| irq.set_level(false));
        self.interrupt(&chip);
        byte
    }

    fn interrupt(&self, chip: &Chip) {
        let (keyboard, mouse) = chip.interrupts();
        self.irqs[0].set_level(keyboard);
        self.irqs[1].set_level(mouse);
    }
}

impl Device for I8042 {
    fn reset(&self) {
        self.access(|chip| *chip = Chip::default());
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("chip", &self.chip)
    }
}

impl Io for I8042 {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let byte = match offset {
            0 => self.read_data(),
            STATUS => self.chip.lock().status(),
            _ => 0xff,
        };
        ones(size) & !0xff | u64::from(byte)
    }

    fn write(&self, offset: u64, _size: u8, value: u64) {
        let effect = match offset {
            0 => self.access(|chip| chip.write_data(value as u8)),
            STATUS => self.access(|chip| chip.write_command(value as u8)),
            _ => Effect::None,
        };
        match effect {
            Effect::None => {}
            Effect::Reset => self.power.reset(),
            Effect::A20(open) => self.a20.set_level(open),
        }
    }
}

/// The keyboard or the mouse, for whoever types.
struct Ps2 {
    controller: Weak<I8042>,
    keys: bool,
}

impl InputDevice for Ps2 {
    fn kinds(&self) -> InputKinds {
        InputKinds { keys: self.keys, relative: !self.keys, absolute: false }
    }

    fn input(&self, events: &[InputEvent]) {
        let Some(controller) = self.controller.upgrade() else { return };
        controller.access(|chip| {
            for event in events {
                match *event {
                    InputEvent::Key { code, down } => chip.keyboard.key(code, down),
                    InputEvent::Relative { axis: Axis::X, by } => chip.mouse.move_by(by, 0, 0),
                    InputEvent::Relative { axis: Axis::Y, by } => chip.mouse.move_by(0, by, 0),
                    InputEvent::Button { button, down } => press(chip, button, down),
                    InputEvent::Absolute { .. } => {}
                }
            }
            if !self.keys {
                chip.mouse.report();
            }
            chip.fetch();
        });
    }

    fn is_listening(&self) -> bool {
        let controller = self.controller.upgrade();
        self.keys || controller.is_some_and(|it| it.chip.lock().mouse.is_listened_to())
    }

    fn lights(&self) -> Option<u8> {
        let controller = self.controller.upgrade().filter(|_| self.keys)?;
        let lights = controller.chip.lock().keyboard.lights();
        Some(lights)
    }
}

fn press(chip: &mut Chip, button: Button, down: bool) {
    let mouse = &mut chip.mouse;
    match (button, down) {
        (Button::Left, _) => mouse.button(0, down),
        (Button::Right, _) => mouse.button(1, down),
        (Button::Middle, _) => mouse.button(2, down),
        (Button::Side, _) => mouse.button(3, down),
        (Button::Extra, _) => mouse.button(4, down),
        (Button::WheelUp, true) => mouse.move_by(0, 0, 1),
        (Button::WheelDown, true) => mouse.move_by(0, 0, -1),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use device::{IrqSink, NoPower, RecordedIrq};

    use super::*;

    #[test]
    fn every_byte_has_an_edge_of_its_own() {
        let sink = Arc::new(RecordedIrq::default());
        let lines = [1, 12].map(|pin| IrqLine::new(Arc::clone(&sink) as Arc<dyn IrqSink>, pin));
        let controller =
            I8042::new(lines, Arc::new(NoPower), IrqLine::unconnected(), &Inputs::default());
        controller.write(0, 1, 0xf2); // identify
        sink.take();
        let keyboard = |changes: Vec<(u32, bool)>| -> Vec<bool> {
            changes.into_iter().filter(|(pin, _)| *pin == 1).map(|(_, level)| level).collect()
        };
        for (byte, levels) in [(0xfa, [false, true]), (0xab, [false, true]), (0x83, [false, false])]
        {
            assert_eq!((controller.read(0, 1), keyboard(sink.take())), (byte, levels.to_vec()));
        }
    }
}
