//! User-mode emulation: unmodified Linux programs of another architecture, system calls passed to
//! this machine's kernel.

mod abi;
mod call;
mod elf;
mod guest;
mod host;
mod memory;
mod options;
mod robust;
mod signals;
mod space;
mod stack;
mod thread;
mod vdso;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use jit::{Engine, Space, Vcpu};
use parking_lot::Mutex;

use elf::{Elf, ElfError, Image};
use guest::Guest;
use options::{Options, Request};
use space::AddressSpace;
use stack::Stack;
use thread::{Action, Process, Thread};
use vdso::Vdso;

/// The exit code for a command line that cannot be understood, and for a file that cannot be run.
const EXIT_USAGE: u8 = 1;

/// Runs the applet `qemu-ARCHITECTURE`.
pub fn run(name: &str, arguments: &[OsString]) -> ExitCode {
    match name {
        "qemu-aarch64" => applet::<abi::arm64::Aarch64>(name, arguments),
        "qemu-i386" => applet::<abi::i386::I386>(name, arguments),
        "qemu-riscv64" => applet::<abi::riscv64::Riscv64>(name, arguments),
        "qemu-x86_64" => applet::<abi::x86_64::X8664>(name, arguments),
        _ => {
            eprintln!("{name}: This architecture is not supported");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn applet<G: Guest>(name: &str, arguments: &[OsString]) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(Request::Run(options)) => options,
        Ok(Request::Help) => {
            print!("{}", help(name));
            return ExitCode::SUCCESS;
        }
        Ok(Request::Version) => {
            println!("{name} version 10.0.0 (Hostel {})", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Ok(Request::Cpus) => {
            println!("Available CPUs:");
            G::MACHINE.cpus.iter().for_each(|cpu| println!("  {cpu}"));
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("{name}: {message}");
            eprintln!("  hint: '{name} --help' lists the options");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match start::<G>(*options) {
        Ok(code) => ExitCode::from(code as u8),
        Err(message) => {
            eprintln!("{name}: {message}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn help(name: &str) -> String {
    format!(
        "Usage: {name} [OPTION...] PROGRAM [ARGUMENT...]\n\
         Runs a Linux program built for another processor.\n\n\
         \x20 -L PATH        Where the program's libraries are (QEMU_LD_PREFIX)\n\
         \x20 -E VAR=VALUE   Sets an environment variable (several with commas)\n\
         \x20 -U VAR         Unsets an environment variable\n\
         \x20 -0 ARGV0       What the program sees as its name (QEMU_ARGV0)\n\
         \x20 -cpu MODEL     The processor; '-cpu help' lists them (QEMU_CPU)\n\
         \x20 -s SIZE        Bytes of stack, with k, M or G\n\
         \x20 -r RELEASE     What 'uname -r' tells (QEMU_UNAME)\n\
         \x20 -strace        Logs system calls (QEMU_STRACE)\n\
         \x20 -d ITEM,...    Logs: unimp, strace\n\
         \x20 -D FILE        Where to log\n"
    )
}

/// Loads the program and runs its first thread.
fn start<G: Guest>(options: Options) -> Result<i32, String> {
    let front_end = G::front_end(options.cpu.as_deref()).ok_or_else(|| {
        let cpu = options.cpu.as_deref().unwrap_or_default();
        format!("unable to find CPU model '{cpu}'")
    })?;
    let program = options.command[0].clone();
    let path = Path::new(&program);
    let failed = |error: ElfError| match error {
        ElfError::Io(error) => {
            format!("Could not open '{}': {}", path.display(), plain_text(&error))
        }
        error => format!("{}: {error}", path.display()),
    };
    let space = AddressSpace::new(G::MACHINE.address_end);
    let program_elf = Elf::open(path, &G::MACHINE).map_err(failed)?;
    let image = program_elf.load(&space, 0).map_err(failed)?;
    space.set_break(image.end);
    let interpreter = load_interpreter::<G>(&program_elf, &options, &space)?;
    let vdso = map_vdso::<G>(&space)?;
    let interpreter_ref = interpreter.as_ref();
    let stack =
        build_stack::<G>(&space, &options, &program_elf, &image, interpreter_ref, &vdso)?;

    let jit_space = Space::User(Box::new(space.clone()));
    let engine = Engine::new(front_end, jit_space, jit::Options::detect())
        .map_err(|error| format!("Cannot set up the translator: {error}"))?;
    memory::copy_by(&engine);
    let mut vcpu = Vcpu::new(&engine).map_err(|error| format!("Cannot make a vCPU: {error}"))?;
    let entry = interpreter.map_or(image.entry, |interpreter| interpreter.entry);
    let mut local = G::Local::default();
    G::start(vcpu.state_mut(), &mut local, entry, stack.pointer);
    let executable = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mut calls = Vec::new();
    for row in G::calls() {
        let number = row.number as usize;
        calls.resize(calls.len().max(number + 1), None);
        calls[number] = Some((row.name, row.call));
    }
    let process = Process {
        engine,
        space,
        actions: Mutex::new(inherited_actions()),
        vdso,
        executable: executable.to_string_lossy().into_owned(),
        arguments: guest_arguments(&options),
        stack: stack.pointer,
        auxiliary: stack.auxiliary,
        calls,
        named: Mutex::default(),
        options,
    };
    let mut thread = Thread {
        process: Arc::new(process),
        vcpu,
        local,
        mask: signals::inherited_mask(),
        saved_mask: None,
        alternate: [0, 2, 0],
        clear_tid: 0,
        robust_list: 0,
        ended: None,
        threaded: Arc::default(),
    };
    let code = thread.run();
    thread::finish(&mut thread);
    if thread.ended.is_some() {
        // The first thread ended; the others may go on, and the last one ends the process.
        let _ = host::plain(libc::SYS_exit, [code as u64, 0, 0, 0, 0, 0]);
    }
    Ok(code)
}

fn plain_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}

fn load_interpreter<G: Guest>(
    elf: &Elf,
    options: &Options,
    space: &AddressSpace,
) -> Result<Option<Image>, String> {
    let Some(name) = elf.interpreter().map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let path = OsString::from_vec(options.path(name.as_bytes()));
    let failed = |error: ElfError| match error {
        ElfError::Io(error) => format!("Could not open '{name}': {}", plain_text(&error)),
        error => format!("{name}: {error}"),
    };
    let interpreter = Elf::open(Path::new(&path), &G::MACHINE).map_err(failed)?;
    interpreter.load(space, 0).map(Some).map_err(failed)
}

/// The vDSO, in pages of its own.
fn map_vdso<G: Guest>(space: &AddressSpace) -> Result<Vdso, String> {
    let failed = |errno| format!("Cannot map: {}", std::io::Error::from_raw_os_error(errno));
    let image = vdso::image(&G::MACHINE);
    let bytes = (image.bytes.len() as u64).next_multiple_of(space::PAGE);
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u32;
    let start = space.map(0, bytes, 3, flags, -1, 0).map_err(failed)?;
    memory::write(start, &image.bytes).map_err(failed)?;
    space.protect(start, bytes, 5).map_err(failed)?;
    Ok(image.at(start, bytes))
}

fn guest_arguments(options: &Options) -> Vec<Vec<u8>> {
    let mut arguments: Vec<Vec<u8>> =
        options.command.iter().map(|word| word.clone().into_vec()).collect();
    if let Some(argv0) = &options.argv0 {
        arguments[0] = argv0.clone().into_vec();
    }
    arguments
}

fn guest_environment(options: &Options) -> Vec<Vec<u8>> {
    let mut variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    for (name, value) in &options.environment {
        variables.retain(|(other, _)| other != name);
        if let Some(value) = value {
            variables.push((name.clone(), value.clone()));
        }
    }
    variables
        .iter()
        .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
        .collect()
}

fn build_stack<G: Guest>(
    space: &AddressSpace,
    options: &Options,
    elf: &Elf,
    image: &Image,
    interpreter: Option<&Image>,
    vdso: &Vdso,
) -> Result<Stack, String> {
    let failed =
        |errno| format!("Cannot build the stack: {}", std::io::Error::from_raw_os_error(errno));
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as u32;
    let rights = if elf.executable_stack() { 7 } else { 3 };
    let bytes = options.stack_bytes.next_multiple_of(space::PAGE);
    // A page below that is never there ends runaway recursion.
    let start = space.map(0, bytes + space::PAGE, rights, flags, -1, 0).map_err(failed)?;
    space.protect(start, space::PAGE, 0).map_err(failed)?;
    let contents = stack::Contents {
        arguments: &guest_arguments(options),
        environment: &guest_environment(options),
        image,
        interpreter: interpreter.map_or(0, |interpreter| interpreter.bias),
        path: options.command[0].as_bytes(),
        vdso,
    };
    stack::build(start + space::PAGE + bytes, &G::MACHINE, &contents).map_err(failed)
}

/// Signals that were ignored when we were started stay ignored.
fn inherited_actions() -> [Action; 64] {
    let mut actions = [Action::default(); 64];
    for signal in 1..=64 {
        if signals::is_ignored(signal) {
            actions[signal as usize - 1].handler = 1;
        }
    }
    // Rust ignores SIGPIPE for itself; the guest is to die of it.
    signals::set(libc::SIGPIPE, signals::Disposition::Default);
    actions[libc::SIGPIPE as usize - 1].handler = 0;
    actions
}
