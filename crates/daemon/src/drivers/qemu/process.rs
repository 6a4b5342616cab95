//! Starting an emulator: everything it needs is made first, then one process, then a short talk.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Origin, Result};
use parking_lot::Mutex;
use qemu_compat::emit;
use rustix::io::FdFlags;
use serde_json::{Value, json};

use super::guard::Guard;
use super::machine::Machine;
use super::monitor::Monitor;
use super::taps::Taps;
use super::{QemuDriver, aliases, describe, firmware, ports};
use crate::confine;
use crate::domains::cpu_set;
use crate::drivers::{Machine as _, Start, Started};
use crate::files;

/// Held while descriptors are open for a child, so that no other child inherits them.
static SPAWNING: Mutex<()> = Mutex::new(());

/// Tries with other ports when another process was faster to take one.
const PORT_ATTEMPTS: u32 = 8;

/// Starts a domain.
pub fn start(driver: &QemuDriver, start: &Start) -> Result<Started> {
    let mut attempt = 1;
    loop {
        let result = start_once(driver, start);
        match &result {
            Err(error)
                if attempt < PORT_ATTEMPTS && error.detail.contains("Address already in use") => {}
            _ => return result,
        }
        attempt += 1;
    }
}

fn start_once(driver: &QemuDriver, start: &Start) -> Result<Started> {
    let emulator = driver.emulators.of(&start.document)?;
    let mut document = start.document.clone();
    let runtime = driver.runtime(&start.uuid);
    files::make_private_directory(&runtime)?;
    check_images(&document)?;
    firmware::prepare(&document)?;
    let mut taken = Vec::new();
    let taps = Taps::open(&mut document)?;
    let place = confine::Place {
        uuid: &start.uuid.to_string(),
        runtime: &runtime,
        emulator: &emulator.path,
    };
    let prepared = prepare(&mut document, start.id, &runtime, &mut taken).and_then(|()| {
        let vm = describe::vm(&document, &start.networks)?;
        Ok((vm, Guard::new(&driver.confinement, &mut document, &place)?))
    });
    let (mut vm, guard) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            taken.into_iter().for_each(ports::give_back);
            return Err(error);
        }
    };
    taps.describe(&mut vm.devices);
    let own = guard.own_folder();
    if emulator.is_ours {
        serve_sockets(&mut vm, own.as_deref().unwrap_or(&runtime));
    }
    guard.move_sockets(&mut vm.devices);
    let log = driver.paths.logs.join(format!("{}.log", start.name));
    let socket = runtime.join("monitor.sock");
    let spawned = spawn(&Spawn {
        emulator: &emulator.path,
        version: (emulator.version.0, emulator.version.1),
        vm: &vm,
        socket: &socket,
        log: &log,
        restore: start.restore.as_ref(),
        snapshot: start.snapshot.as_deref(),
        taps: &taps,
        guard: &guard,
    });
    let (child, stream, log_start) = match spawned {
        Ok(spawned) => spawned,
        Err(error) => {
            guard.release();
            taken.into_iter().for_each(ports::give_back);
            return Err(error);
        }
    };
    let reporter = Arc::clone(&start.reporter);
    let machine = Machine::new(child, stream, &start.name, socket, taken, guard, reporter)?;
    let restoring = start.restore.is_some();
    let talk = talk(&machine.monitor(), &mut document, start.paused, restoring, &machine);
    if let Err(error) = talk {
        machine.abandon();
        // What the emulator said last is the reason.
        return Err(match tail(&log, log_start) {
            said if said.is_empty() => error,
            said => {
                let text = format!("process exited while connecting to monitor: {said}");
                Error::new(Code::InternalError, text).from(Origin::Qemu)
            }
        });
    }
    document.set("id", start.id);
    Ok(Started { document, machine })
}

/// Our own emulator serves the host's side of guests' sockets, in a file beside the monitor.
fn serve_sockets(vm: &mut spec::Vm, runtime: &Path) {
    for device in &mut vm.devices {
        if let spec::device::Kind::Vsock { socket, .. } = &mut device.kind {
            *socket = Some(runtime.join("vsock.sock").display().to_string());
        }
    }
}

/// An image that is missing is better reported before a process is made.
fn check_images(document: &Element) -> Result<()> {
    let devices = document.child("devices");
    for disk in devices.into_iter().flat_map(|devices| devices.all("disk")) {
        let optional = disk
            .attribute_at("source", "startupPolicy")
            .is_some_and(|policy| policy != "mandatory");
        let Some(path) = crate::drivers::disk_path(disk).filter(|_| !optional) else { continue };
        if let Err(error) = File::open(&path) {
            let text = format!("Cannot access storage file '{}'", path.display());
            return Err(files::system(text, &error).from(Origin::Storage));
        }
    }
    Ok(())
}

/// Puts into the document what only a running domain has.
fn prepare(document: &mut Element, id: i32, runtime: &Path, taken: &mut Vec<u16>) -> Result<()> {
    aliases::assign(document);
    let devices = document.ensure("devices");
    // Numbers of running domains differ, and three numbers are taken by the hosts themselves.
    for vsock in devices.all_mut("vsock") {
        vsock.ensure("cid").set_default("address", id + 2);
    }
    let count = devices.all("disk").filter(|disk| disk.child("source").is_some()).count();
    let filled = devices.all_mut("disk").filter(|disk| disk.child("source").is_some());
    // libvirt counts the last disk as 1.
    for (place, disk) in filled.enumerate() {
        fill_disk(disk, count - place)?;
    }
    for graphics in devices.all_mut("graphics") {
        if graphics.is("autoport", "yes") {
            let port = ports::take()?;
            taken.push(port);
            graphics.set("port", port);
        }
        let by_address =
            graphics.child("listen").is_some_and(|listen| listen.is("type", "address"));
        if by_address {
            graphics.set_default("listen", "127.0.0.1");
            let address = graphics.attribute("listen").unwrap_or_default().to_owned();
            graphics.ensure("listen").set("address", address);
        }
    }
    for device in devices.elements().filter(|device| device.is("type", "file")) {
        if matches!(device.name.as_str(), "serial" | "console" | "channel" | "parallel") {
            let made = confine::make_files(device);
            made.map_err(|error| files::system("cannot make a character device's file", &error))?;
        }
    }
    for channel in devices.all_mut("channel") {
        if channel.is("type", "unix") && channel.child("source").is_none() {
            let name =
                channel.attribute_at("target", "name").unwrap_or("channel").replace('/', "_");
            let path = runtime.join(name).display().to_string();
            channel.push(Element::new("source").with("mode", "bind").with("path", path));
        }
        if channel.attribute_at("target", "type") == Some("virtio") {
            channel.ensure("target").set("state", "disconnected");
        }
    }
    Ok(())
}

/// Numbers a disk's nodes and notes what lies beneath it.
pub fn fill_disk(disk: &mut Element, index: usize) -> Result<()> {
    let Some(path) = crate::drivers::disk_path(disk) else { return Ok(()) };
    disk.ensure("source").set("index", index);
    if disk.child("backingStore").is_none() {
        let backing = match disk.attribute_at("driver", "type") {
            Some("raw") | None => None,
            Some(_) => crate::storage::probe(&path)?.backing,
        };
        let mut store = Element::new("backingStore");
        if let Some((file, format)) = backing {
            let file = path.parent().map_or_else(|| PathBuf::from(&file), |dir| dir.join(&file));
            let format = format.map_or("raw", crate::storage::Format::name);
            store.set("type", "file");
            store.push(Element::new("format").with("type", format));
            store.push(Element::new("source").with("file", file.display()));
        }
        disk.push(store);
    }
    Ok(())
}

struct Spawn<'a> {
    emulator: &'a Path,
    version: (u32, u32),
    vm: &'a spec::Vm,
    socket: &'a Path,
    log: &'a Path,
    restore: Option<&'a OwnedFd>,
    snapshot: Option<&'a str>,
    taps: &'a Taps,
    guard: &'a Guard,
}

/// Makes the process. Its monitor already listens, so nothing has to be polled.
fn spawn(spawn: &Spawn<'_>) -> Result<(Child, UnixStream, u64)> {
    let failed = |doing: &str| {
        let doing = doing.to_owned();
        move |error: std::io::Error| files::system(doing, &error)
    };
    let log = files::open_log(spawn.log)?;
    let log_start = log.metadata().map_err(failed("Cannot read the log"))?.len();
    _ = std::fs::remove_file(spawn.socket);
    let listener =
        UnixListener::bind(spawn.socket).map_err(failed("Failed to bind the monitor"))?;
    let stream =
        UnixStream::connect(spawn.socket).map_err(failed("Failed to reach the monitor"))?;
    let incoming = spawn.restore.map(|file| format!("fd:{}", file.as_raw_fd()));
    let arguments = emit::command_line(
        spawn.vm,
        &emit::Process {
            monitor: listener.as_raw_fd(),
            incoming: incoming.as_deref(),
            snapshot: spawn.snapshot,
            sandbox: true,
            version: spawn.version,
        },
    );
    let output = log.try_clone().map_err(failed("Cannot share the log"))?;
    let guard = SPAWNING.lock();
    inherit(listener.as_fd(), true)?;
    if let Some(file) = spawn.restore {
        inherit(file.as_fd(), true)?;
    }
    for tap in spawn.taps.descriptors() {
        inherit(tap, true)?;
    }
    let child = spawn
        .guard
        .command(spawn.emulator, &arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(log)
        // Not the daemon's: a signal to its group must not reach the machines.
        .process_group(0)
        .spawn();
    if let Some(file) = spawn.restore {
        inherit(file.as_fd(), false)?;
    }
    for tap in spawn.taps.descriptors() {
        inherit(tap, false)?;
    }
    drop(listener);
    drop(guard);
    let child = child.map_err(|error| {
        let text = format!("cannot execute binary {}", spawn.emulator.display());
        files::system(text, &error)
    })?;
    Ok((child, stream, log_start))
}

fn inherit(descriptor: BorrowedFd<'_>, by_children: bool) -> Result<()> {
    let flags = if by_children { FdFlags::empty() } else { FdFlags::CLOEXEC };
    rustix::io::fcntl_setfd(descriptor, flags)
        .map_err(|error| files::system("Cannot pass a descriptor on", &error.into()))
}

/// The first commands: agree, look up terminals, set passwords, let go.
fn talk(
    monitor: &Monitor,
    document: &mut Element,
    paused: bool,
    restoring: bool,
    machine: &Machine,
) -> Result<()> {
    monitor.greet()?;
    if document.text_at("on_reboot").as_deref() == Some("destroy") {
        monitor.execute("set-action", Some(json!({"reboot": "shutdown"})))?;
    }
    let characters = monitor.execute("query-chardev", None)?;
    terminals(document, &characters);
    for graphics in document.ensure("devices").all("graphics") {
        if let Some(password) = graphics.attribute("passwd").filter(|text| !text.is_empty()) {
            let arguments = json!({"protocol": "vnc", "password": password});
            monitor.execute("set_password", Some(arguments))?;
        }
    }
    for interface in document.ensure("devices").all("interface") {
        if interface.attribute_at("link", "state") == Some("down") {
            let name = interface.attribute_at("alias", "name").unwrap_or_default();
            monitor.execute("set_link", Some(json!({"name": name, "up": false})))?;
        }
    }
    let balloon = document.child("currentMemory").map(Element::text);
    if let (Some(current), Some(maximum)) = (balloon, document.child("memory").map(Element::text))
        && current != maximum
        && let Ok(kib) = current.trim().parse::<u64>()
    {
        monitor.execute("balloon", Some(json!({"value": kib * 1024})))?;
    }
    poll_statistics(document, machine)?;
    machine.read_vcpus()?;
    pin_vcpus(document, machine)?;
    if restoring {
        machine.wait_for_migration("query-migrate")?;
    }
    if paused { Ok(()) } else { machine.go() }
}

/// How often the guest tells how its memory is used, which no command line can say.
fn poll_statistics(document: &Element, machine: &Machine) -> Result<()> {
    let balloon = document.at("devices/memballoon").filter(|balloon| !balloon.is("model", "none"));
    let period = balloon.and_then(|balloon| balloon.attribute_at("stats", "period"));
    match period.and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0) {
        Some(seconds) => machine.set_memory_stats_period(seconds),
        None => Ok(()),
    }
}

fn pin_vcpus(document: &Element, machine: &Machine) -> Result<()> {
    let tune = document.child("cputune");
    for pin in tune.into_iter().flat_map(|tune| tune.all("vcpupin")) {
        let vcpu = pin.attribute("vcpu").and_then(|vcpu| vcpu.parse().ok());
        if let (Some(vcpu), Some(cpus)) = (vcpu, pin.attribute("cpuset")) {
            machine.pin_vcpu(vcpu, &cpu_set::parse(cpus))?;
        }
    }
    Ok(())
}

/// Notes which pseudo-terminals the emulator got.
fn terminals(document: &mut Element, characters: &Value) {
    let path_of = |alias: &str| -> Option<String> {
        let label = format!("char{alias}");
        let entry = characters.as_array()?.iter().find(|entry| entry["label"] == label)?;
        entry["filename"].as_str()?.strip_prefix("pty:").map(str::to_owned)
    };
    for device in document.ensure("devices").elements_mut() {
        if !matches!(device.name.as_str(), "serial" | "console" | "channel")
            || !device.is("type", "pty")
        {
            continue;
        }
        let alias = device.attribute_at("alias", "name").unwrap_or_default().to_owned();
        if let Some(path) = path_of(&alias) {
            if device.name == "console" {
                device.set("tty", &path);
            }
            device.ensure("source").set("path", path);
        }
    }
}

/// The emulator's last words.
fn tail(log: &Path, start: u64) -> String {
    /// More is no message any more.
    const TAIL_BYTES_MAX: u64 = 4096;
    let Ok(mut file) = File::open(log) else { return String::new() };
    let mut text = Vec::new();
    if file.seek(SeekFrom::Start(start)).is_err() {
        return String::new();
    }
    _ = file.take(TAIL_BYTES_MAX).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter(|line| !line.starts_with("char device redirected"));
    lines.collect::<Vec<_>>().join("\n")
}
