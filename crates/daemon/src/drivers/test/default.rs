//! What `test:///default` holds.

use std::sync::Arc;

use libvirt_compat::Result;
use libvirt_compat::xml::{Element, parse};

use crate::domains;
use crate::node::{Interface, NodeDevice};
use crate::world::World;

const DOMAIN: &str = "<domain type='test'>
  <name>test</name>
  <uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>
  <memory>8388608</memory>
  <currentMemory>2097152</currentMemory>
  <vcpu>2</vcpu>
  <os><type>hvm</type></os>
</domain>";

const NETWORK: &str = "<network>
  <name>default</name>
  <uuid>dd8fe884-6c02-601e-7551-cca97df1c5df</uuid>
  <bridge name='virbr0'/>
  <forward/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp>
  </ip>
</network>";

const POOL: &str = "<pool type='dir'>
  <name>default-pool</name>
  <uuid>dfe224cb-28fb-8dd0-c4b2-64eb3f0f4566</uuid>
  <target><path>/default-pool</path></target>
</pool>";

const INTERFACE: &str = "<interface type='ethernet' name='eth1'>
  <start mode='onboot'/>
  <mac address='aa:bb:cc:dd:ee:ff'/>
  <mtu size='1492'/>
  <protocol family='ipv4'>
    <ip address='192.168.0.5' prefix='24'/>
    <route gateway='192.168.0.1'/>
  </protocol>
</interface>";

const COMPUTER: &str = "<device>
  <name>computer</name>
  <capability type='system'>
    <hardware>
      <vendor>Libvirt</vendor>
      <version>Test driver</version>
      <serial>123456</serial>
      <uuid>11111111-2222-3333-4444-555555555555</uuid>
    </hardware>
    <firmware>
      <vendor>Libvirt</vendor>
      <version>Test Driver</version>
      <release_date>01/22/2007</release_date>
    </firmware>
  </capability>
</device>";

/// Puts everything in its place.
pub fn fill(world: &Arc<World>) -> Result<()> {
    let domain = domains::define(world, DOMAIN)?;
    domains::start(world, &domain, domains::StartOptions::default())?;
    let network = world.networks.define(world, NETWORK)?;
    world.networks.start(world, &network)?;
    world.networks.set_autostart(world, &network, true)?;
    let pool = world.pools.define(world, POOL, false)?;
    world.pools.start(world, &pool)?;
    world.pools.set_autostart(world, &pool, true)?;
    world.node.interfaces.fix(vec![interface(parse(INTERFACE, "interface")?)]);
    world.node.devices.fix(vec![device(parse(COMPUTER, "device")?)]);
    Ok(())
}

/// An interface from its document.
pub fn interface(document: Element) -> Interface {
    Interface {
        name: document.attribute("name").unwrap_or_default().to_owned(),
        mac: document.attribute_at("mac", "address").unwrap_or_default().to_owned(),
        active: true,
        document,
    }
}

/// A host device from its document.
pub fn device(document: Element) -> NodeDevice {
    let mut capabilities = Vec::new();
    for capability in document.all("capability") {
        capabilities.extend(capability.attribute("type").map(str::to_owned));
        for nested in capability.all("capability") {
            capabilities.extend(nested.attribute("type").map(str::to_owned));
        }
    }
    NodeDevice {
        name: document.text_at("name").unwrap_or_default(),
        parent: document.text_at("parent"),
        capabilities,
        document,
    }
}

/// Sizes of pages in KiB that the test world's host has.
const PAGES: [u32; 4] = [4, 8, 2048, 1_048_576];

/// The test world's host: two NUMA nodes of eight processors.
pub fn capabilities() -> Element {
    let features =
        Element::new("features").with_child(Element::new("pae")).with_child(Element::new("nonpae"));
    let mut cpu = Element::new("cpu")
        .with_child(Element::with_text("arch", "i686"))
        .with_child(features.clone());
    for size in PAGES {
        cpu.push(Element::new("pages").with("unit", "KiB").with("size", size));
    }
    let secmodel = Element::new("secmodel")
        .with_child(Element::with_text("model", "testSecurity"))
        .with_child(Element::with_text("doi", ""));
    let cells = Element::new("cells").with("num", 2).with_child(cell(0)).with_child(cell(1));
    let host = Element::new("host")
        .with_child(cpu)
        .with_child(Element::new("power_management"))
        .with_child(Element::new("iommu").with("support", "no"))
        .with_child(Element::new("topology").with_child(cells))
        .with_child(secmodel);
    let mut document = Element::new("capabilities").with_child(host);
    for os_type in ["hvm", "xen"] {
        let arch = Element::new("arch")
            .with("name", "i686")
            .with_child(Element::with_text("wordsize", 32))
            .with_child(Element::with_text("emulator", "/usr/bin/test-hv"))
            .with_child(Element::new("domain").with("type", "test"));
        let guest = Element::new("guest")
            .with_child(Element::with_text("os_type", os_type))
            .with_child(arch)
            .with_child(features.clone());
        document.push(guest);
    }
    document
}

fn cell(id: u32) -> Element {
    const CPUS: u32 = 8;
    let mut cell = Element::new("cell").with("id", id);
    cell.push(Element::with_text("memory", (id + 1) << 21).with("unit", "KiB"));
    let small = PAGES[id as usize];
    for (size, count) in [(small, 524_288), (PAGES[2], 0), (PAGES[3], 0)] {
        cell.push(Element::with_text("pages", count).with("unit", "KiB").with("size", size));
    }
    let mut cpus = Element::new("cpus").with("num", CPUS);
    for core in 0..CPUS {
        let number = id * CPUS + core;
        let cpu = Element::new("cpu")
            .with("id", number)
            .with("socket_id", id)
            .with("die_id", 0)
            .with("core_id", core)
            .with("siblings", number);
        cpus.push(cpu);
    }
    cell.with_child(cpus)
}
