//! One pool: its document, its state, the volumes in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use libvirt_compat::rpc::types;
use libvirt_compat::xml::{Element, Node};
use libvirt_compat::{Code, Error, Origin, Result, Uuid};

use super::{Volume, bytes_element, parse};
use crate::random;

/// A storage pool.
#[derive(Clone)]
pub struct Pool {
    pub name: String,
    pub uuid: Uuid,
    pub kind: String,
    /// Where its volumes are.
    pub path: Option<PathBuf>,
    /// Without the sizes, which change.
    pub definition: Element,
    pub active: bool,
    /// Of a world in memory: the path leads nowhere.
    pub imaginary: bool,
    pub persistent: bool,
    pub autostart: bool,
    pub info: PoolInfo,
    pub volumes: BTreeMap<String, Volume>,
}

/// A pool's sizes in bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct PoolInfo {
    pub capacity: u64,
    pub allocation: u64,
    pub available: u64,
}

/// Files that a pool may hold: as many as a list may.
const VOLUMES_MAX: usize = 16_384;

const KINDS: [&str; 15] = [
    "dir",
    "fs",
    "netfs",
    "logical",
    "disk",
    "iscsi",
    "iscsi-direct",
    "scsi",
    "mpath",
    "rbd",
    "sheepdog",
    "gluster",
    "zfs",
    "vstorage",
    "linstor",
];

const ORDER: &[&str] =
    &["name", "uuid", "capacity", "allocation", "available", "features", "source", "target"];

fn problem(text: impl Into<String>) -> Error {
    Error::new(Code::XmlError, text).from(Origin::Storage)
}

/// A source's format where nothing is said, by kind of pool.
const SOURCE_FORMATS: &[(&str, &str)] =
    &[("fs", "auto"), ("netfs", "auto"), ("disk", "unknown"), ("logical", "lvm2")];

/// Fills in the source; answers where volumes are if the kind alone says so.
fn complete_source(document: &mut Element, kind: &str, name: &str) -> Option<String> {
    if let Some((_, format)) = SOURCE_FORMATS.iter().find(|(own, _)| *own == kind) {
        document.ensure("source").ensure("format").set_default("type", format);
    }
    match kind {
        "logical" => {
            let source = document.ensure("source");
            if source.text_at("name").is_none_or(|name| name.is_empty()) {
                source.ensure("name").set_text(name);
            }
            Some(format!("/dev/{}", source.text_at("name").unwrap_or_default()))
        }
        "zfs" => Some(format!("/dev/zvol/{}", document.text_at("source/name")?)),
        "mpath" => Some("/dev/mapper".to_owned()),
        _ => None,
    }
}

impl Pool {
    /// Parses a definition and fills in what libvirt fills in.
    pub fn parse(text: &str) -> Result<Self> {
        let mut document = parse(text, "storage_pool_definition", "pool")?;
        let kind = document.attribute("type").unwrap_or_default().to_owned();
        if !KINDS.contains(&kind.as_str()) {
            return Err(problem(format!("unknown storage pool type {kind}")));
        }
        let source_name = document.text_at("source/name");
        let name = document.text_at("name").or(source_name).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| problem("missing pool source name element"))?;
        if name.contains('/') {
            return Err(problem(format!("name {name} cannot contain '/'")));
        }
        let uuid = match document.text_at("uuid") {
            None => random::uuid(),
            Some(text) => Uuid::parse(&text).ok_or_else(|| problem("malformed uuid element"))?,
        };
        let path = document.text_at("target/path").map(|path| match path.trim_end_matches('/') {
            "" => "/".to_owned(),
            path => path.to_owned(),
        });
        if matches!(kind.as_str(), "dir" | "fs" | "netfs") && path.is_none() {
            return Err(problem("missing storage pool target path"));
        }
        if path.as_deref().is_some_and(|path| !path.starts_with('/')) && kind == "dir" {
            return Err(problem("storage pool target path must be absolute"));
        }
        let path = complete_source(&mut document, &kind, &name).or(path);
        document.ensure("name").set_text(&name);
        document.ensure("uuid").set_text(uuid);
        document.remove(|element| {
            matches!(element.name.as_str(), "capacity" | "allocation" | "available" | "volume")
        });
        document.ensure("source");
        if let Some(path) = &path {
            document.ensure("target").ensure("path").set_text(path);
        }
        sort(&mut document);
        Ok(Self {
            name,
            uuid,
            kind,
            path: path.map(PathBuf::from),
            definition: document,
            active: false,
            imaginary: false,
            persistent: false,
            autostart: false,
            info: PoolInfo::default(),
            volumes: BTreeMap::new(),
        })
    }

    /// How clients refer to it.
    pub fn reference(&self) -> types::StoragePool {
        types::StoragePool { name: self.name.clone(), uuid: self.uuid }
    }

    pub fn require_active(&self) -> Result<()> {
        if self.active {
            return Ok(());
        }
        let text = format!("storage pool '{}' is not active", self.name);
        Err(Error::new(Code::OperationInvalid, text))
    }

    pub fn volume(&self, name: &str) -> Result<Volume> {
        self.volumes.get(name).cloned().ok_or_else(|| {
            let text = format!("no storage vol with matching name '{name}'");
            Error::new(Code::NoStorageVol, text).from(Origin::Storage)
        })
    }

    /// The document with sizes and permissions.
    pub fn document(&self) -> Element {
        let mut document = self.definition.clone();
        for (name, bytes) in [
            ("capacity", self.info.capacity),
            ("allocation", self.info.allocation),
            ("available", self.info.available),
        ] {
            document.push(bytes_element(name, bytes));
        }
        if self.active
            && !self.imaginary
            && let Some(path) = &self.path
            && document.at("target/permissions").is_none()
            && let Ok(metadata) = fs::metadata(path)
        {
            document.ensure("target").push(super::volume::permissions(&metadata));
        }
        sort(&mut document);
        super::spread_source(&mut document);
        document
    }

    /// Adds up the volumes of a pool in memory.
    pub fn account(&mut self) {
        const CAPACITY: u64 = 100 << 30;
        let allocation = self.volumes.values().map(|volume| volume.allocation).sum();
        self.info = PoolInfo {
            capacity: CAPACITY,
            allocation,
            available: CAPACITY.saturating_sub(allocation),
        };
    }

    /// Reads the directory.
    pub fn scan(&self) -> Result<(BTreeMap<String, Volume>, PoolInfo)> {
        let path = self.path.clone().unwrap_or_default();
        let failed = |error| {
            crate::files::system(format!("cannot open directory '{}'", path.display()), &error)
        };
        let mut volumes = BTreeMap::new();
        for entry in fs::read_dir(&path).map_err(failed)?.take(VOLUMES_MAX) {
            let Ok(entry) = entry else { continue };
            // What cannot be read is no volume; it must not hide the others.
            if let Ok(volume) = Volume::open(&self.name, &entry.path()) {
                volumes.insert(volume.name.clone(), volume);
            }
        }
        let space = rustix::fs::statvfs(&path).map_err(|error| failed(error.into()))?;
        let capacity = space.f_frsize.saturating_mul(space.f_blocks);
        let available = space.f_frsize.saturating_mul(space.f_bavail);
        let info = PoolInfo { capacity, allocation: capacity - available.min(capacity), available };
        Ok((volumes, info))
    }
}

fn sort(document: &mut Element) {
    document.children.sort_by_key(|node| match node {
        Node::Element(element) => {
            ORDER.iter().position(|name| *name == element.name).unwrap_or(ORDER.len())
        }
        Node::Text(_) => 0,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_get_a_uuid_and_keep_their_path() {
        let pool = Pool::parse(
            "<pool type='dir'><target><path>/x/y/</path></target><name>a</name></pool>",
        );
        let pool = pool.unwrap();
        assert_eq!(pool.path, Some(PathBuf::from("/x/y")));
        let text = pool.document().to_xml();
        assert!(text.starts_with("<pool type='dir'>\n  <name>a</name>\n  <uuid>"), "{text}");
        assert!(text.contains("<capacity unit='bytes'>0</capacity>"), "{text}");
    }

    #[test]
    fn refusals_have_libvirts_texts() {
        for (text, message) in [
            ("<x/>", "XML error: unexpected root element <x>, expecting <pool>"),
            ("<pool type='odd'/>", "XML error: unknown storage pool type odd"),
            ("<pool type='dir'/>", "XML error: missing pool source name element"),
            (
                "<pool type='dir'><name>a</name></pool>",
                "XML error: missing storage pool target path",
            ),
            (
                "<pool type='dir'><name>../a</name></pool>",
                "XML error: name ../a cannot contain '/'",
            ),
        ] {
            assert_eq!(Pool::parse(text).err().unwrap().message(), message);
        }
    }
}
