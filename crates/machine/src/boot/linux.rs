//! A bzImage, where its parts go, and the page of parameters it reads.

use std::io;

use device::Blob;
use devices::fw_cfg::{Files, key};
use memory::FlatView;

use super::pvh;
use crate::acpi;

/// What is booted.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// A bzImage, or an ELF file with a PVH entry.
    pub image: Blob,
    /// The initial RAM disk, or nothing.
    pub initrd: Blob,
    /// The command line.
    pub command_line: String,
}

/// Why a kernel cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// No boot sector signature, or no "HdrS".
    #[error("The kernel cannot be started: {what}")]
    NotAKernel {
        /// What is wrong.
        what: &'static str,
    },
    /// A file could not be read any more.
    #[error("The {what} cannot be read: {error}")]
    Unreadable {
        /// Kernel or initial RAM disk.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
    /// The protocol's version is too low, or the kernel has no 64-bit entry.
    #[error("The kernel has no 64-bit entry point (boot protocol {major}.{minor:02})")]
    TooOld {
        /// Of the protocol's version.
        major: u16,
        /// Of the protocol's version.
        minor: u16,
    },
    /// Not enough memory below the first hole.
    #[error("The {what} ({bytes} bytes) does not fit into guest memory below {end:#x}")]
    NoRoom {
        /// Kernel or initial RAM disk.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// Where low memory ends.
        end: u64,
    },
    /// Longer than the kernel takes.
    #[error("The kernel's command line has {bytes} bytes, and the kernel takes at most {most}")]
    CommandLine {
        /// Its length.
        bytes: usize,
        /// What the kernel takes.
        most: u32,
    },
}

/// Where the kernel starts and what its registers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The entry point.
    pub entry: u64,
    /// The parameter page, for RSI.
    pub parameters: u64,
    /// The page tables, for CR3: the first 4 GiB as they are. None: it starts in 32-bit code without
    /// paging.
    pub page_tables: Option<u64>,
    /// The descriptor table, for GDTR.
    pub descriptors: u64,
}

pub(super) const KERNEL: &str = "kernel";
pub(super) const RAM_DISK: &str = "initial RAM disk";
/// Bytes that are copied at once.
pub(super) const PIECE: usize = 1 << 20;

const SETUP_SECTORS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const HEADER: usize = 0x202;
const VERSION: usize = 0x206;
const LOADER_TYPE: usize = 0x210;
const LOAD_FLAGS: usize = 0x211;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const HEAP_END: usize = 0x224;
const COMMAND_LINE: usize = 0x228;
const INITRD_MAX: usize = 0x22c;
const ALIGNMENT: usize = 0x230;
const XLOAD_FLAGS: usize = 0x236;
const COMMAND_LINE_MAX: usize = 0x238;
const PREFERRED_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;
const HEADER_END: usize = 0x268;

const RSDP: usize = 0x070; // of the parameter page, like those below
const E820_ENTRIES: usize = 0x1e8;
const E820_TABLE: usize = 0x2d0;
const E820_MAX: usize = 128;

pub(super) const PARAMETERS_ADDRESS: u64 = 0x7000;
pub(super) const DESCRIPTORS_ADDRESS: u64 = 0x6000;
const PAGE_TABLES_ADDRESS: u64 = 0x9000; // six pages
pub(super) const COMMAND_LINE_ADDRESS: u64 = 0x2_0000;
const ENTRY_64: u64 = 0x200;
const VERSION_MIN: u16 = 0x20c; // the first with XLOAD_FLAGS

/// Where conventional memory ends for systems without firmware.
const LOW_END: u64 = 0x9_fc00;
pub(super) const HIGH_START: u64 = 0x10_0000;

/// Kinds of memory in the map.
const USABLE: u32 = 1;
const RESERVED: u32 = 2;

impl Kernel {
    fn field<const N: usize>(&self, offset: usize) -> Result<[u8; N], BootError> {
        let mut field = [0; N];
        match self.image.read(offset as u64, &mut field) {
            Ok(bytes) if bytes == N => Ok(field),
            Ok(_) => Err(BootError::NotAKernel { what: "it is too short" }),
            Err(error) => Err(BootError::Unreadable { what: KERNEL, error }),
        }
    }

    fn word(&self, offset: usize) -> Result<u32, BootError> {
        self.field(offset).map(u32::from_le_bytes)
    }

    fn half(&self, offset: usize) -> Result<u16, BootError> {
        self.field(offset).map(u16::from_le_bytes)
    }

    /// Whether it is an ELF file, for its PVH entry.
    #[must_use]
    pub fn is_elf(&self) -> bool {
        pvh::is_elf(&self.image)
    }

    /// Checks the header.
    fn check(&self) -> Result<(), BootError> {
        if self.half(BOOT_FLAG)? != 0xaa55 {
            return Err(BootError::NotAKernel { what: "it has no boot sector signature" });
        }
        if &self.field::<4>(HEADER)? != b"HdrS" {
            return Err(BootError::NotAKernel { what: "it has no setup header" });
        }
        let version = self.half(VERSION)?;
        let has_entry = version >= VERSION_MIN && self.half(XLOAD_FLAGS)? & 1 != 0;
        let too_old = BootError::TooOld { major: version >> 8, minor: version & 0xff };
        if has_entry { Ok(()) } else { Err(too_old) }
    }

    /// Gives the parts to firmware, which puts them into memory by itself.
    pub fn give(&self, files: &mut Files, low_bytes: u64) -> Result<(), BootError> {
        const REAL_MODE: u32 = 0x1_0000;
        const COMMAND_LINE_AT: u32 = 0x2_0000;
        self.check()?;
        let setup_bytes = (self.setup_sectors()? + 1) * 512;
        let code = self.image.behind(setup_bytes as u64);
        let setup = self.image.head(setup_bytes);
        let mut setup = setup.map_err(|error| BootError::Unreadable { what: KERNEL, error })?;
        let command_line = [self.command_line.as_bytes(), &[0]].concat();
        let most = u64::from(self.word(INITRD_MAX)?) + 1;
        let initrd_bytes = self.initrd.len();
        let end = low_bytes.min(most);
        let no_room = BootError::NoRoom { what: RAM_DISK, bytes: initrd_bytes, end };
        let initrd = end.checked_sub(initrd_bytes).map(|start| start & !0xfff).ok_or(no_room)?;
        let mut set = |offset: usize, bytes: &[u8]| {
            if let Some(field) = setup.get_mut(offset..offset + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        };
        set(LOADER_TYPE, &[0xb0]);
        set(LOAD_FLAGS, &[self.field::<1>(LOAD_FLAGS)?[0] | 0x80]);
        set(HEAP_END, &(COMMAND_LINE_AT as u16).wrapping_sub(0x200).to_le_bytes());
        set(COMMAND_LINE, &COMMAND_LINE_AT.to_le_bytes());
        if initrd_bytes > 0 {
            set(RAMDISK_IMAGE, &(initrd as u32).to_le_bytes());
            set(RAMDISK_SIZE, &(initrd_bytes as u32).to_le_bytes());
            files.set_word(key::INITRD_ADDRESS, initrd as u32);
            files.set_word(key::INITRD_BYTES, initrd_bytes as u32);
            files.store(key::INITRD_DATA, self.initrd.clone());
        }
        files.set_word(key::COMMAND_LINE_ADDRESS, COMMAND_LINE_AT);
        files.set_word(key::COMMAND_LINE_BYTES, command_line.len() as u32);
        files.set(key::COMMAND_LINE_DATA, command_line);
        files.set_word(key::KERNEL_ADDRESS, HIGH_START as u32);
        files.set_word(key::KERNEL_BYTES, code.len() as u32);
        files.store(key::KERNEL_DATA, code);
        files.set_word(key::SETUP_ADDRESS, REAL_MODE);
        files.set_word(key::SETUP_BYTES, setup.len() as u32);
        files.set(key::SETUP_DATA, setup);
        Ok(())
    }

    fn setup_sectors(&self) -> Result<usize, BootError> {
        Ok(match self.field::<1>(SETUP_SECTORS)? {
            [0] => 4,
            [count] => usize::from(count),
        })
    }

    /// Puts kernel, RAM disk, parameters and tables into memory. `low_bytes` and `high_bytes` are
    /// the RAM below and above 4 GiB.
    pub fn place(
        &self,
        memory: &FlatView,
        low_bytes: u64,
        high_bytes: u64,
    ) -> Result<Placed, BootError> {
        if pvh::is_elf(&self.image) {
            let what = (&self.image, &self.initrd, self.command_line.as_str());
            return pvh::place(what, memory, (low_bytes, high_bytes));
        }
        self.check()?;
        let code = self.image.behind((self.setup_sectors()? as u64 + 1) * 512);
        let preferred = u64::from_le_bytes(self.field(PREFERRED_ADDRESS)?);
        let alignment = u64::from(self.word(ALIGNMENT)?).max(1);
        let start = preferred.max(HIGH_START).next_multiple_of(alignment);
        let init_size = u64::from(self.word(INIT_SIZE)?).max(code.len());
        if start.saturating_add(init_size) > low_bytes {
            return Err(BootError::NoRoom { what: KERNEL, bytes: init_size, end: low_bytes });
        }
        load(memory, start, &code, KERNEL)?;
        let initrd = self.place_initrd(memory, start + init_size, low_bytes)?;
        let mut parameters = self.parameters(initrd, low_bytes, high_bytes)?;
        parameters[COMMAND_LINE..COMMAND_LINE + 4]
            .copy_from_slice(&(COMMAND_LINE_ADDRESS as u32).to_le_bytes());
        memory.write(COMMAND_LINE_ADDRESS, self.command_line.as_bytes());
        memory.write(COMMAND_LINE_ADDRESS + self.command_line.len() as u64, &[0]);
        memory.write(PARAMETERS_ADDRESS, &parameters);
        place_page_tables(memory);
        place_descriptors(memory);
        Ok(Placed {
            entry: start + ENTRY_64,
            parameters: PARAMETERS_ADDRESS,
            page_tables: Some(PAGE_TABLES_ADDRESS),
            descriptors: DESCRIPTORS_ADDRESS,
        })
    }

    /// As high as the kernel allows, above itself.
    fn place_initrd(
        &self,
        memory: &FlatView,
        kernel_end: u64,
        low_bytes: u64,
    ) -> Result<u64, BootError> {
        let bytes = self.initrd.len();
        if bytes == 0 {
            return Ok(0);
        }
        let most = u64::from(self.word(INITRD_MAX)?) + 1;
        let end = low_bytes.min(most);
        let start = end.checked_sub(bytes).map(|start| start & !0xfff);
        let start = start.filter(|start| *start >= kernel_end);
        let no_room = BootError::NoRoom { what: RAM_DISK, bytes, end };
        let start = start.ok_or(no_room)?;
        load(memory, start, &self.initrd, RAM_DISK)?;
        Ok(start)
    }

    fn parameters(
        &self,
        initrd: u64,
        low_bytes: u64,
        high_bytes: u64,
    ) -> Result<Vec<u8>, BootError> {
        let most = self.word(COMMAND_LINE_MAX)?;
        let bytes = self.command_line.len();
        if bytes > most as usize {
            return Err(BootError::CommandLine { bytes, most });
        }
        let mut page = vec![0; 4096];
        // The header's end is told by the jump at its start; all known fields are copied.
        let header_end =
            (0x202 + usize::from(self.field::<1>(0x201)?[0])).min(HEADER_END.max(0x280));
        let header = self.image.read(SETUP_SECTORS as u64, &mut page[SETUP_SECTORS..header_end]);
        header.map_err(|error| BootError::Unreadable { what: KERNEL, error })?;
        let mut set = |offset: usize, bytes: &[u8]| {
            page[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        const UNKNOWN_LOADER: u8 = 0xff;
        const LOADED_HIGH_HEAP: u8 = 0x81;
        set(LOADER_TYPE, &[UNKNOWN_LOADER]);
        set(LOAD_FLAGS, &[LOADED_HIGH_HEAP]);
        set(HEAP_END, &0xfe00_u16.to_le_bytes());
        set(RAMDISK_IMAGE, &(initrd as u32).to_le_bytes());
        set(RAMDISK_SIZE, &(self.initrd.len() as u32).to_le_bytes());
        set(RSDP, &acpi::BASE.to_le_bytes());
        let map = memory_map(low_bytes, high_bytes);
        set(E820_ENTRIES, &[map.len() as u8]);
        for (at, (start, bytes, kind)) in map.into_iter().enumerate().take(E820_MAX) {
            let entry = E820_TABLE + 20 * at;
            set(entry, &start.to_le_bytes());
            set(entry + 8, &bytes.to_le_bytes());
            set(entry + 16, &kind.to_le_bytes());
        }
        Ok(page)
    }
}

/// Puts a file into memory, piece by piece.
pub(super) fn load(
    memory: &FlatView,
    mut start: u64,
    blob: &Blob,
    what: &'static str,
) -> Result<(), BootError> {
    let mut piece = vec![0; PIECE.min(blob.len() as usize)];
    let mut offset = 0;
    while offset < blob.len() {
        let read = blob.read(offset, &mut piece);
        let bytes = read.map_err(|error| BootError::Unreadable { what, error })?;
        memory.write(start, &piece[..bytes]);
        (start, offset) = (start + bytes as u64, offset + bytes as u64);
    }
    Ok(())
}

/// What firmware would say of memory: start, bytes, kind.
pub fn memory_map(low_bytes: u64, high_bytes: u64) -> Vec<(u64, u64, u32)> {
    let mut map = vec![
        (0, LOW_END, USABLE),
        (LOW_END, 0xa_0000 - LOW_END, RESERVED),
        (acpi::BASE, HIGH_START - acpi::BASE, RESERVED),
        (HIGH_START, low_bytes - HIGH_START, USABLE),
    ];
    if high_bytes > 0 {
        map.push((1 << 32, high_bytes, USABLE));
    }
    map
}

/// The first 4 GiB as they are, in pages of 2 MiB.
fn place_page_tables(memory: &FlatView) {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    let root = PAGE_TABLES_ADDRESS;
    let pointers = root + 0x1000;
    memory.write_value(root, 8, pointers | PRESENT_WRITABLE);
    for directory in 0..4 {
        let table = pointers + 0x1000 * (directory + 1);
        memory.write_value(pointers + 8 * directory, 8, table | PRESENT_WRITABLE);
        for entry in 0..512 {
            let page = (directory * 512 + entry) << 21;
            memory.write_value(table + 8 * entry, 8, page | PRESENT_WRITABLE | LARGE);
        }
    }
}

/// Null, null, 64-bit code at 0x10, data at 0x18: what the boot protocol wants.
pub(super) fn place_descriptors(memory: &FlatView) {
    for (at, descriptor) in
        [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff_u64].iter().enumerate()
    {
        memory.write_value(DESCRIPTORS_ADDRESS + 8 * at as u64, 8, *descriptor);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use memory::{AddressSpace, Owner, Ram, Region};

    use super::*;

    fn kernel() -> Kernel {
        let mut image = vec![0; 0x400];
        let mut set = |offset: usize, bytes: &[u8]| {
            image[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        set(SETUP_SECTORS, &[1]);
        set(0x200, &[0xeb, 0x66]);
        set(BOOT_FLAG, &[0x55, 0xaa]);
        set(HEADER, b"HdrS");
        set(VERSION, &0x20f_u16.to_le_bytes());
        set(XLOAD_FLAGS, &[1]);
        set(ALIGNMENT, &0x20_0000_u32.to_le_bytes());
        set(COMMAND_LINE_MAX, &16_u32.to_le_bytes());
        set(INITRD_MAX, &0x7fff_ffff_u32.to_le_bytes());
        set(PREFERRED_ADDRESS, &0x100_0000_u64.to_le_bytes());
        set(INIT_SIZE, &0x10_0000_u32.to_le_bytes());
        image.extend(b"code");
        Kernel {
            image: image.into(),
            initrd: vec![7; 5000].into(),
            command_line: "quiet".to_owned(),
        }
    }

    fn memory(bytes: u64) -> Arc<FlatView> {
        let space = AddressSpace::new();
        let ram = Arc::new(Ram::new("ram", bytes).unwrap());
        space.add(Region::new("ram", 0, bytes, Owner::Ram(ram)));
        space.view()
    }

    #[test]
    fn the_parts_are_where_the_parameters_say() {
        let low = 64 << 20;
        let memory = memory(low);
        let placed = kernel().place(&memory, low, 0).unwrap();
        assert_eq!(placed.entry, 0x100_0200);
        assert_eq!(memory.read_value(0x100_0000, 4), u64::from(u32::from_le_bytes(*b"code")));
        let parameter = |offset: usize| memory.read_value(placed.parameters + offset as u64, 4);
        let initrd = parameter(RAMDISK_IMAGE);
        assert_eq!((parameter(RAMDISK_SIZE), initrd % 4096), (5000, 0));
        assert_eq!(memory.read_value(initrd + 4999, 2), 7);
        assert_eq!(
            memory.read_value(parameter(COMMAND_LINE), 4),
            u64::from(u32::from_le_bytes(*b"quie"))
        );
        assert_eq!(parameter(E820_ENTRIES) & 0xff, 4);
    }

    type Change = dyn Fn(&mut Kernel);

    fn edit(kernel: &mut Kernel, edit: fn(&mut Vec<u8>)) {
        let mut image = kernel.image.head(usize::MAX).unwrap();
        edit(&mut image);
        kernel.image = image.into();
    }

    #[test]
    fn what_is_no_kernel_or_does_not_fit_is_refused() {
        let low = 64 << 20;
        let memory = memory(low);
        let refused = |change: &Change, low: u64| {
            let mut kernel = kernel();
            change(&mut kernel);
            kernel.place(&memory, low, 0).unwrap_err().to_string()
        };
        for (change, low, text) in [
            ((&|k: &mut Kernel| edit(k, |i| i.truncate(100))) as &Change, low, "too short"),
            (&|k| edit(k, |image| image[BOOT_FLAG] = 0), low, "signature"),
            (&|k| edit(k, |image| image[XLOAD_FLAGS] = 0), low, "no 64-bit entry"),
            (&|_| {}, 8 << 20, "kernel (1048576 bytes) does not fit"),
            (&|k| k.initrd = vec![0; 60 << 20].into(), low, "initial RAM disk"),
            (&|k| k.command_line = "x".repeat(17), low, "17 bytes"),
        ] {
            let error = refused(change, low);
            assert!(error.contains(text), "'{error}' lacks '{text}'");
        }
    }
}
