//! Descriptors that were inherited, or passed by a monitor, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use parking_lot::Mutex;

use crate::character::Descriptors;

/// Passed descriptors. A name that is a number means an inherited one.
#[derive(Default)]
pub struct Passed {
    named: Mutex<BTreeMap<String, OwnedFd>>,
    inherited: Mutex<BTreeSet<i32>>,
}

impl Passed {
    /// Notes what the process was started with, from 3 on. To be called before anything is opened.
    pub fn inherit(&self) {
        let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
        let numbers =
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        *self.inherited.lock() = numbers.filter(|number| *number > 2).collect();
    }

    /// Keeps a descriptor under a name; one that was there is closed.
    pub fn put(&self, name: &str, descriptor: OwnedFd) {
        self.named.lock().insert(name.to_owned(), descriptor);
    }

    /// Closes one; whether it was there.
    pub fn close(&self, name: &str) -> bool {
        self.named.lock().remove(name).is_some()
    }
}

/// A descriptor of our own for an inherited one: the kernel makes it from the number, for nothing in
/// safe Rust tells that nobody else uses that.
fn own_descriptor(number: i32) -> Option<OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let own: Pid = getpid();
    let process = pidfd_open(own, PidfdFlags::empty()).ok()?;
    pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()
}

impl Descriptors for Passed {
    fn take(&self, name: &str) -> Option<OwnedFd> {
        match name.parse::<i32>() {
            Ok(number) if self.inherited.lock().remove(&number) => own_descriptor(number),
            Ok(_) => None,
            Err(_) => self.named.lock().remove(name),
        }
    }
}
