//! A small ISO 9660 file system in memory, with the two extensions that carry real names: Rock Ridge
//! (RRIP 1.91, for Linux) and Joliet (for Windows). ECMA-119 and IEEE P1282.
//!
//! Written for seeds: a few folders, a few files, everything in memory.

use std::collections::BTreeMap;

const SECTOR_BYTES: usize = 2048;
/// What stands before the volume descriptors belongs to the host's firmware.
const SYSTEM_SECTORS: usize = 16;
/// A seed beyond this is no seed.
const FILES_BYTES_MAX: usize = 256 << 20;
/// Level 2 names have 31 characters with the version.
const PLAIN_NAME_CHARS_MAX: usize = 28;
/// Joliet's limit, in characters of 16 bits.
const JOLIET_NAME_CHARS_MAX: usize = 64;
const FOLDER_MODE: u32 = 0o040_755;
const FILE_MODE: u32 = 0o100_644;

/// Why an image cannot be written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IsoError {
    /// A path that cannot stand on such a disk.
    #[error("'{0}' cannot be a path on a seed")]
    Path(String),
    /// Too much.
    #[error("The files of a seed may have 256 MiB together")]
    TooLarge,
}

/// A folder or a file.
#[derive(Default)]
struct Node {
    /// None for a folder.
    data: Option<Vec<u8>>,
    children: BTreeMap<String, Node>,
}

/// A file system that grows.
#[derive(Default)]
pub struct Iso {
    root: Node,
    bytes: usize,
}

/// A folder as it is laid out: where its parts lie, in both trees.
struct Folder<'a> {
    parent: usize,
    name: String,
    entries: Vec<Entry<'a>>,
}

struct Entry<'a> {
    name: &'a str,
    /// The number of the folder, or of the file.
    place: Place,
    bytes: usize,
}

#[derive(Clone, Copy)]
enum Place {
    Folder(usize),
    File(usize),
}

/// Which names a tree has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tree {
    RockRidge,
    Joliet,
}

impl Iso {
    /// Puts a file in; the folders of its path are made.
    pub fn file(&mut self, path: &str, data: impl Into<Vec<u8>>) -> Result<(), IsoError> {
        let data = data.into();
        self.bytes = self.bytes.saturating_add(data.len());
        if self.bytes > FILES_BYTES_MAX {
            return Err(IsoError::TooLarge);
        }
        let bad = || IsoError::Path(path.to_owned());
        let mut node = &mut self.root;
        for part in path.split('/') {
            let sound = !part.is_empty()
                && part.chars().count() <= JOLIET_NAME_CHARS_MAX
                && part.chars().all(|sign| sign.is_ascii_alphanumeric() || "-_.".contains(sign))
                && part != "."
                && part != "..";
            if !sound || node.data.is_some() {
                return Err(bad());
            }
            node = node.children.entry(part.to_owned()).or_default();
        }
        if !node.children.is_empty() {
            return Err(bad());
        }
        node.data = Some(data);
        Ok(())
    }

    /// The whole image. The label has at most 16 characters that both extensions allow.
    #[must_use]
    pub fn image(&self, label: &str) -> Vec<u8> {
        let mut folders = Vec::new();
        let mut files: Vec<&[u8]> = Vec::new();
        lay_out(&self.root, &mut folders, &mut files);
        let plan = Plan::new(&folders, &files);
        let mut image = vec![0; plan.total * SECTOR_BYTES];
        for (sector, tree) in [(0, Tree::RockRidge), (1, Tree::Joliet)] {
            let at = SYSTEM_SECTORS + sector;
            put(&mut image, at, &plan.descriptor(label, tree));
        }
        put(&mut image, SYSTEM_SECTORS + 2, b"\xffCD001\x01");
        for tree in [Tree::RockRidge, Tree::Joliet] {
            for big_endian in [false, true] {
                put(
                    &mut image,
                    plan.path_table(tree, big_endian),
                    &plan.paths(&folders, tree, big_endian),
                );
            }
            for number in 0..folders.len() {
                put(&mut image, plan.folder(tree, number), &plan.records(&folders, tree, number));
            }
        }
        for (number, data) in files.iter().enumerate() {
            put(&mut image, plan.files[number], data);
        }
        image
    }
}

fn put(image: &mut [u8], sector: usize, data: &[u8]) {
    image[sector * SECTOR_BYTES..][..data.len()].copy_from_slice(data);
}

/// Folders in the order of path tables (by depth), files in any.
fn lay_out<'a>(root: &'a Node, folders: &mut Vec<Folder<'a>>, files: &mut Vec<&'a [u8]>) {
    let mut nodes = vec![root];
    folders.push(Folder { parent: 0, name: String::new(), entries: Vec::new() });
    let mut number = 0;
    while number < nodes.len() {
        let mut entries = Vec::new();
        for (name, node) in &nodes[number].children {
            let (place, bytes) = match &node.data {
                Some(data) => {
                    files.push(data);
                    (Place::File(files.len() - 1), data.len())
                }
                None => {
                    nodes.push(node);
                    let folder = Folder { parent: number, name: name.clone(), entries: Vec::new() };
                    folders.push(folder);
                    (Place::Folder(nodes.len() - 1), 0)
                }
            };
            entries.push(Entry { name, place, bytes });
        }
        folders[number].entries = entries;
        number += 1;
    }
}

/// Where everything lies, in sectors.
struct Plan {
    /// Of both trees, in the two byte orders.
    tables: [usize; 4],
    table_bytes: [usize; 2],
    folders: [Vec<(usize, usize)>; 2],
    files: Vec<usize>,
    total: usize,
}

impl Plan {
    fn new(folders: &[Folder<'_>], files: &[&[u8]]) -> Self {
        let mut next = SYSTEM_SECTORS + 3;
        let mut take = |bytes: usize| {
            let at = next;
            next += bytes.div_ceil(SECTOR_BYTES).max(1);
            at
        };
        let size = |tree| -> usize {
            folders
                .iter()
                .map(|folder| (8 + identifier(&folder.name, true, tree).len()).next_multiple_of(2))
                .sum()
        };
        let table_bytes = [size(Tree::RockRidge), size(Tree::Joliet)];
        let tables = [0, 0, 1, 1].map(|tree| take(table_bytes[tree]));
        let places = [Tree::RockRidge, Tree::Joliet].map(|tree| {
            let mut places = Vec::new();
            for folder in folders {
                let bytes = folder_bytes(folder, tree, places.is_empty());
                places.push((take(bytes), bytes.next_multiple_of(SECTOR_BYTES)));
            }
            places
        });
        let files = files.iter().map(|data| take(data.len())).collect();
        // Drives read ahead of the end.
        let total = next + 16;
        Self { tables, table_bytes, folders: places, files, total }
    }

    fn path_table(&self, tree: Tree, big_endian: bool) -> usize {
        self.tables[tree as usize * 2 + usize::from(big_endian)]
    }

    fn folder(&self, tree: Tree, number: usize) -> usize {
        self.folders[tree as usize][number].0
    }

    /// 8.4 and 8.5 of ECMA-119.
    fn descriptor(&self, label: &str, tree: Tree) -> Vec<u8> {
        let mut bytes = vec![0_u8; SECTOR_BYTES];
        bytes[0] = if tree == Tree::RockRidge { 1 } else { 2 };
        bytes[1..7].copy_from_slice(b"CD001\x01");
        let text = |bytes: &mut [u8], text: &str| match tree {
            Tree::RockRidge => {
                bytes.fill(b' ');
                bytes[..text.len()].copy_from_slice(text.as_bytes());
            }
            Tree::Joliet => {
                let signs = text.encode_utf16().chain(std::iter::repeat(u16::from(b' ')));
                for (pair, sign) in bytes.chunks_exact_mut(2).zip(signs) {
                    pair.copy_from_slice(&sign.to_be_bytes());
                }
            }
        };
        text(&mut bytes[8..40], "LINUX");
        text(&mut bytes[40..72], label);
        both_32(&mut bytes[80..88], self.total);
        if tree == Tree::Joliet {
            bytes[88..91].copy_from_slice(b"%/E"); // UCS-2 level 3
        }
        for (at, value) in [(120, 1), (124, 1), (128, SECTOR_BYTES)] {
            both_16(&mut bytes[at..at + 4], value);
        }
        both_32(&mut bytes[132..140], self.table_bytes[tree as usize]);
        bytes[140..144].copy_from_slice(&little(self.path_table(tree, false)));
        bytes[148..152].copy_from_slice(&big(self.path_table(tree, true)));
        let (at, length) = self.folders[tree as usize][0];
        bytes[156..190].copy_from_slice(&record(&[0], at, length, true, &[]));
        for (from, to) in
            [(190, 318), (318, 446), (446, 574), (574, 702), (702, 739), (739, 776), (776, 813)]
        {
            text(&mut bytes[from..to], "");
        }
        for at in [813, 830, 847, 864] {
            bytes[at..at + 16].fill(b'0'); // no date
        }
        bytes[881] = 1;
        bytes
    }

    fn paths(&self, folders: &[Folder<'_>], tree: Tree, big_endian: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, folder) in folders.iter().enumerate() {
            let name = identifier(&folder.name, true, tree);
            let at = self.folder(tree, number);
            let parent = (folder.parent + 1) as u16;
            bytes.extend([name.len() as u8, 0]);
            match big_endian {
                true => {
                    bytes.extend(big(at));
                    bytes.extend(parent.to_be_bytes());
                }
                false => {
                    bytes.extend(little(at));
                    bytes.extend(parent.to_le_bytes());
                }
            }
            bytes.extend(&name);
            bytes.resize(bytes.len().next_multiple_of(2), 0);
        }
        bytes
    }

    /// The contents of a folder: itself, its parent, the rest by name.
    fn records(&self, folders: &[Folder<'_>], tree: Tree, number: usize) -> Vec<u8> {
        let folder = &folders[number];
        let place = |number: usize| self.folders[tree as usize][number];
        let mut bytes = Vec::new();
        let (own, parent) = (place(number), place(folder.parent));
        let rock = |rock: Vec<u8>| if tree == Tree::RockRidge { rock } else { Vec::new() };
        push_record(&mut bytes, &record(&[0], own.0, own.1, true, &rock(of_itself(number == 0))));
        push_record(&mut bytes, &record(&[1], parent.0, parent.1, true, &rock(mode(FOLDER_MODE))));
        for (name, entry) in sorted(folder, tree) {
            let record = match entry.place {
                Place::Folder(number) => {
                    let (at, length) = place(number);
                    record(&name, at, length, true, &rock(of_child(entry.name, FOLDER_MODE)))
                }
                Place::File(number) => {
                    let at = self.files[number];
                    record(&name, at, entry.bytes, false, &rock(of_child(entry.name, FILE_MODE)))
                }
            };
            push_record(&mut bytes, &record);
        }
        bytes
    }
}

fn sorted<'a>(folder: &'a Folder<'_>, tree: Tree) -> Vec<(Vec<u8>, &'a Entry<'a>)> {
    let mut list: Vec<(Vec<u8>, &Entry<'_>)> = Vec::new();
    for entry in &folder.entries {
        let is_folder = matches!(entry.place, Place::Folder(_));
        let mut name = identifier(entry.name, is_folder, tree);
        // Two names may look the same in capitals.
        let mut number = 0_u32;
        while list.iter().any(|(known, _)| *known == name) {
            number += 1;
            name = identifier(&format!("{number}_{}", entry.name), is_folder, tree);
        }
        list.push((name, entry));
    }
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list
}

fn folder_bytes(folder: &Folder<'_>, tree: Tree, is_root: bool) -> usize {
    let rock = |bytes: Vec<u8>| if tree == Tree::RockRidge { bytes } else { Vec::new() };
    let mut bytes = Vec::new();
    push_record(&mut bytes, &record(&[0], 0, 0, true, &rock(of_itself(is_root))));
    push_record(&mut bytes, &record(&[1], 0, 0, true, &rock(mode(FOLDER_MODE))));
    for (name, entry) in sorted(folder, tree) {
        push_record(&mut bytes, &record(&name, 0, 0, false, &rock(of_child(entry.name, 0))));
    }
    bytes.len()
}

/// A record does not cross sectors.
fn push_record(bytes: &mut Vec<u8>, record: &[u8]) {
    let left = SECTOR_BYTES - bytes.len() % SECTOR_BYTES;
    if record.len() > left {
        bytes.resize(bytes.len() + left, 0);
    }
    bytes.extend(record);
}

/// A name as its tree writes it. The root has one byte of zero.
fn identifier(name: &str, is_folder: bool, tree: Tree) -> Vec<u8> {
    if name.is_empty() {
        return vec![0];
    }
    if tree == Tree::Joliet {
        let version = if is_folder { "" } else { ";1" };
        return format!("{name}{version}").encode_utf16().flat_map(u16::to_be_bytes).collect();
    }
    // The plain names are for those who know no extension: capitals, digits, one dot.
    let (stem, extension) = name.rsplit_once('.').filter(|_| !is_folder).unwrap_or((name, ""));
    let plain = |text: &str| -> String {
        let plain = |sign: char| if sign.is_ascii_alphanumeric() { sign } else { '_' };
        text.chars().map(plain).collect::<String>().to_ascii_uppercase()
    };
    let extension: String = plain(extension).chars().take(8).collect();
    let room = PLAIN_NAME_CHARS_MAX - extension.len();
    let stem: String = plain(stem).chars().take(room).collect();
    match is_folder {
        true => stem.into_bytes(),
        false => format!("{stem}.{extension};1").into_bytes(),
    }
}

/// 9.1 of ECMA-119.
fn record(name: &[u8], sector: usize, length: usize, is_folder: bool, system: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0_u8; 33];
    both_32(&mut bytes[2..10], sector);
    both_32(&mut bytes[10..18], length);
    bytes[18..25].copy_from_slice(&[126, 1, 1, 0, 0, 0, 0]); // a date like any other
    bytes[25] = u8::from(is_folder) * 2;
    both_16(&mut bytes[28..32], 1);
    bytes[32] = name.len() as u8;
    bytes.extend(name);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes.extend(system);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes[0] = u8::try_from(bytes.len()).expect("names are short enough for one record");
    bytes
}

/// Rock Ridge's `PX`: mode, links, owner, group.
fn mode(mode: u32) -> Vec<u8> {
    let mut bytes = b"PX\x24\x01".to_vec();
    for value in [mode, if mode & 0o040_000 != 0 { 2 } else { 1 }, 0, 0] {
        bytes.extend(value.to_le_bytes());
        bytes.extend(value.to_be_bytes());
    }
    bytes
}

/// `NM` and `PX`.
fn of_child(name: &str, bits: u32) -> Vec<u8> {
    let mut bytes = b"NM".to_vec();
    bytes.extend([name.len() as u8 + 5, 1, 0]);
    bytes.extend(name.bytes());
    bytes.extend(mode(bits));
    bytes
}

/// The root's own record says that there is Rock Ridge: `SP` and `ER`.
fn of_itself(is_root: bool) -> Vec<u8> {
    const IDENTIFIER: &[u8] = b"RRIP_1991A";
    const DESCRIPTOR: &[u8] = b"THE ROCK RIDGE INTERCHANGE PROTOCOL";
    const SOURCE: &[u8] = b"IEEE P1282";
    let mut bytes = Vec::new();
    if is_root {
        bytes.extend(b"SP\x07\x01\xbe\xef\x00");
    }
    bytes.extend(mode(FOLDER_MODE));
    if is_root {
        let length = 8 + IDENTIFIER.len() + DESCRIPTOR.len() + SOURCE.len();
        bytes.extend(b"ER");
        bytes.extend([length as u8, 1]);
        bytes.extend([IDENTIFIER, DESCRIPTOR, SOURCE].map(|text| text.len() as u8));
        bytes.push(1);
        for text in [IDENTIFIER, DESCRIPTOR, SOURCE] {
            bytes.extend(text);
        }
    }
    bytes
}

fn little(value: usize) -> [u8; 4] {
    (value as u32).to_le_bytes()
}

fn big(value: usize) -> [u8; 4] {
    (value as u32).to_be_bytes()
}

/// Both byte orders, one behind the other.
fn both_32(bytes: &mut [u8], value: usize) {
    bytes[..4].copy_from_slice(&little(value));
    bytes[4..8].copy_from_slice(&big(value));
}

fn both_16(bytes: &mut [u8], value: usize) {
    bytes[..2].copy_from_slice(&(value as u16).to_le_bytes());
    bytes[2..4].copy_from_slice(&(value as u16).to_be_bytes());
}

/// The files of an image of ours, by their Joliet names.
pub fn files(image: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    const DEPTH_MAX: usize = 8;
    let descriptor = image.get((SYSTEM_SECTORS + 1) * SECTOR_BYTES..)?.get(..SECTOR_BYTES)?;
    let is_joliet = descriptor.starts_with(b"\x02CD001") && &descriptor[88..91] == b"%/E";
    let mut files = Vec::new();
    let mut pending =
        vec![(String::new(), is_joliet.then(|| extent(image, &descriptor[156..]))??, 0)];
    while let Some((path, mut records, depth)) = pending.pop() {
        while let Some(length) = records.first().map(|length| usize::from(*length)) {
            if length == 0 {
                // The rest of a sector is empty.
                let rest = (records.len() - 1) / SECTOR_BYTES * SECTOR_BYTES;
                records = &records[records.len() - rest..];
                continue;
            }
            let record = records.get(..length).filter(|record| record.len() > 33)?;
            records = &records[length..];
            let name = record.get(33..33 + usize::from(record[32]))?;
            if name.len() < 2 {
                continue; // itself and its parent
            }
            let signs: Vec<u16> =
                name.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            let name = String::from_utf16(&signs).ok()?;
            let name = name.strip_suffix(";1").unwrap_or(&name);
            let data = extent(image, record)?;
            match record[25] & 2 != 0 {
                true if depth < DEPTH_MAX => {
                    pending.push((format!("{path}{name}/"), data, depth + 1));
                }
                true => return None,
                false => files.push((format!("{path}{name}"), data.to_vec())),
            }
        }
    }
    Some(files)
}

/// The bytes that a record points to.
fn extent<'a>(image: &'a [u8], record: &[u8]) -> Option<&'a [u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(*record.get(at..)?.first_chunk()?) as usize);
    image.get(word(2)?.checked_mul(SECTOR_BYTES)?..)?.get(..word(10)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn paths_that_cannot_be_are_refused() {
        for path in ["", "/a", "a//b", "..", "a/../b", "ä", "a b", &"x".repeat(65)] {
            let mut iso = Iso::default();
            assert_eq!(iso.file(path, ""), Err(IsoError::Path(path.to_owned())), "{path}");
        }
        let mut iso = Iso::default();
        iso.file("a", "").unwrap();
        assert!(iso.file("a/b", "").is_err(), "a file is no folder");
        iso.file("c/d", "").unwrap();
        assert!(iso.file("c", "").is_err(), "a folder is no file");
    }

    #[test]
    fn xorriso_reads_names_and_contents() {
        let Some(xorriso) = ::tests::program("xorriso") else { ::tests::skip!("no xorriso") };
        let mut iso = Iso::default();
        let large: Vec<u8> = (0..10_000_u32).map(|number| (number % 251) as u8).collect();
        iso.file("user-data", "#cloud-config\n").unwrap();
        iso.file("User-Data", "other").unwrap();
        iso.file("openstack/latest/meta_data.json", large.clone()).unwrap();
        // More than one sector of records.
        for number in 0..60 {
            iso.file(&format!("many/a-file-with-a-long-name-{number}.txt"), "x").unwrap();
        }
        let folder = ::tests::scratch("iso");
        let file = folder.join("seed.iso");
        fs::write(&file, iso.image("cidata")).unwrap();
        for extension in ["-rockridge", "-joliet"] {
            let out = folder.join(extension);
            let run = Command::new(&xorriso)
                .args(["-abort_on", "WARNING", "-read_fs"])
                .arg(if extension == "-joliet" { "norock" } else { "nojoliet" })
                .args(["-osirrox", "on", "-indev"])
                .arg(&file)
                .args(["-pvd_info", "-extract", "/"])
                .arg(&out)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&run.stderr) + String::from_utf8_lossy(&run.stdout);
            assert!(run.status.success() && said.contains("cidata"), "{said}");
            assert_eq!(fs::read(out.join("user-data")).unwrap(), b"#cloud-config\n");
            assert_eq!(fs::read(out.join("User-Data")).unwrap(), b"other");
            assert_eq!(fs::read(out.join("openstack/latest/meta_data.json")).unwrap(), large);
            assert_eq!(fs::read_dir(out.join("many")).unwrap().count(), 60);
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
