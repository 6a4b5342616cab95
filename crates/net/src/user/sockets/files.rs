//! The files that TFTP serves.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::{self, CWD, Mode, OFlags, ResolveFlags};

use super::{Id, Slots};

/// Open files by the engine's numbers.
pub struct Files {
    root: Option<PathBuf>,
    open: Slots<File>,
}

impl Files {
    pub fn new(root: Option<PathBuf>) -> Self {
        Self { root, open: Slots::default() }
    }

    /// Opens a regular file below the served directory. The kernel sees to it that neither `..`
    /// nor a link leads out.
    pub fn open(&mut self, transfer: Id, path: &str) -> Option<u64> {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::openat(CWD, self.root.as_ref()?, directory, Mode::empty()).ok()?;
        let path = path.trim_start_matches('/');
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        // A fifo must not make the network wait.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(fs::openat2(&root, path, flags, Mode::empty(), beneath).ok()?);
        let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        self.open.put(transfer, file);
        Some(metadata.len())
    }

    pub fn read(&mut self, transfer: Id, offset: u64, into: &mut [u8]) -> Option<usize> {
        let file = self.open.get(transfer)?;
        let mut done = 0;
        while done < into.len() {
            match file.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        Some(done)
    }

    pub fn close(&mut self, transfer: Id) {
        self.open.take(transfer);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out_of_the_served_directory() {
        let outer = std::env::temp_dir().join(format!("net-files-{}", std::process::id()));
        let root = outer.join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(outer.join("secret"), "secret").unwrap();
        std::fs::write(root.join("sub/boot"), "0123456789").unwrap();
        symlink("../secret", root.join("link")).unwrap();
        symlink("sub/boot", root.join("inside")).unwrap();
        let mut files = Files::new(Some(root));
        let id = Id { index: 0, generation: 0 };
        for (path, expected) in [
            ("sub/boot", Some(10)),
            ("/sub/boot", Some(10)),
            ("inside", Some(10)),
            ("../secret", None),
            ("/sub/../../secret", None),
            ("link", None),
            ("sub", None),
            ("absent", None),
            ("", None),
            ("a\0b", None),
        ] {
            assert_eq!(files.open(id, path), expected, "{path:?}");
        }
        assert_eq!(files.open(id, "sub/boot"), Some(10));
        let mut bytes = [0; 8];
        assert_eq!(files.read(id, 6, &mut bytes), Some(4));
        assert_eq!(&bytes[..4], b"6789");
        files.close(id);
        assert_eq!(files.read(id, 0, &mut bytes), None);
        std::fs::remove_dir_all(outer).unwrap();
    }
}
