//! `snapshot=on`: the image stays as it is, writes go to a temporary one above it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{OpenMode, open};
use crate::error::{Error, Result};
use crate::filters::tuned::DetectZeroes;
use crate::formats;
use crate::node::NodeRef;
use crate::options::{CreateOptions, OpenOptions};

pub(super) fn open_over(base: NodeRef, mode: &OpenMode) -> Result<NodeRef> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let folder = std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::path::Path::new(&folder)
        .join(format!("vl.{}.{number}", std::process::id()))
        .to_string_lossy()
        .into_owned();
    let format = formats::find("qcow2").ok_or_else(|| Error::unsupported("There is no qcow2"))?;
    let create = format.create.ok_or_else(|| Error::unsupported("qcow2 cannot be created"))?;
    let mut options = CreateOptions::new();
    options.set("size", base.size().to_string());
    let made = create(&path, &options, &super::OpenContext::default());
    let overlay = made.and_then(|()| {
        let mut options = OpenOptions::new();
        options.set("driver", "qcow2");
        options.set("file.locking", "off");
        let mode =
            OpenMode { write: true, unmap: true, no_flush: true, snapshot: false, ..mode.clone() };
        open(Some(&path), options, &mode)
    });
    // It lives as long as it is open.
    _ = std::fs::remove_file(&path);
    let overlay = overlay.map_err(|error| error.during("Could not open temporary image"))?;
    overlay.set_backing(Some(base))?;
    Ok(overlay)
}

pub(super) fn open_with(
    filename: Option<&str>,
    options: OpenOptions,
    mode: &OpenMode,
) -> Result<NodeRef> {
    // What is said about writes is for the image that takes them.
    let mut mode = mode.clone();
    let mut options = options;
    if let Some(name) = options.take_text("detect-zeroes") {
        mode.detect_zeroes = DetectZeroes::parse(&name)
            .ok_or_else(|| Error::invalid(format!("Invalid parameter '{name}'")))?;
    }
    let mode = &mode;
    let below = OpenMode { write: false, snapshot: false, ..mode.for_child() };
    open_over(open(filename, options, &below)?, mode)
}
