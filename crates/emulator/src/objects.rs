//! `-object`: what is neither device nor back end of its own kind.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use block::filters::throttle;
use device::Entropy;
use machine::KernelEntropy;
use machine::surroundings::Backends;
use parking_lot::Mutex;
use qemu_compat::system::values;
use serde_json::{Map, Value};

use crate::options::Options;

type Result<T> = std::result::Result<T, String>;

/// What can be made.
pub const KINDS: &[&str] = &[
    "filter-dump",
    "memory-backend-memfd",
    "memory-backend-ram",
    "rng-builtin",
    "rng-random",
    "secret",
    "tls-creds-x509",
];

/// Makes an object.
pub fn add(backends: &Backends, members: &Map<String, Value>, options: &Options) -> Result<()> {
    let text = |name: &str| match members.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::Bool(on)) => Some(if *on { "on" } else { "off" }.to_owned()),
        _ => None,
    };
    let kind = text("qom-type").ok_or("Parameter 'qom-type' is missing")?;
    let id = text("id").ok_or("Parameter 'id' is missing")?;
    crate::parts::check_id(&id)?;
    let only = |known: &[&str]| match members
        .keys()
        .find(|key| !["qom-type", "id"].contains(&key.as_str()) && !known.contains(&key.as_str()))
    {
        Some(other) => Err(format!("Invalid parameter '{other}'")),
        None => Ok(()),
    };
    match kind.as_str() {
        "rng-random" => {
            only(&["filename"])?;
            let path = text("filename").unwrap_or_else(|| "/dev/urandom".to_owned());
            let file = File::open(&path).map_err(|error| {
                let reason = crate::character::reason(&error);
                format!("Could not open '{path}': {reason}")
            })?;
            insert(backends, &id, Arc::new(FileEntropy(Mutex::new(file))))
        }
        "secret" => {
            only(&["data", "file", "format", "keyid", "iv"])?;
            let given = ["data", "file", "format", "keyid", "iv"];
            let properties: Vec<_> =
                given.iter().filter_map(|name| Some(((*name).to_owned(), text(name)?))).collect();
            if block::secrets::get(&id).is_ok() {
                return Err(format!(
                    "attempt to add duplicate property '{id}' to object (type 'container')"
                ));
            }
            block::secrets::define(&id, &properties).map_err(|error| error.to_string())
        }
        "tls-creds-x509" => crate::credentials::add(members),
        "throttle-group" => {
            let limits = throttle_limits(members)?;
            throttle::Group::define(&id, limits).map_err(|error| error.to_string())
        }
        "rng-builtin" => {
            only(&[])?;
            insert(backends, &id, Arc::new(KernelEntropy))
        }
        // The machine's own memory; it is allocated by the board, always shared and by a descriptor.
        "memory-backend-ram" | "memory-backend-memfd" => {
            // The last one, which libvirt sets, is about names in a stream that is not spoken here.
            let canonical = "x-use-canonical-path-for-ramblock-id";
            only(&["size", "merge", "dump", "prealloc", "share", "seal", canonical])?;
            if text("prealloc").as_deref() == Some("on") {
                return Err("'prealloc' is not built in Hostel".to_owned());
            }
            let size = text("size").ok_or("Parameter 'size' is missing")?;
            let size = values::size("size", &size, 0).map_err(|error| error.to_string())?;
            let wanted = options.board.property("memory-backend");
            match wanted == Some(id.as_str()) && size == options.board.ram_bytes {
                true => Ok(()),
                false => Err("memory that is not the machine's RAM is not built in Hostel".into()),
            }
        }
        _ => match crate::credentials::refused(&kind) {
            Some(refusal) => Err(refusal),
            None => Err(format!("invalid object type: {kind}")),
        },
    }
}

/// Takes an object away that nobody uses.
pub fn remove(backends: &Backends, id: &str) -> Result<()> {
    if block::secrets::remove(id) || crate::credentials::remove(id) {
        return Ok(());
    }
    match (backends.entropy.names().contains(&id.to_owned()), backends.entropy.user(id)) {
        (false, _) => Err(format!("object '{id}' not found")),
        (true, Some(_)) => Err(format!("object '{id}' is in use, can not be deleted")),
        (true, None) => {
            backends.entropy.remove(id);
            Ok(())
        }
    }
}

/// Limits as `x-iops-total`, or as `limits` with an object.
fn throttle_limits(members: &Map<String, Value>) -> Result<throttle::Limits> {
    let mut limits = throttle::Limits::default();
    for (name, value) in members {
        if name == "qom-type" || name == "id" {
            continue;
        }
        let inner = match (name.as_str(), value) {
            ("limits", Value::Object(inner)) => inner.clone(),
            _ => Map::from_iter([(name.clone(), value.clone())]),
        };
        for (name, value) in inner {
            let own = name.strip_prefix("x-").or(name.strip_prefix("limits.")).unwrap_or(&name);
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            limits.set(own, &text).map_err(|error| error.to_string())?;
        }
    }
    Ok(limits)
}

fn insert(backends: &Backends, id: &str, source: Arc<dyn Entropy>) -> Result<()> {
    match backends.entropy.insert(id, source) {
        true => Ok(()),
        false => Err(format!("attempt to add duplicate property '{id}' to object")),
    }
}

struct FileEntropy(Mutex<File>);

impl Entropy for FileEntropy {
    fn fill(&self, bytes: &mut [u8]) -> usize {
        self.0.lock().read(bytes).unwrap_or(0)
    }
}
