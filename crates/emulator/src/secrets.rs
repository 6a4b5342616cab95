//! `-object secret`: texts that are not on the command line, by name.

use std::collections::BTreeMap;
use std::fs;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use parking_lot::Mutex;

/// All secrets.
#[derive(Default)]
pub struct Secrets(Mutex<BTreeMap<String, Vec<u8>>>);

/// Longer ones are no secrets but mistakes.
const SECRET_BYTES_MAX: u64 = 1 << 20;

impl Secrets {
    /// Reads one. The texts are QEMU's.
    pub fn add(
        &self,
        id: &str,
        data: Option<String>,
        file: Option<String>,
        format: Option<&str>,
    ) -> Result<(), String> {
        let bytes = match (data, file) {
            (Some(_), Some(_)) => {
                return Err("'file' and 'data' are mutually exclusive".to_owned());
            }
            (None, None) => return Err("Must provide 'file' or 'data'".to_owned()),
            (Some(data), None) => data.into_bytes(),
            (None, Some(path)) => read(&path)?,
        };
        let bytes = match format {
            None | Some("raw") => bytes,
            Some("base64") => {
                let text: Vec<u8> =
                    bytes.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
                BASE64.decode(text).map_err(|_| "Base64 data is not valid".to_owned())?
            }
            Some(other) => {
                return Err(format!("Invalid parameter '{other}'"));
            }
        };
        let mut all = self.0.lock();
        if all.contains_key(id) {
            return Err(format!(
                "attempt to add duplicate property '{id}' to object (type 'container')"
            ));
        }
        all.insert(id.to_owned(), bytes);
        Ok(())
    }

    /// Forgets one; whether it was there.
    pub fn remove(&self, id: &str) -> bool {
        self.0.lock().remove(id).is_some()
    }

    /// One that is a text, such as a password.
    pub fn text(&self, id: &str) -> Result<String, String> {
        let all = self.0.lock();
        let bytes = all.get(id).ok_or_else(|| format!("No secret with id '{id}'"))?;
        let text = String::from_utf8(bytes.clone());
        text.map_err(|_| format!("Data from secret {id} is not valid UTF-8"))
    }
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| {
        format!("Unable to read {path}: {}", crate::character::reason(&error))
    };
    if fs::metadata(path).map_err(failed)?.len() > SECRET_BYTES_MAX {
        return Err(format!("Unable to read {path}: it is too large for a secret"));
    }
    fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_in_both_formats() {
        let secrets = Secrets::default();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(secrets.add("a", text("pw"), None, None), Ok(()));
        assert_eq!(secrets.add("b", text("cHc="), None, Some("base64")), Ok(()));
        assert_eq!((secrets.text("a"), secrets.text("b")), (Ok("pw".into()), Ok("pw".into())));
        assert!(secrets.add("a", text("x"), None, None).is_err());
        assert!(secrets.add("c", None, None, None).is_err());
        assert!(secrets.add("c", text("!"), None, Some("base64")).is_err());
        assert_eq!(secrets.text("c"), Err("No secret with id 'c'".to_owned()));
        assert!(secrets.remove("a") && !secrets.remove("a"));
    }
}
