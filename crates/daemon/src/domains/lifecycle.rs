//! Defining, starting, stopping: what changes a domain's state, and who is told.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use libvirt_compat::constants::{lifecycle, state};
use libvirt_compat::domain::{Summary, arrange};
use libvirt_compat::event::{DomainEvent, Event};
use libvirt_compat::rpc::types::{TypedParameter, Value};
use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Result, Uuid};

use super::{Domain, Live, persist};
use crate::agent;
use crate::drivers::{Report, Reporter, Start};
use crate::world::World;

/// Tells clients what happened to a domain.
pub fn emit(world: &World, domain: &Domain, event: DomainEvent) {
    world.events.emit(&Event::Domain(domain.reference(), event));
}

fn identity(document: &Element) -> Result<(String, Uuid)> {
    let name = document.child("name").map(Element::text).unwrap_or_default();
    let uuid = document.text_at("uuid").and_then(|text| Uuid::parse(&text));
    let uuid = uuid.ok_or_else(|| Error::new(Code::InternalError, "malformed uuid element"))?;
    Ok((name, uuid))
}

/// Stores a definition: a new one, or another for a known domain.
pub fn define(world: &Arc<World>, text: &str) -> Result<Arc<Domain>> {
    let mut document = world.driver.complete(text)?;
    arrange(&mut document);
    let (name, uuid) = identity(&document)?;
    let (domain, new) = world.domains.claim(&name, uuid)?;
    let text: Arc<str> = document.to_xml().into();
    if let Err(error) = persist::write_definition(world, &domain, &text) {
        if new {
            world.domains.forget(&domain);
        }
        return Err(error);
    }
    let was_defined = {
        let mut state = domain.state.lock();
        state.summary = Summary::of(&document);
        state.updated = state.live.is_some();
        state.definition.replace(text).is_some()
    };
    let detail = if was_defined { lifecycle::defined::UPDATED } else { lifecycle::defined::ADDED };
    emit(world, &domain, DomainEvent::Lifecycle(lifecycle::DEFINED, detail));
    Ok(domain)
}

/// Flags of `virDomainUndefineFlags`.
mod undefine_flags {
    pub const MANAGED_SAVE: u32 = 1;
    pub const SNAPSHOTS_METADATA: u32 = 2;
    pub const NVRAM: u32 = 4;
    pub const KEEP_NVRAM: u32 = 8;
    pub const CHECKPOINTS_METADATA: u32 = 16;
}

/// Removes a definition; a running domain stays as a transient one.
pub fn undefine(world: &Arc<World>, domain: &Arc<Domain>, flags: u32) -> Result<()> {
    let _job = domain.begin()?;
    let checkpoints = domain.state.lock().checkpoints.len();
    let (active, saved, snapshots) = {
        let state = domain.state.lock();
        if state.definition.is_none() {
            return Err(Error::new(Code::OperationInvalid, "cannot undefine transient domain"));
        }
        (state.live.is_some(), state.managed_save, state.snapshots.len())
    };
    if !active && snapshots > 0 && flags & undefine_flags::SNAPSHOTS_METADATA == 0 {
        let text = format!("cannot delete inactive domain with {snapshots} snapshots");
        return Err(Error::new(Code::OperationInvalid, text));
    }
    if !active && checkpoints > 0 && flags & undefine_flags::CHECKPOINTS_METADATA == 0 {
        let text = format!("cannot delete inactive domain with {checkpoints} checkpoints");
        return Err(Error::new(Code::OperationInvalid, text));
    }
    if saved && flags & undefine_flags::MANAGED_SAVE == 0 {
        let text = "Refusing to undefine while domain managed save image exists";
        return Err(Error::new(Code::OperationInvalid, text));
    }
    if let Some(nvram) = domain.definition()?.text_at("os/nvram").map(PathBuf::from)
        && nvram.exists()
    {
        if flags & undefine_flags::NVRAM != 0 {
            crate::files::remove(&nvram)?;
        } else if flags & undefine_flags::KEEP_NVRAM == 0 && !active {
            let text = "cannot undefine domain with nvram";
            return Err(Error::new(Code::OperationInvalid, text));
        }
    }
    let reference = domain.reference();
    persist::remove_definition(world, domain)?;
    {
        let mut state = domain.state.lock();
        state.definition = None;
        state.autostart = false;
        state.managed_save = false;
    }
    if !active {
        world.domains.forget(domain);
    }
    let event = DomainEvent::Lifecycle(lifecycle::UNDEFINED, lifecycle::undefined::REMOVED);
    world.events.emit(&Event::Domain(reference, event));
    Ok(())
}

/// How a start differs from booting.
#[derive(Default)]
pub struct StartOptions {
    pub paused: bool,
    pub restore: Option<OwnedFd>,
    pub snapshot: Option<String>,
    /// Another document than the stored one.
    pub document: Option<Element>,
}

/// Starts a defined domain, from its managed save file if it has one.
pub fn start(world: &Arc<World>, domain: &Arc<Domain>, options: StartOptions) -> Result<()> {
    let _job = domain.begin()?;
    start_in_job(world, domain, options)
}

/// Starts a domain while its job is held.
pub fn start_in_job(world: &Arc<World>, domain: &Arc<Domain>, options: StartOptions) -> Result<()> {
    if domain.is_active() {
        return Err(Error::new(Code::OperationInvalid, "domain is already running"));
    }
    let mut document = match options.document {
        Some(document) => document,
        None => domain.definition()?,
    };
    let networks = networks_of(world, &document)?;
    for interface in document.ensure("devices").all_mut("interface") {
        note_bridge(world, interface);
    }
    let restored = options.restore.is_some();
    let from_snapshot = options.snapshot.is_some();
    let run = new_run();
    let id = world.domains.new_id();
    let mut started = world.driver.start(Start {
        document,
        uuid: domain.uuid,
        name: domain.name(),
        id,
        paused: options.paused,
        restore: options.restore,
        snapshot: options.snapshot,
        networks,
        reporter: reporter(world, domain.uuid, run),
    })?;
    arrange(&mut started.document);
    {
        let mut state = domain.state.lock();
        state.id = id;
        if state.definition.is_none() {
            state.summary = Summary::of(&started.document);
        }
        state.state = match (options.paused, restored, from_snapshot) {
            (true, true, _) => (state::PAUSED, state::paused::MIGRATION),
            (true, ..) => (state::PAUSED, state::paused::USER),
            (_, true, _) => (state::RUNNING, state::running::RESTORED),
            (_, _, true) => (state::RUNNING, state::running::FROM_SNAPSHOT),
            _ => (state::RUNNING, state::running::BOOTED),
        };
        state.updated = false;
        state.balloon_kib = None;
        state.live = Some(Live { document: started.document, machine: started.machine, run });
    }
    persist::write_status(world, domain)?;
    announce_start(world, domain, options.paused, restored, from_snapshot);
    Ok(())
}

/// The networks that a document's interfaces name; all have to be active.
fn networks_of(world: &World, document: &Element) -> Result<BTreeMap<String, Element>> {
    if world.networks.is_imaginary() {
        return Ok(BTreeMap::new()); // the test world's domains start without their networks
    }
    let devices = document.child("devices");
    let interfaces = devices.into_iter().flat_map(|devices| devices.all("interface"));
    let mut networks = BTreeMap::new();
    for name in interfaces.filter_map(|interface| interface.attribute_at("source", "network")) {
        let network = world.networks.by_name(name)?;
        if !network.is_active() {
            let text = format!("network '{name}' is not active");
            return Err(Error::new(Code::OperationInvalid, text));
        }
        networks.insert(name.to_owned(), network.document(false).clone());
    }
    Ok(networks)
}

/// Notes which bridge an interface on a network is plugged into.
pub(super) fn note_bridge(world: &World, interface: &mut Element) {
    let name = interface.attribute_at("source", "network").map(str::to_owned);
    if let Some(bridge) = name.and_then(|name| world.networks.active_bridge(&name)) {
        interface.ensure("source").set("bridge", bridge);
    }
}

fn announce_start(world: &World, domain: &Domain, paused: bool, restored: bool, snapshot: bool) {
    if !paused {
        let event = DomainEvent::Lifecycle(lifecycle::RESUMED, lifecycle::resumed::UNPAUSED);
        emit(world, domain, event);
    }
    let detail = match (restored, snapshot) {
        (true, _) => lifecycle::started::RESTORED,
        (_, true) => lifecycle::started::FROM_SNAPSHOT,
        _ => lifecycle::started::BOOTED,
    };
    emit(world, domain, DomainEvent::Lifecycle(lifecycle::STARTED, detail));
    if paused {
        let event = DomainEvent::Lifecycle(lifecycle::SUSPENDED, lifecycle::suspended::PAUSED);
        emit(world, domain, event);
    }
}

/// Starts a domain that is not stored, or stored with another document.
pub fn create(world: &Arc<World>, text: &str, paused: bool) -> Result<Arc<Domain>> {
    let mut document = world.driver.complete(text)?;
    arrange(&mut document);
    let (name, uuid) = identity(&document)?;
    let (domain, new) = world.domains.claim(&name, uuid)?;
    let _job = domain.begin()?;
    if domain.is_active() {
        let text = format!("domain '{name}' is already active");
        return Err(Error::new(Code::OperationInvalid, text));
    }
    let options = StartOptions { paused, document: Some(document), ..StartOptions::default() };
    if let Err(error) = start_in_job(world, &domain, options) {
        if new {
            world.domains.forget(&domain);
        }
        return Err(error);
    }
    drop(_job);
    Ok(domain)
}

/// Ends a running domain by force.
pub fn stop(world: &Arc<World>, domain: &Arc<Domain>, graceful: bool) -> Result<()> {
    let _job = domain.begin()?;
    stop_in_job(world, domain, graceful, state::shutoff::DESTROYED, lifecycle::stopped::DESTROYED)
}

/// Ends a running domain while its job is held.
pub fn stop_in_job(
    world: &Arc<World>,
    domain: &Arc<Domain>,
    graceful: bool,
    reason: i32,
    detail: i32,
) -> Result<()> {
    let run = run_of(domain)?;
    let machine = domain.machine()?;
    machine.kill(graceful)?;
    finish(world, domain, run, reason, detail);
    Ok(())
}

/// The number of the current run.
pub fn run_of(domain: &Domain) -> Result<u64> {
    domain.state.lock().live.as_ref().map(|live| live.run).ok_or_else(super::not_running)
}

/// Notes that a run has ended. Does nothing when that was noted before.
pub fn finish(world: &World, domain: &Arc<Domain>, run: u64, reason: i32, detail: i32) {
    let reference = domain.reference();
    let transient = {
        let mut state = domain.state.lock();
        if state.live.as_ref().map(|live| live.run) != Some(run) {
            return;
        }
        // While it counts as running: the next run makes the same folder.
        persist::remove_status(world, domain);
        state.live = None;
        state.backup = None;
        super::checkpoints::clean_up(std::mem::take(&mut state.scratch));
        state.id = -1;
        state.updated = false;
        state.state = (state::SHUTOFF, reason);
        state.definition.is_none()
    };
    if transient {
        world.domains.forget(domain);
    }
    let event = DomainEvent::Lifecycle(lifecycle::STOPPED, detail);
    world.events.emit(&Event::Domain(reference, event));
}

/// Writes a running domain's state into a file and ends it.
pub fn save(world: &Arc<World>, domain: &Arc<Domain>, file: OwnedFd) -> Result<()> {
    let machine = domain.machine()?;
    machine.save(file)?;
    stop_in_job(world, domain, false, state::shutoff::SAVED, lifecycle::stopped::SAVED)
}

/// Starts a domain from such a file: its document and the rest of the file.
pub fn restore(
    world: &Arc<World>,
    document: Element,
    file: OwnedFd,
    paused: bool,
) -> Result<Arc<Domain>> {
    let (name, uuid) = identity(&document)?;
    let (domain, new) = world.domains.claim(&name, uuid)?;
    let options =
        StartOptions { paused, restore: Some(file), document: Some(document), snapshot: None };
    if let Err(error) = start(world, &domain, options) {
        if new {
            world.domains.forget(&domain);
        }
        return Err(error);
    }
    Ok(domain)
}

/// Starts all domains that are marked for it.
pub fn autostart(world: &Arc<World>) {
    for domain in world.domains.all() {
        let wanted = {
            let state = domain.state.lock();
            state.autostart && state.live.is_none()
        };
        if !wanted {
            continue;
        }
        if let Err(error) = start(world, &domain, StartOptions::default()) {
            eprintln!("warning: Cannot start the domain '{}': {error}", domain.name());
        }
    }
}

/// A number for a new run.
pub fn new_run() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What a machine calls when something happens to it. Keeps neither world nor domain alive.
pub fn reporter(world: &Arc<World>, uuid: Uuid, run: u64) -> Reporter {
    let world = Arc::downgrade(world);
    Arc::new(move |report| {
        if let Some((world, domain)) = find(&world, uuid) {
            take(&world, &domain, run, report);
        }
    })
}

fn find(world: &Weak<World>, uuid: Uuid) -> Option<(Arc<World>, Arc<Domain>)> {
    let world = world.upgrade()?;
    let domain = world.domains.by_uuid(uuid)?;
    Some((world, domain))
}

fn take(world: &Arc<World>, domain: &Arc<Domain>, run: u64, report: Report) {
    match report {
        Report::ShuttingDown(detail) => {
            emit(world, domain, DomainEvent::Lifecycle(lifecycle::SHUTDOWN, detail));
        }
        Report::Stopped { reason, detail } => finish(world, domain, run, reason, detail),
        Report::Rebooted => emit(world, domain, DomainEvent::Reboot),
        Report::Paused { reason, detail } => {
            domain.state.lock().state = (state::PAUSED, reason);
            emit(world, domain, DomainEvent::Lifecycle(lifecycle::SUSPENDED, detail));
        }
        Report::Resumed => {
            domain.state.lock().state = (state::RUNNING, state::running::UNPAUSED);
            let event = DomainEvent::Lifecycle(lifecycle::RESUMED, lifecycle::resumed::UNPAUSED);
            emit(world, domain, event);
        }
        Report::Event(event) => emit(world, domain, event),
        Report::DeviceRemoved(alias) => {
            super::edit::forget_device(domain, &alias);
            persist::try_write_status(world, domain);
            emit(world, domain, DomainEvent::DeviceRemoved(alias));
        }
        Report::Channel { alias, open } => {
            let is_agent = match &mut domain.state.lock().live {
                Some(live) => agent::note_channel(&mut live.document, &alias, open),
                None => false,
            };
            if is_agent {
                // State connected or disconnected; the reason is the channel.
                let event = DomainEvent::AgentLifecycle(if open { 1 } else { 2 }, 2);
                emit(world, domain, event);
            }
        }
        Report::BlockJob { target, path, kind, status, change } => {
            if let Some(change) = change {
                super::blocks::change_disk(world, domain, &target, &change);
            }
            emit(world, domain, DomainEvent::BlockJob { path, target, kind, status });
        }
        Report::BackupEnded { success } => {
            let scratch = {
                let mut state = domain.state.lock();
                state.backup = None;
                std::mem::take(&mut state.scratch)
            };
            super::checkpoints::clean_up(scratch);
            // VIR_DOMAIN_JOB_OPERATION_BACKUP
            let parameters = vec![
                TypedParameter { field: "operation".into(), value: Value::Int(9) },
                TypedParameter { field: "success".into(), value: Value::Bool(success) },
            ];
            emit(world, domain, DomainEvent::JobCompleted(parameters));
        }
        Report::Balloon(kib) => {
            domain.state.lock().balloon_kib = Some(kib);
            emit(world, domain, DomainEvent::BalloonChange(kib));
        }
        Report::Monitor { name, seconds, micros, details } => {
            let reference = domain.reference();
            world.events.emit_monitor(&reference, &name, (seconds, micros), &details);
        }
    }
}
