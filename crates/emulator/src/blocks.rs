//! Disks by name: `-blockdev`, `-drive`, `blockdev-add`.

use std::collections::BTreeMap;
use std::sync::Arc;

use block::{Graph, NodeRef, OpenOptions};
use machine::surroundings::Backends;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use crate::counted::{Counted, Counters};
use crate::options::Asked;

type Result<T> = std::result::Result<T, String>;

/// The block graph and the drives on it.
pub struct Blocks {
    pub graph: Graph,
    backends: Arc<Backends>,
    /// By the name of the node or drive.
    counters: Mutex<BTreeMap<String, Arc<Counters>>>,
}

/// What a `-drive` asks for beside its image.
pub struct Drive {
    /// The device that has to be made for it; none for `if=none`.
    pub device: Option<Asked>,
    /// A flash chip's image.
    pub flash: Option<NodeRef>,
}

impl Blocks {
    pub fn new(backends: &Arc<Backends>) -> Self {
        Self { graph: Graph::default(), backends: Arc::clone(backends), counters: Mutex::default() }
    }

    /// `-blockdev` and `blockdev-add`.
    pub fn add(&self, members: &Map<String, Value>) -> Result<()> {
        let options = OpenOptions::from_json(&Value::Object(members.clone()));
        let options = options.map_err(|error| error.to_string())?;
        self.graph.add(options).map_err(|error| error.to_string())?;
        self.register();
        Ok(())
    }

    /// Every named node can be a device's drive.
    fn register(&self) {
        for named in self.graph.list() {
            if self.backends.drives.get(&named.name).is_none() {
                self.enter(&named.name, named.node);
            }
        }
    }

    /// Makes a node available to devices, with counters before it. False when the name is taken.
    fn enter(&self, name: &str, node: NodeRef) -> bool {
        let counters: Arc<Counters> = Arc::default();
        let counted = Counted::new(node, Arc::clone(&counters));
        let is_new = self.backends.drives.insert(name, Arc::new(counted));
        if is_new {
            self.counters.lock().insert(name.to_owned(), counters);
        }
        is_new
    }

    /// What the user of a node or drive has done.
    pub fn counters(&self, name: &str) -> Arc<Counters> {
        self.counters.lock().get(name).cloned().unwrap_or_default()
    }

    /// `blockdev-del`.
    pub fn remove(&self, name: &str) -> Result<()> {
        if let Some(user) = self.backends.drives.user(name) {
            return Err(format!("Node {name} is in use by '{user}'"));
        }
        self.graph.remove(name).map_err(|error| error.to_string())?;
        for gone in self.backends.drives.names() {
            if self.graph.get(&gone).is_none() && gone.starts_with('#') || gone == name {
                self.backends.drives.remove(&gone);
                self.counters.lock().remove(&gone);
            }
        }
        Ok(())
    }

    /// `-drive`: opens the image, and says which device it wants.
    pub fn drive(&self, asked: &Asked, number: usize) -> Result<Drive> {
        let mut members = asked.members.clone();
        let mut take = |name: &str| match members.shift_remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let interface = take("if").unwrap_or_else(|| "ide".to_owned());
        let media = take("media").unwrap_or_else(|| "disk".to_owned());
        let index = take("index").unwrap_or_else(|| number.to_string());
        let id = take("id").unwrap_or_else(|| match interface.as_str() {
            "ide" => format!(
                "ide{}-{}{}",
                number / 2,
                if media == "cdrom" { "cd" } else { "hd" },
                number % 2
            ),
            other => format!("{other}{index}"),
        });
        let (file, serial) = (take("file"), take("serial"));
        let mut options = OpenOptions::new();
        if let Some(format) = take("format") {
            options.set("driver", format);
        }
        let read_only = take("readonly").or_else(|| take("read-only"));
        let read_only = read_only.or_else(|| (media == "cdrom").then(|| "on".to_owned()));
        if let Some(read_only) = read_only {
            options.set("read-only", read_only);
        }
        for name in ["discard", "detect-zeroes", "node-name"] {
            if let Some(value) = take(name) {
                options.set(name, value);
            }
        }
        match take("cache").as_deref() {
            None | Some("writeback" | "writethrough") => {}
            Some("none" | "off" | "directsync") => options.set("cache.direct", "on"),
            Some("unsafe") => options.set("cache.no-flush", "on"),
            Some(other) => return Err(format!("invalid cache option '{other}'")),
        }
        // How requests get to the kernel is the block layer's choice; all answers are the same.
        if let Some(aio) = take("aio")
            && !["threads", "native", "io_uring"].contains(&aio.as_str())
        {
            return Err(format!("invalid aio option '{aio}'"));
        }
        for (name, value) in &members {
            match name.split_once('.') {
                Some(("file" | "backing", _)) => options.set(name, value.clone()),
                _ => return Err(format!("Block option '{name}' is not built in Hostel")),
            }
        }
        let node = match &file {
            Some(file) => Some(
                self.graph
                    .open(Some(file), options)
                    .map_err(|error| format!("Could not open '{file}': {error}"))?,
            ),
            None if media == "cdrom" => None,
            None => return Err("A block device must be specified for \"file\"".to_owned()),
        };
        if let Some(node) = &node
            && !self.enter(&id, Arc::clone(node))
        {
            return Err(format!("Duplicate ID '{id}' for drive"));
        }
        let flash = (interface == "pflash").then(|| node.clone()).flatten();
        let device = device(&interface, &media, node.is_some().then_some(id), serial, &index)?;
        let device = device.map(|members| Asked { typed: asked.typed.clone(), members });
        Ok(Drive { device, flash })
    }
}

/// The device behind an interface.
fn device(
    interface: &str,
    media: &str,
    drive: Option<String>,
    serial: Option<String>,
    index: &str,
) -> Result<Option<Map<String, Value>>> {
    let model = match (interface, media) {
        ("none" | "pflash", _) => return Ok(None),
        ("virtio", _) => "virtio-blk-pci",
        ("ide", "cdrom") => "ide-cd",
        ("ide", _) => "ide-hd",
        ("scsi" | "floppy" | "sd" | "mtd" | "xen", _) => {
            return Err(format!("interface '{interface}' is not built in Hostel"));
        }
        _ => return Err(format!("unsupported bus type '{interface}'")),
    };
    let mut members = Map::new();
    members.insert("driver".into(), model.into());
    if let Some(drive) = drive {
        members.insert("drive".into(), drive.into());
    }
    if let Some(serial) = serial {
        members.insert("serial".into(), serial.into());
    }
    if interface == "ide" {
        let index: u32 = index.parse().map_err(|_| format!("bad index '{index}'"))?;
        members.insert("bus".into(), format!("ide.{}", index / 2).into());
        members.insert("unit".into(), (index % 2).into());
    }
    Ok(Some(members))
}
