//! Registers of PCI's configuration space, as PCI Local Bus 3.0 and PCI Express Base number them.

/// Vendor, device.
pub const VENDOR: u16 = 0x00;
/// Device.
pub const DEVICE: u16 = 0x02;
/// What the function may do.
pub const COMMAND: u16 = 0x04;
/// What has befallen it.
pub const STATUS: u16 = 0x06;
/// Revision, then three bytes of class.
pub const REVISION: u16 = 0x08;
/// Programming interface, subclass, class.
pub const CLASS: u16 = 0x09;
/// Set by systems, used by nobody.
pub const CACHE_LINE: u16 = 0x0c;
/// Likewise.
pub const LATENCY: u16 = 0x0d;
/// Layout of what follows; bit 7: the slot has several functions.
pub const HEADER_TYPE: u16 = 0x0e;
/// The first base address.
pub const BAR0: u16 = 0x10;
/// The board's maker, of endpoints.
pub const SUBSYSTEM_VENDOR: u16 = 0x2c;
/// The board.
pub const SUBSYSTEM: u16 = 0x2e;
/// The expansion ROM's address, of endpoints.
pub const ROM: u16 = 0x30;
/// The first capability.
pub const CAPABILITIES: u16 = 0x34;
/// Where systems note the interrupt.
pub const INTERRUPT_LINE: u16 = 0x3c;
/// 0 for none, 1 to 4 for A to D.
pub const INTERRUPT_PIN: u16 = 0x3d;

/// Of bridges: the bus above.
pub const PRIMARY_BUS: u16 = 0x18;
/// Of bridges: the bus below.
pub const SECONDARY_BUS: u16 = 0x19;
/// Of bridges: the last bus below.
pub const SUBORDINATE_BUS: u16 = 0x1a;
/// Of bridges: first and last port that pass, bits 12 to 15 of each.
pub const IO_WINDOW: u16 = 0x1c;
/// Of bridges: status of the bus below.
pub const SECONDARY_STATUS: u16 = 0x1e;
/// Of bridges: memory that passes, bits 20 to 31 of each end.
pub const MEMORY_WINDOW: u16 = 0x20;
/// Of bridges: prefetchable memory that passes, low halves.
pub const PREFETCHABLE_WINDOW: u16 = 0x24;
/// Of bridges: its upper halves.
pub const PREFETCHABLE_UPPER: u16 = 0x28;
/// Of bridges: upper halves of the port window.
pub const IO_WINDOW_UPPER: u16 = 0x30;
/// Of bridges: the expansion ROM's address.
pub const BRIDGE_ROM: u16 = 0x38;
/// Of bridges: reset below, VGA below.
pub const BRIDGE_CONTROL: u16 = 0x3e;

/// Ports are decoded.
pub const COMMAND_IO: u16 = 1;
/// Memory is decoded.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// The function may access memory, and send interrupt messages.
pub const COMMAND_MASTER: u16 = 1 << 2;
/// The interrupt pin is switched off.
pub const COMMAND_INTX_OFF: u16 = 1 << 10;
/// The interrupt pin is asserted.
pub const STATUS_INTX: u16 = 1 << 3;
/// There are capabilities.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Of bridges: everything below is held in reset.
pub const CONTROL_RESET: u16 = 1 << 6;
/// Of bridges: VGA's old addresses pass.
pub const CONTROL_VGA: u16 = 1 << 3;

/// Capability: power management.
pub const CAPABILITY_POWER: u8 = 0x01;
/// Capability: message-signalled interrupts.
pub const CAPABILITY_MSI: u8 = 0x05;
/// Capability: what the vendor likes.
pub const CAPABILITY_VENDOR: u8 = 0x09;
/// Capability: subsystem of a bridge.
pub const CAPABILITY_SUBSYSTEM: u8 = 0x0d;
/// Capability: PCI Express.
pub const CAPABILITY_EXPRESS: u8 = 0x10;
/// Capability: message-signalled interrupts from a table.
pub const CAPABILITY_MSIX: u8 = 0x11;
/// Capability: serial ATA.
pub const CAPABILITY_SATA: u8 = 0x12;
