//! Tables in one block, with what must be patched once it is known where the block lies.

/// A table's header is this long.
const HEADER_BYTES: usize = 36;
/// Where a header keeps its sum.
const CHECKSUM: usize = 9;

/// A pointer in the block to another place in it.
#[derive(Clone, Copy, Debug)]
pub struct Pointer {
    /// Where the pointer is.
    pub at: usize,
    /// Its bytes.
    pub bytes: u8,
}

/// The block.
#[derive(Clone, Debug, Default)]
pub struct Image {
    bytes: Vec<u8>,
    pub(super) pointers: Vec<Pointer>,
    /// Start and length of each table, in the order in which they must be summed.
    pub(super) tables: Vec<(usize, usize)>,
    pub(super) roots: (usize, usize),
}

/// The byte that makes a sum zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

impl Image {
    /// The block, not linked: pointers are offsets, sums are zero.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds what is no table.
    pub fn add_raw(&mut self, align: usize, body: &[u8]) -> usize {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        let at = self.bytes.len();
        self.bytes.extend(body);
        at
    }

    /// Adds a table and says where it is.
    pub fn add(&mut self, signature: &[u8; 4], revision: u8, body: &[u8]) -> usize {
        let length = HEADER_BYTES + body.len();
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend(signature);
        header.extend((length as u32).to_le_bytes());
        header.extend([revision, 0]);
        header.extend(b"HOSTEL");
        header.extend(b"HOSTELPC");
        header.extend(1_u32.to_le_bytes());
        header.extend(b"HSTL");
        header.extend(1_u32.to_le_bytes());
        let at = self.add_raw(16, &header);
        self.bytes.extend(body);
        self.tables.push((at, length));
        at
    }

    /// Makes a field point to a place in the block.
    pub fn point(&mut self, at: usize, bytes: u8, target: usize) {
        let field = &mut self.bytes[at..at + usize::from(bytes)];
        field.copy_from_slice(&(target as u64).to_le_bytes()[..usize::from(bytes)]);
        self.pointers.push(Pointer { at, bytes });
    }

    /// Names the root tables, with 32-bit and with 64-bit entries.
    pub fn set_roots(&mut self, rsdt: usize, xsdt: usize) {
        self.roots = (rsdt, xsdt);
    }

    /// The root pointer, with offsets in the place of addresses and without sums.
    #[must_use]
    pub fn root_pointer(&self) -> [u8; 36] {
        let mut pointer = [0; 36];
        pointer[..8].copy_from_slice(b"RSD PTR ");
        pointer[9..15].copy_from_slice(b"HOSTEL");
        pointer[15] = 2;
        pointer[16..20].copy_from_slice(&(self.roots.0 as u32).to_le_bytes());
        pointer[20..24].copy_from_slice(&36_u32.to_le_bytes());
        pointer[24..32].copy_from_slice(&(self.roots.1 as u64).to_le_bytes());
        pointer
    }

    /// Root pointer and block, linked for this address.
    #[must_use]
    pub fn linked(&self, base: u64) -> ([u8; 36], Vec<u8>) {
        let mut bytes = self.bytes.clone();
        for Pointer { at, bytes: length } in &self.pointers {
            add_base(&mut bytes[*at..at + usize::from(*length)], base);
        }
        for (at, length) in &self.tables {
            bytes[at + CHECKSUM] = checksum(&bytes[*at..at + length]);
        }
        let mut pointer = self.root_pointer();
        add_base(&mut pointer[16..20], base);
        add_base(&mut pointer[24..32], base);
        pointer[8] = checksum(&pointer[..20]);
        pointer[32] = checksum(&pointer);
        (pointer, bytes)
    }
}

fn add_base(field: &mut [u8], base: u64) {
    let mut value = [0; 8];
    value[..field.len()].copy_from_slice(field);
    let value = u64::from_le_bytes(value).wrapping_add(base).to_le_bytes();
    field.copy_from_slice(&value[..field.len()]);
}
