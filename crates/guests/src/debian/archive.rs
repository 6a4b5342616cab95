//! The archive's indexes and files.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::time::Duration;

use liblzma::read::XzDecoder;
use sha2::{Digest, Sha256};

use super::package::Package;
use super::resolve::Index;
use super::signature;
use super::sources::Mirror;
use crate::cache::Cache;
use crate::http;
use crate::{GuestError, Progress, Result};

/// How long indexes are taken as they are.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// The longest index, unpacked.
const INDEX_BYTES_MAX: u64 = 512 << 20;

/// A package as the index lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it needs, as written.
    pub depends: String,
    /// Its file, relative to the mirror.
    pub file: String,
    /// The file's sum.
    pub sha256: String,
}

/// A mirror with its indexes.
pub struct Archive {
    mirror: Mirror,
    cache: Cache,
    /// Nothing is fetched.
    offline: bool,
    architecture: &'static str,
}

impl Archive {
    /// The packages of this architecture (`amd64`) on a mirror.
    #[must_use]
    pub fn new(mirror: Mirror, cache: Cache, architecture: &'static str, offline: bool) -> Self {
        Self { mirror, cache, offline, architecture }
    }

    /// Finds packages by name, or by what their names begin with where a `*` stands at the end: of
    /// several the newest.
    pub fn find(&self, wanted: &[&str], progress: &mut dyn Progress) -> Result<Vec<Listed>> {
        let index = self.index(progress)?;
        let mut found: BTreeMap<usize, Listed> = BTreeMap::new();
        for paragraph in index.split("\n\n") {
            let Some(name) = paragraph.strip_prefix("Package: ") else { continue };
            let name = name.lines().next().unwrap_or_default();
            if let Some(place) = wanted.iter().position(|wanted| *wanted == name)
                && let Some(listed) = listed(paragraph)
            {
                found.insert(place, listed);
            }
        }
        let missing = |(place, wanted): (usize, &&str)| {
            found.get(&place).cloned().ok_or_else(|| GuestError::NoPackage {
                package: (*wanted).to_owned(),
                suite: self.mirror.suite.clone(),
            })
        };
        wanted.iter().enumerate().map(missing).collect()
    }

    /// Every Debian's packages, these, and all that they depend on but for those of `without`.
    pub fn closure(
        &self,
        wanted: &[&str],
        without: &[&str],
        progress: &mut dyn Progress,
    ) -> Result<Vec<Listed>> {
        let text = self.index(progress)?;
        let index = Index::new(&text, &self.mirror.suite);
        let mut names = index.required();
        names.extend(wanted);
        index.closure(&names, without)
    }

    /// A package's contents.
    pub fn package(&self, listed: &Listed, progress: &mut dyn Progress) -> Result<Package> {
        let name = format!("packages/{}_{}.deb", listed.name, &listed.sha256[..16]);
        let bytes = match self.cache.read(&name) {
            Some(bytes) if sum(&bytes) == listed.sha256 => bytes,
            _ => {
                progress.step(&format!("Fetching {} {}", listed.name, listed.version));
                let url = format!("{}/{}", self.mirror.url, listed.file);
                let bytes = self.fetch(&url, progress)?;
                check(&url, &bytes, &listed.sha256)?;
                self.cache.write(&name, &bytes)?;
                bytes
            }
        };
        Package::new(&listed.name, bytes)
    }

    fn fetch(&self, url: &str, progress: &mut dyn Progress) -> Result<Vec<u8>> {
        if self.offline {
            let reason = "it was never fetched, and the network is not to be used".to_owned();
            return Err(GuestError::Fetch { url: url.to_owned(), reason });
        }
        http::get(url, progress)
    }

    /// The index of packages: signed, checked, and from the cache while it is fresh.
    fn index(&self, progress: &mut dyn Progress) -> Result<String> {
        let Mirror { url, suite, .. } = &self.mirror;
        let place = format!("indexes/{:.16}", sum(url.as_bytes()));
        let release_name = format!("{place}/{suite}-InRelease");
        let cached = self.cache.read(&release_name);
        let fresh = self.cache.age(&release_name).is_some_and(|age| age < FRESH);
        let release = match cached {
            Some(release) if fresh || self.offline => release,
            cached => {
                progress.step("Fetching the package index");
                match (self.fetch(&format!("{url}/dists/{suite}/InRelease"), progress), cached) {
                    (Ok(release), _) => release,
                    // Better an old index than none.
                    (Err(GuestError::Fetch { .. }), Some(release)) => release,
                    (Err(error), _) => return Err(error),
                }
            }
        };
        let what = format!("{url}/dists/{suite}/InRelease");
        let text = signature::verified(&what, &release, &self.mirror.keyring)?;
        let file = format!("main/binary-{}/Packages.xz", self.architecture);
        let expected = announced(&text, &file).ok_or_else(|| GuestError::Format {
            what: what.clone(),
            reason: format!("it does not announce {file}"),
        })?;
        let index_name = format!("{place}/{suite}-{}-Packages.xz", self.architecture);
        let packed = match self.cache.read(&index_name) {
            Some(packed) if sum(&packed) == expected => packed,
            _ => {
                let by_hash = format!("main/binary-{}/by-hash/SHA256", self.architecture);
                let by_hash = format!("{url}/dists/{suite}/{by_hash}/{expected}");
                let plain = format!("{url}/dists/{suite}/{file}");
                let packed =
                    self.fetch(&by_hash, progress).or_else(|_| self.fetch(&plain, progress))?;
                check(&plain, &packed, &expected)?;
                self.cache.write(&index_name, &packed)?;
                packed
            }
        };
        // Only now, so that what is in the cache has been seen to fit together.
        self.cache.write(&release_name, &release)?;
        let mut index = String::new();
        XzDecoder::new(packed.as_slice())
            .take(INDEX_BYTES_MAX)
            .read_to_string(&mut index)
            .map_err(|error| GuestError::Format { what: file, reason: error.to_string() })?;
        Ok(index)
    }
}

/// The sum of an index's file in the section of SHA-256 sums.
fn announced(release: &str, file: &str) -> Option<String> {
    let (_, sums) = release.split_once("SHA256:")?;
    sums.lines().skip(1).take_while(|line| line.starts_with(' ')).find_map(|line| {
        let mut words = line.split_whitespace();
        let (sum, _, name) = (words.next()?, words.next()?, words.next()?);
        (name == file).then(|| sum.to_owned())
    })
}

pub(super) fn listed(paragraph: &str) -> Option<Listed> {
    let field = |name: &str| {
        let line = paragraph.lines().find(|line| line.starts_with(name))?;
        Some(line[name.len()..].trim().to_owned())
    };
    let sha256 = field("SHA256:").filter(|sum| sum.len() == 64)?;
    Some(Listed {
        name: field("Package:")?,
        version: field("Version:")?,
        depends: field("Depends:").unwrap_or_default(),
        file: field("Filename:")?,
        sha256,
    })
}

/// SHA-256 in hexadecimal.
pub fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

fn check(what: &str, bytes: &[u8], expected: &str) -> Result<()> {
    let found = sum(bytes);
    if found == expected {
        return Ok(());
    }
    let (what, expected) = (what.to_owned(), expected.to_owned());
    Err(GuestError::Corrupt { what, expected, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_found_in_their_own_section() {
        let release =
            "Origin: D\nMD5Sum:\n aa 1 main/x\nSHA256:\n bb 1 main/x\n cc 2 main/y\nX: 1\n";
        assert_eq!(announced(release, "main/y").as_deref(), Some("cc"));
        assert_eq!(announced(release, "main/x").as_deref(), Some("bb"));
        assert_eq!(announced(release, "main/z"), None);
        assert_eq!(sum(b"abc")[..8], *"ba7816bf");
    }
}
