//! The host: figures, devices, interfaces, filters.

use libvirt_compat::rpc::types::{
    Interface, NamedCount, NodeDevice, Nwfilter, NwfilterBinding, TypedParameter,
};
use libvirt_compat::rpc::xdr::{Chars, Opaque};
use libvirt_compat::{Code, Error, Result, Uuid};

use super::{Call, at_most, counted};
use crate::node::{self, WireInfo};

pub fn node_get_info(call: &Call) -> Result<WireInfo> {
    Ok(call.world()?.driver.node_info()?.to_wire())
}

pub fn node_get_free_memory(_call: &Call) -> Result<u64> {
    Ok(node::free_memory())
}

pub fn node_get_cells_free_memory(_call: &Call, start: i32, maximum: i32) -> Result<Vec<u64>> {
    if start != 0 || maximum < 1 {
        let text = format!("start cell {start} out of range (0-0)");
        return Err(Error::new(Code::InternalError, text));
    }
    Ok(vec![node::free_memory()])
}

pub fn node_get_memory_stats(
    _call: &Call,
    count: i32,
    cell: i32,
    _flags: u32,
) -> Result<(Vec<NamedCount>, i32)> {
    if cell > 0 {
        let text = "cellNum in virNodeGetMemoryStats must be less than or equal to 0";
        return Err(Error::new(Code::InvalidArg, text));
    }
    let stats = node::memory_stats();
    let known = stats.len() as i32;
    Ok((if count == 0 { Vec::new() } else { at_most(stats, count) }, known))
}

pub fn node_get_cpu_stats(
    _call: &Call,
    cpu: i32,
    count: i32,
    _flags: u32,
) -> Result<(Vec<NamedCount>, i32)> {
    let stats = node::cpu_stats(cpu).ok_or_else(|| {
        Error::new(Code::InvalidArg, format!("Invalid cpuNum in virNodeGetCPUStats: {cpu}"))
    })?;
    let known = stats.len() as i32;
    Ok((if count == 0 { Vec::new() } else { at_most(stats, count) }, known))
}

pub fn node_get_cpu_map(
    _call: &Call,
    need_map: i32,
    need_online: i32,
    _flags: u32,
) -> Result<(Opaque, u32, i32)> {
    let cpus = node::host_info().cpus;
    let mut map = vec![0u8; (cpus as usize).div_ceil(8)];
    for cpu in 0..cpus as usize {
        map[cpu / 8] |= 1 << (cpu % 8);
    }
    let map = if need_map != 0 { map } else { Vec::new() };
    Ok((Opaque(map), if need_online != 0 { cpus as u32 } else { 0 }, cpus))
}

pub fn node_get_memory_parameters(
    _call: &Call,
    _count: i32,
    _flags: u32,
) -> Result<(Vec<TypedParameter>, i32)> {
    Ok((Vec::new(), 0))
}

/// No labels: confinement works without them. The texts end in a NUL on the wire.
pub fn node_get_security_model(_call: &Call) -> Result<(Chars, Chars)> {
    Ok((Chars(b"none\0".to_vec()), Chars(b"0\0".to_vec())))
}

fn devices(call: &Call, capability: Option<&str>) -> Result<Vec<node::NodeDevice>> {
    let mut all = call.world()?.node.devices.all();
    all.retain(|device| {
        capability.is_none_or(|wanted| device.capabilities.iter().any(|own| own == wanted))
    });
    Ok(all)
}

/// `VIR_CONNECT_LIST_NODE_DEVICES_CAP_*`, one bit per kind.
const CAPABILITIES: [&str; 21] = [
    "system",
    "pci",
    "usb_device",
    "usb",
    "net",
    "scsi_host",
    "scsi_target",
    "scsi",
    "storage",
    "fc_host",
    "vports",
    "scsi_generic",
    "drm",
    "mdev_types",
    "mdev",
    "ccw",
    "css",
    "vdpa",
    "ap_card",
    "ap_queue",
    "ap_matrix",
];

pub fn connect_list_all_node_devices(
    call: &Call,
    need_results: i32,
    flags: u32,
) -> Result<(Vec<NodeDevice>, u32)> {
    let mut all = devices(call, None)?;
    let kinds = flags & ((1 << CAPABILITIES.len()) - 1);
    all.retain(|device| {
        kinds == 0
            || CAPABILITIES.iter().enumerate().any(|(bit, name)| {
                kinds & 1 << bit != 0 && device.capabilities.iter().any(|own| own == name)
            })
    });
    let references = all.into_iter().map(|device| NodeDevice { name: device.name });
    Ok(counted(references.collect(), need_results))
}

pub fn node_num_of_devices(call: &Call, capability: Option<String>, _flags: u32) -> Result<i32> {
    Ok(devices(call, capability.as_deref())?.len() as i32)
}

pub fn node_list_devices(
    call: &Call,
    capability: Option<String>,
    maximum: i32,
    _flags: u32,
) -> Result<Vec<String>> {
    let names = devices(call, capability.as_deref())?.into_iter().map(|device| device.name);
    Ok(at_most(names.collect(), maximum))
}

pub fn node_device_lookup_by_name(call: &Call, name: String) -> Result<NodeDevice> {
    let device = call.world()?.node.devices.by_name(&name)?;
    Ok(NodeDevice { name: device.name })
}

pub fn node_device_get_xml_desc(call: &Call, name: String, _flags: u32) -> Result<String> {
    Ok(call.world()?.node.devices.by_name(&name)?.document.to_xml())
}

pub fn node_device_get_parent(call: &Call, name: String) -> Result<Option<String>> {
    Ok(call.world()?.node.devices.by_name(&name)?.parent)
}

pub fn node_device_num_of_caps(call: &Call, name: String) -> Result<i32> {
    Ok(call.world()?.node.devices.by_name(&name)?.capabilities.len() as i32)
}

pub fn node_device_list_caps(call: &Call, name: String, maximum: i32) -> Result<Vec<String>> {
    Ok(at_most(call.world()?.node.devices.by_name(&name)?.capabilities, maximum))
}

pub fn node_device_is_active(call: &Call, name: String) -> Result<i32> {
    call.world()?.node.devices.by_name(&name)?;
    Ok(1)
}

pub fn node_device_is_persistent(call: &Call, name: String) -> Result<i32> {
    call.world()?.node.devices.by_name(&name)?;
    Ok(1)
}

pub fn node_device_get_autostart(call: &Call, name: String) -> Result<i32> {
    call.world()?.node.devices.by_name(&name)?;
    Ok(1)
}

/// `VIR_CONNECT_LIST_INTERFACES_*`: inactive 1, active 2.
fn interfaces(call: &Call, flags: u32) -> Result<Vec<node::Interface>> {
    let mut all = call.world()?.node.interfaces.all();
    all.retain(|interface| flags & 3 == 0 || flags & if interface.active { 2 } else { 1 } != 0);
    Ok(all)
}

fn interface_names(call: &Call, flags: u32, maximum: i32) -> Result<Vec<String>> {
    let names = interfaces(call, flags)?.into_iter().map(|interface| interface.name);
    Ok(at_most(names.collect(), maximum))
}

pub fn connect_list_all_interfaces(
    call: &Call,
    need_results: i32,
    flags: u32,
) -> Result<(Vec<Interface>, u32)> {
    let all = interfaces(call, flags)?;
    let references = all.iter().map(node::Interface::reference);
    Ok(counted(references.collect(), need_results))
}

pub fn connect_num_of_interfaces(call: &Call) -> Result<i32> {
    Ok(interfaces(call, 2)?.len() as i32)
}

pub fn connect_list_interfaces(call: &Call, maximum: i32) -> Result<Vec<String>> {
    interface_names(call, 2, maximum)
}

pub fn connect_num_of_defined_interfaces(call: &Call) -> Result<i32> {
    Ok(interfaces(call, 1)?.len() as i32)
}

pub fn connect_list_defined_interfaces(call: &Call, maximum: i32) -> Result<Vec<String>> {
    interface_names(call, 1, maximum)
}

pub fn interface_lookup_by_name(call: &Call, name: String) -> Result<Interface> {
    Ok(call.world()?.node.interfaces.by_name(&name)?.reference())
}

pub fn interface_lookup_by_mac_string(call: &Call, mac: String) -> Result<Interface> {
    Ok(call.world()?.node.interfaces.by_mac(&mac)?.reference())
}

pub fn interface_get_xml_desc(call: &Call, iface: Interface, _flags: u32) -> Result<String> {
    Ok(call.world()?.node.interfaces.by_name(&iface.name)?.document.to_xml())
}

pub fn interface_is_active(call: &Call, iface: Interface) -> Result<i32> {
    Ok(i32::from(call.world()?.node.interfaces.by_name(&iface.name)?.active))
}

/// No filters yet: lists are empty, looking one up fails as for any unknown name.
pub fn connect_list_all_nwfilters(
    _call: &Call,
    _need_results: i32,
    _flags: u32,
) -> Result<(Vec<Nwfilter>, u32)> {
    Ok((Vec::new(), 0))
}

pub fn connect_num_of_nwfilters(_call: &Call) -> Result<i32> {
    Ok(0)
}

pub fn connect_list_nwfilters(_call: &Call, _maximum: i32) -> Result<Vec<String>> {
    Ok(Vec::new())
}

pub fn nwfilter_lookup_by_name(_call: &Call, name: String) -> Result<Nwfilter> {
    Err(Error::new(Code::NoNwfilter, format!("no nwfilter with matching name '{name}'")))
}

pub fn nwfilter_lookup_by_uuid(_call: &Call, uuid: Uuid) -> Result<Nwfilter> {
    Err(Error::new(Code::NoNwfilter, format!("no nwfilter with matching uuid '{uuid}'")))
}

pub fn connect_list_all_nwfilter_bindings(
    _call: &Call,
    _need_results: i32,
    _flags: u32,
) -> Result<(Vec<NwfilterBinding>, u32)> {
    Ok((Vec::new(), 0))
}
