//! From options to a running machine.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use device::{Blob, Stream};
use machine::surroundings::Backends;
use machine::{
    BoardKind, Boot, Cause, Config, End, Kernel, Machine, OldChips, Part, Request, Requests,
};
use parking_lot::Mutex;
use qemu_compat::system::character::Short;

use crate::acceleration;
use crate::audio::Audio;
use crate::blocks::Blocks;
use crate::boards;
use crate::character::Characters;
use crate::descriptors::Passed;
use crate::dump::Dump;
use crate::emulator::{DeviceEvents, Emulator, connect_streams};
use crate::filters;
use crate::firmware::Folders;
use crate::migration::Migration;
use crate::monitor::{HmpMonitor, Monitors, QmpMonitor};
use crate::networks::Networks;
use crate::nics;
use crate::objects;
use crate::options::{Asked, Card, ClockBase, Mode, Options};
use crate::parts;
use crate::processors::{self, Chosen};
use crate::reactor::Reactor;
use crate::screens::Vnc;
use crate::shares;
use crate::typist::Typist;

/// The system ROM of boards without flash.
const BIOS: &str = "bios-256k.bin";
/// That of the small board.
const MICRO_BIOS: &str = "bios-microvm.bin";

/// Builds the machine and runs it until it ends.
pub fn run(options: Options) -> Result<End> {
    refuse_unbuilt(&options)?;
    let passed = prepare_process(&options)?;
    let reactor = Reactor::new().context("cannot start the event loop")?;
    // The machine's inbox exists only once the machine does, and consoles exist before.
    let inbox: Arc<Mutex<Option<Arc<Requests>>>> = Arc::default();
    let characters = Arc::new(Characters::new(&reactor, Arc::clone(&passed) as _, {
        let inbox = Arc::clone(&inbox);
        Arc::new(move || {
            if let Some(requests) = &*inbox.lock() {
                requests.put(Request::Quit(Cause::HostSignal));
            }
        })
    }));
    let streams = Streams::open(&options, &characters)?;
    let backends: Arc<Backends> = Arc::default();
    let audio = open_audio(&options, &backends)?;
    let assembly = Assembly {
        audio,
        blocks: Blocks::new(&backends),
        networks: Networks::new(&backends, Arc::clone(&passed) as _, &characters),
        monitors: Arc::default(),
        passed: Arc::clone(&passed),
        characters,
        backends,
        options,
    };
    let (machine, processors) = assembly.build(&streams)?;
    // Of those who share a stream the first one has it at the beginning: a device.
    let monitor_streams = monitor_streams(&assembly.options, &assembly.characters)?;
    *inbox.lock() = Some(machine.requests());
    let Assembly { options, characters, backends, blocks, networks, monitors, audio, .. } =
        assembly;
    let vnc = Vnc::start(&options, &machine, &monitors, &audio)?;
    let emulator = Arc::new(Emulator {
        machine,
        processors,
        backends,
        blocks,
        networks,
        characters,
        passed,
        monitors,
        vnc,
        typist: Typist::default(),
        debugger: Mutex::default(),
        migration: Migration::default(),
        dump: Dump::default(),
        quit_after_answer: Mutex::default(),
        options,
    });
    emulator.watch();
    let _monitors = Conversations::start(&emulator, &monitor_streams);
    if let Some(place) = &emulator.options.run.debugger {
        let listens = emulator.listen_for_debugger(place);
        listens.map_err(|error| anyhow!("-gdb {place}: {error}"))?;
    }
    run_to_the_end(&emulator, &reactor)
}

/// What must be as it is before anything is opened: the descriptors that were passed.
fn prepare_process(options: &Options) -> Result<Arc<Passed>> {
    if let Some(title) = &options.run.title {
        let title = std::ffi::CString::new(title.as_str()).context("-name process=")?;
        rustix::thread::set_name(&title).context("cannot set the process's name")?;
    }
    let passed = Arc::new(Passed::default());
    passed.inherit();
    for (number, set, opaque) in &options.run.descriptors {
        let added = passed.add_inherited(*number, *set, opaque.as_deref());
        added.map_err(|error| anyhow!("-add-fd fd={number},set={set}: {error}"))?;
    }
    // Every connection of a user-mode network costs a descriptor.
    net::user::raise_descriptor_limit();
    Ok(passed)
}

/// Lets the machine go, until it ends.
fn run_to_the_end(emulator: &Arc<Emulator>, reactor: &Arc<Reactor>) -> Result<End> {
    let pid_file = emulator.options.run.pid_file.as_deref().map(PidFile::create).transpose()?;
    if emulator.options.run.lock_memory {
        let all = rustix::mm::MlockAllFlags::CURRENT | rustix::mm::MlockAllFlags::FUTURE;
        rustix::mm::mlockall(all).context("locking memory failed")?;
    }
    if emulator.options.run.daemonize {
        crate::daemonize::ready()?;
    }
    crate::sandbox::apply(&emulator.options.run.sandbox)?;
    let run = &emulator.options.run;
    if let Some(uri) = &run.incoming {
        let expected = emulator.expect(uri, !run.paused);
        expected.map_err(|error| anyhow!("-incoming {uri}: {error}"))?;
    } else {
        if let Some(tag) = &run.snapshot {
            crate::snapshots::load(emulator, tag, None).map_err(|error| anyhow!("{error}"))?;
        }
        if !run.paused {
            emulator.machine.control().resume();
        }
    }
    // Monitors are heard from now on: nothing is asked of a machine that is not yet what it is to be.
    let events = reactor.start()?;
    let end = emulator.machine.run();
    if let Some(debugger) = emulator.debugger.lock().take() {
        debugger.end(if let End::Exit(code) = end { code } else { 0 });
    }
    reactor.quit();
    _ = events.join();
    drop(pid_file);
    Ok(end)
}

/// Options that are understood, and behind which nothing stands yet.
fn refuse_unbuilt(options: &Options) -> Result<()> {
    let run = &options.run;
    let asked = [
        ("-run-with user", run.user.is_some()),
        ("-run-with chroot", run.chroot.is_some()),
        ("-D", run.log_file.is_some()),
        ("-d", run.log_items.is_some()),
        ("-usb", options.usb),
        ("-accel thread=single", options.accelerator.single_thread),
    ];
    if let Some((name, _)) = asked.iter().find(|(_, asked)| *asked) {
        bail!("{name}: this option of QEMU is not built in Hostel");
    }
    board_properties(options)
}

/// Properties of the board: those that are built, and values that ask for nothing.
fn board_properties(options: &Options) -> Result<()> {
    let is_micro = options.board.name == boards::MICROVM;
    for (name, value) in &options.board.properties {
        let known = match (name.as_str(), value.as_str()) {
            (
                "usb" | "vmport" | "smm" | "nvdimm" | "hmat" | "graphics" | "hpet" | "i8042",
                value,
            ) => {
                matches!(value, "off" | "auto")
            }
            ("pit" | "pic" | "rtc", value) if is_micro => {
                matches!(value, "on" | "off" | "auto")
            }
            // There are no slots whose cards could have ROMs, and ACPI tells of the devices, so that
            // no kernel's command line has to.
            ("isa-serial" | "x-option-roms" | "auto-kernel-cmdline", value) if is_micro => {
                matches!(value, "on" | "off")
            }
            ("acpi" | "pit" | "pic", value) => value == "on",
            // Nothing here is shared between guests or left out of dumps in any case.
            ("dump-guest-core" | "mem-merge" | "memory-backend" | "pflash0" | "pflash1", _) => true,
            _ => bail!("Property '{}-machine.{name}' not found", options.board.name),
        };
        if !known {
            bail!(
                "Property '{}-machine.{name}': '{value}' is not built in Hostel",
                options.board.name
            );
        }
    }
    Ok(())
}

/// Monitors live as long as the machine.
struct Conversations {
    _qmp: Vec<Arc<QmpMonitor>>,
    _hmp: Vec<Arc<HmpMonitor>>,
}

impl Conversations {
    fn start(emulator: &Arc<Emulator>, streams: &[Arc<dyn Stream>]) -> Self {
        let (mut qmp, mut hmp) = (Vec::new(), Vec::new());
        for (stream, option) in streams.iter().zip(&emulator.options.monitors) {
            let stream = Arc::clone(stream);
            match option.mode {
                Mode::Control => qmp.push(QmpMonitor::start(emulator, stream, option.pretty)),
                Mode::Readline => hmp.push(HmpMonitor::start(emulator, stream)),
            }
        }
        Self { _qmp: qmp, _hmp: hmp }
    }
}

/// The streams that the command line names.
struct Streams {
    /// The names of the serial ports' character devices.
    serials: Vec<Option<String>>,
    debug_console: Option<String>,
}

impl Streams {
    fn open(options: &Options, characters: &Characters) -> Result<Self> {
        for character in &options.characters {
            let opened = characters.add(character);
            let pty = opened.with_context(|| format!("-chardev {}", character.id))?;
            announce_pty(pty, &character.id);
        }
        let serials = options.serials.iter().map(|serial| character(characters, serial));
        let serials = serials.collect::<Result<_>>()?;
        let debug_console = options.debug_console.as_ref();
        let debug_console = debug_console.map(|short| character(characters, short)).transpose()?;
        let debug_console = debug_console.flatten();
        Ok(Self { serials, debug_console })
    }
}

/// The streams of the monitors.
fn monitor_streams(options: &Options, characters: &Characters) -> Result<Vec<Arc<dyn Stream>>> {
    let monitors = options.monitors.iter().map(|monitor| {
        let none = || anyhow!("a monitor needs a character device");
        stream(characters, &monitor.character)?.ok_or_else(none)
    });
    monitors.collect()
}

fn announce_pty(pty: Option<String>, id: &str) {
    if let Some(pty) = pty {
        println!("char device redirected to {pty} (label {id})");
        _ = std::io::stdout().flush();
    }
}

/// The stream behind a short form, made if it is new.
pub fn stream(characters: &Characters, short: &Short) -> Result<Option<Arc<dyn Stream>>> {
    let id = character(characters, short)?;
    Ok(id.map(|id| characters.use_by_device(&id)).transpose()?)
}

/// The name of the character device behind a short form, made if it is new.
fn character(characters: &Characters, short: &Short) -> Result<Option<String>> {
    Ok(match short {
        Short::None => None,
        Short::Named(id) => Some(id.clone()),
        Short::New(character) => {
            announce_pty(characters.add(character)?, &character.id);
            Some(character.id.clone())
        }
    })
}

/// Where sound cards play.
fn open_audio(options: &Options, backends: &Backends) -> Result<Audio> {
    let mut audio = Audio::default();
    for asked in &options.sounds {
        audio.add(backends, &asked.members).map_err(|error| about(asked, error))?;
    }
    Ok(audio)
}

/// What a machine is put together from.
struct Assembly {
    options: Options,
    audio: Audio,
    characters: Arc<Characters>,
    backends: Arc<Backends>,
    blocks: Blocks,
    networks: Networks,
    monitors: Arc<Monitors>,
    passed: Arc<Passed>,
}

impl Assembly {
    fn build(&self, streams: &Streams) -> Result<(Machine, Chosen)> {
        let options = &self.options;
        let mut devices: Vec<Asked> = self.card().into_iter().collect();
        let late = |asked: &&Asked| filters::is_filter(&asked.members);
        for asked in options.objects.iter().filter(|asked| !late(asked)) {
            objects::add(&self.backends, &asked.members, options)
                .map_err(|error| about(asked, error))?;
        }
        for asked in &options.blocks {
            let mut members = asked.members.clone();
            let opened = self.passed.paths(&mut members).and_then(|()| self.blocks.add(&members));
            opened.map_err(|error| about(asked, error))?;
        }
        let (mut flash, mut drives) = ([None, None], Vec::new());
        let per_bus = if boards::is_q35(options.board.name) { 1 } else { 2 };
        for (number, asked) in options.drives.iter().enumerate() {
            let mut asked = asked.clone();
            if options.snapshot && !asked.members.contains_key("snapshot") {
                asked.members.insert("snapshot".to_owned(), "on".into());
            }
            let opened = self.passed.paths(&mut asked.members);
            let opened = opened.and_then(|()| self.blocks.drive(&asked, number, per_bus));
            let drive = opened.map_err(|error| about(&asked, error))?;
            drives.extend(drive.device);
            if let Some(node) = drive.flash {
                let free = flash.iter_mut().find(|place| place.is_none());
                *free.ok_or_else(|| about(&asked, "there are two flash chips at most"))? =
                    Some(node);
            }
        }
        for (number, name) in ["pflash0", "pflash1"].into_iter().enumerate() {
            if let Some(node) = options.board.property(name) {
                let found = self.backends.drives.get(node);
                let none = || anyhow!("Property 'pc-machine.{name}' can't find value '{node}'");
                flash[number] = Some(found.ok_or_else(none)?);
            }
        }
        for asked in &options.shares {
            shares::add(&self.backends, &asked.members).map_err(|error| about(asked, error))?;
        }
        for asked in &options.networks {
            self.networks.add(&asked.members).map_err(|error| about(asked, error))?;
        }
        let cards = nics::cards(&self.networks, &options.nics);
        // Cards are the board's and come first; drives are plugged in as `-device` does it.
        devices.extend(cards.map_err(|(asked, error)| about(&asked, error))?);
        devices.extend(drives);
        for asked in options.objects.iter().filter(late) {
            filters::add(&self.networks, &asked.members).map_err(|error| about(asked, error))?;
        }
        let has_serial = options.board.property("isa-serial") != Some("off");
        devices.extend(old_devices(streams).into_iter().filter(|_| has_serial));
        devices.extend(options.devices.iter().cloned());
        let mut all = Vec::new();
        for asked in &devices {
            let part = self.part(asked, &all).map_err(|error| about(asked, error))?;
            all.push(part);
        }
        self.machine(all, flash)
    }

    /// The graphics card that is there without `-device`.
    fn card(&self) -> Option<Asked> {
        let options = &self.options;
        let is_card = |asked: &Asked| {
            let driver = asked.members.get("driver").and_then(|driver| driver.as_str());
            driver.is_some_and(|driver| ["VGA", "virtio-vga"].contains(&driver))
        };
        let model = match options.card {
            Card::None => return None,
            Card::Model(model) => model,
            Card::Default => {
                let is_unwanted = options.nodefaults
                    || options.nographic
                    || [boards::NONE, boards::MICROVM].contains(&options.board.name)
                    || options.devices.iter().any(is_card);
                if is_unwanted {
                    return None;
                }
                "VGA"
            }
        };
        let mut members = serde_json::Map::new();
        members.insert("driver".into(), model.into());
        Some(Asked { typed: format!("-vga {model}"), members })
    }

    fn part(&self, asked: &Asked, others: &[Part]) -> std::result::Result<Part, String> {
        let mut part = parts::resolve(asked, &self.options.globals)?;
        parts::settle(&mut part, others)?;
        connect_streams(&mut part, &self.characters, &self.backends)?;
        Ok(part)
    }

    fn machine(
        &self,
        parts: Vec<Part>,
        flash: [Option<block::NodeRef>; 2],
    ) -> Result<(Machine, Chosen)> {
        let options = &self.options;
        // First, so that its notices stand before anybody else's error.
        let accelerator = acceleration::choose(options)?;
        let (chosen, identity) = processors::choose(options, &accelerator)?;
        let firmware = Folders::new(&options.firmware_paths);
        let boot = self.boot(&firmware, flash)?;
        let board = match options.board.name {
            boards::MICROVM => BoardKind::Microvm,
            name if boards::is_q35(name) => BoardKind::Q35,
            _ => BoardKind::Pc,
        };
        let is_micro = board == BoardKind::Microvm;
        let has = |name: &str| options.board.property(name) != Some("off");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let clock_offset_s = match options.run.clock.base {
            ClockBase::Utc => 0,
            ClockBase::LocalTime => crate::local_time_offset(),
            ClockBase::Fixed(date) => date - now.map_or(0, |now| now.as_secs() as i64),
        };
        let (smbios, uuid) =
            crate::smbios::resolve(options).map_err(|(asked, error)| about(&asked, error))?;
        let typed: Vec<String> = options.devices.iter().map(|asked| asked.typed.clone()).collect();
        let built = Machine::new(Config {
            board,
            ram_bytes: options.board.ram_bytes,
            processors: options.board.topology.count as usize,
            identity,
            boot,
            parts,
            backends: Arc::clone(&self.backends),
            firmware_files: Arc::new(firmware),
            events: Arc::new(DeviceEvents(Arc::clone(&self.monitors))),
            i8042: !is_micro && has("i8042"),
            hpet: !is_micro && has("hpet"),
            old_chips: OldChips { pic: has("pic"), pit: has("pit"), rtc: has("rtc") },
            uuid: uuid.or(options.board.uuid).unwrap_or_default(),
            smbios,
            fw_cfg: self.firmware_config()?,
            clock_offset_s,
            actions: options.run.actions,
            accelerator,
        });
        let machine = built.map_err(|error| crate::errors::machine(error, &typed))?;
        Ok((machine, chosen))
    }

    fn boot(&self, firmware: &Folders, flash: [Option<block::NodeRef>; 2]) -> Result<Boot> {
        let options = &self.options;
        let open = |path: &str, what: &str| {
            Blob::open(Path::new(path)).with_context(|| format!("could not load {what} '{path}'"))
        };
        let kernel = match &options.kernel {
            None => None,
            Some(path) => Some(Kernel {
                image: open(path, "kernel")?,
                initrd: options
                    .initrd
                    .as_deref()
                    .map_or(Ok(Blob::default()), |path| open(path, "initrd"))?,
                command_line: options.append.clone(),
            }),
        };
        // A kernel needs no firmware; who wants it all the same names it.
        let rom = match (&options.bios, kernel.is_some() || flash[0].is_some()) {
            _ if options.board.name == boards::NONE => Some(halting_rom()),
            (None, true) => None,
            (name, _) => {
                let default = if options.board.name == boards::MICROVM { MICRO_BIOS } else { BIOS };
                let name = name.as_deref().unwrap_or(default);
                let path = firmware.find(name);
                let path = path.ok_or_else(|| anyhow!("could not load PC BIOS '{name}'"))?;
                Some(fs::read(&path).with_context(|| format!("could not load PC BIOS '{name}'"))?)
            }
        };
        let value = |wanted: &str| {
            let found = options.boot.iter().rev().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.as_str())
        };
        Ok(Boot {
            rom,
            flash: flash.map(|node| node.map(|node| node as Arc<dyn block::Node>)),
            kernel,
            menu: value("menu") == Some("on"),
            menu_ms: value("splash-time").and_then(|time| time.parse().ok()).unwrap_or(0),
            retry_ms: value("reboot-timeout").and_then(|time| time.parse().ok()),
            order: value("order").unwrap_or("cad").to_owned(),
        })
    }

    fn firmware_config(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let file = |asked: &Asked| {
            let text = |name: &str| asked.members.get(name).and_then(|value| value.as_str());
            let name = text("name").ok_or_else(|| about(asked, "name is missing"))?.to_owned();
            match (text("file"), text("string")) {
                (Some(path), None) => {
                    Ok((name, fs::read(path).with_context(|| format!("can't load {path}"))?))
                }
                (None, Some(string)) => Ok((name, string.as_bytes().to_vec())),
                _ => Err(about(asked, "one of 'file' and 'string' is needed")),
            }
        };
        self.options.firmware_config.iter().map(file).collect()
    }
}

/// What `-serial` and `-debugcon` ask for, as devices.
fn old_devices(streams: &Streams) -> Vec<Asked> {
    let device = |typed: String, driver: &str, chardev: &str| {
        let mut members = serde_json::Map::new();
        members.insert("driver".into(), driver.into());
        members.insert("chardev".into(), chardev.into());
        Asked { typed, members }
    };
    let ports = streams.serials.iter().enumerate().filter_map(|(index, chardev)| {
        let chardev = chardev.as_ref()?;
        let mut asked = device(format!("-serial chardev:{chardev}"), "isa-serial", chardev);
        asked.members.insert("index".into(), index.to_string().into());
        Some(asked)
    });
    let console = streams.debug_console.iter();
    let console = console
        .map(|chardev| device(format!("-debugcon chardev:{chardev}"), "isa-debugcon", chardev));
    ports.chain(console).collect()
}

/// A ROM that does nothing: the processor halts at its first instructions.
fn halting_rom() -> Vec<u8> {
    const CLEAR_INTERRUPTS_AND_HALT: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfc];
    let mut rom = vec![0xff; 64 << 10];
    let reset_vector = rom.len() - 16;
    rom[reset_vector..reset_vector + 4].copy_from_slice(&CLEAR_INTERRUPTS_AND_HALT);
    rom
}

/// An error with the option that it is about.
fn about(asked: &Asked, error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{}: {error}", asked.typed)
}

/// The file with our process's number; it goes when we go.
struct PidFile<'a>(&'a str);

impl<'a> PidFile<'a> {
    fn create(path: &'a str) -> Result<Self> {
        let text = format!("{}\n", std::process::id());
        fs::write(path, text).with_context(|| format!("cannot create PID file {path}"))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        _ = fs::remove_file(self.0);
    }
}
