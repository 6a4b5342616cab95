//! Changing the size that a guest sees, and dropping all contents.

use std::sync::atomic::Ordering;

use super::geometry::{COMPRESSED, Entry, OFFSET_MASK};
use super::metadata::Freed;
use super::{Qcow2, State, bitmaps, create};
use crate::error::{Error, Result};
use crate::node::{Node, Preallocation, Zeroing};

pub(super) fn resize(image: &Qcow2, size: u64, preallocation: Preallocation) -> Result<()> {
    if !size.is_multiple_of(512) {
        return Err(Error::invalid("The new size must be a multiple of 512"));
    }
    let old = image.size();
    {
        let state = image.state.lock();
        if !state.snapshots.is_empty() && state.meta.header.version < 3 {
            return Err(Error::unsupported("Can't resize a v2 image which has snapshots"));
        }
        if bitmaps::any(&state) && state.bitmaps.iter().any(bitmaps::Bitmap::is_broken) {
            return Err(Error::unsupported("Cannot resize an image with inconsistent bitmaps"));
        }
    }
    if size < old {
        if preallocation != Preallocation::Off {
            return Err(Error::invalid("Preallocation can't be used for shrinking an image"));
        }
        shrink(image, size)?;
    } else if size > old {
        grow(image, old, size, preallocation)?;
    }
    let mut guard = image.state.lock();
    let state = &mut *guard;
    if bitmaps::any(state) {
        bitmaps::resize_all(state, size)?;
    }
    state.meta.flush()
}

fn set_size(image: &Qcow2, state: &mut State, size: u64) -> Result<()> {
    state.meta.write_back()?;
    state.meta.header.size = size;
    state.meta.file.write_at(&size.to_be_bytes(), 24)?;
    image.size.store(size, Ordering::Release);
    Ok(())
}

fn grow(image: &Qcow2, old: u64, size: u64, preallocation: Preallocation) -> Result<()> {
    let entries = image.geometry.l1_entries_for(size);
    if entries * 8 > super::header::L1_BYTES_MAX {
        return Err(Error::Os(rustix::io::Errno::FBIG).during("Failed to grow the L1 table"));
    }
    {
        let mut state = image.state.lock();
        image.drain(&mut state);
        state.meta.grow_l1(entries, true)?;
        set_size(image, &mut state, size)?;
    }
    if let Some(backing) = image.backing()
        && backing.size() > old
    {
        // What a longer backing file has there must not appear.
        let end = size.min(backing.size().next_multiple_of(image.geometry.cluster));
        image.zero(old, end - old, Zeroing::Keep)?;
    }
    if let (Some(data), Preallocation::Off | Preallocation::Metadata) =
        (&image.data_file, preallocation)
        && data.size() < size
    {
        data.resize(size, Preallocation::Off)?;
    }
    create::preallocate_grown(image, old, size, preallocation)
}

fn shrink(image: &Qcow2, size: u64) -> Result<()> {
    let geometry = image.geometry;
    let mut guard = image.state.lock();
    image.drain(&mut guard);
    let state = &mut *guard;
    let first = size.next_multiple_of(geometry.cluster);
    drop_range(image, state, first, image.size().next_multiple_of(geometry.cluster))?;
    let entries = geometry.l1_entries_for(size) as usize;
    for index in entries..state.meta.l1.len() {
        let entry = state.meta.l1[index];
        if entry & OFFSET_MASK != 0 {
            state.meta.forget_l2(entry & OFFSET_MASK);
            state.meta.free(entry & OFFSET_MASK, geometry.cluster, Freed::Other);
            state.meta.set_l1(index, 0);
        }
    }
    set_size(image, state, size)?;
    state.meta.write_back()?;
    state.meta.write_back()?;
    cut_file(image, state)?;
    if let Some(data) = &image.data_file {
        data.resize(size, Preallocation::Off)?;
    }
    Ok(())
}

/// Makes the entries of whole clusters empty and gives the clusters back.
fn drop_range(image: &Qcow2, state: &mut State, from: u64, to: u64) -> Result<()> {
    let geometry = image.geometry;
    let mut at = from;
    while at < to {
        if state.meta.l2_offset(geometry.l1_index(at)) == 0 {
            at = (at | (geometry.l2_span() - 1)) + 1;
            continue;
        }
        let slot = image.l2_for_write(state, at)?;
        let index = geometry.l2_index(at);
        let old = state.meta.entry(slot, index);
        if old != Entry::default() {
            state.meta.set_entry(slot, index, Entry::default());
            if old.word & (OFFSET_MASK | COMPRESSED) != 0 {
                image.free_entry(state, old, Freed::Discarded);
            }
        }
        if state.meta.has_many_frees() {
            state.meta.write_back()?;
        }
        at += geometry.cluster;
    }
    Ok(())
}

/// Cuts what nothing uses off the end of the file.
fn cut_file(image: &Qcow2, state: &mut State) -> Result<()> {
    let bits = image.geometry.cluster_bits;
    let mut end = state.meta.file.size().div_ceil(image.geometry.cluster);
    while end > 0 && state.meta.refcount(end - 1)? == 0 {
        end -= 1;
    }
    if end << bits < state.meta.file.size() {
        state.meta.file.resize(end << bits, Preallocation::Off)?;
        if !image.external() {
            state.meta.untouched_from = end << bits;
        }
    }
    Ok(())
}

/// Drops all contents, so that the backing file shows through.
pub(super) fn make_empty(image: &Qcow2) -> Result<()> {
    let mut guard = image.state.lock();
    image.drain(&mut guard);
    let state = &mut *guard;
    let span = (state.meta.l1.len() as u64).saturating_mul(image.geometry.l2_span());
    drop_range(image, state, 0, span)?;
    for index in 0..state.meta.l1.len() {
        let table = state.meta.l1[index] & OFFSET_MASK;
        if table != 0 {
            state.meta.forget_l2(table);
            state.meta.free(table, image.geometry.cluster, Freed::Other);
            state.meta.set_l1(index, 0);
        }
    }
    state.meta.write_back()?;
    state.meta.write_back()?;
    cut_file(image, state)?;
    image.forget_unpacked();
    state.meta.flush()
}
