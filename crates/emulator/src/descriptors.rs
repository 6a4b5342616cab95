//! Descriptors that were inherited, or passed by a monitor, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, OwnedFd};

use parking_lot::Mutex;
use serde_json::Value;

use crate::character::Descriptors;

/// A descriptor of a set, with a remark of whoever added it.
type Member = (OwnedFd, Option<String>);

/// The members of a set as they are shown: numbers and remarks.
pub type Shown = Vec<(i32, Option<String>)>;

/// Passed descriptors. A name that is a number means an inherited one.
#[derive(Default)]
pub struct Passed {
    named: Mutex<BTreeMap<String, OwnedFd>>,
    inherited: Mutex<BTreeSet<i32>>,
    /// By the set's number: descriptors with a remark each.
    sets: Mutex<BTreeMap<u64, Vec<Member>>>,
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

    /// Adds a descriptor to a set, a new one when none is named: the numbers of both.
    pub fn add_to_set(
        &self,
        set: Option<u64>,
        descriptor: OwnedFd,
        opaque: Option<&str>,
    ) -> (u64, i32) {
        let mut sets = self.sets.lock();
        let free = || (0..).find(|number| !sets.contains_key(number)).unwrap_or_default();
        let set = set.unwrap_or_else(free);
        let number = descriptor.as_raw_fd();
        sets.entry(set).or_default().push((descriptor, opaque.map(str::to_owned)));
        (set, number)
    }

    /// Puts an inherited descriptor into a set. The texts are QEMU's.
    pub fn add_inherited(&self, number: i32, set: u64, opaque: Option<&str>) -> Result<(), String> {
        if !self.inherited.lock().remove(&number) {
            return Err("fd is not valid or already in use".to_owned());
        }
        let own = own_descriptor(number).ok_or("cannot duplicate fd")?;
        _ = self.add_to_set(Some(set), own, opaque);
        Ok(())
    }

    /// The same for all files that a tree of members names.
    pub fn paths(&self, members: &mut serde_json::Map<String, Value>) -> Result<(), String> {
        for (name, value) in members.iter_mut() {
            match value {
                Value::Object(inner) => self.paths(inner)?,
                Value::String(path) if matches!(name.as_str(), "filename" | "file") => {
                    *path = self.path(path)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A path that names a set, as one that opens a member of it; other paths as they are.
    pub fn path(&self, path: &str) -> Result<String, String> {
        let Some(number) = path.strip_prefix("/dev/fdset/") else { return Ok(path.to_owned()) };
        let set: Option<u64> = number.parse().ok();
        let sets = self.sets.lock();
        let member = set.and_then(|set| sets.get(&set)?.first());
        let (descriptor, _) =
            member.ok_or_else(|| format!("Could not open '{path}': No such file or directory"))?;
        Ok(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
    }

    /// Takes one descriptor, or all, out of a set; whether there was any.
    pub fn remove_from_set(&self, set: u64, number: Option<i64>) -> bool {
        let mut sets = self.sets.lock();
        let Some(descriptors) = sets.get_mut(&set) else { return false };
        let before = descriptors.len();
        descriptors.retain(|(descriptor, _)| {
            number.is_some_and(|number| i64::from(descriptor.as_raw_fd()) != number)
        });
        let removed = descriptors.len() < before;
        if descriptors.is_empty() {
            sets.remove(&set);
        }
        removed
    }

    /// All sets.
    pub fn sets(&self) -> Vec<(u64, Shown)> {
        let sets = self.sets.lock();
        let numbers = |descriptors: &Vec<Member>| {
            let each = descriptors.iter();
            each.map(|(descriptor, opaque)| (descriptor.as_raw_fd(), opaque.clone())).collect()
        };
        sets.iter().map(|(set, descriptors)| (*set, numbers(descriptors))).collect()
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
