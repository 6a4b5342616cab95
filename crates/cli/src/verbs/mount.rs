//! `mount` and `umount`: folders of this host in a machine.
//!
//! A mount is a note in the machine's definition and, while the machine runs, a process of this user
//! that serves the folder (see `share/`). It goes when the machine or the mount goes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::{Export, Get, Request};

use crate::arguments::{Mount, ShareFolder, Umount};
use crate::daemon::Connection;
use crate::failure::{Failure, USAGE};
use crate::guest::{self, Session};
use crate::machine::{Machine, Share, State};
use crate::share;
use crate::verbs::serving;

const PATIENCE: Duration = Duration::from_secs(10);
/// The first user of a distribution.
const FIRST_USER: u32 = 1000;

/// `hostel mount`.
pub fn mount(what: &Mount) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    for target in &what.targets {
        let (name, path) = match target.split_once(':') {
            Some((name, path)) => (name, Some(path)),
            None => (target.as_str(), None),
        };
        let machine = connection.machine(name)?;
        let mut share = folder(&what.source, path)?;
        share.read_only = what.read_only;
        let note = machine.note().unwrap_or_default();
        if note.shares.iter().any(|known| known.target == share.target) {
            let failure =
                Failure::new(format!("Something is mounted at '{}' already", share.target));
            let hint = format!("'hostel umount {name}:{}' takes it out", share.target);
            return Err(failure.hint(hint).code(USAGE));
        }
        connection.change_note(&machine, |note| note.shares.push(share.clone()))?;
        let mounted = match machine.state {
            State::Running => start(&machine, &share),
            _ => Ok(()), // at its next start
        };
        if let Err(failure) = mounted {
            connection.change_note(&machine, |note| note.shares.retain(|known| *known != share))?;
            return Err(failure);
        }
    }
    Ok(0)
}

/// `hostel umount`.
pub fn umount(what: &Umount) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    for target in &what.targets {
        let (name, path) = match target.split_once(':') {
            Some((name, path)) => (name, Some(path)),
            None => (target.as_str(), None),
        };
        let machine = connection.machine(name)?;
        let shares = machine.note().unwrap_or_default().shares;
        let chosen: Vec<Share> = shares
            .into_iter()
            .filter(|share| path.is_none_or(|path| path == share.target))
            .collect();
        if let (true, Some(path)) = (chosen.is_empty(), path) {
            return Err(Failure::new(format!("Nothing is mounted at '{path}'")).code(USAGE));
        }
        for share in &chosen {
            if machine.state == State::Running {
                let socket = machine.socket(&connection);
                let request = Request::Unmount(Get { path: share.target.clone() });
                guest::ask::<serde_json::Value>(name, &socket, &request)?;
            }
            connection.change_note(&machine, |note| note.shares.retain(|known| known != share))?;
        }
    }
    Ok(0)
}

/// Reads SOURCE[:TARGET][:ro].
pub fn share(text: &str) -> Result<Share, Failure> {
    let (text, read_only) = match text.strip_suffix(":ro") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (source, target) = match text.split_once(':') {
        Some((source, target)) => (source, Some(target)),
        None => (text, None),
    };
    Ok(Share { read_only, ..folder(source, target)? })
}

/// The home of whoever asks, where it is here.
pub fn home() -> Result<Share, Failure> {
    let home = std::env::var("HOME").unwrap_or_default();
    if home.is_empty() {
        return Err(Failure::new("Nobody says where your home is").hint("HOME is not set"));
    }
    Ok(Share { read_only: true, ..folder(&home, None)? })
}

fn folder(source: &str, target: Option<&str>) -> Result<Share, Failure> {
    let wrong = || Failure::new(format!("The folder '{source}' cannot be mounted")).code(USAGE);
    let path = PathBuf::from(source).canonicalize().map_err(|error| {
        wrong().because(&error).hint("a folder of this host, then where it goes: SOURCE[:TARGET]")
    })?;
    if !path.is_dir() {
        return Err(wrong().hint("it is a file; 'hostel transfer' copies files"));
    }
    let target = target.map_or_else(|| path.display().to_string(), str::to_owned);
    if !target.starts_with('/') || target == "/" {
        let failure = Failure::new(format!("'{target}' is no place in a machine")).code(USAGE);
        return Err(failure.hint("a path from its root, such as /mnt"));
    }
    Ok(Share { source: path, target, read_only: false })
}

/// Mounts what a machine that has just started is to have.
pub fn mount_all(connection: &mut Connection, machine: &Machine) -> Result<(), Failure> {
    let machine = connection.machine(machine.name())?;
    for share in machine.note().unwrap_or_default().shares {
        start(&machine, &share)?;
    }
    Ok(())
}

/// Starts the process that serves a folder, and waits until the machine has mounted it.
fn start(machine: &Machine, share: &Share) -> Result<(), Failure> {
    let failed = || {
        let source = share.source.display();
        Failure::new(format!("'{source}' cannot be mounted in '{}'", machine.name()))
    };
    serving::start(&["share-folder", machine.name(), &share.target], failed)
}

/// `hostel share-folder`, the serving process.
pub fn serve(what: &ShareFolder) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let machine = connection.machine(&what.name)?;
    let note = machine.note().unwrap_or_default();
    let share = note.shares.into_iter().find(|share| share.target == what.target);
    let share = share.ok_or_else(|| {
        Failure::new(format!("'{}' has nothing to be mounted at '{}'", what.name, what.target))
    })?;
    let export = Export {
        target: share.target.clone(),
        name: share.source.display().to_string(),
        read_only: share.read_only,
    };
    let socket = machine.socket(&connection);
    drop(connection); // the daemon need not stay for us
    let mut session = Session::open(&socket, &Request::Export(export), PATIENCE)
        .map_err(|error| guest::unreachable(&what.name, &error))?;
    guest::answer::<serde_json::Value>(&what.name, &mut session)?;
    serving::is_ready();
    _ = rustix::process::setsid();
    let guest_user = if note.user.is_some() { FIRST_USER } else { 0 };
    let options =
        share::Options { read_only: share.read_only, guest_user, guest_group: guest_user };
    // Whoever started us does not listen any more.
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
    if let Ok(null) = null {
        _ = rustix::stdio::dup2_stdout(&null);
        _ = rustix::stdio::dup2_stderr(&null);
    }
    let served = share::serve(session, &share.source, options);
    served.map_err(|error| Failure::new("The mount broke").because(&error))?;
    Ok(0)
}

/// Where a folder of this host is in a machine.
pub fn mapped(shares: &[Share], folder: &Path) -> Option<String> {
    let share = shares
        .iter()
        .filter(|share| folder.starts_with(&share.source))
        .max_by_key(|share| share.source.as_os_str().len())?;
    let below = folder.strip_prefix(&share.source).ok()?;
    let target = Path::new(&share.target).join(below);
    Some(target.display().to_string().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_maps_a_folder() {
        let share = |source: &str, target: &str| Share {
            source: source.into(),
            target: target.into(),
            read_only: false,
        };
        let shares = [share("/home/ann", "/host"), share("/home/ann/project", "/srv/p")];
        let mapped = |folder: &str| mapped(&shares, Path::new(folder));
        assert_eq!(mapped("/home/ann/project/src").as_deref(), Some("/srv/p/src"));
        assert_eq!(mapped("/home/ann").as_deref(), Some("/host"));
        assert_eq!(mapped("/home/anna"), None);
    }
}
