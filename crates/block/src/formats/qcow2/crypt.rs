//! Encrypted guest data: LUKS with the header inside the image, and the old AES scheme.

use serde_json::{Map, Value};

use super::Qcow2;
use super::header::Header;
use crate::error::{Error, Result};
use crate::formats::luks::cipher::{Cipher, Mode, SECTOR_BYTES, Scheme, Vectors};
use crate::formats::luks::header::Header as LuksHeader;
use crate::formats::luks::keys;
use crate::node::Node;
use crate::options::{CreateOptions, OpenOptions};
use crate::secrets;

/// [`Header::crypt_method`] of the old scheme.
pub const METHOD_AES: u32 = 1;
/// [`Header::crypt_method`] of LUKS.
pub const METHOD_LUKS: u32 = 2;
/// Guest data is encrypted in pieces of this size, which stay in a core's cache.
const PIECE_BYTES: usize = 256 << 10;
/// The old scheme's key: the passphrase itself, cut or filled with zeros.
const AES_KEY_BYTES: usize = 16;

/// The keys of an open image.
pub struct Crypt {
    /// Missing when only metadata is wanted.
    cipher: Option<Cipher>,
    /// Sectors are numbered by their place in the file; otherwise as the guest sees them.
    by_place: bool,
    luks: Option<parking_lot::Mutex<LuksHeader>>,
    secret: Option<String>,
}

impl Crypt {
    /// Takes the keys' options; nothing for an image in the clear.
    pub fn open(
        header: &Header,
        file: &dyn Node,
        options: &mut OpenOptions,
        no_data: bool,
    ) -> Result<Option<Self>> {
        let format = options.take_text("encrypt.format");
        let secret = options.take_text("encrypt.key-secret");
        let (name, luks) = match header.crypt_method {
            0 if format.is_some() => {
                return Err(Error::invalid(
                    "No encryption in image header, but options specified format 'aes' or 'luks'",
                ));
            }
            0 => return Ok(None),
            METHOD_AES => ("aes", None),
            METHOD_LUKS => {
                let (base, _) = header
                    .crypto
                    .ok_or_else(|| Error::invalid("Missing CRYPTO header for crypt method 2"))?;
                ("luks", Some(LuksHeader::read(file, base)?))
            }
            other => {
                return Err(Error::invalid(format!("Unsupported encryption method {other}")));
            }
        };
        if let Some(format) = format.filter(|format| format != name) {
            return Err(Error::invalid(format!(
                "Header reported '{name}' encryption format but options specify '{format}'"
            )));
        }
        let cipher = match &secret {
            _ if no_data => None,
            None => {
                return Err(Error::invalid(
                    "Parameter 'encrypt.key-secret' is required for cipher",
                ));
            }
            Some(id) => {
                let passphrase = secrets::get(id)?;
                Some(match &luks {
                    Some(luks) => Cipher::new(luks.scheme, &luks.unlock(file, &passphrase)?)?,
                    None => aes(passphrase)?,
                })
            }
        };
        let luks = luks.map(parking_lot::Mutex::new);
        Ok(Some(Self { cipher, by_place: luks.is_some(), luks, secret }))
    }

    fn cipher(&self) -> Result<&Cipher> {
        let locked = || Error::invalid("The image is locked: its key is not known");
        self.cipher.as_ref().ok_or_else(locked)
    }

    fn first_sector(&self, place: u64, guest: u64) -> u64 {
        (if self.by_place { place } else { guest }) / SECTOR_BYTES as u64
    }

    /// What `info` shows.
    pub fn describe(&self) -> Map<String, Value> {
        match &self.luks {
            Some(luks) => keys::describe(&luks.lock(), false),
            None => Map::from_iter([("format".to_owned(), Value::from("aes"))]),
        }
    }
}

/// The old scheme's cipher.
fn aes(mut passphrase: Vec<u8>) -> Result<Cipher> {
    passphrase.resize(AES_KEY_BYTES, 0);
    Cipher::new(Scheme { mode: Mode::Cbc, vectors: Vectors::Plain64 }, &passphrase)
}

/// The scheme that creation options ask for.
pub fn wanted(options: &CreateOptions) -> Result<u32> {
    let format = options.non_empty("encrypt.format");
    let old = options.bool("encryption")?;
    match (format, old) {
        (Some(_), Some(_)) => {
            Err(Error::invalid("Options encryption and encrypt.format are mutually exclusive"))
        }
        (None, None | Some(false)) => {
            match options.names().find(|name| name.starts_with("encrypt.")) {
                Some(_) => Err(Error::invalid("Parameter 'encrypt.format' is missing")),
                None => Ok(0),
            }
        }
        (Some("aes"), None) | (None, Some(true)) => Ok(METHOD_AES),
        (Some("luks"), None) => Ok(METHOD_LUKS),
        (Some(other), None) => Err(Error::invalid(format!(
            "Invalid parameter '{other}'\nAccepted values are 'qcow', 'luks'"
        ))),
    }
}

/// Puts the header of a new encrypted image into clusters of its own.
pub fn prepare(image: &Qcow2, options: &CreateOptions) -> Result<()> {
    let new = keys::NewKeys::take(options, "encrypt.")?;
    let bytes = keys::NewKeys::bytes(options, "encrypt.")?;
    let cluster = image.geometry.cluster;
    let mut state = image.state.lock();
    let place = state.meta.allocate(bytes.next_multiple_of(cluster))?;
    let end = place + bytes.next_multiple_of(cluster);
    crate::node::write_zeros(&*image.file, place, end - place)?;
    new.create(&*image.file, place)?;
    state.meta.note_touched(end);
    state.meta.untouched_from = state.meta.untouched_from.max(end);
    state.meta.flush()?;
    state.meta.header.crypt_method = METHOD_LUKS;
    state.meta.header.crypto = Some((place, bytes));
    state.meta.write_header()?;
    state.meta.flush()
}

/// The key of a new image of the old scheme must be known, too.
pub fn check_aes(options: &CreateOptions) -> Result<()> {
    let secret = options
        .text("encrypt.key-secret")
        .ok_or_else(|| Error::invalid("Parameter 'encrypt.key-secret' is required for cipher"))?;
    secrets::get(secret).map(|_| ())
}

impl Qcow2 {
    /// Reads guest data from its place.
    pub(super) fn load(&self, piece: &mut [u8], place: u64, guest: u64) -> Result<()> {
        let Some(crypt) = &self.crypt else { return self.data().read_at(piece, place) };
        let unit = SECTOR_BYTES as u64;
        let skip = (guest % unit) as usize;
        let (start, whole) =
            (place - skip as u64, (skip + piece.len()).next_multiple_of(SECTOR_BYTES));
        if skip != 0 || whole != piece.len() {
            let mut sectors = vec![0; whole];
            self.load(&mut sectors, start, guest - skip as u64)?;
            piece.copy_from_slice(&sectors[skip..skip + piece.len()]);
            return Ok(());
        }
        let cipher = crypt.cipher()?;
        for (number, part) in piece.chunks_mut(PIECE_BYTES).enumerate() {
            let done = (number * PIECE_BYTES) as u64;
            self.data().read_at(part, place + done)?;
            cipher.decrypt(part, crypt.first_sector(place + done, guest + done));
        }
        Ok(())
    }

    /// Writes guest data to its place: whole sectors, where the image is encrypted.
    pub(super) fn save(&self, data: &[u8], place: u64, guest: u64) -> Result<()> {
        let Some(crypt) = &self.crypt else { return self.data().write_at(data, place) };
        let cipher = crypt.cipher()?;
        let mut piece = Vec::with_capacity(data.len().min(PIECE_BYTES));
        for (number, plain) in data.chunks(PIECE_BYTES).enumerate() {
            let done = (number * PIECE_BYTES) as u64;
            piece.clear();
            piece.extend_from_slice(plain);
            cipher.encrypt(&mut piece, crypt.first_sector(place + done, guest + done));
            self.data().write_at(&piece, place + done)?;
        }
        Ok(())
    }

    /// A write that does not consist of whole sectors, of an encrypted image.
    pub(super) fn write_partial(&self, data: &[u8], offset: u64) -> Result<()> {
        let _order = self.partial.lock();
        let unit = SECTOR_BYTES as u64;
        let start = offset - offset % unit;
        let end = (offset + data.len() as u64).next_multiple_of(unit);
        let mut whole = vec![0; (end - start) as usize];
        self.read(&mut whole, start)?;
        let skip = (offset - start) as usize;
        whole[skip..skip + data.len()].copy_from_slice(data);
        self.write(&whole, start)
    }

    /// Changes keyslots.
    pub(super) fn amend_keys(&self, options: &CreateOptions, force: bool) -> Result<()> {
        let Some(crypt) = &self.crypt else {
            return Err(Error::invalid("No encryption in image header"));
        };
        let Some(luks) = &crypt.luks else {
            return Err(Error::unsupported(
                "Only LUKS encryption options can be amended for qcow2 with encryption",
            ));
        };
        let change = keys::Change::take(options, "encrypt.")?;
        change.apply(&mut luks.lock(), &*self.file, crypt.secret.as_deref(), force)?;
        self.file.flush()
    }
}
