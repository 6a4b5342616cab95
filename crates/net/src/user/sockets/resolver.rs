//! The host's name servers, followed when its resolv.conf changes.

use core::net::SocketAddr;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::dns::resolv;

/// How long a look at the file is good for.
const FRESH: Duration = Duration::from_secs(1);
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The host's name servers.
pub struct Resolver {
    path: PathBuf,
    looked: Option<Instant>,
    version: Option<(u64, i64, i64, u64)>,
    servers: Vec<SocketAddr>,
}

impl Resolver {
    pub fn new(path: PathBuf) -> Self {
        Self { path, looked: None, version: None, servers: resolv::servers("") }
    }

    /// The servers as the file lists them now, or within the last second.
    pub fn servers(&mut self) -> Vec<SocketAddr> {
        let now = Instant::now();
        if self.looked.is_none_or(|looked| now >= looked + FRESH) {
            self.looked = Some(now);
            // A file that is being replaced is missing for a moment: keep what is known.
            let version = fs::metadata(&self.path).ok().map(|metadata| version(&metadata));
            if version.is_some() && version != self.version {
                let mut text = Vec::new();
                let read = File::open(&self.path)
                    .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text));
                if read.is_ok() {
                    self.version = version;
                    self.servers = resolv::servers(&String::from_utf8_lossy(&text));
                }
            }
        }
        self.servers.clone()
    }
}

fn version(metadata: &Metadata) -> (u64, i64, i64, u64) {
    (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_file_is_followed() {
        let path = std::env::temp_dir().join(format!("net-resolv-{}", std::process::id()));
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let mut resolver = Resolver::new(path.clone());
        assert_eq!(resolver.servers(), ["192.0.2.1:53".parse().unwrap()]);
        fs::write(&path, "nameserver 192.0.2.22\n").unwrap();
        resolver.looked = None;
        assert_eq!(resolver.servers(), ["192.0.2.22:53".parse().unwrap()]);
        fs::remove_file(&path).unwrap();
        resolver.looked = None;
        assert_eq!(resolver.servers(), ["192.0.2.22:53".parse().unwrap()]);
    }
}
