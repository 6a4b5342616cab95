//! Copying a disk while it is written, and going over to the copy.

use std::sync::Arc;

use super::{Job, Work, exchange};
use crate::dirty::{DirtyMap, Tracker};
use crate::error::{Error, Result};
use crate::node::{NodeRef, Zeroing, status_above};
use crate::root::{Root, Watcher};

/// Copies are made in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

/// What is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MirrorSync {
    /// The disk with all its backing files.
    Full,
    /// What the top image holds.
    Top,
    /// What changes from now on.
    None,
}

/// What is told when the disk has moved.
pub type Moved = Box<dyn FnMut(&NodeRef) + Send>;

/// The job.
pub struct Mirror {
    source: NodeRef,
    target: NodeRef,
    /// Copies come only from above this image.
    base: Option<NodeRef>,
    roots: Vec<Arc<Root>>,
    tracker: Arc<Tracker>,
    full: bool,
    changes_over: bool,
    moved: Moved,
}

impl Mirror {
    /// Begins to follow the writes of the roots in which the source stands.
    pub fn new(
        source: NodeRef,
        target: NodeRef,
        roots: Vec<Arc<Root>>,
        sync: MirrorSync,
        granularity: Option<u64>,
        moved: Moved,
    ) -> Result<Self> {
        if !target.writable() {
            return Err(Error::invalid("Block node is read-only"));
        }
        if Arc::ptr_eq(&source, &target) {
            return Err(Error::invalid("Can't mirror node into itself"));
        }
        if source.size() != target.size() {
            return Err(Error::invalid("Source and target image have different sizes"));
        }
        let base = match sync {
            MirrorSync::Full | MirrorSync::None => None,
            MirrorSync::Top => source.backing(),
        };
        let mut mirror = Self::follow(source, target, base, roots, granularity, moved)?;
        mirror.full = sync == MirrorSync::Full;
        mirror.mark(sync)?;
        Ok(mirror)
    }

    /// From the top of a chain into one of its backing files.
    pub(super) fn into_base(
        top: NodeRef,
        base: NodeRef,
        roots: Vec<Arc<Root>>,
        moved: Moved,
    ) -> Result<Self> {
        let mirror = Self::follow(top, base.clone(), Some(base), roots, None, moved)?;
        mirror.mark(MirrorSync::Top)?;
        Ok(mirror)
    }

    fn follow(
        source: NodeRef,
        target: NodeRef,
        base: Option<NodeRef>,
        roots: Vec<Arc<Root>>,
        granularity: Option<u64>,
        moved: Moved,
    ) -> Result<Self> {
        let unit = source.cluster_bytes().unwrap_or(0).clamp(4096, 64 << 10);
        let granularity = granularity.unwrap_or(unit.next_power_of_two());
        let tracker = Tracker::new(DirtyMap::new(source.size(), granularity)?, true);
        for root in &roots {
            root.watch(Arc::clone(&tracker) as Arc<dyn Watcher>);
        }
        Ok(Self { source, target, base, roots, tracker, full: false, changes_over: false, moved })
    }

    /// Marks what is to be copied at first.
    fn mark(&self, sync: MirrorSync) -> Result<()> {
        let size = self.source.size();
        match sync {
            MirrorSync::None => {}
            MirrorSync::Full => self.tracker.with(|map| map.mark(0, size)),
            MirrorSync::Top => {
                let mut at = 0;
                while at < size {
                    let found = status_above(&self.source, self.base.as_ref(), at, size - at)?;
                    if found.extent.allocated {
                        self.tracker.with(|map| map.mark(at, found.extent.length));
                    }
                    at += found.extent.length;
                }
            }
        }
        Ok(())
    }

    /// Copies one dirty range. The next one begins to be looked for behind it.
    fn step(&self, from: u64) -> Result<Option<(u64, u64)>> {
        let found = self.tracker.with(|map| {
            let found = map.next(from, PIECE_BYTES).or_else(|| map.next(0, PIECE_BYTES));
            if let Some((start, length)) = found {
                // Clean before it is read: a write meanwhile makes it dirty again.
                map.clean(start, length);
            }
            found
        });
        if let Some((start, length)) = found
            && let Err(error) = self.copy(start, length)
        {
            self.tracker.with(|map| map.mark(start, length));
            return Err(error);
        }
        Ok(found)
    }

    fn copy(&self, start: u64, length: u64) -> Result<()> {
        let mut buffer = Vec::new();
        let (mut at, end) = (start, start + length);
        while at < end {
            let found = status_above(&self.source, None, at, end - at)?.extent;
            let run = found.length.min(end - at);
            if found.zero {
                self.target.zero_at(at, run, Zeroing::Unmap)?;
            } else {
                buffer.resize(run as usize, 0);
                self.source.read_at(&mut buffer, at)?;
                self.target.write_at(&buffer, at)?;
            }
            at += run;
        }
        Ok(())
    }

    fn copy_all(&self, job: Option<&Job>) -> Result<()> {
        let (mut at, mut done) = (0, job.map_or(0, |job| job.describe().done));
        while let Some((start, length)) = self.step(at)? {
            at = start + length;
            done += length;
            if let Some(job) = job {
                job.progress(done, done + self.tracker.with(|map| map.count()));
                job.limit(length)?;
                job.breathe()?;
            }
        }
        Ok(())
    }
}

impl Work for Mirror {
    fn run(&mut self, job: &Job) -> Result<()> {
        job.progress(0, self.tracker.with(|map| map.count()));
        if self.full && self.target.starts_zeroed() && self.target.backing().is_none() {
            // A new image has zeros already; only what a read would find is copied.
            self.skip_zeros()?;
        }
        self.copy_all(Some(job))?;
        self.target.flush()?;
        let this = &*self;
        let changes_over = job.wait_until_completed(|| {
            let mut done = job.describe().done;
            while let Some((_, length)) = this.step(0)? {
                done += length;
                job.progress(done, done + this.tracker.with(|map| map.count()));
            }
            Ok(())
        })?;
        self.changes_over = changes_over;
        if !changes_over {
            // The copy is that of this moment.
            let held: Vec<_> = self.roots.iter().map(|root| root.hold()).collect();
            self.copy_all(None)?;
            drop(held);
        }
        self.target.flush()
    }

    fn commit(&mut self, job: &Job) -> Result<()> {
        if self.changes_over {
            exchange(&self.roots, &self.target, || {
                self.copy_all(None)?;
                self.source.flush()?;
                self.target.flush()
            })?;
            (self.moved)(&self.target);
        }
        let size = job.describe().total;
        job.progress(size, size);
        Ok(())
    }

    fn clean(&mut self) {
        let watcher = Arc::clone(&self.tracker) as Arc<dyn Watcher>;
        self.roots.iter().for_each(|root| root.unwatch(&watcher));
    }
}

impl Mirror {
    fn skip_zeros(&self) -> Result<()> {
        let size = self.source.size();
        let granularity = self.tracker.with(|map| map.granularity());
        let mut at = 0;
        while at < size {
            let found = status_above(&self.source, None, at, size - at)?.extent;
            let (start, end) = (at.next_multiple_of(granularity), at + found.length);
            // Only whole pieces, and nothing that a write may have touched since.
            let whole = if end == size { end } else { end - end % granularity };
            if found.zero && whole > start {
                let held: Vec<_> = self.roots.iter().map(|root| root.hold()).collect();
                let again = status_above(&self.source, None, start, whole - start)?.extent;
                if again.zero && again.length >= whole - start {
                    self.tracker.with(|map| map.clean(start, whole - start));
                }
                drop(held);
            }
            at += found.length;
        }
        Ok(())
    }
}
