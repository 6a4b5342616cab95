//! The ports of a controller: what devices plug into.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::UsbDevice;

/// The controller's side of its ports. Called without any lock of a device or of the hub.
pub trait Watcher: Send + Sync {
    /// Something was plugged into a port, or out of it.
    fn changed(&self, port: usize);
    /// The device on a port has data.
    fn has_data(&self, port: usize);
}

/// The ports.
pub struct RootHub {
    ports: Mutex<Vec<Option<Arc<dyn UsbDevice>>>>,
    watcher: Mutex<Option<Weak<dyn Watcher>>>,
}

impl RootHub {
    /// So many ports.
    #[must_use]
    pub fn new(ports: usize) -> Arc<Self> {
        Arc::new(Self { ports: Mutex::new(vec![None; ports]), watcher: Mutex::default() })
    }

    /// Whoever serves the ports.
    pub fn watch(&self, watcher: Weak<dyn Watcher>) {
        *self.watcher.lock() = Some(watcher);
    }

    fn watcher(&self) -> Option<Arc<dyn Watcher>> {
        self.watcher.lock().as_ref()?.upgrade()
    }

    /// What is on a port.
    #[must_use]
    pub fn get(&self, port: usize) -> Option<Arc<dyn UsbDevice>> {
        self.ports.lock().get(port).cloned().flatten()
    }

    /// Plugs a device into the port that was asked for, or the first that is free: which it is.
    pub fn plug(&self, port: Option<usize>, device: &Arc<dyn UsbDevice>) -> Option<usize> {
        let port = {
            let mut ports = self.ports.lock();
            let port = match port {
                Some(port) => port,
                None => ports.iter().position(Option::is_none)?,
            };
            let slot = ports.get_mut(port).filter(|slot| slot.is_none())?;
            *slot = Some(Arc::clone(device));
            port
        };
        if let Some(watcher) = self.watcher() {
            watcher.changed(port);
        }
        Some(port)
    }

    /// Pulls a device out.
    pub fn unplug(&self, port: usize) {
        if let Some(slot) = self.ports.lock().get_mut(port) {
            *slot = None;
        }
        if let Some(watcher) = self.watcher() {
            watcher.changed(port);
        }
    }

    /// The device on a port has data.
    pub fn has_data(&self, port: usize) {
        if let Some(watcher) = self.watcher() {
            watcher.has_data(port);
        }
    }
}
