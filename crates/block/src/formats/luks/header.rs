//! The LUKS header, version 1: the master key, locked by passphrases.

use std::time::Instant;

use pbkdf2::pbkdf2_hmac;
use sha1::{Digest, Sha1};
use sha2::{Sha256, Sha512};

use super::cipher::{Cipher, SECTOR_BYTES, Scheme};
use crate::error::{Error, Result};
use crate::node::Node;

pub const MAGIC: &[u8; 6] = b"LUKS\xba\xbe";
const HEADER_BYTES: usize = 592;
const SLOTS: usize = 8;
const SLOT_ENABLED: u32 = 0x00ac_71f3;
const SLOT_DISABLED: u32 = 0x0000_dead;
const STRIPES: u32 = 4000;
const SALT_BYTES: usize = 32;
const DIGEST_BYTES: usize = 20;
/// The least iterations, however slow the machine.
const ITERATIONS_MIN: u32 = 1000;
/// Where the first slot's key material lies, in sectors.
const MATERIAL_SECTORS: u32 = 8;
/// Larger keys and more stripes are refused.
const KEY_BYTES_MAX: u32 = 64;
const STRIPES_MAX: u32 = 10_000;

/// Erased key material is overwritten this often.
const ERASE_PASSES: usize = 3;

/// What a new header is to be.
pub struct Wanted {
    pub scheme: Scheme,
    pub key_bytes: u32,
    pub hash: Hash,
}

/// The hash functions of LUKS headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

impl Hash {
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "sha1" => Self::Sha1,
            "sha256" => Self::Sha256,
            "sha512" => Self::Sha512,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn derive(self, password: &[u8], salt: &[u8], iterations: u32, out: &mut [u8]) {
        match self {
            Self::Sha1 => pbkdf2_hmac::<Sha1>(password, salt, iterations, out),
            Self::Sha256 => pbkdf2_hmac::<Sha256>(password, salt, iterations, out),
            Self::Sha512 => pbkdf2_hmac::<Sha512>(password, salt, iterations, out),
        }
    }

    fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        fn of<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
            let mut digest = D::new();
            parts.iter().for_each(|part| digest.update(part));
            digest.finalize().as_slice().to_vec()
        }
        match self {
            Self::Sha1 => of::<Sha1>(parts),
            Self::Sha256 => of::<Sha256>(parts),
            Self::Sha512 => of::<Sha512>(parts),
        }
    }

    /// The anti-forensic splitter's diffusion.
    fn diffuse(self, block: &mut [u8]) {
        let step = self.digest(&[]).len();
        for (number, piece) in block.chunks_mut(step).enumerate() {
            let hashed = self.digest(&[&(number as u32).to_be_bytes(), piece]);
            piece.copy_from_slice(&hashed[..piece.len()]);
        }
    }
}

/// A slot for a passphrase.
#[derive(Clone, Debug)]
pub struct Slot {
    pub active: bool,
    pub iterations: u32,
    salt: Vec<u8>,
    pub offset_sectors: u32,
    pub stripes: u32,
}

/// The header.
#[derive(Clone, Debug)]
pub struct Header {
    /// Where in the file it begins.
    base: u64,
    pub scheme: Scheme,
    pub hash: Hash,
    pub payload_sectors: u32,
    pub key_bytes: u32,
    digest: Vec<u8>,
    digest_salt: Vec<u8>,
    pub digest_iterations: u32,
    pub uuid: String,
    pub slots: Vec<Slot>,
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn random(bytes: usize) -> Result<Vec<u8>> {
    let mut out = vec![0; bytes];
    let mut done = 0;
    while done < bytes {
        done += rustix::rand::getrandom(&mut out[done..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(out)
}

impl Header {
    /// Reads the header that begins at `base`.
    pub fn read(file: &dyn Node, base: u64) -> Result<Self> {
        let mut bytes = vec![0; HEADER_BYTES];
        file.read_at(&mut bytes, base)?;
        if &bytes[..6] != MAGIC {
            return Err(Error::invalid("Volume is not in LUKS format"));
        }
        let version = u16::from_be_bytes([bytes[6], bytes[7]]);
        if version != 1 {
            return Err(Error::unsupported(format!("LUKS version {version} is not supported")));
        }
        let cipher = text(&bytes[8..40]);
        let cipher_mode = text(&bytes[40..72]);
        let hash_name = text(&bytes[72..104]);
        let hash = Hash::parse(&hash_name).ok_or_else(|| {
            Error::unsupported(format!("Hash algorithm '{hash_name}' is not supported"))
        })?;
        let scheme = Scheme::parse(&cipher_mode).filter(|_| cipher == "aes").ok_or_else(|| {
            Error::unsupported(format!("Cipher '{cipher}-{cipher_mode}' is not supported"))
        })?;
        let header = Self {
            base,
            scheme,
            hash,
            payload_sectors: be32(&bytes, 104),
            key_bytes: be32(&bytes, 108),
            digest: bytes[112..132].to_vec(),
            digest_salt: bytes[132..164].to_vec(),
            digest_iterations: be32(&bytes, 164),
            uuid: text(&bytes[168..208]),
            slots: bytes[208..].chunks_exact(48).take(SLOTS).map(slot).collect(),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<()> {
        if self.key_bytes == 0 || self.key_bytes > KEY_BYTES_MAX {
            return Err(Error::corrupt(format!("LUKS key length {} is invalid", self.key_bytes)));
        }
        for (number, slot) in self.slots.iter().enumerate() {
            if slot.active
                && (slot.stripes == 0 || slot.stripes > STRIPES_MAX || slot.iterations == 0)
            {
                return Err(Error::corrupt(format!("Keyslot {number} is corrupted")));
            }
        }
        Ok(())
    }

    /// The master key, if the passphrase opens any slot.
    pub fn unlock(&self, file: &dyn Node, passphrase: &[u8]) -> Result<Vec<u8>> {
        for number in 0..self.slots.len() {
            if let Some(key) = self.unlock_slot(file, number, passphrase)? {
                return Ok(key);
            }
        }
        Err(Error::Os(rustix::io::Errno::PERM)
            .during_text("Invalid password, cannot unlock any keyslot".into()))
    }

    /// The master key, if the passphrase opens this slot.
    pub fn unlock_slot(
        &self,
        file: &dyn Node,
        number: usize,
        passphrase: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        let slot = &self.slots[number];
        if !slot.active {
            return Ok(None);
        }
        let key_bytes = self.key_bytes as usize;
        let mut slot_key = vec![0; key_bytes];
        self.hash.derive(passphrase, &slot.salt, slot.iterations, &mut slot_key);
        let split_bytes = key_bytes * slot.stripes as usize;
        let mut split = vec![0; split_bytes.next_multiple_of(SECTOR_BYTES)];
        file.read_at(&mut split, self.material(slot))?;
        Cipher::new(self.scheme, &slot_key)?.decrypt(&mut split, 0);
        let key = self.merge(&split[..split_bytes], key_bytes);
        let mut digest = vec![0; DIGEST_BYTES];
        self.hash.derive(&key, &self.digest_salt, self.digest_iterations, &mut digest);
        Ok((digest == self.digest).then_some(key))
    }

    /// Where a slot's key material lies.
    fn material(&self, slot: &Slot) -> u64 {
        self.base + u64::from(slot.offset_sectors) * SECTOR_BYTES as u64
    }

    /// The header's bytes with all slots.
    pub fn bytes(&self) -> u64 {
        u64::from(self.payload_sectors) * SECTOR_BYTES as u64
    }

    fn merge(&self, split: &[u8], key_bytes: usize) -> Vec<u8> {
        let mut block = vec![0; key_bytes];
        let stripes = split.len() / key_bytes;
        for (number, stripe) in split.chunks_exact(key_bytes).enumerate() {
            block.iter_mut().zip(stripe).for_each(|(a, b)| *a ^= b);
            if number + 1 < stripes {
                self.hash.diffuse(&mut block);
            }
        }
        block
    }

    /// Splits a key so that destroying any part of the result destroys it.
    fn split(&self, key: &[u8]) -> Result<Vec<u8>> {
        let mut out = random(key.len() * (STRIPES as usize - 1))?;
        let mut block = vec![0; key.len()];
        for stripe in out.chunks_exact(key.len()) {
            block.iter_mut().zip(stripe).for_each(|(a, b)| *a ^= b);
            self.hash.diffuse(&mut block);
        }
        out.extend(block.iter().zip(key).map(|(a, b)| a ^ b));
        Ok(out)
    }

    /// What a header with one passphrase would be. [`Self::create`] makes it.
    pub fn plan(base: u64, wanted: &Wanted) -> Result<Self> {
        let slot_sectors =
            (wanted.key_bytes * STRIPES).div_ceil(SECTOR_BYTES as u32).next_multiple_of(8);
        let id = crate::formats::unique_id();
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let uuid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        let slots = (0..SLOTS as u32).map(|number| Slot {
            active: false,
            iterations: 0,
            salt: vec![0; SALT_BYTES],
            offset_sectors: MATERIAL_SECTORS + number * slot_sectors,
            stripes: STRIPES,
        });
        Ok(Self {
            base,
            scheme: wanted.scheme,
            hash: wanted.hash,
            payload_sectors: MATERIAL_SECTORS + SLOTS as u32 * slot_sectors,
            key_bytes: wanted.key_bytes,
            digest: vec![0; DIGEST_BYTES],
            digest_salt: random(SALT_BYTES)?,
            digest_iterations: ITERATIONS_MIN,
            uuid,
            slots: slots.collect(),
        })
    }

    /// Writes a planned header, with a new master key behind one passphrase.
    pub fn create(&mut self, file: &dyn Node, passphrase: &[u8], milliseconds: u64) -> Result<()> {
        let iterations = iterations_for(self.hash, milliseconds);
        let key = random(self.key_bytes as usize)?;
        self.digest_iterations = (iterations / 8).max(ITERATIONS_MIN);
        self.hash.derive(&key, &self.digest_salt, self.digest_iterations, &mut self.digest);
        self.fill_slot(file, 0, &key, passphrase, iterations)
    }

    /// Puts the master key behind a passphrase into a slot.
    pub fn store_key(
        &mut self,
        file: &dyn Node,
        number: usize,
        key: &[u8],
        passphrase: &[u8],
        milliseconds: u64,
    ) -> Result<()> {
        let iterations = iterations_for(self.hash, milliseconds);
        self.fill_slot(file, number, key, passphrase, iterations)
    }

    fn fill_slot(
        &mut self,
        file: &dyn Node,
        number: usize,
        key: &[u8],
        passphrase: &[u8],
        iterations: u32,
    ) -> Result<()> {
        let mut slot = self.slots[number].clone();
        slot.active = true;
        slot.iterations = iterations;
        slot.salt = random(SALT_BYTES)?;
        slot.stripes = STRIPES;
        let mut slot_key = vec![0; key.len()];
        self.hash.derive(passphrase, &slot.salt, iterations, &mut slot_key);
        let mut split = self.split(key)?;
        split.resize(split.len().next_multiple_of(SECTOR_BYTES), 0);
        Cipher::new(self.scheme, &slot_key)?.encrypt(&mut split, 0);
        // The material is in place before the header says that it is.
        file.write_at(&split, self.material(&slot))?;
        self.slots[number] = slot;
        file.write_at(&self.encode(), self.base)
    }

    /// Makes a slot's key unreadable: the header forgets it, and its material is overwritten.
    pub fn erase_slot(&mut self, file: &dyn Node, number: usize) -> Result<()> {
        let slot = &mut self.slots[number];
        slot.active = false;
        slot.iterations = 0;
        slot.salt.fill(0);
        let bytes = self.key_bytes as usize * STRIPES as usize;
        file.write_at(&self.encode(), self.base)?;
        let material = self.material(&self.slots[number]);
        for _ in 0..ERASE_PASSES {
            file.write_at(&random(bytes.next_multiple_of(SECTOR_BYTES))?, material)?;
            file.flush()?;
        }
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(1u16.to_be_bytes());
        for (name, end) in [("aes", 40), (&self.scheme.name(), 72), (self.hash.name(), 104)] {
            bytes.extend(name.as_bytes());
            bytes.resize(end, 0);
        }
        bytes.extend(self.payload_sectors.to_be_bytes());
        bytes.extend(self.key_bytes.to_be_bytes());
        bytes.extend(&self.digest);
        bytes.extend(&self.digest_salt);
        bytes.extend(self.digest_iterations.to_be_bytes());
        bytes.extend(self.uuid.as_bytes());
        bytes.resize(208, 0);
        for slot in &self.slots {
            let state = if slot.active { SLOT_ENABLED } else { SLOT_DISABLED };
            bytes.extend(state.to_be_bytes());
            bytes.extend(slot.iterations.to_be_bytes());
            bytes.extend(&slot.salt);
            bytes.extend(slot.offset_sectors.to_be_bytes());
            bytes.extend(slot.stripes.to_be_bytes());
        }
        bytes
    }
}

fn slot(bytes: &[u8]) -> Slot {
    Slot {
        active: be32(bytes, 0) == SLOT_ENABLED,
        iterations: be32(bytes, 4),
        salt: bytes[8..40].to_vec(),
        offset_sectors: be32(bytes, 40),
        stripes: be32(bytes, 44),
    }
}

/// As many iterations as this machine does in the time.
fn iterations_for(hash: Hash, milliseconds: u64) -> u32 {
    const TRIAL: u32 = 20_000;
    let mut out = [0; 64];
    let began = Instant::now();
    hash.derive(b"password", b"salt", TRIAL, &mut out);
    let took = began.elapsed().as_secs_f64().max(1e-6);
    let wanted = f64::from(TRIAL) * milliseconds as f64 / 1000.0 / took;
    (wanted as u32).max(ITERATIONS_MIN)
}
