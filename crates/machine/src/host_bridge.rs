//! The board's PCI: root bus, host bridge, south bridge.

use std::sync::Arc;

use device::pci::{Address, Bus, MsiSink, PciFunction, Root};
use device::{Device, Fields, IrqLine, IrqSink, StateError};
use devices::acpi_pm::{Apm, FixedPorts, GpePorts};
use devices::pci::{ConfigPorts, OldLines, Pam, PirqRouter};
use devices::{i440fx, ich9, piix, q35};
use memory::{AddressSpace, Owner, Ram, Region};

use crate::acpi;
use crate::chips::{Chips, Messages};
use crate::config::BoardKind;

/// Where configuration space lies on a board that no firmware has set up.
const EXPRESS_BASE: u64 = 0xb000_0000;
/// Where firmware puts ACPI's fixed registers, and so do we.
pub const PM_BASE: u16 = 0x600;
/// The I/O APIC's inputs of PCI, on boards that have them.
const PCI_INPUTS: u32 = 16;

/// ACPI's hardware at its place, on a board where no bridge moves it, and the way to reset.
fn map_power(chips: &Chips, ports: &AddressSpace) {
    let base = u64::from(PM_BASE);
    let fixed = Arc::new(FixedPorts(Arc::clone(&chips.pm)));
    let gpe = Arc::new(GpePorts(Arc::clone(&chips.pm), ich9::GPE_BYTES));
    ports.add(Region::new("acpi-pm", base, 16, Owner::Io(fixed)));
    ports.add(Region::new("acpi-gpe", base + ich9::GPE_OFFSET, ich9::GPE_BYTES, Owner::Io(gpe)));
    let reset = Arc::clone(&chips.reset_control) as _;
    ports.add(Region::new("reset-control", 0xcf9, 1, Owner::Io(reset)));
}

/// RAM below 1 MiB and the ROM whose end is copied there, where there is one.
struct Shadow(Option<(Arc<Ram>, Arc<Ram>)>);

impl Shadow {
    const END: u64 = 1 << 20;
    const BYTES_MAX: u64 = 128 << 10;

    /// Makes the copy.
    fn fill(&self) {
        let Some((ram, rom)) = &self.0 else { return };
        let length = rom.len().min(Self::BYTES_MAX);
        let mut bytes = vec![0; length as usize];
        let copied =
            rom.read(rom.len() - length, &mut bytes) && ram.write(Self::END - length, &bytes);
        debug_assert!(copied, "both are large enough");
    }
}

enum South {
    Piix {
        host: Arc<i440fx::I440fx>,
        isa: Arc<piix::Isa>,
        power: Arc<piix::Power>,
    },
    Ich9 {
        host: Arc<q35::Mch>,
        lpc: Arc<ich9::Lpc>,
    },
    /// No PCI: the bus is there for those who ask, and nothing leads to it.
    None {
        shadow: Shadow,
    },
}

/// The board's PCI.
pub struct HostBridge {
    pub bus: Arc<Bus>,
    root: Arc<Root>,
    south: South,
    config_ports: Arc<ConfigPorts>,
    apm: Arc<Apm>,
}

impl HostBridge {
    /// The bridges of this board, plugged into its root bus, between memory, ports, and what
    /// devices see of memory.
    pub fn new(
        kind: BoardKind,
        (memory, ports, dma): (&Arc<AddressSpace>, &Arc<AddressSpace>, &Arc<AddressSpace>),
        (ram, rom): (&Arc<Ram>, Option<Arc<Ram>>),
        chips: &Chips,
    ) -> Self {
        let root = Arc::new(Root {
            memory: Arc::clone(memory),
            ports: Arc::clone(ports),
            dma: Arc::clone(dma),
            msi: Arc::new(Messages(Arc::clone(&chips.apics))) as Arc<dyn MsiSink>,
        });
        let lines = Arc::clone(&chips.lines) as Arc<dyn OldLines>;
        let shadow = rom.clone().map(|rom| (Arc::clone(ram), rom));
        let pam = Pam::new(memory, ram, rom);
        let plug = |bus: &Arc<Bus>, slot, function, device: Arc<dyn PciFunction>| {
            let plugged = bus.plug(Address { slot, function }, &device);
            assert!(plugged.is_ok(), "the board's own slots are free");
        };
        let (bus, south, commands) = match kind {
            BoardKind::Pc => {
                let router = PirqRouter::new(lines, Vec::new());
                let sink = Arc::clone(&router) as Arc<dyn IrqSink>;
                let bus = Bus::host(Arc::clone(&root), false, Box::new(i440fx::Wiring), sink);
                let host = i440fx::I440fx::new(pam);
                let isa = piix::Isa::new(router);
                let power = piix::Power::new(&chips.pm, ports);
                let gpe =
                    Arc::new(devices::acpi_pm::GpePorts(Arc::clone(&chips.pm), piix::GPE_BYTES));
                ports.add(Region::new("acpi-gpe", piix::GPE_BASE, piix::GPE_BYTES, Owner::Io(gpe)));
                plug(&bus, 0, 0, Arc::clone(&host) as _);
                plug(&bus, 1, 0, Arc::clone(&isa) as _);
                plug(&bus, 1, 3, Arc::clone(&power) as _);
                (bus, South::Piix { host, isa, power }, piix::COMMANDS)
            }
            BoardKind::Q35 => {
                let ioapic = Arc::clone(&chips.ioapic) as Arc<dyn IrqSink>;
                let input = |number| IrqLine::new(Arc::clone(&ioapic), PCI_INPUTS + number);
                let router = PirqRouter::new(lines, (0..8).map(input).collect());
                let sink = Arc::clone(&router) as Arc<dyn IrqSink>;
                let bus = Bus::host(Arc::clone(&root), true, Box::new(q35::Wiring), sink);
                let host = q35::Mch::new(pam, &bus, memory);
                let lpc = ich9::Lpc::new(router, &chips.pm, memory, ports);
                plug(&bus, 0, 0, Arc::clone(&host) as _);
                plug(&bus, 31, 0, Arc::clone(&lpc) as _);
                (bus, South::Ich9 { host, lpc }, ich9::COMMANDS)
            }
            BoardKind::Microvm => {
                let router = PirqRouter::new(lines, Vec::new());
                let sink = router as Arc<dyn IrqSink>;
                let bus = Bus::host(Arc::clone(&root), false, Box::new(i440fx::Wiring), sink);
                map_power(chips, ports);
                // RAM where other boards have a ROM, with the ROM's contents.
                pam.apply(&[0x33; 7]);
                let shadow = Shadow(shadow);
                shadow.fill();
                (bus, South::None { shadow }, ich9::COMMANDS)
            }
        };
        let config_ports =
            Arc::new(ConfigPorts::new(Arc::clone(&bus), Arc::clone(&chips.reset_control) as _));
        let apm = Apm::new(Arc::clone(&chips.pm), commands);
        if kind != BoardKind::Microvm {
            let owner = Owner::Io(Arc::clone(&config_ports) as _);
            ports.add(Region::new("pci-config", 0xcf8, 8, owner));
        }
        ports.add(Region::new("apm", 0xb2, 2, Owner::Io(Arc::clone(&apm) as _)));
        Self { bus, root, south, config_ports, apm }
    }

    /// What all its buses share.
    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// The board's own functions, which are no parts.
    pub fn own_functions(&self) -> Vec<(&'static str, Arc<dyn PciFunction>)> {
        match &self.south {
            South::Piix { host, isa, power } => vec![
                ("i440fx", Arc::clone(host) as _),
                ("piix3", Arc::clone(isa) as _),
                ("piix4-pm", Arc::clone(power) as _),
            ],
            South::Ich9 { host, lpc } => {
                vec![("mch", Arc::clone(host) as _), ("ich9-lpc", Arc::clone(lpc) as _)]
            }
            South::None { .. } => Vec::new(),
        }
    }

    /// Saves or loads what is no function.
    pub fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        self.config_ports.transfer(fields)?;
        self.apm.transfer(fields)
    }

    /// All as after power-on.
    pub fn reset(&self) {
        if let South::None { shadow } = &self.south {
            shadow.fill();
        }
        self.bus.reset();
        self.config_ports.reset();
        self.apm.reset();
    }

    /// What firmware does before it starts a system.
    pub fn set_up_without_firmware(&self) {
        /// Old lines for the wires, shared as firmware shares them.
        const LINES: [u8; 4] = [10, 10, 11, 11];
        match &self.south {
            South::Piix { host, isa, power } => {
                host.open_shadow_ram();
                power.set_up(PM_BASE);
                for (at, line) in LINES.into_iter().enumerate() {
                    isa.config_write(0x60 + at as u16, 1, u32::from(line));
                }
            }
            South::Ich9 { host, lpc } => {
                host.set_up(EXPRESS_BASE);
                lpc.set_up(PM_BASE);
                for (at, line) in LINES.into_iter().enumerate() {
                    lpc.config_write(0x60 + at as u16, 1, u32::from(line));
                    lpc.config_write(0x68 + at as u16, 1, u32::from(line));
                }
            }
            South::None { .. } => {} // nothing moves
        }
    }

    /// For the tables: which chipset, and where configuration space lies now.
    pub fn chipset(&self) -> (acpi::Chipset, Option<(u64, u64)>) {
        match &self.south {
            South::Piix { .. } => (acpi::Chipset::Piix, None),
            South::Ich9 { host, .. } => (acpi::Chipset::Ich9, host.express()),
            South::None { .. } => (acpi::Chipset::None, None),
        }
    }

    /// The windows of memory that PCI may use, given where RAM ends below and above 4 GiB, and
    /// where the functions' base addresses point now.
    pub fn windows(&self, low: u64, high: u64) -> Vec<(u64, u64)> {
        /// Below are the interrupt controllers.
        const END: u64 = 0xfec0_0000;
        const GIB: u64 = 1 << 30;
        let mut windows = Vec::new();
        match self.chipset().1 {
            Some((start, bytes)) if start >= low => {
                windows.push((low, start));
                windows.push((start + bytes, END));
            }
            _ => windows.push((low, END)),
        }
        let above = (1 << 32) + high;
        let (mut first, mut last) = (above.next_multiple_of(GIB), 0);
        last = last.max(first + 32 * GIB);
        let mut pending = vec![Arc::clone(&self.bus)];
        while let Some(bus) = pending.pop() {
            for (_, function) in bus.functions() {
                for (_, _, bytes, base) in function.connection().bars() {
                    if let Some(base) = base.filter(|base| *base >= above) {
                        first = first.min(base / GIB * GIB);
                        last = last.max((base + bytes).next_multiple_of(GIB));
                    }
                }
                pending.extend(function.secondary().cloned());
            }
        }
        windows.push((first, last));
        windows.retain(|(first, end)| first < end);
        windows.into_iter().map(|(first, end)| (first, end - 1)).collect()
    }
}
