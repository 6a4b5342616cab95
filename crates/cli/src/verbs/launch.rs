//! `launch`: from nothing to a machine that can be used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use guests::cache::Cache;
use guests::{Progress, disk, spark};
use libvirt_compat::Error;
use libvirt_compat::xml::{self, Element};
use serde_json::{Map, json};

use crate::arguments::{Accel, Format, Launch, Level};
use crate::daemon::Connection;
use crate::failure::{Failure, TIMEOUT, USAGE};
use crate::guest;
use crate::machine::{Machine, Note};
use crate::output::List;
use crate::progress::Line;
use crate::{names, verbs};

const DISK_BYTES: u64 = 5 << 30;
const DISK_BYTES_MIN: u64 = 16 << 20;
const MEMORY_BYTES_MIN: u64 = 96 << 20;

/// `hostel launch`.
pub fn run(what: &Launch) -> Result<u8, Failure> {
    let mut line = Line::new();
    line.step("Looking for the daemon");
    let mut connection = Connection::open()?;
    let began = Instant::now();
    let machine = create(&mut connection, what, &mut line)?;
    if !what.no_wait {
        line.step("Booting");
        await_level(&connection, &machine, Level::Booted, what.timeout, &mut line)?;
    }
    drop(line);
    match what.format {
        Format::Table => println!("Launched: {}", machine.name()),
        format => {
            let mut row = Map::new();
            row.insert("name".into(), machine.name().into());
            row.insert("seconds".into(), json!(began.elapsed().as_secs_f64()));
            let columns = &[("Name", "name"), ("Seconds", "seconds")];
            List { name: "launched", columns, rows: vec![row], empty: "" }.print(format)?;
        }
    }
    Ok(0)
}

/// Makes a machine and starts it.
pub fn create(
    connection: &mut Connection,
    what: &Launch,
    line: &mut Line,
) -> Result<Machine, Failure> {
    let taken: Vec<String> =
        connection.machines()?.iter().map(|machine| machine.name().to_owned()).collect();
    let name = match &what.name {
        Some(name) => {
            names::check(name)?;
            if taken.contains(name) {
                let hint = format!("'hostel info {name}' shows it");
                let failure = Failure::new(format!("There is a machine '{name}' already"));
                return Err(failure.hint(hint).code(USAGE));
            }
            name.clone()
        }
        None => names::made_up(&taken),
    };
    if what.image != "spark" {
        let failure = Failure::new(format!("There is no image '{}'", what.image));
        return Err(failure.hint("'hostel images' lists those that there are").code(USAGE));
    }
    let memory = what.memory.unwrap_or_else(default_memory);
    if memory < MEMORY_BYTES_MIN {
        let failure = Failure::new(format!("{} MiB are too little memory", memory >> 20));
        return Err(failure.hint(format!("{} MiB will do", MEMORY_BYTES_MIN >> 20)).code(USAGE));
    }
    let size = what.disk.unwrap_or(DISK_BYTES).next_multiple_of(1 << 20);
    if size < DISK_BYTES_MIN {
        let failure = Failure::new(format!("{} MiB are too small a disk", size >> 20));
        return Err(failure.hint(format!("{} MiB will do", DISK_BYTES_MIN >> 20)).code(USAGE));
    }
    for (host, _) in &what.ports {
        verbs::port::check_free(*host)?;
    }
    let cache = Cache::of_user();
    line.step("Looking for the image");
    let image = spark::image(&cache, what.offline, line)?;
    line.step("Making the disk");
    let base = disk::empty_ext4(&cache, size)?;
    let overlay = overlay(&connection.places.state, &name, &base)?;
    let note = Note {
        image: what.image.clone(),
        release: image.version.clone(),
        disk: Some(overlay.clone()),
        deleted: false,
        ports: what.ports.clone(),
    };
    let plan = Plan {
        name: &name,
        memory,
        cpus: what.cpus.unwrap_or(1),
        kvm: runs_on_kvm(connection, what.accel)?,
        image: &image,
        note: &note,
    };
    let made = define_and_start(connection, &plan, line);
    if made.is_err() {
        _ = fs::remove_file(&overlay); // nobody else knows of it
    }
    made
}

/// What was asked for, or what the daemon offers: KVM where a micro guest has shown its speed.
fn runs_on_kvm(connection: &mut Connection, asked: Option<Accel>) -> Result<bool, Failure> {
    if let Some(asked) = asked {
        return Ok(asked == Accel::Kvm);
    }
    let failed =
        |error: &Error| Failure::new("The daemon does not tell what it offers").because(error);
    let text = connection.client.connect_get_capabilities().map_err(|error| failed(&error))?;
    let capabilities = xml::parse(&text, "capabilities").map_err(|error| failed(&error))?;
    Ok(capabilities.all("guest").filter_map(|guest| guest.child("arch")).any(|arch| {
        arch.is("name", "x86_64") && arch.all("domain").any(|domain| domain.is("type", "kvm"))
    }))
}

fn define_and_start(
    connection: &mut Connection,
    plan: &Plan<'_>,
    line: &mut Line,
) -> Result<Machine, Failure> {
    line.step("Defining the machine");
    let xml = plan.definition(&connection.places.state).to_xml();
    let domain = connection.client.domain_define_xml(xml)?;
    line.step("Starting");
    let machine = connection.machine(&domain.name)?;
    if let Err(failure) = verbs::lifecycle::start_machine(connection, &machine) {
        _ = connection.client.domain_undefine_flags(domain, 0);
        return Err(failure);
    }
    Ok(machine)
}

/// What is left for guests: a quarter of what is there, within reason.
fn default_memory() -> u64 {
    let pages = rustix::system::sysinfo();
    let total = pages.totalram.saturating_mul(u64::from(pages.mem_unit));
    (total / 4).clamp(256 << 20, 1 << 30) & !0xf_ffff
}

/// A disk of the machine's own over a base that many share.
fn overlay(state: &Path, name: &str, base: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::new(format!("The disk of '{name}' cannot be made")).because(error)
    };
    let folder = state.join("disks");
    fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
    let path = folder.join(format!("{name}.qcow2"));
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let made = Command::new(program)
        .args(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(base)
        .arg(&path)
        .output()
        .map_err(|error| failed(&error))?;
    if !made.status.success() {
        let reason = String::from_utf8_lossy(&made.stderr).trim().to_owned();
        let mut failure = Failure::new(format!("The disk of '{name}' cannot be made"));
        failure.causes.push(reason);
        return Err(failure);
    }
    Ok(path)
}

/// What a definition is written from.
struct Plan<'a> {
    name: &'a str,
    memory: u64,
    cpus: u32,
    kvm: bool,
    image: &'a spark::Image,
    note: &'a Note,
}

impl Plan<'_> {
    fn definition(&self, state: &Path) -> Element {
        let command_line =
            format!("{} hostname={} hostel.disk=/dev/vda", self.image.command_line, self.name);
        let os = Element::new("os")
            .with_child(
                Element::with_text("type", "hvm").with("arch", "x86_64").with("machine", "q35"),
            )
            .with_child(Element::with_text("kernel", self.image.kernel.display()))
            .with_child(Element::with_text("initrd", self.image.initrd.display()))
            .with_child(Element::with_text("cmdline", command_line));
        Element::new("domain")
            .with("type", if self.kvm { "kvm" } else { "qemu" })
            .with_child(Element::with_text("name", self.name))
            .with_child(Element::new("metadata").with_child(self.note.to_element()))
            .with_child(Element::with_text("memory", self.memory >> 10).with("unit", "KiB"))
            .with_child(Element::with_text("vcpu", self.cpus))
            .with_child(os)
            .with_child(Element::new("features").with_child(Element::new("acpi")))
            .with_child(Element::with_text("on_poweroff", "destroy"))
            .with_child(Element::with_text("on_reboot", "restart"))
            .with_child(Element::with_text("on_crash", "destroy"))
            .with_child(self.devices(state))
    }

    fn devices(&self, state: &Path) -> Element {
        let disk = self.note.disk.as_deref().unwrap_or(Path::new(""));
        let source =
            |name: &str, value: &dyn std::fmt::Display| Element::new("source").with(name, value);
        let log = state.join("logs").join(format!("{}-console.log", self.name));
        let emulator = state.join("bin/qemu-system-x86_64");
        Element::new("devices")
            .with_child(Element::with_text("emulator", emulator.display()))
            .with_child(
                Element::new("disk")
                    .with("type", "file")
                    .with("device", "disk")
                    .with_child(Element::new("driver").with("name", "qemu").with("type", "qcow2"))
                    .with_child(source("file", &disk.display()))
                    .with_child(Element::new("target").with("dev", "vda").with("bus", "virtio")),
            )
            .with_child(Element::new("controller").with("type", "usb").with("model", "none"))
            .with_child(
                Element::new("interface")
                    .with("type", "user")
                    .with_child(Element::new("model").with("type", "virtio")),
            )
            .with_child(
                Element::new("serial")
                    .with("type", "file")
                    .with_child(source("path", &log.display()))
                    .with_child(Element::new("target").with("port", "0")),
            )
            .with_child(
                // What the guest does not use is the host's again, without anybody asking.
                Element::new("memballoon").with("model", "virtio").with("freePageReporting", "on"),
            )
            .with_child(
                Element::new("rng").with("model", "virtio").with_child(
                    Element::with_text("backend", "/dev/urandom").with("model", "random"),
                ),
            )
            .with_child(
                Element::new("vsock")
                    .with("model", "virtio")
                    .with_child(Element::new("cid").with("auto", "yes")),
            )
    }
}

/// Waits until a machine has come so far.
pub fn await_level(
    connection: &Connection,
    machine: &Machine,
    level: Level,
    timeout: Duration,
    line: &mut Line,
) -> Result<(), Failure> {
    const PAUSE: Duration = Duration::from_millis(20);
    let socket = machine.socket(connection);
    let began = Instant::now();
    loop {
        let info = guest::quick_info(&socket, Duration::from_millis(500));
        if info.is_some_and(|info| info.levels.iter().any(|reached| reached == level.name())) {
            return Ok(());
        }
        let name = machine.name();
        if !crate::daemon::exists(&socket) && began.elapsed() > Duration::from_secs(1) {
            let failure = Failure::new(format!("The machine '{name}' has gone off"));
            return Err(failure.hint(format!("'hostel logs {name}' shows what it has printed")));
        }
        if began.elapsed() > timeout {
            let failure = Failure::new(format!("'{name}' is not {} yet", level.name()));
            let hint = format!("it goes on: 'hostel wait {name}', 'hostel logs {name}'");
            return Err(failure.hint(hint).code(TIMEOUT));
        }
        line.tick("");
        std::thread::sleep(PAUSE);
    }
}
