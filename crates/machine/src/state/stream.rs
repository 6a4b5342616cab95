//! The stream of a machine's state: a magic number, a version, then frames.
//!
//! A frame is its kind, the length of what it holds, a checksum of both and of that, and that. It is
//! read piece by piece, so that a length that lies costs nothing.

use std::io::{self, Read, Write};

use super::StreamError;

/// What every stream begins with.
pub const MAGIC: [u8; 8] = *b"HostelVM";
/// The layout of frames and pages. Sections have versions of their own.
const VERSION: u32 = 1;
/// The largest frame: a graphics card's pictures are the largest sections.
const FRAME_BYTES_MAX: usize = 1 << 30;
/// What is read at once.
const PIECE_BYTES: usize = 1 << 20;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What the machine is made of: comes first.
    Machine,
    /// Pages of memory.
    Pages,
    /// A device's state.
    Section,
    /// Nothing: the state is complete.
    End,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Machine, Self::Pages, Self::Section, Self::End];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// A checksum: quick, and no protection against those who mean harm.
fn checksum(kind: u8, bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| (sum.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    let sum =
        words.iter().fold(bytes.len() as u64, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    let sum = rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)));
    mix(sum, u64::from(kind))
}

/// Writes frames.
pub struct Writer<'a> {
    into: &'a mut dyn Write,
    /// Bytes so far.
    pub written: u64,
}

impl<'a> Writer<'a> {
    /// Begins a stream.
    pub fn new(into: &'a mut dyn Write) -> io::Result<Self> {
        into.write_all(&MAGIC)?;
        into.write_all(&VERSION.to_le_bytes())?;
        Ok(Self { into, written: 12 })
    }

    /// Writes a frame.
    pub fn frame(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a device's state is too long",
            ));
        }
        let mut head = [0; 13];
        head[0] = kind as u8;
        head[1..5].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        head[5..].copy_from_slice(&checksum(kind as u8, bytes).to_le_bytes());
        self.into.write_all(&head)?;
        self.into.write_all(bytes)?;
        self.written += (head.len() + bytes.len()) as u64;
        Ok(())
    }

    /// Ends the stream.
    pub fn end(mut self) -> io::Result<u64> {
        self.frame(Kind::End, &[])?;
        self.into.flush()?;
        Ok(self.written)
    }
}

/// Reads frames.
pub struct Reader<'a> {
    from: &'a mut dyn Read,
}

impl<'a> Reader<'a> {
    /// Reads the beginning of a stream.
    pub fn new(from: &'a mut dyn Read) -> Result<Self, StreamError> {
        let mut head = [0; 12];
        read(from, &mut head)?;
        let magic = [head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7]];
        if magic != MAGIC {
            return Err(StreamError::Foreign { head: magic });
        }
        let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        match version {
            VERSION => Ok(Self { from }),
            _ => Err(StreamError::Version { version }),
        }
    }

    /// Reads a frame.
    pub fn frame(&mut self) -> Result<(Kind, Vec<u8>), StreamError> {
        let mut head = [0; 13];
        read(self.from, &mut head)?;
        let kind = Kind::from_number(head[0]).ok_or(StreamError::Damaged)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(StreamError::Damaged);
        }
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let at = bytes.len();
            bytes.resize(length.min(at + PIECE_BYTES), 0);
            read(self.from, &mut bytes[at..])?;
        }
        if head[5..] != checksum(head[0], &bytes).to_le_bytes() {
            return Err(StreamError::Damaged);
        }
        Ok((kind, bytes))
    }
}

fn read(from: &mut dyn Read, into: &mut [u8]) -> Result<(), StreamError> {
    from.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => StreamError::CutOff,
        _ => StreamError::Read(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes).unwrap();
        writer.frame(Kind::Section, b"0123456789").unwrap();
        assert_eq!(writer.end().unwrap() as usize, bytes.len());
        bytes
    }

    fn frames(mut bytes: &[u8]) -> Result<Vec<(Kind, Vec<u8>)>, StreamError> {
        let mut reader = Reader::new(&mut bytes)?;
        Ok(vec![reader.frame()?, reader.frame()?])
    }

    #[test]
    fn frames_come_back_and_every_changed_byte_is_seen() {
        let bytes = stream();
        let expected = vec![(Kind::Section, b"0123456789".to_vec()), (Kind::End, Vec::new())];
        assert_eq!(frames(&bytes).unwrap(), expected);
        for at in 0..bytes.len() {
            assert!(frames(&bytes[..at]).is_err(), "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            assert!(frames(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn streams_of_others_are_told_apart() {
        let error = |bytes: &[u8]| frames(bytes).unwrap_err().to_string();
        let foreign = frames(b"otherone____").unwrap_err();
        assert!(matches!(foreign, StreamError::Foreign { head } if head == *b"otherone"));
        let mut newer = stream();
        newer[8] = 9;
        assert!(error(&newer).contains("version 9"));
        let mut lies = stream();
        lies[13..17].copy_from_slice(&(FRAME_BYTES_MAX as u32).to_le_bytes());
        assert_eq!(error(&lies), StreamError::CutOff.to_string());
    }
}
