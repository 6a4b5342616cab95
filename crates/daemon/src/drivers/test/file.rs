//! `test:///FILE`: a `<node>` document with domains, networks, pools, volumes, interfaces and
//! devices. What has a `file` attribute is read from there, relative to the document.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use libvirt_compat::xml::{Element, parse};
use libvirt_compat::{Code, Error, Origin, Result};

use super::default::{device, interface};
use crate::domains;
use crate::world::World;

/// Puts everything that the document holds in its place.
pub fn fill(world: &Arc<World>, path: &Path) -> Result<()> {
    let text = fs::read_to_string(path).map_err(|error| {
        let text = format!("failed to read file '{}': {}", path.display(), error);
        Error::new(Code::ReadFailed, text).from(Origin::Test)
    })?;
    let node = parse(&text, "test_node")?;
    if node.name != "node" {
        let text = "Root element is not 'node'";
        return Err(Error::new(Code::XmlError, text).from(Origin::Test));
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut interfaces = Vec::new();
    let mut devices = Vec::new();
    for element in node.elements() {
        let element = resolve(element, folder)?;
        match element.name.as_str() {
            "domain" => domain(world, element)?,
            "network" => {
                let network = world.networks.define(world, &element.to_xml())?;
                world.networks.start(world, &network)?;
            }
            "pool" => pool(world, element, folder)?,
            "interface" => interfaces.push(interface(element)),
            "device" => devices.push(device(element)),
            "secret" => _ = world.secrets.define(world, &element.to_xml())?,
            _ => {}
        }
    }
    world.node.interfaces.fix(interfaces);
    world.node.devices.fix(devices);
    Ok(())
}

fn resolve(element: &Element, folder: &Path) -> Result<Element> {
    let Some(file) = element.attribute("file") else { return Ok(element.clone()) };
    let path = folder.join(file);
    let text = fs::read_to_string(&path).map_err(|error| {
        crate::files::system(format!("failed to read file '{}'", path.display()), &error)
    })?;
    parse(&text, "test_node")
}

/// A domain runs unless its `test:runstate` says otherwise (5 is off, 3 is paused).
fn domain(world: &Arc<World>, mut element: Element) -> Result<()> {
    let own = |element: &Element, name: &str| {
        let found = element.elements().find(|child| {
            child.name.split(':').next_back() == Some(name) && child.name.contains(':')
        });
        found.map(|found| found.text().trim().to_owned())
    };
    let state = own(&element, "runstate").unwrap_or_else(|| "1".into());
    let transient = own(&element, "transient").is_some_and(|text| text == "1");
    let saved = own(&element, "hasmanagedsave").is_some_and(|text| text == "1");
    let snapshots: Vec<Element> = element
        .elements()
        .filter(|child| child.name.ends_with(":domainsnapshot") || child.name == "domainsnapshot")
        .cloned()
        .collect();
    element.remove(|child| child.name.contains(':') && child.name.starts_with("test:"));
    element.attributes.retain(|(name, _)| name != "xmlns:test");
    let paused = state == "3";
    if transient {
        domains::create(world, &element.to_xml(), paused)?;
        return Ok(());
    }
    let domain = domains::define(world, &element.to_xml())?;
    if state != "5" {
        let options = domains::StartOptions { paused, ..domains::StartOptions::default() };
        domains::start(world, &domain, options)?;
    }
    domain.state.lock().managed_save = saved;
    // `VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE`.
    const REDEFINE: u32 = 1;
    for snapshot in snapshots {
        let snapshot = Element { name: "domainsnapshot".into(), ..snapshot };
        domains::create_snapshot(world, &domain, &snapshot.to_xml(), REDEFINE)?;
    }
    Ok(())
}

fn pool(world: &Arc<World>, mut element: Element, folder: &Path) -> Result<()> {
    let volumes: Vec<Element> = element.all("volume").cloned().collect();
    element.remove(|child| child.name == "volume");
    let pool = world.pools.define(world, &element.to_xml(), false)?;
    world.pools.start(world, &pool)?;
    for volume in volumes {
        let volume = resolve(&volume, folder)?;
        world.pools.adopt_volume(&pool, &volume.to_xml())?;
    }
    Ok(())
}
