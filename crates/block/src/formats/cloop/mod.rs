//! `cloop`: compressed loop devices of live systems, version 2. They are read, not written.
//!
//! `-blockdev driver=cloop,read-only=on,file.driver=file,file.filename=disk.cloop`

use std::sync::Arc;

use super::Format;
use super::read_only::{
    Kind, Pieces, ReadOnly, be32, be64, inflate, must_be_read_only, read_table,
};
use crate::error::{Error, Result};
use crate::node::{Node, NodeRef};
use crate::open::{OpenContext, OpenMode};
use crate::options::OpenOptions;

/// The table row.
pub const FORMAT: Format = Format {
    name: "cloop",
    probe: |start, _| if start.starts_with(MAGIC) { 2 } else { 0 },
    open,
    create: None,
    create_options: &[],
    amend_options: &[],
    backing: false,
    measure: None,
};

const MAGIC: &[u8] =
    b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";
const BLOCK_BYTES_AT: u64 = 128;
const OFFSETS_AT: u64 = 136;
const BLOCK_BYTES_MAX: u32 = 64 << 20;
const OFFSETS_BYTES_MAX: u64 = 512 << 20;

struct Cloop {
    block: u64,
    /// Where each block begins, and where the last one ends.
    offsets: Vec<u64>,
}

fn open(
    file: NodeRef,
    _options: &mut OpenOptions,
    mode: &OpenMode,
    _context: &OpenContext,
) -> Result<NodeRef> {
    must_be_read_only(mode)?;
    let header = read_table(&*file, BLOCK_BYTES_AT, 8, "The header")?;
    let (block, blocks) = (be32(&header, 0), be32(&header, 4));
    if !block.is_multiple_of(512) {
        return Err(Error::invalid(format!("block_size {block} must be a multiple of 512")));
    }
    if block == 0 {
        return Err(Error::invalid("block_size cannot be zero"));
    }
    if block > BLOCK_BYTES_MAX {
        return Err(Error::invalid(format!("block_size {block} must be 64 MB or less")));
    }
    let bytes = (u64::from(blocks) + 1) * 8;
    if bytes > OFFSETS_BYTES_MAX {
        return Err(Error::invalid("image requires too many offsets, try increasing block size"));
    }
    let offsets = read_table(&*file, OFFSETS_AT, bytes, "The table of offsets")?;
    let offsets: Vec<u64> = offsets.chunks_exact(8).map(|word| be64(word, 0)).collect();
    for (number, pair) in offsets.windows(2).enumerate() {
        if pair[1] < pair[0] {
            return Err(Error::invalid(format!(
                "offsets not monotonically increasing at index {}, image file is corrupt",
                number + 1
            )));
        }
        if pair[1] - pair[0] > 2 * u64::from(BLOCK_BYTES_MAX) {
            return Err(Error::invalid(format!(
                "invalid compressed block size at index {}, image file is corrupt",
                number + 1
            )));
        }
    }
    Ok(Arc::new(ReadOnly::new(file, Cloop { block: u64::from(block), offsets })))
}

impl Pieces for Cloop {
    const DRIVER: &'static str = "cloop";

    fn size(&self) -> u64 {
        (self.offsets.len() as u64 - 1) * self.block
    }

    fn find(&self, _file: &dyn Node, offset: u64) -> Result<(Kind, u64)> {
        let within = offset % self.block;
        Ok((Kind::Packed((offset / self.block) as usize, within as usize), self.block - within))
    }

    fn unpack(&self, file: &dyn Node, number: usize) -> Result<Vec<u8>> {
        let (start, end) = match self.offsets.get(number..number + 2) {
            Some(pair) => (pair[0], pair[1]),
            None => return Err(Error::corrupt(format!("There is no block {number}"))),
        };
        inflate(&read_table(file, start, end - start, "A block")?, self.block as usize)
    }
}
