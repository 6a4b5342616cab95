//! From options to a running machine.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use device::Stream;
use machine::{Config, End, Kernel, Machine, Request, Requests, TranslatorOptions};
use parking_lot::Mutex;
use qemu_compat::system::character::Short;

use crate::character::Characters;
use crate::descriptors::Passed;
use crate::options::Options;
use crate::reactor::Reactor;

/// Builds the machine and runs it until it ends.
pub fn run(options: Options) -> Result<End> {
    let passed = Arc::new(Passed::default());
    passed.inherit();
    let reactor = Reactor::new().context("cannot start the event loop")?;
    // The machine's inbox exists only once the machine does, and consoles exist before.
    let inbox: Arc<Mutex<Option<Arc<Requests>>>> = Arc::default();
    let characters = Characters::new(&reactor, Arc::clone(&passed) as _, {
        let inbox = Arc::clone(&inbox);
        Arc::new(move || {
            if let Some(requests) = &*inbox.lock() {
                requests.put(Request::Quit(machine::Cause::HostSignal));
            }
        })
    });
    for character in &options.characters {
        characters.add(character)?;
    }
    let mut serials = Vec::new();
    for serial in &options.serials {
        serials.push(stream(&characters, serial)?);
    }
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
    let machine = Machine::new(Config {
        ram_bytes: options.board.ram_bytes,
        processors: options.board.topology.count as usize,
        kernel,
        serial: serials.into_iter().next().flatten(),
        debug_exit: None,
        actions: options.run.actions,
        translator: TranslatorOptions {
            cache_bytes: options.accelerator.cache_bytes,
            ..TranslatorOptions::detect()
        },
    })?;
    *inbox.lock() = Some(machine.requests());
    let events = reactor.start()?;
    if !options.run.paused {
        machine.control().resume();
    }
    let end = machine.run();
    reactor.quit();
    _ = events.join();
    Ok(end)
}

/// The stream behind a short form, made if it is new.
fn stream(characters: &Characters, short: &Short) -> Result<Option<Arc<dyn Stream>>> {
    let id = match short {
        Short::None => return Ok(None),
        Short::Named(id) => id.clone(),
        Short::New(character) => {
            characters.add(character)?;
            character.id.clone()
        }
    };
    Ok(Some(characters.use_by_device(&id)?))
}
