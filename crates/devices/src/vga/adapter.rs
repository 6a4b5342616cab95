//! The card on its bus.

use std::sync::{Arc, Weak};

use device::pci::{BarKind, Connection, Identity, Layout, PciFunction};
use device::{
    DefaultValue, Device, Fields, Io, Picture, Property, PropertyKind, Rectangle, Screen,
    StateError, ones,
};
use memory::{Owner, Ram};
use parking_lot::Mutex;

use super::chip::Chip;
use crate::catalog::{BuildError, Built, BusKind, Category, Model, Request, declare};
use crate::pci::SUBSYSTEM;

/// VGA's registers over video memory. A clone is the same card.
///
/// Lock order: `chip`, then nothing.
#[derive(Clone)]
pub struct Vga {
    chip: Arc<Mutex<Chip>>,
    memory: Arc<Ram>,
}

/// Ports from here on.
const PORTS: u64 = 0x3b0;
const DISPI_INDEX: u64 = 0x1ce;

impl Vga {
    /// A card with this video memory.
    #[must_use]
    pub fn new(memory: Arc<Ram>) -> Self {
        Self { chip: Arc::new(Mutex::new(Chip::new(memory.len()))), memory }
    }

    /// The video memory.
    #[must_use]
    pub fn memory(&self) -> &Arc<Ram> {
        &self.memory
    }

    /// Puts the old ports, the extension's, and the old window into a layout.
    pub fn declare(&self, layout: &mut Layout) {
        let part = |part| Owner::Io(Arc::new(Registers { vga: self.clone(), part }) as Arc<dyn Io>);
        layout.fixed_ports(PORTS, 0x30, part(Part::Ports));
        layout.fixed_ports(DISPI_INDEX, 3, part(Part::Dispi));
        layout.fixed_memory(0xa_0000, 0x2_0000, part(Part::Window));
    }

    /// The same registers for a BAR of 4 KiB: the ports at 0x400, the extension at 0x500.
    #[must_use]
    pub fn bar(&self) -> Owner {
        Owner::Io(Arc::new(Registers { vga: self.clone(), part: Part::Bar }))
    }

    /// As after power-on.
    pub fn reset(&self) {
        *self.chip.lock() = Chip::new(self.memory.len());
    }

    /// Brings a picture up to date; see [`Screen::refresh`].
    pub fn refresh(&self, picture: &mut Picture, whole: bool) -> Vec<Rectangle> {
        let chip = self.chip.lock().clone();
        chip.render(&self.memory, picture, whole)
    }

    /// Saves or loads the registers and the memory.
    pub fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.memory("video", &self.memory);
        fields.locked("vga", &self.chip)
    }

    fn write_dispi(&self, index: u16, value: u16) {
        let mut chip = self.chip.lock();
        if chip.dispi.write(index, value)
            && let Some(mode) = chip.dispi.linear()
        {
            let bytes = (mode.stride * u64::from(mode.height)).min(self.memory.len());
            let cleared = self.memory.fill(0, bytes, 0);
            debug_assert!(cleared, "what is cleared lies in the memory");
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    Ports,
    Dispi,
    Window,
    Bar,
}

struct Registers {
    vga: Vga,
    part: Part,
}

/// Little-endian registers; nobody has asked for the other order.
const LITTLE_ENDIAN: u64 = 0x1e1e_1e1e;

impl Registers {
    fn read_byte(&self, offset: u64) -> u8 {
        let mut chip = self.vga.chip.lock();
        match self.part {
            Part::Ports => chip.read(PORTS + offset),
            Part::Window => chip.read_window(&self.vga.memory, offset),
            Part::Bar => match offset {
                0x400..0x420 => chip.read(0x3c0 + offset - 0x400),
                0x500..0x516 => {
                    let register = chip.dispi.read(((offset - 0x500) / 2) as u16);
                    register.to_le_bytes()[(offset & 1) as usize]
                }
                0x600 => 8,
                0x604..0x608 => LITTLE_ENDIAN as u8,
                _ => 0,
            },
            Part::Dispi => 0xff,
        }
    }

    fn write_byte(&self, offset: u64, value: u8) {
        let mut chip = self.vga.chip.lock();
        match self.part {
            Part::Ports => chip.write(PORTS + offset, value),
            Part::Window => chip.write_window(&self.vga.memory, offset, value),
            Part::Bar if (0x400..0x420).contains(&offset) => {
                chip.write(0x3c0 + offset - 0x400, value);
            }
            Part::Bar | Part::Dispi => {}
        }
    }
}

impl Io for Registers {
    fn read(&self, offset: u64, size: u8) -> u64 {
        if let Part::Dispi = self.part {
            let chip = self.vga.chip.lock();
            return match offset {
                0 => u64::from(chip.dispi.index) & ones(size),
                1 | 2 => u64::from(chip.dispi.read(chip.dispi.index)) & ones(size),
                _ => ones(size),
            };
        }
        let byte = |at: u64| u64::from(self.read_byte(offset + at)) << (8 * at);
        (0..u64::from(size)).map(byte).sum()
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        match self.part {
            Part::Dispi => {
                if offset == 0 {
                    self.vga.chip.lock().dispi.index = value as u16;
                } else {
                    let index = self.vga.chip.lock().dispi.index;
                    self.vga.write_dispi(index, value as u16);
                }
            }
            Part::Bar if (0x500..0x516).contains(&offset) && size == 2 => {
                self.vga.write_dispi(((offset - 0x500) / 2) as u16, value as u16);
            }
            _ => {
                for (at, byte) in (0..u64::from(size)).zip(value.to_le_bytes()) {
                    self.write_byte(offset + at, byte);
                }
            }
        }
    }
}

/// The card.
struct Card {
    connection: Arc<Connection>,
    vga: Vga,
}

impl Device for Card {
    fn reset(&self) {
        self.connection.reset();
        self.vga.reset();
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        self.vga.transfer(fields)
    }
}

impl PciFunction for Card {
    fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Screen for Card {
    fn refresh(&self, picture: &mut Picture, whole: bool) -> Vec<Rectangle> {
        self.vga.refresh(picture, whole)
    }
}

/// Whether the card has the old ports, and which ROM.
fn build(request: &Request<'_>, class: u32, old: bool, rom: &str) -> Result<Built, BuildError> {
    const MIB: u64 = 1 << 20;
    let bytes = match request.properties.unsigned("vgamem") {
        Some(bytes) => bytes,
        None => request.properties.unsigned("vgamem_mb").unwrap_or(16).saturating_mul(MIB),
    };
    let bytes = bytes.checked_next_power_of_two().filter(|bytes| (MIB..=512 * MIB).contains(bytes));
    let bytes = bytes.ok_or_else(|| request.bad_value("vgamem_mb", "it is from 1 to 512 MiB"))?;
    let memory = Ram::new(&format!("{}.vram", request.id), bytes);
    let memory = memory.map_err(|error| BuildError::Other(error.to_string()))?;
    let vga = Vga::new(Arc::new(memory));
    let identity =
        Identity { vendor: 0x1234, device: 0x1111, revision: 2, class, subsystem: SUBSYSTEM };
    let mut layout = Layout::new(identity);
    let owner = Owner::Ram(Arc::clone(vga.memory()));
    layout.bar(0, BarKind::Prefetchable32, bytes, owner);
    layout.bar(2, BarKind::Memory32, 0x1000, vga.bar());
    if old {
        vga.declare(&mut layout);
    }
    request.rom(&mut layout, Some(rom).filter(|rom| !rom.is_empty()))?;
    let card = Arc::new(Card { connection: layout.build(), vga });
    request.surroundings.screens.add(request.id, Arc::downgrade(&card) as Weak<dyn Screen>);
    Ok(Built::pci(&card))
}

const VGA_MEMORY: &[Property] =
    &[declare("vgamem_mb", PropertyKind::Unsigned(32), Some(DefaultValue::Unsigned(16)))];
const BOCHS_MEMORY: &[Property] =
    &[declare("vgamem", PropertyKind::Size, Some(DefaultValue::Unsigned(16 << 20)))];

/// The cards' rows.
pub const MODELS: &[Model] = &[
    Model {
        name: "VGA",
        description: "",
        category: Category::Display,
        bus: BusKind::Pci,
        offers: None,
        properties: &[VGA_MEMORY],
        state_version: 1,
        build: |request| build(request, 0x030000, true, "vgabios-stdvga.bin"),
    },
    Model {
        name: "bochs-display",
        description: "",
        category: Category::Display,
        bus: BusKind::Pci,
        offers: None,
        properties: &[BOCHS_MEMORY],
        state_version: 1,
        build: |request| build(request, 0x038000, false, "vgabios-bochs-display.bin"),
    },
    Model {
        name: "secondary-vga",
        description: "",
        category: Category::Display,
        bus: BusKind::Pci,
        offers: None,
        properties: &[VGA_MEMORY],
        state_version: 1,
        build: |request| build(request, 0x038000, false, ""),
    },
];
