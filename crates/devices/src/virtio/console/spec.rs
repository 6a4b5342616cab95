//! Virtio 1.3, 5.3: console device.

/// Several ports, and orders about them.
pub const F_MULTIPORT: u64 = 1 << 1;
/// A byte can be written without a ring.
pub const F_EMERGENCY_WRITE: u64 = 1 << 2;

/// The driver works, or does not.
pub const DEVICE_READY: u16 = 0;
/// There is a port.
pub const DEVICE_ADD: u16 = 1;
/// A port is gone.
pub const DEVICE_REMOVE: u16 = 2;
/// The driver has set a port up, or could not.
pub const PORT_READY: u16 = 3;
/// The port is a console.
pub const CONSOLE_PORT: u16 = 4;
/// The other end is open, or closed.
pub const PORT_OPEN: u16 = 6;
/// The port has a name.
pub const PORT_NAME: u16 = 7;

/// Port, event, value.
pub const CONTROL_BYTES: usize = 8;
/// Where the configuration takes a byte in an emergency.
pub const CONFIG_EMERGENCY: usize = 8;

/// The queue of orders to the driver.
pub const CONTROL_TO_DRIVER: u16 = 2;
/// The queue of orders from the driver.
pub const CONTROL_FROM_DRIVER: u16 = 3;

/// The queues of a port: to the driver, from the driver.
pub fn port_queues(number: u32) -> (u16, u16) {
    let first = if number == 0 { 0 } else { 2 + 2 * number as u16 };
    (first, first + 1)
}

/// The port of a queue that is not one of orders, and whether the driver fills it.
pub fn queue_port(queue: u16) -> (u32, bool) {
    let number = if queue < 2 { 0 } else { u32::from(queue / 2).saturating_sub(1) };
    (number, queue % 2 == 1)
}
