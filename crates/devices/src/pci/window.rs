//! Registers at an address that other registers choose.

use std::sync::Arc;

use device::Io;
use memory::{AddressSpace, Owner, Region, RegionId};

/// A region that can be moved and switched off.
#[derive(Clone)]
pub struct Window {
    space: Arc<AddressSpace>,
    id: RegionId,
}

impl Window {
    /// A window that is off.
    pub fn new(space: &Arc<AddressSpace>, name: &str, bytes: u64, io: Arc<dyn Io>) -> Self {
        let region = Region::new(name, 0, bytes, Owner::Io(io)).with_enabled(false);
        let id = space.add(region.with_priority(2));
        Self { space: Arc::clone(space), id }
    }

    /// Puts it here, or nowhere.
    pub fn place(&self, start: Option<u64>) {
        self.space.update(|change| {
            if let Some(start) = start {
                change.set_start(self.id, start);
            }
            change.set_enabled(self.id, start.is_some());
        });
    }
}
