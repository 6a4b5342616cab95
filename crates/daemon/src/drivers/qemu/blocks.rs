//! Block jobs and overlays: disks that grow, shrink and move while the guest uses them.
//!
//! A job is known by its disk's target. What the monitor tells of it arrives on the monitor's
//! thread, which never waits; whoever ends a job waits for that.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Result};
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};

use super::hotplug;
use super::machine::Machine;
use super::monitor::Monitor;
use crate::drivers::{BlockJob, BlockJobInfo, BlockJobKind, DiskChange, Overlay, Report};
use crate::storage;

/// A job that was told to end has this long.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// `virConnectDomainEventBlockJobStatus`.
const COMPLETED: i32 = 0;
const FAILED: i32 = 1;
const CANCELLED: i32 = 2;
const READY: i32 = 3;

/// The jobs of one machine.
#[derive(Default)]
pub struct Jobs {
    list: Mutex<Vec<Job>>,
    /// Jobs that have ended, until everybody has been told.
    ending: Mutex<Vec<String>>,
    ended: Condvar,
}

struct Job {
    id: String,
    target: String,
    kind: BlockJobKind,
    /// The disk's file when the job began.
    path: String,
    ready: bool,
    /// The disk is to go over to the job's target.
    pivots: bool,
    /// What the disk is when the job has succeeded.
    change: DiskChange,
    /// Nodes that nobody needs when the disk has gone over, and when it has not.
    old_nodes: Vec<String>,
    new_nodes: Vec<String>,
}

impl Jobs {
    /// Takes an event of the monitor; answers what is to be reported.
    pub fn event(&self, monitor: &Monitor, name: &str, data: &Value) -> Option<Report> {
        let id = data["device"].as_str().or_else(|| data["id"].as_str())?;
        let mut list = self.list.lock();
        let place = list.iter().position(|job| job.id == id)?;
        if name == "BLOCK_JOB_READY" {
            list[place].ready = true;
            return Some(list[place].report(READY, None));
        }
        let failed = !data["error"].is_null();
        let status = match name {
            "BLOCK_JOB_CANCELLED" => CANCELLED,
            "BLOCK_JOB_COMPLETED" if failed => FAILED,
            "BLOCK_JOB_COMPLETED" => COMPLETED,
            _ => return None,
        };
        self.ending.lock().push(id.to_owned());
        let job = list.swap_remove(place);
        let moves = matches!(job.kind, BlockJobKind::Copy | BlockJobKind::ActiveCommit);
        let done = status == COMPLETED && (job.pivots || !moves);
        for node in if done { &job.old_nodes } else { &job.new_nodes } {
            monitor.send("blockdev-del", Some(json!({"node-name": node})));
        }
        let change = done.then(|| job.change.clone());
        Some(job.report(status, change))
    }

    /// Everybody has been told of the jobs that have ended: whoever waits for one can go on. A client
    /// that begins another job now must not take the end of this one for the end of its own.
    pub fn told(&self) {
        // Under the lock that waiters hold while they look.
        let _list = self.list.lock();
        self.ending.lock().clear();
        self.ended.notify_all();
    }

    fn is_busy(&self, target: &str) -> bool {
        self.list.lock().iter().any(|job| job.target == target)
    }

    fn find<R>(&self, target: &str, look: impl FnOnce(&mut Job) -> R) -> Option<R> {
        self.list.lock().iter_mut().find(|job| job.target == target).map(look)
    }

    fn wait(&self, id: &str) -> Result<()> {
        let deadline = Instant::now() + END_TIMEOUT;
        let mut list = self.list.lock();
        while list.iter().any(|job| job.id == id) || self.ending.lock().iter().any(|own| own == id)
        {
            if self.ended.wait_until(&mut list, deadline).timed_out() {
                let text = "timed out during operation: the block job does not end";
                return Err(Error::new(Code::OperationTimeout, text));
            }
        }
        Ok(())
    }
}

impl Job {
    fn report(&self, status: i32, change: Option<DiskChange>) -> Report {
        Report::BlockJob {
            target: self.target.clone(),
            path: self.path.clone(),
            kind: self.kind as i32,
            status,
            change,
        }
    }
}

fn disk<'a>(domain: &'a Element, target: &str) -> Result<&'a Element> {
    let mut disks = domain.child("devices").into_iter().flat_map(|devices| devices.all("disk"));
    disks
        .find(|disk| disk.attribute_at("target", "dev") == Some(target))
        .ok_or_else(|| Error::new(Code::InvalidArg, format!("disk '{target}' not found in domain")))
}

fn path_of(disk: &Element, target: &str) -> Result<PathBuf> {
    crate::drivers::disk_path(disk).ok_or_else(|| {
        Error::new(Code::OperationUnsupported, format!("disk '{target}' has no source"))
    })
}

/// The node that a disk's device is plugged into.
pub fn top_node(monitor: &Monitor, alias: &str) -> Result<String> {
    let answer = monitor.execute("query-block", None)?;
    let own = |entry: &&Value| {
        let path = entry["qdev"].as_str().unwrap_or_default();
        path.split('/').any(|part| part == alias)
    };
    let entry = answer.as_array().and_then(|list| list.iter().find(own));
    let node = entry.and_then(|entry| entry["inserted"]["node-name"].as_str());
    node.map(str::to_owned).ok_or_else(|| {
        Error::new(Code::OperationFailed, format!("the emulator has no medium in '{alias}'"))
    })
}

/// The file nodes and the nodes on them are named alike, except what the emulator named itself.
pub fn nodes_of(node: &str) -> Vec<String> {
    match node.strip_suffix("-format") {
        Some(start) => vec![node.to_owned(), format!("{start}-storage")],
        None => Vec::new(),
    }
}

/// The nodes of these images that were opened by name: the others go with the last who needs them.
fn opened(monitor: &Monitor, files: &[PathBuf]) -> Result<Vec<String>> {
    let answer = monitor.execute("query-named-block-nodes", Some(json!({"flat": true})))?;
    let nodes = answer.as_array().cloned().unwrap_or_default();
    let of = |file: &PathBuf| {
        let own = nodes.iter().find(|node| {
            let name = node["node-name"].as_str().unwrap_or_default();
            name.ends_with("-format") && node["file"].as_str() == file.to_str()
        });
        own.map(|node| nodes_of(node["node-name"].as_str().unwrap_or_default()))
    };
    Ok(files.iter().filter_map(of).flatten().collect())
}

/// A number of nodes that no disk and no backing image has.
fn free_nodes(monitor: &Monitor) -> Result<(String, String, u64)> {
    let answer = monitor.execute("query-named-block-nodes", Some(json!({"flat": true})))?;
    let numbers = answer.as_array().into_iter().flatten().filter_map(|node| {
        let rest = node["node-name"].as_str()?.strip_prefix("libvirt-")?;
        rest.split('-').next()?.parse::<u64>().ok()
    });
    let number = numbers.max().unwrap_or(0) + 1;
    Ok((format!("libvirt-{number}-storage"), format!("libvirt-{number}-format"), number))
}

/// Opens an image beside what there is; its own backing file stays closed.
pub fn open(monitor: &Monitor, path: &str, format: &str) -> Result<(String, u64)> {
    open_over(monitor, path, format, None)
}

/// The same over a node that is there.
pub fn open_over(
    monitor: &Monitor,
    path: &str,
    format: &str,
    below: Option<&str>,
) -> Result<(String, u64)> {
    let (storage, node, number) = free_nodes(monitor)?;
    let file = json!({
        "driver": "file", "filename": path, "node-name": storage,
        "auto-read-only": true, "discard": "unmap"
    });
    monitor.execute("blockdev-add", Some(file))?;
    let mut image =
        json!({"driver": format, "node-name": node, "read-only": false, "file": storage});
    if format != "raw" {
        image["backing"] = below.map_or(Value::Null, Value::from);
    }
    if let Err(error) = monitor.execute("blockdev-add", Some(image)) {
        _ = monitor.execute("blockdev-del", Some(json!({"node-name": storage})));
        return Err(error);
    }
    Ok((node, number))
}

/// Begins a job on a disk.
pub fn start(machine: &Machine, domain: &Element, target: &str, wish: &BlockJob) -> Result<()> {
    let jobs = machine.jobs();
    if jobs.is_busy(target) {
        let text = format!("disk '{target}' already in active block job");
        return Err(Error::new(Code::BlockCopyActive, text));
    }
    let monitor = machine.monitor();
    let own = disk(domain, target)?;
    let path = path_of(own, target)?.display().to_string();
    let top = top_node(&monitor, &hotplug::alias_of(domain, target)?)?;
    let mut job = Job {
        id: String::new(),
        target: target.to_owned(),
        kind: wish.kind(),
        path: path.clone(),
        ready: false,
        pivots: false,
        change: DiskChange::Chain,
        old_nodes: Vec::new(),
        new_nodes: Vec::new(),
    };
    let mut arguments = json!({"device": top});
    open_for(machine, &path, wish)?;
    let command = detail(&monitor, &mut job, wish, &mut arguments)?;
    if wish.speed() > 0 {
        arguments["speed"] = wish.speed().into();
    }
    arguments["job-id"] = job.id.as_str().into();
    let (id, new_nodes) = (job.id.clone(), job.new_nodes.clone());
    // Before the command: a short job has ended before its reply is read.
    jobs.list.lock().push(job);
    if let Err(error) = monitor.execute(command, Some(arguments)) {
        jobs.list.lock().retain(|job| job.id != id);
        for node in new_nodes {
            _ = monitor.execute("blockdev-del", Some(json!({"node-name": node})));
        }
        return Err(error);
    }
    Ok(())
}

/// Opens the images that a job writes to and the machine has not written to so far.
fn open_for(machine: &Machine, path: &str, wish: &BlockJob) -> Result<()> {
    match wish {
        BlockJob::Pull { .. } => Ok(()),
        BlockJob::Copy { file, .. } => machine.open_file(Path::new(file), true),
        // The images between are not written to, but their heads are.
        BlockJob::Commit { .. } => storage::chain(Path::new(path))?
            .iter()
            .try_for_each(|(file, _)| machine.open_file(file, true)),
    }
}

/// What is special to a kind of job: the command, its arguments, what becomes of the nodes.
fn detail(
    monitor: &Monitor,
    job: &mut Job,
    wish: &BlockJob,
    arguments: &mut Value,
) -> Result<&'static str> {
    // The images from the disk's own to the last, and those that the job leaves without a user.
    let chain = storage::chain(Path::new(&job.path))?;
    let mut files: Vec<PathBuf> = vec![PathBuf::from(&job.path)];
    files.extend(chain.iter().map(|(file, _)| file.clone()));
    let place = |file: &Option<String>, otherwise: usize| {
        let own = |file: &String| files.iter().position(|other| other.as_os_str() == file.as_str());
        file.as_ref().and_then(own).unwrap_or(otherwise)
    };
    match wish {
        BlockJob::Pull { base, .. } => {
            if let Some(base) = base {
                arguments["base"] = base.as_str().into();
            }
            job.old_nodes = opened(monitor, &files[1..place(base, files.len()).max(1)])?;
            job.id = new_id("pull", &job.target);
            Ok("block-stream")
        }
        BlockJob::Commit { top: upper, base, .. } => {
            job.id = new_id("commit", &job.target);
            if let Some(upper) = upper.as_ref().filter(|upper| **upper != job.path) {
                arguments["top"] = upper.as_str().into();
            }
            if let Some(base) = base {
                arguments["base"] = base.as_str().into();
            }
            if job.kind == BlockJobKind::ActiveCommit {
                let lower = match base {
                    Some(base) => chain.iter().find(|(file, _)| file.as_os_str() == base.as_str()),
                    None => chain.last(),
                };
                let (file, format) = lower.cloned().ok_or_else(|| no_backing(&job.path))?;
                job.change = DiskChange::Source { file, format, index: None };
            }
            let (first, last) = (place(upper, 0), place(base, files.len() - 1));
            job.old_nodes = opened(monitor, files.get(first..last).unwrap_or_default())?;
            Ok("block-commit")
        }
        BlockJob::Copy { file, format, .. } => {
            let (node, number) = open(monitor, file, format)?;
            job.id = new_id("copy", &job.target);
            job.change = DiskChange::Source {
                file: PathBuf::from(file),
                format: format.clone(),
                index: Some(number),
            };
            job.new_nodes = nodes_of(&node);
            job.old_nodes = opened(monitor, &files)?;
            arguments["target"] = node.as_str().into();
            arguments["sync"] = "full".into();
            Ok("blockdev-mirror")
        }
    }
}

fn no_backing(path: &str) -> Error {
    Error::new(Code::OperationInvalid, format!("'{path}' has no backing file"))
}

/// How far a disk's job is.
pub fn info(machine: &Machine, target: &str) -> Result<Option<BlockJobInfo>> {
    let Some((id, kind, ready)) =
        machine.jobs().find(target, |job| (job.id.clone(), job.kind, job.ready))
    else {
        return Ok(None);
    };
    let answer = machine.monitor().execute("query-block-jobs", None)?;
    let own = |entry: &&Value| entry["device"] == id.as_str();
    let Some(entry) = answer.as_array().and_then(|list| list.iter().find(own)) else {
        return Ok(None); // it has just ended
    };
    let number = |name: &str| entry[name].as_u64().unwrap_or(0);
    let (mut done, mut total) = (number("offset"), number("len"));
    if total == 0 && ready {
        (done, total) = (1, 1); // nothing was to be copied
    } else if !ready && total > 0 && done == total {
        // Clients take "as far as it goes" for "ready".
        done -= 1;
    } else if total == 0 {
        total = 1;
    }
    Ok(Some(BlockJobInfo { kind: kind as i32, bandwidth: number("speed"), done, total }))
}

/// A job's name in the monitor, never used twice.
pub fn new_id(kind: &str, target: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{kind}-{target}-libvirt-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The error for a disk without a job.
fn no_job(target: &str) -> Error {
    Error::new(Code::InvalidArg, format!("disk {target} does not have an active block job"))
}

/// Limits a job's bytes per second; 0 is no limit.
pub fn set_speed(machine: &Machine, target: &str, speed: u64) -> Result<()> {
    let id = machine.jobs().find(target, |job| job.id.clone()).ok_or_else(|| no_job(target))?;
    let arguments = json!({"device": id, "speed": speed});
    machine.monitor().execute("block-job-set-speed", Some(arguments)).map(|_| ())
}

/// Ends a job: the disk goes over to its target, or stays as it is.
pub fn end(machine: &Machine, target: &str, pivot: bool, wait: bool) -> Result<()> {
    let jobs = machine.jobs();
    let (id, kind, ready) = jobs
        .find(target, |job| (job.id.clone(), job.kind, job.ready))
        .ok_or_else(|| no_job(target))?;
    let monitor = machine.monitor();
    if pivot {
        if !matches!(kind, BlockJobKind::Copy | BlockJobKind::ActiveCommit) {
            let text = format!("job type '{}' does not support pivot", kind.name());
            return Err(Error::new(Code::OperationInvalid, text));
        }
        if !ready {
            let text = format!("disk '{target}' not ready for pivot yet");
            return Err(Error::new(Code::BlockCopyActive, text));
        }
        jobs.find(target, |job| job.pivots = true);
        monitor.execute("job-complete", Some(json!({"id": id})))?;
    } else {
        let arguments = json!({"device": id, "force": true});
        monitor.execute("block-job-cancel", Some(arguments))?;
    }
    if wait { jobs.wait(&id) } else { Ok(()) }
}

/// Puts overlays over disks, all at the same moment. The images are there already.
pub fn overlay(machine: &Machine, domain: &Element, overlays: &mut [Overlay]) -> Result<()> {
    let monitor = machine.monitor();
    let mut opened = Vec::new();
    let mut actions = Vec::new();
    let undo = |opened: &[String]| {
        for node in opened.iter().flat_map(|node| nodes_of(node)) {
            _ = monitor.execute("blockdev-del", Some(json!({"node-name": node})));
        }
    };
    for own in overlays.iter_mut() {
        let opened_file = machine.open_file(&own.file, true);
        let step = opened_file
            .and_then(|()| top_node(&monitor, &hotplug::alias_of(domain, &own.target)?))
            .and_then(|top| Ok((top, open(&monitor, &own.file.to_string_lossy(), &own.format)?)));
        match step {
            Ok((top, (node, number))) => {
                own.index = number;
                let data = json!({"node": top, "overlay": node});
                actions.push(json!({"type": "blockdev-snapshot", "data": data}));
                opened.push(node);
            }
            Err(error) => {
                undo(&opened);
                return Err(error);
            }
        }
    }
    if let Err(error) = monitor.execute("transaction", Some(json!({"actions": actions}))) {
        undo(&opened);
        return Err(error);
    }
    Ok(())
}
