//! What is kept on disk: one directory per domain, every file whole or absent.
//!
//! - `STATE/domains/UUID/domain.xml`: the definition; `autostart`: an empty file;
//! - `STATE/domains/UUID/snapshots/NAME.xml`; `STATE/domains/UUID/checkpoints/NAME.xml`; `STATE/domains/UUID/managed.save`;
//! - `RUNTIME/domains/UUID/status.xml`: the live document and how to reach the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libvirt_compat::constants::{lifecycle, state};
use libvirt_compat::domain::Summary;
use libvirt_compat::xml::{self, Element};
use libvirt_compat::{Code, Error, Result, Uuid};

use super::lifecycle::{finish, new_run, reporter};
use super::{Domain, Live};
use crate::files::{make_private_directory, remove, set_aside, write_atomically};
use crate::world::World;

fn directory(world: &World, uuid: Uuid) -> Option<PathBuf> {
    Some(world.place.as_ref()?.state.join("domains").join(uuid.to_string()))
}

/// The file of a managed save.
pub fn managed_save_path(world: &World, uuid: Uuid) -> Option<PathBuf> {
    Some(directory(world, uuid)?.join("managed.save"))
}

fn status_path(world: &World, uuid: Uuid) -> Option<PathBuf> {
    Some(world.place.as_ref()?.runtime.join("domains").join(uuid.to_string()).join("status.xml"))
}

pub(super) fn write_definition(world: &World, domain: &Domain, text: &str) -> Result<()> {
    let Some(directory) = directory(world, domain.uuid) else { return Ok(()) };
    make_private_directory(&directory)?;
    write_atomically(&directory.join("domain.xml"), text.as_bytes())
}

pub(super) fn remove_definition(world: &World, domain: &Domain) -> Result<()> {
    let Some(directory) = directory(world, domain.uuid) else { return Ok(()) };
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(crate::files::system(format!("cannot remove '{}'", directory.display()), &error))
        }
        _ => Ok(()),
    }
}

/// Marks a domain to be started with the host.
pub fn write_autostart(world: &World, domain: &Domain, autostart: bool) -> Result<()> {
    let Some(directory) = directory(world, domain.uuid) else { return Ok(()) };
    let path = directory.join("autostart");
    if autostart { write_atomically(&path, b"") } else { remove(&path) }
}

pub(super) fn write_snapshot(world: &World, domain: &Domain, name: &str, text: &str) -> Result<()> {
    let Some(directory) = directory(world, domain.uuid) else { return Ok(()) };
    let directory = directory.join("snapshots");
    make_private_directory(&directory)?;
    write_atomically(&directory.join(format!("{name}.xml")), text.as_bytes())
}

pub(super) fn remove_snapshot(world: &World, domain: &Domain, name: &str) -> Result<()> {
    let Some(directory) = directory(world, domain.uuid) else { return Ok(()) };
    remove(&directory.join("snapshots").join(format!("{name}.xml")))
}

pub(super) fn write_checkpoint(
    world: &World,
    domain: &Domain,
    name: &str,
    text: &str,
) -> Result<()> {
    let Some(directory) = directory(world, domain.uuid) else { return Ok(()) };
    let directory = directory.join("checkpoints");
    make_private_directory(&directory)?;
    write_atomically(&directory.join(format!("{name}.xml")), text.as_bytes())
}

pub(super) fn remove_checkpoint(world: &World, domain: &Domain, name: &str) -> Result<()> {
    let Some(directory) = directory(world, domain.uuid) else { return Ok(()) };
    remove(&directory.join("checkpoints").join(format!("{name}.xml")))
}

/// Writes what another daemon needs to adopt the running domain.
pub(super) fn write_status(world: &World, domain: &Domain) -> Result<()> {
    let Some(path) = status_path(world, domain.uuid) else { return Ok(()) };
    let status = {
        let state = domain.state.lock();
        let Some(live) = &state.live else { return Ok(()) };
        let mut status = Element::new("domstatus").with("id", state.id);
        live.machine.status(&mut status);
        status.with_child(live.document.clone())
    };
    make_private_directory(path.parent().expect("the path has a directory"))?;
    write_atomically(&path, status.to_xml().as_bytes())
}

/// The same where nobody waits for the answer.
pub(super) fn try_write_status(world: &World, domain: &Domain) {
    if let Err(error) = write_status(world, domain) {
        eprintln!("warning: Cannot note the state of '{}': {error}", domain.name());
    }
}

pub(super) fn remove_status(world: &World, domain: &Domain) {
    if let Some(path) = status_path(world, domain.uuid)
        && let Some(directory) = path.parent()
    {
        _ = fs::remove_dir_all(directory);
    }
}

/// Reads all definitions, and adopts what runs. What cannot be read is set aside.
pub fn load(world: &Arc<World>) {
    let Some(place) = &world.place else { return };
    for directory in folders(&place.state.join("domains")) {
        let path = directory.join("domain.xml");
        if path.exists()
            && let Err(error) = load_definition(world, &directory)
        {
            set_aside(&path, &error);
        }
    }
    for directory in folders(&place.runtime.join("domains")) {
        let path = directory.join("status.xml");
        if !path.exists() {
            // A start that failed, or in whose middle the daemon was killed, leaves nothing worth
            // keeping; its emulator would hold the disk.
            if let Some(uuid) = directory.file_name().and_then(|name| name.to_str()) {
                world.driver.put_down(uuid);
            }
            _ = fs::remove_dir_all(&directory);
            continue;
        }
        if let Err(error) = adopt(world, &path) {
            eprintln!("warning: A domain that ran is not taken over: {error}");
            _ = fs::remove_dir_all(&directory);
        }
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| {
        crate::files::system(format!("Failed to read file '{}'", path.display()), &error)
    })
}

fn load_definition(world: &Arc<World>, directory: &Path) -> Result<()> {
    let text = read(&directory.join("domain.xml"))?;
    let document = xml::parse(&text, "domain_definition")?;
    let broken = || Error::new(Code::InternalError, "the definition has no name or UUID");
    let name = document.child("name").map(Element::text).ok_or_else(broken)?;
    let uuid = document.text_at("uuid").and_then(|text| Uuid::parse(&text)).ok_or_else(broken)?;
    let (domain, _) = world.domains.claim(&name, uuid)?;
    let mut state = domain.state.lock();
    state.summary = Summary::of(&document);
    state.definition = Some(text.into());
    state.autostart = directory.join("autostart").exists();
    state.managed_save = directory.join("managed.save").exists();
    drop(state);
    super::snapshots::load(&domain, &directory.join("snapshots"));
    super::checkpoints::load(&domain, &directory.join("checkpoints"));
    Ok(())
}

fn adopt(world: &Arc<World>, path: &Path) -> Result<()> {
    let status = xml::parse(&read(path)?, "domain status")?;
    let broken = || Error::new(Code::InternalError, "the status has no domain");
    let document = status.child("domain").ok_or_else(broken)?.clone();
    let name = document.child("name").map(Element::text).ok_or_else(broken)?;
    let uuid = document.text_at("uuid").and_then(|text| Uuid::parse(&text)).ok_or_else(broken)?;
    let id = status.attribute("id").and_then(|id| id.parse().ok()).ok_or_else(broken)?;
    let (domain, _) = world.domains.claim(&name, uuid)?;
    world.domains.reserve_id(id);
    let run = new_run();
    match world.driver.adopt(&status, reporter(world, uuid, run)) {
        Ok(adopted) => {
            let mut state = domain.state.lock();
            if state.definition.is_none() {
                state.summary = Summary::of(&document);
            }
            state.id = id;
            state.state = adopted.state;
            state.live = Some(Live { document, machine: adopted.machine, run });
            Ok(())
        }
        Err(error) => {
            // It ended while no daemon ran.
            let transient = {
                let mut state = domain.state.lock();
                state.state = (state::SHUTOFF, state::shutoff::DAEMON);
                state.definition.is_none()
            };
            if transient {
                world.domains.forget(&domain);
            }
            finish(world, &domain, run, state::shutoff::DAEMON, lifecycle::stopped::FAILED);
            Err(error)
        }
    }
}
