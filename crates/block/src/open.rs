//! Opening images: names to options, probing, backing files.

pub(crate) mod names;
mod snapshot;

use std::path::Path;

use crate::error::{Error, Result};
use crate::filters::tuned::{DetectZeroes, tune};
use crate::formats::{self, Format, PROBE_BYTES};
use crate::graph::Graph;
use crate::node::NodeRef;
use crate::options::{CreateOptions, OpenOptions};
use crate::protocols::{self, Protocol};

/// More backing files than this are a loop or an attack.
const CHAIN_LENGTH_MAX: usize = 200;

/// How an image is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenMode {
    /// Writes are possible.
    pub write: bool,
    /// The host's page cache is bypassed.
    pub direct: bool,
    /// Flushes are not passed to the host.
    pub no_flush: bool,
    /// Discards reach the host.
    pub unmap: bool,
    /// Others may write at the same time; what is read may make no sense.
    pub force_share: bool,
    /// The backing file is not opened.
    pub no_backing: bool,
    /// Nothing but metadata will be read: secrets are not needed.
    pub no_data: bool,
    /// A damaged image is to be checked: errors in tables that can be repaired are no reason
    /// not to open it.
    pub check: bool,
    /// Such an image is also to be repaired.
    pub repair: bool,
    /// Where writing is not possible, the node is read-only instead of not opened.
    pub auto_read_only: bool,
    /// Backing files are writable, too.
    pub backing_write: bool,
    /// What becomes of writes of zeros.
    pub detect_zeroes: DetectZeroes,
    /// What is read from backing files is written here.
    pub copy_on_read: bool,
    /// Each write is flushed before it ends.
    pub write_through: bool,
    /// Writes go to a temporary image that nobody sees again.
    pub snapshot: bool,
    /// Nodes are entered here, and may refer to each other by name.
    pub graph: Option<Graph>,
}

impl OpenMode {
    /// The mode of a child: what is the node's own is left out.
    fn for_child(&self) -> Self {
        Self {
            detect_zeroes: DetectZeroes::Off,
            copy_on_read: false,
            write_through: false,
            snapshot: false,
            ..self.clone()
        }
    }

    /// The node that another one refers to by its name.
    pub(crate) fn referred(&self, name: &str) -> Result<NodeRef> {
        match &self.graph {
            Some(graph) => graph.referred(name),
            None => Err(Error::invalid(format!("Cannot find device='' nor node-name='{name}'"))),
        }
    }
}

/// A cache mode by its name on command lines.
pub fn parse_cache(mode: &mut OpenMode, name: &str) -> Option<bool> {
    (mode.direct, mode.no_flush) = match name {
        "none" | "off" | "directsync" => (true, false),
        "writeback" | "writethrough" => (false, false),
        "unsafe" => (false, true),
        _ => return None,
    };
    Some(matches!(name, "directsync" | "writethrough"))
}

/// What a driver learns about the image besides its options.
#[derive(Clone, Debug, Default)]
pub struct OpenContext {
    /// The format was not given but guessed.
    pub guessed: bool,
    /// The layers above that wait for this one.
    pub depth: usize,
}

/// Opens an image by name, by options or by both, with its backing files.
pub fn open(filename: Option<&str>, options: OpenOptions, mode: &OpenMode) -> Result<NodeRef> {
    if mode.snapshot {
        return snapshot::open_with(filename, options, mode);
    }
    open_at(filename, options, mode, &OpenContext::default())
}

/// Opens the child of a filter: like an image, its format may be guessed.
pub(crate) fn open_below(
    filename: Option<&str>,
    options: OpenOptions,
    mode: &OpenMode,
) -> Result<NodeRef> {
    open_at(filename, options, &mode.for_child(), &OpenContext::default())
}

fn open_at(
    filename: Option<&str>,
    mut options: OpenOptions,
    mode: &OpenMode,
    context: &OpenContext,
) -> Result<NodeRef> {
    if context.depth > CHAIN_LENGTH_MAX {
        return Err(Error::invalid("The backing chain is too long or loops"));
    }
    let mut filename = filename.map(str::to_string);
    if let Some(json) = filename.as_deref().and_then(|name| name.strip_prefix("json:")) {
        let mut from_name = OpenOptions::parse_json(json)?;
        for (key, value) in options.iter() {
            from_name.set(key, value.clone());
        }
        options = from_name;
        filename = None;
    }
    let mut mode = mode.clone();
    let name = take_common(&mut options, &mut mode)?;
    let driver = options.take_text("driver");
    let outer = mode;
    let mode = outer.for_child();
    let given = options.clone();
    let entered = |name: Option<String>, node: NodeRef, _: &OpenMode| {
        let full = names::full(&node, &given);
        self::entered(name, tune(node, &outer, full), &outer)
    };
    if let Some(protocol) = driver.as_deref().and_then(protocols::find) {
        if let Some(filename) = filename {
            (protocol.parse)(&filename, &mut options)?;
        }
        return entered(name, open_protocol(protocol, options, &mode)?, &mode);
    }
    let format = match driver.as_deref() {
        None => None,
        Some(name) => match formats::find(name) {
            Some(format) => Some(format),
            None => return Err(Error::invalid(format!("Unknown driver '{name}'"))),
        },
    };
    let file = open_file_child(filename.as_deref(), &mut options, &mode)?;
    let mut context = context.clone();
    let format = match format {
        Some(format) => format,
        None => {
            let format = probe(&file)?;
            context.guessed = format.name == "raw";
            format
        }
    };
    entered(name, open_format(format, file, options, &mode, &context)?, &mode)
}

/// Enters a node into the graph, where there is one.
fn entered(name: Option<String>, node: NodeRef, mode: &OpenMode) -> Result<NodeRef> {
    if let Some(graph) = &mode.graph {
        graph.insert(name, &node, mode)?;
    }
    Ok(node)
}

/// Options that every driver has. The node's name comes back.
fn take_common(options: &mut OpenOptions, mode: &mut OpenMode) -> Result<Option<String>> {
    let name = options.take_text("node-name");
    if let Some(name) = &name {
        check_node_name(name)?;
    }
    // A file is opened for writing only when somebody writes, whatever this says; a server may
    // refuse writers.
    if let Some(fall_back) = options.take_bool("auto-read-only")? {
        mode.auto_read_only = fall_back;
    }
    if options.take_bool("read-only")? == Some(true) {
        mode.write = false;
    }
    if let Some(direct) = options.take_bool("cache.direct")? {
        mode.direct = direct;
    }
    if let Some(no_flush) = options.take_bool("cache.no-flush")? {
        mode.no_flush = no_flush;
    }
    if options.take_bool("force-share")? == Some(true) {
        if mode.write {
            return Err(Error::invalid("force-share=on can only be used with read-only images"));
        }
        mode.force_share = true;
    }
    if let Some(name) = options.take_text("detect-zeroes") {
        mode.detect_zeroes = DetectZeroes::parse(&name).ok_or_else(|| {
            Error::invalid(format!(
                "Invalid parameter '{name}'\nAccepted values are 'off', 'on', 'unmap'"
            ))
        })?;
    }
    match options.take_text("discard").as_deref() {
        None => {}
        Some("unmap" | "on") => mode.unmap = true,
        Some("ignore" | "off") => mode.unmap = false,
        Some(_) => return Err(Error::invalid("Invalid discard option")),
    }
    if mode.detect_zeroes == DetectZeroes::Unmap && !mode.unmap {
        return Err(Error::invalid(
            "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
        ));
    }
    if mode.copy_on_read && !mode.write {
        return Err(Error::invalid("Can't use copy-on-read on read-only device"));
    }
    Ok(name)
}

/// Node names are shorter than this.
const NODE_NAME_BYTES_MAX: usize = 31;

fn check_node_name(name: &str) -> Result<()> {
    let letter = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(letter) {
        return Err(Error::invalid(format!("Invalid node-name: '{name}'")));
    }
    if name.len() > NODE_NAME_BYTES_MAX {
        return Err(Error::invalid("Node name too long"));
    }
    Ok(())
}

fn open_file_child(
    filename: Option<&str>,
    options: &mut OpenOptions,
    mode: &OpenMode,
) -> Result<NodeRef> {
    let below = options.take_below("file");
    if filename.is_none() && below.is_empty() {
        if let Some(reference) = options.take_text("file") {
            if let Some(graph) = &mode.graph {
                return graph.referred(&reference);
            }
            return Err(Error::invalid(format!(
                "Cannot find device='' nor node-name='{reference}'"
            )));
        }
        if let Some(filename) = options.take_text("filename") {
            return open_child(Some(&filename), below, mode);
        }
        return Err(Error::invalid("A block device must be specified for \"file\""));
    }
    open_child(filename, below, mode)
}

/// Opens a child that gives bytes: a protocol or a filter, never a guess.
pub fn open_child(
    filename: Option<&str>,
    mut options: OpenOptions,
    mode: &OpenMode,
) -> Result<NodeRef> {
    let mut mode = mode.for_child();
    let name = take_common(&mut options, &mut mode)?;
    if let Some(json) = filename.and_then(|name| name.strip_prefix("json:")) {
        return open_at(None, OpenOptions::parse_json(json)?, &mode, &OpenContext::default());
    }
    let named = match options.take_text("driver") {
        Some(driver) => match protocols::find(&driver) {
            Some(protocol) => Some(protocol),
            None if formats::find(&driver).is_some() => {
                options.set("driver", driver);
                if let Some(name) = name {
                    options.set("node-name", name);
                }
                return open_at(filename, options, &mode, &OpenContext::default());
            }
            None => return Err(Error::invalid(format!("Unknown driver '{driver}'"))),
        },
        None => None,
    };
    let by_option = options.text("filename").map(str::to_string);
    let protocol = match (named, filename.or(by_option.as_deref())) {
        (Some(protocol), _) => protocol,
        (None, Some(name)) => by_name(name)?,
        (None, None) => return Err(Error::invalid("Must specify either driver or file")),
    };
    if let Some(name) = filename {
        (protocol.parse)(name, &mut options)?;
    } else if let (None, Some(name)) = (named, by_option.as_deref()) {
        (protocol.parse)(name, &mut options)?;
    }
    let node = open_protocol(protocol, options, &mode.for_child())?;
    entered(name, tune(node, &mode, None), &mode)
}

/// The protocol that a name means: by prefix, or a file.
fn by_name(filename: &str) -> Result<&'static Protocol> {
    if let Some(protocol) = protocols::by_prefix(filename) {
        return Ok(protocol);
    }
    if let Some(prefix) = protocols::prefix(filename)
        && !Path::new(filename).exists()
    {
        return Err(Error::invalid(format!("Unknown protocol '{prefix}'")));
    }
    protocols::find("file").ok_or_else(|| Error::unsupported("There is no file driver"))
}

fn open_protocol(
    protocol: &'static Protocol,
    mut options: OpenOptions,
    mode: &OpenMode,
) -> Result<NodeRef> {
    let node = (protocol.open)(&mut options, mode)?;
    if let Some(key) = options.first_key() {
        return Err(Error::invalid(format!(
            "Block protocol '{}' doesn't support the option '{key}'",
            protocol.name
        )));
    }
    Ok(node)
}

/// Guesses the format from the image's first bytes.
pub fn probe(file: &NodeRef) -> Result<&'static Format> {
    let mut start = vec![0; PROBE_BYTES.min(file.size() as usize)];
    file.read_at(&mut start, 0)
        .map_err(|error| error.during("Could not read image for determining its format"))?;
    Ok(formats::probe(&start, &file.filename()))
}

fn open_format(
    format: &'static Format,
    file: NodeRef,
    mut options: OpenOptions,
    mode: &OpenMode,
    context: &OpenContext,
) -> Result<NodeRef> {
    let no_backing = options.take_null("backing") || options.text("backing") == Some("");
    if no_backing {
        options.take_text("backing");
    }
    let reference = match &mode.graph {
        Some(graph) => {
            options.take_text("backing").map(|name| graph.referred(&name)).transpose()?
        }
        None => None,
    };
    let backing_options = options.take_below("backing");
    let own = format.name != "raw";
    file.lock(mode, own)?;
    let node = (format.open)(file, &mut options, mode, context)?;
    if let Some(backing) = reference {
        node.set_backing(Some(backing))?;
    } else if !no_backing && !mode.no_backing && format.backing {
        attach_backing(&node, backing_options, mode, context)?;
    }
    if let Some(key) = options.first_key() {
        return Err(Error::invalid(format!(
            "Block format '{}' does not support the option '{key}'",
            format.name
        )));
    }
    Ok(node)
}

/// Opens the backing file that the image names, or that the options put in its place.
fn attach_backing(
    node: &NodeRef,
    mut options: OpenOptions,
    mode: &OpenMode,
    context: &OpenContext,
) -> Result<()> {
    let info = node.info()?;
    let overridden = options.contains("file") || options.has_below("file");
    let filename = if overridden { None } else { full_backing_name(node)? };
    if filename.is_none() && options.is_empty() {
        return Ok(());
    }
    if let Some(format) = info.backing_format.filter(|format| !format.is_empty()) {
        let by_json = filename.as_deref().is_some_and(|name| name.starts_with("json:"));
        if !overridden && !by_json {
            options.set_default("driver", format);
        }
    }
    let below = OpenMode { write: mode.backing_write, check: false, ..mode.clone() };
    let context = OpenContext { depth: context.depth + 1, guessed: false };
    let backing = open_at(filename.as_deref(), options, &below, &context)
        .map_err(|error| Error::Backing { source: Box::new(error) })?;
    node.set_backing(Some(backing))
}

/// The name under which an image's backing file can be opened from here.
pub fn full_backing_name(node: &NodeRef) -> Result<Option<String>> {
    let Some(name) = node.info()?.backing_file else { return Ok(None) };
    Ok(Some(combine(&exact_name(node), &name)?))
}

/// The name of the file at the bottom of a node.
pub fn exact_name(node: &NodeRef) -> String {
    let mut node = node.clone();
    while let Some(file) = node.file() {
        node = file;
    }
    node.filename()
}

/// A name as seen from the image that mentions it.
pub fn combine(mentioned_in: &str, name: &str) -> Result<String> {
    if name.starts_with('/') || protocols::prefix(name).is_some() || mentioned_in.is_empty() {
        return Ok(name.to_string());
    }
    if mentioned_in.starts_with("json:") {
        return Err(Error::invalid(format!("Cannot generate a base directory for {mentioned_in}")));
    }
    let end = mentioned_in.rfind('/').map_or_else(
        || protocols::prefix(mentioned_in).map_or(0, |prefix| prefix.len() + 1),
        |slash| slash + 1,
    );
    Ok(format!("{}{name}", &mentioned_in[..end]))
}

/// Makes an empty file for an image, with the options that protocols understand.
pub fn create_protocol(filename: &str, options: &CreateOptions) -> Result<()> {
    let protocol = by_name(filename)?;
    let create = protocol.create.ok_or_else(|| {
        Error::unsupported(format!(
            "Protocol driver '{}' does not support image creation",
            protocol.name
        ))
    })?;
    create(filename, options)
}

/// The creation options of the protocol that a name means.
pub fn protocol_of(filename: &str) -> Result<&'static Protocol> {
    by_name(filename)
}

/// Opens just the file of an image that is being made.
pub fn open_created(filename: &str) -> Result<NodeRef> {
    let mode = OpenMode { write: true, no_flush: false, ..OpenMode::default() };
    let file = open_child(Some(filename), OpenOptions::new(), &mode)?;
    file.lock(&mode, true)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_options_do_what_they_say_or_are_refused() {
        for (key, value, accepted) in [
            ("node-name", "disk0.file-1_x", true),
            ("node-name", "0disk", false),
            ("node-name", "a-name-that-is-longer-than-qemu-takes", false),
            ("auto-read-only", "on", true),
            ("auto-read-only", "maybe", false),
        ] {
            let mut options = OpenOptions::new();
            options.set(key, value);
            let taken = take_common(&mut options, &mut OpenMode::default());
            assert_eq!(taken.is_ok(), accepted, "{key}={value}");
        }
    }

    #[test]
    fn backing_names_are_relative_to_the_overlay() {
        for (overlay, name, full) in [
            ("/a/b/o.qcow2", "base", "/a/b/base"),
            ("o.qcow2", "base", "base"),
            ("o.qcow2", "/x/base", "/x/base"),
            ("dir/o.qcow2", "../base", "dir/../base"),
            ("dir/o.qcow2", "nbd://host/x", "nbd://host/x"),
        ] {
            assert_eq!(combine(overlay, name).unwrap(), full);
        }
    }
}
