//! A vCPU's registers and its view of memory, for debuggers and monitors: the same on every
//! accelerator.

use memory::AddressSpace;

use crate::saved::{SavedError, SavedProcessor};

/// A segment register with what its descriptor said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentRegister {
    /// What the program loaded.
    pub selector: u16,
    /// Added to every address.
    pub base: u64,
    /// The last offset, in bytes.
    pub limit: u32,
    /// Bits 8 to 23 of the descriptor's upper word: type, S, DPL, P, AVL, L, D, G.
    pub attributes: u32,
}

/// What a processor knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub general: [u64; 16],
    /// Within CS.
    pub rip: u64,
    /// All flags.
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [SegmentRegister; 6],
    /// Local descriptor table.
    pub ldt: SegmentRegister,
    /// Task register.
    pub task: SegmentRegister,
    /// Base and limit.
    pub gdt: (u64, u32),
    /// Base and limit.
    pub idt: (u64, u32),
    /// CR0, CR2, CR3, CR4, CR8.
    pub control: [u64; 5],
    /// Extended features.
    pub efer: u64,
    /// For SWAPGS.
    pub kernel_gs_base: u64,
    /// DR0 to DR7.
    pub debug: [u64; 8],
    /// ST(0) to ST(7): significand, then sign and exponent.
    pub x87: [[u64; 2]; 8],
    /// Control word.
    pub x87_control: u16,
    /// Status word with TOP.
    pub x87_status: u16,
    /// Bit n is clear where physical register n is empty.
    pub x87_valid: u8,
    /// XMM registers, low word first.
    pub vectors: [[u64; 2]; 16],
    /// SSE's control and status.
    pub mxcsr: u32,
    /// It waits for an interrupt.
    pub halted: bool,
}

/// CR0's place in [`Registers::control`].
pub const CR0: usize = 0;
/// CR2's place.
pub const CR2: usize = 1;
/// CR3's place.
pub const CR3: usize = 2;
/// CR4's place.
pub const CR4: usize = 3;
/// CR8's place.
pub const CR8: usize = 4;

const PAGING: u64 = 1 << 31;
const LARGE_PAGES: u64 = 1 << 4;
const WIDE_ENTRIES: u64 = 1 << 5;
const FIVE_LEVELS: u64 = 1 << 12;
const LONG_MODE: u64 = 1 << 10;
const LONG_CODE: u32 = 1 << 13;
const ADDRESS_BITS: u64 = 0x000f_ffff_ffff_f000;

/// A page that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where it begins, as the program sees it.
    pub address: u64,
    /// Where it lies.
    pub physical: u64,
    /// Its size.
    pub bytes: u64,
    /// The lowest entry.
    pub entry: u64,
    /// Level 3 may, as all entries say; bit 1: writes; bit 63: no execution.
    pub rights: u64,
}

/// Levels of tables: bits of the address below each, the mask of its index, bytes of an entry.
struct Tables {
    shifts: &'static [u32],
    wide: bool,
    root: u64,
}

impl Registers {
    /// Whether the code is 64 bits wide.
    #[must_use]
    pub fn is_long_code(&self) -> bool {
        self.efer & LONG_MODE != 0 && self.segments[1].attributes & LONG_CODE != 0
    }

    /// Whether addresses are translated.
    #[must_use]
    pub fn is_paging(&self) -> bool {
        self.control[CR0] & PAGING != 0
    }

    fn tables(&self) -> Tables {
        let (cr3, cr4) = (self.control[CR3], self.control[CR4]);
        let long = self.efer & LONG_MODE != 0;
        let (shifts, wide, root): (&'static [u32], _, _) = match (long, cr4 & WIDE_ENTRIES != 0) {
            (true, _) if cr4 & FIVE_LEVELS != 0 => (&[48, 39, 30, 21, 12], true, ADDRESS_BITS),
            (true, _) => (&[39, 30, 21, 12], true, ADDRESS_BITS),
            (false, true) => (&[30, 21, 12], true, 0xffff_ffe0),
            (false, false) => (&[22, 12], false, 0xffff_f000),
        };
        Tables { shifts, wide, root: cr3 & root }
    }

    /// The page in which an address lies. Looks only: no bit of an entry changes.
    #[must_use]
    pub fn find(&self, memory: &AddressSpace, address: u64) -> Option<Mapping> {
        if !self.is_paging() {
            let page = address & !0xfff;
            return Some(Mapping {
                address: page,
                physical: page,
                bytes: 0x1000,
                entry: 0,
                rights: 6,
            });
        }
        let Tables { shifts, wide, root } = self.tables();
        let (mut table, mut rights, mut barred) = (root, 6, 0);
        for (level, &shift) in shifts.iter().enumerate() {
            let (mask, bytes) = index_of(wide, shift);
            let entry = read_entry(memory, table + (address >> shift & mask) * bytes, bytes)?;
            if entry & 1 == 0 {
                return None;
            }
            // The uppermost entries of the three-level tables grant nothing and bar nothing.
            if !(shifts.len() == 3 && level == 0) {
                rights &= entry;
                barred |= entry & 1 << 63;
            }
            if shift == 12 || self.ends_here(entry, shift) {
                let size = 1_u64 << shift;
                return Some(Mapping {
                    address: address & !(size - 1),
                    physical: page_of(entry, shift, wide),
                    bytes: size,
                    entry,
                    rights: rights & 6 | barred,
                });
            }
            table = if wide { entry & ADDRESS_BITS } else { entry & 0xffff_f000 };
        }
        None
    }

    fn ends_here(&self, entry: u64, shift: u32) -> bool {
        let large = entry & 1 << 7 != 0;
        large && (shift <= 30 && (shift != 22 || self.control[CR4] & LARGE_PAGES != 0))
    }

    /// All pages that are there, in their order, to so many.
    #[must_use]
    pub fn pages(&self, memory: &AddressSpace, most: usize) -> Vec<Mapping> {
        let mut found = Vec::new();
        if self.is_paging() {
            let tables = self.tables();
            let walk = Walk { registers: self, memory, tables: &tables, most };
            walk.table(0, tables.root, 0, (6, 0), &mut found);
        }
        found
    }

    /// Reads memory as the program sees it: so many bytes as there are, from the start.
    #[must_use]
    pub fn read(&self, memory: &AddressSpace, address: u64, bytes: usize) -> Vec<u8> {
        let mut contents = Vec::with_capacity(bytes);
        while contents.len() < bytes {
            let at = self.wrapped(address.wrapping_add(contents.len() as u64));
            let Some(page) = self.find(memory, at) else { break };
            let piece = (0x1000 - (at & 0xfff) as usize).min(bytes - contents.len());
            let mut read = vec![0; piece];
            memory.view().read(page.physical + (at - page.address), &mut read);
            contents.extend(read);
        }
        contents
    }

    /// Writes memory as the program sees it, whatever its rights. False: not all of it is there.
    #[must_use]
    pub fn write(&self, memory: &AddressSpace, address: u64, contents: &[u8]) -> bool {
        let mut done = 0;
        while done < contents.len() {
            let at = self.wrapped(address.wrapping_add(done as u64));
            let Some(page) = self.find(memory, at) else { return false };
            let piece = (0x1000 - (at & 0xfff) as usize).min(contents.len() - done);
            let physical = page.physical + (at - page.address);
            write_physical(memory, physical, &contents[done..done + piece]);
            done += piece;
        }
        true
    }

    fn wrapped(&self, address: u64) -> u64 {
        if self.efer & LONG_MODE != 0 { address } else { address & 0xffff_ffff }
    }
}

/// Writes to guest memory and says so: code may have been there. ROM is written too.
pub fn write_physical(memory: &AddressSpace, address: u64, contents: &[u8]) {
    memory.view().write_debug(address, contents);
    memory.written(address, contents.len() as u64);
}

fn index_of(wide: bool, shift: u32) -> (u64, u64) {
    match wide {
        true if shift == 30 => (0x1ff, 8),
        true => (0x1ff, 8),
        false => (0x3ff, 4),
    }
}

fn page_of(entry: u64, shift: u32, wide: bool) -> u64 {
    let low = (1_u64 << shift) - 1;
    match wide {
        true => entry & ADDRESS_BITS & !low,
        // Bits 32 to 39 of a large page's address stand in bits 13 to 20.
        false if shift == 22 => entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32,
        false => entry & 0xffff_f000,
    }
}

fn read_entry(memory: &AddressSpace, address: u64, bytes: u64) -> Option<u64> {
    let view = memory.view();
    view.find(address)?;
    let mut entry = [0; 8];
    view.read(address, &mut entry[..bytes as usize]);
    Some(u64::from_le_bytes(entry))
}

struct Walk<'a> {
    registers: &'a Registers,
    memory: &'a AddressSpace,
    tables: &'a Tables,
    most: usize,
}

impl Walk<'_> {
    fn table(
        &self,
        level: usize,
        table: u64,
        start: u64,
        (rights, barred): (u64, u64),
        found: &mut Vec<Mapping>,
    ) {
        let Tables { shifts, wide, .. } = self.tables;
        let shift = shifts[level];
        let (_, bytes) = index_of(*wide, shift);
        let count = match (shifts.len(), level, *wide) {
            (3, 0, _) => 4,
            (_, _, true) => 512,
            (_, _, false) => 1024,
        };
        for index in 0..count {
            if found.len() >= self.most {
                return;
            }
            let Some(entry) = read_entry(self.memory, table + index * bytes, bytes) else { return };
            if entry & 1 == 0 {
                continue;
            }
            let mut address = start | index << shift;
            if shift == shifts[0] && shifts.len() >= 4 {
                // The upper half is the upper end of all addresses.
                let sign = 64 - (shift + 9);
                address = ((address << sign) as i64 >> sign) as u64;
            }
            let skips = shifts.len() == 3 && level == 0;
            let both = match skips {
                true => (rights, barred),
                false => (rights & entry, barred | entry & 1 << 63),
            };
            if shift == 12 || self.registers.ends_here(entry, shift) {
                let physical = page_of(entry, shift, *wide);
                let rights = both.0 & 6 | both.1;
                found.push(Mapping { address, physical, bytes: 1 << shift, entry, rights });
            } else {
                let next = if *wide { entry & ADDRESS_BITS } else { entry & 0xffff_f000 };
                self.table(level + 1, next, address, both, found);
            }
        }
    }
}

/// A vCPU that stands still for a moment, at its own thread.
pub trait Inspect {
    /// Its registers.
    fn registers(&mut self) -> Registers;
    /// Sets them: selectors and descriptor tables stay what they are.
    fn set_registers(&mut self, registers: &Registers);
    /// Everything that it knows, to go on with elsewhere.
    fn save(&mut self) -> Result<SavedProcessor, SavedError>;
    /// Goes on with this. After an error it is to be reset.
    fn load(&mut self, saved: &SavedProcessor) -> Result<(), SavedError>;
}

/// Why a vCPU stopped of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugStop {
    /// At a breakpoint of the debugger's.
    Breakpoint,
    /// After an access to what is watched at this address.
    Watch(u64),
    /// After one instruction.
    Stepped,
}

/// How a vCPU goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// Freely.
    #[default]
    Free,
    /// For one instruction.
    Step,
    /// Not at all.
    Hold,
}
