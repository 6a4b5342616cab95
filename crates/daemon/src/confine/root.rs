//! The view of the file system that a machine gets: programs and libraries to be read, devices that
//! are harmless, and its own files under the names that the host knows them by.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use linux::mounts;
use rustix::fs::FileType;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{chdir, pivot_root};

use super::launch::Plan;
use super::live::Source;

/// Where programs and what they read lie.
pub const PROGRAMS: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// Of the host's settings only what libraries ask for; nothing in them is secret.
const SETTINGS: [&str; 15] = [
    "/etc/alternatives",
    "/etc/ca-certificates.conf",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/qemu",
    "/etc/resolv.conf",
    "/etc/ssl/certs",
];

/// Devices that everybody may have.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// Devices that a machine has for itself alone, where the host has them.
const OWN_DEVICES: [&str; 3] = ["/dev/kvm", "/dev/vhost-net", "/dev/vhost-vsock"];

/// What an emulator that lies elsewhere reads: itself, and when it was installed somewhere with its
/// libraries, those too.
pub fn emulator_places(emulator: &Path) -> Vec<PathBuf> {
    let Ok(emulator) = fs::canonicalize(emulator) else { return Vec::new() };
    if PROGRAMS.iter().any(|folder| emulator.starts_with(folder)) {
        return Vec::new();
    }
    let folder = emulator.parent().filter(|folder| folder.ends_with("bin"));
    let mut places = Vec::new();
    if let Some(prefix) = folder.and_then(Path::parent) {
        let beside = ["lib", "lib64", "libexec", "share"].map(|name| prefix.join(name));
        places.extend(beside.into_iter().filter(|folder| folder.is_dir()));
    }
    places.push(emulator);
    places
}

/// Folders with firmware that the surroundings name.
pub fn firmware_folder() -> Option<PathBuf> {
    std::env::var_os("HOSTEL_FIRMWARE").map(PathBuf::from).filter(|path| path.is_dir())
}

/// What is to be put where, taken hold of while the host's names are still there.
#[derive(Default)]
struct Furniture {
    links: Vec<(PathBuf, PathBuf)>,
    folders: Vec<(PathBuf, Source, bool)>,
    programs: Vec<(PathBuf, Source, bool)>,
    files: Vec<(PathBuf, Source, bool)>,
    devices: Vec<(PathBuf, Source)>,
}

fn collect(plan: &Plan) -> io::Result<Furniture> {
    let mut all = Furniture::default();
    for name in PROGRAMS.iter().chain(&SETTINGS) {
        let path = PathBuf::from(name);
        let Ok(facts) = fs::symlink_metadata(&path) else { continue };
        if facts.is_symlink() && !name.starts_with("/etc/") {
            all.links.push((path.clone(), fs::read_link(&path)?));
        } else if path.is_dir() {
            all.folders.push((path.clone(), Source::tree(&path)?, false));
        } else if path.exists() {
            all.files.push((path.clone(), Source::tree(&path)?, false));
        }
    }
    for path in &plan.programs {
        let list = if path.is_dir() { &mut all.folders } else { &mut all.programs };
        list.push((path.clone(), Source::tree(path)?, false));
    }
    all.folders.push((plan.own.clone(), Source::tree(&plan.own)?, true));
    for path in ["/sys", "/dev/pts"].map(PathBuf::from) {
        if path.is_dir() {
            let writable = path.starts_with("/dev");
            all.folders.push((path.clone(), Source::tree(&path)?, writable));
        }
    }
    for name in DEVICES.iter().chain(&OWN_DEVICES) {
        if Path::new(name).exists() {
            all.devices.push((name.into(), Source::open(Path::new(name))?));
        }
    }
    for (path, writable) in &plan.files {
        all.files.push((path.clone(), Source::open(path)?, *writable));
    }
    Ok(all)
}

/// Leaves the host's view for one that holds nothing but what the plan says.
pub fn enter(plan: &Plan) -> io::Result<()> {
    let stage = plan.own.with_file_name("root");
    match fs::DirBuilder::new().mode(0o700).create(&stage) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    mounts::detach()?;
    let furniture = collect(plan)?;
    let flags = MountFlags::NOSUID;
    mount("hostel", &stage, "tmpfs", flags, c"mode=0755")?;
    chdir(&stage)?;
    pivot_root(".", ".")?;
    let placed = place(furniture, plan);
    // The host's files lie over ours until here, at the same place.
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    placed?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    fs::DirBuilder::new().mode(0o755).create("/proc")?;
    // Other users' processes are not shown.
    Ok(mount("proc", "/proc", "proc", flags, c"hidepid=invisible")?)
}

fn place(furniture: Furniture, plan: &Plan) -> io::Result<()> {
    let named = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"))
    };
    for (path, source, writable) in furniture.folders {
        source.place_folder(&path, writable).map_err(named(&path))?;
    }
    for (path, target) in furniture.links {
        symlink(&target, &path).map_err(named(&path))?;
    }
    for (path, source) in furniture.devices {
        let shared = DEVICES.iter().any(|name| Path::new(name) == path);
        let user = if shared { None } else { plan.user };
        source.place_file(&path, true, user).map_err(named(&path))?;
        if shared {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).map_err(named(&path))?;
        }
    }
    for (path, source, _) in furniture.programs {
        source.place_program(&path).map_err(named(&path))?;
    }
    let terminals = Path::new("/dev/ptmx");
    // The multiplexer of this view's own terminals, which are the host's.
    if !terminals.exists() {
        let number = rustix::fs::makedev(5, 2);
        let node = Source::Node(FileType::CharacterDevice, number);
        node.place_file(terminals, true, plan.user).map_err(named(terminals))?;
    }
    for (path, source, writable) in furniture.files {
        source.place_file(&path, writable, plan.user).map_err(named(&path))?;
    }
    let root = fs::metadata("/")?;
    debug_assert_eq!(root.uid(), 0, "only root may put something there");
    Ok(())
}
