//! Changing a domain's documents: the stored one, the live one, or both.

use std::sync::Arc;

use libvirt_compat::constants::affect;
use libvirt_compat::domain::{Summary, arrange, arrange_device, default_bus};
use libvirt_compat::event::DomainEvent;
use libvirt_compat::xml::{Element, Node, parse};
use libvirt_compat::{Code, Error, Result};

use super::lifecycle::emit;
use super::{Domain, not_running, persist};
use crate::world::World;

/// Which documents a call changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Impact {
    pub live: bool,
    pub config: bool,
}

/// Resolves `virDomainModificationImpact` for a domain, and refuses what it cannot mean.
pub fn impact(domain: &Domain, flags: u32) -> Result<Impact> {
    let state = domain.state.lock();
    let active = state.live.is_some();
    let mut impact =
        Impact { live: flags & affect::LIVE != 0, config: flags & affect::CONFIG != 0 };
    if !impact.live && !impact.config {
        impact = Impact { live: active, config: !active };
    }
    if impact.live && !active {
        return Err(not_running());
    }
    if impact.config && state.definition.is_none() {
        let text = "transient domains do not have any persistent config";
        return Err(Error::new(Code::OperationInvalid, text));
    }
    Ok(impact)
}

/// Changes the stored definition.
pub fn change_definition(
    world: &World,
    domain: &Domain,
    change: impl FnOnce(&mut Element) -> Result<()>,
) -> Result<()> {
    let mut document = domain.definition()?;
    change(&mut document)?;
    arrange(&mut document);
    let text: Arc<str> = document.to_xml().into();
    persist::write_definition(world, domain, &text)?;
    let mut state = domain.state.lock();
    state.summary = Summary::of(&document);
    state.definition = Some(text);
    Ok(())
}

/// Changes the live document.
pub fn change_live(
    world: &World,
    domain: &Domain,
    change: impl FnOnce(&mut Element) -> Result<()>,
) -> Result<()> {
    {
        let mut state = domain.state.lock();
        let Some(live) = &mut state.live else { return Err(not_running()) };
        change(&mut live.document)?;
        arrange(&mut live.document);
        if state.definition.is_none() {
            let summary = state.live.as_ref().map(|live| Summary::of(&live.document));
            state.summary = summary.unwrap_or_default();
        }
    }
    persist::write_status(world, domain)
}

fn parse_device(text: &str) -> Result<Element> {
    parse(text, "device_definition")
}

/// Adds a device to the live machine, the stored definition or both.
pub fn attach_device(
    world: &Arc<World>,
    domain: &Arc<Domain>,
    text: &str,
    flags: u32,
) -> Result<()> {
    let _job = domain.begin()?;
    let impact = impact(domain, flags)?;
    let given = parse_device(text)?;
    // The definition is completed before and stored after the machine has changed, so that a
    // refusal of either leaves both as they were.
    let definition = match impact.config {
        true => Some(definition_with(world, domain, given.clone())?),
        false => None,
    };
    if impact.live {
        attach_live(world, domain, given)?;
    }
    match definition {
        Some(definition) => change_definition(world, domain, |document| {
            *document = definition;
            Ok(())
        }),
        None => Ok(()),
    }
}

/// The stored definition with one more device, completed as a whole: it may need a controller.
fn definition_with(world: &World, domain: &Domain, device: Element) -> Result<Element> {
    let mut document = domain.definition()?;
    refuse_duplicate(&document, &device)?;
    insert_device(document.ensure("devices"), device);
    world.driver.complete(&document.to_xml())
}

fn attach_live(world: &World, domain: &Domain, mut device: Element) -> Result<()> {
    let document = domain.document()?;
    refuse_duplicate(&document, &device)?;
    world.driver.complete_device(&document, &mut device)?;
    if device.name == "interface" {
        super::lifecycle::note_bridge(world, &mut device);
    }
    domain.machine()?.attach(&document, &mut device)?;
    let alias = device.attribute_at("alias", "name").map(str::to_owned);
    change_live(world, domain, |document| {
        arrange_device(&mut device);
        insert_device(document.ensure("devices"), device);
        Ok(())
    })?;
    if let Some(alias) = alias {
        emit(world, domain, DomainEvent::DeviceAdded(alias));
    }
    Ok(())
}

/// A new disk stands behind the last one of its bus, every other device at the end.
fn insert_device(devices: &mut Element, device: Element) {
    let target = device.attribute_at("target", "dev").unwrap_or_default();
    let by_name = default_bus(target, device.attribute("device").unwrap_or("disk"));
    let bus = device.attribute_at("target", "bus").unwrap_or(by_name).to_owned();
    let same_bus = |node: &Node| {
        matches!(node, Node::Element(other) if other.name == "disk"
            && other.attribute_at("target", "bus") == Some(&bus))
    };
    let last =
        if device.name == "disk" { devices.children.iter().rposition(same_bus) } else { None };
    let place = last.map_or(devices.children.len(), |last| last + 1);
    devices.children.insert(place, Node::Element(device));
}

fn refuse_duplicate(document: &Element, device: &Element) -> Result<()> {
    if device.name != "disk" {
        return Ok(());
    }
    let Some(target) = device.attribute_at("target", "dev") else { return Ok(()) };
    match find_device(document, device) {
        Ok(_) => {
            let text = format!("target {target} already exists");
            Err(Error::new(Code::OperationInvalid, text))
        }
        Err(_) => Ok(()),
    }
}

/// Takes a device away from the live machine, the stored definition or both.
pub fn detach_device(
    world: &Arc<World>,
    domain: &Arc<Domain>,
    text: &str,
    flags: u32,
) -> Result<()> {
    let _job = domain.begin()?;
    let impact = impact(domain, flags)?;
    let wanted = parse_device(text)?;
    if impact.config {
        change_definition(world, domain, |document| {
            let place = find_device(document, &wanted)?;
            document.ensure("devices").children.remove(place);
            Ok(())
        })?;
    }
    if impact.live {
        let document = domain.document()?;
        let place = find_device(&document, &wanted)?;
        let device = device_at(&document, place).clone();
        let gone = domain.machine()?.detach(&document, &device)?;
        let alias = device.attribute_at("alias", "name").map(str::to_owned);
        // The event that the device is gone may have taken it out already.
        if gone
            && let Some(alias) = alias
            && forget_device(domain, &alias)
        {
            persist::write_status(world, domain)?;
            emit(world, domain, DomainEvent::DeviceRemoved(alias));
        }
    }
    Ok(())
}

/// Replaces a device: another medium, another password.
pub fn update_device(
    world: &Arc<World>,
    domain: &Arc<Domain>,
    text: &str,
    flags: u32,
) -> Result<()> {
    let _job = domain.begin()?;
    // The force flag (4) is about locked trays.
    let impact = impact(domain, flags & 3)?;
    let given = parse_device(text)?;
    if impact.config {
        let document = domain.definition()?;
        let place = find_device(&document, &given)?;
        let mut device = given.clone();
        inherit(device_at(&document, place), &mut device);
        let mut others = document;
        others.ensure("devices").children.remove(place);
        world.driver.complete_device(&others, &mut device)?;
        change_definition(world, domain, |document| {
            document.ensure("devices").children[place] = Node::Element(device);
            Ok(())
        })?;
    }
    if impact.live {
        let document = domain.document()?;
        let place = find_device(&document, &given)?;
        let old = device_at(&document, place).clone();
        let mut device = given;
        inherit(&old, &mut device);
        domain.machine()?.update(&document, &old, &mut device)?;
        change_live(world, domain, |document| {
            document.ensure("devices").children[place] = Node::Element(device);
            Ok(())
        })?;
    }
    Ok(())
}

/// A new form of a device keeps its place in the machine.
fn inherit(old: &Element, new: &mut Element) {
    for name in ["address", "alias", "target", "mac"] {
        if new.child(name).is_none()
            && let Some(kept) = old.child(name)
        {
            new.push(kept.clone());
        }
    }
}

/// Takes a device out of the live document; false when it was not there.
pub fn forget_device(domain: &Domain, alias: &str) -> bool {
    let mut state = domain.state.lock();
    let Some(live) = &mut state.live else { return false };
    let devices = live.document.ensure("devices");
    devices.remove(|device| device.attribute_at("alias", "name") == Some(alias)) > 0
}

/// A device of the live or stored document by what a caller knows of it: a test.
pub fn live_device(domain: &Domain, test: impl Fn(&Element) -> bool) -> Result<Option<Element>> {
    let document = domain.document()?;
    Ok(document.child("devices").and_then(|devices| devices.elements().find(|d| test(d)).cloned()))
}

fn device_at(document: &Element, place: usize) -> &Element {
    let devices = document.child("devices").expect("the place was found in there");
    match &devices.children[place] {
        Node::Element(device) => device,
        Node::Text(_) => unreachable!("the place holds an element"),
    }
}

/// The place of the device that a client means, by the key libvirt uses for each kind.
fn find_device(document: &Element, wanted: &Element) -> Result<usize> {
    let devices = document.child("devices");
    let found = devices
        .into_iter()
        .flat_map(|devices| devices.children.iter())
        .position(|node| matches!(node, Node::Element(device) if same_device(device, wanted)));
    found.ok_or_else(|| {
        let (code, text) = match wanted.name.as_str() {
            "disk" => {
                let target = wanted.attribute_at("target", "dev").unwrap_or_default();
                (Code::InvalidArg, format!("no target device {target}"))
            }
            "interface" => {
                let mac = wanted.attribute_at("mac", "address").unwrap_or_default();
                let text = format!("no device matching MAC address {mac} found");
                (Code::DeviceMissing, text)
            }
            name => (Code::DeviceMissing, format!("matching {name} device not found")),
        };
        Error::new(code, text)
    })
}

fn same_device(device: &Element, wanted: &Element) -> bool {
    if device.name != wanted.name {
        return false;
    }
    let key = |path: &str, attribute: &str| {
        let wanted = wanted.attribute_at(path, attribute);
        wanted.is_none_or(|wanted| {
            device
                .attribute_at(path, attribute)
                .is_some_and(|have| have.eq_ignore_ascii_case(wanted))
        })
    };
    match device.name.as_str() {
        "disk" => key("target", "dev"),
        "interface" => key("mac", "address"),
        "graphics" => device.attribute("type") == wanted.attribute("type"),
        _ => {
            let own =
                |name: &str| wanted.attribute(name).is_none_or(|value| device.is(name, value));
            own("type")
                && own("index")
                && own("model")
                && own("bus")
                && key("alias", "name")
                && key("target", "name")
                && key("target", "port")
                && key("target", "dir")
        }
    }
}
