//! A machine's state: saved into a stream, and loaded from one.
//!
//! The stream is our own. A section for each device holds named fields ([`device::state`]), pages of
//! memory come before them. Devices come before the interrupt controllers, so that the levels that
//! those were left with are the last word.

mod pages;
mod sections;
mod stream;

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use accel::SavedError;
use device::StateError;

use crate::board::Machine;
use pages::Sent;
use stream::{Kind, Reader, Writer};

pub use sections::transfer_function;
pub use stream::MAGIC;

/// How far saving is. Anybody may look, and cancel.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes that were written.
    pub bytes: AtomicU64,
    /// Pages that were written as they are.
    pub whole: AtomicU64,
    /// Pages that repeat a word or another page.
    pub filled: AtomicU64,
    /// Times that memory was gone through.
    pub rounds: AtomicU64,
    /// The last round had so many pages that had changed.
    pub dirty: AtomicU64,
    /// Somebody does not want it any more.
    pub cancelled: AtomicBool,
}

impl Progress {
    fn check(&self) -> Result<(), StreamError> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(StreamError::Cancelled),
            false => Ok(()),
        }
    }
}

/// Why a state cannot be saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The sink failed.
    #[error("Cannot write the state")]
    Write(#[source] io::Error),
    /// The source failed.
    #[error("Cannot read the state")]
    Read(#[source] io::Error),
    /// The source has ended.
    #[error("The state is cut off")]
    CutOff,
    /// Somebody else's, which begins like this.
    #[error("This is no state of a machine of Hostel")]
    Foreign {
        /// Its first bytes.
        head: [u8; 8],
    },
    /// Of a later time.
    #[error("The state has version {version}, which is not known here")]
    Version {
        /// Its version.
        version: u32,
    },
    /// A checksum is wrong, or an order.
    #[error("The state is damaged")]
    Damaged,
    /// A block of memory that this machine does not have.
    #[error("The state has the memory '{name}', which this machine has not")]
    UnknownMemory {
        /// Its name.
        name: String,
    },
    /// The machine is another.
    #[error("The state is of a machine with {what} {saved}, and this one has {own}")]
    OtherMachine {
        /// What differs.
        what: &'static str,
        /// What it has in the state.
        saved: String,
        /// What it has here.
        own: String,
    },
    /// A device whose state cannot be saved.
    #[error("State blocked by non-migratable device '{device}'")]
    Blocked {
        /// Its name.
        device: String,
    },
    /// A section's version is later than this program.
    #[error("The state of '{device}' has version {version}, which is not known here")]
    SectionVersion {
        /// Its name.
        device: String,
        /// Its version.
        version: u32,
    },
    /// A device of this machine has none in the state.
    #[error("The state has nothing of '{device}'")]
    NoSection {
        /// Its name.
        device: String,
    },
    /// A device of the state is not in this machine.
    #[error("The state has the device '{device}', which this machine has not")]
    UnknownSection {
        /// Its name.
        device: String,
    },
    /// A device's fields.
    #[error(transparent)]
    Device(#[from] StateError),
    /// A processor.
    #[error("CPU {number}")]
    Processor {
        /// Which.
        number: usize,
        /// Why.
        source: SavedError,
    },
    /// Somebody has changed their mind.
    #[error("Saving was cancelled")]
    Cancelled,
    /// The guest runs.
    #[error("The machine runs")]
    Runs,
}

/// A machine that is being saved while its guest goes on: what was written so far.
pub struct Saving<'a> {
    machine: &'a Machine,
    writer: Writer<'a>,
    sent: Vec<(String, Sent)>,
    progress: &'a Progress,
}

impl<'a> Saving<'a> {
    /// Begins. Fails at once where a device cannot be saved. `runs`: the guest runs, or would if it
    /// was not being saved.
    pub fn begin(
        machine: &'a Machine,
        into: &'a mut dyn Write,
        progress: &'a Progress,
        runs: bool,
    ) -> Result<Self, StreamError> {
        machine.find_blockers()?;
        let mut writer = Writer::new(into).map_err(StreamError::Write)?;
        let description = machine.describe();
        writer.frame(Kind::Machine, &description.to_bytes(runs)).map_err(StreamError::Write)?;
        Ok(Self { machine, writer, sent: Vec::new(), progress })
    }

    /// Writes the pages that have changed since they were last written, at first all of them. How
    /// many there were.
    pub fn round(&mut self) -> Result<u64, StreamError> {
        self.pages(false)
    }

    fn pages(&mut self, stands: bool) -> Result<u64, StreamError> {
        let blocks = match stands {
            true => self.machine.memory_blocks()?,
            false => vec![self.machine.main_memory()],
        };
        let mut count = 0;
        for (name, ram) in blocks {
            let at = self.sent.iter().position(|(other, _)| *other == name);
            let at = at.unwrap_or_else(|| {
                self.sent.push((name.clone(), Sent::default()));
                self.sent.len() - 1
            });
            let sent = &mut self.sent[at].1;
            count += pages::send(&name, &ram, &mut self.writer, self.progress, (sent, stands))?;
        }
        self.progress.rounds.fetch_add(1, Ordering::Relaxed);
        self.progress.dirty.store(count, Ordering::Relaxed);
        Ok(count)
    }

    /// Writes the rest. The guest stands, and stays so until this is done. Bytes in all.
    pub fn finish(mut self) -> Result<u64, StreamError> {
        let machine = self.machine;
        machine.while_standing(|| {
            self.pages(true)?;
            for section in machine.save_sections()? {
                let frame = self.writer.frame(Kind::Section, &section.to_bytes());
                frame.map_err(StreamError::Write)?;
            }
            let bytes = self.writer.end().map_err(StreamError::Write)?;
            self.progress.bytes.store(bytes, Ordering::Relaxed);
            Ok(bytes)
        })
    }
}

impl Machine {
    /// Saves the machine, whose guest stands; `runs`: it ran until just now. Bytes that were written.
    pub fn save(
        &self,
        into: &mut dyn Write,
        progress: &Progress,
        runs: bool,
    ) -> Result<u64, StreamError> {
        Saving::begin(self, into, progress, runs)?.finish()
    }

    /// Loads a state; the guest stands, and goes on from there once it is resumed. A machine that
    /// could not be loaded is as after power-on. Whether the guest ran when it was saved.
    pub fn load(&self, from: &mut dyn Read) -> Result<bool, StreamError> {
        let mut reader = Reader::new(from)?;
        let blocks = self.memory_blocks()?;
        let (Kind::Machine, description) = reader.frame()? else {
            return Err(StreamError::Damaged);
        };
        let runs = self.describe().check(&description)?;
        let loaded = self.while_standing(|| {
            let mut sections = Vec::new();
            loop {
                match reader.frame()? {
                    (Kind::Pages, frame) => pages::receive(&blocks, &frame)?,
                    (Kind::Section, frame) => sections.push(sections::Section::from_bytes(&frame)?),
                    (Kind::End, _) => break,
                    (Kind::Machine, _) => return Err(StreamError::Damaged),
                }
            }
            self.load_sections(sections)
        });
        if loaded.is_err() {
            self.reset();
        }
        loaded.map(|()| runs)
    }
}
