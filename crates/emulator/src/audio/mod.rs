//! `-audiodev`: where sound cards play, by name.

mod mixer;
mod resampler;
mod wave;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use machine::surroundings::Backends;
use serde_json::{Map, Value};

use crate::networks::Members;
pub use mixer::Mixer;
use wave::Wave;

type Result<T> = std::result::Result<T, String>;

/// What the customary back ends play at.
const RATE_HZ: u32 = 44_100;
/// Rates that files may have.
const RATES_HZ: std::ops::RangeInclusive<u32> = 8_000..=192_000;
/// Where a file goes that was given no name.
const FILE: &str = "qemu.wav";
/// What else is said of one direction. Files are written as things are played, so that there are
/// no buffers to be sized.
const DIRECTION: &[&str] = &[
    "mixing-engine",
    "fixed-settings",
    "frequency",
    "channels",
    "format",
    "voices",
    "buffer-length",
];

/// All of them.
#[derive(Default)]
pub struct Audio(BTreeMap<String, Arc<Mixer>>);

impl Audio {
    /// Makes one from its members.
    pub fn add(&mut self, backends: &Backends, members: &Map<String, Value>) -> Result<()> {
        let mut members = Members(members.clone());
        let driver = members.needed("driver")?;
        let id = members.needed("id")?;
        crate::parts::check_id(&id)?;
        if self.0.contains_key(&id) {
            return Err(format!("Duplicate ID '{id}' for audiodev"));
        }
        let mixer = match driver.as_str() {
            "none" => {
                // However it is set, nobody hears it.
                members.text("timer-period");
                for direction in ["in", "out"] {
                    let mut below = members.below(direction).unwrap_or(Members(Map::new()));
                    DIRECTION.iter().for_each(|name| drop(below.text(name)));
                    below.finish().map_err(|error| format!("{direction}: {error}"))?;
                }
                members.finish()?;
                Mixer::new(RATE_HZ, None)
            }
            "wav" => {
                let path = members.text("path").unwrap_or_else(|| FILE.to_owned());
                let (rate_hz, channels) = file_format(&mut members)?;
                members.finish()?;
                let file = Wave::create(Path::new(&path), rate_hz, channels);
                let file = file.map_err(|error| {
                    let reason = crate::character::reason(&error);
                    format!("Failed to open wave file '{path}': {reason}")
                })?;
                Mixer::new(rate_hz, Some(file))
            }
            "alsa" | "oss" | "pa" | "pipewire" | "sdl" | "jack" | "sndio" | "spice" | "dbus" => {
                return Err(format!(
                    "audio driver '{driver}' is not built in Hostel: use wav, none, or hear it by \
                     -vnc with audiodev="
                ));
            }
            other => return Err(format!("Parameter 'driver' does not accept value '{other}'")),
        };
        backends.sounds.insert(&id, Arc::clone(&mixer) as _);
        self.0.insert(id, mixer);
        Ok(())
    }

    /// One by its name.
    pub fn get(&self, id: &str) -> Option<Arc<Mixer>> {
        self.0.get(id).cloned()
    }
}

/// The rate and channels of a file. What else there is must be as it is anyway.
fn file_format(members: &mut Members) -> Result<(u32, u16)> {
    let mut out = members.below("out").unwrap_or(Members(Map::new()));
    let number = |out: &mut Members, name: &str, default: u32| match out.text(name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("Parameter 'out.{name}' expects a number")),
    };
    let rate_hz = number(&mut out, "frequency", RATE_HZ)?;
    if !RATES_HZ.contains(&rate_hz) {
        return Err("Parameter 'out.frequency' expects 8000 to 192000".to_owned());
    }
    let channels = number(&mut out, "channels", 2)?;
    let channels = u16::try_from(channels).ok().filter(|channels| (1..=2).contains(channels));
    let channels = channels.ok_or("Parameter 'out.channels' expects 1 or 2")?;
    for (name, only) in [("format", "s16"), ("mixing-engine", "on"), ("fixed-settings", "on")] {
        if let Some(value) = out.text(name).filter(|value| value != only) {
            return Err(format!("out.{name}={value} is not built in Hostel: only {only}"));
        }
    }
    out.finish().map_err(|error| format!("out: {error}"))?;
    Ok((rate_hz, channels))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn back_ends_are_made_or_refused_by_name() {
        let add = |value: Value| {
            let backends = Backends::default();
            let mut audio = Audio::default();
            audio.add(&backends, value.as_object().unwrap())?;
            assert_eq!(backends.sounds.names(), ["a"]);
            Ok::<(), String>(())
        };
        add(json!({"driver": "none", "id": "a", "out": {"frequency": "22050"}})).unwrap();
        for (value, error) in [
            (json!({"driver": "none"}), "Parameter 'id' is missing"),
            (json!({"driver": "none", "id": "a", "path": "x"}), "Invalid parameter 'path'"),
            (json!({"driver": "foo", "id": "a"}), "Parameter 'driver' does not accept value 'foo'"),
            (
                json!({"driver": "wav", "id": "a", "out": {"format": "f32"}}),
                "out.format=f32 is not built in Hostel: only s16",
            ),
            (
                json!({"driver": "wav", "id": "a", "out": {"channels": "6"}}),
                "Parameter 'out.channels' expects 1 or 2",
            ),
            (
                json!({"driver": "wav", "id": "a", "path": "/nowhere/x.wav"}),
                "Failed to open wave file '/nowhere/x.wav': No such file or directory",
            ),
        ] {
            assert_eq!(add(value).unwrap_err(), error);
        }
        let refused = add(json!({"driver": "pa", "id": "a"})).unwrap_err();
        assert!(refused.starts_with("audio driver 'pa' is not built in Hostel"), "{refused}");
    }
}
