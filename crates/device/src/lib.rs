//! What a device is to the board that carries it.
//!
//! A chip is two things: a pure register machine, which knows no bus, no lock and no clock, and a
//! thin adapter that gives it registers ([`Io`]), interrupt lines ([`IrqLine`]) and time
//! ([`Clock`], [`Timer`]). This crate holds what adapters are made of.

pub mod pci;
pub mod state;

mod blob;
mod clock;
mod entropy;
mod event;
mod input;
mod irq;
mod power;
mod property;
mod screen;
mod sound;
mod stream;
mod timer;

pub use blob::Blob;
pub use clock::{Clock, HostClock, StoppedClock};
pub use entropy::Entropy;
pub use event::{DeviceEvent, EventSink, NoEvents};
pub use input::{ABSOLUTE_MAX, Axis, Button, InputDevice, InputEvent, InputKinds, Inputs};
pub use irq::{IrqLine, IrqSink, RecordedIrq};
pub use memory::{Io, ones};
pub use power::{NoPower, Power};
pub use property::{DefaultValue, Properties, Property, PropertyKind, PropertyValue};
pub use screen::{Cursor, Picture, Rectangle, SIDE_MAX, Screen, Screens};
pub use sound::{Silence, Sound, Voice};
pub use state::{Fields, StateError};
pub use stream::{NullStream, Stream, StreamEvent, StreamPeer};
pub use timer::{Expired, Timer, Timers};

/// A device as the board sees it beside its registers.
pub trait Device: Send + Sync {
    /// Puts the device into the state after power-on. Called with no vCPU running.
    fn reset(&self);

    /// The machine goes on, or is about to stand still: then the device finishes what it has begun
    /// and begins nothing new. Called with no vCPU running.
    fn set_running(&self, running: bool) {
        _ = running;
    }

    /// Saves what the device knows, or loads it. Called while the machine stands still, after
    /// [`Device::set_running`] with false; a loaded device arms its timers anew and leaves its
    /// interrupt lines alone, for those who hear them are loaded, too. PCI's registers are saved by
    /// the bus. A device that does not know how blocks saving.
    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        _ = fields;
        Err(StateError::unsupported())
    }
}
