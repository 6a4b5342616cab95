//! Disks by name: `-blockdev`, `-drive`, `blockdev-add`.

use std::collections::BTreeMap;
use std::sync::Arc;

use block::dirty::Tracker;
use block::filters::throttle;
use block::jobs::Jobs;
use block::open::OpenMode;
use block::root::Root;
use block::{Graph, NodeRef, OpenOptions};
use machine::surroundings::Backends;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use crate::counted::{Counted, Counters};
use crate::exports::Exports;
use crate::options::Asked;

type Result<T> = std::result::Result<T, String>;

/// The block graph and the drives on it.
pub struct Blocks {
    pub graph: Graph,
    backends: Arc<Backends>,
    /// By the name of the node or drive.
    counters: Mutex<BTreeMap<String, Arc<Counters>>>,
    /// Where nodes meet their users, by the same names.
    roots: Mutex<BTreeMap<String, Arc<Root>>>,
    /// Dirty bitmaps by the names of their nodes.
    pub bitmaps: Mutex<BTreeMap<String, Vec<Bitmap>>>,
    /// Work beside the machine.
    pub jobs: Jobs,
    /// Names of flash chips' images.
    flash: Mutex<Vec<String>>,
    /// What is served to others.
    pub exports: Exports,
}

/// A dirty bitmap in memory.
#[derive(Clone)]
pub struct Bitmap {
    pub name: String,
    pub tracker: Arc<Tracker>,
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
        Self {
            graph: Graph::default(),
            backends: Arc::clone(backends),
            counters: Mutex::default(),
            roots: Mutex::default(),
            bitmaps: Mutex::default(),
            jobs: Jobs::default(),
            flash: Mutex::default(),
            exports: Exports::default(),
        }
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
    pub fn register(&self) {
        for named in self.graph.list() {
            if self.backends.drives.get(&named.name).is_none() {
                self.enter(&named.name, named.node);
            }
        }
    }

    /// Makes a node available to devices, with counters before it. False when the name is taken.
    fn enter(&self, name: &str, node: NodeRef) -> bool {
        let counters: Arc<Counters> = Arc::default();
        let root = Root::new(node);
        let counted = Counted::new(Arc::clone(&root), Arc::clone(&counters));
        let is_new = self.backends.drives.insert(name, Arc::new(counted));
        if is_new {
            self.roots.lock().insert(name.to_owned(), root);
            self.counters.lock().insert(name.to_owned(), counters);
        }
        is_new
    }

    /// Names of drives that a guest can write to: those of devices and flash chips.
    pub fn written(&self) -> Vec<String> {
        let mut names = self.backends.drives.names();
        let flash = self.flash.lock().clone();
        names.retain(|name| {
            let used = self.backends.drives.user(name).is_some() || flash.contains(name);
            used && self.node(name).is_ok_and(|node| node.writable())
        });
        names
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
        let before: Vec<String> = self.graph.list().into_iter().map(|named| named.name).collect();
        self.graph.remove(name).map_err(|error| error.to_string())?;
        for gone in self.backends.drives.names() {
            // Drives have names of their own.
            let was_node = self.graph.get(&gone).is_none() && before.contains(&gone);
            if was_node || gone == name {
                self.backends.drives.remove(&gone);
                self.counters.lock().remove(&gone);
                self.roots.lock().remove(&gone);
                self.bitmaps.lock().remove(&gone);
            }
        }
        Ok(())
    }

    /// Opens a medium that a user has put into a drive by its file's name.
    pub fn open_medium(&self, name: &str, file: &str, format: Option<&str>) -> Result<()> {
        let mut members = Map::new();
        members.extend(format.map(|format| ("format".to_owned(), format.into())));
        let (options, mode) = drive_options(&mut members, "cdrom")?;
        let opened = self.graph.open_as(Some(file), options, &mode);
        let node = opened.map_err(|error| format!("Could not open '{file}': {error}"))?;
        match self.enter(name, node) {
            true => Ok(()),
            false => Err(format!("Duplicate ID '{name}' for drive")),
        }
    }

    /// Closes one that is in no drive any more.
    pub fn close_medium(&self, name: &str) {
        let Ok(node) = self.node(name) else { return };
        self.backends.drives.remove(name);
        self.counters.lock().remove(name);
        self.roots.lock().remove(name);
        if let Some(node) = self.graph.name_of(&node) {
            // Somebody else may use it still.
            _ = self.graph.remove(&node);
        }
    }

    /// A node by its name, or by that of a drive or a device that uses it.
    pub fn node(&self, name: &str) -> Result<NodeRef> {
        let name = self.backends.drives.used_by(name).unwrap_or_else(|| name.to_owned());
        let root = self.roots.lock().get(&name).map(|root| root.current());
        root.or_else(|| self.graph.get(&name))
            .ok_or_else(|| format!("Cannot find device=\'{name}\' nor node-name=\'{name}\'"))
    }

    /// The places in which a node stands.
    pub fn roots_of(&self, node: &NodeRef) -> Vec<Arc<Root>> {
        let roots = self.roots.lock();
        roots.values().filter(|root| Arc::ptr_eq(&root.current(), node)).cloned().collect()
    }

    /// The users of `old` have gone over to `new`: what is named after a node stands for it again.
    pub fn moved(&self, old: &NodeRef, new: &NodeRef) {
        let (Some(old_name), Some(new_name)) = (self.graph.name_of(old), self.graph.name_of(new))
        else {
            return;
        };
        self.register();
        self.graph.hold(&new_name);
        if self.backends.drives.exchange(&old_name, &new_name) {
            let mut roots = self.roots.lock();
            if let (Some(first), Some(second)) = (roots.remove(&old_name), roots.remove(&new_name))
            {
                roots.insert(old_name.clone(), second);
                roots.insert(new_name.clone(), first);
            }
            drop(roots);
            let mut counters = self.counters.lock();
            if let (Some(first), Some(second)) =
                (counters.remove(&old_name), counters.remove(&new_name))
            {
                counters.insert(old_name.clone(), second);
                counters.insert(new_name.clone(), first);
            }
        }
        if let Some(root) = self.roots.lock().get(&old_name) {
            root.hold().exchange(Arc::clone(old));
        }
    }

    /// `-drive`: opens the image, and says which device it wants. `per_bus`: so many drives are on
    /// an IDE bus of the board.
    pub fn drive(&self, asked: &Asked, number: usize, per_bus: usize) -> Result<Drive> {
        let mut members = asked.members.clone();
        let mut take = |name: &str| match members.shift_remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let interface = take("if").unwrap_or_else(|| "ide".to_owned());
        let media = take("media").unwrap_or_else(|| "disk".to_owned());
        let index = take("index").unwrap_or_else(|| number.to_string());
        let id = take("id").unwrap_or_else(|| match (interface.as_str(), index.parse::<usize>()) {
            ("ide", Ok(place)) => {
                let (bus, unit) = (place / per_bus, place % per_bus);
                format!("ide{bus}-{}{unit}", if media == "cdrom" { "cd" } else { "hd" })
            }
            (other, _) => format!("{other}{index}"),
        });
        let (file, serial) = (take("file"), take("serial"));
        let (mut options, mode) = drive_options(&mut members, &media)?;
        let group = throttle_group(&mut members, &id)?;
        for (name, value) in &members {
            match name.split_once('.') {
                Some(("file" | "backing" | "encrypt" | "overlap-check", _)) => {
                    options.set(name, value.clone());
                }
                None if FORMAT_OPTIONS.contains(&name.as_str()) => options.set(name, value.clone()),
                _ => return Err(format!("Block option '{name}' is not built in Hostel")),
            }
        }
        let node = match &file {
            Some(file) => Some(
                self.graph
                    .open_as(Some(file), options, &mode)
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
        if let Some(root) = self.roots.lock().get(&id) {
            root.limit(group);
        }
        if interface == "pflash" {
            self.flash.lock().push(id.clone());
        }
        let flash = (interface == "pflash").then(|| node.clone()).flatten();
        // A drive whose disc may go is called as the disc is.
        let lasting = (interface == "ide" && media == "cdrom").then(|| id.clone());
        let device = device(&interface, &media, node.is_some().then_some(id), serial, &index)?;
        let device = device.map(|mut members| {
            members.extend(lasting.map(|id| ("id".to_owned(), id.into())));
            members
        });
        let device = device.map(|members| Asked { typed: asked.typed.clone(), members });
        Ok(Drive { device, flash })
    }
}

/// What `-drive` says about how its image is opened, apart from the format's own options.
fn drive_options(members: &mut Map<String, Value>, media: &str) -> Result<(OpenOptions, OpenMode)> {
    let has_writeback = members.contains_key("cache.writeback");
    let mut take = |name: &str| match members.shift_remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let mut options = OpenOptions::new();
    let (format, driver) = (take("format"), take("driver"));
    if format.is_some() && driver.is_some() {
        return Err("Cannot specify both 'driver' and 'format'".to_owned());
    }
    if let Some(format) = format.or(driver) {
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
    let mut write_through = false;
    match take("cache").as_deref() {
        None | Some("writeback") => {}
        Some("writethrough") => write_through = true,
        Some("none" | "off") => options.set("cache.direct", "on"),
        Some("directsync") => {
            options.set("cache.direct", "on");
            write_through = true;
        }
        Some("unsafe") => options.set("cache.no-flush", "on"),
        Some(other) => return Err(format!("invalid cache option '{other}'")),
    }
    for name in ["cache.direct", "cache.no-flush", "auto-read-only", "force-share"] {
        if let Some(value) = take(name) {
            options.set(name, value);
        }
    }
    let mut switch = |name: &str| match take(name).as_deref() {
        None | Some("off") => Ok(false),
        Some("on") => Ok(true),
        Some(_) => Err(format!("Parameter '{name}' expects 'on' or 'off'")),
    };
    let copy_on_read = switch("copy-on-read")?;
    let snapshot = switch("snapshot")?;
    // Written through unless the device may keep its writes in a cache.
    write_through |= switch("cache.writeback").is_ok_and(|on| !on) && has_writeback;
    // How requests get to the kernel is the block layer's choice; all answers are the same.
    if let Some(aio) = take("aio")
        && !["threads", "native", "io_uring"].contains(&aio.as_str())
    {
        return Err(format!("invalid aio option '{aio}'"));
    }
    Ok((options, OpenMode { copy_on_read, snapshot, write_through, ..OpenMode::default() }))
}

/// Options of formats that `-drive` hands on as they are.
const FORMAT_OPTIONS: [&str; 9] = [
    "lazy-refcounts",
    "pass-discard-request",
    "cache-size",
    "l2-cache-size",
    "l2-cache-entry-size",
    "refcount-cache-size",
    "cache-clean-interval",
    "key-secret",
    "offset",
];

/// Other spellings of limits.
const LIMIT_ALIASES: [(&str, &str); 6] = [
    ("bps", "bps-total"),
    ("bps_rd", "bps-read"),
    ("bps_wr", "bps-write"),
    ("iops", "iops-total"),
    ("iops_rd", "iops-read"),
    ("iops_wr", "iops-write"),
];

/// `throttling.*` and the old names of the same limits.
fn throttle_group(
    members: &mut Map<String, Value>,
    id: &str,
) -> Result<Option<Arc<throttle::Group>>> {
    let mut limits = throttle::Limits::default();
    let mut name = None;
    let names: Vec<String> = members.keys().cloned().collect();
    for key in names {
        let own = match key.strip_prefix("throttling.") {
            Some(own) => own.to_owned(),
            None => match LIMIT_ALIASES.iter().find(|(alias, _)| *alias == key) {
                Some((_, own)) => (*own).to_owned(),
                None => continue,
            },
        };
        let Some(value) = members.shift_remove(&key) else { continue };
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if own == "group" {
            name = Some(value);
        } else {
            limits.set(&own, &value).map_err(|error| error.to_string())?;
        }
    }
    if limits.is_empty() && name.is_none() {
        return Ok(None);
    }
    let group = throttle::Group::get(name.as_deref().unwrap_or(id));
    if !limits.is_empty() {
        group.set(limits).map_err(|error| error.to_string())?;
    }
    Ok(Some(group))
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
