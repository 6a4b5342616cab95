//! What a device tells the outside, beside what its back ends see.

/// Something happened that whoever runs the machine may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// The guest's memory balloon has reached this size of usable RAM.
    BalloonChanged {
        /// Bytes left to the guest.
        bytes: u64,
    },
    /// The guest or the outside has opened or closed a tray.
    TrayMoved {
        /// It is open.
        open: bool,
    },
    /// A request to a drive has failed.
    IoError {
        /// It was a write.
        write: bool,
        /// The medium is full.
        no_space: bool,
        /// The machine stops because of it.
        stops: bool,
        /// What the back end says.
        reason: String,
    },
    /// The guest has changed what a network card lets in; told once until it is asked.
    ReceiveFilterChanged,
    /// The guest has opened or closed its end of a port.
    PortChanged {
        /// It is open.
        open: bool,
    },
    /// The guest's clock was set: by so many seconds against the host's.
    ClockChanged {
        /// Seconds.
        offset: i64,
    },
    /// The guest's kernel has panicked.
    Panicked,
    /// The same, and a crash kernel takes over.
    CrashLoaded,
    /// The guest has let go of a device that it was asked to.
    Unplugged,
    /// The guest refused to let go.
    UnplugRefused,
}

/// Takes events. Called from any thread; a device holds none of its own locks.
pub trait EventSink: Send + Sync {
    /// Device `id` tells this.
    fn event(&self, id: &str, event: DeviceEvent);
}

/// Nobody.
#[derive(Debug, Default)]
pub struct NoEvents;

impl EventSink for NoEvents {
    fn event(&self, _id: &str, _event: DeviceEvent) {}
}
