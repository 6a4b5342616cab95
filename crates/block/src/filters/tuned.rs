//! What node options change about any driver: `detect-zeroes`, `copy-on-read` and writes that are
//! flushed one by one. It is not a node of its own: it stands for the node that it holds.

use std::fs::File;

use super::copy_on_read;
use crate::bitmaps::Bitmaps;
use crate::error::Result;
use crate::info::{CheckReport, Fix, ImageInfo};
use crate::node::{Compressing, Extent, HostRange, Node, NodeRef, Preallocation, Zeroing};
use crate::open::OpenMode;
use crate::options::CreateOptions;
use crate::snapshots::Snapshots;

/// What becomes of writes that consist of zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DetectZeroes {
    /// They are written.
    #[default]
    Off,
    /// They become zeros without data, where the format can.
    On,
    /// The same, and space is given back.
    Unmap,
}

impl DetectZeroes {
    /// By its name.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "off" => Self::Off,
            "on" => Self::On,
            "unmap" => Self::Unmap,
            _ => return None,
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Unmap => "unmap",
        }
    }
}

/// Puts a node's options before it, if there are any.
pub fn tune(node: NodeRef, mode: &OpenMode, name: Option<String>) -> NodeRef {
    let plain = name.is_none()
        && mode.detect_zeroes == DetectZeroes::Off
        && !mode.copy_on_read
        && !mode.write_through;
    if plain {
        return node;
    }
    std::sync::Arc::new(Tuned {
        node,
        name,
        detect_zeroes: mode.detect_zeroes,
        copy_on_read: mode.copy_on_read,
        write_through: mode.write_through,
    })
}

struct Tuned {
    node: NodeRef,
    /// What it is called when its file's name does not say all that is needed to open it.
    name: Option<String>,
    detect_zeroes: DetectZeroes,
    copy_on_read: bool,
    write_through: bool,
}

impl Tuned {
    fn through(&self, done: Result<()>) -> Result<()> {
        done.and_then(|()| if self.write_through { self.node.flush() } else { Ok(()) })
    }
}

impl Node for Tuned {
    super::hand_on!(node, but filename);

    fn filename(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.node.filename())
    }

    fn driver(&self) -> &'static str {
        self.node.driver()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        if self.copy_on_read {
            copy_on_read::read(&self.node, buffer, offset)
        } else {
            self.node.read_at(buffer, offset)
        }
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let zeroing = match self.detect_zeroes {
            DetectZeroes::Off => None,
            DetectZeroes::On => Some(Zeroing::Keep),
            DetectZeroes::Unmap => Some(Zeroing::Unmap),
        };
        let done = match zeroing {
            Some(zeroing) if !data.is_empty() && crate::zeros::all_zero(data) => {
                self.node.zero_at(offset, data.len() as u64, zeroing)
            }
            _ => self.node.write_at(data, offset),
        };
        self.through(done)
    }

    fn copy_from(&self, source: &HostRange<'_>, offset: u64) -> Result<()> {
        self.through(self.node.copy_from(source, offset))
    }

    fn shares_blocks(&self) -> bool {
        self.node.shares_blocks()
    }

    fn zero_at(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        self.through(self.node.zero_at(offset, length, zeroing))
    }

    fn zero_fast(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        self.through(self.node.zero_fast(offset, length, zeroing))
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<()> {
        self.node.discard_at(offset, length)
    }

    fn status(&self, offset: u64, length: u64) -> Result<Extent> {
        self.node.status(offset, length)
    }

    fn data_node(&self) -> Option<NodeRef> {
        self.node.data_node()
    }

    fn file(&self) -> Option<NodeRef> {
        self.node.file()
    }

    fn children(&self) -> Vec<(&'static str, NodeRef)> {
        self.node.children()
    }

    fn backing(&self) -> Option<NodeRef> {
        self.node.backing()
    }

    fn set_backing(&self, backing: Option<NodeRef>) -> Result<()> {
        self.node.set_backing(backing)
    }

    fn supports_backing(&self) -> bool {
        self.node.supports_backing()
    }

    fn change_backing_file(&self, filename: Option<&str>, format: Option<&str>) -> Result<()> {
        self.node.change_backing_file(filename, format)
    }

    fn resize(&self, size: u64, preallocation: Preallocation) -> Result<()> {
        self.node.resize(size, preallocation)
    }

    fn make_empty(&self) -> Result<()> {
        self.node.make_empty()
    }

    fn info(&self) -> Result<ImageInfo> {
        self.node.info()
    }

    fn vm_state_offset(&self) -> Option<u64> {
        self.node.vm_state_offset()
    }

    fn check(&self, fix: Fix) -> Result<CheckReport> {
        self.node.check(fix)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        self.node.snapshots()
    }

    fn compressing(&self) -> Option<&dyn Compressing> {
        self.node.compressing()
    }

    fn only_compressed(&self) -> bool {
        self.node.only_compressed()
    }

    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        self.node.bitmaps()
    }

    fn amend(&self, options: &CreateOptions, force: bool, report: &dyn Fn(u64, u64)) -> Result<()> {
        self.node.amend(options, force, report)
    }

    fn lock(&self, mode: &OpenMode, metadata: bool) -> Result<()> {
        self.node.lock(mode, metadata)
    }

    fn host_file(&self) -> Option<&File> {
        self.node.host_file()
    }

    fn set_writable(&self, writable: bool) -> Result<()> {
        self.node.set_writable(writable)
    }

    fn is_transparent(&self) -> bool {
        self.node.is_transparent()
    }

    fn is_filter(&self) -> bool {
        self.node.is_filter()
    }
}
