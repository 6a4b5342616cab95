//! What formats have in common that keep one table from guest blocks to places in the file and
//! append blocks as they are written (vdi, vpc, parallels).

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::info::{CheckReport, Fix, ImageInfo};
use crate::node::{Extent, Node, NodeRef, Preallocation, Zeroing, write_zeros};

/// What a format knows about a guest block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Nothing is stored: zeros.
    Nothing,
    /// The block's data begins here.
    At(u64),
}

/// The table of a format. It belongs to the image's lock.
pub trait Layout: Send {
    /// The driver's name.
    const DRIVER: &'static str;
    /// Bytes of a guest block.
    fn block_bytes(&self) -> u64;
    /// The bytes that a guest sees.
    fn size(&self) -> u64;
    /// Where a block lies.
    fn lookup(&self, block: u64) -> Place;
    /// Appends a block that reads as zeros. The table follows in [`Layout::commit`].
    fn allocate(&mut self, file: &dyn Node, block: u64) -> Result<u64>;
    /// Makes the table point to a block whose data is written.
    fn commit(&mut self, file: &dyn Node, block: u64, place: u64) -> Result<()>;
    /// Is called before the first write.
    fn begin_writing(&mut self, file: &dyn Node) -> Result<()> {
        _ = file;
        Ok(())
    }
    /// Is called when the image is closed, if something was written.
    fn end_writing(&mut self, file: &dyn Node) -> Result<()> {
        _ = file;
        Ok(())
    }
    /// Looks for damage and repairs what `fix` allows.
    fn check(&mut self, file: &dyn Node, fix: Fix) -> Result<CheckReport> {
        _ = (file, fix);
        Err(Error::unsupported("This image format does not support checks"))
    }
    /// Changes the size that a guest sees.
    fn resize(&mut self, file: &dyn Node, size: u64) -> Result<()> {
        _ = (file, size);
        Err(Error::unsupported("Image format driver does not support resize"))
    }
}

/// An image of such a format.
pub struct Blocks<L: Layout> {
    file: NodeRef,
    writable: bool,
    layout: Mutex<L>,
    began: AtomicBool,
}

impl<L: Layout> Drop for Blocks<L> {
    fn drop(&mut self) {
        if self.began.load(Ordering::Acquire) {
            // Nobody is left who could be told.
            _ = self.layout.lock().end_writing(&*self.file);
        }
    }
}

impl<L: Layout> Blocks<L> {
    fn begin(&self) -> Result<()> {
        if self.began.load(Ordering::Acquire) {
            return Ok(());
        }
        if !self.writable {
            return Err(rustix::io::Errno::BADF.into());
        }
        let mut layout = self.layout.lock();
        if !self.began.load(Ordering::Acquire) {
            layout.begin_writing(&*self.file)?;
            self.began.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// An image whose table was read.
    pub fn new(file: NodeRef, writable: bool, layout: L) -> Self {
        Self { file, writable, layout: Mutex::new(layout), began: AtomicBool::new(false) }
    }

    /// The run of one kind at an offset: place of its first byte, and its length.
    fn run(&self, offset: u64, length: u64) -> (Option<u64>, u64) {
        let layout = self.layout.lock();
        let block_bytes = layout.block_bytes();
        let (block, within) = (offset / block_bytes, offset % block_bytes);
        let first = layout.lookup(block);
        let mut run = block_bytes - within;
        let mut next = block + 1;
        while run < length {
            let follows = match (first, layout.lookup(next)) {
                (Place::Nothing, Place::Nothing) => true,
                (Place::At(a), Place::At(b)) => b == a + (next - block) * block_bytes,
                _ => false,
            };
            if !follows {
                break;
            }
            run += block_bytes;
            next += 1;
        }
        let place = match first {
            Place::Nothing => None,
            Place::At(place) => Some(place + within),
        };
        (place, run.min(length))
    }

    fn write_new(&self, data: &[u8], offset: u64) -> Result<usize> {
        // The lock stays: two writes must not append the same block twice.
        let mut layout = self.layout.lock();
        let block_bytes = layout.block_bytes();
        let (block, within) = (offset / block_bytes, offset % block_bytes);
        let piece = (data.len() as u64).min(block_bytes - within) as usize;
        if let Place::At(place) = layout.lookup(block) {
            self.file.write_at(&data[..piece], place + within)?;
            return Ok(piece);
        }
        let place = layout.allocate(&*self.file, block)?;
        self.file.write_at(&data[..piece], place + within)?;
        layout.commit(&*self.file, block, place)?;
        Ok(piece)
    }
}

impl<L: Layout> Node for Blocks<L> {
    fn driver(&self) -> &'static str {
        L::DRIVER
    }

    fn filename(&self) -> String {
        self.file.filename()
    }

    fn size(&self) -> u64 {
        self.layout.lock().size()
    }

    fn writable(&self) -> bool {
        self.writable
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let (place, run) = self.run(offset + done as u64, (buffer.len() - done) as u64);
            let piece = &mut buffer[done..done + run as usize];
            match place {
                Some(place) => self.file.read_at(piece, place)?,
                None => piece.fill(0),
            }
            done += run as usize;
        }
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.begin()?;
        let mut done = 0;
        while done < data.len() {
            let rest = &data[done..];
            let (place, run) = self.run(offset + done as u64, rest.len() as u64);
            match place {
                Some(place) => {
                    self.file.write_at(&rest[..run as usize], place)?;
                    done += run as usize;
                }
                None => done += self.write_new(rest, offset + done as u64)?,
            }
        }
        Ok(())
    }

    fn zero_at(&self, offset: u64, length: u64, _zeroing: Zeroing) -> Result<()> {
        let mut done = 0;
        while done < length {
            let (place, run) = self.run(offset + done, length - done);
            if place.is_some() {
                write_zeros(self, offset + done, run)?;
            }
            done += run;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.file.flush()
    }

    fn status(&self, offset: u64, length: u64) -> Result<Extent> {
        let (place, length) = self.run(offset, length);
        Ok(Extent {
            length,
            data: place.is_some(),
            zero: place.is_none(),
            allocated: true,
            host: place,
            ask_below: true,
            ..Extent::default()
        })
    }

    fn file(&self) -> Option<NodeRef> {
        Some(self.file.clone())
    }

    fn cluster_bytes(&self) -> Option<u64> {
        Some(self.layout.lock().block_bytes())
    }

    fn resize(&self, size: u64, _preallocation: Preallocation) -> Result<()> {
        self.layout.lock().resize(&*self.file, size)
    }

    fn check(&self, fix: Fix) -> Result<CheckReport> {
        self.layout.lock().check(&*self.file, fix)
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(ImageInfo::default())
    }
}

/// A pseudo-random identifier for an image, from the time and the process.
pub fn unique_id() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    // The standard library's hasher is seeded by the system.
    let half = || RandomState::new().hash_one(std::process::id()).to_be_bytes();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&half());
    id[8..].copy_from_slice(&half());
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    id
}
