//! The controller's registers, rings and streams (chapters 3 and 4).

use device::saved;
use memory::FlatView;

use super::format::Format;

/// Streams that record come first, then as many that play.
pub const RECORDING: usize = 4;
pub const STREAMS: usize = 8;

const OUT_OF_RESET: u32 = 1;
const RUNS: u32 = 2;
/// Causes in a stream's status, which its control lets through by the same bits.
const CAUSES: u8 = 0x1c;
const BUFFER_COMPLETE: u8 = 4;
/// Buffers or their list are where no memory is.
const DESCRIPTOR_ERROR: u8 = 0x10;
/// In a buffer's entry: tell when it is through.
const TELLS: u32 = 1;
const INTERRUPTS: u32 = 1 << 31;
const CONTROLLER: u32 = 1 << 30;
/// Of the ring of answers: one has come, and the rings run.
const ANSWERED: u8 = 1;
const RING_RUNS: u8 = 2;
/// Rings have 256 entries and nothing else.
const RING_SIZE: u32 = 0x42;
/// Entries of buffers that one step goes through at most.
const ENTRIES_MAX: usize = 512;
/// The most bytes that one step moves.
const STEP_BYTES_MAX: u64 = 1 << 20;

/// One stream.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    control: u32,
    status: u8,
    position: u32,
    length: u32,
    last: u16,
    format: u16,
    list: u64,
    /// Which buffer it is in, and how far.
    entry: u16,
    offset: u32,
}

saved!(Stream { control, status, position, length, last, format, list, entry, offset });

impl Stream {
    pub fn runs(&self) -> bool {
        self.control & RUNS != 0
    }

    /// The number by which codecs know it.
    pub fn tag(&self) -> u8 {
        (self.control >> 20 & 15) as u8
    }

    pub fn format(&self) -> Format {
        Format::of(self.format)
    }

    fn write_control(&mut self, value: u32) {
        let value = value & 0xff_001f;
        if value & OUT_OF_RESET != 0 {
            // The bit means the opposite here: in reset.
            *self = Self { control: OUT_OF_RESET, ..Self::default() };
            return;
        }
        if value & RUNS != 0 && !self.runs() {
            (self.entry, self.offset) = (0, 0);
        }
        self.control = value;
    }

    /// Moves at most so many bytes through the buffers, whose pieces are handed to `at` with their
    /// addresses; how many they were.
    fn go(&mut self, memory: &FlatView, bytes: u64, mut at: impl FnMut(u64, u32) -> bool) -> u64 {
        let mut left = bytes;
        for _ in 0..ENTRIES_MAX {
            if left == 0 || self.length == 0 {
                break;
            }
            let mut entry = [0; 16];
            let entry_at = self.list.wrapping_add(16 * u64::from(self.entry));
            let is_there = memory.read_memory(entry_at, &mut entry);
            let (address, rest) = entry.split_first_chunk().unwrap_or((&[0; 8], &[]));
            let word =
                |at: usize| rest[at..].first_chunk().map_or(0, |four| u32::from_le_bytes(*four));
            let (address, length, flags) = (u64::from_le_bytes(*address), word(0), word(4));
            let in_entry = length.saturating_sub(self.offset);
            let in_ring = self.length.saturating_sub(self.position);
            let piece = in_entry.min(in_ring).min(u32::try_from(left).unwrap_or(u32::MAX));
            if !is_there || !at(address.wrapping_add(self.offset.into()), piece) {
                self.status |= DESCRIPTOR_ERROR;
                self.control &= !RUNS;
                break;
            }
            left -= u64::from(piece);
            self.position = (self.position + piece) % self.length;
            self.offset += piece;
            if self.offset >= length {
                self.offset = 0;
                self.entry = if self.entry >= self.last { 0 } else { self.entry + 1 };
                if flags & TELLS != 0 {
                    self.status |= BUFFER_COMPLETE;
                }
            } else if self.position == 0 {
                // The list is longer than the ring: from the start.
                (self.entry, self.offset) = (0, 0);
            }
        }
        bytes - left
    }
}

/// The controller.
#[derive(Clone, Debug, Default)]
pub struct Chip {
    control: u32,
    wakes: u16,
    changed: u16,
    enabled: u32,
    orders: Ring,
    answers: Ring,
    tells_after: u16,
    answered: u16,
    immediate: u32,
    immediate_answer: u32,
    immediate_status: u16,
    positions: u64,
    synchronized: u32,
    pub streams: [Stream; STREAMS],
}

#[derive(Clone, Debug, Default)]
struct Ring {
    base: u64,
    write: u16,
    read: u16,
    control: u8,
    status: u8,
}

saved!(Ring { base, write, read, control, status });
saved!(Chip {
    control,
    wakes,
    changed,
    enabled,
    orders,
    answers,
    tells_after,
    answered,
    immediate,
    immediate_answer,
    immediate_status,
    positions,
    synchronized,
    streams
});

/// What follows from a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Orders may be waiting.
    pub orders: bool,
    /// An order that came by register.
    pub immediate: Option<u32>,
    /// Streams have begun or ended.
    pub streams: bool,
    /// Codecs are reset.
    pub reset: bool,
}

/// Replaces the bytes of a word that are written.
fn merge(old: u32, value: u32, mask: u32) -> u32 {
    old & !mask | value & mask
}

fn set_low(base: &mut u64, value: u32, mask: u32, align: u32) {
    *base = *base & !0xffff_ffff | u64::from(merge(*base as u32, value, mask) & !(align - 1));
}

fn set_high(base: &mut u64, value: u32, mask: u32) {
    let high = merge((*base >> 32) as u32, value, mask);
    *base = *base & 0xffff_ffff | u64::from(high) << 32;
}

impl Chip {
    /// All registers as after power-on; the link is in reset.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether the link runs.
    fn is_on(&self) -> bool {
        self.control & 1 != 0
    }

    /// What the interrupt's register says.
    fn causes(&self) -> u32 {
        let mut causes = 0;
        for (number, stream) in self.streams.iter().enumerate() {
            if stream.status & CAUSES & stream.control as u8 != 0 {
                causes |= 1 << number;
            }
        }
        let answers = self.answers.status & self.answers.control & 5 != 0;
        if answers || self.changed & self.wakes != 0 {
            causes |= CONTROLLER;
        }
        if causes & self.enabled & !INTERRUPTS != 0 { causes | INTERRUPTS } else { causes }
    }

    /// The interrupt's level.
    pub fn irq(&self) -> bool {
        self.causes() & self.enabled & INTERRUPTS != 0
    }

    /// The word at an address that is a multiple of four. `now_ns` is for the wall clock.
    pub fn read(&self, at: u64, now_ns: u64) -> u32 {
        let pair = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        match at {
            // 4 streams each way, 64-bit addresses, version 1.0.
            0x00 => 0x0100_4401,
            0x04 => pair(0x3c, 0x1d),
            0x08 => self.control,
            0x0c => pair(self.wakes, self.changed),
            0x18 => pair(0x3c, 0x1d),
            0x20 => self.enabled,
            0x24 => self.causes(),
            // 24 MHz
            0x30 => (u128::from(now_ns) * 24 / 1000) as u32,
            0x38 => self.synchronized,
            0x40 => self.orders.base as u32,
            0x44 => (self.orders.base >> 32) as u32,
            0x48 => pair(self.orders.write, self.orders.read),
            0x4c => pair(
                u16::from(self.orders.control) | u16::from(self.orders.status) << 8,
                RING_SIZE as u16,
            ),
            0x50 => self.answers.base as u32,
            0x54 => (self.answers.base >> 32) as u32,
            0x58 => pair(self.answers.write, self.tells_after),
            0x5c => pair(
                u16::from(self.answers.control) | u16::from(self.answers.status) << 8,
                RING_SIZE as u16,
            ),
            0x60 => self.immediate,
            0x64 => self.immediate_answer,
            0x68 => self.immediate_status.into(),
            0x70 => self.positions as u32,
            0x74 => (self.positions >> 32) as u32,
            0x80..0x180 => self.streams[(at - 0x80) as usize / 0x20].read(at & 0x1c),
            // The streams' positions once more, where some drivers look.
            0x2084..0x2180 if at & 0x1c == 4 => {
                self.streams[(at - 0x2080) as usize / 0x20].position
            }
            _ => 0,
        }
    }

    /// Writes the bytes of a word that `mask` covers.
    pub fn write(&mut self, at: u64, value: u32, mask: u32) -> Effect {
        let mut effect = Effect::default();
        if !self.is_on() && at != 0x08 {
            return effect; // nothing else is heard in reset
        }
        let low = |old: u16| merge(old.into(), value, mask) as u16;
        let clears = value & mask;
        match at {
            0x08 => {
                let control = merge(self.control, value, mask) & 0x103;
                if control & 1 == 0 {
                    self.reset();
                    (effect.reset, effect.streams) = (true, true);
                } else if self.control & 1 == 0 {
                    effect.reset = true;
                }
                self.control = control & !2;
            }
            0x0c => {
                self.wakes = low(self.wakes) & 0x7fff;
                self.changed &= !((clears >> 16) as u16);
            }
            0x20 => self.enabled = merge(self.enabled, value, mask) & 0xc000_00ff,
            0x38 => self.synchronized = merge(self.synchronized, value, mask) & 0xff,
            0x40..0x60 => {
                self.write_ring(at, value, mask);
                effect.orders = true;
            }
            0x60 => self.immediate = merge(self.immediate, value, mask),
            0x68 => {
                self.immediate_status &= !(clears as u16 & 2);
                if clears & 1 != 0 {
                    effect.immediate = Some(self.immediate);
                }
            }
            0x70 => set_low(&mut self.positions, value, mask, 2),
            0x74 => set_high(&mut self.positions, value, mask),
            0x80..0x180 => {
                let stream = &mut self.streams[(at - 0x80) as usize / 0x20];
                let before = (stream.runs(), stream.tag(), stream.format);
                stream.write(at & 0x1c, value, mask);
                effect.streams = before != (stream.runs(), stream.tag(), stream.format);
            }
            _ => {}
        }
        effect
    }

    /// The registers of both rings.
    fn write_ring(&mut self, at: u64, value: u32, mask: u32) {
        let low = |old: u16| merge(old.into(), value, mask) as u16;
        let high = |old: u16| (merge(u32::from(old) << 16, value, mask) >> 16) as u16;
        let clears = value & mask;
        match at {
            0x40 => set_low(&mut self.orders.base, value, mask, 128),
            0x44 => set_high(&mut self.orders.base, value, mask),
            0x48 => {
                self.orders.write = low(self.orders.write) & 0xff;
                if mask & 0xffff_0000 != 0 {
                    // The bit stays until it is taken back, which is how drivers know.
                    let reset = value & 1 << 31 != 0;
                    self.orders.read = if reset { 0x8000 } else { 0 };
                }
            }
            0x4c => {
                self.orders.control = low(self.orders.control.into()) as u8 & 3;
                self.orders.status &= !((clears >> 8) as u8);
            }
            0x50 => set_low(&mut self.answers.base, value, mask, 128),
            0x54 => set_high(&mut self.answers.base, value, mask),
            0x58 => {
                if mask & 0xffff != 0 && value & 1 << 15 != 0 {
                    self.answers.write = 0;
                }
                self.tells_after = high(self.tells_after) & 0xff;
            }
            0x5c => {
                self.answers.control = low(self.answers.control.into()) as u8 & 7;
                self.answers.status &= !((clears >> 8) as u8);
            }
            _ => {}
        }
    }

    /// Codecs say that they are there.
    pub fn present(&mut self, codecs: u16) {
        if self.is_on() {
            self.changed |= codecs;
        }
    }

    /// The next order in the ring.
    pub fn next_order(&mut self, memory: &FlatView) -> Option<u32> {
        let Ring { base, write, read, control, .. } = self.orders;
        let runs = control & RING_RUNS != 0 && self.answers.control & RING_RUNS != 0;
        if !runs || !self.is_on() || write == read & 0xff || read & 0x8000 != 0 {
            return None;
        }
        self.orders.read = (read + 1) & 0xff;
        let mut order = [0; 4];
        let at = base.wrapping_add(4 * u64::from(self.orders.read));
        memory.read_memory(at, &mut order).then_some(())?;
        Some(u32::from_le_bytes(order))
    }

    /// Puts a codec's answer into the ring.
    pub fn answer(&mut self, memory: &FlatView, codec: u8, answer: u32) {
        self.answers.write = (self.answers.write + 1) & 0xff;
        let at = self.answers.base.wrapping_add(8 * u64::from(self.answers.write));
        let entry = u64::from(answer) | u64::from(codec) << 32;
        // A ring where no memory is loses its answers.
        _ = memory.write_memory(at, &entry.to_le_bytes());
        self.answered += 1;
        // No number stands for all 256.
        let after = if self.tells_after == 0 { 256 } else { self.tells_after };
        if self.answered >= after || self.orders.write == self.orders.read {
            self.answered = 0;
            self.answers.status |= ANSWERED;
        }
    }

    /// Answers an order that came by register.
    pub fn answer_immediate(&mut self, answer: Option<u32>) {
        self.immediate_answer = answer.unwrap_or(0);
        self.immediate_status = if answer.is_some() { 2 } else { 0 };
    }

    /// Whether a stream runs at all.
    pub fn any_runs(&self) -> bool {
        self.streams.iter().any(Stream::runs)
    }

    /// Lets a stream go on for some bytes: what it has played; one that records gets zeroes. Gives
    /// the number of bytes, too.
    pub fn go(&mut self, memory: &FlatView, number: usize, bytes: u64) -> (Vec<u8>, u64) {
        let stream = &mut self.streams[number];
        let mut played = Vec::new();
        let gone = stream.go(memory, bytes.min(STEP_BYTES_MAX), |address, count| {
            if number < RECORDING {
                memory.write_memory(address, &vec![0; count as usize])
            } else {
                let start = played.len();
                played.resize(start + count as usize, 0);
                memory.read_memory(address, &mut played[start..])
            }
        });
        if self.positions & 1 != 0 {
            let at = (self.positions & !1).wrapping_add(8 * number as u64);
            _ = memory.write_memory(at, &self.streams[number].position.to_le_bytes());
        }
        (played, gone)
    }
}

impl Stream {
    fn read(&self, at: u64) -> u32 {
        match at {
            0x00 => self.control | u32::from(self.status) << 24,
            0x04 => self.position,
            0x08 => self.length,
            0x0c => self.last.into(),
            0x10 => 0x100 | u32::from(self.format) << 16, // 256 bytes of FIFO
            0x18 => self.list as u32,
            0x1c => (self.list >> 32) as u32,
            _ => 0,
        }
    }

    fn write(&mut self, at: u64, value: u32, mask: u32) {
        match at {
            0x00 => {
                self.status &= !((value & mask) >> 24) as u8;
                if mask & 0xff_ffff != 0 {
                    self.write_control(merge(self.control, value, mask));
                }
            }
            0x08 => self.length = merge(self.length, value, mask),
            0x0c => self.last = merge(self.last.into(), value, mask) as u16 & 0xff,
            0x10 => {
                let word = merge(u32::from(self.format) << 16, value, mask);
                self.format = (word >> 16) as u16 & 0x7f7f;
            }
            0x18 => set_low(&mut self.list, value, mask, 128),
            0x1c => set_high(&mut self.list, value, mask),
            _ => {}
        }
        // Whatever is loaded or written, the position is inside of the ring.
        if self.position >= self.length {
            self.position = 0;
        }
    }
}
