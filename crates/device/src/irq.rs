//! Interrupt lines: one end belongs to a device, the other to an interrupt controller.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// The end of interrupt lines: an interrupt controller, a router, an `OR` gate.
///
/// A leaf: it never calls back into the device that drives the line, so a device may call it with
/// its own lock held, and must, where two threads could otherwise publish levels in the wrong
/// order.
pub trait IrqSink: Send + Sync {
    /// The line at `pin` now has this level.
    fn set_level(&self, pin: u32, level: bool);
}

/// A device's end of an interrupt line.
#[derive(Clone)]
pub struct IrqLine {
    sink: Option<Arc<dyn IrqSink>>,
    pin: u32,
}

impl IrqLine {
    /// The line into `pin` of `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn IrqSink>, pin: u32) -> Self {
        Self { sink: Some(sink), pin }
    }

    /// A line that leads nowhere.
    #[must_use]
    pub fn unconnected() -> Self {
        Self { sink: None, pin: 0 }
    }

    /// Drives the line.
    pub fn set_level(&self, level: bool) {
        if let Some(sink) = &self.sink {
            sink.set_level(self.pin, level);
        }
    }

    /// An edge: up and down again.
    pub fn pulse(&self) {
        self.set_level(true);
        self.set_level(false);
    }
}

impl fmt::Debug for IrqLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "irq {}", self.pin)
    }
}

/// Writes down what happens on its lines, for tests.
#[derive(Default, Debug)]
pub struct RecordedIrq {
    changes: Mutex<Vec<(u32, bool)>>,
}

impl RecordedIrq {
    /// What happened since the last call: pin and level.
    pub fn take(&self) -> Vec<(u32, bool)> {
        std::mem::take(&mut self.changes.lock())
    }
}

impl IrqSink for RecordedIrq {
    fn set_level(&self, pin: u32, level: bool) {
        self.changes.lock().push((pin, level));
    }
}
