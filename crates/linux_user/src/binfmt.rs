//! `hostel binfmt`: tells the kernel which interpreter runs foreign programs, so that they start by
//! name, in chroots too: with flag F the kernel opens the interpreter when it is registered.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::abi::{arm64::Aarch64, i386::I386, riscv64::Riscv64, x86_64::X8664};
use crate::elf::Elf;
use crate::guest::{Guest, Machine};

const FOLDER: &str = "/proc/sys/fs/binfmt_misc";

/// Where links named after the applets are made when there are none beside the executable: the
/// kernel starts us under the name of the link, which says which applet we are.
const LINKS: &str = "/run/hostel/binfmt";

const MACHINES: [&Machine; 4] =
    [&Aarch64::MACHINE, &I386::MACHINE, &Riscv64::MACHINE, &X8664::MACHINE];

const HELP: &str = "usage: hostel binfmt enable|disable|status [OPTION...] [ARCH...]\n\
Registers interpreters for programs of other architectures with the kernel.\n\n\
  enable ARCH...      programs of ARCH start by name from now on\n\
  disable ARCH...     no longer\n\
  status [ARCH...]    shows what is registered\n\n\
  --print             shows what would be written, and writes nothing\n\
  --path DIR          where qemu-ARCH is (beside hostel)\n\
  --credential        set-user-id programs run with their owner's rights (flag C)\n\
  --preserve-argv0    programs see the name they were called by (flag P)\n\n\
ARCH: aarch64, i386, riscv64, x86_64\n";

/// What the command line asks for.
#[derive(Debug, Default)]
struct Request {
    verb: String,
    print: bool,
    credential: bool,
    preserve: bool,
    path: Option<PathBuf>,
    machines: Vec<&'static Machine>,
}

impl Request {
    fn parse(arguments: &[OsString]) -> Result<Self, String> {
        let mut request = Self::default();
        let mut words = arguments.iter().map(|word| word.to_string_lossy().into_owned());
        while let Some(word) = words.next() {
            match word.as_str() {
                "--print" => request.print = true,
                "--credential" => request.credential = true,
                "--preserve-argv0" => request.preserve = true,
                "--path" => {
                    request.path = Some(words.next().ok_or("--path needs a directory")?.into());
                }
                option if option.starts_with('-') => {
                    return Err(format!("unknown option '{option}'"));
                }
                _ if request.verb.is_empty() => request.verb = word,
                name => {
                    let known = MACHINES.iter().find(|machine| machine.name == name);
                    request.machines.push(known.ok_or_else(|| {
                        let names: Vec<_> = MACHINES.iter().map(|machine| machine.name).collect();
                        format!("unknown architecture '{name}'; known are {}", names.join(", "))
                    })?);
                }
            }
        }
        match request.verb.as_str() {
            "status" if request.machines.is_empty() => request.machines = MACHINES.to_vec(),
            "status" => {}
            "enable" | "disable" if request.machines.is_empty() => {
                return Err(format!("which architecture is to be {}d?", request.verb));
            }
            "enable" | "disable" => {}
            "" => return Err("what is to be done: enable, disable or status?".into()),
            verb => {
                return Err(format!("unknown command '{verb}'; known are enable, disable, status"));
            }
        }
        Ok(request)
    }

    fn flags(&self) -> String {
        let credential = if self.credential { "OC" } else { "" };
        let preserve = if self.preserve { "P" } else { "" };
        format!("{preserve}{credential}F")
    }
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// The line that registers an interpreter: ELF's class, order and version, executable or shared,
/// and the machine must be right; the system's name may be anything.
fn line(machine: &Machine, interpreter: &Path, flags: &str) -> String {
    let class = if machine.pointer_bytes == 8 { 2 } else { 1 };
    let mut magic = [0u8; 20];
    magic[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1, 1]);
    magic[16] = 2;
    magic[18..].copy_from_slice(&machine.elf_machine.to_le_bytes());
    let mut mask = [0xff_u8; 20];
    mask[7] = 0;
    mask[16] = 0xfe;
    let (magic, mask) = (escaped(&magic), escaped(&mask));
    format!(":qemu-{}:M::{magic}:{mask}:{}:{flags}", machine.name, interpreter.display())
}

/// The path under which the kernel is to start us as an applet.
fn interpreter(request: &Request, name: &str) -> Result<PathBuf, String> {
    let applet = format!("qemu-{name}");
    if let Some(folder) = &request.path {
        let path = folder.join(&applet);
        return match path.exists() {
            true => Ok(path),
            false => Err(format!("{} does not exist", path.display())),
        };
    }
    let own = std::env::current_exe().map_err(|error| format!("who am I? {error}"))?;
    let beside = own.with_file_name(&applet);
    if beside.canonicalize().is_ok_and(|target| target == own) {
        return Ok(beside);
    }
    let link = Path::new(LINKS).join(&applet);
    if !request.print {
        let failed = |error| format!("{}: {error}", link.display());
        fs::create_dir_all(LINKS).map_err(failed)?;
        let _ = fs::remove_file(&link);
        symlink(&own, &link).map_err(failed)?;
    }
    Ok(link)
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    let opened = fs::OpenOptions::new().write(true).open(file);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => format!("{}: only root may change it", file.display()),
        _ => format!("{}: {error}", file.display()),
    })
}

fn check_folder() -> Result<(), String> {
    if Path::new(FOLDER).join("register").exists() {
        return Ok(());
    }
    Err(format!(
        "{FOLDER} is not there\n  hint: 'modprobe binfmt_misc' and \
         'mount -t binfmt_misc binfmt_misc {FOLDER}' make it, if the kernel has it"
    ))
}

fn enable(request: &Request) -> Result<(), String> {
    for machine in &request.machines {
        let path = interpreter(request, machine.name)?;
        let line = line(machine, &path, &request.flags());
        if request.print {
            println!("{line}");
            continue;
        }
        check_folder()?;
        let entry = Path::new(FOLDER).join(format!("qemu-{}", machine.name));
        if entry.exists() {
            write(&entry, "-1")?;
        }
        write(&Path::new(FOLDER).join("register"), &line)?;
    }
    if !request.print && needs_libraries() {
        eprintln!("note: this hostel is linked dynamically, so chroots need its C library too");
    }
    Ok(())
}

/// The kernel keeps the interpreter open, but not the libraries that it asks for.
fn needs_libraries() -> bool {
    let own = std::env::current_exe().ok();
    let elf = own.and_then(|own| Elf::open(&own, &X8664::MACHINE).ok());
    elf.is_some_and(|elf| elf.interpreter().is_ok_and(|name| name.is_some()))
}

fn disable(request: &Request) -> Result<(), String> {
    for machine in &request.machines {
        let entry = Path::new(FOLDER).join(format!("qemu-{}", machine.name));
        if request.print {
            println!("-1 > {}", entry.display());
            continue;
        }
        check_folder()?;
        if !entry.exists() {
            return Err(format!("qemu-{} is not registered", machine.name));
        }
        write(&entry, "-1")?;
    }
    Ok(())
}

fn status(request: &Request) -> Result<(), String> {
    check_folder()?;
    for machine in &request.machines {
        let entry = Path::new(FOLDER).join(format!("qemu-{}", machine.name));
        let text = fs::read_to_string(&entry).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_string()
        };
        match text.lines().next() {
            None => println!("{:8} not registered", machine.name),
            Some(state) => {
                println!("{:8} {state} {} {}", machine.name, field("interpreter"), field("flags:"));
            }
        }
    }
    Ok(())
}

/// `hostel binfmt ...`.
pub fn run(arguments: &[OsString]) -> ExitCode {
    if arguments.iter().any(|word| matches!(word.to_str(), Some("-h" | "--help"))) {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let done = Request::parse(arguments).and_then(|request| match request.verb.as_str() {
        "enable" => enable(&request),
        "disable" => disable(&request),
        _ => status(&request),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Request, String> {
        Request::parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_line_is_the_kernels() {
        let line = line(&Aarch64::MACHINE, Path::new("/usr/bin/qemu-aarch64"), "F");
        let zeroes = "\\x00".repeat(9);
        let ones = "\\xff".repeat(8);
        assert_eq!(
            line,
            format!(
                ":qemu-aarch64:M::\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01{zeroes}\\x02\\x00\\xb7\\x00:\
                 \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00{ones}\\xfe\\xff\\xff\\xff:\
                 /usr/bin/qemu-aarch64:F"
            )
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (words, part) in [
            (&["enable", "vax"][..], "unknown architecture 'vax'"),
            (&["enable"], "which architecture"),
            (&["turn", "i386"], "unknown command 'turn'"),
            (&[], "enable, disable or status"),
            (&["status", "--loud"], "unknown option '--loud'"),
        ] {
            let error = parse(words).expect_err("it is a mistake");
            assert!(error.contains(part), "{error}");
        }
        let request = parse(&["enable", "i386", "--credential", "--preserve-argv0"]);
        assert_eq!(request.expect("it is right").flags(), "POCF");
    }
}
