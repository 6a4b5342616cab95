//! The flat view: sorted ranges without overlap, each with one owner.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::{Io, Listener, Ram};

/// What stands behind a range of addresses.
#[derive(Clone)]
pub enum Owner {
    /// Memory that the guest reads and writes.
    Ram(Arc<Ram>),
    /// Memory that the guest reads; its writes go nowhere.
    Rom(Arc<Ram>),
    /// Memory that the guest reads, with registers that take its writes: flash in read mode.
    RomDevice(Arc<Ram>, Arc<dyn Io>),
    /// Device registers.
    Io(Arc<dyn Io>),
}

impl Owner {
    /// The memory behind it, if it is memory that can be read, or also written.
    fn memory(&self, write: bool) -> Option<&Arc<Ram>> {
        match self {
            Self::Ram(ram) => Some(ram),
            Self::Rom(ram) | Self::RomDevice(ram, _) if !write => Some(ram),
            _ => None,
        }
    }

    /// Whether two owners are the same thing.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ram(a), Self::Ram(b)) | (Self::Rom(a), Self::Rom(b)) => Arc::ptr_eq(a, b),
            (Self::RomDevice(a, x), Self::RomDevice(b, y)) => Arc::ptr_eq(a, b) && same(x, y),
            (Self::Io(x), Self::Io(y)) => same(x, y),
            _ => false,
        }
    }
}

/// Compares the data behind two trait objects, not their tables of methods.
fn same(a: &Arc<dyn Io>, b: &Arc<dyn Io>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

impl fmt::Debug for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ram(ram) => write!(formatter, "ram {}", ram.name()),
            Self::Rom(ram) => write!(formatter, "rom {}", ram.name()),
            Self::RomDevice(ram, _) => write!(formatter, "rom device {}", ram.name()),
            Self::Io(_) => write!(formatter, "i/o"),
        }
    }
}

/// A range of addresses with one owner.
#[derive(Clone, Debug)]
pub struct FlatRange {
    /// The first address.
    pub start: u64,
    /// The number of addresses, never zero.
    pub length: u64,
    /// What stands there.
    pub owner: Owner,
    /// Where in its owner the range starts.
    pub offset: u64,
}

impl FlatRange {
    /// The last address.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.start + (self.length - 1)
    }
}

/// Bytes that lie one after the other in a block of RAM.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The block.
    pub ram: &'a Arc<Ram>,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// Who hears of writes to memory that no vCPU made.
#[derive(Clone, Default)]
pub(crate) struct Listeners(pub Arc<RwLock<Vec<Arc<dyn Listener>>>>);

impl fmt::Debug for Listeners {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} listeners", self.0.read().len())
    }
}

impl Listeners {
    pub fn written(&self, start: u64, bytes: u64) {
        for listener in &*self.0.read() {
            listener.written(start, bytes);
        }
    }
}

/// Every address with at most one owner. Immutable: a change makes a new view. Whoever writes to
/// memory through it is no vCPU, so that listeners of the space hear of it.
#[derive(Default, Debug)]
pub struct FlatView {
    pub(crate) ranges: Vec<FlatRange>,
    pub(crate) listeners: Listeners,
}

impl FlatView {
    /// The ranges in the order of their addresses.
    #[must_use]
    pub fn ranges(&self) -> &[FlatRange] {
        &self.ranges
    }

    /// The range that holds `address`.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<&FlatRange> {
        let after = self.ranges.partition_point(|range| range.start <= address);
        let range = &self.ranges[after.checked_sub(1)?];
        (address <= range.last()).then_some(range)
    }

    /// Copies bytes out, whatever stands behind them; holes read as ones.
    pub fn read(&self, address: u64, into: &mut [u8]) {
        self.each_piece(address, into.len(), |piece, range| {
            let bytes = &mut into[piece.from..piece.to];
            match range {
                None => bytes.fill(0xff),
                Some(FlatRange { owner: Owner::Io(io), .. }) => read_io(&**io, piece.offset, bytes),
                Some(FlatRange {
                    owner: Owner::Ram(ram) | Owner::Rom(ram) | Owner::RomDevice(ram, _),
                    ..
                }) => {
                    if !ram.read(piece.offset, bytes) {
                        bytes.fill(0xff);
                    }
                }
            }
        });
    }

    /// Copies bytes in, whatever stands behind them; holes and ROM swallow them.
    pub fn write(&self, address: u64, from: &[u8]) {
        self.each_piece(address, from.len(), |piece, range| {
            let bytes = &from[piece.from..piece.to];
            match range.map(|range| &range.owner) {
                None | Some(Owner::Rom(_)) => {}
                Some(Owner::Ram(ram)) => {
                    _ = ram.write(piece.offset, bytes);
                    let start = address.wrapping_add(piece.from as u64);
                    self.listeners.written(start, bytes.len() as u64);
                }
                Some(Owner::Io(io) | Owner::RomDevice(_, io)) => {
                    write_io(&**io, piece.offset, bytes);
                }
            }
        });
    }

    /// Copies bytes into memory, ROM included; devices and holes swallow them. For debuggers.
    pub fn write_debug(&self, address: u64, from: &[u8]) {
        self.each_piece(address, from.len(), |piece, range| {
            let bytes = &from[piece.from..piece.to];
            if let Some(Owner::Ram(ram) | Owner::Rom(ram) | Owner::RomDevice(ram, _)) =
                range.map(|range| &range.owner)
            {
                _ = ram.write(piece.offset, bytes);
            }
        });
    }

    /// The memory at `address`, for a device that reaches into it: at most `length` bytes, and
    /// fewer where the block ends there. `None` where no memory is, so that no device can be made
    /// to reach into another or into itself. ROM counts only when it is not to be written.
    #[must_use]
    pub fn memory_at(&self, address: u64, length: u64, write: bool) -> Option<Piece<'_>> {
        let after = self.ranges.partition_point(|range| range.start <= address);
        let first = after.checked_sub(1)?;
        let range = self.ranges.get(first).filter(|range| address <= range.last())?;
        let ram = range.owner.memory(write)?;
        let offset = address - range.start + range.offset;
        let mut room = range.last() - address;
        // Windows that were laid over a block and switched off again leave it in several ranges.
        for pair in self.ranges[first..].windows(2) {
            let [before, next] = pair else { break };
            let continues = before.last().checked_add(1) == Some(next.start)
                && before.offset.checked_add(before.length) == Some(next.offset)
                && next.owner.memory(write).is_some_and(|other| Arc::ptr_eq(ram, other));
            if room >= length || !continues {
                break;
            }
            room = next.last() - address;
        }
        Some(Piece { ram, offset, length: length.min(room.saturating_add(1)) })
    }

    /// Whether all of a range is memory.
    #[must_use]
    pub fn is_memory(&self, address: u64, length: u64, write: bool) -> bool {
        self.each_memory(address, length, write, |_, _| true)
    }

    /// Copies bytes out of memory. False when not all of them are memory; some may be copied.
    #[must_use]
    pub fn read_memory(&self, address: u64, into: &mut [u8]) -> bool {
        self.each_memory(address, into.len() as u64, false, |done, piece| {
            let done = done as usize;
            piece.ram.read(piece.offset, &mut into[done..done + piece.length as usize])
        })
    }

    /// Copies bytes into memory. False when not all of them are memory; some may be copied.
    #[must_use]
    pub fn write_memory(&self, address: u64, from: &[u8]) -> bool {
        let written = self.each_memory(address, from.len() as u64, true, |done, piece| {
            let done = done as usize;
            piece.ram.write(piece.offset, &from[done..done + piece.length as usize])
        });
        self.listeners.written(address, from.len() as u64);
        written
    }

    fn each_memory(
        &self,
        address: u64,
        length: u64,
        write: bool,
        mut visit: impl FnMut(u64, Piece<'_>) -> bool,
    ) -> bool {
        let mut done = 0;
        while done < length {
            let Some(here) = address.checked_add(done) else { return false };
            let Some(piece) = self.memory_at(here, length - done, write) else { return false };
            let bytes = piece.length;
            if !visit(done, piece) {
                return false;
            }
            done += bytes;
        }
        true
    }

    /// Reads one value of 1, 2, 4 or 8 bytes, as a vCPU does: a device sees one access.
    #[must_use]
    pub fn read_value(&self, address: u64, size: u8) -> u64 {
        match self.find(address) {
            Some(range) if address.wrapping_add(u64::from(size) - 1) <= range.last() => {
                let offset = address - range.start + range.offset;
                match &range.owner {
                    Owner::Io(io) => io.read(offset, size) & crate::ones(size),
                    Owner::Ram(ram) | Owner::Rom(ram) | Owner::RomDevice(ram, _) => {
                        ram.read_value(offset, size)
                    }
                }
            }
            _ => {
                let mut bytes = [0; 8];
                self.read(address, &mut bytes[..usize::from(size)]);
                u64::from_le_bytes(bytes)
            }
        }
    }

    /// Writes one value of 1, 2, 4 or 8 bytes, as a vCPU does: a device sees one access.
    pub fn write_value(&self, address: u64, size: u8, value: u64) {
        match self.find(address) {
            Some(range) if address.wrapping_add(u64::from(size) - 1) <= range.last() => {
                let offset = address - range.start + range.offset;
                match &range.owner {
                    Owner::Io(io) | Owner::RomDevice(_, io) => {
                        io.write(offset, size, value & crate::ones(size));
                    }
                    Owner::Ram(ram) => {
                        ram.write_value(offset, size, value);
                        self.listeners.written(address, u64::from(size));
                    }
                    Owner::Rom(_) => {}
                }
            }
            _ => self.write(address, &value.to_le_bytes()[..usize::from(size)]),
        }
    }

    /// Cuts an access at the borders of ranges.
    fn each_piece(
        &self,
        address: u64,
        length: usize,
        mut visit: impl FnMut(Cut, Option<&FlatRange>),
    ) {
        let mut from = 0;
        while from < length {
            let here = address.wrapping_add(from as u64);
            let after = self.ranges.partition_point(|range| range.start <= here);
            let range = after.checked_sub(1).map(|at| &self.ranges[at]);
            let range = range.filter(|range| here <= range.last());
            let next = self.ranges.get(after).map_or(u64::MAX, |next| next.start - 1);
            let last = range.map_or(next, FlatRange::last);
            let room = usize::try_from(last - here).unwrap_or(usize::MAX).saturating_add(1);
            let to = length.min(from.saturating_add(room));
            let offset = range.map_or(0, |range| here - range.start + range.offset);
            visit(Cut { from, to, offset }, range);
            from = to;
        }
    }
}

/// A part of an access that has one owner.
struct Cut {
    from: usize,
    to: usize,
    offset: u64,
}

/// The largest naturally aligned access at `offset` that `left` bytes allow.
fn io_size(offset: u64, left: usize) -> usize {
    let aligned = if offset == 0 { 8 } else { 1 << offset.trailing_zeros().min(3) };
    let mut size = aligned;
    while size > left {
        size /= 2;
    }
    size
}

fn read_io(io: &dyn Io, mut offset: u64, mut bytes: &mut [u8]) {
    while !bytes.is_empty() {
        let size = io_size(offset, bytes.len());
        let (now, later) = bytes.split_at_mut(size);
        now.copy_from_slice(&io.read(offset, size as u8).to_le_bytes()[..size]);
        offset += size as u64;
        bytes = later;
    }
}

fn write_io(io: &dyn Io, mut offset: u64, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let size = io_size(offset, bytes.len());
        let (now, later) = bytes.split_at(size);
        let mut value = [0; 8];
        value[..size].copy_from_slice(now);
        io.write(offset, size as u8, u64::from_le_bytes(value));
        offset += size as u64;
        bytes = later;
    }
}
