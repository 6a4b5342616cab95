//! libvirt's numbers: states, reasons, flags and event details.

/// `virDomainState` with the reasons that belong to each.
pub mod state {
    /// Running.
    pub const RUNNING: i32 = 1;
    /// Paused.
    pub const PAUSED: i32 = 3;
    /// Being shut down.
    pub const SHUTDOWN: i32 = 4;
    /// Off.
    pub const SHUTOFF: i32 = 5;
    /// Crashed.
    pub const CRASHED: i32 = 6;
    /// Suspended by the guest's power management.
    pub const PMSUSPENDED: i32 = 7;

    /// Why a domain runs.
    pub mod running {
        /// Nobody knows.
        pub const UNKNOWN: i32 = 0;
        /// Started from scratch.
        pub const BOOTED: i32 = 1;
        /// Restored from a file.
        pub const RESTORED: i32 = 3;
        /// Restored from a snapshot.
        pub const FROM_SNAPSHOT: i32 = 4;
        /// Resumed after a pause.
        pub const UNPAUSED: i32 = 5;
        /// Woken by an event.
        pub const WAKEUP: i32 = 8;
    }

    /// Why a domain is paused.
    pub mod paused {
        /// Nobody knows.
        pub const UNKNOWN: i32 = 0;
        /// A user asked.
        pub const USER: i32 = 1;
        /// It came from a file or from another host, and was not let go.
        pub const MIGRATION: i32 = 2;
        /// While it is saved.
        pub const SAVE: i32 = 3;
        /// While it is dumped.
        pub const DUMP: i32 = 4;
        /// An I/O error.
        pub const IOERROR: i32 = 5;
        /// A watchdog.
        pub const WATCHDOG: i32 = 6;
        /// Restored from a snapshot of a paused domain.
        pub const FROM_SNAPSHOT: i32 = 7;
        /// While it starts.
        pub const STARTING_UP: i32 = 11;
    }

    /// Why a domain is off.
    pub mod shutoff {
        /// Never started since the daemon knows it.
        pub const UNKNOWN: i32 = 0;
        /// The guest shut down.
        pub const SHUTDOWN: i32 = 1;
        /// A user forced it.
        pub const DESTROYED: i32 = 2;
        /// It crashed.
        pub const CRASHED: i32 = 3;
        /// It went into a file.
        pub const SAVED: i32 = 5;
        /// It failed to start.
        pub const FAILED: i32 = 6;
        /// Reverted to a snapshot taken while off.
        pub const FROM_SNAPSHOT: i32 = 7;
        /// The daemon found it gone.
        pub const DAEMON: i32 = 8;
    }
}

/// `virDomainEventType` and details.
pub mod lifecycle {
    /// Defined.
    pub const DEFINED: i32 = 0;
    /// Undefined.
    pub const UNDEFINED: i32 = 1;
    /// Started.
    pub const STARTED: i32 = 2;
    /// Paused.
    pub const SUSPENDED: i32 = 3;
    /// Goes on.
    pub const RESUMED: i32 = 4;
    /// Stopped.
    pub const STOPPED: i32 = 5;
    /// The guest has finished its shutdown.
    pub const SHUTDOWN: i32 = 6;
    /// Suspended by power management.
    pub const PMSUSPENDED: i32 = 7;
    /// Crashed.
    pub const CRASHED: i32 = 8;

    /// Details of `DEFINED`.
    pub mod defined {
        /// New.
        pub const ADDED: i32 = 0;
        /// Changed.
        pub const UPDATED: i32 = 1;
        /// Renamed.
        pub const RENAMED: i32 = 2;
        /// From a snapshot.
        pub const FROM_SNAPSHOT: i32 = 3;
    }

    /// Details of `UNDEFINED`.
    pub mod undefined {
        /// Removed.
        pub const REMOVED: i32 = 0;
        /// Renamed.
        pub const RENAMED: i32 = 1;
    }

    /// Details of `STARTED`.
    pub mod started {
        /// From scratch.
        pub const BOOTED: i32 = 0;
        /// From a file.
        pub const RESTORED: i32 = 2;
        /// From a snapshot.
        pub const FROM_SNAPSHOT: i32 = 3;
        /// By an event.
        pub const WAKEUP: i32 = 4;
    }

    /// Details of `SUSPENDED`.
    pub mod suspended {
        /// By a user.
        pub const PAUSED: i32 = 0;
        /// After an I/O error.
        pub const IOERROR: i32 = 2;
        /// Restored into a pause.
        pub const RESTORED: i32 = 4;
        /// From a snapshot.
        pub const FROM_SNAPSHOT: i32 = 5;
    }

    /// Details of `RESUMED`.
    pub mod resumed {
        /// Goes on after a pause.
        pub const UNPAUSED: i32 = 0;
        /// From a snapshot.
        pub const FROM_SNAPSHOT: i32 = 2;
    }

    /// Details of `STOPPED`.
    pub mod stopped {
        /// The guest shut down.
        pub const SHUTDOWN: i32 = 0;
        /// A user forced it.
        pub const DESTROYED: i32 = 1;
        /// It crashed.
        pub const CRASHED: i32 = 2;
        /// It went into a file.
        pub const SAVED: i32 = 4;
        /// It failed to start.
        pub const FAILED: i32 = 5;
        /// From a snapshot.
        pub const FROM_SNAPSHOT: i32 = 6;
    }

    /// Details of `SHUTDOWN`.
    pub mod shutdown {
        /// Nobody said who asked.
        pub const FINISHED: i32 = 0;
        /// The guest.
        pub const GUEST: i32 = 1;
        /// A signal or command from the host.
        pub const HOST: i32 = 2;
    }
}

/// `virDomainModificationImpact`.
pub mod affect {
    /// Whatever the domain's state is.
    pub const CURRENT: u32 = 0;
    /// The running domain.
    pub const LIVE: u32 = 1;
    /// The stored definition.
    pub const CONFIG: u32 = 2;
}

/// `virDomainXMLFlags`.
pub mod xml_flags {
    /// Passwords too.
    pub const SECURE: u32 = 1;
    /// The definition even while the domain runs.
    pub const INACTIVE: u32 = 2;
    /// CPU features spelled out.
    pub const UPDATE_CPU: u32 = 4;
    /// For another host.
    pub const MIGRATABLE: u32 = 8;
}

/// `virDomainEventID`: index of the event, value in the registration call.
pub mod domain_event {
    /// Start, stop and what lies between.
    pub const LIFECYCLE: i32 = 0;
    /// The guest rebooted.
    pub const REBOOT: i32 = 1;
    /// One more than the largest id of libvirt 9.0.
    pub const LAST: i32 = 27;
}
