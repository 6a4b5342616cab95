//! The address-space tree: regions with priorities that a board lays over each other.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::flat::Listeners;
use crate::{FlatRange, FlatView, Owner};

/// Something at a place. Where regions overlap, the higher priority wins; among equals, the one
/// that came later.
#[derive(Clone, Debug)]
pub struct Region {
    /// For people: what `info mtree` shows.
    pub name: String,
    /// The first address.
    pub start: u64,
    /// The number of addresses.
    pub length: u64,
    /// Where in its owner the region starts; an alias is a region with an offset.
    pub offset: u64,
    /// What stands there.
    pub owner: Owner,
    /// The higher one is seen.
    pub priority: i32,
    /// A region that is off is as good as absent.
    pub enabled: bool,
}

impl Region {
    /// A region of priority 0 that is on.
    #[must_use]
    pub fn new(name: &str, start: u64, length: u64, owner: Owner) -> Self {
        let name = name.to_owned();
        Self { name, start, length, offset: 0, owner, priority: 0, enabled: true }
    }

    /// The same with another priority.
    #[must_use]
    pub fn with_priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }

    /// The same, starting `offset` bytes into its owner.
    #[must_use]
    pub fn with_offset(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    /// The same, on or off.
    #[must_use]
    pub fn with_enabled(self, enabled: bool) -> Self {
        Self { enabled, ..self }
    }

    fn is_placed_as(&self, other: &Self) -> bool {
        (self.start, self.length, self.offset, self.priority, self.enabled)
            == (other.start, other.length, other.offset, other.priority, other.enabled)
    }

    /// The last address, or none for an empty region. A region that would wrap ends at the top.
    fn last(&self) -> Option<u64> {
        Some(self.start.saturating_add(self.length.checked_sub(1)?))
    }
}

/// Names a region of one address space for as long as that exists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RegionId(usize);

/// Told about every new flat view, under the lock of the change: an accelerator that keeps its own
/// copy of the map or of what lies in memory. It must not change the space it listens to.
pub trait Listener: Send + Sync {
    /// `after` has just taken the place of `before`.
    fn changed(&self, before: &FlatView, after: &FlatView);

    /// Memory was written by somebody who is no vCPU. Called after the write, from any thread.
    fn written(&self, start: u64, bytes: u64) {
        _ = (start, bytes);
    }
}

/// What a vCPU can address: memory, or ports.
///
/// Lock order: `tree`, then `view`, then the listeners, which are leaves.
#[derive(Default)]
pub struct AddressSpace {
    tree: Mutex<Vec<Option<Region>>>,
    view: RwLock<Arc<FlatView>>,
    listeners: Listeners,
    /// Counts views, so that a reader with a copy can tell cheaply whether it is stale.
    generation: AtomicU64,
}

impl AddressSpace {
    /// An empty space.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a region.
    pub fn add(&self, region: Region) -> RegionId {
        self.update(|change| change.add(region))
    }

    /// Makes several changes that readers see at once.
    pub fn update<T>(&self, change: impl FnOnce(&mut Change<'_>) -> T) -> T {
        let mut tree = self.tree.lock();
        let mut pending = Change { regions: &mut tree, touched: false };
        let result = change(&mut pending);
        if pending.touched {
            let after = FlatView { ranges: flatten(&tree), listeners: self.listeners.clone() };
            let after = Arc::new(after);
            let before = std::mem::replace(&mut *self.view.write(), Arc::clone(&after));
            self.generation.fetch_add(1, Ordering::Release);
            for listener in &*self.listeners.0.read() {
                listener.changed(&before, &after);
            }
        }
        result
    }

    /// Adds a listener and tells it of the present view as a change from nothing.
    pub fn listen(&self, listener: Arc<dyn Listener>) {
        let _tree = self.tree.lock();
        listener.changed(&FlatView::default(), &self.view());
        self.listeners.0.write().push(listener);
    }

    /// Says that a device has written memory, so that translations of it are made anew.
    pub fn written(&self, start: u64, bytes: u64) {
        self.listeners.written(start, bytes);
    }

    /// The present flat view. Keep it for one access, or compare [`AddressSpace::generation`].
    #[must_use]
    pub fn view(&self) -> Arc<FlatView> {
        Arc::clone(&self.view.read())
    }

    /// Grows with every change of the view.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// All regions, whether they are seen or not.
    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        self.tree.lock().iter().flatten().cloned().collect()
    }

    /// The region behind an id, as it stands.
    #[must_use]
    pub fn region(&self, id: RegionId) -> Option<Region> {
        self.tree.lock().get(id.0).cloned().flatten()
    }
}

impl fmt::Debug for AddressSpace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.view().ranges()).finish()
    }
}

/// Changes that take effect together.
pub struct Change<'a> {
    regions: &'a mut Vec<Option<Region>>,
    touched: bool,
}

impl Change<'_> {
    /// Adds a region.
    pub fn add(&mut self, region: Region) -> RegionId {
        self.regions.push(Some(region));
        self.touched = true;
        RegionId(self.regions.len() - 1)
    }

    /// Takes a region away for good.
    pub fn remove(&mut self, id: RegionId) {
        if let Some(slot) = self.regions.get_mut(id.0) {
            self.touched |= slot.take().is_some();
        }
    }

    /// Switches a region on or off.
    pub fn set_enabled(&mut self, id: RegionId, enabled: bool) {
        self.alter(id, |region| std::mem::replace(&mut region.enabled, enabled) != enabled);
    }

    /// Moves a region.
    pub fn set_start(&mut self, id: RegionId, start: u64) {
        self.alter(id, |region| {
            let moved = std::mem::replace(&mut region.start, start) != start;
            moved && region.enabled
        });
    }

    /// Puts something else behind a region.
    pub fn set_owner(&mut self, id: RegionId, owner: Owner) {
        self.alter(id, |region| {
            let other = !region.owner.is(&owner);
            region.owner = owner;
            other && region.enabled
        });
    }

    /// What stands behind a region.
    #[must_use]
    pub fn owner(&self, id: RegionId) -> Option<Owner> {
        self.regions.get(id.0)?.as_ref().map(|region| region.owner.clone())
    }

    /// Puts another region in the place of one.
    pub fn replace(&mut self, id: RegionId, region: Region) {
        if let Some(Some(present)) = self.regions.get_mut(id.0) {
            let same = present.is_placed_as(&region) && present.owner.is(&region.owner);
            self.touched |= !same && (present.enabled || region.enabled);
            *present = region;
        }
    }

    fn alter(&mut self, id: RegionId, alter: impl FnOnce(&mut Region) -> bool) {
        if let Some(Some(region)) = self.regions.get_mut(id.0) {
            self.touched |= alter(region);
        }
    }
}

/// Lays the regions over each other, lowest priority first; each takes its place from what is
/// below it.
fn flatten(regions: &[Option<Region>]) -> Vec<FlatRange> {
    let mut order: Vec<&Region> =
        regions.iter().flatten().filter(|region| region.enabled).collect();
    order.sort_by_key(|region| region.priority); // stable, so later ones stay above
    let mut ranges: Vec<FlatRange> = Vec::new();
    for region in order {
        let Some(last) = region.last() else { continue };
        let first_overlap = ranges.partition_point(|range| range.last() < region.start);
        let behind = ranges.partition_point(|range| range.start <= last);
        let new = FlatRange {
            start: region.start,
            length: (last - region.start).saturating_add(1),
            owner: region.owner.clone(),
            offset: region.offset,
        };
        let mut middle = Vec::with_capacity(3);
        if let Some(head) = ranges[first_overlap..behind].first() {
            middle.extend(part(head, head.start, region.start.checked_sub(1)));
        }
        middle.push(new);
        if let Some(tail) = ranges[first_overlap..behind].last() {
            middle
                .extend(last.checked_add(1).and_then(|start| part(tail, start, Some(tail.last()))));
        }
        ranges.splice(first_overlap..behind, middle);
    }
    ranges
}

/// The part of `range` from `start` to `last`, if anything is left.
fn part(range: &FlatRange, start: u64, last: Option<u64>) -> Option<FlatRange> {
    let last = last?.min(range.last());
    let start = start.max(range.start);
    let length = last.checked_sub(start)? + 1;
    let offset = range.offset + (start - range.start);
    Some(FlatRange { start, length, owner: range.owner.clone(), offset })
}

#[cfg(test)]
mod tests;
