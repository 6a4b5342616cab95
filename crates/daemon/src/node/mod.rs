//! The host: processors, memory, devices, interfaces, filters.

mod devices;
mod host;
mod interfaces;

pub use devices::{NodeDevice, NodeDevices};
pub use host::{NodeInfo, WireInfo, cpu_stats, free_memory, host_info, hostname, memory_stats};
pub use interfaces::{Interface, Interfaces};

/// What a world shows of its host.
#[derive(Default)]
pub struct Node {
    pub devices: NodeDevices,
    pub interfaces: Interfaces,
}
