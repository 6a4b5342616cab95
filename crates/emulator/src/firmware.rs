//! Images of firmware and of expansion ROMs: where they lie on this host.

use std::fs;
use std::path::{Path, PathBuf};

use machine::surroundings::Firmware;

/// Where distributions put them.
const FOLDERS: &[&str] = &[
    "/usr/share/hostel",
    "/usr/share/qemu",
    "/usr/share/seabios",
    "/usr/lib/ipxe/qemu",
    "/usr/share/OVMF",
];

/// Folders that are searched in their order.
pub struct Folders(Vec<PathBuf>);

impl Folders {
    /// Those of `-L` first; last the folder into which the friendly command line fetches what the
    /// host has not installed.
    pub fn new(given: &[String]) -> Self {
        let given = given.iter().map(PathBuf::from);
        let fetched = std::env::var_os("HOSTEL_FIRMWARE").map(PathBuf::from);
        Self(given.chain(FOLDERS.iter().map(PathBuf::from)).chain(fetched).collect())
    }

    /// Where a file of this name lies. A name with a slash is a path.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let path = Path::new(name);
        if path.is_file() {
            return Some(path.to_owned());
        }
        if name.contains('/') {
            return None;
        }
        self.0.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }
}

impl Firmware for Folders {
    fn load(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.find(name)?).ok()
    }
}
