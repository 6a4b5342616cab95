//! What a node of the block graph is: a format driver, a protocol or a filter.

use std::fs::File;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::info::{CheckReport, Fix, ImageInfo};
use crate::snapshots::Snapshots;

/// A shared handle on a node.
pub type NodeRef = Arc<dyn Node>;

/// Whether bytes that become zero may lose their place in the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zeroing {
    /// Space stays allocated, so that later writes cannot run out of it.
    Keep,
    /// Space may be given back.
    Unmap,
}

/// How space for new bytes is provided.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Preallocation {
    /// Not at all.
    #[default]
    Off,
    /// The format's tables are filled in, the data stays sparse.
    Metadata,
    /// The file system reserves the space.
    Falloc,
    /// Zeros are written.
    Full,
}

impl Preallocation {
    /// By its name on command lines.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "off" => Self::Off,
            "metadata" => Self::Metadata,
            "falloc" => Self::Falloc,
            "full" => Self::Full,
            _ => return None,
        })
    }
}

/// What a range of an image holds, as far as one layer knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extent {
    /// How far the answer reaches.
    pub length: u64,
    /// Bytes are stored for the range.
    pub data: bool,
    /// The range reads as zeros.
    pub zero: bool,
    /// This layer answers; otherwise its backing file does.
    pub allocated: bool,
    /// The stored bytes are compressed.
    pub compressed: bool,
    /// Where in [`Node::data_node`] the bytes lie one to one.
    pub host: Option<u64>,
    /// The layer below may know more about zeros.
    pub ask_below: bool,
}

/// A cluster after compression, ready to be stored.
pub struct Packed {
    /// The compressed bytes, or `None` when compression does not help.
    pub bytes: Option<Vec<u8>>,
}

/// A range of a file of the host.
#[derive(Clone, Copy, Debug)]
pub struct HostRange<'a> {
    /// The file.
    pub file: &'a File,
    /// Where the range begins.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

impl HostRange<'_> {
    /// The part that begins after `skip` bytes, of at most `length` bytes.
    #[must_use]
    pub fn part(self, skip: u64, length: u64) -> Self {
        Self { offset: self.offset + skip, length: length.min(self.length - skip), ..self }
    }
}

/// Formats that store compressed clusters. Packing runs on any thread, storing in order.
pub trait Compressing: Send + Sync {
    /// The bytes that are compressed as one.
    fn unit(&self) -> usize;
    /// Compresses one unit (the last one of an image may be shorter).
    fn pack(&self, data: &[u8]) -> Result<Packed>;
    /// Stores a packed unit; `data` is stored plainly when packing did not help.
    fn store(&self, offset: u64, data: &[u8], packed: &Packed) -> Result<()>;
}

/// What fault injection is asked to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DebugCommand {
    /// The next request at this event stops, under this tag.
    Break {
        /// The event.
        event: String,
        /// The name of what stops.
        tag: String,
    },
    /// What stopped under a tag goes on.
    Resume {
        /// The tag.
        tag: String,
    },
    /// Takes a breakpoint back.
    Remove {
        /// The tag.
        tag: String,
    },
    /// Whether something has stopped under a tag.
    IsStopped {
        /// The tag.
        tag: String,
    },
}

/// A node of the block graph.
///
/// All methods may be called from any thread at any time. Overlapping requests are as on a
/// real disk: their order is undefined, and neither damages the image. A write has reached the
/// medium for good only after a [`Node::flush`] that began after it ended.
pub trait Node: Send + Sync {
    /// The driver's name.
    fn driver(&self) -> &'static str;

    /// The image's name: a path, a URL or a `json:` description.
    fn filename(&self) -> String;

    /// The bytes that a guest sees.
    fn size(&self) -> u64;

    /// Whether writes are possible.
    fn writable(&self) -> bool;

    /// Fills `buffer` from `offset`. Beyond the end there are zeros.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;

    /// Stores `data` at `offset`.
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()>;

    /// Stores bytes that lie in a file of the host, without taking them into this program. The
    /// file system may share them. [`Error::Unsupported`] where that is not possible.
    fn copy_from(&self, source: &HostRange<'_>, offset: u64) -> Result<()> {
        _ = (source, offset);
        Err(Error::unsupported("Operation not supported"))
    }

    /// Whether copies within the file system share blocks instead of copying them.
    fn shares_blocks(&self) -> bool {
        self.data_node().is_some_and(|data| data.shares_blocks())
    }

    /// Makes a range read as zeros.
    fn zero_at(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        _ = zeroing;
        write_zeros(self, offset, length)
    }

    /// Makes a range read as zeros only if that is cheap; [`Error::Unsupported`] otherwise.
    fn zero_fast(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        _ = (offset, length, zeroing);
        Err(Error::unsupported("Operation not supported"))
    }

    /// Says that a range's contents are no longer needed.
    fn discard_at(&self, offset: u64, length: u64) -> Result<()> {
        _ = (offset, length);
        Ok(())
    }

    /// Brings everything written so far to the medium.
    fn flush(&self) -> Result<()>;

    /// Hands buffered metadata to the layer below without waiting for the medium.
    fn write_back(&self) -> Result<()> {
        Ok(())
    }

    /// Writes everything that is buffered, for a program that ends without dropping the node.
    fn finish(&self) -> Result<()> {
        self.flush()
    }

    /// What the range that begins at `offset` holds. The answer covers at least one byte and at
    /// most `length`.
    fn status(&self, offset: u64, length: u64) -> Result<Extent> {
        _ = offset;
        Ok(Extent { length, data: true, allocated: true, ..Extent::default() })
    }

    /// The node that [`Extent::host`] speaks of.
    fn data_node(&self) -> Option<NodeRef> {
        self.file()
    }

    /// The node under a format or filter that holds its metadata.
    fn file(&self) -> Option<NodeRef> {
        None
    }

    /// The named children, the way `info` shows them.
    fn children(&self) -> Vec<(&'static str, NodeRef)> {
        self.file().map(|file| ("file", file)).into_iter().collect()
    }

    /// The image that answers where this one has nothing.
    fn backing(&self) -> Option<NodeRef> {
        None
    }

    /// Puts another backing node in place (or none), in memory only.
    fn set_backing(&self, backing: Option<NodeRef>) -> Result<()> {
        _ = backing;
        Err(Error::unsupported("Backing files are not supported by this format"))
    }

    /// Whether the format can have a backing file.
    fn supports_backing(&self) -> bool {
        false
    }

    /// Writes the name of another backing file into the image.
    fn change_backing_file(&self, filename: Option<&str>, format: Option<&str>) -> Result<()> {
        _ = (filename, format);
        Err(Error::unsupported("Operation not supported"))
    }

    /// Changes the size that a guest sees.
    fn resize(&self, size: u64, preallocation: Preallocation) -> Result<()> {
        _ = (size, preallocation);
        Err(Error::unsupported("Image format driver does not support resize"))
    }

    /// Drops all contents of this layer, so that the backing file shows through.
    fn make_empty(&self) -> Result<()> {
        Err(Error::unsupported("Operation not supported"))
    }

    /// What the image says about itself.
    fn info(&self) -> Result<ImageInfo> {
        Ok(ImageInfo::default())
    }

    /// Bytes that the image takes on the host, where that is known.
    fn allocated_bytes(&self) -> Option<u64> {
        self.file().and_then(|file| file.allocated_bytes())
    }

    /// The granularity of allocation, if the format has one.
    fn cluster_bytes(&self) -> Option<u64> {
        None
    }

    /// The smallest unit that can be allocated by itself.
    fn subcluster_bytes(&self) -> Option<u64> {
        self.cluster_bytes()
    }

    /// Whether every byte that was never written reads as zero.
    fn starts_zeroed(&self) -> bool {
        self.file().is_some_and(|file| file.starts_zeroed())
    }

    /// Where machine state is stored behind the disk, for formats that can.
    fn vm_state_offset(&self) -> Option<u64> {
        None
    }

    /// Says to fault injection below what the format is about to do.
    fn about_to(&self, event: &'static str) {
        _ = event;
    }

    /// Controls fault injection below. The answer is whether a request is held up, where asked.
    fn debug(&self, command: &DebugCommand) -> Result<bool> {
        match self.file() {
            Some(file) => file.debug(command),
            None => Err(Error::unsupported("Operation not supported")),
        }
    }

    /// Looks for damage and repairs what `fix` allows.
    fn check(&self, fix: Fix) -> Result<CheckReport> {
        _ = fix;
        Err(Error::unsupported("This image format does not support checks"))
    }

    /// Snapshots inside the image.
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }

    /// Compressed writes.
    fn compressing(&self) -> Option<&dyn Compressing> {
        None
    }

    /// Whether compressed writes are the only ones that the image takes.
    fn only_compressed(&self) -> bool {
        false
    }

    /// Persistent dirty bitmaps.
    fn bitmaps(&self) -> Option<&dyn crate::bitmaps::Bitmaps> {
        None
    }

    /// Changes creation options of an existing image. With `force` also where data may be lost. Says
    /// how much of the work is done.
    fn amend(
        &self,
        options: &crate::options::CreateOptions,
        force: bool,
        report: &dyn Fn(u64, u64),
    ) -> Result<()> {
        _ = (options, force, report);
        Err(Error::unsupported("Operation not supported"))
    }

    /// Takes the locks of this use of the image, on the file at the bottom. `metadata` says
    /// that a format lives in the file, so that nobody else may change it.
    fn lock(&self, mode: &crate::open::OpenMode, metadata: bool) -> Result<()> {
        match self.file() {
            Some(file) => file.lock(mode, metadata),
            None => Ok(()),
        }
    }

    /// The host file behind a protocol node, for copies inside the kernel.
    fn host_file(&self) -> Option<&File> {
        None
    }

    /// Makes writes possible that were not asked for when the image was opened, or ends that.
    fn set_writable(&self, writable: bool) -> Result<()> {
        if self.writable() == writable {
            return Ok(());
        }
        Err(Error::unsupported("The block node cannot be made writable while it is open"))
    }

    /// Whether the format has only data and nothing of its own (raw).
    fn is_transparent(&self) -> bool {
        false
    }

    /// A filter shows its one child unchanged.
    fn is_filter(&self) -> bool {
        false
    }
}

/// Zeros are written in pieces of this size, which stays within a core's cache.
const ZERO_PIECE_BYTES: usize = 256 << 10;

/// Writes zeros the slow way.
pub fn write_zeros<N: Node + ?Sized>(node: &N, offset: u64, length: u64) -> Result<()> {
    static ZEROS: [u8; ZERO_PIECE_BYTES] = [0; ZERO_PIECE_BYTES];
    let mut done = 0;
    while done < length {
        let piece = (length - done).min(ZERO_PIECE_BYTES as u64) as usize;
        node.write_at(&ZEROS[..piece], offset + done)?;
        done += piece as u64;
    }
    Ok(())
}

/// What a range holds when every layer of the backing chain is asked.
///
/// `depth` counts the layers below `top` at which the answer was found.
#[derive(Clone)]
pub struct Found {
    /// The answer of the layer that answered.
    pub extent: Extent,
    /// How many backing files below the top that layer is.
    pub depth: usize,
    /// The layer.
    pub node: NodeRef,
}

/// Asks `top` and, where it has nothing, its backing chain down to but excluding `base`.
pub fn status_above(
    top: &NodeRef,
    base: Option<&NodeRef>,
    offset: u64,
    length: u64,
) -> Result<Found> {
    let mut node = top.clone();
    let mut depth = 0;
    let mut length = length.min(top.size().saturating_sub(offset));
    loop {
        while node.is_filter() {
            let Some(below) = node.file() else { break };
            length = length.min(node.status(offset, length.max(1))?.length.max(length.min(1)));
            node = below;
        }
        if offset >= node.size() {
            // Beyond the end of a shorter backing file there are zeros.
            let extent = Extent { length, zero: true, allocated: depth > 0, ..Extent::default() };
            return Ok(Found { extent, depth, node });
        }
        let within = length.min(node.size() - offset);
        let mut extent = status_through(&node, offset, within)?;
        length = length.min(extent.length);
        extent.length = length;
        let next = node.backing();
        let at_base = matches!((base, &next), (Some(base), Some(next)) if Arc::ptr_eq(base, next));
        match next {
            Some(next) if !extent.allocated && !at_base => {
                node = next;
                depth += 1;
            }
            None if !extent.allocated => {
                // What could have a backing file is zero without one; others know best.
                let kind = crate::formats::find(node.driver());
                extent.zero |= kind.is_some_and(|kind| kind.name != "raw");
                return Ok(Found { extent, depth, node });
            }
            _ => return Ok(Found { extent, depth, node }),
        }
    }
}

/// One layer's status, refined by the file below it where the format says that it may know more.
pub fn status_through(node: &NodeRef, offset: u64, length: u64) -> Result<Extent> {
    let mut extent = node.status(offset, length)?;
    debug_assert!(extent.length > 0, "a status covers at least a byte");
    if let (true, true, Some(host)) = (extent.ask_below, extent.data && !extent.zero, extent.host)
        && let Some(below) = node.data_node()
    {
        let deeper = below.status(host, extent.length)?;
        if deeper.zero {
            extent.zero = true;
        }
        extent.length = extent.length.min(deeper.length);
    }
    Ok(extent)
}
