//! The sockets that clients find.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use libvirt_compat::Error;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Shared;
use super::connection::{self, Socket};
use crate::files::{make_private_directory, system};
use crate::options::{Mode, Serve};
use crate::paths::Paths;

/// Clients connected at once; libvirt's own default.
const CLIENTS_MAX: usize = 5000;

/// The names of libvirt's modular daemons.
const MODULAR: [&str; 7] = [
    "virtqemud",
    "virtnetworkd",
    "virtstoraged",
    "virtnodedevd",
    "virtsecretd",
    "virtinterfaced",
    "virtnwfilterd",
];

/// The open sockets.
pub struct Listeners {
    unix: Vec<(Arc<UnixListener>, bool, PathBuf)>,
    tcp: Option<TcpListener>,
}

impl Listeners {
    /// Makes the sockets. One that another daemon serves is not taken from it.
    pub async fn open(options: &Serve, paths: &Paths) -> Result<Self, Error> {
        make_private_directory(&paths.sockets)?;
        let mut names = vec!["libvirt"];
        if options.modular {
            names.extend(MODULAR);
        }
        let mut unix = Vec::new();
        for name in names {
            unix.push(bind(&paths.sockets, &format!("{name}-sock"), false, options.mode).await?);
            if options.mode == Mode::System {
                let name = format!("{name}-sock-ro");
                unix.push(bind(&paths.sockets, &name, true, options.mode).await?);
            }
        }
        let tcp = match &options.listen {
            None => None,
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|e| system(format!("Unable to bind to '{address}'"), &e))?)
            }
        };
        Ok(Self { unix, tcp })
    }

    /// Takes clients until the future is dropped.
    pub async fn accept_forever(&self, shared: &Arc<Shared>) {
        let (sender, mut accepted) = mpsc::channel::<(Socket, bool)>(64);
        let mut unix = JoinSet::new();
        for (listener, readonly, _) in &self.unix {
            unix.spawn(accept(Arc::clone(listener), *readonly, sender.clone()));
        }
        let tcp = async {
            let Some(listener) = &self.tcp else { return std::future::pending().await };
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    rest().await;
                    continue;
                };
                _ = stream.set_nodelay(true);
                _ = sender.send((Socket::Tcp(stream), false)).await;
            }
        };
        let serve = async {
            while let Some((socket, readonly)) = accepted.recv().await {
                if shared.clients.load(Ordering::Relaxed) >= CLIENTS_MAX {
                    continue;
                }
                let counted = Counted::new(shared);
                tokio::spawn(async move {
                    connection::serve(socket, readonly, &counted.0).await;
                });
            }
        };
        tokio::select! {
            _ = unix.join_next(), if !unix.is_empty() => {}
            () = tcp => {}
            () = serve => {}
        }
    }

    /// Removes the sockets' files.
    pub fn close(&self) {
        for (_, _, path) in &self.unix {
            _ = fs::remove_file(path);
        }
    }
}

/// A client that is counted for as long as this lives, however its connection ends.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.clients.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn accept(
    listener: Arc<UnixListener>,
    readonly: bool,
    accepted: mpsc::Sender<(Socket, bool)>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => _ = accepted.send((Socket::Unix(stream), readonly)).await,
            Err(_) => rest().await,
        }
    }
}

/// Accepting fails when descriptors run out; trying again at once would spin.
async fn rest() {
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
}

async fn bind(
    directory: &Path,
    name: &str,
    readonly: bool,
    mode: Mode,
) -> Result<(Arc<UnixListener>, bool, PathBuf), Error> {
    let path = directory.join(name);
    if UnixStream::connect(&path).await.is_ok() {
        let doing = format!("Failed to bind socket to '{}'", path.display());
        let in_use = io::Error::from_raw_os_error(rustix::io::Errno::ADDRINUSE.raw_os_error());
        return Err(system(doing, &in_use));
    }
    _ = fs::remove_file(&path);
    let failed = |error| system(format!("Failed to bind socket to '{}'", path.display()), &error);
    let listener = UnixListener::bind(&path).map_err(failed)?;
    // In system mode the read-only socket is for everyone.
    let permissions = if readonly && mode == Mode::System { 0o666 } else { 0o600 };
    fs::set_permissions(&path, Permissions::from_mode(permissions)).map_err(failed)?;
    Ok((Arc::new(listener), readonly, path))
}
