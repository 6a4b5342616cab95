//! Signed indexes: the part of OpenPGP (RFC 4880 and 9580) that Debian's archive uses. A text with
//! a signature below it, version 4 signatures by RSA or Ed25519, and a file of keys.
//!
//! Keys are trusted because they stand in the keyring, which belongs to the machine; who has signed
//! them, and until when they were meant to be used, is not looked at.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use ring::digest;
use ring::signature::{
    ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents,
    UnparsedPublicKey,
};

use crate::{GuestError, Result};

const TAG_SIGNATURE: u8 = 2;
const TAG_KEY: u8 = 6;
const TAG_SUBKEY: u8 = 14;
const RSA: u8 = 1;
const EDDSA: u8 = 22;
const ED25519_NATIVE: u8 = 27;
/// The curve's identifier in an EdDSA key.
const ED25519_OID: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

/// A public key.
enum Key {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ed25519(Vec<u8>),
}

/// A signature over a text.
struct Signature {
    is_sha512: bool,
    /// What of the signature itself is signed.
    hashed: Vec<u8>,
    value: Value,
}

enum Value {
    Rsa(Vec<u8>),
    Ed25519([u8; 64]),
}

/// The text of a signed message, if one of the keys in the keyring has signed it.
pub fn verified(what: &str, message: &[u8], keyring: &Path) -> Result<String> {
    let failed = |reason: &str| GuestError::Signature {
        what: what.to_owned(),
        keyring: keyring.display().to_string(),
        reason: reason.to_owned(),
    };
    let message = std::str::from_utf8(message).map_err(|_| failed("it is not UTF-8"))?;
    let (text, armour) = split(message).ok_or_else(|| failed("it has no signature"))?;
    let packets = unarmoured(armour).ok_or_else(|| failed("the signature is garbled"))?;
    let bytes = fs::read(keyring).map_err(|error| GuestError::io(keyring, error))?;
    let is_text = bytes.starts_with(b"-----BEGIN");
    let keys = match is_text {
        true => unarmoured(&String::from_utf8_lossy(&bytes)).unwrap_or_default(),
        false => bytes,
    };
    let keys: Vec<Key> = Packets(&keys)
        .filter(|(tag, _)| matches!(*tag, TAG_KEY | TAG_SUBKEY))
        .filter_map(|(_, body)| key(body))
        .collect();
    let canonical = canonical(&text);
    let good = Packets(&packets)
        .filter(|(tag, _)| *tag == TAG_SIGNATURE)
        .filter_map(|(_, body)| signature(body))
        .any(|signature| keys.iter().any(|key| fits(&canonical, &signature, key)));
    match good {
        true => Ok(text),
        false => Err(failed(&format!("none of its {} keys fits", keys.len()))),
    }
}

/// The text without its escapes, and the armour below.
fn split(message: &str) -> Option<(String, &str)> {
    let rest = message.strip_prefix("-----BEGIN PGP SIGNED MESSAGE-----")?;
    let head_end = rest.find("\n\n").map(|at| at + 2)?;
    let at = rest.find("\n-----BEGIN PGP SIGNATURE-----")?;
    let body = rest.get(head_end..at)?;
    let lines = body.lines().map(|line| line.strip_prefix("- ").unwrap_or(line));
    Some((lines.collect::<Vec<_>>().join("\n"), &rest[at + 1..]))
}

/// As it is signed: without blanks at the ends of lines, which end as on a teleprinter.
fn canonical(text: &str) -> Vec<u8> {
    let lines: Vec<&str> =
        text.split('\n').map(|line| line.trim_end_matches([' ', '\t', '\r'])).collect();
    lines.join("\r\n").into_bytes()
}

/// The bytes between the first pair of armour lines.
fn unarmoured(text: &str) -> Option<Vec<u8>> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("-----BEGIN")).skip(1);
    // Headers end with an empty line.
    for line in lines.by_ref() {
        if line.trim().is_empty() {
            break;
        }
    }
    let lines = lines.take_while(|line| !line.starts_with("-----END") && !line.starts_with('='));
    BASE64.decode(lines.map(str::trim).collect::<String>()).ok()
}

/// Walks over packets: tag and body. Ends at the first that makes no sense.
struct Packets<'a>(&'a [u8]);

impl<'a> Iterator for Packets<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&head, rest) = self.0.split_first()?;
        if head & 0x80 == 0 {
            return None;
        }
        let (tag, length, rest) = if head & 0x40 != 0 {
            let (length, rest) = new_length(rest)?;
            (head & 0x3f, length, rest)
        } else {
            let bytes = match head & 3 {
                0 => 1,
                1 => 2,
                2 => 4,
                _ => return None, // to the end: not for what is stored
            };
            let (length, rest) = rest.split_at_checked(bytes)?;
            let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (head >> 2 & 0xf, length, rest)
        };
        let (body, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, body))
    }
}

/// A length of the newer form, which subpackets have too.
fn new_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    match first {
        0..=191 => Some((usize::from(first), rest)),
        192..=223 => {
            let (&second, rest) = rest.split_first()?;
            Some(((usize::from(first) - 192) * 256 + usize::from(second) + 192, rest))
        }
        255 => {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            Some((u32::from_be_bytes(*length) as usize, rest))
        }
        _ => None,
    }
}

/// A number of any length.
fn number(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (bits, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*bits)).div_ceil(8))
}

fn key(body: &[u8]) -> Option<Key> {
    // Version 4, four bytes of date, the algorithm.
    let (&[4, _, _, _, _, algorithm], rest) = body.split_first_chunk::<6>()? else { return None };
    match algorithm {
        RSA => {
            let (modulus, rest) = number(rest)?;
            let (exponent, _) = number(rest)?;
            Some(Key::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() })
        }
        EDDSA => {
            let (&length, rest) = rest.split_first()?;
            let (curve, rest) = rest.split_at_checked(usize::from(length))?;
            let (point, _) = number(rest)?;
            let is_known = curve == ED25519_OID && point.len() == 33 && point[0] == 0x40;
            is_known.then(|| Key::Ed25519(point[1..].to_vec()))
        }
        ED25519_NATIVE => Some(Key::Ed25519(rest.get(..32)?.to_vec())),
        _ => None,
    }
}

fn signature(body: &[u8]) -> Option<Signature> {
    // Version 4 over a text or over bytes; the algorithms; the subpackets that are signed.
    let (&[4, 0 | 1, algorithm, hash], rest) = body.split_first_chunk::<4>()? else { return None };
    let is_sha512 = match hash {
        8 => false,
        10 => true,
        _ => return None, // weaker ones prove nothing
    };
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let hashed_length = usize::from(u16::from_be_bytes(*length));
    let rest = rest.get(hashed_length..)?;
    let hashed = body.get(..6 + hashed_length)?.to_vec();
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let rest = rest.get(usize::from(u16::from_be_bytes(*length))..)?;
    let rest = rest.get(2..)?; // the first bytes of the sum, a hint
    let value = match algorithm {
        RSA => Value::Rsa(number(rest)?.0.to_vec()),
        EDDSA => {
            let (r, rest) = number(rest)?;
            let (s, _) = number(rest)?;
            let mut both = [0; 64];
            both.get_mut(32_usize.checked_sub(r.len())?..32)?.copy_from_slice(r);
            both.get_mut(64_usize.checked_sub(s.len())?..64)?.copy_from_slice(s);
            Value::Ed25519(both)
        }
        ED25519_NATIVE => Value::Ed25519(rest.get(..64)?.try_into().ok()?),
        _ => return None,
    };
    Some(Signature { is_sha512, hashed, value })
}

fn fits(text: &[u8], signature: &Signature, key: &Key) -> bool {
    let mut signed = text.to_vec();
    signed.extend(&signature.hashed);
    signed.extend([4, 0xff]);
    signed.extend((signature.hashed.len() as u32).to_be_bytes());
    match (&signature.value, key) {
        (Value::Rsa(value), Key::Rsa { modulus, exponent }) => {
            let algorithm = match signature.is_sha512 {
                true => &RSA_PKCS1_2048_8192_SHA512,
                false => &RSA_PKCS1_2048_8192_SHA256,
            };
            // Numbers lose their leading zeros; the value has the length of the modulus.
            let Some(zeros) = modulus.len().checked_sub(value.len()) else { return false };
            let value: Vec<u8> = vec![0; zeros].into_iter().chain(value.iter().copied()).collect();
            let key = RsaPublicKeyComponents { n: modulus, e: exponent };
            key.verify(algorithm, &signed, &value).is_ok()
        }
        (Value::Ed25519(value), Key::Ed25519(point)) => {
            let algorithm = if signature.is_sha512 { &digest::SHA512 } else { &digest::SHA256 };
            let sum = digest::digest(algorithm, &signed);
            UnparsedPublicKey::new(&ED25519, point).verify(sum.as_ref(), value).is_ok()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Signs with the real gpg, by an algorithm of its naming.
    fn check(algorithm: &str) {
        let home = std::env::temp_dir().join(format!("gpg-{algorithm}-{}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        let gpg = |arguments: &[&str]| {
            Command::new("gpg").arg("--homedir").arg(&home).arg("--batch").args(arguments).output()
        };
        let made =
            gpg(&["--passphrase", "", "--quick-gen-key", "t@example.org", algorithm, "sign"]);
        let Ok(made) = made else { ::tests::skip!("there is no gpg") };
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (text, keys) = (home.join("text"), home.join("keys.gpg"));
        fs::write(&text, "Origin: test \n- dashed\n\nlast line\n").unwrap();
        let text_name = text.to_str().unwrap();
        gpg(&["--clearsign", "--digest-algo", "SHA512", text_name]).unwrap();
        gpg(&["--export", "--output", keys.to_str().unwrap()]).unwrap();
        let signed = fs::read(home.join("text.asc")).unwrap();
        let found = verified("text", &signed, &keys).unwrap();
        assert_eq!(found, "Origin: test \n- dashed\n\nlast line", "{algorithm}");
        let altered = String::from_utf8(signed).unwrap().replace("last line", "lost line");
        assert!(verified("text", altered.as_bytes(), &keys).is_err(), "{algorithm}");
        _ = Command::new("gpgconf").arg("--homedir").arg(&home).args(["--kill", "all"]).status();
        fs::remove_dir_all(&home).unwrap();
    }

    #[test]
    fn what_gpg_has_signed_is_believed_and_what_was_altered_is_not() {
        check("rsa2048");
        check("ed25519");
    }

    #[test]
    fn garbage_is_no_message() {
        let path = std::env::temp_dir().join(format!("keys-{}", std::process::id()));
        fs::write(&path, [0x99, 0xff, 0xff, 1, 2, 3]).unwrap();
        for text in [
            "",
            "-----BEGIN PGP SIGNED MESSAGE-----",
            "-----BEGIN PGP SIGNED MESSAGE-----\n\nx\n-----BEGIN PGP SIGNATURE-----\n\n!!\n",
            "-----BEGIN PGP SIGNED MESSAGE-----\n\nx\n-----BEGIN PGP SIGNATURE-----\n\niQIz\n",
        ] {
            assert!(verified("x", text.as_bytes(), &path).is_err());
        }
        fs::remove_file(&path).unwrap();
    }
}
