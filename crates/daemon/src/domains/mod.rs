//! Domains: the table of them, and what every hypervisor's domains have in common.

mod lifecycle;
mod persist;
mod edit;
mod snapshots;
mod checkpoints;
mod blocks;
mod external;
pub mod cpu_set;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use libvirt_compat::constants::state;
use libvirt_compat::domain::Summary;
use libvirt_compat::rpc::types;
use libvirt_compat::xml::{self, Element};
use libvirt_compat::{Code, Error, Result, Uuid};
use parking_lot::{Mutex, MutexGuard, RwLock};

pub use checkpoints::{
    Checkpoint, abort_backup, backup, begin_backup, create as create_checkpoint,
    delete as delete_checkpoint,
};
pub use edit::{
    attach_device, change_definition, change_live, detach_device, impact, live_device,
    update_device,
};
pub use lifecycle::{
    StartOptions, autostart, create, define, emit, restore, save, start, stop, undefine,
};
pub use persist::{load, managed_save_path, write_autostart};
pub use snapshots::{
    Offline, Snapshot, create as create_snapshot, delete as delete_snapshot, is_external,
    revert as revert_to_snapshot, without_live_parts,
};

use crate::drivers::Machine;

/// libvirt waits so long for another job on the same domain.
const JOB_TIMEOUT: Duration = Duration::from_secs(30);

/// A domain. Lock order: `job`, then the table's index, then `state`. A job may take seconds;
/// `state` is only held to look or to change a field, so that lists never wait.
pub struct Domain {
    pub uuid: Uuid,
    job: Mutex<()>,
    pub state: Mutex<State>,
}

/// What is known of a domain.
#[derive(Default)]
pub struct State {
    pub name: String,
    /// -1 while it is off.
    pub id: i32,
    /// The stored definition, in libvirt's layout; a transient domain has none.
    pub definition: Option<Arc<str>>,
    /// Figures of the stored definition, or else of the live document.
    pub summary: Summary,
    pub autostart: bool,
    /// libvirt's state and reason.
    pub state: (i32, i32),
    pub live: Option<Live>,
    /// The definition has changed since it was started.
    pub updated: bool,
    pub managed_save: bool,
    pub snapshots: BTreeMap<String, Snapshot>,
    pub current_snapshot: Option<String>,
    pub checkpoints: BTreeMap<String, Checkpoint>,
    pub current_checkpoint: Option<String>,
    /// The backup that is being made.
    pub backup: Option<Element>,
    /// Images that were made for it and go with it.
    pub scratch: Vec<PathBuf>,
    /// MiB a second that a migration may use, where somebody has said so.
    pub migration_speed: Option<u64>,
    /// The balloon's last known size.
    pub balloon_kib: Option<u64>,
}

/// What only a running domain has.
pub struct Live {
    pub document: Element,
    pub machine: Arc<dyn Machine>,
    /// Tells this run from an earlier one.
    pub run: u64,
}

impl Domain {
    fn new(uuid: Uuid, name: &str) -> Self {
        let state = State {
            name: name.to_owned(),
            id: -1,
            state: (state::SHUTOFF, state::shutoff::UNKNOWN),
            ..State::default()
        };
        Self { uuid, job: Mutex::new(()), state: Mutex::new(state) }
    }

    /// How clients refer to it.
    pub fn reference(&self) -> types::Domain {
        let state = self.state.lock();
        types::Domain { name: state.name.clone(), uuid: self.uuid, id: state.id }
    }

    pub fn name(&self) -> String {
        self.state.lock().name.clone()
    }

    pub fn is_active(&self) -> bool {
        self.state.lock().live.is_some()
    }

    pub fn is_persistent(&self) -> bool {
        self.state.lock().definition.is_some()
    }

    /// Waits for the right to change the domain.
    pub fn begin(&self) -> Result<MutexGuard<'_, ()>> {
        self.job
            .try_lock_for(JOB_TIMEOUT)
            .ok_or_else(|| Error::new(Code::OperationTimeout, "cannot acquire state change lock"))
    }

    /// The machine, or libvirt's error for a domain that is off.
    pub fn machine(&self) -> Result<Arc<dyn Machine>> {
        let state = self.state.lock();
        match &state.live {
            Some(live) => Ok(Arc::clone(&live.machine)),
            None => Err(not_running()),
        }
    }

    /// The live document, or the stored one when it is off.
    pub fn document(&self) -> Result<Element> {
        let state = self.state.lock();
        match (&state.live, &state.definition) {
            (Some(live), _) => Ok(live.document.clone()),
            (None, Some(text)) => {
                let text = Arc::clone(text);
                drop(state);
                xml::parse(&text, "domain_definition")
            }
            (None, None) => Err(not_running()),
        }
    }

    /// The stored document.
    pub fn definition(&self) -> Result<Element> {
        let text = self.state.lock().definition.clone();
        let text = text.ok_or_else(|| {
            let text = "transient domains do not have any persistent config";
            Error::new(Code::OperationInvalid, text)
        })?;
        xml::parse(&text, "domain_definition")
    }
}

/// libvirt's words.
pub fn not_running() -> Error {
    Error::new(Code::OperationInvalid, "domain is not running")
}

#[derive(Default)]
struct Index {
    by_uuid: HashMap<Uuid, Arc<Domain>>,
    by_name: BTreeMap<String, Arc<Domain>>,
}

/// The table of a world's domains.
pub struct Domains {
    index: RwLock<Index>,
    next_id: AtomicI32,
}

impl Default for Domains {
    fn default() -> Self {
        Self { index: RwLock::default(), next_id: AtomicI32::new(1) }
    }
}

impl Domains {
    /// All, by name.
    pub fn all(&self) -> Vec<Arc<Domain>> {
        self.index.read().by_name.values().cloned().collect()
    }

    pub fn by_uuid(&self, uuid: Uuid) -> Option<Arc<Domain>> {
        self.index.read().by_uuid.get(&uuid).cloned()
    }

    pub fn by_name(&self, name: &str) -> Option<Arc<Domain>> {
        self.index.read().by_name.get(name).cloned()
    }

    pub fn by_id(&self, id: i32) -> Option<Arc<Domain>> {
        let found = |domain: &&Arc<Domain>| domain.state.lock().id == id;
        self.index.read().by_name.values().find(found).cloned()
    }

    /// The domain a client refers to; libvirt looks it up by UUID.
    pub fn find(&self, reference: &types::Domain) -> Result<Arc<Domain>> {
        self.by_uuid(reference.uuid).ok_or_else(|| {
            let types::Domain { uuid, name, .. } = reference;
            Error::new(Code::NoDomain, format!("no domain with matching uuid '{uuid}' ({name})"))
        })
    }

    /// Ids count up and are never used twice.
    pub fn new_id(&self) -> i32 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// No new domain gets this id or a smaller one.
    fn reserve_id(&self, id: i32) {
        self.next_id.fetch_max(id.saturating_add(1), Ordering::Relaxed);
    }

    /// The domain with this name and UUID, made if neither is taken. Refused when only one is.
    fn claim(&self, name: &str, uuid: Uuid) -> Result<(Arc<Domain>, bool)> {
        let mut index = self.index.write();
        if let Some(domain) = index.by_uuid.get(&uuid) {
            let known = domain.name();
            if known != name {
                let text = format!("domain '{known}' is already defined with uuid {uuid}");
                return Err(Error::new(Code::OperationFailed, text));
            }
            return Ok((Arc::clone(domain), false));
        }
        if let Some(domain) = index.by_name.get(name) {
            let text = format!("domain '{name}' already exists with uuid {}", domain.uuid);
            return Err(Error::new(Code::OperationFailed, text));
        }
        let domain = Arc::new(Domain::new(uuid, name));
        index.by_uuid.insert(uuid, Arc::clone(&domain));
        index.by_name.insert(name.to_owned(), Arc::clone(&domain));
        Ok((domain, true))
    }

    /// Takes a domain out of the table.
    fn forget(&self, domain: &Domain) {
        let mut index = self.index.write();
        index.by_uuid.remove(&domain.uuid);
        index.by_name.retain(|_, other| other.uuid != domain.uuid);
    }

    /// Gives a domain another name.
    pub fn rename(&self, domain: &Arc<Domain>, name: &str) -> Result<()> {
        let mut index = self.index.write();
        if index.by_name.contains_key(name) {
            let text = format!("domain with name '{name}' already exists");
            return Err(Error::new(Code::OperationInvalid, text));
        }
        index.by_name.retain(|_, other| other.uuid != domain.uuid);
        index.by_name.insert(name.to_owned(), Arc::clone(domain));
        domain.state.lock().name = name.to_owned();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_uuid_belong_together() {
        let domains = Domains::default();
        let (one, two) = (Uuid([1; 16]), Uuid([2; 16]));
        assert!(domains.claim("a", one).unwrap().1);
        assert!(!domains.claim("a", one).unwrap().1, "the same again is the same domain");
        for (name, uuid, message) in [
            ("a", two, format!("operation failed: domain 'a' already exists with uuid {one}")),
            ("b", one, format!("operation failed: domain 'a' is already defined with uuid {one}")),
        ] {
            assert_eq!(domains.claim(name, uuid).err().unwrap().message(), message);
        }
        let domain = domains.by_name("a").unwrap();
        domains.rename(&domain, "c").unwrap();
        assert!(domains.by_name("a").is_none());
        domains.forget(&domain);
        assert!(domains.all().is_empty());
    }
}
