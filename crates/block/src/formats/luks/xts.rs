//! AES in XTS mode with the sector number as tweak (`xts-plain64`).

use aes::cipher::consts::U16;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256, Block};

use crate::error::{Error, Result};

/// The unit that has a tweak of its own.
pub const SECTOR_BYTES: usize = 512;
const BLOCKS: usize = SECTOR_BYTES / 16;

enum Keys {
    Aes128(Box<(Aes128, Aes128)>),
    Aes256(Box<(Aes256, Aes256)>),
}

/// A cipher with its two keys.
pub struct Xts(Keys);

impl Xts {
    /// From 32 bytes (AES-128) or 64 bytes (AES-256).
    pub fn new(key: &[u8]) -> Result<Self> {
        let (data, tweak) = key.split_at(key.len() / 2);
        let bad = |_| Error::invalid("The key has a wrong length");
        match key.len() {
            32 => Ok(Self(Keys::Aes128(Box::new((
                Aes128::new_from_slice(data).map_err(bad)?,
                Aes128::new_from_slice(tweak).map_err(bad)?,
            ))))),
            64 => Ok(Self(Keys::Aes256(Box::new((
                Aes256::new_from_slice(data).map_err(bad)?,
                Aes256::new_from_slice(tweak).map_err(bad)?,
            ))))),
            other => Err(Error::unsupported(format!("Keys of {other} bytes are not supported"))),
        }
    }

    /// Encrypts whole sectors, the first of which has this number.
    pub fn encrypt(&self, data: &mut [u8], first: u64) {
        match &self.0 {
            Keys::Aes128(keys) => {
                each_sector(&keys.1, data, first, |blocks| keys.0.encrypt_blocks(blocks));
            }
            Keys::Aes256(keys) => {
                each_sector(&keys.1, data, first, |blocks| keys.0.encrypt_blocks(blocks));
            }
        }
    }

    /// Decrypts whole sectors.
    pub fn decrypt(&self, data: &mut [u8], first: u64) {
        match &self.0 {
            Keys::Aes128(keys) => {
                each_sector(&keys.1, data, first, |blocks| keys.0.decrypt_blocks(blocks));
            }
            Keys::Aes256(keys) => {
                each_sector(&keys.1, data, first, |blocks| keys.0.decrypt_blocks(blocks));
            }
        }
    }
}

fn each_sector<C: BlockCipherEncrypt<BlockSize = U16>>(
    tweak_cipher: &C,
    data: &mut [u8],
    first: u64,
    mut cipher: impl FnMut(&mut [Block]),
) {
    let (blocks, rest) = Array::slice_as_chunks_mut(data);
    assert!(rest.is_empty() && blocks.len().is_multiple_of(BLOCKS), "sectors are whole");
    for (number, sector) in blocks.chunks_exact_mut(BLOCKS).enumerate() {
        let mut start = Block::default();
        start[..8].copy_from_slice(&(first + number as u64).to_le_bytes());
        tweak_cipher.encrypt_block(&mut start);
        let mut tweaks = [0u128; BLOCKS];
        let mut tweak = u128::from_le_bytes(start.into());
        for place in &mut tweaks {
            *place = tweak;
            // Multiplication by x in the field of the standard.
            tweak = (tweak << 1) ^ ((tweak >> 127) * 0x87);
        }
        mask(sector, &tweaks);
        cipher(sector);
        mask(sector, &tweaks);
    }
}

fn mask(sector: &mut [Block], tweaks: &[u128; BLOCKS]) {
    for (block, tweak) in sector.iter_mut().zip(tweaks) {
        let value = u128::from_le_bytes((*block).into()) ^ tweak;
        *block = value.to_le_bytes().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_is_decrypted_and_differs_by_sector() {
        for key_bytes in [32, 64] {
            let key: Vec<u8> = (0..key_bytes).collect();
            let xts = Xts::new(&key).unwrap();
            let mut data = vec![7; 2 * SECTOR_BYTES];
            xts.encrypt(&mut data, 5);
            assert_ne!(data[..SECTOR_BYTES], data[SECTOR_BYTES..]);
            xts.decrypt(&mut data, 5);
            assert!(data.iter().all(|byte| *byte == 7));
        }
    }
}
