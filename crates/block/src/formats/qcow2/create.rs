//! Making images, and saying how large one would become.

use rustix::io::Errno;

use super::geometry::{COPIED, Entry, Geometry};
use super::header::{AUTOCLEAR_DATA_FILE_RAW, Compression, Header, LAZY_REFCOUNTS, incompatible};
use super::metadata::put_refcount;
use super::open::open_image;
use super::{Qcow2, crypt};
use crate::error::{Error, Result};
use crate::formats::Measure;
use crate::formats::luks::keys;
use crate::node::{Node, NodeRef, Preallocation, Zeroing, status_above};
use crate::open::{OpenContext, OpenMode, create_protocol, open_created};
use crate::options::{CreateOptions, OpenOptions, OptionKind, OptionSpec};

/// What `create` understands, in the order in which it is displayed.
pub const CREATE_OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "encryption",
        OptionKind::Bool,
        "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
    ),
    OptionSpec::new(
        "encrypt.format",
        OptionKind::Text,
        "Encrypt the image, format choices: 'aes', 'luks'",
    ),
    OptionSpec::new(
        "encrypt.key-secret",
        OptionKind::Text,
        "ID of secret providing qcow AES key or LUKS passphrase",
    ),
    OptionSpec::new("encrypt.cipher-alg", OptionKind::Text, "Name of encryption cipher algorithm"),
    OptionSpec::new("encrypt.cipher-mode", OptionKind::Text, "Name of encryption cipher mode"),
    OptionSpec::new("encrypt.ivgen-alg", OptionKind::Text, "Name of IV generator algorithm"),
    OptionSpec::new(
        "encrypt.ivgen-hash-alg",
        OptionKind::Text,
        "Name of IV generator hash algorithm",
    ),
    OptionSpec::new("encrypt.hash-alg", OptionKind::Text, "Name of encryption hash algorithm"),
    OptionSpec::new(
        "encrypt.iter-time",
        OptionKind::Number,
        "Time to spend in PBKDF in milliseconds",
    ),
    OptionSpec::new("cluster_size", OptionKind::Size, "qcow2 cluster size").or("65536"),
    OptionSpec::new("extended_l2", OptionKind::Bool, "Extended L2 tables").or("off"),
    OptionSpec::new(
        "preallocation",
        OptionKind::Text,
        "Preallocation mode (allowed values: off, metadata, falloc, full)",
    ),
    OptionSpec::new(
        "compression_type",
        OptionKind::Text,
        "Compression method used for image cluster compression",
    )
    .or("zlib"),
    OptionSpec::new("size", OptionKind::Size, "Virtual disk size"),
    OptionSpec::new("compat", OptionKind::Text, "Compatibility level (v2 [0.10] or v3 [1.1])"),
    OptionSpec::new("backing_file", OptionKind::Text, "File name of a base image"),
    OptionSpec::new("backing_fmt", OptionKind::Text, "Image format of the base image"),
    OptionSpec::new("data_file", OptionKind::Text, "File name of an external data file"),
    OptionSpec::new(
        "data_file_raw",
        OptionKind::Bool,
        "The external data file must stay valid as a raw image",
    ),
    OptionSpec::new("lazy_refcounts", OptionKind::Bool, "Postpone refcount updates").or("off"),
    OptionSpec::new(
        "refcount_bits",
        OptionKind::Number,
        "Width of a reference count entry in bits",
    )
    .or("16"),
];

/// What an image is to be, checked.
struct Plan {
    header: Header,
    size: u64,
    preallocation: Preallocation,
    crypt_method: u32,
}

impl Plan {
    fn new(options: &CreateOptions) -> Result<Self> {
        let crypt_method = crypt::wanted(options)?;
        let version = version(options)?;
        let extended = options.bool("extended_l2")?.unwrap_or(false);
        let cluster = cluster_size(options, extended)?;
        let size = options.size("size")?.unwrap_or(0).checked_next_multiple_of(512);
        let size = size
            .filter(|size| *size < 1 << 63)
            .ok_or(Error::Os(Errno::FBIG).during_text("Image size is too large".into()))?;
        let preallocation = options.preallocation()?;
        let has_backing = options.non_empty("backing_file").is_some();
        if preallocation != Preallocation::Off && has_backing && !extended {
            return Err(Error::invalid(
                "Backing file and preallocation can only be used at the same time if extended_l2 is enabled",
            ));
        }
        let refcount_order = refcount_order(options, version)?;
        let lazy = options.bool("lazy_refcounts")?.unwrap_or(false);
        if extended && version < 3 {
            return Err(Error::invalid(
                "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)",
            ));
        }
        if lazy && version < 3 {
            return Err(Error::invalid(
                "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)",
            ));
        }
        let compression = compression(options, version)?;
        let data_file = options.non_empty("data_file").map(str::to_string);
        let data_file_raw = options.bool("data_file_raw")?.unwrap_or(false);
        check_data_file(version, has_backing, data_file.is_some(), data_file_raw)?;
        let bit = |wanted: bool, bit: u64| if wanted { bit } else { 0 };
        let header = Header {
            version,
            cluster_bits: cluster.trailing_zeros(),
            size: 0,
            // LUKS is entered when its header is in place.
            crypt_method: if crypt_method == crypt::METHOD_LUKS { 0 } else { crypt_method },
            l1_entries: 0,
            l1_offset: 0,
            refcount_table_offset: cluster,
            refcount_table_clusters: 1,
            snapshot_count: 0,
            snapshots_offset: 0,
            incompatible: bit(extended, incompatible::EXTENDED_L2)
                | bit(data_file.is_some(), incompatible::DATA_FILE)
                | bit(compression != Compression::Zlib, incompatible::COMPRESSION),
            compatible: bit(lazy, LAZY_REFCOUNTS),
            autoclear: bit(data_file_raw, AUTOCLEAR_DATA_FILE_RAW),
            refcount_order,
            compression,
            backing_file: options.non_empty("backing_file").map(str::to_string),
            backing_format: options.non_empty("backing_fmt").map(str::to_string),
            data_file,
            crypto: None,
            bitmaps: None,
            has_feature_table: version >= 3,
            unknown_fields: Vec::new(),
            unknown_extensions: Vec::new(),
        };
        Ok(Self { header, size, preallocation, crypt_method })
    }
}

fn version(options: &CreateOptions) -> Result<u32> {
    match options.text("compat") {
        None | Some("1.1" | "v3") => Ok(3),
        Some("0.10" | "v2") => Ok(2),
        Some(other) => {
            Err(Error::invalid(format!("Parameter 'version' does not accept value '{other}'")))
        }
    }
}

fn cluster_size(options: &CreateOptions, extended: bool) -> Result<u64> {
    let cluster = options.size("cluster_size")?.unwrap_or(65_536);
    if !cluster.is_power_of_two() || !(512..=2 << 20).contains(&cluster) {
        return Err(Error::invalid("Cluster size must be a power of two between 512 and 2048k"));
    }
    if extended && cluster < 16 << 10 {
        return Err(Error::invalid(
            "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes",
        ));
    }
    Ok(cluster)
}

fn refcount_order(options: &CreateOptions, version: u32) -> Result<u32> {
    let bits = options.number("refcount_bits")?.unwrap_or(16);
    if !bits.is_power_of_two() || bits > 64 {
        return Err(Error::invalid(
            "Refcount width must be a power of two and may not exceed 64 bits",
        ));
    }
    if version < 3 && bits != 16 {
        return Err(Error::invalid(
            "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)",
        ));
    }
    Ok(bits.trailing_zeros())
}

fn compression(options: &CreateOptions, version: u32) -> Result<Compression> {
    let compression = match options.text("compression_type") {
        None | Some("zlib") => Compression::Zlib,
        Some("zstd") => Compression::Zstd,
        Some(other) => {
            return Err(Error::invalid(format!(
                "Parameter 'compression-type' does not accept value '{other}'"
            )));
        }
    };
    if compression != Compression::Zlib && version < 3 {
        return Err(Error::invalid(
            "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)",
        ));
    }
    Ok(compression)
}

fn check_data_file(version: u32, has_backing: bool, has_file: bool, raw: bool) -> Result<()> {
    if raw && !has_file {
        return Err(Error::invalid("data-file-raw requires data-file"));
    }
    if raw && has_backing {
        return Err(Error::invalid(
            "Backing file and data-file-raw cannot be used at the same time",
        ));
    }
    if has_file && version < 3 {
        return Err(Error::invalid(
            "External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)",
        ));
    }
    Ok(())
}

/// Makes an image.
pub fn create(filename: &str, options: &CreateOptions, _context: &OpenContext) -> Result<()> {
    let plan = Plan::new(options)?;
    match plan.crypt_method {
        crypt::METHOD_AES => crypt::check_aes(options)?,
        // Mistakes in the options show before anything is made.
        crypt::METHOD_LUKS => _ = keys::NewKeys::take(options, "encrypt.")?,
        _ => {}
    }
    let mut file_options = CreateOptions::new();
    for name in ["nocow", "extent_size_hint"] {
        if let Some(value) = options.text(name) {
            file_options.set(name, value);
        }
    }
    create_protocol(filename, &file_options)?;
    if let Some(name) = &plan.header.data_file {
        let full = crate::open::combine(filename, name)?;
        create_protocol(&full, &CreateOptions::new())?;
    }
    let file = open_created(filename)?;
    write_empty(&*file, &plan.header)?;
    let mode = OpenMode { write: true, no_backing: true, no_data: true, ..OpenMode::default() };
    drop(file);
    if plan.crypt_method == crypt::METHOD_LUKS {
        let file = open_created(filename)?;
        let image = open_image(file, &mut OpenOptions::new(), &mode)?;
        crypt::prepare(&image, options)?;
    }
    let image = crate::open::open(Some(filename), driver_options(), &mode)?;
    if plan.size > 0 {
        image.resize(plan.size, plan.preallocation)?;
    }
    image.flush()
}

fn driver_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.set("driver", "qcow2");
    options
}

/// An image without clusters: the header, the refcount table, a refcount block.
fn write_empty(file: &dyn Node, header: &Header) -> Result<()> {
    let geometry = Geometry::new(header);
    let cluster = geometry.cluster as usize;
    let encoded = header.encode().map_err(|error| match error {
        Error::Os(Errno::NOSPC) => {
            Error::invalid("Could not write qcow2 header: No space left on device")
        }
        other => other,
    })?;
    let mut table = vec![0; cluster];
    table[..8].copy_from_slice(&(2 * geometry.cluster).to_be_bytes());
    let mut block = vec![0; cluster];
    for used in 0..3 {
        let (at, bytes, length) = put_refcount(&block, header.refcount_order, used, 1);
        block[at..at + length].copy_from_slice(&bytes[..length]);
    }
    file.write_at(&table, geometry.cluster)?;
    file.write_at(&block, 2 * geometry.cluster)?;
    file.write_at(&encoded, 0)
}

/// Gives every cluster of `[from, to)` its place, without data.
pub(super) fn preallocate(image: &Qcow2, from: u64, to: u64) -> Result<()> {
    let geometry = image.geometry;
    let mut at = geometry.cluster_start(from);
    let mut state = image.state.lock();
    state.meta.unordered = true;
    while at < to {
        let table_end = (at | (geometry.l2_span() - 1)) + 1;
        let clusters = (to.min(table_end) - at).div_ceil(geometry.cluster);
        let slot = image.l2_for_write(&mut state, at)?;
        let first = geometry.l2_index(at);
        let mut done = 0;
        while done < clusters {
            let index = first + done as usize;
            if state.meta.entry(slot, index) != Entry::default() {
                done += 1;
                continue;
            }
            let run = (done..clusters)
                .take_while(|next| {
                    state.meta.entry(slot, first + *next as usize) == Entry::default()
                })
                .count() as u64;
            let place = if image.external() {
                at + done * geometry.cluster
            } else {
                state.meta.allocate(run * geometry.cluster)?
            };
            let end = place + run * geometry.cluster;
            state.meta.untouched_from = state.meta.untouched_from.max(end);
            for number in 0..run {
                let word = (place + number * geometry.cluster) | COPIED;
                // Subclusters stay unallocated: the backing file shows through.
                state.meta.set_entry(slot, index + number as usize, Entry { word, bitmap: 0 });
            }
            done += run;
        }
        at += clusters * geometry.cluster;
    }
    let end = state.meta.untouched_from;
    state.meta.write_back()?;
    state.meta.unordered = false;
    let data = image.data();
    if data.size() < end {
        data.resize(if image.external() { to.max(data.size()) } else { end }, Preallocation::Off)?;
    }
    Ok(())
}

/// Metadata bytes of an image whose every cluster is allocated.
fn metadata_bytes(geometry: &Geometry, size: u64) -> u64 {
    let cluster = geometry.cluster;
    let aligned = size.next_multiple_of(cluster);
    let entry = geometry.entry_bytes as u64;
    let l2_entries = (aligned / cluster).next_multiple_of(cluster / entry);
    let l1_entries = (l2_entries * entry / cluster).next_multiple_of(cluster / 8);
    let bytes = cluster + l2_entries * entry + l1_entries * 8;
    let clusters = (bytes + aligned) / cluster;
    let (mut blocks, mut table) = (0, 0);
    loop {
        let before = blocks + table;
        blocks = (clusters + table + blocks).div_ceil(1 << geometry.refcount_block_bits);
        table = blocks.div_ceil(cluster / 8);
        if blocks + table == before {
            break;
        }
    }
    bytes + (blocks + table) * cluster
}

/// How large an image with these options, and perhaps this content, becomes.
pub fn measure(options: &CreateOptions, source: Option<&NodeRef>) -> Result<Measure> {
    let mut options = options.clone();
    let preallocation = options.preallocation()?;
    options.remove("preallocation");
    let plan = Plan::new(&options)?;
    let geometry = Geometry::new(&plan.header);
    let cluster = geometry.cluster;
    let size = source.map_or(plan.size, |source| source.size()).next_multiple_of(cluster);
    if geometry.l1_entries_for(size) * 8 > super::header::L1_BYTES_MAX {
        return Err(Error::invalid(
            "The image size is too large (try using a larger cluster size)",
        ));
    }
    let full = metadata_bytes(&geometry, size) + size;
    let mut required = 0;
    let mut bitmaps = None;
    if let Some(source) = source {
        let mut at = 0;
        while at < source.size() {
            let found = status_above(source, None, at, source.size() - at)?;
            let mut end = at + found.extent.length;
            if found.extent.data && !found.extent.zero {
                end = end.next_multiple_of(cluster);
                required += at % cluster + (end - at);
            }
            at = end;
        }
        if plan.header.version >= 3
            && let Some(source_bitmaps) = source.bitmaps()
        {
            let list = source_bitmaps.list();
            bitmaps = Some(bitmap_bytes(&list, source.size(), cluster));
        }
    }
    let everything = matches!(preallocation, Preallocation::Full | Preallocation::Falloc);
    if everything {
        required = size;
    }
    Ok(Measure { required: full - size + required, fully_allocated: full, bitmaps })
}

fn bitmap_bytes(list: &[crate::bitmaps::BitmapInfo], size: u64, cluster: u64) -> u64 {
    let mut bytes = 0;
    let mut directory = 0;
    for bitmap in list.iter().filter(|bitmap| !bitmap.in_use) {
        let bits = size.div_ceil(bitmap.granularity).div_ceil(64) * 8;
        let clusters = bits.div_ceil(cluster);
        bytes += clusters * cluster + (clusters * 8).next_multiple_of(cluster);
        directory += (24 + bitmap.name.len() as u64).next_multiple_of(8);
    }
    bytes + directory.next_multiple_of(cluster)
}

/// Provides the space of a disk that grew.
pub(super) fn preallocate_grown(
    image: &Qcow2,
    from: u64,
    to: u64,
    preallocation: Preallocation,
) -> Result<()> {
    if preallocation == Preallocation::Off {
        return Ok(());
    }
    if matches!(preallocation, Preallocation::Falloc | Preallocation::Full) {
        // The space comes first, so that there is no place left without it.
        let data = image.data();
        let grown = if image.external() {
            to
        } else {
            let all = |size| metadata_bytes(&image.geometry, size) + size;
            // Of a new image the table that ends the file is counted by `all`.
            let cluster = image.geometry.cluster;
            let now = if from == 0 { data.size() / cluster * cluster } else { data.size() };
            now + all(to).saturating_sub(all(from))
        };
        data.resize(grown.max(data.size()), preallocation)?;
        provide_rest(image, from, to)?;
    }
    preallocate(image, from, to)
}

/// The cluster in which the disk ended gets the space for the rest of it.
fn provide_rest(image: &Qcow2, from: u64, to: u64) -> Result<()> {
    let cluster = image.geometry.cluster;
    let used = from % cluster;
    if used == 0 {
        return Ok(());
    }
    match image.status(from - used, used)?.host {
        Some(host) => {
            let rest = (cluster - used).min(to - from);
            image.data().zero_at(host + used, rest, Zeroing::Keep)
        }
        None => Ok(()),
    }
}
