//! fw_cfg: the paravirtual device from which firmware takes what the machine wants it to know.
//! Documentation: the interface's specification, "QEMU Firmware Configuration (fw_cfg) Device".
//!
//! Every PC board has one at ports 0x510 to 0x51b; `-fw_cfg name=opt/...` adds files to it.

mod chip;
mod items;
mod ports;

pub use chip::{Chip, Command, Outcome};
pub use items::{Files, Source, key};
pub use ports::{DmaPorts, FwCfg, SelectorPorts};

/// Selector and data.
pub const PORT: u64 = 0x510;
/// The address of a DMA request.
pub const DMA_PORT: u64 = 0x514;
