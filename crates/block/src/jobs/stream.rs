//! Bringing what backing files hold into the image above them.

use std::sync::Arc;

use super::{Job, Work};
use crate::error::Result;
use crate::filters::copy_on_read::fill;
use crate::node::NodeRef;
use crate::root::Root;

const PIECE_BYTES: u64 = 1 << 20;

/// The job.
pub struct Stream {
    node: NodeRef,
    /// The image that stays below; none is left without one.
    base: Option<NodeRef>,
    roots: Vec<Arc<Root>>,
    backing_file: Option<String>,
    backing_format: Option<String>,
}

impl Stream {
    /// Into `node`, from all between it and `base`.
    pub fn new(
        node: NodeRef,
        base: Option<NodeRef>,
        roots: Vec<Arc<Root>>,
        backing: (Option<String>, Option<String>),
    ) -> Result<Self> {
        node.set_writable(true)?;
        let (backing_file, backing_format) = backing;
        Ok(Self { node, base, roots, backing_file, backing_format })
    }
}

impl Work for Stream {
    fn run(&mut self, job: &Job) -> Result<()> {
        let size = self.node.size();
        job.progress(0, size);
        if self.node.backing().is_none() {
            job.progress(size, size);
            return Ok(());
        }
        let mut at = 0;
        while at < size {
            job.breathe()?;
            let extent = self.node.status(at, size - at)?;
            let mut length = extent.length;
            if !extent.allocated {
                length = length.min(PIECE_BYTES);
                // A write of the guest between the look and the copy must not be undone.
                let held: Vec<_> = self.roots.iter().map(|root| root.hold()).collect();
                fill(&self.node, self.base.as_ref(), at, length)?;
                drop(held);
                job.limit(length)?;
            }
            at += length;
            job.progress(at, size);
        }
        self.node.flush()
    }

    fn commit(&mut self, _job: &Job) -> Result<()> {
        if self.node.backing().is_none() {
            return Ok(());
        }
        let held: Vec<_> = self.roots.iter().map(|root| root.hold()).collect();
        self.node
            .change_backing_file(self.backing_file.as_deref(), self.backing_format.as_deref())?;
        self.node.set_backing(self.base.clone())?;
        drop(held);
        Ok(())
    }
}
