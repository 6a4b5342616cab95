//! `qemu-img rebase`.

use block::node::{Zeroing, status_above, status_through};
use block::open::OpenMode;
use block::{Error, NodeRef};
use qemu_compat::image_tool::arguments::Typed;
use rustix::io::Errno;

use super::failure::{Failure, Outcome};
use super::progress::Progress;
use super::{fail, opening};

/// Old and new contents are compared in pieces of this size.
const PIECE_BYTES: u64 = 2 << 20;

pub fn run(typed: &Typed) -> Outcome {
    let [name] = typed.operands.as_slice() else {
        return Err(Failure::usage("Expecting one image file name"));
    };
    let unchecked = typed.has("backing-unsafe");
    let backing = typed.value("backing");
    if !unchecked && backing.is_none() {
        return Err(Failure::usage("Use backing file (-b) option"));
    }
    let format = typed.value("backing-format").or(typed.value("backing-fmt"));
    let quiet = typed.has("quiet");
    let mut mode =
        OpenMode { write: true, unmap: true, no_backing: unchecked, ..OpenMode::default() };
    let write_through = opening::cache(typed, "cache", &mut mode, "Invalid cache option")?;
    let mut below = OpenMode::default();
    opening::cache(typed, "backing-cache", &mut below, "Invalid source cache option")?;
    let node = opening::open(typed, name, typed.value("format"), &mode)?;
    let compress = typed.has("compress");
    if compress && node.compressing().is_none() {
        return Err(fail("Compression not supported for this file format"));
    }
    if let Some(format) = format
        && block::formats::find(format).is_none()
        && block::protocols::find(format).is_none()
    {
        return Err(fail(format!("Invalid format name: '{format}'")));
    }
    if !unchecked {
        let new = open_new(name, backing.unwrap_or_default(), format, &below)?;
        let progress = Progress::new(typed.has("progress") && !quiet);
        let copied = keep_contents(&node, new.as_ref(), (compress, write_through), &progress);
        progress.end(copied.is_ok());
        copied?;
    }
    let backing = backing.filter(|name| !name.is_empty());
    if let (Some(name), None) = (backing, format) {
        return Err(fail(format!(
            "Could not change the backing file to '{name}': backing format must be specified"
        )));
    }
    node.change_backing_file(backing, if backing.is_some() { format } else { None })
        .map_err(|error| refused(&error, backing.unwrap_or_default()))?;
    node.flush()?;
    Ok(0)
}

fn refused(error: &Error, backing: &str) -> Failure {
    match error {
        Error::Os(Errno::NOSPC) => fail(format!(
            "Could not change the backing file to '{backing}': No space left in the file header"
        )),
        _ => fail(format!("Could not change the backing file to '{backing}': {}", error.reason())),
    }
}

fn open_new(
    name: &str,
    backing: &str,
    format: Option<&str>,
    mode: &OpenMode,
) -> Result<Option<NodeRef>, Failure> {
    if backing.is_empty() {
        return Ok(None);
    }
    let full = block::open::combine(name, backing)
        .map_err(|error| fail(format!("Could not resolve backing filename: {error}")))?;
    let mut options = block::OpenOptions::new();
    if let Some(format) = format {
        options.set("driver", format);
    }
    block::open::open(Some(&full), options, mode)
        .map(Some)
        .map_err(|error| fail(format!("Could not open new backing file '{backing}': {error}")))
}

/// Copies into the image what would look different with the new backing file.
fn keep_contents(
    node: &NodeRef,
    new: Option<&NodeRef>,
    (compress, write_through): (bool, bool),
    progress: &Progress,
) -> Result<(), Failure> {
    let old = node.backing();
    if old.is_none() && new.is_none() {
        return Ok(());
    }
    let size = node.size();
    let unit = node.cluster_bytes().unwrap_or(512);
    let mut old_bytes = vec![0; PIECE_BYTES as usize];
    let mut new_bytes = vec![0; PIECE_BYTES as usize];
    let mut at = 0;
    while at < size {
        let extent = status_through(node, at, size - at).map_err(|error| {
            fail(format!("error while reading image metadata: {}", error.reason()))
        })?;
        if extent.allocated {
            at += extent.length;
            progress.set(at, size);
            continue;
        }
        let length = extent.length.min(PIECE_BYTES);
        if !both_zero(old.as_ref(), new, at, length)? {
            let (a, b) = (&mut old_bytes[..length as usize], &mut new_bytes[..length as usize]);
            read_padded(old.as_ref(), a, at)
                .map_err(|_| fail("error while reading from old backing file"))?;
            read_padded(new, b, at)
                .map_err(|_| fail("error while reading from new backing file"))?;
            write_differences(node, a, b, (at, size), unit, compress)?;
            if write_through {
                node.flush()?;
            }
        }
        at += length;
        progress.set(at, size);
    }
    Ok(())
}

fn both_zero(
    old: Option<&NodeRef>,
    new: Option<&NodeRef>,
    at: u64,
    length: u64,
) -> Result<bool, Failure> {
    for node in [old, new].into_iter().flatten() {
        if at >= node.size() {
            continue;
        }
        let found = status_above(node, None, at, length)?;
        if !found.extent.zero || found.extent.length < length.min(node.size() - at) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn read_padded(node: Option<&NodeRef>, buffer: &mut [u8], at: u64) -> block::Result<()> {
    let Some(node) = node else {
        buffer.fill(0);
        return Ok(());
    };
    let there = node.size().saturating_sub(at).min(buffer.len() as u64) as usize;
    let (inside, outside) = buffer.split_at_mut(there);
    outside.fill(0);
    if inside.is_empty() { Ok(()) } else { node.read_at(inside, at) }
}

/// Writes the clusters that differ.
fn write_differences(
    node: &NodeRef,
    old: &[u8],
    new: &[u8],
    (at, size): (u64, u64),
    unit: u64,
    compress: bool,
) -> Result<(), Failure> {
    let failed =
        |error: Error| fail(format!("Error while writing to COW image: {}", error.reason()));
    let differs = |start: usize| {
        let to_unit = (unit - (at + start as u64) % unit) as usize;
        let end = (start + to_unit).min(old.len());
        (old[start..end] != new[start..end], end)
    };
    let mut start = 0;
    while start < old.len() {
        let (wanted, mut end) = differs(start);
        if !wanted {
            start = end;
            continue;
        }
        let place = at + start as u64;
        if let Some(compressing) = node.compressing().filter(|_| compress) {
            let data = &old[start..end];
            let whole = data.len() as u64 == unit || place + data.len() as u64 == size;
            if place.is_multiple_of(unit) && whole {
                let packed = compressing.pack(data).map_err(failed)?;
                compressing.store(place, data, &packed).map_err(failed)?;
                start = end;
                continue;
            }
        }
        // Clusters in a row are written at once, whatever zeros are among them.
        while let Some((true, further)) = (end < old.len() && !compress).then(|| differs(end)) {
            end = further;
        }
        let data = &old[start..end];
        if block::zeros::all_zero(data) {
            node.zero_at(place, data.len() as u64, Zeroing::Keep).map_err(failed)?;
        } else {
            node.write_at(data, place).map_err(failed)?;
        }
        start = end;
    }
    Ok(())
}
