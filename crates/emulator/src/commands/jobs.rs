//! Jobs on disks: commit, stream, mirror, backup, create; and what users do with them.

use std::sync::Arc;

use block::jobs::{
    Backup, BackupSync, BitmapMode, Commit, Create, Description, Event, Job, Listener, Mirror,
    MirrorSync, Parameters, Status, Stream, Work,
};
use block::open::{OpenContext, exact_name};
use block::{CreateOptions, NodeRef, OpenOptions};
use qemu_compat::qmp::server::Refusal;
use serde_json::{Value, json};

use super::{Answer, Arguments, Command, flag, plain, refusal, text};
use crate::emulator::Emulator;
use crate::monitor::Monitors;

/// What users say about the ends of a job.
macro_rules! job_members {
    () => {
        ", auto-finalize?: bool, auto-dismiss?: bool, speed?: int }"
    };
}

pub const COMMANDS: &[Command] = &[
    plain("query-jobs", "{}", "[JobInfo]", jobs),
    plain("query-block-jobs", "{}", "[any]", block_jobs),
    plain("job-pause", "{ id: str }", "", |e, a| one(e, text(a, "id"), Job::pause)),
    plain("job-resume", "{ id: str }", "", |e, a| one(e, text(a, "id"), Job::resume)),
    plain("job-cancel", "{ id: str }", "", |e, a| one(e, text(a, "id"), |job| job.cancel(true))),
    plain("job-complete", "{ id: str }", "", |e, a| one(e, text(a, "id"), Job::complete)),
    plain("job-finalize", "{ id: str }", "", |e, a| one(e, text(a, "id"), Job::finalize)),
    plain("job-dismiss", "{ id: str }", "", |e, a| one(e, text(a, "id"), Job::dismiss)),
    plain("block-job-pause", "{ device: str }", "", |e, a| block(e, a, Job::pause)),
    plain("block-job-resume", "{ device: str }", "", |e, a| block(e, a, Job::resume)),
    plain("block-job-cancel", "{ device: str, force?: bool }", "", |e, a| {
        let force = flag(a, "force");
        block(e, a, |job| job.cancel(force))
    }),
    plain("block-job-complete", "{ device: str }", "", |e, a| block(e, a, Job::complete)),
    plain("block-job-finalize", "{ id: str }", "", |e, a| one(e, text(a, "id"), Job::finalize)),
    plain("block-job-dismiss", "{ id: str }", "", |e, a| one(e, text(a, "id"), Job::dismiss)),
    plain("block-job-set-speed", "{ device: str, speed: int }", "", |e, a| {
        let speed = speed(a)?;
        block(e, a, |job| job.set_speed(speed))
    }),
    plain(
        "block-commit",
        concat!(
            "{ job-id?: str, device: str, base-node?: str, base?: str, top-node?: str, top?: str, \
             backing-file?: str, on-error?: BlockdevOnError, filter-node-name?: str",
            job_members!()
        ),
        "",
        commit,
    ),
    plain(
        "block-stream",
        concat!(
            "{ job-id?: str, device: str, base?: str, base-node?: str, backing-file?: str, \
             bottom?: str, on-error?: BlockdevOnError, filter-node-name?: str",
            job_members!()
        ),
        "",
        stream,
    ),
    plain(
        "blockdev-mirror",
        concat!(
            "{ job-id?: str, device: str, target: str, replaces?: str, sync: MirrorSyncMode, \
             granularity?: int, buf-size?: int, on-source-error?: BlockdevOnError, \
             on-target-error?: BlockdevOnError, filter-node-name?: str, \
             copy-mode?: MirrorCopyMode",
            job_members!()
        ),
        "",
        mirror,
    ),
    plain(
        "drive-mirror",
        concat!(
            "{ job-id?: str, device: str, target: str, format?: str, node-name?: str, \
             sync: MirrorSyncMode, mode?: NewImageMode, granularity?: int, buf-size?: int, \
             on-source-error?: BlockdevOnError, on-target-error?: BlockdevOnError, \
             copy-mode?: MirrorCopyMode",
            job_members!()
        ),
        "",
        drive_mirror,
    ),
    plain(
        "blockdev-backup",
        concat!(
            "{ job-id?: str, device: str, target: str, sync: MirrorSyncMode, bitmap?: str, \
             bitmap-mode?: BitmapSyncMode, compress?: bool, on-source-error?: BlockdevOnError, \
             on-target-error?: BlockdevOnError, filter-node-name?: str",
            job_members!()
        ),
        "",
        backup,
    ),
    plain(
        "drive-backup",
        concat!(
            "{ job-id?: str, device: str, target: str, format?: str, sync: MirrorSyncMode, \
             mode?: NewImageMode, bitmap?: str, bitmap-mode?: BitmapSyncMode, compress?: bool, \
             on-source-error?: BlockdevOnError, on-target-error?: BlockdevOnError",
            job_members!()
        ),
        "",
        drive_backup,
    ),
    plain("blockdev-create", "{ job-id: str, options: any }", "", create),
];

/// A job that only makes an image, or is about the whole machine, is no block job.
fn is_block_job(kind: &str) -> bool {
    kind != "create" && !kind.starts_with("snapshot-")
}

fn data(description: &Description) -> Value {
    json!({"type": description.kind, "device": description.id, "len": description.total,
        "offset": description.done, "speed": description.speed})
}

/// Carries what happens to jobs to the monitors.
fn listener(monitors: &Arc<Monitors>) -> Listener {
    let monitors = Arc::downgrade(monitors);
    Arc::new(move |job, event| {
        let Some(monitors) = monitors.upgrade() else { return };
        let description = job.describe();
        let is_block_job = is_block_job(description.kind);
        let (name, data) = match event {
            Event::Status(status) => {
                ("JOB_STATUS_CHANGE", json!({"status": status.name(), "id": description.id}))
            }
            _ if !is_block_job => return,
            Event::Ready => ("BLOCK_JOB_READY", data(&description)),
            Event::Pending => {
                ("BLOCK_JOB_PENDING", json!({"type": description.kind, "id": description.id}))
            }
            Event::Cancelled => ("BLOCK_JOB_CANCELLED", data(&description)),
            Event::Completed(error) => {
                let mut data = data(&description);
                if let Some(error) = error {
                    data["error"] = error.as_str().into();
                }
                ("BLOCK_JOB_COMPLETED", data)
            }
        };
        monitors.event(name, data);
    })
}

fn jobs(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let list = emulator.blocks.jobs.list();
    let row = |job: &Arc<Job>| {
        let job = job.describe();
        let mut row = json!({"id": job.id, "type": job.kind, "status": job.status.name(),
            "current-progress": job.done, "total-progress": job.total});
        if let Some(error) = job.error {
            row["error"] = error.into();
        }
        row
    };
    Ok(list.iter().map(row).collect())
}

fn block_jobs(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let list = emulator.blocks.jobs.list();
    let row = |job: &Arc<Job>| {
        let job = job.describe();
        if !is_block_job(job.kind) {
            return None;
        }
        let mut row = data(&job);
        let paused = matches!(job.status, Status::Paused | Status::Standby);
        row["busy"] = matches!(job.status, Status::Running).into();
        row["paused"] = paused.into();
        row["io-status"] = "ok".into();
        row["ready"] = matches!(job.status, Status::Ready | Status::Standby).into();
        row["status"] = job.status.name().into();
        row["auto-finalize"] = job.auto_finalize.into();
        row["auto-dismiss"] = job.auto_dismiss.into();
        if job.kind == "mirror" {
            row["actively-synced"] = false.into();
        }
        if let Some(error) = job.error {
            row["error"] = error.into();
        }
        Some(row)
    };
    Ok(list.iter().filter_map(row).collect())
}

fn one(emulator: &Arc<Emulator>, id: &str, verb: impl FnOnce(&Job) -> block::Result<()>) -> Answer {
    let job = emulator.blocks.jobs.get(id);
    let job = job.ok_or_else(|| Refusal::of("DeviceNotActive", "Job not found"))?;
    verb(&job).map_err(refusal)?;
    Ok(json!({}))
}

fn block(
    emulator: &Arc<Emulator>,
    arguments: &Arguments,
    verb: impl FnOnce(&Job) -> block::Result<()>,
) -> Answer {
    let id = text(arguments, "device");
    let job = emulator.blocks.jobs.get(id).filter(|job| is_block_job(job.parameters.kind));
    let job =
        job.ok_or_else(|| Refusal::of("DeviceNotActive", format!("Block job '{id}' not found")))?;
    verb(&job).map_err(refusal)?;
    Ok(json!({}))
}

fn speed(arguments: &Arguments) -> Result<u64, Refusal> {
    match arguments.get("speed").and_then(Value::as_i64) {
        None => Ok(0),
        Some(speed) => u64::try_from(speed)
            .map_err(|_| Refusal::new("Parameter 'speed' expects a non-negative value")),
    }
}

/// What users say about a job as such. Errors always end jobs here.
fn parameters(arguments: &Arguments, kind: &'static str) -> Result<Parameters, Refusal> {
    for name in ["on-error", "on-source-error", "on-target-error"] {
        if let Some(other) = optional(arguments, name).filter(|policy| *policy != "report") {
            return Err(Refusal::new(format!("'{name}': '{other}' is not built in Hostel")));
        }
    }
    if optional(arguments, "copy-mode").is_some_and(|mode| mode != "background") {
        return Err(Refusal::new("'copy-mode': 'write-blocking' is not built in Hostel"));
    }
    let on = |name: &str| arguments.get(name).and_then(Value::as_bool).unwrap_or(true);
    let id = optional(arguments, "job-id").unwrap_or_else(|| text(arguments, "device"));
    if !id.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return Err(Refusal::new("An explicit job ID is required for this node"));
    }
    Ok(Parameters {
        id: id.to_owned(),
        kind,
        auto_finalize: on("auto-finalize"),
        auto_dismiss: on("auto-dismiss"),
        speed: speed(arguments)?,
    })
}

fn optional<'a>(arguments: &'a Arguments, name: &str) -> Option<&'a str> {
    arguments.get(name).and_then(Value::as_str)
}

/// Begins a job whose changes are told.
pub fn start(emulator: &Emulator, parameters: Parameters, work: impl Work + 'static) -> Answer {
    let listener = listener(&emulator.monitors);
    emulator.blocks.jobs.start(parameters, Box::new(work), listener).map_err(refusal)?;
    Ok(json!({}))
}

fn node(emulator: &Emulator, name: &str) -> Result<NodeRef, Refusal> {
    emulator.blocks.node(name).map_err(|text| Refusal::of("DeviceNotFound", text))
}

/// After a disk has moved, names follow.
fn moved(emulator: &Arc<Emulator>, old: &NodeRef) -> Box<dyn FnMut(&NodeRef) + Send> {
    let (emulator, old) = (Arc::downgrade(emulator), Arc::clone(old));
    Box::new(move |new| {
        if let Some(emulator) = emulator.upgrade() {
            emulator.blocks.moved(&old, new);
        }
    })
}

/// An image of the chain below `top`, itself included, by the name of its node or of its file.
fn in_chain(
    emulator: &Emulator,
    top: &NodeRef,
    node_name: Option<&str>,
    file: Option<&str>,
) -> Result<Option<NodeRef>, Refusal> {
    let mut chain = Some(Arc::clone(top));
    if let Some(name) = node_name {
        let wanted = emulator.blocks.graph.get(name);
        let wanted = wanted
            .ok_or_else(|| Refusal::new(format!("Cannot find device='' nor node-name='{name}'")))?;
        while let Some(here) = chain {
            if Arc::ptr_eq(&here, &wanted) {
                return Ok(Some(here));
            }
            chain = here.backing();
        }
        return Err(Refusal::new(format!("'{name}' is not in this backing file chain")));
    }
    let Some(file) = file else { return Ok(None) };
    while let Some(here) = chain {
        let name = here.filename();
        let same = std::fs::canonicalize(&name).ok().zip(std::fs::canonicalize(file).ok());
        if name == file || exact_name(&here) == file || same.is_some_and(|(a, b)| a == b) {
            return Ok(Some(here));
        }
        chain = here.backing();
    }
    Err(Refusal::new(format!("Can't find '{file}' in the backing chain")))
}

/// What a header is to say about an image that comes to stand below.
fn named(arguments: &Arguments, base: Option<&NodeRef>) -> (Option<String>, Option<String>) {
    let Some(base) = base else { return (None, None) };
    let name = optional(arguments, "backing-file").map_or_else(|| base.filename(), str::to_owned);
    (Some(name), Some(base.driver().to_owned()))
}

fn commit(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let parameters = parameters(arguments, "commit")?;
    let active = node(emulator, text(arguments, "device"))?;
    let given = (optional(arguments, "top-node"), optional(arguments, "top"));
    let top = in_chain(emulator, &active, given.0, given.1)?.unwrap_or_else(|| Arc::clone(&active));
    let given = (optional(arguments, "base-node"), optional(arguments, "base"));
    let base = match in_chain(emulator, &top, given.0, given.1)? {
        Some(base) => base,
        None => {
            let mut base = Arc::clone(&top);
            while let Some(below) = base.backing() {
                base = below;
            }
            base
        }
    };
    if Arc::ptr_eq(&top, &base) {
        return Err(Refusal::new("Need a node above the base to commit"));
    }
    if Arc::ptr_eq(&top, &active) {
        if optional(arguments, "backing-file").is_some() {
            return Err(Refusal::new("'backing-file' specified, but 'top' is the active layer"));
        }
        let roots = emulator.blocks.roots_of(&top);
        let moved = moved(emulator, &top);
        let work = Commit::active(top, base, roots, moved).map_err(refusal)?;
        return start(emulator, parameters, work);
    }
    // All that stand on it, in other chains too.
    let stands_on = |node: &NodeRef| node.backing().is_some_and(|below| Arc::ptr_eq(&below, &top));
    let nodes = emulator.blocks.graph.list().into_iter().map(|named| named.node);
    let overlays = nodes.filter(stands_on).collect();
    let names = named(arguments, Some(&base));
    start(emulator, parameters, Commit::below(overlays, top, base, names).map_err(refusal)?)
}

fn stream(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let parameters = parameters(arguments, "stream")?;
    let top = node(emulator, text(arguments, "device"))?;
    let base = match optional(arguments, "bottom") {
        Some(bottom) => {
            in_chain(emulator, &top, Some(bottom), None)?.and_then(|node| node.backing())
        }
        None => {
            let given = (optional(arguments, "base-node"), optional(arguments, "base"));
            in_chain(emulator, &top, given.0, given.1)?
        }
    };
    if base.as_ref().is_some_and(|base| Arc::ptr_eq(base, &top)) {
        return Err(Refusal::new("Node cannot be streamed from itself"));
    }
    let roots = emulator.blocks.roots_of(&top);
    let names = named(arguments, base.as_ref());
    start(emulator, parameters, Stream::new(top, base, roots, names).map_err(refusal)?)
}

fn mirror_to(
    emulator: &Arc<Emulator>,
    arguments: &Arguments,
    source: NodeRef,
    target: NodeRef,
) -> Answer {
    let parameters = parameters(arguments, "mirror")?;
    if let Some(replaces) = optional(arguments, "replaces")
        && !Arc::ptr_eq(&node(emulator, replaces)?, &source)
    {
        return Err(Refusal::new("'replaces' can only name the node that is copied"));
    }
    let sync = match text(arguments, "sync") {
        "full" => MirrorSync::Full,
        "top" if source.backing().is_some() => MirrorSync::Top,
        "top" => MirrorSync::Full,
        "none" => MirrorSync::None,
        other => {
            return Err(Refusal::new(format!("Sync mode '{other}' not supported")));
        }
    };
    let roots = emulator.blocks.roots_of(&source);
    let granularity = arguments.get("granularity").and_then(Value::as_u64);
    let moved = moved(emulator, &source);
    let work = Mirror::new(source, target, roots, sync, granularity, moved).map_err(refusal)?;
    start(emulator, parameters, work)
}

fn mirror(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let source = node(emulator, text(arguments, "device"))?;
    let target = node(emulator, text(arguments, "target"))?;
    mirror_to(emulator, arguments, source, target)
}

fn drive_mirror(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let source = node(emulator, text(arguments, "device"))?;
    let target = target(emulator, arguments, &source)?;
    mirror_to(emulator, arguments, source, target)
}

/// The target of a `drive-` command: made, or opened as it is.
fn target(
    emulator: &Arc<Emulator>,
    arguments: &Arguments,
    source: &NodeRef,
) -> Result<NodeRef, Refusal> {
    let file = text(arguments, "target");
    let is_new = optional(arguments, "mode") != Some("existing");
    let format = optional(arguments, "format").unwrap_or_else(|| source.driver()).to_owned();
    let sync = text(arguments, "sync");
    let below = match sync {
        "top" => source.backing(),
        "none" => Some(Arc::clone(source)),
        _ => None,
    };
    if is_new {
        let format = block::formats::find(&format);
        let make = format.and_then(|format| format.create);
        let make = make.ok_or_else(|| Refusal::new("Invalid block format for a new image"))?;
        let mut options = CreateOptions::new();
        options.set("size", source.size().to_string());
        if let Some(below) = below.as_ref().filter(|_| format.is_some_and(|f| f.backing)) {
            options.set("backing_file", below.filename());
            options.set("backing_fmt", below.driver());
        }
        make(file, &options, &OpenContext::default()).map_err(refusal)?;
    }
    let mut options = OpenOptions::new();
    if is_new || optional(arguments, "format").is_some() {
        options.set("driver", format);
    }
    if let Some(name) = optional(arguments, "node-name") {
        options.set("node-name", name);
    }
    options.set("backing", Value::Null);
    let target = emulator
        .blocks
        .graph
        .open(Some(file), options)
        .map_err(|error| Refusal::new(format!("Could not open '{file}': {error}")))?;
    if target.supports_backing() && below.is_some() {
        target.set_backing(below).map_err(refusal)?;
    }
    emulator.blocks.register();
    Ok(target)
}

/// Begins a backup; transactions do so, too.
pub fn backup(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let source = node(emulator, text(arguments, "device"))?;
    let target = node(emulator, text(arguments, "target"))?;
    backup_to(emulator, arguments, source, target)
}

/// The same, with the target's file.
pub fn drive_backup(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let source = node(emulator, text(arguments, "device"))?;
    let target = target(emulator, arguments, &source)?;
    backup_to(emulator, arguments, source, target)
}

fn backup_to(
    emulator: &Arc<Emulator>,
    arguments: &Arguments,
    source: NodeRef,
    target: NodeRef,
) -> Answer {
    let parameters = parameters(arguments, "backup")?;
    let mode = match optional(arguments, "bitmap-mode") {
        None => None,
        Some("never") => Some(BitmapMode::Never),
        Some("always") => Some(BitmapMode::Always),
        Some(_) => Some(BitmapMode::OnSuccess),
    };
    let sync = match (text(arguments, "sync"), optional(arguments, "bitmap")) {
        ("full", None) => BackupSync::Full,
        ("top", None) => BackupSync::Top,
        ("none", None) => BackupSync::None,
        ("incremental" | "bitmap", None) => {
            return Err(Refusal::new(format!(
                "must provide a valid bitmap name for '{}' sync mode",
                text(arguments, "sync")
            )));
        }
        ("incremental" | "bitmap", Some(name)) => {
            if text(arguments, "sync") == "bitmap" && mode.is_none() {
                return Err(Refusal::new("Bitmap sync mode must be given when providing a bitmap"));
            }
            let bitmap = super::bitmaps::find(emulator, text(arguments, "device"), name)?;
            BackupSync::Bitmap(bitmap.tracker, mode.unwrap_or(BitmapMode::OnSuccess))
        }
        (sync, Some(_)) => {
            return Err(Refusal::new(format!("'{sync}' sync mode takes no bitmap in Hostel")));
        }
        (other, None) => return Err(Refusal::new(format!("Sync mode '{other}' not supported"))),
    };
    let roots = emulator.blocks.roots_of(&source);
    let compress = flag(arguments, "compress");
    let work = Backup::new(source, target, roots, &sync, compress).map_err(refusal)?;
    start(emulator, parameters, work)
}

/// Names of creation options that QMP spells in another way.
const CREATION_NAMES: [(&str, &str); 13] = [
    ("version", "compat"),
    ("backing-file", "backing_file"),
    ("backing-fmt", "backing_fmt"),
    ("cluster-size", "cluster_size"),
    ("refcount-bits", "refcount_bits"),
    ("lazy-refcounts", "lazy_refcounts"),
    ("extended-l2", "extended_l2"),
    ("compression-type", "compression_type"),
    ("data-file", "data_file"),
    ("data-file-raw", "data_file_raw"),
    ("extent-size-hint", "extent_size_hint"),
    ("log-size", "log_size"),
    ("block-size", "block_size"),
];

fn create(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let id = text(arguments, "job-id").to_owned();
    let Some(given) = arguments.get("options").and_then(Value::as_object) else {
        return Err(Refusal::new("Invalid parameter type for 'options', expected: object"));
    };
    let driver = given.get("driver").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut options = CreateOptions::new();
    let mut filename = given.get("filename").and_then(Value::as_str).map(str::to_owned);
    for (name, value) in given {
        match (name.as_str(), value) {
            ("driver" | "filename", _) => {}
            ("file", Value::String(file)) => filename = Some(exact_name(&node(emulator, file)?)),
            ("encrypt", Value::Object(inner)) => {
                for (name, value) in inner {
                    options.set(&format!("encrypt.{name}"), plain_text(value));
                }
            }
            (name, value) => {
                let found = CREATION_NAMES.iter().find(|(qmp, _)| *qmp == name);
                options.set(found.map_or(name, |(_, own)| own), plain_text(value));
            }
        }
    }
    let filename = filename.ok_or_else(|| Refusal::new("Parameter 'file' is missing"))?;
    let work: Box<dyn FnMut() -> block::Result<()> + Send> = if driver == "file" {
        let protocol = block::protocols::find("file").and_then(|file| file.create);
        let make =
            protocol.ok_or_else(|| Refusal::new("Driver does not support blockdev-create"))?;
        Box::new(move || make(&filename, &options))
    } else {
        let format = block::formats::find(&driver);
        let make = format.and_then(|format| format.create);
        let (Some(format), Some(make)) = (format, make) else {
            return Err(Refusal::new("Driver does not support blockdev-create"));
        };
        options.validate(&[format.create_options]).map_err(refusal)?;
        Box::new(move || make(&filename, &options, &OpenContext::default()))
    };
    let parameters =
        Parameters { id, kind: "create", auto_finalize: true, auto_dismiss: false, speed: 0 };
    start(emulator, parameters, Create(work))
}

fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        other => other.to_string(),
    }
}
