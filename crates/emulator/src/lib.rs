//! The `qemu-system-x86_64` applet: command line to machine to run.

mod console;
mod options;
mod size;

use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use machine::surroundings::NoFirmware;
use machine::{
    BoardKind, Boot, Config, End, Kernel, Machine, NoEvents, Part, Properties, PropertyValue,
    Smbios, TranslatorOptions,
};

use console::Console;
use options::{Action, Options, SerialPeer};

/// The version that we report, so that scripts find what they know.
const QEMU_VERSION: &str = "10.0.2";

/// Runs the applet.
pub fn run(name: &str, arguments: &[OsString]) -> ExitCode {
    match Options::parse(arguments) {
        Ok(Action::Version) => {
            let own = env!("CARGO_PKG_VERSION");
            println!("QEMU emulator version {QEMU_VERSION} (Hostel {own})");
            ExitCode::SUCCESS
        }
        Ok(Action::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Action::Run(options)) => match start(&options) {
            Ok(End::Exit(code)) => ExitCode::from(code),
            Ok(End::Shutdown | End::Quit) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{name}: {error:#}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> Result<End> {
    let read = |path: &str, what: &str| {
        fs::read(path).with_context(|| format!("could not load {what} '{path}'"))
    };
    let kernel = Kernel {
        image: read(&options.kernel, "kernel")?,
        initrd: options.initrd.as_deref().map_or(Ok(Vec::new()), |path| read(path, "initrd"))?,
        command_line: options.append.clone(),
    };
    let console = match &options.serial {
        SerialPeer::None => None,
        SerialPeer::Null => Some(Console::null()),
        SerialPeer::Stdio { escapes } => Some(Console::stdio(*escapes)),
        SerialPeer::File(path) => Some(Console::file(path)?),
    };
    let parts = options.debug_exit.map(|port| {
        let mut properties = Properties::default();
        properties.set("iobase", PropertyValue::Unsigned(u64::from(port)));
        properties.set("iosize", PropertyValue::Unsigned(4));
        Part { model: "isa-debug-exit".to_owned(), id: None, bus: None, properties }
    });
    let machine = Machine::new(Config {
        board: BoardKind::Pc,
        ram_bytes: options.ram_bytes,
        processors: options.processors,
        boot: Boot { kernel: Some(kernel), ..Boot::default() },
        parts: parts.into_iter().collect(),
        backends: Arc::default(),
        firmware_files: Arc::new(NoFirmware),
        events: Arc::new(NoEvents),
        serial: console.as_ref().map(Console::output),
        i8042: false,
        hpet: false,
        uuid: [0; 16],
        smbios: Smbios::default(),
        fw_cfg: Vec::new(),
        clock_offset_s: 0,
        reset_ends: options.no_reboot,
        translator: TranslatorOptions {
            cache_bytes: options.cache_bytes,
            ..TranslatorOptions::detect()
        },
    })?;
    if let (Some(console), Some(port)) = (&console, machine.serial()) {
        console.connect(port, machine.requests());
    }
    let end = machine.run();
    drop(console); // gives the terminal back
    Ok(end)
}
