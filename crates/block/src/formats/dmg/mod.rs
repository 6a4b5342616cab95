//! `dmg`: disk images of macOS. They are read, not written; pieces packed with zlib or not at all.
//!
//! `-blockdev driver=dmg,read-only=on,file.driver=file,file.filename=disk.dmg`

use std::sync::Arc;

use super::Format;
use super::read_only::{
    Kind, Pieces, ReadOnly, be32, be64, inflate, must_be_read_only, read_table,
};
use crate::error::{Error, Result};
use crate::node::{Node, NodeRef};
use crate::open::{OpenContext, OpenMode};
use crate::options::OpenOptions;
use crate::secrets::from_base64;

/// The table row.
pub const FORMAT: Format = Format {
    name: "dmg",
    probe: |_, name| if name.ends_with(".dmg") { 2 } else { 0 },
    open,
    create: None,
    create_options: &[],
    amend_options: &[],
    backing: false,
    measure: None,
};

const TRAILER_BYTES: u64 = 512;
const TRAILER_MAGIC: &[u8] = b"koly";
const TABLE_MAGIC: &[u8] = b"mish";
const SECTOR: u64 = 512;
const XML_BYTES_MAX: u64 = 16 << 20;
/// A packed or unpacked piece is no larger than this.
const PIECE_BYTES_MAX: u64 = 64 << 20;
/// More pieces than this are no disk.
const PIECES_MAX: usize = 1 << 20;

// Kinds of pieces.
const ZERO: u32 = 0;
const PLAIN: u32 = 1;
const IGNORED: u32 = 2;
const ADC: u32 = 0x8000_0004;
const ZLIB: u32 = 0x8000_0005;
const BZIP2: u32 = 0x8000_0006;
const LZFSE: u32 = 0x8000_0007;

struct Piece {
    kind: u32,
    start: u64,
    bytes: u64,
    place: u64,
    packed_bytes: u64,
}

struct Dmg {
    size: u64,
    /// In order of their starts.
    pieces: Vec<Piece>,
}

fn open(
    file: NodeRef,
    _options: &mut OpenOptions,
    mode: &OpenMode,
    _context: &OpenContext,
) -> Result<NodeRef> {
    must_be_read_only(mode)?;
    let trailer = find_trailer(&*file)?;
    let base = be64(&trailer, 0x18);
    let (xml_at, xml_bytes) = (be64(&trailer, 0xd8), be64(&trailer, 0xe0));
    if xml_bytes == 0 {
        return Err(Error::unsupported("Disk images without a property list are not supported"));
    }
    if xml_bytes > XML_BYTES_MAX {
        return Err(Error::corrupt(format!("The property list's {xml_bytes} bytes are too many")));
    }
    let xml = read_table(&*file, xml_at, xml_bytes, "The property list")?;
    let xml = String::from_utf8_lossy(&xml);
    let mut pieces = Vec::new();
    for table in tables(&xml)? {
        read_pieces(&table, base, &mut pieces)?;
    }
    pieces.sort_by_key(|piece| piece.start);
    let size = pieces.iter().map(|piece| piece.start + piece.bytes).max().unwrap_or(0);
    Ok(Arc::new(ReadOnly::new(file, Dmg { size, pieces })))
}

/// The trailer stands at the end; padding may follow.
fn find_trailer(file: &dyn Node) -> Result<Vec<u8>> {
    let missing = || Error::invalid("Could not locate UDIF trailer in dmg file");
    let size = file.size();
    let window = size.min(2 * TRAILER_BYTES);
    let mut end = vec![0; window as usize];
    file.read_at(&mut end, size - window)?;
    let at = end.windows(4).rposition(|bytes| bytes == TRAILER_MAGIC).ok_or_else(missing)?;
    read_table(file, size - window + at as u64, TRAILER_BYTES, "The trailer").map_err(|_| missing())
}

/// The block tables of a property list: what stands in base 64 behind the key `blkx`.
fn tables(xml: &str) -> Result<Vec<Vec<u8>>> {
    let start = xml.find("<key>blkx</key>");
    let start = start.ok_or_else(|| Error::corrupt("The property list has no block tables"))?;
    let list = &xml[start..];
    let list = &list[..list.find("</array>").unwrap_or(list.len())];
    let mut tables = Vec::new();
    for part in list.split("<data>").skip(1) {
        let text = part.split("</data>").next().unwrap_or_default();
        tables.push(from_base64(text.as_bytes())?);
    }
    Ok(tables)
}

fn read_pieces(table: &[u8], base: u64, pieces: &mut Vec<Piece>) -> Result<()> {
    if table.len() < 204 || !table.starts_with(TABLE_MAGIC) {
        return Ok(()); // other resources stand there, too
    }
    let bad = |what: &str| Error::corrupt(format!("A piece's {what} is out of range"));
    let first = be64(table, 8);
    let own = be64(table, 0x18);
    for row in table[204..].chunks_exact(40).take(be32(table, 200) as usize) {
        let kind = be32(row, 0);
        let is_data = [ZERO, PLAIN, IGNORED, ADC, ZLIB, BZIP2, LZFSE].contains(&kind);
        if !is_data {
            continue; // a comment or the end
        }
        let name = match kind {
            ADC => Some("ADC"),
            BZIP2 => Some("bzip2"),
            LZFSE => Some("LZFSE"),
            _ => None,
        };
        if let Some(name) = name {
            return Err(Error::unsupported(format!("Pieces packed with {name} are not supported")));
        }
        let sector = be64(row, 8).checked_add(first).ok_or_else(|| bad("sector"))?;
        let start = sector.checked_mul(SECTOR).ok_or_else(|| bad("sector"))?;
        let bytes = be64(row, 16).checked_mul(SECTOR).ok_or_else(|| bad("length"))?;
        let place = be64(row, 24).checked_add(own).and_then(|place| place.checked_add(base));
        let packed_bytes = be64(row, 32);
        let packed = kind == ZLIB;
        if packed && (bytes > PIECE_BYTES_MAX || packed_bytes > PIECE_BYTES_MAX) {
            return Err(bad("length"));
        }
        if start.checked_add(bytes).is_none_or(|end| end > i64::MAX as u64)
            || pieces.len() >= PIECES_MAX
        {
            return Err(bad("length"));
        }
        if bytes > 0 {
            let place = place.ok_or_else(|| bad("offset"))?;
            pieces.push(Piece { kind, start, bytes, place, packed_bytes });
        }
    }
    Ok(())
}

impl Pieces for Dmg {
    const DRIVER: &'static str = "dmg";

    fn size(&self) -> u64 {
        self.size
    }

    fn find(&self, _file: &dyn Node, offset: u64) -> Result<(Kind, u64)> {
        let next = self.pieces.partition_point(|piece| piece.start <= offset);
        let gap_end = self.pieces.get(next).map_or(self.size, |piece| piece.start);
        let Some(piece) = next.checked_sub(1).map(|number| &self.pieces[number]) else {
            return Ok((Kind::Zero, gap_end - offset));
        };
        let within = offset - piece.start;
        if within >= piece.bytes {
            return Ok((Kind::Zero, gap_end - offset));
        }
        let kind = match piece.kind {
            PLAIN => Kind::At(piece.place + within),
            ZLIB => Kind::Packed(next - 1, within as usize),
            _ => Kind::Zero,
        };
        Ok((kind, piece.bytes - within))
    }

    fn unpack(&self, file: &dyn Node, number: usize) -> Result<Vec<u8>> {
        let piece = &self.pieces[number];
        let packed = read_table(file, piece.place, piece.packed_bytes, "A piece")?;
        inflate(&packed, piece.bytes as usize)
    }
}
