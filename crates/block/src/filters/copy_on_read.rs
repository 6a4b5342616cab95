//! `copy-on-read`: what is read from backing files is written into the image above them.
//!
//! `-blockdev driver=copy-on-read,node-name=c,file=overlay`

use std::sync::Arc;

use super::{hand_on, open_file, stand_over};
use crate::error::{Error, Result};
use crate::node::{Node, NodeRef, Zeroing, status_above};
use crate::open::OpenMode;
use crate::options::OpenOptions;
use crate::protocols::Protocol;

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "copy-on-read",
    prefixes: &[],
    parse: super::parse,
    open,
    create: None,
    create_options: &[],
};

/// Copies are made in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

struct CopyOnRead {
    file: NodeRef,
    /// Copies come only from above this image.
    bottom: Option<NodeRef>,
}

fn open(options: &mut OpenOptions, mode: &OpenMode) -> Result<NodeRef> {
    let bottom = options.take_text("bottom");
    let file = open_file(options, mode)?;
    let bottom = bottom.map(|name| mode.referred(&name)).transpose()?;
    if !file.writable() {
        return Err(Error::invalid("Block node is read-only"));
    }
    Ok(Arc::new(CopyOnRead { file, bottom }))
}

impl Node for CopyOnRead {
    hand_on!(file);
    stand_over!(file);

    fn driver(&self) -> &'static str {
        "copy-on-read"
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        match self.bottom.as_ref().and_then(|bottom| bottom.backing()) {
            None => read(&self.file, buffer, offset),
            base => {
                fill(&self.file, base.as_ref(), offset, buffer.len() as u64)?;
                self.file.read_at(buffer, offset)
            }
        }
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.file.write_at(data, offset)
    }

    fn zero_at(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        self.file.zero_at(offset, length, zeroing)
    }

    fn zero_fast(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        self.file.zero_fast(offset, length, zeroing)
    }
}

/// Reads a range of a node whose backing files are copied into it.
pub fn read(node: &NodeRef, buffer: &mut [u8], offset: u64) -> Result<()> {
    // Piece by piece, so that what is there already is not read after something was copied.
    let mut done = 0;
    while done < buffer.len() {
        let at = offset + done as u64;
        let wanted = (buffer.len() - done) as u64;
        let run = node.status(at, wanted)?;
        let length = run.length.min(wanted) as usize;
        if !run.allocated {
            fill(node, None, at, length as u64)?;
        }
        node.read_at(&mut buffer[done..done + length], at)?;
        done += length;
    }
    Ok(())
}

/// Copies what the node does not hold itself of a range, whole subclusters at a time, from the
/// backing files above `base`.
pub fn fill(node: &NodeRef, base: Option<&NodeRef>, offset: u64, length: u64) -> Result<()> {
    if length == 0 {
        return Ok(());
    }
    let unit = node.subcluster_bytes().unwrap_or(512);
    let mut at = offset - offset % unit;
    let end = (offset + length).next_multiple_of(unit).min(node.size());
    while at < end {
        let extent = node.status(at, end - at)?;
        let mut run = extent.length;
        if !extent.allocated {
            let found = status_above(node, base, at, run)?;
            run = found.extent.length;
            if found.extent.allocated || base.is_none() {
                copy(node, at, run, found.extent.zero)?;
            }
        }
        at += run;
    }
    Ok(())
}

fn copy(node: &NodeRef, offset: u64, length: u64, zero: bool) -> Result<()> {
    if zero {
        node.about_to("cor_write");
        return node.zero_at(offset, length, Zeroing::Keep);
    }
    let mut piece = vec![0; length.min(PIECE_BYTES) as usize];
    let mut done = 0;
    while done < length {
        let bytes = (length - done).min(PIECE_BYTES) as usize;
        node.read_at(&mut piece[..bytes], offset + done)?;
        node.about_to("cor_write");
        if crate::zeros::all_zero(&piece[..bytes]) {
            node.zero_at(offset + done, bytes as u64, Zeroing::Keep)?;
        } else {
            node.write_at(&piece[..bytes], offset + done)?;
        }
        done += bytes as u64;
    }
    Ok(())
}
