//! The chips of every PC: interrupt controllers, timers, clock, resets.

use std::sync::Arc;

use accel::Processors;
use device::pci::MsiSink;
use device::{
    Clock, Device, Fields, HostClock, Inputs, Io, IrqLine, IrqSink, Power, StateError, Timers,
};
use devices::acpi_pm::AcpiPm;
use devices::hpet::{self, Hpet, LegacyGate};
use devices::i8042::I8042;
use devices::i8254::{Pit, Port61};
use devices::i8259::{Elcr, Pair, PicPorts};
use devices::ioapic::{self, IoApic};
use devices::lapic::{self, Apics, LapicMmio, Message};
use devices::mc146818::Cmos;
use devices::pci::OldLines;
use memory::{AddressSpace, Owner, Region};
use parking_lot::Mutex;

use crate::a20::A20Gate;
use crate::config::{BoardKind, Config, OldChips};
use crate::main_loop::Requests;
use crate::resets::{Port92, ResetControl};

/// The interrupt of ACPI's events.
const SCI: u32 = 9;
/// Inputs of the I/O APIC that the HPET can use: those of the timer and the clock, and PCI's.
const HPET_ROUTES: u32 = 0xff_0104;
/// Where PCI has none of its own.
const HPET_ROUTES_OLD: u32 = 0x104;

/// What is on every board.
pub struct Chips {
    pub pic: Arc<Pair>,
    pub pit: Arc<Pit>,
    pub cmos: Arc<Cmos>,
    pub ioapic: Arc<IoApic>,
    pub apics: Arc<Apics>,
    pub pm: Arc<AcpiPm>,
    pub lines: Arc<IsaLines>,
    pub reset_control: Arc<ResetControl>,
    port92: Arc<Port92>,
    port61: Arc<Port61>,
    a20: Arc<A20Gate>,
    pub i8042: Option<Arc<I8042>>,
    hpet: Option<Arc<Hpet>>,
    old: OldChips,
}

/// The sixteen old interrupt lines. They reach the 8259 pair and the I/O APIC; PCI's share of a
/// line only the former where PCI has inputs of its own at the latter.
pub struct IsaLines {
    pic: Arc<Pair>,
    ioapic: Arc<IoApic>,
    pci_reaches_ioapic: bool,
    /// Who asserts each line: devices in the lower half, PCI in the upper one.
    state: Mutex<u32>,
}

impl IsaLines {
    fn change(&self, line: u32, shift: u32, level: bool) {
        let line = line & 15;
        let mut state = self.state.lock();
        let bit = 1 << (line + shift);
        *state = if level { *state | bit } else { *state & !bit };
        let (device, pci) = (*state >> line & 1 != 0, *state >> (line + 16) & 1 != 0);
        self.pic.set_level(line, device || pci);
        // The timer is on input 2 of the I/O APIC, as the tables say.
        let input = if line == 0 { 2 } else { line };
        self.ioapic.set_level(input, device || (pci && self.pci_reaches_ioapic));
    }
}

impl Device for IsaLines {
    /// Whoever asserts a line takes it back.
    fn reset(&self) {}

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("asserted", &self.state)
    }
}

impl IrqSink for IsaLines {
    fn set_level(&self, pin: u32, level: bool) {
        self.change(pin, 0, level);
    }
}

impl OldLines for IsaLines {
    fn set_pci_level(&self, line: u32, level: bool) {
        self.change(line, 16, level);
    }
}

/// The output of the 8259 pair.
struct PicOutput(Arc<Apics>);

impl IrqSink for PicOutput {
    fn set_level(&self, _pin: u32, level: bool) {
        if level {
            self.0.external();
        }
    }
}

/// Interrupt messages to the local APICs.
pub struct Messages(pub Arc<Apics>);

impl MsiSink for Messages {
    fn send(&self, address: u64, data: u32) {
        const APICS: u64 = 0xfee;
        if address >> 20 == APICS
            && let Some(message) = Message::from_msi(address, data)
        {
            self.0.deliver(message);
        }
    }
}

/// A vCPU as its local APIC sees it.
struct Cpu(Arc<accel::Processor>);

impl lapic::Processor for Cpu {
    fn kick(&self) {
        self.0.kick();
    }

    fn nmi(&self) {
        self.0.nmi();
    }

    fn init(&self) {
        self.0.init();
    }

    fn start(&self, page: u8) {
        self.0.start(page);
    }
}

impl Chips {
    /// The chips, wired to each other.
    pub fn new(
        config: &Config,
        requests: &Arc<Requests>,
        host_clock: &Arc<HostClock>,
        timers: &Arc<Timers>,
        processors: &Processors,
        inputs: &Inputs,
        gate: Arc<A20Gate>,
    ) -> Self {
        let clock: Arc<dyn Clock> = Arc::clone(host_clock) as _;
        let cpus = processors.all().iter().map(|processor| {
            let id = config.identity.topology.apic_id(processor.number());
            (id, Arc::new(Cpu(Arc::clone(processor))) as Arc<dyn lapic::Processor>)
        });
        let apics = Apics::new(Arc::clone(&clock), timers, cpus.collect());
        let pic = Pair::new(IrqLine::new(Arc::new(PicOutput(Arc::clone(&apics))), 0));
        apics.connect_pic(Arc::clone(&pic));
        let ioapic = IoApic::new(&apics);
        let lines = Arc::new(IsaLines {
            pic: Arc::clone(&pic),
            ioapic: Arc::clone(&ioapic),
            pci_reaches_ioapic: config.board != BoardKind::Q35,
            state: Mutex::default(),
        });
        let irq = |pin| IrqLine::new(Arc::clone(&lines) as Arc<dyn IrqSink>, pin);
        let power: Arc<dyn Power> = Arc::clone(requests) as _;
        let a20 = IrqLine::new(Arc::clone(&gate) as Arc<dyn IrqSink>, 0);
        let legacy = LegacyGate::new(Arc::clone(&lines) as Arc<dyn IrqSink>);
        let old = |pin| IrqLine::new(Arc::clone(&legacy) as Arc<dyn IrqSink>, pin);
        let routes = match config.board {
            BoardKind::Pc | BoardKind::Microvm => HPET_ROUTES_OLD,
            BoardKind::Q35 => HPET_ROUTES,
        };
        let hpet = config.hpet.then(|| {
            let inputs = Arc::clone(&ioapic) as Arc<dyn IrqSink>;
            Hpet::new(Arc::clone(&clock), timers, Arc::clone(&legacy), inputs, routes)
        });
        let pit = Pit::new(Arc::clone(&clock), timers, old(0));
        Self {
            hpet,
            old: config.old_chips,
            port61: Arc::new(Port61::new(&pit)),
            a20: gate,
            pit,
            cmos: Cmos::new(Arc::clone(&clock), timers, old(8), config.clock_offset_s),
            i8042: config
                .i8042
                .then(|| I8042::new([irq(1), irq(12)], Arc::clone(&power), a20.clone(), inputs)),
            pm: AcpiPm::new(clock, irq(SCI), power),
            reset_control: Arc::new(ResetControl::new(Arc::clone(requests))),
            port92: Arc::new(Port92::new(Arc::clone(requests), a20)),
            pic,
            ioapic,
            apics,
            lines,
        }
    }

    /// Puts the chips at their addresses.
    pub fn map(&self, memory: &AddressSpace, ports: &AddressSpace) {
        let lapic: Arc<dyn Io> = Arc::new(LapicMmio::new(&self.apics));
        let ioapic: Arc<dyn Io> = Arc::clone(&self.ioapic) as _;
        for (name, start, chip) in [("lapic", lapic::BASE, lapic), ("ioapic", ioapic::BASE, ioapic)]
        {
            memory.add(Region::new(name, start, 0x1000, Owner::Io(chip)).with_priority(2));
        }
        if let Some(hpet) = &self.hpet {
            let owner = Owner::Io(Arc::clone(hpet) as Arc<dyn Io>);
            memory.add(Region::new("hpet", hpet::BASE, hpet::BYTES, owner).with_priority(2));
        }
        let add = |name: &str, start: u64, length: u64, device: Arc<dyn Io>| {
            ports.add(Region::new(name, start, length, Owner::Io(device)));
        };
        if self.old.pic {
            add("pic", 0x20, 2, Arc::new(PicPorts::new(&self.pic, 0)));
            add("pic2", 0xa0, 2, Arc::new(PicPorts::new(&self.pic, 1)));
            add("elcr", 0x4d0, 2, Arc::new(Elcr::new(&self.pic)));
        }
        if self.old.pit {
            add("pit", 0x40, 4, Arc::clone(&self.pit) as _);
            add("port61", 0x61, 1, Arc::clone(&self.port61) as _);
        }
        if self.old.rtc {
            add("rtc", 0x70, 2, Arc::clone(&self.cmos) as _);
        }
        add("port92", 0x92, 1, Arc::clone(&self.port92) as _);
        if let Some(i8042) = &self.i8042 {
            // Data and status, with another chip's port between them.
            for (name, start, offset) in [("i8042-data", 0x60, 0), ("i8042-command", 0x64, 4)] {
                let owner = Owner::Io(Arc::clone(i8042) as Arc<dyn Io>);
                ports.add(Region::new(name, start, 1, owner).with_offset(offset));
            }
        }
    }

    /// Chips that are saved, those before whom others assert their lines last.
    pub fn saved(&self) -> Vec<(&'static str, Arc<dyn Device>)> {
        let mut chips: Vec<(_, Arc<dyn Device>)> = vec![
            ("reset-control", Arc::clone(&self.reset_control) as _),
            ("port92", Arc::clone(&self.port92) as _),
            ("a20", Arc::clone(&self.a20) as _),
            ("port61", Arc::clone(&self.port61) as _),
            ("rtc", Arc::clone(&self.cmos) as _),
            ("pit", Arc::clone(&self.pit) as _),
            ("acpi-pm", Arc::clone(&self.pm) as _),
        ];
        chips.extend(self.i8042.iter().map(|chip| ("i8042", Arc::clone(chip) as _)));
        chips.extend(self.hpet.iter().map(|chip| ("hpet", Arc::clone(chip) as _)));
        chips.extend([
            ("isa-lines", Arc::clone(&self.lines) as Arc<dyn Device>),
            ("pic", Arc::clone(&self.pic) as _),
            ("ioapic", Arc::clone(&self.ioapic) as _),
        ]);
        chips
    }

    /// All as after power-on.
    pub fn reset(&self) {
        self.pic.reset();
        self.pit.reset();
        self.cmos.reset();
        self.ioapic.reset();
        self.apics.reset();
        self.pm.reset();
        self.reset_control.reset();
        self.port92.reset();
        if let Some(hpet) = &self.hpet {
            hpet.reset();
        }
        if let Some(i8042) = &self.i8042 {
            i8042.reset();
        }
    }
}
