//! What a debugger has set: places where the guest stops, and memory that is watched. System mode
//! only.
//!
//! A breakpoint ends blocks before it, as a page would that is not there; the block that would begin
//! at it is a fetch fault, which the run loop tells from a real one. A page with something watched
//! in it never enters the TLB, so that all its accesses are slow ones and are looked at. What hits
//! is undone and executed alone with nothing watched, and then reported.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use isa::Access;
use linux::locks::RwLock;

/// Watched memory, by the guest's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watch {
    /// The first byte.
    pub start: u64,
    /// So many.
    pub bytes: u64,
    /// Loads hit.
    pub reads: bool,
    /// Stores hit.
    pub writes: bool,
}

impl Watch {
    fn last(&self) -> u64 {
        self.start.saturating_add(self.bytes.max(1) - 1)
    }

    fn is_hit(&self, address: u64, bytes: u64, access: Access) -> bool {
        let kind = match access {
            Access::Write => self.writes,
            _ => self.reads,
        };
        kind && address <= self.last() && self.start <= address.saturating_add(bytes.max(1) - 1)
    }
}

#[derive(Default)]
struct Set {
    breakpoints: BTreeSet<u64>,
    watches: Vec<Watch>,
}

/// All of an engine's.
#[derive(Default)]
pub struct Stops {
    /// Nothing is set: the usual case costs a look at this.
    any: AtomicBool,
    set: RwLock<Set>,
}

impl Stops {
    /// Whether anything is set.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut Set)) {
        let mut set = self.set.write();
        change(&mut set);
        self.any.store(!set.breakpoints.is_empty() || !set.watches.is_empty(), Ordering::Relaxed);
    }

    /// Sets or clears a breakpoint.
    pub fn set_breakpoint(&self, address: u64, set: bool) {
        self.change(|all| {
            _ = if set {
                all.breakpoints.insert(address)
            } else {
                all.breakpoints.remove(&address)
            };
        });
    }

    /// Sets or clears a watch.
    pub fn set_watch(&self, watch: Watch, set: bool) {
        self.change(|all| {
            all.watches.retain(|known| *known != watch);
            if set {
                all.watches.push(watch);
            }
        });
    }

    /// Whether the guest stops before this instruction.
    pub fn has_breakpoint(&self, address: u64) -> bool {
        self.any() && self.set.read().breakpoints.contains(&address)
    }

    /// How many of these bytes of code are before the next breakpoint.
    pub fn readable(&self, pc: u64, bytes: usize) -> usize {
        if !self.any() {
            return bytes;
        }
        let set = self.set.read();
        let next = set.breakpoints.range(pc..pc.saturating_add(bytes as u64)).next();
        next.map_or(bytes, |next| (next - pc) as usize)
    }

    /// Whether something in the page of this address is watched.
    pub fn watches_page(&self, address: u64) -> bool {
        let page = address >> 12;
        let within = |watch: &Watch| (watch.start >> 12..=watch.last() >> 12).contains(&page);
        self.any() && self.set.read().watches.iter().any(within)
    }

    /// The pages in which something is watched.
    pub fn watched_pages(&self) -> Vec<u64> {
        let set = self.set.read();
        let pages = |watch: &Watch| (watch.start >> 12..=watch.last() >> 12).map(|page| page << 12);
        set.watches.iter().flat_map(pages).collect()
    }

    /// What an access hits: the watched address.
    pub fn hit(&self, address: u64, bytes: u64, access: Access) -> Option<u64> {
        let set = self.set.read();
        let found = set.watches.iter().find(|watch| watch.is_hit(address, bytes, access));
        found.map(|watch| watch.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_hit_what_they_touch() {
        let stops = Stops::default();
        let watch = Watch { start: 0x1ffe, bytes: 4, reads: false, writes: true };
        stops.set_watch(watch, true);
        for (address, bytes, access, hit) in [
            (0x1ff6, 8, Access::Write, false),
            (0x1ff7, 8, Access::Write, true),
            (0x2001, 1, Access::Write, true),
            (0x2002, 1, Access::Write, false),
            (0x1ffe, 4, Access::Read, false),
        ] {
            let found = stops.hit(address, bytes, access);
            assert_eq!(found.is_some(), hit, "{address:#x} {bytes} {access:?}");
        }
        assert_eq!(stops.watched_pages(), [0x1000, 0x2000]);
        stops.set_watch(watch, false);
        assert!(!stops.any() && !stops.watches_page(0x1fff));
    }

    #[test]
    fn code_ends_before_a_breakpoint() {
        let stops = Stops::default();
        assert_eq!(stops.readable(0x100, 16), 16);
        stops.set_breakpoint(0x104, true);
        assert_eq!((stops.readable(0x100, 16), stops.readable(0x104, 4)), (4, 0));
        assert_eq!(stops.readable(0x105, 16), 16);
    }
}
