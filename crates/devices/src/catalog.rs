//! The catalog of devices: one table of what can be added to a machine.
//!
//! **How to add a device.** Write its module, with a `pub const MODEL: Model` (or several, for
//! variants) beside it, and name it in [`MODELS`]. A model is a row:
//!
//! - `name`: the neutral name that is also what people type after `-device`;
//! - `bus`: the kind of bus it plugs into; `offers`: the kind of bus it opens for others;
//! - `properties`: declarations ([`device::Property`]), in several slices so that what many devices
//!   share is declared once ([`PCI_PROPERTIES`] for everything on PCI);
//! - `build`: makes the device from a [`Request`]. It takes back ends from
//!   `request.surroundings.backends`, and gives a [`Built`]: the device for reset and pause, how it
//!   is attached, the buses it offers, and what can be asked of it from outside ([`Controls`]).
//!
//! **What the machine does.** It fills in `properties` from the declarations' defaults and what was
//! set (already held against the declared kinds), finds the bus and the slot, calls `build`, plugs
//! a PCI function into its slot or an ISA device's registers into the ports, and remembers what it
//! made by its `id`. `addr`, `multifunction`, `romfile` and `rombar` are the machine's: a `build`
//! only puts a ROM into its layout with [`Request::rom`], and asks [`Request::pci_place`] on what
//! kind of bus it is. Devices on buses other than PCI and ISA plug themselves into `request.bus`,
//! which is what the parent put into [`OfferedBus::object`]; both ends are in this crate.
//!
//! Errors are in neutral terms ([`BuildError`]); the command line's edge words them.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use device::pci::{Bus, Layout, PciFunction};
use device::{DefaultValue, Device, Io, Properties, Property, PropertyKind};
use memory::{PAGE_SIZE, Ram};

use crate::pci::{BRIDGE_MODELS, ROOT_PORT_MODELS};
use crate::surroundings::Surroundings;
use crate::virtio::models;
use crate::{ahci, ata, debug, e1000, hda, ide, pvpanic, serial, usb, vga, vmgenid, xhci};

/// Every model, in the order of their names' files.
pub const MODELS: &[&[Model]] = &[
    // PCI's own
    BRIDGE_MODELS,
    ROOT_PORT_MODELS,
    // chips
    ahci::MODELS,
    ata::MODELS,
    debug::MODELS,
    e1000::MODELS,
    hda::MODELS,
    ide::MODELS,
    pvpanic::MODELS,
    serial::MODELS,
    usb::MODELS,
    vga::MODELS,
    vmgenid::MODELS,
    // virtio
    models::BLK,
    models::NET,
    models::RNG,
    models::CONSOLE,
    models::BALLOON,
    models::INPUT,
    models::GPU,
    models::NINEP,
    models::FS,
    models::VSOCK,
    models::MMIO,
    xhci::MODELS,
];

/// Finds a model by its name.
#[must_use]
pub fn model(name: &str) -> Option<&'static Model> {
    models().find(|model| model.name == name)
}

/// All models.
pub fn models() -> impl Iterator<Item = &'static Model> {
    MODELS.iter().copied().flatten()
}

/// A row of the catalog.
pub struct Model {
    /// Its name.
    pub name: &'static str,
    /// A line for people.
    pub description: &'static str,
    /// Under which heading it is listed.
    pub category: Category,
    /// What it plugs into.
    pub bus: BusKind,
    /// What plugs into it.
    pub offers: Option<BusKind>,
    /// Declarations, shared ones first.
    pub properties: &'static [&'static [Property]],
    /// The layout of its saved state: a state of a later version is refused.
    pub state_version: u32,
    /// The constructor.
    pub build: fn(&Request<'_>) -> Result<Built, BuildError>,
}

impl Model {
    /// All declarations: of the bus first, then its own.
    pub fn declared(&self) -> impl Iterator<Item = &'static Property> + use<> {
        let of_bus: &'static [Property] = match self.bus {
            BusKind::Pci => PCI_PROPERTIES,
            _ => &[],
        };
        of_bus.iter().chain(self.properties.iter().copied().flatten())
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// Headings of the list of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// Controllers, bridges, hubs.
    Controller,
    /// USB.
    Usb,
    /// Disks and their controllers.
    Storage,
    /// Cards.
    Network,
    /// Keyboards, pointers, consoles.
    Input,
    /// Screens.
    Display,
    /// Sound cards and what sits on them.
    Sound,
    /// Anything else.
    Other,
    /// Watchdogs.
    Watchdog,
}

/// Kinds of buses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BusKind {
    /// PCI and PCI Express.
    Pci,
    /// Ports and interrupt lines of the old PC.
    Isa,
    /// ATA, serial or parallel.
    Ata,
    /// SCSI.
    Scsi,
    /// USB.
    Usb,
    /// Codecs of a sound card.
    Hda,
    /// Ports of a virtio serial controller.
    VirtioSerial,
    /// Places for virtio devices behind registers in memory.
    VirtioMmio,
    /// No bus: the board itself.
    Board,
}

const fn property(
    name: &'static str,
    kind: PropertyKind,
    default: Option<DefaultValue>,
    help: &'static str,
) -> Property {
    Property { name, kind, default, help }
}

/// What everything on PCI has.
pub const PCI_PROPERTIES: &[Property] = &[
    property("addr", PropertyKind::PciAddress, None, "Slot and optional function number"),
    property("multifunction", PropertyKind::Bool, Some(DefaultValue::Bool(false)), ""),
    property("romfile", PropertyKind::Text, None, ""),
    property("rombar", PropertyKind::Auto, None, ""),
];

/// Declares a property in a model's table.
#[must_use]
pub const fn declare(
    name: &'static str,
    kind: PropertyKind,
    default: Option<DefaultValue>,
) -> Property {
    property(name, kind, default, "")
}

/// On what kind of PCI bus a function will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PciPlace {
    /// A conventional bus.
    Conventional,
    /// The root bus of an express hierarchy.
    ExpressRoot,
    /// The slot of an express port.
    ExpressPort,
}

impl PciPlace {
    /// What functions on this bus are.
    #[must_use]
    pub fn of(bus: &Bus) -> Self {
        match (bus.is_express(), bus.is_host()) {
            (false, _) => Self::Conventional,
            (true, true) => Self::ExpressRoot,
            (true, false) => Self::ExpressPort,
        }
    }
}

/// What a device is built from.
pub struct Request<'a> {
    /// The device's name among the machine's; never empty, for the machine makes one up.
    pub id: &'a str,
    /// The values of all declared properties, as far as they are set or have defaults.
    pub properties: &'a Properties,
    /// What the machine offers.
    pub surroundings: &'a Surroundings,
    /// On what kind of PCI bus it will be; of no meaning off PCI.
    pub pci_place: PciPlace,
    /// The parent's [`OfferedBus::object`], off PCI and ISA.
    pub bus: Option<&'a Arc<dyn Any + Send + Sync>>,
}

impl Request<'_> {
    /// The bus of the parent, which must be of this type.
    pub fn parent<T: Send + Sync + 'static>(&self) -> Result<Arc<T>, BuildError> {
        let bus = self.bus.cloned().and_then(|bus| bus.downcast::<T>().ok());
        bus.ok_or(BuildError::NoBus)
    }

    /// The error of a property.
    #[must_use]
    pub fn bad_value(&self, property: &str, reason: impl Into<String>) -> BuildError {
        let value = self.properties.get(property).map(|value| match value {
            device::PropertyValue::Text(text) => text.clone(),
            device::PropertyValue::Unsigned(number) => number.to_string(),
            device::PropertyValue::Signed(number) => number.to_string(),
            other => format!("{other:?}"),
        });
        let (property, value) = (property.to_owned(), value.unwrap_or_default());
        BuildError::BadValue { property, value, reason: reason.into() }
    }

    /// Puts the expansion ROM into the layout: `romfile` if set (empty for none), else the file
    /// `default` of the machine's firmware. A default that is not installed is left out.
    pub fn rom(&self, layout: &mut Layout, default: Option<&str>) -> Result<(), BuildError> {
        if self.properties.auto("rombar") == Some(false) {
            return Ok(());
        }
        let asked = self.properties.text("romfile");
        let Some(name) = asked.or(default).filter(|name| !name.is_empty()) else { return Ok(()) };
        let Some(bytes) = self.surroundings.firmware.load(name) else {
            return match asked {
                Some(_) => Err(self.bad_value("romfile", "the file cannot be read")),
                None => Ok(()),
            };
        };
        layout.rom(rom(name, &bytes)?);
        Ok(())
    }
}

/// The largest expansion ROM.
const ROM_BYTES_MAX: usize = 16 << 20;

/// A ROM with these bytes, in whole pages.
pub fn rom(name: &str, bytes: &[u8]) -> Result<Arc<Ram>, BuildError> {
    if bytes.is_empty() || bytes.len() > ROM_BYTES_MAX {
        let reason = format!("The ROM '{name}' has {} bytes", bytes.len());
        return Err(BuildError::Other(reason));
    }
    let size = (bytes.len() as u64).next_multiple_of(PAGE_SIZE);
    let ram = Ram::new(name, size).map_err(|error| BuildError::Other(error.to_string()))?;
    let fits = ram.write(0, bytes);
    debug_assert!(fits, "the block was made as large as its contents");
    Ok(Arc::new(ram))
}

/// A device that was built.
pub struct Built {
    /// For reset and pause.
    pub device: Arc<dyn Device>,
    /// How it is attached.
    pub attachment: Attachment,
    /// The buses it opens, in the order of their numbers.
    pub buses: Vec<OfferedBus>,
    /// What can be asked of it.
    pub controls: Controls,
}

impl Built {
    /// A PCI function that offers nothing.
    #[must_use]
    pub fn pci<T: PciFunction + 'static>(function: &Arc<T>) -> Self {
        Self {
            device: Arc::clone(function) as Arc<dyn Device>,
            attachment: Attachment::Pci(Arc::clone(function) as Arc<dyn PciFunction>),
            buses: Vec::new(),
            controls: Controls::default(),
        }
    }

    /// A device that has plugged itself into its parent's bus.
    #[must_use]
    pub fn child<T: Child + 'static>(child: &Arc<T>) -> Self {
        Self {
            device: Arc::clone(child) as Arc<dyn Device>,
            attachment: Attachment::Child(Arc::clone(child) as Arc<dyn Child>),
            buses: Vec::new(),
            controls: Controls::default(),
        }
    }

    /// An ISA device.
    #[must_use]
    pub fn isa(device: Arc<dyn Device>, isa: Isa) -> Self {
        let attachment = Attachment::Isa(isa);
        Self { device, attachment, buses: Vec::new(), controls: Controls::default() }
    }

    /// A part of the board itself.
    #[must_use]
    pub fn board(device: Arc<dyn Device>) -> Self {
        let (attachment, controls) = (Attachment::Board, Controls::default());
        Self { device, attachment, buses: Vec::new(), controls }
    }

    /// The same with a bus for others.
    #[must_use]
    pub fn with_bus(mut self, bus: OfferedBus) -> Self {
        self.buses.push(bus);
        self
    }

    /// The same with what can be asked of it.
    #[must_use]
    pub fn with_controls(mut self, controls: Controls) -> Self {
        self.controls = controls;
        self
    }
}

/// How a device is attached.
pub enum Attachment {
    /// The machine plugs it into a slot.
    Pci(Arc<dyn PciFunction>),
    /// The machine gives it ports.
    Isa(Isa),
    /// It has plugged itself into its parent's bus.
    Child(Arc<dyn Child>),
    /// It has registered itself with its surroundings.
    Board,
}

/// A device on a bus that is neither PCI nor ISA.
pub trait Child: Device {
    /// Takes the device off the bus.
    fn unplug(&self);
}

/// An ISA device's registers.
#[derive(Default)]
pub struct Isa {
    /// Ports: first, number, registers.
    pub ports: Vec<(u64, u64, Arc<dyn Io>)>,
    /// Memory, likewise.
    pub memory: Vec<(u64, u64, Arc<dyn Io>)>,
    /// The interrupt it drives, for the tables that tell the system.
    pub irq: Option<u32>,
}

/// A bus that a device opens.
pub struct OfferedBus {
    /// Its name; an empty one stands for the device's id with a number behind.
    pub name: String,
    /// Its kind.
    pub kind: BusKind,
    /// For PCI, the bus.
    pub pci: Option<Arc<Bus>>,
    /// For other kinds, what children downcast.
    pub object: Arc<dyn Any + Send + Sync>,
}

impl OfferedBus {
    /// A bus that is not PCI.
    #[must_use]
    pub fn new<T: Send + Sync + 'static>(kind: BusKind, name: String, object: Arc<T>) -> Self {
        Self { name, kind, pci: None, object }
    }

    /// A PCI bus; its name is the bridge's.
    #[must_use]
    pub fn pci(bus: Arc<Bus>, name: String) -> Self {
        Self { name, kind: BusKind::Pci, pci: Some(Arc::clone(&bus)), object: bus }
    }
}

/// What can be asked of a device from outside, beside reset.
#[derive(Default, Clone)]
pub struct Controls {
    /// It is a memory balloon.
    pub balloon: Option<Arc<dyn Balloon>>,
    /// It is a drive.
    pub drive: Option<Arc<dyn DriveControl>>,
    /// It is a network card.
    pub link: Option<Arc<dyn LinkControl>>,
}

/// A memory balloon.
pub trait Balloon: Send + Sync {
    /// Asks the guest to get by with this much RAM.
    fn set_target(&self, bytes: u64);
    /// What the guest has now.
    fn actual(&self) -> u64;
    /// What the guest last said of its memory: name and value, and when (in Unix seconds).
    fn statistics(&self) -> (Vec<(&'static str, u64)>, u64);
    /// Asks for statistics every so many seconds; 0 for never.
    fn set_polling(&self, seconds: u64);
    /// The interval of [`Balloon::set_polling`].
    fn polling(&self) -> u64;
}

/// A drive with a medium.
pub trait DriveControl: Send + Sync {
    /// The medium is of another size.
    fn resized(&self);
    /// Whether the medium can be taken out.
    fn is_removable(&self) -> bool {
        false
    }
    /// Whether the guest holds the medium fast.
    fn is_locked(&self) -> bool {
        false
    }
    /// Whether the tray is open; none for drives without one.
    fn tray(&self) -> Option<bool> {
        None
    }
    /// Opens the tray, or asks the guest to where it has locked it. False when it only asked.
    fn open_tray(&self, force: bool) -> bool {
        _ = force;
        true
    }
    /// Closes the tray.
    fn close_tray(&self) {}
    /// Puts another medium in, or none.
    fn set_medium(&self, medium: Option<Arc<dyn block::Node>>) {
        _ = medium;
    }
}

/// A network card.
pub trait LinkControl: Send + Sync {
    /// Plugs the cable in or out.
    fn set_link(&self, up: bool);
    /// Its hardware address.
    fn mac(&self) -> [u8; 6];
}

/// Why a device cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A property that must be set.
    #[error("Property '{property}' is required")]
    Missing {
        /// Which.
        property: String,
    },
    /// A value that the device does not take.
    #[error("Property '{property}' cannot be '{value}': {reason}")]
    BadValue {
        /// Which.
        property: String,
        /// What was set.
        value: String,
        /// What would be right.
        reason: String,
    },
    /// Nothing of that name.
    #[error("Property '{property}': there is no '{value}'")]
    NoSuchBackend {
        /// Which property.
        property: String,
        /// What was set.
        value: String,
    },
    /// Somebody else has it.
    #[error("Property '{property}': '{value}' is in use by '{by}'")]
    InUse {
        /// Which property.
        property: String,
        /// What was set.
        value: String,
        /// The device that has it.
        by: String,
    },
    /// The parent is of another kind.
    #[error("There is no bus to plug it into")]
    NoBus,
    /// In words.
    #[error("{0}")]
    Other(String),
}
