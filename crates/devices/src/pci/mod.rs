//! What host bridges and PCI bridges share: the configuration ports, shadow RAM, windows that move.

mod bridge;
mod config_ports;
mod ecam;
mod pam;
mod pirq;
mod root_port;
mod window;

pub use bridge::{BridgeWindows, MODELS as BRIDGE_MODELS, PciBridge};
pub use config_ports::ConfigPorts;
pub use ecam::Ecam;
pub use pam::Pam;
pub use pirq::{OldLines, PirqRouter};
pub use root_port::{MODELS as ROOT_PORT_MODELS, RootPort};
pub use window::Window;

/// The vendor of Intel's chips.
pub const INTEL: u16 = 0x8086;
/// The vendor of paravirtual and generic devices.
pub const RED_HAT: u16 = 0x1b36;
/// The subsystem that marks a chip of a virtual board, as guests' drivers know it.
pub const SUBSYSTEM: (u16, u16) = (0x1af4, 0x1100);
