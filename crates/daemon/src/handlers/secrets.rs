//! Secrets.

use libvirt_compat::rpc::types::Secret;
use libvirt_compat::rpc::xdr::Opaque;
use libvirt_compat::{Code, Error, Result, Uuid};

use super::{Call, at_most, counted};
use crate::secrets;

/// `VIR_CONNECT_LIST_SECRETS_*`.
fn select(call: &Call, flags: u32) -> Result<Vec<Secret>> {
    let matches = |own: u32, group: u32| flags & group == 0 || flags & own != 0;
    let all = call.world()?.secrets.all();
    let chosen = all.iter().filter(|secret| {
        matches(if secret.ephemeral { 1 } else { 2 }, 3)
            && matches(if secret.private { 4 } else { 8 }, 12)
    });
    Ok(chosen.map(secrets::Secret::reference).collect())
}

pub fn connect_list_all_secrets(
    call: &Call,
    need_results: i32,
    flags: u32,
) -> Result<(Vec<Secret>, u32)> {
    Ok(counted(select(call, flags)?, need_results))
}

pub fn connect_num_of_secrets(call: &Call) -> Result<i32> {
    Ok(select(call, 0)?.len() as i32)
}

pub fn connect_list_secrets(call: &Call, maximum: i32) -> Result<Vec<String>> {
    let uuids = select(call, 0)?.into_iter().map(|secret| secret.uuid.to_string());
    Ok(at_most(uuids.collect(), maximum))
}

pub fn secret_lookup_by_uuid(call: &Call, uuid: Uuid) -> Result<Secret> {
    Ok(call.world()?.secrets.by_uuid(uuid)?.reference())
}

pub fn secret_lookup_by_usage(call: &Call, kind: i32, usage: String) -> Result<Secret> {
    Ok(call.world()?.secrets.by_usage(kind, &usage)?.reference())
}

pub fn secret_define_xml(call: &Call, text: String, _flags: u32) -> Result<Secret> {
    let world = call.world()?;
    Ok(world.secrets.define(&world, &text)?.reference())
}

pub fn secret_undefine(call: &Call, secret: Secret) -> Result<()> {
    let world = call.world()?;
    world.secrets.undefine(&world, secret.uuid)
}

pub fn secret_get_xml_desc(call: &Call, secret: Secret, _flags: u32) -> Result<String> {
    Ok(secrets::find(&call.world()?, &secret)?.document.to_xml())
}

pub fn secret_set_value(call: &Call, secret: Secret, value: Opaque, _flags: u32) -> Result<()> {
    let world = call.world()?;
    world.secrets.set_value(&world, secret.uuid, value.0)
}

pub fn secret_get_value(call: &Call, secret: Secret, _flags: u32) -> Result<Opaque> {
    let secret = secrets::find(&call.world()?, &secret)?;
    if secret.private {
        return Err(Error::new(Code::InvalidSecret, "secret is private"));
    }
    match secret.value {
        Some(value) => Ok(Opaque(value)),
        None => {
            let text = format!("secret '{}' does not have a value", secret.uuid);
            Err(Error::new(Code::NoSecret, text))
        }
    }
}
