//! Disks served to others over NBD while the machine uses them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use block::nbd::server::{Export, serve_any};
use parking_lot::Mutex;

type Result<T> = std::result::Result<T, String>;

/// How often the thread that waits for clients looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// More clients at once are turned away.
const CLIENTS_MAX: usize = 100;

/// The server and what it serves.
#[derive(Default)]
pub struct Exports {
    server: Mutex<Option<Server>>,
    list: Arc<Mutex<BTreeMap<String, Served>>>,
}

/// An export by its identifier.
#[derive(Clone)]
pub struct Served {
    /// What clients see.
    pub export: Arc<Export>,
    /// The node's name.
    pub node_name: String,
}

struct Server {
    ending: Arc<AtomicBool>,
    clients: Arc<Mutex<Vec<Client>>>,
    path: Option<PathBuf>,
}

enum Client {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Client {
    fn end(&self) {
        // One that has gone by itself is just as well.
        _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

/// Where clients knock.
pub enum Door {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

impl Exports {
    /// Opens the door.
    pub fn start(&self, door: Door) -> Result<()> {
        let mut server = self.server.lock();
        if server.is_some() {
            return Err("NBD server already running".to_owned());
        }
        let blocking = match &door {
            Door::Unix(listener, _) => listener.set_nonblocking(true),
            Door::Tcp(listener) => listener.set_nonblocking(true),
        };
        blocking.map_err(|error| error.to_string())?;
        let path = if let Door::Unix(_, path) = &door { Some(path.clone()) } else { None };
        let ending = Arc::new(AtomicBool::new(false));
        let clients = Arc::new(Mutex::new(Vec::new()));
        let (list, ended, known) =
            (Arc::clone(&self.list), Arc::clone(&ending), Arc::clone(&clients));
        thread::spawn(move || wait_for_clients(&door, &list, &ended, &known));
        *server = Some(Server { ending, clients, path });
        Ok(())
    }

    /// Whether clients can come.
    pub fn is_running(&self) -> bool {
        self.server.lock().is_some()
    }

    /// Shuts the door and sends all clients away. The exports that were there.
    pub fn stop(&self) -> Result<Vec<String>> {
        let server = self.server.lock().take().ok_or("NBD server not running")?;
        server.ending.store(true, Ordering::Release);
        server.clients.lock().iter().for_each(Client::end);
        if let Some(path) = server.path {
            _ = std::fs::remove_file(path); // somebody else may have tidied up
        }
        let gone = std::mem::take(&mut *self.list.lock());
        for served in gone.values() {
            served.export.node.flush().map_err(|error| error.to_string())?;
        }
        Ok(gone.into_keys().collect())
    }

    /// Serves one more.
    pub fn add(&self, id: &str, served: Served) -> Result<()> {
        if !self.is_running() {
            return Err("NBD server not running".to_owned());
        }
        let mut list = self.list.lock();
        if list.contains_key(id) {
            return Err(format!("Block export id '{id}' is already in use"));
        }
        let name = &served.export.name;
        if list.values().any(|other| other.export.name == *name) {
            return Err(format!("NBD server already has export named '{name}'"));
        }
        list.insert(id.to_owned(), served);
        Ok(())
    }

    /// Serves it no more to new clients.
    pub fn remove(&self, id: &str) -> Result<()> {
        let gone = self.list.lock().remove(id);
        let gone = gone.ok_or_else(|| format!("Export '{id}' is not found"))?;
        gone.export.node.flush().map_err(|error| error.to_string())
    }

    /// All of them.
    pub fn list(&self) -> Vec<(String, Served)> {
        self.list.lock().iter().map(|(id, served)| (id.clone(), served.clone())).collect()
    }
}

fn wait_for_clients(
    door: &Door,
    list: &Arc<Mutex<BTreeMap<String, Served>>>,
    ending: &AtomicBool,
    clients: &Arc<Mutex<Vec<Client>>>,
) {
    while !ending.load(Ordering::Acquire) {
        let accepted = match door {
            Door::Unix(listener, _) => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(false)?;
                let known = Client::Unix(stream.try_clone()?);
                Ok((Box::new(stream) as Box<dyn block::nbd::Stream>, known))
            }),
            Door::Tcp(listener) => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                let known = Client::Tcp(stream.try_clone()?);
                Ok((Box::new(stream) as Box<dyn block::nbd::Stream>, known))
            }),
        };
        let (mut stream, known) = match accepted {
            Ok(client) => client,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(LOOK);
                continue;
            }
            Err(_) => continue, // the client has gone again
        };
        if clients.lock().len() >= CLIENTS_MAX {
            known.end();
            continue;
        }
        clients.lock().push(known);
        let list = Arc::clone(list);
        thread::spawn(move || {
            let exports = || -> Vec<Arc<Export>> {
                list.lock().values().map(|served| Arc::clone(&served.export)).collect()
            };
            // A client that breaks the rules is sent away; nobody else need know.
            _ = serve_any(&mut *stream, &exports);
        });
    }
}
