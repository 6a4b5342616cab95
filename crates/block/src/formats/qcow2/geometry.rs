//! The arithmetic of a qcow2 image: clusters, tables, entries.

use super::header::{Header, incompatible};

/// The entry's cluster is used once, so it may be written in place.
pub const COPIED: u64 = 1 << 63;
/// The entry describes a compressed cluster.
pub const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeros (not with subclusters).
pub const ZERO: u64 = 1;
/// Where an entry's offset stands.
pub const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// Bits of an L1 entry that must be zero.
pub const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// Bits of an L2 entry of a plain cluster that must be zero.
pub const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// Compressed clusters are counted in these units.
pub const SECTOR_BYTES: u64 = 512;

/// What does not change while an image is open.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// log2 of the cluster's bytes.
    pub cluster_bits: u32,
    /// The cluster's bytes.
    pub cluster: u64,
    /// log2 of the entries of an L2 table.
    pub l2_bits: u32,
    /// Bytes of an L2 entry.
    pub entry_bytes: usize,
    /// Subclusters in a cluster: 1 or 32.
    pub subclusters: u32,
    /// Bytes of a subcluster.
    pub subcluster: u64,
    /// log2 of a refcount's bits.
    pub refcount_order: u32,
    /// log2 of the refcounts in a block.
    pub refcount_block_bits: u32,
    /// Whether the zero flag exists.
    pub zero_flag: bool,
}

/// An L2 entry with its bitmap (0 without subclusters).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// Offset and flags.
    pub word: u64,
    /// Low half: allocated subclusters; high half: zero ones.
    pub bitmap: u64,
}

/// What a subcluster is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing here: the backing file answers.
    Unallocated,
    /// The cluster has a place, but the backing file answers for this subcluster.
    UnallocatedInPlace,
    /// Zeros, without a place.
    Zero,
    /// Zeros; the cluster has a place.
    ZeroInPlace,
    /// Data.
    Normal,
    /// Data, compressed.
    Compressed,
    /// Both zero and allocated: damage.
    Invalid,
}

impl Kind {
    /// The backing file answers.
    pub fn is_unallocated(self) -> bool {
        matches!(self, Self::Unallocated | Self::UnallocatedInPlace)
    }

    /// Reads as zeros.
    pub fn is_zero(self) -> bool {
        matches!(self, Self::Zero | Self::ZeroInPlace)
    }
}

impl Geometry {
    /// Of an image with this header.
    pub fn new(header: &Header) -> Self {
        let extended = header.incompatible & incompatible::EXTENDED_L2 != 0;
        let cluster_bits = header.cluster_bits;
        let subclusters: u32 = if extended { 32 } else { 1 };
        Self {
            cluster_bits,
            cluster: 1 << cluster_bits,
            l2_bits: cluster_bits - if extended { 4 } else { 3 },
            entry_bytes: if extended { 16 } else { 8 },
            subclusters,
            subcluster: (1 << cluster_bits) / u64::from(subclusters),
            refcount_order: header.refcount_order,
            refcount_block_bits: cluster_bits + 3 - header.refcount_order,
            zero_flag: header.version >= 3,
        }
    }

    /// The largest refcount.
    pub fn refcount_max(&self) -> u64 {
        if self.refcount_order == 6 { u64::MAX } else { (1 << (1 << self.refcount_order)) - 1 }
    }

    /// Bytes of guest data behind one L2 table.
    pub fn l2_span(&self) -> u64 {
        1 << (self.cluster_bits + self.l2_bits)
    }

    /// L1 entries for a guest size.
    pub fn l1_entries_for(&self, size: u64) -> u64 {
        size.div_ceil(self.l2_span())
    }

    /// The place of `guest` in the L1 table.
    pub fn l1_index(&self, guest: u64) -> usize {
        (guest >> (self.cluster_bits + self.l2_bits)) as usize
    }

    /// The place of `guest` in its L2 table.
    pub fn l2_index(&self, guest: u64) -> usize {
        ((guest >> self.cluster_bits) & ((1 << self.l2_bits) - 1)) as usize
    }

    /// The place of `guest` within its cluster.
    pub fn in_cluster(&self, guest: u64) -> u64 {
        guest & (self.cluster - 1)
    }

    /// The start of the cluster.
    pub fn cluster_start(&self, guest: u64) -> u64 {
        guest & !(self.cluster - 1)
    }

    /// The subcluster of `guest` within its cluster.
    pub fn subcluster_index(&self, guest: u64) -> u32 {
        (self.in_cluster(guest) / self.subcluster) as u32
    }

    /// Whether entries have a bitmap.
    pub fn extended(&self) -> bool {
        self.subclusters > 1
    }

    /// What one subcluster is.
    pub fn kind(&self, entry: Entry, index: u32, external_data: bool) -> Kind {
        if entry.word & COMPRESSED != 0 {
            return Kind::Compressed;
        }
        let offset = entry.word & OFFSET_MASK;
        // In a data file offset 0 is a place like any other.
        let placed = offset != 0 || (external_data && entry.word & COPIED != 0);
        if self.extended() {
            let (allocated, zero) =
                (entry.bitmap >> index & 1 != 0, entry.bitmap >> (index + 32) & 1 != 0);
            return match (allocated, zero, placed) {
                (true, true, _) | (true, false, false) => Kind::Invalid,
                (true, false, true) => Kind::Normal,
                (false, true, true) => Kind::ZeroInPlace,
                (false, true, false) => Kind::Zero,
                (false, false, true) => Kind::UnallocatedInPlace,
                (false, false, false) => Kind::Unallocated,
            };
        }
        match (self.zero_flag && entry.word & ZERO != 0, placed) {
            (true, true) => Kind::ZeroInPlace,
            (true, false) => Kind::Zero,
            (false, true) => Kind::Normal,
            (false, false) => Kind::Unallocated,
        }
    }

    /// Where a compressed cluster lies, and the most bytes it may have there.
    pub fn compressed_place(&self, word: u64) -> (u64, u64) {
        let shift = 62 - (self.cluster_bits - 8);
        let offset = word & ((1 << shift) - 1);
        let sectors = ((word & !(COMPRESSED | COPIED)) >> shift) + 1;
        (offset, sectors * SECTOR_BYTES - offset % SECTOR_BYTES)
    }

    /// The entry for a compressed cluster; `None` when the place cannot be expressed.
    pub fn compressed_word(&self, offset: u64, bytes: u64) -> Option<u64> {
        let shift = 62 - (self.cluster_bits - 8);
        let sectors = (offset + bytes - 1) / SECTOR_BYTES - offset / SECTOR_BYTES;
        (offset < 1 << shift).then_some(COMPRESSED | sectors << shift | offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_places_survive_encoding() {
        let geometry = Geometry {
            cluster_bits: 16,
            cluster: 1 << 16,
            l2_bits: 13,
            entry_bytes: 8,
            subclusters: 1,
            subcluster: 1 << 16,
            refcount_order: 4,
            refcount_block_bits: 15,
            zero_flag: true,
        };
        for (offset, bytes) in [(0x50000, 1), (0x501ff, 2), (0x50123, 65535), (0x50200, 512)] {
            let word = geometry.compressed_word(offset, bytes).unwrap();
            let (place, room) = geometry.compressed_place(word);
            assert_eq!(place, offset);
            assert!(room >= bytes && room < bytes + 512, "{bytes} in {room}");
        }
    }
}
