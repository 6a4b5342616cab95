//! The machine as people and programs look at it from outside: what is on its buses.

use std::sync::Arc;

use device::pci::{BarKind, Bus, spec};
use devices::i8259::PicView;
use devices::ioapic::IoApicView;
use memory::AddressSpace;

use crate::board::Machine;

/// A base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciBar {
    /// Which.
    pub index: u8,
    /// Ports rather than memory.
    pub is_io: bool,
    /// 64 bits wide.
    pub is_wide: bool,
    /// Reading changes nothing.
    pub prefetchable: bool,
    /// Bytes.
    pub bytes: u64,
    /// Where it lies, if it does.
    pub base: Option<u64>,
}

/// What a bridge says of its lower side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciBridge {
    /// Numbers of its own bus, the one below, and the last one below.
    pub buses: (u8, u8, u8),
    /// First and last port.
    pub ports: (u64, u64),
    /// First and last address.
    pub memory: (u64, u64),
    /// The same for what may be prefetched.
    pub prefetchable: (u64, u64),
    /// What is below.
    pub devices: Vec<PciDevice>,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciDevice {
    /// Its bus's number.
    pub bus: u8,
    /// Its slot.
    pub slot: u8,
    /// Which of the slot's functions.
    pub function: u8,
    /// The part's name; empty for the board's own.
    pub id: String,
    /// Vendor and device.
    pub vendor: (u16, u16),
    /// The same of the subsystem.
    pub subsystem: (u16, u16),
    /// Class and subclass.
    pub class: u16,
    /// Line and pin; pin 0: none.
    pub interrupt: (u8, u8),
    /// Its registers.
    pub bars: Vec<PciBar>,
    /// It is a bridge.
    pub bridge: Option<PciBridge>,
}

impl Machine {
    /// Everything on the root bus, with what is below bridges.
    #[must_use]
    pub fn pci_devices(&self) -> Vec<PciDevice> {
        let named = |bus: &str, slot: u8, function: u8| {
            self.with_parts(|parts| {
                let here = parts.iter().find(|part| {
                    let at = part.address.map(|address| (address.slot, address.function));
                    part.bus == bus && at == Some((slot, function))
                });
                here.map(|part| part.id.clone()).unwrap_or_default()
            })
        };
        devices(&self.pci.bus, 0, self.root_bus, &named)
    }

    /// The registers of the interrupt controllers: the I/O APIC, the first 8259, the second.
    #[must_use]
    pub fn interrupt_controllers(&self) -> (IoApicView, [PicView; 2]) {
        (self.chips.ioapic.view(), self.chips.pic.view())
    }

    /// I/O ports, as the processors see them.
    #[must_use]
    pub fn ports(&self) -> Arc<AddressSpace> {
        Arc::clone(&self.ports)
    }
}

/// The name of the part at a place: bus, slot, function.
type Named<'a> = &'a dyn Fn(&str, u8, u8) -> String;

fn devices(bus: &Arc<Bus>, number: u8, name: &str, named: Named<'_>) -> Vec<PciDevice> {
    let mut list = Vec::new();
    for (address, function) in bus.functions() {
        let id = named(name, address.slot, address.function);
        let connection = function.connection();
        let bars = connection.bars().into_iter().map(|(index, kind, bytes, base)| PciBar {
            index,
            is_io: matches!(kind, BarKind::Io),
            is_wide: matches!(kind, BarKind::Memory64 | BarKind::Prefetchable64),
            prefetchable: matches!(kind, BarKind::Prefetchable64 | BarKind::Prefetchable32),
            bytes,
            base,
        });
        let bars = bars.collect();
        let bridge = function.secondary().map(|below| {
            let read = |at, size| connection.config_read(at, size);
            let (second, last) = (read(0x19, 1) as u8, read(0x1a, 1) as u8);
            let window = |low: u32, high: u32, bits: u32, fill: u64| {
                (u64::from(low) << bits, u64::from(high) << bits | fill)
            };
            let ports = window(read(0x1c, 1) >> 4, read(0x1d, 1) >> 4, 12, 0xfff);
            let memory = window(read(0x20, 2) >> 4, read(0x22, 2) >> 4, 20, 0xf_ffff);
            let (low, high) = window(read(0x24, 2) >> 4, read(0x26, 2) >> 4, 20, 0xf_ffff);
            let upper = |at| u64::from(read(at, 4)) << 32;
            // Buses that firmware has not numbered yet are seen all the same.
            PciBridge {
                buses: (number, second, last),
                ports,
                memory,
                prefetchable: (low | upper(0x28), high | upper(0x2c)),
                devices: devices(below, second, &id, named),
            }
        });
        let device = connection.with_config(|config| PciDevice {
            bus: number,
            slot: address.slot,
            function: address.function,
            id: id.clone(),
            vendor: (config.half(spec::VENDOR), config.half(spec::DEVICE)),
            subsystem: (config.half(spec::SUBSYSTEM_VENDOR), config.half(spec::SUBSYSTEM)),
            class: config.half(0x0a),
            interrupt: (config.byte(spec::INTERRUPT_LINE), config.byte(spec::INTERRUPT_PIN)),
            bars,
            bridge,
        });
        list.push(device);
    }
    list
}
