//! Interrupters: rings of events that we fill, and the interrupts they raise. xHCI 4.9.4, 4.17.

use memory::FlatView;

use super::trb::Trb;

const PENDING: u32 = 1;
const ENABLED: u32 = 2;
/// Of the dequeue pointer: the system is at work on events.
const BUSY: u64 = 1 << 3;
/// Segments that a table may have.
const SEGMENTS_MAX: u32 = 16;

/// One interrupter.
#[derive(Clone, Debug, Default)]
pub struct Interrupter {
    management: u32,
    moderation: u32,
    segments: u32,
    table: u64,
    dequeue: u64,
    /// Segment, place in it, cycle bit.
    segment: u32,
    place: u32,
    cycle: bool,
}

device::saved!(Interrupter {
    management,
    moderation,
    segments,
    table,
    dequeue,
    segment,
    place,
    cycle,
} check |interrupter: &Interrupter| interrupter.place < 1 << 16 && interrupter.segment < SEGMENTS_MAX);

impl Interrupter {
    /// Whether it asks for an interrupt.
    pub fn is_pending(&self) -> bool {
        self.management & (PENDING | ENABLED) == PENDING | ENABLED
    }

    pub fn read(&self, register: u64) -> u32 {
        match register {
            0x00 => self.management,
            0x04 => self.moderation,
            0x08 => self.segments,
            0x10 => self.table as u32,
            0x14 => (self.table >> 32) as u32,
            0x18 => self.dequeue as u32,
            0x1c => (self.dequeue >> 32) as u32,
            _ => 0,
        }
    }

    pub fn write(&mut self, register: u64, value: u32) {
        let low = |now: u64| now & !0xffff_ffff | u64::from(value);
        let high = |now: u64| now & 0xffff_ffff | u64::from(value) << 32;
        match register {
            0x00 => {
                let pending = self.management & PENDING & !value;
                self.management = pending | value & ENABLED;
            }
            0x04 => self.moderation = value,
            0x08 => self.segments = value & 0xffff,
            0x10 => self.table = low(self.table) & !63,
            0x14 => {
                self.table = high(self.table);
                (self.segment, self.place, self.cycle) = (0, 0, true);
            }
            0x18 => {
                let busy = self.dequeue & BUSY & !u64::from(value);
                self.dequeue = low(self.dequeue) & !BUSY | busy;
            }
            0x1c => self.dequeue = high(self.dequeue),
            _ => {}
        }
    }

    fn current(&self, memory: &FlatView) -> Option<(u64, u32)> {
        if self.segments == 0 || self.segment >= self.segments.min(SEGMENTS_MAX) {
            return None;
        }
        let entry = self.table.wrapping_add(16 * u64::from(self.segment));
        let start = memory.read_value(entry, 8) & !63;
        let size = memory.read_value(entry.wrapping_add(8), 4) as u32 & 0xffff;
        (size >= 1).then_some((start, size))
    }

    /// Adds an event. It is lost where the ring is full, or not there.
    pub fn add(&mut self, memory: &FlatView, mut event: Trb) {
        let Some((start, size)) = self.current(memory) else { return };
        let at = start.wrapping_add(16 * u64::from(self.place));
        let (mut segment, mut place, mut cycle) = (self.segment, self.place + 1, self.cycle);
        if place >= size {
            (segment, place) = (segment + 1, 0);
            if segment >= self.segments.min(SEGMENTS_MAX) {
                (segment, cycle) = (0, !cycle);
            }
        }
        let next = Self { segment, place, cycle, ..self.clone() };
        let next_at =
            next.current(memory).map(|(start, _)| start.wrapping_add(16 * u64::from(place)));
        if next_at == Some(self.dequeue & !15) {
            return;
        }
        event.control = event.control & !1 | u32::from(self.cycle);
        event.write(memory, at);
        *self = next;
        self.management |= PENDING;
        self.dequeue |= BUSY;
    }

    /// The interrupt was sent as a message, which takes the pending bit back.
    pub fn was_sent(&mut self) {
        self.management &= !PENDING;
    }
}
