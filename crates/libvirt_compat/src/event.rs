//! Events: what the daemon tells clients unasked, with the procedure that carries each.

use crate::rpc::types::{Domain, Network, NodeDevice, Secret, StoragePool, TypedParameter};
use crate::rpc::xdr::{Xdr, to_bytes};

/// Something that happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// To a domain.
    Domain(Domain, DomainEvent),
    /// A network's type and detail.
    Network(Network, i32, i32),
    /// A pool's type and detail.
    Pool(StoragePool, i32, i32),
    /// A pool has read its contents again.
    PoolRefresh(StoragePool),
    /// A host device's type and detail.
    NodeDevice(NodeDevice, i32, i32),
    /// A secret's type and detail.
    Secret(Secret, i32, i32),
    /// A secret has a new value.
    SecretValue(Secret),
}

/// Something that happened to a domain, in the order of libvirt's event ids.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "the fields are explained with their variant")]
pub enum DomainEvent {
    /// Type and detail.
    Lifecycle(i32, i32),
    /// The guest rebooted.
    Reboot,
    /// The guest set its clock.
    RtcChange(i64),
    /// The watchdog acted.
    Watchdog(i32),
    /// Path, alias, action, reason; sent both without (id 4) and with the reason (id 6).
    IoError { path: String, alias: String, action: i32, reason: String },
    /// A block job by path (id 8) or by target (id 16): name, type, status.
    BlockJob { path: String, target: String, kind: i32, status: i32 },
    /// A disk got another medium: old and new path, alias, reason.
    DiskChange { old: Option<String>, new: Option<String>, alias: String, reason: i32 },
    /// A tray opened (0) or closed (1).
    TrayChange { alias: String, reason: i32 },
    /// Woken.
    PmWakeup,
    /// Suspended to memory.
    PmSuspend,
    /// The balloon's size in KiB.
    BalloonChange(u64),
    /// Suspended to disk.
    PmSuspendDisk,
    /// A device is gone.
    DeviceRemoved(String),
    /// A setting changed.
    Tunable(Vec<TypedParameter>),
    /// The guest's agent came or went: state and reason.
    AgentLifecycle(i32, i32),
    /// A device has come.
    DeviceAdded(String),
    /// A job is done.
    JobCompleted(Vec<TypedParameter>),
    /// The guest refused to let a device go.
    DeviceRemovalFailed(String),
    /// Title, description or an application's metadata changed.
    MetadataChange(i32, Option<String>),
    /// More was written than a threshold allows: device, path, threshold, excess.
    BlockThreshold(String, Option<String>, u64, u64),
}

impl DomainEvent {
    /// The ids under which clients may have registered for this.
    pub fn ids(&self) -> &'static [i32] {
        match self {
            Self::Lifecycle(..) => &[0],
            Self::Reboot => &[1],
            Self::RtcChange(..) => &[2],
            Self::Watchdog(..) => &[3],
            Self::IoError { .. } => &[4, 6],
            Self::BlockJob { .. } => &[8, 16],
            Self::DiskChange { .. } => &[9],
            Self::TrayChange { .. } => &[10],
            Self::PmWakeup => &[11],
            Self::PmSuspend => &[12],
            Self::BalloonChange(..) => &[13],
            Self::PmSuspendDisk => &[14],
            Self::DeviceRemoved(..) => &[15],
            Self::Tunable(..) => &[17],
            Self::AgentLifecycle(..) => &[18],
            Self::DeviceAdded(..) => &[19],
            Self::JobCompleted(..) => &[21],
            Self::DeviceRemovalFailed(..) => &[22],
            Self::MetadataChange(..) => &[23],
            Self::BlockThreshold(..) => &[24],
        }
    }

    /// The message for a registration under `id`: its procedure and payload.
    fn encode(&self, domain: &Domain, id: i32, callback: i32) -> (u32, Vec<u8>) {
        let start = (callback, domain.clone());
        match self {
            Self::Lifecycle(kind, detail) => (318, to_bytes(&(start, (*kind, *detail)))),
            Self::Reboot => (319, to_bytes(&start)),
            Self::RtcChange(offset) => (320, to_bytes(&(start, *offset))),
            Self::Watchdog(action) => (321, to_bytes(&(start, *action))),
            Self::IoError { path, alias, action, reason } => {
                let mut bytes = to_bytes(&(start, path.clone(), alias.clone(), *action));
                if id == 4 {
                    return (322, bytes);
                }
                reason.encode(&mut bytes);
                (324, bytes)
            }
            Self::BlockJob { path, target, kind, status } => {
                let (procedure, name) = if id == 8 { (326, path) } else { (339, target) };
                (procedure, to_bytes(&(start, name.clone(), *kind, *status)))
            }
            Self::DiskChange { old, new, alias, reason } => {
                (327, to_bytes(&(start, old.clone(), new.clone(), alias.clone(), *reason)))
            }
            Self::TrayChange { alias, reason } => (328, to_bytes(&(start, alias.clone(), *reason))),
            // These three carry a reason between callback and domain, always 0.
            Self::PmWakeup => (329, to_bytes(&(callback, 0i32, domain.clone()))),
            Self::PmSuspend => (330, to_bytes(&(callback, 0i32, domain.clone()))),
            Self::PmSuspendDisk => (332, to_bytes(&(callback, 0i32, domain.clone()))),
            Self::BalloonChange(actual) => (331, to_bytes(&(start, *actual))),
            Self::DeviceRemoved(alias) => (333, to_bytes(&(start, alias.clone()))),
            Self::Tunable(parameters) => (346, to_bytes(&(start, parameters.clone()))),
            Self::AgentLifecycle(state, reason) => (348, to_bytes(&(start, *state, *reason))),
            Self::DeviceAdded(alias) => (354, to_bytes(&(start, alias.clone()))),
            Self::JobCompleted(parameters) => (363, to_bytes(&(start, parameters.clone()))),
            Self::DeviceRemovalFailed(alias) => (367, to_bytes(&(start, alias.clone()))),
            Self::MetadataChange(kind, uri) => (379, to_bytes(&(start, *kind, uri.clone()))),
            Self::BlockThreshold(device, path, threshold, excess) => {
                let rest = (device.clone(), path.clone(), *threshold, *excess);
                (385, to_bytes(&(start, rest)))
            }
        }
    }
}

/// Which kind of object a client registered for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Domains.
    Domain,
    /// Networks.
    Network,
    /// Pools.
    Pool,
    /// Host devices.
    NodeDevice,
    /// Secrets.
    Secret,
}

impl Event {
    /// The kind of object this is about.
    pub fn class(&self) -> Class {
        match self {
            Self::Domain(..) => Class::Domain,
            Self::Network(..) => Class::Network,
            Self::Pool(..) | Self::PoolRefresh(..) => Class::Pool,
            Self::NodeDevice(..) => Class::NodeDevice,
            Self::Secret(..) | Self::SecretValue(..) => Class::Secret,
        }
    }

    /// The ids under which clients may have registered for this.
    pub fn ids(&self) -> &'static [i32] {
        match self {
            Self::Domain(_, event) => event.ids(),
            Self::PoolRefresh(..) | Self::SecretValue(..) => &[1],
            _ => &[0],
        }
    }

    /// What identifies the object: a UUID, or a host device's name.
    pub fn subject(&self) -> Vec<u8> {
        match self {
            Self::Domain(domain, _) => domain.uuid.0.to_vec(),
            Self::Network(network, ..) => network.uuid.0.to_vec(),
            Self::Pool(pool, ..) | Self::PoolRefresh(pool) => pool.uuid.0.to_vec(),
            Self::NodeDevice(device, ..) => device.name.clone().into_bytes(),
            Self::Secret(secret, ..) | Self::SecretValue(secret) => secret.uuid.0.to_vec(),
        }
    }

    /// The message for a registration: its procedure and payload.
    pub fn encode(&self, id: i32, callback: i32) -> (u32, Vec<u8>) {
        match self {
            Self::Domain(domain, event) => event.encode(domain, id, callback),
            Self::Network(network, kind, detail) => {
                (315, to_bytes(&(callback, network.clone(), *kind, *detail)))
            }
            Self::Pool(pool, kind, detail) => {
                (370, to_bytes(&(callback, pool.clone(), *kind, *detail)))
            }
            Self::PoolRefresh(pool) => (373, to_bytes(&(callback, pool.clone()))),
            Self::NodeDevice(device, kind, detail) => {
                (376, to_bytes(&(callback, device.clone(), *kind, *detail)))
            }
            Self::Secret(secret, kind, detail) => {
                (382, to_bytes(&(callback, secret.clone(), *kind, *detail)))
            }
            Self::SecretValue(secret) => (383, to_bytes(&(callback, secret.clone()))),
        }
    }
}

/// The program's number that `qemu-monitor-event` messages use, and their procedure.
pub const MONITOR_EVENT: (u32, u32) = (crate::rpc::PROGRAM_QEMU, 6);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Uuid;
    use crate::rpc::types::Domain;
    use crate::rpc::{Standing, find};

    #[test]
    fn every_event_travels_in_a_procedure_that_is_an_event() {
        let domain = Domain { name: "vm".into(), uuid: Uuid::default(), id: 1 };
        let events = [
            DomainEvent::Lifecycle(2, 0),
            DomainEvent::Reboot,
            DomainEvent::IoError {
                path: String::new(),
                alias: String::new(),
                action: 0,
                reason: String::new(),
            },
            DomainEvent::BlockJob {
                path: String::new(),
                target: String::new(),
                kind: 1,
                status: 0,
            },
            DomainEvent::PmWakeup,
            DomainEvent::DeviceAdded(String::new()),
            DomainEvent::MetadataChange(0, None),
        ];
        for event in events {
            for id in event.ids() {
                let (procedure, _) = Event::Domain(domain.clone(), event.clone()).encode(*id, 1);
                let row = find(crate::rpc::PROGRAM_REMOTE, procedure).unwrap();
                assert_eq!(row.standing, Standing::Event, "{event:?}");
            }
        }
    }
}
