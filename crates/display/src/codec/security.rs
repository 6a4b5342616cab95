//! VNC's password (RFC 6143, 7.2.2): the client encrypts what the server thought up.

use des::Des;
use des::cipher::{Array, BlockCipherEncrypt, KeyInit};

/// Bytes of a challenge and of its answer.
pub const CHALLENGE_BYTES: usize = 16;

/// The answer to a challenge. Only the first eight bytes of a password count.
#[must_use]
pub fn response(password: &[u8], challenge: &[u8; CHALLENGE_BYTES]) -> [u8; CHALLENGE_BYTES] {
    let mut key = [0; 8];
    // DES counts a byte's bits from the other end than VNC's authors did.
    key.iter_mut().zip(password).for_each(|(key, byte)| *key = byte.reverse_bits());
    let cipher = Des::new(&Array::from(key));
    let mut answer = *challenge;
    for half in answer.chunks_exact_mut(8) {
        let mut block = Array::from([0; 8]);
        block.copy_from_slice(half);
        cipher.encrypt_block(&mut block);
        half.copy_from_slice(&block);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with OpenSSL: `openssl enc -des-ecb -nopad -K` with the password's bits reversed.
    #[test]
    fn the_answer_is_that_of_des() {
        let challenge = *b"0123456789abcdef";
        let answer = response(b"secret", &challenge);
        assert_ne!(answer, response(b"Secret", &challenge));
        assert_eq!(response(b"longpass", &challenge), response(b"longpassword", &challenge));
        assert_eq!(answer, EXPECTED);
    }

    const EXPECTED: [u8; 16] = [
        0x75, 0x24, 0x40, 0xee, 0x2b, 0xfc, 0xc2, 0xa0, 0xd9, 0x01, 0x3f, 0xd2, 0x03, 0x71, 0xe2,
        0x3b,
    ];
}
