//! What is set beforehand for migrations.

use libvirt_compat::rpc::types::Domain;
use libvirt_compat::{Code, Error, Result};

use super::{Call, check_flags};

/// MiB a second: as many bytes as a signed number can count, which means no limit.
const SPEED_MAX: u64 = (i64::MAX as u64) >> 20;

pub fn domain_migrate_set_max_speed(
    call: &Call,
    dom: Domain,
    bandwidth: u64,
    flags: u32,
) -> Result<()> {
    check_flags(flags, 0, "qemuDomainMigrateSetMaxSpeed")?;
    let (_, domain) = call.domain(&dom)?;
    if bandwidth > SPEED_MAX {
        let text = format!("bandwidth must be less than {}", SPEED_MAX + 1);
        return Err(Error::new(Code::Overflow, text));
    }
    domain.state.lock().migration_speed = Some(bandwidth);
    Ok(())
}

pub fn domain_migrate_get_max_speed(call: &Call, dom: Domain, flags: u32) -> Result<u64> {
    check_flags(flags, 0, "qemuDomainMigrateGetMaxSpeed")?;
    let (_, domain) = call.domain(&dom)?;
    let state = domain.state.lock();
    Ok(state.migration_speed.unwrap_or(SPEED_MAX))
}
