//! A machine: a board with its chips, what it boots, and its run state.
//!
//! [`Machine::new`] builds it from a [`Config`], [`Machine::run`] is its main loop: it rings timers
//! and does what the guest or the outside asks for (reset, power-off, pause) until it ends.

mod a20;
mod accelerator;
mod acpi;
mod boot;
mod board;
mod boot_order;
mod chips;
mod config;
mod firmware;
mod host_bridge;
mod main_loop;
mod parts;
mod resets;
mod run_state;
mod smbios;
mod state;
mod survey;

pub use accel::identity::{self, Identity, Topology};
pub use accel::inspect;
pub use accel::jit::{Watch, native_identity, native_register};
pub use accel::{DebugStop, Pace, Registers, TranslatorOptions, kvm};
pub use board::Machine;
pub use boot::{BootError, Kernel};
pub use config::{
    Accelerator, BoardKind, Boot, Config, MachineError, OldChips, PROCESSORS_MAX, Part, PartError,
};
pub use device::{
    Axis, Blob, Button, Cursor, DeviceEvent, EventSink, InputDevice, InputEvent, Inputs, NoEvents,
    Picture, Properties, PropertyKind, PropertyValue, Rectangle, Screen, Screens, Stream,
    StreamEvent, StreamPeer,
};
pub use devices::virtio::ninep as shares;
pub use devices::virtio::rng::KernelEntropy;
pub use devices::{catalog, surroundings, vmgenid};
pub use main_loop::{End, Request, Requests};
pub use memory::{AddressSpace, Owner, Region};
pub use parts::{Plugged, Unplug};
pub use run_state::{
    Actions, Cause, MachineEvent, Observer, PanicAction, PanicOutcome, RunControl, RunState,
};
pub use smbios::{
    Bios, Board as SmbiosBoard, Chassis, MemoryDevice, OnboardDevice, PortConnector,
    Processor as SmbiosProcessor, Smbios, System,
};
pub use state::{MAGIC, Progress, Saving, StreamError};
pub use survey::{PciBar, PciBridge, PciDevice};
