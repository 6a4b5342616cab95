//! Opening files to a machine's user, and noting it before it is done, so that whoever comes later
//! can undo it: the next daemon, the next boot.

mod list;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};

use libvirt_compat::{Origin, Result};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, XattrFlags, getxattr, open, setxattr};
use serde_json::{Value, json};

use crate::files;
use list::List;

/// A leaf. Lists are read, changed and written back, by many machines' starts.
static LISTS: Mutex<()> = Mutex::new(());

const ATTRIBUTE: &str = "system.posix_acl_access";
/// A list of this length has a hundred entries; longer ones are left alone.
const LIST_BYTES_MAX: usize = 1024;

/// How a file was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// An entry in its list.
    Entry,
    /// It has another owner now, because its file system has no lists: this one before.
    Owner(u32, u32),
}

/// What was changed for one machine.
pub struct Record {
    file: PathBuf,
    user: Option<(u32, u32)>,
    group: Option<PathBuf>,
    grants: BTreeMap<PathBuf, How>,
    links: Vec<PathBuf>,
    view: BTreeMap<PathBuf, bool>,
}

impl Record {
    pub fn new(file: &Path, user: Option<(u32, u32)>) -> Self {
        let (grants, view) = (BTreeMap::new(), BTreeMap::new());
        Self { file: file.to_owned(), user, group: None, grants, links: Vec::new(), view }
    }

    /// The record in a file; none when there is none, or one that cannot be understood.
    pub fn read(file: &Path) -> Option<Self> {
        let value: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let pair = |value: &Value| Some((number(&value[0])?, number(&value[1])?));
        let path = |value: &Value| value.as_str().map(PathBuf::from);
        let list = |name: &str| value[name].as_array().cloned().unwrap_or_default();
        let grant = |grant: &Value| {
            let how =
                pair(&grant["owner"]).map_or(How::Entry, |(user, group)| How::Owner(user, group));
            Some((path(&grant["path"])?, how))
        };
        Some(Self {
            file: file.to_owned(),
            user: pair(&value["user"]),
            group: path(&value["group"]),
            grants: list("grants").iter().filter_map(grant).collect(),
            links: list("links").iter().filter_map(path).collect(),
            view: list("view")
                .iter()
                .filter_map(|entry| Some((path(&entry[0])?, entry[1].as_bool()?)))
                .collect(),
        })
    }

    fn write(&self) -> Result<()> {
        let pair = |(first, second): (u32, u32)| json!([first, second]);
        let grants = self.grants.iter().map(|(path, how)| match how {
            How::Entry => json!({"path": path}),
            How::Owner(user, group) => json!({"path": path, "owner": [user, group]}),
        });
        let text = json!({
            "user": self.user.map(pair),
            "group": self.group,
            "grants": grants.collect::<Vec<_>>(),
            "links": self.links,
            "view": self.view.iter().collect::<Vec<_>>(),
        });
        if let Some(folder) = self.file.parent() {
            files::make_private_directory(folder)?;
        }
        files::write_atomically(&self.file, text.to_string().as_bytes())
    }

    pub fn user(&self) -> Option<(u32, u32)> {
        self.user
    }

    pub fn group(&self) -> Option<PathBuf> {
        self.group.clone()
    }

    pub fn note_group(&mut self, group: &Path) -> Result<()> {
        self.group = Some(group.to_owned());
        self.write()
    }

    /// The files that the machine sees, and whether it may write to them.
    pub fn view(&self) -> Vec<(PathBuf, bool)> {
        self.view.iter().map(|(path, writable)| (path.clone(), *writable)).collect()
    }

    pub fn note_view(&mut self, path: &Path, writable: bool) -> Result<()> {
        *self.view.entry(path.to_owned()).or_default() |= writable;
        self.write()
    }

    /// Opens a file to the machine's user.
    pub fn grant(&mut self, path: &Path, writable: bool, (user, group): (u32, u32)) -> Result<()> {
        let failed = |error: io::Error| {
            let text =
                format!("unable to give the machine's user {user} access to '{}'", path.display());
            files::system(text, &error).from(Origin::Security)
        };
        let real = fs::canonicalize(path).map_err(failed)?;
        let file = Handle::open(&real).map_err(failed)?;
        let facts = fs::metadata(file.path()).map_err(failed)?;
        if facts.file_type().is_char_device() || facts.file_type().is_block_device() {
            return Ok(()); // the machine gets a node of its own
        }
        if facts.uid() == user {
            return Ok(());
        }
        let _guard = LISTS.lock();
        self.grants.entry(real.clone()).or_insert(How::Entry);
        self.write()?;
        match file.enter(user, writable) {
            Ok(()) => Ok(()),
            Err(error) if has_no_lists(&error) => {
                self.grants.insert(real, How::Owner(facts.uid(), facts.gid()));
                self.write()?;
                chown(file.path(), Some(user), Some(group)).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Closes a file that no device needs any more.
    pub fn revoke(&mut self, path: &Path) {
        self.view.remove(path);
        if let Ok(real) = fs::canonicalize(path)
            && let Some(how) = self.grants.remove(&real)
        {
            take_back(&real, how, self.user);
        }
        warn(self.write());
    }

    /// Gives a socket that the machine makes in its own folder the name that people expect.
    pub fn link(&mut self, path: &Path, inside: &Path) -> Result<()> {
        if path == inside {
            return Ok(());
        }
        self.links.push(path.to_owned());
        self.write()?;
        let failed = |error| files::system(format!("cannot make '{}'", path.display()), &error);
        if fs::symlink_metadata(path).is_ok_and(|old| is_socket_name(&old)) {
            fs::remove_file(path).map_err(failed)?;
        }
        symlink(inside, path).map_err(failed)
    }

    /// Undoes everything, and forgets it.
    pub fn undo(&self) {
        for (path, how) in &self.grants {
            take_back(path, *how, self.user);
        }
        for link in &self.links {
            if fs::symlink_metadata(link).is_ok_and(|link| link.file_type().is_symlink()) {
                _ = fs::remove_file(link);
            }
        }
        warn(files::remove(&self.file));
    }
}

/// What stands where a socket is to be made and may go: an old socket, or an old link to one.
fn is_socket_name(old: &fs::Metadata) -> bool {
    old.file_type().is_symlink() || old.file_type().is_socket()
}

fn warn(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("warning: {error}");
    }
}

fn take_back(path: &Path, how: How, user: Option<(u32, u32)>) {
    let _guard = LISTS.lock();
    let Some((user, _)) = user else { return };
    let result = Handle::open(path).and_then(|file| match how {
        How::Entry => file.leave(user),
        How::Owner(user, group) => chown(file.path(), Some(user), Some(group)),
    });
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("warning: Cannot take back access to {}: {error}", path.display());
        }
        _ => {}
    }
}

fn has_no_lists(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error())
}

/// One file, whatever happens to its name meanwhile.
struct Handle(OwnedFd);

impl Handle {
    /// Opens it without following a link.
    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(open(path, flags, Mode::empty())?))
    }

    /// A name under which calls that want one find it.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_fd().as_raw_fd()))
    }

    fn list(&self) -> io::Result<List> {
        let mut bytes = [0; LIST_BYTES_MAX];
        match getxattr(self.path(), ATTRIBUTE, &mut bytes) {
            Ok(length) => List::parse(&bytes[..length])
                .ok_or_else(|| io::Error::other("its access control list is not understood")),
            Err(rustix::io::Errno::NODATA) => Ok(List::of_mode(fs::metadata(self.path())?.mode())),
            Err(error) => Err(error.into()),
        }
    }

    fn set_list(&self, list: &List) -> io::Result<()> {
        Ok(setxattr(self.path(), ATTRIBUTE, &list.bytes(), XattrFlags::empty())?)
    }

    /// Enters a user in the list.
    fn enter(&self, user: u32, writable: bool) -> io::Result<()> {
        let mut list = self.list()?;
        list.enter(user, writable);
        self.set_list(&list)
    }

    /// Takes a user out of the list.
    fn leave(&self, user: u32) -> io::Result<()> {
        let mut list = self.list()?;
        list.leave(user);
        self.set_list(&list)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_opened_to_two_and_closed_again() {
        let folder = std::env::temp_dir().join(format!("hostel-access-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("image");
        fs::write(&file, "text").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let mode = || fs::metadata(&file).unwrap().mode() & 0o777;
        let mut first = Record::new(&folder.join("one"), Some((70_001, 70_001)));
        let mut second = Record::new(&folder.join("two"), Some((70_002, 70_002)));
        match first.grant(&file, true, (70_001, 70_001)) {
            Ok(()) if first.grants.values().all(|how| *how == How::Entry) => {}
            _ => ::tests::skip!("the folder for temporary files has no access control lists"),
        }
        second.grant(&file, false, (70_002, 70_002)).unwrap();
        let list = Handle::open(&file).unwrap().list().unwrap();
        assert_eq!((list.of(70_001), list.of(70_002)), (Some(6), Some(4)));

        // Another daemon knows what to undo.
        Record::read(&folder.join("one")).unwrap().undo();
        let list = Handle::open(&file).unwrap().list().unwrap();
        assert_eq!((list.of(70_001), list.of(70_002)), (None, Some(4)));
        second.undo();
        assert_eq!(mode(), 0o600, "as before");
        assert!(getxattr(&file, ATTRIBUTE, &mut [0; 64]).is_err(), "no list is left");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no record is left");
        fs::remove_dir_all(&folder).unwrap();
    }
}
