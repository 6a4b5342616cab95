//! The card on its bus and at its cable.

use std::sync::{Arc, OnceLock, Weak};

use ::net::{Backend, Card, Offload};
use device::pci::{BarKind, Connection, Identity, Layout, PciFunction};
use device::{Device, Fields, Io, Property, PropertyKind, StateError};
use memory::Owner;
use parking_lot::Mutex;

use super::chip::{Chip, Received};
use crate::catalog::{
    BuildError, Built, BusKind, Category, Controls, LinkControl, Model, Request, declare,
};
use crate::pci::{INTEL, SUBSYSTEM};

/// The address of a card that was given none.
const FIRST_ADDRESS: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const REGISTERS_BYTES: u64 = 128 << 10;
/// A window to the registers, for code that cannot reach memory.
const WINDOW_BYTES: u64 = 64;
const ROM: &str = "efi-e1000.rom";

/// What registers, bus and cable share.
///
/// Lock order: `sending`, then the back end's, then `state`; the back end is never called with
/// `state` held.
struct Shared {
    state: Mutex<State>,
    /// Frames leave in the order of their ring.
    sending: Mutex<()>,
    backend: Arc<dyn Backend>,
    connection: OnceLock<Arc<Connection>>,
    mac: [u8; 6],
}

struct State {
    chip: Chip,
    /// Where the window looks.
    window: u32,
    /// The back end holds frames back.
    waits: bool,
    paused: bool,
    plugged: bool,
    carrier: bool,
}

impl Shared {
    fn publish(&self, state: &State) {
        if let Some(connection) = self.connection.get() {
            connection.interrupt(state.chip.irq());
        }
    }

    fn read(&self, at: u64) -> u32 {
        let mut state = self.state.lock();
        let value = state.chip.read(at);
        self.publish(&state);
        value
    }

    fn write(&self, at: u64, value: u32) {
        let given = {
            let mut state = self.state.lock();
            let given = state.chip.write(at, value);
            self.publish(&state);
            given
        };
        if given {
            self.go_on();
        }
    }

    /// The driver may have given buffers, or frames.
    fn go_on(&self) {
        self.send();
        let waited = {
            let mut state = self.state.lock();
            let ready = state.chip.receives() && !state.paused;
            ready && std::mem::take(&mut state.waits)
        };
        if waited {
            self.backend.room();
        }
    }

    fn send(&self) {
        let Some(memory) = self.connection.get().and_then(|connection| connection.dma()) else {
            return;
        };
        let _in_order = self.sending.lock();
        let (frames, link) = {
            let mut state = self.state.lock();
            if state.paused {
                return;
            }
            let frames = state.chip.transmit(&memory);
            self.publish(&state);
            (frames, state.plugged && state.carrier)
        };
        if link {
            frames.iter().for_each(|frame| self.backend.transmit(frame, Offload::default()));
        }
    }

    fn change_link(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        let link = state.plugged && state.carrier;
        state.chip.set_link(link);
        self.publish(&state);
    }
}

impl Card for Shared {
    fn receive(&self, frame: &[u8], _offload: Offload) -> bool {
        let memory = self.connection.get().and_then(|connection| connection.dma());
        let mut state = self.state.lock();
        if state.paused {
            state.waits = true;
            return false;
        }
        let Some(memory) = memory.filter(|_| state.chip.receives()) else { return true };
        let received = state.chip.receive(&memory, frame);
        state.waits |= received == Received::NoRoom;
        self.publish(&state);
        received != Received::NoRoom
    }

    fn set_link(&self, up: bool) {
        self.change_link(|state| state.carrier = up);
    }
}

impl LinkControl for Shared {
    fn set_link(&self, up: bool) {
        self.change_link(|state| state.plugged = up);
    }

    fn mac(&self) -> [u8; 6] {
        self.mac
    }
}

/// The registers in memory: words, of which parts can be read.
struct Registers(Arc<Shared>);

impl Io for Registers {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let low = u64::from(self.0.read(offset & !3)) >> (8 * (offset & 3));
        match size {
            8 => low | u64::from(self.0.read((offset & !3) + 4)) << 32,
            _ => low,
        }
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        if offset & 3 != 0 || size < 4 {
            return; // the manual allows whole words only
        }
        self.0.write(offset, value as u32);
        if size == 8 {
            self.0.write(offset + 4, (value >> 32) as u32);
        }
    }
}

/// The window in ports: an address, and what stands there.
struct Window(Arc<Shared>);

impl Io for Window {
    fn read(&self, offset: u64, _size: u8) -> u64 {
        let address = self.0.state.lock().window;
        match offset {
            0 => address.into(),
            4 if u64::from(address) < REGISTERS_BYTES => {
                self.0.read(u64::from(address) & !3).into()
            }
            _ => 0,
        }
    }

    fn write(&self, offset: u64, _size: u8, value: u64) {
        match offset {
            0 => self.0.state.lock().window = value as u32,
            4 => {
                let address = u64::from(self.0.state.lock().window);
                if address < REGISTERS_BYTES {
                    self.0.write(address & !3, value as u32);
                }
            }
            _ => {}
        }
    }
}

/// The card as a PCI function.
struct E1000 {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
}

impl Device for E1000 {
    fn reset(&self) {
        {
            let mut state = self.shared.state.lock();
            state.chip.reset();
            (state.window, state.waits) = (0, false);
            self.shared.publish(&state);
        }
        self.connection.reset();
    }

    fn set_running(&self, running: bool) {
        self.shared.state.lock().paused = !running;
        if running {
            self.shared.go_on();
        } else {
            // Whoever sends comes to an end first.
            drop(self.shared.sending.lock());
        }
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let mut state = self.shared.state.lock();
        let State { chip, window, waits, .. } = &mut *state;
        fields.item("chip", chip)?;
        fields.item("window", window)?;
        fields.item("waits", waits)
    }
}

impl PciFunction for E1000 {
    fn connection(&self) -> &Connection {
        &self.connection
    }
}

fn build(request: &Request<'_>) -> Result<Built, BuildError> {
    let networks = &request.surroundings.backends.networks;
    let backend = networks.claim(request.id, request.properties, "netdev")?;
    let backend = backend.ok_or_else(|| BuildError::Missing { property: "netdev".to_owned() })?;
    let mac = request.properties.mac("mac").unwrap_or(FIRST_ADDRESS);
    let carrier = backend.link();
    let chip = Chip::new(mac, carrier);
    let state = State { chip, window: 0, waits: false, paused: false, plugged: true, carrier };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        sending: Mutex::default(),
        backend,
        connection: OnceLock::new(),
        mac,
    });
    let identity = Identity {
        vendor: INTEL,
        device: 0x100e,
        revision: 3,
        class: 0x02_0000,
        subsystem: SUBSYSTEM,
    };
    let mut layout = Layout::new(identity);
    layout.interrupt_pin(1);
    let registers = Owner::Io(Arc::new(Registers(Arc::clone(&shared))));
    layout.bar(0, BarKind::Memory32, REGISTERS_BYTES, registers);
    let window = Owner::Io(Arc::new(Window(Arc::clone(&shared))));
    layout.bar(1, BarKind::Io, WINDOW_BYTES, window);
    request.rom(&mut layout, Some(ROM))?;
    let connection = layout.build();
    _ = shared.connection.set(Arc::clone(&connection));
    let weak: Weak<Shared> = Arc::downgrade(&shared);
    shared.backend.attach(weak);
    let link = Some(Arc::clone(&shared) as Arc<dyn LinkControl>);
    let card = Arc::new(E1000 { shared, connection });
    Ok(Built::pci(&card).with_controls(Controls { link, ..Controls::default() }))
}

const PROPERTIES: &[Property] = &[
    declare("netdev", PropertyKind::Network, None),
    declare("mac", PropertyKind::Mac, None),
    declare("bootindex", PropertyKind::BootIndex, None),
];

/// The row.
pub const MODELS: &[Model] = &[Model {
    name: "e1000",
    description: "Intel Gigabit Ethernet",
    category: Category::Network,
    bus: BusKind::Pci,
    offers: None,
    properties: &[PROPERTIES],
    state_version: 1,
    build,
}];
