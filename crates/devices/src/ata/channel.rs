//! Where a drive is plugged in: a port of a controller, or one of two places on a cable.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Drive;

/// A drive, shared by its controller and whoever changes its medium.
pub type Shared = Arc<Mutex<Drive>>;

/// The places of a channel.
pub struct Slots {
    drives: Mutex<Vec<Option<Shared>>>,
}

impl Slots {
    /// So many empty places.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { drives: Mutex::new(vec![None; count]) }
    }

    /// What is in a place.
    #[must_use]
    pub fn get(&self, unit: usize) -> Option<Shared> {
        self.drives.lock().get(unit).cloned().flatten()
    }

    /// The first place in which there is nothing.
    #[must_use]
    pub fn free(&self) -> Option<usize> {
        self.drives.lock().iter().position(Option::is_none)
    }

    /// Puts a drive into a place. False when somebody is there, or there is no such place.
    pub fn put(&self, unit: usize, drive: &Shared) -> bool {
        let mut drives = self.drives.lock();
        match drives.get_mut(unit) {
            Some(slot @ None) => {
                *slot = Some(Arc::clone(drive));
                true
            }
            _ => false,
        }
    }

    /// Empties a place.
    pub fn take(&self, unit: usize) {
        if let Some(slot) = self.drives.lock().get_mut(unit) {
            *slot = None;
        }
    }
}

/// A controller's end of a bus of drives: what children plug into.
pub struct Channel {
    /// The places.
    pub slots: Slots,
    /// Called when a drive has come or gone.
    pub changed: Box<dyn Fn() + Send + Sync>,
}
