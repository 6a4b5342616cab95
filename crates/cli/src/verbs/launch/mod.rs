//! `launch`: from nothing to a machine that can be used.

mod cards;
mod definition;
pub mod image;
pub mod provision;
pub mod workshop;

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guests::Progress;
use libvirt_compat::Error;
use libvirt_compat::xml;
use serde_json::{Map, json};

use crate::arguments::{Accel, Format, Forward, Launch, Level};
use crate::daemon::Connection;
use crate::failure::{Failure, TIMEOUT, USAGE};
use crate::machine::{Machine, Note};
use crate::output::List;
use crate::progress::Line;
use crate::way::{self, Way};
use crate::{guest, names, ssh, verbs};
use definition::Plan;
use image::Chosen;

const MEMORY_BYTES_MIN: u64 = 96 << 20;
/// What `spark` needs for itself is a tenth of it.
const SPARK_MEMORY_BYTES: u64 = 256 << 20;

/// `hostel launch`.
pub fn run(what: &Launch) -> Result<u8, Failure> {
    let mut line = Line::new();
    line.step("Looking for the daemon");
    let mut connection = Connection::open()?;
    let began = Instant::now();
    let machine = create(&mut connection, what, &mut line)?;
    let has_mounts = what.mount_home || !what.mounts.is_empty();
    let has_agent = !machine.definition.to_xml().contains("device='cdrom'");
    if what.console {
        drop(line);
        let attached = verbs::console::attach(connection, &machine, verbs::console::ESCAPE, false);
        println!("Launched: {}", machine.name());
        if attached.is_ok() && has_agent && (has_mounts || !what.ports.is_empty()) {
            let (mut connection, mut line) = (Connection::open()?, Line::new());
            await_level(&connection, &machine, Level::Booted, what.timeout, &mut line)?;
            verbs::lifecycle::furnish(&mut connection, &machine)?;
        }
        return attached;
    }
    if !what.no_wait && has_agent {
        line.step("Booting");
        // What our agent does for a machine, ssh does not.
        if await_way(&mut connection, &machine, what.timeout, &mut line)? == Way::Agent {
            verbs::lifecycle::furnish(&mut connection, &machine)?;
        } else if has_mounts || what.ports.contains(&Forward::Auto) {
            let failure = Failure::new("Mounts and automatic ports need the agent in the machine");
            failure.hint(format!("'hostel info {}' shows the way in", machine.name())).print();
        }
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

/// A name that is free.
pub fn name(connection: &mut Connection, wanted: Option<&str>) -> Result<String, Failure> {
    let taken: Vec<String> =
        connection.machines()?.iter().map(|machine| machine.name().to_owned()).collect();
    let Some(name) = wanted else { return Ok(names::made_up(&taken)) };
    names::check(name)?;
    if taken.iter().any(|known| known == name) {
        let hint =
            format!("'hostel info {name}' shows it; a deleted one is there until 'hostel purge'");
        let failure = Failure::new(format!("There is a machine '{name}' already"));
        return Err(failure.hint(hint).code(USAGE));
    }
    Ok(name.to_owned())
}

/// Makes a machine and starts it.
pub fn create(
    connection: &mut Connection,
    what: &Launch,
    line: &mut Line,
) -> Result<Machine, Failure> {
    let name = name(connection, what.name.as_deref())?;
    let memory = memory(what)?;
    image::check_size(what.disk)?;
    let ports: Vec<(u16, u16)> = what.ports.iter().filter_map(|wish| wish.pair()).collect();
    for (host, _) in &ports {
        verbs::port::check_free(*host)?;
    }
    let shares: Result<Vec<_>, _> =
        what.mounts.iter().map(|text| verbs::mount::share(text)).collect();
    let mut shares = shares?;
    if what.mount_home {
        shares.push(verbs::mount::home()?);
    }
    let cards = cards::cards(connection, what)?;
    if !cards.has_user && !ports.is_empty() {
        let failure = Failure::new("Ports are forwarded by the network 'user' only");
        return Err(failure.code(USAGE));
    }
    // Asked for last what may take long, and before anything is made what may be wrong.
    let is_spark = what.image == "spark";
    let mut seed = provision::plan(what, &name, !is_spark, &connection.places)?;
    let image = image::choose(what, line)?;
    if image.medium.is_some() {
        seed = None;
    }
    line.step("Making the disk");
    let files = Files::new(connection, &name);
    let note = Note {
        image: image.name.clone(),
        release: image.release.clone(),
        disk: Some(files.disk.clone()),
        ports,
        forwards_all: what.ports.contains(&Forward::Auto),
        seed: seed.is_some().then(|| files.seed.clone()),
        user: seed.as_ref().and_then(|seed| seed.user.clone()),
        shares,
        ..Note::default()
    };
    let plan = Plan {
        name: &name,
        stem: &files.stem,
        memory,
        cpus: what.cpus.unwrap_or(1),
        kvm: runs_on_kvm(connection, what.accel)?,
        cards: cards.elements,
        image: &image,
        note: &note,
    };
    // Defined first: whatever ends this process, its files have an owner that 'list' shows.
    line.step("Defining the machine");
    let xml = plan.definition(&connection.places.state).to_xml();
    let domain = connection.client.domain_define_xml(xml)?;
    let made = files.make(&image, what, seed.as_ref());
    let made = made.and_then(|()| start(connection, &name, line));
    match &made {
        Err(_) => {
            _ = connection.client.domain_undefine_flags(domain, 0);
            files.remove();
        }
        Ok(_) => remember(connection, &name, seed.as_ref()),
    }
    made
}

/// How much memory a machine gets.
fn memory(what: &Launch) -> Result<u64, Failure> {
    let least = match what.image == "spark" {
        true => SPARK_MEMORY_BYTES,
        false => default_memory(),
    };
    let memory = what.memory.unwrap_or(least);
    if memory < MEMORY_BYTES_MIN {
        let failure = Failure::new(format!("{} MiB are too little memory", memory >> 20));
        return Err(failure.hint(format!("{} MiB will do", MEMORY_BYTES_MIN >> 20)).code(USAGE));
    }
    Ok(memory)
}

fn start(connection: &mut Connection, name: &str, line: &mut Line) -> Result<Machine, Failure> {
    line.step("Starting");
    let machine = connection.machine(name)?;
    verbs::lifecycle::start_machine(connection, &machine)?;
    Ok(machine)
}

/// ssh is told of the machine; that it cannot be is no reason to have no machine.
fn remember(connection: &mut Connection, name: &str, seed: Option<&guests::seed::Seed>) {
    let places = connection.places.clone();
    if let Some(key) = seed.and_then(|seed| seed.host_key.as_ref()) {
        _ = ssh::know(&places, name, &key.public);
    }
    if let Ok(machines) = connection.machines() {
        _ = ssh::configure(&places, &machines);
    }
}

/// The files of a new machine. Their names are not only the machine's: it may get another one, and
/// another machine its old one.
pub struct Files {
    pub stem: String,
    pub disk: PathBuf,
    pub seed: PathBuf,
}

impl Files {
    pub fn new(connection: &Connection, name: &str) -> Self {
        let stem = format!("{name}-{}", provision::random_word());
        let disk = connection.places.state.join("disks").join(format!("{stem}.qcow2"));
        Self { seed: provision::path(&connection.places, &stem), disk, stem }
    }

    fn make(
        &self,
        image: &Chosen,
        what: &Launch,
        seed: Option<&guests::seed::Seed>,
    ) -> Result<(), Failure> {
        if let Some(folder) = self.disk.parent() {
            fs::create_dir_all(folder).map_err(|error| {
                Failure::new(format!("The folder {} cannot be made", folder.display()))
                    .because(&error)
            })?;
        }
        image::disk(image, what.disk, &self.disk)?;
        match seed {
            Some(seed) => provision::write(seed, what.seed.unwrap_or_default(), &self.seed),
            None => Ok(()),
        }
    }

    pub fn remove(&self) {
        _ = fs::remove_file(&self.disk);
        _ = fs::remove_file(&self.seed);
    }
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

/// What is left for guests: a quarter of what is there, within reason.
fn default_memory() -> u64 {
    let pages = rustix::system::sysinfo();
    let total = pages.totalram.saturating_mul(u64::from(pages.mem_unit));
    (total / 4).clamp(256 << 20, 1 << 30) & !0xf_ffff
}

/// What a guest has printed last, for those who wait.
fn last_words(machine: &Machine) -> String {
    const LENGTH_MAX: usize = 60;
    const TAIL_BYTES: u64 = 512;
    let read = || -> Option<String> {
        let mut log = fs::File::open(machine.console_log()?).ok()?;
        let length = log.metadata().ok()?.len();
        log.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let line = text.lines().rfind(|line| !line.trim().is_empty())?.trim().to_owned();
        // It is the guest's: nothing of it may move the cursor.
        Some(line.chars().filter(|sign| !sign.is_control()).take(LENGTH_MAX).collect())
    };
    read().map(|words| format!("  {words}")).unwrap_or_default()
}

/// How long a guest has before other ways than the agent are tried: most have one, and it is early.
const AGENT_PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks for other ways.
const WAY_PAUSE: Duration = Duration::from_secs(1);

/// Waits until there is a way into a machine by which programs can be run.
pub fn await_way(
    connection: &mut Connection,
    machine: &Machine,
    timeout: Duration,
    line: &mut Line,
) -> Result<Way, Failure> {
    let began = Instant::now();
    // The agent comes first in most guests; a log without its patience is what others need.
    let patience = AGENT_PATIENCE.min(timeout);
    let by_agent = await_level(connection, machine, Level::Booted, patience, line);
    match by_agent {
        Ok(()) => return Ok(Way::Agent),
        Err(failure) if failure.code != TIMEOUT => return Err(failure),
        Err(_) => {}
    }
    loop {
        match way::open(connection, machine) {
            Way::Serial => {}
            found => return Ok(found),
        }
        let left = timeout.saturating_sub(began.elapsed());
        if left.is_zero() {
            let name = machine.name();
            let failure = Failure::new(format!("Neither an agent nor ssh answers in '{name}'"));
            let hint = format!("'hostel console {name}' opens its serial console");
            return Err(failure.hint(hint).code(TIMEOUT));
        }
        let waited = await_level(connection, machine, Level::Booted, left.min(WAY_PAUSE), line);
        match waited {
            Ok(()) => return Ok(Way::Agent),
            Err(failure) if failure.code != TIMEOUT => return Err(failure),
            Err(_) => {}
        }
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
        line.tick(&last_words(machine));
        std::thread::sleep(PAUSE);
    }
}
