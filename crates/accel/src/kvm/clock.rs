//! The clock that guests read from KVM (kvmclock): it stands while the machine does.

use kvm_bindings::kvm_clock_data;
use kvm_ioctls::{Cap, Kvm, VmFd};
use parking_lot::Mutex;

/// The clock.
pub struct GuestClock {
    exists: bool,
    /// What it showed when the machine stopped.
    stopped_ns: Mutex<Option<u64>>,
}

impl GuestClock {
    /// The clock of a machine that was never started.
    pub fn new(kvm: &Kvm) -> Self {
        Self { exists: kvm.check_extension(Cap::AdjustClock), stopped_ns: Mutex::new(None) }
    }

    /// What it shows while it stands; none where there is none, or while it runs.
    pub fn stopped_ns(&self) -> Option<u64> {
        *self.stopped_ns.lock()
    }

    /// Goes on from here.
    pub fn set_stopped_ns(&self, clock_ns: u64) {
        *self.stopped_ns.lock() = Some(clock_ns);
    }

    /// Stops it, or lets it go on where it was.
    pub fn set_running(&self, vm: &VmFd, running: bool) {
        if !self.exists {
            return;
        }
        let mut stopped_ns = self.stopped_ns.lock();
        if !running {
            *stopped_ns = vm.get_clock().ok().map(|data| data.clock);
        } else if let Some(clock) = stopped_ns.take() {
            // A failure makes the guest's clock jump; that is no reason not to go on.
            _ = vm.set_clock(&kvm_clock_data { clock, ..Default::default() });
        }
    }
}
