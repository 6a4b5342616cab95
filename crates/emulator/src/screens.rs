//! The machine's screens and inputs as VNC servers see them, and the servers.

use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Weak};
use std::{fs, io};

use anyhow::{Context, Result, anyhow, bail};
use display::server::{Address, ClientEvent, ClientInfo, Listener, Server, Settings, Watcher};
use display::surface::{Frame, InputSink, Motion, Pointer, PointerInput, Rect, Surface};
use machine::{Axis, Button, InputEvent, Inputs, Machine, Picture, Screen, Screens};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::audio::Audio;
use crate::monitor::Monitors;
use crate::options::{Asked, Options, Place, VncOption};

/// The size of a screen that is not there.
const NO_SCREEN: (u32, u32) = (640, 480);

/// The servers of a machine.
#[derive(Default)]
pub struct Vnc(Vec<Named>);

/// A server and what it is called.
pub struct Named {
    pub id: String,
    pub server: Server,
    /// The name of what proves it.
    pub credentials: Option<String>,
    /// Socket files, which go with it.
    paths: Vec<String>,
}

impl Drop for Named {
    fn drop(&mut self) {
        for path in &self.paths {
            _ = fs::remove_file(path);
        }
    }
}

impl Vnc {
    /// Starts those that the command line asks for.
    pub fn start(
        options: &Options,
        machine: &Machine,
        monitors: &Arc<Monitors>,
        audio: &Audio,
    ) -> Result<Self> {
        let mut servers = Vec::new();
        for (number, option) in options.vnc.iter().enumerate() {
            let Some(place) = &option.place else { continue };
            let id = option.id.clone().unwrap_or_else(|| match number {
                0 => "default".to_owned(),
                _ => format!("vnc{}", number + 1),
            });
            let name = match &options.run.name {
                Some(name) => format!("QEMU ({name})"),
                None => "QEMU".to_owned(),
            };
            let ears = option.audio.as_ref().map(|id| {
                let none = || anyhow!("{}: audiodev '{id}' not found", option.typed);
                audio.get(id).ok_or_else(none)
            });
            let ears = ears.transpose()?;
            let server = start(id, name, option, place, &options.objects, machine, monitors)?;
            if let Some(ears) = ears {
                server.server.set_sound(ears);
            }
            if let Some(secret) = &option.password_secret {
                let bytes = block::secrets::get(secret).map_err(|error| anyhow!("{error}"))?;
                let password = String::from_utf8(bytes)
                    .map_err(|_| anyhow!("Data from secret {secret} is not valid UTF-8"))?;
                server.server.set_password(Some(&password));
            }
            servers.push(server);
        }
        Ok(Self(servers))
    }

    /// All of them.
    pub fn all(&self) -> &[Named] {
        &self.0
    }

    /// The one of this name, or the first.
    pub fn find(&self, id: Option<&str>) -> Option<&Server> {
        let mut all = self.0.iter();
        let found = match id {
            Some(id) => all.find(|named| named.id == id),
            None => all.next(),
        };
        found.map(|named| &named.server)
    }
}

fn start(
    id: String,
    name: String,
    option: &VncOption,
    place: &Place,
    objects: &[Asked],
    machine: &Machine,
    monitors: &Arc<Monitors>,
) -> Result<Named> {
    let screens = machine.screens();
    if let Some(screen) = &option.screen
        && !screens.all().iter().any(|(id, _)| id == screen)
    {
        bail!("-vnc: Device '{screen}' not found");
    }
    let mut paths = Vec::new();
    let mut listeners = vec![(listen(place, &mut paths)?, false)];
    if let Some(web) = &option.web {
        listeners.push((listen(web, &mut paths)?, true));
    }
    let surface = MachineSurface {
        screens,
        device: option.screen.clone(),
        last: Mutex::default(),
        seen: Mutex::default(),
    };
    let VncOption { password, sharing, lossy, .. } = *option;
    let settings = Settings { name, password, sharing, lossy };
    let credentials = option.credentials.as_deref().map(|id| {
        let is_object = objects.iter().any(|object| object.members.get("id") == Some(&id.into()));
        crate::credentials::find(id, is_object)
            .map_err(|error| anyhow!("{}: {error}", option.typed))
    });
    let credentials = credentials.transpose()?;
    let auth = auth_name(option.password, credentials.is_some());
    let watcher = Announcer { monitors: Arc::clone(monitors), auth };
    let sink = MachineInputs(machine.inputs());
    let (surface, sink, watcher) = (Arc::new(surface), Arc::new(sink), Arc::new(watcher));
    let server = Server::start(settings, credentials, surface, sink, watcher, listeners)
        .context("cannot start the VNC server")?;
    Ok(Named { id, server, paths, credentials: option.credentials.clone() })
}

fn listen(place: &Place, paths: &mut Vec<String>) -> Result<Listener> {
    match place {
        Place::Unix(path) => {
            // One that an earlier run left behind; a file that is no socket stays.
            if fs::symlink_metadata(path).is_ok_and(|left| left.file_type().is_socket()) {
                _ = fs::remove_file(path);
            }
            let listener = UnixListener::bind(path)
                .with_context(|| format!("-vnc: Failed to bind socket to {path}"))?;
            paths.push(path.clone());
            Ok(Listener::Unix(listener))
        }
        Place::Tcp { host, port, last } => {
            let host = if host.is_empty() { "0.0.0.0" } else { host };
            let mut error = io::Error::from(io::ErrorKind::AddrInUse);
            for port in *port..=*last {
                match TcpListener::bind((host, port)) {
                    Ok(listener) => return Ok(Listener::Tcp(listener)),
                    Err(failed) => error = failed,
                }
            }
            Err(error).with_context(|| {
                format!("-vnc: Failed to find an available port on {host} from {port} to {last}")
            })
        }
    }
}

/// What QMP calls a way to come in.
pub fn auth_name(password: bool, secure: bool) -> &'static str {
    match (password, secure) {
        (false, false) => "none",
        (true, false) => "vnc",
        (false, true) => "vencrypt+x509+none",
        (true, true) => "vencrypt+x509+vnc",
    }
}

/// The screen that a name stands for: the device's, or the first.
pub fn find_screen(screens: &Screens, device: Option<&str>) -> Option<Arc<dyn Screen>> {
    let mut all = screens.all().into_iter();
    let found = match device {
        Some(device) => all.find(|(id, _)| id == device),
        None => all.next(),
    };
    found.map(|(_, screen)| screen)
}

/// One of the machine's screens, whichever adapter has it now.
struct MachineSurface {
    screens: Arc<Screens>,
    device: Option<String>,
    /// The pointer's picture as it was seen last: in the adapter's terms and in ours.
    last: Mutex<Option<(Weak<machine::Cursor>, Arc<Pointer>)>>,
    /// The adapter that was looked at last, and its stamp from before.
    seen: Mutex<Option<(Weak<dyn Screen>, u64)>>,
}

impl MachineSurface {
    fn screen(&self) -> Option<Arc<dyn Screen>> {
        find_screen(&self.screens, self.device.as_deref())
    }
}

impl Surface for MachineSurface {
    fn refresh(&self, frame: &mut Frame, whole: bool) -> Vec<Rect> {
        let screen = self.screen();
        let stamp =
            screen.as_ref().and_then(|screen| Some((Arc::downgrade(screen), screen.stamp()?)));
        let seen = std::mem::replace(&mut *self.seen.lock(), stamp.clone());
        if let (Some((screen, stamp)), Some((before, seen))) = (&stamp, &seen)
            && stamp == seen
            && Weak::ptr_eq(screen, before)
            && !whole
            && !frame.pixels.is_empty()
        {
            return Vec::new();
        }
        let pixels = std::mem::take(&mut frame.pixels);
        let mut picture = Picture { width: frame.width, height: frame.height, pixels };
        let mut changed = match screen {
            Some(screen) => screen.refresh(&mut picture, whole),
            None => Vec::new(),
        };
        if picture.pixels.is_empty() {
            picture.resize(NO_SCREEN.0, NO_SCREEN.1);
            let (width, height) = NO_SCREEN;
            changed = vec![machine::Rectangle { x: 0, y: 0, width, height }];
        }
        let Picture { width, height, pixels } = picture;
        *frame = Frame { width, height, pixels };
        let rect = |changed: machine::Rectangle| {
            let machine::Rectangle { x, y, width, height } = changed;
            Rect { x, y, width, height }
        };
        changed.into_iter().map(rect).collect()
    }

    fn pointer(&self) -> Option<Arc<Pointer>> {
        let (cursor, _) = self.screen()?.cursor()?;
        let mut last = self.last.lock();
        if let Some((seen, pointer)) = &*last
            && seen.upgrade().is_some_and(|seen| Arc::ptr_eq(&seen, &cursor))
        {
            return Some(Arc::clone(pointer));
        }
        let pointer = Arc::new(Pointer {
            width: cursor.width,
            height: cursor.height,
            hot: cursor.hot,
            pixels: cursor.pixels.clone(),
        });
        *last = Some((Arc::downgrade(&cursor), Arc::clone(&pointer)));
        Some(pointer)
    }

    fn can_resize(&self) -> bool {
        self.screen().is_some_and(|screen| screen.can_resize())
    }

    fn resize(&self, width: u32, height: u32) {
        if let Some(screen) = self.screen() {
            screen.suggest_size(width, height);
        }
    }
}

/// The buttons of RFB's bits, from bit 0.
const BUTTONS: [Button; 8] = [
    Button::Left,
    Button::Middle,
    Button::Right,
    Button::WheelUp,
    Button::WheelDown,
    Button::WheelLeft,
    Button::WheelRight,
    Button::Side,
];

/// The machine's keyboards and pointers.
struct MachineInputs(Arc<Inputs>);

impl InputSink for MachineInputs {
    fn key(&self, code: u16, down: bool) {
        self.0.send(&[InputEvent::Key { code, down }]);
    }

    fn pointer(&self, input: PointerInput, changed: u16) {
        let mut events = match input.motion {
            Motion::To { at, of } => {
                let part = |at: u32, of: u32| {
                    let most = u64::from(of.saturating_sub(1).max(1));
                    (u64::from(at).min(most) * u64::from(ABSOLUTE_MAX) / most) as u16
                };
                vec![
                    InputEvent::Absolute { axis: Axis::X, at: part(at.0, of.0) },
                    InputEvent::Absolute { axis: Axis::Y, at: part(at.1, of.1) },
                ]
            }
            Motion::By(x, y) => [(Axis::X, x), (Axis::Y, y)]
                .into_iter()
                .filter(|(_, by)| *by != 0)
                .map(|(axis, by)| InputEvent::Relative { axis, by })
                .collect(),
        };
        for (bit, button) in BUTTONS.into_iter().enumerate() {
            if changed >> bit & 1 != 0 {
                events.push(InputEvent::Button { button, down: input.buttons >> bit & 1 != 0 });
            }
        }
        if !events.is_empty() {
            self.0.send(&events);
        }
    }

    fn is_absolute(&self) -> bool {
        self.0.is_absolute()
    }

    fn lights(&self) -> Option<u8> {
        self.0.all().into_iter().rev().find_map(|(_, device)| device.lights())
    }
}

/// The end of an absolute axis.
const ABSOLUTE_MAX: u16 = device::ABSOLUTE_MAX;

/// Tells monitors of clients.
struct Announcer {
    monitors: Arc<Monitors>,
    auth: &'static str,
}

/// An end of a connection as QMP has it.
pub fn end(address: &Address, websocket: bool) -> Value {
    json!({"host": address.host, "service": address.service, "family": address.family,
        "websocket": websocket})
}

impl Watcher for Announcer {
    fn client(&self, event: ClientEvent, info: &ClientInfo) {
        let mut server = end(&info.server, info.websocket);
        server["auth"] = self.auth.into();
        let client = end(&info.peer, info.websocket);
        let name = match event {
            ClientEvent::Connected => "VNC_CONNECTED",
            ClientEvent::Initialized => "VNC_INITIALIZED",
            ClientEvent::Disconnected => "VNC_DISCONNECTED",
        };
        self.monitors.event(name, json!({"server": server, "client": client}));
    }
}
