//! The sockets that clients find.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use libvirt_compat::Error;
use rustix::io::FdFlags;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::connection::{self, Socket};
use super::{Shared, tls};
use crate::files::{make_private_directory, system};
use crate::options::{Mode, Serve};
use crate::paths::Paths;

/// Clients connected at once; libvirt's own default.
const CLIENTS_MAX: usize = 5000;

/// A client that does not agree in time is no client.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// The sockets are somebody else's, who goes on listening when we leave.
    inherited: bool,
    tcp: Option<TcpListener>,
    tls: Option<(TcpListener, TlsAcceptor)>,
}

impl Listeners {
    /// Makes the sockets. One that another daemon serves is not taken from it.
    pub async fn open(options: &Serve, paths: &Paths) -> Result<Self, Error> {
        make_private_directory(&paths.sockets)?;
        let mut names = vec!["libvirt"];
        if options.modular {
            names.extend(MODULAR);
        }
        let mut unix = inherited()?;
        let inherited = !unix.is_empty();
        for name in names.into_iter().filter(|_| !inherited) {
            unix.push(bind(&paths.sockets, &format!("{name}-sock"), false, options.mode).await?);
            if options.mode == Mode::System {
                let name = format!("{name}-sock-ro");
                unix.push(bind(&paths.sockets, &name, true, options.mode).await?);
            }
        }
        let tcp = match &options.listen {
            None => None,
            Some(address) => Some(listen(address).await?),
        };
        let tls = match &options.listen_tls {
            None => None,
            Some(address) => {
                let acceptor = tls::acceptor(options.pki_dir.as_deref())?;
                Some((listen(address).await?, acceptor))
            }
        };
        Ok(Self { unix, inherited, tcp, tls })
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
        let tls = async {
            let Some((listener, acceptor)) = &self.tls else {
                return std::future::pending().await;
            };
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    rest().await;
                    continue;
                };
                _ = stream.set_nodelay(true);
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    let agreed =
                        tokio::time::timeout(HANDSHAKE_TIMEOUT, tls::accept(&acceptor, stream));
                    if let Ok(Some(stream)) = agreed.await {
                        _ = sender.send((Socket::Tls(Box::new(stream)), false)).await;
                    }
                });
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
            () = tls => {}
            () = serve => {}
        }
    }

    /// Removes the sockets' files.
    pub fn close(&self) {
        for (_, _, path) in self.unix.iter().filter(|_| !self.inherited) {
            _ = fs::remove_file(path);
        }
    }
}

/// The sockets that systemd, or who does as it does, has opened for us.
fn inherited() -> Result<Vec<(Arc<UnixListener>, bool, PathBuf)>, Error> {
    let failed = |error| system("Cannot use an inherited socket", &error);
    let mut list = Vec::new();
    for descriptor in linux::inherited::sockets() {
        rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        let listener = StdListener::from(descriptor);
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let path = address.as_pathname().map(Path::to_path_buf).unwrap_or_default();
        let readonly = path.to_string_lossy().ends_with("-sock-ro");
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        list.push((Arc::new(listener), readonly, path));
    }
    Ok(list)
}

async fn listen(address: &str) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| system(format!("Unable to bind to '{address}'"), &error))
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
