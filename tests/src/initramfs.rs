//! A small initial RAM disk: busybox and a script.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const FILE: u32 = 0o100_755;
const FOLDER: u32 = 0o40_755;
const CHARACTER_DEVICE: u32 = 0o20_600;

/// The archive that the kernel unpacks: "newc" cpio.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        self.entries += 1;
        let (major, minor) = device;
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            data.len() as u32,
            0,
            0,
            major,
            minor,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(data);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Writes an initial RAM disk whose init is `script`, run by this busybox.
pub fn write(path: &Path, busybox: &Path, script: &str) -> io::Result<()> {
    write_with(path, busybox, script, &[])
}

/// The same with files of the host in the root folder, under their own names.
pub fn write_with(path: &Path, busybox: &Path, script: &str, files: &[PathBuf]) -> io::Result<()> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "bin"] {
        archive.add(folder, FOLDER, (0, 0), &[]);
    }
    archive.add("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    archive.add("dev/null", CHARACTER_DEVICE, (1, 3), &[]);
    archive.add("bin/busybox", FILE, (0, 0), &fs::read(busybox)?);
    let init = format!("#!/bin/busybox sh\n{script}\n");
    archive.add("init", FILE, (0, 0), init.as_bytes());
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        archive.add(&name, FILE, (0, 0), &fs::read(file)?);
    }
    archive.add("TRAILER!!!", 0, (0, 0), &[]);
    fs::write(path, archive.bytes)
}

/// Folders at the top that are links into `usr`, in Debian 12 and later.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Writes a folder into which packages were unpacked as an initial RAM disk, with more files (names,
/// modes and contents) and without what lies below `without`.
pub fn write_root(
    path: &Path,
    root: &Path,
    without: &[&str],
    files: &[(&str, u32, &[u8])],
) -> io::Result<()> {
    let mut archive = Archive::default();
    // Before what lies in it.
    archive.add("usr", FOLDER, (0, 0), &[]);
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(root.join(&folder))?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let relative = folder.join(entry.file_name());
            let typed = relative.to_string_lossy().into_owned();
            if without.contains(&typed.as_str()) {
                continue;
            }
            let merged = MERGED.iter().any(|top| typed == *top || relative.starts_with(top));
            let name = if merged { format!("usr/{typed}") } else { typed };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                archive.add(&name, FOLDER, (0, 0), &[]);
                folders.push(relative);
            } else if kind.is_symlink() {
                let target = fs::read_link(entry.path())?;
                archive.add(&name, LINK, (0, 0), target.as_os_str().as_encoded_bytes());
            } else {
                let executable = entry.metadata()?.permissions().mode() & 0o111 != 0;
                let mode = if executable { FILE } else { FILE & !0o111 };
                archive.add(&name, mode, (0, 0), &fs::read(entry.path())?);
            }
        }
    }
    for top in MERGED {
        archive.add(top, LINK, (0, 0), format!("usr/{top}").as_bytes());
    }
    for folder in ["dev", "proc", "sys", "run", "tmp", "root", "etc"] {
        archive.add(folder, FOLDER, (0, 0), &[]);
    }
    archive.add("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    for (name, mode, contents) in files {
        archive.add(name, *mode, (0, 0), contents);
    }
    archive.add("TRAILER!!!", 0, (0, 0), &[]);
    fs::write(path, archive.bytes)
}

/// A symbolic link's mode.
pub const LINK: u32 = 0o120_777;
/// A plain file's mode.
pub const PLAIN: u32 = 0o100_644;
