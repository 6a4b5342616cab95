//! A package's file: an `ar` archive with a `tar` of contents in it.

use std::io::{self, Read};

use liblzma::read::XzDecoder;

use crate::{GuestError, Result};

/// All contents together; the largest kernel has a fifth of it.
const CONTENTS_BYTES_MAX: u64 = 4 << 30;
/// One file.
const FILE_BYTES_MAX: u64 = 512 << 20;

/// A package in memory.
pub struct Package {
    name: String,
    bytes: Vec<u8>,
}

impl Package {
    /// A package from its file's bytes.
    pub(super) fn new(name: &str, bytes: Vec<u8>) -> Result<Self> {
        let package = Self { name: name.to_owned(), bytes };
        package.member("data.tar")?;
        Ok(package)
    }

    fn broken(&self, reason: impl Into<String>) -> GuestError {
        GuestError::Format { what: format!("The package {}", self.name), reason: reason.into() }
    }

    /// A member by what its name begins with: its whole name, and its bytes.
    fn member(&self, prefix: &str) -> Result<(&str, &[u8])> {
        const HEAD_BYTES: usize = 60;
        let mut rest = self
            .bytes
            .strip_prefix(b"!<arch>\n")
            .ok_or_else(|| self.broken("it is no ar archive"))?;
        while rest.len() >= HEAD_BYTES {
            let (head, after) = rest.split_at(HEAD_BYTES);
            let text = |range: std::ops::Range<usize>| {
                std::str::from_utf8(&head[range]).unwrap_or_default().trim()
            };
            let (name, size) = (text(0..16), text(48..58));
            let size: usize = size.parse().map_err(|_| self.broken("a member has no size"))?;
            let data = after.get(..size).ok_or_else(|| self.broken("it is cut short"))?;
            if name.starts_with(prefix) {
                return Ok((name, data));
            }
            rest = after.get(size.next_multiple_of(2)..).unwrap_or_default();
        }
        Err(self.broken(format!("it has no {prefix}")))
    }

    /// Calls `take` with the path and the contents of each file for which `wanted` says yes. Paths
    /// have no slash in front.
    pub fn files(
        &self,
        wanted: impl Fn(&str) -> bool,
        mut take: impl FnMut(&str, Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        self.entries("data.tar", |entry| {
            let path = entry.path().map_err(|error| self.broken(error.to_string()))?;
            let path = path.to_string_lossy().trim_start_matches("./").to_owned();
            if !entry.header().entry_type().is_file() || !wanted(&path) {
                return Ok(());
            }
            if entry.size() > FILE_BYTES_MAX {
                return Err(self.broken(format!("{path} has {} bytes", entry.size())));
            }
            let mut bytes = Vec::with_capacity(entry.size() as usize);
            entry.read_to_end(&mut bytes).map_err(|error| self.broken(error.to_string()))?;
            take(&path, bytes)
        })
    }

    /// Calls `take` with each entry of a part: `data.tar` or `control.tar`.
    pub fn entries(
        &self,
        part: &str,
        mut take: impl FnMut(&mut tar::Entry<'_, io::Take<Box<dyn Read + '_>>>) -> Result<()>,
    ) -> Result<()> {
        let (name, packed) = self.member(part)?;
        let contents: Box<dyn Read + '_> =
            match name.trim_end_matches('/').strip_prefix(part).unwrap_or(name) {
                "" => Box::new(packed),
                ".xz" => Box::new(XzDecoder::new(packed)),
                ".gz" => Box::new(flate2::read::GzDecoder::new(packed)),
                ".zst" => Box::new(
                    zstd::Decoder::new(packed).map_err(|error| self.broken(error.to_string()))?,
                ),
                other => return Err(self.broken(format!("{other} is packed in an unknown way"))),
            };
        let mut archive = tar::Archive::new(contents.take(CONTENTS_BYTES_MAX));
        let entries = archive.entries().map_err(|error| self.broken(error.to_string()))?;
        for entry in entries {
            take(&mut entry.map_err(|error| self.broken(error.to_string()))?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_package_is_refused() {
        for bytes in [
            &b""[..],
            b"!<arch>\n",
            b"!<arch>\ndata.tar.xz     0           0     0     100644  99999999  `\nabc",
            b"!<arch>\ndata.tar.xz     0           0     0     100644  -1        `\nabc",
        ] {
            assert!(Package::new("p", bytes.to_vec()).is_err());
        }
    }
}
