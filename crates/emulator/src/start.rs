//! From options to a running machine.

use std::fs;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use device::Stream;
use machine::{Cause, Config, End, Kernel, Machine, Request, Requests, TranslatorOptions};
use parking_lot::Mutex;
use qemu_compat::system::character::Short;

use crate::character::{CharacterError, Characters};
use crate::descriptors::Passed;
use crate::emulator::Emulator;
use crate::monitor::{HmpMonitor, Monitors, QmpMonitor};
use crate::options::{Mode, Options};
use crate::reactor::Reactor;

/// Builds the machine and runs it until it ends.
pub fn run(options: Options) -> Result<End> {
    let passed = Arc::new(Passed::default());
    passed.inherit();
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
    let machine = build(&options, &streams)?;
    *inbox.lock() = Some(machine.requests());
    let emulator = Arc::new(Emulator {
        control: machine.control(),
        requests: machine.requests(),
        power_button: machine.power_button(),
        characters,
        passed,
        monitors: Monitors::default(),
        quit_after_answer: Mutex::default(),
        options,
    });
    emulator.watch();
    let monitors = streams.monitors.iter().zip(&emulator.options.monitors);
    let mut qmp = Vec::new();
    let mut hmp = Vec::new();
    for (stream, option) in monitors {
        match option.mode {
            Mode::Control => {
                qmp.push(QmpMonitor::start(&emulator, Arc::clone(stream), option.pretty));
            }
            Mode::Readline => hmp.push(HmpMonitor::start(&emulator, Arc::clone(stream))),
        }
    }
    let pid_file = emulator.options.run.pid_file.as_deref().map(PidFile::create).transpose()?;
    let events = reactor.start()?;
    if !emulator.options.run.paused {
        emulator.control.resume();
    }
    let end = machine.run();
    reactor.quit();
    _ = events.join();
    drop(pid_file);
    Ok(end)
}

/// The streams that the command line names.
struct Streams {
    serials: Vec<Option<Arc<dyn Stream>>>,
    monitors: Vec<Arc<dyn Stream>>,
}

impl Streams {
    fn open(options: &Options, characters: &Characters) -> Result<Self> {
        for character in &options.characters {
            let opened = characters.add(character);
            let pty = opened.with_context(|| format!("-chardev {}", character.id))?;
            announce_pty(pty, &character.id);
        }
        let serials = options.serials.iter().map(|serial| stream(characters, serial));
        let serials = serials.collect::<Result<_>>()?;
        let monitors = options.monitors.iter().map(|monitor| {
            let none = || anyhow!("a monitor needs a character device");
            stream(characters, &monitor.character)?.ok_or_else(none)
        });
        Ok(Self { serials, monitors: monitors.collect::<Result<_>>()? })
    }
}

fn announce_pty(pty: Option<String>, id: &str) {
    if let Some(pty) = pty {
        println!("char device redirected to {pty} (label {id})");
        _ = std::io::stdout().flush();
    }
}

/// The stream behind a short form, made if it is new.
fn stream(characters: &Characters, short: &Short) -> Result<Option<Arc<dyn Stream>>> {
    let id = match short {
        Short::None => return Ok(None),
        Short::Named(id) => id.clone(),
        Short::New(character) => {
            announce_pty(characters.add(character)?, &character.id);
            character.id.clone()
        }
    };
    match characters.use_by_device(&id) {
        Ok(stream) => Ok(Some(stream)),
        Err(error @ CharacterError::NotFound { .. }) => bail!("{error}"),
        Err(error) => Err(error.into()),
    }
}

fn build(options: &Options, streams: &Streams) -> Result<Machine> {
    let kernel = options
        .kernel
        .as_deref()
        .ok_or_else(|| anyhow!("no kernel given (-kernel), and firmware is not built yet"))?;
    let read = |path: &str, what: &str| {
        fs::read(path).with_context(|| format!("could not load {what} '{path}'"))
    };
    let kernel = Kernel {
        image: read(kernel, "kernel")?,
        initrd: options.initrd.as_deref().map_or(Ok(Vec::new()), |path| read(path, "initrd"))?,
        command_line: options.append.clone(),
    };
    Ok(Machine::new(Config {
        ram_bytes: options.board.ram_bytes,
        processors: options.board.topology.count as usize,
        kernel,
        serial: streams.serials.first().cloned().flatten(),
        debug_exit: None,
        actions: options.run.actions,
        translator: TranslatorOptions {
            cache_bytes: options.accelerator.cache_bytes,
            ..TranslatorOptions::detect()
        },
    })?)
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
