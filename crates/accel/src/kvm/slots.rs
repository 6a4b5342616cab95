//! Memory slots: the kernel's copy of the memory map.

// UNSAFETY: the kernel is told to let the guest use our memory.
#![expect(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use memory::{FlatRange, FlatView, Listener, Owner, PAGE_SIZE, Ram};
use parking_lot::Mutex;

use crate::Chipset;

/// A piece of a block of memory that the guest sees.
#[derive(Clone)]
struct Slot {
    number: u32,
    start: u64,
    bytes: u64,
    ram: Arc<Ram>,
    offset: u64,
    writable: bool,
}

impl Slot {
    /// The whole pages of a range. What is left of it is served as registers are, access by
    /// access.
    fn of(range: &FlatRange) -> Option<Self> {
        let (ram, writable) = match &range.owner {
            Owner::Ram(ram) => (ram, true),
            Owner::Rom(ram) | Owner::RomDevice(ram, _) => (ram, false),
            Owner::Io(_) => return None,
        };
        let start = range.start.checked_next_multiple_of(PAGE_SIZE)?;
        let lost = start - range.start;
        let bytes = range.length.checked_sub(lost)? / PAGE_SIZE * PAGE_SIZE;
        let offset = range.offset + lost;
        let fits = offset.is_multiple_of(PAGE_SIZE) && offset + bytes <= ram.len();
        let ram = Arc::clone(ram);
        (bytes > 0 && fits).then_some(Self { number: 0, start, bytes, ram, offset, writable })
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.start, self.bytes, self.offset, self.writable)
            == (other.start, other.bytes, other.offset, other.writable)
            && Arc::ptr_eq(&self.ram, &other.ram)
    }
}

/// All slots, by the guest's addresses.
pub struct Slots {
    vm: Arc<VmFd>,
    most: usize,
    chipset: Arc<dyn Chipset>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<u64, Slot>,
    logs: bool,
}

impl State {
    fn free_number(&self) -> u32 {
        (0..).find(|number| self.slots.values().all(|slot| slot.number != *number)).unwrap_or(0)
    }
}

impl Slots {
    pub fn new(vm: &Arc<VmFd>, most: usize, chipset: &Arc<dyn Chipset>) -> Arc<Self> {
        let state = Mutex::default();
        Arc::new(Self { vm: Arc::clone(vm), most, chipset: Arc::clone(chipset), state })
    }

    /// Tells the kernel; `bytes` of none take the slot away.
    fn put(&self, slot: &Slot, bytes: u64, logs: bool) -> bool {
        let mut flags = 0;
        if !slot.writable {
            flags |= KVM_MEM_READONLY;
        } else if logs {
            flags |= KVM_MEM_LOG_DIRTY_PAGES;
        }
        let region = kvm_userspace_memory_region {
            slot: slot.number,
            flags,
            guest_phys_addr: slot.start,
            memory_size: bytes,
            userspace_addr: slot.ram.host_address().addr().get() as u64 + slot.offset,
        };
        // SAFETY: the memory is the block's, within its length (`Slot::of`), and the block is held
        // until the kernel has been told that the slot is gone. All of our own accesses to it
        // expect a guest that writes at the same time.
        unsafe { self.vm.set_user_memory_region(region) }.is_ok()
    }

    /// Starts and sizes.
    #[cfg(test)]
    pub fn snapshot(&self) -> Vec<(u64, u64)> {
        self.state.lock().slots.values().map(|slot| (slot.start, slot.bytes)).collect()
    }

    pub fn log_writes(&self, on: bool) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.logs, on) != on {
            for slot in state.slots.values().filter(|slot| slot.writable) {
                self.put(slot, slot.bytes, on);
            }
        }
    }

    pub fn collect_writes(&self) {
        let state = self.state.lock();
        if state.logs {
            state.slots.values().for_each(|slot| self.collect(slot));
        }
    }

    /// Marks what was written by the guest since the last time.
    fn collect(&self, slot: &Slot) {
        if !slot.writable {
            return;
        }
        let Ok(bytes) = usize::try_from(slot.bytes) else { return };
        let Ok(words) = self.vm.get_dirty_log(slot.number, bytes) else { return };
        for (index, word) in words.into_iter().enumerate() {
            let mut bits = word;
            while bits != 0 {
                let page = index as u64 * 64 + u64::from(bits.trailing_zeros());
                slot.ram.dirty().mark(slot.offset + page * PAGE_SIZE, PAGE_SIZE);
                bits &= bits - 1;
            }
        }
    }
}

impl Listener for Slots {
    /// Slots that are as they were stay. Between the going of one and the coming of another at the
    /// same place, vCPUs that look there leave the guest and are served from the new view.
    fn changed(&self, _before: &FlatView, after: &FlatView) {
        let mut state = self.state.lock();
        let wanted: BTreeMap<u64, Slot> =
            after.ranges().iter().filter_map(Slot::of).map(|slot| (slot.start, slot)).collect();
        let stays = |slot: &Slot| wanted.get(&slot.start).is_some_and(|new| new.is_same(slot));
        let gone: Vec<u64> =
            state.slots.values().filter(|slot| !stays(slot)).map(|slot| slot.start).collect();
        for start in gone {
            if let Some(slot) = state.slots.remove(&start) {
                if state.logs {
                    self.collect(&slot);
                }
                self.put(&slot, 0, false);
            }
        }
        for (start, mut slot) in wanted {
            if state.slots.contains_key(&start) {
                continue;
            }
            slot.number = state.free_number();
            if state.slots.len() >= self.most || !self.put(&slot, slot.bytes, state.logs) {
                let text = format!("KVM cannot map {:#x} bytes at {start:#x}", slot.bytes);
                self.chipset.failed(&text);
                continue;
            }
            state.slots.insert(start, slot);
        }
    }
}
