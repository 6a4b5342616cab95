//! Virtual networks.

use libvirt_compat::rpc::types::{DhcpLease, Network};
use libvirt_compat::{Code, Error, Result, Uuid};

use super::{Call, at_most, counted};
use crate::networks;

/// `VIR_CONNECT_LIST_NETWORKS_*`.
mod list {
    pub const INACTIVE: u32 = 1;
    pub const ACTIVE: u32 = 2;
    pub const PERSISTENT: u32 = 4;
    pub const TRANSIENT: u32 = 8;
    pub const AUTOSTART: u32 = 16;
    pub const NO_AUTOSTART: u32 = 32;
}

fn select(call: &Call, flags: u32) -> Result<Vec<Network>> {
    let matches = |own: u32, group: u32| flags & group == 0 || flags & own != 0;
    let all = call.world()?.networks.all();
    let chosen = all.iter().filter(|network| {
        let pick = |yes: bool, one: u32, other: u32| if yes { one } else { other };
        matches(pick(network.is_active(), list::ACTIVE, list::INACTIVE), 3)
            && matches(pick(network.definition.is_some(), list::PERSISTENT, list::TRANSIENT), 12)
            && matches(pick(network.autostart, list::AUTOSTART, list::NO_AUTOSTART), 48)
    });
    Ok(chosen.map(networks::Network::reference).collect())
}

fn names(call: &Call, flags: u32) -> Result<Vec<String>> {
    Ok(select(call, flags)?.into_iter().map(|network| network.name).collect())
}

pub fn connect_list_all_networks(
    call: &Call,
    need_results: i32,
    flags: u32,
) -> Result<(Vec<Network>, u32)> {
    Ok(counted(select(call, flags)?, need_results))
}

pub fn connect_num_of_networks(call: &Call) -> Result<i32> {
    Ok(select(call, list::ACTIVE)?.len() as i32)
}

pub fn connect_list_networks(call: &Call, maximum: i32) -> Result<Vec<String>> {
    Ok(at_most(names(call, list::ACTIVE)?, maximum))
}

pub fn connect_num_of_defined_networks(call: &Call) -> Result<i32> {
    Ok(select(call, list::INACTIVE)?.len() as i32)
}

pub fn connect_list_defined_networks(call: &Call, maximum: i32) -> Result<Vec<String>> {
    Ok(at_most(names(call, list::INACTIVE)?, maximum))
}

pub fn network_lookup_by_name(call: &Call, name: String) -> Result<Network> {
    Ok(call.world()?.networks.by_name(&name)?.reference())
}

pub fn network_lookup_by_uuid(call: &Call, uuid: Uuid) -> Result<Network> {
    Ok(call.world()?.networks.by_uuid(uuid)?.reference())
}

pub fn network_define_xml(call: &Call, text: String) -> Result<Network> {
    network_define_xml_flags(call, text, 0)
}

pub fn network_define_xml_flags(call: &Call, text: String, _flags: u32) -> Result<Network> {
    let world = call.world()?;
    Ok(world.networks.define(&world, &text)?.reference())
}

pub fn network_create_xml(call: &Call, text: String) -> Result<Network> {
    network_create_xml_flags(call, text, 0)
}

pub fn network_create_xml_flags(call: &Call, text: String, _flags: u32) -> Result<Network> {
    let world = call.world()?;
    Ok(world.networks.create(&world, &text)?.reference())
}

pub fn network_undefine(call: &Call, net: Network) -> Result<()> {
    let world = call.world()?;
    world.networks.undefine(&world, &world.networks.find(&net)?)
}

pub fn network_create(call: &Call, net: Network) -> Result<()> {
    let world = call.world()?;
    world.networks.start(&world, &world.networks.find(&net)?)
}

pub fn network_destroy(call: &Call, net: Network) -> Result<()> {
    let world = call.world()?;
    world.networks.stop(&world, &world.networks.find(&net)?)
}

pub fn network_update(
    call: &Call,
    net: Network,
    command: u32,
    section: u32,
    _parent: i32,
    text: String,
    flags: u32,
) -> Result<()> {
    let world = call.world()?;
    let network = world.networks.find(&net)?;
    networks::update(&world, &network, section, command, &text, flags)
}

/// `VIR_NETWORK_XML_INACTIVE`.
const XML_INACTIVE: u32 = 1;

pub fn network_get_xml_desc(call: &Call, net: Network, flags: u32) -> Result<String> {
    let network = call.world()?.networks.find(&net)?;
    Ok(network.document(flags & XML_INACTIVE != 0).to_xml())
}

pub fn network_get_bridge_name(call: &Call, net: Network) -> Result<String> {
    call.world()?.networks.find(&net)?.bridge().ok_or_else(|| {
        let text = format!("network '{}' does not have a bridge name.", net.name);
        Error::new(Code::InternalError, text)
    })
}

pub fn network_get_autostart(call: &Call, net: Network) -> Result<i32> {
    Ok(i32::from(call.world()?.networks.find(&net)?.autostart))
}

pub fn network_set_autostart(call: &Call, net: Network, autostart: i32) -> Result<()> {
    let world = call.world()?;
    world.networks.set_autostart(&world, &world.networks.find(&net)?, autostart != 0)
}

pub fn network_is_active(call: &Call, net: Network) -> Result<i32> {
    Ok(i32::from(call.world()?.networks.find(&net)?.is_active()))
}

pub fn network_is_persistent(call: &Call, net: Network) -> Result<i32> {
    Ok(i32::from(call.world()?.networks.find(&net)?.definition.is_some()))
}

pub fn network_get_dhcp_leases(
    call: &Call,
    net: Network,
    mac: Option<String>,
    need_results: i32,
    _flags: u32,
) -> Result<(Vec<DhcpLease>, u32)> {
    let world = call.world()?;
    let network = world.networks.find(&net)?;
    if !network.is_active() {
        let text = format!("network '{}' is not active", network.name);
        return Err(Error::new(Code::OperationInvalid, text));
    }
    let bridge = network.bridge().unwrap_or_default();
    let prefix = network.prefix();
    let wanted = |own: &str| mac.as_ref().is_none_or(|mac| mac.eq_ignore_ascii_case(own));
    let leases = world.networks.leases(&network.name).into_iter().map(|lease| DhcpLease {
        iface: bridge.clone(),
        expirytime: lease.expires.map_or(0, |end| end.as_secs() as i64),
        kind: 0,
        mac: Some(lease.mac.to_string()),
        iaid: None,
        ipaddr: lease.address.to_string(),
        prefix,
        hostname: lease.host_name,
        clientid: lease.client.map(|bytes| {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            bytes.join(":")
        }),
    });
    let leases = leases.filter(|lease| lease.mac.as_deref().is_some_and(wanted));
    Ok(super::counted(leases.collect(), need_results))
}
