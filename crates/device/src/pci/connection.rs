//! A function's tie to its bus: registers, base addresses, interrupts, memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memory::{AddressSpace, FlatView, Io, Owner, Ram, Region, RegionId};
use parking_lot::{Mutex, RwLock};

use super::bus::Place;
use super::config::{BarKind, BarRegister, ConfigSpace};
use super::layout::{BarLayout, Fixed, Layout, Piece};
use super::msi::{Msi, Msix};
use super::spec;
use crate::{Fields, StateError};

/// Registers of functions lie below RAM, so that a guest cannot cover its own memory by accident.
const BAR_PRIORITY: i32 = -10;
/// Old fixed addresses (VGA's) cover RAM.
const FIXED_PRIORITY: i32 = 1;

/// A mapped piece.
struct Mapped {
    io: bool,
    id: RegionId,
    start: u64,
}

struct Window {
    register: BarRegister,
    pieces: Vec<Piece>,
    /// Where it is mapped now.
    base: Option<u64>,
    mapped: Vec<Mapped>,
}

struct State {
    config: ConfigSpace,
    windows: Vec<Window>,
    fixed: Vec<(Fixed, Option<RegionId>)>,
    msi: Option<Msi>,
    /// The level that the device wants on its pin.
    wanted: bool,
    /// The level that the pin has.
    driven: bool,
}

/// A function's registers and what they steer. The device keeps it and calls it; the bus reaches
/// it through [`super::PciFunction::connection`].
///
/// Lock order: `state`, then `place`, then `msix`, then address spaces, interrupt lines and
/// message sinks, which are leaves. So a device may call everything here with its own lock held,
/// except where the bus calls the device (the `PciFunction` hooks run without any lock of this).
pub struct Connection {
    state: Mutex<State>,
    msix: Option<Arc<Mutex<Msix>>>,
    place: Arc<RwLock<Option<Place>>>,
    /// COMMAND's bus-master bit, where it can be read without a lock.
    master: Arc<AtomicBool>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.state.lock().config;
        write!(formatter, "pci {:04x}:{:04x}", config.half(0), config.half(2))
    }
}

impl Connection {
    pub(super) fn new(layout: Layout) -> Arc<Self> {
        let Layout { mut config, mut bars, fixed, rom, msi, msix, is_bridge } = layout;
        let msi =
            msi.map(|(at, vectors, masking)| Msi::add(&mut config, Some(at), vectors, masking));
        let place = Arc::<RwLock<Option<Place>>>::default();
        let master = Arc::<AtomicBool>::default();
        let msix = msix.map(|where_| {
            let (table, pending) = (u64::from(where_.table), u64::from(where_.pending));
            let lies = (where_.bar, where_.table, where_.pending);
            let chip = Msix::add(&mut config, where_.at, where_.vectors, lies);
            let vectors = u64::from(chip.vectors());
            let chip = Arc::new(Mutex::new(chip));
            let registers = |pending| MsixRegisters {
                chip: Arc::clone(&chip),
                place: Arc::clone(&place),
                master: Arc::clone(&master),
                pending,
            };
            let bar = bars.iter_mut().find(|bar| bar.index == where_.bar);
            let bar = bar.expect("the layout has made the BAR of the table");
            let owner = Owner::Io(Arc::new(registers(false)));
            bar.pieces.push(Piece { offset: table, bytes: vectors * 16, owner });
            let owner = Owner::Io(Arc::new(registers(true)));
            bar.pieces.push(Piece { offset: pending, bytes: vectors.div_ceil(64) * 8, owner });
            chip
        });
        let mut windows: Vec<Window> = bars.into_iter().map(Window::new).collect();
        windows.extend(rom.map(|rom| Window::rom(rom, is_bridge)));
        windows.iter().for_each(|window| config.add_bar(&window.register));
        let fixed = fixed.into_iter().map(|fixed| (fixed, None)).collect();
        let state = State { config, windows, fixed, msi, wanted: false, driven: false };
        Arc::new(Self { state: Mutex::new(state), msix, place, master })
    }

    /// Reads 1, 2 or 4 bytes of configuration space.
    #[must_use]
    pub fn config_read(&self, at: u16, size: u8) -> u32 {
        self.state.lock().config.read(at, size)
    }

    /// Writes 1, 2 or 4 bytes of configuration space, with all that follows from it.
    pub fn config_write(&self, at: u16, size: u8, value: u32) {
        let mut state = self.state.lock();
        state.config.write(at, size, value);
        self.refresh(&mut state);
    }

    /// Looks into, or changes, the registers as the device itself may: without write masks.
    pub fn with_config<T>(&self, change: impl FnOnce(&mut ConfigSpace) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state.config);
        self.refresh(&mut state);
        result
    }

    /// Where a BAR points, if it is mapped.
    #[must_use]
    pub fn bar_address(&self, index: u8) -> Option<u64> {
        let at = spec::BAR0 + 4 * u16::from(index);
        let state = self.state.lock();
        state.windows.iter().find(|window| window.register.at == at)?.base
    }

    /// Every BAR: index, kind, bytes, and where it is mapped. The ROM has the index 6.
    #[must_use]
    pub fn bars(&self) -> Vec<(u8, BarKind, u64, Option<u64>)> {
        let state = self.state.lock();
        let bar = |window: &Window| {
            let BarRegister { at, kind, bytes, rom } = window.register;
            let index = if rom { 6 } else { ((at - spec::BAR0) / 4) as u8 };
            (index, kind, bytes, window.base)
        };
        state.windows.iter().map(bar).collect()
    }

    /// Drives the interrupt pin. Systems that use messages switch it off or ignore it.
    pub fn set_irq(&self, level: bool) {
        let mut state = self.state.lock();
        state.wanted = level;
        self.drive(&mut state);
    }

    /// Whether interrupts go as messages (MSI or MSI-X), and the pin is out of use.
    #[must_use]
    pub fn uses_messages(&self) -> bool {
        self.uses_msix() || {
            let state = self.state.lock();
            state.msi.is_some_and(|msi| msi.is_enabled(&state.config))
        }
    }

    /// Whether MSI-X is switched on.
    #[must_use]
    pub fn uses_msix(&self) -> bool {
        self.msix.as_ref().is_some_and(|msix| msix.lock().is_enabled())
    }

    /// The vectors of the MSI-X table.
    #[must_use]
    pub fn msix_vectors(&self) -> u16 {
        self.msix.as_ref().map_or(0, |msix| msix.lock().vectors())
    }

    /// Sends the interrupt message of a vector, by MSI-X or MSI, whichever is on; a masked vector
    /// stays pending. False when neither is on: then it is the pin's turn.
    pub fn notify(&self, vector: u16) -> bool {
        let message = if let Some(msix) = self.msix.as_ref().filter(|_| self.uses_msix()) {
            msix.lock().notify(vector)
        } else {
            let mut state = self.state.lock();
            let State { config, msi, .. } = &mut *state;
            match msi {
                Some(msi) if msi.is_enabled(config) => msi.notify(config, vector),
                _ => return false,
            }
        };
        if let Some((address, data)) = message {
            self.send(address, data);
        }
        true
    }

    /// The one interrupt of a simple device: the first message, or the pin at this level.
    pub fn interrupt(&self, level: bool) {
        if self.uses_messages() {
            if level {
                self.notify(0);
            }
        } else {
            self.set_irq(level);
        }
    }

    fn send(&self, address: u64, data: u32) {
        send(&self.place, &self.master, address, data);
    }

    /// Guest memory as the function may access it; none while the system has not made it a bus
    /// master, or it is in no slot. Keep it for one request, for the map may change.
    #[must_use]
    pub fn dma(&self) -> Option<Arc<FlatView>> {
        if !self.master.load(Ordering::Acquire) {
            return None;
        }
        self.place.read().as_ref().map(|place| place.root().dma.view())
    }

    /// Where the function is plugged in.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.place.read().clone()
    }

    pub(super) fn attach(&self, place: Place) {
        *self.place.write() = Some(place);
        let mut state = self.state.lock();
        self.refresh(&mut state);
    }

    pub(super) fn detach(&self) {
        let mut state = self.state.lock();
        state.config.reset();
        state.wanted = false;
        self.refresh(&mut state);
        *self.place.write() = None;
    }

    /// Saves or loads the registers and the level of the pin. Loading maps what they say and drives
    /// the pin.
    pub fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let mut state = self.state.lock();
        let mut bytes = state.config.bytes().to_vec();
        let mut wanted = state.wanted;
        fields.item("config", &mut bytes)?;
        fields.item("pin", &mut wanted)?;
        if let Some(msix) = &self.msix {
            fields.locked("msix", msix)?;
        }
        if fields.is_loading() {
            if !state.config.restore(&bytes) {
                return Err(StateError::bad("it is of another device").within("config"));
            }
            state.wanted = wanted;
            self.refresh(&mut state);
        }
        Ok(())
    }

    /// Registers as after power-on; nothing is mapped, no interrupt.
    pub fn reset(&self) {
        if let Some(msix) = &self.msix {
            msix.lock().reset();
        }
        let mut state = self.state.lock();
        state.config.reset();
        state.wanted = false;
        self.refresh(&mut state);
    }

    /// A window of a bridge above has changed.
    pub(super) fn remap(&self) {
        self.refresh(&mut self.state.lock());
    }

    /// Brings everything in line with the registers.
    fn refresh(&self, state: &mut State) {
        let master = state.config.half(spec::COMMAND) & spec::COMMAND_MASTER != 0;
        self.master.store(master, Ordering::Release);
        self.map(state);
        self.drive(state);
        while let Some((address, data)) =
            state.msi.and_then(|msi| msi.take_pending(&mut state.config))
        {
            self.send(address, data);
        }
        if let Some(msix) = &self.msix {
            msix.lock().refresh(&state.config);
            send_pending(msix, &self.place, &self.master);
        }
    }

    fn drive(&self, state: &mut State) {
        let off = state.config.half(spec::COMMAND) & spec::COMMAND_INTX_OFF != 0;
        let mut status = state.config.half(spec::STATUS) & !spec::STATUS_INTX;
        if state.wanted {
            status |= spec::STATUS_INTX;
        }
        state.config.put(spec::STATUS, &status.to_le_bytes());
        let level = state.wanted && !off;
        if level == state.driven {
            return;
        }
        let pin = state.config.byte(spec::INTERRUPT_PIN);
        let place = self.place.read();
        if let (Some(place), Some(pin)) = (&*place, pin.checked_sub(1)) {
            state.driven = level;
            place.set_pin(u32::from(pin), level);
        }
    }

    fn map(&self, state: &mut State) {
        let place = self.place.read();
        let Some(place) = &*place else { return };
        let State { config, windows, fixed, .. } = state;
        for window in windows {
            let bar = &window.register;
            let base = config.decode(bar);
            let io = bar.kind == BarKind::Io;
            let base = base.filter(|base| place.admits(io, *base, base + (bar.bytes - 1)));
            if base != window.base {
                window.move_to(base, place);
            }
        }
        for (fixed, id) in fixed {
            let enable = if fixed.io { spec::COMMAND_IO } else { spec::COMMAND_MEMORY };
            let last = fixed.start + (fixed.bytes - 1);
            let on = config.half(spec::COMMAND) & enable != 0
                && place.admits(fixed.io, fixed.start, last);
            let space = place.space(fixed.io);
            match (on, *id) {
                (true, None) => {
                    let owner = fixed.owner.clone();
                    let region = Region::new("pci-fixed", fixed.start, fixed.bytes, owner);
                    *id = Some(space.add(region.with_priority(FIXED_PRIORITY)));
                }
                (false, Some(mapped)) => {
                    space.update(|change| change.remove(mapped));
                    *id = None;
                }
                _ => {}
            }
        }
    }
}

impl Window {
    fn new(layout: BarLayout) -> Self {
        let BarLayout { index, kind, bytes, pieces } = layout;
        let at = spec::BAR0 + 4 * u16::from(index);
        let register = BarRegister { kind, bytes, at, rom: false };
        Self { register, pieces, base: None, mapped: Vec::new() }
    }

    fn rom(rom: Arc<Ram>, is_bridge: bool) -> Self {
        let at = if is_bridge { spec::BRIDGE_ROM } else { spec::ROM };
        let bytes = rom.len().next_power_of_two().max(0x800);
        let register = BarRegister { kind: BarKind::Memory32, bytes, at, rom: true };
        let pieces = vec![Piece { offset: 0, bytes: rom.len(), owner: Owner::Rom(rom) }];
        Self { register, pieces, base: None, mapped: Vec::new() }
    }

    /// Maps it here, or nowhere.
    fn move_to(&mut self, base: Option<u64>, place: &Place) {
        let io = self.register.kind == BarKind::Io;
        let space: &AddressSpace = place.space(io);
        space.update(|change| {
            for mapped in self.mapped.drain(..) {
                change.remove(mapped.id);
            }
            let Some(base) = base else { return };
            for piece in &self.pieces {
                let start = base + piece.offset;
                let region = Region::new("pci-bar", start, piece.bytes, piece.owner.clone());
                let id = change.add(region.with_priority(BAR_PRIORITY));
                self.mapped.push(Mapped { io, id, start });
            }
        });
        debug_assert!(
            self.mapped.iter().all(|mapped| mapped.io == io && base <= Some(mapped.start))
        );
        self.base = base;
    }
}

fn send(place: &RwLock<Option<Place>>, master: &AtomicBool, address: u64, data: u32) {
    // A message is a memory write, which takes the right to be a bus master.
    if master.load(Ordering::Acquire)
        && let Some(place) = &*place.read()
    {
        place.root().msi.send(address, data);
    }
}

fn send_pending(msix: &Mutex<Msix>, place: &RwLock<Option<Place>>, master: &AtomicBool) {
    loop {
        let Some((address, data)) = msix.lock().take_pending() else { return };
        send(place, master, address, data);
    }
}

/// The table, or the pending bits, as registers.
struct MsixRegisters {
    chip: Arc<Mutex<Msix>>,
    place: Arc<RwLock<Option<Place>>>,
    master: Arc<AtomicBool>,
    pending: bool,
}

impl Io for MsixRegisters {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let chip = self.chip.lock();
        if self.pending { chip.read_pending(offset, size) } else { chip.read_table(offset, size) }
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        if !self.pending {
            self.chip.lock().write_table(offset, size, value);
            send_pending(&self.chip, &self.place, &self.master);
        }
    }
}
