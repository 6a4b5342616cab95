//! Opening an image: everything that its header claims is checked here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::{Condvar, Mutex, RwLock};
use rustix::io::Errno;

use super::crypt::Crypt;
use super::geometry::Geometry;
use super::header::{
    AUTOCLEAR_BITMAPS, AUTOCLEAR_DATA_FILE_RAW, Header, L1_BYTES_MAX, REFCOUNT_TABLE_BYTES_MAX,
    SNAPSHOTS_MAX, incompatible,
};
use super::metadata::{CacheSizes, L2_CACHE_BYTES, Metadata, REFCOUNT_CACHE_BYTES};
use super::snapshots::SnapshotRow;
use super::{Qcow2, State, bitmaps, snapshots};
use crate::error::{Error, Result};
use crate::info::Fix;
use crate::node::{Node, NodeRef};
use crate::open::{OpenContext, OpenMode, open_child};
use crate::options::OpenOptions;

/// Opens an image whose file is open.
pub fn open(
    file: NodeRef,
    options: &mut OpenOptions,
    mode: &OpenMode,
    _context: &OpenContext,
) -> Result<NodeRef> {
    Ok(Arc::new(open_image(file, options, mode)?))
}

/// The same, for callers that need the format's own functions.
pub(super) fn open_image(
    file: NodeRef,
    options: &mut OpenOptions,
    mode: &OpenMode,
) -> Result<Qcow2> {
    let mut header = Header::read(&*file, mode.check)?;
    let runtime = Runtime::take(options, 1 << header.cluster_bits)?;
    if header.incompatible & incompatible::CORRUPT != 0 && mode.write && !mode.check {
        return Err(Error::Failed {
            action: "qcow2".into(),
            source: Box::new(Error::corrupt("Image is corrupt; cannot be opened read/write")),
        });
    }
    check_tables(&header, mode)?;
    let crypt = Crypt::open(&header, &*file, options, mode.no_data)?;
    let data_file = open_data_file(&header, options, mode)?;
    if let Some(lazy) = runtime.lazy_refcounts {
        if lazy && header.version < 3 {
            return Err(Error::invalid(
                "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level",
            ));
        }
        header.compatible = header.compatible & !1 | u64::from(lazy);
    }
    let rows = snapshots::read_rows(&*file, &header, mode.check)?;
    let dirty = header.incompatible & incompatible::DIRTY != 0;
    let mut meta = Metadata::open(&file, header, &runtime.caches)?;
    meta.discards = runtime.pass_discards.unwrap_or(mode.unmap);
    if let Some(data) = &data_file {
        meta.data_file = Some(data.clone());
        meta.untouched_from = data.size();
    }
    if mode.write && (!mode.check || mode.repair) {
        clear_autoclear(&mut meta)?;
    }
    let image = assemble(file, data_file, crypt, meta, rows, mode)?;
    if dirty && mode.write && !mode.check {
        let report = image
            .check(Fix { leaks: true, errors: true })
            .map_err(|error| error.during("Could not repair dirty image"))?;
        report.messages.iter().for_each(|message| crate::notices::say(message));
    }
    if mode.write && !mode.check && !mode.no_data {
        bitmaps::start_using(&mut image.state.lock())?;
    }
    Ok(image)
}

/// An image that was open for reading is going to be written.
pub(super) fn begin_writing(state: &mut State) -> Result<()> {
    if state.meta.header.incompatible & (incompatible::CORRUPT | incompatible::DIRTY) != 0 {
        return Err(Error::corrupt("Image is corrupt; cannot be opened read/write"));
    }
    clear_autoclear(&mut state.meta)?;
    bitmaps::start_using(state)
}

/// Puts an image together from what was read.
fn assemble(
    file: NodeRef,
    data_file: Option<NodeRef>,
    crypt: Option<Crypt>,
    mut meta: Metadata,
    rows: Vec<SnapshotRow>,
    mode: &OpenMode,
) -> Result<Qcow2> {
    let bitmaps = bitmaps::read_directory(&mut meta)?;
    Ok(Qcow2 {
        geometry: meta.geometry,
        compression: meta.header.compression,
        writable: AtomicBool::new(mode.write),
        discard_frees: meta.discards,
        crypt: crypt.map(Arc::new),
        file,
        data_file,
        backing: RwLock::new(None),
        size: AtomicU64::new(meta.header.size),
        state: Mutex::new(State {
            meta,
            snapshots: rows,
            bitmaps,
            bitmaps_opened: false,
            in_flight: Vec::new(),
            next_flight: 0,
            frozen: false,
            preallocated: None,
        }),
        landed: Condvar::new(),
        partial: Mutex::new(()),
        unpacked: Mutex::new(None),
    })
}

/// Options of an open image that are not in its header.
struct Runtime {
    lazy_refcounts: Option<bool>,
    caches: CacheSizes,
    pass_discards: Option<bool>,
}

impl Runtime {
    fn take(options: &mut OpenOptions, cluster: u64) -> Result<Self> {
        let lazy_refcounts = options.take_bool("lazy-refcounts")?;
        let pass_discards = options.take_bool("pass-discard-request")?;
        let total = options.take_size("cache-size")?;
        let l2 = options.take_size("l2-cache-size")?;
        let refcounts = options.take_size("refcount-cache-size")?;
        check_cache_sizes(total, l2, refcounts)?;
        let entry = options.take_size("l2-cache-entry-size")?;
        if entry.is_some_and(|bytes| !bytes.is_power_of_two() || !(512..=cluster).contains(&bytes))
        {
            return Err(Error::invalid(format!(
                "L2 cache entry size must be a power of two between 512 and the cluster size ({cluster})"
            )));
        }
        // Our caches keep tables until new ones need their room: what 0 stands for.
        if options.take_size("cache-clean-interval")?.is_some_and(|seconds| seconds != 0) {
            return Err(Error::unsupported(
                "The option cache-clean-interval is not supported, except with the value 0",
            ));
        }
        Ok(Self { lazy_refcounts, caches: CacheSizes::share(total, l2, refcounts), pass_discards })
    }
}

impl CacheSizes {
    /// A total is divided: what one cache does not take is the other's.
    fn share(total: Option<u64>, l2: Option<u64>, refcounts: Option<u64>) -> Self {
        let rest = |other: Option<u64>| Some(total?.saturating_sub(other.unwrap_or(0)));
        let bytes = |wanted: Option<u64>, default: usize| {
            wanted.map_or(default, |wanted| usize::try_from(wanted).unwrap_or(default))
        };
        let left = l2.and_then(|l2| rest(Some(l2)));
        Self {
            l2: bytes(l2.or_else(|| rest(refcounts)), L2_CACHE_BYTES),
            refcounts: bytes(refcounts.or(left), REFCOUNT_CACHE_BYTES),
        }
    }
}

fn check_cache_sizes(total: Option<u64>, l2: Option<u64>, refcounts: Option<u64>) -> Result<()> {
    let Some(total) = total else { return Ok(()) };
    let problem = match (l2, refcounts) {
        (Some(_), Some(_)) => {
            "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time"
        }
        (Some(l2), _) if l2 > total => "l2-cache-size may not exceed cache-size",
        (_, Some(count)) if count > total => "refcount-cache-size may not exceed cache-size",
        _ => return Ok(()),
    };
    Err(Error::invalid(problem))
}

/// A writer that does not know an autoclear feature must clear it: all others are cleared.
fn clear_autoclear(meta: &mut Metadata) -> Result<()> {
    let known = AUTOCLEAR_BITMAPS | AUTOCLEAR_DATA_FILE_RAW;
    if meta.header.autoclear & !known != 0 {
        meta.header.autoclear &= known;
        let bytes = meta.header.autoclear.to_be_bytes();
        meta.file.write_at(&bytes, 88)?;
    }
    Ok(())
}

fn check_tables(header: &Header, mode: &OpenMode) -> Result<()> {
    let cluster = 1u64 << header.cluster_bits;
    let geometry = Geometry::new(header);
    if geometry.subcluster < 512 {
        return Err(Error::corrupt(format!(
            "Unsupported subcluster size: {}",
            geometry.subcluster
        )));
    }
    let table = |what: &str, offset: u64, entries: u64, entry_bytes: u64, bytes_max: u64| {
        if entries > bytes_max / entry_bytes {
            return Err(Error::Os(Errno::FBIG).during_text(format!("{what} too large")));
        }
        let fits = offset.checked_add(entries * entry_bytes).is_some_and(|end| end < 1 << 63);
        if !fits || !offset.is_multiple_of(cluster) {
            return Err(Error::corrupt(format!("{what} offset invalid")));
        }
        Ok(())
    };
    if header.refcount_table_clusters == 0 && !mode.check {
        return Err(Error::corrupt("Image does not contain a reference count table"));
    }
    table(
        "Reference count table",
        header.refcount_table_offset,
        u64::from(header.refcount_table_clusters) * (cluster / 8),
        8,
        REFCOUNT_TABLE_BYTES_MAX,
    )?;
    if header.snapshot_count > SNAPSHOTS_MAX {
        return Err(Error::corrupt("Snapshot table too large"));
    }
    table(
        "Snapshot table",
        header.snapshots_offset,
        u64::from(header.snapshot_count),
        40,
        40 * u64::from(SNAPSHOTS_MAX),
    )?;
    table("Active L1 table", header.l1_offset, u64::from(header.l1_entries), 8, L1_BYTES_MAX)?;
    let needed = geometry.l1_entries_for(header.size);
    if needed > i32::MAX as u64 {
        return Err(Error::corrupt("Image is too big"));
    }
    if u64::from(header.l1_entries) < needed {
        return Err(Error::corrupt("L1 table is too small"));
    }
    Ok(())
}

fn open_data_file(
    header: &Header,
    options: &mut OpenOptions,
    mode: &OpenMode,
) -> Result<Option<NodeRef>> {
    let below = options.take_below("data-file");
    if !header.has_data_file() {
        if !below.is_empty() {
            return Err(Error::invalid(
                "'data-file' can only be set for images with an external data file",
            ));
        }
        return Ok(None);
    }
    let data = if !below.is_empty() {
        open_child(None, below, mode)?
    } else if let Some(name) = &header.data_file {
        open_child(Some(name), OpenOptions::new(), mode)?
    } else {
        return Err(Error::invalid("'data-file' is required for this image"));
    };
    data.lock(mode, true)?;
    Ok(Some(data))
}
