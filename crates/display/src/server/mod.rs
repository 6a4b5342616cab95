//! The RFB server.
//!
//! A thread accepts, one looks at the screen while somebody wants to see it, and each client has
//! two: one reads and one encodes and writes. Nobody looking means no thread runs.
//!
//! Lock order: the list of clients, a client's state, the screen. None is held while a socket, the
//! surface's owner or the watcher is called, but for the screen's, which is held over
//! [`Surface::refresh`].

mod abilities;
mod client;
mod clipboard;
mod sound;
mod update;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::secure::Credentials;
pub use crate::socket::{Address, Listener, Socket};
use crate::sound::Ears;
use crate::surface::{Frame, InputSink, Pointer, Surface};
use client::Client;

/// The shortest time between two looks at the screen: sixty a second.
const PACE_MIN: Duration = Duration::from_millis(16);
/// The longest, when nothing happens.
const PACE_MAX: Duration = Duration::from_millis(200);
/// More clients than this are turned away.
const CLIENTS_MAX: usize = 32;

/// What becomes of clients that do not want to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// They get the screen for themselves, and keep it.
    AllowExclusive,
    /// They are turned away.
    ForceShared,
    /// What they want is not looked at.
    Ignore,
}

/// What a server is like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What clients call the desktop.
    pub name: String,
    /// Clients need a password.
    pub password: bool,
    /// Who may come beside whom.
    pub sharing: Sharing,
    /// Photographs may lose detail for clients that say so.
    pub lossy: bool,
}

/// A client, for lists and events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Who it is.
    pub peer: Address,
    /// Where it came in.
    pub server: Address,
    /// Over a WebSocket.
    pub websocket: bool,
}

/// What befalls a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// It is there.
    Connected,
    /// It is in.
    Initialized,
    /// It has gone.
    Disconnected,
}

/// Is told of clients that come and go. Called from the server's threads.
pub trait Watcher: Send + Sync {
    /// Something has happened.
    fn client(&self, event: ClientEvent, info: &ClientInfo);
}

#[derive(Default)]
struct Password {
    text: Option<String>,
    expires: Option<SystemTime>,
}

/// What all clients see.
#[derive(Default)]
struct Screen {
    frame: Frame,
    pointer: Option<Arc<Pointer>>,
    lights: Option<u8>,
    is_absolute: bool,
}

struct Shared {
    settings: Settings,
    surface: Arc<dyn Surface>,
    sink: Arc<dyn InputSink>,
    watcher: Arc<dyn Watcher>,
    password: Mutex<Password>,
    /// Nothing but the handshake's beginning passes without TLS.
    credentials: Mutex<Option<Credentials>>,
    /// What was cut last, by whomever.
    clipboard: Mutex<Option<Arc<str>>>,
    /// Where the sound is that clients may hear.
    ears: OnceLock<Arc<dyn Ears>>,
    clients: Mutex<Vec<Arc<Client>>>,
    screen: Mutex<Screen>,
    /// Somebody is waiting for a change.
    is_wanted: Mutex<bool>,
    wanted: Condvar,
    quits: AtomicBool,
}

/// A server, for as long as this is held.
pub struct Server {
    shared: Arc<Shared>,
    wake: Arc<OwnedFd>,
    addresses: Vec<(Address, bool)>,
}

impl Server {
    /// Starts to serve on sockets that listen; true beside those that speak WebSocket.
    pub fn start(
        settings: Settings,
        credentials: Option<Credentials>,
        surface: Arc<dyn Surface>,
        sink: Arc<dyn InputSink>,
        watcher: Arc<dyn Watcher>,
        listeners: Vec<(Listener, bool)>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            settings,
            surface,
            sink,
            watcher,
            password: Mutex::default(),
            credentials: Mutex::new(credentials),
            clipboard: Mutex::default(),
            ears: OnceLock::new(),
            clients: Mutex::default(),
            screen: Mutex::default(),
            is_wanted: Mutex::default(),
            wanted: Condvar::new(),
            quits: AtomicBool::new(false),
        });
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let addresses = listeners.iter().map(|(listener, web)| (listener.address(), *web));
        let server = Self {
            addresses: addresses.collect(),
            shared: Arc::clone(&shared),
            wake: Arc::clone(&wake),
        };
        let looking = Arc::clone(&shared);
        thread::Builder::new().name("vnc-screen".to_owned()).spawn(move || looking.look())?;
        let accepting = move || shared.accept(&listeners, &wake);
        thread::Builder::new().name("vnc-accept".to_owned()).spawn(accepting)?;
        Ok(server)
    }

    /// Where it listens; true beside WebSockets.
    #[must_use]
    pub fn addresses(&self) -> &[(Address, bool)] {
        &self.addresses
    }

    /// What it is like.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Sets the password; none keeps everybody out.
    pub fn set_password(&self, text: Option<&str>) {
        self.shared.password.lock().text = text.map(str::to_owned);
    }

    /// Clients that come from now on may hear this. It stays as it is once it is set.
    pub fn set_sound(&self, ears: Arc<dyn Ears>) {
        _ = self.shared.ears.set(ears);
    }

    /// Other credentials, for clients that come from now on.
    pub fn set_credentials(&self, credentials: Credentials) {
        *self.shared.credentials.lock() = Some(credentials);
    }

    /// Whether clients need TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.shared.credentials.lock().is_some()
    }

    /// Until when the password holds.
    pub fn set_expiry(&self, expires: Option<SystemTime>) {
        self.shared.password.lock().expires = expires;
    }

    /// Who is there.
    #[must_use]
    pub fn clients(&self) -> Vec<ClientInfo> {
        self.shared.clients.lock().iter().map(|client| client.info.clone()).collect()
    }

    /// Sends everybody away.
    pub fn disconnect_all(&self) {
        self.shared.clients.lock().iter().for_each(|client| client.socket.close());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.quits.store(true, Ordering::SeqCst);
        self.shared.want();
        _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        self.disconnect_all();
    }
}

impl Shared {
    fn quits(&self) -> bool {
        self.quits.load(Ordering::SeqCst)
    }

    fn accept(self: &Arc<Self>, listeners: &[(Listener, bool)], wake: &OwnedFd) {
        while !self.quits() {
            let mut polled = vec![PollFd::new(wake, PollFlags::IN)];
            polled.extend(listeners.iter().map(|(one, _)| PollFd::new(one, PollFlags::IN)));
            if poll(&mut polled, None).is_err() {
                continue; // interrupted
            }
            let is_ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            for ((listener, websocket), _) in
                listeners.iter().zip(&is_ready[1..]).filter(|(_, ready)| **ready)
            {
                match listener.accept() {
                    Ok(socket) => self.welcome(socket, listener.address(), *websocket),
                    // Out of descriptors, perhaps: the next try must not follow at once.
                    Err(_) => thread::sleep(PACE_MAX),
                }
            }
        }
    }

    fn welcome(self: &Arc<Self>, socket: Socket, server: Address, websocket: bool) {
        let mut clients = self.clients.lock();
        if clients.len() >= CLIENTS_MAX || self.quits() {
            return socket.close();
        }
        let info = ClientInfo { peer: socket.peer(), server, websocket };
        let client = Arc::new(Client::new(socket, info));
        clients.push(Arc::clone(&client));
        drop(clients);
        let (shared, ours) = (Arc::clone(self), Arc::clone(&client));
        let serve = move || client::serve(&shared, &ours);
        let started = thread::Builder::new().name("vnc-client".to_owned()).spawn(serve);
        if started.is_err() {
            client.socket.close();
            self.forget(&client);
        }
    }

    fn forget(&self, client: &Arc<Client>) {
        self.clients.lock().retain(|known| !Arc::ptr_eq(known, client));
    }

    /// Somebody waits for a change, or has done what may bring one.
    fn want(&self) {
        *self.is_wanted.lock() = true;
        self.wanted.notify_all();
    }

    /// The thread that looks at the screen.
    fn look(&self) {
        let mut pace = PACE_MIN;
        loop {
            let mut is_wanted = self.is_wanted.lock();
            while !*is_wanted && !self.quits() {
                self.wanted.wait(&mut is_wanted);
            }
            *is_wanted = false;
            drop(is_wanted);
            if self.quits() {
                return;
            }
            let has_changed = self.refresh();
            thread::sleep(PACE_MIN);
            // While nothing changes the next look may wait, but not when somebody types.
            pace = if has_changed { PACE_MIN } else { (pace * 2).min(PACE_MAX) };
            let waits = self.clients.lock().iter().any(|client| client.waits());
            let mut is_wanted = self.is_wanted.lock();
            if waits && !*is_wanted {
                if pace > PACE_MIN {
                    let woken = !self.wanted.wait_for(&mut is_wanted, pace - PACE_MIN).timed_out();
                    pace = if woken { PACE_MIN } else { pace };
                }
                *is_wanted = true;
            }
        }
    }

    /// Looks at the screen once and tells the clients what has changed.
    fn refresh(&self) -> bool {
        let mut screen = self.screen.lock();
        let before = (screen.frame.width, screen.frame.height);
        let changed = self.surface.refresh(&mut screen.frame, false);
        let resized = before != (screen.frame.width, screen.frame.height);
        let pointer = self.surface.pointer();
        let lights = self.sink.lights();
        let is_absolute = self.sink.is_absolute();
        let same_pointer = pointer == screen.pointer;
        let same = (same_pointer, lights == screen.lights, is_absolute == screen.is_absolute);
        (screen.pointer, screen.lights, screen.is_absolute) = (pointer, lights, is_absolute);
        drop(screen);
        let has_news = same != (true, true, true) || resized;
        if changed.is_empty() && !has_news {
            return false;
        }
        for client in self.clients.lock().iter() {
            client.tell(&changed, same, resized);
        }
        true
    }

    /// Whether an answer to a challenge is that of the password of now.
    fn verdict(&self, challenge: &[u8; crate::codec::CHALLENGE_BYTES], answer: &[u8]) -> bool {
        let password = self.password.lock();
        let Some(text) = &password.text else { return false };
        if password.expires.is_some_and(|expires| expires <= SystemTime::now()) {
            return false;
        }
        let right = crate::codec::response(text.as_bytes(), challenge);
        // All bytes are looked at, so the time says nothing.
        right.iter().zip(answer).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }

    /// Whether a client may come in, and who has to go for it.
    fn share(&self, newcomer: &Arc<Client>, shared: bool) -> bool {
        let clients = self.clients.lock();
        let others =
            || clients.iter().filter(|other| !Arc::ptr_eq(other, newcomer) && other.is_in());
        match (self.settings.sharing, shared) {
            (Sharing::Ignore, _) => {}
            (Sharing::ForceShared, false) => return false,
            (Sharing::AllowExclusive, false) => {
                newcomer.make_exclusive();
                others().for_each(|other| other.socket.close());
            }
            (_, true) => return !others().any(|other| other.is_exclusive()),
        }
        true
    }
}

#[cfg(test)]
mod tests;
