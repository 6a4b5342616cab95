//! What else machines need of the host.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::Finding;

/// A small machine's memory with room for the host.
const MEMORY_ENOUGH: u64 = 1 << 30;
/// An image and a disk that grows.
const DISK_ENOUGH: u64 = 5 << 30;
/// Where images and packages come from.
const MIRRORS: &[&str] = &["deb.debian.org", "cloud-images.ubuntu.com", "cloud.debian.org"];
const MIRROR_PATIENCE: Duration = Duration::from_secs(5);

/// A number of /proc/meminfo, in bytes.
fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

pub fn memory() -> Finding {
    let (Some(total), Some(free)) = (meminfo("MemTotal"), meminfo("MemAvailable")) else {
        let advice = "mount /proc";
        return Finding::problem("/proc/meminfo cannot be read", advice);
    };
    let text = format!("{} of {} MiB are available", free >> 20, total >> 20);
    let finding = match free {
        MEMORY_ENOUGH.. => Finding::ok(text),
        _ => Finding::notice(text, "end other programs, or give machines less with --memory"),
    };
    finding.with(json!({"total": total, "available": free}))
}

fn home_folder(variable: &str, fallback: &str) -> PathBuf {
    match env::var_os(variable) {
        Some(path) if !path.is_empty() => path.into(),
        _ => PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/".into())).join(fallback),
    }
}

/// The folder itself or the first above it that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

/// Where machines of a session keep their disks.
fn state_folder() -> PathBuf {
    home_folder("XDG_STATE_HOME", ".local/state").join("hostel")
}

pub fn disk() -> Finding {
    let folder = state_folder();
    let place = existing(&folder);
    let free = match rustix::fs::statvfs(place) {
        Ok(about) => about.f_bavail.saturating_mul(about.f_frsize),
        Err(error) => {
            let text = format!("{} cannot be looked at: {error}", place.display());
            return Finding::problem(text, "set XDG_STATE_HOME to a folder of yours");
        }
    };
    let text = format!("{} MiB are free for {}", free >> 20, folder.display());
    let finding = match free {
        DISK_ENOUGH.. => Finding::ok(text),
        _ => Finding::notice(text, "delete what is not needed: 'hostel purge', old images"),
    };
    finding.with(json!({"folder": folder, "free": free}))
}

fn setting(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

pub fn user_namespaces() -> Finding {
    if !Path::new("/proc/self/ns/user").exists() {
        let advice = "use a kernel with CONFIG_USER_NS, or run as root";
        return Finding::notice("this kernel has none", advice);
    }
    let advice = "sudo sysctl user.max_user_namespaces=10000";
    if setting("/proc/sys/user/max_user_namespaces") == Some(0) {
        return Finding::notice("there may be none (user.max_user_namespaces is 0)", advice);
    }
    let switches = [
        ("/proc/sys/kernel/unprivileged_userns_clone", 0, "kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            1,
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ];
    match switches.iter().find(|(path, closed, _)| setting(path) == Some(*closed)) {
        Some((path, _, remedy)) => {
            let text = format!("only root may make them ({path})");
            Finding::notice(text, format!("sudo sysctl {remedy}"))
        }
        None => Finding::ok("can be made"),
    }
}

pub fn tun() -> Finding {
    match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Finding::ok("/dev/net/tun can be opened"),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Finding::notice(
            "/dev/net/tun may not be opened: bridged networks are for root",
            "nothing for the built-in network; for bridges run the system's daemon",
        ),
        Err(_) => Finding::notice(
            "/dev/net/tun is not there: no bridged networks",
            "sudo modprobe tun; the built-in network needs none",
        ),
    }
}

/// A program on the path or in the system's folders.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut folders = env::split_paths(&path).chain(system);
    folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
}

pub fn nftables() -> Finding {
    match program("nft") {
        Some(path) => Finding::ok(format!("{}", path.display())),
        None => Finding::notice(
            "nft is not installed: networks that forward need it",
            "install nftables; the built-in network needs none",
        ),
    }
}

pub fn vsock() -> Finding {
    match Path::new("/dev/vhost-vsock").exists() {
        true => Finding::ok("/dev/vhost-vsock is there"),
        false => Finding::notice(
            "/dev/vhost-vsock is not there",
            "nothing: the emulator serves its guests' virtual sockets itself",
        ),
    }
}

/// Sockets that libvirt's clients use: somebody else's daemon may sit there.
pub fn sockets() -> Finding {
    let runtime = home_folder("XDG_RUNTIME_DIR", ".cache").join("libvirt");
    let folders = [PathBuf::from("/run/libvirt"), runtime];
    let names = ["libvirt-sock", "virtqemud-sock", "virtnetworkd-sock", "virtstoraged-sock"];
    let places = folders.iter().flat_map(|folder| names.map(|name| folder.join(name)));
    let answering: Vec<PathBuf> =
        places.filter(|place| UnixStream::connect(place).is_ok()).collect();
    if answering.is_empty() {
        return Finding::ok("libvirt's sockets are free").with(json!([]));
    }
    let list: Vec<String> = answering.iter().map(|path| path.display().to_string()).collect();
    let text = format!("somebody answers at {}", list.join(", "));
    let advice = "if that is not Hostel's daemon and should be: stop the other, or give ours \
                  --socket-dir";
    Finding::notice(text, advice).with(json!(list))
}

pub fn images() -> Finding {
    let folder = home_folder("XDG_CACHE_HOME", ".cache").join("hostel");
    match fs::read_dir(&folder) {
        Ok(entries) => {
            let text = format!("{}: {} entries", folder.display(), entries.count());
            Finding::ok(text)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text = format!("{} is still empty", folder.display());
            Finding::notice(text, "nothing: the first 'hostel launch' fills it")
        }
        Err(error) => {
            let text = format!("{} cannot be read: {error}", folder.display());
            Finding::problem(text, "make it yours, or set XDG_CACHE_HOME")
        }
    }
}

/// Whether anything listens where images come from.
pub fn mirrors() -> Finding {
    let reaches = |host: &&&str| {
        let addresses = (**host, 443).to_socket_addrs().into_iter().flatten();
        let mut first = addresses.take(2);
        first.any(|address| TcpStream::connect_timeout(&address, MIRROR_PATIENCE).is_ok())
    };
    let reached: Vec<&&str> = MIRRORS.iter().filter(reaches).collect();
    let text = format!("{} of {} can be reached", reached.len(), MIRRORS.len());
    match reached.len() {
        0 => Finding::problem(text, "check the network, or set HTTPS_PROXY").with(json!([])),
        count if count < MIRRORS.len() => {
            Finding::notice(text, "try again later, or use other images").with(json!(reached))
        }
        _ => Finding::ok(text).with(json!(reached)),
    }
}
