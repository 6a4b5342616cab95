//! Making VMDK images.

use super::descriptor::NO_PARENT;
use super::sparse::{
    FLAG_COMPRESSED, FLAG_MARKERS, FLAG_REDUNDANT, FLAG_ZERO_GRAINS, MAGIC, SECTOR,
};
use crate::error::{Error, Result};
use crate::formats::blocks::unique_id;
use crate::node::Preallocation;
use crate::open::{OpenContext, OpenMode, create_protocol, open_created};
use crate::options::{CreateOptions, OpenOptions, OptionKind, OptionSpec};

/// What `create` understands, in display order.
pub const CREATE_OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("size", OptionKind::Size, "Virtual disk size"),
    OptionSpec::new(
        "adapter_type",
        OptionKind::Text,
        "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX",
    ),
    OptionSpec::new("backing_file", OptionKind::Text, "File name of a base image"),
    OptionSpec::new("backing_fmt", OptionKind::Text, "Must be 'vmdk' if present"),
    OptionSpec::new("compat6", OptionKind::Bool, "VMDK version 6 image").or("off"),
    OptionSpec::new("hwversion", OptionKind::Text, "VMDK hardware version").or("undefined"),
    OptionSpec::new("toolsversion", OptionKind::Text, "VMware guest tools version"),
    OptionSpec::new(
        "subformat",
        OptionKind::Text,
        "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} ",
    ),
    OptionSpec::new(
        "zeroed_grain",
        OptionKind::Bool,
        "Enable efficient zero writes using the zeroed-grain GTE feature",
    ),
];

const GRAIN_SECTORS: u64 = 128;
const TABLE_ENTRIES: u64 = 512;
const DESCRIPTOR_SECTORS: u64 = 20;
/// Extents of the split subformats.
const SPLIT_BYTES: u64 = 2 << 30;

pub fn create(filename: &str, options: &CreateOptions, _context: &OpenContext) -> Result<()> {
    let subformat = options.text("subformat").unwrap_or("monolithicSparse").to_string();
    let (flat, split) = match subformat.as_str() {
        "monolithicSparse" | "streamOptimized" => (false, false),
        "monolithicFlat" => (true, false),
        "twoGbMaxExtentSparse" => (false, true),
        "twoGbMaxExtentFlat" => (true, true),
        other => return Err(Error::invalid(format!("Invalid subformat '{other}'"))),
    };
    let zero_grains = options.bool("zeroed_grain")?.unwrap_or(false);
    if zero_grains && flat {
        return Err(Error::invalid("Flat image can't enable zeroed grain"));
    }
    if flat && options.non_empty("backing_file").is_some() {
        return Err(Error::invalid("Flat image can't have backing file"));
    }
    let parent = options.non_empty("backing_file");
    let parent = parent.map(|name| parent_of(filename, name, options)).transpose()?;
    let size = options.size("size")?.unwrap_or(0).next_multiple_of(512);
    let (folder, base) =
        filename.rsplit_once('/').map_or(("", filename), |(a, b)| (&filename[..=a.len()], b));
    let stem = base.strip_suffix(".vmdk").unwrap_or(base);
    let mut lines = String::new();
    let mut done = 0;
    let mut number = 0;
    let single = !flat && !split;
    while done < size || number == 0 {
        let bytes = if split { (size - done).min(SPLIT_BYTES) } else { size };
        let name = match (flat, split) {
            (_, true) => format!("{stem}-{}{:03}.vmdk", if flat { 'f' } else { 's' }, number + 1),
            (true, false) => format!("{stem}-flat.vmdk"),
            (false, false) => base.to_string(),
        };
        let kind = if flat { "FLAT" } else { "SPARSE" };
        let tail = if flat { " 0" } else { "" };
        lines.push_str(&format!("RW {} {kind} \"{name}\"{tail}\n", bytes / SECTOR));
        let path = format!("{folder}{name}");
        create_protocol(&path, &CreateOptions::new())?;
        if flat {
            let file = open_created(&path)?;
            file.resize(bytes, Preallocation::Off)?;
        } else {
            write_sparse(&path, bytes, subformat == "streamOptimized", zero_grains, single)?;
        }
        done += bytes;
        number += 1;
        if size == 0 {
            break;
        }
    }
    let text = describe(&subformat, &lines, size, options, parent.as_ref())?;
    if !single {
        create_protocol(filename, &CreateOptions::new())?;
    }
    let file = open_created(filename)?;
    let at = if single { SECTOR } else { 0 };
    file.write_at(text.as_bytes(), at)?;
    if !single {
        file.resize(text.len() as u64, Preallocation::Off)?;
    }
    file.flush()
}

/// The image below: its name as it is to be stored, and its identifier.
fn parent_of(filename: &str, name: &str, options: &CreateOptions) -> Result<(String, u32)> {
    let mode = OpenMode { no_backing: true, no_data: true, ..OpenMode::default() };
    let mut open = OpenOptions::new();
    if let Some(format) = options.non_empty("backing_fmt") {
        open.set("driver", format);
    }
    let parent = crate::open::open(Some(&crate::open::combine(filename, name)?), open, &mode)?;
    let cid = super::cid_of(&parent).ok_or_else(|| {
        Error::invalid(format!("Invalid backing file format: {}. Must be vmdk", parent.driver()))
    })?;
    Ok((name.to_owned(), cid))
}

fn describe(
    subformat: &str,
    lines: &str,
    size: u64,
    options: &CreateOptions,
    parent: Option<&(String, u32)>,
) -> Result<String> {
    let parent_cid = parent.map_or(NO_PARENT, |(_, cid)| *cid);
    let hint =
        parent.map_or_else(String::new, |(name, _)| format!("parentFileNameHint=\"{name}\"\n"));
    let adapter = options.text("adapter_type").unwrap_or("ide");
    let (heads, sectors) = match adapter {
        "ide" => (16, 63),
        "lsilogic" | "buslogic" | "legacyESX" => (255, 63),
        other => return Err(Error::invalid(format!("Unknown adapter type: '{other}'"))),
    };
    let hardware = match options.text("hwversion") {
        None | Some("undefined") => {
            if options.bool("compat6")?.unwrap_or(false) {
                "6"
            } else {
                "4"
            }
        }
        Some(version) => version,
    };
    let tools = options.text("toolsversion").unwrap_or("2147483647");
    let cid = u32::from_be_bytes(unique_id()[..4].try_into().unwrap_or([1; 4]));
    let cylinders = size / (512 * heads * sectors);
    Ok(format!(
        "# Disk DescriptorFile\nversion=1\nCID={cid:08x}\nparentCID={parent_cid:08x}\ncreateType=\"{subformat}\"\n{hint}\n# Extent description\n{lines}\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"{hardware}\"\nddb.geometry.cylinders = \"{cylinders}\"\nddb.geometry.heads = \"{heads}\"\nddb.geometry.sectors = \"{sectors}\"\nddb.adapterType = \"{adapter}\"\nddb.toolsVersion = \"{tools}\"\n"
    ))
}

/// The header, two directories and all their tables.
fn write_sparse(
    path: &str,
    bytes: u64,
    stream: bool,
    zero_grains: bool,
    described: bool,
) -> Result<()> {
    let grains = (bytes / SECTOR).div_ceil(GRAIN_SECTORS);
    let tables = grains.div_ceil(TABLE_ENTRIES);
    let table_sectors = TABLE_ENTRIES * 4 / SECTOR;
    let directory_sectors = (tables * 4).div_ceil(SECTOR);
    let redundant_at = 1 + DESCRIPTOR_SECTORS;
    let directory_at = redundant_at + directory_sectors + table_sectors * tables;
    let data_at =
        (directory_at + directory_sectors + table_sectors * tables).next_multiple_of(GRAIN_SECTORS);
    let mut flags = 1 | FLAG_REDUNDANT;
    let mut version = 1;
    if stream {
        flags |= FLAG_COMPRESSED | FLAG_MARKERS;
        version = 3;
    }
    if zero_grains {
        flags |= FLAG_ZERO_GRAINS;
        version = version.max(2);
    }
    let mut header = MAGIC.to_vec();
    header.extend(u32::to_le_bytes(version));
    header.extend(flags.to_le_bytes());
    header.extend((bytes / SECTOR).to_le_bytes());
    header.extend(GRAIN_SECTORS.to_le_bytes());
    header.extend(if described { 1u64 } else { 0 }.to_le_bytes());
    header.extend(if described { DESCRIPTOR_SECTORS } else { 0 }.to_le_bytes());
    header.extend((TABLE_ENTRIES as u32).to_le_bytes());
    header.extend(redundant_at.to_le_bytes());
    header.extend(directory_at.to_le_bytes());
    header.extend(data_at.to_le_bytes());
    header.push(0);
    header.extend(b"\n \r\n");
    header.extend(u16::from(stream).to_le_bytes());
    header.resize(SECTOR as usize, 0);
    let file = open_created(path)?;
    file.write_at(&header, 0)?;
    file.resize(data_at * SECTOR, Preallocation::Off)?;
    for at in [redundant_at, directory_at] {
        let first = at + directory_sectors;
        let directory: Vec<u8> = (0..tables)
            .flat_map(|table| ((first + table * table_sectors) as u32).to_le_bytes())
            .collect();
        file.write_at(&directory, at * SECTOR)?;
    }
    file.flush()
}
