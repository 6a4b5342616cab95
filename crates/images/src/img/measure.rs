//! `qemu-img measure`.

use block::formats;
use block::open::OpenMode;
use block::{CreateOptions, NodeRef};
use qemu_compat::image_tool::arguments::Typed;
use qemu_compat::json;
use serde_json::json;

use super::create::image_size;
use super::failure::{Failure, Outcome};
use super::{fail, opening};

pub fn run(typed: &Typed) -> Outcome {
    let as_json = opening::wants_json(typed)?;
    let target = typed.value("target-format").unwrap_or("raw");
    let name = match typed.operands.as_slice() {
        [] => None,
        [name] => Some(name),
        _ => return Err(fail("At most one filename argument is allowed.")),
    };
    let size = typed.value("size").map(image_size).transpose()?;
    let about_file = typed.has("image-opts") || typed.has("format") || typed.has("snapshot");
    match (name, size) {
        (None, _) if about_file => {
            return Err(fail("--image-opts, -f, and -l require a filename argument."));
        }
        (Some(_), Some(_)) => {
            return Err(fail("--size N cannot be used together with a filename."));
        }
        (None, None) => return Err(fail("Either --size N or one filename must be specified.")),
        _ => {}
    }
    let source = name.map(|name| source(typed, name)).transpose()?;
    let format =
        formats::find(target).ok_or_else(|| fail(format!("Unknown file format '{target}'")))?;
    if format.create.is_none() {
        return Err(fail(format!("Format driver '{target}' does not support image creation")));
    }
    let mut options = CreateOptions::new();
    opening::creation_options(typed.values("options"), &mut options)?;
    let file = block::protocols::find("file").map_or(&[][..], |file| file.create_options);
    options.validate(&[format.create_options, file]).map_err(|error| {
        fail(format!("{error}\nqemu-img: Invalid options for file format '{target}'"))
    })?;
    if let Some(size) = size {
        options.set("size", size.to_string());
    }
    let measure = format.measure.ok_or_else(|| {
        fail(format!("Block driver '{target}' does not support size measurement"))
    })?;
    let measure = measure(&options, source.as_ref())?;
    if as_json {
        let mut tree =
            json!({"required": measure.required, "fully-allocated": measure.fully_allocated});
        if let Some(bytes) = measure.bitmaps {
            tree["bitmaps"] = bytes.into();
        }
        println!("{}", json::pretty(&tree));
    } else {
        println!("required size: {}", measure.required);
        println!("fully allocated size: {}", measure.fully_allocated);
        if let Some(bytes) = measure.bitmaps {
            println!("bitmaps size: {bytes}");
        }
    }
    Ok(0)
}

fn source(typed: &Typed, name: &str) -> Result<NodeRef, Failure> {
    let node = opening::open(typed, name, typed.value("format"), &OpenMode::default())?;
    match typed.value("snapshot") {
        None => Ok(node),
        Some(text) => at_snapshot(&node, text),
    }
}

/// An image as it was at a snapshot: by name or number, or by `snapshot.id=`, `snapshot.name=`.
pub fn at_snapshot(node: &NodeRef, text: &str) -> Result<NodeRef, Failure> {
    let failed = |why: &str| fail(format!("Failed to load snapshot: {why}"));
    let snapshots =
        node.snapshots().ok_or_else(|| failed("Device '' does not support internal snapshots"))?;
    let list = snapshots.list();
    let wanted = if text.starts_with("snapshot.") {
        let (mut id, mut name) = (None, None);
        for (key, value) in
            qemu_compat::options::parse_opts(text, None).map_err(|e| fail(e.to_string()))?
        {
            match key.as_str() {
                "snapshot.id" => id = Some(value),
                "snapshot.name" => name = Some(value),
                _ => return Err(fail(format!("Failed in parsing snapshot param '{text}'"))),
            }
        }
        list.iter().find(|row| {
            id.as_ref().is_none_or(|id| *id == row.id)
                && name.as_ref().is_none_or(|name| *name == row.name)
        })
    } else {
        list.iter().find(|row| row.id == text).or_else(|| list.iter().find(|row| row.name == text))
    };
    let wanted = wanted.ok_or_else(|| failed("Can't find snapshot"))?;
    snapshots.open(&wanted.id).map_err(|error| failed(&error.to_string()))
}
