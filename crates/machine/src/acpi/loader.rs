//! The commands by which firmware links the tables: fw_cfg's `etc/table-loader`.
//!
//! Each command has 128 bytes: its number, then its fields; names of files have 56 bytes.

use super::image::Image;

/// The file of the tables has always this size, so that it can be made late.
pub const TABLES_BYTES: usize = 128 << 10;
/// Likewise that of the commands.
pub const TABLE_LOADER_BYTES: usize = 8 << 10;

const COMMAND_BYTES: usize = 128;
const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
const ZONE_HIGH: u8 = 1;
const ZONE_FSEG: u8 = 2;

const TABLES: &str = "etc/acpi/tables";
const ROOT_POINTER: &str = "etc/acpi/rsdp";

fn command(number: u32, fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    fields.iter().for_each(|field| bytes.extend(*field));
    bytes.resize(COMMAND_BYTES, 0);
    bytes
}

fn file(name: &str) -> [u8; 56] {
    let mut bytes = [0; 56];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

fn word(value: usize) -> [u8; 4] {
    (value as u32).to_le_bytes()
}

/// The commands for an image and its root pointer.
#[must_use]
pub fn commands(image: &Image) -> Vec<u8> {
    let (tables, root) = (file(TABLES), file(ROOT_POINTER));
    let mut all = command(ALLOCATE, &[&tables, &word(4096), &[ZONE_HIGH]]);
    all.extend(command(ALLOCATE, &[&root, &word(16), &[ZONE_FSEG]]));
    for pointer in &image.pointers {
        all.extend(command(ADD_POINTER, &[&tables, &tables, &word(pointer.at), &[pointer.bytes]]));
    }
    for (at, length) in &image.tables {
        all.extend(command(ADD_CHECKSUM, &[&tables, &word(at + 9), &word(*at), &word(*length)]));
    }
    all.extend(command(ADD_POINTER, &[&root, &tables, &word(16), &[4]]));
    all.extend(command(ADD_POINTER, &[&root, &tables, &word(24), &[8]]));
    all.extend(command(ADD_CHECKSUM, &[&root, &word(8), &word(0), &word(20)]));
    all.extend(command(ADD_CHECKSUM, &[&root, &word(32), &word(0), &word(36)]));
    all
}
