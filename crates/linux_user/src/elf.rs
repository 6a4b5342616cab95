//! ELF executables: reading, checking, loading.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::guest::Machine;
use crate::space::{AddressSpace, PAGE};

/// More program headers than any linker makes.
const HEADERS_MAX: u64 = 128;

/// No program needs a larger image than this; a larger one is an attack on memory.
const IMAGE_BYTES_MAX: u64 = 1 << 40;

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;

/// Why a file is not run.
#[derive(Debug)]
pub enum ElfError {
    /// The file cannot be read.
    Io(io::Error),
    /// It is something else.
    NotElf,
    /// What is wrong with it.
    Bad(&'static str),
    /// It is for another processor.
    WrongMachine(u16),
    /// The kernel does not map it.
    Map(i32),
}

impl std::fmt::Display for ElfError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::NotElf => write!(f, "Exec format error"),
            Self::Bad(what) => write!(f, "{what}"),
            Self::WrongMachine(machine) => {
                write!(f, "Invalid ELF image for this architecture (machine {machine})")
            }
            Self::Map(errno) => write!(f, "{}", io::Error::from_raw_os_error(*errno)),
        }
    }
}

impl From<io::Error> for ElfError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A program header.
#[derive(Clone, Copy, Debug)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
}

/// An ELF file that was looked at.
#[derive(Debug)]
pub struct Elf {
    file: File,
    position_independent: bool,
    entry: u64,
    headers_offset: u64,
    header_bytes: u64,
    segments: Vec<Segment>,
}

/// A program in memory.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// Where execution begins.
    pub entry: u64,
    /// What was added to the file's addresses.
    pub bias: u64,
    /// Where the program headers lie in memory.
    pub headers: u64,
    /// Bytes of one.
    pub header_bytes: u64,
    /// How many.
    pub header_count: u64,
    /// Behind its last byte.
    pub end: u64,
}

fn word(bytes: &[u8], at: usize, count: usize) -> u64 {
    let mut value = [0; 8];
    if let Some(field) = bytes.get(at..at + count) {
        value[..count].copy_from_slice(field);
    }
    u64::from_le_bytes(value)
}

impl Elf {
    /// Reads and checks the headers.
    pub fn open(path: &Path, machine: &Machine) -> Result<Self, ElfError> {
        let file = File::open(path)?;
        let mut head = [0; 64];
        let bytes = file.read_at(&mut head, 0)?;
        if bytes < 52 || head[..4] != *b"\x7fELF" {
            return Err(ElfError::NotElf);
        }
        let wide = head[4] == 2;
        let kind = word(&head, 16, 2) as u16;
        let found = word(&head, 18, 2) as u16;
        if found != machine.elf_machine || wide != (machine.pointer_bytes == 8) || head[5] != 1 {
            return Err(ElfError::WrongMachine(found));
        }
        if kind != ET_EXEC && kind != ET_DYN {
            return Err(ElfError::Bad("Exec format error"));
        }
        let (entry, headers_offset, header_bytes, count) = if wide {
            (word(&head, 24, 8), word(&head, 32, 8), word(&head, 54, 2), word(&head, 56, 2))
        } else {
            (word(&head, 24, 4), word(&head, 28, 4), word(&head, 42, 2), word(&head, 44, 2))
        };
        let least = if wide { 56 } else { 32 };
        if header_bytes != least || count == 0 || count > HEADERS_MAX {
            return Err(ElfError::Bad("Invalid ELF program headers"));
        }
        let mut table = vec![0; (header_bytes * count) as usize];
        file.read_exact_at(&mut table, headers_offset)
            .map_err(|_| ElfError::Bad("Invalid ELF program headers"))?;
        let segments =
            table.chunks_exact(header_bytes as usize).map(|row| segment(row, wide)).collect();
        let position_independent = kind == ET_DYN;
        Ok(Self { file, position_independent, entry, headers_offset, header_bytes, segments })
    }

    /// The path of the interpreter it asks for.
    pub fn interpreter(&self) -> Result<Option<String>, ElfError> {
        let Some(segment) = self.segments.iter().find(|segment| segment.kind == PT_INTERP) else {
            return Ok(None);
        };
        if !(2..=4096).contains(&segment.file_bytes) {
            return Err(ElfError::Bad("Invalid ELF interpreter name"));
        }
        let mut name = vec![0; segment.file_bytes as usize];
        self.file
            .read_exact_at(&mut name, segment.offset)
            .map_err(|_| ElfError::Bad("Invalid ELF interpreter name"))?;
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        name.truncate(end);
        String::from_utf8(name).map(Some).map_err(|_| ElfError::Bad("Invalid ELF interpreter name"))
    }

    /// Whether the stack is to be executable.
    pub fn executable_stack(&self) -> bool {
        let stack = self.segments.iter().find(|segment| segment.kind == PT_GNU_STACK);
        stack.is_some_and(|segment| segment.flags & 1 != 0)
    }

    fn span(&self) -> Result<(u64, u64), ElfError> {
        let loads = || self.segments.iter().filter(|segment| segment.kind == PT_LOAD);
        let start = loads().map(|segment| segment.address).min();
        let start = start.ok_or(ElfError::Bad("ELF image without loadable segments"))?;
        let mut end = start;
        for segment in loads() {
            let last = segment.address.checked_add(segment.memory_bytes);
            let last = last.ok_or(ElfError::Bad("ELF segment wraps around memory"))?;
            if segment.file_bytes > segment.memory_bytes
                || segment.offset.checked_add(segment.file_bytes).is_none()
                || (segment.offset ^ segment.address) % PAGE != 0
            {
                return Err(ElfError::Bad("Invalid ELF segment"));
            }
            end = end.max(last);
        }
        let start = start & !(PAGE - 1);
        if end - start > IMAGE_BYTES_MAX {
            return Err(ElfError::Bad("ELF image is too large"));
        }
        Ok((start, end))
    }

    /// Maps the segments. `hint`: where a position-independent image should go.
    pub fn load(&self, space: &AddressSpace, hint: u64) -> Result<Image, ElfError> {
        let (start, end) = self.span()?;
        let bytes = (end - start).next_multiple_of(PAGE);
        let place = if self.position_independent { hint } else { start };
        let fixed = if self.position_independent { 0 } else { libc::MAP_FIXED_NOREPLACE };
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed) as u32;
        let reserved = space.map(place, bytes, 0, flags, -1, 0).map_err(ElfError::Map)?;
        let bias = reserved.wrapping_sub(start);
        for segment in self.segments.iter().filter(|segment| segment.kind == PT_LOAD) {
            self.load_segment(space, segment, bias)?;
        }
        Ok(Image {
            entry: self.entry.wrapping_add(bias),
            bias,
            headers: self.headers_address().wrapping_add(bias),
            header_bytes: self.header_bytes,
            header_count: self.segments.len() as u64,
            end: end.wrapping_add(bias),
        })
    }

    fn headers_address(&self) -> u64 {
        let holds = |segment: &&Segment| {
            segment.kind == PT_LOAD
                && (segment.offset..segment.offset + segment.file_bytes.max(1))
                    .contains(&self.headers_offset)
        };
        let segment = self.segments.iter().find(holds);
        segment.map_or(0, |segment| self.headers_offset - segment.offset + segment.address)
    }

    fn load_segment(
        &self,
        space: &AddressSpace,
        segment: &Segment,
        bias: u64,
    ) -> Result<(), ElfError> {
        let rights = (segment.flags & 4) >> 2 | segment.flags & 2 | (segment.flags & 1) << 2;
        let address = segment.address.wrapping_add(bias);
        let start = address & !(PAGE - 1);
        let inside = address - start;
        let file_end = address + segment.file_bytes;
        let end = (address + segment.memory_bytes).next_multiple_of(PAGE);
        let private_fixed = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u32;
        if segment.file_bytes > 0 {
            let bytes = segment.file_bytes + inside;
            let offset = segment.offset - inside;
            let fd = self.file.as_raw_fd();
            space.map(start, bytes, rights, private_fixed, fd, offset).map_err(ElfError::Map)?;
        }
        let mapped_end =
            if segment.file_bytes > 0 { file_end.next_multiple_of(PAGE) } else { start };
        if end > mapped_end {
            let flags = private_fixed | libc::MAP_ANONYMOUS as u32;
            space.map(mapped_end, end - mapped_end, rights, flags, -1, 0).map_err(ElfError::Map)?;
        }
        // The rest of the last page of the file is not zero in the file.
        if segment.memory_bytes > segment.file_bytes && file_end < mapped_end && rights & 2 != 0 {
            let zeroes = vec![0; (mapped_end - file_end) as usize];
            crate::memory::write(file_end, &zeroes).map_err(ElfError::Map)?;
        }
        Ok(())
    }
}

fn segment(row: &[u8], wide: bool) -> Segment {
    if wide {
        Segment {
            kind: word(row, 0, 4) as u32,
            flags: word(row, 4, 4) as u32,
            offset: word(row, 8, 8),
            address: word(row, 16, 8),
            file_bytes: word(row, 32, 8),
            memory_bytes: word(row, 40, 8),
        }
    } else {
        Segment {
            kind: word(row, 0, 4) as u32,
            flags: word(row, 24, 4) as u32,
            offset: word(row, 4, 4),
            address: word(row, 8, 4),
            file_bytes: word(row, 16, 4),
            memory_bytes: word(row, 20, 4),
        }
    }
}
