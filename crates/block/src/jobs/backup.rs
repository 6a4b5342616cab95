//! A copy of a disk as it is at one moment: before the guest changes a part, that part is copied.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Job, Work};
use crate::dirty::{DirtyMap, Tracker};
use crate::error::{Error, Result};
use crate::node::{NodeRef, Zeroing, status_above};
use crate::root::{Root, Watcher};

/// The unit of copies, at least.
const CLUSTER_BYTES: u64 = 64 << 10;

/// What is copied.
#[derive(Clone)]
pub enum BackupSync {
    /// The disk with all its backing files.
    Full,
    /// What the top image holds.
    Top,
    /// What the guest is about to overwrite.
    None,
    /// What a bitmap has, which is cleaned when the job has ended well, always or never.
    Bitmap(Arc<Tracker>, BitmapMode),
}

/// What becomes of a bitmap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BitmapMode {
    /// What was copied is cleaned if all was.
    OnSuccess,
    /// It stays as it is.
    Never,
    /// What was copied is cleaned, even if not all was.
    Always,
}

/// Copies each part once.
struct Copier {
    source: NodeRef,
    target: NodeRef,
    compress: bool,
    /// What is still to be copied. The lock is held over a copy, so that a write waits for it.
    left: Mutex<DirtyMap>,
    failed: Mutex<Option<String>>,
}

/// The job.
pub struct Backup {
    copier: Arc<Copier>,
    roots: Vec<Arc<Root>>,
    only_before_writes: bool,
    bitmap: Option<(Arc<Tracker>, BitmapMode, DirtyMap)>,
    succeeded: bool,
}

impl Copier {
    fn copy(&self, offset: u64, length: u64) -> Result<()> {
        let mut buffer = Vec::new();
        let (mut at, end) = (offset, (offset + length).min(self.source.size()));
        while at < end {
            let found = status_above(&self.source, None, at, end - at)?.extent;
            let run = if self.compress { end - at } else { found.length };
            if found.zero && found.length >= run {
                self.target.zero_at(at, run, Zeroing::Unmap)?;
            } else {
                buffer.resize(run as usize, 0);
                self.source.read_at(&mut buffer, at)?;
                match self.target.compressing().filter(|_| self.compress) {
                    Some(compressing) => {
                        for (number, piece) in buffer.chunks(compressing.unit()).enumerate() {
                            let place = at + (number * compressing.unit()) as u64;
                            compressing.store(place, piece, &compressing.pack(piece)?)?;
                        }
                    }
                    None => self.target.write_at(&buffer, at)?,
                }
            }
            at += run;
        }
        Ok(())
    }

    /// Copies the next part. Its length, or nothing when all is done.
    fn step(&self) -> Result<Option<u64>> {
        let mut left = self.left.lock();
        let Some((start, length)) = left.next(0, CLUSTER_BYTES) else { return Ok(None) };
        self.copy(start, length)?;
        left.clean(start, length);
        Ok(Some(length))
    }
}

impl Watcher for Copier {
    fn before_write(&self, offset: u64, length: u64) -> Result<()> {
        let mut left = self.left.lock();
        let unit = left.granularity();
        let (mut at, end) = (offset - offset % unit, offset + length);
        while at < end {
            if left.is_dirty(at) {
                // The guest's write goes on even if the copy fails: then the job fails.
                if let Err(error) = self.copy(at, unit) {
                    self.failed.lock().get_or_insert(error.to_string());
                }
                left.clean(at, unit);
            }
            at += unit;
        }
        Ok(())
    }
}

impl Backup {
    /// From now on what the roots' users overwrite is copied before.
    pub fn new(
        source: NodeRef,
        target: NodeRef,
        roots: Vec<Arc<Root>>,
        sync: &BackupSync,
        compress: bool,
    ) -> Result<Self> {
        if Arc::ptr_eq(&source, &target) {
            return Err(Error::invalid("Source and target cannot be the same"));
        }
        if !target.writable() {
            return Err(Error::invalid("Block node is read-only"));
        }
        if source.size() != target.size() {
            return Err(Error::invalid("Source and target image have different sizes"));
        }
        if compress && target.compressing().is_none() {
            return Err(Error::invalid(format!(
                "Compression is not supported for this drive {}",
                target.filename()
            )));
        }
        let unit = target.cluster_bytes().unwrap_or(0).max(CLUSTER_BYTES).next_power_of_two();
        // While the roots are held, the moment is the same for all.
        let held: Vec<_> = roots.iter().map(|root| root.hold()).collect();
        let mut left = DirtyMap::new(source.size(), unit)?;
        let mut bitmap = None;
        match sync {
            BackupSync::Full | BackupSync::None => left.mark(0, source.size()),
            BackupSync::Top => mark_top(&source, &mut left)?,
            BackupSync::Bitmap(tracker, mode) => {
                let before = tracker.with(|map| {
                    let before = map.clone();
                    if *mode != BitmapMode::Never {
                        map.clear(); // what changes from now on belongs to the next backup
                    }
                    before
                });
                left.merge(&before);
                bitmap = Some((Arc::clone(tracker), *mode, before));
            }
        }
        let copier = Arc::new(Copier {
            source,
            target,
            compress,
            left: Mutex::new(left),
            failed: Mutex::new(None),
        });
        for held in &held {
            held.watch(Arc::clone(&copier) as Arc<dyn Watcher>);
        }
        drop(held);
        let only_before_writes = matches!(sync, BackupSync::None);
        Ok(Self { copier, roots, only_before_writes, bitmap, succeeded: false })
    }

    fn check(&self) -> Result<()> {
        match self.copier.failed.lock().clone() {
            Some(text) => Err(Error::Os(rustix::io::Errno::IO).during_text(text)),
            None => Ok(()),
        }
    }
}

fn mark_top(source: &NodeRef, left: &mut DirtyMap) -> Result<()> {
    let (mut at, size) = (0, source.size());
    while at < size {
        let extent = source.status(at, size - at)?;
        if extent.allocated {
            left.mark(at, extent.length);
        }
        at += extent.length;
    }
    Ok(())
}

impl Work for Backup {
    fn run(&mut self, job: &Job) -> Result<()> {
        let total = self.copier.left.lock().count();
        job.progress(0, total);
        if self.only_before_writes {
            // Until it is cancelled.
            loop {
                self.check()?;
                job.breathe()?;
                std::thread::sleep(super::IDLE);
            }
        }
        while let Some(length) = self.copier.step()? {
            let left = self.copier.left.lock().count();
            job.progress(total.saturating_sub(left), total);
            job.limit(length)?;
            job.breathe()?;
        }
        self.check()?;
        job.progress(total, total);
        self.copier.target.flush()
    }

    fn commit(&mut self, _job: &Job) -> Result<()> {
        self.check()?;
        self.succeeded = true;
        Ok(())
    }

    fn clean(&mut self) {
        let watcher = Arc::clone(&self.copier) as Arc<dyn Watcher>;
        self.roots.iter().for_each(|root| root.unwatch(&watcher));
        let Some((tracker, mode, before)) = self.bitmap.take() else { return };
        match (self.succeeded, mode) {
            (true, _) | (_, BitmapMode::Never) => {}
            // What was not copied is to be copied next time.
            (false, BitmapMode::OnSuccess) => tracker.with(|map| map.merge(&before)),
            (false, BitmapMode::Always) => {
                let left = self.copier.left.lock().clone();
                tracker.with(|map| map.merge(&left));
            }
        }
    }
}
