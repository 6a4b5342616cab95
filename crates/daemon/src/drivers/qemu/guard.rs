//! A machine's confinement, as the parts of this driver use it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use libvirt_compat::Result;
use libvirt_compat::xml::Element;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, open};
use spec::device::{Backend, Device, Kind};

use crate::confine::{self, Cell, Confinement, Need, Place};

/// The confinement of one machine, if it has one.
pub struct Guard {
    confinement: Arc<Confinement>,
    /// A leaf.
    cell: Mutex<Option<Cell>>,
}

impl Guard {
    /// Prepares a start.
    pub fn new(
        confinement: &Arc<Confinement>,
        document: &mut Element,
        place: &Place<'_>,
    ) -> Result<Self> {
        let cell = confinement.prepare(document, place)?;
        Ok(Self { confinement: Arc::clone(confinement), cell: Mutex::new(cell) })
    }

    /// Takes over what an earlier daemon has prepared.
    pub fn adopt(confinement: &Arc<Confinement>, uuid: &str, runtime: &Path) -> Self {
        let cell = Mutex::new(confinement.adopt(uuid, runtime));
        Self { confinement: Arc::clone(confinement), cell }
    }

    /// Undoes everything: the machine is gone.
    pub fn release(&self) {
        if let Some(cell) = self.cell.lock().take() {
            self.confinement.release(&cell);
        }
    }

    /// The folder that the machine writes into, when it may not write everywhere.
    pub fn own_folder(&self) -> Option<PathBuf> {
        self.cell.lock().as_ref().map(|cell| cell.own_folder().to_owned())
    }

    /// Has sockets made where the machine may make them.
    pub fn move_sockets(&self, devices: &mut [Device]) {
        let cell = self.cell.lock();
        let Some(cell) = &*cell else { return };
        let inside = |path: &str| cell.inside(Path::new(path)).display().to_string();
        for device in devices {
            match &mut device.kind {
                Kind::Serial { backend, .. } | Kind::Channel { backend, .. } => {
                    if let Backend::Socket { path, listen: true } = backend {
                        *path = inside(path);
                    }
                }
                Kind::Vnc(screen) => {
                    screen.socket = screen.socket.take().map(|path| inside(&path));
                }
                _ => {}
            }
        }
    }

    /// What becomes the emulator.
    pub fn command(&self, emulator: &Path, arguments: &[String]) -> Command {
        if let Some(cell) = &*self.cell.lock() {
            return cell.command(arguments);
        }
        let mut command = Command::new(emulator);
        command.args(arguments);
        command
    }

    /// Opens the files of a device to the machine, which runs.
    pub fn open_device(&self, process: BorrowedFd<'_>, device: &Element) -> Result<()> {
        if self.cell.lock().is_none() {
            return Ok(());
        }
        self.open(process, &confine::of_device(device)?)
    }

    /// Opens a file to the machine, which runs.
    pub fn open_file(&self, process: BorrowedFd<'_>, path: &Path, writable: bool) -> Result<()> {
        self.open(process, &[Need::File { path: path.to_owned(), writable }])
    }

    /// Gives a socket that the machine is to make its name; answers where it makes it.
    pub fn open_socket(&self, process: BorrowedFd<'_>, path: &Path) -> Result<PathBuf> {
        self.open(process, &[Need::Listens { path: path.to_owned() }])?;
        let cell = self.cell.lock();
        Ok(cell.as_ref().map_or_else(|| path.to_owned(), |cell| cell.inside(path)))
    }

    fn open(&self, process: BorrowedFd<'_>, needs: &[Need]) -> Result<()> {
        match &mut *self.cell.lock() {
            Some(cell) => cell.open_live(process, needs),
            None => Ok(()),
        }
    }

    /// Closes the files of a device that is gone, but for those that other devices use.
    pub fn close_device(&self, process: BorrowedFd<'_>, domain: &Element, device: &Element) {
        let mut cell = self.cell.lock();
        let Some(cell) = &mut *cell else { return };
        let Ok(mut needs) = confine::of_device(device) else { return };
        let others = domain.child("devices").into_iter().flat_map(Element::elements);
        for other in others.filter(|other| !is_same(other, device)) {
            let used = confine::of_device(other).unwrap_or_default();
            needs.retain(|need| !used.iter().any(|other| other.path() == need.path()));
        }
        cell.close_live(process, &needs);
    }

    /// Connects to a socket that the machine has made. It could have put a link there to a socket
    /// of somebody else's, with whom the daemon would then speak in the machine's stead.
    pub fn connect(&self, path: &Path) -> io::Result<UnixStream> {
        let inside = match &*self.cell.lock() {
            Some(cell) => cell.inside(path),
            None => return UnixStream::connect(path),
        };
        if std::fs::symlink_metadata(&inside).is_err() {
            return UnixStream::connect(path); // one that the machine connects to itself
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let socket = open(&inside, flags, Mode::empty())?;
        UnixStream::connect(format!("/proc/self/fd/{}", socket.as_fd().as_raw_fd()))
    }
}

fn is_same(one: &Element, other: &Element) -> bool {
    one.attribute_at("alias", "name") == other.attribute_at("alias", "name")
}

/// Opens a file that a machine has written: no link, nothing that would block.
pub fn open_written(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidData.into()) }
}
