//! Storage pools and their volumes. Directory pools on the host; in a world in memory any kind.

mod chain;
mod images;
mod pool;
mod volume;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libvirt_compat::event::Event;
use libvirt_compat::rpc::types;
use libvirt_compat::xml::{self, Element};
use libvirt_compat::{Code, Error, Origin, Result, Uuid};
use parking_lot::RwLock;

pub use chain::{chain, create as create_image, merge as merge_image};
pub use images::{Format, ImageTool, QemuImg, probe};
pub use pool::{Pool, PoolInfo};
pub use volume::Volume;

use crate::files::{definitions, make_private_directory, remove, set_aside, write_atomically};
use crate::world::World;

/// Where volumes really are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// Nowhere: a volume is its document.
    Memory,
    /// Files of the host.
    Host,
}

/// Pools in one world, as many as a list may hold.
const POOLS_MAX: usize = 16_384;

mod event {
    pub const DEFINED: i32 = 0;
    pub const UNDEFINED: i32 = 1;
    pub const STARTED: i32 = 2;
    pub const STOPPED: i32 = 3;
    pub const CREATED: i32 = 4;
    pub const DELETED: i32 = 5;
}

/// The table of pools.
pub struct Pools {
    table: RwLock<BTreeMap<String, Pool>>,
    backend: Backend,
    tool: Arc<dyn ImageTool>,
}

fn not_found(text: String) -> Error {
    Error::new(Code::NoStoragePool, text).from(Origin::Storage)
}

impl Pools {
    pub fn new(backend: Backend) -> Self {
        Self { table: RwLock::default(), backend, tool: Arc::new(QemuImg) }
    }

    pub fn all(&self) -> Vec<Pool> {
        self.table.read().values().cloned().collect()
    }

    pub fn by_name(&self, name: &str) -> Result<Pool> {
        self.table
            .read()
            .get(name)
            .cloned()
            .ok_or_else(|| not_found(format!("no storage pool with matching name '{name}'")))
    }

    pub fn by_uuid(&self, uuid: Uuid) -> Result<Pool> {
        let table = self.table.read();
        table
            .values()
            .find(|pool| pool.uuid == uuid)
            .cloned()
            .ok_or_else(|| not_found(format!("no storage pool with matching uuid '{uuid}'")))
    }

    /// The pool a client refers to; libvirt looks it up by UUID.
    pub fn find(&self, reference: &types::StoragePool) -> Result<Pool> {
        let table = self.table.read();
        table.values().find(|pool| pool.uuid == reference.uuid).cloned().ok_or_else(|| {
            let types::StoragePool { uuid, name } = reference;
            not_found(format!("no storage pool with matching uuid '{uuid}' ({name})"))
        })
    }

    /// The active pool whose directory this is.
    pub fn by_target(&self, path: &str) -> Option<Pool> {
        self.all().into_iter().find(|pool| {
            pool.active && pool.path.as_deref().is_some_and(|own| own == Path::new(path))
        })
    }

    /// The pool and volume behind a path or key.
    pub fn volume_by_path(&self, path: &str) -> Option<(Pool, Volume)> {
        self.all().into_iter().filter(|pool| pool.active).find_map(|pool| {
            let volume = pool.volumes.values().find(|volume| volume.path == path).cloned()?;
            Some((pool, volume))
        })
    }

    /// The volume a client refers to.
    pub fn find_volume(&self, reference: &types::StorageVol) -> Result<(Pool, Volume)> {
        let pool = self.by_name(&reference.pool)?;
        pool.require_active()?;
        let volume = pool.volume(&reference.name)?;
        Ok((pool, volume))
    }

    fn change<R>(&self, name: &str, change: impl FnOnce(&mut Pool) -> R) -> Result<R> {
        match self.table.write().get_mut(name) {
            Some(pool) => Ok(change(pool)),
            None => Err(not_found(format!("no storage pool with matching name '{name}'"))),
        }
    }

    /// Stores a definition, or starts a pool without storing it.
    pub fn define(&self, world: &World, text: &str, transient: bool) -> Result<Pool> {
        let mut pool = Pool::parse(text)?;
        if self.backend == Backend::Memory {
            pool.imaginary = true;
            pool.account();
        }
        if self.backend == Backend::Host && pool.kind != "dir" {
            let text = format!("missing backend for pool type '{}'", pool.kind);
            return Err(Error::new(Code::InternalError, text));
        }
        {
            let mut table = self.table.write();
            let other = table.values().find(|other| other.uuid == pool.uuid);
            if let Some(other) = other.filter(|other| other.name != pool.name) {
                let (name, uuid) = (&other.name, pool.uuid);
                let text = format!("pool '{name}' is already defined with uuid {uuid}");
                return Err(Error::new(Code::OperationFailed, text));
            }
            if let Some(known) = table.get(&pool.name) {
                if known.uuid != pool.uuid {
                    let text =
                        format!("pool '{}' already exists with uuid {}", pool.name, known.uuid);
                    return Err(Error::new(Code::OperationFailed, text));
                }
                if transient && known.active {
                    let text = format!("pool '{}' is already active", pool.name);
                    return Err(Error::new(Code::OperationInvalid, text));
                }
                pool.active = known.active;
                pool.autostart = known.autostart;
                pool.volumes = known.volumes.clone();
                pool.info = known.info;
                pool.persistent = known.persistent;
            } else if table.len() >= POOLS_MAX {
                return Err(Error::new(Code::OperationFailed, "too many storage pools"));
            }
            pool.persistent |= !transient;
            table.insert(pool.name.clone(), pool.clone());
        }
        if transient {
            if let Err(error) = self.start(world, &pool) {
                self.table.write().remove(&pool.name);
                return Err(error);
            }
        } else {
            write(world, &pool)?;
            emit(world, &pool, event::DEFINED);
        }
        Ok(pool)
    }

    /// Makes the pool usable and reads what is in it.
    pub fn start(&self, world: &World, pool: &Pool) -> Result<()> {
        if pool.active {
            let text = format!("storage pool '{}' is already active", pool.name);
            return Err(Error::new(Code::OperationInvalid, text));
        }
        self.read(pool)?;
        self.change(&pool.name, |pool| pool.active = true)?;
        emit(world, pool, event::STARTED);
        Ok(())
    }

    /// Reads a pool's volumes again.
    pub fn refresh(&self, world: &World, pool: &Pool) -> Result<()> {
        pool.require_active()?;
        self.read(pool)?;
        world.events.emit(&Event::PoolRefresh(pool.reference()));
        Ok(())
    }

    fn read(&self, pool: &Pool) -> Result<()> {
        if self.backend == Backend::Memory {
            return self.change(&pool.name, Pool::account);
        }
        let (volumes, info) = pool.scan()?;
        self.change(&pool.name, |pool| {
            pool.volumes = volumes;
            pool.info = info;
        })
    }

    pub fn stop(&self, world: &World, pool: &Pool) -> Result<()> {
        pool.require_active()?;
        self.change(&pool.name, |pool| {
            pool.active = false;
            if self.backend == Backend::Host {
                pool.volumes.clear();
                pool.info = PoolInfo::default();
            }
        })?;
        if !pool.persistent {
            self.table.write().remove(&pool.name);
        }
        emit(world, pool, event::STOPPED);
        Ok(())
    }

    pub fn undefine(&self, world: &World, pool: &Pool) -> Result<()> {
        if pool.active {
            let text = format!("storage pool '{}' is still active", pool.name);
            return Err(Error::new(Code::OperationInvalid, text));
        }
        if let Some(folder) = folder(world) {
            remove(&folder.join(format!("{}.xml", pool.uuid)))?;
            remove(&folder.join(format!("{}.autostart", pool.uuid)))?;
        }
        self.table.write().remove(&pool.name);
        emit(world, pool, event::UNDEFINED);
        Ok(())
    }

    /// Makes the pool's directory.
    pub fn build(&self, world: &World, pool: &Pool) -> Result<()> {
        if pool.active {
            let text = format!("storage pool '{}' is already active", pool.name);
            return Err(Error::new(Code::OperationInvalid, text));
        }
        if let (Backend::Host, Some(path)) = (self.backend, &pool.path) {
            make_private_directory(path)?;
        }
        emit(world, pool, event::CREATED);
        Ok(())
    }

    /// Removes the pool's empty directory.
    pub fn delete(&self, world: &World, pool: &Pool) -> Result<()> {
        if pool.active {
            let text = format!("storage pool '{}' is still active", pool.name);
            return Err(Error::new(Code::OperationInvalid, text));
        }
        if let (Backend::Host, Some(path)) = (self.backend, &pool.path) {
            fs::remove_dir(path).map_err(|error| {
                crate::files::system(format!("failed to remove pool '{}'", path.display()), &error)
            })?;
        }
        emit(world, pool, event::DELETED);
        Ok(())
    }

    pub fn set_autostart(&self, world: &World, pool: &Pool, autostart: bool) -> Result<()> {
        if !pool.persistent {
            let text = "pool has no config file";
            return Err(Error::new(Code::InternalError, text));
        }
        if let Some(folder) = folder(world) {
            let path = folder.join(format!("{}.autostart", pool.uuid));
            if autostart { write_atomically(&path, b"")? } else { remove(&path)? }
        }
        self.change(&pool.name, |pool| pool.autostart = autostart)
    }

    /// Starts what is marked for it.
    pub fn autostart(&self, world: &World) {
        for pool in self.all() {
            if pool.autostart
                && !pool.active
                && let Err(error) = self.start(world, &pool)
            {
                eprintln!("warning: Cannot start the pool '{}': {error}", pool.name);
            }
        }
    }

    /// Reads all definitions.
    pub fn load(&self, world: &World) {
        let Some(folder) = folder(world) else { return };
        for (path, pool) in definitions(&folder, Pool::parse) {
            match pool {
                Ok(mut pool) => {
                    pool.persistent = true;
                    pool.autostart = path.with_extension("autostart").exists();
                    self.table.write().insert(pool.name.clone(), pool);
                }
                Err(error) => set_aside(&path, &error),
            }
        }
    }

    /// Makes a volume, empty or as a copy of another.
    pub fn create_volume(
        &self,
        pool: &Pool,
        text: &str,
        source: Option<&Volume>,
        preallocate: bool,
    ) -> Result<Volume> {
        pool.require_active()?;
        let mut volume = Volume::parse(text, pool)?;
        if pool.volumes.contains_key(&volume.name) {
            return Err(Error::new(Code::StorageVolExist, format!("'{}'", volume.name)));
        }
        if let (Some(source), Backend::Memory) = (source, self.backend) {
            pool.volume(&source.name)?; // the test world copies within a pool only
        }
        if let Some(source) = source {
            volume.capacity = volume.capacity.max(source.capacity);
        }
        if self.backend == Backend::Host {
            let path = PathBuf::from(&volume.path);
            if path.exists() {
                return Err(Error::new(Code::StorageVolExist, format!("'{}'", volume.name)));
            }
            let made = match source {
                Some(source) => self.tool.convert(source, &volume),
                None => self.tool.create(&volume, preallocate),
            };
            if let Err(error) = made {
                _ = fs::remove_file(&path);
                return Err(error);
            }
            volume = Volume::open(&pool.name, &path)?;
        }
        self.change(&pool.name, |pool| {
            pool.volumes.insert(volume.name.clone(), volume.clone());
            if self.backend == Backend::Memory {
                pool.account();
            }
        })?;
        Ok(volume)
    }

    /// Where pools of a kind could be made from, as `virStoragePoolSources`.
    pub fn sources(&self, kind: &str, given: Option<&str>) -> Result<String> {
        let mut document = Element::new("sources");
        let groups = match (self.backend, kind) {
            (Backend::Memory, "logical") => ["testvg1", "testvg2"]
                .iter()
                .zip(["/dev/sda20", "/dev/sda21"])
                .map(|(group, device)| ((*group).to_owned(), device.to_owned()))
                .collect(),
            (Backend::Memory, "netfs") => {
                let given =
                    given.map(|text| parse(text, "storage_source", "source")).transpose()?;
                let host = given.as_ref().and_then(|given| given.attribute_at("host", "name"));
                let Some(host) = host else {
                    let text = "hostname must be specified for netfs sources";
                    return Err(Error::new(Code::InvalidArg, text));
                };
                let source = Element::new("source")
                    .with_child(Element::new("host").with("name", host))
                    .with_child(Element::new("dir").with("path", "/testshare"))
                    .with_child(Element::new("format").with("type", "nfs"));
                document.push(source);
                Vec::new()
            }
            (Backend::Host, "logical") => images::volume_groups()?,
            _ => {
                let text = format!("pool type '{kind}' does not support source discovery");
                return Err(Error::new(Code::NoSupport, text));
            }
        };
        for (group, device) in groups {
            let source = Element::new("source")
                .with_child(Element::new("device").with("path", device))
                .with_child(Element::with_text("name", group))
                .with_child(Element::new("format").with("type", "lvm2"));
            document.push(source);
        }
        Ok(document.to_xml())
    }

    /// Notes a volume that a document describes, in a world in memory.
    pub fn adopt_volume(&self, pool: &Pool, text: &str) -> Result<()> {
        let volume = Volume::adopt(text, pool)?;
        self.change(&pool.name, |pool| {
            pool.volumes.insert(volume.name.clone(), volume);
            pool.account();
        })
    }

    pub fn delete_volume(&self, pool: &Pool, volume: &Volume) -> Result<()> {
        if self.backend == Backend::Host {
            fs::remove_file(&volume.path).map_err(|error| {
                crate::files::system(format!("cannot unlink file '{}'", volume.path), &error)
            })?;
        }
        self.change(&pool.name, |pool| {
            pool.volumes.remove(&volume.name);
            if self.backend == Backend::Memory {
                pool.account();
            }
        })
    }

    pub fn resize_volume(&self, pool: &Pool, volume: &Volume, capacity: u64) -> Result<()> {
        let mut resized = Volume { capacity, ..volume.clone() };
        if self.backend == Backend::Host {
            self.tool.resize(&resized)?;
            resized = Volume::open(&pool.name, Path::new(&volume.path))?;
        }
        self.change(&pool.name, |pool| {
            pool.volumes.insert(resized.name.clone(), resized);
        })
    }

    /// Reads a volume's sizes again, after an upload or by a guest that wrote.
    pub fn reread_volume(&self, pool: &Pool, volume: &Volume) -> Result<Volume> {
        if self.backend == Backend::Memory {
            return Ok(volume.clone());
        }
        let fresh = Volume::open(&pool.name, Path::new(&volume.path))?;
        self.change(&pool.name, |pool| pool.volumes.insert(fresh.name.clone(), fresh.clone()))?;
        Ok(fresh)
    }
}

fn emit(world: &World, pool: &Pool, kind: i32) {
    world.events.emit(&Event::Pool(pool.reference(), kind, 0));
}

fn folder(world: &World) -> Option<PathBuf> {
    Some(world.place.as_ref()?.state.join("pools"))
}

fn write(world: &World, pool: &Pool) -> Result<()> {
    let Some(folder) = folder(world) else { return Ok(()) };
    make_private_directory(&folder)?;
    let path = folder.join(format!("{}.xml", pool.uuid));
    write_atomically(&path, pool.definition.to_xml().as_bytes())
}

/// libvirt writes an empty source on two lines.
fn spread_source(document: &mut Element) {
    if let Some(source) = document.child_mut("source").filter(|source| source.children.is_empty()) {
        source.set_text("\n  ");
    }
}

/// A size as libvirt writes it.
fn bytes_element(name: &str, bytes: u64) -> Element {
    Element::with_text(name, bytes).with("unit", "bytes")
}

/// The size that an element states, in bytes.
fn bytes_of(element: &Element) -> Result<u64> {
    let text = element.text();
    let value = text
        .trim()
        .parse()
        .map_err(|_| Error::new(Code::XmlError, format!("malformed {} element", element.name)))?;
    libvirt_compat::domain::scaled_bytes(value, element.attribute("unit"), 1)
}

fn parse(text: &str, what: &str, root: &str) -> Result<Element> {
    let document = xml::parse(text, what)?;
    if document.name != root {
        let text = format!("unexpected root element <{}>, expecting <{root}>", document.name);
        return Err(Error::new(Code::XmlError, text).from(Origin::Storage));
    }
    Ok(document)
}
