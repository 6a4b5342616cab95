//! One cable with two drives: task file, data port, interrupt.

use device::StateError;
use device::state::{Reader, Value};
use memory::FlatView;

use super::dma::BusMaster;
use crate::ata::{
    Action, CD_BLOCK, Drive, ERROR_ABORT, ERROR_DATA, How, PacketAction, SECTOR, STATUS_DATA,
    STATUS_ERROR, STATUS_READY, Slots, TaskFile,
};

const CONTROL_QUIET: u8 = 2; // no interrupts
const CONTROL_RESET: u8 = 4;
const CONTROL_HIGH: u8 = 0x80; // show the older values
const SECOND: u8 = 0x10; // of the device register
const PACKET_BYTES: usize = 12;
/// What moves at once by DMA.
const PIECE_SECTORS: u32 = 256;

/// What the data port is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Flow {
    Idle,
    /// Sectors to the guest: the next one, and how many after this buffer.
    Read {
        lba: u64,
        left: u32,
        block: u32,
    },
    /// Sectors from the guest: where this buffer goes, and how many after it.
    Write {
        lba: u64,
        left: u32,
        block: u32,
    },
    /// Bytes to the guest, and then nothing.
    Last,
    /// Bytes from the guest for the command.
    Take(TaskFile),
    /// A packet.
    Packet {
        dma: bool,
    },
    /// A packet's data: what comes after this buffer.
    PacketData(Vec<u8>),
    /// Blocks of a CD: the next one, and how many after this buffer.
    Blocks {
        block: u64,
        left: u32,
    },
    /// The command waits for the bus master.
    Dma(Pending),
}

/// Every kind of flow by its number: place, count, block, bytes and task, as far as it has them.
type SavedFlow = (u8, (u64, u32, u32), Vec<u8>, TaskFile);

impl Value for Flow {
    fn save(&self, into: &mut Vec<u8>) {
        let none = || (Vec::new(), TaskFile::default());
        let plain = |number, at, count, block| {
            let (bytes, task) = none();
            (number, (at, count, block), bytes, task)
        };
        let saved: SavedFlow = match self {
            Self::Idle => plain(0, 0, 0, 0),
            Self::Read { lba, left, block } => plain(1, *lba, *left, *block),
            Self::Write { lba, left, block } => plain(2, *lba, *left, *block),
            Self::Last => plain(3, 0, 0, 0),
            Self::Take(task) => (4, (0, 0, 0), Vec::new(), *task),
            Self::Packet { dma } => plain(5, 0, u32::from(*dma), 0),
            Self::PacketData(bytes) => (6, (0, 0, 0), bytes.clone(), TaskFile::default()),
            Self::Blocks { block, left } => plain(7, *block, *left, 0),
            Self::Dma(Pending::Read { lba, sectors }) => plain(8, *lba, *sectors, 0),
            Self::Dma(Pending::Write { lba, sectors }) => plain(9, *lba, *sectors, 0),
            Self::Dma(Pending::Blocks { block, blocks }) => plain(10, *block, *blocks, 0),
            Self::Dma(Pending::Data(bytes)) => (11, (0, 0, 0), bytes.clone(), TaskFile::default()),
        };
        saved.save(into);
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        let mut saved = SavedFlow::default();
        saved.load(from)?;
        let (number, (lba, left, block), bytes, task) = saved;
        if lba >= 1 << 48 || left > SECTORS_MAX || block > SECTORS_MAX {
            return Err(StateError::bad("a drive has no such place"));
        }
        *self = match number {
            0 => Self::Idle,
            1 => Self::Read { lba, left, block: block.max(1) },
            2 => Self::Write { lba, left, block: block.max(1) },
            3 => Self::Last,
            4 => Self::Take(task),
            5 => Self::Packet { dma: left != 0 },
            6 => Self::PacketData(bytes),
            7 => Self::Blocks { block: lba, left },
            8 => Self::Dma(Pending::Read { lba, sectors: left }),
            9 => Self::Dma(Pending::Write { lba, sectors: left }),
            10 => Self::Dma(Pending::Blocks { block: lba, blocks: left }),
            11 => Self::Dma(Pending::Data(bytes)),
            _ => return Err(StateError::bad(format!("a drive does nothing of number {number}"))),
        };
        Ok(())
    }
}

/// Sectors that a command moves at most.
const SECTORS_MAX: u32 = 1 << 16;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pending {
    Read { lba: u64, sectors: u32 },
    Write { lba: u64, sectors: u32 },
    Blocks { block: u64, blocks: u32 },
    Data(Vec<u8>),
}

/// The registers of a channel.
#[derive(Clone)]
pub struct IdeChannel {
    /// Error, features, count, LBA low, mid, high: the newest and the one before.
    features: [u8; 2],
    count: [u8; 2],
    lba: [[u8; 2]; 3],
    device: u8,
    error: u8,
    status: u8,
    control: u8,
    buffer: Vec<u8>,
    at: usize,
    flow: Flow,
    interrupts: bool,
    /// The bus master.
    pub master: BusMaster,
}

device::saved!(IdeChannel {
    features,
    count,
    lba,
    device,
    error,
    status,
    control,
    buffer,
    at,
    flow,
    interrupts,
    master,
} check |channel: &IdeChannel| channel.at <= channel.buffer.len());

impl Default for IdeChannel {
    fn default() -> Self {
        Self {
            features: [0; 2],
            count: [1; 2],
            lba: [[1, 1], [0; 2], [0; 2]],
            device: 0,
            error: 1,
            status: STATUS_READY,
            control: 0,
            buffer: Vec::new(),
            at: 0,
            flow: Flow::Idle,
            interrupts: false,
            master: BusMaster::default(),
        }
    }
}

impl IdeChannel {
    /// The level of the interrupt line.
    #[must_use]
    pub fn irq(&self) -> bool {
        self.interrupts && self.control & CONTROL_QUIET == 0
    }

    fn unit(&self) -> usize {
        usize::from(self.device & SECOND != 0)
    }

    fn with<T>(&self, slots: &Slots, ask: impl FnOnce(&mut Drive) -> T) -> Option<T> {
        slots.get(self.unit()).map(|drive| ask(&mut drive.lock()))
    }

    fn show_signature(&mut self, slots: &Slots) {
        let signature = self.with(slots, |drive| (drive.signature(), drive.is_packet()));
        let ([count, low, middle, high], packet) = signature.unwrap_or(([1, 1, 0xff, 0xff], false));
        self.count[0] = count;
        (self.lba[0][0], self.lba[1][0], self.lba[2][0]) = (low, middle, high);
        self.error = 1;
        self.status = if packet { 0 } else { STATUS_READY };
    }

    /// As after power-on.
    pub fn reset(&mut self, slots: &Slots) {
        *self = Self { master: BusMaster::default(), ..Self::default() };
        for unit in 0..2 {
            if let Some(drive) = slots.get(unit) {
                drive.lock().reset();
            }
        }
        self.show_signature(slots);
    }

    /// Reads a register of the command block (not the data port).
    pub fn read(&mut self, slots: &Slots, at: u64) -> u8 {
        if slots.get(0).is_none() && slots.get(1).is_none() {
            return 0; // pull-downs on an empty cable say that nobody is busy
        }
        let old = usize::from(self.control & CONTROL_HIGH != 0);
        match at {
            1 => self.error,
            2 => self.count[old],
            3..=5 => self.lba[at as usize - 3][old],
            6 => self.device | 0xa0,
            _ => {
                self.interrupts = false;
                self.alternate_status(slots)
            }
        }
    }

    /// The status without taking the interrupt back.
    #[must_use]
    pub fn alternate_status(&self, slots: &Slots) -> u8 {
        if slots.get(self.unit()).is_some() { self.status } else { 0 }
    }

    /// Writes a register of the command block (not the data port).
    pub fn write(&mut self, slots: &Slots, memory: Option<&FlatView>, at: u64, value: u8) {
        self.control &= !CONTROL_HIGH;
        let push = |register: &mut [u8; 2]| *register = [value, register[0]];
        match at {
            1 => push(&mut self.features),
            2 => push(&mut self.count),
            3..=5 => push(&mut self.lba[at as usize - 3]),
            6 => self.device = value,
            _ => self.command(slots, memory, value),
        }
    }

    /// Writes the control register.
    pub fn write_control(&mut self, slots: &Slots, value: u8) {
        let released = self.control & CONTROL_RESET != 0 && value & CONTROL_RESET == 0;
        self.control = value;
        if released {
            let (control, master) = (value, self.master);
            self.reset(slots);
            (self.control, self.master) = (control, master);
        }
    }

    fn interrupt(&mut self) {
        self.interrupts = true;
        self.master.interrupted();
    }

    fn fail(&mut self, error: u8) {
        self.error = error;
        self.status = STATUS_READY | STATUS_ERROR;
        self.flow = Flow::Idle;
        self.interrupt();
    }

    fn done(&mut self) {
        self.error = 0;
        self.status = STATUS_READY;
        self.flow = Flow::Idle;
        self.interrupt();
    }

    /// Offers the buffer at the data port, or asks for it.
    fn offer(&mut self, buffer: Vec<u8>, flow: Flow) {
        (self.buffer, self.at, self.flow) = (buffer, 0, flow);
        self.status = STATUS_READY | STATUS_DATA;
        self.error = 0;
    }

    fn command(&mut self, slots: &Slots, memory: Option<&FlatView>, command: u8) {
        self.interrupts = false;
        let wide = |register: [u8; 2]| u16::from(register[0]) | u16::from(register[1]) << 8;
        let part = |at: usize, shift: u32| {
            u64::from(self.lba[at][0]) << shift | u64::from(self.lba[at][1]) << (shift + 24)
        };
        let task = TaskFile {
            command,
            features: wide(self.features),
            lba: part(0, 0) | part(1, 8) | part(2, 16),
            count: wide(self.count),
            device: self.device,
        };
        let Some(action) = self.with(slots, |drive| drive.begin(&task)) else { return };
        match action {
            Action::Done => self.done(),
            Action::Fail(error) => {
                if self.with(slots, |drive| drive.is_packet()) == Some(true) && command == 0xec {
                    self.show_signature(slots);
                }
                self.fail(error);
            }
            Action::Signature => {
                self.show_signature(slots);
                self.interrupt();
            }
            Action::Data(bytes) => {
                self.offer(bytes, Flow::Last);
                self.interrupt();
            }
            Action::Take(bytes) => self.offer(vec![0; bytes as usize], Flow::Take(task)),
            Action::Read { lba, sectors, how: How::Programmed(block) } => {
                self.flow = Flow::Read { lba, left: sectors, block };
                self.next_read(slots);
            }
            Action::Write { lba, sectors, how: How::Programmed(block) } => {
                let now = sectors.min(block);
                let flow = Flow::Write { lba, left: sectors - now, block };
                self.offer(vec![0; (u64::from(now) * SECTOR) as usize], flow);
            }
            Action::Read { lba, sectors, .. } => {
                self.wait_for_master(memory, slots, Pending::Read { lba, sectors });
            }
            Action::Write { lba, sectors, .. } => {
                self.wait_for_master(memory, slots, Pending::Write { lba, sectors });
            }
            Action::Packet { dma } => {
                self.count[0] = 1; // a command is wanted
                self.offer(vec![0; PACKET_BYTES], Flow::Packet { dma });
            }
        }
    }

    fn next_read(&mut self, slots: &Slots) {
        let Flow::Read { lba, left, block } = self.flow else { return };
        if left == 0 {
            (self.flow, self.status) = (Flow::Idle, STATUS_READY);
            return;
        }
        let now = left.min(block);
        let mut buffer = vec![0; (u64::from(now) * SECTOR) as usize];
        if !read_disk(slots, self.unit(), lba, &mut buffer) {
            return self.fail(ERROR_DATA);
        }
        self.offer(buffer, Flow::Read { lba: lba + u64::from(now), left: left - now, block });
        self.interrupt();
    }

    /// Bytes from the data port, least first.
    pub fn read_data(&mut self, slots: &Slots, size: u8) -> u64 {
        let mut value = 0;
        let gives = !matches!(
            self.flow,
            Flow::Write { .. } | Flow::Take(_) | Flow::Packet { .. } | Flow::Idle | Flow::Dma(_)
        );
        for index in 0..u64::from(size) {
            if !gives || self.status & STATUS_DATA == 0 {
                break;
            }
            let byte = self.buffer.get(self.at).copied().unwrap_or(0);
            value |= u64::from(byte) << (8 * index);
            self.at += 1;
        }
        if gives && self.at >= self.buffer.len() {
            self.buffer_is_through(slots, None);
        }
        value
    }

    /// Bytes to the data port.
    pub fn write_data(&mut self, slots: &Slots, memory: Option<&FlatView>, size: u8, value: u64) {
        let takes = matches!(self.flow, Flow::Write { .. } | Flow::Take(_) | Flow::Packet { .. });
        if !takes || self.status & STATUS_DATA == 0 {
            return;
        }
        for byte in &value.to_le_bytes()[..usize::from(size)] {
            if let Some(place) = self.buffer.get_mut(self.at) {
                *place = *byte;
                self.at += 1;
            }
        }
        if self.at >= self.buffer.len() {
            self.buffer_is_through(slots, memory);
        }
    }

    fn buffer_is_through(&mut self, slots: &Slots, memory: Option<&FlatView>) {
        let buffer = std::mem::take(&mut self.buffer);
        self.at = 0;
        match std::mem::replace(&mut self.flow, Flow::Idle) {
            flow @ Flow::Read { .. } => {
                self.flow = flow;
                self.next_read(slots);
            }
            Flow::Last => self.status = STATUS_READY,
            Flow::Write { lba, left, block } => {
                if !write_disk(slots, self.unit(), lba, &buffer) {
                    return self.fail(ERROR_DATA);
                }
                if left == 0 {
                    return self.done();
                }
                let now = left.min(block);
                let lba = lba + buffer.len() as u64 / SECTOR;
                let flow = Flow::Write { lba, left: left - now, block };
                self.offer(vec![0; (u64::from(now) * SECTOR) as usize], flow);
                self.interrupt();
            }
            Flow::Take(task) => match self.with(slots, |drive| drive.take(&task, &buffer)) {
                Some(true) => self.done(),
                _ => self.fail(ERROR_ABORT),
            },
            Flow::Packet { dma } => {
                if let Ok(packet) = buffer.as_slice().try_into() {
                    self.packet(slots, memory, packet, dma);
                }
            }
            Flow::PacketData(rest) => self.packet_data(rest),
            Flow::Blocks { block, left } => self.next_block(slots, block, left),
            Flow::Idle | Flow::Dma(_) => {}
        }
    }

    fn packet(&mut self, slots: &Slots, memory: Option<&FlatView>, packet: &[u8; 12], dma: bool) {
        let begun = self.with(slots, |drive| match drive {
            Drive::Cdrom(cdrom) => cdrom.packet(packet),
            Drive::Disk(_) => PacketAction::Done,
        });
        match begun {
            Some(PacketAction::Fail(sense)) => self.packet_failed(sense.0),
            Some(PacketAction::Data(bytes)) if dma => {
                self.wait_for_master(memory, slots, Pending::Data(bytes));
            }
            Some(PacketAction::Data(bytes)) => self.packet_data(bytes),
            Some(PacketAction::Read { block, blocks }) if dma => {
                self.wait_for_master(memory, slots, Pending::Blocks { block, blocks });
            }
            Some(PacketAction::Read { block, blocks }) => self.next_block(slots, block, blocks),
            Some(PacketAction::Done | PacketAction::Tray(_)) | None => self.packet_done(),
        }
    }

    fn packet_failed(&mut self, key: u8) {
        self.count[0] = 3;
        self.fail(key << 4 | ERROR_ABORT);
    }

    fn packet_done(&mut self) {
        self.count[0] = 3;
        self.done();
    }

    /// As many bytes as the guest takes at once.
    fn packet_data(&mut self, mut bytes: Vec<u8>) {
        if bytes.is_empty() {
            return self.packet_done();
        }
        let asked = usize::from(self.lba[1][0]) | usize::from(self.lba[2][0]) << 8;
        let most = match asked & !1 {
            0 => 0xfffe,
            most => most,
        };
        let rest = bytes.split_off(bytes.len().min(most));
        let [low, high] = (bytes.len() as u16).to_le_bytes();
        (self.lba[1][0], self.lba[2][0]) = (low, high);
        self.count[0] = 2;
        self.offer(bytes, Flow::PacketData(rest));
        self.interrupt();
    }

    fn next_block(&mut self, slots: &Slots, block: u64, left: u32) {
        if left == 0 {
            return self.packet_done();
        }
        let mut buffer = vec![0; CD_BLOCK as usize];
        if !read_cd(slots, self.unit(), block, &mut buffer) {
            return self.packet_failed(3);
        }
        let [low, high] = (CD_BLOCK as u16).to_le_bytes();
        (self.lba[1][0], self.lba[2][0]) = (low, high);
        self.count[0] = 2;
        self.offer(buffer, Flow::Blocks { block: block + 1, left: left - 1 });
        self.interrupt();
    }

    fn wait_for_master(&mut self, memory: Option<&FlatView>, slots: &Slots, pending: Pending) {
        self.flow = Flow::Dma(pending);
        self.status = STATUS_READY | STATUS_DATA;
        if self.master.is_started() {
            self.run_master(slots, memory);
        }
    }

    /// The bus master was started: moves all the data of the command that waits for it.
    pub fn run_master(&mut self, slots: &Slots, memory: Option<&FlatView>) {
        if !matches!(self.flow, Flow::Dma(_)) {
            return;
        }
        let Flow::Dma(pending) = std::mem::replace(&mut self.flow, Flow::Idle) else { return };
        let Some(memory) = memory else {
            self.master.ended(false);
            return self.fail(ERROR_ABORT);
        };
        let (unit, mut table) = (self.unit(), self.master.table());
        let packet = matches!(pending, Pending::Blocks { .. } | Pending::Data(_));
        let moved = match pending {
            Pending::Data(bytes) => table.give(memory, &bytes),
            Pending::Read { lba, sectors } => pieces(lba, sectors, SECTOR, |lba, buffer| {
                read_disk(slots, unit, lba, buffer) && table.give(memory, buffer)
            }),
            Pending::Write { lba, sectors } => pieces(lba, sectors, SECTOR, |lba, buffer| {
                table.take(memory, buffer) && write_disk(slots, unit, lba, buffer)
            }),
            Pending::Blocks { block, blocks } => {
                pieces(block, blocks, CD_BLOCK, |block, buffer| {
                    read_cd(slots, unit, block, buffer) && table.give(memory, buffer)
                })
            }
        };
        self.master.ended(moved);
        match (moved, packet) {
            (true, true) => self.packet_done(),
            (true, false) => self.done(),
            (false, true) => self.packet_failed(3),
            (false, false) => self.fail(ERROR_DATA),
        }
    }
}

fn pieces(first: u64, count: u32, unit: u64, mut each: impl FnMut(u64, &mut [u8]) -> bool) -> bool {
    let mut buffer = vec![0; (u64::from(count.min(PIECE_SECTORS)) * unit) as usize];
    let mut at = 0;
    while at < count {
        let now = (count - at).min(PIECE_SECTORS);
        let bytes = (u64::from(now) * unit) as usize;
        if !each(first + u64::from(at), &mut buffer[..bytes]) {
            return false;
        }
        at += now;
    }
    true
}

fn read_disk(slots: &Slots, unit: usize, lba: u64, into: &mut [u8]) -> bool {
    slots.get(unit).is_some_and(|drive| match &*drive.lock() {
        Drive::Disk(disk) => disk.read_sectors(lba, into),
        Drive::Cdrom(_) => false,
    })
}

fn write_disk(slots: &Slots, unit: usize, lba: u64, from: &[u8]) -> bool {
    slots.get(unit).is_some_and(|drive| match &*drive.lock() {
        Drive::Disk(disk) => disk.write_sectors(lba, from),
        Drive::Cdrom(_) => false,
    })
}

fn read_cd(slots: &Slots, unit: usize, block: u64, into: &mut [u8]) -> bool {
    slots.get(unit).is_some_and(|drive| match &*drive.lock() {
        Drive::Cdrom(cdrom) => cdrom.read_blocks(block, into),
        Drive::Disk(_) => false,
    })
}
