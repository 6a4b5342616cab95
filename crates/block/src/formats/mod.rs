//! Image formats: one folder each, one row each in [`FORMATS`].

mod blocks;
#[cfg(test)]
mod fuzz_tests;
pub mod qcow2;
pub mod raw;
mod luks;
mod vdi;
mod vmdk;
mod vpc;
mod parallels;
mod vhdx;
mod read_only;
mod qed;
mod bochs;
mod cloop;
mod dmg;

use blocks::unique_id;
pub(crate) use luks::cipher::unwrap_cbc as unwrap_secret;

use crate::error::Result;
use crate::node::NodeRef;
use crate::open::{OpenContext, OpenMode};
use crate::options::{CreateOptions, OpenOptions, OptionSpec};

/// The bytes at an image's start that probing looks at.
pub const PROBE_BYTES: usize = 2048;

/// Opens an image whose file is open already.
pub type Open = fn(NodeRef, &mut OpenOptions, &OpenMode, &OpenContext) -> Result<NodeRef>;

/// Says how large an image with some contents would become.
pub type MeasureSize = fn(&CreateOptions, Option<&NodeRef>) -> Result<Measure>;

/// Makes an image in a file of that name.
pub type Create = fn(&str, &CreateOptions, &OpenContext) -> Result<()>;

/// A format driver.
pub struct Format {
    /// The driver's name.
    pub name: &'static str,
    /// How sure the driver is that an image beginning with these bytes is its own: 0 not at
    /// all, 100 entirely. The file name helps formats without a signature.
    pub probe: fn(&[u8], &str) -> u32,
    /// Opens an image whose file is open already.
    pub open: Open,
    /// Makes an image in a file of that name.
    pub create: Option<Create>,
    /// What `create` understands, in display order.
    pub create_options: &'static [OptionSpec],
    /// What [`crate::Node::amend`] understands.
    pub amend_options: &'static [OptionSpec],
    /// Whether images have a backing file.
    pub backing: bool,
    /// Says how large an image with some contents would become.
    pub measure: Option<MeasureSize>,
}

/// How large an image would become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measure {
    /// With the contents of the source.
    pub required: u64,
    /// When every byte has been written.
    pub fully_allocated: u64,
    /// For the bitmaps of the source, where both sides have bitmaps.
    pub bitmaps: Option<u64>,
}

/// Every format. A new one is one folder and one row here.
pub const FORMATS: &[Format] = &[
    raw::FORMAT,
    qcow2::FORMAT,
    luks::FORMAT,
    vdi::FORMAT,
    vmdk::FORMAT,
    vpc::FORMAT,
    parallels::FORMAT,
    vhdx::FORMAT,
    qed::FORMAT,
    bochs::FORMAT,
    cloop::FORMAT,
    dmg::FORMAT,
];

/// The format of this driver name.
pub fn find(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

/// The format that an image beginning with these bytes has. It is raw if no other matches.
pub fn probe(start: &[u8], filename: &str) -> &'static Format {
    let mut best = (0, &FORMATS[0]);
    for format in FORMATS {
        let score = (format.probe)(start, filename);
        if score > best.0 {
            best = (score, format);
        }
    }
    best.1
}
