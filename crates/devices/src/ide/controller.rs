//! The PIIX3's IDE function.

use std::sync::{Arc, OnceLock};

use device::pci::{BarKind, Connection, Identity, Layout, PciFunction};
use device::{Device, Fields, Io, IrqLine, StateError, ones};
use memory::Owner;
use parking_lot::Mutex;

use super::channel::IdeChannel;
use crate::ata::{Channel, Slots};
use crate::catalog::{BuildError, Built, BusKind, Category, Model, OfferedBus, Request};
use crate::pci::{INTEL, SUBSYSTEM};

/// A channel with its drives and its interrupt.
///
/// Lock order: `chip`, then the drives, then the interrupt line. Guest memory is accessed with
/// `chip` held, which no memory leads back to: the function's registers are ports.
struct Cable {
    chip: Mutex<IdeChannel>,
    drives: Arc<Channel>,
    irq: IrqLine,
    connection: OnceLock<Arc<Connection>>,
}

impl Cable {
    fn access<T>(&self, access: impl FnOnce(&mut IdeChannel, &Slots) -> T) -> T {
        let mut chip = self.chip.lock();
        let result = access(&mut chip, &self.drives.slots);
        self.irq.set_level(chip.irq());
        result
    }

    fn memory(&self) -> Option<Arc<memory::FlatView>> {
        self.connection.get()?.dma()
    }
}

/// The eight registers, of which the first is the data port.
struct CommandBlock(Arc<Cable>);

impl Io for CommandBlock {
    fn read(&self, offset: u64, size: u8) -> u64 {
        self.0.access(|chip, slots| match offset {
            0 => chip.read_data(slots, size),
            _ => ones(size) & !0xff | u64::from(chip.read(slots, offset)),
        })
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let memory = self.0.memory();
        self.0.access(|chip, slots| match offset {
            0 => chip.write_data(slots, memory.as_deref(), size, value),
            _ => chip.write(slots, memory.as_deref(), offset, value as u8),
        });
    }
}

/// Control, and the status without side effects.
struct ControlBlock(Arc<Cable>);

impl Io for ControlBlock {
    fn read(&self, _offset: u64, size: u8) -> u64 {
        let status = self.0.access(|chip, slots| chip.alternate_status(slots));
        ones(size) & !0xff | u64::from(status)
    }

    fn write(&self, _offset: u64, _size: u8, value: u64) {
        self.0.access(|chip, slots| chip.write_control(slots, value as u8));
    }
}

/// Both bus masters: eight ports each.
struct Masters([Arc<Cable>; 2]);

impl Io for Masters {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let cable = &self.0[usize::from(offset >= 8)];
        cable.access(|chip, _| {
            let byte = |at: u64| u64::from(chip.master.read(offset % 8 + at)) << (8 * at);
            (0..u64::from(size)).map(byte).sum()
        })
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let cable = &self.0[usize::from(offset >= 8)];
        let memory = cable.memory();
        cable.access(|chip, slots| {
            for (at, byte) in (0..u64::from(size)).zip(value.to_le_bytes()) {
                if chip.master.write(offset % 8 + at, byte) {
                    chip.run_master(slots, memory.as_deref());
                }
            }
        });
    }
}

/// The function.
struct Ide {
    connection: Arc<Connection>,
    cables: [Arc<Cable>; 2],
}

impl Device for Ide {
    fn reset(&self) {
        self.connection.reset();
        for cable in &self.cables {
            cable.access(|chip, slots| chip.reset(slots));
        }
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        for (cable, name) in self.cables.iter().zip(["primary", "secondary"]) {
            fields.locked(name, &cable.chip)?;
        }
        Ok(())
    }
}

impl PciFunction for Ide {
    fn connection(&self) -> &Connection {
        &self.connection
    }
}

fn build(request: &Request<'_>) -> Result<Built, BuildError> {
    let cable = |irq| {
        Arc::new_cyclic(|cable: &std::sync::Weak<Cable>| {
            let cable = cable.clone();
            let changed = Box::new(move || {
                if let Some(cable) = cable.upgrade() {
                    cable.access(|chip, slots| chip.reset(slots));
                }
            });
            Cable {
                chip: Mutex::default(),
                drives: Arc::new(Channel { slots: Slots::new(2), changed }),
                irq: request.surroundings.isa_irq(irq),
                connection: OnceLock::new(),
            }
        })
    };
    let cables = [cable(14), cable(15)];
    let identity = Identity {
        vendor: INTEL,
        device: 0x7010,
        revision: 0,
        class: 0x010180,
        subsystem: SUBSYSTEM,
    };
    let mut layout = Layout::new(identity);
    layout.config().allow(0x40, &[0xff; 5]); // timings, and whether channels are decoded
    for (cable, (command, control)) in cables.iter().zip([(0x1f0, 0x3f6), (0x170, 0x376)]) {
        let block = |io: Arc<dyn Io>| Owner::Io(io);
        layout.fixed_ports(command, 8, block(Arc::new(CommandBlock(Arc::clone(cable)))));
        layout.fixed_ports(control, 1, block(Arc::new(ControlBlock(Arc::clone(cable)))));
    }
    let masters = Masters([Arc::clone(&cables[0]), Arc::clone(&cables[1])]);
    layout.bar(4, BarKind::Io, 16, Owner::Io(Arc::new(masters)));
    let connection = layout.build();
    for cable in &cables {
        _ = cable.connection.set(Arc::clone(&connection));
    }
    let bus = |cable: &Arc<Cable>| {
        OfferedBus::new(BusKind::Ata, String::new(), Arc::clone(&cable.drives))
    };
    let buses = cables.iter().map(bus).collect();
    let ide = Arc::new(Ide { connection, cables });
    Ok(Built { buses, ..Built::pci(&ide) })
}

/// The function's row.
pub const MODELS: &[Model] = &[Model {
    name: "piix3-ide",
    description: "",
    category: Category::Storage,
    bus: BusKind::Pci,
    offers: Some(BusKind::Ata),
    properties: &[],
    state_version: 1,
    build,
}];
