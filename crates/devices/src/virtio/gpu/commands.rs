//! The driver's commands.

use std::sync::Arc;

use device::{Cursor, Rectangle, SIDE_MAX};

use super::edid::edid;
use super::resource::{Format, Resource};
use super::{Gpu, State, spec};
use crate::virtio::{Chain, queue};

type Reader<'a> = queue::Cursor<'a>;
/// An answer's type and what comes behind its header; or the type of an error.
type Answer = Result<(u32, Vec<u8>), u32>;

const DONE: Answer = Ok((spec::OK, Vec::new()));

fn word(reader: &mut Reader<'_>) -> Result<u32, u32> {
    reader.array().map(u32::from_le_bytes).ok_or(spec::ERROR_PARAMETER)
}

fn long(reader: &mut Reader<'_>) -> Result<u64, u32> {
    reader.array().map(u64::from_le_bytes).ok_or(spec::ERROR_PARAMETER)
}

fn rectangle(reader: &mut Reader<'_>) -> Result<Rectangle, u32> {
    let (x, y) = (word(reader)?, word(reader)?);
    Ok(Rectangle { x, y, width: word(reader)?, height: word(reader)? })
}

impl Gpu {
    /// Follows a command: the answer's bytes.
    pub(super) fn follow(&self, state: &mut State, chain: &Chain) -> Vec<u8> {
        let mut reader = chain.reader();
        let Some(header) = reader.array::<{ spec::HEADER_BYTES }>() else {
            return [spec::ERROR_PARAMETER.to_le_bytes(), [0; 4]].concat();
        };
        let half = |at: usize| header[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        let result = match half(0) {
            spec::GET_DISPLAY_INFO => Ok(self.display_info(state)),
            spec::GET_EDID => self.get_edid(state, &mut reader),
            spec::CREATE_2D => self.create(state, &mut reader),
            spec::UNREF => unref(state, &mut reader),
            spec::SET_SCANOUT => set_scanout(state, &mut reader),
            spec::FLUSH => flush(state, &mut reader),
            spec::TRANSFER => transfer(state, &mut reader, chain),
            spec::ATTACH_BACKING => attach(state, &mut reader),
            spec::DETACH_BACKING => detach(state, &mut reader),
            spec::UPDATE_CURSOR | spec::MOVE_CURSOR => {
                cursor(state, &mut reader, half(0) == spec::UPDATE_CURSOR)
            }
            _ => Err(spec::ERROR),
        };
        let (kind, body) = result.unwrap_or_else(|error| (error, Vec::new()));
        let mut answer = [0; spec::HEADER_BYTES];
        answer[..4].copy_from_slice(&kind.to_le_bytes());
        if half(4) & spec::FLAG_FENCE != 0 {
            // All is done when it is answered, so the fence is passed.
            answer[4] = spec::FLAG_FENCE as u8;
            answer[8..].copy_from_slice(&header[8..]);
        }
        [&answer[..], &body].concat()
    }

    fn display_info(&self, state: &State) -> (u32, Vec<u8>) {
        let (width, height) = self.size(state);
        let mut body = Vec::with_capacity(spec::SCANOUTS_MAX * 24);
        for word in [0, 0, width, height, 1, 0] {
            body.extend(word.to_le_bytes());
        }
        body.resize(spec::SCANOUTS_MAX * 24, 0);
        (spec::OK_DISPLAY_INFO, body)
    }

    fn get_edid(&self, state: &State, reader: &mut Reader<'_>) -> Answer {
        if word(reader)? != 0 {
            return Err(spec::ERROR_SCANOUT);
        }
        let (width, height) = self.size(state);
        let edid = edid(width, height);
        let mut body = (edid.len() as u32).to_le_bytes().to_vec();
        body.extend([0; 4]);
        body.extend(edid);
        body.resize(8 + spec::EDID_ROOM, 0);
        Ok((spec::OK_EDID, body))
    }

    fn create(&self, state: &mut State, reader: &mut Reader<'_>) -> Answer {
        let (id, format) = (word(reader)?, word(reader)?);
        let (width, height) = (word(reader)?, word(reader)?);
        if id == 0 || state.resources.contains_key(&id) {
            return Err(spec::ERROR_RESOURCE);
        }
        let format = Format::new(format).ok_or(spec::ERROR_PARAMETER)?;
        if !(1..=SIDE_MAX).contains(&width) || !(1..=SIDE_MAX).contains(&height) {
            return Err(spec::ERROR_PARAMETER);
        }
        let bytes = u64::from(width) * u64::from(height) * 4;
        let full = state.resources.len() >= spec::RESOURCES_MAX;
        if full || state.bytes + bytes > self.config.memory_bytes_max {
            return Err(spec::ERROR_MEMORY);
        }
        state.bytes += bytes;
        state.resources.insert(id, Resource::new(width, height, format));
        DONE
    }
}

fn resource(state: &mut State, id: u32) -> Result<&mut Resource, u32> {
    state.resources.get_mut(&id).ok_or(spec::ERROR_RESOURCE)
}

fn unref(state: &mut State, reader: &mut Reader<'_>) -> Answer {
    let id = word(reader)?;
    let gone = state.resources.remove(&id).ok_or(spec::ERROR_RESOURCE)?;
    state.bytes -= gone.bytes();
    if state.shown.is_some_and(|(shown, _)| shown == id) {
        state.shown = None;
    }
    DONE
}

fn set_scanout(state: &mut State, reader: &mut Reader<'_>) -> Answer {
    let part = rectangle(reader)?;
    let (scanout, id) = (word(reader)?, word(reader)?);
    if scanout != 0 {
        return Err(spec::ERROR_SCANOUT);
    }
    if id == 0 {
        state.shown = None;
        return DONE;
    }
    let resource = resource(state, id)?;
    if !resource.holds(&part) || part.width == 0 || part.height == 0 {
        return Err(spec::ERROR_PARAMETER);
    }
    state.shown = Some((id, part));
    DONE
}

/// Whoever looks finds changes by looking, so there is only to check.
fn flush(state: &mut State, reader: &mut Reader<'_>) -> Answer {
    let part = rectangle(reader)?;
    let id = word(reader)?;
    if resource(state, id)?.holds(&part) { DONE } else { Err(spec::ERROR_PARAMETER) }
}

fn transfer(state: &mut State, reader: &mut Reader<'_>, chain: &Chain) -> Answer {
    let part = rectangle(reader)?;
    let (offset, id) = (long(reader)?, word(reader)?);
    let resource = resource(state, id)?;
    if !resource.holds(&part) || !resource.is_backed() {
        return Err(spec::ERROR_PARAMETER);
    }
    if resource.transfer(&part, offset, chain.memory()) { DONE } else { Err(spec::ERROR) }
}

fn attach(state: &mut State, reader: &mut Reader<'_>) -> Answer {
    let (id, count) = (word(reader)?, word(reader)?);
    let resource = resource(state, id)?;
    if resource.is_backed() || count > spec::BACKING_ENTRIES_MAX {
        return Err(spec::ERROR);
    }
    if reader.left() < u64::from(count) * 16 {
        return Err(spec::ERROR_PARAMETER);
    }
    let mut entries = Vec::with_capacity(count as usize);
    for _ in 0..count {
        entries.push((long(reader)?, word(reader)?));
        word(reader)?;
    }
    resource.attach(entries.into_iter());
    DONE
}

fn detach(state: &mut State, reader: &mut Reader<'_>) -> Answer {
    let id = word(reader)?;
    resource(state, id)?.detach();
    DONE
}

/// Moves the pointer, or shows another: none for the picture 0.
fn cursor(state: &mut State, reader: &mut Reader<'_>, update: bool) -> Answer {
    let scanout = word(reader)?;
    let at = (word(reader)? as i32, word(reader)? as i32);
    word(reader)?;
    let (id, hot) = (word(reader)?, (word(reader)?, word(reader)?));
    if scanout != 0 {
        return Err(spec::ERROR_SCANOUT);
    }
    state.cursor_at = at;
    if !update {
        return DONE;
    }
    if id == 0 {
        state.cursor = None;
        return DONE;
    }
    let picture = resource(state, id)?;
    let side = spec::CURSOR_SIDE;
    if (picture.width, picture.height) != (side, side) || hot.0 >= side || hot.1 >= side {
        return Err(spec::ERROR_PARAMETER);
    }
    let pixels = picture.pixels.clone();
    state.cursor = Some(Arc::new(Cursor { width: side, height: side, hot, pixels }));
    DONE
}
