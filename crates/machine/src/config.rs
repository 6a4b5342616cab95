//! What a machine is made of. Every value is decided; defaults belong to whoever reads options.

use std::sync::Arc;

use accel::kvm::{self, KvmError};
use accel::{Identity, TranslatorOptions};
use device::{EventSink, Properties, PropertyValue};
use devices::catalog::BuildError;
use devices::surroundings::{Backends, Firmware as FirmwareFiles};
use memory::RamError;

use crate::boot::{BootError, Kernel};
use crate::run_state::Actions;
use crate::smbios::Smbios;

/// MADT's identifiers have 8 bits, of which the last means "all".
pub const PROCESSORS_MAX: usize = 254;

/// Which board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardKind {
    /// i440FX and PIIX: a conventional PCI bus, `pci.0`.
    Pc,
    /// Q35 and ICH9: an express root bus, `pcie.0`.
    Q35,
    /// No PCI, and places for virtio devices behind registers in memory.
    Microvm,
}

impl BoardKind {
    /// The name of the root bus.
    #[must_use]
    pub fn root_bus(self) -> &'static str {
        match self {
            Self::Pc => "pci.0",
            Self::Q35 => "pcie.0",
            Self::Microvm => "microvm",
        }
    }

    /// Devices that are soldered to the board, and are rows of the catalog all the same.
    pub(crate) fn own_parts(self) -> Vec<Part> {
        let disks = |model: &str, slot, function| {
            let mut properties = Properties::default();
            properties.set("addr", PropertyValue::PciAddress(slot, function));
            Part { model: model.to_owned(), id: Some("ide".to_owned()), bus: None, properties }
        };
        match self {
            Self::Pc => vec![disks("piix3-ide", 1, 1)],
            Self::Q35 => vec![disks("ich9-ahci", 31, 2)],
            Self::Microvm => Vec::new(),
        }
    }
}

/// What a machine is made of.
pub struct Config {
    /// Which board.
    pub board: BoardKind,
    /// Bytes of RAM, whole pages.
    pub ram_bytes: u64,
    /// vCPUs.
    pub processors: usize,
    /// What they say of themselves.
    pub identity: Identity,
    /// What runs first.
    pub boot: Boot,
    /// The devices that are no part of the board, in the order in which they are plugged in.
    pub parts: Vec<Part>,
    /// What parts are connected to, by name.
    pub backends: Arc<Backends>,
    /// Images of firmware and expansion ROMs.
    pub firmware_files: Arc<dyn FirmwareFiles>,
    /// Who hears of events.
    pub events: Arc<dyn EventSink>,
    /// The board has a keyboard controller.
    pub i8042: bool,
    /// The board has an HPET.
    pub hpet: bool,
    /// Old chips that a small board may do without.
    pub old_chips: OldChips,
    /// The machine's number among all machines.
    pub uuid: [u8; 16],
    /// What the tables say of maker and model.
    pub smbios: Smbios,
    /// Files for firmware and guest: names (`opt/...`) and contents.
    pub fw_cfg: Vec<(String, Vec<u8>)>,
    /// The real-time clock's offset from the host's UTC, in seconds.
    pub clock_offset_s: i64,
    /// What is done when the guest goes off or resets.
    pub actions: Actions,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
}

/// Old chips that a small board may do without; PCs have all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldChips {
    /// The pair of interrupt controllers.
    pub pic: bool,
    /// The timer.
    pub pit: bool,
    /// The clock.
    pub rtc: bool,
}

impl OldChips {
    /// As every PC has them.
    pub const ALL: Self = Self { pic: true, pit: true, rtc: true };
}

/// What runs the guest's instructions.
pub enum Accelerator {
    /// The translator.
    Translator(TranslatorOptions),
    /// The host's processors.
    Kvm(kvm::Options),
}

/// What runs first.
#[derive(Default)]
pub struct Boot {
    /// The system ROM (SeaBIOS), in whole 64 KiB. Without it, and without flash, the kernel is
    /// started by the machine itself.
    pub rom: Option<Vec<u8>>,
    /// Flash chips below 4 GiB, the first one uppermost: UEFI's code and its variables.
    pub flash: [Option<Arc<dyn block::Node>>; 2],
    /// A Linux kernel.
    pub kernel: Option<Kernel>,
    /// Firmware asks what to boot.
    pub menu: bool,
    /// How long it asks, in milliseconds.
    pub menu_ms: u16,
    /// Without anything to boot, firmware tries again after so many milliseconds; none: never.
    pub retry_ms: Option<u32>,
    /// The old boot order: `c` disk, `d` CD-ROM, `n` network, `a` floppy.
    pub order: String,
}

impl Boot {
    /// Whether firmware runs first.
    #[must_use]
    pub fn has_firmware(&self) -> bool {
        self.rom.is_some() || self.flash[0].is_some()
    }
}

/// A device that is plugged in.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its model's name in the catalog.
    pub model: String,
    /// Its name, or none: the machine makes one up.
    pub id: Option<String>,
    /// The bus it goes to, by name, or none: the first that fits.
    pub bus: Option<String>,
    /// What is set. Held against the model's declarations by whoever has read it.
    pub properties: Properties,
}

/// Why a machine cannot be built, or a part not be plugged in.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// See the source.
    #[error("Cannot allocate guest memory")]
    Ram(#[from] RamError),
    /// See the source.
    #[error("Cannot boot the kernel")]
    Boot(#[from] BootError),
    /// See the source.
    #[error("Cannot start the translator")]
    Translator(#[source] std::io::Error),
    /// See the source.
    #[error("Cannot run processors on KVM")]
    Kvm(#[from] KvmError),
    /// Too many, or none.
    #[error("The machine can have 1 to {PROCESSORS_MAX} CPUs, not {count}")]
    Processors {
        /// What was asked for.
        count: usize,
    },
    /// Less than the low megabyte.
    #[error("The machine needs at least 2 MiB of RAM, not {bytes} bytes")]
    TooSmall {
        /// What was asked for.
        bytes: u64,
    },
    /// Neither firmware nor kernel.
    #[error("There is neither firmware nor a kernel to boot")]
    NothingToBoot,
    /// Not a size that a ROM has.
    #[error("The firmware image has {bytes} bytes, and not a number of 64 KiB up to 16 MiB")]
    RomSize {
        /// What it has.
        bytes: usize,
    },
    /// A flash chip does not fit.
    #[error("Flash {number} has {bytes} bytes, and not a number of 4 KiB up to 8 MiB in all")]
    FlashSize {
        /// Which.
        number: usize,
        /// What it has.
        bytes: u64,
    },
    /// A back end's error.
    #[error("Flash {number} cannot be read")]
    Flash {
        /// Which.
        number: usize,
        /// What the back end says.
        source: block::Error,
    },
    /// A file for firmware has no good name, or there are too many.
    #[error("The file '{name}' cannot be given to firmware")]
    FirmwareFile {
        /// Its name.
        name: String,
    },
    /// A part.
    #[error("Cannot plug in '{id}' ({model})")]
    Part {
        /// Its name.
        id: String,
        /// Its model.
        model: String,
        /// Why not.
        source: Box<PartError>,
    },
}

/// Why a part cannot be plugged in.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// No such row in the catalog.
    #[error("There is no such model")]
    NoSuchModel,
    /// Two parts of one name.
    #[error("The name is in use")]
    NameInUse,
    /// No bus of this name.
    #[error("There is no bus '{bus}'")]
    NoSuchBus {
        /// What was asked for.
        bus: String,
    },
    /// The bus is there and is of another kind.
    #[error("The bus '{bus}' is of another kind")]
    WrongBus {
        /// What was asked for.
        bus: String,
    },
    /// No bus has room, or there is none of the kind.
    #[error("No bus of the kind has a free slot")]
    NoFreeBus,
    /// It is there only as a part of the board.
    #[error("It cannot be plugged in while the machine runs")]
    NotHotpluggable,
    /// The slot.
    #[error("Slot {slot}.{function} of bus '{bus}' cannot be had")]
    Slot {
        /// The bus.
        bus: String,
        /// The slot.
        slot: u8,
        /// The function.
        function: u8,
        /// Why not.
        source: device::pci::PlugError,
    },
    /// The device itself.
    #[error(transparent)]
    Build(#[from] BuildError),
}
