//! Snapshots of a machine: its state and its disks, inside the images.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use block::NodeRef;
use block::snapshots::{Snapshot, Snapshots};
use machine::{Progress, RunState};

use crate::emulator::Emulator;
use crate::migration::{about_state, whole};

type Result<T> = std::result::Result<T, String>;

/// What is written to an image, or read, at once.
const PIECE_BYTES: usize = 1 << 20;

/// A disk that takes part: how it is called, and its image.
pub struct Disk {
    name: String,
    node: NodeRef,
}

impl Disk {
    fn snapshots(&self) -> Result<&dyn Snapshots> {
        let refusal =
            || format!("Device '{}' is writable but does not support snapshots", self.name);
        self.node.snapshots().ok_or_else(refusal)
    }

    fn find(&self, tag: &str) -> Option<Snapshot> {
        let list = self.node.snapshots()?.list();
        list.into_iter().find(|snapshot| snapshot.name == tag)
    }

    fn delete(&self, tag: &str) -> Result<()> {
        let Some(snapshot) = self.find(tag) else { return Ok(()) };
        self.snapshots()?.delete(&snapshot.id).map_err(|error| {
            format!("Could not delete snapshot '{tag}' on device '{}': {error}", self.name)
        })
    }
}

/// Disks that a guest can write to, or those that are named: each must be able to keep snapshots.
pub fn disks(emulator: &Emulator, names: Option<&[String]>) -> Result<Vec<Disk>> {
    let names = match names {
        Some(names) => names.to_vec(),
        None => emulator.blocks.written(),
    };
    let mut disks = Vec::new();
    for name in names {
        let node = emulator.blocks.node(&name)?;
        disks.push(Disk { name, node });
    }
    disks.iter().try_for_each(|disk| disk.snapshots().map(|_| ()))?;
    Ok(disks)
}

/// The disk that keeps the machine's state: the one that is named, or the first that can. Where a
/// snapshot is loaded it is the one that has it: disks that came or went since may stand before it.
fn keeper<'a>(
    emulator: &Emulator,
    disks: &'a [Disk],
    named: Option<&str>,
    loads: Option<&str>,
) -> Result<(&'a Disk, u64)> {
    let has_it = |disk: &&Disk| {
        let found = loads.and_then(|tag| disk.find(tag));
        found.is_some_and(|snapshot| snapshot.vm_state_bytes != 0)
    };
    let disk = match named {
        Some(name) => {
            let node = emulator.blocks.node(name)?;
            let disk = disks.iter().find(|disk| Arc::ptr_eq(&disk.node, &node));
            disk.ok_or_else(|| format!("vmstate block device '{name}' does not exist"))?
        }
        None => {
            let disk = disks.iter().find(has_it).or(disks.first());
            disk.ok_or("No block device can accept snapshots")?
        }
    };
    let offset = disk.node.vm_state_offset();
    let offset =
        offset.ok_or_else(|| format!("Device '{}' cannot keep a machine's state", disk.name))?;
    Ok((disk, offset))
}

/// Saves the machine and its disks under a name; an older snapshot of the name goes.
pub fn save(emulator: &Emulator, tag: &str, chosen: Option<(&str, &[String])>) -> Result<()> {
    if tag.is_empty() {
        return Err("Parameter 'name' is missing".to_owned());
    }
    crate::migration::find_blockers(&emulator.machine)?;
    let disks = disks(emulator, chosen.map(|(_, names)| names))?;
    let (keeper, offset) = keeper(emulator, &disks, chosen.map(|(name, _)| name), None)?;
    if chosen.is_some() && disks.iter().any(|disk| disk.find(tag).is_some()) {
        return Err(format!("Snapshot '{tag}' already exists in one or more devices"));
    }
    standing(emulator, RunState::SaveVm, |runs| {
        disks.iter().try_for_each(|disk| disk.delete(tag))?;
        let mut sink = Sink { node: &keeper.node, at: offset, piece: Vec::new() };
        let saved = emulator.machine.save(&mut sink, &Progress::default(), runs);
        let bytes = saved.map_err(|error| format!("Error saving VM state: {}", whole(&error)))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for disk in &disks {
            let keeps = Arc::ptr_eq(&disk.node, &keeper.node);
            let snapshot = Snapshot {
                name: tag.to_owned(),
                vm_state_bytes: if keeps { bytes } else { 0 },
                date_seconds: now.as_secs() as u32,
                date_nanoseconds: now.subsec_nanos(),
                vm_clock_ns: emulator.machine.clock_ns(),
                ..Snapshot::default()
            };
            let created = disk.node.flush().and_then(|()| disk.snapshots_create(&snapshot));
            created.map_err(|error| {
                format!("Error while creating snapshot on '{}': {error}", disk.name)
            })?;
        }
        // The snapshot has it; the disk as it is now needs it no more.
        _ = keeper.node.zero_at(offset, bytes.next_multiple_of(1 << 16), block::Zeroing::Unmap);
        settle(&disks);
        Ok(())
    })
}

impl Disk {
    fn snapshots_create(&self, snapshot: &Snapshot) -> block::Result<()> {
        match self.node.snapshots() {
            Some(snapshots) => snapshots.create(snapshot),
            None => Ok(()),
        }
    }
}

/// Goes back to a snapshot. A guest that ran goes on.
pub fn load(emulator: &Emulator, tag: &str, chosen: Option<(&str, &[String])>) -> Result<()> {
    let disks = disks(emulator, chosen.map(|(_, names)| names))?;
    let (keeper, offset) = keeper(emulator, &disks, chosen.map(|(name, _)| name), Some(tag))?;
    if disks.is_empty() || disks.iter().any(|disk| disk.find(tag).is_none()) {
        return Err(format!("Snapshot '{tag}' does not exist in one or more devices"));
    }
    let bytes = keeper.find(tag).map_or(0, |snapshot| snapshot.vm_state_bytes);
    if bytes == 0 {
        return Err("This is a disk-only snapshot. Revert to it offline using qemu-img".to_owned());
    }
    crate::migration::find_blockers(&emulator.machine)?;
    standing(emulator, RunState::RestoreVm, |_| {
        for disk in &disks {
            let applied = disk.snapshots()?.apply(tag);
            applied.map_err(|error| {
                format!("Could not load snapshot '{tag}' on '{}': {error}", disk.name)
            })?;
        }
        let mut source = Source {
            node: &keeper.node,
            at: offset,
            end: offset + bytes,
            piece: Vec::new(),
            used: 0,
        };
        let loaded = emulator.machine.load(&mut source);
        settle(&disks);
        loaded
            .map(|_| ())
            .map_err(|error| format!("Error loading VM state: {}", about_state(&error)))
    })
}

/// Removes a snapshot wherever it is.
pub fn delete(emulator: &Emulator, tag: &str, names: Option<&[String]>) -> Result<()> {
    let disks = disks(emulator, names)?;
    disks.iter().try_for_each(|disk| disk.delete(tag))?;
    settle(&disks);
    Ok(())
}

/// What was given up becomes free in the images: that is done by the flush after the one that says
/// that nobody needs it any more.
fn settle(disks: &[Disk]) {
    for disk in disks {
        // Whatever fails here costs space at most.
        _ = disk.node.flush().and_then(|()| disk.node.flush());
    }
}

/// The snapshots that all disks have, as the one with the machine's state tells them.
pub fn list(emulator: &Emulator) -> Result<Vec<Snapshot>> {
    let disks = disks(emulator, None)?;
    let Some(first) = disks.first() else {
        return Err("No available block device supports snapshots".to_owned());
    };
    let snapshots = first.snapshots()?.list();
    // `None`: some disk has none of this name.
    let everywhere = |snapshot: Snapshot| -> Option<Snapshot> {
        let found: Option<Vec<_>> = disks.iter().map(|disk| disk.find(&snapshot.name)).collect();
        let with_state = found?.into_iter().find(|found| found.vm_state_bytes != 0);
        Some(with_state.unwrap_or(snapshot))
    };
    Ok(snapshots.into_iter().filter_map(everywhere).collect())
}

/// Does something while the guest stands. After an error while loading it stays so.
pub fn standing(
    emulator: &Emulator,
    state: RunState,
    action: impl FnOnce(bool) -> Result<()>,
) -> Result<()> {
    let control = emulator.machine.control();
    let before = control.state();
    if matches!(before, RunState::InMigrate | RunState::FinishMigrate) {
        return Err("The machine's state is on its way".to_owned());
    }
    control.stop(state);
    let runs = before == RunState::Running;
    let result = action(runs);
    if runs && (result.is_ok() || state == RunState::SaveVm) {
        control.resume();
    } else {
        control.stop(if runs { RunState::Paused } else { before });
    }
    result
}

/// Writes behind a disk.
struct Sink<'a> {
    node: &'a NodeRef,
    at: u64,
    piece: Vec<u8>,
}

impl Sink<'_> {
    fn write_piece(&mut self) -> io::Result<()> {
        let written = self.node.write_at(&self.piece, self.at);
        written.map_err(|error| io::Error::other(error.to_string()))?;
        self.at += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.write_piece()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_piece()
    }
}

/// Reads what lies there.
struct Source<'a> {
    node: &'a NodeRef,
    at: u64,
    end: u64,
    piece: Vec<u8>,
    used: usize,
}

impl Read for Source<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.used == self.piece.len() {
            let bytes = (self.end - self.at).min(PIECE_BYTES as u64) as usize;
            self.piece.resize(bytes, 0);
            let read = self.node.read_at(&mut self.piece, self.at);
            read.map_err(|error| io::Error::other(error.to_string()))?;
            self.at += bytes as u64;
            self.used = 0;
        }
        let taken = into.len().min(self.piece.len() - self.used);
        into[..taken].copy_from_slice(&self.piece[self.used..self.used + taken]);
        self.used += taken;
        Ok(taken)
    }
}
