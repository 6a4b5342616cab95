//! The headers, of which the newer counts, and the table of regions.

use super::super::blocks::unique_id;
use super::super::read_only::{le32, le64, read_table};
use crate::error::{Error, Result};
use crate::node::Node;

pub const SIGNATURE: &[u8; 8] = b"vhdxfile";
pub const HEADER_PLACES: [u64; 2] = [64 << 10, 128 << 10];
pub const REGION_PLACES: [u64; 2] = [192 << 10, 256 << 10];
pub const HEADER_BYTES: usize = 4096;
pub const REGION_BYTES: usize = 64 << 10;
const REGIONS_MAX: usize = 2047;
const CRC_AT: usize = 4;

/// An identifier in the file's byte order.
pub type Guid = [u8; 16];

/// An identifier from its usual spelling.
pub const fn guid(a: u32, b: u16, c: u16, rest: u64) -> Guid {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), rest.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

pub const BAT: Guid = guid(0x2dc2_7766, 0xf623, 0x4200, 0x9d64_115e_9bfd_4a08);
pub const METADATA: Guid = guid(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e);

/// CRC-32C of bytes whose own field counts as zero.
pub fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for (at, byte) in bytes.iter().enumerate() {
        let byte = if (CRC_AT..CRC_AT + 4).contains(&at) { 0 } else { *byte };
        crc = CRC_TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    }
    !crc
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut number = 0;
    while number < 256 {
        let mut crc = number as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        table[number] = crc;
        number += 1;
    }
    table
};

/// Puts a checksum into its field.
pub fn seal(bytes: &mut [u8]) {
    let crc = checksum(bytes);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}

/// The current header.
pub struct Headers {
    bytes: Vec<u8>,
    /// Which of the two places has it.
    current: usize,
}

impl Headers {
    pub fn read(file: &dyn Node) -> Result<Self> {
        let mut best: Option<Self> = None;
        for (current, place) in HEADER_PLACES.into_iter().enumerate() {
            let mut bytes = vec![0; HEADER_BYTES];
            file.read_at(&mut bytes, place)?;
            let valid = bytes.starts_with(b"head")
                && le32(&bytes, CRC_AT) == checksum(&bytes)
                && bytes[66..68] == [1, 0];
            let found = Self { bytes, current };
            if valid && best.as_ref().is_none_or(|best| found.sequence() > best.sequence()) {
                best = Some(found);
            }
        }
        best.ok_or_else(|| Error::corrupt("No valid VHDX header found"))
    }

    fn sequence(&self) -> u64 {
        le64(&self.bytes, 8)
    }

    pub fn log_guid(&self) -> Guid {
        self.bytes[48..64].try_into().expect("16 bytes")
    }

    pub fn has_log(&self) -> bool {
        self.log_guid() != [0; 16]
    }

    /// The log's place and bytes.
    pub fn log(&self) -> (u64, u64) {
        (le64(&self.bytes, 72), u64::from(le32(&self.bytes, 68)))
    }

    /// Both places get the header, the older one first.
    fn write(&mut self, file: &dyn Node) -> Result<()> {
        for _ in HEADER_PLACES {
            self.current = 1 - self.current;
            let sequence = self.sequence() + 1;
            self.bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
            seal(&mut self.bytes);
            file.write_at(&self.bytes, HEADER_PLACES[self.current])?;
            file.flush()?;
        }
        Ok(())
    }

    /// The log has been replayed.
    pub fn clear_log(&mut self, file: &dyn Node) -> Result<()> {
        self.bytes[48..64].fill(0);
        self.write(file)
    }

    /// Contents are about to change.
    pub fn mark_written(&mut self, file: &dyn Node) -> Result<()> {
        self.bytes[16..32].copy_from_slice(&unique_id());
        self.bytes[32..48].copy_from_slice(&unique_id());
        self.write(file)
    }
}

/// A header of a new image.
pub fn new_header(sequence: u64, log: (u64, u64)) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..4].copy_from_slice(b"head");
    bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
    bytes[16..32].copy_from_slice(&unique_id());
    bytes[32..48].copy_from_slice(&unique_id());
    bytes[66] = 1;
    bytes[68..72].copy_from_slice(&(log.1 as u32).to_le_bytes());
    bytes[72..80].copy_from_slice(&log.0.to_le_bytes());
    seal(&mut bytes);
    bytes
}

/// The table of regions.
pub struct Regions(Vec<(Guid, u64, u64)>);

impl Regions {
    pub fn read(file: &dyn Node) -> Result<Self> {
        for place in REGION_PLACES {
            let bytes = read_table(file, place, REGION_BYTES as u64, "The region table")?;
            if bytes.starts_with(b"regi") && le32(&bytes, CRC_AT) == checksum(&bytes) {
                return Self::parse(&bytes);
            }
        }
        Err(Error::corrupt("No valid VHDX region table found"))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let count = le32(bytes, 8) as usize;
        if count > REGIONS_MAX {
            return Err(Error::corrupt(format!("The region table has {count} entries")));
        }
        let mut regions: Vec<(Guid, u64, u64)> = Vec::new();
        for entry in bytes[16..].chunks_exact(32).take(count) {
            let name: Guid = entry[..16].try_into().expect("16 bytes");
            let (offset, length) = (le64(entry, 16), u64::from(le32(entry, 24)));
            let end = offset.checked_add(length);
            let overlaps = |other: &(Guid, u64, u64)| {
                offset < other.1 + other.2 && end.is_none_or(|end| other.1 < end)
            };
            if offset < 1 << 20 || end.is_none() || regions.iter().any(overlaps) {
                return Err(Error::corrupt(format!("The region at offset {offset:#x} is invalid")));
            }
            if name != BAT && name != METADATA && le32(entry, 28) & 1 != 0 {
                return Err(Error::unsupported(
                    "The image has a required region that is not known",
                ));
            }
            regions.push((name, offset, length));
        }
        Ok(Self(regions))
    }

    /// A region's place and bytes.
    pub fn find(&self, name: &Guid) -> Result<(u64, u64)> {
        let found = self.0.iter().find(|(own, _, _)| own == name);
        let found = found.ok_or_else(|| Error::corrupt("The image lacks a required region"))?;
        Ok((found.1, found.2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_standards() {
        // RFC 3720, 32 bytes of 0xff; our own field counts as zero, so the sample avoids it.
        let mut bytes = vec![0; 32];
        assert_eq!(checksum(&bytes), 0x8a91_36aa);
        bytes[CRC_AT] = 9;
        assert_eq!(checksum(&bytes), 0x8a91_36aa);
    }
}
