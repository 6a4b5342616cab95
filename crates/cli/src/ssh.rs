//! What `ssh NAME.hostel` needs: a key for each user, the machines' own keys, a piece of
//! configuration to include.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use guests::keys::KeyPair;

use crate::daemon::Places;
use crate::failure::Failure;
use crate::machine::Machine;

fn folder(places: &Places) -> PathBuf {
    places.state.join("ssh")
}

/// Writes a file that only its owner reads, whole or not at all.
pub fn write_private(path: &Path, data: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}-new", std::process::id()));
    let beside = PathBuf::from(beside);
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside);
    let written = file.and_then(|mut file| file.write_all(data));
    let written = written.and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        _ = fs::remove_file(&beside);
    }
    written
}

/// The public key of this user, made when it is first needed.
pub fn own_key(places: &Places) -> Result<String, Failure> {
    let folder = folder(places);
    let (private, public) = (folder.join("id_ed25519"), folder.join("id_ed25519.pub"));
    if let (Ok(line), true) = (fs::read_to_string(&public), private.is_file()) {
        return Ok(line.trim().to_owned());
    }
    let failed = |error: io::Error| Failure::new("The key for ssh cannot be kept").because(&error);
    fs::create_dir_all(&folder).map_err(failed)?;
    let pair = KeyPair::new("hostel")?;
    write_private(&private, pair.private.as_bytes()).map_err(failed)?;
    write_private(&public, format!("{}\n", pair.public).as_bytes()).map_err(failed)?;
    Ok(pair.public)
}

/// Keeps a machine's own key, so that ssh never asks.
pub fn know(places: &Places, name: &str, public: &str) -> io::Result<()> {
    fs::create_dir_all(folder(places))?;
    let path = folder(places).join("known_hosts");
    let known = fs::read_to_string(&path).unwrap_or_default();
    let start = format!("{name}.hostel ");
    let mut text: String = known
        .lines()
        .filter(|line| !line.starts_with(&start))
        .map(|line| format!("{line}\n"))
        .collect();
    let mut words = public.split(' ');
    let (kind, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    _ = writeln!(text, "{start}{kind} {key}");
    write_private(&path, text.as_bytes())
}

/// Where the piece of configuration lies.
pub fn configuration(places: &Places) -> PathBuf {
    folder(places).join("config")
}

/// Writes the piece of configuration anew: `Include ~/.local/state/hostel/ssh/config`.
pub fn configure(places: &Places, machines: &[Machine]) -> io::Result<()> {
    let folder = folder(places);
    if !folder.join("id_ed25519").is_file() {
        return Ok(()); // no machine was ever told of a key
    }
    let program = std::env::current_exe()?;
    let mut text = String::new();
    for machine in machines {
        if let Some(user) = machine.note().and_then(|note| note.user) {
            _ = writeln!(text, "Host {}.hostel\n    User {user}", machine.name());
        }
    }
    _ = write!(
        text,
        "Host *.hostel\n    User root\n    ProxyCommand \"{}\" proxy %n 22\n    \
         IdentityFile \"{}\"\n    IdentitiesOnly yes\n    UserKnownHostsFile \"{}\"\n    \
         StrictHostKeyChecking accept-new\n",
        program.display(),
        folder.join("id_ed25519").display(),
        folder.join("known_hosts").display(),
    );
    write_private(&folder.join("config"), text.as_bytes())
}
