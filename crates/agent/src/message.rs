//! Requests and answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a host asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Run a program.
    Exec(Exec),
    /// Say how the guest is.
    Info {},
    /// Take a file from the guest.
    Get(Get),
    /// Put a file into the guest.
    Put(Put),
    /// List a folder, with everything below it.
    List(Get),
    /// Mount a folder of the host.
    Mount(Mount),
    /// Unmount it.
    Unmount(Get),
    /// Show a folder of the host, whose kernel requests travel over this session.
    Export(Export),
    /// Connect to a TCP port on which the guest listens.
    Connect {
        /// The port.
        port: u16,
    },
    /// Say on which TCP ports somebody listens, now and whenever that changes, until the host leaves.
    Listening {},
    /// Set the guest's clock, in nanoseconds since 1970.
    SetTime(u64),
    /// Go off, or begin anew.
    PowerOff {
        /// Begin anew.
        reboot: bool,
    },
}

/// A program to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Exec {
    /// The program and its arguments; none for the user's shell.
    pub words: Vec<String>,
    /// Added to the environment.
    pub environment: BTreeMap<String, String>,
    /// Where it starts; the user's home if that is not there.
    pub folder: Option<String>,
    /// Who runs it; root if nobody is named.
    pub user: Option<String>,
    /// On a terminal of this size.
    pub terminal: Option<Size>,
}

/// A terminal's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// As a shell reports it: 128 and the signal's number for one that was killed.
    pub code: u8,
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In words.
    pub reason: String,
    /// What a shell would exit with.
    pub code: u8,
}

/// A path in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// The path.
    pub path: String,
}

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The path.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// Make the folders above it.
    #[serde(default)]
    pub parents: bool,
    /// A folder rather than a file.
    #[serde(default)]
    pub is_folder: bool,
}

/// Something in a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative to the folder that was listed; empty for that itself.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// A folder.
    pub is_folder: bool,
    /// Bytes.
    pub size: u64,
}

/// A folder of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The file system's type.
    pub kind: String,
    /// The tag or device.
    pub source: String,
    /// Where it goes; made if it is not there.
    pub target: String,
    /// Options for the file system.
    #[serde(default)]
    pub options: String,
}

/// A folder of the host that is served over the session: each frame from the guest is a request of
/// its kernel's FUSE, each frame to the guest an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Export {
    /// Where it goes; made if it is not there.
    pub target: String,
    /// What the guest's list of mounts calls it.
    pub name: String,
    /// Nothing can be changed.
    #[serde(default)]
    pub read_only: bool,
}

/// TCP ports on which somebody listens, those of the loopback too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// The ports.
    pub ports: Vec<u16>,
}

/// How the guest is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// What it calls itself.
    pub hostname: String,
    /// Its release, as it names it.
    pub release: String,
    /// The kernel's version.
    pub kernel: String,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// The load of the last minutes: 1, 5, 15.
    pub load: [f64; 3],
    /// Memory.
    pub memory: Memory,
    /// The disk of the root.
    pub disk: Usage,
    /// Addresses, without those of the loopback.
    pub addresses: Vec<String>,
    /// What it has done so far: `booted`, `reachable`, `provisioned`.
    pub levels: Vec<String>,
    /// TCP ports on which somebody listens, beyond the loopback.
    pub ports: Vec<u16>,
    /// What went wrong while it was set up.
    pub problems: Vec<String>,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What programs could get.
    pub available: u64,
}

/// A disk in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// All of it.
    pub total: u64,
    /// What is taken.
    pub used: u64,
}
