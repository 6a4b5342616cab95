//! `qemu-img commit`.

use std::sync::Arc;

use block::node::{Zeroing, status_above};
use block::open::OpenMode;
use block::{Error, NodeRef};
use qemu_compat::image_tool::arguments::Typed;

use super::failure::{Failure, Outcome};
use super::progress::Progress;
use super::{fail, opening};

const PIECE_BYTES: u64 = 2 << 20;

pub fn run(typed: &Typed) -> Outcome {
    let name = opening::one_operand(typed)?;
    if typed.has("rate-limit") {
        return Err(fail("The option -r/--rate-limit is not supported for commit"));
    }
    let mut mode =
        OpenMode { write: true, backing_write: true, unmap: true, ..OpenMode::default() };
    let write_through = opening::cache(typed, "cache", &mut mode, "Invalid cache option")?;
    let top = opening::open(typed, name, typed.value("format"), &mode)?;
    let wanted = typed.value("base");
    let base = match wanted {
        None => top.backing().ok_or_else(|| fail("Image does not have a backing file"))?,
        Some(wanted) => find_base(&top, wanted)?.ok_or_else(|| {
            fail(format!("Did not find '{wanted}' in the backing chain of '{name}'"))
        })?,
    };
    let quiet = typed.has("quiet");
    let progress = Progress::new(typed.has("progress") && !quiet);
    let copied = copy(&top, &base, write_through, &progress);
    progress.end(copied.is_ok());
    copied.map_err(|failure| failure.with_prefix("Block job failed: ", ""))?;
    base.flush()?;
    if !typed.has("drop") && wanted.is_none() {
        match top.make_empty() {
            Ok(()) => top.flush()?,
            // What the format cannot do was not asked for.
            Err(Error::Unsupported { .. }) => {}
            Err(error) => return Err(fail(format!("Failed to empty {name}: {error}"))),
        }
    }
    if !quiet {
        println!("Image committed.");
    }
    Ok(0)
}

fn find_base(top: &NodeRef, wanted: &str) -> Result<Option<NodeRef>, Failure> {
    let full = block::open::combine(&block::open::exact_name(top), wanted)?;
    let mut node = top.backing();
    while let Some(here) = node {
        let name = here.filename();
        let same_file = std::fs::canonicalize(&name).ok().zip(std::fs::canonicalize(&full).ok());
        if name == full || same_file.is_some_and(|(a, b)| a == b) {
            return Ok(Some(here));
        }
        node = here.backing();
    }
    Ok(None)
}

fn copy(
    top: &NodeRef,
    base: &NodeRef,
    write_through: bool,
    progress: &Progress,
) -> Result<(), Failure> {
    let size = top.size();
    if base.size() < size {
        base.resize(size, block::Preallocation::Off)?;
    }
    let mut buffer = vec![0; PIECE_BYTES as usize];
    let mut at = 0;
    while at < size {
        let found = status_above(top, Some(base), at, size - at)?;
        let mut length = found.extent.length;
        debug_assert!(!Arc::ptr_eq(&found.node, base), "the base itself is not asked");
        if found.extent.allocated {
            if found.extent.zero {
                base.zero_at(at, length, Zeroing::Unmap)?;
            } else {
                length = length.min(PIECE_BYTES);
                let piece = &mut buffer[..length as usize];
                top.read_at(piece, at)?;
                base.write_at(piece, at)?;
            }
            if write_through {
                base.flush()?;
            }
        }
        at += length;
        progress.set(at, size);
    }
    Ok(())
}
