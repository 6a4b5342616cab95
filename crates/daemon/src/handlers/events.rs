//! Registering for events.

use libvirt_compat::constants::domain_event;
use libvirt_compat::event::Class;
use libvirt_compat::rpc::types::{Domain, Network, NodeDevice, Secret, StoragePool};
use libvirt_compat::{Code, Error, Result};

use super::Call;

fn register(
    call: &Call,
    class: Class,
    (id, last): (i32, i32),
    subject: Option<Vec<u8>>,
) -> Result<i32> {
    if !(0..last).contains(&id) {
        return Err(Error::new(Code::InternalError, format!("unexpected event ID {id}")));
    }
    call.world()?.events.register(&call.client, class, id, subject)
}

fn deregister(call: &Call, callback: i32) -> Result<()> {
    call.world()?.events.deregister(&call.client, callback)
}

pub fn connect_domain_event_callback_register_any(
    call: &Call,
    id: i32,
    domain: Option<Domain>,
) -> Result<i32> {
    let subject = domain.map(|domain| domain.uuid.0.to_vec());
    register(call, Class::Domain, (id, domain_event::LAST), subject)
}

pub fn connect_domain_event_callback_deregister_any(call: &Call, callback: i32) -> Result<()> {
    deregister(call, callback)
}

pub fn connect_network_event_register_any(
    call: &Call,
    id: i32,
    network: Option<Network>,
) -> Result<i32> {
    register(call, Class::Network, (id, 1), network.map(|network| network.uuid.0.to_vec()))
}

pub fn connect_network_event_deregister_any(call: &Call, callback: i32) -> Result<()> {
    deregister(call, callback)
}

pub fn connect_storage_pool_event_register_any(
    call: &Call,
    id: i32,
    pool: Option<StoragePool>,
) -> Result<i32> {
    register(call, Class::Pool, (id, 2), pool.map(|pool| pool.uuid.0.to_vec()))
}

pub fn connect_storage_pool_event_deregister_any(call: &Call, callback: i32) -> Result<()> {
    deregister(call, callback)
}

pub fn connect_node_device_event_register_any(
    call: &Call,
    id: i32,
    device: Option<NodeDevice>,
) -> Result<i32> {
    register(call, Class::NodeDevice, (id, 2), device.map(|device| device.name.into_bytes()))
}

pub fn connect_node_device_event_deregister_any(call: &Call, callback: i32) -> Result<()> {
    deregister(call, callback)
}

pub fn connect_secret_event_register_any(
    call: &Call,
    id: i32,
    secret: Option<Secret>,
) -> Result<i32> {
    register(call, Class::Secret, (id, 2), secret.map(|secret| secret.uuid.0.to_vec()))
}

pub fn connect_secret_event_deregister_any(call: &Call, callback: i32) -> Result<()> {
    deregister(call, callback)
}

/// Flags of `virConnectDomainQemuMonitorEventRegister`: the name is a pattern.
const EVENT_IS_PATTERN: u32 = 1;

pub fn qemu_connect_domain_monitor_event_register(
    call: &Call,
    domain: Option<Domain>,
    event: Option<String>,
    flags: u32,
) -> Result<i32> {
    if flags & EVENT_IS_PATTERN != 0 {
        let text = "patterns of monitor events are not supported";
        return Err(Error::new(Code::ArgumentUnsupported, text));
    }
    let subject = domain.map(|domain| domain.uuid.0.to_vec());
    call.world()?.events.register_monitor(&call.client, subject, event)
}

pub fn qemu_connect_domain_monitor_event_deregister(call: &Call, callback: i32) -> Result<()> {
    deregister(call, callback)
}
