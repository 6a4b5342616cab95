//! Shared folders by name: `-fsdev`, and `-virtfs`, which is such a folder and its device.

use machine::shares::{Keep, OtherDevices, Security, Share, ShareError, ShareOptions};
use machine::surroundings::Backends;
use serde_json::{Map, Value};

use crate::networks::Members;
use crate::options::Asked;

type Result<T> = std::result::Result<T, String>;

/// The only kind.
const LOCAL: &str = "local";
/// Modes of what is made where the guest's modes are kept beside.
const MODES: (u32, u32) = (0o600, 0o700);

/// Makes a share of the members of `-fsdev`.
pub fn add(backends: &Backends, members: &Map<String, Value>) -> Result<()> {
    let mut members = Members(members.clone());
    let driver = members.text("fsdriver").unwrap_or_default();
    let id = members.text("id").ok_or("fsdev: No id specified")?;
    if driver != LOCAL {
        return Err(format!("fsdev: fsdriver {driver} not found"));
    }
    let security = security(members.text("security_model").as_deref())?;
    let path = members.text("path").ok_or("path property not set")?;
    let other_devices = match members.text("multidevs").as_deref() {
        // Where QEMU warns that files of several devices could look like one, none do here.
        None | Some("remap" | "warn") => OtherDevices::Renumber,
        Some("forbid") => OtherDevices::Forbid,
        Some(other) => {
            return Err(format!(
                "invalid multidevs property '{other}'\n\
                 Valid options are: multidevs=[remap|forbid|warn]"
            ));
        }
    };
    let options = ShareOptions {
        path: path.into(),
        security,
        read_only: members.switch("readonly", false)?,
        other_devices,
        modes: (mode(&mut members, "fmode", MODES.0)?, mode(&mut members, "dmode", MODES.1)?),
        write_out: match members.text("writeout").as_deref() {
            None => false,
            Some("immediate") => true,
            Some(other) => return Err(format!("writeout={other}: only 'immediate' is known")),
        },
    };
    members.finish()?;
    let share = Share::open(&options);
    let share = share.map_err(|error| match &error {
        ShareError::Open { source, .. } | ShareError::Proc(source) | ShareError::Kernel(source) => {
            let reason = crate::character::reason(source);
            format!("cannot initialize fsdev '{id}': {error}: {reason}")
        }
    })?;
    match backends.shares.insert(&id, share) {
        true => Ok(()),
        false => Err(format!("Duplicate ID '{id}' for fsdev")),
    }
}

fn security(model: Option<&str>) -> Result<Security> {
    const KNOWN: &str =
        "Valid options are: security_model=[passthrough|mapped-xattr|mapped-file|none]";
    Ok(match model {
        Some("passthrough") => Security::Passthrough,
        Some("none") => Security::Lenient,
        Some("mapped" | "mapped-xattr") => Security::Mapped(Keep::Attributes),
        Some("mapped-file") => Security::Mapped(Keep::Files),
        Some(other) => return Err(format!("invalid security_model property '{other}'\n{KNOWN}")),
        None => return Err(format!("security_model property not set\n{KNOWN}")),
    })
}

/// A mode, octal if it begins like that.
fn mode(members: &mut Members, name: &str, default: u32) -> Result<u32> {
    let Some(text) = members.text(name) else { return Ok(default) };
    let mode = match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u32::from_str_radix(octal, 8),
        _ => text.parse(),
    };
    let mode = mode.ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| format!("Parameter '{name}' expects a mode like 0644"))
}

/// `-virtfs`: what `-fsdev` takes, and the device in front of it.
pub fn short_form(asked: Asked) -> Result<(Asked, Asked)> {
    let Asked { typed, mut members } = asked;
    let tag = match members.shift_remove("mount_tag") {
        Some(Value::String(tag)) if members.contains_key("fsdriver") => tag,
        _ => return Err("Usage: -virtfs fsdriver,mount_tag=tag".to_owned()),
    };
    let id = match members.get("id") {
        Some(Value::String(id)) => id.clone(),
        _ => tag.clone(),
    };
    crate::parts::check_id(&id).map_err(|_| format!("duplicate or invalid fsdev id: {id}"))?;
    members.insert("id".into(), id.clone().into());
    let device = [("driver", "virtio-9p-pci".to_owned()), ("fsdev", id), ("mount_tag", tag)];
    let device = device.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
    Ok((Asked { typed: typed.clone(), members }, Asked { typed, members: device.collect() }))
}
