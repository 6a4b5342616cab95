//! Defining, starting and stopping domains.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use libvirt_compat::constants::{lifecycle, state};
use libvirt_compat::event::DomainEvent;
use libvirt_compat::rpc::types::Domain;
use libvirt_compat::xml::{self, Element};
use libvirt_compat::{Code, Error, Result};

use super::{Call, check_flags};
use crate::agent;
use crate::domains::{self, StartOptions};
use crate::world::World;
use serde_json::json;

/// `VIR_DOMAIN_START_*`.
mod start_flags {
    pub const PAUSED: u32 = 1;
    pub const FORCE_BOOT: u32 = 16;
    /// Paused, autodestroy, bypass cache, force boot, validate, reset NVRAM.
    pub const KNOWN: u32 = 1 | 4 | 16 | 32;
}

pub fn domain_define_xml(call: &Call, text: String) -> Result<Domain> {
    domain_define_xml_flags(call, text, 0)
}

pub fn domain_define_xml_flags(call: &Call, text: String, flags: u32) -> Result<Domain> {
    check_flags(flags, 1, "qemuDomainDefineXMLFlags")?;
    Ok(domains::define(&call.world()?, &text)?.reference())
}

pub fn domain_create_xml(call: &Call, text: String, flags: u32) -> Result<Domain> {
    check_flags(flags, start_flags::KNOWN, "qemuDomainCreateXML")?;
    let paused = flags & start_flags::PAUSED != 0;
    Ok(domains::create(&call.world()?, &text, paused)?.reference())
}

pub fn domain_undefine(call: &Call, dom: Domain) -> Result<()> {
    domain_undefine_flags(call, dom, 0)
}

pub fn domain_undefine_flags(call: &Call, dom: Domain, flags: u32) -> Result<()> {
    check_flags(flags, 0x1ff, "qemuDomainUndefineFlags")?;
    let (world, domain) = call.domain(&dom)?;
    domains::undefine(&world, &domain, flags)
}

pub fn domain_create(call: &Call, dom: Domain) -> Result<()> {
    domain_create_with_flags(call, dom, 0).map(|_| ())
}

pub fn domain_create_with_flags(call: &Call, dom: Domain, flags: u32) -> Result<Domain> {
    check_flags(flags, start_flags::KNOWN, "qemuDomainCreateWithFlags")?;
    let (world, domain) = call.domain(&dom)?;
    let paused = flags & start_flags::PAUSED != 0;
    let saved = domain.state.lock().managed_save;
    if saved && !domain.is_active() {
        let path = managed_save_path(&world, &domain)?;
        if flags & start_flags::FORCE_BOOT == 0 {
            let (document, file, stays_paused) = open_saved(&path)?;
            domains::restore(&world, document, file.into(), paused || stays_paused)?;
        }
        _ = fs::remove_file(&path);
        domain.state.lock().managed_save = false;
        if flags & start_flags::FORCE_BOOT == 0 {
            return Ok(domain.reference());
        }
    }
    let options = StartOptions { paused, ..StartOptions::default() };
    domains::start(&world, &domain, options)?;
    Ok(domain.reference())
}

pub fn domain_destroy(call: &Call, dom: Domain) -> Result<()> {
    domain_destroy_flags(call, dom, 0)
}

pub fn domain_destroy_flags(call: &Call, dom: Domain, flags: u32) -> Result<()> {
    check_flags(flags, 1, "qemuDomainDestroyFlags")?;
    let (world, domain) = call.domain(&dom)?;
    domains::stop(&world, &domain, flags & 1 != 0)
}

pub fn domain_shutdown(call: &Call, dom: Domain) -> Result<()> {
    domain_shutdown_flags(call, dom, 0)
}

pub fn domain_shutdown_flags(call: &Call, dom: Domain, flags: u32) -> Result<()> {
    check_flags(flags, 0x1f, "qemuDomainShutdownFlags")?;
    let (_, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    match by_agent(&domain, flags)? {
        true => ask_to_leave(&domain, "powerdown"),
        false => domain.machine()?.shutdown(flags & POWER_BUTTON),
    }
}

pub fn domain_reboot(call: &Call, dom: Domain, flags: u32) -> Result<()> {
    check_flags(flags, 0x1f, "qemuDomainReboot")?;
    let (_, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    match by_agent(&domain, flags)? {
        true => ask_to_leave(&domain, "reboot"),
        false => domain.machine()?.reboot(flags & POWER_BUTTON),
    }
}

/// `VIR_DOMAIN_SHUTDOWN_*` and `VIR_DOMAIN_REBOOT_*`: the power button, the agent, and the rest.
const POWER_BUTTON: u32 = 1;
const AGENT: u32 = 2;
const OTHERS: u32 = 4 | 8 | 16;

/// Whether the agent is to be asked rather than the button pressed; it is preferred where there is
/// a choice and it is there.
fn by_agent(domain: &domains::Domain, flags: u32) -> Result<bool> {
    domain.machine()?;
    if flags & (POWER_BUTTON | AGENT) == 0 && flags & OTHERS != 0 {
        let text = "only the modes acpi and agent are supported";
        return Err(Error::new(Code::ArgumentUnsupported, text));
    }
    let agent_wanted = flags & AGENT != 0;
    let any = flags == 0 || agent_wanted && flags & POWER_BUTTON != 0;
    Ok(if any { agent::is_connected(domain) } else { agent_wanted })
}

fn ask_to_leave(domain: &domains::Domain, mode: &str) -> Result<()> {
    agent::ask(domain, "guest-shutdown", Some(json!({"mode": mode}))).map(|_| ())
}

pub fn domain_reset(call: &Call, dom: Domain, flags: u32) -> Result<()> {
    check_flags(flags, 0, "qemuDomainReset")?;
    let (_, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    domain.machine()?.reset()
}

pub fn domain_suspend(call: &Call, dom: Domain) -> Result<()> {
    let (world, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    let machine = domain.machine()?;
    if domain.state.lock().state.0 == state::PAUSED {
        return Ok(());
    }
    machine.suspend()?;
    domain.state.lock().state = (state::PAUSED, state::paused::USER);
    let event = DomainEvent::Lifecycle(lifecycle::SUSPENDED, lifecycle::suspended::PAUSED);
    domains::emit(&world, &domain, event);
    Ok(())
}

pub fn domain_resume(call: &Call, dom: Domain) -> Result<()> {
    let (world, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    let machine = domain.machine()?;
    if domain.state.lock().state.0 == state::RUNNING {
        let text = "domain is already running";
        return Err(Error::new(Code::OperationInvalid, text));
    }
    machine.resume()?;
    domain.state.lock().state = (state::RUNNING, state::running::UNPAUSED);
    let event = DomainEvent::Lifecycle(lifecycle::RESUMED, lifecycle::resumed::UNPAUSED);
    domains::emit(&world, &domain, event);
    Ok(())
}

pub fn domain_inject_nmi(call: &Call, dom: Domain, flags: u32) -> Result<()> {
    check_flags(flags, 0, "qemuDomainInjectNMI")?;
    let (_, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    domain.machine()?.inject_nmi()
}

pub fn domain_rename(call: &Call, dom: Domain, name: Option<String>, flags: u32) -> Result<i32> {
    check_flags(flags, 0, "qemuDomainRename")?;
    let (world, domain) = call.domain(&dom)?;
    let name = name.unwrap_or_default();
    let _job = domain.begin()?;
    if name.is_empty() || name.contains('/') {
        return Err(Error::new(Code::XmlError, format!("name {name} cannot contain '/'")));
    }
    if domain.is_active() {
        return Err(Error::new(Code::OperationInvalid, "cannot rename active domain"));
    }
    let old = domain.name();
    world.domains.rename(&domain, &name)?;
    let changed = domains::change_definition(&world, &domain, |document| {
        document.ensure("name").set_text(&name);
        Ok(())
    });
    if let Err(error) = changed {
        world.domains.rename(&domain, &old)?;
        return Err(error);
    }
    for (kind, detail) in [
        (lifecycle::UNDEFINED, lifecycle::undefined::RENAMED),
        (lifecycle::DEFINED, lifecycle::defined::RENAMED),
    ] {
        domains::emit(&world, &domain, DomainEvent::Lifecycle(kind, detail));
    }
    Ok(0)
}

/// The head of a saved domain: a mark, the document's length, the document; then QEMU's stream.
const SAVED_MARK: &[u8; 16] = b"HostelSavedVM\0\0\x01";
/// The place in the mark that says how it goes on: 1 is paused.
const SAVED_STATE: usize = 14;
/// No document is longer.
const SAVED_DOCUMENT_BYTES_MAX: u64 = 4 << 20;

fn create_saved(path: &Path, document: &Element, paused: bool) -> Result<File> {
    let failed =
        |error| crate::files::system(format!("Failed to create file '{}'", path.display()), &error);
    let text = document.to_xml();
    let mut file = OpenOptions::new()
        .write(true)
        .read(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let mut mark = *SAVED_MARK;
    mark[SAVED_STATE] = u8::from(paused);
    file.write_all(&mark).map_err(failed)?;
    file.write_all(&(text.len() as u64).to_le_bytes()).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(file)
}

/// The document of a saved domain, the file where the machine's state begins, and whether it stays
/// paused.
fn open_saved(path: &Path) -> Result<(Element, File, bool)> {
    let failed =
        |error| crate::files::system(format!("Failed to open file '{}'", path.display()), &error);
    let bad = |text: &str| Error::new(Code::OperationFailed, text.to_owned());
    let mut file = File::open(path).map_err(failed)?;
    let mut mark = [0; 16];
    let mut length = [0; 8];
    let whole = file.read_exact(&mut mark).and_then(|()| file.read_exact(&mut length));
    if whole.is_err() {
        return Err(bad("failed to read qemu header"));
    }
    let paused = std::mem::take(&mut mark[SAVED_STATE]) == 1;
    if mark != *SAVED_MARK {
        return Err(bad("image magic is incorrect"));
    }
    let length = u64::from_le_bytes(length);
    if length > SAVED_DOCUMENT_BYTES_MAX {
        return Err(bad("invalid header data length"));
    }
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text).map_err(failed)?;
    let text = String::from_utf8(text).map_err(|_| bad("failed to parse domain XML"))?;
    Ok((xml::parse(&text, "domain_definition")?, file, paused))
}

/// `VIR_DOMAIN_SAVE_RUNNING` and `VIR_DOMAIN_SAVE_PAUSED`.
const SAVE_RUNNING: u32 = 2;
const SAVE_PAUSED: u32 = 4;

/// How a domain goes on by a client's flags, or as it was.
fn goes_on_paused(flags: u32, was: bool) -> Result<bool> {
    match (flags & SAVE_RUNNING != 0, flags & SAVE_PAUSED != 0) {
        (true, true) => {
            let text = "running and paused flags are mutually exclusive";
            Err(Error::new(Code::InvalidArg, text))
        }
        (false, false) => Ok(was),
        (_, paused) => Ok(paused),
    }
}

/// Another document for the same domain.
fn other_document(world: &World, text: &str, own: &Element) -> Result<Element> {
    let document = world.driver.complete(text)?;
    for name in ["name", "uuid"] {
        let (given, own) = (document.text_at(name), own.text_at(name));
        if given != own {
            let (given, own) = (given.unwrap_or_default(), own.unwrap_or_default());
            let text = format!("Target domain {name} {given} does not match source {own}");
            return Err(Error::new(Code::ConfigUnsupported, text));
        }
    }
    Ok(document)
}

fn save_to(
    world: &Arc<World>,
    domain: &Arc<domains::Domain>,
    path: &Path,
    text: Option<&str>,
    flags: u32,
) -> Result<()> {
    let _job = domain.begin()?;
    domain.machine()?;
    let was_paused = domain.state.lock().state.0 == state::PAUSED;
    let paused = goes_on_paused(flags, was_paused)?;
    let mut document = domains::without_live_parts(domain.document()?);
    if let Some(text) = text {
        document = other_document(world, text, &document)?;
    }
    let file = create_saved(path, &document, paused)?;
    let saved = domains::save(world, domain, file.into());
    if saved.is_err() {
        _ = fs::remove_file(path);
    }
    saved
}

pub fn domain_save(call: &Call, dom: Domain, to: String) -> Result<()> {
    domain_save_flags(call, dom, to, None, 0)
}

pub fn domain_save_flags(
    call: &Call,
    dom: Domain,
    to: String,
    document: Option<String>,
    flags: u32,
) -> Result<()> {
    check_flags(flags, SAVE_RUNNING | SAVE_PAUSED, "qemuDomainSaveFlags")?;
    let (world, domain) = call.domain(&dom)?;
    save_to(&world, &domain, Path::new(&to), document.as_deref(), flags)
}

pub fn domain_restore(call: &Call, from: String) -> Result<()> {
    domain_restore_flags(call, from, None, 0)
}

pub fn domain_restore_flags(
    call: &Call,
    from: String,
    document: Option<String>,
    flags: u32,
) -> Result<()> {
    // Running (2) and paused (4).
    check_flags(flags, 2 | 4, "qemuDomainRestoreFlags")?;
    let world = call.world()?;
    let (mut saved, file, paused) = open_saved(Path::new(&from))?;
    if let Some(text) = document {
        saved = other_document(&world, &text, &saved)?;
    }
    domains::restore(&world, saved, file.into(), goes_on_paused(flags, paused)?)?;
    Ok(())
}

pub fn domain_save_image_get_xml_desc(call: &Call, file: String, _flags: u32) -> Result<String> {
    call.world()?;
    Ok(open_saved(Path::new(&file))?.0.to_xml())
}

pub fn domain_save_image_define_xml(
    call: &Call,
    file: String,
    text: String,
    flags: u32,
) -> Result<()> {
    check_flags(flags, SAVE_RUNNING | SAVE_PAUSED, "qemuDomainSaveImageDefineXML")?;
    redefine_saved(&*call.world()?, Path::new(&file), &text, flags)
}

/// Replaces the document of a saved domain; the machine's state stays as it is.
fn redefine_saved(world: &World, path: &Path, text: &str, flags: u32) -> Result<()> {
    let (saved, mut state, paused) = open_saved(path)?;
    let document = other_document(world, text, &saved)?;
    let new = path.with_extension("new");
    let failed =
        |error| crate::files::system(format!("failed to write '{}'", path.display()), &error);
    let mut file = create_saved(&new, &document, goes_on_paused(flags, paused)?)?;
    let copied = std::io::copy(&mut state, &mut file).and_then(|_| file.sync_data());
    if let Err(error) = copied.and_then(|()| fs::rename(&new, path)) {
        _ = fs::remove_file(&new);
        return Err(failed(error));
    }
    Ok(())
}

pub fn domain_managed_save_define_xml(
    call: &Call,
    dom: Domain,
    text: Option<String>,
    flags: u32,
) -> Result<()> {
    check_flags(flags, SAVE_RUNNING | SAVE_PAUSED, "qemuDomainManagedSaveDefineXML")?;
    let (world, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    if !domain.state.lock().managed_save {
        let text = "domain does not have managed save image";
        return Err(Error::new(Code::OperationInvalid, text));
    }
    let path = managed_save_path(&world, &domain)?;
    redefine_saved(&world, &path, &text.unwrap_or_default(), flags)
}

fn managed_save_path(world: &World, domain: &domains::Domain) -> Result<std::path::PathBuf> {
    domains::managed_save_path(world, domain.uuid)
        .ok_or_else(|| crate::drivers::unsupported("virDomainManagedSave"))
}

pub fn domain_managed_save(call: &Call, dom: Domain, flags: u32) -> Result<()> {
    check_flags(flags, SAVE_RUNNING | SAVE_PAUSED, "qemuDomainManagedSave")?;
    let (world, domain) = call.domain(&dom)?;
    domain.machine()?;
    if !domain.is_persistent() {
        let text = "cannot do managed save for transient domain";
        return Err(Error::new(Code::OperationInvalid, text));
    }
    save_to(&world, &domain, &managed_save_path(&world, &domain)?, None, flags)?;
    domain.state.lock().managed_save = true;
    Ok(())
}

pub fn domain_has_managed_save_image(call: &Call, dom: Domain, _flags: u32) -> Result<i32> {
    let (_, domain) = call.domain(&dom)?;
    let state = domain.state.lock();
    Ok(i32::from(state.managed_save))
}

pub fn domain_managed_save_remove(call: &Call, dom: Domain, _flags: u32) -> Result<()> {
    let (world, domain) = call.domain(&dom)?;
    crate::files::remove(&managed_save_path(&world, &domain)?)?;
    domain.state.lock().managed_save = false;
    Ok(())
}

pub fn domain_managed_save_get_xml_desc(call: &Call, dom: Domain, _flags: u32) -> Result<String> {
    let (world, domain) = call.domain(&dom)?;
    if !domain.state.lock().managed_save {
        let text = "domain does not have managed save image";
        return Err(Error::new(Code::OperationInvalid, text));
    }
    Ok(open_saved(&managed_save_path(&world, &domain)?)?.0.to_xml())
}

pub fn domain_core_dump(call: &Call, dom: Domain, to: String, flags: u32) -> Result<()> {
    domain_core_dump_with_format(call, dom, to, 0, flags)
}

/// `VIR_DUMP_*`.
mod dump_flags {
    pub const CRASH: u32 = 1;
    pub const LIVE: u32 = 2;
    pub const RESET: u32 = 8;
    pub const MEMORY_ONLY: u32 = 16;
}

pub fn domain_core_dump_with_format(
    call: &Call,
    dom: Domain,
    to: String,
    format: u32,
    flags: u32,
) -> Result<()> {
    use dump_flags::{CRASH, LIVE, MEMORY_ONLY, RESET};
    check_flags(flags, CRASH | LIVE | RESET | MEMORY_ONLY, "qemuDomainCoreDumpWithFormat")?;
    if format != 0 {
        let text = "compressed formats of a dump are not supported";
        return Err(Error::new(Code::ArgumentUnsupported, text));
    }
    let (world, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    let machine = domain.machine()?;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&to);
    let file = file
        .map_err(|error| crate::files::system(format!("Failed to create file '{to}'"), &error))?;
    let runs = domain.state.lock().state.0 == state::RUNNING;
    if runs && flags & LIVE == 0 {
        machine.suspend()?;
    }
    let dumped = machine.dump(file.into(), flags & MEMORY_ONLY != 0);
    if runs && flags & (LIVE | CRASH) == 0 {
        machine.resume()?;
    }
    dumped?;
    if flags & RESET != 0 {
        machine.reset()?;
    }
    drop(_job);
    if flags & CRASH != 0 {
        domains::stop(&world, &domain, false)?;
    }
    Ok(())
}

pub fn domain_set_autostart(call: &Call, dom: Domain, autostart: i32) -> Result<()> {
    let (world, domain) = call.domain(&dom)?;
    if !domain.is_persistent() {
        let text = "cannot set autostart for transient domain";
        return Err(Error::new(Code::OperationInvalid, text));
    }
    domains::write_autostart(&world, &domain, autostart != 0)?;
    domain.state.lock().autostart = autostart != 0;
    Ok(())
}
