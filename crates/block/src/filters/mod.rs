//! Filters: nodes that show one child (or several alike) and change how requests reach it.

pub mod compress;
pub mod copy_on_read;
pub mod quorum;
pub mod throttle;
pub mod tuned;

use crate::error::{Error, Result};
use crate::node::NodeRef;
use crate::open::{OpenMode, open_below};
use crate::options::OpenOptions;

/// A filter's name says nothing of its own: it is the child's.
fn parse(filename: &str, options: &mut OpenOptions) -> Result<()> {
    options.set("x-image", filename);
    Ok(())
}

/// Opens the one child of a filter: given by options, by reference, or by the filter's own name.
fn open_file(options: &mut OpenOptions, mode: &OpenMode) -> Result<NodeRef> {
    let below = options.take_below("file");
    let name = options.take_text("x-image");
    if name.is_none()
        && below.is_empty()
        && let Some(reference) = options.take_text("file")
    {
        return mode.referred(&reference);
    }
    if name.is_none() && below.is_empty() {
        return Err(Error::invalid("A block device must be specified for \"file\""));
    }
    open_below(name.as_deref(), below, mode)
}

/// The methods of a filter that only hand a request on. `$inner` is the field with the child.
macro_rules! hand_on {
    ($inner:ident) => {
        fn filename(&self) -> String {
            self.$inner.filename()
        }

        crate::filters::hand_on!($inner, but filename);
    };
    ($inner:ident, but filename) => {
        fn size(&self) -> u64 {
            self.$inner.size()
        }

        fn writable(&self) -> bool {
            self.$inner.writable()
        }

        fn flush(&self) -> crate::error::Result<()> {
            self.$inner.flush()
        }

        fn write_back(&self) -> crate::error::Result<()> {
            self.$inner.write_back()
        }

        fn finish(&self) -> crate::error::Result<()> {
            self.$inner.finish()
        }

        fn about_to(&self, event: &'static str) {
            self.$inner.about_to(event);
        }

        fn cluster_bytes(&self) -> Option<u64> {
            self.$inner.cluster_bytes()
        }

        fn subcluster_bytes(&self) -> Option<u64> {
            self.$inner.subcluster_bytes()
        }

        fn starts_zeroed(&self) -> bool {
            self.$inner.starts_zeroed()
        }

        fn allocated_bytes(&self) -> Option<u64> {
            self.$inner.allocated_bytes()
        }

        fn debug(&self, command: &crate::node::DebugCommand) -> crate::error::Result<bool> {
            self.$inner.debug(command)
        }
    };
}
pub(crate) use hand_on;

/// What a visible filter with one child answers beside that: it stands in the graph.
macro_rules! stand_over {
    ($inner:ident) => {
        fn status(&self, offset: u64, length: u64) -> crate::error::Result<crate::node::Extent> {
            // The child answers through [`crate::node::status_above`], which looks through filters.
            let extent = self.$inner.status(offset, length)?;
            Ok(crate::node::Extent { host: None, ..extent })
        }

        fn discard_at(&self, offset: u64, length: u64) -> crate::error::Result<()> {
            self.$inner.discard_at(offset, length)
        }

        fn resize(
            &self,
            size: u64,
            preallocation: crate::node::Preallocation,
        ) -> crate::error::Result<()> {
            self.$inner.resize(size, preallocation)
        }

        fn file(&self) -> Option<crate::node::NodeRef> {
            Some(self.$inner.clone())
        }

        fn data_node(&self) -> Option<crate::node::NodeRef> {
            Some(self.$inner.clone())
        }

        fn shares_blocks(&self) -> bool {
            false
        }

        fn is_filter(&self) -> bool {
            true
        }
    };
}
pub(crate) use stand_over;
