//! The first process of a small guest: mounts, modules, network, consoles.
//!
//! What is particular to an image stands in files of it: `/etc/modules` in the order in which they
//! are to be loaded, `/etc/rc` for the rest, `/etc/consoles` for terminals that get a shell.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use agent::FrameKind;
use parking_lot::Mutex;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, waitid, waitpid};
use rustix::system::{RebootCommand, reboot};
use rustix::time::{ClockId, Timespec, clock_settime};
use serde_json::json;

use crate::info;
use crate::seed::{self, Seed};
use crate::session::{Failed, Host};

/// Mounts, loads, starts, and leaves the rest to threads.
pub fn run() {
    mount_all();
    load_modules();
    let words = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let word = |name: &str| words.split_whitespace().find_map(|word| word.strip_prefix(name));
    if let Some(name) = word("hostname=") {
        _ = rustix::system::sethostname(name.as_bytes());
    }
    if let Some(disk) = word("hostel.root=") {
        let error = hand_over(disk);
        eprintln!("init: {disk}: {error}");
        loop {
            thread::park();
        }
    }
    if let Some(disk) = word("hostel.disk=") {
        match keep_on(disk) {
            // The new root has none of them yet.
            Ok(()) => mount_all(),
            Err(error) => eprintln!("init: {disk}: {error}: what is changed will be forgotten"),
        }
    }
    let seed = word("hostel.seed=").and_then(seed::read);
    if let Some(seed) = &seed {
        seed.set_up();
    }
    _ = thread::Builder::new().name("rc".to_owned()).spawn(move || start_rest(seed.as_ref()));
    _ = thread::Builder::new().name("reaper".to_owned()).spawn(reap);
}

/// The kernel's file systems, and those that are empty at each start.
fn mount_all() {
    for (source, target, kind) in [
        ("proc", "/proc", "proc"),
        ("sysfs", "/sys", "sysfs"),
        ("devtmpfs", "/dev", "devtmpfs"),
        ("devpts", "/dev/pts", "devpts"),
        ("tmpfs", "/run", "tmpfs"),
        ("tmpfs", "/tmp", "tmpfs"),
    ] {
        _ = fs::create_dir_all(target);
        if let Err(error) = mount(source, target, kind, MountFlags::empty(), None) {
            eprintln!("init: {target}: {error}");
        }
    }
}

/// Lays the disk over what the RAM disk brought, so that changes stay.
fn keep_on(disk: &str) -> io::Result<()> {
    await_device(disk)?;
    for folder in ["/mnt/disk", "/mnt/root"] {
        fs::create_dir_all(folder)?;
    }
    let flags = MountFlags::empty();
    mount(disk, "/mnt/disk", "ext4", flags, None)?;
    for folder in ["/mnt/disk/upper", "/mnt/disk/work"] {
        fs::create_dir_all(folder)?;
    }
    let layers = c"lowerdir=/,upperdir=/mnt/disk/upper,workdir=/mnt/disk/work";
    mount("overlay", "/mnt/root", "overlay", flags, Some(layers))?;
    rustix::process::chroot("/mnt/root")?;
    std::env::set_current_dir("/")
}

/// Leaves everything to the first process of the system on a disk; comes back only with an error.
fn hand_over(disk: &str) -> io::Error {
    const ROOT: &str = "/root";
    let moved = || -> io::Result<()> {
        await_device(disk)?;
        mount(disk, ROOT, "ext4", MountFlags::empty(), None)?;
        for target in ["/tmp", "/run", "/dev/pts", "/dev", "/sys", "/proc"] {
            _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
        }
        // The system's first process mounts its own; a console it needs before.
        mount("devtmpfs", format!("{ROOT}/dev").as_str(), "devtmpfs", MountFlags::empty(), None)?;
        std::env::set_current_dir(ROOT)?;
        rustix::mount::mount_move(".", "/")?;
        rustix::process::chroot(".")?;
        std::env::set_current_dir("/")
    };
    match moved() {
        Ok(()) => Command::new("/sbin/init").env("PATH", crate::exec::PATH).exec(),
        Err(error) => error,
    }
}

/// Drivers find their devices a little after they were loaded.
pub fn await_device(path: &str) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let began = std::time::Instant::now();
    while !std::path::Path::new(path).exists() {
        if began.elapsed() > PATIENCE {
            return Err(io::ErrorKind::NotFound.into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn load_modules() {
    let list = fs::read_to_string("/etc/modules").unwrap_or_default();
    for path in list.lines().filter(|line| !line.is_empty()) {
        let loaded =
            File::open(path).and_then(|file| Ok(rustix::system::finit_module(&file, c"", 0)?));
        match loaded {
            // The RAM disk's files are memory, and this one has served.
            Ok(()) => _ = fs::remove_file(path),
            Err(error) => eprintln!("init: {path}: {error}"),
        }
    }
}

/// `/etc/rc`, and then a shell on every console, for ever.
fn start_rest(seed: Option<&Seed>) {
    let consoles = fs::read_to_string("/etc/consoles").unwrap_or_default();
    for console in consoles.lines().filter(|line| !line.is_empty()) {
        let console = console.to_owned();
        _ = thread::Builder::new().name("console".to_owned()).spawn(move || {
            loop {
                let began = std::time::Instant::now();
                if let Err(error) = shell_on(&console) {
                    eprintln!("init: {console}: {error}");
                }
                // A console that is not there must not keep the guest busy.
                if began.elapsed() < Duration::from_secs(1) {
                    thread::sleep(Duration::from_secs(1));
                }
            }
        });
    }
    let mut script = Command::new("/bin/sh");
    script.arg("/etc/rc");
    if let Err(error) = Started::new(&mut script).and_then(|mut script| script.wait()) {
        info::problem(format!("/etc/rc: {error}"));
    }
    if let Some(seed) = seed {
        seed.run();
    }
    info::reached("provisioned");
    give_back();
}

/// What was read only to boot is of no use any more; free pages in one piece go to the host. Pieces of
/// 16 KiB do, not of 2 MiB only: a small guest has few large ones. The kernel sets that size itself
/// when the balloon's driver comes, whatever its command line says.
fn give_back() {
    rustix::fs::sync();
    _ = fs::write("/sys/module/page_reporting/parameters/page_reporting_order", "2");
    for (file, value) in [("drop_caches", "3"), ("compact_memory", "1")] {
        _ = fs::write(format!("/proc/sys/vm/{file}"), value);
    }
}

fn shell_on(console: &str) -> io::Result<ExitStatus> {
    let terminal = fs::OpenOptions::new().read(true).write(true).open(console)?;
    let mut command = Command::new("setsid");
    command.args(["-c", "/bin/sh", "-l"]).env("HOME", "/root").env("TERM", "vt220");
    command.current_dir("/root");
    command.stdin(Stdio::from(terminal.try_clone()?));
    command.stdout(terminal.try_clone()?).stderr(terminal);
    Started::new(&mut command)?.wait()
}

/// Programs that this one has started and waits for itself.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A program that was started; whoever holds it waits for it.
pub struct Started(pub Child);

impl Started {
    /// Starts a program so that the reaper leaves it alone.
    pub fn new(command: &mut Command) -> io::Result<Self> {
        // Held over both steps, or the reaper could come in between.
        let mut own = OWN.lock();
        let child = command.spawn()?;
        own.insert(Pid::from_child(&child).as_raw_nonzero().get());
        Ok(Self(child))
    }

    /// Waits until it ends.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.0.wait();
        OWN.lock().remove(&Pid::from_child(&self.0).as_raw_nonzero().get());
        status
    }
}

/// Orphans come to the first process when they end. Sleeps until somebody does.
fn reap() {
    const PAUSE: Duration = Duration::from_millis(200);
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    loop {
        if !matches!(waitid(WaitId::All, look), Ok(Some(_))) {
            thread::sleep(Duration::from_secs(1)); // no children at all, for now
            continue;
        }
        {
            let own = OWN.lock();
            for process in zombies() {
                if !own.contains(&process.as_raw_nonzero().get()) {
                    _ = waitpid(Some(process), WaitOptions::NOHANG);
                }
            }
        }
        thread::sleep(PAUSE); // whoever started another one is about to ask
    }
}

/// Children of the first process that have ended.
fn zombies() -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let zombie = |entry: fs::DirEntry| {
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (_, rest) = status.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let is_orphan = fields.first() == Some(&"Z") && fields.get(1) == Some(&"1");
        is_orphan.then(|| Pid::from_raw(number)).flatten()
    };
    processes.flatten().filter_map(zombie).collect()
}

/// Sets the clock.
pub fn set_time(nanoseconds: u64, host: &Host) -> Result<(), Failed> {
    let seconds = i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(i64::MAX);
    let rest = (nanoseconds % 1_000_000_000) as i64;
    clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: rest })?;
    host.answer(FrameKind::Answer, &json!({}));
    Ok(())
}

/// Goes off. A guest with an init of its own is asked to by it.
pub fn power_off(again: bool, host: &Host) -> Result<(), Failed> {
    host.answer(FrameKind::Answer, &json!({}));
    if std::process::id() != 1 {
        let verb = if again { "reboot" } else { "poweroff" };
        Command::new(verb).spawn()?;
        return Ok(());
    }
    rustix::fs::sync();
    thread::sleep(Duration::from_millis(50)); // for the answer to get out
    reboot(if again { RebootCommand::Restart } else { RebootCommand::PowerOff })?;
    Ok(())
}
