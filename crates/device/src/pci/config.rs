//! The configuration space as a register machine: bytes, which of them can be written, and where
//! base addresses point. Pure.

use super::spec;

/// Bytes of a conventional function's space.
pub const CONVENTIONAL_BYTES: usize = 0x100;
/// Bytes of an express function's space.
pub const EXPRESS_BYTES: usize = 0x1000;
/// Where capabilities may begin.
const CAPABILITIES_START: u16 = 0x40;

/// What a base address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; takes two registers.
    Memory64,
    /// The same, and reading has no side effects.
    Prefetchable64,
    /// Memory below 4 GiB without side effects of reading.
    Prefetchable32,
}

impl BarKind {
    pub(super) fn is_64(self) -> bool {
        matches!(self, Self::Memory64 | Self::Prefetchable64)
    }

    fn flags(self) -> u8 {
        match self {
            Self::Io => 1,
            Self::Memory32 => 0,
            Self::Memory64 => 4,
            Self::Prefetchable64 => 12,
            Self::Prefetchable32 => 8,
        }
    }
}

/// A base address register.
#[derive(Clone, Copy, Debug)]
pub(super) struct BarRegister {
    pub kind: BarKind,
    /// A power of two.
    pub bytes: u64,
    /// Where in the space it stands.
    pub at: u16,
    /// The expansion ROM: bit 0 switches it on.
    pub rom: bool,
}

/// The bytes and their masks.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: Vec<u8>,
    /// As after reset.
    initial: Vec<u8>,
    /// Bits that writing sets and clears.
    writable: Vec<u8>,
    /// Bits that writing a one clears.
    clearable: Vec<u8>,
    /// The register that names the capability added last.
    last_link: u16,
    free: u16,
    last_extended: u16,
    free_extended: u16,
}

impl ConfigSpace {
    /// A space of zeros, of [`CONVENTIONAL_BYTES`] or [`EXPRESS_BYTES`].
    #[must_use]
    pub fn new(express: bool) -> Self {
        let bytes = if express { EXPRESS_BYTES } else { CONVENTIONAL_BYTES };
        let empty = vec![0; bytes];
        Self {
            bytes: empty.clone(),
            initial: empty.clone(),
            writable: empty.clone(),
            clearable: empty,
            last_link: spec::CAPABILITIES,
            free: CAPABILITIES_START,
            last_extended: 0,
            free_extended: CONVENTIONAL_BYTES as u16,
        }
    }

    /// Sets bytes for now and for after each reset.
    pub fn set(&mut self, at: u16, bytes: &[u8]) {
        let range = usize::from(at)..usize::from(at) + bytes.len();
        self.bytes[range.clone()].copy_from_slice(bytes);
        self.initial[range].copy_from_slice(bytes);
    }

    /// Sets bytes until the next reset.
    pub fn put(&mut self, at: u16, bytes: &[u8]) {
        self.bytes[usize::from(at)..usize::from(at) + bytes.len()].copy_from_slice(bytes);
    }

    /// Makes bits writable.
    pub fn allow(&mut self, at: u16, mask: &[u8]) {
        self.writable[usize::from(at)..usize::from(at) + mask.len()].copy_from_slice(mask);
    }

    /// Makes bits such that writing ones clears them.
    pub fn allow_clearing(&mut self, at: u16, mask: &[u8]) {
        self.clearable[usize::from(at)..usize::from(at) + mask.len()].copy_from_slice(mask);
    }

    /// Adds a capability with its body behind the two bytes of the list, at `at` or behind those
    /// before it, and says where it is.
    pub fn add_capability(&mut self, id: u8, at: Option<u16>, body: &[u8], mask: &[u8]) -> u16 {
        let at = at.unwrap_or(self.free);
        let end = usize::from(at) + 2 + body.len();
        assert!(end <= CONVENTIONAL_BYTES, "a device's capabilities fit into its space");
        self.free = self.free.max(end.next_multiple_of(4) as u16);
        self.set(self.last_link, &[at as u8]);
        let status = self.half(spec::STATUS) | spec::STATUS_CAPABILITIES;
        self.set(spec::STATUS, &status.to_le_bytes());
        self.last_link = at + 1;
        self.set(at, &[id, 0]);
        self.set(at + 2, body);
        self.allow(at + 2, mask);
        at
    }

    /// Adds an extended capability with its body behind the four bytes of the list.
    pub fn add_extended(&mut self, id: u16, version: u8, body: &[u8]) -> u16 {
        let at = self.free_extended;
        let end = usize::from(at) + 4 + body.len();
        assert!(end <= self.bytes.len(), "a device's extended capabilities fit into its space");
        self.free_extended = end.next_multiple_of(4) as u16;
        if self.last_extended != 0 {
            let before = self.word(self.last_extended) | u32::from(at) << 20;
            self.set(self.last_extended, &before.to_le_bytes());
        }
        let header = u32::from(id) | u32::from(version) << 16;
        self.set(at, &header.to_le_bytes());
        self.set(at + 4, body);
        self.last_extended = at;
        at
    }

    pub(super) fn add_bar(&mut self, bar: &BarRegister) {
        let mask = !(bar.bytes - 1);
        let low = mask as u32;
        if bar.rom {
            self.allow(bar.at, &(low | 1).to_le_bytes());
            return;
        }
        self.set(bar.at, &[bar.kind.flags()]);
        // Ports beyond the 64 Ki do not exist on a PC, but the register has all bits.
        self.allow(bar.at, &low.to_le_bytes());
        if bar.kind.is_64() {
            self.allow(bar.at + 4, &((mask >> 32) as u32).to_le_bytes());
        }
    }

    /// Where a base address register points, if the function decodes it.
    pub(super) fn decode(&self, bar: &BarRegister) -> Option<u64> {
        let enable = if bar.kind == BarKind::Io { spec::COMMAND_IO } else { spec::COMMAND_MEMORY };
        if self.half(spec::COMMAND) & enable == 0 {
            return None;
        }
        let low = self.word(bar.at);
        if bar.rom && low & 1 == 0 {
            return None;
        }
        let high = if bar.kind.is_64() { self.word(bar.at + 4) } else { 0 };
        let address = (u64::from(high) << 32 | u64::from(low)) & !(bar.bytes - 1);
        let last = address.checked_add(bar.bytes - 1)?;
        // A register that was just asked for its size holds ones: it points nowhere.
        let limit = match bar.kind {
            BarKind::Io => 0xffff,
            BarKind::Memory32 | BarKind::Prefetchable32 => 0xffff_fffe,
            BarKind::Memory64 | BarKind::Prefetchable64 => (1 << 52) - 1,
        };
        (address != 0 && last <= limit).then_some(address)
    }

    /// Reads 1, 2 or 4 bytes. Beyond the space there are zeros, as the specification wants it of
    /// extended space that is not there.
    #[must_use]
    pub fn read(&self, at: u16, size: u8) -> u32 {
        let byte = |index: u16| {
            let byte = at.checked_add(index).and_then(|at| self.bytes.get(usize::from(at)));
            u32::from(byte.copied().unwrap_or(0)) << (8 * index)
        };
        (0..u16::from(size.min(4))).map(byte).sum()
    }

    /// Writes 1, 2 or 4 bytes, as far as they can be written.
    pub fn write(&mut self, at: u16, size: u8, value: u32) {
        for (index, byte) in value.to_le_bytes().into_iter().enumerate().take(usize::from(size)) {
            let at = usize::from(at) + index;
            let Some(now) = self.bytes.get_mut(at) else { return };
            let writable = self.writable[at];
            *now = *now & !writable | byte & writable;
            *now &= !(byte & self.clearable[at]);
        }
    }

    /// A byte.
    #[must_use]
    pub fn byte(&self, at: u16) -> u8 {
        self.read(at, 1) as u8
    }

    /// Two bytes.
    #[must_use]
    pub fn half(&self, at: u16) -> u16 {
        self.read(at, 2) as u16
    }

    /// Four bytes.
    #[must_use]
    pub fn word(&self, at: u16) -> u32 {
        self.read(at, 4)
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Sets all bytes to saved ones. False, and nothing changed: they are not those of this device.
    pub fn restore(&mut self, bytes: &[u8]) -> bool {
        // Who it is, and what kind of device: no register changes that.
        let fixed = [spec::VENDOR..spec::COMMAND, spec::REVISION..spec::REVISION + 4];
        let same = |range: std::ops::Range<u16>| {
            let range = usize::from(range.start)..usize::from(range.end);
            bytes.get(range.clone()) == self.bytes.get(range)
        };
        let fits = bytes.len() == self.bytes.len() && fixed.into_iter().all(same);
        if fits {
            self.bytes.copy_from_slice(bytes);
        }
        fits
    }

    /// Everything as after power-on.
    pub fn reset(&mut self) {
        self.bytes.copy_from_slice(&self.initial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_bar(kind: BarKind, bytes: u64) -> (ConfigSpace, BarRegister) {
        let mut config = ConfigSpace::new(false);
        config.allow(spec::COMMAND, &[7, 4]);
        let bar = BarRegister { kind, bytes, at: spec::BAR0, rom: false };
        config.add_bar(&bar);
        (config, bar)
    }

    #[test]
    fn ones_ask_for_the_size_and_an_address_is_decoded_when_enabled() {
        for (kind, bytes, size_low, size_high) in [
            (BarKind::Io, 0x20, 0xffff_ffe1, 0),
            (BarKind::Memory32, 0x1000, 0xffff_f000, 0),
            (BarKind::Memory64, 0x4000, 0xffff_c004, 0xffff_ffff),
            (BarKind::Prefetchable64, 1 << 34, 12, 0xffff_fffc),
        ] {
            let (mut config, bar) = with_bar(kind, bytes);
            config.write(spec::BAR0, 4, u32::MAX);
            config.write(spec::BAR0 + 4, 4, u32::MAX);
            let seen = (config.word(spec::BAR0), config.word(spec::BAR0 + 4));
            assert_eq!(seen, (size_low, size_high), "{kind:?}");
            config.write(spec::COMMAND, 2, 3);
            assert_eq!(config.decode(&bar), None, "{kind:?} points nowhere while it is sized");
        }
        let (mut config, bar) = with_bar(BarKind::Memory64, 0x4000);
        config.write(spec::BAR0, 4, 0x1234_5678);
        config.write(spec::BAR0 + 4, 4, 8);
        assert_eq!(config.decode(&bar), None);
        config.write(spec::COMMAND, 2, 2);
        assert_eq!(config.decode(&bar), Some(0x8_1234_4000));
    }

    #[test]
    fn capabilities_form_a_list() {
        let mut config = ConfigSpace::new(true);
        let first = config.add_capability(spec::CAPABILITY_VENDOR, None, &[1, 2, 3], &[0xff]);
        let second = config.add_capability(spec::CAPABILITY_MSI, Some(0x80), &[4], &[]);
        assert_eq!((first, second), (0x40, 0x80));
        assert_eq!(config.byte(spec::CAPABILITIES), 0x40);
        assert_eq!(config.word(0x40), 0x0201_8009);
        assert_eq!(config.half(0x80), 5);
        config.write(0x42, 4, 0);
        assert_eq!(config.word(0x40), 0x0200_8009);
        let (a, b) = (config.add_extended(1, 2, &[0; 8]), config.add_extended(0xb, 1, &[]));
        assert_eq!((config.word(a), config.word(b)), (0x10c2_0001, 0x1_000b));
        assert_eq!(config.read(0xfff, 4), 0);
    }
}
