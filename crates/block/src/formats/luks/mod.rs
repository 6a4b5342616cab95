//! `luks`: encrypted disks, LUKS version 1 with AES-XTS.
//!
//! `-object secret,id=s,data=... -blockdev driver=luks,key-secret=s,file.driver=file,file.filename=x`

pub(in crate::formats) mod header;
pub(crate) mod cipher;
pub(in crate::formats) mod keys;

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Format, Measure};
use crate::error::{Error, Result};
use crate::info::{ImageInfo, Specific};
use crate::node::{Extent, Node, NodeRef, Preallocation};
use crate::open::{OpenContext, OpenMode, create_protocol, open_created};
use crate::options::{CreateOptions, OpenOptions, OptionKind, OptionSpec};
use crate::secrets;
use cipher::{Cipher, SECTOR_BYTES};
use header::{Header, MAGIC};

/// The table row.
pub const FORMAT: Format = Format {
    name: "luks",
    probe: |start, _| if start.starts_with(MAGIC) { 100 } else { 0 },
    open,
    create: Some(create),
    create_options: CREATE_OPTIONS,
    amend_options: keys::AMEND_OPTIONS,
    backing: false,
    measure: Some(measure),
};

const CREATE_OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("size", OptionKind::Size, "Virtual disk size"),
    OptionSpec::new(
        "key-secret",
        OptionKind::Text,
        "ID of the secret that provides the keyslot passphrase",
    ),
    OptionSpec::new("cipher-alg", OptionKind::Text, "Name of encryption cipher algorithm"),
    OptionSpec::new("cipher-mode", OptionKind::Text, "Name of encryption cipher mode"),
    OptionSpec::new("ivgen-alg", OptionKind::Text, "Name of IV generator algorithm"),
    OptionSpec::new("ivgen-hash-alg", OptionKind::Text, "Name of IV generator hash algorithm"),
    OptionSpec::new("hash-alg", OptionKind::Text, "Name of encryption hash algorithm"),
    OptionSpec::new("iter-time", OptionKind::Number, "Time to spend in PBKDF in milliseconds"),
    OptionSpec::new(
        "preallocation",
        OptionKind::Text,
        "Preallocation mode (allowed values: off, falloc, full)",
    ),
];

/// Header and slots for keys of 64 bytes.
const PAYLOAD_BYTES_AES256: u64 = 4040 * 512;
/// Writes are encrypted in pieces of this size, which stay in a core's cache.
const PIECE_BYTES: usize = 256 << 10;

struct Luks {
    file: NodeRef,
    header: Mutex<Header>,
    /// What opened the image.
    secret: Option<String>,
    /// Missing when only metadata is wanted.
    cipher: Option<Cipher>,
    payload: u64,
    writable: bool,
    /// Orders read-modify-write of partial sectors.
    partial: Mutex<()>,
}

fn open(
    file: NodeRef,
    options: &mut OpenOptions,
    mode: &OpenMode,
    _context: &OpenContext,
) -> Result<NodeRef> {
    let header = Header::read(&*file, 0)?;
    let secret = options.take_text("key-secret");
    let cipher = match &secret {
        _ if mode.no_data => None,
        None => {
            return Err(Error::invalid("Parameter 'key-secret' is required for cipher"));
        }
        Some(id) => Some(Cipher::new(header.scheme, &header.unlock(&*file, &secrets::get(id)?)?)?),
    };
    let payload = u64::from(header.payload_sectors) * SECTOR_BYTES as u64;
    if payload > file.size() {
        return Err(Error::corrupt("LUKS payload is overlapping the end of the file"));
    }
    Ok(Arc::new(Luks {
        file,
        header: Mutex::new(header),
        secret,
        cipher,
        payload,
        writable: mode.write,
        partial: Mutex::new(()),
    }))
}

fn create(filename: &str, options: &CreateOptions, _context: &OpenContext) -> Result<()> {
    let new = keys::NewKeys::take(options, "")?;
    let size = options.size("size")?.unwrap_or(0).next_multiple_of(512);
    create_protocol(filename, &CreateOptions::new())?;
    let file = open_created(filename)?;
    let payload = new.create(&*file, 0)?;
    file.resize(payload + size, options.preallocation()?)?;
    file.flush()
}

fn measure(options: &CreateOptions, source: Option<&NodeRef>) -> Result<Measure> {
    let size = match source {
        Some(source) => source.size(),
        None => options.size("size")?.unwrap_or(0).next_multiple_of(512),
    };
    let bytes = size + PAYLOAD_BYTES_AES256;
    Ok(Measure { required: bytes, fully_allocated: bytes, bitmaps: None })
}

impl Luks {
    fn cipher(&self) -> Result<&Cipher> {
        self.cipher
            .as_ref()
            .ok_or_else(|| Error::invalid("The image is locked: its key is not known"))
    }

    /// Reads and decrypts whole sectors.
    fn read_sectors(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let cipher = self.cipher()?;
        for (number, piece) in buffer.chunks_mut(PIECE_BYTES).enumerate() {
            let at = offset + (number * PIECE_BYTES) as u64;
            self.file.read_at(piece, self.payload + at)?;
            cipher.decrypt(piece, at / SECTOR_BYTES as u64);
        }
        Ok(())
    }

    fn write_sectors(&self, data: &[u8], offset: u64) -> Result<()> {
        let cipher = self.cipher()?;
        let mut piece = Vec::with_capacity(data.len().min(PIECE_BYTES));
        for (number, plain) in data.chunks(PIECE_BYTES).enumerate() {
            let at = offset + (number * PIECE_BYTES) as u64;
            piece.clear();
            piece.extend_from_slice(plain);
            cipher.encrypt(&mut piece, at / SECTOR_BYTES as u64);
            self.file.write_at(&piece, self.payload + at)?;
        }
        Ok(())
    }

    /// The whole sectors around a range.
    fn around(offset: u64, length: usize) -> (u64, usize) {
        let unit = SECTOR_BYTES as u64;
        let start = offset - offset % unit;
        (start, ((offset + length as u64).next_multiple_of(unit) - start) as usize)
    }
}

impl Node for Luks {
    fn driver(&self) -> &'static str {
        "luks"
    }

    fn filename(&self) -> String {
        self.file.filename()
    }

    fn size(&self) -> u64 {
        self.file.size() - self.payload
    }

    fn writable(&self) -> bool {
        self.writable
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let (start, length) = Self::around(offset, buffer.len());
        if length == buffer.len() {
            return self.read_sectors(buffer, offset);
        }
        let mut whole = vec![0; length];
        self.read_sectors(&mut whole, start)?;
        let skip = (offset - start) as usize;
        buffer.copy_from_slice(&whole[skip..skip + buffer.len()]);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let (start, length) = Self::around(offset, data.len());
        if length == data.len() {
            return self.write_sectors(data, offset);
        }
        let _order = self.partial.lock();
        let mut whole = vec![0; length];
        self.read_sectors(&mut whole, start)?;
        let skip = (offset - start) as usize;
        whole[skip..skip + data.len()].copy_from_slice(data);
        self.write_sectors(&whole, start)
    }

    fn flush(&self) -> Result<()> {
        self.file.flush()
    }

    fn status(&self, _offset: u64, length: u64) -> Result<Extent> {
        // A hole of the file decrypts to noise: everything is data.
        Ok(Extent { length, data: true, allocated: true, ..Extent::default() })
    }

    fn file(&self) -> Option<NodeRef> {
        Some(self.file.clone())
    }

    fn starts_zeroed(&self) -> bool {
        false
    }

    fn resize(&self, size: u64, preallocation: Preallocation) -> Result<()> {
        self.file.resize(self.payload + size, preallocation)
    }

    fn info(&self) -> Result<ImageInfo> {
        let data = keys::describe(&self.header.lock(), true);
        Ok(ImageInfo {
            encrypted: true,
            specific: Some(Specific { kind: "luks", data }),
            ..ImageInfo::default()
        })
    }

    fn amend(&self, options: &CreateOptions, force: bool, _: &dyn Fn(u64, u64)) -> Result<()> {
        let change = keys::Change::take(options, "")?;
        let mut header = self.header.lock();
        change.apply(&mut header, &*self.file, self.secret.as_deref(), force)?;
        self.file.flush()
    }
}
