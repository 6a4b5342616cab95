//! Bringing what an image holds into one of its backing files.

use std::sync::Arc;

use super::mirror::{Mirror, Moved};
use super::{Job, Work};
use crate::error::{Error, Result};
use crate::node::{NodeRef, Preallocation, Zeroing, status_above};
use crate::root::Root;

const PIECE_BYTES: u64 = 1 << 20;

/// The job.
pub enum Commit {
    /// The top of the chain, which is written meanwhile: like a copy that is kept up to date.
    Active(Box<Mirror>),
    /// An image below another one.
    Below(Below),
}

/// An image below `overlays` goes into `base`.
pub struct Below {
    overlays: Vec<NodeRef>,
    top: NodeRef,
    base: NodeRef,
    /// What the overlay's header is to say.
    backing_file: Option<String>,
    backing_format: Option<String>,
    was_writable: bool,
}

impl Commit {
    /// The top of a chain into `base`.
    pub fn active(
        top: NodeRef,
        base: NodeRef,
        roots: Vec<Arc<Root>>,
        moved: Moved,
    ) -> Result<Self> {
        prepare(&top, &base)?;
        Ok(Self::Active(Box::new(Mirror::into_base(top, base, roots, moved)?)))
    }

    /// `top`, on which `overlays` stand, into `base`.
    pub fn below(
        overlays: Vec<NodeRef>,
        top: NodeRef,
        base: NodeRef,
        backing: (Option<String>, Option<String>),
    ) -> Result<Self> {
        let was_writable = base.writable();
        prepare(&top, &base)?;
        overlays.iter().try_for_each(|overlay| overlay.set_writable(true))?;
        let (backing_file, backing_format) = backing;
        Ok(Self::Below(Below { overlays, top, base, backing_file, backing_format, was_writable }))
    }
}

fn prepare(top: &NodeRef, base: &NodeRef) -> Result<()> {
    if Arc::ptr_eq(top, base) {
        return Err(Error::invalid("Invalid files for merge: top and base are the same"));
    }
    base.set_writable(true)?;
    if base.size() < top.size() {
        base.resize(top.size(), Preallocation::Off)?;
    }
    Ok(())
}

impl Work for Commit {
    fn run(&mut self, job: &Job) -> Result<()> {
        match self {
            Self::Active(mirror) => mirror.run(job),
            Self::Below(below) => below.run(job),
        }
    }

    fn commit(&mut self, job: &Job) -> Result<()> {
        match self {
            Self::Active(mirror) => mirror.commit(job),
            Self::Below(below) => below.commit(),
        }
    }

    fn clean(&mut self) {
        match self {
            Self::Active(mirror) => mirror.clean(),
            Self::Below(below) => below.clean(),
        }
    }
}

impl Below {
    fn run(&mut self, job: &Job) -> Result<()> {
        let size = self.top.size();
        let mut buffer = Vec::new();
        let mut at = 0;
        job.progress(0, size);
        while at < size {
            job.breathe()?;
            let found = status_above(&self.top, Some(&self.base), at, size - at)?.extent;
            let mut length = found.length;
            if found.allocated && found.zero {
                self.base.zero_at(at, length, Zeroing::Unmap)?;
            } else if found.allocated {
                length = length.min(PIECE_BYTES);
                buffer.resize(length as usize, 0);
                self.top.read_at(&mut buffer, at)?;
                self.base.write_at(&buffer, at)?;
                job.limit(length)?;
            }
            at += length;
            job.progress(at, size);
        }
        self.base.flush()
    }

    fn commit(&mut self) -> Result<()> {
        let (file, format) = (self.backing_file.as_deref(), self.backing_format.as_deref());
        for overlay in &self.overlays {
            overlay.change_backing_file(file, format)?;
            overlay.set_backing(Some(Arc::clone(&self.base)))?;
        }
        Ok(())
    }

    fn clean(&mut self) {
        if !self.was_writable {
            // Nothing is written any more; that it could be is no harm.
            _ = self.base.set_writable(false);
        }
    }
}
