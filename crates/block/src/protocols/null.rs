//! `null-co` and `null-aio`: a disk of a size that forgets everything, for measurements.

use std::sync::Arc;

use super::Protocol;
use crate::error::Result;
use crate::node::{Extent, Node, NodeRef, Preallocation, Zeroing};
use crate::open::OpenMode;
use crate::options::OpenOptions;

/// What a null disk has unless told otherwise.
const SIZE_BYTES_DEFAULT: u64 = 1 << 30;

pub(super) const NULL_CO: Protocol = Protocol {
    name: "null-co",
    prefixes: &["null-co"],
    parse: |_, _| Ok(()),
    open: |options, mode| open("null-co", options, mode),
    create: None,
    create_options: &[],
};

pub(super) const NULL_AIO: Protocol = Protocol {
    name: "null-aio",
    prefixes: &["null-aio"],
    parse: |_, _| Ok(()),
    open: |options, mode| open("null-aio", options, mode),
    create: None,
    create_options: &[],
};

struct Null {
    driver: &'static str,
    size: u64,
    reads_zeros: bool,
    writable: bool,
}

fn open(driver: &'static str, options: &mut OpenOptions, mode: &OpenMode) -> Result<NodeRef> {
    options.take_text("filename");
    let size = options.take_size("size")?.unwrap_or(SIZE_BYTES_DEFAULT);
    let reads_zeros = options.take_bool("read-zeroes")?.unwrap_or(false);
    Ok(Arc::new(Null { driver, size, reads_zeros, writable: mode.write }))
}

/// A disk without a single byte.
pub fn empty() -> NodeRef {
    Arc::new(Null { driver: "null-co", size: 0, reads_zeros: true, writable: false })
}

impl Node for Null {
    fn driver(&self) -> &'static str {
        self.driver
    }

    fn filename(&self) -> String {
        format!("{}://", self.driver)
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn writable(&self) -> bool {
        self.writable
    }

    fn read_at(&self, buffer: &mut [u8], _offset: u64) -> Result<()> {
        if self.reads_zeros {
            buffer.fill(0);
        }
        Ok(())
    }

    fn write_at(&self, _data: &[u8], _offset: u64) -> Result<()> {
        Ok(())
    }

    fn zero_at(&self, _offset: u64, _length: u64, _zeroing: Zeroing) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn status(&self, offset: u64, length: u64) -> Result<Extent> {
        Ok(Extent {
            length,
            data: false,
            zero: self.reads_zeros,
            allocated: true,
            host: Some(offset),
            ..Extent::default()
        })
    }

    fn resize(&self, size: u64, _preallocation: Preallocation) -> Result<()> {
        if size <= self.size {
            Ok(())
        } else {
            Err(crate::error::Error::unsupported("Cannot grow device"))
        }
    }
}
