//! Copying, on all cores: workers take the next piece of the sources, read it, look for zeros
//! and compress; they write in turn, so that the target's layout does not depend on luck.

use std::time::{Duration, Instant};

use block::node::{HostRange, Packed, Zeroing, status_above, status_through};
use block::{Error, NodeRef};
use parking_lot::{Condvar, Mutex};

use crate::img::fail;
use crate::img::failure::Failure;
use crate::img::progress::Progress;

/// A piece of work. Small enough that a piece stays in a core's cache between reading,
/// looking and writing.
const PIECE_BYTES: u64 = 512 << 10;
/// Pieces for the kernel to copy may be larger.
const CLONE_BYTES: u64 = 1 << 30;
/// Unreadable areas are skipped in units of this.
const SALVAGE_BYTES: usize = 512;

/// The images to copy, one behind the other.
pub struct Sources {
    /// Where each begins, and the image.
    parts: Vec<(u64, NodeRef)>,
    size: u64,
}

impl Sources {
    pub fn new(nodes: Vec<NodeRef>) -> Self {
        let mut size = 0;
        let mut parts = Vec::new();
        for node in nodes {
            let start = size;
            size += node.size();
            parts.push((start, node));
        }
        Self { parts, size }
    }

    pub fn count(&self) -> usize {
        self.parts.len()
    }

    pub fn first(&self) -> &NodeRef {
        &self.parts[0].1
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// The image at a place, and the place within it.
    fn at(&self, offset: u64) -> (&NodeRef, u64) {
        let index = self.parts.partition_point(|(start, _)| *start <= offset) - 1;
        let (start, node) = &self.parts[index];
        (node, offset - start)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        let mut done = 0;
        while done < buffer.len() {
            let (node, within) = self.at(offset + done as u64);
            let piece = ((buffer.len() - done) as u64).min(node.size() - within) as usize;
            node.read_at(&mut buffer[done..done + piece], within)?;
            done += piece;
        }
        Ok(())
    }
}

/// What to do with a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Data,
    Zero,
    /// The target's backing file has it.
    Skip,
}

#[derive(Clone)]
struct Piece {
    offset: u64,
    length: u64,
    kind: Kind,
    /// Data that the kernel can copy: where it lies in a file of the host.
    host: Option<(NodeRef, u64)>,
}

/// The next piece and its place in the queue.
struct Queue {
    at: u64,
    ticket: u64,
    /// The rest of the last status.
    known: Option<Piece>,
    failed: bool,
}

/// Whose turn it is to write.
#[derive(Default)]
struct Turn {
    ticket: u64,
    written: u64,
    failure: Option<Failure>,
}

/// A copy.
pub struct Copy<'a> {
    pub sources: &'a Sources,
    pub target: &'a NodeRef,
    /// The target has the sources' backing file: only what lies above it is copied.
    pub top_layer_only: bool,
    pub target_backing_bytes: Option<u64>,
    /// What is not written reads as zeros.
    pub starts_zeroed: bool,
    /// Runs of zeros of this length are not written; 0 writes all.
    pub sparse: u64,
    pub compress: bool,
    pub salvage: bool,
    pub quiet: bool,
    pub parallel: usize,
    pub any_order: bool,
    /// The kernel may share or copy blocks where that is fast.
    pub clone: bool,
    /// Every piece is flushed once it is written.
    pub write_through: bool,
    /// Bytes a second.
    pub rate: Option<u64>,
    pub progress: &'a Progress,
}

/// What a worker has ready to write: ranges of the piece's buffer.
enum Ready {
    Plain { start: usize, end: usize },
    Zero { start: usize, end: usize },
    Packed { start: usize, end: usize, packed: Packed },
}

impl Copy<'_> {
    pub fn run(&self) -> Result<(), Failure> {
        if self.salvage {
            // What cannot be looked at is said before anything is copied, and again when it is.
            let mut at = 0;
            while at < self.sources.size() {
                at += self.look(at)?.length;
            }
        }
        let queue = Mutex::new(Queue { at: 0, ticket: 0, known: None, failed: false });
        let turn = Mutex::new(Turn::default());
        let next = Condvar::new();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // Warnings come in the order of the image.
        let workers = if self.salvage { 1 } else { self.parallel.min(cores).max(1) };
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| self.work(&queue, &turn, &next, started));
            }
        });
        match turn.into_inner().failure {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn work(&self, queue: &Mutex<Queue>, turn: &Mutex<Turn>, next: &Condvar, started: Instant) {
        let mut buffer = vec![0; self.piece_bytes() as usize];
        loop {
            let (ticket, piece) = {
                let mut queue = queue.lock();
                match self.next_piece(&mut queue) {
                    Ok(None) => return,
                    Ok(Some(piece)) => {
                        queue.ticket += 1;
                        (queue.ticket - 1, Ok(piece))
                    }
                    Err(failure) => {
                        queue.failed = true;
                        queue.ticket += 1;
                        (queue.ticket - 1, Err(failure))
                    }
                }
            };
            let prepared = piece
                .and_then(|piece| self.prepare(&piece, &mut buffer).map(|ready| (piece, ready)));
            if self.any_order && !self.compress {
                let written = prepared.and_then(|(piece, ready)| {
                    self.write(&piece, &ready, &buffer).map(|()| piece.length)
                });
                let mut turn = turn.lock();
                self.finish(&mut turn, queue, written, started);
                continue;
            }
            let mut guard = turn.lock();
            while guard.ticket != ticket {
                next.wait(&mut guard);
            }
            let failed = guard.failure.is_some();
            drop(guard);
            let written = match prepared {
                _ if failed => Ok(0),
                Err(failure) => Err(failure),
                Ok((piece, ready)) => self.write(&piece, &ready, &buffer).map(|()| piece.length),
            };
            let mut guard = turn.lock();
            self.finish(&mut guard, queue, written, started);
            guard.ticket += 1;
            next.notify_all();
        }
    }

    fn finish(
        &self,
        turn: &mut Turn,
        queue: &Mutex<Queue>,
        written: Result<u64, Failure>,
        started: Instant,
    ) {
        match written {
            Ok(bytes) => {
                turn.written += bytes;
                self.progress.set(turn.written, self.sources.size());
                if let Some(rate) = self.rate.filter(|rate| *rate > 0) {
                    let due = Duration::from_secs_f64(turn.written as f64 / rate as f64);
                    std::thread::sleep(due.saturating_sub(started.elapsed()));
                }
            }
            Err(failure) => {
                turn.failure.get_or_insert(failure);
                queue.lock().failed = true;
            }
        }
    }

    /// The bytes that a worker takes: whole units where clusters are compressed.
    fn piece_bytes(&self) -> u64 {
        let unit = self.unit();
        PIECE_BYTES.next_multiple_of(unit)
    }

    fn unit(&self) -> u64 {
        match self.target.compressing() {
            Some(compressing) if self.compress => compressing.unit() as u64,
            _ => 1,
        }
    }

    fn next_piece(&self, queue: &mut Queue) -> Result<Option<Piece>, Failure> {
        let total = self.sources.size();
        if queue.failed || queue.at >= total {
            return Ok(None);
        }
        let known = match queue.known.take() {
            Some(piece) => piece,
            None => self.look(queue.at)?,
        };
        let reads = known.kind == Kind::Data && known.host.is_none();
        let limit = if reads { self.piece_bytes() } else { CLONE_BYTES };
        let length = known.length.min(limit);
        queue.at = known.offset + length;
        if length < known.length {
            queue.known = Some(Piece {
                offset: queue.at,
                length: known.length - length,
                kind: known.kind,
                host: known.host.clone().map(|(node, at)| (node, at + length)),
            });
        }
        Ok(Some(Piece { length, ..known }))
    }

    /// What lies at a place, in whole units.
    fn look(&self, offset: u64) -> Result<Piece, Failure> {
        let (node, within) = self.sources.at(offset);
        let left = node.size() - within;
        let ask = |length| {
            if self.top_layer_only {
                status_through(node, within, length).map(|extent| (extent, node.clone()))
            } else {
                status_above(node, None, within, length).map(|found| (found.extent, found.node))
            }
        };
        let mut status = ask(left);
        if status.is_err() && self.salvage {
            status = ask(left.min(SALVAGE_BYTES as u64)); // perhaps only a part is unreadable
        }
        let (extent, holder) = match status {
            Ok(found) => found,
            Err(error) if !self.salvage => {
                return Err(fail(format!(
                    "error while reading block status at offset {offset}: {}",
                    error.reason()
                )));
            }
            Err(error) => {
                self.warn(&format!(
                    "error while reading block status at offset {offset}: {}",
                    error.reason()
                ));
                let length = left.min(SALVAGE_BYTES as u64);
                let extent = block::Extent { length, data: true, ..Default::default() };
                (extent, node.clone())
            }
        };
        let beyond_backing = self.target_backing_bytes.is_some_and(|bytes| offset >= bytes);
        let kind = if extent.zero {
            match (beyond_backing, self.sparse) {
                (true, _) => Kind::Skip,
                (false, 0) => Kind::Data, // everything is to be written
                (false, _) => Kind::Zero,
            }
        } else if extent.data || !self.top_layer_only {
            Kind::Data
        } else {
            Kind::Skip
        };
        let unit = self.unit();
        let mut length = extent.length;
        let ends_at_end = offset + length >= self.sources.size();
        if unit > 1 && !ends_at_end {
            // A cluster is zero only if all of it is; else it is data.
            let whole = length - length % unit;
            length = match kind {
                Kind::Data => length.next_multiple_of(unit).min(self.sources.size() - offset),
                _ if whole > 0 => whole,
                _ => unit.min(self.sources.size() - offset),
            };
            if kind != Kind::Data && whole == 0 {
                return Ok(Piece { offset, length, kind: Kind::Data, host: None });
            }
        }
        let host = match (kind, extent.host) {
            (Kind::Data, Some(at)) if self.clone && extent.data && !extent.compressed => {
                holder.data_node().filter(|data| data.host_file().is_some()).map(|data| (data, at))
            }
            _ => None,
        };
        Ok(self.clonable_part(Piece { offset, length, kind, host }))
    }

    /// Targets take whole clusters from the kernel: what is around them is read and written.
    fn clonable_part(&self, piece: Piece) -> Piece {
        let Some((node, at)) = piece.host else { return piece };
        let unit = self.target.cluster_bytes().unwrap_or(1);
        let to_unit = piece.offset.next_multiple_of(unit) - piece.offset;
        let plain = |length| Piece { length, host: None, kind: piece.kind, offset: piece.offset };
        if to_unit > 0 {
            return plain(to_unit.min(piece.length));
        }
        let whole = piece.length - piece.length % unit;
        // The file may end within the last sector of the image.
        let in_file = node.host_file().and_then(|file| file.metadata().ok()).map_or(0, |m| m.len());
        let whole = whole.min(in_file.saturating_sub(at) / unit * unit);
        if whole == 0 {
            return plain(piece.length.min(unit));
        }
        Piece { length: whole, host: Some((node, at)), ..piece }
    }

    fn warn(&self, text: &str) {
        if !self.quiet {
            eprintln!("qemu-img: warning: {text}");
        }
    }

    /// Reads a piece and decides what of it is written how.
    fn prepare(&self, piece: &Piece, buffer: &mut [u8]) -> Result<Vec<Ready>, Failure> {
        if piece.kind != Kind::Data || piece.host.is_some() {
            return Ok(Vec::new());
        }
        let data = &mut buffer[..piece.length as usize];
        self.read(data, piece.offset)?;
        if self.compress {
            return self.pack(data, piece.offset);
        }
        if self.sparse == 0 {
            return Ok(vec![Ready::Plain { start: 0, end: data.len() }]);
        }
        Ok(self.split_zeros(data, piece.offset))
    }

    fn read(&self, data: &mut [u8], offset: u64) -> Result<(), Failure> {
        let Err(error) = self.sources.read(data, offset) else { return Ok(()) };
        if !self.salvage {
            return Err(fail(format!("error while reading at byte {offset}: {}", error.reason())));
        }
        for (number, sector) in data.chunks_mut(SALVAGE_BYTES).enumerate() {
            let at = offset + (number * SALVAGE_BYTES) as u64;
            if let Err(error) = self.sources.read(sector, at) {
                self.warn(&format!("error while reading offset {at}: {}", error.reason()));
                sector.fill(0);
            }
        }
        Ok(())
    }

    fn pack(&self, data: &[u8], offset: u64) -> Result<Vec<Ready>, Failure> {
        let Some(compressing) = self.target.compressing() else { return Ok(Vec::new()) };
        let unit = compressing.unit();
        let mut ready = Vec::with_capacity(data.len() / unit + 1);
        for start in (0..data.len()).step_by(unit) {
            let end = (start + unit).min(data.len());
            if self.sparse > 0 && block::zeros::all_zero(&data[start..end]) {
                ready.push(Ready::Zero { start, end });
                continue;
            }
            let packed = compressing
                .pack(&data[start..end])
                .map_err(|error| write_failed(offset + start as u64, &error))?;
            ready.push(Ready::Packed { start, end, packed });
        }
        Ok(ready)
    }

    /// Runs of data and of zeros, in steps of the sparse size as a power of two.
    fn split_zeros(&self, data: &[u8], offset: u64) -> Vec<Ready> {
        let step = 1usize << self.sparse.ilog2();
        let mut ready: Vec<Ready> = Vec::new();
        let mut start = 0;
        while start < data.len() {
            let to_step = step - (offset as usize + start) % step;
            let end = (start + to_step).min(data.len());
            let zero = block::zeros::all_zero(&data[start..end]);
            match ready.last_mut() {
                Some(Ready::Zero { end: last, .. }) if zero => *last = end,
                Some(Ready::Plain { end: last, .. }) if !zero => *last = end,
                _ if zero => ready.push(Ready::Zero { start, end }),
                _ => ready.push(Ready::Plain { start, end }),
            }
            start = end;
        }
        ready
    }

    fn write(&self, piece: &Piece, ready: &[Ready], buffer: &[u8]) -> Result<(), Failure> {
        self.write_buffered(piece, ready, buffer)?;
        if self.write_through {
            self.target.flush().map_err(|error| write_failed(piece.offset, &error))?;
        }
        Ok(())
    }

    fn write_buffered(&self, piece: &Piece, ready: &[Ready], buffer: &[u8]) -> Result<(), Failure> {
        if let Some((node, at)) = &piece.host {
            return self.clone_range(piece, node, *at);
        }
        if piece.kind == Kind::Zero {
            return self.write_zeros(piece.offset, piece.length);
        }
        for part in ready {
            match part {
                Ready::Plain { start, end } => {
                    let at = piece.offset + *start as u64;
                    self.target
                        .write_at(&buffer[*start..*end], at)
                        .map_err(|error| write_failed(at, &error))?;
                }
                Ready::Zero { start, end } => {
                    self.write_zeros(piece.offset + *start as u64, (end - start) as u64)?;
                }
                Ready::Packed { start, end, packed } => {
                    let at = piece.offset + *start as u64;
                    let Some(compressing) = self.target.compressing() else { continue };
                    compressing
                        .store(at, &buffer[*start..*end], packed)
                        .map_err(|error| write_failed(at, &error))?;
                }
            }
        }
        Ok(())
    }

    /// Lets the kernel copy, and copies where it does not.
    fn clone_range(&self, piece: &Piece, node: &NodeRef, at: u64) -> Result<(), Failure> {
        let Some(file) = node.host_file() else { return Ok(()) };
        let range = HostRange { file, offset: at, length: piece.length };
        match self.target.copy_from(&range, piece.offset) {
            Err(Error::Unsupported { .. }) => {}
            done => return done.map_err(|error| write_failed(piece.offset, &error)),
        }
        let mut buffer = vec![0; PIECE_BYTES as usize];
        let mut done = 0;
        while done < piece.length {
            let length = (piece.length - done).min(PIECE_BYTES) as usize;
            let offset = piece.offset + done;
            self.read(&mut buffer[..length], offset)?;
            self.target
                .write_at(&buffer[..length], offset)
                .map_err(|error| write_failed(offset, &error))?;
            done += length as u64;
        }
        Ok(())
    }

    fn write_zeros(&self, offset: u64, length: u64) -> Result<(), Failure> {
        if self.starts_zeroed {
            return Ok(());
        }
        self.target
            .zero_at(offset, length, Zeroing::Keep)
            .map_err(|error| write_failed(offset, &error))
    }
}

fn write_failed(offset: u64, error: &Error) -> Failure {
    fail(format!("error while writing at byte {offset}: {}", error.reason()))
}
