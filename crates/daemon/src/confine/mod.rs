//! Keeping machines from each other and from the host. A system's daemon gives each running
//! machine a user of its own, a view of the file system that holds the emulator's program and the
//! machine's own files only, Landlock's and seccomp's rules, and a control group.
//!
//! A machine's process begins as this program (`launch`), which puts all of that on itself and then
//! becomes the emulator. What may be opened is decided by the view (`root`) and by the user
//! (`access`: an entry in a file's access control list, which leaves owner and mode alone, so that
//! images can be shared and nothing has to be given back to whom it was). Files of devices that
//! are plugged in later are mounted into the view by the daemon (`live`): Landlock's rules, which
//! can never be widened, speak of folders of the view, not of single images.

mod access;
mod groups;
mod launch;
mod live;
mod needs;
mod root;
mod rules;
mod users;

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use groups::Limits;
use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Origin, Result};
use parking_lot::Mutex;

pub use launch::run as run_launcher;
pub use needs::{Need, make_files, of_device};
pub use users::Range;

use crate::files;
use access::Record;

/// The name of libvirt's security model that separates by users.
pub const MODEL: &str = "dac";

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Machines are confined at all.
    pub enabled: bool,
    /// The users that machines run as.
    pub users: Range,
    /// What machines may read and run besides the system's programs.
    pub exposed: Vec<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: true, users: Range::default(), exposed: Vec::new() }
    }
}

/// The confinement of all machines of a daemon.
pub struct Confinement {
    settings: Settings,
    records: PathBuf,
    /// A leaf. The users of running machines.
    taken: Mutex<BTreeSet<u32>>,
    /// A leaf. What this host can do, once somebody has asked.
    layers: Mutex<Option<launch::Layers>>,
    groups: groups::Groups,
}

/// What one machine's document wants.
enum Wish {
    /// A user that is chosen here.
    Own,
    /// This one: user, group, and whether files are opened to it.
    Given(u32, u32, bool),
    /// The daemon's own.
    Nobody,
}

impl Confinement {
    /// With a folder for what has been changed on files, which outlives the daemon and the boot.
    pub fn new(settings: Settings, records: PathBuf) -> Self {
        Self {
            settings,
            records,
            taken: Mutex::default(),
            layers: Mutex::new(None),
            groups: groups::Groups::default(),
        }
    }

    /// Whether machines have users of their own.
    pub fn is_on(&self) -> bool {
        self.settings.enabled
    }

    /// The label of `<baselabel>`.
    pub fn base_label(&self) -> String {
        users::label(self.settings.users.first, self.settings.users.first)
    }

    /// What this host can do; what it cannot is said once.
    fn layers(&self) -> launch::Layers {
        let mut layers = self.layers.lock();
        if let Some(known) = *layers {
            return known;
        }
        let found = launch::find_out(self.settings.users.first);
        for missing in found.missing() {
            eprintln!("warning: Machines are confined without {missing}");
        }
        *layers = Some(found);
        found
    }

    /// Prepares the confinement of a machine that is about to start, and notes its user in the
    /// document. None when it is not to be confined.
    pub fn prepare(&self, document: &mut Element, place: &Place<'_>) -> Result<Option<Cell>> {
        let limits = groups::limits(document)?;
        let wish = wish(document, self.settings.enabled)?;
        if !self.settings.enabled {
            return match limits.first() {
                Some(name) => Err(groups::unavailable(name, "is not available in session mode")),
                None => Ok(None),
            };
        }
        let layers = self.layers();
        let user = match wish {
            Wish::Nobody => None,
            Wish::Given(user, group, _) => Some((user, group)),
            Wish::Own if layers.user => {
                let mut taken = self.taken.lock();
                let user = self.settings.users.choose(place.uuid, &taken)?;
                taken.insert(user);
                Some((user, user))
            }
            Wish::Own => None,
        };
        let own = place.runtime.join("own");
        let mut cell = Cell {
            uuid: place.uuid.to_owned(),
            user,
            layers,
            own,
            record: Record::new(&self.records.join(place.uuid), user),
            group: None,
            emulator: place.emulator.to_owned(),
            programs: root::emulator_places(place.emulator)
                .into_iter()
                .chain(root::firmware_folder())
                .chain(self.settings.exposed.iter().cloned())
                .collect(),
            opens_files: !matches!(wish, Wish::Given(_, _, false)),
        };
        if let Err(error) = self.furnish(&mut cell, document, &limits) {
            self.release(&cell);
            return Err(error);
        }
        if let Some((user, group)) = user {
            note_label(document, user, group, matches!(wish, Wish::Own));
        }
        Ok(Some(cell))
    }

    fn furnish(&self, cell: &mut Cell, document: &Element, limits: &Limits) -> Result<()> {
        cell.make_own_folder()?;
        cell.group = self.groups.make(&cell.uuid, limits)?;
        if let Some(group) = &cell.group {
            cell.record.note_group(group)?;
        }
        for need in needs::of_document(document)? {
            cell.open(&need)?;
        }
        Ok(())
    }

    /// Takes charge of a machine that an earlier daemon has started.
    pub fn adopt(&self, uuid: &str, runtime: &Path) -> Option<Cell> {
        let record = Record::read(&self.records.join(uuid))?;
        let user = record.user();
        self.taken.lock().extend(user.map(|(user, _)| user));
        Some(Cell {
            uuid: uuid.to_owned(),
            user,
            layers: self.layers(),
            own: runtime.join("own"),
            group: record.group(),
            record,
            emulator: PathBuf::new(),
            programs: Vec::new(),
            opens_files: true,
        })
    }

    /// Undoes what was done for a machine, which is gone.
    pub fn release(&self, cell: &Cell) {
        if let Some(group) = &cell.group {
            groups::remove(group);
        }
        cell.record.undo();
        if let Some((user, _)) = cell.user {
            self.taken.lock().remove(&user);
        }
    }

    /// Undoes what was done for machines that are gone without any daemon having seen it.
    pub fn release_forgotten(&self, runs: impl Fn(&str) -> bool) {
        let entries = std::fs::read_dir(&self.records).into_iter().flatten().flatten();
        for uuid in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            if runs(&uuid) {
                continue;
            }
            if let Some(record) = Record::read(&self.records.join(&uuid)) {
                if let Some(group) = record.group() {
                    groups::remove(&group);
                }
                record.undo();
            }
        }
    }
}

/// Where a machine lives and what runs it.
pub struct Place<'a> {
    pub uuid: &'a str,
    pub runtime: &'a Path,
    pub emulator: &'a Path,
}

/// Refuses limits that no group can have.
pub fn check_limits(document: &Element) -> Result<()> {
    match groups::limits(document) {
        // A device that is not there is no matter before the start.
        Err(error) if error.code != Code::SystemError => Err(error),
        _ => Ok(()),
    }
}

/// What a document says about labels.
fn wish(document: &Element, enabled: bool) -> Result<Wish> {
    let mut wish = Wish::Own;
    for label in document.all("seclabel") {
        let kind = label.attribute("type").unwrap_or("dynamic");
        match label.attribute("model") {
            None => {}
            Some(MODEL) if enabled => {}
            Some("none") => continue,
            Some(other) => {
                let text = format!("Unable to find security driver for model {other}");
                return Err(Error::new(Code::ConfigUnsupported, text).from(Origin::Security));
            }
        }
        wish = match kind {
            "none" => Wish::Nobody,
            "static" => {
                let text = label.text_at("label").unwrap_or_default();
                let (user, group) = users::parse_label(&text).ok_or_else(|| {
                    let text = format!("Failed to parse uid and gid '{text}'");
                    Error::new(Code::InvalidArg, text).from(Origin::Security)
                })?;
                Wish::Given(user, group, !label.is("relabel", "no"))
            }
            _ => Wish::Own,
        };
    }
    Ok(wish)
}

/// The labels that a running machine shows, as libvirt writes them.
fn note_label(document: &mut Element, user: u32, group: u32, own: bool) {
    document.remove(|element| {
        element.name == "seclabel"
            && (own || element.is("model", MODEL) || element.is("type", "static"))
    });
    let text = users::label(user, group);
    let kind = if own { "dynamic" } else { "static" };
    let label = Element::new("seclabel")
        .with("type", kind)
        .with("model", MODEL)
        .with("relabel", "yes")
        .with_child(Element::with_text("label", &text))
        .with_child(Element::with_text("imagelabel", &text));
    document.push(label);
}

/// A machine's confinement.
pub struct Cell {
    uuid: String,
    /// User and group.
    user: Option<(u32, u32)>,
    layers: launch::Layers,
    /// The folder that the machine may write into.
    own: PathBuf,
    record: Record,
    group: Option<PathBuf>,
    emulator: PathBuf,
    programs: Vec<PathBuf>,
    opens_files: bool,
}

impl Cell {
    /// Where the machine makes its sockets.
    pub fn own_folder(&self) -> &Path {
        &self.own
    }

    fn make_own_folder(&self) -> Result<()> {
        use std::os::unix::fs::{DirBuilderExt, chown};
        let failed = |error| files::system(format!("cannot make '{}'", self.own.display()), &error);
        _ = std::fs::remove_dir_all(&self.own);
        std::fs::DirBuilder::new().mode(0o700).create(&self.own).map_err(failed)?;
        match self.user {
            Some((user, group)) => chown(&self.own, Some(user), Some(group)).map_err(failed),
            None => Ok(()),
        }
    }

    /// Opens a file to the machine's user, before it starts.
    fn open(&mut self, need: &Need) -> Result<()> {
        match need {
            Need::File { path, writable } => {
                if let Some((user, group)) = self.user.filter(|_| self.opens_files) {
                    self.record.grant(path, *writable, (user, group))?;
                }
                self.record.note_view(path, *writable)
            }
            Need::Listens { path } => {
                let inside = self.inside(path);
                self.record.link(path, &inside)
            }
        }
    }

    /// Opens files to a machine that runs.
    pub fn open_live(&mut self, process: BorrowedFd<'_>, needs: &[Need]) -> Result<()> {
        for need in needs {
            self.open(need)?;
            if let Need::File { path, writable } = need
                && self.layers.root
            {
                live::show(process, path, *writable, self.user).map_err(|error| {
                    let text = format!("cannot show '{}' to the machine", path.display());
                    files::system(text, &error).from(Origin::Security)
                })?;
            }
        }
        Ok(())
    }

    /// Takes files away again that no device needs any more.
    pub fn close_live(&mut self, process: BorrowedFd<'_>, needs: &[Need]) {
        for need in needs {
            if let Need::File { path, .. } = need {
                if self.layers.root {
                    live::hide(process, path);
                }
                self.record.revoke(path);
            }
        }
    }

    /// Where a socket that the machine makes really lies: its name in the host's view is a link.
    pub fn inside(&self, path: &Path) -> PathBuf {
        if path.starts_with(&self.own) {
            return path.to_owned();
        }
        // Names of sockets are short.
        self.own.join(format!("{:08x}.sock", users::hash(&path.to_string_lossy()) as u32))
    }

    /// The command that becomes the emulator.
    pub fn command(&self, arguments: &[String]) -> Command {
        let plan = launch::Plan {
            user: self.user,
            layers: self.layers,
            own: self.own.clone(),
            group: self.group.clone(),
            emulator: self.emulator.clone(),
            programs: self.programs.clone(),
            files: self.record.view(),
        };
        let mut command = launch::command(&plan.to_json());
        command.arg(&self.emulator).args(arguments).env("TMPDIR", &self.own);
        command
    }
}
