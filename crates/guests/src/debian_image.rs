//! `debian`: a real Debian with systemd and cloud-init, assembled from packages without root.
//!
//! The packages are unpacked here into one archive, with the package manager's own records beside
//! their files. What needs root, the packages' own scripts, runs in a machine of ours: the second
//! stage. The kernel and a RAM disk that only mounts the root stay outside the image.

mod stage;

use std::path::Path;

use crate::cache::Cache;
use crate::debian::{Archive, Mirror, sum};
use crate::library::{Boot, Image, Kind, Library};
use crate::{AGENT, GuestError, Progress, Result, spark};

/// Counted up when the recipe changes.
const RECIPE: u32 = 1;
/// Beyond what every Debian has.
const PACKAGES: &[&str] = &[
    "apt",
    "ca-certificates",
    "cloud-init",
    "dbus",
    "debian-archive-keyring",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "nano",
    "openssh-server",
    "procps",
    "sudo",
    "systemd",
    "systemd-resolved",
    "systemd-sysv",
    "udev",
];
/// The kernel is outside, so that nothing makes a RAM disk inside.
const WITHOUT: &[&str] = &["initramfs-tools", "linux-initramfs-tool", "ifupdown", "netplan.io"];
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 no_timer_check hostel.root=/dev/vda";

/// A release by one of its names.
#[must_use]
pub fn suite(name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        "debian" | "debian-12" | "debian:12" | "bookworm" => Some(("debian-12", "bookworm")),
        "debian-13" | "debian:13" | "trixie" => Some(("debian-13", "trixie")),
        _ => None,
    }
}

/// Runs a script as root in a machine.
pub trait SecondStage {
    /// `disk` is an empty image that the machine sees as `/dev/vdb`, `archive` is `/dev/vdc`.
    fn run(
        &mut self,
        disk: &Path,
        archive: &Path,
        script: &str,
        progress: &mut dyn Progress,
    ) -> Result<()>;
    /// Makes an image of this size with an empty file system.
    fn empty(&mut self, disk: &Path) -> Result<()>;
    /// Packs an image into one file without anything below it.
    fn pack(&mut self, disk: &Path, target: &Path) -> Result<()>;
}

/// The image, from the library or made.
pub fn image(
    cache: &Cache,
    (name, suite): (&str, &str),
    offline: bool,
    machine: &mut dyn SecondStage,
    progress: &mut dyn Progress,
) -> Result<Image> {
    let library = Library::of_cache(cache);
    let recipe = format!("recipe {RECIPE}");
    if let Some(image) = library.find(name).filter(|image| image.origin.starts_with(&recipe)) {
        return Ok(image);
    }
    let mirror = Mirror { suite: suite.to_owned(), ..Mirror::of_host()? };
    let url = mirror.url.clone();
    let archive = Archive::new(mirror, cache.clone(), "amd64", offline);
    let packages = archive.closure(PACKAGES, WITHOUT, progress)?;
    let kernel = spark::kernel(&archive, progress)?;
    let folder = library.workshop(name)?;
    let stage_file = folder.join("stage.tar");
    let stage = stage::write(&archive, &packages, &kernel, &stage_file, progress)?;
    let disk = folder.join("work.qcow2");
    machine.empty(&disk)?;
    progress.step("Setting the system up in a machine");
    machine.run(&disk, &stage_file, &stage::script(suite, &url, &stage), progress)?;
    progress.step("Packing the image");
    let file = folder.join("disk.qcow2");
    machine.pack(&disk, &file)?;
    for leftover in [&disk, &stage_file] {
        std::fs::remove_file(leftover).map_err(|error| GuestError::io(leftover, error))?;
    }
    let initrd = spark::root_mounter(&stage.modules)
        .map_err(|error| GuestError::Format { what: name.to_owned(), reason: error.to_string() })?;
    let (kernel_file, initrd_file) = (folder.join("vmlinuz"), folder.join("initrd"));
    for (path, bytes) in [(&kernel_file, &stage.kernel), (&initrd_file, &initrd)] {
        std::fs::write(path, bytes).map_err(|error| GuestError::io(path, error))?;
    }
    library.keep(&Image {
        name: name.to_owned(),
        aliases: vec![suite.to_owned()],
        release: format!("{suite} {}", kernel.version),
        kind: Kind::Qcow2,
        file,
        origin: format!("{recipe}, {url}, agent {:.8}", sum(AGENT)),
        sha256: String::new(),
        boot: Some(Boot {
            kernel: kernel_file,
            initrd: initrd_file,
            command_line: COMMAND_LINE.to_owned(),
        }),
    })
}
