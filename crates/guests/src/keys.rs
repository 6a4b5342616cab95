//! Keys for ssh in OpenSSH's own formats: Ed25519, made here, one for each user and one for each
//! machine, so that nobody is asked and nobody types a password.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::{GuestError, Result};

const KIND: &[u8] = b"ssh-ed25519";
/// OpenSSH breaks its armour here.
const LINE_CHARS: usize = 70;

/// A pair of keys.
pub struct KeyPair {
    /// As it stands in `authorized_keys`.
    pub public: String,
    /// As it stands in `id_ed25519`, without a passphrase.
    pub private: String,
}

impl KeyPair {
    /// A new pair.
    pub fn new(comment: &str) -> Result<Self> {
        let mut seed = [0; 32];
        let failed = |_| GuestError::Format {
            what: "A key".to_owned(),
            reason: "the system gives no random numbers".to_owned(),
        };
        SystemRandom::new().fill(&mut seed).map_err(failed)?;
        Ok(Self::from_seed(&seed, comment))
    }

    fn from_seed(seed: &[u8; 32], comment: &str) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed");
        let public = pair.public_key().as_ref();
        let blob = [string(KIND), string(public)].concat();
        // The file format of PROTOCOL.key: one key, no cipher, padded to blocks of eight.
        let check = &seed[..4];
        let mut section = [check, check].concat();
        section.extend(string(KIND));
        section.extend(string(public));
        section.extend(string(&[seed, public].concat()));
        section.extend(string(comment.as_bytes()));
        let padding = section.len().next_multiple_of(8) - section.len();
        section.extend((1..=padding).map(|number| number as u8));
        let mut file = b"openssh-key-v1\0".to_vec();
        for part in [&b"none"[..], b"none", b""] {
            file.extend(string(part));
        }
        file.extend(1_u32.to_be_bytes());
        file.extend(string(&blob));
        file.extend(string(&section));
        let mut private = String::from("-----BEGIN OPENSSH PRIVATE KEY-----\n");
        for line in BASE64.encode(file).as_bytes().chunks(LINE_CHARS) {
            private.push_str(&String::from_utf8_lossy(line));
            private.push('\n');
        }
        private.push_str("-----END OPENSSH PRIVATE KEY-----\n");
        Self { public: format!("ssh-ed25519 {} {comment}", BASE64.encode(blob)), private }
    }
}

/// A string of the wire format: its length, its bytes.
fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn ssh_keygen_derives_the_same_public_key() {
        let Some(keygen) = ::tests::program("ssh-keygen") else { ::tests::skip!("no ssh-keygen") };
        let folder = ::tests::scratch("keys");
        let file = folder.join("key");
        let pair = KeyPair::new("somebody@hostel").unwrap();
        fs::write(&file, &pair.private).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let run = Command::new(keygen).arg("-y").arg("-f").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert_eq!(said.trim(), pair.public, "{}", String::from_utf8_lossy(&run.stderr));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn two_keys_differ() {
        let (a, b) = (KeyPair::new("x").unwrap(), KeyPair::new("x").unwrap());
        assert!(a.public != b.public && a.private != b.private);
        assert!(a.public.starts_with("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"));
    }
}
