//! Virtual networks: definitions, their state, and bringing them up.
//!
//! A daemon that may make links makes bridges ([`host`]). For one that may not, the emulator's
//! user-mode stack stands in for NAT networks and isolated ones, with the network's addresses: each
//! guest reaches the outside (or nothing), but guests do not see each other.

mod host;
mod plan;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use libvirt_compat::event::Event;
use libvirt_compat::rpc::types;
use libvirt_compat::xml::{self, Element, Node};
use libvirt_compat::{Code, Error, Origin, Result, Uuid};
use net::dhcp::Lease;
use parking_lot::{Mutex, RwLock};

use crate::files::{definitions, make_private_directory, remove, set_aside, write_atomically};
use crate::options::Mode;
use crate::random;
use crate::world::World;
use host::Running;

/// A network.
#[derive(Clone)]
pub struct Network {
    pub name: String,
    pub uuid: Uuid,
    /// The stored definition.
    pub definition: Option<Element>,
    /// What is up, which may differ from the definition.
    pub live: Option<Element>,
    pub autostart: bool,
}

/// Who makes bridges and rules. A world in memory pretends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// Nothing is really made.
    Memory,
    /// Bridges.
    Host,
    /// The emulator's own stack, for want of the right to make links.
    StandIn,
}

impl Backend {
    /// What a daemon of this mode can make.
    pub fn of(mode: Mode) -> Self {
        match mode {
            Mode::System if host::is_permitted() => Self::Host,
            Mode::System => {
                eprintln!(
                    "warning: Without CAP_NET_ADMIN there are no bridges: guests get the \
                     emulator's own network, and do not see each other"
                );
                Self::StandIn
            }
            Mode::Session => Self::StandIn,
        }
    }
}

/// Networks in one world, as many as a list may hold.
const NETWORKS_MAX: usize = 16_384;

/// Event types and libvirt's order of a network's elements.
mod event {
    pub const DEFINED: i32 = 0;
    pub const UNDEFINED: i32 = 1;
    pub const STARTED: i32 = 2;
    pub const STOPPED: i32 = 3;
}

const ORDER: &[&str] = &[
    "name",
    "uuid",
    "title",
    "description",
    "metadata",
    "forward",
    "bridge",
    "mtu",
    "mac",
    "domain",
    "dns",
    "vlan",
    "bandwidth",
    "port",
    "ip",
    "route",
    "virtualport",
    "portgroup",
];

/// The table of networks.
pub struct Networks {
    table: RwLock<BTreeMap<String, Network>>,
    backend: Backend,
    /// What is up on this host, by the network's name. Held while one is made, so that two never
    /// take the same bridge; never together with `table`.
    running: Mutex<BTreeMap<String, Running>>,
}

impl Network {
    /// How clients refer to it.
    pub fn reference(&self) -> types::Network {
        types::Network { name: self.name.clone(), uuid: self.uuid }
    }

    pub fn is_active(&self) -> bool {
        self.live.is_some()
    }

    /// The document: what is up, or the definition.
    pub fn document(&self, inactive: bool) -> &Element {
        let first = if inactive { &self.definition } else { &self.live };
        let document = first.as_ref().or(self.live.as_ref()).or(self.definition.as_ref());
        document.expect("a network in the table is defined or active")
    }

    /// The length of the first IPv4 network's prefix.
    pub fn prefix(&self) -> u32 {
        let four = |ip: &&Element| ip.attribute("family").unwrap_or("ipv4") == "ipv4";
        let ip = self.document(false).all("ip").find(four);
        ip.and_then(|ip| plan::address(ip).ok()?).map_or(0, |own| u32::from(own.prefix))
    }

    pub fn bridge(&self) -> Option<String> {
        self.document(false).attribute_at("bridge", "name").map(str::to_owned)
    }
}

impl Networks {
    pub fn new(backend: Backend) -> Self {
        Self { table: RwLock::default(), backend, running: Mutex::default() }
    }

    /// Whether nothing is really made.
    pub fn is_imaginary(&self) -> bool {
        self.backend == Backend::Memory
    }

    pub fn all(&self) -> Vec<Network> {
        self.table.read().values().cloned().collect()
    }

    pub fn by_name(&self, name: &str) -> Result<Network> {
        self.table.read().get(name).cloned().ok_or_else(|| {
            let text = format!("no network with matching name '{name}'");
            Error::new(Code::NoNetwork, text).from(Origin::Network)
        })
    }

    pub fn by_uuid(&self, uuid: Uuid) -> Result<Network> {
        let table = self.table.read();
        table.values().find(|network| network.uuid == uuid).cloned().ok_or_else(|| {
            let text = format!("no network with matching uuid '{uuid}'");
            Error::new(Code::NoNetwork, text).from(Origin::Network)
        })
    }

    /// The network a client refers to; libvirt looks it up by UUID.
    pub fn find(&self, reference: &types::Network) -> Result<Network> {
        let table = self.table.read();
        table.values().find(|network| network.uuid == reference.uuid).cloned().ok_or_else(|| {
            let types::Network { uuid, name } = reference;
            let text = format!("no network with matching uuid '{uuid}' ({name})");
            Error::new(Code::NoNetwork, text).from(Origin::Network)
        })
    }

    fn change<R>(&self, name: &str, change: impl FnOnce(&mut Network) -> R) -> Result<R> {
        match self.table.write().get_mut(name) {
            Some(network) => Ok(change(network)),
            None => Err(Error::bare(Code::NoNetwork)),
        }
    }

    /// Stores a definition.
    pub fn define(&self, world: &World, text: &str) -> Result<Network> {
        let document = self.complete(text)?;
        let network = self.insert(&document, |network| {
            network.definition = Some(document.clone());
        })?;
        write(world, &network)?;
        emit(world, &network, event::DEFINED);
        Ok(network)
    }

    /// Starts a network that is not stored.
    pub fn create(&self, world: &World, text: &str) -> Result<Network> {
        let document = self.complete(text)?;
        let name = document.text_at("name").unwrap_or_default();
        if self.by_name(&name).is_ok_and(|network| network.is_active()) {
            let text = format!("network '{name}' is already active");
            return Err(Error::new(Code::OperationInvalid, text));
        }
        self.bring_up(world, &document, false)?;
        let network = self.insert(&document, |network| network.live = Some(document.clone()))?;
        write_live(world, &network, Some(&document))?;
        emit(world, &network, event::STARTED);
        Ok(network)
    }

    fn insert(&self, document: &Element, change: impl FnOnce(&mut Network)) -> Result<Network> {
        let name = document.text_at("name").unwrap_or_default();
        let uuid = document.text_at("uuid").and_then(|text| Uuid::parse(&text));
        let uuid = uuid.expect("a completed document has a UUID");
        let mut table = self.table.write();
        let by_uuid = table.values().find(|network| network.uuid == uuid);
        if let Some(other) = by_uuid.filter(|other| other.name != name) {
            let text = format!("network '{}' is already defined with uuid {uuid}", other.name);
            return Err(Error::new(Code::OperationFailed, text));
        }
        if let Some(other) = table.get(&name).filter(|other| other.uuid != uuid) {
            let text = format!("network '{name}' already exists with uuid {}", other.uuid);
            return Err(Error::new(Code::OperationFailed, text));
        }
        if table.len() >= NETWORKS_MAX {
            return Err(Error::new(Code::OperationFailed, "too many networks"));
        }
        let network = table.entry(name.clone()).or_insert_with(|| Network {
            name,
            uuid,
            definition: None,
            live: None,
            autostart: false,
        });
        change(network);
        Ok(network.clone())
    }

    /// Brings a defined network up.
    pub fn start(&self, world: &World, network: &Network) -> Result<()> {
        if network.is_active() {
            return Err(Error::new(Code::OperationInvalid, "network is already active"));
        }
        let document = network.document(true).clone();
        self.bring_up(world, &document, false)?;
        write_live(world, network, Some(&document))?;
        self.change(&network.name, |network| network.live = Some(document))?;
        emit(world, network, event::STARTED);
        Ok(())
    }

    /// Takes a network down.
    pub fn stop(&self, world: &World, network: &Network) -> Result<()> {
        if !network.is_active() {
            let text = format!("network '{}' is not active", network.name);
            return Err(Error::new(Code::OperationInvalid, text));
        }
        let transient = network.definition.is_none();
        if let Some(mut running) = self.running.lock().remove(&network.name) {
            running.stop();
        }
        write_live(world, network, None)?;
        self.change(&network.name, |network| network.live = None)?;
        if transient {
            self.table.write().remove(&network.name);
        }
        emit(world, network, event::STOPPED);
        Ok(())
    }

    /// Removes a definition.
    pub fn undefine(&self, world: &World, network: &Network) -> Result<()> {
        if network.definition.is_none() {
            let text = "can't undefine transient network";
            return Err(Error::new(Code::OperationInvalid, text));
        }
        if let Some(folder) = folder(world) {
            remove(&folder.join(format!("{}.xml", network.uuid)))?;
            remove(&folder.join(format!("{}.autostart", network.uuid)))?;
        }
        if network.is_active() {
            self.change(&network.name, |network| {
                network.definition = None;
                network.autostart = false;
            })?;
        } else {
            self.table.write().remove(&network.name);
        }
        emit(world, network, event::UNDEFINED);
        Ok(())
    }

    pub fn set_autostart(&self, world: &World, network: &Network, autostart: bool) -> Result<()> {
        if network.definition.is_none() {
            let text = "cannot set autostart for transient network";
            return Err(Error::new(Code::OperationInvalid, text));
        }
        if let Some(folder) = folder(world) {
            let path = folder.join(format!("{}.autostart", network.uuid));
            if autostart { write_atomically(&path, b"")? } else { remove(&path)? }
        }
        self.change(&network.name, |network| network.autostart = autostart)
    }

    /// Starts what is marked for it.
    pub fn autostart(&self, world: &World) {
        for network in self.all() {
            if network.autostart
                && !network.is_active()
                && let Err(error) = self.start(world, &network)
            {
                eprintln!("warning: Cannot start the network '{}': {error}", network.name);
            }
        }
    }

    /// Reads all definitions.
    pub fn load(&self, world: &World) {
        let Some(folder) = folder(world) else { return };
        for (path, document) in definitions(&folder, |text| self.complete(text)) {
            let autostart = path.with_extension("autostart").exists();
            let loaded = document.and_then(|document| {
                self.insert(&document, |network| {
                    network.definition = Some(document.clone());
                    network.autostart = autostart;
                })
            });
            if let Err(error) = loaded {
                set_aside(&path, &error);
            }
        }
    }

    fn bring_up(&self, world: &World, document: &Element, again: bool) -> Result<()> {
        let mode = match self.backend {
            Backend::Memory => return Ok(()),
            Backend::Host | Backend::StandIn => plan::mode(document)?,
        };
        let name = document.text_at("name").unwrap_or_default();
        if self.backend == Backend::StandIn {
            if matches!(mode, plan::Mode::Nat | plan::Mode::Isolated) {
                return Ok(());
            }
            let bridge = document.attribute_at("bridge", "name").unwrap_or_default();
            let denied = std::io::Error::from(rustix::io::Errno::PERM);
            let doing = format!("error creating bridge interface {bridge}");
            return Err(crate::files::system(doing, &denied).from(Origin::Network));
        }
        let mut running = self.running.lock();
        let leases = live_folder(world).map(|folder| folder.join(format!("{name}.leases")));
        let leases = leases.ok_or_else(|| Error::bare(Code::NoSupport))?;
        if let Some(folder) = leases.parent() {
            make_private_directory(folder)?;
        }
        running.insert(name, Running::start(document, leases, again)?);
        Ok(())
    }

    /// The bridge of an active network, where there is one.
    pub fn active_bridge(&self, name: &str) -> Option<String> {
        Some(self.running.lock().get(name)?.bridge().to_owned())
    }

    /// Who has which address of a network.
    pub fn leases(&self, name: &str) -> Vec<Lease> {
        self.running.lock().get(name).map(Running::leases).unwrap_or_default()
    }

    /// Takes up again what an earlier daemon has left behind.
    pub fn resume(&self, world: &World) {
        let Some(folder) = live_folder(world) else { return };
        for (path, document) in definitions(&folder, |text| self.complete(text)) {
            let document = match document {
                Ok(document) => document,
                Err(error) => {
                    set_aside(&path, &error);
                    continue;
                }
            };
            let bridge = document.attribute_at("bridge", "name").unwrap_or_default();
            let there = PathBuf::from(format!("/sys/class/net/{bridge}")).exists();
            let resumed = match (self.backend, there) {
                (Backend::Host, false) => Err(Error::new(Code::OperationFailed, "it is gone")),
                _ => self.bring_up(world, &document, true),
            };
            let resumed = resumed.and_then(|()| {
                self.insert(&document, |network| network.live = Some(document.clone()))
            });
            if let Err(error) = resumed {
                let name = document.text_at("name").unwrap_or_default();
                eprintln!("warning: The network '{name}' is not taken up again: {error}");
                _ = fs::remove_file(&path);
            }
        }
    }

    /// Fills in what libvirt fills in.
    fn complete(&self, text: &str) -> Result<Element> {
        let mut document = xml::parse(text, "network_definition")?;
        let problem = |text: String| Error::new(Code::XmlError, text).from(Origin::Network);
        if document.name != "network" {
            let text = format!("unexpected root element <{}>, expecting <network>", document.name);
            return Err(problem(text));
        }
        let name = document.text_at("name").filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Error::bare(Code::NoName).from(Origin::Network))?;
        if name.contains('/') {
            return Err(problem(format!("name {name} cannot contain '/'")));
        }
        let uuid = match document.text_at("uuid") {
            None => random::uuid(),
            Some(text) => {
                Uuid::parse(&text).ok_or_else(|| problem("malformed uuid element".to_owned()))?
            }
        };
        document.ensure("uuid").set_text(uuid);
        document.unset("connections");
        if let Some(forward) = document.child_mut("forward") {
            forward.set_default("mode", "nat");
        }
        let mode = document.attribute_at("forward", "mode").map(str::to_owned);
        if matches!(mode.as_deref(), None | Some("nat" | "route" | "open")) {
            self.complete_bridge(&mut document);
        }
        document.children.sort_by_key(|node| match node {
            Node::Element(element) => {
                ORDER.iter().position(|name| *name == element.name).unwrap_or(ORDER.len())
            }
            Node::Text(_) => 0,
        });
        Ok(document)
    }

    fn complete_bridge(&self, document: &mut Element) {
        if document.attribute_at("bridge", "name").is_none() {
            let name = self.free_bridge();
            document.ensure("bridge").set("name", name);
        }
        let bridge = document.ensure("bridge");
        bridge.set_default("stp", "on");
        bridge.set_default("delay", 0);
        if document.child("mac").is_none() {
            let random = random::bytes();
            let mac = format!("52:54:00:{:02x}:{:02x}:{:02x}", random[0], random[1], random[2]);
            document.push(Element::new("mac").with("address", mac));
        }
    }

    fn free_bridge(&self) -> String {
        let table = self.table.read();
        let taken: Vec<String> = table.values().filter_map(Network::bridge).collect();
        let free = (0..).map(|number| format!("virbr{number}")).find(|name| {
            !taken.contains(name) && !PathBuf::from(format!("/sys/class/net/{name}")).exists()
        });
        free.expect("numbers do not run out")
    }
}

fn emit(world: &World, network: &Network, kind: i32) {
    world.events.emit(&Event::Network(network.reference(), kind, 0));
}

fn folder(world: &World) -> Option<PathBuf> {
    Some(world.place.as_ref()?.state.join("networks"))
}

/// Where what is up is noted, gone after a boot like the bridges themselves.
fn live_folder(world: &World) -> Option<PathBuf> {
    Some(world.place.as_ref()?.runtime.join("networks"))
}

fn write_live(world: &World, network: &Network, document: Option<&Element>) -> Result<()> {
    let Some(folder) = live_folder(world) else { return Ok(()) };
    let path = folder.join(format!("{}.xml", network.uuid));
    match document {
        Some(document) => {
            make_private_directory(&folder)?;
            write_atomically(&path, document.to_xml().as_bytes())
        }
        None => remove(&path),
    }
}

fn write(world: &World, network: &Network) -> Result<()> {
    let Some(folder) = folder(world) else { return Ok(()) };
    make_private_directory(&folder)?;
    let path = folder.join(format!("{}.xml", network.uuid));
    write_atomically(&path, network.document(true).to_xml().as_bytes())
}

/// The network that exists out of the box.
pub const DEFAULT: &str = "<network>
  <name>default</name>
  <forward mode='nat'/>
  <bridge name='virbr0' stp='on' delay='0'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.122.2' end='192.168.122.254'/>
    </dhcp>
  </ip>
</network>";

/// Changes a part of a network's document: `virNetworkUpdate`.
pub fn update(
    world: &Arc<World>,
    network: &Network,
    section: u32,
    command: u32,
    text: &str,
    flags: u32,
) -> Result<()> {
    let path = match section {
        2 => "bridge",
        3 => "domain",
        4 => "ip/dhcp/host",
        5 => "ip/dhcp/range",
        6 => "forward",
        7 => "forward/interface",
        8 => "forward/pf",
        9 => "portgroup",
        10 => "dns/host",
        11 => "dns/txt",
        12 => "dns/srv",
        _ => return Err(Error::new(Code::InvalidArg, format!("unknown section {section}"))),
    };
    let given = xml::parse(text, "network_update")?;
    let change = |document: &mut Element| apply(document, path, command, &given);
    let live = flags & 1 != 0 || (flags & 3 == 0 && network.is_active());
    let config = flags & 2 != 0 || (flags & 3 == 0 && !network.is_active());
    if live && !network.is_active() {
        return Err(Error::new(Code::OperationInvalid, "network is not running"));
    }
    if config {
        let mut document = network.definition.clone().ok_or_else(|| {
            Error::new(
                Code::OperationInvalid,
                "cannot change persistent config of a transient network",
            )
        })?;
        change(&mut document)?;
        world.networks.change(&network.name, |network| network.definition = Some(document))?;
        write(world, &world.networks.find(&network.reference())?)?;
    }
    if live {
        let mut document = network.document(false).clone();
        change(&mut document)?;
        if let Some(running) = world.networks.running.lock().get(&network.name) {
            running.change(&document)?;
        }
        write_live(world, network, Some(&document))?;
        world.networks.change(&network.name, |network| network.live = Some(document))?;
    }
    Ok(())
}

fn apply(document: &mut Element, path: &str, command: u32, given: &Element) -> Result<()> {
    let (parents, name) =
        path.rsplit_once('/').map_or(("", path), |(parents, name)| (parents, name));
    let parents = parents.split('/').filter(|parent| !parent.is_empty());
    let parent = parents.fold(document, |element, name| element.ensure(name));
    if given.name != name {
        let text = format!("unexpected element <{}>, expecting <{name}>", given.name);
        return Err(Error::new(Code::XmlError, text));
    }
    let key = |element: &Element| -> Vec<Option<String>> {
        ["mac", "ip", "start", "name", "dev", "service"]
            .map(|key| element.attribute(key).map(str::to_owned))
            .to_vec()
    };
    let same = |element: &Element| element.name == name && key(element) == key(given);
    match command {
        // Modify.
        1 => match parent.elements_mut().find(|element| same(element)) {
            Some(element) => *element = given.clone(),
            None => {
                let text = format!("couldn't locate a matching <{name}> element");
                return Err(Error::new(Code::OperationInvalid, text));
            }
        },
        // Delete.
        2 => {
            if parent.remove(same) == 0 {
                let text = format!("couldn't locate a matching <{name}> element");
                return Err(Error::new(Code::OperationInvalid, text));
            }
        }
        // Add last, add first.
        3 | 4 => {
            if parent.elements().any(same) {
                let text = format!("there is an existing <{name}> element that matches");
                return Err(Error::new(Code::OperationInvalid, text));
            }
            let node = Node::Element(given.clone());
            let place = if command == 4 { 0 } else { parent.children.len() };
            parent.children.insert(place, node);
        }
        _ => return Err(Error::new(Code::InvalidArg, format!("unknown command {command}"))),
    }
    Ok(())
}
