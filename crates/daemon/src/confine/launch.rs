//! The beginning of a machine's process: this program again, which gives away what a machine must
//! not have and becomes the emulator. A program of its own, because between fork and exec a daemon
//! with threads can do next to nothing.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use linux::{landlock, mounts};
use rustix::mount::{MountFlags, mount};
use serde_json::{Value, json};

use super::{root, rules};

/// The applet's name.
const NAME: &str = "hostel-confined";
/// Asks what can be done here instead of doing it.
const PROBE: &str = "--probe";
const EXIT_FAILED: u8 = 1;

/// The layers of confinement that this host can give.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Layers {
    pub user: bool,
    pub root: bool,
    pub landlock: bool,
    pub seccomp: bool,
}

impl Layers {
    const NAMES: [(&str, &str); 4] = [
        ("user", "users of their own: their numbers are not mapped here, or the right is missing"),
        ("root", "views of the file system of their own: the right to mount is missing"),
        ("landlock", "Landlock, which this kernel lacks"),
        ("seccomp", "seccomp, which this kernel lacks"),
    ];

    fn values(self) -> [bool; 4] {
        [self.user, self.root, self.landlock, self.seccomp]
    }

    /// What to say of those that are not there.
    pub fn missing(self) -> impl Iterator<Item = &'static str> {
        let absent = Self::NAMES.into_iter().zip(self.values()).filter(|(_, there)| !there);
        absent.map(|((_, text), _)| text)
    }

    fn to_json(self) -> Value {
        Self::NAMES.into_iter().zip(self.values()).map(|((name, _), there)| (name, there)).collect()
    }

    fn from_json(value: &Value) -> Self {
        let [user, root, landlock, seccomp] = Self::NAMES.map(|(name, _)| value[name] == true);
        Self { user, root, landlock, seccomp }
    }
}

/// What a process is to give away and to keep.
pub struct Plan {
    /// User and group.
    pub user: Option<(u32, u32)>,
    pub layers: Layers,
    /// The folder that it may write into.
    pub own: PathBuf,
    /// The control group.
    pub group: Option<PathBuf>,
    pub emulator: PathBuf,
    /// Programs and what they read, besides the system's.
    pub programs: Vec<PathBuf>,
    /// Files of the machine, and whether it may write to them.
    pub files: Vec<(PathBuf, bool)>,
}

impl Plan {
    pub fn to_json(&self) -> Value {
        json!({
            "user": self.user.map(|(user, group)| json!([user, group])),
            "layers": self.layers.to_json(),
            "own": self.own,
            "group": self.group,
            "programs": self.programs,
            "files": self.files,
        })
    }

    fn from_json(value: &Value, emulator: &Path) -> Option<Self> {
        let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let path = |value: &Value| value.as_str().map(PathBuf::from);
        let file = |file: &Value| Some((path(&file[0])?, file[1].as_bool()?));
        Some(Self {
            user: number(&value["user"][0]).zip(number(&value["user"][1])),
            layers: Layers::from_json(&value["layers"]),
            own: path(&value["own"])?,
            group: path(&value["group"]),
            emulator: emulator.to_owned(),
            programs: value["programs"].as_array()?.iter().map(path).collect::<Option<_>>()?,
            files: value["files"].as_array()?.iter().map(file).collect::<Option<_>>()?,
        })
    }
}

/// This program as launcher, before the emulator and its arguments.
pub fn command(plan: &Value) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).arg(plan.to_string());
    command
}

/// What this host can do, found out by doing it in a process that ends at once.
pub fn find_out(user: u32) -> Layers {
    let output = Command::new("/proc/self/exe")
        .arg0(NAME)
        .args([PROBE, &user.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let answer = output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok());
    Layers::from_json(&answer.unwrap_or(Value::Null))
}

/// `hostel-confined`: not for people.
pub fn run(name: &str, arguments: &[OsString]) -> ExitCode {
    let text = |place: usize| arguments.get(place).and_then(|argument| argument.to_str());
    if let (Some(PROBE), Some(user)) = (text(0), text(1).and_then(|text| text.parse().ok())) {
        println!("{}", probe(user).to_json());
        return ExitCode::SUCCESS;
    }
    let plan: Option<Value> = text(0).and_then(|text| serde_json::from_str(text).ok());
    let plan = plan
        .zip(arguments.get(1))
        .and_then(|(plan, emulator)| Plan::from_json(&plan, Path::new(emulator)));
    let Some(plan) = plan else {
        eprintln!("error: {name} is what the daemon starts machines with; it is of no other use");
        return ExitCode::from(EXIT_FAILED);
    };
    let (step, error) = become_emulator(&plan, &arguments[1..]);
    eprintln!("error: cannot confine the machine: {step}: {error}");
    ExitCode::from(EXIT_FAILED)
}

fn probe(user: u32) -> Layers {
    let landlock = landlock::version().is_some();
    let seccomp = Path::new("/proc/sys/kernel/seccomp").exists();
    let root = mounts::detach().is_ok()
        && mount("proc", "/tmp", "proc", MountFlags::empty(), c"hidepid=invisible").is_ok();
    let mut shell = Command::new("/proc/self/exe");
    // A process that could become this user says so by running at all.
    let as_user = shell.arg("--version").uid(user).gid(user).stdout(Stdio::null()).status();
    // It may not be able to read this program, which is another matter.
    let user = match as_user {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied && is_mapped(user),
    };
    Layers { user, root, landlock, seccomp }
}

/// Whether this number means a user here: containers have few.
fn is_mapped(user: u32) -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        let (first, count) = (numbers.next(), numbers.nth(1));
        first.zip(count).is_some_and(|(first, count)| {
            (first..first.saturating_add(count)).contains(&u64::from(user))
        })
    })
}

/// Returns only with what went wrong.
fn become_emulator(plan: &Plan, line: &[OsString]) -> (&'static str, io::Error) {
    let program = match fs::canonicalize(&plan.emulator) {
        Ok(program) => program,
        Err(error) => return ("the emulator", error),
    };
    if let Err(refusal) = give_away(plan) {
        return refusal;
    }
    let mut command = Command::new(program);
    command.arg0(&line[0]).args(&line[1..]);
    if let Some((user, group)) = plan.user {
        // The standard library drops all other groups too.
        command.uid(user).gid(group);
    }
    ("the emulator", command.exec())
}

fn give_away(plan: &Plan) -> Result<(), (&'static str, io::Error)> {
    let layers = plan.layers;
    if let Some(group) = &plan.group {
        fs::write(group.join("cgroup.procs"), "0").map_err(|error| ("its control group", error))?;
    }
    if layers.root {
        root::enter(plan).map_err(|error| ("its view of the file system", error))?;
    }
    if layers.landlock {
        rules::restrict_files(plan).map_err(|error| ("Landlock", error))?;
    } else {
        rustix::thread::set_no_new_privs(true).map_err(|error| ("privileges", error.into()))?;
    }
    if layers.seccomp {
        rules::restrict_calls().map_err(|error| ("seccomp", error))?;
    }
    Ok(())
}
