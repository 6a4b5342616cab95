//! One volume: a file, and what its document says of it.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use libvirt_compat::rpc::types;
use libvirt_compat::xml::{Element, Node};
use libvirt_compat::{Code, Error, Origin, Result};

use super::{Format, Pool, bytes_element, bytes_of, parse, probe};

/// A storage volume.
#[derive(Clone, Debug)]
pub struct Volume {
    pub pool: String,
    pub name: String,
    pub path: String,
    pub(super) key: Option<String>,
    pub format: Format,
    pub capacity: u64,
    pub allocation: u64,
    /// The file size, where it differs.
    pub physical: u64,
    pub backing: Option<(String, Option<Format>)>,
    /// What a client asked for, of a volume in memory.
    pub given: Option<Element>,
}

fn problem(text: impl Into<String>) -> Error {
    Error::new(Code::XmlError, text).from(Origin::Storage)
}

impl Volume {
    /// Parses the document of a volume to be made.
    pub fn parse(text: &str, pool: &Pool) -> Result<Self> {
        let mut document = parse(text, "storage_volume_definition", "volume")?;
        let name = document.text_at("name").filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| problem("missing volume name element"))?;
        if name.contains('/') || matches!(name.as_str(), "." | "..") {
            return Err(problem(format!("volume name '{name}' cannot contain '/'")));
        }
        let backing = match document.text_at("backingStore/path").filter(|path| !path.is_empty()) {
            None => None,
            Some(path) => {
                let format = document.attribute_at("backingStore/format", "type");
                Some((path, format.map(Format::parse).transpose()?))
            }
        };
        let size = |name| document.child(name).map(bytes_of).transpose();
        let capacity = match (size("capacity")?, &backing) {
            (Some(capacity), _) => capacity,
            (None, Some((path, _))) => probe(Path::new(path))?.capacity,
            (None, None) => return Err(problem("missing capacity element")),
        };
        let allocation = size("allocation")?.unwrap_or(capacity);
        let format = Format::of_volume(&pool.kind, document.attribute_at("target/format", "type"))?;
        let folder = pool.path.clone().unwrap_or_else(|| "/".into());
        let path = folder.join(&name).to_string_lossy().into_owned();
        document.set_default("type", "file");
        Ok(Self {
            pool: pool.name.clone(),
            name,
            path,
            key: None,
            format,
            capacity,
            allocation,
            physical: allocation,
            backing,
            given: Some(document),
        })
    }

    /// Parses a volume that exists already, in a world in memory.
    pub fn adopt(text: &str, pool: &Pool) -> Result<Self> {
        let mut volume = Self::parse(text, pool)?;
        let given = volume.given.as_ref();
        let said = |name: &str| given?.text_at(name).filter(|text| !text.is_empty());
        let (path, key) = (said("target/path"), said("key"));
        volume.path = path.unwrap_or(volume.path);
        volume.key = key;
        Ok(volume)
    }

    /// Looks at a file.
    pub fn open(pool: &str, path: &Path) -> Result<Self> {
        let failed =
            |error| crate::files::system(format!("cannot stat file '{}'", path.display()), &error);
        let metadata = fs::metadata(path).map_err(failed)?;
        let kind = metadata.file_type();
        if !kind.is_file() && !kind.is_block_device() && !kind.is_dir() {
            return Err(problem("not a volume"));
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| problem("missing volume name element"))?;
        let found = if kind.is_dir() { super::images::Probed::directory() } else { probe(path)? };
        Ok(Self {
            pool: pool.to_owned(),
            name,
            path: path.to_string_lossy().into_owned(),
            key: None,
            format: found.format,
            capacity: found.capacity,
            allocation: metadata.blocks() * 512,
            physical: metadata.len(),
            backing: found.backing,
            given: None,
        })
    }

    /// How clients refer to it.
    pub fn reference(&self) -> types::StorageVol {
        types::StorageVol {
            pool: self.pool.clone(),
            name: self.name.clone(),
            key: self.key().to_owned(),
        }
    }

    /// What is unique to it on this host: the path, where no document says something else.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or(&self.path)
    }

    /// `virStorageVolType`.
    pub fn kind(&self) -> i32 {
        if self.format == Format::DIRECTORY { 2 } else { 0 }
    }

    /// The document, in libvirt's order.
    pub fn document(&self) -> Element {
        let given = self.given.as_ref().and_then(|given| given.attribute("type"));
        let kind = given.unwrap_or(if self.kind() == 2 { "dir" } else { "file" });
        let mut document = Element::new("volume").with("type", kind);
        document.push(Element::with_text("name", &self.name));
        document.push(Element::with_text("key", self.key()));
        if self.given.is_none() {
            document.push(Element::new("source"));
        }
        document.push(bytes_element("capacity", self.capacity));
        document.push(bytes_element("allocation", self.allocation));
        if self.given.is_none() && self.kind() == 0 {
            document.push(bytes_element("physical", self.physical));
        }
        let mut target =
            Element::with_child(Element::new("target"), Element::with_text("path", &self.path));
        if self.format != Format::ABSENT {
            target.push(Element::new("format").with("type", self.format.name()));
        }
        let metadata = fs::metadata(&self.path);
        if let (Ok(metadata), None) = (&metadata, &self.given) {
            target.push(permissions(metadata));
            target.push(timestamps(metadata));
        }
        let given = self.given.as_ref().and_then(|given| given.at("target/permissions"));
        target.children.extend(given.cloned().map(Node::Element));
        document.push(target);
        if let Some((path, format)) = &self.backing {
            let mut backing = Element::new("backingStore");
            backing.push(Element::with_text("path", path));
            if let Some(format) = format {
                backing.push(Element::new("format").with("type", format.name()));
            }
            document.push(backing);
        }
        super::spread_source(&mut document);
        document
    }
}

/// `<permissions>` of a file.
pub(super) fn permissions(metadata: &Metadata) -> Element {
    Element::new("permissions")
        .with_child(Element::with_text("mode", format!("0{:o}", metadata.mode() & 0o7777)))
        .with_child(Element::with_text("owner", metadata.uid()))
        .with_child(Element::with_text("group", metadata.gid()))
}

fn timestamps(metadata: &Metadata) -> Element {
    let time = |name, seconds: i64, ns: i64| {
        Element::with_text(
            name,
            format!("{seconds}.{ns:09}").trim_end_matches('0').trim_end_matches('.'),
        )
    };
    Element::new("timestamps")
        .with_child(time("atime", metadata.atime(), metadata.atime_nsec()))
        .with_child(time("mtime", metadata.mtime(), metadata.mtime_nsec()))
        .with_child(time("ctime", metadata.ctime(), metadata.ctime_nsec()))
}
