//! The thread that encodes and writes for one client.

use std::io;
use std::sync::Arc;

use super::abilities::Abilities;
use super::client::{Client, FENCE_BLOCK_BEFORE, FENCE_REQUEST, News, State};
use super::{Screen, Shared};
use crate::codec::{PixelFormat, Put, encoding};
use crate::damage::Dirty;
use crate::encode::{self, Encoder};
use crate::surface::{Frame, Rect};
use crate::websocket;

/// What is written at once.
const CHUNK_BYTES: usize = 256 << 10;

pub struct Writer {
    shared: Arc<Shared>,
    client: Arc<Client>,
    encoder: Encoder,
    /// What the client sees.
    seen: Frame,
}

/// What an update is made of.
struct Task {
    area: Rect,
    whole: bool,
    news: News,
    dirty: Dirty,
    format: PixelFormat,
    abilities: Abilities,
    fence: bool,
}

impl Writer {
    /// For a client that has just been let in.
    pub fn new(shared: &Arc<Shared>, client: &Arc<Client>) -> Self {
        shared.refresh();
        let screen = shared.screen.lock();
        let seen = Frame::new(screen.frame.width, screen.frame.height);
        drop(screen);
        client.state.lock().dirty = Dirty::new(seen.width, seen.height);
        let (shared, client) = (Arc::clone(shared), Arc::clone(client));
        Self { shared, client, encoder: Encoder::default(), seen }
    }

    /// ServerInit (RFC 6143, 7.3.2).
    pub fn opening(&self, name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        out.put16(self.seen.width);
        out.put16(self.seen.height);
        PixelFormat::NATIVE.write(&mut out);
        out.put32(name.len() as u32);
        out.extend(name.as_bytes());
        out
    }

    /// Writes until the client goes.
    pub fn run(mut self) {
        loop {
            let mut state = self.client.state.lock();
            while !state.closes
                && !state.is_due()
                && state.outbox.is_empty()
                && state.control.is_empty()
            {
                self.client.changed.wait(&mut state);
            }
            if state.closes {
                return;
            }
            let control = std::mem::take(&mut state.control);
            let outbox = std::mem::take(&mut state.outbox);
            let task = state.is_due().then(|| Task::take(&mut state, &self.seen)).flatten();
            drop(state);
            let written = self
                .client
                .socket
                .write(&control)
                .and_then(|()| self.write(&outbox))
                .and_then(|()| task.map_or(Ok(()), |task| self.update(task)));
            if written.is_err() {
                self.client.socket.close();
                return;
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if !self.client.info.websocket {
            return self.client.socket.write(bytes);
        }
        let mut framed = Vec::with_capacity(bytes.len() + 10);
        websocket::frame(websocket::BINARY, bytes, &mut framed);
        self.client.socket.write(&framed)
    }

    fn update(&mut self, mut task: Task) -> io::Result<()> {
        let (mut extra, mut count) = (Vec::new(), 0);
        let shared = Arc::clone(&self.shared);
        let screen = shared.screen.lock();
        count += self.tell(&task, &screen, &mut extra);
        if self.resize(&task, &screen, &mut extra, &mut count) {
            drop(screen);
            // All pixels come with the next one: the client asks again when it has its new size.
            self.client.state.lock().whole = true;
            return self.send(count, &extra, &[], &task);
        }
        let cut;
        let frame = match (screen.frame.width, screen.frame.height) {
            size if size == (self.seen.width, self.seen.height) => &screen.frame,
            _ => {
                cut = cut_out(&screen.frame, self.seen.width, self.seen.height);
                &cut
            }
        };
        if task.whole {
            task.dirty.mark(task.area);
        } else if task.abilities.copies
            && let Some((from, to)) = task.dirty.moved(task.area, &self.seen, frame)
        {
            self.seen.copy(from, to);
            task.dirty.mark(to);
            encode::head(to, encoding::COPY_RECT, &mut extra);
            extra.put16(from.0);
            extra.put16(from.1);
            count += 1;
        }
        let changed = task.dirty.take(task.area, &mut self.seen, frame, task.whole);
        drop(screen);
        let mut parts = Vec::new();
        changed.iter().for_each(|rect| encode::split(*rect, task.abilities.encoding, &mut parts));
        // Tiles outside of the area, which this update leaves out.
        if task.dirty.any() {
            let mut state = self.client.state.lock();
            task.dirty.pour_into(&mut state.dirty);
        }
        self.send(count, &extra, &parts, &task)
    }

    /// Sends rectangles that are ready and those that are to be encoded. Without any, the client
    /// goes on waiting.
    fn send(&mut self, count: usize, ready: &[u8], parts: &[Rect], task: &Task) -> io::Result<()> {
        let all = count + parts.len();
        if all == 0 {
            let mut state = self.client.state.lock();
            if state.continuous.is_none() {
                state.request = state.request.or(Some(task.area));
            }
            drop(state);
            // The looking thread may have found nobody waiting meanwhile.
            self.shared.want();
            return Ok(());
        }
        let lossy = self.shared.settings.lossy;
        self.encoder.set_quality(task.abilities.quality.filter(|_| lossy));
        let mut out = vec![0, 0];
        out.put16(all as u32);
        out.extend(ready);
        for part in parts {
            let number = task.abilities.encoding;
            self.encoder.encode(&self.seen, *part, number, &task.format, &mut out);
            if out.len() > CHUNK_BYTES {
                self.write(&out)?;
                out.clear();
            }
        }
        if task.fence {
            self.client.state.lock().fences_out += 1;
            out.extend([248, 0, 0, 0]);
            out.put32(FENCE_REQUEST | FENCE_BLOCK_BEFORE);
            out.push(0);
        }
        self.write(&out)
    }

    /// What is told in rectangles that are none; gives their number.
    fn tell(&self, task: &Task, screen: &Screen, out: &mut Vec<u8>) -> usize {
        let mut count = 0;
        let nowhere = Rect { x: 0, y: 0, width: 0, height: 0 };
        if task.news.scan_keys {
            encode::head(nowhere, encoding::SCAN_KEYS, out);
            count += 1;
        }
        if task.news.sound {
            encode::head(nowhere, encoding::SOUND, out);
            count += 1;
        }
        if task.news.pointer_type {
            let rect = Rect { x: screen.is_absolute.into(), ..self.seen.area() };
            encode::head(rect, encoding::POINTER_TYPE, out);
            count += 1;
        }
        if let (true, Some(lights)) = (task.news.lights, screen.lights) {
            encode::head(Rect { width: 1, height: 1, ..nowhere }, encoding::LIGHTS, out);
            out.push(lights & 7);
            count += 1;
        }
        if let (true, Some(pointer)) = (task.news.pointer, &screen.pointer) {
            match task.abilities.cursor_alpha {
                true => encode::cursor_alpha(pointer, out),
                false => encode::cursor(pointer, &task.format, out),
            }
            count += 1;
        }
        if let Some(result) = task.news.resize_result {
            let frame = self.seen.area();
            extended_size(Rect { x: 1, y: result.into(), ..frame }, out);
            count += 1;
        }
        count
    }

    /// Follows the screen to another size if the client can. True when it did: nothing but that
    /// belongs in the update then.
    fn resize(
        &mut self,
        task: &Task,
        screen: &Screen,
        out: &mut Vec<u8>,
        count: &mut usize,
    ) -> bool {
        let area = screen.frame.area();
        let is_new = area != self.seen.area();
        let Abilities { resizes, resizes_extended, .. } = task.abilities;
        if resizes_extended && (is_new || task.news.size) {
            extended_size(area, out);
        } else if resizes && is_new {
            encode::head(area, encoding::DESKTOP_SIZE, out);
        } else {
            return false;
        }
        *count += 1;
        if is_new {
            self.seen = Frame::new(area.width, area.height);
            self.client.state.lock().dirty = Dirty::new(area.width, area.height);
        }
        is_new
    }
}

impl Task {
    /// Takes from the state what an update is to bring.
    fn take(state: &mut State, seen: &Frame) -> Option<Self> {
        let area = state.request.take().or(state.continuous)?;
        let empty = Dirty::new(seen.width, seen.height);
        Some(Self {
            area,
            whole: std::mem::take(&mut state.whole),
            news: std::mem::take(&mut state.news),
            dirty: std::mem::replace(&mut state.dirty, empty),
            format: state.format.unwrap_or(PixelFormat::NATIVE),
            abilities: state.abilities.clone(),
            fence: state.continuous.is_some() && state.abilities.fences,
        })
    }
}

/// ExtendedDesktopSize with the one screen that there is.
fn extended_size(rect: Rect, out: &mut Vec<u8>) {
    encode::head(rect, encoding::EXTENDED_DESKTOP_SIZE, out);
    out.extend([1, 0, 0, 0]);
    out.put32(0);
    out.put32(0); // at the upper left corner
    out.put16(rect.width);
    out.put16(rect.height);
    out.put32(0);
}

/// What a client with a screen of its own size sees of this one.
fn cut_out(frame: &Frame, width: u32, height: u32) -> Frame {
    let mut cut = Frame::new(width, height);
    if let Some(common) = cut.area().intersect(frame.area()) {
        for row in 0..common.height {
            cut.row_mut(common, row).copy_from_slice(frame.row(common, row));
        }
    }
    cut
}
