//! `vmdk`: VMware disk images, sparse, flat, split and stream-optimised.
//!
//! `-blockdev driver=vmdk,file.driver=file,file.filename=disk.vmdk`

mod create;
mod descriptor;
mod sparse;

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustix::io::Errno;
use serde_json::{Map, Value, json};

use super::Format;
use crate::error::{Error, Result};
use crate::info::{ImageInfo, Specific};
use crate::node::{Compressing, Extent, Node, NodeRef, Packed, Zeroing, write_zeros};
use crate::open::{OpenContext, OpenMode, combine, exact_name, open_child};
use crate::options::OpenOptions;
use descriptor::{Descriptor, NO_PARENT};
use sparse::{Grain, MAGIC, SECTOR, Sparse};

/// The table row.
pub const FORMAT: Format = Format {
    name: "vmdk",
    probe,
    open,
    create: Some(create::create),
    create_options: create::CREATE_OPTIONS,
    amend_options: &[],
    backing: true,
    measure: None,
};

/// A longer text is no descriptor.
const DESCRIPTOR_BYTES_MAX: u64 = 1 << 20;
/// More extents are refused.
const EXTENTS_MAX: usize = 4096;

fn probe(start: &[u8], _filename: &str) -> u32 {
    if start.starts_with(MAGIC) {
        return 100;
    }
    let text = String::from_utf8_lossy(start);
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let versions = ["version=1", "version=2", "version=3"];
    if first.is_some_and(|line| versions.contains(&line)) { 100 } else { 0 }
}

enum Data {
    Flat { file: NodeRef, offset: u64 },
    Sparse(Mutex<Sparse>),
    Zero,
}

struct Part {
    start: u64,
    length: u64,
    data: Data,
    name: String,
    kind: String,
}

struct Vmdk {
    file: NodeRef,
    descriptor: Descriptor,
    parts: Vec<Part>,
    size: u64,
    writable: bool,
    stream: bool,
    backing: RwLock<Option<NodeRef>>,
    /// Where the identifier's digits stand, which change before the first write: images above
    /// notice that theirs is no longer what they were made for.
    cid_at: Option<u64>,
    began: Mutex<bool>,
}

/// The identifier of a VMDK image.
fn cid_of(node: &NodeRef) -> Option<u32> {
    let info = node.info().ok()?.specific.filter(|specific| specific.kind == "vmdk")?;
    info.data.get("cid")?.as_u64().and_then(|cid| u32::try_from(cid).ok())
}

/// Where the digits of the identifier stand in a descriptor.
fn cid_digits(text: &str) -> Option<u64> {
    let line = text.find("\nCID=")?;
    let digits = text.get(line + 5..line + 13)?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(line as u64 + 5)
}

fn open(
    file: NodeRef,
    _options: &mut OpenOptions,
    mode: &OpenMode,
    _context: &OpenContext,
) -> Result<NodeRef> {
    let mut start = [0; 4];
    file.read_at(&mut start, 0)?;
    let (descriptor, parts, cid_at) = if &start == MAGIC {
        open_single(&file)?
    } else {
        let mut bytes = vec![0; file.size().min(DESCRIPTOR_BYTES_MAX) as usize];
        file.read_at(&mut bytes, 0)?;
        let text = String::from_utf8_lossy(&bytes);
        let descriptor = Descriptor::parse(text.trim_end_matches('\0'))?;
        let parts = open_parts(&descriptor, &file, mode)?;
        (descriptor, parts, cid_digits(&text))
    };
    let size = parts.last().map_or(0, |part| part.start + part.length);
    let stream = descriptor.create_type == "streamOptimized";
    Ok(Arc::new(Vmdk {
        file,
        descriptor,
        parts,
        size,
        writable: mode.write,
        stream,
        backing: RwLock::new(None),
        cid_at,
        began: Mutex::new(false),
    }))
}

fn open_single(file: &NodeRef) -> Result<(Descriptor, Vec<Part>, Option<u64>)> {
    let mut cid_at = None;
    let sparse = Sparse::open(file.clone())?;
    let descriptor = match sparse.descriptor {
        Some((offset, bytes)) if bytes <= DESCRIPTOR_BYTES_MAX => {
            let mut text = vec![0; bytes as usize];
            file.read_at(&mut text, offset)?;
            let text = String::from_utf8_lossy(&text);
            let text = text.split('\0').next().unwrap_or_default();
            cid_at = cid_digits(text).map(|at| offset + at);
            Descriptor::parse(text)?
        }
        _ => Descriptor {
            create_type: "monolithicSparse".into(),
            parent_cid: NO_PARENT,
            ..Descriptor::default()
        },
    };
    let length = sparse.capacity_sectors.saturating_mul(SECTOR);
    let part = Part {
        start: 0,
        length,
        data: Data::Sparse(Mutex::new(sparse)),
        name: file.filename(),
        kind: "SPARSE".into(),
    };
    Ok((descriptor, vec![part], cid_at))
}

fn open_parts(descriptor: &Descriptor, file: &NodeRef, mode: &OpenMode) -> Result<Vec<Part>> {
    let known = [
        "monolithicFlat",
        "vmfs",
        "vmfsSparse",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "monolithicSparse",
        "custom",
        "fullDevice",
    ];
    if !known.contains(&descriptor.create_type.as_str()) {
        return Err(Error::unsupported(format!(
            "Unsupported image type '{}'",
            descriptor.create_type
        )));
    }
    if descriptor.extents.len() > EXTENTS_MAX {
        return Err(Error::invalid("There are too many extents"));
    }
    let mut parts = Vec::new();
    let mut start = 0u64;
    for line in &descriptor.extents {
        let length = line.sectors.checked_mul(SECTOR).ok_or(Error::Os(Errno::FBIG))?;
        let name = combine(&exact_name(file), &line.file)?;
        let child = || {
            let child = open_child(Some(&name), OpenOptions::new(), mode)?;
            child.lock(mode, true)?;
            Ok::<_, Error>(child)
        };
        let data = match line.kind.as_str() {
            "ZERO" => Data::Zero,
            "FLAT" | "VMFS" => {
                Data::Flat { file: child()?, offset: line.offset_sectors.saturating_mul(SECTOR) }
            }
            "SPARSE" => Data::Sparse(Mutex::new(Sparse::open(child()?)?)),
            other => return Err(Error::unsupported(format!("Unsupported extent type '{other}'"))),
        };
        parts.push(Part { start, length, data, name, kind: line.kind.clone() });
        start = start.checked_add(length).ok_or(Error::Os(Errno::FBIG))?;
    }
    Ok(parts)
}

/// Guest bytes of one kind.
enum Run {
    Nothing,
    Zero,
    Plain(NodeRef, u64),
    Packed(u64),
}

impl Vmdk {
    fn part_at(&self, offset: u64) -> Option<&Part> {
        let index = self.parts.partition_point(|part| part.start <= offset).checked_sub(1)?;
        self.parts.get(index).filter(|part| offset < part.start + part.length)
    }

    /// The run at an offset and its length (within a grain).
    fn run(&self, offset: u64, length: u64) -> Result<(Run, u64)> {
        let Some(part) = self.part_at(offset) else { return Ok((Run::Zero, length)) };
        let within = offset - part.start;
        let left = length.min(part.length - within);
        match &part.data {
            Data::Zero => Ok((Run::Zero, left)),
            Data::Flat { file, offset } => Ok((Run::Plain(file.clone(), offset + within), left)),
            Data::Sparse(sparse) => {
                let mut sparse = sparse.lock();
                let grain_bytes = sparse.grain_bytes;
                let in_grain = within % grain_bytes;
                let mut run = (grain_bytes - in_grain).min(left);
                let first = sparse.lookup(within / grain_bytes)?;
                let mut next = within / grain_bytes + 1;
                while run < left {
                    let follows = match (first, sparse.lookup(next)?) {
                        (Grain::Nothing, Grain::Nothing) | (Grain::Zero, Grain::Zero) => true,
                        (Grain::At(a), Grain::At(b)) => {
                            b == a + (next - within / grain_bytes) * grain_bytes
                        }
                        _ => false,
                    };
                    if !follows {
                        break;
                    }
                    run = (run + grain_bytes).min(left);
                    next += 1;
                }
                let found = match first {
                    Grain::Nothing => Run::Nothing,
                    Grain::Zero => Run::Zero,
                    Grain::At(place) => Run::Plain(sparse.file().clone(), place + in_grain),
                    Grain::Packed(place) => Run::Packed(place),
                };
                Ok((found, run))
            }
        }
    }

    fn write_grain(&self, data: &[u8], offset: u64) -> Result<usize> {
        let part = self.part_at(offset).ok_or(Error::Os(Errno::NOSPC))?;
        let Data::Sparse(sparse) = &part.data else { return Err(Errno::IO.into()) };
        let mut sparse = sparse.lock();
        let within = offset - part.start;
        let grain = within / sparse.grain_bytes;
        let in_grain = (within % sparse.grain_bytes) as usize;
        let piece = data.len().min(sparse.grain_bytes as usize - in_grain);
        if let Grain::At(place) = sparse.lookup(grain)? {
            sparse.file().write_at(&data[..piece], place + in_grain as u64)?;
            return Ok(piece);
        }
        let mut bytes = vec![0; sparse.grain_bytes as usize];
        if piece < bytes.len() && sparse.lookup(grain)? == Grain::Nothing {
            self.read_backing(&mut bytes, offset - in_grain as u64)?;
        }
        bytes[in_grain..in_grain + piece].copy_from_slice(&data[..piece]);
        sparse.file().about_to("write_aio");
        sparse.write_new(grain, &bytes)?;
        Ok(piece)
    }

    /// The identifier as it stands in the file.
    fn current_cid(&self) -> u32 {
        let mut digits = [0; 8];
        let read = self.cid_at.is_some_and(|at| self.file.read_at(&mut digits, at).is_ok());
        let text = std::str::from_utf8(&digits).unwrap_or_default();
        u32::from_str_radix(text, 16).ok().filter(|_| read).unwrap_or(self.descriptor.cid)
    }

    /// The first write changes the identifier.
    fn begin(&self) -> Result<()> {
        let mut began = self.began.lock();
        if !*began && let Some(at) = self.cid_at {
            let id = super::unique_id();
            let digits = format!("{:02x}{:02x}{:02x}{:02x}", id[0], id[1], id[2], id[3]);
            self.file.write_at(digits.as_bytes(), at)?;
        }
        *began = true;
        Ok(())
    }

    fn read_backing(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let backing = self.backing.read().clone();
        if let Some(cid) = backing.as_ref().and_then(cid_of)
            && self.descriptor.parent_cid != NO_PARENT
            && cid != self.descriptor.parent_cid
        {
            return Err(Error::invalid(format!(
                "The backing file has changed since the image was made (CID {cid:08x}, not {:08x})",
                self.descriptor.parent_cid
            )));
        }
        let there = backing.as_ref().map_or(0, |backing| backing.size().saturating_sub(offset));
        let (inside, beyond) = buffer.split_at_mut(there.min(buffer.len() as u64) as usize);
        beyond.fill(0);
        match backing {
            Some(backing) if !inside.is_empty() => backing.read_at(inside, offset),
            _ => Ok(()),
        }
    }
}

impl Node for Vmdk {
    fn driver(&self) -> &'static str {
        "vmdk"
    }

    fn filename(&self) -> String {
        self.file.filename()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn writable(&self) -> bool {
        self.writable
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let (run, length) = self.run(at, (buffer.len() - done) as u64)?;
            let piece = &mut buffer[done..done + length as usize];
            match run {
                Run::Nothing => self.read_backing(piece, at)?,
                Run::Zero => piece.fill(0),
                Run::Plain(file, place) => {
                    file.about_to("read_aio");
                    file.read_at(piece, place)?;
                }
                Run::Packed(place) => {
                    let part = self.part_at(at).ok_or(Error::Os(Errno::IO))?;
                    let Data::Sparse(sparse) = &part.data else { return Err(Errno::IO.into()) };
                    let sparse = sparse.lock();
                    let grain = sparse.unpack(place)?;
                    let start = ((at - part.start) % sparse.grain_bytes) as usize;
                    piece.copy_from_slice(&grain[start..start + piece.len()]);
                }
            }
            done += length as usize;
        }
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        if self.stream {
            return Err(Error::unsupported(
                "Stream-optimised images take whole compressed grains only",
            ));
        }
        self.begin()?;
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let rest = &data[done..];
            match self.run(at, rest.len() as u64)? {
                (Run::Plain(file, place), length) => {
                    file.about_to("write_aio");
                    file.write_at(&rest[..length as usize], place)?;
                    done += length as usize;
                }
                _ => done += self.write_grain(rest, at)?,
            }
        }
        Ok(())
    }

    fn zero_at(&self, offset: u64, length: u64, _zeroing: Zeroing) -> Result<()> {
        let mut done = 0;
        while done < length {
            let (run, piece) = self.run(offset + done, length - done)?;
            let zero_already =
                matches!(run, Run::Zero) || matches!(run, Run::Nothing) && self.backing().is_none();
            if !zero_already {
                write_zeros(self, offset + done, piece)?;
            }
            done += piece;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        for part in &self.parts {
            match &part.data {
                Data::Flat { file, .. } => file.flush()?,
                Data::Sparse(sparse) => sparse.lock().file().flush()?,
                Data::Zero => {}
            }
        }
        Ok(())
    }

    fn status(&self, offset: u64, length: u64) -> Result<Extent> {
        let (run, length) = self.run(offset, length)?;
        let plain = Extent { length, allocated: true, ..Extent::default() };
        Ok(match run {
            Run::Nothing => Extent { allocated: false, ..plain },
            Run::Zero => Extent { zero: true, ..plain },
            Run::Packed(_) => Extent { data: true, compressed: true, ..plain },
            Run::Plain(file, place) => {
                // Only one file can be meant by an offset.
                let own = Arc::ptr_eq(&file, &self.file);
                let below = file.status(place, length)?;
                Extent {
                    length: length.min(below.length),
                    data: true,
                    zero: below.zero,
                    host: own.then_some(place),
                    ..plain
                }
            }
        })
    }

    fn file(&self) -> Option<NodeRef> {
        Some(self.file.clone())
    }

    fn backing(&self) -> Option<NodeRef> {
        self.backing.read().clone()
    }

    fn set_backing(&self, backing: Option<NodeRef>) -> Result<()> {
        *self.backing.write() = backing;
        Ok(())
    }

    fn supports_backing(&self) -> bool {
        true
    }

    fn info(&self) -> Result<ImageInfo> {
        let extents = self.parts.iter().map(|part| {
            let mut row = json!({
                "filename": part.name,
                "format": if part.kind == "SPARSE" { "" } else { part.kind.as_str() },
                "virtual-size": part.length,
            });
            if let Data::Sparse(sparse) = &part.data {
                let sparse = sparse.lock();
                row["cluster-size"] = Value::from(sparse.grain_bytes);
                if sparse.compressed() {
                    row["compressed"] = Value::from(true);
                }
            }
            row
        });
        let mut data = Map::new();
        data.insert("create-type".into(), Value::from(self.descriptor.create_type.clone()));
        data.insert("cid".into(), Value::from(self.current_cid()));
        data.insert("parent-cid".into(), Value::from(self.descriptor.parent_cid));
        data.insert("extents".into(), Value::Array(extents.collect()));
        let has_parent = self.descriptor.parent_cid != NO_PARENT;
        Ok(ImageInfo {
            backing_file: self.descriptor.parent_file.clone().filter(|_| has_parent),
            specific: Some(Specific { kind: "vmdk", data }),
            ..ImageInfo::default()
        })
    }

    fn allocated_bytes(&self) -> Option<u64> {
        let mut bytes = self.file.allocated_bytes()?;
        for part in &self.parts {
            let file = match &part.data {
                Data::Flat { file, .. } => file.clone(),
                Data::Sparse(sparse) => sparse.lock().file().clone(),
                Data::Zero => continue,
            };
            if !Arc::ptr_eq(&file, &self.file) {
                bytes += file.allocated_bytes()?;
            }
        }
        Some(bytes)
    }

    fn cluster_bytes(&self) -> Option<u64> {
        self.parts.iter().find_map(|part| match &part.data {
            Data::Sparse(sparse) => Some(sparse.lock().grain_bytes),
            _ => None,
        })
    }

    fn compressing(&self) -> Option<&dyn Compressing> {
        if self.stream { Some(self) } else { None }
    }

    fn only_compressed(&self) -> bool {
        self.stream
    }
}

impl Compressing for Vmdk {
    fn unit(&self) -> usize {
        self.cluster_bytes().unwrap_or(65_536) as usize
    }

    fn pack(&self, data: &[u8]) -> Result<Packed> {
        let mut whole = data.to_vec();
        whole.resize(self.unit(), 0);
        Ok(Packed { bytes: Some(sparse::pack(&whole)?) })
    }

    fn store(&self, offset: u64, _data: &[u8], packed: &Packed) -> Result<()> {
        let part = self.part_at(offset).ok_or(Error::Os(Errno::NOSPC))?;
        let (Data::Sparse(sparse), Some(bytes)) = (&part.data, &packed.bytes) else {
            return Err(Errno::IO.into());
        };
        let mut sparse = sparse.lock();
        let grain = (offset - part.start) / sparse.grain_bytes;
        if sparse.lookup(grain)? != Grain::Nothing {
            return Err(Error::Os(Errno::IO)); // a grain is written once
        }
        sparse.write_packed(grain, bytes)
    }
}
