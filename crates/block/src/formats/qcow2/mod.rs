//! `qcow2`: clusters that come into being when they are written, backing files, snapshots inside,
//! compression, bitmaps. Versions 2 and 3 as QEMU's `docs/interop/qcow2` describes them.
//!
//! `-blockdev driver=qcow2,file.driver=file,file.filename=disk.qcow2`

mod header;
mod geometry;
mod cache;
mod metadata;
mod refcounts;
mod open;
mod read;
mod write;
mod zero;
mod compress;
mod crypt;
mod snapshots;
mod bitmaps;
mod check;
mod create;
mod resize;
mod amend;
mod describe;
#[cfg(test)]
mod crash_tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};
use rustix::io::Errno;

use super::Format;
use super::luks::cipher::SECTOR_BYTES;
use crate::bitmaps::Bitmaps;
use crate::error::{Error, Result};
use crate::info::{CheckReport, Fix, ImageInfo};
use crate::node::{Compressing, Extent, HostRange, Node, NodeRef, Preallocation, Zeroing};
use crate::options::CreateOptions;
use crate::snapshots::Snapshots;

use geometry::Geometry;
use header::Compression;
use metadata::Metadata;
use snapshots::SnapshotRow;

/// The table row.
pub const FORMAT: Format = Format {
    name: "qcow2",
    probe: |start, _| {
        let magic = start.len() >= 8 && header::be32(start, 0) == header::MAGIC;
        if magic && header::be32(start, 4) >= 2 { 100 } else { 0 }
    },
    open: open::open,
    create: Some(create::create),
    create_options: create::CREATE_OPTIONS,
    amend_options: amend::AMEND_OPTIONS,
    backing: true,
    measure: Some(create::measure),
};

/// An open qcow2 image.
///
/// Lock order: `state`, then `unpacked`. Guest data is read and written without a lock; a write
/// that allocates announces its clusters in [`State::in_flight`], and others that touch the
/// same clusters wait on `landed`.
pub struct Qcow2 {
    // Static configuration
    geometry: Geometry,
    compression: Compression,
    writable: AtomicBool,
    discard_frees: bool,
    /// For images with encrypted guest data.
    crypt: Option<Arc<crypt::Crypt>>,
    // Runtime dependencies
    file: NodeRef,
    data_file: Option<NodeRef>,
    backing: RwLock<Option<NodeRef>>,
    // Volatile state
    size: AtomicU64,
    state: Mutex<State>,
    landed: Condvar,
    /// Orders read-modify-write of partial sectors of encrypted images.
    partial: Mutex<()>,
    /// The last compressed cluster that was read: host offset and contents.
    unpacked: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
}

/// What the lock guards.
struct State {
    meta: Metadata,
    snapshots: Vec<SnapshotRow>,
    bitmaps: Vec<bitmaps::Bitmap>,
    /// Bitmaps are marked as in use in the file.
    bitmaps_opened: bool,
    /// Guest ranges with a write under way.
    in_flight: Vec<write::Flight>,
    next_flight: u64,
    /// An in-memory view of a snapshot: nothing may be changed.
    frozen: bool,
    /// Whether data runs below may be holes: found out once, when status is first asked.
    preallocated: Option<bool>,
}

impl Qcow2 {
    /// Where guest data lies.
    fn data(&self) -> &NodeRef {
        self.data_file.as_ref().unwrap_or(&self.file)
    }

    fn external(&self) -> bool {
        self.data_file.is_some()
    }

    fn must_be_writable(&self) -> Result<()> {
        if self.writable() { Ok(()) } else { Err(Errno::BADF.into()) }
    }

    /// Marks the image as damaged, so that nothing worse happens, and gives the error to return.
    fn damaged(&self, state: &mut State, text: String) -> Error {
        crate::notices::say(&format!(
            "qcow2: Marking image as corrupt: {text}; further corruption events will be suppressed"
        ));
        if self.writable() && self.geometry.zero_flag {
            let bits = state.meta.header.incompatible | header::incompatible::CORRUPT;
            // The finding matters more than a failure to write it down.
            _ = state.meta.set_incompatible(bits);
        }
        Error::corrupt(text)
    }
}

impl Drop for Qcow2 {
    fn drop(&mut self) {
        if !self.writable() {
            return;
        }
        if let Err(error) = self.close() {
            for cache in ["L2 table", "refcount block"] {
                let text = format!("Failed to flush the {cache} cache: {error}");
                crate::notices::complain(&text);
            }
        }
    }
}

impl Qcow2 {
    fn close(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.bitmaps_opened {
            bitmaps::store(&mut state)?;
        }
        let meta = &mut state.meta;
        if meta.is_dirty() {
            meta.write_back_all()?;
        }
        let dirty = header::incompatible::DIRTY;
        if meta.header.incompatible & dirty != 0 {
            meta.file.flush()?;
            meta.set_incompatible(meta.header.incompatible & !dirty)?;
        }
        Ok(())
    }
}

impl Node for Qcow2 {
    fn driver(&self) -> &'static str {
        "qcow2"
    }

    fn filename(&self) -> String {
        self.file.filename()
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn writable(&self) -> bool {
        self.writable.load(Ordering::Acquire)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.read(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.must_be_writable()?;
        let whole = |bytes: u64| bytes.is_multiple_of(SECTOR_BYTES as u64);
        if self.crypt.is_some() && !(whole(offset) && whole(data.len() as u64)) {
            return self.write_partial(data, offset);
        }
        self.write(data, offset)
    }

    fn copy_from(&self, source: &HostRange<'_>, offset: u64) -> Result<()> {
        self.must_be_writable()?;
        if self.crypt.is_some() {
            return Err(Error::unsupported("Operation not supported"));
        }
        self.write_from(source, offset)
    }

    fn zero_at(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        self.must_be_writable()?;
        self.zero(offset, length, zeroing)
    }

    fn zero_fast(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        self.must_be_writable()?;
        self.zero_whole(offset, length, zeroing)
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<()> {
        self.must_be_writable()?;
        self.discard(offset, length)
    }

    fn flush(&self) -> Result<()> {
        if !self.writable() {
            return Ok(());
        }
        if let Some(data) = &self.data_file {
            data.flush()?;
        }
        self.state.lock().meta.flush()
    }

    fn write_back(&self) -> Result<()> {
        if self.writable() { self.state.lock().meta.write_back() } else { Ok(()) }
    }

    fn finish(&self) -> Result<()> {
        if self.writable() { self.close().and_then(|()| self.flush()) } else { Ok(()) }
    }

    fn status(&self, offset: u64, length: u64) -> Result<Extent> {
        self.extent(offset, length)
    }

    fn data_node(&self) -> Option<NodeRef> {
        Some(self.data().clone())
    }

    fn file(&self) -> Option<NodeRef> {
        Some(self.file.clone())
    }

    fn children(&self) -> Vec<(&'static str, NodeRef)> {
        let mut children = vec![("file", self.file.clone())];
        children.extend(self.data_file.clone().map(|data| ("data-file", data)));
        children
    }

    fn backing(&self) -> Option<NodeRef> {
        self.backing.read().clone()
    }

    fn set_backing(&self, backing: Option<NodeRef>) -> Result<()> {
        *self.backing.write() = backing;
        Ok(())
    }

    fn supports_backing(&self) -> bool {
        true
    }

    fn change_backing_file(&self, filename: Option<&str>, format: Option<&str>) -> Result<()> {
        self.must_be_writable()?;
        amend::change_backing(self, filename, format)
    }

    fn resize(&self, size: u64, preallocation: Preallocation) -> Result<()> {
        self.must_be_writable()?;
        resize::resize(self, size, preallocation)
    }

    fn make_empty(&self) -> Result<()> {
        self.must_be_writable()?;
        resize::make_empty(self)
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(describe::describe(self))
    }

    fn allocated_bytes(&self) -> Option<u64> {
        let own = self.file.allocated_bytes()?;
        match &self.data_file {
            Some(data) => Some(own + data.allocated_bytes()?),
            None => Some(own),
        }
    }

    fn cluster_bytes(&self) -> Option<u64> {
        Some(self.geometry.cluster)
    }

    fn subcluster_bytes(&self) -> Option<u64> {
        Some(self.geometry.subcluster)
    }

    fn vm_state_offset(&self) -> Option<u64> {
        Some(self.size().next_multiple_of(self.geometry.l2_span()))
    }

    fn shares_blocks(&self) -> bool {
        self.crypt.is_none() && self.data().shares_blocks()
    }

    fn starts_zeroed(&self) -> bool {
        let state = self.state.lock();
        let preallocated = state.meta.l1.first().is_some_and(|entry| *entry != 0);
        !preallocated || (self.crypt.is_none() && self.data().starts_zeroed())
    }

    fn check(&self, fix: Fix) -> Result<CheckReport> {
        check::check(self, fix)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }

    fn compressing(&self) -> Option<&dyn Compressing> {
        self.crypt.is_none().then_some(self)
    }

    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        Some(self)
    }

    fn set_writable(&self, writable: bool) -> Result<()> {
        if self.writable() == writable {
            return Ok(());
        }
        if !writable {
            self.flush()?;
            self.close()?;
            self.writable.store(false, Ordering::Release);
            return self.file.set_writable(false);
        }
        self.file.set_writable(true)?;
        if let Some(data) = &self.data_file {
            data.set_writable(true)?;
        }
        let mut state = self.state.lock();
        open::begin_writing(&mut state)?;
        self.writable.store(true, Ordering::Release);
        Ok(())
    }

    fn amend(&self, options: &CreateOptions, force: bool, report: &dyn Fn(u64, u64)) -> Result<()> {
        self.must_be_writable()?;
        amend::amend(self, options, force, report)
    }
}
