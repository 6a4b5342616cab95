//! The PVH entry: an ELF kernel that says in a note where it starts in 32-bit code, with a pointer
//! to a page of parameters in EBX. Documentation: Xen, docs/misc/pvh and hvm/start_info.h.

use device::Blob;
use memory::FlatView;

use super::linux::{
    BootError, COMMAND_LINE_ADDRESS, DESCRIPTORS_ADDRESS, HIGH_START, KERNEL, PARAMETERS_ADDRESS,
    PIECE, Placed, RAM_DISK, load, memory_map, place_descriptors,
};
use crate::acpi;

const MAGIC: &[u8; 4] = b"\x7fELF";
const PROGRAM: u32 = 1;
const NOTE: u32 = 4;
const ENTRY_NOTE: u32 = 18;
const OWNER: &[u8] = b"Xen\0";
/// More segments or longer notes has no kernel.
const HEADERS_MAX: u16 = 64;
const NOTES_BYTES_MAX: u64 = 1 << 20;

const START_MAGIC: u32 = 0x336e_c578;
const MODULES: u64 = PARAMETERS_ADDRESS + 0x100;
const MAP: u64 = PARAMETERS_ADDRESS + 0x200;

/// Whether it is an ELF file.
pub fn is_elf(image: &Blob) -> bool {
    let mut magic = [0; 4];
    matches!(image.read(0, &mut magic), Ok(4)) && &magic == MAGIC
}

fn bad(what: &'static str) -> BootError {
    BootError::NotAKernel { what }
}

/// A segment of the file.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: u32,
    offset: u64,
    physical: u64,
    file_bytes: u64,
    bytes: u64,
    alignment: u64,
}

/// An ELF file for x86, of either width.
struct Elf<'a> {
    image: &'a Blob,
    headers: Vec<Header>,
}

fn read(image: &Blob, offset: u64, bytes: usize) -> Result<Vec<u8>, BootError> {
    let mut contents = vec![0; bytes];
    match image.read(offset, &mut contents) {
        Ok(count) if count == bytes => Ok(contents),
        Ok(_) => Err(bad("it is too short")),
        Err(error) => Err(BootError::Unreadable { what: KERNEL, error }),
    }
}

/// A little-endian number of so many bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl<'a> Elf<'a> {
    fn new(image: &'a Blob) -> Result<Self, BootError> {
        let head = read(image, 0, 64)?;
        let wide = match (head[4], head[5]) {
            (1, 1) => false,
            (2, 1) => true,
            _ => return Err(bad("it is an ELF file of another kind of machine")),
        };
        if !matches!(number(&head, 18, 2), 3 | 62) {
            return Err(bad("it is an ELF file of another kind of machine"));
        }
        let (table, entry, count) = match wide {
            true => (number(&head, 32, 8), number(&head, 54, 2), number(&head, 56, 2)),
            false => (number(&head, 28, 4), number(&head, 42, 2), number(&head, 44, 2)),
        };
        let (entry, count) = (entry as usize, count as u16);
        if count > HEADERS_MAX || entry < if wide { 56 } else { 32 } {
            return Err(bad("its ELF headers make no sense"));
        }
        let bytes = read(image, table, entry * usize::from(count))?;
        let header = |bytes: &[u8]| match wide {
            true => Header {
                kind: number(bytes, 0, 4) as u32,
                offset: number(bytes, 8, 8),
                physical: number(bytes, 24, 8),
                file_bytes: number(bytes, 32, 8),
                bytes: number(bytes, 40, 8),
                alignment: number(bytes, 48, 8),
            },
            false => Header {
                kind: number(bytes, 0, 4) as u32,
                offset: number(bytes, 4, 4),
                physical: number(bytes, 12, 4),
                file_bytes: number(bytes, 16, 4),
                bytes: number(bytes, 20, 4),
                alignment: number(bytes, 28, 4),
            },
        };
        Ok(Self { image, headers: bytes.chunks_exact(entry).map(header).collect() })
    }

    /// Where the kernel starts.
    fn entry(&self) -> Result<u64, BootError> {
        for header in self.headers.iter().filter(|header| header.kind == NOTE) {
            if header.file_bytes > NOTES_BYTES_MAX {
                continue;
            }
            let notes = read(self.image, header.offset, header.file_bytes as usize)?;
            if let Some(entry) = entry_in(&notes, if header.alignment == 8 { 8 } else { 4 }) {
                return Ok(entry);
            }
        }
        Err(bad("it has no PVH entry"))
    }

    /// Puts the segments into memory: the end of the last.
    fn load(&self, memory: &FlatView, low_bytes: u64) -> Result<u64, BootError> {
        let mut end = HIGH_START;
        for header in self.headers.iter().filter(|header| header.kind == PROGRAM) {
            let Header { offset, physical, file_bytes, bytes, .. } = *header;
            let last = physical.checked_add(bytes.max(file_bytes));
            let last = last.filter(|last| *last <= low_bytes && physical >= HIGH_START);
            let no_room = BootError::NoRoom { what: KERNEL, bytes, end: low_bytes };
            end = end.max(last.ok_or(no_room)?);
            let mut at = 0;
            while at < file_bytes {
                let now = (file_bytes - at).min(PIECE as u64);
                memory.write(physical + at, &read(self.image, offset + at, now as usize)?);
                at += now;
            }
            let zeros = [0; 4096];
            while at < bytes {
                let now = (bytes - at).min(zeros.len() as u64);
                memory.write(physical + at, &zeros[..now as usize]);
                at += now;
            }
        }
        Ok(end)
    }
}

/// The entry that one of the notes tells.
fn entry_in(notes: &[u8], alignment: usize) -> Option<u64> {
    let mut at = 0;
    while let Some(head) = notes.get(at..at + 12) {
        let (name, length) = (number(head, 0, 4) as usize, number(head, 4, 4) as usize);
        let kind = number(head, 8, 4) as u32;
        let value = (at + 12).checked_add(name)?.checked_next_multiple_of(alignment)?;
        let own = notes.get(at + 12..(at + 12).checked_add(name)?)?;
        let bytes = notes.get(value..value.checked_add(length)?)?;
        if own == OWNER && kind == ENTRY_NOTE && matches!(length, 4 | 8) {
            return Some(number(bytes, 0, length));
        }
        at = value.checked_add(length)?.checked_next_multiple_of(alignment)?;
    }
    None
}

/// Puts kernel, RAM disk and parameters into memory.
pub fn place(
    (image, initrd, command_line): (&Blob, &Blob, &str),
    memory: &FlatView,
    (low_bytes, high_bytes): (u64, u64),
) -> Result<Placed, BootError> {
    /// As much as lies before the next thing in low memory.
    const COMMAND_LINE_MAX: u32 = 0x8000;
    if command_line.len() >= COMMAND_LINE_MAX as usize {
        let (bytes, most) = (command_line.len(), COMMAND_LINE_MAX - 1);
        return Err(BootError::CommandLine { bytes, most });
    }
    let elf = Elf::new(image)?;
    let entry = elf.entry()?;
    let end = elf.load(memory, low_bytes)?;
    let mut modules = 0;
    if !initrd.is_empty() {
        let start = low_bytes.checked_sub(initrd.len()).map(|start| start & !0xfff);
        let start = start.filter(|start| *start >= end);
        let no_room = BootError::NoRoom { what: RAM_DISK, bytes: initrd.len(), end: low_bytes };
        let start = start.ok_or(no_room)?;
        load(memory, start, initrd, RAM_DISK)?;
        modules = 1;
        let entry = [start, initrd.len(), 0, 0].map(u64::to_le_bytes).concat();
        memory.write(MODULES, &entry);
    }
    let map = memory_map(low_bytes, high_bytes);
    for (at, (start, bytes, kind)) in (0..).zip(&map) {
        let entry = [*start, *bytes, u64::from(*kind)].map(u64::to_le_bytes).concat();
        memory.write(MAP + 24 * at, &entry);
    }
    memory.write(COMMAND_LINE_ADDRESS, command_line.as_bytes());
    memory.write(COMMAND_LINE_ADDRESS + command_line.len() as u64, &[0]);
    let mut info = Vec::new();
    for word in [START_MAGIC, 1, 0, modules] {
        info.extend(word.to_le_bytes());
    }
    for place in [MODULES, COMMAND_LINE_ADDRESS, acpi::BASE, MAP] {
        info.extend(place.to_le_bytes());
    }
    info.extend((map.len() as u32).to_le_bytes());
    info.extend([0; 4]);
    memory.write(PARAMETERS_ADDRESS, &info);
    place_descriptors(memory);
    Ok(Placed {
        entry,
        parameters: PARAMETERS_ADDRESS,
        page_tables: None,
        descriptors: DESCRIPTORS_ADDRESS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, value.len() as u32, kind] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(name);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_entry_is_found_among_notes() {
        let other = note(b"GNU\0", 3, &[1, 2, 3]);
        let entry = note(b"Xen\0", 18, &0x100_0200_u32.to_le_bytes());
        assert_eq!(entry_in(&[other.clone(), entry].concat(), 4), Some(0x100_0200));
        assert_eq!(entry_in(&other, 4), None);
        let endless = note(b"Xen\0", 18, &[]);
        assert_eq!(entry_in(&endless, 4), None);
        for cut in 0..endless.len() {
            assert_eq!(entry_in(&endless[..cut], 4), None);
        }
        assert_eq!(entry_in(&[0xff; 64], 4), None);
    }

    #[test]
    fn headers_that_make_no_sense_are_refused() {
        let mut seed = 9_u64;
        for _ in 0..2000 {
            let mut bytes = vec![0; 256];
            for byte in &mut bytes {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 56) as u8;
            }
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            bytes[18] = 62;
            bytes[19] = 0;
            bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
            bytes[54..58].copy_from_slice(&[56, 0, 3, 0]);
            let image = Blob::from(bytes);
            if let Ok(elf) = Elf::new(&image) {
                assert!(elf.entry().is_err());
                assert!(
                    elf.load(&FlatView::default(), 1 << 20).is_err()
                        || elf.headers.iter().all(|header| header.kind != PROGRAM)
                );
            }
        }
    }
}
