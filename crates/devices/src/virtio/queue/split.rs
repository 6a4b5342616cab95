//! The split ring: a descriptor table, the driver's ring, the device's ring. Virtio 1.3, 2.7.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use memory::{FlatView, Ram};

use super::chain::{Segment, Token};
use super::walk::{Broken, DESCRIPTOR_BYTES, Walk};
use super::{Area, Layout, Position};

/// A ring's state beside what lies in guest memory.
pub(super) struct Split {
    size: u16,
    descriptors: Area,
    /// Flags, index, entries, `used_event`.
    driver: Area,
    /// Flags, index, entries of 8 bytes, `avail_event`.
    device: Area,
    /// The next entry of the driver's ring.
    next_available: u16,
    /// The next entry of the device's ring.
    next_used: u16,
    /// `next_used` when the driver was last considered for an interrupt.
    signalled: u16,
}

/// The driver does not want interrupts: a hint.
const NO_INTERRUPT: u64 = 1;
/// Flags and index come before the entries.
const ENTRIES: u64 = 4;

impl Split {
    pub fn new(layout: &Layout, view: &FlatView) -> Result<Self, Broken> {
        let size = layout.size;
        if !size.is_power_of_two() {
            return Err(Broken);
        }
        let entries = u64::from(size);
        let bytes =
            [entries * DESCRIPTOR_BYTES, ENTRIES + entries * 2 + 2, ENTRIES + entries * 8 + 2];
        Ok(Self {
            size,
            descriptors: Area::new(view, layout.descriptors, bytes[0], 16, false)?,
            driver: Area::new(view, layout.driver, bytes[1], 2, false)?,
            device: Area::new(view, layout.device, bytes[2], 4, true)?,
            next_available: 0,
            next_used: 0,
            signalled: 0,
        })
    }

    /// Finds the ring again after the map has changed.
    pub fn relocate(&mut self, layout: &Layout, view: &FlatView) -> Result<(), Broken> {
        let (next_available, next_used, signalled) =
            (self.next_available, self.next_used, self.signalled);
        *self = Self { next_available, next_used, signalled, ..Self::new(layout, view)? };
        Ok(())
    }

    /// Chains that the driver has offered and the device has not taken.
    fn available(&self) -> Result<u16, Broken> {
        let count = (self.driver.read(2, 2) as u16).wrapping_sub(self.next_available);
        if count > self.size { Err(Broken) } else { Ok(count) }
    }

    /// The next chain. With none left the driver is asked to notify (when it goes by events).
    pub fn pop(
        &mut self,
        walk: &Walk<'_>,
        event_index: bool,
        segments: &mut Vec<Segment>,
    ) -> Result<Option<(Token, usize)>, Broken> {
        if self.available()? == 0 {
            if !event_index {
                return Ok(None);
            }
            let place = ENTRIES + u64::from(self.size) * 8;
            self.device.write(place, 2, u64::from(self.next_available));
            // The driver may have added one just before it could see the wish.
            fence(Ordering::SeqCst);
            if self.available()? == 0 {
                return Ok(None);
            }
        }
        let place = ENTRIES + u64::from(self.next_available % self.size) * 2;
        let head = self.driver.read(place, 2) as u16;
        let readable = walk.split(&self.descriptors, self.size, head, segments)?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(Some((Token { id: head, places: 1 }, readable)))
    }

    /// A chain that was taken before the state was saved.
    pub fn pop_again(
        &self,
        walk: &Walk<'_>,
        head: u16,
        segments: &mut Vec<Segment>,
    ) -> Result<(Token, usize), Broken> {
        let readable = walk.split(&self.descriptors, self.size, head, segments)?;
        Ok((Token { id: head, places: 1 }, readable))
    }

    /// Where it stands.
    pub fn saved(&self) -> Position {
        let Self { next_available, next_used, signalled, .. } = *self;
        Position { next_available, next_used, signalled, taken: Vec::new() }
    }

    /// Goes on from there.
    pub fn restore(&mut self, position: &Position) {
        self.next_available = position.next_available;
        self.next_used = position.next_used;
        self.signalled = position.signalled;
    }

    pub fn push(&mut self, used: &[(Token, u32)]) {
        for (token, bytes) in used {
            let place = ENTRIES + u64::from(self.next_used % self.size) * 8;
            self.device.write(place, 8, u64::from(*bytes) << 32 | u64::from(token.id));
            self.next_used = self.next_used.wrapping_add(1);
        }
        // A release: who sees the index sees the entries and the data.
        self.device.write(2, 2, u64::from(self.next_used));
    }

    /// Whether the driver wants an interrupt for what was pushed since the last question.
    pub fn wants_interrupt(&mut self, event_index: bool) -> bool {
        let before = std::mem::replace(&mut self.signalled, self.next_used);
        if before == self.next_used {
            return false;
        }
        // The index must be out before the driver's wish is read.
        fence(Ordering::SeqCst);
        if !event_index {
            return self.driver.read(0, 2) & NO_INTERRUPT == 0;
        }
        let event = self.driver.read(ENTRIES + u64::from(self.size) * 2, 2) as u16;
        let since_event = self.next_used.wrapping_sub(event).wrapping_sub(1);
        since_event < self.next_used.wrapping_sub(before)
    }

    /// Where the device stands, for drivers and saved states that ask.
    pub fn position(&self) -> u16 {
        self.next_available
    }
}

impl Area {
    fn new(
        view: &FlatView,
        address: u64,
        bytes: u64,
        alignment: u64,
        write: bool,
    ) -> Result<Self, Broken> {
        if !address.is_multiple_of(alignment) {
            return Err(Broken);
        }
        let piece = view.memory_at(address, bytes, write).filter(|piece| piece.length == bytes);
        let piece = piece.ok_or(Broken)?;
        Ok(Self { ram: Arc::clone(piece.ram), offset: piece.offset })
    }

    pub(super) fn ram(&self) -> &Ram {
        &self.ram
    }

    pub(super) fn read(&self, place: u64, size: u8) -> u64 {
        self.ram.read_value(self.offset + place, size)
    }

    pub(super) fn write(&self, place: u64, size: u8, value: u64) {
        self.ram.write_value(self.offset + place, size, value);
    }
}
