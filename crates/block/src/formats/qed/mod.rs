//! `qed`: QEMU's enhanced disks, an older relative of qcow2. They are read, not written.
//!
//! `-blockdev driver=qed,read-only=on,file.driver=file,file.filename=disk.qed`

use std::sync::Arc;

use parking_lot::Mutex;

use super::Format;
use super::read_only::{Kind, Pieces, ReadOnly, le32, le64, must_be_read_only, read_table};
use crate::error::{Error, Result};
use crate::info::ImageInfo;
use crate::node::{Node, NodeRef};
use crate::open::{OpenContext, OpenMode};
use crate::options::OpenOptions;

/// The table row.
pub const FORMAT: Format = Format {
    name: "qed",
    probe: |start, _| if start.starts_with(MAGIC) { 100 } else { 0 },
    open,
    create: None,
    create_options: &[],
    amend_options: &[],
    backing: true,
    measure: None,
};

const MAGIC: &[u8] = b"QED\0";
const HEADER_BYTES: u64 = 64;
const FEATURE_BACKING: u64 = 1;
const FEATURE_CHECK: u64 = 2;
const FEATURE_RAW_BACKING: u64 = 4;
const NAME_BYTES_MAX: u32 = 1023;
/// A table entry for a cluster of zeros.
const ZERO: u64 = 1;

struct Qed {
    size: u64,
    cluster: u64,
    entries: u64,
    l1: Vec<u64>,
    /// The second-level table that was read last: its place and contents.
    l2: Mutex<Option<(u64, Arc<Vec<u64>>)>>,
    backing: Option<String>,
    backing_is_raw: bool,
    needs_check: bool,
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|word| le64(word, 0)).collect()
}

fn open(
    file: NodeRef,
    _options: &mut OpenOptions,
    mode: &OpenMode,
    _context: &OpenContext,
) -> Result<NodeRef> {
    must_be_read_only(mode)?;
    let header = read_table(&*file, 0, HEADER_BYTES, "The header")?;
    if !header.starts_with(MAGIC) {
        return Err(Error::invalid("Image not in QED format"));
    }
    let (cluster, tables) = (u64::from(le32(&header, 4)), u64::from(le32(&header, 8)));
    let features = le64(&header, 16);
    let unknown = features & !(FEATURE_BACKING | FEATURE_CHECK | FEATURE_RAW_BACKING);
    if unknown != 0 {
        return Err(Error::unsupported(format!("Unsupported QED features: {unknown:x}")));
    }
    if !cluster.is_power_of_two() || !(1 << 12..=1 << 26).contains(&cluster) {
        return Err(Error::corrupt(format!("QED cluster size {cluster} is invalid")));
    }
    if !tables.is_power_of_two() || tables > 16 {
        return Err(Error::corrupt(format!("QED table size {tables} is invalid")));
    }
    let entries = tables * cluster / 8;
    let size = le64(&header, 48);
    let fits = entries.checked_mul(entries).and_then(|all| all.checked_mul(cluster));
    if !size.is_multiple_of(512) || fits.is_some_and(|most| size > most) {
        return Err(Error::corrupt(format!("QED image size {size} is invalid")));
    }
    let l1_offset = le64(&header, 40);
    if !l1_offset.is_multiple_of(cluster) || l1_offset == 0 {
        return Err(Error::corrupt(format!("QED L1 table offset {l1_offset:#x} is invalid")));
    }
    let l1 = words(&read_table(&*file, l1_offset, tables * cluster, "The L1 table")?);
    let backing = if features & FEATURE_BACKING != 0 {
        let (at, length) = (le32(&header, 56), le32(&header, 60));
        if length > NAME_BYTES_MAX || u64::from(at) + u64::from(length) > cluster {
            return Err(Error::corrupt("The backing file's name reaches beyond the header"));
        }
        let name = read_table(&*file, u64::from(at), u64::from(length), "The backing file's name")?;
        Some(String::from_utf8_lossy(&name).into_owned())
    } else {
        None
    };
    let qed = Qed {
        size,
        cluster,
        entries,
        l1,
        l2: Mutex::new(None),
        backing,
        backing_is_raw: features & FEATURE_RAW_BACKING != 0,
        needs_check: features & FEATURE_CHECK != 0,
    };
    Ok(Arc::new(ReadOnly::new(file, qed)))
}

impl Qed {
    fn table(&self, file: &dyn Node, offset: u64) -> Result<Arc<Vec<u64>>> {
        let mut last = self.l2.lock();
        if let Some((at, table)) = &*last
            && *at == offset
        {
            return Ok(Arc::clone(table));
        }
        if !offset.is_multiple_of(self.cluster) {
            return Err(Error::corrupt(format!("QED L2 table offset {offset:#x} is unaligned")));
        }
        let table = Arc::new(words(&read_table(file, offset, self.entries * 8, "An L2 table")?));
        *last = Some((offset, Arc::clone(&table)));
        Ok(table)
    }
}

impl Pieces for Qed {
    const DRIVER: &'static str = "qed";

    fn size(&self) -> u64 {
        self.size
    }

    fn find(&self, file: &dyn Node, offset: u64) -> Result<(Kind, u64)> {
        let within = offset % self.cluster;
        let span = self.entries * self.cluster;
        let table = self.l1.get((offset / span) as usize).copied().unwrap_or(0);
        if table == 0 {
            return Ok((Kind::Below, span - offset % span));
        }
        let table = self.table(file, table)?;
        let index = ((offset / self.cluster) % self.entries) as usize;
        let kind = match table[index] {
            0 => Kind::Below,
            ZERO => Kind::Zero,
            place if !place.is_multiple_of(self.cluster) => {
                return Err(Error::corrupt(format!("QED cluster offset {place:#x} is unaligned")));
            }
            place => Kind::At(place + within),
        };
        let alike =
            table[index + 1..].iter().enumerate().take_while(|(number, entry)| match kind {
                Kind::At(_) => **entry == table[index] + (*number as u64 + 1) * self.cluster,
                _ => **entry == table[index],
            });
        Ok((kind, (alike.count() as u64 + 1) * self.cluster - within))
    }

    fn cluster_bytes(&self) -> Option<u64> {
        Some(self.cluster)
    }

    fn info(&self) -> ImageInfo {
        ImageInfo {
            dirty: self.needs_check,
            backing_file: self.backing.clone(),
            backing_format: self.backing_is_raw.then(|| "raw".to_owned()),
            ..ImageInfo::default()
        }
    }
}
