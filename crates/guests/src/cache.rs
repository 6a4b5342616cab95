//! Files that can be had again, in a folder of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::{GuestError, Result};

/// The folder.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The user's, or the machine's for root.
    #[must_use]
    pub fn of_user() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let folder = set("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| {
            let home = set("HOME").map(PathBuf::from)?;
            Some(home.join(".cache"))
        });
        Self::at(folder.unwrap_or_else(|| "/var/cache".into()).join("hostel"))
    }

    /// A folder of the caller's choice.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where a file of this name lies, or would.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A file's bytes, if it is there.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path(name)).ok()
    }

    /// How long ago a file was written.
    #[must_use]
    pub fn age(&self, name: &str) -> Option<Duration> {
        let written = fs::metadata(self.path(name)).ok()?.modified().ok()?;
        Some(SystemTime::now().duration_since(written).unwrap_or_default())
    }

    /// Puts a file in, whole or not at all.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.path(name);
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(|error| GuestError::io(folder, error))?;
        // Several programs may fetch the same thing at the same time.
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}-new", std::process::id()));
        let beside = PathBuf::from(beside);
        let written = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, &path));
        if let Err(error) = written {
            _ = fs::remove_file(&beside);
            return Err(GuestError::io(&path, error));
        }
        Ok(path)
    }
}
