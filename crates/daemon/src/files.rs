//! Files that are whole or absent, whatever happens while they are written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use libvirt_compat::{Code, Error};

/// Replaces a file's content: a reader sees the old or the new, never a part.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), Error> {
    let failed =
        |error: io::Error| system(format!("cannot write file '{}'", path.display()), &error);
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.sync_data().map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}

/// Makes a directory that only its owner reads, with all above it.
pub fn make_private_directory(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(path);
    made.map_err(|error| system(format!("Failed to create directory '{}'", path.display()), &error))
}

/// Removes a file that may be absent.
pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(system(format!("cannot remove '{}'", path.display()), &error))
        }
        _ => Ok(()),
    }
}

/// The definitions in a folder: what is made of each, or why nothing can be.
pub fn definitions<T>(
    folder: &Path,
    mut make: impl FnMut(&str) -> Result<T, Error>,
) -> Vec<(PathBuf, Result<T, Error>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "xml"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path)
            .map_err(|error| Error::new(Code::ReadFailed, error.to_string()));
        let made = text.and_then(|text| make(&text));
        (path, made)
    };
    paths.map(read).collect()
}

/// Puts a file that cannot be understood aside, so that it is neither used nor lost.
pub fn set_aside(path: &Path, reason: &dyn std::fmt::Display) {
    let aside = path.with_extension("broken");
    eprintln!("warning: {} is set aside as {}: {reason}", path.display(), aside.display());
    if let Err(error) = fs::rename(path, &aside) {
        eprintln!("warning: Cannot rename {}: {error}", path.display());
    }
}

/// A failed system call as libvirt words it.
pub fn system(doing: impl std::fmt::Display, error: &io::Error) -> Error {
    let errno = error.raw_os_error().unwrap_or(5);
    Error::system(doing, errno, reason(error))
}

/// The reason alone, without Rust's "(os error 2)".
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

/// Opens for appending, private to the owner.
pub fn open_log(path: &Path) -> Result<File, Error> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    opened.map_err(|error| system(format!("Unable to open file: {}", path.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_replaced_whole() {
        let folder = std::env::temp_dir().join(format!("hostel-files-{}", std::process::id()));
        make_private_directory(&folder).unwrap();
        let path = folder.join("x.xml");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no temporary file stays");
        set_aside(&path, &"a test");
        assert_eq!(fs::read(folder.join("x.broken")).unwrap(), b"two");
        remove(&path).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
