//! What `get` and `set` keep: a few words in a file of the user's.

use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::daemon::Places;
use crate::failure::Failure;

/// The keys, and what they mean.
pub const KEYS: &[(&str, &str)] = &[
    ("client.primary-name", "The machine that 'shell' and 'exec' take without a name"),
    ("local.bridged-network", "The network that 'launch --bridged' means"),
    ("local.image.mirror", "The catalogue of cloud images (simplestreams)"),
    ("local.image.keyring", "The keys that sign it; 'none' takes an unsigned one"),
];

fn path() -> PathBuf {
    Places::of_session().state.join("settings.json")
}

fn all() -> Map<String, Value> {
    let text = fs::read(path()).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// A value that was set.
pub fn get(key: &str) -> Option<String> {
    all().get(key)?.as_str().map(str::to_owned)
}

/// Sets a value; an empty one is as if it was never set.
pub fn set(key: &str, value: &str) -> Result<(), Failure> {
    let mut settings = all();
    match value.is_empty() {
        true => _ = settings.remove(key),
        false => _ = settings.insert(key.to_owned(), value.into()),
    }
    let path = path();
    let folder = path.parent().map(PathBuf::from).unwrap_or_default();
    let text = format!("{:#}\n", Value::Object(settings));
    let written =
        fs::create_dir_all(folder).and_then(|()| crate::ssh::write_private(&path, text.as_bytes()));
    written.map_err(|error| Failure::new("The settings cannot be kept").because(&error))
}

/// The machine that is there for whoever names none.
pub fn primary() -> String {
    get("client.primary-name").unwrap_or_else(|| "primary".to_owned())
}
