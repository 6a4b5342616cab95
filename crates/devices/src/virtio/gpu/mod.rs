//! A graphics card for pictures that the guest draws itself (2D). Virtio 1.3, 5.7.
//!
//! `-device virtio-gpu-pci,xres=1280,yres=800`

mod commands;
mod edid;
mod resource;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use device::{Cursor, Fields, Picture, Rectangle, SIDE_MAX, Screen, StateError};
use parking_lot::Mutex;

use super::device::{Driver, Kind, VirtioDevice};
use resource::Resource;

const CONTROL: u16 = 0;
const CURSOR: u16 = 1;

/// What a card is made of.
#[derive(Clone, Copy, Debug)]
pub struct GpuConfig {
    /// The size that it proposes first.
    pub size: (u32, u32),
    /// Offer descriptions of the monitor.
    pub edid: bool,
    /// Bytes that all pictures may take here.
    pub memory_bytes_max: u64,
}

/// The card, with one screen.
///
/// Lock order: `state`, then queues.
pub struct Gpu {
    config: GpuConfig,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    driver: Option<Driver>,
    resources: BTreeMap<u32, Resource>,
    /// Bytes that they take.
    bytes: u64,
    /// The picture that is shown, and which part of it.
    shown: Option<(u32, Rectangle)>,
    /// The size that whoever looks would like.
    wanted: Option<(u32, u32)>,
    events: u32,
    cursor: Option<Arc<Cursor>>,
    cursor_at: (i32, i32),
    /// Another one after each command.
    stamp: u64,
}

impl Gpu {
    /// A card after power-on.
    #[must_use]
    pub fn new(config: GpuConfig) -> Arc<Self> {
        Arc::new(Self { config, state: Mutex::default() })
    }

    /// Whether the driver shows a picture.
    #[must_use]
    pub fn is_showing(&self) -> bool {
        self.state.lock().shown.is_some()
    }

    fn size(&self, state: &State) -> (u32, u32) {
        state.wanted.unwrap_or(self.config.size)
    }
}

impl VirtioDevice for Gpu {
    fn kind(&self) -> Kind {
        Kind::Gpu
    }

    fn features(&self) -> u64 {
        if self.config.edid { spec::F_EDID } else { 0 }
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![256, 16]
    }

    fn config(&self) -> Vec<u8> {
        let events = self.state.lock().events;
        // Events, what was cleared, one screen, and none of the abilities beyond 2D.
        [events, 0, 1, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn write_config(&self, offset: usize, bytes: &[u8]) {
        if let (spec::CONFIG_EVENTS_CLEAR, Ok(bytes)) = (offset, bytes.try_into()) {
            self.state.lock().events &= !u32::from_le_bytes(bytes);
        }
    }

    fn activate(&self, driver: Driver) {
        self.state.lock().driver = Some(driver);
        self.notify(CONTROL);
        self.notify(CURSOR);
    }

    fn reset(&self) {
        let mut state = self.state.lock();
        *state = State { wanted: state.wanted, stamp: state.stamp + 1, ..State::default() };
    }

    fn notify(&self, queue: u16) {
        let mut state = self.state.lock();
        let found = state.driver.as_ref().and_then(|driver| driver.queue(queue).cloned());
        let Some(queue) = found else { return };
        while let Some(chain) = queue.pop() {
            let answer = self.follow(&mut state, &chain);
            state.stamp += 1;
            let written = chain.writer().write(&answer);
            queue.push_quietly(vec![(chain, written as u64)]);
        }
        drop(state);
        queue.signal();
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let mut state = self.state.lock();
        let mut shown =
            state.shown.map(|(id, part)| (id, [part.x, part.y, part.width, part.height]));
        let mut cursor = state
            .cursor
            .as_ref()
            .map(|cursor| ([cursor.width, cursor.height], cursor.hot, cursor.pixels.clone()));
        fields.item("resources", &mut state.resources)?;
        fields.item("shown", &mut shown)?;
        fields.item("wanted", &mut state.wanted)?;
        fields.item("events", &mut state.events)?;
        fields.item("cursor", &mut cursor)?;
        fields.item("cursor_at", &mut state.cursor_at)?;
        if !fields.is_loading() {
            return Ok(());
        }
        state.stamp += 1;
        state.bytes = state.resources.values().map(Resource::bytes).sum();
        fields.check(state.bytes <= self.config.memory_bytes_max, "resources")?;
        let sides = 1..=SIDE_MAX;
        let fits = state.wanted.is_none_or(|(x, y)| sides.contains(&x) && sides.contains(&y));
        fields.check(fits, "wanted")?;
        state.shown =
            shown.map(|(id, [x, y, width, height])| (id, Rectangle { x, y, width, height }));
        let holds = state.shown.is_none_or(|(id, part)| {
            let resource = state.resources.get(&id);
            let visible = part.width > 0 && part.height > 0;
            visible && resource.is_some_and(|resource| resource.holds(&part))
        });
        if !holds {
            state.shown = None;
        }
        fields.check(holds, "shown")?;
        let side = spec::CURSOR_SIDE;
        let fits = cursor.as_ref().is_none_or(|(sides, hot, pixels)| {
            *sides == [side; 2]
                && hot.0 < side
                && hot.1 < side
                && pixels.len() == (side * side) as usize
        });
        fields.check(fits, "cursor")?;
        state.cursor = cursor
            .map(|(_, hot, pixels)| Arc::new(Cursor { width: side, height: side, hot, pixels }));
        Ok(())
    }
}

impl Screen for Gpu {
    fn refresh(&self, picture: &mut Picture, whole: bool) -> Vec<Rectangle> {
        let state = self.state.lock();
        let shown = state.shown.and_then(|(id, part)| Some((state.resources.get(&id)?, part)));
        let Some((resource, part)) = shown else {
            let (width, height) = self.size(&state);
            // A screen that shows nothing is black.
            let changed = picture.resize(width, height) || picture.pixels.iter().any(|p| *p != 0);
            picture.pixels.fill(0);
            let all = Rectangle { x: 0, y: 0, width, height };
            return if changed || whole { vec![all] } else { Vec::new() };
        };
        let whole = picture.resize(part.width, part.height) || whole;
        let mut changed: Vec<Rectangle> = Vec::new();
        for y in 0..part.height {
            let at = (part.y + y) as usize * resource.width as usize + part.x as usize;
            let from = &resource.pixels[at..at + part.width as usize];
            let row = picture.row_mut(y);
            let differs = |(new, old): (&u32, &u32)| *new & 0x00ff_ffff != *old;
            let Some(first) = from.iter().zip(&*row).position(differs) else { continue };
            let last = from.iter().zip(&*row).rposition(differs).unwrap_or(first);
            for (new, old) in from[first..=last].iter().zip(&mut row[first..=last]) {
                *old = *new & 0x00ff_ffff;
            }
            let (first, end) = (first as u32, last as u32 + 1);
            match changed.last_mut().filter(|last| last.y + last.height == y) {
                Some(last) => {
                    let x = last.x.min(first);
                    last.width = (last.x + last.width).max(end) - x;
                    (last.x, last.height) = (x, last.height + 1);
                }
                None => changed.push(Rectangle { x: first, y, width: end - first, height: 1 }),
            }
        }
        if whole {
            return vec![Rectangle { x: 0, y: 0, ..part }];
        }
        changed
    }

    fn stamp(&self) -> Option<u64> {
        Some(self.state.lock().stamp)
    }

    fn cursor(&self) -> Option<(Arc<Cursor>, (i32, i32))> {
        let state = self.state.lock();
        state.cursor.clone().map(|cursor| (cursor, state.cursor_at))
    }

    fn can_resize(&self) -> bool {
        true
    }

    fn suggest_size(&self, width: u32, height: u32) {
        let mut state = self.state.lock();
        let size = (width.clamp(1, SIDE_MAX), height.clamp(1, SIDE_MAX));
        if self.size(&state) == size {
            return;
        }
        state.wanted = Some(size);
        state.stamp += 1;
        state.events |= spec::EVENT_DISPLAY;
        let events = state.driver.as_ref().map(|driver| Arc::clone(&driver.events));
        drop(state);
        if let Some(events) = events {
            events.config_changed();
        }
    }
}
