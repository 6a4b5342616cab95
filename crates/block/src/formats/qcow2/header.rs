//! The header of a qcow2 image and its extensions, as `docs/interop/qcow2` of QEMU describes them.

use crate::error::{Error, Result};
use crate::node::Node;

/// The first four bytes.
pub const MAGIC: u32 = 0x5146_49fb; // "QFI" and 0xfb
/// The header of version 2, and the least that one of version 3 has.
pub const HEADER_V2_BYTES: usize = 72;
/// What version 3 images must have; longer headers carry the compression type.
const HEADER_V3_BYTES: usize = 104;
const HEADER_V3_WRITTEN: usize = 112;
/// Longer names are refused by every reader.
const BACKING_NAME_BYTES_MAX: u32 = 1023;
/// Tables larger than these are refused, so that a header cannot ask for any amount of memory.
pub const L1_BYTES_MAX: u64 = 32 << 20;
/// The largest refcount table.
pub const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
/// The most snapshots in an image.
pub const SNAPSHOTS_MAX: u32 = 65_536;

/// Incompatible features: a reader that does not know one must not open the image.
pub mod incompatible {
    /// Refcounts may be out of date.
    pub const DIRTY: u64 = 1 << 0;
    /// Damage was found; no writes before a repair.
    pub const CORRUPT: u64 = 1 << 1;
    /// Guest data lies in another file.
    pub const DATA_FILE: u64 = 1 << 2;
    /// The compression type is not zlib.
    pub const COMPRESSION: u64 = 1 << 3;
    /// L2 entries have a bitmap of subclusters.
    pub const EXTENDED_L2: u64 = 1 << 4;
    /// All of them.
    pub const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;
}

/// Compatible feature: refcounts may be postponed.
pub const LAZY_REFCOUNTS: u64 = 1 << 0;
/// Autoclear feature: the bitmaps extension is consistent.
pub const AUTOCLEAR_BITMAPS: u64 = 1 << 0;
/// Autoclear feature: the data file can be read as a raw image.
pub const AUTOCLEAR_DATA_FILE_RAW: u64 = 1 << 1;

const EXT_END: u32 = 0;
const EXT_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXT_FEATURES: u32 = 0x6803_f857;
const EXT_CRYPTO: u32 = 0x0537_be77;
const EXT_BITMAPS: u32 = 0x2385_2875;
const EXT_DATA_FILE: u32 = 0x4441_5441;

/// How clusters are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// Raw deflate with a window of 4 KiB.
    #[default]
    Zlib,
    /// One zstd frame.
    Zstd,
}

/// Where the bitmap directory lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BitmapsExtension {
    /// How many bitmaps.
    pub count: u32,
    /// The directory's bytes.
    pub directory_bytes: u64,
    /// The directory's place.
    pub directory_offset: u64,
}

/// The header with its extensions.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// The cluster size as a power of two.
    pub cluster_bits: u32,
    /// The bytes that a guest sees.
    pub size: u64,
    /// 0 none, 1 AES, 2 LUKS.
    pub crypt_method: u32,
    /// Entries of the active L1 table.
    pub l1_entries: u32,
    /// Its place.
    pub l1_offset: u64,
    /// The refcount table's place.
    pub refcount_table_offset: u64,
    /// The refcount table's clusters.
    pub refcount_table_clusters: u32,
    /// Snapshots.
    pub snapshot_count: u32,
    /// Their table's place.
    pub snapshots_offset: u64,
    /// Incompatible features.
    pub incompatible: u64,
    /// Compatible features.
    pub compatible: u64,
    /// Autoclear features.
    pub autoclear: u64,
    /// Refcounts have 2^this bits.
    pub refcount_order: u32,
    /// How clusters are compressed.
    pub compression: Compression,
    /// The backing file's name.
    pub backing_file: Option<String>,
    /// The backing file's format.
    pub backing_format: Option<String>,
    /// The data file's name.
    pub data_file: Option<String>,
    /// The LUKS header's place and length.
    pub crypto: Option<(u64, u64)>,
    /// The bitmaps.
    pub bitmaps: Option<BitmapsExtension>,
    /// The names of features, kept as found when a header is rewritten.
    pub has_feature_table: bool,
    /// Header bytes beyond those we know, and extensions we do not know: kept as they are.
    pub unknown_fields: Vec<u8>,
    /// Type and data.
    pub unknown_extensions: Vec<(u32, Vec<u8>)>,
}

pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

impl Header {
    /// Reads and checks the header of an image.
    pub fn read(file: &dyn Node, check_only: bool) -> Result<Self> {
        let mut start = [0; HEADER_V3_WRITTEN];
        file.read_at(&mut start, 0).map_err(|error| error.during("Could not read qcow2 header"))?;
        let mut header = Self::parse_fixed(&start)?;
        let header_bytes =
            if header.version == 2 { HEADER_V2_BYTES } else { be32(&start, 100) as usize };
        if header.version >= 3 && header_bytes < HEADER_V3_BYTES {
            return Err(Error::corrupt("qcow2 header too short"));
        }
        let cluster = 1usize << header.cluster_bits;
        if header_bytes > cluster {
            return Err(Error::corrupt("qcow2 header exceeds cluster size"));
        }
        let backing_offset = be64(&start, 8);
        let backing_bytes = be32(&start, 16);
        if backing_offset > cluster as u64 {
            return Err(Error::corrupt("Invalid backing file offset"));
        }
        let mut head = vec![0; cluster];
        file.read_at(&mut head, 0)?;
        let end = if backing_offset == 0 { cluster } else { backing_offset as usize };
        if header_bytes > HEADER_V3_BYTES {
            match head[104] {
                0 => {}
                1 => header.compression = Compression::Zstd,
                other => {
                    return Err(Error::unsupported(format!(
                        "qcow2: unknown compression type: {other}"
                    )));
                }
            }
        }
        if header_bytes > HEADER_V3_WRITTEN {
            header.unknown_fields = head[HEADER_V3_WRITTEN..header_bytes].to_vec();
        }
        let features = header.read_extensions(&head, header_bytes, end)?;
        header.check_features(&features, check_only)?;
        header.read_backing(&head, backing_offset as usize, backing_bytes, end)?;
        Ok(header)
    }

    fn parse_fixed(start: &[u8]) -> Result<Self> {
        if be32(start, 0) != MAGIC {
            return Err(Error::corrupt("Image is not in qcow2 format"));
        }
        let version = be32(start, 4);
        if !(2..=3).contains(&version) {
            return Err(Error::unsupported(format!("Unsupported qcow2 version {version}")));
        }
        let cluster_bits = be32(start, 20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(Error::corrupt(format!("Unsupported cluster size: 2^{cluster_bits}")));
        }
        let v3 = |at: usize| if version >= 3 { be64(start, at) } else { 0 };
        let refcount_order = if version >= 3 { be32(start, 96) } else { 4 };
        if refcount_order > 6 {
            return Err(Error::corrupt(
                "Reference count entry width too large; may not exceed 64 bits",
            ));
        }
        Ok(Self {
            version,
            cluster_bits,
            size: be64(start, 24),
            crypt_method: be32(start, 32),
            l1_entries: be32(start, 36),
            l1_offset: be64(start, 40),
            refcount_table_offset: be64(start, 48),
            refcount_table_clusters: be32(start, 56),
            snapshot_count: be32(start, 60),
            snapshots_offset: be64(start, 64),
            incompatible: v3(72),
            compatible: v3(80),
            autoclear: v3(88),
            refcount_order,
            compression: Compression::Zlib,
            backing_file: None,
            backing_format: None,
            data_file: None,
            crypto: None,
            bitmaps: None,
            has_feature_table: false,
            unknown_fields: Vec::new(),
            unknown_extensions: Vec::new(),
        })
    }

    fn read_backing(&mut self, head: &[u8], offset: usize, bytes: u32, _end: usize) -> Result<()> {
        if offset == 0 {
            return Ok(());
        }
        let room = (head.len() - offset) as u32;
        if bytes > BACKING_NAME_BYTES_MAX.min(room) {
            return Err(Error::corrupt("Backing file name too long"));
        }
        let name = &head[offset..offset + bytes as usize];
        self.backing_file = Some(String::from_utf8_lossy(name).into_owned());
        Ok(())
    }

    /// Returns the names of features from the image's own table: kind, bit, name.
    fn read_extensions(
        &mut self,
        head: &[u8],
        start: usize,
        end: usize,
    ) -> Result<Vec<(u8, u8, String)>> {
        let mut features = Vec::new();
        let mut at = start;
        while at + 8 <= end {
            let (kind, length) = (be32(head, at), be32(head, at + 4) as usize);
            at += 8;
            if kind == EXT_END {
                break;
            }
            if length > end - at {
                return Err(Error::invalid("Header extension too large"));
            }
            let data = &head[at..at + length];
            self.take_extension(kind, data, &mut features)?;
            at += length.next_multiple_of(8);
        }
        Ok(features)
    }

    fn take_extension(
        &mut self,
        kind: u32,
        data: &[u8],
        features: &mut Vec<(u8, u8, String)>,
    ) -> Result<()> {
        let text = || String::from_utf8_lossy(data).trim_end_matches('\0').to_string();
        match kind {
            EXT_BACKING_FORMAT if data.len() >= 16 => {
                return Err(Error::invalid(format!(
                    "ERROR: ext_backing_format: len={} too large (>=16)",
                    data.len()
                )));
            }
            EXT_BACKING_FORMAT => self.backing_format = Some(text()),
            EXT_FEATURES => {
                self.has_feature_table = true;
                // A last row may be cut short.
                for row in data.chunks(48).filter(|row| row.len() > 2) {
                    let name = String::from_utf8_lossy(&row[2..]);
                    features.push((row[0], row[1], name.trim_end_matches(['\0', ' ']).to_string()));
                }
            }
            EXT_DATA_FILE => self.data_file = Some(text()),
            EXT_CRYPTO => {
                if self.crypt_method != 2 {
                    return Err(Error::invalid(
                        "CRYPTO header extension only expected with LUKS encryption method",
                    ));
                }
                if data.len() != 16 {
                    return Err(Error::invalid(format!(
                        "CRYPTO header extension size {}, but expected size 16",
                        data.len()
                    )));
                }
                let (offset, length) = (be64(data, 0), be64(data, 8));
                if !offset.is_multiple_of(1 << self.cluster_bits) {
                    return Err(Error::invalid(format!(
                        "Encryption header offset '{offset}' is not a multiple of cluster size '{}'",
                        1u64 << self.cluster_bits
                    )));
                }
                self.crypto = Some((offset, length));
            }
            // Without the autoclear bit a writer that knows no bitmaps has changed the image.
            EXT_BITMAPS if self.autoclear & AUTOCLEAR_BITMAPS == 0 => {}
            EXT_BITMAPS => self.bitmaps = Some(self.bitmaps_extension(data)?),
            other => self.unknown_extensions.push((other, data.to_vec())),
        }
        Ok(())
    }

    fn bitmaps_extension(&self, data: &[u8]) -> Result<BitmapsExtension> {
        if data.len() != 24 {
            return Err(Error::invalid("bitmaps_ext: Invalid extension length"));
        }
        let extension = BitmapsExtension {
            count: be32(data, 0),
            directory_bytes: be64(data, 8),
            directory_offset: be64(data, 16),
        };
        if be32(data, 4) != 0 {
            return Err(Error::invalid("bitmaps_ext: Reserved field is not zero"));
        }
        if extension.count > super::bitmaps::BITMAPS_MAX {
            return Err(Error::invalid(format!(
                "bitmaps_ext: Image has {} bitmaps, exceeding the QEMU supported maximum of {}",
                extension.count,
                super::bitmaps::BITMAPS_MAX
            )));
        }
        if extension.count == 0 {
            return Err(Error::invalid("found bitmaps extension with zero bitmaps"));
        }
        if !extension.directory_offset.is_multiple_of(1 << self.cluster_bits) {
            return Err(Error::invalid("bitmaps_ext: invalid bitmap directory offset"));
        }
        if extension.directory_bytes > super::bitmaps::DIRECTORY_BYTES_MAX {
            return Err(Error::invalid(format!(
                "bitmaps_ext: bitmap directory size ({}) exceeds the maximum supported size ({})",
                extension.directory_bytes,
                super::bitmaps::DIRECTORY_BYTES_MAX
            )));
        }
        Ok(extension)
    }

    fn check_features(&self, features: &[(u8, u8, String)], _check_only: bool) -> Result<()> {
        let unknown = self.incompatible & !incompatible::KNOWN;
        if unknown != 0 {
            let mut left = unknown;
            let mut names = Vec::new();
            for (kind, bit, name) in features {
                if *kind == 0 && *bit < 64 && left & 1 << bit != 0 {
                    names.push(name.clone());
                    left &= !(1 << bit);
                }
            }
            if left != 0 {
                names.push(format!("Unknown incompatible feature: {left:x}"));
            }
            let names = names.join(", ");
            return Err(Error::unsupported(format!("Unsupported qcow2 feature(s): {names}")));
        }
        let marked = self.incompatible & incompatible::COMPRESSION != 0;
        if marked != (self.compression != Compression::Zlib) {
            return Err(Error::corrupt(format!(
                "qcow2: Compression type incompatible feature bit must {}be set",
                if marked { "not " } else { "" }
            )));
        }
        Ok(())
    }

    /// The header's cluster as it stands in the file.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let cluster = 1usize << self.cluster_bits;
        let mut bytes = Vec::with_capacity(512);
        let put32 = |bytes: &mut Vec<u8>, value: u32| bytes.extend(value.to_be_bytes());
        let put64 = |bytes: &mut Vec<u8>, value: u64| bytes.extend(value.to_be_bytes());
        put32(&mut bytes, MAGIC);
        put32(&mut bytes, self.version);
        put64(&mut bytes, 0); // the backing file's name, filled in below
        put32(&mut bytes, 0);
        put32(&mut bytes, self.cluster_bits);
        put64(&mut bytes, self.size);
        put32(&mut bytes, self.crypt_method);
        put32(&mut bytes, self.l1_entries);
        put64(&mut bytes, self.l1_offset);
        put64(&mut bytes, self.refcount_table_offset);
        put32(&mut bytes, self.refcount_table_clusters);
        put32(&mut bytes, self.snapshot_count);
        put64(&mut bytes, self.snapshots_offset);
        if self.version >= 3 {
            put64(&mut bytes, self.incompatible);
            put64(&mut bytes, self.compatible);
            put64(&mut bytes, self.autoclear);
            put32(&mut bytes, self.refcount_order);
            put32(&mut bytes, (HEADER_V3_WRITTEN + self.unknown_fields.len()) as u32);
            bytes.push(u8::from(self.compression == Compression::Zstd));
            bytes.extend([0; 7]);
            bytes.extend(&self.unknown_fields);
        }
        self.encode_extensions(&mut bytes);
        if let Some(name) = &self.backing_file {
            let at = bytes.len() as u64;
            bytes[8..16].copy_from_slice(&at.to_be_bytes());
            bytes[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
            bytes.extend(name.as_bytes());
        }
        if bytes.len() > cluster {
            return Err(Error::Os(rustix::io::Errno::NOSPC));
        }
        bytes.resize(cluster, 0);
        Ok(bytes)
    }

    fn encode_extensions(&self, bytes: &mut Vec<u8>) {
        let put = |bytes: &mut Vec<u8>, kind: u32, data: &[u8]| {
            bytes.extend(kind.to_be_bytes());
            bytes.extend((data.len() as u32).to_be_bytes());
            bytes.extend(data);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        };
        if let Some(format) = &self.backing_format {
            put(bytes, EXT_BACKING_FORMAT, format.as_bytes());
        }
        if let Some(name) = &self.data_file
            && self.incompatible & incompatible::DATA_FILE != 0
        {
            put(bytes, EXT_DATA_FILE, name.as_bytes());
        }
        if let Some((offset, length)) = self.crypto {
            let mut data = [0; 16];
            data[..8].copy_from_slice(&offset.to_be_bytes());
            data[8..].copy_from_slice(&length.to_be_bytes());
            put(bytes, EXT_CRYPTO, &data);
        }
        if self.version >= 3 && 1 << self.cluster_bits >= FEATURE_TABLE_CLUSTER_MIN {
            put(bytes, EXT_FEATURES, &feature_table());
        }
        if let Some(bitmaps) = self.bitmaps {
            let mut data = [0; 24];
            data[..4].copy_from_slice(&bitmaps.count.to_be_bytes());
            data[8..16].copy_from_slice(&bitmaps.directory_bytes.to_be_bytes());
            data[16..].copy_from_slice(&bitmaps.directory_offset.to_be_bytes());
            put(bytes, EXT_BITMAPS, &data);
        }
        for (kind, data) in &self.unknown_extensions {
            put(bytes, *kind, data);
        }
        put(bytes, EXT_END, &[]);
    }

    /// Whether the guest's data lies in another file.
    pub fn has_data_file(&self) -> bool {
        self.incompatible & incompatible::DATA_FILE != 0
    }

    /// Whether the data file can be read as a raw image.
    pub fn data_file_raw(&self) -> bool {
        self.has_data_file() && self.autoclear & AUTOCLEAR_DATA_FILE_RAW != 0
    }
}

/// With smaller clusters there is no room for the names of features.
const FEATURE_TABLE_CLUSTER_MIN: u32 = 4096;

/// Names for readers that do not know a feature: kind, bit, name.
const FEATURES: [(u8, u8, &str); 8] = [
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
];

fn feature_table() -> Vec<u8> {
    let mut table = Vec::with_capacity(FEATURES.len() * 48);
    for (kind, bit, name) in FEATURES {
        let start = table.len();
        table.extend([kind, bit]);
        table.extend(name.as_bytes());
        table.resize(start + 48, 0);
    }
    table
}
