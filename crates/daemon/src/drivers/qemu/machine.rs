//! A running emulator.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libvirt_compat::constants::{lifecycle, state};
use libvirt_compat::event::DomainEvent;
use libvirt_compat::rpc::types::{TypedParameter, number_parameter};
use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Result};
use parking_lot::{Condvar, Mutex};
use qemu_compat::qmp::{Event, QmpError};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Map, Value, json};

use super::backup::{self, Backups};
use super::blocks::{self, Jobs};
use super::guard::{Guard, open_written};
use super::monitor::{Heard, Monitor};
use super::{hotplug, ports};
use crate::confine::Confinement;
use crate::drivers::{
    Adopted, BlockInfo, BlockStats, MemoryStats, Report, Reporter, Vcpu, unsupported,
};
use crate::drivers::{BackupDisk, BackupServer, Bitmap, BlockJob, BlockJobInfo, Overlay};

/// A polite end gets so long, then the process is killed.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Saving and restoring large memories takes long; without progress nothing is waited for.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(600);
/// libvirt waits so long for a guest to let a device go.
const UNPLUG_TIMEOUT: Duration = Duration::from_secs(5);

/// A running emulator. Shared by handlers and the monitor's thread.
pub struct Machine {
    monitor: Arc<Monitor>,
    shared: Arc<Shared>,
    socket: PathBuf,
}

/// What the monitor's thread needs; it must not keep the monitor alive.
struct Shared {
    reporter: Reporter,
    pid: Pid,
    process: OwnedFd,
    child: Mutex<Option<Child>>,
    ports: Mutex<Vec<u16>>,
    /// Set once the process is gone.
    gone: Mutex<bool>,
    went: Condvar,
    /// A handler ends the machine and reports that itself.
    ending: AtomicBool,
    /// The guest has gone off, and its process is about to end.
    guest_off: AtomicBool,
    /// The next shutdown of the guest is a reboot.
    rebooting: AtomicBool,
    /// STOP and RESUME events that answer our own commands.
    own_stops: AtomicI32,
    own_resumes: AtomicI32,
    removed: Mutex<Vec<String>>,
    removal: Condvar,
    jobs: Jobs,
    backups: Backups,
    /// Thread ids of the vCPUs.
    vcpus: Mutex<Vec<(u32, u32)>>,
    guard: Guard,
}

impl Machine {
    /// Takes charge of a process that was just made.
    pub fn new(
        child: Child,
        stream: UnixStream,
        name: &str,
        socket: PathBuf,
        ports: Vec<u16>,
        guard: Guard,
        reporter: Reporter,
    ) -> Result<Arc<Self>> {
        let process = (Pid::from_child(&child), Some(child), guard);
        Self::attach_to(process, stream, name, socket, ports, reporter)
    }

    fn attach_to(
        (pid, child, guard): (Pid, Option<Child>, Guard),
        stream: UnixStream,
        name: &str,
        socket: PathBuf,
        ports: Vec<u16>,
        reporter: Reporter,
    ) -> Result<Arc<Self>> {
        let process = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| crate::files::system("Cannot watch the emulator", &error.into()))?;
        let shared = Arc::new(Shared {
            reporter,
            pid,
            process,
            child: Mutex::new(child),
            ports: Mutex::new(ports),
            gone: Mutex::new(false),
            went: Condvar::new(),
            ending: AtomicBool::new(false),
            guest_off: AtomicBool::new(false),
            rebooting: AtomicBool::new(false),
            own_stops: AtomicI32::new(0),
            own_resumes: AtomicI32::new(0),
            removed: Mutex::default(),
            removal: Condvar::new(),
            jobs: Jobs::default(),
            backups: Backups::default(),
            vcpus: Mutex::default(),
            guard,
        });
        let own = Arc::clone(&shared);
        let monitor = Monitor::start(stream, name, move |monitor, heard| match heard {
            Heard::Event(event) => own.event(monitor, event),
            Heard::Closed => own.closed(),
        })?;
        Ok(Arc::new(Self { monitor, shared, socket }))
    }

    /// Opens the files of a device that is to be plugged in.
    pub fn open_device(&self, device: &Element) -> Result<()> {
        self.shared.guard.open_device(self.shared.process.as_fd(), device)
    }

    /// Opens one more file.
    pub fn open_file(&self, path: &Path, writable: bool) -> Result<()> {
        self.shared.guard.open_file(self.shared.process.as_fd(), path, writable)
    }

    /// Closes the files of a device that is gone.
    pub fn close_device(&self, domain: &Element, device: &Element) {
        self.shared.guard.close_device(self.shared.process.as_fd(), domain, device);
    }

    /// Where a socket is made that people expect under this name.
    pub fn open_socket(&self, path: &Path) -> Result<PathBuf> {
        self.shared.guard.open_socket(self.shared.process.as_fd(), path)
    }

    /// Has sockets made where the machine may make them.
    pub fn move_sockets(&self, device: &mut spec::Device) {
        self.shared.guard.move_sockets(std::slice::from_mut(device));
    }

    /// The backup that is being made.
    pub fn backups(&self) -> &Backups {
        &self.shared.backups
    }

    /// What disks are busy with.
    pub fn jobs(&self) -> &Jobs {
        &self.shared.jobs
    }

    pub fn monitor(&self) -> Arc<Monitor> {
        Arc::clone(&self.monitor)
    }

    /// Ends a machine that never came up.
    pub fn abandon(&self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        self.shared.signal(Signal::KILL);
        self.shared.wait_gone(TERMINATE_TIMEOUT);
    }

    /// Lets the guest run.
    pub fn go(&self) -> Result<()> {
        self.shared.own_resumes.fetch_add(1, Ordering::Relaxed);
        let done = self.monitor.execute("cont", None).map(|_| ());
        if done.is_err() {
            self.shared.own_resumes.fetch_sub(1, Ordering::Relaxed);
        }
        done
    }

    /// Stops the guest.
    pub fn halt(&self) -> Result<()> {
        self.shared.own_stops.fetch_add(1, Ordering::Relaxed);
        let done = self.monitor.execute("stop", None).map(|_| ());
        if done.is_err() {
            self.shared.own_stops.fetch_sub(1, Ordering::Relaxed);
        }
        done
    }

    /// Asks for the vCPUs' threads.
    pub fn read_vcpus(&self) -> Result<()> {
        let reply = self.monitor.execute("query-cpus-fast", None)?;
        let number = |cpu: &Value, key: &str| cpu[key].as_u64().unwrap_or(0) as u32;
        let cpus = reply.as_array().cloned().unwrap_or_default();
        *self.shared.vcpus.lock() =
            cpus.iter().map(|cpu| (number(cpu, "cpu-index"), number(cpu, "thread-id"))).collect();
        Ok(())
    }

    /// Waits until a stream has gone out or come in.
    pub fn wait_for_migration(&self, question: &str) -> Result<()> {
        let deadline = Instant::now() + MIGRATION_TIMEOUT;
        let mut pause = Duration::from_millis(2);
        while Instant::now() < deadline {
            let status = self.monitor.execute(question, None)?;
            match status["status"].as_str() {
                Some("completed") => return Ok(()),
                Some(bad @ ("failed" | "cancelled")) => {
                    let reason =
                        status["error-desc"].as_str().unwrap_or("the emulator gave no reason");
                    let text = format!("job 'migration' {bad}: {reason}");
                    return Err(Error::new(Code::OperationFailed, text));
                }
                _ => {}
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        Err(Error::new(Code::OperationTimeout, "the emulator did not finish"))
    }

    fn human(&self, command: &str) -> Result<String> {
        let arguments = json!({"command-line": command});
        let reply = self.monitor.execute("human-monitor-command", Some(arguments))?;
        Ok(reply.as_str().unwrap_or_default().to_owned())
    }

    /// A human command that prints nothing when it succeeds.
    fn silent(&self, command: &str) -> Result<()> {
        match self.human(command)?.trim() {
            "" => Ok(()),
            said => Err(Error::new(Code::OperationFailed, said.to_owned())),
        }
    }

    /// Waits until the guest has let a device go.
    pub fn wait_removed(&self, alias: &str) -> bool {
        let deadline = Instant::now() + UNPLUG_TIMEOUT;
        let mut removed = self.shared.removed.lock();
        loop {
            if let Some(place) = removed.iter().position(|own| own == alias) {
                removed.swap_remove(place);
                return true;
            }
            if self.shared.removal.wait_until(&mut removed, deadline).timed_out() {
                return false;
            }
        }
    }
}

impl Shared {
    fn signal(&self, signal: Signal) {
        // It may be gone already.
        _ = pidfd_send_signal(&self.process, signal);
    }

    fn wait_gone(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut gone = self.gone.lock();
        while !*gone {
            if self.went.wait_until(&mut gone, deadline).timed_out() {
                break;
            }
        }
        *gone
    }

    /// The monitor has closed: the process ends, or has to.
    fn closed(&self) {
        match self.child.lock().take() {
            Some(mut child) => {
                if child.try_wait().is_ok_and(|status| status.is_none()) {
                    // It may take a moment between closing its sockets and its end.
                    let deadline = Instant::now() + Duration::from_secs(5);
                    while Instant::now() < deadline && child.try_wait().is_ok_and(|s| s.is_none()) {
                        thread::sleep(Duration::from_millis(1));
                    }
                    _ = child.kill();
                }
                _ = child.wait();
            }
            None => self.signal(Signal::KILL),
        }
        self.ports.lock().drain(..).for_each(ports::give_back);
        self.guard.release();
        *self.gone.lock() = true;
        self.went.notify_all();
        // Only now: whoever hears that a domain is off may start it again, with the same disks.
        if self.guest_off.load(Ordering::Relaxed) {
            let (reason, detail) = (state::shutoff::SHUTDOWN, lifecycle::stopped::SHUTDOWN);
            (self.reporter)(Report::Stopped { reason, detail });
        } else if !self.ending.load(Ordering::Relaxed) {
            let (reason, detail) = (state::shutoff::CRASHED, lifecycle::stopped::FAILED);
            (self.reporter)(Report::Stopped { reason, detail });
        }
    }

    /// Takes an event, on the monitor's thread: sends commands, never waits for replies.
    fn event(&self, monitor: &Monitor, event: Event) {
        let text = |key: &str| event.data[key].as_str().unwrap_or_default().to_owned();
        match event.name.as_str() {
            "SHUTDOWN" => self.guest_shut_down(monitor, &event),
            "RESET" => (self.reporter)(Report::Rebooted),
            "STOP" => self.stopped(),
            "RESUME" => self.resumed(),
            "DEVICE_DELETED" => {
                if let Some(alias) = event.data["device"].as_str() {
                    self.removed.lock().push(alias.to_owned());
                    self.removal.notify_all();
                    (self.reporter)(Report::DeviceRemoved(alias.to_owned()));
                }
            }
            "BALLOON_CHANGE" => {
                let bytes = event.data["actual"].as_u64().unwrap_or(0);
                (self.reporter)(Report::Balloon(bytes / 1024));
            }
            "RTC_CHANGE" => {
                let offset = event.data["offset"].as_i64().unwrap_or(0);
                (self.reporter)(Report::Event(DomainEvent::RtcChange(offset)));
            }
            "DEVICE_TRAY_MOVED" => {
                let open = event.data["tray-open"].as_bool().unwrap_or(false);
                let reason = i32::from(!open);
                let alias = text("id");
                (self.reporter)(Report::Event(DomainEvent::TrayChange { alias, reason }));
            }
            "WATCHDOG" => {
                let actions =
                    ["none", "pause", "reset", "poweroff", "shutdown", "debug", "inject-nmi"];
                let action = actions.iter().position(|name| *name == text("action"));
                let action = action.unwrap_or(0) as i32;
                (self.reporter)(Report::Event(DomainEvent::Watchdog(action)));
            }
            "BLOCK_IO_ERROR" => {
                let actions = ["ignore", "stop", "report"];
                let action = actions.iter().position(|name| *name == text("action"));
                (self.reporter)(Report::Event(DomainEvent::IoError {
                    path: text("device"),
                    alias: text("device"),
                    action: action.unwrap_or(0) as i32,
                    reason: if event.data["nospace"] == true {
                        "enospc".into()
                    } else {
                        String::new()
                    },
                }));
            }
            "BLOCK_JOB_READY" | "BLOCK_JOB_COMPLETED" | "BLOCK_JOB_CANCELLED" => {
                self.block_job(monitor, &event);
            }
            "VSERPORT_CHANGE" => {
                let (alias, open) = (text("id"), event.data["open"] == true);
                (self.reporter)(Report::Channel { alias, open });
            }
            _ => {}
        }
        (self.reporter)(Report::Monitor {
            name: event.name,
            seconds: event.seconds,
            micros: event.micros,
            details: if event.data.is_null() { String::new() } else { event.data.to_string() },
        });
    }

    fn block_job(&self, monitor: &Monitor, event: &Event) {
        if let Some(report) = self.jobs.event(monitor, &event.name, &event.data) {
            (self.reporter)(report);
        }
        self.jobs.told();
        if let Some(report) = self.backups.event(monitor, event) {
            (self.reporter)(report);
        }
    }

    fn stopped(&self) {
        // A guest that has gone off stands still too, which is no news any more.
        if self.ending.load(Ordering::Relaxed) {
            return;
        }
        if !take_one(&self.own_stops) && !self.rebooting.load(Ordering::Relaxed) {
            let (reason, detail) = (state::paused::UNKNOWN, lifecycle::suspended::PAUSED);
            (self.reporter)(Report::Paused { reason, detail });
        }
    }

    fn resumed(&self) {
        if !take_one(&self.own_resumes) {
            (self.reporter)(Report::Resumed);
        }
    }

    fn guest_shut_down(&self, monitor: &Monitor, event: &Event) {
        if self.ending.load(Ordering::Relaxed) {
            (self.reporter)(Report::ShuttingDown(lifecycle::shutdown::HOST));
            return;
        }
        if self.rebooting.swap(false, Ordering::Relaxed) {
            monitor.send("system_reset", None);
            self.own_resumes.fetch_add(1, Ordering::Relaxed);
            monitor.send("cont", None);
            return;
        }
        let by_guest = event.data["guest"] == true;
        let detail = if by_guest { lifecycle::shutdown::GUEST } else { lifecycle::shutdown::HOST };
        (self.reporter)(Report::ShuttingDown(detail));
        self.guest_off.store(true, Ordering::Relaxed);
        self.ending.store(true, Ordering::Relaxed);
        monitor.send("quit", None);
    }
}

fn take_one(counter: &AtomicI32) -> bool {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n > 0).then(|| n - 1)).is_ok()
}

/// Takes over a machine that outlived an earlier daemon.
pub fn adopt(
    status: &Element,
    confinement: &Arc<Confinement>,
    reporter: Reporter,
) -> Result<Adopted> {
    let broken = || Error::new(Code::InternalError, "the status does not say where the monitor is");
    let socket = status.attribute_at("monitor", "path").ok_or_else(broken)?;
    let pid = status.attribute_at("monitor", "pid").and_then(|pid| pid.parse().ok());
    let pid = pid.and_then(Pid::from_raw).ok_or_else(broken)?;
    let uuid = status.text_at("domain/uuid").ok_or_else(broken)?;
    let name = status.text_at("domain/name").unwrap_or_default();
    let command_line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
    let own = command_line.is_ok_and(|line| line.split(|b| *b == 0).any(|a| a == uuid.as_bytes()));
    if !own {
        let text = format!("the emulator of '{name}' is gone");
        return Err(Error::new(Code::OperationFailed, text));
    }
    let stream = UnixStream::connect(socket)
        .map_err(|error| crate::files::system("Failed to reach the monitor", &error))?;
    let devices = status.at("domain/devices");
    let ports = devices.into_iter().flat_map(|devices| devices.all("graphics"));
    let ports = ports.filter_map(|graphics| graphics.attribute("port")?.parse().ok()).collect();
    let runtime = Path::new(socket).parent().unwrap_or(Path::new("/"));
    let process = (pid, None, Guard::adopt(confinement, &uuid, runtime));
    let machine = Machine::attach_to(process, stream, &name, socket.into(), ports, reporter)?;
    machine.monitor.greet()?;
    machine.read_vcpus()?;
    let reply = machine.monitor.execute("query-status", None)?;
    let state = match reply["status"].as_str() {
        Some("running") => (state::RUNNING, state::running::UNKNOWN),
        Some("shutdown") => (state::SHUTDOWN, 0),
        _ => (state::PAUSED, state::paused::UNKNOWN),
    };
    Ok(Adopted { machine, state })
}

/// Ends the emulators of a domain that no daemon knows to run.
pub fn put_down(uuid: &str) {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let is_it = words.windows(2).any(|pair| pair == [&b"-uuid"[..], uuid.as_bytes()]);
        if is_it {
            _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The 14th, 15th and 39th field of `/proc/PID/stat`: user ticks, system ticks, CPU.
fn task_times(path: &str) -> Option<(u64, u64, i32)> {
    let text = fs::read_to_string(path).ok()?;
    // The name in brackets may hold blanks.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<u64>().ok();
    const NS_PER_TICK: u64 = 10_000_000;
    let cpu = fields.get(36).and_then(|cpu| cpu.parse().ok()).unwrap_or(0);
    Some((ticks(11)? * NS_PER_TICK, ticks(12)? * NS_PER_TICK, cpu))
}

impl crate::drivers::Machine for Machine {
    fn suspend(&self) -> Result<()> {
        self.halt()
    }

    fn resume(&self) -> Result<()> {
        self.go()
    }

    fn shutdown(&self, mode: u32) -> Result<()> {
        power_modes(mode, "shutdown")?;
        self.shared.rebooting.store(false, Ordering::Relaxed);
        self.monitor.execute("system_powerdown", None).map(|_| ())
    }

    fn reboot(&self, mode: u32) -> Result<()> {
        power_modes(mode, "reboot")?;
        self.shared.rebooting.store(true, Ordering::Relaxed);
        self.monitor.execute("system_powerdown", None).map(|_| ())
    }

    fn reset(&self) -> Result<()> {
        self.monitor.execute("system_reset", None).map(|_| ())
    }

    fn kill(&self, graceful: bool) -> Result<()> {
        self.shared.ending.store(true, Ordering::Relaxed);
        self.shared.signal(Signal::TERM);
        if self.shared.wait_gone(TERMINATE_TIMEOUT) {
            return Ok(());
        }
        if graceful {
            self.shared.ending.store(false, Ordering::Relaxed);
            let text = "Failed to terminate process with SIGTERM: Device or resource busy";
            return Err(Error::new(Code::SystemError, text));
        }
        self.shared.signal(Signal::KILL);
        self.shared.wait_gone(TERMINATE_TIMEOUT);
        Ok(())
    }

    fn status(&self, status: &mut Element) {
        let monitor = Element::new("monitor")
            .with("path", self.socket.display())
            .with("pid", self.shared.pid.as_raw_nonzero());
        status.push(monitor);
    }

    fn cpu_time(&self) -> (u64, u64, u64) {
        let path = format!("/proc/{}/stat", self.shared.pid.as_raw_nonzero());
        let (user, system, _) = task_times(&path).unwrap_or_default();
        (user + system, user, system)
    }

    fn monitor_command(&self, command: &str, human: bool) -> Result<String> {
        if human {
            return self.human(command);
        }
        let command: Map<String, Value> = serde_json::from_str(command).map_err(|error| {
            Error::new(Code::InternalError, format!("cannot parse json {command}: {error}"))
        })?;
        let id = command.get("id").cloned();
        let mut reply = Map::new();
        match self.monitor.ask_raw(command) {
            Ok(result) => _ = reply.insert("return".into(), result),
            Err(QmpError::Refused { class, description }) => {
                if let Some(id) = &id {
                    reply.insert("id".into(), id.clone());
                }
                reply.insert("error".into(), json!({"class": class, "desc": description}));
                return Ok(Value::Object(reply).to_string());
            }
            Err(error) => return Err(Error::new(Code::OperationFailed, error.to_string())),
        }
        reply.insert("id".into(), id.unwrap_or_else(|| "libvirt-1".into()));
        Ok(Value::Object(reply).to_string())
    }

    fn set_memory(&self, kib: u64) -> Result<()> {
        let arguments = json!({"value": kib * 1024});
        self.monitor.execute("balloon", Some(arguments))?;
        Ok(())
    }

    fn memory_stats(&self) -> Result<MemoryStats> {
        // virDomainMemoryStatTags: actual balloon 6, resident set 7.
        let mut stats = Vec::new();
        if let Ok(reply) = self.monitor.execute("query-balloon", None) {
            stats.push((6, reply["actual"].as_u64().unwrap_or(0) / 1024));
        }
        let arguments = json!({"path": "/machine/peripheral/balloon0", "property": "guest-stats"});
        if let Ok(reply) = self.monitor.execute("qom-get", Some(arguments)) {
            let names = [
                (0, "stat-swap-in", 1024),
                (1, "stat-swap-out", 1024),
                (2, "stat-major-faults", 1),
                (3, "stat-minor-faults", 1),
                (4, "stat-free-memory", 1024),
                (5, "stat-total-memory", 1024),
                (8, "stat-available-memory", 1024),
                (10, "stat-disk-caches", 1024),
            ];
            for (tag, name, divisor) in names {
                // What the guest has not told is all ones.
                if let Some(value) = reply["stats"][name].as_u64().filter(|v| *v != u64::MAX) {
                    stats.push((tag, value / divisor));
                }
            }
            stats.push((9, reply["last-update"].as_u64().unwrap_or(0)));
        }
        stats.push((7, resident_kib(self.shared.pid)));
        Ok(stats)
    }

    fn set_memory_stats_period(&self, seconds: i32) -> Result<()> {
        let arguments = json!({
            "path": "/machine/peripheral/balloon0",
            "property": "guest-stats-polling-interval",
            "value": seconds
        });
        self.monitor.execute("qom-set", Some(arguments)).map(|_| ())
    }

    fn set_vcpus(&self, count: u32) -> Result<()> {
        hotplug::set_vcpus(self, count)
    }

    fn vcpus(&self) -> Result<Vec<Vcpu>> {
        let pid = self.shared.pid.as_raw_nonzero();
        let vcpus = self.shared.vcpus.lock().clone();
        Ok(vcpus
            .into_iter()
            .map(|(number, thread)| {
                let times = task_times(&format!("/proc/{pid}/task/{thread}/stat"));
                let (user, system, host_cpu) = times.unwrap_or_default();
                Vcpu { number, time_ns: user + system, host_cpu }
            })
            .collect())
    }

    fn pin_vcpu(&self, vcpu: u32, cpus: &[usize]) -> Result<()> {
        let vcpus = self.shared.vcpus.lock();
        let thread = vcpus.iter().find(|(number, _)| *number == vcpu).map(|(_, thread)| *thread);
        let thread = thread.and_then(|thread| Pid::from_raw(i32::try_from(thread).ok()?));
        let thread = thread.ok_or_else(|| {
            Error::new(Code::InvalidArg, format!("vcpu {vcpu} is not present in live config"))
        })?;
        let mut set = CpuSet::new();
        cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU).for_each(|cpu| set.set(*cpu));
        sched_setaffinity(Some(thread), &set).map_err(|error| {
            crate::files::system(format!("cannot set CPU affinity on vcpu {vcpu}"), &error.into())
        })
    }

    fn attach(&self, domain: &Element, device: &mut Element) -> Result<()> {
        hotplug::attach(self, domain, device)
    }

    fn detach(&self, domain: &Element, device: &Element) -> Result<bool> {
        hotplug::detach(self, domain, device)
    }

    fn update(&self, domain: &Element, old: &Element, new: &mut Element) -> Result<()> {
        hotplug::update(self, domain, old, new)
    }

    fn block_stats(&self, domain: &Element) -> Result<Vec<(String, BlockStats)>> {
        let reply = self.monitor.execute("query-blockstats", None)?;
        let entries = reply.as_array().cloned().unwrap_or_default();
        let devices = domain.child("devices");
        let disks = devices.into_iter().flat_map(|devices| devices.all("disk"));
        Ok(disks
            .filter_map(|disk| {
                let alias = disk.attribute_at("alias", "name")?;
                let entry = entries.iter().find(|entry| {
                    entry["qdev"]
                        .as_str()
                        .is_some_and(|path| path.split('/').any(|part| part == alias))
                })?;
                let number = |key: &str| entry["stats"][key].as_u64().unwrap_or(0);
                let stats = BlockStats {
                    read_requests: number("rd_operations"),
                    read_bytes: number("rd_bytes"),
                    read_ns: number("rd_total_time_ns"),
                    write_requests: number("wr_operations"),
                    write_bytes: number("wr_bytes"),
                    write_ns: number("wr_total_time_ns"),
                    flush_requests: number("flush_operations"),
                    flush_ns: number("flush_total_time_ns"),
                    write_highest: number("wr_highest_offset"),
                };
                Some((disk.attribute_at("target", "dev")?.to_owned(), stats))
            })
            .collect())
    }

    fn block_info(&self, domain: &Element, target: &str) -> Result<Option<BlockInfo>> {
        let Some(image) = hotplug::image_of(domain, target)? else { return Ok(None) };
        let arguments = json!({"flat": true});
        let reply = self.monitor.execute("query-named-block-nodes", Some(arguments))?;
        let entries = reply.as_array().cloned().unwrap_or_default();
        let node = entries.iter().find(|node| node["node-name"] == image.node);
        let Some(node) = node else { return Ok(None) };
        let physical = fs::metadata(&image.file).map_or(0, |metadata| metadata.len());
        Ok(Some(BlockInfo {
            capacity: node["image"]["virtual-size"].as_u64().unwrap_or(0),
            allocation: node["image"]["actual-size"].as_u64().unwrap_or(0),
            physical,
        }))
    }

    fn block_resize(&self, domain: &Element, target: &str, bytes: u64) -> Result<()> {
        let alias = hotplug::alias_of(domain, target)?;
        let node = blocks::top_node(&self.monitor, &alias)?;
        let arguments = json!({"node-name": node, "size": bytes});
        self.monitor.execute("block_resize", Some(arguments)).map(|_| ())
    }

    fn block_throttle(
        &self,
        domain: &Element,
        target: &str,
        limits: &[TypedParameter],
    ) -> Result<()> {
        let names = [
            ("total_bytes_sec", "bps"),
            ("read_bytes_sec", "bps_rd"),
            ("write_bytes_sec", "bps_wr"),
            ("total_iops_sec", "iops"),
            ("read_iops_sec", "iops_rd"),
            ("write_iops_sec", "iops_wr"),
        ];
        if let Some(other) = limits.iter().find(|own| names.iter().all(|(n, _)| *n != own.field)) {
            let text = format!("parameter '{}' is not supported", other.field);
            return Err(Error::new(Code::ArgumentUnsupported, text));
        }
        let mut arguments = Map::new();
        arguments.insert("id".into(), hotplug::alias_of(domain, target)?.into());
        for (name, key) in names {
            arguments.insert(key.into(), number_parameter(limits, name).unwrap_or(0).into());
        }
        let arguments = Value::Object(arguments);
        self.monitor.execute("block_set_io_throttle", Some(arguments)).map(|_| ())
    }

    fn block_job_start(&self, domain: &Element, target: &str, job: &BlockJob) -> Result<()> {
        blocks::start(self, domain, target, job)
    }

    fn block_job_info(&self, target: &str) -> Result<Option<BlockJobInfo>> {
        blocks::info(self, target)
    }

    fn block_job_set_speed(&self, target: &str, speed: u64) -> Result<()> {
        blocks::set_speed(self, target, speed)
    }

    fn block_job_end(&self, target: &str, pivot: bool, wait: bool) -> Result<()> {
        blocks::end(self, target, pivot, wait)
    }

    fn overlay(&self, domain: &Element, overlays: &mut [Overlay]) -> Result<()> {
        blocks::overlay(self, domain, overlays)
    }

    fn add_bitmaps(&self, domain: &Element, bitmaps: &[Bitmap]) -> Result<()> {
        backup::add_bitmaps(self, domain, bitmaps)
    }

    fn remove_bitmaps(&self, domain: &Element, bitmaps: &[Bitmap]) -> Result<()> {
        backup::remove_bitmaps(self, domain, bitmaps)
    }

    fn begin_backup(
        &self,
        domain: &Element,
        disks: &[BackupDisk],
        server: Option<&BackupServer>,
        bitmaps: &[Bitmap],
    ) -> Result<()> {
        backup::begin(self, domain, (disks, server), bitmaps)
    }

    fn abort_backup(&self) -> Result<()> {
        backup::abort(self)
    }

    fn screenshot(&self, _domain: &Element, screen: u32) -> Result<(String, File)> {
        if screen > 0 {
            let text = "only the first screen can be photographed";
            return Err(Error::new(Code::InvalidArg, text));
        }
        let folder = self.shared.guard.own_folder();
        let folder = folder.as_deref().or(self.socket.parent()).unwrap_or(Path::new("/"));
        let path = folder.join("screen.ppm");
        let arguments = json!({"filename": path.to_string_lossy()});
        self.monitor.execute("screendump", Some(arguments))?;
        let file = open_written(&path)
            .map_err(|error| crate::files::system("unable to open the picture", &error))?;
        _ = fs::remove_file(&path);
        Ok(("image/x-portable-pixmap".to_owned(), file))
    }

    fn send_keys(&self, codes: &[u32], hold_ms: u32) -> Result<()> {
        let keys = codes.iter().map(|code| json!({"type": "number", "data": code}));
        let mut arguments = json!({"keys": keys.collect::<Vec<_>>()});
        if hold_ms > 0 {
            arguments["hold-time"] = hold_ms.into();
        }
        self.monitor.execute("send-key", Some(arguments)).map(|_| ())
    }

    fn inject_nmi(&self) -> Result<()> {
        self.monitor.execute("inject-nmi", None).map(|_| ())
    }

    fn open_character_device(&self, device: &Element) -> Result<OwnedFd> {
        let path = device.attribute_at("source", "path").unwrap_or_default();
        match device.attribute("type").unwrap_or_default() {
            "pty" => open_terminal(Path::new(path)),
            "unix" => {
                let stream = self.shared.guard.connect(Path::new(path)).map_err(|error| {
                    crate::files::system(format!("Failed to connect to '{path}'"), &error)
                })?;
                stream
                    .set_nonblocking(true)
                    .map_err(|error| crate::files::system("Failed to set up the stream", &error))?;
                Ok(stream.into())
            }
            _ => {
                let name = device.attribute_at("alias", "name").unwrap_or_default();
                let text = format!("character device {name} is not using a PTY");
                Err(Error::new(Code::InternalError, text))
            }
        }
    }

    fn save(&self, file: OwnedFd) -> Result<()> {
        let running = self.monitor.execute("query-status", None)?["running"] == true;
        if running {
            self.halt()?;
        }
        let saved = self.write_state(&file);
        if saved.is_err() && running {
            self.go()?;
        }
        saved
    }

    fn dump(&self, file: OwnedFd, memory_only: bool) -> Result<()> {
        if !memory_only {
            return self.write_state(&file);
        }
        self.monitor.execute_with("getfd", json!({"fdname": "dump"}), file.as_fd())?;
        let arguments = json!({"paging": false, "protocol": "fd:dump", "detach": true});
        self.monitor.execute("dump-guest-memory", Some(arguments))?;
        self.wait_for_migration("query-dump")
    }

    fn snapshot_save(&self, name: &str) -> Result<()> {
        let running = self.monitor.execute("query-status", None)?["running"] == true;
        if running {
            self.halt()?;
        }
        let saved = self.silent(&format!("savevm \"{}\"", escaped(name)));
        if running {
            self.go()?;
        }
        saved
    }

    fn snapshot_delete(&self, name: &str) -> Result<()> {
        self.silent(&format!("delvm \"{}\"", escaped(name)))
    }

    fn add_graphics_client(&self, _index: u32, socket: OwnedFd, skip_auth: bool) -> Result<()> {
        let name = json!({"fdname": "graphicsfd"});
        self.monitor.execute_with("getfd", name, socket.as_fd())?;
        let arguments = json!({"protocol": "vnc", "fdname": "graphicsfd", "skipauth": skip_auth});
        self.monitor.execute("add_client", Some(arguments)).map(|_| ())
    }

    fn open_graphics(&self, _index: u32) -> Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()
            .map_err(|error| crate::files::system("Cannot make a socket pair", &error))?;
        self.add_graphics_client(0, theirs.into(), true)?;
        Ok(ours.into())
    }
}

impl Machine {
    fn write_state(&self, file: &OwnedFd) -> Result<()> {
        self.monitor.execute_with("getfd", json!({"fdname": "migrate"}), file.as_fd())?;
        let speed = json!({"max-bandwidth": 9_223_372_036_853_727_232u64});
        self.monitor.execute("migrate-set-parameters", Some(speed))?;
        self.monitor.execute("migrate", Some(json!({"uri": "fd:migrate"})))?;
        self.wait_for_migration("query-migrate")
    }
}

/// Characters that end a quoted word of the human monitor.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"")
}

/// Only the power button is a machine's to press: ACPI is 1, "any" is 0.
fn power_modes(mode: u32, what: &str) -> Result<()> {
    if mode & !1 == 0 {
        return Ok(());
    }
    Err(unsupported(if what == "reboot" { "virDomainReboot" } else { "virDomainShutdownFlags" }))
}

fn resident_kib(pid: Pid) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/statm", pid.as_raw_nonzero()));
    let pages = text.ok().and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * (rustix::param::page_size() as u64 / 1024)
}

fn open_terminal(path: &Path) -> Result<OwnedFd> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let opened =
        fs::OpenOptions::new().read(true).write(true).custom_flags(flags.bits() as i32).open(path);
    let terminal = opened.map_err(|error| {
        crate::files::system(format!("Unable to open '{}'", path.display()), &error)
    })?;
    let failed = |error: rustix::io::Errno| {
        crate::files::system("Unable to set up the terminal", &error.into())
    };
    // Bytes go through as they are.
    let mut modes = rustix::termios::tcgetattr(&terminal).map_err(failed)?;
    modes.make_raw();
    rustix::termios::tcsetattr(&terminal, rustix::termios::OptionalActions::Now, &modes)
        .map_err(failed)?;
    Ok(terminal.into())
}
