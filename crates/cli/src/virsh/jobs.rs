//! Work on disks that goes on behind a machine: copies, commits, pulls.

use std::thread;
use std::time::{Duration, Instant};

use libvirt_compat::rpc::types::{Domain, TypedParameter, Value};
use libvirt_compat::rpc::xdr::from_bytes;
use libvirt_compat::xml::Element;

use super::syntax::Given;
use super::{Command, Outcome, Shell, Trouble, doing, read};

pub const COMMANDS: &[Command] = &[
    Command {
        name: "blockcommit",
        syntax: "<domain> <path> [<bandwidth>] [<base>] [--shallow] [<top>] [--active] [--delete] [--wait] [--verbose] [--timeout <number>] [--pivot] [--keep-overlay] [--async] [--keep-relative] [--bytes]",
        summary: "Start a block commit operation.",
        run: commit,
    },
    Command {
        name: "blockcopy",
        syntax: "<domain> <path> [<dest>] [<bandwidth>] [--shallow] [--reuse-external] [--blockdev] [--wait] [--verbose] [--timeout <number>] [--pivot] [--finish] [--async] [--xml <string>] [--format <string>] [--granularity <number>] [--buf-size <number>] [--bytes] [--transient-job] [--synchronous-writes] [--print-xml]",
        summary: "Start a block copy operation.",
        run: copy,
    },
    Command {
        name: "blockjob",
        syntax: "<domain> <path> [--abort] [--async] [--pivot] [--info] [--bytes] [--raw] [<bandwidth>]",
        summary: "Manage active block operations",
        run: job,
    },
    Command {
        name: "blockpull",
        syntax: "<domain> <path> [<bandwidth>] [<base>] [--wait] [--verbose] [--timeout <number>] [--async] [--keep-relative] [--bytes]",
        summary: "Populate a disk from its backing image.",
        run: pull,
    },
    Command {
        name: "blockresize",
        syntax: "<domain> <path> <size>",
        summary: "Resize block device of domain.",
        run: resize,
    },
];

const MIB: u64 = 1 << 20;
/// How often it is asked how far a job is.
const INTERVAL: Duration = Duration::from_millis(200);
/// `VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2`, and the message that carries it.
const EVENT: i32 = 16;
const EVENT_MESSAGE: u32 = 339;

fn path(given: &Given) -> String {
    given.text("path").unwrap_or_default().to_owned()
}

/// The bandwidth in the unit of the call: bytes, or MiB.
fn bandwidth(given: &Given) -> Result<u64, Trouble> {
    let is_bytes = given.has("bytes");
    let unit = if is_bytes { 1 } else { MIB };
    let bytes = given.scaled("bandwidth", "--bandwidth", unit)?.unwrap_or(0);
    Ok(if is_bytes { bytes } else { bytes / MIB })
}

/// How a job went, as its event tells it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Completed,
    Failed,
    Canceled,
    Ready,
}

/// Follows a job until it ends, or until it only mirrors.
struct Wait {
    disk: String,
    /// As the progress line calls it.
    title: &'static str,
    is_verbose: bool,
    deadline: Option<Instant>,
    is_async: bool,
}

impl Wait {
    /// None when the job needs not be waited for.
    fn of(shell: &mut Shell, given: &Given, title: &'static str) -> Result<Option<Self>, Trouble> {
        let ends = ["wait", "pivot", "finish", "keep-overlay"];
        let waits = ends.iter().any(|flag| given.has(flag));
        for option in ["verbose", "async"] {
            if given.has(option) && !waits {
                return Err(Trouble::new(format!(
                    "Option --wait is required by option --{option}"
                )));
            }
        }
        let timeout: Option<u64> = given.number("timeout")?;
        if timeout.is_some() && !waits {
            return Err(Trouble::new("Option --wait is required by option --timeout"));
        }
        if !waits {
            return Ok(None);
        }
        let client = &mut shell.connection.client;
        client.connect_domain_event_callback_register_any(EVENT, None)?;
        Ok(Some(Self {
            disk: path(given),
            title,
            is_verbose: given.has("verbose"),
            deadline: timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
            is_async: given.has("async"),
        }))
    }

    fn end(&self, shell: &mut Shell, domain: &Domain) -> Result<End, Trouble> {
        loop {
            let client = &mut shell.connection.client;
            let info = client.domain_get_block_job_info(domain.clone(), self.disk.clone(), 0)?;
            let (found, _, _, done, all) = info;
            while let Some(frame) = client.transport.take_message() {
                type Message = (i32, Domain, String, i32, i32);
                if frame.header.procedure != EVENT_MESSAGE {
                    continue;
                }
                let Ok((_, of, disk, _, status)) = from_bytes::<Message>(&frame.payload) else {
                    continue;
                };
                if of.uuid != domain.uuid || disk != self.disk {
                    continue;
                }
                let end = match status {
                    0 => End::Completed,
                    2 => End::Canceled,
                    3 => End::Ready,
                    _ => End::Failed,
                };
                if self.is_verbose && matches!(end, End::Completed | End::Ready) {
                    eprint!("\r{}: [100 %]", self.title);
                }
                return Ok(end);
            }
            if found == 0 {
                return Ok(End::Completed); // before it was listened to
            }
            if self.is_verbose {
                eprint!("\r{}: [{:>3} %]", self.title, percent(done, all));
            }
            if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
                let flags = u32::from(self.is_async);
                client.domain_block_job_abort(domain.clone(), self.disk.clone(), flags)?;
                return Ok(End::Canceled);
            }
            thread::sleep(INTERVAL);
        }
    }
}

/// Never 100 before the end.
fn percent(done: u64, all: u64) -> u64 {
    match all {
        0 => 0,
        _ if done >= all => 100,
        _ => (done.saturating_mul(100) / all).min(99),
    }
}

/// What is printed although the command fails.
fn failed(text: &str) -> Outcome {
    print!("{text}");
    Err(Trouble(Vec::new()))
}

/// The end of a command that may have waited for a job.
fn conclude(
    shell: &mut Shell,
    given: &Given,
    domain: Domain,
    wait: Option<Wait>,
    (noun, started): (&str, &str),
) -> Outcome {
    let Some(wait) = wait else { return shell.extra(started.to_owned()) };
    let end = wait.end(shell, &domain)?;
    match end {
        End::Canceled => return failed(&format!("\n{noun} aborted")),
        End::Failed => return failed(&format!("\n{noun} failed")),
        End::Completed | End::Ready => {}
    }
    let client = &mut shell.connection.client;
    /// `VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT`.
    const PIVOT: u32 = 2;
    if end == End::Ready && given.has("pivot") {
        let done = client.domain_block_job_abort(domain, wait.disk.clone(), PIVOT);
        doing(format!("failed to pivot job for disk {}", wait.disk), done)?;
        return Ok("\nSuccessfully pivoted".to_owned());
    }
    if end == End::Ready && (given.has("finish") || given.has("keep-overlay")) {
        let done = client.domain_block_job_abort(domain, wait.disk.clone(), 0);
        doing(format!("failed to finish job for disk {}", wait.disk), done)?;
        let text = match given.has("finish") {
            true => "\nSuccessfully copied",
            false => "\nCommit complete, overlay image kept",
        };
        return Ok(text.to_owned());
    }
    Ok(match end {
        End::Ready => "\nNow in mirroring phase".to_owned(),
        _ => format!("\n{noun} complete"),
    })
}

fn commit(shell: &mut Shell, given: &Given) -> Outcome {
    given.exclusive(&[("pivot", "keep-overlay")])?;
    let mut flags = given.bits(&[
        ("shallow", 1),
        ("delete", 2),
        ("active", 4),
        ("keep-relative", 8),
        ("bytes", 16),
    ]);
    let is_active = ["active", "pivot", "keep-overlay"].iter().any(|flag| given.has(flag));
    if is_active {
        flags |= 4;
    }
    let bandwidth = bandwidth(given)?;
    let title = if is_active { "Active Block Commit" } else { "Block Commit" };
    let domain = shell.domain(given)?;
    let wait = Wait::of(shell, given, title)?;
    let place = |name: &str| given.text(name).map(str::to_owned);
    let client = &mut shell.connection.client;
    let (base, top) = (place("base"), place("top"));
    client.domain_block_commit(domain.clone(), path(given), base, top, bandwidth, flags)?;
    let started = if is_active { "Active Block Commit started" } else { "Block Commit started" };
    conclude(shell, given, domain, wait, ("Commit", started))
}

fn pull(shell: &mut Shell, given: &Given) -> Outcome {
    /// Of `virDomainBlockRebase`, and of `virDomainBlockPull` where they are there too.
    const RELATIVE: u32 = 16;
    const BYTES: u32 = 64;
    let bandwidth = bandwidth(given)?;
    let domain = shell.domain(given)?;
    let wait = Wait::of(shell, given, "Block Pull")?;
    let base = given.text("base").map(str::to_owned);
    let flags = given.bits(&[("keep-relative", RELATIVE), ("bytes", BYTES)]);
    let client = &mut shell.connection.client;
    if base.is_none() && flags & RELATIVE == 0 {
        client.domain_block_pull(domain.clone(), path(given), bandwidth, flags)?;
    } else {
        client.domain_block_rebase(domain.clone(), path(given), base, bandwidth, flags)?;
    }
    conclude(shell, given, domain, wait, ("Pull", "Block Pull started"))
}

fn copy(shell: &mut Shell, given: &Given) -> Outcome {
    given.exclusive(&[
        ("dest", "xml"),
        ("format", "xml"),
        ("blockdev", "xml"),
        ("pivot", "finish"),
    ])?;
    let xml = match (given.text("dest"), given.text("xml")) {
        (None, None) => return Err(Trouble::new("need either --dest or --xml")),
        (_, Some(file)) => read(file)?,
        (Some(target), None) => {
            let (kind, name) =
                if given.has("blockdev") { ("block", "dev") } else { ("file", "file") };
            let mut disk = Element::new("disk")
                .with("type", kind)
                .with_child(Element::new("source").with(name, target));
            if let Some(format) = given.text("format") {
                disk.push(Element::new("driver").with("type", format));
            }
            disk.to_xml()
        }
    };
    if given.has("print-xml") {
        return Ok(xml);
    }
    let unit = if given.has("bytes") { 1 } else { MIB };
    let mut parameters = Vec::new();
    if let Some(bytes) = given.scaled("bandwidth", "--bandwidth", unit)?.filter(|bytes| *bytes > 0)
    {
        parameters.push(TypedParameter::new("bandwidth", Value::ULong(bytes)));
    }
    if let Some(bytes) = given.number::<u32>("granularity")?.filter(|bytes| *bytes > 0) {
        parameters.push(TypedParameter::new("granularity", Value::UInt(bytes)));
    }
    if let Some(bytes) = given.number::<u64>("buf-size")?.filter(|bytes| *bytes > 0) {
        parameters.push(TypedParameter::new("buf-size", Value::ULong(bytes)));
    }
    let flags = given.bits(&[
        ("shallow", 1),
        ("reuse-external", 2),
        ("transient-job", 4),
        ("synchronous-writes", 8),
    ]);
    let domain = shell.domain(given)?;
    let wait = Wait::of(shell, given, "Block Copy")?;
    let client = &mut shell.connection.client;
    client.domain_block_copy(domain.clone(), path(given), xml, parameters, flags)?;
    conclude(shell, given, domain, wait, ("Copy", "Block Copy started"))
}

fn job(shell: &mut Shell, given: &Given) -> Outcome {
    const KINDS: &[&str] = &[
        "Unknown job",
        "Block Pull",
        "Block Copy",
        "Block Commit",
        "Active Block Commit",
        "Backup",
    ];
    given.exclusive(&[
        ("raw", "abort"),
        ("raw", "async"),
        ("raw", "pivot"),
        ("raw", "bandwidth"),
        ("info", "abort"),
        ("info", "async"),
        ("info", "pivot"),
        ("info", "bandwidth"),
        ("bytes", "abort"),
        ("bytes", "async"),
        ("bytes", "pivot"),
        ("abort", "bandwidth"),
        ("async", "bandwidth"),
        ("pivot", "bandwidth"),
    ])?;
    let domain = shell.domain(given)?;
    let disk = path(given);
    let flags = given.bits(&[("async", 1), ("pivot", 2)]);
    if given.has("abort") || flags != 0 {
        shell.connection.client.domain_block_job_abort(domain, disk, flags)?;
        return Ok(String::new());
    }
    let is_bytes = u32::from(given.has("bytes") || given.text("bandwidth").is_none());
    if given.text("bandwidth").is_some() {
        let speed = bandwidth(given)?;
        shell.connection.client.domain_block_job_set_speed(domain, disk, speed, is_bytes)?;
        return Ok(String::new());
    }
    let client = &mut shell.connection.client;
    let (found, kind, speed, done, all) =
        client.domain_get_block_job_info(domain, disk.clone(), is_bytes)?;
    if found == 0 {
        return match given.has("raw") {
            true => Ok(String::new()),
            false => shell.extra(format!("No current block job for {disk}")),
        };
    }
    let kind = usize::try_from(kind).ok().and_then(|kind| KINDS.get(kind)).unwrap_or(&KINDS[0]);
    if given.has("raw") {
        return Ok(format!(" type={kind}\n bandwidth={speed}\n cur={done}\n end={all}\n"));
    }
    eprint!("\r{kind}: [{:>3} %]", percent(done, all));
    if speed == 0 {
        return Ok("\n".to_owned());
    }
    let (number, unit) = scaled(speed);
    Ok(format!("    Bandwidth limit: {speed} bytes/s ({number:.3} {unit}/s)\n"))
}

/// A number of bytes in the largest unit that leaves more than one.
pub fn scaled(bytes: u64) -> (f64, &'static str) {
    const UNITS: &[&str] = &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let step = (0..UNITS.len() - 1).take_while(|step| bytes >> (10 * (step + 1)) > 0).count();
    (bytes as f64 / (1u64 << (10 * step)) as f64, UNITS[step])
}

fn resize(shell: &mut Shell, given: &Given) -> Outcome {
    /// `VIR_DOMAIN_BLOCK_RESIZE_BYTES`; a number without a unit counts KiB.
    const BYTES: u32 = 1;
    let disk = path(given);
    let size = given.scaled("size", "size", 1024)?.unwrap_or(0);
    let domain = shell.domain(given)?;
    let (size, flags) = if size % 1024 == 0 { (size / 1024, 0) } else { (size, BYTES) };
    let resized = shell.connection.client.domain_block_resize(domain, disk.clone(), size, flags);
    doing(format!("Failed to resize block device '{disk}'"), resized)?;
    shell.extra(format!("Block device '{disk}' is resized"))
}
