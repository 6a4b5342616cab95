//! Where things lie.

use std::env;
use std::path::PathBuf;

use crate::options::{Mode, Serve};

/// The daemon's directories.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The sockets, where libvirt's clients look.
    pub sockets: PathBuf,
    /// Definitions: one directory per domain, one file per network, pool and secret.
    pub state: PathBuf,
    /// Monitors, process ids: gone after a boot.
    pub runtime: PathBuf,
    /// What emulators print.
    pub logs: PathBuf,
    /// Disk images of the `default` pool.
    pub images: PathBuf,
    /// What can be found out again: emulators' capabilities.
    pub cache: PathBuf,
}

impl Paths {
    /// libvirt's places for the sockets, our own for the rest.
    pub fn new(options: &Serve) -> Self {
        let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/".into()));
        let under = |variable: &str, fallback: &str| match env::var_os(variable) {
            Some(path) if !path.is_empty() => PathBuf::from(path),
            _ => home().join(fallback),
        };
        let (sockets, runtime, state) = match options.mode {
            Mode::System => ("/run/libvirt".into(), "/run/hostel".into(), "/var/lib/hostel".into()),
            Mode::Session => {
                let run = under("XDG_RUNTIME_DIR", ".cache");
                let state = under("XDG_STATE_HOME", ".local/state").join("hostel");
                (run.join("libvirt"), run.join("hostel"), state)
            }
        };
        let state = options.state_dir.clone().unwrap_or(state);
        let images = match options.mode {
            Mode::System => "/var/lib/libvirt/images".into(),
            Mode::Session => under("XDG_DATA_HOME", ".local/share").join("libvirt/images"),
        };
        // A daemon with its own directories must not touch the machine's.
        let images = if options.state_dir.is_some() { state.join("images") } else { images };
        Self {
            sockets: options.socket_dir.clone().unwrap_or(sockets),
            runtime: options.runtime_dir.clone().unwrap_or(runtime),
            logs: state.join("logs"),
            cache: state.join("cache"),
            images,
            state,
        }
    }
}
