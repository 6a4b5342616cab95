//! Empty disks for guests: an ext4 file system that is made once a size and shared by overlays.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::cache::Cache;
use crate::{GuestError, Result};

/// Where Debian has the program; the path of users often lacks it.
const FORMATTERS: &[&str] = &["/usr/sbin/mke2fs", "/sbin/mke2fs"];

/// A raw image of so many bytes with an empty ext4 in it: never written to again.
pub fn empty_ext4(cache: &Cache, bytes: u64) -> Result<PathBuf> {
    let path = cache.path(&format!("images/ext4-{bytes}.raw"));
    if path.is_file() {
        return Ok(path);
    }
    let failed = |reason: String| GuestError::Format { what: "A new disk".to_owned(), reason };
    let folder = path.parent().map(PathBuf::from).unwrap_or_default();
    fs::create_dir_all(&folder).map_err(|error| GuestError::io(&folder, error))?;
    let beside = folder.join(format!("ext4-{bytes}-{}.new", std::process::id()));
    let file = File::create(&beside).map_err(|error| GuestError::io(&beside, error))?;
    file.set_len(bytes).map_err(|error| GuestError::io(&beside, error))?;
    let program = FORMATTERS.iter().find(|program| PathBuf::from(program).is_file());
    let program = program.ok_or_else(|| failed("mke2fs (e2fsprogs) is not installed".into()))?;
    let made = Command::new(program)
        .args(["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1"])
        .args(["-m", "0", "-L", "hostel"])
        .arg(&beside)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !made.status.success() {
        _ = fs::remove_file(&beside);
        return Err(failed(String::from_utf8_lossy(&made.stderr).trim().to_owned()));
    }
    fs::rename(&beside, &path).map_err(|error| GuestError::io(&path, error))?;
    Ok(path)
}
