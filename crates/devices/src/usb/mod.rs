//! USB devices, apart from the controller that moves their data. Specifications: USB 2.0, chapter
//! 9; HID 1.11.
//!
//! `-device usb-tablet`, `-device usb-mouse`, `-device usb-kbd`, each on a controller's bus.

mod hid;
mod hub;
mod keys;

pub use hid::MODELS;
pub use hub::{RootHub, Watcher};

/// How fast a device is, by the controller's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// 12 Mbit/s.
    Full = 1,
    /// 480 Mbit/s.
    High = 3,
}

/// A request that the device refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall;

/// The eight bytes before a control transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Direction, type, recipient.
    pub kind: u8,
    /// What is asked.
    pub request: u8,
    /// Its value.
    pub value: u16,
    /// Its index.
    pub index: u16,
    /// Bytes of data at most.
    pub length: u16,
}

impl Setup {
    /// From its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self { kind: bytes[0], request: bytes[1], value: half(2), index: half(4), length: half(6) }
    }

    /// Whether data goes to the guest.
    #[must_use]
    pub fn is_in(&self) -> bool {
        self.kind & 0x80 != 0
    }
}

/// A device on a port.
///
/// Called by the controller with its lock held, so an implementation calls nobody back; what it
/// has to say it says with its own lock released.
pub trait UsbDevice: Send + Sync {
    /// How fast it is.
    fn speed(&self) -> Speed;

    /// The port was reset.
    fn reset(&self);

    /// A control transfer: `data` is what came, the answer what goes.
    fn control(&self, setup: Setup, data: &[u8]) -> Result<Vec<u8>, Stall>;

    /// Data from an IN endpoint; none when there is none yet.
    fn input(&self, endpoint: u8) -> Option<Vec<u8>>;

    /// Data for an OUT endpoint.
    fn output(&self, endpoint: u8, data: &[u8]) -> Result<(), Stall>;
}
