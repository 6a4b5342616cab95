//! Monitors: conversations that steer the machine.

mod hmp;
mod output;
mod qmp;

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use qemu_compat::qmp::server;
use serde_json::Value;

pub use hmp::{HmpMonitor, execute_line};
pub use output::Output;
pub use qmp::QmpMonitor;

/// All QMP conversations, for events.
#[derive(Default)]
pub struct Monitors {
    qmp: Mutex<Vec<Weak<QmpMonitor>>>,
}

impl Monitors {
    /// One more.
    pub fn add(&self, monitor: &Arc<QmpMonitor>) {
        self.qmp.lock().push(Arc::downgrade(monitor));
    }

    /// Tells every client.
    pub fn event(&self, name: &str, data: Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let event = server::event(name, data, now);
        let monitors: Vec<Arc<QmpMonitor>> =
            self.qmp.lock().iter().filter_map(Weak::upgrade).collect();
        for monitor in monitors {
            monitor.tell(&event);
        }
    }
}
