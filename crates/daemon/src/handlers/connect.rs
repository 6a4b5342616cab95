//! Opening, closing, and what a connection says of itself.

use libvirt_compat::rpc::types::TypedParameter;
use libvirt_compat::{Code, Error, Origin, Result};

use super::Call;
use crate::drivers::CapabilitiesRequest;
use crate::node;

/// libvirt 9.0.0, whose protocol this is.
const LIBRARY_VERSION: u64 = 9_000_000;

/// `VIR_CONNECT_RO`.
const OPEN_READONLY: u32 = 1;

/// Authentication none: who may connect is decided by the socket's permissions.
pub fn auth_list(_call: &Call) -> Result<Vec<i32>> {
    Ok(vec![0])
}

pub fn auth_polkit(_call: &Call) -> Result<i32> {
    Err(Error::new(Code::AuthFailed, "authentication is not needed").from(Origin::Auth))
}

pub fn connect_open(call: &Call, name: Option<String>, flags: u32) -> Result<()> {
    if call.client.world().is_ok() {
        return Err(Error::new(Code::InternalError, "connection already open").from(Origin::Rpc));
    }
    // go-libvirt sends 0x0100_0000 where others send 0 or 1: only the lowest bit counts.
    if flags & OPEN_READONLY != 0 {
        call.client.make_readonly();
    }
    let world = call.worlds.open(name.as_deref().unwrap_or_default())?;
    call.client.set_world(Some(world));
    Ok(())
}

pub fn connect_close(call: &Call) -> Result<()> {
    if let Ok(world) = call.client.world() {
        world.events.forget(&call.client);
    }
    call.client.set_world(None);
    Ok(())
}

/// `VIR_DRV_FEATURE_*`: answered by the RPC layer (8, 10, 14, 15) or by the driver.
pub fn connect_supports_feature(_call: &Call, feature: i32) -> Result<i32> {
    const SUPPORTED: [i32; 7] = [8, 9, 10, 11, 14, 15, 16];
    Ok(i32::from(SUPPORTED.contains(&feature)))
}

pub fn connect_get_type(call: &Call) -> Result<String> {
    Ok(call.world()?.driver.kind().to_owned())
}

pub fn connect_get_version(call: &Call) -> Result<u64> {
    call.world()?.driver.version()
}

pub fn connect_get_lib_version(_call: &Call) -> Result<u64> {
    Ok(LIBRARY_VERSION)
}

pub fn connect_get_hostname(_call: &Call) -> Result<String> {
    Ok(node::hostname())
}

pub fn connect_get_uri(call: &Call) -> Result<String> {
    Ok(call.world()?.uri.clone())
}

pub fn connect_get_max_vcpus(call: &Call, kind: Option<String>) -> Result<i32> {
    call.world()?.driver.vcpus_max(kind.as_deref())
}

pub fn connect_get_capabilities(call: &Call) -> Result<String> {
    call.world()?.driver.capabilities()
}

pub fn connect_get_domain_capabilities(
    call: &Call,
    emulator: Option<String>,
    arch: Option<String>,
    machine: Option<String>,
    virt_type: Option<String>,
    _flags: u32,
) -> Result<String> {
    let request = CapabilitiesRequest { emulator, arch, machine, virt_type };
    call.world()?.driver.domain_capabilities(&request)
}

pub fn connect_get_cpu_model_names(
    call: &Call,
    arch: String,
    need_results: i32,
    _flags: u32,
) -> Result<(Vec<String>, i32)> {
    let models = call.world()?.driver.cpu_models(&arch)?;
    let (models, count) = super::counted(models, need_results);
    Ok((models, count as i32))
}

pub fn connect_get_sysinfo(_call: &Call, _flags: u32) -> Result<String> {
    Err(Error::new(Code::ConfigUnsupported, "Host SMBIOS information is not available"))
}

/// Unix sockets do not leave the host.
pub fn connect_is_secure(_call: &Call) -> Result<i32> {
    Ok(1)
}

/// Identities matter to per-object permissions, which everyone here has; sent by virtproxyd only.
pub fn connect_set_identity(_call: &Call, _params: Vec<TypedParameter>, _flags: u32) -> Result<()> {
    Err(Error::new(Code::AuthFailed, "no identity is accepted from a client").from(Origin::Auth))
}

/// The daemon never closes a connection with a message, so there is nobody to call.
pub fn connect_register_close_callback(_call: &Call) -> Result<()> {
    Ok(())
}

pub fn connect_unregister_close_callback(_call: &Call) -> Result<()> {
    Ok(())
}

pub fn connect_domain_xml_to_native(
    call: &Call,
    format: String,
    text: String,
    _flags: u32,
) -> Result<String> {
    if format != "qemu-argv" {
        let text = format!("unsupported config type {format}");
        return Err(Error::new(Code::InvalidArg, text));
    }
    let world = call.world()?;
    let document = world.driver.complete(&text)?;
    world.driver.to_native(&document)
}
