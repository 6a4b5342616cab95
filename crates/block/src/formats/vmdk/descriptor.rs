//! The text that describes a VMDK image: its extents and where its parent is.

use crate::error::{Error, Result};

/// A piece of the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtentLine {
    pub sectors: u64,
    /// `SPARSE`, `FLAT`, `ZERO`, `VMFS`.
    pub kind: String,
    pub file: String,
    /// Where a flat piece begins in its file.
    pub offset_sectors: u64,
}

/// The parts of the text that matter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Descriptor {
    pub cid: u32,
    pub parent_cid: u32,
    pub create_type: String,
    pub parent_file: Option<String>,
    pub extents: Vec<ExtentLine>,
}

/// No parent.
pub const NO_PARENT: u32 = u32::MAX;

impl Descriptor {
    pub fn parse(text: &str) -> Result<Self> {
        let value = |key: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                (name.trim() == key).then(|| value.trim().trim_matches('"').to_string())
            })
        };
        let hex = |key: &str, default: u32| {
            value(key).and_then(|text| u32::from_str_radix(&text, 16).ok()).unwrap_or(default)
        };
        let create_type =
            value("createType").ok_or_else(|| Error::invalid("invalid VMDK image descriptor"))?;
        let mut extents = Vec::new();
        for line in text.lines() {
            extents.extend(extent(line.trim())?);
        }
        Ok(Self {
            cid: hex("CID", 0),
            parent_cid: hex("parentCID", NO_PARENT),
            create_type,
            parent_file: value("parentFileNameHint"),
            extents,
        })
    }
}

/// `RW 4192256 SPARSE "disk-s001.vmdk"`; nothing for other lines.
fn extent(line: &str) -> Result<Option<ExtentLine>> {
    let bad = || Error::invalid(format!("Invalid extent line: {line}"));
    let Some(rest) = ["RW ", "RDONLY "].iter().find_map(|access| line.strip_prefix(access)) else {
        return Ok(None);
    };
    let (sectors, rest) = rest.split_once(' ').ok_or_else(bad)?;
    let (kind, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let mut quoted = rest.split('"');
    let (_, file, after) = (quoted.next(), quoted.next(), quoted.next());
    let offset = after.map(str::trim).filter(|text| !text.is_empty());
    Ok(Some(ExtentLine {
        sectors: sectors.parse().map_err(|_| bad())?,
        kind: kind.to_string(),
        file: match (file, kind) {
            (Some(file), _) => file.to_string(),
            (None, "ZERO") => String::new(),
            (None, _) => return Err(bad()),
        },
        offset_sectors: offset.map_or(Ok(0), |text| text.parse().map_err(|_| bad()))?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_read_from_their_lines() {
        let text = "# Disk DescriptorFile\nCID=1f\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
                    RW 20480 FLAT \"f-flat.vmdk\" 128\nRW 5 ZERO\nddb.adapterType = \"ide\"\n";
        let descriptor = Descriptor::parse(text).unwrap();
        assert_eq!((descriptor.cid, descriptor.parent_cid), (0x1f, NO_PARENT));
        assert_eq!(descriptor.extents.len(), 2);
        assert_eq!(descriptor.extents[0].file, "f-flat.vmdk");
        assert_eq!(descriptor.extents[0].offset_sectors, 128);
        assert!(Descriptor::parse("RW x SPARSE \"a\"\ncreateType=\"b\"").is_err());
    }
}
