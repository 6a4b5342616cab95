//! Bitmaps of what is written, and backups with them.

use libvirt_compat::Result;
use libvirt_compat::xml::Element;
use parking_lot::Mutex;
use qemu_compat::qmp::Event;
use serde_json::{Value, json};

use super::blocks::{new_id, nodes_of, open, top_node};
use super::hotplug;
use super::machine::Machine;
use super::monitor::Monitor;
use crate::drivers::{BackupDisk, Bitmap, Report};

/// The jobs of the backup that is being made.
#[derive(Default)]
pub struct Backups(Mutex<Jobs>);

#[derive(Default)]
struct Jobs {
    /// Each with the node that it writes to.
    running: Vec<(String, String)>,
    failed: bool,
}

impl Backups {
    /// Takes an event of the monitor; answers what is to be reported once the last job has ended.
    pub fn event(&self, monitor: &Monitor, event: &Event) -> Option<Report> {
        let id = event.data["device"].as_str()?;
        let mut jobs = self.0.lock();
        let place = jobs.running.iter().position(|(own, _)| own == id)?;
        let cancelled = event.name == "BLOCK_JOB_CANCELLED";
        if !cancelled && event.name != "BLOCK_JOB_COMPLETED" {
            return None;
        }
        jobs.failed |= cancelled || !event.data["error"].is_null();
        let (_, node) = jobs.running.swap_remove(place);
        for node in nodes_of(&node) {
            monitor.send("blockdev-del", Some(json!({"node-name": node})));
        }
        if jobs.failed {
            // A backup of some of the disks is none.
            for (other, _) in &jobs.running {
                monitor.send("block-job-cancel", Some(json!({"device": other, "force": true})));
            }
        }
        let ended = jobs.running.is_empty();
        ended.then(|| Report::BackupEnded { success: !std::mem::take(&mut jobs.failed) })
    }
}

fn add(node: &str, name: &str) -> Value {
    let data = json!({"node": node, "name": name, "persistent": true});
    json!({"type": "block-dirty-bitmap-add", "data": data})
}

fn node_of(machine: &Machine, domain: &Element, target: &str) -> Result<String> {
    top_node(&machine.monitor(), &hotplug::alias_of(domain, target)?)
}

/// Begins to note what is written, on all disks at the same moment.
pub fn add_bitmaps(machine: &Machine, domain: &Element, bitmaps: &[Bitmap]) -> Result<()> {
    let action = |own: &Bitmap| Ok(add(&node_of(machine, domain, &own.target)?, &own.name));
    let actions = bitmaps.iter().map(action).collect::<Result<Vec<_>>>()?;
    machine.monitor().execute("transaction", Some(json!({"actions": actions}))).map(|_| ())
}

/// Forgets what was noted.
pub fn remove_bitmaps(machine: &Machine, domain: &Element, bitmaps: &[Bitmap]) -> Result<()> {
    let action = |own: &Bitmap| {
        let data = json!({"node": node_of(machine, domain, &own.target)?, "name": own.name});
        Ok(json!({"type": "block-dirty-bitmap-remove", "data": data}))
    };
    let actions = bitmaps.iter().map(action).collect::<Result<Vec<_>>>()?;
    machine.monitor().execute("transaction", Some(json!({"actions": actions}))).map(|_| ())
}

/// Begins a backup of disks into images that are there, and new bitmaps at the same moment.
pub fn begin(
    machine: &Machine,
    domain: &Element,
    disks: &[BackupDisk],
    bitmaps: &[Bitmap],
) -> Result<()> {
    let monitor = machine.monitor();
    let mut running = Vec::new();
    let begun = (|| {
        let mut actions = Vec::new();
        for disk in disks {
            let top = node_of(machine, domain, &disk.target)?;
            machine.open_file(&disk.file, true)?;
            let (node, _) = open(&monitor, &disk.file.to_string_lossy(), &disk.format)?;
            let id = new_id("backup", &disk.target);
            let mut data = json!({"job-id": id, "device": top, "target": node, "sync": "full"});
            if let Some(name) = &disk.since {
                data["sync"] = "bitmap".into();
                data["bitmap"] = name.as_str().into();
                // The checkpoint stays what it is, for other backups.
                data["bitmap-mode"] = "never".into();
            }
            actions.push(json!({"type": "blockdev-backup", "data": data}));
            running.push((id, node));
        }
        for own in bitmaps {
            actions.push(add(&node_of(machine, domain, &own.target)?, &own.name));
        }
        // Before the command: a short job has ended before its reply is read.
        machine.backups().0.lock().running.clone_from(&running);
        monitor.execute("transaction", Some(json!({"actions": actions}))).map(|_| ())
    })();
    if begun.is_err() {
        *machine.backups().0.lock() = Jobs::default();
        for node in running.iter().flat_map(|(_, node)| nodes_of(node)) {
            _ = monitor.execute("blockdev-del", Some(json!({"node-name": node})));
        }
    }
    begun
}

/// Gives up the backup.
pub fn abort(machine: &Machine) -> Result<()> {
    let running = machine.backups().0.lock().running.clone();
    for (id, _) in running {
        let arguments = json!({"device": id, "force": true});
        machine.monitor().execute("block-job-cancel", Some(arguments))?;
    }
    Ok(())
}
