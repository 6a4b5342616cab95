//! `raw`: the bytes of the disk and nothing else, optionally a window into a larger file.
//!
//! `-blockdev driver=raw,file.driver=file,file.filename=disk.img,offset=1M,size=1G`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Format, Measure};
use crate::error::{Error, Result};
use crate::node::{Extent, HostRange, Node, NodeRef, Preallocation, Zeroing};
use crate::open::{OpenContext, OpenMode};
use crate::options::{CreateOptions, OpenOptions, OptionKind, OptionSpec};

/// The table row.
pub const FORMAT: Format = Format {
    name: "raw",
    probe: |_, _| 1, // if nothing else matches
    open,
    create: Some(create),
    create_options: &[OptionSpec::new("size", OptionKind::Size, "Virtual disk size")],
    amend_options: &[],
    backing: false,
    measure: Some(measure),
};

struct Raw {
    file: NodeRef,
    offset: u64,
    size: Option<u64>,
    /// The format was a guess: a guest must not make it look like another one.
    guessed: bool,
    writable: AtomicBool,
}

fn open(
    file: NodeRef,
    options: &mut OpenOptions,
    mode: &OpenMode,
    context: &OpenContext,
) -> Result<NodeRef> {
    let offset = options.take_size("offset")?.unwrap_or(0);
    let size = options.take_size("size")?;
    let file_size = file.size();
    if offset > file_size {
        return Err(Error::invalid(format!(
            "Offset ({offset}) cannot be greater than size of the containing file ({file_size})"
        )));
    }
    if size.is_some_and(|size| size > file_size - offset) {
        let size = size.unwrap_or_default();
        return Err(Error::invalid(format!(
            "The sum of offset ({offset}) and size ({size}) has to be smaller or equal to the  actual size of the containing file ({file_size})"
        )));
    }
    if size.is_some_and(|size| !size.is_multiple_of(512)) {
        return Err(Error::invalid("Specified size is not multiple of 512"));
    }
    let guessed = context.guessed;
    Ok(Arc::new(Raw { file, offset, size, guessed, writable: AtomicBool::new(mode.write) }))
}

/// What lies behind an offset of a node, as a disk of its own.
pub fn window(file: NodeRef, offset: u64) -> NodeRef {
    let writable = AtomicBool::new(file.writable());
    Arc::new(Raw { file, offset, size: None, guessed: false, writable })
}

fn create(filename: &str, options: &CreateOptions, _context: &OpenContext) -> Result<()> {
    crate::open::create_protocol(filename, options)
}

fn measure(options: &CreateOptions, source: Option<&NodeRef>) -> Result<Measure> {
    let size = match source {
        Some(source) => source.size(),
        None => options.size("size")?.unwrap_or(0).next_multiple_of(512),
    };
    Ok(Measure { required: size, fully_allocated: size, bitmaps: None })
}

impl Raw {
    /// Bytes at the start that a guessed image's guest may not fill with another signature.
    fn refuse_disguise(&self, data: &[u8], offset: u64) -> Result<()> {
        if !self.guessed || offset >= 512 {
            return Ok(());
        }
        let mut start = vec![0; 512];
        self.file.read_at(&mut start, self.offset)?;
        let at = offset as usize;
        let bytes = data.len().min(512 - at);
        start[at..at + bytes].copy_from_slice(&data[..bytes]);
        if super::probe(&start, "").name == "raw" {
            Ok(())
        } else {
            Err(rustix::io::Errno::PERM.into())
        }
    }
}

impl Node for Raw {
    fn driver(&self) -> &'static str {
        "raw"
    }

    fn filename(&self) -> String {
        self.file.filename()
    }

    fn size(&self) -> u64 {
        self.size.unwrap_or_else(|| self.file.size().saturating_sub(self.offset))
    }

    fn writable(&self) -> bool {
        self.writable.load(Ordering::Acquire) && self.file.writable()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_at(buffer, offset + self.offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.refuse_disguise(data, offset)?;
        self.file.write_at(data, offset + self.offset)
    }

    fn copy_from(&self, source: &HostRange<'_>, offset: u64) -> Result<()> {
        if self.guessed && offset < 512 {
            return Err(Error::unsupported("Operation not supported"));
        }
        self.file.copy_from(source, offset + self.offset)
    }

    fn zero_at(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        self.file.zero_at(offset + self.offset, length, zeroing)
    }

    fn zero_fast(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        self.file.zero_fast(offset + self.offset, length, zeroing)
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<()> {
        self.file.discard_at(offset + self.offset, length)
    }

    fn flush(&self) -> Result<()> {
        self.file.flush()
    }

    fn status(&self, offset: u64, length: u64) -> Result<Extent> {
        let extent = self.file.status(offset + self.offset, length)?;
        Ok(Extent { host: Some(offset + self.offset), allocated: true, ..extent })
    }

    fn file(&self) -> Option<NodeRef> {
        Some(self.file.clone())
    }

    fn resize(&self, size: u64, preallocation: Preallocation) -> Result<()> {
        if self.size.is_some() {
            return Err(Error::unsupported("Cannot resize fixed-size raw disks"));
        }
        if preallocation == Preallocation::Metadata {
            return Err(Error::unsupported("Unsupported preallocation mode 'metadata'"));
        }
        self.file.resize(size + self.offset, preallocation)
    }

    fn about_to(&self, event: &'static str) {
        self.file.about_to(event);
    }

    fn set_writable(&self, writable: bool) -> Result<()> {
        self.file.set_writable(writable)?;
        self.writable.store(writable, Ordering::Release);
        Ok(())
    }

    fn is_transparent(&self) -> bool {
        true
    }
}
