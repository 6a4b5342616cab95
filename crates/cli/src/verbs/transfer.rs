//! `transfer`: files in and out.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::{Entry, FrameKind, Get, Put, Request};

use crate::arguments::Transfer;
use crate::daemon::Connection;
use crate::failure::{Failure, USAGE};
use crate::guest::{self, Session};

const PATIENCE: Duration = Duration::from_secs(10);
const PIECE_BYTES: usize = 256 << 10;

/// One end of a copy.
enum End<'a> {
    Here(&'a str),
    /// In a machine.
    There(&'a str, &'a str),
}

impl<'a> End<'a> {
    fn of(text: &'a str) -> Self {
        match text.split_once(':') {
            // A path with a colon in it can be given as ./a:b.
            Some((name, path)) if !name.contains('/') && !name.is_empty() => {
                Self::There(name, path)
            }
            _ => Self::Here(text),
        }
    }
}

/// `hostel transfer`.
pub fn run(what: &Transfer) -> Result<u8, Failure> {
    let (last, sources) = what.paths.split_last().expect("clap wants two at least");
    let mut connection = Connection::open()?;
    for source in sources {
        match (End::of(source), End::of(last)) {
            (End::Here(from), End::There(name, to)) => {
                let machine = connection.machine(name)?;
                let guest = Guest { name, socket: machine.socket(&connection) };
                guest.put(from, to, what, sources.len() > 1)?;
            }
            (End::There(name, from), End::Here(to)) => {
                let machine = connection.machine(name)?;
                let guest = Guest { name, socket: machine.socket(&connection) };
                guest.get(from, to, what)?;
            }
            _ => {
                let failure = Failure::new("One end must be in a machine and the other one here");
                return Err(failure.hint("NAME:PATH is a path in a machine").code(USAGE));
            }
        }
    }
    Ok(0)
}

struct Guest<'a> {
    name: &'a str,
    socket: PathBuf,
}

fn here(path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::new(path.clone()).because(&error)
}

impl Guest<'_> {
    fn open(&self, request: &Request) -> Result<Session, Failure> {
        Session::open(&self.socket, request, PATIENCE).map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &io::Error) -> Failure {
        guest::unreachable(self.name, error)
    }

    /// Lists a path in the guest; nothing when it is not there.
    fn list(&self, path: &str) -> Result<Vec<Entry>, Failure> {
        let mut session = self.open(&Request::List(Get { path: path.to_owned() }))?;
        let mut entries = Vec::new();
        loop {
            match session.read().map_err(|error| self.broken(&error))? {
                Some(frame) if frame.kind == FrameKind::Answer => {
                    let more: Vec<Entry> = serde_json::from_slice(&frame.payload)
                        .map_err(|error| Failure::new("The agent is unreadable").because(&error))?;
                    entries.extend(more);
                }
                Some(frame) if frame.kind == FrameKind::Failure => {
                    return Err(guest::refusal(self.name, &frame));
                }
                _ => return Ok(entries),
            }
        }
    }

    fn put(&self, from: &str, to: &str, what: &Transfer, many: bool) -> Result<(), Failure> {
        let source = Path::new(from);
        let is_folder = self.list(to).is_ok_and(|list| list.first().is_some_and(|e| e.is_folder));
        let to = match (is_folder || many || to.ends_with('/') || to.is_empty(), source.file_name())
        {
            (true, Some(name)) => {
                let folder = if to.is_empty() { "/root" } else { to };
                format!("{}/{}", folder.trim_end_matches('/'), name.to_string_lossy())
            }
            _ => to.to_owned(),
        };
        if from == "-" {
            return self.put_from(&mut io::stdin(), 0o644, &to, what.parents);
        }
        let metadata = fs::metadata(source).map_err(here(source))?;
        if !metadata.is_dir() {
            return self.put_file(source, &to, what.parents);
        }
        if !what.recursive {
            let failure = Failure::new(format!("{from} is a folder"));
            return Err(failure.hint("--recursive copies whole folders").code(USAGE));
        }
        let mut pending = vec![(source.to_owned(), to)];
        while let Some((folder, to)) = pending.pop() {
            let mode = fs::metadata(&folder).map_err(here(&folder))?.permissions().mode();
            let put = Put { path: to.clone(), mode, parents: true, is_folder: true };
            let mut session = self.open(&Request::Put(put))?;
            guest::answer::<serde_json::Value>(self.name, &mut session)?;
            for entry in fs::read_dir(&folder).map_err(here(&folder))? {
                let entry = entry.map_err(here(&folder))?;
                let kind = entry.file_type().map_err(here(&folder))?;
                let to = format!("{to}/{}", entry.file_name().to_string_lossy());
                if kind.is_dir() {
                    pending.push((entry.path(), to));
                } else if kind.is_file() {
                    self.put_file(&entry.path(), &to, false)?;
                }
            }
        }
        Ok(())
    }

    fn put_file(&self, from: &Path, to: &str, parents: bool) -> Result<(), Failure> {
        let mut file = File::open(from).map_err(here(from))?;
        let mode = file.metadata().map_err(here(from))?.permissions().mode();
        self.put_from(&mut file, mode, to, parents)
    }

    fn put_from(
        &self,
        from: &mut impl Read,
        mode: u32,
        to: &str,
        parents: bool,
    ) -> Result<(), Failure> {
        let put = Put { path: to.to_owned(), mode, parents, is_folder: false };
        let mut session = self.open(&Request::Put(put))?;
        let mut bytes = vec![0; PIECE_BYTES];
        loop {
            let count = from.read(&mut bytes).map_err(here(Path::new(to)))?;
            // A refusal closes the connection: what it says is read below.
            if session.write(FrameKind::Input, &bytes[..count]).is_err() || count == 0 {
                break;
            }
        }
        guest::answer::<serde_json::Value>(self.name, &mut session).map(|_| ())
    }

    fn get(&self, from: &str, to: &str, what: &Transfer) -> Result<(), Failure> {
        if to == "-" {
            return self.get_into(from, &mut io::stdout());
        }
        let entries = self.list(from)?;
        let is_folder = entries.first().is_some_and(|entry| entry.is_folder);
        if is_folder && !what.recursive {
            let failure = Failure::new(format!("{}:{from} is a folder", self.name));
            return Err(failure.hint("--recursive copies whole folders").code(USAGE));
        }
        let target = Path::new(to);
        let name = from.trim_end_matches('/').rsplit('/').next().unwrap_or(from);
        let target = if target.is_dir() { target.join(name) } else { target.to_owned() };
        if what.parents
            && let Some(parent) = target.parent()
        {
            fs::create_dir_all(parent).map_err(here(parent))?;
        }
        for entry in &entries {
            // A guest must not reach beside the target.
            let sound = Path::new(&entry.path)
                .components()
                .all(|part| matches!(part, std::path::Component::Normal(_)));
            if !sound {
                return Err(Failure::new(format!("'{}' is no path of a guest's", entry.path)));
            }
            let (path, there) = match entry.path.as_str() {
                "" => (target.clone(), from.to_owned()),
                below => (target.join(below), format!("{}/{below}", from.trim_end_matches('/'))),
            };
            if entry.is_folder {
                fs::create_dir_all(&path).map_err(here(&path))?;
            } else {
                let mut file = File::create(&path).map_err(here(&path))?;
                self.get_into(&there, &mut file)?;
                let mode = fs::Permissions::from_mode(entry.mode & 0o777);
                fs::set_permissions(&path, mode).map_err(here(&path))?;
            }
        }
        Ok(())
    }

    fn get_into(&self, from: &str, to: &mut impl Write) -> Result<(), Failure> {
        let mut session = self.open(&Request::Get(Get { path: from.to_owned() }))?;
        loop {
            match session.read().map_err(|error| self.broken(&error))? {
                Some(frame) if frame.kind == FrameKind::Output && frame.payload.is_empty() => {
                    return to.flush().map_err(here(Path::new(from)));
                }
                Some(frame) if frame.kind == FrameKind::Output => {
                    to.write_all(&frame.payload).map_err(here(Path::new(from)))?;
                }
                Some(frame) => return Err(guest::refusal(self.name, &frame)),
                None => return Err(self.broken(&io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }
}
