//! The I/O APIC (Intel 82093AA, with the end-of-interrupt register of later ones) at 0xfec00000.
//! Data sheet: Intel 290566-001.
//!
//! Every PC board has one; there is no `-device` line for it.

mod chip;

use std::sync::{Arc, Weak};

use device::{Device, Fields, Io, IrqSink, StateError};
use parking_lot::Mutex;

use crate::lapic::{Apics, Delivery, EndOfInterrupt, Message};
pub use chip::{Chip, IoApicView, PINS};

/// Where its registers lie.
pub const BASE: u64 = 0xfec0_0000;

const INDEX: u64 = 0x00;
const DATA: u64 = 0x10;
const END_OF_INTERRUPT: u64 = 0x40;

/// The I/O APIC: pins in, messages to the local APICs out.
///
/// Lock order: `chip` is held while a message goes to the local APICs, which lock their own.
pub struct IoApic {
    apics: Arc<Apics>,
    chip: Mutex<Chip>,
}

impl IoApic {
    /// An I/O APIC before these local ones.
    pub fn new(apics: &Arc<Apics>) -> Arc<Self> {
        let ioapic = Arc::new(Self { apics: Arc::clone(apics), chip: Mutex::default() });
        let listener: Weak<Self> = Arc::downgrade(&ioapic);
        apics.listen(listener);
        ioapic
    }

    /// The registers, for people.
    #[must_use]
    pub fn view(&self) -> IoApicView {
        self.chip.lock().view()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Chip) -> T) -> T {
        let mut chip = self.chip.lock();
        let result = change(&mut chip);
        while let Some(entry) = chip.take_message() {
            if let Some(message) = message(entry) {
                self.apics.deliver(message);
            }
        }
        result
    }

    /// Tells local APICs elsewhere what the inputs send. One that is masked may still have an
    /// interrupt that was not ended, so its old route stays.
    fn tell_routes(&self, chip: &Chip) {
        for pin in 0..PINS {
            if let Some(message) = chip.open_entry(pin).and_then(message) {
                self.apics.set_route(pin, Some(message));
            }
        }
    }
}

/// The message that an entry of the table is.
fn message(entry: u64) -> Option<Message> {
    Some(Message {
        destination: (entry >> 56) as u32,
        logical: entry & 1 << 11 != 0,
        delivery: Delivery::from_bits((entry >> 8) as u32)?,
        vector: entry as u8,
        level: entry & chip::LEVEL != 0,
    })
}

impl IrqSink for IoApic {
    fn set_level(&self, pin: u32, level: bool) {
        self.change(|chip| chip.set_pin(pin, level));
    }
}

impl EndOfInterrupt for IoApic {
    fn ended(&self, vector: u8) {
        self.change(|chip| chip.end(vector));
    }
}

impl Device for IoApic {
    fn reset(&self) {
        self.change(|chip| *chip = Chip::default());
        (0..PINS).for_each(|pin| self.apics.set_route(pin, None));
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("chip", &self.chip)?;
        if fields.is_loading() {
            let chip = self.chip.lock();
            (0..PINS).for_each(|pin| self.apics.set_route(pin, None));
            self.tell_routes(&chip);
        }
        Ok(())
    }
}

impl Io for IoApic {
    fn read(&self, offset: u64, _size: u8) -> u64 {
        let chip = self.chip.lock();
        u64::from(match offset & 0xff {
            INDEX => chip.index(),
            DATA => chip.read(),
            _ => 0,
        })
    }

    fn write(&self, offset: u64, _size: u8, value: u64) {
        let value = value as u32;
        self.change(|chip| match offset & 0xff {
            INDEX => chip.set_index(value),
            DATA => {
                chip.write(value);
                self.tell_routes(chip);
            }
            END_OF_INTERRUPT => chip.end(value as u8),
            _ => {}
        });
    }
}
