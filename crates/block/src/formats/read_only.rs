//! What formats have in common that are only read: pieces that lie in the file, packed or plain.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::error::{Error, Result};
use crate::info::ImageInfo;
use crate::node::{Extent, Node, NodeRef};
use crate::open::OpenMode;

/// What a format knows about the bytes that begin at an offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Zeros.
    Zero,
    /// The backing file has them, or there are zeros.
    Below,
    /// They lie here.
    At(u64),
    /// They are in the packed piece of this number, from this place on.
    Packed(usize, usize),
}

/// The tables of a format.
pub trait Pieces: Send + Sync {
    /// The driver's name.
    const DRIVER: &'static str;
    /// The bytes that a guest sees.
    fn size(&self) -> u64;
    /// What begins at an offset, and for how many bytes that holds (at least one).
    fn find(&self, file: &dyn Node, offset: u64) -> Result<(Kind, u64)>;
    /// The contents of a packed piece.
    fn unpack(&self, file: &dyn Node, number: usize) -> Result<Vec<u8>> {
        _ = (file, number);
        Err(Error::corrupt("There is no packed piece"))
    }
    /// The unit of allocation, if there is one.
    fn cluster_bytes(&self) -> Option<u64> {
        None
    }
    /// What the image says about itself.
    fn info(&self) -> ImageInfo {
        ImageInfo::default()
    }
}

/// An image of such a format.
pub struct ReadOnly<P: Pieces> {
    file: NodeRef,
    pieces: P,
    backing: RwLock<Option<NodeRef>>,
    /// The packed piece that was read last.
    unpacked: Mutex<Option<(usize, Arc<Vec<u8>>)>>,
}

/// Refuses to open for writing what can only be read.
pub fn must_be_read_only(mode: &OpenMode) -> Result<()> {
    if mode.write && !mode.auto_read_only {
        return Err(Error::Os(rustix::io::Errno::ACCESS).during_text("Image is read-only".into()));
    }
    Ok(())
}

impl<P: Pieces> ReadOnly<P> {
    /// An image whose tables were read.
    pub fn new(file: NodeRef, pieces: P) -> Self {
        Self { file, pieces, backing: RwLock::new(None), unpacked: Mutex::new(None) }
    }

    fn packed(&self, number: usize) -> Result<Arc<Vec<u8>>> {
        let mut last = self.unpacked.lock();
        if let Some((at, bytes)) = &*last
            && *at == number
        {
            return Ok(Arc::clone(bytes));
        }
        let bytes = Arc::new(self.pieces.unpack(&*self.file, number)?);
        *last = Some((number, Arc::clone(&bytes)));
        Ok(bytes)
    }

    fn read_below(&self, piece: &mut [u8], offset: u64) -> Result<()> {
        let backing = self.backing.read().clone();
        let there = backing.as_ref().map_or(0, |backing| backing.size().saturating_sub(offset));
        let (inside, outside) = piece.split_at_mut(there.min(piece.len() as u64) as usize);
        outside.fill(0);
        match backing {
            Some(backing) if !inside.is_empty() => backing.read_at(inside, offset),
            _ => Ok(()),
        }
    }
}

impl<P: Pieces> Node for ReadOnly<P> {
    fn driver(&self) -> &'static str {
        P::DRIVER
    }

    fn filename(&self) -> String {
        self.file.filename()
    }

    fn size(&self) -> u64 {
        self.pieces.size()
    }

    fn writable(&self) -> bool {
        false
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            if at >= self.size() {
                buffer[done..].fill(0);
                break;
            }
            let (kind, length) = self.pieces.find(&*self.file, at)?;
            let length = length.max(1).min((buffer.len() - done) as u64) as usize;
            let piece = &mut buffer[done..done + length];
            match kind {
                Kind::Zero => piece.fill(0),
                Kind::Below => self.read_below(piece, at)?,
                Kind::At(place) => self.file.read_at(piece, place)?,
                Kind::Packed(number, skip) => {
                    let bytes = self.packed(number)?;
                    let bytes = bytes.get(skip..skip + length);
                    piece.copy_from_slice(bytes.ok_or_else(|| {
                        Error::corrupt(format!("Packed piece {number} is too short"))
                    })?);
                }
            }
            done += length;
        }
        Ok(())
    }

    fn write_at(&self, _data: &[u8], _offset: u64) -> Result<()> {
        Err(rustix::io::Errno::BADF.into())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn status(&self, offset: u64, length: u64) -> Result<Extent> {
        let (kind, run) = self.pieces.find(&*self.file, offset)?;
        let host = if let Kind::At(place) = kind { Some(place) } else { None };
        Ok(Extent {
            length: run.clamp(1, length.max(1)),
            data: matches!(kind, Kind::At(_) | Kind::Packed(..)),
            zero: kind == Kind::Zero,
            allocated: kind != Kind::Below,
            compressed: matches!(kind, Kind::Packed(..)),
            host,
            ..Extent::default()
        })
    }

    fn file(&self) -> Option<NodeRef> {
        Some(self.file.clone())
    }

    fn backing(&self) -> Option<NodeRef> {
        self.backing.read().clone()
    }

    fn set_backing(&self, backing: Option<NodeRef>) -> Result<()> {
        *self.backing.write() = backing;
        Ok(())
    }

    fn cluster_bytes(&self) -> Option<u64> {
        self.pieces.cluster_bytes()
    }

    fn starts_zeroed(&self) -> bool {
        true
    }

    fn info(&self) -> Result<ImageInfo> {
        Ok(self.pieces.info())
    }
}

/// The word at a place, low byte first.
pub fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The double word at a place, low byte first.
pub fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

/// The word at a place, high byte first.
pub fn be32(bytes: &[u8], at: usize) -> u32 {
    le32(bytes, at).swap_bytes()
}

/// The double word at a place, high byte first.
pub fn be64(bytes: &[u8], at: usize) -> u64 {
    le64(bytes, at).swap_bytes()
}

/// Reads a table whose length an image claims: not beyond the end of the file.
pub fn read_table(file: &dyn Node, offset: u64, bytes: u64, what: &str) -> Result<Vec<u8>> {
    let end = offset.checked_add(bytes);
    if end.is_none_or(|end| end > file.size().next_multiple_of(4096)) {
        return Err(Error::corrupt(format!(
            "{what} at offset {offset:#x} reaches beyond the end of the file"
        )));
    }
    let mut table = vec![0; bytes as usize];
    file.read_at(&mut table, offset)?;
    Ok(table)
}

/// Unpacks a zlib stream to exactly these bytes.
pub fn inflate(packed: &[u8], bytes: usize) -> Result<Vec<u8>> {
    let mut out = vec![0; bytes];
    let mut stream = flate2::Decompress::new(true);
    let status = stream.decompress(packed, &mut out, flate2::FlushDecompress::Finish);
    if status.is_err() || stream.total_out() != bytes as u64 {
        return Err(Error::corrupt("A compressed piece is damaged"));
    }
    Ok(out)
}
