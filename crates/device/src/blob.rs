//! Bytes that a machine is given to start with: a kernel, a RAM disk.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Bytes that are only read, from memory or, as they are needed, from a file: a machine that runs
/// does not carry its kernel's image around. Clones share them.
#[derive(Clone, Debug)]
pub struct Blob {
    source: Source,
    start: u64,
    bytes: u64,
}

#[derive(Clone, Debug)]
enum Source {
    Memory(Arc<[u8]>),
    File(Arc<File>),
}

impl Default for Blob {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        let length = bytes.len() as u64;
        Self { source: Source::Memory(bytes.into()), start: 0, bytes: length }
    }
}

impl Blob {
    /// A file as it is now. What is no regular file is read at once.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_file() {
            return Ok(Self {
                source: Source::File(Arc::new(file)),
                start: 0,
                bytes: metadata.len(),
            });
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The bytes from `offset` on.
    #[must_use]
    pub fn behind(&self, offset: u64) -> Self {
        let offset = offset.min(self.bytes);
        Self { start: self.start + offset, bytes: self.bytes - offset, ..self.clone() }
    }

    /// Reads from `offset` on; how many bytes there were.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let left = self.bytes.saturating_sub(offset);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        let (into, at) = (&mut into[..wanted], self.start + offset);
        match &self.source {
            Source::Memory(bytes) => {
                if wanted > 0 {
                    into.copy_from_slice(&bytes[at as usize..][..wanted]);
                }
            }
            Source::File(file) => file.read_exact_at(into, at)?,
        }
        Ok(wanted)
    }

    /// The first bytes, as many as there are of these.
    pub fn head(&self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut head = vec![0; bytes.min(usize::try_from(self.bytes).unwrap_or(usize::MAX))];
        self.read(0, &mut head)?;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_files_are_read_alike() {
        let path = std::env::temp_dir().join(format!("hostel-blob-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        for blob in [Blob::open(&path).unwrap(), b"0123456789".to_vec().into()] {
            let part = blob.behind(4);
            let mut bytes = [0; 4];
            assert_eq!((part.len(), part.read(3, &mut bytes).unwrap()), (6, 3));
            assert_eq!((&bytes[..3], part.head(2).unwrap()), (&b"789"[..], b"45".to_vec()));
            assert_eq!((part.read(7, &mut bytes).unwrap(), blob.behind(11).len()), (0, 0));
        }
        let blob = Blob::open(&path).unwrap();
        std::fs::write(&path, b"short").unwrap();
        assert!(blob.read(0, &mut [0; 10]).is_err(), "what is gone is not made up");
        std::fs::remove_file(&path).unwrap();
        assert!(Blob::open(&path).is_err());
    }
}
