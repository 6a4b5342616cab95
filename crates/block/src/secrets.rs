//! Passphrases by name: images mention the name, the command line says what it stands for.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::formats::unwrap_secret;

static SECRETS: Mutex<Option<HashMap<String, Vec<u8>>>> = Mutex::new(None);

/// Files with secrets are no larger than this.
const SECRET_BYTES_MAX: u64 = 1 << 20;

/// Makes a secret known to this process.
pub fn add(id: &str, bytes: Vec<u8>) {
    SECRETS.lock().get_or_insert_default().insert(id.to_string(), bytes);
}

/// Forgets a secret. False when there was none.
pub fn remove(id: &str) -> bool {
    SECRETS.lock().as_mut().is_some_and(|secrets| secrets.remove(id).is_some())
}

/// The secret of this name.
pub fn get(id: &str) -> Result<Vec<u8>> {
    let secrets = SECRETS.lock();
    let found = secrets.as_ref().and_then(|secrets| secrets.get(id)).cloned();
    found.ok_or_else(|| Error::invalid(format!("No secret with id '{id}'")))
}

/// Makes a secret known as an object's properties describe it: `data` or `file`, in `format` raw
/// or base64, perhaps encrypted with the secret `keyid` and the vector `iv`.
pub fn define(id: &str, properties: &[(String, String)]) -> Result<()> {
    const KNOWN: [&str; 5] = ["data", "file", "format", "keyid", "iv"];
    if let Some((other, _)) = properties.iter().find(|(name, _)| !KNOWN.contains(&name.as_str())) {
        return Err(Error::invalid(format!("Invalid parameter '{other}'")));
    }
    let text = |name: &str| {
        properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    };
    let mut bytes = match (text("data"), text("file")) {
        (Some(data), None) => data.as_bytes().to_vec(),
        (None, Some(file)) => read_file(file)?,
        (None, None) => return Err(Error::invalid("Must provide 'file' or 'data'")),
        _ => return Err(Error::invalid("'file' and 'data' are mutually exclusive")),
    };
    let base64 = match text("format").unwrap_or("raw") {
        "raw" => false,
        "base64" => true,
        other => {
            return Err(Error::invalid(format!(
                "Invalid parameter '{other}'\nAccepted values are 'raw', 'base64'"
            )));
        }
    };
    match text("keyid") {
        Some(key) => {
            let vector =
                text("iv").ok_or_else(|| Error::invalid("IV is required to decrypt secret"))?;
            let vector = from_base64(vector.as_bytes())?;
            let key = get(key)?;
            if base64 {
                bytes = from_base64(&bytes)?;
            }
            if vector.len() != 16 {
                return Err(Error::invalid(format!(
                    "IV should be 16 bytes in length not {}",
                    vector.len()
                )));
            }
            if key.len() != 32 {
                return Err(Error::invalid(format!(
                    "Key should be 32 bytes in length not {}",
                    key.len()
                )));
            }
            unwrap_secret(&key, &vector, &mut bytes)?;
        }
        None if text("iv").is_some() => {
            return Err(Error::invalid("IV should not be set unless keyid is"));
        }
        None if base64 => bytes = from_base64(&bytes)?,
        None => {}
    }
    add(id, bytes);
    Ok(())
}

fn read_file(path: &str) -> Result<Vec<u8>> {
    let unable = |error: std::io::Error| {
        let text = error.to_string();
        let reason = text.split(" (os").next().unwrap_or_default();
        Error::invalid(format!("Unable to read {path}: {reason}"))
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unable)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, SECRET_BYTES_MAX), &mut bytes)
        .map_err(unable)?;
    Ok(bytes)
}

/// Base 64 with padding; blanks between letters do not count.
pub(crate) fn from_base64(text: &[u8]) -> Result<Vec<u8>> {
    let bad = || Error::invalid("Base64 data is not valid");
    let letters: Vec<u8> = text.iter().copied().filter(|c| !c.is_ascii_whitespace()).collect();
    if !letters.len().is_multiple_of(4) {
        return Err(bad());
    }
    let mut out = Vec::with_capacity(letters.len() / 4 * 3);
    let quads = letters.len() / 4;
    for (number, quad) in letters.chunks_exact(4).enumerate() {
        let padding = quad.iter().rev().take_while(|c| **c == b'=').count();
        if padding > 2 || (padding > 0 && number + 1 != quads) {
            return Err(bad());
        }
        let mut word = 0u32;
        for letter in &quad[..4 - padding] {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return Err(bad()),
            };
            word = word << 6 | u32::from(value);
        }
        word <<= 6 * padding as u32;
        out.extend(&word.to_be_bytes()[1..4 - padding]);
    }
    Ok(out)
}

/// The reverse.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let word = part.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - part.len()));
        for number in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * number) & 63) as usize];
            text.push(if number <= part.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn define_with(id: &str, properties: &[(&str, &str)]) -> Result<()> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        define(id, &properties.iter().map(owned).collect::<Vec<_>>())
    }

    #[test]
    fn base64_is_read_or_refused() {
        for (text, bytes) in
            [("", Some(&b""[..])), ("aGk=", Some(b"hi")), ("aGk", None), ("=Gk=", None)]
        {
            let read = from_base64(text.as_bytes()).ok();
            assert_eq!(read.as_deref(), bytes, "{text}");
            assert!(read.is_none_or(|bytes| to_base64(&bytes) == text));
        }
    }

    #[test]
    fn a_secret_is_unwrapped_by_another() {
        // openssl enc -aes-256-cbc, key 00..1f, vector 00..0f, of "letmein".
        define_with(
            "unwrap-key",
            &[("data", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), ("format", "base64")],
        )
        .unwrap();
        let mut wrapped = vec![
            ("data", "SI4JuWqmJF8bjD9IJ662eg=="),
            ("format", "base64"),
            ("keyid", "unwrap-key"),
        ];
        let error = define_with("unwrapped", &wrapped).unwrap_err().to_string();
        assert_eq!(error, "IV is required to decrypt secret");
        wrapped.push(("iv", "AAECAwQFBgcICQoLDA0ODw=="));
        define_with("unwrapped", &wrapped).unwrap();
        assert_eq!(get("unwrapped").unwrap(), b"letmein");
    }
}
