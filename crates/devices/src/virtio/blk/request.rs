//! One request: header, data, status.

use std::sync::atomic::Ordering;

use block::{Error, Zeroing};
use device::DeviceEvent;
use rustix::io::Errno;

use super::spec::{self, SECTOR_BYTES};
use super::{BlkConfig, Disk, ErrorPolicy};
use crate::virtio::Chain;

/// Data moves in pieces of this size, so that a request of any size takes little memory.
const PIECE_BYTES: usize = 512 << 10;

/// What is to become of a request.
pub(super) enum Outcome {
    /// It goes back to the driver with so many bytes written.
    Done(u64),
    /// It is no request at all: the driver is broken.
    Nonsense,
    /// The machine stops, and it is tried again later.
    Held,
}

/// Why a request fails.
enum Failure {
    /// What the driver wants makes no sense here; no policy helps.
    Refused(u8),
    /// The image fails.
    Image(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Image(error)
    }
}

const REFUSED: Failure = Failure::Refused(spec::S_IOERR);

impl Disk {
    /// Serves a request. `buffer` is the calling thread's, kept from request to request.
    pub(super) fn serve(&self, chain: &Chain, buffer: &mut Vec<u8>) -> Outcome {
        let mut reader = chain.reader();
        let Some(header) = reader.array::<{ spec::HEADER_BYTES }>() else {
            return Outcome::Nonsense;
        };
        let header = u128::from_le_bytes(header);
        let (kind, sector) = (header as u32, (header >> 64) as u64);
        // The last byte is the status.
        let Some(room) = chain.writable_bytes().checked_sub(1) else { return Outcome::Nonsense };
        let result = match kind {
            spec::T_IN => self.read(chain, sector, room, buffer),
            spec::T_OUT => self.write(chain, sector, buffer),
            spec::T_FLUSH => self.config.node.flush().map_err(Failure::from),
            spec::T_GET_ID => {
                self.identify(chain, room);
                Ok(())
            }
            spec::T_DISCARD | spec::T_WRITE_ZEROES => self.ranges(chain, kind),
            _ => Err(Failure::Refused(spec::S_UNSUPP)),
        };
        let status = match result {
            Ok(()) => spec::S_OK,
            Err(Failure::Refused(status)) => status,
            Err(Failure::Image(error)) => match self.judge(kind, &error) {
                ErrorPolicy::Ignore => spec::S_OK,
                ErrorPolicy::Report => spec::S_IOERR,
                ErrorPolicy::Stop | ErrorPolicy::StopWhenFull => return Outcome::Held,
            },
        };
        chain.writer_at_end(1).write(&[status]);
        Outcome::Done(if matches!(kind, spec::T_IN | spec::T_GET_ID) { room + 1 } else { 1 })
    }

    /// What the policy makes of a failure of the image: report, ignore or stop.
    fn judge(&self, kind: u32, error: &Error) -> ErrorPolicy {
        let write = kind != spec::T_IN;
        let no_space = error.errno() == Errno::NOSPC;
        let policy = if write { self.config.on_write_error } else { self.config.on_read_error };
        let policy = match policy {
            ErrorPolicy::StopWhenFull if no_space => ErrorPolicy::Stop,
            ErrorPolicy::StopWhenFull => ErrorPolicy::Report,
            other => other,
        };
        let stops = policy == ErrorPolicy::Stop;
        let event = DeviceEvent::IoError { write, no_space, stops, reason: error.reason() };
        self.config.events.event(&self.config.id, event);
        policy
    }

    /// Where a request begins in the image, if all of it lies there and is whole blocks.
    fn place(&self, sector: u64, bytes: u64) -> Result<u64, Failure> {
        let block = u64::from(self.config.logical_block_bytes).max(SECTOR_BYTES);
        let start = sector.checked_mul(SECTOR_BYTES).ok_or(REFUSED)?;
        let end = start.checked_add(bytes).ok_or(REFUSED)?;
        let inside = end <= self.sectors() * SECTOR_BYTES;
        if inside && start.is_multiple_of(block) && bytes.is_multiple_of(block) {
            Ok(start)
        } else {
            Err(REFUSED)
        }
    }

    fn read(
        &self,
        chain: &Chain,
        sector: u64,
        bytes: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let start = self.place(sector, bytes)?;
        let mut writer = chain.writer();
        let mut done = 0;
        while done < bytes {
            let piece = piece(buffer, bytes - done);
            self.config.node.read_at(piece, start + done)?;
            writer.write(piece);
            done += piece.len() as u64;
        }
        Ok(())
    }

    fn write(&self, chain: &Chain, sector: u64, buffer: &mut Vec<u8>) -> Result<(), Failure> {
        let mut reader = chain.reader();
        reader.skip(spec::HEADER_BYTES as u64);
        let bytes = reader.left();
        let start = self.place(sector, bytes)?;
        if self.config.read_only {
            return Err(REFUSED);
        }
        let mut done = 0;
        while done < bytes {
            let piece = piece(buffer, bytes - done);
            reader.read(piece);
            self.config.node.write_at(piece, start + done)?;
            done += piece.len() as u64;
        }
        self.through()
    }

    /// Without a cache a change is answered when it has reached the medium.
    fn through(&self) -> Result<(), Failure> {
        if self.write_through.load(Ordering::Relaxed) {
            self.config.node.flush()?;
        }
        Ok(())
    }

    fn identify(&self, chain: &Chain, room: u64) {
        let mut serial = [0; spec::ID_BYTES];
        let text = self.config.serial.as_bytes();
        let length = text.len().min(spec::ID_BYTES);
        serial[..length].copy_from_slice(&text[..length]);
        let bytes = room.min(spec::ID_BYTES as u64);
        chain.writer().write(&serial[..bytes as usize]);
    }

    fn ranges(&self, chain: &Chain, kind: u32) -> Result<(), Failure> {
        let discards = kind == spec::T_DISCARD;
        let BlkConfig { read_only, discard, write_zeroes, .. } = &self.config;
        if *read_only || !(if discards { *discard } else { *write_zeroes }) {
            return Err(Failure::Refused(spec::S_UNSUPP));
        }
        let mut reader = chain.reader();
        reader.skip(spec::HEADER_BYTES as u64);
        let count = reader.left() / spec::RANGE_BYTES as u64;
        let whole = reader.left().is_multiple_of(spec::RANGE_BYTES as u64);
        if !whole || !(1..=spec::RANGES_MAX as u64).contains(&count) {
            return Err(REFUSED);
        }
        while let Some(range) = reader.array::<{ spec::RANGE_BYTES }>() {
            let range = u128::from_le_bytes(range);
            let (sector, sectors) = (range as u64, (range >> 64) as u32);
            let flags = (range >> 96) as u32;
            let known = if discards { 0 } else { spec::RANGE_UNMAP };
            if flags & !known != 0 {
                return Err(Failure::Refused(spec::S_UNSUPP));
            }
            if sectors > spec::RANGE_SECTORS_MAX {
                return Err(REFUSED);
            }
            let bytes = u64::from(sectors) * SECTOR_BYTES;
            let start = self.place(sector, bytes)?;
            if discards {
                self.config.node.discard_at(start, bytes)?;
            } else {
                let unmap = flags & spec::RANGE_UNMAP != 0;
                let zeroing = if unmap { Zeroing::Unmap } else { Zeroing::Keep };
                self.config.node.zero_at(start, bytes, zeroing)?;
            }
        }
        self.through()
    }
}

/// The next piece of so many bytes, in the thread's buffer.
fn piece(buffer: &mut Vec<u8>, left: u64) -> &mut [u8] {
    let bytes = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
    &mut buffer[..bytes]
}
