//! Sockets and connections: one thread each.

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, thread};

use block::nbd::server::{Export, serve};
use nix::sys::signal::{SigSet, Signal};
use parking_lot::{Condvar, Mutex};
use qemu_compat::image_tool::arguments::Typed;

const PORT: u16 = 10809;

/// How many clients, and for how long.
pub struct Sharing {
    /// Clients at once; 0 is any number.
    pub at_once: usize,
    /// The server stays when the last client has gone.
    pub persistent: bool,
}

/// Where clients knock.
pub enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

enum Client {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Clients that are being served, and whether there ever was one.
#[derive(Default)]
struct Counts {
    now: usize,
}

impl Listener {
    pub fn new(typed: &Typed) -> Result<Self, String> {
        if let Some(path) = typed.value("socket") {
            let path = PathBuf::from(path);
            // A socket that nobody answers is left over from a server that ended badly.
            if path.exists() && UnixStream::connect(&path).is_err() {
                _ = fs::remove_file(&path);
            }
            let listener = UnixListener::bind(&path).map_err(|error| {
                format!("Failed to bind socket to {}: {}", path.display(), plain(&error))
            })?;
            return Ok(Self::Unix(listener, path));
        }
        let port: u16 = match typed.value("port") {
            None => PORT,
            Some(text) => text.parse().map_err(|_| format!("Invalid port '{text}'"))?,
        };
        let host = typed.value("bind").unwrap_or("0.0.0.0");
        let listener = TcpListener::bind((host, port)).map_err(|error| {
            format!("Failed to find an available port on {host}:{port}: {}", plain(&error))
        })?;
        Ok(Self::Tcp(listener))
    }

    fn accept(&self) -> std::io::Result<Client> {
        match self {
            Self::Unix(listener, _) => listener.accept().map(|(stream, _)| Client::Unix(stream)),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok(Client::Tcp(stream))
            }
        }
    }

    /// Serves clients until the last one has gone, or for ever.
    pub fn serve(self, export: &Arc<Export>, sharing: &Sharing) -> Result<(), String> {
        let counts = Arc::new((Mutex::new(Counts::default()), Condvar::new()));
        let listener = Arc::new(self);
        let at_once = sharing.at_once;
        listener.end_on_signal(export);
        let acceptor = {
            let (listener, counts, export) = (listener.clone(), counts.clone(), export.clone());
            move || {
                loop {
                    {
                        let (lock, gone) = &*counts;
                        let mut counts = lock.lock();
                        while at_once != 0 && counts.now >= at_once {
                            gone.wait(&mut counts);
                        }
                    }
                    let Ok(client) = listener.accept() else { continue };
                    counts.0.lock().now += 1;
                    let (counts, export) = (counts.clone(), export.clone());
                    thread::spawn(move || {
                        talk(client, &export);
                        counts.0.lock().now -= 1;
                        counts.1.notify_all();
                    });
                }
            }
        };
        if sharing.persistent {
            acceptor();
            return Ok(());
        }
        thread::spawn(acceptor);
        let (lock, gone) = &*counts;
        let mut guard = lock.lock();
        loop {
            gone.wait(&mut guard);
            if guard.now == 0 {
                break;
            }
        }
        drop(guard);
        listener.end(export)
    }

    /// Leaves things tidy: other threads hold handles until this process ends.
    fn end(&self, export: &Export) -> Result<(), String> {
        if let Self::Unix(_, path) = self {
            _ = fs::remove_file(path); // somebody else may have tidied up
        }
        export.node.finish().map_err(|error| error.to_string())
    }

    /// Ends the process in order when it is asked to by a signal.
    fn end_on_signal(self: &Arc<Self>, export: &Arc<Export>) {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            signals.add(signal);
        }
        // Threads made from here on inherit the mask, so that only the waiting one hears.
        if signals.thread_block().is_err() {
            return;
        }
        let (listener, export) = (self.clone(), export.clone());
        thread::spawn(move || {
            if signals.wait().is_ok() {
                let ended = listener.end(&export);
                std::process::exit(i32::from(ended.is_err()));
            }
        });
    }
}

fn talk(client: Client, export: &Export) {
    let outcome = match client {
        Client::Unix(mut stream) => serve(&mut stream, export),
        Client::Tcp(mut stream) => serve(&mut stream, export),
    };
    if let Err(error) = outcome {
        eprintln!("qemu-nbd: Disconnect client, due to: {error}");
    }
}

fn plain(error: &std::io::Error) -> String {
    error.to_string().split(" (os").next().unwrap_or_default().to_string()
}
