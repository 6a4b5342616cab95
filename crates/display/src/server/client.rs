//! One client: what it said, and the thread that reads it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use parking_lot::{Condvar, Mutex};

use super::abilities::Abilities;
use super::clipboard::TEXT_BYTES_MAX;
use super::sound::Hearing;
use super::update::Writer;
use super::{ClientEvent, ClientInfo, Shared, Socket};
use crate::codec::{
    Access, Bytes, CHALLENGE_BYTES, ClientMessage, Greeting, PixelFormat, ProtocolError, Put, Step,
    palette_message,
};
use crate::damage::Dirty;
use crate::keys;
use crate::secure::Channel;
use crate::surface::{Motion, PointerInput, Rect};
use crate::websocket::{self, Unframer};

/// How long a handshake may take, and how long a client may take nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Answers that a client does not take.
const OUTBOX_BYTES_MAX: usize = 64 << 10;
/// The most text for the clipboard that is listened to at all.
const CUT_TEXT_BYTES_MAX: u32 = 16 << 20;
/// A fence that asks for an answer.
pub const FENCE_REQUEST: u32 = 1 << 31;
/// A fence behind all that was sent before it.
pub const FENCE_BLOCK_BEFORE: u32 = 1;
const FENCE_KNOWN: u32 = 7;
/// In the middle of its range a pointer that moves has not moved.
const MOTION_CENTRE: i32 = 0x7fff;

/// What is to be told beside pixels.
#[derive(Clone, Copy, Debug, Default)]
pub struct News {
    pub size: bool,
    /// The answer to a wish for another size.
    pub resize_result: Option<u16>,
    pub pointer: bool,
    pub lights: bool,
    pub pointer_type: bool,
    pub scan_keys: bool,
    pub sound: bool,
}

impl News {
    pub fn any(&self) -> bool {
        let told = [self.lights, self.pointer_type, self.scan_keys, self.sound];
        self.size || self.pointer || told.contains(&true) || self.resize_result.is_some()
    }
}

/// What a client has said so far.
#[derive(Default)]
pub struct State {
    pub is_in: bool,
    pub is_exclusive: bool,
    pub closes: bool,
    pub format: Option<PixelFormat>,
    pub abilities: Abilities,
    /// It waits for an update of this.
    pub request: Option<Rect>,
    /// All of it, changed or not.
    pub whole: bool,
    pub continuous: Option<Rect>,
    /// Fences without their answers.
    pub fences_out: u32,
    pub dirty: Dirty,
    pub news: News,
    /// Messages that go out before the next update.
    pub outbox: Vec<u8>,
    /// Frames of a WebSocket's own.
    pub control: Vec<u8>,
}

impl State {
    /// Whether an update can go out.
    pub fn is_due(&self) -> bool {
        let continues = self.continuous.is_some() && self.fences_out < 3;
        (self.request.is_some() || continues) && (self.whole || self.dirty.any() || self.news.any())
    }
}

/// One client.
pub struct Client {
    pub socket: Channel,
    pub info: ClientInfo,
    pub state: Mutex<State>,
    pub changed: Condvar,
}

impl Client {
    pub fn new(socket: Socket, info: ClientInfo) -> Self {
        let socket = Channel::new(socket);
        Self { socket, info, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Whether it wants to see what changes.
    pub fn waits(&self) -> bool {
        let state = self.state.lock();
        state.is_in && !state.closes && (state.request.is_some() || state.continuous.is_some())
    }

    pub fn is_in(&self) -> bool {
        self.state.lock().is_in
    }

    pub fn is_exclusive(&self) -> bool {
        self.state.lock().is_exclusive
    }

    pub fn make_exclusive(&self) {
        self.state.lock().is_exclusive = true;
    }

    /// Something has changed on the screen. `same`: pointer, lights, kind of pointer.
    pub fn tell(&self, rects: &[Rect], same: (bool, bool, bool), resized: bool) {
        let mut state = self.state.lock();
        rects.iter().for_each(|rect| state.dirty.mark(*rect));
        let abilities = state.abilities.clone();
        state.news.size |= resized;
        state.news.pointer |= !same.0 && (abilities.cursor || abilities.cursor_alpha);
        state.news.lights |= !same.1 && abilities.lights;
        state.news.pointer_type |= !same.2 && abilities.pointer_type;
        drop(state);
        self.changed.notify_all();
    }

    fn put(&self, bytes: &[u8]) -> Result<(), End> {
        self.put_within(bytes, OUTBOX_BYTES_MAX)
    }

    /// The same for what may be long.
    pub fn put_text(&self, bytes: &[u8]) -> Result<(), End> {
        self.put_within(bytes, OUTBOX_BYTES_MAX + 2 * TEXT_BYTES_MAX)
    }

    fn put_within(&self, bytes: &[u8], most: usize) -> Result<(), End> {
        let mut state = self.state.lock();
        if state.outbox.len() + bytes.len() > most {
            return Err(End);
        }
        state.outbox.extend(bytes);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }
}

/// The conversation is over, whatever the reason: there is nobody to tell.
pub struct End;

impl From<ProtocolError> for End {
    fn from(_: ProtocolError) -> Self {
        Self
    }
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// A client's thread, from its coming to its going.
pub fn serve(shared: &Arc<Shared>, client: &Arc<Client>) {
    shared.watcher.client(ClientEvent::Connected, &client.info);
    let mut reader = Reader {
        shared,
        client,
        unframer: client.info.websocket.then(Unframer::default),
        waiting: Vec::new(),
        skip: 0,
        cut: None,
        pressed: BTreeSet::new(),
        buttons: 0,
        last_at: None,
        hearing: Hearing::default(),
    };
    _ = reader.converse();
    let mut state = client.state.lock();
    (state.closes, state.is_in) = (true, false);
    drop(state);
    client.changed.notify_all();
    client.socket.close();
    reader.release();
    shared.forget(client);
    shared.watcher.client(ClientEvent::Disconnected, &client.info);
}

struct Reader<'a> {
    shared: &'a Arc<Shared>,
    client: &'a Arc<Client>,
    unframer: Option<Unframer>,
    waiting: Vec<u8>,
    /// Bytes of a text that are still to come.
    skip: usize,
    /// A text on its way, as far as it is kept; true beside one by the extension.
    cut: Option<(bool, Vec<u8>)>,
    pressed: BTreeSet<u16>,
    buttons: u16,
    last_at: Option<(i32, i32)>,
    hearing: Hearing,
}

impl Reader<'_> {
    fn converse(&mut self) -> Result<(), End> {
        self.client.socket.patience(Some(PATIENCE), Some(PATIENCE))?;
        if self.unframer.is_some() {
            let credentials = self.shared.credentials.lock().clone();
            if let Some(credentials) = credentials {
                self.client.socket.secure(&credentials, &[])?;
            }
            self.upgrade()?;
        }
        self.greet()?;
        self.client.socket.patience(None, Some(PATIENCE))?;
        self.shared.watcher.client(ClientEvent::Initialized, &self.client.info);
        let (shared, client) = (Arc::clone(self.shared), Arc::clone(self.client));
        let writer = Writer::new(&shared, &client);
        self.send(&writer.opening(&shared.settings.name))?;
        client.state.lock().is_in = true;
        let write = move || writer.run();
        let writing = thread::Builder::new().name("vnc-encode".to_owned()).spawn(write)?;
        let ended = self.messages();
        client.state.lock().closes = true;
        client.changed.notify_all();
        client.socket.close();
        _ = writing.join();
        ended
    }

    /// Sends at once: only while the writing thread does not run.
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut framed = Vec::new();
        match self.unframer {
            Some(_) => websocket::frame(websocket::BINARY, bytes, &mut framed),
            None => framed.extend(bytes),
        }
        self.client.socket.write(&framed)
    }

    fn upgrade(&mut self) -> Result<(), End> {
        let mut head = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let count = self.client.socket.read(&mut buffer)?;
            if count == 0 {
                return Err(End);
            }
            head.extend(&buffer[..count]);
            match websocket::greet(&head) {
                None => {}
                Some(Ok((length, answer))) => {
                    self.client.socket.write(&answer)?;
                    return self.take(&head[length..]);
                }
                Some(Err(_)) => {
                    _ = self.client.socket.write(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                    return Err(End);
                }
            }
        }
    }

    fn more(&mut self) -> Result<(), End> {
        let mut buffer = [0; 16 << 10];
        match self.client.socket.read(&mut buffer)? {
            0 => Err(End),
            count => self.take(&buffer[..count]),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), End> {
        let Some(unframer) = &mut self.unframer else {
            self.waiting.extend(bytes);
            return Ok(());
        };
        let mut answers = Vec::new();
        let goes_on = unframer.push(bytes, &mut self.waiting, &mut answers)?;
        if !answers.is_empty() {
            let mut state = self.client.state.lock();
            if state.control.len() > OUTBOX_BYTES_MAX {
                return Err(End);
            }
            state.control.extend(answers);
            drop(state);
            self.client.changed.notify_all();
        }
        if goes_on { Ok(()) } else { Err(End) }
    }

    fn greet(&mut self) -> Result<(), End> {
        let credentials = self.shared.credentials.lock().clone();
        // A browser's connection is secure from its first byte on.
        let within = credentials.is_some() && !self.client.info.websocket;
        let access = match self.shared.settings.password {
            false if within => Access::Secure(None),
            false => Access::Open,
            true => {
                let mut challenge = [0; CHALLENGE_BYTES];
                let flags = rustix::rand::GetRandomFlags::empty();
                rustix::rand::getrandom(&mut challenge, flags).map_err(io::Error::from)?;
                if within { Access::Secure(Some(challenge)) } else { Access::Password(challenge) }
            }
        };
        let mut greeting = Greeting::new(access);
        self.send(Greeting::OPENING)?;
        loop {
            let mut bytes = Bytes::new(&self.waiting);
            let verdict = |challenge: &[u8; CHALLENGE_BYTES], answer: &[u8]| {
                self.shared.verdict(challenge, answer)
            };
            let step = greeting.step(&mut bytes, verdict);
            let taken = bytes.taken();
            match step.transpose()? {
                None => self.more()?,
                Some(step) => {
                    self.waiting.drain(..taken);
                    match step {
                        Step::Reply(reply) => self.send(&reply)?,
                        Step::Refuse(reply) => {
                            self.send(&reply)?;
                            return Err(End);
                        }
                        Step::Secure(before, after) => {
                            let credentials = credentials.as_ref().ok_or(End)?;
                            self.send(&before)?;
                            // What came before TLS is TLS's, not ours.
                            let early = std::mem::take(&mut self.waiting);
                            self.client.socket.secure(credentials, &early)?;
                            self.send(&after)?;
                        }
                        Step::Enter { shared } => {
                            let may_stay = self.shared.share(self.client, shared);
                            return if may_stay { Ok(()) } else { Err(End) };
                        }
                    }
                }
            }
        }
    }

    fn messages(&mut self) -> Result<(), End> {
        loop {
            let skipped = self.skip.min(self.waiting.len());
            let text = self.waiting.drain(..skipped);
            if let Some((_, cut)) = &mut self.cut {
                cut.extend(text);
            } else {
                drop(text);
            }
            self.skip -= skipped;
            if self.skip == 0
                && let Some((is_extended, text)) = self.cut.take()
            {
                self.shared.cut(self.client, is_extended, &text)?;
            }
            let waiting = std::mem::take(&mut self.waiting);
            let mut at = 0;
            while self.skip == 0 {
                let mut bytes = Bytes::new(&waiting[at..]);
                let Some(message) = ClientMessage::read(&mut bytes) else { break };
                at += bytes.taken();
                self.hear(message?)?;
            }
            self.waiting = waiting;
            self.waiting.drain(..at);
            if self.skip == 0 || self.waiting.is_empty() {
                self.more()?;
            }
        }
    }

    fn hear(&mut self, message: ClientMessage) -> Result<(), End> {
        match message {
            ClientMessage::PixelFormat(format) => {
                self.client.state.lock().format = Some(format);
                if !format.true_colour {
                    self.client.put(&palette_message())?;
                }
            }
            ClientMessage::Encodings(list) => self.encodings(&list)?,
            ClientMessage::UpdateRequest { incremental, area } => {
                let mut state = self.client.state.lock();
                state.request = Some(rect(area));
                state.whole |= !incremental;
                drop(state);
                self.client.changed.notify_all();
                self.shared.want();
            }
            ClientMessage::Key { down, symbol } => self.symbol(symbol, down),
            ClientMessage::ScanKey { down, symbol, code } => match keys::of_scan_code(code) {
                Some(code) => self.key(code, down),
                None => self.symbol(symbol, down),
            },
            ClientMessage::Pointer { buttons, x, y } => self.pointer(buttons, x, y),
            ClientMessage::CutText { bytes } => {
                // A negative length is the sign of the extension.
                let is_extended = bytes > i32::MAX as u32;
                let bytes = if is_extended { bytes.wrapping_neg() } else { bytes };
                if bytes > CUT_TEXT_BYTES_MAX {
                    return Err(End);
                }
                self.skip = bytes as usize;
                let is_kept = self.skip > 0 && self.skip <= TEXT_BYTES_MAX;
                self.cut = is_kept.then(|| (is_extended, Vec::new()));
            }
            ClientMessage::ContinuousUpdates { enable, area } => {
                let mut state = self.client.state.lock();
                let was = state.continuous.is_some();
                state.continuous = enable.then(|| rect(area));
                drop(state);
                if was && !enable {
                    self.client.put(&[150])?;
                }
                self.client.changed.notify_all();
                self.shared.want();
            }
            ClientMessage::Fence { flags, payload } if flags & FENCE_REQUEST != 0 => {
                let mut answer = vec![248, 0, 0, 0];
                answer.put32(flags & FENCE_KNOWN);
                answer.push(payload.len() as u8);
                answer.extend(payload);
                self.client.put(&answer)?;
            }
            ClientMessage::Fence { .. } => {
                let mut state = self.client.state.lock();
                state.fences_out = state.fences_out.saturating_sub(1);
                drop(state);
                self.client.changed.notify_all();
            }
            ClientMessage::DesktopSize { width, height, .. } => self.resize(width, height),
            ClientMessage::Sound(order) => {
                // Where there is none, none was offered.
                let ears = self.shared.ears.get().ok_or(End)?;
                self.hearing.order(order, self.client, &**ears);
            }
        }
        Ok(())
    }

    fn encodings(&self, list: &[i32]) -> Result<(), End> {
        let abilities = Abilities::of(list);
        let mut state = self.client.state.lock();
        let before = std::mem::replace(&mut state.abilities, abilities.clone());
        let news = &mut state.news;
        news.size |= abilities.resizes_extended && !before.resizes_extended;
        news.pointer |=
            (abilities.cursor || abilities.cursor_alpha) && !(before.cursor || before.cursor_alpha);
        news.lights |= abilities.lights && !before.lights;
        news.pointer_type |= abilities.pointer_type && !before.pointer_type;
        news.scan_keys |= abilities.scan_keys && !before.scan_keys;
        let has_sound = self.shared.ears.get().is_some();
        news.sound |= has_sound && abilities.sound && !before.sound;
        drop(state);
        if abilities.fences && !before.fences {
            let mut fence = vec![248, 0, 0, 0];
            fence.put32(FENCE_REQUEST);
            fence.push(0);
            self.client.put(&fence)?;
        }
        if abilities.clipboard && !before.clipboard {
            self.shared.introduce_clipboard(self.client)?;
        }
        if abilities.continuous && !before.continuous {
            self.client.put(&[150])?;
        }
        Ok(())
    }

    fn resize(&self, width: u16, height: u16) {
        const PROHIBITED: u16 = 1;
        const INVALID: u16 = 3;
        const FORWARDED: u16 = 4;
        let surface = &self.shared.surface;
        let result = match surface.can_resize() {
            _ if width == 0 || height == 0 => INVALID,
            false => PROHIBITED,
            true => FORWARDED,
        };
        if result == FORWARDED {
            surface.resize(width.into(), height.into());
        }
        self.client.state.lock().news.resize_result = Some(result);
        self.client.changed.notify_all();
        self.shared.want();
    }

    fn key(&mut self, code: u16, down: bool) {
        match down {
            true => _ = self.pressed.insert(code),
            false => _ = self.pressed.remove(&code),
        }
        self.shared.sink.key(code, down);
        self.shared.want();
    }

    /// A key by what it writes. Whoever sends a capital without shift means it all the same.
    fn symbol(&mut self, symbol: u32, down: bool) {
        let Some((code, shift)) = keys::of_symbol(symbol) else { return };
        let has_shift =
            self.pressed.contains(&keys::SHIFT) || self.pressed.contains(&keys::SHIFT_RIGHT);
        let caps = self.shared.sink.lights().is_some_and(|lights| lights & 4 != 0);
        let is_letter = u8::try_from(symbol).is_ok_and(|byte| byte.is_ascii_alphabetic());
        let adds = down && shift == Some(true) && !has_shift && !(caps && is_letter);
        if adds {
            self.shared.sink.key(keys::SHIFT, true);
        }
        self.key(code, down);
        if adds {
            self.shared.sink.key(keys::SHIFT, false);
        }
    }

    fn pointer(&mut self, buttons: u16, x: u16, y: u16) {
        let at = (i32::from(x), i32::from(y));
        let motion = match self.shared.sink.is_absolute() {
            true => {
                let screen = self.shared.screen.lock();
                let of = (screen.frame.width, screen.frame.height);
                Motion::To { at: (x.into(), y.into()), of }
            }
            false if self.client.state.lock().abilities.pointer_type => {
                Motion::By(at.0 - MOTION_CENTRE, at.1 - MOTION_CENTRE)
            }
            false => {
                let last = self.last_at.unwrap_or(at);
                Motion::By(at.0 - last.0, at.1 - last.1)
            }
        };
        self.last_at = Some(at);
        let changed = self.buttons ^ buttons;
        self.buttons = buttons;
        self.shared.sink.pointer(PointerInput { buttons, motion }, changed);
        self.shared.want();
    }

    /// What a client that has gone held down.
    fn release(&mut self) {
        for code in std::mem::take(&mut self.pressed) {
            self.shared.sink.key(code, false);
        }
        if self.buttons != 0 {
            let input = PointerInput { buttons: 0, motion: Motion::By(0, 0) };
            self.shared.sink.pointer(input, std::mem::take(&mut self.buttons));
        }
    }
}

fn rect([x, y, width, height]: [u16; 4]) -> Rect {
    Rect { x: x.into(), y: y.into(), width: width.into(), height: height.into() }
}
