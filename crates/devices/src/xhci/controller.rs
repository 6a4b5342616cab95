//! The controller on its bus.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use device::pci::{BarKind, Connection, Identity, Layout, PciFunction};
use device::{Clock, DefaultValue, Device, Fields, Io, Property, PropertyKind, StateError, ones};
use memory::{FlatView, Owner};
use parking_lot::Mutex;

use super::registers::{INTERRUPTERS, Xhci};
use crate::catalog::{
    BuildError, Built, BusKind, Category, Model, OfferedBus, PciPlace, Request, declare,
};
use crate::pci::{RED_HAT, SUBSYSTEM};
use crate::usb::{RootHub, Watcher};

/// Ports of each kind at most.
const PORTS_MAX: u64 = 15;

/// The controller.
///
/// Lock order: `chip`, then a device of a port, then the connection. Guest memory is accessed with
/// `chip` held; a guest whose rings lie in our own registers is answered with ones (`owner`).
struct Controller {
    chip: Mutex<Xhci>,
    /// The thread that holds `chip`, as the address of a variable of its own; 0 for none.
    owner: AtomicUsize,
    clock: Arc<dyn Clock>,
    connection: OnceLock<Arc<Connection>>,
}

fn this_thread() -> usize {
    thread_local! {
        static MARK: u8 = const { 0 };
    }
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

impl Controller {
    /// Changes the chip, and publishes its interrupts. None when this thread is at it already.
    fn access<T>(&self, access: impl FnOnce(&mut Xhci, Option<&FlatView>) -> T) -> Option<T> {
        let me = this_thread();
        if self.owner.load(Ordering::Relaxed) == me {
            return None;
        }
        let connection = self.connection.get();
        let memory = connection.and_then(|connection| connection.dma());
        let mut chip = self.chip.lock();
        self.owner.store(me, Ordering::Relaxed);
        let result = access(&mut chip, memory.as_deref());
        if let Some(connection) = connection {
            let pending = chip.pending();
            if connection.uses_messages() {
                for interrupter in pending {
                    connection.notify(interrupter as u16);
                    chip.was_sent(interrupter);
                }
            } else {
                connection.set_irq(!pending.is_empty());
            }
        }
        self.owner.store(0, Ordering::Relaxed);
        Some(result)
    }
}

impl Watcher for Controller {
    fn changed(&self, port: usize) {
        self.access(|chip, memory| chip.changed(memory, port));
    }

    fn has_data(&self, port: usize) {
        self.access(|chip, memory| chip.has_data(memory, port));
    }
}

impl Io for Controller {
    fn read(&self, offset: u64, size: u8) -> u64 {
        if self.owner.load(Ordering::Relaxed) == this_thread() {
            return ones(size);
        }
        let now_ns = self.clock.now_ns();
        let chip = self.chip.lock();
        let word = |at| u64::from(chip.read(at, now_ns));
        let value = match size {
            8 => word(offset & !3) | word((offset & !3) + 4) << 32,
            _ => word(offset & !3) >> (8 * (offset & 3)),
        };
        value & ones(size)
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        if offset & 3 != 0 || size < 4 {
            return; // registers are written whole
        }
        self.access(|chip, memory| {
            chip.write(memory, offset, value as u32);
            if size == 8 {
                chip.write(memory, offset + 4, (value >> 32) as u32);
            }
        });
    }
}

struct Function {
    controller: Arc<Controller>,
    connection: Arc<Connection>,
}

impl Device for Function {
    fn reset(&self) {
        self.connection.reset();
        self.controller.access(|chip, _| chip.reset());
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("chip", &self.controller.chip)
    }
}

impl PciFunction for Function {
    fn connection(&self) -> &Connection {
        &self.connection
    }
}

fn build(request: &Request<'_>) -> Result<Built, BuildError> {
    let ports = |name: &str| {
        let count = request.properties.unsigned(name).unwrap_or(4);
        let fits = (1..=PORTS_MAX).contains(&count);
        fits.then_some(count as usize).ok_or_else(|| request.bad_value(name, "it is from 1 to 15"))
    };
    let (usb2, usb3) = (ports("p2")?, ports("p3")?);
    let hub = RootHub::new(usb2 + usb3);
    let controller = Arc::new(Controller {
        chip: Mutex::new(Xhci::new(Arc::clone(&hub), usb2, usb2 + usb3)),
        owner: AtomicUsize::new(0),
        clock: Arc::clone(&request.surroundings.clock),
        connection: OnceLock::new(),
    });
    let weak: Weak<Controller> = Arc::downgrade(&controller);
    hub.watch(weak);
    let identity = Identity {
        vendor: RED_HAT,
        device: 0x000d,
        revision: 1,
        class: 0x0c0330,
        subsystem: SUBSYSTEM,
    };
    let mut layout = Layout::new(identity);
    layout.interrupt_pin(1);
    layout.config().set(0x60, &[0x30]); // USB 3.0
    let registers = Owner::Io(Arc::clone(&controller) as Arc<dyn Io>);
    layout.bar_space(0, BarKind::Memory64, 0x4000);
    layout.piece(0, 0, 0x3000, registers);
    match request.pci_place {
        PciPlace::Conventional => {}
        PciPlace::ExpressRoot => _ = layout.express(device::pci::ExpressKind::IntegratedEndpoint),
        PciPlace::ExpressPort => _ = layout.express(device::pci::ExpressKind::Endpoint),
    }
    layout.msix(Some(0x90), INTERRUPTERS as u16, 0, 0x3000, 0x3800);
    let connection = layout.build();
    _ = controller.connection.set(Arc::clone(&connection));
    let function = Arc::new(Function { controller, connection });
    Ok(Built::pci(&function).with_bus(OfferedBus::new(BusKind::Usb, String::new(), hub)))
}

const PROPERTIES: &[Property] = &[
    declare("p2", PropertyKind::Unsigned(32), Some(DefaultValue::Unsigned(4))),
    declare("p3", PropertyKind::Unsigned(32), Some(DefaultValue::Unsigned(4))),
];

/// The controller's row.
pub const MODELS: &[Model] = &[Model {
    name: "xhci",
    description: "",
    category: Category::Usb,
    bus: BusKind::Pci,
    offers: Some(BusKind::Usb),
    properties: &[PROPERTIES],
    state_version: 1,
    build,
}];
