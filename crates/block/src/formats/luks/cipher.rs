//! The ciphers of sectors: AES in XTS mode, and in CBC mode for older images.

use aes::cipher::consts::U16;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256, Block};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The unit that has a tweak or an initialisation vector of its own.
pub const SECTOR_BYTES: usize = 512;
const BLOCKS: usize = SECTOR_BYTES / 16;

/// How blocks of a sector are chained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Xts,
    Cbc,
}

/// How a sector's number becomes its initialisation vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vectors {
    /// The low 32 bits.
    Plain,
    Plain64,
    /// The number, encrypted with the key's SHA-256.
    EssivSha256,
}

/// A mode with its vectors, as a LUKS header spells them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scheme {
    pub mode: Mode,
    pub vectors: Vectors,
}

impl Scheme {
    pub fn parse(text: &str) -> Option<Self> {
        let (mode, vectors) = text.split_once('-')?;
        let mode = match mode {
            "xts" => Mode::Xts,
            "cbc" => Mode::Cbc,
            _ => return None,
        };
        let vectors = match vectors {
            "plain" => Vectors::Plain,
            "plain64" => Vectors::Plain64,
            "essiv:sha256" => Vectors::EssivSha256,
            _ => return None,
        };
        Some(Self { mode, vectors })
    }

    pub fn mode_name(self) -> &'static str {
        match self.mode {
            Mode::Xts => "xts",
            Mode::Cbc => "cbc",
        }
    }

    pub fn vectors_name(self) -> &'static str {
        match self.vectors {
            Vectors::Plain => "plain",
            Vectors::Plain64 => "plain64",
            Vectors::EssivSha256 => "essiv",
        }
    }

    /// As a header spells it.
    pub fn name(self) -> String {
        let hash = if self.vectors == Vectors::EssivSha256 { ":sha256" } else { "" };
        format!("{}-{}{hash}", self.mode_name(), self.vectors_name())
    }

    /// The bytes of a key for AES with this many bits.
    pub fn key_bytes(self, bits: u32) -> u32 {
        bits / 8 * if self.mode == Mode::Xts { 2 } else { 1 }
    }

    /// The algorithm's name for a key of these bytes.
    pub fn algorithm(self, key_bytes: u32) -> &'static str {
        match key_bytes / if self.mode == Mode::Xts { 2 } else { 1 } {
            16 => "aes-128",
            24 => "aes-192",
            _ => "aes-256",
        }
    }
}

enum Aes {
    Of128(Box<Aes128>),
    Of192(Box<Aes192>),
    Of256(Box<Aes256>),
}

impl Aes {
    fn new(key: &[u8]) -> Result<Self> {
        let bad = |_| Error::corrupt("The key's length fits no cipher");
        Ok(match key.len() {
            16 => Self::Of128(Box::new(Aes128::new_from_slice(key).map_err(bad)?)),
            24 => Self::Of192(Box::new(Aes192::new_from_slice(key).map_err(bad)?)),
            32 => Self::Of256(Box::new(Aes256::new_from_slice(key).map_err(bad)?)),
            other => {
                return Err(Error::unsupported(format!(
                    "AES keys of {other} bytes are not supported"
                )));
            }
        })
    }
}

/// Runs `$body` with the concrete cipher, so that a sector's loop is compiled for it.
macro_rules! with_cipher {
    ($aes:expr, $name:ident => $body:expr) => {
        match $aes {
            Aes::Of128($name) => $body,
            Aes::Of192($name) => $body,
            Aes::Of256($name) => $body,
        }
    };
}

/// A cipher with its keys.
pub struct Cipher {
    scheme: Scheme,
    data: Aes,
    /// The second key of XTS, or what encrypts sector numbers.
    vectors: Option<Aes>,
}

impl Cipher {
    pub fn new(scheme: Scheme, key: &[u8]) -> Result<Self> {
        let (data, vectors) = match (scheme.mode, scheme.vectors) {
            (Mode::Xts, Vectors::EssivSha256) => {
                return Err(Error::unsupported("XTS with essiv is not supported"));
            }
            (Mode::Xts, _) => {
                let (data, tweak) = key.split_at(key.len() / 2);
                (Aes::new(data)?, Some(Aes::new(tweak)?))
            }
            (Mode::Cbc, Vectors::EssivSha256) => {
                (Aes::new(key)?, Some(Aes::new(Sha256::digest(key).as_slice())?))
            }
            (Mode::Cbc, _) => (Aes::new(key)?, None),
        };
        Ok(Self { scheme, data, vectors })
    }

    /// Encrypts whole sectors, the first of which has this number.
    pub fn encrypt(&self, data: &mut [u8], first: u64) {
        with_cipher!(&self.data, aes => match self.scheme.mode {
            Mode::Xts => self.xts(data, first, |blocks| aes.encrypt_blocks(blocks)),
            Mode::Cbc => self.each_sector(data, first, |sector, vector| {
                let mut last = vector;
                for block in sector {
                    mix(block, last);
                    aes.encrypt_block(block);
                    last = number(block);
                }
            }),
        });
    }

    /// Decrypts whole sectors.
    pub fn decrypt(&self, data: &mut [u8], first: u64) {
        with_cipher!(&self.data, aes => match self.scheme.mode {
            Mode::Xts => self.xts(data, first, |blocks| aes.decrypt_blocks(blocks)),
            Mode::Cbc => self.each_sector(data, first, |sector, vector| {
                let mut before = [0; BLOCKS];
                before[0] = vector;
                for (place, block) in before[1..].iter_mut().zip(sector.iter()) {
                    *place = number(block);
                }
                aes.decrypt_blocks(sector);
                sector.iter_mut().zip(before).for_each(|(block, last)| mix(block, last));
            }),
        });
    }

    /// A sector's initialisation vector.
    fn vector(&self, sector: u64) -> u128 {
        let sector = match self.scheme.vectors {
            Vectors::Plain => sector & u64::from(u32::MAX),
            Vectors::Plain64 | Vectors::EssivSha256 => sector,
        };
        let Some(aes) = &self.vectors else { return u128::from(sector) };
        let mut block: Block = u128::from(sector).to_le_bytes().into();
        with_cipher!(aes, aes => aes.encrypt_block(&mut block));
        number(&block)
    }

    fn each_sector(&self, data: &mut [u8], first: u64, mut work: impl FnMut(&mut [Block], u128)) {
        for (number, sector) in sectors(data).enumerate() {
            work(sector, self.vector(first + number as u64));
        }
    }

    fn xts(&self, data: &mut [u8], first: u64, mut cipher: impl FnMut(&mut [Block])) {
        self.each_sector(data, first, |sector, start| {
            let mut tweaks = [0u128; BLOCKS];
            let mut tweak = start;
            for place in &mut tweaks {
                *place = tweak;
                // Multiplication by x in the field of the standard.
                tweak = (tweak << 1) ^ ((tweak >> 127) * 0x87);
            }
            mask(sector, &tweaks);
            cipher(sector);
            mask(sector, &tweaks);
        });
    }
}

fn sectors(data: &mut [u8]) -> impl Iterator<Item = &mut [Array<u8, U16>]> {
    let (blocks, rest) = Array::slice_as_chunks_mut(data);
    assert!(rest.is_empty() && blocks.len().is_multiple_of(BLOCKS), "sectors are whole");
    blocks.chunks_exact_mut(BLOCKS)
}

fn number(block: &Block) -> u128 {
    u128::from_le_bytes((*block).into())
}

fn mix(block: &mut Block, with: u128) {
    *block = (number(block) ^ with).to_le_bytes().into();
}

fn mask(sector: &mut [Block], tweaks: &[u128; BLOCKS]) {
    sector.iter_mut().zip(tweaks).for_each(|(block, tweak)| mix(block, *tweak));
}

/// Decrypts what was encrypted with AES-256 in CBC mode and padded to whole blocks: secrets that
/// are themselves protected by another secret.
pub fn unwrap_cbc(key: &[u8], vector: &[u8], data: &mut Vec<u8>) -> Result<()> {
    let bad = || Error::invalid("Unable to decrypt the secret: its length or padding is wrong");
    let aes = Aes256::new_from_slice(key).map_err(|_| bad())?;
    let mut last = u128::from_le_bytes(vector.try_into().map_err(|_| bad())?);
    let (blocks, rest) = Array::slice_as_chunks_mut(data.as_mut_slice());
    if !rest.is_empty() || blocks.is_empty() {
        return Err(bad());
    }
    for block in blocks {
        let next = number(block);
        aes.decrypt_block(block);
        mix(block, last);
        last = next;
    }
    let padding = data.last().map_or(0, |byte| usize::from(*byte));
    if padding == 0 || padding > 16 || padding > data.len() {
        return Err(bad());
    }
    data.truncate(data.len() - padding);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_is_decrypted_and_differs_by_sector() {
        for name in ["xts-plain64", "xts-plain", "cbc-plain64", "cbc-essiv:sha256"] {
            let scheme = Scheme::parse(name).unwrap();
            assert_eq!(scheme.name(), name);
            for bits in [128, 256] {
                let key: Vec<u8> = (0..scheme.key_bytes(bits) as u8).collect();
                let cipher = Cipher::new(scheme, &key).unwrap();
                let mut data = vec![7; 2 * SECTOR_BYTES];
                cipher.encrypt(&mut data, 5);
                assert_ne!(data[..SECTOR_BYTES], data[SECTOR_BYTES..]);
                cipher.decrypt(&mut data, 5);
                assert!(data.iter().all(|byte| *byte == 7), "{name} {bits}");
            }
        }
    }
}
