//! What firmware can select: numbered items, and files with names.

use std::collections::BTreeMap;

use device::{Blob, Fields, StateError};

/// Numbers of items that have had them from the beginning.
pub mod key {
    /// "QEMU", so that firmware sees that the device is there.
    pub const SIGNATURE: u16 = 0x00;
    /// Features: bit 0 the ports, bit 1 DMA.
    pub const ID: u16 = 0x01;
    /// The machine's UUID.
    pub const UUID: u16 = 0x02;
    /// Bytes of RAM.
    pub const RAM_BYTES: u16 = 0x03;
    /// No screen.
    pub const NO_GRAPHIC: u16 = 0x04;
    /// Processors at power-on.
    pub const PROCESSORS: u16 = 0x05;
    /// The kernel's load address.
    pub const KERNEL_ADDRESS: u16 = 0x07;
    /// The kernel's size.
    pub const KERNEL_BYTES: u16 = 0x08;
    /// The initial RAM disk's address.
    pub const INITRD_ADDRESS: u16 = 0x0a;
    /// Its size.
    pub const INITRD_BYTES: u16 = 0x0b;
    /// NUMA nodes and which processor and memory is in which.
    pub const NUMA: u16 = 0x0d;
    /// The firmware asks what to boot.
    pub const BOOT_MENU: u16 = 0x0e;
    /// Processors at most.
    pub const PROCESSORS_MAX: u16 = 0x0f;
    /// The kernel.
    pub const KERNEL_DATA: u16 = 0x11;
    /// The initial RAM disk.
    pub const INITRD_DATA: u16 = 0x12;
    /// The command line's address.
    pub const COMMAND_LINE_ADDRESS: u16 = 0x13;
    /// Its size.
    pub const COMMAND_LINE_BYTES: u16 = 0x14;
    /// The command line.
    pub const COMMAND_LINE_DATA: u16 = 0x15;
    /// The real-mode part's address.
    pub const SETUP_ADDRESS: u16 = 0x16;
    /// Its size.
    pub const SETUP_BYTES: u16 = 0x17;
    /// The real-mode part.
    pub const SETUP_DATA: u16 = 0x18;
    /// The list of files.
    pub const DIRECTORY: u16 = 0x19;
    /// The first file.
    pub const FIRST_FILE: u16 = 0x20;
    /// Old tables of the PC.
    pub const ACPI_TABLES: u16 = 0x8000;
    /// Old SMBIOS entries.
    pub const SMBIOS_ENTRIES: u16 = 0x8001;
    /// The timer is on input 2 of the I/O APIC.
    pub const IRQ0_OVERRIDE: u16 = 0x8002;
}

/// Files at most, so that the keys stay below those of the architecture.
const FILES_MAX: usize = 0x1000;
/// A name with its zero.
const NAME_BYTES: usize = 56;

/// Makes an item's bytes.
pub type Maker = Box<dyn Fn() -> Vec<u8> + Send + Sync>;
/// Hears of bytes that firmware has written.
pub type Told = Box<dyn Fn(&[u8]) + Send + Sync>;

/// Where the bytes of an item come from.
pub enum Source {
    /// They are here.
    Bytes(Vec<u8>),
    /// They are fetched as firmware reads them.
    Stored(Blob),
    /// They are made when firmware selects the item, for they say how it has set up the machine.
    /// Always as many as said; shorter results are filled up with zeros.
    Made(usize, Maker),
    /// Firmware writes them: the bytes as they are before, and who is told of the new ones.
    Written(Vec<u8>, Told),
}

impl Source {
    fn bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) | Self::Written(bytes, _) => bytes.len(),
            Self::Made(bytes, _) => *bytes,
            Self::Stored(blob) => usize::try_from(blob.len()).unwrap_or(usize::MAX),
        }
    }
}

/// All items.
#[derive(Default)]
pub struct Files {
    items: BTreeMap<u16, Source>,
    /// Names of files, sorted as firmware expects; the key of each is its place.
    names: BTreeMap<String, Source>,
}

impl Files {
    /// Sets a numbered item.
    pub fn set(&mut self, key: u16, bytes: impl Into<Vec<u8>>) {
        self.items.insert(key, Source::Bytes(bytes.into()));
    }

    /// Sets an item that is large.
    pub fn store(&mut self, key: u16, blob: Blob) {
        self.items.insert(key, Source::Stored(blob));
    }

    /// Sets a 16-bit item.
    pub fn set_half(&mut self, key: u16, value: u16) {
        self.set(key, value.to_le_bytes());
    }

    /// Sets a 32-bit item.
    pub fn set_word(&mut self, key: u16, value: u32) {
        self.set(key, value.to_le_bytes());
    }

    /// Adds a file, or puts another in its place. False when the name is too long, or there are
    /// too many.
    pub fn add(&mut self, name: &str, source: Source) -> bool {
        if name.len() >= NAME_BYTES || name.is_empty() || self.names.len() >= FILES_MAX {
            return false;
        }
        self.names.insert(name.to_owned(), source);
        true
    }

    /// Names and sizes of the files.
    pub fn list(&self) -> impl Iterator<Item = (&str, usize)> {
        self.names.iter().map(|(name, source)| (name.as_str(), source.bytes()))
    }

    fn directory(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + 64 * self.names.len());
        bytes.extend((self.names.len() as u32).to_be_bytes());
        for (place, (name, source)) in self.names.iter().enumerate() {
            bytes.extend((source.bytes() as u32).to_be_bytes());
            bytes.extend((key::FIRST_FILE + place as u16).to_be_bytes());
            bytes.extend([0, 0]);
            let mut padded = [0; NAME_BYTES];
            padded[..name.len()].copy_from_slice(name.as_bytes());
            bytes.extend(padded);
        }
        bytes
    }

    fn source(&self, key: u16) -> Option<&Source> {
        match key.checked_sub(key::FIRST_FILE).map(usize::from) {
            Some(place) if place < self.names.len() => self.names.values().nth(place),
            _ => self.items.get(&key),
        }
    }

    /// The bytes of an item; none for a key that nobody has set.
    pub(super) fn read(&self, key: u16) -> Blob {
        if key == key::DIRECTORY {
            return self.directory().into();
        }
        match self.source(key) {
            Some(Source::Bytes(bytes) | Source::Written(bytes, _)) => bytes.clone().into(),
            Some(Source::Made(size, make)) => {
                let mut bytes = make();
                bytes.resize(*size, 0);
                bytes.into()
            }
            Some(Source::Stored(blob)) => blob.clone(),
            None => Blob::default(),
        }
    }

    /// Whether firmware may write the item.
    pub(super) fn is_writable(&self, key: u16) -> bool {
        matches!(self.source(key), Some(Source::Written(..)))
    }

    /// Saves or loads what firmware has written, and those who are told of it hear it again.
    pub(super) fn transfer(&mut self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        for (name, source) in &mut self.names {
            let Source::Written(bytes, told) = source else { continue };
            let mut loaded = bytes.clone();
            fields.item(name, &mut loaded)?;
            fields.check(loaded.len() == bytes.len(), name)?;
            if fields.is_loading() && loaded != *bytes {
                *bytes = loaded;
                told(bytes);
            }
        }
        Ok(())
    }

    /// Firmware has written into the item.
    pub(super) fn write(&mut self, key: u16, offset: usize, new: &[u8]) {
        let place = key.checked_sub(key::FIRST_FILE).map(usize::from);
        let source = match place {
            Some(place) if place < self.names.len() => self.names.values_mut().nth(place),
            _ => self.items.get_mut(&key),
        };
        if let Some(Source::Written(bytes, told)) = source
            && let Some(part) = bytes.get_mut(offset..offset.saturating_add(new.len()))
        {
            part.copy_from_slice(new);
            told(bytes);
        }
    }
}
