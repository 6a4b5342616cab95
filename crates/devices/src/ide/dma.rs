//! The bus master's registers of a channel, and its table of memory.

use memory::FlatView;

const START: u8 = 1;
const TO_MEMORY: u8 = 8;
const ACTIVE: u8 = 1;
const ERROR: u8 = 2;
const INTERRUPT: u8 = 4;

/// Entries that are followed: as many as the table's 64 KiB hold.
const ENTRIES_MAX: u32 = 8192;

/// The registers.
#[derive(Clone, Copy, Debug, Default)]
pub struct BusMaster {
    command: u8,
    status: u8,
    table: u32,
}

device::saved!(BusMaster { command, status, table });

impl BusMaster {
    pub fn is_started(&self) -> bool {
        self.command & START != 0
    }

    pub fn read(&self, at: u64) -> u8 {
        match at {
            0 => self.command,
            2 => self.status,
            4..8 => self.table.to_le_bytes()[(at - 4) as usize],
            _ => 0xff,
        }
    }

    /// True when it was started just now.
    pub fn write(&mut self, at: u64, value: u8) -> bool {
        match at {
            0 => {
                let starts = value & START != 0 && !self.is_started();
                self.command = value & (START | TO_MEMORY);
                match (starts, self.is_started()) {
                    (true, _) => self.status |= ACTIVE,
                    (false, false) => self.status &= !ACTIVE,
                    _ => {}
                }
                return starts;
            }
            2 => {
                self.status = self.status & !(value & (ERROR | INTERRUPT)) & !0x60 | value & 0x60;
            }
            4..8 => {
                let mut bytes = self.table.to_le_bytes();
                bytes[(at - 4) as usize] = value;
                self.table = u32::from_le_bytes(bytes) & !3;
            }
            _ => {}
        }
        false
    }

    /// The drive interrupts.
    pub fn interrupted(&mut self) {
        self.status |= INTERRUPT;
    }

    /// The transfer is over.
    pub fn ended(&mut self, well: bool) {
        self.status &= !ACTIVE;
        if !well {
            self.status |= ERROR;
        }
    }

    pub fn table(&self) -> Table {
        Table { next: self.table, left: ENTRIES_MAX, piece: (0, 0), last: false }
    }
}

/// The way through the table.
pub struct Table {
    next: u32,
    left: u32,
    piece: (u64, u64),
    last: bool,
}

impl Table {
    fn next_piece(&mut self, memory: &FlatView, most: u64) -> Option<(u64, u64)> {
        while self.piece.1 == 0 {
            if self.last || self.left == 0 {
                return None;
            }
            self.left -= 1;
            let entry = u64::from(self.next);
            let address = memory.read_value(entry, 4) & !1;
            let flags = memory.read_value(entry.wrapping_add(4), 4);
            let bytes = match flags & 0xfffe {
                0 => 0x1_0000,
                bytes => bytes,
            };
            self.last = flags & 1 << 31 != 0;
            self.next = self.next.wrapping_add(8);
            self.piece = (address, bytes);
        }
        let bytes = self.piece.1.min(most);
        let piece = (self.piece.0, bytes);
        self.piece = (self.piece.0 + bytes, self.piece.1 - bytes);
        Some(piece)
    }

    /// Moves bytes to memory. False when the table ends before them.
    pub fn give(&mut self, memory: &FlatView, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let Some((address, length)) = self.next_piece(memory, bytes.len() as u64) else {
                return false;
            };
            let (now, later) = bytes.split_at(length as usize);
            memory.write(address, now);
            bytes = later;
        }
        true
    }

    /// Moves bytes from memory. False when the table ends before them.
    pub fn take(&mut self, memory: &FlatView, mut bytes: &mut [u8]) -> bool {
        while !bytes.is_empty() {
            let Some((address, length)) = self.next_piece(memory, bytes.len() as u64) else {
                return false;
            };
            let (now, later) = bytes.split_at_mut(length as usize);
            memory.read(address, now);
            bytes = later;
        }
        true
    }
}
