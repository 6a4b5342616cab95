//! Disk images: formats, the block graph, jobs.
//!
//! A [`Node`] is anything with positioned reads and writes: a protocol (where bytes come from),
//! a format (what they mean) or a filter. [`open::open`] builds the nodes of an image and of its
//! backing files. There is no async runtime: every call blocks its thread, every node is shared
//! between threads.

pub mod bitmaps;
pub mod dirty;
pub mod error;
pub mod filters;
pub mod formats;
pub mod graph;
pub mod info;
pub mod jobs;
pub mod nbd;
pub mod node;
pub mod notices;
pub mod open;
pub mod options;
pub mod protocols;
pub mod root;
pub mod secrets;
pub mod snapshots;
pub mod zeros;

pub use error::{Error, Result};
pub use graph::Graph;
pub use node::{Extent, Node, NodeRef, Preallocation, Zeroing};
pub use options::{CreateOptions, OpenOptions};
