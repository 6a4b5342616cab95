//! Firmware for machines that boot from a disk: SeaBIOS, from Debian's package where the host has
//! none installed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::debian::{Archive, Mirror};
use crate::{GuestError, Progress, Result};

/// Where distributions put it.
const PLACES: &[&str] = &["/usr/share/seabios", "/usr/share/hostel"];
const BIOS: &str = "bios-256k.bin";

/// Sees to it that there is firmware; gives the folder if it is one of ours.
pub fn ensure(
    cache: &Cache,
    offline: bool,
    progress: &mut dyn Progress,
) -> Result<Option<PathBuf>> {
    if PLACES.iter().any(|place| Path::new(place).join(BIOS).is_file()) {
        return Ok(None);
    }
    let folder = folder(cache);
    if folder.join(BIOS).is_file() {
        return Ok(Some(folder));
    }
    let archive = Archive::new(Mirror::of_host()?, cache.clone(), "amd64", offline);
    let listed = archive.find(&["seabios"], progress)?.remove(0);
    let package = archive.package(&listed, progress)?;
    package.files(
        |path| path.starts_with("usr/share/seabios/") && path.ends_with(".bin"),
        |path, bytes| {
            let name = path.rsplit('/').next().unwrap_or(path);
            cache.write(&format!("firmware/{name}"), &bytes).map(|_| ())
        },
    )?;
    match fs::exists(folder.join(BIOS)) {
        Ok(true) => Ok(Some(folder)),
        _ => Err(GuestError::Format { what: listed.name, reason: format!("it has no {BIOS}") }),
    }
}

/// Where ours lies, or would.
#[must_use]
pub fn folder(cache: &Cache) -> PathBuf {
    cache.path("firmware")
}
