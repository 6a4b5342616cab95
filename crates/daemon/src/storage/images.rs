//! Image formats: what a file's head says, and the tool that makes and changes images.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

use libvirt_compat::{Code, Error, Result};

use super::Volume;

/// An image format, by libvirt's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format(&'static str);

impl Format {
    pub const RAW: Self = Self("raw");
    pub const DIRECTORY: Self = Self("dir");
    const QCOW2: Self = Self("qcow2");
    const ALL: [Self; 14] = [
        Self::RAW,
        Self::DIRECTORY,
        Self("bochs"),
        Self("cloop"),
        Self("dmg"),
        Self("iso"),
        Self("vpc"),
        Self("vdi"),
        Self("fat"),
        Self("vhd"),
        Self("qcow"),
        Self::QCOW2,
        Self("qed"),
        Self("vmdk"),
    ];

    /// Of volumes that are devices and have no format.
    pub const ABSENT: Self = Self("");
    /// What is in a partition of a disk.
    const PARTITIONS: [Self; 8] = [
        Self("none"),
        Self("linux"),
        Self("fat16"),
        Self("fat32"),
        Self("linux-swap"),
        Self("linux-lvm"),
        Self("linux-raid"),
        Self("extended"),
    ];

    pub fn parse(name: &str) -> Result<Self> {
        Self::find(&Self::ALL, name)
    }

    /// The format of a volume in a pool of this kind.
    pub fn of_volume(kind: &str, name: Option<&str>) -> Result<Self> {
        match (kind, name) {
            ("dir" | "fs" | "netfs" | "gluster" | "vstorage", None) => Ok(Self::RAW),
            ("dir" | "fs" | "netfs" | "gluster" | "vstorage", Some(name)) => Self::parse(name),
            ("disk", name) => Self::find(&Self::PARTITIONS, name.unwrap_or("none")),
            _ => Ok(Self::ABSENT),
        }
    }

    fn find(formats: &[Self], name: &str) -> Result<Self> {
        let found = formats.iter().copied().find(|format| format.0 == name);
        found
            .ok_or_else(|| Error::new(Code::XmlError, format!("unknown volume format type {name}")))
    }

    pub fn name(self) -> &'static str {
        self.0
    }
}

/// LVM's volume groups, each with one of its devices, as LVM's own tool lists them.
pub fn volume_groups() -> Result<Vec<(String, String)>> {
    let output = Command::new("pvs")
        .args(["--noheadings", "--separator", ":", "-o", "vg_name,pv_name"])
        .output()
        .map_err(|error| crate::files::system("Cannot run 'pvs' of the package lvm2", &error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rows = text.lines().filter_map(|line| line.trim().split_once(':'));
    let rows = rows.filter(|(group, _)| !group.is_empty());
    Ok(rows.map(|(group, device)| (group.to_owned(), device.to_owned())).collect())
}

/// What a file's head says.
pub struct Probed {
    pub format: Format,
    pub capacity: u64,
    pub backing: Option<(String, Option<Format>)>,
}

impl Probed {
    pub fn directory() -> Self {
        Self { format: Format::DIRECTORY, capacity: 0, backing: None }
    }
}

/// The longest name of a backing file that qcow2 allows.
const BACKING_BYTES_MAX: u32 = 1023;
/// An ISO 9660 volume descriptor and its mark.
const ISO_MARK: (u64, &[u8]) = (0x8001, b"CD001");

/// Looks at a file's head. Whatever it does not know is raw.
pub fn probe(path: &Path) -> Result<Probed> {
    let failed =
        |error| crate::files::system(format!("cannot open file '{}'", path.display()), &error);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut head = [0; 104];
    let mut read = 0;
    while read < head.len() {
        match (&file).read(&mut head[read..]).map_err(failed)? {
            0 => break,
            count => read += count,
        }
    }
    if read >= 72 && head[..4] == *b"QFI\xfb" {
        return Ok(qcow2(&file, &head));
    }
    let mut mark = [0; 5];
    let is_iso = file.read_exact_at(&mut mark, ISO_MARK.0).is_ok() && mark == ISO_MARK.1;
    let format = if is_iso { Format("iso") } else { Format::RAW };
    Ok(Probed { format, capacity: length, backing: None })
}

fn qcow2(file: &File, head: &[u8; 104]) -> Probed {
    let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let (offset, length) = (long(8), word(16));
    let mut backing = None;
    if offset > 0 && (1..=BACKING_BYTES_MAX).contains(&length) {
        let mut name = vec![0; length as usize];
        if file.read_exact_at(&mut name, offset).is_ok() {
            backing =
                Some((String::from_utf8_lossy(&name).into_owned(), backing_format(file, head)));
        }
    }
    let format = if word(4) >= 2 { Format::QCOW2 } else { Format("qcow") };
    Probed { format, capacity: long(24), backing }
}

/// The header extension that names the backing file's format.
fn backing_format(file: &File, head: &[u8; 104]) -> Option<Format> {
    const MARK: u32 = 0xe279_2aca;
    /// More extensions than any image has.
    const EXTENSIONS_MAX: usize = 64;
    let version = u32::from_be_bytes(head[4..8].try_into().ok()?);
    let length = u32::from_be_bytes(head[100..104].try_into().ok()?);
    let mut at = if version >= 3 { u64::from(length) } else { 72 };
    for _ in 0..EXTENSIONS_MAX {
        let mut extension = [0; 8];
        file.read_exact_at(&mut extension, at).ok()?;
        let mark = u32::from_be_bytes(extension[..4].try_into().ok()?);
        let length = u32::from_be_bytes(extension[4..].try_into().ok()?);
        if mark == 0 {
            return None;
        }
        if mark == MARK {
            let mut name = vec![0; length.min(64) as usize];
            file.read_exact_at(&mut name, at + 8).ok()?;
            return Format::parse(std::str::from_utf8(&name).ok()?).ok();
        }
        at += 8 + u64::from(length).next_multiple_of(8);
    }
    None
}

/// Makes and changes images.
pub trait ImageTool: Send + Sync {
    /// `preallocate` lays out the tables of the whole image at once.
    fn create(&self, volume: &Volume, preallocate: bool) -> Result<()>;
    fn convert(&self, source: &Volume, target: &Volume) -> Result<()>;
    fn resize(&self, volume: &Volume) -> Result<()>;
    /// `-c`, `-a` or `-d` on an internal snapshot.
    fn snapshot(&self, path: &Path, action: &str, name: &str) -> Result<()>;
}

/// Raw files by ourselves, the rest with the tool every installation of QEMU has.
pub struct QemuImg;

impl ImageTool for QemuImg {
    fn create(&self, volume: &Volume, preallocate: bool) -> Result<()> {
        if preallocate && volume.format != Format::QCOW2 {
            let text = "metadata preallocation only available with qcow2";
            return Err(Error::new(Code::ConfigUnsupported, text));
        }
        if volume.format == Format::RAW && volume.backing.is_none() {
            return create_raw(volume);
        }
        let mut arguments = vec!["create".to_owned(), "-q".into(), "-f".into()];
        arguments.push(volume.format.name().into());
        if let Some((path, format)) = &volume.backing {
            let format = match format {
                Some(format) => *format,
                None => probe(Path::new(path))?.format,
            };
            arguments.extend(["-b".into(), path.clone(), "-F".into(), format.name().into()]);
        }
        if preallocate {
            arguments.extend(["-o".into(), "preallocation=metadata".into()]);
        }
        arguments.extend([volume.path.clone(), volume.capacity.to_string()]);
        run(&arguments)
    }

    fn convert(&self, source: &Volume, target: &Volume) -> Result<()> {
        let from = source.format.name();
        let from = if from == "iso" { "raw" } else { from };
        let arguments = ["convert", "-q", "-f", from, "-O", target.format.name()];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.extend([source.path.clone(), target.path.clone()]);
        run(&arguments)?;
        if target.capacity > source.capacity { self.resize(target) } else { Ok(()) }
    }

    fn resize(&self, volume: &Volume) -> Result<()> {
        if volume.format == Format::RAW {
            let file = OpenOptions::new().write(true).open(&volume.path);
            let resized = file.and_then(|file| file.set_len(volume.capacity));
            return resized.map_err(|error| {
                crate::files::system(format!("failed to truncate file '{}'", volume.path), &error)
            });
        }
        let size = volume.capacity.to_string();
        run(&["resize".into(), "-q".into(), "--shrink".into(), volume.path.clone(), size])
    }

    fn snapshot(&self, path: &Path, action: &str, name: &str) -> Result<()> {
        let path = path.to_string_lossy().into_owned();
        run(&["snapshot".into(), "-q".into(), action.into(), name.into(), path])
    }
}

fn create_raw(volume: &Volume) -> Result<()> {
    let failed =
        |error| crate::files::system(format!("cannot create path '{}'", volume.path), &error);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&volume.path);
    let file = file.map_err(failed)?;
    file.set_len(volume.capacity).map_err(failed)?;
    if volume.allocation > 0 {
        let length = volume.allocation.min(volume.capacity);
        let flags = rustix::fs::FallocateFlags::empty();
        // A file system that cannot reserve space gives a sparse file instead.
        _ = rustix::fs::fallocate(&file, flags, 0, length);
    }
    Ok(())
}

fn run(arguments: &[String]) -> Result<()> {
    // Our own program has it; under tests the daemon is another program.
    let own = std::env::current_exe().ok();
    let own = own.filter(|path| path.file_name().is_some_and(|name| name == "hostel"));
    let mut tool = Command::new(own.as_deref().unwrap_or(Path::new("qemu-img")));
    if own.is_some() {
        tool.arg("qemu-img");
    }
    let output = tool.args(arguments).output().map_err(|error| {
        Error::new(Code::InternalError, format!("creation of storage needs qemu-img: {error}"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let command = arguments.join(" ");
    let text = format!(
        "Child process (qemu-img {command}) unexpected {}: {}",
        output.status,
        text.trim_end()
    );
    Err(Error::new(Code::InternalError, text))
}
