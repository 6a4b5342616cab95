//! Passphrases by name: images mention the name, the command line says what it stands for.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::error::{Error, Result};

static SECRETS: Mutex<Option<HashMap<String, Vec<u8>>>> = Mutex::new(None);

/// Makes a secret known to this process.
pub fn add(id: &str, bytes: Vec<u8>) {
    SECRETS.lock().get_or_insert_default().insert(id.to_string(), bytes);
}

/// The secret of this name.
pub fn get(id: &str) -> Result<Vec<u8>> {
    let secrets = SECRETS.lock();
    let found = secrets.as_ref().and_then(|secrets| secrets.get(id)).cloned();
    found.ok_or_else(|| Error::invalid(format!("No secret with id '{id}'")))
}
