//! The controller on its bus, with the thread that carries commands out.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use device::pci::{BarKind, Connection, Identity, Layout, PciFunction};
use device::{Device, Fields, Io, StateError};
use memory::{FlatView, Owner};
use parking_lot::{Condvar, Mutex};

use super::chip::{
    Chip, DEVICE_TO_HOST, Effect, HOST_BUS_ERROR, PORTS, PROGRAMMED_SETUP, SET_BITS,
    TASK_FILE_ERROR,
};
use super::command::{Command, PIECE_BYTES};
use crate::ata::{
    Action, CD_BLOCK, Channel, Drive, ERROR_ABORT, ERROR_DATA, How, PacketAction, SECTOR,
    STATUS_ERROR, STATUS_READY, Slots,
};
use crate::catalog::{BuildError, Built, BusKind, Category, Model, OfferedBus, Request};
use crate::pci::{INTEL, SUBSYSTEM};

/// What the worker and the registers share.
///
/// Lock order: `state` is a leaf but for the connection, which publishes the interrupt. Drives and
/// guest memory are accessed without it.
struct Shared {
    state: Mutex<State>,
    /// Work has come, or the end.
    changed: Condvar,
    channels: Vec<Arc<Channel>>,
}

#[derive(Default)]
struct State {
    chip: Chip,
    quit: bool,
    held: bool,
    /// The worker is at a command.
    busy: bool,
    connection: Option<Arc<Connection>>,
}

impl State {
    fn publish(&self) {
        if let Some(connection) = &self.connection {
            connection.interrupt(self.chip.interrupts());
        }
    }

    /// The next command: its port and slot.
    fn next(&self) -> Option<(usize, u32)> {
        let ready = |port: &super::chip::Port| port.runs() && port.issued != 0;
        let port = self.chip.ports.iter().position(ready)?;
        Some((port, self.chip.ports[port].issued.trailing_zeros()))
    }
}

/// How a command ended.
struct Outcome {
    status: u8,
    error: u8,
    /// The interrupt it raises.
    interrupt: u32,
    /// Sector count, LBA bytes for the FIS.
    registers: [u8; 4],
    queued: bool,
}

impl Outcome {
    fn done(interrupt: u32) -> Self {
        Self { status: STATUS_READY, error: 0, interrupt, registers: [0; 4], queued: false }
    }

    fn failed(error: u8) -> Self {
        let status = STATUS_READY | STATUS_ERROR;
        Self { status, error, interrupt: DEVICE_TO_HOST, registers: [0; 4], queued: false }
    }
}

impl Shared {
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if state.quit {
                return;
            }
            let next = state.next().filter(|_| !state.held);
            let Some((port, slot)) = next else {
                self.changed.wait(&mut state);
                continue;
            };
            state.busy = true;
            let list = state.chip.ports[port].list;
            let connection = state.connection.clone();
            drop(state);
            let memory = connection.as_ref().and_then(|connection| connection.dma());
            let outcome = memory.as_deref().map(|memory| self.carry_out(memory, port, list, slot));
            state = self.state.lock();
            let memory = memory.as_deref();
            Self::complete(&mut state, port, slot, outcome, memory);
            state.busy = false;
            state.publish();
            self.changed.notify_all();
        }
    }

    /// Puts the result into registers and into the area of received FISes.
    fn complete(
        state: &mut State,
        port: usize,
        slot: u32,
        outcome: Option<Option<Outcome>>,
        memory: Option<&FlatView>,
    ) {
        let port = &mut state.chip.ports[port];
        let bit = 1 << slot;
        if port.issued & bit == 0 {
            return; // the port was stopped meanwhile
        }
        port.issued &= !bit;
        let Some(outcome) = outcome else {
            port.status |= HOST_BUS_ERROR;
            return;
        };
        let Some(outcome) = outcome else { return };
        let Outcome { status, error, interrupt, registers, queued } = outcome;
        port.task = u32::from(status) | u32::from(error) << 8;
        port.status |= interrupt;
        if status & STATUS_ERROR != 0 {
            port.status |= TASK_FILE_ERROR;
        }
        if queued {
            port.active &= !bit;
        }
        let Some(memory) = memory.filter(|_| port.receives()) else { return };
        let [count, low, middle, high] = registers;
        if queued {
            let mut fis = [0xa1, 0x40, status & 0x77, error, 0, 0, 0, 0];
            fis[4..].copy_from_slice(&u32::to_le_bytes(bit));
            memory.write(port.received.wrapping_add(0x58), &fis);
        } else if interrupt == PROGRAMMED_SETUP {
            let mut fis = [0; 20];
            fis[..7].copy_from_slice(&[0x5f, 0x60, status, error, low, middle, high]);
            (fis[12], fis[15]) = (count, status);
            memory.write(port.received.wrapping_add(0x20), &fis);
        } else {
            let mut fis = [0; 20];
            fis[..7].copy_from_slice(&[0x34, 0x40, status, error, low, middle, high]);
            fis[12] = count;
            memory.write(port.received.wrapping_add(0x40), &fis);
        }
    }

    /// Carries a command out. None: it has no result to show yet.
    fn carry_out(&self, memory: &FlatView, port: usize, list: u64, slot: u32) -> Option<Outcome> {
        const COMMAND_FIS: u8 = 0x27;
        let mut command = Command::read(memory, list, slot);
        let Some(drive) = self.channels[port].slots.get(0) else {
            return Some(Outcome::failed(ERROR_ABORT));
        };
        if command.fis[0] != COMMAND_FIS {
            return Some(Outcome::failed(ERROR_ABORT));
        }
        if command.fis[1] & 0x80 == 0 {
            return Self::control(&mut drive.lock(), command.fis[15], command.resets);
        }
        let task = command.task();
        let action = drive.lock().begin(&task);
        let outcome = match action {
            Action::Done => Outcome::done(DEVICE_TO_HOST),
            Action::Signature => {
                let registers = drive.lock().signature();
                Outcome { error: 1, registers, ..Outcome::done(DEVICE_TO_HOST) }
            }
            Action::Fail(error) => Outcome::failed(error),
            Action::Data(bytes) => {
                command.give(&bytes);
                Outcome::done(PROGRAMMED_SETUP)
            }
            Action::Take(bytes) => {
                let mut data = vec![0; bytes as usize];
                let whole = command.take(&mut data) == data.len();
                let taken = whole && drive.lock().take(&task, &data);
                if taken { Outcome::done(DEVICE_TO_HOST) } else { Outcome::failed(ERROR_ABORT) }
            }
            Action::Read { lba, sectors, how } => {
                let bytes = u64::from(sectors) * SECTOR;
                let read = |at: u64, into: &mut [u8]| match &*drive.lock() {
                    Drive::Disk(disk) => disk.read_sectors(lba + at / SECTOR, into),
                    Drive::Cdrom(_) => false,
                };
                let interrupt = if matches!(how, How::Programmed(_)) {
                    PROGRAMMED_SETUP
                } else {
                    DEVICE_TO_HOST
                };
                ended(how, interrupt, give_all(&mut command, bytes, read))
            }
            Action::Write { lba, sectors, how } => {
                let bytes = u64::from(sectors) * SECTOR;
                let write = |at: u64, from: &[u8]| match &*drive.lock() {
                    Drive::Disk(disk) => disk.write_sectors(lba + at / SECTOR, from),
                    Drive::Cdrom(_) => false,
                };
                ended(how, DEVICE_TO_HOST, take_all(&mut command, bytes, write))
            }
            Action::Packet { .. } => packet(&mut command, &drive),
        };
        command.finish();
        Some(outcome)
    }

    /// A control FIS: software reset.
    fn control(drive: &mut Drive, control: u8, resets: bool) -> Option<Outcome> {
        const RESET: u8 = 4;
        if control & RESET != 0 {
            drive.reset();
            return None;
        }
        if resets {
            return None;
        }
        let status = if drive.is_packet() { 0 } else { STATUS_READY };
        let registers = drive.signature();
        Some(Outcome { status, error: 1, interrupt: DEVICE_TO_HOST, registers, queued: false })
    }
}

fn ended(how: How, interrupt: u32, well: bool) -> Outcome {
    let queued = how == How::Queued;
    let interrupt = if queued { SET_BITS } else { interrupt };
    let outcome = if well { Outcome::done(interrupt) } else { Outcome::failed(ERROR_DATA) };
    Outcome { queued, interrupt, ..outcome }
}

/// Reads piece by piece and gives it to the guest.
fn give_all(command: &mut Command<'_>, bytes: u64, read: impl Fn(u64, &mut [u8]) -> bool) -> bool {
    let mut buffer = vec![0; PIECE_BYTES.min(bytes as usize)];
    let mut at = 0;
    while at < bytes {
        let piece = &mut buffer[..PIECE_BYTES.min((bytes - at) as usize)];
        if !read(at, piece) {
            return false;
        }
        if command.give(piece) < piece.len() {
            return true; // a table that is too short takes less; the moved bytes say so
        }
        at += piece.len() as u64;
    }
    true
}

/// Takes from the guest piece by piece and writes it.
fn take_all(command: &mut Command<'_>, bytes: u64, write: impl Fn(u64, &[u8]) -> bool) -> bool {
    let mut buffer = vec![0; PIECE_BYTES.min(bytes as usize)];
    let mut at = 0;
    while at < bytes {
        let piece = &mut buffer[..PIECE_BYTES.min((bytes - at) as usize)];
        let taken = command.take(piece) / SECTOR as usize * SECTOR as usize;
        if taken > 0 && !write(at, &piece[..taken]) {
            return false;
        }
        if taken < piece.len() {
            return true;
        }
        at += taken as u64;
    }
    true
}

fn packet(command: &mut Command<'_>, drive: &Mutex<Drive>) -> Outcome {
    const IO_AND_COMMAND: u8 = 3; // the interrupt reason in the count register
    let begun = match &mut *drive.lock() {
        Drive::Cdrom(cdrom) => cdrom.packet(&command.packet),
        Drive::Disk(_) => return Outcome::failed(ERROR_ABORT),
    };
    let failed = |sense: crate::ata::Sense| Outcome {
        registers: [IO_AND_COMMAND, 0, 0, 0],
        ..Outcome::failed(sense.0 << 4 | ERROR_ABORT)
    };
    match begun {
        PacketAction::Fail(sense) => return failed(sense),
        PacketAction::Data(bytes) => _ = command.give(&bytes),
        PacketAction::Read { block, blocks } => {
            let read = |at: u64, into: &mut [u8]| match &*drive.lock() {
                Drive::Cdrom(cdrom) => cdrom.read_blocks(block + at / CD_BLOCK, into),
                Drive::Disk(_) => false,
            };
            if !give_all(command, u64::from(blocks) * CD_BLOCK, read)
                && let Drive::Cdrom(cdrom) = &mut *drive.lock()
            {
                return failed(cdrom.read_failed());
            }
        }
        PacketAction::Done | PacketAction::Tray(_) => {}
    }
    Outcome { registers: [IO_AND_COMMAND, 0, 0, 0], ..Outcome::done(DEVICE_TO_HOST) }
}

/// The registers, without the connection that maps them.
struct Registers(Arc<Shared>);

impl Io for Registers {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let state = self.0.state.lock();
        let word = |at| u64::from(state.chip.read(at));
        let value = match size {
            8 => word(offset & !3) | word((offset & !3) + 4) << 32,
            _ => word(offset & !3) >> (8 * (offset & 3)),
        };
        value & device::ones(size)
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let mut state = self.0.state.lock();
        let mut effect = Effect::None;
        if offset & 3 == 0 && size >= 4 {
            effect = state.chip.write(offset, value as u32);
            if size == 8 && state.chip.write(offset + 4, (value >> 32) as u32) == Effect::Issued {
                effect = Effect::Issued;
            }
        }
        state.publish();
        if effect == Effect::Issued {
            self.0.changed.notify_all();
        }
    }
}

/// The controller.
pub struct Ahci {
    connection: Arc<Connection>,
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

impl Ahci {
    /// A controller without drives.
    pub fn new(multifunction: bool) -> Result<Arc<Self>, std::io::Error> {
        let shared = Arc::new_cyclic(|shared: &std::sync::Weak<Shared>| {
            let channel = |port: usize| {
                let shared = shared.clone();
                let changed = Box::new(move || {
                    if let Some(shared) = shared.upgrade() {
                        shared.look(port);
                    }
                });
                Arc::new(Channel { slots: Slots::new(1), changed })
            };
            let channels = (0..PORTS).map(channel).collect();
            Shared { state: Mutex::default(), changed: Condvar::new(), channels }
        });
        shared.state.lock().chip.reset();
        let identity = Identity {
            vendor: INTEL,
            device: 0x2922,
            revision: 2,
            class: 0x010601,
            subsystem: SUBSYSTEM,
        };
        let mut layout = Layout::new(identity);
        layout.interrupt_pin(1);
        if multifunction {
            layout.multifunction();
        }
        layout.config().set(0x90, &[0x40]); // AHCI mode
        let registers = Owner::Io(Arc::new(Registers(Arc::clone(&shared))));
        layout.bar(5, BarKind::Memory32, 0x1000, registers);
        layout.capability(
            device::pci::spec::CAPABILITY_SATA,
            Some(0xa8),
            &[0x10, 0, 0x48, 0, 0, 0],
            &[],
        );
        layout.msi(0x80, 1, false);
        let connection = layout.build();
        shared.state.lock().connection = Some(Arc::clone(&connection));
        let worker = thread::Builder::new().name("ahci".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.work()
        })?;
        Ok(Arc::new(Self { connection, shared, worker: Some(worker) }))
    }

    /// The ports, for drives.
    #[must_use]
    pub fn channels(&self) -> &[Arc<Channel>] {
        &self.shared.channels
    }
}

impl Shared {
    /// What is in a port's place has changed.
    fn look(&self, port: usize) {
        let signature = self.channels[port].slots.get(0).map(|drive| {
            let [count, low, middle, high] = drive.lock().signature();
            u32::from_le_bytes([count, low, middle, high])
        });
        let mut state = self.state.lock();
        state.chip.set_present(port, signature);
        state.publish();
    }
}

impl Drop for Ahci {
    fn drop(&mut self) {
        self.shared.state.lock().quit = true;
        self.shared.changed.notify_all();
        if let Some(worker) = self.worker.take() {
            _ = worker.join();
        }
        self.shared.state.lock().connection = None;
    }
}

impl Device for Ahci {
    fn reset(&self) {
        self.connection.reset();
        let mut state = self.shared.state.lock();
        while state.busy {
            self.shared.changed.wait(&mut state);
        }
        state.chip.reset();
        state.publish();
    }

    fn set_running(&self, running: bool) {
        let mut state = self.shared.state.lock();
        state.held = !running;
        self.shared.changed.notify_all();
        while state.held && state.busy {
            self.shared.changed.wait(&mut state);
        }
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.item("chip", &mut self.shared.state.lock().chip)
    }
}

impl PciFunction for Ahci {
    fn connection(&self) -> &Connection {
        &self.connection
    }
}

fn build(request: &Request<'_>) -> Result<Built, BuildError> {
    let ahci = Ahci::new(false);
    let ahci =
        ahci.map_err(|error| BuildError::Other(format!("Cannot start a thread: {error}")))?;
    let bus = |channel| OfferedBus::new(BusKind::Ata, String::new(), Arc::clone(channel));
    let buses = ahci.channels().iter().map(bus).collect();
    _ = request;
    Ok(Built { buses, ..Built::pci(&ahci) })
}

/// The controller's row.
pub const MODELS: &[Model] = &[Model {
    name: "ich9-ahci",
    description: "",
    category: Category::Storage,
    bus: BusKind::Pci,
    offers: Some(BusKind::Ata),
    properties: &[],
    state_version: 1,
    build,
}];
