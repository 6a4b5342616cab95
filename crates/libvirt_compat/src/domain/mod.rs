//! Domain documents: the order libvirt writes them in, and the defaults it fills in whatever the
//! hypervisor. What a hypervisor adds (controllers, addresses, machine types) is its driver's.

mod order;
mod defaults;
mod normal;
mod quantity;
mod summary;

pub use defaults::{Defaults, complete, complete_device, default_bus};
pub use order::{arrange, arrange_device};
pub use quantity::{kibibytes, scaled_bytes};
pub use summary::Summary;

/// The elements of `<devices>` that are devices: `<emulator>` is not.
pub fn is_device(name: &str) -> bool {
    name != "emulator" && order::DEVICES.contains(&name)
}
