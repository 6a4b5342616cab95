//! User-mode emulation: unmodified Linux programs of another architecture, system calls passed to
//! this machine's kernel.

mod abi;
pub mod binfmt;
mod call;
mod debug;
mod elf;
mod guest;
mod host;
mod memory;
mod options;
mod proc;
mod robust;
mod signals;
mod space;
mod stack;
mod strace;
mod thread;
mod vdso;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use jit::{Engine, Space, Vcpu};
use linux::locks::Mutex;

use elf::{Elf, ElfError, Image};
use guest::Guest;
use options::{Options, Request};
use space::{AddressSpace, Places};
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
    let options = match Options::parse(arguments, host::keeps_argv0()) {
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
        Ok(Request::LogItems) => {
            println!("Log items (comma separated):");
            options::LOG_ITEMS.iter().for_each(|(item, text)| println!("{item:15} {text}"));
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("{name}: {message}");
            eprintln!("  hint: '{name} -help' lists the options");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match start::<G>(*options) {
        Ok(code) => ExitCode::from(code as u8),
        Err(Refusal { message, code }) => {
            eprintln!("{name}: {message}");
            ExitCode::from(code)
        }
    }
}

fn help(name: &str) -> String {
    format!(
        "usage: {name} [options] program [arguments...]\n\
         Runs a Linux program built for another processor.\n\n\
         -L path            QEMU_LD_PREFIX        where the program's libraries are\n\
         -E var=value[,...] QEMU_SET_ENV          sets environment variables\n\
         -U var[,...]       QEMU_UNSET_ENV        unsets environment variables\n\
         -0 argv0           QEMU_ARGV0            what the program sees as its name\n\
         -cpu model         QEMU_CPU              the processor ('-cpu help' lists them)\n\
         -g port|path       QEMU_GDB              waits for gdb there\n\
         -s size            QEMU_STACK_SIZE       bytes of stack, with k, M or G\n\
         -r release         QEMU_UNAME            what 'uname -r' tells\n\
         -B address         QEMU_GUEST_BASE       0: addresses are the host's\n\
         -R size            QEMU_RESERVED_VA      the program's addresses are below this\n\
         -p bytes                                 4096, the size of a page\n\
         -strace            QEMU_STRACE           logs system calls\n\
         -d item[,...]      QEMU_LOG              logs ('-d help' lists the items)\n\
         -D file            QEMU_LOG_FILENAME     where to log (standard error)\n\
         -seed number       QEMU_RAND_SEED        the same randomness each time\n\
         -tb-size MiB       QEMU_TB_SIZE          room for translated code\n\
         -one-insn-per-tb   QEMU_ONE_INSN_PER_TB  translates instructions one by one\n\
         -version           displays the version\n"
    )
}

/// Why a program is not run.
struct Refusal {
    message: String,
    code: u8,
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self { message, code: EXIT_USAGE }
    }
}

/// What QEMU's loader says to an ELF file that is not the guest's.
const EXIT_WRONG_MACHINE: u8 = 255;

/// A refusal to load a file.
fn refusal(path: &Path, error: &ElfError) -> Refusal {
    let path = path.display();
    match error {
        ElfError::Io(error) => format!("Error while loading {path}: {}", plain_text(error)).into(),
        ElfError::NotElf => format!("Error while loading {path}: Exec format error").into(),
        error => Refusal { message: format!("{path}: {error}"), code: EXIT_WRONG_MACHINE },
    }
}

/// Loads the program and runs its first thread.
fn start<G: Guest>(options: Options) -> Result<i32, Refusal> {
    let front_end = G::front_end(options.cpu.as_deref()).ok_or_else(|| {
        let cpu = options.cpu.as_deref().unwrap_or_default();
        format!("unable to find CPU model '{cpu}'")
    })?;
    let program = options.command[0].clone();
    let path = Path::new(&program);
    let failed = |error: ElfError| refusal(path, &error);
    let space = AddressSpace::new(options.reserved.unwrap_or(u64::MAX).min(G::MACHINE.address_end));
    let program_elf = Elf::open(path, &G::MACHINE).map_err(failed)?;
    let image = program_elf.load(&space, 0).map_err(failed)?;
    space.set_break(image.end);
    let interpreter = load_interpreter::<G>(&program_elf, &options, &space)?;
    let vdso = map_vdso::<G>(&space)?;
    let interpreter_ref = interpreter.as_ref();
    let stack = build_stack::<G>(&space, &options, &program_elf, &image, interpreter_ref, &vdso)?;
    drop(program_elf); // the guest's first descriptor is 3

    let engine = engine::<G>(front_end, &space, &options)?;
    let mut vcpu = Vcpu::new(&engine).map_err(|error| format!("Cannot make a vCPU: {error}"))?;
    let entry = interpreter.map_or(image.entry, |interpreter| interpreter.entry);
    let mut local = G::Local::default();
    G::start(vcpu.state_mut(), &mut local, entry, stack.pointer);
    let places = Places { stack: stack.pointer, vdso: vdso.address };
    let executable = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if options.log_pages {
        options
            .log(&format!("start-end prot offset device inode name\n{}", space.listing(&places)));
    }
    name_process(&executable);
    let debugger = match &options.gdb {
        Some(place) => Some(debug::listen::<G>(&engine, place, &stack.auxiliary, &executable)?),
        None => None,
    };
    let process = Process {
        debugger,
        engine,
        space,
        vdso,
        executable: executable.to_string_lossy().into_owned(),
        arguments: guest_arguments(&options),
        places,
        auxiliary: stack.auxiliary,
        calls: call::by_number(G::calls()),
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
        actions: Arc::new(Mutex::new(inherited_actions())),
        programs: Vec::new(),
    };
    host::close_again();
    let code = thread.run();
    thread::finish(&mut thread);
    if thread.ended.is_some() {
        // The first thread ended; the others may go on, and the last one ends the process.
        let _ = host::plain(libc::SYS_exit, [code as u64, 0, 0, 0, 0, 0]);
    }
    Ok(code)
}

/// The translator, which from now on copies from and to guest memory too.
fn engine<G: Guest>(
    front_end: G::FrontEnd,
    space: &AddressSpace,
    options: &Options,
) -> Result<Arc<Engine<G::FrontEnd>>, String> {
    let jit_space = Space::User(Box::new(space.clone()));
    let mut jit_options = jit::Options::detect();
    jit_options.cache_bytes = options.cache_bytes.unwrap_or(jit_options.cache_bytes);
    if options.single_instructions {
        jit_options.insns_max = 1;
    }
    let engine = Engine::new(front_end, jit_space, jit_options)
        .map_err(|error| format!("Cannot set up the translator: {error}"))?;
    memory::copy_by(&engine);
    Ok(engine)
}

/// The process is called as the program, as after an exec.
fn name_process(executable: &Path) {
    let name = executable.file_name().unwrap_or_default().as_bytes();
    let mut bytes = [0u8; 16];
    let length = name.len().min(bytes.len() - 1);
    bytes[..length].copy_from_slice(&name[..length]);
    let _ =
        host::plain(libc::SYS_prctl, [libc::PR_SET_NAME as u64, bytes.as_ptr() as u64, 0, 0, 0, 0]);
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
    let Some(name) = elf.interpreter().map_err(|error| format!("Invalid ELF image: {error}"))?
    else {
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
    Ok(image.at(start))
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
    // Programs that this one starts wait for no debugger.
    let mut variables: Vec<(OsString, OsString)> =
        std::env::vars_os().filter(|(name, _)| name != "QEMU_GDB").collect();
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
        seed: options.seed,
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
