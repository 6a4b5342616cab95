//! Sockets between guest and host. Virtio 1.3, 5.10.
//!
//! `-device vhost-vsock-pci,guest-cid=3,path=/run/vm.sock`
//!
//! In process, with unix sockets on the host's side, so that no kernel module and no privilege is
//! needed. A program of the host connects to the path, says `CONNECT PORT` and a line end, and reads
//! `OK` and a number when the guest has accepted. A program of the guest that connects to a port of
//! the host (context 2) reaches the unix socket `PATH_PORT`.

mod connection;
mod hub;
mod packet;
#[cfg(test)]
mod tests;

use device::{Fields, StateError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::device::{Driver, Kind, VirtioDevice};
use hub::{Hub, LISTENER, WAKE};

/// The smallest context of a guest; the largest is one below all ones.
pub const GUEST_CONTEXT_MIN: u64 = 3;
const QUEUE_SIZE: u16 = 128;
/// Events that are taken from the kernel at a time.
const EVENTS_MAX: usize = 64;
/// How long programs of the host wait when the system has no descriptor for them.
const EXHAUSTED_WAIT: Duration = Duration::from_millis(50);

/// Why there can be no such device.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// Somebody is there.
    #[error("The socket '{path}' is in use by another program")]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// The path is somebody else's.
    #[error("'{path}' is in the way: it is no socket")]
    NoSocket {
        /// Where.
        path: PathBuf,
    },
    /// The system refused.
    #[error("Cannot listen on the socket '{path}'")]
    Listen {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The device, with a thread that waits for the host's sockets.
pub struct Vsock {
    context: u64,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    listener: UnixListener,
    epoll: OwnedFd,
    wake: OwnedFd,
    hub: Mutex<Hub>,
}

impl Vsock {
    /// A device of the guest with this context, for programs that connect to `path`.
    pub fn new(context: u64, path: &Path) -> Result<Arc<Self>, VsockError> {
        let fails = |source: io::Error| VsockError::Listen { path: path.to_owned(), source };
        clear(path)?;
        let listener = UnixListener::bind(path).map_err(fails)?;
        let made = Self::connect(context, path, listener);
        made.map(Arc::new).map_err(|source| {
            _ = std::fs::remove_file(path); // it was made just now
            fails(source)
        })
    }

    fn connect(context: u64, path: &Path, listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        let hub = Mutex::new(Hub::new(context, path, epoll.try_clone()?));
        let path = path.to_owned();
        let shared = Arc::new(Shared { path, listener, epoll, wake, hub });
        let thread = thread::Builder::new().name("virtio-vsock".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        })?;
        Ok(Self { context, shared, thread: Some(thread) })
    }
}

/// Makes place for a socket: takes away one that nobody listens on any more.
fn clear(path: &Path) -> Result<(), VsockError> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(VsockError::NoSocket { path: path.to_owned() });
    }
    if UnixStream::connect(path).is_ok() {
        return Err(VsockError::InUse { path: path.to_owned() });
    }
    let remove = std::fs::remove_file(path);
    remove.map_err(|source| VsockError::Listen { path: path.to_owned(), source })
}

impl Shared {
    fn run(&self) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                // Without events there are no connections; nothing else depends on this thread.
                Err(_) => return,
            }
            let mut exhausted = false;
            let mut hub = self.hub.lock();
            for event in &events {
                match event.data.u64() {
                    LISTENER => exhausted |= !self.accept(&mut hub),
                    WAKE if hub.quits => return,
                    WAKE => {}
                    id => hub.ready(id, event.flags),
                }
            }
            hub.pump();
            drop(hub);
            if exhausted {
                thread::sleep(EXHAUSTED_WAIT);
            }
        }
    }

    /// Takes a program that has connected; the listener stays ready while there are more. False
    /// when the system has no descriptor left.
    fn accept(&self, hub: &mut Hub) -> bool {
        match self.listener.accept() {
            Ok((socket, _)) if socket.set_nonblocking(true).is_ok() => hub.greet(socket),
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
        true
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        self.shared.hub.lock().quits = true;
        // A counter that is full is as good.
        _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
        _ = std::fs::remove_file(&self.shared.path);
    }
}

impl VirtioDevice for Vsock {
    fn kind(&self) -> Kind {
        Kind::Vsock
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 3]
    }

    fn config(&self) -> Vec<u8> {
        self.context.to_le_bytes().to_vec()
    }

    fn activate(&self, driver: Driver) {
        let mut hub = self.shared.hub.lock();
        hub.driver = Some(driver);
        hub.pump();
    }

    fn reset(&self) {
        self.shared.hub.lock().reset();
    }

    fn notify(&self, _queue: u16) {
        self.shared.hub.lock().pump();
    }

    fn set_running(&self, running: bool) {
        let mut hub = self.shared.hub.lock();
        hub.paused = !running;
        hub.pump();
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        _ = fields; // connections end: their other ends are in another process
        if fields.is_loading() {
            self.shared.hub.lock().ends_all = true;
        }
        Ok(())
    }
}
