//! Message-signalled interrupts: a write to memory instead of a wire. Pure, but for the sink.

use super::config::ConfigSpace;
use super::spec;

/// Where interrupt messages arrive: the board's local APICs. A leaf: it never calls back.
pub trait MsiSink: Send + Sync {
    /// The message that a write of `data` to `address` is.
    fn send(&self, address: u64, data: u32);
}

/// A message.
pub(super) type Message = (u64, u32);

/// Entries that a table can have.
pub const VECTORS_MAX: u16 = 2048;
const ENTRY_BYTES: usize = 16;
const MASKED: u32 = 1;

const MSI_ENABLE: u16 = 1;
const MSI_64: u16 = 1 << 7;
const MSI_MASKING: u16 = 1 << 8;
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_MASK: u16 = 1 << 14;

/// The MSI capability: everything in configuration space, with 64-bit addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Msi {
    at: u16,
    masking: bool,
}

impl Msi {
    /// Adds the capability for a power of two of vectors, at most 32.
    pub fn add(config: &mut ConfigSpace, at: Option<u16>, vectors: u8, masking: bool) -> Self {
        let log2 = u16::from(vectors.clamp(1, 32)).ilog2() as u16;
        let control = MSI_64 | log2 << 1 | if masking { MSI_MASKING } else { 0 };
        let mut body = vec![0; if masking { 22 } else { 12 }];
        body[..2].copy_from_slice(&control.to_le_bytes());
        let mut mask = vec![0; body.len()];
        mask[0] = 0x71; // enable, and the number of vectors
        mask[2..6].copy_from_slice(&0xffff_fffc_u32.to_le_bytes());
        mask[6..10].fill(0xff);
        mask[10..12].fill(0xff);
        if masking {
            let all = u32::MAX >> (32 - (1 << log2));
            mask[14..18].copy_from_slice(&all.to_le_bytes());
        }
        let at = config.add_capability(spec::CAPABILITY_MSI, at, &body, &mask);
        Self { at, masking }
    }

    pub fn is_enabled(self, config: &ConfigSpace) -> bool {
        config.half(self.at + 2) & MSI_ENABLE != 0
    }

    /// The message of a vector; none while it is masked, which leaves it pending.
    pub fn notify(self, config: &mut ConfigSpace, vector: u16) -> Option<Message> {
        let control = config.half(self.at + 2);
        let count = 1 << (control >> 4 & 7).min(control >> 1 & 7).min(5);
        let vector = vector % count;
        if self.masking {
            let bit = 1 << vector;
            if config.word(self.at + 0x10) & bit != 0 {
                let pending = config.word(self.at + 0x14) | bit;
                config.put(self.at + 0x14, &pending.to_le_bytes());
                return None;
            }
        }
        let address =
            u64::from(config.word(self.at + 4)) | u64::from(config.word(self.at + 8)) << 32;
        let data = config.half(self.at + 12) & !(count - 1) | vector;
        Some((address, u32::from(data)))
    }

    /// A vector that waits and is masked no more.
    pub fn take_pending(self, config: &mut ConfigSpace) -> Option<Message> {
        if !self.masking || !self.is_enabled(config) {
            return None;
        }
        let pending = config.word(self.at + 0x14);
        let ready = pending & !config.word(self.at + 0x10);
        let vector = (ready != 0).then(|| ready.trailing_zeros())?;
        config.put(self.at + 0x14, &(pending & !(1 << vector)).to_le_bytes());
        self.notify(config, vector as u16)
    }
}

/// The MSI-X table with its pending bits.
#[derive(Clone, Debug)]
pub(super) struct Msix {
    at: u16,
    table: Box<[u8]>,
    pending: Box<[u64]>,
    /// The control register, as last written.
    enabled: bool,
    masked: bool,
}

crate::saved!(Msix { table, pending });

impl Msix {
    /// Adds the capability. Table and pending bits lie at these offsets of a BAR.
    pub fn add(
        config: &mut ConfigSpace,
        at: Option<u16>,
        vectors: u16,
        (bar, table, pending): (u8, u32, u32),
    ) -> Self {
        let vectors = vectors.clamp(1, VECTORS_MAX);
        let mut body = [0; 10];
        body[..2].copy_from_slice(&(vectors - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(table | u32::from(bar)).to_le_bytes());
        body[6..].copy_from_slice(&(pending | u32::from(bar)).to_le_bytes());
        let at = config.add_capability(spec::CAPABILITY_MSIX, at, &body, &[0, 0xc0]);
        let mut msix = Self {
            at,
            table: vec![0; usize::from(vectors) * ENTRY_BYTES].into(),
            pending: vec![0; usize::from(vectors).div_ceil(64)].into(),
            enabled: false,
            masked: false,
        };
        msix.reset();
        msix
    }

    pub fn vectors(&self) -> u16 {
        (self.table.len() / ENTRY_BYTES) as u16
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub fn reset(&mut self) {
        self.table.fill(0);
        for entry in self.table.chunks_mut(ENTRY_BYTES) {
            entry[12] = MASKED as u8;
        }
        self.pending.fill(0);
        (self.enabled, self.masked) = (false, false);
    }

    /// The control register may have been written.
    pub fn refresh(&mut self, config: &ConfigSpace) {
        let control = config.half(self.at + 2);
        (self.enabled, self.masked) = (control & MSIX_ENABLE != 0, control & MSIX_MASK != 0);
    }

    fn word(&self, vector: u16, at: usize) -> u32 {
        let at = usize::from(vector) * ENTRY_BYTES + at;
        let word = self.table.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        word.map_or(0, u32::from_le_bytes)
    }

    pub fn is_masked(&self, vector: u16) -> bool {
        self.masked || self.word(vector, 12) & MASKED != 0
    }

    /// The message of a vector; none while it is masked, which leaves it pending.
    pub fn notify(&mut self, vector: u16) -> Option<Message> {
        if vector >= self.vectors() {
            return None;
        }
        if self.is_masked(vector) {
            self.pending[usize::from(vector / 64)] |= 1 << (vector % 64);
            return None;
        }
        Some(self.message(vector))
    }

    pub fn message(&self, vector: u16) -> Message {
        let address = u64::from(self.word(vector, 0)) | u64::from(self.word(vector, 4)) << 32;
        (address, self.word(vector, 8))
    }

    /// A vector that waits and is masked no more.
    pub fn take_pending(&mut self) -> Option<Message> {
        if !self.enabled || self.masked {
            return None;
        }
        for at in 0..self.pending.len() {
            let mut bits = self.pending[at];
            while bits != 0 {
                let vector = (at * 64) as u16 + bits.trailing_zeros() as u16;
                if !self.is_masked(vector) {
                    self.pending[at] &= !(1 << (vector % 64));
                    return Some(self.message(vector));
                }
                bits &= bits - 1;
            }
        }
        None
    }

    pub fn read_table(&self, offset: u64, size: u8) -> u64 {
        read(&self.table, offset, size)
    }

    pub fn write_table(&mut self, offset: u64, size: u8, value: u64) {
        let Ok(offset) = usize::try_from(offset) else { return };
        for (index, byte) in value.to_le_bytes().into_iter().enumerate().take(usize::from(size)) {
            if let Some(now) = self.table.get_mut(offset + index) {
                *now = byte;
            }
        }
    }

    pub fn read_pending(&self, offset: u64, size: u8) -> u64 {
        let bytes: Vec<u8> = self.pending.iter().flat_map(|word| word.to_le_bytes()).collect();
        read(&bytes, offset, size)
    }
}

fn read(bytes: &[u8], offset: u64, size: u8) -> u64 {
    let byte = |index: u64| {
        let at = usize::try_from(offset + index).ok();
        u64::from(at.and_then(|at| bytes.get(at)).copied().unwrap_or(0)) << (8 * index)
    };
    (0..u64::from(size.min(8))).map(byte).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_vector_waits_and_is_sent_when_it_is_unmasked() {
        let mut config = ConfigSpace::new(false);
        let mut msix = Msix::add(&mut config, None, 3, (1, 0, 0x800));
        assert_eq!((config.half(0x42), config.word(0x44), config.word(0x48)), (2, 1, 0x801));
        msix.write_table(16, 8, 0xfee0_1000);
        msix.write_table(24, 4, 0x4041);
        config.write(0x42, 2, u32::from(MSIX_ENABLE));
        msix.refresh(&config);
        assert!(msix.is_enabled());
        assert_eq!((msix.notify(1), msix.read_pending(0, 8)), (None, 2));
        assert_eq!(msix.take_pending(), None);
        msix.write_table(28, 4, 0);
        assert_eq!(msix.take_pending(), Some((0xfee0_1000, 0x4041)));
        assert_eq!(msix.notify(1), Some((0xfee0_1000, 0x4041)));
        assert_eq!((msix.notify(3), msix.take_pending()), (None, None));
    }

    #[test]
    fn msi_puts_the_vector_into_the_data() {
        let mut config = ConfigSpace::new(false);
        let msi = Msi::add(&mut config, None, 4, true);
        config.write(0x44, 4, 0xfee0_0000);
        config.write(0x4c, 2, 0x4050);
        config.write(0x42, 2, 0x21); // four vectors
        assert!(msi.is_enabled(&config));
        assert_eq!(msi.notify(&mut config, 3), Some((0xfee0_0000, 0x4053)));
        config.write(0x50, 4, 8);
        assert_eq!(msi.notify(&mut config, 3), None);
        config.write(0x50, 4, 0);
        assert_eq!(msi.take_pending(&mut config), Some((0xfee0_0000, 0x4053)));
        assert_eq!(msi.take_pending(&mut config), None);
    }
}
