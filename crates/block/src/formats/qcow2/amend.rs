//! Changing creation options of an existing image.

use super::Qcow2;
use super::geometry::{COMPRESSED, COPIED, Entry, Geometry, Kind, OFFSET_MASK, ZERO};
use super::header::{AUTOCLEAR_DATA_FILE_RAW, Compression, LAZY_REFCOUNTS};
use super::metadata::Metadata;
use super::snapshots::snapshot_l1;
use crate::error::{Error, Result};
use crate::node::{Node, Preallocation, write_zeros};
use crate::options::{CreateOptions, OptionKind, OptionSpec};

/// What `amend` understands, in display order.
pub const AMEND_OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "encrypt.state",
        OptionKind::Text,
        "Select new state of affected keyslots (active/inactive)",
    ),
    OptionSpec::new(
        "encrypt.keyslot",
        OptionKind::Number,
        "Select a single keyslot to modify explicitly",
    ),
    OptionSpec::new(
        "encrypt.old-secret",
        OptionKind::Text,
        "Select all keyslots that match this password",
    ),
    OptionSpec::new(
        "encrypt.new-secret",
        OptionKind::Text,
        "New secret to set in the matching keyslots. Empty string to erase",
    ),
    OptionSpec::new(
        "encrypt.iter-time",
        OptionKind::Number,
        "Time to spend in PBKDF in milliseconds",
    ),
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
    OptionSpec::new("lazy_refcounts", OptionKind::Bool, "Postpone refcount updates"),
    OptionSpec::new(
        "refcount_bits",
        OptionKind::Number,
        "Width of a reference count entry in bits",
    ),
];

pub(super) fn change_backing(
    image: &Qcow2,
    name: Option<&str>,
    format: Option<&str>,
) -> Result<()> {
    let mut state = image.state.lock();
    let header = &mut state.meta.header;
    if header.data_file_raw() && name.is_some() {
        return Err(Error::invalid("Operation not permitted"));
    }
    if name.is_some_and(|name| name.len() > 1023) {
        return Err(Error::invalid("Backing file name too long"));
    }
    let before = header.clone();
    header.backing_file = name.filter(|name| !name.is_empty()).map(str::to_string);
    header.backing_format = format.filter(|format| !format.is_empty()).map(str::to_string);
    if header.backing_file.is_none() {
        header.backing_format = None;
    }
    let written = state.meta.write_header();
    if written.is_err() {
        state.meta.header = before;
    }
    written?;
    state.meta.file.flush()
}

pub(super) fn amend(
    image: &Qcow2,
    options: &CreateOptions,
    force: bool,
    report: &dyn Fn(u64, u64),
) -> Result<()> {
    if options.names().any(|name| name.starts_with("encrypt.")) {
        image.amend_keys(options, force)?;
    }
    let old_version = image.state.lock().meta.header.version;
    let version = match options.text("compat") {
        None => old_version,
        Some("") => old_version,
        Some("0.10" | "v2") => 2,
        Some("1.1" | "v3") => 3,
        Some(other) => return Err(Error::invalid(format!("Unknown compatibility level {other}"))),
    };
    let refcount_bits = options.number("refcount_bits")?;
    if let Some(bits) = refcount_bits
        && (!bits.is_power_of_two() || bits > 64)
    {
        return Err(Error::invalid(
            "Refcount width must be a power of two and may not exceed 64 bits",
        ));
    }
    if version > old_version {
        let mut state = image.state.lock();
        state.meta.header.version = version;
        state.meta.header.has_feature_table = true;
        state.meta.write_header()?;
    }
    if let Some(bits) = refcount_bits {
        change_refcount_bits(image, bits, version)?;
    }
    if let Some(raw) = options.bool("data_file_raw")? {
        let mut state = image.state.lock();
        if !state.meta.header.has_data_file() {
            return Err(Error::invalid("data-file-raw requires data-file"));
        }
        if raw != state.meta.header.data_file_raw() && raw {
            return Err(Error::invalid("data-file-raw cannot be set on existing images"));
        }
        if !raw {
            state.meta.header.autoclear &= !AUTOCLEAR_DATA_FILE_RAW;
        }
        state.meta.write_header()?;
    }
    if let Some(name) = options.text("data_file") {
        let mut state = image.state.lock();
        if !state.meta.header.has_data_file() {
            return Err(Error::invalid(
                "data-file can only be set for images that use an external data file",
            ));
        }
        state.meta.header.data_file = Some(name.to_string()).filter(|name| !name.is_empty());
        state.meta.write_header()?;
    }
    amend_backing(image, options)?;
    change_lazy(image, options.bool("lazy_refcounts")?, version)?;
    if let Some(size) = options.size("size")? {
        image.resize(size, Preallocation::Off)?;
    }
    if version < old_version {
        downgrade(image, report)?;
    }
    image.flush()
}

/// The backing file is only written anew, not changed: that is for rebase.
fn amend_backing(image: &Qcow2, options: &CreateOptions) -> Result<()> {
    if options.text("backing_file").is_some() || options.text("backing_fmt").is_some() {
        let header = image.state.lock().meta.header.clone();
        let differs = |name: &str, own: &Option<String>| {
            options.text(name).is_some_and(|text| text != own.as_deref().unwrap_or(""))
        };
        if differs("backing_file", &header.backing_file)
            || differs("backing_fmt", &header.backing_format)
        {
            return Err(Error::invalid(
                "Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.",
            ));
        }
        let name =
            options.text("backing_file").or(header.backing_file.as_deref()).map(str::to_string);
        let format =
            options.text("backing_fmt").or(header.backing_format.as_deref()).map(str::to_string);
        change_backing(image, name.as_deref(), format.as_deref())?;
    }
    Ok(())
}

fn change_lazy(image: &Qcow2, lazy: Option<bool>, version: u32) -> Result<()> {
    let Some(lazy) = lazy else { return Ok(()) };
    let mut state = image.state.lock();
    if lazy && version < 3 {
        return Err(Error::invalid(
            "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)",
        ));
    }
    if lazy {
        state.meta.header.compatible |= LAZY_REFCOUNTS;
    } else {
        state.meta.flush()?;
        state.meta.header.incompatible &= !super::header::incompatible::DIRTY;
        state.meta.header.compatible &= !LAZY_REFCOUNTS;
    }
    if state.meta.header.version >= 3 { state.meta.write_header() } else { Ok(()) }
}

fn change_refcount_bits(image: &Qcow2, bits: u64, version: u32) -> Result<()> {
    if version < 3 && bits != 16 {
        return Err(Error::invalid(
            "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)",
        ));
    }
    let order = bits.trailing_zeros();
    if order == image.state.lock().meta.geometry.refcount_order {
        return Ok(());
    }
    super::check::change_refcount_order(image, order)
}

/// To version 2: what it cannot express is written out or refused.
fn downgrade(image: &Qcow2, report: &dyn Fn(u64, u64)) -> Result<()> {
    let geometry = image.geometry;
    {
        let mut state = image.state.lock();
        let header = &state.meta.header;
        if state.meta.geometry.refcount_order != 4 {
            return Err(Error::unsupported("compat=0.10 requires refcount_bits=16"));
        }
        if header.has_data_file() {
            return Err(Error::unsupported("Cannot downgrade an image with a data file"));
        }
        if geometry.extended() || header.compression != Compression::Zlib {
            return Err(Error::unsupported(format!(
                "Cannot downgrade an image with incompatible features {:#x} set",
                header.incompatible
            )));
        }
        if !state.snapshots.is_empty()
            && state.snapshots.iter().any(|row| row.shown.disk_bytes != header.size)
        {
            return Err(Error::unsupported("Internal snapshots prevent downgrade of image"));
        }
        state.meta.flush()?;
    }
    let mut steps = Steps::new(image, report);
    expand_zeros(image, &geometry, &mut steps)?;
    expand_in_snapshots(image, &geometry, &mut steps)?;
    let mut state = image.state.lock();
    state.meta.flush()?;
    let header = &mut state.meta.header;
    header.version = 2;
    header.incompatible = 0;
    header.compatible = 0;
    header.autoclear = 0;
    header.bitmaps = None;
    header.has_feature_table = false;
    state.meta.write_header()
}

/// The entries of all L1 tables, one after the other.
struct Steps<'a> {
    done: u64,
    all: u64,
    report: &'a dyn Fn(u64, u64),
}

impl<'a> Steps<'a> {
    fn new(image: &Qcow2, report: &'a dyn Fn(u64, u64)) -> Self {
        let state = image.state.lock();
        let of_snapshots = state.snapshots.iter().map(|row| u64::from(row.l1_entries));
        Self { done: 0, all: state.meta.l1.len() as u64 + of_snapshots.sum::<u64>(), report }
    }

    fn to(&mut self, done: u64) {
        while self.done < done.min(self.all) {
            self.done += 1;
            (self.report)(self.done, self.all);
        }
    }
}

/// Zero clusters become data, or nothing where nothing shines through.
fn expand_zeros(image: &Qcow2, geometry: &Geometry, steps: &mut Steps<'_>) -> Result<()> {
    let by_entry = geometry.cluster << geometry.l2_bits;
    let mut at = 0;
    while at < image.size() {
        steps.to(at / by_entry);
        let run = {
            let mut state = image.state.lock();
            image.run(&mut state, at, image.size() - at)?
        };
        if run.kind.is_zero() {
            if image.backing().is_some() || run.kind == Kind::ZeroInPlace {
                write_zeros(image, at, run.length)?;
            } else {
                let mut state = image.state.lock();
                let mut cluster = at;
                while cluster < at + run.length {
                    let slot = image.l2_for_write(&mut state, cluster)?;
                    let index = geometry.l2_index(cluster);
                    let entry = state.meta.entry(slot, index);
                    debug_assert_eq!(entry.word & (OFFSET_MASK | COMPRESSED), 0);
                    state.meta.set_entry(slot, index, Entry::default());
                    cluster += geometry.cluster;
                }
            }
        }
        at += run.length;
    }
    steps.to(image.state.lock().meta.l1.len() as u64);
    Ok(())
}

/// The same in the tables of snapshots, in place: all who share a table see the same zeros.
fn expand_in_snapshots(image: &Qcow2, geometry: &Geometry, steps: &mut Steps<'_>) -> Result<()> {
    let mut guard = image.state.lock();
    let state = &mut *guard;
    state.meta.flush()?;
    let backed = image.backing().is_some();
    let mut seen = std::collections::HashSet::new();
    for row in state.snapshots.clone() {
        for entry in snapshot_l1(&state.meta, &row)? {
            let table = entry & OFFSET_MASK;
            if table != 0 && seen.insert(table) {
                expand_table(image, &mut state.meta, geometry, table, backed)?;
            }
            steps.to(steps.done + 1);
        }
    }
    state.meta.flush()
}

fn expand_table(
    image: &Qcow2,
    meta: &mut Metadata,
    geometry: &Geometry,
    table: u64,
    backed: bool,
) -> Result<()> {
    let users = meta.refcount(table >> geometry.cluster_bits)?;
    let alone = if users == 1 { COPIED } else { 0 };
    for index in 0..1usize << geometry.l2_bits {
        let slot = meta.l2_slot(table)?;
        let entry = meta.entry(slot, index);
        if entry.word & COMPRESSED != 0 || entry.word & ZERO == 0 {
            continue;
        }
        let old = entry.word & OFFSET_MASK;
        let word = if old != 0 {
            write_zeros(&*image.file, old, geometry.cluster)?;
            entry.word & !ZERO
        } else if backed {
            let place = meta.allocate(geometry.cluster)?;
            for _ in 1..users {
                meta.change_refcounts(place, geometry.cluster, false)?;
            }
            write_zeros(&*image.file, place, geometry.cluster)?;
            meta.note_touched(place + geometry.cluster);
            place | alone
        } else {
            0
        };
        meta.new_data = true;
        let slot = meta.l2_slot(table)?;
        meta.set_entry(slot, index, Entry { word, bitmap: 0 });
    }
    Ok(())
}
