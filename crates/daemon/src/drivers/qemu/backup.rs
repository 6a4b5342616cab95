//! Bitmaps of what is written, and backups with them.

use libvirt_compat::Result;
use libvirt_compat::xml::Element;
use parking_lot::Mutex;
use qemu_compat::qmp::Event;
use serde_json::{Value, json};

use super::blocks::{new_id, nodes_of, open, open_over, top_node};
use super::hotplug;
use super::machine::Machine;
use super::monitor::Monitor;
use crate::drivers::{BackupDisk, BackupServer, Bitmap, Report};

/// The jobs of the backup that is being made.
#[derive(Default)]
pub struct Backups(Mutex<Jobs>);

#[derive(Clone, Default)]
struct Jobs {
    /// Each with the node that it writes to.
    running: Vec<(String, String)>,
    failed: bool,
    /// Readers come by NBD.
    serves: bool,
    /// Bitmaps that only they need, with their nodes.
    shown: Vec<(String, String)>,
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
        ended.then(|| {
            let ended = std::mem::take(&mut *jobs);
            forget_shown(monitor, &ended);
            // Whoever has read all ends the serving so.
            Report::BackupEnded { success: ended.serves || !ended.failed }
        })
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

/// The bitmap that shows readers of a served disk what was written, under libvirt's name.
fn shown_bitmap(target: &str) -> String {
    format!("backup-{target}")
}

/// Opens the image that keeps what is overwritten while the disk is served, over the disk.
fn open_scratch(monitor: &Monitor, disk: &BackupDisk, top: &str) -> Result<String> {
    let (node, _) = open_over(monitor, &disk.file.to_string_lossy(), &disk.format, Some(top))?;
    Ok(node)
}

/// What one disk adds to the transaction that all begin with.
fn prepare(
    monitor: &Monitor,
    disk: &BackupDisk,
    (top, id, node): (&str, &str, &str),
    actions: &mut Vec<Value>,
) {
    let mut data = json!({"job-id": id, "device": top, "target": node, "sync": "full"});
    match (&disk.since, &disk.export) {
        (Some(name), None) => {
            data["sync"] = "bitmap".into();
            data["bitmap"] = name.as_str().into();
            // The checkpoint stays what it is, for other backups.
            data["bitmap-mode"] = "never".into();
        }
        (None, None) => {}
        (since, Some(_)) => {
            data["sync"] = "none".into();
            if let Some(since) = since {
                let shown = shown_bitmap(&disk.target);
                // One that a daemon left behind that was killed.
                let old = json!({"node": top, "name": shown});
                _ = monitor.execute("block-dirty-bitmap-remove", Some(old));
                let new = json!({"node": top, "name": shown, "disabled": true});
                actions.push(json!({"type": "block-dirty-bitmap-add", "data": new}));
                let merge = json!({"node": top, "target": shown, "bitmaps": [since]});
                actions.push(json!({"type": "block-dirty-bitmap-merge", "data": merge}));
            }
        }
    }
    actions.push(json!({"type": "blockdev-backup", "data": data}));
}

/// Begins a backup of disks into images that are there, or the serving of disks as they are now,
/// and new bitmaps at the same moment.
pub fn begin(
    machine: &Machine,
    domain: &Element,
    (disks, server): (&[BackupDisk], Option<&BackupServer>),
    bitmaps: &[Bitmap],
) -> Result<()> {
    let monitor = machine.monitor();
    let mut begun = Jobs::default();
    let result = (|| {
        if let Some(server) = server {
            monitor.execute("nbd-server-start", Some(address(machine, server)?))?;
            begun.serves = true;
        }
        let mut actions = Vec::new();
        for disk in disks {
            let top = node_of(machine, domain, &disk.target)?;
            machine.open_file(&disk.file, true)?;
            let node = match &disk.export {
                Some(_) => open_scratch(&monitor, disk, &top)?,
                None => open(&monitor, &disk.file.to_string_lossy(), &disk.format)?.0,
            };
            let id = new_id("backup", &disk.target);
            begun.running.push((id.clone(), node.clone()));
            prepare(&monitor, disk, (&top, &id, &node), &mut actions);
            if disk.export.is_some() && disk.since.is_some() {
                begun.shown.push((top, shown_bitmap(&disk.target)));
            }
        }
        for own in bitmaps {
            actions.push(add(&node_of(machine, domain, &own.target)?, &own.name));
        }
        // Before the command: a short job has ended before its reply is read.
        machine.backups().0.lock().clone_from(&begun);
        monitor.execute("transaction", Some(json!({"actions": actions})))?;
        serve(&monitor, disks, &begun)
    })();
    if result.is_err() {
        *machine.backups().0.lock() = Jobs::default();
        if begun.serves {
            _ = monitor.execute("nbd-server-stop", None);
        }
        for (id, node) in &begun.running {
            let arguments = json!({"device": id, "force": true});
            _ = monitor.execute("block-job-cancel", Some(arguments));
            for node in nodes_of(node) {
                _ = monitor.execute("blockdev-del", Some(json!({"node-name": node})));
            }
        }
        forget_shown(&monitor, &begun);
    }
    result
}

fn address(machine: &Machine, server: &BackupServer) -> Result<Value> {
    let address = match server {
        BackupServer::Unix(path) => {
            let path = machine.open_socket(path)?;
            json!({"type": "unix", "data": {"path": path}})
        }
        BackupServer::Tcp(host, port) => {
            json!({"type": "inet", "data": {"host": host, "port": port}})
        }
    };
    Ok(json!({"addr": address}))
}

/// Opens the disks to readers.
fn serve(monitor: &Monitor, disks: &[BackupDisk], begun: &Jobs) -> Result<()> {
    for (disk, (id, node)) in disks.iter().zip(&begun.running) {
        let Some(name) = &disk.export else { continue };
        let mut export = json!({"type": "nbd", "id": id, "node-name": node, "name": name});
        if disk.since.is_some() {
            export["bitmaps"] = json!([shown_bitmap(&disk.target)]);
        }
        monitor.execute("block-export-add", Some(export))?;
    }
    Ok(())
}

fn forget_shown(monitor: &Monitor, jobs: &Jobs) {
    for (node, name) in &jobs.shown {
        monitor.send("block-dirty-bitmap-remove", Some(json!({"node": node, "name": name})));
    }
}

/// Gives up the backup, or ends the serving of disks.
pub fn abort(machine: &Machine) -> Result<()> {
    let jobs = machine.backups().0.lock().clone();
    if jobs.serves {
        machine.monitor().execute("nbd-server-stop", None)?;
    }
    for (id, _) in jobs.running {
        let arguments = json!({"device": id, "force": true});
        machine.monitor().execute("block-job-cancel", Some(arguments))?;
    }
    Ok(())
}
