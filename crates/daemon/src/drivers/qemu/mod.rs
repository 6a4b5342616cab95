//! QEMU, ours or the reference: driven by its command line and its monitor, never linked.

mod kvm;
mod guard;
mod probe;
mod capabilities;
mod complete;
pub mod controllers;
mod firmware;
pub mod addresses;
mod describe;
mod aliases;
mod process;
mod monitor;
mod machine;
mod hotplug;
mod blocks;
mod backup;
mod ports;
mod taps;

use std::path::PathBuf;
use std::sync::Arc;

use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Origin, Result, Uuid};

use super::{Adopted, CapabilitiesRequest, Driver, Registration, Reporter, Start, Started};
use crate::confine::Confinement;
use crate::domains::{self, Domains, Offline};
use crate::hub::Hub;
use crate::networks::{self, Networks};
use crate::node::{self, Node, NodeInfo};
use crate::options::Mode;
use crate::paths::Paths;
use crate::secrets::Secrets;
use crate::storage::{self, ImageTool, Pools, QemuImg};
use crate::world::{Place, Uri, World, Worlds};
use probe::Emulators;

pub const REGISTRATION: Registration = Registration { scheme: "qemu", start, open };

/// Opens the one world of this daemon, reads its definitions and takes over what runs.
fn start(worlds: &Arc<Worlds>) -> Result<Vec<Arc<World>>> {
    let (options, paths) = (worlds.options(), worlds.paths());
    for path in [&paths.state, &paths.runtime, &paths.logs, &paths.cache] {
        crate::files::make_private_directory(path)?;
    }
    let uri = match options.mode {
        Mode::System => "qemu:///system",
        Mode::Session => "qemu:///session",
    };
    let records = paths.state.join("confined");
    let confinement = Arc::new(Confinement::new(options.confinement.clone(), records));
    let driver = QemuDriver {
        confinement: Arc::clone(&confinement),
        paths: paths.clone(),
        emulators: Emulators::new(options.emulator.clone(), paths.cache.clone()),
    };
    let world = Arc::new(World {
        uri: uri.to_owned(),
        driver: Arc::new(driver),
        domains: Domains::default(),
        networks: Networks::new(networks::Backend::of(options.mode)),
        pools: Pools::new(storage::Backend::Host),
        secrets: Secrets::default(),
        node: Node::default(),
        events: Hub::default(),
        place: Some(Place { state: paths.state.clone(), runtime: paths.runtime.clone() }),
    });
    let first_start = !paths.state.join("networks").exists();
    world.networks.load(&world);
    world.networks.resume(&world);
    if first_start {
        let network = world.networks.define(&world, networks::DEFAULT)?;
        world.networks.set_autostart(&world, &network, true)?;
    }
    world.pools.load(&world);
    if first_start {
        default_pool(&world, paths)?;
    }
    domains::load(&world);
    let runs = |uuid: &str| {
        let domain = Uuid::parse(uuid).and_then(|uuid| world.domains.by_uuid(uuid));
        domain.is_some_and(|domain| domain.is_active())
    };
    confinement.release_forgotten(runs);
    Ok(vec![world])
}

/// The pool that exists out of the box.
fn default_pool(world: &World, paths: &Paths) -> Result<()> {
    let path = Element::with_text("path", paths.images.display());
    let document = Element::new("pool")
        .with("type", "dir")
        .with_child(Element::with_text("name", "default"))
        .with_child(Element::new("target").with_child(path));
    let pool = world.pools.define(world, &document.to_xml(), false)?;
    world.pools.build(world, &pool)?;
    world.pools.set_autostart(world, &pool, true)
}

/// A daemon has one world; the other one's URI is refused as libvirt does.
fn open(worlds: &Worlds, uri: &Uri) -> Result<(Arc<World>, bool)> {
    let own = match worlds.options().mode {
        Mode::System => "/system",
        Mode::Session => "/session",
    };
    let path = &uri.path;
    let text = format!("unexpected QEMU URI path '{path}', try qemu://{own}");
    Err(Error::new(Code::InternalError, text).from(Origin::Qemu))
}

/// The driver.
struct QemuDriver {
    paths: Paths,
    emulators: Emulators,
    confinement: Arc<Confinement>,
}

impl QemuDriver {
    /// A running domain's own directory.
    fn runtime(&self, uuid: &dyn std::fmt::Display) -> PathBuf {
        self.paths.runtime.join("domains").join(uuid.to_string())
    }
}

impl Driver for QemuDriver {
    fn origin(&self) -> Origin {
        Origin::Qemu
    }

    fn kind(&self) -> &'static str {
        "QEMU"
    }

    fn version(&self) -> Result<u64> {
        let (major, minor, micro) = self.emulators.default_one()?.version;
        Ok(u64::from(major) * 1_000_000 + u64::from(minor) * 1_000 + u64::from(micro))
    }

    fn vcpus_max(&self, kind: Option<&str>) -> Result<i32> {
        match kind.map(str::to_ascii_lowercase).as_deref() {
            None | Some("qemu" | "kvm") => Ok(255),
            Some(other) => Err(Error::new(Code::InvalidArg, format!("unknown type '{other}'"))),
        }
    }

    fn capabilities(&self) -> Result<String> {
        Ok(capabilities::host(&self.emulators, &self.paths, &self.confinement).to_xml())
    }

    fn domain_capabilities(&self, request: &CapabilitiesRequest) -> Result<String> {
        Ok(capabilities::domain(&self.emulators, request)?.to_xml())
    }

    fn node_info(&self) -> Result<NodeInfo> {
        Ok(node::host_info())
    }

    fn cpu_models(&self, arch: &str) -> Result<Vec<String>> {
        let emulator = self.emulators.for_arch(arch)?;
        Ok(emulator.cpu_models.clone())
    }

    fn complete(&self, text: &str) -> Result<Element> {
        complete::domain(text, &self.emulators, &self.paths.state.join("nvram"))
    }

    fn complete_device(&self, domain: &Element, device: &mut Element) -> Result<()> {
        complete::device(domain, device)
    }

    fn start(&self, start: Start) -> Result<Started> {
        process::start(self, &start)
    }

    fn adopt(&self, status: &Element, reporter: Reporter) -> Result<Adopted> {
        machine::adopt(status, &self.confinement, reporter)
    }

    fn put_down(&self, uuid: &str) {
        machine::put_down(uuid);
    }

    fn snapshot_offline(&self, domain: &Element, name: &str, what: Offline) -> Result<()> {
        let action = match what {
            Offline::Create => "-c",
            Offline::Apply => "-a",
            Offline::Delete => "-d",
        };
        let devices = domain.child("devices");
        for disk in devices.into_iter().flat_map(|devices| devices.all("disk")) {
            let writable = disk.is("device", "disk") && disk.child("readonly").is_none();
            let Some(path) = super::disk_path(disk).filter(|_| writable) else { continue };
            if disk.attribute_at("driver", "type") != Some("qcow2") {
                let target = disk.attribute_at("target", "dev").unwrap_or_default();
                let text = format!(
                    "internal snapshot for disk {target} unsupported for storage type {}",
                    disk.attribute_at("driver", "type").unwrap_or("raw")
                );
                return Err(Error::new(Code::ConfigUnsupported, text));
            }
            QemuImg.snapshot(&path, action, name)?;
        }
        Ok(())
    }

    fn to_native(&self, domain: &Element) -> Result<String> {
        let mut document = domain.clone();
        let emulator = self.emulators.of(domain)?;
        aliases::assign(&mut document);
        let vm = describe::vm(&document, &describe::Networks::new())?;
        let process = qemu_compat::emit::Process {
            monitor: 0,
            incoming: None,
            snapshot: None,
            sandbox: true,
            version: (emulator.version.0, emulator.version.1),
        };
        let mut words = vec![emulator.path.display().to_string()];
        let arguments = qemu_compat::emit::command_line(&vm, &process);
        words.extend(arguments.iter().map(|argument| quoted(argument)));
        Ok(words.join(" ") + "\n")
    }
}

/// An argument as a shell needs it.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,./:+@%".contains(c);
    if argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}
