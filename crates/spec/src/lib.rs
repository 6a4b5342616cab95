//! A virtual machine, described: no tool's names, no behaviour, no defaults.
//!
//! What was typed is parsed into this, what runs is built from it, and command lines are written
//! from it. Identifiers are chosen by whoever makes the description; they name devices towards
//! monitors.

pub mod device;

pub use device::Device;

/// A machine with everything in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// For people and process lists.
    pub name: String,
    /// In text form.
    pub uuid: String,
    /// The board's versioned name, such as `pc-q35-7.2`.
    pub board: String,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// The processor's model and what is added to or taken from it.
    pub processor: Processor,
    /// How many processors.
    pub topology: Topology,
    /// Guest memory.
    pub memory_bytes: u64,
    /// What starts first.
    pub boot: Boot,
    /// The real-time clock.
    pub clock: Clock,
    /// Power management by ACPI.
    pub acpi: bool,
    /// Whether the guest may sleep into memory, and onto a disk; `None` leaves it to the board.
    pub sleep: (Option<bool>, Option<bool>),
    /// The high precision timer; `None` leaves it to the board.
    pub hpet: Option<bool>,
    /// Lost ticks of the interval timer are delayed rather than made up.
    pub pit_delay: bool,
    /// In the order in which they are to be made: buses before what sits on them.
    pub devices: Vec<Device>,
}

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's processor, through KVM.
    Kvm,
    /// A translator.
    Translator,
}

/// A processor model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// `host`, `max` or a model's name.
    pub model: String,
    /// Features switched on or off.
    pub features: Vec<(String, bool)>,
}

/// How many processors, and how they hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// At the start.
    pub count: u32,
    /// With all that may be plugged in.
    pub maximum: u32,
    /// Sockets.
    pub sockets: u32,
    /// Cores in a socket.
    pub cores: u32,
    /// Threads in a core.
    pub threads: u32,
}

/// What starts first.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Boot {
    /// Firmware in flash: the code, and the guest's own variables.
    pub flash: Option<Flash>,
    /// A kernel loaded directly.
    pub kernel: Option<Kernel>,
    /// Show the firmware's menu.
    pub menu: Option<bool>,
}

/// Firmware in flash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flash {
    /// The code, read-only.
    pub code: String,
    /// The variables, writable.
    pub variables: Option<String>,
}

/// A kernel loaded directly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel's file.
    pub image: String,
    /// The initial RAM disk's file.
    pub initrd: Option<String>,
    /// The kernel's command line.
    pub command_line: Option<String>,
    /// A device tree.
    pub device_tree: Option<String>,
}

/// The real-time clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    /// `utc`, `localtime`, or a date.
    pub base: String,
    /// Ticks that were lost are caught up slowly.
    pub slew: bool,
}
