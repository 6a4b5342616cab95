//! The archive that a kernel unpacks before anything else: "newc" cpio.

const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive that grows.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// A folder that everybody may read.
    pub fn folder(&mut self, name: &str) {
        self.add(name, FOLDER | 0o755, (0, 0), &[]);
    }

    /// A file with these permissions.
    pub fn file(&mut self, name: &str, permissions: u32, data: &[u8]) {
        self.add(name, FILE | permissions, (0, 0), data);
    }

    /// A symbolic link.
    pub fn link(&mut self, name: &str, target: &str) {
        self.add(name, LINK | 0o777, (0, 0), target.as_bytes());
    }

    /// A character device.
    pub fn device(&mut self, name: &str, numbers: (u32, u32)) {
        self.add(name, CHARACTER_DEVICE | 0o600, numbers, &[]);
    }

    /// The whole archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn add(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), data: &[u8]) {
        self.entries += 1;
        let length = u32::try_from(data.len()).expect("files of an initial RAM disk are small");
        let name_length = u32::try_from(name.len() + 1).expect("names are short");
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, major, minor, name_length, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(data);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_real_cpio_lists_what_was_put_in() {
        let mut archive = Archive::default();
        archive.folder("bin");
        archive.file("bin/a", 0o755, b"hello");
        archive.link("bin/b", "a");
        let bytes = archive.finish();
        let lister = Command::new("cpio")
            .args(["-t", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut lister) = lister else { ::tests::skip!("there is no cpio") };
        lister.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = lister.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "bin\nbin/a\nbin/b\n");
    }
}
