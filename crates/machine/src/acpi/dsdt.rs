//! DSDT: what the system cannot find by itself. PCI's root with its windows and interrupts, the old
//! devices, the processors, S5.

use devices::acpi_pm::Commands;
use devices::{ich9, piix};

use super::Facts;
use super::aml::{self, Term, Window};

/// Which chipset, as far as tables care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chipset {
    /// i440FX and PIIX.
    Piix,
    /// Q35 and ICH9.
    Ich9,
    /// Power management alone; no PCI.
    None,
}

impl Chipset {
    /// General-purpose events: port, bytes; and the commands that switch ACPI mode.
    pub(super) fn power(self, pm_base: u16) -> (u64, u8, Commands) {
        match self {
            Self::Piix => (piix::GPE_BASE, piix::GPE_BYTES as u8, piix::COMMANDS),
            Self::Ich9 | Self::None => {
                let gpe = u64::from(pm_base) + ich9::GPE_OFFSET;
                (gpe, ich9::GPE_BYTES as u8, ich9::COMMANDS)
            }
        }
    }

    /// Slot and function of the way to the old devices.
    fn isa_address(self) -> u64 {
        match self {
            Self::Piix => 1 << 16,
            Self::Ich9 | Self::None => 31 << 16,
        }
    }

    /// How many wires the interrupt router takes.
    fn wires(self) -> u8 {
        match self {
            Self::Piix => 4,
            Self::Ich9 | Self::None => 8,
        }
    }

    /// The wire of a slot's pin.
    fn wire(self, slot: u8, pin: u32) -> u8 {
        use device::pci::PinRouter;
        match self {
            Self::Piix => devices::i440fx::Wiring.input(slot, pin) as u8,
            Self::Ich9 | Self::None => devices::q35::Wiring.input(slot, pin) as u8,
        }
    }
}

/// A serial port.
#[derive(Clone, Copy, Debug)]
pub struct Com {
    /// Its first port.
    pub port: u16,
    /// Its interrupt.
    pub irq: u8,
}

/// The whole table's body.
pub fn definitions(facts: &Facts) -> Vec<u8> {
    let zero = || aml::int(0);
    aml::all([
        // Four zeros: the kind of S5, for both control registers, and two that are reserved.
        aml::name("\\_S5", aml::package(&[zero(), zero(), zero(), zero()])),
        aml::name("\\PICF", zero()),
        aml::method("\\_PIC", 1, &[aml::store(aml::arg(0), aml::path("PICF"))]),
        aml::scope(
            "\\_SB",
            &[
                if facts.chipset == Chipset::None { small(facts) } else { pci_root(facts) },
                processors(facts.processors.len()),
                hpet(facts.hpet),
                reserved(facts.ecam),
            ],
        ),
    ])
}

/// The device of the machine's generation, whose number lies at `address`.
pub fn generation(address: u32) -> Vec<u8> {
    let kind = aml::string("VM_Gen_Counter");
    let device = [
        aml::name("_HID", aml::string("VMGENCTR")),
        aml::name("_CID", kind.clone()),
        aml::name("_DDN", kind),
        aml::name("ADDR", aml::package(&[aml::int(address.into()), aml::int(0)])),
    ];
    aml::scope("\\_SB", &[aml::device("VGEN", &device)])
}

fn hpet(there: bool) -> Term {
    if !there {
        return Vec::new();
    }
    aml::device(
        "HPET",
        &[
            aml::name("_HID", aml::eisa_id("PNP0103")),
            aml::name("_UID", aml::int(0)),
            aml::name("_CRS", aml::resources(&[aml::memory(0xfed0_0000, 0x400)])),
        ],
    )
}

/// What the board itself takes: without this, systems do not trust configuration space in memory.
fn reserved(ecam: Option<(u64, u64)>) -> Term {
    let Some((start, bytes)) = ecam else { return Vec::new() };
    let resources = aml::resources(&[aml::memory(start as u32, bytes as u32)]);
    let id = aml::name("_HID", aml::eisa_id("PNP0C02"));
    aml::device("MRES", &[id, aml::name("_UID", aml::int(1)), aml::name("_CRS", resources)])
}

fn processors(count: usize) -> Term {
    let processor = |number: usize| {
        let id = [
            aml::name("_HID", aml::string("ACPI0007")),
            aml::name("_UID", aml::int(number as u64)),
        ];
        aml::device(&format!("C{number:03X}"), &id)
    };
    aml::all((0..count).map(processor))
}

fn pci_root(facts: &Facts) -> Term {
    let express = facts.ecam.is_some();
    let mut body = Vec::new();
    if express {
        body.push(aml::name("_HID", aml::eisa_id("PNP0A08")));
        body.push(aml::name("_CID", aml::eisa_id("PNP0A03")));
        body.push(operating_system_capabilities());
    } else {
        body.push(aml::name("_HID", aml::eisa_id("PNP0A03")));
    }
    body.push(aml::name("_ADR", aml::int(0)));
    body.push(aml::name("_UID", aml::int(0)));
    body.push(aml::name("_CRS", windows(facts)));
    body.push(isa(facts));
    body.extend(interrupt_routes(facts.chipset));
    aml::device("PCI0", &body)
}

/// What PCI's root passes on.
fn windows(facts: &Facts) -> Term {
    let last_bus = facts.ecam.map_or(255, |(_, bytes)| (bytes >> 20) - 1);
    let mut items = vec![
        aml::window(Window::Bus, 0, last_bus),
        aml::ports(0xcf8, 8),
        aml::window(Window::Io, 0, 0xcf7),
        aml::window(Window::Io, 0xd00, 0xffff),
        aml::window(Window::Memory, 0xa_0000, 0xb_ffff),
    ];
    items.extend(
        facts.windows.iter().map(|(first, last)| aml::window(Window::Memory, *first, *last)),
    );
    aml::resources(&items)
}

/// `_OSC`: the system may handle hot-plug, power events and errors of express buses itself.
/// PCI Firmware 3.2, 4.5.1.
fn operating_system_capabilities() -> Term {
    let host_bridge = aml::uuid("33db4d5b-1ff7-401c-9657-7441c03dd766");
    let word = |number: u64, name: &str| aml::dword_field(aml::arg(3), 4 * number, name);
    aml::method(
        "_OSC",
        4,
        &[
            word(0, "CDW1"),
            aml::when(
                aml::equal(aml::arg(0), host_bridge),
                &[
                    word(1, "CDW2"),
                    word(2, "CDW3"),
                    // Native hot-plug, power events, error reporting, capability structure.
                    aml::and(aml::path("CDW3"), aml::int(0x1d), Some(aml::path("CDW3"))),
                    aml::when(
                        aml::differs(aml::arg(1), aml::int(1)),
                        &[aml::or(aml::path("CDW1"), aml::int(8), aml::path("CDW1"))],
                    ),
                ],
            ),
            aml::otherwise(&[aml::or(aml::path("CDW1"), aml::int(4), aml::path("CDW1"))]),
            aml::give(aml::arg(3)),
        ],
    )
}

fn link_name(wire: u8) -> String {
    format!("LNK{}", char::from(b'A' + wire))
}

/// `_PRT`: which wire, or which I/O APIC input, each pin of each slot is.
fn interrupt_routes(chipset: Chipset) -> Vec<Term> {
    let table = |entry: &dyn Fn(u8) -> [Term; 2]| {
        let mut rows = Vec::new();
        for slot in 0..32_u8 {
            for pin in 0..4 {
                let [source, index] = entry(chipset.wire(slot, pin));
                let address = aml::int(u64::from(slot) << 16 | 0xffff);
                rows.push(aml::package(&[address, aml::int(u64::from(pin)), source, index]));
            }
        }
        aml::package(&rows)
    };
    let links = table(&|wire| [aml::path(&format!("ISA.{}", link_name(wire))), aml::int(0)]);
    let by_links = aml::name("PRTP", links);
    if chipset == Chipset::Piix {
        // The router's outputs are the I/O APIC's inputs of the same numbers.
        return vec![by_links, aml::method("_PRT", 0, &[aml::give(aml::path("PRTP"))])];
    }
    let inputs = table(&|wire| [aml::int(0), aml::int(16 + u64::from(wire))]);
    let chosen = [
        aml::when(aml::path("PICF"), &[aml::give(aml::path("PRTA"))]),
        aml::give(aml::path("PRTP")),
    ];
    vec![by_links, aml::name("PRTA", inputs), aml::method("_PRT", 0, &chosen)]
}

/// The way to the old devices: the router's registers and what hangs on it.
fn isa(facts: &Facts) -> Term {
    let wires = facts.chipset.wires();
    let registers: Vec<String> = (0..wires).map(|wire| format!("PRQ{wire}")).collect();
    let mut fields: Vec<(&str, u32)> = registers.iter().map(|name| (name.as_str(), 8)).collect();
    if wires == 8 {
        fields.insert(4, ("", 32)); // four bytes between the two groups
    }
    let mut body = vec![
        aml::name("_ADR", aml::int(facts.chipset.isa_address())),
        aml::region("PRR0", aml::PCI_CONFIG, 0x60, 12),
        aml::field("PRR0", 1, &fields),
    ];
    body.extend((0..wires).map(|wire| link(wire, &registers[usize::from(wire)])));
    body.extend(old_devices(facts));
    aml::device("ISA", &body)
}

/// A board without PCI: the old devices, and virtio's behind registers in memory.
fn small(facts: &Facts) -> Term {
    let place = |(number, (start, bytes, input)): (usize, &(u64, u64, u32))| {
        let resources = [aml::memory(*start as u32, *bytes as u32), aml::interrupts(&[*input])];
        aml::device(
            &format!("VR{number:02X}"),
            &[
                aml::name("_HID", aml::string("LNRO0005")),
                aml::name("_UID", aml::int(number as u64)),
                aml::name("_CCA", aml::int(1)),
                aml::name("_CRS", aml::resources(&resources)),
            ],
        )
    };
    let places = facts.places.iter().enumerate().map(place);
    aml::all(old_devices(facts).into_iter().chain(places))
}

/// The old devices that systems are told of.
fn old_devices(facts: &Facts) -> Vec<Term> {
    let mut body = Vec::new();
    if facts.old.rtc {
        body.push(old("RTC", "PNP0B00", 0, &[aml::ports(0x70, 8), aml::irq(8)]));
    }
    if facts.i8042 {
        let ports = [aml::ports(0x60, 1), aml::ports(0x64, 1), aml::irq(1)];
        body.push(old("KBD", "PNP0303", 0, &ports));
        body.push(old("MOU", "PNP0F13", 0, &[aml::irq(12)]));
    }
    for (number, com) in facts.serial.iter().enumerate() {
        let resources = [aml::ports(com.port, 8), aml::irq(com.irq)];
        body.push(old(&format!("COM{}", number + 1), "PNP0501", number as u64 + 1, &resources));
    }
    body
}

/// An old device with fixed resources.
fn old(name: &str, id: &str, number: u64, resources: &[Term]) -> Term {
    aml::device(
        name,
        &[
            aml::name("_HID", aml::eisa_id(id)),
            aml::name("_UID", aml::int(number)),
            aml::name("_CRS", aml::resources(resources)),
        ],
    )
}

/// A wire that can be routed to an old interrupt line.
fn link(wire: u8, register: &str) -> Term {
    const OFF: u64 = 0x80;
    const NUMBER_AT: u64 = 5; // in the resource: tag, length, flags, count, then the number
    let choice = aml::resources(&[aml::interrupts(&[5, 10, 11])]);
    let present = aml::resources(&[aml::interrupts(&[0])]);
    let register = || aml::path(register);
    aml::device(
        &link_name(wire),
        &[
            aml::name("_HID", aml::eisa_id("PNP0C0F")),
            aml::name("_UID", aml::int(u64::from(wire))),
            aml::name("_PRS", choice),
            aml::name("BUFF", present),
            aml::method(
                "_STA",
                0,
                &[
                    aml::when(aml::and(register(), aml::int(OFF), None), &[aml::give(aml::int(9))]),
                    aml::give(aml::int(0x0b)),
                ],
            ),
            aml::method("_DIS", 0, &[aml::or(register(), aml::int(OFF), register())]),
            aml::method(
                "_CRS",
                0,
                &[
                    aml::dword_field(aml::path("BUFF"), NUMBER_AT, "NUMB"),
                    aml::and(register(), aml::int(15), Some(aml::path("NUMB"))),
                    aml::give(aml::path("BUFF")),
                ],
            ),
            aml::method(
                "_SRS",
                1,
                &[
                    aml::dword_field(aml::arg(0), NUMBER_AT, "NUMB"),
                    aml::store(aml::path("NUMB"), register()),
                ],
            ),
        ],
    )
}
