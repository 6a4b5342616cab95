//! What an emulator can do: asked once per binary, remembered in a file.

use std::collections::HashMap;
use std::env::consts::ARCH;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Origin, Result};
use parking_lot::Mutex;
use qemu_compat::qmp::{Client, Incoming};
use serde_json::{Value, json};

use super::kvm::Kvm;

/// One emulator binary.
#[derive(Clone, Debug)]
pub struct Emulator {
    pub path: PathBuf,
    pub arch: String,
    pub version: (u32, u32, u32),
    /// It is the emulator of this product, which does what others leave to the kernel.
    pub is_ours: bool,
    pub machines: Vec<MachineType>,
    pub cpu_models: Vec<String>,
    /// Types it knows: devices, back ends.
    pub types: Vec<String>,
}

/// A board.
#[derive(Clone, Debug)]
pub struct MachineType {
    pub name: String,
    pub alias: Option<String>,
    pub cpus_max: u64,
    pub is_default: bool,
    pub default_cpu: Option<String>,
}

impl Emulator {
    /// The canonical board behind a name or alias.
    pub fn machine(&self, name: &str) -> Option<&MachineType> {
        self.machines
            .iter()
            .find(|machine| machine.name == name || machine.alias.as_deref() == Some(name))
    }

    /// The board for definitions that name none.
    pub fn default_machine(&self) -> Option<&MachineType> {
        let default = self.machines.iter().find(|machine| machine.is_default);
        default.or_else(|| self.machine("virt")).or(self.machines.first())
    }

    pub fn has(&self, kind: &str) -> bool {
        self.types.iter().any(|known| known == kind)
    }
}

/// The guest architectures, with the emulator's name and the width of a word.
pub const ARCHITECTURES: [(&str, u32); 19] = [
    ("x86_64", 64),
    ("i686", 32),
    ("aarch64", 64),
    ("armv7l", 32),
    ("riscv64", 64),
    ("riscv32", 32),
    ("ppc64", 64),
    ("ppc64le", 64),
    ("ppc", 32),
    ("s390x", 64),
    ("mips64el", 64),
    ("mips64", 64),
    ("mipsel", 32),
    ("mips", 32),
    ("sparc64", 64),
    ("sparc", 32),
    ("m68k", 32),
    ("alpha", 64),
    ("sh4", 32),
];

/// The emulator of whole machines that this program is.
const OWN: &str = "qemu-system-x86_64";

fn binary_name(arch: &str) -> String {
    let name = match arch {
        "i686" => "i386",
        "armv7l" => "arm",
        "ppc64le" => "ppc64",
        other => other,
    };
    format!("qemu-system-{name}")
}

/// What a binary was when it was probed: path, size and time of change.
type Identity = (PathBuf, u64, i64);

/// The emulators of the host.
pub struct Emulators {
    given: Option<PathBuf>,
    cache: PathBuf,
    /// A leaf, held while a binary is asked, so that it is asked once.
    known: Mutex<HashMap<PathBuf, (Identity, Arc<Emulator>)>>,
    /// A leaf, held while the micro guest runs, so that it runs once.
    kvm: Mutex<Option<Kvm>>,
}

impl Emulators {
    pub fn new(given: Option<PathBuf>, cache: PathBuf) -> Self {
        Self { given, cache, known: Mutex::default(), kvm: Mutex::new(None) }
    }

    /// The emulator of the host's own architecture.
    pub fn default_one(&self) -> Result<Arc<Emulator>> {
        self.for_arch(ARCH)
    }

    /// Where the emulator of an architecture lies.
    pub fn path_for(&self, arch: &str) -> Option<PathBuf> {
        if arch == ARCH && self.given.is_some() {
            return self.given.clone();
        }
        let name = binary_name(arch);
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let places = std::env::split_paths(&folders).chain(["/usr/bin".into()]);
        let found = places.map(|folder| folder.join(&name)).find(|path| path.is_file());
        found.or_else(|| self.own(&name))
    }

    /// This program under the name of an emulator, where the host has no other.
    fn own(&self, name: &str) -> Option<PathBuf> {
        if name != OWN {
            return None;
        }
        let program = std::env::current_exe().ok()?;
        let beside = program.with_file_name(name);
        if beside.canonicalize().is_ok_and(|path| path == program) {
            return Some(beside);
        }
        // Definitions name it, so it stays where it is when the program goes elsewhere.
        let link = self.cache.with_file_name("emulators").join(name);
        if fs::read_link(&link).ok().as_deref() != Some(&program) {
            crate::files::make_private_directory(link.parent()?).ok()?;
            _ = fs::remove_file(&link);
            symlink(&program, &link).ok()?;
        }
        Some(link)
    }

    pub fn for_arch(&self, arch: &str) -> Result<Arc<Emulator>> {
        let path = self.path_for(arch).ok_or_else(|| {
            let text = format!("Cannot find suitable emulator for {arch}");
            Error::new(Code::ConfigUnsupported, text).from(Origin::Qemu)
        })?;
        self.at(&path)
    }

    /// The emulator that a definition names.
    pub fn of(&self, domain: &Element) -> Result<Arc<Emulator>> {
        match domain.text_at("devices/emulator").filter(|path| !path.is_empty()) {
            Some(path) => self.at(Path::new(&path)),
            None => {
                let arch = domain.attribute_at("os/type", "arch");
                self.for_arch(arch.unwrap_or(ARCH))
            }
        }
    }

    /// The emulator at a path, from memory, from the cache, or by asking it.
    pub fn at(&self, path: &Path) -> Result<Arc<Emulator>> {
        let metadata = fs::metadata(path).map_err(|error| {
            let reason = crate::files::reason(&error);
            let text = format!("Cannot check QEMU binary {}: {reason}", path.display());
            Error::new(Code::SystemError, text).from(Origin::Qemu)
        })?;
        let identity = (path.to_owned(), metadata.size(), metadata.ctime());
        let mut known = self.known.lock();
        if let Some((was, emulator)) = known.get(path)
            && *was == identity
        {
            return Ok(Arc::clone(emulator));
        }
        let cached = self.read_cache(&identity);
        let emulator = match cached {
            Some(emulator) => emulator,
            None => {
                let answers = ask(path)?;
                let text = json!({"size": identity.1, "ctime": identity.2, "answers": answers});
                let file = self.cache_file(path);
                if let Err(error) =
                    crate::files::write_atomically(&file, text.to_string().as_bytes())
                {
                    eprintln!("warning: {error}");
                }
                understand(path, &answers)?
            }
        };
        let emulator = Arc::new(emulator);
        known.insert(path.to_owned(), (identity, Arc::clone(&emulator)));
        Ok(emulator)
    }

    fn cache_file(&self, path: &Path) -> PathBuf {
        let name = path.to_string_lossy().replace('/', "-");
        self.cache.join(format!("emulator{name}.json"))
    }

    fn read_cache(&self, identity: &Identity) -> Option<Emulator> {
        let text = fs::read(self.cache_file(&identity.0)).ok()?;
        let value: Value = serde_json::from_slice(&text).ok()?;
        let same = value["size"] == identity.1 && value["ctime"] == identity.2;
        if same { understand(&identity.0, &value["answers"]).ok() } else { None }
    }

    /// Whether KVM is offered: a micro guest has shown that it works at speed.
    pub fn kvm_works(&self) -> bool {
        self.kvm() == Kvm::Fast
    }

    /// Whether KVM can be had by those who ask for it by name.
    pub fn kvm_runs(&self) -> bool {
        self.kvm() != Kvm::Absent
    }

    fn kvm(&self) -> Kvm {
        *self.kvm.lock().get_or_insert_with(|| Kvm::find_out(&self.cache))
    }
}

const QUESTIONS: [&str; 5] =
    ["query-version", "query-target", "query-machines", "query-cpu-definitions", "qom-list-types"];
/// All answers together; the longest has about 100 KB.
const ANSWERS_BYTES_MAX: usize = 8 << 20;

/// Asks an emulator without a machine, over its standard input and output.
fn ask(path: &Path) -> Result<Value> {
    let failed = |problem: String| {
        let text = format!("Failed to probe QEMU binary {}: {problem}", path.display());
        Error::new(Code::InternalError, text).from(Origin::Qemu)
    };
    let mut child = Command::new(path)
        .args(["-S", "-no-user-config", "-nodefaults", "-display", "none"])
        .args(["-machine", "none,accel=tcg", "-qmp", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let answers = converse(&mut child).map_err(failed);
    _ = child.kill();
    _ = child.wait();
    answers
}

fn converse(child: &mut Child) -> std::result::Result<Value, String> {
    let mut input = child.stdin.take().ok_or("no standard input")?;
    let mut output = child.stdout.take().ok_or("no standard output")?;
    let mut client = Client::default();
    // All questions at once: one round trip instead of six.
    let mut text = client.command("qmp_capabilities", None).1;
    let mut numbers = Vec::new();
    for question in QUESTIONS {
        let (number, line) = client.command(question, None);
        numbers.push((number, question));
        text.extend(line);
    }
    input.write_all(&text).map_err(|error| error.to_string())?;
    let mut answers = serde_json::Map::new();
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        match client.next_message().map_err(|error| error.to_string())? {
            Some(Incoming::Reply(number, result)) => {
                if let Some((last, question)) = numbers.iter().find(|(own, _)| *own == number) {
                    answers.insert((*question).to_owned(), result.unwrap_or(Value::Null));
                    if Some(*last) == numbers.last().map(|(number, _)| *number) {
                        return Ok(Value::Object(answers));
                    }
                }
            }
            Some(_) => {}
            None => {
                let count = output.read(&mut buffer).map_err(|error| error.to_string())?;
                total += count;
                if count == 0 || total > ANSWERS_BYTES_MAX {
                    return Err("the monitor closed".to_owned());
                }
                client.feed(&buffer[..count]);
            }
        }
    }
}

fn understand(path: &Path, answers: &Value) -> Result<Emulator> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |name: &str| answers[name].as_array().cloned().unwrap_or_default();
    let version = &answers["query-version"]["qemu"];
    let part = |name: &str| version[name].as_u64().unwrap_or(0) as u32;
    let machines = list("query-machines").into_iter().map(|machine| MachineType {
        name: text(&machine["name"]),
        alias: machine["alias"].as_str().map(str::to_owned),
        cpus_max: machine["cpu-max"].as_u64().unwrap_or(1),
        is_default: machine["is-default"].as_bool().unwrap_or(false),
        default_cpu: machine["default-cpu-type"].as_str().map(str::to_owned),
    });
    let mut cpu_models: Vec<String> =
        list("query-cpu-definitions").iter().map(|cpu| text(&cpu["name"])).collect();
    cpu_models.sort();
    let arch = match text(&answers["query-target"]["arch"]).as_str() {
        "i386" => "i686".to_owned(),
        "arm" => "armv7l".to_owned(),
        other => other.to_owned(),
    };
    if arch.is_empty() {
        let text = format!("Failed to probe QEMU binary {}", path.display());
        return Err(Error::new(Code::InternalError, text).from(Origin::Qemu));
    }
    Ok(Emulator {
        path: path.to_owned(),
        arch,
        version: (part("major"), part("minor"), part("micro")),
        is_ours: text(&answers["query-version"]["package"]).starts_with("Hostel"),
        machines: machines.filter(|machine| machine.name != "none").collect(),
        cpu_models,
        types: list("qom-list-types").iter().map(|kind| text(&kind["name"])).collect(),
    })
}
