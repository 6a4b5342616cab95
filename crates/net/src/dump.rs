//! A capture of what passes between a card and its back end, as `tcpdump` and `tshark` read it.
//!
//! [`Dump`] stands between the two: a back end to the card, a card to the back end. What the
//! sender left to the receiver is captured as it passed: checksums that are only begun, segments
//! that are not cut yet.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};

use crate::cable::{Backend, Capabilities, Card, Offload};
use crate::error::{Error, Result};

/// The file begins with this in the byte order of all its numbers; times are in microseconds.
const MAGIC: u32 = 0xa1b2_c3d4;
const VERSION: [u16; 2] = [2, 4];
const ETHERNET: u32 = 1;

/// A capture file.
pub struct Capture {
    file: Mutex<File>,
    bytes_max: usize,
}

impl Capture {
    /// Makes the file, or empties it. Of each frame `bytes_max` bytes are kept.
    ///
    /// # Errors
    /// The file cannot be made or written.
    pub fn create(path: &Path, bytes_max: u32) -> Result<Self> {
        let failed = |action| {
            let path = path.to_owned();
            move |source| Error::File { action, path, source }
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(failed("create"))?;
        let mut head = MAGIC.to_le_bytes().to_vec();
        head.extend(VERSION.iter().flat_map(|part| part.to_le_bytes()));
        // No time zone, no accuracy.
        head.extend([0; 8]);
        head.extend(bytes_max.to_le_bytes());
        head.extend(ETHERNET.to_le_bytes());
        file.write_all(&head).map_err(failed("write"))?;
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Ok(Self { file: Mutex::new(file), bytes_max })
    }

    /// Adds a frame that passed at `when`. A full disk loses frames, not the network.
    pub fn add(&self, frame: &[u8], when: SystemTime) {
        let since = when.duration_since(UNIX_EPOCH).unwrap_or_default();
        let kept = &frame[..frame.len().min(self.bytes_max)];
        let narrow = |wide: usize| u32::try_from(wide).unwrap_or(u32::MAX);
        let numbers = [
            // 32 bits are what the format has; they last until 2106.
            u32::try_from(since.as_secs()).unwrap_or(u32::MAX),
            since.subsec_micros(),
            narrow(kept.len()),
            narrow(frame.len()),
        ];
        let mut record = Vec::with_capacity(16 + kept.len());
        record.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        record.extend(kept);
        // One call, so that a reader of a growing file sees whole records.
        let _ = self.file.lock().write_all(&record);
    }
}

/// Which frames a capture keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// All.
    Both,
    /// Those from the card.
    FromCard,
    /// Those for the card.
    ToCard,
}

/// A back end whose traffic can be captured. Captures come and go while frames pass.
pub struct Dump {
    inner: Arc<dyn Backend>,
    tap: Arc<Listening>,
}

/// The card that the back end sees.
#[derive(Default)]
struct Listening {
    /// Whether there is any capture: without one nothing is paid.
    any: AtomicBool,
    captures: RwLock<Vec<(String, Direction, Arc<Capture>)>>,
    card: RwLock<Option<Weak<dyn Card>>>,
}

impl Dump {
    /// Stands before `inner`, with no capture yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self { inner, tap: Arc::default() })
    }

    /// Adds a capture under a name.
    pub fn add(&self, name: &str, direction: Direction, capture: Arc<Capture>) {
        self.tap.captures.write().push((name.to_owned(), direction, capture));
        self.tap.any.store(true, Ordering::Relaxed);
    }

    /// Whether there is a capture of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.tap.captures.read().iter().any(|(known, ..)| known == name)
    }

    /// Ends a capture. False when there is none of this name.
    pub fn remove(&self, name: &str) -> bool {
        let mut captures = self.tap.captures.write();
        let before = captures.len();
        captures.retain(|(known, ..)| known != name);
        self.tap.any.store(!captures.is_empty(), Ordering::Relaxed);
        captures.len() < before
    }
}

impl Listening {
    fn card(&self) -> Option<Arc<dyn Card>> {
        self.card.read().as_ref().and_then(Weak::upgrade)
    }

    fn capture(&self, frame: &[u8], direction: Direction) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let now = SystemTime::now();
        for (_, wanted, capture) in &*self.captures.read() {
            if *wanted == direction || *wanted == Direction::Both {
                capture.add(frame, now);
            }
        }
    }
}

impl Card for Listening {
    fn receive(&self, frame: &[u8], offload: Offload) -> bool {
        let taken = self.card().is_none_or(|card| card.receive(frame, offload));
        if taken {
            self.capture(frame, Direction::ToCard);
        }
        taken
    }

    fn set_link(&self, up: bool) {
        if let Some(card) = self.card() {
            card.set_link(up);
        }
    }
}

impl Backend for Dump {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn transmit(&self, frame: &[u8], offload: Offload) {
        self.tap.capture(frame, Direction::FromCard);
        self.inner.transmit(frame, offload);
    }

    fn attach(&self, card: Weak<dyn Card>) {
        *self.tap.card.write() = Some(card);
        let tap: Weak<Listening> = Arc::downgrade(&self.tap);
        self.inner.attach(tap);
    }

    fn set_guest_offload(&self, granted: Capabilities) {
        self.inner.set_guest_offload(granted);
    }

    fn room(&self) {
        self.inner.room();
    }

    fn link(&self) -> bool {
        self.inner.link()
    }

    fn info(&self) -> String {
        self.inner.info()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn records_are_what_the_format_says() {
        let path = std::env::temp_dir().join(format!("net-dump-{}.pcap", std::process::id()));
        let capture = Capture::create(&path, 4).unwrap();
        capture.add(b"abcdef", UNIX_EPOCH + Duration::new(7, 5_000));
        capture.add(b"xy", UNIX_EPOCH + Duration::from_secs(8));
        let mut expected = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([4, 0, 0, 0, 1, 0, 0, 0]);
        expected.extend([7, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0]);
        expected.extend(b"abcd");
        expected.extend([8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0]);
        expected.extend(b"xy");
        assert_eq!(std::fs::read(&path).unwrap(), expected);
        std::fs::remove_file(&path).unwrap();
        let text = Capture::create(Path::new("/nonexistent/x"), 4).err().unwrap().to_string();
        assert!(text.contains("/nonexistent/x"), "{text}");
    }
}
